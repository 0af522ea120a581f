"""The folders ``00`` to ``ff`` of blobs and of link forms: opened once, and written to through what was opened."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress

from holo import platform
from holo.errors import IntegrityError
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
    it ends with its command, and until then nobody moves the folders.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory: Directory = platform.open_root(path)
        self._made_by = os.getpid()
        self._kept: dict[str, Directory] = {}

    def close(self) -> None:
        platform.close_directory(self.directory)

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
                return platform.open_child(self.directory, name)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    platform.make_directory(self.directory, name, 0o777)
                return platform.open_child(self.directory, name)
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            raise IntegrityError(f"{os.path.join(self.path, name)} is not a directory", "Remove it.") from None

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
