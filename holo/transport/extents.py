"""Find blocks that large blobs share, by their content, so that a bundle holds them once.

It finds what a list of physical extents would show (FIEMAP), on every filesystem, and what is alike without sharing
blocks. Of every block a fingerprint is kept. One block in sixteen, chosen by its fingerprint, can be looked up; a run
of equal blocks is followed from there both ways. So memory is a few thousandths of the content.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        self.prints = bytearray()
        """the fingerprints of the whole blocks, if the content is large"""
        self.holes: list[Range] = []
        self._is_large = size >= SHARES_FROM
        self._position = 0
        self._rest = b""

    def update(self, piece: Piece) -> None:
        """Add the next piece."""
        start = self._position
        self._position += len(piece)
        if isinstance(piece, Hole):
            self.holes.append(Range(start, self._position))
            self._rest = b""
            self.prints += bytes(_PRINT * (self._position // BLOCK - start // BLOCK)) if self._is_large else b""
            return
        self.crc = crc32(piece, self.crc)
        if self._is_large:
            data = self._rest + piece if self._rest else piece
            whole = len(data) - len(data) % BLOCK
            view = memoryview(data)
            self.prints += b"".join([blake3(view[at : at + BLOCK]).digest(_PRINT) for at in range(0, whole, BLOCK)])
            self._rest = bytes(view[whole:])

    @property
    def are_of_blocks(self) -> bool:
        """Whether there are fingerprints, and every hole begins and ends at a block, so that they are of the blocks."""
        return self._is_large and all(
            not start % BLOCK and (not end % BLOCK or end == self._position) for start, end in self.holes
        )


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
    prints = bytes(seen.prints) if seen.are_of_blocks else b""
    others = [(hole, Part(hole.end - hole.start)) for hole in seen.holes]
    for (first, end), theirs, at in table.runs(prints):
        others.append((Range(first * BLOCK, end * BLOCK), Part((end - first) * BLOCK, theirs, at * BLOCK)))
    if not others:
        table.add(digest, prints)
        return None
    parts: list[Part] = []
    rest: list[Range] = []
    position = kept = 0
    for (start, end), part in sorted(others):
        if start > position:
            parts.append(Part(start - position, digest, kept))
            rest.append(Range(position, start))
            kept += start - position
        parts.append(part)
        position = end
    if position < size:
        parts.append(Part(size - position, digest, kept))
        rest.append(Range(position, size))
    table.add(digest, b"".join(prints[start // BLOCK * _PRINT : end // BLOCK * _PRINT] for start, end in rest))
    return tuple(parts), rest
