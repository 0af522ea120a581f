"""An SBOM, a list of what is in a catalog or a space: packages of Python, conda and npm, as a CycloneDX document.

    catalog --find--> files that describe packages --read, bounded--> packages --> document

Nothing but the catalog and the contents is looked at, never a tree on the disk: so the list is of what was recorded.
A space that is not what was recorded comes as a catalog of what is there now.
"""

from __future__ import annotations

from typing import NamedTuple

from holo.catalog import Catalog, FileRow, escape
from holo.checkout.contents import Readable
from holo.errors import os_errors_as
from holo.files import write_output
from holo.hololib import CatalogRef
from holo.sbom.document import document
from holo.sbom.find import Found, Kind, find, folders_of
from holo.sbom.packages import Locked, NotUnderstood, Package, conda_package, node_lock, node_package, python_package
from holo.streams import Unwritten

_LARGEST: dict[Kind, int] = {"python": 4 << 20, "conda": 32 << 20, "node": 4 << 20, "lock": 32 << 20}
"""Bytes of one file. conda's names all files of its package, npm's all packages."""

_MOST_READ = 512 << 20
"""Bytes of all files together, each content counted once: an end to what a hostile catalog can ask for."""

_MOST_LOCKS = 64 << 20
"""Bytes of npm's lists, which are kept while the packages are read."""


class Sbom(NamedTuple):
    """What is in a catalog, or in a space."""

    catalog: CatalogRef
    """of a space: that which it was restored to"""
    components: int
    """packages in the document; one that is there twice, and looks the same, is one"""
    skipped: tuple[str, ...]
    """the paths of files that should describe a package, and could not be understood"""
    document: str
    """CycloneDX 1.6, JSON"""
    file: str | None = None
    """where it was written, if it was"""
    space: str | None = None
    """the space that it is about; ``None``: it is about what was recorded, which an unchanged space is"""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user has to know: that something is missing."""
        if not self.skipped:
            return ()
        one = len(self.skipped) == 1
        files = (
            "1 file that should describe a package"
            if one
            else f"{len(self.skipped):,} files that should describe packages"
        )
        why = "malformed, too large, or a symlink" if one else "malformed, too large, or symlinks"
        return (f"skipped {files} ({why}): {self.skipped[0]}{'' if one else ', ...'}",)

    def to_json(self) -> dict[str, object]:
        """The document that `holo sbom -o FILE --json` prints."""
        found: dict[str, object] = {
            "file": self.file,
            "catalog": self.catalog._asdict(),
            "components": self.components,
            "skipped": list(self.skipped),
        }
        return found if self.space is None else found | {"space": self.space}

    def written_to(self, path: str) -> Sbom:
        """Write the document to a file, which appears when it is whole. Raises :class:`~holo.errors.HoloError`."""
        with os_errors_as(f"cannot write {path}", kind=Unwritten):
            write_output(path, self.document.encode())
        return self._replace(file=path)


def sbom_of(ref: CatalogRef, catalog: Catalog, contents: Readable, space: str | None = None) -> Sbom:
    """The list of a catalog, or of a ``space`` that was restored to it, as it is now.

    Raises what reading the contents raises.
    """
    reader = Reader(contents)
    packages: dict[Package, list[str]] = {}
    skipped: list[str] = []
    nodes: list[tuple[str, Package]] = []
    locks: dict[str, dict[str, Locked]] = {}
    for found in find(catalog):
        path = escape(found.path)
        try:
            if found.kind == "lock":
                locks[found.path.rpartition("/")[0]] = reader.lock(found)
            elif found.kind == "node":
                nodes.append((found.path, reader.package(found)))
            else:
                packages.setdefault(reader.package(found), []).append(path)
        except NotUnderstood:
            skipped.append(path)
    for at, package in nodes:
        packages.setdefault(_as_locked(at, package, locks), []).append(escape(at))
    return Sbom(ref, len(packages), tuple(skipped), document(ref, packages, space), space=space)


def _as_locked(path: str, package: Package, locks: dict[str, dict[str, Locked]]) -> Package:
    """A package with what npm has noted of it, if that is about the same version."""
    for folder, below in folders_of(path.removesuffix("/package.json")) if locks else ():
        entry = locks.get(folder, {}).get(below)
        if entry is not None:
            if entry.version != package.version:
                return package
            return package._replace(hashes=entry.hashes, references=entry.references)
    return package


class Reader:
    """Reads and parses each content once, however often a catalog names it."""

    def __init__(self, contents: Readable) -> None:
        self._contents = contents
        self._left = _MOST_READ
        self._left_for_locks = _MOST_LOCKS
        self._packages: dict[tuple[Kind, str, str], Package | None] = {}
        self._locks: dict[str, dict[str, Locked] | None] = {}

    def package(self, found: Found) -> Package:
        """The package that a file describes. Raises :class:`NotUnderstood`."""
        if found.row is None:
            raise NotUnderstood
        key = (found.kind, found.row[4], found.origin[4] if found.origin is not None else "")
        if key not in self._packages:
            try:
                self._packages[key] = self._parsed(found, found.row)
            except NotUnderstood:
                self._packages[key] = None
        package = self._packages[key]
        if package is None:
            raise NotUnderstood
        return package

    def lock(self, found: Found) -> dict[str, Locked]:
        """What a list of npm's says. Raises :class:`NotUnderstood`."""
        assert found.row is not None
        digest, size = found.row[4], found.row[2]
        if digest not in self._locks:
            self._locks[digest] = None
            if size <= self._left_for_locks:
                self._left_for_locks -= size
                self._locks[digest] = node_lock(self._read("lock", found.row))
        lock = self._locks[digest]
        if lock is None:
            raise NotUnderstood
        return lock

    def _parsed(self, found: Found, row: FileRow) -> Package:
        data = self._read(found.kind, row)
        if found.kind == "conda":
            return conda_package(data)
        if found.kind == "node":
            return node_package(data)
        try:
            origin = self._read("python", found.origin) if found.origin is not None else None
        except NotUnderstood:
            origin = None
        return python_package(data, origin)

    def _read(self, kind: Kind, row: FileRow) -> bytes:
        _, _, size, _, digest = row
        if size > min(_LARGEST[kind], self._left):
            raise NotUnderstood
        self._left -= size
        return b"".join(map(bytes, self._contents.chunks(digest, size)))
