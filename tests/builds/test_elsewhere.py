"""Settings of uv, pip, npm and conda that lead elsewhere: overridden or refused, and what is missing is an error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holo.blueprints.complete import distributions
from holo.blueprints.requirements import distribution
from holo.blueprints.uv import find_uv
from support import trees, wheels
from support.cli import Result
from support.forks import ForkedHolo, Forks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX paths and programs")

PROJECT = '[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.8"\ndependencies = ["leaf>=1"]\n'
SCRIPT = '# /// script\n# dependencies = ["leaf"]\n# ///\n'


class World:
    """A project that needs the package ``leaf``, from a folder of wheels, and settings of its own."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.holo = ForkedHolo(root, forks)
        self.folder = root / "project"
        self.folder.mkdir()
        self.config = root / "config"
        wheels.make(root / "wheels", "leaf")
        self.environ = {
            "UV_FIND_LINKS": str(root / "wheels"),
            "UV_NO_INDEX": "1",
            "UV_OFFLINE": "1",
            "XDG_CONFIG_HOME": str(self.config),
            "XDG_CONFIG_DIRS": str(root / "none"),
        }

    def write(self, name: str, text: str) -> Path:
        return trees.write(self.folder / name, text)

    def init(self, blueprint: Path, space: str = "one", code: int = 0, **environ: str) -> Result:
        return self.holo("init", "--space", space, blueprint, "--json", env=self.environ | environ, code=code)

    def space(self, blueprint: Path, space: str = "one", **environ: str) -> Path:
        return Path(self.init(blueprint, space, **environ).json()["path"])

    def has_leaf(self, space: Path) -> bool:
        (module,) = space.glob("lib/python3*/site-packages/leaf.py")
        said = subprocess.run([space / "bin" / "leaf"], capture_output=True, text=True, check=True).stdout
        return said == f"leaf 1.0 {space}\n" and module.is_file()


@pytest.fixture
def world(tmp_path: Path, forks: Forks) -> World:
    return World(tmp_path, forks)


# -- uv -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["target", "prefix"])
@pytest.mark.parametrize("place", ["pyproject.toml", "uv.toml", "below", "user", "UV_CONFIG_FILE"])
def test_uv_is_led_elsewhere_by_a_file(world: World, option: str, place: str) -> None:
    setting, environ = f'{option} = "vendor"\n', {"UV_NO_CONFIG": "false"}
    if place == "pyproject.toml":
        file = blueprint = world.write("pyproject.toml", f"{PROJECT}\n[tool.uv.pip]\n{setting}")
    else:
        name = "below/requirements.txt" if place == "below" else "requirements.txt"
        blueprint = world.write(name, "leaf\n")
        folder = world.config / "uv" if place == "user" else world.folder
        file = trees.write(folder / ("own.toml" if place == "UV_CONFIG_FILE" else "uv.toml"), f"[pip]\n{setting}")
        environ |= {"UV_CONFIG_FILE": "own.toml"} if place == "UV_CONFIG_FILE" else {}
    said = world.init(blueprint, code=2, **environ).stderr
    assert f'error: {file}: `{option} = "vendor"` for `uv pip` has packages installed there' in said
    assert f"`uv pip install --{option} ...`" in said
    assert world.holo.has_made_nothing()
    assert not (world.folder / "vendor").exists()
    assert world.has_leaf(world.space(blueprint, UV_NO_CONFIG="1"))


@pytest.mark.parametrize("kind", ["lock", "script"])
def test_uv_sync_is_not_led_elsewhere(world: World, kind: str) -> None:
    """The settings of `uv pip` are none of its."""
    world.write("uv.toml", '[pip]\ntarget = "vendor"\n')
    if kind == "lock":
        blueprint = world.write("pyproject.toml", PROJECT)
        subprocess.run([find_uv(), "lock", "--quiet"], cwd=world.folder, env=os.environ | world.environ, check=True)
    else:
        blueprint = world.write("job.py", SCRIPT)
    assert world.has_leaf(world.space(blueprint))


ELSEWHERE = {
    "UV_PROJECT_ENVIRONMENT": "vendor",
    "UV_ACTIVE": "1",
    "VIRTUAL_ENV": "vendor",
    "UV_SYSTEM_PYTHON": "1",
    "UV_ONLY_INSTALL_PROJECT": "1",
    "UV_NO_SYNC": "1",
    "UV_LINK_MODE": "symlink",
    "PYTHONPYCACHEPREFIX": "vendor",
    "PYTHONOPTIMIZE": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHOME": "vendor",
    "PYTHONPLATLIBDIR": "vendor",
    "PYTHONUSERBASE": "vendor",
}


@pytest.mark.parametrize("kind", ["requirements", "pyproject", "lock", "script"])
def test_variables_that_lead_elsewhere(world: World, tmp_path: Path, kind: str) -> None:
    """All of them together leave the same as none."""
    if kind == "requirements":
        blueprint = world.write("requirements.txt", "leaf\n")
    else:
        blueprint = world.write("pyproject.toml", PROJECT)
        if kind == "lock":
            subprocess.run([find_uv(), "lock", "--quiet"], cwd=world.folder, env=os.environ | world.environ, check=True)
        elif kind == "script":
            blueprint = world.write("job.py", SCRIPT)
    environ = {name: str(tmp_path / value) if value == "vendor" else value for name, value in ELSEWHERE.items()}
    # Of Python's own variables, holo itself heeds some.
    environ |= {"HOME": str(tmp_path)}
    without = {name: value for name, value in environ.items() if name not in ("PYTHONHOME", "PYTHONPLATLIBDIR")}
    space = world.space(blueprint, **without)
    assert world.has_leaf(space)
    assert not (tmp_path / "vendor").exists()
    compiled = [path.name for path in space.rglob("leaf*.pyc")]
    tag = printed(str(space / "bin" / "python"), "-c", "import sys; print(sys.implementation.cache_tag)")
    assert compiled == [f"leaf.{tag}.pyc"]
    assert not [path for path in space.rglob("leaf.py") if path.is_symlink()]
    assert "building" not in world.init(blueprint, "two").stderr, "and it is the same as without them"


def test_settings_are_passed_on_to_uv(world: World) -> None:
    world.write("uv.toml", 'link-mode = "symlink"\n[pip]\nsystem = true\nlink-mode = "symlink"\npython = "3.999"\n')
    space = world.space(world.write("requirements.txt", "leaf\n"))
    assert world.has_leaf(space)
    assert not [path for path in space.rglob("leaf.py") if path.is_symlink()]


def printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


VERSION = ("-I", "-c", "import sys; print(sys.version)")


def other_python() -> str:
    """Another interpreter than the one that uv takes by itself; skips where there is none."""
    program = "import os, sys; print(os.path.realpath(sys.executable))"
    first = printed(printed(find_uv(), "python", "find", "--system", "--no-project"), "-c", program)
    listed = json.loads(printed(find_uv(), "python", "list", "--only-installed", "--output-format", "json"))
    places = [Path(item["path"]) for item in listed] + [*Path.home().glob(".pyenv/versions/3.1?.*/bin/python")]
    others = {os.path.realpath(place) for place in places if "shims" not in place.parts} - {first}
    return max(others) if others else pytest.skip("there is one Python only")


@pytest.mark.parametrize("kind", ["requirements", "pyproject", "script"])
def test_uv_python_is_the_interpreter(world: World, kind: str) -> None:
    """And part of the key as that, not as the text of it."""
    python = other_python()
    blueprint = {
        "requirements": lambda: world.write("requirements.txt", "leaf\n"),
        "pyproject": lambda: world.write("pyproject.toml", PROJECT),
        "script": lambda: world.write("job.py", SCRIPT.replace("# dep", '# requires-python = ">=3.8"\n# dep')),
    }[kind]()
    world.write(".python-version", f"3.{sys.version_info.minor}\n")
    chosen = world.space(blueprint, UV_PYTHON=python)
    assert world.has_leaf(chosen)
    assert printed(str(chosen / "bin" / "python"), *VERSION) == printed(python, *VERSION)
    assert "building" in world.init(blueprint, "two").stderr, "without it, it is another"
    (link := world.folder / "mine").symlink_to(python)
    assert "building" not in world.init(blueprint, "three", UV_PYTHON=str(link)).stderr, "the same, called otherwise"


def test_the_hint_about_uv_python(world: World) -> None:
    world.write(".python-version", "3.99\n")
    blueprint = world.write("requirements.txt", "leaf\n")
    assert "choose one with UV_PYTHON" in world.init(blueprint, code=1).stderr
    assert world.has_leaf(world.space(blueprint, UV_PYTHON=os.path.realpath(sys.executable)))


# -- what is missing ------------------------------------------------------------------------------------------


def test_missing_package_after_a_build_is_an_error(world: World, tmp_path: Path) -> None:
    """A tool that is led elsewhere in a way that nobody knows yet, and says that all is well."""
    fake = trees.write(
        tmp_path / "fake" / "uv",
        f'#!/bin/sh\ncase "$1 $2" in "pip install") exit 0;; esac\nexec {find_uv()} "$@"\n',
        mode=0o755,
    )
    blueprint = world.write("requirements.txt", "leaf==1.0\nother; sys_platform == 'none'\n")
    code = f"import holo.blueprints.python as p; p.find_uv = lambda: {str(fake)!r}; from holo.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "init", "--space", "one", blueprint],
        env=world.holo.environment(world.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        "error: the build failed: its tools report no error, but this is not in the environment: leaf\n" in done.stderr
    )
    assert "Their log: " in done.stderr
    assert world.holo.has_made_nothing()


def test_package_excluded_by_settings_is_not_missing(world: World) -> None:
    wheels.make(world.folder.parent / "wheels", "twig")
    world.write("overrides.txt", "twig; sys_platform == 'none'\n")
    blueprint = world.write("requirements.txt", "leaf\ntwig\n")
    space = world.space(blueprint, UV_OVERRIDE="overrides.txt")
    assert distributions(str(space)) == {"leaf"}


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("Leaf_Lib", "leaf-lib"),
        ("leaf[extra] >= 1", "leaf"),
        ("leaf (==1.0)", "leaf"),
        ("leaf==1.0 --hash=sha256:00", "leaf"),
        ("leaf @ https://example.org/x.tar.gz", "leaf"),
        ("leaf_lib-1.0-py3-none-any.whl", "leaf-lib"),
        ("leaf-1.0.tar.gz", None),
        ("leaf; sys_platform == 'win32'", None),
        ("https://example.org/leaf-1.0.whl", None),
        ("./wheels/leaf-1.0-py3-none-any.whl", None),
        ("wheels/leaf-1.0-py3-none-any.whl", None),
    ],
)
def test_the_distribution_of_a_requirement(requirement: str, name: str | None) -> None:
    assert distribution(requirement) == name


@pytest.mark.parametrize(
    "folder", ["lib/python3.12/site-packages", "lib64/pypy3.10/site-packages", "Lib/site-packages"]
)
def test_the_distributions_of_an_environment(tmp_path: Path, folder: str) -> None:
    for name in ("Leaf_Lib-1.0.dist-info", "old.name-2-py3.8.egg-info", "leaf_lib", "other.py"):
        (tmp_path / folder / name).mkdir(parents=True)
    assert distributions(str(tmp_path)) == {"leaf-lib", "old-name"}


# -- npm ------------------------------------------------------------------------------------------------------

needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None and os.environ.get("CI") != "true", reason="npm is not installed"
)
SETTINGS = ["dry-run=true", "package-lock-only=true", "global=true", "location=global", "prefix=/nowhere"]


def npm_project(folder: Path) -> Path:
    needed = {"is-number": "7.0.0"}
    integrity = "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9cGvNp6NZWZUBlbGXYxxng=="
    package: dict[str, Any] = {"name": "web", "version": "1.0.0", "dependencies": needed}
    packages = {"": package, "node_modules/is-number": {"version": "7.0.0", "integrity": integrity}}
    trees.write(folder / "package.json", json.dumps(package))
    lock = {"name": "web", "version": "1.0.0", "lockfileVersion": 3, "packages": packages}
    return trees.write(folder / "package-lock.json", json.dumps(lock))


@needs_npm
@pytest.mark.parametrize("setting", SETTINGS)
def test_npm_is_led_elsewhere_by_a_file(world: World, tmp_path: Path, setting: str) -> None:
    user = Path.home() / ".npmrc"
    settings = user.read_text() if user.exists() else ""
    npmrc = trees.write(tmp_path / "npmrc", f"{settings}\n{setting}\n")
    space = world.space(npm_project(world.folder), npm_config_userconfig=str(npmrc))
    assert (space / "node_modules" / "is-number" / "index.js").is_file()


@needs_npm
def test_npm_is_led_elsewhere_by_variables(world: World) -> None:
    """And by the project's own file."""
    world.write(".npmrc", "dry-run=true\n")
    variables = {
        f"npm_config_{name.replace('-', '_')}": value for name, _, value in (s.partition("=") for s in SETTINGS)
    }
    space = world.space(npm_project(world.folder), **variables)
    assert (space / "node_modules" / "is-number" / "index.js").is_file()


@needs_npm
def test_npm_installs_nothing_and_says_nothing(world: World, tmp_path: Path) -> None:
    trees.write(tmp_path / "bin" / "npm", "#!/bin/sh\nmkdir -p node_modules\n", mode=0o755)
    said = world.init(npm_project(world.folder), code=1, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}").stderr
    assert "this is not in the environment: is-number\n" in said
    assert world.holo.has_made_nothing()
