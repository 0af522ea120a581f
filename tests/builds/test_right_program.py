"""In a Python space, Python and pip are the space's own; where they are not, that is an error and nothing runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holo.blueprints.uv import find_uv
from support import disks, records, trees, wheels
from support.forks import ForkedHolo, Forks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a PATH and programs of POSIX")

HERE = ["run", "--space", "web", "--"]
EPHEMERAL = ["run", "--ephemeral", "--space", "web", "--"]


class World:
    """A recorded environment and a space ``web`` of it, on a PATH on which other programs come later."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.holo = ForkedHolo(root, forks)
        self.outside = root / "outside"
        self.ran = root / "ran"
        for name in ("pip", "pip3", "python", "python3", "python3.99", "npm"):
            trees.write(self.outside / name, f'#!/bin/sh\necho "$0" >> {self.ran}\n', mode=0o755)
        uv = self.outside / "uv"
        uv.symlink_to(find_uv())
        self.environ = {"PATH": f"{self.outside}:{os.defpath}"}

    def init(self, source: Path) -> Path:
        self.holo("record", source, "--name", "env")
        return Path(self.holo("init", "--space", "web", "env", "--json").json()["path"])

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What holo prints on stdout, or, if it fails, on stderr."""
        result = self.holo(*arguments, env=self.environ, code=code)
        return result.stderr if code else result.stdout

    def refused(self, *arguments: str, code: int) -> str:
        """The message and the hint of what is refused: no program from outside has run."""
        said = self(*arguments, code=code)
        assert [line.partition(":")[0] for line in said.splitlines()] == ["error", "hint"]
        assert not self.ran.exists()
        return said


@pytest.fixture
def world(tmp_path: Path, forks: Forks) -> World:
    return World(tmp_path, forks)


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """As uv makes it: without pip. Its Python is a link to one that a test may remove."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "python").symlink_to(os.path.realpath(sys.executable))
    path = tmp_path / "env"
    subprocess.run([find_uv(), "venv", "--quiet", "--no-project", "--python", sys.executable, path], check=True)
    (path / "bin" / "python").unlink()
    (path / "bin" / "python").symlink_to(tmp_path / "base" / "python")
    return path


def test_uv_of_holo_is_used_when_not_on_path(world: World, venv: Path) -> None:
    """It need not be on PATH; a program that is not there at all has no hint."""
    world.init(venv)
    (world.outside / "uv").unlink()
    own = Path(sys.executable).parent / "uv"
    assert own.is_file()
    for how in (HERE, EPHEMERAL):
        said = world.refused(*how, "uv", "pip", "list", code=127)
        assert said.startswith("error: uv: there is no such command on PATH\n")
        assert said.endswith(f" {own}\n")
        assert world(*how, str(own), "pip", "list", "--quiet") == ""
    assert world(*HERE, "no-such-program", code=127) == "error: no-such-program: there is no such command on PATH\n"
    for how in (HERE[:-1], EPHEMERAL[:-1]):  # the name of a space, without what ends it
        assert "`holo run web -- COMMAND`" in world.refused(*how, "web", "pip", "list", code=127)


@pytest.mark.parametrize("how", [HERE, EPHEMERAL], ids=["run", "ephemeral"])
def test_program_of_another_environment_is_refused(world: World, venv: Path, how: list[str]) -> None:
    space = world.init(venv)
    for command in (["pip", "install", "cowsay"], ["pip3", "--version"]):
        said = world.refused(*how, *command, code=127)
        assert f"space 'web' has no {command[0]} of its own: there is no {space}/bin/{command[0]}" in said
        assert f"{world.outside}/{command[0]} is of another environment" in said
        assert "`uv pip`" in said
    said = world.refused(*how, "python3.99", code=127)
    assert "space 'web' has no python3.99 of its own" in said
    assert world(*how, "python", "-c", "import sys; print(sys.prefix)") == f"{space}\n"
    assert not world.ran.exists()
    world(*how, f"{world.outside}/pip")
    assert world.ran.read_text() == f"{world.outside}/pip\n", "named by its path it is what the user wants"


def test_the_hints_about_pip(world: World, venv: Path, tmp_path: Path) -> None:
    """Both ways that the hint names are ways."""
    world.init(venv)
    wheel = wheels.make(tmp_path / "wheels", "leaf")
    world(*HERE, "uv", "pip", "install", "--quiet", "--offline", str(wheel))
    assert world(*HERE, "leaf").startswith("leaf 1.0 ")
    requirements = trees.write(tmp_path / "requirements.txt", "pip\n")
    space = world.holo("init", "--space", "pip", requirements, "--json").json()["path"]
    assert space in world("run", "--space", "pip", "--", "pip", "--version")


@pytest.mark.parametrize("variable", ["UV_PYTHON", "UV_SYSTEM_PYTHON"])
def test_uv_works_on_the_space(world: World, venv: Path, tmp_path: Path, variable: str) -> None:
    """Though a variable, which may be for builds, says on which Python it works."""
    space = world.init(venv)
    wheel = wheels.make(tmp_path / "wheels", "leaf")
    other = tmp_path / "other"
    subprocess.run([find_uv(), "venv", "--quiet", "--no-project", "--python", sys.executable, other], check=True)
    world.environ["PATH"] = f"{other / 'bin'}:{world.environ['PATH']}"
    world.environ[variable] = str(other / "bin" / "python") if variable == "UV_PYTHON" else "1"
    for how in (HERE, EPHEMERAL):
        said = world(*how, "sh", "-c", f"uv pip install --quiet --offline {wheel} && leaf")
        assert said == f"leaf 1.0 {space}\n"
    assert not [*other.rglob("leaf*")]


@pytest.mark.parametrize("command", [["python", "-V"], ["sh", "-c", "python3 -V"]], ids=["python", "sh"])
def test_missing_interpreter_is_an_error(world: World, venv: Path, tmp_path: Path, command: list[str]) -> None:
    space = world.init(venv)
    base = tmp_path / "base" / "python"
    base.unlink()
    link = f"{space}/bin/python leads to {base}, which is not there"
    for run in (
        [*HERE, *command],
        [*EPHEMERAL, *command],
        ["variables", "--space", "web"],
        ["shell", "--space", "web"],
    ):
        said = world.refused(*run, code=1)
        assert f"the Python of space 'web' is gone: {link}" in said
        assert "Install that Python again" in said
    assert world("run", "--force", "--space", "web", "--", "sh", "-c", "echo $HOLO_SPACE") == "web\n"
    assert link in world.refused("run", "--force", "--space", "web", "--", "python", code=127)
    base.symlink_to(os.path.realpath(sys.executable))
    assert world(*HERE, *command).startswith("Python 3"), "what the hint says"


def test_interpreter_removed_from_the_space_is_an_error(world: World, venv: Path) -> None:
    space = world.init(venv)
    for name in ("python", "python3"):
        (space / "bin" / name).unlink()
    said = world.refused(*HERE, "sh", "-c", "python", code=1)
    assert f"there is no {space}/bin/python" in said
    assert "`holo restore --space web` brings it back" in said
    world("restore", "--space", "web")
    assert world(*HERE, "python", "-c", "import sys; print(sys.prefix)") == f"{space}\n"


def test_conda_environment_may_have_no_python(world: World, tmp_path: Path) -> None:
    """One that never had a Python is none whose Python is gone, but neither is another's its own."""
    source = tmp_path / "env"
    trees.write(source / "conda-meta" / "history", "")
    trees.write(source / "bin" / "tool", "#!/bin/sh\necho tool\n", mode=0o755)
    world.init(source)
    assert world(*HERE, "tool") == "tool\n"
    assert "has no python of its own" in world.refused(*HERE, "python", code=127)
    trees.write(source / "conda-meta" / "python-3.12.1-0.json", "{}")
    world.holo("record", source, "--name", "lost")
    world.holo("init", "--space", "lost", "lost")
    assert "is gone" in world.refused("run", "--space", "lost", "--", "tool", code=1)


def test_other_spaces_take_what_is_on_path(world: World, tmp_path: Path) -> None:
    source = tmp_path / "env"
    trees.write(source / "node_modules" / ".bin" / "tool", "#!/bin/sh\n", mode=0o755)
    world.init(source)
    for name in ("npm", "python3", "pip"):
        world(*HERE, name)
    assert world.ran.read_text().split() == [f"{world.outside}/{name}" for name in ("npm", "python3", "pip")]


def test_unfinished_space_is_not_run(world: World, venv: Path) -> None:
    space = world.init(venv)
    records.edit(world.holo.holotree / ".spaces" / "web.json", state="restoring")
    for command in ([*HERE, "python", "-V"], ["variables", "--space", "web"], ["shell", "--space", "web"]):
        said = world.refused(*command, code=1)
        assert f"the last restore of space 'web' has not ended: not everything is in {space}" in said
        assert "`holo restore --space web` ends it" in said
        assert "--force" in said
    assert world("run", "--force", "--space", "web", "--", "python", "-V").startswith("Python 3")
    assert "HOLO_SPACE" in world("variables", "--force", "--space", "web")
    assert world(*EPHEMERAL, "python", "-V").startswith("Python 3"), "that one is whole"
    world("restore", "--space", "web")
    assert world(*HERE, "python", "-V").startswith("Python 3"), "what the hint says"


def test_force_is_for_spaces(world: World, venv: Path) -> None:
    world.init(venv)
    assert "--force is for spaces" in world.refused("run", "--force", *EPHEMERAL[1:], "true", code=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk")
def test_a_full_disk_leaves_a_space_that_is_not_run(world: World, venv: Path, tmp_path: Path) -> None:
    for number in range(40):
        trees.write(venv / "lib" / f"module_{number}.py", os.urandom(100_000).hex())
    world.holo("record", venv, "--name", "env")
    (tmp_path / "disk").mkdir()
    disks.run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path / "disk")
    try:
        world.holo("init", "--space", "web", "env", "--to", tmp_path / "disk" / "space", code=1)
        assert "has not ended" in world.refused(*HERE, "python", "-c", "", code=1)
        disks.run("mount", "-o", "remount,size=100m", tmp_path / "disk")
        world("restore", "--space", "web")
        world(*HERE, "python", "-c", "")
    finally:
        disks.unmount(tmp_path / "disk")
