"""The tests pass whatever they inherit from whoever starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The C library keeps the rest (32 and 33 with glibc) to itself: no program can change what it inherited of them.
NAMEABLE = sum(1 << number - 1 for number in signal.valid_signals())

ASKS = "import os, signal, sys; print(open('/proc/self/status').read(), os.umask(0), *os.environ)"

IGNORES = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
os.umask(0o077)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells in a file")
def test_nothing_is_inherited() -> None:
    said = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True).stdout
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    by_python = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert int(status["SigIgn"], 16) & NAMEABLE == by_python
    assert int(status["SigBlk"], 16) & NAMEABLE == 0
    umask, *variables = said.splitlines()[-1].split()
    assert int(umask) == 0o022
    assert {name for name in variables if name.startswith("PYTHON")} <= {"PYTHONPATH", "PYTHONHOME"}


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_inherited_from_an_unfriendly_parent(workers: int, tmp_path: Path) -> None:
    """Nor by the workers of pytest-xdist."""
    inner = f"{__file__}::test_nothing_is_inherited"
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}", f"--numprocesses={workers}"]
    done = subprocess.run(
        [sys.executable, "-c", IGNORES, sys.executable, "-m", "pytest", *options, inner],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
