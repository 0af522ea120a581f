"""Commands that ask: what has changed, what is in there, where did it come from."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from holo.cli.app import command
from holo.cli.options import Json, one_name

_GROUP = "Ask"

Name = Annotated[
    Optional[str],
    typer.Argument(
        metavar="[SPACE]",
        help="Name of the space, or its beginning (default: the nearest .venv or node_modules, else HOLO_SPACE, else "
        "that of the nearest blueprint, else user).",
    ),
]
Option = Annotated[Optional[str], typer.Option("--space", metavar="NAME", help="The same as SPACE.")]
Detailed = Annotated[bool, typer.Option("--verbose", "-v", help="Also list every file that differs.")]


@command("status", _GROUP, ["holo status", "holo status job-1 -v"])
def status(name: Name = None, space: Option = None, detailed: Detailed = False, as_json: Json = False) -> None:
    """Show what has changed in a space, by package first."""
    from holo.api import Hololib
    from holo.cli import answers, render

    found = Hololib().status(one_name(name, space))
    render.document(found.to_json()) if as_json else answers.status(found, detailed=detailed)
