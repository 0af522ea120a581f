"""How far a long command is: a bar on a terminal, or for machines one JSON object a line on stderr."""

from __future__ import annotations

import enum
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from holo import streams

if TYPE_CHECKING:
    from typing import TypeAlias

    from rich.progress import Progress

    OnProgress: TypeAlias = Callable[[int, int], None]

_PAUSE = 0.1
"""Seconds between two lines for machines, at least; the last one is always told."""


class Form(enum.StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    JSON = "json"


@contextmanager
def progress(
    command: str,
    doing: str,
    unit: str,
    *,
    form: Form,
    quiet: bool,
    requests: Callable[[], int] | None = None,
) -> Iterator[OnProgress | None]:
    """What a command is to call with what is done and what there is in all, in that unit; ``None`` if nobody looks.

    ``quiet``: no bar, for the report is for machines. ``requests``: how many a remote has been asked, so far.
    """
    if form is Form.JSON:
        yield _Lines(command, unit, requests)
        return
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    shown = _Bar(doing, requests)
    try:
        yield shown
    finally:
        shown.close()


class _Lines:
    """One JSON object a line."""

    def __init__(self, command: str, unit: str, requests: Callable[[], int] | None) -> None:
        self._command = command
        self._unit = unit
        self._requests = requests
        self._told = 0.0
        self._done = -1

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == self._done or (done < total and now - self._told < _PAUSE):
            return
        self._told, self._done = now, done
        event = {"event": "progress", "command": self._command, "unit": self._unit, "done": done, "total": total}
        if self._requests is not None:
            event["requests"] = self._requests()
        streams.say(json.dumps(event))


class _Bar:
    """Rich's bar, drawn by us: its own refreshing would be a thread, and workers are forked."""

    def __init__(self, what: str, requests: Callable[[], int] | None) -> None:
        self._what = what
        self._requests = requests
        self._bar: Progress | None = None
        self._is_seen = True

    def __call__(self, done: int, total: int) -> None:
        if self._is_seen:
            try:
                self._draw(done, total)
            except OSError:  # the terminal was closed: SIGHUP says what that means, if it is heeded
                self._is_seen = False

    def _draw(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._task = self._bar.add_task(self._what, total=total)
            self._bar.live.start()
        what = self._what if self._requests is None else f"{self._what} ({self._requests():,} requests)"
        self._bar.update(self._task, completed=done, total=total, description=what)
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()
