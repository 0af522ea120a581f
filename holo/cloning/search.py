"""Search all files of a tree for its path, and its symlinks for those that lead there, with all workers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields

from holo import platform
from holo.catalog import Relocation
from holo.cloning.errors import errors_as, nothing_made
from holo.content import pieces_of
from holo.errors import HoloError
from holo.hololib.verified import CHUNK
from holo.platform import Directory
from holo.relocation import leads_into
from holo.relocation.foreign import may_point_outside
from holo.relocation.inspection import Inspector
from holo.walk import Walker
from holo.workers.treewalk import visit_all


@dataclass
class Found:
    """The results of one worker, or of all."""

    places: dict[str, Relocation] = field(default_factory=dict)
    """the occurrences of the path, by file"""
    links: list[str] = field(default_factory=list)
    """symlinks that lead into the tree by its path"""
    links_elsewhere: list[tuple[str, str]] = field(default_factory=list)
    """symlinks that may lead out of the tree: (path, target)"""
    files: int = 0
    directories: int = 0
    symlinks: int = 0
    bytes: int = 0
    changed: int = 0
    """entries, directories among them, that changed since the time from which files are searched"""
    warnings: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, mine | theirs if isinstance(mine, dict) else mine + theirs)


def search(root: Directory, inspector: Inspector, since: int, workers: int) -> Found:
    """Inspect all entries below ``root`` that changed at the time ``since`` (ns; 0: all entries) or later.

    Raises :class:`HoloError` naming a path that cannot be read.
    """
    with errors_as(f"cannot read {inspector.path}"):
        again = platform.open_child(root, ".")  # Btrfs lists a directory as it was when it was opened
    found, visitor = Found(), _Search(again, inspector, since)
    try:
        for part in visit_all(visitor, workers):
            found.add(part)
    finally:
        visitor.result()
        platform.close_directory(again)
    return found


def inspect(inspector: Inspector, file: int, size: int, folder: str, name: str) -> tuple[Relocation | None, list[str]]:
    """The places to patch in an open file, and the warnings about it."""
    if size > CHUNK:
        return inspector.judge(inspector.look_through(pieces_of(file, size), name), None, folder, name)
    content = platform.read_at(file, size, 0)
    return inspector.judge(inspector.look_into(content, name), content, folder, name)


class _Search:
    """Inspects all files of a tree. A visitor of :mod:`holo.workers.treewalk`."""

    def __init__(self, root: Directory, inspector: Inspector, since: int) -> None:
        """Only entries that changed from ``since`` on (ns) are read."""
        self._walker = Walker(root)
        self._inspector = inspector
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
                        if leads_into(target, self._inspector.path):
                            found.links.append(base + name)
                        elif target.startswith(("/", "..")):
                            found.links_elsewhere.append((base + name, target))
        except OSError as error:
            shown = os.path.join(self._inspector.path, base + name)
            raise HoloError(f"cannot read {shown}: {error.strerror}", nothing_made(error)) from error
        found.directories += len(below)
        return below

    def _file(self, directory: Directory, folder: str, name: str) -> None:
        file = platform.open_file(directory, name)
        try:
            size = os.fstat(file).st_size
            self._found.files += 1
            self._found.bytes += size
            if size < self._inspector.shortest and not may_point_outside(folder, name):
                return
            places, warnings = inspect(self._inspector, file, size, folder, name)
        finally:
            os.close(file)
        if places is not None:
            self._found.places[f"{folder}/{name}" if folder else name] = places
        self._found.warnings += warnings
