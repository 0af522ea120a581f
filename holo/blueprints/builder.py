"""What a builder is: a module with four functions, which :mod:`holo.blueprints.registry` finds.

``canonical(blueprint: Blueprint, inputs: Inputs, options: BuildOptions) -> dict[str, object]``
    Everything that decides the result, as a JSON-able value: lines without comments, in a fixed order where order does
    not matter; the contents of lock files and of included files; options and variables of the tool; the platform; the
    Python version. It reads everything through ``inputs``, and writes nothing. Two blueprints with the same value are
    built once. The value is hashed, and digests of some of it are stored, so it has no credentials from URLs; see
    :func:`holo.blueprints.canonical.document_without_secrets`. Raises UsageError for a malformed file or one that holo
    does not build, NotFound if an included file is missing, ToolMissing if the tool is not there.

``packages(document: dict[str, object]) -> Packages | None``
    The packages that a canonical document asks for, if a build may begin from another environment (see
    :mod:`holo.blueprints.seeds`); else ``None``.

``project(blueprint: Blueprint, options: BuildOptions) -> str``
    The root of the project that is installed itself: the folder whose paths the environment names, and which is another
    in each checkout. Empty if none is.

``build(blueprint: Blueprint, stage: str, options: BuildOptions, log: Log) -> Built``
    Make the environment in the directory ``stage``, which is empty or holds such another environment. It runs its
    tools with ``log.run([...], env=..., cwd=...)``, and leaves nothing elsewhere but in the tools' own caches.
    Raises HoloError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from holo import digest as digests
from holo.errors import HoloError

if TYPE_CHECKING:
    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.inputs import Inputs
    from holo.blueprints.log import Log


class ToolMissing(HoloError):
    """The tool that builds such blueprints is not installed; the hint says how to get it."""


class BuildOptions(NamedTuple):
    """How the user wants a blueprint built."""

    compile: bool = True
    """whether to compile Python's bytecode, so that no space has to"""
    subfolder: str = ""
    """the only folder of the environment to record; empty for all of it"""
    editable_project: bool = True
    """whether to install the project itself, so that its source can be imported and edited where it is"""


class Packages(NamedTuple):
    """The packages of an environment."""

    base: object
    """what two environments must share for one to begin from the other: the interpreter, and where packages are from"""
    lines: Sequence[str]
    """one for each package, with its version"""

    @property
    def key(self) -> str:
        return digests.of(json.dumps(self.base, sort_keys=True, default=str).encode())


class Built(NamedTuple):
    """What a builder tells of an environment that it has made."""

    warnings: Sequence[str] = ()
    own: Sequence[str] | None = None
    """if it is of use only to the checkout of the blueprint: the files there that were made for it"""


class Builder(Protocol):
    """The four functions; the module's docstring says what each does."""

    def canonical(self, blueprint: Blueprint, inputs: Inputs, options: BuildOptions) -> dict[str, object]: ...

    def packages(self, document: dict[str, object]) -> Packages | None: ...

    def project(self, blueprint: Blueprint, options: BuildOptions) -> str: ...

    def build(self, blueprint: Blueprint, stage: str, options: BuildOptions, log: Log) -> Built: ...
