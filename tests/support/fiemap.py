"""Where a file's bytes lie on disk, asked of the kernel by FIEMAP: the proof of physical sharing."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

FS_IOC_FIEMAP = 0xC020660B
SYNC = 0x1  # write delayed allocations out first, so that every extent has its place
HEADER = struct.Struct("=QQLLLL")  # start, length, flags, mapped extents, room for extents, reserved
EXTENT = struct.Struct("=QQQQQLLLL")  # logical, physical, length, 2 reserved, flags, 3 reserved
ROOM = 256
BLOCK = 4096

LAST = 0x1
DATA_INLINE = 0x200
SHARED = 0x2000


@dataclass(frozen=True)
class Extent:
    logical: int
    physical: int
    length: int
    flags: int

    @property
    def shared(self) -> bool:
        return bool(self.flags & SHARED)

    @property
    def inline(self) -> bool:
        """The data lies in the metadata tree (Btrfs), where nothing can be shared."""
        return bool(self.flags & DATA_INLINE)


def extents(path: str | os.PathLike[str] | bytes) -> list[Extent]:
    """All extents of a file, in order. A hole has none."""
    found: list[Extent] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        start = 0
        while True:
            buffer = bytearray(HEADER.size + ROOM * EXTENT.size)
            HEADER.pack_into(buffer, 0, start, (1 << 64) - 1 - start, SYNC, 0, ROOM, 0)
            fcntl.ioctl(descriptor, FS_IOC_FIEMAP, buffer)
            mapped = HEADER.unpack_from(buffer)[3]
            for index in range(mapped):
                logical, physical, length, _, _, flags, *_ = EXTENT.unpack_from(
                    buffer, HEADER.size + index * EXTENT.size
                )
                found.append(Extent(logical, physical, length, flags))
            if mapped < ROOM or found[-1].flags & LAST:
                return found
            start = found[-1].logical + found[-1].length
    finally:
        os.close(descriptor)


def is_inline(path: str | os.PathLike[str] | bytes) -> bool:
    """Has the file data, all of it inside the metadata tree?"""
    found = extents(path)
    return bool(found) and all(extent.inline for extent in found)


def is_shared(path: str | os.PathLike[str] | bytes) -> bool:
    """Has the file data, all of it shared with another file?"""
    found = extents(path)
    return bool(found) and all(extent.shared for extent in found)


def regular_files(tree: str | os.PathLike[str]) -> Iterator[bytes]:
    """Every regular file below a directory."""
    for folder, _, names in os.walk(os.fsencode(tree)):
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path


def exclusive_bytes(tree: str | os.PathLike[str]) -> int:
    """Bytes of data blocks that exist for this tree alone, as `btrfs filesystem du` would count them."""
    return sum(
        extent.length
        for path in regular_files(tree)
        for extent in extents(path)
        if not extent.shared and not extent.inline
    )


def common_bytes(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> int:
    """Bytes of data blocks that two trees on one filesystem both have: what they share with each other."""
    return BLOCK * len(blocks_of(one) & blocks_of(other))


def blocks_of(tree: str | os.PathLike[str]) -> set[int]:
    """The numbers of the blocks that the files of a tree have on the disk."""
    found: set[int] = set()
    for path in regular_files(tree):
        for extent in extents(path):
            if not extent.inline:
                first = extent.physical // BLOCK
                found.update(range(first, first + -(-extent.length // BLOCK)))
    return found
