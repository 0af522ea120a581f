"""Which catalogs go by their last use or their size."""

from __future__ import annotations

import re
from dataclasses import dataclass

from holo.errors import UsageError

_UNITS = "kmgt"


@dataclass(frozen=True)
class Policy:
    """Which catalogs go although nobody removed them: those that any of these rules selects."""

    keep_days: float | None = None
    """those not used for so many days"""
    keep_last: int | None = None
    """all but so many that were used last"""
    max_size: int | None = None
    """the least recently used, until the blobs and link forms of the others occupy no more bytes than this"""

    def __post_init__(self) -> None:
        if min(self.keep_days or 0, self.keep_last or 0, self.max_size or 0) < 0:
            raise UsageError("--keep-days, --keep-last and --max-size must not be negative")


def parse_size(text: str) -> int:
    """``20GB``, ``500M``, ``1.5 TiB`` or a number of bytes. k, M, G and T are decimal, Ki, Mi, Gi and Ti binary."""
    found = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?)\s*(?:([{_UNITS}])(i?))?b?", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise UsageError(f"{text!r} is not a size", "Write a number and a unit: 20GB, 500M, 1.5TiB.")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** (_UNITS.index(unit.lower()) + 1 if unit else 0))
