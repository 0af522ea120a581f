"""What belongs in a library, what there is, and what its catalogs need.

gc, check, uninstall and the recovery from a power cut all go by this.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from holo import digest as digests
from holo import platform
from holo.errors import CatalogInvalid, HoloError, IntegrityError, NotFound
from holo.files import disk_size, draft_of
from holo.hololib.catalogs import ForeignFile
from holo.hololib.layout import (
    FOLDERS,
    LOCKS,
    blob_digest,
    catalog_digest,
    catalog_name,
    is_shard,
    link_form,
    signature_digest,
)
from holo.hololib.links import READ_ONLY
from holo.hololib.shards import DRAFT
from holo.platform import probe

if TYPE_CHECKING:
    from holo.hololib.library import Library

LinkKey: TypeAlias = "tuple[str, int, int]"
"""What a link form is of: digest, mode, mtime in ns."""

_MARK = re.compile(r"([0-9a-f]{64})(?:-[0-9]+)?")
_PASSING = (DRAFT, probe.NAME, probe.DOCTOR)
"""Prefixes of names that exist only while a command runs."""


class Needs(NamedTuple):
    """What a catalog refers to."""

    blobs: frozenset[str]
    links: frozenset[LinkKey]
    """nothing if the library had no link forms when the catalog was read"""


class File(NamedTuple):
    """Something that can be removed by its name, most often a file."""

    folder: str
    """below the library"""
    name: str
    bytes: int = 0
    """allocated"""
    links: int = 1
    inode: int = 0


@dataclass
class Inventory:
    """What is in a library."""

    catalogs: dict[str, float] = field(default_factory=dict)
    """digest to last use"""
    signatures: dict[str, File] = field(default_factory=dict)
    """by the digests of the catalogs that they are of"""
    names: dict[str, str] = field(default_factory=dict)
    """name to digest"""
    blobs: dict[str, list[File]] = field(default_factory=dict)
    links: dict[LinkKey, list[File]] = field(default_factory=dict)
    """of one or several users"""
    golden: dict[str, bool] = field(default_factory=dict)
    """digests that have a golden tree, or (``False``) only its outline"""
    marks: list[tuple[str, str]] = field(default_factory=list)
    """of last uses, one for each user: name and digest"""
    drafts: list[File] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)


def needs(library: Library, known: Mapping[str, Needs] | None = None) -> tuple[dict[str, Needs], list[Damage]]:
    """What every catalog refers to, by digest, and the catalogs that cannot be read.

    Catalogs never change, so those in ``known`` are not read again, unless link forms have come since. Raises
    :class:`OSError`.
    """
    known = known or {}
    has_links = next(_entries(library, "links"), None) is not None
    found: dict[str, Needs] = {}
    damage: list[Damage] = []
    same: dict[str, str] = {}  # digests that many catalogs have take memory once
    for name, _ in _entries(library, "catalog"):
        digest = catalog_digest(name)
        if not digest:
            continue
        if digest in known and (known[digest].links or not has_links):
            found[digest] = known[digest]
            continue
        blobs, links = set[str](), set[LinkKey]()
        try:
            for part in library.catalogs.contents(digest):
                contents = [*map(same.setdefault, part.digests, part.digests)]
                blobs.update(contents)
                if has_links:  # else what a million files would need there is not worth its memory
                    links.update(zip(contents, map(READ_ONLY.__and__, part.modes), part.mtimes, strict=True))
        except NotFound:
            continue  # removed by somebody else just now
        except (CatalogInvalid, IntegrityError, ForeignFile) as error:
            damage.append(_unreadable_catalog(library, digest, error))
            continue
        found[digest] = Needs(frozenset(blobs), frozenset(links))
    return found, damage


def take_inventory(library: Library) -> Inventory:
    """What is in the library now. Raises :class:`OSError`."""
    there = Inventory()
    with library.opened() as top, platform.listing(top) as entries:
        there.unknown += [entry.name for entry in entries if entry.name not in (*FOLDERS, *LOCKS)]
    _count_names(library, there)  # before the catalogs: in a dry run more of both may appear
    last_used: dict[str, float] = {}
    for name, status in _entries(library, "used"):
        if (mark := _MARK.fullmatch(name)) and stat.S_ISREG(status.st_mode):
            there.marks.append((name, mark[1]))
            last_used[mark[1]] = max(status.st_mtime, last_used.get(mark[1], 0))
        else:
            _put_aside(there, "used", name, status)
    for name, status in _entries(library, "catalog"):
        if digest := catalog_digest(name):
            there.catalogs[digest] = last_used.get(digest, status.st_mtime)
        elif digest := signature_digest(name):
            there.signatures[digest] = _file("catalog", name, status)
        else:
            _put_aside(there, "catalog", name, is_draft=draft_of(name).endswith((".json", ".sig")))
    for name, digest in there.names.items():
        if digest not in there.catalogs:
            what = f"the catalog that {name!r} means, {digest[:12]}, is not there"
            there.damage.append(Damage(what, _repair_or_remove(library, digest)))
    for name, status in _entries(library, "golden"):
        digest = name.removesuffix(".json")
        if digests.is_digest(digest) and stat.S_ISDIR(status.st_mode) is (digest == name):
            there.golden[digest] = there.golden.get(digest, False) or digest == name
        elif name != ".lock":
            _put_aside(there, "golden", name, status)
    _count_files(library, there)
    # Packs on their way: whoever fetches or sends them holds the lock, shared.
    there.drafts += [_file("incoming", name, status) for name, status in _entries(library, "incoming")]
    there.unknown = sorted(os.path.join(library.path, path) for path in there.unknown)
    return there


def _count_names(library: Library, there: Inventory) -> None:
    for file, _ in _entries(library, "names"):
        name = catalog_name(file)
        if not name:
            _put_aside(there, "names", file, is_draft=draft_of(file).endswith(".json"))
            continue
        try:
            summary = library.catalogs.summary(name)
        except (CatalogInvalid, ForeignFile) as error:
            there.damage.append(_unreadable_name(library, name, error))
            continue
        if summary is not None:
            there.names[name] = summary.digest


def _count_files(library: Library, there: Inventory) -> None:
    for folder, name, status in _sharded(library, "library", there):
        digest = blob_digest(folder[-2:], name)
        if digest and stat.S_ISREG(status.st_mode):
            there.blobs.setdefault(digest, []).append(_file(folder, name, status))
        else:
            _put_aside(there, folder, name, status)
    for folder, name, status in _sharded(library, "links", there):
        form = link_form(folder[-2:], name)
        if form is not None and stat.S_ISREG(status.st_mode):
            there.links.setdefault((form.digest, form.mode, form.mtime), []).append(_file(folder, name, status))
        else:
            _put_aside(there, folder, name, status)


def _sharded(library: Library, top: str, there: Inventory) -> Iterator[tuple[str, str, os.stat_result]]:
    """What is in the folders ``00`` to ``ff`` of a folder: (folder, name, status)."""
    for shard, status in _entries(library, top):
        if stat.S_ISDIR(status.st_mode) and is_shard(shard):
            for name, inner in _entries(library, top, shard):
                yield f"{top}/{shard}", name, inner
        else:
            _put_aside(there, top, shard, status)


def _put_aside(
    there: Inventory, folder: str, name: str, status: os.stat_result | None = None, *, is_draft: bool = False
) -> None:
    if is_draft or name.startswith(_PASSING):
        there.drafts.append(_file(folder, name, status) if status is not None else File(folder, name))
    else:
        there.unknown.append(f"{folder}/{name}")


def _file(folder: str, name: str, status: os.stat_result) -> File:
    if not stat.S_ISREG(status.st_mode):
        return File(folder, name)
    return File(folder, name, disk_size(status), status.st_nlink, status.st_ino)


def _entries(library: Library, *path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of everything in a folder of the library, in the order of names."""
    try:
        with library.opened(*path) as directory, platform.listing(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                with suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return


# -- why it is not known what is needed -------------------------------------------------------------------


class Damage(NamedTuple):
    """Why it is unknown what one catalog needs, and what to do about it."""

    what: str
    way_out: str


def _unreadable_catalog(library: Library, digest: str, error: HoloError) -> Damage:
    if isinstance(error, ForeignFile):
        return _foreign(error, library.catalogs.path(digest))
    return Damage(error.message, _repair_or_remove(library, digest))


def _unreadable_name(library: Library, name: str, error: HoloError) -> Damage:
    if isinstance(error, ForeignFile):
        return _foreign(error, library.catalogs.name_path(name))
    return Damage(error.message, "Run `holo check --repair`: it writes the name anew, or moves the file away.")


def _foreign(error: ForeignFile, path: str) -> Damage:
    from shlex import quote

    return Damage(error.message, f"Let its owner or root make it readable: chmod a+r {quote(path)}")


def _repair_or_remove(library: Library, digest: str) -> str:
    removals = [f"`holo catalogs --remove {name}`" for name in library.catalogs.names_of(digest) or [digest[:12]]]
    return (
        "Restore it from another library with `holo check --repair --from DIR`, or give it up with "
        f"{' and '.join(removals)}."
    )
