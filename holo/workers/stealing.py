"""Share the directories of a tree among forked workers while they find them.

Each worker visits the directories that it has found itself, depth first. A worker that has none left announces that it
is idle by a byte in a pipe. A worker that takes the byte gives away one directory: the one it found first, which is
nearest to the root and so the largest as a rule. When the pipe holds as many bytes as there are workers, all are idle
and no directory is on its way: the walk is over.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress

assert sys.platform == "linux"  # which has pipes of packets

_END = b"\0"
"""The message that ends the walk of one worker. No path is that."""

_LONGEST = 4096
"""Bytes that a pipe passes on in one piece (PIPE_BUF of Linux). A longer path is not given away."""


class WorkStealingPool:
    """The pipes of the workers, made before they are forked."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._idle, self._announce_idle = os.pipe()
        os.set_blocking(self._idle, False)
        self._receiver, self._sender = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)  # one read gets one write, pipe(2)
        os.set_blocking(self._receiver, False)  # several wait for the same message, and one gets it
        self._alive, self._parent = os.pipe()  # nothing is ever written: it breaks when the parent is gone

    def close(self) -> None:
        for pipe in ((self._idle, self._announce_idle), (self._receiver, self._sender), (self._alive, self._parent)):
            for descriptor in pipe:
                os.close(descriptor)

    def in_worker(self) -> None:
        os.close(self._parent)
        self._waiting = select.poll()
        self._waiting.register(self._alive, 0)
        self._waiting.register(self._receiver, select.POLLIN)

    def directories(self, found: list[str]) -> Iterator[str]:
        """Yield directories from ``found``, to which the caller adds new ones, then those that others give away."""
        parent = os.getppid()
        while True:
            while found:
                if len(found) > 1:
                    self._share(found)
                yield found.pop()
                if os.getppid() != parent:
                    os._exit(1)  # the parent was killed
            path = self._receive()
            if path is None:
                return
            found.append(path)

    def _share(self, found: list[str]) -> None:
        path = os.fsencode(found[0])
        if not 0 < len(path) <= _LONGEST:
            return
        try:
            os.read(self._idle, 1)
        except BlockingIOError:  # no worker is idle
            return
        os.write(self._sender, path)
        del found[0]

    def _receive(self) -> str | None:
        """Wait for a directory from another worker; ``None`` when the walk is over."""
        os.write(self._announce_idle, b".")
        if self._count_idle() == self._workers and self._claim_termination():
            for _ in range(self._workers):
                os.write(self._sender, _END)
        while True:
            if any(descriptor == self._alive for descriptor, _ in self._waiting.poll()):
                os._exit(1)
            with suppress(BlockingIOError):  # another worker was faster
                message = os.read(self._receiver, _LONGEST)
                return None if message == _END else os.fsdecode(message)

    def _claim_termination(self) -> bool:
        """Whether this worker is the one to tell all that the walk is over. Several may see at once that all are idle.

        If more than one told them, there would be more messages than readers, and a pipe holds 16 messages.
        """
        try:
            return len(os.read(self._idle, self._workers)) == self._workers
        except BlockingIOError:
            return False

    def _count_idle(self) -> int:
        count = bytearray(4)
        fcntl.ioctl(self._idle, termios.FIONREAD, count)
        return int.from_bytes(count, sys.byteorder)
