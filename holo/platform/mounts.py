"""What is mounted where, as Linux tells: proc_pid_mountinfo(5). Everything raises :class:`OSError` without /proc."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

assert sys.platform == "linux"


class _Mount(NamedTuple):
    device: bytes
    """``major:minor``"""
    root: bytes
    """what of its filesystem it shows"""
    point: bytes
    type: bytes
    source: bytes


def type_of(device: int) -> bytes:
    """The type of the mounted filesystem with that number (st_dev of a directory); empty if there is none."""
    number = b"%d:%d" % (os.major(device), os.minor(device))
    return next((mount.type for mount in _mounts() if mount.device == number), b"")


def mounts_below(path: str) -> list[str]:
    """What is mounted (also by a bind mount, which no stat shows) below ``path``, a real path."""
    below = os.fsencode(path) + b"/"
    return [os.fsdecode(mount.point) for mount in _mounts() if mount.point.startswith(below)]


def source_at(path: str, process: str = "self") -> str | None:
    """The source (a device, or any name) of what is mounted at ``path``, a real path; of the last, if of several.

    ``process``: as that one sees it.
    """
    found = [mount.source for mount in _mounts(process) if mount.point == os.fsencode(path)]
    return os.fsdecode(found[-1]) if found else None


def roots(process: str) -> list[str]:
    """What of its filesystem each mount that a process sees shows."""
    return [os.fsdecode(mount.root) for mount in _mounts(process)]


def _mounts(process: str = "self") -> Iterator[_Mount]:
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        lines = file.readlines()
    for line in lines:
        _, _, device, root, point, _ = line.split(b" ", 5)
        kind, source = line.rpartition(b" - ")[2].split(b" ")[:2]
        yield _Mount(device, _unescaped(root), _unescaped(point), kind, source)


def _unescaped(path: bytes) -> bytes:
    """Blanks, newlines and backslashes are written as three octal digits."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), path) if b"\\" in path else path
