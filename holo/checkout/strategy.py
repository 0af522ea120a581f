"""Decide once, for a library and a space, how content gets from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from holo.errors import StrategyUnavailable
from holo.settings import Strategy


class Method(StrEnum):
    """How a file is materialized that need not be private. Each falls back to the next."""

    SNAPSHOT = "snapshot"
    HARDLINK = "hardlink"
    REFLINK = "reflink"
    COPY = "copy"
    OVERLAY = "overlay"
    VIEW = "view"
    """an overlay that only commands of the space see"""


class Decision(NamedTuple):
    """What was asked for, what is done, and why that is something else (``None`` when it is not)."""

    requested: Strategy
    used: Method
    reason: str | None = None

    def to_json(self) -> dict[str, str | None]:
        return {"requested": self.requested.value, "used": self.used.value, "reason": self.reason}

    @property
    def warning(self) -> str | None:
        """What to tell a user who asked for a particular strategy and gets another."""
        if self.reason is None or self.requested in (Strategy.SMART, Strategy.COPY):
            return None
        return f"{self.requested.value} was asked for, {self.used.value} is used: {self.reason}"


Probe = Callable[[], str | None]
"""Tries one method; ``None`` if it works, else why it does not."""

_ORDER = {
    Strategy.SMART: (Method.REFLINK,),
    Strategy.REFLINK: (Method.REFLINK,),
    Strategy.HARDLINK: (Method.HARDLINK, Method.REFLINK),
    Strategy.COPY: (),
    Strategy.OVERLAY: (),
}


def decide(requested: Strategy, probes: dict[Method, Probe], *, strict: bool) -> Decision:
    """Take the first method that works. ``strict`` makes anything but the first :class:`StrategyUnavailable`."""
    reasons: list[str] = []
    for method in _ORDER[requested]:
        why = probes[method]()
        if why is None:
            break
        reasons.append(f"{method.value} does not work between the library and the space ({why})")
        if strict:
            raise StrategyUnavailable(
                reasons[0], "Put the space and HOLO_HOME on one filesystem that can, or leave out --strict."
            )
    else:
        method = Method.COPY
    return Decision(requested, method, "; ".join(reasons) or None)
