"""Spaces of blueprints: made, and brought up to date when the blueprint has changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shlex import quote

from holo.blueprints.blueprint import Blueprint, is_own, recognise
from holo.blueprints.builder import BuildOptions
from holo.blueprints.choices import Chosen, build_options
from holo.blueprints.make import Wanted, build, find
from holo.blueprints.memory import Known, Origin, known_of, look_up, save_origin
from holo.blueprints.modules import place_for
from holo.blueprints.registry import builder_of
from holo.blueprints.stage import key_in
from holo.errors import Conflict, HoloError
from holo.hololib import CatalogRef
from holo.home import Home
from holo.restore import Options, RestoreReport, restore
from holo.space import Space, is_whole


@contextmanager
def built(home: Home, blueprint: Blueprint, chosen: BuildOptions) -> Iterator[CatalogRef]:
    """The catalog of a blueprint, with the library's lock held, so that it stays. It is built if it is not there."""
    while True:
        found = find(home.library, blueprint, chosen)
        catalog = build(home, found) if isinstance(found, Wanted) else found
        with home.using_library():
            if home.library.catalogs.has(catalog.digest):  # nobody has collected it meanwhile
                yield catalog
                return


def init_space(
    home: Home,
    blueprint: Blueprint,
    space: str,
    known: Known,
    path: str | None,
    chosen: BuildOptions,
    options: Options,
    *,
    may_change: bool,
) -> RestoreReport:
    """Make a space, whose lock is held, from a blueprint, and remember from which.

    ``may_change``: also if it holds another catalog. If not, that is refused before anything is built.
    """
    if (
        known.space is not None
        and not may_change
        and find(home.library, blueprint, chosen).digest != known.space.digest
    ):
        raise _holds_another(known.space, blueprint, is_from_it=known.is_from(blueprint))
    with built(home, blueprint, chosen) as catalog:
        project = options.project or builder_of(blueprint.kind).project(blueprint, chosen)
        report = restore(home, space, catalog, path, options._replace(project=project))
        origin = Origin(blueprint.path, chosen.compile, catalog.digest, chosen.editable_project)
        save_origin(home.spaces, space, origin)
    return report


def update_space(home: Home, blueprint: Blueprint, name: str, choice: Chosen, options: Options) -> Space:
    """Let a space hold what a blueprint says, if that is not what it holds, or if it is not whole."""
    with home.spaces.lock(name, home.on_wait):
        known = look_up(home.spaces, name)
        to = place_for(home.spaces, blueprint) if known.space is None else None
        chosen = build_options(blueprint, known, to, choice)
        if is_whole(known.space) and find(home.library, blueprint, chosen).digest == known.space.digest:
            return known.space
        is_its_own = known.is_from(blueprint)
        if is_its_own and is_whole(known.space):
            home.on_wait(f"updating space {name} to match {blueprint.path}; local changes are discarded")
        report = init_space(home, blueprint, name, known, to, chosen, options, may_change=is_its_own)
        home.on_wait(f"{name} ready in {report.seconds:.2f} s: {report.total:,} files of {report.catalog}")
        if to is not None:
            home.on_wait(f"space {name} is {to}, where Node.js looks for packages")
    return home.spaces.get(name)


def changed_blueprint(home: Home, space: Space) -> str | None:
    """The file that a space was made from, if that says something else now; ``None`` also where nobody can tell."""
    known = known_of(home.spaces, space)
    with suppress(HoloError):
        blueprint = recognise(known.origin.blueprint) if known.origin is not None else None
        if blueprint is not None and is_own(blueprint.path):
            found = find(home.library, blueprint, build_options(blueprint, known, None, Chosen()))
            if isinstance(found, Wanted):
                is_same = key_in(space.catalog) in (found.key, found.own_key)
            else:
                is_same = found.digest == space.digest
            return None if is_same else blueprint.path
    return None


def _holds_another(space: Space, blueprint: Blueprint, *, is_from_it: bool) -> Conflict:
    way_out = f"`holo init --space {space.name} --force {quote(blueprint.path)}` turns it into that."
    if is_from_it:
        return Conflict(
            f"space {space.name!r} holds {space.catalog!r}, and {blueprint.path} has changed since",
            f"{way_out} What was changed in the space is lost then.",
        )
    return Conflict(
        f"space {space.name!r} holds catalog {space.catalog!r}, which is not what {blueprint.path} says",
        f"{way_out} Or choose another name.",
    )
