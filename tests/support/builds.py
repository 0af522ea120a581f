"""Builds that are stopped: by Ctrl-C, as a terminal sends it, by SIGTERM, and by kill -9."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from support.cli import Holo


def start(holo: Holo, blueprint: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Make a space ``space`` of a blueprint, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "holo", "init", "--space", "space", blueprint],
        env=holo.environment(env),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted_at(word: str, process: subprocess.Popen[str], *, alone: signal.Signals | None = None) -> str:
    """Send SIGINT to all of its group when it has printed a line that is ``word``; what it prints after that.

    Or, to holo ``alone``, another signal.

    Asserts that no process of the group is left.
    """
    assert process.stderr is not None
    while (line := process.stderr.readline()).strip() != word:
        assert line, "it ended by itself"
    time.sleep(0.4)  # dash loses a signal that comes while it starts a program
    if alone is None:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(alone)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + (alone or signal.SIGINT)
    deadline = time.monotonic() + 10  # whoever is left has the signal, but may not have ended yet
    while _is_there(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return stderr


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def killed_at_any_moment(holo: Holo, blueprint: Path, count: int, check: Callable[[], None], **env: str) -> None:
    """Kill the build ``count`` times, alone or with its tools; the next one must leave a space that is as it should."""
    began = time.monotonic()
    _again(holo, blueprint, check, env)
    took = time.monotonic() - began
    rng = random.Random(7)
    for number in range(count):
        process = start(holo, blueprint, env)
        time.sleep(took * (number + rng.random()) / count)
        if number % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()
        holo("check")
        _again(holo, blueprint, check, env)


def _again(holo: Holo, blueprint: Path, check: Callable[[], None], env: Mapping[str, str]) -> None:
    """Build it, check the space, and remove all that there is then."""
    holo("init", "--space", "space", blueprint, env=env)
    check()
    holo("delete", "--space", "space")
    holo("gc", "--keep-last", "0")
    assert [*holo.holotree.glob(".build-*")] == []  # killed after the record, only gc removes it
    assert [*(holo.library / "builds").iterdir()] == []
    assert [path for path in (holo.library / "library").rglob("*") if path.is_file()] == []
