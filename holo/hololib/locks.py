"""Locks that the kernel frees when their holder dies, with a message while waiting."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from holo.errors import HoloError, printable
from holo.platform import lock as lock_descriptor

OnWait = Callable[[str], object]
"""Called once with a message when a lock is held by someone else, before waiting for it."""


def say_waiting(message: str) -> None:
    """The default: one line on stderr."""
    sys.stderr.write(printable(message) + "\n")
    sys.stderr.flush()


@contextmanager
def locked(path: str, what: str, *, exclusive: bool, on_wait: OnWait = say_waiting) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs. ``what`` names the locked thing in messages.

    The holder writes its process id and start time into the file, for the message only: the lock itself is
    the kernel's and never outlives its process.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = _open(path)
    except OSError as error:
        raise HoloError(f"cannot open the lock of {what}, {path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise HoloError(f"the lock of {what}, {path}, is not a file", "Remove it.")
        if not lock_descriptor(descriptor, exclusive=exclusive, wait=False):
            on_wait(f"waiting for {what}: {_holder(descriptor)}")
            lock_descriptor(descriptor, exclusive=exclusive, wait=True)
        if exclusive:
            with suppress(OSError):  # another user's, which we may only read; or a full disk
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} {int(time.time())}".encode())
        yield
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        # First without O_CREAT: in a sticky folder Linux refuses that for a file of another user, whatever its
        # mode (fs.protected_regular).
        try:
            return os.open(path, os.O_RDWR | flags)
        except FileNotFoundError:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
            if os.name == "posix" and os.fstat(descriptor).st_uid == os.geteuid():
                os.fchmod(descriptor, 0o644)  # whatever the umask, who shares the library can lock it
            return descriptor
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        try:
            return os.open(path, os.O_RDONLY | flags)  # which is enough to lock it
        except FileNotFoundError:
            raise error from None


def _holder(descriptor: int) -> str:
    try:
        process, since = os.read(descriptor, 64).split()
        age = max(0, int(time.time()) - int(since))
        return f"in use by process {int(process)} for {age} s"
    except (OSError, ValueError):
        return "in use by another process"
