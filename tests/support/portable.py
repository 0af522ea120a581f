"""The platform layer of macOS and Windows, forced on Linux: what it does differently from Linux' own."""

from __future__ import annotations

import sys


def force() -> None:
    """Let :mod:`holo.platform` be what it is on a system that is neither; call it before anything else imports it."""
    assert "holo.platform" not in sys.modules
    system, sys.platform = sys.platform, "portable"
    try:
        import holo.platform
    finally:
        sys.platform = system
    assert not holo.platform.CAN_FORK
