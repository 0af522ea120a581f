"""Measure how long a new git worktree waits for its .venv: holo beside `uv sync` with a warm cache. Linux, as root."""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from commands import CANNOT_CLONE, Tools
from filesystems import Filesystem, mounted
from filesystems import run as call
from measure import Case, FailedError, alternate, execute
from program import heading, note, parser, table
from run import scale, start

IMPORT = " + import"
CLONE, INIT = "holo clone --relocate", "holo init"
SYNC = "uv sync"
COPY = "uv sync --link-mode=copy"  # ext4: what makes files that are private
CLAIMS = ((CLONE, SYNC), (INIT, SYNC), (CLONE, COPY), (INIT, COPY))
IMPORTS = "import pandas, sklearn, matplotlib.pyplot"
QUICK_IMPORTS = "import sympy, rich.console, requests"


class Project:
    """A project with a lock file in git, its .venv, and a second worktree that has none yet."""

    def __init__(self, filesystem: Filesystem, tools: Tools, imports: str) -> None:
        self.filesystem = filesystem
        self.tools = tools
        self.imports = imports
        self.app, self.feature = filesystem.root / "app", filesystem.root / "feature"
        nowhere = str(filesystem.root / "config")
        self.environment = tools.environment | {
            "HOLO_HOME": str(filesystem.root / "home"),
            "XDG_CONFIG_HOME": nowhere,
            "UV_CACHE_DIR": str(filesystem.root / "cache"),
            "UV_PYTHON": sys.executable,
        }
        execute(["cp", "-a", str(tools.cache), str(filesystem.root / "cache")], tools.environment)
        self.app.mkdir()
        lines = tools.requirements.read_text().splitlines()
        dependencies = [line for line in lines if line and not line.startswith("#")]
        (self.app / "pyproject.toml").write_text(
            f'[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = {dependencies}\n'
        )
        (self.app / ".gitignore").write_text(".venv\n")
        if filesystem.name == "btrfs":  # as docs/clones.md advises
            call("btrfs", "subvolume", "create", self.app / ".venv")
        self._in(self.app, tools.uv, "lock", "--quiet")
        self._in(self.app, tools.uv, "sync", "--quiet", "--frozen")
        self._in(self.app, ".venv/bin/python", "-c", imports)  # in use, so its bytecode is there
        identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
        self._in(self.app, "git", "init", "--quiet")
        self._in(self.app, "git", "add", ".")
        self._in(self.app, "git", *identity, "commit", "--quiet", "--message", "first")
        self._in(self.app, "git", "worktree", "add", "--quiet", str(self.feature))
        self._in(self.app, *tools.holo, "record", ".venv", "--name", "app")

    def _in(self, folder: Path, *command: str) -> None:
        execute(["env", "--chdir", str(folder), *command], self.environment)

    def cases(self) -> Iterator[Case]:
        """Every way to the .venv, alone and with the first import in it."""
        holo = shlex.join(self.tools.holo)
        target = self.feature / ".venv"
        sync = f"{self.tools.uv} sync --quiet --frozen --offline"
        ways = {
            CLONE: f"{holo} clone --relocate {self.app}/.venv {target}",
            INIT: f"{holo} init --space feature app --to {target}",
            SYNC: sync,
        }
        if self.filesystem.name == CANNOT_CLONE:
            ways[COPY] = f"{sync} --link-mode=copy"
        for name, command in ways.items():
            after = partial(self._remove, target, is_space=name == INIT)
            for ending, more in (("", ""), (IMPORT, f" && {target}/bin/python -c {shlex.quote(self.imports)}")):
                script = f"cd {self.feature} && {command}{more}"
                yield Case(f"{name}{ending}", ["sh", "-c", script], self.environment, after=after)

    def _remove(self, target: Path, *, is_space: bool) -> None:
        if not (target / "pyvenv.cfg").exists():
            raise FailedError(f"there is no {target}")
        if is_space:
            execute([*self.tools.holo, "delete", "--space", "feature"], self.environment)
        self.filesystem.remove(target)


def measure(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print."""
    tools = Tools.find(options.holo, workspace, options.quick)
    imports = QUICK_IMPORTS if options.quick else IMPORTS
    lines: list[list[str]] = []
    for name in options.filesystems:
        with mounted(name, workspace, scale(options).image) as filesystem:
            cases = list(Project(filesystem, tools, imports).cases())
            timings = alternate(cases, options.rounds, filesystem.settle, note)
        medians = {case: statistics.median(timing.seconds) for case, timing in timings.items()}
        for mine, peer in CLAIMS:
            for ending in ("", IMPORT):
                if {mine + ending, peer + ending} <= medians.keys():
                    seconds, against = medians[mine + ending], medians[peer + ending]
                    ratio = f"{seconds / against:.2f}x"
                    lines.append([name, mine + ending, peer + ending, f"{seconds:.3f}", f"{against:.3f}", ratio])
    heading(tools.versions(), f"Medians of {options.rounds} rounds; the import is `{imports}`.")
    table(["on", "holo", "against", "holo s", "peer s", "ratio"], lines)
    return True


if __name__ == "__main__":
    sys.exit(start(measure, parser(__doc__)))
