"""Look at what is in a catalog, a bundle, or a space as it is now. No symlink is followed."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shlex import quote
from typing import NamedTuple

from holo import platform
from holo.answers.references import meant, opened
from holo.answers.tree import Tree
from holo.catalog import DirectoryRow, FileRow
from holo.content import Hole, Piece, pieces_of
from holo.errors import NotFound, UsageError, os_errors_as
from holo.home import Home
from holo.platform import Directory
from holo.space import Space
from holo.walk import Walker, open_directory

_PIECE = 1 << 20
"""Bytes of zeros at a time."""


class Entry(NamedTuple):
    """One entry of a directory."""

    path: str
    """below the tree"""
    kind: str
    """``file``, ``directory``, ``symlink`` or ``other``"""
    mode: int
    size: int
    """bytes of content; of what has none, 0"""
    mtime: int
    """ns since 1970"""
    target: str | None = None
    """of a symlink"""
    digest: str | None = None
    """of a file in a catalog or a bundle"""


def entries(home: Home, reference: str, path: str) -> list[Entry]:
    """What is in a directory, by name; or the one entry at ``path``, if that is something else."""
    item = meant(home, reference)
    wanted = _normal(path)
    if isinstance(item, Space):
        with _opened_space(home, item, wanted) as walker:
            found = _on_disk(walker, wanted)
    else:
        with opened(home, item) as [tree]:
            found = _in_catalog(tree, wanted)
    if found is None:
        raise _no_file(None, path, reference, is_there=False)
    return sorted(found)


def content(home: Home, reference: str, path: str) -> Iterator[bytes]:
    """The content of a file, in pieces."""
    item = meant(home, reference)
    wanted = _normal(path)
    if isinstance(item, Space):
        with _opened_space(home, item, wanted) as walker:
            yield from _read_from_disk(walker, wanted, path, reference)
        return
    with opened(home, item) as [tree]:
        row = _file(tree, wanted, path, reference)
        for piece in tree.contents.chunks(row[4], row[2]):
            yield from _bytes(piece)


def _normal(path: str) -> str:
    normal = posixpath.normpath(path or ".")
    if normal.split("/")[0] in ("", ".."):
        raise UsageError(f"{path} is not a path in a tree", "Give it as `holo ls` shows it: below the top of the tree.")
    return "" if normal == "." else normal


def _in_catalog(tree: Tree, path: str) -> list[Entry] | None:
    directories = {row[0]: row for row in tree.catalog.directories}
    row = directories.get(path)
    if row is not None:
        base = f"{path}/" if path else ""
        below = [other for other in directories.values() if other[0] and other[0].rpartition("/")[0] == path]
        return [*(Entry(each[0], "directory", each[1], 0, each[2]) for each in below), *_entries(base, row)]
    folder = path.rpartition("/")[0]
    row = directories.get(folder)
    base = f"{folder}/" if folder else ""
    found = [entry for entry in _entries(base, row) if entry.path == path] if row is not None else []
    return found or None


def _entries(base: str, row: DirectoryRow) -> Iterator[Entry]:
    for name, mode, size, mtime, digest in row[3]:
        yield Entry(base + name, "file", mode, size, mtime, None, digest)
    for name, target, mtime in row[4]:
        yield Entry(base + name, "symlink", 0o777, 0, mtime, target)


def _file(tree: Tree, wanted: str, path: str, reference: str) -> FileRow:
    folder, _, name = wanted.rpartition("/")
    row = next((row for row in tree.catalog.directories if row[0] == folder), None)
    for file in row[3] if row is not None else ():
        if file[0] == name:
            return file
    found = _in_catalog(tree, wanted)
    entry = found[0] if found and found[0].path == wanted else None
    raise _no_file(entry, path, reference, is_there=found is not None)


def _no_file(entry: Entry | None, path: str, reference: str, *, is_there: bool) -> NotFound:
    if entry is not None and entry.kind == "symlink":
        return NotFound(f"{path} in {reference} is a symlink to {entry.target}", "Name the file that it leads to.")
    if is_there:
        path = path or "."
        hint = f"`holo ls {quote(reference)} {quote(path)}` shows what is there."
        return NotFound(f"{path} in {reference} is not a file", hint)
    return NotFound(f"there is no {path} in {reference}", f"`holo ls {quote(reference)}` shows what there is.")


# -- spaces, as they are on the disk ------------------------------------------------------------------------


@contextmanager
def _opened_space(home: Home, space: Space, path: str) -> Iterator[Walker]:
    """For what is at ``path`` in there."""
    home.spaces.refuse_copied(space)
    home.spaces.refuse_unseen(space)
    with os_errors_as(f"cannot read the space {space.path}"):
        directory = open_directory(space.path)
    with (
        platform.closing(directory) as root,
        os_errors_as(f"cannot read {os.path.join(space.path, path)}"),
        Walker(root) as walker,
    ):
        yield walker


def _on_disk(walker: Walker, path: str) -> list[Entry] | None:
    try:
        directory = walker.open(path)
    except (FileNotFoundError, NotADirectoryError):
        entry = _one_on_disk(walker, path)
        return [entry] if entry is not None else None
    base = f"{path}/" if path else ""
    there = []
    with platform.listing(directory) as found:
        for name in [entry.name for entry in found]:
            with suppress(FileNotFoundError):  # it has just been removed
                there.append(_entry(directory, base + name, name))
    return there


def _one_on_disk(walker: Walker, path: str) -> Entry | None:
    folder, _, name = path.rpartition("/")
    try:
        return _entry(walker.open(folder), path, name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _entry(directory: Directory, path: str, name: str) -> Entry:
    status = platform.status(directory, name)
    mode, mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns
    if stat.S_ISREG(status.st_mode):
        return Entry(path, "file", mode, status.st_size, mtime)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, "symlink", mode, 0, mtime, platform.read_link(directory, name))
    return Entry(path, "directory" if stat.S_ISDIR(status.st_mode) else "other", mode, 0, mtime)


def _read_from_disk(walker: Walker, wanted: str, path: str, reference: str) -> Iterator[bytes]:
    entry = _one_on_disk(walker, wanted) if wanted else None
    if entry is None or entry.kind != "file":
        raise _no_file(entry, path, reference, is_there=not wanted or entry is not None)
    folder, _, name = wanted.rpartition("/")
    with platform.closing(platform.open_file(walker.open(folder), name)) as descriptor:
        for piece in pieces_of(descriptor, os.fstat(descriptor).st_size):
            yield from _bytes(piece)


def _bytes(piece: Piece) -> Iterator[bytes]:
    if isinstance(piece, Hole):  # which may be larger than the memory
        for start in range(0, len(piece), _PIECE):
            yield bytes(min(_PIECE, len(piece) - start))
    else:
        yield bytes(piece)
