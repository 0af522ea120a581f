"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
SpaceName = Annotated[str, typer.Option("--space", help="Name of the space.")]
SpaceToRestore = Annotated[
    Optional[str],
    typer.Option(
        "--space",
        help="Name of the space (default: the one at --to, the nearest .venv or node_modules, HOLO_SPACE's, 'user').",
    ),
]
SpaceToWorkIn = Annotated[
    Optional[str],
    typer.Option(
        "--space",
        help="Name of the space (default: the nearest .venv or node_modules, HOLO_SPACE's, that of the nearest "
        "blueprint, 'user').",
    ),
]
To = Annotated[Optional[str], typer.Option("--to", metavar="DIR", help="Where the space lives.")]
StrategyName = Annotated[
    Optional[str], typer.Option("--strategy", help="smart, reflink, hardlink or copy (default: from the settings).")
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail instead of falling back to another strategy.")]
Verify = Annotated[bool, typer.Option("--verify", help="Hash everything that is shared or unchanged.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Take over a space of another catalog, or a directory that is none; what is in it goes."
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="With --force: also a directory that holds a .git or the like, which goes, too.")
]
Compile = Annotated[
    Optional[bool],
    typer.Option("--compile/--no-compile", help="Compile the bytecode of a Python blueprint when it is built."),
]
Unfit = Annotated[
    bool, typer.Option("--force", help="Also in a space whose last restore has not ended, or whose Python is gone.")
]
KeepSetid = Annotated[bool, typer.Option("--keep-setid", help="Keep setuid and setgid bits.")]
