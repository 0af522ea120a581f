"""The command line: parse, call :class:`holo.Hololib`, render. No logic, no filesystem calls.

Start-up is paid at every prompt of a shell that evaluates ``holo variables``, so this module imports Typer
and nothing else; each command imports what it uses.
"""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from holo import __version__, signals, streams
from holo.errors import INTERRUPTED, HoloError, IntegrityError, UsageError, advice, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holo.api import Hololib
    from holo.space import Space
    from holo.uninstall import UninstallReport

app = typer.Typer(
    name="holo",
    help="Record an environment once; restore exact private copies of it in milliseconds.",
    epilog="`holo help COMMAND` explains a command.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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


class _CommandEnded(Exception):
    """The user's command has ended. Its exit code is ours, whatever it is: 130 as well."""

    def __init__(self, code: int) -> None:
        self.code = code


def main() -> NoReturn:
    """The entry point: run the command, and turn every failure into one message and an exit code."""
    gc.disable()  # a command ends before garbage matters, and looking for it among all rows takes long
    signals.install_handlers()
    _print_every_name()
    called = _register_only(sys.argv[1:2])
    try:
        streams.prepare()
        code = _run()
    except _CommandEnded as ended:
        code = ended.code
    except HoloError as error:
        if isinstance(error, streams.Unwritten) and error.is_unwanted:
            code = 141  # what SIGPIPE would have said
        else:
            code = _fail(error.message, error.hint, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _interrupted()
    except MemoryError:
        code = _fail("out of memory", "Run it again with fewer `workers` (settings.yaml).", 1)
    except OSError as error:
        code = _fail(f"{error.filename or 'a file'}: {error.strerror or error}", advice(error), 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # the argument parser's
            message = error.format_message()
            message = message[:1].lower() + message[1:].removesuffix(".")
            code = _fail(message, f"See `{called} --help`.", UsageError.exit_code)
        elif sys.flags.dev_mode:
            raise
        else:
            code = _fail(
                f"{type(error).__name__}: {error}", "This is a mistake in holo. `python -X dev -m holo` shows where.", 1
            )
    import os

    os._exit(code if isinstance(code, int) else 0)


def _print_every_name() -> None:
    """What the encoding of stdout does not have is escaped, as on stderr: it is no failure of what was done."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run() -> object:
    """Run the command; what it returns, as an exit code if it is a number."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    code = app(arguments, prog_name="holo", standalone_mode=False)
    if code == 130:  # what some versions of Typer make of Ctrl-C, without a word
        return _interrupted()
    sys.stdout.flush()
    return code


def _register_only(called: list[str]) -> str:
    """Typer looks at the parameters of all commands it knows, 8 ms long: let it know the one that is called.

    Returns how that is called.
    """
    found = [
        info for info in app.registered_commands if [info.name or getattr(info.callback, "__name__", "")] == called
    ]
    if found or called in (["--version"], ["-V"]):
        app.registered_commands = found
    return " ".join(["holo", *called]) if found else "holo"


def _interrupted() -> int:
    signals.ignore()  # impatience would cut the explanation short
    return _fail(INTERRUPTED, None, signals.code_of_interrupt())


def _fail(message: str, hint: str | None, code: int) -> int:
    streams.say(f"error: {message}")
    if hint:
        streams.say(f"hint: {hint}")
    return code


@contextmanager
def _reporting(*, is_done: bool = True) -> Iterator[None]:
    """Print the report of work that is done. The exit code is of the work: a report that is lost is a warning.

    Where nothing was done, but to find out what is printed, its loss is a failure.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        if not is_done:
            raise
    except streams.Unwritten as lost:
        if not is_done:
            raise
        if not lost.is_unwanted:
            streams.say(f"warning: {lost.message}. The report is lost, but what it reports is done.")
    signals.ignore()  # the work is done and told: nothing is left that could be interrupted


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"holo {__version__}")
        raise typer.Exit


@app.callback()
def _holo(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def record(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The tree to record.")],
    name: Annotated[
        Optional[str], typer.Option("--name", help="Name of the catalog (default: the directory's).")
    ] = None,
    skip_special: Annotated[bool, typer.Option("--skip-special", help="Leave out sockets, fifos and devices.")] = False,
    keep_setid: KeepSetid = False,
    as_json: Json = False,
) -> None:
    """Record a directory tree as a catalog."""
    from holo.api import Hololib
    from holo.cli import render

    with render.progress("recording", as_json) as on_progress:
        report = Hololib().record(
            directory, name, skip_special=skip_special, keep_setid=keep_setid, on_progress=on_progress
        )
    for warning in report.warnings:
        render.warn(warning)
    with _reporting():
        render.document(report.to_json()) if as_json else render.recorded(report)


@app.command()
def init(
    space: SpaceName,
    source: Annotated[
        Optional[str],
        typer.Argument(
            help="Catalog name or digest prefix, catalog file, directory (recorded first) or blueprint "
            "(default: the nearest blueprint, else the only catalog)."
        ),
    ] = None,
    to: To = None,
    strategy: StrategyName = None,
    strict: Strict = False,
    verify: Verify = False,
    force: Force = False,
    yes: Yes = False,
    keep_setid: KeepSetid = False,
    compiled: Compile = None,
    as_json: Json = False,
) -> None:
    """Make a space of a catalog, a directory or a blueprint."""
    from holo.api import Hololib
    from holo.cli import render

    with render.progress("restoring", as_json) as on_progress:
        report = Hololib().init(
            space,
            source,
            to=to,
            strategy=strategy,
            strict=strict,
            verify=verify,
            force=force,
            yes=yes,
            keep_setid=keep_setid,
            compile=compiled,
            on_progress=on_progress,
        )
    with _reporting():
        render.restored(report, as_json)


@app.command()
def restore(
    space: SpaceToRestore = None,
    catalog: Annotated[
        Optional[str], typer.Option("--catalog", metavar="REF", help="Turn it into this catalog.")
    ] = None,
    to: To = None,
    strategy: StrategyName = None,
    strict: Strict = False,
    verify: Verify = False,
    force: Force = False,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a space back to pristine, or turn it into another catalog."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    if dry_run:
        planned = library.dry_run(
            space, catalog=catalog, to=to, strategy=strategy, strict=strict, verify=verify, force=force, yes=yes
        )
        render.document(planned.to_json()) if as_json else render.planned(planned)
        return
    with render.progress("restoring", as_json) as on_progress:
        report = library.restore(
            space,
            catalog=catalog,
            to=to,
            strategy=strategy,
            strict=strict,
            verify=verify,
            force=force,
            yes=yes,
            on_progress=on_progress,
        )
    with _reporting():
        render.restored(report, as_json)


@app.command()
def variables(
    space: SpaceToWorkIn = None,
    shell: Annotated[str, typer.Option("--shell", help="sh, fish or powershell.")] = "sh",
    force: Unfit = False,
    as_json: Json = False,
) -> None:
    """Print the variables that make a space the current environment, as shell code."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    found = library.space_to_run_in(space, force=force)
    render.document(library.variables(found)) if as_json else render.raw(library.shell_code(found, shell))


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND ...", help="The command and its arguments.")],
    space: SpaceToWorkIn = None,
    blueprint: Annotated[
        Optional[str], typer.Option("--blueprint", metavar="FILE", help="Run in a space of what this file asks for.")
    ] = None,
    compiled: Compile = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="In a pristine environment at the space's path, gone afterwards.")
    ] = False,
    catalog: Annotated[
        Optional[str], typer.Option("--catalog", metavar="REF", help="With --ephemeral: of this catalog.")
    ] = None,
    keep: Annotated[
        Optional[str], typer.Option("--keep", metavar="NAME", help="With --ephemeral: make a space of the result.")
    ] = None,
    record_it: Annotated[bool, typer.Option("--record", help="With --keep: only a catalog.")] = False,
    force: Unfit = False,
) -> None:
    """Run a command in a space; its exit code is passed on."""
    from holo.api import Hololib

    if ephemeral:
        if force:
            raise UsageError("--force is for spaces", "A throw-away environment is whole: leave it out.")
        code = Hololib().run_ephemeral(
            command, space, catalog=catalog, blueprint=blueprint, compile=compiled, keep=keep, record=record_it
        )
        sys.stdout.flush()
        raise _CommandEnded(signals.exit_like(code))
    if catalog is not None or keep is not None or record_it:
        raise UsageError("--catalog, --keep and --record are for throw-away environments", "Add --ephemeral.")
    library = Hololib()
    found = library.space_to_run_in(space, blueprint, compile=compiled, force=force)
    _warn_of_hidden_modules(library, found)
    sys.stdout.flush()
    raise _CommandEnded(library.run_in(found, command))


@app.command()
def shell(space: SpaceToWorkIn = None, force: Unfit = False) -> None:
    """Start a shell in a space; its exit code is passed on."""
    from holo.api import Hololib

    library = Hololib()
    found = library.space_to_run_in(space, force=force)
    _warn_of_hidden_modules(library, found)
    raise _CommandEnded(library.run_in(found))


def _warn_of_hidden_modules(library: Hololib, space: Space) -> None:
    warning = library.hidden_modules(space)
    if warning is not None:
        from holo.cli import render

        render.warn(warning)


@app.command("list")
def list_spaces(as_json: Json = False) -> None:
    """List the spaces."""
    from holo.api import Hololib
    from holo.cli import render

    spaces = Hololib().spaces()
    if as_json:
        render.document({"spaces": [space.to_json() for space in spaces]})
    else:
        render.columns(
            ("SPACE", "CATALOG", "STATE", "PATH"),
            [(space.name, space.catalog, space.shown_state, space.path) for space in spaces],
        )


@app.command()
def delete(
    name: Annotated[
        Optional[str],
        typer.Argument(metavar="[SPACE]", help="Name of the space (default: the nearest .venv or node_modules)."),
    ] = None,
    space: Annotated[Optional[str], typer.Option("--space", help="The same.")] = None,
    as_json: Json = False,
) -> None:
    """Delete a space."""
    from holo.api import Hololib
    from holo.cli import render

    if name is not None and space is not None:
        raise UsageError("two spaces are named", "Name one: `holo delete SPACE`.")
    gone = Hololib().delete(name if name is not None else space)
    if gone.state == "damaged":
        render.warn(
            f"what holo knew about space {gone.name} was damaged: if the space was not at {gone.path}, its directory "
            "is still there"
        )
    with _reporting():
        if as_json:
            render.document({"space": gone.name, "path": gone.path})
        else:
            print(f"deleted space {gone.name} at {printable(gone.path)}")


@app.command()
def catalogs(
    reference: Annotated[Optional[str], typer.Argument(metavar="[REF]", help="Only this catalog.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Print the log of its build.")] = False,
    remove: Annotated[Optional[str], typer.Option("--remove", metavar="REF", help="Remove this catalog.")] = None,
    as_json: Json = False,
) -> None:
    """List the catalogs, remove one, or print the log of one that was built from a blueprint."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    if log:
        if reference is None:
            raise UsageError("--log needs a catalog", "Name it: holo catalogs NAME --log")
        render.log(library.build_log(reference), as_json)
        return
    if remove is not None:
        name, digest = library.remove_catalog(remove)
        if orphans := library.spaces_without_catalog(digest):
            names = ", ".join(space.name for space in orphans)
            render.warn(f"spaces of this catalog stay, but cannot be restored any more: {names}")
        with _reporting():
            if as_json:
                render.document({"name": name, "digest": digest})
            else:
                print(f"removed catalog {name} ({digest[:12]})")
        return
    render.catalogs(library.catalogs(reference), library.golden_trees(), as_json)


@app.command("gc")
def collect_garbage(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    keep_days: Annotated[
        Optional[int], typer.Option("--keep-days", metavar="N", min=0, help="Remove catalogs not used in N days.")
    ] = None,
    keep_last: Annotated[
        Optional[int], typer.Option("--keep-last", metavar="N", min=0, help="Remove all but the N catalogs last used.")
    ] = None,
    max_size: Annotated[
        Optional[str],
        typer.Option("--max-size", metavar="SIZE", help="Remove the catalogs used longest ago until it fits (20GB)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove what no catalog needs, and catalogs by their last use."""
    from holo.api import Hololib
    from holo.cli import render

    report = Hololib().gc(dry_run=dry_run, keep_days=keep_days, keep_last=keep_last, max_size=max_size)
    with _reporting(is_done=not dry_run):
        render.document(report.to_json()) if as_json else render.collected(report)


@app.command()
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Move away what is bad, and restore it from what is at hand.")
    ] = False,
    source: Annotated[
        Optional[list[str]],
        typer.Option("--from", metavar="PATH", help="A library or directory to repair from (repeatable)."),
    ] = None,
    space: Annotated[
        Optional[list[str]],
        typer.Option(
            "--space",
            metavar="NAME",
            help="Compare this space with its catalog, too (repeatable; default: the nearest .venv and node_modules).",
        ),
    ] = None,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt", help="Instead, let the spaces elsewhere of a home that was copied belong to this copy (--space)."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Read everything in the library, and say what is damaged."""
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
    with render.progress("checking", as_json) as on_progress:
        report = Hololib().check(repair=repair, sources=source or (), spaces=space or None, on_progress=on_progress)
    with _reporting():
        render.document(report.to_json()) if as_json else render.checked(report)
    if not report.is_sound:
        raise typer.Exit(IntegrityError.exit_code)


@app.command()
def doctor(
    directory: Annotated[Optional[str], typer.Argument(metavar="DIR", help="Where spaces will be.")] = None,
    as_json: Json = False,
) -> None:
    """Show what the library and a folder can do together, how fast, and what to change."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    diagnosis = library.diagnose(directory)
    golden = len(library.golden_trees())
    if as_json:
        render.document(diagnosis.to_json() | {"golden_trees": golden})
    else:
        render.diagnosis(diagnosis, golden)


@app.command()
def bench(
    directory: Annotated[
        Optional[str], typer.Argument(metavar="DIR", help="The tree to measure with (default: a generated one).")
    ] = None,
    output: Annotated[Optional[str], typer.Option("--output", metavar="FILE", help="Write a chart as SVG.")] = None,
    as_json: Json = False,
) -> None:
    """Measure record and restore on this disk, beside cp."""
    from holo.api import Hololib
    from holo.cli import chart, render

    if output is not None:
        chart.check(output)
    with render.progress("measuring", as_json) as on_progress:
        report = Hololib().bench(directory, on_progress=on_progress)
    if output is not None:
        chart.save(report, output)
    if as_json:
        render.document(report.to_json())
    else:
        chart.table(report)
        chart.bars(report)


@app.command()
def clone(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The directory to clone.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The place of the clone, where nothing is yet.")],
    relocate: Annotated[
        bool, typer.Option("--relocate", help="Patch the path of SRC inside the files and symlinks, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Clone a directory tree: a snapshot, reflinks, or copies. No library is needed."""
    from holo.cli import render
    from holo.cloning import clone

    report = clone(source, target, relocate=relocate)
    for warning in report.warnings:
        render.warn(warning)
    with _reporting():
        render.document(report.to_json()) if as_json else render.cloned(report)


@app.command()
def settings(as_json: Json = False) -> None:
    """Show every setting, its value and where that comes from."""
    from holo.api import Hololib
    from holo.cli import render

    loaded = Hololib().settings
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


@app.command()
def uninstall(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the spaces, too, without a question.")] = False,
    as_json: Json = False,
) -> None:
    """Remove all that holo ever made: the library, and after a question the spaces."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    report = library.uninstall(spaces=True, dry_run=True)
    if not dry_run:
        wanted = yes or (bool(report.spaces) and _ask_for_spaces(report, as_json))
        report = library.uninstall(spaces=wanted)
    with _reporting(is_done=not dry_run):
        render.document(report.to_json()) if as_json else render.uninstalled(report)
    if report.failed:
        raise typer.Exit(HoloError.exit_code)


def _ask_for_spaces(planned: UninstallReport, as_json: bool) -> bool:
    from holo.cli import render

    number = render.count(len(planned.spaces), "space")
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"{number} would go as well, with all that was done in them, and nobody can be asked",
            "Add --yes if that is right. `holo uninstall --dry-run` shows all that would go.",
        )
    for space in planned.spaces:
        streams.say(f"space {space.name} at {space.path}")
    return typer.confirm(f"Delete {number}, too, with all that was done there?", err=True)
