"""Whether large trees cost more per file than small ones, and how much memory they take. Linux, any user.

Each command runs on trees of packages with 20 small files per folder, and on one folder with very many files. A tree
is judged by the processor time per file, beside that of the first tree: that hardly depends on what else the machine
does. Seconds are shown as well. Memory is the largest process of the command (ru_maxrss), and the most that all its
processes had together, shared pages counted once (PSS), looked at every 0.2 s.

As root, each command begins with the kernel's caches empty. They hold all of a small tree and not all of a large one,
and to read a file's inode from the disk takes more processor time than all that holo does with it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import trees
from measure import Cost, cost_of
from program import chosen_numbers, heading, note, table, verdict

PER_FOLDER, FOLDERS_PER_PACKAGE = 20, 10
MEGABYTE = 1_000_000
CACHES = Path("/proc/sys/vm/drop_caches")  # proc_sys_vm(5)
AT_MOST = 1.3  # times the processor time per file
MEMORY = 1000 * MEGABYTE  # of one process


class Shape(NamedTuple):
    """A kind of tree, and its number of files."""

    files: int
    is_flat: bool = False

    def __str__(self) -> str:
        return f"{self.files:,}{' in one folder' if self.is_flat else ''}"


def make(tree: Path, shape: Shape) -> None:
    """Small files, each different but for the empty ones, as packages have them."""
    chance = random.Random(shape.files)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(3000)]
    text = " ".join(chance.choices(words, k=20_000)).encode()
    for number in range(shape.files):
        folder = number // PER_FOLDER
        if shape.is_flat:
            parent = tree
        else:
            package = folder // FOLDERS_PER_PACKAGE
            parent = tree / f"lib/site-packages/{words[package % 3000]}_{package}" / words[folder % 3000]
        if number % PER_FOLDER == 0:
            parent.mkdir(parents=True, exist_ok=True)
        start, size = chance.randrange(len(text) - 4096), min(4096, int(chance.lognormvariate(6.9, 0.9)))
        name = f"{words[number % 3000]}_{number}.py"
        content = b"# %d\n" % number + text[start : start + size]
        if number % PER_FOLDER == 0 and not shape.is_flat:
            name, content = "__init__.py", b""
        elif number % 400 == 1:
            content = b"#!%b/bin/python\n%b" % (os.fsencode(tree), content)
        descriptor = os.open(parent / name, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, content)
        os.close(descriptor)


def commands(work: Path) -> Iterator[tuple[str, list[str]]]:
    """What is measured, in this order. What changes a space is done between the steps."""
    source, space = work / "source", work / "space"
    yield "record", ["record", str(source), "--name", "app"]
    yield "record again", ["record", str(source), "--name", "app"]
    yield "init", ["init", "--space", "s", "app", "--to", str(space)]
    yield "restore, pristine", ["restore", "--space", "s"]
    trees.damage(space, 1)
    yield "restore, 1 % damaged", ["restore", "--space", "s"]
    yield "status", ["status", "--space", "s"]
    yield "clone", ["clone", str(source), str(work / "clone")]
    shutil.rmtree(work / "clone")
    yield "check", ["check"]
    yield "gc, nothing to do", ["gc"]
    yield "delete", ["delete", "--space", "s"]
    yield "catalogs --remove", ["catalogs", "--remove", "app"]
    yield "gc, everything", ["gc"]


def measure(shape: Shape, work: Path, holo: list[str]) -> dict[str, Cost]:
    """What each command costs."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HOLO_")}
    environment |= {"HOLO_HOME": str(work / "home"), "HOME": str(work)}
    note(f"{shape}: make the tree")
    make(work / "source", shape)
    costs = {}
    for name, arguments in commands(work):
        subprocess.run(["sync", "--file-system", work], check=True)
        if os.geteuid() == 0:
            CACHES.write_text("3")
        costs[name] = cost_of([*holo, *arguments], environment)
        cost = costs[name]
        note(
            f"{shape}: {name}: {cost.seconds:.1f} s, {cost.processor:.1f} s of processor time,"
            f" {cost.largest // MEGABYTE} MB, all together {cost.together // MEGABYTE} MB"
        )
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=chosen_numbers, default=[20_000, 200_000, 1_000_000], help="of the trees")
    parser.add_argument("--flat", type=chosen_numbers, default=[200_000], help="of trees of one folder")
    parser.add_argument("--holo", default=str(Path(sys.executable).with_name("holo")), help="command to measure")
    parser.add_argument("--work", type=Path, help="a folder on the filesystem to measure")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    shapes = [Shape(count) for count in options.files] + [Shape(count, is_flat=True) for count in options.flat]
    found: dict[Shape, dict[str, Cost]] = {}
    for shape in shapes:
        with tempfile.TemporaryDirectory(prefix="holo-scale-", dir=options.work, ignore_cleanup_errors=True) as work:
            found[shape] = measure(shape, Path(work).resolve(), shlex.split(options.holo))
            note(f"{shape}: clean up")
    if options.json:
        numbers = {str(shape): {name: cost._asdict() for name, cost in costs.items()} for shape, costs in found.items()}
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")
    lines = []
    for shape, costs in found.items():
        for name, cost in costs.items():
            ratio = cost.processor / shape.files / (found[shapes[0]][name].processor / shapes[0].files)
            ok = ratio <= AT_MOST and cost.largest <= MEMORY if shape != shapes[0] else None
            each = 1e6 * cost.processor / shape.files
            lines.append([
                shape, name, f"{cost.seconds:.2f}", f"{cost.processor:.2f}", f"{each:.0f}", f"{ratio:.2f}x",
                f"{cost.largest // MEGABYTE} MB", f"{cost.together // MEGABYTE} MB", verdict(ok),
            ])  # fmt: skip
    heading({}, f"Ratios: processor time per file beside {shapes[0]} files; at most {AT_MOST:g}x, and 1,000 MB.")
    table(["files", "holo", "s", "CPU s", "CPU us per file", "ratio", "largest", "all", ""], lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
