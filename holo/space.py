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
from holo.errors import HoloError, NotFound
from holo.hololib.locks import OnWait, locked, say_waiting
from holo.hololib.store import NAME, check_name
from holo.walk import absolute

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
    boot: str = ""
    """in which boot of the system that was. What was written in another may not have reached the disk."""
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


class Holotree:
    """All spaces below one home."""

    def __init__(self, home: str) -> None:
        self.path = os.path.join(absolute(home), "holotree")
        self._records = os.path.join(self.path, ".spaces")

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
        """The space of that name, or ``None``. Raises :class:`HoloError` if what is known of it is damaged."""
        path = self._record_path(check_name(name, "space"))
        try:
            with open(path, "rb") as file:
                data = file.read()
            if not data.strip(b"\0"):  # what a power cut may leave of it
                with open(self._mark_path(name), "rb") as file:
                    data = file.read()
            values: dict[str, Any] = json.loads(data)
            space = Space(**values)
            sound = (
                space.name == name
                and os.path.isabs(space.path)
                and space.state in ("restoring", "pristine")
                and digests.is_digest(space.digest)
                and type(values.get("stamp")) is int
                and type(values.get("draft")) is str
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise HoloError(
                f"what holo knows about space {name!r} is damaged: {path}",
                f"Remove that file, then make the space again with `holo init --force --space {name}`.",
            )
        return space

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
        return [space for name in self.names() if (space := self.find(name)) is not None]

    def at(self, path: str) -> Space | None:
        """The space that lives at ``path``, if any."""
        real = os.path.realpath(path)
        return next((space for space in self.spaces() if os.path.realpath(space.path) == real), None)

    def save(self, space: Space) -> None:
        """Replace what is known about a space, in one step.

        That is not waited for: a power cut may leave an empty file. So what a space is, which seldom changes, is
        kept beside it, on the disk before the space itself is.
        """
        path = self._record_path(space.name)
        try:
            os.makedirs(self._records, exist_ok=True)
            if space.state == "restoring":
                self._mark(space)
            _replace(path, _document(space), durable=False)
        except OSError as error:
            raise HoloError(f"cannot write {path}: {error.strerror}") from error

    def _mark(self, space: Space) -> None:
        path = self._mark_path(space.name)
        wanted = _document(replace(space, stamp=-1, boot="", restored="", draft=""))
        try:
            with open(path, "rb") as file:
                if file.read() == wanted:
                    return
        except FileNotFoundError:
            pass
        _replace(path, wanted, durable=True)

    def forget(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._mark_path(name))
        os.unlink(self._record_path(name))

    def _record_path(self, name: str) -> str:
        return os.path.join(self._records, name + ".json")

    def _mark_path(self, name: str) -> str:
        return os.path.join(self._records, name + ".mark")


def _document(space: Space) -> bytes:
    return json.dumps(asdict(space)).encode()


def _replace(path: str, data: bytes, *, durable: bool) -> None:
    draft = f"{path}.{os.getpid()}"
    try:
        with open(draft, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                platform.sync_file(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        raise
