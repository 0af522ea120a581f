"""Clone: an exact, private copy of any directory tree, without a library.

    refuse     before anything is made: a target that exists, a tree in which something is mounted
    search     with ``relocate``: every file, for the tree's own path
    draft      beside the target: a snapshot of the tree, or a new directory that all workers fill (filler)
    relocate   patch the tree's own path in the draft
    publish    one rename, to a name that must not exist

So the clone is there as a whole or not at all. Like a copy, it is not synced. A snapshot is the tree as it was at one
moment. Made file by file, each file is as it was at one moment; a file that goes or keeps changing is an error.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from holo import platform, settings
from holo.cloning.draft import Draft
from holo.cloning.filler import Filler
from holo.cloning.report import NOTHING_MADE, CloneReport, Made, Mapped, report_on
from holo.errors import Conflict, HoloError, NotFound, UsageError, os_errors_as
from holo.remove import remove
from holo.walk import Walker, absolute, refuse_encoding, refuse_mounts_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holo.cloning.relocation import TreeRelocator
    from holo.cloning.roots import Root
    from holo.platform import Directory

__all__ = ["CloneReport", "Mapped", "clone"]

_NEVER = sys.maxsize


class _Paths(NamedTuple):
    """Where a clone leads from and to: absolute paths."""

    source: str
    target: str


def clone(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    relocate: bool = False,
    map_project: bool = True,
    maps: Sequence[str] = (),
) -> CloneReport:
    """Make ``target``, which must not exist, an exact copy of the directory ``source``.

    It shares the content of ``source`` where the filesystem can (a Btrfs snapshot, else reflinks), and each can be
    changed without the other. ``relocate`` also patches the path of ``source`` inside the files, and the symlinks that
    lead there. If ``source`` lies in a project, and ``target`` in another checkout of that, ``relocate`` maps the
    project's root as well (``map_project``), so that the clone uses the code that lies beside it; ``maps``: other
    roots, each as ``OLD=NEW``. Raises :class:`HoloError`, also if something is mounted inside ``source``, or if a file
    names such a root and cannot be patched; nothing is made then.
    """
    refuse_encoding()
    started = time.monotonic()
    workers = settings.load().workers
    if not os.fspath(source) or not os.fspath(target):
        raise UsageError("the name of a directory is empty", "Name the directory to clone, and the place.")
    paths = _Paths(absolute(os.fspath(source)), absolute(os.fspath(target)))
    if maps and not relocate:
        raise UsageError("--map is for a clone that is relocated", "Add --relocate.")
    others = _roots(paths, maps, map_project=map_project) if relocate else []
    _refuse_target(paths.target)
    with platform.closing(_open_source(paths.source)) as tree:
        _refuse_inside(paths)
        _refuse_mounts(paths)
        relocator = _search(paths, tree, others, workers) if relocate else None
        beside = relocator.beside() if relocator else []
        with _cloned_beside(beside, maps):
            made, refused = _make(paths, tree, relocator, workers)
    relocated = relocator.relocated() if relocator else None
    also = tuple(root.new for root in beside)
    return report_on(*paths, made, refused, relocated, also, time.monotonic() - started)


# -- refusals -------------------------------------------------------------------------------------------------------


def _refuse_target(target: str) -> None:
    parent = os.path.dirname(target)
    try:
        os.lstat(target)
    except FileNotFoundError:
        if os.path.isdir(parent):
            return
        raise NotFound(f"there is no folder {parent}", "Make it first: only the clone itself is made.") from None
    except OSError as error:
        raise HoloError(f"cannot clone to {target}: {error.strerror}", "Choose another place.") from error
    raise _exists(target)


def _exists(target: str) -> Conflict:
    return Conflict(f"{target} exists", "Choose another place, or remove it first.")


def _open_source(source: str) -> Directory:
    try:
        return platform.open_root(source)
    except FileNotFoundError:
        raise NotFound(f"there is nothing at {source}", "Name the directory to clone.") from None
    except NotADirectoryError:
        raise UsageError(f"{source} is not a directory", "Copy a file with `cp --reflink=auto`.") from None
    except OSError as error:
        raise HoloError(f"cannot clone {source}: {error.strerror}") from error


def _refuse_inside(paths: _Paths) -> None:
    inside, outside = os.path.realpath(os.path.dirname(paths.target)), os.path.realpath(paths.source)
    if os.path.commonpath([inside, outside]) == outside:
        raise UsageError(f"{paths.target} lies inside {paths.source}", "Clone to a place outside of it.")


def _refuse_mounts(paths: _Paths) -> None:
    refuse_mounts_inside(paths.source, f"Unmount it first, or clone that by itself. {NOTHING_MADE}")


def _roots(paths: _Paths, maps: Sequence[str], *, map_project: bool) -> list[Root]:
    """The roots that move besides the tree itself."""
    from holo.cloning.roots import named, of_project

    roots = named(maps)
    _refuse_two_places([paths, *roots])
    known = {root.old for root in roots}
    return roots + [root for root in of_project(*paths) if map_project and root.old not in known]


def _refuse_two_places(roots: Sequence[tuple[str, str]]) -> None:
    """A folder moves to one place: of two, nobody knows which is meant."""
    moved: dict[str, str] = {}
    for old, new in roots:
        if moved.setdefault(os.path.realpath(old), new) != new:
            raise UsageError(
                f"--map has two places for {old}: {moved[os.path.realpath(old)]} and {new}", "Leave out one of them."
            )


# -- the work -------------------------------------------------------------------------------------------------------


def _search(paths: _Paths, tree: Directory, others: list[Root], workers: int) -> TreeRelocator:
    from holo.cloning.relocation import TreeRelocator

    relocator = TreeRelocator(paths.source, paths.target, others, workers)
    relocator.search(tree)
    relocator.refuse_impossible()
    return relocator


@contextmanager
def _cloned_beside(beside: Sequence[Root], maps: Sequence[str]) -> Iterator[None]:
    """Clone other folders, which the clone needs. If it fails, they go again."""
    made: list[str] = []
    try:
        for old, new in dict.fromkeys(beside):
            made += _make_folders(os.path.dirname(new))
            clone(old, new, relocate=True, maps=maps)
            made.append(new)
        yield
    except BaseException:
        for path in reversed(made):
            with suppress(OSError), platform.closing(platform.open_root(os.path.dirname(path))) as folder:
                remove(folder, os.path.basename(path))
        raise


def _make_folders(path: str) -> list[str]:
    """Make the folders that are missing on the way to ``path``, and ``path``; returns them."""
    if os.path.isdir(path):
        return []
    made = _make_folders(os.path.dirname(path))
    with os_errors_as(f"cannot make {path}", left=NOTHING_MADE):
        os.mkdir(path)
    return [*made, path]


def _make(
    paths: _Paths, tree: Directory, relocator: TreeRelocator | None, workers: int
) -> tuple[Made | None, list[str]]:
    """Make the clone. Returns the counts of :func:`_fill`, ``None`` for a snapshot; and why it is no snapshot."""
    parent, name = os.path.split(paths.target)
    with (
        os_errors_as(f"cannot clone to {paths.target}", left=NOTHING_MADE),
        platform.closing(platform.open_root(parent)) as folder,
    ):
        draft = Draft(folder, name)
        try:
            draft.remove_leftovers()
            refused = _snapshot(paths, tree, draft)
            since = relocator.since if relocator is not None else _NEVER
            made = _fill(paths, tree, draft, since, workers) if refused is not None else None
            if relocator is not None:
                relocator.apply(draft.root, made.fresh if made is not None else None)
            draft.publish()
        except FileExistsError:
            raise _exists(paths.target) from None
        finally:
            draft.close()
    return made, refused or []


def _snapshot(paths: _Paths, tree: Directory, draft: Draft) -> list[str] | None:
    """Make the draft a snapshot of the tree. Returns ``None``, or the reasons why that is not possible.

    They are ``[]`` for a tree that is no subvolume, from which one does not expect it.
    """
    if not platform.is_tree(tree):
        return []
    try:
        draft.make(lambda folder, name: platform.snapshot(tree, folder, name))
        _snapshot_below(tree, draft.root)
    except OSError as error:
        draft.close()
        if error.errno not in platform.UNAVAILABLE | {errno.EPERM, errno.EACCES}:
            raise
        return [f"snapshot does not work from {paths.source} to {paths.target} ({error.strerror})"]
    return None


def _fill(paths: _Paths, tree: Directory, draft: Draft, since: int, workers: int) -> Made:
    """Make the draft file by file. What changes from ``since`` on (ns) is reported as fresh."""
    draft.make(lambda folder, name: platform.make_directory(folder, name, 0o700))
    platform.remove_xattrs(draft.root)
    with platform.closing(platform.open_child(tree, ".")) as again:
        made = Filler(again, draft.root, paths, since).fill(workers)
    _refuse_mounts(paths)  # something may have been mounted there, and read
    return made


def _snapshot_below(tree: Directory, copy: Directory) -> None:
    """Snapshot the trees inside a tree. In its own snapshot, ``copy``, they are empty directories."""
    below = platform.trees_below(tree)
    if not below:
        return
    with Walker(tree) as sources, Walker(copy) as targets:
        for path in below:
            parent, _, last = path.rpartition("/")
            inner, place = sources.open(path), targets.open(parent)
            status = platform.status(place, "")
            platform.remove_directory(place, last)
            platform.snapshot(inner, place, last)
            _snapshot_below(inner, targets.open(path))
            platform.set_times(place, status)
