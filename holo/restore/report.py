"""What a restore did, in the form the command line prints and the API returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holo.checkout.strategy import Decision


@dataclass(frozen=True)
class RestoreReport:
    """A restored space. ``reflinked + hardlinked + copied + unchanged == total``.

    ``relocated`` counts all files that hold the prefix, made now or unchanged. Bytes are of content: ``shared``
    was not written, ``written`` was; unchanged files are in neither.
    """

    space: str
    path: str
    catalog: str
    digest: str
    strategy: Decision
    total: int
    reflinked: int
    hardlinked: int
    copied: int
    unchanged: int
    relocated: int
    removed: int
    symlinks: int
    directories: int
    bytes_total: int
    bytes_shared: int
    bytes_written: int
    warnings: tuple[str, ...]
    """what was made and is not exactly as recorded, for it cannot be here"""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The document `holo restore --json` prints."""
        return {
            "space": self.space,
            "path": self.path,
            "catalog": self.catalog,
            "digest": self.digest,
            "strategy": self.strategy.to_json(),
            "files": {
                "total": self.total,
                "reflinked": self.reflinked,
                "hardlinked": self.hardlinked,
                "copied": self.copied,
                "unchanged": self.unchanged,
                "relocated": self.relocated,
                "removed": self.removed,
            },
            "symlinks": self.symlinks,
            "directories": self.directories,
            "bytes": {"total": self.bytes_total, "shared": self.bytes_shared, "written": self.bytes_written},
            "seconds": self.seconds,
        }
