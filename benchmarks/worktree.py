"""Measure how long a new git worktree waits for its .venv: holo beside `uv sync` with a warm cache. Linux, as root."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from commands import Tools
from filesystems import NAMES, Filesystem, UnavailableError, mounted
from filesystems import run as call
from measure import Case, FailedError, alternate, execute
from run import CORES, FULL, QUICK, chosen, interrupt, machine, note, table

PEER = "uv sync"
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
        ways = {
            "holo clone --relocate": f"{holo} clone --relocate {self.app}/.venv {target}",
            "holo init": f"{holo} init --space feature app --to {target}",
            PEER: f"{self.tools.uv} sync --quiet --frozen --offline",
        }
        for name, command in ways.items():
            after = partial(self._remove, target, is_space=name == "holo init")
            for ending, more in (("", ""), (" + import", f" && {target}/bin/python -c {shlex.quote(self.imports)}")):
                script = f"cd {self.feature} && {command}{more}"
                yield Case(f"{name}{ending}", ["sh", "-c", script], self.environment, after=after)

    def _remove(self, target: Path, *, is_space: bool) -> None:
        if not (target / "pyvenv.cfg").exists():
            raise FailedError(f"there is no {target}")
        if is_space:
            execute([*self.tools.holo, "delete", "--space", "feature"], self.environment)
        self.filesystem.remove(target)


def main() -> int:
    """Run, print, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filesystems", type=partial(chosen, NAMES), default=list(NAMES), help="xfs,ext4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small environment, to try the program")
    parser.add_argument("--holo", default=str(Path(sys.executable).with_name("holo")), help="command to measure")
    parser.add_argument("--work", type=Path, help="folder for the images (default: the temporary folder)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("error: filesystems are mounted here, which takes Linux and root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    lines: list[list[str]] = []
    imports = QUICK_IMPORTS if options.quick else IMPORTS
    try:
        with tempfile.TemporaryDirectory(prefix="holo-worktree-", dir=options.work) as folder:
            tools = Tools.find(options.holo, Path(folder), options.quick)
            for name in options.filesystems:
                with mounted(name, Path(folder), (QUICK if options.quick else FULL).image) as filesystem:
                    cases = list(Project(filesystem, tools, imports).cases())
                    timings = alternate(cases, options.rounds, filesystem.settle, note)
                    for case in cases:
                        peer = PEER + (" + import" if case.name.endswith(" + import") else "")
                        if case.name in timings and peer in timings and case.name != peer:
                            mine, theirs = (statistics.median(timings[each].seconds) for each in (case.name, peer))
                            lines.append([name, case.name, f"{mine:.3f}", f"{theirs:.3f}", f"{mine / theirs:.2f}x"])
    except KeyboardInterrupt:
        return 130
    except (UnavailableError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(", ".join(f"{key} {value}" for key, value in (machine() | tools.versions()).items()))
    print(f"Medians of {options.rounds} rounds, beside {PEER}; the import is `{imports}`.")
    table(["on", "holo", "s", "uv s", "ratio"], lines)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
