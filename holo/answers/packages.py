"""The packages in a tree that another tree has not, and the files that belong to them.

What the files say that describe packages is anybody's: it only decides how changes are grouped.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Set
from typing import TypeAlias

from holo.answers.changes import Installed, Owners, Pair
from holo.answers.tree import Tree
from holo.catalog import FileRow
from holo.errors import MALFORMED
from holo.sbom import Reader
from holo.sbom.find import Found, find
from holo.sbom.packages import NotUnderstood

_Key: TypeAlias = tuple[str, str | None]
"""The path of a file, and its digest."""

_LARGEST = 32 << 20
"""Bytes of a list of a package's files."""

_MOST_READ = 256 << 20
"""Bytes of all lists together."""


def different_packages(before: Tree, after: Tree) -> tuple[list[Installed], list[Installed]]:
    """The packages of each tree, but for those whose descriptions are the same in both."""
    old, new = (
        {(found.path, found.row and found.row[4]): found for found in find(tree.catalog)} for tree in (before, after)
    )
    return _described(before, old, new.keys()), _described(after, new, old.keys())


def _described(tree: Tree, found: dict[_Key, Found], known: Set[_Key]) -> list[Installed]:
    reader = Reader(tree.contents)
    packages = []
    for key, file in found.items():
        if file.kind == "lock" or key in known:
            continue
        try:
            package = reader.package(file)
        except NotUnderstood:
            continue
        name = f"{package.group}/{package.name}" if package.group else package.name
        packages.append(Installed(file.kind, name, package.version, file.path))
    return packages


def owners(pairs: list[Pair], before: Tree, after: Tree) -> Owners:
    """Whose the files of both trees are, as far as they belong to packages that changed."""
    found = Owners({}, {})
    for side, tree in enumerate((before, after)):
        lists = _Lists(tree)
        for pair in pairs:
            package = pair[side]
            if package is not None:
                _add(found, package, lists)
    return found


def _add(found: Owners, package: Installed, lists: _Lists) -> None:
    folder = package.path.rpartition("/")[0]
    found.files[package.path] = package.name
    if package.kind == "conda":
        found.files.update(dict.fromkeys(lists.of_conda(package.path), package.name))
        return
    if not package.path.endswith(".egg-info"):  # else it is a file among others
        found.folders[folder] = package.name
    if package.kind == "python":
        found.files.update(dict.fromkeys(lists.of_python(folder), package.name))


class _Lists:
    """Reads what packages say of their files."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._rows: dict[str, list[FileRow]] = {row[0]: row[3] for row in tree.catalog.directories}
        self._left = _MOST_READ

    def of_python(self, folder: str) -> Iterator[str]:
        """By the RECORD in a ``.dist-info``: https://packaging.python.org/en/latest/specifications/recording-installed-packages/"""
        site = posixpath.dirname(folder)
        text = self._read(f"{folder}/RECORD").decode("utf-8", "surrogateescape")
        try:
            for line in csv.reader(io.StringIO(text)):
                if line and not line[0].startswith("/"):
                    path = posixpath.normpath(posixpath.join(site, line[0]))
                    if not path.startswith("../"):
                        yield path
        except csv.Error:  # it is no list
            return

    def of_conda(self, path: str) -> list[str]:
        """By its record in ``conda-meta``."""
        prefix = posixpath.dirname(posixpath.dirname(path))
        try:
            files = json.loads(self._read(path))["files"]
        except MALFORMED:
            return []
        return [posixpath.join(prefix, file) for file in files if isinstance(file, str)] if type(files) is list else []

    def _read(self, path: str) -> bytes:
        """The content of a file, or nothing if it is not there or too large."""
        folder, _, name = path.rpartition("/")
        row = next((row for row in self._rows.get(folder, ()) if row[0] == name), None)
        if row is None or row[2] > min(_LARGEST, self._left):
            return b""
        self._left -= row[2]
        return self._tree.read(row)
