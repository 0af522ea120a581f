"""Golden trees: a catalog restored once, so that a space of it is one snapshot, whatever its size.

A golden tree is a read-only Btrfs subvolume ``hololib/golden/<digest>`` that holds the whole tree as it was
recorded; the files that name their own path are made anew in every snapshot. Golden trees are derived: lost or
deleted ones are made again from blobs, and a catalog takes its golden tree with it.

Beside it lies its *outline*: a catalog of its directories, and of only those files that a space must make anew.
A new space needs no more than that, so it is made without reading the whole catalog; and so is one whose
directories show that it was changed. With it is the seal of the golden tree (:func:`holo.platform.tree_seal`): one
that was made writable and changed is not used but made again.
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
from holo.hololib.blobs import DRAFT, temporary_name, write_all
from holo.hololib.locks import OnWait, locked
from holo.hololib.sealed import seal, unseal
from holo.hololib.store import LARGEST
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
from holo.untrusted import is_ours, read_file
from holo.walk import Walker

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
        path = os.path.join(self._store.path, "golden")
        try:
            folder = platform.open_root(path)
            try:
                tree = platform.open_child(folder, digest)
                try:
                    made = platform.tree_seal(tree)
                finally:
                    platform.close_directory(tree)
            finally:
                platform.close_directory(folder)
            tree_seal, document = read_outline(path, digest)
            return Catalog.from_json(document, f"{path}/{digest}.json") if tree_seal == made else None
        except (OSError, ValueError, CatalogInvalid):
            return None

    def snapshot(self, digest: str, load: Callable[[], Catalog], directory: Directory, name: str) -> bool:
        """Make ``name`` in ``directory`` a writable copy of the golden tree of the catalog of that digest.

        If there is none yet it is made first, from the catalog that ``load`` returns.

        ``False``: not possible here, and nothing is left behind. Raises :class:`HoloError` for a full disk and
        the like.
        """
        try:
            for _ in range(2):
                tree = self._open(digest, load)
                try:
                    platform.snapshot(tree, directory, name)
                    # That wrote out what a program has changed in the tree a moment ago, and now it shows.
                    if self._is_as_made(tree, digest):
                        return True
                finally:
                    platform.close_directory(tree)
                remove(directory, name)
        except OSError as error:
            if error.errno in _REAL_FAILURES:
                raise HoloError(
                    f"cannot make a golden tree in {self._store.path}: {error.strerror}",
                    "Free some space on the filesystem of the library.",
                ) from error
        return False

    def _open(self, digest: str, load: Callable[[], Catalog]) -> Directory:
        path = os.path.join(self._store.path, "golden")
        os.makedirs(path, exist_ok=True)
        folder = platform.open_root(path)
        try:
            tree = self._open_sound(folder, digest)
            if tree is not None:
                return tree
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            # One maker at a time: who waited finds it made, and what is a draft then is a killed one's.
            what = f"the golden trees of {self._store.path}"
            with locked(os.path.join(path, ".lock"), what, exclusive=True, on_wait=self._on_wait):
                tree = self._open_sound(folder, digest)
                if tree is None:
                    self._store.remove_golden(digest)
                    self._make(load(), folder)
                    tree = platform.open_child(folder, digest)
            return tree
        finally:
            platform.close_directory(folder)

    def _open_sound(self, folder: Directory, digest: str) -> Directory | None:
        """Open a golden tree; ``None`` if there is none that is as it was made. Raises :class:`OSError`.

        It must be this user's: a snapshot belongs to whom its source does, and a space is its maker's.
        """
        try:
            tree = platform.open_child(folder, digest)
        except FileNotFoundError:
            return None
        try:
            if platform.status(tree, "").st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), digest)
            if self._is_as_made(tree, digest):
                return tree
        except BaseException:
            platform.close_directory(tree)
            raise
        platform.close_directory(tree)
        return None

    def _is_as_made(self, tree: Directory, digest: str) -> bool:
        try:
            return read_outline(os.path.join(self._store.path, "golden"), digest)[0] == platform.tree_seal(tree)
        except (OSError, ValueError):
            return False

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
                if self._fill(catalog, tree, os.path.join(self._store.path, "golden", draft)).copied:
                    # A clone's data is on the disk, and the clone itself at the latest when the next name is: Btrfs
                    # writes whole transactions. A copy would change the tree later, or be lost with nobody looking.
                    platform.sync_filesystem(tree)
                platform.set_read_only(tree, True)
                tree_seal = platform.tree_seal(tree)
                if tree_seal is None:  # Linux before 4.18
                    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
                self._write_outline(catalog, tree_seal, folder)
            finally:
                platform.close_directory(tree)
            # The name makes it golden, so it comes last: an outline alone does no harm, a golden tree alone would go
            # without for ever. (A read-only subvolume can be renamed in its folder.)
            platform.rename(folder, draft, folder, catalog.digest)
        except BaseException:
            remove(folder, draft)
            raise

    def _write_outline(self, catalog: Catalog, tree_seal: str, folder: Directory) -> None:
        name = catalog.digest + ".json"
        header = f"{catalog.digest} {tree_seal}\n".encode()
        draft = DRAFT + temporary_name()
        descriptor = platform.create_file(folder, draft, 0o644)
        try:
            write_all(descriptor, seal(header + outline_of(catalog).to_json()))
            platform.sync_file(descriptor)
        finally:
            os.close(descriptor)
        platform.rename(folder, draft, folder, name)

    def _fill(self, catalog: Catalog, tree: Directory, shown: str) -> Tally:
        catalog = as_recorded(catalog)
        relocator = Relocator(catalog.prefix, catalog.prefix)
        decision = Decision(Strategy.REFLINK, Way.REFLINK)
        materializer = Materializer(self._store, catalog, relocator, Way.REFLINK, verify=False)
        engine = Engine(tree, shown, materializer, catalog.xattrs, self._workers)
        return engine.execute(plan(catalog, nothing_there(catalog), relocator, decision), self._on_progress)


def read_outline(golden: str, digest: str) -> tuple[str, bytes]:
    """The seal of a golden tree in the folder ``golden``, and its outline as a catalog document.

    Raises :class:`OSError`, and :class:`ValueError` if the file is not what was written for that tree, or others can
    have written it.
    """
    data, status = read_file(os.path.join(golden, digest + ".json"), LARGEST)
    if not is_ours(status):
        raise ValueError("it is another user's")
    header, _, document = unseal(data).partition(b"\n")
    owner, _, tree_seal = header.decode().partition(" ")
    if owner != digest:
        raise ValueError("it is the outline of another catalog")
    return tree_seal, document


def as_recorded(catalog: Catalog) -> Catalog:
    """The catalog of a golden tree, in which nothing is patched."""
    return Catalog(catalog.prefix, catalog.directories, {}, catalog.hardlinks, catalog.xattrs, catalog.digest)


def changed_directories(catalog: Catalog, space: Directory) -> list[str]:
    """The directories of a space whose times are not those of a catalog (or of its outline), or that are not there.

    Something was added to them or removed from them. What was changed within a file is not noticed.
    """
    return [row[0] for row in catalog.directories if not _has_mtime(space, row[0], row[2])]


def _has_mtime(root: Directory, path: str, mtime: int) -> bool:
    try:
        return platform.status(root, path).st_mtime_ns == mtime
    except OSError:
        return False


def count_extra(space: Directory, snapshot: Directory, paths: list[str]) -> int:
    """How many files and symlinks, at any depth, these directories of a space have more than those of a snapshot."""
    walker, reference = Walker(space), Walker(snapshot)
    count = 0
    try:
        for path in paths:
            mine, theirs = _names(walker, path), _names(reference, path)
            for name in mine.keys() - theirs:
                count += _count_files(walker, f"{path}/{name}" if path else name) if mine[name] else 1
    finally:
        walker.close()
        reference.close()
    return count


def _count_files(walker: Walker, path: str) -> int:
    entries = _names(walker, path)
    return sum(_count_files(walker, f"{path}/{name}") if is_folder else 1 for name, is_folder in entries.items())


def _names(walker: Walker, path: str) -> dict[str, bool]:
    """The entries of a directory, and whether they are directories; none where it cannot be read."""
    try:
        with platform.listing(walker.open(path)) as entries:
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:
        return {}


def outline_of(catalog: Catalog) -> Catalog:
    """The directories of a catalog, and of what is in them the part that a space must make anew."""
    moved = set(catalog.relocations)
    kept: list[DirectoryRow] = []
    paths = set()
    for path, mode, mtime, files, links in catalog.directories:
        base = path + "/" if path else ""
        rows = [row for row in files if base + row[0] in moved]
        # A symlink is moved to whatever new prefix; only that it leads into the old one counts here.
        symlinks = [row for row in links if leads_into(row[1], catalog.prefix)]
        kept.append((path, mode, mtime, rows, symlinks))
        paths.add(path)
    groups = [group for group in catalog.hardlinks if group[0] in moved]
    xattrs = {path: values for path, values in catalog.xattrs.items() if path in moved or path in paths}
    return Catalog(catalog.prefix, kept, catalog.relocations, groups, xattrs)


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
