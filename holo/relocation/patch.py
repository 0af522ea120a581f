"""Patch the recorded prefix to a new path: compute the edits, check the content against them, then splice.

A :class:`Relocator` writes nothing. :meth:`Relocator.check` must have seen the whole content before the first byte of
:meth:`Relocator.patch` is written, or :func:`patch_file` is called, so that bad offsets never leave half a file.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import TypeAlias

from holo import platform
from holo.catalog import BYTECODE_HEADER, Relocation
from holo.content import Hole, Piece, pieces_of, write_all
from holo.errors import CatalogInvalid, RelocationImpossible
from holo.relocation import is_plain, leads_into, listed, shebang

SHEBANG_LIMIT = shebang.limit()

Edit: TypeAlias = tuple[int, int, bytes]
"""Replace content[start:end] by these bytes."""

_SOURCE_STAMP: Edit = (4, BYTECODE_HEADER, bytes(BYTECODE_HEADER - 4))
"""After the magic number: flags, then the time and size of the source. No source has these, so CPython compiles it."""

_LINES = ("text", "zipapp")
"""Kinds of files that may have a shebang, and in which a path may become longer."""


class Relocator:
    """Moves content from the prefix ``old`` to ``new`` (absolute paths)."""

    def __init__(self, old: str, new: str) -> None:
        self.old = os.fsencode(old)
        self.new = os.fsencode(new)
        self._old_text = old
        self._new_text = new
        self._growth = len(self.new) - len(self.old)
        self._is_plain = is_plain(self.new) or self.new == self.old

    def applies(self, relocation: Relocation) -> bool:
        """Whether a file is patched at all.

        Bytecode is made stale, so that CPython compiles its patched source again. Data in which a longer path has no
        room is left alone: see :meth:`left_alone`.
        """
        if relocation.kind == "bytecode":
            return self.new != self.old
        return relocation.kind != "data" or self._growth <= 0

    def left_alone(self, relocations: Mapping[str, Relocation]) -> list[str]:
        """A warning about the data files that keep the old path, because the new one is longer; ``[]`` without such."""
        files = sorted(path for path, item in relocations.items() if item.kind == "data" and not self.applies(item))
        if not files:
            return []
        return [f"{self._old_text} stays in data files, where a longer path has no room: {listed(files)}"]

    def refuse_impossible(
        self,
        relocations: Mapping[str, Relocation],
        way_out: str = " (--to, HOLO_HOME), or record from a longer prefix",
    ) -> None:
        """Raise :class:`RelocationImpossible`, with the list of files, if the new path does not fit binaries."""
        if self._growth <= 0:
            return
        files = sorted(path for path, relocation in relocations.items() if relocation.kind == "binary")
        if files:
            raise RelocationImpossible(
                f"{self._new_text} is {self._growth} bytes longer than {self._old_text}, which is inside programs "
                f"and libraries, where a longer path has no room: {listed(files)}",
                f"Use a path of at most {len(self.old)} bytes{way_out}.",
            )

    def symlink(self, target: str) -> str:
        """The new target of a symlink: another one if it leads into the prefix."""
        if leads_into(target, self._old_text):
            return self._new_text + target[len(self._old_text) :]
        return target

    def size(self, relocation: Relocation, size: int) -> int | None:
        """The size of the patched file; ``None`` if it depends on the content: a shebang to rewrite, paths to quote."""
        if relocation.kind not in _LINES:
            return size
        if self._shebang_breaks(relocation) or not self._is_plain:
            return None
        growth = self._growth if relocation.kind == "text" else max(0, self._growth)
        return size + growth * len(relocation.offsets)

    def _shebang_breaks(self, relocation: Relocation) -> bool:
        if relocation.kind not in _LINES or not relocation.ends:
            return False
        line = relocation.ends[0]
        inside = sum(offset < line for offset in relocation.offsets)
        too_long = line + self._growth * inside > SHEBANG_LIMIT
        return self.new != self.old and (too_long or shebang.is_broken_by(relocation.offsets[0], self.new))

    def check(self, chunks: Iterable[Piece], relocation: Relocation, path: str) -> None:
        """Raise :class:`CatalogInvalid` unless the relocation is true of the content.

        It must hold the prefix at every offset, and a C string or shebang line must end where the catalog says.
        """
        length = len(self.old)
        ending = b"\n" if relocation.kind in _LINES else b"\0"
        prefixes = deque(relocation.offsets)
        strings = deque(zip(relocation.offsets, relocation.ends, strict=False))
        tail = b""  # in which a prefix may have begun
        start = 0
        last = -1  # the end of the last string
        for piece in chunks:
            # A few zeros stand for a hole: they end every string, and cannot be in a prefix.
            chunk = bytes(piece[: length + 1]) if isinstance(piece, Hole) else piece
            here = start + len(chunk)
            if not start and relocation.kind in _LINES and strings and not _is_shebang(chunk, strings[0][0]):
                raise self._wrong(path, f"begins with a shebang into {self._old_text}")
            while strings and strings[0][0] + length < here:
                offset, end = strings[0]
                if last < offset + length:  # else this one is in the same string
                    found = chunk.find(ending, max(0, offset + length - start))
                    if found < 0:
                        break
                    last = start + found
                if last != end:
                    raise self._wrong(path, f"has a string from byte {offset} to byte {end}")
                strings.popleft()
            window = tail + chunk
            while prefixes and prefixes[0] + length <= here:
                offset = prefixes.popleft()
                at = offset - (here - len(window))
                if at < 0 or not window.startswith(self.old, at):
                    raise self._wrong(path, f"holds {self._old_text} at byte {offset}")
            start += len(piece)
            tail = window[-length:] if start == here else b""
        if prefixes:
            raise self._wrong(path, f"holds {self._old_text} at byte {prefixes[0]}")
        if any(end != start for _, end in strings):
            raise self._wrong(path, f"has a string from byte {strings[0][0]} to byte {strings[0][1]}")

    def _wrong(self, path: str, claim: str) -> CatalogInvalid:
        return CatalogInvalid(
            f"the catalog says that {path} {claim}, and it does not",
            "The catalog does not belong to this content; nothing was written. Record the environment again.",
        )

    def patch(self, chunks: Iterable[Piece], relocation: Relocation, path: str) -> Iterator[Piece]:
        """The patched content of the file at ``path`` in the tree.

        The first chunk holds the whole shebang line, if there is one, and all of a text in which paths are quoted.
        """
        stream = iter(chunks)
        first = next(stream, b"")
        head = b"" if isinstance(first, Hole) else first
        return splice(first, stream, self.edits(relocation, head, path))

    def is_unquoted(self, chunks: Iterable[Piece], relocation: Relocation, path: str) -> bool:
        """Whether the new path needs quotes, and the file is a text in a language that :mod:`quoting` does not know."""
        if relocation.kind != "text" or self._is_plain:
            return False
        head = next(iter(chunks), b"")
        return isinstance(head, Hole) or self._quoted(relocation, head, path) is None

    def regions(self, relocation: Relocation) -> list[tuple[int, int]] | None:
        """The ranges of bytes that change; ``None`` if bytes after them change their place."""
        if relocation.kind == "bytecode":
            return [_SOURCE_STAMP[:2]]
        if relocation.kind in _LINES and (self._growth or not self._is_plain or self._shebang_breaks(relocation)):
            return None
        return [(offset, offset + len(self.old)) for offset in relocation.offsets]

    def edits(self, relocation: Relocation, head: bytes, path: str) -> list[Edit]:
        """The edits of the file at ``path``, in order. ``head``: its beginning, for a shebang or a text with quotes."""
        length = len(self.old)
        if relocation.kind == "bytecode":
            return [_SOURCE_STAMP]
        if relocation.kind in ("binary", "data"):
            # No byte after a path may move: it may be counted, or belong to another string or a table. So the path is
            # padded: with slashes, which leave it the same path, or with NULs where a C string ends with it.
            padded = [
                self.new.ljust(length, b"\0" if end == offset + length else b"/")
                for offset, end in zip(relocation.offsets, relocation.ends, strict=True)
            ]
        elif relocation.kind == "zipapp":
            # Readers of an archive cope with more bytes before it than its offsets tell, but not with fewer.
            padded = [self.new.ljust(length, b"/")] * len(relocation.offsets)
        else:
            padded = self._quoted(relocation, head, path) or [self.new] * len(relocation.offsets)
        edits = [(offset, offset + length, new) for offset, new in zip(relocation.offsets, padded, strict=True)]
        if not self._shebang_breaks(relocation):
            return edits
        at, end = relocation.offsets[0], relocation.ends[0]
        line = shebang.rewrite(head[:end], at, self.old, self.new, path)
        if relocation.kind == "zipapp":
            line = line.ljust(end)
        return [(0, end, line), *(edit for edit in edits if edit[0] >= end)]

    def _quoted(self, relocation: Relocation, head: bytes, path: str) -> list[bytes] | None:
        """The new path, quoted for each offset of a text; ``None`` if it is not known how to quote it there."""
        offsets = relocation.offsets
        if self._is_plain:
            return [self.new] * len(offsets)
        line = relocation.ends[0] if self._shebang_breaks(relocation) else 0
        below = [at for at in offsets if at >= line]
        from holo.relocation.quoting import replacements  # for the few paths that need it

        quoted = replacements(path, head, below, len(self.old), self.new)
        return [self.new] * (len(offsets) - len(below)) + quoted if quoted is not None else None


def patch_file(descriptor: int, relocator: Relocator, relocation: Relocation, path: str) -> None:
    """Patch the file at ``path`` in the tree, which is open for reading and writing, without a check.

    If everything keeps its place, only the :meth:`Relocator.regions` are written, and the file shares the other blocks
    as before.
    """
    regions = relocator.regions(relocation)
    if regions is None:
        pieces = pieces_of(descriptor, os.fstat(descriptor).st_size)
        patched = b"".join(map(bytes, relocator.patch(pieces, relocation, path)))
        os.lseek(descriptor, 0, os.SEEK_SET)
        write_all(descriptor, patched)
        os.ftruncate(descriptor, len(patched))
        return
    edits = relocator.edits(relocation, b"", path)
    for start, end in regions:
        content = platform.read_at(descriptor, end - start, start)
        os.lseek(descriptor, start, os.SEEK_SET)
        write_all(descriptor, _patch_region(content, start, edits))


def _patch_region(content: bytes, start: int, edits: list[Edit]) -> bytes:
    """The bytes of a file from ``start`` on, patched by the edits that lie in them."""
    end = start + len(content)
    first, last = bisect_left(edits, start, key=itemgetter(0)), bisect_right(edits, end, key=itemgetter(0))
    inside = [(low - start, high - start, new) for low, high, new in edits[first:last]]
    return b"".join(map(bytes, splice(content, (), inside)))


def unquoted(files: list[str]) -> str:
    """A warning about files of which :meth:`Relocator.is_unquoted` is true."""
    names = listed(sorted(files))
    return f"the new path may need quotes in these files, and holo does not know how to quote it there: {names}"


def splice(first: Piece, rest: Iterable[Piece], edits: list[Edit]) -> Iterator[Piece]:
    """Apply sorted, non-overlapping edits to content that comes in chunks."""
    position = 0  # in the original content, of the next byte to yield
    pending = iter(edits)
    edit = next(pending, None)
    chunk = first
    start = 0
    rest = iter(rest)
    while True:
        end = start + len(chunk)
        parts: list[Piece] = []
        while edit is not None and edit[0] <= end:
            # An edit that begins exactly at the end belongs to the next chunk, unless it only inserts.
            if edit[0] == end and edit[1] > end:
                break
            if edit[0] > position:
                parts.append(chunk[position - start : edit[0] - start])
            parts.append(edit[2])
            position = max(position, edit[1])
            edit = next(pending, None)
        if position < end:
            parts.append(chunk[position - start :])
            position = end
        if isinstance(chunk, Hole):
            yield from parts
        elif parts:
            yield b"".join(map(bytes, parts))
        start = end
        following = next(rest, None)
        if following is None:
            return
        chunk = following


def _is_shebang(head: bytes, offset: int) -> bool:
    """Whether the content begins with a shebang that leads to the path at ``offset``."""
    return offset > len(head) or shebang.leads_to(head[:offset])
