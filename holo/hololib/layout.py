"""The names of the folders and files of a library, and of what the user names.

Whoever lists a library (its catalogs, the inventory, check) goes by these.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from holo import digest as digests
from holo.errors import HoloError, UsageError, advice_at_home, hints
from holo.walk import make_folders

FOLDERS = ("library", "catalog", "names", "links", "golden", "used", "unsettled", "quarantine", "builds", "incoming")
UPKEEP = "upkeep"
"""Empty; its mtime says when the last clean-up in the background began, or ended."""

LOCKS = (UPKEEP, "pending.lock", "lock")
"""The files beside the folders."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
"""What a catalog or a space may be called: it is a file name on every platform and needs no quoting."""


_SHARD = re.compile(r"[0-9a-f]{2}")
_LINK_FORM = re.compile(r"([0-9a-f]{64})-([0-7]{3})-(-?[0-9]+)-([0-9]+)")


class LinkForm(NamedTuple):
    """What the name of a link form says: ``links/ab/<digest>-<mode>-<mtime>-<user>``."""

    digest: str
    mode: int
    mtime: int
    """ns"""
    user: int
    """whose it is"""


def is_shard(folder: str) -> bool:
    """Whether a folder in ``library/`` or ``links/`` has a name as :mod:`holo.hololib.shards` makes them."""
    return _SHARD.fullmatch(folder) is not None


def blob_digest(shard: str, file: str) -> str:
    """The digest of the blob in a file of ``library/<shard>/``, in either form; nothing if it is no blob."""
    digest = file.removesuffix(".zst")
    return digest if digests.is_digest(digest) and digest[:2] == shard else ""


def link_form(shard: str, file: str) -> LinkForm | None:
    """The link form in a file of ``links/<shard>/``, if it is one."""
    found = _LINK_FORM.fullmatch(file)
    if found is None or file[:2] != shard:
        return None
    return LinkForm(found[1], int(found[2], 8), int(found[3]), int(found[4]))


def catalog_digest(file: str) -> str:
    """The digest of the catalog in a file of ``catalog/``; nothing if it is no catalog."""
    digest = file.removesuffix(".json")
    return digest if digest != file and digests.is_digest(digest) else ""


def signature_digest(file: str) -> str:
    """The digest of the catalog whose signature is in a file of ``catalog/``; nothing if it is none."""
    digest = file.removesuffix(".sig")
    return digest if digest != file and digests.is_digest(digest) else ""


def catalog_name(file: str) -> str:
    """The name of a catalog that a file of ``names/`` is about; nothing if it is about none."""
    name = file.removesuffix(".json")
    return name if name != file and NAME.fullmatch(name) else ""


def check_name(name: str, what: str) -> str:
    """Return ``name`` or raise :class:`UsageError`; ``what`` is "catalog" or "space"."""
    if NAME.fullmatch(name) is None:
        is_folder = what == "space" and "\0" not in name and os.path.isdir(name)
        raise UsageError(
            f"{name!r} cannot be the name of a {what}",
            hints(
                "Use 1 to 64 letters, digits, '_', '-', '+' and '.', not starting with '-', '+' or '.'.",
                "It is a folder: if a space is there, `holo list` shows its name." if is_folder else None,
            ),
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
