"""Make the catalog of a blueprint, unless the library has it.

    canonical   what decides the result, as a value
    key         its digest. The catalog's name ends with it, so the names in the library are the memory
    lock        one build of a key at a time; who waits finds the catalog there
    stage       a new directory whose path is as long as a space's, so that binaries fit and bytecode stays valid
    begin       from the nearest catalog, if the builder can
    build       by the builder's tools, into the stage
    record      the catalog and its name appear last, as with every record
    remove      the stage and the lock

Killed anywhere, it leaves at most a stage, a log and a lock that nobody holds, which the next build of the key, or
`holo gc`, removes; the stage, the next build of anything. The tools inherit the lock, so it is free only when none of
them, nor what they leave behind, writes to the stage any more.

What one user builds is not used by another, who would run it unseen: a name counts if it is one's own, or root's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.blueprints.blueprint import Blueprint
from holo.blueprints.builder import BuildOptions, Packages
from holo.blueprints.canonical import document_without_secrets, key_of
from holo.blueprints.inputs import Inputs, are_unchanged
from holo.blueprints.log import Log
from holo.blueprints.memory import INPUTS, catalog_remembered, recall, remember
from holo.blueprints.registry import builder_of
from holo.blueprints.seeds import PACKAGES, nearest, note
from holo.checkout.populate import unpack
from holo.errors import Conflict, HoloError, NotFound
from holo.files import draft_of, read_file
from holo.hololib import Library
from holo.hololib.locks import CannotLockError, InUseError, OnWait, locked
from holo.hololib.recovery import locked_library
from holo.owners import is_others, is_strangers
from holo.record import record
from holo.remove import remove_at
from holo.space import Holotree

_KEY = 16
"""Digits of a key in names: of 2**32 blueprints, two would share them."""
_NAMED = re.compile(rf".+-([0-9a-f]{{{_KEY}}})")
_STAGE = re.compile(rf"\.build-([0-9a-f]{{{_KEY}}})")
_SHORT_LABEL = 36
"""Characters that a user's number, which may have ten digits, and a key leave to the label of a name."""
_LOG, _LOCK = ".log", ".lock"
_KINDS = (_LOG, _LOCK, PACKAGES)
_LONGEST_LOG = 64 << 20


class Made(NamedTuple):
    """The catalog of a blueprint."""

    name: str
    digest: str


@dataclass
class Wanted:
    """What a blueprint says now."""

    blueprint: Blueprint
    options: BuildOptions
    key: str
    inputs: Inputs
    """what was looked at"""
    packages: Packages | None
    digest: None = None
    """there is no catalog yet"""


def find(library: Library, blueprint: Blueprint, options: BuildOptions) -> Made | Wanted:
    """The catalog of a blueprint if the library has it, else what has to be built."""
    if (known := recall(library, blueprint, options)) is not None:
        return Made(*known)
    inputs = Inputs()
    builder = builder_of(blueprint.kind)
    document = document_without_secrets(builder.canonical(blueprint, inputs, options))
    key = key_of({"kind": blueprint.kind, **document})[:_KEY]
    wanted = Wanted(blueprint, options, key, inputs, builder.packages(document))
    return _known(library, wanted) or wanted


def build(
    library: Library,
    tree: Holotree,
    wanted: Wanted,
    *,
    workers: int,
    on_wait: OnWait,
) -> Made:
    """Build a catalog, or wait until somebody else has.

    The caller holds no lock of the library. Raises :class:`HoloError`: nothing but the log is left then.
    """
    blueprint = wanted.blueprint
    own = _own(wanted.key)
    lock = _path(library, own, _LOCK)
    _remove_stages(library, tree)
    try:
        with locked(lock, f"the build of {blueprint.path}", exclusive=True, on_wait=on_wait) as descriptor:
            if (made := _known(library, wanted)) is not None:  # somebody else has built it meanwhile
                return made
            log = Log(_path(library, own, _LOG), () if descriptor is None else (descriptor,))
            try:
                with _stage(tree, own) as stage:
                    log.say(f"building {blueprint.path}")
                    _begin(library, wanted, stage, log, workers, on_wait)
                    warnings = builder_of(blueprint.kind).build(blueprint, stage, wanted.options, log)
                    if not are_unchanged(wanted.inputs.files):  # the key would be of what it was before
                        raise Conflict(
                            f"{blueprint.path}, or what it was built with, was changed meanwhile",
                            "Run the command again.",
                        )
                    with locked_library(library, exclusive=False, on_wait=on_wait):
                        name = _free_name(library, blueprint.label, wanted.key)
                        report = record(library, os.path.join(stage, wanted.options.subfolder), name, workers=workers)
                        if wanted.packages is not None:
                            note(_path(library, own, PACKAGES), report.digest, wanted.packages)
                    for warning in (*warnings, *report.warnings):
                        log.say(f"warning: {warning}")
            finally:
                log.close()
    finally:
        _remove_unheld(lock, ())
    remember(library, blueprint, wanted.options, report.name, report.digest, wanted.inputs)
    return Made(report.name, report.digest)


def _begin(library: Library, wanted: Wanted, stage: str, log: Log, workers: int, on_wait: OnWait) -> None:
    """Let the stage hold what is nearest to what is wanted, if anything is."""
    if wanted.packages is None:
        return
    with locked_library(library, exclusive=False, on_wait=on_wait):
        digest = nearest(library, wanted.packages)
        if digest is not None:
            log.say(f"beginning from {library.catalogs.name_of(digest)}")
            try:
                unpack(library, digest, stage, workers)
            except HoloError as error:  # it is damaged, or does not fit the path since HOLO_HOME was moved
                log.say(f"beginning from nothing after all: {error.message}")
                remove_at(stage, itself=False)


def read_log(library: Library, name: str) -> bytes:
    """The log of the build that a catalog's name is of. Raises :class:`NotFound`."""
    found = _NAMED.fullmatch(name)
    if found is not None:
        with suppress(FileNotFoundError):
            path = _path(library, _own(found[1]), _LOG)
            try:
                return read_file(path, _LONGEST_LOG)[0]
            except FileNotFoundError:
                raise
            except OSError as error:
                raise HoloError(f"cannot read the log {path}: {error.strerror}") from error
    raise NotFound(f"there is no log of a build of {name!r}", "Only what was built from a blueprint here has one.")


def tidy(library: Library, tree: Holotree, *, dry_run: bool) -> int:
    """Remove what killed builds left, and what is remembered of catalogs that are gone; returns how many.

    The caller holds the library's lock, exclusively unless it is a dry run. Builds that run are left alone.
    """
    folder = os.path.join(library.path, "builds")
    needed = {_own(named[1]) for name in library.catalogs.names() if (named := _NAMED.fullmatch(name))}
    # Only what this user's builds left: of another's, root's too, the hash does not tell whether it is needed.
    found: dict[str, list[str]] = {}
    removed = 0
    for name in _entries(folder):
        path = os.path.join(folder, name)
        stem, kind = os.path.splitext(name)
        is_forgotten = kind == INPUTS and not library.catalogs.has(catalog_remembered(path) or "")
        if is_forgotten or draft_of(name).endswith((INPUTS, PACKAGES)):
            removed += _unlink_own(path, dry_run=dry_run)
        elif kind in _KINDS:
            found.setdefault(stem, []).extend([path] if kind != _LOCK and stem not in needed else [])
    for name in _entries(tree.path):
        if (stage := _STAGE.fullmatch(name)) is not None:
            found.setdefault(stage[1], []).append(os.path.join(tree.path, name))
    for own, doomed in found.items():
        lock = os.path.join(folder, own + _LOCK)
        if doomed or os.path.lexists(lock):
            removed += _remove_unheld(lock, doomed, dry_run=dry_run)
    return removed


def stages(library: Library, tree: Holotree) -> dict[str, bool]:
    """The stages of this user's builds, and whether the build is running."""
    found = {}
    for name in _entries(tree.path):
        path = os.path.join(tree.path, name)
        if (stage := _STAGE.fullmatch(name)) is not None and not is_others(path):
            lock = os.path.join(library.path, "builds", stage[1] + _LOCK)
            found[path] = os.path.lexists(lock) and not _remove_unheld(lock, [path], dry_run=True)
    return found


def _remove_stages(library: Library, tree: Holotree) -> None:
    """Remove the stages of killed builds, whatever they were of."""
    for name in _entries(tree.path):
        if (stage := _STAGE.fullmatch(name)) is not None:
            with suppress(HoloError):  # that of this build is none of them
                _remove_unheld(_path(library, stage[1], _LOCK), [os.path.join(tree.path, name)])


def _remove_unheld(lock: str, doomed: Sequence[str], *, dry_run: bool = False) -> int:
    """Remove what a build of this user left, and its lock; returns how many, without the lock.

    Not while it is held: by the build, or by a process that one of its tools left behind and that may still write.
    """
    if not any(map(is_others, (lock, *doomed))):
        with suppress(InUseError, CannotLockError), locked(lock, "a build", exclusive=True, wait=False):
            for path in () if dry_run else doomed:
                remove_at(path)
            with suppress(OSError):
                os.unlink(lock)
            return len(doomed)
    return 0


def _unlink_own(path: str, *, dry_run: bool) -> int:
    if is_others(path):
        return 0
    if not dry_run:
        remove_at(path)
    return 1


def _known(library: Library, wanted: Wanted) -> Made | None:
    """The catalog that was built for a key, by this user or root."""
    for name in library.catalogs.names():
        found = _NAMED.fullmatch(name)
        if found is None or found[1] != wanted.key or is_strangers(library.catalogs.name_path(name)):
            continue
        summary = library.catalogs.sound_summary(name)
        if summary is not None and library.catalogs.has(summary.digest):
            remember(library, wanted.blueprint, wanted.options, name, summary.digest, wanted.inputs)
            return Made(name, summary.digest)
    return None


def _free_name(library: Library, label: str, key: str) -> str:
    """What the catalog is to be called. In a shared library another user may have built the same."""
    name = f"{label}-{key}"
    if is_strangers(library.catalogs.name_path(name)):
        return f"{label[:_SHORT_LABEL]}-{platform.user_id()}-{key}"
    return name


def _own(key: str) -> str:
    """What stage, lock and log of a build are called: each user has their own."""
    return digests.of(f"{key} {platform.user_id()}".encode())[:_KEY]


def _path(library: Library, own: str, kind: str) -> str:
    return os.path.join(library.folder("builds"), own + kind)


def _stage_path(tree: Holotree, own: str) -> str:
    """As long as a space's path, and never a space's, whose name does not begin with a point."""
    return os.path.join(tree.path, f".build-{own}")


@contextmanager
def _stage(tree: Holotree, own: str) -> Iterator[str]:
    path = _stage_path(tree, own)
    tree.folder()
    remove_at(path)
    try:
        # Before the tools: where several users share the holotree, none of them can put a folder of theirs there.
        os.mkdir(path, 0o755)
        directory = platform.open_root(path)
        try:
            platform.disinherit(directory, 0o755)
            platform.own_group(directory)
        finally:
            platform.close_directory(directory)
    except OSError as error:
        raise HoloError(f"cannot make {path}: {error.strerror}") from error
    try:
        yield path
    finally:
        remove_at(path)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
