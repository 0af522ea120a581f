"""What a command leaves to a process of its own holds nothing of the command's."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from holo import background

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")

SLEEPER = """
import os, pathlib, sys, time

devices = [os.fstat(number).st_rdev for number in range(3)]
pathlib.Path(sys.argv[1] + ".draft").write_text(f"{os.getpid()} {os.getpgid(0)} {devices}")
os.rename(sys.argv[1] + ".draft", sys.argv[1])
time.sleep(60)
"""


def test_nobody_waits_for_it_and_ctrl_c_does_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = tmp_path / "told"
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # as a shell leaves one to its commands by `3>&1`
    background.start("sleeper", str(told))
    os.close(writer)
    while not told.exists():
        time.sleep(0.01)
    pid, group, devices = told.read_text().split(maxsplit=2)
    try:
        assert pid == group
        assert devices == str([os.stat(os.devnull).st_rdev] * 3)
        assert select.select([reader], [], [], 10)[0] == [reader], "somebody would wait for its end"
        assert os.read(reader, 1) == b""
    finally:
        os.kill(int(pid), signal.SIGKILL)
        os.waitpid(int(pid), 0)
        os.close(reader)
