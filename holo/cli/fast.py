"""The commands that prompts, scripts and agents call all the time, without Typer, which takes half of their time.

What they do is here, and :mod:`holo.cli.commands` calls it as well. :func:`recognised` knows the plain forms of their
command lines only: all others, as requests for help and wrong usage, are for Typer.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from holo import __version__, signals, streams
from holo.cli.output import STDOUT, reporting
from holo.errors import NotFound, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import NoReturn

    from holo import Hololib


_NO_COMMAND = 127
"""The exit code where there is no such command."""


class CommandEnded(Exception):
    """The user's command has ended. Its exit code is ours, whatever it is: 130 as well."""

    def __init__(self, code: int) -> None:
        self.code = code


class _Plain(NamedTuple):
    """What may stand in the line of a command, by the parameters of the function that it calls."""

    words: tuple[str, ...] = ()
    """what its words are, in order"""
    values: tuple[str, ...] = ()
    """options with a value"""
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """what Typer has to ask for, or to find out, where it is not given"""


_PLAIN = {
    "record": _Plain(("directory",), ("--name",), ("--json",), ("directory",)),
    "init": _Plain(
        ("space", "source"), ("--space", "--to", "--strategy"), ("--json", "--force", "--verify"), ("space", "source")
    ),
    "restore": _Plain(("space",), ("--space", "--to", "--strategy", "--catalog"), ("--json", "--force", "--verify")),
    "clone": _Plain(("source", "target"), (), ("--json", "--relocate"), ("source", "target")),
    "delete": _Plain(("space",), ("--space",), ("--json",)),
    "export": _Plain(("reference",), ("--output", "-o"), ("--compress", "--json"), ("reference", "output")),
    "import": _Plain(("file",), ("--name",), ("--json",), ("file",)),
    "list": _Plain(flags=("--json",)),
    "run": _Plain(("space",), ("--space",), ("--ephemeral",)),
    "status": _Plain(("space",), ("--space",), ("--json",)),
    "variables": _Plain(("space",), ("--space",), ("--json",)),
}

_FUNCTIONS = {"list": "list_spaces", "import": "import_file"}
"""Of the commands whose names are Python's."""

_PARAMETERS = {"--json": "as_json", "-o": "output"}
"""Of the options that are not called as their parameter is."""


def recognised(arguments: list[str]) -> Callable[[], object] | None:
    """What a plain command line calls; ``None`` if Typer has to look at it."""
    if not arguments or "_HOLO_COMPLETE" in os.environ:  # with that, Typer prints completions
        return None
    if arguments in (["--version"], ["-V"]):
        return version
    name, *words = arguments
    command: list[str] = []
    if name == "run" and "--" in words:
        end = words.index("--")
        words, command = words[:end], words[end + 1 :]
    found = _parsed(words, _PLAIN[name]) if name in _PLAIN else None
    if found is None or (name == "run" and not command):
        return None
    if name == "run":
        is_ephemeral = found.pop("ephemeral", False)
        return partial(run_ephemeral, command, **found) if is_ephemeral else partial(run, command, **found)
    if name == "export":
        return partial(export, [found.pop("reference")], **found)
    return partial(globals()[_FUNCTIONS.get(name, name)], **found)


def _parsed(words: list[str], plain: _Plain) -> dict[str, Any] | None:
    """The arguments of the function; ``None`` if there is anything else, anything twice, or something is missing."""
    found: dict[str, Any] = {}
    free: list[str] = []
    rest = iter(words)
    for word in rest:
        if word not in plain.flags and word not in plain.values:
            free.append(word)
            continue
        name = _PARAMETERS.get(word, word.removeprefix("--"))
        if name in found:
            return None
        found[name] = True if word in plain.flags else next(rest, "")
    # Which word is which shows when it is known what the options name.
    slots = [name for name in plain.words if name not in found]
    if len(free) > len(slots):
        return None
    found.update(zip(slots, free, strict=False))
    given = [value for value in found.values() if value is not True]
    if not all(given) or any(word.startswith("-") for word in given) or not found.keys() >= {*plain.needs}:
        return None
    return found


def version() -> None:
    print(f"holo {__version__}")


def run(
    command: list[str] | None,
    space: str | None = None,
    *,
    blueprint: str | None = None,
    compiled: bool | None = None,
    editable: bool | None = None,
    force: bool = False,
) -> NoReturn:
    """Run a command in a space, by default the user's shell."""
    from holo.api import Hololib

    library = Hololib()
    with _dashes_explained(library, space, command):
        found = library.space_to_run_in(space, blueprint, compile=compiled, editable_project=editable, force=force)
        # Packages may not be found, and code be found in another place than the user may think.
        for warning in (library.hidden_modules(found), library.imports_elsewhere(found)):
            if warning is not None:
                from holo.cli import render

                render.warn(warning)
        sys.stdout.flush()
        code = library.run_in(found, command)
    raise CommandEnded(code)


@contextmanager
def _dashes_explained(library: Hololib, space: str | None, command: Sequence[str] | None) -> Iterator[None]:
    """Say what two dashes are for, where the name of a space was taken for the command."""
    try:
        yield
    except NotFound as error:
        is_explained = error.hint is not None if error.exit_code == _NO_COMMAND else space is not None
        if is_explained or not command or command[0] not in {known.name for known in library.spaces()}:
            raise
        before = command[1 : command.index("--")] if "--" in command else []
        unknown = next((word for word in before if word.startswith("-")), None)
        if unknown is not None:  # it was to be an option of ours, or the command would have begun there
            hint = f"{command[0]} is a space, and {unknown} no option of `holo run`: see `holo help run`."
        else:
            hint = f"{command[0]} is a space. The command comes after two dashes: `holo run {command[0]} -- COMMAND`."
        raise type(error)(error.message, hint) from None


def run_ephemeral(
    command: list[str],
    space: str | None = None,
    *,
    catalog: str | None = None,
    blueprint: str | None = None,
    compiled: bool | None = None,
    editable: bool | None = None,
    keep: str | None = None,
    record: bool = False,
) -> NoReturn:
    """Run a command in a throw-away environment."""
    from holo.api import Hololib

    library = Hololib()
    with _dashes_explained(library, space, command):
        code = library.run_ephemeral(
            command,
            space,
            catalog=catalog,
            blueprint=blueprint,
            compile=compiled,
            editable_project=editable,
            keep=keep,
            record=record,
        )
    sys.stdout.flush()
    raise CommandEnded(signals.exit_like(code))


def variables(space: str | None = None, *, shell: str = "sh", force: bool = False, as_json: bool = False) -> None:
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    found = library.space_to_run_in(space, force=force)
    render.document(library.variables(found)) if as_json else render.raw(library.shell_code(found, shell))


def status(space: str | None = None, *, detailed: bool = False, as_json: bool = False) -> None:
    from holo.api import Hololib
    from holo.cli import answers, render

    found = Hololib().status(space)
    render.document(found.to_json()) if as_json else answers.status(found, detailed=detailed)


def list_spaces(
    *,
    order: str = "name",
    stale: str | None = None,
    measure: bool = False,
    everything: bool = False,
    as_json: bool = False,
) -> None:
    """List the spaces; with ``everything`` the spares as well."""
    from holo.api import Hololib
    from holo.cli import listing

    library = Hololib()
    found = library.space_details(stale=stale, measure=measure)
    listing.spaces(found, listing.Order(order), as_json, library.spares() if everything else None)
    if not found and not as_json and stale is None:
        streams.say(f"there is no space in {library.settings.home} yet; `holo init SPACE SOURCE` makes one")


def record(
    directory: str,
    name: str | None = None,
    *,
    skip_special: bool = False,
    keep_setid: bool = False,
    shown: str = "auto",
    as_json: bool = False,
) -> None:
    """Record a tree."""
    from holo.api import Hololib
    from holo.cli import progress, render

    with progress.progress("record", "recording", "files", form=progress.Form(shown), quiet=as_json) as on_progress:
        library = Hololib()
        report = library.record(
            directory, name, skip_special=skip_special, keep_setid=keep_setid, on_progress=on_progress
        )
    render.report(report, render.recorded, as_json, report.warnings)
    library.start_upkeep()


def init(
    space: str | None,
    source: str | None,
    *,
    to: str | None = None,
    project: str | None = None,
    strategy: str | None = None,
    strict: bool = False,
    verify: bool = False,
    force: bool = False,
    yes: bool = False,
    keep_setid: bool = False,
    compiled: bool | None = None,
    editable: bool | None = None,
    shown: str = "auto",
    as_json: bool = False,
) -> None:
    """Make a space."""
    from holo.api import Hololib
    from holo.cli import progress, render

    with progress.progress("init", "restoring", "files", form=progress.Form(shown), quiet=as_json) as on_progress:
        library = Hololib()
        report = library.init(
            space,
            source,
            to=to,
            project=project,
            strategy=strategy,
            strict=strict,
            verify=verify,
            force=force,
            yes=yes,
            keep_setid=keep_setid,
            compile=compiled,
            editable_project=editable,
            on_progress=on_progress,
        )
    render.report(report, render.restored, as_json, filter(None, (report.strategy.warning, *report.warnings)))
    library.start_upkeep()


def restore(
    space: str | None = None,
    *,
    catalog: str | None = None,
    to: str | None = None,
    strategy: str | None = None,
    strict: bool = False,
    verify: bool = False,
    force: bool = False,
    yes: bool = False,
    shown: str = "auto",
    as_json: bool = False,
) -> None:
    """Bring a space back to pristine."""
    from holo.api import Hololib
    from holo.cli import progress, render

    library = Hololib()
    with progress.progress("restore", "restoring", "files", form=progress.Form(shown), quiet=as_json) as on_progress:
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
    render.report(report, render.restored, as_json, filter(None, (report.strategy.warning, *report.warnings)))
    library.start_filling()


def clone(
    source: str,
    target: str,
    *,
    relocate: bool = False,
    maps: Sequence[str] = (),
    map_project: bool = True,
    as_json: bool = False,
) -> None:
    """Clone a tree."""
    from holo import clone as clone_tree
    from holo.cli import render

    report = clone_tree(source, target, relocate=relocate, map_project=map_project, maps=maps)
    render.report(report, render.cloned, as_json, report.warnings)


def delete(space: str | None = None, *, as_json: bool = False) -> None:
    """Remove a space."""
    from holo.api import Hololib
    from holo.cli import render

    library = Hololib()
    gone = library.delete(space)
    if gone.state == "damaged":
        render.warn(
            f"what holo knew about space {gone.name} was damaged: if the space was not at {gone.path}, its directory "
            "is still there"
        )
    elif gone.state == "replaced":
        render.warn(f"what is at {gone.path} is not space {gone.name}, which it has replaced: it stays")
    with reporting():
        if as_json:
            render.document({"space": gone.name, "path": gone.path})
        else:
            render.result(f"deleted space {gone.name} at {printable(gone.path)}")
    library.start_filling()


def export(
    references: list[str],
    output: str,
    *,
    known: Sequence[str] = (),
    compress: bool = False,
    sign: str | None = None,
    shown: str = "auto",
    as_json: bool = False,
) -> None:
    """Write catalogs into a bundle."""
    from holo.api import Hololib
    from holo.cli import progress, render
    from holo.errors import UsageError

    is_stdout = output in STDOUT
    if is_stdout and as_json:
        raise UsageError("the bundle and its report cannot both go to standard output", "Leave out --json.")
    if is_stdout and sys.stdout.isatty():
        raise UsageError("a bundle cannot be shown on a terminal", "Send it into a pipe, or name a file: -o FILE.")
    with progress.progress("export", "exporting", "blobs", form=progress.Form(shown), quiet=as_json) as on_progress:
        report = Hololib().export(
            references,
            1 if is_stdout else output,
            known=known,
            compress=compress,
            sign=sign,
            on_progress=on_progress,
        )
    if not is_stdout:
        render.report(report, render.exported, as_json)


def import_file(
    file: str | None,
    name: str | None = None,
    *,
    rcc: str | None = None,
    keep_setid: bool = False,
    shown: str = "auto",
    as_json: bool = False,
) -> None:
    """Take a bundle, or what another tool has packed, into the library."""
    from holo.api import Hololib
    from holo.cli import progress, render

    library = Hololib()
    with progress.progress("import", "importing", "blobs", form=progress.Form(shown), quiet=as_json) as on_progress:
        if rcc is not None:
            report = library.import_rcc(rcc, name, keep_setid=keep_setid, on_progress=on_progress)
        else:
            source = 0 if file is None or file == "-" else file
            report = library.import_file(source, name, keep_setid=keep_setid, on_progress=on_progress)
    render.report(report, render.imported, as_json, report.warnings)
    library.start_upkeep()
