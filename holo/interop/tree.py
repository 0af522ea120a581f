"""What another tool's file says is in an environment, checked entry by entry before anything is written.

A path is taken apart into names, and put together again below an open directory: there is no ``..``, and nothing lies
below a file or a symlink. So whatever the file says, what is unpacked is in the folder that it is unpacked to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from holo.catalog import LONGEST_NAME, LONGEST_TARGET, MAX_DEPTH
from holo.errors import IntegrityError, printable

FOLDER_TIME = 315_532_800 * 10**9
"""1980-01-01: the mtime of folders that an archive does not list. It must be the same each time it is imported."""

MOST_ENTRIES = 2_000_000
_LATEST = 1 << 63


class File(NamedTuple):
    size: int
    mode: int
    mtime: int
    """ns"""
    content: str
    """what is the same in files with the same content, or nothing"""


class ForeignTree:
    """The entries of an environment by their paths relative to its root, which is ""."""

    def __init__(self, origin: str) -> None:
        """``origin`` is the path of what it comes from, for messages."""
        self.origin = origin
        self.folders: dict[str, tuple[int, int]] = {}
        """mode, mtime in ns"""
        self.files: dict[str, File] = {}
        self.symlinks: dict[str, tuple[str, int]] = {}
        """target, mtime in ns"""
        self.hardlinks: dict[str, str] = {}
        """the path of the file that each is another name of"""

    def add_folder(self, path: str, mode: int, mtime: int) -> None:
        self.folders[self._new(path, mtime) if path else ""] = (mode, mtime)

    def add_file(self, path: str, file: File) -> None:
        if file.size < 0:
            raise self.damaged(f"a negative size of {shown(path)}")
        self.files[self._new(path, file.mtime)] = file

    def add_symlink(self, path: str, target: str, mtime: int) -> None:
        self.symlinks[self._new(path, mtime)] = (self._text(target, LONGEST_TARGET), mtime)

    def add_hardlink(self, path: str, first: str) -> None:
        """``first`` must be a file that was added before."""
        if first not in self.files:
            raise self.damaged(f"{shown(path)}, a hard link to {shown(first)}, which is no file before it")
        self.hardlinks[self._new(path, 0)] = first

    def settle(self) -> None:
        """To be called when everything was added: check how it all hangs together, and add folders not listed."""
        self.folders.setdefault("", (0o755, FOLDER_TIME))
        for path in [*self.folders, *self.files, *self.symlinks, *self.hardlinks]:
            parent = os.path.dirname(path)
            while parent not in self.folders:
                if parent in self.files or parent in self.symlinks or parent in self.hardlinks:
                    kind = "symlink" if parent in self.symlinks else "file"
                    raise self.damaged(f"{shown(path)} below {shown(parent)}, which is a {kind}")
                self.folders[parent] = (0o755, FOLDER_TIME)
                parent = os.path.dirname(parent)

    def damaged(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self.origin} has {what}", "It is damaged, or was made to do harm. Get it again.")

    def _new(self, path: str, mtime: int) -> str:
        """A path for a new entry. Raises :class:`IntegrityError` if it cannot be one."""
        if not -_LATEST <= mtime < _LATEST:
            raise self.damaged(f"an impossible modification time of {shown(path)}")
        names = path.split("/")
        if len(names) > MAX_DEPTH or not {"", ".", ".."}.isdisjoint(names):
            raise self.damaged(f"an entry {shown(path)}, which is no path inside an environment")
        path = "/".join(self._text(name, LONGEST_NAME) for name in names)
        if path in self.folders or path in self.files or path in self.symlinks or path in self.hardlinks:
            raise self.damaged(f"two entries {shown(path)}")
        if len(self.folders) + len(self.files) + len(self.symlinks) + len(self.hardlinks) >= MOST_ENTRIES:
            raise self.damaged(f"more than {MOST_ENTRIES:,} entries")
        return path

    def _text(self, text: str, longest: int) -> str:
        try:
            raw = os.fsencode(text)
        except UnicodeEncodeError:
            raw = b""
        if not raw or b"\0" in raw or len(raw) > longest:
            raise self.damaged(f"a name or a target {shown(text)}, which cannot be one")
        return os.fsdecode(raw)  # of which there is only one spelling


Content: TypeAlias = tuple[str, Iterator[bytes]]
"""The path of a file and what is in it, of which nothing need be taken."""


class Environment(NamedTuple):
    """One environment of another tool, as it can be recorded."""

    name: str
    """of the catalog, unless the user gives one"""
    prefix: str
    """the path that its files name"""
    tree: ForeignTree
    contents: Callable[[], Iterator[Content]]
    """the files of the tree, each once; raises :class:`~holo.errors.IntegrityError` for what is not as recorded"""
    finish: Callable[[str, int], object]
    """called with the path of each file and its descriptor, when its content is written"""
    warnings: tuple[str, ...]


def shown(text: str) -> str:
    """A name from a file of somebody else's, in a message."""
    return printable(repr(text if len(text) <= 200 else text[:200] + "..."))


def is_normal(prefix: str) -> bool:
    """Whether a path can be that of an environment on this kind of system."""
    try:
        raw = os.fsencode(prefix)
    except UnicodeEncodeError:
        return False
    is_absolute = prefix.startswith("/") and not prefix.startswith("//") and prefix != "/"
    return is_absolute and os.path.normpath(prefix) == prefix and not {0, 10} & {*raw} and len(raw) <= LONGEST_TARGET
