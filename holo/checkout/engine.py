"""Carry out a plan: remove, make directories, fill them in parallel, set the last attributes. Never decides."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holo import platform
from holo.checkout.attributes import set_xattrs
from holo.checkout.materialize import Materializer
from holo.checkout.plan import Fill, Plan
from holo.checkout.strategy import Method
from holo.checkout.tally import Tally
from holo.checkout.tasks import Piece, cut
from holo.errors import HoloError, IntegrityError, is_full
from holo.owners import is_mine
from holo.platform import Directory
from holo.remove import remove
from holo.walk import Walker
from holo.workers import pool
from holo.workers.progress import tell

_WORTH_A_FORK = 200
"""Files from which on workers are faster than doing it here: two forks cost some 5 ms."""

OnProgress = Callable[[int, int], object]
"""Called with (files made, files to make)."""


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
        tasks = cut(plan, self._workers, copies=self._materializer.copies)
        self._open_up(plan)
        self._remove(plan, tally)
        self._make_directories(tasks.first)
        self._fill(plan, tasks.parallel, tally, on_progress)
        self._relink(plan, tally)
        self._finish_last(tasks.last, tally)
        tally.modes |= self._materializer.modes
        tally.unquoted += self._materializer.unquoted
        return tally

    def _open_up(self, plan: Plan) -> None:
        """Let the directories that are there be written to, and nothing that is made in them inherit an ACL."""
        made = set(plan.directories)
        with Walker(self._root, changes=True) as walker:
            for fill in plan.fills:
                if fill.path not in made:
                    with self._explained(fill.path):
                        directory = walker.open(fill.path)
                        platform.remove_xattrs(directory)
                        mode = platform.status(directory, "").st_mode
                        if mode & 0o700 != 0o700:
                            platform.set_directory(directory, mode & 0o7777 | 0o700, None)

    def _remove(self, plan: Plan, tally: Tally) -> None:
        with Walker(self._root, changes=True) as walker:
            for removal in plan.removals:
                with self._explained(removal.path):
                    directory = walker.open(removal.path)
                for name in removal.replaced:
                    self._remove_entry(directory, removal.path, name)
                for name in removal.extra:
                    tally.removed += self._remove_entry(directory, removal.path, name)

    def _remove_entry(self, directory: Directory, folder: str, name: str) -> int:
        trail: list[str] = []
        try:
            return remove(directory, name, trail)
        except OSError as error:
            raise self._explain(error, "/".join(filter(None, (folder, *trail)))) from error

    def _make_directories(self, paths: list[str]) -> None:
        with Walker(self._root, changes=True) as walker:
            for path in paths:
                with self._explained(path):
                    _make_directory(walker, path)

    def _fill(self, plan: Plan, tasks: list[list[Piece]], tally: Tally, on_progress: OnProgress | None) -> None:
        total = sum(len(fill.files) for fill in plan.fills)
        if total < _WORTH_A_FORK:
            tasks = [[piece for task in tasks for piece in task]]
        for made in pool.run(self._work, tasks, self._workers):
            tally.add(made)
            if on_progress is not None:
                tell(on_progress, tally.files, total, tally.shared_bytes + tally.written_bytes)

    def _work(self, pieces: list[Piece]) -> Tally:
        tally = Tally()
        unfinished = {piece.path: piece for piece in pieces if piece.finish is not None}

        def leave(path: str, directory: Directory) -> None:
            piece = unfinished.pop(path, None)
            if piece is not None and piece.finish is not None:
                with self._explained(path):
                    self._finish(directory, piece.finish, tally, is_new=piece.make)

        walker = Walker(self._root, leave, changes=True)
        try:
            for piece in pieces:
                path = piece.path
                with self._explained(path):
                    if piece.make:
                        _make_directory(walker, path)
                    directory = walker.open(path)
                self._make_files(directory, path + "/" if path else "", piece, tally)
            walker.close()
        except BaseException:
            unfinished.clear()  # nothing more is to be done, only closed
            walker.close()
            raise
        tally.modes = self._materializer.modes
        return tally

    def _make_files(self, directory: Directory, base: str, piece: Piece, tally: Tally) -> None:
        make = self._materializer.make
        name = ""
        try:
            for row in piece.files:
                name = row[0]
                make(directory, base, row, tally)
            for name, target, mtime in piece.symlinks:
                platform.make_symlink(target, directory, name, mtime)
        except OSError as error:
            raise self._explain(error, base + name) from error
        except IntegrityError as error:
            path = os.path.join(self._shown, base + name)
            raise IntegrityError(f"cannot restore {path}: {error.message}", error.hint) from error

    def _relink(self, plan: Plan, tally: Tally) -> None:
        if not plan.relinks:
            return
        with Walker(self._root, changes=True) as source, Walker(self._root, changes=True) as target:
            for leader, names in plan.relinks:
                row = plan.linked[leader]
                linked = leader
                for path in names:
                    parent, _, name = path.rpartition("/")
                    with self._explained(path):
                        directory = target.open(parent)
                        if _link(source, linked, directory, name):
                            self._count_link(leader, row[2], plan, tally)
                        else:
                            self._materializer.make(directory, path.removesuffix(name), (name, *row[1:]), tally)
                            linked = path  # from here on the names are those of another file
                            tally.divided[leader] = len(names) + 1

    def _count_link(self, leader: str, size: int, plan: Plan, tally: Tally) -> None:
        """One inode with its leader, so it counts as what the leader is."""
        if leader in plan.private or self._materializer.used is Method.COPY:
            tally.copied += 1
            tally.written_bytes += size
        else:
            tally.reflinked += 1
            tally.shared_bytes += size

    def _finish_last(self, fills: list[Fill], tally: Tally) -> None:
        """Children before parents: a finished directory may be one that its owner cannot enter."""
        with Walker(self._root, changes=True) as walker:
            for fill in reversed(fills):
                with self._explained(fill.path):
                    self._finish(walker.open(fill.path), fill, tally, is_new=False)

    def _finish(self, directory: Directory, fill: Fill, tally: Tally, *, is_new: bool) -> None:
        wanted = self._xattrs.get(fill.path)
        if not is_new and not is_mine(platform.status(directory, "")):
            platform.set_owner(directory, platform.status(self._root, ""))
        if wanted or not is_new:
            tally.lost += [(fill.path, name) for name in set_xattrs(directory, wanted or {})]
        platform.set_directory(directory, fill.mode, fill.mtime_ns)
        tally.directories[fill.path] = platform.status(directory, "").st_ino
        modes = self._materializer.modes
        if stat.S_IFDIR | fill.mode not in modes:
            modes[stat.S_IFDIR | fill.mode] = platform.status(directory, "").st_mode

    @contextmanager
    def _explained(self, *names: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explain(error, "/".join(filter(None, names))) from error

    def _explain(self, error: OSError, path: str) -> HoloError:
        hint = f"Free some space on the filesystem of {self._shown} or of the library." if is_full(error) else None
        return HoloError(f"cannot restore {os.path.join(self._shown, path)}: {error.strerror}", hint)


def _link(source: Walker, path: str, directory: Directory, name: str) -> bool:
    """Make ``name`` a hardlink of the file at ``path``; ``False`` if that has all the names it can have."""
    parent, _, last = path.rpartition("/")
    try:
        platform.link(source.open(parent), last, directory, name)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        return False
    return True


def _make_directory(walker: Walker, path: str) -> None:
    parent, _, name = path.rpartition("/")
    platform.make_directory(walker.open(parent), name, 0o700)
