"""The recorded session of docs/session.cast: played in a real shell on a terminal, and written anew.

The format is asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2/): a header, then one event a line. What holo
and the others print comes when it came; only the typing is made up.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import NamedTuple

import pexpect

from support.consoles import HOME, ROOT, Failed, World, a_world
from support.repositories import ADA

CAST = ROOT / "docs" / "session.cast"

COMMANDS = """\
# A project with uv; its environment is a space of holo.
uv init --quiet --lib shop && cd shop
uv add --quiet --dev pytest && git add . && git commit --quiet --message shop
rm -r .venv && holo init shop --quiet --to .venv
# Two worktrees, each with an environment of its own.
holo worktree add ../fast
holo worktree add ../cheap
# An edit in one is seen by that one alone.
sed -i s/Hello/Fast/ ../fast/src/shop/__init__.py
cat > test_shop.py <<< 'import shop; test = lambda: print(shop.hello(), shop.__file__)'
cp test_shop.py ../fast; cp test_shop.py ../cheap
cd ../fast && holo run -- pytest -qs --no-header test_shop.py
cd ../cheap && holo run -- pytest -qs --no-header test_shop.py
# What has changed in this environment? And against the other one?
holo run -- uv pip install --quiet cowsay && holo status
holo diff ../fast/.venv .venv
# Undo that.
holo restore && holo status
# Done with both.
cd ../shop
holo worktree remove ../fast --force
holo worktree remove ../cheap --force
holo list && holo delete shop
"""

_WIDTH, _HEIGHT = 88, 26
_PROMPT = "\x1b[1;32m$\x1b[0m "
_SHOWN = re.compile(r"(?:\x1b\[\?2004[hl]\r?)?\x1b\[1;32m\$\x1b\[0m ")
_KEY, _READING = 0.04, 1.2
"""Seconds for each key, and before the next command."""


class Event(NamedTuple):
    """What came to the screen, and when (seconds since the beginning)."""

    seconds: float
    text: str


def play(world: World) -> list[Event]:
    """Run the session in Ada's home."""
    environment = world.environment()
    path = f"{environment['PATH']}:{os.path.dirname(sys.executable)}"  # where uv is
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "--noediting"],
        cwd=str(world.home),
        env={**environment, **ADA, "PATH": path, "PS1": _PROMPT, "TERM": "xterm-256color", "NO_COLOR": "1"},
        dimensions=(_HEIGHT, _WIDTH),
        encoding="utf-8",
        echo=False,
        timeout=300,
    )
    shell.expect(_SHOWN)
    now = 0.0
    events = [Event(now, _PROMPT)]
    for command in COMMANDS.splitlines():
        for key in command:
            now += _KEY
            events.append(Event(now, key))
        events.append(Event(now, "\r\n"))
        started = time.monotonic()
        shell.sendline(command)
        shell.expect(_SHOWN)
        now += time.monotonic() - started
        events += [Event(now, _public(shell.before, world)), Event(now, _PROMPT)]
        now += 0 if command.startswith("#") else _READING
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    return [event for event in events if event.text]


def screen(events: list[Event]) -> str:
    """All that came to the screen, as text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "".join(event.text for event in events)).replace("\r\n", "\n")


def read() -> list[Event]:
    """The events of the recorded session."""
    _, *lines = CAST.read_text("utf-8").splitlines()
    return [Event(seconds, text) for seconds, _, text in map(json.loads, lines)]


def _public(text: str, world: World) -> str:
    return text.replace(str(world.home), HOME)


def _write(events: list[Event]) -> None:
    header = {"version": 2, "width": _WIDTH, "height": _HEIGHT, "title": "holo: an environment for each worktree"}
    lines = [json.dumps(header), *(json.dumps([round(seconds, 3), "o", text]) for seconds, text in events)]
    CAST.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    try:
        with a_world() as world:
            _write(play(world))
    except Failed as error:
        sys.exit(f"error: {error}")
