"""Completion: what may stand where the cursor of a shell is.

The scripts beside this module call ``holo __complete INDEX WORD...`` at every press of Tab. WORD are the words behind
``holo``, and INDEX is the place among them of the one to complete, which may be missing if it is empty. The first line
of the answer says what the shell is to offer besides the lines that follow: ``names`` nothing, ``files`` or
``directories``, and ``command N`` what it offers for the command that begins with word N. Each further line is a word,
and behind a tab what it means.

A person waits, so nothing is imported that takes time: no Typer, no settings unless the home is in them in an unusual
way. The commands and options come from :mod:`holo.completion.table`, the names from file names.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from holo.completion.table import ARGUMENTS, COMMANDS, OPTIONS
from holo.userfolders import user_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHELLS = {"bash": "holo.bash", "zsh": "holo.zsh", "fish": "holo.fish", "powershell": "holo.ps1"}
"""The shells that have a script, and its file."""

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
_PLAIN = _NAME | frozenset("/~")
_SHORTEST_DIGEST = 4


class Answer(NamedTuple):
    """What may stand there."""

    how: str
    words: Iterable[tuple[str, str]] = ()
    """each with what it means"""


def script(shell: str) -> str:
    """What makes a shell complete."""
    with open(os.path.join(os.path.dirname(__file__), SHELLS[shell]), encoding="utf-8") as file:
        return file.read()


def main(arguments: Sequence[str]) -> int:
    """Print the answer. Nobody reads an error at a press of Tab, so there is nothing if something is wrong."""
    from holo.errors import HoloError

    with suppress(OSError, ValueError, HoloError):
        index, words = int(arguments[0]) if arguments else 0, arguments[1:]
        current = words[index] if index < len(words) else ""
        how, offered = answer(words[:index], current)
        lines = [how, *("\t".join(filter(None, word)) for word in offered)]
        os.write(1, "".join(f"{line}\n" for line in lines).encode())
        return 0
    return 1


def answer(before: Sequence[str], current: str) -> Answer:
    """What may stand at ``current``, behind the words ``before`` it."""
    if not before or list(before) == ["help"]:
        more = [("help", "Explain a command.")]
        return _fitting(current, _OWN if current[:1] == "-" and not before else [*COMMANDS.items(), *more])
    line = _read(before)
    if line.command:
        return Answer(f"command {line.command}")
    if line.pending:
        return _values(line.pending, current)
    if current[:1] == "-" and not line.is_behind_dashes:
        return _option(before, current)
    kinds = _argument(before[0], line.place)
    if kinds == "COMMAND":
        return Answer(f"command {len(before)}")
    return _values(kinds, current) if kinds else _option(before, current)


class _Line(NamedTuple):
    """What the words before the cursor say of the one at it."""

    place: int = 0
    """the number of arguments that are there"""
    pending: str = ""
    """the kinds of value of the option just before it"""
    is_behind_dashes: bool = False
    command: int = 0
    """where another program's command begins"""


def _read(before: Sequence[str]) -> _Line:
    # With --space, the first argument of these is the second.
    place = int(before[0] in ("init", "run") and any(word.partition("=")[0] == "--space" for word in before))
    pending, is_behind_dashes = "", False
    for number, word in enumerate(before[1:], 1):
        if pending:
            pending = ""
        elif word == "--" and not is_behind_dashes:
            is_behind_dashes = True
            place = max(place, _place_of_command(before[0]))
        elif word[:1] == "-" and word != "-" and not is_behind_dashes:
            pending = "" if "=" in word else _value(before[0], word)
        elif _argument(before[0], place) == "COMMAND":
            return _Line(command=number)
        else:
            place += 1
    return _Line(place, pending, is_behind_dashes)


_OWN = [("--help", "Show the commands."), ("--version", "Print the version.")]


def _argument(command: str, place: int) -> str:
    """The kinds of value that an argument may have. ``*`` stands for as many more as there are."""
    kinds = ARGUMENTS.get(command, ())
    if place >= len(kinds) and kinds and kinds[-1][-1:] == "*":
        place = len(kinds) - 1
    return kinds[place].removesuffix("*") if place < len(kinds) else ""


def _place_of_command(command: str) -> int:
    """The place of another program's command, or 0: it begins behind ``--`` at the latest."""
    kinds = ARGUMENTS.get(command, ())
    return kinds.index("COMMAND*") if "COMMAND*" in kinds else 0


def _options(command: str) -> dict[str, tuple[str, str]]:
    """What each option of a command means, and the kinds of its value."""
    return {option: (said, kinds) for option, said, kinds, commands in OPTIONS if command in commands.split()}


def _value(command: str, option: str) -> str:
    """The kinds of value that an option may have; nothing if it has none."""
    return _options(command).get(option, ("", ""))[1]


def _option(before: Sequence[str], current: str) -> Answer:
    option, equals, value = current.partition("=")
    if equals:
        return _values(_value(before[0], option), value, option + equals)
    known = [(name, said) for name, (said, _) in _options(before[0]).items() if name not in before]
    return _fitting(current, [*known, ("--help", "Explain this command.")])


def _fitting(current: str, words: Iterable[tuple[str, str]]) -> Answer:
    return Answer("names", [word for word in words if word[0].startswith(current)])


def _values(kinds: str, current: str, option: str = "") -> Answer:
    """What a value of these kinds may be: words are themselves, and capitals stand for what there is here."""
    current = current.lstrip("'\"")
    how = "names"
    words: list[str] = []
    for kind in kinds.split("|"):
        if kind == "FILE":
            how = "files"
        elif kind == "DIRECTORY":
            how = "directories" if how == "names" else how
        elif kind == "SPACE":
            words += _names(os.path.join(_home(), "holotree", ".spaces"), ".json")
        elif kind == "CATALOG":
            library = os.path.join(_home(), "hololib")
            words += _names(os.path.join(library, "names"), ".json")
            if len(current) >= _SHORTEST_DIGEST and not current.strip("0123456789abcdef"):
                words += _names(os.path.join(library, "catalog"), ".json")
        elif not kind.isupper():
            words.append(kind)
    return Answer(how, [(option + word, "") for word in dict.fromkeys(words) if word.startswith(current)])


def _names(folder: str, ending: str) -> list[str]:
    """The names of the files in a folder that others may write to: none that means something to a shell."""
    with suppress(OSError):
        names = [file.removesuffix(ending) for file in os.listdir(folder) if file.endswith(ending)]
        return sorted(filter(is_name, names))
    return []


def is_name(text: str) -> bool:
    """What :data:`holo.hololib.layout.NAME` says, without importing :mod:`re` and the library."""
    return 0 < len(text) <= 64 and _NAME.issuperset(text) and text[0] not in ".+-"


def _home() -> str:
    """As the settings have it: HOLO_HOME, else ``home`` in settings.yaml, else the user's folder."""
    chosen = os.environ.get("HOLO_HOME")
    if not chosen:
        folder = user_folder(os.environ, "config") or os.devnull
        file = os.environ.get("HOLO_SETTINGS") or os.path.join(folder, "settings.yaml")
        try:
            with open(file, encoding="utf-8") as opened:
                lines = [line for line in opened if "home" in line.partition("#")[0]]
        except OSError:
            lines = []
        if not lines:
            return user_folder(os.environ, "data") or os.devnull
        key, _, chosen = lines[0].strip().partition(": ")
        if len(lines) > 1 or key != "home" or not _PLAIN.issuperset(chosen):  # YAML in all its forms takes its time
            from holo.settings import load

            return load().home
    return os.path.expanduser(chosen)
