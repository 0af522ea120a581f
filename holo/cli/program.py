"""The program: run the command that was called, and turn every failure into one message and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

from holo import signals, streams
from holo.cli import fast, output
from holo.errors import INTERRUPTED, HoloError, UsageError, advice


def main() -> NoReturn:
    """The entry point: run the command, and turn every failure into one message and an exit code."""
    gc.disable()  # a command ends before garbage matters, and looking for it among all rows takes long
    signals.install_handlers()
    _print_every_name()
    try:
        streams.prepare()
        code = _run(sys.argv[1:])
    except fast.CommandEnded as ended:
        code = ended.code
    except HoloError as error:
        if isinstance(error, streams.Unwritten) and error.is_unwanted:
            code = 141  # what SIGPIPE would have said
        else:
            code = _fail(error.message, error.hint, error.exit_code)
    except KeyboardInterrupt:
        code = _interrupted()
    except MemoryError:
        code = _fail("out of memory", "Run it again with fewer `workers` (settings.yaml).", 1)
    except OSError as error:
        file = error.filename if isinstance(error.filename, str) and error.filename else "a file"
        code = _fail(f"{file}: {error.strerror or error}", advice(error), 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # the argument parser's
            message = error.format_message().partition(" Choose from:")[0]  # as the argument's name does
            message = message[:1].lower() + message[1:].removesuffix(".")
            code = _fail(message, f"See `{_called()} --help`.", UsageError.exit_code)
        elif sys.flags.dev_mode:
            raise
        else:
            code = _fail(
                f"{type(error).__name__}: {error}", "This is a mistake in holo. `python -X dev -m holo` shows where.", 1
            )
    os._exit(code if isinstance(code, int) else 0)


def _print_every_name() -> None:
    """What the encoding of stdout does not have is escaped, as on stderr: it is no failure of what was done."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> object:
    """Run the command; what it returns, as an exit code if it is a number."""
    plain = fast.recognised(arguments)
    code = plain() if plain is not None else _run_by_typer(arguments)
    sys.stdout.flush()
    return code


def _run_by_typer(arguments: list[str]) -> object:
    import typer

    from holo.cli import commands

    is_command = bool(arguments) and commands.is_command(arguments[0])
    app = commands.load(arguments[0]) if is_command else commands.load_all()
    if arguments[:1] == ["help"]:
        arguments = [*(word for word in arguments if word != "help"), "--help"]
    try:
        code = app(arguments, prog_name="holo", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if code == 130:  # what some versions of Typer make of Ctrl-C, without a word
        raise KeyboardInterrupt
    return code


def _called() -> str:
    """The command that was called, as it is to be named."""
    from holo.cli import commands

    name = "".join(sys.argv[1:2])
    return f"holo {name}" if commands.is_command(name) else "holo"


def _interrupted() -> int:
    signals.ignore()  # impatience would cut the explanation short
    return _fail(INTERRUPTED, None, signals.code_of_interrupt())


def _fail(message: str, hint: str | None, code: int) -> int:
    streams.say(message, output.coloured("error:", "red", sys.stderr) + " ")
    if hint:
        streams.say(f"hint: {hint}")
    with suppress(Exception):  # whoever reads it has gone, or what tells of commands cannot be loaded
        if not output.has_document and _wants_json():
            import json

            output.has_document = True
            print(json.dumps({"error": {"message": message, "hint": hint, "code": code}}))
            sys.stdout.flush()
    return code


def _wants_json() -> bool:
    """Whether the command that was called was to print one JSON document. What follows ``--`` is another program's."""
    arguments = sys.argv[1:]
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    if "--json" not in arguments[1:]:
        return False
    return fast.recognised(arguments) is not None or _takes_json()


def _takes_json() -> bool:
    """Whether the command that was called has that option."""
    from inspect import signature

    from holo.cli.app import app

    callbacks = [known.callback for known in app.registered_commands if known.callback is not None]
    return len(callbacks) == 1 and "as_json" in signature(callbacks[0]).parameters
