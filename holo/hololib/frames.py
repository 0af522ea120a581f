"""The compressed form of content: one zstd frame (RFC 8878), and nothing after it.

Inflating one never takes more memory than it may.
"""

from __future__ import annotations

import os
import stat
from _thread import _local as per_thread  # threading.local, without what takes half a millisecond to import
from collections.abc import Iterable, Iterator
from functools import cache
from typing import IO, cast

from holo import digest as digests
from holo import platform
from holo.content import Hole, Piece, Section
from holo.hololib.verified import CHUNK, ContentMismatch

ZSTD_LEVEL = 1
"""By measurement of record time, restore time and disk: the table is in benchmarks/README.md."""

_WINDOW = 8 << 20
"""Bytes of memory that a compressed blob may ask for while it is inflated: what RFC 8878 wants of a decoder. holo's
own ask for half a megabyte."""

_IN_CACHE = 256 << 10
"""Bytes of a large blob that are inflated at a time: what is hashed next is still in the processor's own cache."""

_LONGEST_HEADER = 18
"""Bytes (RFC 8878, 3.1.1.1)."""


def may_be_frame(status: os.stat_result, size: int) -> bool:
    """Whether a compressed form of ``size`` bytes can be this: zstd adds 1/256 and a few bytes at most."""
    return stat.S_ISREG(status.st_mode) and 0 < status.st_size <= most_compressed(size)


def most_compressed(size: int) -> int:
    """The most bytes that a frame of ``size`` bytes takes."""
    return size + (size >> 7) + 1024


class _Contexts(per_thread):
    """Compression contexts are worth keeping (a new one costs more than a small file) but not worth a lock."""

    def __init__(self) -> None:
        import zstandard

        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)


@cache
def _contexts() -> _Contexts:
    return _Contexts()


def compress(pieces: Iterable[Piece], size: int) -> Iterator[bytes]:
    """The frame of ``size`` bytes of content. Raises :class:`ContentMismatch` if there is a hole in it."""
    return frame_pieces(_without_holes(pieces), size)


def _without_holes(pieces: Iterable[Piece]) -> Iterator[bytes]:
    for piece in pieces:
        if isinstance(piece, Hole):
            raise ContentMismatch("there is a hole in what had none")
        yield piece


def frame_of(content: bytes) -> bytes:
    """The frame of content that nobody needs to verify."""
    return _contexts().compressor.compress(content)


class Compressor:
    """Makes the frame of ``size`` bytes that come in pieces."""

    def __init__(self, size: int) -> None:
        self._compressor = _contexts().compressor.compressobj(size=size)

    def add(self, piece: bytes) -> bytes:
        """The bytes of the frame that are ready after the next piece."""
        return self._compressor.compress(piece)

    def end(self) -> bytes:
        """The rest of the frame, after the last piece."""
        return self._compressor.flush()


def frame_pieces(content: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The frame of ``size`` bytes in pieces."""
    compressor = Compressor(size)
    for piece in content:
        if block := compressor.add(piece):
            yield block
    yield compressor.end()


def inflate(frame: Section, size: int) -> Iterable[bytes]:
    """The content of a frame, not verified; never more than one chunk beyond ``size``, whatever the frame claims.

    Raises :class:`ContentMismatch` for what is no frame, or more than one frame: nobody would read the rest.
    """
    return (_inflate_small(frame, size),) if size <= CHUNK else _inflate_in_pieces(frame, size)


def _inflate_small(frame: Section, size: int) -> bytes:
    import zstandard

    data = frame.beginning(most_compressed(size))
    try:
        # The frame's own claim decides how much memory is taken, so it is checked first.
        if zstandard.frame_content_size(data) != size:
            raise zstandard.ZstdError("it claims another size")
        if not size:  # of which zstandard looks at nothing but the header
            _refuse_more(frame)
        return _contexts().decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _not_a_frame(error) from None


def _inflate_in_pieces(frame: Section, size: int) -> Iterator[bytes]:
    import zstandard

    try:
        with _contexts().decompressor.stream_reader(cast(IO[bytes], _Reader(frame))) as reader:
            given = 0
            while given <= size and (chunk := reader.read(_IN_CACHE)):
                given += len(chunk)
                yield chunk
        if given <= size:
            _refuse_more(frame)
    except zstandard.ZstdError as error:
        raise _not_a_frame(error) from None


def _refuse_more(frame: Section) -> None:
    """Raise what is raised for no frame if something follows one that could be inflated."""
    import zstandard

    if (end := _end_of(frame)) < frame.length and frame.part(end, 1).beginning(1):
        raise zstandard.ZstdError("more follows it")


def _end_of(frame: Section) -> int:
    """Where a frame ends: after its last block, or the checksum behind that (RFC 8878, 3.1.1)."""
    import zstandard

    beginning = frame.beginning(_LONGEST_HEADER)
    position, is_last = zstandard.frame_header_size(beginning), False
    while not is_last:
        block = frame.part(position, 3).beginning(3)
        if len(block) < 3:
            raise zstandard.ZstdError("it changes meanwhile")
        header = int.from_bytes(block, "little")
        is_last, is_repeated_byte = bool(header & 1), header >> 1 & 3 == 1
        position += 3 + (1 if is_repeated_byte else header >> 3)
    return position + 4 * zstandard.get_frame_parameters(beginning).has_checksum


def _not_a_frame(error: Exception) -> ContentMismatch:
    return ContentMismatch(f"its compressed form cannot be inflated ({error})")


class _Reader:
    """A section as the file that zstandard reads."""

    def __init__(self, section: Section) -> None:
        self._pieces = section.pieces()

    def read(self, size: int) -> bytes:
        """The next bytes: as many as there are in one piece, whatever ``size``; none at the end."""
        return next(self._pieces, b"")


def stored_content(descriptor: int, most: int | None = None) -> tuple[str, int]:
    """The digest and the size of the content of an open compressed form.

    Raises :class:`ContentMismatch` if it cannot be inflated, or claims to hold more than ``most`` bytes.
    """
    import zstandard

    try:
        size = zstandard.frame_content_size(platform.read_at(descriptor, _LONGEST_HEADER, 0))
    except zstandard.ZstdError as error:
        raise _not_a_frame(error) from None
    if size < 0 or (most is not None and size > most):
        raise ContentMismatch("its compressed form claims another size")
    hasher = digests.Hasher()
    given = 0
    for chunk in inflate(Section(descriptor, 0, most_compressed(size)), size):
        hasher.update(chunk)
        given += len(chunk)
    return hasher.hexdigest(), given
