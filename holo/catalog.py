"""The catalog: one JSON document that describes every directory, file and symlink of an environment.

Rows are grouped by directory and every name is a single path component, so most hostile paths cannot even
be written down; what is left is checked here, completely, before anyone acts on a catalog. The rows stay
bare tuples: 22,000 of them load and validate in a few tens of milliseconds (objects take four times that).

The form of the document is defined by the pydantic model in :mod:`holo.catalog_model` and documented in
docs/catalog.md.
"""

from __future__ import annotations

import binascii
import codecs
import gc
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from holo import digest as digests
from holo.errors import CatalogInvalid
from holo.spellings import SPELLINGS, spellings

if TYPE_CHECKING:
    from typing import Self

    from holo.catalog_model import Kind

VERSION = 2
"""The newest form. A catalog that needs nothing of it keeps version 1, and so its digest."""

Document: TypeAlias = dict[str, Any]
"""A parsed catalog document whose form is as :mod:`holo.catalog_model` defines it."""

FileRow: TypeAlias = tuple[str, int, int, int, str]
"""name, mode, size in bytes, mtime in ns since 1970, digest of the content"""

SymlinkRow: TypeAlias = tuple[str, str, int]
"""name, target, mtime in ns"""

DirectoryRow: TypeAlias = tuple[str, int, int, list[FileRow], list[SymlinkRow]]
"""path relative to the root ("" is the root itself), mode, mtime in ns, its files, its symlinks"""


class Relocation(NamedTuple):
    """Where the roots occur in one file."""

    kind: Kind
    offsets: list[int]
    """strictly increasing byte positions; none for bytecode, whose header is what changes, nor where nothing can"""
    ends: list[int]
    """binary and data: for each offset, the position of the NUL that ends its C string (or the file's size);
    text and zipapp whose first line is a shebang into a root: the position of that line's end, alone"""
    forms: Sequence[int] = ()
    """for each offset, which root is there and how it is spelled (:mod:`holo.relocation.roots`); empty if all are the
    prefix as it is"""


BYTECODE_HEADER = 16
"""Bytes at the beginning of a ``.pyc``: PEP 552."""


class Totals(NamedTuple):
    """How much a catalog describes."""

    files: int
    directories: int
    """below the root"""
    symlinks: int
    bytes: int
    """of content of all files"""


class Catalog:
    """A validated catalog. Names and paths are as the operating system has them (surrogateescape)."""

    def __init__(
        self,
        prefix: str,
        directories: list[DirectoryRow],
        relocations: dict[str, Relocation],
        hardlinks: list[list[str]],
        xattrs: dict[str, dict[str, bytes]],
        digest: str | None = None,
        project: str = "",
    ) -> None:
        """``project``: the root of the project that the tree belongs to, if anything in it names that."""
        self.prefix = prefix
        self.project = project
        self.directories = directories
        self.relocations = relocations
        self.hardlinks = hardlinks
        self.xattrs = xattrs
        self._document: bytes | None = None
        self._is_checked = False
        self.digest = digest if digest is not None else digests.of(self.to_json())

    @property
    def version(self) -> int:
        """The oldest form that can hold it."""
        return 2 if self.project or any(relocation.forms for relocation in self.relocations.values()) else 1

    def files(self) -> Iterator[tuple[str, FileRow]]:
        """Every file as (path relative to the root, row)."""
        for path, _, _, files, _ in self.directories:
            base = path + "/" if path else ""
            for row in files:
                yield base + row[0], row

    @cached_property
    def totals(self) -> Totals:
        rows = self.directories
        return Totals(
            files=sum(len(row[3]) for row in rows),
            directories=len(rows) - 1,
            symlinks=sum(len(row[4]) for row in rows),
            bytes=sum(file[2] for row in rows for file in row[3]),
        )

    def privileged(self) -> str | None:
        """A path, if there is one, that gives rights to whoever runs or uses it: by setuid, setgid or capabilities."""
        for path, mode, _, files, _ in self.directories:
            for name, rights in ((None, mode), *((row[0], row[1]) for row in files)):
                if rights & 0o6000:
                    return "/".join(part for part in (path, name) if part) or "."
        return next((path for path, values in self.xattrs.items() if "security.capability" in values), None)

    def check(self) -> None:
        """Hold a catalog that was put together in memory to the rules that :meth:`from_json` has.

        It applies them to the rows, because the way through JSON and back takes four times as long. Raises
        :class:`CatalogInvalid` naming the path that breaks a rule.
        """
        if self._is_checked:
            return
        try:
            _check_prefix(self.prefix)
            _check_project(self.project)
            _check_rows(self.prefix, self.directories)
            _check_tree(self.directories, escaped=False)
            additions = self._additions()
            if not _are_additions(additions, self.version):
                raise _Invalid("an offset, a hardlink or an extended attribute has not the form that it must have")
            Catalog(self.prefix, self.directories, {}, [], {}, self.digest, self.project)._take(additions)
        except _Invalid as error:
            raise CatalogInvalid(f"{self.prefix} does not fit into a catalog: {error.what}", error.hint) from None

    def to_json(self) -> bytes:
        """The canonical document; its BLAKE3 digest is the catalog's digest."""
        if self._document is None:
            self._document = self._to_json()
        return self._document

    def _to_json(self) -> bytes:
        # Some directories at a time: the encoder makes a text of each number, and a million rows have many.
        encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
        head = {"version": self.version, "prefix": escape(self.prefix)}
        if self.version > 1:
            head["project"] = escape(self.project)
        document = BytesIO()
        document.write(f'{encode(head)[:-1]},"directories":['.encode())
        for number, part in enumerate(_parts(self.directories)):
            document.write(b"," * (number > 0) + encode(_escaped(part))[1:-1].encode())
        document.write(f"],{encode(self._additions())[1:]}".encode())
        return document.getvalue()

    def _additions(self) -> Document:
        """What only a few files have, as it stands in the document."""
        is_plain = self.version == 1
        return {
            "relocations": [
                [escape(path), kind, offsets, ends] if is_plain else [escape(path), kind, offsets, ends, [*forms]]
                for path, (kind, offsets, ends, forms) in sorted(self.relocations.items())
            ],
            "hardlinks": [[escape(path) for path in group] for group in self.hardlinks],
            "xattrs": {
                escape(path): {escape(name): _base64(value) for name, value in sorted(values.items())}
                for path, values in sorted(self.xattrs.items())
            },
        }

    @classmethod
    def from_json(cls, data: bytes, origin: str) -> Self:
        """Parse and validate completely. Raises :class:`CatalogInvalid` naming ``origin`` (a path)."""
        # Hundreds of thousands of rows that all stay: looking for garbage among them only costs time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return cls._from_json(data, origin)
        finally:
            if collecting:
                gc.enable()

    @classmethod
    def _from_json(cls, data: bytes, origin: str) -> Self:
        document = parse_quickly(data)
        if document is None:
            from holo.catalog_model import parse  # pydantic takes longer to import than this all takes

            document = parse(data, origin)
        try:
            return cls._from_document(document, digests.of(data), escaped=b"\\" in data)
        except _Invalid as error:
            raise CatalogInvalid(f"catalog {origin} is not valid: {error.what}") from None

    @classmethod
    def _from_document(cls, document: Document, digest: str, *, escaped: bool) -> Self:
        prefix = unescape(document["prefix"])
        _check_prefix(prefix)
        project = unescape(document.get("project", ""))
        _check_project(project)
        directories = _check_tree(document["directories"], escaped=escaped)
        catalog = cls(prefix, directories, {}, [], {}, digest, project)
        catalog._take(document)
        if catalog.version != document["version"]:
            raise _Invalid("it is of version 2 and has nothing that version 1 has not")
        catalog._is_checked = True
        return catalog

    def _lengths(self) -> list[int]:
        """The length of each form."""
        return [len(form) for root in (self.prefix, self.project) if root for form in spellings(root)]

    def _take(self, document: Document) -> None:
        """Check and keep what only a few files have."""
        relocations, hardlinks, xattrs = (document.get(key) for key in ("relocations", "hardlinks", "xattrs"))
        if relocations or hardlinks or xattrs:
            rows = _Rows(self.directories)
            self.relocations = _check_relocations(relocations or [], rows, self._lengths())
            self.hardlinks = _check_hardlinks(hardlinks or [], rows)
            self.xattrs = _check_xattrs(xattrs or {}, rows)
            _check_one_inode(self)


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def escape(text: str) -> str:
    r"""A name as it stands in JSON: bytes that are not UTF-8 become ``\xNN``, a backslash is doubled."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
    return text


_PART = 200
"""Directories that are written or checked at a time."""


def _parts(directories: list[DirectoryRow]) -> Iterator[list[DirectoryRow]]:
    return (directories[start : start + _PART] for start in range(0, len(directories), _PART))


def _escaped(directories: list[DirectoryRow]) -> Sequence[Any]:
    """Directories as they stand in the document. In most of them no name has to be escaped."""
    texts = []
    for path, _, _, files, links in directories:
        texts += [path, *[row[0] for row in files]]
        for name, target, _ in links:
            texts += [name, target]
    text = "/".join(texts)
    if escape(text) == text:
        return directories  # JSON has a tuple as a list
    return [
        [
            escape(path),
            mode,
            mtime,
            [[escape(row[0]), *row[1:]] for row in files],
            [[escape(name), escape(target), time] for name, target, time in links],
        ]
        for path, mode, mtime, files, links in directories
    ]


def unescape(text: str) -> str:
    r"""The inverse of :func:`escape`. Only ``\\`` and ``\x80`` to ``\xff`` are accepted."""
    if "\\" not in text:
        return text
    if re.fullmatch(r"(?:[^\\]|\\\\|\\x[89a-f][0-9a-f])*", text, re.DOTALL) is None:
        raise _Invalid(f"the name {text!r} has a malformed escape")
    plain = re.sub(r"\\(?:\\|x(..))", lambda match: chr(0xDC00 + int(match[1], 16)) if match[1] else "\\", text)
    # Escapes that together form UTF-8 would be a second spelling of the same name.
    if escape(os.fsdecode(os.fsencode(plain))) != text:
        raise _Invalid(f"the name {text!r} is escaped without need")
    return plain


def parse_quickly(data: bytes) -> Document | None:
    """The parsed document if its form is right, as :mod:`holo.catalog_model` defines it; ``None`` if in doubt.

    Whole columns are checked at a time, which takes a third of the time of the model's parser. Doubt is the
    model's to resolve, and an error its to explain.
    """
    if re.search(rb"\\u[dD][89a-fA-F]", data):
        return None  # half a character, perhaps, which json.loads lets pass
    try:
        document = _parse_in_parts(data)
        if document is None:
            document = json.loads(data.decode(), object_pairs_hook=unique)
            if type(document) is dict and "directories" in document:
                document["directories"] = _rows_of(document["directories"], {})
    except (ValueError, RecursionError):
        return None
    return document if _is_document(document) else None


_HEAD = (
    rb'\{"version":(\d+),"prefix":"[^"\\]*+(?:\\.[^"\\]*+)*+"'
    rb'(?:,"project":"[^"\\]*+(?:\\.[^"\\]*+)*+")?,"directories":\['
)
"""A pattern. Few commands read a whole catalog, so it is compiled where one does."""
_WINDOW = 1 << 20
"""Bytes of a document that are parsed at a time. A directory that takes more is parsed at once all the same."""


def _parse_in_parts(data: bytes) -> Document | None:
    """The document, if :meth:`Catalog.to_json` made it. Raises :class:`ValueError` if its form is wrong.

    What JSON has for a million rows takes twice the memory of the rows, so that is never there as a whole.
    """
    head = re.match(_HEAD, data)
    if head is None:
        return None
    decoder = json.JSONDecoder(object_pairs_hook=unique)
    directories: list[DirectoryRow] = []
    same: dict[int, int] = {}
    begin = head.end()
    window, is_last = _WINDOW, False
    while not is_last:
        text, _ = codecs.utf_8_decode(data[begin : begin + window], "strict", False)
        rows: list[Any] = []
        done = 0
        with suppress(ValueError):  # the window ends within a row, or the row is wrong
            while not is_last:
                row, end = decoder.raw_decode(text, done)
                if text[end : end + 1] not in (",", "]"):
                    break
                rows.append(row)
                done, is_last = end + 1, text[end] == "]"
        if rows:
            directories += _rows_of(rows, same)
            begin += done if text.isascii() else len(text[:done].encode())
            window = _WINDOW
        elif begin + window < len(data):
            window *= 2
        else:
            raise ValueError("a directory is not JSON")
    document: Document = json.loads((data[: head.end()] + data[begin - 1 :]).decode(), object_pairs_hook=unique)
    document["directories"] = directories
    return document


def _rows_of(rows: Any, same: dict[int, int]) -> list[DirectoryRow]:
    """Rows as tuples, for JSON has lists only. Equal modes and sizes become the ``same`` number, which saves memory.

    Raises :class:`ValueError` if their form is wrong.
    """
    if not _are_directories(rows, list):
        raise ValueError("a directory has not the form that it must have")
    columns: list[Iterable[Any]] = [*zip(*chain.from_iterable(row[3] for row in rows), strict=True)]
    for numbers in columns[1:3]:
        for number in {*numbers}:
            same.setdefault(number, number)
    columns[1:3] = (map(same.__getitem__, numbers) for numbers in columns[1:3])
    files = zip(*columns, strict=True)
    return [
        (path, mode, time, [*islice(files, len(lists))], [*map(tuple, links)])
        for path, mode, time, lists, links in rows
    ]


# The quote of the first name either begins it, or ends the string before it. In the second case one of the characters
# that may follow a string begins what is taken for the name.
_NEXT_DIRECTORY = rb']],\["([^"\\]*+(?:\\.[^"\\]*+)*+)",(\d++),(-?\d++),\['
_ROOT = rb'"directories":\[\["",(\d++),(-?\d++),\['
_AFTER_STRING = (b",", b"]", b"}", b":")


def directories_in(data: bytes) -> list[tuple[str, int, int]]:
    """The path, the mode and the mtime in ns of each directory of a document that :meth:`Catalog.to_json` made.

    The files are passed over, so it takes a fifth of the time of parsing all of it.
    """
    root = re.search(_ROOT, data)
    rows = [(b"", *root.groups()), *re.findall(_NEXT_DIRECTORY, data)] if root is not None else []
    if not rows or any(path.startswith(_AFTER_STRING) for path, _, _ in rows):  # not canonical, or in doubt
        return [(unescape(path), mode, time) for path, mode, time, _, _ in json.loads(data)["directories"]]
    decode = _decoded if b"\\" in data else bytes.decode
    return [(decode(path), int(mode), int(time)) for path, mode, time in rows]


_CONTENT = rb'"(?:,(\d++),(\d++),(-?\d++),")?+([0-9a-f]{64})"(\])?'
"""The end of the row of a file: what is between the quotes of its name and its digest, and the digest."""


class Contents(NamedTuple):
    """The contents of some files, each a column."""

    digests: Sequence[str]
    modes: Iterable[int]
    sizes: Iterable[int]
    """in bytes"""
    mtimes: Iterable[int]
    """in ns"""


def contents_in(data: bytes) -> Iterator[Contents]:
    """The contents of all files of a document that :meth:`Catalog.to_json` made, in parts.

    It takes a fifth of the time of parsing it. Raises :class:`ValueError` when it is not certain that those are all and
    no others: in no document is a digest passed over.
    """
    head, contents = re.match(_HEAD, data), re.compile(_CONTENT)
    if head is None or b"\\u" in data or not 1 <= int(head[1]) <= VERSION:  # it may spell digests in another way
        raise ValueError("it is not canonical, or of a newer version")
    begin, between = 0, b"]],["
    while begin < len(data):
        # A row does not contain what stands between directories, and in a name that stands in no row's end.
        end = data.find(between, begin + _WINDOW) + len(between)
        end = end if end >= len(between) else len(data)
        if rows := contents.findall(data, begin, end):
            modes, sizes, mtimes, digests_, ends = zip(*rows, strict=True)
            if not all(modes) or not all(ends):
                raise ValueError("a name looks like a digest")
            yield Contents([*map(bytes.decode, digests_)], map(int, modes), map(int, sizes), map(int, mtimes))
        begin = end


def _decoded(text: bytes) -> str:
    """A name or a path as it stands between the quotes of a document."""
    return unescape(json.loads(b'"%b"' % text)) if b"\\" in text else text.decode()


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for ``object_pairs_hook``. Raises :class:`ValueError` if a key stands twice in it."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return table


def _is_document(document: Document) -> bool:
    """Whether the form of all but its directories is right."""
    if type(document) is not dict or not _REQUIRED <= document.keys() <= _KEYS:
        return False
    version = document["version"]
    return (
        type(version) is int
        and 1 <= version <= VERSION
        and ("project" in document) is (version > 1)
        and _texts([document["prefix"], document.get("project", "")], _LONG)
        and _are_additions(document, version)
    )


_KINDS = ("text", "binary", "data", "bytecode", "zipapp", "opaque")
_REQUIRED = {"version", "prefix", "directories"}
_KEYS = _REQUIRED | {"project", "relocations", "hardlinks", "xattrs"}
_LONG = 1 << 20
_HUGE = 1 << 63
_SHOWN = 300
"""Characters of an explanation: names in it may be long."""


def _are_directories(rows: Any, row_type: type) -> bool:
    """``row_type``: ``list`` as JSON has them, ``tuple`` in memory."""
    if not rows or not _are_rows(rows, row_type, 5):
        return False
    paths, modes, times, files_of, links_of = zip(*rows, strict=True)
    if not (_texts(paths, _LONG) and _numbers(modes, 0, 0o7777) and _numbers(times, -_HUGE, _HUGE - 1)):
        return False
    if not _lists(files_of) or not _lists(links_of):
        return False
    files, links = ([*chain.from_iterable(lists)] for lists in (files_of, links_of))
    return _are_files(files, row_type) and _are_symlinks(links, row_type)


def _are_additions(document: Document, version: int) -> bool:
    return (
        _are_relocations(document.get("relocations", []), 5 if version > 1 else 4)
        and _lists([groups := document.get("hardlinks", [])])
        and _lists(groups)
        and _texts([*chain.from_iterable(groups)], _LONG)
        and _are_xattrs(document.get("xattrs", {}))
    )


def _are_files(rows: list[Any], row_type: type) -> bool:
    if not rows:
        return True
    if not _are_rows(rows, row_type, 5):
        return False
    names, modes, sizes, times, digests_ = zip(*rows, strict=True)
    return (
        _names(names)
        and _numbers(modes, 0, 0o7777)
        and _numbers(sizes, 0, _HUGE - 1)
        and _numbers(times, -_HUGE, _HUGE - 1)
        and set(map(type, digests_)) == {str}
        and set(map(len, digests_)) == {digests.HEX_LENGTH}
        and _is_hex("".join(digests_))
    )


def _is_hex(text: str) -> bool:
    """Whether ``text`` is lower-case hex and nothing else; a regular expression takes four times as long."""
    return text.isascii() and not text.encode().translate(None, b"0123456789abcdef")


def _are_symlinks(rows: list[Any], row_type: type) -> bool:
    if not rows:
        return True
    if not _are_rows(rows, row_type, 3):
        return False
    names, targets, times = zip(*rows, strict=True)
    return _names(names) and _texts(targets, 1 << 14) and all(targets) and _numbers(times, -_HUGE, _HUGE - 1)


def _are_relocations(rows: Any, columns: int) -> bool:
    if not rows:
        return type(rows) is list
    if not _are_rows(rows, list, columns):
        return False
    paths, kinds, *numbers = zip(*rows, strict=True)
    return (
        _texts(paths, _LONG)
        and _texts(kinds, 8)
        and {*kinds} <= ({*_KINDS} if columns > 4 else {*_KINDS} - {"opaque"})
        and all(map(_lists, numbers))
        and _numbers([*chain.from_iterable(chain.from_iterable(numbers))], 0, _HUGE - 1)
        and (columns == 4 or _numbers([*chain.from_iterable(numbers[2])], 0, 2 * SPELLINGS - 1))
    )


def _are_xattrs(table: Any) -> bool:
    return type(table) is dict and all(
        type(values) is dict and all(type(value) is str for value in values.values()) for values in table.values()
    )


def _lists(values: Sequence[Any]) -> bool:
    return set(map(type, values)) <= {list}


def _are_rows(rows: Any, row_type: type, length: int) -> bool:
    return type(rows) is list and set(map(type, rows)) <= {row_type} and set(map(len, rows)) <= {length}


def _texts(values: Sequence[Any], longest: int) -> bool:
    return (
        set(map(type, values)) <= {str} and "\0" not in "".join(values) and max(map(len, values), default=0) <= longest
    )


def _names(values: Sequence[Any]) -> bool:
    if set(map(type, values)) != {str} or not all(values) or max(map(len, values)) > 1023:
        return False
    text = "".join(values)
    return "/" not in text and "\0" not in text


def _numbers(values: Sequence[Any], least: int, most: int) -> bool:
    return set(map(type, values)) <= {int} and (not values or (min(values) >= least and max(values) <= most))


class _Invalid(Exception):
    """What is wrong, without the file's name."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what if len(what) <= _SHOWN else what[:_SHOWN] + "..."
        self.hint = hint


_RESERVED = {".", ".."}

LONGEST_NAME = 255
"""Bytes of a name: NAME_MAX of Linux and macOS."""

LONGEST_TARGET = 4095
"""Bytes of a symlink's target, or a root: PATH_MAX of Linux, less its NUL."""

MAX_DEPTH = 400
"""Levels of directories. One descriptor is open per level, and 1,024 is what a process may have by default."""


def _check_prefix(prefix: str) -> None:
    if not prefix.startswith("/") and not re.match(r"[A-Za-z]:[\\/]", prefix):
        raise _Invalid(f"the prefix {prefix!r} is not absolute")
    if prefix == "/" or prefix.startswith("//") or os.path.normpath(prefix) != prefix:
        raise _Invalid(f"the prefix {prefix!r} is not a normal path")
    _check_lengths((prefix,), LONGEST_TARGET)


def _check_project(project: str) -> None:
    if project:
        try:
            _check_prefix(project)
        except _Invalid as error:
            raise _Invalid(error.what.replace("the prefix", "the project", 1)) from None


def _check_rows(prefix: str, directories: list[DirectoryRow]) -> None:
    """Check the form of rows in memory, and name the first one that does not have it."""
    if directories and all(_are_directories(part, tuple) for part in _parts(directories)):
        return
    from shlex import quote

    for path, mode, time, files, links in directories:
        base = path + "/" if path else ""
        found = [(path or ".", time, _are_directories([(path, mode, time, [], [])], tuple))]
        found += [(base + file[0], file[3], _are_files([file], tuple)) for file in files]
        found += [(base + link[0], link[2], _are_symlinks([link], tuple)) for link in links]
        for name, changed, fits in found:
            if not -_HUGE <= changed < _HUGE:
                raise _Invalid(
                    f"{name!r} has a modification time outside of the years 1678 to 2261",
                    f"Give it another one: touch -h {quote(os.path.join(prefix, name))}",
                )
            if not fits:
                raise _Invalid(f"{name!r} has a name, a target, a mode or a size that cannot be kept")
    raise _Invalid("it has no directory")


def _check_tree(directories: list[DirectoryRow], *, escaped: bool) -> list[DirectoryRow]:
    """Check that the rows form one tree without duplicates; decode names if any is ``escaped``."""
    if escaped:
        directories = [_unescape_row(row) for row in directories]
    names_of: dict[str, set[str] | int] = {}  # a number of the row until there is a directory in it
    for index, (path, _, _, files, links) in enumerate(directories):
        names = _names_in(files, links)
        unique = set(names)
        if len(unique) != len(names):
            raise _Invalid(f"two entries of directory {path!r} have the same name")
        if not unique.isdisjoint(_RESERVED):
            raise _Invalid(f"directory {path!r} has an entry named '.' or '..'")
        if links:
            _check_lengths((row[1] for row in links), LONGEST_TARGET)
        if index:
            parent, _, name = path.rpartition("/")
            siblings = names_of.get(parent)
            if siblings is None or not name or name in _RESERVED or path[0] == "/":
                raise _Invalid(f"directory {path!r} is not below a directory listed before it")
            if path.count("/") >= MAX_DEPTH:
                raise _Invalid(f"its directories are more than {MAX_DEPTH} levels deep")
            if isinstance(siblings, int):
                siblings = names_of[parent] = {*_names_in(*directories[siblings][3:])}
            if name in siblings:
                raise _Invalid(f"there are two entries at {path!r}")
            siblings.add(name)
            names.append(name)
        elif path:
            raise _Invalid("the first directory is not the root")
        _check_lengths(names, LONGEST_NAME)
        names_of[path] = index
    _check_sizes([file for row in directories for file in row[3]])
    return directories


def _names_in(files: list[FileRow], links: list[SymlinkRow]) -> list[str]:
    return [row[0] for row in files] + [row[0] for row in links]


def _check_sizes(files: list[FileRow]) -> None:
    """One digest, one size; and only nothing has the digest of nothing."""
    names = [row[4] for row in files]
    sizes = [row[2] for row in files]
    size_of = dict(zip(names, sizes, strict=True))
    if [*map(size_of.__getitem__, names)] != sizes:
        raise _Invalid("files of the same digest have different sizes")
    if size_of.get(digests.EMPTY, 0) or sizes.count(0) != names.count(digests.EMPTY):
        raise _Invalid("the digest of nothing and the size 0 do not go together")


def _check_lengths(texts: Iterable[str], most: int) -> None:
    for text in texts:
        # A character is at most four bytes, so of most texts the number of characters tells enough.
        if len(text) > most // 4 and len(os.fsencode(text)) > most:
            raise _Invalid(f"{text[:40]!r}... is longer than {most} bytes")


def _unescape_row(row: DirectoryRow) -> DirectoryRow:
    path, mode, time, files, links = row
    return (
        unescape(path),
        mode,
        time,
        [(unescape(file[0]), *file[1:]) for file in files],
        [(unescape(link[0]), unescape(link[1]), link[2]) for link in links],
    )


class _Rows:
    """Finds the rows of a few paths without an index of all of them."""

    def __init__(self, directories: list[DirectoryRow]) -> None:
        self._directories = {row[0]: row for row in directories}
        self._files: dict[str, dict[str, FileRow]] = {}

    def file(self, path: str) -> FileRow:
        parent, slash, name = path.rpartition("/")
        directory = self._directories.get(parent)
        if directory is not None and (parent or not slash):
            if parent not in self._files:
                self._files[parent] = {row[0]: row for row in directory[3]}
            row = self._files[parent].get(name)
            if row is not None:
                return row
        raise _Invalid(f"{path!r} is not a file of this catalog")

    def has(self, path: str) -> bool:
        if path in self._directories:
            return True
        self.file(path)
        return True


def _check_relocations(rows: list[list[Any]], tree: _Rows, lengths: Sequence[int]) -> dict[str, Relocation]:
    """``lengths``: of each form."""
    relocations: dict[str, Relocation] = {}
    for escaped, kind, offsets, ends, *rest in rows:
        path = unescape(escaped)
        forms = rest[0] if rest else []
        if path in relocations:
            raise _Invalid(f"{path!r} is relocated twice")
        size = tree.file(path)[2]
        if bool(offsets) is (kind in ("bytecode", "opaque")):
            raise _Invalid(f"{path!r} is relocated without an offset, or is bytecode with one")
        if kind == "bytecode" and size < BYTECODE_HEADER:
            raise _Invalid(f"{path!r} is too short for bytecode")
        _check_forms(path, kind, offsets, forms, len(lengths))
        if kind == "opaque" and ends:
            raise _Invalid(f"{path!r} cannot be relocated, and has an end")
        sizes = [lengths[form] for form in forms] if forms else [lengths[0]] * len(offsets)
        after = 0
        for offset, length in zip(offsets, sizes, strict=kind != "opaque"):
            if offset < after:
                raise _Invalid(f"the offsets of {path!r} overlap or are out of order")
            after = offset + length
        if after > size:
            raise _Invalid(f"an offset of {path!r} is outside the file")
        if kind in ("binary", "data"):
            _check_string_ends(path, offsets, ends, sizes, size)
        elif ends:
            _check_shebang(path, kind, offsets, ends, sizes, size)
        relocations[path] = Relocation(kind, offsets, ends, forms or ())
    return relocations


def _check_forms(path: str, kind: Kind, offsets: list[int], forms: list[int], known: int) -> None:
    """Whether each form is known and used: those of a file that cannot be patched name the project."""
    if kind == "opaque":
        is_right = bool(forms) and min(forms) >= SPELLINGS and forms == sorted({*forms})
    else:
        is_right = not forms or (len(forms) == len(offsets) and any(forms))
    if not is_right or max(forms, default=0) >= known:
        raise _Invalid(f"the forms of {path!r} do not fit its offsets, or a root that is not there")


def _check_shebang(path: str, kind: Kind, offsets: list[int], ends: list[int], sizes: list[int], size: int) -> None:
    possible = kind in ("text", "zipapp") and len(ends) == 1
    possible = possible and 2 <= offsets[0] <= ends[0] - sizes[0] <= size - sizes[0]
    if not possible or any(at < ends[0] < at + length for at, length in zip(offsets, sizes, strict=True)):
        raise _Invalid(f"the shebang of {path!r} is not possible")


def _check_string_ends(path: str, offsets: list[int], ends: list[int], sizes: list[int], size: int) -> None:
    if len(ends) != len(offsets):
        raise _Invalid(f"{path!r} has {len(ends)} string ends for {len(offsets)} offsets")
    previous = 0
    for offset, end, length in zip(offsets, ends, sizes, strict=True):
        if not offset + length <= end <= size or (offset < previous and end != previous):
            raise _Invalid(f"a string end of {path!r} is not possible")
        previous = end


def _check_hardlinks(groups: list[list[str]], tree: _Rows) -> list[list[str]]:
    seen: set[str] = set()
    decoded: list[list[str]] = []
    for escaped in groups:
        group = [unescape(path) for path in escaped]
        if len(group) < 2 or len(set(group)) != len(group) or not seen.isdisjoint(group):
            raise _Invalid(f"the hardlink group of {group[:1]!r} is too small or names a file twice")
        seen.update(group)
        if len({tree.file(path)[1:] for path in group}) != 1:
            raise _Invalid(f"the hardlinks {group!r} differ in content, mode or time")
        decoded.append(group)
    return decoded


def _check_one_inode(catalog: Catalog) -> None:
    """Hardlinks are one file, so what is patched in it and its extended attributes are the same."""
    for group in catalog.hardlinks:
        for table in (catalog.relocations, catalog.xattrs):
            if any(table.get(path) != table.get(group[0]) for path in group):
                raise _Invalid(f"the hardlinks {group!r} differ in relocation or extended attributes")


def _check_xattrs(table: dict[str, dict[str, str]], tree: _Rows) -> dict[str, dict[str, bytes]]:
    decoded: dict[str, dict[str, bytes]] = {}
    for escaped, values in table.items():
        path = unescape(escaped)
        tree.has(path)
        named = {unescape(name): text for name, text in values.items()}
        for name in named:
            known = name == "security.capability" or (name.startswith("user.") and len(name) > 5)
            if not known or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
                raise _Invalid(f"{path!r} has an extended attribute {name!r}, which holo does not restore")
        try:
            decoded[path] = {name: binascii.a2b_base64(text, strict_mode=True) for name, text in named.items()}
        except (binascii.Error, ValueError):
            raise _Invalid(f"an extended attribute of {path!r} is not base64") from None
    return decoded
