"""Read the stored files of a library, in workers: does each hold what its name says?"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.errors import HoloError
from holo.files import NOT_DAMAGE
from holo.filetimes import EXACT, try_out
from holo.hololib.blobs import is_sealed
from holo.hololib.frames import stored_content
from holo.hololib.layout import LinkForm, blob_digest, link_form
from holo.hololib.verified import ContentMismatch
from holo.owners import is_mine
from holo.platform import Directory

FOREIGN = "another user's, which only they can read"


class State(Enum):
    SOUND = 1
    UNSEALED = 2
    """a raw blob with the right content whose mode or mtime is not what holo gave it"""
    DAMAGED = 3
    GARBAGE = 4
    """nothing that holo would ever take for a blob or a link form"""
    UNREADABLE = 5
    """of another user, and readable only for them: it may be sound"""


class Seen(NamedTuple):
    """One file."""

    folder: str
    """``library`` or ``links``"""
    name: str
    """with its folder: ``ab/...``"""
    digest: str
    """of the content it should have; "" if its name holds none"""
    state: State
    what: str
    """what is wrong with it"""
    size: int
    """bytes of its content, if it is sound"""
    stored: int
    """bytes of the file"""


_Verdict = tuple[State, str, int]
"""state, what is wrong, bytes of content"""


class Reader:
    """Reads one folder ``ab/`` of blobs or of link forms. Made before the workers are forked."""

    def __init__(self, library: str, folders: Mapping[str, Directory], needed: Mapping[str, int]) -> None:
        """``folders`` of the library at that path; ``needed``: content that catalogs need, with its size in bytes."""
        self._library = library
        self._folders = folders
        self._needed = needed
        self._times = try_out(folders["links"]) if "links" in folders else EXACT

    def __call__(self, task: tuple[str, str]) -> list[Seen]:
        folder, shard = task
        try:
            with platform.closing(platform.open_child(self._folders[folder], shard)) as directory:
                with platform.listing(directory) as entries:
                    names = sorted(entry.name for entry in entries)
                seen = (self._look(folder, directory, shard, name) for name in names)
                return [item for item in seen if item is not None]
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):  # the whole folder would go into the quarantine
                raise self._explained(error, folder, shard) from error
            return [Seen(folder, shard, "", State.DAMAGED, "it is not a directory", 0, 0)]

    def _look(self, folder: str, directory: Directory, shard: str, name: str) -> Seen | None:
        shown = f"{shard}/{name}"
        link = link_form(shard, name) if folder == "links" else None
        digest = blob_digest(shard, name) if folder == "library" else link.digest if link is not None else ""
        try:
            found = platform.status(directory, name)
        except FileNotFoundError:
            return None  # a draft that another process was writing
        stored = found.st_size
        if not digest:
            return Seen(folder, shown, "", State.GARBAGE, "", 0, stored)
        try:
            with platform.closing(platform.open_file(directory, name)) as descriptor:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    verdict = State.DAMAGED, "it is not a file", 0
                elif link is not None:
                    verdict = self._link(descriptor, status, link)
                else:
                    verdict = self._blob(descriptor, status, digest, compressed=name != digest)
        except ContentMismatch as error:
            verdict = State.DAMAGED, str(error), 0
        except OSError as error:
            if isinstance(error, PermissionError) and not is_mine(found):
                if link is not None:
                    return None  # nobody else would use it
                verdict = State.UNREADABLE, FOREIGN, 0
            elif error.errno in NOT_DAMAGE:
                raise self._explained(error, folder, shown) from error
            else:
                verdict = State.DAMAGED, f"it cannot be read: {error.strerror}", 0
        return Seen(folder, shown, digest, *verdict, stored)

    def _explained(self, error: OSError, *names: str) -> HoloError:
        return HoloError(f"cannot read {os.path.join(self._library, *names)}: {error.strerror}")

    def _blob(self, descriptor: int, status: os.stat_result, digest: str, *, compressed: bool) -> _Verdict:
        needed = self._needed.get(digest)
        sealed = compressed or is_sealed(status, status.st_size)
        if not sealed and needed is None:
            return State.GARBAGE, "", 0  # left by a process that was killed
        if compressed:
            found, size = stored_content(descriptor, needed)
        else:
            found, size = digests.of_file(descriptor), status.st_size
        if found != digest:
            return State.DAMAGED, "its bytes do not have that digest", 0
        if not sealed:
            return State.UNSEALED, "its mode or time is not what holo gave it", size
        return State.SOUND, "", size

    def _link(self, descriptor: int, status: os.stat_result, form: LinkForm) -> _Verdict:
        if status.st_mode != stat.S_IFREG | form.mode or status.st_mtime_ns != self._times.kept(form.mtime):
            return State.DAMAGED, "its mode or time is not what holo gave it", 0
        if status.st_uid != form.user:
            return State.DAMAGED, "it is another user's", 0
        if platform.get_xattrs(descriptor, acls=True):
            return State.DAMAGED, "it has extended attributes", 0
        if digests.of_file(descriptor) != form.digest:
            return State.DAMAGED, "its bytes do not have that digest", 0
        return State.SOUND, "", status.st_size
