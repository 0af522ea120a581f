"""What 500 catalogs and 5,000 spaces cost a command: beside one catalog and one space, in alternation. Any user.

The catalogs are of one tree of 2,000 small files and differ in a time, so they share all content. The spaces are those
of listing.py.
"""

from __future__ import annotations

import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import listing
import scale
from measure import Case, alternate, execute
from program import heading, note, parser, table

from holo import Hololib
from holo.catalog import Catalog

CATALOGS, FILES = 500, 2_000


def furnish(workspace: Path, catalogs: int, spaces: int) -> None:
    """A home with so many of both."""
    listing.furnish(workspace, spaces)
    scale.make(workspace / "tree", scale.Shape(FILES))
    library = Hololib(workspace / "home")
    library.record(workspace / "tree", "many")
    known = library.home.library.catalogs
    first = known.load(known.resolve("many").digest)
    (path, mode, mtime, files, links), *others = first.directories
    for number in range(1, catalogs):
        root = (path, mode, mtime + number, files, links)
        known.publish(Catalog(first.prefix, [root, *others], first.relocations, [], {}), f"many-{number}")


def cases(workspace: Path, holo: list[str], what: str) -> Iterator[Case]:
    """The commands, each as it leaves the home that it found."""
    environment = {**os.environ, "HOLO_HOME": str(workspace / "home")}

    def delete() -> None:
        execute([*holo, "delete", "--space", "new"], environment)

    def init(*more: str) -> None:
        execute([*holo, "init", "--space", "new", "app", *more], environment)

    beside = ("--to", str(workspace / "new"))
    for name in ("list", "catalogs", "du", "gc", "check"):
        yield Case(f"{name}: {what}", [*holo, name], environment)
    source = str(workspace / "source")
    yield Case(f"record: {what}", [*holo, "record", source, "--name", "app"], environment)
    yield Case(f"init: {what}", [*holo, "init", "--space", "new", "app"], environment, after=delete)
    yield Case(f"init --to: {what}", [*holo, "init", "--space", "new", "app", *beside], environment, after=delete)
    yield Case(f"delete: {what}", [*holo, "delete", "--space", "new"], environment, before=init)


def main() -> int:
    options = parser(__doc__, rounds=3).parse_args()
    holo = shlex.split(options.holo)
    with tempfile.TemporaryDirectory(prefix="holo-", dir=options.work) as folder:
        few, many = Path(folder, "few").resolve(), Path(folder, "many").resolve()
        furnish(few, 1, 2)
        furnish(many, CATALOGS, listing.SPACES)
        pairs = zip(cases(few, holo, "few"), cases(many, holo, "many"), strict=True)
        timings = alternate([case for pair in pairs for case in pair], options.rounds, lambda: None, note)
    lines = []
    for name in dict.fromkeys(case.partition(":")[0] for case in timings):
        found = [timings[f"{name}: {what}"] for what in ("few", "many")]
        numbers = [*(timing.seconds for timing in found), *(timing.processor for timing in found)]
        lines.append([f"holo {name}", *(f"{statistics.median(each):.2f}" for each in numbers)])
    heading({}, f"Seconds, medians of {options.rounds} rounds. {CATALOGS} catalogs, {listing.SPACES:,} spaces.")
    table(["command", "few", "many", "few, CPU s", "many, CPU s"], lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
