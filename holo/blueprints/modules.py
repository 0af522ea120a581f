"""Where Node.js finds the packages of a space.

It looks in the folders called ``node_modules`` beside a script and above it. For ``import`` it looks nowhere else
(https://nodejs.org/api/esm.html): ``NODE_PATH`` is only for ``require``. So a space of npm packages can be the
``node_modules`` of its project. A space anywhere else contains a folder of that name, because packages look for each
other in the same way.
"""

from __future__ import annotations

import os

from holo.blueprints.blueprint import Blueprint, recognise
from holo.blueprints.memory import origin_of
from holo.holotree import Holotree, is_empty_directory
from holo.space import Space

MODULES = "node_modules"


def subfolder_at(blueprint: Blueprint, path: str | None) -> str:
    """The folder of the environment that a space at ``path`` holds; empty if it holds all of it."""
    is_modules = path is not None and os.path.basename(path) == MODULES
    return MODULES if blueprint.kind == "npm" and is_modules else ""


def place_for(tree: Holotree, blueprint: Blueprint) -> str | None:
    """The place in its project for a new space of a blueprint; ``None`` if none is needed, or none is free."""
    path = os.path.join(blueprint.folder, MODULES)
    if not subfolder_at(blueprint, path) or not os.access(blueprint.folder, os.W_OK):
        return None
    if os.path.lexists(path) and (os.path.islink(path) or not is_empty_directory(path)):
        return None
    return None if tree.overlapping(path, inside=False) else path


def hidden(tree: Holotree, space: Space) -> str | None:
    """The warning for a space whose packages cannot be imported in its project."""
    inner = os.path.join(space.path, MODULES)
    origin = origin_of(tree, space) if os.path.isdir(inner) else None
    blueprint = recognise(origin.blueprint) if origin is not None and os.path.isfile(origin.blueprint) else None
    if blueprint is None or blueprint.kind != "npm":
        return None
    place = os.path.join(blueprint.folder, MODULES)
    if os.path.realpath(place) == os.path.realpath(inner):
        return None
    said = f"`require` finds the packages of space {space.name}, but `import` looks for them in {place}"
    if os.path.lexists(place):
        return f"{said}, which is something else"
    return f"{said}; `holo init --space NAME --to {place} {blueprint.path}` makes that"
