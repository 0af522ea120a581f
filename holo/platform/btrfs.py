"""Btrfs subvolumes, by ioctl on open directories (linux/btrfs.h). Ordinary users may create and snapshot."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys

assert sys.platform == "linux"

# struct btrfs_ioctl_vol_args: the descriptor of the source, and the name to make or delete.
_ARGUMENTS = struct.Struct("=q4088s")
_SNAP_CREATE = 0x50009401
_SUBVOL_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_SUBVOL_SETFLAGS = 0x4008941A
_SUBVOL_RDONLY = 1 << 1
_GET_SUBVOL_INFO = 0x81F8943C
_GET_SUBVOL_ROOTREF = 0xD000943D
_INO_LOOKUP_USER = 0xD000943E

# struct btrfs_ioctl_get_subvol_info_args: id and name, three numbers, flags, three UUIDs, ctransid, the rest.
_INFO = struct.Struct("=Q256s3QQ16s16s16sQ176x")
_ROOT_RDONLY = 1 << 0

# struct btrfs_ioctl_get_subvol_rootref_args: the least tree to list, 255 pairs of tree and directory, their number.
_ROOTREFS = 255
_ROOTREF = struct.Struct("=QQ")
# struct btrfs_ioctl_ino_lookup_user_args: directory and tree; its name, and the path to that directory.
_LOOKUP = struct.Struct("=QQ256s3824s")

ROOT_INODE = 256
"""The root of every subvolume has this inode number (BTRFS_FIRST_FREE_OBJECTID)."""


def create_subvolume(directory: int, name: str) -> None:
    """Make ``name`` in ``directory`` an empty subvolume, a directory that can be snapshotted."""
    _call(directory, _SUBVOL_CREATE, 0, name)


def snapshot(subvolume: int, directory: int, name: str) -> None:
    """Make ``name`` a writable snapshot of the open ``subvolume``, whatever its size in one step.

    EINVAL if it is another directory: before Linux 6.8 the snapshot would be of the subvolume around it.
    """
    if os.fstat(subvolume).st_ino != ROOT_INODE:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    _call(directory, _SNAP_CREATE, subvolume, name)


def delete_subvolume(directory: int, name: str) -> None:
    """Delete a subvolume and all that is in it.

    EPERM: an ordinary user may do this only where the filesystem is mounted with user_subvol_rm_allowed,
    but may always empty a subvolume and remove it like a directory.
    """
    _call(directory, _SNAP_DESTROY, 0, name)


def set_read_only(subvolume: int, read_only: bool) -> None:
    """Make the open ``subvolume`` read-only or writable. Its owner may."""
    fcntl.ioctl(subvolume, _SUBVOL_SETFLAGS, struct.pack("=Q", _SUBVOL_RDONLY if read_only else 0))


def seal(directory: int) -> str | None:
    """Which subvolume the open ``directory`` is, and the transaction that last changed anything in it.

    ``None`` if it is not the root of a subvolume, or one that is not read-only.
    """
    if os.fstat(directory).st_ino != ROOT_INODE:
        return None
    flags, uuid, changed = _info(directory)
    return f"{uuid.hex()}-{changed}" if flags & _ROOT_RDONLY else None


def volume(descriptor: int) -> str:
    """The UUID of the subvolume that holds an open file, which its snapshots do not have. ENOTTY: it is not on Btrfs.

    Empty for the uppermost subvolume of a filesystem made by btrfs-progs before 4.16.
    """
    _, uuid, _ = _info(descriptor)
    return uuid.hex() if any(uuid) else ""


def _info(descriptor: int) -> tuple[int, bytes, int]:
    """The flags and the UUID of the subvolume that holds an open file, and the transaction that last changed it."""
    info = bytearray(_INFO.size)
    fcntl.ioctl(descriptor, _GET_SUBVOL_INFO, info)
    *_, flags, uuid, _, _, changed = _INFO.unpack(info)
    return flags, uuid, changed


def nested(subvolume: int) -> list[str]:
    """The relative paths of the subvolumes directly inside the open ``subvolume``. Linux 4.18; ENOTTY before.

    EACCES if one lies where this user may not look.
    """
    places: list[tuple[int, int]] = []
    least, more = 0, True
    while more:
        found = bytearray(4096)
        struct.pack_into("=Q", found, 0, least)
        try:
            fcntl.ioctl(subvolume, _GET_SUBVOL_ROOTREF, found)
            more = False
        except OSError as error:
            if error.errno != errno.EOVERFLOW:  # as many as there is room for
                raise
        count = found[8 + _ROOTREFS * _ROOTREF.size]
        places += _ROOTREF.iter_unpack(found[8 : 8 + count * _ROOTREF.size])
        least = places[-1][0] + 1 if places else 0
    return [_name_of(subvolume, *place) for place in places]


def _name_of(subvolume: int, tree: int, directory: int) -> str:
    found = bytearray(_LOOKUP.pack(directory, tree, b"", b""))
    fcntl.ioctl(subvolume, _INO_LOOKUP_USER, found)
    _, _, name, path = _LOOKUP.unpack(found)
    return os.fsdecode(path.partition(b"\0")[0] + name.partition(b"\0")[0])


def _call(directory: int, request: int, source: int, name: str) -> None:
    encoded = os.fsencode(name)
    if len(encoded) > 255:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    # A bytearray, for Python limits what it passes from immutable bytes to 1024.
    fcntl.ioctl(directory, request, bytearray(_ARGUMENTS.pack(source, encoded)))
