"""Options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Optional

import typer

from holo.cli import output
from holo.cli.listing import Order
from holo.cli.progress import Form
from holo.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", callback=output.be_verbose, help="Also say how it was done.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=output.be_quiet, help="Say nothing but warnings and errors.")
]
Progress = Annotated[
    Form,
    typer.Option(
        "--progress", help="json: one JSON object a line on stderr (default: a bar, on a terminal).", show_default=False
    ),
]
SpaceOption = Annotated[Optional[str], typer.Option("--space", metavar="NAME", help="The same as SPACE.")]
_HERE = "the one you are in, else the nearest .venv or node_modules, else HOLO_SPACE, that of the blueprint, or user"
SpaceToAsk = Annotated[
    Optional[str], typer.Argument(metavar="[SPACE]", help=f"Name of the space, or its beginning (default: {_HERE}).")
]
Sort = Annotated[Order, typer.Option("--sort", help="The oldest, the longest unused or the largest come first.")]
Stale = Annotated[
    Optional[str], typer.Option("--stale", metavar="DURATION", help="Only what nobody has used for so long: 30d, 12h.")
]
Measure = Annotated[bool, typer.Option("--size", help="Measure now what each has alone, as `holo du` does.")]
SpaceToRestore = Annotated[
    Optional[str],
    typer.Argument(metavar="[SPACE]", help=f"Name of the space (default: the one at --to, else {_HERE})."),
]
SpaceToRunIn = Annotated[
    Optional[str], typer.Option("--space", metavar="NAME", help=f"The same as SPACE before -- (default: {_HERE}).")
]
To = Annotated[Optional[str], typer.Option("--to", metavar="DIR", help="Directory of the space.")]
StrategyName = Annotated[
    Optional[str],
    typer.Option(
        "--strategy", metavar="NAME", help="smart, reflink, hardlink, copy or overlay (default: from the settings)."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail instead of falling back to another strategy.")]
Verify = Annotated[bool, typer.Option("--verify", help="Hash every file that is shared or unchanged.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Replace a space of another catalog, or a directory that is no space. Its contents are lost."
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="With --force: also replace a directory that contains .git or the like.")
]
Compile = Annotated[
    Optional[bool],
    typer.Option(
        "--compile/--no-compile",
        help="Compile Python's bytecode when a blueprint is built (default: as last time, else yes).",
    ),
]
EditableProject = Annotated[
    Optional[bool],
    typer.Option(
        "--editable-project/--no-editable-project",
        help="Install the project itself when its uv.lock is built (default: as last time, else yes).",
    ),
]
Unfit = Annotated[
    bool, typer.Option("--force", help="Also use a space whose last restore is unfinished, or whose Python is gone.")
]
KeepSetid = Annotated[bool, typer.Option("--keep-setid", help="Keep setuid and setgid bits.")]


def number(option: str) -> Callable[[str], int]:
    """How to read the number of an option. Typer says of a word that it "is not a valid int range"."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise UsageError(f"{option} must be a number from 0 up, not {text!r}", f"Write digits: {option} 30.")
        return int(text)

    return parse


def one_name(argument: str | None, option: str | None) -> str | None:
    """The space that is named, as an argument or by ``--space``."""
    if argument is not None and option is not None:
        raise UsageError("two spaces are named", "Name one, with --space or without.")
    return argument if argument is not None else option


def space_and_source(first: str | None, second: str | None, space: str | None) -> tuple[str | None, str | None]:
    """What the arguments of `holo init [SPACE] [SOURCE]` are.

    With ``--space`` the only one is the source. So it is if it has a slash, which the name of a space cannot have.
    """
    if second is not None:
        return one_name(first, space), second
    if space is not None or first is None or "/" in first or os.sep in first:
        return space, first
    return first, None
