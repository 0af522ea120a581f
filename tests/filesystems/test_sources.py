"""One suite of behaviours for every place that blobs come from: what a source gives, and what it refuses."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from holo import platform
from holo.catalog import Catalog
from holo.content import Hole
from holo.errors import HoloError, IntegrityError
from holo.hololib import Library
from holo.hololib.recovery import locked_library
from holo.transport import bundle as bundles
from holo.transport.adopt import Wanted, adopt
from holo.transport.source import Folder, Source, verified_pieces
from support import contents, hostile_bundles, trees
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks
from support.hostile_bundles import D, Item, Zip

RANDOM = random.Random(1).randbytes(1 << 20)
CONTENTS = {
    "small": b"hello\n",
    "text": b"".join(b"line %d\n" % number for number in range(3000)),
    "large": RANDOM + RANDOM[:5000],
    "twin": RANDOM[: 1 << 19] + b"x" * 4096 + RANDOM[(1 << 19) + 4096 :],
    "sparse": bytes(200_000) + b"island" * 1000 + bytes(100_000),
    "empty": b"",
}
DIGESTS = {name: contents.digest(content) for name, content in CONTENTS.items()}
NAMES = list(CONTENTS)


def tree(root: Path) -> Path:
    for name, content in CONTENTS.items():
        trees.write(root / name, content if name != "sparse" else b"")
    with (root / "sparse").open("r+b") as file:
        file.seek(200_000)
        file.write(b"island" * 1000)
        file.truncate(len(CONTENTS["sparse"]))
    return trees.settle(root)


def shard(root: Path, digest: str) -> Path:
    path = root / "library" / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Place:
    """A source, and how it is spoilt."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.root = root
        self.tree = tree(root / "tree")
        self.holo = ForkedHolo(root, forks)

    @contextmanager
    def opened(self) -> Iterator[Source]:
        raise NotImplementedError

    def spoil(self, name: str) -> None:
        """Let the source have other bytes for a content, of the same size."""
        raise NotImplementedError


class RawFolder(Place):
    def __init__(self, root: Path, forks: Forks) -> None:
        super().__init__(root, forks)
        for name, digest in DIGESTS.items():
            os.link(self.tree / name, shard(root, digest))

    @contextmanager
    def opened(self) -> Iterator[Source]:
        yield Folder(str(self.root / "library"))

    def spoil(self, name: str) -> None:
        path = shard(self.root, DIGESTS[name])
        path.unlink()
        path.write_bytes(other(CONTENTS[name]))


class CompressedFolder(RawFolder):
    def __init__(self, root: Path, forks: Forks) -> None:
        Place.__init__(self, root, forks)
        for name, digest in DIGESTS.items():
            frame = zstandard.ZstdCompressor().compress(CONTENTS[name])
            shard(root, digest).with_suffix(".zst").write_bytes(frame)

    def spoil(self, name: str) -> None:
        frame = zstandard.ZstdCompressor().compress(other(CONTENTS[name]))
        shard(self.root, DIGESTS[name]).with_suffix(".zst").write_bytes(frame)


class RawBundle(Place):
    options: tuple[str, ...] = ()

    def __init__(self, root: Path, forks: Forks) -> None:
        super().__init__(root, forks)
        self.holo("record", self.tree, "--name", "app")
        self.path = root / "app.holo"
        self.holo("export", "app", "-o", self.path, *self.options)

    @contextmanager
    def opened(self) -> Iterator[Source]:
        with bundles.opened(str(self.path)) as bundle:
            assert {"twin", "sparse"} <= {name for name in NAMES if bundle.builds_on_others(DIGESTS[name])}
            yield bundle

    def spoil(self, name: str) -> None:
        with bundles.opened(str(self.path)) as bundle:
            found = [entry for entry in bundle.entries if entry.name.endswith(DIGESTS[name]) and entry.stored]
        data = bytearray(self.path.read_bytes())
        for entry in found:
            at = entry.data + entry.stored - 1
            data[at] ^= 0xFF
        self.path.write_bytes(data)


class CompressedBundle(RawBundle):
    options = ("--compress",)


@pytest.fixture(params=[RawFolder, CompressedFolder, RawBundle, CompressedBundle])
def place(request: pytest.FixtureRequest, filesystem: Filesystem, forks: Forks) -> Place:
    made: Place = request.param(filesystem.root, forks)
    return made


def other(content: bytes) -> bytes:
    """Other bytes, as many."""
    return bytes([content[0] ^ 0xFF]) + content[1:]


local = pytest.mark.parametrize("filesystem", ["xfs", "tmpfs"], indirect=True)


@local
def test_a_source_has_what_it_gives(place: Place) -> None:
    with place.opened() as source:
        assert str(place.root) in source.name
        for name, content in CONTENTS.items():
            digest = DIGESTS[name]
            assert source.has(digest, len(content))
            with source.open(digest, len(content)) as offer:
                assert offer.size == len(content)
                pieces = [*offer.pieces()]
                assert b"".join(map(bytes, pieces)) == content
                length = sum(stretch.length for stretch in offer.stretches)
                assert length == (len(content) if offer.frame is None else 0)
                if offer.frame is None and name == "sparse":
                    assert sum(len(piece) for piece in pieces if isinstance(piece, Hole)) > 250_000
            assert b"".join(map(bytes, verified_pieces(source, digest, len(content)))) == content


@local
def test_a_source_has_nothing_else(place: Place) -> None:
    with place.opened() as source:
        for digest, size in [("ab" * 32, 6), (DIGESTS["small"], 7), (DIGESTS["twin"], 5), (DIGESTS["sparse"], 1)]:
            # A file that has the name is said to be there: what is wrong with it, opening it tells.
            assert source.has(digest, size) == (isinstance(place, RawFolder) and digest in DIGESTS.values())
            with pytest.raises(IntegrityError):
                b"".join(map(bytes, verified_pieces(source, digest, size)))


@local
@pytest.mark.parametrize("name", [name for name in NAMES if CONTENTS[name]])
def test_wrong_content_is_never_given_out_whole(name: str, place: Place) -> None:
    place.spoil(name)
    given: list[bytes] = []
    with place.opened() as source, pytest.raises(IntegrityError, match=DIGESTS[name]):
        given.extend(map(bytes, verified_pieces(source, DIGESTS[name], len(CONTENTS[name]))))
    assert sum(map(len, given)) < len(CONTENTS[name])


@local
def test_what_is_adopted_is_right(place: Place, filesystem: Filesystem) -> None:
    with place.opened() as source, locked(filesystem.root) as library:
        catalog = catalog_of(DIGESTS)
        done = adopt(library, [Wanted(catalog, "app", "a test")], source)
        assert (done.blobs_new, done.blobs_known) == (len(CONTENTS), 0)
        for name, content in CONTENTS.items():
            assert b"".join(map(bytes, library.blobs.chunks(DIGESTS[name], len(content)))) == content
        again = adopt(library, [Wanted(catalog, "again", "a test")], source)
        assert (again.blobs_new, again.blobs_known) == (0, len(CONTENTS))


@local
@pytest.mark.parametrize("name", ["small", "large", "twin", "sparse"])
def test_nothing_is_adopted_with_wrong_content(name: str, place: Place, filesystem: Filesystem) -> None:
    place.spoil(name)
    with place.opened() as source, locked(filesystem.root) as library:
        with pytest.raises(IntegrityError):
            adopt(library, [Wanted(catalog_of(DIGESTS), "app", "a test")], source)
        assert library.catalogs.summaries() == []


@local
def test_nothing_is_adopted_without_all_content(place: Place, filesystem: Filesystem) -> None:
    with place.opened() as source, locked(filesystem.root) as library:
        catalog = catalog_of({**DIGESTS, "more": "ab" * 32}, more=9)
        with pytest.raises(HoloError, match="1 of the blobs"):
            adopt(library, [Wanted(catalog, "app", "a test")], source)
        assert library.catalogs.summaries() == []
        assert not library.blobs.has(DIGESTS["small"], len(CONTENTS["small"]))


@pytest.mark.parametrize("filesystem", ["xfs", "btrfs"], indirect=True)
def test_the_disk_is_waited_for_while_others_store(
    filesystem: Filesystem, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error counts then as well. On Btrfs it is waited for only at the end."""
    calls = []

    def sync(_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("holo.transport.source._TASK_BLOBS", 1)
    monkeypatch.setattr("holo.transport.adopt._TASKS_TO_SETTLE", 2)
    monkeypatch.setattr("holo.workers.pool.forks", lambda _: True)
    monkeypatch.setattr("holo.platform.sync_filesystem", sync)
    place = RawFolder(filesystem.root, forks)
    with place.opened() as source, locked(filesystem.root) as library:
        with pytest.raises(HoloError, match="Input/output error"):
            adopt(library, [Wanted(catalog_of(DIGESTS), "app", "a test")], source)
        assert library.catalogs.summaries() == []
        assert any(name.startswith("failed-") for name in os.listdir(Path(library.path) / "unsettled"))
        there = sum(library.blobs.has(DIGESTS[name], len(content)) for name, content in CONTENTS.items())
        assert there == (2 if filesystem.name == "xfs" else len(CONTENTS))


@local
def test_a_source_tries_whether_blocks_can_be_shared(place: Place, filesystem: Filesystem) -> None:
    with place.opened() as source, platform.closing(platform.open_root(str(filesystem.root))) as directory:
        why = source.why_no_reflink(directory)
        assert (why is None) == (type(place) is RawBundle and filesystem.reflinks)
        before = sorted(os.listdir(filesystem.root))
        source.why_no_reflink(directory)
        assert sorted(os.listdir(filesystem.root)) == before


def catalog_of(digests: dict[str, str], **sizes: int) -> Catalog:
    sizes = {name: len(content) for name, content in CONTENTS.items()} | sizes
    rows = [[name, 0o644, sizes[name], 0, digest] for name, digest in sorted(digests.items())]
    document = {"version": 1, "prefix": "/opt/env", "directories": [["", 0o755, 0, rows, []]]}
    return Catalog.from_json(hostile_bundles.canonical(document), "a test")


@contextmanager
def locked(root: Path) -> Iterator[Library]:
    library = Library(str(root / "other" / "hololib"))
    with locked_library(library, exclusive=False):
        yield library
    for part in ("blobs", "links"):
        if part in library.__dict__:
            getattr(library, part).close()


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_a_bundle_that_changes_is_not_relied_upon(filesystem: Filesystem) -> None:
    path = filesystem.root / "app.holo"
    path.write_bytes(hostile_bundles.SOUND)
    os.utime(path, ns=(0, 0))
    with bundles.opened(str(path)) as bundle:
        with path.open("r+b") as file:
            file.seek(hostile_bundles.SOUND.index(hostile_bundles.BASE))
            file.write(b"other")
        assert not bundle.is_unchanged()
    with path.open("r+b"), bundles.opened(str(path)) as bundle:  # somebody has it open to write
        assert not bundle.is_unchanged()


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_what_only_parts_name_is_found_in_no_other_way(filesystem: Filesystem) -> None:
    path = filesystem.root / "app.holo"
    path.write_bytes(Zip([*hostile_bundles.items()[:-1], Item("extents.json", b"{}\n")]).to_bytes())
    with pytest.raises(IntegrityError), bundles.opened(str(path)):  # the rest of a blob that is not put together
        pass
    path.write_bytes(hostile_bundles.SOUND)
    with bundles.opened(str(path)) as bundle:
        whole = {entry.name.rpartition("/")[2] for entry in bundle.entries if entry.name.startswith("library/")}
        assert whole | set(bundle.parts) == set(D.values())
