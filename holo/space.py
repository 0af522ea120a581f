"""A space: where it is, which catalog it holds, and whether it is whole; and how that is written down.

:mod:`holo.holotree` reads and writes the files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeGuard

from holo import digest as digests
from holo import platform
from holo.files import seal, unseal
from holo.filetimes import EXACT, FileTimes
from holo.hololib.layout import NAME
from holo.walk import absolute

State = Literal["restoring", "pristine", "damaged", "missing", "changed", "replaced"]
Standing = Literal["own", "unproven", "copied"]

VIEW = "holo-view-"
"""Begins the source that the system shows for the mount of a view."""

ADOPTED = "adopted"
"""In place of the identity of a directory: another home may have that, too, so the next restore puts another there."""

MOUNTED = "overlay"
"""The method of a space that is a mount."""


class Space(NamedTuple):
    """What is known about one space. :meth:`holo.holotree.Holotree.save` makes a changed one the truth."""

    name: str
    path: str
    """where it is now. A space below its home moves with that"""
    home: str
    """the home that wrote this record"""
    made_for: str
    """where it was at the last restore: its files name this path"""
    catalog: str
    """the catalog's name when it was restored"""
    digest: str
    state: State
    """``restoring``: a restore began and did not end. ``pristine``: the last restore ended. The others are never
    written: ``damaged`` if the record cannot be read, and the other fields are a guess; ``missing`` and ``changed`` if
    a glance at a pristine space shows that (:mod:`holo.glance`); ``replaced`` if a space that was deleted was gone
    already, and what is at its path is something else"""
    requested: str
    """the strategy that the last restore was asked for, the one that it used, and the reason if they differ"""
    used: str
    reason: str | None
    stamp: int = 0
    """the ctime (ns) up to which changes are known (:mod:`holo.checkout.proof`)"""
    root: str = ""
    """the identity of the directory that the last restore left there"""
    inodes: str = ""
    """the digest of :meth:`holo.holotree.Holotree.inodes`"""
    clock: int = 0
    """:func:`holo.platform.clock_offset` at the last restore"""
    times: FileTimes = EXACT
    """how the filesystem of the space rounds times"""
    restored: str = ""
    """when the last restore ended: UTC, ISO 8601"""
    made: str = ""
    """when the first restore began, likewise"""
    own: int = -1
    """bytes of content that it shared with nobody after the last restore; -1 if that is not known"""
    boot: str = ""
    """the boot of the system during the last restore. Files written in an earlier boot may not have reached the disk"""
    identity: str = ""
    """that of the record's own file (:func:`holo.platform.identity`), which a copy of the file does not share"""
    modes: Sequence[tuple[int, int]] = ()
    """pairs of a type and mode (st_mode) that was set, and the one that the filesystem kept instead"""
    bundle: str = ""
    """the bundle that it was restored from, if the library did not have the catalog"""
    project: str = ""
    """where the catalog's project is for this space; empty: where it was recorded"""
    draft: str = ""
    """while a restore replaces the whole space: the name, beside it, of the tree to remove in the end"""
    upper: str = ""
    """of a view (:mod:`holo.trees.views`): the directory of what was changed in it. Other spaces have none"""
    standing: Standing = "own"
    """not written, but found out when the record is read: whether ``path`` belongs to this home. The default place
    always does. ``copied``: only the copy of a record says so. ``unproven``: the filesystem cannot tell a copied file
    from its original."""

    @property
    def view(self) -> str:
        """The source of the mount of a view; empty: the space is none, and everybody sees it."""
        return VIEW + os.path.basename(os.path.dirname(self.upper)) if self.upper else ""

    @property
    def unkept_modes(self) -> dict[int, int]:
        """``modes`` as a mapping."""
        return dict(self.modes)

    def with_modes(self, seen: Mapping[int, int]) -> Space:
        """With the modes that the filesystem kept for those just set (``seen``)."""
        found = {**self.unkept_modes, **seen}
        return self._replace(modes=[(mode, kept) for mode, kept in sorted(found.items()) if mode != kept])

    def finished(self, stamp: int, root: str, inodes: str, own: int) -> Space:
        return self._replace(
            state="pristine",
            draft="",
            stamp=stamp,
            root=root,
            inodes=inodes,
            clock=platform.clock_offset(),
            restored=now(),
            own=own,
        )

    def lasting(self) -> Space:
        """The part of the record that seldom changes: it is on the disk before the space itself is."""
        return self._replace(
            stamp=-1,
            root="",
            inodes="",
            clock=0,
            times=EXACT,
            modes=(),
            boot="",
            restored="",
            own=-1,
            draft="",
            identity="",
            standing="own",
        )

    @property
    def is_moved(self) -> bool:
        """Whether its files name a path that no longer leads to it, because its home was moved or copied."""
        return self.made_for != self.path and os.path.realpath(self.made_for) != os.path.realpath(self.path)

    @property
    def is_unmounted(self) -> bool:
        """Whether it is a mount, and that is gone: its directory is empty."""
        return self.used == MOUNTED and not os.path.ismount(self.path)

    @property
    def shown_state(self) -> str:
        """The state, or the reason why commands refuse the space: ``copied`` or ``moved``."""
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


_WRITTEN = {*Space._fields} - {"standing"}
_DEFAULTS = {key: value for key, value in Space._field_defaults.items() if key != "standing"}


_TIMES, _MODES = map(Space._fields.index, ("times", "modes"))


def space_of(values: list[Any]) -> Space:
    """A space from the values of its fields, as JSON has them. They are believed."""
    values[_TIMES], values[_MODES] = _times(values[_TIMES]), _modes(values[_MODES])
    return Space._make(values)


def _times(values: Sequence[int]) -> FileTimes:
    times = FileTimes(*values)
    return EXACT if times == EXACT else times


def _modes(values: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((mode, kept) for mode, kept in values) if values else ()


def now() -> str:
    """The time in a record: UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def encode(space: Space, identity: str) -> bytes:
    """The record of a space, for a file with that :func:`holo.platform.identity`."""
    values = space._replace(identity=identity)._asdict()
    del values["standing"]
    return seal(json.dumps(values).encode())


def decode(data: bytes, name: str) -> Space | None:
    """The space of that name, from its record; ``None`` if a power cut left that empty or full of zeros.

    Raises :class:`ValueError` if it is damaged, or about another space.
    """
    if not data.strip(b"\0"):
        return None
    try:
        values: dict[str, Any] = json.loads(unseal(data))
        if values.keys() != _WRITTEN:
            # Fields that a newer version of holo added are left out: without them less is trusted, not more.
            values = _DEFAULTS | {key: value for key, value in values.items() if key in _WRITTEN}
            if values.keys() != _WRITTEN:
                raise TypeError
        values["times"] = _times(values["times"])
        values["modes"] = _modes(values["modes"])
        space = Space(**values)
        is_sound = _is_sound(space, name)
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is not the record of a space") from error
    if not is_sound:
        raise ValueError("it is the record of another space, or holds impossible values")
    return space


def _is_sound(space: Space, name: str) -> bool:
    numbers = (space.stamp, space.clock, space.own, *space.times)
    texts = (space.requested, space.used, space.restored, space.draft, space.identity, space.boot, space.root)
    return (
        space.name == name
        and _is_path(space.path)
        and (space.made_for == space.path or _is_path(space.made_for))
        and _is_path(space.home)
        and (not space.project or _is_path(space.project))
        and (not space.upper or _is_path(space.upper))
        and NAME.fullmatch(space.catalog) is not None
        and space.state in ("restoring", "pristine")
        and digests.is_digest(space.digest)
        and {*map(type, numbers)} == {int}
        and space.times.granularity > 0
        and -1 <= space.own < 1 << 63
        and {*map(type, texts)} == {*map(type, (space.inodes, space.bundle, space.made))} == {str}
        and (not space.modes or all(type(mode) is type(kept) is int for mode, kept in space.modes))
        and (space.reason is None or type(space.reason) is str)
    )


def _is_path(text: str) -> bool:
    if os.name == "posix" and text[:1] == "/" and text.isascii():  # as most are: told in a tenth of the time
        odd = text.endswith(("/", "/.", "/..")) or "//" in text or "/./" in text or "/../" in text or "\0" in text
        if not odd:
            return True
    return os.path.isabs(text) and "\0" not in text and os.fsencode(absolute(text)) == os.fsencode(text)


def is_whole(space: Space | None) -> TypeGuard[Space]:
    """Whether there is a space that is as a restore left it, as far as its record tells."""
    return space is not None and space.shown_state == "pristine" and os.path.isdir(space.path)
