"""What workers have counted and found, added up."""

from __future__ import annotations

from typing import Self


class Results:
    """The results of one worker, or of all: attributes that are numbers, lists and dictionaries."""

    def add(self, other: Self) -> None:
        """Add those of another worker, in place: a new list each time would take longer with each."""
        for name, theirs in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, dict):
                mine |= theirs
            elif isinstance(mine, list):
                mine += theirs
            else:
                setattr(self, name, mine + theirs)
