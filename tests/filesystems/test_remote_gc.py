"""What `holo remote gc` removes and never removes, what `holo remote check` finds, and packs that are packed anew."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import compare, contents, trees
from support.machines import Make
from support.remotes import Client, Place, Places, catalog_object, map_and_catalog
from support.signing import Keys

KEY = "0123456789abcdef" * 4
HOUR = 3600


class World:
    """Somebody who pushes trees that share some of their content, to a remote of that kind."""

    def __init__(self, place: Place, machine: Make) -> None:
        self.place = place
        self.client = Client(machine("local"), place)
        self.client.machine.tune = {**self.client.machine.tune, "holo.remote.garbage._PATIENCE": 2}
        self.digests: dict[str, str] = {}

    def push(self, name: str, *letters: str) -> str:
        """A catalog with a file for each letter."""
        tree = self.client.machine.root / f"tree-{'-'.join(letters)}"
        for letter in letters:
            trees.write(tree / letter, random.Random(letter).randbytes(20_000))
        self.digests[name] = self.client.machine.record(trees.settle(tree), name)
        self.client.push(name)
        return self.digests[name]

    def forget(self, name: str) -> None:
        self.place.objects.remove(f"names/{name}")

    def gc(self, *options: str, grace: str = "1h", code: int = 0) -> Any:
        done = self.client("remote", "gc", self.place.to, "--grace", grace, "--json", *options, code=code)
        return done.json() if code == 0 else done.stderr

    def age(self, seconds: int = 2 * HOUR, *, kind: str = "") -> None:
        """What is known to be garbage, of that kind, has been so for longer."""
        known = self.garbage()
        known["since"] = {key: when - seconds * key.startswith(kind) for key, when in known["since"].items()}
        self.place.objects.write("garbage", json.dumps(known).encode())

    def garbage(self) -> Any:
        return json.loads(self.place.objects.read("garbage"))

    def packs(self, name: str) -> set[str]:
        document, _ = map_and_catalog(self.place.objects.read(f"catalogs/{self.digests[name]}"))
        return {f"packs/{digest}" for digest, _ in document["packs"]}

    def check(self, *options: str, code: int = 0) -> list[str]:
        found = self.client("remote", "check", self.place.to, "--json", *options, code=code).json()
        return [problem["key"] for problem in found["problems"]]


@pytest.fixture
def world(request: pytest.FixtureRequest, machine: Make, places: Places) -> World:
    return World(places.new(getattr(request, "param", "folder")), machine)


also_in_a_bucket = pytest.mark.parametrize("world", ["folder", "moto"], indirect=True)


# -- garbage --------------------------------------------------------------------------------------------------------


@also_in_a_bucket
def test_only_what_nothing_has_needed_for_long_goes(world: World) -> None:
    world.push("named", "a", "b")
    world.push("lost", "b", "c")  # "b" in a pack that is needed
    built = world.push("built", "d")
    pointer = {**json.loads(world.place.objects.read("names/built")), "kind": "key", "name": KEY}
    world.place.objects.write(f"keys/{KEY}", json.dumps(pointer).encode())
    world.forget("built")
    world.forget("lost")
    before = world.place.objects.sizes()
    report = world.gc()
    assert (report["removed"], report["waiting"]) == (0, 2)
    assert {**before, "garbage": 0} == {**world.place.objects.sizes(), "garbage": 0}
    lost = f"catalogs/{world.digests['lost']}"
    gone = {lost, *(world.packs("lost") - world.packs("named"))}
    assert set(world.garbage()["since"]) == gone
    world.age(HOUR // 2)
    assert world.gc()["removed"] == 0
    assert world.gc("--dry-run", grace="1m")["removed"] == 2
    assert before.keys() <= world.place.objects.sizes().keys()
    world.age()
    report = world.gc()
    assert (report["removed"], report["waiting"]) == (2, 0)
    assert report["removed_bytes"] == sum(before[key] for key in gone)
    assert {**before, "garbage": 0}.keys() - gone == world.place.objects.sizes().keys()
    assert world.garbage()["doomed"] == []
    assert world.check("--read") == []
    world.client.pull("named")
    world.client.pull(built, "--name", "again")


@also_in_a_bucket
def test_push_takes_what_it_relies_on_out_of_the_garbage(world: World) -> None:
    world.push("first", "a", "b", "c")
    world.push("other", "x")
    world.forget("first")
    world.gc()
    assert set(world.garbage()["since"]) == {f"catalogs/{world.digests['first']}", *world.packs("first")}
    # Another catalog, with content that is in a pack that nothing needs now.
    world.push("second", "a", "b", "d")
    assert world.packs("first") <= world.packs("second")
    assert set(world.garbage()["since"]) == {f"catalogs/{world.digests['first']}"}
    # The same catalog again.
    world.client.push("first")
    assert world.garbage()["since"] == {}
    world.age()
    world.gc()
    world.age()
    assert world.gc()["removed"] == 0
    assert world.check("--read") == []


@also_in_a_bucket
def test_push_makes_anew_what_is_doomed(world: World) -> None:
    """A gc that was killed has removed some of it, or not yet."""
    world.push("first", "a", "b", "c")
    world.forget("first")
    packs = world.packs("first")
    first = f"catalogs/{world.digests['first']}"
    doomed = {"format": "holo garbage", "version": 1, "since": {}, "doomed": sorted({first, *packs})}
    world.place.objects.write("garbage", json.dumps(doomed).encode())
    world.push("second", "a", "b", "d")
    assert world.packs("second").isdisjoint(packs)
    # The catalog itself is waited for; and if nobody is removing it, somebody has to.
    said = world.client("push", "first", world.place.to, code=1).stderr
    assert "was being removed" in said
    assert "remote gc" in said
    assert "first" not in world.place.names()
    assert world.gc(grace="7d")["removed"] == 1 + len(packs)
    assert world.garbage()["doomed"] == []
    world.client.push("first")
    assert world.check("--read") == []
    assert set(world.place.names()) == {"first", "second"}


@pytest.mark.parametrize("left", ["packs", "catalog", "nothing"])
def test_push_does_not_make_anew_what_a_gc_may_still_remove(world: World, left: str) -> None:
    """A second gc, which has read the names before this push writes its own, would remove what the first one doomed."""
    world.push("first", "a", "b", "c")
    world.forget("first")
    catalog, packs = f"catalogs/{world.digests['first']}", world.packs("first")
    doomed = {"catalog": [catalog], "packs": [*packs], "nothing": [catalog, *packs]}[left]
    for key in {catalog, *packs}:
        world.place.objects.remove(key)
    garbage = {"format": "holo garbage", "version": 1, "since": {}, "doomed": doomed}
    world.place.objects.write("garbage", json.dumps(garbage).encode())
    assert "was being removed" in world.client("push", "first", world.place.to, code=1).stderr
    assert "first" not in world.place.names()
    world.gc(grace="7d")
    world.client.push("first")
    assert world.check("--read") == []


def test_what_was_doomed_and_is_needed_again_stays(world: World) -> None:
    world.push("first", "a")
    key = f"catalogs/{world.digests['first']}"
    doomed = {"format": "holo garbage", "version": 1, "since": {key: 1}, "doomed": [key, *world.packs("first")]}
    world.place.objects.write("garbage", json.dumps(doomed).encode())
    assert world.gc(grace="1m")["removed"] == 0
    assert (world.garbage()["since"], world.garbage()["doomed"]) == ({}, [])
    assert world.check("--read") == []


def test_pack_stays_as_long_as_a_catalog_that_was_made_of_it(world: World) -> None:
    """It has been garbage for longer than the catalog, which may be pushed again."""
    world.push("first", "a", "b", "c")
    world.forget("first")
    world.push("second", "a", "b", "d")
    world.forget("second")
    world.gc()
    known = world.garbage()
    known["since"] = {key: when - 2 * HOUR * (key in world.packs("first")) for key, when in known["since"].items()}
    world.place.objects.write("garbage", json.dumps(known).encode())
    assert world.gc()["removed"] == 0
    world.client.push("second")
    assert world.check("--read") == []
    Client(world.client.machine, world.place).pull("second")


def test_push_that_was_killed_leaves_garbage(world: World) -> None:
    world.push("first", "a")
    for key in (f"packs/{KEY}", f"catalogs/{KEY}.sig"):
        world.place.objects.write(key, b"half")
    if world.place.kind == "folder":
        world.place.objects.write(".drafts/half", b"half")
    world.gc()
    world.age()
    assert world.gc()["removed"] == 2 + (world.place.kind == "folder")
    assert world.check() == []


@pytest.mark.parametrize("kind", ["name", "catalog", "garbage"])
def test_nothing_is_removed_when_it_is_not_known_what_is_needed(world: World, kind: str) -> None:
    world.push("first", "a")
    world.push("lost", "b")
    world.forget("lost")
    world.gc()
    world.age()
    key = {"name": "names/first", "catalog": f"catalogs/{world.digests['first']}", "garbage": "garbage"}[kind]
    whole = world.place.objects.read(key)
    world.place.objects.write(key, b"damaged")
    before = world.place.objects.sizes()
    assert f"{key} is damaged" in world.gc(code=3)
    assert world.place.objects.sizes() == before
    world.place.objects.write(key, whole)
    assert world.gc()["removed"] == 2


def test_grace_is_a_duration(world: World) -> None:
    world.push("first", "a")
    for wrong in ("-1", "soon", "1", "0d"):
        assert "duration" in world.gc(grace=wrong, code=2)


def test_nothing_goes_while_a_name_means_a_lost_catalog(world: World) -> None:
    """Nobody knows which packs it needs."""
    digest = world.push("lost", "a")
    before = world.place.objects.sizes().keys()
    content = world.place.objects.read(f"catalogs/{digest}")
    world.place.objects.remove(f"catalogs/{digest}")
    assert "names/lost means catalog" in world.gc(code=3)
    world.place.objects.write(f"catalogs/{digest}", content)
    assert world.gc()["waiting"] == 0
    assert world.place.objects.sizes().keys() == before


def test_web_server_cannot_be_collected(machine: Make, places: Places) -> None:
    place = places.new("https")
    client = Client(machine("local"), place)
    for action in ("gc", "check", "list", "status"):
        assert "web server" in client("remote", action, place.url, code=2).stderr


# -- check ----------------------------------------------------------------------------------------------------------


def missing(place: Place, key: str) -> None:
    place.objects.remove(key)


def short(place: Place, key: str) -> None:
    place.objects.write(key, place.objects.read(key)[:-3])


def wrong(place: Place, key: str) -> None:
    content = bytearray(place.objects.read(key))
    content[len(content) // 2] ^= 1
    place.objects.write(key, bytes(content))


def nowhere(place: Place, key: str) -> None:
    place.objects.write(key, json.dumps({**json.loads(place.objects.read(key)), "catalog": KEY}).encode())


DAMAGES: list[tuple[Callable[[Place, str], None], str, str, bool]] = [
    (missing, "pack", "catalog", False),
    (short, "pack", "catalog", False),
    (wrong, "pack", "pack", True),
    (nowhere, "name", "name", False),
    (short, "name", "name", False),
    (missing, "catalog", "name", False),
    (short, "catalog", "catalog", False),
    (wrong, "catalog", "catalog", False),
]


def test_check_finds_each_kind_of_damage(world: World) -> None:
    world.push("app", "a", "b")
    world.push("other", "x")
    (pack,) = world.packs("app")
    keys = {"pack": pack, "catalog": f"catalogs/{world.digests['app']}", "name": "names/app"}
    assert world.check("--read") == []
    for damage, what, told, only_by_reading in DAMAGES:
        whole = world.place.objects.read(keys[what])
        damage(world.place, keys[what])
        case = f"{damage.__name__} {what}"
        assert world.check(code=0 if only_by_reading else 3) == ([] if only_by_reading else [keys[told]]), case
        assert world.check("--read", code=3) == [keys[told]], case
        world.place.objects.write(keys[what], whole)
    assert world.check("--read") == []


@also_in_a_bucket
def test_an_empty_remote_is_not_called_a_sound_one(world: World) -> None:
    def last_line() -> str:
        return world.client("remote", "check", world.place.to).stdout.splitlines()[-1]

    assert last_line().startswith("nothing was pushed there")
    world.push("app", "a")
    assert last_line() == "all is well"


@also_in_a_bucket
def test_what_is_lost_can_be_pushed_again_after_a_repair(world: World, machine: Make) -> None:
    """A push believes a catalog that is there: it does not look for each of its packs."""
    world.push("app", "a", "b")
    world.push("other", "x")
    for damage in (missing, short, wrong):
        (pack,) = world.packs("app")
        damage(world.place, pack)
        report = world.client("remote", "check", world.place.to, "--read", "--repair", "--json", code=3).json()
        removed = {f"catalogs/{world.digests['app']}", *([pack] if damage is not missing else [])}
        assert set(report["removed"]) == removed
        assert world.check(code=3) == ["names/app"]
        checked = world.client("remote", "check", world.place.to, "--repair", code=3).stdout.splitlines()
        assert checked[-1] == "removed 0 objects; push their catalogs again from a library that has them"
        world.client.push("app")
        assert world.check("--read") == []
    other = Client(machine("tmpfs"), world.place)
    other.pull("app")
    other.pull("other")
    assert world.client("remote", "check", world.place.to, "--repair", "--json").json()["removed"] == []


@also_in_a_bucket
def test_a_damaged_catalog_of_others_keeps_nobody_from_pushing(world: World) -> None:
    world.push("tool", "c", "d")
    short(world.place, f"catalogs/{world.digests['tool']}")
    world.push("new", "a", "c", "d")
    assert world.check(code=3) == [f"catalogs/{world.digests['tool']}"]


@also_in_a_bucket
def test_catalog_without_a_name_stays_as_long_as_it_is_pushed(world: World) -> None:
    digest = world.push("app", "a")
    world.push("app", "b")
    world.gc()
    world.age()
    assert f"catalogs/{digest}" in world.garbage()["since"]
    world.client.push(digest)
    assert not world.garbage()["since"]


@also_in_a_bucket
def test_status_counts_and_list_names(world: World) -> None:
    world.push("app", "a")
    world.push("other", "x")
    world.forget("other")
    world.gc()
    sizes = world.place.objects.sizes()
    status = world.client("remote", "status", world.place.to, "--json").json()
    content = sum(size for key, size in sizes.items() if key.startswith(("packs/", "catalogs/")))
    assert [status[key] for key in ("names", "keys", "catalogs", "packs", "bytes", "garbage")] == [
        1,
        0,
        2,
        2,
        content,
        2,
    ]
    rows = world.client("remote", "list", world.place.to, "--json").json()["names"]
    assert [(row["kind"], row["name"], row["digest"]) for row in rows] == [("name", "app", world.digests["app"])]
    assert "app" in world.client("remote", "list", world.place.to).stdout


def test_damaged_names_are_listed_as_such(world: World) -> None:
    """As many as `holo remote status` counts."""
    world.push("app", "a")
    world.place.objects.write("names/bad", b"x")
    world.place.objects.write("keys/0123", b"{}")
    rows = world.client("remote", "list", world.place.to, "--json").json()["names"]
    assert [(row["kind"], row["name"], row["digest"] is None, row["time"] is None) for row in rows] == [
        ("key", "0123", True, True),
        ("name", "app", False, False),
        ("name", "bad", True, True),
    ]
    shown = world.client("remote", "list", world.place.to).stdout.splitlines()
    assert [line.split()[:3] for line in shown[1:]] == [
        ["0123", "key", "damaged"],
        ["app", "name", world.digests["app"][:12]],
        ["bad", "name", "damaged"],
    ]
    status = world.client("remote", "status", world.place.to, "--json").json()
    assert (status["names"], status["keys"]) == (2, 1)


def as_newer(place: Place, key: str) -> None:
    """As another version of holo would write it."""
    place.objects.write(key, json.dumps({**json.loads(place.objects.read(key)), "version": 2}).encode())


def catalog_as_newer(world: World, name: str) -> str:
    """The same of a catalog, whose packs nobody knows then; its key."""
    key = f"catalogs/{world.digests[name]}"
    map_, document = map_and_catalog(world.place.objects.read(key))
    world.place.objects.write(key, catalog_object({**map_, "version": 2}, document))
    return key


def a_newer_catalog(place: Place) -> str:
    """Write a catalog of a version that nobody has made yet; its key."""
    document = json.dumps({"version": 99, "prefix": "/opt/env", "everything": "else"}).encode()
    key = f"catalogs/{contents.digest(document)}"
    place.objects.write(key, catalog_object({"format": "holo catalog", "version": 1}, document))
    return key


def test_what_is_in_a_newer_form_is_told_as_such_and_stays(world: World) -> None:
    world.push("app", "a")
    world.push("tool", "b")
    world.push("other", "x")
    world.forget("other")
    world.gc()
    catalog = catalog_as_newer(world, "tool")
    as_newer(world.place, "names/app")
    as_newer(world.place, "garbage")
    keys = {"names/app", "garbage", catalog, a_newer_catalog(world.place)}
    before = world.place.objects.sizes()

    rows = world.client("remote", "list", world.place.to, "--json").json()["names"]
    assert [(row["name"], row["digest"] is None, row["problem"]) for row in rows] == [
        ("app", True, "newer"),
        ("tool", False, None),
    ]
    assert world.client("remote", "list", world.place.to).stdout.splitlines()[1].split()[:3] == ["app", "name", "newer"]
    report = world.client("remote", "check", world.place.to, "--repair", "--json", code=3).json()
    assert ({problem["key"] for problem in report["problems"]}, report["removed"]) == (keys, [])
    assert all("version" in problem["what"] and "damaged" not in problem["what"] for problem in report["problems"])
    assert "is of version 2" in world.gc(code=1)
    assert world.place.objects.sizes() == before


def test_packs_of_a_catalog_in_a_newer_form_stay(world: World) -> None:
    """Nobody knows which those are."""
    world.push("app", "a")
    world.push("other", "x")
    world.forget("other")
    world.gc()
    catalog_as_newer(world, "other")
    world.age(kind="packs/")
    before = world.place.objects.sizes()
    assert "is of version 2" in world.gc(code=1)
    assert world.place.objects.sizes() == before


def test_check_names_each_object_once(world: World) -> None:
    world.push("app", "a")
    for key in ("names/bad", "garbage", f"catalogs/{world.digests['app']}"):
        world.place.objects.write(key, b"x")
    lines = world.client("remote", "check", world.place.to, code=3).stdout.splitlines()
    assert [line.partition(": damaged: ")[0] for line in lines[:3]] == [
        f"catalogs/{world.digests['app']}",
        "garbage",
        "names/bad",
    ]
    assert not any(world.place.to in line for line in lines)


def test_looking_after_a_remote_needs_no_library(world: World, machine: Make) -> None:
    world.push("app", "a")
    nobody = Client(machine("local"), world.place)
    for command in (["list"], ["status"], ["check", "--read"], ["check", "--repair"], ["gc"]):
        nobody("remote", command[0], world.place.to, *command[1:])
    assert not nobody.machine.library.exists()


@also_in_a_bucket
def test_files_of_others_are_left_alone(world: World) -> None:
    """Of a Mac, of NFS, of a program that copies, or of a user: no name, no damage, and no garbage."""
    world.push("app", "a")
    others = [
        f"{folder}/{name}" for folder in ("names", "keys", "packs", "catalogs") for name in (".DS_Store", "-my file")
    ]
    others += ["packs/mine", f"packs/.{KEY}.x1y2z3", "catalogs/README", f"catalogs/{KEY}.sig.part", "names/a/b"]
    for key in others:
        world.place.objects.write(key, b"of somebody else")
    rows = world.client("remote", "list", world.place.to, "--json").json()["names"]
    assert [row["name"] for row in rows] == ["app"]
    status = world.client("remote", "status", world.place.to, "--json").json()
    assert [status[key] for key in ("names", "keys", "catalogs", "packs")] == [1, 0, 1, 1]
    assert world.check("--read", "--repair") == []
    world.push("gone", "b")
    world.forget("gone")
    assert world.gc()["waiting"] == 2
    world.age()
    assert world.gc()["removed"] == 2
    assert {world.place.objects.read(key) for key in others} == {b"of somebody else"}


def test_list_shows_nothing_that_a_terminal_obeys(world: World) -> None:
    """Whoever can write to a bucket may call a name what they like."""
    world.push("app", "a")
    pointer = json.loads(world.place.objects.read("names/app"))
    for name in ("\x1b[2Jred", "a\nb"):
        Path(world.place.to, "names", name).write_text(json.dumps({**pointer, "name": name}))
    for action in ("list", "check"):
        done = world.client.machine._forks(
            *("remote", action, world.place.to), env=world.client.machine.environment(), code=None
        )
        assert "\x1b" not in done.stdout + done.stderr
        assert "\nb" not in done.stdout


# -- packs ----------------------------------------------------------------------------------------------------------


def test_catalog_never_needs_too_many_packs(world: World, machine: Make) -> None:
    most = 6
    world.client.machine.tune = {**world.client.machine.tune, "holo.remote.push.MOST_PACKS": most}
    counts = []
    letters = [chr(ord("a") + number) for number in range(9)]
    for end in range(1, len(letters) + 1):
        world.push("app", *letters[:end])
        counts.append(len(world.packs("app")))
    assert counts == [1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert world.check("--read") == []
    other = Client(machine("tmpfs"), world.place)
    other.pull("app")
    tree = world.client.machine.root / f"tree-{'-'.join(letters)}"
    assert compare.differences(tree, other.machine.init("s", "app")) == []
    # What was packed anew is garbage when nothing needs it any more.
    world.gc()
    world.age()
    world.gc()
    assert {key for key in world.place.objects.sizes() if key.startswith("packs/")} == world.packs("app")
    assert world.check("--read") == []
    assert os.listdir(other.machine.library / "incoming") == []


def test_damaged_name_and_garbage_stand_in_nobodys_way_after_a_repair(world: World) -> None:
    world.push("app", "a")
    world.push("gone", "b")
    world.forget("gone")
    world.gc()
    for key in ("names/app", "garbage"):
        world.place.objects.write(key, b"damaged")
    assert world.check("--read", code=3) == ["garbage", "names/app"]
    said = world.client("push", "app", world.place.to, code=3).stderr
    assert "names/app is damaged" in said
    checked = world.client("remote", "check", world.place.to, code=3).stdout.splitlines()
    assert checked[-1].startswith("`holo remote check --repair` removes what nobody can use; then push ")
    report = world.client("remote", "check", world.place.to, "--repair", "--json", code=3).json()
    assert report["removed"] == ["garbage", "names/app"]
    world.client.push("app")
    assert world.gc()["waiting"] == 2
    assert world.check("--read") == []


def test_wrong_signatures_are_found_and_stay_until_somebody_signs_again(world: World, tmp_path: Path) -> None:
    key = Keys(tmp_path).make("alice")
    digests = [world.push("first", "a"), world.push("second", "b")]
    world.client.push("first", "second", "--sign", key)
    assert world.check() == []
    first, second = (f"catalogs/{digest}.sig" for digest in digests)
    world.place.objects.write(first, world.place.objects.read(second))
    world.place.objects.remove(second)
    pointer = json.loads(world.place.objects.read("names/first"))
    world.place.objects.write("names/first", json.dumps({**pointer, "time": pointer["time"] - 1}).encode())
    assert world.check("--repair", code=3) == sorted([first, "names/first", "names/second"])
    assert world.place.objects.sizes().keys() >= {first, "names/first", "names/second"}
    world.client.push("first", "second", "--sign", key)
    assert world.check() == []
