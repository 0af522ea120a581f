"""Run the tools of a build. Their output is shown at once, and kept in a log."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from holo import signals, streams
from holo.errors import HoloError, os_errors_as
from holo.urls import hidden

_LONGEST_LINE = 1 << 16
_QUIET = 100
"""Milliseconds without output before holo checks whether a tool is still running."""
_GRACE = 5
"""Seconds that a tool gets to end."""
_LAST_WORDS = 2
"""Seconds to read the last output of a tool that has ended."""


class Log:
    """The log of one build, a new file. ``inherited`` are descriptors that the tools keep open: the lock of the
    build, which is then held for as long as any of them runs, even if holo is killed."""

    def __init__(self, path: str, inherited: Sequence[int] = ()) -> None:
        self.path = path
        self._inherited = tuple(inherited)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        with os_errors_as(f"cannot write the log {path}"):
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._file = os.open(path, flags, 0o600)  # the output is private

    def close(self) -> None:
        os.close(self._file)

    def say(self, message: str) -> None:
        """Show and keep a line of holo's own."""
        self._write(message.encode("utf-8", "surrogateescape") + b"\n")

    def warn(self, message: str) -> None:
        """Keep and show a warning, also to those who want to read of nothing else."""
        self._keep(f"warning: {message}\n".encode("utf-8", "surrogateescape"))
        streams.note(f"warning: {hidden(message)}")

    def run(self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, name: str | None = None) -> None:
        """Run a tool to its end. Raises :class:`HoloError` if it fails, with its ``name`` and that of the log."""
        self._keep(b"$ " + shlex.join(command).encode("utf-8", "surrogateescape") + b"\n")
        process = None
        try:
            with signals.deferred():  # a signal during the start would leave a tool that nobody ends
                process = self._start(command, env, cwd)
            self._pass_on(process)
            code = process.wait()
        except BaseException:  # Ctrl-C reaches the tools as well, but some ignore it; other signals reach only holo
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
        with os_errors_as(f"cannot run {command[0]}"):
            return subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=self._inherited if os.name == "posix" else (),
            )

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        """By lines, so that no secret is cut in two. Those of a progress bar end with a carriage return."""
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
        with os_errors_as(f"cannot write the log {self.path}"):
            os.write(self._file, _hidden(data))


def _hidden(data: bytes) -> bytes:
    return hidden(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _words(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """The output of a tool until it ends. A process that it leaves behind may hold the pipe forever."""
    assert process.stdout is not None
    source = process.stdout.fileno()
    poll = _poll_for(source)
    end: float | None = None
    while end is None or time.monotonic() < end:
        if poll is None or poll(_QUIET):
            if not (piece := os.read(source, 1 << 16)):
                return
            yield piece
        elif end is not None:
            break
        if poll is not None and end is None and process.poll() is not None:
            end = time.monotonic() + _LAST_WORDS
    yield b"warning: it left a process behind; holo does not wait for that\n"


def _poll_for(source: int) -> Callable[[int], object] | None:
    """Waits so many milliseconds for output; nothing on Windows, where a pipe can only be read to its end."""
    if sys.platform == "win32":
        return None
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return poll.poll


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a tool and all its descendants, killing those that take more than 5 seconds. None writes afterwards."""
    if sys.platform == "linux":
        from holo.platform import processes

        family = processes.ask_to_end(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    process.kill()
    process.wait()
    if sys.platform == "linux":
        processes.wait_for(family, _GRACE)
