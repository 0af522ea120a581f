"""What commands say: one line, more with `-v`, nothing with `-q`; colours and bars on terminals; errors as JSON."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from support import trees
from support.cli import Holo

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def library(holo: Holo) -> Holo:
    """With a catalog of a tree whose files name its path, and a bundle of it."""
    for number in range(3):
        trees.write(holo.root / "source" / f"file-{number}", f"{holo.root}/source\n" * (number == 0) + "text" * 1000)
    holo("record", holo.root / "source", "--name", "env")
    holo("export", "env", "-o", holo.root / "env.holo")
    return holo


COMMANDS = {
    "record": (
        ["record", "{root}/source", "--name", "env"],
        r"recorded env \(\w{12}\) in [\d.]+ s: 3 files, 12 kB, 1 .*",
    ),
    "init": (["init", "job-1", "env"], r"job-1 ready in [\d.]+ s: 12 kB copied( \(.+\))?, 1 file patched"),
    "restore": (["restore", "job-0"], r"job-0 ready in [\d.]+ s: 1 file made"),
    "clone": (["clone", "{root}/source", "{root}/clone", "--relocate"], r"cloned .* in [\d.]+ s: 12 kB copied, 1 .*"),
    "export": (["export", "env", "-o", "{root}/b.holo"], r"exported env to .* in [\d.]+ s: [\d.]+ kB"),
    "import": (["import", "{root}/env.holo"], r"imported env \(\w{12}\) from .*: 0 new blobs"),
    "push": (["push", "env", "{root}/remote/"], r"pushed env \(\w{12}\) to .* in [\d.]+ s: \d blobs? \([\d.]+ kB\)"),
    "delete": (["delete", "job-0"], r"deleted space job-0 at .*"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_result_is_one_line_and_more_or_nothing_if_asked(library: Holo, name: str) -> None:
    command, shown = COMMANDS[name]
    command = [word.format(root=library.root) for word in command]
    (library.root / "remote").mkdir()
    space = Path(library("init", "job-0", "env", "--json").json()["path"])
    (space / "file-1").write_text("changed")
    if name == "restore":
        assert "copied" in library("restore", "job-0", "--catalog", "env", "-v").stdout
        (space / "file-1").write_text("changed again")
    said = library(*command).stdout.splitlines()
    assert len(said) == 1
    assert re.fullmatch(shown, said[0]), said
    if name in ("init", "record", "import"):
        assert len(library(*command, "-v").stdout.splitlines()) > 1
        quiet = library(*command, "-q")
        assert (quiet.stdout, quiet.stderr) == ("", "")


def test_quiet_leaves_warnings_and_the_exit_code(library: Holo) -> None:
    assert library("gc", "-q").stdout == ""
    remote = library.root / "remote"
    remote.mkdir()
    for action in ("check", "gc"):
        assert library("remote", action, remote).stdout != ""
        assert library("remote", action, remote, "-q").stdout == ""
    [blob, *_] = (library.library / "library").glob("*/*")
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    assert library("check", "-q", code=3).stdout == ""
    assert "error: " in library("restore", "-q", "nobody", code=1).stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("init", "one", "nothing"), 1),
        (("list", "--sort", "colour"), 2),
        (("list", "--no-such-option"), 2),
        (("catalogs", "--remove", "nothing"), 1),
        (("verify", "nothing"), 1),
    ],
)
def test_an_error_is_the_one_document(library: Holo, command: tuple[str, ...], code: int) -> None:
    refused = library(*command, "--json", code=code)
    error = refused.json()["error"]
    assert error["code"] == code
    assert f"error: {error['message']}\n" in refused.stderr
    assert error["hint"] is None or f"hint: {error['hint']}\n" in refused.stderr
    assert library(*command, code=code).stdout == ""


def test_json_of_another_program_is_not_ours(library: Holo) -> None:
    library("init", "job-1", "env")
    assert library("run", "--space", "nobody", "--", "true", "--json", code=1).stdout == ""


def test_an_integrity_report_is_one_document(library: Holo) -> None:
    [blob, *_] = (library.library / "library").glob("*/*")
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    assert "error" not in library("check", "--json", code=3).json()


def on_terminal(holo: Holo, *command: str | Path, env: Mapping[str, str] | None = None, patience: int = 0) -> str:
    """What a command shows on a terminal. ``patience``: seconds without a bar."""
    program = f"from holo.cli import progress, program; progress._PATIENCE = {patience}; program.main()"
    ours, theirs = pty.openpty()
    environment = holo.environment({"TERM": "xterm", "COLUMNS": "80", **(env or {})})
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command],
        env=environment,
        cwd=holo.root,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # EIO: the last one has closed it
        while piece := os.read(ours, 1 << 16):
            seen += piece
    os.close(ours)
    process.wait()
    return seen.decode()


def test_colour_and_bars_are_for_terminals(library: Holo) -> None:
    for number in range(600):
        trees.write(library.root / "many" / f"{number % 20}" / f"{number}", f"{number}" * 100)
    seen = on_terminal(library, "record", library.root / "many")
    assert re.search(r"600/600 files, [\d.]+ kB, [\d.]+ [kM]?B/s", seen)
    assert "/600 files" not in on_terminal(library, "record", library.root / "many", patience=3600)
    assert "\x1b[31merror:\x1b[0m " in on_terminal(library, "restore", "nobody")
    space = Path(library("init", "job-1", "env", "--json").json()["path"])
    (space / "new").touch()
    assert "\x1b[33mchanged\x1b[0m" in on_terminal(library, "list")
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_terminal(library, "list", env=env)
        assert "\x1b" not in on_terminal(library, "restore", "nobody", env=env)
    assert "files" not in on_terminal(library, "restore", "job-1", "-q", "--verify")


def test_progress_for_machines_has_the_bytes(library: Holo) -> None:
    told = library("init", "job-1", "env", "--progress", "json", "--json").stderr
    assert '"unit": "files", "done": 3, "total": 3, "bytes": 12' in told


def test_the_name_of_a_remote_is_printed_as_others_are(library: Holo) -> None:
    remote = library.root / "re\nmote"
    remote.mkdir()
    for command in (("push", "env"), ("pull", "env"), ("remote", "status"), ("remote", "gc"), ("remote", "check")):
        said = library(*command, remote).stdout
        assert "re\nmote" not in said
        assert ("re\\nmote" in said) == (command[1] != "check")
