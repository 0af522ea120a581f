"""Power cuts at random moments: what is on the disk afterwards is whole, or is never believed.

XFS and ext4 are stopped by their shutdown ioctl: what is in memory only is lost, as in a power cut. Btrfs has none
yet, so there the image is cloned while it is in use, and the clone is what the power cut left. The next command
runs as in another boot: with another /proc/sys/kernel/random/boot_id, mounted over for this one process.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holo import Hololib
from support import compare, disks, trees
from support.cli import Argument, Holo, another_boot
from support.disks import Disk
from support.filesystems import Unavailable, skip
from support.libraries import catalogs, torn

pytestmark = pytest.mark.torture

ROUNDS = 50
SAMPLE = 1
SIZES = {"xfs": 320 << 20, "ext4": 256 << 20, "btrfs": 256 << 20}
MANY = 120

Note = Callable[[int, str, int], None]


@pytest.fixture
def folder() -> Iterator[Path]:
    """On a real disk, with a short path: relocated paths are compared."""
    path = Path(tempfile.mkdtemp(prefix="holo-")).resolve()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(params=list(SIZES))
def disk(request: pytest.FixtureRequest, folder: Path) -> Iterator[Disk]:
    """A disk of its own. The one with Btrfs is an image on XFS, which can clone it at any moment."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root mounts filesystems, on Linux")
    made: list[Disk] = []
    try:
        try:
            if request.param == "btrfs":
                made.append(Disk("xfs", folder / "below", SIZES["btrfs"] * 4))
                folder = made[0].mount()
            made.append(Disk(request.param, folder / "d", SIZES[request.param]))
            made[-1].mount()
        except Unavailable as unavailable:
            skip(str(unavailable))
        yield made[-1]
    finally:
        for one in reversed(made):
            one.unmount()


def cut_power(disk: Disk, holo: Holo, arguments: list[str], delay: float | None, flag: int) -> bool:
    """Cut the power so many seconds after the command began, or (``None``) when it has just returned.

    Returns whether it had been successful before.
    """
    process = holo.start(*arguments, cwd=Path("/"))
    if delay is None:
        process.wait(timeout=60)
    else:
        time.sleep(delay)
    returned = process.poll() == 0
    if disk.name == "btrfs":
        kept = disk.keep()
        process.kill()
    else:
        disk.cut_power(flag)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    disk.unmount()
    if disk.name == "btrfs":
        os.replace(kept, disk.image)
    disk.mount()
    return returned


def make_trees(root: Path) -> tuple[Path, Path]:
    first = trees.small(root / "first")
    # The path is longer than a space's, so that binaries can be patched.
    second = trees.nasty(Path(str(root / "second").ljust(112, "-")), xattrs=True)
    for number in range(MANY):
        content = random.Random(number).randbytes(1000 + number * 200) + b"compressible " * number * 10
        trees.write(second / "many" / f"file-{number}", content)
    # Large enough to be cloned and patched in place.
    parts = [random.Random(seed).randbytes(600_000) for seed in range(4)]
    trees.write(second / "many" / "paths", (b"\0" + os.fsencode(second) + b"\0").join(parts))
    trees.settle(second)
    return first, second


def damage(space: Path) -> None:
    """Every kind of change, all over the space."""
    many = space / "many"
    for number in range(0, MANY, 3):
        path = many / f"file-{number}"
        path.unlink()
        if number % 2:
            path.write_bytes(b"something else")
    shutil.rmtree(space / "names")
    (space / "extra").write_text("extra")


@pytest.mark.parametrize("kind", ["record", "init", "restore"])
def test_power_cut_loses_nothing_that_was_reported(
    disk: Disk, kind: str, folder: Path, torture: bool, faults: Note
) -> None:
    source, begin = prepare(disk, kind)
    chance = random.Random(f"{disk.name} {kind}")
    durations: dict[str, float] = {}
    rounds = ROUNDS if torture else SAMPLE
    for number in range(rounds):
        # The first round loses the most: a reflinked space has large files patched in place, in memory only.
        strategy = chance.choice(["smart", "reflink", "hardlink", "copy"]) if number else "reflink"
        compression = chance.choice(["auto", "zstd"]) if number and kind != "restore" else "auto"
        command = begin(strategy)
        holo = start_anew(disk, compression)
        if strategy not in durations:
            started = time.monotonic()
            holo(*command)
            durations[strategy] = time.monotonic() - started
            holo = start_anew(disk, compression)
        # Half of them just after the command: it has said that all is well, and most is in memory only.
        delay = chance.uniform(0, durations[strategy]) if number % 2 else None
        flag = chance.choice([disks.NOLOGFLUSH, disks.LOGFLUSH]) if number else disks.LOGFLUSH
        faults(1 if kind == "record" else 2, f"power cut during {kind}: {disk.name}", 1)
        said = f"round {number}: {disk.name}, {command}, {compression}, {delay} s, flag {flag}"
        returned = cut_power(disk, holo, command, delay, flag)
        check_after(holo, another_boot(folder), source, kind, strategy, returned=returned, said=said)


def prepare(disk: Disk, kind: str) -> tuple[Path, Callable[[str], list[str]]]:
    """Save a disk with what the command needs; returns the tree it is about, and the command by strategy."""
    holo = Holo(disk.root)
    first, second = make_trees(disk.root)
    for compression in ("auto", "zstd") if kind != "restore" else ("auto",):
        holo.home = disk.root / compression
        holo.settings.write_text(f"library:\n  compression: {compression}\n")
        holo("record", first, "--name", "first")
        if kind != "record":
            holo("record", second, "--name", "second")
        if kind == "restore":
            for strategy in ("smart", "reflink", "hardlink", "copy"):
                path = holo("init", "--space", strategy, "second", "--strategy", strategy, "--json").json()["path"]
                damage(Path(path))
    disk.unmount()
    disk.save()
    return second, lambda strategy: {
        "record": ["record", str(second), "--name", "second"],
        "init": ["init", "--space", strategy, "second", "--strategy", strategy],
        "restore": ["restore", "--space", strategy, "--strategy", strategy],
    }[kind]


def start_anew(disk: Disk, compression: str) -> Holo:
    disk.unmount()
    disk.load()
    disk.mount()
    holo = Holo(disk.root)
    holo.home = disk.root / compression
    holo.library, holo.holotree = holo.home / "hololib", holo.home / "holotree"
    holo.settings.write_text(f"library:\n  compression: {compression}\n")
    return holo


def check_after(
    holo: Holo,
    launcher: tuple[Argument, ...],
    source: Path,
    kind: str,
    strategy: str,
    *,
    returned: bool,
    said: str,
) -> None:
    """What has to hold after the power cut, and that the next commands make everything right."""
    try:
        found = catalogs(holo)
        names = {summary.name: summary.digest for summary in Hololib(holo.home).catalogs()}
        assert set(names.values()) == set(found)
        assert "first" in names
        assert "second" in names or (kind == "record" and not returned)
        holo.launcher = launcher
        if kind == "record":
            holo("record", source, "--name", "second")
        is_known = any(space.name == strategy for space in Hololib(holo.home).spaces())
        assert is_known or kind != "restore"
        begin = ["restore", "--space", strategy] if is_known else ["init", "--space", strategy, "second"]
        for command in (begin, ["init", "--space", "other", "second"]):
            path = Path(holo(*command, "--strategy", strategy, "--json").json()["path"])
            assert compare.differences(source, path, library=holo.library) == []
        assert torn(holo) == []
        catalogs(holo)
    except AssertionError as error:
        raise AssertionError(f"{said}: {error}") from error


@pytest.mark.parametrize("disk", ["xfs", "ext4"], indirect=True)
def test_space_on_another_disk_is_known_after_a_power_cut(disk: Disk, folder: Path, faults: Note) -> None:
    """Its files may have reached their disk long before what is known of it has reached that of the library."""
    holo = Holo(disk.root)
    source = trees.small(disk.root / "source")
    holo("record", source, "--name", "env")
    space = folder / "space"
    assert cut_power(disk, holo, ["init", "--space", "one", "env", "--to", str(space)], None, disks.NOLOGFLUSH)
    holo.launcher = another_boot(folder)
    trees.write(space / "extra")
    assert [known.name for known in Hololib(holo.home).spaces()] == ["one"]
    assert holo("restore", "--space", "one", "--json").json()["path"] == str(space)
    assert compare.differences(source, space, library=holo.library) == []
    faults(2, f"power cut just after an init elsewhere: {disk.name}", 1)
