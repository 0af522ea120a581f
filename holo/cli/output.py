"""How much a command says, and in which colours: what only the command line knows, for whatever prints."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from holo import signals, streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

is_verbose = False
"""The user wants details (`-v`). That they want nothing is known to :mod:`holo.streams` as well."""

has_document = False
"""A JSON document was printed: there is to be no second one."""

STDOUT = frozenset({"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})
"""What a user writes for standard output where a file could be named."""

_WIDTH = 80
"""Characters in a line where there is no terminal."""

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36}


def be_verbose(wanted: bool) -> bool:
    global is_verbose  # noqa: PLW0603 - one command runs in this process, and then it ends
    is_verbose = wanted
    return wanted


def be_quiet(wanted: bool) -> bool:
    streams.be_quiet(wanted)
    return wanted


def coloured(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """In colour, if what it is printed to (stdout) shows any."""
    stream = sys.stdout if stream is None else stream
    has_colours = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if colour is not None and has_colours else text


def width() -> int:
    """The characters in a line, also where there is no terminal."""
    return terminal_width() or _WIDTH


def terminal_width() -> int | None:
    """The characters in a line of the terminal, or ``COLUMNS``; ``None`` where there is neither.

    What :func:`shutil.get_terminal_size` tells takes 2 ms to import.
    """
    with suppress(KeyError, ValueError):
        if (columns := int(os.environ["COLUMNS"])) > 0:
            return columns
    if sys.__stdout__ is not None:
        with suppress(ValueError, OSError):  # it is closed, or no terminal
            return os.get_terminal_size(sys.__stdout__.fileno()).columns or None
    return None


@contextmanager
def reporting(*, is_done: bool = True) -> Iterator[None]:
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
