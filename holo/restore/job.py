"""What one restore is about, read before anything is changed. Values only; nothing here writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import NamedTuple, TypeAlias

from holo import platform
from holo.catalog import Catalog, Totals
from holo.checkout.contents import Carrier, Contents
from holo.checkout.proof import still_holds
from holo.checkout.strategy import Decision
from holo.checkout.tally import Tally
from holo.errors import CatalogInvalid, os_errors_as
from holo.hololib import CatalogRef
from holo.home import Home
from holo.relocation.patch import Relocator
from holo.relocation.project import Placement, placement
from holo.restore.place import Target
from holo.settings import Strategy
from holo.space import Space
from holo.trees.golden import find_outline
from holo.trees.outline import Outline, read_outline
from holo.trees.spares import Spares
from holo.walk import open_directory

OnProgress: TypeAlias = Callable[[int, int], object]


class Options(NamedTuple):
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
    on_progress: OnProgress | None = None
    project: str = ""
    """the root at which the catalog's project is for this space; empty: see :func:`placement`"""


class Wanted(NamedTuple):
    """The catalog, read as far as this restore needs it."""

    outline: Outline | None
    """of a golden tree or a spare, if there is one and it may be all that is needed"""
    part: Catalog
    """what holds all relocations: the outline's part of the catalog, else all of it"""
    totals: Totals
    relocator: Relocator
    project: Placement
    """where the catalog's project is for this space"""
    load: Callable[[], Catalog]
    """returns the whole catalog, which is read once at most"""

    @property
    def moves_project(self) -> bool:
        """Whether the project is at another place than where it was recorded."""
        return self.project.root not in ("", self.part.project) and bool(self.part.project)


class Job(NamedTuple):
    """One restore."""

    home: Home
    target: Target
    catalog: CatalogRef
    contents: Contents
    """what the files are made from: the library's blobs, or a bundle"""
    bundle: str
    """the path of that bundle, or nothing"""
    options: Options
    verify: bool
    """as the options say, or because a power cut may have left torn blobs"""
    past: Space | None
    """the space as the last restore left it, if that proves anything about its files"""
    wanted: Wanted
    changed: Callable[[], list[str]]
    """returns the directories that have another mtime, or are gone; it looks at them once at most. What was added or
    removed shows in them, what was changed within a file does not"""

    @property
    def may_be_supplied(self) -> bool:
        """Whether a whole tree may take the place of the space: of what the library holds, and not to be hashed."""
        return self.contents is self.home.library.blobs and not self.verify


class Done(NamedTuple):
    """What a restore has come to."""

    decision: Decision
    tally: Tally
    is_spare: bool = False


def read_job(home: Home, target: Target, catalog: CatalogRef, carrier: Carrier | None, options: Options) -> Job:
    """Read what a restore needs to know. Raises :class:`RelocationImpossible`, and what reading a catalog raises."""
    verify = options.verify or (home.library.may_be_torn and carrier is None)
    if carrier is None:
        wanted = _wanted(home, target, catalog, options, verify)
        contents: Contents = home.library.blobs
    else:
        _, whole, contents = carrier
        wanted = Wanted(None, whole, whole.totals, *_relocator(whole, target, catalog, options), lambda: whole)

    @cache
    def changed() -> list[str]:
        return [] if target.is_new else _changed(target, wanted)

    return Job(
        home,
        target,
        catalog,
        contents,
        carrier.path if carrier else "",
        options,
        verify,
        _past(target, catalog, wanted.project.root),
        wanted,
        changed,
    )


def _wanted(home: Home, target: Target, ref: CatalogRef, options: Options, verify: bool) -> Wanted:
    @cache
    def load() -> Catalog:
        return home.library.catalogs.load(ref.digest)

    summary = home.library.catalogs.sound_summary(ref.name)
    found = None
    if not verify and summary is not None and summary.digest == ref.digest:
        found = _outline(home, ref.digest, options.strategy)
    if found is not None and summary is not None:
        outline, part = found
        totals = Totals(summary.files, summary.directories, summary.symlinks, summary.bytes)
        return Wanted(outline, part, totals, *_relocator(part, target, ref, options), load)
    return Wanted(None, load(), load().totals, *_relocator(load(), target, ref, options), load)


def _outline(home: Home, digest: str, strategy: Strategy) -> tuple[Outline, Catalog] | None:
    """The outline of a tree that can supply the space, and what it parses to."""
    if strategy is Strategy.OVERLAY:
        from holo.trees.overlay import Layers
        from holo.trees.stubs import outline_path

        with suppress(OSError, CatalogInvalid, ValueError):
            outline = read_outline(outline_path(Layers(home.spaces.path).stub_tree(digest)), digest)
            return outline, outline.parse_catalog()
        return None
    spare = Spares(home.spaces).find_ready(digest, strategy)
    if spare is not None:
        with suppress(CatalogInvalid, ValueError):
            return spare.outline, spare.outline.parse_catalog()
    return find_outline(home.library, digest) if strategy in (Strategy.SMART, Strategy.REFLINK) else None


def _relocator(part: Catalog, target: Target, ref: CatalogRef, options: Options) -> tuple[Relocator, Placement]:
    known = target.known
    chosen = options.project
    # The same catalog stays with the project that was found or chosen at first. Another may be of another project.
    if known is not None and not chosen and known.digest == ref.digest:
        chosen = known.project
    project = placement(part.project, target.path, chosen)
    relocator = Relocator.of(part, target.path, project.root)
    relocator.refuse_impossible(part.relocations)
    return relocator, project


def _past(target: Target, catalog: CatalogRef, project: str) -> Space | None:
    """What is known of the space, unless it was changed in a way that no file shows, or its files name other paths."""
    known = target.known
    if known is None or target.is_new or (known.made_for, known.project) != (target.path, project):
        return None
    with opened(target) as root:
        return known if still_holds(known, catalog.digest, root) else None


def _changed(target: Target, wanted: Wanted) -> list[str]:
    times: Iterable[tuple[str, int]]
    if wanted.outline is not None:
        times = wanted.outline.parse_times().items()
    else:
        times = ((row[0], row[2]) for row in wanted.load().directories)
    with platform.closing(open_space(target)) as space:
        return [path for path, mtime in times if not _has_mtime(space, path, mtime)]


def _has_mtime(root: platform.Directory, path: str, mtime: int) -> bool:
    try:
        return platform.status(root, path).st_mtime_ns == mtime
    except OSError:
        return False


@contextmanager
def opened(target: Target) -> Iterator[platform.Directory]:
    """The root of the space, to be looked at. Raises :class:`HoloError` that names it."""
    with platform.closing(open_space(target)) as root, os_errors_as(f"cannot read the space {target.path}"):
        yield root


def open_space(target: Target, *, changes: bool = False) -> platform.Directory:
    """Open the root of the space; to change something in it, not if something was mounted there meanwhile."""
    with os_errors_as(f"cannot open the space {target.path}"):
        return open_directory(target.path, changes=changes and not target.is_mount_point)
