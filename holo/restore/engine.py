"""Carry out a plan: remove, make directories, fill them in parallel, set the last attributes. Never decides."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holo import parallel, platform
from holo.catalog import FileRow, SymlinkRow
from holo.errors import HoloError, IntegrityError
from holo.platform import Directory
from holo.remove import remove
from holo.restore.materialize import Materializer, set_xattrs
from holo.restore.plan import Fill, Plan
from holo.restore.report import Tally
from holo.restore.strategy import Way
from holo.walk import Walker

_TASK_COST = 4 << 20
_FILE_COST = 24 << 10
"""What creating a file costs besides its bytes, in bytes that take as long to copy."""

OnProgress = Callable[[int, int], object]
"""Called with (files made, files to make)."""


@dataclass(frozen=True)
class _Piece:
    """Some or all of one :class:`Fill`."""

    path: str
    files: list[FileRow]
    symlinks: list[SymlinkRow]
    finish: Fill | None
    """set this directory's mode and mtime when done"""


class Engine:
    """Works below one open root and nowhere else; ``shown`` is its path for messages."""

    def __init__(
        self, root: Directory, shown: str, materializer: Materializer, xattrs: dict[str, dict[str, bytes]], workers: int
    ) -> None:
        self._root = root
        self._shown = shown
        self._materializer = materializer
        self._xattrs = xattrs
        self._workers = workers

    def execute(self, plan: Plan, on_progress: OnProgress | None = None) -> Tally:
        """Carry out the plan. Raises :class:`HoloError` naming the path; what was done stays done."""
        tally = Tally()
        self._remove(plan, tally)
        self._make_directories(plan)
        late = self._fill(plan, tally, on_progress)
        self._relink(plan, tally)
        self._finish_late(late)
        return tally

    def _remove(self, plan: Plan, tally: Tally) -> None:
        walker = Walker(self._root)
        try:
            for removal in plan.removals:
                with self._explained(removal.path):
                    directory = _writable(walker.open(removal.path))
                for name in removal.replaced:
                    with self._explained(removal.path, name):
                        remove(directory, name)
                for name in removal.extra:
                    with self._explained(removal.path, name):
                        tally.removed += remove(directory, name)
        finally:
            walker.close()

    def _make_directories(self, plan: Plan) -> None:
        walker = Walker(self._root)
        try:
            for path in plan.directories:
                parent, _, name = path.rpartition("/")
                with self._explained(path):
                    directory = walker.open(parent)
                    try:
                        platform.make_directory(directory, name, 0o700)
                    except PermissionError:
                        platform.make_directory(_writable(directory), name, 0o700)
        finally:
            walker.close()

    def _fill(self, plan: Plan, tally: Tally, on_progress: OnProgress | None) -> list[Fill]:
        """Make files and symlinks. Returns the directories whose mode and mtime are still to be set."""
        tasks, late = _tasks(plan)
        total = sum(len(fill.files) for fill in plan.fills)
        if not total:
            tasks = [[piece for task in tasks for piece in task]]  # not worth a fork
        for made in parallel.run(self._work, tasks, self._workers, self._materializer.in_worker):
            tally.add(made)
            if on_progress is not None:
                on_progress(tally.files, total)
        return late

    def _work(self, pieces: list[_Piece]) -> Tally:
        walker = Walker(self._root)
        tally = Tally()
        make = self._materializer.make
        try:
            for piece in pieces:
                with self._explained(piece.path):
                    directory = _writable(walker.open(piece.path))
                base = piece.path + "/" if piece.path else ""
                for row in piece.files:
                    try:
                        make(directory, base + row[0], row, tally)
                    except OSError as error:
                        raise self._explain(error, base + row[0]) from error
                    except IntegrityError as error:
                        path = os.path.join(self._shown, base + row[0])
                        raise IntegrityError(f"cannot restore {path}: {error.message}", error.hint) from error
                for name, target, mtime in piece.symlinks:
                    with self._explained(base + name):
                        platform.make_symlink(target, directory, name, mtime)
                if piece.finish is not None:
                    with self._explained(piece.path):
                        self._finish(directory, piece.finish)
        finally:
            walker.close()
        return tally

    def _relink(self, plan: Plan, tally: Tally) -> None:
        if not plan.relinks:
            return
        source, target = Walker(self._root), Walker(self._root)
        try:
            for leader, names in plan.relinks:
                leader_path, _, leader_name = leader.rpartition("/")
                for path in names:
                    parent, _, name = path.rpartition("/")
                    with self._explained(path):
                        platform.link(source.open(leader_path), leader_name, _writable(target.open(parent)), name)
                    # One inode with its leader, so it counts as what the leader is.
                    size = plan.link_sizes[leader]
                    if leader in plan.private or self._materializer.used is Way.COPY:
                        tally.copied += 1
                        tally.written_bytes += size
                    else:
                        tally.reflinked += 1
                        tally.shared_bytes += size
        finally:
            source.close()
            target.close()

    def _finish_late(self, late: list[Fill]) -> None:
        walker = Walker(self._root)
        try:
            for fill in reversed(late):
                with self._explained(fill.path):
                    self._finish(walker.open(fill.path), fill)
        finally:
            walker.close()

    def _finish(self, directory: Directory, fill: Fill) -> None:
        set_xattrs(directory, self._xattrs.get(fill.path, {}))
        platform.set_directory(directory, fill.mode, fill.mtime_ns)

    @contextmanager
    def _explained(self, *names: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explain(error, "/".join(filter(None, names))) from error

    def _explain(self, error: OSError, path: str) -> HoloError:
        hint = "The space is marked as unfinished; run `holo restore` again when the cause is gone."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = f"Free some space on the filesystem of {self._shown} or of the library. {hint}"
        return HoloError(f"cannot restore {os.path.join(self._shown, path)}: {error.strerror}", hint)


def _writable(directory: Directory) -> Directory:
    mode = platform.status(directory, "").st_mode
    if mode & 0o700 != 0o700:
        platform.set_directory(directory, mode & 0o7777 | 0o700, None)
    return directory


def _tasks(plan: Plan) -> tuple[list[list[_Piece]], list[Fill]]:
    """Cut the fills into tasks of about the same cost, neighbours together, the costliest first.

    Directories to be finished late, in order: those something is still linked into, those cut over several
    tasks, those that nobody could enter any more, and the root, whose ctime ends the restore.
    """
    linked_into = {name.rpartition("/")[0] for _, names in plan.relinks for name in names}
    tasks: list[tuple[int, list[_Piece]]] = []
    late: list[Fill] = []
    task: list[_Piece] = []
    cost = 0
    for fill in plan.fills:
        rows: list[FileRow] = []
        cut = False
        for row in fill.files:
            rows.append(row)
            cost += row[2] + _FILE_COST
            if cost >= _TASK_COST:
                cut = True
                tasks.append((cost, [*task, _Piece(fill.path, rows, [], None)]))
                task, rows, cost = [], [], 0
        if not fill.path or cut or fill.path in linked_into or fill.mode & 0o500 != 0o500:
            late.append(fill)
            finish = None
        else:
            finish = fill
        task.append(_Piece(fill.path, rows, fill.symlinks, finish))
        cost += _FILE_COST
    tasks.append((cost, task))
    tasks.sort(key=lambda item: -item[0])
    return [task for _, task in tasks], late
