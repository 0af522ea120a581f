"""`holo list`: what it says of each space is so, on every filesystem and however the space was made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import trees
from support.cli import Holo
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def holo(filesystem: Filesystem, forks: Forks) -> Holo:
    return ForkedHolo(filesystem.root, forks)


def states(holo: Holo) -> dict[str, str]:
    """The states by name, which both forms of the output show."""
    listed = {space["name"]: space["state"] for space in holo("list", "--json").json()["spaces"]}
    rows = [line.split() for line in holo("list").stdout.splitlines()]
    assert {row[0]: row[2] for row in rows[1:]} == listed
    return listed


@pytest.fixture
def space(holo: Holo, filesystem: Filesystem) -> Path:
    """The space `one` of a small tree, and another one that nobody touches."""
    holo("record", trees.small(filesystem.root / "source"), "--name", "env")
    holo("init", "--space", "other", "env")
    return Path(holo("init", "--space", "one", "env", "--json").json()["path"])


def test_what_a_restore_made_is_pristine(holo: Holo, filesystem: Filesystem, strategy: str) -> None:
    """Whatever is in it: directories that nobody may enter, odd times, links and names."""
    source = trees.nasty(filesystem.root / "source".ljust(100, "-"), xattrs=filesystem.xattrs)
    holo("record", source, "--name", "env", "--skip-special")
    for command in (("init", "--space", "one", "env"), ("restore", "--space", "one")):
        holo(*command, "--strategy", strategy)
        assert states(holo) == {"one": "pristine"}


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda space: (space / "lib" / "new").touch(),
    "removed": lambda space: (space / "lib" / "deep" / "er" / "leaf").unlink(),
    "replaced": lambda space: trees.write(space / "draft").replace(space / "lib" / "data.txt"),
    "folder-added": lambda space: (space / "lib" / "deep" / "__pycache__").mkdir(),
    "folder-removed": lambda space: shutil.rmtree(space / "lib" / "deep"),
    "folder-renamed": lambda space: (space / "lib").rename(space / "library"),
    "folder-for-a-file": lambda space: (shutil.rmtree(space / "bin"), (space / "bin").touch()),
    "mode": lambda space: (space / "lib" / "deep").chmod(0o700),
}


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
@pytest.mark.parametrize("change", CHANGES)
def test_what_the_directories_show_is_changed(holo: Holo, space: Path, change: str) -> None:
    CHANGES[change](space)
    assert states(holo) == {"one": "changed", "other": "pristine"}
    holo("restore", "--space", "one")
    assert states(holo) == {"one": "pristine", "other": "pristine"}


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
@pytest.mark.parametrize("instead", ["nothing", "a file", "a dangling symlink"])
def test_a_folder_that_is_gone_is_missing(holo: Holo, space: Path, instead: str) -> None:
    shutil.rmtree(space)
    if instead == "a file":
        space.touch()
    elif instead == "a dangling symlink":
        space.symlink_to("nowhere")
    assert states(holo) == {"one": "missing", "other": "pristine"}
    if instead != "nothing":
        space.unlink()
    holo("restore", "--space", "one")
    assert states(holo) == {"one": "pristine", "other": "pristine"}


@local
def test_a_disk_that_is_gone_is_missing(holo: Holo, space: Path) -> None:
    """With all that is above the space."""
    place = holo.root / "disk" / "deep" / "space"
    holo("init", "--space", "far", "env", "--to", place)
    assert states(holo)["far"] == "pristine"
    (holo.root / "disk").rename(holo.root / "unplugged")
    assert states(holo)["far"] == "missing"
    (holo.root / "unplugged").rename(holo.root / "disk")
    assert states(holo)["far"] == "pristine"
    shutil.rmtree(holo.root / "disk")
    trees.write(holo.root / "disk")
    assert states(holo)["far"] == "missing"


@local
def test_a_home_that_is_moved_without_its_space(holo: Holo, space: Path) -> None:
    shutil.rmtree(space)
    holo.home.rename(holo.root / "moved")
    holo.home = holo.root / "moved"
    assert states(holo) == {"one": "missing", "other": "moved"}


@local
def test_an_edit_in_place_is_for_check_to_find(holo: Holo, space: Path) -> None:
    with (space / "lib" / "data.txt").open("a") as file:
        file.write("edited")
    assert states(holo)["one"] == "pristine"
    holo("check", "--space", "one", code=3)


@local
def test_a_space_without_a_catalog_can_only_be_missing(holo: Holo, space: Path) -> None:
    holo("catalogs", "--remove", "env")
    (space / "lib" / "new").touch()
    assert states(holo) == {"one": "pristine", "other": "pristine"}
    shutil.rmtree(space)
    assert states(holo) == {"one": "missing", "other": "pristine"}


@local
def test_a_look_changes_nothing(holo: Holo, space: Path) -> None:
    (space / "lib" / "new").touch()
    before = subprocess.check_output(["find", holo.root, "-printf", "%p %C@ %T@\\n"])
    states(holo)
    assert subprocess.check_output(["find", holo.root, "-printf", "%p %C@ %T@\\n"]) == before
