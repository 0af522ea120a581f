"""Measure holo beside an earlier version of itself: is a row slower than it was? Linux, as root."""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from commands import HERE, Stage, Tools
from filesystems import mounted
from measure import Case, alternate
from program import heading, note, parser, table, verdict
from run import START_ROUNDS, scale, start

AT_MOST = 1.05  # times as long as before
BEFORE = "before: "
UNMEASURED = "unmeasured: "


def check_out(commit: str, folder: Path) -> list[str]:
    """That version in a folder, run by this Python."""
    repository = str(HERE.parent)
    subprocess.run(["git", "clone", "--quiet", "--shared", repository, folder], check=True)
    subprocess.run(["git", "-C", folder, "checkout", "--quiet", commit], check=True)
    return ["env", f"PYTHONPATH={folder}", sys.executable, "-P", "-m", "holo"]


def cases(before: Stage, now: Stage, only: list[str]) -> Iterator[Case]:
    """Every command of holo's, or those of these names, both versions in turn.

    The earlier version runs once more before them: each is to come after the same command of the other. A new space
    on Btrfs takes a fifth longer after the removal of one than after a record.
    """
    for stages in (
        zip(before.holo("env"), now.holo("env"), strict=True),
        zip(before.starts(), now.starts(), strict=True),
    ):
        for old, new in stages:
            if new.command[: len(now.tools.holo)] == now.tools.holo and (not only or new.name in only):
                yield replace(old, name=UNMEASURED + old.name)
                yield new
                yield replace(old, name=BEFORE + old.name)


def measure(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print; whether no row is slower."""
    checkout = check_out(options.before, workspace / "before")
    here = ["env", f"PYTHONPATH={HERE.parent}", *checkout[2:]]  # the same way to start, so that only holo differs
    tools = Tools.find(shlex.join(here), workspace, options.quick)
    lines = []
    slower = False
    for name in options.filesystems:
        with mounted(name, workspace, scale(options).image) as filesystem:
            earlier = Stage(filesystem, replace(tools, holo=checkout), "before")
            found = list(cases(earlier, Stage(filesystem, tools, "now"), options.only))
            timings = alternate([case for case in found if not case.quick], options.rounds, filesystem.settle, note)
            quick = [case for case in found if case.quick]
            timings |= alternate(quick, options.rounds * START_ROUNDS, lambda: None, lambda _: None)
        for case in timings:
            if case.startswith(BEFORE) or BEFORE + case not in timings:
                continue
            seconds, against = (statistics.median(timings[each].seconds) for each in (case, BEFORE + case))
            ok = seconds <= AT_MOST * against
            slower |= not ok
            lines.append([name, case, f"{against:.3f}", f"{seconds:.3f}", f"{seconds / against:.2f}x", verdict(ok)])
    heading(tools.versions(), f"Medians of {options.rounds} rounds, before: {options.before}.")
    table(["on", "command", "before s", "now s", "ratio", f"at most {AT_MOST}x"], lines)
    return not slower


def main() -> int:
    """Run, print, and leave nothing behind."""
    options = parser(__doc__)
    options.add_argument("before", help="a commit")
    options.add_argument("--only", metavar="ROW", action="append", default=[], help="measure this row; repeatable")
    return start(measure, options)


if __name__ == "__main__":
    sys.exit(main())
