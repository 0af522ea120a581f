"""Commands that work in a space."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from holo.cli import fast
from holo.cli.app import SPACE, SpaceBeforeCommand, command
from holo.cli.options import (
    Compile,
    EditableProject,
    Json,
    Quiet,
    SpaceOption,
    SpaceToAsk,
    SpaceToRunIn,
    Unfit,
    one_name,
)
from holo.errors import UsageError

_GROUP = "Work in a space"


@command(
    "run",
    _GROUP,
    [
        "holo run -- python train.py",
        "holo run job-1 -- pytest -q",
        "holo run --ephemeral --blueprint requirements.txt -- pytest -q",
    ],
    options_anywhere=False,
    cls=SpaceBeforeCommand,
)
def run(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="[SPACE] -- COMMAND ...", help="The space; the command and its arguments.")
    ],
    space: SpaceToRunIn = None,
    blueprint: Annotated[
        Optional[str], typer.Option("--blueprint", metavar="FILE", help="Run in a space built from this file.")
    ] = None,
    compiled: Compile = None,
    editable: EditableProject = None,
    ephemeral: Annotated[
        bool,
        typer.Option(
            "--ephemeral", help="Run in a pristine environment at the space's path, and discard it afterwards."
        ),
    ] = False,
    catalog: Annotated[
        Optional[str], typer.Option("--catalog", metavar="REF", help="With --ephemeral: use this catalog.")
    ] = None,
    keep: Annotated[
        Optional[str],
        typer.Option("--keep", metavar="NAME", help="With --ephemeral: keep the result as a space of this name."),
    ] = None,
    record_it: Annotated[bool, typer.Option("--record", help="With --keep: keep only a catalog.")] = False,
    force: Unfit = False,
    quiet: Quiet = False,
) -> None:
    """Run a command in a space. Its exit code is passed on."""
    space = one_name(context.meta.get(SPACE), space)
    if ephemeral:
        if force:
            raise UsageError("--force is for spaces", "A throw-away environment is whole: leave it out.")
        fast.run_ephemeral(
            command,
            space,
            catalog=catalog,
            blueprint=blueprint,
            compiled=compiled,
            editable=editable,
            keep=keep,
            record=record_it,
        )
    if catalog is not None or keep is not None or record_it:
        raise UsageError("--catalog, --keep and --record are for throw-away environments", "Add --ephemeral.")
    fast.run(command, space, blueprint=blueprint, compiled=compiled, editable=editable, force=force)


@command("shell", _GROUP, ["holo shell job-1"])
def shell(name: SpaceToAsk = None, space: SpaceOption = None, force: Unfit = False, quiet: Quiet = False) -> None:
    """Start a shell in a space. Its exit code is passed on."""
    fast.run(None, one_name(name, space), force=force)


@command("variables", _GROUP, ['eval "$(holo variables job-1)"', "holo variables --shell fish | source"])
def variables(
    name: SpaceToAsk = None,
    space: SpaceOption = None,
    shell: Annotated[str, typer.Option("--shell", metavar="NAME", help="sh, fish or powershell.")] = "sh",
    force: Unfit = False,
    as_json: Json = False,
) -> None:
    """Print the variables of a space as shell code.

    A shell that evaluates it has the space as its current environment.
    """
    fast.variables(one_name(name, space), shell=shell, force=force, as_json=as_json)
