"""Keep the code signature of a Mach-O file true when bytes of its pages are replaced.

A program for macOS carries the hashes of its pages. On Apple silicon, the kernel kills a process that uses a page with
another hash. So whoever patches a path also writes the new hashes of the pages that the path is in. An ad-hoc
signature, as linkers write it, is nothing but these hashes. A certificate (CMS) vouches for the old ones only.

The same patch always gives the same bytes, and nothing moves, which a new signature by `codesign` does not promise. A
hash that was wrong before stays as it is, so that patching back gives exactly what was there. So does every hash in a
file that is not as the kernel takes it.

The formats, and where they are defined in xnu (github.com/apple-oss-distributions/xnu, xnu-11417.101.15):

- ``mach_header``, ``load_command``, LC_CODE_SIGNATURE: ``EXTERNAL_HEADERS/mach-o/loader.h``;
- ``fat_arch``: ``EXTERNAL_HEADERS/mach-o/fat.h``; ``fat_arch_64``: the file of that name in Apple's SDK;
- ``SuperBlob``, ``CodeDirectory``, ``SC_Scatter``, hash types: ``osfmk/kern/cs_blobs.h``;
- how the kernel finds the hash of a page: ``bsd/kern/ubc_subr.c`` (``cs_validate_csblob``, ``hashes``).
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from holo.content import Piece
from holo.relocation import Edit

Read: TypeAlias = Callable[[int, int], bytes]
"""So many bytes from a position on; fewer at the end of the file."""

_HEADERS = {
    bytes.fromhex("feedface"): (">", 28),  # MH_MAGIC
    bytes.fromhex("feedfacf"): (">", 32),  # MH_MAGIC_64
    bytes.fromhex("cefaedfe"): ("<", 28),
    bytes.fromhex("cffaedfe"): ("<", 32),
}
"""The order of bytes, and the size of the header."""

_ENTRIES = {bytes.fromhex("cafebabe"): struct.Struct(">5I"), bytes.fromhex("cafebabf"): struct.Struct(">2I2Q2I")}
"""FAT_MAGIC and FAT_MAGIC_64: files for several processors. Of each: its type, subtype, offset, size, alignment."""

_LC_CODE_SIGNATURE = 0x1D
_EMBEDDED_SIGNATURE = 0xFADE0CC0
_CODE_DIRECTORY = 0xFADE0C02
_DIRECTORY_SLOTS = (0, *range(0x1000, 0x1005))
"""CSSLOT_CODEDIRECTORY and the alternates: the same with other hashes."""

_SUPPORTS_SCATTER = 0x20100
_SUPPORTS_CODE_LIMIT_64 = 0x20300

_HASHES = {1: ("sha1", 20), 2: ("sha256", 32), 3: ("sha256", 20), 4: ("sha384", 48)}
"""The algorithm of each CS_HASHTYPE, and how many bytes of the hash are kept."""

_PAGE_SHIFTS = range(12, 32)
"""The kernel takes 4 KiB and the size of its own pages."""

# More than any real file has, so that one which lies costs little.
_MOST_SLICES = 32  # a class of Java begins like a fat file, and seems to have 45 or more
_MOST_RUNS = 1000
_LARGEST_COMMANDS = 1 << 20
_LARGEST_SIGNATURE = 64 << 20
_ANYWHERE = 1 << 62

_AT_ONCE = 1 << 20


class _Slot(NamedTuple):
    """The hash of one page."""

    page: tuple[int, int, int]
    """the size of pages, and where this one begins and ends: pages of one size are read in their order"""
    kind: int
    offset: int
    hash: bytes


def with_hashes(edits: list[Edit], read: Read) -> list[Edit]:
    """The edits of a Mach-O file, and those of the hashes of the pages that they touch; all in order.

    Raises what ``read`` does, and nothing else, whatever the file is.
    """
    in_place = all(len(new) == end - start for start, end, new in edits)
    if not edits or not in_place or not _are_apart(edits):
        return edits
    slots: list[_Slot] = []
    for base, size in _slices(read):
        with suppress(struct.error):  # it ends early, or lies about where something is
            slots += _slots_in(read, base, size, edits)
    found = sorted([*edits, *_new_hashes(read, sorted(slots), edits)])
    return found if _are_apart(found) else edits


def _are_apart(edits: Sequence[Edit]) -> bool:
    return all(one[1] <= other[0] for one, other in pairwise(edits))


def _slices(read: Read) -> list[tuple[int, int]]:
    """Where the programs in a file are, and how large at most: several in a fat one."""
    head = read(0, 8)
    entry = _ENTRIES.get(head[:4])
    if entry is None:
        return [(0, _ANYWHERE)]
    count = int.from_bytes(head[4:], "big")
    table = read(8, count * entry.size) if count <= _MOST_SLICES else b""
    if len(table) != count * entry.size:
        return []
    found = sorted((offset, size) for _, _, offset, size, *_ in entry.iter_unpack(table))
    return found if all(one + size <= other for (one, size), (other, _) in pairwise(found)) else []


def _slots_in(read: Read, base: int, size: int, edits: Sequence[Edit]) -> list[_Slot]:
    """The hashes of all pages that the edits touch in the program at ``base``. Raises :class:`struct.error`."""
    place = _place_of_signature(read, base)
    if place is None or sum(place) > size or place[1] > _LARGEST_SIGNATURE:
        return []
    offset, length = place
    signature = read(base + offset, length)
    if len(signature) < length:
        return []
    found: list[_Slot] = []
    for at in _directories(signature):
        found += _slots_of(signature, at, base, offset, edits)
    return found


def _place_of_signature(read: Read, base: int) -> tuple[int, int] | None:
    """Where the signature of the program at ``base`` is, from there, and its length; ``None`` without just one."""
    head = read(base, 32)
    order, size = _HEADERS.get(head[:4], ("", 0))
    if not size:
        return None
    numbers = struct.Struct(order + "2I")
    count, length = numbers.unpack_from(head, 16)
    if length > _LARGEST_COMMANDS:
        return None
    commands = read(base + size, length)
    found, at = [], 0
    for _ in range(count):
        command, step = numbers.unpack_from(commands, at)
        if command == _LC_CODE_SIGNATURE:
            found.append(numbers.unpack_from(commands, at + 8))
        if step < 8:
            return None
        at += step
    return (found[0][0], found[0][1]) if len(found) == 1 else None


def _directories(signature: bytes) -> list[int]:
    """Where the code directories in a signature are. Raises :class:`struct.error`."""
    magic, _, count = struct.unpack_from(">3I", signature)
    if magic == _CODE_DIRECTORY:
        return [0]
    if magic != _EMBEDDED_SIGNATURE or count > len(signature) // 8:
        return []
    index = struct.iter_unpack(">2I", signature[12 : 12 + 8 * count])
    found = {offset for slot, offset in index if slot in _DIRECTORY_SLOTS}
    return sorted(found) if len(found) <= len(_DIRECTORY_SLOTS) else []


def _slots_of(signature: bytes, at: int, base: int, code: int, edits: Sequence[Edit]) -> Iterator[_Slot]:
    """Those of one code directory. ``code``: bytes before the signature. Raises :class:`struct.error`."""
    fields = struct.unpack_from(">9I4B", signature, at)
    magic, length, version, _, hashes, _, _, count, limit, size, kind, _, shift = fields
    directory = memoryview(signature)[at : at + length]
    if version >= _SUPPORTS_CODE_LIMIT_64:
        limit = struct.unpack_from(">Q", directory, 56)[0] or limit
    scatter = struct.unpack_from(">I", directory, 44)[0] if version >= _SUPPORTS_SCATTER else 0
    runs = _scattered(directory, scatter) if scatter else [(0, count, 0)]
    if (
        (magic, len(directory), size) != (_CODE_DIRECTORY, length, _HASHES.get(kind, ("", 0))[1])
        or hashes + count * size > length
        or limit > code
        or (shift not in _PAGE_SHIFTS and (shift or scatter))
    ):
        return
    page_size = 1 << shift if shift else limit  # 0: all is one page
    pages: set[int] = set()
    for start, end, _ in edits:
        first, last = max(start - base, 0), min(end - base, limit) - 1
        if first <= last:
            pages.update(range(first // page_size, last // page_size + 1))
    for page in pages:
        run = bisect_right(runs, page, key=itemgetter(0)) - 1
        first, pages_in_run, first_slot = runs[run] if run >= 0 else (0, 0, 0)
        slot = first_slot + page - first
        if page < first + pages_in_run and slot < count:
            begin = base + page * page_size
            place = (page_size, begin, min(begin + page_size, base + limit))
            offset = at + hashes + slot * size
            yield _Slot(place, kind, base + code + offset, signature[offset : offset + size])


def _scattered(directory: memoryview, at: int) -> list[tuple[int, int, int]]:
    """For each run of pages that have hashes: the first page, how many, the slot of the first. Raises
    :class:`struct.error`."""
    runs: list[tuple[int, int, int]] = []
    slot = 0
    for _ in range(_MOST_RUNS):
        count, first, _, _ = struct.unpack_from(">2I2Q", directory, at)
        if not count:
            return runs
        if runs and first < runs[-1][0] + runs[-1][1]:
            return []
        runs.append((first, count, slot))
        slot += count
        at += 24
    return []


def _new_hashes(read: Read, slots: Sequence[_Slot], edits: Sequence[Edit]) -> Iterator[Edit]:
    """The edits of those hashes that were right before. The slots are sorted."""
    for (_, start, end), group in groupby(slots, itemgetter(0)):
        of_page = list(group)
        hashed = _hashed(read, start, end, {_HASHES[slot.kind][0] for slot in of_page}, edits)
        for slot in of_page:
            name, size = _HASHES[slot.kind]
            before, after = (found[:size] for found in hashed[name])
            if before == slot.hash != after:
                yield slot.offset, slot.offset + size, after


def _hashed(
    read: Read, start: int, end: int, names: Iterable[str], edits: Sequence[Edit]
) -> dict[str, tuple[bytes, bytes]]:
    """The hashes of a page before and after the edits, by each algorithm; none of a page that ends early."""
    hashers = {name: [hashlib.new(name, usedforsecurity=False) for _ in range(2)] for name in names}
    while start < end and (piece := read(start, min(end - start, _AT_ONCE))):
        replaced = _replaced(piece, start, edits)
        for before, after in hashers.values():
            before.update(piece)
            after.update(replaced)
        start += len(piece)
    return {
        name: (before.digest(), after.digest()) if start == end else (b"", b"")
        for name, (before, after) in hashers.items()
    }


def _replaced(piece: bytes, start: int, edits: Sequence[Edit]) -> bytearray:
    """The bytes of the file from ``start`` on after the edits."""
    found = bytearray(piece)
    end = start + len(piece)
    for number in range(bisect_right(edits, start, key=itemgetter(1)), len(edits)):
        low, high, new = edits[number]
        if low >= end:
            break
        inside = slice(max(low, start), min(high, end))
        found[inside.start - start : inside.stop - start] = new[inside.start - low : inside.stop - low]
    return found


def reader(pieces: Callable[[], Iterable[Piece]]) -> Read:
    """Read in content that comes in pieces, from the beginning each time. To go back is to begin again."""
    rest: Iterator[Piece] = iter(())
    piece: Piece = b""
    at = _ANYWHERE  # of the piece

    def read(start: int, length: int) -> bytes:
        nonlocal rest, piece, at
        if start < at:
            rest, piece, at = iter(pieces()), b"", 0
        found = bytearray()
        while True:
            part = piece[start - at : start - at + length]
            found += bytes(part)
            start, length = start + len(part), length - len(part)
            following = next(rest, None) if length else None
            if following is None:
                return bytes(found)
            at, piece = at + len(piece), following

    return read
