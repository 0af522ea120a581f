"""docs/worktrees.md, as it is written there, with a real virtualenv."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import Holo
from support.filesystems import Filesystem

PAGE = (Path(__file__).parents[2] / "docs" / "worktrees.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


class Repository:
    """A project in git with a real virtualenv, and holo on the PATH."""

    def __init__(self, holo: Holo, venv: Path) -> None:
        self.path = holo.root / "app"
        self.path.mkdir()
        tools = holo.root / "tools"
        tools.mkdir()
        (tools / "holo").write_text(f'#!/bin/sh\nexec {sys.executable} -m holo "$@"\n')
        (tools / "holo").chmod(0o755)
        root = Path(__file__).parents[2]
        mine = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(root), "HOME": str(holo.root)}
        who = {
            f"GIT_{role}_{what}": "ada@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        self._environment = {**holo.environment(), **mine, **who}
        (self.path / ".gitignore").write_text(".venv\n")
        self.sh("git init --quiet . && git add . && git commit --quiet --message first")
        holo("clone", "--relocate", venv, self.path / ".venv")

    def sh(self, script: str) -> str:
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=self.path,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def check(self, worktree: str) -> None:
        """Its virtualenv works, at its own path, and is private."""
        venv = self.path.parent / worktree / ".venv"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

        def run(*command: str | Path) -> str:
            return subprocess.run(command, env=clean, cwd="/", capture_output=True, text=True, check=True).stdout

        code = "import numpy, rich, sys; print(sys.prefix, numpy.__file__, numpy.arange(3).sum(), sep='\\n')"
        prefix, module, total = run(venv / "bin" / "python", "-c", code).splitlines()
        assert (prefix, total) == (str(venv), "3")
        assert module.startswith(f"{venv}/lib")
        assert run(venv / "bin" / "pip", "--version").split(" from ")[1].startswith(str(venv))
        assert run("sh", "-c", '. "$0" && command -v python', venv / "bin" / "activate").strip() == f"{venv}/bin/python"
        version = Path(module).with_name("version.py")
        mine = self.path / ".venv" / version.relative_to(venv)
        before = mine.read_bytes()
        version.write_bytes(b"broken")
        (venv / "bin" / "pip").unlink()
        assert mine.read_bytes() == before
        assert (self.path / ".venv" / "bin" / "pip").exists()
        assert self.sh(f"git -C ../{worktree} status --porcelain") == ""


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_documented_worktree_flow_works(filesystem: Filesystem, holo: Holo, real_venv_source: Path) -> None:
    repository = Repository(holo, real_venv_source)
    add, remove, by_hand, record, spaces, hook, move = blocks("sh")
    repository.sh(add)
    repository.check("feature")
    repository.sh(remove)
    assert not (holo.root / "feature").exists()

    repository.sh("git branch --quiet --delete --force feature")
    repository.sh(by_hand)
    assert repository.sh("cd ../feature && .venv/bin/python -c 'import sys; print(sys.prefix)'").endswith(
        "feature/.venv\n"
    )
    repository.sh("git worktree remove --force ../feature && git branch --quiet --delete --force feature")

    repository.sh("git worktree add --quiet ../feature")
    init, restore, delete = spaces.splitlines()
    repository.sh(f"{record}{init}\nrm ../feature/.venv/bin/pip")
    repository.sh(restore)
    repository.check("feature")
    repository.sh(delete)
    assert not (holo.root / "feature" / ".venv").exists()

    repository.sh(f"{hook}git worktree add --quiet ../hooked")
    assert repository.sh("../hooked/.venv/bin/python -c 'import sys; print(sys.prefix)'").endswith("hooked/.venv\n")

    repository.sh("git worktree remove --force ../feature && git branch --quiet --delete --force feature")
    repository.sh(f"{add}printf '%s\n' $PWD/../feature/.venv/bin > ../feature/.venv/own")
    repository.sh(move)
    repository.check("moved")
    assert not (holo.root / "moved" / ".venv-old").exists()
    assert (holo.root / "moved" / ".venv" / "own").exists()
    old = os.fsencode(holo.root / "feature" / ".venv")
    files = [path for path in (holo.root / "moved" / ".venv" / "bin").iterdir() if path.is_file()]
    assert [path.name for path in files if old in path.read_bytes()] == []
