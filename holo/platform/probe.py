"""Find out what a pair of folders can do by trying it, once, with one small file.

Filesystem names tell little: XFS may be made without reflink, Btrfs refuses between nodatacow and ordinary
files, and two mounts of one filesystem may or may not share.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from holo import platform
from holo.platform import Directory

_CONTENT = bytes(range(256)) * 32
"""8 KiB: larger than what Btrfs keeps inline in its metadata."""


_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def reflink(source: Directory, target: Directory, sample: Callable[[], str | None] = lambda: None) -> str | None:
    """Try to clone a new file of ``source`` into ``target``; ``None`` if it works, else why it does not.

    Where ``source`` takes no new file, the one that ``sample`` names is tried with instead.
    """

    def attempt(name: str, clone: str) -> None:
        clone_file(source, name, target, clone)

    return _try(attempt, source, target, sample)


def hardlink(source: Directory, target: Directory) -> str | None:
    """Try to link a new file of ``source`` into ``target``; ``None`` if it works, else why it does not."""

    def attempt(name: str, clone: str) -> None:
        platform.link(source, name, target, clone)

    return _try(attempt, source, target, lambda: None)


def clone_file(source: Directory, source_name: str, target: Directory, name: str) -> None:
    """Clone one file, by name. Raises :class:`OSError`; nothing is left behind then."""
    descriptor = platform.open_file(source, source_name)
    try:
        os.close(platform.clone(descriptor, source, source_name, target, name, 0o600))
    finally:
        os.close(descriptor)


def _try(
    attempt: Callable[[str, str], None], source: Directory, target: Directory, sample: Callable[[], str | None]
) -> str | None:
    name = f".holo-probe-{os.getpid()}-{os.urandom(4).hex()}"
    # The probe comes and goes without a trace: the directories keep their mtimes.
    before = platform.status(target, "")
    if before.st_mode & 0o700 != 0o700:
        platform.set_directory(target, before.st_mode & 0o7777 | 0o700, None)
    descriptor = -1
    try:
        tried = name
        try:
            descriptor = platform.create_file(source, name, 0o600)
            os.write(descriptor, _CONTENT)
        except OSError as error:
            if descriptor >= 0 or error.errno not in _READ_ONLY:
                raise
            given = sample()
            if given is None:
                return error.strerror
            tried = given
        try:
            attempt(tried, name + "-clone")
        except OSError as error:
            if error.errno not in platform.UNAVAILABLE | {errno.EPERM, errno.EMLINK}:
                raise
            return error.strerror or os.strerror(error.errno or 0)
        platform.remove_file(target, name + "-clone")
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
            platform.remove_file(source, name)
        platform.set_directory(target, before.st_mode & 0o7777, before.st_mtime_ns)
