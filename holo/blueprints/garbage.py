"""Garbage of builds: what killed builds left, and notes about catalogs that are gone.

Only this user's. An id is a hash, which does not tell whether a file of another user, even of root, is still needed.
"""

from __future__ import annotations

import os
from contextlib import suppress

from holo.blueprints.memory import INPUTS, catalog_remembered
from holo.blueprints.seeds import PACKAGES
from holo.blueprints.stage import LOCK, LOG, MADE, id_of, key_in, path_of, stages_in
from holo.errors import HoloError
from holo.files import draft_of, names_in
from holo.hololib import Library
from holo.holotree import Holotree
from holo.owners import is_others
from holo.remove import remove_at
from holo.trees.held import is_held, remove_unheld


def collect_builds(library: Library, tree: Holotree, *, dry_run: bool) -> int:
    """Remove all garbage of builds but that of those which run; returns how many files and stages.

    The caller holds the library's lock, exclusively unless it is a dry run.
    """
    folder = os.path.join(library.path, "builds")
    needed = {id_of(key) for name in library.catalogs.names() if (key := key_in(name)) is not None}
    garbage: dict[str, list[str]] = {}
    removed = 0
    for name in names_in(folder):
        path = os.path.join(folder, name)
        build, kind = os.path.splitext(name)
        is_forgotten = kind == INPUTS and not library.catalogs.has(catalog_remembered(path) or "")
        if is_forgotten or draft_of(name).endswith((INPUTS, PACKAGES, MADE)):
            removed += _remove_own(path, dry_run=dry_run)
        elif kind in (LOG, LOCK, PACKAGES, MADE):
            garbage.setdefault(build, []).extend([path] if kind != LOCK and build not in needed else [])
    for build, stage in stages_in(tree).items():
        garbage.setdefault(build, []).append(stage)
    for build, paths in garbage.items():
        lock = os.path.join(folder, build + LOCK)
        if (paths or os.path.lexists(lock)) and _remove_own_unheld(lock, *paths, dry_run=dry_run):
            removed += len(paths)
    return removed


def remove_dead_stages(library: Library, tree: Holotree) -> None:
    """Remove the stages of killed builds of any blueprint."""
    for build, stage in stages_in(tree).items():
        with suppress(HoloError):  # it is none of the caller's business
            _remove_own_unheld(path_of(library, build, LOCK), stage)


def running_builds(library: Library, tree: Holotree) -> dict[str, bool]:
    """The stages of this user's builds, and whether the build is running."""
    folder = os.path.join(library.path, "builds")
    found = stages_in(tree).items()
    return {stage: is_held(os.path.join(folder, build + LOCK)) for build, stage in found if not is_others(stage)}


def _remove_own_unheld(lock: str, *paths: str, dry_run: bool = False) -> bool:
    """Remove files of a build of this user, and its lock, if nobody holds that; returns whether it did.

    A process that a tool left behind holds it like the build itself, and may still write.
    """
    return not any(map(is_others, (lock, *paths))) and remove_unheld(lock, *paths, dry_run=dry_run)


def _remove_own(path: str, *, dry_run: bool) -> int:
    if is_others(path):
        return 0
    if not dry_run:
        remove_at(path)
    return 1
