"""A home of holo's that was moved or copied, and what it knows about directories elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holo import platform
from holo.holotree import Holotree
from support import compare, filesystems, records, trees
from support.cli import Result
from support.filesystems import Filesystem
from support.forks import Forks

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")

SCRIPT = "bin/hello"
DOCUMENT = "what a user wrote\n"


class Homes:
    """A recorded environment, and homes that hold it: `homes("b", "list")` runs holo in the home `b`."""

    def __init__(self, root: Path, forks: Forks, homes: Path | None = None) -> None:
        self.root = root
        self.folder = homes or root
        self.forks = forks
        self.settings = root / "settings.yaml"
        self.settings.touch()
        self.source = trees.small(root / "source")
        self.out = root / "out"

    def __call__(self, home: str, *arguments: Any, code: int = 0, cwd: Path | None = None) -> Result:
        return self.forks(*arguments, code=code, env=self.environment(home), cwd=cwd or self.root)

    def environment(self, home: str) -> dict[str, str]:
        return {
            "HOLO_HOME": str(self.folder / home),
            "HOLO_SETTINGS": str(self.settings),
            "HOME": str(self.root / "user"),
            "PATH": os.environ["PATH"],
        }

    def make(self, home: str, *, out: bool = False, strategy: str = "copy") -> Path:
        """A home with a space `s` at its default place and, if wanted, `out` elsewhere."""
        self(home, "record", self.source, "--name", "app")
        self(home, "init", "--space", "s", "app", "--strategy", strategy)
        if out:
            self(home, "init", "--space", "out", "app", "--to", self.out, "--strategy", strategy)
        return self.folder / home

    def path(self, home: str, space: str = "s") -> Path:
        return Path(Holotree(str(self.folder / home)).default_path(space))

    def states(self, home: str) -> dict[str, tuple[str, str]]:
        listed = self(home, "list", "--json").json()["spaces"]
        return {space["name"]: (space["state"], space["path"]) for space in listed}

    def says(self, home: str, space: str = "s") -> str:
        """What the script in the space prints: the path in it."""
        return self(home, "run", "--space", space, "--", Path(SCRIPT).name).stdout.split()[-1]

    def is_right(self, path: Path) -> None:
        assert compare.differences(self.source, path) == []

    def record(self, home: str, space: str) -> Path:
        return self.folder / home / "holotree/.spaces" / f"{space}.json"


@pytest.fixture
def homes(filesystem: Filesystem, forks: Forks) -> Homes:
    return Homes(filesystem.root, forks)


# -- at its default place -------------------------------------------------------------------------------------------


def test_every_command_acts_on_the_moved_directory(homes: Homes, strategy: str) -> None:
    first, second = homes.make("a", strategy=strategy), homes.folder / "b"
    old, new = homes.path("a"), homes.path("b")
    first.rename(second)
    assert homes.states("b") == {"s": ("moved", str(new))}
    for command in (["run", "--space", "s", "--", "hello"], ["variables", "--space", "s"], ["shell", "--space", "s"]):
        said = homes("b", *command, code=1).stderr
        assert f"from {old} to {new}" in said
        assert "holo restore --space s" in said
    differing = homes("b", "check", "--space", "s", code=3).stdout
    assert f"its home was moved or copied, and its files still name {old}" in differing
    planned = homes("b", "restore", "--space", "s", "--dry-run", "--json").json()
    assert planned["path"] == str(new)
    report = homes("b", "restore", "--space", "s", "--strategy", strategy, "--json").json()
    assert (report["path"], report["files"]["removed"]) == (str(new), 0)
    assert homes.says("b") == str(new)
    assert homes.states("b") == {"s": ("pristine", str(new))}
    assert homes("b", "check", "--space", "s").stdout.endswith("all is well\n")
    again = homes("b", "restore", "--space", "s", "--strategy", strategy, "--json").json()["files"]
    assert again["unchanged"] == again["total"]
    homes("b", "delete", "--space", "s")
    assert not new.exists()
    assert not first.exists()


@pytest.mark.parametrize("command", [["restore"], ["delete"], ["restore", "--force"], ["init", "app"]])
def test_a_new_home_at_the_old_path_is_left_alone(homes: Homes, command: list[str]) -> None:
    homes.make("a").rename(homes.folder / "b")
    homes.make("a")
    trees.write(homes.path("a") / "document", DOCUMENT)
    verb, *more = command
    homes("b", verb, "--space", "s", *more)
    assert (homes.path("a") / "document").read_text() == DOCUMENT
    assert homes.says("a") == str(homes.path("a"))
    if verb == "delete":
        assert not homes.path("b").exists()
    else:
        assert homes.says("b") == str(homes.path("b"))


def test_a_copied_home_has_spaces_of_its_own(homes: Homes) -> None:
    """A snapshot of Btrfs has the same inodes and times: its space would be believed, if its path did not tell."""
    if homes.folder.joinpath("..").resolve().name == "btrfs":
        subprocess.run(["btrfs", "subvolume", "create", homes.folder / "a"], check=True)
        subprocess.run(["btrfs", "subvolume", "snapshot", homes.make("a"), homes.folder / "b"], check=True)
    else:
        subprocess.run(["cp", "-a", homes.make("a"), homes.folder / "b"], check=True)
    assert homes.states("b") == {"s": ("moved", str(homes.path("b")))}
    homes("b", "restore", "--space", "s")
    assert homes.says("b") == str(homes.path("b"))
    assert homes.says("a") == str(homes.path("a"))


@local
def test_a_space_below_the_home_moves_along(homes: Homes) -> None:
    homes.make("a")
    homes("a", "init", "--space", "in", "app", "--to", homes.folder / "a/envs/in")
    (homes.folder / "a").rename(homes.folder / "b")
    homes("b", "restore", "--space", "in")
    assert homes.says("b", "in") == str(homes.folder / "b/envs/in")
    assert not (homes.folder / "a").exists()
    # A directory there that only a copy tells of may be anything: a home can be a user's.
    subprocess.run(["cp", "-a", homes.folder / "b", homes.folder / "c"], check=True)
    assert "was copied" in homes("c", "restore", "--space", "in", code=1).stderr
    assert homes("c", "check", "--adopt", "--json").json() == {
        "spaces": [{"space": "in", "path": str(homes.folder / "c/envs/in"), "catalog": "app", "refused": None}]
    }
    homes("c", "restore", "--space", "in")
    assert homes.says("c", "in") == str(homes.folder / "c/envs/in")


@local
def test_a_home_with_two_paths_is_one(homes: Homes) -> None:
    homes.make("a")
    (homes.folder / "another-way").symlink_to("a")
    assert homes.says("another-way") == str(homes.path("a"))  # which leads there, too
    assert homes.states("another-way") == {"s": ("pristine", str(homes.path("another-way")))}
    homes("another-way", "restore", "--space", "s")
    assert homes.says("another-way") == str(homes.path("another-way"))
    assert homes.says("a") == str(homes.path("another-way"))


@local
def test_in_a_home_behind_a_symlink_the_folder_tells_the_space(homes: Homes) -> None:
    """The current folder is a real path, the record names the one through the symlink."""
    for name in ("home", "other"):
        (homes.folder / f"real-{name}").mkdir()
        (homes.folder / name).symlink_to(f"real-{name}")
    homes.make("home")
    to = homes.folder / "other" / "env"
    homes("home", "init", "t", "app", "--to", to)
    for name, path in (("s", homes.path("home")), ("t", to)):
        assert homes("home", "status", "--json", cwd=(path / "lib").resolve()).json()["space"] == name
    homes("home", "delete", "t")
    left = homes("home", "uninstall", "--yes", "--json").json()["left"]
    assert "a symlink to" in {item["path"]: item["why"] for item in left}[str(homes.folder / "home")]


@local
def test_a_moved_space_is_a_source_for_repairs(homes: Homes) -> None:
    """What was patched in it is taken back from its old path, which its files still name."""
    homes.settings.write_text("library: {compression: raw}\n")
    homes.make("a").rename(homes.folder / "b")
    for blob in (homes.folder / "b/hololib/library").glob("??/*"):
        blob.unlink()
    assert "all repaired" in homes("b", "check", "--repair").stdout
    homes("b", "restore", "--space", "s", "--verify")
    assert homes.says("b") == str(homes.path("b"))


@local
def test_the_mark_of_a_moved_space_tells_where_it_was(homes: Homes) -> None:
    homes.make("a").rename(homes.folder / "b")
    homes.record("b", "s").unlink()
    homes("b", "check", "--repair")
    assert homes.states("b")["s"] == ("moved", str(homes.path("b")))
    homes("b", "restore", "--space", "s")
    assert homes.says("b") == str(homes.path("b"))


@local
def test_what_a_killed_restore_left_is_removed_where_it_is_now(homes: Homes) -> None:
    homes.make("a")
    name = f".{homes.path('a').name}.holo-1"
    records.edit(homes.record("a", "s"), draft=name)
    (homes.folder / "a").rename(homes.folder / "b")
    for home in ("a", "b"):
        trees.write(homes.folder / home / "holotree" / name / "file")
    homes("b", "restore", "--space", "s")
    assert not (homes.folder / "b/holotree" / name).exists()
    assert (homes.folder / "a/holotree" / name / "file").exists()


@as_root
@local
def test_throw_away_environments_in_a_moved_home(homes: Homes) -> None:
    homes.make("a")
    run = ["run", "--ephemeral", "--space", "s", "--", "hello"]
    homes("a", *run)
    # Another one is killed, and its home is moved.
    new = homes.path("a", "new")
    command = ("sh", "-c", f"touch {homes.root}/begun; sleep 60")
    other = ("run", "--ephemeral", "--space", "new", "--catalog", "app", "--", *command)
    process = homes.forks.start(*other, env=homes.environment("a"))
    deadline = time.monotonic() + 60
    while not (homes.root / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    homes.forks.wait(process)
    assert new.is_dir()
    (homes.folder / "a").rename(homes.folder / "b")
    new.mkdir(parents=True)  # of another home, where another run appears
    assert homes("b", *run).stdout.split()[-1] == str(homes.path("b"))
    assert new.is_dir()
    assert not homes.path("b", "new").exists()


# -- elsewhere ------------------------------------------------------------------------------------------------------


COPIES: dict[str, Callable[[Path, Path], object]] = {
    "cp": lambda home, copy: subprocess.run(["cp", "-a", home, copy], check=True),
    "snapshot": lambda home, copy: subprocess.run(["btrfs", "subvolume", "snapshot", home, copy], check=True),
}
EVERYWHERE = [("cp", name) for name in filesystems.NAMES] + [("snapshot", "btrfs")]


def in_a_copy(space: str, to: Path) -> list[list[Any]]:
    """All commands that act on a space, or on what is at its path."""
    return [
        ["restore", "--space", space],
        ["restore", "--space", space, "--force"],
        ["restore", "--space", space, "--to", to],
        ["restore", "--to", to],
        ["restore", "--space", space, "--dry-run"],
        ["init", "--space", space, "app", "--to", to, "--force"],
        ["init", "--space", "new", "app", "--to", to, "--force"],
        ["delete", "--space", space],
        ["run", "--space", space, "--", "true"],
        ["run", "--ephemeral", "--space", space, "--", "true"],
        ["variables", "--space", space],
    ]


@pytest.mark.parametrize(("way", "filesystem"), EVERYWHERE, indirect=["filesystem"])
def test_a_copied_home_has_no_space_of_the_original(homes: Homes, way: str) -> None:
    if way == "snapshot":
        subprocess.run(["btrfs", "subvolume", "create", homes.folder / "a"], check=True)
    homes.make("a", out=True)
    COPIES[way](homes.folder / "a", homes.folder / "b")
    trees.write(homes.out / "document", DOCUMENT)
    for command in in_a_copy("out", homes.out):
        said = homes("b", *command, code=1).stderr
        assert f"belongs to the home {homes.folder / 'a'}, from which this one was copied" in said
        assert "--to" not in said
    assert homes.states("b")["out"] == ("copied", str(homes.out))
    assert f"belongs to the home {homes.folder / 'a'}" in homes("b", "check", "--adopt", code=1).stdout
    assert (homes.out / "document").read_text() == DOCUMENT
    homes("a", "restore", "--space", "out")
    homes.is_right(homes.out)


@pytest.mark.parametrize(("way", "filesystem"), EVERYWHERE, indirect=["filesystem"])
@pytest.mark.parametrize("strategy", ["smart", "hardlink"])
def test_a_backup_is_adopted(homes: Homes, way: str, strategy: str) -> None:
    if way == "snapshot":
        subprocess.run(["btrfs", "subvolume", "create", homes.folder / "a"], check=True)
    homes.make("a", out=True, strategy=strategy)
    COPIES[way](homes.folder / "a", homes.folder / "b")
    (homes.folder / "a").rename(homes.folder / "gone")
    for command in in_a_copy("out", homes.out):
        said = homes("b", *command, code=1).stderr
        assert f"only a file that was copied says that {homes.out} is space 'out'" in said
        assert "--to" not in said
        assert "holo check --adopt" in said
    trees.write(homes.out / "document", DOCUMENT)
    said = homes("b", "check", "--adopt").stdout
    assert f"space out (app) at {homes.out} belongs to this home from now on" in said
    assert (homes.out / "document").read_text() == DOCUMENT
    assert homes("b", "check", "--adopt").stdout.startswith("nothing to adopt")
    homes("b", "restore", "--space", "out", "--strategy", strategy)
    assert homes.says("b", "out") == str(homes.out)
    assert not (homes.out / "document").exists()
    homes("b", "delete", "--space", "out")
    assert not homes.out.exists()


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_a_snapshot_of_a_home_makes_golden_trees_of_its_own(homes: Homes) -> None:
    """In the place of those that it had, which are subvolumes, there are empty directories."""
    subprocess.run(["btrfs", "subvolume", "create", homes.folder / "a"], check=True)
    homes.make("a", strategy="smart")
    COPIES["snapshot"](homes.folder / "a", homes.folder / "b")
    homes("b", "init", "new", "app")
    homes.is_right(homes.path("b", "new"))
    assert homes("b", "init", "another", "app", "--json").json()["strategy"]["used"] == "snapshot"


def test_a_moved_home_keeps_its_spaces_elsewhere(homes: Homes) -> None:
    homes.make("a", out=True)
    (homes.folder / "a").rename(homes.folder / "b")
    assert homes.says("b", "out") == str(homes.out)
    homes.make("a")
    trees.write(homes.out / "extra")
    homes("b", "restore", "--space", "out")
    homes("b", "check", "--space", "out")
    homes("b", "delete", "--space", "out")
    assert not homes.out.exists()


@pytest.mark.parametrize("is_moved_first", [True, False])
@pytest.mark.parametrize("way", ["whole", "snapshot"])
def test_what_a_copy_adopts_is_no_more_of_a_home_that_was_moved(homes: Homes, way: str, is_moved_first: bool) -> None:
    """Nobody finds the moved home: both know the first path alone. It sees that something has replaced its space."""
    strategy = "smart" if way == "snapshot" else "copy"
    homes.make("a", out=True, strategy=strategy)
    if is_moved_first:
        (homes.folder / "a").rename(homes.folder / "moved")
        subprocess.run(["cp", "-a", homes.folder / "moved", homes.folder / "copy"], check=True)
    else:
        subprocess.run(["cp", "-a", homes.folder / "a", homes.folder / "copy"], check=True)
        (homes.folder / "a").rename(homes.folder / "moved")
    homes("copy", "check", "--adopt")
    trees.write(homes.out / "extra", DOCUMENT)
    for _ in range(2):  # the second time it is the copy's own
        homes("copy", "restore", "--space", "out", "--strategy", strategy)
        homes.is_right(homes.out)
        assert [path.name for path in homes.root.iterdir() if path.name.startswith(".out")] == []
    assert homes.states("copy")["out"][0] == "pristine"
    inode = homes.out.stat().st_ino
    homes("copy", "restore", "--space", "out", "--verify")
    assert homes.out.stat().st_ino == inode
    trees.write(homes.out / "document", DOCUMENT)
    for command in (["restore"], ["restore", "--dry-run"], ["init", "app"]):
        verb, *more = command
        assert "something has replaced it" in homes("moved", verb, "--space", "out", *more, code=1).stderr
    homes("moved", "delete", "--space", "out")
    assert (homes.out / "document").read_text() == DOCUMENT
    homes("copy", "restore", "--space", "out")
    homes("copy", "delete", "--space", "out")
    assert not homes.out.exists()


def test_who_insists_takes_a_directory_from_the_other_home(homes: Homes) -> None:
    homes.make("a", out=True)
    subprocess.run(["cp", "-a", homes.folder / "a", homes.folder / "copy"], check=True)
    (homes.folder / "a").rename(homes.folder / "moved")
    homes("copy", "check", "--adopt")
    homes("copy", "restore", "--space", "out")
    homes("moved", "restore", "--space", "out", "--force")
    homes.is_right(homes.out)
    assert "something has replaced it" in homes("copy", "restore", "--space", "out", code=1).stderr


@local
def test_what_cannot_be_restored_comes_back(homes: Homes) -> None:
    homes.settings.write_text("library: {compression: raw}\n")
    homes.make("a", out=True)
    subprocess.run(["cp", "-a", homes.folder / "a", homes.folder / "copy"], check=True)
    (homes.folder / "a").rename(homes.folder / "moved")
    homes("copy", "check", "--adopt")
    inode = homes.out.stat().st_ino
    content = (homes.source / "lib/data.txt").read_bytes()
    [path] = [path for path in (homes.folder / "copy/hololib/library").glob("??/*") if path.read_bytes() == content]
    path.chmod(0o600)
    path.write_bytes(b"x" * len(content))
    homes("copy", "restore", "--space", "out", "--verify", code=3)
    homes.is_right(homes.out)
    assert homes.out.stat().st_ino == inode
    assert [path.name for path in homes.root.iterdir() if path.name.startswith(".out")] == []
    shutil.rmtree(homes.folder / "copy/hololib/library")
    subprocess.run(["cp", "-a", homes.folder / "moved/hololib/library", homes.folder / "copy/hololib"], check=True)
    homes("copy", "restore", "--space", "out", "--verify")
    homes.is_right(homes.out)
    assert "something has replaced it" in homes("moved", "restore", "--space", "out", code=1).stderr


@local
def test_only_one_home_has_a_directory(homes: Homes) -> None:
    """A new home at the old path has taken over the directory that the moved one still knows."""
    homes.make("a", out=True)
    (homes.folder / "a").rename(homes.folder / "b")
    homes.make("a")
    homes("a", "init", "--space", "mine", "app", "--to", homes.out, "--force")
    trees.write(homes.out / "document", DOCUMENT)
    for command in in_a_copy("out", homes.out):
        assert f"belongs to the home {homes.folder / 'a'}" in homes("b", *command, code=1).stderr
    assert (homes.out / "document").read_text() == DOCUMENT


@as_root
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"], indirect=True)
def test_a_copy_of_a_whole_filesystem_has_no_space_of_the_original(
    filesystem: Filesystem, forks: Forks, tmp_path: Path
) -> None:
    """It has the inodes of the original."""
    image, copy = tmp_path / "image", tmp_path / "copy"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run([*filesystems.MKFS[filesystem.name], image], check=True)
    homes = Homes(filesystem.root, forks, tmp_path)
    options = "loop,nouuid" if filesystem.name == "xfs" else "loop"
    try:
        for folder in (tmp_path / "one", tmp_path / "two"):
            folder.mkdir()
        subprocess.run(["mount", "-o", options, image, tmp_path / "one"], check=True)
        homes.make("one/a", out=True)
        subprocess.run(["fsfreeze", "--freeze", tmp_path / "one"], check=True)
        try:
            shutil.copyfile(image, copy)
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", tmp_path / "one"], check=True)
        subprocess.run(["mount", "-o", options, copy, tmp_path / "two"], check=True)
        assert homes.record("one/a", "out").stat().st_ino == homes.record("two/a", "out").stat().st_ino
        trees.write(homes.out / "document", DOCUMENT)
        for command in in_a_copy("out", homes.out):
            assert f"belongs to the home {tmp_path / 'one/a'}" in homes("two/a", *command, code=1).stderr
        assert (homes.out / "document").read_text() == DOCUMENT
        homes("one/a", "restore", "--space", "out")
    finally:
        for name in ("one", "two"):
            filesystems.unmount(tmp_path / name)


def test_what_is_adopted_looks_like_its_catalog(homes: Homes) -> None:
    """A home that somebody else has made up names directories that no restore may empty."""
    homes.make("a", out=True)
    victim = homes.root / "victim"
    trees.write(victim / "document", DOCUMENT)
    for name in ("bin/hello", "lib/data.txt", "lib/other.txt"):  # the names can be guessed, contents cannot
        trees.write(victim / name, DOCUMENT)
    for path in (victim, homes.root / "not-there", homes.root, Path("/")):
        draft = homes.record("a", "out").with_suffix(".edited")
        draft.write_bytes(records.dump(records.read(homes.record("a", "out")) | {"path": str(path)}))
        draft.replace(homes.record("a", "out"))
        said = homes("a", "check", "--adopt", code=1).stdout
        assert f"space out (app) at {path} was not adopted" in said
        assert "was copied" in homes("a", "restore", "--space", "out", code=1).stderr
    assert (victim / "document").read_text() == DOCUMENT


@local
def test_adopt_reports_by_name_and_as_json(homes: Homes) -> None:
    homes.make("a", out=True)
    subprocess.run(["cp", "-a", homes.folder / "a", homes.folder / "b"], check=True)
    shutil.rmtree(homes.folder / "a")
    assert homes("b", "check", "--adopt", "--space", "s", "--json").json() == {"spaces": []}
    homes("b", "check", "--adopt", "--space", "nobody", code=1)
    homes("b", "check", "--adopt", "--repair", code=2)
    assert homes("b", "check", "--adopt", "--space", "out", "--json").json() == {
        "spaces": [{"space": "out", "path": str(homes.out), "catalog": "app", "refused": None}]
    }


# -- where nothing tells a copy --------------------------------------------------------------------------------------


def rewrite(record: Path, **changes: object) -> None:
    """Another document in the same file: what somebody else may have guessed the inode of."""
    data = records.dump(records.read(record) | changes)
    with record.open("r+b") as file:
        file.truncate(0)
        file.write(data)


def test_an_inode_alone_proves_nothing(homes: Homes) -> None:
    """An archive is unpacked to the same inodes each time, where they are counted up."""
    homes.make("a", out=True)
    victim = trees.write(homes.root / "victim/document", DOCUMENT)
    record = homes.record("a", "out")
    inode = record.stat().st_ino
    for identity in (f"{inode}", f"{inode}-0", f"{inode}-1", ""):
        rewrite(record, path=str(victim.parent), made_for=str(victim.parent), identity=identity)
        for command in (["restore"], ["restore", "--force"], ["delete"], ["run", "--ephemeral", "--", "true"]):
            verb, *more = command
            homes("a", verb, "--space", "out", *more, code=1)
        assert victim.read_text() == DOCUMENT


MOUNTS: dict[str, Callable[[Path, Path], list[str | Path]]] = {
    "ramfs": lambda _, target: ["mount", "-t", "ramfs", "ramfs", target],
    "fuse": lambda below, target: ["bindfs", below, target],
}


@pytest.fixture(params=MOUNTS)
def untold(request: pytest.FixtureRequest, filesystem: Filesystem, forks: Forks, tmp_path: Path) -> Iterator[Homes]:
    """Homes on a filesystem that does not tell a copy from its original."""
    (tmp_path / "below").mkdir()
    (tmp_path / "mount").mkdir()
    subprocess.run(MOUNTS[request.param](tmp_path / "below", tmp_path / "mount"), check=True)
    try:
        yield Homes(filesystem.root, forks, tmp_path / "mount")
    finally:
        filesystems.unmount(tmp_path / "mount")


@as_root
@local
def test_the_user_names_the_directory(untold: Homes) -> None:
    untold.make("a", out=True)
    trees.write(untold.out / "document", DOCUMENT)
    for command in (["restore"], ["restore", "--force"], ["restore", "--dry-run"], ["delete"], ["init", "app"]):
        verb, *more = command
        said = untold("a", verb, "--space", "out", *more, code=1).stderr
        assert f"nothing proves that {untold.out} is space 'out'" in said
        assert f"--to {untold.out}" not in said
    assert (untold.out / "document").read_text() == DOCUMENT
    assert untold.says("a", "out") == str(untold.out)
    untold("a", "restore", "--space", "out", "--to", untold.out)
    assert not (untold.out / "document").exists()
    again = untold("a", "restore", "--space", "out", "--to", untold.out, "--json").json()["files"]
    assert again["unchanged"] == again["total"]
    # At its default place it is this home's, whoever says so.
    trees.write(untold.path("a") / "extra")
    untold("a", "restore", "--space", "s")
    assert not (untold.path("a") / "extra").exists()
    untold("a", "delete", "--space", "s")


@as_root
@local
def test_a_forged_record_there_empties_nothing(untold: Homes) -> None:
    untold.make("a", out=True)
    victim = trees.write(untold.root / "victim/document", DOCUMENT)
    rewrite(untold.record("a", "out"), path=str(victim.parent), made_for=str(victim.parent))
    for command in (["restore"], ["delete"], ["restore", "--to", untold.out]):
        verb, *more = command
        untold("a", verb, "--space", "out", *more, code=1)
    assert victim.read_text() == DOCUMENT


@as_root
@local
def test_a_moved_home_there_counts_as_a_copy(untold: Homes) -> None:
    untold.make("a", out=True)
    (untold.folder / "a").rename(untold.folder / "b")
    for command in in_a_copy("out", untold.out):
        assert "only a file that was copied" in untold("b", *command, code=1).stderr
    untold("b", "check", "--adopt")
    assert untold.says("b", "out") == str(untold.out)
    untold("b", "restore", "--space", "out", "--to", untold.out)


@as_root
@pytest.mark.parametrize("filesystem", ["tmpfs", "ext4", "xfs"], indirect=True)
def test_overlays_tell_copies(filesystem: Filesystem, forks: Forks) -> None:
    folders = {name: filesystem.root / name for name in ("lower", "upper", "work", "merged")}
    for folder in folders.values():
        folder.mkdir()
    options = f"lowerdir={folders['lower']},upperdir={folders['upper']},workdir={folders['work']}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, folders["merged"]]
    subprocess.run(mount, check=True)
    try:
        homes = Homes(filesystem.root, forks, folders["merged"])
        homes.make("a", out=True)
        filesystems.unmount(folders["merged"])
        subprocess.run(mount, check=True)
        homes("a", "restore", "--space", "out")
        subprocess.run(["cp", "-a", homes.folder / "a", homes.folder / "b"], check=True)
        assert homes.states("b")["out"][0] == "copied"
    finally:
        filesystems.unmount(folders["merged"])


def identity(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return platform.identity(descriptor)
    finally:
        os.close(descriptor)


def test_a_file_keeps_its_identity_and_gives_it_to_no_copy(filesystem: Filesystem) -> None:
    file, other = filesystem.root / "file", filesystem.root / "other"
    file.write_bytes(b"content")
    own = identity(file)
    assert own
    file.rename(other)
    file.write_bytes(b"content")
    assert identity(other) == own
    assert identity(file) != own
    other.unlink()
    # The next files may have the inode again.
    for _ in range(100):
        other.write_bytes(b"content")
        assert identity(other) != own
        other.unlink()


@as_root
def test_two_filesystems_of_one_kind_give_different_identities(tmp_path: Path) -> None:
    """In memory the inodes are the same."""
    found = []
    for _ in range(2):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
        try:
            (tmp_path / "file").touch()
            found.append(((tmp_path / "file").stat().st_ino, identity(tmp_path / "file")))
        finally:
            filesystems.unmount(tmp_path)
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_a_snapshot_gives_its_files_other_identities(filesystem: Filesystem) -> None:
    volume, snapshot = filesystem.root / "volume", filesystem.root / "snapshot"
    subprocess.run(["btrfs", "subvolume", "create", volume], check=True)
    (volume / "file").touch()
    subprocess.run(["btrfs", "subvolume", "snapshot", volume, snapshot], check=True)
    assert (volume / "file").stat().st_ino == (snapshot / "file").stat().st_ino
    assert identity(volume / "file") != identity(snapshot / "file")
