"""What the folders of a library, and what is named by the user, are called."""

from __future__ import annotations

import os
import re

from holo.errors import HoloError, UsageError, advice_at_home
from holo.walk import make_folders

FOLDERS = ("library", "catalog", "names", "links", "golden", "used", "unsettled", "quarantine", "builds")
LOCKS = ("pending.lock", "lock")

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
"""What a catalog or a space may be called: it is a file name on every platform and needs no quoting."""


def check_name(name: str, what: str) -> str:
    """Return ``name`` or raise :class:`UsageError`; ``what`` is "catalog" or "space"."""
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} cannot be the name of a {what}",
            "Use 1 to 64 letters, digits, '_', '-', '+' and '.', not starting with '-', '+' or '.'.",
        )
    return name


def library_folder(library: str, *names: str) -> str:
    """A folder of the library at that path, made if it is not there."""
    path = os.path.join(library, *names)
    try:
        make_folders(path)
    except OSError as error:
        raise HoloError(f"cannot make the library folder {path}: {error.strerror}", advice_at_home(error)) from error
    return path
