"""`holo du`: what takes space, beside an account of every block that the tests make themselves by FIEMAP."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holo import Hololib
from holo.platform import extents
from support import fiemap, trees
from support.cli import Holo
from support.fiemap import BLOCK, blocks_of
from support.filesystems import Filesystem, remove
from support.forks import Forks, User

BIG = 3 << 20


def noise(seed: int, size: int = BIG) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def source(holo: Holo) -> Path:
    root = trees.small(holo.root / "source")
    for number in range(3):
        trees.write(root / "data" / f"{number}.bin", noise(number))
    trees.write(root / "script", f"#!{root}/bin/python\n" + noise(9, 50_000).hex())
    for number in range(40):
        trees.write(root / "tiny" / f"{number}", b"tiny %d\n" % number * 20)
    trees.settle(root)
    return root


@pytest.fixture
def env(holo: Holo, source: Path) -> Path:
    """Recorded, and gone: nothing but holo's has its blocks."""
    holo("record", source, "--name", "env")
    remove(source)
    return source


def du(holo: Holo, *what: Any) -> dict[str, Any]:
    """The items by their kinds and names."""
    os.sync()
    report = holo("du", *what, "--json").json()
    found = {f"{item['kind']} {item['name']}".strip(): item for item in report["items"]}
    assert len(found) == len(report["items"])
    return {**found, "total": report["total"], "notes": report["notes"]}


def init(holo: Holo, name: str, *options: Any) -> Path:
    return Path(holo("init", "--space", name, "env", *options, "--json").json()["path"])


def exclusive_of(mine: Path, *others: Path) -> int:
    return BLOCK * len(blocks_of(mine) - set().union(*map(blocks_of, others)))


def own_blocks(top: Path, filesystem: Filesystem) -> int:
    """What directories and symlinks have. On Btrfs that is metadata."""
    if filesystem.name == "btrfs":
        return 0
    paths = [top, *top.rglob("*")]
    return sum(path.lstat().st_blocks * 512 for path in paths if path.is_symlink() or path.is_dir())


def can_tell(filesystem: Filesystem) -> bool:
    return filesystem.name != "tmpfs"


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
def test_space_that_shares_everything(holo: Holo, filesystem: Filesystem, env: Path) -> None:
    space = init(holo, "one")
    found = du(holo, "one")
    item = found["space one"]
    assert item["files"] == sum(1 for _ in fiemap.regular_files(space))
    assert item["logical"] == sum(os.lstat(path).st_size for path in fiemap.regular_files(space))
    assert item["physical"] == BLOCK * len(blocks_of(space)) + own_blocks(space, filesystem)
    others = [holo.library / "library", holo.library / "golden"]
    assert item["exclusive"] == exclusive_of(space, *others) + own_blocks(space, filesystem)
    assert 100_000 <= item["exclusive"] < BIG  # the script names the space's path
    library = fiemap.common_bytes(space, holo.library / "library")
    assert item["shared"]["library"] == library >= 3 * BIG
    golden = fiemap.common_bytes(space, holo.library / "golden")
    assert item["shared"]["golden"] == golden
    assert (golden >= 3 * BIG) is (filesystem.name == "btrfs")
    assert item["shared"]["spaces"] == item["shared"]["elsewhere"] == 0


def test_every_row_is_what_its_files_have(holo: Holo, filesystem: Filesystem, env: Path) -> None:
    """All rows of the whole home, and what two spaces share with each other and with the library."""
    one, two = init(holo, "one"), init(holo, "two")
    found = du(holo)
    if not can_tell(filesystem):
        assert any("does not tell" in note for note in found["notes"])
        assert found["space one"]["exclusive"] == found["space one"]["physical"]
        return
    assert found["notes"] == []
    library = holo.library / "library"
    golden = holo.library / "golden"
    for item, tree, others in (
        ("space one", one, (two, library, golden)),
        ("space two", two, (one, library, golden)),
        ("library", library, (one, two, golden)),
    ):
        metadata = own_blocks(tree, filesystem)
        assert found[item]["physical"] == BLOCK * len(blocks_of(tree)) + metadata, item
        assert found[item]["exclusive"] == exclusive_of(tree, *others) + metadata, item
    shared = fiemap.common_bytes(one, two)
    assert found["space one"]["shared"]["spaces"] == found["space two"]["shared"]["spaces"] == shared
    assert (shared > 0) is filesystem.reflinks
    whole = BLOCK * len(blocks_of(holo.home)) + own_blocks(holo.home, filesystem)
    assert found["total"]["exclusive"] == found["total"]["physical"] == whole


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
def test_edited_file_is_its_own(holo: Holo, filesystem: Filesystem, env: Path) -> None:
    space = init(holo, "one")
    before = du(holo, "one")["space one"]
    with (space / "data" / "0.bin").open("r+b") as file:
        file.seek(BIG // 2)
        file.write(noise(50, 10 * BLOCK))
    (space / "data" / "1.bin").write_bytes(noise(51))
    after = du(holo, "one")["space one"]
    assert after["exclusive"] - before["exclusive"] == 10 * BLOCK + BIG
    assert after["logical"] == before["logical"]
    assert after["exclusive"] == exclusive_of(space, holo.library) + own_blocks(space, filesystem)


def test_copy_shares_nothing(holo: Holo, filesystem: Filesystem, env: Path) -> None:
    init(holo, "one", "--strategy", "copy")
    item = du(holo, "one")["space one"]
    assert item["exclusive"] == item["physical"] >= 3 * BIG
    assert set(item["shared"].values()) == {0}


def test_hardlinks_count_once_and_are_shared(holo: Holo, filesystem: Filesystem, env: Path) -> None:
    """With the link forms of the library; a name that holo does not know is elsewhere."""
    space = init(holo, "one", "--strategy", "hardlink")
    item = du(holo, "one")["space one"]
    assert item["shared"]["library"] >= 3 * BIG
    assert item["exclusive"] < BIG
    assert item["shared"]["elsewhere"] == 0
    again = space / "again"
    os.link(space / "data" / "0.bin", again)
    assert du(holo, "one")["space one"] == {**item, "exclusive": item["exclusive"]}
    os.link(space / "data" / "0.bin", holo.root / "outside")
    assert du(holo, "one")["space one"]["shared"]["elsewhere"] == BIG
    catalog = du(holo, "env")["catalog env"]
    assert catalog["shared"]["spaces"] >= 3 * BIG


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
def test_reflink_that_holo_knows_nothing_of(holo: Holo, filesystem: Filesystem, env: Path) -> None:
    """It is neither exclusive, nor does removing everything free it."""
    space = init(holo, "one")
    trees.write(space / "mine", noise(70))
    subprocess.run(["cp", "--reflink=always", space / "mine", holo.root / "outside"], check=True)
    found = du(holo)
    assert found["space one"]["shared"]["elsewhere"] == BIG
    assert found["total"]["shared"]["elsewhere"] == BIG
    assert found["total"]["physical"] - found["total"]["exclusive"] == BIG


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
def test_recorded_tree_still_has_what_was_cloned_from_it(holo: Holo, filesystem: Filesystem, source: Path) -> None:
    """The kernel says only that blocks are shared. The library, the space and the tree all have them."""
    holo("record", source, "--name", "env")
    init(holo, "one")
    found = du(holo)
    assert found["total"]["shared"]["elsewhere"] >= 3 * BIG
    assert found["total"]["exclusive"] == exclusive_of(holo.home, source) + own_blocks(holo.home, filesystem)
    beside = du(holo, source)[f"path {source}"]
    assert beside["exclusive"] == exclusive_of(source, holo.home) + own_blocks(source, filesystem)


def test_holes_take_nothing(holo: Holo, filesystem: Filesystem) -> None:
    folder = holo.root / "sparse"
    folder.mkdir()
    with (folder / "file").open("wb") as file:
        file.seek(BIG)
        file.write(noise(1, 3 * BLOCK))
        file.truncate(2 * BIG)
    with (folder / "nothing").open("wb") as file:
        file.truncate(BIG)
    item = du(holo, folder)[f"path {folder}"]
    assert item["logical"] == 3 * BIG
    assert item["physical"] - own_blocks(folder, filesystem) in (3 * BLOCK, 4 * BLOCK)
    assert item["inline"] == 0


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_small_files_are_in_the_metadata(holo: Holo, env: Path) -> None:
    space = init(holo, "one")
    item = du(holo, "one")["space one"]
    tiny = [path for path in fiemap.regular_files(space) if fiemap.is_inline(path)]
    assert len(tiny) >= 40
    assert item["inline"] == sum(os.lstat(path).st_size for path in tiny)
    assert "in small files" in holo("du", "one").stdout


@pytest.mark.parametrize("filesystem", ["btrfs-alone"], indirect=True)
def test_compressed_files_take_what_they_take_on_the_disk(
    holo: Holo, filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FIEMAP and stat both tell the size in memory."""
    folder = holo.root / "squeezed"
    folder.mkdir()
    subprocess.run(["chattr", "+c", folder], check=True)
    before = free(filesystem)
    (folder / "text").write_bytes(b"many times the same words\n" * (4 * BIG // 26))
    (folder / "noise").write_bytes(noise(3))
    subprocess.run(["cp", "--reflink=always", folder / "text", folder / "clone"], check=True)
    item = du(holo, folder)[f"path {folder}"]
    taken = before - free(filesystem)
    assert item["logical"] > 8 * BIG
    assert BIG < item["physical"] < 2 * BIG
    assert abs(taken - item["physical"]) < BIG // 2
    assert item["exclusive"] == item["physical"]
    assert du(holo, folder)["notes"] == []

    monkeypatch.setattr(extents, "_sizes", lambda descriptor: {})  # as it is for all but root
    report = Hololib(holo.home).usage(folder)
    assert item["physical"] <= report.total.physical < item["logical"]
    assert any("compressed" in note for note in report.notes)


@pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)
def test_space_on_another_filesystem(holo: Holo, env: Path, tmp_path: Path, mounts: Any) -> None:
    """Its blocks have the same numbers as others on the first disk."""
    elsewhere = mounts.get("btrfs") / "usage-elsewhere"
    elsewhere.mkdir()
    try:
        init(holo, "near")
        space = init(holo, "far", "--to", elsewhere / "space")
        found = du(holo)
        assert found["space far"]["exclusive"] == found["space far"]["physical"] == BLOCK * len(blocks_of(space))
        assert found["space near"]["shared"] == found["space far"]["shared"]
        assert set(found["space far"]["shared"].values()) == {0}
        assert du(holo, "far")["space far"] == found["space far"]
    finally:
        remove(elsewhere)


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
def test_catalog_has_its_blobs_and_frees_those_of_no_other(holo: Holo, env: Path) -> None:
    other = trees.write(holo.root / "other" / "0.bin", noise(0)).parent
    trees.write(other / "new.bin", noise(80))
    holo("record", other, "--name", "other")
    remove(other)
    found = du(holo, "env", "other")
    assert found["catalog env"]["physical"] >= 3 * BIG
    assert found["catalog other"]["physical"] == 2 * BIG
    assert found["catalog other"]["exclusive"] == BIG
    assert found["catalog other"]["shared"]["library"] == BIG
    assert found["total"]["exclusive"] == found["total"]["physical"]
    assert du(holo, "other")["catalog other"] == found["catalog other"]


def test_part_of_a_space_is_not_shared_with_the_rest(holo: Holo, filesystem: Filesystem, env: Path) -> None:
    space = init(holo, "one", "--strategy", "copy")
    item = du(holo, space / "data")[f"path {space / 'data'}"]
    assert item["exclusive"] == item["physical"] == 3 * BIG + own_blocks(space / "data", filesystem)
    both = du(holo, "one", space / "data" / "1.bin")
    assert both[f"path {space / 'data' / '1.bin'}"]["exclusive"] == BIG
    assert both["space one"]["exclusive"] == both["space one"]["physical"] == both["total"]["physical"] > 3 * BIG
    assert both["space one"] == du(holo, space)["path " + str(space)] | {"kind": "space", "name": "one"}


@pytest.mark.parametrize("filesystem", ["btrfs-alone", "xfs-alone", "ext4-alone"], indirect=True)
def test_total_is_what_removing_everything_frees(holo: Holo, filesystem: Filesystem, env: Path) -> None:
    """Beside statvfs before and after. The filesystem's own trees, inodes and logs change as well: 1 MB is allowed."""
    space = init(holo, "one")
    init(holo, "two", "--strategy", "hardlink")
    init(holo, "three", "--strategy", "copy")
    init(holo, "four", "--to", holo.root / "outside")
    (space / "data" / "1.bin").write_bytes(noise(51))
    if filesystem.reflinks:
        subprocess.run(["cp", "--reflink=always", space / "data" / "1.bin", holo.root / "kept"], check=True)
    else:
        os.link(space / "data" / "1.bin", holo.root / "kept")
    total = du(holo)["total"]
    assert total["exclusive"] >= 6 * BIG
    assert total["shared"]["elsewhere"] == BIG
    before = free(filesystem)
    remove(holo.home)
    remove(holo.root / "outside")
    wanted = total["exclusive"] + total["inline"]
    for _ in range(100):  # what the filesystem removes in the background
        freed = free(filesystem) - before
        if abs(freed - wanted) < 1 << 20:
            return
        time.sleep(0.1)
    raise AssertionError(f"{freed:,} bytes were freed, not {wanted:,}")


def free(filesystem: Filesystem) -> int:
    os.sync()
    if filesystem.name == "btrfs":
        subprocess.run(["btrfs", "filesystem", "sync", filesystem.root], check=True)
        subprocess.run(["btrfs", "subvolume", "sync", filesystem.root], check=True, stdout=subprocess.DEVNULL)
    status = os.statvfs(filesystem.root)
    return status.f_bfree * status.f_frsize


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
def test_what_is_not_written_yet_is_told(holo: Holo) -> None:
    folder = holo.root / "fresh"
    folder.mkdir()
    os.sync()
    (folder / "file").write_bytes(noise(1))
    report = Hololib(holo.home).usage(folder)
    assert report.total.pending in (0, BIG)  # the kernel may be quick
    assert report.total.pending == 0 or any("not on the disk yet" in note for note in report.notes)
    assert report.total.exclusive == report.total.physical >= BIG


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_file_in_another_snapshot_that_was_changed_is_asked_for(holo: Holo, env: Path) -> None:
    """Those of equal inode and ctime are taken for copies, so the others must be told apart."""
    one, two = init(holo, "one"), init(holo, "two")
    for path in (two / "data").iterdir():
        path.write_bytes(noise(99))
    item = du(holo, "one")["space one"]
    shared = fiemap.common_bytes(one, two)
    assert item["shared"]["spaces"] == shared < BIG
    assert item["shared"]["golden"] >= 3 * BIG


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_folder_around_the_recorded_tree_has_all_of_it(holo: Holo, source: Path) -> None:
    holo("record", source, "--name", "env")
    init(holo, "one")
    found = du(holo, holo.root)[f"path {holo.root}"]
    assert found["exclusive"] == found["physical"] == BLOCK * len(blocks_of(holo.root))
    assert found["files"] == sum(1 for _ in fiemap.regular_files(holo.root))


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_trees_of_throw_away_environments(holo: Holo, env: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user may not be able to mount")
    holo("run", "--ephemeral", "--catalog", "env", "--", "true")
    tree = next(holo.holotree.glob(".ephemeral-*"))
    found = du(holo)
    assert found["ephemeral"]["files"] == sum(1 for _ in fiemap.regular_files(tree)) > 40
    assert "throw-away environments" in holo("du").stdout


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_ordinary_user_may_not_read_everything(holo: Holo, env: Path, forks: Forks) -> None:
    space = init(holo, "one")
    for folder in holo.root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    (space / "data" / "0.bin").chmod(0o600)
    result = forks("du", space, "--json", env=holo.environment(), user=User(1001))
    report = result.json()
    assert any("may not read" in note for note in report["notes"])
    assert report["total"]["files"] == sum(1 for _ in fiemap.regular_files(space))
    assert report["total"]["shared"]["library"] >= 2 * BIG


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_what_is_mounted_in_a_space_is_no_part_of_it(holo: Holo, env: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    space = init(holo, "one")
    before = du(holo, "one")
    (space / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", space / "mounted"], check=True)
    (space / "mounted" / "file").write_bytes(noise(1))
    found = du(holo, "one")
    assert found["space one"]["files"] == before["space one"]["files"]
    assert found["notes"] == [f"{space / 'mounted'} is left out: something is mounted there"]


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
class TestShown:
    def test_names_that_are_nothing(self, holo: Holo, env: Path) -> None:
        assert "no space, catalog or path 'nope'" in holo("du", "nope", code=1).stderr
        assert "no path 'no/pe'" in holo("du", "no/pe", code=1).stderr
        assert "is empty" in holo("du", "", code=2).stderr
        init(holo, "one")
        shutil.rmtree(holo("list", "--json").json()["spaces"][0]["path"])
        assert "is gone" in holo("du", "one", code=1).stderr

    def test_empty_home(self, holo: Holo) -> None:
        report = holo("du", "--json").json()
        assert report["total"]["files"] == report["total"]["physical"] == 0
        assert not holo.home.exists()

    def test_space_that_is_called_as_a_catalog(self, holo: Holo, env: Path) -> None:
        holo("init", "--space", "env", "env")
        result = holo("du", "env", "--json")
        assert [item["kind"] for item in result.json()["items"]] == ["space"]
        assert "not the catalog of that name" in result.stderr

    def test_largest_first_and_within_80_columns(self, holo: Holo, env: Path) -> None:
        init(holo, "one")
        init(holo, "a-space-with-a-longer-name")
        report = holo("du", "--json").json()
        sizes = [item["physical"] for item in report["items"]]
        assert sizes == sorted(sizes, reverse=True)
        lines = holo("du").stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert "\x1b" not in "".join(lines)
        assert lines[0].split() == ["FILES", "SIZE", "ON", "DISK", "EXCLUSIVE", "SHARED", "WHAT"]
        assert lines[len(sizes) + 1].endswith("total")

    def test_bars_on_a_terminal(self, holo: Holo, env: Path) -> None:
        init(holo, "one", "--strategy", "copy")
        shown = on_terminal(holo, {})
        assert "\x1b[36m█" in shown
        assert "\x1b[36m" not in on_terminal(holo, {"NO_COLOR": "1"})
        bars = [line for line in shown.splitlines() if "█" in line]
        assert bars
        assert max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in bars) <= 80

    @pytest.mark.parametrize("name", ["chart.svg", "chart.html"])
    def test_picture(self, holo: Holo, env: Path, name: str) -> None:
        init(holo, "one", "--strategy", "copy")
        holo("du", "--output", name)
        picture = (holo.root / name).read_text()
        assert picture.startswith("<!DOCTYPE html>" if name.endswith("html") else "<svg")
        assert "space one" in picture
        assert picture.count("<rect") >= 2
        assert "no folder" in holo("du", "--output", "no/where.svg", code=1).stderr
        assert "/proc/c.svg." not in holo("du", "--output", "/proc/c.svg", code=1 if os.geteuid() == 0 else 2).stderr
        assert "a path is empty" in holo("du", "--output", "", code=2).stderr
        for other in ("chart.png", "chart", "-"):
            assert "neither SVG nor HTML by its name" in holo("du", "--output", other, code=2).stderr
        odd = holo.root / os.fsdecode(b"\xff\n<&>")
        trees.write(odd, b"x" * 5000)
        holo("du", odd, "--output", name)
        assert "&lt;&amp;&gt;" in (holo.root / name).read_text()


def on_terminal(holo: Holo, env: dict[str, str]) -> str:
    import pty
    import sys

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "holo", "du"],
        env=holo.environment({"TERM": "xterm", "COLUMNS": "80", **env}),
        stdin=subprocess.DEVNULL,
        stdout=follower,
    )
    os.close(follower)

    def output() -> Iterator[bytes]:
        while True:
            try:
                yield os.read(leader, 1 << 16)
            except OSError:  # EIO: the other end is closed
                return

    shown = b"".join(output())
    os.close(leader)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_many_spaces_need_few_open_files(holo: Holo, filesystem: Filesystem) -> None:
    """And each is accounted for alone, however they lie beside each other."""
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    library = Hololib(holo.home)
    library.init("first", "env", strategy="copy")
    first, tree = library.space("first"), library.home.spaces
    for number in range(50):
        path = holo.root / f"projects/{number % 7}/{number}/.venv"
        shutil.copytree(first.path, path, symlinks=True)
        tree.save(first._replace(name=f"job-{number}", path=str(path), made_for=str(path), root=""))
    holo.launcher = ("sh", "-c", 'ulimit -n 48; exec "$@"', "sh")
    os.sync()
    found = du(holo)
    assert sum(item["kind"] == "space" for item in found.values() if isinstance(item, dict)) == 51
    for key in ("files", "logical", "physical", "exclusive"):
        assert {found[f"space job-{number}"][key] for number in range(50)} == {found["space first"][key]}
    named = du(holo, holo.root / "projects/3", "job-3")
    assert named[f"path {holo.root}/projects/3"]["files"] == 7 * named["space job-3"]["files"]
    assert named["total"]["files"] == 7 * named["space job-3"]["files"]
    assert named["total"]["exclusive"] == named[f"path {holo.root}/projects/3"]["exclusive"]
