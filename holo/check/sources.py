"""Where lost content may still be. Nothing found here is believed before it is hashed on its way into the library."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from glob import escape as glob_escape
from glob import glob
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog, Relocation
from holo.content import Hole, Piece, pieces_of
from holo.errors import HoloError, NotFound
from holo.files import read_file
from holo.hololib import Library
from holo.hololib.blobs import WORTH_COMPRESSING
from holo.hololib.catalogs import LARGEST
from holo.hololib.layout import blob_digest, is_shard
from holo.hololib.verified import ContentMismatch
from holo.relocation.patch import Relocator
from holo.signatures import CATALOG, Trust, canonical, catalog_statement, is_signature
from holo.signatures import LARGEST as LARGEST_SIGNATURE
from holo.space import Space
from holo.transport.bundle import Bundle, is_bundle
from holo.transport.bundle import opened as open_bundle
from holo.transport.source import Folder, verified_pieces
from holo.walk import Walker, absolute, open_directory


class _Place(NamedTuple):
    """A file that should have some content."""

    origin: str
    """for the report"""
    root: str
    path: str
    """below the root"""
    back: tuple[Relocator, Relocation] | None
    """the patches for the path of a space, to be undone"""


def refuse_missing(paths: Sequence[str]) -> None:
    """Raise :class:`NotFound` if one of the ``paths`` (``--from``) is not there."""
    for path in map(absolute, paths):
        if not os.path.isdir(path) and not is_bundle(path):
            raise NotFound(
                f"there is no directory and no bundle at {path}",
                "--from names a library, a bundle, or a directory with files.",
            )


class Sources:
    """Everything at hand: the library's other forms and derived files, the spaces, and ``paths`` (``--from``)."""

    def __init__(
        self,
        library: Library,
        spaces: Iterable[Space],
        paths: Sequence[str],
        quarantine: str,
        trust: Trust,
        opened: ExitStack,
    ) -> None:
        """``quarantine`` is a folder to look through as well: bytes may be in it under another blob's name.

        ``opened`` closes the bundles among the paths. Raises what ``trust`` raises for the catalogs of one.
        """
        self._library = library
        self._spaces = list(spaces)
        self._libraries: list[str] = []
        self._folders: list[str] = []
        self._bundles: list[Bundle] = []
        for path in map(absolute, paths):
            if is_bundle(path):
                bundle = opened.enter_context(open_bundle(path))
                for _, digest in bundle.manifest.catalogs:
                    trust.require_catalog(digest, bundle.signature(digest), path)
                self._bundles.append(bundle)
                continue
            other = _library_in(path)
            # The user's own symlink is followed, but none in there.
            self._folders.append(os.path.realpath(path)) if other is None else self._libraries.append(other)
        self._folders.append(quarantine)
        self._quarantine = quarantine
        self._places: defaultdict[str, list[_Place]] = defaultdict(list)

    def catalog(self, digest: str) -> tuple[Catalog, str] | None:
        """A catalog of another library or, under another one's name, in the quarantine; and where it was."""
        paths = [os.path.join(os.path.dirname(library), "catalog", digest + ".json") for library in self._libraries]
        for folder in self._quarantined("catalog"):
            paths += glob(os.path.join(glob_escape(folder), "*.json"))
        for path in paths:
            with suppress(OSError, HoloError):
                data, _ = read_file(path, LARGEST)
                if digests.of(data) == digest:
                    return Catalog.from_json(data, path), path
        for bundle in self._bundles:
            with suppress(OSError, HoloError):
                return bundle.catalog(digest), bundle.name
        return None

    def signature(self, digest: str) -> bytes | None:
        """A signature of a catalog, in a bundle or in another library; whose it is, nobody has checked."""
        for found in self._signatures(digest):
            with suppress(HoloError):
                if is_signature(found, catalog_statement(digest), CATALOG):
                    return canonical(found, CATALOG, digest)
        return None

    def _signatures(self, digest: str) -> Iterator[bytes]:
        for bundle in self._bundles:
            with suppress(HoloError):
                if (found := bundle.signature(digest)) is not None:
                    yield found
        for library in self._libraries:
            with suppress(OSError):
                path = os.path.join(os.path.dirname(library), "catalog", digest + ".sig")
                yield read_file(path, LARGEST_SIGNATURE)[0]

    def look_for(self, wanted: Mapping[str, int], catalogs: Iterable[str]) -> None:
        """Find files that should have the ``wanted`` content (digest to size), which these ``catalogs`` need."""
        for digest in catalogs:
            self._look_in(self._library.catalogs.read(digest), wanted)
        sizes = set(wanted.values())
        for folder in self._folders:
            for path in _files_of_size(folder, sizes):
                with suppress(OSError, ContentMismatch):
                    place = _Place(path, *os.path.split(path), None)
                    hasher = digests.Hasher()
                    for chunk in _read(place):
                        hasher.update(chunk)
                    if hasher.hexdigest() in wanted:
                        self._places[hasher.hexdigest()].append(place)

    def _look_in(self, catalog: Catalog, wanted: Mapping[str, int]) -> None:
        """The golden tree of a catalog, and its spaces."""
        rows = [(path, row[4]) for path, row in catalog.files() if row[4] in wanted]
        name = self._library.catalogs.name_of(catalog.digest)
        golden = os.path.join(self._library.path, "golden", catalog.digest)
        for path, digest in rows:
            self._places[digest].append(_Place(f"the golden tree of {name}", golden, path, None))
        for space in self._spaces:
            if space.digest == catalog.digest:
                relocator = Relocator.of(catalog, space.made_for, space.project)
                for path, digest in rows:
                    relocation = catalog.relocations.get(path)
                    back = (relocator, relocation) if relocation is not None and relocator.applies(relocation) else None
                    self._places[digest].append(_Place(f"space {space.name}", space.path, path, back))

    def restore(self, digest: str, size: int) -> str | None:
        """Put content into the library again. Returns where it was found; ``None`` if it was not."""
        may_compress = size > WORTH_COMPRESSING and not self._library.keeps_raw
        for origin, read in self._offers(digest, size):
            with suppress(ContentMismatch, HoloError):  # damaged, or not to be read: the next may be better
                # Only a raw blob keeps holes, and only the whole file tells whether there are some.
                compress = may_compress and not any(isinstance(piece, Hole) for piece in _readable(read()))
                self._library.blobs.add(digest, _readable(read()), size, compress=compress)
                return origin
        return None

    def _offers(self, digest: str, size: int) -> Iterator[tuple[str, Callable[[], Iterable[Piece]]]]:
        """Where the content may be, and a function that reads it there, any number of times."""
        yield "its other form", partial(self._library.blobs.chunks, digest, size)
        links = os.path.join(self._library.path, "links", digest[:2])
        with suppress(OSError):
            for name in os.listdir(links):
                if name.startswith(digest):
                    yield "a link form", partial(_read, _Place("", links, name, None))
        for place in self._places.get(digest, ()):
            yield place.origin, partial(_read, place)
        # A file that went to the quarantine because it could not be read may be sound after all.
        for library in self._libraries + self._quarantined("library"):
            yield library, partial(verified_pieces, Folder(library), digest, size)
        for bundle in self._bundles:
            yield bundle.name, partial(verified_pieces, bundle, digest, size)

    def _quarantined(self, name: str) -> list[str]:
        """The folders of that name in the quarantine; each repair may have made one."""
        found = glob(os.path.join(glob_escape(self._quarantine), "*", name))
        return [path for path in found if not os.path.islink(path) and not os.path.islink(os.path.dirname(path))]


def _read(place: _Place) -> Iterator[Piece]:
    """The content of a file, in pieces; not through a symlink. Raises :class:`OSError`, :class:`ContentMismatch`."""
    root = open_directory(place.root)
    walker = Walker(root)
    try:
        parent, _, name = place.path.rpartition("/")
        with platform.closing(platform.open_file(walker.open(parent), name)) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ContentMismatch("it is not a file")
            source = partial(pieces_of, descriptor, status.st_size)
            if place.back is None:
                yield from source()
            else:
                relocator, relocation = place.back
                yield from relocator.undo(source, relocation)
    finally:
        walker.close()
        platform.close_directory(root)


def _readable(chunks: Iterable[Piece]) -> Iterator[Piece]:
    """Report an error in reading as the source's fault; one in writing is the library's."""
    try:
        yield from chunks
    except OSError as error:
        raise ContentMismatch(f"it cannot be read: {error.strerror}") from None


def _library_in(path: str) -> str | None:
    """The folder of blobs in ``path``, a home, a library or that folder itself; ``None`` if there is none."""
    for folder in (os.path.join(path, "hololib", "library"), os.path.join(path, "library"), path):
        with suppress(OSError):
            shards = [name for name in os.listdir(folder) if is_shard(name)]
            for shard in shards:
                with suppress(OSError):
                    if any(blob_digest(shard, name) for name in os.listdir(f"{folder}/{shard}")):
                        return folder
    return None


def _files_of_size(folder: str, sizes: set[int]) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with suppress(OSError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_size in sizes:
                    yield path
