"""The command line: parse, call :class:`holo.Hololib`, render. No logic, no filesystem calls.

Start-up is paid at every prompt of a shell that evaluates ``holo variables``, so nothing that takes time is imported
here: not even Typer, which the commands in :mod:`holo.cli.fast` do without. Each command imports what it uses.
"""

from holo.cli.program import main

__all__ = ["main"]
