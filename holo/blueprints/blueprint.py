"""Blueprints: files that say what an environment shall contain. Recognises their kinds, and finds the nearest one."""

from __future__ import annotations

import os
import re
from typing import Any, Literal, NamedTuple

from holo import digest as digests
from holo.errors import Conflict, HoloError, NotFound, UsageError, os_errors_as
from holo.files import read_file
from holo.owners import is_ours
from holo.walk import absolute, refuse_no_path, upwards

BlueprintKind = Literal["requirements", "pyproject", "script", "conda", "npm"]

LARGEST = 64 << 20
"""Bytes of a blueprint, or of a file it includes. Lock files of large projects have some ten."""

_CONDA = ("conda.yaml", "conda.yml", "environment.yml", "environment.yaml")
_SOUGHT = ("pyproject.toml", *_CONDA, "requirements.txt", "package-lock.json")
"""The names to look for in each folder; the first one counts. A script is never found, only named."""

_SCRIPT = re.compile(rb"^# /// script\s*$", re.MULTILINE)
_PROJECT = re.compile(rb"^[ \t]*\[[ \t]*project[ \t]*\]", re.MULTILINE)
_CONDA_FORM = re.compile(rb"""^(\{|["']?(channels|dependencies)["']?\s*:)""", re.MULTILINE)

_KNOWN = (
    "requirements.txt (any *.txt or *.in), pyproject.toml, uv.lock, a script with inline metadata (PEP 723), "
    "conda.yaml, environment.yml and package-lock.json"
)

_FROM_PIPENV = "Write what it says as one that holo knows: pipenv requirements > requirements.txt"
_FROM_PACKAGE_JSON = "Make one that holo knows of the package.json: npm install --package-lock-only"
_PACKED = "If another tool has packed an environment in it, `holo import FILE` takes that into the library."
WAYS = {
    "Pipfile": _FROM_PIPENV,
    "Pipfile.lock": _FROM_PIPENV,
    "poetry.lock": "Write what it says as one that holo knows: poetry export --output requirements.txt",
    "pdm.lock": "Write what it says as one that holo knows: pdm export --output requirements.txt",
    "yarn.lock": _FROM_PACKAGE_JSON,
    "pnpm-lock.yaml": _FROM_PACKAGE_JSON,
    "bun.lock": _FROM_PACKAGE_JSON,
    ".gz": _PACKED,
    ".zst": _PACKED,
    ".tar": _PACKED,
    ".zip": _PACKED,
    ".py": "Say in it what it needs, in a block that begins with `# /// script`.",
}
"""Other tools' files, by their names or endings, and how to convert them to a blueprint."""

NO_PROJECT = "Name the pyproject.toml of a project, in a workspace that of a member"

_ALMOST = {name: way for name, way in WAYS.items() if not name.startswith(".")} | {
    "package.json": _FROM_PACKAGE_JSON,
    "pyproject.toml": f"There is no [project] in it. {NO_PROJECT}",
}
"""Files that ask for an environment, where no blueprint is."""


class Blueprint(NamedTuple):
    """A file that says what an environment shall contain."""

    path: str
    """absolute"""
    kind: BlueprintKind

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def label(self) -> str:
        """The script's name, else the folder's, spelled so that the name of a catalog or a space can begin with it."""
        stem, _ = os.path.splitext(os.path.basename(self.path))
        text = stem if self.kind == "script" else os.path.basename(self.folder)
        return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:40].strip("-") or self.kind

    @property
    def space(self) -> str:
        """The name of the space that `holo run` makes of it: readable, and different for each path."""
        return f"{self.label[:23]}-{digests.of(os.fsencode(self.path))[:8]}"


def recognise(path: str) -> Blueprint | None:
    """The blueprint at ``path``, or ``None`` if that is a file of another sort.

    ``uv.lock`` and ``package.json`` stand for the blueprint beside them. Raises :class:`NotFound` or
    :class:`HoloError` if it cannot be read.
    """
    path = absolute(path)
    folder, name = os.path.split(path)
    if name in ("uv.lock", "package.json"):
        name = "pyproject.toml" if name == "uv.lock" else "package-lock.json"
        path = os.path.join(folder, name)
    kind: BlueprintKind | None = None
    if name == "pyproject.toml":
        kind = "pyproject"
    elif name in ("package-lock.json", "npm-shrinkwrap.json"):
        kind = "npm"
    elif name.endswith((".yaml", ".yml")):
        # Most files of YAML are something else. One with conda's own name is to be told what it lacks.
        kind = "conda" if name in _CONDA or (name not in WAYS and _CONDA_FORM.search(_head(path))) else None
    elif name.endswith((".txt", ".in")):
        kind = "requirements"
    elif not name.endswith(".json") and _SCRIPT.search(_head(path)):
        kind = "script"
    return Blueprint(path, kind) if kind is not None else None


def named(path: str) -> Blueprint:
    """The blueprint that a user named. Raises :class:`UsageError` if the file is not one."""
    refuse_no_path(path)
    if not os.path.isfile(path):
        raise NotFound(f"there is no blueprint at {path}", "Name a file: requirements.txt, pyproject.toml, ...")
    blueprint = recognise(path)
    if blueprint is None:
        raise unknown(path)
    return blueprint


def unknown(path: str) -> UsageError:
    """The error for a file that is not a blueprint."""
    name = os.path.basename(path)
    method = WAYS.get(name) or WAYS.get(os.path.splitext(name)[1])
    return UsageError(f"{path} is not a blueprint holo knows; it knows {_KNOWN}", method)


def nearest(start: str, *, of_npm: bool = False) -> Blueprint | None:
    """The nearest blueprint in ``start`` or a folder above it; ``of_npm``: of packages for Node.js.

    To build a blueprint is to run code that it names. So one that belongs to another user, in ``/tmp`` say, must be
    named: raises :class:`Conflict`. One that cannot be read is not skipped: raises :class:`HoloError`.
    """
    for folder in upwards(absolute(start)):
        for name in _SOUGHT[-1:] if of_npm else _SOUGHT:
            path = os.path.join(folder, name)
            if not _is_file(path) or (name == "pyproject.toml" and not _is_project(path)):
                continue
            if not is_own(path):
                raise Conflict(
                    f"the nearest blueprint, {path}, belongs to another user",
                    "Building it runs what it says. If you trust who wrote it, name it.",
                )
            blueprint = recognise(path)
            assert blueprint is not None
            return blueprint
    return None


def clue(start: str) -> str | None:
    """What to do about the nearest files, in ``start`` or above, that ask for environments and are no blueprints."""
    for folder in upwards(absolute(start)):
        there = [name for name in _ALMOST if os.path.isfile(os.path.join(folder, name))]
        firsts = {_ALMOST[name]: name for name in reversed(there)}  # of those with the same advice
        if firsts:
            ways = ((os.path.join(folder, name), way[0].lower() + way[1:]) for way, name in reversed(firsts.items()))
            return " ".join(f"{path} is no blueprint: {way}." for path, way in ways)
    return None


def is_own(path: str) -> bool:
    """Whether there is a blueprint that only this user or root can have put there. To build it is to run its code."""
    try:
        # A symlink and what it leads to: beside it are uv.toml, .npmrc, ... of whoever made it.
        return is_ours(os.stat(path)) and is_ours(os.lstat(path))
    except OSError:
        return False


def parse_toml(text: str, path: str) -> dict[str, Any]:
    """Parse a TOML file. Raises :class:`UsageError` that names the line of a mistake."""
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def _is_file(path: str) -> bool:
    if os.path.isfile(path):
        return True
    if os.path.islink(path) and not os.path.exists(path):
        raise HoloError(
            f"the nearest blueprint, {path}, is a symlink that leads nowhere", "Correct it, remove it, or name another."
        )
    return False


def _is_project(path: str) -> bool:
    """Whether a pyproject.toml describes a project. Many hold only the settings of tools."""
    head = _head(path)
    if _PROJECT.search(head):  # the build will find out whether all of it can be parsed
        return True
    try:
        return "project" in parse_toml(head.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _head(path: str) -> bytes:
    with os_errors_as(f"cannot read the blueprint {path}"):
        return read_file(path, LARGEST, follow=True)[0]
