"""Commands for git worktrees with environments of their own."""

from __future__ import annotations

import enum
from typing import Annotated, Optional

import typer

from holo.cli.app import command, reporting
from holo.cli.options import Json

_GROUP = "Worktrees and agents"


class Action(enum.StrEnum):
    """What can be done with a worktree."""

    ADD = "add"
    REMOVE = "remove"


@command(
    "worktree",
    _GROUP,
    [
        "holo worktree add ../feature",
        "holo worktree add ../fix -b fix origin/main",
        "holo worktree add .                    # what this one lacks",
        "holo worktree remove ../feature",
    ],
    passes_options=True,
)
def worktree(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="add|remove",
            help="add: git worktree add, with each .venv and node_modules of the first checkout. remove: git worktree "
            "remove, with the spaces in it.",
        ),
    ],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Directory of the worktree.")],
    arguments: Annotated[
        Optional[list[str]], typer.Argument(metavar="[ARGUMENTS]...", help="Options and arguments for git.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a git worktree with its environments, or remove one."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    if action is Action.REMOVE:
        removed = library.remove_worktree(path, arguments or ())
        with reporting():
            render.document(removed.to_json()) if as_json else render.worktree_removed(removed)
        return
    report = library.add_worktree(path, arguments or ())
    for warning in report.warnings:
        render.warn(warning)
    with reporting():
        render.document(report.to_json()) if as_json else render.worktree_added(report)
