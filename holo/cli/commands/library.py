"""Commands about what the library holds."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Optional

import typer

from holo import streams
from holo.cli.app import command
from holo.cli.listing import Order
from holo.cli.options import Json, Measure, Progress, Quiet, Sort, Stale, number
from holo.cli.output import STDOUT, reporting
from holo.cli.progress import Form, progress
from holo.errors import HoloError, IntegrityError, UsageError

_GROUP = "Look after the library"


@command("catalogs", _GROUP, ["holo catalogs", "holo catalogs app --log", "holo catalogs app --remove"])
def catalogs(
    reference: Annotated[
        Optional[str], typer.Argument(metavar="[REF]", help="Only this catalog, or those of this bundle.")
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Print the log of its build.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove this catalog.")] = False,
    order: Sort = Order.NAME,
    stale: Stale = None,
    measure: Measure = False,
    as_json: Json = False,
) -> None:
    """List catalogs, remove one, or print the log of its build."""
    from holo.api import Hololib
    from holo.cli import listing, render

    library = Hololib()
    if log and remove:
        raise UsageError("--log and --remove do not go together", "Print the log first, then remove the catalog.")
    if (log or remove) and reference is None:
        option = "--remove" if remove else "--log"
        raise UsageError(f"{option} needs a catalog", f"Name it: `holo catalogs NAME {option}`.")
    if log and reference is not None:
        render.log(library.build_log(reference), as_json)
        return
    if remove and reference is not None:
        name, digest = library.remove_catalog(reference)
        if orphans := library.spaces_without_catalog(digest):
            names = ", ".join(space.name for space in orphans)
            render.warn(f"spaces of this catalog stay, but cannot be restored any more: {names}")
        with reporting():
            if as_json:
                render.document({"name": name, "digest": digest})
            else:
                print(f"removed catalog {name} ({digest[:12]})")
        return
    found = library.catalog_details(reference, stale=stale, measure=measure)
    listing.catalogs(found, order, as_json)
    if not found and not as_json and stale is None:
        streams.say(f"there is no catalog in {library.settings.home} yet; `holo record DIR` makes one")


@command("sbom", _GROUP, ["holo sbom app", "holo sbom job-1 -o job-1.cdx.json", "holo sbom app.holo | jq .components"])
def sbom(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="Catalog (name or digest), space (as it is now) or bundle; the beginning of a name is enough.",
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The document; - for stdout.")] = "-",
    as_json: Json = False,
) -> None:
    """List packages of a catalog or space as CycloneDX (SBOM)."""
    from holo.api import Hololib
    from holo.cli import render

    found = Hololib().sbom(reference, None if output in STDOUT else output)
    if found.file is not None:
        render.report(found, render.listed, as_json, found.warnings)
        return
    for warning in found.warnings:
        render.warn(warning)
    print(found.document, end="")


@command("du", _GROUP, ["holo du", "holo du job-1 ./.venv", "holo du --output usage.svg"])
def disk_usage(
    what: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[SPACE|CATALOG|PATH...]", help="What to look at (default: everything)."),
    ] = None,
    output: Annotated[
        Optional[str], typer.Option("--output", "-o", metavar="FILE", help="Write a chart as SVG or HTML, by its name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what takes space on the disk, and what shares it."""
    from holo.api import Hololib
    from holo.cli import usage

    if output is not None:
        from holo.cli import chart

        chart.check(output)
    report = Hololib().usage(*(what or ()))
    usage.show(report, detailed=bool(what), as_json=as_json)
    if output is not None:
        chart.save(usage.picture(report), output)


@command("gc", _GROUP, ["holo gc --dry-run", "holo gc --keep-days 30 --max-size 20GB"])
def collect_garbage(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    keep_days: Annotated[
        Optional[int],
        typer.Option(
            "--keep-days", metavar="N", parser=number("--keep-days"), help="Remove catalogs not used in N days."
        ),
    ] = None,
    keep_last: Annotated[
        Optional[int],
        typer.Option(
            "--keep-last", metavar="N", parser=number("--keep-last"), help="Remove all but the N catalogs last used."
        ),
    ] = None,
    max_size: Annotated[
        Optional[str],
        typer.Option("--max-size", metavar="SIZE", help="Remove the least recently used until the rest fits (20GB)."),
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="First drop spaces whose folder, or the worktree they were for, is gone.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Remove what no catalog needs, and catalogs by last use."""
    from holo.api import Hololib
    from holo.cli import render

    report = Hololib().gc(dry_run=dry_run, keep_days=keep_days, keep_last=keep_last, max_size=max_size, missing=missing)
    render.report(report, render.collected, as_json, is_done=not dry_run)


@command("check", _GROUP, ["holo check", "holo check --repair --from /mnt/backup/hololib", "holo check --space job-1"])
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Quarantine what is damaged, and restore it from intact copies.")
    ] = False,
    source: Annotated[
        Optional[list[str]],
        typer.Option("--from", metavar="PATH", help="Library, bundle or directory to repair from (repeatable)."),
    ] = None,
    space: Annotated[
        Optional[list[str]],
        typer.Option(
            "--space",
            metavar="NAME",
            help="Also compare this space with its catalog (repeatable; default: the nearest .venv and node_modules).",
        ),
    ] = None,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt",
            help="Check nothing: let this copy of a home take over its spaces elsewhere (all, or those of --space).",
        ),
    ] = False,
    shown: Progress = Form.AUTO,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Read everything in the library, and report what is damaged."""
    from holo.api import Hololib
    from holo.cli import render

    if adopt:
        if repair or source:
            raise UsageError("--adopt checks and repairs nothing", "Run it without --repair and --from.")
        adoptions = Hololib().adopt(space or ())
        render.document({"spaces": [item.to_json() for item in adoptions]}) if as_json else render.adopted(adoptions)
        if any(item.refused for item in adoptions):
            raise typer.Exit(HoloError.exit_code)
        return
    with progress("check", "checking", "items", form=shown, quiet=as_json) as on_progress:
        report = Hololib().check(repair=repair, sources=source or (), spaces=space or None, on_progress=on_progress)
    render.report(report, partial(render.checked, is_repair=repair), as_json)
    if not report.is_sound:
        raise typer.Exit(IntegrityError.exit_code)
