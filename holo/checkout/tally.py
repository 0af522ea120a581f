"""What a checkout made, counted by the workers, and what of it is not exactly as recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holo.checkout.attributes import CAPABILITY
from holo.relocation.patch import unquoted
from holo.workers.results import Results

_LISTED = 5


class Tally(Results):
    """Counts that workers collect. Files are counted once, bytes are of content."""

    def __init__(self) -> None:
        self.reflinked = 0
        self.hardlinked = 0
        self.copied = 0
        self.removed = 0
        self.shared_bytes = 0
        self.written_bytes = 0
        self.divided: dict[str, int] = {}
        """files that are several here, for one cannot have so many names: one of the names, and how many there are"""
        self.lost: list[tuple[str, str]] = []
        """path and name of each extended attribute that could not be given"""
        self.directories: dict[str, int] = {}
        """the inode of each directory that was made or changed, by its path"""
        self.modes: dict[int, int] = {}
        """what became of each type and mode (st_mode) that was set"""
        self.unquoted: list[str] = []
        """files in which nobody knows how the new path is to be quoted"""

    @property
    def files(self) -> int:
        return self.reflinked + self.hardlinked + self.copied

    def warnings(self) -> Iterator[str]:
        """What was made and is not exactly as recorded."""
        for path, names in sorted(self.divided.items()):
            yield (
                f"{path} and the other {names - 1:,} names of one file are those of several now: "
                "this filesystem does not allow one so many"
            )
        if self.unquoted:
            yield unquoted(self.unquoted)
        capable = [path for path, name in self.lost if name == CAPABILITY]
        if capable:
            yield f"capabilities could not be given, as only root may: {_listed(capable)}"
        others = [path for path, name in self.lost if name != CAPABILITY]
        if others:
            yield f"extended attributes could not be given, as this filesystem has none: {_listed(others)}"


def _listed(paths: Iterable[str]) -> str:
    found = sorted({path or "its root" for path in paths})
    more = len(found) - _LISTED
    return ", ".join(found[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")
