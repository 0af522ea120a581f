"""What holo remembers of blueprints, so that it need not run a tool to see that nothing has changed.

    hololib/builds/<hash>.seen     of a blueprint: its catalog, and the inputs that decided which
    .spaces/<name>.origin          of a space: the blueprint that it was made from

Both can be lost: then holo reads the blueprint again, and the space is that of a catalog like any other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from holo import digest as digests
from holo import platform
from holo.files import SMALL, paths_in, read_file, seal, unseal, write_atomically
from holo.hololib import CatalogRef, Library
from holo.hololib.layout import NAME
from holo.holotree import Holotree
from holo.owners import only_we_wrote
from holo.space import Space
from holo.walk import real_place

if TYPE_CHECKING:
    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.builder import BuildOptions
    from holo.blueprints.inputs import FileStates, Inputs

INPUTS = ".seen"
"""Ends the name of a file that remembers a catalog and its inputs."""

_FORM = 4
"""Counted up with the version of any builder, so that holo forgets what earlier ones have made."""


class Origin(NamedTuple):
    """The blueprint that a space was made from."""

    blueprint: str
    """absolute path"""
    compile: bool
    digest: str
    """of the catalog. If the space holds another one now, its user has restored that into it"""
    editable_project: bool

    def is_of(self, blueprint: Blueprint) -> bool:
        """Whether that is the file, by this path or by one that goes another way, through a symlink."""
        mine, other = self.blueprint, blueprint.path
        return mine == other or real_place(mine) == real_place(other)


class Memory(NamedTuple):
    """The catalog of a blueprint, and the inputs that decided which."""

    name: str
    digest: str
    files: FileStates
    variables: dict[str, str]
    form: int
    """:data:`_FORM` when it was written"""
    blueprint: str
    """its absolute path"""

    def is_current(self, environ: Mapping[str, str]) -> bool:
        """Whether every input is what it was."""
        from holo.blueprints.inputs import are_unchanged, look_at_variable  # 2 ms; most spaces have no blueprint

        return are_unchanged(self.files) and all(
            look_at_variable(name, environ) == value for name, value in self.variables.items()
        )


def origin_of(tree: Holotree, space: Space) -> Origin | None:
    """The origin of a space; ``None`` if it has no blueprint, or nobody knows, or only another user says so."""
    with suppress(TypeError):
        origin = Origin(**read_own(tree.origin_path(space.name)))
        return origin if origin.digest == space.digest and type(origin.blueprint) is str else None
    return None


class Known(NamedTuple):
    """What is known of a space of some name: read once, and handed on."""

    space: Space | None
    origin: Origin | None

    def is_from(self, blueprint: Blueprint) -> bool:
        """Whether the space was made from that blueprint, and holds what it was made with."""
        return self.origin is not None and self.origin.is_of(blueprint)


def look_up(tree: Holotree, name: str) -> Known:
    """Read what is known of a space."""
    return known_of(tree, tree.find(name))


def known_of(tree: Holotree, space: Space | None) -> Known:
    """The same, if the record was read already."""
    return Known(space, origin_of(tree, space) if space is not None else None)


def blueprint_of(tree: Holotree, space: Space) -> str | None:
    """The file that a space was built from, if it was."""
    origin = origin_of(tree, space)
    return origin.blueprint if origin is not None else None


def save_origin(tree: Holotree, space: str, origin: Origin) -> None:
    write_own(tree.origin_path(space), origin._asdict())


def recall(library: Library, blueprint: Blueprint, options: BuildOptions) -> CatalogRef | None:
    """The catalog of a blueprint, if no input has changed since it was built."""
    with suppress(TypeError, AttributeError, ValueError):  # it has another form, or a path that no file can have
        memory = Memory(**read_own(_path(library, blueprint, options)))
        is_sound = memory.form == _FORM and memory.blueprint == blueprint.path and digests.is_digest(memory.digest)
        is_sound = is_sound and NAME.fullmatch(memory.name) is not None
        if is_sound and library.catalogs.has(memory.digest) and memory.is_current(os.environ):
            return CatalogRef(memory.name, memory.digest)
    return None


def remember(
    library: Library, blueprint: Blueprint, options: BuildOptions, name: str, digest: str, inputs: Inputs
) -> None:
    """Let :func:`recall` find the catalog until an input changes."""
    if inputs.are_settled():
        write_own(
            _path(library, blueprint, options),
            Memory(name, digest, inputs.files, inputs.variables, _FORM, blueprint.path)._asdict(),
        )


def blueprints_of(library: Library) -> dict[str, set[str]]:
    """The blueprints that this user has built here, by the digests of their catalogs."""
    found: dict[str, set[str]] = {}
    for path in paths_in(os.path.join(library.path, "builds")):
        if path.endswith(INPUTS):
            known = read_own(path)
            digest, blueprint = known.get("digest"), known.get("blueprint")
            if isinstance(digest, str) and isinstance(blueprint, str) and blueprint:
                found.setdefault(digest, set()).add(blueprint)
    return found


def catalog_remembered(path: str) -> str | None:
    """The digest of the catalog in a file whose name ends with :data:`INPUTS`."""
    digest = read_own(path).get("digest")
    return digest if isinstance(digest, str) and digests.is_digest(digest) else None


def _path(library: Library, blueprint: Blueprint, options: BuildOptions) -> str:
    key = digests.of(os.fsencode(f"{platform.user_id()} {options} {blueprint.kind} {blueprint.path}"))
    return os.path.join(library.path, "builds", key[:16] + INPUTS)


def read_own(path: str) -> dict[str, Any]:
    """The document in a file that this user wrote, as its seal proves; empty if it is not one."""
    with suppress(OSError, ValueError, RecursionError):
        data, status = read_file(path, SMALL)
        if only_we_wrote(status):
            found = json.loads(unseal(data))
            return found if isinstance(found, dict) else {}
    return {}


def write_own(path: str, document: dict[str, Any]) -> None:
    """Write a document in one step. If that fails, holo merely remembers less."""
    with suppress(OSError):
        write_atomically(path, seal(json.dumps(document).encode()))
