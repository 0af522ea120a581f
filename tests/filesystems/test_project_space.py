"""A space that names its project, on every filesystem and by every method: recorded in one checkout, for another."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from holo.relocation.project import foreign_imports
from support.cli import Holo
from support.filesystems import Filesystem
from support.trees import write

SITE = Path("lib", "python3.11", "site-packages")
CODE = b"first = 1\n" * 900


def checkouts(root: Path) -> tuple[Path, Path]:
    """Two checkouts of one project, the first with an environment."""
    for name in ("first", "the-other"):
        write(root / name / "pyproject.toml", '[project]\nname = "app"\n')
    first, venv = root / "first", root / "first" / ".venv"
    write(venv / SITE / "app.pth", f"{first}/src\n")
    write(venv / SITE / "__editable___app_finder.py", f"MAPPING = {{'app': '{first}/src', 'env': '{venv}'}}\n")
    write(venv / SITE / "app.dist-info" / "direct_url.json", json.dumps({"url": f"file://{first}"}))
    write(venv / "large", b"\0" * (2 << 20) + os.fsencode(venv) + b"\0")
    write(venv / SITE / "plain.py", CODE)
    os.link(venv / SITE / "app.pth", venv / SITE / "again.pth")
    os.symlink(first / "src", venv / "absolute")
    os.symlink("../src", venv / "relative")
    os.symlink(SITE / "plain.py", venv / "inside")
    return first, root / "the-other"


def is_for(space: Path, project: Path) -> None:
    assert (space / SITE / "app.pth").read_text() == (space / SITE / "again.pth").read_text() == f"{project}/src\n"
    mapping = eval((space / SITE / "__editable___app_finder.py").read_text().partition("=")[2])
    assert mapping == {"app": f"{project}/src", "env": str(space)}
    assert json.loads((space / SITE / "app.dist-info" / "direct_url.json").read_text())["url"] == f"file://{project}"
    assert os.readlink(space / "absolute") == f"{project}/src"
    assert os.path.normpath(space / os.readlink(space / "relative")) == f"{project}/src"
    assert os.path.samefile(space / SITE / "app.pth", space / SITE / "again.pth")


@pytest.mark.parametrize("strategy", ["smart", "hardlink"])
def test_the_space_is_for_its_checkout(filesystem: Filesystem, holo: Holo, strategy: str) -> None:
    first, other = checkouts(filesystem.root)
    holo("record", first / ".venv", "--name", "app")
    made = holo("init", "s", "app", "--to", other / ".v", "--strategy", strategy, "--json").json()
    if filesystem.name == "btrfs" and strategy == "smart":
        assert made["strategy"]["used"] == "snapshot"
    assert made["files"]["relocated"] == 4
    is_for(other / ".v", other)
    holo("check", "--space", "s")
    # In the home, for the first checkout: no program shares a file with the other space.
    home = Path(holo("init", "h", "app", "--project", first, "--strategy", strategy, "--json").json()["path"])
    is_for(home, first)
    (home / "relative").unlink()
    (home / SITE / "app.pth").write_text("changed")
    is_for(other / ".v", other)
    restored = holo("restore", "h", "--strategy", strategy, "--json").json()
    assert (
        restored["strategy"]["used"] == "snapshot" or restored["files"]["unchanged"] == restored["files"]["total"] - 2
    )
    is_for(home, first)
    assert holo("restore", "s", "--strategy", strategy, "--json").json()["files"]["unchanged"] == made["files"]["total"]
    assert holo("status", "s", "--json").json()["state"] == "pristine"
    (other / ".v" / SITE / "app.pth").write_text("changed")
    (change,) = holo("status", "s", "--json").json()["changes"]["files"][:1]
    assert change["path"].endswith(".pth")


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_it_travels_with_its_catalog(filesystem: Filesystem, holo: Holo) -> None:
    """Through a bundle to a machine where the recorded checkout is not: any project will do there."""
    first, other = checkouts(filesystem.root)
    recorded = holo("record", first / ".venv", "--name", "app", "--json").json()
    bundle = filesystem.root / "app.holo"
    holo("export", "app", "-o", bundle)
    first.rename(filesystem.root / "gone")
    elsewhere = {"HOLO_HOME": str(filesystem.root / "elsewhere")}
    holo("init", "direct", bundle, "--to", other / "direct", env=elsewhere)
    is_for(other / "direct", other)
    holo("import", bundle, env=elsewhere)
    assert holo("init", "s", "app", "--to", other / "s", "--json", env=elsewhere).json()["digest"] == recorded["digest"]
    is_for(other / "s", other)
    # What the library has lost is in the space, and is patched back.
    for blob in (filesystem.root / "elsewhere" / "hololib" / "library").glob("*/*"):
        os.truncate(blob, 1)
    report = holo("check", "--repair", "--json", env=elsewhere).json()
    assert [problem for problem in report["problems"] if problem["repaired"] is None] == []
    holo("check", "--space", "s", "--space", "direct", env=elsewhere)


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_imports_from_other_checkouts_are_found(filesystem: Filesystem) -> None:
    """In whatever says so, and whether one checkout lies in the other or not; a place of another project is none."""
    root = filesystem.root
    first, other = root / "first", root / "first" / ".worktrees" / "other"
    for path in (first, other, root / "stranger"):
        name = "stranger" if path.name == "stranger" else "app"
        write(path / "pyproject.toml", f'[project]\nname = "{name}"\n')
        (path / ".git").mkdir()
        write(path / ".git" / "HEAD", "ref: refs/heads/main\n")
        (path / "src").mkdir()
    venv = other / ".venv"
    write(venv / SITE / "app.pth", f"{first}/src\n{other}/src\n{root}/stranger/src\nimport x\n")
    write(venv / SITE / "app.egg-link", f"{first}/egg\n")
    write(venv / SITE / "__editable___app_finder.py", f"MAPPING = {{'app': '{first}/found', 'own': '{venv}/lib'}}\n")
    for number, url in enumerate((f"{first}/a%20b", f"{other}/c")):
        document = {"dir_info": {"editable": True}, "url": f"file://{url}"}
        write(venv / SITE / f"app{number}.dist-info" / "direct_url.json", json.dumps(document))
    write(venv / SITE / "broken.dist-info" / "direct_url.json", '"editable" {')
    assert sorted(foreign_imports(str(venv), str(other))) == [
        f"{first}/{name}" for name in ("a b", "egg", "found", "src")
    ]
    assert foreign_imports(str(venv), str(first)) == [f"{other}/src", f"{other}/c"]
    modules = other / "node_modules"
    (modules / "@app").mkdir(parents=True)
    os.symlink("../../../../packages/core", modules / "@app" / "core")
    os.symlink("../packages/web", modules / "web")
    assert foreign_imports(str(modules), str(other)) == [f"{first}/packages/core"]


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_a_project_that_is_not_there_is_an_error(filesystem: Filesystem, holo: Holo) -> None:
    first, _ = checkouts(filesystem.root)
    command = ("init", "s", first / ".venv", "--project")
    assert "--project is empty" in holo(*command, "", code=2).stderr
    assert f"there is no directory {filesystem.root}/none" in holo(*command, filesystem.root / "none", code=1).stderr
    assert holo("list", "--json").json()["spaces"] == []
