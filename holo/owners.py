"""Whose file is this?

*Mine* is what belongs to this user. *Ours* is what belongs to this user or to root, who could change anything anyway.
*Others* are all users but this one, and *strangers* all but this one and root.
"""

from __future__ import annotations

import os

from holo import platform


def is_mine(status: os.stat_result) -> bool:
    """Whether a file belongs to this user."""
    return status.st_uid == platform.user_id()


def is_ours(status: os.stat_result) -> bool:
    """Whether a file belongs to this user or to root. Others may be allowed to write to it."""
    return status.st_uid in platform.owners()


def only_we_wrote(status: os.stat_result) -> bool:
    """Whether nobody but this user and root can have written a file."""
    return is_ours(status) and not (os.name == "posix" and status.st_mode & 0o022)


def is_others(path: str) -> bool:
    """Whether something is there, and does not belong to this user. Raises :class:`OSError` if that cannot be seen."""
    try:
        return not is_mine(os.lstat(path))
    except FileNotFoundError:
        return False


def is_strangers(path: str) -> bool:
    """Whether something is there, and belongs neither to this user nor to root. Raises :class:`OSError` likewise."""
    try:
        return not is_ours(os.lstat(path))
    except FileNotFoundError:
        return False
