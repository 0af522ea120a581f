"""Names of spaces and catalogs: where they stand, how short they may be, and what is meant without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo.cli.app import _only_word
from support import trees
from support.cli import Holo
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

WHICH = ("sh", "-c", "echo $HOLO_SPACE")


@pytest.fixture
def holo(filesystem: Filesystem, forks: Forks) -> Holo:
    """With a catalog `env`, and the spaces `one` and `one-more`."""
    holo = ForkedHolo(filesystem.root, forks)
    holo("record", trees.small(filesystem.root / "source"), "--name", "env")
    for name in ("one", "one-more"):
        holo("init", name, "env")
    return holo


@local
def test_names_are_positional(holo: Holo) -> None:
    assert [*holo.listed()] == ["one", "one-more"]
    assert holo("restore", "one", "--json").json()["space"] == "one"
    for command in (("run", "one", "--"), ("run", "--force", "one", "--"), ("run", "one", "--force", "--")):
        assert holo(*command, *WHICH).stdout == "one\n"
    assert holo("run", "--space", "one", *WHICH).stdout == "one\n"
    assert holo("run", "--ephemeral", "one", "--", *WHICH).stdout == "one\n"
    assert holo("variables", "one", "--json").json()["HOLO_SPACE"] == "one"
    shell = trees.write(holo.root / "shell", "#!/bin/sh\necho $HOLO_SPACE\n", mode=0o755)
    assert holo("shell", "one", env={"SHELL": str(shell)}).stdout == "one\n"
    assert holo("init", "--space", "two", "env", "--json").json()["space"] == "two"
    assert holo("init", "env", "env", "--json").json()["space"] == "env"
    holo("delete", "one")
    assert [*holo.listed()] == ["env", "one-more", "two"]


@local
def test_a_beginning_is_enough_where_nothing_is_lost(holo: Holo) -> None:
    assert holo("run", "one-", "--", *WHICH).stdout == "one-more\n"
    assert holo("run", "one", "--", *WHICH).stdout == "one\n"  # a name is itself, whatever else begins so
    assert "on is the beginning of 2 names of spaces: one, one-more" in holo("run", "on", "--", *WHICH, code=2).stderr
    assert holo("variables", "one-m", "--json").json()["HOLO_SPACE"] == "one-more"
    assert "one-more" in holo("du", "one-m").stdout
    holo("check", "--space", "one-m")
    digest = holo("catalogs", "--json").json()["catalogs"][0]["digest"]
    for reference in ("e", digest[:2]):
        assert holo("catalogs", reference, "--json").json()["catalogs"][0]["name"] == "env"
        holo("verify", reference)
        holo("sbom", reference)
        assert holo("export", reference, "-o", holo.root / "x.holo", "--json").json()["catalogs"][0]["name"] == "env"
        assert holo("init", "two", reference, "--json").json()["catalog"] == "env"
    assert holo("run", "--ephemeral", "--catalog", "e", "new", "--", *WHICH).stdout == "new\n"
    before = [*holo.listed()]
    for command in (
        ("delete", "one-m"),
        ("restore", "one-m"),
        ("restore", "two", "--catalog", "e"),
        ("init", "two", "e", "--force"),
        ("catalogs", "--remove", "e"),
    ):
        assert "Did you mean" in holo(*command, code=1).stderr
    assert [*holo.listed()] == before
    assert "2 begin so: one, one-more." in holo("delete", "on", code=1).stderr  # and none of them is meant


@local
def test_a_folder_is_no_name(holo: Holo) -> None:
    holo("init", "near", "env", "--to", holo.root / ".venv")
    for command in ("status", "restore", "delete"):
        assert "`holo list` shows its name" in holo(command, ".venv", cwd=holo.root, code=2).stderr
        assert "It is a folder" not in holo(command, ".nothing", cwd=holo.root, code=2).stderr


@local
def test_the_space_that_is_to_be_made_need_not_be_named(holo: Holo) -> None:
    project = holo.root / "project"
    trees.write(project / "src" / "requirements.txt", "")
    assert list(holo("init", "--json", "./env.holo", cwd=holo.root, code=1).json()) == ["error"]
    made = holo("init", "./source", "--json", cwd=holo.root).json()
    assert made["space"] == "user"
    assert holo("init", "--json", env={"HOLO_SPACE": "named"}).json()["space"] == "named"
    holo("init", "near", "env", "--to", project / ".venv")
    assert holo("init", "--json", cwd=project / "src").json()["space"] == "near"
    assert holo("init", "--to", project / ".venv", "--json").json()["space"] == "near"
    assert "is a file here" in holo("init", "requirements.txt", cwd=project / "src", code=2).stderr


@local
def test_a_file_that_almost_is_a_blueprint_is_told_of(holo: Holo) -> None:
    """Whoever stands in such a project learns why holo takes nothing there."""
    folder = holo.root / "project"
    below = folder / "web" / "src"
    below.mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[tool.poetry]\n")
    (folder / "poetry.lock").touch()
    (folder / "web" / "package.json").touch()
    (folder / "web" / "pnpm-lock.yaml").touch()
    holo("catalogs", "env", "--remove")
    for command in (("run", "--", "true"), ("variables",), ("init", "--space", "x")):
        said = holo(*command, cwd=below, code=1).stderr
        assert (
            f"hint: {folder}/web/pnpm-lock.yaml is no blueprint: make one that holo knows of the package.json" in said
        )
        assert said.count("is no blueprint:") == 1, "one advice for both files"
        said = holo(*command, cwd=folder, code=1).stderr
        assert f"{folder}/poetry.lock is no blueprint: write what it says as one that holo knows: poetry export" in said
        assert f"{folder}/pyproject.toml is no blueprint: there is no [project] in it. Name the pyproject.toml" in said
        assert "is no blueprint:" not in holo(*command, cwd=holo.root, code=1).stderr
    said = holo("init", "x", folder / "web" / "package.json", code=1).stderr
    assert said == (
        f"error: there is no {folder}/web/package-lock.json\nhint: Make it: npm install --package-lock-only\n"
    )


def test_the_space_of_the_nearest_blueprint_comes_before_user(holo: Holo) -> None:
    """For every command, if it exists; here it is named so by hand, so that nothing needs to be built."""
    folder = holo.root / "project"
    trees.write(folder / "requirements.txt", "no such package")
    said = holo("init", "--ephmeral", cwd=folder, code=2)
    assert said.stdout == ""
    from holo.blueprints.blueprint import named

    name = named(str(folder / "requirements.txt")).space
    holo("init", name, "env")
    holo("init", "user", "env")
    assert holo("restore", "--json", cwd=folder).json()["space"] == name
    assert holo("status", "--json", cwd=folder).json()["space"] == name
    assert holo("restore", "--json").json()["space"] == "user"
    holo("delete", code=2, cwd=folder)


OPTIONS = frozenset({"--space", "--force", "--keep"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("job-1", 0),
        ("--force job-1", 1),
        ("--keep job-1 job-1", 2),
        ("job-1 --keep job-1", 0),
        ("--keep=job-1 job-1 --force", 1),
        ("--keep job-1", None),
        ("", None),
        ("git log", None),
        ("python --version", None),
        ("python -c x", None),
        ("--force git --keep x y", None),
    ],
)
def test_the_one_word_before_a_command(words: str, expected: int | None) -> None:
    assert _only_word(words.split(), OPTIONS, frozenset({"--force"})) == expected


def test_paths_are_no_names(tmp_path: Path) -> None:
    from holo.cli.options import space_and_source

    assert space_and_source("job-1", None, None) == ("job-1", None)
    assert space_and_source("job-1", "app", None) == ("job-1", "app")
    assert space_and_source("app", None, "job-1") == ("job-1", "app")
    assert space_and_source(f"{tmp_path}/x", None, None) == (None, f"{tmp_path}/x")
    assert space_and_source(None, None, None) == (None, None)
