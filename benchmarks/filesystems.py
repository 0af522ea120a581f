"""Fresh Btrfs, XFS and ext4, each in a sparse image that is mounted through a loop device."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MKFS = {
    "btrfs": ("mkfs.btrfs", "-q"),
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    # Twice the usual inodes, for the 200,000 files; and no tables left to be written in the background.
    "ext4": ("mkfs.ext4", "-q", "-F", "-i", "8192", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
}
NAMES = tuple(MKFS)

SUBVOLUME_INODE = "256"  # what the root of every Btrfs subvolume has


class UnavailableError(Exception):
    """A filesystem or a tool cannot be had here; the message says why."""


@dataclass(frozen=True)
class Filesystem:
    """One mounted filesystem."""

    name: str
    root: Path

    def settle(self) -> None:
        """Finish what earlier commands left to be written or deleted, so that the next does not pay."""
        if self.name == "btrfs":  # its own sync wakes the cleaner (ioctl.c, BTRFS_IOC_SYNC), which else sleeps 30 s
            run("btrfs", "filesystem", "sync", self.root)
            run("btrfs", "subvolume", "sync", self.root)
        else:
            run("sync", "--file-system", self.root)

    def remove(self, tree: Path) -> None:
        """Delete a tree and the subvolumes in it, which rm cannot where they are read-only."""
        if not tree.exists():
            return
        if self.name == "btrfs":
            found = run("find", tree, "-depth", "-type", "d", "-inum", SUBVOLUME_INODE)
            for subvolume in found.splitlines():
                run("btrfs", "subvolume", "delete", subvolume)
        run("rm", "-rf", tree)


def run(*command: str | Path) -> str:
    """What the command prints; its own words if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@contextmanager
def mounted(name: str, workspace: Path, size: int) -> Iterator[Filesystem]:
    """A new filesystem of `size` bytes below `workspace`, gone with its image at the end."""
    tools = [MKFS[name][0], "mount", *(["btrfs"] if name == "btrfs" else [])]
    for tool in tools:
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} is not installed")
    image, root = workspace / f"{name}.img", workspace / name
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    try:
        run(*MKFS[name], image)
        run("mount", "-t", name, "-o", "loop", image, root)
    finally:
        image.unlink()  # the loop device keeps it until it is unmounted, whatever ends this program
    try:
        yield Filesystem(name, root)
    finally:
        _unmount(root)


def _unmount(root: Path) -> None:
    """Unmount, waiting for processes on their way out; at last leave it to the kernel."""
    for _ in range(50):
        if subprocess.run(["umount", root], capture_output=True, check=False).returncode == 0:
            break
        time.sleep(0.1)
    else:
        run("umount", "--lazy", root)
    root.rmdir()
