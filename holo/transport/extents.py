"""Find blocks that large blobs share, by their content, so that a bundle holds them once.

It finds what a list of physical extents would show (FIEMAP), on every filesystem, and what is alike without sharing
blocks. Of every block a fingerprint is kept. One block in sixteen, chosen by its fingerprint, can be looked up; a run
of equal blocks is followed from there both ways. So memory is a few thousandths of the content.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple
from zlib import crc32

from blake3 import blake3

from holo.content import Hole, Piece
from holo.hololib.offer import BLOCK
from holo.transport.bundle import Part

SHARES_FROM = 1 << 20
"""Bytes from which on a blob is looked through."""

_WORTH_SHARING = 16
"""Blocks in a run from which on it is shared: each one more is one more part to put together."""

_MOST_BLOCKS = 1 << 21
"""Blocks that are remembered, of 8 GiB of content: some 50 MB of memory."""

_PRINT = 16
"""Bytes of a fingerprint."""

_SAMPLED = 15
"""Bits that are zero in the first byte of a fingerprint that can be looked up."""


class Range(NamedTuple):
    """Bytes of content, from one position to another."""

    start: int
    end: int


class Fingerprints:
    """What an export needs to know of content that comes in pieces. Small enough to cross from a worker."""

    def __init__(self, size: int) -> None:
        self.crc = 0
        """the CRC-32 of content without holes"""
        self.prints: list[tuple[int, bytearray]] = []
        """of large content: where each stretch between holes begins, and the fingerprints of its whole blocks"""
        self.holes: list[Range] = []
        self._is_large = size >= SHARES_FROM
        self._position = 0
        self._rest: bytes | None = None
        """bytes of a block that is not whole yet; ``None``: a stretch begins"""

    def update(self, piece: Piece) -> None:
        """Add the next piece."""
        start = self._position
        self._position += len(piece)
        if isinstance(piece, Hole):
            self.holes.append(Range(start, self._position))
            self._rest = None
            return
        self.crc = crc32(piece, self.crc)
        if self._is_large:
            if self._rest is None:
                self.prints.append((start, bytearray()))
            data = self._rest + piece if self._rest else piece
            whole = len(data) - len(data) % BLOCK
            view = memoryview(data)
            self.prints[-1][1].extend(
                b"".join([blake3(view[at : at + BLOCK]).digest(_PRINT) for at in range(0, whole, BLOCK)])
            )
            self._rest = bytes(view[whole:])


class BlockTable:
    """The blocks of the entries written so far."""

    def __init__(self) -> None:
        self._prints: dict[str, bytes] = {}
        self._sampled: dict[bytes, tuple[str, int]] = {}
        self._blocks = 0

    def add(self, digest: str, prints: bytes) -> None:
        """Remember the blocks of the entry of a blob."""
        self._blocks += len(prints) // _PRINT
        if self._blocks > _MOST_BLOCKS:
            return
        self._prints[digest] = prints
        for index in range(0, len(prints), _PRINT):
            if not prints[index] & _SAMPLED:
                self._sampled.setdefault(prints[index : index + _PRINT], (digest, index // _PRINT))

    def runs(self, prints: bytes) -> Iterator[tuple[Range, str, int]]:
        """Runs of blocks that an entry has: the blocks (not bytes), whose entry, and the first block there."""
        done = 0
        for index in range(len(prints) // _PRINT):
            if index < done or prints[index * _PRINT] & _SAMPLED:
                continue
            found = self._sampled.get(prints[index * _PRINT : (index + 1) * _PRINT])
            if found is None:
                continue
            digest, there = found
            theirs = self._prints[digest]
            before = _common(prints, theirs, index, there, -1, min(index - done, there))
            after = _common(prints, theirs, index, there, 1, len(prints) // _PRINT - index)
            if before + after >= _WORTH_SHARING:
                done = index + after
                yield Range(index - before, done), digest, there - before


def _common(mine: bytes, theirs: bytes, index: int, there: int, step: int, most: int) -> int:
    """How many blocks are alike from a pair on: forwards with it, backwards without it."""
    count = 0
    start = 0 if step > 0 else 1
    while count < most:
        a, b = (index + step * (count + start)) * _PRINT, (there + step * (count + start)) * _PRINT
        if mine[a : a + _PRINT] != theirs[b : b + _PRINT] or b >= len(theirs):
            break
        count += 1
    return count


def put_together(
    table: BlockTable, digest: str, size: int, seen: Fingerprints
) -> tuple[tuple[Part, ...], list[Range]] | None:
    """How a blob can be put together, and the ranges of it that its own entry then has; ``None``: it stays whole.

    The blocks of its entry are remembered.
    """
    others = [(hole, Part(hole.end - hole.start)) for hole in seen.holes]
    for begin, prints in seen.prints:
        for (first, end), theirs, at in table.runs(bytes(prints)):
            place = Range(begin + first * BLOCK, begin + end * BLOCK)
            others.append((place, Part(place.end - place.start, theirs, at * BLOCK)))
    rest = _between([place for place, _ in others], size)
    table.add(digest, _prints_of(rest, seen.prints))
    if not others:
        return None
    kept = 0
    for place in rest:
        length = place.end - place.start
        others.append((place, Part(length, digest, kept)))
        kept += length
    return tuple(part for _, part in sorted(others, key=itemgetter(0))), rest


def _between(ranges: list[Range], size: int) -> list[Range]:
    """What is not in the ranges, of so many bytes."""
    rest = []
    position = 0
    for start, end in [*sorted(ranges), Range(size, size)]:
        if start > position:
            rest.append(Range(position, start))
        position = end
    return rest


def _prints_of(rest: list[Range], prints: list[tuple[int, bytearray]]) -> bytes:
    """The fingerprints of the blocks of an entry that holds these ranges, as far as its blocks are the content's."""
    found = bytearray()
    stretches = iter(prints)
    begin, known = next(stretches, (0, bytearray()))
    for start, end in rest:
        while start >= begin + len(known) // _PRINT * BLOCK and (following := next(stretches, None)) is not None:
            begin, known = following
        first, last = divmod(start - begin, BLOCK), (end - begin) // BLOCK
        found += known[first[0] * _PRINT : last * _PRINT]
        if first[1] or (end - start) % BLOCK:  # from here on the entry's blocks begin elsewhere
            break
    return bytes(found)
