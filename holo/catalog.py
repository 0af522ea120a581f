"""The catalog: one JSON document that describes every directory, file and symlink of an environment.

Rows are grouped by directory and every name is a single path component, so most hostile paths cannot even
be written down; what is left is checked here, completely, before anyone acts on a catalog. The rows stay
bare tuples: 22,000 of them load and validate in a few tens of milliseconds (objects take four times that).

The format is documented in docs/catalog.md; the JSON Schema in catalogs/ is generated from
:class:`CatalogDocument`.
"""

from __future__ import annotations

import base64
import binascii
import gc
import json
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from holo import digest as digests
from holo.errors import CatalogInvalid

if TYPE_CHECKING:
    from typing import Self

VERSION = 1

# A name is one component. Bytes that are not UTF-8 are written \xNN and a backslash is doubled.
Name = Annotated[str, StringConstraints(pattern=r"^[^/\x00]+$", max_length=1023)]
Path = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=1 << 20)]
Target = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$", max_length=1 << 14)]
Mode = Annotated[int, Field(ge=0, le=0o7777)]
Size = Annotated[int, Field(ge=0, lt=1 << 63)]
Nanoseconds = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

FileRow: TypeAlias = tuple[Name, Mode, Size, Nanoseconds, Digest]
"""name, mode, size in bytes, mtime in ns since 1970, digest of the content"""

SymlinkRow: TypeAlias = tuple[Name, Target, Nanoseconds]
"""name, target, mtime in ns"""

DirectoryRow: TypeAlias = tuple[Path, Mode, Nanoseconds, list[FileRow], list[SymlinkRow]]
"""path relative to the root ("" is the root itself), mode, mtime in ns, its files, its symlinks"""

Kind: TypeAlias = Literal["text", "binary", "bytecode"]

RelocationRow: TypeAlias = tuple[Path, Kind, list[Size], list[Size]]
"""path of a file, kind, offsets of the prefix in it, and ends (see :class:`Relocation`)"""


class CatalogDocument(BaseModel):
    """The JSON document as it is stored. Unknown keys are refused, numbers are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, title="holo catalog")

    version: Literal[1] = Field(description="Version of this format.")
    prefix: Path = Field(description="Absolute path at which the environment stood when it was recorded.")
    directories: list[DirectoryRow] = Field(
        min_length=1,
        description="[path, mode, mtime_ns, files, symlinks]; parents before children, the root ('') first. "
        "A file is [name, mode, size, mtime_ns, digest], a symlink is [name, target, mtime_ns].",
    )
    relocations: list[RelocationRow] = Field(
        default=[],
        description="[path, kind, offsets, ends]: where the prefix occurs in a file's content. ends: for a binary, "
        "where the C string around each offset ends; for a text with a shebang into the prefix, where that line ends.",
    )
    hardlinks: list[list[Path]] = Field(default=[], description="Groups of files that are hardlinks of each other.")
    xattrs: dict[str, dict[str, str]] = Field(
        default={}, description="Extended attributes by path: name to base64 value."
    )


class Relocation(NamedTuple):
    """Where the prefix occurs in one file."""

    kind: Kind
    offsets: list[int]
    """strictly increasing byte positions"""
    ends: list[int]
    """binary: for each offset, the position of the NUL that ends its C string (or the file's size);
    text whose first line is a shebang into the prefix: the position of that line's end, alone"""


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
    ) -> None:
        self.prefix = prefix
        self.directories = directories
        self.relocations = relocations
        self.hardlinks = hardlinks
        self.xattrs = xattrs
        self.digest = digest if digest is not None else digests.of(self.to_json())

    def files(self) -> Iterator[tuple[str, FileRow]]:
        """Every file as (path relative to the root, row)."""
        for path, _, _, files, _ in self.directories:
            base = path + "/" if path else ""
            for row in files:
                yield base + row[0], row

    @property
    def file_count(self) -> int:
        return sum(len(row[3]) for row in self.directories)

    @property
    def symlink_count(self) -> int:
        return sum(len(row[4]) for row in self.directories)

    @property
    def directory_count(self) -> int:
        """Directories below the root."""
        return len(self.directories) - 1

    @property
    def size(self) -> int:
        """Bytes of content of all files."""
        return sum(file[2] for row in self.directories for file in row[3])

    def to_json(self) -> bytes:
        """The canonical document; its BLAKE3 digest is the catalog's digest."""
        document = {
            "version": VERSION,
            "prefix": escape(self.prefix),
            "directories": [
                [
                    escape(path),
                    mode,
                    mtime,
                    [[escape(row[0]), *row[1:]] for row in files],
                    [[escape(name), escape(target), time] for name, target, time in links],
                ]
                for path, mode, mtime, files, links in self.directories
            ],
            "relocations": [[escape(path), *relocation] for path, relocation in sorted(self.relocations.items())],
            "hardlinks": [[escape(path) for path in group] for group in self.hardlinks],
            "xattrs": {
                escape(path): {name: base64.b64encode(value).decode() for name, value in sorted(values.items())}
                for path, values in sorted(self.xattrs.items())
            },
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

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
        try:
            document = CatalogDocument.model_validate_json(data)
        except ValidationError as error:
            raise CatalogInvalid(f"catalog {origin} is not valid: {_first_problem(data, error)}") from None
        try:
            return cls._from_document(document, digests.of(data))
        except _Invalid as error:
            raise CatalogInvalid(f"catalog {origin} is not valid: {error}") from None

    @classmethod
    def _from_document(cls, document: CatalogDocument, digest: str) -> Self:
        prefix = unescape(document.prefix)
        if not prefix.startswith("/") and not re.match(r"[A-Za-z]:[\\/]", prefix):
            raise _Invalid(f"the prefix {prefix!r} is not absolute")
        if prefix in ("/", "//") or os.path.normpath(prefix) != prefix:
            raise _Invalid(f"the prefix {prefix!r} is not a normal path")
        directories = _check_tree(document.directories)
        catalog = cls(prefix, directories, {}, [], {}, digest)
        if document.relocations or document.hardlinks or document.xattrs:
            rows = _Rows(directories)
            catalog.relocations = _check_relocations(document.relocations, rows, len(os.fsencode(prefix)))
            catalog.hardlinks = _check_hardlinks(document.hardlinks, rows)
            catalog.xattrs = _check_xattrs(document.xattrs, rows)
        return catalog


def json_schema() -> str:
    """The JSON Schema of the catalog format, as kept in catalogs/catalog.schema.json."""
    return json.dumps(CatalogDocument.model_json_schema(), indent=2) + "\n"


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


class _Invalid(Exception):
    """What is wrong, without the file's name."""


_RESERVED = {".", ".."}

MAX_DEPTH = 400
"""Levels of directories. One descriptor is open per level, and 1,024 is what a process may have by default."""


def _check_tree(directories: list[DirectoryRow]) -> list[DirectoryRow]:
    """Check that the rows form one tree without duplicates; decode escaped names."""
    names_of: dict[str, set[str]] = {}
    decoded: list[DirectoryRow] = []
    for row in directories:
        path, mode, mtime, files, links = row
        names = [file[0] for file in files]
        names += [link[0] for link in links]
        if "\\" in path or "\\" in "".join(names) or "\\" in "".join(link[1] for link in links):
            path = unescape(path)
            files = [(unescape(file[0]), *file[1:]) for file in files]
            links = [(unescape(name), unescape(target), time) for name, target, time in links]
            row = (path, mode, mtime, files, links)  # noqa: PLW2901
            names = [file[0] for file in files]
            names += [link[0] for link in links]
        unique = set(names)
        if len(unique) != len(names):
            raise _Invalid(f"two entries of directory {path!r} have the same name")
        if not unique.isdisjoint(_RESERVED):
            raise _Invalid(f"directory {path!r} has an entry named '.' or '..'")
        if names_of:
            parent, _, name = path.rpartition("/")
            siblings = names_of.get(parent)
            if siblings is None or not name or name in _RESERVED or path[0] == "/":
                raise _Invalid(f"directory {path!r} is not below a directory listed before it")
            if path.count("/") >= MAX_DEPTH:
                raise _Invalid(f"its directories are more than {MAX_DEPTH} levels deep")
            if name in siblings:
                raise _Invalid(f"there are two entries at {path!r}")
            siblings.add(name)
        elif path:
            raise _Invalid("the first directory is not the root")
        names_of[path] = unique
        decoded.append(row)
    return decoded


class _Rows:
    """Finds the rows of a few paths without an index of all of them."""

    def __init__(self, directories: list[DirectoryRow]) -> None:
        self._directories = {row[0]: row for row in directories}

    def file(self, path: str) -> FileRow:
        parent, _, name = path.rpartition("/")
        directory = self._directories.get(parent)
        if directory is not None and name:
            for row in directory[3]:
                if row[0] == name:
                    return row
        raise _Invalid(f"{path!r} is not a file of this catalog")

    def has(self, path: str) -> bool:
        if path in self._directories:
            return True
        self.file(path)
        return True


def _check_relocations(rows: list[RelocationRow], tree: _Rows, length: int) -> dict[str, Relocation]:
    relocations: dict[str, Relocation] = {}
    for escaped, kind, offsets, ends in rows:
        path = unescape(escaped)
        if path in relocations:
            raise _Invalid(f"{path!r} is relocated twice")
        size = tree.file(path)[2]
        if not offsets:
            raise _Invalid(f"{path!r} is relocated without an offset")
        after = 0
        for offset in offsets:
            if offset < after:
                raise _Invalid(f"the offsets of {path!r} overlap or are out of order")
            after = offset + length
        if after > size:
            raise _Invalid(f"an offset of {path!r} is outside the file")
        if kind == "binary":
            _check_string_ends(path, offsets, ends, length, size)
        elif ends and (kind != "text" or len(ends) > 1 or offsets[0] != 2 or not 2 + length <= ends[0] <= size):
            raise _Invalid(f"the shebang of {path!r} is not possible")
        relocations[path] = Relocation(kind, offsets, ends)
    return relocations


def _check_string_ends(path: str, offsets: list[int], ends: list[int], length: int, size: int) -> None:
    if len(ends) != len(offsets):
        raise _Invalid(f"{path!r} has {len(ends)} string ends for {len(offsets)} offsets")
    previous = 0
    for offset, end in zip(offsets, ends, strict=True):
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


def _check_xattrs(table: dict[str, dict[str, str]], tree: _Rows) -> dict[str, dict[str, bytes]]:
    decoded: dict[str, dict[str, bytes]] = {}
    for escaped, values in table.items():
        path = unescape(escaped)
        tree.has(path)
        for name in values:
            if name != "security.capability" and not re.fullmatch(r"user\.[^\x00]{1,250}", name, re.DOTALL):
                raise _Invalid(f"{path!r} has an extended attribute {name!r}, which holo does not restore")
        try:
            decoded[path] = {name: base64.b64decode(text, validate=True) for name, text in values.items()}
        except (binascii.Error, ValueError):
            raise _Invalid(f"an extended attribute of {path!r} is not base64") from None
    return decoded


def _first_problem(data: bytes, error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] != "json_invalid":
        version = _version(data)
        if version != VERSION:
            return f"its version is {version!r}, and this holo reads version {VERSION}"
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _version(data: bytes) -> Any:
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document.get("version") if isinstance(document, dict) else None
