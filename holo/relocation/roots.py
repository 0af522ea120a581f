"""The roots of which relocation finds the paths, and what to look for.

The first root is the tree's own path, the prefix. Others are places outside of it that move along: the root of the
project that the tree belongs to.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import NamedTuple

from holo.relocation import leads_into
from holo.spellings import SPELLINGS, is_plain_in_url, spellings


class Needle(NamedTuple):
    """Bytes to look for."""

    form: int
    old: bytes


def is_ambiguous(needle: Needle) -> bool:
    """Whether the needle is a plain path which, in a URL, looks the same."""
    return not needle.form % SPELLINGS and is_plain_in_url(needle.old)


def needles(roots: Sequence[str]) -> list[Needle]:
    """What to look for, the longest first. A spelling that is the same as the plain one is not looked for twice."""
    found: dict[bytes, int] = {}
    for number, root in enumerate(roots):
        for spelling, old in enumerate(spellings(root)):
            found.setdefault(old, SPELLINGS * number + spelling)
    return sorted((Needle(form, old) for old, form in found.items()), key=lambda needle: -len(needle.old))


def names_root(target: str, folder: str, prefix: str, others: Sequence[str]) -> bool:
    """Whether a symlink in ``folder`` of the tree at ``prefix`` leads into the tree by its path, or to another root."""
    if leads_into(target, prefix):
        return True
    return bool(others) and root_of(target, folder, prefix, others) is not None


def root_of(target: str, folder: str, prefix: str, others: Sequence[str]) -> str | None:
    """The root outside of the tree to which a symlink leads: the longest; ``None`` if it leads to none."""
    if not target.startswith("/"):
        if ".." not in target:
            return None
        target = posixpath.normpath(posixpath.join(prefix, folder, target))
    if leads_into(target, prefix):
        return None
    return max((root for root in others if leads_into(target, root)), key=len, default=None)
