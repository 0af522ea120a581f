"""Packs of a remote as a source of blobs: each is fetched when a worker comes to it.

A pack of which more than half is wanted comes whole, into a file that is named after it. What was fetched of it stays
if the command ends early, and the next one goes on there. Of another pack only the ranges that are wanted come, those
near to each other in one request.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from holo import digest as digests
from holo import platform
from holo.content import Hole, Piece, Section, write_sparse
from holo.errors import HoloError, IntegrityError, advice
from holo.files import refuse_second_name
from holo.hololib.frames import inflate
from holo.hololib.offer import BLOCK, Offer, whole
from holo.hololib.verified import ContentMismatch, verified_chunks
from holo.platform import Directory
from holo.remote.packs import PACK, SPARSE, WHOLE, Pack, PackMap, Slot
from holo.remote.remote import Remote, pack_key
from holo.transport.bundle import unnamed_file
from holo.transport.source import Blob, raw_offer

_NEAR = 256 << 10
"""Bytes between two ranges that are fetched along: at 50 ms and 40 Mbit/s a request costs as much."""

_MOST_RANGES = 16
"""Of one pack; with more the pack comes whole, in one request, unless it is far larger than packs are."""

_SMALL = 4


class PackGone(HoloError):
    """A pack that a catalog needs is not in the remote: the catalog may be an old one, from a cache."""


class PackSource:
    """A :class:`~holo.transport.source.Source`."""

    is_far = True

    def __init__(self, remote: Remote, packs: PackMap, folder: str) -> None:
        """``folder``: where packs are kept while they are used."""
        self.name = remote.name
        self._remote = remote
        self._slots = packs.slots
        self._folder = folder
        self._at_hand = threading.local()  # where no process can be forked, workers are threads

    def has(self, digest: str, size: int) -> bool:
        slot = self._slots.get(digest)
        return slot is not None and (slot.form != WHOLE or slot.stored == size)

    def builds_on_others(self, digest: str) -> bool:
        return False

    def why_no_reflink(self, target: Directory) -> str | None:
        return "what comes from a remote is copied"

    def is_unchanged(self) -> bool:
        return False

    def deliveries(self, blobs: list[Blob]) -> list[list[Blob]]:
        packs: dict[Pack, list[Blob]] = {}
        for blob in blobs:
            packs.setdefault(self._slots[blob[0]].pack, []).append(blob)
        return [*packs.values()]

    @contextmanager
    def delivered(self, blobs: list[Blob]) -> Iterator[None]:
        pack = self._slots[blobs[0][0]].pack
        ranges = ranges_of([self._slots[digest] for digest, _ in blobs])
        with self._fetched(pack, blobs, ranges) as self._at_hand.file:
            yield

    def _fetched(self, pack: Pack, blobs: list[Blob], ranges: list[tuple[int, int]]) -> AbstractContextManager[int]:
        wanted = sum(stop - start for start, stop in ranges)
        if 2 * wanted > pack.size or (len(ranges) > _MOST_RANGES and pack.size <= _SMALL * PACK):
            return self._whole(pack)
        return self._parts(pack, blobs, ranges)

    def open(self, digest: str, size: int) -> AbstractContextManager[Offer]:
        slot = self._slots[digest]
        section = Section(self._at_hand.file, slot.offset, slot.stored)
        if slot.form == SPARSE:
            return self._sparse(section, size)
        return nullcontext(whole(section) if slot.form == WHOLE else Offer(size, section))

    @contextmanager
    def _sparse(self, section: Section, size: int) -> Iterator[Offer]:
        with platform.closing(unnamed_file(self._folder)) as file:
            write_sparse(file, _with_holes(inflate(section, size)))
            yield raw_offer(file, size)

    # -- fetching -----------------------------------------------------------------------------------------

    @contextmanager
    def _whole(self, pack: Pack) -> Iterator[int]:
        path = os.path.join(self._folder, pack.digest)
        named = self._open(path)
        file = named if named is not None else unnamed_file(self._folder)
        try:
            self._fetch_whole(pack, file)
            yield file
            if named is not None:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        finally:
            os.close(file)

    def _open(self, path: str) -> int | None:
        """The file that a pack is fetched into; ``None`` if it is somebody else's, or they are fetching it as well."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            file = os.open(path, flags, 0o600)
            refuse_second_name(file)
        except OSError as error:
            if isinstance(error, PermissionError):  # another user's, in a shared library
                return None
            raise HoloError(f"cannot write {path}: {error.strerror}", advice(error)) from error
        if platform.lock(file, exclusive=True, wait=False):
            return file
        os.close(file)
        return None

    def _fetch_whole(self, pack: Pack, file: int) -> None:
        for fresh in (False, True):  # a cache between here and there may be wrong, and so may what was left of it here
            there = os.fstat(file).st_size
            if there > pack.size:
                os.ftruncate(file, there := 0)
            try:
                if there < pack.size and not self._remote.fetch(
                    pack_key(pack.digest), file, there, most=pack.size, fresh=fresh
                ):
                    raise self._gone(pack)
            except IntegrityError:  # it does not have its size
                if fresh:
                    raise
            if digests.of_file(file) == pack.digest:
                return
            os.ftruncate(file, 0)
        raise self._remote.damaged(pack_key(pack.digest), "its bytes do not have that digest")

    @contextmanager
    def _parts(self, pack: Pack, blobs: list[Blob], ranges: list[tuple[int, int]]) -> Iterator[int]:
        with platform.closing(unnamed_file(self._folder)) as file:
            if not (self._fetch_ranges(pack, file, ranges) and all(self._is_right(file, *blob) for blob in blobs)):
                os.ftruncate(file, 0)
                self._fetch_whole(pack, file)
            yield file

    def _fetch_ranges(self, pack: Pack, file: int, ranges: list[tuple[int, int]]) -> bool:
        """``False`` if it does not have its size there."""
        try:
            for start, stop in ranges:
                if not self._remote.fetch(pack_key(pack.digest), file, start, stop, most=pack.size):
                    raise self._gone(pack)
        except IntegrityError:
            return False
        return True

    def _is_right(self, file: int, digest: str, size: int) -> bool:
        slot = self._slots[digest]
        section = Section(file, slot.offset, slot.stored)
        try:
            for _ in verified_chunks(section.pieces() if slot.form == WHOLE else inflate(section, size), digest, size):
                pass
        except ContentMismatch:
            return False
        return True

    def _gone(self, pack: Pack) -> PackGone:
        return PackGone(
            f"{self.name}/{pack_key(pack.digest)} is not there, and a catalog needs it",
            "`holo remote check --repair` lets it be pushed again from a library that has it.",
        )


def ranges_of(slots: list[Slot]) -> list[tuple[int, int]]:
    """The ranges (start, stop) of a pack to ask for, those near to each other in one."""
    ranges: list[tuple[int, int]] = []
    for slot in sorted(slots, key=lambda slot: slot.offset):
        if ranges and slot.offset - ranges[-1][1] <= _NEAR:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], slot.end))
        else:
            ranges.append((slot.offset, slot.end))
    return ranges


def _with_holes(pieces: Iterable[bytes]) -> Iterator[Piece]:
    """Content in which runs of whole blocks of zeros are holes. All pieces but the last end at a block."""
    for piece in pieces:
        start = 0
        while start < len(piece):
            is_zero = _is_zero(piece[start : start + BLOCK])
            end = start + BLOCK
            while end < len(piece) and _is_zero(piece[end : end + BLOCK]) is is_zero:
                end += BLOCK
            part = piece[start:end]
            yield Hole(len(part)) if is_zero else part
            start = end


def _is_zero(block: bytes) -> bool:
    return block.count(0) == len(block)
