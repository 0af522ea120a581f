"""Locks that the kernel frees when their holder dies, with a message while waiting."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holo.errors import HoloError
from holo.platform import lock as lock_descriptor

OnWait = Callable[[str], object]
"""Called once with a message when a lock is held by someone else, before waiting for it."""


def say_waiting(message: str) -> None:
    """The default: one line on stderr."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


@contextmanager
def locked(path: str, what: str, *, exclusive: bool, on_wait: OnWait = say_waiting) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs. ``what`` names the locked thing in messages.

    The holder writes its process id and start time into the file, for the message only: the lock itself is
    the kernel's and never outlives its process.
    """
    no_symlink = getattr(os, "O_NOFOLLOW", 0)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | no_symlink, 0o666)
    except OSError as error:
        # A library that only others may change can be shared with them all the same.
        if exclusive or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not os.access(path, os.R_OK):
            raise HoloError(f"cannot open the lock of {what}, {path}: {error.strerror}") from error
        descriptor = os.open(path, os.O_RDONLY | no_symlink)
    try:
        if not lock_descriptor(descriptor, exclusive=exclusive, wait=False):
            on_wait(f"waiting for {what}: {_holder(descriptor)}")
            lock_descriptor(descriptor, exclusive=exclusive, wait=True)
        if exclusive:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {int(time.time())}".encode())
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        process, since = os.read(descriptor, 64).split()
        age = max(0, int(time.time()) - int(since))
        return f"in use by process {int(process)} for {age} s"
    except (OSError, ValueError):
        return "in use by another process"
