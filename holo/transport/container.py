"""The container of a bundle: a ZIP file whose every byte is determined by what is in it.

Any unzip lists and opens it. holo reads only the form that it writes: entries one after the other from the first byte
on, then the central directory, nothing else. So there is no second way to read one: no gap, no overlap, no name twice,
no local header that says something else. The form is APPNOTE.TXT 6.3.9 (PKWARE): https://support.pkware.com/pkzip/appnote
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from holo import platform
from holo.content import Section
from holo.errors import IntegrityError
from holo.hololib.offer import BLOCK

STORED = 0
ZSTD = 93
"""Compression method, APPNOTE 4.4.5."""

_METHODS = (STORED, ZSTD)

_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_TELLING = struct.Struct("<10xH4xLLLHH10xL")
"""Of those fields the ones that are not the same in every entry, and not told by them."""

_END_64 = struct.Struct("<4sQHHLLQQQQ")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4sHHHHLLH")
_EXTRA = struct.Struct("<HH")

_BY_UNIX = 3 << 8 | 63
"""Made by: the attributes are Unix's, the version is the first that knows zstd (4.4.2, 4.4.3)."""

_MIDNIGHT, _FIRST_DAY = 0, 1 << 5 | 1
"""1980-01-01 00:00: the first time that a ZIP file can tell (4.4.6), for all."""

_ATTRIBUTES = 0o100444 << 16
_WIDE = 0xFFFFFFFF
"""Stands for a number that is in the extra field of ZIP64 instead (4.4.8)."""

_FOR_ZIP64 = 45
"""The version that a reader needs for such a field, APPNOTE 4.4.3."""

_MANY = 0xFFFF
_ZIP64 = 1
_PADDING = 0xD935
"""The extra field that zipalign uses to align content: https://android.googlesource.com/platform/tools/apksig"""

_READ_AT_ONCE = 16 << 10
"""Bytes up to which content is read together with the header before it."""

_LONGEST_NAME = 255
_MOST_DIRECTORY = 1 << 30
"""Bytes of a central directory: some eight million entries. A larger one is refused."""


class Entry(NamedTuple):
    """One file in the container."""

    name: str
    """ASCII"""
    method: int
    crc: int
    """CRC-32 of the content"""
    stored: int
    """bytes in the container"""
    size: int
    """bytes of the content"""
    start: int
    """where its local header begins"""
    data: int
    """where its stored bytes begin"""

    @property
    def end(self) -> int:
        return self.data + self.stored


def entry_at(start: int, name: str, method: int, crc: int, stored: int, size: int, *, align: bool) -> Entry:
    """The entry whose local header begins at ``start``. ``align``: its data begin at a block."""
    data = start + _LOCAL.size + len(name) + (_EXTRA.size + 16 if _is_wide(stored, size) else 0)
    if align and data % BLOCK:
        data += _EXTRA.size  # at least: the field that pads
        data += -data % BLOCK
    return Entry(name, method, crc, stored, size, start, data)


def local_header(entry: Entry) -> bytes:
    """The bytes of an entry before its data: the same wherever it begins, unless it is aligned."""
    text, method, crc, stored, size, start, data = entry
    name = text.encode("ascii")
    version = _needed(method, stored, size)
    extra = b""
    if padding := data - start - _LOCAL.size - len(name):
        if _is_wide(stored, size):
            extra = _EXTRA.pack(_ZIP64, 16) + struct.pack("<QQ", size, stored)
            stored = size = _WIDE
            padding -= len(extra)
        if padding:
            extra += _EXTRA.pack(_PADDING, padding - _EXTRA.size) + bytes(padding - _EXTRA.size)
    fields = (version, 0, method, _MIDNIGHT, _FIRST_DAY, crc, stored, size, len(name), len(extra))
    return _LOCAL.pack(b"PK\3\4", *fields) + name + extra


def directory_of(records: Sequence[bytes], start: int) -> bytes:
    """All that follows the last entry, which ends at ``start``: the central directory of these records, and its end."""
    directory = b"".join(records)
    count, size = len(records), len(directory)
    end = b""
    if count >= _MANY or start >= _WIDE or size >= _WIDE:
        end = _END_64.pack(b"PK\6\6", _END_64.size - 12, _BY_UNIX, _FOR_ZIP64, 0, 0, count, count, size, start)
        end += _LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
    few = min(count, _MANY)
    return directory + end + _END.pack(b"PK\5\6", 0, 0, few, few, min(size, _WIDE), min(start, _WIDE), 0)


def record_of(entry: Entry, moved: int = 0) -> bytes:
    """The part of the central directory about an entry that was ``moved`` by so many bytes."""
    text, method, crc, stored, size, start, _ = entry
    start += moved
    name = text.encode("ascii")
    version = _needed(method, stored, size)
    extra = b""
    if size >= _WIDE or stored >= _WIDE or start >= _WIDE:
        version = max(version, _FOR_ZIP64)
        wide = [size, stored] if _is_wide(stored, size) else []  # both, as in the local header
        if wide:
            size = stored = _WIDE
        if start >= _WIDE:
            wide.append(start)
            start = _WIDE
        extra = _EXTRA.pack(_ZIP64, 8 * len(wide)) + struct.pack(f"<{len(wide)}Q", *wide)
    fields = (_BY_UNIX, version, 0, method, _MIDNIGHT, _FIRST_DAY, crc, stored, size, len(name), len(extra))
    return _CENTRAL.pack(b"PK\1\2", *fields, 0, 0, 0, _ATTRIBUTES, start) + name + extra


def _needed(method: int, stored: int, size: int) -> int:
    """The version that a reader needs for an entry, APPNOTE 4.4.3."""
    if method == ZSTD:
        return 63
    return _FOR_ZIP64 if _is_wide(stored, size) else 20


def _is_wide(stored: int, size: int) -> bool:
    return stored >= _WIDE or size >= _WIDE


def read_directory(descriptor: int, path: str) -> list[Entry]:
    """The entries of an open file, in their order.

    Raises :class:`IntegrityError` for anything but what :func:`local_header` and :func:`directory_of` would write; the
    local headers are for :func:`section_of`. Raises :class:`OSError`.
    """

    def damaged(why: str) -> IntegrityError:
        return IntegrityError(f"{path} is damaged or not complete: {why}", "Get the file again. Nothing was changed.")

    size = os.fstat(descriptor).st_size
    count, length, start = _read_end(descriptor, size, damaged)
    if start + length > size or length > _MOST_DIRECTORY or count * _CENTRAL.size > length:
        raise damaged("its directory lies outside")
    data = b"".join(_read(descriptor, start, length))
    if len(data) != length:
        raise damaged("it is shorter than it says")
    entries = _parse(data, start, damaged)
    if len(entries) != count or len({entry.name for entry in entries}) != count:
        raise damaged("a name stands twice in its directory, or is missing")
    written = directory_of([*map(record_of, entries)], start)
    if written[:length] != data or len(written) != size - start:
        raise damaged("its directory is not what holo writes")
    if b"".join(_read(descriptor, start + length, size - start - length)) != written[length:]:
        raise damaged("the end of its directory is not what holo writes")
    return entries


def _read_end(descriptor: int, size: int, damaged: Callable[[str], IntegrityError]) -> tuple[int, int, int]:
    """The number of entries, the bytes of the central directory, and where it begins."""
    last = _LOCATOR.size + _END.size
    tail = platform.read_at(descriptor, last, max(0, size - last))
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\5\6":
        raise damaged("it does not end as a bundle does")
    _, _, _, _, count, length, start, _ = _END.unpack(tail[-_END.size :])
    if count == _MANY or _WIDE in (length, start):
        if len(tail) < last or tail[:4] != b"PK\6\7":
            raise damaged("the end of its directory is missing")
        _, _, at, _ = _LOCATOR.unpack(tail[: _LOCATOR.size])
        record = platform.read_at(descriptor, _END_64.size, at) if at < size else b""
        if len(record) != _END_64.size or record[:4] != b"PK\6\6":
            raise damaged("the end of its directory is missing")
        *_, count, length, start = _END_64.unpack(record)
    return count, length, start


def _parse(data: bytes, end: int, damaged: Callable[[str], IntegrityError]) -> list[Entry]:
    """The entries of a central directory; ``end``: where the last one's data end."""
    rows: list[tuple[str, int, int, int, int, int]] = []
    position = 0
    while position < len(data):
        if len(data) - position < _CENTRAL.size:
            raise damaged("its directory breaks off")
        method, crc, stored, size, named, extra, start = _TELLING.unpack_from(data, position)
        position += _CENTRAL.size + named
        try:
            name = data[position - named : position].decode("ascii")
            if extra:
                wide = [value for value in (size, stored, start) if value == _WIDE]
                values = iter(struct.unpack_from(f"<{len(wide)}Q", data, position + _EXTRA.size))
                size, stored, start = (next(values) if value == _WIDE else value for value in (size, stored, start))
                position += extra
        except (UnicodeDecodeError, struct.error):
            raise damaged("its directory is malformed") from None
        if method not in _METHODS or (method == STORED and stored != size) or not 0 < named <= _LONGEST_NAME:
            raise damaged(f"an entry of it is not of holo's kinds: {name[:_LONGEST_NAME]!r}")
        rows.append((name, method, crc, stored, size, start))
    entries = []
    expected = 0
    following = (row[5] for row in rows[1:])
    for name, method, crc, stored, size, start in rows:
        next_start = next(following, end)
        data_start = next_start - stored
        gap = data_start - start - _LOCAL.size - len(name)
        if _is_wide(stored, size):
            gap -= _EXTRA.size + 16
        if start != expected or (gap and not _EXTRA.size <= gap < BLOCK + _EXTRA.size):
            raise damaged("its entries do not follow each other")
        entries.append(Entry(name, method, crc, stored, size, start, data_start))
        expected = next_start
    if expected != end:
        raise damaged("its entries do not follow each other")
    return entries


def section_of(descriptor: int, entry: Entry, path: str) -> Section:
    """The stored bytes of an entry, which are read at once if they are few.

    Raises :class:`IntegrityError` if its local header does not say what the central directory says; :class:`OSError`.
    """
    wanted = local_header(entry)
    is_small = entry.stored <= _READ_AT_ONCE
    found = platform.read_at(descriptor, entry.end - entry.start if is_small else len(wanted), entry.start)
    if not found.startswith(wanted):
        raise IntegrityError(
            f"{path} is damaged: {entry.name} does not begin as its directory says", "Get the file again."
        )
    return Section(descriptor, entry.data, entry.stored, found[len(wanted) :] if is_small else None)


def _read(descriptor: int, position: int, length: int) -> Iterable[bytes]:
    """So many bytes from a position on, in pieces; fewer if the file ends."""
    end = position + length
    while position < end and (piece := platform.read_at(descriptor, min(1 << 20, end - position), position)):
        yield piece
        position += len(piece)
