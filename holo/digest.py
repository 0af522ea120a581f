"""Content is named by a digest of 256 bits, in lower-case hex: BLAKE3, which leaves large stretches of zeros out.

Even BLAKE3 takes seconds for the zeros of a sparse file of 20 GB. So blocks that are all zeros are not hashed; how
many there are and where is hashed instead. docs/catalog.md has the definition. It is about content alone: whether
zeros are a hole or take space makes no difference. Content without such a block, as nearly every file's, has its plain
BLAKE3 digest.
"""

from __future__ import annotations

import os
import struct

from blake3 import blake3

from holo.content import Hole, Piece, pieces_of

HEX_LENGTH = 64
EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
"""The digest of no bytes at all."""

BLOCK = 1 << 16
"""Bytes of a block. Only whole ones are left out: a file that is shorter has its plain digest."""

_CONTEXT = "holo 2026-11-22 content with blocks of zeros"
"""Makes BLAKE3 another function (its mode derive_key): no content has such a digest as its plain one."""

_ZEROS = bytes(BLOCK)
_RUN = struct.Struct("<QQ")
_SIZE = struct.Struct("<Q")


class Hasher:
    """The digest of content in pieces of any size. Memory does not grow with it, nor with the number of its holes."""

    __slots__ = ("_held", "_rest", "_run", "_runs", "_size")

    def __init__(self) -> None:
        self._rest = blake3()
        """all but the blocks of zeros"""
        self._runs: blake3 | None = None
        """where those are"""
        self._size = 0
        self._held = 0
        """zeros with which the block at the end begins, while it is not known whether they are all of it"""
        self._run = 0
        """blocks of zeros just before that block"""

    def update(self, piece: Piece) -> None:
        """Add the next piece."""
        length = len(piece)
        begun = self._size % BLOCK
        if begun + length < BLOCK:  # a small file, most often
            if length:
                self._add_part(bytes(piece))
            return
        start = -begun % BLOCK
        end = length - (length - start) % BLOCK
        if start:
            self._add_part(bytes(piece[:start]))
        if isinstance(piece, Hole):
            self._add_blocks_of_zeros(end - start)
        else:
            self._add_blocks(piece, start, end)
        if end < length:
            self._add_part(bytes(piece[end:]))

    def hexdigest(self) -> str:
        """The digest, after the last piece."""
        self._end_run()
        if self._runs is None:
            return self._rest.hexdigest()
        whole = self._runs.copy()
        whole.update(_SIZE.pack(self._size))
        whole.update(self._rest.digest())
        return whole.hexdigest()

    def _add_part(self, part: bytes) -> None:
        """Add some of a block: to its end, at most."""
        if self._held == self._size % BLOCK:  # nothing but zeros in it so far
            if not part[0] and part == _ZEROS[: len(part)]:
                self._size += len(part)
                self._held += len(part)
                if self._held == BLOCK:
                    self._held = 0
                    self._run += 1
                return
            self._end_run()
        self._rest.update(part)
        self._size += len(part)

    def _add_blocks(self, piece: bytes, start: int, end: int) -> None:
        """Add whole blocks."""
        while start < end:
            are_zeros = piece.startswith(_ZEROS, start)
            stop = start + BLOCK
            while stop < end and piece.startswith(_ZEROS, stop) == are_zeros:
                stop += BLOCK
            if are_zeros:
                self._add_blocks_of_zeros(stop - start)
            else:
                self._end_run()
                self._rest.update(memoryview(piece)[start:stop])
                self._size += stop - start
            start = stop

    def _add_blocks_of_zeros(self, count: int) -> None:
        """Add so many bytes: whole blocks."""
        self._run += count // BLOCK
        self._size += count

    def _end_run(self) -> None:
        """The block at the end is not all zeros, or not whole."""
        if self._run:
            if self._runs is None:
                self._runs = blake3(derive_key_context=_CONTEXT)
            self._runs.update(_RUN.pack(self._size // BLOCK - self._run, self._run))
            self._run = 0
        if self._held:
            self._rest.update(_ZEROS[: self._held])
            self._held = 0


def of(data: bytes) -> str:
    """The digest of ``data``."""
    if len(data) < BLOCK or not any(data.startswith(_ZEROS, at) for at in range(0, len(data) - BLOCK + 1, BLOCK)):
        return blake3(data).hexdigest()
    hasher = Hasher()
    hasher.update(data)
    return hasher.hexdigest()


def is_digest(text: str) -> bool:
    return len(text) == HEX_LENGTH and not text.strip("0123456789abcdef")


def of_file(descriptor: int) -> str:
    """The digest of an open file."""
    hasher = Hasher()
    for piece in pieces_of(descriptor, os.fstat(descriptor).st_size):
        hasher.update(piece)
    return hasher.hexdigest()
