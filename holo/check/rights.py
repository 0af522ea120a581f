"""Rights to write to the files of a library."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from holo import platform
from holo.walk import open_directory

_WRITE = 0o022
"""The group's and the others' right to write."""


def excessive_rights(library: str, folder: str) -> dict[str, int]:
    """The files in a folder of the library that are writable for more users than the library's own folder, by name.

    With each, the rights that are too much. A sticky folder gives none, as nobody can rename or remove the files of
    others in it.
    """
    found: dict[str, int] = {}
    with suppress(FileNotFoundError):
        own = os.lstat(library).st_mode
        allowed = 0 if own & stat.S_ISVTX else own & _WRITE
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another command has just removed it
                    mode = entry.stat(follow_symlinks=False).st_mode
                    excess = mode & _WRITE & ~allowed
                    if excess and _is_meant(mode, folder):
                        found[entry.name] = excess
    return found


def _is_meant(mode: int, folder: str) -> bool:
    if stat.S_ISDIR(mode):
        return not mode & stat.S_ISVTX and os.path.basename(folder) not in ("golden", "quarantine")
    return stat.S_ISREG(mode)


def take_rights(path: str, rights: int) -> None:
    """Take rights away from a file or folder, if it is still there. EPERM if it is another user's."""
    parent, name = os.path.split(path)
    folder = open_directory(parent)
    try:
        status = platform.status(folder, name)
        mode = stat.S_IMODE(status.st_mode) & ~rights
        if stat.S_ISDIR(status.st_mode):
            with platform.closing(platform.open_child(folder, name)) as directory:
                platform.set_directory(directory, mode, None)
        else:
            with platform.closing(platform.open_file(folder, name)) as file:
                platform.set_file(file, status.st_mtime_ns, mode)
    except FileNotFoundError:
        pass
    finally:
        platform.close_directory(folder)
