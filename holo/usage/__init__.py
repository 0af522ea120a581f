"""How much of the disk a home and its spaces take, each of them alone, and what they share.

    subjects --> scan --> account --> report

Only what is shared with nobody is sure from one file alone. What is shared, and with whom, shows when the places of all
files on the same disk are laid over each other: so holo looks at everything that it knows of, whatever was asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from holo.errors import os_errors_as
from holo.platform.blocks import BOUNDED
from holo.usage.account import Held, Holders, sum_up
from holo.usage.report import Shared, Usage, UsageReport
from holo.usage.scan import Copies, Known, Linked, Root, Seen, Sum, flags_of, places_of, scan, sum_of
from holo.usage.subjects import Subject, Subjects

if TYPE_CHECKING:
    from holo.home import Home


def usage(home: Home, what: Sequence[str]) -> UsageReport:
    """What spaces, catalogs and paths have of the disk; without any, everything in a home. Changes nothing."""
    with os_errors_as("cannot look at the disk usage", name_file=True):
        subjects = Subjects(home)
        for each in what:
            subjects.name(each)
        roots = subjects.roots()
        asked = subjects.subjects()
        total = subjects.total(asked)
        seen = [*_look(home, subjects, roots)]
        found = _Found(seen)
        # It takes as long as another space, and most often what it shares is shared with others anyway.
        if any(map(found.seems_to_free_shared, (*asked, total))):
            seen += scan(roots, sorted(subjects.sources() - subjects.asked()), home.workers)
            found = _Found(seen)
    items = [found.usage(subject, subjects) for subject in asked]
    if not what:
        items = [item for item in items if item.files or item.physical]
    items.sort(key=lambda item: (-item.physical, item.kind, item.name))
    whole = found.usage(total, subjects)
    return UsageReport(home.library.home, tuple(items), whole, tuple(found.notes(whole)))


def _look(home: Home, subjects: Subjects, roots: Sequence[Root]) -> Iterator[Seen]:
    """Look at what was asked about, then at everything else of holo's that may share something with it."""
    asked = subjects.asked()
    others = {*range(len(roots))} - asked - subjects.sources()
    copies: Copies = {}
    has_linked = False
    disks: set[str] = set()
    for seen in scan(roots, sorted(asked), home.workers, learn=bool(others)):
        copies |= seen.copies
        has_linked |= bool(seen.linked)
        disks.update(seen.places, (linked.disk for linked in seen.linked))
        yield seen
    yield from scan(roots, sorted(others & subjects.on(disks)), home.workers, known=Known(copies, has_linked))


class _Found:
    """What all workers have seen, by who has it."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self._seen = seen
        self._sums: defaultdict[Holders, Sum] = defaultdict(Sum)
        self._bytes: Counter[tuple[Holders, bool]] = Counter()
        self._shared: Counter[tuple[Holders, bool]] = Counter()
        self._is_bounded = False
        places: defaultdict[str, list[Iterable[Held]]] = defaultdict(list)
        for part in seen:
            for holder, total in part.sums.items():
                self._add(1 << holder, total)
            for disk in part.places:
                found = places_of(part, disk)
                places[disk].append(
                    (1 << holder, start, length, flags, False) for holder, start, length, flags in found
                )
                self._is_bounded |= any(flags & BOUNDED for flags in {*flags_of(part, disk)})
        for holders, is_elsewhere, file in _files_of(seen):
            self._add(holders, sum_of(file.size, file.blocks), is_elsewhere=is_elsewhere)
            places[file.disk].append([(holders, *place, is_elsewhere) for place in file.blocks.places])
            self._is_bounded |= any(place.flags & BOUNDED for place in file.blocks.places)
        disks = {disk: volume for part in seen for disk, volume in part.disks.items()}
        for disk, parts in places.items():
            self._shared += sum_up(chain.from_iterable(parts), keeps_extents=disks[disk].keeps_extents)
        self._bytes += self._shared
        # Thousands of spaces have what is theirs alone, and little is shared by others than most of them.
        keys = {*self._bytes, *((holders, False) for holders in self._sums)}
        self._alone = {key for key in keys if key[0].bit_count() == 1}
        self._several = keys - self._alone

    def _add(self, holders: Holders, total: Sum, *, is_elsewhere: bool = False) -> None:
        self._sums[holders] = self._sums[holders].plus(total)
        self._bytes[holders, is_elsewhere] += total.own

    def seems_to_free_shared(self, subject: Subject) -> bool:
        """Whether several files that would all be gone with a subject share something. Others may have it, too."""
        return any(not is_elsewhere and not holders & ~subject.removed for holders, is_elsewhere in self._shared)

    def _keys_of(self, holders: Holders) -> Iterator[tuple[Holders, bool]]:
        """Who has something that one of these holders has."""
        yield from (key for key in self._several if key[0] & holders)
        while holders:
            one = holders & -holders
            yield from {(one, False), (one, True)} & self._alone
            holders ^= one

    def usage(self, subject: Subject, subjects: Subjects) -> Usage:
        """What one subject has."""
        keys = [*self._keys_of(subject.holders)]
        mine = {key: self._bytes[key] for key in keys if key in self._bytes}
        total = Sum()
        for holders in {holders for holders, _ in keys if holders in self._sums}:
            total = total.plus(self._sums[holders])

        sources = subjects.of_kind("source")

        def shared_with(*kinds: str) -> int:
            others = subjects.of_kind(*kinds) & ~subject.removed
            return sum(count for (holders, _), count in mine.items() if holders & others)

        return Usage(
            kind=subject.kind,
            name=subject.name,
            path=subject.path,
            files=total.files,
            logical=total.logical,
            physical=sum(mine.values()),
            exclusive=sum(
                count
                for (holders, is_elsewhere), count in mine.items()
                if not is_elsewhere and not holders & ~subject.removed
            ),
            inline=total.inline,
            pending=total.pending,
            shared=Shared(
                library=shared_with("library", "links"),
                golden=shared_with("golden"),
                spaces=shared_with("space", "spares"),
                ephemeral=shared_with("ephemeral"),
                other=shared_with("other", "path"),
                elsewhere=sum(
                    count
                    for (holders, is_elsewhere), count in mine.items()
                    if is_elsewhere or holders & sources & ~subject.removed
                ),
            ),
        )

    def notes(self, total: Usage) -> Iterator[str]:
        """What makes the numbers inexact."""
        if total.pending:
            yield f"{total.pending:,} bytes are not on the disk yet, so the numbers will change: `sync` writes them"
        if self._is_bounded:
            yield "some files are compressed, and only root can see how small: on the disk they take at most this"
        if any(part.untold for part in self._seen):
            yield "one filesystem does not tell where the blocks of a file are: there, only hardlinks count as shared"
        unread = sum(part.unread for part in self._seen)
        if unread:
            what = "1 file or directory" if unread == 1 else f"{unread:,} files or directories"
            yield f"you may not read {what}, so what is shared there is not known"
        for path in sorted({path for part in self._seen for path in part.mounted}):
            yield f"{path} is left out: something is mounted there"


def _files_of(seen: Iterable[Seen]) -> Iterator[tuple[Holders, bool, Linked]]:
    """The files that have several names, each once: who has them, whether there are names that were not seen."""
    found: dict[tuple[int, int], list[Linked]] = {}
    for part in seen:
        for linked in part.linked:
            found.setdefault(linked.identity, []).append(linked)
    for names in found.values():
        holders = 0
        for name in names:
            holders |= 1 << name.holder
        yield holders, len(names) < names[0].names, names[0]
