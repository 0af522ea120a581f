"""What has happened to a space: when holo made and restored it, of what, and by which command.

    .spaces/<name>.history     one JSON array a line, the oldest first

Lines are only added, without a sync, so the last one may be torn by a power cut; a line that cannot be
read is left out. When the file has become long, the first line and the last ones stay. No command goes by what
it says.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any, NamedTuple

from holo import digest as digests
from holo import platform
from holo.errors import MALFORMED
from holo.files import READ, open_file, read, refuse_second_name, write_atomically
from holo.hololib.layout import NAME
from holo.owners import only_we_wrote

LARGEST = 64 << 10
"""Bytes of one history: some 200 events."""

_LONGEST = 300
"""Characters of a command."""


class Event(NamedTuple):
    """One thing that has happened to a space."""

    time: str
    """when it was done: UTC, ISO 8601"""
    what: str
    """``made`` or ``restored``"""
    catalog: str
    """the name of what it holds since then"""
    digest: str
    used: str
    """how: ``snapshot``, ``reflink``, ``hardlink`` or ``copy``"""
    made: int
    """files that were made"""
    removed: int
    """files and the like that were removed"""
    command: str
    """of holo, as it was typed; of another program that did it by the API, the name"""


def add(path: str, event: Event) -> None:
    """Add an event to the file at a path. If that fails, holo merely remembers less."""
    line = json.dumps(event).encode() + b"\n"
    with suppress(OSError):
        descriptor = os.open(path, READ | os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        refuse_second_name(descriptor)  # which closes it then
        try:
            size = os.fstat(descriptor).st_size
            if size:
                os.lseek(descriptor, -1, os.SEEK_END)
                if os.read(descriptor, 1) != b"\n":  # a power cut has torn it
                    line = b"\n" + line
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
        if size + len(line) > LARGEST:
            write_atomically(path, _shortened(_content(path)))


def events(path: str) -> list[Event]:
    """What is known, the oldest first. Damaged lines are left out, and all of what others can have written."""
    found: list[Event] = []
    with suppress(OSError):
        for line in _content(path).split(b"\n"):
            with suppress(*MALFORMED):
                event = Event(*json.loads(line))
                if _is_sound(event):
                    found.append(event)
    return found


def command_line() -> str:
    """The command that this process was called with, without what may be secret: see :attr:`Event.command`."""
    folder, name = os.path.split(sys.argv[0] if sys.argv else "")
    if name == "__main__.py" and os.path.basename(folder) == "holo":
        name = "holo"
    name = name.removesuffix(".exe")
    words = [name]
    if name in ("holo", "holotree"):
        for word in sys.argv[1:]:
            if word == "--":  # what follows is the user's own command
                break
            words.append(_without_secrets(word))
    text = " ".join(words) or "a program"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _without_secrets(word: str) -> str:
    if "://" not in word:
        return word
    from holo.urls import without_secrets

    return without_secrets(word)


def _content(path: str) -> bytes:
    with platform.closing(open_file(path)) as descriptor:
        return read(descriptor, 2 * LARGEST) if only_we_wrote(os.fstat(descriptor)) else b""


def _shortened(data: bytes) -> bytes:
    first, _, rest = data.partition(b"\n")
    return first + b"\n" + rest[len(rest) - LARGEST // 2 :].partition(b"\n")[2]


def _is_sound(event: Event) -> bool:
    texts: list[Any] = [event.time, event.what, event.catalog, event.digest, event.used, event.command]
    return (
        all(type(text) is str and len(text) <= _LONGEST for text in texts)
        and all(type(number) is int and number >= 0 for number in (event.made, event.removed))
        and event.what in ("made", "restored")
        and NAME.fullmatch(event.catalog) is not None
        and digests.is_digest(event.digest)
    )
