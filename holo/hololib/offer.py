"""Content as another place has it: in one stretch of a file, in several with holes between, or compressed.

A source of blobs (see :mod:`holo.transport.source`) makes an offer, and nothing of it is believed before it is hashed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from holo import platform
from holo.content import Hole, Piece, Section, write_all
from holo.hololib.frames import inflate

BLOCK = 4096
"""Bytes of a block of every filesystem that shares blocks."""

WORTH_CLONING = 16 << 10
"""Bytes from which on sharing is faster than writing (docs/strategies.md, benchmarks/README.md)."""


class Twin(NamedTuple):
    """Bytes that are the same as others: a place in another content."""

    digest: str
    size: int
    """of that content"""
    offset: int


class Stretch(NamedTuple):
    """A part of the content."""

    start: int
    length: int
    section: Section | None
    """where it lies; ``None`` for a hole"""
    twin: Twin | None = None
    """where else it lies, in content that can be shared with it"""
    can_share: bool = True
    """whether a new file can share blocks with the section; else they are copied"""


class Offer(NamedTuple):
    """One content. Either ``frame``, its compressed form, or all of its stretches in their order."""

    size: int
    frame: Section | None
    stretches: Sequence[Stretch] = ()

    @property
    def is_sparse(self) -> bool:
        return any(stretch.section is None for stretch in self.stretches)

    def pieces(self) -> Iterable[Piece]:
        """The content, not verified. Raises :class:`OSError`, :class:`~holo.hololib.verified.ContentMismatch`."""
        return inflate(self.frame, self.size) if self.frame is not None else _read(self.stretches)

    def fill(self, target: int) -> None:
        """Put the content, which is not compressed, into an empty open file that shares the whole blocks it can.

        Raises :class:`OSError`, of :data:`holo.platform.UNAVAILABLE` if blocks cannot be shared after all.
        """
        for start, length, section, _, can_share in self.stretches:
            if section is None:
                continue
            is_aligned = can_share and not start % BLOCK and not section.offset % BLOCK
            shared = length - length % BLOCK if is_aligned else 0
            if shared:
                platform.clone_range(section.descriptor, section.offset, shared, target, start)
            if shared < length:
                os.lseek(target, start + shared, os.SEEK_SET)
                for piece in section.part(shared, length - shared).pieces():
                    write_all(target, piece)
        if self.stretches and self.stretches[-1].section is None:  # it ends in a hole
            os.ftruncate(target, self.size)


def whole(section: Section) -> Offer:
    """What lies in one stretch."""
    return Offer(section.length, None, (Stretch(0, section.length, section),))


def _read(stretches: Iterable[Stretch]) -> Iterator[Piece]:
    for _, length, section, *_ in stretches:
        if section is None:
            yield Hole(length)
        else:
            yield from section.pieces()
