"""Moving a recorded tree to another path: what names the path, and how it is patched."""

import re

_PLAIN = re.compile(rb"[A-Za-z0-9_@%+=:,./\x80-\xff-]*")


def is_plain(path: bytes) -> bool:
    """Whether no language gives any character of ``path`` a meaning (those of :func:`shlex.quote`, and non-ASCII)."""
    return _PLAIN.fullmatch(path) is not None
