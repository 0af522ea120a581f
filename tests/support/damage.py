"""What a bad disk, a bad program or a bad day does to a file, without a trace in its mode and mtime."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path


def rewrite(path: Path, content: bytes) -> None:
    """Other bytes in the same inode, with the same mode and mtime."""
    before = path.stat()
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(before.st_mode & 0o7777)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))


def flip(path: Path, other: Path, randomly: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[randomly.randrange(len(content))] ^= 1 << randomly.randrange(8)
    rewrite(path, bytes(content))


def truncate(path: Path, other: Path, randomly: random.Random) -> None:
    content = path.read_bytes()
    rewrite(path, content[: randomly.randrange(len(content))])


def delete(path: Path, other: Path, randomly: random.Random) -> None:
    path.unlink()


def zero(path: Path, other: Path, randomly: random.Random) -> None:
    """As if some blocks had never been written."""
    content = bytearray(path.read_bytes())
    start = randomly.randrange(len(content))
    end = randomly.randrange(start, len(content)) + 1
    content[start:end] = bytes(end - start)
    rewrite(path, bytes(content))


def swap(path: Path, other: Path, randomly: random.Random) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    rewrite(path, theirs)
    rewrite(other, mine)


def duplicate(path: Path, other: Path, randomly: random.Random) -> None:
    rewrite(path, other.read_bytes())


def touch(path: Path, other: Path, randomly: random.Random) -> None:
    """The right bytes, and a trace of somebody who wrote them."""
    os.utime(path)


def replace_by_directory(path: Path, other: Path, randomly: random.Random) -> None:
    path.unlink()
    path.mkdir()


def replace_by_symlink(path: Path, other: Path, randomly: random.Random) -> None:
    moved = path.with_name(path.name + "-moved")
    shutil.copy2(path, moved)
    path.unlink()
    path.symlink_to(moved.name)


Action = Callable[[Path, Path, random.Random], None]

QUIET: tuple[Action, ...] = (flip, truncate, delete, zero, swap, duplicate)
"""``other`` is a second file of the same kind, which only a swap changes as well."""

OBVIOUS: tuple[Action, ...] = (touch, replace_by_directory, replace_by_symlink)


def set_writable(tree: Path, writable: bool) -> None:
    """Let a subvolume that is read-only be changed, or protect it again."""
    value = "false" if writable else "true"
    subprocess.run(["btrfs", "property", "set", "-f", tree, "ro", value], check=True)
