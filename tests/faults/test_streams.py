"""Standard streams that are closed, full, or read by nobody; a current directory that has been deleted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from support import compare, trees
from support.cli import Argument, Holo
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

NO_READER = "import os, sys; r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.execv(sys.argv[1], sys.argv[1:])"


def redirected(how: str) -> tuple[Argument, ...]:
    """A launcher for a command with its streams as a shell redirects them."""
    return ("sh", "-c", f'exec "$@" {how}', "sh")


WAYS: dict[str, tuple[Argument, ...]] = {
    "stdout-closed": redirected(">&-"),
    "stderr-closed": redirected("2>&-"),
    "all-closed": redirected("<&- >&- 2>&-"),
    "stdout-full": redirected(">/dev/full"),
    "stderr-full": redirected("2>/dev/full"),
    "no-reader": (sys.executable, "-c", NO_READER),
}


@pytest.fixture
def source(filesystem: Filesystem) -> Path:
    return trees.small(filesystem.root / "source".ljust(100, "-"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("way", "env"),
    [
        *((way, {}) for way in WAYS),
        *((way, {"PYTHONUNBUFFERED": "1"}) for way in ("stdout-full", "no-reader")),
    ],
    ids=str,
)
def test_exit_code_tells_what_was_done_not_what_was_printed(
    holo: Holo, source: Path, way: str, env: dict[str, str], forks: Forks
) -> None:
    """Work is done to its end, whether its report can be written or not; what only tells something fails if it can't.

    Nothing of what should have been printed is in a file.
    """
    plain = ForkedHolo(holo.root, forks)
    holo.launcher = WAYS[way]
    loses = not way.startswith("stderr")
    space, copy = holo.root / "space", holo.root / "copy"

    def does(*arguments: Argument, code: int = 0) -> None:
        said = holo(*arguments, code=code, env=env)
        if way in ("stdout-closed", "stdout-full"):
            assert said.stderr.startswith("warning: cannot write to standard output: "), said
            assert said.stderr.count("\n") == 1
        else:
            assert (bool(said.stdout), said.stderr) == (not loses, "")

    def tells(*arguments: Argument) -> None:
        said = holo(*arguments, code=0 if not loses else 141 if way == "no-reader" else 1, env=env)
        assert bool(said.stdout) == (not loses)
        if way in ("stdout-closed", "stdout-full"):
            assert said.stderr.startswith("error: cannot write to standard output: ")

    does("record", source, "--name", "env")
    does("record", source / "lib", "--name", "other")
    does("init", "--space", "one", "env", "--to", space)
    assert compare.differences(source, space) == []
    does("init", "--space", "two", "other", "--json")
    (space / "lib" / "data.txt").unlink()
    tells("restore", "--space", "one", "--dry-run")
    does("restore", "--space", "one", "--json")
    assert compare.differences(source, space) == []
    before = files(holo.home)
    for command in ("list", "catalogs --json", "settings", "variables --space one", "gc --dry-run", "--version"):
        tells(*command.split())
    assert files(holo.home) == {**before, "holotree/.spaces/one.used": b""}  # as `variables` notes
    holo("list", "--no-such-option", code=2, env=env)
    holo("delete", "--space", "three", code=1, env=env)
    does("clone", source, copy)
    assert compare.differences(source, copy, new=source) == []
    does("delete", "--space", "two")
    does("catalogs", "--remove", "other")
    does("gc")
    assert [entry["name"] for entry in plain("list", "--json").json()["spaces"]] == ["one"]
    assert [entry["name"] for entry in plain("catalogs", "--json").json()["catalogs"]] == ["env"]
    does("check")
    blob = next((holo.library / "library").glob("*/*"))
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    does("check", code=3)
    does("check", "--repair")
    plain("check")
    remote = holo.root / "remote"
    remote.mkdir()
    plain("push", "env", remote)
    next((remote / "packs").iterdir()).unlink()
    does("remote", "check", remote, code=3)


@pytest.mark.parametrize("compress", [(), ("--compress",)], ids=["raw", "compressed"])
def test_a_reader_that_has_enough_ends_an_export_without_a_word(
    holo: Holo, source: Path, compress: tuple[str, ...]
) -> None:
    """Of small files, which are written in one piece, and of one that the kernel copies."""
    holo("record", source, "--name", "small")
    trees.write(source / "large", os.urandom(1 << 20))
    holo("record", source, "--name", "large")
    fifo = holo.root / "fifo"
    os.mkfifo(fifo)

    def ends(catalog: str, output: Argument, script: str) -> None:
        command = [sys.executable, "-m", "holo", "export", catalog, *compress, "-o", output]
        shell = ["bash", "-c", script, fifo, *command]
        done = subprocess.run(shell, env=holo.environment(), cwd=holo.root, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (141, b""), script

    for output in ("-", "/dev/stdout"):
        ends("large", output, '"$@" | head -c 10 >/dev/null; exit ${PIPESTATUS[0]}')
        ends("small", output, '{ sleep 1; "$@"; } | true; exit ${PIPESTATUS[0]}')
    ends("large", fifo, 'head -c 10 "$0" >/dev/null & "$@"')
    full = holo.root / "full"
    full.symlink_to("/dev/full")
    said = holo("export", "large", *compress, "-o", full, code=1).stderr
    assert said.startswith(f"error: cannot write the bundle {full}: No space left on device\nhint: ")


def read_late(holo: Holo, *arguments: str) -> bytes:
    """What a command writes to a pipe that somebody made non-blocking, and reads only after a second."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-m", "holo", *arguments]
    with subprocess.Popen(
        command, stdout=writer, stderr=subprocess.PIPE, env=holo.environment(), cwd=holo.root
    ) as process:
        os.close(writer)
        time.sleep(1)
        with open(reader, "rb") as output:
            found = output.read()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
    return found


def test_an_export_waits_for_a_pipe_that_somebody_made_non_blocking(holo: Holo, source: Path) -> None:
    trees.write(source / "large", os.urandom(1 << 20))
    holo("record", source, "--name", "env")
    holo("export", "env", "-o", holo.root / "bundle")
    assert read_late(holo, "export", "env", "-o", "-") == (holo.root / "bundle").read_bytes()


def test_closed_stdin_is_an_empty_one(holo: Holo, source: Path) -> None:
    holo("record", source, "--name", "env")
    holo("init", "one", "env")
    holo.launcher = redirected("<&-")
    assert "there is no terminal to ask on" in holo("uninstall", code=2).stderr
    assert "that is no event" in holo("hook", "claude", "--run", code=2).stderr
    assert holo("import", "-", code=1).stderr.startswith("error: cannot read standard input: ")
    assert holo("run", "one", "--", "true").stderr == ""


@pytest.mark.parametrize("way", ["stdout-closed", "stderr-closed", "all-closed", "stdout-full"])
def test_a_command_gets_the_streams_as_the_caller_left_them(holo: Holo, source: Path, way: str, forks: Forks) -> None:
    looks = """
import os, stat, sys
def look(number):
    try:
        status = os.fstat(number)
    except OSError:
        return "closed"
    return stat.filemode(status.st_mode), status.st_rdev
found = [look(number) for number in (0, 1, 2)]
open(sys.argv[1], "w").write(repr(found))
"""
    plain = ForkedHolo(holo.root, forks)
    plain("init", "--space", "one", source)
    seen, expected = holo.root / "seen", holo.root / "expected"
    as_started = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    subprocess.run([*WAYS[way], sys.executable, "-c", looks, expected], **as_started, check=True)
    holo.launcher = WAYS[way]
    for options in ([], ["--ephemeral"]):
        holo("run", *options, "--space", "one", "--", sys.executable, "-c", looks, seen)
        assert seen.read_text() == expected.read_text()
        holo("run", *options, "--space", "one", "--", "sh", "-c", "exit 7", code=7)


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_a_message_that_nobody_gets_does_not_stop_a_restore(holo: Holo, source: Path, how: str, forks: Forks) -> None:
    plain = ForkedHolo(holo.root, forks)
    space = Path(plain("init", "--space", "one", source, "--json").json()["path"])
    (space / "lib" / "data.txt").unlink()
    lock = next(holo.holotree.rglob("one.lock"))
    holo.launcher = redirected(how)
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = holo.start("restore", "--space", "one")
        time.sleep(1.5)
        assert waiting.poll() is None, "it did not wait"
    waiting.communicate(timeout=30)
    assert waiting.returncode == 0
    assert compare.differences(source, space) == []
    assert lock.read_bytes() == b""


def test_what_a_program_opened_in_the_place_of_stderr_gets_no_messages(tmp_path: Path, filesystem: Filesystem) -> None:
    """Descriptor 2 is its own file then, and ``sys.stderr`` is ``None``."""
    code = f"""
file = open({str(tmp_path / "file")!r}, "wb", buffering=0)
assert file.fileno() == 2
import sys
from holo.blueprints.log import Log
from holo.cli import render
from holo.hololib.locks import say_waiting
say_waiting("waiting")
render.warn("careful")
log = Log({str(tmp_path / "log")!r})
log.say("building")
log.close()
"""
    subprocess.run(
        [*redirected("2>&-"), sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=tmp_path, check=True
    )
    assert (tmp_path / "file").read_bytes() == b""
    assert (tmp_path / "log").read_text() == "building\n"


def test_a_pipe_that_somebody_made_non_blocking_gets_everything(holo: Holo, source: Path) -> None:
    """As some parents do; it holds 64 KiB."""
    for number in range(1500):
        trees.write(source / "many" / f"{number}".rjust(200, "-"))
    holo("record", source, "--name", "env")
    plan = read_late(holo, "restore", "--space", "one", "--catalog", "env", "--dry-run", "--json")
    assert len(json.loads(plan)["files"]) == 1504


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_whose_reader_sleeps_can_be_stopped(holo: Holo, source: Path, number: signal.Signals) -> None:
    for name in range(1500):
        trees.write(source / "many" / f"{name}".rjust(200, "-"))
    holo("record", source, "--name", "env")
    printing = holo.start("restore", "--space", "one", "--catalog", "env", "--dry-run")
    assert printing.stdout is not None
    while struct.unpack("=i", fcntl.ioctl(printing.stdout, termios.FIONREAD, b"1234"))[0] < 50_000:
        assert printing.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)  # the pipe is full by then
    printing.send_signal(number)
    try:
        assert printing.wait(timeout=30) == 128 + number
    finally:
        printing.kill()
        printing.communicate()


# -- a current directory that has been deleted -------------------------------------------------------------


IN_A_DELETED_DIRECTORY: tuple[Argument, ...] = ("sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$@"', "sh")


def test_deleted_current_directory_matters_only_if_named(holo: Holo, source: Path) -> None:
    holo("record", source, "--name", "env")
    space = Path(holo("init", "--space", "one", "env", "--json").json()["path"])
    (space / "lib" / "data.txt").unlink()
    holo.launcher = IN_A_DELETED_DIRECTORY
    for command in (
        *("list", "catalogs", "settings", "check", "gc", "doctor", "variables --space one", "restore --space one"),
        *("init --space two env", "run --space one -- true", "run --ephemeral --space one -- true"),
    ):
        assert holo(*command.split()).stderr == ""
    assert compare.differences(source, space) == []

    def refuses(command: str, env: dict[str, str] | None = None) -> None:
        said = holo(*command.format(source).split(), env=env, code=1).stderr
        error = f"error: the current directory, {holo.root / 'gone'}, does not exist any more\nhint: "
        assert said.startswith(error), command
        assert said.count("\n") == 2

    before = sorted(os.listdir(holo.holotree)), sorted(holo.library.glob("names/*")), sorted(os.listdir(holo.root))
    for command in (
        *("record .", "clone . {}/copy", "clone {} copy", "init --space new . --to {}/x", "init --space new"),
        *("init --space new env --to x", "doctor .", "bench .", "bench {} --output x.svg", "check --repair --from ."),
        *("variables", "run -- true", "run --ephemeral -- true", "shell"),
    ):
        refuses(command)
    refuses("list", {"HOLO_HOME": "relative"})
    refuses("list", {"HOLO_SETTINGS": "relative"})
    after = sorted(os.listdir(holo.holotree)), sorted(holo.library.glob("names/*")), sorted(os.listdir(holo.root))
    assert after == before
