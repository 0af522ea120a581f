"""What a throw-away environment costs from start to exit, for a small and a large one. Linux, as root."""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import trees
from filesystems import Filesystem, mounted
from measure import Case, FailedError, alternate, execute
from program import GIGABYTE, heading, note, parser, run, table

SIZES = (2_000, 22_000)
AT_MOST = 1.3  # times the small one's, for the large one
AT_ONCE = 20
USER = 1001
IMAGE = 4 * GIGABYTE


@dataclass(frozen=True)
class Home:
    """A library with one environment as a space, and who uses it."""

    filesystem: Filesystem
    files: int
    user: int
    holo: list[str]

    @property
    def root(self) -> Path:
        return self.filesystem.root / f"{self.files}-{self.user}"

    @property
    def environment(self) -> dict[str, str]:
        dropped = ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "CONDA_PREFIX")
        kept = {key: value for key, value in os.environ.items() if key not in dropped and not key.startswith("HOLO_")}
        return {**kept, "HOLO_HOME": str(self.root / "home"), "HOME": str(self.root)}

    def command(self, *arguments: str | Path) -> list[str]:
        become = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"] if self.user else []
        return [*become, *self.holo, *map(str, arguments)]

    def run(self, *options: str) -> list[str]:
        return self.command("run", *options, "--space", "web", "--", "true")

    def make(self) -> None:
        trees.synthesize(self.root / "source", self.files)
        execute(["chown", "-R", f"{self.user}:{self.user}", str(self.root)], self.environment)
        execute(self.command("record", self.root / "source", "--name", "env"), self.environment)
        execute(self.command("init", "--space", "web", "env"), self.environment)

    def first(self) -> float:
        """Seconds of the first throw-away environment, for which all is made."""
        self.filesystem.settle()
        begin = time.perf_counter()
        execute(self.run("--ephemeral"), self.environment)
        return time.perf_counter() - begin

    def at_once(self, *options: str) -> float:
        """Seconds until the last of many is done that are started together."""
        self.filesystem.settle()
        begin = time.perf_counter()
        running = [
            subprocess.Popen(self.run(*options), env=self.environment, stdin=subprocess.DEVNULL) for _ in range(AT_ONCE)
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise FailedError(f"{AT_ONCE} at once: one of them failed")
        return time.perf_counter() - begin


def measure(filesystem: Filesystem, user: int, holo: list[str], rounds: int) -> list[list[str]]:
    """The rows of one user on one filesystem."""
    lines = []
    homes = [Home(filesystem, files, user, holo) for files in SIZES]
    firsts = []
    for home in homes:
        home.root.mkdir()
        home.make()
        firsts.append(home.first())
    # All in turn, so that what else the machine does is in all of them alike.
    cases = [
        Case(f"{home.files}{option}", home.run(*option.split()), home.environment, quick=True)
        for home in homes
        for option in ("", " --ephemeral")
    ]
    timings = alternate(cases, rounds, filesystem.settle, lambda _: None)
    medians = {name: 1000 * statistics.median(timing.seconds) for name, timing in timings.items()}
    small = medians[f"{SIZES[0]} --ephemeral"]
    for home, first in zip(homes, firsts, strict=True):
        plain, thrown = medians[f"{home.files}"], medians[f"{home.files} --ephemeral"]
        many = [1000 * statistics.median(home.at_once(*option) for _ in range(3)) for option in ((), ("--ephemeral",))]
        who = "root" if user == 0 else "ordinary"
        ratio = f"{thrown / small:.2f}x {'ok' if thrown / small <= AT_MOST else 'not'}" if home is homes[-1] else ""
        numbers = [f"{plain:.1f}", f"{thrown:.1f}", f"{thrown - plain:+.1f}", ratio, *(f"{each:.0f}" for each in many)]
        lines.append([filesystem.name, who, f"{home.files:,}", f"{1000 * first:,.0f}", *numbers])
    return lines


def measure_all(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print."""
    heading({}, "Milliseconds, medians. `true` is run: with holo run, and with holo run --ephemeral.")
    more = f"large/small, at most {AT_MOST}x"
    titles = ["on", "user", "files", "first", "run", "--ephemeral", "more", more, f"{AT_ONCE} at once: run"]
    lines: list[list[str]] = []
    for name in options.filesystems:
        with mounted(name, workspace, IMAGE) as filesystem:
            for user in (0, USER):
                note(f"{name}: user {user}")
                lines += measure(filesystem, user, shlex.split(options.holo), options.rounds)
    table([*titles, "--ephemeral"], lines)
    return True


if __name__ == "__main__":
    sys.exit(run(measure_all, parser(__doc__, rounds=15).parse_args(), IMAGE))
