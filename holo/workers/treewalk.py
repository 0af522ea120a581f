"""Walk a tree with all workers, which share the directories while they find them (:mod:`holo.workers.stealing`).

Listing the tree beforehand would cost a tenth of a clone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Protocol, TypeVar

from holo.workers import pool

Result_co = TypeVar("Result_co", covariant=True)

_WORTH_A_FORK = 200
"""Entries from which on workers are faster than this process alone: two forks cost some 5 ms."""


class Visitor(Protocol[Result_co]):
    """Does something in every directory."""

    seen: int
    """how many entries were in the directories visited"""

    def visit(self, path: str) -> list[str]:
        """Visit the directory at ``path`` ("" is the root). Returns the paths of the directories in it."""

    def result(self) -> Result_co:
        """Close everything, and return the result of the visits since the last call."""

    def in_worker(self) -> None:
        """Called first in each forked worker."""


def visit_all(visitor: Visitor[Result_co], workers: int) -> Iterator[Result_co]:
    """Visit every directory of a tree, each after its parent. Yields a result of this process and of each worker.

    A process that must not be forked visits them all by itself.
    """
    forks = pool.forks(workers)
    found = [""]
    while found and not (forks and visitor.seen >= _WORTH_A_FORK and len(found) > 1):
        found += visitor.visit(found.pop())
    yield visitor.result()
    if found and sys.platform == "linux":
        yield from _visit_in_workers(visitor, found, workers)


if sys.platform == "linux":
    from holo.workers.stealing import WorkStealingPool

    def _visit_in_workers(visitor: Visitor[Result_co], found: list[str], workers: int) -> Iterator[Result_co]:
        stealing = WorkStealingPool(workers)

        def work(number: int) -> Result_co:
            mine = found if number == 0 else []
            for path in stealing.directories(mine):
                mine += visitor.visit(path)
            return visitor.result()

        def in_worker() -> None:
            stealing.in_worker()
            visitor.in_worker()

        try:
            # As many tasks as workers: none ends before all have begun, so each worker has one.
            yield from pool.run(work, range(workers), workers, in_worker)
        finally:
            stealing.close()
