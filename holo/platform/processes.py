"""End a process and all its descendants. Linux only: other systems do not tell who started whom."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

from holo.platform import namespaces

assert sys.platform == "linux"


def ask_to_end(process: int) -> list[int]:
    """Send SIGTERM to a process and all its descendants. Returns handles of them for :func:`wait_for`."""
    doomed = _stop(process)
    handles = _handles(doomed)  # while they are stopped: the number of an ended process can become another's
    for pid in doomed:
        _send(pid, signal.SIGTERM, signal.SIGCONT)
    return handles


def wait_for(handles: list[int], seconds: float) -> None:
    """Wait for processes to end. Kill those that take longer than that."""
    end = time.monotonic() + seconds
    for handle in handles:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def _stop(process: int) -> list[int]:
    """Stop a process and all its descendants, so that none can start another one unnoticed. Returns their numbers."""
    stopped: list[int] = []
    while found := [pid for pid in (process, *namespaces.descendants(process)) if pid not in stopped]:
        for pid in found:
            _send(pid, signal.SIGSTOP)
        stopped += found
    return stopped


def _handles(processes: list[int]) -> list[int]:
    found = []
    for process in processes:
        with suppress(OSError):  # before Linux 5.3 there are none: the process is asked to end, and never killed
            found.append(os.pidfd_open(process))
    return found


def _send(process: int, *signals: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended, or is another user's
        for number in signals:
            os.kill(process, number)
