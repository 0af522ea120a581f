"""A real virtualenv, as pip makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def make(folder: Path) -> None:
    """Make a virtualenv with numpy and rich, compiled, from the package index. Scripts in it hold its path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", "--clear", folder],
        [folder / "bin" / "pip", "install", "--quiet", "numpy", "rich"],
        [folder / "bin" / "python", "-m", "compileall", "-q", folder / "lib"],
    ]
    for command in commands:
        built = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            raise RuntimeError(f"cannot build a virtualenv: {built.stdout}{built.stderr}")
