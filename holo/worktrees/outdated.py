"""Which environments of a worktree are not what it asks for any more: after a switch to another branch, say.

A space knows its blueprint. What a clone was made for is noted where git keeps what it knows of the worktree.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from shlex import quote

from holo.worktrees import git, noted
from holo.worktrees.choice import asked

_NOTE = "holo-made-for"

_CHANGED_BY_TOOLS = ("", "conda-meta", "lib/python*/site-packages")
"""The directories of an environment in which a tool that installs or removes something makes or removes names."""


def note(worktree: str, path: str) -> None:
    """Note for what an environment was made at a path in a worktree."""
    wanted = asked(worktree, path)
    if wanted is not None:
        _write(worktree, {path: wanted.digest})


def warnings(worktree: str, spaces: Collection[str]) -> Iterator[str]:
    """What to do about the environments that were made for something else than is asked for now.

    ``spaces``: the paths in the worktree at which other ones are now.

    Whoever has installed something since then has brought the environment up to date, as far as anybody can tell.
    """
    fresh = {}
    for path, digest in noted.read(git.own_path(worktree, _NOTE)).items():
        place = os.path.join(worktree, path)
        wanted = asked(worktree, path) if os.path.isdir(place) and path not in spaces else None
        if wanted is None or wanted.digest == digest:
            continue
        if _last_change(place) > wanted.since:
            fresh[path] = wanted.digest
            continue
        where = os.path.dirname(os.path.join(worktree, wanted.file))
        tool = f"run `{wanted.tool}` in {where}, or " if wanted.tool is not None else ""
        yield (
            f"{path} was made for another {wanted.file} or Python than is asked for now: "
            f"{tool}remove it (`rm -r {quote(place)}`) and run this again"
        )
    if fresh:
        _write(worktree, fresh)


def _write(worktree: str, more: dict[str, str]) -> None:
    where = git.own_path(worktree, _NOTE)
    with suppress(OSError):  # holo merely says less
        noted.write(where, noted.read(where) | more)


def _last_change(place: str) -> int:
    """When something was installed in an environment, or removed."""
    paths = (path for name in _CHANGED_BY_TOOLS for path in glob.glob(os.path.join(glob.escape(place), name)))
    return max((os.stat(path).st_ctime_ns for path in paths), default=0)
