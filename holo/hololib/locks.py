"""Locks that the kernel frees when their holder dies, with a message while waiting."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from holo import platform, streams
from holo.errors import HoloError, advice_at_home
from holo.files import refuse_second_name
from holo.owners import is_mine
from holo.platform import lock as lock_descriptor
from holo.walk import make_folders

OnWait = Callable[[str], object]
"""Called once with a message when a lock is held by someone else, before waiting for it."""

say_waiting: OnWait = streams.note
"""The default: one line on stderr."""

_REMOVE = "Remove that name. Nothing was written."

_LOOKS = 5
"""At the name of who holds a lock, before it counts as unsigned."""


class InUseError(Exception):
    """Somebody else holds a lock that was not to be waited for."""


class CannotLockError(HoloError):
    """What is at the place of a lock file cannot be locked."""


@contextmanager
def locked(
    path: str, what: str, *, exclusive: bool, wait: bool = True, on_wait: OnWait = say_waiting
) -> Iterator[int | None]:
    """Hold the lock file ``path`` while the block runs. ``what`` names the locked thing in messages.

    Yields its descriptor: a process that inherits it holds the lock as well. Without ``wait``, raises
    :class:`InUseError` if somebody else holds it.

    A user without write permission can still share the lock. If there is no lock file then, nobody ever could write.

    The holder writes its process id and start time into the file, for the message only: the lock itself is
    the kernel's and never outlives its process. Whoever holds it exclusively may remove the file.
    """
    descriptor = _acquire(path, what, exclusive, on_wait if wait else None)
    if descriptor is None:
        yield None
        return
    try:
        if exclusive:
            _sign(descriptor, f"{os.getpid()} {int(time.time())}")
        yield descriptor
    finally:
        if exclusive:
            _sign(descriptor, "")
        os.close(descriptor)


def _acquire(path: str, what: str, exclusive: bool, on_wait: OnWait | None) -> int | None:
    while True:
        try:
            descriptor = _open(path, exclusive=exclusive)
        except OSError as error:
            hint = _REMOVE if error.errno == errno.EMLINK else advice_at_home(error)
            raise CannotLockError(f"cannot open the lock of {what}, {path}: {error.strerror}", hint) from error
        if descriptor is None:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CannotLockError(f"the lock of {what}, {path}, is not a file", "Remove it.")
            if not lock_descriptor(descriptor, exclusive=exclusive, wait=False):
                if on_wait is None:
                    raise InUseError(what)
                on_wait(f"waiting for {what}: {_holder(descriptor)}")
                lock_descriptor(descriptor, exclusive=exclusive, wait=True)
            if _is_at(descriptor, path):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            raise CannotLockError(f"cannot lock {what}, {path}: {error.strerror}") from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before removed it: whoever comes next locks another file


def _open(path: str, *, exclusive: bool) -> int | None:
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        while True:
            make_folders(os.path.dirname(path))
            # First without O_CREAT: in a sticky folder Linux refuses that for a file of another user, whatever its
            # mode (fs.protected_regular).
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDWR | flags)
                break
            # Another process was faster; or it has removed the folder, which it had made for nothing.
            with suppress(FileExistsError, FileNotFoundError):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
                if sys.platform != "win32" and is_mine(status := os.fstat(descriptor)):
                    # Whatever the umask, others can lock it; on NFS, for themselves alone only if they may write to it.
                    os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | 0o444)
                break
        refuse_second_name(descriptor)
        return descriptor
    except OSError as error:
        # A library of somebody else, or on a read-only filesystem: its lock file can be locked all the same.
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        try:
            return os.open(path, os.O_RDONLY | flags)
        except OSError as second:
            if exclusive or second.errno != errno.ENOENT:
                raise error from None
            return None


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _sign(descriptor: int, text: str) -> None:
    with suppress(OSError):  # opened for reading only, or the disk is full: no reason to fail
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text.encode())


def _holder(descriptor: int) -> str:
    text = b""
    try:
        for _ in range(_LOOKS):
            if text := platform.read_at(descriptor, 64, 0):
                break
            time.sleep(0.01)  # who has just got the lock is about to sign it
        process, since = text.split()
        age = max(0, int(time.time()) - int(since))
        return f"in use by process {int(process)} for {age} s"
    except (OSError, ValueError):
        return "in use by another process"
