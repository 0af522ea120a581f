"""What a space needs to know of a golden tree or a spare, in a file beside it: a part of the catalog, and two columns.

The part is a catalog of only those files that a space must make anew. A new space needs no more, so it is made without
reading the whole catalog. With the mtimes of all directories, so is one whose directories show that it was changed.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from holo.catalog import Catalog, DirectoryRow
from holo.files import read_file, seal, unseal
from holo.hololib.catalogs import LARGEST
from holo.owners import only_we_wrote
from holo.relocation.roots import names_root


class Outline(NamedTuple):
    """The document beside a tree. Its body is parsed by those who need it."""

    digest: str
    """of the catalog"""
    tree_seal: str
    """of the golden tree (:func:`holo.platform.tree_seal`): one that was made writable and changed has another; or of
    the spare (:mod:`holo.trees.spares`)"""
    inodes: bytes
    """of the directories, which are the same in every snapshot: see :mod:`holo.checkout.proof`"""
    body: bytes
    """a catalog and, in the next line, the times of all directories"""

    def parse_catalog(self) -> Catalog:
        """What a space makes anew. Only its rows, not its totals, count. Raises :class:`CatalogInvalid`."""
        return Catalog.from_json(self.body.partition(b"\n")[0], f"outline of {self.digest}")

    def parse_times(self) -> dict[str, int]:
        """The mtime in ns of every directory, by its path."""
        paths, times = json.loads(self.body.partition(b"\n")[2])
        return dict(zip(paths, times, strict=True))

    def to_bytes(self) -> bytes:
        """The document, which ends with its own digest."""
        header = f"{self.digest} {self.tree_seal} {len(self.inodes)}\n".encode()
        return seal(header + self.inodes + self.body)


def read_outline(path: str, digest: str) -> Outline:
    """The outline of a tree of that catalog.

    Raises :class:`OSError`, and :class:`ValueError` if the file is not what was written for that tree, or others can
    have written it.
    """
    data, status = read_file(path, LARGEST)
    if not only_we_wrote(status):
        raise ValueError("it is another user's")
    header, _, rest = unseal(data).partition(b"\n")
    owner, tree_seal, length = header.decode().split(" ")
    if owner != digest:
        raise ValueError("it is the outline of another catalog")
    return Outline(digest, tree_seal, rest[: int(length)], rest[int(length) :])


def body_of(catalog: Catalog) -> bytes:
    """What an outline says of its catalog: see :class:`Outline`."""
    columns = [row[0] for row in catalog.directories], [row[2] for row in catalog.directories]
    return outline_of(catalog).to_json() + b"\n" + json.dumps(columns, separators=(",", ":")).encode()


def outline_of(catalog: Catalog) -> Catalog:
    """The part of a catalog that a space must make anew, with the directories above it."""
    moved = set(catalog.relocations)
    others = [catalog.project] if catalog.project else []
    found: dict[str, DirectoryRow] = {}
    needed = {""}
    for path, mode, mtime, files, links in catalog.directories:
        base = path + "/" if path else ""
        rows = [row for row in files if base + row[0] in moved]
        # A symlink is moved to whatever new place; only that it leads to an old one counts here.
        symlinks = [row for row in links if names_root(row[1], path, catalog.prefix, others)]
        found[path] = (path, mode, mtime, rows, symlinks)
        above = path if rows or symlinks else ""
        while above not in needed:
            needed.add(above)
            above = above.rpartition("/")[0]
    kept = [row for path, row in found.items() if path in needed]
    groups = [group for group in catalog.hardlinks if group[0] in moved]
    xattrs = {path: values for path, values in catalog.xattrs.items() if path in moved or path in needed}
    return Catalog(catalog.prefix, kept, catalog.relocations, groups, xattrs, project=catalog.project)


def as_recorded(catalog: Catalog) -> Catalog:
    """The catalog of a tree in which nothing is patched."""
    whole = catalog
    return Catalog(
        whole.prefix, whole.directories, {}, whole.hardlinks, whole.xattrs, whole.digest, project=whole.project
    )
