"""The first throw-away environment of a catalog whose contents the library has raw, beside an earlier version's.

Linux, as root; the commands are an ordinary user's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from filesystems import Filesystem, mounted
from measure import execute
from program import GIGABYTE, heading, note, parser, run, table

USER = 1001
IMAGE = 6 * GIGABYTE
READ = 'find "$HOLO_SPACE_PATH" -type f -print0 | xargs -0 cat > /dev/null'
COLUMNS = ("first, s", "later, s", "read all, s", "import, s", "disk, MB")


def measure(filesystem: Filesystem, programs: dict[str, list[str]], options: Namespace) -> list[list[str]]:
    """A row for each program, in turn."""
    root = filesystem.root / "user"
    root.mkdir()
    (root / "settings.yaml").write_text("library:\n  compression: raw\n")
    execute(["cp", "-a", str(options.tree), str(root / "source")], {})
    execute(["chown", "-hR", f"{USER}:{USER}", str(root)], {})
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "HOLO_HOME": str(root / "home"),
        "HOLO_SETTINGS": str(root / "settings.yaml"),
    }

    def seconds(program: Sequence[str], *arguments: str | Path) -> float:
        become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        begin = time.perf_counter()
        execute([*become, *program, *map(str, arguments)], environment)
        return time.perf_counter() - begin

    def used() -> int:
        filesystem.settle()
        return shutil.disk_usage(root).used

    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    seconds(programs["holo"], "record", root / "source", "--name", "env")
    for number in range(options.rounds + 1):  # the first only warms up
        for name, program in programs.items():
            filesystem.remove(root / "home" / "holotree" / f".ephemeral-{USER}")
            before = used()
            within = ("run", "--ephemeral", "--space", "web", "--catalog", "env", "--")
            numbers = [seconds(program, *within, "true")]
            disk = (used() - before) / 1e6
            numbers += [seconds(program, *within, "true"), seconds(program, *within, "sh", "-c", READ)]
            numbers += [seconds(program, *within, "python", "-c", options.imports), disk]
            for column, value in zip(COLUMNS, numbers, strict=True):
                found[name, column] += [value] if number else []
    return [
        [filesystem.name, name, *(f"{statistics.median(found[name, column]):.2f}" for column in COLUMNS)]
        for name in programs
    ]


def measure_all(options: Namespace, workspace: Path) -> bool:
    """Run and print."""
    heading({}, f"Medians of {options.rounds}. The first run makes the tree.")
    programs = {"before": shlex.split(options.before)} if options.before else {}
    programs["holo"] = shlex.split(options.holo)
    lines: list[list[str]] = []
    for name in options.filesystems:
        with mounted(name, workspace, IMAGE) as filesystem:
            note(name)
            lines += measure(filesystem, programs, options)
    table(["on", "version", *COLUMNS], lines)
    return True


def _parser() -> ArgumentParser:
    made = parser(__doc__, rounds=5)
    made.add_argument("--tree", type=Path, required=True, help="an environment, made of requirements.txt say")
    made.add_argument("--before", help="command of an earlier version")
    made.add_argument("--imports", default="import pandas, sklearn, matplotlib.pyplot")
    return made


if __name__ == "__main__":
    sys.exit(run(measure_all, _parser().parse_args(), IMAGE))
