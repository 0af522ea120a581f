"""Which catalogs go by their last use or their size."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holo.errors import UsageError


@dataclass(frozen=True)
class Policy:
    """Which catalogs go although nobody removed them: those that any of these rules selects."""

    keep_days: float | None = None
    """those not used for so many days"""
    keep_last: int | None = None
    """all but so many that were used last"""
    max_size: int | None = None
    """the least recently used, until the blobs and link forms of the others occupy no more bytes than this"""

    min_free: int | None = None
    """likewise, until so many bytes of the disk are free"""

    def __post_init__(self) -> None:
        if min(self.keep_days or 0, self.keep_last or 0, self.max_size or 0) < 0:
            raise UsageError("--keep-days, --keep-last and --max-size must not be negative")

    def within(self, occupied: int, free: int) -> Policy:
        """The same without ``min_free``, for a library that occupies so much of its disk, of which so much is free."""
        if self.min_free is None or free >= self.min_free:
            return replace(self, min_free=None)
        most = max(0, occupied - (self.min_free - free))
        return replace(self, min_free=None, max_size=most if self.max_size is None else min(most, self.max_size))
