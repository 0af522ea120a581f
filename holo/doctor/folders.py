"""The folders that are examined: their filesystems, a place for samples in them, and who can write to them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holo import platform
from holo.errors import HoloError, advice, hints
from holo.hololib.layout import FOLDERS
from holo.owners import is_ours
from holo.platform import Directory, probe
from holo.trees.private import close_to_others
from holo.walk import absolute, upwards

_LEFT_AFTER = 600
"""Seconds after which a sample is nobody's: an examination takes one."""

_UNKNOWN = "unknown"


def filesystem_type(path: str) -> str:
    """The type of the filesystem of an existing folder: ``btrfs``, ``ext4``, ``overlay`` ..."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            table = file.read()
    except OSError:
        return _UNKNOWN
    return find_type(table, os.path.realpath(path))


def find_type(mountinfo: str, path: str) -> str:
    best, found = "", _UNKNOWN
    for line in mountinfo.splitlines():
        # proc(5): ... ID, parent, device, root, mount point, options, any number of tags, "-", type ...
        fields = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point, the later hides the earlier.
        if inside and len(point) >= len(best):
            best, found = point, fields[fields.index("-", 6) + 1]
    return found


def existing(path: str) -> str:
    """The path, or that of the nearest folder above it that is there."""
    return next(filter(os.path.lexists, upwards(absolute(path))))


@contextmanager
def scratch(path: str) -> Iterator[tuple[Directory, str]]:
    """A temporary directory in the folder, opened, and its path; removed with all that was put there."""
    folder = existing(path)
    _sweep(folder)
    try:
        made = tempfile.mkdtemp(prefix=probe.DOCTOR, dir=folder)
        close_to_others(made)  # as what is tried here will be
    except OSError as error:
        raise HoloError(
            f"{folder}: cannot make files here: {error.strerror}",
            hints(advice(error), "Or name another folder: DIR is that of the spaces, HOLO_HOME that of the library."),
        ) from error
    try:
        with platform.closing(platform.open_root(made)) as directory:
            yield directory, made
    finally:
        shutil.rmtree(made)


def _sweep(folder: str) -> None:
    """Remove what a doctor that was killed has left there; nobody else knows of it."""
    long_ago = time.time() - _LEFT_AFTER
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(probe.DOCTOR):
                status = entry.stat(follow_symlinks=False)
                if is_ours(status) and status.st_mtime < long_ago:
                    shutil.rmtree(entry.path, ignore_errors=True)


def is_shared(blobs: str) -> bool:
    """Whether a library, given by the folder of its blobs, is set up for several users."""
    return os.path.isdir(blobs) and bool(os.lstat(blobs).st_mode & stat.S_ISVTX)


def open_to_all(blobs: str) -> str | None:
    """The first folder of a library, given by that of its blobs, in which others can rename what is not theirs."""
    if os.name != "posix":
        return None
    library = os.path.dirname(blobs)
    folders = [existing(blobs), library, *(os.path.join(library, name) for name in FOLDERS)]
    folders += [os.path.join(library, name, f"{shard:02x}") for name in ("library", "links") for shard in range(256)]
    for folder in folders if os.path.isdir(blobs) else folders[:1]:
        with suppress(OSError):
            mode = os.lstat(folder).st_mode
            if stat.S_ISDIR(mode) and mode & 0o022 and not mode & stat.S_ISVTX:
                return folder
    return None
