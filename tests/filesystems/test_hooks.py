"""holo hook: worktrees get their environments by themselves, with real git and direnv; and nothing of the user's is
lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import holo as holo_package
from holo import hooks
from support.cli import Holo
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks
from support.repositories import ADA, git, repository
from support.trees import write

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
ROOT = Path(__file__).parents[2]


class Project:
    """A repository with an environment, and holo on the PATH of whatever runs its hooks."""

    def __init__(self, holo: Holo) -> None:
        self.holo, self.root = holo, holo.root
        self.app = self.root / "app"
        write(self.app / ".gitignore", ".venv\n.claude/worktrees\n")
        repository(self.app)
        write(self.app / ".venv" / "bin" / "tool", f"#!/bin/sh\necho {self.app}\n", mode=0o755)
        tool = f'#!/bin/sh\nexec {sys.executable} -m holo "$@"\n'
        write(self.root / "tools" / "holo", tool, mode=0o755)
        self.env = holo.environment(
            {
                **ADA,
                "PATH": f"{self.root}/tools:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "HOME": str(self.root),
                "XDG_CONFIG_HOME": str(self.root / "config"),
                "XDG_DATA_HOME": str(self.root / "data"),
            }
        )

    def sh(self, script: str, cwd: Path | None = None, *, stdin: str = "", code: int = 0) -> str:
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=cwd or self.app,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    def has_its_own(self, worktree: Path) -> bool:
        tool = worktree / ".venv" / "bin" / "tool"
        return tool.exists() and subprocess.check_output([tool], text=True) == f"{worktree}\n"


@pytest.fixture
def project(filesystem: Filesystem, forks: Forks) -> Project:
    return Project(ForkedHolo(filesystem.root, forks))


@local
@pytest.mark.parametrize("path", ["", ".hooks"], ids=["default", "core.hooksPath"])
def test_git_calls_it_for_new_worktrees_only(project: Project, path: str) -> None:
    folder = project.app / (path or ".git/hooks")
    if path:
        git(project.app, "config", "core.hooksPath", folder)
    hook = folder / "post-checkout"
    if path:  # the user's own goes on
        write(hook, '#!/usr/bin/env bash\necho "$1 $3" >>../log\n', mode=0o750)
    assert project.holo("hook", "git", "--install", cwd=project.app).stdout == f"installed in {hook}\n"
    (project.app / "below").mkdir()
    again = project.holo("hook", "git", "--install", cwd=project.app / "below").stdout
    assert again == f"{hook} is as it should be\n"
    assert os.access(hook, os.X_OK)
    git(project.app, "worktree", "add", "--quiet", "../new", env=project.env)
    assert project.has_its_own(project.root / "new")
    shutil.rmtree(project.root / "new" / ".venv")
    git(project.root / "new", "checkout", "--quiet", "-b", "other", env=project.env)
    assert not (project.root / "new" / ".venv").exists()
    # A clone's first commit comes from none, too.
    assert project.sh(f"git clone --quiet --config core.hooksPath={folder} app clone 2>&1", project.root) == ""
    # holo does it once, and a worktree is made even if holo fails.
    assert ".venv cloned" in project.sh("holo worktree add ../second")
    write(project.root / "tools" / "holo", "#!/bin/sh\nexit 1\n", mode=0o755)
    git(project.app, "worktree", "add", "--quiet", "../third", env=project.env)
    if path:
        lines = (project.root / "log").read_text().splitlines()
        assert [line.endswith(" 1") for line in lines] == [True] * 5
        assert project.holo("hook", "git", "--remove", cwd=project.app).stdout == f"removed from {hook}\n"
        assert hook.read_text() == '#!/usr/bin/env bash\necho "$1 $3" >>../log\n'
        assert hook.stat().st_mode & 0o777 == 0o750
    else:
        project.holo("hook", "git", "--remove", cwd=project.root / "third")  # there are the same hooks
        assert not hook.exists()
        assert project.holo("hook", "git", "--remove", "--json", cwd=project.app).json()["changed"] is False


@local
def test_hooks_of_git_that_holo_does_not_change(project: Project) -> None:
    hook = project.app / ".git" / "hooks" / "post-checkout"
    for text, mode in (("#!/usr/bin/python3\n", 0o755), ("\x7fELF", 0o755), ("#!/bin/sh\nexit\n", 0o644)):
        write(hook, text, mode=mode)
        said = project.holo("hook", "git", "--install", cwd=project.app, code=1).stderr
        assert "`holo worktree add .`" in said
        assert hook.read_text() == text
    hook.unlink()
    os.symlink(project.app / ".gitignore", hook)
    project.holo("hook", "git", "--install", cwd=project.app, code=1)
    assert "not a git repository" in project.holo("hook", "git", "--install", cwd=project.root, code=1).stderr


@local
@pytest.mark.skipif(shutil.which("direnv") is None and os.environ.get("CI") != "true", reason="direnv is not installed")
def test_direnv_makes_it_when_a_worktree_is_entered(project: Project) -> None:
    write(project.app / ".envrc", "use holo\n")
    git(project.app, "add", ".envrc")
    git(project.app, "commit", "--quiet", "--message=envrc")
    library = project.root / "config" / "direnv" / "lib" / "holo.sh"
    assert project.sh("holo hook direnv --install") == f"installed in {library}\n"
    git(project.app, "worktree", "add", "--quiet", "../new")
    for checkout in (project.root / "new", project.app):
        entered = "direnv allow . && direnv exec . sh -c 'tool; echo $VIRTUAL_ENV'"
        assert project.sh(entered, checkout) == f"{checkout}\n{checkout}/.venv\n"
    again = project.sh("direnv exec . true 2>&1", project.root / "new")
    assert "nothing to add" not in again, "a folder is entered all the time"
    assert project.sh("holo hook direnv --remove") == f"removed from {library}\n"
    assert not library.exists()
    write(library, "mine\n")
    for option, code in (("--install", 1), ("--remove", 0)):
        project.holo("hook", "direnv", option, env=project.env, code=code)
        assert library.read_text() == "mine\n"


CREATE: dict[str, Any] = {"session_id": "1", "transcript_path": "/t", "hook_event_name": "WorktreeCreate"}


@local
def test_an_agent_gets_worktrees(project: Project) -> None:
    write(project.app / "src" / "file", "x")
    own = {"permissions": {"allow": ["x"]}, "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "true"}]}]}}
    settings_file = write(project.app / ".claude" / "settings.json", json.dumps(own))
    project.sh("holo hook claude --install", project.app / "src")
    installed = json.loads(settings_file.read_text())
    assert {key: installed["hooks"][key] for key in own["hooks"]} == own["hooks"]
    assert installed["permissions"] == own["permissions"]
    assert project.sh("holo hook claude --install").endswith("is as it should be\n")
    (command,) = {
        hook["command"]
        for event in ("WorktreeCreate", "WorktreeRemove")
        for group in installed["hooks"][event]
        for hook in group["hooks"]
    }
    event = {**CREATE, "cwd": str(project.app / "src"), "name": "agent-1/../Fix it.lock"}
    path = project.app / ".claude" / "worktrees" / "agent-1-Fix-it-lock"
    assert project.sh(command, stdin=json.dumps(event)) == f"{path}\n"  # and nothing else
    assert project.has_its_own(path)
    assert git(path, "branch", "--show-current") == "worktree-agent-1-Fix-it-lock\n"
    shutil.rmtree(path / ".venv")
    assert project.sh(command, stdin=json.dumps(event)) == f"{path}\n"
    assert project.has_its_own(path)
    removal = json.dumps({"hook_event_name": "WorktreeRemove", "worktree_path": str(path), "cwd": str(project.app)})
    write(path / "work", "not committed")
    assert "not committed" in project.sh(command, stdin=removal, code=1)
    (path / "work").unlink()
    assert project.sh(command, stdin=removal, cwd=project.root) == ""
    assert not path.exists()
    assert project.sh(command, stdin=json.dumps(event)) == f"{path}\n"  # on the branch that is there
    project.sh("holo hook claude --remove")
    assert json.loads(settings_file.read_text()) == own
    settings_file.unlink()
    project.sh("holo hook claude --install && holo hook claude --remove")
    assert not settings_file.exists()


@local
def test_settings_of_an_agent_that_holo_does_not_understand(project: Project) -> None:
    path = project.app / ".claude" / "settings.json"
    for hooks_of_it in ("[]", '{"WorktreeCreate": [1]}', '{"WorktreeRemove": 1}', '{"WorktreeCreate": [{}]}', ""):
        write(path, f'{{"hooks": {hooks_of_it}}}')
        for option in ("--install", "--remove"):
            project.holo("hook", "claude", option, cwd=project.app, code=1)
    another = '{"hooks": {"WorktreeCreate": [{"hooks": [{"type": "command", "command": "mine"}]}]}}'
    write(path, another)
    assert "already" in project.holo("hook", "claude", "--install", cwd=project.app, code=1).stderr
    assert path.read_text() == another


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.sampled_from(["WorktreeCreate", "WorktreeRemove", "/x", "a\0"]),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["hook_event_name", "name", "worktree_name", "worktree_path", "cwd"]), inner
            )
        ),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_event_is_understood_or_refused(document: object) -> None:
    try:
        event = hooks.event_of(json.dumps(document).encode())
    except holo_package.UsageError:
        return
    assert event.path
    assert event.is_removal or (event.name not in ("", ".", "..") and "/" not in event.name)


@local
def test_what_is_printed_is_what_is_installed(project: Project) -> None:
    for kind in ("git", "direnv", "claude"):
        shown = project.holo("hook", kind, cwd=project.app).stdout
        assert project.holo("hook", kind, "--json", cwd=project.app).json() == {"hook": kind, "text": shown}
        report = project.holo(
            "hook", kind, "--install", "--json", cwd=project.app, env={"XDG_CONFIG_HOME": str(project.root)}
        )
        assert Path(report.json()["path"]).read_text() == shown
    project.holo("hook", "git", "--install", "--remove", cwd=project.app, code=2)
    project.holo("hook", "git", "--run", cwd=project.app, code=2)
    project.holo("hook", "svn", cwd=project.app, code=2)
    for kind in ("git", "claude"):
        project.holo("hook", kind, "--install", cwd=project.root, code=1)
    assert not (project.root / ".claude").exists()
