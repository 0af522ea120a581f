"""`holo check`: every kind of damage is found, attributed, and repaired from each source there is."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from holo import CheckReport, Hololib, NotFound, UsageError
from holo import digest as digests
from support import compare, damage, records, trees
from support.cli import Holo
from support.filesystems import Filesystem

# The threads that Python 3.12 warns of are the test runner's, and hold no lock that a child takes.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
on_btrfs = pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
raw_and_zstd = pytest.mark.parametrize("compression", ["raw", "zstd"])

DATA = b"data\n" * 8000
OTHER = b"only in the other\n" * 3000
RANDOM = random.Random(4)


class Station:
    """A library with two catalogs, `env` and `other`, and a space of each: `one` and `two`."""

    def __init__(self, filesystem: Filesystem, compression: str) -> None:
        self.root = filesystem.root
        self.holo = Holo(filesystem.root)
        self.holo.settings.write_text(f"library:\n  compression: {compression}\n")
        self.source = filesystem.root / "source".ljust(90, "-")
        trees.write(self.source / "bin" / "tool", f"#!{self.source}/bin/python\nprint('{self.source}')\n", mode=0o755)
        trees.write(self.source / "data", DATA)
        trees.write(self.source / "again" / "data", DATA, mode=0o600)
        trees.write(self.source / "small", b"small and in both")
        trees.write(self.source / "empty")
        (self.source / "link").symlink_to("data")
        trees.settle(self.source)
        self.other = filesystem.root / "other".ljust(90, "-")
        trees.write(self.other / "data", OTHER)
        trees.write(self.other / "small", b"small and in both")
        trees.settle(self.other)
        self.library = Hololib(self.holo.home)
        self.library.home.library.compression = compression
        self.library.record(self.source, "env")
        self.library.record(self.other, "other")
        self.one = Path(self.library.init("one", "env", strategy="copy").path)
        self.two = Path(self.library.init("two", "other", strategy="copy").path)

    def blob(self, content: bytes) -> Path:
        """The one file that holds this content in the library."""
        digest = digests.of(content)
        (found,) = (self.holo.library / "library" / digest[:2]).glob(f"{digest}*")
        return found

    def catalog(self, name: str) -> Path:
        return self.holo.library / "catalog" / f"{self.library.home.library.catalogs.resolve(name)[1]}.json"

    def check(self, **options: Any) -> CheckReport:
        return self.library.check(**options)

    def quarantine(self) -> list[Path]:
        return [path for path in (self.holo.library / "quarantine").rglob("*") if not path.is_dir()]

    def lose_copies(self) -> None:
        """Nothing but the library has any content: both spaces are deleted."""
        self.library.delete("one")
        self.library.delete("two")


@pytest.fixture
def compression() -> str:
    return "raw"


@pytest.fixture
def station(filesystem: Filesystem, compression: str) -> Iterator[Station]:
    station = Station(filesystem, compression)
    yield station
    close(station.library)


def close(library: Hololib) -> None:
    for part in ("blobs", "links"):
        if part in library.home.library.__dict__:
            getattr(library.home.library, part).close()


def found(report: CheckReport) -> list[tuple[str, str, list[str], list[str]]]:
    return [(problem.kind, problem.path, problem.catalogs, problem.spaces) for problem in report.problems]


def assert_repaired(station: Station) -> CheckReport:
    """A repair repairs everything, a second check finds nothing, and both spaces can be made anew."""
    report = station.check(repair=True)
    assert report.problems
    assert [problem for problem in report.problems if problem.repaired is None] == []
    assert station.check().problems == []
    for name, source in (("env", station.source), ("other", station.other)):
        path = station.library.init(f"new-{name}", name, strategy="copy", verify=True).path
        assert compare.differences(source, Path(path)) == []
        station.library.delete(f"new-{name}")
    return report


# -- a sound library --------------------------------------------------------------------------------------


@local
@raw_and_zstd
def test_a_sound_library_is_sound_and_stays_as_it_is(station: Station) -> None:
    before = compare.snapshot(station.holo.library)
    shown = station.holo("check").stdout
    assert "all is well" in shown
    report = station.holo("check", "--space", "one", "--space", "two", "--json").json()
    assert report["problems"] == []
    stored = [path for path in (station.holo.library / "library").rglob("*") if path.is_file()]
    assert report["blobs"] == len(stored) == 5
    assert report["bytes"] == sum(path.stat().st_size for path in stored)
    assert (report["catalogs"], report["spaces"], report["links"], report["golden"]) == (2, 2, 0, 0)
    assert report["garbage"] == {"files": 0, "bytes": 0}
    assert compare.snapshot(station.holo.library) == before


@local
def test_a_library_that_is_not_there_is_sound(holo: Holo) -> None:
    assert holo("check", "--json").json()["catalogs"] == 0


@local
def test_garbage_is_counted_and_no_damage(station: Station) -> None:
    shard = station.blob(DATA).parent
    (shard / ".draft-1-2-3").write_bytes(b"left by a killed process")
    unfinished = shard / (shard.name + "0" * 62)
    unfinished.write_bytes(b"a blob that was never sealed")
    (station.holo.library / "library" / "what-is-this").write_bytes(b"?")
    station.library.remove_catalog("other")
    report = station.check()
    assert report.problems == []
    assert report.garbage_files == 4
    assert report.garbage_bytes > len(OTHER)


@local
def test_options_that_do_not_fit(station: Station) -> None:
    with pytest.raises(UsageError, match="for a repair only"):
        station.check(sources=[station.root])
    with pytest.raises(NotFound, match="no directory"):
        station.check(repair=True, sources=[station.root / "nowhere"])
    with pytest.raises(NotFound, match="no space 'three'"):
        station.check(spaces=["three"])
    station.holo("check", "--from", station.root, code=2)
    station.holo("check", "--space", "../x", code=2)


# -- blobs ------------------------------------------------------------------------------------------------


@local
@raw_and_zstd
@pytest.mark.parametrize("action", [*damage.QUIET, *damage.OBVIOUS], ids=lambda action: action.__name__)
def test_a_damaged_blob_is_found_attributed_and_repaired(station: Station, action: damage.Action) -> None:
    blob, other = station.blob(DATA), station.blob(OTHER)
    action(blob, other, random.Random(5))
    if action is damage.touch and blob.suffix:
        return  # a compressed form is always read, so it has no seal
    expected = [("blob", str(blob), ["env"], ["one"])]
    if action is damage.swap:
        expected.append(("blob", str(other), ["other"], ["two"]))
    if action is damage.delete:
        expected[0] = ("blob", str(blob).removesuffix(".zst"), ["env"], ["one"])
    assert sorted(found(station.check())) == sorted(expected)
    result = station.holo("check", "--json", code=3).json()
    assert [problem["repaired"] for problem in result["problems"]] == [None] * len(expected)
    report = assert_repaired(station)
    assert sorted(found(report)) == sorted(expected)
    for problem in report.problems:
        if action is damage.touch:
            assert problem.repaired == "sealed again"
        else:
            assert problem.repaired == f"restored from space {problem.spaces[0]}"
            assert (problem.quarantined is None) == (action is damage.delete)


@local
def test_a_blob_that_two_catalogs_need_concerns_both(station: Station) -> None:
    blob = station.blob(b"small and in both")
    blob.unlink()
    assert found(station.check()) == [("blob", str(blob), ["env", "other"], ["one", "two"])]
    shown = station.holo("check", code=3).stdout
    assert "catalogs: env, other; spaces: one, two" in shown
    assert "1 problem, 0 repaired" in shown


@local
@raw_and_zstd
def test_what_cannot_be_repaired_is_kept_and_reported_every_time(station: Station) -> None:
    station.lose_copies()
    blob = station.blob(DATA)
    damage.flip(blob, blob, RANDOM)
    bad = blob.read_bytes()
    for _ in range(2):
        report = station.check(repair=True)
        (problem,) = report.problems
        assert problem.repaired is None
        assert not report.is_sound
    assert [path.read_bytes() for path in station.quarantine()] == [bad]
    assert "holo check --repair" in station.holo("init", "--space", "x", "env", "--strategy", "copy", code=3).stderr
    station.holo("check", "--repair", code=3)
    station.holo("record", station.source, "--name", "env")
    assert station.check().problems == []


@local
def test_a_damaged_blob_that_no_catalog_needs_is_moved_away(station: Station) -> None:
    blob = station.blob(OTHER)
    station.library.remove_catalog("other")
    damage.flip(blob, blob, RANDOM)
    (problem,) = station.check(repair=True).problems
    assert (problem.path, problem.catalogs) == (str(blob), [])
    assert station.check().problems == []


@local
@raw_and_zstd
@pytest.mark.parametrize("damaged", ["raw", "zstd"])
def test_repaired_from_the_other_form(station: Station, damaged: str) -> None:
    digest = digests.of(DATA)
    for compress in (True, False):
        station.library.home.library.blobs.add(digest, [DATA], len(DATA), compress=compress)
    station.lose_copies()
    path = station.holo.library / "library" / digest[:2] / (digest + ".zst" * (damaged == "zstd"))
    damage.flip(path, path, random.Random(1))
    (problem,) = assert_repaired(station).problems
    assert problem.repaired == "restored from its other form"


@local
@raw_and_zstd
def test_repaired_from_a_link_form(station: Station) -> None:
    station.library.init("linked", "env", strategy="hardlink")
    station.library.delete("linked")
    station.lose_copies()
    blob = station.blob(DATA)
    blob.unlink()
    (problem,) = assert_repaired(station).problems
    assert problem.repaired == "restored from a link form"
    assert station.blob(DATA).suffix == blob.suffix


@on_btrfs
def test_repaired_from_a_golden_tree(station: Station) -> None:
    station.library.init("snapshot", "env")
    station.library.delete("snapshot")
    station.lose_copies()
    blobs = [station.blob(DATA), station.blob((station.source / "bin" / "tool").read_bytes())]
    for blob in blobs:
        blob.unlink()
    report = assert_repaired(station)
    assert [problem.repaired for problem in report.problems] == ["restored from the golden tree of env"] * 2


@local
def test_repaired_from_a_space_even_what_was_patched_in_it(station: Station) -> None:
    """A space's script names the space; the blob is what it was before."""
    content = (station.source / "bin" / "tool").read_bytes()
    assert (station.one / "bin" / "tool").read_bytes() != content
    station.blob(content).unlink()
    (problem,) = assert_repaired(station).problems
    assert problem.repaired == "restored from space one"
    assert station.blob(content).read_bytes() == content


@local
def test_a_space_that_was_changed_is_no_source(station: Station) -> None:
    (station.one / "data").write_bytes(DATA[:-1] + b"!")
    station.blob(DATA).unlink()
    (problem,) = station.check(repair=True).problems
    assert problem.repaired == "restored from space one"  # from again/data, which was not changed
    (station.one / "again" / "data").write_bytes(b"changed")
    station.blob(DATA).unlink()
    (problem,) = station.check(repair=True).problems
    assert problem.repaired is None


@local
@raw_and_zstd
@pytest.mark.parametrize("shape", ["home", "hololib", "library"])
def test_repaired_from_another_library(station: Station, shape: str) -> None:
    station.lose_copies()
    copy = station.root / "copy"
    shutil.copytree(station.holo.home, copy)
    (station.root / "mixed").mkdir()
    shutil.rmtree(station.holo.library / "library")
    place = {"home": copy, "hololib": copy / "hololib", "library": copy / "hololib" / "library"}[shape]
    report = station.holo("check", "--repair", "--from", station.root / "mixed", "--from", place, "--json").json()
    assert {problem["repaired"] for problem in report["problems"]} == {f"restored from {copy}/hololib/library"}
    assert len(report["problems"]) == 5
    assert station.check().problems == []


@local
@raw_and_zstd
def test_repaired_from_any_directory(station: Station) -> None:
    station.lose_copies()
    for content in (DATA, OTHER):
        station.blob(content).unlink()
    keep = trees.write(station.root / "any" / "where" / "no matter what.bin", DATA)
    trees.write(station.root / "any" / "of-the-same-size", DATA[::-1])
    (station.root / "any" / "link").symlink_to(station.other / "data")  # is not followed
    report = station.check(repair=True, sources=[station.root / "any"])
    assert {problem.path[-64:]: problem.repaired for problem in report.problems} == {
        digests.of(DATA): f"restored from {keep}",
        digests.of(OTHER): None,
    }
    report = station.check(repair=True, sources=[station.root / "any", station.other])
    assert report.is_sound


@local
def test_what_lies_under_another_name_is_found_in_the_quarantine(station: Station) -> None:
    station.lose_copies()
    damage.swap(station.blob(DATA), station.blob(OTHER), RANDOM)
    for problem in assert_repaired(station).problems:
        assert problem.repaired is not None
        assert "/quarantine/" in problem.repaired


@local
@raw_and_zstd
def test_what_was_put_away_for_an_error_that_has_passed_is_restored(station: Station) -> None:
    station.lose_copies()
    blob = station.blob(DATA)
    away = station.holo.library / "quarantine" / "earlier" / blob.relative_to(station.holo.library)
    away.parent.mkdir(parents=True)
    blob.rename(away)
    (problem,) = assert_repaired(station).problems
    assert str(problem.repaired).startswith(f"restored from {away.parents[1]}")


@local
def test_a_folder_of_blobs_that_is_a_file(station: Station) -> None:
    shard = station.blob(DATA).parent
    shutil.rmtree(shard)
    shard.write_bytes(b"not a folder")
    assert str(shard) in [problem.path for problem in station.check().problems]
    assert_repaired(station)


@local
def test_a_repair_takes_the_form_that_the_settings_ask_for(station: Station) -> None:
    station.holo.settings.write_text("library:\n  compression: zstd\n")
    station.blob(DATA).unlink()
    station.holo("check", "--repair")
    assert station.blob(DATA).suffix == ".zst"
    assert zstandard.ZstdDecompressor().decompress(station.blob(DATA).read_bytes()) == DATA


# -- link forms -------------------------------------------------------------------------------------------


@local
@pytest.mark.parametrize("action", [*damage.QUIET, damage.touch], ids=lambda action: action.__name__)
def test_a_damaged_link_form_is_found_and_made_again(station: Station, action: damage.Action) -> None:
    station.library.init("linked", "env", strategy="hardlink")
    forms = sorted((station.holo.library / "links").glob("*/*"))
    form = next(path for path in forms if path.name.startswith(digests.of(DATA)))
    other = next(path for path in forms if path.name.startswith(digests.of(b"small and in both")))
    action(form, other, random.Random(5))
    report = station.check()
    if action is damage.delete:
        assert report.problems == []  # it is derived, and made again
    else:
        assert ("link", str(form), ["env"], ["linked", "one"]) in found(report)
        assert_repaired(station)
    linked = Path(station.library.init("again", "env", strategy="hardlink", verify=True).path)
    assert compare.differences(station.source, linked, library=station.holo.library) == []


# -- catalogs and names -----------------------------------------------------------------------------------


@local
@pytest.mark.parametrize("action", [*damage.QUIET, damage.replace_by_directory], ids=lambda action: action.__name__)
def test_a_damaged_catalog_is_found_and_restored_from_a_library(station: Station, action: damage.Action) -> None:
    copy = station.root / "copy"
    shutil.copytree(station.holo.library, copy)
    catalog, other = station.catalog("env"), station.catalog("other")
    action(catalog, other, random.Random(5))
    expected = [("catalog", str(catalog), ["env"], ["one"])]
    if action is damage.swap:
        expected.append(("catalog", str(other), ["other"], ["two"]))
    assert sorted(found(station.check())) == sorted(expected)
    if action is damage.swap:  # both are in the quarantine, under each other's name
        assert_repaired(station)
        return
    assert not station.check(repair=True).is_sound
    assert len(station.quarantine()) == len(expected) - (action in (damage.delete, damage.replace_by_directory))
    assert sorted(found(station.check())) == sorted(expected), "still missed, for its name means it"
    station.blob(DATA).unlink()
    report = station.check(repair=True, sources=[copy])
    assert report.is_sound
    assert station.check().problems == []
    assert station.library.restore("one").unchanged == 5


@local
def test_a_catalog_that_is_lost_for_good_can_be_given_up(station: Station) -> None:
    station.catalog("env").unlink()
    station.holo("check", "--repair", code=3)
    station.holo("catalogs", "--remove", "env")
    station.holo("check")
    (problem,) = station.check(spaces=["one"]).problems
    assert (problem.kind, problem.what) == ("space", "its catalog is not in the library")


@local
@pytest.mark.parametrize("action", [*damage.QUIET, damage.replace_by_directory], ids=lambda action: action.__name__)
def test_a_damaged_name_is_found_and_never_means_another_catalog(station: Station, action: damage.Action) -> None:
    names = station.holo.library / "names"
    action(names / "env.json", names / "other.json", random.Random(1))
    report = station.check()
    if action is damage.delete:
        assert report.problems == []  # the catalog is there, under its digest
        return
    assert ("name", str(names / "env.json"), ["env"], []) in found(report)
    station.check(repair=True)
    assert station.check().problems == []
    for summary in station.library.catalogs():
        assert summary.name in (None, {90: "env"}[90] if summary.prefix == str(station.source) else "other")


@local
def test_a_name_that_still_says_what_it_means_is_written_anew(station: Station) -> None:
    path = station.holo.library / "names" / "env.json"
    damage.rewrite(path, path.read_bytes().replace(b'"files": 5', b'"files": 7'))
    (problem,) = assert_repaired(station).problems
    assert problem.repaired == "written anew"
    assert station.library.home.library.catalogs.summary("env").files == 5  # type: ignore[union-attr]


@local
def test_a_sealed_name_that_is_not_about_its_catalog(station: Station) -> None:
    records.edit(station.holo.library / "names" / "env.json", files=7)
    (problem,) = assert_repaired(station).problems
    assert (problem.kind, problem.what, problem.repaired) == ("name", "it is not about its catalog", "written anew")


# -- what is known of spaces ------------------------------------------------------------------------------


@local
@pytest.mark.parametrize("action", [*damage.QUIET, damage.replace_by_directory], ids=lambda action: action.__name__)
def test_a_damaged_record_of_a_space_is_found(station: Station, action: damage.Action) -> None:
    folder = station.holo.holotree / ".spaces"
    action(folder / "one.json", folder / "two.json", random.Random(1))
    trees.write(station.one / "extra")
    assert ("record", str(folder / "one.json"), [], ["one"]) in found(station.check())
    if action is not damage.delete:
        station.holo("restore", "--space", "one", code=1)  # neither believed nor changed
    assert {problem.repaired is not None for problem in station.check(repair=True).problems} == {True}
    assert station.check().problems == []
    for name, source in (("one", station.source), ("two", station.other)):
        assert compare.differences(source, Path(station.library.restore(name).path)) == []
    assert station.check(spaces=["one", "two"]).problems == []


@local
def test_a_record_that_is_lost_with_its_mark_is_found_by_its_folder(station: Station) -> None:
    folder = station.holo.holotree / ".spaces"
    for kind in ("json", "mark"):
        (folder / f"one.{kind}").unlink()
    assert found(station.check(repair=True)) == [("record", str(station.one), [], [])]
    assert str(station.one) in [problem.path for problem in station.check().problems]
    station.library.init("one", "env", force=True)
    assert station.check(spaces=["one", "two"]).problems == []


@local
def test_a_mark_tells_of_a_space_elsewhere_whose_record_is_lost(station: Station) -> None:
    folder = station.holo.holotree / ".spaces"
    place = station.root / "elsewhere"
    station.library.init("out", "env", to=place)
    (folder / "out.json").unlink()
    assert [space.name for space in station.library.spaces()] == ["one", "out", "two"]
    assert found(station.check()) == [("record", str(folder / "out.json"), [], ["out"])]
    station.library.gc()
    trees.write(place / "extra")
    assert compare.differences(station.source, Path(station.library.restore("out").path)) == []
    assert not (place / "extra").exists()
    (folder / "out.json").unlink()
    station.library.delete("out")
    assert not place.exists()
    # The mark that was copied says nothing: it may be somebody else's, and name any directory.
    shutil.copy(folder / "one.mark", folder / "one.copy")
    (folder / "one.copy").replace(folder / "one.mark")
    (folder / "one.json").unlink()
    assert [space.name for space in station.library.spaces()] == ["two"]
    station.library.gc()
    assert not (folder / "one.mark").exists()


@local
def test_every_flipped_bit_of_a_record_is_found(station: Station) -> None:
    """One could make it a space at another path, whose files a restore would remove."""
    path = station.holo.holotree / ".spaces" / "one.json"
    sound = path.read_bytes()
    for position in range(len(sound)):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 1 << position % 8]) + sound[position + 1 :])
        with pytest.raises(Exception, match="damaged"):
            station.library.space("one")
    path.write_bytes(sound)
    assert station.library.space("one").path == str(station.one)


# -- golden trees -----------------------------------------------------------------------------------------


def golden(station: Station) -> Path:
    (tree,) = (path for path in (station.holo.library / "golden").glob("[0-9a-f]*") if not path.suffix)
    return tree


def set_writable(tree: Path, writable: bool) -> None:
    value = "false" if writable else "true"
    subprocess.run(["btrfs", "property", "set", "-f", tree, "ro", value], check=True)


GOLDEN_DAMAGE = {
    "edited": lambda tree: damage.flip(tree / "data", tree / "data", RANDOM),
    "removed": lambda tree: (tree / "small").unlink(),
    "added": lambda tree: (tree / "new").write_bytes(b"new"),
    "mode": lambda tree: (tree / "small").chmod(0o777),
    "symlink": lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("/etc/passwd")),
    "relocated": lambda tree: (tree / "bin" / "tool").write_text("#!/evil\n"),
}


@on_btrfs
@pytest.mark.parametrize("protected", [True, False], ids=["protected-again", "left-writable"])
@pytest.mark.parametrize("what", GOLDEN_DAMAGE)
def test_a_golden_tree_that_was_changed_is_found_and_never_used(station: Station, what: str, protected: bool) -> None:
    station.library.init("first", "env")
    tree = golden(station)
    set_writable(tree, True)
    GOLDEN_DAMAGE[what](tree)
    if protected:
        set_writable(tree, False)
    assert found(station.check()) == [("golden", str(tree), ["env"], ["first", "one"])]
    path = station.library.init("second", "env").path
    assert compare.differences(station.source, Path(path)) == []
    assert station.check().problems == [], "it was made again"


@on_btrfs
@pytest.mark.parametrize("action", damage.QUIET, ids=lambda action: action.__name__)
def test_a_damaged_outline_is_found_and_never_used(station: Station, action: damage.Action) -> None:
    station.library.init("first", "env")
    station.library.init("other", "other")
    folder = station.holo.library / "golden"
    outlines = [folder / f"{station.library.home.library.catalogs.resolve(name)[1]}.json" for name in ("env", "other")]
    action(*outlines, random.Random(5))
    assert found(station.check())[0][1] in [str(path.with_suffix("")) for path in outlines]
    report = station.library.init("second", "env")
    assert report.strategy.used == "snapshot"
    assert compare.differences(station.source, Path(report.path)) == []
    if action is not damage.swap:
        assert station.check().problems == [], "it was made again"
    else:
        assert_repaired(station)


@on_btrfs
def test_a_repair_removes_a_changed_golden_tree(station: Station) -> None:
    station.library.init("first", "env")
    tree = golden(station)
    set_writable(tree, True)
    (tree / "data").write_bytes(b"changed")
    (problem,) = assert_repaired(station).problems
    assert problem.repaired == "removed; it is made again when it is needed"
    assert not tree.exists()


@on_btrfs
def test_the_seal_of_a_golden_tree_lasts(station: Station) -> None:
    """Through everything that changes nothing in it: reading, snapshots, sync, other writes."""
    station.library.init("first", "env")
    inode = golden(station).stat()
    for number in range(3):
        subprocess.run(["btrfs", "filesystem", "sync", station.root], check=True, capture_output=True)
        (station.root / f"unrelated-{number}").write_bytes(bytes(100_000))
        for path in golden(station).rglob("*"):
            if path.is_file():
                path.read_bytes()
        assert station.library.init(f"space-{number}", "env").strategy.used == "snapshot"
    time.sleep(0.1)
    os.sync()
    assert station.check().problems == []
    assert (golden(station).stat().st_dev, golden(station).stat().st_ctime_ns) == (inode.st_dev, inode.st_ctime_ns)


# -- spaces -----------------------------------------------------------------------------------------------


@local
def test_a_space_is_compared_with_its_catalog(station: Station) -> None:
    damage.flip(station.one / "data", station.one, RANDOM)
    shutil.rmtree(station.one / "again")
    (station.one / "small").chmod(0o600)
    (station.one / "link").unlink()
    (station.one / "more").write_bytes(b"more")
    assert station.check(spaces=["two"]).problems == []
    report = station.check(spaces=["one"], repair=True)
    assert {(problem.kind, problem.path, problem.what) for problem in report.problems} == {
        ("space", str(station.one / "data"), "it is not as recorded"),
        ("space", str(station.one / "again"), "it is not there"),
        ("space", str(station.one / "small"), "it is not as recorded"),
        ("space", str(station.one / "link"), "it is not there"),
        ("space", str(station.one / "more"), "it is not in the catalog"),
        ("space", str(station.one), "its mode, time or attributes are not as recorded"),
    }
    assert not report.is_sound, "a repair does not change spaces"
    station.holo("check", "--space", "one", code=3)
    station.holo("restore", "--space", "one", "--verify")
    station.holo("check", "--space", "one")


@local
def test_a_space_that_is_gone_or_unfinished(station: Station) -> None:
    shutil.rmtree(station.two)
    records.edit(station.holo.holotree / ".spaces" / "one.json", state="restoring")
    report = station.check(spaces=["one", "two"])
    assert sorted((problem.path, problem.what) for problem in report.problems) == [
        (str(station.one), "its last restore has not ended"),
        (str(station.two), "it cannot be opened: No such file or directory"),
    ]


@local
def test_a_record_that_names_no_way_there_is(station: Station) -> None:
    """As one by a later version may."""
    records.edit(station.holo.holotree / ".spaces" / "one.json", used="teleport")
    assert station.check(spaces=["one"]).problems == []
    assert station.library.restore("one").unchanged == 5


@local
def test_a_space_whose_blob_is_damaged_is_compared_after_the_repair(station: Station) -> None:
    blob = station.blob((station.source / "bin" / "tool").read_bytes())
    damage.flip(blob, blob, RANDOM)
    assert {problem.kind for problem in station.check(spaces=["one"]).problems} == {"blob", "space"}
    assert station.check(spaces=["one"], repair=True).is_sound


# -- locks and permissions --------------------------------------------------------------------------------


@local
@pytest.mark.parametrize(
    ("lock", "mode", "arguments"),
    [
        ("hololib/lock", fcntl.LOCK_EX, []),
        ("hololib/lock", fcntl.LOCK_SH, ["--repair"]),
        ("holotree/.spaces/one.lock", fcntl.LOCK_EX, ["--space", "one"]),
    ],
    ids=["library", "repair", "space"],
)
def test_waits_for_its_turn(station: Station, lock: str, mode: int, arguments: list[str]) -> None:
    with (station.holo.home / lock).open("r") as held:
        fcntl.flock(held, mode)
        process = station.holo.start("check", *arguments)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("waiting for ")
    assert process.wait(timeout=30) == 0
    process.communicate()


@local
def test_checks_at_the_same_time(station: Station) -> None:
    with (station.holo.home / "hololib" / "lock").open("r") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert station.holo("check").stderr == ""


@pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("locked_before", [True, False])
def test_a_library_on_a_read_only_mount(station: Station, locked_before: bool) -> None:
    if not locked_before:
        (station.holo.library / "lock").unlink()
    blob = station.blob(DATA)
    damage.flip(blob, blob, RANDOM)
    home = station.holo.home
    subprocess.run(["mount", "--bind", home, home], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", home], check=True)
        result = station.holo("check", "--space", "one", "--json", code=3).json()
        assert [problem["path"] for problem in result["problems"]] == [str(blob)]
        assert "Read-only file system" in station.holo("check", "--repair", code=1).stderr
    finally:
        subprocess.run(["umount", home], check=True)


@on_btrfs
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_a_library_that_one_may_only_read(station: Station) -> None:
    """There is a golden tree with a file that only its owner may read; that is no damage."""
    station.library.init("snapshot", "env")
    for folder in station.root.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    code = "import os, sys; os.setuid(54321); import holo.cli; sys.argv[1:] = {!r}; holo.cli.main()"
    for arguments, expected in ((["check", "--space", "two", "--json"], 0), (["check", "--repair"], 1)):
        script = (
            f"import sys, ctypes, holo.api, holo.check, holo.cli.render, zstandard, blake3; {code.format(arguments)}"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], env=station.holo.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, done.stderr
        if expected:
            assert "Permission denied" in done.stderr
        else:
            assert json.loads(done.stdout)["problems"] == []


# -- a repair that is killed ------------------------------------------------------------------------------

KILLED = """
import os, sys, holo
from holo import platform
left = int(sys.argv[2])
def counted(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*arguments, **options)
    return call
CALLS = {platform: ("rename", "create_file", "set_file", "make_directory"), os: ("rename", "write", "mkdir", "unlink")}
for module, names in CALLS.items():
    for name in names:
        setattr(module, name, counted(getattr(module, name)))
report = holo.Hololib(sys.argv[1]).check(repair=True)
os._exit(0 if report.is_sound else 3)
"""


@local
@pytest.mark.torture
def test_a_killed_repair_is_ended_by_the_next(station: Station, torture: bool, faults: Any) -> None:
    damage.swap(station.blob(DATA), station.blob(OTHER), RANDOM)
    damage.truncate(station.blob(b"small and in both"), station.one, RANDOM)
    station.holo.settings.write_text("workers: 1\n")  # or only a worker would be killed
    kept = station.root / "kept"
    shutil.copytree(station.holo.home, kept, symlinks=True)
    points = 0
    faults(4, "check --repair killed, and repeated", 0)
    for point in range(0, 1000, 1 if torture else 7):
        shutil.rmtree(station.holo.home)
        shutil.copytree(kept, station.holo.home, symlinks=True)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, station.holo.home, str(point)],
            env=station.holo.environment({"PYTHONPATH": str(Path(__file__).parents[2])}),
            check=False,
        )
        faults(4, "check --repair killed, and repeated", done.returncode != 0)
        assert done.returncode in (0, 9)
        library = Hololib(station.holo.home)
        assert library.check(repair=True).is_sound
        assert library.check().problems == []
        close(library)
        if done.returncode == 0:
            break
        points += 1
    assert points > 3
