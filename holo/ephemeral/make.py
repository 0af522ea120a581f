"""Make what a throw-away environment is mounted over: the recorded tree once, and for each path what names it."""

from __future__ import annotations

import os

from holo import platform
from holo.catalog import Catalog
from holo.ephemeral.process import NoOverlayError
from holo.hololib import Store
from holo.restore.golden import as_recorded, outline_of
from holo.restore.relocate import Relocator
from holo.restore.unpack import fill

_RESERVED = "user.overlay."
"""Begins the names of attributes that say something to overlayfs, mounted without root's rights."""


class Maker:
    """Makes trees and layers of one library. Its methods fill an empty directory that nobody else uses."""

    def __init__(self, store: Store, workers: int) -> None:
        self._store = store
        self._workers = workers

    def tree(self, catalog: Catalog, path: str) -> None:
        """The tree as it was recorded. It is on the disk afterwards.

        Raises :class:`NoOverlayError`, and :class:`HoloError` as a restore does.
        """
        for file, values in catalog.xattrs.items():
            if any(name.startswith(_RESERVED) for name in values):
                raise NoOverlayError(f"{file or 'its root'} has attributes that mean something to overlayfs")
        fill(self._store, as_recorded(catalog), Relocator(catalog.prefix, catalog.prefix), path, self._workers)
        root = platform.open_root(os.path.dirname(path))
        try:
            platform.sync_filesystem(root)
        finally:
            platform.close_directory(root)

    def layer(self, catalog: Catalog, path: str, environment: str) -> None:
        """What of the tree is different where the environment lies at the path ``environment``."""
        relocator = Relocator(catalog.prefix, environment)
        relocator.refuse_impossible(catalog.relocations)
        fill(self._store, patched_part(catalog, relocator), relocator, path, self._workers)


def patched_part(catalog: Catalog, relocator: Relocator) -> Catalog:
    """Only the files and symlinks that are others at the new path, and the directories above them."""
    outline = outline_of(catalog)
    moves = relocator.old != relocator.new
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
    return Catalog(catalog.prefix, [row for row in rows if row[0] in needed], relocations, groups, xattrs)
