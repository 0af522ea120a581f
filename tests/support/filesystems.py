"""Real filesystems to test on: images made by mkfs and mounted through a loop device, and tmpfs.

Nothing of the machine is used but a temporary folder. A folder on a filesystem that is mounted
already can be given instead: HOLO_TEST_BTRFS, HOLO_TEST_XFS, HOLO_TEST_EXT4, HOLO_TEST_TMPFS.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

MKFS = {
    "btrfs": ["mkfs.btrfs", "-q"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "ext4": ["mkfs.ext4", "-q", "-F"],
    # Small inodes have room for whole seconds only, up to 2038.
    "ext4-seconds": ["mkfs.ext4", "-q", "-F", "-I", "128"],
}
NAMES = ("btrfs", "xfs", "ext4", "tmpfs")
ALONE = "-alone"
"""Ends the name of a filesystem that no other test uses: on a shared one, the kernel still frees what they removed."""
IMAGE_SIZE = 1536 * 1024 * 1024  # sparse: costs what is written to it


class Unavailable(Exception):
    """This filesystem cannot be had here; the message says why."""


def skip(why: str) -> NoReturn:
    """Skip the test that cannot run here; in CI, where everything has to be there, it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@dataclass(frozen=True)
class Filesystem:
    """A fresh empty folder on a filesystem, and what that filesystem can do."""

    name: str
    root: Path
    reflinks: bool
    xattrs: bool


class Mounts:
    """The mounted filesystems of one test process: mounted when first asked for, gone after `close`."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._ready: dict[str, Path | Unavailable] = {}
        self._mounted: list[Path] = []
        self._borrowed: list[Path] = []

    def get(self, name: str) -> Path:
        """A folder on filesystem `name`. Where it cannot be had the test is skipped, but fails in CI."""
        if name not in self._ready:
            try:
                self._ready[name] = self._provide(name)
            except Unavailable as unavailable:
                self._ready[name] = unavailable
        ready = self._ready[name]
        if isinstance(ready, Path):
            return ready
        skip(f"no {name}: {ready}")

    def close(self) -> None:
        while self._mounted:
            unmount(self._mounted.pop())
        while self._borrowed:
            remove(self._borrowed.pop())

    def _provide(self, name: str) -> Path:
        if name == "local":
            return self._folder("local")
        kind = name.removesuffix(ALONE)
        given = os.environ.get(f"HOLO_TEST_{kind.upper()}")
        if given:
            self._borrowed.append(Path(tempfile.mkdtemp(prefix="holo-", dir=given)).resolve())
            return self._borrowed[-1]
        if sys.platform != "linux":
            raise Unavailable(f"{name} is tested on Linux only")
        if os.geteuid() != 0:
            raise Unavailable(f"only root mounts {name}, or HOLO_TEST_{name.upper()} names a folder on one")
        mountpoint = self._folder(name)
        if name == "tmpfs":
            _run(["mount", "-t", "tmpfs", "-o", f"size={IMAGE_SIZE}", "tmpfs", str(mountpoint)])
        elif shutil.which(MKFS[kind][0]) is None:
            raise Unavailable(f"{MKFS[kind][0]} is not installed")
        else:
            mount_new(kind, IMAGE_SIZE, mountpoint)
        self._mounted.append(mountpoint)
        return mountpoint

    def _folder(self, name: str) -> Path:
        folder = self.workspace / name
        folder.mkdir(parents=True)
        return folder


def mount_new(name: str, size: int, mountpoint: Path) -> None:
    """Mount a new filesystem in an image of so many bytes. Raises :class:`Unavailable`."""
    image = mountpoint.with_name(f"{mountpoint.name}.img")
    with image.open("wb") as file:
        file.truncate(size)
    try:
        _run([*MKFS[name], str(image)])
        _run(["mount", "-t", name.partition("-")[0], "-o", "loop", str(image), str(mountpoint)])
    finally:
        image.unlink()  # the loop device keeps it alive until it is unmounted, however this ends


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def unmount(mountpoint: Path) -> None:
    """Unmount, waiting a moment for processes on their way out; then let the kernel do it when it can."""
    for _ in range(20):
        if subprocess.run(["umount", str(mountpoint)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "--lazy", str(mountpoint)], check=False)


def reflinks(folder: Path) -> bool:
    """Does FICLONE work in this folder? Asked of the kernel, not of holo."""
    if sys.platform != "linux":
        return False
    import fcntl

    ficlone = 0x40049409
    source, target = folder / ".clone-source", folder / ".clone-target"
    try:
        source.write_bytes(b"x" * 4096)
        with source.open("rb") as reader, target.open("wb") as writer:
            fcntl.ioctl(writer, ficlone, reader.fileno())
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS):
            raise
        return False
    else:
        return True
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def xattrs(folder: Path) -> bool:
    """Are `user.*` attributes kept in this folder?"""
    if sys.platform != "linux":
        return False
    try:
        os.setxattr(folder, "user.holo-test", b"1")
        os.removexattr(folder, "user.holo-test")
    except OSError:
        return False
    return True


def subvolume(path: Path) -> Path:
    subprocess.run(["btrfs", "-q", "subvolume", "create", path], check=True)
    return path


def remove(tree: Path) -> None:
    """Delete a tree whatever is in it: mounts, read-only directories, Btrfs subvolumes, paths beyond PATH_MAX."""

    def run(*command: str | Path) -> bool:
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0

    mounts = Path("/proc/self/mounts").read_text().splitlines() if sys.platform == "linux" else []
    for path in [line.split(" ")[1] for line in reversed(mounts)]:
        if path.startswith(f"{tree}/"):
            unmount(Path(path))

    def open_up() -> None:  # directories only: the files of a tree of stubs are those of the library
        run("find", tree, "-type", "d", "-execdir", "chmod", "u+rwx", "{}", ";")

    if run("rm", "-rf", tree):
        return
    open_up()
    # What is left may be a read-only subvolume, which has to be made writable first.
    for folder, _, _ in os.walk(tree):
        if os.lstat(folder).st_ino == 256:  # the inode number of every subvolume's root
            run("btrfs", "property", "set", "-f", folder, "ro", "false")
    open_up()
    subprocess.run(["rm", "-rf", tree], check=True)
