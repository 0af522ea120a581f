"""Compare a space with its catalog without changing anything. Runs in workers; costs one stat per file.

A file is taken for unchanged when type, mode, size and mtime are the catalog's, its ctime is not newer than the
space's last restore, and its directory is the one which that left there (see :mod:`holo.checkout.proof`). The ctime
cannot be set by a program, so an edit that puts the old mtime back is noticed as well. A file that only lacks that
proof is read and hashed before it is believed. In a hardlinked space other spaces move the ctime of a file, which is
known without it if its inode is that of the link form.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog, FileRow, SymlinkRow
from holo.checkout.attributes import can_keep
from holo.checkout.contents import Contents
from holo.checkout.proof import NO_PROOF, Proof
from holo.checkout.strategy import Method
from holo.checkout.stubs import Stubs
from holo.errors import HoloError
from holo.filetimes import EXACT, FileTimes
from holo.hololib.links import READ_ONLY, Links
from holo.owners import is_mine
from holo.platform import Directory, probe
from holo.relocation.patch import Relocator
from holo.space import Space
from holo.walk import Walker
from holo.workers import pool


class Finding(NamedTuple):
    """What is wrong with one directory of the catalog. A directory without a finding is as recorded."""

    path: str
    missing: bool = False
    """not there, or not as a directory: everything below is missing too"""
    unreadable: bool = False
    extra: Sequence[str] = ()
    """names that are not in the catalog"""
    replace: Sequence[str] = ()
    """names that are there as something else than they should be"""
    files: Sequence[FileRow] = ()
    """to be made (after the names in ``replace`` are gone)"""
    symlinks: Sequence[SymlinkRow] = ()
    """to be made, targets as in the catalog"""
    attributes: bool = False
    """mode, mtime or extended attributes of the directory itself differ"""


class Survey:
    """The state of a whole space, or of a part of it."""

    def __init__(self, findings: list[Finding] | None = None, inodes: dict[str, int] | None = None) -> None:
        self.findings = findings or []
        self.inodes = inodes or {}
        """the inode of each unchanged file that belongs to a hardlink group, unless that had to be divided"""
        self.directories: dict[str, int] = {}
        """the inode of each directory that is there"""
        self.newest = -1
        """the last ctime in ns of all that was unchanged although its ctime did not prove it"""

    def add(self, other: Survey) -> None:
        self.findings += other.findings
        self.inodes |= other.inodes
        self.directories |= other.directories
        self.newest = max(self.newest, other.newest)


class Expectation(NamedTuple):
    """What a pristine space of this catalog looks like, and how closely to look."""

    catalog: Catalog
    relocator: Relocator
    used: Method
    proof: Proof
    """what is known without reading"""
    times: FileTimes = EXACT
    """what the space's filesystem does to times"""
    links: Links | None = None
    """the link forms, in a hardlinked space"""
    modes: Mapping[int, int] = {}
    """what this filesystem has made of a type and mode (st_mode) that was set"""
    stubs: Stubs | None = None
    """what files may be instead"""


def as_restored(space: Space, catalog: Catalog, proof: Proof = NO_PROOF, links: Links | None = None) -> Expectation:
    """What the last restore of a space has left. Without a ``proof`` everything is read."""
    relocator = Relocator.of(catalog, space.made_for, space.project)
    used = Method.HARDLINK if space.used == Method.HARDLINK else Method.COPY  # all others look the same
    return Expectation(catalog, relocator, used, proof, space.times, links, space.unkept_modes)


def survey_of_empty(catalog: Catalog) -> Survey:
    """The survey of an empty or missing directory."""
    root, *below = [
        Finding(path, missing=True, files=files, symlinks=links) for path, _, _, files, links in catalog.directories
    ]
    return Survey([root._replace(missing=False, attributes=True), *below])


_TASK_FILES = 500

_FEWEST_LINKS = 50
"""Names of one file that every filesystem allows: 65,000 on ext4, but an old Btrfs has no more than some 60 of the
longest in one directory."""


def survey(root: Directory, expectation: Expectation, contents: Contents, workers: int) -> Survey:
    """Look at every entry of the space below ``root``."""
    surveyor = _Surveyor(root, expectation, contents)
    tasks: list[range] = []
    first = count = 0
    directories = expectation.catalog.directories
    for index, row in enumerate(directories):
        count += len(row[3]) + 4
        if count >= _TASK_FILES or index == len(directories) - 1:
            tasks.append(range(first, index + 1))
            first, count = index + 1, 0
    result = Survey()
    # Workers pay off only when there is much to look at: a fork costs as much as some 2,000 stats.
    if len(tasks) <= 8 and expectation.proof.stamp >= 0:
        workers = 1
    for part in pool.run(surveyor, tasks, workers):
        result.add(part)
    _mark_subtree_missing(result, expectation.catalog)
    _look_at_large_groups(root, result, expectation.catalog)
    order = {row[0]: index for index, row in enumerate(directories)} if result.findings else {}
    result.findings.sort(key=lambda finding: order[finding.path])
    return result


def _mark_subtree_missing(result: Survey, catalog: Catalog) -> None:
    """A directory that cannot be read is made anew, and all that is below it, whatever was seen of that."""
    lost = {finding.path for finding in result.findings if finding.unreadable}
    if lost:
        found = {finding.path: finding for finding in result.findings}
        for path, _, _, files, links in catalog.directories[1:]:  # parents first
            if "" in lost or path.rpartition("/")[0] in lost:
                lost.add(path)
                found[path] = Finding(path, missing=True, files=files, symlinks=links)
        result.findings = list(found.values())
        result.inodes = {path: inode for path, inode in result.inodes.items() if path.rpartition("/")[0] not in lost}


def _look_at_large_groups(root: Directory, result: Survey, catalog: Catalog) -> None:
    """A file with more names than a filesystem allows is several there. Any other division is to be mended."""
    large = [group for group in catalog.hardlinks if len(group) > _FEWEST_LINKS]
    if not large:
        return
    astray: set[str] = set()
    for group in large:
        seen = {path: result.inodes.pop(path) for path in group if path in result.inodes}
        files: defaultdict[int, list[str]] = defaultdict(list)
        for path, inode in seen.items():
            files[inode].append(path)
        if len(seen) < len(group) or not _had_to_be_divided(root, [*files.values()]):
            astray.update(seen)
    if astray:
        _make_again(astray, result, catalog)


def _had_to_be_divided(root: Directory, files: list[list[str]]) -> bool:
    """Whether none of the files could have the first name of the next, which is how the engine divides them.

    Each is given by its names in the space, and must have no others.
    """
    walker, following = Walker(root), Walker(root)
    try:
        for names, others in zip_longest(files, files[1:]):
            parent, _, name = names[0].rpartition("/")
            directory = walker.open(parent)
            if platform.status(directory, name).st_nlink != len(names):
                return False
            if others and probe.takes_link(directory, name, following.open(others[0].rpartition("/")[0])):
                return False
        return True
    except OSError:  # somebody works in there
        return False
    finally:
        walker.close()
        following.close()


def _make_again(paths: set[str], result: Survey, catalog: Catalog) -> None:
    """Let files that were taken for unchanged be made anew."""
    found = {finding.path: finding for finding in result.findings}
    again: defaultdict[str, list[FileRow]] = defaultdict(list)
    for path, row in catalog.files():
        if path in paths:
            again[path.rpartition("/")[0]].append(row)
    for folder, rows in again.items():
        finding = found.get(folder, Finding(folder))
        names = (row[0] for row in rows)
        found[folder] = finding._replace(replace=[*finding.replace, *names], files=[*finding.files, *rows])
    result.findings = list(found.values())


class _Surveyor:
    def __init__(self, root: Directory, expectation: Expectation, contents: Contents) -> None:
        self._root = root
        status = platform.status(root, "")
        self._device = status.st_dev
        self._owner = status.st_uid if is_mine(status) else None
        """whose the files have to be; ``None`` if nobody can tell, as where a filesystem shows one owner for all"""
        self._contents = contents
        self._catalog = catalog = expectation.catalog
        self._relocator = expectation.relocator
        self._shown = os.fsdecode(expectation.relocator.new)
        self._hardlinked = expectation.used is Method.HARDLINK
        self._links = expectation.links
        self._proof = expectation.proof
        self._kept = expectation.times.kept
        self._modes = expectation.modes
        self._stubs = expectation.stubs
        self._children: defaultdict[str, set[str]] = defaultdict(set)
        for row in catalog.directories[1:]:
            parent, _, name = row[0].rpartition("/")
            self._children[parent].add(name)
        self._group_size = {path: len(group) for group in catalog.hardlinks for path in group}
        self._keeps: dict[str, bool] = {}  # by the first part of an attribute's name
        # Directories that hold files which need more than the fast comparison.
        special = {path for path, item in catalog.relocations.items() if self._relocator.applies(item)}
        special.update(self._group_size, catalog.xattrs)
        self._special: defaultdict[str, set[str]] = defaultdict(set)
        for path in special:
            parent, _, name = path.rpartition("/")
            self._special[parent].add(name)

    def __call__(self, indices: Iterable[int]) -> Survey:
        walker = Walker(self._root)
        found = Survey()
        try:
            for index in indices:
                finding = self._visit(walker, index, found)
                if finding is not None:
                    found.findings.append(finding)
        finally:
            walker.close()
        return found

    def _visit(self, walker: Walker, index: int, found: Survey) -> Finding | None:
        path, mode, mtime, files, links = self._catalog.directories[index]
        try:
            directory = walker.open(path)
            status = platform.status(directory, "")
            found.directories[path] = status.st_ino
            stamp = self._proof.stamp_in(index, status.st_ino) if status.st_dev == self._device else -1
            finding = self._compare(directory, index, stamp, found)
            is_as_set = self._has_mode(status, stat.S_IFDIR | mode) and status.st_mtime_ns == self._kept(mtime)
            if is_as_set and (status.st_ctime_ns > stamp or path in self._catalog.xattrs):
                # Only root can take a directory back.
                is_as_set = (self._owner != 0 or status.st_uid == 0) and self._has(
                    directory, directory, self._catalog.xattrs.get(path, {})
                )
                found.newest = max(found.newest, status.st_ctime_ns)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return Finding(path, missing=True, files=files, symlinks=links)
            if error.errno in (errno.EACCES, errno.EPERM):
                return Finding(path, missing=True, unreadable=True, files=files, symlinks=links)
            raise HoloError(f"cannot read {os.path.join(self._shown, path)}: {error.strerror}") from error
        return finding if is_as_set else (finding or Finding(path))._replace(attributes=True)

    def _compare(self, directory: Directory, index: int, stamp: int, found: Survey) -> Finding | None:
        """What is wrong with the entries of a directory."""
        path, _, _, files, links = self._catalog.directories[index]
        children = self._children.get(path, ())
        special = self._special.get(path, ())
        wanted = {row[0]: row for row in files}
        wanted_links = {row[0]: row for row in links}
        extra: list[str] = []
        replace: list[str] = []
        regular = stat.S_IFREG
        shared = self._hardlinked
        rights = READ_ONLY if shared else 0o7777
        base = path + "/" if path else ""
        with platform.listing(directory) as entries:
            for entry in entries:
                name = entry.name
                try:
                    row = wanted.get(name)
                    if row is not None:
                        status = entry.stat(follow_symlinks=False)
                        if (
                            status.st_mtime_ns == row[3]
                            and status.st_size == row[2]
                            and status.st_mode == regular | row[1] & rights
                            and status.st_ctime_ns <= stamp
                            and (shared or status.st_nlink == 1)
                            and name not in special
                        ) or self._is_unchanged(directory, base + name, row, status, stamp, found):
                            del wanted[name]
                        else:
                            replace.append(name)
                    elif name in children:
                        if not entry.is_dir(follow_symlinks=False):
                            replace.append(name)
                    elif (link := wanted_links.get(name)) is not None:
                        if self._is_same_symlink(directory, entry, link, base + name):
                            del wanted_links[name]
                        else:
                            replace.append(name)
                    else:
                        extra.append(name)
                except FileNotFoundError:  # removed in this moment: it is to be made
                    continue
        if not (extra or replace or wanted or wanted_links):
            return None
        files, links = [*wanted.values()], [*wanted_links.values()]
        return Finding(path, extra=extra, replace=replace, files=files, symlinks=links)

    def _is_unchanged(
        self, directory: Directory, path: str, row: FileRow, status: os.stat_result, stamp: int, found: Survey
    ) -> bool:
        name, mode, size, mtime, _ = row
        relocation = self._catalog.relocations.get(path)
        if relocation is not None and not self._relocator.applies(relocation):
            relocation = None
        xattrs = self._catalog.xattrs.get(path, {})
        group = self._group_size.get(path)
        shared = self._hardlinked and relocation is None and not xattrs
        if shared:
            mode &= READ_ONLY
        else:
            is_part = group is not None and _FEWEST_LINKS < group > status.st_nlink  # looked at in the end
            if status.st_nlink != (group or 1) and not is_part:
                return False
        expected_size = size if relocation is None else self._relocator.size(relocation, size)
        if (
            not self._has_mode(status, stat.S_IFREG | mode)
            or status.st_mtime_ns != self._kept(mtime)
            or expected_size not in (None, status.st_size)
        ):
            return False
        if status.st_ctime_ns > stamp:
            if self._owner not in (None, status.st_uid):  # who could go on changing it
                return False
            # Mode, size and mtime are the link form's own, and any edit in place shows in them.
            is_link_form = shared and stamp >= 0 and self._links is not None and self._links.is_form(row, status)
            if not is_link_form and not self._is_same_content(directory, path, name, row, xattrs):
                return False
            found.newest = max(found.newest, status.st_ctime_ns)
        if group and not shared:
            found.inodes[path] = status.st_ino
        return True

    def _has_mode(self, status: os.stat_result, wanted: int) -> bool:
        return status.st_mode in (wanted, self._modes.get(wanted))

    def _is_same_content(
        self, directory: Directory, path: str, name: str, row: FileRow, xattrs: dict[str, bytes]
    ) -> bool:
        try:
            descriptor = platform.open_file(directory, name)
        except OSError:
            return False
        try:
            shown = self._stubs.shows(descriptor, row) if self._stubs is not None else None
            if shown is not None:
                return shown
            if not self._has(directory, descriptor, xattrs):
                return False
            found = digests.of_file(descriptor)
        except OSError:
            return False  # what cannot be read is made anew
        finally:
            os.close(descriptor)
        relocation = self._catalog.relocations.get(path)
        if relocation is None or not self._relocator.applies(relocation):
            return found == row[4]
        expected = digests.Hasher()
        for chunk in self._relocator.patch(partial(self._contents.chunks, row[4], row[2]), relocation, path):
            expected.update(chunk)
        return found == expected.hexdigest()

    def _has(self, directory: Directory, descriptor: int | Directory, wanted: dict[str, bytes]) -> bool:
        """Whether an open file in ``directory`` has these extended attributes, but for those that it cannot have."""
        found = platform.get_xattrs(descriptor, acls=True)
        if found == wanted:
            return True
        return found.items() <= wanted.items() and not any(
            self._can_keep(directory, name, wanted[name]) for name in wanted.keys() - found.keys()
        )

    def _can_keep(self, directory: Directory, name: str, value: bytes) -> bool:
        kind = name.partition(".")[0]
        if kind not in self._keeps:
            self._keeps[kind] = can_keep((directory, self._root), name, value)
        return self._keeps[kind]

    def _is_same_symlink(self, directory: Directory, entry: os.DirEntry[str], row: SymlinkRow, path: str) -> bool:
        if not entry.is_symlink():
            return False
        target = platform.read_link(directory, entry.name)
        if target != self._relocator.symlink(row[1], path):
            return False
        return entry.stat(follow_symlinks=False).st_mtime_ns == self._kept(row[2])
