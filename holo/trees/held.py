"""Directories that live as long as somebody holds their lock. The kernel frees the lock of a holder that is killed.

    <name>          the directory, which is whole unless its draft is there too
    <name>.draft    it is being made, or being removed
    <name>.lock     shared by those who use it, exclusive for whoever makes or removes it

Nobody uses a directory whose lock is free, so anybody may remove it. The first functions take the path of the lock,
which for some directories is elsewhere than beside them; the others take that of the directory.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress

from holo import platform
from holo.errors import HoloError, os_errors_as
from holo.files import is_there
from holo.hololib.locks import CannotLockError, InUseError, OnWait, locked
from holo.platform import Directory
from holo.remove import patiently, remove, remove_at, unlink
from holo.walk import open_directory

_DRAFT, _LOCK = ".draft", ".lock"


@contextmanager
def try_lock(lock: str) -> Iterator[bool]:
    """Hold a lock exclusively if it is free. Yields whether it is: not if nobody can lock it, either."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(lock, lock, exclusive=True, wait=False))
        except (InUseError, CannotLockError):
            is_free = False
        else:
            is_free = True
        yield is_free


def is_held(lock: str) -> bool:
    """Whether somebody holds a lock, or has made it so that nobody can tell."""
    if not is_there(lock):  # nor is it made here
        return False
    with try_lock(lock) as is_free:
        return not is_free


def remove_unheld(lock: str, *paths: str, dry_run: bool = False) -> bool:
    """Remove directories, and their lock, if that is free; returns whether it is. A dry run removes only the lock."""
    with try_lock(lock) as is_free:
        if is_free:
            for path in () if dry_run else paths:
                remove_at(path)
            with suppress(OSError):
                os.unlink(lock)
        return is_free


@contextmanager
def hold(
    path: str,
    make: Callable[[str], object],
    what: str,
    on_wait: OnWait,
    lock: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[str]:
    """Share a directory, so that nobody removes it. ``make(path of an empty directory)`` fills it if need be.

    ``lock`` takes the lock of the library while the directory is made, unless the caller has it already. The library
    is locked first, then the directory: in the other order two commands and a collection could wait for each other.
    """
    while True:
        with locked(path + _LOCK, what, exclusive=False, on_wait=on_wait):
            if is_whole(path):
                yield path
                return
        # Not waited for: who was faster holds it, then shares it as long as their command runs.
        with lock(), suppress(InUseError), locked(path + _LOCK, what, exclusive=True, wait=False):
            if not is_whole(path):
                _make(path, make)
        time.sleep(os.urandom(1)[0] / 256_000)  # so that many do not always come at the same moment


def is_whole(path: str) -> bool:
    """Whether the directory is there with everything in it."""
    return os.path.isdir(path) and not is_there(path + _DRAFT)


def name_of(entry: str) -> str:
    """The name of the directory that an entry of its folder belongs to: itself, its draft or its lock."""
    return entry.removesuffix(_LOCK).removesuffix(_DRAFT)


def remove_held(path: str, *, dry_run: bool = False) -> bool:
    """Remove a directory and its lock. ``False``: there was none, or it is in use, or cannot be locked."""
    with try_lock(path + _LOCK) as is_free:
        if is_free and not dry_run:
            was_there = os.path.isdir(path)
            discard(path)
            unlink(path + _LOCK)
            return was_there
        return is_free and os.path.isdir(path)


def remove_drafts(folder: str) -> None:
    """Remove the drafts in a folder that killed commands left."""
    for name in os.listdir(folder):
        if name.endswith(_DRAFT):
            path = os.path.join(folder, name_of(name))
            with suppress(InUseError), locked(path + _LOCK, path, exclusive=True, wait=False):
                discard(path, whole=False)


def _make(path: str, make: Callable[[str], object]) -> None:
    draft = path + _DRAFT
    discard(path)
    try:
        os.mkdir(draft, 0o700)
        make(draft)
        os.rename(draft, path)
    except OSError as error:
        raise HoloError(f"cannot make {path}: {error.strerror}") from error
    finally:
        discard(path, whole=False)


def discard(path: str, *, whole: bool = True) -> None:
    """Remove a directory whose lock the caller holds; without ``whole`` only if it is a draft.

    What the command of a killed run has started may still be writing there; it is given some time to end.
    """
    parent, name = os.path.split(path)
    draft = name + _DRAFT
    with os_errors_as(f"cannot remove {path}"), platform.closing(open_directory(parent)) as folder:
        if whole and not is_there(path + _DRAFT):
            _begin_removal(folder, name, draft)
        if is_there(path + _DRAFT):
            patiently(lambda: remove(folder, name))
            patiently(lambda: remove(folder, draft))


def _begin_removal(folder: Directory, name: str, draft: str) -> None:
    """Make a directory, if there is one, a draft: from now on it does not count as whole."""
    try:
        platform.rename(folder, name, folder, draft)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        platform.make_directory(folder, draft, 0o700)  # a directory in a lower layer of overlayfs keeps its name
