"""Whole-tree snapshots on Btrfs: golden trees, spaces that are snapshots of them, and the exchange of a dirty one."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import stat
import subprocess
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holo import Hololib, platform
from support import compare, fiemap, records, trees
from support.cli import Holo

pytestmark = [
    pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True),
    # xdist has threads; the child only forks once more, and ends by _exit.
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

USER = 54_321
MANY = 600
"""Changes that are worth a new snapshot."""
SUBVOLUME = 256
"""The inode number of the root of every subvolume."""


@pytest.fixture
def source(holo: Holo) -> Path:
    # The path is longer than a space's, so that binaries can be patched.
    root = trees.nasty(Path(str(holo.root / "source").ljust(112, "-")), xattrs=True)
    for number in range(MANY):
        trees.write(root / "many" / f"file-{number}", f"{number}\n" * 2000)
    trees.settle(root)
    holo("record", root, "--name", "env")
    return root


def init(holo: Holo, space: str, *more: str) -> tuple[Path, dict[str, Any]]:
    report = holo("init", "--space", space, "env", "--json", *more).json()
    path = Path(report["path"])
    if report["strategy"]["used"] == "snapshot":
        assert shares_with_golden(holo, path)
    return path, report


def shares_with_golden(holo: Holo, space: Path) -> bool:
    """Whether a space and a golden tree have blocks in common, whatever a report says."""
    os.sync()
    return any(fiemap.common_bytes(space, tree) > 0 for tree in golden(holo))


def golden(holo: Holo) -> list[Path]:
    """The golden trees, without their outlines."""
    return [path for path in (holo.library / "golden").glob("[!.]*") if path.suffix != ".json"]


def damage(space: Path) -> None:
    for number in range(MANY):
        (space / "many" / f"file-{number}").write_text("damaged")


@pytest.mark.parametrize("more", [[], ["--strategy", "reflink"], ["--strict"]], ids=["smart", "reflink", "strict"])
def test_new_space_is_a_snapshot_that_equals_its_source(holo: Holo, source: Path, more: list[str]) -> None:
    space, report = init(holo, "one", *more)
    assert report["strategy"]["used"] == "snapshot"
    assert report["strategy"]["reason"] is None
    assert space.stat().st_ino == SUBVOLUME
    files = report["files"]
    assert files["copied"] == files["relocated"] > 10
    assert files["reflinked"] == files["total"] - files["copied"]
    assert report["bytes"]["shared"] + report["bytes"]["written"] == report["bytes"]["total"]
    assert compare.differences(source, space, library=holo.library) == []
    for file in fiemap.regular_files(space):
        content = Path(os.fsdecode(file)).read_bytes()
        if fiemap.extents(file) and os.fsencode(space) not in content:
            assert fiemap.is_shared(file) or fiemap.is_inline(file), file


@pytest.mark.parametrize("strategy", ["copy", "hardlink"])
def test_other_strategies_are_no_snapshots(holo: Holo, source: Path, strategy: str) -> None:
    _, report = init(holo, "one", "--strategy", strategy)
    assert report["strategy"]["used"] == strategy
    assert golden(holo) == []


def test_golden_tree_is_made_once_and_cannot_be_changed(holo: Holo, source: Path) -> None:
    init(holo, "one")
    (tree,) = golden(holo)
    before = compare.snapshot(tree)
    with pytest.raises(OSError, match="Read-only"):
        (tree / "names" / "new").write_text("x")
    init(holo, "two")
    assert golden(holo) == [tree]
    assert compare.snapshot(tree) == before


def test_spaces_do_not_see_each_other(holo: Holo, source: Path) -> None:
    one, _ = init(holo, "one")
    two, _ = init(holo, "two")
    before = compare.snapshot(two)
    damage(one)
    shutil.rmtree(one / "names")
    assert compare.snapshot(two) == before
    three, _ = init(holo, "three")
    assert compare.differences(source, three, library=holo.library) == []


def test_space_that_is_pristine_is_not_touched(holo: Holo, source: Path) -> None:
    space, _ = init(holo, "one")
    before = compare.snapshot(space)
    report = holo("restore", "--space", "one", "--json").json()
    assert report["files"]["unchanged"] == report["files"]["total"]
    assert report["strategy"]["used"] == "snapshot"
    assert compare.snapshot(space) == before


def test_few_edits_are_repaired_in_place(holo: Holo, source: Path) -> None:
    space, _ = init(holo, "one")
    inode = (space / "many" / "file-2").stat().st_ino
    (space / "many" / "file-1").write_text("damaged")
    report = holo("restore", "--space", "one", "--json").json()
    assert report["files"]["unchanged"] == report["files"]["total"] - 1
    assert (space / "many" / "file-2").stat().st_ino == inode
    assert compare.differences(source, space, library=holo.library) == []


@pytest.mark.parametrize(
    ("change", "removed"),
    [
        ("rm many/file-1", 0),
        ("rm -r names", 0),
        ("touch many/new", 1),
        ("mkdir many/empty", 0),
        ("mkdir -p a/b && touch a/1 a/2 a/b/3 && ln -s x a/b/4", 4),
        ("mv many other && ln -s other many", 600),
        ("rm -r many && touch many", 0),
    ],
)
def test_whatever_is_added_or_removed_is_a_new_snapshot(holo: Holo, source: Path, change: str, removed: int) -> None:
    space, _ = init(holo, "one")
    subprocess.run(change, shell=True, cwd=space, check=True)
    report = holo("restore", "--space", "one", "--json").json()
    assert report["strategy"]["used"] == "snapshot"
    assert shares_with_golden(holo, space)
    assert (report["files"]["unchanged"], report["files"]["removed"]) == (0, removed)
    assert compare.differences(source, space, library=holo.library) == []


def test_many_changes_are_a_new_snapshot_in_one_step(holo: Holo, source: Path) -> None:
    space, _ = init(holo, "one")
    damage(space)
    (space / "extra").mkdir()
    (space / "extra" / "file").write_text("extra")
    report = holo("restore", "--space", "one", "--json").json()
    assert report["strategy"]["used"] == "snapshot"
    assert shares_with_golden(holo, space)
    assert report["files"]["unchanged"] == 0
    assert compare.differences(source, space, library=holo.library) == []
    assert os.listdir(space.parent).count(space.name) == 1
    assert [name for name in os.listdir(space.parent) if ".holo-" in name] == []
    again = holo("restore", "--space", "one", "--json").json()
    assert again["files"]["unchanged"] == again["files"]["total"]


def test_plain_directory_is_exchanged_for_a_snapshot(holo: Holo, source: Path) -> None:
    space, report = init(holo, "one", "--strategy", "copy")
    assert report["strategy"]["used"] == "copy"
    assert space.stat().st_ino != SUBVOLUME
    damage(space)
    assert holo("restore", "--space", "one", "--json").json()["strategy"]["used"] == "snapshot"
    assert shares_with_golden(holo, space)
    assert space.stat().st_ino == SUBVOLUME
    assert compare.differences(source, space, library=holo.library) == []


def test_who_works_in_the_old_space_goes_on(holo: Holo, source: Path) -> None:
    space, _ = init(holo, "one")
    script = "read go; cat many/file-7 names/mine; exec sleep 0"
    (space / "names" / "mine").write_text("my own")
    worker = subprocess.Popen(["sh", "-c", script], cwd=space, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder = (space / "many" / "file-8").open()
    damage(space)
    holo("restore", "--space", "one")
    assert holder.read() == "damaged"
    holder.close()
    # The old tree is deleted, but a process in it can still be told so and end in peace.
    worker.communicate("go\n", timeout=20)
    assert worker.returncode == 0
    assert not (space / "names" / "mine").exists()


def test_new_space_needs_no_more_than_the_outline(holo: Holo, source: Path) -> None:
    """The whole catalog is not read for it: 22,000 rows take longer than the snapshot."""
    init(holo, "one")
    (catalog,) = (holo.library / "catalog").glob("*.json")
    content = catalog.read_bytes()
    catalog.write_bytes(content.replace(b"many", b"fewy"))
    space, report = init(holo, "two")
    catalog.write_bytes(content)
    assert report["strategy"]["used"] == "snapshot"
    assert report["files"]["total"] == report["files"]["reflinked"] + report["files"]["copied"]
    assert compare.differences(source, space, library=holo.library) == []


def test_damaged_outline_is_not_used(holo: Holo, source: Path) -> None:
    init(holo, "one")
    (outline,) = (holo.library / "golden").glob("*.json")
    outline.write_bytes(outline.read_bytes()[:-10])
    space, report = init(holo, "two")
    assert report["strategy"]["used"] == "snapshot"
    assert compare.differences(source, space, library=holo.library) == []


def test_lost_golden_tree_is_made_again(holo: Holo, source: Path) -> None:
    init(holo, "one")
    (tree,) = golden(holo)
    subprocess.run(["btrfs", "subvolume", "delete", tree], check=True, capture_output=True)
    space, report = init(holo, "two")
    assert report["strategy"]["used"] == "snapshot"
    assert compare.differences(source, space, library=holo.library) == []


@pytest.mark.parametrize("protected", [True, False], ids=["protected-again", "left-writable"])
def test_golden_tree_that_was_changed_is_made_again(holo: Holo, source: Path, protected: bool) -> None:
    init(holo, "one")
    (tree,) = golden(holo)
    subprocess.run(["btrfs", "property", "set", "-f", tree, "ro", "false"], check=True)
    (tree / "many" / "file-1").write_bytes(b"changed, and not even written out yet")
    if protected:
        subprocess.run(["btrfs", "property", "set", "-f", tree, "ro", "true"], check=True)
    for name in ("two", "three"):
        space, report = init(holo, name)
        assert report["strategy"]["used"] == "snapshot"
        assert compare.differences(source, space, library=holo.library) == []
    assert (tree / "many" / "file-1").read_bytes() == b"1\n" * 2000


def test_golden_tree_goes_with_its_catalog(holo: Holo, source: Path) -> None:
    init(holo, "one")
    assert [item["golden"] for item in holo("catalogs", "--json").json()["catalogs"]] == [True]
    holo("catalogs", "--remove", "env")
    assert [*(holo.library / "golden").glob("[!.]*")] == []


def test_deleted_space_is_gone(holo: Holo, source: Path) -> None:
    space, _ = init(holo, "one")
    holo("delete", "--space", "one")
    assert not space.exists()
    assert holo("list", "--json").json() == {"spaces": []}


def test_space_of_another_catalog_is_a_snapshot_of_that(holo: Holo, source: Path) -> None:
    space, _ = init(holo, "one")
    other = trees.small(holo.root / "other")
    for number in range(MANY):
        trees.write(other / f"{number}", f"{number}")
    trees.settle(other)
    holo("record", other, "--name", "other")
    report = holo("restore", "--space", "one", "--catalog", "other", "--json").json()
    assert report["strategy"]["used"] == "snapshot"
    assert shares_with_golden(holo, space)
    assert compare.differences(other, space, library=holo.library) == []


def test_space_on_another_filesystem_is_copied(holo: Holo, source: Path, tmp_path: Path) -> None:
    report = holo("init", "--space", "one", "env", "--to", tmp_path / "space", "--json").json()
    assert report["strategy"]["used"] == "copy"
    assert "reflink" in report["strategy"]["reason"]
    assert golden(holo) == []


def test_what_a_killed_restore_left_is_removed(holo: Holo, source: Path) -> None:
    space, _ = init(holo, "one")
    damage(space)
    # Killed between the snapshot and the exchange: the new tree stands beside the space, and is known.
    draft = f".{space.name}.holo-0123abcd"
    subprocess.run(["btrfs", "subvolume", "snapshot", golden(holo)[0], space.parent / draft], check=True, stdout=-3)
    record = holo.holotree / ".spaces" / "one.json"
    records.edit(record, state="restoring", draft=draft)
    holo("restore", "--space", "one")
    assert not (space.parent / draft).exists()
    assert compare.differences(source, space, library=holo.library) == []


def test_killed_at_any_moment_the_next_restore_completes_it(holo: Holo, source: Path) -> None:
    space, _ = init(holo, "one")
    for delay in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4):
        damage(space)
        victim = holo.start("restore", "--space", "one")
        time.sleep(delay)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        holo("restore", "--space", "one")
        assert compare.differences(source, space, library=holo.library) == []
        assert [name for name in os.listdir(space.parent) if ".holo-" in name] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_ordinary_user(holo: Holo, source: Path) -> None:
    """They may make snapshots but not, as a rule, delete subvolumes: these are emptied and removed."""
    subprocess.run(["chown", "-R", f"{USER}:{USER}", holo.root], check=True)
    for folder in holo.root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)

    def restore(library: Hololib) -> None:
        report = library.init("one", "env")
        assert report.strategy.used == "snapshot"
        damage(Path(report.path))
        assert library.restore("one").strategy.used == "snapshot"

    def remove(library: Hololib) -> None:
        library.delete("one")
        library.remove_catalog("env")

    library = Hololib(holo.home)
    as_user(restore, library)
    space = Path(library.home.spaces.default_path("one"))
    assert [name for name in os.listdir(space.parent) if ".holo-" in name] == []
    assert shares_with_golden(holo, space)
    left = compare.differences(source, space, library=holo.library)
    assert [line for line in left if "security.capability" not in line] == []
    as_user(remove, library)
    assert not space.exists()
    assert golden(holo) == []


def in_user_library(holo: Holo) -> Hololib:
    subprocess.run(["chown", "-R", f"{USER}:{USER}", holo.root], check=True)
    for folder in holo.root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    return Hololib(holo.home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_golden_tree_that_is_half_removed_is_not_used(holo: Holo, source: Path) -> None:
    library = in_user_library(holo)

    def remove_and_be_killed(library: Hololib) -> None:
        remove_file, left = platform.remove_file, iter(range(20))

        def kill(directory: platform.Directory, name: str) -> None:
            if next(left, None) is None:
                os._exit(0)
            remove_file(directory, name)

        library.init("one", "env")
        platform.remove_file = kill  # only in this process
        library.remove_catalog("env")
        os._exit(1)  # not killed

    shutil.copytree(holo.library, holo.root / "copy")
    as_user(remove_and_be_killed, library)
    for folder in ("catalog", "names"):  # as if it had been recorded again
        shutil.copytree(holo.root / "copy" / folder, holo.library / folder, dirs_exist_ok=True)
    as_user(lambda library: library.init("two", "env") and None, library)
    left = compare.differences(source, Path(library.home.spaces.default_path("two")), library=holo.library)
    assert [line for line in left if "security.capability" not in line] == []
    left = [name for name in os.listdir(holo.library / "golden") if name != ".lock" and not name.endswith(".json")]
    assert len(left) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_space_belongs_to_its_maker(holo: Holo, source: Path) -> None:
    """A snapshot would belong to whom the golden tree does, who could then change what root runs."""
    library = in_user_library(holo)
    as_user(lambda library: library.init("one", "env") and None, library)
    report = library.init("two", "env")
    assert report.strategy.used == "reflink"
    assert {path.lstat().st_uid for path in Path(report.path).rglob("*")} == {0}


def test_golden_tree_is_made_once_for_many_at_a_time(holo: Holo, source: Path) -> None:
    library = Hololib(holo.home)
    draft = holo.library / "golden" / ".draft-of-a-killed-one"
    draft.mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        reports = [*pool.map(lambda name: library.init(name, "env"), ["one", "two", "three", "four"])]
    for report in reports:
        assert report.strategy.used == "snapshot"
        assert shares_with_golden(holo, Path(report.path))
        assert compare.differences(source, Path(report.path), library=holo.library) == []
    assert len(golden(holo)) == 1
    assert not draft.exists()


def as_user(work: Callable[[Hololib], None], library: Hololib) -> None:
    """Run ``work`` in a process of an ordinary user; everything is imported before, for they may not reach it."""
    for module in (
        "ctypes",
        "pickle",
        "zstandard",
        "holo.restore",
        "holo.hololib.unsettled",
        "holo.hololib.links",
        "holo.catalog",
    ):
        importlib.import_module(module)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            work(library)
        except BaseException:  # noqa: BLE001 - the parent must not go on in the child
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_modes_of_the_root_are_kept(holo: Holo) -> None:
    root = trees.small(holo.root / "guarded")
    root.chmod(0o2750)
    trees.settle(root)
    holo("record", root, "--name", "env", "--keep-setid")
    space, report = init(holo, "one")
    assert report["strategy"]["used"] == "snapshot"
    assert stat.S_IMODE(space.stat().st_mode) == 0o2750
    assert space.stat().st_mtime_ns == root.stat().st_mtime_ns
