"""Search all files of a tree for the roots that move, and its symlinks for those that lead there, with all workers."""

from __future__ import annotations

import os

from holo import platform
from holo.catalog import Relocation
from holo.cloning.report import NOTHING_MADE
from holo.cloning.roots import Roots
from holo.errors import HoloError, os_errors_as
from holo.platform import Directory
from holo.relocation.foreign import may_point_outside
from holo.walk import Walker
from holo.workers.results import Results
from holo.workers.treewalk import visit_all


class Found(Results):
    """The results of one worker, or of all."""

    def __init__(self) -> None:
        self.places: dict[str, Relocation] = {}
        """the occurrences of the roots, by file"""
        self.links: list[str] = []
        """symlinks that lead to a root by its path"""
        self.links_elsewhere: list[tuple[str, str]] = []
        """symlinks that may lead out of the tree: (path, target)"""
        self.files = 0
        self.directories = 0
        self.symlinks = 0
        self.bytes = 0
        self.changed = 0
        """entries, directories among them, that changed since the time from which files are searched"""
        self.warnings: list[str] = []


def search(root: Directory, shown: str, roots: Roots, since: int, workers: int) -> Found:
    """Inspect all entries below ``root`` that changed at the time ``since`` (ns; 0: all entries) or later.

    ``shown``: its path, for messages. Raises :class:`HoloError` naming a path that cannot be read.
    """
    with os_errors_as(f"cannot read {shown}", left=NOTHING_MADE):
        again = platform.open_child(root, ".")  # Btrfs lists a directory as it was when it was opened
    found, visitor = Found(), _Search(again, shown, roots, since)
    try:
        for part in visit_all(visitor, workers):
            found.add(part)
    finally:
        visitor.result()
        platform.close_directory(again)
    return found


class _Search:
    """Inspects all files of a tree. A visitor of :mod:`holo.workers.treewalk`."""

    def __init__(self, root: Directory, shown: str, roots: Roots, since: int) -> None:
        """Only entries that changed from ``since`` on (ns) are read."""
        self._walker = Walker(root)
        self._shown = shown
        self._roots = roots
        self._since = since
        self._found = Found()
        self.seen = 0

    def in_worker(self) -> None:
        pass

    def result(self) -> Found:
        self._walker.close()
        found, self._found = self._found, Found()
        return found

    def visit(self, path: str) -> list[str]:
        base = path + "/" if path else ""
        name = ""
        below = []
        found = self._found
        try:
            directory = self._walker.open(path)
            found.changed += platform.status(directory, "").st_ctime_ns >= self._since
            with platform.listing(directory) as entries:
                for entry in entries:
                    name = entry.name
                    self.seen += 1
                    if self._since and not entry.is_dir(follow_symlinks=False):
                        if entry.stat(follow_symlinks=False).st_ctime_ns < self._since:
                            continue
                        found.changed += 1
                    if entry.is_file(follow_symlinks=False):
                        self._file(directory, path, name)
                    elif entry.is_dir(follow_symlinks=False):
                        below.append(base + name)
                    elif entry.is_symlink():
                        found.symlinks += 1
                        target = platform.read_link(directory, name)
                        if self._roots.moves_link(base + name, target):
                            found.links.append(base + name)
                        elif target.startswith(("/", "..")):
                            found.links_elsewhere.append((base + name, target))
        except OSError as error:
            shown = os.path.join(self._shown, base + name)
            raise HoloError(f"cannot read {shown}: {error.strerror}", left=NOTHING_MADE) from error
        found.directories += len(below)
        return below

    def _file(self, directory: Directory, folder: str, name: str) -> None:
        with platform.closing(platform.open_file(directory, name)) as file:
            size = os.fstat(file).st_size
            self._found.files += 1
            self._found.bytes += size
            if size < self._roots.shortest and not may_point_outside(folder, name):
                return
            seen = self._roots.inspect(file, size, folder, name)
        path = f"{folder}/{name}" if folder else name
        if seen.places is not None:
            self._found.places[path] = seen.places
        self._found.warnings += seen.warnings
