"""What a user means: which space, which catalog, which blueprint, by what they name and where they are."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from holo.errors import HoloError, NotFound, UsageError, beginning_with, choice, hints
from holo.hololib import CatalogRef
from holo.hololib.layout import NAME, check_name
from holo.holotree import PLACES
from holo.relocation import leads_into
from holo.walk import absolute, current_directory

if TYPE_CHECKING:
    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.memory import Known
    from holo.home import Home
    from holo.space import Space

DEFAULT_SPACE = "user"

_BEFORE_DASHES = " (`holo run SPACE -- COMMAND`)"


def default_space() -> str:
    """The space that is meant if nothing says otherwise."""
    name = os.environ.get("HOLO_SPACE")
    if not name:
        return DEFAULT_SPACE
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"environment variable HOLO_SPACE: {name!r} cannot be the name of a space",
            "Set it to a name that `holo list` shows, or `unset HOLO_SPACE`.",
        )
    return name


def place_named(path: str | os.PathLike[str] | None) -> str | None:
    """The absolute path of ``--to``. Raises :class:`UsageError` for an empty one."""
    if path is None:
        return None
    if not os.fspath(path):  # as "$UNSET" is in a shell; it would mean the current directory
        raise UsageError("--to is empty", "Name the directory that is to be the space.")
    return absolute(os.fspath(path))


def output_named(path: str | os.PathLike[str]) -> str:
    """The absolute path of a file that is to be written. Raises :class:`UsageError` for what names none."""
    name = os.fspath(path)
    if not os.path.basename(name):
        raise UsageError(f"the output {name!r} names no file", "Write the name of the file behind it.")
    return absolute(name)


def project_named(path: str | os.PathLike[str] | None) -> str:
    """The absolute path of ``--project``; nothing, if that is not given."""
    if path is None:
        return ""
    if not os.fspath(path):
        raise UsageError("--project is empty", "Name the root of the project whose code the space is to use.")
    found = absolute(os.fspath(path))
    if not os.path.isdir(found):
        raise NotFound(f"there is no directory {found}", "--project names the root of a checkout.")
    return found


def project_chosen(home: Home, path: str) -> str | None:
    """The root of the project that the space at ``path`` was made for, if that is known, to record it.

    Raises :class:`Conflict` for a view that is not seen here.
    """
    space = home.spaces.at(absolute(path))
    if space is not None:
        home.spaces.refuse_unseen(space)
    return space.project or None if space is not None else None


def near(home: Home, *, replaced: bool = False) -> list[Space]:
    """The spaces that are the ``.venv`` and ``node_modules`` of the current folder, or of the nearest one above.

    ``replaced``: those that were, and something else is there now.
    """
    with suppress(NotFound):  # the current directory is gone
        return home.spaces.near(current_directory(), replaced=replaced)
    return []


def only_near(home: Home) -> Space | None:
    """The one of them that is to be changed. Raises :class:`UsageError` if nobody can tell which."""
    found = near(home)
    if len(found) > 1:
        names = " or ".join(f"--space {space.name}" for space in found)
        raise UsageError(f"{' and '.join(space.path for space in found)} are spaces", f"Say which: {names}.")
    return found[0] if found else None


def near_or_default(home: Home) -> str:
    """The name of that space; else ``HOLO_SPACE``'s, that of the nearest blueprint if there is one, or ``user``."""
    space = only_near(home)
    return space.name if space is not None else _otherwise(home)


def found_or_default(home: Home) -> str:
    """The same, of a space that exists. Raises :class:`NotFound` if none is meant."""
    return _told(home, near_or_default(home))


def _told(home: Home, name: str, how: str = "") -> str:
    """That name, unless it is one that the user has not said here, and of no space. ``how``: to say one."""
    wanted = os.environ.get("HOLO_SPACE")
    if name != (wanted or DEFAULT_SPACE) or home.spaces.find_anyhow(name) is not None:
        return name
    if wanted:
        unknown = home.spaces.unknown(name, f"To make one: `holo init {name} SOURCE`. Or `unset HOLO_SPACE`.")
        raise NotFound(f"environment variable HOLO_SPACE: {unknown.message}", unknown.hint)
    for space in near(home, replaced=True):
        raise NotFound(
            f"no space is named, and {space.path} is space {space.name!r} no more: something has replaced it",
            f"`holo restore {space.name} --force` makes the space again. What is there now goes.",
        )
    blueprint = _blueprint_here()
    way = f" of {blueprint.path}: `holo init`" if blueprint is not None else ": `holo init SPACE SOURCE`"
    raise NotFound(
        f"no space is named, no {' or '.join(PLACES)} here or above is one, and there is no space {name!r}",
        hints(
            _clue() if how else None,
            f"Name it{how}: `holo list` shows which there are. To make one{way}.",
        ),
    )


def _clue() -> str | None:
    """What to do about a file here that almost is a blueprint."""
    from holo.blueprints.blueprint import clue

    with suppress(NotFound):  # there is no current directory
        return clue(current_directory())
    return None


def _otherwise(home: Home) -> str:
    if not os.environ.get("HOLO_SPACE"):
        blueprint = _blueprint_here()
        if blueprint is not None and blueprint.space in home.spaces.names():
            return blueprint.space
    return default_space()


def _blueprint_here() -> Blueprint | None:
    """The nearest blueprint, if somebody can tell which that is; there may be no current directory."""
    from holo.blueprints.blueprint import nearest

    with suppress(HoloError):
        return nearest(current_directory())
    return None


def space_asked_about(home: Home, space: str | None) -> Space:
    """The space of a question: the named one, or the only one whose name begins so; else near, or the default one.

    Also one whose record is damaged.
    """
    if space is not None:
        name = home.spaces.begun(space)
    else:
        spaces = near(home)
        name = spaces[0].name if spaces else _told(home, _otherwise(home))
    found = home.spaces.find_anyhow(name)
    if found is None:
        raise home.spaces.unknown(name, f"To make one: `holo init {name} SOURCE`.")
    return found


def space_to_run(home: Home, space: str | None, blueprint: str | None) -> tuple[str, Blueprint | None]:
    """The name of the space that a command is to run in, and what that is to hold unless it stays as it is."""
    if blueprint is not None:
        from holo.blueprints.blueprint import named

        found = named(blueprint)
        return check_name(space, "space") if space is not None else space_for(home, found), found
    if space is not None:
        return home.spaces.begun(space), None
    from holo.blueprints.blueprint import nearest

    spaces = near(home)
    if spaces and not _has_project(spaces[0]):
        followed = _followed(home, spaces[0])
        is_modules = followed is not None and followed.kind == "npm"
        beside = nearest(current_directory()) if is_modules else None
        if beside is None or beside.kind == "npm":  # else packages for Node.js are not what is meant
            return spaces[0].name, followed
    if os.environ.get("HOLO_SPACE"):
        return _told(home, default_space()), None
    nearby = nearest(current_directory())
    return (nearby.space, nearby) if nearby is not None else (_told(home, default_space(), _BEFORE_DASHES), None)


def _has_project(space: Space) -> bool:
    """Whether a space is a project itself, with the blueprint that is the nearest here."""
    from holo.blueprints.blueprint import nearest

    here = os.path.realpath(current_directory())
    if not leads_into(here, os.path.realpath(space.path)):
        return False
    beside = nearest(here)
    return beside is not None and leads_into(beside.path, os.path.realpath(space.path))


def _followed(home: Home, space: Space) -> Blueprint | None:
    """The blueprint that a space was made from, if it is there and may be built without being named."""
    from holo.blueprints.blueprint import is_own, recognise
    from holo.blueprints.memory import origin_of

    origin = origin_of(home.spaces, space)
    return recognise(origin.blueprint) if origin is not None and is_own(origin.blueprint) else None


def space_for(home: Home, blueprint: Blueprint) -> str:
    """The name of the space of a blueprint, where none is named."""
    from holo.blueprints.memory import origin_of

    for space in home.spaces.near(blueprint.folder):
        origin = origin_of(home.spaces, space)
        if origin is not None and origin.is_of(blueprint):
            return space.name
    return default_space() if os.environ.get("HOLO_SPACE") else blueprint.space


def space_to_init(home: Home, path: str | None) -> str:
    """The name of the space that is to be made, where none is named: the one at ``path``, or else in the current folder
    or above; ``HOLO_SPACE``'s; that of the nearest blueprint; or ``user``."""
    known = home.spaces.at(path) if path is not None else only_near(home)
    if known is not None:
        return known.name
    if not os.environ.get("HOLO_SPACE"):
        from holo.blueprints.blueprint import nearest

        blueprint = nearest(os.path.dirname(path) if path is not None else current_directory())
        if blueprint is not None:
            return blueprint.space
    return default_space()


def refuse_source(home: Home, space: str) -> None:
    """Raise :class:`UsageError` if the only word after `holo init` is no space but a file: it was to be the source."""
    if os.path.isfile(space) and home.spaces.find(space) is None:
        raise UsageError(
            f"{space} is a file here, and would be the name of the new space",
            f"To make a space from it: `holo init SPACE {space}`, or `holo init ./{space}`.",
        )


def space_to_restore(home: Home, space: str | None, path: str | None, catalog: str | None) -> str:
    """The name of the space that a restore is about: named, or else the one at ``path``, near, or the default one."""
    if space is not None:
        return space
    if path is None:
        return near_or_default(home) if catalog is not None else found_or_default(home)
    at = home.spaces.at(path)
    if at is None and catalog is None:
        from shlex import quote

        raise NotFound(
            f"{path} is not a space",
            f"`holo list` shows which are. To make it one: `holo init --space NAME SOURCE --to {quote(path)}`.",
        )
    return at.name if at is not None else default_space()


def catalog_for(home: Home, space: str, reference: str | None, *, begun: bool = False) -> CatalogRef:
    """The catalog that a space is to be restored to: the named one, else its own.

    ``begun``: the beginning of its name or digest will do.
    """
    if reference is not None:
        return home.library.catalogs.resolve(reference, begun=begun)
    known = home.spaces.get(space)
    return CatalogRef(known.catalog, known.digest)


def catalog_named(
    home: Home, source: str | None, known: Space | None, *, begun: bool, space: str | None = None
) -> CatalogRef | None:
    """The catalog in the library that a source means; ``None`` if it is a path.

    ``begun``: the beginning of its name or digest will do, if there is no such path. ``space``: what the space is to be
    called. Raises :class:`NotFound` if nothing is there.
    """
    if source is None:
        return CatalogRef(known.catalog, known.digest) if known is not None else _only(home, space)
    if os.sep not in source:
        try:
            return home.library.catalogs.resolve(source)
        except NotFound as error:
            if not os.path.exists(source):
                with suppress(NotFound):
                    return home.library.catalogs.resolve(source, begun=begun)
                raise NotFound(f"{error.message}, nor a file of that name here", error.hint) from None
    if not os.path.exists(source):
        from holo.transport.bundle import FETCH_FIRST

        hint = "Name a catalog, a catalog file, a directory to record, or a blueprint."
        raise NotFound(f"there is nothing at {source}", FETCH_FIRST if "://" in source else hint)
    return None


def _only(home: Home, space: str | None) -> CatalogRef:
    """The only catalog of the library, for a space of that name."""
    try:
        return home.library.catalogs.only(space)
    except (NotFound, UsageError) as error:
        raise type(error)(error.message, hints(_clue(), error.hint)) from None


def bundle_named(home: Home, source: str) -> str | None:
    """The path of the bundle that a source is, if any; a catalog of that name comes first."""
    from holo.transport.bundle import is_bundle

    is_catalog = os.sep not in source and home.library.catalogs.is_catalog(source)
    return source if not is_catalog and is_bundle(source) else None


def refuse_damaged(source: str) -> None:
    """Raise what opening it raises for a bundle that is not whole, or has more than one catalog."""
    from holo.transport.bundle import is_bundle

    if is_bundle(source):
        from holo.transport.bundle import opened
        from holo.transport.direct import only_catalog

        with opened(absolute(source)) as bundle:
            only_catalog(bundle)


def refuse_other_file(path: str) -> None:
    """Raise :class:`UsageError` for a file that is neither a bundle nor a catalog."""
    from holo.transport.catalog_file import is_catalog_file

    if not is_catalog_file(path):
        from holo.blueprints.blueprint import unknown

        raise unknown(path)


def blueprint_named(home: Home, source: str | None, known: Known, to: str | None) -> Blueprint | None:
    """The blueprint that a source is, if any. Without a source: the space's own; for a new one, the nearest."""
    if source is not None and not _may_be_blueprint(home, source):
        return None
    from holo.blueprints import blueprint

    if source is not None:
        return blueprint.recognise(source)
    if known.space is None:
        return blueprint.nearest(current_directory(), of_npm=os.path.basename(to or "") == "node_modules")
    if known.origin is None or not os.path.isfile(known.origin.blueprint):
        return None
    return blueprint.recognise(known.origin.blueprint)


def _may_be_blueprint(home: Home, source: str) -> bool:
    is_catalog = os.sep not in source and home.library.catalogs.is_catalog(source)
    return os.path.isfile(source) and not is_catalog and bundle_named(home, source) is None


def abbreviated(home: Home, text: str, other: str) -> str:
    """The only name of a space or catalog, or digest, that begins so. Raises :class:`NotFound`.

    ``other``: what else it could have been.
    """
    catalogs = home.library.catalogs
    names = sorted({*home.spaces.names(), *catalogs.names()})
    found = beginning_with(text, names, "names") or beginning_with(text, catalogs.digests(), "catalog digests")
    if found is None:
        raise NotFound(f"there is no space, catalog or {other} {text!r}", choice("Spaces and catalogs", text, names))
    return found


def say_space_is_taken(home: Home, name: str) -> None:
    """Say that a space is meant, if there is a catalog of that name, too."""
    if home.library.catalogs.is_catalog(name):
        digest = home.library.catalogs.resolve(name).digest
        home.on_wait(f"taking space {name!r}, not the catalog of that name: that is {digest[:12]}")


def catalog_taken(home: Home, word: str) -> CatalogRef:
    """The catalog of that name or digest. Says that it is meant, if something in the current folder is called so."""
    catalog = home.library.catalogs.resolve(word)
    if os.path.exists(word):
        home.on_wait(f"taking catalog {catalog.name!r}, not what is called {word!r} here: that is ./{word}")
    return catalog


def say_what_is_taken(home: Home, source: str | None, known: Space | None) -> None:
    """Say which catalog a space will be of, if it was not named, or if something else could be meant."""
    if source is None and known is None:
        only = _only(home, None).name
        home.on_wait(f"there is no blueprint here: taking {only!r}, the only catalog of {home.library.path}")
    elif source and os.sep not in source and home.library.catalogs.is_catalog(source):
        catalog_taken(home, source)
