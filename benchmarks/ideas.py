"""What ideas for more speed could save at most: bare system calls and zstd, without holo. Linux, as root.

The contents of a tree are stored as a library on ext4 stores them: small ones as they are, others as zstd frames. Then
each idea is tried beside today's way, in turn, by two processes; `io_uring` only if liburing is installed.

    packs        the contents one after the other in a file of each process, instead of a file for each
    fadvise      the kernel is asked for the next files before they are opened (POSIX_FADV_WILLNEED)
    dictionary   small contents compressed with a dictionary that was made of them
    io_uring     files opened, written and closed in batches
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from blake3 import blake3
from filesystems import mounted
from floor import timed
from program import GIGABYTE, heading, note, parser, run, table

IMAGE = 6 * GIGABYTE
SMALL = 16 << 10  # bytes up to which a library stores contents as they are
AHEAD = 32  # files
DICTIONARY = 112 << 10  # bytes, zstd's own default
BATCH = 500  # calls in the ring
TIMES = (10**18, 10**18)


class Blob(NamedTuple):
    """A content as it is stored."""

    name: str
    stored: bytes


def blobs_of(tree: Path) -> list[Blob]:
    """The different contents of a tree."""
    packer = zstandard.ZstdCompressor(level=1)
    found: dict[str, bytes] = {}
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            name = blake3(content).hexdigest()
            if name not in found:
                found[name] = content if len(content) <= SMALL else packer.compress(content)
    return [Blob(*item) for item in found.items()]


# -- writing and reading ----------------------------------------------------------------------------------


def make_folders(root: Path) -> None:
    for number in range(256):
        (root / f"{number:02x}").mkdir(parents=True)


def path_of(root: Path, blob: Blob) -> str:
    return f"{root}/{blob.name[:2]}/{blob.name}"


def write_files(root: Path, part: Sequence[Blob]) -> None:
    for blob in part:
        file = os.open(path_of(root, blob), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        os.write(file, blob.stored)
        os.utime(file, ns=TIMES)
        os.close(file)


def write_pack(root: Path, part: Sequence[Blob]) -> None:
    file = os.open(f"{root}/{part[0].name}.pack", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    pieces, length = [], 0
    for blob in part:
        pieces.append(blob.stored)
        length += len(blob.stored)
        if length >= 1 << 20:
            os.write(file, b"".join(pieces))
            pieces, length = [], 0
    os.write(file, b"".join(pieces))
    os.close(file)


def read_files(root: Path, ahead: int, part: Sequence[Blob]) -> None:
    waiting: list[int] = []
    for number, blob in enumerate(part):
        for later in part[number + len(waiting) : number + max(ahead, 1)]:
            file = os.open(path_of(root, later), os.O_RDONLY)
            if ahead:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
            waiting.append(file)
        file = waiting.pop(0)
        assert len(os.pread(file, len(blob.stored) + 1, 0)) == len(blob.stored)
        os.close(file)


def read_pack(root: Path, part: Sequence[Blob]) -> None:
    file, position = os.open(f"{root}/{part[0].name}.pack", os.O_RDONLY), 0
    for blob in part:
        assert len(os.pread(file, len(blob.stored), position)) == len(blob.stored)
        position += len(blob.stored)
    os.close(file)


def forget() -> None:
    """Let the next one read from the disk."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def stored(root: Path, shares: Sequence[Sequence[Blob]]) -> Iterator[tuple[str, float]]:
    """Seconds of writing and reading all blobs, in both ways."""
    ways: tuple[tuple[str, Callable[..., None], Callable[..., None]], ...] = (
        ("a file for each", write_files, partial(read_files, root, 0)),
        ("packs", write_pack, partial(read_pack, root)),
    )
    for name, write, read in ways:
        make_folders(root)
        os.sync()
        yield f"write, {name}", timed(partial(write, root), shares)
        begin = time.perf_counter()
        os.sync()
        yield f"sync, {name}", time.perf_counter() - begin
        yield f"read, {name}", timed(read, shares)
        forget()
        yield f"read from the disk, {name}", timed(read, shares)
        if write is write_files:
            forget()
            yield f"read from the disk, {name}, fadvise", timed(partial(read_files, root, AHEAD), shares)
        shutil.rmtree(root)


# -- a dictionary -----------------------------------------------------------------------------------------


def small_contents(contents: Sequence[bytes]) -> Iterator[list[object]]:
    """For each way to store small contents: bytes, and seconds of one process to pack and to unpack them."""
    trained = zstandard.train_dictionary(DICTIONARY, list(contents[::4]))
    for name, more in (("zstd -1", {}), ("zstd -1, dictionary", {"dict_data": trained})):
        packer, unpacker = zstandard.ZstdCompressor(level=1, **more), zstandard.ZstdDecompressor(**more)
        begin = time.perf_counter()
        packed = [packer.compress(content) for content in contents]
        middle = time.perf_counter()
        for content in packed:
            unpacker.decompress(content)
        end = time.perf_counter()
        size = sum(min(len(one), len(other)) for one, other in zip(packed, contents, strict=True))
        yield [name, f"{size / 1e6:.1f}", f"{middle - begin:.3f}", f"{end - middle:.3f}"]


# -- io_uring ---------------------------------------------------------------------------------------------


class Calls:
    """A ring through which calls are made in batches."""

    def __init__(self) -> None:
        import liburing

        self.library: Any = liburing
        self._ring, self._entry = liburing.Ring(), liburing.Cqe()
        liburing.io_uring_queue_init(2 * BATCH, self._ring)

    def make(self, prepare: Callable[..., object], arguments: Sequence[tuple[object, ...]]) -> list[int]:
        """What each call returns."""
        for number, given in enumerate(arguments):
            call = self.library.io_uring_get_sqe(self._ring)
            prepare(call, *given)
            call.user_data = number
        self.library.io_uring_submit_and_wait(self._ring, len(arguments))
        results = [0] * len(arguments)
        for _ in arguments:
            self.library.io_uring_wait_cqe(self._ring, self._entry)
            results[self._entry[0].user_data] = self._entry[0].res
            self.library.io_uring_cq_advance(self._ring, 1)
        return results


def write_in_batches(root: Path, part: Sequence[Blob]) -> None:
    """The same; there is no operation that sets times, so that is a call for each file."""
    calls = Calls()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for start in range(0, len(part), BATCH):
        blobs = part[start : start + BATCH]
        files = calls.make(calls.library.io_uring_prep_open, [(path_of(root, blob), flags, 0o444) for blob in blobs])
        contents = [(file, blob.stored) for file, blob in zip(files, blobs, strict=True)]
        calls.make(calls.library.io_uring_prep_write, contents)
        for file in files:
            os.utime(file, ns=TIMES)
        calls.make(calls.library.io_uring_prep_close, [(file,) for file in files])


def made(root: Path, shares: Sequence[Sequence[Blob]]) -> Iterator[tuple[str, float]]:
    """Seconds of making a file for each small blob, in both ways."""
    for name, make in (("plain calls", write_files), ("io_uring", write_in_batches)):
        make_folders(root)
        os.sync()
        yield f"make small files, {name}", timed(partial(make, root), shares)
        shutil.rmtree(root)


# -- all of them ------------------------------------------------------------------------------------------


def dealt(blobs: Sequence[Blob]) -> list[Sequence[Blob]]:
    return [blobs[0::2], blobs[1::2]]


def measure_all(options: Namespace, workspace: Path) -> bool:
    """Run and print."""
    blobs = blobs_of(options.tree)
    small = [blob for blob in blobs if len(blob.stored) <= SMALL]
    lines = []
    for name in options.filesystems:
        found = defaultdict[str, list[float]](list)
        with mounted(name, workspace, IMAGE) as filesystem:
            for number in range(options.rounds):
                note(f"{name}: round {number + 1}/{options.rounds}")
                tries: list[Iterable[tuple[str, float]]] = [stored(filesystem.root / "blobs", dealt(blobs))]
                if find_spec("liburing") is not None:
                    tries.append(made(filesystem.root / "small", dealt(small)))
                for way in tries:
                    for what, seconds in way:
                        found[what].append(seconds)
        lines += [[name, what, f"{statistics.median(seconds):.3f}"] for what, seconds in found.items()]
    heading({}, f"{len(blobs):,} contents, {sum(len(blob.stored) for blob in blobs) / 1e6:.0f} MB as they are stored.")
    table(["on", "two processes", "seconds"], lines)
    contents = [blob.stored for blob in small]
    size = sum(map(len, contents)) / 1e6
    table(
        ["small contents", "MB", "pack, s", "unpack, s"],
        [["as they are", f"{size:.1f}", "", ""], *small_contents(contents)],
    )
    return True


def _parser() -> ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--tree", type=Path, required=True, help="an environment, made of requirements.txt say")
    return made


if __name__ == "__main__":
    sys.exit(run(measure_all, _parser().parse_args(), IMAGE))
