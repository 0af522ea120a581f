"""Spares: finished trees that new spaces take, and that deleted spaces become."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from holo import Hololib, platform
from holo.home import Home
from holo.settings import Strategy
from holo.spares import start as background_start
from holo.trees.held import is_held
from holo.trees.spares import Spares
from support import trees
from support.cli import Holo, another_boot, eventually
from support.compare import differences
from support.filesystems import Filesystem
from support.machines import Make

private = pytest.mark.parametrize("filesystem", ["xfs", "ext4"], indirect=True)
one_disk = pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)


def home_of(holo: Holo) -> Home:
    return Hololib(holo.home).home


def spares_of(holo: Holo) -> Spares:
    return Spares(home_of(holo).spaces)


def ready(holo: Holo) -> list[dict[str, Any]]:
    return [spare for spare in holo("spares", "--json").json()["spares"] if spare["state"] == "ready"]


def fill(holo: Holo, each: str = "0", strategy: str = "smart") -> None:
    """What a command leaves to a process in the background, to its end. Another one may be at it."""
    command = [sys.executable, "-m", "holo.spares", holo.home, "auto", strategy, each, ""]
    for _ in range(2):
        subprocess.run([*holo.launcher, *command], check=True, env=holo.environment())
        eventually(lambda: not is_held(spares_of(holo).filling))


@contextmanager
def nothing_filled(holo: Holo) -> Iterator[None]:
    """Nobody makes spares in the background meanwhile."""
    from holo.hololib.locks import locked

    spares = spares_of(holo)
    spares.prepare()
    with locked(spares.filling, "spares", exclusive=True):
        yield


@pytest.fixture
def source(holo: Holo, filesystem: Filesystem) -> Path:
    """Recorded; nothing is kept of it yet."""
    root = trees.small(holo.root / "source")
    for number in range(30):
        trees.write(root / "lib" / f"package{number % 3}" / f"{number}.py", f"x = {number}\n" * 50)
    os.symlink(root / "bin" / "hello", root / "hello")
    trees.settle(root)
    root.chmod(0o755)
    holo("record", root, "--name", "env")
    return root


def init(holo: Holo, name: str, *options: str | os.PathLike[str]) -> dict[str, Any]:
    found: dict[str, Any] = holo("init", name, "env", *options, "--json").json()
    return found


def is_whole(holo: Holo, name: str) -> bool:
    """Nothing is to be made, although everything is hashed."""
    found = holo("restore", name, "--verify", "--dry-run", "--json").json()
    return not (found["files"] or found["remove"] or found["directories"] or found["symlinks"])


@private
def test_a_new_space_is_a_spare_and_differs_in_nothing(holo: Holo, filesystem: Filesystem, source: Path) -> None:
    report = holo("spares", "env", "--keep", "1", "--json").json()
    assert [(spare["catalog"], spare["state"]) for spare in report["spares"]] == [("env", "ready")]
    (spare,) = ready(holo)
    inode = os.stat(Path(spare["path"]) / "lib" / "data.txt").st_ino
    with nothing_filled(holo):
        made = init(holo, "one")
        assert made["spare"] is True
        assert made["strategy"]["used"] == ("reflink" if filesystem.reflinks else "copy")
        assert ready(holo) == []
        plain = init(holo, "two")
    assert "spare" not in plain
    assert made["files"] == plain["files"]
    assert made["bytes"] == plain["bytes"]
    one, two = Path(made["path"]), Path(plain["path"])
    assert os.stat(one / "lib" / "data.txt").st_ino == inode
    assert differences(source, one) == []
    assert subprocess.check_output([one / "bin" / "hello"], text=True) == f"hello from {one}\n"
    assert os.readlink(one / "hello") == str(one / "bin" / "hello")
    assert one.stat().st_mode == two.stat().st_mode
    assert one.stat().st_mtime_ns == two.stat().st_mtime_ns
    assert is_whole(holo, "one")
    assert holo("status", "one", "--json").json()["state"] == "pristine"
    assert holo("restore", "one", "--json").json()["files"]["unchanged"] == made["files"]["total"]


@private
def test_nothing_is_imported_that_a_spare_does_not_need(holo: Holo, source: Path) -> None:
    """Imports take more than half of the time."""
    holo("spares", "env", "--keep", "1")
    watched = [sys.executable, "-X", "importtime", "-m", "holo", "init", "one", "env", "--json"]
    env = holo.environment({"HOLO_SETTINGS": os.devnull})
    with nothing_filled(holo):
        done = subprocess.run(watched, env=env, cwd=holo.root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["spare"] is True
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "holo.restore" in imported
    assert not imported & {"base64", "threading", "subprocess", "zstandard", "holo.restore.mounting"}


@one_disk
def test_a_spare_takes_the_place_of_a_changed_space(holo: Holo, source: Path) -> None:
    space = Path(init(holo, "one")["path"])
    holo("spares", "env", "--keep", "1")
    (space / "lib" / "extra.txt").write_text("extra")
    (space / "lib" / "data.txt").unlink()
    old = space.stat().st_ino
    with nothing_filled(holo):
        report = holo("restore", "one", "--json").json()
        assert (report["spare"], report["files"]["removed"]) == (True, 1)
        assert space.stat().st_ino != old
        # The old tree goes back, and is made a spare: without what was added, and with what is missing.
        (unfinished,) = holo("spares", "--json").json()["spares"]
        assert unfinished["state"] == "unfinished"
        assert os.stat(unfinished["path"]).st_ino == old
        assert is_whole(holo, "one")
    fill(holo)
    (spare,) = ready(holo)
    assert os.stat(spare["path"]).st_ino == old
    with nothing_filled(holo):
        taken = init(holo, "two")
    assert taken["spare"] is True
    assert os.stat(taken["path"]).st_ino == old
    assert is_whole(holo, "two")


@private
def test_delete_is_a_rename_where_a_spare_is_wanted(holo: Holo, source: Path) -> None:
    space = Path(init(holo, "one")["path"])
    inode = space.stat().st_ino
    (space / "secret").write_text("mine")
    (space / "lib" / "data.txt").write_text("edited")
    space.chmod(0o500)
    Spares(home_of(holo).spaces).keep({holo("catalogs", "env", "--json").json()["catalogs"][0]["digest"]: 1})
    with nothing_filled(holo):
        holo("delete", "one")
        assert not space.exists()
        assert holo("list", "--json").json()["spaces"] == []
        (spare,) = holo("spares", "--json").json()["spares"]
        assert (spare["state"], os.stat(spare["path"]).st_ino) == ("unfinished", inode)
        made = init(holo, "two")
        assert "spare" not in made, "it is not finished"
        holo("delete", "two")
        assert len(holo("spares", "--json").json()["spares"]) == 1, "one is enough"
    fill(holo)
    with nothing_filled(holo):
        made = init(holo, "three")
        assert made["spare"] is True
        assert not (Path(made["path"]) / "secret").exists()
        assert is_whole(holo, "three")


@one_disk
@pytest.mark.parametrize("who", ["writes", "maps", "is in it", "has a folder open"])
def test_a_tree_in_which_somebody_works_is_no_spare(holo: Holo, source: Path, who: str) -> None:
    space = Path(init(holo, "one")["path"])
    holo("spares", "env", "--keep", "1")
    with nothing_filled(holo):
        init(holo, "two")
        program = {
            "writes": "f = open('lib/data.txt', 'r+'); os.chdir('/')",
            "maps": "f = open('lib/data.txt', 'r+'); m = mmap.mmap(f.fileno(), 0); f.close(); os.chdir('/')",
            "is in it": "os.chdir('lib')",
            "has a folder open": "d = os.open('lib', os.O_RDONLY); os.chdir('/')",
        }[who]
        script = f"import os, mmap; {program}; print('there', flush=True); input()"
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=space, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        holo("delete", "one")
        (spare,) = holo("spares", "--json").json()["spares"]
        assert spare["state"] == "unfinished"
    try:
        fill(holo)
        assert not Path(spare["path"]).exists()
        (made,) = ready(holo)  # another one is made
        assert made["name"] != spare["name"]
    finally:
        process.communicate(b"\n")


@one_disk
@pytest.mark.parametrize("what", ["file", "folder", "symlink", "group"])
def test_a_tree_that_belongs_to_others_is_no_spare(holo: Holo, source: Path, what: str) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    space = Path(init(holo, "one")["path"])
    holo("spares", "env", "--keep", "1")
    place = space / {"file": "lib/data.txt", "folder": "lib", "symlink": "hello", "group": "."}[what]
    os.chown(place, *(0, 4711) if what == "group" else (4711, 0), follow_symlinks=False)
    with nothing_filled(holo):
        init(holo, "two")
        holo("delete", "one")
    fill(holo)
    (made,) = ready(holo)
    theirs = [path for path in Path(made["path"]).rglob("*") if path.lstat().st_uid or path.lstat().st_gid]
    assert [theirs, os.stat(made["path"]).st_gid] == [[], 0]


@one_disk
@pytest.mark.parametrize("part", [".", "lib"])
def test_a_tree_that_is_mounted_elsewhere_is_no_spare(holo: Holo, source: Path, part: str) -> None:
    """In a container, say, which goes on in it."""
    if os.geteuid():
        pytest.skip("only root mounts")
    space, there = Path(init(holo, "one")["path"]), holo.root / "there"
    there.mkdir()
    holo("spares", "env", "--keep", "1")
    script = f"mount --bind {space / part} {there} && echo mounted && read go && echo {there}/*"
    container = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdin=-1, stdout=-1, text=True)
    assert container.stdout is not None
    assert container.stdout.readline() == "mounted\n"
    with nothing_filled(holo):
        init(holo, "two")
        holo("delete", "one")
    fill(holo)
    assert len(ready(holo)) == 1
    assert container.communicate("go\n")[0] == f"{there}/*\n"


@one_disk
@pytest.mark.parametrize("what", ["added", "removed", "renamed", "mode", "folder exchanged", "outline"])
def test_a_spare_that_was_changed_is_dropped(holo: Holo, source: Path, what: str) -> None:
    holo("spares", "env", "--keep", "1")
    (spare,) = ready(holo)
    tree = Path(spare["path"])
    if what == "added":
        (tree / "lib" / "deep" / "new").touch()
    elif what == "removed":
        (tree / "lib" / "package1" / "1.py").unlink()
    elif what == "renamed":
        (tree / "lib" / "data.txt").rename(tree / "lib" / "package0" / "data.txt")
    elif what == "mode":
        (tree / "lib" / "deep").chmod(0o777)
    elif what == "outline":
        tree.with_name(f"{tree.name}.outline").write_text("damaged")
    else:
        shutil.copytree(tree / "lib" / "deep", tree / "lib" / "copy", symlinks=True)
        shutil.rmtree(tree / "lib" / "deep")
        (tree / "lib" / "copy").rename(tree / "lib" / "deep")
    with nothing_filled(holo):
        assert "spare" not in init(holo, "one")
        assert not tree.exists()
    assert is_whole(holo, "one")


@one_disk
def test_an_edit_in_place_shows_at_the_next_look(holo: Holo, source: Path) -> None:
    """No directory tells of it, so the space has it; but its stamp is that of the spare."""
    holo("spares", "env", "--keep", "1")
    (spare,) = ready(holo)
    path = Path(spare["path"]) / "lib" / "data.txt"
    before = path.stat()
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(b"DATA")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert init(holo, "one")["spare"] is True
    status = holo("status", "one", "--json").json()
    assert status["state"] == "changed"
    report = holo("restore", "one", "--json").json()
    assert report["files"]["copied"] == 1
    assert (Path(report["path"]) / "lib" / "data.txt").read_bytes() == content


@one_disk
def test_after_a_restart_a_spare_is_hashed_before_it_counts(holo: Holo, source: Path) -> None:
    if os.geteuid():
        pytest.skip("only root mounts")
    holo("spares", "env", "--keep", "1")
    (spare,) = ready(holo)
    torn = Path(spare["path"]) / "lib" / "data.txt"
    before = torn.stat()
    torn.write_bytes(bytes(before.st_size))
    os.utime(torn, ns=(before.st_atime_ns, before.st_mtime_ns))
    with nothing_filled(holo):
        holo.launcher = another_boot(holo.root)
        assert "spare" not in init(holo, "one")
    fill(holo)
    with nothing_filled(holo):
        assert init(holo, "two")["spare"] is True
    assert is_whole(holo, "two")


@pytest.mark.parametrize("filesystem", ["xfs"], indirect=True)
def test_only_a_spare_of_the_same_strategy_counts(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "1")
    with nothing_filled(holo):
        for options in (["--strategy", "copy"], ["--strategy", "hardlink"], ["--verify"]):
            assert "spare" not in init(holo, "-".join(options).strip("-"), *options)
        assert init(holo, "one")["spare"] is True


@one_disk
@pytest.mark.parametrize("strategy", ["hardlink", "overlay"])
def test_a_strategy_that_takes_no_spare_keeps_none(holo: Holo, source: Path, strategy: str) -> None:
    """A spare is a full copy here, and would lie there for nothing."""
    holo.settings.write_text(f"holotree: {{restoration-strategy: {strategy}, spares: 2}}\n")
    refused = holo("spares", "env", "--keep", "1", code=1)
    assert f"new spaces are made by the strategy {strategy}" in refused.stderr
    fill(holo, "2", strategy)
    assert spares_of(holo).all() == []


@one_disk
def test_only_what_a_new_space_takes_is_ready_or_to_be_made(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "1")
    assert [wish["keep"] for wish in holo("spares", "--json").json()["keep"]] == [1]
    holo.settings.write_text("holotree: {restoration-strategy: hardlink}\n")
    shown = holo("spares", "--json").json()
    assert [[spare["state"] for spare in shown["spares"]], shown["keep"]] == [["unfinished"], []]
    holo.settings.write_text("holotree: {restoration-strategy: copy}\n")
    shown = holo("spares", "--json").json()
    assert [[spare["state"] for spare in shown["spares"]], len(shown["keep"])] == [["unfinished"], 1]


@one_disk
def test_auto_keeps_none_where_files_are_copied_but_what_is_asked_for(holo: Holo, source: Path) -> None:
    holo.settings.write_text("holotree: {spares: auto}\n")
    init(holo, "one")
    assert "to be made" not in holo("spares").stdout
    holo("spares", "env", "--keep", "1")
    assert [len(ready(holo)), init(holo, "two")["spare"]] == [1, True]
    eventually(lambda: len(ready(holo)) == 1)


@pytest.mark.parametrize("filesystem", ["xfs"], indirect=True)
def test_spares_follow_the_strategy(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "2")
    names = {spare["name"] for spare in ready(holo)}
    holo.settings.write_text("holotree: {restoration-strategy: copy}\n")
    holo("spares", "env", "--keep", "2")
    assert {spare["name"] for spare in ready(holo)} == names
    with nothing_filled(holo):
        assert init(holo, "one")["spare"] is True
    holo.settings.write_text("")
    fill(holo)
    with nothing_filled(holo):
        assert init(holo, "two")["spare"] is True
        assert is_whole(holo, "two")


@one_disk
def test_what_a_space_has_to_say_of_itself_is_no_spare(holo: Holo, source: Path) -> None:
    """Each says which attributes it cannot have."""
    if os.geteuid():
        pytest.skip("only root mounts")
    os.setxattr(source / "lib" / "data.txt", "user.origin", b"here")
    holo("record", source, "--name", "env")
    holo.holotree.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "ramfs", "ramfs", holo.holotree], check=True)
    try:
        assert "attributes could not be given" in holo("init", "one", "env").stderr
        assert "exactly as recorded" in holo("spares", "env", "--keep", "1", code=1).stderr
        spares_of(holo).keep({"env": 1})
        with nothing_filled(holo):
            holo("delete", "one")
            assert len(spares_of(holo).unfinished()) == 1
        fill(holo)
        assert spares_of(holo).all() == []
        assert "attributes could not be given" in holo("init", "two", "env").stderr
    finally:
        subprocess.run(["umount", "--lazy", holo.holotree], check=True)


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
@pytest.mark.parametrize("user", [0, 1000, 60001, (1 << 32) - 2])
def test_no_path_is_longer_than_that_of_a_space(holo: Holo, user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a binary it would have no room."""
    monkeypatch.setattr(platform, "user_id", lambda: user)
    spares, spaces = spares_of(holo), home_of(holo).spaces
    spare = spares.default_path(spares.new_name("0123456789abcdef" * 4))
    assert len(spare) <= len(spaces.default_path("one"))
    assert str(user) in spare


@one_disk
def test_a_space_in_a_folder_of_another_group_is_made(holo: Holo, source: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    holo("spares", "env", "--keep", "1")
    for group, is_spare in ((4711, False), (os.getegid(), True)):
        team = holo.root / f"team-{group}"
        team.mkdir()
        os.chown(team, -1, group)
        team.chmod(0o2775)
        made = init(holo, f"one-{group}", "--to", team / "space")
        assert made.get("spare", False) is is_spare
        assert {path.lstat().st_gid for path in (team / "space").rglob("*")} == {group}


@one_disk
def test_a_space_on_another_disk_is_made(holo: Holo, machine: Make, source: Path) -> None:
    elsewhere = machine("xfs").root / "space"
    holo("spares", "env", "--keep", "1")
    with nothing_filled(holo):
        assert "spare" not in init(holo, "one", "--to", elsewhere)
        assert len(ready(holo)) == 1
    assert is_whole(holo, "one")


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_where_a_space_is_a_snapshot_no_spare_is_of_use(holo: Holo, source: Path) -> None:
    init(holo, "one")
    failed = holo("spares", "env", "--keep", "1", code=1)
    assert "a new space is one snapshot" in failed.stderr
    assert holo("spares", "--json").json() == {"spares": [], "keep": [], "filling": False}


@pytest.mark.parametrize(
    ("filesystem", "wanted", "count"),
    [("xfs", "auto", 1), ("ext4", "auto", 0), ("ext4", "2", 2)],
    indirect=["filesystem"],
)
def test_the_settings_keep_spares_of_what_was_used_lately(holo: Holo, source: Path, wanted: str, count: int) -> None:
    holo("record", trees.small(holo.root / "other"), "--name", "other")
    then = time.time() - 8 * 86_400
    for mark in (holo.library / "used").iterdir():
        os.utime(mark, (then, then))
    holo.settings.write_text(f"holotree: {{spares: {wanted}}}\nlibrary: {{min-free: 1000TB}}\n")
    init(holo, "one")
    assert ready(holo) == [], "the disk is too full"
    holo.settings.write_text(f"holotree: {{spares: {wanted}}}\n")
    init(holo, "two")
    eventually(lambda: len(ready(holo)) == count)
    eventually(lambda: not holo("spares", "--json").json()["filling"])
    assert {spare["catalog"] for spare in ready(holo)} <= {"env"}


@one_disk
def test_fewer_are_kept_and_none(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "2")
    paths = [Path(spare["path"]) for spare in ready(holo)]
    assert [os.stat(spares_of(holo).path).st_mode & 0o777, len(paths)] == [0o700, 2]
    shown = holo("spares").stdout
    assert shown.count("ready") == 2
    both = holo("list", "--all", "--json").json()
    assert [len(both["spaces"]), len(both["spares"])] == [0, 2]
    assert holo("list", "--all").stdout.count("ready") == 2
    assert "spares" in [item["kind"] for item in holo("du", "--json").json()["items"]]
    holo("spares", "env", "--keep", "1")
    assert len(ready(holo)) == 1
    holo("spares", "env", "--keep", "0")
    assert not any(path.exists() for path in paths)
    assert holo("spares", "--keep", "1", code=2).stderr.startswith("error: --keep needs a catalog")
    assert "no catalog" in holo("spares", "nothing", "--keep", "1", code=1).stderr
    assert "--keep must be a number from 0 up, not 'x'" in holo("spares", "env", "--keep", "x", code=2).stderr


@one_disk
@pytest.mark.parametrize("why", ["Ctrl-C", "settings", "not used lately", "removed"])
def test_too_many_are_removed_in_the_background(holo: Holo, source: Path, why: str) -> None:
    if why == "Ctrl-C":
        making = holo.start("spares", "env", "--keep", "32")
        eventually(lambda: len(spares_of(holo).ready()) > 1)
        making.send_signal(signal.SIGINT)
        making.communicate()
        assert spares_of(holo).wishes() == {}
    else:
        holo.settings.write_text("holotree: {spares: 2}\n")
        fill(holo, "2")
    assert len(spares_of(holo).ready()) > 1
    other = trees.small(holo.root / "other")
    if why == "settings":
        holo.settings.write_text("")
    elif why == "not used lately":
        for used in (holo.library / "used").iterdir():
            os.utime(used, (0, 0))
    elif why == "removed":
        holo("catalogs", "env", "--remove")
    beginning = {name[:5] for name in spares_of(holo).all()}
    holo("record", other, "--name", "other")
    holo("init", "of-other", "other")
    eventually(lambda: not beginning & {name[:5] for name in spares_of(holo).all()})


@one_disk
def test_where_the_disk_is_too_full_nothing_stays_given_back(holo: Holo, source: Path) -> None:
    init(holo, "one")
    spares_of(holo).keep({holo("catalogs", "env", "--json").json()["catalogs"][0]["digest"]: 1})
    holo.settings.write_text("library: {min-free: 900TB}\n")
    with nothing_filled(holo):
        holo("delete", "one")
        assert len(spares_of(holo).unfinished()) == 1
        assert background_start(home_of(holo), Strategy.SMART, 900 << 40)
    background_start(home_of(holo), Strategy.SMART, 900 << 40)
    eventually(lambda: spares_of(holo).all() == [])


@one_disk
def test_spares_are_kept_of_what_a_name_means(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "1")
    digest = ready(holo)[0]["digest"]
    trees.write(source / "lib" / "more", "more")
    holo("record", source, "--name", "env")
    new = holo("catalogs", "env", "--json").json()["catalogs"][0]["digest"]
    assert new != digest
    eventually(lambda: [spare["digest"] for spare in holo("spares", "--json").json()["spares"]] == [new])
    eventually(lambda: len(ready(holo)) == 1)
    assert init(holo, "one")["spare"] is True
    holo("spares", digest, "--keep", "2")
    assert {wish["digest"]: wish["keep"] for wish in holo("spares", "--json").json()["keep"]} == {digest: 2, new: 1}
    holo("record", source, "--name", "other")
    holo("spares", "other", "--keep", "3")
    assert spares_of(holo).wishes() == {digest: 2, "other": 3}, "it is the same catalog as env"


@one_disk
def test_check_reads_spares_and_drops_a_damaged_one(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "1")
    assert holo("check", "--json").json()["golden"] == 1
    (spare,) = ready(holo)
    path = Path(spare["path"]) / "lib" / "data.txt"
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (problem,) = holo("check", "--json", code=3).json()["problems"]
    assert (problem["kind"], problem["path"]) == ("golden", spare["path"])
    holo("check", "--repair")
    assert not Path(spare["path"]).exists()
    holo("check")


@one_disk
def test_gc_drops_spares_before_catalogs(holo: Holo, source: Path) -> None:
    holo("record", trees.small(holo.root / "other"), "--name", "other")
    holo("spares", "env", "--keep", "1")
    holo("spares", "other", "--keep", "1")
    with nothing_filled(holo):
        assert holo("gc", "--json").json()["removed"]["spares"] == 0
        stray = Path(spares_of(holo).path) / "0123456789"
        trees.write(stray / "file", "left by a killed command, whose record a power cut took")
        holo("catalogs", "--remove", "other")
        assert holo("gc", "--dry-run", "--json").json()["removed"]["spares"] == 1
        assert holo("gc", "--json").json()["removed"]["spares"] == 1
        assert not stray.exists()
        assert len(ready(holo)) == 1
        collected = holo("gc", "--max-size", "1kB", "--dry-run", "--json").json()
        assert collected["removed"]["spares"] == 1
        collected = holo("gc", "--max-size", "1kB", "--json").json()
        assert collected["removed"]["spares"] == 1
        assert ready(holo) == []


@one_disk
def test_uninstall_removes_spares(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "1")
    assert spares_of(holo).path in holo("uninstall", "--json").json()["removed"]
    assert not holo.home.exists()


STUCK = """
import time
import holo.spares
holo.spares.make_equal = lambda *_: print("making", flush=True) or time.sleep(10**6)
holo.spares.main()
"""


@one_disk
def test_making_gives_way_and_is_gone_on_with(holo: Holo, source: Path) -> None:
    spares_of(holo).keep({holo("catalogs", "env", "--json").json()["catalogs"][0]["digest"]: 1})
    command = [sys.executable, "-c", STUCK, holo.home, "auto", "smart", "0", ""]
    making = subprocess.Popen(command, env=holo.environment(), stdout=subprocess.PIPE, text=True)
    assert making.stdout is not None
    assert making.stdout.readline() == "making\n"
    assert holo("list", "--all", "--json").json()["filling"] is True
    assert "spare" not in init(holo, "one"), "it does not wait for a spare"
    assert making.poll() is None, "nor does anything keep others from making one"
    holo("gc")  # nobody else may use the library meanwhile
    assert making.wait() == 0
    making.stdout.close()
    fill(holo)
    assert len(ready(holo)) == 1


@one_disk
def test_making_can_be_killed_at_any_moment(holo: Holo, source: Path) -> None:
    spares_of(holo).keep({holo("catalogs", "env", "--json").json()["catalogs"][0]["digest"]: 2})
    command = [sys.executable, "-m", "holo.spares", holo.home, "auto", "smart", "0", ""]
    for number in range(8):
        making = subprocess.Popen(command, env=holo.environment())
        with suppress(subprocess.TimeoutExpired):
            making.wait(0.1 + number * 0.04)
        making.kill()
        making.wait()
    fill(holo)
    names = {spare["name"] for spare in ready(holo)}
    assert len(names) == 2
    folder = Path(spares_of(holo).path)
    assert {path.name.partition(".")[0] for path in folder.iterdir() if path.name[0] != "."} == names
    with nothing_filled(holo):
        for name in ("one", "two"):
            assert init(holo, name)["spare"] is True
            assert is_whole(holo, name)


@one_disk
def test_many_at_once_get_a_tree_each(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "3")
    started = [holo.start("init", f"space-{number}", "env", "--json") for number in range(6)]
    results = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 6, results
    inodes = {os.stat(spares_of(holo).home + "/holotree").st_ino}
    for number in range(6):
        assert is_whole(holo, f"space-{number}")
        inodes.add(os.stat(holo("status", f"space-{number}", "--json").json()["path"]).st_ino)
    assert len(inodes) == 7
    eventually(lambda: len(ready(holo)) == 3)


@one_disk
def test_folder_of_another_user_is_not_looked_into(holo: Holo, source: Path) -> None:
    """In a shared holotree anybody can make something of that name."""
    holo("spares", "env", "--keep", "1")
    folder = Path(spares_of(holo).path)
    folder.rename(holo.root / "theirs")
    folder.symlink_to(holo.root / "theirs")
    before = sorted((holo.root / "theirs").rglob("*"))
    assert "spare" not in init(holo, "one")
    holo("delete", "one")
    holo("gc")
    assert holo("spares", "--json").json() == {"spares": [], "keep": [], "filling": False}
    assert sorted((holo.root / "theirs").rglob("*")) == before


@one_disk
def test_folder_that_others_may_write_to_holds_no_spares(holo: Holo, source: Path) -> None:
    holo("spares", "env", "--keep", "1")
    os.chmod(spares_of(holo).path, 0o777)
    assert "spare" not in init(holo, "one")
    failed = holo("spares", "env", "--keep", "2", code=1)
    assert "yours alone" in failed.stderr
    assert "`chmod 700` it" in failed.stderr
    for command in (["spares"], ["list", "--all"]):
        assert "yours alone, so nothing in it counts" in holo(*command).stderr
    os.chmod(spares_of(holo).path, 0o700)
    assert holo("spares").stderr == ""
    assert len(ready(holo)) == 1


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_a_full_disk_keeps_no_half_a_spare(holo: Holo, source: Path) -> None:
    if os.geteuid():
        pytest.skip("only root mounts")
    big = trees.write(holo.root / "big" / "file", os.urandom(3 << 20)).parent
    holo("record", big, "--name", "big")
    holo.holotree.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", holo.holotree], check=True)
    try:
        failed = holo("spares", "big", "--keep", "1", code=1)
        assert "No space left on device" in failed.stderr
        assert holo("spares", "--json").json() == {"spares": [], "keep": [], "filling": False}
        assert not any(path.name[0] != "." for path in Path(spares_of(holo).path).iterdir())
        holo.settings.write_text("holotree: {spares: 1}\n")
        holo("init", "one", "env")
        eventually(lambda: len(ready(holo)) == 1)
        assert {spare["catalog"] for spare in ready(holo)} == {"env"}
    finally:
        subprocess.run(["umount", "--lazy", holo.holotree], check=True)


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_a_catalog_without_a_name_takes_room_as_well(holo: Holo, source: Path) -> None:
    if os.geteuid():
        pytest.skip("only root mounts")
    (source / "large").write_bytes(os.urandom(3 << 20))
    holo("record", source, "--name", "env")
    holo.holotree.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", holo.holotree], check=True)
    try:
        home = home_of(holo)
        digest = home.library.catalogs.resolve("env").digest
        spares_of(holo).keep({digest: 1})
        assert not background_start(home, Strategy.SMART, None)
        holo("record", trees.small(holo.root / "other"), "--name", "env")
        assert not background_start(home, Strategy.SMART, None)
        os.truncate(home.library.catalogs.path(digest), 100)
        assert not background_start(home, Strategy.SMART, None)
    finally:
        subprocess.run(["umount", "--lazy", holo.holotree], check=True)


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
@pytest.mark.parametrize("said", [None, 2])
def test_what_was_kept_before_a_failure_is_kept_after_it(holo: Holo, source: Path, said: int | None) -> None:
    if os.geteuid():
        pytest.skip("only root mounts")
    big = trees.write(holo.root / "big" / "file", os.urandom(3 << 20)).parent
    holo("record", big, "--name", "big")
    holo.holotree.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=11M", "tmpfs", holo.holotree], check=True)
    try:
        if said is None:
            holo.settings.write_text("holotree: {spares: 2}\n")
        else:
            holo("spares", "big", "--keep", str(said))
        failed = holo("spares", "big", "--keep", "9", code=1)
        assert "No space left on device" in failed.stderr
        assert "Nothing was made." in failed.stderr
        assert "holo restore" not in failed.stderr
        assert len(spares_of(holo).all()) == 2
        assert [wish["keep"] for wish in holo("spares", "big", "--json").json()["keep"]] == [2]
        assert [*spares_of(holo).wishes().values()] == ([] if said is None else [said])
    finally:
        subprocess.run(["umount", "--lazy", holo.holotree], check=True)
