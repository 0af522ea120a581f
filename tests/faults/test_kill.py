"""kill -9 at any moment: a promise of docs/reliability.md (2), tried before each call that may change a file."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from support.faults import READS, Supervisor
from support.filesystems import Filesystem
from support.scenarios import Scenario, World, each_scenario, spread

pytestmark = pytest.mark.torture

Note = Callable[[int, str, int], None]


def problems_after(scenario: Scenario, world: World, fault: dict[str, object], number: int) -> list[str]:
    """Run the command with a fault before its call number ``number``; everything that breaks promise 2."""
    scenario.prepare(world)
    before = world.observe()
    outcome = scenario.run(world, at=number, **fault)
    found = [f"it hung: {outcome.stderr}"] if outcome.hung else []
    if outcome.code not in (0, 1, -signal.SIGKILL) or "Traceback" in outcome.stderr:
        found.append(f"exit {outcome.code}: {outcome.stderr}")
    found += world.broken(before)
    if number % 2:  # either a restore makes it good, or the same command does
        found += world.recover()
    found += scenario.repeat(world)
    where = outcome.calls[-1] if outcome.calls else "nothing"
    return [f"{fault} before call {number}, {where}: {problem}" for problem in found]


@each_scenario()
def test_a_command_killed_before_any_of_its_calls(
    scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor, torture: bool, faults: Note
) -> None:
    world = scenario.world(supervisor, filesystem)
    scenario.prepare(world)
    whole = scenario.run(world)
    assert whole.code == 0, whole
    assert scenario.undone(world) == []
    points = spread(len(whole.calls), len(whole.calls) if torture else 4)
    faults(2, "kill -9 before a file-system call", len(points))
    problems = [problem for number in points for problem in problems_after(scenario, world, {"kill": "group"}, number)]
    assert problems == []


@pytest.mark.parametrize("kill", ["one", "group"])
@each_scenario("record-ext4", "init-xfs", "init-first-btrfs", "restore-other-ext4", "push-ext4", "init-remote-ext4")
def test_killed_worker_is_one_error_or_recovered(
    scenario: Scenario, filesystem: Filesystem, kill: str, supervisor: Supervisor, torture: bool, faults: Note
) -> None:
    """``one``: the parent must notice that a worker is gone, and the workers that their parent is."""
    world = scenario.world(supervisor, filesystem, workers=2, files=300)  # enough that workers are forked
    scenario.prepare(world)
    whole = scenario.run(world)
    assert {call.process for call in whole.calls} >= {0, 1}, "no workers"
    points = spread(len(whole.calls), 60 if torture else 1)
    faults(2, "kill -9 of a worker, its parent, or all", len(points))
    problems = [problem for number in points for problem in problems_after(scenario, world, {"kill": kill}, number)]
    assert problems == []


# What a program does with files besides what can be counted: nothing of it changes one.
HARMLESS = {"close", "lseek", "fcntl", "dup", "chdir", "getcwd", "execve", "poll", "mmap", "fadvise64", "fstatfs"}


@each_scenario("record-xfs", "init-first-btrfs", "restore-ext4", "remove-btrfs")
def test_supervisor_counts_every_call_that_strace_sees(
    scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor
) -> None:
    """strace sees the same calls on files of ours as the supervisor, and none that it does not know."""
    world = scenario.world(supervisor, filesystem)
    scenario.prepare(world)
    scenario.run(world)  # the first makes folders that stay
    scenario.prepare(world)
    counted = Counter(call.name for call in scenario.run(world).calls)
    scenario.prepare(world)
    log = world.root / "strace.log"
    command = [sys.executable, "-m", "holo", *scenario.arguments(world), "--json"]
    subprocess.run(
        ["strace", "-f", "-y", "-o", log, "-e", "trace=%file,%desc", *command],
        env=world.cli.environment({"PYTHONDONTWRITEBYTECODE": "1"}),
        cwd=world.root,
        capture_output=True,
        check=True,
    )
    seen: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        call = re.match(rf"\d+ +(\w+)\(.*{re.escape(str(world.root))}", line)
        if call and _may_change(call[1], line):
            seen[call[1]] += 1
    assert seen - Counter(dict.fromkeys({*READS, *HARMLESS}, len(log.read_bytes()))) == counted


def _may_change(name: str, line: str) -> bool:
    if name in ("openat", "openat2"):
        return re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", line) is not None
    return name != "ioctl" or "BTRFS" in line or "FICLONE" in line
