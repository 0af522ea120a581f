"""What a restore believes without reading it is true: whatever was moved, linked, or changed by which clock."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holo.blueprints.inputs import Inputs
from support import compare, records, trees
from support.cli import Holo
from support.filesystems import Filesystem

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ctimes and inodes of Linux")

LONG_AGO = 1_000_000_000_123_456_789
"""The one time of all files, as those from npm have one."""

SECONDS = pytest.mark.parametrize("filesystem", ["ext4-seconds"], indirect=True)
"""On a filesystem that keeps whole seconds."""


def settle(tree: Path) -> None:
    """Give everything one time."""
    for folder, _, files in os.walk(tree, topdown=False):
        for name in (*files, "."):
            os.utime(Path(folder, name), ns=(LONG_AGO, LONG_AGO))


@pytest.fixture
def source(holo: Holo) -> Path:
    """Two folders with files of one size and one time, and a file that names its own path."""
    root = holo.root / "source"
    for language, word in (("en", "hello"), ("de", "hallo")):
        trees.write(root / language / "f.js", word)
        trees.write(root / language / "deep" / "g.js", word)
    trees.write(root / "bin" / "run", f"#!{root}/bin/python\n")
    settle(root)
    holo("record", root, "--name", "env")
    return root


def restored(holo: Holo, space: str, strategy: str) -> dict[str, int]:
    files: dict[str, int] = holo("restore", "--space", space, "--strategy", strategy, "--json").json()["files"]
    return files


def exchange(one: Path, other: Path) -> None:
    """As a user does it."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def settled_init(holo: Holo, space: str, strategy: str, source: str = "env") -> Path:
    """A space that a restore has found pristine, so that nothing is too recent to be believed."""
    path = Path(holo("init", "--space", space, source, "--strategy", strategy, "--json").json()["path"])
    time.sleep(0.05)
    assert restored(holo, space, strategy)["unchanged"] == restored(holo, space, strategy)["total"]
    return path


def test_directories_that_changed_places(holo: Holo, source: Path, strategy: str) -> None:
    space = settled_init(holo, "s", strategy)
    times = [(folder, folder.stat().st_mtime_ns) for folder in (space / "en", space / "de", space)]
    exchange(space / "en", space / "de")
    for folder, mtime in times:
        os.utime(folder, ns=(mtime, mtime))
    restored(holo, "s", strategy)
    assert compare.differences(source, space, library=holo.library) == []


def test_a_directory_below_another_of_the_same_name(holo: Holo, source: Path, strategy: str) -> None:
    space = settled_init(holo, "s", strategy)
    exchange(space / "en" / "deep", space / "de" / "deep")
    restored(holo, "s", strategy)
    assert compare.differences(source, space, library=holo.library) == []


def test_spaces_that_changed_places(holo: Holo, source: Path, strategy: str) -> None:
    one, other = settled_init(holo, "one", strategy), settled_init(holo, "other", strategy)
    exchange(one, other)
    for name, space in (("one", one), ("other", other)):
        restored(holo, name, strategy)
        assert f"#!{space}/bin/python" in (space / "bin" / "run").read_text()
        assert compare.differences(source, space, library=holo.library) == []


def test_a_tree_moved_from_another_space(holo: Holo, source: Path, strategy: str) -> None:
    second = holo.root / "second"
    shutil.copytree(source, second)
    trees.write(second / "en" / "f.js", "HELLO")
    settle(second)
    holo("record", second, "--name", "second")
    one, other = settled_init(holo, "one", strategy), settled_init(holo, "other", strategy, "second")
    shutil.rmtree(one / "en")
    shutil.move(other / "en", one / "en")  # between subvolumes of Btrfs it copies
    restored(holo, "one", strategy)
    restored(holo, "other", strategy)
    assert compare.differences(source, one, library=holo.library) == []
    assert compare.differences(second, other, library=holo.library) == []


@pytest.mark.parametrize("act", ["link", "move"])
def test_files_of_a_hardlinked_space_that_changed_places(holo: Holo, source: Path, act: str) -> None:
    space = settled_init(holo, "s", "hardlink")
    settled_init(holo, "more", "hardlink")  # moves the ctimes of what both share
    mine, other = space / "en" / "f.js", space / "de" / "f.js"
    if act == "link":
        mine.unlink()
        mine.hardlink_to(other)
    else:
        exchange(mine, other)
    os.utime(space / "en", ns=(LONG_AGO, LONG_AGO))
    os.utime(space / "de", ns=(LONG_AGO, LONG_AGO))
    restored(holo, "s", "hardlink")
    assert (mine.read_text(), other.read_text()) == ("hello", "hallo")


def opened_files(holo: Holo, space: Path, *arguments: str) -> list[str]:
    """The regular files of a space that a command opens."""
    log = holo.root / "strace.log"
    holo.launcher = ("strace", "-f", "-y", "-s", "4096", "-e", "trace=openat,open", "-o", str(log))
    try:
        holo(*arguments)
    finally:
        holo.launcher = ()
    opened = re.findall(r"= \d+<(.*)>$", log.read_text(), re.MULTILINE)
    return [path for path in opened if path.startswith(f"{space}/") and os.path.isfile(path)]


def test_a_pristine_space_is_not_read(holo: Holo, source: Path, strategy: str) -> None:
    space = settled_init(holo, "s", strategy)
    assert opened_files(holo, space, "restore", "--space", "s", "--strategy", strategy) == []
    # What another space shares with it moves ctimes. It is looked at, not read.
    settled_init(holo, "more", strategy)
    assert opened_files(holo, space, "restore", "--space", "s", "--strategy", strategy) == []


def test_a_file_that_was_added_makes_nobody_read_the_others(holo: Holo, source: Path, strategy: str) -> None:
    space = settled_init(holo, "s", strategy)
    (space / "en" / "new.js").write_text("new")
    found = opened_files(holo, space, "restore", "--space", "s", "--strategy", strategy)
    assert found == []
    assert not (space / "en" / "new.js").exists()


def edit_unseen(file: Path) -> None:
    """Change the content so that only the ctime tells."""
    status = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"H")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
@pytest.mark.parametrize("what", ["stamp", "clock"])
def test_a_clock_that_was_set_back(holo: Holo, source: Path, what: str) -> None:
    space = settled_init(holo, "s", "copy")
    record = holo.holotree / ".spaces" / "s.json"
    hour = 3600 * 10**9
    # As if the restore had been when the clock was an hour ahead. With "clock" the stamp has been reached again.
    if what == "stamp":
        records.edit(record, stamp=time.time_ns() + hour)
    else:
        records.edit(record, stamp=time.time_ns() + 10**9, clock=records.read(record)["clock"] + hour)
        edit_unseen(space / "en" / "f.js")
        time.sleep(1)
    if what == "stamp":
        edit_unseen(space / "en" / "f.js")
    assert restored(holo, "s", "copy")["copied"] == 1
    assert (space / "en" / "f.js").read_text() == "hello"


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_an_edit_in_the_moment_after_the_restore(holo: Holo, source: Path) -> None:
    """A change in the same tick of the clock as the last one of the restore has the same ctime."""
    space = Path(holo("init", "--space", "s", "env", "--strategy", "copy", "--json").json()["path"])
    assert records.read(holo.holotree / ".spaces" / "s.json")["stamp"] < space.stat().st_ctime_ns - 9_000_000


@pytest.fixture
def far(source: Path) -> Path:
    """A time that small inodes of ext4 do not reach."""
    later = 3_000_000_000_500_000_000
    trees.write(source / "far", "2065")
    for path in (source / "far", source / "de"):
        os.utime(path, ns=(later, later))
    (source / "link").symlink_to("far")
    os.utime(source, ns=(LONG_AGO, LONG_AGO))
    return source


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on a filesystem that keeps nanoseconds."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@SECONDS
def test_whole_seconds_are_no_change(holo: Holo, elsewhere: Path, source: Path, far: Path, strategy: str) -> None:
    copy = elsewhere / "source"
    shutil.copytree(far, copy, symlinks=True)
    settle(copy)
    os.utime(copy / "far", ns=(3_000_000_000_500_000_000,) * 2)
    holo("record", copy, "--name", "fine")
    space = Path(holo("init", "--space", "s", "fine", "--strategy", strategy, "--json").json()["path"])
    assert (space / "en" / "f.js").stat().st_mtime_ns == LONG_AGO // 10**9 * 10**9
    found = restored(holo, "s", strategy)
    assert found["unchanged"] == found["total"]
    assert holo("check", "--space", "s", "--json").json()["problems"] == []


@SECONDS
def test_an_edit_within_the_second_of_the_restore(holo: Holo, source: Path) -> None:
    path = Path(holo("init", "--space", "s", "env", "--strategy", "copy", "--json").json()["path"])
    for _ in range(2):  # after the first restore, and after one that found something to do
        edit_unseen(path / "en" / "f.js")
        assert restored(holo, "s", "copy")["copied"] == 1
        assert (path / "en" / "f.js").read_text() == "hello"


@SECONDS
def test_a_blueprint_edited_within_a_second(filesystem: Filesystem) -> None:
    file = filesystem.root / "requirements.txt"
    file.write_text("rich==1.0\n")
    seen = Inputs()
    seen.data(str(file))
    assert not seen.are_settled()
    time.sleep(2.1)
    later = Inputs()
    later.data(str(file))
    assert later.are_settled()


@SECONDS
def test_a_throw_away_environment_is_no_damage(holo: Holo, source: Path) -> None:
    if subprocess.run(["unshare", "--user", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    holo("init", "--space", "s", "env", "--strategy", "copy")
    holo("run", "--ephemeral", "--space", "s", "--", "true")
    assert holo("check", "--json").json()["problems"] == []
