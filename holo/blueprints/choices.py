"""How a blueprint is built for a space, by what was chosen now or before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo.blueprints.builder import BuildOptions
from holo.blueprints.memory import origin_of
from holo.blueprints.modules import subfolder_at

if TYPE_CHECKING:
    from holo.blueprints.blueprint import Blueprint
    from holo.home import Home
    from holo.space import Space


def build_options(
    home: Home, blueprint: Blueprint, known: Space | None, path: str | None, compile_: bool | None
) -> BuildOptions:
    """How a blueprint is built for a space that is there (``known``), or will be at ``path``.

    Without ``compile_``, bytecode is compiled unless that was chosen when the space was made from the blueprint.
    """
    origin = origin_of(home.spaces, known) if compile_ is None and known is not None else None
    if origin is not None and origin.blueprint == blueprint.path:
        compile_ = origin.compile
    return BuildOptions(compile_ is not False, subfolder_at(blueprint, known.path if known is not None else path))
