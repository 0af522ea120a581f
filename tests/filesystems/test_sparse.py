"""Sparse files: their holes are never read, written or hashed, and are where they were in every copy."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holo import digest as digests
from holo import platform
from holo.catalog import Relocation
from holo.content import Hole, Piece, pieces_of, write_sparse
from holo.digest import BLOCK, Hasher
from holo.errors import CatalogInvalid
from holo.hololib import Library
from holo.hololib.blobs import Blobs, raw_name
from holo.hololib.recovery import locked_library
from holo.record import record
from holo.relocation.find import PrefixFinder, find
from holo.relocation.patch import Relocator, splice
from support import compare, contents, trees
from support.cli import Holo
from support.compare import data_map
from support.filesystems import Filesystem

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

HUGE = 20 << 30
LITTLE = 100 << 20
"""Bytes that a command may read and write, Python's own modules among them."""

Layout = list[tuple[str, int]]
"""Stretches of a file: ``data``, ``zeros`` that take space, or a ``hole``; and how many bytes."""


def write(path: Path, layout: Layout) -> Path:
    """A file with this layout, whose data is never zero."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = random.Random(7)
    with path.open("wb", buffering=0) as file:
        file.truncate(sum(count for _, count in layout))  # first, for behind what is appended XFS allocates ahead
        for kind, count in layout:
            if kind == "hole":
                file.seek(count, os.SEEK_CUR)
            else:
                file.write(generator.randbytes(count).replace(b"\0", b"x") if kind == "data" else bytes(count))
    os.utime(path, ns=(trees.SOME_TIME, trees.SOME_TIME))
    return path


def pieces(path: Path) -> list[Piece]:
    with path.open("rb") as file:
        return [*pieces_of(file.fileno(), path.stat().st_size)]


def digest_of(parts: list[Piece]) -> str:
    hasher = Hasher()
    for part in parts:
        hasher.update(part)
    assert hasher.hexdigest() == hasher.hexdigest()
    return hasher.hexdigest()


# -- the digest -----------------------------------------------------------------------------------------------------


COUNTS = st.one_of(
    st.sampled_from([1, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 5 * BLOCK]), st.integers(1, 3 * BLOCK)
)
LAYOUTS = st.lists(st.tuples(st.sampled_from(["data", "zeros", "hole"]), COUNTS), max_size=6)
SIZES = st.lists(
    st.one_of(st.sampled_from([1000, 4096, BLOCK, BLOCK + 1]), st.integers(500, 300_000)), min_size=1, max_size=3
)


@given(LAYOUTS, SIZES)
@example([], [1000])
@example([("hole", 100)], [1000])
@example([("hole", BLOCK)], [1000])
@example([("hole", BLOCK - 1), ("data", 1), ("zeros", BLOCK)], [BLOCK - 1, 1])
@example([("data", BLOCK), ("zeros", 3 * BLOCK), ("data", 10)], [BLOCK])
@example([("data", 10), ("hole", 40 * BLOCK), ("zeros", 5), ("data", 1)], [300_000])
@settings(max_examples=80, deadline=None)
def test_digest_is_the_same_by_every_way_of_reading(
    tmp_path_factory: pytest.TempPathFactory, layout: Layout, sizes: list[int]
) -> None:
    """In pieces of any size, with holes or with zeros that take space, raw or compressed."""
    folder = tmp_path_factory.mktemp("ways")
    path = write(folder / "file", layout)
    content = path.read_bytes()
    expected = contents.digest(content)
    assert digests.of(content) == expected
    assert digest_of([*cut(content, sizes)]) == expected
    assert digest_of(pieces(path)) == expected
    assert digest_of([part for piece in pieces(path) for part in cut(piece, sizes)]) == expected
    with path.open("rb") as file:
        assert digests.of_file(file.fileno()) == expected

    (folder / "library").mkdir()
    blobs = Blobs(str(folder / "library"))
    try:
        blobs.add(expected, cut(content, sizes), len(content), compress=True)
        assert b"".join(map(bytes, blobs.chunks(expected, len(content)))) == content
        blobs.add(expected, pieces(path), len(content), compress=False)
        raw = folder / "library" / raw_name(expected)
        assert raw.read_bytes() == content
        assert data_map(raw) == data_map(path)
        assert b"".join(map(bytes, blobs.chunks(expected, len(content)))) == content
        raw.unlink()
        os.close(blobs.inflate(expected, len(content)))
        assert raw.read_bytes() == content
    finally:
        blobs.close()


def cut(piece: Piece, sizes: list[int]) -> Iterator[Piece]:
    """A piece in pieces of these sizes, over and over."""
    position = turn = 0
    while position < len(piece):
        size = sizes[turn % len(sizes)]
        yield piece[position : position + size]
        position += size
        turn += 1


@pytest.mark.parametrize(
    "content",
    [b"", bytes(BLOCK - 1), b"x" + bytes(2 * BLOCK - 2), b"x" * BLOCK + bytes(BLOCK - 1)],
    ids=["nothing", "less than a block", "in no whole block", "a last block that is not whole"],
)
def test_short_runs_of_zeros_are_hashed(content: bytes) -> None:
    assert digests.of(content) == blake3(content).hexdigest()


@pytest.mark.parametrize("content", [bytes(BLOCK), b"holo" + bytes(3 * BLOCK)], ids=["a block", "a head and blocks"])
def test_the_documented_digests(content: bytes) -> None:
    """Who implements the format elsewhere compares with them."""
    documentation = Path(__file__).parents[2] / "docs" / "catalog.md"
    assert f"`{digests.of(content)}`" in documentation.read_text(encoding="utf-8")


def test_a_digest_costs_no_time_for_holes() -> None:
    """As many bytes, and as many holes, as a hostile catalog may claim."""
    hasher = Hasher()
    for _ in range(20_000):
        hasher.update(Hole(1 << 45))
        hasher.update(b"x" * BLOCK)
    assert len(hasher.hexdigest()) == 64
    assert digest_of([Hole((1 << 63) - 1)]) != digest_of([Hole((1 << 63) - 2)])


# -- what passes holes on -------------------------------------------------------------------------------------------

OLD = b"/opt/env"
TEXTS = st.lists(
    st.one_of(
        st.sampled_from([OLD, OLD[:5], b"\0", b"\0" * 30, OLD + b"/lib\0", b":" + OLD, b"-", b"#!"]),
        st.integers(1, 40).map(Hole),
    ),
    max_size=10,
)


@given(TEXTS)
@example([OLD, Hole(30), OLD])
@example([Hole(40), OLD[:5], Hole(1), OLD])
@example([b"x" * 30, OLD[:5], Hole(9), OLD + b"/lib"])
@settings(max_examples=500, deadline=None)
def test_holes_are_zeros_for_who_looks_for_the_prefix(parts: list[Piece]) -> None:
    content = b"".join(map(bytes, parts))
    finder = PrefixFinder(OLD)
    for part in parts:
        finder.feed(part)
    assert finder.finish() == find(OLD, content)


@given(TEXTS, st.booleans(), st.data())
@example([b"\0" + OLD, Hole(30), OLD], False, None)
@settings(max_examples=500, deadline=None)
def test_holes_are_zeros_for_who_patches(parts: list[Piece], lie: bool, data: st.DataObject | None) -> None:
    """Also where the offsets lie: then both refuse, and a patch ends with the same bytes."""
    content = b"".join(map(bytes, parts))
    found = find(OLD, content)
    if found is None:
        return
    if lie and data is not None:
        moved = data.draw(st.integers(0, len(content) - len(OLD)))
        found = Relocation(found.kind, sorted({*found.offsets[1:], moved}), found.ends[: len(found.offsets)])
    for new in (b"/srv/new", b"/n"):
        relocator = Relocator(OLD.decode(), new.decode())
        assert accepts(relocator, parts, found) == accepts(relocator, [content], found)
        if found.kind == "binary" and len(found.ends) == len(found.offsets) and accepts(relocator, [content], found):
            patched = [*relocator.patch(lambda: iter(parts), found, "file")]
            assert b"".join(map(bytes, patched)) == b"".join(
                map(bytes, relocator.patch(lambda: [content], found, "file"))
            )


def accepts(relocator: Relocator, parts: list[Piece], relocation: Relocation) -> bool:
    try:
        relocator.check(iter(parts), relocation, "file")
    except CatalogInvalid:
        return False
    return True


def test_a_hole_is_passed_on_whatever_is_cut_out_of_it() -> None:
    """No zeros are made, even for edits that lie: a hole may be larger than the memory."""
    found = [*splice(Hole(1 << 60), iter([b"x"]), [(10, 20, b"new"), (1 << 59, (1 << 59) + 1, b"")])]
    assert [piece if isinstance(piece, bytes) else len(piece) for piece in found if len(piece)] == [
        10,
        b"new",
        (1 << 59) - 20,
        (1 << 59) - 1,
        b"x",
    ]


def test_without_hole_detection_all_is_data() -> None:
    """lseek(2) has no SEEK_HOLE in /proc."""
    with open("/proc/self/status", "rb") as file:
        with pytest.raises(OSError, match="Invalid argument"):
            os.lseek(file.fileno(), 0, os.SEEK_HOLE)
        assert [*platform.data_ranges(file.fileno(), 10)] == [(0, 10)]
        assert not platform.has_holes(file.fileno(), 10)
        assert [*pieces_of(file.fileno(), 5)] == [b"Name:"]


# -- holes stay where they are --------------------------------------------------------------------------------------

K = 1024
LAYOUT_OF: dict[str, Layout] = {
    "begins": [("hole", 256 * K), ("data", 64 * K)],
    "ends": [("data", 100 * K + 1), ("hole", 300 * K)],
    "nothing-else": [("hole", 3000 * K + 5)],
    "less-than-a-block": [("hole", 100)],
    "small": [("data", 4 * K), ("hole", 8 * K), ("data", 4 * K)],
    "comb": [("data", 4 * K), ("hole", 4 * K)] * 100,
    "large": [("data", 3000 * K), ("hole", 2000 * K), ("data", 4 * K), ("hole", 8 * K), ("data", 1500 * K)],
    "zeros": [("data", 4 * K), ("zeros", 1200 * K), ("data", 4 * K)],
    "only-zeros": [("zeros", 640 * K)],
    "both": [("data", 4 * K), ("zeros", 640 * K), ("hole", 640 * K), ("zeros", 64 * K)],
}


def all_layouts(source: Path) -> Path:
    for name, layout in LAYOUT_OF.items():
        write(source / name, layout)
    return trees.settle(source)


def test_holes_are_exact(holo: Holo, strategy: str) -> None:
    source, space = all_layouts(holo.root / "source"), holo.root / "space"
    holo("record", source, "--name", "env")
    holo("init", "--space", "one", "env", "--to", space, "--strategy", strategy)
    assert compare.differences(source, space, library=holo.library) == []
    maps = {name: data_map(source / name) for name in LAYOUT_OF}
    assert {name: data_map(space / name) for name in LAYOUT_OF} == maps
    assert maps["small"] == [(0, 4 * K), (12 * K, 16 * K)]
    assert maps["zeros"] == [(0, 1208 * K)]

    restored = holo("restore", "--space", "one", "--strategy", strategy, "--verify", "--json").json()
    assert restored["files"]["unchanged"] == len(LAYOUT_OF)
    for name in LAYOUT_OF:
        (space / name).chmod(0o644)
        (space / name).write_bytes(b"damaged")
    holo("restore", "--space", "one", "--strategy", strategy)
    assert {name: data_map(space / name) for name in LAYOUT_OF} == maps
    holo("check", "--space", "one")


def test_the_first_holes_that_are_recorded_are_kept(holo: Holo) -> None:
    """Of two files with one content but other holes: it is one blob."""
    dense, sparse = ([("data", 4 * K), (kind, 640 * K)] for kind in ("zeros", "hole"))
    for name, layout in (("sparse", sparse), ("dense", dense)):
        write(holo.root / name / "file", layout)
        holo("record", holo.root / name, "--name", name)
        holo("init", "--space", name, name, "--to", holo.root / f"{name}-space", "--strategy", "copy")
        assert data_map(holo.root / f"{name}-space" / "file") == [(0, 4 * K)]
    assert len(data_map(holo.root / "dense" / "file")) == 1
    assert (holo.root / "dense-space" / "file").read_bytes() == (holo.root / "dense" / "file").read_bytes()


def test_repair_keeps_holes(holo: Holo) -> None:
    source, space = all_layouts(holo.root / "source"), holo.root / "space"
    holo("record", source, "--name", "env")
    holo("init", "--space", "one", "env", "--to", space, "--strategy", "copy")
    for name in LAYOUT_OF:
        (blob,) = (holo.library / "library").glob(f"*/{digests.of((source / name).read_bytes())}*")
        blob.unlink()
    holo("check", "--repair")
    holo("check")
    holo("init", "--space", "two", "env", "--to", holo.root / "two", "--strategy", "copy")
    assert compare.differences(source, holo.root / "two") == []


@local
@pytest.mark.parametrize("compression", ["raw", "zstd"])
def test_a_hole_that_is_filled_while_it_is_recorded(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    """The second reading stores what the first has hashed, or the file is read again."""
    path = write(filesystem.root / "tree" / "file", LAYOUT_OF["large"])
    library = Library(str(filesystem.root / "home"), compression)
    add = Blobs.add

    def fill_and_add(*arguments: object, **options: object) -> None:
        with path.open("r+b") as file:
            file.seek(3500 * K)
            if file.read(6) != b"filled":
                file.seek(3500 * K)
                file.write(b"filled")
        add(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Blobs, "add", fill_and_add)
    with locked_library(library, exclusive=False):
        report = record(library, str(filesystem.root / "tree"))
    (row,) = [row for _, row in library.catalogs.load(report.digest).files()]
    assert row[4] == digests.of(path.read_bytes())
    assert b"".join(map(bytes, library.blobs.chunks(row[4], row[2]))) == path.read_bytes()


# -- 20 GB ----------------------------------------------------------------------------------------------------------


@contextmanager
def little_is_read_and_written() -> Iterator[None]:
    """Neither by this process nor by those that it has waited for: the kernel adds up what they read and wrote."""
    before = bytes_read_and_written()
    yield
    assert bytes_read_and_written() - before < LITTLE


def bytes_read_and_written() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"]) + int(lines["wchar"])


def huge(path: Path, prefix: Path) -> Path:
    """A file of 20 GB with a few islands, at its begin, in its middle and at its end, that name ``prefix``."""
    path.parent.mkdir(exist_ok=True)
    island = b"\0%b/lib:%b\0 and more" % (os.fsencode(prefix), os.fsencode(prefix)) * 100
    with path.open("wb") as file:
        for position in (0, 7 << 30, (12 << 30) + 12_345, HUGE - len(island)):
            file.seek(position)
            file.write(island)
    return path


def islands(path: Path) -> bytes:
    """The bytes of a file where it has data."""
    with path.open("rb") as file:
        return b"".join(os.pread(file.fileno(), end - start, start) for start, end in data_map(path))


def test_holes_of_20_gb_cost_nothing(holo: Holo, strategy: str) -> None:
    source, space, other, clone = (holo.root / name for name in ("the-source", "space", "other", "clone"))
    huge(source / "plain", holo.root / "elsewhere")
    huge(source / "relocated", source)

    def is_copy(copy: Path, path: Path | None = None) -> bool:
        """Whether the files of ``copy`` are those of the source as they are to be at ``path``."""
        old, new = os.fsencode(source), os.fsencode(path or copy)
        files = [(source / name, copy / name) for name in ("plain", "relocated")]
        return all(data_map(one) == data_map(two) for one, two in files) and all(
            islands(two) == compare.relocated(b"", islands(one), old, new) for one, two in files
        )

    with little_is_read_and_written():
        holo("record", source, "--name", "env")
        holo("init", "--space", "one", "env", "--to", space, "--strategy", strategy)
        holo("init", "--space", "two", "env", "--to", other, "--strategy", strategy)
    assert is_copy(space)
    assert is_copy(other)

    with little_is_read_and_written():
        unchanged = holo("restore", "--space", "one", "--strategy", strategy, "--verify", "--json").json()
        assert unchanged["files"]["unchanged"] == 2
        holo("check", "--space", "two")
        for name in ("plain", "relocated"):
            (space / name).chmod(0o644)
            with (space / name).open("r+b") as file:
                file.seek(3 << 30)
                file.write(b"damaged")
        changed = holo("restore", "--space", "one", "--strategy", strategy, "--json").json()
        assert changed["files"]["unchanged"] == 0
    assert is_copy(space)

    for path in (space, other):
        (path / "relocated").unlink()  # what XFS has reserved beside a patch looks like data there
    with little_is_read_and_written():
        for blob in holo.library.glob("library/??/*"):
            blob.unlink()
        problems = holo("check", "--repair", "--from", source, "--json").json()["problems"]
        assert all(problem["repaired"] for problem in problems)
        holo("check")
        holo("init", "--space", "three", "env", "--to", holo.root / "three", "--strategy", strategy)
    assert is_copy(holo.root / "three")

    with little_is_read_and_written():
        holo("clone", source, holo.root / "exact")
        holo("clone", "--relocate", source, clone)
    assert is_copy(holo.root / "exact", source)
    assert is_copy(clone)


def test_a_sparse_file_is_written_piece_by_piece(tmp_path: Path) -> None:
    with (tmp_path / "file").open("xb", buffering=0) as file:
        write_sparse(file.fileno(), [b"x" * 4096, Hole(8192), b"", b"y" * 4096, bytes(4096), Hole(4096), b""])
    assert data_map(tmp_path / "file") == [(0, 4096), (12288, 20480)]
    assert (tmp_path / "file").stat().st_size == 24576
