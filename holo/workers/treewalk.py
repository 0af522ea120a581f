"""Visit all directories of a tree with all workers, while the tree is still being found.

A list of the tree beforehand would cost as much as a tenth of the cloning. So every worker visits, depth first, what
it has found itself; who has nothing left says so by a byte in a pipe, and who sees the byte and has more than one
directory gives away the one it found first, which is the highest and so the largest as a rule. When there are as
many bytes as workers, nobody has anything, and nothing is on its way.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol, TypeVar

from holo.workers import pool

Result_co = TypeVar("Result_co", covariant=True)

_WORTH_A_FORK = 200
"""Entries from which on workers are faster than doing it here: two forks cost some 5 ms."""

_END = b"\0"
"""What no path can be."""

_LONGEST = 4096
"""Bytes that a pipe passes on in one piece (PIPE_BUF of Linux); a longer path is not given away."""


class Visitor(Protocol[Result_co]):
    """What is done with every directory."""

    seen: int
    """how many entries were in the directories visited"""

    def visit(self, path: str) -> list[str]:
        """Do what is to be done in the directory at ``path`` ("" is the root). Returns the paths of those in it."""

    def result(self) -> Result_co:
        """What came of it since the last call, which is the end of a stretch: nothing is held open after it."""

    def in_worker(self) -> None:
        """Run first in a process of our own."""


def visit_all(visitor: Visitor[Result_co], workers: int) -> Iterator[Result_co]:
    """Visit every directory of a tree, each after the one it is in. Yields a result of this process and each worker.

    A process that must not be forked does it alone.
    """
    forks = pool.forks(workers)
    found = [""]
    while found and not (forks and visitor.seen >= _WORTH_A_FORK and len(found) > 1):
        found += visitor.visit(found.pop())
    yield visitor.result()
    if found:
        yield from _visit_in_workers(visitor, found, workers)


def _visit_in_workers(visitor: Visitor[Result_co], found: list[str], workers: int) -> Iterator[Result_co]:
    crew = _Crew(workers)

    def work(number: int) -> Result_co:
        mine = found if number == 0 else []
        for path in crew.directories(mine):
            mine += visitor.visit(path)
        return visitor.result()

    def in_worker() -> None:
        crew.in_worker()
        visitor.in_worker()

    try:
        # As many tasks as workers: none ends before all have begun, so each worker has one.
        yield from pool.run(work, range(workers), workers, in_worker)
    finally:
        crew.close()


class _Crew:
    """What the workers share, made before they are forked."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._idle, self._announce_idle = os.pipe()
        os.set_blocking(self._idle, False)
        self._receiver, self._sender = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)  # what is one write is one read, pipe(2)
        os.set_blocking(self._receiver, False)  # several wait for the same, and one gets it
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
        """The next directory to visit, taken from ``found``, to which the caller adds; then those of others."""
        parent = os.getppid()
        while True:
            while found:
                if len(found) > 1:
                    self._share(found)
                yield found.pop()
                if os.getppid() != parent:
                    os._exit(1)  # it was killed
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
        except BlockingIOError:  # everybody is busy
            return
        os.write(self._sender, path)
        del found[0]

    def _receive(self) -> str | None:
        """Wait for a directory of another's; ``None`` when there are no more."""
        os.write(self._announce_idle, b".")
        if self._count_idle() == self._workers and self._claim_termination():
            for _ in range(self._workers):
                os.write(self._sender, _END)
        while True:
            if any(descriptor == self._alive for descriptor, _ in self._waiting.poll()):
                os._exit(1)
            with suppress(BlockingIOError):  # another was faster
                message = os.read(self._receiver, _LONGEST)
                return None if message == _END else os.fsdecode(message)

    def _claim_termination(self) -> bool:
        """Whether it is for us to say that this is the end: several may see at once that nobody has anything.

        A pipe holds 16 pieces, and those of more than one would be too many for as many readers as there are.
        """
        try:
            return len(os.read(self._idle, self._workers)) == self._workers
        except BlockingIOError:
            return False

    def _count_idle(self) -> int:
        import fcntl  # not everywhere, and nor is fork
        import termios

        count = bytearray(4)
        fcntl.ioctl(self._idle, termios.FIONREAD, count)
        return int.from_bytes(count, sys.byteorder)
