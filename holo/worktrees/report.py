"""What was made for a worktree, and what went with one."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

How: TypeAlias = Literal["restored", "cloned", "built", "copied"]


class Equipment(NamedTuple):
    """An environment, or a file, that a worktree has got."""

    path: str
    how: How
    """``restored`` as another space of the catalog that another checkout's is of, ``cloned`` from another checkout,
    ``built`` from the worktree's blueprint as a space, or a file, ``copied``"""
    origin: str
    """the path of the other checkout's, or of the blueprint"""
    space: str | None
    used: str
    """the strategy; empty for a file"""
    seconds: float


class WorktreeReport(NamedTuple):
    """A worktree, and what was made in it."""

    path: str
    branch: str
    """empty: none"""
    is_new: bool
    """whether git has made it now; else only what it lacked was made"""
    equipment: tuple[Equipment, ...]
    warnings: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The document `holo worktree add --json` prints."""
        return {
            "path": self.path,
            "branch": self.branch or None,
            "new": self.is_new,
            "made": [item._asdict() for item in self.equipment],
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }


class RemovedWorktree(NamedTuple):
    """A worktree that is gone, with its spaces."""

    path: str
    was_there: bool
    """else somebody else had removed its directory"""
    spaces: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document `holo worktree remove --json` prints."""
        return {"path": self.path, "was_there": self.was_there, "spaces": list(self.spaces)}
