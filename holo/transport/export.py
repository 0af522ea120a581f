"""Export: write catalogs and their blobs as a bundle, byte for byte the same each time.

    workers   read each blob, verify it, and compute its checksum; compress it, if it is to be and is not yet; put
              together the entries of small ones
    here      write entry after entry, in the order of the catalogs: a pipe cannot be gone back in

What the workers compress and put together goes into one unnamed file, at a place of its own for each task, so that
memory does not grow with content.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from zlib import crc32

from holo import platform
from holo.content import Hole, Piece, Section, write_all
from holo.errors import HoloError, UsageError, os_errors_as
from holo.files import write_output
from holo.hololib import CatalogRef, Library
from holo.hololib.blobs import WORTH_COMPRESSING
from holo.hololib.frames import Compressor, frame_of, frame_pieces, most_compressed
from holo.signatures import CATALOG, canonical, catalog_statement, sign
from holo.streams import Unwritten
from holo.transport.bundle import (
    EXTENTS,
    MANIFEST,
    MOST_PARTS,
    Manifest,
    Named,
    Part,
    blob_entry,
    catalog_entry,
    is_bundle,
    opened,
    rest_entry,
    signature_entry,
    unnamed_file,
)
from holo.transport.container import STORED, ZSTD, Entry, entry_at, local_header
from holo.transport.extents import BlockTable, Fingerprints, Range, put_together
from holo.transport.source import Blob, tasks_of
from holo.transport.writer import Writer
from holo.workers import pool

if TYPE_CHECKING:
    from holo.transport.adopt import OnProgress

_SMALL = 64 << 10
"""Bytes up to which a blob's entry is put together in memory."""

_WORTH_DEFLATING = 512
"""Bytes of content from which on a frame is tried: those of less would make a bundle smaller by 0.2 %."""


class ExportReport(NamedTuple):
    """A bundle that was written."""

    file: str
    """its path; ``-`` for standard output"""
    catalogs: tuple[CatalogRef, ...]
    blobs: int
    """in it"""
    left_out: int
    """blobs that whoever imports it has already"""
    bytes_content: int
    """of the blobs in it"""
    bytes_written: int
    """of the bundle"""
    signatures: int
    """catalogs that have one in it"""
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The document `holo export --json` prints."""
        return {
            "file": self.file,
            "catalogs": [catalog._asdict() for catalog in self.catalogs],
            "blobs": {"written": self.blobs, "left_out": self.left_out},
            "bytes": {"content": self.bytes_content, "written": self.bytes_written},
            "signatures": self.signatures,
            "seconds": self.seconds,
        }


class Cargo(NamedTuple):
    """What goes into a bundle, in its order."""

    catalogs: Sequence[CatalogRef]
    blobs: list[Blob]
    """each once, in the order of the catalogs"""
    left_out: int
    """blobs that whoever imports it has already"""
    without: Sequence[str]
    """the digests of the catalogs of which that is so"""
    signatures: Mapping[str, bytes]
    """by the digests of catalogs"""


def cargo_of(library: Library, references: Sequence[str], known: Sequence[str], key: str | None) -> Cargo:
    """What to export: catalogs by name or digest prefix, without what ``known`` catalogs and bundles hold.

    ``key`` signs the catalogs; with none they have the signatures that the library keeps.

    Raises :class:`~holo.errors.NotFound`, :class:`UsageError` and what reading them raises.
    """
    if not references:
        raise UsageError("there is nothing to export", "Name catalogs: `holo catalogs` shows which there are.")
    catalogs = sorted({library.catalogs.resolve(reference, begun=True) for reference in references}, key=_place)
    digests = list(dict.fromkeys(ref.digest for ref in catalogs))
    wanted: dict[str, int] = {}
    for digest in digests:
        wanted.update(library.catalogs.sizes(digest))
    held: set[str] = set()
    without: set[str] = set()
    for item in known:
        if os.path.isfile(item) and is_bundle(item):
            with opened(item) as bundle:
                for _, digest in bundle.manifest.catalogs:
                    held.update(row[4] for _, row in bundle.catalog(digest).files())
                    without.add(digest)
        else:
            digest = library.catalogs.resolve(item, begun=True).digest
            held.update(library.catalogs.sizes(digest))
            without.add(digest)
    blobs = [blob for blob in wanted.items() if blob[0] not in held]
    signatures = _kept(library, digests) if key is None else _signed(library, digests, key)
    return Cargo(catalogs, blobs, len(wanted) - len(blobs), sorted(without), signatures)


def refuse_to_replace(known: Sequence[str], output: str) -> None:
    """Raise :class:`UsageError` if the new bundle would take the place of one that has what it leaves out."""
    for item in known:
        if os.path.isfile(item) and os.path.exists(output) and os.path.samefile(item, output):
            raise UsageError(
                f"{item} has what the new bundle is to leave out, and would be replaced by it",
                "Write to another file.",
            )


def _kept(library: Library, digests: Iterable[str]) -> dict[str, bytes]:
    """The signatures that the library keeps with catalogs."""
    found = ((digest, library.catalogs.signature(digest)) for digest in digests)
    path = library.catalogs.path
    return {digest: canonical(kept, CATALOG, f"catalog {path(digest)}") for digest, kept in found if kept is not None}


def _signed(library: Library, digests: Iterable[str], key: str) -> dict[str, bytes]:
    """New signatures of catalogs, which the library keeps from now on."""
    made = {digest: sign(catalog_statement(digest), CATALOG, key) for digest in digests}
    for digest, signature in made.items():
        library.catalogs.keep_signature(digest, signature, replace=True)
    return made


def _place(ref: CatalogRef) -> tuple[str, str]:
    """Where a catalog comes in a bundle, in whatever order they were named."""
    return ref.digest, ref.name


def export(
    library: Library,
    cargo: Cargo,
    output: str | int,
    *,
    compress: bool = False,
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write a bundle to the file ``output``, which appears when it is whole, or to an open descriptor.

    The caller holds the library's lock, shared. Raises :class:`~holo.errors.IntegrityError` for a damaged blob and
    :class:`HoloError`.
    """
    started = time.monotonic()
    written = 0

    def write(descriptor: int) -> bytes:
        nonlocal written
        # What is compressed first has room beside the bundle, if that is a file.
        folder = None
        if isinstance(output, str) and stat.S_ISREG(os.fstat(descriptor).st_mode):
            beside = os.path.dirname(os.path.realpath(output))
            folder = beside if os.access(beside, os.W_OK) else None  # the bundle may be a file mounted there
        writer = Writer(descriptor, folder, align=not compress)
        _write(writer, library, cargo, compress, workers, on_progress)
        written = writer.position
        return b""

    shown = output if isinstance(output, str) else "-"
    where = shown if shown == output else "to standard output"
    with os_errors_as(f"cannot write the bundle {where}", kind=Unwritten):
        if isinstance(output, str):
            write_output(output, write)
        else:
            write(output)
    return ExportReport(
        file=shown,
        catalogs=tuple(cargo.catalogs),
        blobs=len(cargo.blobs),
        left_out=cargo.left_out,
        bytes_content=sum(size for _, size in cargo.blobs),
        bytes_written=written,
        signatures=len(cargo.signatures),
        seconds=round(time.monotonic() - started, 3),
    )


def _write(
    writer: Writer,
    library: Library,
    cargo: Cargo,
    compress: bool,
    workers: int,
    on_progress: OnProgress | None,
) -> None:
    manifest = Manifest(tuple(Named(ref.given_name, ref.digest) for ref in cargo.catalogs), tuple(cargo.without))
    writer.add(MANIFEST, manifest.to_json(), compress=False)
    with platform.closing(unnamed_file(writer.folder)) as spool:
        reader = _Reader(library, spool, compress=compress)
        with closing(_in_order(reader, cargo.blobs, workers)) as items:
            begun = [*islice(items, 1)]  # the workers run from now on, while the catalogs are compressed here
            _add_catalogs(writer, library, cargo, compress=compress)
            table = BlockTable()
            parts: dict[str, tuple[Part, ...]] = {}
            count = done = 0
            for item in chain(begun, items):
                found = None
                if isinstance(item, _Run):
                    writer.add_run(item.entries, Section(spool, item.start, item.length))
                elif item.seen is None or (found := put_together(table, item.digest, item.size, item.seen)) is None:
                    _add_whole(writer, library, reader, item)
                else:
                    parts[item.digest], rest = found
                    if (count := count + len(found[0])) > MOST_PARTS:
                        raise HoloError(
                            f"a bundle cannot hold more than {MOST_PARTS:,} holes and shared stretches of files",
                            "Export fewer catalogs at once.",
                        )
                    if rest:
                        _add_rest(writer, library, item.digest, item.size, rest, compress=compress)
                done += len(item.entries) if isinstance(item, _Run) else 1
                if on_progress is not None:
                    on_progress(done, len(cargo.blobs))
    if parts:
        writer.add(EXTENTS, json.dumps(parts, separators=(",", ":")).encode() + b"\n", compress=compress)
    writer.end()


def _add_catalogs(writer: Writer, library: Library, cargo: Cargo, *, compress: bool) -> None:
    """Write the catalogs, each with its signature."""
    for digest in dict.fromkeys(ref.digest for ref in cargo.catalogs):
        writer.add(catalog_entry(digest), library.catalogs.document(digest), compress=compress)
        if (signature := cargo.signatures.get(digest)) is not None:
            writer.add(signature_entry(digest), signature, compress=False)


def _add_whole(writer: Writer, library: Library, reader: _Reader, item: _Item) -> None:
    """Write the entry of a blob that is in one piece."""
    name = blob_entry(item.digest)
    with reader.stored_in(item) as section:
        if section is not None:
            writer.add_section(name, ZSTD if item.frame else STORED, item.crc, item.size, section)
        else:
            writer.add_pieces(name, item.crc, item.size, library.blobs.chunks(item.digest, item.size))


class _Item(NamedTuple):
    """A blob that was read and verified."""

    digest: str
    size: int
    crc: int
    frame: int
    """bytes of its compressed form; 0: it is written as it is"""
    spooled: int | None
    """where in the spool that lies; ``None``: in the library"""
    seen: Fingerprints | None
    """if it may be put together"""


class _Run(NamedTuple):
    """Entries that were put together, and only have to be copied."""

    start: int
    """where they lie in the spool"""
    length: int
    entries: list[Entry]
    """as if the first began at 0"""


_Task: TypeAlias = tuple[int, list[Blob], int]
"""its number; blobs, and where in the spool there is room for them"""

_HEADER = 256
"""More bytes than the local header of a blob that is not aligned."""


def _in_order(reader: _Reader, blobs: list[Blob], workers: int) -> Generator[_Item | _Run]:
    """Read all blobs in the workers; give them out in their order."""
    tasks: list[_Task] = []
    room = 0
    for number, task in enumerate(tasks_of(blobs)):
        tasks.append((number, task, room))
        room += sum(_HEADER + most_compressed(size) for _, size in task)
    waiting: dict[int, list[_Item | _Run]] = {}
    following = 0
    for number, items in pool.run(reader, tasks, workers):
        waiting[number] = items
        while following in waiting:
            yield from waiting.pop(following)
            following += 1


class _Reader:
    """Reads blobs. Made before the workers are forked, called in them with one task after the other."""

    def __init__(self, library: Library, spool: int, *, compress: bool) -> None:
        self._blobs = library.blobs
        self._spool = spool
        self._compress = compress

    def __call__(self, task: _Task) -> tuple[int, list[_Item | _Run]]:
        number, blobs, room = task
        items: list[_Item | _Run] = []
        run = _RunInTheMaking(self._spool, room)
        for digest, size in blobs:
            # Where an aligned entry ends depends on where it begins, which is not known here.
            small = self._read_small(digest, size) if self._compress and size <= _SMALL else None
            if small is not None:
                run.add(blob_entry(digest), size, *small)
                continue
            items += run.end()
            items.append(self._read(digest, size, run.position))
            run.position += most_compressed(size)
        return number, [*items, *run.end()]

    def _read_small(self, digest: str, size: int) -> tuple[bytes, bytes] | None:
        """The content of a blob, verified, and its compressed form; ``None`` if it has holes."""
        # What is never compressed is not looked for in that form.
        found = self._blobs.read_frame(digest, size) if size > WORTH_COMPRESSING else None
        if found is not None and len(found[1]) < size:
            return found
        content, *more = self._blobs.chunks(digest, size)
        if more or isinstance(content, Hole):  # without holes, so little is in one piece
            return None
        if size < _WORTH_DEFLATING:
            return content, content
        # In pieces, what libraries compress is the same bytes as there. In one step the rest takes a fifth less time.
        return content, frame_of(content) if size <= WORTH_COMPRESSING else b"".join(frame_pieces([content], size))

    def _read(self, digest: str, size: int, room: int) -> _Item:
        kept = self._blobs.frame_size(digest, size) if self._compress else 0
        if kept >= size:
            kept = 0  # a library that stores blobs raw would not have it
        made = _Frame(self._spool, room, size) if self._compress and not kept else None
        seen = Fingerprints(size)
        for piece in self._blobs.chunks(digest, size, of_frame=kept > 0):  # which verifies what will be written
            seen.update(piece)
            if made is not None and not isinstance(piece, Hole):
                made.add(piece)
        frame = made.end() if made is not None and not seen.holes else kept
        spooled = room if made is not None and frame else None
        return _Item(digest, size, seen.crc, frame, spooled, seen if seen.holes or seen.prints else None)

    @contextmanager
    def stored_in(self, item: _Item) -> Iterator[Section | None]:
        """Where the bytes lie that are to be written; ``None``: they have to be inflated."""
        if item.spooled is not None and item.frame:
            yield Section(self._spool, item.spooled, item.frame)
            return
        opened = (self._blobs.open_frame if item.frame else self._blobs.open_raw)(item.digest, item.size)
        try:
            yield None if opened is None else Section(opened, 0, item.frame or item.size)
        finally:
            if opened is not None:
                os.close(opened)


class _RunInTheMaking:
    """Entries that a worker puts together. Their place in the spool is written in one piece."""

    def __init__(self, spool: int, position: int) -> None:
        self.position = position
        """where there is room in the spool"""
        self._spool = spool
        self._entries: list[Entry] = []
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, name: str, size: int, content: bytes, frame: bytes) -> None:
        """Add an entry, compressed if that is smaller."""
        method, stored = (ZSTD, frame) if len(frame) < size else (STORED, content)
        entry = entry_at(self._length, name, method, crc32(content), len(stored), size, align=False)
        self._entries.append(entry)
        self._pieces += local_header(entry), stored
        self._length = entry.end

    def end(self) -> list[_Run]:
        """Write the entries into the spool. The run, if there are any."""
        if not self._entries:
            return []
        done = _Run(self.position, self._length, self._entries)
        data = memoryview(b"".join(self._pieces))
        while data:
            written = platform.write_at(self._spool, data, self.position)
            self.position += written
            data = data[written:]
        self._entries, self._pieces, self._length = [], [], 0
        return [done]


class _Frame:
    """The compressed form of a blob in the making, in the spool."""

    def __init__(self, spool: int, room: int, size: int) -> None:
        self._spool = spool
        self._room = self._end = room
        self._size = size
        self._compressor = Compressor(size)

    def add(self, piece: bytes) -> None:
        """Compress the next piece."""
        self._write(self._compressor.add(piece))

    def end(self) -> int:
        """The bytes of the frame, after the last piece; 0 if it is no smaller than the content."""
        self._write(self._compressor.end())
        length = self._end - self._room
        return length if length < self._size else 0

    def _write(self, block: bytes) -> None:
        if block:
            self._end += platform.write_at(self._spool, block, self._end)


def _add_rest(
    writer: Writer, library: Library, digest: str, size: int, rest: Sequence[Range], *, compress: bool
) -> None:
    """Write the entry with what no other has of a blob."""
    length = sum(end - start for start, end in rest)
    with platform.closing(unnamed_file(writer.folder)) as copy:
        crc = 0
        for piece in _in_ranges(library.blobs.chunks(digest, size), rest):
            crc = crc32(piece, crc)
            write_all(copy, piece)
        section = Section(copy, 0, length)
        if compress:
            writer.add_compressed(rest_entry(digest), crc, section)
        else:
            writer.add_section(rest_entry(digest), STORED, crc, length, section)


def _in_ranges(pieces: Iterable[Piece], ranges: Sequence[Range]) -> Iterator[bytes]:
    """Of content in pieces only some ranges, which are in order."""
    position = 0
    left = iter(ranges)
    wanted = next(left, None)
    for piece in pieces:
        end = position + len(piece)
        while wanted is not None and wanted.start < end:
            yield bytes(piece[max(wanted.start - position, 0) : wanted.end - position])
            if wanted.end > end:
                break
            wanted = next(left, None)
        position = end
