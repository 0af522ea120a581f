"""Relocation: find the path of a tree inside its files, and patch it to another path."""

import re
from typing import TypeAlias

Edit: TypeAlias = tuple[int, int, bytes]
"""Replace content[start:end] by these bytes."""

MACH_O = (*map(bytes.fromhex, ("feedface", "feedfacf", "cefaedfe", "cffaedfe", "cafebabe", "cafebabf")),)
"""First bytes of programs and libraries for macOS; the last two of those for several processors."""

_LISTED = 6

_PLAIN = re.compile(rb"[A-Za-z0-9_@%+=:,./\x80-\xff-]*")


def is_plain(path: bytes) -> bool:
    """Whether no language needs quotes for ``path``: all of it is safe (:func:`shlex.quote`) or non-ASCII."""
    return _PLAIN.fullmatch(path) is not None


def leads_into(path: str, prefix: str) -> bool:
    """Whether a path is the prefix, or lies below it."""
    return path == prefix or path.startswith(prefix + "/")


def listed(items: list[str]) -> str:
    """The first items, and the number of the others."""
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
