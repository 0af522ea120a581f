"""How a file may spell a path: as it is, or as a part of a URL.

A *form* is one of several roots in one spelling: its number is ``3 * root + spelling``.
"""

from __future__ import annotations

import os
import re

SPELLINGS = 3
"""As it is; in a URL as Python writes it (pip); in a URL as the standard of browsers says (uv, npm)."""

URL = 2
"""The spelling after ``file://``."""

_NOT_IN_PYTHON = re.compile(rb"[^A-Za-z0-9_.~/-]")
_NOT_IN_BROWSERS = re.compile(rb"[^A-Za-z0-9_.~/!$&'()*+,;=:@\[\]|-]")


def spellings(path: str) -> tuple[bytes, bytes, bytes]:
    """A path in all spellings."""
    raw = os.fsencode(path)
    return raw, _encoded(_NOT_IN_PYTHON, raw), _encoded(_NOT_IN_BROWSERS, raw)


def is_plain_in_url(raw: bytes) -> bool:
    """Whether a path looks the same in a URL."""
    return _NOT_IN_BROWSERS.search(raw) is None


def _encoded(special: re.Pattern[bytes], raw: bytes) -> bytes:
    return special.sub(lambda char: b"%%%02X" % char[0][0], raw)
