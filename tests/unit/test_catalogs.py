"""catalogs/: the example is valid and really restores, and the schema is that of the model."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from holo.catalog import Catalog
from holo.catalog_model import json_schema
from holo.digest import of
from support.cli import Holo

CATALOGS = Path(__file__).parents[2] / "catalogs"
HELLO = CATALOGS / "hello.json"

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


def test_the_schema_is_current() -> None:
    written = (CATALOGS / "catalog.schema.json").read_text(encoding="utf-8")
    assert written == json_schema(), "write holo.catalog_model.json_schema() to catalogs/catalog.schema.json"


def test_the_schema_knows_every_key_of_the_example() -> None:
    schema = json.loads(json_schema())
    document = json.loads(HELLO.read_text(encoding="utf-8"))
    assert set(document) == set(schema["properties"]) - {"project"}  # which only version 2 has
    assert schema["additionalProperties"] is False


def test_the_example_is_valid_and_its_library_is_exactly_what_it_names() -> None:
    catalog = Catalog.from_json(HELLO.read_bytes(), str(HELLO))
    wanted = {row[4]: row[2] for _, row in catalog.files()}
    blobs = {path.name: path.read_bytes() for path in (CATALOGS / "library").rglob("*") if path.is_file()}
    assert {name: len(content) for name, content in blobs.items()} == wanted
    assert all(of(content) == name for name, content in blobs.items())


def test_the_example_has_one_row_per_line() -> None:
    text = HELLO.read_text(encoding="utf-8")
    rows: list[Any] = [row for directory in json.loads(text)["directories"] for row in (*directory[3], *directory[4])]
    lines = [line.strip().removesuffix(",") for line in text.splitlines()]
    assert all(json.dumps(row) in lines for row in rows)


@local
def test_the_example_restores_and_runs_on_a_fresh_machine(holo: Holo, strategy: str) -> None:
    report = holo("init", "--space", "hello", HELLO, "--strategy", strategy, "--json").json()
    space = Path(report["path"])
    for command in ("hello", "hi"):
        ran = holo("run", "--space", "hello", "--", command)
        assert ran.stdout == f"Hello from a space.\nThis is {space}\n"
    assert os.readlink(space / "greeting") == f"{space}/share/greeting.txt"
    assert os.readlink(space / "bin" / "hi") == "hello"
    assert list((space / "var").iterdir()) == []
    assert stat.S_IMODE((space / "bin" / "hello").stat().st_mode) == 0o755
    assert report["files"]["relocated"] == 1


@local
def test_the_example_is_kept_in_canonical_form_and_repairs(holo: Holo) -> None:
    made = holo("init", "--space", "hello", HELLO, "--json").json()
    canonical = Catalog.from_json(HELLO.read_bytes(), "").to_json()
    assert made["digest"] == of(canonical)
    assert (holo.library / "catalog" / f"{made['digest']}.json").read_bytes() == canonical
    (Path(made["path"]) / "share" / "greeting.txt").unlink()
    repaired = holo("restore", "--space", "hello", "--json").json()
    assert repaired["files"]["unchanged"] == repaired["files"]["total"] - 1
    assert "Hello" in holo("run", "--space", "hello", "--", "hello").stdout


@local
def test_a_catalog_without_its_blobs_or_with_damaged_ones_is_refused(holo: Holo) -> None:
    lonely = shutil.copy(HELLO, holo.root / "hello.json")
    assert "library" in holo("init", "--space", "hello", lonely, code=1).stderr
    shutil.copytree(CATALOGS / "library", holo.root / "library")
    damaged = next(path for path in (holo.root / "library").rglob("*") if path.is_file())
    damaged.write_bytes(b"?" * damaged.stat().st_size)
    assert damaged.name in holo("init", "--space", "hello", lonely, code=3).stderr
    assert holo("catalogs", "--json").json() == {"catalogs": []}
