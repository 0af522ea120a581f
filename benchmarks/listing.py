"""Measure `holo list` of 5,000 spaces beside `python -c pass`, in alternation. Any filesystem, any user.

Half of the spaces are in the holotree, half are the `.venv` of a project and made from its blueprint. Each has its
record, what is beside it, and its directories.
"""

from __future__ import annotations

import os
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

from measure import Case, alternate
from program import heading, note, parser, table, verdict

from holo import Hololib
from holo.blueprints.memory import Origin, write_own
from holo.platform import identity

SPACES = 5_000
AT_MOST = 0.5  # second


def furnish(workspace: Path, spaces: int = SPACES) -> None:
    """Make the spaces: one by holo, the others like it."""
    for name in ("bin/python", "lib/site-packages/six.py", "pyvenv.cfg"):
        file = workspace / "source" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    library = Hololib(workspace / "home")
    library.record(workspace / "source", "app")
    library.init("first", "app")
    first, tree = library.space("first", force=True), library.home.spaces
    directories = library.home.library.catalogs.directories(first.digest)
    for number in range(1, spaces):
        name, project = f"job-{number}", workspace / f"project-{number}"
        place = project / ".venv" if number % 2 else Path(tree.default_path(name))
        for path, mode, _ in directories:
            (place / path).mkdir(mode, parents=True)
        for path, _, mtime in reversed(directories):
            os.utime(place / path, ns=(mtime, mtime))
        descriptor = os.open(place, os.O_RDONLY)
        tree.save(first._replace(name=name, path=str(place), made_for=str(place), root=identity(descriptor)))
        os.close(descriptor)
        if number % 2:
            origin = Origin(str(project / "requirements.txt"), compile=True, digest=first.digest)
            write_own(tree.origin_path(name), origin._asdict())
            tree.mark_used(name)


def main() -> int:
    options = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="holo-", dir=options.work) as folder:
        furnish(Path(folder))
        environment = {**os.environ, "HOLO_HOME": f"{folder}/home"}
        holo = shlex.split(options.holo)
        kept = Path(folder, "home/holotree/.spaces/.listed")

        def forget() -> None:
            kept.unlink(missing_ok=True)

        cases = [
            Case("holo list", [*holo, "list"], environment, quick=True),
            Case("holo list, the first", [*holo, "list"], environment, before=forget, quick=True),
            Case("holo list --json", [*holo, "list", "--json"], environment, quick=True),
            Case("python -c pass", [sys.executable, "-c", "pass"], environment, quick=True),
        ]
        timings = alternate(cases, options.rounds, lambda: None, note)
    lines = []
    for name, timing in timings.items():
        seconds, is_aim = statistics.median(timing.seconds), name == "holo list"
        spread = f"{min(timing.seconds):.3f}-{max(timing.seconds):.3f}"
        ok = seconds <= AT_MOST if is_aim else None
        lines.append([name, f"{seconds:.3f}", spread, f"{AT_MOST:g}" if is_aim else "", verdict(ok)])
    heading({}, f"Seconds, medians of {options.rounds} rounds. {SPACES:,} spaces.")
    table(["command", "s", "least-most", "at most", ""], lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
