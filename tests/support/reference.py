"""What is made from the code: the table that completion reads, the man pages, and pages of the site.

``python -m support.reference`` in ``tests/`` writes the table, and the man pages to a folder if one is named.
"""

from __future__ import annotations

import ast
import enum
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer.main
import typer.testing

import holo
from holo.cli.commands import load_all
from holo.settings import Strategy, load

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "holo" / "completion" / "table.py"

COMMANDS: Any = typer.main.get_command(load_all())

_KINDS = {
    "A": "SPACE|CATALOG|FILE",
    "B": "SPACE|CATALOG|FILE",
    "CATALOG": "CATALOG",
    "COMMAND": "COMMAND",
    "DIR": "DIRECTORY",
    "DST": "FILE",
    "FILE": "FILE",
    "KEY": "FILE",
    "PATH": "FILE",
    "REF": "CATALOG",
    "REMOTE": "DIRECTORY",
    "SOURCE": "CATALOG|FILE",
    "SPACE": "SPACE",
    "SRC": "FILE",
}
"""What completion offers where the help shows a word in capitals. Of the words of others it knows nothing."""

_INSIDE = ("ls", "cat")
"""Commands for what is inside a catalog, a space or a bundle, which is not read at a press of Tab."""

_OF_OPTIONS = {
    "--shell": "sh|fish|powershell",
    "--space": "SPACE",
    "--strategy": "|".join(Strategy),
}


def table() -> str:
    """The text of :mod:`holo.completion.table`."""
    lines = [
        '"""Commands and options, for :mod:`holo.completion`. Made by `make docs`."""',
        "",
        "COMMANDS = {",
        *(f"    {_quoted(name)}: {_quoted(sentence(known))}," for name, known in COMMANDS.commands.items()),
        "}",
        '"""Each with what it does."""',
        "",
        "ARGUMENTS = {",
    ]
    for name, known in COMMANDS.commands.items():
        kinds = [kind for parameter in arguments(known) for kind in _argument_kinds(parameter)]
        if name in _INSIDE:
            kinds = [_KINDS["A"], "PATH"]
        elif name == "sbom":
            kinds = [_KINDS["A"]]
        if kinds:
            lines.append(f"    {_quoted(name)}: {_tuple(kinds)},")
    lines += ["}", '"""The kinds of each argument; the last one may stand for many (*)."""', "", "OPTIONS = ("]
    order: TopologicalSorter[tuple[str, str, str]] = TopologicalSorter()
    having: dict[tuple[str, str, str], list[str]] = {}
    for name, known in COMMANDS.commands.items():
        rows = [*_rows(known)]
        for before, row in pairwise([None, *rows]):
            order.add(row, *filter(None, [before]))
            having.setdefault(row, []).append(name)
    for row in order.static_order():  # of which that of each command is a part
        lines += _option(row, " ".join(having[row]))
    lines += [
        ")",
        '"""Each with what it means, the kinds of its value if it has one, and the commands that have it."""',
        "",
    ]
    return "\n".join(lines)


def _rows(known: Any) -> Iterator[tuple[str, str, str]]:
    """The options of a command, what each means, and the kinds of its value."""
    for parameter in options(known):
        help_text, kinds = _short(parameter.help), "" if parameter.is_flag else _option_kinds(parameter)
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option in parameter.secondary_opts:
                help_text = f"Do not {help_text[0].lower()}{help_text[1:]}"
            yield option, help_text, kinds


def _option(row: tuple[str, str, str], commands: str) -> list[str]:
    """The lines of an option in the table, as the formatter has them."""
    line = f"    {_tuple([*row, commands])},"
    if len(line) <= 120:
        return [line]
    *parts, last = (f"        {_quoted(part)}" for part in textwrap.wrap(commands, 100, drop_whitespace=False))
    return ["    (", *(f"        {_quoted(each)}," for each in row), *parts, f"{last},", "    ),"]


def arguments(known: Any) -> list[Any]:
    return [parameter for parameter in known.params if parameter.param_type_name == "argument"]


def options(known: Any) -> list[Any]:
    return [parameter for parameter in known.params if parameter.param_type_name == "option" and not parameter.hidden]


def sentence(known: Any) -> str:
    """The first sentence of a command's help."""
    said: str = known.get_short_help_str(limit=1000)
    return said


def metavar(parameter: Any) -> str:
    """The word that stands for a value in the help."""
    choices = getattr(parameter.type, "choices", None)
    return parameter.metavar or ("|".join(map(str, choices)) if choices else parameter.type.name.upper())


def _argument_kinds(parameter: Any) -> list[str]:
    words = re.findall(r"[\w|]+", metavar(parameter))
    return [_kinds(word) + ("*" if parameter.nargs == -1 and word == words[-1] else "") for word in words]


def _option_kinds(parameter: Any) -> str:
    return _OF_OPTIONS.get(parameter.opts[0]) or _kinds(metavar(parameter)) or "VALUE"


def _kinds(word: str) -> str:
    return "|".join(dict.fromkeys("|".join(_KINDS.get(part, part) for part in word.split("|")).split("|")))


def _short(text: str) -> str:
    """The first sentence of an option's help, without what stands in parentheses."""
    return textwrap.shorten(re.sub(r"\s*\([^)]*\)|(?<=\w\.) .*", "", " ".join(text.split())), 90, placeholder=" ...")


def _tuple(texts: list[str]) -> str:
    return f"({', '.join(map(_quoted, texts))}{',' * (len(texts) == 1)})"


def _quoted(text: str) -> str:
    assert text.isascii(), text
    return json.dumps(text)


# -- man pages --------------------------------------------------------------------------------------------


def man_pages() -> dict[str, str]:
    """Each page of the manual by the name of its file."""
    pages = {"holo.1": _overview()}
    for name, known in COMMANDS.commands.items():
        pages[f"holo-{name}.1"] = "\n".join(
            [
                _heading(f"holo-{name}"),
                f"holo-{name} \\- {_roff(sentence(known).rstrip('.'))}",
                ".SH SYNOPSIS",
                f"\\fBholo {name}\\fR {_roff(' '.join(map(metavar, arguments(known))))} [OPTION...]",
                ".SH DESCRIPTION",
                _roff(known.help.replace("\n\n", "\n.PP\n")),
                *_explained("ARGUMENTS", [(metavar(each), each.help) for each in arguments(known)]),
                *_explained("OPTIONS", [(_spelled(each), each.help) for each in options(known)]),
                ".SH EXAMPLES",
                ".nf",
                _roff("\n".join(line.strip() for line in known.epilog.splitlines()[2:])),
                ".fi",
                ".SH SEE ALSO",
                "\\fBholo\\fR(1)",
                "",
            ]
        )
    return pages


def _overview() -> str:
    listed = [(f"holo {name}", sentence(known)) for name, known in COMMANDS.commands.items()]
    codes = [("0", "done"), ("1", "failed"), ("2", "wrong usage"), ("3", "stored content is damaged or missing")]
    return "\n".join(
        [
            _heading("holo"),
            f"holo \\- {_roff(COMMANDS.help.rstrip('.'))}",
            ".SH SYNOPSIS",
            "\\fBholo\\fR COMMAND [ARGUMENT...] [OPTION...]",
            *_explained("COMMANDS", listed),
            *_explained("EXIT STATUS", codes),
            ".SH SEE ALSO",
            ", ".join(f"\\fBholo\\-{name}\\fR(1)" for name in COMMANDS.commands),
            "",
        ]
    )


def _heading(title: str) -> str:
    return f'.TH {title.upper()} 1 "" "holo {holo.__version__}" "User Commands"\n.SH NAME'


def _explained(title: str, items: list[tuple[str, str]]) -> list[str]:
    lines = [f".TP\n\\fB{_roff(word)}\\fR\n{_roff(said)}" for word, said in items]
    return [f".SH {title}", *lines] if lines else []


def _spelled(parameter: Any) -> str:
    value = "" if parameter.is_flag else f" {metavar(parameter)}"
    return ", ".join([*parameter.opts, *parameter.secondary_opts]) + value


def _roff(text: str) -> str:
    """A text in which nothing is a request or an escape, but for the paragraphs that were put there."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\`")
    return re.sub(r"^(?!\.PP$)(?=[.'])", r"\\&", text, flags=re.MULTILINE)


# -- pages of the site ------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """The pages of the reference that are made from the code, by their path in the site."""
    return {"reference/help.md": _help(), "reference/api.md": _api(), "reference/settings.md": _settings()}


def _help() -> str:
    run = typer.testing.CliRunner()
    lines = ["# The help of every command", "What `holo help COMMAND` prints. [Commands](../commands.md) says more."]
    for name in COMMANDS.commands:
        said = run.invoke(load_all(), [name, "--help"], env={"COLUMNS": "100"}, prog_name="holo").stdout
        lines.append(f"## {name}\n\n```text\n{said.strip()}\n```")
    return "\n\n".join(lines) + "\n"


def _settings() -> str:
    rows = [
        f"| `{setting.key}` | `{setting.value}` |"
        for setting in load(environ={"HOME": "/home/ada"}).effective()
        if setting.key != "workers"  # of this machine
    ]
    example = (ROOT / "settings.example.yaml").read_text(encoding="utf-8")
    return "\n".join(
        [
            "# Every setting and its default",
            "",
            "For Ada, on Linux. [Settings](../settings.md) says what they mean.",
            "",
            "| key | default |",
            "| --- | --- |",
            *rows,
            "| `workers` | one per processor that holo may use |",
            "",
            "settings.example.yaml:",
            "",
            f"```yaml\n{example.strip()}\n```",
            "",
        ]
    )


def _api() -> str:
    lines = ["# Everything that is public", "Made from the docstrings. [The API](../api.md) tells how to use it."]
    for name in sorted(holo.__all__, key=lambda each: (each != "Hololib", each.lower())):
        known = getattr(holo, name)
        if name[0] != "_" and callable(known):
            lines += [f"## {name}", _signature(name, known), _prose(inspect.getdoc(known) or "")]
            if inspect.isclass(known):
                lines += [_fields(known), *_methods(known)]
    return "\n\n".join(filter(None, lines)) + "\n"


def _methods(known: type) -> list[str]:
    """The public methods of a class, but for those that only say the same in another form."""
    lines = []
    for name, method in vars(known).items():
        if name[0] != "_" and inspect.isfunction(method) and (said := inspect.getdoc(method)):
            lines += [f"### {known.__name__}.{name}", _signature(name, method), _prose(said)]
    return lines


def _signature(name: str, known: Any) -> str:
    if inspect.isclass(known) and (known.__doc__ is None or issubclass(known, (BaseException, tuple, enum.Enum))):
        return ""
    text = re.sub(r"'([\w. |\[\],]+)'", r"\1", str(inspect.signature(known)))
    text = re.sub(r"<function (\w+) at \w+>", r"\1", text).replace("(self, ", "(").replace("(self)", "()")
    if len(text) > 80:
        parameters, end, result = text.rpartition(") -> ")
        text = parameters.replace("(", "(\n    ", 1).replace(", ", ",\n    ") + ",\n" + end + result
    return f"```python\n{name}{text}\n```"


def _fields(known: type) -> str:
    """A table of the fields that a class declares, with the texts below them."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(known))).body
    except (OSError, TypeError):
        return ""
    assert isinstance(tree, ast.ClassDef)
    rows = []
    for field, below in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id[0] != "_":
            said = ast.get_docstring(ast.Module([below], [])) if isinstance(below, ast.Expr) else None
            typed = ast.unparse(field.annotation).replace("|", "\\|")
            rows.append(f"| `{field.target.id}` | `{typed}` | {_prose(said or '').replace(chr(10), ' ')} |")
    return "\n".join(["| field | type | |", "| --- | --- | --- |", *rows]) if rows else ""


def _prose(docstring: str) -> str:
    """A docstring as Markdown: code, and names of the code, are all that it marks."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", docstring).replace("``", "`")
    return re.sub(r"::\n\n", ":\n\n", text)


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    for folder in map(Path, sys.argv[1:]):
        folder.mkdir(parents=True, exist_ok=True)
        for name, page in man_pages().items():
            (folder / name).write_text(page, encoding="utf-8")
