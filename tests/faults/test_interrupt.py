"""Ctrl-C at any moment: a promise of docs/reliability.md (2), tried on a real terminal and before single calls."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from holo.blueprints.log import Log
from support import compare
from support.cli import Holo
from support.faults import Supervisor
from support.filesystems import Filesystem, remove
from support.scenarios import Scenario, World, each_scenario, environment, spread
from support.trees import small

pytestmark = pytest.mark.torture

Note = Callable[[int, str, int], None]

EXPLANATION = "error: interrupted; nothing is lost, run the command again to go on"
_BAR = re.compile(r"(recording|restoring|checking|collecting|measuring) ")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def problems_left(scenario: Scenario, world: World, before: dict[bytes, tuple[object, ...]], number: int) -> list[str]:
    found = world.broken(before)
    if number % 2:
        found += world.recover()
    return found + scenario.repeat(world)


def last_words(stderr: str) -> str:
    """Without what a command says of what it is about to do."""
    return "\n".join(line for line in stderr.splitlines() if not line.startswith(("pulling ", "pushing ")))


def problems_when_stopped(scenario: Scenario, world: World, points: list[int], kill: str, code: int) -> list[str]:
    """What is not as promised when a signal comes before those calls and ends the command with ``code``."""
    problems = []
    for number in points:
        scenario.prepare(world)
        before = world.observe()
        outcome = scenario.run(world, at=number, kill=kill)
        found = ["it hung"] if outcome.hung else []
        if outcome.code == 0:  # the last moments are too late
            found += scenario.undone(world)
        elif (outcome.code, last_words(outcome.stderr)) != (code, EXPLANATION):
            found.append(f"exit {outcome.code}: {outcome.stderr}")
        found += problems_left(scenario, world, before, number)
        problems += [f"call {number}, {outcome.calls[-1]}: {problem}" for problem in found]
    return problems


@each_scenario(
    *("record-ext4", "init-first-btrfs", "restore-exchange-btrfs", "restore-hardlink-ext4", "delete-ext4"),
    *("push-ext4", "init-remote-ext4"),
)
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_before_any_call(
    scenario: Scenario, filesystem: Filesystem, workers: int, supervisor: Supervisor, torture: bool, faults: Note
) -> None:
    world = scenario.world(supervisor, filesystem, workers=workers, files=300 if workers > 1 else 0)
    scenario.prepare(world)
    points = spread(len(scenario.run(world).calls), 40 if torture else 1)
    faults(2, "Ctrl-C before a file-system call", len(points))
    assert problems_when_stopped(scenario, world, points, "interrupt", 130) == []


@each_scenario("record-ext4", "restore-exchange-btrfs")
@pytest.mark.parametrize("workers", [1, 2])
def test_terminated_before_any_call(
    scenario: Scenario, filesystem: Filesystem, workers: int, supervisor: Supervisor, torture: bool, faults: Note
) -> None:
    """As Ctrl-C, but for the exit code."""
    world = scenario.world(supervisor, filesystem, workers=workers, files=300 if workers > 1 else 0)
    scenario.prepare(world)
    points = spread(len(scenario.run(world).calls), 40 if torture else 2)
    faults(2, "SIGTERM before a file-system call", len(points))
    assert problems_when_stopped(scenario, world, points, "terminate", 143) == []


def test_a_signal_that_is_inherited_as_ignored_stays_so() -> None:
    """As nohup leaves SIGHUP."""
    code = (
        "import signal; from holo import signals; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "signals.install_handlers();"
        "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, callable(signal.getsignal(signal.SIGTERM)))"
    )
    holo = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=holo, capture_output=True, text=True, check=False)
    assert done.stdout == "True True\n", done.stderr


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_command_started_by_nohup_survives_signals(holo: Holo) -> None:
    """By nohup, or as a background job of a shell script. What it starts survives them, too."""
    source = small(holo.root / "source")
    space = Path(holo("init", "--space", "one", source, "--json").json()["path"])
    (space / "lib" / "data.txt").unlink()
    holo.launcher = ("sh", "-c", "trap '' HUP INT TERM QUIT; exec \"$@\"", "sh")
    with next(holo.holotree.rglob("one.lock")).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = holo.start("restore", "--space", "one")
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith("waiting for ")
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            waiting.send_signal(number)
        time.sleep(0.3)
        assert waiting.poll() is None
    waiting.communicate(timeout=30)
    assert waiting.returncode == 0
    assert compare.differences(source, space) == []
    for options in ([], ["--ephemeral"]):
        script = "for name in HUP INT TERM QUIT; do kill -$name $$; done; echo alive"
        assert holo("run", *options, "--space", "one", "--", "sh", "-c", script).stdout == "alive\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_an_interrupt_that_a_callback_swallows_comes_again(name: str, again: bool) -> None:
    """Python prints what is raised there, and goes on; imports have such callbacks."""
    code = f"""
import signal, sys, time
from holo import signals
from holo.cli import program

class Callback:
    def __del__(self):
        signal.raise_signal(signal.{name})

class Slow:
    def __del__(self):
        time.sleep(0.1)

signals.install_handlers()
try:
    Callback()
    {"Slow()" if again else ""}
    time.sleep(30)
except KeyboardInterrupt:
    sys.exit(program._interrupted())
"""
    holo = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=holo, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), f"{EXPLANATION}\n")


class Terminal:
    """A command in a terminal of its own, as its foreground process group."""

    def __init__(self, holo: Holo, arguments: list[str], works_in: Path | None = None) -> None:
        """It is at work when it has opened something below ``works_in``, by default the home."""
        self._works_in = str(works_in or holo.home)
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "holo", *arguments],
            env=holo.environment({"TERM": "xterm-256color", "COLUMNS": "100"}),
            cwd=holo.root,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.shown = b""

    def wait_for_work(self) -> None:
        """Until it has opened a file there: Python has started, and so has the command."""
        while self._process.poll() is None and not any(map(self._is_ours, self._descriptors())):
            self._read(0.001)

    def _descriptors(self) -> list[str]:
        folder, found = f"/proc/{self._process.pid}/fd", []
        with suppress(FileNotFoundError):
            for name in os.listdir(folder):
                with suppress(FileNotFoundError):
                    found.append(os.readlink(f"{folder}/{name}"))
        return found

    def _is_ours(self, path: str) -> bool:
        return path.startswith(self._works_in)

    def _read(self, seconds: float) -> None:
        if select.select([self._master], [], [], seconds)[0]:
            try:
                self.shown += os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                time.sleep(seconds)

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self._process.poll() is None:
            self._read(min(left, 0.01))

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def hang_up(self) -> int:
        """Close the window. The exit code."""
        os.close(self._master)
        return self._process.wait(30)

    def close(self) -> int:
        """Its exit code. Reads what it still has to say."""
        self.wait(30)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"it does not end: {self.shown!r}")
        self._read(0)
        os.close(self._master)
        return self._process.returncode

    def problems(self, explanation: str = EXPLANATION) -> list[str]:
        """In what the terminal is not as it was, with one line of explanation."""
        text = self.shown.decode(errors="replace")
        found = []
        lines = [line for line in _ESCAPES.sub("", text).replace("^C", "").splitlines() if line.strip()]
        said = [line for line in lines if not _BAR.match(line)]
        if said[said[:1] == ["{}"] :] != [explanation]:  # the command in it may have ended before
            found.append(f"it shows {lines}")
        if text.rfind("\x1b[?25l") > text.rfind("\x1b[?25h"):
            found.append("the cursor is hidden")
        if "\x1b[?25l" in text and "\x1b[2K" not in text[text.rfind("\x1b[?25l") :]:
            found.append("the progress bar is still there")
        return found


@each_scenario(
    *("record-ext4", "init-first-btrfs", "init-ext4", "restore-ext4", "gc-ext4", "check-ext4", "ephemeral-first-ext4")
)
def test_ctrl_c_in_a_terminal_ends_a_restore(
    scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor, torture: bool, faults: Note
) -> None:
    world = scenario.world(supervisor, filesystem, workers=2, files=5000 if torture else 800)
    command = scenario.arguments(world)
    scenario.prepare(world)
    terminal = Terminal(world.cli, command)
    terminal.wait_for_work()
    begun = time.monotonic()
    assert terminal.close() == 0, terminal.shown
    whole = time.monotonic() - begun
    moments = 20 if torture else 2
    problems, hits = [], 0
    faults(2, "Ctrl-C in a terminal", 0)
    for number in range(moments):
        scenario.prepare(world)
        before = world.observe()
        terminal = Terminal(world.cli, command)
        terminal.wait_for_work()
        terminal.wait(whole * (number + 0.5) / moments * 0.9)
        terminal.press_ctrl_c()
        code = terminal.close()
        if code != 0:  # else it was too late
            hits += 1
            faults(2, "Ctrl-C in a terminal", 1)
        found = problems_left(scenario, world, before, number)
        if code != 0 and (code != -signal.SIGINT or scenario.command[0] != "run"):  # as the command in it has ended
            found += [] if code == 130 else [f"exit {code}"]
            found += terminal.problems()
        problems += [f"Ctrl-C at {number} of {moments}: {problem}" for problem in found]
    assert problems == []
    assert hits * 2 >= moments


@pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)
def test_ctrl_c_in_a_terminal_ends_a_clone(filesystem: Filesystem, holo: Holo, torture: bool, faults: Note) -> None:
    """It is there as a whole, or nothing of it is."""
    source, copy = environment(holo.root / "source", 1, files=5000 if torture else 800), holo.root / "copy"
    faults(2, "Ctrl-C in a terminal", 0)
    moments, before = 20 if torture else 2, {*os.listdir(holo.root)}
    problems, hits, whole = [], 0, 0.0
    for number in range(moments + 1):
        terminal = Terminal(holo, ["clone", str(source), str(copy)], source)
        terminal.wait_for_work()
        begun = time.monotonic()
        if number:  # the first shows how long it takes
            terminal.wait(whole * (number - 0.5) / moments * 0.9)
            terminal.press_ctrl_c()
        code = terminal.close()
        whole = whole or time.monotonic() - begun
        if code == 0:
            problems += compare.differences(source, copy, new=source)
            remove(copy)
        else:
            hits += 1
            faults(2, "Ctrl-C in a terminal", 1)
            problems += [*terminal.problems(), *([f"exit {code}"] if code != 130 else [])]
        problems += [f"{number}: left behind: {name}" for name in {*os.listdir(holo.root)} - before]
    assert problems == []
    assert hits * 2 >= moments


@each_scenario("record-ext4", "init-ext4")
def test_closing_the_terminal_ends_a_command(
    scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor
) -> None:
    """Nobody is there to be told anything."""
    world = scenario.world(supervisor, filesystem, workers=2, files=800)
    scenario.prepare(world)
    before = world.observe()
    terminal = Terminal(world.cli, scenario.arguments(world))
    terminal.wait_for_work()
    assert terminal.hang_up() == 129
    assert problems_left(scenario, world, before, 1) == []


@pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)
def test_ctrl_c_in_a_terminal_ends_a_bench(filesystem: Filesystem, holo: Holo, torture: bool, faults: Note) -> None:
    """It has commands of its own to stop, and a folder to remove."""
    source = small(holo.root / "source")
    moments = 20 if torture else 2
    faults(2, "Ctrl-C in a terminal", moments)
    problems = []
    for number in range(moments):
        terminal = Terminal(holo, ["bench", str(source)])
        terminal.wait_for_work()
        terminal.wait(4 * number / moments)
        terminal.press_ctrl_c()
        assert terminal.close() == 130, terminal.shown
        problems += terminal.problems("error: interrupted; what was made for measuring is removed")
        problems += [str(path) for path in holo.home.iterdir()]
    assert problems == []


def test_ctrl_c_while_a_tool_starts_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it runs already, and nobody knows of it yet."""
    started = []

    class Interrupted(subprocess.Popen[bytes]):
        def _execute_child(self, *arguments: object) -> None:
            super()._execute_child(*arguments)  # type: ignore[misc]
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    log = Log(str(tmp_path / "log"))
    with pytest.raises(KeyboardInterrupt):
        log.run(["sleep", "60"], env=os.environ, cwd=str(tmp_path))
    log.close()
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], signal.SIGKILL)


def test_ctrl_c_while_holo_loads_is_explained(tmp_path: Path) -> None:
    """The line is the same before holo has read its own code."""
    (tmp_path / "typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    holo = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "holo", "catalogs"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{holo}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (130, EXPLANATION)


INTERRUPTED_LOADING = """
import sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "holo.cli":
            eval("__import__('signal').raise_signal(2)")

sys.meta_path.insert(0, Interrupting())
from holo.__main__ import main
main()
"""


def test_ctrl_c_within_an_eval_while_holo_is_loaded(tmp_path: Path) -> None:
    """Python remembers it as not handled, and would end itself by the signal, whatever the exit code was to be."""
    (tmp_path / "loading.py").write_text(INTERRUPTED_LOADING)
    done = subprocess.run([sys.executable, "-m", "loading"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (130, EXPLANATION + "\n")
