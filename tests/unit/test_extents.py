"""Blocks that large contents share are found, and what is put together is the content again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holo.content import Hole, Piece
from holo.hololib.offer import BLOCK
from holo.transport import extents
from holo.transport.bundle import Part
from holo.transport.extents import BlockTable, Fingerprints, Range, put_together

Content = list[Piece]


@cache
def stock(number: int) -> bytes:
    """One of some long runs that contents are cut from."""
    return random.Random(number).randbytes(40 * BLOCK)


def cut(number: int, start: int, length: int) -> bytes:
    return stock(number)[start : start + length]


RUNS = st.builds(
    lambda number, first, count: cut(number, first * BLOCK, count * BLOCK),
    st.integers(0, 2),
    st.integers(0, 39),
    st.integers(1, 40),
)
ODD = st.builds(cut, st.integers(3, 4), st.integers(0, 9), st.integers(1, 3 * BLOCK))
HOLES = st.builds(Hole, st.sampled_from([1, 100, BLOCK, 5 * BLOCK, 17 * BLOCK + 3]))
CONTENTS = st.lists(st.lists(RUNS | ODD | HOLES, min_size=1, max_size=7), min_size=1, max_size=5)


def flat(content: Sequence[Piece]) -> bytes:
    return b"".join(map(bytes, content))


class Written:
    """A bundle in memory: what entries there are, and how contents are put together."""

    def __init__(self) -> None:
        self.table = BlockTable()
        self.entries: dict[str, bytes] = {}
        self.parts: dict[str, tuple[Part, ...]] = {}

    def add(self, content: Content) -> str:
        data = flat(content)
        digest = blake3(data).hexdigest()
        if digest in self.entries or digest in self.parts:
            return digest
        seen = Fingerprints(len(data))
        for piece in content:
            seen.update(piece)
        found = put_together(self.table, digest, len(data), seen)
        if found is None:
            self.entries[digest] = data
            return digest
        parts, rest = found
        assert all(part.digest in (None, digest, *self.entries) for part in parts), "it names what is not there"
        self.parts[digest] = parts
        assert all(start < end for start, end in rest)
        self.entries[digest] = b"".join(data[start:end] for start, end in rest)
        return digest

    def read(self, digest: str) -> bytes:
        if digest not in self.parts:
            return self.entries[digest]
        pieces = []
        for length, other, offset in self.parts[digest]:
            piece = bytes(length) if other is None else self.entries[other][offset : offset + length]
            assert len(piece) == length, "it names what its entry does not have"
            pieces.append(piece)
        return b"".join(pieces)

    def holes(self, digest: str) -> list[Range]:
        found, position = [], 0
        for length, other, _ in self.parts.get(digest, ()):
            if other is None:
                found.append(Range(position, position + length))
            position += length
        return found

    @property
    def size(self) -> int:
        return sum(map(len, self.entries.values()))


def holes_of(content: Content) -> list[Range]:
    found, position = [], 0
    for piece in content:
        if isinstance(piece, Hole):
            found.append(Range(position, position + len(piece)))
        position += len(piece)
    return found


@given(CONTENTS, st.sampled_from([0, 3, 15]), st.sampled_from([1, 2, 16]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_what_is_put_together_is_the_content(contents: list[Content], sampled: int, worth: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extents, "SHARES_FROM", 1)
        patch.setattr(extents, "_SAMPLED", sampled)
        patch.setattr(extents, "_WORTH_SHARING", worth)
        written = Written()
        for content in contents:
            digest = written.add(content)
            assert written.read(digest) == flat(content)


@given(st.lists(RUNS | ODD | HOLES, min_size=1, max_size=7))
@settings(max_examples=50, deadline=None)
def test_holes_stay_holes(content: Content) -> None:
    written = Written()
    digest = written.add(content)
    assert written.holes(digest) == holes_of(content)


@given(st.lists(st.integers(1, 9000), max_size=30))
@settings(deadline=None)
def test_pieces_of_any_size_have_the_same_fingerprints(sizes: list[int]) -> None:
    data = stock(0)
    whole, cut_up = Fingerprints(1 << 20), Fingerprints(1 << 20)
    whole.update(data)
    position = 0
    for size in [*sizes, len(data)]:
        if piece := data[position : position + size]:
            cut_up.update(piece)
        position += size
    assert (cut_up.crc, cut_up.prints) == (whole.crc, whole.prints)


def changed(data: bytes, blocks: Sequence[int]) -> bytes:
    copy = bytearray(data)
    for block in blocks:
        copy[block * BLOCK : (block + 1) * BLOCK] = random.Random(block).randbytes(BLOCK)
    return bytes(copy)


def test_files_that_differ_in_a_few_blocks_are_written_once() -> None:
    """With the numbers that holo uses: four of 5 MB."""
    base = random.Random(1).randbytes(5 << 20)
    family = [base, changed(base, [0, 700]), changed(base, [100, 101, 1279]), base[: 3 << 20] + b"another end"]
    written = Written()
    for data in family:
        written.add([data])
    assert len(base) <= written.size < len(base) + 32 * BLOCK
    for data in family:
        assert written.read(blake3(data).hexdigest()) == data


def test_what_is_small_stays_in_one_piece() -> None:
    written = Written()
    small = random.Random(1).randbytes(extents.SHARES_FROM - 2)
    for number in range(3):
        written.add([small + bytes([number])])
    assert not written.parts


def test_memory_for_blocks_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extents, "_MOST_BLOCKS", 300)
    written = Written()
    data = [random.Random(number).randbytes(1 << 20) for number in range(3)]
    for content in data:
        written.add([content])
        written.add([content + b"x"])
    assert blake3(data[0] + b"x").hexdigest() in written.parts
    assert blake3(data[2] + b"x").hexdigest() not in written.parts
    assert all(written.read(blake3(content + b"x").hexdigest()) == content + b"x" for content in data)
