"""Build the catalog of a blueprint, unless the library has it.

    find        the catalog by its key, the digest of everything that decides the result. Names of catalogs end with it
    build       under a lock, so that nobody builds the same key twice; first a remote is asked, if there is one:
        stage       make a new directory, from the most similar catalog if the builder can begin from one
        build       run the builder's tools in it
        record      the stage as a catalog. That and its name appear last, as with every record
    remember    the inputs, so that the next command finds the catalog without reading them

A killed build leaves at most a stage, a log and a lock that nobody holds. The next build of the same key, or `holo gc`,
removes them; the next build of any blueprint removes the stage. The tools inherit the lock, so it is free only when
neither they nor anything that they left behind can still write to the stage.

Only catalogs that this user or root built count: whoever uses a catalog runs the programs in it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from holo import platform
from holo.blueprints.blueprint import Blueprint
from holo.blueprints.builder import BuildOptions, Built, Packages
from holo.blueprints.canonical import document_without_secrets, key_of
from holo.blueprints.garbage import remove_dead_stages
from holo.blueprints.inputs import Inputs, are_unchanged
from holo.blueprints.log import Log
from holo.blueprints.memory import read_own, recall, remember, write_own
from holo.blueprints.registry import builder_of
from holo.blueprints.seeds import PACKAGES, nearest, note
from holo.blueprints.stage import KEY_DIGITS, LOCK, LOG, MADE, id_of, key_in, new_stage, path_of
from holo.checkout.populate import unpack
from holo.errors import Conflict, HoloError, NotFound, os_errors_as
from holo.files import read_file
from holo.hololib import CatalogRef, Library
from holo.hololib.locks import locked
from holo.home import Home
from holo.owners import is_strangers
from holo.record import RecordReport, record
from holo.remove import remove_at
from holo.trees.held import remove_unheld

_SHORT_LABEL = 36
"""Characters that a user's number, which may have ten digits, and a key leave to the label of a name."""

_LONGEST_LOG = 64 << 20


@dataclass
class Wanted:
    """A catalog that has to be built."""

    blueprint: Blueprint
    options: BuildOptions
    key: str
    own_key: str
    """the key of a build that only this checkout can use"""
    inputs: Inputs
    packages: Packages | None
    digest: None = None
    """It has none yet."""


def find(library: Library, blueprint: Blueprint, options: BuildOptions) -> CatalogRef | Wanted:
    """The catalog of a blueprint if the library has it, else what has to be built."""
    if (known := recall(library, blueprint, options)) is not None:
        return known
    inputs = Inputs()
    builder = builder_of(blueprint.kind)
    document = document_without_secrets(builder.canonical(blueprint, inputs, options))
    key = key_of({"kind": blueprint.kind, **document})[:KEY_DIGITS]
    own_key = key_of({"key": key, "checkout": os.path.realpath(blueprint.folder)})[:KEY_DIGITS]
    wanted = Wanted(blueprint, options, key, own_key, inputs, builder.packages(document))
    return _known(library, wanted) or wanted


def build(home: Home, wanted: Wanted) -> CatalogRef:
    """Build a catalog, or wait until somebody else has.

    The caller holds no lock of the library. Raises :class:`HoloError`: nothing but the log is left then.
    """
    library, blueprint, build_id = home.library, wanted.blueprint, id_of(wanted.key)
    lock = path_of(library, build_id, LOCK)
    remove_dead_stages(library, home.spaces)
    try:
        with locked(lock, f"the build of {blueprint.path}", exclusive=True, on_wait=home.on_wait) as descriptor:
            if (made := _known(library, wanted)) is not None:  # somebody else has built it meanwhile
                return made
            if (obtained := _obtain(home, wanted)) is not None:
                return obtained
            log = Log(path_of(library, build_id, LOG), () if descriptor is None else (descriptor,))
            try:
                with new_stage(home.spaces, build_id) as stage:
                    log.say(f"building {blueprint.path}")
                    report, built = _build_in(stage, home, wanted, log)
            finally:
                log.close()
            if built.own is not None:
                os.replace(log.path, path_of(library, id_of(wanted.own_key), LOG))
    finally:
        remove_unheld(lock)
    remember(library, blueprint, wanted.options, report.name, report.digest, wanted.inputs)
    made = CatalogRef(report.name, report.digest)
    if home.exchange is not None and built.own is None:
        home.exchange.offer(made)
    return made


def _obtain(home: Home, wanted: Wanted) -> CatalogRef | None:
    """The catalog as somebody else has built it, if they share it."""
    if home.exchange is None:
        return None
    name = _free_name(home.library, wanted.blueprint.label, wanted.key)
    found = home.exchange.obtain(wanted.key, name)
    if found is not None:
        remember(home.library, wanted.blueprint, wanted.options, found.name, found.digest, wanted.inputs)
    return found


def _build_in(stage: str, home: Home, wanted: Wanted, log: Log) -> tuple[RecordReport, Built]:
    library, blueprint, options = home.library, wanted.blueprint, wanted.options
    if wanted.packages is not None:
        _plant_seed(stage, home, wanted.packages, log)
    builder = builder_of(blueprint.kind)
    built = builder.build(blueprint, stage, options, log)
    if not are_unchanged(wanted.inputs.files):  # the key would be that of the old ones
        raise Conflict(
            f"{blueprint.path}, or what it was built with, was changed meanwhile",
            "Run the command again.",
        )
    key = wanted.key if built.own is None else wanted.own_key
    if built.own is not None:
        what = f"{built.own[0]} was made in it" if built.own else "code of it is in the environment"
        log.say(f"no other checkout of the project can use this build: {what}")
    with home.using_library():
        name = _free_name(library, blueprint.label, key)
        log.say(f"recording {name}")
        made, project = os.path.join(stage, options.subfolder), builder.project(blueprint, options)
        report = record(library, made, name, project=project, workers=home.workers)
        if wanted.packages is not None:
            note(path_of(library, id_of(key), PACKAGES), report.digest, wanted.packages)
        if built.own is not None:
            write_own(path_of(library, id_of(key), MADE), {"files": list(built.own)})
            for path in built.own:
                wanted.inputs.watch(path)
    for warning in (*built.warnings, *report.warnings):
        log.warn(warning)
    return report, built


def _plant_seed(stage: str, home: Home, wanted: Packages, log: Log) -> None:
    """Let the build begin from the most similar catalog, if there is one."""
    library = home.library
    with home.using_library():
        digest = nearest(library, wanted)
        if digest is not None:
            log.say(f"beginning from {library.catalogs.name_of(digest)}")
            try:
                unpack(library, digest, stage, home.workers)
            except HoloError as error:  # it is damaged, or does not fit the path since HOLO_HOME was moved
                log.say(f"beginning from nothing after all: {error.message}")
                remove_at(stage, itself=False)


def read_log(library: Library, name: str) -> bytes:
    """The log of the build that made the catalog ``name``. Raises :class:`NotFound`."""
    if (key := key_in(name)) is not None:
        path = path_of(library, id_of(key), LOG)
        with os_errors_as(f"cannot read the log {path}"), suppress(FileNotFoundError):
            return read_file(path, _LONGEST_LOG)[0]
    raise NotFound(
        f"there is no log of a build of {name!r}", "Only catalogs that were built here from a blueprint have one."
    )


def _known(library: Library, wanted: Wanted) -> CatalogRef | None:
    """The catalog that this user or root has built for the key."""
    own = _made_here(library, wanted)
    keys = (wanted.key,) if own is None else (wanted.key, wanted.own_key)
    for name in library.catalogs.names():
        if key_in(name) not in keys or is_strangers(library.catalogs.name_path(name)):
            continue
        summary = library.catalogs.sound_summary(name)
        if summary is not None and library.catalogs.has(summary.digest):
            for path in own or ():
                wanted.inputs.watch(path)
            remember(library, wanted.blueprint, wanted.options, name, summary.digest, wanted.inputs)
            return CatalogRef(name, summary.digest)
    return None


def _made_here(library: Library, wanted: Wanted) -> list[str] | None:
    """The files that the build of this checkout has made in it; ``None`` if there is no such build, or one is gone."""
    files = read_own(path_of(library, id_of(wanted.own_key), MADE)).get("files")
    is_sound = isinstance(files, list) and all(type(path) is str and os.path.lexists(path) for path in files)
    return files if is_sound else None


def _free_name(library: Library, label: str, key: str) -> str:
    """A name for the catalog. In a shared library another user may have built the same, and have its name."""
    name = f"{label}-{key}"
    if is_strangers(library.catalogs.name_path(name)):
        return f"{label[:_SHORT_LABEL]}-{platform.user_id()}-{key}"
    return name
