"""Linux: everything relative to an open directory, nothing through a symlink.

Working below a directory descriptor keeps the path walk short (the engine makes tens of thousands of
files), lifts the PATH_MAX limit, and means that a symlink planted in a space cannot redirect a write.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from holo.platform import btrfs, faithful

if TYPE_CHECKING:
    from ctypes import CDLL

    from holo.platform.blocks import Blocks, Volume

assert sys.platform == "linux"

Directory: TypeAlias = int

CAN_FORK = True

MOST_KEPT_OPEN = max(0, min(256, (os.sysconf("SC_OPEN_MAX") - 64) // 3))
"""Directories that may be kept open for later: few where few descriptors are allowed."""

# _IOW(0x94, 9, int), linux/fs.h
FICLONE = 0x40049409

# _IOW(0x94, 13, struct file_clone_range): source, its offset, length, offset in the target
_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("=qQQQ")

# "This way is not available here, take the next": what FICLONE, copy_file_range and link answer when the
# filesystem, the pair of filesystems or the kernel cannot. EINVAL is also Btrfs between nodatacow and
# ordinary files, ETXTBSY a swap file in use, or a subvolume with one in it. ENOSPC, EIO, EDQUOT, EACCES and EROFS
# are failures and are not here.
UNAVAILABLE = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.ETXTBSY})

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_root(path: str) -> Directory:
    """Open the directory ``path`` (symlinks on the way are followed: the user named it)."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_child(parent: Directory, name: str) -> Directory:
    """Open the directory ``name`` in ``parent``. A symlink there is ELOOP or ENOTDIR, never followed."""
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


def open_unmounted(parent: Directory, name: str) -> Directory:
    """Open the directory ``name`` in ``parent`` as :func:`open_child` does, unless something is mounted there: EBUSY.

    A bind mount of the same filesystem, too, which no stat shows; a Btrfs subvolume is not mounted. Also EBUSY if
    nobody can tell: on Linux before 5.6 without /proc.
    """
    return _open_unmounted(parent, name, _OPEN_DIRECTORY)


def close_directory(directory: Directory) -> None:
    os.close(directory)


def listing(directory: Directory) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    """The entries of ``directory``; ``entry.stat(follow_symlinks=False)`` costs one system call."""
    return os.scandir(directory)


def status(directory: Directory, name: str) -> os.stat_result:
    """``lstat`` of ``name``; of the directory itself when ``name`` is empty."""
    if not name:
        return os.fstat(directory)
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def open_file(directory: Directory, name: str) -> int:
    """Open a regular file for reading. ``name`` may have several components below ``directory``."""
    return os.open(name, _OPEN_FILE, dir_fd=directory)


def has_no_writer(descriptor: int) -> bool:
    """Whether nobody has a file, which is open for reading, open or mapped for writing. ``False`` if it cannot be told.

    Then a read lease is refused: fcntl(2). It is given back at once. Who opens the file in that moment waits for this,
    and holo gets a signal: one that does nothing instead of SIGIO, which ends a process.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:  # also: another user's file, or a filesystem without leases
        return False
    return True


def can_detect_writers(directory: Directory) -> bool:
    """Whether :func:`has_no_writer` is right on the filesystem of ``directory``.

    Overlayfs maps the file beneath and lets go of its own (backing_file_mmap in the kernel's fs/backing-file.c).
    """
    from holo.platform import mounts

    try:
        return mounts.type_of(os.fstat(directory).st_dev) != b"overlay"
    except OSError:  # without /proc; what else is wrong, whoever uses the directory will tell
        return False


def is_entered(path: str) -> bool:
    """Whether a process works in a tree, has something in it open, or has it or a part of it mounted elsewhere.

    Where it is mounted elsewhere, in a container say, its path begins differently: its last two names are to tell it
    from all others. Of other users' processes all that is hidden, unless this user is root: proc_pid_fd(5). Raises
    :class:`OSError` without /proc.
    """
    from holo.platform import mounts

    inside = f"/{'/'.join(os.path.realpath(path).split('/')[-2:])}/"
    namespaces = set[str]()
    for process in filter(str.isdecimal, os.listdir("/proc")):
        held = f"/proc/{process}/fd"
        links = [f"/proc/{process}/cwd", f"/proc/{process}/root"]
        with suppress(OSError):  # it has ended, or is another user's
            links += [f"{held}/{number}" for number in os.listdir(held)]
        for link in links:
            with suppress(OSError):
                if inside in f"{os.readlink(link)}/":
                    return True
        with suppress(OSError):
            namespace = os.readlink(f"/proc/{process}/ns/mnt")
            if namespace not in namespaces and any(inside in f"{root}/" for root in mounts.roots(process)):
                return True
            namespaces.add(namespace)
    return False


def own_group(directory: Directory) -> None:
    """Let what is made in a new directory be of this process's group, not of that of the setgid folder it is in."""
    mode = os.fstat(directory).st_mode
    if mode & stat.S_ISGID:
        os.fchown(directory, -1, os.getegid())
        os.fchmod(directory, stat.S_IMODE(mode) & ~stat.S_ISGID)


def open_to_change(directory: Directory, name: str) -> int:
    """Open a regular file for reading and writing. Never through a symlink."""
    return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)


def create_file(directory: Directory, name: str, mode: int) -> int:
    """Create ``name``, which must not exist. The process's umask applies to ``mode``."""
    return os.open(name, _CREATE_FILE, mode, dir_fd=directory)


def clone(
    source: int, source_directory: Directory, source_name: str, directory: Directory, name: str, mode: int
) -> int:
    """Make ``name`` a copy-on-write clone of the open file ``source``; returns its open descriptor.

    FICLONE copies data only, so mode and times are the caller's to set. Nothing is left behind on failure.
    """
    target = create_file(directory, name, mode)
    try:
        fcntl.ioctl(target, FICLONE, source)
    except BaseException:
        os.close(target)
        os.unlink(name, dir_fd=directory)
        raise
    return target


def nameless_file(directory: Directory) -> int | None:
    """An open file in ``directory`` that has no name and is gone when it is closed; ``None`` where there are none."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        # The filesystem or the kernel cannot, or this directory may not be written to.
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EACCES):
            return None
        raise


def clone_content(source: int, target: int) -> None:
    """Make the open empty file ``target`` a copy-on-write clone of the open file ``source``."""
    fcntl.ioctl(target, FICLONE, source)


def clone_range(source: int, start: int, length: int, target: int, offset: int) -> None:
    """Let a stretch of the open file ``target`` share the blocks of one of ``source``, all in whole blocks."""
    fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, start, length, offset))


read_at = os.pread
write_at = os.pwrite
"""Read at most so many bytes of an open file from an offset on; none at its end."""


def copy_range(source: int, target: int, offset: int, count: int) -> int:
    """Copy in the kernel at the same ``offset`` of both files; returns bytes copied (0 at the end)."""
    return os.copy_file_range(source, target, count, offset, offset)


def send(source: int, offset: int, count: int, target: int) -> int:
    """Copy in the kernel, from an offset to the position of the open file or pipe ``target``; returns bytes copied."""
    return os.sendfile(target, source, offset, count)


def link(source_directory: Directory, source_name: str, directory: Directory, name: str) -> None:
    """Hardlink; the source may have several components."""
    os.link(source_name, name, src_dir_fd=source_directory, dst_dir_fd=directory, follow_symlinks=False)


def make_directory(directory: Directory, name: str, mode: int) -> None:
    os.mkdir(name, mode, dir_fd=directory)


def make_symlink(target: str, directory: Directory, name: str, mtime_ns: int) -> None:
    os.symlink(target, name, dir_fd=directory)
    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=directory, follow_symlinks=False)


def read_link(directory: Directory, name: str) -> str:
    return os.readlink(name, dir_fd=directory)


def remove_file(directory: Directory, name: str) -> None:
    """Remove a file or symlink. EBUSY, with the path, if something is mounted there."""
    try:
        os.unlink(name, dir_fd=directory)
    except OSError as error:
        raise _mounted(directory, name) if error.errno == errno.EBUSY else error from None


def remove_directory(directory: Directory, name: str) -> None:
    """Remove an empty directory. EBUSY, with the path, if something is mounted there."""
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        raise _mounted(directory, name) if error.errno == errno.EBUSY else error from None


def rename(source_directory: Directory, source_name: str, directory: Directory, name: str) -> None:
    """Rename, replacing what is there, in one atomic step."""
    os.replace(source_name, name, src_dir_fd=source_directory, dst_dir_fd=directory)


def set_file(descriptor: int, mtime_ns: int, mode: int | None = None) -> None:
    """Set the mtime (ns), and the mode when given, of an open file."""
    if mode is not None:
        os.fchmod(descriptor, mode)
    os.utime(descriptor, ns=(mtime_ns, mtime_ns))


def shows_mode(descriptor: int, mode: int) -> bool:
    """Whether an open file has the mode that it was given: not on FAT, for one."""
    return stat.S_IMODE(os.fstat(descriptor).st_mode) == mode


def free_space(path: str) -> int:
    """The bytes that this user may still write to the filesystem of ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def touch(directory: Directory, name: str) -> None:
    """Set the mtime of a file to now; an empty one is made if there is none, or one that has a second name.

    Never through a symlink.
    """
    with suppress(FileNotFoundError):
        descriptor = open_file(directory, name)
        try:
            if os.fstat(descriptor).st_nlink <= 1:
                os.utime(descriptor)
                return
        finally:
            os.close(descriptor)
        os.unlink(name, dir_fd=directory)
    os.close(create_file(directory, name, 0o644))


def shared_bytes(directory: Directory, name: str) -> int:
    """Bytes of data of a file that it shares with other files (reflinks, snapshots): FIEMAP. 0 where nobody knows."""
    from holo.platform import extents

    descriptor = open_file(directory, name)
    try:
        return extents.shared(descriptor)
    finally:
        os.close(descriptor)


def blocks_of(descriptor: int) -> Blocks | None:
    """What an open file has of the disk; ``None`` where the filesystem does not tell."""
    from holo.platform import extents

    return extents.blocks(descriptor)


def volume_of(directory: int) -> Volume:
    """The disk that an open directory is on."""
    from holo.platform import extents

    return extents.volume(directory)


def set_directory(directory: Directory, mode: int, mtime_ns: int | None) -> None:
    """Set the mode, and the mtime (ns) when given, of an open directory."""
    os.fchmod(directory, mode)
    if mtime_ns is not None:
        os.utime(directory, ns=(mtime_ns, mtime_ns))


def make_accessible(directory: Directory, name: str) -> None:
    """Give the owner all rights on the directory ``name``, which may be unreadable.

    Never through a symlink, and EBUSY as in :func:`open_unmounted`.
    """
    # fchmodat with AT_SYMLINK_NOFOLLOW needs Linux 6.6; an O_PATH descriptor does it on all of them.
    handle = _open_unmounted(directory, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
    finally:
        os.close(handle)


def make_tree(directory: Directory, name: str) -> None:
    """Make an empty directory that :func:`snapshot` can copy: on Btrfs a subvolume. ENOTTY elsewhere."""
    btrfs.create_subvolume(directory, name)


def snapshot(tree: Directory, directory: Directory, name: str) -> None:
    """Make ``name`` a writable copy of the open ``tree``, in one step whatever its size."""
    btrfs.snapshot(tree, directory, name)


def is_tree(directory: Directory) -> bool:
    """Whether :func:`snapshot` can copy an open directory as a whole."""
    if os.fstat(directory).st_ino != btrfs.ROOT_INODE:
        return False
    try:
        btrfs.nested(directory)
    except OSError as error:
        return error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL)
    return True


def trees_below(tree: Directory) -> list[str]:
    """The relative paths of the trees directly inside an open ``tree``, of which a snapshot has empty places only."""
    return btrfs.nested(tree)


def set_read_only(tree: Directory, read_only: bool) -> None:
    """Protect a tree of :func:`make_tree` from every change, or allow changes again."""
    btrfs.set_read_only(tree, read_only)


def tree_seal(tree: Directory) -> str | None:
    """What no other tree has and any change of a protected one changes for good; ``None`` if it is not protected."""
    try:
        return btrfs.seal(tree)
    except OSError:
        return None


def remove_tree(directory: Directory, name: str) -> bool:
    """Remove a whole tree of :func:`make_tree` or :func:`snapshot` in one step; ``False`` if that cannot be done.

    Ordinary users often may not (mount option user_subvol_rm_allowed), and other directories have no such step.
    """
    try:
        if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino != btrfs.ROOT_INODE:
            return False
        btrfs.delete_subvolume(directory, name)
    except OSError:
        return False
    return True


# linux/openat2.h. All machines have one number for this call, but Alpha.
_OPENAT2 = 437
_RESOLVE_NO_XDEV = 0x01


def _open_unmounted(parent: Directory, name: str, flags: int) -> int:
    try:
        return _openat2()(parent, name, flags)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise _mounted(parent, name) from None
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # Linux before 5.6, and the filters of old containers
            raise
    child = os.open(name, flags, dir_fd=parent)
    try:
        if _mount_of(child) != _mount_of(parent):
            raise _mounted(parent, name)
    except BaseException:
        os.close(child)
        raise
    return child


@cache
def libc() -> CDLL:
    """The C library, for calls that Python has no function for."""
    from ctypes import CDLL  # takes 2 to 5 ms, and few commands need it

    return CDLL(None, use_errno=True)


def check(result: int) -> None:
    """Raise the :class:`OSError` of a call to the C library that did not return 0."""
    if result != 0:
        from ctypes import get_errno

        code = get_errno()
        raise OSError(code, os.strerror(code))


@cache
def _openat2() -> Callable[[Directory, str, int], int]:
    """openat2(2), for a name in a directory that is on the same mount. EXDEV: it is not."""
    import ctypes

    call = libc().syscall
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)

    def openat2(parent: Directory, name: str, flags: int) -> int:
        how = struct.pack("=QQQ", flags, 0, _RESOLVE_NO_XDEV)  # struct open_how: flags, mode, resolve
        descriptor: int = call(_OPENAT2, parent, os.fsencode(name), how, len(how))
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)
        return descriptor

    return openat2


def _mount_of(descriptor: int) -> bytes | None:
    """Which mount an open file is on: proc_pid_fdinfo(5), Linux 3.15. ``None``: a system (gVisor) that does not say it.

    There the list of mounts tells, which is read before anything is changed.
    """
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
            return next((line for line in file if line.startswith(b"mnt_id:")), None)
    except OSError:
        raise OSError(errno.EBUSY, "nobody can tell whether something is mounted there without /proc") from None


def _mounted(directory: Directory, name: str) -> OSError:
    with suppress(OSError):  # without /proc
        name = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), name)
    return OSError(errno.EBUSY, f"something is mounted at {name}; unmount it first", name)


def mounts_below(path: str) -> list[str]:
    """What is mounted (also by a bind mount, which no stat shows) below ``path``, a real path."""
    from holo.platform import mounts

    return mounts.mounts_below(path)


def source_at(path: str, process: str = "self") -> str | None:
    """The source (a device, or any name) of what is mounted at ``path``, a real path, as a process sees it."""
    from holo.platform import mounts

    return mounts.source_at(path, process)


# linux/fs.h
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


def exchange(directory: Directory, name: str, other: str) -> None:
    """Let two entries of a directory change places in one atomic step: renameat2(2)."""
    _renameat2(directory, name, other, _RENAME_EXCHANGE)


def rename_new(directory: Directory, name: str, new: str) -> None:
    """Rename an entry of a directory to what must not be there: renameat2(2). EEXIST if something is."""
    try:
        _renameat2(directory, name, new, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):  # some network filesystems
            raise
        if os.access(new, os.F_OK, dir_fd=directory, follow_symlinks=False):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=directory)


def _renameat2(directory: Directory, name: str, other: str, flags: int) -> None:
    check(libc().renameat2(directory, os.fsencode(name), directory, os.fsencode(other), flags))


def lock_directory(directory: Directory) -> bool:
    """Lock an open directory until it is closed. ``False``: somebody else has. OSError: not on this filesystem."""
    return lock(directory, exclusive=True, wait=False)


def owners() -> frozenset[int]:
    """The users whose files are believed without reading them: this one, and root, whom nothing stops anyway."""
    return frozenset((os.geteuid(), 0))


def user_id() -> int:
    """This user's number."""
    return os.geteuid()


# _IOR('v', 1, long), linux/fs.h
_FS_IOC_GETVERSION = 0x80087601


# struct file_handle of name_to_handle_at(2): room in bytes, kind; then the handle, of at most MAX_HANDLE_SZ bytes.
_HANDLE = struct.Struct("=Ii128s")
_AT_EMPTY_PATH = 0x1000
_AT_HANDLE_FID = 0x200
_OF_TMPFS = (1, 12)
"""Kind and bytes: a random generation, and the inode (shmem_encode_fh in the kernel's mm/shmem.c)."""
_OF_OVERLAY = 0xF8
_OVERLAY_UUID = slice(8, 24)
"""Of the filesystem beneath; its handle follows (struct ovl_fh in the kernel's fs/overlayfs/overlayfs.h)."""


_UNTOLD = UNAVAILABLE | {errno.EPERM, errno.EACCES, errno.EOVERFLOW}
"""Errors that say that a filesystem, or a container's rules, tell no such thing. All others say only: not now."""


def identity(descriptor: int | Directory) -> str:
    """What tells an open file or directory from every copy of it, and nobody can know who makes an archive elsewhere.

    That is its inode with the inode's generation, which is random, and on Btrfs, where it is the number of a
    transaction, the UUID of the subvolume: a snapshot has the same inodes. Empty where the filesystem does not tell
    any of this (FUSE, network filesystems). Raises :class:`OSError` where it tells, but cannot now.
    """
    generation = bytearray(8)
    try:
        fcntl.ioctl(descriptor, _FS_IOC_GETVERSION, generation)
    except OSError as error:
        if error.errno not in _UNTOLD:
            raise
        return _handle(descriptor)
    found = f"{os.fstat(descriptor).st_ino}-{int.from_bytes(generation[:4], sys.byteorder)}"
    try:
        volume = btrfs.volume(descriptor)
    except OSError as error:
        if error.errno not in _UNTOLD:
            raise
        return found
    return volume and f"{found}-{volume}"


def _handle(descriptor: int) -> str:
    """The handle of an open file where that holds something random; else empty.

    In FUSE's there are an inode and a generation too, but they are numbers that a server has counted up.
    """
    import ctypes

    # Without the second flag overlayfs has handles only if it can be exported; Linux before 6.5 does not know it.
    for flags in (_AT_EMPTY_PATH | _AT_HANDLE_FID, _AT_EMPTY_PATH):
        handle = ctypes.create_string_buffer(_HANDLE.pack(128, 0, b""), _HANDLE.size)
        if libc().name_to_handle_at(descriptor, b"", handle, ctypes.byref(ctypes.c_int()), flags) == 0:
            size, kind, content = _HANDLE.unpack(handle.raw)
            is_random = (kind, size) == _OF_TMPFS or (kind == _OF_OVERLAY and any(content[_OVERLAY_UUID]))
            return f"{kind:x}-{content[:size].hex()}" if is_random else ""
        if (number := ctypes.get_errno()) not in _UNTOLD:
            raise OSError(number, os.strerror(number))
    return ""


def get_xattrs(descriptor: int, *, acls: bool = False) -> dict[str, bytes]:
    """The extended attributes holo keeps, of an open file or directory: ``user.*`` and capabilities.

    With ``acls`` also those that hold ACLs, which it does not keep.
    """
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    if not names:  # of nearly all files
        return {}
    return {
        name: os.getxattr(descriptor, name)
        for name in names
        if name.startswith("user.") or name == "security.capability" or (acls and name.startswith(faithful.ACL))
    }


def set_xattr(descriptor: int, name: str, value: bytes | None) -> None:
    """Set an extended attribute, or remove it when ``value`` is ``None``."""
    if value is None:
        os.removexattr(descriptor, name)
    else:
        os.setxattr(descriptor, name, value)


def lock(descriptor: int, *, exclusive: bool, wait: bool) -> bool:
    """Lock an open file until it is closed (or its process dies). ``False``: held by another and not waiting."""
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, operation if wait else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_filesystem(directory: Directory) -> None:
    """Make everything written to the filesystem of ``directory`` durable: syncfs(2), one call for all blobs.

    Since Linux 5.8 it also reports a writeback error that happened since the directory was opened.
    """
    check(libc().syncfs(directory))


def sync_file(descriptor: int) -> None:
    """Make the content of an open file durable."""
    os.fsync(descriptor)


def sync_directory(directory: Directory) -> None:
    """Make the names in ``directory`` durable."""
    os.fsync(directory)


def drop_cached(descriptor: int) -> None:
    """Let the next reading of an open file, which was written out, come from the disk rather than from memory."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def boot_id() -> str:
    """Another one after every start of the system: what was written before it may not have reached the disk.

    Without /proc it is always the same: then nobody can tell.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().decode().strip()
    except OSError:
        return "unknown"


def clock_offset() -> int:
    """How much (ns) the clock shows beyond the time since the system was started.

    As long as that runs, only setting the clock changes it: see CLOCK_BOOTTIME in clock_getres(2).
    """
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


# What a faithful copy needs is a file of its own.
copy_content = faithful.copy_content
data_ranges = faithful.data_ranges
open_unread = faithful.open_unread
copy_xattrs = faithful.copy_xattrs
disinherit = faithful.disinherit
finish_link = faithful.finish_link
has_default_acl = faithful.has_default_acl
has_holes = faithful.has_holes
make_special = faithful.make_special
remove_xattrs = faithful.remove_xattrs
set_owner = faithful.set_owner
set_times = faithful.set_times
umask = faithful.umask
without_acls = faithful.without_acls
xattrs_of = faithful.xattrs_of
