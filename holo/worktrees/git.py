"""Ask git about the checkouts of a repository, and let it add and remove them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from holo.errors import Conflict, HoloError, NotFound

BUSY = "HOLO_WORKTREE"
"""Set for git while holo adds a worktree, so that its own hook leaves the environments to it."""

_LOCAL = ("DIR", "WORK_TREE", "INDEX_FILE", "COMMON_DIR", "PREFIX", "OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES")
"""What git tells its hooks of the repository that they run for (git rev-parse --local-env-vars)."""


class Checkout(NamedTuple):
    """A worktree of a repository, as git lists it."""

    path: str
    branch: str
    """empty: none, the commit is checked out by itself"""
    is_bare: bool
    is_locked: bool


def run(folder: str, *arguments: str) -> str:
    """What git prints. Raises :class:`HoloError` with what it says when it fails."""
    local = {f"GIT_{name}" for name in _LOCAL}
    environment = {name: value for name, value in os.environ.items() if name not in local}
    environment |= {BUSY: "1", "LC_ALL": "C.UTF-8"}
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    except FileNotFoundError as error:
        if not os.path.isdir(folder):
            raise NotFound(f"there is no folder {folder}") from None
        raise NotFound("git is not installed", "Install it: worktrees are made by git.") from error
    if done.returncode != 0:
        lines = os.fsdecode(done.stderr).strip().splitlines()
        said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
        said = said.removeprefix("fatal: ").removeprefix("error: ") or f"exit code {done.returncode}"
        name = " ".join(arguments[: 2 if arguments[0] == "worktree" else 1])
        raise HoloError(f"git {name} failed in {folder}: {said}")
    return os.fsdecode(done.stdout)


def checkouts(folder: str) -> list[Checkout]:
    """All worktrees of the repository of a folder, the first one first."""
    found = []
    for block in run(folder, "worktree", "list", "--porcelain").split("\n\n"):
        fields = dict(line.partition(" ")[::2] for line in block.splitlines())
        if "worktree" in fields:
            branch = fields.get("branch", "").removeprefix("refs/heads/")
            found.append(Checkout(fields["worktree"], branch, "bare" in fields, "locked" in fields))
    return found


def is_same(one: str, other: str) -> bool:
    """Whether two paths are one place."""
    return os.path.realpath(one) == os.path.realpath(other)


def find(checkouts: Sequence[Checkout], path: str) -> Checkout | None:
    """The checkout at ``path``."""
    return next((checkout for checkout in checkouts if is_same(checkout.path, path)), None)


def branches(folder: str) -> set[str]:
    return set(run(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines())


def refuse_changed(checkout: Checkout) -> None:
    """Raise :class:`Conflict` for a worktree that git would not remove: before anything in it is removed."""
    hint = "Nothing was removed. `--force` removes it all the same."
    if checkout.is_locked:
        raise Conflict(f"the worktree {checkout.path} is locked", f"{hint} Or: git worktree unlock.")
    if run(checkout.path, "status", "--porcelain", "--ignore-submodules=none"):
        raise Conflict(f"the worktree {checkout.path} has changes that are not committed, or new files", hint)
