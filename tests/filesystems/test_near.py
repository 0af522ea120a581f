"""A space that is a project's .venv or node_modules is found there, and below, without its name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from support import compare, trees
from support.cli import Holo
from support.repositories import git, repository

pytestmark = [
    pytest.mark.parametrize("filesystem", ["local"], indirect=True),
    pytest.mark.parametrize("place", [".venv", "node_modules"]),
]

WHICH = ("sh", "-c", "echo $HOLO_SPACE $HOLO_SPACE_PATH; hello")


@pytest.fixture
def source(holo: Holo) -> Path:
    source = trees.small(holo.root / "source")
    holo("record", source, "--name", "env")
    holo("init", "--space", "other", "env")
    return source


@pytest.fixture
def project(holo: Holo, source: Path, place: str) -> Path:
    """With a blueprint that nobody can build, and a space `feature`."""
    project = holo.root / "project"
    (project / "src" / "deep").mkdir(parents=True)
    (project / "requirements.txt").write_text("no such package\n")
    holo("init", "--space", "feature", "env", "--to", project / place)
    return project


def test_inside_a_space_it_is_that_one_wherever_it_is(holo: Holo, project: Path) -> None:
    other = Path(holo("status", "other", "--json").json()["path"])
    holo("init", "--space", "placed", "env", "--to", holo.root / 'odd "name"')
    for name, path in (("other", other), ("placed", holo.root / 'odd "name"')):
        assert holo("status", "--json", cwd=path / "lib").json()["space"] == name
    holo("delete", cwd=other)
    assert "other" not in holo.listed()


def test_a_worktree_inside_a_checkout_is_not_in_it(holo: Holo, project: Path, place: str) -> None:
    """As agents have them. The space of the checkout around imports the source of that."""
    (project / ".gitignore").write_text(f"{place}\n.claude\n")
    repository(project)
    inner = project / ".claude" / "worktrees" / "fix"
    git(project, "worktree", "add", "--quiet", inner)
    for command in (("run", "--space", "feature"), ("run",)):
        assert holo(*command, "--", *WHICH, cwd=project / "src").stdout.startswith("feature ")
    assert f"{inner}/requirements.txt" in holo("run", "--", *WHICH, cwd=inner, code=2).stderr, "its own blueprint"
    assert "no space is named" in holo("status", cwd=inner, code=1).stderr
    holo("restore", cwd=inner, code=1)
    holo("init", "--space", "fix", "env", "--to", inner / place)
    assert holo("status", "--json", cwd=inner).json()["space"] == "fix"
    # A repository of its own, as a submodule is, uses what lies around it.
    repository(project / "module")
    assert holo("status", "--json", cwd=project / "module").json()["space"] == "feature"


@pytest.mark.parametrize("below", ["", "src/deep", "place/lib"])
def test_every_command_means_the_space_that_is_there(
    holo: Holo, source: Path, project: Path, place: str, below: str
) -> None:
    space = project / place
    folder = project / below.replace("place", place)
    expected = f"feature {space}\nhello from {space}\n"
    assert holo("run", "--", *WHICH, cwd=folder).stdout == expected
    assert holo("run", "--", *WHICH, cwd=folder, env={"HOLO_SPACE": "other"}).stdout == expected
    assert holo("run", "--ephemeral", "--", *WHICH, cwd=folder).stdout == expected
    assert holo("run", "--ephemeral", "--catalog", "env", "--", *WHICH, cwd=folder).stdout == expected
    assert holo("run", "--space", "other", "--", *WHICH, cwd=folder).stdout.startswith("other ")
    assert holo("variables", "--json", cwd=folder).json()["HOLO_SPACE"] == "feature"
    shell = trees.write(holo.root / "shell", "#!/bin/sh\necho $HOLO_SPACE\n", mode=0o755)
    assert holo("shell", cwd=folder, env={"SHELL": str(shell)}).stdout == "feature\n"
    (space / "bin" / "hello").unlink()
    checked = holo("check", "--json", cwd=folder, code=3).json()
    assert {name for problem in checked["problems"] for name in problem["spaces"]} == {"feature"}
    assert holo("check", "--json", "--space", "other", cwd=folder).json()["problems"] == []
    assert holo("restore", "--dry-run", "--json", cwd=folder).json()["space"] == "feature"
    assert holo("restore", "--json", cwd=folder).json()["space"] == "feature"
    assert compare.differences(source, space) == []
    assert [*holo.listed()] == ["feature", "other"]
    assert holo("delete", "--json", cwd=folder).json() == {"space": "feature", "path": str(space)}
    assert [*holo.listed()] == ["other"]
    assert not space.exists()


def test_a_space_that_is_gone_is_made_again(holo: Holo, source: Path, project: Path, place: str) -> None:
    shutil.rmtree(project / place)
    assert "holo restore --space feature" in holo("run", "--", "true", cwd=project, code=1).stderr
    holo("restore", cwd=project / "src")
    assert compare.differences(source, project / place) == []
    shutil.rmtree(project / place)
    (project / place).mkdir()
    holo("restore", cwd=project)
    assert compare.differences(source, project / place) == []


def test_what_has_come_in_its_place_is_not_touched(holo: Holo, project: Path, place: str) -> None:
    shutil.rmtree(project / place)
    precious = trees.write(project / place / "precious")
    assert "no space is named" in holo("delete", cwd=project, code=2).stderr
    said = holo("status", cwd=project / "src", code=1).stderr
    assert f"{project / place} is space 'feature' no more" in said
    assert "holo restore feature --force" in said
    assert holo("check", "--json", cwd=project).json()["problems"] == []
    assert holo("run", "--", *WHICH, cwd=project, env={"HOLO_SPACE": "other"}).stdout.startswith("other ")
    for refused in (("restore", "feature"), ("init", "feature", "env"), ("restore", "--to", place, "--dry-run")):
        said = holo(*refused, cwd=project, code=1).stderr
        assert f"{project / place} is not what the last restore of space 'feature' left there" in said
        assert "`holo restore feature --force`" in said
    assert precious.exists()
    left = {each["path"]: each["why"] for each in holo("uninstall", "--dry-run", "--json").json()["left"]}
    assert left[str(project / place)] == "it is not space feature, which it has replaced"
    assert "it stays" in holo("delete", "feature").stderr
    assert [*holo.listed()] == ["other"]
    assert precious.exists()


@pytest.mark.parametrize("what", ["a file", "a directory"])
def test_what_has_come_in_its_place_goes_only_by_force(holo: Holo, source: Path, project: Path, what: str) -> None:
    place = Path(holo("status", "feature", "--json").json()["path"])
    shutil.rmtree(place)
    mine = trees.write(place if what == "a file" else place / "mine")
    if what == "a file":
        holo("restore", "feature", "--force", code=1)
        assert "it stays" in holo("delete", "feature").stderr
        assert mine.exists()
    else:
        holo("restore", "feature", "--force")
        assert compare.differences(source, place) == []
        holo("delete", "feature")
        assert not place.exists()


def test_a_symlink_to_a_space(holo: Holo, source: Path, place: str) -> None:
    folder = holo.root / "folder"
    folder.mkdir()
    (space,) = (Path(space["path"]) for space in holo("list", "--json").json()["spaces"])
    (folder / place).symlink_to(space)
    elsewhere = holo.root / "elsewhere"
    elsewhere.symlink_to(folder)
    expected = f"other {space}\nhello from {space}\n"
    for near in (folder, elsewhere):
        assert holo("run", "--", *WHICH, cwd=near).stdout == expected


def test_the_nearest_one_counts(holo: Holo, project: Path, place: str) -> None:
    inner = project / "src"
    holo("init", "--space", "inner", "env", "--to", inner / place)
    assert holo("run", "--", *WHICH, cwd=inner / "deep").stdout.startswith("inner ")
    assert holo("run", "--", *WHICH, cwd=project).stdout.startswith("feature ")
    (project / "src2").mkdir()
    assert holo("run", "--", *WHICH, cwd=project / "src2").stdout.startswith("feature ")


def test_a_folder_with_two(holo: Holo, project: Path, place: str) -> None:
    """Commands that change one do not choose."""
    both = {".venv": "feature", "node_modules": "feature"}
    (other,) = both.keys() - {place}
    both[other] = "second"
    holo("init", "--space", "second", "env", "--to", project / other)
    assert holo("run", "--", *WHICH, cwd=project).stdout.startswith(both[".venv"] + " ")
    for command in ("restore", "delete"):
        refused = holo(command, cwd=project, code=2).stderr
        assert f"{project / '.venv'} and {project / 'node_modules'} are spaces" in refused
        assert f"--space {both['.venv']} or --space {both['node_modules']}" in refused
    for path in (project / ".venv", project / "node_modules"):
        (path / "lib" / "data.txt").unlink()
    checked = holo("check", "--json", cwd=project, code=3).json()
    assert {name for problem in checked["problems"] for name in problem["spaces"]} == {"feature", "second"}


@pytest.mark.parametrize("damage", ["empty", "gone"])
def test_a_space_that_only_its_mark_tells_of(holo: Holo, project: Path, place: str, damage: str) -> None:
    """As a power cut may leave it."""
    record = holo.holotree / ".spaces" / "feature.json"
    record.unlink() if damage == "gone" else os.truncate(record, 0)
    assert holo("restore", "--json", cwd=project).json()["space"] == "feature"
