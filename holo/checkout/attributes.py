"""Extended attributes: give a file those of the catalog, as far as this user and this filesystem can."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from holo import platform
from holo.platform import Directory

CAPABILITY = "security.capability"
"""What lets a program do some of what root may. Only root may give it."""

_NOT_KEPT = frozenset({errno.EOPNOTSUPP, errno.EPERM})
"""What setxattr(2) answers where the filesystem, or this user, cannot give an attribute."""


def set_xattrs(descriptor: int | platform.Directory, wanted: dict[str, bytes]) -> list[str]:
    """Give an open file or directory exactly these extended attributes, and no ACL; returns those it cannot have.

    A filesystem without them, or a user who may not grant capabilities, gets none: holo keeps what can be kept.
    """
    for name in platform.get_xattrs(descriptor, acls=True).keys() - wanted.keys():
        platform.set_xattr(descriptor, name, None)
    lost = []
    for name, value in wanted.items():
        try:
            platform.set_xattr(descriptor, name, value)
        except OSError as error:
            if error.errno not in _NOT_KEPT:
                raise
            lost.append(name)
    return lost


def can_keep(places: Iterable[Directory], name: str, value: bytes) -> bool:
    """Whether a new file could have an attribute: tried in the first of the directories that takes a file.

    The file has no name, so nothing is left of it. Where no directory takes one, the answer is yes.
    """
    for directory in places:
        try:
            file = platform.nameless_file(directory)
        except OSError:  # a full disk, or a read-only one
            file = None
        if file is not None:
            break
    else:
        return True
    try:
        platform.set_xattr(file, name, value)
    except OSError as error:
        return error.errno not in _NOT_KEPT
    finally:
        os.close(file)
    return True
