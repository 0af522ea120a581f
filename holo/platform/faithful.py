"""Linux: what makes a copy a faithful one. Content with its holes, owner, times, extended attributes and ACLs."""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator

assert sys.platform == "linux"

# What copy_file_range answers where it cannot copy between these two files: read and write can. ETXTBSY: a swap file.
_NOT_IN_KERNEL = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.EBADF, errno.ETXTBSY}
)

# What setxattr answers where the filesystem, or this user, cannot have the attribute. ENODATA: it has just gone.
_NOT_KEPT = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA})

# What lseek answers to SEEK_HOLE and SEEK_DATA where the filesystem knows no holes, and behind the last data.
_NO_HOLES = frozenset({errno.EINVAL, errno.ENXIO})
ACL = "system.posix_acl_"
"""Begins the names of the attributes that hold the ACL of a file, and the default ACL of a directory."""

_PIECE = 1 << 20
_RANGE = 1 << 30


_UNREAD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def open_unread(directory: int, name: str) -> int:
    """Open a file for reading that leaves its access time alone, as its owner and root may (O_NOATIME, open(2)).

    It is to be kept; and of a file with several names each worker that meets one has to see the same.
    """
    try:
        return os.open(name, _UNREAD | os.O_NOATIME, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(name, _UNREAD, dir_fd=directory)


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the first ``size`` bytes of an open file have data, as (start, end), in order; between them are holes.

    SEEK_HOLE and SEEK_DATA of lseek(2). Without holes, and where the filesystem does not tell, it is one stretch.
    """
    start = 0
    while start < size:
        end = _seek(descriptor, start, os.SEEK_HOLE, size)
        if end > start:
            yield start, end
        start = size if end == size else _seek(descriptor, end, os.SEEK_DATA, size)


def _seek(descriptor: int, position: int, whence: int, size: int) -> int:
    """The next hole, or the next data; ``size`` if there is none before that."""
    try:
        return min(os.lseek(descriptor, position, whence), size)
    except OSError as error:
        if error.errno not in _NO_HOLES:
            raise
        return size


def has_holes(descriptor: int, size: int) -> bool:
    """Whether there is a hole in the first ``size`` bytes of an open file.

    To be asked before it is read: on XFS, what was read of blocks that were allocated ahead is data from then on.
    """
    try:
        return size > 0 and os.lseek(descriptor, 0, os.SEEK_HOLE) < size
    except OSError as error:
        if error.errno not in _NO_HOLES:
            raise
        return False


def copy_content(source: int, target: int, status: os.stat_result) -> None:
    """Copy an open file of that ``status`` into the open empty file ``target``; holes stay holes."""
    size = status.st_size
    if not has_holes(source, size):
        _copy(source, target, 0, size)
        return
    os.ftruncate(target, size)  # first, for behind what is appended XFS allocates ahead
    for start, end in data_ranges(source, size):
        _copy(source, target, start, end)


def _copy(source: int, target: int, position: int, end: int) -> None:
    """Copy a stretch. It ends early if the file has become shorter."""
    while position < end:
        try:
            count = os.copy_file_range(source, target, min(end - position, _RANGE), position, position)
        except OSError as error:
            if error.errno not in _NOT_IN_KERNEL:
                raise
            content = os.pread(source, min(end - position, _PIECE), position)
            count = os.pwrite(target, content, position)
        if not count:
            return
        position += count


def set_times(descriptor: int, status: os.stat_result) -> None:
    """Give an open file or directory the access and modification times of another."""
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def set_owner(descriptor: int, status: os.stat_result) -> bool:
    """Give an open file or directory the owner and group of another; ``False`` if not both could be.

    Who may not give files away can still give them to a group of his own.
    """
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):  # EINVAL: there is no such user in a namespace
            raise
        try:
            os.fchown(descriptor, -1, status.st_gid)
        except OSError as second:
            if second.errno not in (errno.EPERM, errno.EINVAL):
                raise
        return False
    return True


def xattrs_of(descriptor: int) -> list[str]:
    """The names of all extended attributes of an open file or directory, ACLs and capabilities among them."""
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def copy_xattrs(source: int, target: int, names: list[str]) -> bool:
    """Copy the named attributes between open files or directories; ``False`` if not all could be kept here."""
    kept = True
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _NOT_KEPT:
                raise
            kept = False
    return kept


def remove_xattrs(descriptor: int) -> bool:
    """Remove the ACLs of an open file or directory; ``False`` if it has none.

    What is made in a directory with a default ACL inherits that, and then its mode is not what was asked for: acl(5).
    """
    acls = [name for name in xattrs_of(descriptor) if name.startswith(ACL)]
    for name in acls:
        os.removexattr(descriptor, name)
    return bool(acls)


# linux/posix_acl_xattr.h: after four bytes of version, entries of tag, rights, and whose they are.
_ENTRY = struct.Struct("<HHI")
_GROUP_OBJ = 0x04


def without_acls(mode: int, xattrs: dict[str, bytes]) -> tuple[int, dict[str, bytes]]:
    """The mode and the attributes that a file with these has without its ACLs.

    With an ACL the group's bits of a mode are its mask: the most that anybody it names may do (acl(5)). Without they
    would be the rights of the group, which may be fewer.
    """
    acl = xattrs.get(ACL + "access")
    if acl is not None:
        for tag, rights, _ in _ENTRY.iter_unpack(acl[4:]):
            if tag == _GROUP_OBJ:
                mode &= ~0o070 | rights << 3
    return mode, {name: value for name, value in xattrs.items() if not name.startswith(ACL)}


def has_default_acl(directory: int) -> bool:
    """Whether what is made in an open directory inherits an ACL from it."""
    try:
        os.getxattr(directory, ACL + "default")
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return False
    return True


def disinherit(directory: int, mode: int) -> None:
    """Give a new directory, if it has inherited an ACL, the rights that it has without: ``mode`` less the umask.

    What is made in it inherits nothing then.
    """
    if remove_xattrs(directory):
        special = stat.S_IMODE(os.fstat(directory).st_mode) & 0o7000
        os.fchmod(directory, special | mode & ~umask())


def umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def finish_link(source: int, source_name: str, target: int, name: str, status: os.stat_result) -> tuple[bool, bool]:
    """Give the new symlink or special file ``name`` what the one with that ``status`` has besides its type.

    Returns whether the owner, and whether the attributes could be kept.
    """
    found = os.stat(name, dir_fd=target, follow_symlinks=False)
    owner = True
    if (found.st_uid, found.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            owner = False
    attributes = _copy_xattrs_of_link(f"/proc/self/fd/{source}/{source_name}", f"/proc/self/fd/{target}/{name}")
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
    return owner, attributes


def _copy_xattrs_of_link(source: str, target: str) -> bool:
    """There is no call for a name in an open directory, so by paths through /proc; the last part is not followed."""
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT):  # ENOENT: no /proc
            raise
        return True
    try:
        for name in names:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_KEPT:
            raise
        return False
    return True


def make_special(directory: int, name: str, status: os.stat_result) -> None:
    """Make a fifo, a socket or a device like another. EPERM: devices take root."""
    os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=directory)
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(status.st_mode))
    finally:
        os.close(handle)
