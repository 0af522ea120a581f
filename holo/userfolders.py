"""Where the platform keeps what an application has for a user. Imports nothing that takes time."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def user_folder(env: Mapping[str, str], kind: str) -> str:
    """The folder of holo's ``data`` or ``config`` for this user."""
    if sys.platform in ("darwin", "win32"):
        import platformdirs

        folder = platformdirs.user_data_dir if kind == "data" else platformdirs.user_config_dir
        return folder("holo", appauthor=False)
    chosen = env.get(f"XDG_{kind.upper()}_HOME", "")
    if not os.path.isabs(chosen):  # XDG: a relative path is to be ignored
        below = ".local/share" if kind == "data" else ".config"
        chosen = os.path.join(env.get("HOME") or os.path.expanduser("~"), below)
    return os.path.abspath(os.path.join(chosen, "holo"))
