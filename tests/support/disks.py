"""Disks that fail: filesystem images whose power is cut, that fill up, or whose device gives errors."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

from support.filesystems import Unavailable

MKFS = {
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
    # Nothing that is left to be initialized in the background may disturb.
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
}

# XFS_IOC_GOINGDOWN = EXT4_IOC_SHUTDOWN = _IOR('X', 125, __u32); Btrfs has it since Linux 6.19, as an experiment.
SHUTDOWN = 0x8004587D
LOGFLUSH = 1
"""What is in the journal in memory is still written, but no data."""
NOLOGFLUSH = 2
"""Nothing is written any more: a power cut."""

FICLONE = 0x40049409


class Disk:
    """A filesystem of its own in an image file, mounted by loop device at `root`."""

    def __init__(self, name: str, folder: Path, size: int, options: tuple[str, ...] = ()) -> None:
        self.name = name
        self.folder = folder
        self.image = folder / f"{name}.img"
        self.root = folder / name
        self.root.mkdir(parents=True)
        with self.image.open("wb") as file:
            file.truncate(size)
        run(*MKFS[name], *options, self.image)
        self._is_mounted = False

    def mount(self, *options: str) -> Path:
        run("mount", "-t", self.name, "-o", ",".join(("loop", *options)), self.image, self.root)
        self._is_mounted = True
        return self.root

    def unmount(self) -> None:
        if self._is_mounted:
            unmount(self.root)
            self._is_mounted = False
            # Else the next mount may get this loop device, with what it has in memory.
            while any(self._is_behind(device) for device in Path("/sys/block").glob("loop*")):
                time.sleep(0.01)

    def _is_behind(self, device: Path) -> bool:
        try:
            return (device / "loop" / "backing_file").read_text().startswith(str(self.image))
        except OSError:
            return False

    def remount(self, *options: str) -> None:
        """Take the disk out and put it in again: nothing of it is left in memory."""
        self.unmount()
        self.mount(*options)

    def cut_power(self, flag: int) -> None:
        """From now on nothing reaches the disk any more."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("=I", flag))
        finally:
            os.close(descriptor)

    def keep(self) -> Path:
        """A copy of the image as it is now: what a power cut at this moment would leave.

        On a filesystem that can clone this is one moment, also while the disk is written to.
        """
        kept = self.image.with_suffix(".kept")
        with self.image.open("rb") as source, kept.open("wb") as target:
            fcntl.ioctl(target, FICLONE, source.fileno())
        return kept

    def save(self) -> None:
        """Remember the disk, which is not mounted, as it is."""
        run("cp", "--sparse=always", self.image, self.image.with_suffix(".saved"))

    def load(self) -> None:
        """Make it again what it was when it was saved."""
        run("cp", "--sparse=always", self.image.with_suffix(".saved"), self.image)


def unmount(path: Path) -> None:
    """Unmount at last: workers whose parent was killed and loop devices take a moment to go, and keep a disk busy."""
    for _ in range(200):
        if subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise Unavailable(f"{path} is still in use")


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
