"""From what is there and what should be, the list of what to do. Pure: no file is touched here."""

from __future__ import annotations

from typing import Any, NamedTuple

from holo.catalog import Catalog, FileRow, SymlinkRow
from holo.checkout.strategy import Method
from holo.checkout.survey import Survey
from holo.relocation.patch import Relocator


class Removal(NamedTuple):
    """Names to remove from one directory. ``extra`` ones are not in the catalog, ``replaced`` ones are made anew."""

    path: str
    extra: list[str]
    replaced: list[str]


class Fill(NamedTuple):
    """What to make in one directory, and the mode and mtime it has at the end."""

    path: str
    files: list[FileRow]
    symlinks: list[SymlinkRow]
    """with the targets they have in this space"""
    mode: int
    mtime_ns: int


class Plan(NamedTuple):
    """The steps, in the order in which they are carried out."""

    removals: list[Removal]
    directories: list[str]
    """to be made, parents first"""
    fills: list[Fill]
    """every directory in which anything changes, parents first"""
    relinks: list[tuple[str, list[str]]]
    """hardlinks within the space: the file that has the content, and the names to link to it"""
    linked: dict[str, FileRow]
    """the rows of those files; the others are the same but for their names"""
    private: dict[str, str]
    """files that must not be shared, with the reason ("relocated", "xattrs")"""
    unchanged: int

    @property
    def is_empty(self) -> bool:
        return not self.fills

    @property
    def size(self) -> int:
        """How many entries are removed or made."""
        removed = sum(len(item.extra) + len(item.replaced) for item in self.removals)
        made = sum(len(fill.files) + len(fill.symlinks) for fill in self.fills)
        return removed + made + len(self.directories)

    def to_json(self, method: Method) -> dict[str, Any]:
        """The plan as `restore --dry-run --json` prints it."""
        linked = {name for _, names in self.relinks for name in names}
        files = [
            {"path": path, "how": self._how(path, method)}
            for fill in self.fills
            for path in (_join(fill.path, row[0]) for row in fill.files)
        ]
        return {
            "remove": [_join(item.path, name) for item in self.removals for name in item.extra],
            "directories": self.directories,
            "files": files + [{"path": name, "how": "link"} for name in sorted(linked)],
            "symlinks": [_join(fill.path, row[0]) for fill in self.fills for row in fill.symlinks],
            "unchanged": self.unchanged,
        }

    def _how(self, path: str, method: Method) -> str:
        reason = self.private.get(path)
        if reason == "relocated":
            return reason
        # A file with attributes of its own is never a hardlink, which has those of every other link.
        return "private" if reason and method is Method.HARDLINK else method.value


def plan(catalog: Catalog, survey: Survey, relocator: Relocator, method: Method) -> Plan:
    """What turns the surveyed space into a pristine one."""
    private = {path: "relocated" for path, item in catalog.relocations.items() if relocator.applies(item)}
    for path in catalog.xattrs:
        private.setdefault(path, "xattrs")
    changed = {finding.path: finding for finding in survey.findings}
    missing = [finding.path for finding in survey.findings if finding.missing]
    making = (
        {_join(finding.path, row[0]) for finding in survey.findings for row in finding.files}
        if catalog.hardlinks
        else set()
    )
    relinks, dropped = _relinks(catalog, making, survey.inodes, method, private)
    # A directory also changes when a child directory is made in it or a link is put into it.
    touched = set(changed)
    for path in missing:
        if path:
            touched.add(path.rpartition("/")[0])
    for _, names in relinks:
        touched.update(name.rpartition("/")[0] for name in names)
    if touched:
        touched.add("")  # the root is always the last thing changed: its ctime is the space's stamp

    later = {name for _, names in relinks for name in names}
    leaders = {leader for leader, _ in relinks}
    removals = [
        Removal(finding.path, [*finding.extra], [*finding.replace])
        for finding in survey.findings
        if finding.extra or finding.replace
    ]
    removals += _extra_removals(missing, changed, dropped)
    fills = []
    for path, mode, mtime, _, _ in catalog.directories:
        if path not in touched:
            continue
        found = changed.get(path)
        files = [*found.files] if found is not None else []
        if later and files:
            files = [row for row in files if _join(path, row[0]) not in later]
        targets = found.symlinks if found is not None else ()
        links = [(name, relocator.symlink(target, _join(path, name)), time) for name, target, time in targets]
        fills.append(Fill(path, files, links, mode, mtime))
    unmade = sum(len(finding.files) for finding in survey.findings)
    return Plan(
        removals=removals,
        directories=missing,
        fills=fills,
        relinks=relinks,
        linked={path: row for path, row in catalog.files() if path in leaders} if relinks else {},
        private=private,
        unchanged=catalog.totals.files - unmade - len(dropped),
    )


def _relinks(
    catalog: Catalog, making: set[str], inodes: dict[str, int], method: Method, private: dict[str, str]
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """The links to make within hardlink groups, and the unchanged members that must be removed for it."""
    relinks = []
    dropped = []
    for group in catalog.hardlinks:
        if method is Method.HARDLINK and group[0] not in private:
            continue  # all of them are links of one shared file anyway
        kept = [path for path in group if path not in making]
        leader = kept[0] if kept else group[0]
        astray = [path for path in kept if inodes.get(path) != inodes.get(leader)]
        followers = [path for path in group if path != leader and (path in making or path in astray)]
        if followers:
            relinks.append((leader, followers))
            dropped += astray
    return relinks, dropped


def _extra_removals(missing: list[str], changed: dict[str, Any], dropped: list[str]) -> list[Removal]:
    """Removals that no directory's own finding asks for: what cannot be read, and links to be made anew."""
    removals = []
    for path in missing:
        parent, _, name = path.rpartition("/")
        above = changed.get(parent)
        if changed[path].unreadable and (above is None or not above.missing):
            removals.append(Removal(parent, [], [name]))
    for path in dropped:
        parent, _, name = path.rpartition("/")
        removals.append(Removal(parent, [], [name]))
    return removals


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
