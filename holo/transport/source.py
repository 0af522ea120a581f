"""Where blobs come from: another library's folder, a bundle. Nothing that a source gives is believed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeAlias

from holo import platform
from holo.content import Piece, Section
from holo.errors import IntegrityError, os_errors_as
from holo.hololib.blobs import raw_name
from holo.hololib.frames import may_be_frame
from holo.hololib.offer import Offer, Stretch, whole
from holo.hololib.shards import NO_FILE
from holo.hololib.verified import ContentMismatch, verified_chunks
from holo.platform import Directory

Blob: TypeAlias = tuple[str, int]
"""digest, size in bytes"""

_TASK_BYTES = 4 << 20
_TASK_BLOBS = 64
"""A worker's task ends with the blob that reaches one of these."""

_REPAIR = "Get it again, or run `holo check --repair` with `--from DIR` where another library may have that content."


class Source(Protocol):
    """A place that has blobs."""

    @property
    def name(self) -> str:
        """What messages call it: its path."""

    def has(self, digest: str, size: int) -> bool:
        """Whether it seems to have that content."""

    def open(self, digest: str, size: int) -> AbstractContextManager[Offer]:
        """What it has for a content, to be read within the block.

        Raises :class:`IntegrityError` if there is none, or none that can be right; :class:`OSError`.
        """

    def builds_on_others(self, digest: str) -> bool:
        """Whether it is best stored after the others, because it shares parts with some of them."""

    def why_no_reflink(self, target: Directory) -> str | None:
        """Try whether files in ``target`` can share blocks with it; ``None`` if so, else why not."""

    def is_unchanged(self) -> bool:
        """Whether all that was read of it so far is certainly still so. ``False`` if nobody can tell."""

    @property
    def is_far(self) -> bool:
        """Whether its content has to come over a network first: it can be opened within :meth:`delivered` only."""

    def deliveries(self, blobs: list[Blob]) -> list[list[Blob]]:
        """Blobs, cut into pieces of work as they come together."""

    def delivered(self, blobs: list[Blob]) -> AbstractContextManager[object]:
        """Have the blobs of a delivery at hand within the block. Raises what opening one raises."""


class Near:
    """What all sources have in common whose content is on this machine."""

    is_far = False

    def deliveries(self, blobs: list[Blob]) -> list[list[Blob]]:
        return tasks_of(blobs)

    def delivered(self, blobs: list[Blob]) -> AbstractContextManager[object]:
        return nullcontext()


def tasks_of(blobs: list[Blob]) -> list[list[Blob]]:
    """Blobs, cut into pieces of work for the pool."""
    tasks: list[list[Blob]] = [[]]
    size = 0
    for blob in blobs:
        tasks[-1].append(blob)
        size += blob[1]
        if size >= _TASK_BYTES or len(tasks[-1]) >= _TASK_BLOBS:
            tasks.append([])
            size = 0
    return tasks if tasks[-1] else tasks[:-1]


def verified_pieces(source: Source, digest: str, size: int) -> Iterator[Piece]:
    """The content, verified before the last piece is given out. Raises :class:`IntegrityError`, :class:`HoloError`."""
    with os_errors_as(f"cannot read blob {digest} in {source.name}", _REPAIR), source.open(digest, size) as offer:
        try:
            yield from verified_chunks(offer.pieces(), digest, size)
        except ContentMismatch as error:
            raise damaged(source, digest, str(error)) from None


def damaged(source: Source, digest: str, why: str) -> IntegrityError:
    """The error for wrong content."""
    return IntegrityError(f"blob {digest} in {source.name} is damaged: {why}", _REPAIR)


class Folder(Near):
    """A folder of blobs as a library has it, ``ab/<digest>`` or ``ab/<digest>.zst``, with any modes and times.

    It may have come from an archive or a version control system. Never followed is a symlink in it.
    """

    def __init__(self, path: str) -> None:
        self.name = path

    def has(self, digest: str, size: int) -> bool:
        # Whatever has the name counts: what is wrong with it, opening it tells.
        with platform.closing(platform.open_root(self.name)) as root:
            return any(_is_at(root, raw_name(digest) + ending) for ending in ("", ".zst"))

    @contextmanager
    def open(self, digest: str, size: int) -> Iterator[Offer]:
        with platform.closing(platform.open_root(self.name)) as root:
            for ending in ("", ".zst"):
                descriptor = self._open(root, digest, ending)
                if descriptor is None:
                    continue
                try:
                    found = os.fstat(descriptor)
                    if not (may_be_frame if ending else _is_raw)(found, size):
                        raise damaged(self, digest, "it is not a file of that size")
                    if ending:
                        yield Offer(size, Section(descriptor, 0, found.st_size))
                    else:
                        yield raw_offer(descriptor, size)
                finally:
                    os.close(descriptor)
                return
        raise IntegrityError(f"blob {digest} is not in {self.name}", _REPAIR)

    def builds_on_others(self, digest: str) -> bool:
        return False

    def why_no_reflink(self, target: Directory) -> str | None:
        return "a folder of blobs is copied"

    def is_unchanged(self) -> bool:
        return False

    def _open(self, root: platform.Directory, digest: str, ending: str) -> int | None:
        try:
            return platform.open_file(root, raw_name(digest) + ending)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            raise damaged(self, digest, "it is not a file") from error


def _is_at(root: platform.Directory, name: str) -> bool:
    try:
        platform.status(root, name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        return error.errno in NO_FILE
    return True


def _is_raw(status: os.stat_result, size: int) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def raw_offer(descriptor: int, size: int) -> Offer:
    """The content of an open file, with its holes."""
    if not platform.has_holes(descriptor, size):
        return whole(Section(descriptor, 0, size))
    stretches: list[Stretch] = []
    end = 0
    for start, stop in [*platform.data_ranges(descriptor, size), (size, size)]:
        if start > end:
            stretches.append(Stretch(end, start - end, None))
        if stop > start:
            stretches.append(Stretch(start, stop - start, Section(descriptor, start, stop - start)))
        end = stop
    return Offer(size, None, stretches)
