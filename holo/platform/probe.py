"""Find out what a pair of folders can do by trying it, once, with one small file.

Filesystem names tell little: XFS may be made without reflink, Btrfs refuses between nodatacow and ordinary
files, and two mounts of one filesystem may or may not share.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress

from holo import platform
from holo.platform import Directory

NAME = ".holo-probe-"
"""Begins the names of the files that are tried with."""

DOCTOR = ".holo-doctor-"
"""Begins the names of the folders that `holo doctor` tries in."""

_CONTENT = bytes(range(256)) * 32
"""8 KiB: larger than what Btrfs keeps inline in its metadata."""


_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def reflink(source: Directory, target: Directory, sample: Callable[[], str | None] = lambda: None) -> str | None:
    """Try to clone a new file of ``source`` into ``target``; ``None`` if it works, else why it does not.

    With files that have no names, where there are such: whoever is killed then leaves nothing in ``target``, which
    may be a pristine space, or a folder of the user's. Where ``source`` takes no new file, the one that ``sample``
    names is tried with instead.
    """
    with ExitStack() as opened:

        def nameless(directory: Directory) -> int | None:
            file = platform.nameless_file(directory)
            if file is not None:
                opened.callback(os.close, file)
            return file

        try:
            original = nameless(source)
            if original is not None:
                os.write(original, _CONTENT)
        except OSError as error:
            given = sample() if error.errno in _READ_ONLY else None
            if error.errno not in _READ_ONLY:
                raise
            if given is None:
                return error.strerror
            original = platform.open_file(source, given)
            opened.callback(os.close, original)
        copy = nameless(target) if original is not None else None
        if original is not None and copy is not None:
            return _why_not(lambda: platform.clone_content(original, copy))
    return _try(lambda name: clone_file(source, name, target, name + "-clone"), source, target)


def hardlink(source: Directory, target: Directory) -> str | None:
    """Try to link a new file of ``source`` into ``target``; ``None`` if it works, else why it does not."""
    if platform.status(source, "").st_dev != platform.status(target, "").st_dev:
        return os.strerror(errno.EXDEV)
    return _try(lambda name: platform.link(source, name, target, name + "-clone"), source, target)


def takes_link(source: Directory, name: str, target: Directory) -> bool:
    """Whether the file ``name`` in ``source`` could have one more name in ``target``. If not, nothing was changed."""
    before = platform.status(target, "")
    new = _new_name()
    try:
        platform.link(source, name, target, new)
    except OSError as error:
        if error.errno not in _READ_ONLY | {errno.EMLINK}:
            raise
        return False
    platform.remove_file(target, new)
    platform.set_directory(target, before.st_mode & 0o7777, before.st_mtime_ns)
    return True


def clone_file(source: Directory, source_name: str, target: Directory, name: str) -> None:
    """Clone one file, by name. Raises :class:`OSError`; nothing is left behind then."""
    with platform.closing(platform.open_file(source, source_name)) as descriptor:
        os.close(platform.clone(descriptor, source, source_name, target, name, 0o600))


def _try(attempt: Callable[[str], None], source: Directory, target: Directory) -> str | None:
    name = _new_name()
    # The probe comes and goes without a trace: the directories keep their mtimes.
    before = platform.status(target, "")
    try:
        descriptor = platform.create_file(source, name, 0o600)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        return error.strerror
    try:
        os.write(descriptor, _CONTENT)
        why_not = _why_not(lambda: attempt(name))
        if why_not is None:
            platform.remove_file(target, name + "-clone")
        return why_not
    except PermissionError as error:  # to write to the target, whose rights are its owner's to change
        return error.strerror
    finally:
        os.close(descriptor)
        platform.remove_file(source, name)
        with suppress(PermissionError):  # another user's folder, /tmp say, keeps its new mtime
            platform.set_directory(target, before.st_mode & 0o7777, before.st_mtime_ns)


def _new_name() -> str:
    return f"{NAME}{os.getpid()}-{os.urandom(4).hex()}"


def _why_not(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except OSError as error:
        if error.errno not in platform.UNAVAILABLE | {errno.EPERM, errno.EMLINK}:
            raise
        return error.strerror or os.strerror(error.errno or 0)
    return None
