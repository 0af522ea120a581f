"""A real virtualenv, restored at another path, is used: that is what all the rest is for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import compare, filesystems
from support.cli import Holo
from support.filesystems import Mounts
from support.forks import ForkedHolo, Forks

Recorded = Callable[[str], Holo]


@pytest.fixture(scope="session")
def recorded(mounts: Mounts, real_venv_source: Path, forks: Forks) -> Recorded:
    """A library on the named filesystem that holds the virtualenv as `venv`, made when first asked for."""
    made: dict[str, Holo] = {}

    def library(name: str) -> Holo:
        if name not in made:
            root = mounts.get(name) / "real"
            root.mkdir()
            made[name] = ForkedHolo(root, forks)
            made[name]("record", real_venv_source, "--name", "venv")
        return made[name]

    return library


@pytest.fixture
def library(request: pytest.FixtureRequest, recorded: Recorded) -> Holo:
    return recorded(getattr(request, "param", "local"))


@pytest.fixture
def space(library: Holo, strategy: str) -> Iterator[Path]:
    """The virtualenv restored into the holotree."""
    yield init(library, strategy, "used")
    library("delete", "--space", "used")


def init(library: Holo, strategy: str, name: str, *more: str) -> Path:
    report = library("init", "--space", name, "venv", "--strategy", strategy, "--json", *more).json()
    return Path(report["path"])


def run(library: Holo, *command: str | Path) -> str:
    """Run something as a user with a clean shell would, and return what it says."""
    done = subprocess.run(
        command, capture_output=True, text=True, env=library.environment(), cwd=library.root, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def bytecode(space: Path) -> dict[bytes, tuple[object, ...]]:
    return {name: found for name, found in compare.snapshot(space).items() if name.endswith(b".pyc")}


@pytest.mark.parametrize("library", filesystems.NAMES, indirect=True)
@pytest.mark.parametrize("strategy", ["smart", "hardlink"], indirect=True)
def test_virtualenv_works_at_another_path(library: Holo, space: Path) -> None:
    """Console scripts, numpy and pip, and no import has to compile anything."""
    before = bytecode(space)
    assert len(before) > 1000

    python = space / "bin" / "python"
    assert run(library, python, "-c", "import sys; print(sys.prefix)") == f"{space}\n"
    numpy = run(library, python, "-c", "import numpy; print(numpy.__file__, numpy.arange(4).sum())")
    assert numpy.startswith(f"{space}/lib/")
    assert numpy.endswith(" 6\n")
    assert "Pygments" in run(library, space / "bin" / "pygmentize", "-V")
    assert run(library, space / "bin" / "numpy-config", "--version")
    packages = run(library, space / "bin" / "pip", "list")
    assert {"numpy", "rich", "pip"} <= {line.split()[0] for line in packages.splitlines()}
    assert str(space) in run(library, space / "bin" / "pip", "--version")

    assert bytecode(space) == before


def test_nothing_in_it_names_the_old_path(library: Holo, space: Path, real_venv_source: Path) -> None:
    """But bytecode, which CPython corrects when it loads it."""
    old, new = os.fsencode(real_venv_source), os.fsencode(space)
    holders = []
    for folder, _, names in os.walk(space):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink() or path.suffix == ".pyc":
                continue
            content = path.read_bytes()
            holders += [path.relative_to(space)] if new in content else []
            assert old not in content, path
    assert Path("bin/pip") in holders
    assert Path("bin/activate") in holders


def test_activation_leads_into_the_space(library: Holo, space: Path) -> None:
    script = f". '{space}/bin/activate'; echo \"$VIRTUAL_ENV\"; command -v python"
    assert run(library, "sh", "-c", script) == f"{space}\n{space}/bin/python\n"


@pytest.mark.parametrize("extra", [0, 1, 60], ids=["equal", "longer", "much-longer"])
def test_path_of_any_length(library: Holo, real_venv_source: Path, extra: int) -> None:
    folder = library.root / "to"
    folder.mkdir(exist_ok=True)
    length = len(str(real_venv_source)) + extra
    target = Path(f"{folder}/".ljust(length, "t"))
    assert len(str(target)) == length
    assert target.parent == folder
    try:
        assert init(library, "smart", "placed", "--to", str(target)) == target
        assert compare.differences(real_venv_source, target) == []
        run(library, target / "bin" / "pip", "--version")
        assert run(library, target / "bin" / "numpy-config", "--version")
    finally:
        library("delete", "--space", "placed")


@pytest.mark.parametrize("folder", ["with space", "l" * 250], ids=["space", "long"])
def test_script_whose_shebang_cannot_hold_the_path(library: Holo, folder: str) -> None:
    """Linux takes 255 bytes of it at most, and splits it at a space."""
    target = library.root / folder
    try:
        init(library, "smart", "awkward", "--to", str(target))
        assert str(target) in run(library, target / "bin" / "pip", "--version")
    finally:
        library("delete", "--space", "awkward")


@pytest.mark.parametrize("strategy", ["smart", "hardlink"], indirect=True)
def test_two_spaces_do_not_see_each_other(library: Holo, strategy: str) -> None:
    one, two = (init(library, strategy, name) for name in ("one", "two"))
    try:
        run(library, one / "bin" / "pip", "uninstall", "--yes", "--quiet", "numpy")
        assert "numpy" not in run(library, one / "bin" / "pip", "list")
        assert run(library, two / "bin" / "python", "-c", "import numpy; print(numpy.__name__)") == "numpy\n"
    finally:
        library("delete", "--space", "one")
        library("delete", "--space", "two")


def test_holo_run_finds_the_programs_of_the_space(library: Holo) -> None:
    path = init(library, "smart", "run")
    said = library("run", "--space", "run", "--", "pip", "--version").stdout
    assert f"from {path}/" in said
    shutil.rmtree(path / "lib")
    library("restore", "--space", "run")
    assert library("run", "--space", "run", "--", "python", "-c", "import numpy").stderr == ""
    library("delete", "--space", "run")
