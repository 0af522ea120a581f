"""Running holo the way a user does: a process of its own, with nothing of the caller's settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Argument = str | bytes | os.PathLike[str]

# What changes what holo or Python does, and so must not come from whoever runs the tests.
FOREIGN = ("HOLO_", "RCC_", "XDG_", "VIRTUAL_ENV", "CONDA", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


@dataclass(frozen=True)
class Result:
    """What a finished command left: its exit code and what it printed."""

    command: list[Argument]
    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """The one JSON document on stdout."""
        try:
            return json.loads(self.stdout)
        except json.JSONDecodeError as error:
            raise AssertionError(f"not one JSON document ({error}):\n{self.stdout}") from error


class Holo:
    """`holo(*arguments)` runs the command line with its own HOLO_HOME and an empty settings file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.library = self.home / "hololib"
        self.holotree = self.home / "holotree"
        self.settings = root / "settings.yaml"
        self.settings.touch()
        self.launcher: tuple[Argument, ...] = ()
        """the beginning of every command line: a program that runs the rest of it"""

    def __call__(
        self,
        *arguments: Argument,
        code: int = 0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> Result:
        """Run to the end and require the exit code. No failure may show as a traceback."""
        process = self.start(*arguments, env=env, cwd=cwd)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"holo {arguments} hung:\n{stderr}") from None
        result = Result(list(arguments), process.returncode, stdout, stderr)
        shown = f"holo {' '.join(map(str, arguments))}: exit {result.code}, not {code}\n{stdout}\n{stderr}"
        assert "Traceback" not in stderr, shown
        assert result.code == code, shown
        return result

    def start(
        self, *arguments: Argument, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start it and leave the rest to the caller."""
        return subprocess.Popen(
            [*self.launcher, sys.executable, "-m", "holo", *arguments],
            env=self.environment(env),
            cwd=cwd or self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )

    def listed(self) -> dict[str, dict[str, Any]]:
        """The spaces by name, in the order of `holo list`."""
        return {space["name"]: space for space in self("list", "--json").json()["spaces"]}

    def path_of(self, space: str) -> Path:
        """Where a space is, as `holo list` says."""
        return Path(self.listed()[space]["path"])

    def has_made_nothing(self) -> bool:
        """Whether there is neither a space nor a catalog, nor the stage of a build."""
        catalogs = self("catalogs", "--json").json()["catalogs"]
        return not self.listed() and not catalogs and not [*self.holotree.glob(".build-*")]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a command: the caller's without what is foreign, and what is ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        own = {"HOLO_HOME": str(self.home), "HOLO_SETTINGS": str(self.settings)}
        return {**kept, **own, **(more or {})}


STOPS = """
import importlib, sys
module, _, name = sys.argv.pop(1).rpartition(".")
module = importlib.import_module(module)
function = getattr(module, name)

def wait(*arguments, **options):
    print("here", flush=True)
    sys.stdin.read()
    return function(*arguments, **options)

setattr(module, name, wait)
from holo.__main__ import main
main()
"""


def start_until(holo: Holo, function: str, *arguments: Argument) -> subprocess.Popen[str]:
    """Start it, and return when it is about to call a function, by the name that its caller has for that.

    It goes on when its standard input is closed, as `communicate` does.
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "utf8", "-c", STOPS, function, *arguments],
        env=holo.environment(),
        cwd=holo.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "here\n":
        raise AssertionError(process.communicate())
    return process


PATIENCE = 60.0
"""Seconds."""


def eventually(is_so: Callable[[], object]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def another_boot(folder: Path) -> tuple[Argument, ...]:
    """A launcher for a command that is to run as after a restart of the system; `folder` is any. Takes root.

    Linux has the identity of the boot in a file, and a process can be shown another file there.
    """
    identity = folder / "boot_id"
    identity.write_text("00000000-1111-2222-3333-444444444444\n")
    script = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, identity)
