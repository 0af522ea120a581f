"""Where objects are kept: what every kind of store can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from holo.content import Section
from holo.errors import HoloError, IntegrityError, UsageError

DRAFTS = ".drafts/"
"""Beginning of the keys of what was never finished, where a store writes in more than one step."""


PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed: RFC 9110, section 15; RFC 6585, section 4."""


class Absent(Exception):
    """There is no such object."""


class Interrupted(Exception):
    """A request failed in a way that may pass. ``str()`` says how."""

    def __init__(self, why: str, pause: float | None = None, has_answered: bool = False) -> None:
        """``pause``: seconds that the server asks to wait. ``has_answered``: it is there, whatever it says."""
        super().__init__(why, pause, has_answered)  # all, for a worker hands it to its parent
        self.why = why
        self.pause = pause
        self.has_answered = has_answered

    def __str__(self) -> str:
        return self.why


class Reply(NamedTuple):
    """An object that is being read."""

    size: int | None
    """bytes of the whole object; ``None`` if the server does not say"""
    start: int
    """where in the object ``chunks`` begin: a server without ranges gives all of it"""
    chunks: Iterator[bytes]
    version: str | None
    """what :meth:`Store.replace` takes; ``None`` where nothing can be replaced"""


class Item(NamedTuple):
    """An object that is there."""

    key: str
    size: int
    """bytes"""
    modified: float
    """seconds since the epoch, by the store's clock"""


class Store(Protocol):
    """Objects by their keys. Every method is one request, or one for a thousand objects.

    They raise :class:`Interrupted`, for which the caller tries again, and :class:`HoloError` for what no second try
    mends: no permission, a host that does not exist, a wrong certificate.
    """

    @property
    def name(self) -> str:
        """The URL without credentials, for messages."""

    @property
    def is_writable(self) -> bool:
        """Whether it ever takes anything. Who may write is another question."""

    def get(
        self, key: str, start: int = 0, stop: int | None = None, *, fresh: bool = False
    ) -> AbstractContextManager[Reply]:
        """An object, or its bytes from ``start`` to ``stop``, to be read within the block. Raises :class:`Absent`.

        ``fresh``: what a cache between here and there has does not count.
        """

    def size(self, key: str) -> int | None:
        """The bytes of an object; ``None`` if it is not there."""

    def create(self, key: str, content: Section, *, anyway: bool = False) -> bool:
        """Make an object that never changes; ``False`` if it is there already. ``anyway``: in place of that."""

    def replace(self, key: str, content: bytes, version: str | None) -> bool:
        """Write a small object in place of that version of it, or (``None``) of nothing; ``False`` if it is another."""

    def items(self, prefix: str) -> Iterator[Item]:
        """All objects whose keys begin so, in no order."""

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, those that are there."""


def too_short(store: Store, key: str) -> HoloError:
    """The error for an object that ends before what was asked of it begins."""
    return IntegrityError(f"{store.name}/{key} is shorter than it should be", "Whoever has it can push it again.")


def read_only(store: Store) -> HoloError:
    """The error for a store that only gives."""
    return UsageError(
        f"{store.name} can only be read",
        "Push to the bucket or the folder that it serves: s3://, gs://, az:// or file://.",
    )
