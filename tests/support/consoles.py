"""The console blocks of README.md and docs/: run for real, compared with what they show, and written anew.

The blocks of a page are one session in a shell. It begins in Ada's ``~/app``, on Btrfs, with a virtualenv in ``.venv``
and no library. What lies in ``/tmp`` is on another filesystem. A block shows its commands after ``$ `` and what they
print; an HTML comment directly before it, ``<!-- console``, holds commands that prepare it and are not shown.

Seconds, digests, times and numbers differ between machines, so a comparison takes any two of them for equal, but a
number for no zero.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import filesystems, venvs
from support.cli import FOREIGN

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    if "\n```console\n" in page.read_text("utf-8")
]

_BLOCK = re.compile(
    r"(?:^<!-- console\n(?P<setup>.*?)^-->\n)?^```console\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
HOME = "/home/ada"

_VARIABLE = (
    (r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME"),
    (r"(?<![0-9a-f])[0-9a-f]{10,}(?![0-9a-f])", "DIGEST"),
    (r"(?<![\w.-])[\d.]+ s\b", "SECONDS"),
    (r"(?<![\w.-])(?!0\b(?!\.))\d[\d,]*(?:\.\d+)*(?: (?:B|[kMG]B)\b)?", "NUMBER"),
    (r"  +", "  "),  # columns are as wide as the paths in them
)


class Failed(Exception):
    """A session did not come to its end; the message has what it printed."""


@dataclass(frozen=True)
class World:
    """Where a session happens."""

    home: Path
    """Ada's home: an empty folder on Btrfs"""
    elsewhere: Path
    """what stands for /tmp: an empty folder on another filesystem"""

    def furnish(self, virtualenv: Path) -> None:
        """Make ``~/app`` with a clone of the virtualenv."""
        (self.home / "app").mkdir(parents=True)
        self._run(f"holo clone --relocate {virtualenv} .venv")

    def install(self) -> None:
        """Put holo on the PATH."""
        tools = self.elsewhere / "tools"
        tools.mkdir()
        (tools / "holo").write_text(f'#!/bin/sh\nexec {sys.executable} -m holo "$@"\n', encoding="utf-8")
        (tools / "holo").chmod(0o755)

    def sh(self, script: str) -> str:
        """Run a script of Ada's in ``~/app``; what it prints, to whichever stream."""
        printed = self._run(script.replace("/tmp/", f"{self.elsewhere}/").replace(HOME, str(self.home)))
        return printed.replace(str(self.elsewhere), "/tmp").replace(str(self.home), HOME)

    def _run(self, script: str) -> str:
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=self.home / "app",
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(done.stdout.decode())
        return done.stdout.decode()

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith((*FOREIGN, "PYTHON", "PIP_"))}
        return {
            **kept,
            "COLUMNS": "110",  # or what is shortened would depend on how old things are
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{self.elsewhere}/tools:{os.environ['PATH']}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "PYTHONPATH": str(ROOT),
        }


def rendered(page: str, world: World) -> str:
    """The text of a page with what its commands print today."""
    script = ["set -e"]
    for block in _BLOCK.finditer(page):
        script.append(block["setup"] or "")
        script += [f"printf '\\0'\nset +e\n{command}\nset -e\nprintf '\\0'" for command in _commands(block["text"])]
    printed = iter(world.sh("\n".join(script)).split("\0")[1::2])  # the others are what the preparations print

    def anew(block: re.Match[str]) -> str:
        text = "".join(f"$ {command}\n{next(printed)}" for command in _commands(block["text"]))
        start, end = (place - block.start() for place in block.span("text"))
        return f"{block[0][:start]}{text}{block[0][end:]}"

    return _BLOCK.sub(anew, page)


def differences(page: str, now: str) -> list[str]:
    """What is not current in the blocks of a page, as lines of a diff."""
    shown, real = (
        [line for block in _BLOCK.finditer(text) for line in comparable(block["text"]).splitlines()]
        for text in (page, now)
    )
    return list(difflib.unified_diff(shown, real, "shown", "real", lineterm=""))


def _commands(text: str) -> list[str]:
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def comparable(text: str) -> str:
    for pattern, word in _VARIABLE:
        text = re.sub(pattern, word, text)
    return text


# -- by hand ----------------------------------------------------------------------------------------------


@contextmanager
def a_world() -> Iterator[World]:
    """A world of its own. Its home has a path as long as Ada's, so that columns are as wide."""
    home = Path("/tmp", secrets.token_hex(2))
    home.mkdir(mode=0o700)
    try:
        filesystems.mount_new("btrfs", filesystems.IMAGE_SIZE, home)
        try:
            with tempfile.TemporaryDirectory(prefix="holo-") as elsewhere:
                world = World(home, Path(elsewhere))
                world.install()
                yield world
        finally:
            filesystems.unmount(home)
    finally:
        home.rmdir()


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the console blocks of README.md and docs/.")
    parser.add_argument("--write", action="store_true", help="write what they print to the pages")
    write = parser.parse_args().write
    stale = 0
    with tempfile.TemporaryDirectory(prefix="holo-") as folder:
        virtualenv = Path(folder, "venv")
        venvs.make(virtualenv)
        for page in PAGES:
            shown = page.read_text(encoding="utf-8")
            with a_world() as world:
                world.furnish(virtualenv)
                now = rendered(shown, world)
            if changed := differences(shown, now):
                stale += 1
                sys.stdout.write("\n".join([f"{page.relative_to(ROOT)}:", *changed, ""]))
            if write:
                page.write_text(now, encoding="utf-8")
    return 0 if write else min(stale, 1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, filesystems.Unavailable) as error:
        sys.exit(f"error: {error}")
