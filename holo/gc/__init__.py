"""Collect garbage: catalogs that were not used for long, and what no catalog needs.

    policy      which catalogs go by their last use or their size
    decide      what of the inventory goes (pure)
    collect     measure and remove it: spares first, then catalogs, then what they alone needed
    report      what was removed, or would be

Whoever removes holds the library's lock exclusively from the inventory on, so no record can rely on a blob that goes.
Killed anywhere, this leaves catalogs that have all their blobs, and garbage for the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from holo.blueprints.garbage import collect_builds
from holo.errors import IntegrityError, os_errors_as
from holo.gc.collect import collect
from holo.gc.policy import Policy
from holo.gc.report import GcReport
from holo.hololib.inventory import Damage, needs
from holo.hololib.recovery import locked_library
from holo.trees.overlay import Layers
from holo.trees.spares import Spares, wanted

if TYPE_CHECKING:
    from holo.home import Home


def collect_garbage(
    home: Home, policy: Policy, *, dry_run: bool, wait: bool = True, gone: Collection[str] = ()
) -> GcReport:
    """Remove what no catalog needs, in the library and beside the spaces, and the catalogs that the policy selects.

    The caller has removed what killed throw-away environments left. ``gone``: spaces that were deleted, or would have
    been in a dry run.
    Raises :class:`IntegrityError` if it is not known what is needed; only drafts, locks and layers are removed then.
    Without ``wait``, raises :class:`InUseError` if somebody else uses the library.
    """
    library, spaces, layers = home.library, home.spaces, Layers(home.spaces.path)
    with os_errors_as(f"cannot collect garbage in {library.path}", name_file=True):
        known, _ = needs(library)  # takes long, and nobody has to wait for that
        trees = layers.sizes()
    with locked_library(library, exclusive=not dry_run, on_wait=home.on_wait, wait=wait):
        holders = spaces.holders() if policy != Policy() else {}
        holders = _without(holders, gone)
        spares, spared = _drop_spares(home, policy, partial(collect, library, known, holders, policy), dry_run=dry_run)
        report = collect(library, known, holders, policy, trees, layers.names_of_blobs, dry_run=dry_run)
        drafts, locks = spaces.tidy(dry_run=dry_run, gone=gone)
        drafts += collect_builds(library, spaces, dry_run=dry_run)
        mounted = _without(spaces.mounted(), gone)
        if not dry_run:
            layers.keep_spaces({name for names in mounted.values() for name in names})
    staying = library.catalogs.digests() - {use.digest for use in report.catalogs}
    removed, freed = layers.collect(staying, mounted.keys(), dry_run=dry_run)
    if report.damage:
        raise _incomplete(report.damage)
    return replace(
        report,
        drafts=report.drafts + drafts,
        locks=locks,
        layers=removed,
        spares=spares,
        bytes_freed=report.bytes_freed + freed + spared,
        bytes_left=report.bytes_left + sum(size for digest, size in trees.items() if digest in staying),
    )


def _without(holders: Mapping[str, Sequence[str]], gone: Collection[str]) -> dict[str, list[str]]:
    """Spaces by their catalogs, without some of them."""
    left = {digest: [name for name in names if name not in gone] for digest, names in holders.items()}
    return {digest: names for digest, names in left.items() if names}


def _drop_spares(
    home: Home, policy: Policy, collect_within: Callable[..., GcReport], *, dry_run: bool
) -> tuple[int, int]:
    """Remove the spares that nobody wants; all of them, rather than a catalog, where there is no room for both."""
    spares = Spares(home.spaces)
    keep = wanted(home) if spares.all() else {}
    if keep and (policy.max_size is not None or policy.min_free is not None):
        sizes = Layers(home.spaces.path).sizes() + spares.sizes()
        if collect_within(sizes, dry_run=True).catalogs:
            keep = {}
    return spares.collect(keep, dry_run=dry_run)


def _incomplete(damage: Sequence[Damage]) -> IntegrityError:
    """The error that ends a collection which could not find out what is needed."""
    more = f" ({len(damage) - 1} more: see `holo check`)" if len(damage) > 1 else ""
    return IntegrityError(
        f"it is not known what is needed, so only drafts, locks and layers can be removed: {damage[0].what}{more}",
        f"{damage[0].way_out} Then run `holo gc` again.",
    )
