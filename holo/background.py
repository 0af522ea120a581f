"""Work that a command leaves to a process of its own, for which nobody has to wait.

Such a process takes no lock that somebody holds. While it holds one, it looks many times a second whether somebody
waits for it, and then ends at once, as if it were killed. So it may only do what can be killed at any moment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

_LOOK = 0.02
"""Seconds between two looks whether somebody waits."""


def start(module: str, *arguments: str) -> None:
    """Start a module as a process that outlives this one. Raises :class:`OSError`.

    Ctrl-C in this terminal does not reach it. It keeps no descriptor of this process open, so nobody who reads from a
    pipe waits for it.
    """
    command = [sys.executable, "-P", "-X", "utf8", "-m", module, *arguments]
    if sys.platform == "win32":
        from subprocess import DEVNULL, Popen

        _started.append(Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL))
        return
    # subprocess takes 4 ms to import, of 80 that an init with a spare takes.
    os.posix_spawn(
        sys.executable,
        command,
        os.environ,
        file_actions=[
            *((os.POSIX_SPAWN_OPEN, standard, os.devnull, os.O_RDWR, 0) for standard in range(3)),
            *((os.POSIX_SPAWN_CLOSE, other) for other in _inherited()),
        ],
        setpgroup=0,
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
    )


_started: list[object] = []
"""On Windows: nobody waits for them. Forgotten ones would be reported as still running."""


def _inherited() -> list[int]:
    """The descriptors besides the standard ones that a program would get from this one: none that Python has opened."""
    found = []
    with suppress(OSError):  # no /proc
        for name in os.listdir("/dev/fd"):
            with suppress(OSError):  # that of the listing
                if int(name) > 2 and os.get_inheritable(int(name)):
                    found.append(int(name))
    return found


def work_when_idle() -> None:
    """Let this process have what nobody else wants: of the processors and, on Linux, of the disk (ioprio_set(2))."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif hasattr(os, "nice"):
        os.nice(19)


def give_way(is_waited_for: Callable[[], bool]) -> None:
    """Let this process end as soon as somebody waits for what it holds."""

    def look(*_: object) -> None:
        if is_waited_for():
            os._exit(0)

    def look_always() -> None:
        while True:
            look()
            time.sleep(_LOOK)

    if sys.platform == "win32":
        import threading

        threading.Thread(target=look_always, daemon=True).start()
    else:  # a thread might be in the middle of something when a worker is forked
        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
