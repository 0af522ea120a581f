"""The fixture holo_workspace, as another project's tests use it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from support.filesystems import Filesystem
from support.trees import small

ROOT = Path(__file__).parents[2]

TESTS = """
import os
import pytest

SOURCE = {source!r}

@pytest.mark.parametrize("number", range(6))
def test_private(holo_workspace, number):
    workspace = holo_workspace(SOURCE)
    assert sorted(os.listdir(workspace)) == ["bin", "lib"]
    assert workspace.name == os.path.basename(SOURCE)
    (workspace / "lib" / "data.txt").write_text(str(number))
    (workspace / "lib" / "deep").chmod(0o555)
    other = holo_workspace(SOURCE)
    assert (other / "lib" / "data.txt").read_text() == "data\\n" * 2000

def test_relocated(holo_workspace):
    workspace = holo_workspace(SOURCE, relocate=True)
    assert str(workspace) in (workspace / "bin" / "hello").read_text()

def test_missing(holo_workspace):
    with pytest.raises(Exception, match="there is nothing at"):
        holo_workspace(SOURCE + "-missing")

def test_failing(holo_workspace):
    (holo_workspace(SOURCE) / "evidence").touch()
    assert False
"""


def run(folder: Path, *arguments: str, source: Path, tests: str = TESTS) -> tuple[str, list[Path]]:
    """What pytest printed, and what of the workspaces is left in its base folder."""
    (folder / "test_it.py").write_text(tests.format(source=str(source)))
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    base = folder / "base"
    plugin = () if installed() else ("-p", "holo.pytest_plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, f"--basetemp={base}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOLO_SETTINGS": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr, sorted(base.rglob("workspace*/*"))


def installed() -> bool:
    return any(point.value == "holo.pytest_plugin" for point in entry_points(group="pytest11"))


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_each_test_has_its_own(filesystem: Filesystem, workers: tuple[str, ...]) -> None:
    source = small(filesystem.root / "source")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    printed, left = run(filesystem.root, *workers, source=source)
    assert "8 passed" in printed, printed
    assert "1 failed" in printed
    assert ("reflink does not work" in printed) == (not filesystem.reflinks)
    assert [path.name for path in left] == ["source"]  # of the test that failed, to look into it
    assert (left[0] / "evidence").exists()
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_nothing_is_kept_if_that_is_the_policy(filesystem: Filesystem) -> None:
    source = small(filesystem.root / "source")
    printed, left = run(filesystem.root, "-o", "tmp_path_retention_policy=none", source=source)
    assert "1 failed" in printed
    assert left == []


RELATIVE = """
import pytest

def test_relative(holo_workspace, monkeypatch, tmp_path):
    for folder in ("/", tmp_path):
        monkeypatch.chdir(folder)
        assert (holo_workspace("data/project") / "lib" / "data.txt").exists()
        assert holo_workspace("../beside").name == "beside"
        assert holo_workspace({source!r}).name == "source"
    with pytest.raises(Exception, match="missing"):
        holo_workspace("missing")
    with pytest.raises(Exception, match="empty"):
        holo_workspace("")
"""


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_a_relative_path_is_that_of_the_file(filesystem: Filesystem) -> None:
    """Wherever pytest was started."""
    source = small(filesystem.root / "source")
    small(filesystem.root / "tests" / "data" / "project")
    small(filesystem.root / "beside")
    (filesystem.root / "tests" / "test_relative.py").write_text(RELATIVE.format(source=str(source)))
    printed, _ = run(filesystem.root, "tests/test_relative.py", source=source)
    assert "1 passed" in printed, printed


STUBBORN = """
from pathlib import Path
import holo.remove

def test_passing(monkeypatch, holo_workspace):
    first, second = holo_workspace({source!r}), holo_workspace({source!r})
    remove = holo.remove.remove

    def refuse(directory, name, *more):  # as if somebody wrote there all the time
        if name == first.parent.name:
            raise OSError(39, "Directory not empty")
        return remove(directory, name, *more)

    monkeypatch.setattr(holo.remove, "remove", refuse)
    monkeypatch.setattr(holo.remove, "_PATIENCE", 0)
    Path("second").write_text(str(second))
"""


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_a_workspace_that_cannot_be_removed_fails_nothing(filesystem: Filesystem) -> None:
    source = small(filesystem.root / "source")
    printed, left = run(filesystem.root, "-W", "default", source=source, tests=STUBBORN)
    assert "1 passed, 1 warning" in printed, printed
    assert "Directory not empty" in printed
    assert len(left) == 1
    assert not Path((filesystem.root / "second").read_text()).exists()


def test_an_old_pytest_can_load_it() -> None:
    """It is loaded wherever holo is installed: one that fails there would fail every run of pytest."""
    code = """
import pytest
del pytest.StashKey
pytest.hookimpl = lambda *, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False: lambda function: None
import holo.pytest_plugin"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_a_start_of_pytest_loads_nothing_of_holo() -> None:
    code = "import sys, holo.pytest_plugin; print([name for name in sys.modules if name.startswith('holo')])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "['holo', 'holo.pytest_plugin']"


def test_it_is_an_entry_point() -> None:
    assert 'holo = "holo.pytest_plugin"' in (ROOT / "pyproject.toml").read_text()
