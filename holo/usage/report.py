"""What a look at the disk found, for each thing that was looked at."""

from __future__ import annotations

from typing import Any, NamedTuple


class Shared(NamedTuple):
    """Bytes on the disk that others have as well. What two of them have counts in both."""

    library: int
    """blobs and link forms"""
    golden: int
    """golden trees"""
    spaces: int
    """other spaces, and spares"""
    ephemeral: int
    """the trees, layers and runs of throw-away environments"""
    other: int
    """the rest of the home, and other paths that were asked about"""
    elsewhere: int
    """files or snapshots that holo knows nothing of"""


class Usage(NamedTuple):
    """What one thing has of the disk, in bytes. A file with several names counts once."""

    kind: str
    """``library``, ``links``, ``golden``, ``space``, ``spares``, ``ephemeral``, ``other``, ``catalog``, ``path`` or
    ``total``"""
    name: str
    path: str
    files: int
    logical: int
    """the sum of the sizes of all files"""
    physical: int
    """on the disk; what two of its files share counts once"""
    exclusive: int
    """what would be free if it alone were removed"""
    inline: int
    """in small files that the filesystem keeps in its metadata; not in ``physical``"""
    pending: int
    """in ``physical``, but still in memory only"""
    shared: Shared

    def to_json(self) -> dict[str, Any]:
        return self._asdict() | {"shared": self.shared._asdict()}


class UsageReport(NamedTuple):
    """The disk usage of what was asked about: the largest first."""

    home: str
    items: tuple[Usage, ...]
    total: Usage
    """of all items together; ``exclusive`` is what would be free if all were removed"""
    notes: tuple[str, ...]
    """what makes numbers inexact, and what was left out"""

    def to_json(self) -> dict[str, Any]:
        return {
            "home": self.home,
            "items": [item.to_json() for item in self.items],
            "total": self.total.to_json(),
            "notes": list(self.notes),
        }
