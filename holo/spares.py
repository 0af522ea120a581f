"""Make and keep spares (:mod:`holo.trees.spares`): in the foreground if a user says so, else when a command has ended.

One process in the background removes the spares that are too many, and makes those that lack. It gives way
(:mod:`holo.background`) and ends by itself. The next one completes a spare whose maker was killed, like a space, and a
tree that was given back. In another boot of the system it hashes each spare once more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from holo import background, platform
from holo.checkout.attributes import can_keep
from holo.checkout.strategy import Method
from holo.errors import Conflict, HoloError
from holo.files import is_there
from holo.hololib import CatalogRef, Library
from holo.hololib.golden import golden_trees
from holo.hololib.locks import CannotLockError, InUseError, locked
from holo.hololib.recovery import is_waited_for
from holo.holotree import Holotree
from holo.home import Home
from holo.restore import Options, make_equal
from holo.settings import Strategy
from holo.space import Space
from holo.trees.private import why_unused
from holo.trees.spares import Spares, is_reachable, meant, wanted, wished

if TYPE_CHECKING:
    from collections.abc import Callable

    from holo.catalog import Catalog

_WITHOUT = frozenset({Strategy.HARDLINK, Strategy.OVERLAY})
"""Strategies that take no spare: its files would not be shared as they want it."""


class SpareDetails(NamedTuple):
    """One spare."""

    name: str
    catalog: str
    digest: str
    path: str
    state: str
    """``ready``: a new space takes it; ``unfinished``: it has to be made, or hashed, before"""
    used: str
    """what made its files: ``reflink`` or ``copy``"""
    exclusive: int | None
    """bytes that it shares with nobody, if that is known"""

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


class SparesReport(NamedTuple):
    """The spares of a user, and what is to be kept."""

    spares: tuple[SpareDetails, ...]
    keep: dict[str, int]
    """how many, by the digests of catalogs; of others, none"""
    names: dict[str, str]
    """of those catalogs"""
    is_filling: bool
    """whether a process in the background is making some"""

    def to_json(self) -> dict[str, Any]:
        """What `holo spares --json` prints."""
        keep = [{"catalog": self.names[digest], "digest": digest, "keep": count} for digest, count in self.keep.items()]
        return {"spares": [spare.to_json() for spare in self.spares], "keep": keep, "filling": self.is_filling}


def report(home: Home, strategy: Strategy, digest: str = "") -> SparesReport:
    """The spares of one catalog, or of all, and what of them new spaces of a strategy take."""
    spares = Spares(home.spaces)
    if (why := why_unused(spares.path)) is not None:
        home.on_wait(f"warning: {why}")
    lacking = {*_to_do_again(spares, strategy)}
    found = []
    for name in spares.all(digest):
        with suppress(HoloError):
            record = spares.find(name)
            if record is not None and digest in ("", record.digest):
                found.append(_details(record, is_ready=name not in lacking))
    keep = {}
    with suppress(OSError):  # on a read-only disk none can be made
        keep = {key: count for key, count in _to_be_kept(home, strategy).items() if digest in ("", key)}
    names = {key: home.library.catalogs.name_of(key) for key in keep}
    return SparesReport(tuple(found), keep, names, spares.is_filling())


def _details(record: Space, *, is_ready: bool) -> SpareDetails:
    return SpareDetails(
        record.name,
        record.catalog,
        record.digest,
        record.path,
        "ready" if is_ready and record.state == "pristine" else "unfinished",
        record.used,
        record.own if record.own >= 0 else None,
    )


def keep(
    home: Home, catalog: CatalogRef, count: int, strategy: Strategy, on_progress: Callable[[int, int], object] | None
) -> None:
    """Keep so many spares of a catalog from now on: make those that lack, remove those that are too many.

    Raises :class:`Conflict` where spares are of no use, and every other :class:`HoloError`.
    """
    spares = Spares(home.spaces)
    if count and strategy in _WITHOUT:
        raise Conflict(
            f"a spare of {catalog.name} would be of no use: new spaces are made by the strategy {strategy.value}",
            "`holo settings` shows who says so. smart, reflink and copy take spares.",
        )
    if count and catalog.digest in golden_trees(home.library.path):
        raise Conflict(
            f"a spare of {catalog.name} would be of no use: here a new space is one snapshot", "It is as fast as that."
        )
    said, before = spares.wishes(), wanted(home).get(catalog.digest, 0)
    # By its name, if it has one: what that will mean is then wanted as well. What was said of the same catalog goes.
    named = catalog.name if meant(home, catalog.name) == catalog.digest else catalog.digest
    concerned = {named, *(reference for reference in said if meant(home, reference) == catalog.digest)}
    # First: on a full disk the wish may have no room.
    _drop(spares, spares.surplus({catalog.digest: count}, catalog.digest))
    spares.keep(dict.fromkeys(concerned) | {named: count})
    try:
        _make_lacking(home, spares, catalog, count, strategy, on_progress)
    except BaseException as error:
        if count > before:
            # After Ctrl-C the same command can go on with them, until a process in the background removes them.
            if isinstance(error, Exception):
                _drop(spares, spares.surplus({catalog.digest: before}, catalog.digest))
            spares.keep({reference: said.get(reference) for reference in concerned})
        raise


def _drop(spares: Spares, names: Iterable[str]) -> None:
    """Remove spares. Those that somebody works on stay."""
    for name in names:
        with suppress(InUseError, CannotLockError), spares.lock(name, wait=False):
            spares.drop(name)


def _make_lacking(
    home: Home,
    spares: Spares,
    catalog: CatalogRef,
    count: int,
    strategy: Strategy,
    on_progress: Callable[[int, int], object] | None,
) -> None:
    for name in _to_do_again(spares, strategy, catalog.digest):
        with suppress(InUseError, CannotLockError):  # somebody is making it
            _make(home, spares, name, catalog.digest, strategy, on_progress)
    # Somebody else may say at the same time that fewer are to be kept.
    while len(spares.ready(catalog.digest)) < min(count, wished(home).get(catalog.digest, 0)):
        home.library.catalogs.load(catalog.digest)
        if not _make(home, spares, spares.new_name(catalog.digest), catalog.digest, strategy, on_progress):
            raise Conflict(f"no spare of {catalog.name} can be made: it would not be private, and exactly as recorded")


def start(home: Home, strategy: Strategy, min_free: int | None) -> bool:
    """Start to make the spares that lack in the background, and to remove those that are too many.

    Returns whether there are any.
    """
    try:
        is_due = any(_has_room(home, digest, min_free) for _, digest in _todo(home, strategy))
        if not is_due and not _too_many(home, strategy, min_free):
            return False
        each = "auto" if home.spares is None else str(home.spares)
        free = "" if min_free is None else str(min_free)
        background.start(__name__, home.library.home, home.library.compression, strategy.value, each, free)
    except (OSError, HoloError):  # what was asked for is done
        return False
    return True


def main() -> None:
    """The process: ``HOME COMPRESSION STRATEGY SPARES MIN_FREE``, of which the last may be empty."""
    path, compression, strategy, each, free = sys.argv[1:]
    with suppress(InUseError, HoloError, OSError):
        library, wanted_of_each = Library(path, compression), None if each == "auto" else int(each)
        home = Home(library, Holotree(path), on_wait=lambda _: None, spares=wanted_of_each)
        if not library.may_be_torn:  # whoever comes next verifies what is new, which takes long
            background.work_when_idle()
            background.give_way(lambda: is_waited_for(library, exclusive=False))
            _fill_alone(home, Strategy(strategy), int(free) if free else None)
    os._exit(0)


def _fill_alone(home: Home, strategy: Strategy, min_free: int | None) -> None:
    spares = Spares(home.spaces)
    spares.prepare()
    with locked(spares.filling, spares.path, exclusive=True, wait=False):
        _fill(home, spares, strategy, min_free)


def _fill(home: Home, spares: Spares, strategy: Strategy, min_free: int | None) -> None:
    _drop(spares, _too_many(home, strategy, min_free))
    for name, digest in _todo(home, strategy):
        if _has_room(home, digest, min_free):
            with suppress(InUseError, HoloError, OSError):  # what one lacks, the others may not
                _make(home, spares, name, digest, strategy, None)


def _too_many(home: Home, strategy: Strategy, min_free: int | None) -> list[str]:
    """The names of the spares to remove: nobody wants them, or they are unfinished and there is no room for that.

    What was given back can be larger than a spare, and whoever deleted it may have wanted the room.
    """
    spares = Spares(home.spaces)
    found = spares.surplus(_to_be_kept(home, strategy))
    return found if _has_room(home, "", min_free) else [*found, *spares.unfinished()]


def _todo(home: Home, strategy: Strategy) -> Iterator[tuple[str, str]]:
    """Names and digests of the spares to make: first those that are there, with no digest, then those that lack."""
    spares = Spares(home.spaces)
    yield from ((name, "") for name in _to_do_again(spares, strategy))
    for digest, count in _to_be_kept(home, strategy).items():
        yield from ((spares.new_name(digest), digest) for _ in range(count - len(spares.all(digest))))


def _to_do_again(spares: Spares, strategy: Strategy, digest: str = "") -> Iterator[str]:
    """The spares that no space takes as they are: unfinished, of another boot, or made by another strategy."""
    yield from spares.unfinished(digest)
    for name in spares.ready(digest):
        record = spares.find_anyhow(name)
        if record is None or record.requested != strategy.value or not spares.is_proven(record):
            yield name


def _to_be_kept(home: Home, strategy: Strategy) -> dict[str, int]:
    """How many spares of each catalog are wanted and save time, as no snapshot does.

    If only the settings want them, with ``auto``, they must cost no data.
    """
    found = {} if strategy in _WITHOUT else wanted(home)
    for digest in found.keys() & golden_trees(home.library.path):
        del found[digest]
    if home.spares is None and found.keys() - (said := wished(home)) and not _is_shared(home):
        return {digest: count for digest, count in found.items() if digest in said}
    return found


def _is_shared(home: Home) -> bool:
    """Whether the files of a spare share blocks with blobs. Raises :class:`OSError` where that cannot be tried."""
    is_made = os.path.isdir(home.spaces.path)
    with platform.closing(platform.open_root(home.spaces.path if is_made else home.library.path)) as folder:
        return home.library.blobs.why_no_reflink(folder) is None


def _has_room(home: Home, digest: str, min_free: int | None) -> bool:
    """Whether the disk has room for another tree of a catalog, if one is named, and what is to stay free.

    There is none for a catalog that cannot be read.
    """
    catalogs, needed = home.library.catalogs, 0
    if digest:
        summary = catalogs.sound_summary(catalogs.name_of(digest))
        try:
            needed = summary.bytes if summary is not None else catalogs.load(digest).totals.bytes
        except HoloError:
            return False
    return platform.free_space(home.spaces.folder()) >= needed + (min_free or 0)


def _make(
    home: Home,
    spares: Spares,
    name: str,
    digest: str,
    strategy: Strategy,
    on_progress: Callable[[int, int], object] | None,
) -> bool:
    """Make a spare, or complete one that is still wanted; ``False``: it could not be one, and is gone."""
    spares.prepare()
    here = home._replace(spaces=spares, spares=0)
    with ExitStack() as locks:
        locks.enter_context(spares.lock(name, wait=False))
        locks.enter_context(home.using_library())
        spares.unfinish(name)
        known = spares.find_anyhow(name)
        if known is not None:
            digest = known.digest
        if not _may_be_kept(home, known, digest, strategy):
            spares.drop(name)
            return True
        catalog = CatalogRef(home.library.catalogs.name_of(digest), digest)
        try:
            whole = home.library.catalogs.load(digest)
            if not _can_keep_attributes(spares, whole):
                spares.drop(name)
                return False
            _, done = make_equal(here, name, catalog, None, Options(strategy, on_progress=on_progress, force=True))
        except Exception as error:  # on a full disk, half a tree would be in the way
            spares.drop(name)
            if isinstance(error, HoloError) and error.left:
                raise type(error)(error.message, error.remedy, "Nothing was made.") from error
            raise
        if done.decision.used is Method.SNAPSHOT or done.tally.divided:  # each space is to say so of itself
            spares.drop(name)
            return False
        spares.finish(name, whole)
        if len(spares.ready(digest)) > wanted(home).get(digest, 0):  # others have made some meanwhile
            spares.drop(name)
    return True


def _can_keep_attributes(spares: Spares, catalog: Catalog) -> bool:
    """Whether a tree can have all extended attributes of a catalog. If not, each space is to say so of itself."""
    values = {item for found in catalog.xattrs.values() for item in found.items()}
    with platform.closing(platform.open_root(spares.path)) as folder:
        return all(can_keep([folder], *item) for item in values)


def _may_be_kept(home: Home, known: Space | None, digest: str, strategy: Strategy) -> bool:
    """Whether a spare is still wanted, and nobody can still write to the tree, if a space had it before."""
    if digest not in _to_be_kept(home, strategy):
        return False
    if known is None or known.made_for == known.path or not is_there(known.path):
        return True
    try:
        return not is_reachable(known.path)
    except OSError:
        return False


if __name__ == "__main__":
    main()
