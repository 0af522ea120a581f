"""Measure holo beside cp and uv on Btrfs, XFS and ext4. Linux, as root; README.md says how and why."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import floor
import trees
from commands import Stage, Tools
from filesystems import NAMES, Filesystem, UnavailableError, mounted
from measure import Case, FailedError, Timing, alternate, peak_memory

CORES = 2
GIGABYTE = 1 << 30
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
    Row("13", NAMES, "holo variables", "python -c pass", 9),
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
        self.scale = QUICK if options.quick else FULL
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
        about = machine() | self.tools.versions()
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        for count in self.counts.values():
            size = f"{count.bytes / MEGABYTE:.0f} MB"
            print(f"{count.files} files, {count.directories} directories, {count.symlinks} symlinks, {size}.")
            break  # they differ between filesystems by the length of a path
        print(f"Medians of {self.options.rounds} rounds.")
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


def verdict(ok: object) -> str:
    """The last column: nothing where nothing was claimed."""
    return {None: "", True: "ok", False: "not"}[ok]  # type: ignore[index]


def table(titles: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print()
    for line in (titles, ["---"] * len(titles), *lines):
        print("| " + " | ".join(map(str, line)) + " |")


def note(text: str) -> None:
    """Say what is going on, where somebody may be waiting."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {"kernel": platform.release(), "cores": CORES, "Python": platform.python_version()}


def chosen(allowed: Sequence[str], text: str) -> list[str]:
    """The comma-separated names in `text`, in their usual order."""
    names = text.split(",")
    for name in names:
        if name not in allowed:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
    return [name for name in allowed if name in names]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=int, choices=(1, 2), default=2, help="which table (default: 2)")
    parser.add_argument("--rows", type=lambda text: chosen(NUMBERS, text), default=list(NUMBERS), help="1,4,6")
    parser.add_argument("--filesystems", type=lambda text: chosen(NAMES, text), default=list(NAMES), help="xfs,ext4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to try the program")
    parser.add_argument("--floor", action="store_true", help="also the time of the necessary system calls alone")
    parser.add_argument("--holo", default=str(Path(sys.executable).with_name("holo")), help="command to measure")
    parser.add_argument("--work", type=Path, help="folder for the images (default: the temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    return parser.parse_args()


def interrupt(*_: object) -> None:
    """The first signal ends the run; what follows it must not disturb the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run, print, and leave nothing behind."""
    options = parse()
    if sys.platform != "linux" or os.geteuid() != 0:
        print("error: filesystems are mounted here, which takes Linux and root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # inherited by all that is run
    workspace = Path(tempfile.mkdtemp(prefix="holo-bench-", dir=options.work))
    try:
        free, needed = shutil.disk_usage(workspace).free, (QUICK if options.quick else FULL).free
        if free < needed:
            raise UnavailableError(f"{workspace} has {free >> 20} MiB free, {needed >> 20} are needed")
        benchmark = Benchmark(options, workspace)
        benchmark.run()
        benchmark.show()
        if options.json:
            options.json.write_text(json.dumps(benchmark.document(), indent=1) + "\n")
        if benchmark.left_out:
            return 1
    except (UnavailableError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; cleaned up", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
