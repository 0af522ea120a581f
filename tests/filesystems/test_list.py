"""`holo list`: what it says of each space is so, on every filesystem and however the space was made."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from holo import Hololib, Space
from holo.blueprints.memory import Origin, save_origin
from holo.holotree import Holotree
from support import trees
from support.cli import Holo
from support.filesystems import Filesystem

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


def states(holo: Holo) -> dict[str, str]:
    """The states by name, which both forms of the output show."""
    listed = {space["name"]: space["state"] for space in holo("list", "--json").json()["spaces"]}
    rows = [line.split() for line in holo("list").stdout.splitlines()]
    assert {row[0]: row[1] for row in rows[1:]} == listed
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


# ---------------------------------------------------------------- what else is said


def entry(holo: Holo, name: str, *options: str) -> dict[str, Any]:
    found = {space["name"]: space for space in holo("list", "--json", *options).json()["spaces"]}
    return found[name]


def used_days_ago(holo: Holo, name: str, days: float) -> None:
    """As if nobody had worked in a space or restored it since."""
    then = time.time() - days * 86_400
    spaces = Holotree(str(holo.home))
    restored = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(then))
    spaces.save(spaces.get(name)._replace(restored=restored, made=restored))
    mark = holo.holotree / ".spaces" / f"{name}.used"
    if mark.exists():
        os.utime(mark, (then, then))


@local
def test_what_is_unused_is_stale_and_a_command_in_it_is_use(holo: Holo, space: Path) -> None:
    for name in ("one", "other"):
        used_days_ago(holo, name, 40)
    assert [line.split()[0] for line in holo("list", "--stale", "30d").stdout.splitlines()[1:]] == ["one", "other"]
    assert holo("list", "--stale", "41d", "--json").json() == {"spaces": []}
    assert " 40 d  40 d " in holo("list").stdout
    holo("run", "--space", "one", "--force", "--", "true")
    assert [found["name"] for found in holo("list", "--stale", "30d", "--json").json()["spaces"]] == ["other"]
    used_days_ago(holo, "one", 50)
    assert [found["name"] for found in holo("list", "--sort", "used", "--json").json()["spaces"]] == ["one", "other"]
    holo("variables", "--space", "one", "--force")
    assert [found["name"] for found in holo("list", "--sort", "used", "--json").json()["spaces"]] == ["other", "one"]
    assert [found["name"] for found in holo("list", "--sort", "age", "--json").json()["spaces"]] == ["one", "other"]
    holo("restore", "--space", "other")
    assert holo("list", "--stale", "30d", "--json").json() == {"spaces": []}
    assert "must be a duration" in holo("list", "--stale", "often", code=2).stderr
    holo("delete", "one")
    assert not (holo.holotree / ".spaces" / "one.used").exists()


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_the_exclusive_size_is_what_the_restore_left_until_it_is_measured(holo: Holo, filesystem: Filesystem) -> None:
    trees.write(filesystem.root / "source" / "big", os.urandom(1 << 20))
    trees.write(filesystem.root / "source" / "own", str(filesystem.root / "source"))
    holo("record", filesystem.root / "source", "--name", "env")
    report = holo("init", "--space", "one", "env", "--to", filesystem.root / "space", "--json").json()
    path, alone = Path(report["path"]), report["bytes"]["written"]
    assert (alone < 1000) is (filesystem.name == "btrfs")
    assert entry(holo, "one")["exclusive"] == alone
    (path / "own").write_text("edited")
    holo("restore", "--space", "one")
    assert entry(holo, "one")["exclusive"] == alone, "what was written twice counts once"
    trees.write(path / "more", os.urandom(1 << 20))
    os.sync()
    assert entry(holo, "one")["exclusive"] == alone
    assert (1 << 20) <= entry(holo, "one", "--size")["exclusive"] < 3 << 20
    (catalog,) = holo("catalogs", "--json", "--size").json()["catalogs"]
    assert (catalog["spaces"], catalog["blueprints"]) == (["one"], [])
    assert 0 <= catalog["exclusive"] < 2 << 20


@local
def test_a_list_fits_eighty_columns_and_says_what_a_space_is_of(holo: Holo, space: Path) -> None:
    project = holo.root / ("deep-" * 12) / ("er-" * 20) / "project"
    project.mkdir(parents=True)
    (project / "requirements.txt").touch()
    holo("init", "--space", "a-longer-name", "env", "--to", project / ".venv")
    record = holo("list", "--json").json()["spaces"][0]
    origin = Origin(str(project / "requirements.txt"), True, record["digest"], True)
    save_origin(Holotree(str(holo.home)), "a-longer-name", origin)
    found = entry(holo, "a-longer-name")
    assert (found["blueprint"], found["folder"]) == (str(project / "requirements.txt"), str(project))
    for command in ("list", "catalogs"):
        lines = holo(command, env={"COLUMNS": "80"}).stdout.splitlines()
        assert max(map(len, lines)) <= 80
    lines = holo("catalogs", "--size", env={"COLUMNS": "75"}).stdout.splitlines()
    assert max(map(len, lines)) <= 75, "the table with the most columns"
    shown = holo("list", env={"COLUMNS": "80"}).stdout
    assert "a-longer-name" in shown
    assert "..." in shown, "the middle goes, not the ends"
    assert "ct/.venv" in shown, "it is a path, whose end tells more"
    assert str(project / ".venv") in holo("list", env={"COLUMNS": "999"}).stdout
    assert str(project / ".venv") in holo("list").stdout, "a program reads it: it may look for the path"
    assert found["made"] <= found["used"] == found["restored"]
    assert holo("catalogs", "--json").json()["catalogs"][0]["blueprints"] == [str(project / "requirements.txt")]


@local
def test_a_space_of_a_former_catalog_is_not_taken_for_one_of_the_present(holo: Holo, space: Path) -> None:
    old = entry(holo, "one")["digest"]
    assert (holo("status", "one").stderr, "once" in holo("list").stdout) == ("", False)
    (holo.root / "new").mkdir()
    new = holo("record", holo.root / "new", "--name", "env", "--json").json()["digest"]
    assert f"{old[:12]}, once env" in holo("list").stdout
    assert entry(holo, "one")["catalog"] == "env"
    said = holo("status", "one").stderr
    assert f"warning: env means another catalog by now, {new[:12]}: `holo init one env --force` turns" in said
    assert f"`holo diff {old[:12]} env` shows what differs" in said
    holo("init", "one", "env", "--force")
    assert holo("status", "one").stderr == ""
    assert [line for line in holo("list").stdout.splitlines() if line.startswith("one ") and "once" in line] == []


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_what_a_long_list_has_kept_is_believed_only_while_it_is_so(
    holo: Holo, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Hololib(holo.home)
    read: list[str] = []
    spaces = Holotree.spaces

    def told(tree: Holotree, names: Iterable[str] | None = None) -> list[Space]:
        found = spaces(tree, names)
        read.extend(space.name for space in found)
        return found

    def listed() -> list[str]:
        """The names of the spaces whose records a long list has read; it says the same as a short one."""
        monkeypatch.setattr("holo.listing._MANY", 1)
        read.clear()
        long, names = library.space_details(), sorted(read)
        monkeypatch.setattr("holo.listing._MANY", 1000)
        assert long == library.space_details()
        return names

    monkeypatch.setattr(Holotree, "spaces", told)
    monkeypatch.setattr("holo.listing.pool.may_fork", lambda: False)  # what a worker reads is not told
    file = holo.holotree / ".spaces" / ".listed"
    assert listed() == ["one", "other"]
    assert listed() == []
    trees.write(space / "new")
    assert listed() == [], "that shows in the directories"
    holo("restore", "--space", "one")
    assert listed() == ["one"]
    holo("init", "--space", "third", "env")
    holo("delete", "other")
    assert listed() == ["third"]
    digest = library.space("one", force=True).digest
    save_origin(Holotree(str(holo.home)), "one", Origin("/project/requirements.txt", True, digest, True))
    assert listed() == ["one"]
    data = file.read_bytes()
    file.write_bytes(data.replace(b"pristine", b"Pristine", 1))
    assert listed() == ["one", "third"]
    file.chmod(0o666)
    assert listed() == ["one", "third"]
    shutil.copy(file, file.with_name("copy"))
    file.with_name("copy").replace(file)
    assert listed() == ["one", "third"]
    assert listed() == []

    monkeypatch.undo()  # so that it forks, if pytest has no threads
    monkeypatch.setattr("holo.listing._MANY", 1)
    (space / "newer").touch()
    for name in ("fourth", "fifth"):
        holo("init", "--space", name, "env")
    library = Hololib(holo.home)
    for _ in range(2):
        found = {item.space.name: item.space.state for item in library.space_details()}
        assert found == {"one": "changed"} | dict.fromkeys(("fifth", "fourth", "third"), "pristine")
        file.unlink(missing_ok=True)
