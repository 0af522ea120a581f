"""A bundle: catalogs with their blobs in one file, to be carried to another machine.

The container is a ZIP file (:mod:`holo.transport.container`) with, in this order:

    holo.json                the manifest: which catalogs, and which blobs were left out
    catalog/<digest>.json    the catalogs, in their canonical form
    catalog/<digest>.sig     the signature of a catalog, after it, if it has one
    library/ab/<digest>      the blobs in the order in which the catalogs need them; the container is a library
    extents/ab/<digest>      of a blob with holes, or with blocks that another entry has: the rest of it
    extents.json             how those blobs are put together

Content is stored as it is, beginning at a block, so that a filesystem that shares blocks need not copy it; or as the
zstd frame that libraries keep.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog, unique
from holo.content import Section, write_all
from holo.errors import MALFORMED, HoloError, IntegrityError, NewerFormat, NotFound, advice, os_errors_as
from holo.files import SMALL, open_file
from holo.hololib.catalogs import LARGEST
from holo.hololib.frames import inflate, most_compressed
from holo.hololib.layout import NAME
from holo.hololib.offer import BLOCK, Offer, Stretch, Twin, whole
from holo.hololib.verified import ContentMismatch
from holo.platform import Directory
from holo.signatures import CATALOG, canonical
from holo.signatures import LARGEST as LARGEST_SIGNATURE
from holo.transport.container import STORED, Entry, read_directory, section_of
from holo.transport.source import Near
from holo.walk import refuse_no_path

MANIFEST = "holo.json"
EXTENTS = "extents.json"
FORMAT = "holo bundle"
VERSION = 1

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of what is no file: it may be the name of something else."""

_BLOB = re.compile(r"library/([0-9a-f]{2})/\1[0-9a-f]{62}")
"""As :func:`blob_entry` has it."""

FETCH_FIRST = "Fetch the file of a URL first. What `holo push` has sent there is for `holo pull`, or for HOLO_REMOTE."

_BEGINNING = b"PK\3\4"
_TOLD_BY = 30 + len(MANIFEST)
"""Bytes at the beginning that tell a bundle from other files."""

MOST_PARTS = 200_000
"""Of all blobs that are put together: each takes some hundred bytes of memory."""

_MOST_EXTENTS = 64 << 20
"""Bytes of ``extents.json``."""

_RECENT_NS = 100_000_000
"""As in :mod:`holo.record.ingest`: within this a second change of a file may hide."""

_AGAIN = "Get the file again."


class Named(NamedTuple):
    """A catalog in a bundle."""

    name: str | None
    digest: str


class Manifest(NamedTuple):
    """What a bundle says of itself."""

    catalogs: tuple[Named, ...]
    without: tuple[str, ...]
    """the digests of catalogs that whoever imports it has already: their blobs may have been left out"""

    def to_json(self) -> bytes:
        """The document, in its only form."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "catalogs": [item._asdict() for item in self.catalogs],
            "without": list(self.without),
        }
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"


class Part(NamedTuple):
    """Some of a blob that is put together."""

    length: int
    digest: str | None = None
    """of the blob in whose entry it is; ``None`` for a hole"""
    offset: int = 0
    """in the content of that entry"""


def catalog_entry(digest: str) -> str:
    """The name of a catalog's entry."""
    return f"catalog/{digest}.json"


def signature_entry(digest: str) -> str:
    """The name of the entry of a catalog's signature."""
    return f"catalog/{digest}.sig"


def blob_entry(digest: str) -> str:
    """The name of the entry of a blob that is in one piece."""
    return f"library/{digest[:2]}/{digest}"


def rest_entry(digest: str) -> str:
    """The name of the entry with what no other has of a blob that is put together."""
    return f"extents/{digest[:2]}/{digest}"


def is_bundle(path: str) -> bool:
    """Whether a file begins as a bundle does. Raises :class:`HoloError` if that cannot be told."""
    try:
        with platform.closing(open_file(path, follow=True)) as descriptor:
            return _begins_as_bundle(descriptor)
    except OSError as error:
        if error.errno in _NO_FILE:
            return False
        raise HoloError(f"cannot read {path}: {error.strerror}", advice(error)) from error


def _begins_as_bundle(descriptor: int) -> bool:
    start = platform.read_at(descriptor, _TOLD_BY, 0)
    return start[:4] == _BEGINNING and start[30:] == MANIFEST.encode()


class Bundle(Near):
    """An open bundle: a :class:`~holo.transport.source.Source`. Its directory was checked; content is by its users."""

    def __init__(self, descriptor: int, name: str, *, is_private: bool = False) -> None:
        """``is_private``: no other process has ever had the file.

        Raises :class:`IntegrityError` for what is no whole bundle, and :class:`OSError`.
        """
        self.name = name
        self.descriptor = descriptor
        before = os.fstat(descriptor)
        self._state = _state_of(before)
        # A writer that comes later moves the ctime; one that has the file mapped now might not.
        self._tells = is_private or (
            time.time_ns() - before.st_ctime_ns > _RECENT_NS and platform.has_no_writer(descriptor)
        )
        self.entries = read_directory(descriptor, name)
        self._named = {entry.name: entry for entry in self.entries}
        self._blobs = {
            entry.name[-digests.HEX_LENGTH :]: entry for entry in self.entries if _BLOB.fullmatch(entry.name)
        }
        self._plain: dict[str, Section] = {}
        self._sizes: dict[str, int] | None = None
        self.manifest = self._read_manifest()
        self.parts = self._read_parts()
        self._refuse_strangers()

    # -- what is in it ------------------------------------------------------------------------------------

    def catalog(self, digest: str) -> Catalog:
        """A catalog of it, validated."""
        origin = f"{catalog_entry(digest)} of {self.name}"
        data = self._document(self._entry(catalog_entry(digest)), LARGEST)
        if digests.of(data) != digest:
            raise self._damaged(f"catalog {digest} does not have that digest")
        return Catalog.from_json(data, origin)

    def signature(self, digest: str) -> bytes | None:
        """The signature of a catalog of it, or ``None``; whose it is, nobody has checked."""
        name = signature_entry(digest)
        if (entry := self._named.get(name)) is None:
            return None
        data = self._document(entry, LARGEST_SIGNATURE)
        if canonical(data, CATALOG, f"{catalog_entry(digest)} of {self.name}") != data:
            raise self._damaged(f"{name} is not what holo writes")
        return data

    def lacking(self, catalog: Catalog) -> int:
        """How many contents of a catalog of it are not in it. Raises :class:`IntegrityError` if none was left out."""
        count = len({row[4] for _, row in catalog.files() if not self.has(row[4], row[2])})
        if count and not self.manifest.without:
            raise self._damaged(f"it lacks {count} of the blobs of its catalogs")
        return count

    # -- a source -----------------------------------------------------------------------------------------

    def has(self, digest: str, size: int) -> bool:
        if (entry := self._blobs.get(digest)) is not None:
            return entry.size == size
        return digest in self.parts and sum(part.length for part in self.parts[digest]) == size

    def open(self, digest: str, size: int) -> AbstractContextManager[Offer]:
        return nullcontext(self.offer(digest, size))

    def offer(self, digest: str, size: int) -> Offer:
        """The same, which is good as long as the bundle is open."""
        entry = self._blobs.get(digest)
        if entry is not None and entry.size == size:
            section = section_of(self.descriptor, entry, self.name)
            return whole(section) if entry.method == STORED else Offer(size, section)
        if not self.has(digest, size):
            raise self._damaged(f"it has no blob {digest} of {size} bytes")
        return self._put_together(self.parts[digest], size)

    def builds_on_others(self, digest: str) -> bool:
        return digest in self.parts

    def why_no_reflink(self, target: Directory) -> str | None:
        start = self._a_block()
        if start is None:
            return "what is in the bundle is compressed"
        file = platform.nameless_file(target)
        if file is None:
            return "no file without a name can be made there to try it with"
        try:
            platform.clone_range(self.descriptor, start, BLOCK, file, 0)
        except OSError as error:
            if error.errno not in platform.UNAVAILABLE:
                raise
            return error.strerror
        finally:
            os.close(file)
        return None

    def is_unchanged(self) -> bool:
        return self._tells and _state_of(os.fstat(self.descriptor)) == self._state

    def _a_block(self) -> int | None:
        """Where some content lies that can be shared; ``None`` if it has no such."""
        fits = (entry.data for entry in self.entries if entry.method == STORED and entry.stored >= BLOCK)
        return next((start for start in fits if not start % BLOCK), None)

    def _put_together(self, parts: tuple[Part, ...], size: int) -> Offer:
        stretches = []
        start = 0
        for length, digest, offset in parts:
            section = twin = None
            if digest is not None:
                twin = self._twin(digest, offset)
                content = self._content(digest)
                if offset + length > content.length:
                    raise self._damaged(f"{EXTENTS} names what {digest} does not have")
                section = content.part(offset, length)
            stretches.append(Stretch(start, length, section, twin))
            start += length
        return Offer(size, None, stretches)

    def _twin(self, digest: str, offset: int) -> Twin:
        """The place in a content that is at an offset of its entry."""
        if (entry := self._blobs.get(digest)) is not None:
            return Twin(digest, entry.size, offset)
        size = at = 0
        for part in self.parts.get(digest, ()):
            if part.digest == digest and part.offset <= offset < part.offset + part.length:
                at = size + offset - part.offset
            size += part.length
        return Twin(digest, size, at)

    def _content(self, digest: str) -> Section:
        """Where the content of the entry of a blob can be read at any position; inflated into a file if need be."""
        entry = self._blobs.get(digest) or self._named.get(rest_entry(digest))
        if entry is None:
            raise self._damaged(f"{EXTENTS} names {digest}, which is not in it")
        if entry.method == STORED:
            return section_of(self.descriptor, entry, self.name)
        if digest not in self._plain:
            if entry.size != self._size_by_catalogs(digest):
                raise self._damaged(f"{entry.name} does not have the size that its catalogs say")
            frame = section_of(self.descriptor, entry, self.name)
            file = unnamed_file()
            self._plain[digest] = Section(file, 0, 0)  # closed with the others, whatever happens
            try:
                for piece in inflate(frame, entry.size):
                    write_all(file, piece)
            except ContentMismatch as error:
                raise self._damaged(f"{entry.name}: {error}") from None
            self._plain[digest] = Section(file, 0, os.fstat(file).st_size)
        return self._plain[digest]

    def _size_by_catalogs(self, digest: str) -> int:
        """The bytes that the entry of a blob has: what is not to be written anyway is not inflated for its parts."""
        if self._sizes is None:
            catalogs = (self.catalog(digest) for _, digest in self.manifest.catalogs)
            self._sizes = {row[4]: row[2] for catalog in catalogs for _, row in catalog.files()}
        size = self._sizes.get(digest, -1)
        parts = self.parts.get(digest)
        if parts is None or sum(part.length for part in parts) != size:
            return size if parts is None else -1
        return sum(part.length for part in parts if part.digest == digest)

    def close(self) -> None:
        for section in self._plain.values():
            os.close(section.descriptor)
        os.close(self.descriptor)

    # -- reading what holo wrote ---------------------------------------------------------------------------

    def _read_manifest(self) -> Manifest:
        if not self.entries or self.entries[0].name != MANIFEST:
            if _begins_as_bundle(self.descriptor):
                raise self._damaged(f"{MANIFEST} is not in its directory")
            raise HoloError(f"{self.name} is not a bundle", "Name a file that `holo export` has written.")
        data = self._document(self.entries[0], SMALL)
        try:
            document = json.loads(data)
            if document["format"] == FORMAT and document["version"] != VERSION:
                raise NewerFormat(
                    f"{self.name} is a bundle of version {document['version']}, this holo reads version {VERSION}"
                )
            catalogs = tuple(Named(item["name"], item["digest"]) for item in document["catalogs"])
            manifest = Manifest(catalogs, tuple(document["without"]))
            names = [name for name, _ in manifest.catalogs if name is not None]
            is_right = (
                manifest.to_json() == data
                and all(map(digests.is_digest, [*(found for _, found in catalogs), *manifest.without]))
                and all(map(NAME.fullmatch, names))
                and len({*names}) == len(names)
            )
        except MALFORMED:
            is_right = False
        if not is_right or not manifest.catalogs:
            raise self._damaged(f"{MANIFEST} is not what holo writes")
        return manifest

    def _read_parts(self) -> dict[str, tuple[Part, ...]]:
        entry = self._named.get(EXTENTS)
        if entry is None:
            return {}
        data = self._document(entry, _MOST_EXTENTS)
        # Before it takes memory. Between two parts, and in each, are commas.
        if data.count(b",") > 4 * MOST_PARTS:
            raise self._damaged(f"{EXTENTS} is too large")
        try:
            document = json.loads(data, object_pairs_hook=unique)
            parts = {digest: tuple(Part(*part) for part in rows) for digest, rows in document.items()}
            is_right = all(
                digests.is_digest(digest) and rows and all(map(_is_part, rows)) for digest, rows in parts.items()
            )
        except MALFORMED:
            is_right = False
        if not is_right:
            raise self._damaged(f"{EXTENTS} is not what holo writes")
        return parts

    def _refuse_strangers(self) -> None:
        """Raise :class:`IntegrityError` for an entry that no bundle has."""
        known = {MANIFEST, EXTENTS, *map(blob_entry, self._blobs), *map(rest_entry, self.parts)}
        known.update(
            entry(digest) for entry in (catalog_entry, signature_entry) for _, digest in self.manifest.catalogs
        )
        for entry in self.entries:
            name = entry.name
            if name not in known:
                raise self._damaged(f"{name!r} has no place in a bundle")
            if entry.stored > most_compressed(entry.size):
                raise self._damaged(f"{name!r} is larger than it can be")
        if self._blobs.keys() & self.parts.keys():
            raise self._damaged("a blob is in it twice")

    def _entry(self, name: str) -> Entry:
        if (entry := self._named.get(name)) is None:
            raise self._damaged(f"{name} is not in it")
        return entry

    def _document(self, entry: Entry, most: int) -> bytes:
        from zlib import crc32

        if entry.size > most:
            raise self._damaged(f"{entry.name} is larger than {most:,} bytes")
        try:
            section = section_of(self.descriptor, entry, self.name)
            data = b"".join(section.pieces() if entry.method == STORED else inflate(section, entry.size))
        except ContentMismatch as error:
            raise self._damaged(f"{entry.name}: {error}") from None
        except OSError as error:
            raise HoloError(f"cannot read the bundle {self.name}: {error.strerror}", advice(error)) from error
        if len(data) != entry.size or crc32(data) != entry.crc:
            raise self._damaged(f"{entry.name} does not have its checksum")
        return data

    def _damaged(self, why: str) -> IntegrityError:
        return IntegrityError(f"{self.name} is damaged: {why}", _AGAIN)


_INSTEAD = {
    errno.EISDIR: "From a remote: `holo pull NAME FOLDER`. From a library of RCC: `holo import --rcc FOLDER`. From any "
    "other directory: `holo record FOLDER`.",
    errno.EINVAL: "What comes through a pipe, `holo import -` reads from standard input.",
}
"""What to do about what is no file, by the error of opening it."""


@contextmanager
def opened(path: str) -> Iterator[Bundle]:
    """A bundle at a path. Raises :class:`NotFound`, :class:`IntegrityError` and :class:`HoloError`."""
    refuse_no_path(path)
    try:
        descriptor = open_file(path, follow=True)
    except FileNotFoundError:
        hint = FETCH_FIRST if "://" in path else "Name a file that `holo export` has written."
        raise NotFound(f"there is no bundle at {path}", hint) from None
    except OSError as error:
        instead = _INSTEAD.get(error.errno or 0)
        raise HoloError(f"cannot read the bundle {path}: {error.strerror}", instead) from error
    with _closing(descriptor, path, is_private=False) as bundle:
        yield bundle


@contextmanager
def received(source: int, name: str, folder: str) -> Iterator[Bundle]:
    """A bundle that comes through a pipe, kept in a file of ``folder`` that has no name while the block runs."""
    with os_errors_as(f"cannot keep {name} in {folder}"):
        with platform.closing(platform.open_root(folder)) as directory:
            descriptor = platform.nameless_file(directory)
        descriptor = descriptor if descriptor is not None else unnamed_file()
        try:
            for piece in _pieces(source, name):
                write_all(descriptor, piece)
            if os.fstat(descriptor).st_size >= _TOLD_BY and not _begins_as_bundle(descriptor):
                raise IntegrityError(
                    f"{name} is no bundle",
                    "Nothing was changed. An archive of another tool has to be a file: `holo import FILE`.",
                )
        except BaseException:
            os.close(descriptor)
            raise
    with _closing(descriptor, name, is_private=True) as bundle:
        yield bundle


def _pieces(source: int, name: str) -> Iterator[bytes]:
    with os_errors_as(f"cannot read {name}"):
        while piece := os.read(source, 1 << 20):
            yield piece


@contextmanager
def _closing(descriptor: int, name: str, *, is_private: bool) -> Iterator[Bundle]:
    try:
        with os_errors_as(f"cannot read the bundle {name}"):
            bundle = Bundle(descriptor, name, is_private=is_private)
    except BaseException:
        os.close(descriptor)
        raise
    try:
        yield bundle
    finally:
        bundle.close()


def unnamed_file(folder: str | None = None) -> int:
    """An open file that has no name, for what does not fit into memory: in a folder, or that of temporary files.

    Whoever gets it closes it.
    """
    import tempfile  # takes long, and few need it

    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - its descriptor is what is used
    try:
        return os.dup(file.fileno())
    finally:
        file.close()


def _state_of(status: os.stat_result) -> tuple[int, int, int]:
    if not stat.S_ISREG(status.st_mode):
        return (0, 0, 0)
    return status.st_ctime_ns, status.st_mtime_ns, status.st_size


def _is_part(part: Part) -> bool:
    return (
        type(part.length) is int
        and 0 < part.length < 1 << 63
        and (part.digest is None or (type(part.digest) is str and digests.is_digest(part.digest)))
        and type(part.offset) is int
        and 0 <= part.offset < 1 << 63
        and (part.digest is not None or not part.offset)
    )
