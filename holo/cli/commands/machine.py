"""Commands about this machine, and holo on it."""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from holo import streams
from holo.cli.app import command
from holo.cli.options import Json, Progress, Quiet
from holo.cli.progress import Form, progress
from holo.errors import HoloError, UsageError

if TYPE_CHECKING:
    from holo import UninstallReport

_GROUP = "This machine"


@command("doctor", _GROUP, ["holo doctor ~/projects"])
def doctor(
    directory: Annotated[
        Optional[str], typer.Argument(metavar="[DIR]", help="Where spaces will be (default: the holotree).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the library and a folder can do, and how fast.

    Also say what to change to make it faster.
    """
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    diagnosis = library.diagnose(directory)
    golden = len(library.golden_trees())
    if as_json:
        render.document(diagnosis.to_json() | {"golden_trees": golden})
    else:
        render.diagnosis(diagnosis, golden)


@command("bench", _GROUP, ["holo bench --output chart.svg"])
def bench(
    directory: Annotated[
        Optional[str], typer.Argument(metavar="[DIR]", help="The tree to measure with (default: a generated one).")
    ] = None,
    output: Annotated[
        Optional[str], typer.Option("--output", "-o", metavar="FILE", help="Write a chart as SVG or HTML, by its name.")
    ] = None,
    shown: Progress = Form.AUTO,
    as_json: Json = False,
) -> None:
    """Measure record and restore on this disk, beside cp."""
    from holo.api import Hololib
    from holo.cli import chart, render

    if output is not None:
        chart.check(output)
    with progress("bench", "measuring", "runs", form=shown, quiet=as_json) as on_progress:
        report = Hololib().bench(directory, on_progress=on_progress)
    if output is not None:
        chart.save(chart.picture(report), output)
    if as_json:
        render.document(report.to_json())
    else:
        chart.table(report)
        chart.bars(report)


@command("settings", _GROUP, ["holo settings"])
def settings(as_json: Json = False) -> None:
    """Show every setting, its value and where that comes from."""
    from holo.api import load_settings
    from holo.cli import render

    loaded = load_settings()  # also where no home can be used: this says where it comes from
    effective = loaded.effective()
    if as_json:
        render.document(
            {
                "settings": [{"key": item.key, "value": item.value, "source": item.source} for item in effective],
                "file": loaded.file,
            }
        )
    else:
        render.columns(("SETTING", "VALUE", "FROM"), [(item.key, str(item.value), item.source) for item in effective])


class Shell(enum.StrEnum):
    """What `holo completion` has a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


@command("completion", _GROUP, ['eval "$(holo completion bash)"', "holo completion fish | source"])
def completion(shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish|powershell", help="The shell.")]) -> None:
    """Print the script by which a shell completes holo's words."""
    from holo.completion import script

    print(script(shell), end="")


@command("uninstall", _GROUP, ["holo uninstall --dry-run"])
def uninstall(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Also delete the spaces, without asking.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Remove everything that holo made; ask before the spaces."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    report = library.uninstall(spaces=True, dry_run=True)
    if not dry_run:
        wanted = yes or (bool(report.spaces) and _ask_for_spaces(report, as_json))
        report = library.uninstall(spaces=wanted)
    render.report(report, render.uninstalled, as_json, is_done=not dry_run)
    if report.failed:
        raise typer.Exit(HoloError.exit_code)


def _ask_for_spaces(planned: UninstallReport, as_json: bool) -> bool:
    from holo.cli import render

    number = render.count(len(planned.spaces), "space")
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"{number} would be deleted as well, with all changes, and there is no terminal to ask on",
            "Add --yes to delete them. `holo uninstall --dry-run` shows everything that would be removed.",
        )
    for space in planned.spaces:
        streams.say(f"space {space.name} at {space.path}")
    return typer.confirm(f"Delete {number} as well, with all changes?", err=True)
