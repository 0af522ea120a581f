"""macOS, Windows and the rest: directories are paths, and what the system cannot do is said by an errno.

The same functions as in :mod:`holo.platform.linux`, with its contracts. Between looking at a path and
using it somebody else can put a symlink there, which a directory descriptor would rule out: the last
component of a name is never followed, the ones before it are trusted.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TypeAlias

from holo.platform.blocks import Blocks, Volume

Directory: TypeAlias = str

# Neither the frameworks of macOS nor Windows take a fork.
CAN_FORK = False

# A directory is a path, which is looked at anew each time.
MOST_KEPT_OPEN = 0

# The same as on Linux, and ENOTSUP, which is a number of its own on macOS.
UNAVAILABLE = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS, errno.EINVAL})

# Windows has O_BINARY and none of the others; there, descriptors are never inherited.
_COMMON = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


# APFS locks the whole volume for a clone: threads that wait for that in the kernel slow each other down
# (https://gregoryszorc.com/blog/2018/10/29/global-kernel-locks-in-apfs/).
_turn_to_clone: AbstractContextManager[object] = threading.Lock() if sys.platform == "darwin" else nullcontext()


def open_root(path: str) -> Directory:
    """Open the directory ``path`` (symlinks on the way are followed: the user named it)."""
    real = os.path.realpath(path, strict=True)
    if not os.path.isdir(real):
        raise _error(errno.ENOTDIR, path)
    return real


def open_child(parent: Directory, name: str) -> Directory:
    """Open the directory ``name`` in ``parent``. A symlink there is ELOOP or ENOTDIR, never followed."""
    path = os.path.join(parent, name)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or _is_junction(found):
        raise _error(errno.ENOTDIR, path)
    return path


def open_unmounted(parent: Directory, name: str) -> Directory:
    """Open the directory ``name`` in ``parent``, unless something is mounted there: EBUSY.

    That is always another filesystem: these systems have no bind mounts.
    """
    child = open_child(parent, name)
    if os.lstat(child).st_dev != os.lstat(parent).st_dev:
        raise OSError(errno.EBUSY, f"something is mounted at {child}; unmount it first", child)
    return child


def close_directory(directory: Directory) -> None:
    """Nothing is held open."""


def listing(directory: Directory) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    """The entries of ``directory``."""
    return os.scandir(directory)


def status(directory: Directory, name: str) -> os.stat_result:
    """``lstat`` of ``name``; of the directory itself when ``name`` is empty."""
    return os.lstat(os.path.join(directory, name) if name else directory)


def open_file(directory: Directory, name: str) -> int:
    """Open a regular file for reading. ``name`` may have several components below ``directory``."""
    return _opened(os.path.join(directory, name), os.O_RDONLY)


open_unread = open_file


def _opened(path: str, access: int) -> int:
    if sys.platform == "win32" and os.path.islink(path):
        raise _error(errno.ELOOP, path)
    return os.open(path, access | _COMMON)


def has_no_writer(descriptor: int) -> bool:
    """Whether nobody has a file open or mapped for writing: not known here."""
    return False


def is_entered(path: str) -> bool:
    """Whether a process works in a tree, or has something of it open or mounted: not known here, so it may."""
    return True


def can_detect_writers(directory: Directory) -> bool:
    """Whether :func:`has_no_writer` is right on the filesystem of ``directory``."""
    return False


def own_group(directory: Directory) -> None:
    """On Linux: let what is made in a new directory be of one's own group. Elsewhere libraries are not shared."""


def open_to_change(directory: Directory, name: str) -> int:
    """Open a regular file for reading and writing."""
    return _opened(os.path.join(directory, name), os.O_RDWR)


def create_file(directory: Directory, name: str, mode: int) -> int:
    """Create ``name``, which must not exist. The process's umask applies to ``mode``."""
    return os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT | os.O_EXCL | _COMMON, mode)


def clone(
    source: int, source_directory: Directory, source_name: str, directory: Directory, name: str, mode: int
) -> int:
    """Make ``name`` a copy-on-write clone of a file; returns its open descriptor.

    The file is found by its name here, ``source`` is for systems that clone by descriptor. clonefile
    copies the mode and wants to create the file itself, so a file that holo creates first finds out what
    the mode is to be: only the system knows the umask without changing it for every thread. Nothing is
    left behind on failure.
    """
    import reflink_copy

    path = os.path.join(directory, name)
    draft = create_file(directory, name, mode)
    try:
        wanted = stat.S_IMODE(os.fstat(draft).st_mode)
    finally:
        os.close(draft)
        remove_file(directory, name)
    try:
        with _turn_to_clone:
            reflink_copy.reflink(os.path.join(source_directory, source_name), path)
    except OSError as error:
        raise _with_errno(error, path) from error
    try:
        os.chmod(path, 0o600)  # the source's may forbid to open it for writing
        target = os.open(path, os.O_RDWR | _COMMON)
        os.chmod(path, wanted)
    except BaseException:
        remove_file(directory, name)
        raise
    return target


def nameless_file(directory: Directory) -> int | None:
    """Every file has a name here: always ``None``."""
    return None


def clone_content(source: int, target: int) -> None:
    """Files are cloned by their names here: always ENOSYS."""
    raise _error(errno.ENOSYS)


def clone_range(source: int, start: int, length: int, target: int, offset: int) -> None:
    """Only whole files are cloned here: always ENOSYS."""
    raise _error(errno.ENOSYS)


def read_at(fd: int, length: int, offset: int, /) -> bytes:
    """Read at most ``length`` bytes of an open file from ``offset`` on; none at its end. As :func:`os.pread`."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, length)


def write_at(fd: int, buffer: bytes | memoryview, offset: int, /) -> int:
    """Write to an open file at ``offset``; returns how many bytes. As :func:`os.pwrite`."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, buffer)


def copy_range(source: int, target: int, offset: int, count: int) -> int:
    """There is no call to copy within the kernel: always ENOSYS, the caller reads and writes."""
    raise _error(errno.ENOSYS)


def send(source: int, offset: int, count: int, target: int) -> int:
    """There is no call to copy within the kernel: always ENOSYS, the caller reads and writes."""
    raise _error(errno.ENOSYS)


def link(source_directory: Directory, source_name: str, directory: Directory, name: str) -> None:
    """Hardlink; the source may have several components."""
    source = os.path.join(source_directory, source_name)
    # Only some systems can link a symlink itself; holo never means to.
    if os.path.islink(source):
        raise _error(errno.ELOOP, source)
    os.link(source, os.path.join(directory, name))


def make_directory(directory: Directory, name: str, mode: int) -> None:
    os.mkdir(os.path.join(directory, name), mode)


def make_symlink(target: str, directory: Directory, name: str, mtime_ns: int) -> None:
    path = os.path.join(directory, name)
    # Windows has one kind of symlink for files and one for directories.
    os.symlink(target, path, target_is_directory=os.path.isdir(os.path.join(directory, target)))
    if os.utime in os.supports_follow_symlinks:
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def read_link(directory: Directory, name: str) -> str:
    return os.readlink(os.path.join(directory, name))


def remove_file(directory: Directory, name: str) -> None:
    """Remove a file or symlink."""
    path = os.path.join(directory, name)
    try:
        os.unlink(path)
    except PermissionError:
        if sys.platform != "win32":
            raise
        os.chmod(path, stat.S_IWRITE)  # Windows does not remove a read-only file
        os.unlink(path)


def remove_directory(directory: Directory, name: str) -> None:
    os.rmdir(os.path.join(directory, name))


def rename(source_directory: Directory, source_name: str, directory: Directory, name: str) -> None:
    """Rename, replacing what is there, in one atomic step."""
    os.replace(os.path.join(source_directory, source_name), os.path.join(directory, name))


def shows_mode(descriptor: int, mode: int) -> bool:
    """Whether an open file has the mode that it was given. Windows knows only whether it may be written to."""
    known = stat.S_IWRITE if sys.platform == "win32" else 0o7777
    return not (os.fstat(descriptor).st_mode ^ mode) & known


def free_space(path: str) -> int:
    """The bytes that this user may still write to the filesystem of ``path``."""
    from shutil import disk_usage

    return disk_usage(path).free


def touch(directory: Directory, name: str) -> None:
    """Set the mtime of a file to now; an empty one is made if there is none, or one that has a second name."""
    path = os.path.join(directory, name)
    with suppress(FileNotFoundError):
        if os.lstat(path).st_nlink <= 1:
            os.utime(path, follow_symlinks=os.utime not in os.supports_follow_symlinks)
            return
        os.unlink(path)
    os.close(create_file(directory, name, 0o644))


def shared_bytes(directory: Directory, name: str) -> int:
    """Bytes of data of a file that it shares with other files: not known here, so 0."""
    return 0


def blocks_of(descriptor: int) -> Blocks | None:
    """What an open file has of the disk; ``None`` where the filesystem does not tell."""
    return None


def volume_of(directory: Directory) -> Volume:
    """The disk that a directory is on."""
    return Volume(str(os.stat(directory).st_dev), can_share=True, keeps_extents=False)


def set_directory(directory: Directory, mode: int, mtime_ns: int | None) -> None:
    """Set the mode, and the mtime (ns) when given."""
    os.chmod(directory, mode)
    if mtime_ns is not None:
        os.utime(directory, ns=(mtime_ns, mtime_ns))


def make_accessible(directory: Directory, name: str) -> None:
    """Give the owner all rights on the directory ``name``, which may be unreadable; never on a symlink's.

    EBUSY as in :func:`open_unmounted`.
    """
    os.chmod(open_unmounted(directory, name), 0o700)


def owners() -> frozenset[int]:
    """The users whose files are believed without reading them: this one and root. Windows calls all of them 0."""
    return frozenset((user_id(), 0))


def user_id() -> int:
    """This user's number. Windows calls all users 0."""
    number: int = getattr(os, "geteuid", int)()
    return number


def identity(descriptor: int | Directory) -> str:
    """What tells an open file or directory from every copy of it: its inode (on Windows, its file index)."""
    return str((os.lstat(descriptor) if isinstance(descriptor, str) else os.fstat(descriptor)).st_ino)


def get_xattrs(descriptor: int | Directory, *, acls: bool = False) -> dict[str, bytes]:
    """Python reads extended attributes on Linux only, so there are none."""
    return {}


def set_xattr(descriptor: int | Directory, name: str, value: bytes | None) -> None:
    """Extended attributes cannot be set: always ENOTSUP."""
    raise _error(errno.ENOTSUP)


if sys.platform == "win32":
    import ctypes
    import msvcrt

    def set_file(descriptor: int, mtime_ns: int, mode: int | None = None) -> None:
        """Set the mtime (ns) of an open file. The mode is what :func:`create_file` made it.

        By handle, for NTFS would set the time again on closing a handle that had written.
        """
        # A FILETIME counts 100 ns from 1601.
        time_of_file = ctypes.c_uint64(mtime_ns // 100 + 116_444_736_000_000_000)
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
        if not ctypes.windll.kernel32.SetFileTime(handle, None, None, ctypes.byref(time_of_file)):
            raise ctypes.WinError()

    def lock(descriptor: int, *, exclusive: bool, wait: bool) -> bool:
        """Lock an open file until it is closed (or its process dies). ``False``: held by another and not
        waiting. Python knows only exclusive locks on Windows, so a shared one is exclusive too.
        """
        # Windows keeps others from reading what is locked, so lock a byte far behind any content.
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            while True:
                try:
                    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                except PermissionError:
                    if not wait:
                        return False
                    time.sleep(0.05)
                else:
                    return True
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)

    def sync_filesystem(directory: Directory) -> None:
        """Only an administrator can flush a whole volume, so this is left to Windows."""

    def sync_file(descriptor: int) -> None:
        """Make the content of an open file durable."""
        os.fsync(descriptor)

    def sync_directory(directory: Directory) -> None:
        """Windows cannot open a directory for this, and journals names by itself."""

    def boot_id() -> str:
        """Another one after every start of the system, which Windows counts."""
        import winreg

        path = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                return str(winreg.QueryValueEx(key, "BootId")[0])
        except OSError:
            return "unknown"

else:
    import fcntl

    def set_file(descriptor: int, mtime_ns: int, mode: int | None = None) -> None:
        """Set the mtime (ns), and the mode when given, of an open file."""
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))

    def lock(descriptor: int, *, exclusive: bool, wait: bool) -> bool:
        """Lock an open file until it is closed (or its process dies). ``False``: held by another and not
        waiting.
        """
        operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(descriptor, operation if wait else operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def sync_filesystem(directory: Directory) -> None:
        """Make everything written to the filesystem of ``directory`` durable, as far as the system can."""
        if sys.platform != "darwin":
            os.sync()
            return
        import ctypes

        # sync(2) of macOS does not wait. SYNC_VOLUME_FULLSYNC (1) goes to the medium and SYNC_VOLUME_WAIT (2)
        # waits for it. Unlike other calls this one returns the number of the error.
        code = ctypes.CDLL(None).sync_volume_np(os.fsencode(directory), 0x01 | 0x02)
        if code:
            raise _error(code, directory)

    def sync_file(descriptor: int) -> None:
        """Make the content of an open file durable. On macOS fsync(2) leaves it in the disk's own memory.

        What does that instead is not known to all filesystems, network ones above all: fcntl(2) of macOS.
        """
        if sys.platform == "darwin":
            try:
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            except OSError as error:
                if error.errno not in UNAVAILABLE:
                    raise
            else:
                return
        os.fsync(descriptor)

    def sync_directory(directory: Directory) -> None:
        """Make the names in ``directory`` durable."""
        descriptor = os.open(directory, os.O_RDONLY | _COMMON)
        try:
            sync_file(descriptor)
        finally:
            os.close(descriptor)

    def boot_id() -> str:
        """Another one after every start of the system: what was written before it may not have reached the disk."""
        if sys.platform != "darwin":
            return "unknown"
        import ctypes

        value = ctypes.create_string_buffer(64)
        size = ctypes.c_size_t(len(value))
        if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", value, ctypes.byref(size), None, 0):
            return "unknown"
        return value.value.decode("ascii")


def clock_offset() -> int:
    """How much the clock shows beyond the time since the system was started: not known here, always 0."""
    return 0


def _error(code: int, path: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), path)


def _is_junction(found: os.stat_result) -> bool:
    """Whether it is Windows' other symlink to a directory, which is a directory by its mode."""
    return getattr(found, "st_reparse_tag", 0) == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)


def _with_errno(error: OSError, path: str) -> OSError:
    """reflink_copy gives the system's error number in its text only; without one it says "not supported"."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number is None:
        return _error(errno.EOPNOTSUPP, path)
    code = int(number[1])
    if sys.platform == "win32":
        # Python itself finds the errno for an error number of Windows.
        return OSError(0, ctypes.FormatError(code), path, code)
    return _error(code, path)


def umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def make_tree(directory: Directory, name: str) -> None:
    """Make an empty directory that :func:`snapshot` can copy: any on macOS. ENOTSUP elsewhere."""
    if sys.platform != "darwin":
        raise _error(errno.EOPNOTSUPP)
    os.mkdir(os.path.join(directory, name))


def snapshot(tree: Directory, directory: Directory, name: str) -> None:
    """Make ``name`` a copy of ``tree`` in one step: clonefile(2) of a directory, on APFS."""
    _call_macos("clonefile", os.fsencode(tree), os.fsencode(os.path.join(directory, name)), 0)


def is_tree(directory: Directory) -> bool:
    """Whether :func:`snapshot` can copy a directory as a whole: on APFS it can copy any."""
    return sys.platform == "darwin"


def trees_below(tree: Directory) -> list[str]:
    """The trees inside a tree that a snapshot does not have: it has all."""
    return []


def set_read_only(tree: Directory, read_only: bool) -> None:
    """Protect a tree from every change: not here, and nobody is given its path."""


def tree_seal(tree: Directory) -> str | None:
    """What any change of a tree changes for good: there is no such thing here, so it is always the same."""
    return ""


def remove_tree(directory: Directory, name: str) -> bool:
    """Remove a whole tree in one step: there is no such step here."""
    return False


def mounts_below(path: str) -> list[str]:
    """What is mounted below ``path``: there is no list here. :func:`open_unmounted` tells of every directory."""
    return []


def source_at(path: str, process: str = "self") -> str | None:
    """The source of what is mounted at ``path``: nobody tells."""
    return None


# sys/stdio.h of macOS
_RENAME_SWAP = 2
_RENAME_EXCL = 4


def exchange(directory: Directory, name: str, other: str) -> None:
    """Let two entries of a directory change places in one atomic step: renamex_np(2) of macOS."""
    _call_macos(
        "renamex_np",
        os.fsencode(os.path.join(directory, name)),
        os.fsencode(os.path.join(directory, other)),
        _RENAME_SWAP,
    )


def rename_new(directory: Directory, name: str, new: str) -> None:
    """Rename an entry of a directory to what must not be there. EEXIST if something is."""
    if sys.platform == "darwin":
        paths = (os.fsencode(os.path.join(directory, each)) for each in (name, new))
        _call_macos("renamex_np", *paths, _RENAME_EXCL)
        return
    if os.path.lexists(os.path.join(directory, new)):
        raise _error(errno.EEXIST, os.path.join(directory, new))
    os.rename(os.path.join(directory, name), os.path.join(directory, new))


def lock_directory(directory: Directory) -> bool:
    """Lock a directory: only open files can be, so always ENOTSUP."""
    raise _error(errno.ENOTSUP)


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the first ``size`` bytes of an open file have data, as (start, end): holes are not looked for here."""
    if size:
        yield 0, size


def has_holes(descriptor: int, size: int) -> bool:
    """Whether there is a hole in the first ``size`` bytes of an open file: not looked for here."""
    return False


def copy_content(source: int, target: int, status: os.stat_result) -> None:
    """Copy an open file into the open empty file ``target``."""
    while piece := os.read(source, 1 << 20):
        while piece:
            piece = piece[os.write(target, piece) :]


def set_times(descriptor: int | Directory, status: os.stat_result) -> None:
    """Give an open file, or a directory, the modification time of another."""
    if isinstance(descriptor, str):
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        set_file(descriptor, status.st_mtime_ns)


def set_owner(descriptor: int | Directory, status: os.stat_result) -> bool:
    """Give a file or directory the owner of another; ``False`` if that cannot be."""
    if sys.platform == "win32":
        return False
    try:
        os.chown(descriptor, status.st_uid, status.st_gid)
    except OSError:
        return False
    return True


def xattrs_of(descriptor: int | Directory) -> list[str]:
    """Python reads extended attributes on Linux only, so there are none."""
    return []


def copy_xattrs(source: int | Directory, target: int | Directory, names: list[str]) -> bool:
    """Copy the named attributes: there are none."""
    return True


def remove_xattrs(descriptor: int | Directory) -> bool:
    """Remove the ACLs of an open file or directory: Python does not see any."""
    return False


def without_acls(mode: int, xattrs: dict[str, bytes]) -> tuple[int, dict[str, bytes]]:
    """The mode and the attributes that a file with these has without its ACLs: Python does not see any."""
    return mode, xattrs


def has_default_acl(directory: Directory) -> bool:
    """Whether what is made in a directory inherits an ACL from it: Python does not see any."""
    return False


def disinherit(directory: Directory, mode: int) -> None:
    """Take away the ACL that a new directory has inherited: Python does not see any."""


def finish_link(
    source: Directory, source_name: str, target: Directory, name: str, status: os.stat_result
) -> tuple[bool, bool]:
    """Give a new symlink or special file the times of another, where the system can."""
    if os.utime in os.supports_follow_symlinks:
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(os.path.join(target, name), ns=times, follow_symlinks=False)
    return True, True


def make_special(directory: Directory, name: str, status: os.stat_result) -> None:
    """Make a fifo like another; sockets and devices are EPERM."""
    if not stat.S_ISFIFO(status.st_mode) or sys.platform == "win32":
        raise _error(errno.EPERM, os.path.join(directory, name))
    os.mkfifo(os.path.join(directory, name), stat.S_IMODE(status.st_mode))


def _call_macos(function: str, *arguments: bytes | int) -> None:
    if sys.platform != "darwin":
        raise _error(errno.EOPNOTSUPP)
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        raise _error(ctypes.get_errno())


def drop_cached(descriptor: int) -> None:
    """Let the next reading of an open file come from the disk: there is no way to ask for that here."""
