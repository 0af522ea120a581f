"""The floor: what the necessary system calls of each strategy take, made by bare Python and nothing else.

No command that restores a tree file by file can be faster on the same filesystem. What is in the tree
is listed beforehand, which is not counted, and neither is the start of Python. Each way is run by one
process and by two forked ones that share the directories.

    python floor.py SOURCE TARGET        both on one filesystem, TARGET new
"""

from __future__ import annotations

import fcntl
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

FICLONE = 0x40049409
ROUNDS = 3

Time = tuple[int, int]  # of access and change, in nanoseconds
File = tuple[str, int, Time]  # name, mode, times
Folder = tuple[str, Sequence[File]]  # path below the tree, and what is in it

Part = TypeVar("Part")

Method = Callable[[int, int, Sequence[File]], None]  # fills a directory from another; both are descriptors


def reflink(source: int, target: int, files: Sequence[File]) -> None:
    """Clone each file, and give it mode and times."""
    for name, mode, times in files:
        old = os.open(name, os.O_RDONLY, dir_fd=source)
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=target)
        fcntl.ioctl(new, FICLONE, old)
        os.utime(new, ns=times)
        os.close(new)
        os.close(old)


def hardlink(source: int, target: int, files: Sequence[File]) -> None:
    """Link each file."""
    for name, _, _ in files:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target)


def copy(source: int, target: int, files: Sequence[File]) -> None:
    """Copy each file in the kernel: by sendfile, which never clones."""
    for name, mode, times in files:
        old = os.open(name, os.O_RDONLY, dir_fd=source)
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=target)
        while os.sendfile(new, old, None, 1 << 30):
            pass
        os.utime(new, ns=times)
        os.close(new)
        os.close(old)


def listing(tree: str) -> list[Folder]:
    """Every directory with its regular files, parents first."""
    folders: list[Folder] = []
    for path, _, names in os.walk(tree):
        stats = [(name, os.lstat(os.path.join(path, name))) for name in names]
        files = [
            (name, stat.st_mode & 0o777, (stat.st_atime_ns, stat.st_mtime_ns))
            for name, stat in stats
            if (stat.st_mode & 0o170000) == 0o100000
        ]
        folders.append((os.path.relpath(path, tree), files))
    return folders


def make_directories(target: str, folders: Sequence[Folder]) -> None:
    """All of them, by one process."""
    for path, _ in folders:
        os.mkdir(os.path.join(target, path) if path != "." else target)


def fill(method: Method, source: str, target: str, folders: Sequence[Folder]) -> None:
    """Make the files of these directories."""
    for path, files in folders:
        if files:
            old = os.open(os.path.join(source, path), os.O_RDONLY | os.O_DIRECTORY)
            new = os.open(os.path.join(target, path), os.O_RDONLY | os.O_DIRECTORY)
            method(old, new, files)
            os.close(new)
            os.close(old)


def look(tree: str, folders: Sequence[Folder]) -> None:
    """List each directory and ask for the state of each file: what it takes to see that nothing changed."""
    for path, _ in folders:
        with os.scandir(os.path.join(tree, path)) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)


def share(folders: Sequence[Folder], processes: int) -> list[list[Folder]]:
    """Directories dealt out so that all have about as many files."""
    shares: list[list[Folder]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for folder in sorted(folders, key=lambda folder: len(folder[1]), reverse=True):
        least = loads.index(min(loads))
        shares[least].append(folder)
        loads[least] += len(folder[1]) + 1
    return [sorted(part) for part in shares]


def timed(work: Callable[[Sequence[Part]], None], shares: Sequence[Sequence[Part]]) -> float:
    """Seconds until all are done: the first share here, each other in a forked process."""
    begin = time.perf_counter()
    children = []
    for part in shares[1:]:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(part)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    work(shares[0])
    for child in children:
        if os.waitpid(child, 0)[1] != 0:
            raise OSError("a process of the floor failed")
    return time.perf_counter() - begin


def can_clone(folder: str) -> bool:
    """Has this filesystem FICLONE?"""
    with tempfile.TemporaryFile(dir=folder) as old, tempfile.TemporaryFile(dir=folder) as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
        except OSError:
            return False
    return True


def measure(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, float]:
    """Median seconds of each way by one and by two processes, where the filesystem has it."""
    source, target = os.fspath(source), os.fspath(target)
    folders = listing(source)
    parent = os.path.dirname(os.path.abspath(target))
    ways = [method for method in (reflink, hardlink, copy) if method is not reflink or can_clone(parent)]
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for method in ways:
            for processes in (1, 2):
                os.sync()
                begin = time.perf_counter()
                make_directories(target, folders)
                found.setdefault("directories, 1 process", []).append(time.perf_counter() - begin)
                seconds = timed(partial(fill, method, source, target), share(folders, processes))
                found.setdefault(f"{method.__name__}, {label(processes)}", []).append(seconds)
                if method is copy:
                    begin = time.perf_counter()
                    os.sync()
                    found.setdefault("sync after copy", []).append(time.perf_counter() - begin)
                shutil.rmtree(target)
        for processes in (1, 2):
            seconds = timed(partial(look, source), share(folders, processes))
            found.setdefault(f"list and stat, {label(processes)}", []).append(seconds)
    return {what: statistics.median(seconds) for what, seconds in found.items()}


def label(processes: int) -> str:
    """In words."""
    return "1 process" if processes == 1 else f"{processes} processes"


if __name__ == "__main__":
    if len(sys.argv) != 3 or os.path.lexists(sys.argv[2]):
        sys.exit(__doc__)
    for what, seconds in measure(sys.argv[1], sys.argv[2]).items():
        print(f"{seconds:8.3f} s  {what}")
