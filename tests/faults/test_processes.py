"""Which processes holo ends: those that a command or a tool has started, and no others, whatever /proc shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import trees
from support.cli import Holo

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces"),
    pytest.mark.parametrize("filesystem", ["local"], indirect=True),
]

NAMESPACE = ("unshare", "--pid", "--fork")
SEES = {
    "its own": (*NAMESPACE, "--mount-proc"),
    "that around it": NAMESPACE,
    "another one": ("nsenter", "--mount=/proc/{elsewhere}/ns/mnt", *NAMESPACE),
    "none": (*NAMESPACE, "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"),
}
"""Whose processes /proc shows. In the first two, those of holo are among them."""

BEGIN = """
import os, subprocess, sys, time
taken, child, root, *command = sys.argv[1:]

def start(number, command):
    # There is one place for it, whatever /proc shows: its own namespace's is meant.
    with open(root + "/ns_last_pid", "w") as last:
        last.write(str(int(number) - 1))
    process = subprocess.Popen(command)
    assert process.pid == int(number)
    return process

def report():
    said = "others live" if others.poll() is None else "others were ended"
    if os.path.exists(root + "/left"):
        left = int(open(root + "/left").read())
        try:
            os.waitpid(left, os.WNOHANG)  # process 1, which is this one, gets every orphan
            os.kill(left, 0)
            said += " left lives"
        except (ChildProcessError, ProcessLookupError):
            pass
    return said

others = start(child, ["sleep", "600"])
"""
"""Process 1 of a namespace. What is none of holo's gets the number ``child``, and holo or a tool the number ``taken``:
outside, that is the parent of ``child``."""

RUN = """
print(start(taken, command).wait(), report())
"""

BUILD = """
import signal
from holo.blueprints.log import Log
log = Log(root + "/log")
with open(root + "/ns_last_pid", "w") as last:
    last.write(str(int(taken) - 1))

def stop(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try:
    log.run(command, env=dict(os.environ), cwd=root)
except KeyboardInterrupt:
    pass
print(report())
"""

LEAVE = 'sleep 600 > /dev/null 2>&1 & echo $! > "$1/left"'


@pytest.fixture
def outside() -> Iterator[tuple[str, str]]:
    """The numbers of a process and of its child, outside of every namespace of a test."""
    parent = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = parent.stdout.readline().strip()
    try:
        yield str(parent.pid), child
    finally:
        os.kill(int(child), signal.SIGTERM)
        parent.communicate()


@contextmanager
def elsewhere() -> Iterator[int]:
    """A process of another PID namespace, with a /proc for that."""
    process = subprocess.Popen(
        [*NAMESPACE, "--mount-proc", "--kill-child", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process.pid  # it has entered the mount namespace itself
    finally:
        process.kill()
        process.communicate()


def inside(script: str, sees: str, outside: tuple[str, str], holo: Holo, *command: str) -> tuple[list[str], str]:
    """What a script says, and writes to stderr, that is process 1 of a new namespace, in which all ends with it."""
    last = holo.root / "ns_last_pid"
    last.touch()
    subprocess.run(["mount", "--bind", "/proc/sys/kernel/ns_last_pid", last], check=True)
    try:
        with elsewhere() as process:
            done = subprocess.run(
                [
                    *(part.format(elsewhere=process) for part in SEES[sees]),
                    *(sys.executable, "-c", BEGIN + script, *outside, holo.root, *command),
                ],
                env=holo.environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
    finally:
        subprocess.run(["umount", last], check=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split(), done.stderr


@pytest.mark.parametrize("sees", SEES)
def test_throw_away_environment_ends_only_its_own_processes(holo: Holo, outside: tuple[str, str], sees: str) -> None:
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    holo("init", "--space", "one", "env")
    run = (sys.executable, "-m", "holo", "run", "--ephemeral", "--space", "one", "--", "sh", "-c", LEAVE, "sh")
    said, errors = inside(RUN, sees, outside, holo, *run, str(holo.root))
    if sees in ("its own", "that around it"):
        assert said == ["0", "others", "live"]
    else:  # nothing is begun that could not be ended
        assert said == ["1", "others", "live"]
        assert "Mount /proc first" in errors
        assert not (holo.root / "left").exists()
        assert [path.name for path in holo.holotree.glob("ephemeral-*")] == []


@pytest.mark.parametrize("sees", SEES)
def test_build_ends_only_its_own_processes(holo: Holo, outside: tuple[str, str], sees: str) -> None:
    tool = ("sh", "-c", f"{LEAVE}; wait", "sh", str(holo.root))
    said, _ = inside(BUILD, sees, outside, holo, *tool)
    # Where nobody tells who it is that the tool has started, it is not ended, and nor is anything in its place.
    left = [] if sees in ("its own", "that around it") else ["left", "lives"]
    assert said == ["others", "live", *left]


def test_tool_that_ignores_signals_is_killed(holo: Holo) -> None:
    script = """
import signal, sys
from holo.blueprints import log
log._GRACE = 1
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try:
    log.Log(sys.argv[1] + "/log").run(sys.argv[2:], env={"PATH": "/usr/bin:/bin"}, cwd=sys.argv[1])
except KeyboardInterrupt:
    print("ended")
"""
    stubborn = 'trap "" TERM INT; (trap "" TERM INT; echo $(sh -c "echo \\$PPID") > left; while :; do sleep 0.1; done)'
    done = subprocess.run(
        [sys.executable, "-c", script, holo.root, "sh", "-c", stubborn], capture_output=True, text=True, check=True
    )
    assert done.stdout == "ended\n"
    left = int((holo.root / "left").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{left}").exists() and "zombie" not in Path(f"/proc/{left}/status").read_text():
        assert time.monotonic() < deadline, "it lives"
        time.sleep(0.05)
