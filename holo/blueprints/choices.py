"""How a blueprint is built for a space, by what was chosen now or before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo.blueprints.builder import BuildOptions
from holo.blueprints.modules import subfolder_at

if TYPE_CHECKING:
    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.memory import Known


def build_options(blueprint: Blueprint, known: Known, path: str | None, compile_: bool | None) -> BuildOptions:
    """How a blueprint is built for a space that is there, or will be at ``path``.

    Without ``compile_``, bytecode is compiled unless that was chosen when the space was made from the blueprint.
    """
    if compile_ is None and known.origin is not None and known.is_from(blueprint):
        compile_ = known.origin.compile
    place = known.space.path if known.space is not None else path
    return BuildOptions(compile_ is not False, subfolder_at(blueprint, place))
