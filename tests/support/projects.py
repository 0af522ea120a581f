"""Projects in real git repositories, with worktrees, and real environments that name where the project is.

Each makes modules that say ``first``; :func:`edit` lets one worktree say something else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import trees
from support.repositories import git, repository

HATCHLING = 'requires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
SETUPTOOLS = 'requires = ["setuptools>=64"]\nbuild-backend = "setuptools.build_meta"\n'


def run(*command: str | Path, cwd: Path | None = None, **more: str) -> str:
    """What a command says, without the variables of the environment that the tests run in. It must not fail."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env={**kept, **more}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else (shutil.which("uv") or "uv")


def project(root: Path, files: dict[str, str]) -> Path:
    """A git repository with these files, committed."""
    for path, text in {".gitignore": ".venv\nnode_modules\nbuild\n*.egg-info\n__pycache__\n", **files}.items():
        trees.write(root / path, text)
    return repository(root)


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "x")


def worktree(root: Path, path: Path) -> Path:
    """Another worktree of the repository at ``root``."""
    git(root, "worktree", "add", "--quiet", "-b", path.name.replace(" ", "-"), path)
    return path


def edit(module: Path, said: str) -> None:
    """Let a module of :func:`python_project` and its like say something else."""
    module.write_text(module.read_text().replace("first", said))


# -- Python ---------------------------------------------------------------------------------------------------------


def pyproject(name: str, build: str, needs: tuple[str, ...] = (), more: str = "") -> str:
    project = f'[project]\nname = "{name}"\nversion = "1.0"\nrequires-python = ">=3.11"\ndependencies = {list(needs)}\n'
    return f"{project}[project.scripts]\n{name}-says = '{name}:main'\n[build-system]\n{build}{more}"


def module(name: str) -> str:
    return f"SAID = {f'first {name}'!r}\n\n\ndef main():\n    print(SAID)\n"


def python_project(root: Path, name: str = "app", build: str = HATCHLING, *, layout: str = "src") -> Path:
    """A project of one package, in a ``src`` layout or flat (``""``)."""
    folder = f"{layout}/{name}" if layout else name
    return project(root, {"pyproject.toml": pyproject(name, build), f"{folder}/__init__.py": module(name)})


MONOREPO = ("core", "api", "web")
"""``web`` needs ``api``, which needs ``core``."""


def python_monorepo(root: Path) -> Path:
    """A uv workspace of three packages, two built by hatchling and one by setuptools."""
    members = ", ".join(f'"{name}"' for name in MONOREPO)
    sources = "".join(f"{name} = {{ workspace = true }}\n" for name in MONOREPO)
    files = {
        "pyproject.toml": '[project]\nname = "all"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
        f'dependencies = [{members}]\n[tool.uv.workspace]\nmembers = ["packages/*"]\n[tool.uv.sources]\n{sources}'
    }
    for number, name in enumerate(MONOREPO):
        needs = MONOREPO[number - 1 : number] if number else ()
        linked = f"[tool.uv.sources]\n{needs[0]} = {{ workspace = true }}\n" if needs else ""
        build = SETUPTOOLS if name == "api" else HATCHLING
        files[f"packages/{name}/pyproject.toml"] = pyproject(name, build, needs, linked)
        files[f"packages/{name}/src/{name}/__init__.py"] = module(name)
    return project(root, files)


def uv_sync(root: Path, *options: str) -> Path:
    """The ``.venv`` of a project, as ``uv sync`` makes it; the lock is committed."""
    run(uv(), "sync", "--quiet", "--python", sys.executable, *options, cwd=root)
    if git(root, "status", "--porcelain"):
        commit(root)
    return root / ".venv"


def pip_install(root: Path, *options: str) -> Path:
    """The ``.venv`` of a project built by setuptools, as pip makes it with an editable install."""
    python = root / ".venv" / "bin" / "python"
    run(uv(), "venv", "--quiet", "--python", sys.executable, root / ".venv")
    run(uv(), "pip", "install", "--quiet", "--python", python, "pip", "setuptools>=64")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-index")
    run(python, "-m", "pip", "install", *quiet, "--editable", ".", *options, cwd=root)
    return root / ".venv"


def said_by(venv: Path, *names: str) -> list[str]:
    """What the modules of an environment say, imported by its Python; and by their scripts."""
    code = "import importlib, sys; [print(importlib.import_module(name).SAID) for name in sys.argv[1:]]"
    said = run(venv / "bin" / "python", "-c", code, *names, cwd=Path("/")).splitlines()
    for name, line in zip(names, said, strict=True):
        assert run(venv / "bin" / f"{name}-says", cwd=Path("/")) == f"{line}\n"
    return said


# -- JavaScript -----------------------------------------------------------------------------------------------------


def node_workspaces(root: Path) -> Path:
    """npm and pnpm workspaces: ``@app/web`` needs ``@app/core``, and both a package of the registry."""
    files = {
        "package.json": json.dumps({"name": "app", "private": True, "workspaces": ["packages/*"]}),
        "pnpm-workspace.yaml": "packages:\n  - packages/*\n",
        ".npmrc": "link-workspace-packages=true\n",
    }
    for name, needs in {"core": {"is-number": "7.0.0"}, "web": {"is-number": "7.0.0", "@app/core": "1.0.0"}}.items():
        manifest = {"name": f"@app/{name}", "version": "1.0.0", "main": "index.js", "dependencies": needs}
        files[f"packages/{name}/package.json"] = json.dumps(manifest)
    files["packages/core/index.js"] = "module.exports = require('is-number')(5) && 'first core'\n"
    files["packages/web/index.js"] = "console.log(require('@app/core'))\n"
    return project(root, files)


def node_install(root: Path, tool: str, folders: pytest.TempPathFactory) -> list[str]:
    """The ``node_modules`` of a project and its workspaces, as npm or pnpm makes them; where they are."""
    if tool == "npm":
        run("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=root)
    else:
        place = folders.mktemp("pnpm")
        run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", place, "pnpm@9.15.9")
        pnpm = place / "node_modules" / ".bin" / "pnpm"
        run(pnpm, "install", "--silent", "--store-dir", place / "store", cwd=root)
    found = [root / "node_modules", *(root / "packages").glob("*/node_modules")]
    return [str(path.relative_to(root)) for path in found if path.is_dir()]
