"""Find the files in a catalog that say which packages are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from holo.catalog import Catalog, FileRow

Kind: TypeAlias = Literal["python", "conda", "node", "lock"]

MODULES = "node_modules"
LOCK = ".package-lock.json"
_ENDINGS = (".dist-info", ".egg-info")
_METADATA = {".dist-info": "METADATA", ".egg-info": "PKG-INFO", "EGG-INFO": "PKG-INFO"}
_PACKAGE = re.compile(r"(?:@[^/]+/)?[^/.@][^/]*")
"""The path of a package below ``node_modules``; what begins with a dot is npm's own."""


class Found(NamedTuple):
    """A file that describes a package (or, ``lock``, all that npm has installed in one folder)."""

    kind: Kind
    path: str
    row: FileRow | None
    """``None``: it is a symlink, and what it leads to may not be in the catalog"""
    origin: FileRow | None = None
    """of Python: the ``direct_url.json`` beside it"""


def find(catalog: Catalog) -> Iterator[Found]:
    """All of them, in the order of the catalog."""
    roots = _is_modules(catalog)
    for path, _, _, files, links in catalog.directories:
        base = f"{path}/" if path else ""
        name = path.rpartition("/")[2]
        suffix = next((suffix for suffix in _METADATA if name.endswith(suffix)), None)
        if suffix is not None:
            wanted = _METADATA[suffix]
            origin = _file(files, "direct_url.json")
            yield from (Found("python", base + row[0], row, origin) for row in files if row[0] == wanted)
            yield from (Found("python", base + row[0], None) for row in links if row[0] == wanted)
            continue
        # Two forms of old: one file, and one in the place of a folder that a symlink leads to.
        yield from (Found("python", base + row[0], row) for row in files if row[0].endswith(".egg-info"))
        yield from (Found("python", base + row[0], None) for row in links if row[0].endswith(_ENDINGS))
        if name == "conda-meta":
            yield from (Found("conda", base + row[0], row) for row in files if row[0].endswith(".json"))
            yield from (Found("conda", base + row[0], None) for row in links if row[0].endswith(".json"))
        elif is_package(path, below_root=roots):
            yield from (Found("node", base + row[0], row) for row in files if row[0] == "package.json")
            yield from (Found("node", base + row[0], None) for row in links if row[0] == "package.json")
        elif name == MODULES or (not path and roots):
            yield from (Found("lock", base + row[0], row) for row in files if row[0] == LOCK)


def is_package(path: str, *, below_root: bool) -> bool:
    """Whether a folder is where npm puts a package. ``below_root``: the tree itself is a ``node_modules``."""
    _, found, below = f"/{path}".rpartition(f"/{MODULES}/")
    return bool(found or below_root) and _PACKAGE.fullmatch(below if found else path) is not None


def folders_of(path: str) -> Iterator[tuple[str, str]]:
    """Every ``node_modules`` that a package can belong to, and the package's path below it; the root last."""
    end = len(path)
    while (end := path.rfind(f"{MODULES}/", 0, end)) >= 0:
        start = end + len(MODULES)
        if end == 0 or path[end - 1] == "/":
            yield path[:start], path[start + 1 :]
    yield "", path


def _is_modules(catalog: Catalog) -> bool:
    """Whether the tree itself was called ``node_modules``, or holo made it for a folder of that name."""
    root = catalog.directories[0]
    return catalog.prefix.rpartition("/")[2] == MODULES or _file(root[3], LOCK) is not None


def _file(files: list[FileRow], name: str) -> FileRow | None:
    return next((row for row in files if row[0] == name), None)
