"""Find every occurrence of the prefix in a file's content, given in pieces of any size.

An occurrence is the prefix as a whole path: ``/opt/env`` is found in ``/opt/env/bin``, ``-L/opt/env`` and
``/opt/env:/bin``. It is not found in its sibling ``/opt/env-old``, whose name merely begins the same way, nor at the
end of another path, ``/srv/opt/env``. Patched, those would point to a place that never existed.

In binary files, a length or an opcode (pickle) or another string (Rust) may come directly before the path. So any byte
may, unless the path is as short as ``/env``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from holo.catalog import Relocation
from holo.content import Hole, Piece
from holo.relocation import MACH_O, shebang
from holo.relocation.roots import Needle, is_ambiguous
from holo.spellings import SPELLINGS, URL

_NAME = rb"A-Za-z0-9_\-\x80-\xff"

# Some bytes belong to a name only if more of it follows: "/opt/env.bak", but "It is in /opt/env."
_GOES_ON = re.compile(rb"[%b~]|[.+@%%#][%b]" % (_NAME, _NAME))
_LOOKAHEAD = 2

_FLAGS = rb"[A-Za-z]|isystem|iquote|idirafter|isysroot|include|imacros|rpath|rpath-link"
"""Options of compilers and linkers that take a path without a blank before it."""

# These look like a name, but may come directly before a path: such an option, or an escape like "\n".
_NOT_A_NAME = re.compile(rb"(?:(?<![%b./])-(?:%b)|(?<!\\)(?:\\\\)*\\[abfnrtv])\Z" % (_NAME, _FLAGS))
_GOES_ON_HERE = re.compile(rb"[%b.+~]\Z" % _NAME)
_EXPANSION = (b"}", b")")
_SLASHES = re.compile(rb"[^/](/+)\Z", re.DOTALL)

# In binary files: three letters of a word, or a component of another path.
_CERTAINLY_ELSEWHERE = re.compile(rb"(?:[A-Za-z0-9_\-]{3}|/[A-Za-z0-9_\-.+@~]+)\Z")

_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")

_FILE_URL = (b"file://", b"file://localhost")

_LOOKBEHIND = 64
"""Bytes before an occurrence that are looked at: more than the longest match of the patterns above."""

_HEAD = 4096
"""Bytes kept of the beginning: enough for a shebang, and to recognize a format."""


class Opaque(NamedTuple):
    """A root is in a file of a format that only its own programs can change."""

    format: str
    roots: tuple[int, ...] = ()
    """the numbers of the roots, if several were looked for"""

    def warning(self, path: str) -> str:
        """The warning about such a file."""
        return f"{path} is {self.format} that contains the recorded path, which is not patched there"


_OPAQUE = {
    b"SQLite format 3\0": "a SQLite database",  # an index may be in the order of the paths
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "a ZIP archive",
    b"PACK": "a pack of Git",
    b"\xfftOc": "an index of a pack of Git",
    b"DIRC": "an index of Git",
    b"\x1f\x8b": "compressed data",
    b"BZh": "compressed data",
    b"\xfd7zXZ\0": "compressed data",
    b"\x28\xb5\x2f\xfd": "compressed data",
}
"""Formats with checksums, or with an order that depends on content, by their first bytes."""

_EXECUTABLE = (b"\x7fELF", b"!<arch>\n", b"MZ", *MACH_O)
"""First bytes of programs and libraries: ELF, ar, PE, Mach-O. They use the paths that they contain."""


def continues_name(after: bytes) -> bool:
    """Whether ``after`` (the two bytes after a path, fewer at the end of a file) continues its last component."""
    return _GOES_ON.match(after) is not None


def begins_path(before: bytes, *, shallow: bool = False) -> bool:
    """Whether a path begins after ``before`` (up to 64 bytes), rather than continues there.

    ``shallow``: the path has one component. ``${root}/venv`` is not likely to mean it; ``$(DESTDIR)/opt/env`` is.
    """
    slashes = _SLASHES.search(before)
    if slashes is not None:
        # "file:///opt/env" is one; a host behind "https:/", and "/srv//opt/env", are not.
        rest = before[: slashes.start(1)]
        return len(slashes[1]) == 2 if rest.endswith(b":") else _GOES_ON_HERE.search(rest) is None
    if shallow and before.endswith(_EXPANSION):
        return False
    return _GOES_ON_HERE.search(before) is None or _NOT_A_NAME.search(before) is not None


def is_counted(before: bytes, length: int) -> bool:
    """Whether ``before`` ends with ``length``, as in a serialized string.

    That is a number of four or eight bytes in any order, or of one byte after a type that has such: z and Z of marshal
    (with the eighth bit set in a string that can be referred to), U and 0x8c of pickle, 0xd9 of MessagePack.
    """
    if len(before) >= 2 and before[-1] == length and before[-2] in b"zZ\xfa\xdaU\x8c\xd9":
        return True
    numbers = [length.to_bytes(size, order) for size in (4, 8) for order in _ORDERS]
    return before.endswith(tuple(numbers))


def _may_begin_in_binary(before: bytes) -> bool:
    """Whether a path of one component may begin after ``before`` in a binary file, although it does not look so."""
    return not before.endswith((b"/", *_EXPANSION)) and _CERTAINLY_ELSEWHERE.search(before) is None


class PrefixFinder:
    """Feed the pieces in order, then :meth:`finish`. Memory does not grow with the file."""

    def __init__(self, prefix: bytes, *, bytecode: bool = False) -> None:
        """``bytecode``: a path comes after its length, and the next object directly after the path."""
        self._prefix = prefix
        self._is_shallow = prefix.count(b"/") == 1
        self._bytecode = bytecode
        self._offsets: list[int] = []
        self._doubtful: set[int] = set()
        """the offsets that count only in a binary file"""
        self._in_url: set[int] = set()
        """the offsets directly after ``file://``"""
        self._ends: list[int] = []
        self._binary = False
        self._is_there = False  # whatever is around it: an opaque format may separate paths in its own way
        self._head = b""
        self._position = 0  # of the next piece
        self._carry = b""  # the end of the last piece: an occurrence that may have begun there, and the bytes before it
        self._next = 0  # no further occurrence begins before this

    def feed(self, piece: Piece) -> None:
        if isinstance(piece, Hole):
            self._pass_over(piece)
            return
        if self._position < _HEAD:
            self._head += piece[: _HEAD - self._position]
        self._search(self._carry + piece if self._carry else piece, piece, final=False)

    def finish(self) -> Relocation | Opaque | None:
        """The occurrences; the format, if that forbids to patch them; ``None`` if there are none."""
        self._search(self._carry, b"", final=True)
        if self._binary:
            return self._in_binary()
        offsets = [offset for offset in self._offsets if offset not in self._doubtful]
        return Relocation("text", offsets, self._shebang(offsets[0])) if offsets else None

    @property
    def offsets(self) -> list[int]:
        """All occurrences, whatever the format."""
        return self._offsets

    @property
    def is_in_archive(self) -> bool:
        """Whether the archive behind a first line names the path, which only its own programs can change."""
        archive = self._behind_shebang()
        return archive is not None and bool(self._offsets) and self._offsets[-1] >= archive

    def is_in_url(self, offset: int) -> bool:
        """Whether the occurrence at ``offset`` is a part of the URL of a file."""
        return offset in self._in_url

    def _goes_on(self, before: bytes, after: bytes) -> bool:
        """Whether the last component of a path goes on. In a binary file, the next string may follow directly."""
        if not continues_name(after) or is_counted(before, len(self._prefix)):
            return False
        return not (self._head.startswith(_EXECUTABLE) and after[:1].isalpha() and not self._is_shallow)

    def _in_binary(self) -> Relocation | Opaque | None:
        if not self._is_there:
            return None
        archive = self._behind_shebang()
        if archive is not None:
            offsets = [offset for offset in self._offsets if offset < archive and offset not in self._doubtful]
            return Relocation("zipapp", offsets, self._shebang(offsets[0])) if offsets else Opaque("a ZIP archive")
        format_ = self._opaque()
        if format_ is not None:
            return Opaque(format_)
        if not self._offsets:
            return None
        self._ends += [self._position] * (len(self._offsets) - len(self._ends))
        return Relocation("binary" if self._head.startswith(_EXECUTABLE) else "data", self._offsets, self._ends)

    def _opaque(self) -> str | None:
        if self._head[257:262] == b"ustar":
            return "a tar archive"
        return next((name for magic, name in _OPAQUE.items() if self._head.startswith(magic)), None)

    def _behind_shebang(self) -> int | None:
        """Where a ZIP archive begins after a first line, as :mod:`zipapp` writes it."""
        if not self._head.startswith(b"#!"):
            return None
        at = self._head.find(b"\nPK\x03\x04")
        return at + 1 if at >= 0 else None

    def _pass_over(self, hole: Hole) -> None:
        """Search a few zeros instead of all: no path contains NUL, so no occurrence reaches further into them."""
        undecided = len(self._prefix) + _LOOKAHEAD
        few = bytes(hole[:undecided])
        self.feed(few)
        self._position += len(hole) - len(few)
        self._next = max(self._next, self._position - undecided)

    def _shebang(self, first: int) -> list[int]:
        """Where the ``#!`` line ends that leads to the first occurrence, as a list of one; ``[]`` without one."""
        if b"\n" in self._prefix or not shebang.leads_to(self._head[:first]):
            return []
        end = self._head.find(b"\n", first + len(self._prefix))
        return [end if end >= 0 else len(self._head)]

    def _search(self, window: bytes, piece: bytes, *, final: bool) -> None:
        length = len(self._prefix)
        self._position += len(piece)
        start = self._position - len(window)
        # An occurrence can be judged only with the bytes after it, or when no more will come.
        decidable = len(window) - (0 if final else length + _LOOKAHEAD - 1)
        at = window.find(self._prefix, self._next - start)
        while 0 <= at < decidable:
            self._is_there = True
            after = at + length
            before = window[max(0, at - _LOOKBEHIND) : at]
            is_certain = self._bytecode or begins_path(before, shallow=self._is_shallow)
            goes_on = self._goes_on(before, window[after : after + _LOOKAHEAD])
            if goes_on or not (is_certain or not self._is_shallow or _may_begin_in_binary(before)):
                self._next = start + at + 1
            else:
                if not is_certain:
                    self._doubtful.add(start + at)
                if before.endswith(_FILE_URL):
                    self._in_url.add(start + at)
                self._offsets.append(start + at)
                self._next = start + after
            at = window.find(self._prefix, self._next - start)
        if not self._binary:
            self._binary = b"\0" in piece
        # Each occurrence lies in a C string that ends at the next NUL.
        while len(self._ends) < len(self._offsets):
            offset = self._offsets[len(self._ends)]
            if not self._ends or self._ends[-1] < offset:  # else it is in the same string as the one before
                end = window.find(b"\0", max(0, offset - start))
                if end < 0:
                    break
                self._ends.append(start + end)
            else:
                self._ends.append(self._ends[-1])
        keep = max(0, min(decidable, len(window)))
        self._next = max(self._next, start + keep)
        self._carry = window[max(0, keep - _LOOKBEHIND) :]


def find(prefix: bytes, content: bytes, *, bytecode: bool = False) -> Relocation | Opaque | None:
    """The occurrences of ``prefix`` in the whole ``content``; see :meth:`PrefixFinder.finish`."""
    if prefix not in content:
        return None
    finder = PrefixFinder(prefix, bytecode=bytecode)
    finder.feed(content)
    return finder.finish()


class RootsFinder:
    """Finds the occurrences of several needles, as :class:`PrefixFinder` does those of one."""

    def __init__(self, needles: Iterable[Needle], *, bytecode: bool) -> None:
        """``needles``: the longest first."""
        self._finders = [(needle, PrefixFinder(needle.old, bytecode=bytecode)) for needle in needles]

    def feed(self, piece: Piece) -> None:
        for _, finder in self._finders:
            finder.feed(piece)

    @property
    def is_in_archive(self) -> bool:
        """Whether the archive behind a first line names one of them."""
        return any(finder.is_in_archive for _, finder in self._finders)

    def finish(self) -> Relocation | Opaque | None:
        """All occurrences in one; the format, if that forbids to patch them; ``None`` if there are none.

        Where two overlap, as that of a tree in its project and that of the project, the longer one counts.
        """
        results = [(needle, finder, finder.finish()) for needle, finder in self._finders]
        found = [(needle, finder, result) for needle, finder, result in results if isinstance(result, Relocation)]
        if not found:
            opaque = next((result for _, _, result in results if isinstance(result, Opaque)), None)
            return opaque._replace(roots=self._roots()) if opaque is not None else None
        places = _longest((needle, result.offsets) for needle, _, result in found)
        kind = found[0][2].kind
        by_form = {needle.form: (finder, result) for needle, finder, result in found}
        if kind in ("binary", "data"):
            end_of = {
                offset: end for _, _, result in found for offset, end in zip(result.offsets, result.ends, strict=False)
            }
            ends = [end_of[offset] for offset, _ in places]
        else:
            first, needle = places[0]
            result = by_form[needle.form][1]
            ends = result.ends if result.offsets[0] == first else []
        forms = [needle.form for _, needle in places]
        if kind == "text":
            forms = [
                form + URL if is_ambiguous(needle) and by_form[form][0].is_in_url(offset) else form
                for form, (offset, needle) in zip(forms, places, strict=True)
            ]
        return Relocation(kind, [offset for offset, _ in places], ends, forms if any(forms) else ())

    def _roots(self) -> tuple[int, ...]:
        places = _longest((needle, finder.offsets) for needle, finder in self._finders)
        return tuple(sorted({needle.form // SPELLINGS for _, needle in places}))


def _longest(found: Iterable[tuple[Needle, Sequence[int]]]) -> list[tuple[int, Needle]]:
    """Occurrences that do not overlap, in order. ``found``: the offsets of each needle, the longest needle first."""
    places: list[tuple[int, Needle]] = []
    for needle, offsets in found:
        starts = [offset for offset, _ in places]
        free = []
        for offset in offsets:
            at = bisect_right(starts, offset)
            after = starts[at] if at < len(starts) else offset + len(needle.old)
            before = starts[at - 1] + len(places[at - 1][1].old) if at else 0
            if before <= offset and offset + len(needle.old) <= after:
                free.append((offset, needle))
        places = sorted(places + free)
    return places


def finder_of(needles: Sequence[Needle], content: bytes, *, bytecode: bool) -> RootsFinder:
    """One that has been fed with the whole ``content``, for those of the needles that are in there."""
    finder = RootsFinder([needle for needle in needles if needle.old in content], bytecode=bytecode)
    finder.feed(content)
    return finder
