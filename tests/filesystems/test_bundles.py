"""Bundles: what one machine exports, another one imports or restores from, whatever their filesystems are."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from holo.hololib.offer import WORTH_CLONING
from support import compare, contents, damage, fiemap, filesystems, trees
from support.compare import data_map
from support.filesystems import NAMES
from support.forks import User
from support.libraries import catalogs
from support.machines import Machine, Make

BLOCK = 4096
ADA = User(1001)
PAIRS = [(a, b) for a, b in itertools.permutations(NAMES, 2) if (NAMES.index(a) + NAMES.index(b)) % 2]
"""Each filesystem exports to two others, and imports from two."""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two other users")


def place(root: Path, length: int) -> Path:
    """A path below ``root`` with so many bytes."""
    return root / "".ljust(length - len(os.fsencode(root)) - 1, "p")


def randomly(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


# -- from one machine to another ------------------------------------------------------------------------------------


@root_only
@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_an_environment_arrives_whole_for_another_user(here: str, there: str, machine: Make) -> None:
    a, b = machine(here), machine(there, ADA)
    source = place(a.root, 100)
    trees.nasty(source, xattrs=filesystems.xattrs(a.root) and filesystems.xattrs(b.root))
    small = trees.small(place(a.root, 60))
    a.record(source, "nasty")
    a.record(small, "small")
    bundle = a.export("nasty", "small", *(["--compress"] if PAIRS.index((here, there)) % 2 else []))
    bundle.chmod(0o644)
    report = b("import", bundle, "--json").json()
    assert sorted(catalog["name"] for catalog in report["catalogs"]) == ["nasty", "small"]
    assert b.is_sound()
    places = {"equal": place(b.root, 100), "shorter": place(b.root, 90)}
    for name, path in places.items():
        b.init(name, "nasty", to=path)
        assert compare.differences(source, path) == []
    longer = place(b.root, 140)
    b.init("longer", "small", to=longer)
    assert compare.differences(small, longer) == []
    done = subprocess.run([longer / "bin" / "hello"], capture_output=True, text=True, check=True)
    assert done.stdout == f"hello from {longer}\n"
    direct = place(b.root, 95)
    single = a.export("nasty", to="single.holo")
    c = machine(there, ADA)
    single.chmod(0o644)
    c.init("direct", single, to=direct)
    assert compare.differences(source, direct) == []
    assert c.is_empty()
    owners = {os.lstat(os.fsdecode(path)).st_uid for path in fiemap.regular_files(direct)}
    assert owners == {ADA.uid}


@pytest.mark.parametrize(
    ("filesystem", "options"),
    [("btrfs", []), ("xfs", []), ("ext4", ["--compress"]), ("tmpfs", []), ("btrfs", ["--compress"])],
    ids=["btrfs", "xfs", "ext4-compressed", "tmpfs", "btrfs-compressed"],
)
def test_a_space_straight_from_a_bundle_needs_no_library(filesystem: str, options: list[str], machine: Make) -> None:
    a, b = machine("local"), machine(filesystem)
    source = trees.small(a.root / "the-source")
    trees.write(source / "lib" / "big", randomly(1, 3 << 20))
    trees.write(source / "lib" / "twin", randomly(1, 3 << 20)[:-7])
    os.truncate(trees.write(source / "lib" / "hole"), 1 << 20)
    trees.settle(source)
    a.record(source, "app")
    bundle = shutil.move(a.export("app", *options), b.root / "app.holo")
    space = b.init("one", bundle)
    assert compare.differences(source, space) == []
    assert b.is_empty()
    assert [(row["name"], row["catalog"]) for row in b("list", "--json").json()["spaces"]] == [("one", "app")]
    assert b("restore", "--space", "one", "--json").json()["files"]["unchanged"] == 7
    # Damaged, it is restored from the bundle; and check sees that it is damaged.
    shutil.rmtree(space / "lib")
    assert "lib" in b("check", "--space", "one", code=3).stdout
    b("restore", "--space", "one")
    assert compare.differences(source, space) == []
    assert b.is_sound()
    assert b("restore", "--space", "one", "--verify", "--json").json()["files"]["unchanged"] == 7
    # Gone, it is asked for; nothing is lost but what it would take.
    bundle.rename(b.root / "elsewhere.holo")
    (space / "lib" / "big").unlink()
    said = b("restore", "--space", "one", code=1).stderr
    assert str(bundle) in said
    assert said.count("error: ") == 1
    assert str(bundle) in b("check", "--space", "one", code=3).stdout
    assert "one" in b("list").stdout
    (b.root / "elsewhere.holo").rename(bundle)
    b("restore", "--space", "one")
    assert compare.differences(source, space) == []
    assert b.is_empty()
    # Once the library has it, the bundle may go.
    b("import", bundle)
    bundle.unlink()
    shutil.rmtree(space / "lib")
    b("restore", "--space", "one")
    assert compare.differences(source, space) == []
    assert b.is_sound()


def test_what_became_of_the_bundle_of_a_space(machine: Make) -> None:
    a, b = machine("local"), machine("local")
    a.record(trees.small(a.root / "the-source"), "app")
    bundle = shutil.move(a.export("app"), b.root / "app.holo")
    b.init("one", bundle)
    bundle.rename(b.root / "elsewhere.holo")
    trees.write(a.root / "the-source" / "lib" / "new")
    a.record(a.root / "the-source", "app")
    newer = a.export("app", to="newer.holo")
    for what in "is gone", "has been replaced by another one":
        for question in ("restore", "one"), ("restore", "one", "--dry-run"), ("diff", "one", newer):
            said = b(*question, code=1).stderr
            assert f"error: the bundle that space 'one' was restored from {what}: {bundle}\n" in said
            assert "`holo import FILE`" in said
        status = b("status", "one", "--json").json()
        assert status["state"] == "unknown"
        assert what in status["reason"]
        checked = b("check", "--space", "one", code=3).stdout
        assert what in checked
        assert "check --repair" not in checked  # which does not change spaces
        assert "Import a bundle" in b("run", "one", "--ephemeral", "--", "true", code=1).stderr
        shutil.copy(newer, bundle)
    # As the message of the last one says:
    b("init", "one", bundle, "--force")
    assert b("status", "one", "--json").json()["state"] == "pristine"


def test_a_bundle_of_what_the_library_has_needs_no_bundle(machine: Make) -> None:
    a = machine("local")
    source = trees.small(a.root / "the-source")
    a.record(source, "app")
    bundle = a.export("app")
    space = a.init("one", bundle)
    bundle.unlink()
    (space / "lib" / "data.txt").unlink()
    a("restore", "--space", "one")
    assert compare.differences(source, space) == []


@pytest.mark.parametrize("strategy", ["smart", "reflink", "hardlink", "copy"])
def test_every_strategy_works_from_a_bundle(strategy: str, machine: Make) -> None:
    a = machine("xfs")
    source = trees.small(a.root / "the-source")
    trees.write(source / "large", randomly(2, 100_000))
    trees.settle(source)
    a.record(source, "app")
    bundle = a.export("app")
    b = machine("xfs")
    report = b("init", "--space", "one", bundle, "--strategy", strategy, "--json").json()
    assert report["strategy"]["used"] == ("copy" if strategy == "copy" else "reflink")
    assert compare.differences(source, Path(report["path"])) == []
    files = report["files"]
    assert files["reflinked"] + files["copied"] == files["total"]
    plan = b("restore", "--space", "one", "--dry-run", "--json").json()
    assert plan["digest"] == report["digest"]


# -- the same bytes -------------------------------------------------------------------------------------------------


def varied(root: Path) -> Path:
    """Contents of all the kinds that a library or a bundle treats differently."""
    trees.small(root)
    trees.write(root / "random", randomly(3, 2 << 20))
    trees.write(root / "nearly", randomly(3, 2 << 20)[: 1 << 20] + randomly(4, 1 << 20))
    trees.write(root / "text", b"".join(b"line %d of a long text\n" % number for number in range(100_000)))
    trees.write(root / "zeros", bytes(200_000))
    trees.write(root / "small-random", randomly(5, 20_000))
    trees.write(root / "empty")
    return trees.settle(root)


@pytest.mark.parametrize("options", [[], ["--compress"]], ids=["raw", "compressed"])
def test_a_bundle_has_the_same_bytes_each_time(options: list[str], machine: Make) -> None:
    a = machine("local")
    source = varied(a.root / "the-source")
    other = trees.small(a.root / "another-source")
    found = set()
    for number, compression in enumerate(["raw", "zstd", "raw"]):
        b = machine("local")
        b.settings.write_text(f"library: {{compression: {compression}}}\nworkers: {number + 1}\n")
        for tree, name in [(source, "app"), (other, "other")][:: -1 if number else 1]:
            b.record(tree, name)
        names = ["app", "other"][:: -1 if number == 2 else 1]
        found.add(b.export(*names, *options).read_bytes())
        found.add(b.export("other", "app", *options, to="again.holo").read_bytes())
        assert len(found) == 1, (compression, number)
        b.export("app", *options).unlink()
        assert stat.S_IMODE((b.root / "again.holo").stat().st_mode) == 0o644


def test_content_is_in_a_bundle_once(machine: Make) -> None:
    a = machine("local")
    for name in ("one", "two"):
        tree = a.root / f"tree-{name}"
        trees.write(tree / "a", randomly(6, 300_000))
        trees.write(tree / "again" / "b", randomly(6, 300_000), mode=0o755)
        trees.write(tree / name, name)
        a.record(trees.settle(tree), name)
    report = a("export", "one", "two", "-o", a.root / "both.holo", "--json").json()
    assert report["blobs"] == {"written": 3, "left_out": 0}
    assert report["bytes"]["content"] == 300_006
    assert report["bytes"]["written"] == (a.root / "both.holo").stat().st_size < 320_000


def test_frames_of_the_library_are_not_compressed_again(machine: Make) -> None:
    a = machine("local")
    a.keep("zstd")
    text = b"".join(b"a line of text: %d\n" % number for number in range(50_000))
    source = trees.write(a.root / "the-source" / "text", text).parent
    a.record(source, "app")
    frame = a.blob(text).with_suffix(".zst").read_bytes()
    bundle = a.export("app", "--compress")
    assert frame in bundle.read_bytes()
    b = machine("local")
    b.keep("zstd")
    b("import", bundle)
    assert b.blob(text).with_suffix(".zst").read_bytes() == frame
    assert not b.blob(text).exists()


def test_only_sound_frames_are_exported(machine: Make) -> None:
    """A library may have both forms of a blob, of which restores read the raw one."""
    a = machine("xfs")
    a.keep("zstd")
    text = b"".join(b"a line of text: %d\n" % number for number in range(50_000))
    source = trees.write(a.root / "the-source" / "text", text).parent
    a.record(source, "app")
    a.init("one", "app", "--strategy", "reflink")
    assert a.blob(text).exists()
    frame = a.blob(text).with_suffix(".zst")
    damage.flip(frame, frame, random.Random(1))
    said = a("export", "app", "--compress", "-o", a.root / "app.holo", code=3).stderr
    assert contents.digest(text) in said
    assert not (a.root / "app.holo").exists()
    b = machine("local")
    b("import", a.export("app"))
    assert b.is_sound()


@pytest.mark.parametrize("options", [[], ["--compress"]], ids=["raw", "compressed"])
@pytest.mark.parametrize("compression", ["raw", "zstd"])
def test_a_damaged_blob_is_not_exported(compression: str, options: list[str], machine: Make) -> None:
    a = machine("local")
    a.keep(compression)
    content = randomly(1, 2 << 20)
    a.record(trees.write(a.root / "the-source" / "file", content).parent, "app")
    form = a.blob(content) if compression == "raw" else a.blob(content).with_suffix(".zst")
    damage.flip(form, form, random.Random(4))
    said = a("export", "app", "-o", a.root / "app.holo", *options, code=3).stderr
    assert contents.digest(content) in said
    assert said.count("error: ") == 1
    assert {path.name for path in a.root.iterdir()} == {"home", "settings.yaml", "the-source"}


@pytest.mark.parametrize(("compression", "is_seen"), [("raw", True), ("zstd", False)])
def test_what_an_import_sees_of_damage_in_the_library(compression: str, is_seen: bool, machine: Make) -> None:
    """It does not read what is there; the size and the seal of a raw blob tell without that."""
    a = machine("local")
    a.keep(compression)
    trees.write(a.root / "tree" / "file", "text\n" * 100_000)
    a.record(a.root / "tree", "app")
    bundle = a.root / "app.holo"
    a("export", "app", "-o", bundle)
    [blob] = [path for path in (a.library / "library").rglob("*") if path.is_file()]
    damage.rewrite(blob, blob.read_bytes()[:-9])
    assert a("import", bundle, "--json").json()["blobs"]["new"] == int(is_seen)
    a("check", code=0 if is_seen else 3)
    a("check", "--repair", "--from", bundle)
    a("check")


# -- pipes ----------------------------------------------------------------------------------------------------------


def piped(a: Machine, b: Machine, *options: str) -> subprocess.CompletedProcess[str]:
    holo = [sys.executable, "-m", "holo"]
    writer = subprocess.Popen(
        [*holo, "export", "app", "-o", "-", *options], env=a.environment(), stdout=subprocess.PIPE
    )
    reader = subprocess.run(
        [*holo, "import", "-", "--json"],
        env=b.environment(),
        stdin=writer.stdout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert writer.stdout is not None
    writer.stdout.close()
    assert writer.wait() == 0
    return reader


@pytest.mark.parametrize(("here", "there", "options"), [("xfs", "btrfs", []), ("btrfs", "tmpfs", ["--compress"])])
def test_a_bundle_goes_through_a_pipe(here: str, there: str, options: list[str], machine: Make) -> None:
    a, b = machine(here), machine(there)
    source = varied(a.root / "the-source")
    a.record(source, "app")
    done = piped(a, b, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == "standard input"
    assert b.is_sound()
    assert compare.differences(source, b.init("one", "app")) == []
    left = [path.name for path in (b.library / "library").iterdir() if len(path.name) != 2]
    assert not left


def test_a_pipe_has_the_bytes_of_the_file(machine: Make) -> None:
    a = machine("xfs")
    a.record(varied(a.root / "the-source"), "app")
    done = subprocess.run(
        [sys.executable, "-m", "holo", "export", "app", "-o", "-"],
        env=a.environment(),
        capture_output=True,
        check=True,
    )
    assert done.stdout == a.export("app").read_bytes()
    with (a.root / "redirected").open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "holo", "export", "app", "-o", "-"], env=a.environment(), stdout=file, check=True
        )
    assert (a.root / "redirected").read_bytes() == done.stdout


def test_standard_output_cannot_take_both(machine: Make) -> None:
    a = machine("local")
    a.record(trees.small(a.root / "the-source"), "app")
    assert "--json" in a("export", "app", "-o", "-", "--json", code=2).stderr


@pytest.mark.parametrize("cut", [0, 10, 5000, -100, -1])
def test_a_pipe_that_ends_early_imports_nothing(cut: int, machine: Make) -> None:
    a, b = machine("local"), machine("local")
    a.record(varied(a.root / "the-source"), "app")
    data = a.export("app").read_bytes()[: cut or None]
    done = subprocess.run(
        [sys.executable, "-m", "holo", "import", "-"],
        env=b.environment(),
        input=data if cut else b"",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith(b"error: standard input is damaged or not complete")
    assert done.stderr.count(b"\n") == 2
    assert b.is_empty()


@pytest.mark.parametrize("content", ["venv-pack.tar.gz", "rcc.zip"])
def test_what_is_no_bundle_at_all_is_not_called_a_damaged_one(content: str, machine: Make) -> None:
    target = machine("local")
    if content == "rcc.zip":
        with zipfile.ZipFile(target.root / content, "w") as archive:
            archive.writestr("library/ab/cd/ef/abcdef", "content")
    else:
        (target.root / content).write_bytes(gzip.compress(b"an archive of venv-pack"))
    with open(target.root / content, "rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "holo", "import", "-"],
            env=target.environment(),
            stdin=file,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.startswith(b"error: standard input is no bundle\n")
    assert b"`holo import FILE`" in done.stderr
    assert target.is_empty()


# -- what the other side has already --------------------------------------------------------------------------------


@pytest.fixture
def update(machine: Make) -> tuple[Machine, Path, Path]:
    """A machine with two versions of an environment, and their trees."""
    a = machine("local")
    trees_of = []
    for number in (1, 2):
        tree = a.root / f"version-{number}"
        trees.write(tree / "large", randomly(1, 3 << 20))
        trees.write(tree / "common", "common\n" * 5000)
        trees.write(tree / "version", f"{number} of {tree}\n")
        trees.write(tree / "changed", randomly(number, 50_000))
        trees_of.append(trees.settle(tree))
        a.record(tree, f"app-{number}")
    return a, trees_of[0], trees_of[1]


@pytest.mark.parametrize("by_file", [True, False], ids=["known-file", "known-catalog"])
def test_known_content_is_left_out(by_file: bool, update: tuple[Machine, Path, Path], machine: Make) -> None:
    a, _, second = update
    first = a.export("app-1", to="first.holo")
    known = first if by_file else "app-1"
    report = a("export", "app-2", "--known", known, "-o", a.root / "update.holo", "--json").json()
    assert report["blobs"] == {"written": 2, "left_out": 2}
    assert (a.root / "update.holo").stat().st_size < 70_000
    # Without what was left out: one message, and nothing is changed.
    b = machine("xfs")
    for command in (["import"], ["init", "--space", "one"]):
        said = b(*command, a.root / "update.holo", code=1).stderr
        assert said.count("error: ") == 1
        assert "--known" in said
        assert said.startswith("error: 2 ")
    known_digest = b("catalogs", first, "--json").json()["catalogs"][0]["digest"]
    assert f" builds on: {known_digest[:12]}." in b("import", a.root / "update.holo", code=1).stderr
    assert b.is_empty()
    assert b("list", "--json").json()["spaces"] == []
    b("import", first)
    report = b("import", a.root / "update.holo", "--json").json()
    assert report["blobs"] == {"new": 2, "deduplicated": 2}
    assert b.is_sound()
    assert compare.differences(second, b.init("one", "app-2")) == []


def test_everything_may_be_known(update: tuple[Machine, Path, Path], machine: Make) -> None:
    a, *_ = update
    first = a.export("app-1", to="first.holo")
    report = a("export", "app-1", "--known", first, "--known", "app-2", "-o", a.root / "no.holo", "--json").json()
    assert report["blobs"] == {"written": 0, "left_out": 4}
    b = machine("local")
    b("import", first)
    b("catalogs", "--remove", "app-1")
    b("import", a.root / "no.holo")
    assert b.is_sound()


def test_what_is_not_there_cannot_be_known(update: tuple[Machine, Path, Path]) -> None:
    a, *_ = update
    for known in ("nothing", a.root / "nothing.holo"):
        assert a("export", "app-1", "--known", known, "-o", a.root / "x.holo", code=1).stderr.count("error: ") == 1
    assert not (a.root / "x.holo").exists()


# -- names ----------------------------------------------------------------------------------------------------------


def named(home: Machine) -> dict[str, str]:
    return {row["name"]: row["digest"] for row in home("catalogs", "--json").json()["catalogs"] if row["name"]}


def test_catalogs_keep_their_names(update: tuple[Machine, Path, Path], machine: Make) -> None:
    a, *_ = update
    a("record", a.root / "version-1", "--name", "alias")
    bundle = a.export("app-1", "app-2", "alias")
    b = machine("local")
    shown = b("catalogs", bundle, "--json").json()["catalogs"]
    assert {row["name"]: row["digest"] for row in shown} == named(a)
    assert sorted(row["prefix"] for row in shown) == [str(a.root / f"version-{number}") for number in (1, 1, 2)]
    assert "alias" in b("catalogs", bundle).stdout
    assert b.is_empty()
    assert "--name" in b("import", bundle, "--name", "mine", code=2).stderr
    assert b.is_empty()
    said = b("init", "--space", "one", bundle, code=2).stderr
    assert "2 catalogs" in said
    b("import", bundle)
    assert named(b) == named(a)
    assert b.is_sound()


def test_a_catalog_is_imported_under_another_name(update: tuple[Machine, Path, Path], machine: Make) -> None:
    a, *_ = update
    b = machine("local")
    b("import", a.export("app-1"), "--name", "mine")
    assert list(named(b)) == ["mine"]
    for wrong in ("../out", "", "a/b"):
        assert b("import", a.export("app-1"), "--name", wrong, code=2).stderr.count("error: ") == 1


def test_a_name_that_moves_is_told(update: tuple[Machine, Path, Path], machine: Make) -> None:
    a, *_ = update
    b = machine("local")
    b("import", a.export("app-1"), "--name", "app")
    result = b("import", a.export("app-2"), "--name", "app")
    assert result.stderr.count("warning: ") == 1
    assert named(a)["app-1"][:12] in result.stderr
    assert named(b) == {"app": named(a)["app-2"]}
    report = b("import", a.export("app-1"), "--name", "app", "--json").json()
    assert len(report["warnings"]) == 1


def test_a_catalog_without_a_name_is_exported_by_its_digest(update: tuple[Machine, Path, Path], machine: Make) -> None:
    a, *_ = update
    digest = named(a)["app-1"]
    a.record(a.root / "version-2", "app-1")
    b = machine("local")
    report = b("import", a.export(digest[:16]), "--json").json()
    assert report["catalogs"] == [{"name": digest[:12], "digest": digest}]
    assert named(b) == {}
    assert digest in catalogs(b)


def test_what_is_not_recorded_cannot_be_exported(machine: Make) -> None:
    a = machine("local")
    assert a("export", "app", "-o", a.root / "app.holo", code=1).stderr.count("error: ") == 1
    assert a("export", "-o", a.root / "app.holo", code=2).stderr
    assert not (a.root / "app.holo").exists()


def test_documents(update: tuple[Machine, Path, Path], machine: Make) -> None:
    a, *_ = update
    report = a("export", "app-1", "-o", a.root / "app.holo", "--json").json()
    digest = named(a)["app-1"]
    catalog = {"name": "app-1", "digest": digest}
    assert {key: value for key, value in report.items() if key not in ("bytes", "seconds")} == {
        "file": str(a.root / "app.holo"),
        "catalogs": [catalog],
        "blobs": {"written": 4, "left_out": 0},
        "signatures": 0,
    }
    b = machine("local")
    report = b("import", a.root / "app.holo", "--json").json()
    assert {key: value for key, value in report.items() if key != "seconds"} == {
        "file": str(a.root / "app.holo"),
        "catalogs": [catalog],
        "blobs": {"new": 4, "deduplicated": 0},
        "warnings": [],
    }
    assert b("import", a.root / "app.holo", "--json").json()["blobs"] == {"new": 0, "deduplicated": 4}


# -- rights ---------------------------------------------------------------------------------------------------------


def test_rights_are_taken_only_from_whom_one_trusts(machine: Make) -> None:
    a, b = machine("local"), machine("local")
    source = trees.small(a.root / "the-source")
    (source / "bin" / "hello").chmod(0o4755)
    trees.settle(source)
    a("record", source, "--name", "app", "--keep-setid")
    bundle = a.export("app")
    for command in (["import"], ["init", "--space", "one"]):
        said = b(*command, bundle, code=1).stderr
        assert "bin/hello" in said
        assert "--keep-setid" in said
    assert b.is_empty()
    assert b("list", "--json").json()["spaces"] == []
    space = b.init("one", bundle, "--keep-setid")
    assert stat.S_IMODE((space / "bin" / "hello").stat().st_mode) == 0o4755
    (space / "bin" / "hello").unlink()
    b("restore", "--space", "one")
    assert compare.differences(source, space) == []
    b("import", bundle, "--keep-setid")
    assert b.is_sound()


# -- blocks that are shared -----------------------------------------------------------------------------------------


def blocks(path: Path) -> dict[int, int]:
    """Where on the disk each whole block of a file lies."""
    found = {}
    for extent in fiemap.extents(path):
        assert not extent.inline
        for at in range(0, extent.length, BLOCK):
            found[extent.logical + at] = extent.physical + at
    size = path.stat().st_size
    return {at: where for at, where in found.items() if at + BLOCK <= size}


def blocks_in(bundle: Path, name: str) -> dict[int, int]:
    """Where on the disk each whole block of an entry's content lies."""
    with zipfile.ZipFile(bundle) as read:
        info = read.getinfo(name)
    with bundle.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    start = info.header_offset + 30 + sum(int.from_bytes(lengths[at : at + 2], "little") for at in (0, 2))
    assert start % BLOCK == 0
    whole = blocks(bundle)
    return {at: whole[start + at] for at in range(0, info.file_size - info.file_size % BLOCK, BLOCK)}


@pytest.mark.parametrize("filesystem", ["xfs", "btrfs"])
def test_a_raw_bundle_shares_its_blocks(filesystem: str, machine: Make) -> None:
    a = machine(filesystem)
    sizes = [WORTH_CLONING, WORTH_CLONING + 1, 100_000, 2_500_001]
    source = a.root / "the-source"
    for size in sizes:
        trees.write(source / str(size), randomly(size, size))
    a.record(trees.settle(source), "app")
    bundle = a.export("app")
    b = machine(filesystem)
    b("import", bundle)
    report = b("init", "--space", "one", bundle, "--json").json()
    c = machine(filesystem)
    direct = c.init("direct", bundle)
    assert c.is_empty()
    assert c("restore", "--space", "direct", "--json").json()["strategy"]["used"] == "reflink"
    for size in sizes:
        content = randomly(size, size)
        digest = contents.digest(content)
        wanted = blocks_in(bundle, f"library/{digest[:2]}/{digest}")
        assert wanted
        assert blocks(a.blob(content)) == wanted, f"the export has copied {size}"
        assert blocks(b.blob(content)) == wanted, f"the import has copied {size}"
        assert blocks(direct / str(size)) == wanted, f"the space from the bundle has copied {size}"
        assert blocks(Path(report["path"]) / str(size)) == wanted


def family(root: Path) -> list[Path]:
    """reftar's case: four files of 5 MB that are clones of each other, with a few blocks changed in each."""
    data = randomly(9, 5 << 20)
    files = [trees.write(root / "0", data)]
    for number in range(1, 4):
        files.append(root / str(number))
        subprocess.run(["cp", "--reflink=auto", files[0], files[-1]], check=True)
        with files[-1].open("r+b") as file:
            for block in range(number):
                file.seek((40 * number + 311 * block) * BLOCK)
                file.write(randomly(1000 * number + block, BLOCK))
        os.utime(files[-1], ns=(trees.SOME_TIME, trees.SOME_TIME))
    trees.settle(root)
    return files


@pytest.mark.parametrize("there", ["xfs", "btrfs"])
@pytest.mark.parametrize("here", ["xfs", "btrfs", "ext4"])
@pytest.mark.parametrize("options", [[], ["--compress"]], ids=["raw", "compressed"])
def test_files_that_share_blocks_share_them_again(here: str, there: str, options: list[str], machine: Make) -> None:
    a, b = machine(here), machine(there)
    source = a.root / "the-source"
    files = family(source)
    a.record(source, "app")
    bundle = shutil.copyfile(a.export("app", *options), b.root / "app.holo")
    assert bundle.stat().st_size < (5 << 20) + 100_000
    b("import", bundle)
    assert b.is_sound()
    first, *others = [blocks(b.blob(path.read_bytes())) for path in files]
    for number, other in enumerate(others, 1):
        apart = [at for at in first if other[at] != first[at]]
        assert len(apart) <= number, f"{number} shares too little"
        assert len(apart) == number, f"{number} shares what is not equal"
    assert compare.differences(source, b.init("one", "app")) == []
    c = machine(there)
    space = c.init("direct", bundle)
    assert compare.differences(source, space) == []
    assert c.is_empty()


@pytest.mark.parametrize(
    ("here", "there", "options", "compression"),
    [
        ("xfs", "btrfs", [], "raw"),
        ("btrfs", "xfs", ["--compress"], "raw"),
        ("ext4", "tmpfs", [], "zstd"),
        ("tmpfs", "ext4", ["--compress"], "zstd"),
    ],
)
def test_holes_stay_holes(here: str, there: str, options: list[str], compression: str, machine: Make) -> None:
    a, b, c = machine(here), machine(there), machine(there)
    b.keep(compression)
    source = a.root / "the-source"
    layouts: dict[str, list[Any]] = {
        "all": [8 << 20],
        "first": [1 << 20, randomly(1, 1 << 20)],
        "last": [randomly(2, 3 << 20), 1 << 20],
        "islands": [randomly(3, 65_536), 1 << 20, randomly(4, 65_536), 4 << 20, randomly(3, 1 << 20)],
        "small": [65_536, randomly(5, 4096), 65_536],
    }
    for name, layout in layouts.items():
        path = trees.write(source / name)
        with path.open("r+b", buffering=0) as file:
            file.truncate(sum(part if isinstance(part, int) else len(part) for part in layout))
            for part in layout:
                file.seek(part, os.SEEK_CUR) if isinstance(part, int) else file.write(part)
        os.utime(path, ns=(trees.SOME_TIME, trees.SOME_TIME))
    trees.settle(source)
    a.record(source, "app")
    bundle = shutil.copyfile(a.export("app", *options), b.root / "app.holo")
    assert bundle.stat().st_size < 6 << 20
    b("import", bundle)
    assert b.is_sound()
    space, direct = b.init("one", "app"), c.init("direct", bundle)
    for name in layouts:
        path = source / name
        wanted = data_map(path)
        assert data_map(b.blob(path.read_bytes())) == wanted, name
        assert data_map(space / name) == data_map(direct / name) == wanted, name
    assert compare.differences(source, space) == []
    assert compare.differences(source, direct) == []


# -- other programs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--compress"]], ids=["raw", "compressed"])
def test_other_programs_read_a_bundle(options: list[str], machine: Make) -> None:
    a = machine("local")
    source = varied(a.root / "the-source")
    a.record(source, "app")
    bundle = a.export("app", *options)
    with zipfile.ZipFile(bundle) as read:
        names = read.namelist()
        assert names[0] == "holo.json"
        for info in read.infolist():
            if info.compress_type == zipfile.ZIP_STORED:
                content = read.read(info)
                if info.filename.startswith("library/"):
                    assert contents.digest(content) == info.filename.rpartition("/")[2]
            else:
                assert info.compress_type == 93
    tools = [["unzip", "-l"], ["zipinfo"], ["7z", "t"]]
    if not options:
        tools.append(["unzip", "-t"])
    for tool in tools:
        if shutil.which(tool[0]) is None:
            assert os.environ.get("CI") != "true", f"{tool[0]} must be there in CI"
            continue
        done = subprocess.run([*tool, bundle], capture_output=True, text=True, check=False)
        known = done.returncode == 0 or ("Unsupported Method" in done.stdout + done.stderr and tool[0] == "7z")
        assert known, f"{tool}: {done.stdout}{done.stderr}"
        assert tool[0] == "7z" or all(name in done.stdout for name in names)


def test_an_unzipped_bundle_is_a_library(machine: Make) -> None:
    """One without --compress, and without large files that share blocks."""
    a, b = machine("local"), machine("local")
    source = trees.small(a.root / "the-source")
    trees.write(source / "large", randomly(1, 300_000))
    trees.settle(source)
    digest = a.record(source, "app")
    with zipfile.ZipFile(a.export("app")) as read:
        read.extractall(b.root / "unzipped")
    space = b.init("one", b.root / "unzipped" / "catalog" / f"{digest}.json")
    assert compare.differences(source, space) == []
    assert b.is_sound()


@pytest.mark.parametrize("options", [[], ["--compress"]], ids=["raw", "compressed"])
def test_check_repairs_from_a_bundle(options: list[str], machine: Make) -> None:
    a = machine("local")
    source = varied(a.root / "the-source")
    digest = a.record(source, "app")
    bundle = a.export("app", *options)
    shutil.rmtree(source)
    found = sorted((a.library / "library").glob("??/*"))
    for path in found[::2]:
        if path.stat().st_size:
            damage.flip(path, path, random.Random(1))
    found[1].unlink()
    (a.library / "catalog" / f"{digest}.json").unlink()
    a("check", code=3)
    assert str(bundle) in a("check", "--repair", "--from", bundle).stdout
    assert a.is_sound()
    assert set(catalogs(a)) == {digest}
    said = a("check", "--from", a.root / "nothing.holo", "--repair", code=1).stderr
    assert said.count("error: ") == 1
