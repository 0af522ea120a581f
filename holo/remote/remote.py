"""A remote: its documents, checked, and every request tried again where that may help."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog
from holo.content import Section, write_all
from holo.errors import MALFORMED, HoloError, IntegrityError, NewerFormat
from holo.files import SMALL
from holo.hololib.layout import NAME
from holo.remote.packs import LARGEST_OBJECT, PackMap, read_object
from holo.remote.store import DRAFTS, Absent, Interrupted, Item, Reply, Store
from holo.remote.traffic import Meter
from holo.transport.bundle import unnamed_file
from holo.workers import pool

Task = TypeVar("Task")
Result = TypeVar("Result")
Kind: TypeAlias = Literal["name", "key"]
KINDS: tuple[Kind, ...] = ("name", "key")

_FORMAT = "holo pointer"
_VERSION = 1
_END_OF_TIME = 253_402_300_799
"""The last second of the year 9999: no calendar goes on."""

_AT_ONCE = 8
"""Objects that are read at the same time to look through a remote."""

_ATTEMPTS = 10
_FIRST_ATTEMPTS = 4
"""Of a remote that has not answered yet: it may be down, or not be there."""

_FIRST_PAUSE = 0.2
"""Seconds; each pause is twice the one before, less up to a half by chance, so that a fleet does not come back at
once: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/"""

_MOST_PAUSE = 15.0
"""Seconds that holo waits by itself."""

_LONGEST_PAUSE = 120.0
"""Seconds that a server may ask for."""

_GO_ON = "Look at the address and the network. Nothing is lost: run the command again to go on."


class Pointer(NamedTuple):
    """Which catalog a name, or the key of a blueprint, means."""

    kind: Kind
    name: str
    catalog: str
    """its digest"""
    time: int
    """when that was said, seconds since the epoch"""
    signature: str | None = None
    """of who said it: SSHSIG, armored"""

    @property
    def key(self) -> str:
        """Where it is in the remote."""
        return pointer_key(self.kind, self.name)

    def to_json(self) -> bytes:
        document = {"format": _FORMAT, "version": _VERSION, **self._asdict()}
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def pointer_key(kind: Kind, name: str) -> str:
    return f"{kind}s/{name}"


def catalog_key(digest: str) -> str:
    return f"catalogs/{digest}"


def signature_key(digest: str) -> str:
    return f"catalogs/{digest}.sig"


def pack_key(digest: str) -> str:
    return f"packs/{digest}"


def is_own(key: str) -> bool:
    """Whether holo can have made what has that key: not a ``.DS_Store``, an ``.nfs0001`` or a file of the user's."""
    folder, _, name = key.rpartition("/")
    if folder == "catalogs":
        return digests.is_digest(name.removesuffix(".sig"))
    if folder == "packs":
        return digests.is_digest(name)
    return f"{folder}/" == DRAFTS or (folder in ("names", "keys") and NAME.fullmatch(name) is not None)


class Document(NamedTuple):
    """A small object as it was read."""

    data: bytes
    version: str | None


class Remote:
    """What the commands know of a store. Workers that are forked later use the same one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.name = store.name
        self.meter = Meter()
        self.on_progress: Callable[[int, int], object] | None = None
        """called with (objects seen, objects to see) by :meth:`at_once`"""
        self._seen = self._to_see = 0
        self._attempts = _FIRST_ATTEMPTS

    # -- documents ----------------------------------------------------------------------------------------

    def pointer(self, kind: Kind, name: str) -> tuple[Pointer | None, str | None]:
        """What a name means, and the version to replace it by. Raises :class:`IntegrityError`, :class:`NewerFormat`."""
        found = self.document(pointer_key(kind, name), SMALL, fresh=True)
        if found is None:
            return None, None
        try:
            fields: dict[str, Any] = json.loads(found.data)
            if fields.pop("format") != _FORMAT:
                raise ValueError
            self.refuse_newer(fields.pop("version"), _VERSION, pointer_key(kind, name))
            pointer = Pointer(**fields)
            is_right = (
                (pointer.kind, pointer.name) == (kind, name)
                and type(pointer.catalog) is str
                and digests.is_digest(pointer.catalog)
                and type(pointer.time) is int
                and 0 <= pointer.time <= _END_OF_TIME
                and (pointer.signature is None or (type(pointer.signature) is str and pointer.signature.isascii()))
            )
        except MALFORMED:
            is_right = False
        if not is_right:
            raise self.damaged(pointer_key(kind, name), "it is not what holo writes")
        return pointer, found.version

    def named(self) -> list[tuple[Kind, str]]:
        """The names and keys that mean something."""
        return [(kind, item.key.partition("/")[2]) for kind in KINDS for item in sorted(self.items(f"{kind}s/"))]

    def catalog(self, digest: str, *, fresh: bool = False) -> tuple[Catalog, PackMap] | None:
        """A catalog and where its blobs are, both checked.

        Raises :class:`IntegrityError`, :class:`CatalogInvalid`, :class:`NewerFormat`.
        """
        key = catalog_key(digest)
        with platform.closing(unnamed_file()) as file:
            if not self.fetch(key, file, most=LARGEST_OBJECT, fresh=fresh):
                return None
            try:
                return read_object(file, digest, f"{self.name}/{key}")
            except ValueError as error:
                if not fresh:  # it may be a cache between here and there that is wrong
                    return self.catalog(digest, fresh=True)
                raise self.damaged(key, str(error)) from None

    def document(self, key: str, most: int, *, fresh: bool = False) -> Document | None:
        """A small object of at most ``most`` bytes; ``None`` if it is not there."""

        def read() -> Document | None:
            try:
                with self.store.get(key, fresh=fresh) as reply:
                    data = b"".join(_at_most(reply.chunks, most + 1))
                    if reply.size is not None and len(data) < min(reply.size, most):
                        raise Interrupted("the answer ended early")
                    self.meter.add(received=len(data))
                    return Document(data, reply.version)
            except Absent:
                return None

        found = self.again(read)
        if found is not None and len(found.data) > most:
            raise self.damaged(key, f"it is larger than {most:,} bytes")
        return found

    def damaged(self, key: str, why: str) -> IntegrityError:
        """The error for an object that is not what it should be."""
        further = "`holo remote check` looks through a remote."
        if not self.store.is_writable:  # a web server
            further = (
                "A page to log in, say, looks so. `holo remote check` looks through the folder or bucket behind it."
            )
        return IntegrityError(f"{self.name}/{key} is damaged: {why}", f"Nothing of it was taken. {further}")

    def refuse_newer(self, version: object, known: int, key: str) -> None:
        """Raise :class:`NewerFormat` for a document of another version than the one that is known."""
        if version != known:
            raise NewerFormat(f"{self.name}/{key} is of version {version!r}, this holo reads version {known}")

    # -- requests -----------------------------------------------------------------------------------------

    def at_once(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """What a function of an object gives for each of many, in any order: most of the time it waits."""
        todo = [*tasks]
        self._to_see += len(todo)
        for result in pool.run(function, todo, _AT_ONCE):
            self._seen += 1
            if self.on_progress is not None:
                self.on_progress(self._seen, self._to_see)
            yield result

    def size(self, key: str) -> int | None:
        """The bytes of an object; ``None`` if it is not there."""
        return self.again(lambda: self.store.size(key))

    def create(self, key: str, content: Section, *, anyway: bool = False) -> bool:
        """Make an object that never changes; ``False`` if it was there. ``anyway``: in place of that."""
        made = self.again(lambda: self.store.create(key, content, anyway=anyway))
        self.meter.add(sent=content.length)
        return made

    def create_small(self, key: str, content: bytes) -> bool:
        """The same, of bytes in memory."""
        with platform.closing(unnamed_file()) as file:
            write_all(file, content)
            return self.create(key, Section(file, 0, len(content)))

    def replace(self, key: str, content: bytes, version: str | None) -> bool:
        """Write a small object in place of that version of it; ``False`` if somebody else was faster."""
        done = self.again(lambda: self.store.replace(key, content, version))
        self.meter.add(sent=len(content))
        return done

    def items(self, prefix: str) -> Iterator[Item]:
        """All of holo's objects whose keys begin so. Those of others are as if they were not there."""
        return filter(lambda item: is_own(item.key), self.again(lambda: [*self.store.items(prefix)]))

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, those that are there."""
        for start in range(0, len(keys), 1000):
            self.again(lambda: self.store.remove(keys[start : start + 1000]))  # noqa: B023 - called at once

    def fetch(
        self, key: str, target: int, start: int = 0, stop: int | None = None, *, most: int, fresh: bool = False
    ) -> bool:
        """Write an object, or its bytes from ``start`` to ``stop``, to the same places in an open file.

        It goes on where an answer broke off. ``False`` if there is no such object. Raises :class:`IntegrityError` for
        one that is larger than ``most`` bytes, and :class:`HoloError`.
        """
        arriving, tries = _Arriving(self, key, target, start, stop, most), 0
        while not arriving.is_whole():
            before = arriving.position
            try:
                self.meter.add(requests=1)
                with self.store.get(key, before, stop, fresh=fresh) as reply:
                    self._attempts = _ATTEMPTS
                    arriving.take(reply)
            except Absent:
                return False
            except Interrupted as error:
                tries = 0 if arriving.position > before else tries + 1
                self._pause(tries, error)
            finally:
                self.meter.add(received=arriving.position - before)
        return True

    def again(self, request: Callable[[], Result]) -> Result:
        """Do what makes one request, until it is not interrupted. Raises :class:`HoloError` if it always is."""
        tries = 0
        while True:
            try:
                self.meter.add(requests=1)
                result = request()
            except Interrupted as error:
                tries += 1
                self._pause(tries, error)
            else:
                self._attempts = _ATTEMPTS
                return result

    def _pause(self, tries: int, error: Interrupted) -> None:
        """Wait before the next try, longer each time. Raises :class:`HoloError` after enough of them."""
        if error.has_answered:
            self._attempts = _ATTEMPTS
        if tries >= self._attempts:
            raise HoloError(f"cannot reach {self.name}: {error}", _GO_ON) from None
        seconds = pause_after(tries, random.uniform(0.5, 1))  # noqa: S311 - no secret
        time.sleep(max(seconds, min(_LONGEST_PAUSE, error.pause or 0)))


def pause_after(tries: int, chance: float) -> float:
    """The seconds to wait after so many tries; ``chance`` is from a half to 1."""
    return min(_MOST_PAUSE, _FIRST_PAUSE * 2.0 ** max(0, tries - 1)) * chance


class _Arriving:
    """An object that is being written to a file."""

    def __init__(self, remote: Remote, key: str, target: int, start: int, stop: int | None, most: int) -> None:
        self.position = start
        self._stop = stop
        self._remote = remote
        self._key = key
        self._target = target
        self._most = most

    def is_whole(self) -> bool:
        return self._stop is not None and self.position >= self._stop

    def take(self, reply: Reply) -> None:
        """Write what an answer has. Raises :class:`Interrupted` if it ends early."""
        if reply.size is not None:
            if reply.size > self._most:
                raise self._too_large()
            if self._stop is not None and reply.size < self._stop:
                raise self._remote.damaged(self._key, f"it has {reply.size:,} bytes instead of {self._stop:,}")
            self._stop = reply.size if self._stop is None else self._stop
        end = self._most + 1 if self._stop is None else self._stop
        for piece in _from(reply, self.position):
            self.position += platform.write_at(self._target, piece[: end - self.position], self.position)
            if self.position >= end:
                break
        if self._stop is None:
            if self.position > self._most:
                raise self._too_large()
            self._stop = self.position  # the server did not say how much there is, and has said all
        if self.position < self._stop:
            raise Interrupted("the answer ended early")

    def _too_large(self) -> IntegrityError:
        return self._remote.damaged(self._key, f"it is larger than {self._most:,} bytes")


def _from(reply: Reply, position: int) -> Iterator[bytes]:
    """The pieces of an answer from a position on: what a server without ranges sends before it does not count."""
    ahead = position - reply.start
    for piece in reply.chunks:
        if ahead < len(piece):
            yield piece[ahead:] if ahead else piece
        ahead = max(0, ahead - len(piece))


def _at_most(chunks: Iterator[bytes], most: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:most]
        most -= len(chunk)
        if most <= 0:
            return
