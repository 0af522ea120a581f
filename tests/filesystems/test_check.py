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
from support import compare, damage, fiemap, records, trees
from support.cli import Holo
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks

# The threads that Python 3.12 warns of are the test runner's, and hold no lock that a child takes.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
on_btrfs = pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
raw_and_zstd = pytest.mark.parametrize("compression", ["raw", "zstd"])

DATA = b"data\n" * 8000
OTHER = b"only in the other\n" * 3000
RANDOM = random.Random(4)


class UsedLibrary:
    """A library with two catalogs, `env` and `other`, and a space of each: `one` and `two`."""

    def __init__(self, filesystem: Filesystem, forks: Forks, compression: str) -> None:
        self.root = filesystem.root
        self.holo = ForkedHolo(filesystem.root, forks)
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
def used(filesystem: Filesystem, forks: Forks, compression: str) -> Iterator[UsedLibrary]:
    used = UsedLibrary(filesystem, forks, compression)
    yield used
    close(used.library)


def close(library: Hololib) -> None:
    for part in ("blobs", "links"):
        if part in library.home.library.__dict__:
            getattr(library.home.library, part).close()


def found(report: CheckReport) -> list[tuple[str, str, list[str], list[str]]]:
    return [(problem.kind, problem.path, problem.catalogs, problem.spaces) for problem in report.problems]


def assert_repaired(used: UsedLibrary) -> CheckReport:
    """A repair repairs everything, a second check finds nothing, and both spaces can be made anew."""
    report = used.check(repair=True)
    assert report.problems
    assert [problem for problem in report.problems if problem.repaired is None] == []
    assert used.check().problems == []
    for name, source in (("env", used.source), ("other", used.other)):
        path = used.library.init(f"new-{name}", name, strategy="copy", verify=True).path
        assert compare.differences(source, Path(path)) == []
        used.library.delete(f"new-{name}")
    return report


# -- a sound library --------------------------------------------------------------------------------------


@local
@raw_and_zstd
def test_a_sound_library_is_sound_and_stays_as_it_is(used: UsedLibrary) -> None:
    before = compare.snapshot(used.holo.library)
    shown = used.holo("check").stdout
    assert "all is well" in shown
    report = used.holo("check", "--space", "one", "--space", "two", "--json").json()
    assert report["problems"] == []
    stored = [path for path in (used.holo.library / "library").rglob("*") if path.is_file()]
    assert report["blobs"] == len(stored) == 5
    assert report["bytes"] == sum(path.stat().st_size for path in stored)
    assert (report["catalogs"], report["spaces"], report["links"], report["golden"]) == (2, 2, 0, 0)
    assert report["garbage"] == {"files": 0, "bytes": 0}
    assert compare.snapshot(used.holo.library) == before


@local
def test_a_library_that_is_not_there_is_sound(holo: Holo) -> None:
    assert holo("check", "--json").json()["catalogs"] == 0


@local
def test_garbage_is_counted_and_no_damage(used: UsedLibrary) -> None:
    shard = used.blob(DATA).parent
    (shard / ".draft-1-2-3").write_bytes(b"left by a killed process")
    unfinished = shard / (shard.name + "0" * 62)
    unfinished.write_bytes(b"a blob that was never sealed")
    (used.holo.library / "library" / "what-is-this").write_bytes(b"?")
    used.library.remove_catalog("other")
    report = used.check()
    assert report.problems == []
    assert report.garbage_files == 4
    assert report.garbage_bytes > len(OTHER)


@local
def test_wrong_options_are_refused(used: UsedLibrary) -> None:
    with pytest.raises(UsageError, match="for a repair only"):
        used.check(sources=[used.root])
    with pytest.raises(NotFound, match="no directory"):
        used.check(repair=True, sources=[used.root / "nowhere"])
    with pytest.raises(NotFound, match="no space 'three'"):
        used.check(spaces=["three"])
    used.holo("check", "--from", used.root, code=2)
    used.holo("check", "--space", "../x", code=2)


# -- blobs ------------------------------------------------------------------------------------------------


@local
@raw_and_zstd
@pytest.mark.parametrize("action", [*damage.QUIET, *damage.OBVIOUS], ids=lambda action: action.__name__)
def test_a_damaged_blob_is_found_attributed_and_repaired(used: UsedLibrary, action: damage.Action) -> None:
    blob, other = used.blob(DATA), used.blob(OTHER)
    action(blob, other, random.Random(5))
    if action is damage.touch and blob.suffix:
        return  # a compressed form is always read, so it has no seal
    expected = [("blob", str(blob), ["env"], ["one"])]
    if action is damage.swap:
        expected.append(("blob", str(other), ["other"], ["two"]))
    if action is damage.delete:
        expected[0] = ("blob", str(blob).removesuffix(".zst"), ["env"], ["one"])
    assert sorted(found(used.check())) == sorted(expected)
    result = used.holo("check", "--json", code=3).json()
    assert [problem["repaired"] for problem in result["problems"]] == [None] * len(expected)
    report = assert_repaired(used)
    assert sorted(found(report)) == sorted(expected)
    for problem in report.problems:
        if action is damage.touch:
            assert problem.repaired == "sealed again"
        else:
            assert problem.repaired == f"restored from space {problem.spaces[0]}"
            assert (problem.quarantined is None) == (action is damage.delete)


@local
def test_a_blob_that_two_catalogs_need_concerns_both(used: UsedLibrary) -> None:
    blob = used.blob(b"small and in both")
    blob.unlink()
    assert found(used.check()) == [("blob", str(blob), ["env", "other"], ["one", "two"])]
    shown = used.holo("check", code=3).stdout
    assert "catalogs: env, other; spaces: one, two" in shown
    assert "1 problem, 0 repaired" in shown


@local
def test_of_many_problems_of_one_kind_some_are_shown(holo: Holo) -> None:
    for number in range(25):
        trees.write(holo.root / "source" / str(number), str(number))
    holo("record", holo.root / "source", "--name", "env")
    shutil.rmtree(holo.library / "library")
    shown = holo("check", code=3).stdout
    assert shown.count("it is not there") == 10
    assert "... 15 more like the last blob (--json shows all)" in shown
    assert "25 problems, 0 repaired" in shown
    assert "`holo check --repair` looks for intact copies" in shown
    assert len(holo("check", "--json", code=3).json()["problems"]) == 25
    assert "`holo check --repair`" not in holo("check", "--repair", code=3).stdout


@local
@raw_and_zstd
def test_what_cannot_be_repaired_is_kept_and_reported_every_time(used: UsedLibrary) -> None:
    used.lose_copies()
    blob = used.blob(DATA)
    damage.flip(blob, blob, RANDOM)
    bad = blob.read_bytes()
    for _ in range(2):
        report = used.check(repair=True)
        (problem,) = report.problems
        assert problem.repaired is None
        assert not report.is_sound
    assert [path.read_bytes() for path in used.quarantine()] == [bad]
    assert "holo check --repair" in used.holo("init", "--space", "x", "env", "--strategy", "copy", code=3).stderr
    assert "comes back" in used.holo("check", "--repair", code=3).stdout  # as it does here:
    used.holo("record", used.source, "--name", "env")
    assert used.check().problems == []


@local
def test_a_damaged_blob_that_no_catalog_needs_is_moved_away(used: UsedLibrary) -> None:
    blob = used.blob(OTHER)
    used.library.remove_catalog("other")
    damage.flip(blob, blob, RANDOM)
    (problem,) = used.check(repair=True).problems
    assert (problem.path, problem.catalogs) == (str(blob), [])
    assert used.check().problems == []


@local
@raw_and_zstd
@pytest.mark.parametrize("damaged", ["raw", "zstd"])
def test_repaired_from_the_other_form(used: UsedLibrary, damaged: str) -> None:
    digest = digests.of(DATA)
    for compress in (True, False):
        used.library.home.library.blobs.add(digest, [DATA], len(DATA), compress=compress)
    used.lose_copies()
    path = used.holo.library / "library" / digest[:2] / (digest + ".zst" * (damaged == "zstd"))
    damage.flip(path, path, random.Random(1))
    (problem,) = assert_repaired(used).problems
    assert problem.repaired == "restored from its other form"


@local
@pytest.mark.parametrize("compression", ["zstd"])
def test_what_follows_a_compressed_blob_is_damage(used: UsedLibrary) -> None:
    path = used.blob(DATA)
    path.chmod(0o600)
    with path.open("ab") as file:
        file.write(b"what nobody recorded")
    assert path.stem in used.holo("check", code=3).stdout
    bundle = used.root / "env.holo"
    assert path.stem in used.holo("export", "env", "--compress", "-o", bundle, code=3).stderr
    assert not bundle.exists()
    assert_repaired(used)
    used.holo("export", "env", "--compress", "-o", bundle)


@local
@raw_and_zstd
def test_repaired_from_a_link_form(used: UsedLibrary) -> None:
    used.library.init("linked", "env", strategy="hardlink")
    used.library.delete("linked")
    used.lose_copies()
    blob = used.blob(DATA)
    blob.unlink()
    (problem,) = assert_repaired(used).problems
    assert problem.repaired == "restored from a link form"
    assert used.blob(DATA).suffix == blob.suffix


@on_btrfs
def test_repaired_from_a_golden_tree(used: UsedLibrary) -> None:
    used.library.init("snapshot", "env")
    used.library.delete("snapshot")
    used.lose_copies()
    blobs = [used.blob(DATA), used.blob((used.source / "bin" / "tool").read_bytes())]
    for blob in blobs:
        blob.unlink()
    report = assert_repaired(used)
    assert [problem.repaired for problem in report.problems] == ["restored from the golden tree of env"] * 2


@local
def test_repaired_from_a_space_even_what_was_patched_in_it(used: UsedLibrary) -> None:
    """A space's script names the space; the blob is what it was before."""
    content = (used.source / "bin" / "tool").read_bytes()
    assert (used.one / "bin" / "tool").read_bytes() != content
    used.blob(content).unlink()
    (problem,) = assert_repaired(used).problems
    assert problem.repaired == "restored from space one"
    assert used.blob(content).read_bytes() == content


@local
def test_a_space_that_was_changed_is_no_source(used: UsedLibrary) -> None:
    (used.one / "data").write_bytes(DATA[:-1] + b"!")
    used.blob(DATA).unlink()
    (problem,) = used.check(repair=True).problems
    assert problem.repaired == "restored from space one"  # from again/data, which was not changed
    (used.one / "again" / "data").write_bytes(b"changed")
    used.blob(DATA).unlink()
    (problem,) = used.check(repair=True).problems
    assert problem.repaired is None


@local
@raw_and_zstd
@pytest.mark.parametrize("shape", ["home", "hololib", "library"])
def test_repaired_from_another_library(used: UsedLibrary, shape: str) -> None:
    used.lose_copies()
    copy = used.root / "copy"
    shutil.copytree(used.holo.home, copy)
    (used.root / "mixed").mkdir()
    shutil.rmtree(used.holo.library / "library")
    place = {"home": copy, "hololib": copy / "hololib", "library": copy / "hololib" / "library"}[shape]
    report = used.holo("check", "--repair", "--from", used.root / "mixed", "--from", place, "--json").json()
    assert {problem["repaired"] for problem in report["problems"]} == {f"restored from {copy}/hololib/library"}
    assert len(report["problems"]) == 5
    assert used.check().problems == []


@local
@raw_and_zstd
def test_repaired_from_any_directory(used: UsedLibrary) -> None:
    used.lose_copies()
    for content in (DATA, OTHER):
        used.blob(content).unlink()
    keep = trees.write(used.root / "any" / "where" / "no matter what.bin", DATA)
    trees.write(used.root / "any" / "of-the-same-size", DATA[::-1])
    (used.root / "any" / "link").symlink_to(used.other / "data")  # is not followed
    report = used.check(repair=True, sources=[used.root / "any"])
    assert {problem.path[-64:]: problem.repaired for problem in report.problems} == {
        digests.of(DATA): f"restored from {keep}",
        digests.of(OTHER): None,
    }
    report = used.check(repair=True, sources=[used.root / "any", used.other])
    assert report.is_sound


@local
def test_catalog_of_a_newer_version_stays(used: UsedLibrary) -> None:
    """A newer holo that shares the library needs it."""
    document = b'{"version":99,"prefix":"/opt/env","everything":"else"}'
    newer = used.holo.library / "catalog" / f"{digests.of(document)}.json"
    newer.write_bytes(document)
    newer.chmod(0o444)
    (problem,) = used.check(repair=True).problems
    assert (problem.path, problem.quarantined, problem.repaired) == (str(newer), None, None)
    assert "its version is 99" in problem.what
    assert newer.read_bytes() == document
    assert "its version is 99" in used.holo("gc", code=3).stderr


@local
def test_blob_stored_under_another_name_is_found_in_the_quarantine(used: UsedLibrary) -> None:
    used.lose_copies()
    damage.swap(used.blob(DATA), used.blob(OTHER), RANDOM)
    for problem in assert_repaired(used).problems:
        assert problem.repaired is not None
        assert "/quarantine/" in problem.repaired


@local
@raw_and_zstd
def test_blob_quarantined_for_a_passing_error_is_restored(used: UsedLibrary) -> None:
    used.lose_copies()
    blob = used.blob(DATA)
    away = used.holo.library / "quarantine" / "earlier" / blob.relative_to(used.holo.library)
    away.parent.mkdir(parents=True)
    blob.rename(away)
    (problem,) = assert_repaired(used).problems
    assert str(problem.repaired).startswith(f"restored from {away.parents[1]}")


@local
def test_shard_that_is_a_file_is_repaired(used: UsedLibrary) -> None:
    shard = used.blob(DATA).parent
    shutil.rmtree(shard)
    shard.write_bytes(b"not a folder")
    assert str(shard) in [problem.path for problem in used.check().problems]
    assert_repaired(used)


@local
def test_a_repair_takes_the_form_that_the_settings_ask_for(used: UsedLibrary) -> None:
    used.holo.settings.write_text("library:\n  compression: zstd\n")
    used.blob(DATA).unlink()
    used.holo("check", "--repair")
    assert used.blob(DATA).suffix == ".zst"
    assert zstandard.ZstdDecompressor().decompress(used.blob(DATA).read_bytes()) == DATA


# -- link forms -------------------------------------------------------------------------------------------


@local
@pytest.mark.parametrize("action", [*damage.QUIET, damage.touch], ids=lambda action: action.__name__)
def test_a_damaged_link_form_is_found_and_made_again(used: UsedLibrary, action: damage.Action) -> None:
    used.library.init("linked", "env", strategy="hardlink")
    forms = sorted((used.holo.library / "links").glob("*/*"))
    form = next(path for path in forms if path.name.startswith(digests.of(DATA)))
    other = next(path for path in forms if path.name.startswith(digests.of(b"small and in both")))
    action(form, other, random.Random(5))
    report = used.check()
    if action is damage.delete:
        assert report.problems == []  # it is derived, and made again
    else:
        assert ("link", str(form), ["env"], ["linked", "one"]) in found(report)
        assert_repaired(used)
    linked = Path(used.library.init("again", "env", strategy="hardlink", verify=True).path)
    assert compare.differences(used.source, linked, library=used.holo.library) == []


# -- catalogs and names -----------------------------------------------------------------------------------


@local
@pytest.mark.parametrize("action", [*damage.QUIET, damage.replace_by_directory], ids=lambda action: action.__name__)
def test_a_damaged_catalog_is_found_and_restored_from_a_library(used: UsedLibrary, action: damage.Action) -> None:
    copy = used.root / "copy"
    shutil.copytree(used.holo.library, copy)
    catalog, other = used.catalog("env"), used.catalog("other")
    action(catalog, other, random.Random(5))
    expected = [("catalog", str(catalog), ["env"], ["one"])]
    if action is damage.swap:
        expected.append(("catalog", str(other), ["other"], ["two"]))
    assert sorted(found(used.check())) == sorted(expected)
    if action is damage.swap:  # both are in the quarantine, under each other's name
        assert_repaired(used)
        return
    assert not used.check(repair=True).is_sound
    assert len(used.quarantine()) == len(expected) - (action in (damage.delete, damage.replace_by_directory))
    assert sorted(found(used.check())) == sorted(expected), "still missed, for its name means it"
    used.blob(DATA).unlink()
    report = used.check(repair=True, sources=[copy])
    assert report.is_sound
    assert used.check().problems == []
    assert used.library.restore("one").unchanged == 5


@local
def test_a_catalog_that_is_lost_for_good_can_be_given_up(used: UsedLibrary) -> None:
    used.catalog("env").unlink()
    assert "`holo catalogs REF --remove` gives it up" in used.holo("check", "--repair", code=3).stdout
    used.holo("catalogs", "--remove", "env")
    used.holo("check")
    (problem,) = used.check(spaces=["one"]).problems
    assert (problem.kind, problem.what) == ("space", "its catalog is not in the library")


@local
@pytest.mark.parametrize("action", [*damage.QUIET, damage.replace_by_directory], ids=lambda action: action.__name__)
def test_a_damaged_name_is_found_and_never_means_another_catalog(used: UsedLibrary, action: damage.Action) -> None:
    names = used.holo.library / "names"
    action(names / "env.json", names / "other.json", random.Random(1))
    report = used.check()
    if action is damage.delete:
        assert report.problems == []  # the catalog is there, under its digest
        return
    assert ("name", str(names / "env.json"), ["env"], []) in found(report)
    used.check(repair=True)
    assert used.check().problems == []
    for summary in used.library.catalogs():
        assert summary.name in (None, {90: "env"}[90] if summary.prefix == str(used.source) else "other")


@local
def test_a_name_that_still_says_what_it_means_is_written_anew(used: UsedLibrary) -> None:
    path = used.holo.library / "names" / "env.json"
    damage.rewrite(path, path.read_bytes().replace(b'"files": 5', b'"files": 7'))
    (problem,) = assert_repaired(used).problems
    assert problem.repaired == "written anew"
    assert used.library.home.library.catalogs.summary("env").files == 5  # type: ignore[union-attr]


@local
def test_a_sealed_name_that_is_not_about_its_catalog(used: UsedLibrary) -> None:
    records.edit(used.holo.library / "names" / "env.json", files=7)
    (problem,) = assert_repaired(used).problems
    assert (problem.kind, problem.what, problem.repaired) == ("name", "it is not about its catalog", "written anew")


# -- what is known of spaces ------------------------------------------------------------------------------


@local
@pytest.mark.parametrize("action", [*damage.QUIET, damage.replace_by_directory], ids=lambda action: action.__name__)
def test_a_damaged_record_of_a_space_is_found(used: UsedLibrary, action: damage.Action) -> None:
    folder = used.holo.holotree / ".spaces"
    action(folder / "one.json", folder / "two.json", random.Random(1))
    trees.write(used.one / "extra")
    assert ("record", str(folder / "one.json"), [], ["one"]) in found(used.check())
    if action is not damage.delete:
        used.holo("restore", "--space", "one", code=1)  # neither believed nor changed
    assert {problem.repaired is not None for problem in used.check(repair=True).problems} == {True}
    assert used.check().problems == []
    for name, source in (("one", used.source), ("two", used.other)):
        assert compare.differences(source, Path(used.library.restore(name).path)) == []
    assert used.check(spaces=["one", "two"]).problems == []


@local
def test_a_record_that_is_lost_with_its_mark_is_found_by_its_folder(used: UsedLibrary) -> None:
    folder = used.holo.holotree / ".spaces"
    for kind in ("json", "mark"):
        (folder / f"one.{kind}").unlink()
    assert found(used.check(repair=True)) == [("record", str(used.one), [], [])]
    assert str(used.one) in [problem.path for problem in used.check().problems]
    used.library.init("one", "env", force=True)
    assert used.check(spaces=["one", "two"]).problems == []


@local
def test_a_mark_tells_of_a_space_elsewhere_whose_record_is_lost(used: UsedLibrary) -> None:
    folder = used.holo.holotree / ".spaces"
    place = used.root / "elsewhere"
    used.library.init("out", "env", to=place)
    (folder / "out.json").unlink()
    assert [space.name for space in used.library.spaces()] == ["one", "out", "two"]
    assert found(used.check()) == [("record", str(folder / "out.json"), [], ["out"])]
    used.library.gc()
    trees.write(place / "extra")
    assert compare.differences(used.source, Path(used.library.restore("out").path)) == []
    assert not (place / "extra").exists()
    (folder / "out.json").unlink()
    used.library.delete("out")
    assert not place.exists()
    # The mark that was copied says nothing: it may be somebody else's, and name any directory.
    shutil.copy(folder / "one.mark", folder / "one.copy")
    (folder / "one.copy").replace(folder / "one.mark")
    (folder / "one.json").unlink()
    assert [space.name for space in used.library.spaces()] == ["two"]
    used.library.gc()
    assert not (folder / "one.mark").exists()


@local
def test_every_flipped_bit_of_a_record_is_found(used: UsedLibrary) -> None:
    """One could make it a space at another path, whose files a restore would remove."""
    path = used.holo.holotree / ".spaces" / "one.json"
    sound = path.read_bytes()
    for position in range(len(sound)):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 1 << position % 8]) + sound[position + 1 :])
        with pytest.raises(Exception, match="damaged"):
            used.library.space("one")
    path.write_bytes(sound)
    assert used.library.space("one").path == str(used.one)


# -- golden trees -----------------------------------------------------------------------------------------


def golden(used: UsedLibrary) -> Path:
    (tree,) = (path for path in (used.holo.library / "golden").glob("[0-9a-f]*") if not path.suffix)
    return tree


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
def test_a_golden_tree_that_was_changed_is_found_and_never_used(used: UsedLibrary, what: str, protected: bool) -> None:
    used.library.init("first", "env")
    tree = golden(used)
    damage.set_writable(tree, True)
    GOLDEN_DAMAGE[what](tree)
    if protected:
        damage.set_writable(tree, False)
    assert found(used.check()) == [("golden", str(tree), ["env"], ["first", "one"])]
    path = used.library.init("second", "env").path
    assert compare.differences(used.source, Path(path)) == []
    assert used.check().problems == [], "it was made again"


@on_btrfs
@pytest.mark.parametrize("action", damage.QUIET, ids=lambda action: action.__name__)
def test_a_damaged_outline_is_found_and_never_used(used: UsedLibrary, action: damage.Action) -> None:
    used.library.init("first", "env")
    used.library.init("other", "other")
    folder = used.holo.library / "golden"
    outlines = [folder / f"{used.library.home.library.catalogs.resolve(name)[1]}.json" for name in ("env", "other")]
    action(*outlines, random.Random(5))
    assert found(used.check())[0][1] in [str(path.with_suffix("")) for path in outlines]
    report = used.library.init("second", "env")
    assert report.strategy.used == "snapshot"
    assert fiemap.common_bytes(report.path, folder) > 0
    assert compare.differences(used.source, Path(report.path)) == []
    if action is not damage.swap:
        assert used.check().problems == [], "it was made again"
    else:
        assert_repaired(used)


@on_btrfs
def test_a_repair_removes_a_changed_golden_tree(used: UsedLibrary) -> None:
    used.library.init("first", "env")
    tree = golden(used)
    damage.set_writable(tree, True)
    (tree / "data").write_bytes(b"changed")
    (problem,) = assert_repaired(used).problems
    assert problem.repaired == "removed; it is made again when it is needed"
    assert not tree.exists()


@on_btrfs
def test_the_seal_of_a_golden_tree_lasts(used: UsedLibrary) -> None:
    """Through everything that changes nothing in it: reading, snapshots, sync, other writes."""
    used.library.init("first", "env")
    inode = golden(used).stat()
    for number in range(3):
        subprocess.run(["btrfs", "filesystem", "sync", used.root], check=True, capture_output=True)
        (used.root / f"unrelated-{number}").write_bytes(bytes(100_000))
        for path in golden(used).rglob("*"):
            if path.is_file():
                path.read_bytes()
        report = used.library.init(f"space-{number}", "env")
        assert report.strategy.used == "snapshot"
        assert fiemap.common_bytes(report.path, golden(used)) > 0
    time.sleep(0.1)
    os.sync()
    assert used.check().problems == []
    assert (golden(used).stat().st_dev, golden(used).stat().st_ctime_ns) == (inode.st_dev, inode.st_ctime_ns)


# -- spaces -----------------------------------------------------------------------------------------------


@local
def test_a_space_is_compared_with_its_catalog(used: UsedLibrary) -> None:
    damage.flip(used.one / "data", used.one, RANDOM)
    shutil.rmtree(used.one / "again")
    (used.one / "small").chmod(0o600)
    (used.one / "link").unlink()
    (used.one / "more").write_bytes(b"more")
    assert used.check(spaces=["two"]).problems == []
    report = used.check(spaces=["one"], repair=True)
    assert {(problem.kind, problem.path, problem.what) for problem in report.problems} == {
        ("space", str(used.one / "data"), "it is not as recorded"),
        ("space", str(used.one / "again"), "it is not there"),
        ("space", str(used.one / "small"), "it is not as recorded"),
        ("space", str(used.one / "link"), "it is not there"),
        ("space", str(used.one / "more"), "it is not in the catalog"),
        ("space", str(used.one), "its mode, time or attributes are not as recorded"),
    }
    assert not report.is_sound, "a repair does not change spaces"
    used.holo("check", "--space", "one", code=3)
    used.holo("restore", "--space", "one", "--verify")
    assert " spaces, and all of one and two, in " in used.holo("check", "--space", "one", "--space", "two").stdout
    assert " spaces in " in used.holo("check", cwd=used.holo.root).stdout, "none was compared"


@local
def test_missing_or_unfinished_space_is_reported(used: UsedLibrary) -> None:
    shutil.rmtree(used.two)
    records.edit(used.holo.holotree / ".spaces" / "one.json", state="restoring")
    report = used.check(spaces=["one", "two"])
    assert sorted((problem.path, problem.what) for problem in report.problems) == [
        (str(used.one), "its last restore has not ended"),
        (str(used.two), "it cannot be opened: No such file or directory"),
    ]


@local
def test_record_with_an_unknown_method_is_no_problem(used: UsedLibrary) -> None:
    """As one by a later version may."""
    records.edit(used.holo.holotree / ".spaces" / "one.json", used="teleport")
    assert used.check(spaces=["one"]).problems == []
    assert used.library.restore("one").unchanged == 5


@local
def test_a_space_whose_blob_is_damaged_is_compared_after_the_repair(used: UsedLibrary) -> None:
    blob = used.blob((used.source / "bin" / "tool").read_bytes())
    damage.flip(blob, blob, RANDOM)
    assert {problem.kind for problem in used.check(spaces=["one"]).problems} == {"blob", "space"}
    assert used.check(spaces=["one"], repair=True).is_sound


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
def test_check_waits_for_the_library_lock(used: UsedLibrary, lock: str, mode: int, arguments: list[str]) -> None:
    with (used.holo.home / lock).open("r") as held:
        fcntl.flock(held, mode)
        process = used.holo.start("check", *arguments)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("waiting for ")
    assert process.wait(timeout=30) == 0
    process.communicate()


@local
def test_checks_at_the_same_time(used: UsedLibrary) -> None:
    with (used.holo.home / "hololib" / "lock").open("r") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert used.holo("check").stderr == ""


@pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("locked_before", [True, False])
def test_a_library_on_a_read_only_mount(used: UsedLibrary, locked_before: bool) -> None:
    if not locked_before:
        (used.holo.library / "lock").unlink()
    blob = used.blob(DATA)
    damage.flip(blob, blob, RANDOM)
    home = used.holo.home
    subprocess.run(["mount", "--bind", home, home], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", home], check=True)
        result = used.holo("check", "--space", "one", "--json", code=3).json()
        assert [problem["path"] for problem in result["problems"]] == [str(blob)]
        shown = used.holo("check", code=3).stdout
        assert "`holo check --repair`, by a user who may write to the library, looks for intact copies" in shown
        assert "Read-only file system" in used.holo("check", "--repair", code=1).stderr
    finally:
        subprocess.run(["umount", home], check=True)


@on_btrfs
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_a_library_that_one_may_only_read(used: UsedLibrary) -> None:
    """There is a golden tree with a file that only its owner may read; that is no damage."""
    used.library.init("snapshot", "env")
    for folder in used.root.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    code = "import os, sys; os.setuid(54321); import holo.cli; sys.argv[1:] = {!r}; holo.cli.main()"
    for arguments, expected in ((["check", "--space", "two", "--json"], 0), (["check", "--repair"], 1)):
        modules = "sys, ctypes, pickle, typer, holo.api, holo.check, holo.cli.app, holo.cli.render, zstandard, blake3"
        script = f"import {modules}; {code.format(arguments)}"
        done = subprocess.run(
            [sys.executable, "-c", script], env=used.holo.environment(), capture_output=True, text=True, check=False
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
def test_a_killed_repair_is_ended_by_the_next(used: UsedLibrary, torture: bool, faults: Any) -> None:
    damage.swap(used.blob(DATA), used.blob(OTHER), RANDOM)
    damage.truncate(used.blob(b"small and in both"), used.one, RANDOM)
    used.holo.settings.write_text("workers: 1\n")  # or only a worker would be killed
    kept = used.root / "kept"
    shutil.copytree(used.holo.home, kept, symlinks=True)
    points = 0
    faults(4, "check --repair killed, and repeated", 0)
    for point in range(0, 1000, 1 if torture else 7):
        shutil.rmtree(used.holo.home)
        shutil.copytree(kept, used.holo.home, symlinks=True)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, used.holo.home, str(point)],
            env=used.holo.environment({"PYTHONPATH": str(Path(__file__).parents[2])}),
            check=False,
        )
        faults(4, "check --repair killed, and repeated", done.returncode != 0)
        assert done.returncode in (0, 9)
        library = Hololib(used.holo.home)
        assert library.check(repair=True).is_sound
        assert library.check().problems == []
        close(library)
        if done.returncode == 0:
            break
        points += 1
    assert points > 3
