"""Relocate a cloned tree: find its own path, and those of other roots, in the source, patch them in the clone.

The search reads all files in parallel, before anything is made. It finds the files that contain one, and tells
whether all of them can be patched. They are patched later, in the clone, which is private and no longer changes. So
each of them is read again there, and so is every file that changed in the source after the search had begun.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache

from holo import platform
from holo.catalog import BYTECODE_HEADER, Relocation, Totals
from holo.cloning.report import NOTHING_MADE, Mapped, Relocated
from holo.cloning.roots import Root, Roots
from holo.cloning.search import Found, search
from holo.errors import UsageError, os_errors_as
from holo.platform import Directory
from holo.relocation.bytecode import STALE, Names, compiled_from, has_source, is_bytecode, is_rewritten
from holo.relocation.foreign import links_out
from holo.relocation.patch import unquoted
from holo.walk import Walker

_CAPABILITY = "security.capability"


class TreeRelocator:
    """Relocates the clone of one tree to its new path."""

    def __init__(self, source: str, target: str, others: Sequence[Root], workers: int) -> None:
        """``others``: roots that move as well."""
        if source == os.sep:
            raise UsageError("/ is a part of every path", "Clone it without --relocate.")
        self._shown = source
        self._others = others
        self._roots = Roots(source, target, others)
        self._workers = workers
        self._found = Found()
        self._unquoted: list[str] = []
        self.since = 0
        """when the search began (ns): files that have changed since then may have been read too early"""
        self._uses: Counter[Root] = Counter()
        self._patched = 0
        self._patched_bytes = 0

    def search(self, source: Directory) -> None:
        """Search the source. Raises :class:`HoloError` naming a path that cannot be read."""
        self._source = source
        self.since = time.time_ns() - platform.CLOCK_LAG_NS
        self._found = self._search(source, 0)
        found = self._found
        with Walker(source) as walker:
            names = _names_below(walker)
            found.places = {
                path: places for path, places in found.places.items() if places == STALE or not has_source(path, names)
            }

    def refuse_impossible(self) -> None:
        """Raise :class:`~holo.errors.RelocationImpossible`, with the list of files, if some cannot be patched."""
        self._roots.refuse_impossible(self._found.places)

    def beside(self) -> list[Root]:
        """Folders of links to the source that setuptools keeps in the project, for a strict editable install.

        The other checkout does not have them: they are no part of the project.
        """
        found = []
        with Walker(self._source) as walker:
            for path in filter(lambda path: path.endswith(".pth"), sorted(self._found.places)):
                folder, _, name = path.rpartition("/")
                with platform.closing(platform.open_file(walker.open(folder), name)) as file:
                    text = os.fsdecode(platform.read_at(file, os.fstat(file).st_size, 0))
                for line in filter(lambda line: line.startswith(os.sep), text.splitlines()):
                    old = os.path.normpath(line)
                    new = self._roots.moved_outside(old)
                    if new is None or os.path.lexists(new) or not os.path.isdir(old):
                        continue
                    if os.path.basename(old).startswith("__editable__."):
                        found.append(Root(old, new))
                    else:
                        self._found.warnings.append(f"{path} names {new}, where nothing is: the clone needs it as well")
        return found

    def apply(self, clone: Directory, fresh: Iterable[str] | None) -> None:
        """Patch the clone.

        ``fresh``: paths that changed after the search; ``None``: they are searched for here.
        """
        if fresh is None:
            # To look at the source is cheap: its inodes are in memory. Those of the clone are loaded only if something
            # has changed in the source. Even a change that has been undone since may be in the clone.
            late = self._search(self._source, self.since)
            if late.changed:
                late = self._search(clone, self.since)
            fresh = [*late.places, *late.links]
        with Walker(clone) as walker:
            self._patch_files(walker, {*self._found.places, *fresh})
            self._move_links(walker, {*self._found.links, *fresh})

    def relocated(self) -> Relocated:
        """The results of the search and the patches."""
        found = self._found
        warnings = [*dict.fromkeys(found.warnings), *self._roots.left_alone(found.places)]
        warnings += links_out(sorted(found.links_elsewhere), self._shown)
        if self._unquoted:
            warnings.append(unquoted(self._unquoted))
        totals = Totals(found.files, found.directories, found.symlinks, found.bytes)
        mapped = tuple(Mapped(*root, self._uses[root]) for root in self._others)
        return Relocated(self._patched, self._patched_bytes, totals, sorted(warnings), mapped)

    def _search(self, root: Directory, since: int) -> Found:
        return search(root, self._shown, self._roots, since, self._workers)

    # -- patching -----------------------------------------------------------------------------------------------

    def _patch_files(self, walker: Walker, paths: set[str]) -> None:
        done: set[tuple[int, int]] = set()
        names = _names_below(walker)
        to_patch = [path for path in sorted(paths) if not has_source(path, names)]
        patched = [path for path in to_patch if self._patch_one(walker, path, None, done)]
        for path in patched:
            for compiled in compiled_from(path, names):
                self._patch_one(walker, compiled, STALE, done)
        for path in filter(is_rewritten, sorted(paths)):
            self._patch_one(walker, path, STALE, done)

    def _patch_one(self, walker: Walker, path: str, places: Relocation | None, done: set[tuple[int, int]]) -> bool:
        folder, _, name = path.rpartition("/")
        with os_errors_as(f"cannot relocate {os.path.join(self._shown, path)}", left=NOTHING_MADE):
            return self._patch_file(walker.open(folder), folder, name, places, done)

    def _patch_file(
        self, directory: Directory, folder: str, name: str, places: Relocation | None, done: set[tuple[int, int]]
    ) -> bool:
        """Patch a file at ``places``; ``None``: wherever it names a root. Returns whether it was patched."""
        try:
            status = platform.status(directory, name)
        except FileNotFoundError:  # it was removed in the meantime
            return False
        path = f"{folder}/{name}" if folder else name
        inode = (status.st_dev, status.st_ino)  # a snapshot may contain others, with the same inode numbers
        if not stat.S_ISREG(status.st_mode) or inode in done:
            return False
        with _opened_to_change(directory, name, status) as file:
            if places is None:
                places = self._roots.inspect(file, status.st_size, folder, name).places
            if places is None:
                return False
            self._roots.refuse_impossible({path: places})
            if not self._roots.applies(places):
                return False
            if self._roots.is_unquoted(file, status.st_size, places, path):
                self._unquoted.append(path)
            self._roots.patch(file, places, path)
            self._uses.update(self._roots.named(places))
        if status.st_nlink > 1:
            done.add(inode)
        self._patched += 1
        self._patched_bytes += status.st_size
        return True

    def _move_links(self, walker: Walker, paths: set[str]) -> None:
        for path in sorted(paths):
            folder, _, name = path.rpartition("/")
            with os_errors_as(f"cannot relocate {os.path.join(self._shown, path)}", left=NOTHING_MADE):
                self._move_link(walker.open(folder), path, name)

    def _move_link(self, directory: Directory, path: str, name: str) -> None:
        try:
            status = platform.status(directory, name)
        except FileNotFoundError:
            return
        if not stat.S_ISLNK(status.st_mode):
            return
        target = platform.read_link(directory, name)
        moved, root = self._roots.moved_link(path, target)
        if moved == target:
            return
        if root is not None:
            self._uses[root] += 1
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


def _names_below(walker: Walker) -> Names:
    @cache
    def names(folder: str) -> set[str]:
        found = set()
        with suppress(OSError), platform.listing(walker.open(folder)) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it has just gone
                    status = entry.stat(follow_symlinks=False)
                    has_header = status.st_size >= BYTECODE_HEADER or not is_bytecode(entry.name)
                    if stat.S_ISREG(status.st_mode) and has_header:
                        found.add(entry.name)
        return found

    return names


@contextmanager
def _opened_to_change(directory: Directory, name: str, status: os.stat_result) -> Iterator[int]:
    """Open a file for reading and writing, whatever its mode, and restore all its attributes afterwards."""
    mode = stat.S_IMODE(status.st_mode)
    with platform.closing(platform.open_file(directory, name)) as reader:
        xattrs = platform.get_xattrs(reader)
        if mode & 0o600 != 0o600:
            platform.set_file(reader, status.st_mtime_ns, mode | 0o600)
        with platform.closing(platform.open_to_change(directory, name)) as file:
            yield file
            if _CAPABILITY in xattrs:  # a write removes it, and setuid too
                platform.set_xattr(file, _CAPABILITY, xattrs[_CAPABILITY])
            platform.set_file(file, status.st_mtime_ns, mode)
            platform.set_times(file, status)
