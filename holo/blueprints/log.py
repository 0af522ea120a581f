"""Run the tools of a build: their output is shown as it comes, and kept."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from holo import signals, streams
from holo.blueprints.canonical import hidden
from holo.errors import HoloError

_LONGEST_LINE = 1 << 16
_QUIET = 100
"""Milliseconds without a word before it is asked whether a tool is still there."""
_GRACE = 5
"""Seconds for a tool to end when it is told to."""
_LAST_WORDS = 2
"""Seconds for what it said before it ended."""


class Log:
    """The log of one build, a new file. ``inherited`` are descriptors that the tools keep open: the lock of the
    build, which then is held for as long as anybody writes to the stage, whatever becomes of holo."""

    def __init__(self, path: str, inherited: Sequence[int] = ()) -> None:
        self.path = path
        self._inherited = tuple(inherited)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._file = os.open(path, flags, 0o600)  # what tools print is nobody else's business
        except OSError as error:
            raise HoloError(f"cannot write the log {path}: {error.strerror}") from error

    def close(self) -> None:
        os.close(self._file)

    def say(self, message: str) -> None:
        """A line of our own, shown and kept."""
        self._write(message.encode("utf-8", "surrogateescape") + b"\n")

    def run(self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, name: str | None = None) -> None:
        """Run a tool to its end. Raises :class:`HoloError` if it fails, with its ``name`` and that of the log."""
        self._keep(b"$ " + shlex.join(command).encode("utf-8", "surrogateescape") + b"\n")
        process = None
        try:
            with signals.deferred():  # one that came while it is started would leave a tool that nobody ends
                process = self._start(command, env, cwd)
            self._pass_on(process)
            code = process.wait()
        except BaseException:  # Ctrl-C reaches the tools as well, but not every tool listens; others are for us alone
            if process is not None:
                _end(process)
            raise
        finally:
            if process is not None and process.stdout is not None:
                process.stdout.close()
        if code != 0:
            self._keep(f"exit {code}\n".encode())
            how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
            what = hidden(name or os.path.basename(command[0]))
            raise HoloError(f"the build failed: {what} {how}", f"Its log: {self.path}")

    def _start(self, command: Sequence[str], env: Mapping[str, str], cwd: str) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=self._inherited if os.name == "posix" else (),
            )
        except OSError as error:
            raise HoloError(f"cannot run {command[0]}: {error.strerror}") from error

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        """By lines, so that no secret is cut in two; a progress bar's end with a carriage return."""
        left = b""
        for piece in _words(process):
            *lines, left = re.split(rb"(?<=[\r\n])", left + piece)
            if len(left) > _LONGEST_LINE:
                lines, left = [*lines, left], b""
            self._write(b"".join(lines))
        self._write(left)

    def _write(self, data: bytes) -> None:
        data = _hidden(data)
        self._keep(data)
        if data:
            streams.show(data)

    def _keep(self, data: bytes) -> None:
        try:
            os.write(self._file, _hidden(data))
        except OSError as error:
            raise HoloError(f"cannot write the log {self.path}: {error.strerror}") from error


def _hidden(data: bytes) -> bytes:
    return hidden(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _words(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What a tool says until it has ended. What it leaves behind may hold the pipe, and go on to write, forever."""
    assert process.stdout is not None
    source = process.stdout.fileno()
    poll = select.poll() if os.name == "posix" else None  # elsewhere a pipe cannot be asked: its end is waited for
    if poll is not None:
        poll.register(source, select.POLLIN)
    end: float | None = None
    while end is None or time.monotonic() < end:
        if poll is None or poll.poll(_QUIET):
            if not (piece := os.read(source, 1 << 16)):
                return
            yield piece
        elif end is not None:
            break
        if poll is not None and end is None and process.poll() is not None:
            end = time.monotonic() + _LAST_WORDS
    yield b"warning: it has left a process behind, which is not waited for\n"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a tool and what it has started; what takes more than 5 seconds is killed. Nothing of it writes afterwards."""
    doomed = _stop(process.pid) if sys.platform == "linux" else []
    handles = _handles(doomed)  # as long as they are stopped: of one that has ended, the number can be another's
    process.terminate()
    for pid in doomed:
        _send(pid, signal.SIGTERM, signal.SIGCONT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    process.kill()
    process.wait()
    if handles:
        _wait_for(handles)


def _handles(doomed: list[int]) -> list[int]:
    found = []
    for pid in doomed:
        with suppress(OSError):  # before Linux 5.3 there are none: it is told to end, and not killed
            found.append(os.pidfd_open(pid))
    return found


def _wait_for(handles: list[int]) -> None:
    """Wait for processes to end, and kill those that take too long."""
    end = time.monotonic() + _GRACE
    for handle in handles:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def _stop(process: int) -> list[int]:
    """Stop a process and all that it has started, so that none starts another one unseen. Returns which."""
    from holo.platform.namespaces import descendants

    stopped: list[int] = []
    while found := [pid for pid in (process, *descendants(process)) if pid not in stopped]:
        for pid in found:
            _send(pid, signal.SIGSTOP)
        stopped += found
    return stopped


def _send(process: int, *signals: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended, or is another user's
        for number in signals:
            os.kill(process, number)
