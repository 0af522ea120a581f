"""Which folder is a project, and which are checkouts of one: with real git."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from holo.cloning import roots
from holo.projects import project_of, same_project
from holo.relocation import project
from holo.relocation.project import foreign_imports, make_link_trees


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(("git", "-C", folder, *identity, *arguments), check=True, capture_output=True)


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    return folder


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return repository(tmp_path / "main")


def test_worktree_is_the_project_whatever_manifests_are_nearer(main: Path) -> None:
    member = main / "packages" / "one"
    member.mkdir(parents=True)
    (member / "pyproject.toml").touch()
    assert project_of(str(member / ".venv")) == str(main)


def test_added_worktree_is_a_project_of_its_own_and_the_same(main: Path) -> None:
    other = main / "trees" / "feature"
    git(main, "worktree", "add", "-q", str(other))
    assert project_of(str(other / ".venv")) == str(other)
    assert same_project(str(main), str(other))


def test_nearest_manifest_where_there_is_no_git(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "pyproject.toml").touch()
    (inner / "package.json").touch()
    assert project_of(str(inner / "node_modules")) == str(inner)
    assert project_of(str(tmp_path / "outer" / ".venv")) == str(tmp_path / "outer")


def test_folder_is_not_its_own_project(main: Path) -> None:
    assert project_of(str(main)) is None


@pytest.mark.parametrize("git_file", ["", "gitdir: ", "nonsense", "gitdir: /\0"])
def test_strange_git_file_ends_in_a_project_or_none(tmp_path: Path, git_file: str) -> None:
    (tmp_path / ".git").write_text(git_file)
    assert project_of(str(tmp_path / ".venv")) in (None, str(tmp_path))
    assert same_project(str(tmp_path), str(tmp_path))
    assert not same_project(str(tmp_path), str(tmp_path / "other"))


@pytest.mark.parametrize("strange", ["\0", "/" * 100_000 + "x"], ids=["nul", "long"])
def test_strange_paths_in_an_environment_name_no_checkout(main: Path, tmp_path: Path, strange: str) -> None:
    git(main, "worktree", "add", "-q", str(tmp_path / "other"))
    site = main / ".venv" / "lib" / "python3.11" / "site-packages"
    (site / "x.dist-info").mkdir(parents=True)
    place = f"{tmp_path}/other/__editable__.{strange}"
    (site / "x.pth").write_text(f"{place}\n{tmp_path}/other/src\n")
    (site / "__editable___x_finder.py").write_text(f"'{place}'")
    document = {"url": f"file://{quote(place)}", "dir_info": {"editable": True}}
    (site / "x.dist-info" / "direct_url.json").write_text(json.dumps(document))
    assert foreign_imports(str(main / ".venv"), str(main)) == [f"{tmp_path}/other/src"]
    files = ["lib/python3.11/site-packages/x.pth"]
    warnings = make_link_trees(str(main / ".venv"), files, str(main), f"{tmp_path}/other")
    assert warnings == [f"{files[0]} names {tmp_path}/other/src, which does not exist: install the project there again"]


def test_unreadable_packages_name_no_checkout(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = main / ".venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path == str(site):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert foreign_imports(str(main / ".venv"), str(main)) == []


def test_nothing_moves_to_the_root_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which some keep in git."""
    for module in (project, roots):
        monkeypatch.setattr(module, "project_of", lambda path: "/gone" if path.startswith("/gone") else "/")
    assert project.placement("/gone", "/opt/env", "") == project.Placement("", "/opt/env lies in no project")
    monkeypatch.setattr(roots, "same_project", lambda one, other: True)
    assert roots.of_project("/gone/.venv", "/opt/env") == roots.of_project("/opt/env", "/gone/.venv") == []


def test_clone_is_the_same_as_its_origin_and_as_its_siblings(main: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for clone in (one, two):
        git(tmp_path, "clone", "-q", str(main), str(clone))
    assert same_project(str(main), str(one))
    assert same_project(str(one), str(two))
    for clone in (one, two):
        git(clone, "remote", "set-url", "origin", "https://example.org/x.git")
    assert same_project(str(one), str(two))
    assert not same_project(str(main), str(one))


def test_repositories_without_anything_in_common_differ(main: Path, tmp_path: Path) -> None:
    assert not same_project(str(main), str(repository(tmp_path / "other")))


@pytest.mark.parametrize(
    ("manifest", "content"),
    [("pyproject.toml", "[project]\nname = '{}'\n"), ("package.json", '{{"name": "{}"}}')],
)
def test_name_in_the_manifest_tells(tmp_path: Path, manifest: str, content: str) -> None:
    for folder, name in {"a": "app", "b": "app", "c": "other"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / manifest).write_text(content.format(name))
    a, b, c = (str(tmp_path / folder) for folder in "abc")
    assert same_project(a, b)
    assert not same_project(a, c)


def test_projects_without_names_differ(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pyproject.toml").write_text("[tool.x]\n")
    assert not same_project(str(tmp_path / "a"), str(tmp_path / "b"))
