"""Throw-away environments: a command finds a pristine one, and what it changes is gone when it ends.

    tree      the catalog in plain directories, made once        holo.trees.overlay, holo.trees.lower
    layer     what of it is different at this path, made once
    run       two empty folders for what this run changes
    process   a child with a view of its own, in which all these are one overlay at the environment's path

None of it depends on how large the environment is but the making, once. Where nobody may mount anything, the command
gets an ordinary space of its own instead. What a killed holo leaves is removed by the next: :func:`sweep`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from holo import platform
from holo.ephemeral.process import AtEnd, Place, try_out
from holo.ephemeral.process import run as run_process
from holo.errors import Conflict, HoloError, NotFound, UsageError, advice, hints, os_errors_as
from holo.files import SMALL, is_there, open_file, read, seal, unseal
from holo.hololib.locks import InUseError, locked
from holo.owners import is_ours
from holo.projects import project_of
from holo.relocation.project import placement
from holo.remove import unlink
from holo.trees.held import discard, hold
from holo.trees.lower import Lower, NoOverlayError, hold_tree, make_layer, make_upper
from holo.trees.overlay import Layers
from holo.walk import mounted_inside

if TYPE_CHECKING:
    from holo.catalog import Catalog
    from holo.hololib import CatalogRef
    from holo.home import Home

_PRIVATE = "ephemeral-"
"""Begins the names of the spaces that take the place of an overlay."""

_PASSING = frozenset({errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing of a note, only that it cannot be read now: what it tells to undo is left to the next one."""


class Environment(NamedTuple):
    """What a command is to find, and where."""

    space: str
    path: str
    catalog: CatalogRef
    project: str = ""
    """the root at which the catalog's project is to be; empty: see :func:`holo.relocation.project.placement`"""


def layers_of(home: Home) -> Layers:
    return Layers(home.spaces.path)


def run(home: Home, environment: Environment, command: list[str], at_end: AtEnd | None = None) -> int:
    """Run a command in a throw-away environment. Returns its exit code, or minus the signal that ended it.

    ``at_end`` gets the root of the environment as the command left it, and its path, however it ended.
    """
    layers_of(home).prepare()
    home.library.catalogs.mark_used(environment.catalog.digest)
    with _os_errors_named(home), _folder(home) as folder:
        try:
            return _run_over(home, environment, folder, command, at_end)
        except NoOverlayError as error:
            home.on_wait(
                f"no throw-away view of {environment.path} is possible here ({error}): "
                "the command runs in a space of its own instead, which is deleted afterwards"
            )
        return _run_in_space(home, environment, folder, command, at_end)


def sweep(home: Home) -> None:
    """Remove what killed runs have left. Other runs are let alone. What cannot be removed is told, and stays."""
    with _failures_told(home):
        layers_of(home).remove_drafts()  # first: the folder of its run is what tells that there may be one
    for name in layers_of(home).working():
        folder = os.path.join(layers_of(home).runs, name)
        lock = locked(folder + ".lock", folder, exclusive=True, wait=False)
        with _failures_told(home), suppress(InUseError), lock:
            _clear(home, folder)


@contextmanager
def _failures_told(home: Home) -> Iterator[None]:
    try:
        with _os_errors_named(home):
            yield
    except HoloError as error:
        home.on_wait(f"a killed throw-away environment is still there: {error.message}")


def _os_errors_named(home: Home) -> AbstractContextManager[None]:
    return os_errors_as(f"cannot use {layers_of(home).path} for a throw-away environment")


# -- the folder of one run ------------------------------------------------------------------------------------------


@contextmanager
def _folder(home: Home) -> Iterator[str]:
    """A new folder for one run, whose lock tells the others that it lives."""
    folder = os.path.join(layers_of(home).runs, os.urandom(8).hex())
    # Only who sweeps can hold it, for a moment, which is nobody's concern.
    with locked(folder + ".lock", folder, exclusive=True, on_wait=lambda _: None):
        try:
            os.mkdir(folder)
            yield folder
        finally:
            _clear(home, folder)


def _note(folder: str, name: str, *values: object) -> None:
    """Write down what is to be undone, before it is done."""
    with open(os.path.join(folder, name), "xb") as file:
        file.write(seal(json.dumps([platform.identity(file.fileno()), *values]).encode()))


def _noted(folder: str, name: str, *, proven: bool = False) -> list[object]:
    """What was noted; nothing if that is not whole, or was copied: it is of a run elsewhere then.

    ``proven``: nothing, too, where the filesystem does not tell that it was not copied.
    """
    try:
        descriptor = open_file(os.path.join(folder, name))
    except OSError as error:
        if error.errno in _PASSING:
            raise
        return []
    try:
        values = json.loads(unseal(read(descriptor, SMALL)))
        identity = platform.identity(descriptor)
        is_own = isinstance(values, list) and values[:1] == [identity] and (identity != "" or not proven)
        return values[1:] if is_own else []
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise
        return []
    finally:
        os.close(descriptor)


def _clear(home: Home, folder: str) -> None:
    """Undo and remove everything of a run, whose lock the caller holds. Killed here, the next one goes on."""
    match _noted(folder, "space"):
        case [str(name)] if name.startswith(_PRIVATE):
            from holo.restore.deletion import delete

            if home.spaces.find_anyhow(name) is not None:
                delete(home, name)
            home.spaces.drop_lock(name)
    match _noted(folder, "mount", proven=True):
        case [str(covered), str(path), bool(is_made), str(was)]:
            with suppress(UsageError, ValueError):  # no space has that name, or no path can be like that
                home.spaces.remove_mount_point(covered, home.spaces.moved_along(path, was), is_made=is_made)
    discard(folder)
    unlink(folder + ".lock")


# -- over layers ----------------------------------------------------------------------------------------------------


def _run_over(home: Home, environment: Environment, folder: str, command: list[str], at_end: AtEnd | None) -> int:
    with ExitStack() as held:
        layers = _hold_layers(home, environment, folder, held)
        is_made = not is_there(environment.path)
        _note(folder, "mount", environment.space, environment.path, is_made, home.spaces.home)
        held.enter_context(home.spaces.hold_mount_point(environment.space, home.on_wait))
        _make_mount_point(environment.path)
        place = Place(
            environment.space,
            environment.path,
            layers,
            *(os.path.join(folder, name) for name in ("upper", "work")),
        )
        os.mkdir(place.work)
        make_upper(place.upper, layers.layer)
        return run_process(command, place, at_end)


def _hold_layers(home: Home, environment: Environment, folder: str, held: ExitStack) -> Lower:
    """What an environment is mounted over, made if need be, and nobody removes it while ``held``."""
    layers, digest, lock = layers_of(home), environment.catalog.digest, home.using_library
    # Where the project is for this path depends on what it lies in, unless that was chosen.
    around = environment.project or project_of(environment.path) or ""
    layer = os.path.join(layers.layers, layers.layer_name(digest, environment.path, around))
    loaded: list[Catalog] = []

    def load() -> Catalog:
        # Each time: between the two it may have been removed, and collected.
        if not loaded or not is_there(home.library.catalogs.path(digest)):
            loaded[:] = [home.library.catalogs.load(digest)]
        return loaded[0]

    def make(path: str) -> None:
        here, project = environment.path, environment.project
        for warning in make_layer(home.library, load(), path, here, project, home.workers):
            home.on_wait(f"warning: {warning}")

    tree, blobs = hold_tree(home, environment.catalog, load, folder, held, lock=lock, before_copying=try_out)
    held.enter_context(hold(layer, make, f"the tree of catalog {environment.catalog.name!r}", home.on_wait, lock))
    return Lower(layer, tree, blobs)


def _make_mount_point(path: str) -> None:
    if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
        raise Conflict(f"{path} is not a directory", "The environment is to appear there. Remove it, or move it away.")
    try:
        with suppress(FileExistsError):
            os.mkdir(path)
        status = os.lstat(path)
    except FileNotFoundError:
        raise NotFound(
            f"there is no folder {os.path.dirname(path)}",
            f"Make it first: the environment is to appear at {path}, and only that is made and removed again.",
        ) from None
    except OSError as error:
        raise HoloError(
            f"cannot make {path}: {error.strerror}", hints(advice(error), "The environment is to appear there.")
        ) from error
    if not is_ours(status):  # who could move it away with the mount, and put something else there
        raise Conflict(f"{path} is another user's", "Choose another name, or let its owner remove it.")


# -- where that is not possible -------------------------------------------------------------------------------------


def _run_in_space(home: Home, environment: Environment, folder: str, command: list[str], at_end: AtEnd | None) -> int:
    from holo.restore import Options, restore

    mounted_inside(home.spaces.path)  # where nobody can tell, no space can be deleted
    name = _PRIVATE + os.urandom(4).hex()
    _note(folder, "space", name)
    with home.spaces.lock(name, home.on_wait), home.using_library():
        recorded = home.library.catalogs.load(environment.catalog.digest).project
        project = placement(recorded, environment.path, environment.project).root
        report = restore(home, name, environment.catalog, None, Options(project=project))
    for warning in report.warnings:
        home.on_wait(f"warning: {warning}")
    return run_process(command, Place(name, report.path), at_end)
