"""What a builder is: a module with three functions, which :mod:`holo.blueprints.registry` finds.

``canonical(blueprint: Blueprint, inputs: Inputs, options: Options) -> dict[str, object]``
    Everything that decides the result, as a JSON-able value: lines without comments, in a fixed order where order does
    not matter; the contents of lock files and of included files; options and variables of the tool; the platform; the
    Python version. Everything is read through ``inputs``. Two blueprints with the same value are built once. It is
    hashed; of some of it digests are stored. Credentials in URLs are left out of it, see
    :func:`holo.blueprints.canonical.document_without_secrets`. Raises
    UsageError for a malformed file or one that holo does not build, NotFound for an included file that is missing,
    ToolMissing if the tool is not there. Writes nothing.

``parts(document: dict[str, object]) -> Parts | None``
    What will be in it, by its canonical document, if a build may begin from another environment (see
    :mod:`holo.blueprints.seeds`); else ``None``.

``build(blueprint: Blueprint, stage: str, options: Options, log: Log) -> list[str]``
    Make the environment in ``stage``, the path of a directory that is empty or holds such another environment, by
    tools run with ``log.run([...], env=..., cwd=...)``. Nothing is left elsewhere, but in the tools' own caches.
    Returns warnings. Raises HoloError.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holo import digest as digests
from holo.errors import HoloError

if TYPE_CHECKING:
    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.inputs import Inputs
    from holo.blueprints.log import Log


class ToolMissing(HoloError):
    """The tool that builds such blueprints is not installed; the hint says how to get it."""


def beside_holo(requirement: str) -> str:
    """The command that installs a package for holo to find, wherever holo is: pip may be of another environment."""
    from shlex import quote

    return f"{quote(sys.executable)} -m pip install {quote(requirement)}"


@dataclass(frozen=True)
class Options:
    """What the user chose about a build."""

    compile: bool = True
    """whether Python's bytecode is made, so that no space has to"""
    part: str = ""
    """the folder of what is built that is recorded; empty for all of it"""


@dataclass(frozen=True)
class Parts:
    """What is in an environment."""

    base: object
    """what two must have in common for one to begin from the other: the interpreter, and where packages are from"""
    lines: Sequence[str]

    @property
    def key(self) -> str:
        return digests.of(json.dumps(self.base, sort_keys=True, default=str).encode())


class Builder(Protocol):
    """The three functions; the module's docstring says what each does."""

    def canonical(self, blueprint: Blueprint, inputs: Inputs, options: Options) -> dict[str, object]: ...

    def parts(self, document: dict[str, object]) -> Parts | None: ...

    def build(self, blueprint: Blueprint, stage: str, options: Options, log: Log) -> list[str]: ...
