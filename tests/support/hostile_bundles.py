"""Bundles that lie or do harm, each made from a sound one by one change, and why it is refused.

`python -m support.hostile_bundles FOLDER` writes them all, to be looked at. The ZIP file is written here without holo,
so that every field of it can say anything.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import zstandard

from holo.catalog import Catalog
from support import contents

STORED, DEFLATED, ZSTD = 0, 8, 93
DAMAGED, REFUSED = 3, 1
"""Exit codes: of what is not what it says, and of what may well be meant so by whoever made it."""


@dataclass(frozen=True)
class Item:
    """An entry of a ZIP file. What its two headers say is what is right, but for ``local`` and ``central``."""

    name: str
    stored: bytes
    method: int = STORED
    content: bytes | None = None
    """what the stored bytes are decoded to; ``None``: they are not compressed"""
    before: bytes = b""
    """between the entry before and this one"""
    is_there: bool = True
    """else it stands in the directory only"""
    is_listed: bool = True
    """else it does not stand in the directory"""
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)

    def fields(self, start: int, more: dict[str, Any]) -> dict[str, Any]:
        content = self.stored if self.content is None else self.content
        return {
            "needed": 63 if self.method == ZSTD else 20,
            "flags": 0,
            "method": self.method,
            "crc": crc32(content),
            "stored": len(self.stored),
            "size": len(content),
            "name": self.name.encode(),
            "extra": b"",
            "comment": b"",
            "disk": 0,
            "attributes": 0o100444 << 16,
            "start": start,
            **more,
        }


@dataclass(frozen=True)
class Zip:
    items: list[Item]
    end: dict[str, Any] = field(default_factory=dict)
    before_end: bytes = b""
    before_directory: bytes = b""

    def to_bytes(self) -> bytes:
        data, directory, count = b"", b"", 0
        for item in self.items:
            start = len(data) + len(item.before)
            if item.is_there:
                data += item.before + local_header(item.fields(start, item.local)) + item.stored
            if item.is_listed:
                directory += central_header(item.fields(start, item.central))
                count += 1
        data += self.before_directory
        fields = {"disk": 0, "here": count, "count": count, "length": len(directory), "start": len(data)}
        fields |= {"comment": b"", **self.end}
        comment = fields.pop("comment")
        here, count, length, start = (fields[name] for name in ("here", "count", "length", "start"))
        end = struct.pack("<4sHHHHLLH", b"PK\5\6", fields["disk"], 0, here, count, length, start, len(comment))
        return data + directory + self.before_end + end + comment


def local_header(fields: dict[str, Any]) -> bytes:
    numbers = (fields["crc"], fields["stored"], fields["size"], len(fields["name"]), len(fields["extra"]))
    head = struct.pack("<4sHHHHHLLLHH", b"PK\3\4", fields["needed"], fields["flags"], fields["method"], 0, 33, *numbers)
    return head + fields["name"] + fields["extra"]


def central_header(fields: dict[str, Any]) -> bytes:
    head = struct.pack(
        "<4sHHHHHHLLLHHHHHLL",
        b"PK\1\2",
        3 << 8 | 63,
        *(fields["needed"], fields["flags"], fields["method"], 0, 33),
        *(fields["crc"], fields["stored"], fields["size"]),
        *(len(fields["name"]), len(fields["extra"]), len(fields["comment"])),
        *(fields["disk"], 0, fields["attributes"], fields["start"]),
    )
    return head + fields["name"] + fields["extra"] + fields["comment"]


# -- a sound bundle -------------------------------------------------------------------------------------------------

TIME = 1_600_000_000_000_000_000
GREETING = b"hello\n"
RUN = b"#!/opt/env/bin/sh\necho /opt/env\n"
BASE = random.Random(1).randbytes(40_000)
TEXT = b"a line of text\n" * 4000
OWN = random.Random(2).randbytes(500)
MIXED = bytes(65_536) + BASE[4096:24_576] + OWN
CONTENTS = {"base": BASE, "greeting": GREETING, "mixed": MIXED, "text": TEXT}
D = {name: contents.digest(content) for name, content in {**CONTENTS, "run": RUN}.items()}


def blob(name: str) -> str:
    return f"library/{D[name][:2]}/{D[name]}"


REST = f"extents/{D['mixed'][:2]}/{D['mixed']}"
PARTS: dict[str, Any] = {
    D["mixed"]: [[65_536, None, 0], [20_480, D["base"], 4096], [len(OWN), D["mixed"], 0]],
}


def catalog(**changes: Any) -> dict[str, Any]:
    rows = [[name, 0o644, len(content), TIME, D[name]] for name, content in sorted(CONTENTS.items())]
    return {
        "version": 1,
        "prefix": "/opt/env",
        "directories": [
            ["", 0o755, TIME, rows, [["link", "bin/run", TIME]]],
            ["bin", 0o755, TIME, [["run", 0o755, len(RUN), TIME, D["run"]]], []],
        ],
        "relocations": [["bin/run", "text", [2, 23], [17]]],
        **changes,
    }


def canonical(document: dict[str, Any]) -> bytes:
    return Catalog.from_json(json.dumps(document).encode(), "a case").to_json()


def dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def frame_of(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(content)


def manifest(digest: str, **changes: Any) -> dict[str, Any]:
    catalogs = [{"name": "app", "digest": digest}]
    return {"format": "holo bundle", "version": 1, "catalogs": catalogs, "without": [], **changes}


def items(
    document: bytes | None = None, *, digest: str | None = None, said: Any = None, parts: Any = None
) -> list[Item]:
    """The entries of a bundle whose catalog, manifest or table of parts is another."""
    document = canonical(catalog()) if document is None else document
    digest = contents.digest(document) if digest is None else digest
    said = dumped(manifest(digest)) if said is None else said if isinstance(said, bytes) else dumped(said)
    parts = dumped(PARTS) if parts is None else parts if isinstance(parts, bytes) else dumped(parts)
    return [
        Item("holo.json", said),
        Item(f"catalog/{digest}.json", document),
        Item(blob("base"), BASE),
        Item(blob("greeting"), GREETING),
        Item(REST, OWN),
        Item(blob("text"), frame_of(TEXT), ZSTD, TEXT),
        Item(blob("run"), RUN),
        Item("extents.json", parts),
    ]


SOUND = Zip(items()).to_bytes()
DIGEST = contents.digest(canonical(catalog()))
CATALOG = f"catalog/{DIGEST}.json"
SIGNATURE = f"catalog/{DIGEST}.sig"


def changed(name: str, **fields: Any) -> bytes:
    """The sound bundle with other fields of one entry."""
    return Zip([replace(item, **fields) if item.name == name else item for item in items()]).to_bytes()


def with_more(*more: Item, first: bool = False) -> bytes:
    return Zip([*more, *items()] if first else [*items(), *more]).to_bytes()


def without(name: str) -> bytes:
    return Zip([item for item in items() if item.name != name]).to_bytes()


def said(**changes: Any) -> bytes:
    """The manifest says something else."""
    return Zip(items(said=manifest(DIGEST, **changes))).to_bytes()


def put_together(*rows: Any, **more: Any) -> bytes:
    """``mixed`` is put together from other parts."""
    return Zip(items(parts={D["mixed"]: list(rows), **more})).to_bytes()


def signature(made: bytes = bytes(64), *, namespace: bytes = b"holo-catalog", width: int = 70) -> bytes:
    """What looks like a signature by ssh-keygen (PROTOCOL.sshsig)."""

    def strings(*values: bytes) -> bytes:
        return b"".join(struct.pack(">L", len(value)) + value for value in values)

    kind = b"ssh-ed25519"
    blob = b"SSHSIG" + struct.pack(">L", 1)
    key = random.Random(3).randbytes(32)
    blob += strings(strings(kind, key), namespace, b"", b"sha512", strings(kind, made))
    text = b64encode(blob)
    lines = [text[start : start + width] for start in range(0, len(text), width)]
    return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""])


def frame(zeros: int, claims: int, window: int | None = None) -> bytes:
    """A zstd frame (RFC 8878) of so many zeros that says of itself what it is told to."""
    head = b"\x28\xb5\x2f\xfd" + bytes([0xC0 | (0x20 if window is None else 0)])
    head += b"" if window is None else bytes([(window - 10) << 3])
    whole, rest = divmod(zeros, 1 << 17)
    sizes = [1 << 17] * whole + [rest]
    blocks = (struct.pack("<L", size << 3 | 2 | (n == whole))[:3] + b"\0" for n, size in enumerate(sizes))
    return head + struct.pack("<Q", claims) + b"".join(blocks)


def zip64_end(data: bytes, count: int, length: int, start: int, at: int | None = None) -> bytes:
    """The sound bundle with an end of ZIP64."""
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 3 << 8 | 63, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(data) - 22 if at is None else at, 1)
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:-22] + record + locator + end


def catalog_with(**changes: Any) -> bytes:
    """A sound bundle of a catalog that is not; its digest is right."""
    return Zip(items(json.dumps(catalog(**changes), separators=(",", ":")).encode())).to_bytes()


def rows_with(name: str, *row: Any) -> list[Any]:
    """The directories of the catalog, with another row for a file."""
    root, below = catalog()["directories"]
    root[3] = [list(row) if file[0] == name else file for file in root[3]]
    return [root, below]


def one_large_file(size: int, stored: bytes, digest: str) -> bytes:
    """A bundle with a single file, compressed."""
    document = canonical(
        {"version": 1, "prefix": "/opt/env", "directories": [["", 0o755, 0, [["big", 0o644, size, 0, digest]], []]]}
    )
    base = items(document)
    return Zip([*base[:2], one_large_entry(size, stored, digest)]).to_bytes()


def one_large_entry(size: int, stored: bytes, digest: str) -> Item:
    """A blob with a size that is not tried out here."""
    entry = Item(f"library/{digest[:2]}/{digest}", stored, ZSTD)
    wide = {"size": 0xFFFFFFFF, "stored": 0xFFFFFFFF, "extra": struct.pack("<HHQQ", 1, 16, size, len(stored))}
    plain = {"size": size, "crc": 0}
    entry = replace(entry, local={"crc": 0, **(wide if size >> 32 else plain)})
    return replace(entry, central=entry.local)


def reordered() -> bytes:
    """The entries as they are, the records of two of them in the directory exchanged."""
    start = SOUND.index(b"PK\1\2")
    records = [b"PK\1\2" + record for record in SOUND[start:-22].split(b"PK\1\2")[1:]]
    records[3], records[4] = records[4], records[3]
    return SOUND[:start] + b"".join(records) + SOUND[-22:]


def two_catalogs() -> bytes:
    """The second says that the greeting has another size."""
    second = canonical(
        {"version": 1, "prefix": "/x", "directories": [["", 0o755, 0, [["g", 0o644, 7, 0, D["greeting"]]], []]]}
    )
    other = contents.digest(second)
    catalogs = [{"name": "app", "digest": DIGEST}, {"name": "other", "digest": other}]
    first, *rest = items(said=manifest(DIGEST, catalogs=catalogs))
    return Zip([first, Item(f"catalog/{other}.json", second), *rest]).to_bytes()


# -- the cases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    reason: str
    make: Callable[[], bytes]
    code: int = DAMAGED
    is_begun: bool = True
    """whether it begins as a bundle does; `holo init` takes other files for blueprints and the like"""
    init: int | None = None
    """the exit code of `holo init`, if it is another"""


_INSIDE = struct.pack("<HHQQ", 1, 16, 5, 5)

CASES: dict[str, Case] = {
    # The file
    "empty": Case("there is nothing in it", lambda: b"", is_begun=False),
    "no-entries": Case("it is a ZIP file without entries", lambda: Zip([]).to_bytes(), REFUSED, is_begun=False),
    "text": Case("it is some text", lambda: b"hello, world\n" * 100, is_begun=False),
    "another-zip": Case("it is a ZIP file, but no bundle", lambda: Zip([Item("a", b"b")]).to_bytes(), REFUSED, False),
    "half": Case("its second half is missing", lambda: SOUND[: len(SOUND) // 2]),
    "no-directory": Case("its directory is missing", lambda: SOUND[: SOUND.index(b"PK\1\2")]),
    "last-byte": Case("its last byte is missing", lambda: SOUND[:-1]),
    "zeros-behind": Case("zeros follow it", lambda: SOUND + bytes(4096)),
    "twice": Case("another bundle follows it", lambda: SOUND + SOUND),
    "prepended": Case("a program stands before it", lambda: b"#!/bin/sh\n" + SOUND, is_begun=False),
    "prepended-adjusted": Case(
        "something stands before the first entry, and all offsets count it",
        lambda: Zip([replace(items()[0], before=b"#!/bin/sh\n"), *items()[1:]]).to_bytes(),
        is_begun=False,
    ),
    "comment": Case("a comment follows it", lambda: Zip(items(), {"comment": b"hello"}).to_bytes()),
    "before-directory": Case(
        "bytes stand before its directory", lambda: Zip(items(), before_directory=b"x").to_bytes()
    ),
    "before-end": Case("bytes stand before the end of its directory", lambda: Zip(items(), before_end=b"x").to_bytes()),
    # Its directory
    "gap": Case("bytes stand between two entries", lambda: changed(blob("text"), before=b"hidden")),
    "hidden-entry": Case(
        "an entry is not in the directory",
        lambda: Zip([*items()[:4], Item(blob("run"), b"hidden", is_listed=False), *items()[4:]]).to_bytes(),
    ),
    "unlisted-entry": Case(
        "an entry that is needed is not in the directory",
        lambda: changed(blob("greeting"), is_listed=False),
    ),
    "content-left-out": Case(
        "a blob is not there, and the manifest says that some may not be",
        lambda: Zip(
            [item for item in items(said=manifest(DIGEST, without=["aa" * 32])) if item.name != blob("greeting")]
        ).to_bytes(),
        REFUSED,
    ),
    "listed-only": Case("an entry is only in the directory", lambda: changed(blob("greeting"), is_there=False)),
    "overlap-same": Case(
        "two entries have the same bytes, as in a bomb whose entries overlap",
        lambda: with_more(
            Item(f"library/aa/{'aa' * 32}", BASE, is_there=False, central={"start": SOUND.index(b"PK\3\4", 1)})
        ),
    ),
    "overlap-inside": Case(
        "an entry lies in the bytes of another",
        lambda: changed(blob("text"), central={"start": SOUND.index(blob("base").encode()) + 100}),
    ),
    "out-of-order": Case(
        "the directory has another order than the entries",
        reordered,
    ),
    "name-twice": Case("a name stands twice", lambda: with_more(Item(blob("greeting"), b"hullo\n"))),
    "count-more": Case("it counts more entries", lambda: Zip(items(), {"here": 9, "count": 9}).to_bytes()),
    "count-less": Case("it counts fewer entries", lambda: Zip(items(), {"here": 7, "count": 7}).to_bytes()),
    "counts-differ": Case("its two counts of entries differ", lambda: Zip(items(), {"here": 7}).to_bytes()),
    "other-disk": Case("it is a part of an archive on several disks", lambda: Zip(items(), {"disk": 1}).to_bytes()),
    "entry-on-other-disk": Case("an entry is on another disk", lambda: changed(blob("base"), central={"disk": 1})),
    "start-outside": Case("its directory begins outside", lambda: Zip(items(), {"start": 1 << 31}).to_bytes()),
    "length-large": Case("its directory has 4 GB", lambda: Zip(items(), {"length": 0xFFFFFFFE}).to_bytes()),
    "zip64-needless": Case(
        "it has an end of ZIP64 that it does not need",
        lambda: zip64_end(SOUND, 8, len(SOUND) - 22 - SOUND.index(b"PK\1\2"), SOUND.index(b"PK\1\2")),
    ),
    "zip64-outside": Case("its end of ZIP64 lies outside", lambda: zip64_end(SOUND, 8, 9, 9, at=1 << 63)),
    "zip64-overflow": Case(
        "its directory ends behind all numbers", lambda: zip64_end(SOUND, 8, (1 << 64) - 1, (1 << 64) - 1)
    ),
    "zip64-many": Case("it counts 2**60 entries", lambda: zip64_end(SOUND, 1 << 60, 1 << 29, 0)),
    "size-wide": Case(
        "an entry has a size of ZIP64 that fits without", lambda: changed(blob("base"), central={"extra": _INSIDE})
    ),
    # Names
    "name-dots": Case("a name leads out", lambda: with_more(Item("library/../../../evil", b"evil"))),
    "name-absolute": Case("a name is an absolute path", lambda: with_more(Item("/tmp/evil", b"evil"))),
    "name-backslash": Case("a name leads out on Windows", lambda: with_more(Item("..\\..\\evil", b"evil"))),
    "name-nul": Case("a name has a NUL in it", lambda: with_more(Item("library/aa\0", b"evil"))),
    "name-empty": Case("a name is empty", lambda: with_more(Item("", b"evil"))),
    "name-long": Case("a name has 60,000 bytes", lambda: with_more(Item("x" * 60_000, b"evil"))),
    "name-not-ascii": Case("a name is not ASCII", lambda: with_more(Item("library/\N{SNAKE}", b"evil"))),
    "name-escape": Case("a name commands the terminal", lambda: with_more(Item("\x1b[2Jevil", b"evil"))),
    "name-upper-case": Case("a digest has upper case", lambda: with_more(Item(blob("base").upper(), b"evil"))),
    "name-other-folder": Case(
        "a blob is in the folder of others", lambda: with_more(Item(f"library/zz/{'aa' * 32}", b"evil"))
    ),
    "name-unknown": Case("there is a file that no bundle has", lambda: with_more(Item("README", b"hello"))),
    "name-directory": Case("there is a directory", lambda: with_more(Item("library/", b""))),
    "unlisted-catalog": Case(
        "there is a catalog that the manifest does not list",
        lambda: with_more(Item(f"catalog/{'aa' * 32}.json", canonical(catalog()))),
    ),
    "signature-of-nothing": Case(
        "a signature of a catalog that is not in it",
        lambda: with_more(Item(f"catalog/{'aa' * 32}.sig", signature())),
    ),
    "signature-junk": Case("what should be a signature is none", lambda: with_more(Item(SIGNATURE, b"ada was here\n"))),
    "signature-empty": Case("what should be a signature is empty", lambda: with_more(Item(SIGNATURE, b""))),
    "signature-large": Case(
        "what should be a signature is too large", lambda: with_more(Item(SIGNATURE, signature(bytes(1 << 20))))
    ),
    "signature-bomb": Case(
        "what should be a signature is a bomb",
        lambda: with_more(Item(SIGNATURE, frame(1 << 30, 1 << 30), ZSTD, bytes(1 << 30))),
    ),
    "signature-wrapped": Case(
        "a signature in another form than the only one", lambda: with_more(Item(SIGNATURE, signature(width=64)))
    ),
    "signature-wrong": Case("a signature that nobody has made", lambda: with_more(Item(SIGNATURE, signature()))),
    "signature-for-git": Case(
        "a signature for another purpose", lambda: with_more(Item(SIGNATURE, signature(namespace=b"git")))
    ),
    "symlink": Case(
        "an entry is a symlink",
        lambda: changed(blob("greeting"), stored=b"/etc/passwd", central={"attributes": 0o120777 << 16}),
    ),
    # Local headers
    "local-name": Case(
        "an entry is called something else where it begins",
        lambda: changed(blob("greeting"), local={"name": blob("greeting").replace("library", "l1brary").encode()}),
    ),
    "local-size": Case(
        "an entry has another size where it begins", lambda: changed(blob("greeting"), local={"size": 7})
    ),
    "local-method": Case(
        "an entry is deflated where it begins", lambda: changed(blob("greeting"), local={"method": 8})
    ),
    "local-crc": Case("an entry has another checksum where it begins", lambda: changed(CATALOG, local={"crc": 1})),
    "local-extra": Case(
        "an entry has another name in an extra field",
        lambda: changed(blob("greeting"), local={"extra": struct.pack("<HH", 0x7075, 9) + b"\1\0\0\0\0evil"}),
    ),
    "descriptor": Case(
        "an entry tells its size behind its bytes",
        lambda: changed(blob("greeting"), local={"flags": 8, "size": 0, "stored": 0}, central={"flags": 8}),
    ),
    "encrypted": Case(
        "an entry is encrypted", lambda: changed(blob("greeting"), local={"flags": 1}, central={"flags": 1})
    ),
    "deflated": Case("an entry is deflated", lambda: changed(blob("greeting"), method=DEFLATED)),
    "stored-sizes": Case(
        "what is not compressed has two sizes",
        lambda: changed(blob("greeting"), local={"size": 7}, central={"size": 7}),
    ),
    # The manifest
    "manifest-checksum": Case(
        "the manifest has another checksum", lambda: changed("holo.json", local={"crc": 1}, central={"crc": 1})
    ),
    "manifest-second": Case(
        "the manifest is not first", lambda: Zip([items()[1], items()[0], *items()[2:]]).to_bytes(), REFUSED, False
    ),
    "manifest-renamed": Case(
        "the manifest is called something else in the directory",
        lambda: changed("holo.json", central={"name": b"hola.json"}),
    ),
    "manifest-garbage": Case("the manifest is not JSON", lambda: Zip(items(said=b"{")).to_bytes()),
    "manifest-nested": Case(
        "the manifest is nested 50,000 levels deep", lambda: Zip(items(said=b"[" * 50_000 + b"]" * 50_000)).to_bytes()
    ),
    "manifest-large": Case("the manifest has 20 MB", lambda: Zip(items(said=b" " * (20 << 20))).to_bytes()),
    "manifest-version": Case("it is of a version to come", lambda: said(version=2), REFUSED),
    "manifest-other": Case("it is of another program", lambda: said(format="holo bumble")),
    "manifest-more": Case("the manifest says more", lambda: said(more="x")),
    "manifest-no-catalogs": Case("it lists no catalog", lambda: said(catalogs=[])),
    "manifest-absent": Case(
        "it lists a catalog that is not there",
        lambda: said(catalogs=[{"name": "app", "digest": DIGEST}, {"name": "other", "digest": "aa" * 32}]),
        init=2,  # it asks which one of the two
    ),
    "manifest-name": Case("a catalog's name leads out", lambda: said(catalogs=[{"name": "../evil", "digest": DIGEST}])),
    "manifest-escape": Case(
        "a catalog's name commands the terminal", lambda: said(catalogs=[{"name": "\x1b[2J", "digest": DIGEST}])
    ),
    "manifest-name-twice": Case(
        "two catalogs have one name",
        lambda: said(catalogs=[{"name": "app", "digest": DIGEST}, {"name": "app", "digest": DIGEST}]),
    ),
    "manifest-digest": Case(
        "a catalog's digest is a path", lambda: said(catalogs=[{"name": "app", "digest": "../../evil"}])
    ),
    "manifest-types": Case("a catalog's name is a number", lambda: said(catalogs=[{"name": 7, "digest": DIGEST}])),
    "manifest-without": Case("what it does without is a path", lambda: said(without=["../../evil"])),
    # The catalog
    "catalog-missing": Case("the catalog is not there", lambda: without(CATALOG)),
    "catalog-digest": Case(
        "the catalog has another digest", lambda: Zip(items(canonical(catalog()), digest="aa" * 32)).to_bytes()
    ),
    "catalog-outside": Case(
        "a directory of the catalog leads out",
        lambda: catalog_with(directories=[*catalog()["directories"], ["../evil", 0o755, 0, [], []]]),
        REFUSED,
    ),
    "catalog-file-outside": Case(
        "a file of the catalog leads out",
        lambda: catalog_with(directories=rows_with("greeting", "../../evil", 0o644, 6, TIME, D["greeting"])),
        REFUSED,
    ),
    "catalog-two-sizes": Case(
        "one content has two sizes",
        lambda: catalog_with(directories=rows_with("greeting", "greeting", 0o644, 7, TIME, D["base"])),
        REFUSED,
    ),
    "catalogs-two-sizes": Case("one content has two sizes in two catalogs", two_catalogs, init=2),
    "catalog-setuid": Case(
        "a file of the catalog gives rights",
        lambda: Zip(
            items(canonical(catalog(directories=rows_with("greeting", "greeting", 0o4755, 6, TIME, D["greeting"]))))
        ).to_bytes(),
        REFUSED,
    ),
    "catalog-offset": Case(
        "a path is not where the catalog says",
        lambda: Zip(items(canonical(catalog(relocations=[["bin/run", "text", [3, 23], [17]]])))).to_bytes(),
        REFUSED,
    ),
    "catalog-bomb": Case(
        "the catalog would have 10 GB",
        lambda: changed(
            CATALOG,
            stored=frame(1 << 20, 1 << 20),
            method=ZSTD,
            content=b"",
            local={"size": 0xFFFFFFFE},
            central={"size": 0xFFFFFFFE},
        ),
    ),
    # Contents
    "content-other": Case("a blob is another content", lambda: changed(blob("greeting"), stored=b"hullo\n")),
    "content-last": Case("the last blob is another content", lambda: changed(blob("run"), stored=RUN.upper())),
    "content-large": Case("a large blob is another content", lambda: changed(blob("base"), stored=BASE[::-1])),
    "content-swapped": Case(
        "two blobs have each other's names",
        lambda: Zip(
            [
                replace(
                    item,
                    name={blob("base"): blob("greeting"), blob("greeting"): blob("base")}.get(item.name, item.name),
                )
                for item in items()
            ]
        ).to_bytes(),
    ),
    "content-missing": Case("a blob is not there", lambda: without(blob("greeting"))),
    "content-longer": Case("a blob is longer than recorded", lambda: changed(blob("greeting"), stored=GREETING * 2)),
    "frame-garbage": Case("a frame is garbage", lambda: changed(blob("text"), stored=b"x" * 200)),
    "frame-truncated": Case("a frame breaks off", lambda: changed(blob("text"), stored=frame_of(TEXT)[:-5])),
    "frame-other": Case("a frame is of another content", lambda: changed(blob("text"), stored=frame_of(TEXT[::-1]))),
    "frame-empty": Case("a frame has no bytes", lambda: changed(blob("text"), stored=b"")),
    "frame-followed": Case("a byte follows a frame", lambda: changed(blob("text"), stored=frame_of(TEXT) + b"x")),
    "frame-followed-by-another": Case(
        "an empty frame follows a frame", lambda: changed(blob("text"), stored=frame_of(TEXT) + frame_of(b""))
    ),
    "frame-more": Case("a frame holds more than recorded", lambda: changed(blob("text"), stored=frame_of(TEXT + b"x"))),
    "frame-swollen": Case(
        "a frame is larger than any of its content",
        lambda: changed(blob("text"), stored=frame_of(TEXT) + bytes(70_000)),
    ),
    "bomb": Case(
        "a frame of some KB says it has 60,000 bytes and has 2 GB",
        lambda: changed(blob("text"), stored=frame(2 << 30, len(TEXT))),
    ),
    "bomb-large": Case(
        "a frame of some KB that is to have 2 MB has 16 GB",
        lambda: one_large_file(2 << 20, frame(16 << 30, 2 << 20)[: (2 << 20) + 15_000], "aa" * 32),
    ),
    "bomb-claim": Case(
        "a small frame claims 2**62 bytes", lambda: changed(blob("text"), stored=frame(60_000, 1 << 62))
    ),
    "bomb-window": Case(
        "a frame wants 2 GB of memory", lambda: one_large_file(2 << 20, frame(2 << 20, 2 << 20, window=31), "aa" * 32)
    ),
    "bomb-part": Case(
        "a part is in a frame of 64 GB that no catalog needs",
        lambda: Zip(
            [
                *items(parts={D["mixed"]: [[len(MIXED), "aa" * 32, 0]]}),
                one_large_entry(64 << 30, frame(64 << 30, 64 << 30, 17), "aa" * 32),
            ]
        ).to_bytes(),
    ),
    "bomb-rest": Case(
        "the rest of a blob that is put together is a frame of 64 GB",
        lambda: Zip(
            [
                replace(
                    one_large_entry(64 << 30, frame(64 << 30, 64 << 30, 17), D["mixed"]),
                    name=REST,
                )
                if item.name == REST
                else item
                for item in items()
            ]
        ).to_bytes(),
    ),
    # Parts
    "parts-garbage": Case("the table of parts is not JSON", lambda: Zip(items(parts=b"{")).to_bytes()),
    "parts-list": Case("the table of parts is a list", lambda: Zip(items(parts=[PARTS])).to_bytes()),
    "parts-nested": Case(
        "the table of parts is nested 50,000 levels deep", lambda: Zip(items(parts=b'{"a":' * 50_000)).to_bytes()
    ),
    "parts-twice": Case(
        "a blob is put together in two ways",
        lambda: Zip(items(parts=dumped(PARTS)[:-2] + b"," + dumped(PARTS)[1:])).to_bytes(),
    ),
    "parts-bomb": Case(
        "the table of parts would have a million rows",
        lambda: changed(
            "extents.json",
            stored=frame_of(dumped({D["mixed"]: [[1, None, 0]] * 1_000_000})),
            method=ZSTD,
            content=dumped({D["mixed"]: [[1, None, 0]] * 1_000_000}),
        ),
    ),
    "parts-missing": Case("parts are in an entry that is not there", lambda: without(REST)),
    "parts-strange": Case("parts are of a blob that is not there", lambda: put_together([len(MIXED), "aa" * 32, 0])),
    "parts-table": Case("the table of parts is not there", lambda: without("extents.json")),
    "parts-circle": Case(
        "two blobs are put together from each other",
        lambda: Zip(
            [
                item
                for item in items(
                    parts={D["mixed"]: [[len(MIXED), D["base"], 0]], D["base"]: [[len(BASE), D["mixed"], 0]]}
                )
                if item.name not in (REST, blob("base"))
            ]
        ).to_bytes(),
    ),
    "parts-itself": Case("a blob is a part of itself", lambda: put_together([len(MIXED), D["mixed"], 0])),
    "parts-behind": Case(
        "a part ends behind its entry", lambda: put_together([65_536, None, 0], [20_980, D["base"], 39_999])
    ),
    "parts-overflow": Case(
        "a part begins behind all numbers", lambda: put_together([len(MIXED), D["base"], (1 << 63) - 1])
    ),
    "parts-huge": Case("a part is longer than all numbers", lambda: put_together([1 << 64, None, 0])),
    "parts-negative": Case(
        "a part has a negative length", lambda: put_together([len(MIXED) + 1, None, 0], [-1, D["base"], 0])
    ),
    "parts-before": Case("a part begins before its entry", lambda: put_together([len(MIXED), D["base"], -1])),
    "parts-empty": Case("a part is empty", lambda: put_together([0, D["base"], 0], *PARTS[D["mixed"]])),
    "parts-none": Case("a blob is put together from nothing", put_together),
    "parts-float": Case("a length is no whole number", lambda: put_together([86_516.0, None, 0])),
    "parts-bool": Case("a length is true", lambda: put_together([True, None, 0])),
    "parts-row": Case("a part has four values", lambda: put_together([len(MIXED), None, 0, 0])),
    "parts-order": Case("the parts have another order", lambda: put_together(*PARTS[D["mixed"]][::-1])),
    "parts-short": Case("the parts are less than the blob", lambda: put_together(*PARTS[D["mixed"]][:2])),
    "parts-hole": Case("a blob has a hole where it has data", lambda: put_together([len(MIXED), None, 0])),
    "parts-digest": Case("a part is of a path", lambda: put_together([len(MIXED), "../../evil", 0])),
    "parts-and-whole": Case(
        "a blob is there whole, and put together",
        lambda: Zip([*items()[:-1], Item(blob("mixed"), MIXED), items()[-1]]).to_bytes(),
    ),
    "parts-in-frame": Case(
        "a blob is put together from a frame that breaks off",
        lambda: Zip(
            [
                replace(item, stored=frame_of(BASE[:30_000]), method=ZSTD, content=BASE)
                if item.name == blob("base")
                else item
                for item in items()
            ]
        ).to_bytes(),
    ),
}


def write_all(folder: Path, names: Iterable[str] = ()) -> None:
    for name in names or CASES:
        (folder / f"{name}.holo").write_bytes(CASES[name].make())


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
