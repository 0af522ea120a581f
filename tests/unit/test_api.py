"""`import holo` does what the command line does."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import holo as holo_package
from support import compare, trees
from support.cli import Holo
from support.filesystems import Filesystem

ROOT = Path(__file__).parents[2]

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


def run(holo: Holo, code: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=holo.environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@local
def test_record_init_and_restore(holo: Holo, filesystem: Filesystem) -> None:
    source = trees.small(filesystem.root / "source".ljust(80, "-"))
    code = """
import os, sys, holo
library = holo.Hololib()
recorded = library.record(sys.argv[1], "env")
made = library.init("one", "env", strategy="copy")
assert made.digest == recorded.digest
assert made.copied == made.total == recorded.files == 4
os.unlink(f"{made.path}/lib/data.txt")
again = library.restore("one")
assert again.unchanged == again.total - 1
print(made.path)
"""
    path = Path(run(holo, code, source).strip())
    assert compare.differences(source, path) == []
    assert holo("list", "--json").json()["spaces"][0]["path"] == str(path)


@local
@pytest.mark.skipif(sys.platform != "linux", reason="only there a folder is an open descriptor")
def test_a_library_that_is_forgotten_keeps_nothing_open(holo: Holo, filesystem: Filesystem) -> None:
    """A server may make one for each request."""
    holo("record", trees.small(filesystem.root / "source"), "--name", "env")
    code = """
import gc, os, holo
def use(strategy):
    library = holo.Hololib()
    library.init("one", "env", strategy=strategy)
    library.status("one")
    library.check()
before = len(os.listdir("/proc/self/fd"))
for strategy in ("copy", "hardlink") * 10:
    use(strategy)
gc.collect()
assert len(os.listdir("/proc/self/fd")) == before
"""
    run(holo, code)


@local
def test_reports_are_the_documents_of_the_command_line(holo: Holo, filesystem: Filesystem) -> None:
    source = trees.small(filesystem.root / "source".ljust(80, "-"))
    holo("record", source, "--name", "env")
    by_command = holo("init", "--space", "one", "env", "--json").json()
    code = "import holo, json; print(json.dumps(holo.Hololib().init('two', 'env').to_json()))"
    by_program = json.loads(run(holo, code))
    for report in (by_command, by_program):
        for own in ("space", "path", "seconds"):
            del report[own]
    assert by_program == by_command


@local
def test_home_may_be_given(holo: Holo, filesystem: Filesystem) -> None:
    source = trees.small(filesystem.root / "source")
    home = filesystem.root / "another-home"
    run(holo, "import sys, holo; holo.Hololib(sys.argv[1]).record(sys.argv[2], 'env')", home, source)
    assert (home / "hololib" / "catalog").is_dir()
    assert not holo.home.exists()


@local
def test_errors_are_holo_errors(holo: Holo) -> None:
    code = """
import holo
try:
    holo.Hololib().init("one", "no-such-catalog")
except holo.NotFound as error:
    assert isinstance(error, holo.HoloError)
    print(error)
"""
    assert "no-such-catalog" in run(holo, code)


@pytest.mark.parametrize("home", ["file", "file/below"])
def test_a_home_that_is_a_file_is_a_holo_error(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(holo_package.HoloError, match=f"{home} cannot be the home: Not a directory"):
        holo_package.Hololib(tmp_path / home)


@local
def test_a_path_that_no_file_can_have_is_a_holo_error(holo: Holo) -> None:
    library = holo_package.Hololib(holo.home)
    library.record(trees.small(holo.root / "source"), "env")
    for use in (library.record, lambda path: library.init("one", "env", to=path), library.import_file):
        with pytest.raises(holo_package.UsageError, match="a path contains a NUL"):
            use("a\0b")


def test_both_commands_are_one_program() -> None:
    """`holo` may be another one, which has the name on the public index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "holotree"
    assert project["scripts"] == dict.fromkeys(("holo", "holotree"), "holo.__main__:main")


@pytest.mark.parametrize("name", holo_package.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(holo_package, name) is not None


def test_every_public_name_is_listed() -> None:
    code = "import holo; print(set(holo.__all__) - set(dir(holo)))"  # before anybody has asked for one
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


def test_types_that_are_returned_are_public() -> None:
    """And the types of their fields, and so on. docs/api.md says nothing of the inner ones."""
    inner = {"BenchResult", "Capability", "Damage", "FileTimes", "Fill", "Folder", "Removal", "Setting", "Settings"}
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "holo").rglob("*.py"))
    classes = set(re.findall(r"^class ([A-Z]\w+)", sources, re.MULTILINE))
    classes.remove("State")  # of what is checked; that of a space is a Literal
    found, todo = set[str](), ["Hololib", "CloneReport", "Settings"]
    while todo:
        name = todo.pop()
        found.add(name)
        kind = getattr(holo_package, name)
        methods = [value for key, value in vars(kind).items() if inspect.isfunction(value) and not key.startswith("_")]
        returned = [way.__annotations__.get("return", "") for way in methods]
        for hint in [*map(str, returned), *map(str, getattr(kind, "__annotations__", {}).values())]:
            todo += (classes & set(re.findall(r"\w+", hint))) - found - set(todo)
    assert found <= set(holo_package.__all__)
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in found - inner if f"`{name}" not in text] == []


USER = """
import holo

def names(library: holo.Hololib) -> list[str | None]:
    summaries: list[holo.CatalogSummary] = library.catalogs()
    return [summary.name for summary in summaries]

def plan(library: holo.Hololib) -> holo.Plan:
    planned: holo.DryRun = library.dry_run("one")
    return planned.plan

reveal_type(holo.Hololib().restore("one").strategy.used)
holo.Hololib().restore(1)
"""


def test_programs_that_use_it_are_type_checked(tmp_path: Path) -> None:
    """Against an installed holo, which needs to say that it has types."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    shutil.copytree(ROOT / "holo", packages / "holo", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "program.py").write_text(USER)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", tmp_path / "venv" / "bin" / "python"]
    done = subprocess.run(
        [*mypy, "--config-file=", "--cache-dir", tmp_path / "cache", "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("program.py")]
    assert len(found) == 2, done
    assert 'Revealed type is "holo.checkout.strategy.Method"' in found[0]
    assert 'Argument 1 to "restore" of "Hololib" has incompatible type "int"' in found[1]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = holo_package.no_such_name


@local
@pytest.mark.parametrize("slow", ["pydantic", "typer", "yaml", "rich", "zstandard"])
def test_import_is_cheap(holo: Holo, slow: str) -> None:
    """Nobody pays for a library before it is used."""
    assert run(holo, f"import sys, holo; print({slow!r} in sys.modules)") == "False\n"
