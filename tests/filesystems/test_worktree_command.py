"""holo worktree: git's worktree with its environments, or nothing; and its end, with its spaces."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from holo import digest as digests
from holo import platform
from holo.hololib.locks import locked
from support import wheels
from support.cli import Holo
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks
from support.repositories import ADA, git, repository
from support.trees import write

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def holo(filesystem: Filesystem, forks: Forks, monkeypatch: pytest.MonkeyPatch) -> Holo:
    for name, value in ADA.items():
        monkeypatch.setenv(name, value)
    return ForkedHolo(filesystem.root, forks)


@pytest.fixture
def app(holo: Holo) -> Path:
    """A project with an environment, and files that git does not know."""
    app = holo.root / "app"
    write(app / ".gitignore", ".venv\nnode_modules\n.env\ndata/\n*.whl\n")
    write(app / "pyproject.toml", '[project]\nname = "app"\n[tool.holo]\nworktree = [".env", "data/tools", "gone"]\n')
    write(app / "web" / "package.json", "{}")
    repository(app)
    write(app / ".venv" / "bin" / "tool", f"#!{app}/.venv/bin/python\n# {app}/src\n", mode=0o755)
    write(app / "web" / "node_modules" / "left-pad" / "index.js", "")
    write(app / ".env", f"SECRET=1\nHERE={app}\n", mode=0o600)
    write(app / "data" / "tools" / "path", f"{app}/data/tools\n")
    write(app / "data" / "other", "not listed")
    return app


def added(holo: Holo, app: Path, *arguments: str | Path, **options: int) -> dict[str, str]:
    """What `holo worktree add` made: how, by the path in the worktree."""
    report = holo("worktree", "add", *arguments, "--json", cwd=app, **options).json()
    return {os.path.relpath(made["path"], report["path"]): made["how"] for made in report["made"]}


def test_a_worktree_has_what_the_first_checkout_has(holo: Holo, app: Path) -> None:
    said = holo("worktree", "add", "../feature", "-b", "topic", "main", cwd=app).stdout
    feature = holo.root / "feature"
    made = ".venv cloned, web/node_modules cloned, .env copied, data/tools cloned"
    assert re.fullmatch(rf"worktree {feature} on topic ready in [\d.]+ s: {made}\n", said)
    assert git(feature, "branch", "--show-current") == "topic\n"
    assert git(feature, "status", "--porcelain") == ""
    text = f"#!{feature}/.venv/bin/python\n# {feature}/src\n"
    assert (feature / ".venv" / "bin" / "tool").read_text() == text
    assert (feature / "web" / "node_modules" / "left-pad" / "index.js").exists()
    assert (feature / ".env").read_text() == (app / ".env").read_text()  # a copy
    assert (feature / ".env").stat().st_mode & 0o777 == 0o600
    assert (feature / "data" / "tools" / "path").read_text() == f"{feature}/data/tools\n"
    assert os.listdir(feature / "data") == ["tools"]
    # What it has lost is made again, in the worktree itself, and nothing else.
    shutil.rmtree(feature / ".venv")
    assert added(holo, feature, ".") == {".venv": "cloned"}
    assert (feature / ".venv" / "bin" / "tool").read_text() == text
    assert added(holo, feature, ".") == {}
    assert added(holo, app, ".") == {}  # the first one gets nothing
    assert holo("worktree", "add", ".", "-q", cwd=app).stdout == ""
    assert "Leave out" in holo("worktree", "add", "../feature", "main", cwd=app, code=2).stderr
    # The current checkout gives what the first one does not have.
    shutil.rmtree(app / ".venv")
    assert added(holo, feature, "../third", "--detach")[".venv"] == "cloned"
    # A bare repository has no first checkout.
    bare = holo.root / "bare.git"
    git(holo.root, "clone", "--quiet", "--bare", app, bare)
    git(bare, "worktree", "add", "--quiet", holo.root / "one", "main")
    write(holo.root / "one" / ".venv" / "bin" / "tool", "tool")
    assert added(holo, bare, holo.root / "two", "-b", "two") == {".venv": "cloned"}


def test_what_cannot_be_copied_is_named(holo: Holo, app: Path) -> None:
    """Python's own modules raise errors of the system without a number."""
    (app / ".env").unlink()
    os.mkfifo(app / ".env")
    said = holo("worktree", "add", "../feature", cwd=app, code=1).stderr
    assert f"cannot copy {app}/.env to {holo.root}/feature/.env: `{app}/.env` is a named pipe\n" in said
    assert not (holo.root / "feature").exists()


def test_outside_of_a_repository_git_is_not_to_blame(holo: Holo) -> None:
    said = holo("worktree", "add", "x", cwd=holo.root, code=1).stderr
    assert "not a git repository" in said
    assert said.endswith("hint: Run it in a checkout of the repository.\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_checkout_of_somebody_else(holo: Holo, app: Path) -> None:
    os.chown(app, 1001, 1001)
    said = holo("worktree", "add", "../feature", cwd=app, code=1).stderr
    assert "dubious ownership" in said
    assert "safe.directory" in said


def test_a_space_becomes_another_space(holo: Holo, app: Path) -> None:
    (app / ".venv").rename(holo.root / "made")
    holo("record", holo.root / "made", "--name", "made")
    holo("init", "--space", "first", "made", "--to", app / ".venv")
    feature = holo.root / "feature"
    assert added(holo, app, feature)[".venv"] == "restored"
    status = holo("status", "--json", cwd=feature).json()
    assert (status["path"], status["state"], status["catalog"]) == (f"{feature}/.venv", "pristine", "made")
    # One that was changed is cloned with its changes.
    write(app / ".venv" / "more", "")
    assert added(holo, app, "../third")[".venv"] == "cloned"
    assert (holo.root / "third" / ".venv" / "more").exists()
    # So is what a symlink in its place leads to.
    (app / ".venv").rename(holo.root / "large-disk")
    (app / ".venv").symlink_to(holo.root / "large-disk")
    assert added(holo, app, "../fourth")[".venv"] == "cloned"
    assert not (holo.root / "fourth" / ".venv").is_symlink()
    # A space of a blueprint in there goes with a worktree, unless somebody wanted it at another place.
    write(feature / "requirements.txt", "")
    holo("init", "of-it", feature / "requirements.txt")
    holo("init", "elsewhere", feature / "requirements.txt", "--to", holo.root / "elsewhere")
    holo("worktree", "remove", feature, "--force", cwd=app)
    assert [space["name"] for space in holo("list", "--json").json()["spaces"]] == ["elsewhere", "first"]
    assert (holo.root / "elsewhere" / "pyvenv.cfg").exists()


def test_another_lock_file_means_another_environment(holo: Holo, app: Path) -> None:
    for name in ("cowsay", "dumpling"):
        wheels.make(app, name)
    # `env` is listed, and an environment of the same file.
    write(app / ".gitignore", ".venv\nnode_modules\nenv\n*.whl\n")
    write(app / "pyproject.toml", '[tool.holo]\nworktree = ["env"]\n')
    write(app / "env" / "pyvenv.cfg", "home = /usr/bin\n")
    write(app / "requirements.txt", f"--no-index\n--find-links {app}\ncowsay\n")
    git(app, "add", ".")
    git(app, "commit", "--quiet", "--message=with requirements")
    assert added(holo, app, "../same") == {".venv": "cloned", "web/node_modules": "cloned", "env": "cloned"}
    git(app, "checkout", "--quiet", "-b", "other")
    write(app / "requirements.txt", f"--no-index\n--find-links {app}\ndumpling\n")
    git(app, "commit", "--quiet", "--all", "--message=other requirements")
    git(app, "checkout", "--quiet", "main")
    holo("worktree", "add", "../different", "other", cwd=app)
    shutil.rmtree(holo.root / "different")  # by somebody who does not know of holo: it is made anew
    report = holo("worktree", "add", "../different", "other", "--json", cwd=app).json()
    made = {os.path.basename(item["path"]): item for item in report["made"]}
    assert made[".venv"]["how"] == made["env"]["how"] == "built"
    assert made[".venv"]["origin"] == f"{holo.root}/different/requirements.txt"
    printed = subprocess.check_output([holo.root / "different" / ".venv" / "bin" / "dumpling"], text=True)
    assert printed == f"dumpling 1.0 {holo.root}/different/.venv\n"
    spaces = sorted(made[name]["space"] for name in (".venv", "env"))
    assert [each["name"] for each in holo("list", "--json").json()["spaces"]] == spaces
    said = holo("worktree", "remove", "../different", cwd=app).stdout
    assert said == f"removed worktree {holo.root}/different, and spaces {', '.join(spaces)}\n"
    assert holo("list", "--json").json()["spaces"] == []
    assert not (holo.root / "different").exists()


def test_a_lock_file_that_holo_does_not_build_from_is_said_to_differ(holo: Holo, app: Path) -> None:
    for text in ("one", "three"):  # of another size: the times of all files are the same
        write(app / "web" / "pnpm-lock.yaml", text)
        write(app / "requirements.txt", text)  # beside pyproject.toml, which is the blueprint
        git(app, "add", ".")
        git(app, "commit", "--quiet", f"--message={text}")
    shown = holo("worktree", "add", "../old", "HEAD~1", cwd=app)
    assert f"web/pnpm-lock.yaml differs from that in {app}" in shown.stderr
    assert "`pnpm install`" in shown.stderr
    assert "requirements.txt differs from that in" in shown.stderr
    assert (holo.root / "old" / "web" / "node_modules").exists()


def test_a_workspace_of_uv_whose_root_is_no_project(holo: Holo, app: Path) -> None:
    write(app / "pyproject.toml", '[tool.uv.workspace]\nmembers = ["one"]\n')
    write(app / "one" / "pyproject.toml", '[project]\nname = "one"\nversion = "1"\n')
    for text in ("one", "three"):
        write(app / "uv.lock", text)
        git(app, "add", ".")
        git(app, "commit", "--quiet", f"--message={text}")
    assert "differs" not in holo("worktree", "add", "../same", cwd=app).stderr
    shown = holo("worktree", "add", "../old", "HEAD~1", cwd=app)
    assert f"uv.lock differs from that in {app}" in shown.stderr
    assert f"run `uv sync` in {holo.root}/old\n" in shown.stderr
    assert (holo.root / "old" / ".venv").exists()


def test_another_python_means_another_environment(holo: Holo, app: Path) -> None:
    """The lock file is the same, and the file that pins the Python is not."""
    write(app / "poetry.lock", "")
    write(app / "web" / ".python-version", "3.9")
    for text in ("3.1", "3.111"):
        write(app / ".python-version", text)
        git(app, "add", ".")
        git(app, "commit", "--quiet", f"--message={text}")
    assert "differs" not in holo("worktree", "add", "../same", cwd=app).stderr
    shown = holo("worktree", "add", "../old", "HEAD~1", cwd=app)
    assert f".python-version differs from that in {app}, where .venv was cloned from: run `poetry sync`" in shown.stderr
    git(holo.root / "same", "switch", "--quiet", "--detach", "HEAD~1")
    assert "another poetry.lock or Python" in holo("worktree", "add", ".", cwd=holo.root / "same").stderr
    # One that git does not know is the user's, for the first checkout.
    git(app, "rm", "--quiet", "--cached", ".python-version")
    git(app, "commit", "--quiet", "--message=ignored")
    assert "differs" not in holo("worktree", "add", "../without", cwd=app).stderr


def test_another_branch_asks_for_another_environment(holo: Holo, app: Path) -> None:
    """What is there stays as it is, and the user learns that it is not what the branch asks for, and what to do."""
    for text in ("one", "three"):
        write(app / "uv.lock", text)
        git(app, "add", ".")
        git(app, "commit", "--quiet", f"--message={text}")
    git(app, "branch", "old", "HEAD~1")
    feature = holo.root / "feature"
    holo("worktree", "add", feature, cwd=app)
    assert holo("worktree", "add", ".", cwd=feature).stderr == ""
    git(feature, "switch", "--quiet", "old")
    for _ in range(2):
        said = holo("worktree", "add", ".", cwd=feature).stderr
        way = f"run `uv sync` in {feature}, or remove it (`rm -r {feature}/.venv`) and run this again"
        assert said == f"warning: .venv was made for another uv.lock or Python than is asked for now: {way}\n"
    git(feature, "switch", "--quiet", "feature")
    assert holo("worktree", "add", ".", cwd=feature).stderr == ""
    # Whoever installs something after the switch has done that for the new branch.
    git(feature, "switch", "--quiet", "old")
    write(feature / ".venv" / "more", "")
    for _ in range(2):
        assert holo("worktree", "add", ".", cwd=feature).stderr == ""
    git(feature, "switch", "--quiet", "feature")
    assert "another uv.lock" in holo("worktree", "add", ".", cwd=feature).stderr
    # A broken file of a merge that is under way, a branch without any, or another thing there: nobody can tell.
    write(feature / "pyproject.toml", "<<<<<<< HEAD\n")
    assert "another" not in holo("worktree", "add", ".", cwd=feature).stderr
    git(feature, "checkout", "--quiet", ".")
    (feature / "uv.lock").unlink()
    shutil.rmtree(feature / ".venv")
    write(feature / ".venv", "a file")
    assert holo("worktree", "add", ".", cwd=feature).stderr == ""


def test_another_branch_asks_for_another_space(holo: Holo, app: Path) -> None:
    for name in ("cowsay", "dumpling"):
        wheels.make(app, name)
        write(app / "pyproject.toml", "[tool.none]\n")
        write(app / "requirements.txt", f"--no-index\n--find-links {app}\n{name}\n")
        git(app, "add", ".")
        git(app, "commit", "--quiet", f"--message={name}")
    feature = holo.root / "feature"
    git(app, "worktree", "add", "--quiet", feature)
    holo("init", "own", "requirements.txt", "--to", ".venv", cwd=feature)
    git(feature, "switch", "--quiet", "--detach", "HEAD~1")
    said = holo("worktree", "add", ".", cwd=feature).stderr
    assert f"space own is not what {feature}/requirements.txt asks for now: `holo init own --force`" in said
    holo("init", "own", "--force", cwd=feature)
    assert "asks for now" not in holo("worktree", "add", ".", cwd=feature).stderr
    assert holo("run", "--", "python", "-c", "import cowsay", cwd=feature).stdout == ""
    # A blueprint that is gone says nothing.
    (feature / "requirements.txt").unlink()
    assert "asks for now" not in holo("worktree", "add", ".", cwd=feature).stderr


def test_code_that_git_ignores_is_not_in_the_other_worktree(holo: Holo, app: Path) -> None:
    """An install makes it in the project: a compiled module, or a file with the version."""
    site = Path("lib", "python3.11", "site-packages")
    write(app / ".gitignore", ".venv\nnode_modules\n.env\ndata/\n_made.*\n")
    write(app / "src" / "app" / "__init__.py", "")
    write(app / ".holo.toml", 'worktree = ["src/app/_made.pyd"]\n')
    git(app, "add", ".")
    git(app, "commit", "--quiet", "--message=src")
    for name in ("_made.so", "_made.py", "_made.txt", "_made.pyd"):
        write(app / "src" / "app" / name, "")
    write(app / "_made.py", "nobody imports that")
    write(app / ".venv" / site / "app.pth", f"{app}/src\n")
    write(
        app / ".venv" / site / "app.dist-info" / "direct_url.json",
        f'{{"url": "file://{app}", "dir_info": {{"editable": true}}}}',
    )
    said = holo("worktree", "add", "../feature", cwd=app).stderr
    assert f".venv may need what git ignores and only {app} has: src/app/_made.py, src/app/_made.so. If" in said
    assert "may need" not in holo("worktree", "add", ".", cwd=holo.root / "feature").stderr
    # A flat project leads to all of it, and not to its environments.
    write(app / ".venv" / site / "app.pth", f"{app}\n")
    said = holo("worktree", "add", "../flat", cwd=app).stderr
    assert f"{app} has: _made.py, src/app/_made.py, src/app/_made.so. If" in said
    (app / ".venv" / site / "app.pth").write_text(f"{app}/gone\n{app}/web\n")
    assert "may need" not in holo("worktree", "add", "../none", cwd=app).stderr


def test_npm_builds_workspaces_itself(holo: Holo, app: Path) -> None:
    write(app / "web" / "package.json", '{"workspaces": ["one"]}')
    for version in ("1", "22"):
        link = '{"resolved": "one", "link": true}'
        lock = f'{{"version": "{version}", "packages": {{"": {{}}, "node_modules/one": {link}, "one": {{}}}}}}'
        write(app / "web" / "package-lock.json", lock)
        git(app, "add", ".")
        git(app, "commit", "--quiet", "--message=lock")
    shown = holo("worktree", "add", "../old", "HEAD~1", cwd=app)
    assert "web/package-lock.json differs from that in" in shown.stderr
    assert f"run `npm ci` in {holo.root}/old/web\n" in shown.stderr
    assert (holo.root / "old" / "web" / "node_modules").exists()


def test_the_path_comes_first(holo: Holo, app: Path) -> None:
    feature = holo.root / "feature"
    git(app, "worktree", "add", "--quiet", feature)
    for action, words in (("add", ["-b", "x", "../new"]), ("remove", ["--force", "../feature"])):
        said = holo("worktree", action, *words, cwd=app, code=2).stderr
        assert "First comes the path" in said
        assert f"`holo worktree {action} " in said
        assert "is empty" in holo("worktree", action, "", cwd=feature, code=2).stderr
    assert feature.exists()


def test_a_path_of_two_lines(holo: Holo, app: Path) -> None:
    path = holo.root / "two\nlines"
    assert ".venv" in added(holo, app, path, "-b", "two")
    assert added(holo, app, path) == {}  # it is known
    assert holo("worktree", "remove", path, "--json", cwd=app).json()["path"] == str(path)


def test_a_submodule(holo: Holo, app: Path) -> None:
    above = repository(holo.root / "above")
    git(above, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", app, "sub")
    git(above, "commit", "--quiet", "--message=submodule")
    write(above / "sub" / ".venv" / "bin" / "tool", "")
    assert added(holo, above / "sub", ".") == {}  # it is the first checkout
    assert added(holo, above / "sub", "../../feature") == {".venv": "cloned"}
    # git removes a worktree with a submodule only by force.
    write(app / "tree" / "file", "x")
    git(above, "worktree", "add", "--quiet", "../other")
    git(holo.root / "other", "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    place = holo.root / "other" / "sub" / ".venv"
    holo("init", "inside", app / "tree", "--to", place)
    assert "contains submodules" in holo("worktree", "remove", "../other", cwd=above, code=1).stderr
    assert place.exists()
    holo("worktree", "remove", "../other", "-f", cwd=above)
    assert not place.exists()


def test_whatever_fails_leaves_nothing(holo: Holo, app: Path) -> None:
    def is_untouched() -> bool:
        branches = git(app, "branch", "--format=%(refname:short)").split()
        return (
            branches == ["main"] and git(app, "worktree", "list").count("\n") == 1 and before == os.listdir(holo.root)
        )

    before = os.listdir(holo.root)
    assert "invalid reference" in holo("worktree", "add", "../a/b/c", "nowhere", cwd=app, code=1).stderr
    assert is_untouched()
    program = b"\x7fELF\0" + os.fsencode(app) + b"/.venv/lib\0"
    write(app / "web" / "node_modules" / "program", b"\x7fELF\0" + os.fsencode(app) + b"\0")
    said = holo("worktree", "add", "../a/much/longer/path/to-it", "-b", "topic", cwd=app, code=1).stderr
    assert "The worktree was removed again" in said
    assert "web/node_modules" in said or "program" in said
    assert is_untouched()
    (app / "web" / "node_modules" / "program").unlink()
    # A hook of git that fails.
    write(app / ".git" / "hooks" / "post-checkout", "#!/bin/sh\necho no >&2\nexit 3\n", mode=0o755)
    holo("worktree", "add", "../hooked", "-b", "topic", cwd=app, code=1)
    assert is_untouched()
    (app / ".git" / "hooks" / "post-checkout").unlink()
    # In a worktree that is there already, what was made stays.
    git(app, "worktree", "add", "--quiet", "-b", "topic", "../longer-name")
    write(app / "web" / "node_modules" / "program", program)
    said = holo("worktree", "add", "../longer-name", cwd=app, code=1).stderr
    assert ".venv is there; run it again for the rest" in said
    assert (holo.root / "longer-name" / ".venv").exists()
    assert "not a git repository" in holo("worktree", "add", "../x", cwd=holo.root, code=1).stderr


def test_a_failure_half_way_leaves_nothing_half_done(holo: Holo, app: Path) -> None:
    """What was made in a worktree that was there already stays, and goes with the worktree like all that holo makes."""
    (app / ".gitignore").write_text("")
    git(app, "commit", "--quiet", "-am", "ignore nothing")
    feature = holo.root / "feature"
    git(app, "worktree", "add", "--quiet", "-b", "topic", feature)
    (app / ".env").unlink()
    os.mkfifo(app / ".env")
    holo("worktree", "add", feature, cwd=app, code=1)
    assert (feature / ".venv" / "bin" / "tool").exists()
    holo("worktree", "remove", feature, cwd=app)
    # A file is there as a whole or not at all.
    git(app, "worktree", "add", "--quiet", feature, "topic")
    (app / ".env").unlink()
    write(app / ".env", "x" * 100_000)
    limited = Holo(holo.root)
    limited.launcher = ("sh", "-c", 'ulimit -f 100; exec "$@"', "sh")  # blocks of 512 bytes
    assert "cannot copy" in limited("worktree", "add", feature, cwd=app, code=1).stderr
    assert sorted(os.listdir(feature)) == [".git", ".gitignore", ".venv", "pyproject.toml", "web"]
    assert added(holo, app, feature) == {".env": "copied", "data/tools": "cloned"}
    holo("worktree", "remove", feature, cwd=app)
    # What cannot be noted is not made.
    git(app, "worktree", "add", "--quiet", feature, "topic")
    note = app / ".git" / "worktrees" / "feature" / "holo-made"
    note.mkdir()
    assert f"cannot write {note}" in holo("worktree", "add", feature, cwd=app, code=1).stderr
    assert not (feature / ".venv").exists()
    note.rmdir()
    assert added(holo, app, feature)[".venv"] == "cloned"
    holo("worktree", "remove", feature, cwd=app)


def test_what_a_killed_command_left_goes(holo: Holo, app: Path) -> None:
    feature = holo.root / ".holo-clone-ab" / "feature"
    holo("worktree", "add", feature, cwd=app)
    clone, copy = feature / "web" / ".holo-clone-01234567-01234567-01234567", feature / ".holo-copy-01234567"
    write(clone / "half", "")
    write(copy, "")
    with platform.closing(platform.open_root(str(clone))) as directory:  # it is being made
        assert platform.lock_directory(directory)
        said = holo("worktree", "remove", feature, cwd=app, code=1).stderr
        assert "new files: web/.holo-clone-01234567-01234567-01234567/half\n" in said
    holo("worktree", "remove", feature, cwd=app)
    assert feature.parent.exists()


def test_an_unfinished_space_is_lacking(holo: Holo, app: Path) -> None:
    (app / ".venv").rename(holo.root / "made")
    holo("record", holo.root / "made", "--name", "made")
    holo("init", "--space", "first", "made", "--to", app / ".venv")
    feature = holo.root / "feature"
    git(app, "worktree", "add", "--quiet", "-b", "topic", feature)
    blobs = [path for path in (holo.library / "library").glob("*/*") if path.is_file()]
    for blob in blobs:
        blob.rename(holo.root / blob.name)
    said = holo("worktree", "add", feature, cwd=app, code=3).stderr
    assert "The space is unfinished" in said
    for blob in blobs:
        (holo.root / blob.name).rename(blob)
    assert added(holo, app, feature)[".venv"] == "restored"
    assert {space["state"] for space in holo("list", "--json").json()["spaces"]} == {"pristine"}
    assert (feature / ".venv" / "bin" / "tool").exists()
    assert added(holo, app, feature) == {}


def test_of_two_at_a_time_one_waits(holo: Holo, app: Path) -> None:
    """As where two shells enter a worktree, and direnv makes what it lacks in each."""
    feature = holo.root / "feature"
    git(app, "worktree", "add", "--quiet", "-b", "topic", feature)
    first, second = (holo.start("worktree", "add", feature, "--json", cwd=app) for _ in range(2))
    said = [json.loads(process.communicate()[0]) for process in (first, second)]
    assert sorted(len(each["made"]) for each in said) == [0, 4]
    lock = f"holo-{digests.of(os.fsencode(feature))[:16]}.lock"
    with locked(str(app / ".git" / lock), "it", exclusive=True):
        waiting = holo.start("worktree", "add", feature, cwd=app)
        assert waiting.stderr is not None
        assert f"waiting for the worktree {feature}: in use by process" in waiting.stderr.readline()
    assert "nothing to add" in waiting.communicate()[0]
    # Where nobody can lock it, as in a sandbox with a repository that is read-only, one at a time works.
    (app / ".git" / lock).mkdir()
    assert "nothing to add" in holo("worktree", "add", feature, cwd=app).stdout
    (app / ".git" / lock).rmdir()
    # Whoever removes it waits for that, too.
    shutil.rmtree(feature / ".venv")
    with locked(str(app / ".git" / lock), "it", exclusive=True):
        removing = [holo.start("worktree", "remove", feature, cwd=app) for _ in range(2)]
        for process in removing:
            assert process.stderr is not None
            assert "waiting for the worktree" in process.stderr.readline()
    said = [process.communicate() for process in removing]
    assert sorted(process.returncode for process in removing) == [0, 1]
    assert any(f"there is no worktree at {feature}" in stderr for _, stderr in said)
    assert [*(app / ".git").glob("holo-*")] == [*(app / ".git" / "worktrees").glob("*")] == []


def test_an_unfinished_space_is_not_cloned(holo: Holo, app: Path) -> None:
    (app / ".venv").rename(holo.root / "made")
    write(holo.root / "made" / "data", "some content")
    holo("record", holo.root / "made", "--name", "made")
    holo("init", "--space", "first", "made", "--to", app / ".venv")
    shutil.rmtree(app / ".venv" / "bin")
    (app / ".venv" / "data").unlink()
    blobs = {blob: (blob.read_bytes(), blob.stat()) for blob in (holo.library / "library").glob("*/*")}
    for blob, (content, _) in blobs.items():
        blob.chmod(0o644)
        blob.write_bytes(b"x" * len(content))
    holo("restore", "first", code=3)
    assert holo("list", "--json").json()["spaces"][0]["state"] == "restoring"
    for blob, (content, status) in blobs.items():
        blob.write_bytes(content)
        blob.chmod(status.st_mode)
        os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert added(holo, app, "../feature")[".venv"] == "restored"
    assert (holo.root / "feature" / ".venv" / "data").exists()


def test_a_failure_leaves_no_unfinished_space(holo: Holo, app: Path) -> None:
    (app / ".venv").rename(holo.root / "made")
    write(holo.root / "made" / "data", "some content")
    holo("record", holo.root / "made", "--name", "made")
    holo("init", "--space", "first", "made", "--to", app / ".venv")
    for blob in (holo.library / "library").glob("*/*"):
        blob.chmod(0o644)
        blob.write_bytes(b"x" * blob.stat().st_size)
    said = holo("worktree", "add", "../feature", cwd=app, code=3).stderr
    assert "The worktree was removed again" in said
    assert "holo check" in said  # what to do about the cause
    assert "unfinished" not in said
    assert [space["name"] for space in holo("list", "--json").json()["spaces"]] == ["first"]


def test_what_others_make_meanwhile_stays(holo: Holo, app: Path) -> None:
    # Another branch, made while the worktree is.
    write(app / ".git" / "hooks" / "post-checkout", "#!/bin/sh\ngit branch theirs\nexit 3\n", mode=0o755)
    holo("worktree", "add", "../hooked", "-b", "topic", cwd=app, code=1)
    assert git(app, "branch", "--format=%(refname:short)").split() == ["main", "theirs"]
    assert not (holo.root / "hooked").exists()
    (app / ".git" / "hooks" / "post-checkout").unlink()
    # The very same worktree: whoever comes second, in that moment, does not remove it.
    real = shutil.which("git")
    first = f"""#!/bin/sh
case "$*" in "worktree add"*) {real} worktree add --quiet "$3" -b theirs-too ;; esac
exec {real} "$@"
"""
    write(holo.root / "bin" / "git", first, mode=0o755)
    environment = {"PATH": f"{holo.root}/bin:{os.environ['PATH']}"}
    said = holo("worktree", "add", "../same", "-b", "topic", cwd=app, env=environment, code=1).stderr
    assert "already exists" in said
    assert (holo.root / "same" / "pyproject.toml").exists()
    assert git(app, "branch", "--format=%(refname:short)").split() == ["main", "theirs", "theirs-too"]
    # The very same branch.
    first = first.replace('worktree add --quiet "$3" -b theirs-too', "branch topic")
    write(holo.root / "bin" / "git", first, mode=0o755)
    said = holo("worktree", "add", "../other", "-b", "topic", cwd=app, env=environment, code=1).stderr
    assert "already exists" in said
    assert "topic" in git(app, "branch")
    assert not (holo.root / "other").exists()


def test_another_git_is_adding_a_worktree(holo: Holo, app: Path) -> None:
    """In that moment git fails on the folder of that one, in which not all is yet, and leaves the branch."""
    unfinished = app / ".git" / "worktrees" / "theirs"
    for name, text in (("commondir", ""), ("gitdir", f"{holo.root}/theirs/.git\n"), ("HEAD", "ref: refs/heads/x\n")):
        write(unfinished / name, text)
    listed = subprocess.run(["git", "worktree", "list"], cwd=app, capture_output=True, text=True, check=False)
    assert "commondir" in listed.stderr
    with subprocess.Popen(["sh", "-c", 'sleep 1; rm -r "$0"', unfinished]):
        assert added(holo, app, "../feature", "-b", "topic")[".venv"] == "cloned"
    assert (holo.root / "feature" / "pyproject.toml").exists()
    assert git(app, "branch", "--format=%(refname:short)").split() == ["main", "topic"]


@pytest.mark.parametrize("listed", ["../x", "/etc", ".git/config", ".", "a/../../b", "out/secret"])
def test_what_is_listed_lies_in_the_project(holo: Holo, app: Path, listed: str) -> None:
    (holo.root / "secrets").mkdir()
    write(holo.root / "secrets" / "secret", "secret")
    os.symlink("../secrets", app / "out")
    write(app / ".holo.toml", f'worktree = ["{listed}"]\n')
    said = holo("worktree", "add", "../feature", cwd=app, code=1 if listed == "out/secret" else 2).stderr
    assert "out" in said or "not a path below" in said
    assert not (holo.root / "feature").exists()


def test_settings_that_make_no_sense(holo: Holo, app: Path) -> None:
    for text in ("worktree = 1", "worktree = [1]", "worktree", "\xff", "worktrees = []"):
        (app / ".holo.toml").write_bytes(text.encode("latin-1"))
        assert ".holo.toml" in holo("worktree", "add", "../feature", cwd=app, code=2).stderr
    assert not (holo.root / "feature").exists()


def test_what_was_renamed_is_named_whole(holo: Holo, app: Path) -> None:
    git(app, "worktree", "add", "--quiet", "../feature")
    git(holo.root / "feature", "mv", "pyproject.toml", "other.toml")
    said = holo("worktree", "remove", "../feature", cwd=app, code=1).stderr
    assert "or new files: other.toml, pyproject.toml\n" in said


def test_removing(holo: Holo, app: Path) -> None:
    write(app / "tree" / "file", "x")
    git(app, "worktree", "add", "--quiet", "../feature")
    feature = holo.root / "feature"
    holo("init", "--space", "inside", app / "tree", "--to", feature / ".venv")
    holo("init", "--space", "outside", app / "tree")
    write(feature / "new", "x")
    said = holo("worktree", "remove", "../feature", cwd=app, code=1).stderr
    assert "not committed" in said
    assert (feature / ".venv" / "file").exists()
    assert "first checkout" in holo("worktree", "remove", app, cwd=app, code=1).stderr
    assert "is no worktree" in holo("worktree", "remove", feature / ".venv", cwd=app, code=1).stderr
    git(app, "worktree", "lock", feature)
    (feature / "new").unlink()
    for options, said, code in (((), "is locked", 1), (("-f",), "is locked", 1), (("x",), "does not know x", 2)):
        assert said in holo("worktree", "remove", feature, *options, cwd=app, code=code).stderr
        assert (feature / ".venv" / "file").exists()
    git(app, "worktree", "unlock", feature)
    write(feature / "new", "x")
    removed = holo("worktree", "remove", ".", "--force", "--json", cwd=feature).json()  # from the inside
    assert removed == {"path": str(feature), "was_there": True, "spaces": ["inside"]}
    assert not feature.exists()
    assert git(app, "worktree", "list").count("\n") == 1
    assert [each["name"] for each in holo("list", "--json").json()["spaces"]] == ["outside"]


def test_removing_what_holo_has_made_and_git_does_not_ignore(holo: Holo, app: Path) -> None:
    (app / ".gitignore").write_text("*.whl\n")
    git(app, "commit", "--quiet", "-am", "ignore hardly anything")
    (app / "web" / "node_modules").rename(holo.root / "node_modules")
    holo("init", "modules", holo.root / "node_modules", "--to", app / "web" / "node_modules")
    feature = holo.root / "feature"

    def removes(change: Path | None = None) -> None:
        made = added(holo, app, feature)
        assert made == {".env": "copied", ".venv": "cloned", "data/tools": "cloned", "web/node_modules": "restored"}
        git(app, "worktree", "move", feature, "../moved")  # as it may be by then
        git(app, "worktree", "move", "../moved", feature)
        if change is not None:
            write(feature / change, "of a user")
            said = holo("worktree", "remove", feature, cwd=app, code=1).stderr
            assert f"not committed, or new files: {change}\n" in said
            assert (feature / ".env").exists()
            assert len(holo("list", "--json").json()["spaces"]) == 2
        holo("worktree", "remove", feature, *(["--force"] if change is not None else []), cwd=app)
        assert not feature.exists()
        assert len(holo("list", "--json").json()["spaces"]) == 1
        git(app, "branch", "--quiet", "-D", "feature")

    removes()
    (app / ".env").write_text("it is another in the first checkout by then")
    removes()
    for change in (".env", "data/tools/path", "data/new", ".venv/bin/tool", "web/node_modules/left-pad/index.js"):
        removes(Path(change))


def test_a_worktree_that_was_moved(holo: Holo, app: Path) -> None:
    write(app / ".venv" / "bin" / "python", "")
    write(app / ".venv" / "bin" / "activate", f"VIRTUAL_ENV='{app}/.venv'\n")
    feature, moved, copy = (holo.root / name for name in ("feature", "it was moved", "copy"))
    holo("worktree", "add", feature, cwd=app)
    feature.rename(moved)
    shutil.copytree(moved, copy)
    for action in ("add", "remove"):
        said = holo("worktree", action, moved, cwd=app, code=1).stderr
        assert f"{moved} is the worktree that git knows as {feature}: it was moved\n" in said
        assert f"`git -C '{moved}' worktree repair`" in said
    git(moved, "worktree", "repair")
    assert f"{copy} is a copy of the worktree {moved}" in holo("worktree", "add", copy, cwd=app, code=1).stderr
    # What git can repair is no longer where it was made.
    for _ in range(2):
        said = holo("worktree", "add", ".", cwd=moved).stderr
        assert f"{moved}/.venv was made at {feature}/.venv: its scripts point there. Move it away" in said
    (moved / ".venv").rename(moved / ".venv-old")
    assert holo("worktree", "add", ".", cwd=moved).stderr == ""
    assert f"'{moved}/.venv'" in (moved / ".venv" / "bin" / "activate").read_text()


def test_a_locked_worktree_may_be_on_a_disk_that_is_not_there(holo: Holo, app: Path) -> None:
    write(app / "tree" / "file", "x")
    git(app, "worktree", "add", "--quiet", "../usb")
    holo("init", "inside", app / "tree", "--to", holo.root / "usb" / ".venv")
    git(app, "worktree", "lock", "../usb")
    (holo.root / "usb").rename(holo.root / "unplugged")
    assert "is locked" in holo("worktree", "remove", "../usb", cwd=app, code=1).stderr
    assert "locked" in holo("worktree", "add", "../usb", "-b", "again", cwd=app, code=1).stderr
    assert "again" not in git(app, "branch")
    (holo.root / "unplugged").rename(holo.root / "usb")
    assert holo("status", "inside", "--json").json()["state"] == "pristine"
    (holo.root / "usb").rename(holo.root / "unplugged")
    holo("worktree", "remove", "../usb", "--force", "--force", cwd=app)
    assert holo("list", "--json").json()["spaces"] == []


def test_what_somebody_else_has_removed(holo: Holo, app: Path) -> None:
    write(app / "tree" / "file", "x")
    for pruned in (False, True):
        git(app, "worktree", "add", "--quiet", "../feature")
        holo("init", "--space", "inside", app / "tree", "--to", holo.root / "feature" / ".venv")
        shutil.rmtree(holo.root / "feature")
        if pruned:
            git(app, "worktree", "prune")
        removed = holo("worktree", "remove", "../feature", "--json", cwd=app).json()
        assert removed == {"path": f"{holo.root}/feature", "was_there": False, "spaces": ["inside"]}
        assert git(app, "worktree", "list").count("\n") == 1
        assert holo("list", "--json").json()["spaces"] == []
        git(app, "branch", "--delete", "--force", "feature")
    assert "no worktree" in holo("worktree", "remove", "../feature", cwd=app, code=1).stderr
