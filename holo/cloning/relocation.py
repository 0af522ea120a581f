"""Move a cloned tree: find its own path in the source, patch it in the clone.

The search reads all files in parallel, before anything is made. It tells which files have the path in them, and
whether they can be patched at all. What is patched, later, is the clone: private, and no longer changing. So every
file in question is read again there, and so is each that changed in the source after the search had begun.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from holo import platform
from holo.catalog import Relocation as Places
from holo.cloning.crew import visit_all
from holo.cloning.filler import NOTHING_MADE
from holo.errors import HoloError, UsageError
from holo.hololib.blobs import CHUNK, write_all
from holo.platform import Directory
from holo.record import source_of
from holo.record.foreign import may_point_outside, other_spellings, outside
from holo.record.prefix import PrefixFinder, find
from holo.restore.relocate import Relocator, leads_into
from holo.walk import Walker

_WAY_OUT = ", or clone without --relocate"

_CAPABILITY = "security.capability"

_CLOCK_LAG_NS = 10_000_000
"""ctimes come from the kernel's last tick, which is at most this much behind the clock (CONFIG_HZ=100)."""


@dataclass
class Found:
    """What one worker found, or all of them."""

    places: dict[str, Places] = field(default_factory=dict)
    """where the path is in the files that have it"""
    links: list[str] = field(default_factory=list)
    """symlinks that lead to it"""
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


class Relocation:
    """The way of one tree from its path to another."""

    def __init__(self, source: str, target: str, workers: int) -> None:
        if source == os.sep:
            raise UsageError("the path of / is in everything", "Clone it without --relocate.")
        self._shown = source
        self._relocator = Relocator(source, target)
        self._workers = workers
        self._found = Found()
        self.since = 0
        """when the search began (ns): what has changed since then may have been read too early"""
        self.patched = 0
        self.patched_bytes = 0

    @property
    def warnings(self) -> list[str]:
        return sorted(self._found.warnings)

    @property
    def totals(self) -> tuple[int, int, int, int]:
        """Files, symlinks, directories, and bytes of content."""
        found = self._found
        return found.files, found.symlinks, found.directories, found.bytes

    def search(self, source: Directory) -> None:
        """Read everything. Raises :class:`HoloError` naming what cannot be read."""
        self._source = source
        self.since = time.time_ns() - _CLOCK_LAG_NS
        self._found = self._search(source, 0)

    def refuse_impossible(self) -> None:
        """Raise :class:`~holo.errors.RelocationImpossible`, with the list of files, if the new path is too long."""
        self._relocator.refuse_impossible(self._found.places, _WAY_OUT)

    def apply(self, clone: Directory, fresh: Iterable[str] | None) -> None:
        """Patch the clone; bytecode only with its source, for Python corrects it itself where it has to.

        ``fresh``: what changed after the search; ``None`` if that is to be found out here.
        """
        if fresh is None:
            # To look at the source is cheap, its inodes are in memory. A change in it, which may have been undone by
            # now, is what makes it worth to load all those of the clone.
            late = self._search(self._source, self.since)
            if late.changed:
                late = self._search(clone, self.since)
            fresh = [*late.places, *late.links]
        walker = Walker(clone)
        try:
            self._patch_files(walker, {*self._found.places, *fresh})
            self._move_links(walker, {*self._found.links, *fresh})
        finally:
            walker.close()

    def _search(self, root: Directory, since: int) -> Found:
        again = platform.open_child(root, ".")  # Btrfs lists what there was when a directory was opened
        found, search = Found(), _Search(again, self._shown, self._relocator.old, since)
        try:
            for part in visit_all(search, self._workers):
                found.add(part)
        finally:
            search.result()
            platform.close_directory(again)
        return found

    # -- patching -----------------------------------------------------------------------------------------------

    def _patch_files(self, walker: Walker, paths: set[str]) -> None:
        done: set[int] = set()
        patched: set[str] = set()
        for path in sorted(paths, key=lambda path: (path.endswith(".pyc"), path)):
            if path.endswith(".pyc") and source_of(path) not in patched:
                continue
            folder, _, name = path.rpartition("/")
            try:
                if self._patch_file(walker.open(folder), name, path, done):
                    patched.add(path)
            except OSError as error:
                raise HoloError(
                    f"cannot relocate {os.path.join(self._shown, path)}: {error.strerror}", NOTHING_MADE
                ) from error

    def _patch_file(self, directory: Directory, name: str, path: str, done: set[int]) -> bool:
        """Patch a file if it has the path in it."""
        try:
            status = platform.status(directory, name)
        except FileNotFoundError:  # it went in the meantime
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_ino in done:
            return False
        with _opened_to_change(directory, name, status) as file:
            places = _places(self._relocator.old, _chunks(file))
            if places is None:
                return False
            if name.endswith(".pyc"):
                places = places._replace(kind="bytecode", ends=[])
            if not self._relocator.applies(places):
                return False
            self._relocator.refuse_impossible({path: places}, _WAY_OUT)
            self._patch(file, places)
        if status.st_nlink > 1:
            done.add(status.st_ino)
        self.patched += 1
        self.patched_bytes += status.st_size
        return True

    def _patch(self, file: int, places: Places) -> None:
        regions = self._relocator.regions(places)
        if regions is None:
            patched = b"".join(self._relocator.patch(_chunks(file), places))
            os.lseek(file, 0, os.SEEK_SET)
            write_all(file, patched)
            os.ftruncate(file, len(patched))
            return
        edits = self._relocator.edits(places, b"")
        for start, end in regions:
            os.lseek(file, start, os.SEEK_SET)
            content = os.read(file, end - start)
            os.lseek(file, start, os.SEEK_SET)
            write_all(file, self._relocator.patch_region(content, (start, end), edits))

    def _move_links(self, walker: Walker, paths: set[str]) -> None:
        for path in sorted(paths):
            folder, _, name = path.rpartition("/")
            try:
                self._move_link(walker.open(folder), name)
            except OSError as error:
                raise HoloError(
                    f"cannot relocate {os.path.join(self._shown, path)}: {error.strerror}", NOTHING_MADE
                ) from error

    def _move_link(self, directory: Directory, name: str) -> None:
        try:
            status = platform.status(directory, name)
        except FileNotFoundError:
            return
        if not stat.S_ISLNK(status.st_mode):
            return
        target = platform.read_link(directory, name)
        moved = self._relocator.symlink(target)
        if moved == target:
            return
        own = platform.status(directory, "")
        mode = stat.S_IMODE(own.st_mode)
        if mode & 0o700 != 0o700:
            platform.set_directory(directory, mode | 0o700, None)
        draft = f".holo-link-{os.urandom(4).hex()}"
        platform.make_symlink(moved, directory, draft, status.st_mtime_ns)
        platform.finish_link(directory, name, directory, draft, status)
        platform.rename(directory, draft, directory, name)
        platform.set_directory(directory, mode, None)
        platform.set_times(directory, own)


@contextmanager
def _opened_to_change(directory: Directory, name: str, status: os.stat_result) -> Iterator[int]:
    """A file open for reading and writing, whatever its mode; afterwards it has all its attributes again."""
    mode = stat.S_IMODE(status.st_mode)
    reader = platform.open_file(directory, name)
    try:
        xattrs = platform.get_xattrs(reader)
        if mode & 0o600 != 0o600:
            platform.set_file(reader, status.st_mtime_ns, mode | 0o600)
        file = platform.open_to_change(directory, name)
        try:
            yield file
            if _CAPABILITY in xattrs:  # a write takes it away, and setuid too
                platform.set_xattr(file, _CAPABILITY, xattrs[_CAPABILITY])
            platform.set_file(file, status.st_mtime_ns, mode)
            platform.set_times(file, status)
        finally:
            os.close(file)
    finally:
        os.close(reader)


def _chunks(file: int) -> Iterator[bytes]:
    os.lseek(file, 0, os.SEEK_SET)
    while chunk := os.read(file, CHUNK):
        yield chunk


def _places(prefix: bytes, chunks: Iterable[bytes]) -> Places | None:
    finder = PrefixFinder(prefix)
    for chunk in chunks:
        finder.feed(chunk)
    return finder.finish()


class _Search:
    """Looks into all files of a tree. A visitor of :mod:`holo.cloning.crew`."""

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
                        self._file(directory, name, base + name)
                    elif entry.is_dir(follow_symlinks=False):
                        below.append(base + name)
                    elif entry.is_symlink():
                        found.symlinks += 1
                        if leads_into(platform.read_link(directory, name), self._path):
                            found.links.append(base + name)
        except OSError as error:
            shown = os.path.join(self._shown, base + name)
            raise HoloError(f"cannot read {shown}: {error.strerror}", NOTHING_MADE) from error
        found.directories += len(below)
        return below

    def _file(self, directory: Directory, name: str, path: str) -> None:
        file = platform.open_file(directory, name)
        try:
            status = os.fstat(file)
            size = status.st_size
            self._found.files += 1
            self._found.bytes += size
            if size > CHUNK:
                self._large(file, path)
            elif size >= len(self._prefix) or self._foreign or may_point_outside(name):
                self._small(os.read(file, size), name, path)
        finally:
            os.close(file)

    def _small(self, content: bytes, name: str, path: str) -> None:
        places = find(self._prefix, content)
        if places is not None:
            self._note(path, places)
        self._warn(path, [what for what, needle in self._foreign if needle in content])
        if may_point_outside(name):
            self._found.warnings += outside(path, name, content, self._path)

    def _large(self, file: int, path: str) -> None:
        finder = PrefixFinder(self._prefix)
        foreign = [(what, PrefixFinder(needle)) for what, needle in self._foreign]
        for chunk in _chunks(file):
            finder.feed(chunk)
            for _, other in foreign:
                other.feed(chunk)
        places = finder.finish()
        if places is not None:
            self._note(path, places)
        self._warn(path, [what for what, other in foreign if other.finish() is not None])

    def _note(self, path: str, places: Places) -> None:
        if path.endswith(".pyc"):
            places = places._replace(kind="bytecode", ends=[])
        self._found.places[path] = places

    def _warn(self, path: str, foreign: list[str]) -> None:
        if not path.endswith(".pyc"):
            self._found.warnings += [f"{path} contains {what}, which is not patched" for what in foreign]
