"""Patched Mach-O files: every page hash is right, nothing else changes, and patching back gives what was there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holo.catalog import Relocation
from holo.content import Hole, Piece
from holo.relocation import Edit
from holo.relocation.find import find
from holo.relocation.machsign import reader, with_hashes
from holo.relocation.patch import Relocator, patch_file
from support import macho
from support.macho import SHA1, SHA256, SHA256_TRUNCATED, SHA384, Signed

OLD = "/opt/environment"
EQUAL, SHORTER = "/srv/another/one", "/srv/short"


def found_in(content: bytes) -> Relocation:
    found = find(OLD.encode(), content)
    assert isinstance(found, Relocation)
    return found


def patched(content: bytes, relocation: Relocation, new: str, size: int = 1 << 20) -> bytes:
    return b"".join(map(bytes, Relocator(OLD, new).patch(lambda: cut(content, size), relocation, "bin/x")))


def undone(content: bytes, relocation: Relocation, new: str, size: int = 1 << 20) -> bytes:
    return b"".join(map(bytes, Relocator(OLD, new).undo(lambda: cut(content, size), relocation)))


def cut(content: bytes, size: int) -> Iterator[Piece]:
    """In pieces; zeros as holes."""
    for at in range(0, len(content), size):
        piece = content[at : at + size]
        yield piece if any(piece) else Hole(len(piece))


def body(*parts: int | str) -> bytes:
    """Bytes: so many that are no path, and strings."""
    return b"".join(b"\0%b\0" % part.encode() if isinstance(part, str) else b"\x90" * part for part in parts)


LIB = f"{OLD}/lib:{OLD}"
WAYS = {
    "as a linker signs": Signed(),
    "with pages of 16 KiB": Signed(shift=14),
    "with two kinds of hashes": Signed((SHA1, SHA256)),
    "with all kinds": Signed((SHA256, SHA1, SHA256_TRUNCATED, SHA384), cms=b""),
    "as one page": Signed(shift=0),
    "as it was before scatter": Signed(version=0x20001),
    "with a limit of 64 bits": Signed(wide=True),
    "without an index": Signed(bare=True),
    "with a certificate": Signed(cms=b"signed by somebody"),
    "in parts": Signed(scatter=[(0, 1), (3, 3)]),
}


@pytest.mark.parametrize("new", [EQUAL, SHORTER])
@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_each_hash_is_right_after_a_patch(how: Signed, new: str) -> None:
    content = macho.program(body(5000, LIB, 7500, LIB, LIB, 20_000, OLD), how, rpath=f"{OLD}/lib".encode())
    holds(content, new)


@pytest.mark.parametrize("wide", [False, True])
def test_programs_for_several_processors(wide: bool) -> None:
    ways = [Signed((SHA1, SHA256)), None, Signed(shift=14, cms=b"x"), Signed((SHA384,), shift=0)]
    programs = [macho.program(body(3000, LIB, 9000 * number, OLD), how) for number, how in enumerate(ways)]
    programs += [macho.program(body(2000, LIB), order=">", bits=32), macho.program(body(100, OLD), bits=32)]
    holds(macho.fat(programs, wide=wide), EQUAL)


def holds(content: bytes, new: str) -> None:
    """Everything that is promised, of a file whose hashes are right."""
    relocation = found_in(content)
    assert relocation.kind == "binary"
    before = list(macho.page_hashes(content))
    assert before
    assert all(found.is_right for found in before)
    after = patched(content, relocation, new)
    # Whether in one piece, in small ones, or in the file itself.
    assert {patched(content, relocation, new, size) for size in (4, 1000, 4096)} == {after}
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        patch_file(file.fileno(), Relocator(OLD, new), relocation, "bin/x")
        file.seek(0)
        assert file.read() == after
    hashes = list(macho.page_hashes(after))
    assert all(found.is_right for found in hashes)
    assert [found[1:] for found in hashes] == [found[1:] for found in before]
    # Only paths and hashes of patched pages are others.
    assert len(after) == len(content)
    may = {at for offset in relocation.offsets for at in range(offset, offset + len(OLD))}
    touched = [found for found in before if any(found.start <= at < found.end for at in may)]
    may.update(at for found in touched for at in range(found.place, found.place + 48))
    assert all(one == other or at in may for at, (one, other) in enumerate(zip(content, after, strict=True)))
    assert undone(after, relocation, new) == content


def test_a_hash_that_was_wrong_stays() -> None:
    content = bytearray(macho.program(body(5000, LIB, 7500, OLD)))
    first = next(found for found in macho.page_hashes(bytes(content)) if found.start == 4096)
    content[first.place] ^= 1
    relocation = found_in(bytes(content))
    after = patched(bytes(content), relocation, SHORTER)
    assert [found for found in macho.page_hashes(after) if not found.is_right] == [first._replace(is_right=False)]
    assert after[first.place : first.place + 32] == content[first.place : first.place + 32]
    assert undone(after, relocation, SHORTER) == content


PROGRAMS = [
    macho.program(body(5000, LIB, 3000, LIB), Signed((SHA1, SHA256), scatter=[(0, 2), (2, 4)], cms=b"x")),
    macho.fat([macho.program(body(50, LIB)), macho.program(body(50, LIB), bits=32, order=">")], wide=True),
    macho.fat([macho.program(body(50, LIB)), macho.program(body(50, OLD), Signed(shift=0))]),
]
MAGICS = rb"\xcf\xfa\xed\xfe|\xfe\xed\xfa\xce"
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 4, 8, 12, 0x1D, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF8]), st.integers(0, 1 << 32)
)


@st.composite
def lies(draw: st.DrawFn) -> bytes:
    """A file in which some numbers of its structure say something else, or which ends early."""
    content = bytearray(draw(st.sampled_from(PROGRAMS)))
    structure = [at for at in range(len(content) - 4) if content[at : at + 4] != b"\x90" * 4]
    for at in draw(st.lists(st.sampled_from(structure), min_size=1, max_size=5)):
        size = draw(st.sampled_from([1, 4, 8]))
        number = draw(NUMBERS) & ((1 << 8 * size) - 1)
        content[at : at + size] = number.to_bytes(size, draw(st.sampled_from(["little", "big"])))
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


@given(lies(), st.sampled_from([EQUAL, SHORTER]), st.sampled_from([500, 1 << 20]))
@settings(max_examples=120, deadline=None)
def test_whatever_a_file_says_it_is_patched_there_and_back(content: bytes, new: str, size: int) -> None:
    """A path is where it is, and a wrong structure leaves hashes alone; that is no error."""
    relocation = find(OLD.encode(), content)
    if not isinstance(relocation, Relocation) or relocation.kind == "text":
        return
    after = patched(content, relocation, new, size)
    assert len(after) == len(content)
    places = [(at, at + len(OLD)) for at in relocation.offsets]
    assert all(not after.startswith(OLD.encode(), at) for at, _ in places)
    assert undone(after, relocation, new, size) == content


HASH = next(macho.page_hashes(PROGRAMS[0])).place


@given(
    st.sampled_from([*PROGRAMS, b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(100)]),
    st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=6000)), max_size=5),
)
@example(PROGRAMS[0], [(0, b"\xca\xfe\xba\xbe")])
@example(PROGRAMS[0], [(0, bytes(20_000))])
@example(PROGRAMS[0], [(1000, b"in the page"), (HASH + 1, b"in its hash")])
@settings(max_examples=200, deadline=None)
def test_any_edits_keep_what_was_right_right(content: bytes, wanted: list[tuple[int, bytes]]) -> None:
    """Also those in the signature itself: then its hashes may be left alone, and the edits are done all the same."""
    edits: list[Edit] = []
    for start, new in sorted(wanted):
        end = start + len(new)
        if end <= len(content) and (not edits or edits[-1][1] <= start):
            edits.append((start, end, new))
    found = with_hashes(edits, lambda start, length: content[start : start + length])
    assert set(edits) <= set(found)
    assert all(one[1] <= other[0] for one, other in pairwise(found))
    after = bytearray(content)
    for start, end, new in found:
        assert len(new) == end - start
        after[start:end] = new
    assert len(after) == len(content)
    pages = [range(page.start, page.end) for page in macho.page_hashes(content)] if content in PROGRAMS else []
    heads = [range(found.start(), found.start() + 200) for found in re.finditer(MAGICS, content)]
    in_pages = all(any(start in page and end in page for page in pages) for start, end, _ in edits)
    if (
        pages
        and in_pages
        and not any(start in head or head.start in range(start, end) for start, end, _ in edits for head in heads)
    ):
        assert all(page.is_right for page in macho.page_hashes(bytes(after)))
    assert with_hashes(edits, reader(lambda: cut(content, 700))) == found


def test_what_is_no_program_is_read_no_further() -> None:
    """A class of Java begins like a file for several processors; and what changes its length has no hashes."""
    asked: list[tuple[int, int]] = []

    def read(start: int, length: int) -> bytes:
        asked.append((start, length))
        return content[start : start + length]

    content = b"\xca\xfe\xba\xbe\0\0\0\x34" + os.urandom(1000)
    assert with_hashes([(500, 504, b"text")], read) == [(500, 504, b"text")]
    assert asked == [(0, 8)]
    for edits in ([(5, 6, b"longer")], [(5, 9, b"1234"), (8, 10, b"12")], []):
        assert with_hashes(edits, read) == edits
    assert asked == [(0, 8)]
