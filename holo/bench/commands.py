"""Run commands one at a time, time them from start to exit, and stop cleanly on a signal."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from types import FrameType

from holo import signals
from holo.errors import HoloError, os_errors_as
from holo.walk import absolute

HOLO = [sys.executable, "-P", "-m", "holo"]
"""-P: commands run in the scratch folder, and what lies there is not to be imported."""


class Interrupted(HoloError):
    """Ctrl-C, SIGTERM or SIGHUP: the exit code tells which, as for every command."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; what was made for measuring is removed")
        self.exit_code = 128 + number


class Runner:
    """Runs commands in ``folder``; while it is entered, signals that end a program only raise in :meth:`check`.

    So nothing that must be finished, cleaning up above all, is cut short. Commands have sessions of their own,
    where the terminal's Ctrl-C does not reach them: it is passed on to the one that runs, which is waited for,
    for holo ends its workers itself.
    """

    def __init__(self) -> None:
        self.folder = ""
        self._heeding = ExitStack()
        self._stopped_by = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Runner:
        self._heeding.enter_context(signals.handled_by(self._stop))
        return self

    def __exit__(self, *_: object) -> None:
        self._heeding.close()
        self.check()

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._stopped_by = self._stopped_by or number
        self._pass_on()

    def _pass_on(self) -> None:
        if self._stopped_by and self._process is not None:
            self._process.send_signal(self._stopped_by if os.name == "posix" else signal.SIGTERM)

    def check(self) -> None:
        """Raises :class:`Interrupted` if it is time to stop."""
        if self._stopped_by:
            raise Interrupted(self._stopped_by)

    def run(self, command: list[str], *, home: str = "") -> tuple[float, str]:
        """Run a command to its end, with a folder of ours as HOLO_HOME; returns seconds and what it printed.

        Raises :class:`HoloError` with what it said if it fails.
        """
        self.check()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            environment = _environment(os.path.join(self.folder, home))
            started = time.perf_counter()
            with os_errors_as(f"cannot run {command[0]}"):
                self._process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                )
            self._pass_on()  # a signal may have come before there was a process to pass it on to
            status = self._process.wait()
            seconds = time.perf_counter() - started
            self._process = None
            self.check()
            if status != 0:
                errors.seek(0)
                raise _failure(command, status, errors.read().decode(errors="replace"))
            output.seek(0)
            return seconds, output.read().decode(errors="replace")


def shown(command: list[str]) -> str:
    """A command as a user would type it."""
    if command[: len(HOLO)] == HOLO:
        command = ["holo", *command[len(HOLO) :]]
    elif command[0] == sys.executable:
        command = ["python", *command[1:]]
    return shlex.join(command)


def _environment(home: str) -> dict[str, str]:
    """The user's, settings included, but with this holo and HOLO_HOME, from whatever folder."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    changed = {"HOLO_HOME": home, "PYTHONPATH": os.pathsep.join(map(absolute, paths))}
    if os.environ.get("HOLO_SETTINGS"):
        changed["HOLO_SETTINGS"] = absolute(os.environ["HOLO_SETTINGS"])
    return {**os.environ, **changed}


def _failure(command: list[str], status: int, said: str) -> HoloError:
    message, hint = f"exit code {status}", None
    for line in said.splitlines():
        if line.startswith("hint: "):
            hint = line.removeprefix("hint: ")
        elif line:
            message = line.removeprefix("error: ")
    return HoloError(f"`{shown(command)}` failed: {message}", hint)
