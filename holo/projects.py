"""Which folder is a project, and which two folders are checkouts of the same one.

Everything is read from the projects' own files, so that git need not be installed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from holo.errors import MALFORMED
from holo.files import SMALL, read_file
from holo.walk import absolute, upwards

_MANIFESTS = ("pyproject.toml", "package.json")


def project_of(path: str) -> str | None:
    """The project that contains ``path``, which need not exist: the git worktree, else the folder of the nearest
    manifest; ``None`` if there is none. The absolute path as it was spelled, with no symlink resolved."""
    nearest = None
    for folder in upwards(os.path.dirname(absolute(path))):
        if _git_directory(folder) is not None:
            return folder
        if nearest is None and any(os.path.isfile(os.path.join(folder, name)) for name in _MANIFESTS):
            nearest = folder
    return nearest


def is_other_checkout(one: str, other: str) -> bool:
    """Whether two folders lie in two checkouts of one project: one in a worktree inside the other's, say."""
    mine, theirs = (project_of(os.path.join(folder, "any")) for folder in (one, other))
    if mine is None or theirs is None or os.path.realpath(mine) == os.path.realpath(theirs):
        return False
    return same_project(mine, theirs)


def same_project(one: str, other: str) -> bool:
    """Whether two projects are checkouts of the same: worktrees of one repository, clones of one origin, a clone and
    its origin, or of the same name in their manifests."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    mine, theirs = _repository(one), _repository(other)
    if mine is not None and mine == theirs:
        return True
    if (_origins(one, mine) & _origins(other, theirs)) - {""}:
        return True
    name = _name(one)
    return name is not None and name == _name(other)


def _git_directory(folder: str) -> str | None:
    """The git directory of a worktree: its folder ``.git``, or where its file of that name leads (gitrepository-layout
    in git's documentation)."""
    path = os.path.join(folder, ".git")
    if not os.path.isfile(path):
        return path if os.path.isfile(os.path.join(path, "HEAD")) else None
    text = _text(path)
    if not text.startswith("gitdir: "):
        return None
    return os.path.join(folder, text.removeprefix("gitdir: ").rstrip("\n"))


def _repository(project: str) -> str | None:
    """The git directory that all worktrees of a repository share."""
    directory = _git_directory(project)
    if directory is None:
        return None
    common = _text(os.path.join(directory, "commondir")).rstrip("\n")
    return os.path.realpath(os.path.join(directory, common))


def _origins(project: str, repository: str | None) -> set[str]:
    """The places that a clone of this project could name as its origin, or does."""
    if repository is None:
        return set()
    origin = _origin(_text(os.path.join(repository, "config")))
    is_path = origin and ":" not in origin  # the others are URLs, or of the form host:path
    return {
        os.path.realpath(project),
        repository,
        os.path.realpath(os.path.join(project, origin)) if is_path else origin,
    }


def _origin(configuration: str) -> str:
    """The URL of the remote ``origin`` in the configuration of a repository, as git writes it."""
    section = ""
    for line in configuration.splitlines():
        if line.startswith("["):
            section = line.rstrip()
        elif section == '[remote "origin"]':
            key, _, value = line.partition("=")
            if key.strip() == "url":
                return value.strip()
    return ""


def _name(project: str) -> str | None:
    """The name that the project's manifest gives it."""
    import tomllib

    with suppress(*MALFORMED):
        return f"python {tomllib.loads(_text(os.path.join(project, 'pyproject.toml')))['project']['name']}"
    with suppress(*MALFORMED):
        return f"node {json.loads(_text(os.path.join(project, 'package.json')))['name']}"
    return None


def _text(path: str) -> str:
    """What a small file says; nothing, where it cannot be read, or is no text."""
    with suppress(OSError):
        text = os.fsdecode(read_file(path, SMALL, follow=True)[0])
        return text if "\0" not in text else ""
    return ""
