"""Which catalog is meant."""

from __future__ import annotations

from typing import NamedTuple


class CatalogRef(NamedTuple):
    """A catalog, as it was named and as it is found."""

    name: str
    """one of its names, or the first 12 digits of its digest if it has none"""
    digest: str
    """BLAKE3-256, 64 hexadecimal digits"""

    @property
    def given_name(self) -> str | None:
        """The name, unless it stands for none. The name ``a`` may well begin the digest, too."""
        return None if self.name == self.digest[:12] else self.name
