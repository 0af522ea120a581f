"""Catalogs that lie or do harm: each is refused with one message, and nothing is written.

A case in tests/faults/hostile is a `.json` file (what is wrong, the catalog, and the contents of its files where they
matter) or a `.txt` file (what is wrong on the first line, then the bytes of the catalog).
"""

from __future__ import annotations

import copy
import json
import os
import posixpath
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holo import digest as digests
from holo.catalog import Catalog, Relocation, _Invalid, parse_quickly
from holo.catalog_model import parse
from holo.errors import CatalogInvalid
from support.cli import Holo
from support.forks import Forks

TIME = 1_600_000_000_000_000_000
GREETING = b"hello\n"
RUN = b"#!/opt/env/bin/sh\necho /opt/env\n"
LIBRARY = b"\x01/opt/env/lib:/opt/env\x00\x02/opt/env/x\x00\x03"

SOUND: dict[str, Any] = {
    "version": 1,
    "prefix": "/opt/env",
    "directories": [
        [
            *("", 0o755, TIME),
            [
                ["greeting", 0o644, len(GREETING), TIME, digests.of(GREETING)],
                ["library", 0o644, len(LIBRARY), TIME, digests.of(LIBRARY)],
            ],
            [["link", "bin/run", TIME], ["odd\\xff", "/opt/env", TIME]],
        ],
        [
            *("bin", 0o755, TIME),
            [["again", 0o755, len(RUN), TIME, digests.of(RUN)], ["run", 0o755, len(RUN), TIME, digests.of(RUN)]],
            [],
        ],
        ["bin/deep", 0o700, -1, [], []],
    ],
    "relocations": [
        ["bin/again", "text", [2, 23], [17]],
        ["bin/run", "text", [2, 23], [17]],
        ["library", "binary", [1, 14, 24], [22, 22, 34]],
    ],
    "hardlinks": [["bin/again", "bin/run"]],
    "xattrs": {"greeting": {"user.note": "aGVsbG8="}, "bin": {"user.empty": ""}},
}
"""What most cases were made of, by one change each."""

IN_PROJECT: dict[str, Any] = {
    **SOUND,
    "version": 2,
    "project": "/opt",
    "relocations": [
        *([*row, []] for row in SOUND["relocations"][:2]),
        ["library", "binary", [1, 14, 24], [22, 22, 34], [0, 0, 3]],
    ],
}
"""The same in version 2."""

CONTENTS = (GREETING, RUN, LIBRARY)
Note = Callable[[int, str, int], None]
RESTORABLE = json.dumps({**SOUND, "relocations": SOUND["relocations"][:2]}).encode()
"""Without the binary, which fits no path that is longer than the prefix."""


@dataclass(frozen=True)
class Case:
    reason: str
    data: bytes
    contents: tuple[bytes, ...] = ()


def load(path: Path) -> Case:
    if path.suffix == ".txt":
        reason, _, data = path.read_bytes().partition(b"\n")
        return Case(reason.decode(), data)
    case = json.loads(path.read_bytes())
    contents = tuple(content.encode() for content in case.get("contents", ()))
    return Case(case["reason"], json.dumps(case["catalog"]).encode(), contents)


def made() -> dict[str, Case]:
    """Those too large for a file."""
    sound = json.dumps(SOUND).encode()
    levels = ["/".join("d" * level) for level in range(1, 501)]
    too_deep = {**SOUND, "directories": SOUND["directories"] + [[path, 0o755, 0, [], []] for path in levels]}
    return {
        "nested": Case("a value is nested 100,000 levels deep", sound[:-1] + b',"x":' + b"[" * 10**5 + b"]" * 10**5),
        "nested-objects": Case("objects are nested 100,000 levels deep", b'{"x":' * 10**5),
        "brackets": Case("100,000 brackets are opened", b"[" * 10**5),
        "digits": Case("a size has 100,000 digits", sound.replace(b", 6,", b", " + b"6" * 10**5 + b",", 1)),
        "too-deep": Case("the directories are 500 levels deep", json.dumps(too_deep).encode()),
        "long-key": Case("a key is a megabyte long", json.dumps({**SOUND, "k" * 2**20: 1}).encode()),
        "long-path": Case(
            "a path is a megabyte long", json.dumps({**SOUND, "hardlinks": [["a/" * 2**19] * 2]}).encode()
        ),
        "long-prefix": Case(
            "the prefix is a megabyte long and relative", json.dumps({**SOUND, "prefix": "x" * 2**20}).encode()
        ),
        "long-project": Case(
            "the project is half a megabyte of encoded characters",
            json.dumps({**IN_PROJECT, "project": "/" + "é" * 2**19, "relocations": []}).encode(),
        ),
        "zeros": Case("the file is a megabyte of zeros", bytes(2**20)),
        "quotes": Case("a string is never closed", b'{"version": "' + b"x" * 2**20),
    }


CASES = {path.stem: load(path) for path in sorted((Path(__file__).parent / "hostile").iterdir())} | made()
READABLE = [name for name, case in CASES.items() if not case.contents]

each = pytest.mark.parametrize("name", CASES)
each_readable = pytest.mark.parametrize("name", READABLE)


def test_cases_are_many_and_distinct() -> None:
    assert len(CASES) > 200
    assert len({case.reason for case in CASES.values()}) == len(CASES)
    assert len({case.data for case in CASES.values()}) == len(CASES)


def test_the_sound_catalog_is_sound() -> None:
    for sound in (SOUND, IN_PROJECT):
        catalog = Catalog.from_json(json.dumps(sound).encode(), "sound.json")
        assert problems(catalog) == []
        assert catalog.totals.files == 4
        assert parse_quickly(json.dumps(sound).encode()) is not None


@each_readable
def test_hostile_catalog_is_refused(name: str) -> None:
    with pytest.raises(CatalogInvalid) as caught:
        Catalog.from_json(CASES[name].data, "/somewhere/evil.json")
    message = str(caught.value)
    assert "/somewhere/evil.json" in message
    assert "\n" not in message
    assert len(message) < 2000


@each_readable
def test_both_parsers_agree(name: str) -> None:
    parsers_agree(CASES[name].data)


def parsers_agree(data: bytes) -> None:
    """What the quick one takes, the model takes, and reads the same in it."""
    try:
        quick = parse_quickly(data)
    except _Invalid:
        return
    if quick is not None:
        slow = parse(data, "c.json")
        for key in ("relocations", "hardlinks", "xattrs"):
            quick.setdefault(key, type(slow[key])())
        assert as_lists(quick) == as_lists(slow)


def as_lists(document: Any) -> Any:
    return json.loads(json.dumps(document))


# -- the command line -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    home: Path

    def files(self) -> set[str]:
        """What is there besides directories and locks."""
        found = (path for path in self.home.rglob("*") if path.is_symlink() or not path.is_dir())
        return {str(path.relative_to(self.home)) for path in found if path.name != "lock" and path.suffix != ".lock"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> dict[str, Outcome]:
    """`holo init --space x evil.json` of every case, each in a process and a HOLO_HOME of its own."""
    root = tmp_path_factory.mktemp("hostile")
    found = {}
    for name, case in {**CASES, "sound": Case("", RESTORABLE, CONTENTS)}.items():
        place = root / name
        (place / "library").mkdir(parents=True)
        (place / "evil.json").write_bytes(case.data)
        for content in case.contents:
            digest = digests.of(content)
            (place / "library" / digest[:2]).mkdir(exist_ok=True)
            (place / "library" / digest[:2] / digest).write_bytes(content)
        holo = Holo(place)
        result = forks.run("init", "--space", "x", place / "evil.json", env=holo.environment())
        found[name] = Outcome(result.code, result.stdout + result.stderr, holo.home)
    return found


def test_the_sound_catalog_is_restored(outcomes: dict[str, Outcome]) -> None:
    """So the others are refused for what is wrong with them."""
    outcome = outcomes["sound"]
    assert outcome.code == 0, outcome.output
    assert any(path.startswith("holotree/") and path.endswith("bin/run") for path in outcome.files())


@pytest.mark.torture
@each
def test_command_refuses_hostile_catalog_and_writes_nothing(
    name: str, outcomes: dict[str, Outcome], faults: Note
) -> None:
    faults(7, "hostile catalogs", 1)
    outcome = outcomes[name]
    assert outcome.code == 1, outcome.output
    assert outcome.output.startswith("error: ")
    assert outcome.output.count("error: ") == 1
    assert "Traceback" not in outcome.output
    assert "mistake in holo" not in outcome.output
    assert outcome.output.count("\n") <= 2
    blobs = {path for path in outcome.files() if path.startswith("hololib/library/") and CASES[name].contents}
    assert outcome.files() - blobs == set()


def test_the_sound_catalog_is_restored_after_a_hostile_one(tmp_path: Path) -> None:
    """With the command as users start it; the refused catalog leaves nothing in the way."""
    holo = Holo(tmp_path)
    evil = tmp_path / "hello.json"
    evil.write_bytes(CASES["directory-outside"].data)
    result = holo("init", "--space", "x", evil, code=1)
    assert result.stdout == ""
    assert "../evil" in result.stderr
    for content in CONTENTS:
        blob = tmp_path / "library" / digests.of(content)[:2] / digests.of(content)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
    evil.write_bytes(RESTORABLE)
    report = holo("init", "--space", "x", evil, "--json").json()
    assert report["files"]["total"] == 4


# -- any change at all ------------------------------------------------------------------------------------


def problems(catalog: Catalog) -> list[str]:
    """What is wrong with a catalog that was accepted, by checks written without a look at holo's."""
    entries, found = tree_problems(catalog)
    if not os.path.isabs(catalog.prefix) or os.path.normpath(catalog.prefix) != catalog.prefix:
        found.append(f"the prefix {catalog.prefix!r}")
    roots = [catalog.prefix, *filter(None, [catalog.project])]
    safe = ("/", "/!$&'()*+,;=:@[]|")
    lengths = [len(text) for r in map(os.fsencode, roots) for text in (r, *(quote(r, safe=kept) for kept in safe))]
    for path, relocation in catalog.relocations.items():
        if len(entries.get(path, ())) != 4 or not fits(relocation, lengths, entries[path][1]):
            found.append(f"the relocation {relocation} of {path!r}")
    members = [path for group in catalog.hardlinks for path in group]
    if len(set(members)) != len(members):
        found.append(f"the hardlinks {members}")
    for group in catalog.hardlinks:
        rows = [entries.get(path, ()) for path in group]
        if len(rows) < 2 or len(rows[0]) != 4 or rows.count(rows[0]) != len(rows):
            found.append(f"the hardlinks {group}")
    for path, values in catalog.xattrs.items():
        if len(entries.get(path, ())) not in (2, 4):
            found.append(f"attributes of {path!r}")
        names = [name for name in values if not name.startswith(("user.", "security.capability")) or "\0" in name]
        found += [f"the attribute {name!r}" for name in names]
    return found


Entries = dict[str, tuple[Any, ...]]
"""By path the row without its name: two values for a directory and a symlink (as `(target, mtime, "")`) three."""


def tree_problems(catalog: Catalog) -> tuple[Entries, list[str]]:
    entries: Entries = {}
    found: list[str] = []
    for path, *attributes, files, links in catalog.directories:
        base = path + "/" if path else ""
        here = [(path, tuple(attributes))]
        here += [(base + row[0], tuple(row[1:])) for row in files]
        here += [(base + name, (target, mtime, "")) for name, target, mtime in links]
        for place, row in here:
            found += [f"two entries at {place!r}"] * (place in entries)
            found += [f"the path {place!r}"] * (not is_path(place, entries))
            found += [f"the row {row} of {place!r}"] * (not is_row(row))
            entries[place] = row
    return entries, found


def is_path(path: str, entries: Entries) -> bool:
    """Relative, normal, of possible names, and in a directory that came before."""
    parts = [os.fsencode(part) for part in path.split("/")]
    if not path:
        return not entries
    return (
        posixpath.normpath(path) == path
        and ".." not in path.split("/")
        and all(0 < len(part) <= 255 and b"\0" not in part for part in parts)
        and len(entries.get(posixpath.dirname(path), ())) == 2
    )


def is_row(row: tuple[Any, ...]) -> bool:
    if len(row) == 3:
        target, mtime, _ = row
        return 0 < len(os.fsencode(target)) < 4096 and "\0" not in target and is_number(mtime, -(2**63), 2**63)
    mode, *size, mtime = row[:3] if len(row) == 4 else row
    if size and re.fullmatch(r"[0-9a-f]{64}", row[3], re.ASCII) is None:
        return False
    return (
        is_number(mode, 0, 0o10000) and is_number(mtime, -(2**63), 2**63) and all(is_number(n, 0, 2**63) for n in size)
    )


def is_number(value: Any, least: int, limit: int) -> bool:
    return type(value) is int and least <= value < limit


def fits(relocation: Relocation, lengths: list[int], size: int) -> bool:
    kind, offsets, ends, forms = relocation
    if kind == "opaque":
        return bool(forms) and not offsets and not ends and {*forms} <= {*range(3, len(lengths))}
    all_forms = forms or [0] * len(offsets)
    spans = [(offset, offset + lengths[form]) for offset, form in zip(offsets, all_forms, strict=False)]
    points = [point for span in spans for point in span]
    if not spans or points != sorted(points) or points[0] < 0 or points[-1] > size:
        return False
    if kind == "binary" and (
        len(ends) != len(spans) or any(end < stop for (_, stop), end in zip(spans, ends, strict=True))
    ):
        return False
    inside = [end for end in ends for start, stop in spans if start < end < stop]
    return not inside and ends == sorted(ends) and all(end <= size for end in ends)


def refused_or_sound(data: bytes) -> None:
    parsers_agree(data)
    try:
        catalog = Catalog.from_json(data, "mutant.json")
    except CatalogInvalid:
        return
    assert problems(catalog) == []
    assert as_lists(Catalog.from_json(catalog.to_json(), "again.json").directories) == as_lists(catalog.directories)


counted = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Each example is noted as a fault: the fixture that does it is made once for all."""
FUZZ = "fuzz of the catalog loader: bytes and structure"

SOUND_BYTES = json.dumps(SOUND, ensure_ascii=False).encode()
SNIPPETS = [b"", b"..", b"/", b"\\", b"\\x", b"\\\\xff", b"\\u0000", b"\0", b"\xff", b'"', b",", b"[", b"]", b"{", b"}"]
SNIPPETS += [b"-", b"9" * 20, b"1e9", b"true", b"null", b'"",', b'"..",', b'"/",', b"[],", b'["a",420,0,0,"b"],']


@pytest.mark.torture
@given(st.lists(st.tuples(st.integers(0, len(SOUND_BYTES)), st.integers(0, 30), st.sampled_from(SNIPPETS)), max_size=4))
@settings(counted, max_examples=300)
def test_any_change_of_bytes_is_refused_or_sound(faults: Note, changes: list[tuple[int, int, bytes]]) -> None:
    faults(7, FUZZ, 1)
    data = SOUND_BYTES
    for start, length, new in changes:
        data = data[:start] + new + data[start + length :]
    refused_or_sound(data)


@pytest.mark.torture
@given(st.binary(max_size=60))
@settings(counted, max_examples=100)
def test_any_bytes_are_refused_or_sound(faults: Note, data: bytes) -> None:
    faults(7, FUZZ, 1)
    refused_or_sound(data)


NAMES = ["", ".", "..", "/", "a/..", "../a", "greeting", "/greeting", "bin", "bin/", "bin/run", "/bin/run", "bin//run"]
NAMES += ["link", "link/run", "bin/deep", "\0", "\\", "\\\\", "\\xff", "\\x41", "n" * 256, "é" * 128, "user.x", "text"]
VALUES: list[Any] = [*NAMES, 0, 1, -1, 2, 9, 23, 36, 2**63, 2**64, 10**30, 1.0, 1e300, True, False, None, [], {}, [[]]]
VALUES += [{"a": "b"}, ["greeting", 420, 6, 0, "ab" * 32], [2, 23], "ab" * 32, "AB" * 32, "binary", "bytecode"]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a document."""
    if isinstance(value, list):
        return [place for index in range(len(value)) for place in [(value, index), *places(value[index])]]
    if isinstance(value, dict):
        return [place for key in value for place in [(value, key), *places(value[key])]]
    return []


def mutate(document: dict[str, Any], randomly: random.Random) -> None:
    """One change of the structure: another value, one less, one twice, one moved, two swapped."""
    container, key = randomly.choice(places(document))
    action = randomly.randrange(6)
    if action <= 1:
        container[key] = copy.deepcopy(randomly.choice(VALUES))
    elif action == 2:
        del container[key]
    elif action == 3 and isinstance(container, list):
        container.insert(randomly.randrange(len(container) + 1), copy.deepcopy(container[key]))
    elif action == 4:
        other, there = randomly.choice(places(document))
        container[key] = copy.deepcopy(other[there])
    elif isinstance(container[key], int):
        container[key] += randomly.choice([-9, -8, -1, 1, 8, 9])
    elif isinstance(container, list):
        container.insert(key, copy.deepcopy(randomly.choice(VALUES)))
    else:
        container[randomly.choice(NAMES)] = container.pop(key)


@pytest.mark.torture
@given(st.randoms(use_true_random=True), st.integers(1, 3))
@settings(counted, max_examples=500)
def test_any_change_of_structure_is_refused_or_sound(faults: Note, randomly: random.Random, changes: int) -> None:
    faults(7, FUZZ, 1)
    document = copy.deepcopy(randomly.choice([SOUND, IN_PROJECT]))
    for _ in range(changes):
        if places(document):
            mutate(document, randomly)
    refused_or_sound(json.dumps(document).encode())
