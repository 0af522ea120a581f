"""The scratch folder of a bench: on the disk that counts, and gone afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holo.errors import HoloError
from holo.hololib.locks import InUseError, locked
from holo.owners import is_ours
from holo.remove import remove_at
from holo.trees.held import is_held, remove_unheld

_PREFIX = "bench-"
_NAME = re.compile(_PREFIX + "[0-9a-f]{8}")


@contextmanager
def scratch(home: str) -> Iterator[str]:
    """A new folder below ``home``, removed in the end. While its bench runs, that holds the lock in it."""
    try:
        os.makedirs(home, exist_ok=True)
        for folder in scratches(home):
            # If an orphan of the killed bench still writes there, removing it is left to the next one.
            with suppress(HoloError):
                remove_unheld(_lock(folder), folder)
        while True:
            folder = os.path.join(home, _PREFIX + os.urandom(4).hex())
            os.mkdir(folder, 0o700)
            # In use: another bench took it for an abandoned one before it was locked.
            with suppress(InUseError), locked(_lock(folder), folder, exclusive=True, wait=False):
                try:
                    yield folder
                finally:
                    remove_at(folder)
                return
    except OSError as error:
        raise HoloError(f"{error.filename or home}: {error.strerror}") from error


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
    return not is_held(_lock(folder))


def _lock(folder: str) -> str:
    return os.path.join(folder, "lock")
