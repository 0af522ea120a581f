"""Commands that ask: what has changed, what is in there, where did it come from."""

from __future__ import annotations

from typing import Annotated

import typer

from holo.cli import fast
from holo.cli.app import command
from holo.cli.options import Json, SpaceOption, SpaceToAsk, one_name

_GROUP = "Ask"

_REFERENCE = "Catalog (name or digest), space (as it is now) or bundle; the beginning of a name is enough."
Detailed = Annotated[bool, typer.Option("--verbose", "-v", help="Also list every file that differs.")]


@command("status", _GROUP, ["holo status", "holo status job-1 -v"])
def status(
    name: SpaceToAsk = None, space: SpaceOption = None, detailed: Detailed = False, as_json: Json = False
) -> None:
    """Show what has changed in a space, by package first."""
    fast.status(one_name(name, space), detailed=detailed, as_json=as_json)


@command("diff", _GROUP, ["holo diff app job-1", "holo diff old.holo new.holo -v"])
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help=_REFERENCE)],
    after: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    detailed: Detailed = False,
    as_json: Json = False,
) -> None:
    """Compare two catalogs, spaces or bundles, by package first."""
    from holo.api import Hololib
    from holo.cli import answers, render

    found = Hololib().diff(before, after)
    if as_json:
        render.document({"before": before, "after": after, **found.to_json()})
    elif found.is_empty:
        print("nothing differs")
    else:
        answers.changes(found, detailed=detailed)


@command("ls", _GROUP, ["holo ls app", "holo ls job-1 lib/python3.13/site-packages"])
def list_entries(
    reference: Annotated[str, typer.Argument(metavar="REF", help=_REFERENCE)],
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="What to list (default: the top).")] = "",
    as_json: Json = False,
) -> None:
    """List the entries of a catalog, a space or a bundle."""
    from holo.api import Hololib
    from holo.cli import answers, render

    found = Hololib().ls(reference, path)
    render.document({"entries": [entry._asdict() for entry in found]}) if as_json else answers.entries(found)


@command("cat", _GROUP, ["holo cat app pyvenv.cfg", "holo cat job-1 bin/activate | diff - bin/activate"])
def print_content(
    reference: Annotated[str, typer.Argument(metavar="REF", help=_REFERENCE)],
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file.")],
    as_json: Json = False,
) -> None:
    """Print a file in a catalog, a space or a bundle."""
    from holo.api import Hololib
    from holo.cli import answers

    answers.content(path, Hololib().cat(reference, path), as_json)


@command("history", _GROUP, ["holo history job-1"])
def history(name: SpaceToAsk = None, space: SpaceOption = None, as_json: Json = False) -> None:
    """Show when a space was made and restored, and by which command."""
    from holo.api import Hololib
    from holo.cli import answers, render

    found = Hololib().history(one_name(name, space))
    render.document(found.to_json()) if as_json else answers.history(found)
