"""Progress for machines: lines of JSON on stderr, whatever else a command prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import trees
from support.cli import Holo

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

COMMANDS = {
    "record": ["record", "{tree}", "--name", "again"],
    "init": ["init", "--space", "new", "app"],
    "restore": ["restore", "--space", "there", "--strategy", "copy"],
    "export": ["export", "app", "-o", "{root}/app.holo"],
    "import": ["import", "{root}/before.holo", "--name", "other"],
    "check": ["check"],
    "verify": ["verify", "app"],
    "push": ["push", "app", "{root}/remote"],
    "pull": ["pull", "far", "{root}/shared"],
    "remote check": ["remote", "check", "{root}/shared", "--read"],
    "remote gc": ["remote", "gc", "{root}/shared"],
}


@pytest.fixture
def ready(holo: Holo) -> Holo:
    """A library with a catalog and a changed space; a bundle, an empty remote, and one with a catalog."""
    for name, number in (("tree", 70), ("other", 70)):
        for index in range(number):
            trees.write(holo.root / name / f"folder-{index % 7}" / f"file-{index}", f"{name} {index}\n" * 50)
    holo("record", holo.root / "other", "--name", "far")
    (holo.root / "shared").mkdir()
    (holo.root / "remote").mkdir()
    holo("push", "far", holo.root / "shared")
    holo("export", "far", "-o", holo.root / "before.holo")
    holo("catalogs", "--remove", "far")
    holo("gc")
    holo("record", holo.root / "tree", "--name", "app")
    space = Path(holo("init", "--space", "there", "app", "--json").json()["path"])
    trees.write(space / "folder-1" / "file-1", "changed")
    return holo


def events(stderr: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("command", COMMANDS)
def test_progress_is_told_up_to_the_end(ready: Holo, command: str) -> None:
    places = {"tree": ready.root / "tree", "root": ready.root}
    done = ready(*(argument.format(**places) for argument in COMMANDS[command]), "--progress", "json", "--json")
    done.json()  # one document, and nothing else
    told = events(done.stderr)
    assert told
    assert {(event["event"], event["command"]) for event in told} == {("progress", command)}
    assert len({event["unit"] for event in told}) == 1
    counts = [event["done"] for event in told]
    assert counts == sorted(set(counts))
    assert counts[-1] == told[-1]["total"] > 0
    assert all(("requests" in event) is command.startswith(("push", "pull", "remote")) for event in told)


def test_nothing_is_told_unasked(ready: Holo) -> None:
    done = ready("pull", "far", ready.root / "shared")
    assert events(done.stderr) == []
    assert "{" not in done.stdout


def test_a_remote_tells_bytes_and_requests(ready: Holo) -> None:
    done = ready("pull", "far", ready.root / "shared", "--progress", "json", "--json")
    report, last = done.json(), events(done.stderr)[-1]
    assert last["unit"] == "bytes"
    assert last["total"] == report["bytes"]["to_fetch"]
    assert last["requests"] == report["requests"]
