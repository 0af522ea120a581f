"""The draft of a clone: made under another name in the folder of its target, locked, and published by one rename.

A killed clone leaves a draft without a lock, which the next clone in that folder removes. On a shared filesystem (SMB,
FUSE), other machines may not see a lock. So a draft also bears the boot that it was made in, and a draft of another
boot is removed only by a clone to the same target.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from contextlib import suppress

from holo import platform
from holo.owners import is_ours
from holo.platform import Directory
from holo.remove import remove

_DRAFT = re.compile(r"\.holo-clone-([0-9a-f]{8})-([0-9a-f]{8})-[0-9a-f]{8}")
"""Hashes of the boot and of the target's name, and a random number."""


class Draft:
    """The draft of ``name`` in the open ``folder``."""

    def __init__(self, folder: Directory, name: str) -> None:
        self._folder = folder
        self._name = name
        self._place = f"{zlib.crc32(os.fsencode(name)):08x}"
        self._boot = f"{zlib.crc32(platform.boot_id().encode()):08x}"
        self._draft = ""
        self._root: Directory | None = None

    @property
    def root(self) -> Directory:
        """The open draft, after :meth:`make`."""
        assert self._root is not None
        return self._root

    def remove_leftovers(self) -> None:
        """Remove the drafts of killed clones."""
        with platform.listing(self._folder) as entries:
            drafts = [draft for entry in entries if (draft := _DRAFT.fullmatch(entry.name))]
        names = [draft[0] for draft in drafts if draft[1] == self._boot or draft[2] == self._place]
        for name in names:
            # An error: another user's, or on a filesystem without locks, where it may be in use.
            with suppress(OSError), platform.closing(platform.open_child(self._folder, name)) as found:
                if is_ours(platform.status(found, "")) and platform.lock_directory(found):
                    remove(self._folder, name)

    def make(self, make: Callable[[Directory, str], object]) -> None:
        """Call ``make`` with a folder and a name, and open the draft that it makes there. A failure leaves nothing.

        ``make`` should be one system call: until the draft is opened and locked, other clones take it for a leftover.
        """
        while self._root is None:
            self._draft = f".holo-clone-{self._boot}-{self._place}-{os.urandom(4).hex()}"
            try:
                make(self._folder, self._draft)
                self._open()
            except BaseException:
                self.close()
                raise

    def _open(self) -> None:
        """Open and lock the draft, unless another clone has removed it as a leftover before it was locked."""
        try:
            self._root = platform.open_child(self._folder, self._draft)
        except FileNotFoundError:
            return
        with suppress(OSError):  # no locks here
            if not platform.lock_directory(self._root) or not self._is_there():
                platform.close_directory(self._root)
                self._root = None

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(platform.status(self._folder, self._draft), platform.status(self.root, ""))
        except FileNotFoundError:
            return False

    def publish(self) -> None:
        """Rename the draft to its target. Raises :class:`FileExistsError` if that exists."""
        platform.rename_new(self._folder, self._draft, self._name)
        self._draft = ""

    def close(self) -> None:
        """Remove the draft, unless it is published, and close it."""
        try:
            if self._draft:
                remove(self._folder, self._draft)
        finally:
            self._draft = ""
            if self._root is not None:
                platform.close_directory(self._root)
                self._root = None
