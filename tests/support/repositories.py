"""Repositories of git for tests, without anybody's settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ADA = {
    **{f"GIT_{role}_{what}": "ada@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}
"""The environment of git: an author, and no settings of the user or the system."""


def git(folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
    """What git prints in that folder."""
    environment = {**os.environ, **ADA, **(env or {})}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def repository(folder: Path) -> Path:
    """A repository with all that is in the folder as its first commit."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main", ".")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=first")
    return folder
