"""Where the bytes of a file lie on the disk, as Linux tells: FIEMAP, and on Btrfs two calls of its own.

FIEMAP describes the disk as it is. What is still only in memory it shows as delayed, without a place, or on Btrfs,
where it will replace older bytes, not at all. To have that written first (FIEMAP_FLAG_SYNC) would wait for the disk
once for each file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys

from holo.platform import mounts
from holo.platform.blocks import BOUNDED, ENCODED, SHARED, Blocks, Place, Volume

assert sys.platform == "linux"

# linux/fiemap.h: start, length, flags, mapped extents, room for extents, reserved; and one extent: logical,
# physical, length, 2 reserved, flags, 3 reserved.
_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQLLLL")
_EXTENT = struct.Struct("=QQQQQLLLL")
_FIRST = struct.Struct("=20xL8x8xQQ16xL")
"""Mapped extents; and of the first: physical, length, flags."""
_ROOM = 16
_WHOLE_FILE = bytes(_HEADER.pack(0, (1 << 64) - 1, 0, 0, _ROOM, 0)) + bytes(_ROOM * _EXTENT.size)

_LAST = 0x1
_UNPLACED = 0x2 | 0x4
"""FIEMAP_EXTENT_UNKNOWN and DELALLOC: no place yet."""
_ENCODED = 0x8
_INLINE = 0x200
_SHARED = 0x2000
_REMARKABLE = _UNPLACED | _ENCODED | _INLINE | _SHARED

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EBADR})

_EXT = (b"ext2", b"ext3", b"ext4")
"""They cannot share a block: asking them about each file would tell nothing that stat does not."""

# linux/btrfs.h. The search: tree, then least and most of inode, offset and transaction, least and most type, number
# of items, unused; room for items. An item: transaction, inode, offset, type, length; and an extent: generation,
# size in memory, how it is encoded, type, then place and size on the disk.
_FS_INFO = 0x8400941F
_FS_UUID = slice(16, 32)
_TREE_SEARCH = 0xC0709411
_SEARCH = struct.Struct("=7Q4L32xQ")
_ITEM = struct.Struct("=3Q2L")
_ITEM_EXTENT = struct.Struct("=QQBBHBQQ")
_ITEMS = 1 << 16
_EXTENT_DATA = 108
_IS_INLINE = 0


def blocks(descriptor: int) -> Blocks | None:
    """What an open file has of the disk; ``None`` where the filesystem does not tell."""
    answer = bytearray(_WHOLE_FILE)
    try:
        fcntl.ioctl(descriptor, _FIEMAP, answer)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    count, start, length, flags = _FIRST.unpack_from(answer)
    if count == 1:  # as nearly all files have
        if not flags & _REMARKABLE:
            return Blocks(length, 0, is_inline=False, places=[])
        if flags & _REMARKABLE == _SHARED:
            return Blocks(0, 0, is_inline=False, places=[Place(start, length, SHARED)])
    own = pending = 0
    is_inline = is_encoded = False
    places: list[Place] = []
    for _, start, length, _, _, flags, *_ in _extents(descriptor, answer):
        if not flags & _REMARKABLE:
            own += length
        elif flags & _INLINE:
            is_inline = True
        elif flags & _ENCODED:
            is_encoded = True
            places.append(Place(start, length, ENCODED | BOUNDED | (SHARED if flags & _SHARED else 0)))
        elif flags & _SHARED:
            places.append(Place(start, length, SHARED))
        else:
            own += length
            pending += length
    return Blocks(own, pending, is_inline, _measured(descriptor, places) if is_encoded else places)


def shared(descriptor: int) -> int:
    """Bytes of an open file that it shares with others. 0 where nobody knows."""
    try:
        return sum(length for _, _, length, _, _, flags, *_ in _extents(descriptor) if flags & _SHARED)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return 0
        raise


def volume(directory: int) -> Volume:
    """The disk that an open directory is on. All subvolumes of a Btrfs are on one."""
    info = bytearray(1024)
    try:
        fcntl.ioctl(directory, _FS_INFO, info)
    except OSError:
        device = os.fstat(directory).st_dev
        return Volume(str(device), _may_share(device), keeps_extents=False)
    return Volume(f"btrfs-{info[_FS_UUID].hex()}", can_share=True, keeps_extents=True)


def _may_share(device: int) -> bool:
    """Whether files on a mounted filesystem may share blocks; without /proc nobody knows, and they may."""
    try:
        return mounts.type_of(device) not in _EXT
    except OSError:
        return True


def _extents(descriptor: int, answer: bytearray | None = None) -> list[tuple[int, ...]]:
    """All extents of an open file. A hole has none. ``answer``: the first to :data:`_WHOLE_FILE`, if it is there."""
    found: list[tuple[int, ...]] = []
    if answer is None:
        answer = bytearray(_WHOLE_FILE)
        fcntl.ioctl(descriptor, _FIEMAP, answer)
    while True:
        start, _, _, count, _, _ = _HEADER.unpack_from(answer)
        found += _EXTENT.iter_unpack(memoryview(answer)[_HEADER.size : _HEADER.size + count * _EXTENT.size])
        if count < _ROOM or found[-1][5] & _LAST:
            return found
        end = found[-1][0] + found[-1][2]
        if end <= start:  # a filesystem that tells of a file without an end
            return found
        answer = bytearray(_WHOLE_FILE)
        _HEADER.pack_into(answer, 0, end, (1 << 64) - 1 - end, 0, 0, _ROOM, 0)
        fcntl.ioctl(descriptor, _FIEMAP, answer)


def _measured(descriptor: int, places: list[Place]) -> list[Place]:
    """With the sizes on the disk of what is compressed, which Btrfs tells root alone."""
    sizes = _sizes(descriptor)
    return [
        Place(place.start, sizes[place.start], place.flags & ~BOUNDED) if place.start in sizes else place
        for place in places
    ]


def _sizes(descriptor: int) -> dict[int, int]:
    inode = os.fstat(descriptor).st_ino
    found: dict[int, int] = {}
    offset, most = 0, (1 << 64) - 1
    while True:
        buffer = bytearray(_SEARCH.size + _ITEMS)
        wanted = (0, inode, inode, offset, most, 0, most, _EXTENT_DATA, _EXTENT_DATA, 1 << 20, 0)
        _SEARCH.pack_into(buffer, 0, *wanted, _ITEMS)
        try:
            fcntl.ioctl(descriptor, _TREE_SEARCH, buffer)
        except OSError:  # an ordinary user, or another filesystem that compresses
            return {}
        count, position = _SEARCH.unpack_from(buffer)[9], _SEARCH.size
        for _ in range(count):
            _, _, offset, _, length = _ITEM.unpack_from(buffer, position)
            position += _ITEM.size
            if length >= _ITEM_EXTENT.size:  # what is inline may be shorter
                *_, kind, place, size = _ITEM_EXTENT.unpack_from(buffer, position)
                if kind != _IS_INLINE:
                    found[place] = size
            position += length
        if not count:
            return found
        offset += 1
