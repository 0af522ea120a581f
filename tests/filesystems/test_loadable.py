"""What `record` publishes can be loaded: a catalog is held to the loader's rules before it exists."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holo import Catalog
from holo.hololib import Library
from holo.record import record
from support import trees
from support.cli import Holo
from support.filesystems import Filesystem

LAST = 9_223_372_036
"""Seconds: the last whole ones that fit into 64 bits of nanoseconds, in the year 2262. All filesystems go on."""

ENOUGH = 70
"""Files. More than a worker gets at once."""


@pytest.mark.parametrize("name", ["file", "directory", "symlink", ""])
def test_a_time_that_no_catalog_holds_is_named_and_nothing_is_published(
    holo: Holo, filesystem: Filesystem, name: str
) -> None:
    source = filesystem.root / "it's a source"
    trees.write(source / "file", b"content")
    (source / "directory").mkdir()
    (source / "symlink").symlink_to("file")
    changed = source / name
    os.utime(changed, (LAST + 1, LAST + 1), follow_symlinks=False)
    assert os.lstat(changed).st_mtime_ns == (LAST + 1) * 10**9, "this filesystem cannot have such a time"

    failed = holo("record", source, "--name", "env", code=1)

    assert repr(name or ".") in failed.stderr
    assert holo("catalogs", "--json").json() == {"catalogs": []}
    holo("gc")
    hint = re.search("hint: .*: (touch .*)", failed.stderr)
    assert hint is not None
    subprocess.run(hint[1], shell=True, check=True)
    holo("record", source, "--name", "env")
    holo("init", "--space", "s", "env")


def test_the_last_time_that_a_catalog_holds_is_kept(holo: Holo, filesystem: Filesystem) -> None:
    file = trees.write(filesystem.root / "source" / "file", b"content", mtime=2**63 - 1)
    kept = file.stat().st_mtime_ns  # XFS and ext4 have nanoseconds here as well
    holo("record", file.parent, "--name", "env")
    path = holo("init", "--space", "s", "env", "--json").json()["path"]
    assert (Path(path) / "file").stat().st_mtime_ns == kept == 2**63 - 1
    assert holo("restore", "--space", "s", "--json").json()["files"]["unchanged"] == 1


def record_with(filesystem: Filesystem, at_once: Callable[[], object]) -> Catalog:
    """Record `source` with one worker; `at_once` is called when its first files have been read."""
    calls: list[int] = []

    def on_progress(done: int, _: int) -> None:
        if not calls:
            at_once()
        calls.append(done)

    library = Library(str(filesystem.root / "home"))
    report = record(library, str(filesystem.root / "source"), "env", workers=1, on_progress=on_progress)
    assert len(calls) > 1
    assert calls[-1] == report.files
    return library.catalogs.load(report.digest)


def linked(source: Path, first: str, second: str) -> None:
    trees.write(source / first, b"one content")
    (source / second).parent.mkdir(parents=True, exist_ok=True)
    (source / second).hardlink_to(source / first)
    for number in range(ENOUGH):
        trees.write(source / "middle" / f"{number:04}", b"%d" % number)


def test_a_hardlinked_file_that_changes_between_its_names_is_recorded_as_one(filesystem: Filesystem) -> None:
    source = filesystem.root / "source"
    linked(source, "first/name", "second/name")
    trees.write(source / "second" / "name.pyc", b"bytecode")
    catalog = record_with(filesystem, lambda: (source / "first" / "name").write_bytes(b"another, longer content"))
    rows = dict(catalog.files())
    assert catalog.hardlinks == [["first/name", "second/name"]]
    assert rows["first/name"] == rows["second/name"]
    assert rows["first/name"][2] == len(b"one content"), "read again"
    assert len(rows) == ENOUGH + 3


def test_a_name_that_is_replaced_after_the_scan_is_a_file_of_its_own(filesystem: Filesystem) -> None:
    source = filesystem.root / "source"
    linked(source, "zz/first", "zz/second")

    def replace() -> None:
        trees.write(source / "new", b"what has taken its place")
        (source / "new").replace(source / "zz" / "second")

    catalog = record_with(filesystem, replace)
    rows = dict(catalog.files())
    assert catalog.hardlinks == []
    assert rows["zz/first"][2] == len(b"one content")
    assert rows["zz/second"][2] == len(b"what has taken its place")


def test_every_name_of_a_file_has_the_warnings_and_the_kind_of_its_own(holo: Holo, filesystem: Filesystem) -> None:
    source = filesystem.root / "source"
    trees.write(source / "mod.py", f"path = '{source}/x'\n")
    (source / "mod.pyc").hardlink_to(source / "mod.py")
    trees.write(source / "a.txt", "/elsewhere\n")
    for name in ("one.pth", "two.pth", "three"):
        (source / name).hardlink_to(source / "a.txt")
    report = holo("record", source, "--name", "env", "--json").json()
    outside = [warning for warning in report["warnings"] if "points outside" in warning]
    assert sorted(warning.split()[0] for warning in outside) == ["one.pth", "two.pth"]
    assert report["files"] == 6
