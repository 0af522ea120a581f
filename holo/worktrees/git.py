"""Ask git about the checkouts of a repository, and let it add and remove them."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from shlex import quote
from typing import NamedTuple, TypeVar

from holo.errors import Conflict, HoloError, NotFound, UsageError
from holo.files import SMALL, read_file
from holo.relocation import leads_into, listed

BUSY = "HOLO_WORKTREE"
"""Set for git while holo adds a worktree, so that its own hook leaves the environments to it."""

_LOCAL = ("DIR", "WORK_TREE", "INDEX_FILE", "COMMON_DIR", "PREFIX", "OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES")
"""What git tells its hooks of the repository that they run for (git rev-parse --local-env-vars)."""


_LISTED = re.compile(r"^worktree (.+?)\n((?:HEAD |bare$).*?)^$", re.DOTALL | re.MULTILINE)
"""A path, which may have lines of its own, and the lines that follow."""


_UNFINISHED = re.compile("failed to read .*worktrees/")

_HINTS = {
    "not a git repository": "Run it in a checkout of the repository.",
    "dubious ownership": "It is another user's. If you trust it: `git config --global --add safe.directory PATH`.",
}
"""What to do, by what git says."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 1.6)

T = TypeVar("T")


class Unfinished(HoloError):
    """Another git is adding or removing a worktree in this moment, and git fails on what is half there."""


class Checkout(NamedTuple):
    """A worktree of a repository, as git lists it."""

    path: str
    branch: str
    """empty: none, the commit is checked out by itself"""
    is_bare: bool
    is_locked: bool


def patiently(attempt: Callable[[], T]) -> T:
    """What an attempt returns; it is made again, for some seconds, while it raises :class:`Unfinished`."""
    for pause in _PAUSES:
        try:
            return attempt()
        except Unfinished:
            time.sleep(pause)
    return attempt()


def run(folder: str, *arguments: str) -> str:
    """What git prints. Raises :class:`HoloError` with what it says when it fails."""
    return patiently(lambda: run_once(folder, *arguments))


def run_once(folder: str, *arguments: str) -> str:
    """The same, also :class:`Unfinished`."""
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
    except OSError as error:
        raise HoloError(f"cannot run git in {folder}: {error.strerror}") from error
    if done.returncode != 0:
        lines = os.fsdecode(done.stderr).strip().splitlines()
        said = next(
            (line for line in lines if line.startswith(("fatal:", "error:", "usage:"))), lines[-1] if lines else ""
        )
        said = said.removeprefix("fatal: ").removeprefix("error: ") or f"exit code {done.returncode}"
        name = " ".join(arguments[: 2 if arguments[0] == "worktree" else 1])
        hint = next((hint for words, hint in _HINTS.items() if words in said), None)
        kind = Unfinished if _UNFINISHED.search(said) else HoloError
        raise kind(f"git {name} failed in {folder}: {said}", hint)
    return os.fsdecode(done.stdout)


def checkouts(folder: str) -> list[Checkout]:
    """All worktrees of the repository of a folder, the first one first."""
    found = []
    for path, lines in _LISTED.findall(run(folder, "worktree", "list", "--porcelain")):
        fields = dict(line.partition(" ")[::2] for line in lines.splitlines())
        branch = fields.get("branch", "").removeprefix("refs/heads/")
        found.append(Checkout(path, branch, "bare" in fields, "locked" in fields))
    return [*map(_of_submodule, found[:1]), *found[1:]]


def _of_submodule(first: Checkout) -> Checkout:
    """The first checkout of a submodule, for which git lists the folder that it keeps the repository in."""
    if not first.is_bare and os.path.isdir(first.path) and not os.path.lexists(os.path.join(first.path, ".git")):
        with suppress(HoloError):
            return first._replace(path=run(first.path, "rev-parse", "--show-toplevel").removesuffix("\n"))
    return first


def is_same(one: str, other: str) -> bool:
    """Whether two paths are one place."""
    return os.path.realpath(one) == os.path.realpath(other)


def find(checkouts: Sequence[Checkout], path: str) -> Checkout | None:
    """The checkout at ``path``."""
    return next((checkout for checkout in checkouts if is_same(checkout.path, path)), None)


def refuse_moved(path: str) -> None:
    """Raise an error for a directory that was a worktree at another path, which git still takes for its place."""
    try:
        own = os.fsdecode(read_file(os.path.join(path, ".git"), SMALL)[0])
        note = os.path.join(path, own.removeprefix("gitdir: ").rstrip("\n"), "gitdir")
        place = os.path.dirname(os.fsdecode(read_file(note, SMALL)[0]).rstrip("\n"))
    except (OSError, ValueError):  # it is no worktree
        return
    if os.path.isabs(place) and not is_same(place, path):
        if os.path.lexists(place):
            raise Conflict(f"{path} is a copy of the worktree {place}", "Let git add a worktree at another path.")
        raise Conflict(
            f"{path} is the worktree that git knows as {place}: it was moved",
            f"Tell git: `git -C {quote(path)} worktree repair`. Then run this again.",
        )


def branches(folder: str) -> set[str]:
    return set(run(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines())


def refuse_locked(checkout: Checkout, arguments: Sequence[str]) -> int:
    """Raise an error for a worktree that is locked, unless the arguments force twice; returns how often they do."""
    forces = 0
    for argument in arguments:
        if re.fullmatch("--force|-f+", argument) is None:
            raise UsageError(f"git worktree remove does not know {argument}", "It knows --force.")
        forces += 1 if argument == "--force" else len(argument) - 1
    if checkout.is_locked and forces < 2:
        hint = "Nothing was removed. `--force --force` removes it all the same. Or: git worktree unlock."
        raise Conflict(f"the worktree {checkout.path} is locked", hint)
    return forces


def new_files(worktree: str, *paths: str) -> list[str]:
    """The files in a worktree, or at or below paths in it, that git neither tracks nor ignores."""
    told = run(worktree, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *paths)
    return [os.path.join(worktree, line[3:]) for line in told.split("\0") if line.startswith("?? ")]


def ignored_files(checkout: str, folders: Sequence[str]) -> list[str]:
    """The files in folders of a checkout that git ignores, not those in folders that it ignores as a whole."""
    if not folders:
        return []
    options = ("-z", "--others", "--ignored", "--exclude-standard", "--directory")
    told = run(checkout, "ls-files", *options, "--", *(f":(literal){folder}" for folder in folders))
    return [path for path in told.split("\0") if path and not path.endswith("/")]


def own_path(worktree: str, name: str) -> str:
    """Where git keeps what it knows of a worktree, and forgets it with that, a file of that name."""
    return os.path.join(worktree, run(worktree, "rev-parse", "--git-path", name).removesuffix("\n"))


def common_path(folder: str, name: str) -> str:
    """Where git keeps what all worktrees of the repository of a folder have in common, a file of that name."""
    return os.path.join(folder, run(folder, "rev-parse", "--git-common-dir").removesuffix("\n"), name)


def refuse_changed(checkout: Checkout, arguments: Sequence[str], own: Callable[[], Sequence[str]]) -> None:
    """Raise an error for a worktree that git would not remove: before anything in it is removed.

    ``own``: returns what in it may go all the same, if git calls that new.
    """
    if refuse_locked(checkout, arguments):
        return
    hint = "Nothing was removed. `--force` removes it all the same."
    modules = run(checkout.path, "rev-parse", "--git-path", "modules").removesuffix("\n")
    if os.path.isdir(os.path.join(checkout.path, modules)):
        raise Conflict(f"the worktree {checkout.path} contains submodules", hint)
    told = run(checkout.path, "status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=none").split("\0")
    changed = [line[3:] for line in told if line and not line.startswith("?? ")]
    if not changed and any(told):
        kept = own()
        new = (each for each in new_files(checkout.path) if not any(leads_into(each, path) for path in kept))
        changed = [os.path.relpath(each, checkout.path) for each in new]
    if changed:
        what = "changes that are not committed, or new files"
        raise Conflict(f"the worktree {checkout.path} has {what}: {listed(changed)}", hint)
