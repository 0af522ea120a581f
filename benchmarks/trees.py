"""The trees that are recorded and restored: a real environment, synthetic ones, and damage to them."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

FILES_PER_FOLDER = 20
FOLDERS_PER_FOLDER = 100


@dataclass(frozen=True)
class Count:
    """What is in a tree."""

    files: int
    directories: int
    symlinks: int
    bytes: int


def count(tree: Path) -> Count:
    """Count a tree, not following symlinks."""
    files = directories = symlinks = size = 0
    folders = [os.fspath(tree)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    symlinks += 1
                elif entry.is_dir():
                    directories += 1
                    folders.append(entry.path)
                else:
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_size
    return Count(files, directories, symlinks, size)


def synthesize(tree: Path, files: int) -> None:
    """Make a tree of small text files, each different, one in 400 with the tree's path in it.

    The sizes (1 to 8 KiB), the share of relocated files and how well the text compresses are about those
    of a Python environment without its libraries.
    """
    chance = random.Random(files)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(2, 9))) for _ in range(3000)]
    text = " ".join(chance.choices(words, k=20_000)).encode()
    for number in range(files):
        folder = number // FILES_PER_FOLDER
        parent = tree / f"d{folder // FOLDERS_PER_FOLDER}" / f"d{folder}"
        if number % FILES_PER_FOLDER == 0:
            parent.mkdir(parents=True)
        start = chance.randrange(len(text) - 8192)
        path = b"#!%s/bin/python\n" % os.fsencode(tree) if number % 400 == 0 else b""
        content = path + b"# file %d\n" % number + text[start : start + chance.randrange(1024, 8192)]
        (parent / f"f{number}.py").write_bytes(content)


def damage(tree: Path, seed: int) -> None:
    """Delete or change 1 % of the files, half and half."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(tree) for name in names]
    files = sorted(file for file in files if not os.path.islink(file))
    for number, file in enumerate(random.Random(seed).sample(files, max(2, len(files) // 100))):
        shared = os.stat(file).st_nlink > 1  # to write into such a file would damage the library as well
        if number % 2 == 0 or shared:
            os.unlink(file)
        if number % 2 == 1:
            with open(file, "ab") as appended:
                appended.write(b"damaged\n")
