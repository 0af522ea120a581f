"""Stubs: files without content, for which overlayfs shows that of blobs. A tree of them costs no data.

A stub is a sparse file of the right size, mode and mtime. Two attributes of it tell overlayfs to show another file's
content, in a *data-only* layer: overlayfs(5), "Data-only lower layers". The names there are hardlinks of raw blobs, so
what a blob had when the stub was made stays as long as the stub, whatever becomes of the library.

The names are short, so that the attributes fit into an inode of 256 bytes: a block for each would cost ext4 ten times
as much. Who knows two contents whose digests begin alike could have one taken for the other. So a name that is there
counts only if it is that very blob's.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from holo import digest as digests
from holo import platform
from holo.catalog import FileRow
from holo.hololib.blobs import Blobs, is_sealed, raw_name
from holo.platform import Directory

DIGITS = 20
"""Of a digest, those that are its name in the data-only layer: as many as fit into an ext4 inode of 256 bytes."""

_NOT_LINKED = platform.UNAVAILABLE | {errno.ENOENT, errno.EPERM, errno.EACCES, errno.EMLINK}
"""What link(2) answers where this one blob, or none here, can have another name."""

_OWNER_READS, _OWNER_WRITES = 0o400, 0o200


class Stubs:
    """Makes the stubs of one tree, and the names of blobs that they lead to."""

    def __init__(self, blobs: Blobs, data: Directory, attributes: str) -> None:
        """``data``: the open folder of those names; ``attributes``: the class that overlayfs reads, trusted or user."""
        self._blobs = blobs
        self._data = data
        self._metacopy, self._redirect = f"{attributes}.overlay.metacopy", f"{attributes}.overlay.redirect"
        self._owners = platform.owners()
        self._folders: set[str] = set()
        self._named: set[str] = set()
        self._hashed: dict[str, bool] = {}

    def make(self, row: FileRow, directory: Directory) -> int | None:
        """Make a stub in an open directory. Returns the open file, with its owner's right to write to it as well.

        ``None``: this file has to be made whole. An attribute of a file that its owner may not read does not count.
        """
        name, mode, size, _, digest = row
        if not size:
            return platform.create_file(directory, name, mode | _OWNER_WRITES)
        if not mode & _OWNER_READS:
            return None
        if digest not in self._named:
            if not self._name(digest, size):
                return None
            self._named.add(digest)
        target = platform.create_file(directory, name, mode | _OWNER_WRITES)
        try:
            os.ftruncate(target, size)
            mark(target, self._metacopy, self._redirect, _short(digest))
        except BaseException:
            os.close(target)
            platform.remove_file(directory, name)
            raise
        return target

    def _name(self, digest: str, size: int) -> bool:
        """Have the short name lead to the raw form of a blob that nobody else can write to; whether it does."""
        name = _short(digest)
        if digest[:2] not in self._folders:
            with suppress(FileExistsError):  # made by another worker
                platform.make_directory(self._data, digest[:2], 0o700)
            self._folders.add(digest[:2])
        is_new = True
        try:
            try:
                platform.link(self._blobs.directory, raw_name(digest), self._data, name)
            except FileExistsError:
                is_new = False
                blob = platform.status(self._blobs.directory, raw_name(digest))
                if not os.path.samestat(platform.status(self._data, name), blob):
                    return False
            status = platform.status(self._data, name)
        except OSError as error:
            if error.errno not in _NOT_LINKED:
                raise
            return False
        is_sound = is_sealed(status, size) and status.st_uid in self._owners
        if is_new and not is_sound:
            platform.remove_file(self._data, name)
        return is_sound

    def shows(self, descriptor: int, row: FileRow) -> bool | None:
        """Whether an open stub leads to the content of that row, which is hashed. ``None``: it is no stub."""
        if sys.platform != "linux":
            return None
        found = [name for name in (self._metacopy, self._redirect) if name in os.listxattr(descriptor)]
        if not found:
            return None
        digest = row[4]
        if len(found) < 2 or os.getxattr(descriptor, self._redirect) != b"/" + _short(digest).encode():
            return False
        if digest not in self._hashed:
            with platform.closing(platform.open_file(self._data, _short(digest))) as blob:
                self._hashed[digest] = digests.of_file(blob) == digest
        return self._hashed[digest]


def mark(stub: int, metacopy: str, redirect: str, name: str) -> None:
    platform.set_xattr(stub, metacopy, b"")
    platform.set_xattr(stub, redirect, b"/" + name.encode())


def _short(digest: str) -> str:
    return f"{digest[:2]}/{digest[2:DIGITS]}"
