"""Disks that are full, read-only or failing, and limits: one clear message, nothing lost, and then it goes on."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import compare, disks, fiemap, trees
from support.cli import Argument, Holo, Result, another_boot
from support.disks import Disk
from support.filesystems import Unavailable, skip
from support.forks import ForkedHolo, Forks
from support.libraries import catalogs

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(
        sys.platform != "linux" or getattr(os, "geteuid", int)() != 0, reason="only root mounts filesystems, on Linux"
    ),
]

STRATEGIES = ["smart", "reflink", "hardlink", "copy"]
USER = 54_321

Note = Callable[[int, str, int], None]
MakeDisk = Callable[..., Disk]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="holo-")).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_disk(folder: Path, below: Path) -> Iterator[MakeDisk]:
    with ExitStack() as mounted:

        def make(name: str, size: int, *options: str, folder: Path = folder) -> Disk:
            try:
                disk = Disk(name, folder, size, options)
                mounted.callback(disk.unmount)
                disk.mount()
            except Unavailable as unavailable:
                skip(str(unavailable))
            return disk

        yield make


@pytest.fixture
def below(folder: Path) -> Iterator[Path]:
    """A tmpfs for an image, whose size can be changed at any time."""
    path = folder / "below"
    path.mkdir()
    disks.run("mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", path)
    yield path
    disks.unmount(path)


def failed(holo: Holo, *arguments: Argument, code: int = 1) -> str:
    """Run what must fail with one message of one line, and a hint; returns the message."""
    return message(holo(*arguments, code=code))


def message(result: Result) -> str:
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("warning: ", "waiting for "))]
    assert [line.partition(": ")[0] for line in lines] == ["error", "hint"], result
    assert result.stdout == ""
    return lines[0]


def tree(root: Path, files: int = 100, size: int = 30_000) -> Path:
    """Incompressible files, for a known need of room; one holds the path."""
    for number in range(files):
        trees.write(root / f"folder-{number % 7}" / f"file-{number}", random.Random(number).randbytes(size))
    trees.write(root / "path", f"{root}\n" * 1000)
    return trees.settle(root)


# -- a full disk -------------------------------------------------------------------------------------------


def fill(root: Path, leave: int) -> Path:
    """Fill a disk but for about so many bytes."""
    filler = root / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    found = os.fstatvfs(descriptor)
    size = found.f_bfree * found.f_frsize - leave
    while size > 0:
        try:
            os.posix_fallocate(descriptor, 0, size)
            break
        except OSError:
            size -= 1 << 16
    os.close(descriptor)
    return filler


@pytest.mark.parametrize(("name", "options"), [("ext4", []), ("btrfs", ["--mixed"])], ids=["ext4", "btrfs"])
@pytest.mark.parametrize("kind", ["record", "init", "restore"])
def test_full_disk_is_one_error_and_can_be_repeated(
    name: str, options: list[str], kind: str, make_disk: MakeDisk, torture: bool, faults: Note, forks: Forks
) -> None:
    disk = make_disk(name, 64 << 20, *options)
    holo = ForkedHolo(disk.root, forks)
    source, first = tree(disk.root / "source"), trees.small(disk.root / "first")
    holo("record", first, "--name", "first")
    if kind != "record":
        holo("record", source, "--name", "env")
    what, tried = f"full disk: {name}, {kind}", 0
    faults(2, what, 0)
    for strategy in STRATEGIES if kind != "record" else ["smart"]:
        for leave in (0, 100_000, 500_000, 1_000_000, 2_000_000) if torture else (500_000,):
            if kind == "record":
                command = ["record", str(source), "--name", "env"]
            else:
                command = [kind, "--space", "one", "--strategy", strategy]
            if kind == "init":
                command.append("env")
            if kind == "restore":
                path = holo("init", "--space", "one", "env", "--strategy", strategy, "--json").json()["path"]
                empty(Path(path))
            filler = fill(disk.root, leave)
            process = holo.start(*command)
            stdout, stderr = process.communicate(timeout=120)
            result = Result(list(command), process.returncode, stdout, stderr)
            if result.code:
                tried += 1
                faults(2, what, 1)
                assert result.code == 1
                assert "No space left" in message(result)
            catalogs(holo)
            filler.unlink()
            if kind == "record":
                holo(*command)
                holo("catalogs", "--remove", "env")
            else:
                path = holo("init", "--space", "one", "env", "--strategy", strategy, "--json").json()["path"]
                assert compare.differences(source, Path(path), library=holo.library) == []
                holo("delete", "--space", "one")
    assert tried


def empty(space: Path) -> None:
    for child in space.iterdir():
        if child.is_dir():
            shutil.rmtree(child)


def test_full_disk_message_names_what_is_missing(below: Path, faults: Note, forks: Forks) -> None:
    """Each command says it of itself. No inode is left, not even for the first note."""
    holo = ForkedHolo(below, forks)
    source = trees.small(below / "source")
    holo("record", source, "--name", "env")
    space = Path(holo("init", "--space", "one", "env", "--json").json()["path"])
    shutil.copytree(holo.library, below / "taken")
    (file,) = (below / "taken" / "catalog").glob("*.json")
    commands = {
        ("check", "--repair"): "Nothing was repaired.",
        ("record", source, "--name", "other"): "Nothing was recorded.",
        ("init", "--space", "one", source): "Nothing was recorded.",
        ("init", "--space", "one", "--force", file.rename(below / "taken" / "env.json")): "Nothing was imported",
    }
    faults(2, "full disk: no inode left", len(commands))
    found = os.statvfs(below)
    disks.run("mount", "-o", f"remount,nr_inodes={found.f_files - found.f_ffree}", below)
    for command, nothing in commands.items():
        said = holo(*command, code=1).stderr
        assert said.startswith(f"error: cannot write to the library, {holo.library}"), said
        assert f"No space left on device\nhint: {nothing}" in said
        assert said.endswith(" Free some space on that filesystem.\n")
    disks.run("mount", "-o", f"remount,nr_inodes={found.f_files}", below)
    assert holo("check").stdout.endswith("all is well\n")
    assert compare.differences(source, space) == []


@pytest.mark.parametrize("strategy", ["smart", "hardlink", "overlay"])
def test_a_job_that_fills_the_disk_from_its_space_costs_the_next_nothing(
    below: Path, faults: Note, forks: Forks, strategy: str
) -> None:
    """A restore removes what it has left first, for it has no room to say that it begins, nor to try anything out."""
    holo = ForkedHolo(below, forks)
    source = trees.small(below / "source")
    holo("record", source, "--name", "env")
    init = ("init", "one", "env", "--strategy", strategy, "--json")
    space = Path(holo(*init).json()["path"])
    faults(2, "full disk: filled in the space", 1)
    try:
        disks.run("mount", "-o", "remount,size=20m", below)
        (space / "lib" / "data.txt").write_text("changed")
        fill(space / "lib", 0)
        with pytest.raises(OSError, match="No space left"):
            (below / "more").write_bytes(b"1" * 100_000)
        (below / "more").unlink()
        report = holo(*init).json()
        assert report["strategy"]["used"] == {"smart": "copy"}.get(strategy, strategy)
        assert report["files"]["removed"] == (0 if strategy == "overlay" else 1)
        assert holo("check", "--space", "one").stdout.endswith("all is well\n")
    finally:
        holo("delete", "one")


def test_full_disk_keeps_nobody_from_making_room(below: Path, faults: Note, forks: Forks) -> None:
    """No inode is left, not even for a lock. Nor is what needs no room refused."""
    holo = ForkedHolo(below, forks)
    for name in ("env", "other"):
        holo("record", trees.small(below / name), "--name", name)
    for name, strategy in (("one", "smart"), ("two", "hardlink"), ("three", "smart")):
        holo("init", name, "env", "--strategy", strategy)
    holo("spares", "env", "--keep", "2")
    commands = (
        ("restore", "one"),
        *(("delete", name) for name in ("one", "two")),
        ("spares", "env", "--keep", "1"),
        ("spares", "env", "--keep", "0"),
        ("catalogs", "--remove", "other"),
        ("gc",),
        ("uninstall", "--yes"),
    )
    faults(2, "full disk: no inode left", len(commands))
    for command in commands:
        found = os.statvfs(below)
        disks.run("mount", "-o", f"remount,nr_inodes={found.f_files - found.f_ffree}", below)
        holo(*command)
    assert not holo.library.exists()


@pytest.mark.parametrize(("name", "options"), [("ext4", []), ("btrfs", ["--mixed"])], ids=["ext4", "btrfs"])
@pytest.mark.parametrize("kind", ["export", "import", "import -", "init"])
def test_full_disk_leaves_no_half_of_a_bundle(
    name: str,
    options: list[str],
    kind: str,
    make_disk: MakeDisk,
    folder: Path,
    torture: bool,
    faults: Note,
    forks: Forks,
) -> None:
    """The disk that is full has the bundle, or the library that it comes to."""
    (folder / "other").mkdir()
    holo = ForkedHolo(folder / "other", forks)
    source = tree(folder / "source")
    holo("record", source, "--name", "env")
    holo("export", "env", "-o", folder / "whole.holo")
    disk = make_disk(name, 64 << 20, *options)
    target = disk.root / "env.holo"
    other = ForkedHolo(disk.root, forks)
    other("record", trees.small(disk.root / "first"), "--name", "first")
    tried = 0
    what = f"full disk: {name}, {kind} of a bundle"
    faults(2, what, 0)
    for compress in ([], ["--compress"]):
        for leave in (0, 100_000, 500_000, 1_000_000, 2_000_000) if torture else (500_000,):
            filler = fill(disk.root, leave)
            if kind == "export":
                process = holo.start("export", "env", "-o", target, *compress)
            elif kind == "import":
                process = other.start("import", folder / "whole.holo")
            elif kind == "init":
                process = other.start("init", "--space", "one", folder / "whole.holo")
            else:
                process = subprocess.Popen(
                    ["sh", "-c", f"exec {sys.executable} -m holo import - < {folder / 'whole.holo'}"],
                    env=other.environment(),
                    cwd=folder,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            stdout, stderr = process.communicate(timeout=120)
            result = Result([kind], process.returncode, stdout, stderr)
            if result.code:
                tried += 1
                faults(2, what, 1)
                assert result.code == 1
                assert "No space left" in message(result)
                assert str(disk.root) in message(result)
                assert {path.name for path in disk.root.iterdir()} <= MAY_BE_THERE
                assert {row["name"] for row in other("catalogs", "--json").json()["catalogs"]} == {"first"}
            catalogs(other)
            filler.unlink()
            # And then it goes on.
            if kind == "export":
                holo("export", "env", "-o", target, *compress)
                assert target.read_bytes() == (folder / "whole.holo").read_bytes() or compress
                target.unlink()
                continue
            path = other("init", "--space", "one", folder / "whole.holo", "--json").json()["path"]
            assert compare.differences(source, Path(path)) == []
            other("delete", "--space", "one")
            other("import", folder / "whole.holo")
            assert len(catalogs(other)) == 2
            other("catalogs", "--remove", "env")
            other("gc")
    assert tried


MAY_BE_THERE = {"first", "home", "settings.yaml", "filler", "lost+found"}


# -- a read-only disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["raw", "zstd"])
def test_read_only_library_is_one_error(
    compression: str, make_disk: MakeDisk, torture: bool, faults: Note, forks: Forks
) -> None:
    disk = make_disk("btrfs", 128 << 20)
    holo = ForkedHolo(disk.root, forks)
    holo.settings.write_text(f"library:\n  compression: {compression}\n")
    source = tree(disk.root / "source")
    holo("record", source, "--name", "env")
    holo("init", "--space", "old", "env", "--strategy", "copy")
    commands = [["record", str(source), "--name", "again"], ["catalogs", "--remove", "env"]]
    faults(2, "read-only library", len(STRATEGIES) + len(commands))
    disks.run("mount", "--bind", holo.library, holo.library)
    disks.run("mount", "-o", "remount,bind,ro", holo.library)
    try:
        assert "env" in holo("catalogs").stdout
        assert "old" in holo("list").stdout
        holo("restore", "--space", "old")
        for strategy in STRATEGIES:
            report = holo("init", "--space", strategy, "env", "--strategy", strategy, "--json").json()
            assert compare.differences(source, Path(report["path"])) == []
            used = "copy" if "zstd" in compression or strategy == "copy" else "reflink"
            assert report["strategy"]["used"] == used
            assert (fiemap.common_bytes(report["path"], holo.library) > 0) is (used == "reflink")
        for command in commands:
            assert "Read-only file system" in failed(holo, *command)
    finally:
        disks.unmount(holo.library)
    catalogs(holo)
    holo("record", source, "--name", "again")


def test_read_only_home_is_one_error(make_disk: MakeDisk, folder: Path, faults: Note, forks: Forks) -> None:
    disk = make_disk("ext4", 64 << 20)
    holo = ForkedHolo(disk.root, forks)
    source = tree(disk.root / "source")
    holo("record", source, "--name", "env")
    holo("init", "--space", "old", "env")
    disk.remount("ro")
    commands: list[list[Argument]] = [
        ["record", source, "--name", "again"],
        ["restore", "--space", "old"],
        ["init", "--space", "new", "env", "--to", folder / "new"],
        ["catalogs", "--remove", "env"],
        ["delete", "--space", "old"],
    ]
    faults(2, "read-only disk", len(commands))
    assert "env" in holo("catalogs").stdout
    assert "old" in holo("list").stdout
    for command in commands:
        assert "Read-only file system" in failed(holo, *command)
    assert not (folder / "new").exists()
    disk.remount()
    holo("restore", "--space", "old")


# -- permissions and limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("forbidden", ["source/folder-3", "home/hololib", "home/holotree", "elsewhere"])
def test_forbidden_folder_is_one_error(forbidden: str, make_disk: MakeDisk, faults: Note, forks: Forks) -> None:
    disk = make_disk("ext4", 64 << 20)
    holo = ForkedHolo(disk.root, forks)
    source = tree(disk.root / "source")
    (disk.root / "elsewhere").mkdir()
    holo("record", source, "--name", "env")
    holo("init", "--space", "old", "env")
    disks.run("chown", "-R", f"{USER}:{USER}", disk.root)
    as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    folder = disk.root / forbidden
    folder.chmod(0o000)
    holo.launcher = as_user
    trees.write(source / "new", b"new")
    where = disk.root / "elsewhere" / "new"
    commands: dict[str, list[list[Argument]]] = {
        "source/folder-3": [["record", source, "--name", "again"]],
        "home/hololib": [["record", source], ["init", "--space", "new", "env"], ["restore", "--space", "old"]],
        "home/holotree": [
            ["init", "--space", "new", "env"],
            ["restore", "--space", "old"],
            ["delete", "--space", "old"],
        ],
        "elsewhere": [["init", "--space", "new", "env", "--to", where]],
    }
    faults(2, "folder without permission", len(commands[forbidden]))
    for command in commands[forbidden]:
        assert "Permission denied" in failed(holo, *command)
    folder.chmod(0o755)
    catalogs(holo)
    for command in commands[forbidden]:
        holo(*command)


@pytest.mark.parametrize("whose", ["root's", "immutable"])
def test_what_cannot_be_removed_from_a_space_is_named(
    whose: str, make_disk: MakeDisk, faults: Note, forks: Forks
) -> None:
    """A container's root leaves files in a space that is mounted there."""
    faults(2, "file in a space that cannot be removed", 1)
    disk = make_disk("ext4", 64 << 20)
    holo = ForkedHolo(disk.root, forks)
    holo("record", tree(disk.root / "source"), "--name", "env")
    space = Path(holo("init", "--space", "one", "env", "--json").json()["path"])
    disks.run("chown", "-R", f"{USER}:{USER}", disk.root)
    file = trees.write(space / "new" / "folder" / "file", b"of root")
    if whose == "immutable":
        disks.run("chown", "-R", f"{USER}:{USER}", space / "new")
        disks.run("chattr", "+i", file)
    holo.launcher = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    try:
        for command, failed_at in (("restore", f"cannot restore {file}: "), ("delete", f"cannot remove {file}: ")):
            result = holo(command, "--space", "one", code=1)
            assert failed_at in message(result)
            assert ("`lsattr`" in result.stderr) is (whose == "immutable")
    finally:
        disks.run("chattr", "-i", file)
    disks.run("chown", "-R", f"{USER}:{USER}", space / "new")
    holo("restore", "--space", "one")
    assert compare.differences(disk.root / "source", space) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_low_descriptor_limit_is_one_error_or_enough(
    strategy: str, make_disk: MakeDisk, torture: bool, faults: Note, forks: Forks
) -> None:
    disk = make_disk("btrfs", 512 << 20)
    holo = ForkedHolo(disk.root, forks)
    source = tree(disk.root / "source")
    deep = source / "/".join("deep" for _ in range(80))
    trees.write(deep / "file", b"deep down")
    trees.settle(source)
    tried = 0
    faults(2, "few open files", 0)
    for limit in range(16, 80, 4) if torture else (24, 64):
        holo.launcher = ("sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh")
        for command in (
            ["record", str(source), "--name", "env"],
            ["init", "--space", f"{strategy}-{limit}", "env", "--strategy", strategy],
        ):
            process = holo.start(*command)
            stdout, stderr = process.communicate(timeout=60)
            if process.returncode:
                tried += 1
                faults(2, "few open files", 1)
                assert process.returncode == 1
                assert "Too many open files" in message(Result(list(command), process.returncode, stdout, stderr))
                holo.launcher = ()
                holo(*command)
    assert tried
    catalogs(holo)


# -- a failing device --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs"])
def test_write_error_of_the_device_is_one_error(
    name: str, make_disk: MakeDisk, folder: Path, below: Path, faults: Note, forks: Forks
) -> None:
    """The image lies on a tmpfs that is full: what the filesystem in it has promised cannot be kept."""
    faults(2, f"device that takes no data: {name}", 1)
    disk = make_disk(name, 320 << 20, folder=below / "d")
    holo = ForkedHolo(folder, forks)
    holo.home = disk.root / "home"
    holo.library = holo.home / "hololib"
    source, first = tree(disk.root / "source", files=400), trees.small(disk.root / "first")
    holo("record", first, "--name", "first")
    disk.remount()
    holo.settings.write_text("library:\n  compression: zstd\n")  # so that content is written
    taken = disk.image.stat().st_blocks * 512
    disks.run("mount", "-o", f"remount,size={taken + (4 << 20)}", below)
    assert "/home/hololib" in failed(holo, "record", source, "--name", "env")
    disks.run("mount", "-o", "remount,size=600m", below)
    disk.remount()
    assert {summary["name"] for summary in holo("catalogs", "--json").json()["catalogs"]} == {"first"}
    catalogs(holo)
    holo("record", source, "--name", "env")
    disk.remount()
    catalogs(holo)
    path = holo("init", "--space", "one", "env", "--json").json()["path"]
    assert compare.differences(source, Path(path), library=holo.library) == []


def test_lost_writes_of_the_device_are_noticed(
    make_disk: MakeDisk, folder: Path, below: Path, faults: Note, forks: Forks
) -> None:
    """The filesystem goes on, and has in memory what the disk did not take: the next record must not rely on it."""
    faults(1, "device that lost data and went on", 1)
    disk = make_disk("ext4", 96 << 20, "-b", "4096", folder=below / "d")
    holo = ForkedHolo(folder, forks)
    holo.home = disk.root / "home"
    holo.library = holo.home / "hololib"
    holo.settings.write_text("library:\n  compression: raw\n")
    source, first = tree(disk.root / "source", files=300), trees.small(disk.root / "first")
    holo("record", first, "--name", "first")
    for number in range(256):
        (holo.library / "library" / f"{number:02x}").mkdir(exist_ok=True)
    # All of the image gets its place but what is free now: there is where blobs will be.
    filler = fill(disk.root, 2 << 20)
    free = [(extent.physical, extent.length) for extent in fiemap.extents(os.fsencode(filler))]
    filler.unlink()
    disk.unmount()
    with disk.image.open("r+b") as image:
        os.posix_fallocate(image.fileno(), 0, 96 << 20)
    for start, length in free:
        disks.run("fallocate", "--punch-hole", "--offset", str(start), "--length", str(length), str(disk.image))
    disk.mount()
    disks.run("mount", "-o", f"remount,size={disk.image.stat().st_blocks * 512 + (1 << 20)}", below)
    said = failed(holo, "record", source, "--name", "env")
    assert said.startswith(f"error: cannot write to the library {holo.library}")
    disks.run("mount", "-o", "remount,size=600m", below)
    holo("record", source, "--name", "env")
    disk.remount()
    assert len(catalogs(holo)) == 2


@pytest.mark.parametrize("strategy", ["copy", "hardlink"])
def test_space_whose_content_never_reached_the_disk(
    strategy: str, make_disk: MakeDisk, folder: Path, faults: Note, forks: Forks
) -> None:
    """Size, mode, mtime and ctime are those of the last restore, only the content is not there."""
    disk = make_disk("ext4", 64 << 20, "-b", "4096")
    holo = ForkedHolo(folder, forks)
    holo.home = disk.root / "home"
    holo.library = holo.home / "hololib"
    source = tree(disk.root / "source", files=20)
    holo("record", source, "--name", "env")
    command = ["restore", "--space", "one", "--strategy", strategy, "--json"]
    space = Path(holo("init", "--space", "one", "env", *command[3:]).json()["path"])
    holo(*command)  # the first one reads what was made in the last moment of the init
    torn = [space / "path", *(space / "folder-3").iterdir()]
    faults(2, f"torn files of a space: {strategy}", len(torn))
    places = [extent for path in torn for extent in fiemap.extents(os.fsencode(path))]
    disk.unmount()
    with disk.image.open("r+b") as image:
        for extent in places:
            os.pwrite(image.fileno(), bytes(extent.length), extent.physical)
    disk.mount()
    assert holo(*command).json()["files"]["copied"] == 0  # nobody can see it in a stat
    holo.launcher = another_boot(folder)
    report = holo(*command).json()
    assert report["files"]["total"] - report["files"]["unchanged"] == len(torn)
    assert compare.differences(source, space, library=holo.library) == []
    holo.launcher = ()
    assert holo(*command).json()["files"]["unchanged"] == report["files"]["total"]


@pytest.mark.parametrize("strategy", ["copy", "hardlink"])
def test_read_error_of_the_device_is_one_error(
    strategy: str, make_disk: MakeDisk, folder: Path, faults: Note, forks: Forks
) -> None:
    """The image ends before the blobs do."""
    faults(2, "device that cannot be read", 1)
    disk = make_disk("ext4", 64 << 20, "-b", "4096")
    holo = ForkedHolo(folder, forks)
    holo.home = disk.root / "home"
    holo.library = holo.home / "hololib"
    source = tree(disk.root / "source")
    holo("record", source, "--name", "env")
    blobs = [path for path in (holo.library / "library").glob("??/*") if path.stat().st_size]
    end = sorted(fiemap.extents(os.fsencode(path))[0].physical for path in blobs)[-20]
    disk.remount()
    whole = disk.image.read_bytes()
    os.truncate(disk.image, end)
    command = ["init", "--space", "one", "env", "--strategy", strategy]
    process = holo.start(*command)
    _, said = process.communicate(timeout=60)
    # Where the end is, the disk decides: the name may be behind it, and a read across it is filled up with zeros.
    expected = {1: "Input/output error", 3: "is damaged"}
    assert expected.get(process.returncode, "another exit code") in said
    assert said.startswith("error: ")
    assert str(disk.root) in said
    assert said.count("error: ") == 1
    disk.unmount()
    disk.image.write_bytes(whole)
    disk.mount()
    catalogs(holo)
    path = holo(*command, "--json").json()["path"]
    assert compare.differences(source, Path(path), library=holo.library) == []
