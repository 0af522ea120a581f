"""Small Mach-O files with signatures, and a reader that holds all their page hashes against the pages.

The reader shares nothing with holo's: it follows ``cs_blobs.h`` of xnu in its own way.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

SHA1, SHA256, SHA256_TRUNCATED, SHA384 = 1, 2, 3, 4

_DIGESTS: dict[int, Callable[[bytes], bytes]] = {
    SHA1: lambda data: hashlib.sha1(data).digest(),
    SHA256: lambda data: hashlib.sha256(data).digest(),
    SHA256_TRUNCATED: lambda data: hashlib.sha256(data).digest()[:20],
    SHA384: lambda data: hashlib.sha384(data).digest(),
}

ADHOC, LINKER_SIGNED = 0x2, 0x20000


class Signed(NamedTuple):
    """How a program is signed."""

    hashes: Sequence[int] = (SHA256,)
    """the first is that of the code directory, others those of its alternates"""
    shift: int = 12
    """0: all is one page"""
    version: int = 0x20400
    scatter: Sequence[tuple[int, int]] = ()
    """(first page, pages) of what is hashed"""
    wide: bool = False
    """the limit is in the field of 64 bits"""
    cms: bytes | None = None
    bare: bool = False
    """the first code directory is all of the signature"""


LINKED = Signed()


def program(body: bytes, how: Signed | None = LINKED, *, order: str = "<", bits: int = 64, rpath: bytes = b"") -> bytes:
    """A program whose code is ``body``, behind a load command with ``rpath``."""
    string = rpath + b"\0" * (8 - len(rpath) % 8)
    commands = struct.pack(order + "3I", 0x8000001C, 12 + len(string), 12) + string
    size = 28 if bits == 32 else 32
    length = size + len(commands) + (16 if how is not None else 0)
    code = b"\0" * 4 + body
    code += b"\0" * (-(length + len(code)) % 16)
    limit = length + len(code)
    if how is None:
        return _header(order, bits, 1, len(commands)) + commands + code
    room = len(_signature(b"", limit, how))
    commands += struct.pack(order + "4I", 0x1D, 16, limit, room)
    signed = _header(order, bits, 2, len(commands)) + commands + code
    assert len(signed) == limit
    return signed + _signature(signed, limit, how)


def fat(programs: Sequence[bytes], *, wide: bool = False) -> bytes:
    """A file for several processors; each program begins at a multiple of 4096."""
    table, body = b"", b""
    for number, content in enumerate(programs):
        body += b"\0" * (-len(body) % 4096)
        place = (0x0100000C, number, 4096 + len(body), len(content), 12)
        table += struct.pack(">2I2Q2I", *place, 0) if wide else struct.pack(">5I", *place)
        body += content
    head = struct.pack(">2I", 0xCAFEBABF if wide else 0xCAFEBABE, len(programs)) + table
    return head.ljust(4096, b"\0") + body


def _header(order: str, bits: int, count: int, length: int) -> bytes:
    fields = (0xFEEDFACE if bits == 32 else 0xFEEDFACF, 0x0100000C, 0, 2, count, length, 0)
    return struct.pack(order + "7I", *fields) + (b"" if bits == 32 else b"\0" * 4)


def _signature(signed: bytes, limit: int, how: Signed) -> bytes:
    directories = [_directory(signed, limit, kind, how) for kind in how.hashes]
    if how.bare:
        return directories[0]
    blobs = [(number and 0xFFF + number, blob) for number, blob in enumerate(directories)]
    if how.cms is not None:
        blobs.append((0x10000, struct.pack(">2I", 0xFADE0B01, 8 + len(how.cms)) + how.cms))
    at = 12 + 8 * len(blobs)
    index = b""
    for slot, blob in blobs:
        index += struct.pack(">2I", slot, at)
        at += len(blob)
    return struct.pack(">3I", 0xFADE0CC0, at, len(blobs)) + index + b"".join(blob for _, blob in blobs)


def _directory(signed: bytes, limit: int, kind: int, how: Signed) -> bytes:
    page = 1 << how.shift if how.shift else limit
    pages = [page for first, count in how.scatter for page in range(first, first + count)]
    pages = pages or list(range(-(-limit // page)))
    digest = _DIGESTS[kind]
    size = len(digest(b""))
    tail = b"a.program\0"
    scatter = at = 0
    if how.scatter:
        scatter = 88 + len(tail)
        for first, count in (*how.scatter, (0, 0)):
            tail += struct.pack(">2I2Q", count, first, 0, 0)
    tail += b"\xee" * (2 * size)  # the hashes of other blobs
    at = 88 + len(tail)
    slots = b"".join(digest(signed[number * page : min((number + 1) * page, limit)]) for number in pages)
    head = struct.pack(
        ">9I4B2I",
        *(0xFADE0C02, at + len(slots), how.version, ADHOC | LINKER_SIGNED, at, 88, 2, len(pages)),
        *(0xFFFF_FFFF if how.wide else limit, size, kind, 0, how.shift, 0, scatter),
    )
    head += struct.pack(">2IQ3Q", 0, 0, limit if how.wide else 0, 0, 0, 0)
    return head + tail + slots


class Hashed(NamedTuple):
    """The hash of one page in a file."""

    is_right: bool
    place: int
    """of the hash"""
    start: int
    end: int
    """of the page"""


def page_hashes(content: bytes) -> Iterator[Hashed]:
    """All of them, in all signatures of a file that is as it should be."""
    if content[:4] in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"):
        wide = content[3] == 0xBF
        for number in range(_big(content, 4)):
            entry = 8 + number * (32 if wide else 20)
            start, size = (
                (_big(content, entry + 8, 8), _big(content, entry + 16, 8))
                if wide
                else (_big(content, entry + 8), _big(content, entry + 12))
            )
            for found in page_hashes(content[start : start + size]):
                yield Hashed(found.is_right, start + found.place, start + found.start, start + found.end)
        return
    byteorder = "little" if content[0] != 0xFE else "big"

    def number_at(at: int) -> int:
        return int.from_bytes(content[at : at + 4], byteorder)  # type: ignore[arg-type]

    command = 32 if number_at(0) & 1 else 28
    for _ in range(number_at(16)):
        if number_at(command) == 0x1D:
            yield from _in_signature(content, number_at(command + 8))
        command += number_at(command + 4)


def _in_signature(content: bytes, at: int) -> Iterator[Hashed]:
    if _big(content, at) == 0xFADE0C02:
        yield from _in_directory(content, at)
        return
    assert _big(content, at) == 0xFADE0CC0
    for number in range(_big(content, at + 8)):
        blob = at + _big(content, at + 16 + 8 * number)
        if _big(content, blob) == 0xFADE0C02:
            yield from _in_directory(content, blob)


def _in_directory(content: bytes, at: int) -> Iterator[Hashed]:
    version, first_hash, count = (_big(content, at + offset) for offset in (8, 16, 28))
    limit = _big(content, at + 32)
    size, kind, _, shift = content[at + 36 : at + 40]
    if version >= 0x20300 and _big(content, at + 56, 8):
        limit = _big(content, at + 56, 8)
    pages = list(range(count))
    scatter = _big(content, at + 44) if version >= 0x20100 else 0
    if scatter:
        pages = []
        while _big(content, at + scatter):
            base = _big(content, at + scatter + 4)
            pages += range(base, base + _big(content, at + scatter))
            scatter += 24
    for slot, page in enumerate(pages):
        start, end = (page << shift, min((page + 1) << shift, limit)) if shift else (0, limit)
        place = at + first_hash + slot * size
        found = content[place : place + size]
        yield Hashed(found == _DIGESTS[kind](content[start:end]), place, start, end)


def _big(content: bytes, at: int, size: int = 4) -> int:
    return int.from_bytes(content[at : at + size], "big")
