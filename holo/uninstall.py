"""Remove all that holo ever made for one home: the library, then the spaces, wherever they are. Say what stays and why.

What is not holo's stays, and so does what belongs to another user or another home. The catalogs go before the blobs
that they need, so what a killed removal leaves is garbage, and the next one goes on with it. The spaces, with all that
was done in them, are last, and each is deleted as ``holo delete`` does it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from holo.bench.scratch import is_abandoned, scratches
from holo.blueprints.garbage import running_builds
from holo.errors import Conflict, HoloError
from holo.files import paths_in
from holo.hololib import Library
from holo.hololib.inventory import take_inventory
from holo.hololib.layout import FOLDERS, LOCKS
from holo.hololib.recovery import locked_library
from holo.holotree import Holotree
from holo.home import Home
from holo.owners import is_others
from holo.platform import probe
from holo.remove import remove_at
from holo.restore.deletion import delete
from holo.space import Space
from holo.trees.overlay import Layers
from holo.trees.spares import Spares
from holo.trees.views import refuse_inside

_FIRST = ("names", "catalog", "used", "builds")
"""Without them the rest of the library is garbage."""

_REST_OF_A_SPACE = re.compile(r"\..+\.holo-[0-9a-f]{8}")
"""Beside a space's place: what a killed restore left (see :mod:`holo.restore`)."""


@dataclass
class UninstallReport:
    """What an uninstall removed, or would."""

    home: str
    dry_run: bool
    removed: list[str] = field(default_factory=list)
    """paths, except of spaces"""
    spaces: list[Space] = field(default_factory=list)
    """deleted, or would be"""
    left: dict[str, str] = field(default_factory=dict)
    """paths that stay, and why"""
    failed: bool = False
    """whether something could not be removed"""

    def to_json(self) -> dict[str, object]:
        """The document ``holo uninstall --json`` prints."""
        return {
            "home": self.home,
            "dry_run": self.dry_run,
            "removed": self.removed,
            "spaces": [{"space": space.name, "path": space.path} for space in self.spaces],
            "left": [{"path": path, "why": why} for path, why in self.left.items()],
        }


def uninstall(home: Home, *, spaces: bool, dry_run: bool) -> UninstallReport:
    """Remove everything; the spaces only if ``spaces``. A dry run changes nothing, and tells the same.

    The caller has removed what killed throw-away environments left. Raises :class:`Conflict` if one is in use, or a
    build is running.
    """
    library, tree = home.library, home.spaces
    report = UninstallReport(tree.home, dry_run)
    rest = _rest_of_commands(library, tree)
    mine = [*_spaces(tree, report)]
    with ExitStack() as held:
        if not dry_run and os.path.isdir(library.path) and not _is_shared(library.path):
            held.enter_context(locked_library(library, exclusive=True, on_wait=home.on_wait))
        doomed = [*_library(library, report), *_beside_spaces(tree, rest, report), *_scratches(tree.home, report)]
        if not dry_run:
            for path in doomed:
                remove_at(path)
    for space in mine:
        if spaces:
            _delete(home, space, report)
        else:
            report.left[space.path] = f"space {space.name} stays"
    _layers(tree, report)
    if not dry_run:
        _remove_folders(library, tree, report)
    known = {library.path, tree.path, *report.removed, *(space.path for space in report.spaces)}
    for path in paths_in(tree.home):
        if path not in known:
            report.left.setdefault(path, "it is not holo's")
    return report


def _rest_of_commands(library: Library, tree: Holotree) -> set[str]:
    """The paths that builds left behind, and the spares.

    Raises :class:`Conflict` if one of them is running: they do not hold a lock of the library.
    """
    layers = Layers(tree.path)
    for run in layers.of(layers.runs):
        raise Conflict(
            f"a throw-away environment is in use: {os.path.join(layers.runs, run)}",
            "Run it again when the command in there has ended.",
        )
    for space in tree.spaces():
        if space.upper:
            refuse_inside(space.name, space.path)
    builds = running_builds(library, tree)
    for path, is_running in builds.items():
        if is_running:
            raise Conflict(f"a build is running: {path}", "Run it again when that has ended.")
    return {Spares(tree).path, *builds}


def _library(library: Library, report: UninstallReport) -> list[str]:
    """The paths of the library to remove, in order."""
    if not os.path.isdir(library.path):
        return []
    if _is_shared(library.path):
        report.left[library.path] = "others share it; `holo catalogs --remove` and `holo gc` remove what is yours"
        return []
    unknown = take_inventory(library).unknown
    report.left |= dict.fromkeys(unknown, "it is not of the library")
    rest = [name for name in FOLDERS if name not in _FIRST]
    order = [os.path.join(library.path, name) for name in (*_FIRST, *rest, *LOCKS)]
    doomed = [path for folder in order if os.path.lexists(folder) for path in _around(unknown, folder)]
    report.removed += doomed if unknown else [library.path]
    return doomed


def _around(kept: list[str], path: str) -> Iterator[str]:
    """The path, or the paths below it, that contain nothing to keep."""
    if not any(f"{other}/".startswith(f"{path}/") for other in kept):
        yield path
    elif path not in kept:
        for entry in paths_in(path):
            yield from _around(kept, entry)


def _beside_spaces(tree: Holotree, rest: set[str], report: UninstallReport) -> list[str]:
    """What the holotree contains besides spaces and their records."""
    places = {tree.default_path(name) for name in tree.names()}
    doomed = []
    for path in paths_in(tree.path):
        name = os.path.basename(path)
        is_rest = _REST_OF_A_SPACE.fullmatch(name) is not None or name.startswith(probe.DOCTOR)
        if (path in rest or is_rest) and not is_others(path):
            doomed.append(path)
        elif path not in places and path != Layers(tree.path).path and name != ".spaces":
            report.left[path] = "it is no space of yours"
    report.removed += doomed
    return doomed


def _layers(tree: Holotree, report: UninstallReport) -> None:
    """What throw-away environments and mounted spaces are made of, but for what a space that stays is mounted over."""
    layers = Layers(tree.path)
    if not os.path.lexists(layers.path):
        return
    mine = {*layers.of(layers.spaces)} - {space.name for space in report.spaces}  # and not root's
    staying = {digest: left for digest, names in tree.mounted().items() if (left := mine.intersection(names))}
    names = set[str]().union(*staying.values())
    if is_others(layers.path):
        report.left[layers.path] = "it is no space of yours"
    elif names:
        report.left[layers.path] = f"spaces are mounted over what is in it: {', '.join(sorted(names))}"
        if not report.dry_run:
            layers.keep_spaces(names)
            layers.collect(set(), staying.keys(), dry_run=False)
    else:
        report.removed.append(layers.path)
        if not report.dry_run:
            remove_at(layers.path)


def _scratches(home: str, report: UninstallReport) -> list[str]:
    """What killed benches left behind."""
    doomed = []
    for path in scratches(home):
        if is_abandoned(path):
            doomed.append(path)
        else:
            report.left[path] = "a bench is running there"
    report.removed += doomed
    return doomed


def _spaces(tree: Holotree, report: UninstallReport) -> Iterator[Space]:
    """The spaces that belong to this user and this home."""
    known = {space.name: space for space in tree.spaces()}
    for name in tree.names():
        if name not in known:
            path = tree.default_path(name)  # unless it is elsewhere, which only its owner is to believe
            report.left[path if os.path.lexists(path) else tree.record_path(name)] = f"space {name} is another user's"
    for space in known.values():
        try:
            tree.refuse_copied(space)
            tree.refuse_unproven(space, "Remove it yourself.")
        except Conflict as conflict:
            report.left[space.path] = conflict.message
        else:
            yield space


def _delete(home: Home, space: Space, report: UninstallReport) -> None:
    is_replaced = home.spaces.is_anothers_place(space)
    if not report.dry_run:
        try:
            delete(home, space.name)
        except HoloError as error:
            report.left[space.path] = error.message
            report.failed = True
            return
    if is_replaced:
        report.left[space.path] = f"it is not space {space.name}, which it has replaced"
    else:
        report.spaces.append(space)


def _remove_folders(library: Library, tree: Holotree, report: UninstallReport) -> None:
    """Remove the folders that are empty now; and the records' folder, if no space is left."""
    records = os.path.join(tree.path, ".spaces")
    if not tree.names() and os.path.isdir(records) and not _is_shared(records):
        remove_at(records)
    for path in (library.path, tree.path, tree.home):
        try:
            os.rmdir(path)
        except OSError as error:
            if not paths_in(path) and os.path.lexists(path):
                is_link = os.path.islink(path)
                why = f"a symlink to {os.path.realpath(path)}" if is_link else error.strerror
                report.left[path] = f"it is empty, but {why}"


def _is_shared(path: str) -> bool:
    """Whether it, or anything in it, belongs to another user."""
    if is_others(path):
        return True
    for folder, names, files in os.walk(path):
        if any(is_others(os.path.join(folder, name)) for name in (*names, *files)):
            return True
        if os.path.basename(folder) == "golden":  # each tree is its maker's
            names.clear()
    return False
