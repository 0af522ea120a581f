"""Commands that carry environments from one machine to another."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from holo.cli import fast
from holo.cli.app import command
from holo.cli.options import Json, KeepSetid, Progress, Quiet, Verbose
from holo.cli.progress import Form, progress
from holo.errors import IntegrityError

_GROUP = "Carry environments to other machines"


@command(
    "export",
    _GROUP,
    [
        "holo export app -o app.holo",
        "holo export app --compress -o - | ssh host holo import -",
        "holo export app-2 --known app -o update.holo",
        "holo export app --sign ~/.ssh/id_ed25519 -o app.holo",
    ],
)
def export(
    references: Annotated[list[str], typer.Argument(metavar="REF...", help="Catalogs: names or digest prefixes.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The bundle; - for stdout.")],
    known: Annotated[
        Optional[list[str]],
        typer.Option("--known", metavar="REF", help="Leave out what this catalog or bundle has (repeatable)."),
    ] = None,
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress: smaller, but no blocks can be shared.")
    ] = False,
    sign: Annotated[
        Optional[str],
        typer.Option("--sign", metavar="KEY", help="Sign the catalogs with this key of ssh; a .pub: with ssh-agent."),
    ] = None,
    shown: Progress = Form.AUTO,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write catalogs with all their content into one file: a bundle."""
    fast.export(references, output, known=known or (), compress=compress, sign=sign, shown=shown, as_json=as_json)


@command(
    "import",
    _GROUP,
    ["holo import app.holo", "ssh host holo export app -o - | holo import -", "holo import hololib.zip --name app"],
)
def import_(
    file: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[FILE]",
            help="The bundle (- for stdin), RCC's hololib.zip, or an archive of conda-pack or venv-pack.",
        ),
    ] = None,
    name: Annotated[
        Optional[str], typer.Option("--name", metavar="NAME", help="Name of the catalog, if it is one.")
    ] = None,
    rcc: Annotated[
        Optional[str], typer.Option("--rcc", metavar="DIR", help="Import all of RCC's library: the folder hololib.")
    ] = None,
    keep_setid: KeepSetid = False,
    shown: Progress = Form.AUTO,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Take a bundle, or what another tool has packed, into the library."""
    from holo.errors import UsageError

    if (file is None) is (rcc is None):
        raise UsageError("import takes one file, or one library of RCC", "Name a file, or a folder with --rcc.")
    fast.import_file(file, name, rcc=rcc, keep_setid=keep_setid, shown=shown, as_json=as_json)


@command("verify", _GROUP, ["holo verify app", "holo verify app.holo --allowed-signers ~/.ssh/allowed_signers"])
def verify(
    what: Annotated[str, typer.Argument(metavar="REF|FILE", help="A catalog's name or digest prefix, or a bundle.")],
    allowed_signers: Annotated[
        Optional[str],
        typer.Option(
            "--allowed-signers", metavar="FILE", help="Who may sign (default: remote.allowed-signers in settings.yaml)."
        ),
    ] = None,
    shown: Progress = Form.AUTO,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Read all content of a catalog or a bundle, and say who signed it."""
    from holo.api import Hololib
    from holo.cli import render

    with progress("verify", "verifying", "blobs", form=shown, quiet=as_json) as on_progress:
        report = Hololib().verify(what, allowed_signers=allowed_signers, on_progress=on_progress)
    render.report(report, render.verified, as_json)
    if not report.is_sound:
        raise typer.Exit(IntegrityError.exit_code)
