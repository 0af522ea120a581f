"""In each worktree, `import project` gives that worktree's source, whatever installed it, and edits stay there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from holo.blueprints.uv import find_uv
from support.cli import FOREIGN, Holo
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks
from support.repositories import ADA, git, repository
from support.trees import write

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None and os.environ.get("CI") != "true", reason="npm is not installed"
)


@pytest.fixture
def holo(filesystem: Filesystem, forks: Forks, monkeypatch: pytest.MonkeyPatch) -> Holo:
    for name, value in ADA.items():
        monkeypatch.setenv(name, value)
    return ForkedHolo(filesystem.root, forks)


def run(folder: Path, *command: str | Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", *FOREIGN))}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


Install = Callable[[Path], None]


def by_uv(*options: str) -> Install:
    def install(project: Path) -> None:
        run(project, find_uv(), "venv", "--quiet", "--python", sys.executable, ".venv")
        run(project, find_uv(), "pip", "install", "--quiet", "--python", ".venv/bin/python", *options, "-e", ".")

    return install


def by_pip(project: Path) -> None:
    run(project, find_uv(), "venv", "--quiet", "--python", sys.executable, ".venv")
    options = ("--quiet", "--disable-pip-version-check", "--no-deps")
    run(project, sys.executable, "-m", "pip", "--python", ".venv/bin/python", "install", *options, "-e", ".")


def by_uv_sync(project: Path) -> None:
    run(project, find_uv(), "sync", "--quiet", "--all-packages", "--python", sys.executable)


def manifest(name: str, backend: str, more: str = "") -> str:
    requires, module = {
        "uv": ("uv_build", "uv_build"),
        "hatchling": ("hatchling", "hatchling.build"),
        "setuptools": ("setuptools>=64", "setuptools.build_meta"),
    }[backend]
    return (
        f'[build-system]\nrequires = ["{requires}"]\nbuild-backend = "{module}"\n'
        f'[project]\nname = "{name}"\nversion = "1"\nrequires-python = ">=3.11"\n'
        f'[project.scripts]\n{name} = "{name}:main"\n{more}'
    )


def package(folder: Path, name: str, value: str = "first") -> Path:
    """A package whose program prints where it is, and a value."""
    return write(folder / name / "__init__.py", f"VALUE = {value!r}\ndef main():\n    print(__file__, VALUE)\n")


STRICT = ("--config-settings", "editable_mode=strict")
FINDER = '[tool.setuptools]\npackages = ["app"]\n[tool.setuptools.package-dir]\napp = "lib/code"\n'
PROJECTS: Mapping[str, tuple[str, str, Install]] = {
    "uv sync, src": (manifest("app", "uv"), "src/app", by_uv_sync),
    "hatchling, flat": (manifest("app", "hatchling"), "app", by_uv()),
    "pip, setuptools, src": (manifest("app", "setuptools"), "src/app", by_pip),
    "setuptools lax, a finder": (manifest("app", "setuptools", FINDER), "lib/code", by_uv()),
    "setuptools strict": (manifest("app", "setuptools"), "src/app", by_uv(*STRICT)),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_each_worktree_imports_its_own_source(holo: Holo, name: str) -> None:
    text, place, install = PROJECTS[name]
    app = holo.root / "app"
    write(app / "pyproject.toml", text)
    write(app / ".gitignore", ".venv\nbuild\n__pycache__\n*.egg-info\n")
    source = package((app / place).parent, Path(place).name)
    install(app)
    repository(app)
    tool = Path(".venv", "bin", "app")
    assert run(app, tool).endswith(" first\n")  # its finder and its source are compiled now
    for checkout in ("other", "a-longer-path/to/it"):
        other = holo.root / checkout
        holo("worktree", "add", other, "-b", other.name, cwd=app)
        assert git(other, "status", "--porcelain") == ""
        imports = "import app; app.main(); import sys; print(sys.prefix)"
        shown, prefix = run(Path("/"), other / ".venv" / "bin" / "python", "-c", imports).splitlines()
        assert shown.startswith(f"{other}/"), shown
        assert shown.endswith(" first")
        assert prefix == f"{other}/.venv"
        (other / source.relative_to(app)).write_text(source.read_text().replace("first", "edited in it"))
        assert run(Path("/"), other / tool) == f"{shown.removesuffix('first')}edited in it\n"
        assert run(Path("/"), app / tool).endswith(" first\n")
        rest = subprocess.run(
            ["grep", "-rlF", f"{app}/", other, "--include=*.py", "--include=*.pth", "--include=*.json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert rest.stdout == ""


def test_each_worktree_of_a_monorepo_imports_its_own_packages(holo: Holo) -> None:
    app = holo.root / "app"
    needs = 'dependencies = ["one"]\n[tool.uv.sources]\none = { workspace = true }\n'
    project = f'[project]\nname = "root"\nversion = "1"\nrequires-python = ">=3.11"\n{needs}'
    write(app / "pyproject.toml", f'{project}[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    write(app / ".gitignore", ".venv\n__pycache__\n")
    names = ("one", "two", "three")
    for name in names:
        write(app / "packages" / name / "pyproject.toml", manifest(name, "uv"))
        package(app / "packages" / name / "src", name)
    by_uv_sync(app)
    repository(app)
    other = holo.root / "other"
    holo("worktree", "add", "../other", cwd=app)
    package(other / "packages" / "two" / "src", "two", "edited")
    imports = "; ".join(f"import {name}; {name}.main()" for name in names)
    lines = run(Path("/"), other / ".venv" / "bin" / "python", "-c", imports).splitlines()
    assert lines == [
        f"{other}/packages/{name}/src/{name}/__init__.py {'edited' if name == 'two' else 'first'}" for name in names
    ]
    assert "edited" not in run(Path("/"), app / ".venv" / "bin" / "python", "-c", imports)


@pytest.fixture(scope="module")
def pnpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pnpm, from the registry."""
    folder = tmp_path_factory.mktemp("pnpm")
    run(folder, "npm", "install", "--silent", "--prefix", folder, "pnpm@10")
    return folder / "node_modules" / ".bin" / "pnpm"


@needs_npm
@pytest.mark.parametrize("tool", ["npm", "pnpm"])
def test_each_worktree_requires_its_own_packages(holo: Holo, tool: str, request: pytest.FixtureRequest) -> None:
    """Workspaces: `web` needs `lib`, which lies beside it."""
    app = holo.root / "app"
    wanted = "workspace:*" if tool == "pnpm" else "*"
    write(app / "package.json", json.dumps({"name": "root", "private": True, "workspaces": ["packages/*"]}))
    write(app / "pnpm-workspace.yaml", "packages: [packages/*]\n")
    for name, needs in (("lib", {}), ("web", {"@o/lib": wanted})):
        document = {"name": f"@o/{name}", "version": "1.0.0", "main": "index.js", "dependencies": needs}
        write(app / "packages" / name / "package.json", json.dumps(document))
    write(app / "packages" / "lib" / "index.js", "module.exports = [__filename, 'first']\n")
    write(app / "packages" / "web" / "index.js", "console.log(require('@o/lib').join(' '))\n")
    write(app / ".gitignore", "node_modules\n")
    program = request.getfixturevalue("pnpm") if tool == "pnpm" else "npm"
    run(app, program, "install", "--offline", "--silent")
    repository(app)
    web = Path("packages", "web", "index.js")
    assert run(app, "node", web) == f"{app}/packages/lib/index.js first\n"
    other = holo.root / "other-checkout"
    made = holo("worktree", "add", other, "--json", cwd=app).json()
    assert made["warnings"] == []
    edited = other / "packages" / "lib" / "index.js"
    edited.write_text(edited.read_text().replace("first", "edited"))
    assert run(other, "node", web) == f"{edited} edited\n"
    assert run(app, "node", web) == f"{app}/packages/lib/index.js first\n"
    leading = [
        path for path in other.rglob("*") if path.is_symlink() and str(app) + "/" in os.path.realpath(path) + "/"
    ]
    assert leading == []


def test_a_worktree_with_another_lock_file_imports_its_own_source_too(holo: Holo) -> None:
    """It is built, not cloned. There is no package but the project: what differs is what it needs."""
    app = holo.root / "app"
    write(app / "pyproject.toml", manifest("app", "uv"))
    write(app / ".gitignore", ".venv\n__pycache__\n")
    source = package(app / "src", "app")
    by_uv_sync(app)
    repository(app)
    git(app, "checkout", "--quiet", "-b", "other")
    write(app / "pyproject.toml", manifest("app", "uv").replace('version = "1"', 'version = "2.0"'))
    run(app, find_uv(), "lock", "--quiet")
    git(app, "commit", "--quiet", "--all", "--message=another version")
    git(app, "checkout", "--quiet", "main")
    made = holo("worktree", "add", "../other", "other", "--json", cwd=app).json()
    assert [item["how"] for item in made["made"]] == ["built"]
    other = holo.root / "other"
    package(other / "src", "app", "edited")
    assert run(Path("/"), other / ".venv" / "bin" / "app") == f"{other / source.relative_to(app)} edited\n"
    assert run(Path("/"), app / ".venv" / "bin" / "app") == f"{source} first\n"
