"""Who has which bytes of the disk. Pure: from what files have of it to sums for every set of holders.

Every place that holo looks at is a holder, with a number; a set of them is a bit mask. Bytes that only one file has are
added up at once. The others are parts of the disk, which are laid over each other: FIEMAP says that a part is shared,
and only the places of all files say with whom. A part that is shared, but that only one of the files has, belongs to
somebody else, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeAlias

from holo.platform.blocks import ENCODED, SHARED

Holders: TypeAlias = int
"""A bit for each holder."""


Held: TypeAlias = "tuple[Holders, int, int, int, bool]"
"""A part of the disk that some file has: who has the file; start, length and flags of the place; and whether the file
has names that are not known."""


class _Span:
    """One or several parts with the same limits."""

    __slots__ = ("end", "files", "holders", "is_elsewhere", "is_shared", "partners", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.holders = self.files = self.partners = 0
        self.is_shared = self.is_elsewhere = False


def sum_up(parts: Iterable[Held], *, keeps_extents: bool) -> Counter[tuple[Holders, bool]]:
    """Bytes by who has them, and whether somebody does of whom nothing is known.

    ``keeps_extents``: on this filesystem an extent that is in use somewhere is in use as a whole.
    """
    total: Counter[tuple[Holders, bool]] = Counter()
    for overlapping in _overlapping(_spans(parts)):
        if len(overlapping) == 1:
            (span,) = overlapping
            is_elsewhere = span.is_elsewhere or (span.is_shared and span.files == 1)
            total[span.holders, is_elsewhere] += span.end - span.start
        else:
            total += _sum_up_overlapping(overlapping, keeps_extents=keeps_extents)
    return total


def _spans(parts: Iterable[Held]) -> list[_Span]:
    """In the order of their starts."""
    found: dict[tuple[int, int], _Span] = {}
    encoded: dict[int, _Span] = {}
    for holders, start, length, flags, is_elsewhere in parts:
        if flags & ENCODED:  # always one whole piece, however much of it a file has
            span = encoded.get(start)
            if span is None:
                span = encoded[start] = _Span(start, start + length)
            span.end = max(span.end, start + length)
        else:
            span = found.get((start, length))
            if span is None:
                span = found[start, length] = _Span(start, start + length)
        span.holders |= holders
        span.files += 1
        if flags & SHARED:
            span.is_shared = True
        if is_elsewhere:
            span.is_elsewhere = True
    spans = sorted([*found.values(), *encoded.values()], key=lambda span: (span.start, span.end))
    # Of what is compressed, the size on the disk may not be known. It ends before the next begins.
    for this, following in pairwise(spans):
        if this.start in encoded and this.start < following.start:
            this.end = min(this.end, following.start)
    return spans


def _overlapping(spans: list[_Span]) -> Iterator[list[_Span]]:
    """Groups of spans that overlap each other."""
    group: list[_Span] = []
    end = 0
    for span in spans:
        if group and span.start >= end:
            yield group
            group, end = [], 0
        group.append(span)
        end = max(end, span.end)
    if group:
        yield group


def _sum_up_overlapping(spans: list[_Span], *, keeps_extents: bool) -> Counter[tuple[Holders, bool]]:
    segments = [*_segments(spans)]
    for _, there in segments:
        for span in there:
            for other in there:
                if other is not span:
                    span.partners |= other.holders
    total: Counter[tuple[Holders, bool]] = Counter()
    for length, there in segments:
        holders = 0
        for span in there:
            holders |= span.holders
        is_elsewhere = any(span.is_elsewhere for span in there)
        if len(there) == 1 and there[0].files == 1 and there[0].is_shared:
            # Others have another part of the same extent, and on such a filesystem so all of it.
            pinned = there[0].partners if keeps_extents else 0
            holders |= pinned
            is_elsewhere |= not pinned
        total[holders, is_elsewhere] += length
    return total


def _segments(spans: list[_Span]) -> Iterator[tuple[int, tuple[_Span, ...]]]:
    """The pieces into which the limits of spans cut them: the length, and which spans are there."""
    changes: defaultdict[int, list[_Span]] = defaultdict(list)
    for span in spans:
        changes[span.start].append(span)
        changes[span.end].append(span)
    there: dict[int, _Span] = {}
    for begin, end in pairwise(sorted(changes)):
        for span in changes[begin]:
            if span.start == begin:
                there[id(span)] = span
            else:
                del there[id(span)]
        if there:
            yield end - begin, tuple(there.values())
