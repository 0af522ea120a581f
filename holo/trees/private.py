"""Folders in the holotree that are one user's alone, even where many share it."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from holo.errors import Conflict, os_errors_as
from holo.owners import is_mine
from holo.walk import make_folder, make_folders, refuse_symlinks


def make_private(path: str, *names: str) -> None:
    """Make a folder that only this user can reach into, with folders of those names in it, unless they are there.

    Raises :class:`Conflict` if it could be another user's.
    """
    inside = [os.path.join(path, name) for name in names]
    refuse_symlinks(path, *inside)
    with os_errors_as(f"cannot make {path}"):
        make_folders(os.path.dirname(path))
        with suppress(FileExistsError):
            make_folder(path, 0o700)
            close_to_others(path)
        if not is_private(path):
            raise Conflict(f"{path} is not a folder that is yours alone", _way_out(path))
        for folder in inside:
            make_folders(folder)


def _way_out(path: str) -> str:
    if os.path.isdir(path) and not os.path.islink(path) and is_mine(os.lstat(path)):
        return "If nobody else has changed anything in it, `chmod 700` it. Otherwise remove it."
    return "Remove it, or let its owner do so."


def why_unused(path: str) -> str | None:
    """Why nothing in such a folder counts, and what to do; ``None`` if it does, or there is none."""
    if not os.path.lexists(path) or is_private(path):
        return None
    return f"{path} is not a folder that is yours alone, so nothing in it counts. {_way_out(path)}"


def close_to_others(path: str) -> None:
    """Give a new folder to this user and their group alone.

    In a shared home it would have the group of all, which has no name in the namespace that overlays are mounted in.
    """
    if sys.platform != "win32":
        os.chown(path, -1, os.getegid())
        os.chmod(path, 0o700)


def is_private(path: str) -> bool:
    """Whether the folder is there, and nobody else can have put anything into it."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and is_mine(status)
    return mine and not (os.name == "posix" and status.st_mode & 0o077)
