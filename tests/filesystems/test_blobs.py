"""Blobs: what comes out is what went in, or an error; whatever happened to the file in between."""

from __future__ import annotations

import errno
import os
import random
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holo import digest as digests
from holo import platform
from holo.content import Section
from holo.errors import HoloError, IntegrityError
from holo.hololib import Library, frames
from holo.hololib.blobs import SEALED_MODE, SEALED_MTIME_NS, Blobs, content_matches, raw_name
from holo.hololib.verified import CHUNK, ContentMismatch, verified_chunks
from holo.transport.source import Folder, verified_pieces
from support import trees
from support.cli import Holo

# The threads that Python 3.12 warns of are the test runner's, and hold no lock that a child takes.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

SMALL = b"some content, some content, some content\n" * 20
LARGE = random.Random(7).randbytes(CHUNK) * 2 + b"the end\n" * 99
BLOCK = 1 << 16


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Blobs]:
    (tmp_path / "library").mkdir()
    blobs = Blobs(str(tmp_path / "library"))
    yield blobs
    blobs.close()


def pieces(content: bytes, size: int = CHUNK) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def add(blobs: Blobs, content: bytes, *, compress: bool = False) -> Path:
    """Store it; returns the path of the file."""
    digest = digests.of(content)
    blobs.add(digest, pieces(content), len(content), compress=compress)
    return Path(blobs.path, raw_name(digest) + (".zst" if compress else ""))


def read(blobs: Blobs, content: bytes) -> bytes:
    return b"".join(blobs.chunks(digests.of(content), len(content)))


def files(folder: str | Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if not path.is_dir()}


def rewrite(path: Path, change: Callable[[bytearray], object]) -> None:
    """Change the bytes in place and leave no other trace."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    change(data)
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(before.st_mode & 0o7777)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))


def flip(position: int) -> Callable[[bytearray], object]:
    def change(data: bytearray) -> None:
        data[position] ^= 1

    return change


# -- in and out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("content", [b"", b"x", SMALL, LARGE[:CHUNK], LARGE[: CHUNK + 1], LARGE, bytes(3 * CHUNK)])
def test_what_goes_in_comes_out(blobs: Blobs, content: bytes, compress: bool) -> None:
    digest = digests.of(content)
    assert not blobs.has(digest, len(content))
    path = add(blobs, content, compress=compress)
    assert blobs.has(digest, len(content))
    assert files(blobs.path) == {str(path.relative_to(blobs.path))}
    assert path.stat().st_mode & 0o7777 == SEALED_MODE
    assert read(blobs, content) == content
    if not compress:
        assert path.read_bytes() == content
        assert path.stat().st_mtime_ns == SEALED_MTIME_NS
    else:
        assert zstandard.ZstdDecompressor().decompress(path.read_bytes(), max_output_size=len(content)) == content


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("wrong", [b"", SMALL[:-1], SMALL + b"x", b"x" + SMALL[1:]])
def test_content_of_another_digest_is_not_stored(blobs: Blobs, wrong: bytes, compress: bool) -> None:
    with pytest.raises(ContentMismatch):
        blobs.add(digests.of(SMALL), pieces(wrong), len(SMALL), compress=compress)
    assert files(blobs.path) == set()


@pytest.mark.parametrize("compress", [False, True])
def test_a_failing_source_leaves_nothing(blobs: Blobs, compress: bool) -> None:
    def broken() -> Iterator[bytes]:
        yield SMALL
        raise OSError(5, "cannot read it")

    with pytest.raises(OSError, match="cannot read it"):
        blobs.add(digests.of(SMALL), broken(), len(SMALL), compress=compress)
    assert files(blobs.path) == set()


def test_a_missing_blob_is_an_integrity_error(blobs: Blobs) -> None:
    assert blobs.open_raw(digests.of(SMALL), len(SMALL)) is None
    with pytest.raises(IntegrityError, match=digests.of(SMALL)):
        read(blobs, SMALL)
    with pytest.raises(IntegrityError):
        blobs.inflate(digests.of(SMALL), len(SMALL))


def test_a_raw_blob_is_inflated_once(blobs: Blobs) -> None:
    for content in (SMALL, LARGE):
        compressed = add(blobs, content, compress=True)
        digest = digests.of(content)
        assert blobs.open_raw(digest, len(content)) is None
        for _ in range(2):
            descriptor = blobs.inflate(digest, len(content))
            assert digests.of_file(descriptor) == digest
            os.close(descriptor)
            compressed.unlink(missing_ok=True)  # so the second time cannot come from it
        assert compressed.with_suffix("").stat().st_mtime_ns == SEALED_MTIME_NS


# -- damage -----------------------------------------------------------------------------------------------

RAW_DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 5),
    "emptied": lambda path: os.truncate(path, 0),
    "extended": lambda path: os.truncate(path, path.stat().st_size + 1),
    "chmod": lambda path: path.chmod(0o644),
    "chmod-executable": lambda path: path.chmod(0o555),
    "chmod-setuid": lambda path: path.chmod(0o4444),
    "touched": os.utime,
    "touched-by-a-nanosecond": lambda path: os.utime(path, ns=(SEALED_MTIME_NS, SEALED_MTIME_NS + 1)),
    "written": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "a-directory": lambda path: (path.unlink(), path.mkdir(0o444)),
    "a-fifo": lambda path: (path.unlink(), os.mkfifo(path, 0o444)),
}


@pytest.mark.parametrize("damage", RAW_DAMAGE)
def test_damage_shows_without_reading(blobs: Blobs, damage: str) -> None:
    path = add(blobs, SMALL)
    RAW_DAMAGE[damage](path)
    for use in (blobs.open_raw, blobs.inflate):
        with pytest.raises(IntegrityError, match=f"{digests.of(SMALL)}.*is damaged") as caught:
            use(digests.of(SMALL), len(SMALL))
        assert caught.value.hint
    with pytest.raises(IntegrityError):
        read(blobs, SMALL)


def test_truncated_raw_blob_does_not_hide_the_compressed_one(blobs: Blobs) -> None:
    """A record that clones was killed, and the next one compressed."""
    raw = add(blobs, SMALL)
    raw.unlink()
    raw.write_bytes(SMALL[:100])
    add(blobs, SMALL, compress=True)
    assert read(blobs, SMALL) == SMALL
    os.close(blobs.inflate(digests.of(SMALL), len(SMALL)))
    assert raw.read_bytes() == SMALL


def test_what_a_killed_writer_left_is_no_blob_and_is_replaced(blobs: Blobs) -> None:
    """A small one is written under its own name, and sealed last."""
    digest = digests.of(SMALL)
    left = Path(blobs.path, raw_name(digest))
    for content in (b"", SMALL[:100], SMALL):
        left.parent.mkdir(exist_ok=True)
        left.unlink(missing_ok=True)
        left.write_bytes(content)
        left.chmod(SEALED_MODE)
        assert not blobs.has(digest, len(SMALL))
        assert add(blobs, SMALL) == left
        assert blobs.has(digest, len(SMALL))
        assert read(blobs, SMALL) == SMALL
        assert os.listdir(left.parent) == [digest]


@pytest.mark.parametrize("sticky", [False, True])
def test_a_writer_that_fails_is_in_nobodys_way(tmp_path: Path, sticky: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sticky folder nobody can replace what is another user's, so there it must not have the blob's name."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library").chmod(0o3775 if sticky else 0o755)
    blobs = Blobs(str(tmp_path / "library"))
    digest = digests.of(SMALL)

    def fill_up(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("holo.hololib.blobs.write_sparse", fill_up)
        with pytest.raises(OSError, match="No space"):
            add(blobs, SMALL)
        with pytest.raises(OSError, match="No space"):
            add(blobs, LARGE)
    left = [path.name for path in (tmp_path / "library").rglob("*") if path.is_file()]
    assert left == ([] if sticky else [digest])
    assert not blobs.has(digest, len(SMALL))
    add(blobs, SMALL)
    assert read(blobs, SMALL) == SMALL
    blobs.close()


def test_a_blob_that_is_a_symlink_is_not_followed(blobs: Blobs, tmp_path: Path) -> None:
    path = add(blobs, SMALL)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    for use in (blobs.open_raw, blobs.inflate):
        with pytest.raises(HoloError):
            use(digests.of(SMALL), len(SMALL))


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("position", [0, 1, -1, 400])
def test_a_flipped_bit_shows_when_it_is_read(blobs: Blobs, content: bytes, position: int) -> None:
    rewrite(add(blobs, content), flip(position))
    digest = digests.of(content)
    with pytest.raises(IntegrityError):
        read(blobs, content)
    descriptor = blobs.open_raw(digest, len(content))
    assert descriptor is not None
    with pytest.raises(IntegrityError):
        blobs.verify(descriptor, digest)
    os.close(descriptor)


def test_the_last_chunk_is_not_given_out_before_all_is_verified(blobs: Blobs) -> None:
    rewrite(add(blobs, LARGE), flip(0))
    given: list[bytes] = []
    with pytest.raises(IntegrityError):
        given.extend(blobs.chunks(digests.of(LARGE), len(LARGE)))
    assert sum(map(len, given)) <= 2 * CHUNK


def test_a_size_that_is_not_the_blobs_is_an_integrity_error(blobs: Blobs) -> None:
    for content in (SMALL, LARGE):
        for compress in (True, False):
            add(blobs, content, compress=compress)
            for size in (0, 1, len(content) - 1, len(content) + 1, CHUNK, 2**62):
                with pytest.raises(IntegrityError):
                    b"".join(blobs.chunks(digests.of(content), size))


def test_any_flipped_bit_of_a_compressed_blob(blobs: Blobs) -> None:
    """Some bits mean nothing; then the content is right. It is never wrong."""
    path = add(blobs, SMALL, compress=True)
    data = path.read_bytes()
    errors = 0
    for position in range(len(data)):
        for bit in range(8):
            rewrite(path, lambda bytes_, p=position, b=bit: bytes_.__setitem__(p, data[p] ^ 1 << b))
            try:
                assert read(blobs, SMALL) == SMALL
            except IntegrityError:
                errors += 1
            rewrite(path, lambda bytes_: bytes_.__setitem__(slice(None), data))
    assert errors > len(data) * 4
    assert read(blobs, SMALL) == SMALL


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_truncated_compressed_blob(blobs: Blobs, content: bytes) -> None:
    path = add(blobs, content, compress=True)
    data = path.read_bytes()
    for length in {0, 1, 3, 5, 8, len(data) // 2, len(data) - 4, len(data) - 1}:
        rewrite(path, lambda bytes_, length=length: bytes_.__setitem__(slice(None), data[:length]))
        with pytest.raises(IntegrityError):
            read(blobs, content)
        with pytest.raises(IntegrityError):
            blobs.inflate(digests.of(content), len(content))
    assert files(blobs.path) == {str(path.relative_to(blobs.path))}


def test_flipped_bits_of_a_large_compressed_blob(blobs: Blobs) -> None:
    path = add(blobs, LARGE, compress=True)
    size = path.stat().st_size
    for position in (4, 9, size // 3, size // 2, size - 20):
        rewrite(path, flip(position))
        with pytest.raises(IntegrityError):
            read(blobs, LARGE)
        rewrite(path, flip(position))
    assert read(blobs, LARGE) == LARGE


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
@pytest.mark.parametrize("strategy", ["reflink", "hardlink", "copy"])
def test_verify_reads_the_blobs_of_what_it_makes(holo: Holo, strategy: str) -> None:
    """Whether it is shared as it is, or through a link form that is made for it now."""
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    (blob,) = holo.library.glob(f"library/??/{digests.of(b'leaf')}")
    rewrite(blob, flip(2))
    assert blob.name in holo("init", "--space", "one", "env", "--strategy", strategy, "--verify", code=3).stderr


# -- bombs ------------------------------------------------------------------------------------------------


def header(claim: int) -> bytes:
    """The start of a zstd frame that claims to hold that many bytes (RFC 8878, 3.1.1.1)."""
    return b"\x28\xb5\x2f\xfd" + bytes([0b11000000, 0b01110000]) + claim.to_bytes(8, "little")


def zeros(size: int, *, claim: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=claim)
    stream = compressor.compressobj(size=size if claim else -1)
    return b"".join([*(stream.compress(bytes(CHUNK)) for _ in range(size // CHUNK)), stream.flush()])


BOMBS = {
    "claims-a-terabyte": lambda: header(1 << 40) + b"\x01\x00\x00",
    "claims-everything": lambda: header(2**64 - 3) + b"\x01\x00\x00",
    "inflates-to-a-gigabyte": lambda: zeros(1 << 30, claim=True),
    "inflates-to-a-gigabyte-unannounced": lambda: zeros(1 << 30, claim=False),
    "many-frames": lambda: zeros(CHUNK, claim=True) * 10_000,
    "not-zstd": lambda: b"PK\x03\x04" * 1000,
    "skippable-frame": lambda: b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
}


@pytest.mark.skipif(sys.platform != "linux", reason="measures with Linux's limits")
@pytest.mark.parametrize("size", [len(SMALL), CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_an_integrity_error_and_takes_little_memory(blobs: Blobs, bomb: str, size: int) -> None:
    content = random.Random(size).randbytes(size)
    path = add(blobs, content, compress=True)
    data = BOMBS[bomb]()
    rewrite(path, lambda bytes_: bytes_.__setitem__(slice(None), data))
    child = os.fork()
    if not child:
        code = 1
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + (200 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            try:
                read(blobs, content)
            except IntegrityError:
                code = 0
            except MemoryError:
                code = 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


TAILS = {
    "byte": b"\0",
    "empty-frame": zstandard.compress(b""),
    "skippable-frame": b"\x50\x2a\x4d\x18\x01\0\0\0x",
    "much": bytes(100_000),
}


@pytest.mark.parametrize("content", [b"", SMALL, bytes(CHUNK), bytes(CHUNK + 1), LARGE], ids=len)
@pytest.mark.parametrize("tail", TAILS)
def test_nothing_follows_a_frame(blobs: Blobs, tail: str, content: bytes) -> None:
    """Nobody would read it, and it would go along into bundles."""
    digest, size = digests.of(content), len(content)
    for has_checksum in (False, True):
        frame = zstandard.ZstdCompressor(write_checksum=has_checksum).compress(content)
        path = add(blobs, content, compress=True)
        rewrite(path, lambda data, frame=frame: data.__setitem__(slice(None), frame))  # type: ignore[misc]
        assert read(blobs, content) == content
        rewrite(path, lambda data: data.extend(TAILS[tail]))
        with path.open("rb") as file:
            assert not content_matches(file.fileno(), path.name)
            with pytest.raises(ContentMismatch):
                blobs.add_frame(digest, size, frame_in(file.fileno()))
        with pytest.raises(IntegrityError, match=digest):
            read(blobs, content)
        with pytest.raises(IntegrityError, match=digest):
            blobs.read_frame(digest, size)
        path.unlink()


def test_inflating_reads_at_most_a_chunk_beyond_the_size(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(zeros(64 * CHUNK, claim=True))
    with path.open("rb") as file:
        assert sum(map(len, frames.inflate(frame_in(file.fileno()), 2 * CHUNK))) <= 3 * CHUNK
    with path.open("rb") as file, pytest.raises(ContentMismatch):
        list(frames.inflate(frame_in(file.fileno()), 100))


def test_content_longer_than_its_size_is_not_read_to_its_end() -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while read < 500:
            read += 1
            yield b"x"

    with pytest.raises(ContentMismatch):
        list(verified_chunks(endless(), digests.of(b"xxxxx"), 5))
    assert read <= 6


# -- round trips ------------------------------------------------------------------------------------------

CONTENTS = st.lists(
    st.one_of(
        st.binary(max_size=50), st.integers(0, 3 * BLOCK).map(bytes), st.integers(1, 99_999).map(lambda n: b"x" * n)
    ),
    max_size=6,
).map(b"".join)


@given(CONTENTS, st.sampled_from([1000, BLOCK, CHUNK]))
@example(b"", CHUNK)
@example(bytes(CHUNK), CHUNK)
@example(random.Random(3).randbytes(CHUNK + 1), CHUNK)
@settings(max_examples=60, deadline=None)
def test_compression_is_undone(tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int) -> None:
    path = tmp_path_factory.getbasetemp() / "compressed"
    path.write_bytes(b"".join(frames.compress(pieces(content, size), len(content))))
    assert zstandard.frame_content_size(path.read_bytes()) == len(content)
    with path.open("rb") as file:
        assert b"".join(frames.inflate(frame_in(file.fileno()), len(content))) == content


# -- several writers --------------------------------------------------------------------------------------


def test_two_writers_of_one_name_do_no_harm(blobs: Blobs) -> None:
    """Both have written before either renames."""
    name = raw_name(digests.of(SMALL))

    def write(folder: platform.Directory, draft: str) -> None:
        descriptor = platform.create_file(folder, draft, 0o444)
        os.write(descriptor, SMALL)
        platform.set_file(descriptor, SEALED_MTIME_NS)
        os.close(descriptor)

    def write_while_another_does(folder: platform.Directory, draft: str) -> None:
        write(folder, draft)
        blobs.shards.publish(name, write)
        assert read(blobs, SMALL) == SMALL

    blobs.shards.publish(name, write_while_another_does)
    assert read(blobs, SMALL) == SMALL
    assert files(blobs.path) == {name}


def test_a_writer_that_fails_leaves_the_other_ones_blob(blobs: Blobs) -> None:
    def fail(_folder: platform.Directory, _draft: str) -> None:
        add(blobs, SMALL)
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        blobs.shards.publish(raw_name(digests.of(SMALL)), fail)
    assert read(blobs, SMALL) == SMALL
    assert files(blobs.path) == {raw_name(digests.of(SMALL))}


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("compress", [False, True])
def test_processes_that_store_the_same_at_the_same_time(blobs: Blobs, compress: bool) -> None:
    contents = [b"%d\n" % number * 50 for number in range(100)]
    receive, send = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            code = 1
            try:
                os.close(send)
                os.read(receive, 1)  # all start when the parent closes its end
                for content in contents:
                    add(blobs, content, compress=compress)
                    assert read(blobs, content) == content
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(receive)
    os.close(send)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert len(files(blobs.path)) == len(contents)
    for content in contents:
        assert read(blobs, content) == content


# -- another library's ------------------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    folder = tmp_path / "foreign"
    folder.mkdir()
    return folder


def put(folder: Path, digest: str, data: bytes, suffix: str = "") -> Path:
    path = folder / (raw_name(digest) + suffix)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def frame_in(descriptor: int) -> Section:
    return Section(descriptor, 0, os.fstat(descriptor).st_size)


def take(blobs: Blobs, folder: Path, *contents: bytes) -> None:
    for content in contents:
        digest, size = digests.of(content), len(content)
        blobs.add(digest, verified_pieces(Folder(str(folder)), digest, size), size, compress=False)


def test_blobs_of_another_library_are_taken(blobs: Blobs, foreign: Path) -> None:
    put(foreign, digests.of(SMALL), SMALL).chmod(0o755)
    put(foreign, digests.of(LARGE), zstandard.ZstdCompressor().compress(LARGE), ".zst")
    take(blobs, foreign, SMALL, LARGE)
    for content in (SMALL, LARGE):
        descriptor = blobs.open_raw(digests.of(content), len(content))
        assert descriptor is not None
        os.close(descriptor)
        assert read(blobs, content) == content


@pytest.mark.parametrize("wrong", [b"", SMALL[:-1], SMALL + b"x", SMALL.upper(), bytes(5 * CHUNK)])
@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_damaged_blob_of_another_library_is_not_taken(blobs: Blobs, foreign: Path, wrong: bytes, suffix: str) -> None:
    put(foreign, digests.of(SMALL), zstandard.ZstdCompressor().compress(wrong) if suffix else wrong, suffix)
    with pytest.raises(IntegrityError, match=str(foreign)):
        take(blobs, foreign, SMALL)
    assert files(blobs.path) == set()


def test_blob_missing_in_another_library_is_an_error(blobs: Blobs, foreign: Path) -> None:
    with pytest.raises(IntegrityError, match=f"{digests.of(SMALL)} is not in {foreign}"):
        take(blobs, foreign, SMALL)
    assert files(blobs.path) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_concurrent_writers_make_one_hardlink_source(tmp_path: Path) -> None:
    """Each may replace the file that another is about to link."""
    content = b"x" * 5000
    row = ("file", 0o644, len(content), 1_234_567_890, digests.of(content))
    Library(os.fspath(tmp_path)).blobs.add(row[4], iter([content]), len(content), compress=False)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(OSError):
                links = Library(os.fspath(tmp_path)).links
                (tmp_path / f"{number}").mkdir()
                directory = platform.open_root(os.fspath(tmp_path / f"{number}"))
                for _ in range(300):
                    links.link(row, directory, "file", verify=False)
                    os.utime(tmp_path / f"{number}" / "file")  # so that it is made anew
                    platform.remove_file(directory, "file")
                code = 0
            os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
