"""Commands about remotes, where many machines share environments."""

from __future__ import annotations

import enum
from functools import partial
from typing import Annotated, Optional

import typer

from holo.cli.app import command
from holo.cli.options import Json, KeepSetid, Progress, Quiet, Verbose
from holo.cli.output import reporting
from holo.cli.progress import Form, progress
from holo.errors import IntegrityError, UsageError

_GROUP = "Share environments among machines"

Remote = Annotated[
    Optional[str],
    typer.Argument(
        metavar="[REMOTE]",
        help="A folder, or a URL: file, https, s3, gs, az (default: HOLO_REMOTE, else remote.url of the settings).",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@command(
    "push", _GROUP, ["holo push app s3://bucket/holo", "holo push app tools", "holo push app --sign ~/.ssh/id_ed25519"]
)
def push(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="CATALOG... [REMOTE]",
            help="Catalogs: names or digest prefixes. Last, a folder or a URL (default: HOLO_REMOTE, else remote.url "
            "of the settings).",
        ),
    ],
    sign: Annotated[
        Optional[str], typer.Option("--sign", metavar="KEY", help="Sign with this SSH key (file of the key).")
    ] = None,
    dry_run: DryRun = False,
    shown: Progress = Form.AUTO,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Send catalogs to a remote, with what it lacks of their content."""
    from holo.api import Hololib
    from holo.cli import render

    remote = references.pop() if _is_remote(references[-1]) else None
    if misplaced := [reference for reference in references if _is_remote(reference)]:
        raise UsageError(f"{misplaced[0]} is no name of a catalog", "Name catalogs first, and one remote last.")
    shared = Hololib().remote(remote)
    with progress("push", "pushing", "bytes", form=shown, quiet=as_json, requests=shared.requests) as on_progress:
        report = shared.push(references, sign=sign, dry_run=dry_run, on_progress=on_progress)
    render.report(report, render.pushed, as_json, is_done=not dry_run)


@command(
    "pull", _GROUP, ["holo pull app https://cdn.example.com/holo", "holo pull app", "holo pull app --name app-next"]
)
def pull(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A name in the remote, or a whole digest.")],
    remote: Remote = None,
    name: Annotated[Optional[str], typer.Option("--name", metavar="NAME", help="Name of the catalog here.")] = None,
    keep_setid: KeepSetid = False,
    dry_run: DryRun = False,
    shown: Progress = Form.AUTO,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Take a catalog of a remote into the library."""
    from holo.api import Hololib
    from holo.cli import render

    if _is_remote(reference):
        if remote is not None:
            raise UsageError(f"{reference} is no name of a catalog", "Name the catalog first, then the remote.")
        raise UsageError("no catalog is named, only a remote", f"Name both: `holo pull NAME {reference}`.")
    library = Hololib()
    shared = library.remote(remote)
    with progress("pull", "pulling", "bytes", form=shown, quiet=as_json, requests=shared.requests) as on_progress:
        report = shared.pull(reference, name, keep_setid=keep_setid, dry_run=dry_run, on_progress=on_progress)
    render.report(report, render.pulled, as_json, report.warnings, is_done=not dry_run)
    library.start_upkeep()


class Action(enum.StrEnum):
    """What can be done with a remote as a whole."""

    LIST = "list"
    STATUS = "status"
    CHECK = "check"
    GC = "gc"


@command(
    "remote",
    _GROUP,
    ["holo remote list", "holo remote status s3://bucket/holo", "holo remote check --read", "holo remote gc --dry-run"],
)
def remote(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="list|status|check|gc",
            help="list: names, and keys of blueprints. status: how much there is. check: whether all that is needed is "
            "there. gc: remove what nothing has needed for a week.",
        ),
    ],
    where: Remote = None,
    read: Annotated[bool, typer.Option("--read", help="check: fetch and hash all packs as well.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="check: remove what is wrong, so that it can be pushed again.")
    ] = False,
    grace: Annotated[
        Optional[str],
        typer.Option("--grace", metavar="DURATION", help="gc: how long nothing must have needed it: 7d, 12h."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="gc: only say what would be removed.")] = False,
    shown: Progress = Form.AUTO,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Look after a remote: list, count, check or clean what is in it."""
    from holo.api import Hololib
    from holo.cli import render

    if (read or repair) and action is not Action.CHECK:
        raise UsageError("--read and --repair are for `holo remote check`", "Leave them out.")
    if (grace is not None or dry_run) and action is not Action.GC:
        raise UsageError("--grace and --dry-run are for `holo remote gc`", "Leave them out.")
    shared = Hololib().remote(where)
    if action is Action.GC:
        with progress("remote gc", "looking", "objects", form=shown, quiet=as_json, requests=shared.requests) as told:
            collected = shared.gc(grace=grace, dry_run=dry_run, on_progress=told)
        render.report(collected, render.remote_collected, as_json, is_done=not dry_run)
        return
    if action is Action.CHECK:
        with progress(
            "remote check", "checking", "objects", form=shown, quiet=as_json, requests=shared.requests
        ) as told:
            found = shared.check(read=read, repair=repair, on_progress=told)
        render.report(found, partial(render.remote_checked, is_repair=repair), as_json)
        if found.problems:
            raise typer.Exit(IntegrityError.exit_code)
        return
    with reporting(is_done=False):
        if action is Action.LIST:
            names = shared.names()
            document = {"remote": shared.name, "names": [name._asdict() for name in names]}
            render.document(document) if as_json else render.remote_names(names)
        else:
            status = shared.status()
            render.document(status.to_json()) if as_json else render.remote_status(status)


def _is_remote(text: str) -> bool:
    """Whether an argument is a remote, not a catalog: no catalog has a slash or a colon in its name."""
    return "/" in text or "\\" in text or ":" in text or text in (".", "..")
