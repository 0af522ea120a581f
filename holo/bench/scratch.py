"""The scratch folder of a bench: on the disk that counts, and gone afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from holo import platform
from holo.errors import HoloError
from holo.hololib.locks import InUseError, locked
from holo.owners import is_ours
from holo.remove import remove

_PREFIX = "bench-"
_NAME = re.compile(_PREFIX + "[0-9a-f]{8}")
_LOCK = "lock"


@contextmanager
def scratch(home: str) -> Iterator[str]:
    """A new folder below ``home``, removed in the end. It is locked, which tells it from one whose bench was killed."""
    try:
        os.makedirs(home, exist_ok=True)
        _remove_abandoned(home)
        while True:
            folder = os.path.join(home, _PREFIX + os.urandom(4).hex())
            os.mkdir(folder, 0o700)
            # In use: another bench took it for an abandoned one before it was locked.
            with suppress(InUseError), _held(folder):
                try:
                    yield folder
                finally:
                    remove_tree(folder)
                return
    except OSError as error:
        raise HoloError(f"{error.filename or home}: {error.strerror}") from error


def remove_tree(path: str) -> None:
    """Remove what is there, if anything. shutil cannot: golden trees are read-only subvolumes."""
    parent, name = os.path.split(path)
    directory = platform.open_root(parent)
    try:
        remove(directory, name)
    except OSError as error:
        raise HoloError(f"cannot remove {path}: {error.strerror}") from error
    finally:
        platform.close_directory(directory)


def _remove_abandoned(home: str) -> None:
    for folder in scratches(home):
        # If an orphan of the killed bench still writes there, removing it is left to the next one.
        with suppress(InUseError, HoloError), _held(folder):
            remove_tree(folder)


def scratches(home: str) -> list[str]:
    """The scratch folders of this user below ``home``, in use or not."""
    with suppress(FileNotFoundError):
        folders = [os.path.join(home, name) for name in sorted(os.listdir(home)) if _NAME.fullmatch(name)]
        # Another user could put a symlink in its place before it is locked, so theirs is left to them.
        return [
            folder
            for folder in folders
            if os.path.isdir(folder) and not os.path.islink(folder) and is_ours(os.lstat(folder))
        ]
    return []


def is_abandoned(folder: str) -> bool:
    """Whether the bench that made the folder was killed."""
    if not os.path.lexists(os.path.join(folder, _LOCK)):  # nor is it made here
        return True
    try:
        with _held(folder):
            return True
    except (InUseError, HoloError):
        return False


def _held(folder: str) -> AbstractContextManager[object]:
    return locked(os.path.join(folder, _LOCK), folder, exclusive=True, wait=False)
