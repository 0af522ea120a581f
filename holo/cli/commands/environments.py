"""Commands that make spaces, restore them, and clone directories."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from holo.cli import fast
from holo.cli.app import command
from holo.cli.listing import Order
from holo.cli.options import (
    Compile,
    EditableProject,
    Force,
    Json,
    KeepSetid,
    Measure,
    Progress,
    Quiet,
    Sort,
    SpaceOption,
    SpaceToRestore,
    Stale,
    StrategyName,
    Strict,
    To,
    Verbose,
    Verify,
    Yes,
    number,
    one_name,
    space_and_source,
)
from holo.cli.output import reporting
from holo.cli.progress import Form, progress
from holo.errors import UsageError

_GROUP = "Record and restore"


@command("record", _GROUP, ["holo record .venv --name app"])
def record(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The tree to record.")],
    name: Annotated[
        Optional[str], typer.Option("--name", metavar="NAME", help="Name of the catalog (default: the directory's).")
    ] = None,
    skip_special: Annotated[bool, typer.Option("--skip-special", help="Leave out sockets, fifos and devices.")] = False,
    keep_setid: KeepSetid = False,
    shown: Progress = Form.AUTO,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Record a directory tree as a catalog."""
    fast.record(directory, name, skip_special=skip_special, keep_setid=keep_setid, shown=shown, as_json=as_json)


@command("init", _GROUP, ["holo init job-1 app", "holo init web requirements.txt --to .venv"])
def init(
    name: SpaceToRestore = None,
    source: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[SOURCE]",
            help="Catalog name or digest prefix, catalog file, bundle, directory (recorded first) or blueprint "
            "(default: the nearest blueprint, else the only catalog).",
        ),
    ] = None,
    space: SpaceOption = None,
    to: To = None,
    project: Annotated[
        Optional[str],
        typer.Option(
            "--project",
            metavar="DIR",
            help="The checkout whose code the space uses (default: the one that contains --to).",
        ),
    ] = None,
    strategy: StrategyName = None,
    strict: Strict = False,
    verify: Verify = False,
    force: Force = False,
    yes: Yes = False,
    keep_setid: KeepSetid = False,
    compiled: Compile = None,
    editable: EditableProject = None,
    shown: Progress = Form.AUTO,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a space from a catalog, a directory or a blueprint."""
    fast.init(
        *space_and_source(name, source, space),
        to=to,
        project=project,
        strategy=strategy,
        strict=strict,
        verify=verify,
        force=force,
        yes=yes,
        keep_setid=keep_setid,
        compiled=compiled,
        editable=editable,
        shown=shown,
        as_json=as_json,
    )


@command(
    "restore",
    _GROUP,
    [
        "holo restore                          # the nearest .venv or node_modules",
        "holo restore job-1 --dry-run",
        "holo restore job-1 --catalog app",
    ],
)
def restore(
    name: SpaceToRestore = None,
    space: SpaceOption = None,
    catalog: Annotated[
        Optional[str], typer.Option("--catalog", metavar="REF", help="Turn the space into this catalog.")
    ] = None,
    to: To = None,
    strategy: StrategyName = None,
    strict: Strict = False,
    verify: Verify = False,
    force: Force = False,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")] = False,
    shown: Progress = Form.AUTO,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Bring a space back to pristine, or turn it into another catalog."""
    space = one_name(name, space)
    if dry_run:
        from holo.api import Hololib
        from holo.cli import render

        planned = Hololib().dry_run(
            space, catalog=catalog, to=to, strategy=strategy, strict=strict, verify=verify, force=force, yes=yes
        )
        render.document(planned.to_json()) if as_json else render.planned(planned)
        return
    fast.restore(
        space,
        catalog=catalog,
        to=to,
        strategy=strategy,
        strict=strict,
        verify=verify,
        force=force,
        yes=yes,
        shown=shown,
        as_json=as_json,
    )


@command("list", _GROUP, ["holo list", "holo list --sort size", "holo list --stale 30d --json"])
def list_spaces(
    order: Sort = Order.NAME,
    stale: Stale = None,
    measure: Measure = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list the spares, and say whether some are being made.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the spaces, with their state, age and size."""
    fast.list_spaces(order=order, stale=stale, measure=measure, everything=everything, as_json=as_json)


@command("delete", _GROUP, ["holo delete job-1"])
def delete(
    name: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[SPACE]",
            help="Name of the space (default: the one you are in, or the nearest .venv or node_modules).",
        ),
    ] = None,
    space: SpaceOption = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Delete a space."""
    fast.delete(one_name(name, space), as_json=as_json)


@command("spares", _GROUP, ["holo spares", "holo spares app --keep 2"])
def spares(
    catalog: Annotated[
        Optional[str],
        typer.Argument(metavar="[REF]", help="Name or digest prefix of a catalog (default: all).", show_default=False),
    ] = None,
    keep: Annotated[
        Optional[int],
        typer.Option(
            "--keep",
            metavar="N",
            parser=number("--keep"),
            help="Make spares until there are N, and keep N from now on.",
        ),
    ] = None,
    shown: Progress = Form.AUTO,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List spares, finished trees that new spaces take, or keep some."""
    from holo.api import Hololib
    from holo.cli import listing

    library = Hololib()
    if keep is None:
        listing.spares(library.spares(catalog), as_json)
        return
    if catalog is None:
        raise UsageError("--keep needs a catalog", "Name it: `holo spares REF --keep N`.")
    with progress("spares", "making", "files", form=shown, quiet=as_json) as on_progress:
        report = library.keep_spares(catalog, keep, on_progress=on_progress)
    with reporting():
        listing.spares(report, as_json)


@command("clone", _GROUP, ["holo clone ../main/.venv .venv --relocate"])
def clone(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The directory to clone.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="Where to make the clone. Nothing may be there yet.")],
    relocate: Annotated[
        bool,
        typer.Option(
            "--relocate",
            help="Also replace the path of SRC in files and symlinks, and that of its project, if DST lies in another "
            "checkout of it.",
        ),
    ] = False,
    maps: Annotated[
        Optional[list[str]],
        typer.Option("--map", metavar="OLD=NEW", help="Replace the path of another folder as well (repeatable)."),
    ] = None,
    no_map: Annotated[bool, typer.Option("--no-map", help="Leave paths of the project as they are.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Clone a directory tree by snapshot, reflinks or copies. No library is needed."""
    fast.clone(source, target, relocate=relocate, maps=maps or (), map_project=not no_map, as_json=as_json)
