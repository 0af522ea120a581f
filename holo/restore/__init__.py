"""Restore: make a directory equal to a catalog.

    refuse   what cannot work (a path too long for binaries, a directory that is not ours) before any change
    probe    what this library and this space can do
    survey   what is there: one stat per file, in parallel; nothing is changed
    plan     what to do (pure); --dry-run ends here
    check    the recorded offsets of every file to be patched, against its content
    mark     the space says "restoring"
    engine   remove, make directories, fill them in parallel, set the last modes and times
    mark     the space says "pristine", with what proves it: see :mod:`holo.checkout.proof`

A crash anywhere leaves the space as it was or marked, and the next restore completes it. What it does not
guarantee: a program that changes the space during the restore may have its changes removed or kept.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property

from holo import platform
from holo.catalog import Catalog, Totals
from holo.checkout.engine import Engine
from holo.checkout.materialize import Materializer
from holo.checkout.plan import Plan, plan
from holo.checkout.proof import NO_PROOF, Proof, packed, proof_of, stamp_before, stamp_of_look, still_holds
from holo.checkout.strategy import Decision, Method, decide
from holo.checkout.survey import Expectation, Survey, survey, survey_of_empty
from holo.checkout.tally import Tally
from holo.errors import Conflict, HoloError, UsageError, advice, hints
from holo.filetimes import EXACT, try_out
from holo.hololib import CatalogSummary, Library
from holo.hololib.locks import OnWait, say_waiting
from holo.platform import probe
from holo.relocation.patch import Relocator
from holo.remove import remove, remove_at
from holo.restore.report import RestoreReport
from holo.settings import Strategy
from holo.space import Holotree, Space
from holo.trees.golden import Golden, Outline, changed_directories, count_extra, outline_of, patch_snapshot
from holo.trees.overlay import OVERLAY
from holo.walk import absolute, mounted_inside, open_directory

_DRAFT = ".holo-"
"""In the name of a tree that is to take the place of a space, or did and is to be removed."""

_WORTH_A_SNAPSHOT = 500
"""Changes from which on a new snapshot is faster than making them one by one: see benchmarks/README.md."""

__all__ = ["DryRun", "Options", "RestoreReport", "delete", "restore"]


@dataclass(frozen=True)
class Options:
    """How to restore."""

    strategy: Strategy = Strategy.SMART
    strict: bool = False
    """fail rather than fall back to another strategy"""
    verify: bool = False
    """hash everything that is shared or unchanged"""
    force: bool = False
    """take over a directory that is not a space, or a space of another catalog"""
    yes: bool = False
    """take over also a directory with the history of a version control system in it"""
    workers: int = 1
    on_progress: Callable[[int, int], object] | None = None
    on_wait: OnWait = say_waiting


@dataclass(frozen=True)
class DryRun:
    """What a restore would do."""

    space: str
    path: str
    catalog: str
    digest: str
    strategy: Decision
    plan: Plan

    def to_json(self) -> dict[str, object]:
        return {
            "space": self.space,
            "path": self.path,
            "catalog": self.catalog,
            "digest": self.digest,
            "strategy": self.strategy.to_json(),
            **self.plan.to_json(self.strategy),
        }


def restore(
    library: Library, name: str, catalog_name: str, digest: str, path: str | None, options: Options
) -> RestoreReport:
    """Make space ``name`` (at ``path``, if it is new) equal to the catalog of that digest.

    The caller holds the space's lock and, shared, the library's, since before it looked for the catalog. Raises
    :class:`~holo.errors.Conflict` for a directory that is not a space, and every other :class:`HoloError`; before
    the first change unless the message says otherwise.
    """
    started = time.monotonic()
    job = _Job(library, Holotree(library.home), name, catalog_name, digest, path, options)
    tally = job.run()
    library.mark_used(digest)
    totals = job.totals
    return RestoreReport(
        space=name,
        path=job.path,
        catalog=catalog_name,
        digest=digest,
        strategy=job.decision,
        total=totals.files,
        reflinked=tally.reflinked,
        hardlinked=tally.hardlinked,
        copied=tally.copied,
        unchanged=totals.files - tally.files,
        relocated=job.relocated,
        removed=tally.removed,
        symlinks=totals.symlinks,
        directories=totals.directories,
        bytes_total=totals.bytes,
        bytes_shared=tally.shared_bytes,
        bytes_written=tally.written_bytes,
        warnings=(*tally.warnings(), *(job.left_alone if tally.files else ())),
        seconds=round(time.monotonic() - started, 3),
    )


def refuse(library: Library, name: str, path: str | None, options: Options) -> None:
    """Raise what :func:`restore` would raise about the place of a space, of whatever catalog, under its lock."""
    _Job(library, Holotree(library.home), name, "", "", path, options)


def dry_run(library: Library, name: str, catalog_name: str, digest: str, path: str | None, options: Options) -> DryRun:
    """What :func:`restore` would do, under the same locks. Changes nothing."""
    job = _Job(library, Holotree(library.home), name, catalog_name, digest, path, options)
    todo = job.plan(dry=True)
    return DryRun(name, job.path, catalog_name, digest, job.decision, todo)


def delete(library: Library, name: str, on_wait: OnWait = say_waiting) -> Space:
    """Remove a space and what is known about it. Returns what it was.

    If that is damaged, what is removed is the directory where the space is likely to be.
    """
    tree = Holotree(library.home)
    with tree.lock(name, on_wait):
        space = tree.find_anyhow(name)
        if space is None:
            raise tree.unknown(name)
        tree.refuse_copied(space)
        tree.refuse_unproven(space, "Remove that directory yourself, and then what holo knows about it.")
        is_mount_point = refuse_mounts(space.path)
        if is_mount_point:
            _refuse_another(space, "Unmount it first; nothing was changed.")
        try:
            if space.state != "damaged":
                tree.save(replace(space, state="restoring"))
        except HoloError as error:
            # On a full disk there is no room for that either, and deleting is what makes some. Killed now, it is a
            # space with files missing, like one whose user removed them: the next restore sees that as well.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        remove_draft(space)
        with tree.try_lock_mount_point(name) as is_free:
            remove_at(space.path, itself=is_free, is_mount_point=is_mount_point)
        tree.forget(name)
    return space


def refuse_mounts(path: str, *, is_empty: bool = False) -> bool:
    """Whether the space itself is a mount point, which it may be.

    Raises :class:`Conflict` if something is mounted inside it: those files are not the space's to remove. Raises
    :class:`HoloError` if nobody can tell, unless nothing is there. What is mounted later, those meet who open the
    directories to change them.
    """
    try:
        mounted, source = mounted_inside(path), platform.source_at(os.path.realpath(path))
    except HoloError:
        if is_empty:
            return False
        raise
    if source == OVERLAY:
        raise Conflict(
            f"this command runs in a throw-away environment at {path}, and does not see the space there",
            "Run it outside of `holo run --ephemeral`.",
        )
    if mounted is not None:
        raise Conflict(f"{mounted} is mounted inside the space {path}", "Unmount it first; nothing was changed.")
    return source is not None


def _refuse_another(space: Space, hint: str) -> None:
    """Raise :class:`Conflict` if what is mounted at a space's path is not what the last restore left there."""
    try:
        root = open_directory(space.path)
        try:
            identity = platform.identity(root)
        finally:
            platform.close_directory(root)
    except OSError as error:
        raise HoloError(f"cannot open the space {space.path}: {error.strerror}") from error
    if space.root not in ("", identity):
        raise Conflict(f"what is mounted at {space.path} is not space {space.name!r}", hint)


_HISTORIES = frozenset({".git", ".hg", ".jj", ".svn"})


def _refuse_history(path: str) -> None:
    """Raise :class:`Conflict` if there is something below ``path`` that may be nowhere else."""
    for folder, names, files in os.walk(path):
        if found := _HISTORIES.intersection((*names, *files)):  # in a worktree or a submodule it is a file
            history = os.path.relpath(os.path.join(folder, min(found)), path)
            raise Conflict(
                f"{path} holds {history}, and a restore removes what is not in the catalog",
                "Choose another place. If all that may go, add --yes.",
            )


def refuse_place(library: Library, tree: Holotree, path: str, precious: Sequence[str] = ()) -> None:
    """Raise :class:`UsageError` for a directory that can be no space: it is holo's, or contains what a user needs.

    ``precious``: more paths that must not be in it.
    """
    real, own = os.path.realpath(path), os.path.realpath(library.path)
    if os.path.commonpath([real, own]) == own:
        raise UsageError(f"{path} cannot be a space: it is in the library", "Choose a directory of its own.")
    if real.startswith(os.path.join(os.path.realpath(tree.path), ".")):
        raise UsageError(f"{path} cannot be a space: it is in a folder of holo's", "Choose a directory of its own.")
    for inside in (library.path, tree.path, os.path.expanduser("~"), *precious):
        if os.path.commonpath([real, os.path.realpath(inside)]) == real:
            raise UsageError(f"{path} cannot be a space: it contains {inside}", "Choose a directory of its own.")


def remove_draft(space: Space) -> None:
    """Remove what a killed restore left beside the space: the tree that was to be the new one, or was the old."""
    parent, name = os.path.split(space.path)
    if space.draft.startswith(f".{name}{_DRAFT}") and "/" not in space.draft:
        remove_at(os.path.join(parent, space.draft))


class _Job:
    """One restore, from the refusals to the mark."""

    def __init__(
        self,
        library: Library,
        tree: Holotree,
        name: str,
        catalog_name: str,
        digest: str,
        path: str | None,
        options: Options,
    ) -> None:
        self._library = library
        self._tree = tree
        self._name = name
        self._catalog_name = catalog_name
        self._digest = digest
        self._options = options
        self._verify = options.verify or library.may_be_torn
        self._known = tree.find(name)
        self.path = self._place(path)
        if self._known is not None:
            tree.refuse_copied(self._known)
            if path is None:
                tree.refuse_unproven(self._known, f"If it is, name it: `holo restore --space {name} --to DIR`.")
        if os.path.islink(self.path):
            raise Conflict(
                f"{self.path} is a symlink, not a directory",
                "Where it leads is not known to be the space's. Name that directory itself, or remove the symlink.",
            )
        self._is_new = _is_absent_or_empty(self.path)
        self._is_mount_point = refuse_mounts(self.path, is_empty=self._is_new)
        if self._known is None and not self._is_new and not options.force:
            raise Conflict(
                f"{self.path} is not empty and not a holo space",
                "A restore removes what is not in the catalog. Choose an empty place, or insist with --force.",
            )
        if self._known is None and not self._is_new and not options.yes:
            _refuse_history(self.path)
        if self._known is not None and self._is_mount_point and not self._is_new and not options.force:
            _refuse_another(self._known, "Unmount it, or insist with --force: what is not in the catalog is removed.")
        self._golden = Golden(library, digest, options.workers, options.on_progress, options.on_wait)
        self._found = Survey()
        self.decision: Decision  # made with the plan

    @cached_property
    def _catalog(self) -> Catalog:
        """The whole catalog. A new snapshot of a golden tree does without."""
        return self._library.load(self._digest)

    @cached_property
    def _outline(self) -> Outline | None:
        """The outline of the golden tree, if that may be all that is needed."""
        wanted = self._options.strategy in (Strategy.SMART, Strategy.REFLINK) and not self._verify
        if not wanted or self._summary is None:
            return None
        return self._golden.outline()

    @property
    def _relocations(self) -> Catalog:
        """What there is of the catalog that holds all its relocations."""
        return self._outline.catalog if self._outline is not None else self._catalog

    @cached_property
    def _summary(self) -> CatalogSummary | None:
        summary = self._library.sound_summary(self._catalog_name)
        return summary if summary is not None and summary.digest == self._digest else None

    @cached_property
    def relocator(self) -> Relocator:
        catalog = self._relocations
        relocator = Relocator(catalog.prefix, self.path)
        relocator.refuse_impossible(catalog.relocations)
        return relocator

    @property
    def relocated(self) -> int:
        """How many files hold the prefix and are patched."""
        return sum(self.relocator.applies(item) for item in self._relocations.relocations.values())

    @property
    def left_alone(self) -> list[str]:
        """A warning about files that should be patched and cannot be."""
        return self.relocator.left_alone(self._relocations.relocations)

    @cached_property
    def totals(self) -> Totals:
        summary = self._summary
        if self._outline is None or summary is None:
            return self._catalog.totals
        return Totals(summary.files, summary.directories, summary.symlinks, summary.bytes)

    def _place(self, path: str | None) -> str:
        known = self._known
        if path is None:
            return known.path if known is not None else self._tree.default_path(self._name)
        path = absolute(path)
        if known is not None and os.path.realpath(known.path) != os.path.realpath(path):
            from shlex import quote

            raise Conflict(
                f"space {self._name!r} lives at {known.path}, not at {path}",
                f"To make another one there: `holo init --space NAME {known.catalog} --to {quote(path)}`.",
            )
        real = os.path.realpath(path)
        for other in self._tree.spaces():
            theirs = os.path.realpath(other.path)
            if other.name == self._name or os.path.commonpath([real, theirs]) not in (real, theirs):
                continue
            self._tree.refuse_copied(other)
            if real == theirs:
                raise Conflict(
                    f"{path} is space {other.name!r} already", f"Use --space {other.name}, or another place."
                )
            # A restore of the outer one would remove the inner one.
            raise Conflict(
                f"{path} and space {other.name!r} at {other.path} lie inside each other",
                "Choose another place: a restore removes everything in a space that is not in its catalog.",
            )
        precious = []
        if known is None and not _is_absent_or_empty(path):
            with suppress(FileNotFoundError):  # the current directory has been deleted
                precious.append(os.getcwd())
        refuse_place(self._library, self._tree, path, precious)
        return path

    def plan(self, *, dry: bool = False) -> Plan:
        """Survey the space, decide how content gets there, and plan.

        What was decided at the last restore is believed until there is a file to make, and in a dry run: a
        pristine space is confirmed without trying anything out in it.
        """
        remembered = self._remembered()
        if remembered is not None:
            todo = plan(self._catalog, self._survey(remembered.used), self.relocator, remembered)
            if todo.is_empty or dry:
                self.decision = remembered
                return todo
        self.decision = self._decide()
        # Only hardlinked files look different from others, so a survey for another way serves as well.
        if remembered is not None and (remembered.used is Method.HARDLINK) == (self.decision.used is Method.HARDLINK):
            return todo
        return plan(self._catalog, self._survey(self.decision.used), self.relocator, self.decision)

    def _remembered(self) -> Decision | None:
        known = self._known
        if known is None or self._is_new or known.state != "pristine" or known.requested != self._options.strategy:
            return None
        if known.used not in {method.value for method in Method} or (self._options.strict and known.reason is not None):
            return None
        return Decision(self._options.strategy, Method(known.used), known.reason)

    def _decide(self) -> Decision:
        blobs = self._library.blobs
        place = self._probing_place()
        is_beside = os.stat(place).st_dev != os.stat(_existing(self.path)).st_dev
        target = platform.open_root(place)
        try:
            return decide(
                self._options.strategy,
                {
                    Method.REFLINK: lambda: probe.reflink(blobs.directory, target, blobs.any_raw),
                    # No hardlink leads into another subvolume.
                    Method.HARDLINK: lambda: (
                        os.strerror(errno.EXDEV) if is_beside else probe.hardlink(blobs.directory, target)
                    ),
                },
                strict=self._options.strict,
            )
        except OSError as error:
            raise HoloError(f"cannot write to {place} or to {self._library.path}: {error.strerror}") from error
        finally:
            platform.close_directory(target)

    def _probing_place(self) -> str:
        """A folder on the filesystem of the space; our own if it can be, rather than the user's."""
        place = _existing(self.path)
        ours = self._tree.folder()
        if os.stat(ours).st_dev == os.stat(place).st_dev:
            return ours
        # The root of a subvolume may be read-only as recorded, and be made writable later. Around it is its filesystem.
        if place == self.path and not os.access(place, os.W_OK) and platform.source_at(os.path.realpath(place)) is None:
            return os.path.dirname(place)
        return place

    def _survey(self, used: Method) -> Survey:
        if self._is_new:
            return survey_of_empty(self._catalog)
        proof = self._proof if not self._options.verify else NO_PROOF
        times = self._known.times if self._known is not None else EXACT
        links = self._library.links if used is Method.HARDLINK else None
        modes = self._known.unkept_modes if self._known is not None else {}
        with self._opened() as root:
            expectation = Expectation(self._catalog, self.relocator, used, proof, times, links, modes)
            self._found = survey(root, expectation, self._library.blobs, self._options.workers)
        return self._found

    @contextmanager
    def _opened(self) -> Iterator[platform.Directory]:
        """The root of the space, to be looked at. What goes wrong there names it."""
        root = self._open()
        try:
            yield root
        except OSError as error:
            raise HoloError(f"cannot read the space {self.path}: {error.strerror}") from error
        finally:
            platform.close_directory(root)

    def _open(self, *, changes: bool = False) -> platform.Directory:
        try:
            return open_directory(self.path, changes=changes and not self._is_mount_point)
        except OSError as error:
            raise HoloError(f"cannot open the space {self.path}: {error.strerror}") from error

    @cached_property
    def _proven(self) -> Space | None:
        """The space as the last restore left it, if that proves anything: not of files that name another path."""
        if self._known is None or self._is_new or self._known.made_for != self.path:
            return None
        with self._opened() as root:
            return self._known if still_holds(self._known, self._digest, root) else None

    @cached_property
    def _proof(self) -> Proof:
        return proof_of(self._tree, self._proven, self._catalog) if self._proven is not None else NO_PROOF

    def run(self) -> Tally:
        if self._known is not None:
            remove_draft(self._known)
        looked = time.time_ns()
        self.relocator  # noqa: B018 - refuses what is impossible, before anything else
        if self._outline is not None and (tally := self._replace(self._outline.catalog)) is not None:
            return tally
        todo = self.plan()
        if todo.is_empty:
            self._save_looked_at(looked)
            return Tally()
        materializer = Materializer(
            self._library, self._catalog, self.relocator, self.decision.used, verify=self._verify
        )
        materializer.check(todo.fills)
        snapshots = self.decision.used is Method.REFLINK and not self._verify
        if snapshots and (self._is_new or todo.size >= _WORTH_A_SNAPSHOT):
            tally = self._snapshot(outline_of(self._catalog))
            if tally is not None:
                return tally
        return self._fill(todo, materializer)

    def _replace(self, outline: Catalog) -> Tally | None:
        """Make a space that is new, or whose directories show a change, without looking at its files."""
        if not self._is_new and not self._changed:
            return None
        self.decision = self._decide()
        return self._snapshot(outline) if self.decision.used is Method.REFLINK else None

    @cached_property
    def _changed(self) -> list[str]:
        """The directories of the space that show a change."""
        if self._is_new:
            return []
        root = self._open()
        try:
            if self._outline is not None:
                return changed_directories(self._outline.times.items(), root)
            return changed_directories(((row[0], row[2]) for row in self._catalog.directories), root)
        finally:
            platform.close_directory(root)

    def _space(self) -> Space:
        """What is to be known about the space while it is restored."""
        space = Space(
            name=self._name,
            path=self.path,
            home=self._tree.home,
            made_for=self.path,
            catalog=self._catalog_name,
            digest=self._digest,
            state="restoring",
            requested=self.decision.requested.value,
            used=self.decision.used.value,
            reason=self.decision.reason,
            stamp=-1,
            boot=platform.boot_id(),
            times=self._known.times if self._known is not None else EXACT,
            modes=self._known.modes if self._known is not None else [],
        )
        past = self._proven
        if past is None:
            return space
        # If this restore is killed, the next one still knows what it has not touched.
        return replace(space, stamp=past.stamp, root=past.root, inodes=past.inodes, clock=past.clock)

    def _save_looked_at(self, began: int) -> None:
        """Nothing had to be changed: what was read is known from now on."""
        space = self._space()
        stamp = stamp_of_look(began, self._found.newest, space.stamp, space.times)
        with self._opened() as root:
            identity = platform.identity(root)
        self._tree.save(space.finished(stamp, identity, self._save_inodes(self._found.directories)))

    def _save_inodes(self, directories: dict[str, int]) -> str:
        """Keep the inodes of all directories; returns their digest."""
        inodes = packed(self._catalog, directories)
        if self._proven is not None and self._proof.inodes.tobytes() == inodes:
            return self._proven.inodes
        return self._tree.save_inodes(self._name, inodes)

    def _fill(self, todo: Plan, materializer: Materializer) -> Tally:
        """Carry out the plan in the space itself."""
        space = self._space()
        with self._begun(space):
            parent = os.path.dirname(self.path)
            os.makedirs(parent, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
            root = self._open(changes=True)
            try:
                # Many may share the holotree; elsewhere the group is the user's wish.
                if self._is_new and parent == self._tree.path:
                    platform.own_group(root)
                times = try_out(root)
                engine = Engine(root, self.path, materializer, self._catalog.xattrs, self._options.workers)
                tally = engine.execute(todo, self._options.on_progress)
                stamp = stamp_before(platform.status(root, "").st_ctime_ns, times)
                identity = platform.identity(root)
            finally:
                platform.close_directory(root)
            inodes = self._save_inodes(self._found.directories | tally.directories)
            self._tree.save(replace(space, times=times).with_modes(tally.modes).finished(stamp, identity, inodes))
        return tally

    @contextmanager
    def _begun(self, space: Space) -> Iterator[None]:
        """Mark the space while the block changes it. What fails there says that it is marked, and what ends that."""
        self._tree.save(space)
        way_out = f"The space is unfinished; `holo restore --space {space.name}` completes it when the cause is gone."
        try:
            yield
        except OSError as error:
            raise HoloError(
                f"cannot make the space {self.path}: {error.strerror}", hints(advice(error), way_out)
            ) from error
        except HoloError as error:
            raise type(error)(error.message, hints(error.hint, way_out)) from error

    def _snapshot(self, outline: Catalog) -> Tally | None:
        """Make the space a snapshot of the golden tree; ``None`` if that is not possible here.

        A new space is made in its place. An existing one is replaced by a finished one in one step: who works
        in the old one goes on in it until they leave.
        """
        parent, name = os.path.split(self.path)
        try:
            os.makedirs(parent, exist_ok=True)
            directory = platform.open_root(parent)
        except OSError as error:
            raise HoloError(f"cannot make the folder {parent}: {error.strerror}") from error
        try:
            return self._take_snapshot(directory, name, outline)
        finally:
            platform.close_directory(directory)

    def _take_snapshot(self, directory: platform.Directory, name: str, outline: Catalog) -> Tally | None:
        draft = f".{name}{_DRAFT}{os.urandom(4).hex()}"
        space = self._space()
        with self._begun(replace(space, draft=draft)):
            if not self._golden.snapshot(lambda: self._catalog, directory, draft):
                return None
            root = platform.open_child(directory, draft)
            try:
                tally = patch_snapshot(root, self.path, self._library, outline, self.relocator, self._options.workers)
                tally.removed = self._count_extra(root)
                if not self._put_in_place(directory, draft, name):
                    return None
                stamp = stamp_before(platform.status(root, "").st_ctime_ns, space.times)
                inodes = self._tree.save_inodes(self._name, self._golden.inodes)
                finished = replace(space, used=Method.SNAPSHOT.value).finished(stamp, platform.identity(root), inodes)
            finally:
                platform.close_directory(root)
                remove(directory, draft)  # the old tree, or a snapshot that could not take its place
            self.decision = replace(self.decision, used=Method.SNAPSHOT)
            self._tree.save(finished)
        tally.reflinked = self.totals.files - tally.copied
        tally.shared_bytes = self.totals.bytes - tally.written_bytes
        return tally

    def _count_extra(self, snapshot: platform.Directory) -> int:
        if self._is_new:
            return 0
        space = self._open()
        try:
            return count_extra(space, snapshot, self._changed)
        finally:
            platform.close_directory(space)

    def _put_in_place(self, directory: platform.Directory, draft: str, name: str) -> bool:
        """Let the draft be the space; ``False``: what is there can be changed but not replaced, a mount point, say."""
        try:
            with self._tree.try_lock_mount_point(self._name) as is_free:
                if not is_free:
                    return False
                if self._is_new:
                    with suppress(FileNotFoundError):
                        platform.remove_directory(directory, name)
                    platform.rename(directory, draft, directory, name)
                else:
                    platform.exchange(directory, draft, name)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        return True


def _is_absent_or_empty(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(iter(entries), None) is None
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise Conflict(f"{path} is a file, not a directory", "Choose another place for the space.") from error
        raise HoloError(f"cannot read {path}: {error.strerror}") from error


def _existing(path: str) -> str:
    """The nearest existing directory at or above ``path``."""
    while True:
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                return path
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise HoloError(f"cannot read {path}: {error.strerror}") from error
        path = os.path.dirname(path)
