"""Files made to be hardlinked into spaces: derived from blobs, one per content, mode and mtime.

A hardlink shares mode and mtime with every other link of the file. Linking the blob itself would show
every space the blob's, which makes bytecode stale (CPython compares the source's mtime) and loses the
executable bit; and an edit through a hardlink would reach the truth. So hardlinked spaces share these
files instead: their names say which mode and mtime they must have, a change shows in one stat, and a
damaged one is dropped and made again from its blob, which no space can reach. Each user has their own (the
last part of the name), because the owner of a file can change it wherever it is linked.

They cost no data blocks where the library can reflink, and one copy per content elsewhere (with a
compressed library: what an inflated blob would cost anyway).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import cached_property

from holo import digest as digests
from holo import platform
from holo.catalog import FileRow
from holo.content import write_sparse
from holo.filetimes import FileTimes, try_out
from holo.hololib.blobs import Blobs
from holo.hololib.shards import Shards
from holo.platform import Directory

_ATTEMPTS = 8
"""A link to a file that another process replaces at this moment is refused, for that has no name any more (ENOENT)."""

READ_ONLY = 0o555
"""The part of a file's mode that it keeps when it is shared by hardlink."""


class Links:
    """The ``links/`` folder of a library."""

    def __init__(self, folder: str, blobs: Blobs, before_deriving: Callable[[], object]) -> None:
        """``before_deriving`` is called before a file is made (see holo.hololib.unsettled)."""
        self._shards = Shards(folder)
        self.directory = self._shards.directory
        self._blobs = blobs
        self._user = platform.user_id()
        self._before_deriving = before_deriving

    def close(self) -> None:
        self._shards.close()

    def link(self, row: FileRow, directory: Directory, name: str, *, verify: bool) -> None:
        """Hardlink a file with this row's content, mode (read-only) and mtime to ``name`` in ``directory``.

        ``verify`` hashes it, and the blob if it has to be made. Raises :class:`OSError`; EMLINK when not even a new
        file may have so many links.
        """
        _, mode, size, mtime, _ = row
        mode &= READ_ONLY
        shared = self._name(row)
        try:
            platform.link(self.directory, shared, directory, name)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            # It has as many names as it can have. Spaces keep it, and a new file takes its place here.
        else:
            status = platform.status(directory, name)
            is_sound = (
                (status.st_mtime_ns == mtime or status.st_mtime_ns == self._times.kept(mtime))
                and status.st_size == size
                and status.st_mode == stat.S_IFREG | mode
                and status.st_uid == self._user
            )
            if is_sound and not (verify and _is_wrong(directory, name, row)):
                return
            # Edited through some hardlink: spaces that have it keep it, but no other gets it.
            platform.remove_file(directory, name)
        for attempts_left in reversed(range(_ATTEMPTS)):
            self._make(row, shared, verify=verify)
            try:
                platform.link(self.directory, shared, directory, name)
            except FileNotFoundError:
                if not attempts_left:
                    raise
            else:
                return

    def is_form(self, row: FileRow, status: os.stat_result) -> bool:
        """Whether a file is the one that :meth:`link` would link for this row, provided that is unchanged."""
        try:
            form = platform.status(self.directory, self._name(row))
        except OSError:
            return False
        return (form.st_dev, form.st_ino) == (status.st_dev, status.st_ino)

    def _name(self, row: FileRow) -> str:
        # Each user has their own, because the owner of a file can change it at any time.
        return f"{row[4][:2]}/{row[4]}-{row[1] & READ_ONLY:03o}-{row[3]}-{self._user}"

    @cached_property
    def _times(self) -> FileTimes:
        return try_out(self.directory)

    def _make(self, row: FileRow, shared: str, *, verify: bool) -> None:
        self._before_deriving()
        _, mode, size, mtime, digest = row

        def make(folder: Directory, draft: str) -> None:
            target = self._blobs.clone(digest, size, folder, draft, 0o600, verify=verify, inflate=False)
            if target is None:
                target = platform.create_file(folder, draft, 0o600)
            try:
                if os.fstat(target).st_size != size:
                    write_sparse(target, self._blobs.chunks(digest, size))
                self._shards.finish(target, mtime, mode & READ_ONLY)
            finally:
                os.close(target)

        self._shards.publish(shared, make)


def content_matches(descriptor: int, name: str) -> bool:
    """Whether an open file of ``links/`` holds what its name says. Its mode and time are not looked at."""
    return digests.of_file(descriptor) == name.partition("-")[0]


def _is_wrong(directory: Directory, name: str, row: FileRow) -> bool:
    with platform.closing(platform.open_file(directory, name)) as descriptor:
        return digests.of_file(descriptor) != row[4] or bool(platform.get_xattrs(descriptor, acls=True))
