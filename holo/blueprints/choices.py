"""How a blueprint is built for a space, by what was chosen now or before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from holo.blueprints.builder import BuildOptions
from holo.blueprints.modules import subfolder_at

if TYPE_CHECKING:
    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.memory import Known


class Chosen(NamedTuple):
    """What the user says now about how a blueprint is built; ``None``: as when the space was made from it, else yes."""

    compile: bool | None = None
    editable_project: bool | None = None


def build_options(blueprint: Blueprint, known: Known, path: str | None, chosen: Chosen) -> BuildOptions:
    """How a blueprint is built for a space that is there, or will be at ``path``."""
    compiled, editable = chosen
    if known.origin is not None and known.is_from(blueprint):
        compiled = known.origin.compile if compiled is None else compiled
        editable = known.origin.editable_project if editable is None else editable
    place = known.space.path if known.space is not None else path
    return BuildOptions(compiled is not False, subfolder_at(blueprint, place), editable is not False)
