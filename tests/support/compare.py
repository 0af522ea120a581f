"""Is one tree the copy of another? Answered by a walk of its own and by rsync, never by holo's code."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

Stats = dict[bytes, os.stat_result]


def differences(
    source: Path, copy: Path, *, old: Path | None = None, new: Path | None = None, library: Path | None = None
) -> list[str]:
    """Every respect in which `copy` is not `source`; an empty list means that it is an exact copy.

    Where the source holds the path `old` (by default its own), the copy must hold `new` (by default its
    own). A file of the copy that is a hard link into `library` is shared with others, so it must be read-only,
    and what else it is linked with is not looked at.
    """
    before, after = walk(source), walk(copy)
    shared = _inodes(library) if library and library.exists() else set()
    linked = {name for name, found in after.items() if _inode(found) in shared}
    relocation = os.fsencode(old or source), os.fsencode(new or copy)

    found = [f"{_show(name)}: missing" for name in before.keys() - after.keys()]
    found += [f"{_show(name)}: extra" for name in after.keys() - before.keys()]
    for name in sorted(before.keys() & after.keys()):
        expected = _describe(source, name, before[name], name in linked, relocation)
        actual = _describe(copy, name, after[name], name in linked)
        for what in expected.keys() | actual.keys():
            if expected.get(what) != actual.get(what):
                want, is_ = _brief(expected.get(what)), _brief(actual.get(what))
                found.append(f"{_show(name)}: {what} should be {want}, is {is_}")
        if stat.S_ISREG(before[name].st_mode) and stat.S_ISREG(after[name].st_mode):
            maps = [data_map(os.path.join(os.fsencode(tree), name)) for tree in (source, copy)]
            if before[name].st_size == after[name].st_size and maps[0] != maps[1]:
                found.append(f"{_show(name)}: has data at {_brief(maps[0])}, its copy at {_brief(maps[1])}")

    groups, copied = hardlinks(before, linked), hardlinks(after, linked)
    for group in groups - copied:
        found.append(f"no longer hard links of each other: {sorted(map(_show, group))}")
    for group in copied - groups:
        found.append(f"hard links of each other only in the copy: {sorted(map(_show, group))}")
    return found


def _describe(
    tree: Path,
    name: bytes,
    found: os.stat_result,
    linked: bool,
    relocation: tuple[bytes, bytes] | None = None,
) -> dict[str, object]:
    """What has to be equal in a tree and its copy, as it must be after a `relocation`."""
    path = os.path.join(os.fsencode(tree), name)
    kind, mode = stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode)
    all_of_it: dict[str, object] = {"type": kind, "xattrs": xattrs(path), "mtime": found.st_mtime_ns}
    if kind == stat.S_IFLNK:
        target = os.readlink(path)
        if relocation and (target + b"/").startswith(relocation[0] + b"/"):
            target = relocation[1] + target[len(relocation[0]) :]
        return {**all_of_it, "target": target}
    all_of_it["mode"] = oct(mode & ~0o222 if linked and relocation else mode)
    if kind == stat.S_IFREG:
        content = _read(path)
        all_of_it["content"] = relocated(name, content, *relocation) if relocation else content
    return all_of_it


def relocated(name: bytes, content: bytes, old: bytes, new: bytes) -> bytes:
    """What a file that holds the path `old` must hold at its new place.

    Text is spliced. In a binary file the path keeps its room: it is filled up with slashes, or with NULs where a string
    ends. Bytecode stays as it is: CPython corrects the path itself when it loads it.
    """
    if old not in content or name.endswith(b".pyc"):
        return content
    if b"\0" not in content:
        return content.replace(old, new)
    padding = {None: b"/", b"": b"\0", b"\0": b"\0"}
    return re.sub(re.escape(old) + rb"(?=(\0|\Z)?)", lambda found: new.ljust(len(old), padding[found[1]]), content)


def walk(tree: Path) -> Stats:
    """Everything in a tree by its relative path (`.` is the tree itself), symlinks not followed."""
    found: Stats = {b".": os.lstat(tree)}
    todo = [b""]
    while todo:
        folder = todo.pop()
        with os.scandir(os.path.join(os.fsencode(tree), folder)) as entries:
            for entry in entries:
                name = os.path.join(folder, entry.name)
                found[name] = os.lstat(entry.path)
                if stat.S_ISDIR(found[name].st_mode):
                    todo.append(name)
    return found


def data_map(path: str | bytes | os.PathLike[str]) -> list[tuple[int, int]]:
    """Where a file has data on the disk, as (start, end); between that are holes."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size and file.seek(0, os.SEEK_HOLE) < size:
            # XFS allocates ahead, also in holes, and as long as pages of that are in memory they count as data.
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found = []
        end = 0
        while end < size:
            try:
                start = file.seek(end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nothing but a hole up to the end
                    raise
                break
            end = file.seek(start, os.SEEK_HOLE)
            found.append((start, end))
        return found


def hardlinks(tree: Stats, without: Collection[bytes] = ()) -> set[frozenset[bytes]]:
    """The groups of files in a tree that are one inode."""
    groups: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for name, found in tree.items():
        if stat.S_ISREG(found.st_mode) and name not in without:
            groups[_inode(found)].add(name)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def xattrs(path: bytes) -> dict[str, bytes]:
    """The attributes that are part of an environment."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    kept = [name for name in names if name.startswith("user.") or name == "security.capability"]
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in kept}


def snapshot(tree: Path) -> dict[bytes, tuple[object, ...]]:
    """All that an edit or a rewrite of a tree would change, inode and change time included."""
    return {
        name: (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        for name, found in walk(tree).items()
    }


def rsync_differences(source: Path, copy: Path) -> list[str]:
    """What `rsync` would do to make `copy` equal to `source`, one itemized line each."""
    done = subprocess.run(
        ["rsync", "-aXHn", "--checksum", "--delete", "-i", f"{source}/", f"{copy}/"],
        capture_output=True,
        check=True,
        text=True,
        errors="surrogateescape",
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout.splitlines()


def _inodes(tree: Path) -> set[tuple[int, int]]:
    return {_inode(found) for found in walk(tree).values() if stat.S_ISREG(found.st_mode)}


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _show(name: bytes) -> str:
    return repr(os.fsdecode(name))


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:120]}... ({len(text)} characters)"
