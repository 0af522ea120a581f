"""A space: where it lives, which catalog it is of, and whether it is whole.

A space looks exactly like the recorded tree, so nothing of holo is inside it. What holo knows about it is
in ``holotree/.spaces/<name>.json`` beside a lock of the same name; the space itself is in
``holotree/<folder>``, whose length is the same for every name, or wherever the user said.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from holo import digest as digests
from holo import platform
from holo.errors import Conflict, HoloError, NotFound
from holo.hololib.locks import OnWait, locked, say_waiting
from holo.hololib.store import NAME, check_name
from holo.untrusted import SMALL, is_ours, open_file, read
from holo.walk import absolute, refuse_symlinks

State = Literal["restoring", "pristine"]

_SLUG = 12
_HASH = 10


@dataclass(frozen=True)
class Space:
    """What is known about one space. Immutable; :meth:`save` makes a changed one the truth."""

    name: str
    path: str
    catalog: str
    """the catalog's name when it was restored"""
    digest: str
    state: State
    """``restoring``: a restore has begun and not ended. ``pristine``: at the last restore's end it was whole."""
    requested: str
    """strategy asked for at the last restore, and what was used, and why that was not the same"""
    used: str
    reason: str | None
    stamp: int = 0
    """ctime in ns of the last thing the last restore did"""
    restored: str = ""
    """when that was: UTC, ISO 8601"""
    seal: str = ""
    """identity of the file this was read from, which a copy of it does not have; empty if it is a copy"""
    draft: str = ""
    """while a restore replaces the whole space: the name beside it of the tree that is to be removed in the end"""

    def finished(self, stamp: int) -> Space:
        return replace(
            self, state="pristine", draft="", stamp=stamp, restored=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        )

    def to_json(self) -> dict[str, str]:
        """What `holo list --json` shows."""
        return {
            "name": self.name,
            "path": self.path,
            "catalog": self.catalog,
            "digest": self.digest,
            "state": self.state,
        }


class OthersSpace(Conflict):
    """The name is that of another user's space."""


def _anothers(name: str, path: str) -> OthersSpace:
    return OthersSpace(
        f"space {name!r} is another user's, or others can change what is known about it: {path}",
        "Choose another name with --space. If it is yours, let nobody else write to that file.",
    )


def _is_sound(space: Space, name: str) -> bool:
    texts = (space.requested, space.used, space.restored, space.draft, space.seal)
    return (
        space.name == name
        and os.path.isabs(space.path)
        and os.fsencode(absolute(space.path)) == os.fsencode(space.path)
        and "\0" not in space.path
        and NAME.fullmatch(space.catalog) is not None
        and space.state in ("restoring", "pristine")
        and digests.is_digest(space.digest)
        and type(space.stamp) is int
        and all(type(text) is str for text in texts)
        and (space.reason is None or type(space.reason) is str)
    )


class Holotree:
    """All spaces below one home."""

    def __init__(self, home: str) -> None:
        self.path = os.path.join(absolute(home), "holotree")
        self._records = os.path.join(self.path, ".spaces")
        refuse_symlinks(self.path, self._records)

    def folder(self) -> str:
        """The folder of what is known about spaces, made if it is not there."""
        try:
            os.makedirs(self._records, exist_ok=True)
        except OSError as error:
            raise HoloError(
                f"cannot make {self._records}: {error.strerror}",
                "Name another place with HOLO_HOME or `home` in settings.yaml.",
            ) from error
        return self._records

    def default_path(self, name: str) -> str:
        """Where a space lives unless the user says otherwise. The length is the same for every name."""
        slug = name[:_SLUG].ljust(_SLUG, "_")
        return os.path.join(self.path, f"{slug}_{digests.of(name.encode())[:_HASH]}")

    def lock(self, name: str, on_wait: OnWait = say_waiting) -> AbstractContextManager[None]:
        """One process per space at a time. The kernel frees the lock when its holder dies."""
        path = os.path.join(self._records, check_name(name, "space") + ".lock")
        return locked(path, f"space {name!r}", exclusive=True, on_wait=on_wait)

    def find(self, name: str) -> Space | None:
        """The space of that name, or ``None``.

        Raises :class:`HoloError` if what is known of it is damaged, and :class:`Conflict` if others can have
        written it: a restore empties the directory it names.
        """
        path = self._record_path(check_name(name, "space"))
        try:
            descriptor = open_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if os.lstat(path).st_uid not in platform.owners():
                raise _anothers(name, path) from error
            raise HoloError(
                f"cannot read what holo knows about space {name!r}, {path}: {error.strerror}", "Remove that file."
            ) from error
        try:
            if not is_ours(os.fstat(descriptor)):
                raise _anothers(name, path)
            values: dict[str, Any] = json.loads(read(descriptor, SMALL))
            space = Space(**values)
            sound = _is_sound(space, name)
            seal = platform.identity(descriptor)
        except (ValueError, TypeError, AttributeError, RecursionError, OSError):
            sound = False
        finally:
            os.close(descriptor)
        if not sound:
            raise HoloError(
                f"what holo knows about space {name!r} is damaged: {path}",
                f"Remove that file, then make the space again with `holo init --force --space {name}`.",
            )
        return space if space.seal == seal else replace(space, seal="")

    def refuse_copied(self, space: Space) -> None:
        """Raise :class:`Conflict` if only a copied record says that a directory outside the holotree is a space.

        With a library may come such records, made by somebody else: a restore would empty what they name.
        """
        if not space.seal and space.path != self.default_path(space.name):
            raise Conflict(
                f"only a file that was copied says that {space.path} is space {space.name!r}: "
                f"{self._record_path(space.name)}",
                f"If it is one, confirm it: `holo restore --space {space.name} --to {space.path}`. "
                "If not, remove that file.",
            )

    def get(self, name: str) -> Space:
        """The space of that name. Raises :class:`NotFound` with the names there are."""
        space = self.find(name)
        if space is None:
            names = ", ".join(self.names()[:20]) or "none"
            raise NotFound(
                f"there is no space {name!r} in {self.path}",
                f"Spaces there: {names}. Make one with `holo init --space {name} SOURCE`.",
            )
        return space

    def names(self) -> list[str]:
        try:
            files = os.listdir(self._records)
        except FileNotFoundError:
            return []
        found = (file.removesuffix(".json") for file in files if file.endswith(".json"))
        return sorted(name for name in found if NAME.fullmatch(name))

    def spaces(self) -> list[Space]:
        """The spaces of this user, and root's."""
        found = []
        for name in self.names():
            with suppress(OthersSpace):
                found.append(self.find(name))
        return [space for space in found if space is not None]

    def at(self, path: str) -> Space | None:
        """The space that lives at ``path``, if any."""
        real = os.path.realpath(path)
        return next((space for space in self.spaces() if os.path.realpath(space.path) == real), None)

    def save(self, space: Space) -> None:
        """Replace what is known about a space, in one step."""
        path = self._record_path(space.name)
        draft = f"{path}.{os.getpid()}.{time.time_ns()}"
        try:
            os.makedirs(self._records, exist_ok=True)
            # Whatever the umask, only we may say what our space is. "x" follows no symlink.
            with open(draft, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
                json.dump(asdict(replace(space, seal=platform.identity(file.fileno()))), file)
            os.replace(draft, path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(draft)
            raise HoloError(f"cannot write {path}: {error.strerror}") from error

    def forget(self, name: str) -> None:
        os.unlink(self._record_path(name))

    def _record_path(self, name: str) -> str:
        return os.path.join(self._records, name + ".json")
