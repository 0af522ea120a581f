"""Where the platform keeps what an application has for a user. Imports nothing that takes time."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def user_home(env: Mapping[str, str]) -> str | None:
    """The home folder of this user; ``None`` if nobody knows it: HOME says nothing, and the user has no account."""
    if sys.platform == "win32":
        return os.path.expanduser("~")
    home = env.get("HOME", "")
    if os.path.isabs(home):
        return home
    import pwd

    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return home if os.path.isabs(home) else None


def user_folder(env: Mapping[str, str], kind: str) -> str | None:
    """The folder of holo's ``data`` or ``config`` for this user; ``None`` if nobody knows it."""
    if sys.platform in ("darwin", "win32"):
        import platformdirs

        folder = platformdirs.user_data_dir if kind == "data" else platformdirs.user_config_dir
        return folder("holo", appauthor=False)
    chosen = env.get(f"XDG_{kind.upper()}_HOME", "")
    if not os.path.isabs(chosen):  # XDG: a relative path is to be ignored
        home = user_home(env)
        if home is None:
            return None
        chosen = os.path.join(home, ".local/share" if kind == "data" else ".config")
    return os.path.normpath(os.path.join(chosen, "holo"))
