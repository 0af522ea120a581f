"""How far a long work is, told to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable


def tell(on_progress: Callable[[int, int], object], done: int, total: int, size: int) -> None:
    """Call ``on_progress`` with how many files are done. Their size is set as its ``bytes``, if it has one."""
    if hasattr(on_progress, "bytes"):
        on_progress.bytes = size
    on_progress(done, total)
