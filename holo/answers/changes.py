"""What differs between two trees: packages first, then files. Values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, TypeAlias

What: TypeAlias = Literal["added", "removed", "edited", "mode", "time"]

_PHRASES: dict[What, str] = {
    "edited": "edited",
    "added": "added",
    "removed": "removed",
    "mode": "with other rights",
    "time": "with another time, owner or attribute",
}

BYTECODE = (".pyc", ".pyo")
CACHE = "__pycache__"


class PackageChange(NamedTuple):
    """A package that one of two trees has not, or has in another version."""

    kind: str
    """``python``, ``conda`` or ``node``"""
    name: str
    before: str | None
    """the version, or ``None`` where the package is not"""
    after: str | None
    files: int
    """of those that differ, how many belong to it"""

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.name} {self.after} added"
        if self.after is None:
            return f"{self.name} {self.before} removed"
        return f"{self.name} {self.before} -> {self.after}"


class FileChange(NamedTuple):
    """A file, a symlink or a directory that differs. Bytecode is only counted, unless its package has changed."""

    path: str
    """below the tree; a directory's ends with a slash"""
    what: What
    """``mode``: only its rights differ; ``time``: at most its time and extended attributes do"""
    package: str | None
    """the name of the package it belongs to, if that is among those which changed"""


class Changes(NamedTuple):
    """What differs between two trees."""

    packages: tuple[PackageChange, ...]
    files: tuple[FileChange, ...]
    """all that differ, those of packages that changed as well; in the order of their paths"""
    bytecode: int
    """files of compiled Python that are in no list: they come and go as programs run"""

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.packages or self.files or self.bytecode)

    def summary(self) -> list[str]:
        """What differs, in phrases: each package, then how many other files."""
        found = [str(change) for change in self.packages]
        others = [change for change in self.files if change.package is None]
        for count, are_files in ((_files, True), (_directories, False)):
            counts = Counter(change.what for change in others if change.path.endswith("/") is not are_files)
            found += [f"{count(counts[what])} {phrase}" for what, phrase in _PHRASES.items() if counts[what]]
        if self.bytecode:
            found.append(f"{_files(self.bytecode)} of bytecode")
        return found

    def to_json(self) -> dict[str, Any]:
        """The part about changes of what `holo status --json` and `holo diff --json` print."""
        return {
            "packages": [change._asdict() for change in self.packages],
            "files": [change._asdict() for change in self.files],
            "bytecode": self.bytecode,
        }


class Installed(NamedTuple):
    """A package in a tree."""

    kind: str
    name: str
    version: str
    path: str
    """the file that describes it"""

    @property
    def key(self) -> tuple[str, str]:
        """The same for two spellings of one name."""
        return self.kind, self.name if self.kind == "node" else self.name.lower().replace("_", "-").replace(".", "-")


Pair: TypeAlias = tuple[Installed | None, Installed | None]


def paired(before: Iterable[Installed], after: Iterable[Installed]) -> list[Pair]:
    """Each package that is not on both sides in one version, with the other version that took its place.

    Node has many versions of one package side by side: the place decides then.
    """
    sides: dict[tuple[str, str], tuple[list[Installed], list[Installed]]] = {}
    for side, packages in enumerate((before, after)):
        for package in packages:
            sides.setdefault(package.key, ([], []))[side].append(package)
    pairs: list[Pair] = []
    for old, new in sides.values():
        for alike in (_same_place_and_version, _same_version):
            _pair(old, new, alike)
        pairs += _pair(old, new, _same_place)
        if len(old) == len(new) == 1:
            pairs.append((old.pop(), new.pop()))
        pairs += [(package, None) for package in old] + [(None, package) for package in new]
    return _without_doubles(sorted(pairs, key=_name_of))


def _pair(
    old: list[Installed], new: list[Installed], alike: Callable[[Installed, Installed], bool]
) -> list[tuple[Installed, Installed]]:
    """Take those from both lists that are alike."""
    found = []
    for package in [*old]:
        other = next((candidate for candidate in new if alike(package, candidate)), None)
        if other is not None:
            old.remove(package)
            new.remove(other)
            found.append((package, other))
    return found


def _same_place(one: Installed, other: Installed) -> bool:
    return _place(one) == _place(other)


def _same_version(one: Installed, other: Installed) -> bool:
    return one.version == other.version


def _same_place_and_version(one: Installed, other: Installed) -> bool:
    return _same_version(one, other) and _same_place(one, other)


def _place(package: Installed) -> str:
    """Of Python and conda the folder that holds all packages: the names below it have the version in them."""
    folder = package.path.rpartition("/")[0]
    return folder.rpartition("/")[0] if package.kind == "python" else folder


def _name_of(pair: Pair) -> tuple[str, str]:
    known = pair[0] or pair[1]
    assert known is not None
    return known.name.lower(), known.path


def _without_doubles(pairs: list[Pair]) -> list[Pair]:
    """Conda's packages of Python describe themselves twice: as conda's and as Python's."""

    def spoken(pair: Pair) -> tuple[object, ...]:
        old, new = pair
        return (old and (old.key[1], old.version), new and (new.key[1], new.version))

    of_conda = {spoken(pair) for pair in pairs if "conda" in _kinds(pair)}
    return [pair for pair in pairs if _kinds(pair) != {"python"} or spoken(pair) not in of_conda]


def _kinds(pair: Pair) -> set[str]:
    return {package.kind for package in pair if package is not None}


class Owners(NamedTuple):
    """Which files belong to which of the packages that changed."""

    files: dict[str, str]
    folders: dict[str, str]
    """all in there is the package's"""

    def of(self, path: str) -> str | None:
        """The name of the package, or ``None``. Bytecode belongs to the package of its source."""
        path = path.removesuffix("/")
        found = self.files.get(path) or self.files.get(source_of(path))
        while found is None and "/" in path:
            path = path.rpartition("/")[0]
            found = self.folders.get(path)
        return found


def is_bytecode(path: str) -> bool:
    return path.endswith(BYTECODE) or path.removesuffix("/").rpartition("/")[2] == CACHE


def source_of(path: str) -> str:
    """The source of bytecode, or nothing: ``a/__pycache__/b.cpython-313.pyc`` is of ``a/b.py``."""
    folder, _, name = path.rpartition("/")
    above, _, last = f"/{folder}".rpartition("/")
    if not name.endswith(BYTECODE) or last != CACHE:
        return ""
    return f"{above}/{name.partition('.')[0]}.py".lstrip("/")


def grouped(pairs: Iterable[Pair], differing: Iterable[tuple[str, What]], owners: Owners) -> Changes:
    """Put together what differs."""
    files = []
    bytecode = 0
    for path, what in differing:
        package = owners.of(path)
        if package is None and is_bytecode(path):
            bytecode += not path.endswith("/")
        else:
            files.append(FileChange(path, what, package))
    counts = Counter(change.package for change in files)
    packages = []
    for old, new in pairs:
        known = new or old
        assert known is not None
        packages.append(
            PackageChange(known.kind, known.name, old and old.version, new and new.version, counts[known.name])
        )
    return Changes(tuple(packages), tuple(files), bytecode)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _directories(count: int) -> str:
    return "1 directory" if count == 1 else f"{count:,} directories"
