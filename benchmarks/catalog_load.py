"""How long a catalog takes to load: the parser that restores use, beside the pydantic model that defines it.

    python benchmarks/catalog_load.py CATALOG.json

Milliseconds, warm, the least and the median of 15 alternating rounds in one process. A restore pays for the
import of pydantic as well when it uses the model; that is measured in processes of their own.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from holo.catalog import Catalog
from holo.catalog_model import parse

ROUNDS = 15


def measure(function: Callable[[], object]) -> float:
    """Seconds of one call, as a command makes it: without the garbage collector."""
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    gc.enable()
    return seconds


def start_up(code: str) -> float:
    """Seconds of a Python process that runs ``code``."""
    return measure(lambda: subprocess.run([sys.executable, "-c", code], check=True))


def main(path: str) -> None:
    with open(path, "rb") as file:
        data = file.read()
    ways: dict[str, Callable[[], float]] = {
        "load and validate": lambda: measure(lambda: Catalog.from_json(data, path)),
        "the model alone": lambda: measure(lambda: parse(data, path)),
        "python -c 'import holo.catalog'": lambda: start_up("import holo.catalog"),
        "python -c 'import holo.catalog_model'": lambda: start_up("import holo.catalog_model"),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, method in ways.items():
            found[name].append(method())
    print(f"{Catalog.from_json(data, path).totals.files} files")
    for name, seconds in found.items():
        print(f"{min(seconds) * 1000:8.1f} {statistics.median(seconds) * 1000:8.1f} ms  {name}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
