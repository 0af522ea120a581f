"""A space: where it is, which catalog it holds, and whether it is whole; and how that is written down.

:mod:`holo.holotree` reads and writes the files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeGuard

from holo import digest as digests
from holo import platform
from holo.files import seal, unseal
from holo.filetimes import EXACT, FileTimes
from holo.hololib.layout import NAME
from holo.walk import absolute

State = Literal["restoring", "pristine", "damaged", "missing", "changed"]
Standing = Literal["own", "unproven", "copied"]


@dataclass(frozen=True)
class Space:
    """What is known about one space. Immutable; :meth:`holo.holotree.Holotree.save` makes a changed one the truth."""

    name: str
    path: str
    """where it is. Below its home it moves along when that is moved or copied"""
    home: str
    """the home that this was written in"""
    made_for: str
    """where it was at the last restore: the path that its files name"""
    catalog: str
    """the catalog's name when it was restored"""
    digest: str
    state: State
    """``restoring``: a restore has begun and not ended. ``pristine``: at the last restore's end it was whole. Never on
    record are ``damaged``: that cannot be read, and the rest of this is only likely; and ``missing`` and ``changed``:
    so a pristine one looks now (see :mod:`holo.glance`)"""
    requested: str
    """strategy asked for at the last restore, and what was used, and why that was not the same"""
    used: str
    reason: str | None
    stamp: int = 0
    """ctime in ns up to which changes are known: see :mod:`holo.checkout.proof`"""
    root: str = ""
    """the identity of the directory that the last restore left at the path"""
    inodes: str = ""
    """the digest of what :meth:`holo.holotree.Holotree.inodes` returns"""
    clock: int = 0
    """:func:`holo.platform.clock_offset` at the last restore"""
    times: FileTimes = EXACT
    """what the filesystem of the space does to times"""
    restored: str = ""
    """when that was: UTC, ISO 8601"""
    boot: str = ""
    """in which boot of the system that was. What was written in another may not have reached the disk."""
    identity: str = ""
    """that of the file this was written to, which a copy of it does not have (:func:`holo.platform.identity`)"""
    modes: list[tuple[int, int]] = field(default_factory=list)
    """pairs of a type and mode (st_mode) that was set there, and what the filesystem made of it if that is another"""
    draft: str = ""
    """while a restore replaces the whole space: the name beside it of the tree that is to be removed in the end"""
    standing: Standing = "own"
    """not written, but found out when it is read: whether ``path`` is known to be this home's. At its default place it
    always is. ``copied``: only a copy of what another home, or this one, wrote says so. ``unproven``: the filesystem
    does not tell a copy from what was copied."""

    @property
    def unkept_modes(self) -> dict[int, int]:
        """What is in ``modes``."""
        return dict(self.modes)

    def with_modes(self, seen: Mapping[int, int]) -> Space:
        """``seen``: what became of each mode that was set just now."""
        found = {**self.unkept_modes, **seen}
        return replace(self, modes=[(mode, kept) for mode, kept in sorted(found.items()) if mode != kept])

    def finished(self, stamp: int, root: str, inodes: str) -> Space:
        return replace(
            self,
            state="pristine",
            draft="",
            stamp=stamp,
            root=root,
            inodes=inodes,
            clock=platform.clock_offset(),
            restored=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def lasting(self) -> Space:
        """What of this seldom changes: it is on the disk before the space itself is."""
        return replace(
            self,
            stamp=-1,
            root="",
            inodes="",
            clock=0,
            times=EXACT,
            modes=[],
            boot="",
            restored="",
            draft="",
            identity="",
            standing="own",
        )

    @property
    def is_moved(self) -> bool:
        """Whether its files name a path that does not lead to it any more: its home was moved or copied."""
        return self.made_for != self.path and os.path.realpath(self.made_for) != os.path.realpath(self.path)

    @property
    def shown_state(self) -> str:
        """The state, or why nothing is done with the space as it is: ``copied`` or ``moved``."""
        if self.standing == "copied":
            return "copied"
        return "moved" if self.is_moved and self.state != "missing" else self.state

    def to_json(self) -> dict[str, str]:
        """What `holo list --json` shows."""
        return {
            "name": self.name,
            "path": self.path,
            "catalog": self.catalog,
            "digest": self.digest,
            "state": self.shown_state,
        }


def encode(space: Space, identity: str) -> bytes:
    """The content of a file, whose :func:`holo.platform.identity` is given, that says what is known about a space."""
    values = asdict(replace(space, identity=identity))
    del values["standing"]
    return seal(json.dumps(values).encode())


def decode(data: bytes, name: str) -> Space | None:
    """What the content of a file says of the space of that name; ``None`` if it is empty or zeros, after a power cut.

    Raises :class:`ValueError` if it is damaged, or about another space.
    """
    if not data.strip(b"\0"):
        return None
    try:
        values: dict[str, Any] = json.loads(unseal(data))
        # What a newer version of holo has added is left out: without it less is believed, not more.
        values = {key: value for key, value in values.items() if key in Space.__dataclass_fields__}
        space = Space(**values | {"times": FileTimes(*values.get("times", ()))})
        is_sound = _is_sound(space, name)
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it does not say what is known about a space") from error
    if not is_sound:
        raise ValueError("it is not about that space, or says what cannot be")
    return replace(space, standing="own")


def _is_sound(space: Space, name: str) -> bool:
    texts = (space.requested, space.used, space.restored, space.draft, space.identity, space.boot, space.root)
    numbers = (space.stamp, space.clock, *space.times)
    return (
        space.name == name
        and all(map(_is_path, {space.path, space.home, space.made_for}))
        and NAME.fullmatch(space.catalog) is not None
        and space.state in ("restoring", "pristine")
        and digests.is_digest(space.digest)
        and all(type(number) is int for number in numbers)
        and space.times.granularity > 0
        and all(type(text) is str for text in (*texts, space.inodes))
        and all(type(mode) is type(kept) is int for mode, kept in space.modes)
        and (space.reason is None or type(space.reason) is str)
    )


def _is_path(text: str) -> bool:
    return os.path.isabs(text) and os.fsencode(absolute(text)) == os.fsencode(text) and "\0" not in text


def is_whole(space: Space | None) -> TypeGuard[Space]:
    """Whether there is a space that is as a restore left it, as far as its record tells."""
    return space is not None and space.shown_state == "pristine" and os.path.isdir(space.path)
