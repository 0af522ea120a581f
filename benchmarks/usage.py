"""Measure `holo du` of a space of 22,000 files, beside `btrfs filesystem du` and `du`. Linux, as root."""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import trees
from filesystems import Filesystem, mounted
from measure import Case, alternate, execute
from program import GIGABYTE, heading, note, parser, run, table, verdict

FILES = 22_000
AT_MOST = 1.0  # second, for one space
IMAGE = 4 * GIGABYTE
SPACES = ("one", "two")


def cases(filesystem: Filesystem, holo: list[str]) -> Iterator[Case]:
    """Two spaces of one catalog, made as the filesystem can, and the tree that was recorded."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HOLO_")}
    environment = {**kept, "HOLO_HOME": str(filesystem.root / "home"), "HOME": str(filesystem.root)}
    trees.synthesize(filesystem.root / "source", FILES)
    execute([*holo, "record", str(filesystem.root / "source"), "--name", "env"], environment)
    for space in SPACES:
        execute([*holo, "init", "--space", space, "env"], environment)
    (path,) = (filesystem.root / "home" / "holotree").glob("one*")
    yield Case("holo du one", [*holo, "du", "one"], environment)
    yield Case("holo du", [*holo, "du"], environment)
    if filesystem.name == "btrfs":
        yield Case("btrfs filesystem du, one", ["btrfs", "filesystem", "du", "-s", str(path)], environment)
    yield Case("du, one", ["du", "-s", str(path)], environment)


def measure(filesystem: Filesystem, holo: list[str], rounds: int) -> list[list[str]]:
    """The lines of the table for one filesystem."""
    timings = alternate([*cases(filesystem, holo)], rounds, filesystem.settle, note)
    lines = []
    for name, timing in timings.items():
        seconds = statistics.median(timing.seconds)
        is_aim = name == "holo du one"
        spread = f"{min(timing.seconds):.3f}-{max(timing.seconds):.3f}"
        ok = seconds <= AT_MOST if is_aim else None
        lines.append([filesystem.name, name, f"{seconds:.3f}", spread, f"{AT_MOST:g}" if is_aim else "", verdict(ok)])
    return lines


def measure_all(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print."""
    lines: list[list[str]] = []
    for name in options.filesystems:
        with mounted(name, workspace, IMAGE) as filesystem:
            lines += measure(filesystem, shlex.split(options.holo), options.rounds)
    heading({}, f"Seconds, medians of {options.rounds} rounds. {FILES:,} files in each of two spaces.")
    table(["on", "command", "s", "least-most", "at most", ""], lines)
    return True


if __name__ == "__main__":
    sys.exit(run(measure_all, parser(__doc__).parse_args(), IMAGE))
