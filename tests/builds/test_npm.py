"""Blueprints for npm, with real packages of the registry: is-number, which is one file, and acorn, a program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holo.blueprints import npm
from holo.blueprints.blueprint import Blueprint
from holo.blueprints.builder import BuildOptions, ToolMissing
from holo.blueprints.canonical import key_of
from holo.blueprints.inputs import Inputs
from holo.errors import NotFound, UsageError
from support.builds import interrupted_at, killed_at_any_moment, start
from support.cli import Result
from support.forks import ForkedHolo, Forks

needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None and os.environ.get("CI") != "true", reason="npm is not installed"
)

Note = Callable[[int, str, int], None]

NEEDED = {"acorn": "8.14.0", "is-number": "7.0.0"}
LOCKED = {
    "node_modules/acorn": {
        "version": "8.14.0",
        "integrity": "sha512-cl669nCJTZBsL97OF4kUQm5g5hC2uihk0NxY3WENAC0TYdILVkAyHymAntgxGkl7K+t0cXIrH5siy5S4XkFycA==",
        "bin": {"acorn": "bin/acorn"},
    },
    "node_modules/is-number": {
        "version": "7.0.0",
        "integrity": "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9cGvNp6NZWZUBlbGXYxxng==",
    },
}


def package(needed: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"name": "web", "version": "1.0.0", "dependencies": needed, **more}


def locked(needed: dict[str, str], packages: dict[str, Any], **more: Any) -> dict[str, Any]:
    root = {"name": "web", "version": "1.0.0", "dependencies": needed}
    return {"name": "web", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": root, **packages}, **more}


class Project:
    """A folder with a package.json and its lock."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.holo = ForkedHolo(root, forks)
        self.folder = root / "project"
        self.folder.mkdir()
        self.lock = self.folder / "package-lock.json"
        self.write({}, {})

    def write(self, needed: dict[str, str], packages: dict[str, Any], **more: Any) -> None:
        (self.folder / "package.json").write_text(json.dumps(package(needed, **more)))
        self.lock.write_text(json.dumps(locked(needed, packages)))

    def init(self, space: str, code: int = 0) -> Result:
        return self.holo("init", "--space", space, str(self.lock), code=code)

    def space(self, name: str) -> Path:
        return self.holo.path_of(name)


@pytest.fixture
def project(tmp_path: Path, forks: Forks) -> Project:
    return Project(tmp_path, forks)


# -- spaces -----------------------------------------------------------------------------------------------


@needs_npm
def test_two_spaces_of_one_lock(project: Project) -> None:
    project.write(NEEDED, LOCKED, type="module", scripts={"prepare": "exit 1"})
    assert "added 2 packages" in project.init("one").stderr
    assert project.init("two").stderr == "", "it is not built again"
    code = "console.log(require('is-number')('5'), require.resolve('is-number'))"
    (project.folder / "script.cjs").write_text(code)
    for name in ("one", "two"):
        space = project.space(name)
        expected = f"true {space}/node_modules/is-number/index.js\n"
        run = ("run", "--space", name, "--", "node")
        assert project.holo(*run, "-e", code).stdout == expected
        assert project.holo(*run, "script.cjs", cwd=project.folder).stdout == expected, "a script elsewhere"
        (space / "inside.cjs").write_text(code)
        plain = subprocess.run(["node", space / "inside.cjs"], capture_output=True, text=True, check=True)
        assert plain.stdout == expected, "without any activation"
        acorn = ("acorn", "--ecma2020", "--tokenize", "--compact", "script.cjs")
        tokens = project.holo("run", "--space", name, "--", *acorn, cwd=project.folder).stdout
        assert tokens.count('"is-number"') == 2
        assert sorted(path.name for path in space.iterdir()) == [
            *("inside.cjs", "node_modules", "package-lock.json", "package.json")
        ]
        subprocess.run(["npm", "ls"], cwd=space, capture_output=True, check=True)


@needs_npm
def test_a_shrinkwrap_is_a_lock(project: Project) -> None:
    project.write(NEEDED, LOCKED)
    project.lock = project.lock.rename(project.folder / "npm-shrinkwrap.json")
    assert "added 2 packages" in project.init("one").stderr
    assert (project.space("one") / "node_modules" / "is-number" / "index.js").exists()


@needs_npm
def test_settings_and_scripts_of_the_project_are_followed(project: Project) -> None:
    (project.folder / ".npmrc").write_text("//registry.example/:_authToken=TheSecret\nforeground-scripts=true\n")
    scripts = {"postinstall": "echo ran > postinstall", "prepare": "echo ran > prepare"}
    project.write({}, {}, scripts=scripts)
    built = project.init("space")
    space = project.space("space")
    assert (space / "postinstall").exists()
    assert not (space / "prepare").exists(), "that builds the project"
    assert "no file of the project was there for its script 'postinstall'" in built.stderr
    assert not (space / ".npmrc").exists()
    assert not [path for path in project.holo.home.rglob("*") if path.is_file() and b"TheSecret" in path.read_bytes()]
    (project.folder / ".npmrc").write_text("ignore-scripts = true\n")
    project.init("other")
    assert not (project.space("other") / "postinstall").exists()


# -- the node_modules of a project ------------------------------------------------------------------------


MODULE = "import number from 'is-number'; console.log(number('5'), import.meta.resolve('is-number'))"


@pytest.fixture
def esm(project: Project) -> Project:
    """One whose scripts import, which NODE_PATH is not for."""
    project.write(NEEDED, LOCKED, type="module")
    (project.folder / "src").mkdir()
    (project.folder / "src" / "main.js").write_text(MODULE)
    return project


def imported(project: Project) -> str:
    return f"true file://{project.folder}/node_modules/is-number/index.js\n"


@needs_npm
def test_a_space_that_is_a_node_modules(esm: Project) -> None:
    place = esm.folder / "node_modules"
    esm.holo("init", "--space", "mods", "package-lock.json", "--to", "node_modules", cwd=esm.folder)
    assert {path.name for path in place.iterdir()} == {".bin", ".package-lock.json", "acorn", "is-number"}
    plain = subprocess.run(["node", "src/main.js"], cwd=esm.folder, capture_output=True, text=True, check=True)
    assert plain.stdout == imported(esm), "without any activation"
    subprocess.run(["npm", "ls"], cwd=esm.folder, capture_output=True, check=True)
    shutil.rmtree(place / "is-number")
    (esm.folder / "requirements.txt").write_text("no such package\n")
    esm.holo("init", "--space", "again", "--to", "../again/node_modules", cwd=esm.folder)
    assert (esm.holo.root / "again" / "node_modules" / "is-number").exists(), "whatever else is beside the lock"
    (esm.folder / "requirements.txt").unlink()
    esm.holo("restore", cwd=esm.folder)
    assert esm.holo("run", "--", "node", "src/main.js", cwd=esm.folder).stdout == imported(esm)
    elsewhere = esm.holo("run", "--space", "mods", "--", "node", "-p", "require('is-number')('5')")
    assert (elsewhere.stdout, elsewhere.stderr) == ("true\n", "")
    esm.holo("delete", cwd=esm.folder)
    assert not place.exists()


@needs_npm
def test_a_node_modules_without_packages(project: Project) -> None:
    project.holo("init", "--space", "none", "package-lock.json", "--to", "node_modules", cwd=project.folder)
    place = project.folder / "node_modules"
    assert {path.name for path in place.iterdir()} <= {".package-lock.json"}
    found = project.holo("variables", "--space", "none", "--json").json()
    assert found["NODE_PATH"] == str(place)


@needs_npm
def test_run_provides_the_node_modules_of_the_project(esm: Project) -> None:
    run = ("run", "--", "node", "main.js")
    first = esm.holo(*run, cwd=esm.folder / "src")
    assert first.stdout == imported(esm)
    (space,) = esm.holo("list", "--json").json()["spaces"]
    place = esm.folder / "node_modules"
    assert space["path"] == str(place)
    assert f"space {space['name']} is {place}, where Node.js looks for packages" in first.stderr
    again = esm.holo(*run, cwd=esm.folder / "src")
    assert (again.stdout, again.stderr) == (imported(esm), "")
    named = esm.holo("run", "--blueprint", "package-lock.json", "--", "acorn", "--help", cwd=esm.folder)
    assert named.stdout.startswith("usage: acorn")
    assert named.stderr == ""
    esm.write({"acorn": "8.14.0"}, {"node_modules/acorn": LOCKED["node_modules/acorn"]})
    changed = esm.holo("run", "--", "ls", "node_modules", cwd=esm.folder)
    assert changed.stdout == "acorn\n"
    assert "updating space" in changed.stderr
    assert len(esm.holo("list", "--json").json()["spaces"]) == 1


@needs_npm
def test_a_throw_away_node_modules(esm: Project) -> None:
    run = ("run", "--ephemeral", "--", "node", "src/main.js")
    assert esm.holo(*run, cwd=esm.folder).stdout == imported(esm)
    assert not (esm.folder / "node_modules").exists()
    esm.holo("init", "--space", "mods", "package-lock.json", "--to", "node_modules", cwd=esm.folder)
    shutil.rmtree(esm.folder / "node_modules" / "is-number")
    assert esm.holo(*run, cwd=esm.folder).stdout == imported(esm)
    assert not (esm.folder / "node_modules" / "is-number").exists()


@needs_npm
@pytest.mark.parametrize("kind", ["folder", "symlink", "file"])
def test_a_node_modules_of_the_user_is_left_alone(esm: Project, kind: str) -> None:
    place = esm.folder / "node_modules"
    if kind == "folder":
        (place / "own").mkdir(parents=True)
    elif kind == "symlink":
        (esm.folder / "other").mkdir()
        place.symlink_to("other")
    else:
        place.write_text("own")
    ran = esm.holo("run", "--", "node", "-p", "require('is-number')('5')", cwd=esm.folder)
    assert ran.stdout == "true\n"
    assert f"`import` looks for them in {place}, which is something else" in ran.stderr
    assert sorted(path.name for path in esm.folder.glob("*/*")) == ["main.js", "own"][: 2 if kind == "folder" else 1]
    assert place.is_symlink() == (kind == "symlink")


@needs_npm
def test_space_outside_the_project_warns_about_imports(esm: Project) -> None:
    esm.init("lint")
    run = ("run", "--space", "lint", "--", "acorn", "--help")
    place = esm.folder / "node_modules"
    said = esm.holo(*run).stderr
    assert f"`holo init --space NAME --to {place} {esm.lock}` makes that" in said
    place.symlink_to(esm.space("lint") / "node_modules")
    assert esm.holo(*run).stderr == "", "now it is imported"
    place.unlink()
    esm.holo(*said[said.index("init --space NAME") : said.index("` makes")].split())
    assert esm.holo("run", "--", "node", "src/main.js", cwd=esm.folder).stdout == imported(esm)


@needs_npm
def test_a_project_in_a_space(esm: Project) -> None:
    """Where no other space can be."""
    esm.holo("init", "--space", "job", esm.folder, "--to", esm.holo.root / "job")
    ran = esm.holo("run", "--", "node", "-p", "require('is-number')('5')", cwd=esm.holo.root / "job")
    assert ran.stdout == "true\n"


@needs_npm
def test_node_space_does_not_hide_a_python_blueprint(esm: Project) -> None:
    esm.holo("run", "--", "true", cwd=esm.folder)
    (esm.folder / "requirements.txt").write_text("no such package\n")
    assert f"{esm.folder / 'requirements.txt'}" in esm.holo("run", "--", "true", cwd=esm.folder, code=2).stderr
    named = esm.holo("run", "--blueprint", "package-lock.json", "--", "node", "src/main.js", cwd=esm.folder)
    assert (named.stdout, named.stderr) == (imported(esm), "")


@needs_npm
def test_vite_builds_a_project(project: Project) -> None:
    """Its configuration imports vite, and vite imports that."""
    package = {"name": "web", "type": "module", "dependencies": NEEDED, "devDependencies": {"vite": "5.4.19"}}
    (project.folder / "package.json").write_text(json.dumps(package))
    project.lock.unlink()
    subprocess.run(["npm", "install", "--package-lock-only", "--no-audit"], cwd=project.folder, check=True)
    config = "import { defineConfig } from 'vite'; export default defineConfig({ build: { minify: true } })\n"
    (project.folder / "vite.config.js").write_text(config)
    (project.folder / "index.html").write_text('<script type="module" src="/main.js"></script>\n')
    (project.folder / "main.js").write_text("import number from 'is-number'; document.title = number('5')\n")
    built = project.holo("run", "--", "vite", "build", cwd=project.folder)
    assert "where Node.js looks for packages" in built.stderr
    assert list((project.folder / "dist" / "assets").glob("index-*.js"))
    project.holo("delete", cwd=project.folder)
    assert not (project.folder / "node_modules").exists()
    project.holo("run", "--ephemeral", "--", "vite", "build", "--outDir", "again", cwd=project.folder)
    assert list((project.folder / "again" / "assets").glob("index-*.js"))


# -- failures ---------------------------------------------------------------------------------------------


@needs_npm
@pytest.mark.parametrize(
    ("wanted", "packages", "says"),
    [
        ({"acorn": "8.14.0"}, {}, "in sync"),
        ({"acorn": "8.14.0"}, {"node_modules/acorn": {"version": "8.14.0", "integrity": "sha512-AAAA"}}, "EINTEGRITY"),
    ],
)
def test_npm_failure_is_one_error(
    project: Project, wanted: dict[str, str], packages: dict[str, Any], says: str
) -> None:
    project.write(wanted, packages)
    refused = project.init("space", code=1).stderr
    assert says in refused
    assert "error: the build failed: npm failed with exit code 1" in refused
    assert project.holo.has_made_nothing()


@needs_npm
def test_ctrl_c_ends_build_and_npm(project: Project) -> None:
    """As a terminal sends it: to the whole process group."""
    (project.folder / ".npmrc").write_text("foreground-scripts=true\n")
    project.write({}, {}, scripts={"postinstall": "echo started; sleep 600; :"})
    said = interrupted_at("started", start(project.holo, project.lock))
    assert "Traceback" not in said
    assert project.holo.has_made_nothing()


@needs_npm
def test_sigterm_ends_build_and_npm(project: Project) -> None:
    """Also what npm has started: only holo is told, as by the end of a job of CI."""
    (project.folder / ".npmrc").write_text("foreground-scripts=true\n")
    project.write({}, {}, scripts={"postinstall": "echo started; sleep 600; :"})
    said = interrupted_at("started", start(project.holo, project.lock), alone=signal.SIGTERM)
    assert said.splitlines()[-1].startswith("error: interrupted;")
    assert project.holo.has_made_nothing()


@pytest.mark.torture
@needs_npm
def test_killed_build_is_completed_by_the_next(project: Project, torture: bool, faults: Note) -> None:
    count = 40 if torture else 2
    faults(2, "kill -9 of a build by py-rattler or npm", count)
    project.write(NEEDED, LOCKED, scripts={"postinstall": "acorn --silent package.json || echo ran > ran"})

    def check() -> None:
        space = project.space("space")
        assert (space / "ran").exists()
        assert {path.name for path in (space / "node_modules").iterdir()} >= {"acorn", "is-number", ".bin"}

    killed_at_any_moment(project.holo, project.lock, count, check)


# -- what the files say -----------------------------------------------------------------------------------


class Given(Inputs):
    """A project that is not on any disk, and what is on PATH."""

    def __init__(self, files: dict[str, str], **environ: str) -> None:
        super().__init__({"PATH": os.environ["PATH"], "HOME": "/home/of/nobody", **environ})
        self._files = files

    def optional(self, path: str) -> bytes | None:
        text = self._files.get(os.path.basename(path)) if path.startswith("/project/") else None
        return text.encode() if text is not None else None


def canonical(files: dict[str, str], **environ: str) -> dict[str, object]:
    return npm.canonical(Blueprint("/project/package-lock.json", "npm"), Given(files, **environ), BuildOptions())


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are what matters here, and asking takes a process each time."""
    asked = npm._node
    monkeypatch.setattr(npm, "_node", lambda folder, inputs: "v20" if folder == "/project" else asked(folder, inputs))


def key(package: object, lock: object, npmrc: str | None = None, **environ: str) -> str:
    files = {"package.json": json.dumps(package), "package-lock.json": json.dumps(lock)}
    return key_of(canonical(files | ({".npmrc": npmrc} if npmrc is not None else {}), **environ))


_names = st.text("abcxyz-", min_size=1, max_size=6)
_needed = st.dictionaries(_names, st.sampled_from(["1.0.0", "^2", ">=3 <4"]), max_size=4)
_entries = st.fixed_dictionaries({"version": st.sampled_from(["1.0.0", "2.1.3"]), "integrity": _names})
_packages = st.dictionaries(_names.map("node_modules/{}".format), _entries, max_size=4)


def shuffled(value: Any, random: Any) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name], random) for name in random.sample([*value], len(value))}
    return value


@settings(deadline=None)
@given(needed=_needed, packages=_packages, random=st.randoms(use_true_random=False))
def test_spelling_does_not_change_the_key(needed: dict[str, str], packages: dict[str, Any], random: Any) -> None:
    scripts = {"postinstall": "x"}
    expected = key(package(needed, scripts=scripts), locked(needed, packages))
    changed = package(needed, scripts=scripts | {"test": "y", "prepare": "z"}, description="more", type="module")
    assert key(shuffled(changed, random), shuffled(locked(needed, packages), random)) == expected
    files = {
        "package.json": json.dumps(package(needed, scripts=scripts), indent=4),
        "package-lock.json": json.dumps(locked(needed, packages), indent=1),
        ".npmrc": "# a comment\n//registry.example/:_authToken=x\n",
    }
    assert key_of(canonical(files)) == expected
    released = package(needed, scripts=scripts) | {"version": "2.0.0"}
    lock = locked(needed, packages) | {"version": "2.0.0"}
    lock["packages"][""]["version"] = "2.0.0"
    assert key(released, lock) == expected, "the project's own version"


@settings(deadline=None)
@given(needed=_needed, packages=_packages)
def test_content_changes_the_key(needed: dict[str, str], packages: dict[str, Any]) -> None:
    wanted, lock = package(needed), locked(needed, packages)
    keys = [
        key(wanted, lock),
        key(package(needed | {"more": "1"}), lock),
        key(package(needed, overrides={"a": "1"}), lock),
        key(package(needed, scripts={"postinstall": "x"}), lock),
        key(wanted, locked(needed, packages | {"node_modules/more": {"version": "1.0.0"}})),
        key(wanted, lock, npmrc="omit[] = dev"),
        key(wanted, lock, npmrc="omit[]=dev\nomit[]=optional"),
        key(wanted, lock, npm_config_omit="dev"),
        key(wanted, lock, NODE_ENV="production"),
    ]
    keys += [
        key(wanted, locked(needed, packages | {name: entry | {"integrity": "other"}}))
        for name, entry in packages.items()
    ]
    assert len(set(keys)) == len(keys)


def test_canonical_form_holds_no_secrets() -> None:
    files = {"package.json": "{}", "package-lock.json": '{"packages": {}}', ".npmrc": "_password=TheSecret\nomit=dev"}
    found = json.dumps(canonical(files, npm_config__auth="TheSecret"))
    assert "TheSecret" not in found
    assert "omit=dev" in found


@pytest.mark.parametrize(
    ("package", "lock", "says"),
    [
        ("{", "{}", "package.json is not valid JSON"),
        ("{}", "[]", "package-lock.json is not a JSON object"),
        ("{}", "[" * 100_000, "package-lock.json is not valid JSON"),
        ("{}", '{"lockfileVersion": 1, "dependencies": {}}', "npm install --package-lock-only"),
        ('{"workspaces": ["packages/*"]}', '{"packages": {}}', "'workspaces'"),
        ("{}", '{"packages": {"packages/a": {}}}', "'packages/a' is a folder or a file"),
        ("{}", '{"packages": {"node_modules/a": {"resolved": "../a", "link": true}}}', "'node_modules/a' is a folder"),
        (
            "{}",
            '{"packages": {"node_modules/a": {"resolved": "file:a.tgz"}}}',
            "'node_modules/a' is a folder or a file",
        ),
    ],
)
def test_wrong_lock_is_one_error(package: str, lock: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        canonical({"package.json": package, "package-lock.json": lock})
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_lock_without_package_json() -> None:
    with pytest.raises(NotFound, match=r"/project/package\.json"):
        canonical({"package-lock.json": '{"packages": {}}'})


def test_named_blueprint_is_read_first() -> None:
    with pytest.raises(UsageError, match=r"package-lock\.json is not valid JSON"):
        canonical({"package-lock.json": "{"})


@needs_npm
def test_node_version_changes_the_key(tmp_path: Path) -> None:
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    assert npm._node(str(tmp_path), Inputs()) == version.partition(".")[0]
    with pytest.raises(ToolMissing, match="node is not on PATH"):
        npm._node(str(tmp_path), Inputs({"PATH": str(tmp_path)}))
