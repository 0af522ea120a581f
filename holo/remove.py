"""Remove whole trees below an open directory, without following anything out of it."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from holo import platform
from holo.errors import HoloError
from holo.platform import Directory

_DEEPEST = 64
"""Levels, each with an open descriptor, below which a directory is first moved up. A program can make thousands."""

_CHANGING = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)
"""What it looks like when somebody else makes or removes files in a tree that is being removed."""

_PATIENCE = 5.0
"""Seconds."""


def unlink(path: str) -> None:
    """Remove a file if it is there. Raises :class:`HoloError` naming it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise HoloError(f"cannot remove {path}: {error.strerror}") from error


def remove_at(path: str, *, itself: bool = True) -> None:
    """Remove whatever is at ``path``, if anything, or only what is in it. Raises :class:`HoloError` naming it.

    What a killed command has started may still be writing there; it is given some time to end.
    """
    parent, name = os.path.split(path)

    def attempt() -> None:
        try:
            os.lstat(path)  # not lexists, to which what cannot be read is not there
        except FileNotFoundError:
            return
        directory = platform.open_root(parent)
        try:
            if itself:
                remove(directory, name)
            else:
                empty_at(directory, name)
        finally:
            platform.close_directory(directory)

    try:
        patiently(attempt)
    except OSError as error:
        raise HoloError(f"cannot remove {path}: {error.strerror}") from error


def patiently(attempt: Callable[[], object]) -> None:
    """Try to remove a tree, for some seconds again and again while somebody makes or removes files in it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            attempt()
            return
        except OSError as error:
            if error.errno not in _CHANGING or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def remove(directory: Directory, name: str) -> int:
    """Remove ``name`` from ``directory``, with everything below it if it is a directory.

    Returns the number of entries removed one by one that were not directories: nothing there is 0, and so is
    a Btrfs subvolume removed in one step. Directories without write permission are given it first.
    """
    try:
        platform.remove_file(directory, name)
        return 1
    except FileNotFoundError:
        return 0
    except IsADirectoryError:
        pass
    except PermissionError:
        if not stat.S_ISDIR(platform.status(directory, name).st_mode):  # POSIX lets unlink of a directory say EPERM
            raise
    if platform.remove_tree(directory, name):
        return 0
    child = _open_to_empty(directory, name)
    try:
        removed = empty(child)
    finally:
        platform.close_directory(child)
    platform.remove_directory(directory, name)
    return removed


def empty_at(directory: Directory, name: str) -> None:
    """Remove everything in the directory ``name`` of ``directory``, which stays."""
    child = _open_to_empty(directory, name)
    try:
        empty(child)
    finally:
        platform.close_directory(child)


def empty(directory: Directory) -> int:
    """Remove everything in ``directory``; returns the number of entries that were not directories."""
    removed, is_empty = _empty(directory, directory, 1)
    while not is_empty:
        again = platform.open_child(directory, ".")  # Btrfs lists what there was when a directory was opened
        try:
            count, is_empty = _empty(again, again, 1)
        finally:
            platform.close_directory(again)
        removed += count
    return removed


def _empty(directory: Directory, top: Directory, level: int) -> tuple[int, bool]:
    """How much was removed, and whether nothing was moved to ``top`` to be removed later."""
    removed = 0
    is_empty = True
    with platform.listing(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            platform.remove_file(directory, name)
            removed += 1
            continue
        child = _open_to_empty(directory, name)
        try:
            if level == _DEEPEST and _move(directory, name, top):
                is_empty = False
                continue
            count, all_gone = _empty(child, top, level + 1)
        finally:
            platform.close_directory(child)
        removed += count
        is_empty &= all_gone
        platform.remove_directory(directory, name)
    return removed, is_empty


def _move(directory: Directory, name: str, top: Directory) -> bool:
    try:
        platform.rename(directory, name, top, f".holo-{os.urandom(8).hex()}")
    except OSError as error:
        if error.errno != errno.EXDEV:  # out of a Btrfs subvolume
            raise
        return False
    return True


def _open_to_empty(directory: Directory, name: str) -> Directory:
    try:
        child = platform.open_child(directory, name)
    except OSError as error:
        if error.errno != errno.EACCES:
            raise
        platform.make_accessible(directory, name)
        child = platform.open_child(directory, name)
    with suppress(OSError):  # only a subvolume can be read-only as a whole
        platform.set_read_only(child, False)
    mode = platform.status(child, "").st_mode
    if mode & 0o700 != 0o700:
        platform.set_directory(child, mode & 0o7777 | 0o700, None)
    return child
