"""Golden trees: a catalog restored once, so that a space of it is one snapshot, whatever its size.

A golden tree is a read-only Btrfs subvolume ``hololib/golden/<digest>`` that holds the whole tree as it was
recorded; the files that name their own path are made anew in every snapshot. Golden trees are derived: lost or
deleted ones are made again from blobs, and a catalog takes its golden tree with it.

Beside it lies its *outline*: a catalog of only those files that a space must make anew, and the times of all
directories. A new space needs no more than the former, so it is made without reading the whole catalog; and with the
latter so is one whose directories show that it was changed. With it are the inodes of the directories, and the seal of
the golden tree (:func:`holo.platform.tree_seal`): one that was made writable and changed is not used but made again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from holo import platform
from holo.catalog import Catalog, DirectoryRow
from holo.checkout.attributes import CAPABILITY, can_keep
from holo.checkout.engine import Engine
from holo.checkout.materialize import Materializer
from holo.checkout.plan import plan
from holo.checkout.proof import packed
from holo.checkout.strategy import Decision, Method
from holo.checkout.survey import Finding, Survey, survey_of_empty
from holo.checkout.tally import Tally
from holo.errors import CatalogInvalid, HoloError
from holo.files import is_ours, read_file, seal, unseal
from holo.hololib import Library
from holo.hololib.blobs import write_all
from holo.hololib.library import LARGEST
from holo.hololib.locks import OnWait, locked
from holo.hololib.shards import DRAFT, temporary_name
from holo.platform import Directory
from holo.relocation import leads_into
from holo.relocation.patch import Relocator
from holo.remove import remove
from holo.settings import Strategy
from holo.walk import Walker, make_folders

_REAL_FAILURES = frozenset({errno.ENOSPC, errno.EIO})
"""What making or copying a subvolume may answer that another way would not cure. All else (no Btrfs, another
filesystem, no permission, a quota of subvolumes) means: restore file by file."""


@dataclass(frozen=True)
class Outline:
    """What a space needs to know of a golden tree. The two documents are parsed when they are asked for."""

    digest: str
    tree_seal: str
    inodes: bytes
    """of the directories, which are the same in every snapshot: see :mod:`holo.checkout.proof`"""
    body: bytes
    """a catalog and, in the next line, the times of all directories"""

    @cached_property
    def catalog(self) -> Catalog:
        """What a space makes anew. Only its rows, not its totals, count. Raises :class:`CatalogInvalid`."""
        return Catalog.from_json(self.body.partition(b"\n")[0], f"outline of {self.digest}")

    @cached_property
    def times(self) -> dict[str, int]:
        """The mtime in ns of every directory, by its path."""
        paths, times = json.loads(self.body.partition(b"\n")[2])
        return dict(zip(paths, times, strict=True))


class Golden:
    """The golden tree of one catalog."""

    def __init__(
        self,
        library: Library,
        digest: str,
        workers: int,
        on_progress: Callable[[int, int], object] | None,
        on_wait: OnWait,
    ) -> None:
        self._library = library
        self._path = os.path.join(library.path, "golden")
        self._digest = digest
        self._read: Outline | None = None
        self._workers = workers
        self._on_progress = on_progress
        self._on_wait = on_wait

    def outline(self) -> Outline | None:
        """The outline, if there is a golden tree that is as it was made."""
        try:
            folder = platform.open_root(self._path)
            try:
                tree = platform.open_child(folder, self._digest)
                try:
                    outline = self._outline if self._is_as_made(tree) else None
                finally:
                    platform.close_directory(tree)
            finally:
                platform.close_directory(folder)
            if outline is not None:
                outline.catalog  # noqa: B018 - one that is not valid is none
        except (OSError, ValueError, CatalogInvalid):
            return None
        return outline

    @property
    def _outline(self) -> Outline:
        """The outline, read once. Raises :class:`OSError` and :class:`ValueError` as :func:`read_outline` does."""
        if self._read is None:
            self._read = read_outline(self._path, self._digest)
        return self._read

    @property
    def inodes(self) -> bytes:
        """Those of the directories of the last snapshot."""
        return self._outline.inodes

    def snapshot(self, load: Callable[[], Catalog], directory: Directory, name: str) -> bool:
        """Make ``name`` in ``directory`` a writable copy of the golden tree.

        If there is none yet it is made first, from the catalog that ``load`` returns.

        ``False``: not possible here, and nothing is left behind. Raises :class:`HoloError` for a full disk and
        the like.
        """
        try:
            for _ in range(2):
                tree = self._open(load)
                try:
                    platform.snapshot(tree, directory, name)
                    # That wrote out what a program has changed in the tree a moment ago, and now it shows.
                    if self._is_as_made(tree):
                        return True
                finally:
                    platform.close_directory(tree)
                remove(directory, name)
        except OSError as error:
            if error.errno in _REAL_FAILURES:
                raise HoloError(f"cannot make a golden tree in {self._library.path}: {error.strerror}") from error
        return False

    def _open(self, load: Callable[[], Catalog]) -> Directory:
        make_folders(self._path)
        folder = platform.open_root(self._path)
        try:
            tree = self._open_sound(folder)
            if tree is not None:
                return tree
            if not os.access(self._path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._path)
            # One maker at a time: who waited finds it made, and what is a draft then is a killed one's.
            what = f"the golden trees of {self._library.path}"
            with locked(os.path.join(self._path, ".lock"), what, exclusive=True, on_wait=self._on_wait):
                self._read = None
                tree = self._open_sound(folder)
                if tree is None:
                    self._library.remove_golden(self._digest)
                    self._read = self._make(load(), folder)
                    tree = platform.open_child(folder, self._digest)
            return tree
        finally:
            platform.close_directory(folder)

    def _open_sound(self, folder: Directory) -> Directory | None:
        """Open a golden tree; ``None`` if there is none that is as it was made. Raises :class:`OSError`.

        It must be this user's: a snapshot belongs to whom its source does, and a space is its maker's.
        """
        try:
            tree = platform.open_child(folder, self._digest)
        except FileNotFoundError:
            return None
        try:
            if platform.status(tree, "").st_uid != platform.user_id():
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), self._digest)
            if self._is_as_made(tree):
                return tree
        except BaseException:
            platform.close_directory(tree)
            raise
        platform.close_directory(tree)
        return None

    def _is_as_made(self, tree: Directory) -> bool:
        try:
            return self._outline.tree_seal == platform.tree_seal(tree)
        except (OSError, ValueError):
            return False

    def _make(self, catalog: Catalog, folder: Directory) -> Outline:
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
                platform.own_group(tree)
                self._refuse_inexact(_cannot_have(catalog, tree))
                tally = self._fill(catalog, tree, os.path.join(self._path, draft))
                self._refuse_inexact(bool(tally.divided or tally.lost))
                if tally.copied:
                    # A clone's data is on the disk, and the clone itself at the latest when the next name is: Btrfs
                    # writes whole transactions. A copy would change the tree later, or be lost with nobody looking.
                    platform.sync_filesystem(tree)
                platform.set_read_only(tree, True)
                tree_seal = platform.tree_seal(tree)
                if tree_seal is None:  # Linux before 4.18
                    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
                outline = Outline(catalog.digest, tree_seal, packed(catalog, tally.directories), body_of(catalog))
                self._write_outline(outline, folder)
            finally:
                platform.close_directory(tree)
            # The name makes it golden, so it comes last: an outline alone does no harm, a golden tree alone would go
            # without for ever. (A read-only subvolume can be renamed in its folder.)
            platform.rename(folder, draft, folder, catalog.digest)
        except BaseException:
            remove(folder, draft)
            raise
        return outline

    @staticmethod
    def _refuse_inexact(is_inexact: bool) -> None:
        """Raise :class:`OSError` if the tree is not exactly as recorded: each space is to say so of itself."""
        if is_inexact:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def _write_outline(self, outline: Outline, folder: Directory) -> None:
        header = f"{outline.digest} {outline.tree_seal} {len(outline.inodes)}\n".encode()
        draft = DRAFT + temporary_name()
        descriptor = platform.create_file(folder, draft, 0o644)
        try:
            write_all(descriptor, seal(header + outline.inodes + outline.body))
            platform.sync_file(descriptor)
        finally:
            os.close(descriptor)
        platform.rename(folder, draft, folder, outline.digest + ".json")

    def _fill(self, catalog: Catalog, tree: Directory, shown: str) -> Tally:
        catalog = as_recorded(catalog)
        relocator = Relocator(catalog.prefix, catalog.prefix)
        decision = Decision(Strategy.REFLINK, Method.REFLINK)
        materializer = Materializer(self._library, catalog, relocator, Method.REFLINK, verify=False)
        engine = Engine(tree, shown, materializer, catalog.xattrs, self._workers)
        return engine.execute(plan(catalog, survey_of_empty(catalog), relocator, decision), self._on_progress)


def _cannot_have(catalog: Catalog, tree: Directory) -> bool:
    """Whether files of the catalog have capabilities, and this user may not give them."""
    given = next((values[CAPABILITY] for values in catalog.xattrs.values() if CAPABILITY in values), None)
    return given is not None and not can_keep((tree,), CAPABILITY, given)


def read_outline(golden: str, digest: str) -> Outline:
    """The outline of a golden tree in the folder ``golden``.

    Raises :class:`OSError`, and :class:`ValueError` if the file is not what was written for that tree, or others can
    have written it.
    """
    data, status = read_file(os.path.join(golden, digest + ".json"), LARGEST)
    if not is_ours(status):
        raise ValueError("it is another user's")
    header, _, rest = unseal(data).partition(b"\n")
    owner, tree_seal, length = header.decode().split(" ")
    if owner != digest:
        raise ValueError("it is the outline of another catalog")
    return Outline(digest, tree_seal, rest[: int(length)], rest[int(length) :])


def as_recorded(catalog: Catalog) -> Catalog:
    """The catalog of a golden tree, in which nothing is patched."""
    return Catalog(catalog.prefix, catalog.directories, {}, catalog.hardlinks, catalog.xattrs, catalog.digest)


def changed_directories(times: Iterable[tuple[str, int]], space: Directory) -> list[str]:
    """The directories (path, mtime in ns) of a space that have another time, or are not there.

    Something was added to them or removed from them. What was changed within a file is not noticed.
    """
    return [path for path, mtime in times if not _has_mtime(space, path, mtime)]


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
    count, folders = 0, [path]
    while folders:  # of which a program can make thousands, one in the other
        path = folders.pop()
        for name, is_folder in _names(walker, path).items():
            if is_folder:
                folders.append(f"{path}/{name}")
            else:
                count += 1
    return count


def _names(walker: Walker, path: str) -> dict[str, bool]:
    """The entries of a directory, and whether they are directories; none where it cannot be read."""
    try:
        with platform.listing(walker.open(path)) as entries:
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:
        return {}


def outline_of(catalog: Catalog) -> Catalog:
    """The part of a catalog that a space must make anew, with the directories above it."""
    moved = set(catalog.relocations)
    found: dict[str, DirectoryRow] = {}
    needed = {""}
    for path, mode, mtime, files, links in catalog.directories:
        base = path + "/" if path else ""
        rows = [row for row in files if base + row[0] in moved]
        # A symlink is moved to whatever new prefix; only that it leads into the old one counts here.
        symlinks = [row for row in links if leads_into(row[1], catalog.prefix)]
        found[path] = (path, mode, mtime, rows, symlinks)
        above = path if rows or symlinks else ""
        while above not in needed:
            needed.add(above)
            above = above.rpartition("/")[0]
    kept = [row for path, row in found.items() if path in needed]
    groups = [group for group in catalog.hardlinks if group[0] in moved]
    xattrs = {path: values for path, values in catalog.xattrs.items() if path in moved or path in needed}
    return Catalog(catalog.prefix, kept, catalog.relocations, groups, xattrs)


def body_of(catalog: Catalog) -> bytes:
    """What an outline says of its catalog: see :class:`Outline`."""
    columns = [row[0] for row in catalog.directories], [row[2] for row in catalog.directories]
    return outline_of(catalog).to_json() + b"\n" + json.dumps(columns, separators=(",", ":")).encode()


def survey_of_snapshot(outline: Catalog, relocator: Relocator) -> Survey:
    """How a fresh snapshot of the golden tree differs from a space: in what names its own path."""
    findings = []
    for path, _, _, files, links in outline.directories:
        base = path + "/" if path else ""
        rows = [row for row in files if relocator.applies(outline.relocations[base + row[0]])]
        if rows or links or not path:
            names = [row[0] for row in rows] + [row[0] for row in links]
            findings.append(Finding(path, replace=names, files=rows, symlinks=links, attributes=True))
    return Survey(findings)


def patch_snapshot(
    root: Directory, shown: str, library: Library, outline: Catalog, relocator: Relocator, workers: int
) -> Tally:
    """Make a fresh snapshot a space: patch what names its own path. Returns what was made."""
    decision = Decision(Strategy.SMART, Method.SNAPSHOT)
    todo = plan(outline, survey_of_snapshot(outline, relocator), relocator, decision)
    materializer = Materializer(library, outline, relocator, Method.REFLINK, verify=False)
    materializer.check(todo.fills)
    return Engine(root, shown, materializer, outline.xattrs, workers).execute(todo)
