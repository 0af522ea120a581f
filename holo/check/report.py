"""What a check found, in the form the command line prints and the API returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["catalog", "signature", "name", "blob", "link", "golden", "record", "space", "rights"]
"""What is damaged: a catalog, its signature, a name, a blob, a link form, a golden tree, the record of a space, the
space itself, or the rights to write to something in the library."""


@dataclass
class Problem:
    """One damage."""

    kind: Kind
    path: str
    what: str
    catalogs: list[str] = field(default_factory=list)
    """those that need the damaged file, by name; one without a name, by the first 12 digits of its digest"""
    spaces: list[str] = field(default_factory=list)
    """the spaces of these catalogs"""
    repaired: str | None = None
    """how, or ``None`` if it is not repaired"""
    quarantined: str | None = None
    """where the damaged file is now"""


@dataclass
class CheckReport:
    """Everything that was read, and what is wrong with it."""

    catalogs: int = 0
    blobs: int = 0
    """files in either form"""
    bytes: int = 0
    """of the disk files of blobs and link forms"""
    links: int = 0
    golden: int = 0
    spaces: int = 0
    compared: list[str] = field(default_factory=list)
    """names of spaces of which every file was read"""
    garbage_files: int = 0
    """files that no catalog needs; they do no harm"""
    garbage_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """what is no damage: spaces that import code from another checkout of their project"""
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether every problem was repaired."""
        return all(problem.repaired is not None for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """The document `holo check --json` prints."""
        return {
            "catalogs": self.catalogs,
            "blobs": self.blobs,
            "bytes": self.bytes,
            "links": self.links,
            "golden": self.golden,
            "spaces": self.spaces,
            "garbage": {"files": self.garbage_files, "bytes": self.garbage_bytes},
            "problems": [asdict(problem) for problem in self.problems],
            "warnings": self.warnings,
            "seconds": self.seconds,
        }
