"""Check: read everything, report damage and what it affects, and repair it from what is at hand.

    rights     no file may be writable for more users than the library's own folder
    records    every record of a space
    names      every name, and the catalog it means: this tells which content is needed, and by which spaces
    contents   every blob and link form, in parallel; all needed content must be there
    golden     every golden tree, tree of throw-away environments and spare is compared with its catalog
    spaces     the spaces that were named are compared with theirs

Each step repairs what it found before the next begins: it moves damaged files to the quarantine, then looks for lost
content. Content is hashed on its way back into the library, so a source may be anything. A repair that is killed
leaves no more damage than before, and the next one continues.

A check does not change spaces: `holo restore --verify` brings one back to its catalog. Files that only another user can
read (spaces, golden trees, link forms) are left to them.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog
from holo.check.differences import golden_differences, space_differences, tree_differences
from holo.check.reader import FOREIGN, Reader, Seen, State
from holo.check.report import CheckReport, Kind, Problem
from holo.check.rights import excessive_rights, take_rights
from holo.check.sources import Sources, refuse_missing
from holo.checkout.contents import Contents
from holo.errors import CatalogInvalid, HoloError, NewerFormat, os_errors_as
from holo.files import NOT_DAMAGE, SMALL, paths_in, read_file
from holo.hololib import CatalogSummary
from holo.hololib.catalogs import read_catalog_file
from holo.hololib.golden import remove_golden
from holo.hololib.layout import FOLDERS, catalog_digest, catalog_name, is_shard, signature_digest
from holo.hololib.locks import CannotLockError, InUseError
from holo.hololib.quarantine import Quarantine
from holo.hololib.recovery import locked_library
from holo.holotree import OthersSpace
from holo.home import Home
from holo.owners import is_mine, is_others
from holo.relocation.project import imports_elsewhere
from holo.signatures import CATALOG, Trust, catalog_statement, is_signature
from holo.space import Space
from holo.transport.direct import carrier_of_space
from holo.trees.held import is_whole, remove_held
from holo.trees.overlay import OVERLAY, Layers
from holo.trees.spares import Spares
from holo.workers import pool

__all__ = ["CheckReport", "Options", "Problem", "check"]

_MADE_AGAIN = "removed; it is made again when it is needed"
_FOREIGN = "; it is another user's, who can repair it, as root can"


@dataclass(frozen=True)
class Options:
    """What to check, and what to do about it."""

    trust: Trust
    """what is demanded of the bundles among the sources"""
    repair: bool = False
    sources: Sequence[str] = ()
    """directories and libraries to look in for lost content"""
    spaces: Sequence[str] = ()
    """names of spaces to compare with their catalogs as well"""
    on_progress: Callable[[int, int], object] | None = None


def check(home: Home, options: Options) -> CheckReport:
    """Read everything and report what is wrong.

    Raises :class:`~holo.errors.NotFound` for a space or a source that is not there, and :class:`HoloError` if
    something cannot be read or repaired for want of permission, space and the like.
    """
    started = time.monotonic()
    library, tree = home.library, home.spaces
    refuse_missing(options.sources)
    with ExitStack() as locks:
        for name in sorted({*options.spaces}):
            if name not in tree.names():
                raise tree.unknown(name)
            locks.enter_context(tree.lock(name, home.on_wait, exclusive=False))
        locks.enter_context(locked_library(library, exclusive=options.repair, on_wait=home.on_wait))
        doing = "repair" if options.repair else "check"
        with os_errors_as(f"cannot {doing} the library {library.path}", name_file=True):
            if options.repair:
                locks.enter_context(library.unsettled.record("Nothing was repaired."))
            report = _Check(home, options, locks).run()
            if options.repair:
                library.settle()
    report.seconds = round(time.monotonic() - started, 3)
    return report


class _Check:
    """One check, from the first file to the last."""

    def __init__(self, home: Home, options: Options, opened: ExitStack) -> None:
        """``opened`` closes what is open to the end."""
        self._opened = opened
        self._library = home.library
        self._tree = home.spaces
        self._layers = Layers(home.spaces.path)
        self._spares = Spares(home.spaces)
        self._workers = home.workers
        self._options = options
        self._report = CheckReport()
        self._quarantine = Quarantine(home.library.path)
        self._spaces: dict[str, Space] = {}
        self._names: defaultdict[str, list[CatalogSummary]] = defaultdict(list)
        """by the digest of the catalog they mean"""
        self._contents: dict[str, dict[str, int]] = {}
        """of each sound catalog: the content it needs, digest to size"""
        self._same: dict[str, str] = {}  # digests that many catalogs have take memory once
        self._done = self._total = 0

    def run(self) -> CheckReport:
        self._check_rights()
        self._check_records()
        self._sources = Sources(
            self._library,
            self._spaces.values(),
            self._options.sources,
            self._quarantine.path,
            self._options.trust,
            self._opened,
        )
        self._check_names()
        self._check_catalogs()
        golden = self._golden_trees()
        trees = [tree for tree in self._layers.all_trees() if tree[1] in self._contents]
        spares = self._spares.ready()
        shards = self._shards()
        self._total = len(shards) + len(golden) + len(trees) + len(spares) + len(self._options.spaces)
        self._check_contents(shards)
        for digest in golden:
            self._check_golden(digest)
            self._advance()
        for path, digest in trees:
            self._check_tree(path, digest)
            self._advance()
        for name in spares:
            self._check_spare(name)
            self._advance()
        for name in sorted({*self._options.spaces} & self._spaces.keys()):
            self._check_space(self._spaces[name])
            self._advance()
        return self._report

    def _note(self, kind: Kind, path: str, what: str, concerned: Collection[str] = ()) -> Problem:
        """``concerned``: the digests of the catalogs that the damage affects."""
        names = {summary.name or "" for digest in concerned for summary in self._names.get(digest, ())}
        names.update(digest[:12] for digest in concerned if digest not in self._names)
        spaces = [name for name, space in self._spaces.items() if space.digest in concerned]
        problem = Problem(kind, path, what, sorted(names), sorted(spaces))
        self._report.problems.append(problem)
        return problem

    def _put_away(self, problem: Problem, path: str, name: str) -> bool:
        """Move a file to the quarantine, if it is there; returns whether this user may."""
        if os.path.lexists(path):
            try:
                problem.quarantined = self._quarantine.take(path, name)
            except PermissionError:
                if not is_others(path):
                    raise
                problem.what += _FOREIGN
                return False
        return True

    def _advance(self) -> None:
        self._done += 1
        if self._options.on_progress is not None:
            self._options.on_progress(self._done, self._total)

    def _garbage(self, path: str) -> None:
        with suppress(FileNotFoundError):  # a draft that another process was writing
            self._report.garbage_bytes += os.lstat(path).st_size
            self._report.garbage_files += 1

    # -- rights -------------------------------------------------------------------------------------------

    def _check_rights(self) -> None:
        """Folders and files of the library that more users may write to than to the library's own folder.

        In a sticky one, that of a shared library, all folders must be sticky and no file may be common. Blobs and link
        forms have a mode of their own to have, golden trees a recorded one.
        """
        for folder in (self._library.path, *(os.path.join(self._library.path, name) for name in FOLDERS)):
            found = excessive_rights(self._library.path, folder)
            if found:
                problem = self._note("rights", folder, f"more users may write to {_listed(found)} in it than should")
                if self._options.repair:
                    self._repair_rights(problem, found)

    def _repair_rights(self, problem: Problem, found: dict[str, int]) -> None:
        try:
            for name, excess in found.items():
                take_rights(os.path.join(problem.path, name), excess)
        except PermissionError:
            problem.what += _FOREIGN
        else:
            problem.repaired = "taken away"

    # -- records of spaces --------------------------------------------------------------------------------

    def _check_records(self) -> None:
        # First the folders: a space is on record before its folder is there, and as long as it is.
        folders = [path for path in paths_in(self._tree.path) if self._tree.is_place(os.path.basename(path))]
        known = set()
        for name in self._tree.names():
            known.add(self._tree.default_path(name))
            try:
                space = self._tree.find(name)
            except OthersSpace:
                if name in self._options.spaces:
                    raise
                continue
            except (HoloError, OSError) as error:
                path = self._tree.record_path(name)
                problem = self._note("record", path, _what(error, path, "it is damaged"))
                self._repair_record(problem, name)
            else:
                if space is not None:
                    self._spaces[name] = space
                    known.add(space.path)
                    if self._has_lost_its_record(name):
                        problem = self._note("record", self._tree.record_path(name), "it is not there")
                        self._repair_record(problem, name)
            self._report.spaces += 1
        for path in folders:
            # An empty one is where a throw-away environment appears to one command, or a restore has just begun.
            if path not in known and os.path.isdir(path) and os.listdir(path) and not _is_throw_away(path):
                self._note("record", path, "nothing is known of this space: make it again with --force, or remove it")

    def _has_lost_its_record(self, name: str) -> bool:
        """Whether a space has a mark but no record, and is not just being made."""
        path = self._tree.record_path(name)
        if os.path.lexists(path):
            return False
        try:
            with self._tree.lock(name, wait=False, exclusive=False):
                return not os.path.lexists(path) and name in self._tree.names()
        except InUseError:
            return False

    def _repair_record(self, problem: Problem, name: str) -> None:
        problem.spaces = [name]
        if not self._options.repair:
            return
        if not self._put_away(problem, problem.path, f"spaces/{name}.json"):
            return
        space = self._tree.find(name)  # from its mark
        if space is not None:
            self._tree.save(space)
            self._spaces[name] = space
            problem.repaired = "written anew: the next restore reads all of the space"

    # -- names and catalogs -------------------------------------------------------------------------------

    def _check_names(self) -> None:
        for path in paths_in(os.path.join(self._library.path, "names")):
            name = catalog_name(os.path.basename(path))
            if not name:
                self._garbage(path)
                continue
            try:
                summary = self._library.catalogs.summary(name)
                if summary is not None:
                    self._names[summary.digest].append(summary)
            except (HoloError, OSError) as error:
                problem = self._note("name", path, _what(error, path, "it is damaged"))
                problem.catalogs = [name]

    def _check_catalogs(self) -> None:
        folder = os.path.join(self._library.path, "catalog")
        missing = set(self._names)
        lost: dict[str, Problem] = {}
        unsound: dict[str, Problem] = {}
        for path in paths_in(folder):
            digest = catalog_digest(os.path.basename(path))
            if not digest:
                self._check_signature(path, unsound)
                continue
            self._report.catalogs += 1
            missing.discard(digest)
            try:
                self._take_in(_read_catalog(path, digest))
            except HoloError as error:
                problem = self._note("catalog", path, _what(error, path, error.message), [digest])
                if problem.what != FOREIGN and not isinstance(error, NewerFormat):  # which a newer holo needs
                    lost[digest] = problem
        for digest in sorted(missing):
            path = os.path.join(folder, digest + ".json")
            lost[digest] = self._note("catalog", path, "it is not there", [digest])
        if self._options.repair:
            self._repair_catalogs(lost)
            self._repair_signatures(unsound)
            for problem in self._report.problems:
                if problem.kind == "name" and problem.what != FOREIGN:
                    self._repair_name(problem)

    def _check_signature(self, path: str, unsound: dict[str, Problem]) -> None:
        digest = signature_digest(os.path.basename(path))
        if not digest or not self._library.catalogs.has(digest):
            self._garbage(path)
            return
        try:
            data = self._library.catalogs.signature(digest)
            if data is None or is_signature(data, catalog_statement(digest), CATALOG):
                return
            what = "it is not a signature of its catalog"
        except HoloError as error:
            what = _what(error, path, error.message)
        problem = self._note("signature", path, what, [digest])
        if what != FOREIGN:
            unsound[digest] = problem

    def _repair_signatures(self, unsound: dict[str, Problem]) -> None:
        for digest, problem in unsound.items():
            if self._put_away(problem, problem.path, f"catalog/{digest}.sig"):
                found = self._sources.signature(digest)
                if found is not None:
                    self._library.catalogs.keep_signature(digest, found, replace=True)
                problem.repaired = "moved away; the catalog is not signed now" if found is None else "restored"

    def _take_in(self, catalog: Catalog) -> None:
        same = self._same.setdefault
        rows = (row for directory in catalog.directories for row in directory[3])
        self._contents[catalog.digest] = {same(row[4], row[4]): row[2] for row in rows}
        for summary in self._names.get(catalog.digest, ()):
            if (summary.prefix, summary.files, summary.bytes) != (
                catalog.prefix,
                catalog.totals.files,
                catalog.totals.bytes,
            ):
                path = self._library.catalogs.name_path(summary.name or "")
                self._note("name", path, "it is not about its catalog", [catalog.digest])

    def _repair_catalogs(self, lost: dict[str, Problem]) -> None:
        away = [
            digest
            for digest, problem in lost.items()
            if self._put_away(problem, problem.path, f"catalog/{digest}.json")
        ]
        for digest in away:
            found = self._sources.catalog(digest)
            if found is not None:
                catalog, origin = found
                self._library.catalogs.publish(catalog, None, self._sources.signature(digest))
                self._take_in(catalog)
                lost[digest].repaired = f"restored from {origin}"

    def _repair_name(self, problem: Problem) -> None:
        """Write a name again, if the rest of its file still tells the name and the catalog."""
        name = os.path.basename(problem.path).removesuffix(".json")
        try:
            left, _ = read_file(problem.path, SMALL)
        except OSError:
            left = b""
        meant = {*re.findall("[0-9a-f]{64}", left.decode("ascii", "replace"))} & self._contents.keys()
        if not self._put_away(problem, problem.path, f"names/{name}.json"):
            return
        if len(meant) == 1 and b'"name": "%b"' % name.encode() in left:
            self._library.catalogs.publish(self._library.catalogs.read(meant.pop()), name)
            problem.repaired = "written anew"

    # -- blobs and link forms -----------------------------------------------------------------------------

    def _shards(self) -> list[tuple[str, str]]:
        """The folders ``ab`` of blobs and of link forms."""
        shards = []
        for folder in ("library", "links"):
            for path in paths_in(os.path.join(self._library.path, folder)):
                name = os.path.basename(path)
                if is_shard(name):
                    shards.append((folder, name))
                else:
                    self._garbage(path)
        return shards

    def _check_contents(self, shards: list[tuple[str, str]]) -> None:
        needed: dict[str, int] = {}
        for contents in self._contents.values():
            for digest, size in contents.items():
                needed[digest] = max(size, needed.get(digest, 0))
        folders = {
            folder: platform.open_root(os.path.join(self._library.path, folder))
            for folder in {item[0] for item in shards}
        }
        sizes: dict[str, int] = {}  # of content that is there
        wrong: list[Seen] = []
        try:
            for seen_here in pool.run(Reader(self._library.path, folders, needed), shards, self._workers):
                for seen in seen_here:
                    self._count(seen, needed)
                    if seen.state is State.SOUND and seen.folder == "library":
                        sizes[seen.digest] = seen.size
                    elif seen.state in (State.UNSEALED, State.DAMAGED, State.UNREADABLE):
                        wrong.append(seen)
                self._advance()
        finally:
            for directory in folders.values():
                platform.close_directory(directory)
        bad = [(seen, self._note_wrong(seen)) for seen in sorted(wrong, key=lambda seen: (seen.folder, seen.name))]
        known = {seen.digest for seen, _ in bad if seen.folder == "library"}
        lost: dict[str, list[Problem]] = {}
        for digest in sorted(needed.keys() - sizes.keys() - known):
            path = os.path.join(self._library.path, "library", digest[:2], digest)
            lost[digest] = [self._note("blob", path, "it is not there", self._who_needs(digest))]
        if self._options.repair:
            self._repair_contents(bad, lost, needed)
        for catalog, contents in self._contents.items():
            for digest in [digest for digest, size in contents.items() if sizes.get(digest, size) != size]:
                path = os.path.join(self._library.path, "catalog", catalog + ".json")
                self._note("catalog", path, f"its size of {digest} is not {sizes[digest]}", [catalog])

    def _note_wrong(self, seen: Seen) -> Problem:
        path = os.path.join(self._library.path, seen.folder, seen.name)
        return self._note("blob" if seen.folder == "library" else "link", path, seen.what, self._who_needs(seen.digest))

    def _count(self, seen: Seen, needed: Collection[str]) -> None:
        self._report.bytes += seen.stored
        if seen.state is State.GARBAGE or (seen.state is State.SOUND and seen.digest not in needed):
            self._report.garbage_files += 1
            self._report.garbage_bytes += seen.stored
        elif seen.folder == "library":
            self._report.blobs += 1
        else:
            self._report.links += 1

    def _who_needs(self, digest: str) -> list[str]:
        return [catalog for catalog, contents in self._contents.items() if digest in contents]

    def _repair_contents(
        self, bad: Iterable[tuple[Seen, Problem]], lost: dict[str, list[Problem]], needed: dict[str, int]
    ) -> None:
        """``lost``: the problems with each content that is to be found again; those of ``bad`` files are added."""
        for seen, problem in bad:
            if seen.state is State.UNREADABLE:
                continue
            if seen.state is State.UNSEALED:
                self._seal(problem, seen.digest)
                continue
            if not self._put_away(problem, problem.path, f"{seen.folder}/{seen.name}"):
                continue
            if seen.folder == "links":
                problem.repaired = _MADE_AGAIN
            elif seen.digest in needed:
                lost.setdefault(seen.digest, []).append(problem)
            else:
                problem.repaired = "moved away; no catalog needs it"
        if not lost:
            return
        wanted = {digest: needed[digest] for digest in lost}
        self._sources.look_for(
            wanted, [item for item in self._contents if not wanted.keys().isdisjoint(self._contents[item])]
        )
        for digest, problems in lost.items():
            origin = self._sources.restore(digest, wanted[digest])
            for problem in problems:
                problem.repaired = f"restored from {origin}" if origin is not None else None

    def _seal(self, problem: Problem, digest: str) -> None:
        try:
            self._library.blobs.seal(digest)
        except PermissionError:
            if not is_others(problem.path):
                raise
            problem.what += _FOREIGN
        else:
            problem.repaired = "sealed again"

    # -- golden trees and spaces --------------------------------------------------------------------------

    def _golden_trees(self) -> list[str]:
        """The digests of the sound catalogs that have a golden tree. Those of other users are theirs to check."""
        folder = os.path.join(self._library.path, "golden")
        found = []
        for path in paths_in(folder):
            name = os.path.basename(path)
            if name in self._contents:
                if is_mine(os.lstat(path)):
                    found.append(name)
            elif name != ".lock" and not os.path.lexists(path.removesuffix(".json")):
                self._garbage(path)
        return found

    def _check_golden(self, digest: str) -> None:
        self._report.golden += 1
        found = [*golden_differences(self._library, self._library.catalogs.load(digest), self._workers)]
        problem = self._note_golden(os.path.join(self._library.path, "golden", digest), digest, found)
        if problem is not None and self._options.repair:
            remove_golden(self._library.path, digest)
            problem.repaired = _MADE_AGAIN

    def _check_tree(self, path: str, digest: str) -> None:
        """Check a tree that this user's throw-away environments are mounted over."""
        if not is_whole(path):
            return  # just being made, or removed
        self._report.golden += 1
        found = [*tree_differences(self._library, path, self._library.catalogs.load(digest), self._workers)]
        problem = self._note_golden(path, digest, found)
        if problem is None or not self._options.repair:
            return
        if digest in self._tree.mounted():
            problem.what += "; spaces are mounted over it: delete them first"
        elif remove_held(path):  # unless it is in use
            problem.repaired = _MADE_AGAIN

    def _check_spare(self, name: str) -> None:
        with suppress(InUseError, CannotLockError), self._spares.lock(name, wait=False):
            record = self._spares.find_anyhow(name)
            if record is None or record.digest not in self._contents or name not in self._spares.ready():
                return  # taken, or not to be used anyway
            self._report.golden += 1
            catalog = self._library.catalogs.read(record.digest)
            found = [*space_differences(self._library.blobs, record, catalog, self._workers)]
            problem = self._note_golden(record.path, record.digest, found)
            if problem is not None and self._options.repair:
                self._spares.drop(name)
                problem.repaired = _MADE_AGAIN

    def _note_golden(self, path: str, digest: str, found: list[tuple[str, str]]) -> Problem | None:
        if not found:
            return None
        where, what = found[0]
        what = f"{where + ': ' if where else ''}{what}{f', and {len(found) - 1} more' if len(found) > 1 else ''}"
        return self._note("golden", path, what, [digest])

    def _check_space(self, space: Space) -> None:
        if not self._tree.is_seen(space):
            self._report.warnings.append(
                f"space {space.name} is a view, and not compared from outside: `holo run {space.name} -- holo check "
                f"--space {space.name}` compares it"
            )
            return
        self._report.warnings += imports_elsewhere(space.path, space.project)
        if space.digest in self._contents:
            self._compare_space(space, self._library.catalogs.read(space.digest), self._library.blobs)
            return
        what = "its catalog is not in the library"
        if space.bundle:
            try:
                with carrier_of_space(space, trust=self._options.trust) as carrier:
                    self._compare_space(space, carrier.catalog, carrier.contents)
                return
            except HoloError as error:
                what = f"{what}, and {error.message}"
        self._note("space", space.path, what, [space.digest]).spaces = [space.name]

    def _compare_space(self, space: Space, catalog: Catalog, contents: Contents) -> None:
        self._report.compared.append(space.name)
        for path, what in space_differences(contents, space, catalog, self._workers):
            problem = self._note("space", os.path.join(space.path, path) if path else space.path, what)
            problem.catalogs, problem.spaces = [space.catalog], [space.name]


def _listed(names: Collection[str]) -> str:
    first = min(names)
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def _is_throw_away(path: str) -> bool:
    """Whether it is the throw-away environment that this command runs in."""
    with suppress(OSError):  # no /proc
        return platform.source_at(os.path.realpath(path)) == OVERLAY
    return False


def _what(error: HoloError | OSError, path: str, damaged: str) -> str:
    """What is wrong with a file that could not be read. Raises an error that is about this process instead."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, PermissionError) and is_others(path):
        return FOREIGN
    if isinstance(cause, OSError) and cause.errno in NOT_DAMAGE:
        raise error
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror}"
    return damaged


def _read_catalog(path: str, digest: str) -> Catalog:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise HoloError("it is not a file")
    data, _ = read_catalog_file(path)
    if digests.of(data) != digest:
        raise HoloError("its bytes do not have that digest")
    try:
        return Catalog.from_json(data, path)
    except CatalogInvalid as error:
        from holo.catalog_model import refuse_newer  # which takes long to import, and has been by now

        refuse_newer(data, error)
        raise
