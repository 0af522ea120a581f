"""Record a tree: scan it, read every file once on all cores, publish the catalog last.

    tree    = scan(directory)                 its entries; sockets and the like are refused here
    batches = the files, cut into pieces of work
    workers: read, hash, find the prefix, store new content
    catalog = the scan + the results of the workers
    publish: make everything durable, then one rename

The tree is not frozen. Every file is recorded as it was at one moment, but two files may be recorded at two moments.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from holo import platform
from holo.catalog import BYTECODE_HEADER, Catalog, DirectoryRow, FileRow, Relocation
from holo.errors import HoloError, NotFound, UsageError, os_errors_as
from holo.hololib import Library
from holo.hololib.blobs import Blobs
from holo.hololib.layout import check_name
from holo.hololib.shards import DRAFT, temporary_name
from holo.platform import probe
from holo.projects import project_of
from holo.record.ingest import Batch, Ingest, Ingested
from holo.record.scan import ScannedTree, refuse_special, scan
from holo.relocation import listed
from holo.relocation.bytecode import STALE, compiled_from, has_source, is_bytecode
from holo.relocation.foreign import links_out
from holo.relocation.inspection import Inspector
from holo.relocation.roots import root_of
from holo.spellings import SPELLINGS
from holo.walk import Walker, absolute, refuse_mounts_inside
from holo.workers import pool
from holo.workers.progress import tell

__all__ = ["RecordReport", "record"]

_TASK_FILES = 64

_UNMOUNT = "Unmount it first, or record that by itself. Nothing was recorded."

_WRITE_BACK = 32 << 20
"""Bytes stored after which the disk begins to write them, while the workers read on: so little is left for the end."""

OnProgress = Callable[[int, int], object]
"""Called with (files done, files in all)."""


class RecordReport(NamedTuple):
    """What a record did. ``blobs_new`` were stored, ``blobs_deduplicated`` were in the library already."""

    name: str
    digest: str
    prefix: str
    files: int
    directories: int
    symlinks: int
    bytes: int
    blobs_new: int
    blobs_deduplicated: int
    relocated: int
    warnings: tuple[str, ...]
    seconds: float
    project: str = ""
    """the root of the project, if anything in the tree names that"""

    def to_json(self) -> dict[str, object]:
        """The document `holo record --json` prints."""
        return {
            "name": self.name,
            "digest": self.digest,
            "prefix": self.prefix,
            "project": self.project or None,
            "files": self.files,
            "directories": self.directories,
            "symlinks": self.symlinks,
            "bytes": self.bytes,
            "blobs": {"new": self.blobs_new, "deduplicated": self.blobs_deduplicated},
            "relocated": self.relocated,
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }


def record(
    library: Library,
    directory: str,
    name: str | None = None,
    *,
    root: platform.Directory | None = None,
    skip_special: bool = False,
    keep_setid: bool = False,
    project: str | None = None,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    approve: Callable[[str, str], object] = lambda name, digest: None,
) -> RecordReport:
    """Record ``directory`` under ``name`` (default: :func:`default_name`).

    ``root`` is that directory, open, if it has that path only in another mount namespace; the caller closes it. The
    caller holds a shared lock of the library, for until the end the new blobs belong to no catalog. Recording the same
    tree again stores nothing and yields the same digest. ``project``: the root of the project that the tree belongs
    to, which moves along with it; by default the one that contains it, and with ``""`` none. ``approve`` is called
    with the catalog's name and digest before it is published, and may raise. Raises :class:`NotFound`,
    :class:`UsageError`, :class:`~holo.errors.Conflict` (something is mounted inside),
    :class:`~holo.errors.SourceChanged` or :class:`HoloError`; nothing is published then.
    """
    started = time.monotonic()
    prefix = absolute(directory)
    name = check_name(name, "catalog") if name is not None else default_name(prefix)
    _refuse_library(library, prefix)
    project = (project_of(prefix) or "") if project is None else project
    others = [project] if project not in ("", os.sep, prefix) else []
    covers = root is not None  # including the mounts below that path
    if not covers:
        refuse_mounts_inside(prefix, _UNMOUNT)
    try:
        root = platform.open_root(prefix) if root is None else platform.open_child(root, ".")
    except OSError as error:
        kind = NotFound if error.errno == errno.ENOENT else HoloError
        raise kind(f"cannot record {prefix}: {error.strerror}") from error
    try:
        tree = scan(root, prefix)
        if not skip_special:
            refuse_special(tree)
        with library.unsettled.record("Nothing was recorded."):
            found = _Found(0o7777 if keep_setid else 0o1777)
            _ingest(library, root, (prefix, *others), tree, found, workers, on_progress)
            catalog = _assemble(tree, found, prefix, others)
            if not covers:  # something may have been mounted there, and read
                refuse_mounts_inside(prefix, _UNMOUNT)
            approve(name, catalog.digest)
            replaced = library.catalogs.publish(catalog, name)
    finally:
        platform.close_directory(root)
    return _report(name, tree, found, catalog, replaced, time.monotonic() - started)


def _report(
    name: str,
    tree: ScannedTree,
    found: _Found,
    catalog: Catalog,
    replaced: str | None,
    seconds: float,
) -> RecordReport:
    """``replaced``: the digest of the catalog that had the name until now."""
    contents = {row[4] for _, row in catalog.files()}
    links = ((os.path.join(folder.path, link), to) for folder in tree.folders for link, to, _ in folder.symlinks)
    others = [catalog.project] if catalog.project else []
    warnings = [warning for folder in tree.folders for warning in found.warnings.get(folder.path, ())]
    warnings += links_out(links, catalog.prefix, others)
    if tree.special:
        warnings.append(f"left out, not being files, directories or symlinks: {listed(tree.special)}")
    warnings += without_setid(found.dropped)
    if replaced is not None:
        warnings.append(moved_name(name, replaced))
    return RecordReport(
        name=name,
        digest=catalog.digest,
        prefix=catalog.prefix,
        files=catalog.totals.files,
        directories=catalog.totals.directories,
        symlinks=catalog.totals.symlinks,
        bytes=catalog.totals.bytes,
        blobs_new=len(found.stored),
        blobs_deduplicated=len(contents) - len(found.stored),
        relocated=sum(relocation.kind not in ("bytecode", "opaque") for relocation in catalog.relocations.values()),
        warnings=tuple(dict.fromkeys(warnings)),
        seconds=round(seconds, 3),
        project=catalog.project,
    )


class _Found:
    """What all files became. A million of them are there at once, so next to nothing is kept but their rows."""

    def __init__(self, kept: int) -> None:
        """``kept``: the bits of a mode that are recorded."""
        self.kept = kept
        self.rows: defaultdict[str, list[FileRow]] = defaultdict(list)
        """by the path of their folder"""
        self.relocations: dict[str, Relocation] = {}
        self.xattrs: dict[str, dict[str, bytes]] = {}
        self.names: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        """of files with several, by their inodes"""
        self.warnings: defaultdict[str, list[str]] = defaultdict(list)
        """by the path of the folder"""
        self.dropped: list[str] = []
        """the paths of files that have other bits in their mode"""
        self.stored: set[str] = set()
        """the digests of content that the library did not have"""
        self._same: dict[int, int] = {}  # equal numbers take memory once

    def add(self, folder: str, items: Sequence[Ingested]) -> None:
        keep, rows = self._same.setdefault, self.rows[folder]
        for (name, mode, size, mtime, digest), relocation, xattrs, stored, inode, warnings in items:
            own = mode & self.kept
            rows.append((name, keep(own, own), keep(size, size), mtime, digest))
            if stored:
                self.stored.add(digest)
            if own != mode:
                self.dropped.append(f"{folder}/{name}" if folder else name)
            if relocation is not None or xattrs is not None or inode is not None or warnings:
                path = f"{folder}/{name}" if folder else name
                if relocation is not None:
                    self.relocations[path] = relocation
                if xattrs is not None:
                    self.xattrs[path] = xattrs
                if inode is not None:
                    self.names[inode].append(path)
                self.warnings[folder] += warnings


def without_setid(paths: Sequence[str]) -> list[str]:
    """The warning about files whose setuid and setgid bits are not kept, if there are any."""
    if not paths:
        return []
    return [f"without their setuid and setgid bits, which --keep-setid keeps: {listed(sorted(paths))}"]


def moved_name(name: str | None, replaced: str, *, dry_run: bool = False) -> str:
    """The warning about a name that meant another catalog, whose digest is ``replaced``, until now."""
    if dry_run:
        return f"the name {name} means the catalog {replaced[:12]} now, which would be kept under its digest"
    return f"the name {name} meant the catalog {replaced[:12]} until now, which is kept under its digest"


def default_name(prefix: str) -> str:
    """The catalog name for a directory: ``venv`` for ``/home/me/.venv``."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", os.path.basename(prefix)).lstrip(".+-")[:64]
    return name or "environment"


def _refuse_library(library: Library, prefix: str) -> None:
    real = os.path.realpath(prefix)
    if os.path.commonpath([real, os.path.realpath(library.path)]) in (real, os.path.realpath(library.path)):
        raise UsageError(
            f"{prefix} and the library {library.path} lie inside each other",
            "Record another directory, or name another library with HOLO_HOME.",
        )


def _ingest(
    library: Library,
    root: platform.Directory,
    roots: Sequence[str],
    tree: ScannedTree,
    found: _Found,
    workers: int,
    on_progress: OnProgress | None,
) -> None:
    blobs = library.blobs
    with os_errors_as(f"cannot write to the library {blobs.path}"):
        raw = library.keeps_raw
    reflink = raw and _can_clone(root, tree, blobs)
    ingest = Ingest(root, Inspector(roots[0], roots[1:]), blobs, tree.other_names, reflink=reflink, compress=not raw)
    total = sum(len(folder.files) for folder in tree.folders) + sum(map(len, tree.other_names.values()))
    done = unwritten = read = 0
    batches = _batches(tree)
    for folder in tree.folders:
        folder.files.clear()  # the batches have them, and need them only until they are done
    for results in pool.run(ingest, batches, workers):
        for path, items in results:
            found.add(path, items)
            done += len(items)
            read += sum(item.row[2] for item in items)
            if not reflink:  # the content of a reflink is on the disk already
                unwritten += sum(item.row[2] for item in items if item.stored)
        if unwritten >= _WRITE_BACK:
            library.settle()
            unwritten = 0
        if on_progress is not None:
            tell(on_progress, done, total, read)


def _can_clone(root: platform.Directory, tree: ScannedTree, blobs: Blobs) -> bool:
    """Whether files of the tree can be reflinked into the library. The first one with content is tried.

    The tree belongs to the user, so no test file is put there.
    """
    walker = Walker(root)
    draft = DRAFT + temporary_name()
    try:
        for folder in tree.folders:
            for name in folder.files:
                if platform.status(walker.open(folder.path), name).st_size:
                    try:
                        probe.clone_file(walker.open(folder.path), name, blobs.directory, draft)
                    except OSError as error:
                        if error.errno == errno.ETXTBSY:  # a swap file in use; others may work
                            continue
                        raise
                    platform.remove_file(blobs.directory, draft)
                    return True
        return False
    except OSError:
        return False  # if that file has another problem, recording it will tell
    finally:
        walker.close()


def _batches(tree: ScannedTree) -> list[list[Batch]]:
    """Cut the files into tasks, neighbours together. The tasks are small, for the sizes of files are not known yet."""
    tasks: list[list[Batch]] = []
    task: list[Batch] = []
    left = _TASK_FILES
    for folder in tree.folders:
        start = 0
        while start < len(folder.files):
            names = folder.files[start : start + left]
            task.append(Batch(folder.path, names))
            start += len(names)
            left -= len(names)
            if not left:
                tasks.append(task)
                task, left = [], _TASK_FILES
    if task:
        tasks.append(task)
    return tasks


def _settle_bytecode(relocations: dict[str, Relocation], found: dict[str, list[FileRow]]) -> None:
    """Patch no bytecode that has a source, but make it stale if that source is patched."""

    @cache
    def names(folder: str) -> set[str]:
        rows = found.get(folder, ())
        return {name for name, _, size, _, _ in rows if size >= BYTECODE_HEADER or not is_bytecode(name)}

    for path in [path for path, found in relocations.items() if found != STALE and has_source(path, names)]:
        del relocations[path]
    for source in [*relocations]:
        relocations.update(dict.fromkeys(compiled_from(source, names), STALE))


def _assemble(tree: ScannedTree, found: _Found, prefix: str, others: Sequence[str]) -> Catalog:
    directories: list[DirectoryRow] = []
    relocations, xattrs = dict(sorted(found.relocations.items())), found.xattrs
    for folder in tree.folders:
        rows = found.rows.get(folder.path, [])
        rows.sort()  # by name, for no two are alike
        if folder.xattrs:
            xattrs[folder.path] = folder.xattrs
        directories.append((folder.path, folder.mode & found.kept, folder.mtime_ns, rows, folder.symlinks))
    _settle_bytecode(relocations, found.rows)
    # Names of one file that are patched differently, as a source and bytecode, become two files.
    groups = [group for group in sorted(map(sorted, found.names.values())) if len(group) > 1]
    groups = [group for group in groups if all(relocations.get(path) == relocations.get(group[0]) for path in group)]
    is_named = any(max(item.forms, default=0) >= SPELLINGS for item in relocations.values()) or any(
        root_of(to, path, prefix, others) for path, _, _, _, links in directories for _, to, _ in links
    )
    project = others[0] if others and is_named else ""
    return Catalog(prefix, directories, relocations, groups, xattrs, project=project)
