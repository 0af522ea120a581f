"""Make what a throw-away environment is mounted over: the recorded tree once, and for each path what names it."""

from __future__ import annotations

import os

from holo import platform
from holo.catalog import Catalog
from holo.checkout.populate import populate_empty
from holo.checkout.stubs import Stubs
from holo.checkout.tally import Tally
from holo.ephemeral.process import NoOverlayError
from holo.hololib import Library
from holo.relocation.patch import Relocator
from holo.relocation.project import placement, shared_project
from holo.trees.outline import as_recorded, outline_of
from holo.trees.stubs import attributes, parts_of

_RESERVED = "user.overlay."
"""Begins the names of attributes that say something to overlayfs, mounted without root's rights."""


def make_tree(library: Library, catalog: Catalog, path: str, workers: int, *, of_stubs: bool) -> Tally:
    """Make the empty directory ``path`` the tree as it was recorded, on the disk as well. Returns what was made.

    Or a tree of stubs: see :mod:`holo.trees.stubs`.

    Raises :class:`NoOverlayError`, and :class:`HoloError` as a restore does.
    """
    for file, values in catalog.xattrs.items():
        if any(name.startswith(_RESERVED) for name in values):
            raise NoOverlayError(f"{file or 'its root'} has attributes that mean something to overlayfs")
    recorded, relocator = as_recorded(catalog), Relocator.of(catalog, catalog.prefix)
    if of_stubs:
        tree, blobs = parts_of(path)
        os.mkdir(tree)
        os.mkdir(blobs)
        with platform.closing(platform.open_root(blobs)) as data:
            stubs = Stubs(library.blobs, data, attributes())
            made = populate_empty(library, recorded, relocator, tree, workers, stubs)
    else:
        made = populate_empty(library, recorded, relocator, path, workers)
    with platform.closing(platform.open_root(os.path.dirname(path))) as root:
        platform.sync_filesystem(root)
    return made


def make_layer(
    library: Library, catalog: Catalog, path: str, environment: str, project: str, workers: int
) -> list[str]:
    """Make the empty directory ``path`` what of the tree is different where the environment lies at ``environment``.

    ``project``: where its project is to be, if that was chosen. Returns warnings.
    """
    placed = placement(catalog.project, environment, project)
    relocator = Relocator.of(catalog, environment, placed.root)
    relocator.refuse_impossible(catalog.relocations)
    made = populate_empty(library, patched_part(catalog, relocator), relocator, path, workers)
    return [*made.warnings(), *shared_project(catalog, relocator, placed)]


def patched_part(catalog: Catalog, relocator: Relocator) -> Catalog:
    """Only the files and symlinks that are others at the new path, and the directories above them."""
    outline = outline_of(catalog)
    moves = relocator.moves
    relocations = {path: item for path, item in catalog.relocations.items() if moves and relocator.applies(item)}
    rows = []
    needed = {""}
    for path, mode, mtime, files, links in outline.directories:
        base = path + "/" if path else ""
        patched = [row for row in files if base + row[0] in relocations]
        rows.append((path, mode, mtime, patched, links if moves else []))
        above = path if patched or rows[-1][4] else ""
        while above not in needed:
            needed.add(above)
            above = above.rpartition("/")[0]
    groups = [group for group in outline.hardlinks if group[0] in relocations]
    xattrs = {path: values for path, values in outline.xattrs.items() if path in relocations or path in needed}
    return Catalog(
        catalog.prefix, [row for row in rows if row[0] in needed], relocations, groups, xattrs, project=catalog.project
    )
