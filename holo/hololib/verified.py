"""Content held against its digest on the way from one place to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holo import digest as digests
from holo.content import Piece

CHUNK = 1 << 20
"""Bytes read or written at a time; files up to this size are handled in one piece."""


class ContentMismatch(Exception):
    """Bytes are not what their digest says. Whose fault that is, the caller knows."""


_MISMATCH = "the stored bytes do not have that digest"


def verified_chunks(chunks: Iterable[Piece], digest: str, size: int) -> Iterable[Piece]:
    """Pass ``chunks`` on; raise :class:`ContentMismatch` instead of giving out the last one if they are wrong."""
    return _verified_in_memory(chunks, digest, size) if size <= CHUNK else _verified_on_the_way(chunks, digest, size)


def _verified_in_memory(chunks: Iterable[Piece], digest: str, size: int) -> list[Piece]:
    """Most content is one piece, and a generator for it would take as long as its hashing."""
    pieces, left = [], size
    for piece in chunks:
        pieces.append(piece)
        left -= len(piece)
        if left < 0:  # whatever else there is need not be read
            break
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        found = digests.of(pieces[0])
    else:
        hasher = digests.Hasher()
        for piece in pieces:
            hasher.update(piece)
        found = hasher.hexdigest()
    if found != digest or left:
        raise ContentMismatch(_MISMATCH)
    return pieces


def _verified_on_the_way(chunks: Iterable[Piece], digest: str, size: int) -> Iterator[Piece]:
    hasher = digests.Hasher()
    left = size
    held: Piece | None = None
    for chunk in chunks:
        if held is not None:
            yield held
        hasher.update(chunk)
        left -= len(chunk)
        held = chunk
        if left < 0:
            break
    if left or hasher.hexdigest() != digest:
        raise ContentMismatch(_MISMATCH)
    if held is not None:
        yield held
