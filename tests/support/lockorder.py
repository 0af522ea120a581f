"""The order in which holo takes locks (docs/internals.md, "Locks"), checked in the commands that tests fork."""

from __future__ import annotations

import os
from typing import NamedTuple

from holo.hololib import locks

WORKTREE, RUN, SPACE, VIEW, BUILD, PENDING, LIBRARY, LAST, ANY = range(9)
"""``ANY``: of what many share, which is taken alone only if it is free."""


_BY_FOLDER = {"trees": ANY, "stubs": ANY, "layers": ANY, "runs": RUN, "builds": BUILD}
_BY_NAME = {".filling.lock": RUN, "pending.lock": PENDING}


class Held(NamedTuple):
    """A lock that this process took, and perhaps let go since."""

    path: str
    rank: int
    exclusive: bool
    descriptor: int
    inode: tuple[int, int]
    process: int

    def is_held(self) -> bool:
        try:
            status = os.fstat(self.descriptor)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.inode and self.process == os.getpid()


def rank_of(path: str) -> int:
    """The place of a lock in the order, by the path of its file."""
    above, name = os.path.split(path)
    folder = os.path.basename(above)
    if name.startswith("holo-"):
        return WORKTREE
    if folder == ".spaces":
        return ANY if name.endswith(".cover") else SPACE
    if name == "lock":
        is_of_view = os.path.basename(os.path.dirname(os.path.dirname(above))) == "spaces"
        return VIEW if is_of_view else RUN if folder.startswith("bench-") else LIBRARY
    return _BY_FOLDER.get(folder, _BY_NAME.get(name, LAST))


def refuse(path: str, held: list[Held], *, exclusive: bool) -> None:
    """Raise :class:`AssertionError` if a process that holds some locks must not wait for another."""
    rank = rank_of(path)
    alone = [lock for lock in held if lock.exclusive]
    if rank is ANY:
        wrong = exclusive or any(lock.rank in (ANY, LAST) for lock in alone)
    else:
        wrong = any(lock.rank is ANY for lock in alone) or any(
            lock.rank >= rank and not (lock.rank == rank == SPACE and not (exclusive or lock.exclusive))
            for lock in held
            if lock.rank is not ANY
        )
    others = [(lock.path, "exclusive" if lock.exclusive else "shared") for lock in held]
    assert not wrong, f"waits for {path} ({exclusive=}) and holds {others}: see the order in docs/internals.md"


def watch() -> None:
    """From now on, check every lock that this process waits for. It must be the only thread that takes some."""
    acquire, held = locks._acquire, list[Held]()

    def checked(path: str, what: str, exclusive: bool, on_wait: locks.OnWait | None) -> int | None:
        held[:] = [lock for lock in held if lock.is_held()]
        if on_wait is not None:
            refuse(path, held, exclusive=exclusive)
        descriptor = acquire(path, what, exclusive, on_wait)
        if descriptor is not None:
            status = os.fstat(descriptor)
            inode = status.st_dev, status.st_ino
            held.append(Held(path, rank_of(path), exclusive, descriptor, inode, os.getpid()))
        return descriptor

    locks._acquire = checked
