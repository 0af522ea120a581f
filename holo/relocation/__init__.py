"""Moving a recorded tree to another path: what names the path, and how it is patched."""

import re

_LISTED = 20

_PLAIN = re.compile(rb"[A-Za-z0-9_@%+=:,./\x80-\xff-]*")


def is_plain(path: bytes) -> bool:
    """Whether no language gives any character of ``path`` a meaning (those of :func:`shlex.quote`, and non-ASCII)."""
    return _PLAIN.fullmatch(path) is not None


def leads_into(path: str, prefix: str) -> bool:
    """Whether a path is the prefix or below it."""
    return path == prefix or path.startswith(prefix + "/")


def listed(items: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
