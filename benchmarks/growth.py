"""How holo's commands grow: each on a tree of some kind, and on one four times as large.

A row is a kind of tree, a column a command. The number is how many times as much processor time a file takes in the
larger tree: 1.0 is linear, 4.0 is quadratic. Processor time, as it hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

PER_FOLDER = 100


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def place(root: Path, number: int) -> Path:
    return root / f"{number // PER_FOLDER:06}" / f"{number:08}"


def files(root: Path, number: int) -> None:
    write(place(root, number), f"content {number}\n" * 20)


def relocated(root: Path, number: int) -> None:
    write(place(root, number), f"#!{root}/bin/python {number}\n")


def attributes(root: Path, number: int) -> None:
    path = place(root, number)
    write(path, f"{number % 1000}\n")
    os.setxattr(path, "user.number", b"1")


def links(root: Path, number: int) -> None:
    path, first = place(root, number), place(root, number // 50 * 50)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path == first:
        path.write_text(f"{number}\n")
    else:
        os.link(first, path)


def symlinks(root: Path, number: int) -> None:
    path = place(root, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(root / f"{number}")


def directories(root: Path, number: int) -> None:
    place(root, number).mkdir(parents=True)


def one_directory(root: Path, number: int) -> None:
    write(root / f"{number}", f"{number}\n")


def deep(root: Path, number: int) -> None:
    """A directory in the one before it, a hundred in a row."""
    write(root / f"{number // 100}" / "/".join("d" * (number % 100)) / "file", f"{number}\n")


KINDS: dict[str, tuple[int, Callable[[Path, int], None]]] = {
    "files": (20_000, files),
    "relocated": (10_000, relocated),
    "attributes": (10_000, attributes),
    "links": (10_000, links),
    "symlinks": (10_000, symlinks),
    "directories": (10_000, directories),
    "one_directory": (20_000, one_directory),
    "deep": (5_000, deep),
}
COLUMNS = ("record", "again", "init", "pristine", "damaged", "verify", "check", "clone", "relocate", "gc", "delete")


def commands(home: Path, source: Path, target: Path) -> dict[str, list[str]]:
    return {
        "record": ["record", str(source), "--name", "app"],
        "again": ["record", str(source), "--name", "app"],
        "init": ["init", "--space", "s", "app", "--to", str(target)],
        "pristine": ["restore", "--space", "s"],
        "damaged": ["restore", "--space", "s"],
        "verify": ["restore", "--space", "s", "--verify"],
        "check": ["check", "--space", "s"],
        "clone": ["clone", str(source), str(home / "clone")],
        "relocate": ["clone", "--relocate", str(source), str(home / "moved")],
        "gc": ["gc"],
        "delete": ["delete", "--space", "s"],
    }


def measure(kind: str, count: int, work: Path) -> list[float]:
    """Seconds of processor time of each command."""
    source, target = work / "source", work / "space"
    source.mkdir()
    for number in range(count):
        KINDS[kind][1](source, number)
    environment = {**os.environ, "HOLO_HOME": str(work / "home")}
    seconds = []
    for name, arguments in commands(work, source, target).items():
        if name == "damaged":
            damage(target)
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "holo", *arguments, "--json"], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        after = os.times()
        seconds.append(after.children_user - before.children_user + after.children_system - before.children_system)
    return seconds


def damage(target: Path) -> None:
    """Remove every twentieth entry that is not a directory."""
    found = [os.path.join(folder, name) for folder, _, names in os.walk(target) for name in names]
    for path in found[::20]:
        os.unlink(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="a folder on the filesystem to measure")
    parser.add_argument("--kinds", default=",".join(KINDS), help="which trees")
    parser.add_argument("--json", type=Path, help="write all seconds to this file")
    options = parser.parse_args()
    everything = {}
    print(f"| tree | {' | '.join(COLUMNS)} |\n| --- |{' --- |' * len(COLUMNS)}")
    for kind in options.kinds.split(","):
        results = []
        for count in (KINDS[kind][0], 4 * KINDS[kind][0]):
            with tempfile.TemporaryDirectory(dir=options.work, ignore_cleanup_errors=True) as work:
                results.append(measure(kind, count, Path(work).resolve()))
                shutil.rmtree(work)
        everything[kind] = results
        ratios = [large / small / 4 for small, large in zip(*results, strict=True)]
        print(f"| {4 * KINDS[kind][0]:,} {kind} | {' | '.join(f'{ratio:.1f}' for ratio in ratios)} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    main()
