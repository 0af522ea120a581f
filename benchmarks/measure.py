"""Run commands in alternation and time them whole; or watch how much memory they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SAMPLING = 0.01  # seconds between two looks at the memory
SELDOM = 0.2  # likewise, where a look takes long
SESSION = 3  # the field of /proc/PID/stat, counted from the one after the program's name


class FailedError(Exception):
    """A command did not exit with 0."""


def nothing() -> None:
    """What most commands need before and after them."""


@dataclass(frozen=True)
class Case:
    """A command to measure. `before` and `after` make and remove what it needs; they are not measured."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    before: Callable[[], None] = nothing
    after: Callable[[], None] = nothing
    reports: bool = False  # does `--json` make it say which way files were made?
    quick: bool = False  # milliseconds: wants many rounds and leaves nothing to be written


@dataclass
class Timing:
    """How long a command took, round by round, and how it said that it made the files."""

    seconds: list[float]
    used: str | None = None
    processor: list[float] = field(default_factory=list)
    """seconds of processor time, with all processes that were waited for"""


def alternate(
    cases: Sequence[Case], rounds: int, settle: Callable[[], None], note: Callable[[str], None]
) -> dict[str, Timing]:
    """Time every case once per round, after one round that only warms up. A case that fails is left out."""
    timings: dict[str, Timing] = {}
    running = list(cases)
    for number in range(rounds + 1):
        for case in tuple(running):
            note(f"round {number}/{rounds}: {case.name}" if number else f"warm-up: {case.name}")
            try:
                case.before()
                if number == 0:
                    timings[case.name] = Timing([], _rehearse(case))
                else:
                    settle()
                    used = _processor()
                    timings[case.name].seconds.append(_time(case))
                    timings[case.name].processor.append(_processor() - used)
                case.after()
            except FailedError as error:
                print(f"{case.name}: left out, it failed: {error}", file=sys.stderr)
                running.remove(case)
                timings.pop(case.name, None)
    return timings


def execute(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run to the end, and return what the command printed."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        status = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, check=False
        ).returncode
        if status != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise FailedError(f"{' '.join(command)}: exit code {status}: {said[-2000:]}")
        output.seek(0)
        return output.read().decode(errors="replace")


def _rehearse(case: Case) -> str | None:
    if not case.reports:
        execute(case.command, case.environment)
        return None
    report = json.loads(execute([*case.command, "--json"], case.environment))
    return str(report["strategy"]["used"])


def _time(case: Case) -> float:
    begin = time.perf_counter()
    execute(case.command, case.environment)
    return time.perf_counter() - begin


def _processor() -> float:
    """Seconds of processor time of all commands that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def peak_memory(case: Case) -> int:
    """The most bytes that all processes of the command had together, shared pages counted once (PSS)."""
    case.before()
    peak = 0
    # A session of its own is how its processes are told from all others, orphans included.
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            case.command,
            env=case.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        try:
            while process.poll() is None:
                peak = max(peak, _session_memory(process.pid))
                time.sleep(SAMPLING)
        except BaseException:
            os.killpg(process.pid, 9)
            raise
        if process.returncode != 0:
            errors.seek(0)
            raise FailedError(errors.read().decode(errors="replace").strip())
    case.after()
    return peak


class Cost(NamedTuple):
    """What a command took, with all its processes."""

    seconds: float
    processor: float
    """seconds of processor time, the kernel's included"""
    largest: int
    """the most bytes that one process had (RSS)"""
    together: int
    """the most bytes that all had together (PSS)"""


def cost_of(command: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """Run a command of many seconds, and look at its memory now and then."""
    together = 0
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        pid = 0
        while not pid:
            together = max(together, _session_memory(process.pid))
            time.sleep(SELDOM)
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        if process.returncode != 0:
            errors.seek(0)
            raise FailedError(f"{' '.join(command)}: {errors.read().decode(errors='replace').strip()[-2000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, together)


def _session_memory(session: int) -> int:
    total = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The program's name, in parentheses, may itself hold spaces and parentheses.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[SESSION]) != session:
                continue
            for line in (folder / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (OSError, UnicodeDecodeError):
            continue  # ended while it was looked at
    return total
