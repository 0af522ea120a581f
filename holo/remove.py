"""Remove whole trees below an open directory, without following anything out of it or into what is mounted there."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from holo import platform
from holo.errors import HoloError
from holo.platform import Directory

_DEEPEST = 64
"""Levels, each with an open descriptor, below which a directory is first moved up. A program can make thousands."""

_CHANGING = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)
"""What it looks like when somebody else makes or removes files in a tree that is being removed."""

_PATIENCE = 5.0
"""Seconds."""

_Open: TypeAlias = Callable[[Directory, str], Directory]


def unlink(path: str) -> None:
    """Remove a file if it is there. Raises :class:`HoloError` naming it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise HoloError(f"cannot remove {path}: {error.strerror}") from error


def remove_at(path: str, *, itself: bool = True, is_mount_point: bool = False) -> None:
    """Remove whatever is at ``path``, if anything, or only what is in it. Raises :class:`HoloError` naming it.

    What a killed command has started may still be writing there; it is given some time to end. Only a caller who knows
    that ``path`` is a mount point, and says so, can have that emptied.
    """
    parent, name = os.path.split(path)
    trail: list[str] = []

    def attempt() -> None:
        trail.clear()
        try:
            os.lstat(path)  # not lexists, to which what cannot be read is not there
        except FileNotFoundError:
            return
        with platform.closing(platform.open_root(parent)) as directory:
            if itself and not is_mount_point:
                remove(directory, name, trail)
            else:
                _empty_at(directory, name, trail, is_mount_point=is_mount_point)

    try:
        patiently(attempt)
    except OSError as error:
        raise HoloError(f"cannot remove {os.path.join(parent, *trail) if trail else path}: {error.strerror}") from error


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


def remove(directory: Directory, name: str, trail: list[str] | None = None) -> int:
    """Remove ``name`` from ``directory``, with everything below it if it is a directory.

    Returns the number of entries removed one by one that were not directories: nothing there is 0, and so is
    a Btrfs subvolume removed in one step. Directories without write permission are given it first. What is mounted
    there or below is not touched: EBUSY, with its path. (To remove a subvolume in one step ends the mounts in it.)

    If it fails, ``trail`` has the names from ``name`` down to what could not be removed.
    """
    trail = [] if trail is None else trail
    trail.append(name)
    removed = _remove(directory, name, trail)
    trail.pop()
    return removed


def _remove(directory: Directory, name: str, trail: list[str]) -> int:
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
    with platform.closing(_open_to_empty(directory, name)) as child:
        if platform.remove_tree(directory, name):
            return 0
        removed = empty(child, trail)
    platform.remove_directory(directory, name)
    return removed


def _empty_at(directory: Directory, name: str, trail: list[str], *, is_mount_point: bool) -> None:
    trail.append(name)
    with platform.closing(
        _open_to_empty(directory, name, platform.open_child if is_mount_point else platform.open_unmounted)
    ) as child:
        empty(child, trail)


def empty(directory: Directory, trail: list[str]) -> int:
    """Remove everything in ``directory``; returns the number of entries that were not directories."""
    removed, is_empty = _empty(directory, directory, 1, trail)
    while not is_empty:
        with platform.closing(platform.open_child(directory, ".")) as again:
            count, is_empty = _empty(again, again, 1, trail)
        removed += count
    return removed


def _empty(directory: Directory, top: Directory, level: int, trail: list[str]) -> tuple[int, bool]:
    """How much was removed, and whether nothing was moved to ``top`` to be removed later."""
    removed = 0
    is_empty = True
    with platform.listing(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        trail.append(name)
        if not is_directory:
            platform.remove_file(directory, name)
            removed += 1
            trail.pop()
            continue
        with platform.closing(_open_to_empty(directory, name)) as child:
            is_moved = level == _DEEPEST and _move(directory, name, top)
            count, all_gone = (0, False) if is_moved else _empty(child, top, level + 1, trail)
        removed += count
        is_empty &= all_gone
        if not is_moved:
            platform.remove_directory(directory, name)
        trail.pop()
    return removed, is_empty


def _move(directory: Directory, name: str, top: Directory) -> bool:
    try:
        platform.rename(directory, name, top, f".holo-{os.urandom(8).hex()}")
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EBUSY):  # out of a Btrfs subvolume; something was just mounted there
            raise
        return False
    return True


def _open_to_empty(directory: Directory, name: str, open_child: _Open = platform.open_unmounted) -> Directory:
    try:
        child = open_child(directory, name)
    except OSError as error:
        if error.errno != errno.EACCES:
            raise
        platform.make_accessible(directory, name)
        child = open_child(directory, name)
    with suppress(OSError):  # only a subvolume can be read-only as a whole
        platform.set_read_only(child, False)
    mode = platform.status(child, "").st_mode
    if mode & 0o700 != 0o700:
        platform.set_directory(child, mode & 0o7777 | 0o700, None)
    return child
