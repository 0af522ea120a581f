"""The doctor tells what a pair of folders can do, and leaves them as they were."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path

import pytest

from holo import platform
from holo.cli.render import _USES
from holo.doctor import examine
from holo.doctor.advice import Folder, advise, explain
from holo.doctor.folders import find_type
from holo.errors import HoloError
from support.filesystems import Filesystem, Mounts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filesystems under test are Linux's")

WAYS = ["reflink", "hardlink", "snapshot", "copy", "overlay", "view", "stubs"]


def pair(root: Path) -> tuple[Path, Path]:
    library, target = root / "library", root / "spaces"
    library.mkdir()
    target.mkdir()
    return library, target


def test_doctor_knows_each_filesystem(filesystem: Filesystem) -> None:
    library, target = pair(filesystem.root)
    started = time.monotonic()
    found = examine(str(library), str(target))
    assert time.monotonic() - started < 30  # under one second, on a machine that is not busy
    assert found.library == Folder(str(library), filesystem.name)
    assert found.target == Folder(str(target), filesystem.name)
    assert list(found.capabilities) == WAYS
    assert {way: can.available for way, can in found.capabilities.items()} == {
        "reflink": filesystem.reflinks,
        "hardlink": True,
        "snapshot": filesystem.name == "btrfs",
        "copy": True,
        "overlay": found.capabilities["overlay"].available,
        "view": found.capabilities["view"].available,
        "stubs": found.capabilities["stubs"].available,
    }
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 16):
        assert found.capabilities["stubs"].available
    assert found.capabilities["overlay"].available or os.geteuid() != 0
    mounted = [found.capabilities[way] for way in ("overlay", "view", "stubs")]
    for can in found.capabilities.values():
        assert (can.reason is None) is can.available
        assert (can.files_per_second or 0) > 0 or not can.available or can in mounted
    assert bool(found.advice) is not filesystem.reflinks
    if not filesystem.reflinks:
        assert found.capabilities["reflink"].reason == f"{filesystem.name} cannot reflink"
        assert "smart copies" in found.advice[0]
        assert "hardlink" in found.advice[1]
        assert "`holo spares CATALOG --keep 2`" in found.advice[2]
    assert os.listdir(library) == os.listdir(target) == []


def test_nothing_is_shared_across_filesystems(mounts: Mounts, tmp_path: Path) -> None:
    library, target = mounts.get("btrfs"), mounts.get("ext4")
    found = examine(str(library), str(target))
    for way in ("reflink", "hardlink", "snapshot"):
        assert not found.capabilities[way].available
        assert "different filesystems" in (found.capabilities[way].reason or "")
    assert "different filesystems (btrfs and ext4)" in found.advice[0]
    assert "HOLO_HOME" in found.advice[0]


def test_reflinks_work_across_subvolumes(mounts: Mounts) -> None:
    """Two subvolumes have two device numbers, but are one filesystem: what counts is what works."""
    from holo.platform import btrfs

    root = mounts.get("btrfs") / "subvolumes"
    root.mkdir()
    directory = platform.open_root(str(root))
    for name in ("library", "spaces"):
        btrfs.create_subvolume(directory, name)
    try:
        found = examine(str(root / "library"), str(root / "spaces"))
    finally:
        for name in ("library", "spaces"):
            btrfs.delete_subvolume(directory, name)
        platform.close_directory(directory)
    assert {way: can.available for way, can in found.capabilities.items()} == {
        "reflink": True,
        "hardlink": False,
        "snapshot": True,
        "copy": True,
        "overlay": os.geteuid() == 0,
        "view": True,
        "stubs": False,
    }
    assert found.advice == []


def test_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    found = examine(str(tmp_path / "home/hololib"), str(tmp_path / "spaces"))
    assert found.library.path == str(tmp_path / "home/hololib")
    assert found.capabilities["hardlink"].available
    assert os.listdir(tmp_path) == []


def test_leftovers_of_a_killed_doctor_are_removed(tmp_path: Path) -> None:
    names = [".holo-doctor-old", ".holo-doctor-new", "other-old"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "000").touch()
    for name in names:
        if name.endswith("old"):
            os.utime(tmp_path / name, (time.time() - 3600,) * 2)
    examine(str(tmp_path), str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".holo-doctor-new", "other-old"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HoloError, match=r"file: cannot make files here: Not a directory"):
        examine(str(tmp_path), str(tmp_path / "file"))
    assert os.listdir(tmp_path) == ["file"]


def test_the_table_says_what_each_way_is_for() -> None:
    assert list(_USES) == WAYS


def test_json_report(tmp_path: Path) -> None:
    document = json.loads(json.dumps(examine(str(tmp_path), str(tmp_path)).to_json()))
    assert list(document) == ["library", "target", "capabilities", "advice"]
    assert list(document["library"]) == list(document["target"]) == ["path", "filesystem"]
    assert list(document["capabilities"]) == WAYS
    for can in document["capabilities"].values():
        assert list(can) == ["available", "reason", "files_per_second"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_nothing_is_left_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(platform, "create_file", fail)
    with pytest.raises(HoloError, match="cannot write a sample"):
        examine(str(tmp_path), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_real_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(platform, "link", fail)
    can = examine(str(tmp_path), str(tmp_path)).capabilities["hardlink"]
    assert (can.available, can.reason) == (False, "No space left on device")


@pytest.mark.parametrize(
    ("way", "code", "filesystem", "says"),
    [
        ("hardlink", errno.EPERM, "vfat", "vfat does not allow hardlinks"),
        ("reflink", errno.EINVAL, "btrfs", "nodatacow"),
        ("copy", errno.ENOSYS, "apfs", "apfs cannot copy within the kernel"),
        ("snapshot", errno.EPERM, "btrfs", "Operation not permitted"),
    ],
)
def test_reasons_are_explained(way: str, code: int, filesystem: str, says: str) -> None:
    folder = Folder("/somewhere", filesystem)
    assert says in explain(way, OSError(code, "x"), folder, folder)


def test_advice_about_overlays() -> None:
    works = dict.fromkeys(WAYS, 1.0)
    overlay, disk = Folder("/image", "overlay"), Folder("/data", "xfs")
    assert any("lower overlay layer" in line for line in advise(overlay, disk, {**works}, None))
    assert list(advise(disk, disk, {**works}, None)) == []


# --- mountinfo --------------------------------------------------------------------------------

MOUNTINFO = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:20 / /proc rw - proc proc rw
24 22 0:30 /sub /home rw shared:2 master:3 - btrfs /dev/sdb rw
25 24 0:31 / /home/a\040b\134c rw - xfs /dev/sdc rw
26 22 0:32 / /mnt rw - vfat /dev/sdd rw
27 22 0:33 / /mnt rw - tmpfs tmpfs rw
28 22 0:34 / /- rw - fuse.sshfs host: rw
""".strip()


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/", "ext4"),
        ("/homework", "ext4"),
        ("/home", "btrfs"),
        ("/home/somebody", "btrfs"),
        ("/home/a b\\c/d", "xfs"),
        ("/mnt/x", "tmpfs"),
        ("/-/x", "fuse.sshfs"),
    ],
)
def test_the_mount_that_holds_a_path(path: str, filesystem: str) -> None:
    assert find_type(MOUNTINFO, path) == filesystem
