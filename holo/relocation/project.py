"""The project that a tree belongs to: which checkout of it the tree is for, and which one it really uses."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from holo.catalog import LONGEST_TARGET
from holo.errors import MALFORMED
from holo.files import SMALL, read_file
from holo.owners import is_ours
from holo.projects import project_of, same_project
from holo.relocation import leads_into, listed

if TYPE_CHECKING:
    from holo.catalog import Catalog
    from holo.relocation.patch import Relocator

_LINK_TREE = "__editable__."
"""Begins the name of a folder of links into a project, which setuptools makes in its ``build`` for a strict install."""

_QUOTED = re.compile(rb"""["'](/[^"'\n]*)["']""")


class Placement(NamedTuple):
    """Where the project of a catalog is for one tree."""

    root: str
    """empty: where it was recorded"""
    why: str = ""
    """why it stays there"""


def placement(recorded: str, path: str, chosen: str) -> Placement:
    """Where the project that was ``recorded`` at that root is for a tree at ``path``: at the ``chosen`` root, else in
    the project that contains the tree, if that is a checkout of the same one."""
    if not recorded or chosen:
        return Placement(chosen)
    here = project_of(path)
    if here in (None, os.sep):  # the files of that are the whole system's
        return Placement("", f"{path} lies in no project")
    if os.path.isdir(recorded) and not same_project(recorded, here):
        return Placement("", f"{here} is no checkout of that project")
    return Placement(here)


def shared_project(catalog: Catalog, relocator: Relocator, placed: Placement) -> list[str]:
    """A warning about what names the project where it was recorded, because it is not elsewhere for this tree.

    ``catalog``: all of it, or the part that is made anew.
    """
    links = ((f"{row[0]}/{name}" if row[0] else name, to) for row in catalog.directories for name, to, _ in row[4])
    files = relocator.unmoved(catalog.relocations, links)
    if not files:
        return []
    shared = f"{catalog.project} is outside of the environment, and every space shares that place with the source"
    return [f"{shared}, because {placed.why} (--project DIR of `holo init` names another): {listed(files)}"]


# -- editable installs ----------------------------------------------------------------------------------------------


def make_link_trees(tree: str, files: Iterable[str], old: str, new: str) -> list[str]:
    """Make at ``new`` what the ``files`` (``.pth``) of the ``tree`` name there, and only the project at ``old`` has.

    Such is the folder of links of a strict editable install. Returns warnings about what cannot be made.
    """
    warnings = []
    for file in files:
        for place in filter(_can_be, _lines(os.path.join(tree, file))):
            if leads_into(place, new) and place == os.path.normpath(place) and not os.path.lexists(place):
                source = old + place[len(new) :]
                is_made = os.path.basename(place).startswith(_LINK_TREE) and _copy_links(source, place, old, new)
                if not is_made:
                    warnings.append(f"{file} names {place}, which does not exist: install the project there again")
    return warnings


def _copy_links(source: str, target: str, old: str, new: str) -> bool:
    """Copy a folder of links, with those that lead to ``old`` leading to ``new``. Returns whether it is there."""
    from tempfile import TemporaryDirectory

    try:
        if not stat.S_ISDIR(os.lstat(source).st_mode) or not is_ours(os.lstat(source)):
            return False
        parent = os.path.dirname(target)
        if not leads_into(os.path.realpath(parent), os.path.realpath(new)):
            return False
        os.makedirs(parent, exist_ok=True)
        with TemporaryDirectory(prefix=".holo-", dir=parent, ignore_cleanup_errors=True) as draft:
            made = os.path.join(draft, "links")
            os.mkdir(made)
            for folder, folders, files in os.walk(source):
                below = made + folder[len(source) :]
                for name in (*folders, *files):
                    _copy_entry(os.path.join(folder, name), os.path.join(below, name), old, new)
            os.rename(made, target)
    except OSError:
        return os.path.isdir(target)  # another restore may have made it meanwhile
    return True


def _copy_entry(source: str, target: str, old: str, new: str) -> None:
    if os.path.islink(source):
        leads_to = os.readlink(source)
        os.symlink(new + leads_to[len(old) :] if leads_into(leads_to, old) else leads_to, target)
    elif os.path.isdir(source):
        os.mkdir(target)
    else:
        import shutil

        # Without links (Windows), setuptools makes hard links: the other checkout has the file at the same place.
        shutil.copy2(source, target)


def imports_elsewhere(path: str, project: str = "") -> list[str]:
    """A warning about an environment at ``path`` that imports code from another checkout of its project.

    ``project``: its root, if that is not the project that contains the environment.
    """
    project = project or project_of(path) or ""
    places = foreign_imports(path, project) if project else []
    if not places:
        return []
    return [f"{path} imports code from another checkout than {project}: {listed(places)}"]


def foreign_imports(path: str, project: str) -> list[str]:
    """The places in other checkouts of ``project`` from which an environment at ``path`` imports code.

    It reads what says so: ``.pth`` files, ``__editable__*`` finders and ``direct_url.json``, or the links in a
    ``node_modules``.
    """
    own = os.path.realpath(project)
    roots: dict[str, bool] = {}
    found = []
    for place in filter(_can_be, dict.fromkeys(named_places(path))):
        real = os.path.realpath(place)
        root = project_of(os.path.join(real, "x"))  # of a worktree inside another, the inner one
        if root is None or leads_into(real, os.path.realpath(path)):
            continue
        if root not in roots:
            roots[root] = os.path.realpath(root) != own and same_project(root, project)
        if roots[root]:
            found.append(place)
    return found


def named_places(path: str) -> Iterator[str]:
    """The places outside of an environment that its installed packages name."""
    for site in _site_packages(path):
        with suppress(OSError), os.scandir(site) as entries:  # what cannot be read is not for this to report
            for entry in entries:
                name = entry.name
                if name.endswith((".pth", ".egg-link")):
                    yield from (place for place in _lines(entry.path) if not leads_into(place, path))
                elif name.startswith("__editable__") and name.endswith(".py"):
                    yield from (os.fsdecode(place) for place in _QUOTED.findall(_content(entry.path)))
                elif name.endswith(".dist-info"):
                    yield from _editable_source(os.path.join(entry.path, "direct_url.json"))
    modules = path if os.path.basename(path) == "node_modules" else os.path.join(path, "node_modules")
    yield from _linked_packages(modules, scopes=True)


def _site_packages(path: str) -> Iterator[str]:
    with suppress(OSError), os.scandir(os.path.join(path, "lib")) as entries:
        for entry in entries:
            site = os.path.join(entry.path, "site-packages")
            if entry.name.startswith(("python", "pypy")) and os.path.isdir(site):
                yield site


def _editable_source(path: str) -> Iterator[str]:
    content = _content(path)
    if b'"editable"' in content:
        import json
        from urllib.parse import unquote, urlsplit

        with suppress(*MALFORMED):
            document = json.loads(content)
            if document["dir_info"]["editable"]:
                yield unquote(urlsplit(document["url"]).path)


def _linked_packages(modules: str, *, scopes: bool) -> Iterator[str]:
    with suppress(OSError), os.scandir(modules) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield os.path.normpath(os.path.join(modules, os.readlink(entry.path)))
            elif scopes and entry.name.startswith("@"):
                yield from _linked_packages(entry.path, scopes=False)


def _lines(path: str) -> Iterator[str]:
    """The absolute paths in a file that has one in each line."""
    yield from (line for line in os.fsdecode(_content(path)).splitlines() if line.startswith("/"))


def _can_be(place: str) -> bool:
    """Whether a path that anybody may have written can be that of a file."""
    return "\0" not in place and len(place) <= LONGEST_TARGET


def _content(path: str) -> bytes:
    with suppress(OSError):
        return read_file(path, SMALL)[0]
    return b""
