"""Cut a plan into tasks for workers. Pure.

A task is a stretch of the directories in depth-first order, so one open leads from each to the next, and a
worker can make a directory, fill it, make and fill everything below it, and only then give it its mode and
mtime, all with one descriptor. What belongs to several tasks at once (the directories above the first of a
stretch) is made before all of them and finished after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from holo.catalog import FileRow, SymlinkRow
from holo.checkout.plan import Fill, Plan

_TASKS_PER_WORKER = 12
"""Enough that workers end together; each costs a walk from the root."""

_FILE_COST = 24 << 10
"""What creating a file costs besides its bytes, in bytes that take as long to copy."""


class Piece(NamedTuple):
    """Some or all of one :class:`~holo.checkout.plan.Fill`."""

    path: str
    make: bool
    """make the directory first"""
    files: list[FileRow]
    symlinks: list[SymlinkRow]
    finish: Fill | None
    """give the directory this mode and mtime when everything below it is there"""


class Tasks(NamedTuple):
    """The work, in the order of the fields."""

    first: list[str]
    """directories to be made before all tasks, parents first"""
    parallel: list[list[Piece]]
    """each for one worker, the costliest first"""
    last: list[Fill]
    """directories to be finished after all tasks, parents first; the root among them, as the first"""


def cut(plan: Plan, workers: int, *, copies: bool) -> Tasks:
    """Cut the plan into tasks of about the same cost. ``copies``: a file's bytes cost time, not just its making."""

    total = sum(_cost(fill.files, copies) for fill in plan.fills)
    stretches, shared = _stretches(plan, copies, max(_FILE_COST * 100, total // (workers * _TASKS_PER_WORKER)))
    for _, names in plan.relinks:  # links are put there after the tasks
        for name in names:
            shared.update(_above(name))
    make = set(plan.directories)
    parallel = []
    stretches.sort(key=lambda stretch: -stretch[0])
    for _, stretch in stretches:
        pieces = []
        for fill, files, symlinks in stretch:
            own = fill.path not in shared
            pieces.append(Piece(fill.path, own and fill.path in make, files, symlinks, fill if own else None))
        parallel.append(pieces)
    return Tasks(
        first=[path for path in plan.directories if path in shared],
        parallel=parallel,
        last=[fill for fill in plan.fills if fill.path in shared],
    )


def _above(path: str) -> Iterator[str]:
    """The directories above, from the nearest to the root."""
    while path:
        path = path.rpartition("/")[0]
        yield path


_Stretch = list[tuple[Fill, list[FileRow], list[SymlinkRow]]]


def _cost(files: list[FileRow], copies: bool) -> int:
    return _FILE_COST * len(files) + (sum(row[2] for row in files) if copies else 0)


def _stretches(plan: Plan, copies: bool, most: int) -> tuple[list[tuple[int, _Stretch]], set[str]]:
    """The fills as stretches with their costs, and the directories that are not one stretch's alone."""
    stretches: list[tuple[int, _Stretch]] = []
    shared = {""}
    stretch: _Stretch = []
    cost = 0
    for fill in plan.fills:
        if not stretch:
            shared.update(_above(fill.path))
        rows = fill.files
        more = _cost(rows, copies)
        if cost + more >= most:  # the directory is to be divided
            rows, more = [], 0
            for row in fill.files:
                rows.append(row)
                more += _cost([row], copies)
                if cost + more >= most:
                    stretches.append((cost + more, [*stretch, (fill, rows, [])]))
                    stretch, rows, cost, more = [], [], 0, 0
                    shared.update([fill.path, *_above(fill.path)])
        stretch.append((fill, rows, fill.symlinks))
        cost += more + _FILE_COST
    if stretch:
        stretches.append((cost, stretch))
    return stretches, shared
