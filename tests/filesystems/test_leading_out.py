"""What leads out of a recorded tree is reported when it is recorded, and when it is cloned with --relocate."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import trees
from support.cli import Holo

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

Warnings = Callable[[Path], list[str]]


@pytest.fixture(params=["record", "clone"])
def warnings(holo: Holo, request: pytest.FixtureRequest) -> Warnings:
    def of(tree: Path) -> list[str]:
        if request.param == "record":
            return list(holo("record", tree, "--json").json()["warnings"])
        return list(holo("clone", "--relocate", tree, holo.root / "clone", "--json").json()["warnings"])

    return of


def made(place: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    trees.write(place / "bin" / "tool", f"#!{place}/bin/python3\n", mode=0o755)
    return place


def test_an_environment_in_its_place(holo: Holo, warnings: Warnings) -> None:
    assert warnings(made(holo.root / "env")) == []


@pytest.mark.parametrize("without", ["", "bin/activate", "bin/tool"])
def test_an_environment_that_was_moved(holo: Holo, warnings: Warnings, without: str) -> None:
    source = made(holo.root / "before")
    for name in [name for name in without.split() if name]:
        (source / name).unlink()
    tree = holo.root / "project"
    tree.mkdir()
    source.rename(tree / ".venv")
    assert warnings(tree) == [f"{tree}/.venv was made at {source}: its scripts point there"]


@pytest.mark.parametrize("name", ["bin/activate", "bin/tool"])
def test_what_is_no_path_leads_nowhere(holo: Holo, warnings: Warnings, name: str) -> None:
    """No file has a NUL in its path, and Python refuses to look for one."""
    tree = made(holo.root / "env")
    trees.write(tree / name, b'#!/a\0b/bin/python\nexport VIRTUAL_ENV="/a\0b"\n')
    assert warnings(tree) == []


def test_relative_symlinks(holo: Holo, warnings: Warnings) -> None:
    """As npm makes them for the packages of a workspace."""
    tree = holo.root / "web" / "node_modules"
    (holo.root / "web" / "packages" / "lib").mkdir(parents=True)
    for name, target in {
        "@o/lib": "../../packages/lib",
        ".bin/vite": "../vite/bin.js",
        "@o/up": "..",
        "@o/gone": "./nowhere",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(target)
    said = ["relative symlinks lead out of the tree, and elsewhere from another place: @o/lib -> ../../packages/lib"]
    assert warnings(tree) == said


def test_an_interpreter_that_is_gone(holo: Holo, warnings: Warnings) -> None:
    python = holo.root / "pythons" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())
    tree = holo.root / "env"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "python").symlink_to(python)
    trees.write(tree / "pyvenv.cfg", f"home = {python.parent}\nversion = 3.11\n")
    assert warnings(tree) == []
    shutil.rmtree(python.parent)
    shutil.rmtree(holo.root / "clone", ignore_errors=True)
    assert warnings(tree) == [
        f"pyvenv.cfg names an interpreter in {python.parent}, which does not exist",
        f"symlinks are dangling: bin/python -> {python}",
    ]


def test_lines_of_a_pth(holo: Holo, warnings: Warnings) -> None:
    tree = holo.root / "env"
    site = "lib/python3.11/site-packages"
    trees.write(tree / site / "in.pth", "../../share\n./more\nmore\nimport sys; sys.path\n# ../../../..\n")
    trees.write(tree / site / "out.pth", "../../../../src\n")
    target = holo.root / "src"
    expected = [f"{site}/out.pth is an editable install that points outside the environment: {target}"]
    assert warnings(tree) == expected
    shutil.rmtree(holo.root / "clone", ignore_errors=True)
    trees.write(holo.root / "pyproject.toml", "")  # a project moves along, but no relative path is patched
    assert warnings(tree) == expected


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("VIRTUAL_ENV='{}/it'\"'\"'s $x'\n", "the prefix quoted for a shell"),
        ('VIRTUAL_ENV="{}/it\'s \\$x"\n', "the prefix quoted for a shell"),
        ("set -gx VIRTUAL_ENV '{}/it\\'s $x'\n", "the prefix quoted for a shell"),
    ],
)
def test_a_path_that_was_quoted_is_reported(holo: Holo, warnings: Warnings, text: str, spelled: str) -> None:
    tree = holo.root / "it's $x"
    trees.write(tree / "file", text.format(holo.root))
    (said,) = warnings(tree)
    assert said.startswith(f"file contains {spelled} (")
