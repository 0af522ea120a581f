"""Patch the recorded roots to new paths: compute the edits, check the content against them, then splice.

A :class:`Relocator` writes nothing. :meth:`Relocator.check` must have seen the whole content before the first byte of
:meth:`Relocator.patch` is written, or :func:`patch_file` is called, so that bad offsets never leave half a file.
"""

from __future__ import annotations

import os
import posixpath
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from holo import platform
from holo.catalog import BYTECODE_HEADER, Catalog, Relocation
from holo.content import Hole, Piece, pieces_of, write_all
from holo.errors import CatalogInvalid, RelocationImpossible
from holo.relocation import MACH_O, Edit, is_plain, leads_into, listed, shebang
from holo.relocation.roots import root_of
from holo.spellings import SPELLINGS, spellings

if TYPE_CHECKING:
    from typing import Self

SHEBANG_LIMIT = shebang.limit()

_SOURCE_STAMP: Edit = (4, BYTECODE_HEADER, bytes(BYTECODE_HEADER - 4))
"""After the magic number: flags, then the time and size of the source. No source has these, so CPython compiles it."""

_CACHE = ".cache"
"""A folder of files that tools make again, as bundlers have it in ``node_modules``."""

_MAGIC = 4
"""Bytes that tell a Mach-O file."""

_LINES = ("text", "zipapp")
"""Kinds of files that may have a shebang, and in which a path may become longer."""


Source: TypeAlias = Callable[[], Iterable[Piece]]
"""Gives the pieces of some content, from the beginning each time."""


class _Place(NamedTuple):
    """An occurrence, and what is to be there."""

    offset: int
    old: bytes
    new: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.old)


class Relocator:
    """Moves content from the prefix ``old`` to ``new`` (absolute paths), and with it the ``others`` that it names."""

    def __init__(self, old: str, new: str, others: Sequence[tuple[str, str | None]] = ()) -> None:
        """``others``: roots outside of the tree, each with its new path; with ``None`` it stays, and relative symlinks
        that lead there do not."""
        self.old = os.fsencode(old)
        self.new = os.fsencode(new)
        self._roots: list[tuple[str, str | None]] = [(old, new), *others]
        self._names = [here for here, _ in others]
        moves = [(here, here if there is None else there) for here, there in self._roots]
        self._forms = [
            pair for before, after in moves for pair in zip(spellings(before), spellings(after), strict=True)
        ]
        self.moves = any(before != after for before, after in moves)
        """whether there is anything to patch"""

    @classmethod
    def of(cls, catalog: Catalog, path: str, project: str = "") -> Self:
        """For a tree at ``path`` whose project is at ``project``; if nothing is said about that, it stays."""
        others = [(catalog.project, project or None)] if catalog.project else []
        return cls(catalog.prefix, path, others)

    def reversed(self) -> Relocator:
        """The way back."""
        old, new = os.fsdecode(self.old), os.fsdecode(self.new)
        return Relocator(new, old, [(there or here, here) for here, there in self._roots[1:]])

    def _places(self, relocation: Relocation) -> list[_Place]:
        if not relocation.forms:
            return [_Place(offset, *self._forms[0]) for offset in relocation.offsets]
        return [_Place(at, *self._forms[form]) for at, form in zip(relocation.offsets, relocation.forms, strict=True)]

    def _growth(self, relocation: Relocation) -> list[int]:
        """How much longer the new paths are, at each offset."""
        if not relocation.forms:
            old, new = self._forms[0]
            return [len(new) - len(old)] * len(relocation.offsets)
        return [len(new) - len(old) for old, new in map(self._forms.__getitem__, relocation.forms)]

    def _has_room(self, relocation: Relocation) -> bool:
        """Whether no path becomes longer."""
        return max(self._growth(relocation), default=0) <= 0

    def applies(self, relocation: Relocation) -> bool:
        """Whether a file is patched at all.

        Bytecode is made stale, so that CPython compiles its patched source again. Data in which a longer path has no
        room is left alone: see :meth:`left_alone`.
        """
        if relocation.kind == "bytecode":
            return self.moves
        if relocation.kind == "opaque":
            return False
        return relocation.kind != "data" or self._has_room(relocation)

    def left_alone(self, relocations: Mapping[str, Relocation]) -> list[str]:
        """A warning about the data files that keep the old path, because the new one is longer; ``[]`` without such."""
        alone = {path: item for path, item in relocations.items() if item.kind == "data" and not self.applies(item)}
        warnings = []
        for number, (here, _) in enumerate(self._roots):
            files = sorted(path for path, item in alone.items() if self._outgrows(item, number))
            if files:
                warnings.append(f"{here} stays in data files, where a longer path has no room: {listed(files)}")
        return warnings

    def refuse_impossible(
        self,
        relocations: Mapping[str, Relocation],
        way_out: str = " (--to, HOLO_HOME), or record from a longer prefix",
        none: str = "",
    ) -> None:
        """Raise :class:`RelocationImpossible`, with the list of files, if the new path does not fit binaries.

        A root outside of the tree must move in all files or in none, so it has to fit data as well. Only caches, which
        tools make again, may go on naming the old one.
        """
        new = self._roots[0][1]
        for number, (old, there) in enumerate(self._roots):
            if there != new:  # others lead to the tree as well: its real path
                continue
            programs = (path for path, item in relocations.items() if item.kind == "binary")
            files = sorted(path for path in programs if self._outgrows(relocations[path], number))
            if files:
                room = len(os.fsencode(old))
                raise RelocationImpossible(
                    f"{new} is {len(self.new) - room} bytes longer than {old}, which is inside programs "
                    f"and libraries, where a longer path has no room: {listed(files)}",
                    f"Use a path of at most {room} bytes{way_out}.",
                )
        for number, (here, there) in enumerate(self._roots):
            if there in (None, here, new):
                continue
            files = sorted(path for path, item in relocations.items() if self._cannot_move(path, item, number))
            if files:
                raise RelocationImpossible(
                    f"these files name {here}, and cannot be made to name {there}, because they are databases "
                    f"or archives, or have no room for a longer path: {listed(files)}",
                    f"Remove them if they can be made again, or use a place whose path has at most "
                    f"{len(os.fsencode(here))} bytes{none}.",
                )

    def _outgrows(self, relocation: Relocation, number: int) -> bool:
        """Whether the new path of a root is longer than the old, where that is in the file."""
        forms = set(relocation.forms) or {0}
        return any(form // SPELLINGS == number and len(old) < len(new) for form, (old, new) in self._forms_of(forms))

    def _forms_of(self, forms: Iterable[int]) -> list[tuple[int, tuple[bytes, bytes]]]:
        return [(form, self._forms[form]) for form in forms]

    def _cannot_move(self, path: str, relocation: Relocation, number: int) -> bool:
        """Whether a file names a root outside of the tree that cannot be patched there, and must be."""
        if not any(form // SPELLINGS == number for form in relocation.forms):
            return False
        if relocation.kind != "binary" and _CACHE in path.split("/"):
            return False
        return relocation.kind == "opaque" or (relocation.kind in ("binary", "data") and not self._has_room(relocation))

    def symlink(self, target: str, path: str = "") -> str:
        """The new target of the symlink at ``path`` in the tree: another one if it leads to a root."""
        old, new = os.fsdecode(self.old), os.fsdecode(self.new)
        if leads_into(target, old):
            return new + target[len(old) :]
        if not self._names:
            return target
        folder = posixpath.dirname(path)
        root = root_of(target, folder, old, self._names)
        place = dict(self._roots).get(root) if root is not None else None
        if root is None or place is None:
            return target
        if target.startswith("/"):
            return place + target[len(root) :]
        here, there = posixpath.join(old, folder), posixpath.join(new, folder)
        if posixpath.relpath(here, root) == posixpath.relpath(there, place):
            return target
        leads_to = posixpath.normpath(posixpath.join(here, target))
        return posixpath.relpath(place + leads_to[len(root) :], there)

    def unmoved(self, relocations: Mapping[str, Relocation], links: Iterable[tuple[str, str]]) -> list[str]:
        """The files and symlinks, as (path, target), that name a root outside of the tree which stays."""
        staying = {number for number, (_, there) in enumerate(self._roots) if there is None}
        if not staying:
            return []
        found = [p for p, item in relocations.items() if staying & {form // SPELLINGS for form in item.forms}]
        stay = [here for here, there in self._roots if there is None]
        prefix = os.fsdecode(self.old)
        found += [path for path, to in links if root_of(to, posixpath.dirname(path), prefix, stay) is not None]
        return sorted(found)

    def size(self, relocation: Relocation, size: int) -> int | None:
        """The size of the patched file; ``None`` if it depends on the content: a shebang to rewrite, paths to quote."""
        if relocation.kind not in _LINES:
            return size
        if self._shebang_breaks(relocation) or not self._is_plain(relocation):
            return None
        growth = self._growth(relocation)
        return size + (sum(growth) if relocation.kind == "text" else sum(max(0, each) for each in growth))

    def _is_plain(self, relocation: Relocation) -> bool:
        """Whether no new path in the file may need quotes."""
        return all(old == new or is_plain(new) for _, (old, new) in self._forms_of(set(relocation.forms) or {0}))

    def _shebang_breaks(self, relocation: Relocation) -> bool:
        if relocation.kind not in _LINES or not relocation.ends:
            return False
        end = relocation.ends[0]
        line = [place for place in self._places(relocation) if place.offset < end]
        if all(place.old == place.new for place in line):
            return False
        too_long = end + sum(len(place.new) - len(place.old) for place in line) > SHEBANG_LIMIT
        return too_long or shebang.is_broken_by(line[0].offset, line[0].new)

    def check(self, chunks: Iterable[Piece], relocation: Relocation, path: str) -> None:
        """Raise :class:`CatalogInvalid` unless the relocation is true of the content.

        It must hold a root at every offset, and a C string or shebang line must end where the catalog says.
        """
        ending = b"\n" if relocation.kind in _LINES else b"\0"
        places = deque(self._places(relocation))
        strings = deque(zip(places, relocation.ends, strict=False))
        longest = max((len(place.old) for place in places), default=0)
        tail = b""  # in which a path may have begun
        start = 0
        last = -1  # the end of the last string
        for piece in chunks:
            # A few zeros stand for a hole: they end every string, and cannot be in a path.
            chunk = bytes(piece[: longest + 1]) if isinstance(piece, Hole) else piece
            here = start + len(chunk)
            if not start and relocation.kind in _LINES and strings and not _is_shebang(chunk, strings[0][0].offset):
                raise self._wrong(path, f"begins with a shebang into {os.fsdecode(strings[0][0].old)}")
            while strings and strings[0][0].end < here:
                place, end = strings[0]
                if last < place.end:  # else this one is in the same string
                    found = chunk.find(ending, max(0, place.end - start))
                    if found < 0:
                        break
                    last = start + found
                if last != end:
                    raise self._wrong(path, f"has a string from byte {place.offset} to byte {end}")
                strings.popleft()
            window = tail + chunk
            while places and places[0].end <= here:
                place = places.popleft()
                at = place.offset - (here - len(window))
                if at < 0 or not window.startswith(place.old, at):
                    raise self._lacks(path, place)
            start += len(piece)
            tail = window[-longest:] if start == here else b""
        if places:
            raise self._lacks(path, places[0])
        if any(end != start for _, end in strings):
            raise self._wrong(path, f"has a string from byte {strings[0][0].offset} to byte {strings[0][1]}")

    def _lacks(self, path: str, place: _Place) -> CatalogInvalid:
        return self._wrong(path, f"holds {os.fsdecode(place.old)} at byte {place.offset}")

    def _wrong(self, path: str, claim: str) -> CatalogInvalid:
        return CatalogInvalid(
            f"the catalog says that {path} {claim}, and it does not",
            "The catalog does not belong to this content; nothing was written. Record the environment again.",
        )

    def patch(self, source: Source, relocation: Relocation, path: str) -> Iterator[Piece]:
        """The patched content of the file at ``path`` in the tree.

        The first chunk holds the whole shebang line, if there is one, and all of a text in which paths are quoted. In
        a Mach-O file, the hashes of the patched pages become right as well (:mod:`holo.relocation.machsign`).
        """
        return _spliced(source, lambda head: self.edits(relocation, head, path))

    def undo(self, source: Source, relocation: Relocation) -> Iterator[Piece]:
        """The content as it was before :meth:`patch`, if that quoted no path and rewrote no shebang."""
        edits: list[Edit] = []
        shift = 0
        places = self._places(relocation)
        for place, new in zip(places, self._padded(relocation, places), strict=True):
            edits.append((place.offset + shift, place.offset + shift + len(new), place.old))
            shift += len(new) - len(place.old)
        return _spliced(source, lambda _: edits)

    def is_unquoted(self, chunks: Iterable[Piece], relocation: Relocation, path: str) -> bool:
        """Whether the new path needs quotes, and the file is a text in a language that :mod:`quoting` does not know."""
        if relocation.kind != "text" or self._is_plain(relocation):
            return False
        head = next(iter(chunks), b"")
        return isinstance(head, Hole) or self._quoted(relocation, head, path) is None

    def regions(self, relocation: Relocation) -> list[tuple[int, int]] | None:
        """The ranges of bytes that change, hashes of pages aside; ``None`` if bytes after them change their place."""
        if relocation.kind == "bytecode":
            return [_SOURCE_STAMP[:2]]
        if relocation.kind in _LINES and (
            any(self._growth(relocation)) or not self._is_plain(relocation) or self._shebang_breaks(relocation)
        ):
            return None
        return [(place.offset, place.end) for place in self._places(relocation)]

    def edits(self, relocation: Relocation, head: bytes, path: str) -> list[Edit]:
        """The edits of the file at ``path``, in order, but for those of page hashes.

        ``head``: its beginning, for a shebang or a text with quotes.
        """
        if relocation.kind == "bytecode":
            return [_SOURCE_STAMP]
        places = self._places(relocation)
        padded = self._quoted(relocation, head, path) if relocation.kind == "text" else None
        padded = padded or self._padded(relocation, places)
        edits = [(place.offset, place.end, new) for place, new in zip(places, padded, strict=True)]
        if not self._shebang_breaks(relocation):
            return edits
        end = relocation.ends[0]
        inside = not relocation.forms or relocation.forms[0] < SPELLINGS
        line = shebang.rewrite(head[:end], places[0], self._forms[::SPELLINGS], path if inside else None)
        if relocation.kind == "zipapp":
            line = line.ljust(end)
        return [(0, end, line), *(edit for edit in edits if edit[0] >= end)]

    def _padded(self, relocation: Relocation, places: Sequence[_Place]) -> list[bytes]:
        """What is put in the place of each occurrence, unless that is quoted."""
        if relocation.kind in ("binary", "data"):
            # No byte after a path may move: it may be counted, or belong to another string or a table. So the path is
            # padded: with slashes, which leave it the same path, or with NULs where a C string ends with it.
            return [
                place.new.ljust(len(place.old), b"\0" if end == place.end else b"/")
                for place, end in zip(places, relocation.ends, strict=True)
            ]
        if relocation.kind == "zipapp":
            # Readers of an archive cope with more bytes before it than its offsets tell, but not with fewer.
            return [place.new.ljust(len(place.old), b"/") for place in places]
        return [place.new for place in places]

    def _quoted(self, relocation: Relocation, head: bytes, path: str) -> list[bytes] | None:
        """The new path, quoted for each offset of a text; ``None`` if it is not known how to quote it there."""
        places = self._places(relocation)
        if self._is_plain(relocation):
            return [place.new for place in places]
        line = relocation.ends[0] if self._shebang_breaks(relocation) else 0
        above = [place.new for place in places if place.offset < line]
        from holo.relocation.quoting import replacements  # for the few paths that need it

        quoted = replacements(path, head, places[len(above) :])
        return above + quoted if quoted is not None else None


def patch_file(descriptor: int, relocator: Relocator, relocation: Relocation, path: str) -> None:
    """Patch the file at ``path`` in the tree, which is open for reading and writing, without a check.

    If everything keeps its place, only what changes is written, and the file shares the other blocks as before.
    """
    source = partial(pieces_of, descriptor, os.fstat(descriptor).st_size)
    if relocator.regions(relocation) is None:
        patched = b"".join(map(bytes, relocator.patch(source, relocation, path)))
        os.lseek(descriptor, 0, os.SEEK_SET)
        write_all(descriptor, patched)
        os.ftruncate(descriptor, len(patched))
        return
    edits = relocator.edits(relocation, b"", path)
    if platform.read_at(descriptor, _MAGIC, 0) in MACH_O:
        edits = _signed(edits, source)
    for start, _, new in edits:
        os.lseek(descriptor, start, os.SEEK_SET)
        write_all(descriptor, new)


def _spliced(source: Source, edits_of: Callable[[bytes], list[Edit]]) -> Iterator[Piece]:
    """The content after the edits, which may depend on its beginning."""
    stream = iter(source())
    first = next(stream, b"")
    head = b"" if isinstance(first, Hole) else first
    edits = edits_of(head)
    if head.startswith(MACH_O):
        edits = _signed(edits, source)
        stream = iter(source())  # after the others: only one can be inflated at a time
        first = next(stream, b"")
    return splice(first, stream, edits)


def _signed(edits: list[Edit], source: Source) -> list[Edit]:
    """The edits of a Mach-O file, and those of the hashes of its pages."""
    from holo.relocation.machsign import reader, with_hashes  # for the few files that need it

    return with_hashes(edits, reader(source))


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
