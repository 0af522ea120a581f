"""The folders ``00`` to ``ff`` of blobs and of link forms: opened once, and written to through the open folder."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from holo import platform
from holo.errors import KEEPS_NO_MODES, HoloError, IntegrityError
from holo.platform import Directory

DRAFT = ".draft-"
"""Begins the names of files being written; one that no process is writing is garbage after a crash."""

NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENOTDIR})
"""Opening something that is not a regular file may answer this: a symlink, a socket, a file for a folder."""

_count = itertools.count()


def temporary_name() -> str:
    """A name no other process or thread uses now; a stale file of that name is a dead process's."""
    return f"{os.getpid()}-{next(_count)}-{time.time_ns()}"


class Shards:
    """One directory of a library.

    A folder is opened before anything is written there, so that no symlink in its place leads the writing
    elsewhere. A worker process keeps it open, for opening it for each of 20,000 files takes a twentieth of the time;
    it ends with its command, and nobody moves the folders before that.
    """

    _is_open = False

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory: Directory = platform.open_root(path)
        self._is_open = True
        self.is_exact = True
        """whether a new file gets the mode that it is made with, and no ACL"""
        self._looked_at: set[str] = set()
        self._keeps_modes = False
        """whether a file has shown the mode that it was given"""
        self._made_by = os.getpid()
        self._kept: dict[str, Directory] = {}

    def close(self) -> None:
        """Let go of the directory. A program may make many libraries, and nobody tells when it needs one no more."""
        if self._is_open:
            self._is_open = False
            platform.close_directory(self.directory)

    __del__ = close

    def open(self, name: str) -> Directory:
        """The open folder ``name``, made if it is not there. It is given back by :meth:`release`."""
        folder = self._kept.get(name)
        if folder is None:
            folder = self._open(name)
            if len(self._kept) < platform.MOST_KEPT_OPEN and os.getpid() != self._made_by:
                self._kept[name] = folder
        return folder

    def release(self, name: str, folder: Directory) -> None:
        """Close what :meth:`open` has opened, unless it is kept."""
        if self._kept.get(name) != folder:
            platform.close_directory(folder)

    def _open(self, name: str) -> Directory:
        try:
            try:
                folder = platform.open_child(self.directory, name)
            except FileNotFoundError:
                folder = self._make(name)
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            raise IntegrityError(f"{os.path.join(self.path, name)} is not a directory", "Remove it.") from None
        if name not in self._looked_at:
            self._looked_at.add(name)
            if platform.has_default_acl(folder):
                self.is_exact = False
        return folder

    def _make(self, name: str) -> Directory:
        try:
            platform.make_directory(self.directory, name, 0o777)
        except FileExistsError:  # another process was faster
            return platform.open_child(self.directory, name)
        folder = platform.open_child(self.directory, name)
        platform.disinherit(folder, 0o777)
        return folder

    def finish(self, descriptor: int, mtime_ns: int, mode: int, *, exact: bool = False) -> None:
        """Give a new file its mtime and its mode. ``exact``: it was made with that, umask aside."""
        if not self.is_exact:
            platform.remove_xattrs(descriptor)
        platform.set_file(descriptor, mtime_ns, None if exact and self.is_exact else mode)
        if not self._keeps_modes:  # modes seal blobs, and show who may have written a record
            if not platform.shows_mode(descriptor, mode):
                shown = stat.S_IMODE(os.fstat(descriptor).st_mode)
                raise HoloError(
                    f"cannot use {self.path}: its filesystem shows the mode {shown:o} of a file that has {mode:o}",
                    KEEPS_NO_MODES,
                )
            self._keeps_modes = True

    def publish(self, name: str, make: Callable[[Directory, str], None]) -> None:
        """Let ``make`` write a file under a draft name, then rename it to ``name`` (``ab/...``).

        The draft is in the folder it is for, so that workers seldom meet in one; ``make`` gets that folder and the
        draft's name. Two writers of the same name do no harm: both wrote the same content, and the second replaces
        the first.
        """
        parent, _, base = name.partition("/")
        draft = DRAFT + temporary_name()
        folder = self.open(parent)
        try:
            make(folder, draft)
            platform.rename(folder, draft, folder, base)
        except BaseException:
            with suppress(FileNotFoundError):
                platform.remove_file(folder, draft)
            raise
        finally:
            self.release(parent, folder)
