"""Any change of a catalog: refused with a message, or restored without a trace outside library and space."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holo import Catalog, CatalogInvalid, HoloError, Hololib
from support import compare, trees

pytestmark = [
    pytest.mark.torture,
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

SNIPPETS = [
    b"",
    b"..",
    b"/",
    b"\\",
    b"\\u0000",
    b"\xff",
    b'"',
    b",",
    b"[",
    b"]",
    b"-",
    b"9" * 20,
    b"null",
    b'"..",',
    b"{}",
]


@pytest.fixture
def library(tmp_path: Path) -> Hololib:
    return Hololib(tmp_path / "home")


def test_any_change_of_catalog_bytes_is_refused_or_harmless(
    library: Hololib, tmp_path: Path, torture: bool, faults: Callable[[int, str, int], None]
) -> None:
    library.record(trees.nasty(tmp_path / "source", xattrs=True), "env")
    sound = library.catalog("env").to_json()
    randomly = random.Random(1)
    count = 20_000 if torture else 300
    faults(7, "fuzz of the catalog loader: bytes", count)
    refused = 0
    for _ in range(count):
        data = bytearray(sound)
        for _ in range(randomly.randrange(1, 4)):
            position = randomly.randrange(len(data))
            if randomly.random() < 0.5:
                data[position] ^= 1 << randomly.randrange(8)
            else:
                data[position : position + randomly.randrange(9)] = randomly.choice(SNIPPETS)
        try:
            Catalog.from_json(bytes(data), "mutant.json")
        except CatalogInvalid:
            refused += 1
    assert refused > count // 3


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a document."""
    keys = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def mutate(document: dict[str, Any], values: list[Any], randomly: random.Random) -> None:
    container, key = randomly.choice(places(document))
    value, action = container[key], randomly.randrange(5)
    if action == 0 and isinstance(container, list):
        container.insert(key, copy.deepcopy(randomly.choice([value, *values])))
    elif action == 1:
        other, there = randomly.choice(places(document))
        container[key] = copy.deepcopy(other[there])
    elif action == 2:
        del container[key]
    elif action == 3 and isinstance(value, int):
        container[key] = value + randomly.choice([-8, -1, 1, 8, 0o4000])
    else:
        container[key] = copy.deepcopy(randomly.choice(values))


def test_accepted_catalog_writes_only_into_its_space(
    library: Hololib, tmp_path: Path, torture: bool, faults: Callable[[int, str, int], None]
) -> None:
    outside = tmp_path / "outside"
    trees.write(outside / "precious", b"nobody's business")
    source = trees.small(tmp_path / "given" / "source".ljust(90, "-"))
    (source / "link").symlink_to(outside)
    (source / "bin" / "inside").symlink_to(source / "lib")
    recorder = Hololib(tmp_path / "recorder")
    recorder.record(source, "env")
    document = json.loads(recorder.catalog("env").to_json())
    given = tmp_path / "given"
    shutil.copytree(tmp_path / "recorder" / "hololib" / "library", given / "library")
    names = ["..", ".", "", "link", "link/precious", "../outside", str(outside), "bin", "lib", "data.txt", "deep", "\0"]
    values = [*names, *(["x", *row[1:]] for row in document["directories"][1][3]), ["link", str(outside), 0], 0, -1]
    values += [2**63, 1.5, True, None, [], {}, [str(outside), 0o777, 0, [], []], ["link", 0o777, 0, [], []]]
    randomly = random.Random(2)
    before = compare.snapshot(outside)
    files = sorted(given.rglob("*"))
    accepted = 0
    count = 10_000 if torture else 250
    faults(7, "fuzz of the catalog: restored, nothing outside is touched", count)
    for number in range(count):
        mutant = copy.deepcopy(document)
        for _ in range(randomly.randrange(1, 4)):
            mutate(mutant, values, randomly)
        evil = tmp_path / "given" / "evil.json"
        evil.write_text(json.dumps(mutant), encoding="utf-8")
        place = tmp_path / "jail" / f"{number}"
        try:
            library.init("space", evil, to=place, strategy="copy")
        except HoloError:
            pass
        else:
            accepted += 1
            assert (
                library.restore("space", verify=True, strategy="copy").unchanged == library.catalog("evil").totals.files
            )
            library.delete("space")
        evil.unlink()
        shutil.rmtree(tmp_path / "jail", ignore_errors=True)
        assert compare.snapshot(outside) == before, mutant
        assert set(os.listdir(tmp_path)) <= {"home", "recorder", "outside", "given", "jail"}, mutant
    assert sorted(given.rglob("*")) == files
    assert accepted > count // 50
