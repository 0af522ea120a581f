"""Collect garbage: catalogs that were not used for long, and what no catalog needs.

    needs       what every catalog refers to
    inventory   what there is
    decide      what of it goes (pure)
    remove      catalogs first, then what they alone needed

Who removes holds the library's lock exclusively from the inventory on, so no record can rely on a blob that goes.
Killed anywhere, this leaves catalogs that have all their blobs, and garbage for the next time.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from holo import digest as digests
from holo import platform
from holo.errors import CatalogInvalid, HoloError, IntegrityError, NotFound, UsageError
from holo.files import draft_of
from holo.hololib.library import FOLDERS, NAME, ForeignFile
from holo.hololib.links import FORM, READ_ONLY
from holo.hololib.shards import DRAFT
from holo.platform import probe
from holo.remove import remove

if TYPE_CHECKING:
    from holo.hololib.library import Library

LinkKey: TypeAlias = "tuple[str, int, int]"
"""What a link form is of: digest, mode, mtime in ns."""

_LOCKS = ("lock", "pending.lock")
_BLOB = re.compile(r"([0-9a-f]{64})(?:\.zst)?")
_MARK = re.compile(r"([0-9a-f]{64})(?:-[0-9]+)?")
_PASSING = (DRAFT, probe.NAME, probe.DOCTOR)
"""Begin the names of what exists only while a command runs."""

_UNITS = "kmgt"

_REMOVED = ("blobs", "links", "golden", "drafts", "locks", "layers")


# -- what the caller asks for and gets --------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """Which catalogs go although nobody removed them: every one that any of these tells to go."""

    keep_days: float | None = None
    """those not used in so many days"""
    keep_last: int | None = None
    """all but so many, the last used"""
    max_size: int | None = None
    """the least recently used, until the blobs and link forms of the others occupy no more bytes than this"""

    def __post_init__(self) -> None:
        if min(self.keep_days or 0, self.keep_last or 0, self.max_size or 0) < 0:
            raise UsageError("what to keep cannot be less than nothing")


def parse_size(text: str) -> int:
    """``20GB``, ``500M``, ``1.5 TiB`` or a number of bytes. k, M, G and T are decimal, Ki, Mi, Gi and Ti binary."""
    found = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?)\s*(?:([{_UNITS}])(i?))?b?", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise UsageError(f"{text!r} is not a size", "Write a number and a unit: 20GB, 500M, 1.5TiB.")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** (_UNITS.index(unit.lower()) + 1 if unit else 0))


class Use(NamedTuple):
    """A catalog as the report names it."""

    names: list[str]
    digest: str
    used: float
    """when it was recorded or restored last, in seconds of the epoch"""
    spaces: list[str]
    """that hold it"""

    def to_json(self) -> dict[str, Any]:
        return self._asdict() | {"used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.used))}


@dataclass(frozen=True)
class GcReport:
    """What was removed, or would be. A dry run tells the same as a run in its place."""

    dry_run: bool
    catalogs: list[Use]
    kept: list[Use]
    """that the policy told to go, but that spaces hold, or that are another user's"""
    blobs: int
    """both forms of a content count"""
    links: int
    golden: int
    drafts: int
    """what killed commands left"""
    locks: int
    """files of locks of spaces that are gone, and of throw-away environments that are"""
    layers: int
    """what throw-away environments were mounted over (see :mod:`holo.trees.overlay`)"""
    bytes_freed: int
    """on the disk, certainly: neither hardlinked nor reflinked from elsewhere"""
    bytes_shared: int
    """of removed files that share them with others, and free them when the last of these is gone"""
    bytes_left: int
    """occupied by the blobs and link forms that stay"""
    unknown: list[str]
    """paths of what is in the library and not of it; left alone"""
    others: int
    """what would go as well, but is another user's in a shared library"""
    damage: list[Damage]
    """why only drafts went, if that is so"""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The document ``holo gc --json`` prints."""
        return {
            "dry_run": self.dry_run,
            "catalogs": [use.to_json() for use in self.catalogs],
            "kept": [use.to_json() for use in self.kept],
            "removed": {name: getattr(self, name) for name in _REMOVED},
            "bytes": {"freed": self.bytes_freed, "shared": self.bytes_shared, "left": self.bytes_left},
            "unknown": self.unknown,
            "seconds": self.seconds,
        }


# -- what there is ----------------------------------------------------------------------------------------


class Needs(NamedTuple):
    """What a catalog refers to."""

    blobs: frozenset[str]
    links: frozenset[LinkKey]


class File(NamedTuple):
    """Something to be removed by its name, most often a file."""

    folder: str
    """below the library"""
    name: str
    bytes: int = 0
    """allocated"""
    links: int = 1


@dataclass
class Inventory:
    """What is in a library."""

    catalogs: dict[str, float] = field(default_factory=dict)
    """digest to last use"""
    names: dict[str, str] = field(default_factory=dict)
    """name to digest"""
    blobs: dict[str, list[File]] = field(default_factory=dict)
    links: dict[LinkKey, list[File]] = field(default_factory=dict)
    """of one or several users"""
    golden: dict[str, bool] = field(default_factory=dict)
    """digests that have a golden tree, or (``False``) only what remains beside one"""
    marks: list[tuple[str, str]] = field(default_factory=list)
    """those of last uses, by one user each: name and digest"""
    drafts: list[File] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)


def needs(library: Library, known: Mapping[str, Needs] | None = None) -> tuple[dict[str, Needs], list[Damage]]:
    """What every catalog refers to, by digest, and the catalogs that cannot be read.

    Catalogs never change, so those in ``known`` are not read again.
    """
    with _naming(library):
        return _needs(library, known or {})


def _needs(library: Library, known: Mapping[str, Needs]) -> tuple[dict[str, Needs], list[Damage]]:
    found: dict[str, Needs] = {}
    damage: list[Damage] = []
    same: dict[str, str] = {}  # contents that many catalogs have take memory once
    for name, _ in _entries(library, "catalog"):
        digest = name.removesuffix(".json")
        if digest == name or not digests.is_digest(digest):
            continue
        if digest in known:
            found[digest] = known[digest]
            continue
        try:
            files = [row for _, row in library.read(digest).files()]
        except NotFound:
            continue  # removed by somebody else just now
        except (CatalogInvalid, IntegrityError, ForeignFile) as error:
            damage.append(_unreadable_catalog(library, digest, error))
            continue
        keys = [(same.setdefault(row[4], row[4]), row[1] & READ_ONLY, row[3]) for row in files]
        found[digest] = Needs(frozenset(key[0] for key in keys), frozenset(keys))
    return found, damage


def take_inventory(library: Library) -> Inventory:
    """What is in the library now."""
    there = Inventory()
    with _opened(library.path) as top, platform.listing(top) as entries:
        there.unknown += [entry.name for entry in entries if entry.name not in (*FOLDERS, *_LOCKS)]
    _count_names(library, there)  # before the catalogs: in a dry run more of both may appear
    last_used: dict[str, float] = {}
    for name, status in _entries(library, "used"):
        if (mark := _MARK.fullmatch(name)) and stat.S_ISREG(status.st_mode):
            there.marks.append((name, mark[1]))
            last_used[mark[1]] = max(status.st_mtime, last_used.get(mark[1], 0))
        else:
            _put_aside(there, "used", name, status)
    for name, status in _entries(library, "catalog"):
        digest = name.removesuffix(".json")
        if digest != name and digests.is_digest(digest):
            there.catalogs[digest] = last_used.get(digest, status.st_mtime)
        else:
            _put_aside(there, "catalog", name, is_draft=draft_of(name).endswith(".json"))
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
    there.unknown = sorted(os.path.join(library.path, path) for path in there.unknown)
    return there


def _count_names(library: Library, there: Inventory) -> None:
    for name, _ in _entries(library, "names"):
        stem = name.removesuffix(".json")
        if stem == name or not NAME.fullmatch(stem):
            _put_aside(there, "names", name, is_draft=draft_of(name).endswith(".json"))
            continue
        try:
            summary = library.summary(stem)
        except (CatalogInvalid, ForeignFile) as error:
            there.damage.append(_unreadable_name(library, stem, error))
            continue
        if summary is not None:
            there.names[stem] = summary.digest


def _count_files(library: Library, there: Inventory) -> None:
    for folder, name, status in _sharded(library, "library", there):
        found = _BLOB.fullmatch(name)
        if found is not None and name[:2] == folder[-2:] and stat.S_ISREG(status.st_mode):
            there.blobs.setdefault(found[1], []).append(_file(folder, name, status))
        else:
            _put_aside(there, folder, name, status)
    for folder, name, status in _sharded(library, "links", there):
        found = FORM.fullmatch(name)
        if found is not None and name[:2] == folder[-2:] and stat.S_ISREG(status.st_mode):
            key = found[1], int(found[2], 8), int(found[3])
            there.links.setdefault(key, []).append(_file(folder, name, status))
        else:
            _put_aside(there, folder, name, status)


def _sharded(library: Library, top: str, there: Inventory) -> Iterator[tuple[str, str, os.stat_result]]:
    """What is in the folders ``00`` to ``ff`` of a folder: (folder, name, status)."""
    for shard, status in _entries(library, top):
        if stat.S_ISDIR(status.st_mode) and re.fullmatch("[0-9a-f]{2}", shard):
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
    blocks = getattr(status, "st_blocks", None)  # of 512 bytes; Windows has none
    return File(folder, name, status.st_size if blocks is None else blocks * 512, status.st_nlink)


def _entries(library: Library, *path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of everything in a folder of the library, in the order of names."""
    try:
        with _opened(library.path, *path) as directory, platform.listing(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                with suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return


@contextmanager
def _opened(library: str, *path: str, changes: bool = False) -> Iterator[platform.Directory]:
    """A folder of the library. The library and its first folders may be symlinks of the user's, those below not.

    ``changes``: something is to be removed there, so those below may not be mount points either.
    """
    open_child = platform.open_unmounted if changes else platform.open_child
    with ExitStack() as opened:  # which closes nothing twice, also when interrupted
        directory = platform.open_root(os.path.join(library, *path[:1]))
        opened.callback(platform.close_directory, directory)
        for name in path[1:]:
            directory = open_child(directory, name)
            opened.callback(platform.close_directory, directory)
        yield directory


@contextmanager
def _naming(library: Library) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise HoloError(f"cannot collect garbage in {library.path}{where}: {error.strerror}") from error


# -- why it is not known what is needed -------------------------------------------------------------------


class Damage(NamedTuple):
    """Why nobody knows what one catalog needs, and what to do about it."""

    what: str
    way_out: str


def _unreadable_catalog(library: Library, digest: str, error: HoloError) -> Damage:
    if isinstance(error, ForeignFile):
        return Damage(
            error.message, f"Let its owner or root make it readable: {_readable(library.catalog_path(digest))}"
        )
    return Damage(error.message, _repair_or_remove(library, digest))


def _unreadable_name(library: Library, name: str, error: HoloError) -> Damage:
    if isinstance(error, ForeignFile):
        return Damage(error.message, f"Let its owner or root make it readable: {_readable(library.name_path(name))}")
    return Damage(error.message, "Run `holo check --repair`: it writes the name anew, or moves the file away.")


def _readable(path: str) -> str:
    from shlex import quote

    return f"chmod a+r {quote(path)}"


def _repair_or_remove(library: Library, digest: str) -> str:
    removals = [f"`holo catalogs --remove {name}`" for name in library.names_of(digest) or [digest[:12]]]
    return (
        "Restore it from another library with `holo check --repair --from DIR`, or give it up with "
        f"{' and '.join(removals)}."
    )


def incomplete(damage: Sequence[Damage]) -> IntegrityError:
    """What a collection ends with that did not know what is needed."""
    more = f" ({len(damage) - 1} more: see `holo check`)" if len(damage) > 1 else ""
    return IntegrityError(
        f"it is not known what is needed, so only drafts, locks and layers can be removed: {damage[0].what}{more}",
        f"{damage[0].way_out} Then run `holo gc` again.",
    )


# -- what of it goes --------------------------------------------------------------------------------------


class _Rights:
    """What this user may remove: in a sticky folder only what is his own, or all of it if the folder is."""

    def __init__(self, library: Library) -> None:
        self._path = library.path
        self._user = platform.user_id()
        self._is_sticky: dict[str, bool] = {}

    def __call__(self, folder: str, name: str) -> bool:
        path = os.path.join(self._path, *folder.split("/"))
        if folder not in self._is_sticky:
            status = os.stat(path)
            self._is_sticky[folder] = bool(status.st_mode & stat.S_ISVTX) and self._user not in (0, status.st_uid)
        try:
            return not self._is_sticky[folder] or os.lstat(os.path.join(path, name)).st_uid == self._user
        except FileNotFoundError:
            return True


def _others_catalogs(there: Inventory, may_remove: _Rights) -> set[str]:
    """The catalogs that this user cannot remove, or not with all their names."""
    others = {digest for digest in there.catalogs if not may_remove("catalog", digest + ".json")}
    return others | {digest for name, digest in there.names.items() if not may_remove("names", name + ".json")}


@dataclass(frozen=True)
class Decision:
    """What is to be removed."""

    catalogs: list[str]
    kept: list[str]
    golden: list[str]
    marks: list[str]
    drafts: list[File]
    blobs: list[File]
    links: list[File]

    def within(self, may_remove: _Rights) -> tuple[Decision, int]:
        """What of it that user may remove, and how much there is besides."""

        def own(files: list[File]) -> list[File]:
            return [file for file in files if may_remove(file.folder, file.name)]

        less = replace(
            self,
            golden=[
                digest
                for digest in self.golden
                if may_remove("golden", digest) and may_remove("golden", digest + ".json")
            ],
            marks=[name for name in self.marks if may_remove("used", name)],
            drafts=own(self.drafts),
            blobs=own(self.blobs),
            links=own(self.links),
        )
        counted = ("golden", "marks", "drafts", "blobs", "links")
        return less, sum(len(getattr(self, name)) - len(getattr(less, name)) for name in counted)


def decide(
    there: Inventory,
    needed: Mapping[str, Needs],
    holders: Mapping[str, Sequence[str]],
    policy: Policy,
    now: float,
) -> Decision:
    """Everything that no catalog needs, when those that the policy tells to go are gone.

    ``holders`` are the spaces that hold a catalog, by its digest; it stays then. If it is not known what is needed,
    only drafts go: all else may be what a catalog needs that can be repaired, or what can repair it.
    """
    if there.damage:
        return Decision([], [], [], [], there.drafts, [], [])
    going, kept = _catalogs_to_go(there, needed, holders, policy, now)
    staying = there.catalogs.keys() - set(going)
    blobs = frozenset[str]().union(*(needed[digest].blobs for digest in staying))
    links = frozenset[LinkKey]().union(*(needed[digest].links for digest in staying))
    return Decision(
        catalogs=going,
        kept=kept,
        golden=[digest for digest in there.golden if digest not in there.catalogs],
        marks=[name for name, digest in there.marks if digest not in there.catalogs],
        drafts=there.drafts,
        blobs=[file for digest, forms in there.blobs.items() if digest not in blobs for file in forms],
        links=[file for key, files in there.links.items() if key not in links for file in files],
    )


def _catalogs_to_go(
    there: Inventory,
    needed: Mapping[str, Needs],
    holders: Mapping[str, Sequence[str]],
    policy: Policy,
    now: float,
) -> tuple[list[str], list[str]]:
    """The catalogs that go, and those that would if no space held them; the least recently used first."""
    by_use = sorted(there.catalogs, key=lambda digest: (there.catalogs[digest], digest))
    told: set[str] = set()
    if policy.keep_days is not None:
        told.update(digest for digest in by_use if there.catalogs[digest] < now - policy.keep_days * 86_400)
    if policy.keep_last is not None:
        told.update(by_use[: max(0, len(by_use) - policy.keep_last)])
    if policy.max_size is not None:
        staying = [digest for digest in by_use if digest not in told or digest in holders]
        told.update(_until_it_fits(there, needed, holders, staying, policy.max_size))
    return (
        [digest for digest in by_use if digest in told and digest not in holders],
        [digest for digest in by_use if digest in told and digest in holders],
    )


def _until_it_fits(
    there: Inventory,
    needed: Mapping[str, Needs],
    holders: Mapping[str, Sequence[str]],
    catalogs: list[str],
    most: int,
) -> Iterator[str]:
    """The first catalogs, without which what the rest needs fits; those in the way that spaces hold as well."""
    users = Counter[object]()
    for digest in catalogs:
        users.update(needed[digest].blobs)
        users.update(needed[digest].links)
    sizes: dict[object, int] = {digest: sum(file.bytes for file in forms) for digest, forms in there.blobs.items()}
    sizes.update((key, sum(file.bytes for file in files)) for key, files in there.links.items())
    occupied = sum(sizes.get(item, 0) for item in users)
    for digest in catalogs:
        if occupied <= most:
            return
        yield digest
        if digest in holders:
            continue
        for item in (*needed[digest].blobs, *needed[digest].links):
            users[item] -= 1
            if not users[item]:
                occupied -= sizes.get(item, 0)


# -- removing it ------------------------------------------------------------------------------------------


def collect(
    library: Library,
    known: Mapping[str, Needs],
    holders: Mapping[str, Sequence[str]],
    policy: Policy,
    *,
    dry_run: bool,
) -> GcReport:
    """Collect the garbage of a library, whose lock the caller holds: shared for a dry run, else exclusively.

    ``known`` is what :func:`needs` found before the lock, ``holders`` are the spaces by the digests of their
    catalogs. Raises :class:`HoloError` when something cannot be removed; what is left then is valid.
    """
    started = time.monotonic()
    with _naming(library):
        there = take_inventory(library)
        may_remove = _Rights(library)
        kept = dict.fromkeys(_others_catalogs(there, may_remove), ()) | dict(holders)
        needed, damage = needs(library, known)
        there.damage += damage
        decision, others = decide(there, needed, kept, policy, time.time()).within(may_remove)
        files = [*decision.drafts, *decision.links, *decision.blobs]
        freed, shared = _measure(library, files)
        if not dry_run:
            _remove(library, decision, files)

    names: dict[str, list[str]] = {}
    for name, named in sorted(there.names.items()):
        names.setdefault(named, []).append(name)

    def use(digest: str) -> Use:
        return Use(names.get(digest, []), digest, there.catalogs[digest], sorted(holders.get(digest, ())))

    occupied = sum(file.bytes for forms in there.blobs.values() for file in forms)
    occupied += sum(file.bytes for files in there.links.values() for file in files)
    return GcReport(
        dry_run=dry_run,
        catalogs=[use(digest) for digest in decision.catalogs],
        kept=[use(digest) for digest in decision.kept],
        blobs=len(decision.blobs),
        links=len(decision.links),
        golden=sum(there.golden.get(digest, False) for digest in (*decision.catalogs, *decision.golden)),
        drafts=len(decision.drafts),
        locks=0,
        layers=0,
        bytes_freed=freed,
        bytes_shared=shared,
        bytes_left=occupied - sum(file.bytes for file in (*decision.blobs, *decision.links)),
        unknown=there.unknown,
        others=others,
        damage=there.damage,
        seconds=round(time.monotonic() - started, 3),
    )


def _measure(library: Library, files: Iterable[File]) -> tuple[int, int]:
    """Bytes that removing the files frees for certain, and bytes that others share with them."""
    freed = all_shared = 0
    for folder, group in groupby(files, key=lambda file: file.folder):
        with _opened(library.path, *folder.split("/")) as directory:
            for file in group:
                shared = file.bytes
                if file.links == 1:
                    with suppress(OSError):  # a directory, or another user's draft
                        shared = min(file.bytes, platform.shared_bytes(directory, file.name))
                freed += file.bytes - shared
                all_shared += shared
    return freed, all_shared


def _remove(library: Library, decision: Decision, files: list[File]) -> None:
    if decision.catalogs:
        library.forget(*decision.catalogs)
    if files:
        library.sync_catalogs()  # also those that somebody else removed
    marks = [File("used", name) for name in decision.marks]
    for folder, group in groupby([*marks, *files], key=lambda file: file.folder):
        with _opened(library.path, *folder.split("/"), changes=True) as directory:
            for file in group:
                try:
                    remove(directory, file.name)
                except OSError as error:
                    raise HoloError(
                        f"cannot remove {os.path.join(library.path, folder, file.name)}: {error.strerror}",
                        "What is left is valid. Run it again as somebody who may remove that.",
                    ) from error
    for digest in decision.golden:
        library.remove_golden(digest)
