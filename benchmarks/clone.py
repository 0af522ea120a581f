"""Measure `holo clone` beside `cp -a --reflink=auto` on Btrfs, XFS and ext4. Linux, as root; README.md says how."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import trees
from commands import Tools
from filesystems import Filesystem, mounted
from filesystems import run as call
from measure import Case, FailedError, Timing, alternate, execute
from program import heading, note, parser, table, verdict
from run import scale, start

PEER = "cp -a --reflink=auto"
TARGETS = {"btrfs, subvolume": 0.1, "btrfs": 0.55, "xfs": 0.55, "ext4": 0.7}  # times the peer's


def cases(filesystem: Filesystem, tools: Tools) -> Iterator[tuple[str, Case]]:
    """Every command, with the row it belongs to; each copies the same environment to the same place."""
    environment, target = filesystem.root / "env", filesystem.root / "copy"
    execute(tools.install(environment, tools.cache, "copy", offline=True), tools.environment)
    settings = tools.environment | {"XDG_CONFIG_HOME": str(filesystem.root / "config")}  # there is none
    sources = {filesystem.name: environment}
    if filesystem.name == "btrfs":
        subvolume = filesystem.root / "subvolume"
        call("btrfs", "subvolume", "create", subvolume)
        execute(["cp", "-a", f"{environment}/.", str(subvolume)], tools.environment)
        sources["btrfs, subvolume"] = subvolume
    expected = trees.count(environment)

    def after() -> None:
        made = trees.count(target)
        if (made.files, made.symlinks, made.directories) != (expected.files, expected.symlinks, expected.directories):
            raise FailedError(f"{target} is not a copy: {made}, not {expected}")
        filesystem.remove(target)

    for row, source in sources.items():
        for name, command in (
            ("holo clone", [*tools.holo, "clone", str(source), str(target)]),
            ("holo clone --relocate", [*tools.holo, "clone", "--relocate", str(source), str(target)]),
            (PEER, [*PEER.split(), str(source), str(target)]),
        ):
            reports = name.startswith("holo")
            yield row, Case(f"{row}: {name}", command, settings, after=after, reports=reports)


def measure(filesystem: Filesystem, tools: Tools, rounds: int) -> list[list[str]]:
    """The lines of the table for one filesystem."""
    found = list(cases(filesystem, tools))
    timings = alternate([case for _, case in found], rounds, filesystem.settle, note)
    lines = []
    for row in dict.fromkeys(row for row, _ in found):
        peer = timings.get(f"{row}: {PEER}")
        for name in ("holo clone", "holo clone --relocate"):
            timing = timings.get(f"{row}: {name}")
            if peer is not None and timing is not None:
                lines.append(line(row, name, timing, peer, TARGETS[row] if name == "holo clone" else None))
    return lines


def line(row: str, name: str, timing: Timing, peer: Timing, target: float | None) -> list[str]:
    seconds, against = statistics.median(timing.seconds), statistics.median(peer.seconds)
    ok = None if target is None else seconds <= target * against
    spread = f"{min(timing.seconds):.3f}-{max(timing.seconds):.3f}"
    ratio = f"{seconds / against:.2f}x"
    aim = "" if target is None else f"{target:g}x"
    return [row, f"{name} ({timing.used})", f"{seconds:.3f}", spread, f"{against:.3f}", ratio, aim, verdict(ok)]


def measure_all(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print."""
    tools = Tools.find(options.holo, workspace, options.quick)
    lines: list[list[str]] = []
    for name in options.filesystems:
        with mounted(name, workspace, scale(options).image) as filesystem:
            lines += measure(filesystem, tools, options.rounds)
    heading(tools.versions(), f"Medians of {options.rounds} rounds, beside {PEER}.")
    table(["on", "holo", "s", "least-most", "cp s", "ratio", "at most", ""], lines)
    return True


if __name__ == "__main__":
    sys.exit(start(measure_all, parser(__doc__)))
