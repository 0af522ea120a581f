"""What is remembered of blueprints, so that nothing has to be run to see that nothing has changed.

    hololib/builds/<hash>.seen     of a blueprint: its catalog, and all that was looked at to know that
    .spaces/<name>.origin          of a space: the blueprint it was made from

Both can be lost: then the blueprint is looked at again, and a space is one of a catalog like any other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from holo import digest as digests
from holo import platform
from holo.blueprints.blueprint import Blueprint
from holo.blueprints.builder import Options
from holo.blueprints.inputs import Inputs, Seen, are_unchanged, look_at_variable
from holo.files import SMALL, read_file, seal, unseal, write_atomically
from holo.hololib import Library
from holo.hololib.layout import NAME
from holo.owners import only_we_wrote
from holo.space import Holotree, Space

SEEN = ".seen"

_FORM = 2
"""Counted up when a builder is, so that what an earlier one has made is not remembered."""


@dataclass(frozen=True)
class Origin:
    """What a space was made from."""

    blueprint: str
    """absolute path"""
    compile: bool
    digest: str
    """of the catalog. If the space holds another by now, its user has turned it into that"""


@dataclass(frozen=True)
class Memory:
    """What a blueprint was when it was looked at last."""

    name: str
    digest: str
    """of its catalog"""
    files: Seen
    variables: dict[str, str]
    form: int
    """:data:`_FORM` when it was written"""

    def is_current(self, environ: Mapping[str, str]) -> bool:
        """Whether everything that was looked at is as it was."""
        return are_unchanged(self.files) and all(
            look_at_variable(name, environ) == value for name, value in self.variables.items()
        )


def origin_of(tree: Holotree, space: Space) -> Origin | None:
    """Where a space comes from; ``None`` if that is no blueprint, or nobody knows, or others say so."""
    with suppress(TypeError):
        origin = Origin(**read_own(tree.origin_path(space.name)))
        return origin if origin.digest == space.digest and type(origin.blueprint) is str else None
    return None


def save_origin(tree: Holotree, space: str, origin: Origin) -> None:
    write_own(tree.origin_path(space), asdict(origin))


def recall(library: Library, blueprint: Blueprint, options: Options) -> tuple[str, str] | None:
    """The name and the digest of the catalog of a blueprint, if nothing has changed since it was made."""
    with suppress(TypeError, AttributeError, ValueError):  # it has another form, or no path can be like that
        memory = Memory(**read_own(_path(library, blueprint, options)))
        is_sound = memory.form == _FORM and NAME.fullmatch(memory.name) is not None and digests.is_digest(memory.digest)
        if is_sound and library.catalogs.has(memory.digest) and memory.is_current(os.environ):
            return memory.name, memory.digest
    return None


def remember(library: Library, blueprint: Blueprint, options: Options, name: str, digest: str, inputs: Inputs) -> None:
    """Let :func:`recall` find the catalog as long as the inputs are what they were when they were read."""
    if inputs.are_settled():
        write_own(
            _path(library, blueprint, options), asdict(Memory(name, digest, inputs.files, inputs.variables, _FORM))
        )


def catalog_remembered(path: str) -> str | None:
    """The digest of the catalog in a file that ends with :data:`SEEN`."""
    digest = read_own(path).get("digest")
    return digest if isinstance(digest, str) and digests.is_digest(digest) else None


def _path(library: Library, blueprint: Blueprint, options: Options) -> str:
    key = digests.of(os.fsencode(f"{platform.user_id()} {options} {blueprint.kind} {blueprint.path}"))
    return os.path.join(library.path, "builds", key[:16] + SEEN)


def read_own(path: str) -> dict[str, Any]:
    """The document in a file of ours; empty if it is not one. It ends with its digest, so we wrote all of it."""
    with suppress(OSError, ValueError, RecursionError):
        data, status = read_file(path, SMALL)
        if only_we_wrote(status):
            found = json.loads(unseal(data))
            return found if isinstance(found, dict) else {}
    return {}


def write_own(path: str, document: dict[str, Any]) -> None:
    """In one step. That it fails is no failure."""
    with suppress(OSError):
        write_atomically(path, seal(json.dumps(document).encode()))
