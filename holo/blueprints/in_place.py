"""What installing a project makes outside of the environment, or takes into it, so that no other checkout can use that.

An editable install leaves the sources where they are, so one build serves all checkouts of a project. But some build
backends also write into the project: compiled modules, a file with the version. Others copy code into the environment.
"""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Collection, Iterable
from contextlib import suppress

from holo.blueprints.complete import SITES
from holo.blueprints.requirements import normalized

Sources = dict[str, tuple[int, int]]
"""The files in folders of sources: path to ctime (ns) and inode."""

_ENOUGH = 100
"""Files that stand for all that were made: whoever removes some removes all."""

_NATIVE = (".so", ".pyd", ".dylib")

_FOR_TOOLS = ("__pycache__", "node_modules")

_SIGNS = ("pyvenv.cfg", "conda-meta", "CACHEDIR.TAG")
"""What is in environments, and in caches, such as cargo's ``target``."""

_STEPS = ("lib", "bdist.", "temp.", "__editable__.")
"""Begin the names of what setuptools makes in ``build`` on the way, and of the folder of links of a strict install,
which holo makes in each checkout."""


def sources(folders: Iterable[str]) -> Sources:
    """What is in the folders now, without what tools keep there for themselves, and environments."""
    found: Sources = {}
    for top in folders:
        for folder, names, files in os.walk(top):
            names[:] = [name for name in names if not _is_for_tools(folder, name)]
            for name in files:
                path = os.path.join(folder, name)
                if not name.startswith("."):
                    with suppress(OSError):  # somebody has removed it in this moment
                        status = os.lstat(path)
                        found[path] = status.st_ctime_ns, status.st_ino
    return found


def made(before: Sources, after: Sources) -> list[str]:
    """The files that were made, or written anew, meanwhile; some of them if they are many."""
    return sorted(path for path, state in after.items() if before.get(path) != state)[:_ENOUGH]


def copies_code(stage: str, packages: Collection[str]) -> bool:
    """Whether an environment contains code of the packages itself, and not only what leads to it."""
    records = (
        path for site in SITES for path in glob.glob(os.path.join(glob.escape(stage), site, "*.dist-info", "RECORD"))
    )
    for path in records:
        name = os.path.basename(os.path.dirname(path)).partition("-")[0]
        if normalized(name) in packages:
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                if any(_is_code(row[0]) for row in csv.reader(file) if row):
                    return True
    return False


def _is_code(path: str) -> bool:
    folder = path.partition("/")[0] if "/" in path else ""
    is_besides = folder in ("", "..", "__pycache__") or folder.endswith(".dist-info")
    return path.endswith(_NATIVE) or not is_besides


def _is_for_tools(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    return (
        name.startswith(".")
        or name in _FOR_TOOLS
        or name.endswith(".egg-info")
        or (os.path.basename(folder) == "build" and name.startswith(_STEPS))
        or any(os.path.lexists(os.path.join(path, sign)) for sign in _SIGNS)
    )
