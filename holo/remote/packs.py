"""Packs: some of the blobs of a catalog in one object, and the map that says which is where.

A pack is a container as bundles are (:mod:`holo.transport.container`), with entries ``library/ab/<digest>`` only, each
compressed unless that does not make it smaller. A catalog's object is one zstd frame with two lines of JSON: the map,
and the catalog in its canonical form. The map tells of each content of the catalog, in the order in which they come
first, in which pack it is, and where. It is believed no more than any other: what is read by it is hashed.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog
from holo.content import Hole, Piece, Section, write_all
from holo.errors import CatalogInvalid, NewerFormat
from holo.hololib import Library
from holo.hololib.catalogs import LARGEST
from holo.hololib.frames import Compressor, frame_of, inflate, most_compressed
from holo.hololib.verified import CHUNK, ContentMismatch, verified_chunks
from holo.transport.bundle import blob_entry, unnamed_file
from holo.transport.container import STORED, ZSTD
from holo.transport.source import Blob
from holo.transport.writer import Writer

PACK = 16 << 20
"""Bytes of a pack, about: restic's packs are as large. So few requests that latency does not count, and so small that
one is soon there."""

_FORMAT = "holo catalog"
_VERSION = 1
_MOST_MAP = 64 << 20
_LONGEST_ROW = 160
"""Bytes of a map for each content: four numbers, and at most one pack."""

LARGEST_OBJECT = LARGEST + _MOST_MAP
_LARGEST_PACK = 1 << 50

WHOLE, FRAME, SPARSE = 0, 1, 2
"""How content is stored: as it is; as a frame; as a frame of what is to have holes."""


class Pack(NamedTuple):
    """A pack by its name."""

    digest: str
    size: int
    """bytes"""


class Slot(NamedTuple):
    """Where a content is."""

    pack: Pack
    offset: int
    """of its stored bytes, in the pack"""
    stored: int
    """bytes in the pack"""
    form: int

    @property
    def end(self) -> int:
        return self.offset + self.stored


class PackMap(NamedTuple):
    """Where all the blobs of a catalog are."""

    slots: Mapping[str, Slot]
    """by digest"""

    @property
    def packs(self) -> list[Pack]:
        """Each pack once, in the order in which they are needed first."""
        return [*dict.fromkeys(slot.pack for slot in self.slots.values())]


def blobs_of(catalog: Catalog) -> dict[str, int]:
    """The sizes of the contents of a catalog by digest, in the order in which they come first."""
    return {row[4]: row[2] for _, row in catalog.files()}


# -- the object of a catalog ------------------------------------------------------------------------------------


def object_of(catalog: Catalog, slots: Mapping[str, Slot]) -> bytes:
    """The bytes of a catalog's object."""
    packs: dict[Pack, int] = {}
    ends: dict[Pack, int] = {}
    columns: tuple[list[int], ...] = ([], [], [], [])
    for digest in blobs_of(catalog):
        pack, offset, stored, form = slot = slots[digest]
        row = (packs.setdefault(pack, len(packs)), offset - ends.get(pack, 0), stored, form)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
        ends[pack] = slot.end
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "packs": [list(pack) for pack in packs],
        "pack": columns[0],
        "gap": columns[1],  # from the end of the one before in the same pack: small numbers, which compress well
        "stored": columns[2],
        "form": columns[3],
    }
    return frame_of(json.dumps(document, separators=(",", ":")).encode() + b"\n" + catalog.to_json())


def read_object(descriptor: int, digest: str, origin: str) -> tuple[Catalog, PackMap]:
    """The catalog and the map in an open file.

    Raises :class:`ValueError` with the reason, :class:`CatalogInvalid`, :class:`NewerFormat`.
    """
    import zstandard

    length = os.fstat(descriptor).st_size
    try:
        size = zstandard.frame_content_size(platform.read_at(descriptor, 18, 0))
        if not 0 <= size <= LARGEST_OBJECT:
            raise ValueError("it is too large, or no frame")
        data = b"".join(inflate(Section(descriptor, 0, length), size))
    except (zstandard.ZstdError, ContentMismatch) as error:
        raise ValueError(str(error)) from None
    line, _, document = data.partition(b"\n")
    if digests.of(document) != digest:
        raise ValueError("the catalog in it does not have that digest")
    try:
        catalog = Catalog.from_json(document, origin)
    except CatalogInvalid as error:
        from holo.catalog_model import refuse_newer  # which takes long to import, and has been by now

        refuse_newer(document, error)
        raise
    return catalog, _read_map(line, catalog, origin)


def _read_map(line: bytes, catalog: Catalog, origin: str) -> PackMap:
    sizes = blobs_of(catalog)
    if len(line) > _LONGEST_ROW * (len(sizes) + 1):  # before it takes memory
        raise ValueError("its map is larger than it can be")
    try:
        document = json.loads(line)
        if document["format"] != _FORMAT:
            raise ValueError("it has no map")
        if document["version"] != _VERSION:
            raise NewerFormat(f"{origin} is of version {document['version']!r}, this holo reads version {_VERSION}")
        packs = [Pack(*row) for row in document["packs"]]
        columns = [document[name] for name in ("pack", "gap", "stored", "form")]
        if not all(type(value) is int for column in columns for value in column):
            raise ValueError("its map is not of numbers")
        if {len(column) for column in columns} - {len(sizes)} or not all(map(_is_pack, packs)):
            raise ValueError("its map is not of its catalog")
        ends = [0] * len(packs)
        slots = {}
        for (digest, size), index, gap, stored, form in zip(sizes.items(), *columns, strict=True):
            if not 0 <= index < len(packs):
                raise ValueError("its map names a pack that is not there")
            slot = Slot(packs[index], ends[index] + gap, stored, form)
            ends[index] = slot.end
            is_right = slot.offset >= 0 and stored >= 0 and slot.end <= slot.pack.size
            if not is_right or (stored != size if form == WHOLE else not 0 < stored <= most_compressed(size)):
                raise ValueError("its map says what cannot be")
            if form not in (WHOLE, FRAME, SPARSE):
                raise ValueError("its map says what cannot be")
            slots[digest] = slot
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its map cannot be read ({type(error).__name__})") from None
    return PackMap(slots)


def _is_pack(pack: Pack) -> bool:
    return (
        type(pack.digest) is str
        and digests.is_digest(pack.digest)
        and type(pack.size) is int
        and 0 < pack.size < _LARGEST_PACK
    )


# -- making packs -----------------------------------------------------------------------------------------------


def cut(library: Library, blobs: Sequence[Blob]) -> list[list[Blob]]:
    """Blobs, in tasks that give about one pack each.

    What is compressed already tells how much that is. Content that is not tells nothing, and counts a third, which it
    comes to as a rule; whoever makes the packs begins another where one is full.
    """
    tasks: list[list[Blob]] = [[]]
    room = PACK
    for digest, size in blobs:
        length = library.blobs.frame_size(digest, size) or (size if size <= CHUNK >> 8 else size // 3)
        if tasks[-1] and length > room:
            tasks.append([])
            room = PACK
        tasks[-1].append((digest, size))
        room -= length
    return tasks if tasks[-1] else tasks[:-1]


class Made(NamedTuple):
    """A pack in an open file."""

    pack: Pack
    slots: dict[str, Slot]


def make_packs(library: Library, blobs: Iterable[Blob], folder: str) -> Iterator[tuple[int, Made]]:
    """Write packs with these blobs into files without a name in ``folder``; yields each with its open descriptor.

    The file is closed when the next one is asked for. Raises :class:`IntegrityError` for a damaged blob.
    """
    left = deque(blobs)
    rest = sum(size for _, size in left)  # a little goes along, instead of into a pack of its own
    while left:
        with platform.closing(unnamed_file(folder)) as file:
            writer = Writer(file, folder, align=False)
            forms: dict[str, bool] = {}
            while left and (not forms or writer.position < PACK or rest < PACK // 4):
                digest, size = left.popleft()
                rest -= size
                forms[digest] = _add(writer, library, digest, size, folder)
            entries = [*writer.entries]
            writer.end()
            pack = Pack(digests.of_file(file), writer.position)
            slots = {
                digest: Slot(pack, entry.data, entry.stored, _form(entry.method, is_sparse=is_sparse))
                for entry, (digest, is_sparse) in zip(entries, forms.items(), strict=True)
            }
            yield file, Made(pack, slots)


def _form(method: int, *, is_sparse: bool) -> int:
    return WHOLE if method == STORED else SPARSE if is_sparse else FRAME


def _add(writer: Writer, library: Library, digest: str, size: int, folder: str) -> bool:
    """Write the entry of a blob; whether it has holes."""
    name = blob_entry(digest)
    opened = library.blobs.open_frame(digest, size)
    if opened is not None:
        try:
            frame = Section(opened, 0, os.fstat(opened).st_size)
            if frame.length < size:
                writer.add_section(name, ZSTD, _crc_of_frame(library, digest, size, frame), size, frame)
                return False
        finally:
            os.close(opened)
    if size <= CHUNK:
        pieces = [*library.blobs.chunks(digest, size)]
        writer.add(name, b"".join(map(bytes, pieces)), compress=True)
        return any(isinstance(piece, Hole) for piece in pieces)
    with platform.closing(unnamed_file(folder)) as copy:
        is_sparse, crc = _compress(library.blobs.chunks(digest, size), size, copy)
        length = os.fstat(copy).st_size
        if length < size:
            writer.add_section(name, ZSTD, crc, size, Section(copy, 0, length))
        else:
            writer.add_pieces(name, crc, size, library.blobs.chunks(digest, size))
    return is_sparse


def _crc_of_frame(library: Library, digest: str, size: int, frame: Section) -> int:
    """The CRC-32 of the content of a frame of the library, which is verified."""
    crc = 0
    try:
        for piece in verified_chunks(inflate(frame, size), digest, size):
            crc = crc32(bytes(piece), crc)
    except ContentMismatch as error:
        raise library.blobs.damaged(digest, str(error)) from None
    return crc


def _compress(pieces: Iterable[Piece], size: int, target: int) -> tuple[bool, int]:
    """Write the frame of content; whether that has holes, and its CRC-32."""
    compressor, crc, is_sparse = Compressor(size), 0, False
    for piece in pieces:
        is_sparse |= isinstance(piece, Hole)
        for start in range(0, len(piece), CHUNK):  # a hole may be larger than memory
            data = bytes(piece[start : start + CHUNK])
            crc = crc32(data, crc)
            write_all(target, compressor.add(data))
    write_all(target, compressor.end())
    return is_sparse, crc
