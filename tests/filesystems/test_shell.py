"""Working in a space: `holo shell` on a terminal, and direnv."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import trees
from support.cli import Holo

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def space(holo: Holo) -> Path:
    trees.small(holo.root / "source")
    holo("record", holo.root / "source", "--name", "env")
    return Path(holo("init", "--space", "web", "env", "--json").json()["path"])


class Terminal:
    """`holo shell` on a terminal of its own."""

    def __init__(self, holo: Holo, shell: str) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", sys.executable, "-m", "holo", "shell", "--space", "web"],
            env=holo.environment({"SHELL": shell, "PS1": "ready> ", "TERM": "dumb", "HOME": str(holo.root)}),
            cwd=holo.root,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.shown = ""

    def press(self, key: str, until: str) -> None:
        """Once everybody waits: dash loses a signal that comes while it starts a program."""
        time.sleep(0.4)
        self.type(key, until)

    def type(self, text: str, until: str) -> None:
        os.write(self._master, text.encode())
        deadline = time.monotonic() + 30
        begin = len(self.shown)
        while until not in self.shown[begin:]:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._master], [], [], 0.1)[0]:
                self.shown += os.read(self._master, 65536).decode()

    def close(self) -> int:
        code = self._process.wait(30)
        os.close(self._master)
        return code


def test_a_shell_on_a_terminal(holo: Holo, space: Path) -> None:
    terminal = Terminal(holo, "/bin/sh")
    terminal.type("", "ready> ")
    terminal.type("hello\n", f"hello from {space}\r\n")
    terminal.type("echo $HOLO_SPACE $((20 + 2))\n", "web 22\r\n")
    terminal.type("sleep 60\n", "\r\n")
    terminal.press("\x03", "ready> ")  # Ctrl-C is for what the shell runs
    terminal.type("test -t 0 && exit 42\n", "exit 42")
    assert terminal.close() == 42


def test_a_throw_away_environment_on_a_terminal(holo: Holo, space: Path) -> None:
    """Ctrl-C reaches the command once, and Ctrl-Z stops it, for the shell to go on with it later."""
    assert space.exists()
    trees.write(
        holo.root / ".bashrc", f"PS1='ready> '; run() {{ {sys.executable} -m holo run --ephemeral -- \"$@\"; }}\n"
    )
    terminal = Terminal(holo, shutil.which("bash") or "/bin/sh")
    terminal.type("", "ready> ")
    terminal.type("run sh -c 'trap \"echo caught\" INT; tty; sleep 20; sleep 0.5; echo 'o'ver; exit 6'\n", "/dev/pts")
    terminal.press("\x03", "over")
    assert terminal.shown.count("caught\r\n") == 1
    terminal.type("", "ready> ")
    terminal.type("echo code $?\n", "code 6")
    terminal.type("run sh -c 'echo 'b'egun; sleep 2; echo 'a'gain; sleep 30'\n", "begun")
    terminal.press("\x1a", "Stopped")
    terminal.type("echo 'i'n between\n", "in between")
    terminal.type("fg\n", "again")
    terminal.press("\x03", "ready> ")
    terminal.type("echo code $?\n", "code 130")
    terminal.type("exit 0\n", "exit")
    assert terminal.close() == 0
    assert [*holo.holotree.glob(".ephemeral-*/runs/*")] == []


def test_the_shell_that_is_started(holo: Holo, space: Path) -> None:
    assert space.exists()
    own = trees.write(holo.root / "own-shell", "#!/bin/sh\necho own $HOLO_SPACE; exit 3\n", mode=0o755)
    assert holo("shell", "--space", "web", env={"SHELL": str(own)}, code=3).stdout == "own web\n"
    assert "there is no space" in holo("shell", "--space", "none", code=1).stderr
    assert holo("shell", "--space", "web", env={"SHELL": "/no/shell"}, code=127).stderr.count("\n") == 1
    holo("shell", "--space", "web", env={"SHELL": ""})  # /bin/sh, whose input has ended


def test_direnv_takes_the_variables_of_a_space(holo: Holo, space: Path) -> None:
    """What docs/ephemeral.md says to write into .envrc: there inside the folder, and not outside of it."""
    if shutil.which("direnv") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("direnv must be there in CI")
        pytest.skip("no direnv")
    document = (Path(__file__).parents[2] / "docs" / "ephemeral.md").read_text(encoding="utf-8")
    envrc = document.partition("## direnv")[2].split("```sh\n")[2].partition("```")[0]
    assert "holo init" in envrc
    command = trees.write(holo.root / "tools" / "holo", f'#!/bin/sh\nexec {sys.executable} -m holo "$@"\n', mode=0o755)
    project = holo.root / "project"
    trees.write(project / ".envrc", envrc.replace("holo init web app", "holo init web env"))
    more = {"HOME": str(holo.root), "PATH": f"{command.parent}:{os.environ['PATH']}"}
    more["PYTHONPATH"] = str(Path(__file__).parents[2])

    def direnv(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["direnv", *arguments], env=holo.environment(more), cwd=cwd, capture_output=True, text=True, check=False
        )

    assert direnv("exec", project, "hello", cwd=holo.root).returncode != 0, "not allowed yet"
    assert direnv("allow", project, cwd=holo.root).returncode == 0
    for _ in range(2):
        done = direnv("exec", project, "sh", "-c", "hello; echo $HOLO_SPACE $HOLO_SPACE_PATH", cwd=holo.root)
        assert done.stdout == f"hello from {space}\nweb {space}\n", done.stderr
        holo("delete", "--space", "web", code=0 if space.exists() else 1)  # .envrc makes it again
    # The hook of a shell: into the folder, and out again.
    script = (
        f'eval "$(direnv hook bash)"; cd {project}; _direnv_hook; hello; cd ..; _direnv_hook; echo "left:$HOLO_SPACE"'
    )
    done = subprocess.run(
        ["bash", "-c", script], env=holo.environment(more), cwd=holo.root, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"hello from {space}\nleft:\n", done.stderr
