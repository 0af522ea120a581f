"""The Typer application, without its commands: how they are added, listed, and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from holo.cli import fast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Function = TypeVar("Function", bound=Callable[..., None])


_ELSEWHERE = {
    "activate": "variables",
    "backup": "record",
    "config": "settings",
    "create": "init",
    "exec": "run",
    "images": "catalogs",
    "install": "init",
    "log": "history",
    "new": "init",
    "prune": "gc",
    "ps": "list",
    "remove": "delete",
    "reset": "restore",
    "rm": "delete",
    "save": "record",
    "snapshot": "record",
    "snapshots": "catalogs",
    "sync": "init",
    "version": "--version",
}
"""What git, docker, restic, uv and conda call it. Not what is spelled alike is meant: `restore` by `remove`, say."""


class _Grouped(TyperGroup):
    """Lists the commands in groups, each with its first sentence."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in _ELSEWHERE:
            ctx.fail(f"no such command {args[0]!r}. Did you mean {_ELSEWHERE[args[0]]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, known in self.commands.items():
            sentence = known.get_short_help_str(limit=1000)
            groups.setdefault(getattr(known, "rich_help_panel", ""), []).append((name.ljust(width), sentence))
        for group, lines in groups.items():
            with formatter.section(group):
                formatter.write_dl(lines)


SPACE = "holo.space"
"""In the context of a command: the space that is named before ``--``."""


class SpaceBeforeCommand(TyperCommand):
    """`holo run [SPACE] [options] -- COMMAND ...`, and as before `holo run [options] COMMAND ...`.

    One word before the first ``--`` that belongs to no option names the space. If there are more, or an option that is
    not ours, the command has begun there, and the ``--`` is its own.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            before = args[: args.index("--")]
            at = _only_word(before, self._options(), frozenset(self._flags()))
            if at is not None:
                ctx.meta[SPACE] = before.pop(at)
                args = [*before, *args[args.index("--") :]]
        return super().parse_args(ctx, args)

    def _options(self) -> frozenset[str]:
        return frozenset(name for each in self.params for name in (*each.opts, *each.secondary_opts) if name[:1] == "-")

    def _flags(self) -> list[str]:
        return [
            name
            for each in self.params
            if getattr(each, "is_flag", False)
            for name in (*each.opts, *each.secondary_opts)
        ]


def _only_word(words: Sequence[str], options: frozenset[str], flags: frozenset[str]) -> int | None:
    """Where the only one is that is neither an option nor the value of one; ``None`` if there is no such."""
    found = None
    is_value = False
    for number, word in enumerate(words):
        if is_value:
            is_value = False
        elif word.startswith("-"):
            name, equals, _ = word.partition("=")
            if name not in options:
                return None
            is_value = name not in flags and not equals
        elif found is not None:
            return None
        else:
            found = number
    return found


app = typer.Typer(
    name="holo",
    cls=_Grouped,
    help="Record an environment once; restore exact private copies in milliseconds.\n\n"
    "A catalog is a recorded environment. A space is a working copy of one, restored at will.",
    epilog="`holo help COMMAND` explains a command.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(
    name: str,
    group: str,
    examples: Sequence[str],
    *,
    options_anywhere: bool = True,
    passes_options: bool = False,
    cls: type[TyperCommand] = TyperCommand,
) -> Callable[[Function], Function]:
    """Add a function as a command. ``options_anywhere``: also behind an argument.

    ``passes_options``: those that it does not know are arguments, for another program.
    """
    return app.command(
        name,
        cls=cls,
        rich_help_panel=group,
        epilog="\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in examples)]),
        context_settings={"allow_interspersed_args": options_anywhere, "ignore_unknown_options": passes_options},
    )


def _show_version(wanted: bool) -> None:
    if wanted:
        fast.version()
        raise typer.Exit


@app.callback()
def _holo(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
