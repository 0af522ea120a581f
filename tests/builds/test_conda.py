"""Blueprints for conda, built from channels made here: by py-rattler, and by whatever else is on PATH."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from holo.blueprints import conda, conda_file
from holo.blueprints.blueprint import Blueprint
from holo.blueprints.builder import BuildOptions, ToolMissing
from holo.blueprints.canonical import key_of
from holo.blueprints.inputs import Inputs
from holo.blueprints.uv import find_uv
from holo.errors import UsageError
from holo.hololib.locks import InUseError, locked
from support.builds import interrupted_at, killed_at_any_moment, start
from support.channels import PLACEHOLDER, Channel, File, running_pip, running_python, script
from support.cli import Result
from support.forks import ForkedHolo, Forks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the packages hold POSIX programs")

Note = Callable[[int, str, int], None]


class Project:
    """A folder with a conda.yaml, and what building it needs."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.folder = root / "project"
        self.folder.mkdir()
        self.cache = root / "cache"
        self.file = self.folder / "conda.yaml"
        self.environ = {"RATTLER_CACHE_DIR": str(self.cache), "PATH": os.defpath}
        self.holo = ForkedHolo(root, forks)
        self._root = root

    def channel(self, name: str) -> Channel:
        return Channel(self._root / name)

    def write(self, **content: Any) -> None:
        self.file.write_text(yaml.safe_dump(content))

    def init(self, space: str, code: int = 0, **more: Any) -> Result:
        return self.holo("init", "--space", space, str(self.file), env=self.environ, code=code, **more)

    def run(self, space: str, *command: str) -> str:
        return self.holo("run", "--space", space, "--", *command, env=self.environ).stdout

    def space(self, name: str) -> Path:
        return self.holo.path_of(name)


@pytest.fixture
def project(tmp_path: Path, forks: Forks) -> Project:
    return Project(tmp_path, forks)


@pytest.fixture
def hello(project: Project) -> Channel:
    """A channel with a package of everything, and one that it needs."""
    channel = project.channel("channel")
    files = {
        "bin/hello": script(f"#!/bin/sh\necho hello from {PLACEHOLDER}\n"),
        "lib/libhello.so": File(b"\x7fELF\0" + PLACEHOLDER.encode() + b"/share/hello\0end", holds_prefix="binary"),
        "bin/.hello-post-link.sh": script('#!/bin/sh\necho linked > "$PREFIX/linked"\n'),
        "share/hello/plain": File(b"plain\n"),
        "etc/conda/activate.d/hello.sh": File(b'export HELLO_HOME="$CONDA_PREFIX/share/hello" NEWER=1\n'),
    }
    channel.add("hello", files, depends=("needed >=2",))
    channel.add("needed", {"share/needed": File(b"needed")}, version="2.1", compressed="tar.bz2")
    return channel


# -- spaces -----------------------------------------------------------------------------------------------


def test_space_is_built_from_a_channel(project: Project, hello: Channel) -> None:
    project.write(name="ignored", channels=[hello.url], dependencies=["hello=1.0"])
    built = project.init("one")
    assert "hello-1.0-0.conda" in built.stderr, "the tool's own words are shown"
    assert "installing hello" not in project.init("two").stderr, "it is not built again"
    for name in ("one", "two"):
        space = project.space(name)
        assert project.run(name, "hello") == f"hello from {space}\n"
        binary = (space / "lib/libhello.so").read_bytes()
        assert binary.startswith(b"\x7fELF\0" + os.fsencode(space) + b"/share/hello\0")
        assert len(binary) == len(PLACEHOLDER) + len(b"\x7fELF\0/share/hello\0end")
        assert (space / "share/needed").read_bytes() == b"needed"
        assert (space / "linked").read_text() == "linked\n", "by the package's own script"
        assert not [path for path in space.rglob("*") if path.is_file() and b".build-" in path.read_bytes()]
    assert not [*project.holo.holotree.glob(".build-*")]


@pytest.mark.parametrize("first", ["old", "new"])
def test_first_channel_takes_precedence(project: Project, first: str) -> None:
    """Even if the second has a newer version."""
    for name, version in {"old": "1.0", "new": "2.0"}.items():
        project.channel(name).add("tool", {"share/from": File(name.encode())}, version=version)
    order = [first, "new" if first == "old" else "old"]
    project.write(channels=[f"../{name}" for name in order], dependencies=["tool"])
    project.init("space")
    assert (project.space("space") / "share/from").read_text() == first


def test_activation_scripts_set_the_environment(project: Project, hello: Channel) -> None:
    command = "sh -c 'echo \"$HELLO_HOME $OWN $NEWER\" > seen; hello >> seen'"
    project.environ |= {"NEWER": "caller", "CALLER": "caller"}
    project.write(
        channels=[hello.url], dependencies=["hello"], variables={"OWN": "it's", "NUMBER": 1}, rccPostInstall=[command]
    )
    project.init("space")
    space = project.space("space")
    assert (space / "seen").read_text() == f"{space}/share/hello it's 1\nhello from {space}\n"
    kept = json.loads((space / "conda-meta/state").read_text())["env_vars"]
    assert kept == {"HELLO_HOME": f"{space}/share/hello", "NEWER": "1", "OWN": "it's", "NUMBER": "1"}
    assert project.run("space", "sh", "-c", 'echo "$HELLO_HOME $OWN"') == f"{space}/share/hello it's\n"


def test_activation_script_that_exits_is_an_error(project: Project) -> None:
    channel = project.channel("channel")
    channel.add("ends", {"etc/conda/activate.d/ends.sh": File(b"exit 0\n")})
    project.write(channels=[channel.url], dependencies=["ends"])
    assert "a script in etc/conda/activate.d ends the shell" in project.init("space", code=1).stderr
    assert project.holo.has_made_nothing()


def test_activation_script_may_set_nothing(project: Project) -> None:
    """Then nothing is kept, least of all the environment that the script saw."""
    channel = project.channel("channel")
    channel.add("silent", {"etc/conda/activate.d/silent.sh": File(b": nothing\n")})
    project.write(channels=[channel.url], dependencies=["silent"])
    project.init("space")
    space = project.space("space")
    assert not (space / "conda-meta/state").exists()
    assert not [*space.glob(".variables*")]


def test_the_locale_of_the_caller_is_not_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, as in a container, Python sets LC_CTYPE in its own environment: PEP 538."""
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    test_activation_script_may_set_nothing(project)


@pytest.mark.parametrize("place", ["ada:sesame@{}", "{}/t/sesame"])
def test_credentials_are_not_in_what_is_recorded(project: Project, hello: Channel, place: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(WithoutToken, directory=str(hello.root)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        channel = f"http://{place.format(f'127.0.0.1:{server.server_port}')}"
        project.write(channels=[channel], dependencies=["hello"])
        project.init("space")
    finally:
        server.shutdown()
        server.server_close()
    texts = {path.name: path.read_bytes() for path in project.space("space").rglob("*") if path.is_file()}
    assert b"http://127.0.0.1" in texts["hello-1.0-0.json"]
    assert [name for name, text in texts.items() if b"sesame" in text] == []
    assert json.loads(texts["hello-1.0-0.json"])["name"] == "hello"


class WithoutToken(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix("/t/sesame"))

    def log_message(self, *_: object) -> None:
        pass


def test_command_cannot_change_the_package_cache(project: Project, hello: Channel) -> None:
    command = "sh -c 'echo changed >> share/hello/plain; chmod 600 share/needed'"
    project.write(channels=[hello.url], dependencies=["hello"], rccPostInstall=[command])
    project.init("space")
    assert (project.space("space") / "share/hello/plain").read_text() == "plain\nchanged\n"
    (cached,) = project.cache.rglob("share/hello/plain")
    assert cached.read_text() == "plain\n"
    (cached,) = project.cache.rglob("share/needed")
    assert stat.S_IMODE(cached.stat().st_mode) == 0o644


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    """A channel with the interpreter that runs the tests as the package `python`, its pip, and the real uv."""
    channel = Channel(tmp_path_factory.mktemp("channels") / "python")
    channel.add("python", running_python(), version="{}.{}.{}".format(*sys.version_info), noarch=None)
    entry_point = "pip = pip._internal.cli.main:main"
    channel.add("pip", running_pip(), noarch="python", depends=("python",), entry_points=(entry_point,))
    channel.add("uv", {"bin/uv": script(f'#!/bin/sh\nexec {find_uv()} "$@"\n')})
    return channel


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_pip(project: Project, python: Channel, installer: str) -> None:
    """With packages of a real index."""
    (project.folder / "more.txt").write_text("# comment\nsix == 1.17.0\n")
    project.write(channels=[python.url], dependencies=["python", installer, {"pip": ["-r more.txt", "iniconfig"]}])
    project.environ |= {"PYTHONUSERBASE": str(project.folder), "PIP_USER": "1", "VIRTUAL_ENV": str(project.folder)}
    project.init("space")
    space = project.space("space")
    code = "import six, iniconfig; print(six.__version__, six.__file__, iniconfig.__file__)"
    version, *files = project.run("space", "python", "-I", "-c", code).split()
    assert version == "1.17.0"
    assert all(Path(file).is_relative_to(space) for file in files)
    assert len([*space.glob("lib/python*/site-packages/__pycache__/six.*.pyc")]) == 1, "it is compiled"
    assert not (space / ".requirements.txt").exists()
    if installer == "pip":
        assert str(space) in project.run("space", "pip", "--version")


def test_settings_of_pip_that_lead_elsewhere(project: Project, python: Channel) -> None:
    """Those that can be overridden are: in files, and in variables."""
    config = project.folder / "pip.conf"
    config.write_text("[global]\nuser = true\ndry-run = true\nrequire-virtualenv = true\n")
    project.write(channels=[python.url], dependencies=["python", "pip", {"pip": ["iniconfig"]}])
    elsewhere = str(project.folder / "elsewhere")
    project.environ |= {"PIP_CONFIG_FILE": str(config), "PYTHONPYCACHEPREFIX": elsewhere, "PYTHONOPTIMIZE": "2"}
    project.environ |= {f"PIP_{name}": elsewhere for name in ("TARGET", "PREFIX", "ROOT", "PYTHON")}
    project.init("space")
    space = project.space("space")
    assert len([*space.glob("lib/python*/site-packages/iniconfig/__init__.py")]) == 1
    compiled = [path.name for path in space.glob("lib/python*/site-packages/iniconfig/__pycache__/__init__.*")]
    assert compiled == [f"__init__.{sys.implementation.cache_tag}.pyc"]
    there = [path for path in Path(elsewhere).rglob("*") if "/.build-" in str(path) or path.name == "iniconfig"]
    assert there == [], "but the bytecode of holo itself"


@pytest.mark.parametrize("option", ["target", "prefix", "root"])
@pytest.mark.parametrize("section", ["global", "install"])
def test_pip_is_led_elsewhere_by_a_file(project: Project, python: Channel, option: str, section: str) -> None:
    config = project.folder / "pip.conf"
    config.write_text(f"[{section}]\n{option} = {project.folder}/vendor\n")
    project.environ["PIP_CONFIG_FILE"] = str(config)
    project.write(channels=[python.url], dependencies=["python", "pip", {"pip": ["iniconfig"]}])
    said = project.init("space", code=2).stderr
    assert f"packages installed elsewhere: {section}.{option}='{project.folder}/vendor'\n" in said
    assert "`pip config debug`" in said
    assert project.holo.has_made_nothing()
    assert not (project.folder / "vendor").exists()


def test_uv_is_led_elsewhere_by_a_file(project: Project, python: Channel) -> None:
    (project.folder / "uv.toml").write_text('[pip]\ntarget = "vendor"\n')
    project.write(channels=[python.url], dependencies=["python", "uv", {"pip": ["iniconfig"]}])
    assert f"{project.folder}/uv.toml: `target = " in project.init("space", code=2).stderr
    assert project.holo.has_made_nothing()


# -- failures ---------------------------------------------------------------------------------------------


def test_failing_post_install_command_is_one_error(project: Project, hello: Channel) -> None:
    project.write(channels=[hello.url], dependencies=["hello"], rccPostInstall=["sh -c 'echo about to fail; exit 3'"])
    failed = project.init("space", code=1)
    assert "about to fail" in failed.stderr
    assert """'sh -c 'echo about to fail; exit 3'" failed with exit code 3""".lstrip("'") in failed.stderr
    log = Path(failed.stderr.rpartition("Its log: ")[2].strip())
    assert "about to fail" in log.read_text()
    assert project.holo.has_made_nothing()


def test_build_does_not_wait_for_background_processes(project: Project, hello: Channel) -> None:
    """But it may still write to the stage, so the next build waits until it is gone."""
    pid = project.folder / "pid"
    command = f"sh -c 'sleep 100 & echo $! > {pid}; echo last words; exit 3'"
    project.write(channels=[hello.url], dependencies=["hello"], rccPostInstall=[command])
    failed = project.init("space", code=1, timeout=30)
    assert "last words" in failed.stderr
    assert "failed with exit code 3" in failed.stderr
    (lock,) = (project.holo.library / "builds").glob("*.lock")
    try:
        with pytest.raises(InUseError), locked(str(lock), "a build", exclusive=True, wait=False):
            pass
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    project.init("space", code=1)
    os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("dependencies", "commands", "says"),
    [
        (["hello", "nosuch"], [], "No candidates were found for nosuch"),
        (["hello", "nosuch"], [], "error: the build failed: py-rattler failed with exit code 1"),
        (["hello>1"], [], "No candidates were found for hello >1"),
        (["hello"], ["nosuch --now"], "rccPostInstall: there is no command 'nosuch'"),
        (["hello", {"pip": ["six"]}], [], "No candidates were found for pip"),
        (["hello", "uv", {"pip": ["six"]}], [], "packages for pip, but no python in the environment"),
    ],
)
def test_impossible_environment_is_one_error(
    project: Project, hello: Channel, dependencies: list[Any], commands: list[str], says: str
) -> None:
    hello.add("uv", {"bin/uv": script("#!/bin/sh\nexit 1\n")})
    project.write(channels=[hello.url], dependencies=dependencies, rccPostInstall=commands)
    assert says in project.init("space", code=1).stderr
    assert project.holo.has_made_nothing()


def test_tool_that_installs_nothing_is_an_error(project: Project, tmp_path: Path) -> None:
    """As by a setting of its that nobody knows."""
    (tmp_path / "conda").write_text(STAND_IN)
    (tmp_path / "conda").chmod(0o755)
    project.environ |= {"PATH": f"{tmp_path}:{os.defpath}", "RECORD": os.devnull}
    project.write(channels=["a"], dependencies=["y", "x >=1", "__glibc", "z*"])
    assert "this is not in the environment: x\n" in project.init("space", code=1).stderr
    assert project.holo.has_made_nothing()


def test_ctrl_c_ends_build_and_tools(project: Project, hello: Channel) -> None:
    """As a terminal sends it: to the whole process group."""
    project.write(channels=[hello.url], dependencies=["hello"], rccPostInstall=["sh -c 'echo started; sleep 600; :'"])
    said = interrupted_at("started", start(project.holo, project.file, project.environ))
    assert "Traceback" not in said
    assert project.holo.has_made_nothing()


@pytest.mark.torture
def test_killed_build_is_completed_by_the_next(project: Project, hello: Channel, torture: bool, faults: Note) -> None:
    count = 40 if torture else 2
    faults(2, "kill -9 of a build by py-rattler or npm", count)
    project.write(channels=[hello.url], dependencies=["hello"], rccPostInstall=["sh -c 'hello > said'"])

    def check() -> None:
        space = project.space("space")
        assert (space / "said").read_text() == project.run("space", "hello") == f"hello from {space}\n"

    killed_at_any_moment(project.holo, project.file, count, check, **project.environ)


# -- other tools ------------------------------------------------------------------------------------------

STAND_IN = """#!/bin/sh
for argument in "$0" "$@"; do echo "$argument"; done > "$RECORD"
env >> "$RECORD"
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/conda-meta" "$2/bin"
touch "$2/conda-meta/y-2-0.json" "$2/conda-meta/z-1-0.json"
"""


@pytest.mark.parametrize(
    ("there", "used"),
    [
        (["micromamba", "mamba", "conda"], "micromamba"),
        (["mamba", "conda"], "mamba"),
        (["conda"], "conda"),
    ],
)
def test_tool_on_path_builds(project: Project, tmp_path: Path, there: list[str], used: str) -> None:
    """The command line, not the tool: none of them can be had from a package index."""
    for name in there:
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    record = tmp_path / "record"
    project.environ |= {"PATH": f"{tmp_path}:{os.defpath}", "RECORD": str(record)}
    project.write(channels=["b", "a"], dependencies=["z =1", "a::y>=2,<3"])
    project.init("space")
    lines = record.read_text().splitlines()
    start = [str(tmp_path / used), "create", "--yes", "--prefix"]
    assert lines[:4] == start
    assert Path(lines[4]).name.startswith(".build-")
    defaults = ["--no-default-packages"] if used == "conda" else []
    rest = [*defaults, "--override-channels", "--channel", "b", "--channel", "a", "a::y>=2,<3", "z =1"]
    assert lines[5 : 5 + len(rest)] == rest
    variables = ["ALWAYS_COPY=true", "CHANNEL_PRIORITY=strict", "REGISTER_ENVS=false", "SHORTCUTS=false"]
    variables += ["DRY_RUN=false", "DOWNLOAD_ONLY=false"]
    assert {f"{tool}_{variable}" for tool in ("CONDA", "MAMBA") for variable in variables} <= set(lines)


def test_missing_tool_is_one_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project.folder))
    monkeypatch.setattr(conda, "find_spec", lambda _: None)
    found = conda_file.parse("{channels: [a], dependencies: [b]}", "conda.yaml")
    with pytest.raises(ToolMissing, match="micromamba, mamba, conda or py-rattler"):
        conda._create(found, "/stage")


# -- what the file says -----------------------------------------------------------------------------------


class Given(Inputs):
    """A blueprint that is not on any disk."""

    def __init__(self, text: str, **environ: str) -> None:
        super().__init__(environ)
        self._text = text

    def text(self, path: str) -> str:
        return self._text


def key(text: str, options: BuildOptions | None = None, **environ: str) -> str:
    blueprint = Blueprint("/project/conda.yaml", "conda")
    return key_of(conda.canonical(blueprint, Given(text, **environ), options or BuildOptions()))


_words = st.text("abcxyz019-_.", min_size=1, max_size=8).filter(lambda word: word[0] not in "-.")
_specs = st.builds(
    lambda name, version: f"{name}{version}", _words, st.sampled_from(["", "=3.10", " >=1,<2", "=1.0=h_0"])
)
_texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"]), max_size=12)
_documents = st.fixed_dictionaries(
    {
        "channels": st.lists(_words, min_size=1, unique=True),
        "dependencies": st.lists(_specs, min_size=1, unique=True),
    },
    optional={
        "variables": st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), _texts, min_size=1),
        "rccPostInstall": st.lists(_words.map(lambda word: f"run '{word}  #' # x"), min_size=1),
    },
)


def lines(document: dict[str, Any], comment: str) -> str:
    text = yaml.safe_dump(document, allow_unicode=True, width=10_000)
    return "\n".join(f"{line}\n  {comment}" for line in text.splitlines())


@settings(max_examples=50, deadline=None)
@given(
    document=_documents, pip=st.lists(st.text("abc", min_size=1), unique=True), random=st.randoms(use_true_random=False)
)
def test_spelling_does_not_change_the_key(document: dict[str, Any], pip: list[str], random: Any) -> None:
    document["dependencies"] += [{"pip": pip}] if pip else []
    expected = key(yaml.safe_dump(document))
    assert key(json.dumps(document)) == expected
    assert key(yaml.safe_dump(document, default_flow_style=True, width=20, indent=6)) == expected
    assert key(lines(document, "# a comment")) == expected
    shuffled = dict(random.sample([*document.items()], len(document)))
    shuffled["dependencies"] = random.sample(document["dependencies"], len(document["dependencies"]))
    shuffled["name"], shuffled["prefix"] = "anything", "/any/where"
    assert key(yaml.safe_dump(shuffled, sort_keys=False)) == expected
    spaced = [f"  {item} ".replace(" ", "  ") if isinstance(item, str) else item for item in document["dependencies"]]
    assert key(yaml.safe_dump(document | {"dependencies": spaced})) == expected


@settings(max_examples=50, deadline=None)
@given(document=_documents, more=_specs)
def test_content_changes_the_key(document: dict[str, Any], more: str) -> None:
    dependencies = document["dependencies"]
    changes: list[dict[str, Any]] = [
        {},
        {"dependencies": [*dependencies, {"pip": ["more"]}]},
        {"dependencies": [*dependencies, {"pip": ["more==1"]}]},
        {"channels": ["first", *document["channels"]]},
        {"channels": [*document["channels"], "last-one"]},
        {"rccPostInstall": [*document.get("rccPostInstall", []), "more"]},
        {"variables": document.get("variables", {}) | {"more": "1"}},
    ]
    if more not in dependencies:
        changes.append({"dependencies": [*dependencies, more]})
    keys = [key(json.dumps(document | change)) for change in changes]
    keys.append(key(json.dumps(document), CONDA_OVERRIDE_GLIBC="2.17"))
    keys.append(key(json.dumps(document | changes[1]), PIP_INDEX_URL="https://host/simple"))
    assert key(json.dumps(document), PIP_INDEX_URL="https://host/simple") == keys[0], "pip has nothing to do"
    keys.append(key(json.dumps(document), BuildOptions(compile=False)))
    assert len(set(keys)) == len(keys)


def test_settings_of_tools_change_the_key(tmp_path: Path) -> None:
    limits = tmp_path / "limits.txt"
    limits.write_text("a<1\n")
    document = "{channels: [x], dependencies: [python, %s, {pip: [a]}]}"
    environs: list[dict[str, str]] = [
        {},
        {"CONDA_SUBDIR": "linux-64"},
        {"CONDA_OVERRIDE_CUDA": "12"},
        {"CONDA_OVERRIDE_ROCM": "6"},
        {"PIP_INDEX_URL": "https://host.invalid"},
        {"PIP_CONSTRAINT": str(limits)},
    ]
    keys = [key(document % "pip", **environ) for environ in environs]
    limits.write_text("a<2\n")
    keys.append(key(document % "pip", **environs[-1]))
    assert key(document % "pip", UV_DEFAULT_INDEX="https://host.invalid") == keys[0]
    keys += [key(document % "uv"), key(document % "uv", UV_DEFAULT_INDEX="https://host.invalid")]
    assert len(set(keys)) == len(keys)


def test_tokens_do_not_change_the_key() -> None:
    document = "{channels: ['https://%s/chan'], dependencies: [x]}"
    plain = key(document % "host")
    assert key(document % "host/t/secret") == plain
    assert key(document % "one:secret@host") == plain
    assert "secret" not in json.dumps(
        conda.canonical(
            Blueprint("/project/conda.yaml", "conda"),
            Given(document % "one:secret@host/t/secret"),
            BuildOptions(),
        )
    )


def test_files_of_rcc_are_understood() -> None:
    """The example of its documentation."""
    text = """\
channels:
- conda-forge

dependencies:
- python=3.9.13
- nodejs=16.14.2
- pip=22.1.2
- pip:
  - robotframework-browser==12.3.0
  - rpaframework==15.6.0

rccPostInstall:
  - rfbrowser init
"""
    assert conda_file.parse(text, "conda.yaml") == conda_file.CondaFile(
        channels=["conda-forge"],
        specs=["nodejs=16.14.2", "pip=22.1.2", "python=3.9.13"],
        pip=["robotframework-browser==12.3.0", "rpaframework==15.6.0"],
        variables={},
        post_install=["rfbrowser init"],
        unknown=[],
    )


def test_files_of_conda_are_understood() -> None:
    text = "{channels: [defaults, ./mine, nodefaults, defaults], dependencies: [3.10, {pip: [six]}], platforms: [x]}"
    found = conda_file.parse(text, "/project/environment.yml")
    assert found.channels == ["defaults", "/project/mine"]
    assert found.specs == ["3.10", "pip"], "a version stays what is written, and pip comes by itself"
    assert found.unknown == ["platforms"]
    with_uv = conda_file.parse("{channels: [a], dependencies: [b::uv=0.5, {pip: [six]}]}", "conda.yaml")
    assert with_uv.specs == ["b::uv=0.5"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "channels: there are none"),
        ("[]", "the file: it must be a mapping"),
        ("{channels: [a]}", "dependencies: there are none"),
        ("{dependencies: [a]}", "channels: there are none"),
        ("channels: a: b", "not valid YAML: line 1, column 12: mapping values are not allowed here"),
        ("{channels: conda-forge, dependencies: [a]}", "channels: it must be a list"),
        ("{channels: [[a]], dependencies: [a]}", "channels, item 1: it must be a text"),
        ("{channels: ['--yes'], dependencies: [a]}", "channels: '--yes' is not a channel"),
        ("{channels: [a], dependencies: {b: 1}}", "dependencies: it must be a list"),
        ("{channels: [a], dependencies: [b, '']}", "dependencies, item 2: it must be a text"),
        ("{channels: [a], dependencies: [python: 3.10]}", "only 'pip' has a list of its own, not 'python'"),
        ("{channels: [a], dependencies: [{pip: six}]}", "dependencies, item 1, pip: it must be a list"),
        ("{channels: [a], dependencies: [--file=/etc/passwd]}", "is not a package"),
        ('{channels: [a], dependencies: ["b\\0"]}', "there is a control character"),
        ('{channels: [a], dependencies: ["\\ud800"]}', "there is a control character"),
        (
            '{channels: [a], dependencies: [b], rccPostInstall: ["say \'no"]}',
            'rccPostInstall: "say \'no" is not a command',
        ),
        ("{channels: [a], dependencies: [b], variables: {A B: 1}}", "'A B' cannot be the name of a variable"),
        ("{channels: [a], dependencies: [b], variables: {PATH: /x}}", "PATH is what holo itself sets"),
        ("{channels: [a], dependencies: [b], variables: {A: [1]}}", "variables, A: it must be a text"),
        ("{channels: [a], dependencies: [b], ? {x: y} : z}", "not valid YAML"),
        ("channels: " + "[" * 3000, "not valid YAML"),
        ("# " + "x" * 300_000, "is larger than"),
        ("!!python/object/apply:os.system [id]", "the file: it must be a mapping"),
        ("a: &a [x, x]\nchannels: &b [*a, *a]\ndependencies: [*b, *b]", "it must be a text"),
    ],
)
def test_wrong_file_is_one_error(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        conda_file.parse(text, "/project/conda.yaml")
    assert says in caught.value.message
    assert "/project/conda.yaml" in caught.value.message


@settings(max_examples=50, deadline=None)
@given(
    text=st.one_of(
        st.text(), st.recursive(_texts, lambda inner: st.lists(inner) | st.dictionaries(_texts, inner)).map(json.dumps)
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(UsageError):
        conda_file.parse(text, "conda.yaml")


@pytest.mark.parametrize("line", ["-e .", "--editable=../x", "./folder"])
def test_pip_lines_that_name_a_folder_are_refused(project: Project, line: str) -> None:
    (project.folder / "folder").mkdir()
    project.write(channels=["a"], dependencies=["python", {"pip": [line]}])
    assert f"{project.file}, pip" in project.init("space", code=2).stderr
    assert project.holo.has_made_nothing()
