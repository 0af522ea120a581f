"""What a clone did, in the form the command line prints and the API returns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple


class Name(NamedTuple):
    """One name of a file that has several."""

    inode: tuple[int, int]
    """device and number"""
    path: str
    size: int
    made: bool
    """as a file of its own; else it is a link, or left for the end, when it is known which other names there are"""
    leader: str = ""
    """the path that it was linked to"""
    shared: bool | None = None
    """as what it was counted: reflinked, copied, or ``None`` for empty"""

    @property
    def is_there(self) -> bool:
        """Whether some file has the name already."""
        return self.made or bool(self.leader)


@dataclass
class Made:
    """What one worker did, or all of them. Files are counted once, bytes are of content."""

    reflinked: int = 0
    hardlinked: int = 0
    copied: int = 0
    empty: int = 0
    """files that are neither, or both"""
    shared_bytes: int = 0
    written_bytes: int = 0
    symlinks: int = 0
    directories: int = 0
    lost_owners: int = 0
    lost_attributes: int = 0
    names: list[Name] = field(default_factory=list)
    divided: list[str] = field(default_factory=list)
    """where one more file begins, because one cannot have as many names as in the source"""
    unfinished: list[str] = field(default_factory=list)
    """directories whose attributes are still to be set"""
    fresh: list[str] = field(default_factory=list)
    """files and symlinks that changed after the search for the path"""
    reasons: list[str] = field(default_factory=list)
    """why files were copied that should have been cloned"""

    def add(self, other: Made) -> None:
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, list):
                mine += theirs  # a new list each time would take longer with each
            else:
                setattr(self, each.name, mine + theirs)


@dataclass(frozen=True)
class CloneReport:
    """A cloned tree. ``reflinked + hardlinked + copied == total``, unless nobody counted.

    A snapshot is one step, whatever is in it: without ``relocate`` the numbers are ``None`` then. ``hardlinked`` are
    names of files that have another name in the tree already. ``relocated`` files are among the copied.
    """

    source: str
    path: str
    used: str
    """``snapshot``, ``reflink`` or ``copy``"""
    reason: str | None
    """why it is not the first way that there is, or not for all files"""
    total: int | None
    reflinked: int | None
    hardlinked: int | None
    copied: int
    relocated: int
    symlinks: int | None
    directories: int | None
    bytes_total: int | None
    bytes_shared: int | None
    bytes_written: int
    warnings: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The document `holo clone --json` prints."""
        return {
            "source": self.source,
            "path": self.path,
            "strategy": {"used": self.used, "reason": self.reason},
            "files": {
                "total": self.total,
                "reflinked": self.reflinked,
                "hardlinked": self.hardlinked,
                "copied": self.copied,
                "relocated": self.relocated,
            },
            "symlinks": self.symlinks,
            "directories": self.directories,
            "bytes": {"total": self.bytes_total, "shared": self.bytes_shared, "written": self.bytes_written},
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }
