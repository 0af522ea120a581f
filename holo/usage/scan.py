"""Look at every file of some trees, with all workers: what it has of the disk.

Only what can concern somebody else comes back one by one: files with several names, and parts of the disk that are
shared, or whose size is not known. Everything else is added up where it is found.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import NamedTuple, TypeAlias

from holo import platform
from holo.platform import Directory
from holo.platform.blocks import Blocks, Volume
from holo.walk import Walker
from holo.workers.treewalk import visit_all

_UNIT = 512
"""bytes of st_blocks: stat(3type)"""

_LARGEST_INLINE = 4096


class Root(NamedTuple):
    """A tree, or a file, to look at."""

    path: str
    """real and absolute"""
    holder_of: Callable[[str], int] | None = None
    """the holder of a file by its name. Without it, the holder of all is the root's own number"""
    most: int | None = None
    """how many entries to look at"""


class Sum(NamedTuple):
    """Files that nobody else has, and what they have of the disk that nobody else has."""

    files: int = 0
    logical: int = 0
    own: int = 0
    pending: int = 0
    inline: int = 0

    def plus(self, other: Sum) -> Sum:
        return Sum(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


_OWN = Sum._fields.index("own")


def sum_of(size: int, blocks: Blocks) -> Sum:
    """A sum of one file."""
    return Sum(1, size, blocks.own, blocks.pending, size if blocks.is_inline else 0)


Copies: TypeAlias = "dict[tuple[str, int, int, int], tuple[int, ...]]"
"""What a file of that disk, inode, ctime (ns) and size has: start, length and flags of each place. Inline: nothing.

A file of another Btrfs subvolume that has the same of all of these is the same file in another snapshot, with the same
extents: a write to one of them changes its ctime, which the kernel gives.
"""


class Known(NamedTuple):
    """What was seen of the trees that were asked about. Of others only what those have, too, is of interest."""

    copies: Copies
    has_linked: bool
    """whether any of their files has several names"""


class Linked(NamedTuple):
    """One name of a file that has several."""

    holder: int
    identity: tuple[int, int]
    """device and inode"""
    names: int
    """how many it has"""
    size: int
    disk: str
    blocks: Blocks


class Seen(NamedTuple):
    """What one worker has seen."""

    sums: dict[int, Sum]
    """by holder"""
    places: dict[str, array[int]]
    """by disk: holder, start, length and flags of each, one after the other"""
    linked: list[Linked]
    copies: Copies
    """what single files have, if that was to be learnt"""
    disks: dict[str, Volume]
    untold: set[str]
    """disks that do not tell where the blocks of a file are"""
    unread: int
    """files and directories that this user may not read"""
    mounted: list[str]
    """what is mounted in a tree, and is not a part of it"""


def scan(
    roots: Sequence[Root], which: Iterable[int], workers: int, *, learn: bool = False, known: Known | None = None
) -> Iterator[Seen]:
    """Look at every file of some of the trees. Where one root lies in another, its files belong to it alone.

    ``learn``: also tell what each file has that may be in other snapshots, too. ``known``: tell only what may be shared
    with files that were seen before, and do not ask for it again; what is nobody else's is not added up.
    """
    with _Visitor(roots, which, known, learn=learn) as visitor:
        yield from visit_all(visitor, workers)


def places_of(seen: Seen, disk: str) -> Iterator[tuple[int, int, int, int]]:
    """The places on a disk that a worker has seen: holder, start, length, flags."""
    numbers = iter(seen.places[disk])
    return zip(numbers, numbers, numbers, numbers, strict=True)


def flags_of(seen: Seen, disk: str) -> Iterable[int]:
    """The flags of those places alone."""
    return seen.places[disk][3::4]


class _Visitor:
    """Visits directories, whose paths are those below a root, with the number of that before a colon."""

    def __init__(self, roots: Sequence[Root], which: Iterable[int], known: Known | None, *, learn: bool) -> None:
        self.seen = 0
        self._roots, self._which, self._learn, self._known = roots, which, learn, known
        self._apart: dict[str, set[str]] = defaultdict(set)
        for root in roots:
            parent, name = os.path.split(root.path)
            self._apart[parent].add(name)
        self._walkers: dict[int, tuple[Walker, Directory]] = {}
        self._volumes: dict[int, Volume] = {}
        self._entries: Counter[int] = Counter()
        self._begin()

    def __enter__(self) -> _Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _begin(self) -> None:
        self._sums: defaultdict[int, list[int]] = defaultdict(lambda: [0] * len(Sum._fields))
        self._places: defaultdict[str, array[int]] = defaultdict(lambda: array("Q"))
        self._linked: list[Linked] = []
        self._copies: Copies = {}
        self._untold: set[str] = set()
        self._unread = 0
        self._mounted: list[str] = []

    def _close(self) -> None:
        for walker, root in self._walkers.values():
            walker.close()
            platform.close_directory(root)
        self._walkers.clear()

    # -- as treewalk has it -------------------------------------------------------------------------------------

    def in_worker(self) -> None:
        """Nothing is different there."""

    def result(self) -> Seen:
        self._close()
        disks = {volume.identity: volume for volume in self._volumes.values()}
        sums = {holder: Sum(*numbers) for holder, numbers in self._sums.items()}
        seen = Seen(
            sums, dict(self._places), self._linked, self._copies, disks, self._untold, self._unread, self._mounted
        )
        self._begin()
        return seen

    def visit(self, path: str) -> list[str]:
        if not path:
            return [f"{number}:" for number in self._which]
        first, _, relative = path.partition(":")
        number = int(first)
        root = self._roots[number]
        if root.most is not None and self._entries[number] > root.most:
            return []
        whole = os.path.join(root.path, relative) if relative else root.path
        try:
            if not relative and not stat.S_ISDIR(os.lstat(root.path).st_mode):
                self._visit_file(number)
                return []
            directory = self._open(number, relative)
        except OSError as error:
            self._note(error, whole)
            return []
        below = self._visit_directory(number, directory, self._apart.get(whole, ()))
        return [f"{first}:{relative}/{name}" if relative else f"{first}:{name}" for name in below]

    # -- directories and files ----------------------------------------------------------------------------------

    def _open(self, number: int, relative: str) -> Directory:
        if number not in self._walkers:
            self._close()  # of thousands of roots not all can be open; nor need they, for one follows the other
            root = platform.open_root(self._roots[number].path)
            self._walkers[number] = Walker(root, changes=True), root
        return self._walkers[number][0].open(relative)

    def _note(self, error: OSError, path: str) -> None:
        """Go on without what is gone; tell of what cannot be looked at."""
        if error.errno == errno.EBUSY:
            self._mounted.append(path)
        elif error.errno in (errno.EACCES, errno.EPERM):
            self._unread += 1
        elif error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
            raise error

    def _volume(self, device: int, directory: Directory) -> Volume:
        volume = self._volumes.get(device)
        if volume is None:
            volume = self._volumes[device] = platform.volume_of(directory)
        return volume

    def _visit_file(self, number: int) -> None:
        parent, name = os.path.split(self._roots[number].path)
        with platform.closing(platform.open_root(parent)) as directory:
            status = platform.status(directory, name)
            self._count(number, directory, self._volume(status.st_dev, directory), name, status)

    def _visit_directory(self, number: int, directory: Directory, apart: Collection[str]) -> list[str]:
        own = platform.status(directory, "")
        volume = self._volume(own.st_dev, directory)
        self._sums[number][_OWN] += _allocated(own)
        holder_of = self._roots[number].holder_of
        # Names and copies of files that are known are found by their inodes. Else a stat tells nothing of interest.
        by_inode = self._known is None or self._known.has_linked or bool(self._known.copies)
        below = []
        with suppress(FileNotFoundError), platform.listing(directory) as listed:
            entries = [*listed]
            self.seen += len(entries)
            self._entries[number] += len(entries)
            for entry in entries:
                name = entry.name
                if apart and name in apart:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(name)
                    continue
                try:
                    holder = number if holder_of is None else holder_of(name)
                    if by_inode:
                        self._count(holder, directory, volume, name, entry.stat(follow_symlinks=False))
                    elif volume.can_share and entry.is_file(follow_symlinks=False):
                        blocks = self._ask(directory, volume, name)
                        if blocks is not None:
                            self._add_places(holder, volume, blocks)
                except OSError as error:
                    self._note(error, name)
        return below

    def _count(self, holder: int, directory: Directory, volume: Volume, name: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            # The target of a symlink: Btrfs keeps it in its metadata, and says that it takes a block.
            self._sums[holder][_OWN] += 0 if volume.keeps_extents else _allocated(status)
            return
        total = self._sums[holder]
        if self._known is not None:
            copied = self._known.copies.get((volume.identity, status.st_ino, status.st_ctime_ns, status.st_size))
            if copied is not None and status.st_nlink == 1:
                total[0] += 1
                total[1] += status.st_size
                total[4] += 0 if copied else status.st_size
                if len(copied) == 3:
                    self._places[volume.identity].extend((holder, *copied))
                else:
                    for first in range(0, len(copied), 3):
                        self._places[volume.identity].extend((holder, *copied[first : first + 3]))
                return
        blocks = self._blocks(directory, volume, name, status)
        own, pending, is_inline, places = blocks
        if status.st_nlink > 1:
            identity = (status.st_dev, status.st_ino)
            self._linked.append(Linked(holder, identity, status.st_nlink, status.st_size, volume.identity, blocks))
            return
        total[0] += 1
        total[1] += status.st_size
        total[2] += own
        total[3] += pending
        total[4] += status.st_size if is_inline else 0
        self._add_places(holder, volume, blocks)
        if self._learn and volume.keeps_extents and not own and is_inline != bool(places):
            key = (volume.identity, status.st_ino, status.st_ctime_ns, status.st_size)
            self._copies[key] = tuple(chain.from_iterable(places))

    def _blocks(self, directory: Directory, volume: Volume, name: str, status: os.stat_result) -> Blocks:
        allocated = _allocated(status)
        # What has no blocks has no place, but may be in the metadata (ext4's inline_data; Btrfs says it has a block).
        worth_asking = allocated if volume.can_share else 0 < status.st_size <= _LARGEST_INLINE and not allocated
        blocks = self._ask(directory, volume, name) if worth_asking else None
        return blocks if blocks is not None else Blocks(allocated, 0, is_inline=False, places=[])

    def _ask(self, directory: Directory, volume: Volume, name: str) -> Blocks | None:
        """What the filesystem tells of a file; ``None`` if it tells nothing, or not to this user."""
        if volume.identity in self._untold:
            return None
        try:
            descriptor = platform.open_file(directory, name)
        except PermissionError:
            if _allocated(platform.status(directory, name)):
                self._unread += 1
            return None
        try:
            blocks = platform.blocks_of(descriptor)
        finally:
            os.close(descriptor)
        if blocks is None:
            self._untold.add(volume.identity)
        return blocks

    def _add_places(self, holder: int, volume: Volume, blocks: Blocks) -> None:
        for place in blocks.places:
            self._places[volume.identity].extend((holder, *place))


if sys.platform == "win32":  # which has no st_blocks

    def _allocated(status: os.stat_result) -> int:
        return status.st_size
else:

    def _allocated(status: os.stat_result) -> int:
        return status.st_blocks * _UNIT
