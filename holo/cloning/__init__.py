"""Clone: an exact, private copy of any directory tree, without a library.

    refuse     what cannot work, before anything is made; what is mounted inside the tree is no part of it
    search     with ``relocate``: every file for the tree's own path
    draft      beside the place: a snapshot of the tree, or an empty directory filled by all workers (filler)
    relocate   patch what names the tree's own path
    publish    one rename, to a name that must not be there

So the clone is there as a whole or not at all. It is not synced, as copies are not. A snapshot is the tree as it was
at one moment; file by file, each file is as it was at one moment, and a file that goes or keeps changing is an error.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING

from holo import platform, settings
from holo.cloning.draft import Draft
from holo.cloning.filler import NOTHING_MADE, Filler, nothing_made
from holo.cloning.report import CloneReport, Made
from holo.errors import Conflict, HoloError, NotFound, UsageError
from holo.walk import Walker, absolute, refuse_encoding, refuse_mounts_inside

if TYPE_CHECKING:
    from holo.cloning.relocation import Relocation
    from holo.platform import Directory

__all__ = ["CloneReport", "clone"]

_NEVER = sys.maxsize


def clone(source: str | os.PathLike[str], target: str | os.PathLike[str], *, relocate: bool = False) -> CloneReport:
    """Make ``target``, which must not exist, an exact copy of the directory ``source``.

    It shares the content of ``source`` where the filesystem can (a Btrfs snapshot, else reflinks), and each can be
    changed without the other. ``relocate`` also patches the path of ``source`` inside the files, and the symlinks that
    lead there. Raises :class:`HoloError`, also if something is mounted inside ``source``; nothing is made then.
    """
    refuse_encoding()
    return _Job(os.fspath(source), os.fspath(target), settings.load().workers).run(relocate=relocate)


class _Job:
    """One clone, from the refusals to the report."""

    def __init__(self, source: str, target: str, workers: int) -> None:
        if not source or not target:
            raise UsageError("the name of a directory is empty", "Name the directory to clone, and the place.")
        self._source, self._target = absolute(source), absolute(target)
        self._workers = workers
        self._refused: list[str] = []  # why the best way was not taken

    def run(self, *, relocate: bool) -> CloneReport:
        started = time.monotonic()
        parent, name = os.path.split(self._target)
        self._refuse_target(parent)
        source = self._open_source()
        try:
            self._refuse_inside(parent)
            self._refuse_mounts()
            relocation = self._relocation(source) if relocate else None
            try:
                folder = platform.open_root(parent)
                try:
                    made = self._make(source, Draft(folder, name), relocation)
                finally:
                    platform.close_directory(folder)
            except FileExistsError:
                raise self._exists() from None
            except OSError as error:
                raise HoloError(
                    f"cannot clone to {self._target}: {error.strerror}",
                    nothing_made(error),
                ) from error
        finally:
            platform.close_directory(source)
        return self._report(made, relocation, time.monotonic() - started)

    # -- refusals -----------------------------------------------------------------------------------------------

    def _refuse_target(self, parent: str) -> None:
        try:
            os.lstat(self._target)
        except FileNotFoundError:
            if os.path.isdir(parent):
                return
            raise NotFound(f"there is no folder {parent}", "Make it first: only the clone itself is made.") from None
        except OSError as error:
            raise HoloError(f"cannot clone to {self._target}: {error.strerror}", "Choose another place.") from error
        raise self._exists()

    def _exists(self) -> Conflict:
        return Conflict(f"{self._target} exists", "Choose another place, or remove it first.")

    def _open_source(self) -> Directory:
        try:
            return platform.open_root(self._source)
        except FileNotFoundError:
            raise NotFound(f"there is nothing at {self._source}", "Name the directory to clone.") from None
        except NotADirectoryError:
            raise UsageError(f"{self._source} is not a directory", "Copy a file with `cp --reflink=auto`.") from None
        except OSError as error:
            raise HoloError(f"cannot clone {self._source}: {error.strerror}") from error

    def _refuse_inside(self, parent: str) -> None:
        inside, outside = os.path.realpath(parent), os.path.realpath(self._source)
        if os.path.commonpath([inside, outside]) == outside:
            raise UsageError(f"{self._target} lies inside {self._source}", "Clone to a place outside of it.")

    def _refuse_mounts(self) -> None:
        refuse_mounts_inside(self._source, f"Unmount it first, or clone that by itself. {NOTHING_MADE}")

    def _relocation(self, source: Directory) -> Relocation:
        from holo.cloning.relocation import Relocation

        relocation = Relocation(self._source, self._target, self._workers)
        relocation.search(source)
        relocation.refuse_impossible()
        return relocation

    # -- the work -----------------------------------------------------------------------------------------------

    def _make(self, source: Directory, draft: Draft, relocation: Relocation | None) -> Made | None:
        """What was made file by file; ``None``: a snapshot."""
        draft.remove_leftovers()
        made: Made | None = None
        try:
            if not self._snapshot(source, draft):
                draft.make(lambda folder, name: platform.make_directory(folder, name, 0o700))
                platform.remove_xattrs(draft.root)
                since = relocation.since if relocation else _NEVER
                again = platform.open_child(source, ".")  # Btrfs lists what there was when a directory was opened
                try:
                    made = Filler(again, draft.root, (self._source, self._target), since).fill(self._workers)
                finally:
                    platform.close_directory(again)
                self._refuse_mounts()  # something may have been mounted there, and read
            if relocation is not None:
                relocation.apply(draft.root, made.fresh if made is not None else None)
            draft.publish()
        finally:
            draft.close()
        return made

    def _snapshot(self, source: Directory, draft: Draft) -> bool:
        """Make the draft a snapshot, if the source is something that has such."""
        if not platform.is_tree(source):
            return False
        try:
            draft.make(lambda folder, name: platform.snapshot(source, folder, name))
            _snapshot_below(source, draft.root)
        except OSError as error:
            draft.close()
            if error.errno not in platform.UNAVAILABLE | {errno.EPERM, errno.EACCES}:
                raise
            self._refused.append(f"snapshot does not work from {self._source} to {self._target} ({error.strerror})")
            return False
        return True

    # -- the report ---------------------------------------------------------------------------------------------

    def _report(self, made: Made | None, relocation: Relocation | None, seconds: float) -> CloneReport:
        warnings = list(relocation.warnings) if relocation else []
        relocated = relocation.patched if relocation else 0
        patched_bytes = relocation.patched_bytes if relocation else 0
        if made is None:
            found = relocation.totals if relocation else None
            used = "snapshot"
            total, symlinks, directories, size = found or (None, None, None, None)
            reflinked = hardlinked = None
            copied, shared, written = relocated, None, patched_bytes
            if total is not None and size is not None:
                reflinked, hardlinked, shared = total - relocated, 0, size - patched_bytes
        else:
            used = "reflink" if made.reflinked or not made.copied else "copy"
            moved = min(relocated, made.reflinked)
            reflinked, copied = made.reflinked - moved, made.copied + moved
            if used == "reflink":
                reflinked += made.empty
            else:
                copied += made.empty
            hardlinked, symlinks, directories = made.hardlinked, made.symlinks, made.directories
            total = reflinked + copied + hardlinked
            moved_bytes = patched_bytes if moved else 0
            shared, written = made.shared_bytes - moved_bytes, made.written_bytes + moved_bytes
            size = shared + written
            warnings += _losses(made)
            self._explain_copies(made, used)
        return CloneReport(
            source=self._source,
            path=self._target,
            used=used,
            reason="; ".join(self._refused) or None,
            total=total,
            reflinked=reflinked,
            hardlinked=hardlinked,
            copied=copied,
            relocated=relocated,
            symlinks=symlinks,
            directories=directories,
            bytes_total=size,
            bytes_shared=shared,
            bytes_written=written,
            warnings=tuple(warnings),
            seconds=round(seconds, 3),
        )

    def _explain_copies(self, made: Made, used: str) -> None:
        why = ", ".join(dict.fromkeys(made.reasons))
        if why and used == "copy":
            self._refused.append(f"reflink does not work from {self._source} to {self._target} ({why})")
        elif why:
            self._refused.append(f"reflink does not work for {made.copied:,} of the files ({why})")


def _losses(made: Made) -> list[str]:
    lost = []
    if made.lost_owners:
        lost.append(f"{made.lost_owners:,} entries belong to you now: only root can keep another's ownership")
    if made.lost_attributes:
        lost.append(f"extended attributes or ACLs of {made.lost_attributes:,} entries could not be kept there")
    lost += [
        f"{path} and other names of one file are those of several now: that filesystem does not allow one so many"
        for path in made.divided
    ]
    return lost


def _snapshot_below(tree: Directory, copy: Directory) -> None:
    """Snapshot the trees inside a tree, of which its own snapshot ``copy`` has empty directories."""
    below = platform.trees_below(tree)
    if not below:
        return
    sources, targets = Walker(tree), Walker(copy)
    try:
        for path in below:
            parent, _, last = path.rpartition("/")
            inner, place = sources.open(path), targets.open(parent)
            status = platform.status(place, "")
            platform.remove_directory(place, last)
            platform.snapshot(inner, place, last)
            _snapshot_below(inner, targets.open(path))
            platform.set_times(place, status)
    finally:
        sources.close()
        targets.close()
