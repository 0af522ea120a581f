"""Golden trees: a catalog restored once, so that a space of it is one snapshot, whatever its size.

A golden tree is a read-only Btrfs subvolume ``hololib/golden/<digest>`` that holds everything a space of the
catalog shares, and the files that name their own path as they were recorded; those are made anew in every
snapshot. Golden trees are derived: lost or deleted ones are made again from blobs, and a catalog takes its
golden tree with it.

Beside it lies its *outline*: a catalog of only what a space must make anew. A new space needs no more than
that, so it is made without reading the whole catalog.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from holo import platform
from holo.catalog import Catalog, DirectoryRow
from holo.errors import CatalogInvalid, HoloError
from holo.hololib import Store
from holo.hololib.blobs import DRAFT, temporary_name, write_sparse
from holo.hololib.locks import OnWait, locked
from holo.platform import Directory
from holo.remove import remove
from holo.restore.engine import Engine
from holo.restore.materialize import Materializer
from holo.restore.plan import plan
from holo.restore.relocate import Relocator, leads_into
from holo.restore.report import Tally
from holo.restore.strategy import Decision, Way
from holo.restore.survey import Finding, Survey, nothing_there
from holo.settings import Strategy

_REAL_FAILURES = frozenset({errno.ENOSPC, errno.EIO})
"""What making or copying a subvolume may answer that another way would not cure. All else (no Btrfs, another
filesystem, no permission, a quota of subvolumes) means: restore file by file."""


class Golden:
    """The golden trees of one library."""

    def __init__(
        self, store: Store, workers: int, on_progress: Callable[[int, int], object] | None, on_wait: OnWait
    ) -> None:
        self._store = store
        self._workers = workers
        self._on_progress = on_progress
        self._on_wait = on_wait

    def outline(self, digest: str) -> Catalog | None:
        """What a space of the catalog makes anew, if there is a golden tree. Only its rows, not its totals, count."""
        path = os.path.join(self._store.path, "golden", digest + ".json")
        try:
            with open(path, "rb") as file:
                return Catalog.from_json(file.read(), path)
        except (OSError, CatalogInvalid):
            return None

    def snapshot(self, digest: str, load: Callable[[], Catalog], directory: Directory, name: str) -> bool:
        """Make ``name`` in ``directory`` a writable copy of the golden tree of the catalog of that digest.

        If there is none yet it is made first, from the catalog that ``load`` returns.

        ``False``: not possible here, and nothing is left behind. Raises :class:`HoloError` for a full disk and
        the like.
        """
        try:
            tree = self._open(digest, load)
            try:
                platform.snapshot(tree, directory, name)
            finally:
                platform.close_directory(tree)
        except OSError as error:
            if error.errno in _REAL_FAILURES:
                raise HoloError(
                    f"cannot make a golden tree in {self._store.path}: {error.strerror}",
                    "Free some space on the filesystem of the library.",
                ) from error
            return False
        return True

    def _open(self, digest: str, load: Callable[[], Catalog]) -> Directory:
        path = os.path.join(self._store.path, "golden")
        os.makedirs(path, exist_ok=True)
        folder = platform.open_root(path)
        try:
            with suppress(FileNotFoundError):
                return _open_own(folder, digest)
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            # One maker at a time: who waited finds it made, and what is a draft then is a killed one's.
            what = f"the golden trees of {self._store.path}"
            with locked(os.path.join(path, ".lock"), what, exclusive=True, on_wait=self._on_wait):
                with suppress(FileNotFoundError):
                    return _open_own(folder, digest)
                self._make(load(), folder)
                return _open_own(folder, digest)
        finally:
            platform.close_directory(folder)

    def _make(self, catalog: Catalog, folder: Directory) -> None:
        with platform.listing(folder) as entries:
            stale = [entry.name for entry in entries if entry.name.startswith(DRAFT)]
        for name in stale:
            with suppress(OSError):  # another user's, perhaps
                remove(folder, name)
        draft = DRAFT + temporary_name()
        platform.make_tree(folder, draft)
        try:
            tree = platform.open_child(folder, draft)
            try:
                made = self._fill(catalog, tree, os.path.join(self._store.path, "golden", draft))
                if made.copied:
                    # A clone's data is on the disk, and the clone itself at the latest when the next name is: Btrfs
                    # writes whole transactions. A copy may still be in memory, and nobody would look at it again.
                    platform.sync_filesystem(tree)
                # The name makes it golden, so it comes last. (A read-only subvolume can be renamed in its folder.)
                platform.set_read_only(tree, True)
            finally:
                platform.close_directory(tree)
            self._write_outline(catalog, folder)
            platform.rename(folder, draft, folder, catalog.digest)
        except BaseException:
            remove(folder, draft)
            raise

    def _write_outline(self, catalog: Catalog, folder: Directory) -> None:
        name = catalog.digest + ".json"
        draft = DRAFT + temporary_name()
        descriptor = platform.create_file(folder, draft, 0o666)
        try:
            write_sparse(descriptor, [outline_of(catalog).to_json()])
            platform.sync_file(descriptor)
        finally:
            os.close(descriptor)
        platform.rename(folder, draft, folder, name)

    def _fill(self, catalog: Catalog, tree: Directory, shown: str) -> Tally:
        relocator = Relocator(catalog.prefix, catalog.prefix)
        decision = Decision(Strategy.REFLINK, Way.REFLINK)
        materializer = Materializer(self._store, catalog, relocator, Way.REFLINK, verify=False)
        engine = Engine(tree, shown, materializer, catalog.xattrs, self._workers)
        return engine.execute(plan(catalog, nothing_there(catalog), relocator, decision), self._on_progress)


def _open_own(folder: Directory, name: str) -> Directory:
    """Open a golden tree of this user. A snapshot belongs to whom its source does, and a space is its maker's."""
    tree = platform.open_child(folder, name)
    if platform.status(tree, "").st_uid != os.geteuid():
        platform.close_directory(tree)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
    return tree


def outline_of(catalog: Catalog) -> Catalog:
    """The part of a catalog that a fresh snapshot of its golden tree does not have right yet."""
    moved = set(catalog.relocations)
    kept: list[DirectoryRow] = []
    needed = {""}
    for path, mode, mtime, files, links in reversed(catalog.directories):
        base = path + "/" if path else ""
        rows = [row for row in files if base + row[0] in moved]
        # A symlink is moved to whatever new prefix; only that it leads into the old one counts here.
        symlinks = [row for row in links if leads_into(row[1], catalog.prefix)]
        if rows or symlinks:
            needed.add(path)
        if path in needed:
            needed.add(path.rpartition("/")[0])
            kept.append((path, mode, mtime, rows, symlinks))
    groups = [group for group in catalog.hardlinks if group[0] in moved]
    xattrs = {path: values for path, values in catalog.xattrs.items() if path in moved or path in needed}
    return Catalog(catalog.prefix, kept[::-1], catalog.relocations, groups, xattrs)


def survey_of_snapshot(outline: Catalog, relocator: Relocator) -> Survey:
    """How a fresh snapshot of the golden tree differs from a space: in what names its own path."""
    findings = []
    for path, _, _, files, links in outline.directories:
        base = path + "/" if path else ""
        rows = [row for row in files if relocator.applies(outline.relocations[base + row[0]])]
        if rows or links or not path:
            names = [row[0] for row in rows] + [row[0] for row in links]
            findings.append(Finding(path, replace=names, files=rows, symlinks=links, attributes=True))
    return Survey(findings, {})


def make_own(root: Directory, shown: str, store: Store, outline: Catalog, relocator: Relocator, workers: int) -> Tally:
    """Make a fresh snapshot a space: patch what names its own path. Returns what was made."""
    decision = Decision(Strategy.SMART, Way.SNAPSHOT)
    todo = plan(outline, survey_of_snapshot(outline, relocator), relocator, decision)
    materializer = Materializer(store, outline, relocator, Way.REFLINK, verify=False)
    for fill in todo.fills:
        base = fill.path + "/" if fill.path else ""
        for row in fill.files:
            materializer.check(base + row[0], row)
    return Engine(root, shown, materializer, outline.xattrs, workers).execute(todo)
