"""The times of files that a filesystem can keep: how fine they are, and how far they reach."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from holo import platform
from holo.platform import Directory

_FARTHEST = 1 << 63
"""Catalogs hold times in ns as signed 64-bit numbers."""

_TRIAL = 1_700_000_001_123_456_789
"""A time in ns in which every granularity below shows: an odd second, and nine digits."""

# 1 ns; NTFS; what some network filesystems have; exFAT; ext4 with 128-byte inodes, and others; FAT.
_GRANULARITIES = (1, 100, 10**3, 10**6, 10**7, 10**9, 2 * 10**9)


class FileTimes(NamedTuple):
    """What becomes of a time that a file is given. All in ns since the epoch."""

    granularity: int = 1
    earliest: int = -_FARTHEST
    latest: int = _FARTHEST - 1

    def kept(self, time_ns: int) -> int:
        """The time that such a filesystem shows of a file that was given ``time_ns``.

        As Linux does it (timestamp_truncate in fs/inode.c): out of range is the nearest end, finer is rounded down.
        """
        nearest = min(max(time_ns, self.earliest), self.latest)
        return nearest - nearest % self.granularity


EXACT = FileTimes()
"""Every time is kept as it is: Btrfs, XFS, tmpfs, ext4 as a rule."""


def try_out(directory: Directory) -> FileTimes:
    """Find out what times are kept by giving some to an open directory, which has its own again afterwards.

    ``EXACT`` where that is not allowed.
    """
    with suppress(OSError):
        before = platform.status(directory, "")
        try:
            shown = _try(directory, _TRIAL)
            granularity = next((each for each in _GRANULARITIES if shown == _TRIAL - _TRIAL % each), _GRANULARITIES[-1])
            return FileTimes(granularity, _try(directory, -_FARTHEST), _try(directory, _FARTHEST - 1))
        finally:
            platform.set_times(directory, before)
    return EXACT


def _try(directory: Directory, time_ns: int) -> int:
    os.utime(directory, ns=(time_ns, time_ns))
    return platform.status(directory, "").st_mtime_ns
