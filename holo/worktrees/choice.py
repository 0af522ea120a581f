"""Which environments and files a worktree gets from another checkout, and by which way.

An environment is cloned, which is the fastest, unless what it was made from differs: then it is not what the branch of
the worktree asks for, and is made from the worktree's own blueprint.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeAlias

from holo import digest as digests
from holo.blueprints.blueprint import Blueprint, nearest
from holo.errors import MALFORMED, HoloError, NotFound, UsageError, choice
from holo.files import SMALL, read_file
from holo.holotree import PLACES
from holo.relocation import leads_into
from holo.relocation.foreign import outside
from holo.worktrees import git

_SETTINGS = ".holo.toml"
_KEY = "worktree"
_ACTIVATE = "bin/activate"

_MANIFESTS = ("pyproject.toml", "requirements.txt", "package.json", "environment.yml", "conda.yaml")
"""Beside these, tracked by git, an environment is looked for."""

Kind: TypeAlias = Literal["python", "node"]

_LOCKS: dict[Kind, tuple[str, ...]] = {
    "python": ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"),
    "node": (
        "package-lock.json",
        "npm-shrinkwrap.json",
        "pnpm-lock.yaml",
        "yarn.lock",
        "bun.lock",
        "bun.lockb",
    ),
}
_PINS: dict[Kind, tuple[str, ...]] = {"python": (".python-version", ".python-versions"), "node": ()}
"""Files that choose the program that an environment is for."""

_BUILT = ("uv.lock", "package-lock.json", "npm-shrinkwrap.json")
"""The lock files that holo itself can build from."""

_LARGEST = 1 << 30
"""Bytes of a lock file."""

_TOOLS = {
    "uv.lock": "uv sync",
    "package-lock.json": "npm ci",
    "npm-shrinkwrap.json": "npm ci",
    "poetry.lock": "poetry sync",
    "pdm.lock": "pdm sync",
    "Pipfile.lock": "pipenv sync",
    "pnpm-lock.yaml": "pnpm install",
    "yarn.lock": "yarn install",
    "bun.lock": "bun install",
    "bun.lockb": "bun install",
}
"""The commands that bring an environment to a lock file."""

_ASKED = (
    "requires-python",
    "dependencies",
    "optional-dependencies",
    "scripts",
    "gui-scripts",
    "entry-points",
    "dynamic",
)
"""Fields of a project that its environment depends on."""


class Choice(NamedTuple):
    """What to make in a worktree."""

    path: str
    """relative to the worktree"""
    source: str
    """the environment or file in another checkout"""
    blueprint: Blueprint | None
    """what to build it from; ``None``: it is cloned, or copied"""
    warning: str = ""


class Asked(NamedTuple):
    """What a worktree asks for as an environment."""

    file: str
    """that says so, relative to the worktree"""
    digest: str
    """of what it says, and of what pins the Python"""
    since: int
    """when either was changed: ctime (ns)"""
    tool: str | None
    """the command that brings an environment to it"""


def choose(sources: Sequence[str], worktree: str, lacks: Callable[[str], bool]) -> Iterator[Choice]:
    """What to make in a worktree that its ``sources``, the other checkouts, have, and that it lacks at a path."""
    wanted = [*_environments(worktree), *(path for source in sources[:1] for path in _listed(source))]
    seen: list[str] = []
    for path in dict.fromkeys(wanted):
        place = os.path.join(worktree, path)
        source = next((each for each in sources if os.path.lexists(os.path.join(each, path))), None)
        if source is None or not lacks(place) or any(leads_into(path, other) for other in seen):
            continue
        _refuse_outside(worktree, path)
        _refuse_outside(source, path)
        seen.append(path)
        found = os.path.join(source, path)
        kind = _kind_of(found)
        blueprint, warning = _difference(source, worktree, path, kind) if kind is not None else (None, "")
        yield Choice(path, found, blueprint, warning)


def made_elsewhere(worktree: str) -> Iterator[str]:
    """Warnings about the environments in a worktree that were made at another path: of one that was moved, say."""
    for path in _environments(worktree):
        place = os.path.join(worktree, path)
        with suppress(OSError):
            program = read_file(os.path.join(place, _ACTIVATE), SMALL, follow=True)[0]
            for warning in outside(_ACTIVATE, program, place):
                yield f"{warning}. Move it away, and run this again; `holo clone --relocate` keeps what is installed"


def _kind_of(path: str) -> Kind | None:
    """What is at a path, if it is an environment."""
    if os.path.basename(path) == "node_modules":
        return "node"
    is_python = any(os.path.lexists(os.path.join(path, name)) for name in ("pyvenv.cfg", "conda-meta"))
    return "python" if is_python or os.path.basename(path) == ".venv" else None


def _environments(worktree: str) -> list[str]:
    patterns = [f":(glob)**/{name}" for name in _MANIFESTS]
    tracked = git.run(worktree, "ls-files", "-z", "--", *patterns).split("\0")
    folders = sorted({"", *(os.path.dirname(path) for path in tracked)})
    folders = [
        folder for folder in folders if os.path.isdir(os.path.join(worktree, folder))
    ]  # a checkout may be sparse
    return [os.path.join(folder, name) for folder in folders for name in PLACES]


def _refuse_outside(checkout: str, path: str) -> None:
    """A path that was listed may lead through a symlink that git has made."""
    inside = os.path.realpath(os.path.dirname(os.path.join(checkout, path)))
    if not leads_into(inside, os.path.realpath(checkout)):
        raise HoloError(f"{path} leads out of {checkout}", f"Take it from the list {_KEY!r} of its settings.")


# -- what is listed -------------------------------------------------------------------------------------------------


def _listed(checkout: str) -> list[str]:
    """The environments and files that ``.holo.toml``, or ``[tool.holo]`` in ``pyproject.toml``, lists."""
    own = os.path.join(checkout, _SETTINGS)
    if os.path.lexists(own):
        return _paths(_toml(own), own)
    shared = os.path.join(checkout, "pyproject.toml")
    tools = _toml(shared).get("tool") if os.path.isfile(shared) else None
    section = tools.get("holo") if isinstance(tools, dict) else None
    return _paths(section, f"[tool.holo] of {shared}") if section is not None else []


def _paths(settings: Any, where: str) -> list[str]:
    unknown = sorted(set(settings) - {_KEY}) if isinstance(settings, dict) else []
    if unknown:
        raise UsageError(f"{where}: unknown setting {unknown[0]!r}", choice("Known are", unknown[0], [_KEY]))
    paths = settings.get(_KEY, []) if isinstance(settings, dict) else None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise UsageError(f"{where}: {_KEY!r} is not a list of paths", f'Write it as {_KEY} = [".venv", ".env"].')
    for path in paths:
        parts = path.split("/")
        if "\0" in path or os.path.isabs(path) or ".." in parts or parts[0] == ".git" or os.path.normpath(path) == ".":
            raise UsageError(f"{where}: {path!r} is not a path below the project", "Name what lies in it.")
    return [os.path.normpath(path) for path in paths]


def _toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path, SMALL, follow=True)[0].decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path}: {error}", "Correct it.") from None
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error


# -- what differs ---------------------------------------------------------------------------------------------------


def _difference(source: str, worktree: str, path: str, kind: Kind) -> tuple[Blueprint | None, str]:
    """The blueprint of the worktree, if it asks for another environment than that of ``source``; and a warning."""
    folder = os.path.dirname(path)
    lock, blueprint = _deciding(worktree, folder, kind)
    if lock is not None and _is_for_its_tool(worktree, lock, is_built=blueprint is not None):
        differing = _differing(source, worktree, folder, kind, lock)
        if differing is None:
            return None, ""
        tool, where = _TOOLS[os.path.basename(lock)], os.path.dirname(os.path.join(worktree, lock))
        return None, f"{differing} differs from that in {source}, where {path} was cloned from: run `{tool}` in {where}"
    if blueprint is None:
        return None, ""
    deciding = lock if lock is not None else os.path.relpath(blueprint.path, worktree)
    if _differing(source, worktree, folder, kind, deciding) is not None:
        return blueprint, ""
    pins = os.path.join(folder, "requirements.txt")  # which the blueprint is not
    if kind == "python" and lock is None and _content(source, pins) != _content(worktree, pins):
        return None, f"{pins} differs from that in {source}, where {path} was cloned from: install it in {worktree}"
    return None, ""


def _differing(source: str, worktree: str, folder: str, kind: Kind, file: str) -> str | None:
    """What asks for another environment in the worktree: the file, or what pins the Python."""
    if _content(source, file) != _content(worktree, file):
        return file
    pin = _nearest_file(worktree, folder, _PINS[kind])  # git may ignore that: then only the source has one
    pinned = _nearest_file(source, folder, _PINS[kind])
    is_same = pin is None or (pinned is not None and _content(source, pinned) == _content(worktree, pin))
    return None if is_same else pin


def _deciding(worktree: str, folder: str, kind: Kind) -> tuple[str | None, Blueprint | None]:
    """What an environment in a folder is made from: a lock file, relative to the worktree, and a blueprint."""
    lock = _nearest_file(worktree, folder, _LOCKS[kind])
    if lock is not None and os.path.basename(lock) not in _BUILT:
        return lock, None
    blueprint = nearest(os.path.join(worktree, folder), of_npm=kind == "node")
    is_of_kind = blueprint is not None and (blueprint.kind == "npm") == (kind == "node")
    return lock, blueprint if blueprint is not None and is_of_kind and leads_into(blueprint.path, worktree) else None


def asked(worktree: str, path: str) -> Asked | None:
    """What a worktree asks for at a path; ``None`` if nothing says that, or nobody can read it."""
    kind = _kind_of(os.path.join(worktree, path))
    if kind is not None:
        with suppress(HoloError, OSError):
            folder = os.path.dirname(path)
            lock, blueprint = _deciding(worktree, folder, kind)
            file = lock or (os.path.relpath(blueprint.path, worktree) if blueprint is not None else None)
            if file is not None:
                pin = _nearest_file(worktree, folder, _PINS[kind])
                files = [file] if pin is None else [file, pin]
                content = repr([file, *(_content(worktree, each) for each in files)])
                since = max(os.stat(os.path.join(worktree, each)).st_ctime_ns for each in files)
                return Asked(file, digests.of(os.fsencode(content)), since, _TOOLS.get(os.path.basename(file)))
    return None


def _is_for_its_tool(worktree: str, lock: str, *, is_built: bool) -> bool:
    """Whether holo cannot build from a lock file.

    ``is_built``: there is a blueprint, as there is not at the root of a workspace of uv that is no project itself.
    """
    name = os.path.basename(lock)
    if name not in _BUILT or (name == "uv.lock" and not is_built):
        return True
    if name != "uv.lock":
        with suppress(OSError, *MALFORMED):
            packages = json.loads(read_file(os.path.join(worktree, lock), _LARGEST, follow=True)[0])["packages"]
            return any(package.get("link") for package in packages.values())  # folders, as those of workspaces
    return False


def _nearest_file(checkout: str, folder: str, names: Sequence[str]) -> str | None:
    """One of these files in the folder of a checkout, or in one above: of a workspace."""
    while True:
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(os.path.join(checkout, path)):
                return path
        if not folder:
            return None
        folder = os.path.dirname(folder)


def _content(checkout: str, path: str) -> object:
    """What a file says about the environment. Of a ``pyproject.toml`` that is a part."""
    full = os.path.join(checkout, path)
    try:
        content = read_file(full, _LARGEST, follow=True)[0]
    except OSError:
        return None
    if os.path.basename(path) != "pyproject.toml":
        return content
    document = _toml(full)
    project = document.get("project")
    asked = [project.get(key) for key in _ASKED] if isinstance(project, dict) else []
    return [asked, document.get("dependency-groups"), document.get("build-system")]
