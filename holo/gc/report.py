"""What a collection removed, or would."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from holo.hololib.inventory import Damage
from holo.space import Space

_REMOVED = ("blobs", "links", "golden", "drafts", "locks", "layers", "spares")


class Use(NamedTuple):
    """A catalog as the report names it."""

    names: list[str]
    digest: str
    used: float
    """when it was recorded or restored last, in seconds of the epoch"""
    spaces: list[str]
    """that hold it"""

    def to_json(self) -> dict[str, Any]:
        return self._asdict() | {"used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.used))}


@dataclass(frozen=True)
class GcReport:
    """What was removed, or would be. A dry run reports the same as a real one would."""

    dry_run: bool
    catalogs: list[Use]
    kept: list[Use]
    """that the policy selects, but that spaces hold, or that are another user's"""
    blobs: int
    """both forms of a content count"""
    links: int
    golden: int
    drafts: int
    """leftovers of killed commands"""
    locks: int
    """lock files of spaces and of throw-away environments that are gone"""
    layers: int
    """lower layers of throw-away environments (see :mod:`holo.trees.overlay`)"""
    bytes_freed: int
    """on the disk, certainly: neither hardlinked nor reflinked from elsewhere"""
    bytes_shared: int
    """of removed files, but shared with others: they are free when the last of these is gone"""
    bytes_left: int
    """occupied by the blobs and link forms that stay"""
    unknown: list[str]
    """paths in the library that holo does not know, and leaves alone"""
    others: int
    """garbage that belongs to other users of a shared library"""
    damage: list[Damage]
    """why only drafts were removed, if so"""
    seconds: float
    spaces: list[Space] = field(default_factory=list)
    """that were dropped because their directory, or the folder that they were for, is gone"""
    spares: int = 0

    def to_json(self) -> dict[str, Any]:
        """The document ``holo gc --json`` prints."""
        return {
            "dry_run": self.dry_run,
            "catalogs": [use.to_json() for use in self.catalogs],
            "spaces": [{"name": space.name, "path": space.path} for space in self.spaces],
            "kept": [use.to_json() for use in self.kept],
            "removed": {name: getattr(self, name) for name in _REMOVED},
            "bytes": {"freed": self.bytes_freed, "shared": self.bytes_shared, "left": self.bytes_left},
            "unknown": self.unknown,
            "seconds": self.seconds,
        }
