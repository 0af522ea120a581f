"""Compare two trees: which files differ, and which packages explain that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from holo import digest as digests
from holo.answers.changes import CACHE, Changes, Owners, What, grouped, paired
from holo.answers.tree import Tree
from holo.catalog import DirectoryRow, FileRow, SymlinkRow
from holo.relocation import leads_into
from holo.relocation.find import begins_path, continues_name

_LARGEST = 64 << 20
"""Bytes of a file that is read to see whether it only names another path."""

_Entry: TypeAlias = FileRow | SymlinkRow


def compare(before: Tree, after: Tree, *, times: bool) -> Changes:
    """What differs in ``after`` from ``before``; with ``times``, also files of which at most the time does.

    A file that names the path of its tree does not differ for that.
    """
    differing = list(_Comparison(before, after, times=times).differences())
    if not differing:
        return Changes((), (), 0)
    if all(what in ("mode", "time") for _, what in differing):
        return grouped([], differing, Owners({}, {}))
    from holo.answers.packages import different_packages, owners

    pairs = paired(*different_packages(before, after))
    return grouped(pairs, differing, owners(pairs, before, after))


class _Comparison:
    def __init__(self, before: Tree, after: Tree, *, times: bool) -> None:
        self._before = before
        self._after = after
        self._times = times

    def differences(self) -> Iterator[tuple[str, What]]:
        """Every path that differs, in order, and how. Of directories that come or go, only empty ones count."""
        old = {row[0]: row for row in self._before.catalog.directories}
        new = {row[0]: row for row in self._after.catalog.directories}
        found: list[tuple[str, What]] = []
        moved: list[tuple[str, What]] = []
        for path in old.keys() | new.keys():
            one, other = old.get(path), new.get(path)
            if one is not other:
                found += self._in_directory(path, one, other)
                if one and other and (one[2] != other[2] or path in self._after.altered):
                    moved.append((f"{path or '.'}/", "time"))
        if self._times and not found:  # else it is what comes and goes in there that moves the time of a directory
            found = moved
        return iter(_without_full(sorted(found)))

    def _in_directory(
        self, path: str, old: DirectoryRow | None, new: DirectoryRow | None
    ) -> Iterator[tuple[str, What]]:
        base = f"{path}/" if path else ""
        before, after = _entries(old), _entries(new)
        for name in before.keys() | after.keys():
            what = self._what(base + name, before.get(name), after.get(name))
            if what is not None:
                yield base + name, what
        if old is None or new is None:
            if path.rpartition("/")[2] != CACHE:
                yield base, "added" if old is None else "removed"
        elif old[1] != new[1]:
            yield base or "./", "mode"

    def _what(self, path: str, old: _Entry | None, new: _Entry | None) -> What | None:
        if old is None or new is None:
            return "added" if old is None else "removed"
        if len(old) == 3 and len(new) == 3:
            is_same = self._target(self._before, old) == self._target(self._after, new)
        else:
            is_same = len(old) == len(new) == 5 and self._is_same_content(path, old, new)
        if not is_same:
            return "edited"
        if len(old) == 5 and old[1] != new[1]:
            return "mode"
        is_altered = _time(old) != _time(new) or path in self._after.altered
        return "time" if self._times and is_altered else None

    @staticmethod
    def _target(tree: Tree, row: SymlinkRow) -> tuple[str, str]:
        """Where a symlink leads, whatever the paths of its tree and its project are."""
        for what, root in (("tree", tree.catalog.prefix), ("project", tree.catalog.project)):
            if root and leads_into(row[1], root):
                return what, row[1][len(root) :]
        return "", row[1]

    def _is_same_content(self, path: str, old: FileRow, new: FileRow) -> bool:
        is_own = path in self._before.own or path in self._after.own
        if not is_own and old[4] == new[4]:
            return True
        names_prefix = all(path in tree.own or path in tree.catalog.relocations for tree in (self._before, self._after))
        if names_prefix and max(old[2], new[2]) <= _LARGEST:
            return self._digest(self._before, path, old) == self._digest(self._after, path, new)
        return is_own and old[2] == new[2] and _content(self._before, path, old) == _content(self._after, path, new)

    @staticmethod
    def _digest(tree: Tree, path: str, row: FileRow) -> str:
        """Of the content without the paths of its tree and its project."""
        content = tree.read(row)
        is_text = b"\0" not in content
        for root in tree.named_roots(path):
            content = _without(root, content) if is_text else content.replace(root, b"")
        return digests.of(content)


def _content(tree: Tree, path: str, row: FileRow) -> str:
    """The digest of a content. Of a file in a space that is not as restored, nobody has it yet."""
    if path not in tree.own:
        return row[4]
    hasher = digests.Hasher()
    for piece in tree.contents.chunks(row[4], row[2]):
        hasher.update(piece)
    return hasher.hexdigest()


def _without(root: bytes, content: bytes) -> bytes:
    """A text without a path, where that is not merely in another one, as that of a sibling begins the same way."""

    def kept(found: re.Match[bytes]) -> bytes:
        before, after = content[max(0, found.start() - 64) : found.start()], content[found.end() : found.end() + 2]
        return b"" if begins_path(before) and not continues_name(after) else root

    return re.sub(re.escape(root), kept, content)


def _time(row: _Entry) -> int:
    return row[2] if len(row) == 3 else row[3]


def _entries(row: DirectoryRow | None) -> dict[str, _Entry]:
    if row is None:
        return {}
    found: dict[str, _Entry] = {file[0]: file for file in row[3]}
    found.update((link[0], link) for link in row[4])
    return found


def _without_full(found: list[tuple[str, What]]) -> list[tuple[str, What]]:
    """Without the directories that came or went with something in them. What is in one follows it."""
    kept = []
    for number, (path, what) in enumerate(found):
        is_full = number + 1 < len(found) and found[number + 1][0].startswith(path)
        if not (path.endswith("/") and path != "./" and what in ("added", "removed") and is_full):
            kept.append((path, what))
    return kept
