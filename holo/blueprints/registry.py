"""Which module builds which kind of blueprint. Only the one that is needed is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holo.blueprints.blueprint import BlueprintKind
    from holo.blueprints.builder import Builder


def builder_of(kind: BlueprintKind) -> Builder:
    if kind == "conda":
        from holo.blueprints import conda

        return conda
    if kind == "npm":
        from holo.blueprints import npm

        return npm
    from holo.blueprints import python

    return python
