"""What the benchmark programs have in common: options, tables, and an end that leaves nothing behind."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from filesystems import NAMES, UnavailableError
from measure import FailedError

CORES = 2
GIGABYTE = 1 << 30


def parser(about: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that every program has."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--filesystems", type=lambda text: chosen(NAMES, text), default=list(NAMES), help="xfs,ext4")
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--holo", default=str(Path(sys.executable).with_name("holo")), help="command to measure")
    made.add_argument("--work", type=Path, help="folder for the images (default: the temporary folder)")
    return made


def chosen(allowed: Sequence[str], text: str) -> list[str]:
    """The comma-separated names in `text`, in their usual order."""
    names = text.split(",")
    for name in names:
        if name not in allowed:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
    return [name for name in allowed if name in names]


def chosen_numbers(text: str) -> list[int]:
    """The comma-separated numbers in `text`, `20_000` among them."""
    return [int(number) for number in text.split(",") if number]


def run(program: Callable[[argparse.Namespace, Path], bool], options: argparse.Namespace, free: int) -> int:
    """Run `program` in a new folder with that many free bytes, and remove it. Returns the exit code.

    `program` returns whether it could measure all that was asked for.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        print("error: filesystems are mounted here, which takes Linux and root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # inherited by all that is run
    workspace = Path(tempfile.mkdtemp(prefix="holo-bench-", dir=options.work))
    workspace.chmod(0o755)  # an ordinary user's commands are measured, too
    try:
        there = shutil.disk_usage(workspace).free
        if there < free:
            raise UnavailableError(f"{workspace} has {there >> 20} MiB free, {free >> 20} are needed")
        return 0 if program(options, workspace) else 1
    except (UnavailableError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; cleaned up", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _interrupt(*_: object) -> None:
    """The first signal ends the run; what follows it must not disturb the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {"kernel": platform.release(), "cores": CORES, "Python": platform.python_version()}


def heading(versions: dict[str, str], text: str) -> None:
    """What was measured on what, above the tables."""
    print(", ".join(f"{key} {value}" for key, value in (machine() | versions).items()))
    print(text)


def table(titles: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print()
    for line in (titles, ["---"] * len(titles), *lines):
        print("| " + " | ".join(map(str, line)) + " |")


def verdict(ok: object) -> str:
    """The last column: nothing where nothing was claimed."""
    return {None: "", True: "ok", False: "not"}[ok]  # type: ignore[index]


def note(text: str) -> None:
    """Say what is going on, where somebody may be waiting."""
    print(text, file=sys.stderr, flush=True)
