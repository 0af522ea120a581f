"""Environments recorded in one checkout of a project and made in another: they import that one's source.

Real git, uv, pip, hatchling, setuptools, npm and pnpm.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from support import projects, trees
from support.cli import Holo

pytestmark = [
    pytest.mark.parametrize("filesystem", ["local"], indirect=True),
    pytest.mark.skipif(os.name != "posix", reason="paths of POSIX"),
]


def in_worktree(holo: Holo, environment: Path, to: Path) -> Path:
    """Record an environment of one worktree, and make it at the same place of another."""
    name = str(environment.relative_to(holo.root)).replace("/", "-")
    report = holo("record", environment, "--name", name, "--json").json()
    assert report["project"] == str(holo.root / environment.relative_to(holo.root).parts[0])
    assert not [warning for warning in report["warnings"] if "outside" in warning]
    made = holo("init", "--space", name, name, "--to", to)
    assert made.stdout.endswith(f", for the project {to.parent}\n")
    assert made.stderr == "" or " " in str(to)  # which no one knows how to quote for nushell
    holo("check", "--space", name)
    return to


def sees_its_own_source(first: Path, second: Path, module: Path) -> None:
    """The environments of two worktrees say what the module in theirs says, whatever the other one's says."""
    name = module.parent.name
    assert (projects.said_by(first, name), projects.said_by(second, name)) == ([f"first {name}"], [f"first {name}"])
    projects.edit(module, "second")
    assert (projects.said_by(first, name), projects.said_by(second, name)) == ([f"first {name}"], [f"second {name}"])


def test_a_src_layout_by_uv_and_hatchling(holo: Holo) -> None:
    """At a path with a blank, which is percent-encoded in URLs and quoted in scripts."""
    project = projects.python_project(holo.root / "app")
    first = projects.uv_sync(project)
    other = projects.worktree(project, holo.root / "app, 2nd")
    second = in_worktree(holo, first, other / ".venv")
    sees_its_own_source(first, second, other / "src" / "app" / "__init__.py")
    files = [path for path in second.rglob("*") if path.is_file()]
    assert not [path for path in files if os.fsencode(project) + b"/" in path.read_bytes()]
    (url,) = second.glob("lib/*/site-packages/app-*/direct_url.json")
    assert json.loads(url.read_text())["url"] == f"file://{str(other).replace(' ', '%20')}"


@pytest.mark.parametrize("mode", ["strict", "lax"])
def test_both_editable_modes_of_setuptools(holo: Holo, mode: str) -> None:
    """By pip: strict, with a folder of links in the project; by uv: lax, with a finder that knows the place."""
    project = projects.python_project(holo.root / "app", build=projects.SETUPTOOLS, layout="")
    (project / "tests").mkdir()  # so that the project's own folder cannot be on the path
    shutil.copy(project / "app" / "__init__.py", project / "tests" / "__init__.py")
    configured = (project / "pyproject.toml").read_text() + '[tool.setuptools]\npackages = ["app"]\n'
    (project / "pyproject.toml").write_text(configured)
    projects.commit(project)
    other = projects.worktree(project, holo.root / "app-2")
    if mode == "strict":
        first = projects.pip_install(project, "--config-settings", "editable_mode=strict")
        assert [*(project / "build").glob("__editable__.*/app/__init__.py")] != []
    else:
        first = projects.uv_sync(project)
        assert [*first.glob("lib/*/site-packages/__editable___app_*_finder.py")] != []
    second = in_worktree(holo, first, other / ".venv")
    sees_its_own_source(first, second, other / "app" / "__init__.py")


def test_a_monorepo_of_three_packages(holo: Holo) -> None:
    project = projects.python_monorepo(holo.root / "all")
    other = projects.worktree(project, holo.root / "all-2")
    first = projects.uv_sync(project)
    second = in_worktree(holo, first, other / ".venv")
    for name in projects.MONOREPO:
        sees_its_own_source(first, second, other / "packages" / name / "src" / name / "__init__.py")


def test_a_space_keeps_its_project(holo: Holo) -> None:
    """A restore maps as the first did; a place in no project keeps the recorded one, and says so."""
    project = projects.python_project(holo.root / "app")
    other = projects.worktree(project, holo.root / "app-2")
    projects.edit(other / "src" / "app" / "__init__.py", "second")
    holo("record", projects.uv_sync(project), "--name", "app")

    warned = holo("init", "--space", "alone", "app")
    assert f"{project} is outside of the environment" in warned.stderr
    assert "_app.pth" in warned.stderr
    alone = Path(holo("restore", "--space", "alone", "--json").json()["path"])
    assert projects.said_by(alone, "app") == ["first app"]

    chosen = Path(holo("init", "--space", "chosen", "app", "--project", other, "--json").json()["path"])
    assert projects.said_by(chosen, "app") == ["second app"]
    said = f"{chosen} imports code from another checkout than {other}: {project}/src"
    assert said not in holo("run", "--space", "chosen", "--", "true").stderr
    assert holo("check", "--space", "chosen", "--json").json()["warnings"] == []
    (pth,) = chosen.glob("lib/*/site-packages/*app.pth")
    pth.write_text(f"{project}/src\n")
    assert said in holo("run", "--space", "chosen", "--", "true").stderr
    assert holo("check", "--space", "chosen", "--json", code=3).json()["warnings"] == [said]
    assert said in holo("status", "chosen").stderr
    report = holo("restore", "--space", "chosen", "--json").json()
    assert (report["files"]["unchanged"], report["files"]["copied"]) == (report["files"]["total"] - 1, 1)
    assert projects.said_by(chosen, "app") == ["second app"]
    holo("check", "--space", "chosen")

    stranger = projects.python_project(holo.root / "stranger", "stranger")
    warned = holo("init", "--space", "strange", "app", "--to", stranger / ".venv")
    assert f"{stranger} is no checkout of that project" in warned.stderr
    assert projects.said_by(stranger / ".venv", "app") == ["first app"]


def test_what_cannot_be_mapped_is_refused_and_listed(holo: Holo) -> None:
    project = projects.python_project(holo.root / "app")
    other = projects.worktree(project, holo.root / "app-longer")
    environment = projects.uv_sync(project)
    (environment / "cache").write_bytes(b"\0\1" + os.fsencode(project) + b"/src\0")
    (environment / "db").write_bytes(b"SQLite format 3\0" + os.fsencode(project) + b"/src\0")
    holo("record", environment, "--name", "app")
    refused = holo("init", "--space", "s", "app", "--to", other / ".venv", code=1)
    assert refused.stderr.count("\n") <= 3
    assert "cache, db" in refused.stderr
    assert not (other / ".venv").exists()
    holo("init", "--space", "s", "app", "--to", project / "again")  # where nothing moves, nothing is refused


def test_a_blueprint_installs_the_project_and_its_members(holo: Holo) -> None:
    """Built once, for the first worktree, through a symlink; the other gets its own source from the same catalog. One
    more package lies beside the workspace, and uv would copy another."""
    project = projects.python_monorepo(holo.root / "all")
    for name in ("beside", "copied"):
        trees.write(project / name / "pyproject.toml", projects.pyproject(name, projects.HATCHLING))
        trees.write(project / name / "src" / name / "__init__.py", projects.module(name))
    manifest = project / "pyproject.toml"
    text = (
        manifest.read_text()
        .replace('"core"', '"core", "beside", "copied"')
        .replace("core = {", 'beside = { path = "beside", editable = true }\ncopied = { path = "copied" }\ncore = {')
    )
    manifest.write_text(text)
    projects.run(projects.uv(), "lock", "--quiet", "--python", sys.executable, cwd=project)
    projects.commit(project)
    other = projects.worktree(project, holo.root / "a-longer-name")
    names = (*projects.MONOREPO, "beside", "copied")

    link = holo.root / "link"
    os.symlink(project, link)
    first = Path(holo("init", "first", link / "pyproject.toml", "--json").json()["path"])
    second = Path(holo("init", "second", "--to", ".venv", "--json", cwd=other).json()["path"])
    assert len(holo("catalogs", "--json").json()["catalogs"]) == 1
    assert projects.said_by(first, *names) == projects.said_by(second, *names) == [f"first {name}" for name in names]
    for name in names:
        (module,) = other.rglob(f"src/{name}/__init__.py")
        projects.edit(module, "second")
    assert projects.said_by(first, *names) == [f"first {name}" for name in names]
    assert projects.said_by(second, *names) == [f"second {name}" for name in names]
    say = ("--", "python", "-c", "import core; print(core.SAID)")
    assert holo("run", *say, cwd=project).stdout == "first core\n"
    assert holo("run", *say, cwd=other).stdout == "second core\n"
    assert holo("run", "--ephemeral", *say, cwd=other).stdout == "second core\n"
    holo("restore", "second")
    holo("check", "--space", "second", "--space", "first")
    assert projects.said_by(second, "web") == ["second web"]

    holo("init", "without", "--no-editable-project", cwd=project)
    find = ("--", "python", "-c", "import importlib.util; print(importlib.util.find_spec('core'))")
    assert holo("run", "--space", "without", *find, cwd=project).stdout == "None\n"


def test_a_project_without_a_lock_is_said_not_to_be_installed(holo: Holo) -> None:
    project = projects.python_project(holo.root / "app")
    (project / "poetry.lock").touch()
    said = holo("init", "app", cwd=project).stderr
    itself = (
        f"warning: the project in {project} is not installed itself, because it has no uv.lock: `uv lock` makes one."
    )
    assert itself in said
    assert f"warning: {project}/poetry.lock is not followed, so versions are the newest that fit. Write" in said
    find = "import importlib.util as u; print(u.find_spec('app'))"
    assert holo("run", "--space", "app", "--", "python", "-P", "-c", find).stdout == "None\n"
    assert "not installed" not in holo("init", "app", cwd=project).stderr, "it was said when it was built"
    assert "not installed" not in holo("init", "app", "--force", "--no-editable-project", cwd=project).stderr
    projects.run(projects.uv(), "lock", "--quiet", "--python", sys.executable, cwd=project)
    assert "not installed" not in holo("init", "locked", cwd=project).stderr


def test_what_the_installed_project_says_is_in_the_key(holo: Holo) -> None:
    project = projects.python_project(holo.root / "app")
    projects.run(projects.uv(), "lock", "--quiet", "--python", sys.executable, cwd=project)

    def built() -> str:
        return str(holo("init", "app", "--force", "--json", cwd=project).json()["digest"])

    first = built()
    manifest = project / "pyproject.toml"
    manifest.write_text(
        "# a comment\n" + manifest.read_text() + "[tool.ruff]\nline-length = 9\n[tool.holo]\nworktree = []\n"
    )
    assert built() == first
    manifest.write_text(manifest.read_text().replace("app-says", "says-app"))
    assert built() != first
    assert holo("run", "--space", "app", "--", "says-app").stdout == "first app\n"


BACKEND = """\
import os, zipfile

def get_requires_for_build_editable(config_settings=None):
    return []

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "app-1.0-py3-none-any.whl"
    info = "app-1.0.dist-info"
    files = {
        "app.pth": os.path.abspath("src"),
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: app\\nVersion: 1.0\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    MADE
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\\n" for path in [*files, f"{info}/RECORD"]))
    return name
"""
IN_TREE = 'requires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
MADE_BY = {
    "a file with the version": "open('src/app/_made.py', 'w').write('SAID = open(\"source\").read()')",
    "code in the environment": "files['native/__init__.py'] = f'SAID = {open(\"source\").read()!r}'",
}
"""What a build backend does besides: as setuptools-scm and extensions in C do, and as maturin does."""


@pytest.mark.parametrize("what", MADE_BY)
def test_a_build_that_makes_something_in_the_project_is_for_one_checkout(holo: Holo, what: str) -> None:
    module = "app._made" if "version" in what else "native"
    files = {
        "pyproject.toml": projects.pyproject("app", IN_TREE),
        "backend.py": BACKEND.replace("MADE", MADE_BY[what]),
        "src/app/__init__.py": projects.module("app"),
        "source": "first",
        ".gitignore": "_made.py\n.venv\n__pycache__\n",
    }
    project = projects.project(holo.root / "app", files)
    projects.run(projects.uv(), "lock", "--quiet", "--python", sys.executable, cwd=project)
    projects.commit(project)
    other = projects.worktree(project, holo.root / "other")
    (other / "source").write_text("second")
    say = ("run", "--", "python", "-c", f"import {module} as made; print(made.SAID)")
    for _ in range(2):
        assert holo(*say, cwd=project).stdout == "first\n"
        made = holo(*say, cwd=other)
        assert made.stdout == "second\n"
    assert made.stderr == "", "each is built once"
    names = [each["name"] for each in holo("catalogs", "--json").json()["catalogs"]]
    assert len(names) == 2
    for name in names:
        assert "no other checkout of the project can use this build: " in holo("catalogs", name, "--log").stdout
    holo("gc")
    assert holo(*say, cwd=other).stderr == "", "it is known what was made"
    # What somebody has removed is made again.
    if "version" in what:
        (other / "src" / "app" / "_made.py").unlink()
        assert holo(*say, cwd=other).stdout == "second\n"
        assert holo("worktree", "add", ".", cwd=other).stderr == ""


def test_the_packages_that_setuptools_finds_are_in_the_key(holo: Holo) -> None:
    """Its editable installs list them."""
    found = '[tool.setuptools.packages.find]\ninclude = ["app*", "more*"]\n'
    text = projects.pyproject("app", projects.SETUPTOOLS, more=found)
    project = projects.project(holo.root / "app", {"pyproject.toml": text, "app/__init__.py": projects.module("app")})
    projects.run(projects.uv(), "lock", "--quiet", "--python", sys.executable, cwd=project)
    projects.commit(project)
    other, same = (projects.worktree(project, holo.root / name) for name in ("other", "same"))
    trees.write(other / "more" / "__init__.py", projects.module("more"))
    for checkout in (project, other, same):
        holo("init", "--to", ".venv", cwd=checkout)
    say = "import app, more; print(app.SAID, more.SAID)"
    assert holo("run", "--", "python", "-P", "-c", say, cwd=other).stdout == "first app first more\n"
    assert len(holo("catalogs", "--json").json()["catalogs"]) == 2


@pytest.mark.skipif(shutil.which("npm") is None and os.environ.get("CI") != "true", reason="npm is not installed")
@pytest.mark.parametrize("tool", ["npm", "pnpm"])
def test_workspaces_of_node(holo: Holo, tool: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    project = projects.node_workspaces(holo.root / "app")
    other = projects.worktree(project, holo.root / "app-2")
    for path in projects.node_install(project, tool, tmp_path_factory):
        if not (other / path).parent.is_dir():
            continue
        name = path.replace("/", "-").replace("_", "-")
        warnings = holo("record", project / path, "--name", name, "--json").json()["warnings"]
        assert not [warning for warning in warnings if "lead out" in warning]
        assert holo("init", "--space", name, name, "--to", other / path).stderr == ""
    for path in (project, other):
        assert projects.run("node", path / "packages" / "web") == "first core\n"
    projects.edit(other / "packages" / "core" / "index.js", "second")
    assert projects.run("node", project / "packages" / "web") == "first core\n"
    assert projects.run("node", other / "packages" / "web") == "second core\n"
