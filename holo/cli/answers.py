"""How answers about spaces and catalogs look."""

from __future__ import annotations

import textwrap
import time
from calendar import timegm
from typing import TYPE_CHECKING

from holo.cli import render
from holo.errors import printable

if TYPE_CHECKING:
    from holo import Changes, SpaceStatus

_GLUE = "\xa0"
"""A space at which no line ends."""

_UNITS = ((365 * 86400, "year"), (30 * 86400, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def status(found: SpaceStatus, *, detailed: bool) -> None:
    """The state, what has changed, and where it came from."""
    print(f"{found.space}: {found.state}, at {printable(found.path)}")
    if found.changes is not None:
        changes(found.changes, detailed=detailed, indent="  ")
    if found.reason is not None:
        _say(found.reason)
    if found.catalog:
        _say(f"of catalog {found.catalog} ({found.digest[:12]})")
    if found.blueprint is not None:
        _say(f"built from {found.blueprint}")
    times = [f"{word} {ago(when)}" for word, when in (("made", found.made), ("restored", found.restored)) if when]
    if times:
        _say(", ".join(times))
    for path in found.unread:
        render.warn(f"cannot read {found.path}/{path}: what is in it is not compared")


def changes(found: Changes, *, detailed: bool, indent: str = "") -> None:
    """In a few words, and every file if that is wished."""
    if not found.is_empty:
        from holo.cli.chart import width

        phrases = ", ".join(printable(phrase).replace(" ", _GLUE) for phrase in found.summary())
        lines = textwrap.wrap(phrases, width() - len(indent), break_long_words=False, break_on_hyphens=False)
        for line in lines:
            print(indent + line.replace(_GLUE, " "))
    if detailed:
        for change in found.files:
            print(f"{indent}{change.what.ljust(7)}  {printable(change.path)}")


def ago(when: str) -> str:
    """A time (UTC, ISO 8601) as people say it."""
    try:
        seconds = time.time() - timegm(time.strptime(when, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return "at an unknown time"
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{render.count(int(seconds // length), unit)} ago"
    return "just now"


def _say(text: str) -> None:
    print(f"  {printable(text)}")
