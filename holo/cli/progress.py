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

_PATIENCE = 0.3
"""Seconds without a bar. Most commands have ended by then, and loading Rich takes a part of that."""


class Form(enum.StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    JSON = "json"


@contextmanager
def progress(
    command: str, doing: str, unit: str, *, form: Form, quiet: bool, requests: Callable[[], int] | None = None
) -> Iterator[OnProgress | None]:
    """What a command is to call with what is done and what there is in all, in that unit; ``None`` if nobody looks.

    ``quiet``: no bar, for the report is for machines. ``requests``: how many a remote has been asked, so far.
    """
    if form is Form.JSON:
        yield _Lines(command, unit, requests)
        return
    if quiet or streams.is_quiet() or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    shown = _Bar(doing, unit, requests)
    try:
        yield shown
    finally:
        shown.close()


class _Lines:
    """One JSON object a line."""

    bytes = 0
    """of the files that are done: set by who counts files, before each call"""

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
        if self.bytes:
            event["bytes"] = self.bytes
        if self._requests is not None:
            event["requests"] = self._requests()
        streams.say(json.dumps(event))


class _Bar:
    """Rich's bar, drawn by us: its own refreshing would be a thread, and workers are forked."""

    bytes = 0
    """as in :class:`_Lines`"""

    def __init__(self, what: str, unit: str, requests: Callable[[], int] | None) -> None:
        self._what = what
        self._unit = unit
        self._requests = requests
        self._began = time.monotonic()
        self._bar: Progress | None = None
        self._is_seen = True

    def __call__(self, done: int, total: int) -> None:
        if self._is_seen and time.monotonic() - self._began >= _PATIENCE:
            try:
                self._draw(done, total)
            except OSError:  # the terminal was closed: SIGHUP says what that means, if it is heeded
                self._is_seen = False

    def _draw(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[amount]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
            self._task = self._bar.add_task(self._what, total=total, amount="")
            self._bar.live.start()
        self._bar.update(self._task, completed=done, total=total, amount=self._amount(done, total))
        self._bar.refresh()

    def _amount(self, done: int, total: int) -> str:
        """How much is done, and how much a second."""
        from holo.cli.render import size

        seconds = max(time.monotonic() - self._began, 0.001)
        if self._unit == "bytes":
            parts = [f"{size(done)} of {size(total)}", f"{size(done / seconds)}/s"]
        else:
            parts = [f"{done:,}/{total:,} {self._unit}"]
            parts += [size(self.bytes), f"{size(self.bytes / seconds)}/s"] if self.bytes else []
        if self._requests is not None:
            parts.append(f"{self._requests():,} requests")
        return ", ".join(parts)

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()
