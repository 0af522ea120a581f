"""One function per command: parse, call :class:`holo.Hololib`, render.

Only what is called is imported, and shown to Typer, which looks at the parameters of every command it knows for 8 ms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from holo.cli.app import app

if TYPE_CHECKING:
    import typer

_MODULES = {
    "environments": ("record", "init", "restore", "list", "delete", "spares", "clone"),
    "running": ("run", "shell", "variables"),
    "answers": ("status", "diff", "ls", "cat", "history"),
    "worktrees": ("worktree", "hook"),
    "library": ("catalogs", "sbom", "du", "gc", "check"),
    "transport": ("export", "import", "verify"),
    "remotes": ("push", "pull", "remote"),
    "machine": ("doctor", "bench", "settings", "completion", "uninstall"),
}


def is_command(name: str) -> bool:
    return any(name in names for names in _MODULES.values())


def load(name: str) -> typer.Typer:
    """The application with this one command."""
    module = next(module for module, names in _MODULES.items() if name in names)
    import_module(f"{__name__}.{module}")
    app.registered_commands = [command for command in app.registered_commands if command.name == name]
    return app


def load_all() -> typer.Typer:
    """The application with all commands, in the order in which they are listed."""
    for module in _MODULES:
        import_module(f"{__name__}.{module}")
    return app
