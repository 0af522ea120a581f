"""Measure holo beside cp and uv on Btrfs, XFS and ext4. Linux, as root; README.md says how and why."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import floor
import trees
from commands import Stage, Tools
from filesystems import NAMES, Filesystem, mounted
from measure import Case, FailedError, Timing, alternate, peak_memory
from program import GIGABYTE, chosen, heading, machine, note, parser, run, table, verdict

MEGABYTE = 1_000_000
START_ROUNDS = 10  # times as many rounds for commands of milliseconds

COW = ("btrfs", "xfs")
CLONE, LINK, COPY = "cp -a --reflink=always", "cp -al", "cp -a --reflink=never"


@dataclass(frozen=True)
class Row:
    """One claim: on these filesystems `holo` takes at most `target` times as long as `peer`."""

    number: str
    filesystems: Sequence[str]
    holo: str
    peer: str
    target: float | None = None  # nothing claimed, but worth seeing


PART_1 = (
    Row("1.1", COW, "init", CLONE, 1),
    Row("1.1", COW, "init --strategy reflink", CLONE, 1),
    Row("1.2", NAMES, "init --strategy hardlink", LINK, 1),
    Row("1.3", COW, "init --strategy copy", COPY, 1),
    Row("1.3", ("ext4",), "init --strategy copy", "cp -a", 1),
    Row("1.4", COW, "init", "uv --link-mode=clone"),
    Row("1.4", NAMES, "init --strategy hardlink", "uv --link-mode=hardlink"),
    Row("1.4", NAMES, "init --strategy copy", "uv --link-mode=copy"),
    Row("1.5", COW, "record", COPY),
    Row("1.5", ("ext4",), "record", "cp -a"),
    Row("1.6", NAMES, "restore, pristine", "init"),
    Row("1.6", NAMES, "restore, damaged", "init"),
)
PART_2 = (
    Row("1", ("btrfs",), "init", CLONE, 0.12),
    Row("2", ("btrfs",), "restore, damaged", CLONE, 0.12),
    Row("3", ("btrfs",), "first init", CLONE, 0.75),
    Row("4", ("xfs",), "init --strategy reflink", CLONE, 0.55),
    Row("5", ("xfs",), "init --strategy reflink", "uv --link-mode=clone", 0.90),
    Row("6", ("ext4",), "init --strategy hardlink", LINK, 0.80),
    Row("6", ("ext4",), "init --strategy hardlink", "uv --link-mode=hardlink", 0.85),
    Row("6", ("ext4",), "first init --strategy hardlink", LINK),
    Row("7", ("ext4",), "init", "cp -a", 0.70),
    Row("8", ("btrfs",), "restore, pristine", "init"),
    Row("8", ("xfs", "ext4"), "restore, pristine", "init", 0.5),
    Row("8", NAMES, "restore, pristine", LINK, 0.6),
    Row("9", ("xfs", "ext4"), "restore, damaged", "init", 0.5),
    Row("10", COW, "record", COPY, 0.6),
    Row("10", COW, "record", "cp -a"),
    Row("10", ("ext4",), "record", "cp -a", 1.2),
    Row("12", ("ext4",), "init (many)", "init (few)", 11),
    Row("12", ("ext4",), "restore, pristine (many)", "restore, pristine (few)", 11),
    Row("12", ("ext4",), "record (many)", "record (few)", 11),
    Row("13", NAMES, "holo --version", "python -c pass", 7.5),
    Row("13", NAMES, "holo list", "python -c pass", 9),
    Row("13", NAMES, "holo variables", "python -c pass", 4.5),
    Row("13", NAMES, "holo run", "python -c pass", 4.5),
    Row("14", NAMES, "holo status", "python -c pass", 30),
    Row("15", ("xfs", "ext4"), "init, a spare", "cp -a", 0.12),
    Row("15", ("xfs", "ext4"), "init, a spare", "uv --link-mode=hardlink", 0.45),
    Row("15", ("xfs",), "init, a spare", "uv --link-mode=clone", 0.25),
    Row("16", ("xfs", "ext4"), "restore, damaged, a spare", "cp -a", 0.15),
    Row("17", NAMES, "delete, a spare wanted", "rm -rf", 0.25),
)
MEMORY_ROW = "11"
NUMBERS = tuple(dict.fromkeys([*(row.number for row in PART_2), MEMORY_ROW]))


@dataclass(frozen=True)
class Scale:
    """How large everything is: as claimed, or only enough to try the program."""

    image: int
    free: int  # on the disk that holds the image
    few: int
    many: int


FULL = Scale(12 * GIGABYTE, 14 * GIGABYTE, 20_000, 200_000)
QUICK = Scale(3 * GIGABYTE, 2 * GIGABYTE, 200, 2_000)


@dataclass(frozen=True)
class Peak:
    """The memory that one command took on one filesystem, and what it may take."""

    filesystem: str
    case: str
    files: int
    bytes: int
    target: int

    @property
    def ok(self) -> bool:
        return self.bytes <= self.target


class Benchmark:
    """What was asked for, and what has been measured of it."""

    def __init__(self, options: argparse.Namespace, workspace: Path) -> None:
        self.options = options
        self.workspace = workspace
        self.scale = scale(options)
        table = PART_1 if options.part == 1 else PART_2
        self.rows = [row for row in table if options.part == 1 or row.number in options.rows]
        self.memory = options.part == 2 and MEMORY_ROW in options.rows
        self.timings: dict[str, dict[str, Timing]] = {}
        self.peaks: list[Peak] = []
        self.floors: dict[str, dict[str, float]] = {}
        self.left_out: list[str] = []  # cases that failed
        self.counts: dict[str, trees.Count] = {}

    def run(self) -> None:
        """Measure one filesystem after the other; only one exists at a time."""
        self.tools = Tools.find(self.options.holo, self.workspace, self.options.quick)
        for name in self.options.filesystems:
            needed = self._needed(name)
            if not needed and not self.memory:
                continue
            note(f"{name}: preparing")
            with mounted(name, self.workspace, self.scale.image) as filesystem:
                stage = Stage(filesystem, self.tools)
                self.counts[name] = trees.count(stage.environment)
                cases = [*stage.cases()]
                if self.memory or any(case.endswith(("(few)", "(many)")) for case in needed):
                    for tree in ("few", "many"):
                        stage.synthesize(tree, getattr(self.scale, tree))
                        cases += stage.holo(tree)
                self._time(filesystem, [case for case in cases if case.name in needed])
                if self.memory:
                    self._weigh(filesystem, cases)
                if self.options.floor:
                    filesystem.settle()
                    self.floors[name] = floor.measure(stage.environment, filesystem.root / "floor")

    def _needed(self, filesystem: str) -> set[str]:
        rows = [row for row in self.rows if filesystem in row.filesystems]
        return {name for row in rows for name in (row.holo, row.peer)}

    def _time(self, filesystem: Filesystem, cases: Sequence[Case]) -> None:
        """The long commands settle the disk before each; the short ones leave nothing to settle."""

        def remark(text: str) -> None:
            note(f"{filesystem.name}: {text}")

        rounds: int = self.options.rounds
        long = [case for case in cases if not case.quick]
        quick = [case for case in cases if case.quick]
        timings = alternate(long, rounds, filesystem.settle, remark)
        timings |= alternate(quick, rounds * START_ROUNDS, lambda: None, lambda _: None)
        self.timings[filesystem.name] = timings
        self.left_out += [case.name for case in cases if case.name not in timings]

    def _weigh(self, filesystem: Filesystem, cases: Iterable[Case]) -> None:
        for case in cases:
            many = "(many)" in case.name
            if case.quick or case.command[: len(self.tools.holo)] != self.tools.holo or "(few)" in case.name:
                continue
            if many and "--strategy" in case.name:
                continue  # takes minutes, and what grows with the number of files is common to all strategies
            files = self.scale.many if many else self.counts[filesystem.name].files
            note(f"{filesystem.name}: memory: {case.name}")
            try:
                peak = peak_memory(case)
            except FailedError as error:
                note(f"{case.name}: left out, it failed: {error}")
                self.left_out.append(case.name)
                continue
            self.peaks.append(Peak(filesystem.name, case.name, files, peak, (600 if many else 200) * MEGABYTE))

    def comparisons(self) -> list[dict[str, object]]:
        """Every row on every filesystem, in numbers."""
        found: list[dict[str, object]] = []
        for row in self.rows:
            for name in row.filesystems:
                timings = self.timings.get(name)
                if timings is None:
                    continue
                holo, peer = timings.get(row.holo), timings.get(row.peer)
                entry: dict[str, object] = {"row": row.number, "filesystem": name}
                entry |= {"holo": row.holo, "peer": row.peer, "target": row.target}
                if holo is None or peer is None:
                    entry |= {"ok": False if row.target else None}
                else:
                    seconds, against = statistics.median(holo.seconds), statistics.median(peer.seconds)
                    ok = None if row.target is None else seconds <= row.target * against
                    entry |= {"used": holo.used, "holo_seconds": seconds, "peer_seconds": against}
                    entry |= {"ratio": seconds / against, "ok": ok}
                found.append(entry)
        return found

    def document(self) -> dict[str, object]:
        """Everything, for machines."""
        return {
            "machine": machine(),
            "versions": self.tools.versions(),
            "quick": self.options.quick,
            "rounds": self.options.rounds,
            "environment": {name: asdict(count) for name, count in self.counts.items()},
            "comparisons": self.comparisons(),
            "timings": {
                name: {case: asdict(timing) for case, timing in timings.items()}
                for name, timings in self.timings.items()
            },
            "memory": [asdict(peak) | {"ok": peak.ok} for peak in self.peaks],
            "floors": self.floors,
        }

    def show(self) -> None:
        """Everything, as Markdown."""
        heading(self.tools.versions(), f"Medians of {self.options.rounds} rounds.")
        for count in self.counts.values():
            size = f"{count.bytes / MEGABYTE:.0f} MB"
            print(f"{count.files} files, {count.directories} directories, {count.symlinks} symlinks, {size}.")
            break  # they differ between filesystems by the length of a path
        if self.options.quick:
            print("A quick run: too small to judge anything by.")
        if self.rows:
            self._show_comparisons()
            self._show_timings()
        if self.peaks:
            self._show_memory()
        if self.floors:
            self._show_floors()

    def _show_comparisons(self) -> None:
        lines = []
        for entry in self.comparisons():
            used = f" ({entry['used']})" if entry.get("used") else ""
            line = [entry["row"], entry["filesystem"], f"{entry['holo']}{used}", entry["peer"]]
            if "ratio" in entry:
                line += [
                    f"{entry['holo_seconds']:.3f}",
                    f"{entry['peer_seconds']:.3f}",
                    f"{entry['ratio']:.2f}x",
                ]
            else:
                line += ["", "", "failed"]
            line += ["" if entry["target"] is None else f"{entry['target']:g}x", verdict(entry["ok"])]
            lines.append(line)
        table(["row", "on", "holo", "against", "holo s", "peer s", "ratio", "at most", ""], lines)

    def _show_timings(self) -> None:
        lines = [
            [name, case, f"{statistics.median(times):.3f}", f"{min(times):.3f}", f"{max(times):.3f}"]
            for name, timings in self.timings.items()
            for case, timing in timings.items()
            if (times := timing.seconds)
        ]
        table(["on", "command", "median s", "least", "most"], lines)

    def _show_memory(self) -> None:
        lines = []
        for peak in self.peaks:
            taken, allowed = (f"{size / MEGABYTE:.0f} MB" for size in (peak.bytes, peak.target))
            lines.append([MEMORY_ROW, peak.filesystem, peak.case, peak.files, taken, allowed, verdict(peak.ok)])
        table(["row", "on", "holo", "files", "peak", "at most", ""], lines)

    def _show_floors(self) -> None:
        lines = [
            [name, what, f"{seconds:.3f}"] for name, found in self.floors.items() for what, seconds in found.items()
        ]
        table(["on", "necessary system calls alone", "seconds"], lines)


def start(program: Callable[[argparse.Namespace, Path], bool], options: argparse.ArgumentParser) -> int:
    """Parse, and run `program` on the large environment or, with --quick, a small one. Returns the exit code."""
    options.add_argument("--quick", action="store_true", help="a small environment, to try the program")
    parsed = options.parse_args()
    return run(program, parsed, scale(parsed).free)


def scale(options: argparse.Namespace) -> Scale:
    """What --quick decides."""
    return QUICK if options.quick else FULL


def measure(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print; whether everything could be measured."""
    benchmark = Benchmark(options, workspace)
    benchmark.run()
    benchmark.show()
    if options.json:
        options.json.write_text(json.dumps(benchmark.document(), indent=1) + "\n")
    return not benchmark.left_out


def main() -> int:
    """Run, print, and leave nothing behind."""
    options = parser(__doc__)
    options.add_argument("--part", type=int, choices=(1, 2), default=2, help="which table (default: 2)")
    options.add_argument("--rows", type=lambda text: chosen(NUMBERS, text), default=list(NUMBERS), help="1,4,6")
    options.add_argument("--floor", action="store_true", help="also the time of the necessary system calls alone")
    options.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    return start(measure, options)


if __name__ == "__main__":
    sys.exit(main())
