"""A remote in a folder: on a disk, a network share, or one that a web server gives out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from holo import digest as digests
from holo.content import Section, write_all
from holo.errors import HoloError, advice
from holo.files import draft_name, is_there, names_in, open_file, sync_folder, write_atomically
from holo.hololib.locks import CannotLockError, locked
from holo.remote.store import DRAFTS, Absent, Item, Reply
from holo.walk import make_folders

_LOCK = ".lock"
_OWN = frozenset({"names", "keys", "catalogs", "packs", "garbage", _LOCK, DRAFTS.rstrip("/")})
"""What lies at the top of a remote."""

_FIXED = "packs/"
"""What nobody replaces, and what takes long to hash."""

_OF_THE_DISK = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})
"""What lies in a folder where a disk is mounted, which may well be a remote: that, and what begins with a dot."""


class FolderStore:
    """A :class:`~holo.remote.store.Store` in a folder. Its files have the modes that the umask allows."""

    is_writable = True

    def __init__(self, path: str) -> None:
        self.name = path

    @contextmanager
    def get(self, key: str, start: int = 0, stop: int | None = None, *, fresh: bool = False) -> Iterator[Reply]:
        try:
            descriptor = open_file(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            self._refuse_other()
            raise Absent(key) from None
        except OSError as error:
            raise self._failed("read", key, error) from error
        try:
            try:
                size = os.fstat(descriptor).st_size
                # Hash the open file: another one may be at its path by now.
                version = None if key.startswith(_FIXED) else digests.of_file(descriptor)
            except OSError as error:
                raise self._failed("read", key, error) from error
            length = max(0, (size if stop is None else min(stop, size)) - start)
            yield Reply(size, start, self._pieces(key, Section(descriptor, start, length)), version)
        finally:
            os.close(descriptor)

    def size(self, key: str) -> int | None:
        try:
            found = os.lstat(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            self._refuse_other()
            return None
        except OSError as error:
            raise self._failed("read", key, error) from error
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def create(self, key: str, content: Section, *, anyway: bool = False) -> bool:
        path = self._path(key)
        try:
            if not anyway and is_there(path):
                return False
            make_folders(os.path.dirname(path))
            self._write(path, lambda target: self._fill(target, content))
        except OSError as error:
            raise self._failed("write", key, error) from error
        return True

    def replace(self, key: str, content: bytes, version: str | None) -> bool:
        path = self._path(key)
        try:
            make_folders(os.path.dirname(path))
            # The lock is for the moment between looking and writing.
            with locked(os.path.join(self.name, _LOCK), f"the remote {self.name}", exclusive=True):
                if self._version(key) != version:
                    return False
                self._write(path, content)
        except CannotLockError as error:
            raise HoloError(error.message, advice(error.__cause__)) from error.__cause__
        except OSError as error:
            raise self._failed("write", key, error) from error
        return True

    def items(self, prefix: str) -> Iterator[Item]:
        folder, _, beginning = prefix.rpartition("/")
        self._refuse_other()
        try:
            with os.scandir(self._path(folder)) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # removed just now, which says nothing of the others
                        continue
                    if entry.name.startswith(beginning) and stat.S_ISREG(found.st_mode):
                        yield Item(f"{folder}/{entry.name}", found.st_size, found.st_mtime)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed("list", prefix, error) from error

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(self._path(key))
            except OSError as error:
                raise self._failed("remove", key, error) from error

    def _path(self, key: str) -> str:
        return os.path.join(self.name, *key.split("/"))

    def _write(self, path: str, content: bytes | Callable[[int], bytes]) -> None:
        """In a folder of its own first: beside the others, a draft would look like a name with dots and digits."""
        folder = os.path.join(self.name, *DRAFTS.split("/"))
        make_folders(folder)
        draft = os.path.join(folder, draft_name(os.path.basename(path)))
        write_atomically(draft, content, durable=True)
        try:
            os.replace(draft, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise
        sync_folder(os.path.dirname(path))

    def _version(self, key: str) -> str | None:
        """The digest of what is there now."""
        try:
            descriptor = open_file(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return digests.of_file(descriptor)
        finally:
            os.close(descriptor)

    def _pieces(self, key: str, section: Section) -> Iterator[bytes]:
        try:
            yield from section.pieces()
        except OSError as error:
            raise self._failed("read", key, error) from error

    def _fill(self, target: int, content: Section) -> bytes:
        for piece in content.pieces():
            write_all(target, piece)
        return b""

    def _refuse_other(self) -> None:
        """A share that is not mounted, or a folder of something else, must not look like a remote with nothing in it.

        Every command reads before it writes, so a push asks here before it makes anything.
        """
        try:
            names = os.listdir(self.name)
        except FileNotFoundError:
            raise HoloError(
                f"there is no remote at {self.name}: no such folder", "Mount it, or `mkdir` it to begin one."
            ) from None
        except NotADirectoryError:
            raise HoloError(
                f"there is no remote at {self.name}: that is a file",
                "A remote is a folder. `holo import FILE` takes a bundle into the library.",
            ) from None
        except PermissionError:  # to read, which needs no listing, may be allowed
            return
        except OSError as error:
            raise self._failed("list", "", error) from error
        others = sorted(name for name in {*names} - _OWN - _OF_THE_DISK if not name.startswith("."))
        if others and not self._is_begun(names):
            raise HoloError(
                f"there is no remote at {self.name}: that folder has other things in it, such as {others[0]}",
                "Look at the path, or `mkdir` an empty folder to begin a remote in.",
            )

    def _is_begun(self, names: Sequence[str]) -> bool:
        """Whether somebody has pushed there, whatever else there is: a page of a web server, say.

        A push makes its drafts first. What was copied from a bucket has none, and has catalogs.
        """
        with suppress(OSError):  # something else has that name
            return DRAFTS.rstrip("/") in names or any(map(digests.is_digest, names_in(self._path("catalogs"))))
        return False

    def _failed(self, what: str, key: str, error: OSError) -> HoloError:
        return HoloError(f"cannot {what} {self._path(key)}: {error.strerror}", advice(error))
