"""Make what an environment is mounted over: the recorded tree once, and for each path what names it.

What makes them is imported when something is to be made, for every run looks here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple

from holo import platform
from holo.trees.held import hold, is_whole
from holo.trees.overlay import Layers
from holo.trees.stubs import attributes, outline_path, parts_of, why_none
from holo.walk import open_directory

if TYPE_CHECKING:
    from holo.catalog import Catalog
    from holo.checkout.tally import Tally
    from holo.hololib import CatalogRef, Library
    from holo.home import Home
    from holo.relocation.patch import Relocator

_RESERVED = "user.overlay."
"""Begins the names of attributes that say something to overlayfs, mounted without root's rights."""


class NoOverlayError(Exception):
    """This system does not let this user mount something for one process alone; the message says why."""


class Lower(NamedTuple):
    """The directories that an environment is mounted over."""

    layer: str
    """what names its path"""
    tree: str
    blobs: str = ""
    """where the content of stubs in the tree is"""


def hold_tree(
    home: Home,
    ref: CatalogRef,
    load: Callable[[], Catalog],
    folder: str,
    held: ExitStack,
    *,
    lock: Callable[[], AbstractContextManager[object]] = nullcontext,
    before_copying: Callable[[str], object] = lambda _: None,
) -> tuple[str, str]:
    """The paths of the tree of a catalog and of its blobs, made if need be, and nobody removes them while ``held``.

    Whether stubs are possible is tried in ``folder``. ``lock`` holds the library's, shared, while ``load`` is called
    and the tree is made; ``before_copying`` is called before one is made that is not of stubs.
    """
    layers = Layers(home.spaces.path)
    tree, stubs = os.path.join(layers.trees, ref.digest), layers.stub_tree(ref.digest)
    has_stubs = is_whole(stubs)
    if not has_stubs and not is_whole(tree):
        with lock():
            has_stubs = why_none(home.library, folder) is None
        if not has_stubs:
            before_copying(folder)

    def make(path: str) -> None:
        made = make_tree(home.library, load(), path, home.workers, of_stubs=has_stubs)
        for warning in made.warnings():
            home.on_wait(f"warning: {warning}")

    what = f"the tree of catalog {ref.name!r}"
    path = held.enter_context(hold(stubs if has_stubs else tree, make, what, home.on_wait, lock))
    return parts_of(path) if has_stubs else (path, "")


def make_tree(library: Library, catalog: Catalog, path: str, workers: int, *, of_stubs: bool) -> Tally:
    """Make the empty directory ``path`` the tree as it was recorded, on the disk as well. Returns what was made.

    Or a tree of stubs: see :mod:`holo.trees.stubs`.

    Raises :class:`NoOverlayError`, and :class:`HoloError` as a restore does.
    """
    from holo.checkout.populate import populate_empty
    from holo.checkout.stubs import Stubs
    from holo.relocation.patch import Relocator
    from holo.trees.outline import Outline, as_recorded, body_of

    for file, values in catalog.xattrs.items():
        if any(name.startswith(_RESERVED) for name in values):
            raise NoOverlayError(f"{file or 'its root'} has attributes that mean something to overlayfs")
    recorded, relocator = as_recorded(catalog), Relocator.of(catalog, catalog.prefix)
    if of_stubs:
        tree, blobs = parts_of(path)
        os.mkdir(tree)
        os.mkdir(blobs)
        with open(outline_path(path), "xb") as outline:
            outline.write(Outline(catalog.digest, "", b"", body_of(catalog)).to_bytes())
        with platform.closing(platform.open_root(blobs)) as data:
            stubs = Stubs(library.blobs, data, attributes())
            made = populate_empty(library, recorded, relocator, tree, workers, stubs)
    else:
        made = populate_empty(library, recorded, relocator, path, workers)
    with platform.closing(platform.open_root(os.path.dirname(path))) as root:
        platform.sync_filesystem(root)
    return made


def make_layer(
    library: Library, catalog: Catalog, path: str, environment: str, project: str, workers: int
) -> list[str]:
    """Make the empty directory ``path`` what of the tree is different where the environment lies at ``environment``.

    ``project``: where its project is to be, if that was chosen. Returns warnings.
    """
    from holo.checkout.populate import populate_empty
    from holo.relocation.patch import Relocator
    from holo.relocation.project import placement, shared_project

    placed = placement(catalog.project, environment, project)
    relocator = Relocator.of(catalog, environment, placed.root)
    relocator.refuse_impossible(catalog.relocations)
    made = populate_empty(library, patched_part(catalog, relocator), relocator, path, workers)
    return [*made.warnings(), *shared_project(catalog, relocator, placed)]


def patched_part(catalog: Catalog, relocator: Relocator) -> Catalog:
    """Only the files and symlinks that are others at the new path, and the directories above them."""
    from holo.catalog import Catalog
    from holo.trees.outline import outline_of

    outline = outline_of(catalog)
    moves = relocator.moves
    relocations = {path: item for path, item in catalog.relocations.items() if moves and relocator.applies(item)}
    rows = []
    needed = {""}
    for path, mode, mtime, files, links in outline.directories:
        base = path + "/" if path else ""
        patched = [row for row in files if base + row[0] in relocations]
        rows.append((path, mode, mtime, patched, links if moves else []))
        above = path if patched or rows[-1][4] else ""
        while above not in needed:
            needed.add(above)
            above = above.rpartition("/")[0]
    groups = [group for group in outline.hardlinks if group[0] in relocations]
    xattrs = {path: values for path, values in outline.xattrs.items() if path in relocations or path in needed}
    return Catalog(
        catalog.prefix, [row for row in rows if row[0] in needed], relocations, groups, xattrs, project=catalog.project
    )


def make_upper(upper: str, layer: str) -> None:
    """A directory looks like its uppermost one, so the root of what a run changes has to look like the recorded one."""
    os.mkdir(upper)
    model = os.lstat(layer)
    with platform.closing(open_directory(upper)) as target:
        platform.disinherit(target, 0o777)
        # A root that not even its owner may read has no attributes.
        with suppress(PermissionError), platform.closing(open_directory(layer)) as source:
            for name, value in platform.get_xattrs(source).items():
                platform.set_xattr(target, name, value)
        platform.set_directory(target, model.st_mode & 0o7777, model.st_mtime_ns)
