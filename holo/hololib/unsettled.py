"""Notes of what may not have reached the disk yet, to be read after a power cut.

Blobs and link forms are written without waiting for the disk; a single sync makes all those of a record durable
before its catalog appears. Until then a file may have its name, size, mode and time on the disk, but not its
content. While the system runs nobody can see that, so it matters only after another boot. Whoever writes such
files leaves a note first:

    unsettled/<boot>-<user>   derived files were made, which are not synced: link forms, inflated blobs
    unsettled/<boot>-<...>    a record is running; it removes the note when everything is on the disk
    unsettled/failed-<...>    the disk reported an error

A note of another boot (or of a failure) means that files which changed since then may be torn. Whoever next locks the
library exclusively reads them and removes the torn ones (:mod:`holo.hololib.recovery`). No catalog needs these yet: a
file that one does need was damaged, not torn, and goes to the quarantine. Files that cannot be read, and those of
other users, stay in doubt, and then the notes stay as well. Only the notes of this user and of root count, because only
their files are trusted without reading them.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from holo import platform
from holo.errors import HoloError, advice_at_home, hints
from holo.hololib.shards import DRAFT, temporary_name
from holo.owners import is_ours
from holo.platform import Directory
from holo.walk import make_folders

_CLOCK_STEP_NS = 86_400 * 10**9
"""A clock may be set back while files are written (to another time zone, at most), so look back a day more."""


class Unsettled:
    """The ``unsettled/`` folder of a library."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._boot = platform.boot_id()
        self._has_derived = False

    @contextmanager
    def record(self, unless: str) -> Iterator[None]:
        """Keep a note while the block runs. It stays if the block fails.

        Raises :class:`HoloError` if the note cannot be written; ``unless`` tells the user what that means.
        """
        try:
            path = self._note(f"{self._boot}-{temporary_name()}")
        except OSError as error:
            raise HoloError(
                f"cannot write to the library, {self._folder}: {error.strerror}",
                hints(unless, advice_at_home(error)),
            ) from error
        yield
        os.unlink(path)

    def note_derived(self) -> None:
        """Call this before making a derived file. Raises :class:`OSError`."""
        if not self._has_derived:
            name = f"{self._boot}-{platform.user_id()}"
            if name not in self._notes():
                try:
                    self._note(name)
                except FileExistsError as error:
                    if name not in self._notes():  # so it was not another process that was faster
                        raise OSError(errno.EEXIST, f"{error.filename} is no note of this user; remove it") from None
            self._has_derived = True

    def note_write_error(self) -> None:
        """Note that written data did not reach the disk, although reading it back from memory works."""
        with suppress(OSError):  # if nothing can be written at all, the caller reports that failure
            self._note(f"failed-{temporary_name()}")

    def may_be_torn(self) -> bool:
        """Whether there may be torn files."""
        return any(not name.startswith(self._boot) for name in self._notes())

    def earliest_change(self) -> int:
        """The time (ns) since which changed files may be torn."""
        return min(self._notes().values(), default=time.time_ns()) - _CLOCK_STEP_NS

    def clear(self) -> None:
        """Remove the notes: every file was checked, and nobody is writing."""
        for name in self._notes():
            os.unlink(os.path.join(self._folder, name))
        self._has_derived = False

    def _notes(self) -> dict[str, int]:
        """The mtimes (ns) of the notes of this user and root, by name."""
        found = {}
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # its record has ended
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and is_ours(status):
                        found[entry.name] = status.st_mtime_ns
        return found

    def _note(self, name: str) -> str:
        path = os.path.join(self._folder, name)
        make_folders(self._folder)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        with platform.closing(platform.open_root(self._folder)) as folder:
            platform.sync_directory(folder)
        return path


def remove_torn(
    directory: Directory, since: int, content_matches: Callable[[int, str], bool], remove: Callable[[str], object]
) -> bool:
    """Read every file ``ab/...`` in ``directory`` whose ctime is not before ``since`` (ns); ``remove`` the torn ones.

    Returns whether all of them could be checked: the disk may fail to read one, and another user's may not be readable
    or removable. Drafts stay.
    """
    is_settled = True
    with platform.listing(directory) as entries:
        folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for folder in folders:
        with platform.closing(platform.open_child(directory, folder)) as child:
            with platform.listing(child) as entries:
                found = [entry.name for entry in entries if entry.stat(follow_symlinks=False).st_ctime_ns >= since]
            for name in found:
                try:
                    if not name.startswith(DRAFT) and _is_torn(child, name, content_matches):
                        remove(f"{folder}/{name}")
                except OSError as error:
                    if error.errno not in (errno.EIO, errno.EACCES, errno.EPERM):
                        raise
                    is_settled = False
    return is_settled


def _is_torn(directory: Directory, name: str, content_matches: Callable[[int, str], bool]) -> bool:
    with platform.closing(platform.open_file(directory, name)) as descriptor:
        platform.drop_cached(descriptor)
        return not content_matches(descriptor, name)
