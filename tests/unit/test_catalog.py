"""Catalogs: what is written is what is read, whatever the names are made of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holo import digest as digests
from holo.catalog import (
    Catalog,
    DirectoryRow,
    Document,
    FileRow,
    Relocation,
    SymlinkRow,
    _Invalid,
    contents_in,
    directories_in,
    escape,
    parse_quickly,
    unescape,
)
from holo.catalog_model import Kind, json_schema
from holo.errors import CatalogInvalid
from holo.spellings import spellings

# Bytes that are their own kind of trouble, and any others.
ODD = [b"\\", b"\\x80", b"\xff", b"\xc3\xa9", b"\xc3", b"\xed\xb2\x80", b"\xf0\x9f\x90\x8d", b"\n", b'"', b" ", b"..."]
NAMES = (
    st.lists(st.one_of(st.sampled_from(ODD), st.binary(min_size=1, max_size=3)), min_size=1, max_size=5)
    .map(lambda parts: b"".join(parts).replace(b"/", b"").replace(b"\0", b""))
    .filter(lambda name: name not in (b"", b".", b".."))
    .map(os.fsdecode)
)
TIMES = st.integers(-(2**63), 2**63 - 1)
MODES = st.integers(0, 0o7777)
XATTR_NAMES = st.one_of(st.just("security.capability"), NAMES.map(lambda name: "user." + name))


@given(st.binary(max_size=40))
@example(b"\\x80")
@example(b"\\\\x80\xff\\")
@example(b"\xc3\\xa9")
@example(b"\xed\xb2\x80")
@settings(max_examples=500, deadline=None)
def test_any_bytes_survive_escaping(name: bytes) -> None:
    text = os.fsdecode(name)
    escaped = escape(text)
    escaped.encode()  # what JSON can hold
    assert unescape(escaped) == text
    assert os.fsencode(unescape(escaped)) == name


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@settings(max_examples=300, deadline=None)
def test_utf_8_is_readable_in_the_catalog(name: str) -> None:
    assert escape(name) == name.replace("\\", "\\\\")


@given(st.lists(st.sampled_from(["\\", "\\\\", "x80", "xc3", "xa9", "\\x80", "\\xc3", "\\xa9", "\\xff", "é", "a"])))
@settings(max_examples=300, deadline=None)
def test_a_name_has_one_spelling(parts: list[str]) -> None:
    """What can be read at all is what would be written."""
    text = "".join(parts)
    try:
        plain = unescape(text)
    except _Invalid:
        return
    assert escape(plain) == text


def constructed(known: Catalog) -> Catalog:
    """The same, made anew of its parts."""
    parts = known.prefix, known.directories, known.relocations, known.hardlinks, known.xattrs
    return Catalog(*parts, project=known.project)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    prefix = "/" + "/".join(draw(st.lists(NAMES, min_size=1, max_size=3)))
    length = len(os.fsencode(prefix))
    paths = [""]
    for _ in range(draw(st.integers(0, 4))):
        parent = draw(st.sampled_from(paths))
        path = f"{parent}/{draw(NAMES)}" if parent else draw(NAMES)
        if path not in paths:
            paths.append(path)
    directories = []
    relocations: dict[str, Relocation] = {}
    hardlinks: list[list[str]] = []
    xattrs: dict[str, dict[str, bytes]] = {}
    for path in paths:
        taken = {other.rpartition("/")[2] for other in paths if other and other.rpartition("/")[0] == path}
        names = [name for name in draw(st.lists(NAMES, max_size=5, unique=True)) if name not in taken]
        cut = draw(st.integers(0, len(names)))
        files: list[FileRow] = []
        for name in names[:cut]:
            full = f"{path}/{name}" if path else name
            size = draw(st.integers(0, 3)) * (length + 8)
            files.append((name, draw(MODES), size, draw(TIMES), digests.of(b"%d" % size if size else b"")))
            if size and draw(st.booleans()):
                relocations[full] = draw(relocation(size, length))
            if draw(st.booleans()):
                xattrs[full] = draw(st.dictionaries(XATTR_NAMES, st.binary(max_size=9), min_size=1, max_size=2))
        if files and draw(st.booleans()):
            twin = "twin " * 8
            files.append((twin, *files[0][1:]))
            first, second = (f"{path}/{name}" if path else name for name in (files[0][0], twin))
            hardlinks.append(sorted((first, second)))
            for table in (relocations, xattrs):  # one inode, one content, the same attributes
                if first in table:
                    table[second] = table[first]  # type: ignore[index, assignment]
        links: list[SymlinkRow] = [(name, draw(NAMES), draw(TIMES)) for name in names[cut:]]
        directories.append((path, draw(MODES), draw(TIMES), files, links))
    catalog = Catalog(prefix, directories, relocations, hardlinks, xattrs)
    project = draw(st.sampled_from(["", "/p", "/p\udcff +é"]))
    return in_project(draw, catalog, project) if project else catalog


def in_project(draw: st.DrawFn, catalog: Catalog, project: str) -> Catalog:
    """The same with other roots and spellings in some of the texts."""
    lengths = [len(form) for root in (catalog.prefix, project) for form in spellings(root)]
    sizes = {path: row[2] for path, row in catalog.files()}
    relocations = dict(catalog.relocations)
    for path, item in relocations.items():
        form = draw(st.integers(0, len(lengths) - 1))
        if form and item.kind == "text" and item.offsets[0] + lengths[form] <= sizes[path]:
            relocations[path] = Relocation("text", item.offsets[:1], [], [form])
    for group in catalog.hardlinks:
        relocations |= {path: relocations[group[0]] for path in group if path in relocations}
    directories, hardlinks, xattrs = catalog.directories, catalog.hardlinks, catalog.xattrs
    return Catalog(catalog.prefix, directories, relocations, hardlinks, xattrs, project=project)


@st.composite
def relocation(draw: st.DrawFn, size: int, length: int) -> Relocation:
    kind: Kind = draw(st.sampled_from(["text", "binary", "data", "bytecode"]))
    if kind == "bytecode" and size >= 16:
        return Relocation(kind, [], [])
    step = length + draw(st.integers(0, 8))
    offsets = list(range(draw(st.sampled_from([0, 2, 8])), size - length + 1, step)) or [0]
    if kind in ("binary", "data"):
        return Relocation(kind, offsets, [size] * len(offsets))
    shebang = offsets[0] == 2 and draw(st.booleans())
    return Relocation("text", offsets, [2 + length] if shebang else [])


def as_lists(rows: list[DirectoryRow]) -> object:
    """JSON knows no tuples."""
    return json.loads(json.dumps(rows))


@given(catalogs())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read(catalog: Catalog) -> None:
    data = catalog.to_json()
    assert json.loads(data)["version"] == (2 if catalog.project else 1)
    again = Catalog.from_json(data, "c.json")
    assert (again.prefix, again.project) == (catalog.prefix, catalog.project)
    assert as_lists(again.directories) == as_lists(catalog.directories)
    assert again.relocations == catalog.relocations
    assert again.hardlinks == catalog.hardlinks
    assert again.xattrs == catalog.xattrs
    assert again.digest == catalog.digest == digests.of(data)
    assert again.to_json() == data


@given(catalogs(), st.integers(1, 3), st.integers(1, 60), st.data())
@settings(max_examples=150, deadline=None)
def test_a_document_is_written_and_read_in_parts(catalog: Catalog, part: int, window: int, data: st.DataObject) -> None:
    """However small they are, also if one ends within a row or a character."""
    with patch("holo.catalog._PART", part), patch("holo.catalog._WINDOW", window):
        document = constructed(catalog).to_json()
        assert document == json.dumps(json.loads(document), ensure_ascii=False, separators=(",", ":")).encode()
        assert document == catalog.to_json()
        assert as_lists(_parsed(document)["directories"]) == json.loads(document)["directories"]
        cut = data.draw(st.integers(0, len(document) - 1))
        assert parse_quickly(document[:cut]) is None
        damaged = bytearray(document)
        damaged[cut] = data.draw(st.sampled_from(b'\0"[],{}1\\\xff'))
        quick = parse_quickly(bytes(damaged))
    if quick is not None:
        whole = json.loads(bytes(damaged))
        assert {**quick, "directories": as_lists(quick["directories"])} == whole


def _parsed(document: bytes) -> Document:
    found = parse_quickly(document)
    assert found is not None
    return found


def test_equal_modes_and_sizes_are_one_number() -> None:
    """A million files have few of them, and each number takes memory."""
    rows = [(f"file-{number}", 0o644, 1000 + number % 2, 10**18 + number, "ab" * 32) for number in range(10)]
    folders: list[DirectoryRow] = [("", 0o755, 0, [], [])]
    folders += [(f"folder-{number}", 0o755, 0, [row], []) for number, row in enumerate(rows)]
    document = Catalog("/p", folders, {}, [], {}).to_json()
    with patch("holo.catalog._WINDOW", 100):
        files = [row for _, _, _, files, _ in _parsed(document)["directories"] for row in files]
    assert [*files] == rows
    assert len({id(row[1]) for row in files}) == 1
    assert len({id(row[2]) for row in files}) == 2


# Pieces of the document itself, and what JSON or holo writes in another way.
PIECES = ["]],[", ",", "]", "[", "}", ":", "0", ",5,6,[", '"', "\\", "\\x80", "\n", "é", "\udcff", "directories", ":[["]
PIECES += [digests.EMPTY, ",5,6,7,"]


@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join), min_size=8, max_size=8))
@settings(max_examples=300, deadline=None)
@example(["]],[", ",5,6,[", "]],[", "f", "d", "e", ",f", "/p"])  # a symlink and its target that look like a directory
@example(["]],[", ",5,6,[", "]],[", "f", "d", "e", "f", "/p"])
@example(["l", "t", digests.EMPTY, "f", "d", "e", "f", "/p"])  # names of a library that was recorded
@example([",5,6,7,", digests.EMPTY, '",5,6,7,"' + digests.EMPTY + '"]', "]],[" + digests.EMPTY, "d", "e", "f", "/p"])
def test_directories_are_found_among_all_other_text(names: list[str]) -> None:
    """Whatever files, symlinks and directories are called."""
    link, target, file, other, first, second, third, prefix = names
    row: FileRow = (file, 0o644, 0, -5, digests.EMPTY)
    twin: FileRow = (other, 0o644, 0, -5, digests.EMPTY)
    catalog = Catalog(
        "/" + prefix,
        [
            ("", 0o755, 7, [row, twin], [(link, target, 5), (target, link, 6)]),
            (first, 0o755, -8, [], [(link, target, 5)]),
            (f"{first}/{second}", 0o700, 9, [row], []),
            (third, 0, 0, [], []),
        ],
        {file: Relocation("text", [5, 6], []), other: Relocation("text", [5], [])},
        [[file, other], [link, target]],
        {file: {"user." + link: b"x"}, other: {"user." + target: b""}},
    )
    document = catalog.to_json()
    assert directories_in(document) == [each[:3] for each in catalog.directories]
    rows = [(row[4], row[1], row[2], row[3]) for _, row in catalog.files()]
    with patch("holo.catalog._WINDOW", 64):  # so that it reads the document in parts
        found = told(document)
        assert found == rows or (found is None and any(digests.EMPTY in name for name in names))
        # Spelled in another way: it says so, and passes over nothing.
        for other in (json.dumps(json.loads(document)).encode(), document.replace(b"af1349", rb"\u00611349")):
            assert told(other) is None
        assert told(document.replace(b'{"version":1', b'{"version":3')) is None


def told(document: bytes) -> list[tuple[str, int, int, int]] | None:
    """The rows that :func:`contents_in` finds; ``None`` if it is in doubt."""
    try:
        return [row for columns in contents_in(document) for row in zip(*columns, strict=True)]
    except ValueError:
        return None


def mutate(data: st.DataObject, catalog: Catalog) -> None:
    """Let one field of a row be another value, or a row be there twice."""
    _, _, _, files, links = data.draw(st.sampled_from(catalog.directories))
    rows: list[Any] = data.draw(st.sampled_from([rows for rows in (files, links, catalog.directories) if rows]))
    at = data.draw(st.integers(0, len(rows) - 1))
    if data.draw(st.booleans()):
        rows.insert(at, rows[at])
        return
    field = data.draw(st.integers(0, len(rows[at]) - 1))
    value = rows[at][field]
    if isinstance(value, int):
        value = data.draw(st.sampled_from([-1, 0, 0o7777, 0o10000, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1]))
    elif isinstance(value, str):
        value = data.draw(
            st.sampled_from(["", "..", "a/b", "\0", "é" * 128, "x" * 4096, "\udcff" * 256, digests.EMPTY])
        )
    rows[at] = (*rows[at][:field], value, *rows[at][field + 1 :])


@given(catalogs(), st.data())
@settings(max_examples=300, deadline=None)
def test_constructed_catalog_obeys_the_rules_of_the_parser(catalog: Catalog, data: st.DataObject) -> None:
    catalog.check()
    mutate(data, catalog)
    try:
        catalog = constructed(catalog)
    except UnicodeEncodeError:
        return  # a digest with half a character: there is no document to parse
    try:
        Catalog.from_json(catalog.to_json(), "c.json")
    except CatalogInvalid:
        with pytest.raises(CatalogInvalid):
            catalog.check()
    else:
        catalog.check()


@given(catalogs())
@settings(max_examples=50, deadline=None)
def test_totals_count_the_tree(catalog: Catalog) -> None:
    files = dict(catalog.files())
    assert catalog.totals.files == len(files) == sum(len(row[3]) for row in catalog.directories)
    assert catalog.totals.symlinks == sum(len(row[4]) for row in catalog.directories)
    assert catalog.totals.directories == len(catalog.directories) - 1
    assert catalog.totals.bytes == sum(row[2] for row in files.values())
    assert set(catalog.relocations) <= set(files)


def test_the_digest_depends_on_everything() -> None:
    row: FileRow = ("file", 0o644, 3, 5, digests.of(b"abc"))
    base = ("/opt/env", [("", 0o755, 1, [row], [("link", "file", 2)])], {}, [], {})
    other: list[Catalog] = [
        Catalog(*base),
        Catalog("/opt/en2", *base[1:]),
        Catalog("/opt/env", [("", 0o700, 1, [row], [("link", "file", 2)])], {}, [], {}),
        Catalog("/opt/env", [("", 0o755, 2, [row], [("link", "file", 2)])], {}, [], {}),
        Catalog("/opt/env", [("", 0o755, 1, [row], [("link", "fil", 2)])], {}, [], {}),
        Catalog("/opt/env", [("", 0o755, 1, [(*row[:3], 6, row[4])], [("link", "file", 2)])], {}, [], {}),
        Catalog(*base[:4], {"file": {"user.x": b""}}),
    ]
    assert len({catalog.digest for catalog in other}) == len(other)
    assert Catalog(*base).digest == other[0].digest


def test_unknown_version_is_named_in_the_error() -> None:
    document = {"version": 3, "prefix": "/opt/env", "trees": []}
    with pytest.raises(CatalogInvalid, match=r"new\.json.* version is 3, .* reads versions 1 to 2"):
        Catalog.from_json(json.dumps(document).encode(), "new.json")


def test_the_schema_is_the_one_in_the_repository() -> None:
    kept = Path(__file__).parents[2] / "catalogs" / "catalog.schema.json"
    assert kept.read_text() == json_schema()


def large(files: int, per_directory: int) -> bytes:
    rows: list[FileRow] = [(f"f{i}", 0o644, 4096, i, digests.of(b"%d" % i)) for i in range(files)]
    starts = range(0, files, per_directory)
    folders = [(f"d{first}", 0o755, first, rows[first : first + per_directory], []) for first in starts]
    return Catalog("/opt/env", [("", 0o755, 0, [], []), *folders], {}, [], {}).to_json()


def test_many_relocations_and_hardlinks_in_one_directory() -> None:
    """A quadratic check would let a small file keep a machine busy: 10,000 took seconds, these would take minutes."""
    document = json.loads(large(100_000, 100_000))
    document["relocations"] = [[f"d0/f{i}", "text", [0], []] for i in range(100_000)]
    document["hardlinks"] = [[f"d0/f{i}", f"d0/f{i + 1}"] for i in range(0, 100_000, 2)]
    for row in document["directories"][1][3]:
        row[1:] = document["directories"][1][3][0][1:]
    catalog = Catalog.from_json(json.dumps(document).encode(), "many.json")
    assert len(catalog.relocations) == 100_000
    assert len(catalog.hardlinks) == 50_000
