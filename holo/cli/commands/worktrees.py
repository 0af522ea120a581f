"""Commands for git worktrees with environments of their own."""

from __future__ import annotations

import enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from holo.cli.app import command
from holo.cli.options import Json, Quiet, Verbose
from holo.cli.output import reporting

if TYPE_CHECKING:
    from holo import Hololib

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
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Add a git worktree with its environments, or remove one."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    if action is Action.REMOVE:
        removed = library.remove_worktree(path, arguments or ())
        render.report(removed, render.worktree_removed, as_json)
        library.start_filling()
        return
    report = library.add_worktree(path, arguments or ())
    render.report(report, render.worktree_added, as_json, report.warnings)
    library.start_filling()


class Hook(enum.StrEnum):
    """Whose hook it is."""

    GIT = "git"
    DIRENV = "direnv"
    CLAUDE = "claude"


@command(
    "hook",
    _GROUP,
    [
        "holo hook git --install                # for this repository",
        "holo hook direnv --install             # then: use holo, in .envrc",
        "holo hook claude --install             # in .claude/settings.json",
        "holo hook git --remove",
    ],
)
def hook(
    kind: Annotated[
        Hook,
        typer.Argument(
            metavar="git|direnv|claude",
            help="git: post-checkout. direnv: `use holo`. claude: WorktreeCreate and WorktreeRemove of Claude Code.",
        ),
    ],
    install: Annotated[bool, typer.Option("--install", help="Put it where it belongs.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take out what was installed.")] = False,
    run: Annotated[
        bool, typer.Option("--run", help="claude: do what the event on standard input says, as the hook does.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Let every new worktree get its environments by itself."""
    from holo.api import Hololib
    from holo.cli import render
    from holo.errors import UsageError

    if install + remove + run > 1 or (run and kind is not Hook.CLAUDE):
        raise UsageError("--install, --remove and --run exclude each other; --run is for claude", "Choose one.")
    library = Hololib()
    if run:
        _run(library)
        return
    if install or remove:
        report = library.install_hook(kind) if install else library.remove_hook(kind)
        render.report(report, partial(render.hooked, is_removal=remove), as_json)
        return
    text = library.hook(kind)
    with reporting(is_done=False):
        render.document({"hook": str(kind), "text": text}) if as_json else print(text, end="")


def _run(library: Hololib) -> None:
    """Claude Code reads the path of a worktree that was made from stdout, and shows what is on stderr."""
    import sys

    from holo.cli import render

    report = library.run_hook(sys.stdin.buffer.read(1 << 20))
    for warning in getattr(report, "warnings", ()):
        render.warn(warning)
    if hasattr(report, "is_new"):
        print(report.path)
