"""The tree that is measured when no other is named, and what is done to restored ones."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from contextlib import suppress

_FILES = 3000
_FILES_PER_FOLDER = 8
_FOLDERS_PER_PACKAGE = 10
_MEDIAN, _SPREAD, _LARGEST = 4500, 1.75, 2 << 20
"""File sizes are log-normal, as in a virtualenv: most are a few kilobytes, a few are megabytes."""
_LIBRARY = 128 << 10
"""Larger files are like shared libraries: they hardly compress."""
_ONE_IN_SO_MANY = 100
"""files is damaged, and holds the path of the tree"""


def generate(tree: str, check: Callable[[], None]) -> None:
    """Make the tree, the same every time. ``check`` is called now and then, and may raise."""
    chance = random.Random(3)  # noqa: S311 - it is to be foreseen
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(2, 9))) for _ in range(3000)]
    text = " ".join(chance.choices(words, k=100_000)).encode()
    binary = bytearray(chance.randbytes(2 * _LARGEST))
    binary[::4] = bytes(len(binary[::4]))
    for number in range(_FILES):
        folder = number // _FILES_PER_FOLDER
        parent = os.path.join(tree, "lib", f"package{folder // _FOLDERS_PER_PACKAGE}", f"part{folder}")
        if number % _FILES_PER_FOLDER == 0:
            check()
            os.makedirs(parent)
        size = min(_LARGEST, int(_MEDIAN * math.exp(chance.gauss(0, _SPREAD))))
        pool, kind = (binary, "so") if size > _LIBRARY else (text, "py")
        start = chance.randrange(len(pool) - size)
        head = f"#!{tree}/bin/python\n" if number % _ONE_IN_SO_MANY == 0 else ""
        with open(os.path.join(parent, f"file{number}.{kind}"), "wb") as file:
            file.write(os.fsencode(f"{head}# {number}\n") + pool[start : start + size])


def read_metadata(tree: str) -> list[str]:
    """The paths of all files, sorted. Every inode is read, so that it need not be when a command is measured."""
    files: list[str] = []
    folders = [tree]
    while folders:
        with suppress(PermissionError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.path)
    return sorted(files)


def damage(files: list[str]) -> None:
    """Delete or replace 1 % of the files, half and half, never writing into one: it may be a hardlink."""
    for number, file in enumerate(files[::_ONE_IN_SO_MANY]):
        with suppress(PermissionError):  # in a read-only directory
            os.unlink(file)
            if number % 2:
                with open(file, "wb") as replaced:
                    replaced.write(b"damaged\n")
