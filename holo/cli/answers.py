"""How answers about spaces and catalogs look."""

from __future__ import annotations

import base64
import stat
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING

from holo.cli import render
from holo.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holo import Changes, Entry, SpaceHistory, SpaceStatus

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
    for warning in found.warnings:
        render.warn(warning)
    for path in found.unread:
        render.warn(f"cannot read {found.path}/{path}: what is in it is not compared")


def changes(found: Changes, *, detailed: bool, indent: str = "") -> None:
    """In a few words, and every file if that is wished."""
    if not found.is_empty:
        import textwrap

        from holo.cli.chart import width

        phrases = ", ".join(printable(phrase).replace(" ", _GLUE) for phrase in found.summary())
        lines = textwrap.wrap(phrases, width() - len(indent), break_long_words=False, break_on_hyphens=False)
        for line in lines:
            print(indent + line.replace(_GLUE, " "))
    if detailed:
        for change in found.files:
            print(f"{indent}{change.what.ljust(7)}  {printable(change.path)}")


def entries(found: Iterable[Entry]) -> None:
    """As `ls -l` does it."""
    kinds = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
    rows = [
        (stat.filemode(kinds.get(entry.kind, 0) | entry.mode), f"{entry.size:,}", _date(entry.mtime), _named(entry))
        for entry in found
    ]
    width = max((len(row[1]) for row in rows), default=0)
    for mode, size, date, name in rows:
        print(f"{mode}  {size.rjust(width)}  {date}  {printable(name)}")


def content(path: str, pieces: Iterable[bytes], as_json: bool) -> None:
    """Byte for byte; or in a document."""
    if as_json:
        data = b"".join(pieces)
        render.document({"path": path, "size": len(data), "base64": base64.b64encode(data).decode()})
        return
    sys.stdout.flush()
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def history(found: SpaceHistory) -> None:
    """One event after the other, the oldest first."""
    print(f"{found.space} at {printable(found.path)}")
    if found.blueprint is not None:
        _say(f"built from {found.blueprint}")
    for event in found.events:
        what = f"{event.what} of" if event.what == "made" else f"{event.what} to"
        done = [
            f"{render.count(number, 'file')} {word}"
            for number, word in ((event.made, "made"), (event.removed, "removed"))
            if number
        ]
        how = f" by {event.used}" if event.made else ""
        print(f"{event.time}  {what} {event.catalog} ({event.digest[:12]}){how}: {', '.join(done) or 'nothing to do'}")
        if event.command:
            _say(event.command)


def _named(entry: Entry) -> str:
    name = entry.path.rpartition("/")[2] + ("/" if entry.kind == "directory" else "")
    return name if entry.target is None else f"{name} -> {entry.target}"


def _date(mtime: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(mtime // 1_000_000_000))
    except (OverflowError, ValueError, OSError):  # no calendar has that year
        return "?".ljust(16)


def ago(when: str) -> str:
    """A time (UTC, ISO 8601) as people say it."""
    try:
        seconds = time.time() - datetime.fromisoformat(when).timestamp()
    except (ValueError, OverflowError):
        return "at an unknown time"
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{render.count(int(seconds // length), unit)} ago"
    return "just now"


def _say(text: str) -> None:
    print(f"  {printable(text)}")
