"""Real artefacts that hold the path of their environment, restored to other paths, and used there."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support import trees
from support.cli import Holo

pytestmark = [
    pytest.mark.parametrize("filesystem", ["local"], indirect=True),
    pytest.mark.skipif(sys.platform != "linux", reason="programs of Linux"),
]

GROWTH = pytest.mark.parametrize("growth", [-17, 0, 23], ids=["shorter", "equal", "longer"])
FITS = pytest.mark.parametrize("growth", [-17, -1, 0], ids=["shorter", "slightly", "equal"])

LIBRARY = """
#include <string.h>
static const char root[] = ROOT;
static const char after[] = "behind";
const char *where(void) { return root; }
const char *file(void) { return ROOT "/share/data"; }
const char *tail(void) { return "/share/data"; }
unsigned long size(void) { return sizeof root - 1; }
const char *behind(void) { return after; }
"""
PROGRAM = """
#include <stdio.h>
const char *where(void), *file(void), *tail(void), *behind(void);
int main(void) {
    FILE *data = fopen(file(), "r");
    char line[64] = "";
    if (!data || !fgets(line, sizeof line, data)) return 1;
    printf("%s|%s|%s|%s", where(), tail(), behind(), line);
    return 0;
}
"""
RUST = """
const ROOT: &str = env!("ROOT");
const FILE: &str = concat!(env!("ROOT"), "/share/data");
const AFTER: [u8; 4] = *b"next";
fn main() {
    print!("{}|{}|{}", ROOT, std::fs::read_to_string(FILE).unwrap(), String::from_utf8_lossy(&AFTER));
}
"""


@pytest.fixture
def source(holo: Holo) -> Path:
    root = holo.root / ("source-" + "x" * 30)
    trees.write(root / "share" / "data", "the data")
    return root


@pytest.fixture
def moved(holo: Holo, source: Path) -> Callable[[int], Path]:
    """Record the source, take it away, and restore it to a path that is so many bytes longer."""

    def move(growth: int, *, code: int = 0) -> Path:
        record = holo("record", source, "--name", "env", "--json").json()
        move.warnings = record["warnings"]  # type: ignore[attr-defined]
        source.rename(holo.root / "gone")
        target = holo.root / "t".ljust(len(source.name) + growth, "y")
        move.said = holo("init", "--space", "s", "env", "--to", target, code=code).stderr  # type: ignore[attr-defined]
        return target

    return move


def output(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.defpath, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


@FITS
def test_c_program_finds_its_library(source: Path, moved: Callable[[int], Path], growth: int) -> None:
    for name, text in (("library.c", LIBRARY), ("program.c", PROGRAM)):
        trees.write(source / name, text)
    for folder in ("lib", "bin"):
        (source / folder).mkdir()
    compiler = ["gcc", "-O2", f'-DROOT="{source}"']
    library, program = source / "lib" / "libwhere.so", source / "bin" / "program"
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source / "library.c"], check=True)
    links = [f"-L{source}/lib", "-lwhere", f"-Wl,-rpath,{source}/lib"]
    subprocess.run([*compiler, "-o", program, source / "program.c", *links], check=True)
    target = moved(growth)
    where, tail, behind, data = output(target / "bin" / "program").split("|")
    assert (where, tail, behind, data) == (str(target), "/share/data", "behind", "the data")


@FITS
@pytest.mark.skipif(shutil.which("rustc") is None, reason="no rustc")
def test_rust_program_runs(source: Path, moved: Callable[[int], Path], growth: int) -> None:
    trees.write(source / "program.rs", RUST)
    environment = {**os.environ, "ROOT": str(source)}
    subprocess.run(
        ["rustc", "-O", "-o", source / "program", source / "program.rs"], check=True, env=environment, cwd=source
    )
    target = moved(growth)
    where, *rest = output(target / "program").split("|")
    assert (os.path.normpath(where), rest) == (str(target), ["the data", "next"])


@pytest.mark.parametrize("growth", [1, 23])
def test_a_program_cannot_take_a_longer_path(source: Path, moved: Callable[..., Path], growth: int) -> None:
    shutil.copyfile("/bin/true", source / "program")
    with (source / "program").open("ab") as file:
        file.write(os.fsencode(source) + b"/lib\0")
    target = moved(growth, code=1)
    assert not target.exists()
    assert "program" in moved.said  # type: ignore[attr-defined]


@GROWTH
def test_zipapp_runs(source: Path, moved: Callable[[int], Path], growth: int) -> None:
    application = source / "app"
    trees.write(application / "__main__.py", f"print('from', {str(source)!r})\n")
    (source / "bin").mkdir()
    os.symlink(sys.executable, source / "bin" / "python3")
    command = [sys.executable, "-m", "zipapp", "-p", f"{source}/bin/python3", "-o", source / "app.pyz", application]
    subprocess.run(command, check=True)
    target = moved(growth)
    # What is inside is not patched, and as good as before.
    assert output(target / "app.pyz") == f"from {source}\n"
    with zipfile.ZipFile(target / "app.pyz") as archive:
        assert archive.testzip() is None


@GROWTH
def test_archives_and_databases_are_left_alone_and_reported(
    source: Path, moved: Callable[[int], Path], growth: int
) -> None:
    with closing(sqlite3.connect(source / ".coverage", isolation_level=None)) as database:
        database.execute("create table file (path text primary key)")
        database.executemany("insert into file values (?)", [(f"{source}/{name}.py",) for name in "abc"])
    with zipfile.ZipFile(source / "stored.zip", "w") as archive:
        archive.writestr("where", str(source))
    subprocess.run(["tar", "--create", "--file", source / "a.tar", "--directory", source, "share"], check=True)
    with (source / "a.tar").open("ab") as file:
        file.write(os.fsencode(source) + b"\0")
    before = {path.name: path.read_bytes() for path in source.iterdir() if path.is_file()}
    target = moved(growth)
    assert {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()} == before
    told = "\n".join(moved.warnings)  # type: ignore[attr-defined]
    assert all(name in told for name in (".coverage", "stored.zip", "a.tar"))
    with closing(sqlite3.connect(target / ".coverage")) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


@GROWTH
def test_pickle_takes_the_new_path_or_keeps_the_old(source: Path, moved: Callable[[int], Path], growth: int) -> None:
    value = {"root": str(source), "files": [f"{source}/{number}" for number in range(300)], "tail": "end"}
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (source / f"{protocol}.pickle").write_bytes(pickle.dumps(value, protocol))
    target = moved(growth)
    where = target if growth <= 0 else source
    assert ("stays in data files" in moved.said) is (growth > 0)  # type: ignore[attr-defined]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        found = pickle.loads((target / f"{protocol}.pickle").read_bytes())
        assert os.path.normpath(found["root"]) == str(where)
        assert [os.path.normpath(path) for path in found["files"]] == [f"{where}/{number}" for number in range(300)]
        assert found["tail"] == "end"


MODULE = "ROOT = {root!r}\nFILE = {root!r} + '/share/data'\ndef where():\n    return {root!r}, ROOT, __file__\n"


def compiled(folder: Path, name: str, mode: str) -> None:
    how = f"doraise=True, invalidation_mode=p.PycInvalidationMode.{mode}"
    command = [sys.executable, "-c", f"import py_compile as p; p.compile({name!r}, {how})"]
    subprocess.run(command, check=True, cwd=folder)


def loaded(path: Path) -> tuple[str, ...]:
    """What `where` of a module says that is loaded as an import would, from bytecode if that is valid."""
    run = f"import importlib.machinery as m; print(m.SourceFileLoader('module', {str(path)!r}).load_module().where())"
    found: tuple[str, ...] = eval(output(sys.executable, "-W", "ignore", "-c", run))
    return found


@GROWTH
@pytest.mark.parametrize("mode", ["TIMESTAMP", "CHECKED_HASH", "UNCHECKED_HASH"])
@pytest.mark.parametrize("name", ["module.py", "gunicorn.conf.py"])
def test_bytecode_with_its_source_names_the_new_path(
    source: Path, moved: Callable[[int], Path], growth: int, mode: str, name: str
) -> None:
    trees.write(source / name, MODULE.format(root=str(source)))
    compiled(source, name, mode)
    target = moved(growth)
    assert loaded(target / name) == (str(target), str(target), f"{target}/{name}")


@GROWTH
def test_bytecode_without_a_source_cannot_take_a_longer_path(
    source: Path, moved: Callable[..., Path], growth: int
) -> None:
    trees.write(source / "module.py", MODULE.format(root=str(source)))
    compile_ = "import py_compile as p; p.compile('module.py', 'module.pyc', doraise=True)"
    subprocess.run([sys.executable, "-c", compile_], check=True, cwd=source)
    (source / "module.py").unlink()
    target = moved(growth, code=int(growth > 0))
    if growth > 0:
        assert "module.pyc" in moved.said  # type: ignore[attr-defined]
        return
    found = eval(output(sys.executable, "-c", "import module; print(module.where())", PYTHONPATH=str(target)))
    assert [os.path.normpath(path) for path in found] == [str(target), str(target), f"{target}/module.pyc"]


@pytest.mark.parametrize("growth", [6], ids=["longer"])
def test_bytecode_of_an_empty_source_is_no_program(source: Path, moved: Callable[[int], Path], growth: int) -> None:
    """It names another path below the tree: that of the folder in which it was compiled."""
    package = source / "package"
    trees.write(package / "__init__.py", "")
    staged = source / "staged" / "__init__.py"
    compile_ = f"import py_compile as p; p.compile('{package}/__init__.py', dfile={str(staged)!r}, doraise=True)"
    subprocess.run([sys.executable, "-c", compile_], check=True)
    target = moved(growth)
    assert output(sys.executable, "-c", "import package; print(package.__file__)", PYTHONPATH=str(target)) == (
        f"{target}/package/__init__.py\n"
    )


@GROWTH
def test_bytecode_without_a_source_runs_if_it_holds_no_path(
    source: Path, moved: Callable[[int], Path], growth: int
) -> None:
    trees.write(source / "module.py", "def where():\n    return 'here'\n")
    compile_ = f"import py_compile as p; p.compile('{source}/module.py', 'module.pyc', doraise=True)"
    subprocess.run([sys.executable, "-c", compile_], check=True, cwd=source)
    (source / "module.py").unlink()
    target = moved(growth)
    assert output(sys.executable, "-c", "import module; print(module.where())", PYTHONPATH=str(target)) == "here\n"


@GROWTH
def test_clone_relocates_the_same_artefacts(holo: Holo, source: Path, growth: int) -> None:
    trees.write(source / "gunicorn.conf.py", MODULE.format(root=str(source)))
    compiled(source, "gunicorn.conf.py", "UNCHECKED_HASH")
    with closing(sqlite3.connect(source / ".coverage", isolation_level=None)) as database:
        database.execute("create table file (path text)")
        database.execute("insert into file values (?)", (str(source),))
    (source / "a.pickle").write_bytes(pickle.dumps([str(source), "end"]))
    target = holo.root / "t".ljust(len(source.name) + growth, "y")
    report = holo("clone", "--relocate", source, target, "--json").json()
    assert any(".coverage" in warning for warning in report["warnings"])
    found = pickle.loads((target / "a.pickle").read_bytes())
    assert [os.path.normpath(found[0]), found[1]] == [str(target if growth <= 0 else source), "end"]
    assert (target / ".coverage").read_bytes() == (source / ".coverage").read_bytes()
    assert loaded(target / "gunicorn.conf.py")[0] == str(target)


@GROWTH
def test_what_pytest_has_rewritten_is_rewritten_again(source: Path, moved: Callable[[int], Path], growth: int) -> None:
    """A plugin's bytecode by pytest holds the path, which pytest before 9.2 took as it was."""
    trees.write(
        source / "helper.py", "import inspect\n\ndef where():\n    return inspect.currentframe().f_code.co_filename\n"
    )
    trees.write(
        source / "test_it.py", "import helper\n\ndef test_it():\n    print(helper.where())\n    assert 1 == 2\n"
    )
    trees.write(source / "conftest.py", "import pytest\n\npytest.register_assert_rewrite('helper')\n")

    def tested(folder: Path) -> str:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            "--rootdir",
            folder,
            folder,
        ]
        clean = {"PATH": os.defpath, "HOME": str(folder)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=clean, cwd=folder).stdout

    assert f"{source}/helper.py" in tested(source)
    rewritten = sorted(path.name for path in (source / "__pycache__").glob("*-pytest-*"))
    assert len(rewritten) == 3
    target = moved(growth)
    for name in rewritten:
        assert (target / "__pycache__" / name).read_bytes()[4:16] == bytes(12)
    said = tested(target)
    assert f"{target}/helper.py" in said
    assert str(source) not in said
    assert "1 failed" in said
