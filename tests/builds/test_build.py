"""From a blueprint to a space, with real packages: built once, by one process, and nothing is left of a failure."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holo import platform
from holo.api import Hololib
from holo.blueprints.blueprint import Blueprint
from holo.blueprints.builder import BuildOptions, Packages
from holo.blueprints.inputs import Inputs
from holo.blueprints.memory import Origin, origin_of, recall, remember, write_own
from holo.blueprints.seeds import nearest, note
from holo.checkout.populate import unpack
from holo.errors import HoloError
from holo.hololib.locks import locked
from support import fiemap, records
from support.cli import Holo, eventually
from support.faults import Outcome, Supervisor
from support.filesystems import Filesystem
from support.scenarios import spread
from support.trees import small

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

Note = Callable[[int, str, int], None]

# Small packages: a pure one with a script, and one with a compiled module.
NEEDED = ("tabulate", "markupsafe")
USE = "import tabulate, markupsafe._speedups, sys; print(sys.prefix)"


def project(folder: Path, *more: str) -> Path:
    path = folder / "pyproject.toml"
    wanted = ", ".join(f'"{name}"' for name in (*NEEDED, *more))
    path.write_text(f'[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = [{wanted}]\n')
    return path


def locked_project(folder: Path) -> Path:
    path = project(folder)
    path.write_text(path.read_text() + '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n')
    (folder / "demo.py").write_text("")
    lock(folder)
    return path


def lock(folder: Path) -> None:
    subprocess.run([uv(), "lock", "--quiet"], cwd=folder, check=True)


def uv() -> str:
    from holo.blueprints.uv import find_uv

    return find_uv()


@local
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_error_in_a_tree_that_is_no_space_has_no_hint(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A stage, or the tree of a throw-away environment: nobody could `holo restore` it."""
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)
    source = small(filesystem.root / "source")
    library = Hololib(filesystem.root / "home")
    digest = library.record(source, "env").digest
    stage = filesystem.root / "stage"
    stage.mkdir()
    monkeypatch.setattr(platform, "set_directory", fail_with(code))
    with pytest.raises(HoloError, match=os.strerror(code)) as caught:
        unpack(library.home.library, digest, str(stage), 1)
    assert caught.value.hint is not None
    assert ("Free some space" in caught.value.hint) == (code == errno.ENOSPC)
    assert "holo restore" not in caught.value.hint


def fail_with(code: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def script(folder: Path) -> Path:
    wanted = ", ".join(f'"{name}"' for name in NEEDED)
    path = folder / "job.py"
    path.write_text(f"# /// script\n# dependencies = [{wanted}]\n# ///\n{USE.replace('; ', chr(10))}\n")
    return path


def requirements(folder: Path, *names: str) -> Path:
    path = folder / "requirements.txt"
    path.write_text("\n".join(names or NEEDED) + "\n")
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "requirements": requirements,
    "pyproject": project,
    "uv.lock": locked_project,
    "script": script,
}


@local
def test_a_space_of_a_blueprint_moves_along_with_its_home(filesystem: Filesystem, holo: Holo) -> None:
    blueprint = requirements(filesystem.root, "six")
    run = ["run", "--blueprint", blueprint, "--", "python", "-c", "import sys, six; print(sys.prefix)"]
    assert holo(*run).stdout.startswith(f"{holo.holotree}/")
    moved = filesystem.root / "moved"
    holo.home.rename(moved)
    assert holo(*run, env={"HOLO_HOME": str(moved)}).stdout.startswith(f"{moved}/holotree/")
    assert not holo.home.exists()


@pytest.fixture
def folder(holo: Holo) -> Path:
    """A project's."""
    path = holo.root / "web"
    path.mkdir()
    return path


def leftovers(holo: Holo) -> list[str]:
    """What builds leave while they run: stages and locks."""
    stages = [path.name for path in holo.holotree.glob(".build-*")]
    return stages + [path.name for path in (holo.library / "builds").glob("*.lock")]


@local
@pytest.mark.parametrize("kind", KINDS)
def test_a_blueprint_is_built_once_and_restored_from_then_on(holo: Holo, folder: Path, kind: str) -> None:
    blueprint = KINDS[kind](folder)
    first = holo("init", "--space", "one", blueprint, "--json")
    assert "building" in first.stderr
    assert leftovers(holo) == []
    second = holo("init", "--space", "two", blueprint, "--json")
    assert "building" not in second.stderr
    assert first.json()["digest"] == second.json()["digest"]
    (catalog,) = holo("catalogs", "--json").json()["catalogs"]
    assert len(catalog["prefix"]) == len(first.json()["path"]), "so binaries fit and bytecode stays valid"
    label = "job" if kind == "script" else "web"
    assert re.fullmatch(rf"{label}-[0-9a-f]{{16}}", first.json()["catalog"])
    for report in (first.json(), second.json()):
        path = Path(report["path"])
        compiled = {file: file.stat().st_mtime_ns for file in path.rglob("*.pyc")}
        assert len(compiled) >= 3
        used = holo("run", "--space", report["space"], "--", "python", "-c", USE)
        assert used.stdout.strip() == str(path)
        shown = holo("run", "--space", report["space"], "--", "tabulate", "--help")
        assert "Pretty-print" in shown.stdout
        assert (path / "bin" / "tabulate").read_text().startswith(f"#!{path}/bin/python")
        assert {file: file.stat().st_mtime_ns for file in path.rglob("*.pyc")} == compiled, "compiled again"
    log = holo("catalogs", first.json()["catalog"], "--log").stdout
    assert f"building {blueprint}" in log
    assert "tabulate" in log


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
def test_spaces_of_a_blueprint_share_their_content(holo: Holo, folder: Path) -> None:
    first = holo("init", "--space", "one", requirements(folder), "--json").json()
    report = holo("init", "--space", "two", folder / "requirements.txt", "--json").json()
    assert report["files"]["copied"] == report["files"]["relocated"] < report["files"]["reflinked"]
    usage = holo("du", "two", "--json").json()["total"]
    assert usage["shared"]["spaces"] == fiemap.common_bytes(first["path"], report["path"]) > usage["physical"] // 2
    assert holo("run", "--space", "two", "--", "python", "-c", USE).stdout.strip() == report["path"]


@local
def test_run_makes_a_space_and_follows_the_blueprint(holo: Holo, folder: Path) -> None:
    requirements(folder, "tabulate")
    below = folder / "src" / "deep"
    below.mkdir(parents=True)
    where = ("python", "-c", "import sys, tabulate; print(sys.prefix)")
    first = holo("run", "--", *where, cwd=below)
    said = [line for line in first.stderr.splitlines() if re.match(r"building |recording |web-\w+ ready in ", line)]
    assert [line.split()[0] for line in said[:2]] == ["building", "recording"]
    assert len(said) == 3
    (space,) = holo("list", "--json").json()["spaces"]
    assert re.fullmatch(r"web-[0-9a-f]{8}", space["name"])
    assert first.stdout.strip() == space["path"]
    kept = Path(space["path"]) / "kept"
    kept.touch()
    again = holo("run", "--blueprint", folder / "requirements.txt", "--", *where)
    assert (again.stdout, again.stderr) == (first.stdout, "")
    os.utime(folder / "requirements.txt")
    assert holo("run", "--", *where, cwd=folder).stderr == ""
    requirements(folder, "# Tables.", "Tabulate")
    assert holo("run", "--", *where, cwd=folder).stderr == ""
    assert kept.exists(), "it runs as it is, as long as nothing has changed"
    requirements(folder, *NEEDED)
    changed = holo("run", "--", "python", "-c", USE, cwd=folder)
    assert "building" in changed.stderr
    assert changed.stdout == first.stdout
    assert not kept.exists()
    requirements(folder, "tabulate")
    look = "import importlib.util as u; print(u.find_spec('markupsafe'))"
    back = holo("run", "--", "python", "-c", look, cwd=folder)
    assert back.stdout.strip() == "None"
    updated = f"updating space {space['name']} to match .*/requirements.txt; local changes are discarded\n"
    ready = rf"{space['name']} ready in [\d.]+ s: 24 files of [\w-]+\n"
    assert re.fullmatch(updated + ready, back.stderr)


@local
def test_shell_and_variables_mean_the_space_that_run_takes(holo: Holo, folder: Path) -> None:
    requirements(folder, "tabulate")
    made = holo("variables", "--json", cwd=folder).json()
    assert holo("run", "--", "sh", "-c", "echo $HOLO_SPACE", cwd=folder).stdout == made["HOLO_SPACE"] + "\n"
    shell = holo.root / "shell"
    shell.write_text("#!/bin/sh\necho $HOLO_SPACE\n")
    shell.chmod(0o755)
    again = holo("shell", cwd=folder, env={"SHELL": str(shell)})
    assert (again.stdout, again.stderr) == (made["HOLO_SPACE"] + "\n", "")


@local
def test_running_in_a_space_whose_directory_is_gone(holo: Holo, folder: Path) -> None:
    """Never with what the rest of PATH has of that name. That of a blueprint is made again."""
    requirements(folder, "tabulate")
    where = ("--", "python", "-c", "import sys, tabulate; print(sys.prefix)")
    root = Path(holo("run", *where, cwd=folder).stdout.strip())
    shutil.rmtree(root)
    (space,) = holo("list", "--json").json()["spaces"]
    gone = holo("run", "--space", space["name"], "--", "python", "-c", "", code=1)
    assert f"holo restore --space {space['name']}" in gone.stderr
    assert holo("run", *where, cwd=folder).stdout.strip() == str(root)


@local
def test_a_space_of_something_else_is_not_touched(holo: Holo, folder: Path) -> None:
    requirements(folder, "tabulate")
    tree = holo.root / "tree"
    tree.mkdir()
    (tree / "file").touch()
    holo("init", "--space", "mine", tree)
    run = ("run", "--blueprint", "requirements.txt", "--", "true")
    refused = holo(*run, cwd=folder, code=1, env={"HOLO_SPACE": "mine"})
    assert "is not what" in refused.stderr
    assert "building" not in refused.stderr, "nothing is built only to be refused"
    assert "is not what" in holo("init", "--space", "mine", "requirements.txt", cwd=folder, code=1).stderr
    assert holo("init", "--space", "mine", cwd=folder).stderr == "", "its own catalog, whatever is near"
    holo("init", "--space", "mine", "requirements.txt", "--force", cwd=folder)
    requirements(folder, *NEEDED)
    refused = holo("init", "--space", "mine", cwd=folder, code=1)
    assert "has changed" in refused.stderr
    assert "--force" in refused.stderr
    holo("run", "--blueprint", "requirements.txt", "--space", "mine", "--", "python", "-c", USE, cwd=folder)
    holo("restore", "--space", "mine", "--catalog", "tree")
    refused = holo("run", "--space", "mine", "--blueprint", "requirements.txt", "--", "true", cwd=folder, code=1)
    assert "is not what" in refused.stderr, "its user has turned it into something else"


@local
def test_running_as_it_is_imports_nothing_to_build(holo: Holo, folder: Path) -> None:
    requirements(folder, "tabulate")
    holo("run", "--", "true", cwd=folder)
    seen = holo("run", "--", "true", cwd=folder, env={"PYTHONPROFILEIMPORTTIME": "1"}).stderr
    loaded = {line.rpartition("|")[2].strip() for line in seen.splitlines()}
    assert "holo.activation" in loaded
    tools = {f"holo.blueprints.{name}" for name in ("make", "python", "log")}
    heavy = {*tools, "holo.restore", "tomllib", "pydantic", "rich"}
    assert loaded & heavy == set()


@local
def test_failed_build_leaves_only_its_log(holo: Holo, folder: Path) -> None:
    locked_project(folder)
    project(folder, "iniconfig")
    stale = holo("init", "--space", "one", folder / "pyproject.toml", code=1)
    assert "uv lock" in stale.stderr
    missing = holo("init", "--space", "one", requirements(folder, "tabulate==99999"), code=1)
    last, hint = missing.stderr.splitlines()[-2:]
    assert last == "error: the build failed: uv failed with exit code 1"
    log = Path(hint.removeprefix("hint: Its log: "))
    assert "tabulate==99999" in log.read_text()
    left = {path for path in holo.library.rglob("*") if path.is_file() and path.name not in ("lock", "pending.lock")}
    assert {path.suffix for path in left} == {".log"}
    assert len(left) == 2
    assert leftovers(holo) == []
    assert holo("list", "--json").json()["spaces"] == holo("catalogs", "--json").json()["catalogs"] == []
    holo("gc")
    assert not log.exists()


@local
def test_project_below_a_workspace_need_not_be_a_member(holo: Holo, folder: Path) -> None:
    """With the development dependencies as they were written before there were groups."""
    (holo.root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["other"]\n')
    (holo.root / "uv.lock").write_text("version = 1\n")
    path = folder / "pyproject.toml"
    path.write_text('[project]\nname = "demo"\nversion = "1"\n[tool.uv]\ndev-dependencies = ["tabulate"]\n')
    holo("run", "--blueprint", path, "--space", "one", "--", "python", "-c", "import tabulate")


@local
def test_no_compile_leaves_no_bytecode(holo: Holo, folder: Path) -> None:
    requirements(folder, "tabulate")
    plain = holo("init", "--space", "plain", "requirements.txt", "--no-compile", "--json", cwd=folder).json()
    assert list(Path(plain["path"]).rglob("*.pyc")) == []
    compiled = holo("init", "--space", "compiled", "requirements.txt", "--json", cwd=folder).json()
    assert compiled["digest"] != plain["digest"]
    assert holo("init", "--space", "plain", "--json", cwd=folder).json()["digest"] == plain["digest"]
    run = ("run", "--blueprint", folder / "requirements.txt", "--space", "plain")
    assert "building" not in holo(*run, "--", "true").stderr
    assert "building" not in holo(*run, "--ephemeral", "--", "true").stderr
    assert holo("list", "--json").json()["spaces"][1]["digest"] == plain["digest"]
    holo(*run, "--compile", "--", "true")
    assert holo("list", "--json").json()["spaces"][1]["digest"] == compiled["digest"]


def content(holo: Holo, space: str) -> dict[str, bytes]:
    """Every file of a space by its path. Of bytecode, which holds times, and of what holds paths only the name."""
    root = holo.path_of(space)
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    named = {path for path in files if path.suffix == ".pyc" or path.name == "RECORD" or path.parent.name == "bin"}
    return {str(path.relative_to(root)): b"" if path in named else path.read_bytes() for path in files}


@local
def test_build_from_a_seed_equals_a_build_from_nothing(holo: Holo, folder: Path, tmp_path: Path) -> None:
    """Something in it is another version, something is not wanted any more, and something is new."""
    holo("init", "--space", "base", requirements(folder, "tabulate<0.9.1", "iniconfig", "markupsafe", "six", "attrs"))
    wanted = requirements(folder, "tabulate>=0.9", "idna", "markupsafe", "six", "attrs")
    layered = holo("init", "--space", "same", wanted)
    base = holo("list", "--json").json()["spaces"][0]["catalog"]
    assert f"beginning from {base}" in layered.stderr
    elsewhere = Holo(tmp_path)
    scratch = elsewhere("init", "--space", "same", wanted)
    assert "beginning" not in scratch.stderr
    assert content(holo, "same") == content(elsewhere, "same")


@local
def test_every_worktree_gets_its_own_venv_by_one_command(holo: Holo, folder: Path) -> None:
    locked_project(folder)
    (folder / ".gitignore").write_text(".venv\n")
    worktree = holo.root / "feature"
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(folder)]
    for command in (["init"], ["add", "."], ["commit", "-m", "one"], ["worktree", "add", str(worktree)]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    first = holo("init", "--space", "main", "--to", ".venv", cwd=folder)
    second = holo("init", "--space", "feature", "--to", ".venv", cwd=worktree)
    assert "building" in first.stderr
    assert "building" not in second.stderr, "the blueprint is the same, wherever it lies"
    for place in (folder, worktree):
        python = place / ".venv" / "bin" / "python"
        used = subprocess.run([python, "-c", USE], check=True, capture_output=True, text=True)
        assert used.stdout.strip() == str(place / ".venv")
    (changed := next(worktree.glob(".venv/lib/*/site-packages/tabulate/__init__.py"))).write_text("broken")
    assert "broken" not in next(folder.glob(".venv/lib/*/site-packages/tabulate/__init__.py")).read_text()
    holo("restore", "--to", ".venv", cwd=worktree)
    assert "broken" not in changed.read_text()
    (below := worktree / "src").mkdir()
    run = ("run", "--blueprint", "../uv.lock", "--", "python", "-c", USE)
    for command in (run[:1] + run[3:], run, (*run[:3], "--ephemeral", *run[3:])):
        used_by = holo(*command, cwd=below)
        assert (used_by.stdout, used_by.stderr) == (f"{worktree}/.venv\n", "")
    below.rmdir()
    assert [space["name"] for space in holo("list", "--json").json()["spaces"]] == ["feature", "main"]
    status = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True)
    assert status.stdout == b"", "nothing is left in the project"


@local
def test_a_venv_follows_its_blueprint(holo: Holo, folder: Path) -> None:
    (folder / "dev.txt").write_text("tabulate\n")
    requirements(folder, "no-such-package==99999")
    holo("init", "--space", "mine", "dev.txt", "--to", ".venv", cwd=folder)
    look = ("run", "--", "python", "-c", "import sys, importlib.util as u; print(sys.prefix, u.find_spec('six'))")
    assert holo(*look, cwd=folder).stdout == f"{folder}/.venv None\n"
    (folder / "dev.txt").write_text("tabulate\nsix\n")
    followed = holo(*look, cwd=folder)
    assert f"updating space mine to match {folder}/dev.txt;" in followed.stderr
    assert "ModuleSpec" in followed.stdout
    (folder / "dev.txt").unlink()
    assert "ModuleSpec" in holo(*look, cwd=folder).stdout, "as it is"
    (space,) = holo("list", "--json").json()["spaces"]
    assert space["path"] == f"{folder}/.venv"


def test_a_blueprint_by_a_path_through_a_symlink(holo: Holo, folder: Path) -> None:
    """The space of a file is its space by either path. Without one, the path as it was written counts, so that one
    space follows a symlink that leads to another release."""
    requirements(folder)
    there = folder.parent / "link"
    there.symlink_to(folder)
    run = ("run", "--blueprint", there / "requirements.txt", "--", "python", "-c")
    holo("init", "--space", "mine", "requirements.txt", "--to", ".venv", cwd=folder)
    assert holo(*run, "import sys; print(sys.prefix)").stdout == f"{folder}/.venv\n"
    requirements(folder, "six", "tabulate")
    assert "updating space mine" in holo(*run, "import tabulate").stderr
    assert [space["name"] for space in holo("list", "--json").json()["spaces"]] == ["mine"]
    holo("delete", "mine")
    releases = [folder.parent / "releases" / number for number in "12"]
    spaces = set()
    for release, names in zip(releases, (["six"], ["six", "tabulate"]), strict=True):
        release.mkdir(parents=True)
        requirements(release, *names)
        there.unlink()
        there.symlink_to(release)
        spaces.add(holo(*run, f"import sys, {names[-1]}; print(sys.prefix)").stdout)
    assert len(spaces) == 1


@local
def test_one_build_for_two_processes(holo: Holo, folder: Path) -> None:
    path = requirements(folder)
    both = [holo.start("init", "--space", f"space-{number}", path, "--json") for number in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    built = [errors for _, errors in outputs if "building" in errors]
    assert len(built) == 1, outputs
    (waited,) = [errors for _, errors in outputs if "building" not in errors]
    assert waited.startswith(f"waiting for the build of {path}: in use by process ")
    assert len(holo("catalogs", "--json").json()["catalogs"]) == 1


@local
def test_a_blueprint_that_changes_while_it_is_built(holo: Holo, folder: Path) -> None:
    """What it says now is not recorded as what it said before."""
    changing = folder / "bin"
    changing.mkdir()
    tool = changing / "npm"
    for name in ("package.json", "package-lock.json"):
        (folder / name).write_text('{"packages": {}}')
    tool.write_text(f"#!/bin/sh\necho '{{}}' >{folder}/package.json\n")
    tool.chmod(0o755)
    node = changing / "node"
    node.write_text("#!/bin/sh\necho v20.1.0\n")
    node.chmod(0o755)
    env = {"PATH": f"{changing}:{os.environ['PATH']}"}
    lock = folder / "package-lock.json"
    failed = holo("init", "--space", "one", lock, code=1, env=env)
    assert "was changed meanwhile" in failed.stderr
    assert holo("catalogs", "--json").json()["catalogs"] == []
    assert leftovers(holo) == []


@local
def test_removed_and_collected_catalogs_are_built_again(holo: Holo, folder: Path) -> None:
    path = requirements(folder, "tabulate")
    holo("run", "--blueprint", path, "--space", "one", "--", "true")
    name = holo("catalogs", "--json").json()["catalogs"][0]["name"]
    assert sorted(path.suffix for path in (holo.library / "builds").iterdir()) == [".log", ".parts", ".seen"]
    holo("gc", "--keep-last", "0")
    assert holo("catalogs", name, "--json").json()["catalogs"][0]["name"] == name, "a space holds it"
    holo("delete", "--space", "one")
    holo("gc", "--keep-last", "0")
    assert holo("catalogs", "--json").json()["catalogs"] == []
    assert list((holo.library / "builds").iterdir()) == []
    assert "building" in holo("init", "--space", "one", path).stderr
    holo("catalogs", "--remove", name)
    assert "building" in holo("run", "--blueprint", path, "--space", "one", "--", "true").stderr


@local
def test_credentials_of_a_build_are_stored_nowhere(holo: Holo, folder: Path) -> None:
    url = "http://ada:sesame@127.0.0.1:1/simple"
    requirements(folder, f"--extra-index-url {url}", "tabulate")
    failed = holo(
        "init", "--space", "one", "requirements.txt", cwd=folder, code=1, env={"UV_INDEX": url, "UV_HTTP_RETRIES": "0"}
    )
    assert "127.0.0.1" in failed.stderr
    assert "sesame" not in failed.stderr + failed.stdout
    texts = [path.read_bytes() for path in holo.home.rglob("*") if path.is_file()]
    assert any(b"127.0.0.1" in text for text in texts)
    assert not any(b"sesame" in text for text in texts)


HOSTILE: dict[str, bytes] = {
    "requirements.txt": b"\xff\xfe\0",
    "loop.txt": b"-r loop.txt\n",
    "endless.txt": b"-r /dev/zero\n",
    "script.py": b"# /// script\n# dependencies = 7\n# ///\n",
    "twice.py": b"# /// script\n# ///\n\n# /// script\n# ///\n",
    "pyproject.toml": b"[project]\ndependencies = [" + b"[" * 5000,
    "uv.lock": b"\0",
}


@local
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_blueprints_cause_one_error(holo: Holo, folder: Path, name: str) -> None:
    (folder / "pyproject.toml").write_bytes(b"[project]\nname = 'a'\n")
    (folder / name).write_bytes(HOSTILE[name])
    refused = holo("init", "--space", "one", name, cwd=folder, code=1 if name == "endless.txt" else 2)
    assert refused.stderr.startswith("error: ")
    assert not list(holo.holotree.glob("one_*"))


@local
def test_a_pipe_for_a_blueprint_is_no_blueprint(holo: Holo, folder: Path) -> None:
    os.mkfifo(folder / "requirements.txt")
    assert "it is not a regular file" in holo("init", "--space", "one", "./requirements.txt", cwd=folder, code=1).stderr


@local
def test_missing_interpreter_is_one_error(holo: Holo, folder: Path) -> None:
    path = project(folder)
    path.write_text(path.read_text().replace(">=3.11", ">=3.99"))
    refused = holo("init", "--space", "one", path, code=1)
    assert ">=3.99" in refused.stderr.splitlines()[0]
    assert "uv python install" in refused.stderr
    script = folder / "job.py"
    script.write_text('# /// script\n# requires-python = ">=3.99"\n# ///\n')
    assert ">=3.99" in holo("init", "--space", "one", script, code=1).stderr


@local
def test_gc_removes_what_killed_builds_left(holo: Holo, folder: Path) -> None:
    holo("init", "--space", "one", requirements(folder, "tabulate"))
    builds = holo.library / "builds"
    kept = sorted(builds.iterdir())
    stage = holo.holotree / ".build-0123456789abcdef" / "lib"
    stage.mkdir(parents=True)
    for name in ("0123456789abcdef.lock", "0123456789abcdef.log", "0000456789abcdef.lock", "00.seen.12.34"):
        (builds / name).touch()
    assert holo("gc", "--dry-run", "--json").json()["removed"]["drafts"] == 3
    assert stage.exists()
    assert holo("gc", "--json").json()["removed"]["drafts"] == 3
    assert sorted(builds.iterdir()) == kept
    assert not stage.parent.exists()


@local
def test_any_build_removes_the_stages_of_killed_ones(holo: Holo, folder: Path) -> None:
    stages = [holo.holotree / f".build-{digit * 16}" / "lib" for digit in "01"]
    for stage in stages:
        stage.mkdir(parents=True)
    held = holo.library / "builds" / f"{'1' * 16}.lock"
    with locked(str(held), "a build", exclusive=True):
        holo("init", "--space", "one", requirements(folder, "tabulate"))
    assert [stage.exists() for stage in stages] == [False, True]
    assert leftovers(holo) == [stages[1].parent.name, held.name]


@local
@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_gc_leaves_builds_of_other_users(holo: Holo, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is root's by an ordinary user: whether it is needed is told by a hash of root's number."""
    from holo.blueprints.garbage import collect_builds
    from holo.hololib import Library
    from holo.holotree import Holotree

    holo("init", "--space", "one", requirements(folder, "tabulate"))
    holo("catalogs", "--remove", holo("catalogs", "--json").json()["catalogs"][0]["name"])
    library, tree = Library(str(holo.home)), Holotree(str(holo.home))
    monkeypatch.setattr(platform, "user_id", lambda: 12345)
    assert collect_builds(library, tree, dry_run=False) == 0
    monkeypatch.undo()
    assert collect_builds(library, tree, dry_run=False) == 3, "log, packages and inputs"


@local
def test_stage_name_beside_another_users_is_not_too_long(holo: Holo, monkeypatch: pytest.MonkeyPatch) -> None:
    from holo.blueprints import make
    from holo.hololib import Library
    from holo.hololib.layout import NAME

    monkeypatch.setattr(make, "is_strangers", lambda _: True)
    monkeypatch.setattr(platform, "user_id", lambda: 2**32 - 2)
    assert NAME.fullmatch(make._free_name(Library(str(holo.home)), "n" * 40, "0123456789abcdef"))


@local
def test_stage_exists_before_the_tools_start(holo: Holo) -> None:
    from holo.blueprints.stage import new_stage
    from holo.holotree import Holotree

    tree = Holotree(str(holo.home))
    with new_stage(tree, "0123456789abcdef") as stage:
        status = os.lstat(stage)
        assert (status.st_uid, status.st_mode & 0o022, os.listdir(stage)) == (os.geteuid(), 0, [])
    assert not os.path.lexists(stage)


@local
def test_damaged_seed_makes_a_build_begin_from_nothing(holo: Holo, folder: Path) -> None:
    holo("init", "--space", "base", requirements(folder, "tabulate"))
    for path in (holo.library / "library").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    built = holo("init", "--space", "more", requirements(folder, "tabulate", "iniconfig"), code=3)
    assert "beginning from nothing after all" in built.stderr


@local
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_builds_of_another_user_are_not_used(holo: Holo, folder: Path) -> None:
    path = requirements(folder, "tabulate")
    first = holo("init", "--space", "one", path, "--json").json()
    os.chown(holo.library / "names" / f"{first['catalog']}.json", 12345, 12345)
    for seen in (holo.library / "builds").glob("*.seen"):
        os.chown(seen, 12345, 12345)
    second = holo("init", "--space", "two", path, "--json")
    assert "building" in second.stderr
    assert second.json()["catalog"] != first["catalog"]


# -- interrupted anywhere ---------------------------------------------------------------------------------------------


@pytest.mark.torture
@local
@pytest.mark.parametrize("fault", ["kill", "error"])
def test_a_fault_before_any_call_of_a_build(
    holo: Holo, folder: Path, supervisor: Supervisor, fault: str, torture: bool, faults: Note
) -> None:
    """Before every call of holo's and of its tools' that may change something below the folder of both."""
    path = requirements(folder, "tabulate")
    environ = holo.environment()

    def run(*arguments: str | Path, **how: Any) -> Outcome:
        outcome = supervisor.run(holo.root, [*arguments, "--json"], environ, **how)
        assert not outcome.hung, outcome
        assert "Traceback" not in outcome.stderr
        return outcome

    whole = run("init", "--space", "one", path)
    assert whole.code == 0, whole
    points = spread(len(whole.calls), 60 if torture else 1)
    faults(2, f"{'kill -9' if fault == 'kill' else 'an error'} before a call of a build", len(points))
    for number in points:
        for command in (["delete", "--space", "one"], ["gc", "--keep-last", "0"]):
            run(*command)
        assert leftovers(holo) == [], number
        how = {"kill": "group"} if fault == "kill" else {"error": (errno.ENOSPC, errno.EIO)[number % 2]}
        outcome = run("init", "--space", "one", path, at=number, **how)
        where = f"call {number}, {outcome.calls[-1] if outcome.calls else None}: {outcome.stderr}"
        stages = [name for name in leftovers(holo) if name.startswith(".build")]
        assert len(stages) <= (fault == "kill" or "cannot remove" in outcome.stderr), where
        assert fault == "kill" or outcome.code in (0, 1), where
        is_built = any(catalog["name"] for catalog in run("catalogs").json()["catalogs"])
        assert run("check").code == 0, where
        again = run("init", "--space", "one", path)
        assert again.code == 0, where + again.stderr
        assert ("building" in again.stderr) is not is_built, where
        assert run("check", "--space", "one").code == 0, where


def start(holo: Holo, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start it in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "holo", *arguments],
        env=holo.environment(),
        cwd=holo.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def has_handlers(process: int) -> bool:
    """Whether holo has begun: before that Python itself would end by Ctrl-C, and show where."""
    found = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert found is not None
    return bool(int(found[1], 16) & 1 << signal.SIGTERM - 1)


def moments(holo: Holo, path: Path, count: int) -> list[float]:
    """Seconds after the start, over the whole time that the command takes."""
    began = time.monotonic()
    holo("init", "--space", "measured", path)
    took = time.monotonic() - began
    rng = random.Random(5)
    return [took * (number + rng.random()) / count for number in range(count)]


def again(holo: Holo) -> None:
    """As before the first build."""
    for space in holo("list", "--json").json()["spaces"]:
        holo("delete", "--space", space["name"])
    holo("gc", "--keep-last", "0")
    assert leftovers(holo) == []
    assert list((holo.library / "builds").iterdir()) == []


@pytest.mark.torture
@local
def test_the_tools_of_a_killed_build_hold_its_lock(holo: Holo, folder: Path, torture: bool, faults: Note) -> None:
    """holo alone is killed, at any moment: its tools live on, until they have written their last."""
    path = requirements(folder, "tabulate")
    points = moments(holo, path, 60 if torture else 1)
    faults(2, "kill -9 of a build without its tools", len(points))
    again(holo)
    for number, seconds in enumerate(points):
        process = start(holo, "init", "--space", "one", path)
        time.sleep(seconds)
        process.kill()
        process.communicate()
        catalogs = holo("catalogs", "--json").json()["catalogs"]
        stages = list(holo.holotree.glob(".build-*"))
        assert len(catalogs) <= 1, seconds
        assert len(stages) <= 1, seconds
        if number % 2:
            while list(holo.holotree.glob(".build-*")):  # not as long as a tool is writing there
                holo("gc")
        holo("init", "--space", "one", path)
        assert not leftovers(holo) or catalogs, "only what nobody builds again is left to gc"
        holo("check", "--space", "one")
        holo("run", "--space", "one", "--", "python", "-c", "import tabulate")
        again(holo)


@pytest.mark.torture
@local
def test_ctrl_c_at_any_moment_of_a_build(holo: Holo, folder: Path, torture: bool, faults: Note) -> None:
    path = requirements(folder, "tabulate")
    points = moments(holo, path, 40 if torture else 1)
    faults(2, "Ctrl-C in a build", len(points))
    again(holo)
    for seconds in points:
        process = start(holo, "init", "--space", "one", path)
        eventually(lambda process=process: has_handlers(process.pid))
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 130), errors
        assert "Traceback" not in errors
        if process.returncode:
            assert errors.splitlines()[-1] == "error: interrupted; nothing is lost, run the command again to go on"
        assert len(leftovers(holo)) <= 2, "a stage, if it was being removed, and a lock, if a tool had not ended"
        holo("init", "--space", "one", path)
        again(holo)


@local
def test_remembered_build_is_believed_only_if_possible(holo: Holo, tmp_path: Path) -> None:
    """It may have come with the library: sealed, and a user's own, but of any form."""
    hololib = Hololib(holo.home)
    library, builds = hololib.home.library, holo.library / "builds"
    digest = hololib.record(small(tmp_path / "tree"), "env").digest
    space = hololib.init("one", "env")
    library.folder("builds")
    known = hololib.space(space.space)
    blueprint, packages = Blueprint(str(project(tmp_path)), "pyproject"), Packages("python", ["a", "b"])
    remember(library, blueprint, BuildOptions(), "env", digest, Inputs())
    note(str(builds / "x.parts"), digest, packages)
    (seen,) = builds.glob("*.seen")
    origin = Path(hololib.home.spaces.origin_path("one"))
    write_own(str(origin), {"blueprint": "/x", "compile": True, "digest": digest, "editable_project": True})
    assert (recall(library, blueprint, BuildOptions()), nearest(library, packages)) == (("env", digest), digest)
    assert origin_of(hololib.home.spaces, known) == Origin("/x", True, digest, True)
    memory = records.read(seen) | {"files": {}, "variables": {}}
    write_own(str(seen), memory)
    assert recall(library, blueprint, BuildOptions()) == ("env", digest)
    write_own(str(seen), {key: value for key, value in memory.items() if key != "form"})
    assert recall(library, blueprint, BuildOptions()) is None, "what builders of another form have made"
    noted = {"digest": digest, "base": packages.key, "lines": ["a"]}
    wrong: tuple[object, ...] = (None, 5, [1], [["a"]], "../../env", "\0", {"a": 1})
    for value in wrong:
        for key in memory:
            write_own(str(seen), memory | {key: value})
            assert recall(library, blueprint, BuildOptions()) is None, (key, value)
        for key in noted:
            write_own(str(builds / "x.parts"), noted | {key: value})
            assert nearest(library, packages) is None, (key, value)
        for whole in (seen, builds / "x.parts", origin):
            write_own(str(whole), value)  # type: ignore[arg-type]
        assert (recall(library, blueprint, BuildOptions()), nearest(library, packages)) == (None, None)
        assert origin_of(hololib.home.spaces, known) is None
    write_own(str(origin), {"blueprint": 5, "compile": True, "digest": digest, "editable_project": True})
    assert origin_of(hololib.home.spaces, known) is None
