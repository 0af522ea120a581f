"""The command line: parse, call :class:`holo.Hololib`, render. No logic, no filesystem calls.

Start-up is paid at every prompt of a shell that evaluates ``holo variables``, so what is imported here imports Typer
and nothing else; each command imports what it uses.
"""

from holo.cli.program import main

__all__ = ["main"]
