"""Spaces of blueprints: made, and brought up to date when the blueprint has changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote

from holo.blueprints.blueprint import Blueprint
from holo.blueprints.builder import BuildOptions
from holo.blueprints.choices import build_options
from holo.blueprints.make import Wanted, build, find
from holo.blueprints.memory import Origin, origin_of, save_origin
from holo.blueprints.modules import place_for
from holo.errors import Conflict
from holo.hololib import CatalogRef
from holo.hololib.recovery import locked_library
from holo.home import Home
from holo.restore import Options, RestoreReport, restore
from holo.space import Space, is_whole


@contextmanager
def built(home: Home, blueprint: Blueprint, chosen: BuildOptions) -> Iterator[CatalogRef]:
    """The catalog of a blueprint, with the library's lock held, so that it stays. It is built if it is not there."""
    while True:
        found = find(home.library, blueprint, chosen)
        catalog = build(home, found) if isinstance(found, Wanted) else found
        with locked_library(home.library, exclusive=False, on_wait=home.on_wait):
            if home.library.catalogs.has(catalog.digest):  # nobody has collected it meanwhile
                yield catalog
                return


def init_space(
    home: Home,
    blueprint: Blueprint,
    space: str,
    known: Space | None,
    path: str | None,
    chosen: BuildOptions,
    options: Options,
    *,
    may_change: bool,
) -> RestoreReport:
    """Make a space, whose lock is held, from a blueprint, and remember from which.

    ``may_change``: also if it holds another catalog. If not, that is refused before anything is built.
    """
    if known is not None and not may_change:
        _refuse_change(home, known, blueprint, chosen)
    with built(home, blueprint, chosen) as catalog:
        report = restore(home, space, catalog, path, options)
        save_origin(home.spaces, space, Origin(blueprint.path, chosen.compile, catalog.digest))
    return report


def update_space(home: Home, blueprint: Blueprint, name: str, compile_: bool | None, options: Options) -> Space:
    """Let a space hold what a blueprint says, if that is not what it holds, or if it is not whole."""
    with home.spaces.lock(name, home.on_wait):
        known = home.spaces.find(name)
        to = place_for(home.spaces, blueprint) if known is None else None
        chosen = build_options(home, blueprint, known, to, compile_)
        if is_whole(known) and find(home.library, blueprint, chosen).digest == known.digest:
            return known
        origin = origin_of(home.spaces, known) if known is not None else None
        is_its_own = origin is not None and origin.blueprint == blueprint.path
        if is_its_own and is_whole(known):
            home.on_wait(f"updating space {name} to match {blueprint.path}; local changes are discarded")
        init_space(home, blueprint, name, known, to, chosen, options, may_change=is_its_own)
        if to is not None:
            home.on_wait(f"space {name} is {to}, where Node.js looks for packages")
    return home.spaces.get(name)


def _refuse_change(home: Home, known: Space, blueprint: Blueprint, chosen: BuildOptions) -> None:
    """Raise :class:`Conflict` if a space does not hold what a blueprint says."""
    if find(home.library, blueprint, chosen).digest == known.digest:
        return
    way_out = f"`holo init --space {known.name} --force {quote(blueprint.path)}` turns it into that."
    origin = origin_of(home.spaces, known)
    if origin is not None and origin.blueprint == blueprint.path:
        raise Conflict(
            f"space {known.name!r} holds {known.catalog!r}, and {blueprint.path} has changed since",
            f"{way_out} What was changed in the space is lost then.",
        )
    raise Conflict(
        f"space {known.name!r} holds catalog {known.catalog!r}, which is not what {blueprint.path} says",
        f"{way_out} Or choose another name with --space.",
    )
