"""The tree that is being made: under another name beside its place, locked, and given its name by one rename.

Whoever is killed leaves a draft that nobody holds a lock on, and the next clone in that folder removes it. On a shared
filesystem (SMB, FUSE) a lock may not be seen by other machines, which tell by the boot that a draft is not theirs; so
after a restart only a clone to the same place removes it.
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
"""Of a boot, and for a place."""


class Draft:
    """A draft of what is to be ``name`` in the open ``folder``."""

    def __init__(self, folder: Directory, name: str) -> None:
        self._folder = folder
        self._name = name
        self._place = f"{zlib.crc32(os.fsencode(name)):08x}"
        self._boot = f"{zlib.crc32(platform.boot_id().encode()):08x}"
        self._draft = ""
        self._root: Directory | None = None

    @property
    def root(self) -> Directory:
        """The draft, open, once it is made."""
        assert self._root is not None
        return self._root

    def remove_leftovers(self) -> None:
        """Remove the drafts of killed clones."""
        with platform.listing(self._folder) as entries:
            drafts = [draft for entry in entries if (draft := _DRAFT.fullmatch(entry.name))]
        names = [draft[0] for draft in drafts if draft[1] == self._boot or draft[2] == self._place]
        for name in names:
            with suppress(OSError):  # another user's, or on a filesystem without locks: then nobody can tell
                found = platform.open_child(self._folder, name)
                try:
                    if is_ours(platform.status(found, "")) and platform.lock_directory(found):
                        remove(self._folder, name)
                finally:
                    platform.close_directory(found)

    def make(self, make: Callable[[Directory, str], object]) -> None:
        """Let ``make`` make the draft in a folder under a name, and open it. Nothing is left if that fails.

        Until it is open it is not locked, so that is to be one system call: others may take it for a leftover.
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
        """Open and lock it; not if somebody took it for a leftover in the moment between making and locking it."""
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
        """Give it its name. Raises :class:`FileExistsError` if that is taken."""
        platform.rename_new(self._folder, self._draft, self._name)
        self._draft = ""

    def close(self) -> None:
        """Remove it, unless it is published, and let go of it."""
        try:
            if self._draft:
                remove(self._folder, self._draft)
        finally:
            self._draft = ""
            if self._root is not None:
                platform.close_directory(self._root)
                self._root = None
