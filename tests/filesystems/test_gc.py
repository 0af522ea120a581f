"""Collecting garbage: exactly what no catalog needs goes, when nobody works, and whatever interrupts it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holo import HoloError, Hololib, IntegrityError, NotFound, UsageError
from holo.catalog import Catalog
from holo.files import unseal
from holo.gc.collect import collect
from holo.gc.policy import Policy
from holo.hololib.inventory import needs
from holo.settings import parse_size
from support import compare, fiemap, trees
from support.cli import Holo, start_until

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
btrfs = pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
ext4 = pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)

DAY = 86_400
ELSEWHERE = "0123456789abcdef" * 4
"""The digest of something that no catalog here has."""


def tree(root: Path, *own: str) -> Path:
    """A directory to record: what all of them have in common, and files of its own."""
    trees.small(root)
    for name in own:
        trees.write(root / "own" / name, f"{name}\n" * 20_000)
    return trees.settle(root)


def source(holo: Holo, name: str) -> Path:
    return holo.root / "sources" / name


def record(holo: Holo, name: str, *own: str) -> str:
    """Record a tree of that name; returns the digest."""
    digest: str = holo("record", tree(source(holo, name), *own), "--name", name, "--json").json()["digest"]
    return digest


def gc(holo: Holo, *more: str) -> dict[str, Any]:
    report: dict[str, Any] = holo("gc", "--json", *more).json()
    return report


def rows(holo: Holo, *digests: str) -> list[tuple[int, int, str]]:
    """Mode, mtime and content of every file of these catalogs, read from the documents themselves."""
    documents = [json.loads((holo.library / "catalog" / f"{digest}.json").read_bytes()) for digest in digests]
    return [
        (row[1], row[3], row[4]) for document in documents for folder in document["directories"] for row in folder[3]
    ]


def names_in(folder: Path) -> set[str]:
    """The names of all files in the folders of a folder."""
    return {path.name for path in folder.glob("*/*")}


def expected_blobs(holo: Holo, *digests: str) -> set[str]:
    return {content for _, _, content in rows(holo, *digests)}


def expected_links(holo: Holo, *digests: str) -> set[str]:
    return {f"{content}-{mode & 0o555:03o}-{mtime}-{os.geteuid()}" for mode, mtime, content in rows(holo, *digests)}


def stems(folder: Path) -> set[str]:
    return {name.removesuffix(".zst") for name in names_in(folder)}


def used(holo: Holo, digest: str, days_ago: float) -> None:
    then = time.time() - days_ago * DAY
    (mark,) = (holo.library / "used").glob(f"{digest}-*")
    os.utime(mark, (then, then))


def catalogs(holo: Holo) -> set[str]:
    return {path.name.removesuffix(".json") for path in (holo.library / "catalog").iterdir()}


def is_valid(holo: Holo) -> None:
    """Every catalog has all its blobs."""
    for digest in catalogs(holo):
        assert expected_blobs(holo, digest) <= stems(holo.library / "library")


# ---------------------------------------------------------------- what goes and what stays


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)  # raw blobs; compressed ones
def test_exactly_what_no_catalog_needs_is_removed(holo: Holo) -> None:
    kept, gone = record(holo, "kept", "one", "two"), record(holo, "gone", "two", "three")
    for name in ("kept", "gone"):
        holo("init", "--space", name, name, "--strategy", "hardlink")
        holo("init", "--space", f"{name}-smart", name)
    assert expected_blobs(holo, kept) != expected_blobs(holo, gone) & expected_blobs(holo, kept) != set()
    before = names_in(holo.library / "library"), names_in(holo.library / "links")
    assert gc(holo)["removed"] == dict.fromkeys(("blobs", "links", "golden", "drafts", "locks", "layers", "spares"), 0)
    assert before == (names_in(holo.library / "library"), names_in(holo.library / "links"))

    linked = contents(Path(space(holo, "gone")))
    holo("catalogs", "--remove", "gone")
    assert names_in(holo.library / "library") == before[0]
    report = gc(holo)
    assert stems(holo.library / "library") == expected_blobs(holo, kept)
    # A file with the path in it is patched, so it is no link form.
    assert names_in(holo.library / "links") < expected_links(holo, kept)
    assert report["removed"]["blobs"] == len(before[0]) - len(names_in(holo.library / "library")) > 0
    assert report["removed"]["links"] == len(before[1]) - len(names_in(holo.library / "links")) > 0
    assert report["catalogs"] == report["kept"] == report["unknown"] == []
    for strategy in ("copy", "hardlink", "smart"):
        path = Path(holo("init", "--space", f"new-{strategy}", "kept", "--strategy", strategy, "--json").json()["path"])
        assert compare.differences(source(holo, "kept"), path, library=holo.library) == []
    # Spaces of a removed catalog keep what they have.
    assert compare.differences(source(holo, "gone"), Path(space(holo, "gone-smart"))) == []
    assert contents(Path(space(holo, "gone"))) == linked


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def space(holo: Holo, name: str) -> str:
    return str(next(item["path"] for item in holo("list", "--json").json()["spaces"] if item["name"] == name))


@local
def test_link_forms_that_appear_while_garbage_is_counted_stay(holo: Holo) -> None:
    """What is needed is read before the library is locked, and without link forms nothing is said of them."""
    digest = record(holo, "env")
    library = Hololib(holo.home).home.library
    known, _ = needs(library)
    assert known[digest].blobs
    assert not known[digest].links
    holo("init", "--space", "one", "env", "--strategy", "hardlink")
    forms = names_in(holo.library / "links")
    report = collect(library, known, {}, Policy(), dry_run=False)
    assert report.links == report.blobs == 0
    assert names_in(holo.library / "links") == forms != set()


@local
@pytest.mark.parametrize("is_own", [True, False])
def test_what_catalogs_need_is_found_without_loading_them(
    holo: Holo, monkeypatch: pytest.MonkeyPatch, *, is_own: bool
) -> None:
    """Of one that somebody else can have written, or whose names look like digests, all of it is loaded."""
    plain = record(holo, "plain")
    holo("init", "--space", "one", "plain", "--strategy", "hardlink")
    trees.write(source(holo, "odd") / ELSEWHERE, ELSEWHERE)
    odd = record(holo, "odd")
    library = Hololib(holo.home).home.library
    loaded: list[str] = []
    read = library.catalogs.read

    def told(digest: str) -> Catalog:
        loaded.append(digest)
        return read(digest)

    monkeypatch.setattr(library.catalogs, "read", told)
    if not is_own:
        Path(library.catalogs.path(plain)).chmod(0o666)
    found, damage = needs(library)
    assert damage == []
    assert {*loaded} == ({odd} if is_own else {plain, odd})
    for digest in (plain, odd):
        rows = [row for _, row in read(digest).files()]
        assert found[digest].blobs == {row[4] for row in rows}
        assert found[digest].links == {(row[4], row[1] & 0o555, row[3]) for row in rows}


@btrfs
def test_what_is_left_of_commands_and_catalogs_is_removed(holo: Holo) -> None:
    digest = record(holo, "env")
    holo("init", "--space", "one", "env", "--strategy", "hardlink")
    holo("init", "--space", "snapshot", "env")
    holo("init", "--space", "deleted", "env")
    holo("delete", "--space", "deleted")
    records, shard = holo.holotree / ".spaces", digest[:2]
    before = compare.walk(holo.home).keys()
    for path in (
        holo.library / "library" / ".draft-1-0-1",
        holo.library / "library" / ".holo-probe-1-aaaa",
        holo.library / "library" / shard / ".draft-1-0-1",
        holo.library / "links" / shard / ".draft-1-0-1",
        holo.library / "golden" / ".draft-1-0-1" / "folder" / "file",
        holo.library / "golden" / f"{ELSEWHERE}.json",
        holo.library / "golden" / ELSEWHERE / "file",
        holo.library / "catalog" / f"{digest}.json.123.456",
        holo.library / "names" / "env.json.123.456",
        holo.library / "library" / "01" / ELSEWHERE,
        holo.library / "library" / "01" / f"{ELSEWHERE}.zst",
        holo.library / "links" / "01" / f"{ELSEWHERE}-444--1500000000-0",
        holo.library / "used" / ELSEWHERE,
        records / "one.json.123.456",
        records / "never-made.json.123.456",
        records / "never-made.lock",
        records / ".holo-probe-1-aaaa-clone",
        holo.holotree / ".holo-doctor-aaaaaaaa" / "000.copy",
    ):
        trees.write(path)
    report = gc(holo)
    # Locks: of "deleted" and "never-made". Not removed with anything but gc, so not in what was before.
    assert report["removed"] == {
        "blobs": 2,
        "links": 1,
        "golden": 1,
        "drafts": 11,
        "locks": 2,
        "layers": 0,
        "spares": 0,
    }
    assert report["unknown"] == []
    after = compare.walk(holo.home).keys()
    assert before - after == {b"holotree/.spaces/deleted.lock"}
    assert {name for name in after - before if not (holo.home / os.fsdecode(name)).is_dir()} == set()
    assert holo("restore", "--space", "one", "--strategy", "hardlink", "--json").json()["files"]["unchanged"] == 4


@local
def test_what_is_not_of_the_library_is_named_and_left_alone(holo: Holo) -> None:
    record(holo, "env")
    outside = trees.write(holo.root / "outside" / "01" / ELSEWHERE, "mine")
    strangers = [
        holo.library / "notes.txt",
        holo.library / "library" / "README",
        holo.library / "library" / "zz" / ELSEWHERE,
        holo.library / "library" / "ab" / ELSEWHERE,  # its digest begins differently
        holo.library / "library" / "01" / f"{ELSEWHERE}.gz",
        holo.library / "links" / "01" / ELSEWHERE,
        holo.library / "catalog" / "mine.json",
        holo.library / "names" / "no name.json",
        holo.library / "used" / "yesterday",
    ]
    for path in strangers:
        trees.write(path, "precious")
    (holo.library / "library" / "02").mkdir(exist_ok=True)
    link = holo.library / "library" / "02" / ("02" + ELSEWHERE[2:])
    link.symlink_to(outside)
    folder = holo.library / "links" / "02"
    folder.symlink_to(outside.parent)
    report = gc(holo)
    assert report["removed"] == dict.fromkeys(("blobs", "links", "golden", "drafts", "locks", "layers", "spares"), 0)
    named = {str(path) for path in (*strangers, link, folder)} - {str(holo.library / "library" / "zz" / ELSEWHERE)}
    assert set(report["unknown"]) == named | {str(holo.library / "library" / "zz")}
    assert all(path.read_text() == "precious" for path in strangers)
    assert outside.read_text() == "mine"
    assert str(strangers[0]) in holo("gc").stderr


def everything(holo: Holo) -> dict[bytes, tuple[object, ...]]:
    """All there is but locks, in which their holders sign."""
    return {name: found for name, found in compare.snapshot(holo.home).items() if not name.endswith(b"lock")}


@btrfs
def test_dry_run_tells_the_same_and_changes_nothing(holo: Holo) -> None:
    gone = record(holo, "gone", "one")
    record(holo, "kept")
    holo("init", "--space", "one", "gone")
    holo("init", "--space", "two", "gone", "--strategy", "hardlink")
    for name in ("one", "two"):
        holo("delete", "--space", name)
    used(holo, gone, 10)
    trees.write(holo.library / "library" / "01" / ".draft-1-0-1", "x" * 10_000)
    trees.write(holo.library / "stranger")
    before = everything(holo)
    planned = gc(holo, "--dry-run", "--keep-days", "5")
    assert everything(holo) == before
    assert "would remove catalog gone" in holo("gc", "--dry-run", "--keep-days", "5").stdout
    done = gc(holo, "--keep-days", "5")
    for report in (planned, done):
        del report["seconds"]
    assert planned | {"dry_run": False} == done
    assert [use["names"] for use in done["catalogs"]] == [["gone"]]
    assert all(done["removed"][what] for what in ("blobs", "links", "golden", "drafts", "locks"))
    assert gc(holo, "--keep-days", "5")["catalogs"] == []


@ext4
def test_freed_bytes_are_what_the_files_occupied(holo: Holo) -> None:
    record(holo, "env", "one", "two")
    files = list((holo.library / "library").glob("*/*"))
    occupied = sum(path.stat().st_blocks * 512 for path in files)
    holo("init", "--space", "one", "env", "--strategy", "hardlink")
    linked = sum(path.stat().st_blocks * 512 for path in (holo.library / "links").glob("*/*"))
    assert gc(holo)["bytes"] == {"freed": 0, "shared": 0, "left": occupied + linked}
    holo("catalogs", "--remove", "env")
    # The space still has the link forms.
    assert gc(holo)["bytes"] == {"freed": occupied, "shared": linked, "left": 0}


@btrfs
def test_bytes_that_others_share_are_not_called_freed(holo: Holo) -> None:
    record(holo, "env", "one")
    record(holo, "copied", "two")
    shutil.rmtree(source(holo, "copied"))
    blobs = list((holo.library / "library").glob("*/*"))
    os.sync()
    shared = sum(extent.length for path in blobs for extent in fiemap.extents(path) if extent.shared)
    alone = sum(extent.length for path in blobs for extent in fiemap.extents(path) if not extent.shared)
    assert shared > 0 < alone
    for name in ("env", "copied"):
        holo("catalogs", "--remove", name)
    report = gc(holo)
    assert report["bytes"]["shared"] == shared
    assert report["bytes"]["freed"] >= alone  # st_blocks rounds up what is inline


@local
def test_a_damaged_catalog_or_name_keeps_everything_that_may_be_needed(holo: Holo) -> None:
    digest = record(holo, "env")
    record(holo, "other", "one")
    holo("catalogs", "--remove", "other")
    library = Hololib(holo.home)
    before = compare.snapshot(holo.library / "library")
    for path, damage in (
        (holo.library / "catalog" / f"{digest}.json", b"{}"),
        (holo.library / "names" / "env.json", b"{"),
    ):
        sound = path.read_bytes()
        path.write_bytes(damage)
        for dry_run in (True, False):
            with pytest.raises(IntegrityError, match=path.name):
                library.gc(dry_run=dry_run)
        assert compare.snapshot(holo.library / "library") == before
        path.write_bytes(sound)
    path.write_bytes(b"?")
    refused = holo("gc", code=3)
    assert "holo check" in refused.stderr
    assert str(path) in refused.stderr


@local
def test_a_lost_catalog_keeps_everything_that_may_be_needed(holo: Holo) -> None:
    """What it needed can be restored together with it, so it is no garbage."""
    digest = record(holo, "env")
    before = compare.snapshot(holo.library / "library")
    (holo.library / "catalog" / f"{digest}.json").unlink()
    for arguments in (["--dry-run"], []):
        refused = holo("gc", *arguments, code=3)
        assert "'env' means" in refused.stderr
        assert "holo catalogs --remove env" in refused.stderr
    assert compare.snapshot(holo.library / "library") == before
    holo("catalogs", "--remove", "env")
    assert gc(holo)["removed"]["blobs"] > 0


# ---------------------------------------------------------------- policies


@pytest.fixture
def three(holo: Holo) -> dict[str, str]:
    """The digests of three catalogs, used 30, 20 and 10 days ago; each has 140 kB of its own."""
    found = {name: record(holo, name, name) for name in ("old", "middle", "new")}
    for name, days in (("old", 30), ("middle", 20), ("new", 10)):
        used(holo, found[name], days)
    return found


@local
def test_policy_removes_exactly_what_it_says(three: dict[str, str], holo: Holo) -> None:
    library = Hololib(holo.home)
    policies: list[tuple[dict[str, Any], str]] = [
        ({}, "old middle new"),
        ({"keep_days": 31}, "old middle new"),
        ({"keep_days": 25}, "middle new"),
        ({"keep_days": 0}, ""),
        ({"keep_last": 3}, "old middle new"),
        ({"keep_last": 5}, "old middle new"),
        ({"keep_last": 1}, "new"),
        ({"keep_last": 0}, ""),
        ({"max_size": "20GB"}, "old middle new"),
        ({"max_size": 0}, ""),
        ({"keep_days": 25, "keep_last": 1}, "new"),
        ({"keep_days": 15, "keep_last": 2}, "new"),
        ({"keep_days": 25, "max_size": "20GB"}, "middle new"),
    ]
    for policy, left in policies:
        # What was used longest ago goes first.
        gone = [[name] for name in three if name not in left.split()]
        assert [use.names for use in library.gc(dry_run=True, **policy).catalogs] == gone, policy
    library.gc(keep_days=15, keep_last=2)
    assert catalogs(holo) == {three["new"]} == {path.name[:64] for path in (holo.library / "used").iterdir()}
    assert {summary.name for summary in library.catalogs()} == {"new"}
    assert stems(holo.library / "library") == expected_blobs(holo, three["new"])


@local
def test_max_size_removes_as_little_as_fits(three: dict[str, str], holo: Holo) -> None:
    library = Hololib(holo.home)
    occupied = library.gc().bytes_left
    assert occupied == sum(path.stat().st_blocks * 512 for path in (holo.library / "library").glob("*/*"))
    assert library.gc(max_size=occupied).catalogs == []
    report = library.gc(max_size=occupied - 1)
    assert [use.names for use in report.catalogs] == [["old"]]
    assert report.bytes_left == library.gc(dry_run=True).bytes_left < occupied


@local
def test_what_a_space_holds_is_kept(three: dict[str, str], holo: Holo) -> None:
    for name in ("job-1", "job-2"):
        holo("init", "--space", name, "old")
    used(holo, three["old"], 30)
    report = gc(holo, "--keep-days", "15")
    assert [use["names"] for use in report["catalogs"]] == [["middle"]]
    assert [(use["names"], use["spaces"]) for use in report["kept"]] == [(["old"], ["job-1", "job-2"])]
    assert "job-1, job-2 hold it" in holo("gc", "--max-size", "0").stdout
    assert catalogs(holo) == {three["old"]}
    for name in ("job-1", "job-2"):
        holo("delete", "--space", name)
    assert gc(holo, "--keep-last", "0")["kept"] == []
    assert catalogs(holo) == set()
    assert names_in(holo.library / "library") == set()


@local
def test_a_space_whose_record_others_can_change_holds_its_catalog(three: dict[str, str], holo: Holo) -> None:
    holo("init", "--space", "one", "new")
    (holo.holotree / ".spaces" / "one.json").chmod(0o664)
    (kept,) = gc(holo, "--keep-last", "0")["kept"]
    assert (kept["digest"], kept["spaces"]) == (three["new"], ["one"])


def test_policy_needs_every_record_of_a_space(three: dict[str, str], holo: Holo) -> None:
    holo("init", "--space", "job", "old")
    (holo.holotree / ".spaces" / "job.json").write_text("{")
    library = Hololib(holo.home)
    with pytest.raises(HoloError, match=r"job\.json"):
        library.gc(keep_last=0)
    assert catalogs(holo) == set(three.values())
    assert library.gc().catalogs == []


@local
def test_record_init_and_restore_are_uses(three: dict[str, str], holo: Holo) -> None:
    assert [use["names"] for use in gc(holo, "--keep-days", "5", "--dry-run")["catalogs"]] == [
        ["old"],
        ["middle"],
        ["new"],
    ]
    holo("init", "--space", "one", "old")
    holo("init", "--space", "two", "middle")
    used(holo, three["middle"], 20)
    for look in (("restore", "--space", "two", "--dry-run"), ("catalogs",), ("list",), ("variables", "--space", "two")):
        holo(*look)
    assert [use["names"] for use in gc(holo, "--keep-days", "5", "--dry-run")["kept"]] == [["middle"]]
    holo("restore", "--space", "two")
    holo("record", source(holo, "new"), "--name", "new")
    report = gc(holo, "--keep-days", "5")
    assert report["catalogs"] == report["kept"] == []


@local
def test_a_use_that_cannot_be_noted_is_no_failure(holo: Holo) -> None:
    record(holo, "env")
    outside = trees.write(holo.root / "outside", mtime=1_000_000_000)
    (mark,) = (holo.library / "used").iterdir()
    mark.unlink()
    mark.symlink_to(outside)
    holo("init", "--space", "one", "env")
    assert outside.stat().st_mtime_ns == 1_000_000_000
    shutil.rmtree(holo.library / "used")
    (holo.library / "used").touch()
    holo("restore", "--space", "one")


@local
def test_all_names_of_a_removed_catalog_go(holo: Holo) -> None:
    digest = record(holo, "env")
    holo("record", source(holo, "env"), "--name", "alias")
    used(holo, digest, 3)
    report = Hololib(holo.home).gc(keep_days=2)
    assert [use.names for use in report.catalogs] == [["alias", "env"]]
    assert list((holo.library / "names").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1234", 1234),
        ("1k", 1000),
        ("20GB", 20 * 10**9),
        ("20 gb", 20 * 10**9),
        ("20G", 20 * 10**9),
        ("1.5TiB", 3 * 2**39),
        ("512Mi", 512 * 2**20),
        ("10B", 10),
    ],
)
def test_size_is_parsed(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "20XB", "1,5GB", "20iB", "٣GB"])
def test_wrong_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@local
def test_wrong_usage_is_refused(holo: Holo) -> None:
    assert "20XB" in holo("gc", "--max-size", "20XB", code=2).stderr
    for wrong in ("-1", "1.5", "x", ""):
        assert "must be a number from 0 up" in holo("gc", "--keep-last", wrong, code=2).stderr
    holo("gc", "--keep-days", "x", code=2)
    with pytest.raises(UsageError):
        Hololib(holo.home).gc(keep_days=-1)


# ---------------------------------------------------------------- locks


@ext4
def test_it_waits_for_a_running_restore_and_new_ones_wait_for_it(holo: Holo) -> None:
    big = holo.root / "big"
    for number in range(300):
        trees.write(big / f"{number % 20}" / f"{number}", f"{number}\n" * 500)
    holo("record", trees.settle(big), "--name", "big")
    digest = record(holo, "env", "one")
    holo("init", "--space", "small", "env")
    record(holo, "gone", "two")
    holo("catalogs", "--remove", "gone")
    garbage = stems(holo.library / "library") - expected_blobs(holo, *catalogs(holo))
    assert garbage

    running = start_until(holo, "holo.restore.populate", "init", "--space", "big", "big", "--strategy", "copy")
    state = holo.holotree / ".spaces" / "big.json"
    assert json.loads(unseal(state.read_bytes()))["state"] == "restoring"
    # A dry run shares the lock, and so does another restore.
    assert gc(holo, "--dry-run")["removed"]["blobs"] == len(garbage)
    holo("restore", "--space", "small")
    collecting = holo.start("gc", "--keep-last", "0", "--json")
    assert collecting.stderr is not None
    assert "waiting for the library" in collecting.stderr.readline()
    late = holo.start("restore", "--space", "small", "--json")
    time.sleep(1)
    assert collecting.poll() is None, "collected while a restore was running"
    assert late.poll() is None, "a restore that began later overtook"
    assert garbage <= stems(holo.library / "library")
    for process in (running, collecting, late):
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        if process is collecting:
            assert json.loads(stdout)["removed"]["blobs"] == len(garbage)
            assert len(json.loads(stdout)["kept"]) == 2
    assert not garbage & stems(holo.library / "library")
    assert digest in catalogs(holo)
    assert compare.differences(big, Path(space(holo, "big"))) == []


@local
def test_a_space_that_is_worked_on_keeps_its_lock_and_draft(holo: Holo) -> None:
    record(holo, "env")
    records = holo.holotree / ".spaces"
    draft = trees.write(records / "one.json.123.456")
    with (records / "one.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        report = Hololib(holo.home).gc()
        assert (report.drafts, report.locks) == (0, 0)
        assert draft.exists()
    report = Hololib(holo.home).gc()
    assert (report.drafts, report.locks) == (1, 1)
    assert list(records.iterdir()) == []


# ---------------------------------------------------------------- killed


def killed(holo: Holo, system_call: str, number: int, *arguments: str) -> bool:
    """Run holo and kill it when it makes that system call for that time. ``False``: it ended before."""
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={system_call}"]
    done = subprocess.run(
        [*strace, "-e", f"inject={system_call}:signal=SIGKILL:when={number}", sys.executable, "-m", "holo", *arguments],
        env=holo.environment(),
        cwd=holo.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 128 + signal.SIGKILL, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.torture
@btrfs
@pytest.mark.parametrize("arguments", [("gc", "--keep-last", "0"), ("catalogs", "--remove", "gone")], ids=" ".join)
def test_killed_anywhere_it_leaves_a_valid_library_and_the_rest_for_the_next(
    holo: Holo, arguments: tuple[str, ...], torture: bool, faults: Callable[[int, str, int], None]
) -> None:
    kept = record(holo, "kept", "one")
    library = Hololib(holo.home)
    library.init("one", "kept")
    tree(source(holo, "gone"), *"abcdefgh")
    kills = 0
    faults(5, f"{arguments[0]} killed at a system call", 0)
    for system_call in ("unlink", "unlinkat", "renameat", "fsync"):
        number = 1
        was_killed = True
        while was_killed:
            gone = library.record(source(holo, "gone"), "gone").digest
            for name, strategy in (("snapshot", "smart"), ("linked", "hardlink")):
                library.init(name, "gone", strategy=strategy)
                library.delete(name)
            was_killed = killed(holo, system_call, number, *arguments)
            kills += was_killed
            faults(5, f"{arguments[0]} killed at a system call", was_killed)
            is_valid(holo)
            is_there = gone in catalogs(holo)
            # Either all of it is there, but perhaps its name, or nothing that could be seen.
            names = {summary.name for summary in library.catalogs()}
            assert names == {"kept"} or (is_there and names in ({"kept", "gone"}, {"kept", None}))
            if is_there:
                restored = library.init("still-there", gone)
                assert compare.differences(source(holo, "gone"), Path(restored.path)) == []
                library.delete("still-there")
            else:
                with pytest.raises(NotFound):
                    library.init("other", "gone")
            library.gc(keep_last=0)
            assert catalogs(holo) == {kept}
            assert stems(holo.library / "library") == expected_blobs(holo, kept)
            assert {path.name for path in (holo.library / "names").iterdir()} == {"kept.json"}
            assert {path.name[:64] for path in (holo.library / "golden").iterdir()} == {kept, ".lock"}
            assert [path.name[:64] for path in (holo.library / "used").iterdir()] == [kept]
            number += 1 if torture else 8
    assert kills >= 4
