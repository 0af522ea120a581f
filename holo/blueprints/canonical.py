"""Canonical documents of all kinds: their key, and the system that they are for."""

from __future__ import annotations

import json
import os
import platform
import sys

from holo import digest as digests
from holo.urls import without_secrets


def key_of(document: dict[str, object]) -> str:
    """The key of a canonical document: equal for equal ones, whatever the order of their fields. 64 hex digits.

    Values that JSON cannot express, such as dates of TOML, count as their text.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return digests.of(text.encode())


def document_without_secrets(document: dict[str, object]) -> dict[str, object]:
    """A canonical document, every text in it :func:`without_secrets`."""
    text = json.dumps(document, default=str, ensure_ascii=False)
    cleaned: dict[str, object] = json.loads(without_secrets(text))
    return cleaned


def this_system() -> dict[str, str]:
    """The operating system, the processor and the C library: they decide which binary packages fit."""
    libc = ""
    if sys.platform == "linux":
        try:
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (ValueError, OSError):
            libc = "musl"
    release = platform.mac_ver()[0].partition(".")[0] if sys.platform == "darwin" else ""
    return {"os": sys.platform, "machine": platform.machine(), "libc": libc, "release": release}
