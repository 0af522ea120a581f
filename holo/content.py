"""A file's content in pieces: bytes, and holes, which are neither read nor written.

A hole is a stretch that a file has no blocks for. It reads as zeros, however large it is, so holo passes on its
length instead of the zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

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


class Section(NamedTuple):
    """A stretch of an open file, which whoever made the section closes."""

    descriptor: int
    offset: int
    length: int
    data: bytes | None = None
    """its bytes, if they have been read already"""

    def pieces(self) -> Iterator[bytes]:
        """Its bytes; fewer if the file has become shorter. Raises :class:`OSError`."""
        return self._read() if self.data is None else iter((self.data,))

    def beginning(self, most: int) -> bytes:
        """At most so many of its first bytes."""
        if self.data is None:
            return platform.read_at(self.descriptor, min(self.length, most), self.offset)
        return self.data[:most]

    def _read(self) -> Iterator[bytes]:
        position, end = self.offset, self.offset + self.length
        while position < end and (piece := platform.read_at(self.descriptor, min(end - position, _LARGEST), position)):
            yield piece
            position += len(piece)

    def part(self, start: int, length: int) -> Section:
        """So many bytes of it."""
        return Section(self.descriptor, self.offset + start, length)


def pieces_of(descriptor: int, size: int) -> Iterable[Piece]:
    """The first ``size`` bytes of an open file; fewer if it has become shorter. Raises :class:`OSError`."""
    if platform.has_holes(descriptor, size):
        return _pieces_of(descriptor, size, platform.data_ranges(descriptor, size))
    if size <= _LARGEST:
        return (platform.read_at(descriptor, size, 0),)
    return _pieces_of(descriptor, size, [(0, size)])


def _pieces_of(descriptor: int, size: int, ranges: Iterable[tuple[int, int]]) -> Iterator[Piece]:
    position = 0
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


def write_sparse(descriptor: int, pieces: Iterable[Piece]) -> None:
    """Write pieces to an empty file: holes become holes, and nothing else does."""
    ends_in_hole = False
    for piece in pieces:
        if isinstance(piece, Hole):
            end = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.ftruncate(descriptor, end)  # XFS allocates ahead, and would not take that back
            os.lseek(descriptor, end + len(piece), os.SEEK_SET)
            ends_in_hole = True
        elif piece:
            write_all(descriptor, piece)
            ends_in_hole = False
    if ends_in_hole:
        os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data`` at the file's position."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # somebody has made the pipe non-blocking, and it is full
            import select

            select.select([], [descriptor], [])
