"""Look for a path in all files of a tree, and for symlinks that lead there, with all workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from holo import platform
from holo.catalog import Relocation
from holo.cloning.filler import nothing_made
from holo.content import Piece, pieces_of
from holo.errors import HoloError
from holo.hololib.blobs import CHUNK
from holo.platform import Directory
from holo.relocation import leads_into
from holo.relocation.bytecode import is_bytecode, program
from holo.relocation.find import Opaque, PrefixFinder, find
from holo.relocation.foreign import may_point_outside, other_spellings, outside
from holo.walk import Walker
from holo.workers.treewalk import visit_all


@dataclass
class Found:
    """What one worker found, or all of them."""

    places: dict[str, Relocation] = field(default_factory=dict)
    """where the path is in the files that have it"""
    links: list[str] = field(default_factory=list)
    """symlinks that lead to it"""
    links_elsewhere: list[tuple[str, str]] = field(default_factory=list)
    """others that may lead out of the tree: (path, target)"""
    files: int = 0
    directories: int = 0
    symlinks: int = 0
    bytes: int = 0
    changed: int = 0
    """entries, directories among them, that changed since the time from which on files were to be read"""
    warnings: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, mine | theirs if isinstance(mine, dict) else mine + theirs)


def search(root: Directory, shown: str, prefix: bytes, since: int, workers: int) -> Found:
    """Look for ``prefix`` in what changed from ``since`` on (ns; 0: in everything) below ``root``.

    ``shown`` is the path of ``root`` for messages. Raises :class:`HoloError` naming what cannot be read.
    """
    try:
        again = platform.open_child(root, ".")  # Btrfs lists what there was when a directory was opened
    except OSError as error:
        raise HoloError(f"cannot read {shown}: {error.strerror}", nothing_made(error)) from error
    found, visitor = Found(), _Search(again, shown, prefix, since)
    try:
        for part in visit_all(visitor, workers):
            found.add(part)
    finally:
        visitor.result()
        platform.close_directory(again)
    return found


def chunks_of(file: int) -> Iterator[Piece]:
    """The content of an open file."""
    return pieces_of(file, os.fstat(file).st_size)


def places_in(file: int, path: str, prefix: bytes) -> Relocation | None:
    """Where ``prefix`` is to be patched in the open file at ``path`` in the tree, or ``None``."""
    finder = PrefixFinder(prefix, bytecode=is_bytecode(path))
    for chunk in chunks_of(file):
        finder.feed(chunk)
    places = finder.finish()
    if places is None or isinstance(places, Opaque):
        return None
    if is_bytecode(path):
        size = os.fstat(file).st_size
        return program(path, os.pread(file, size, 0) if size <= CHUNK else None, prefix, places)
    return places


class _Search:
    """Looks into all files of a tree. A visitor of :mod:`holo.workers.treewalk`."""

    def __init__(self, root: Directory, shown: str, prefix: bytes, since: int) -> None:
        """Only what changed from ``since`` on (ns) is read."""
        self._walker = Walker(root)
        self._shown = shown
        self._prefix = prefix
        self._path = os.fsdecode(prefix)
        self._since = since
        self._foreign = other_spellings(self._path)
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
                        if leads_into(target, self._path):
                            found.links.append(base + name)
                        elif target.startswith(("/", "..")):
                            found.links_elsewhere.append((base + name, target))
        except OSError as error:
            shown = os.path.join(self._shown, base + name)
            raise HoloError(f"cannot read {shown}: {error.strerror}", nothing_made(error)) from error
        found.directories += len(below)
        return below

    def _file(self, directory: Directory, folder: str, name: str) -> None:
        path = f"{folder}/{name}" if folder else name
        file = platform.open_file(directory, name)
        try:
            status = os.fstat(file)
            size = status.st_size
            self._found.files += 1
            self._found.bytes += size
            if size > CHUNK:
                self._large(file, path)
            elif size >= len(self._prefix) or self._foreign or may_point_outside(folder, name):
                self._small(os.read(file, size), folder, name, path)
        finally:
            os.close(file)

    def _small(self, content: bytes, folder: str, name: str, path: str) -> None:
        self._note(path, content, find(self._prefix, content, bytecode=is_bytecode(name)))
        self._warn(path, [what for what, needle in self._foreign if needle in content])
        if may_point_outside(folder, name):
            self._found.warnings += outside(path, content, self._path)

    def _large(self, file: int, path: str) -> None:
        finder = PrefixFinder(self._prefix, bytecode=is_bytecode(path))
        foreign = [(what, PrefixFinder(needle)) for what, needle in self._foreign]
        for chunk in chunks_of(file):
            finder.feed(chunk)
            for _, other in foreign:
                other.feed(chunk)
        self._note(path, None, finder.finish())
        self._warn(path, [what for what, other in foreign if other.finish() is not None])

    def _note(self, path: str, content: bytes | None, places: Relocation | Opaque | None) -> None:
        if isinstance(places, Opaque):
            self._found.warnings.append(places.warning(path))
            return
        if places is not None and is_bytecode(path):
            places = program(path, content, self._prefix, places)
        if places is not None:
            self._found.places[path] = places

    def _warn(self, path: str, foreign: list[str]) -> None:
        if not is_bytecode(path):
            self._found.warnings += [f"{path} contains {what}, which is not patched" for what in foreign]
