"""One damaged file blocks no command that does not need it, and the message names a way out that works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support import compare, records, trees
from support.cli import Holo, Result

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def sound(holo: Holo) -> Holo:
    """Two catalogs with something in common, and a space of each."""
    for name in ("one", "two"):
        source = trees.small(holo.root / name / "source")
        trees.write(source / "own", f"{name}\n" * 2000)
        holo("record", trees.settle(source), "--name", name)
        holo("init", "--space", f"{name}s", name)
    return holo


def spaces(holo: Holo) -> dict[str, dict[str, str]]:
    """What a record and its mark both say of each."""
    fields = ("name", "path", "state", "catalog", "digest")
    found = holo("list", "--json").json()["spaces"]
    return {item["name"]: {field: item[field] for field in fields} for item in found}


def follow(holo: Holo, failed: Result, *, fill_in: str = "", code: int = 0) -> None:
    """Run every command that a hint gives, to the letter. A check that cannot repair everything exits with 3."""
    (hint,) = (line for line in failed.stderr.splitlines() if line.startswith("hint: "))
    commands = [command for command in re.findall("`holo ([^`]*)`", hint) if ("DIR" in command) == bool(fill_in)]
    assert commands, hint
    for command in commands:
        arguments = shlex.split(command.replace("DIR", fill_in))
        holo(*arguments, code=code if arguments[0] == "check" else 0)


# ---------------------------------------------------------------- what is known of a space


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    (path / "x").mkdir(parents=True)


def replace_by_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def of_another_form(path: Path) -> None:
    path.write_bytes(records.dump(records.read(path) | {"state": "sleeping", "future": [1]}))


DAMAGES: tuple[Callable[[Path], None], ...] = (cut, flip, replace_by_directory, replace_by_symlink, of_another_form)


@pytest.mark.parametrize(
    ("damage", "marked"),
    [(cut, True), (cut, False), (flip, True), (replace_by_directory, False), (of_another_form, True)],
)
def test_damaged_record_blocks_no_other_space(sound: Holo, damage: Callable[[Path], None], marked: bool) -> None:
    holo, known = sound, spaces(sound)
    folder = holo.holotree / ".spaces"
    damage(folder / "ones.json")
    if not marked:
        (folder / "ones.mark").unlink()

    found = spaces(holo)
    assert found["twos"] == known["twos"]
    expected = {"state": "damaged"} if marked else {"state": "damaged", "catalog": "", "digest": ""}
    assert found["ones"] == known["ones"] | expected

    holo("restore", "--to", known["twos"]["path"])
    holo("init", "--space", "new", "two", "--to", holo.root / "new")
    holo("init", "--space", "other", "two", "--to", known["ones"]["path"], "--force", code=1)  # it is a space's
    holo("gc")
    holo("record", holo.root / "two" / "source", "--name", "again")
    holo("catalogs", "--remove", "again")
    failed = holo("restore", "--space", "ones", code=1)
    assert str(folder / "ones.json") in failed.stderr

    follow(holo, failed)
    assert ("ones" in spaces(holo)) is marked
    holo("init", "--space", "ones", "one")
    assert spaces(holo)["ones"] == known["ones"]
    assert compare.differences(holo.root / "one" / "source", Path(known["ones"]["path"])) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_space_with_a_damaged_record_is_deleted(sound: Holo, damage: Callable[[Path], None]) -> None:
    holo, path = sound, Path(spaces(sound)["ones"]["path"])
    damage(holo.holotree / ".spaces" / "ones.json")
    assert "was damaged" in holo("delete", "--space", "ones").stderr
    assert not path.exists()
    assert spaces(holo).keys() == {"twos"}
    assert {file.suffix for file in (holo.holotree / ".spaces").glob("ones.*")} <= {".lock"}


@pytest.mark.parametrize("marked", [True, False], ids=["mark", "no-mark"])
def test_delete_removes_only_a_known_place(sound: Holo, marked: bool) -> None:
    holo, path = sound, sound.root / "elsewhere"
    holo("init", "--space", "job", "one", "--to", path)
    (holo.holotree / ".spaces" / "job.json").write_text("{")
    if not marked:
        (holo.holotree / ".spaces" / "job.mark").unlink()
    holo("delete", "--space", "job")
    assert path.exists() is not marked
    assert "job" not in spaces(holo)


def test_the_record_of_a_newer_version_is_used(sound: Holo) -> None:
    holo, known = sound, spaces(sound)
    for kind in ("json", "mark"):
        records.edit(holo.holotree / ".spaces" / f"ones.{kind}", future={"any": "thing"})
    assert spaces(holo) == known
    report = holo("restore", "--space", "ones", "--json").json()
    assert report["files"]["unchanged"] == report["files"]["total"]
    holo("delete", "--space", "ones")


def test_lock_that_cannot_be_taken_does_not_stop_gc(sound: Holo) -> None:
    holo = sound
    for path in (
        holo.holotree / ".spaces" / "gone.lock",
        holo.holotree / ".spaces" / "gone.cover",
        holo.library / "builds" / "0123456789abcdef.lock",
        holo.holotree / f".ephemeral-{os.geteuid()}" / "layers" / "any.lock",
    ):
        path.mkdir(parents=True)
    holo("catalogs", "--remove", "one")
    assert holo("gc", "--json").json()["removed"]["blobs"] > 0


# ---------------------------------------------------------------- catalogs and their names


def digest_of(holo: Holo, name: str) -> str:
    digest: str = holo("catalogs", name, "--json").json()["catalogs"][0]["digest"]
    return digest


def newer(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))


ONE, TWO, NONE = ["one"], ["one", "alias"], list[str]()


@pytest.mark.parametrize(
    ("damage", "names"),
    [(flip, ONE), (cut, TWO), (newer, NONE), (replace_by_symlink, NONE), (Path.unlink, ONE), (Path.unlink, TWO)],
)
def test_damaged_catalog_blocks_no_other(sound: Holo, damage: Callable[[Path], None], names: list[str]) -> None:
    holo, digest = sound, digest_of(sound, "one")
    if "alias" in names:
        holo("record", holo.root / "one" / "source", "--name", "alias")
    if not names:
        (holo.library / "names" / "one.json").unlink()
    (holo.root / "three").mkdir()
    holo("record", holo.root / "three")
    holo("catalogs", "--remove", "three")
    draft = holo.library / "library" / "00" / ".draft-left-by-a-killed-command"
    trees.write(draft)
    damage(holo.library / "catalog" / f"{digest}.json")
    before = compare.snapshot(holo.library / "library")

    assert "two" in {item["name"] for item in holo("catalogs", "--json").json()["catalogs"]}
    holo("record", holo.root / "two" / "source", "--name", "again")
    holo("catalogs", "--remove", "again")
    holo("gc", "--dry-run", code=3)
    assert compare.snapshot(holo.library / "library") == before
    failed = holo("gc", "--keep-last", "0", code=3)
    assert digest[:12] in failed.stderr
    assert not draft.exists()
    assert compare.snapshot(holo.library / "library").keys() == {path for path in before if b".draft-" not in path}

    follow(holo, failed)
    assert holo("catalogs", "--json").json()["catalogs"][0]["name"] == "two"
    assert holo("gc", "--json").json()["removed"]["blobs"] == 0, "the hint says to run it again"
    holo("restore", "--space", "twos", "--verify")


def test_a_damaged_catalog_is_restored_from_another_library(sound: Holo) -> None:
    holo, digest = sound, digest_of(sound, "one")
    shutil.copytree(holo.home, holo.root / "backup")
    flip(holo.library / "catalog" / f"{digest}.json")
    follow(holo, holo("gc", code=3), fill_in=str(holo.root / "backup"))
    holo("gc")
    holo("restore", "--space", "ones", "--verify")


def drop_last_line(path: Path) -> None:
    path.write_bytes(path.read_bytes().splitlines()[0])


@pytest.mark.parametrize(("damage", "code"), [(drop_last_line, 0), (replace_by_directory, 3), (replace_by_symlink, 3)])
def test_damaged_name_blocks_no_other(sound: Holo, damage: Callable[[Path], None], code: int) -> None:
    holo = sound
    damage(holo.library / "names" / "one.json")
    assert "two" in {item["name"] for item in holo("catalogs", "--json").json()["catalogs"]}
    holo("restore", "--space", "ones")
    follow(holo, holo("gc", code=3), code=code)
    holo("gc")
    holo("restore", "--space", "ones", "--verify")


def test_what_is_damaged_is_not_left_out_of_a_list_without_a_word(sound: Holo) -> None:
    assert sound("catalogs").stderr == ""
    one, digest = digest_of(sound, "one"), digest_of(sound, "two")
    flip(sound.library / "names" / "one.json")
    (sound.library / "names" / "two.json").unlink()
    cut(sound.library / "catalog" / f"{digest}.json")
    for options in ([], ["--json"], ["--stale", "1d"]):
        said = sound("catalogs", *options).stderr
        assert said == f"warning: 2 not listed, being damaged: one, {digest[:12]}. See `holo check`.\n"
    assert sound("catalogs", one).stderr == ""


def test_recording_under_a_damaged_name_writes_it_anew(sound: Holo) -> None:
    flip(sound.library / "names" / "one.json")
    sound("record", sound.root / "one" / "source", "--name", "one")
    sound("gc")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_setuid_catalog_of_another_user_is_not_restored(sound: Holo) -> None:
    holo = sound
    source = trees.small(holo.root / "three" / "source")
    trees.write(source / "tool", b"as somebody else", mode=0o4755)
    holo("record", source, "--name", "three", "--keep-setid")
    blobs = sorted((holo.library / "library").glob("*/*"))
    os.chown(holo.library / "catalog" / f"{digest_of(holo, 'three')}.json", 65534, 65534)
    holo("init", "--space", "threes", "three", code=1)
    holo("gc")
    assert sorted((holo.library / "library").glob("*/*")) == blobs
    blobs[0].unlink()
    shutil.copytree(holo.root, holo.root.with_name("copy"), ignore=shutil.ignore_patterns("home"))
    holo("check", "--repair", "--from", holo.root.with_name("copy"))
    holo("check")
