"""A file's content in pieces: bytes, and holes, which are neither read nor written.

A hole is a stretch that a file has no blocks for. It reads as zeros, however large it is, so holo passes on its
length instead of the zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from holo import platform

_LARGEST = 1 << 20
"""Bytes read at a time."""


class Hole:
    """So many zeros that a file has no blocks for. ``len``, slices and ``bytes`` are as of those zeros."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> Hole:
        return Hole(len(range(self._size)[part]))

    def __bytes__(self) -> bytes:
        return bytes(self._size)


Piece: TypeAlias = bytes | Hole


def pieces_of(descriptor: int, size: int) -> Iterator[Piece]:
    """The first ``size`` bytes of an open file; fewer if it has become shorter. Raises :class:`OSError`."""
    position = 0
    ranges = platform.data_ranges(descriptor, size) if platform.has_holes(descriptor, size) else [(0, size)]
    for start, end in ranges:
        if start > position:
            yield Hole(start - position)
            position = start
        while position < end:
            piece = platform.read_at(descriptor, min(end - position, _LARGEST), position)
            if not piece:
                return
            yield piece
            position += len(piece)
    if position < size:
        yield Hole(size - position)
