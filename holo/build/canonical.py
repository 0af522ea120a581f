"""What canonical documents of all kinds have in common, and the key that is made of one."""

from __future__ import annotations

import json
import os
import platform
import re
import sys

from holo import digest as digests

_CREDENTIALS = re.compile(r"(?<=://)[^/\s\"']+@")


def key_of(document: dict[str, object]) -> str:
    """The key of a canonical document: equal for equal ones, whatever the order of their fields. 64 hex digits.

    What JSON has no form for, dates of TOML, counts as the text of it.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return digests.of(text.encode())


def without_secrets(text: str) -> str:
    """``text`` without the credentials in its URLs: who asks makes no difference, and each job of a CI is another."""
    return _CREDENTIALS.sub("", text)


def this_system() -> dict[str, str]:
    """What decides which binary packages fit: operating system, processor, and on Linux the C library."""
    libc = ""
    if sys.platform == "linux":
        try:
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (ValueError, OSError):
            libc = "musl"
    release = platform.mac_ver()[0].partition(".")[0] if sys.platform == "darwin" else ""
    return {"os": sys.platform, "machine": platform.machine(), "libc": libc, "release": release}
