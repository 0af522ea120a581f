"""Push, pull, and remotes in general: from one machine to another, by real servers of every kind."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from holo import Hololib
from holo.catalog import Catalog
from holo.remote.packs import PACK
from support import compare, damage, fiemap, filesystems, trees, wheels
from support.forks import User
from support.machines import Make
from support.remotes import KINDS, Client, Place, Places, map_and_catalog
from support.servers import Fault, FaultyProxy, nginx_cache

ADA = User(1001)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two other users")
every_kind = pytest.mark.parametrize("kind", KINDS)


def long_path(root: Path, length: int) -> Path:
    """A path below ``root`` with so many bytes."""
    return root / "".ljust(length - len(os.fsencode(root)) - 1, "p")


def randomly(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def many_files(root: Path, *, count: int = 3000, seed: int = 1) -> Path:
    """An environment of packages, whose files do not get much smaller, and of which some name the path."""
    rng = random.Random(seed)
    for number in range(count):
        folder = root / "lib" / f"package-{number % 30:02}"
        trees.write(folder / f"module{number}.py", rng.randbytes(rng.choice((200, 2000, 9000))))
    trees.write(root / "bin" / "tool", f"#!/bin/sh\necho {root}\n", mode=0o755)
    return trees.settle(root)


# -- from one machine to another ------------------------------------------------------------------------------------


@root_only
@pytest.mark.parametrize(
    ("kind", "here", "there"),
    [("folder", "ext4", "btrfs"), ("https", "btrfs", "xfs"), ("rclone", "xfs", "tmpfs"), ("moto", "tmpfs", "ext4")],
)
def test_an_environment_arrives_whole_for_another_user(
    kind: str, here: str, there: str, machine: Make, places: Places
) -> None:
    place = places.new(kind)
    a, b = Client(machine(here), place), Client(machine(there, ADA), place)
    source = long_path(a.machine.root, 100)
    xattrs = filesystems.xattrs(a.machine.root) and filesystems.xattrs(b.machine.root)
    trees.nasty(source, xattrs=xattrs)
    trees.write(source / "sizes" / "huge", randomly(1, PACK + 1_000_003))
    with trees.write(source / "sizes" / "holes").open("r+b") as file:
        for start in range(0, 40 << 20, 4 << 20):
            file.seek(start)
            file.write(randomly(start, 70_000))
        file.truncate(41 << 20)
    trees.write(source / "sizes" / "zeros", bytes(3 << 20) + b"end")
    trees.settle(source)
    digest = a.machine.record(source, "nasty")
    small = trees.small(long_path(a.machine.root, 60))
    a.machine.record(small, "small")
    pushed = a.push("nasty", "small")
    assert {catalog["name"] for catalog in pushed["catalogs"]} == {"nasty", "small"}
    assert set(place.names()) == {"nasty", "small"}
    assert place.problems() == []
    pulled = b.pull("nasty")
    assert pulled["catalog"] == {"name": "nasty", "digest": digest}
    b.pull("small", "--name", "tiny")
    assert b.machine.is_sound()
    for name, length in {"equal": 100, "shorter": 90}.items():
        space = b.machine.init(name, "nasty", to=long_path(b.machine.root, length))
        assert compare.differences(source, space) == []
    longer = b.machine.init("longer", "tiny", to=long_path(b.machine.root, 140))
    assert compare.differences(small, longer) == []
    done = subprocess.run([longer / "bin" / "hello"], capture_output=True, text=True, check=True)
    assert done.stdout == f"hello from {longer}\n"
    assert {os.lstat(os.fsdecode(path)).st_uid for path in fiemap.regular_files(longer)} == {ADA.uid}
    assert [*(b.machine.library / "incoming").iterdir()] == []


@pytest.mark.parametrize(("here", "there"), [("raw", "zstd"), ("zstd", "raw")])
def test_how_a_library_stores_blobs_makes_no_difference(here: str, there: str, machine: Make, places: Places) -> None:
    place = places.new("folder")
    a, b = Client(machine("ext4"), place), Client(machine("xfs"), place)
    a.machine.keep(here)
    b.machine.keep(there)
    source = long_path(a.machine.root, 100)
    trees.nasty(source, xattrs=True)
    a.machine.record(source, "nasty")
    a.push("nasty")
    b.pull("nasty")
    assert b.machine.is_sound()
    assert compare.differences(source, b.machine.init("s", "nasty", to=long_path(b.machine.root, 95))) == []


# -- how many requests and bytes ------------------------------------------------------------------------------------


def counted(client: Client, report: Any) -> int:
    """The requests of a command, as the server counts them; holo has to agree."""
    asked = len(client.place.requests)
    client.place.forget()
    if client.place.server is not None:
        assert report["requests"] == asked, client.place.requests
    return int(report["requests"])


@every_kind
def test_requests_do_not_grow_with_the_files(kind: str, machine: Make, places: Places) -> None:
    place = places.new(kind)
    a, b = Client(machine("ext4"), place), Client(machine("tmpfs"), place)
    source = many_files(a.machine.root / "the-source", count=3000)
    a.machine.record(source, "env")
    pushed = a.push("env")
    assert pushed["blobs"] == {"sent": 3001, "known": 0}
    if kind != "https":  # which is pushed to as a folder
        assert counted(a, pushed) <= 40
    for expected in (0, 0):
        again = a.push("env")
        assert again["blobs"]["sent"] == expected
        assert (counted(a, again) if kind != "https" else again["requests"]) <= 2
    cold = b.pull("env")
    assert cold["blobs"] == {"new": 3001, "known": 0}
    assert counted(b, cold) <= 40
    warm = b.pull("env")
    assert warm["blobs"] == {"new": 0, "known": 3001}
    assert counted(b, warm) <= 3
    assert compare.differences(source, b.machine.init("s", "env")) == []


@pytest.mark.parametrize(("kind", "name"), [("folder", "env"), ("https", "next"), ("moto", "env"), ("moto", "next")])
def test_delta_moves_what_differs(kind: str, name: str, machine: Make, places: Places) -> None:
    """What differs: the blobs of the new package as they are compressed in its pack, and the object of the catalog.

    That object is new whatever differs, as the list of all files is.
    """
    place = places.new(kind)
    a, b = Client(machine("ext4"), place), Client(machine("tmpfs"), place)
    source = many_files(a.machine.root / "the-source", count=1500)
    a.machine.record(source, "env")
    a.push("env")
    b.pull("env")
    place.forget()
    there = place.objects.sizes()
    package = source / "lib" / "package-07"
    for number, path in enumerate(sorted(package.iterdir())[:50]):
        trees.write(path, randomly(number, 3000))
    for number in range(50):
        trees.write(package / f"new{number}.py", f"# {number}\n" * 200 + randomly(1000 + number, 2000).hex())
    trees.settle(source)
    digest = a.machine.record(source, name)
    pushed = a.push(name)
    assert pushed["requests"] <= 8
    if kind != "https":
        assert counted(a, pushed) <= 8
    new = {key: size for key, size in place.objects.sizes().items() if key not in there}
    packs = [key for key in new if key.startswith("packs/")]
    assert len(packs) == 1
    assert pushed["blobs"]["sent"] == 100
    # Of a pack, what is not content: names and sizes of its entries.
    differs = stored_in(place, digest, packs[0]) + new[f"catalogs/{digest}"]
    assert pushed["bytes"]["sent"] <= 1.1 * differs
    pulled = b.pull(name)
    assert pulled["blobs"]["new"] == 100
    assert counted(b, pulled) <= 8
    assert pulled["bytes"]["received"] <= 1.1 * differs
    assert compare.differences(source, b.machine.init("s", name)) == []
    assert place.problems() == []


def stored_in(place: Place, digest: str, pack: str) -> int:
    """The bytes of content in a pack, by the map of a catalog."""
    document, _ = map_and_catalog(place.objects.read(f"catalogs/{digest}"))
    number = [f"packs/{name}" for name, _ in document["packs"]].index(pack)
    return sum(stored for stored, index in zip(document["stored"], document["pack"], strict=True) if index == number)


@pytest.mark.parametrize("kind", ["folder", "moto"])
def test_dry_run_asks_and_changes_nothing(kind: str, machine: Make, places: Places) -> None:
    place = places.new(kind)
    a, b = Client(machine("ext4"), place), Client(machine("tmpfs"), place)
    a.machine.record(many_files(a.machine.root / "the-source", count=300), "env")
    would = a.push("env", "--dry-run")
    assert place.objects.sizes() == {}
    did = a.push("env")
    assert [would[key] for key in ("blobs", "packs", "catalogs")] == [
        did[key] for key in ("blobs", "packs", "catalogs")
    ]
    assert would["bytes"]["content"] == did["bytes"]["content"]
    assert would["bytes"]["sent"] == 0
    would = b.pull("env", "--dry-run")
    assert b.machine.is_empty()
    did = b.pull("env")
    assert would["blobs"] == did["blobs"]
    content = did["bytes"]["received"] - would["bytes"]["received"]  # the name and the catalog come in both
    assert would["bytes"]["to_fetch"] <= content <= 1.2 * would["bytes"]["to_fetch"]


@pytest.mark.parametrize("options", [[], ["--name", "mine"]])
def test_dry_run_says_that_a_name_would_mean_another_catalog(options: list[str], machine: Make, places: Places) -> None:
    place = places.new("folder")
    a, b = Client(machine("local"), place), Client(machine("local"), place)
    a.machine.record(trees.small(a.machine.root / "tree"), "app")
    a.push("app")
    name = options[-1] if options else "app"
    before = b.machine.record(trees.write(b.machine.root / "other" / "file").parent, name)
    would = b.pull("app", *options, "--dry-run")["warnings"]
    assert would == [f"the name {name} means the catalog {before[:12]} now, which would be kept under its digest"]
    assert f"warning: {would[0]}" in b("pull", "app", place.url, *options, "--dry-run").stderr
    assert len(b.pull("app", *options)["warnings"]) == 1
    assert b.pull("app", *options, "--dry-run")["warnings"] == []


def test_dry_run_is_refused_as_the_pull_would_be(machine: Make, places: Places) -> None:
    place = places.new("folder")
    a, b = Client(machine("local"), place), Client(machine("local"), place)
    tree = trees.small(a.machine.root / "tree")
    (tree / "bin" / "hello").chmod(0o4755)
    a.machine("record", tree, "--name", "app", "--keep-setid")
    a.push("app")
    for options in [], ["--dry-run"]:
        assert "--keep-setid" in b("pull", "app", place.to, *options, code=1).stderr
        b("pull", "app", place.to, "--keep-setid", "--dry-run")


def test_a_remote_without_a_catalog_is_told(machine: Make, places: Places) -> None:
    client = Client(machine("local"), places.new("folder"))
    assert "error: there is nothing to push\n" in client("push", client.place.to, code=2).stderr
    assert f"`holo pull NAME {client.place.to}`" in client("pull", client.place.to, code=2).stderr
    client.machine.record(trees.small(client.machine.root / "tree"), "app")
    assert [catalog["name"] for catalog in client.push("app", "app")["catalogs"]] == ["app"]


def test_several_catalogs_at_once_share_what_is_common(machine: Make, places: Places) -> None:
    place = places.new("folder")
    a = Client(machine("ext4"), place)
    source = many_files(a.machine.root / "the-source", count=300)
    a.machine.record(source, "one")
    trees.write(source / "lib" / "more", randomly(9, 5000))
    a.machine.record(source, "two")
    pushed = a.push("one", "two")
    assert pushed["blobs"]["sent"] == 302
    assert set(place.names()) == {"one", "two"}
    assert place.problems() == []


def test_name_may_look_like_a_version_of_another(machine: Make, places: Places) -> None:
    place = places.new("folder")
    a, b = Client(machine("ext4"), place), Client(machine("tmpfs"), place)
    a.machine.record(trees.small(a.machine.root / "the-source"), "app-1.2.3")
    a.push("app-1.2.3")
    for _ in range(2):
        a("remote", "gc", place.to, "--grace", "1m")
    listed = a("remote", "list", place.to, "--json").json()["names"]
    assert [item["name"] for item in listed] == ["app-1.2.3"]
    b.pull("app-1.2.3")


def test_name_may_be_how_the_digest_begins(machine: Make, places: Places) -> None:
    place = places.new("folder")
    a, b = Client(machine("local"), place), Client(machine("local"), place)
    tree = trees.small(a.machine.root / "tree")
    digest = a.machine.record(tree, "app")
    names = [digest[:length] for length in (1, 6, 13)]
    for name in names:
        a.machine.record(tree, name)
        a.push(name)
        assert place.names()[name] == digest
        assert b.pull(name)["catalog"] == {"name": name, "digest": digest}
    bundle = a.machine.export(*names)
    assert sorted(row["name"] for row in b.machine("catalogs", bundle, "--json").json()["catalogs"]) == names
    assert b.machine("verify", names[0], "--json").json()["catalogs"][0]["name"] == names[0]
    # One without a name still has none.
    for name in names:
        a.machine("catalogs", name, "--remove")
    a.machine.record(trees.small(a.machine.root / "another"), "app")
    assert a.machine("verify", digest[:12], "--json").json()["catalogs"][0]["name"] is None
    bundle = a.machine.export(digest[:12])
    assert [row["name"] for row in b.machine("catalogs", bundle, "--json").json()["catalogs"]] == [None]


@pytest.mark.parametrize("kind", ["rclone", "moto"])
def test_what_is_wrong_with_a_bucket_is_told_at_once(kind: str, machine: Make, places: Places) -> None:
    place = places.new(kind)
    client = Client(machine("local"), place)
    client.machine.record(trees.small(client.machine.root / "tree"), "app")
    half = {name: value for name, value in place.environment.items() if name != "AWS_SECRET_ACCESS_KEY"}
    wrong = [
        (place.url.replace("s3://holo", "s3://nowhere"), place.environment, "there is no bucket for s3://nowhere/"),
        (place.url, half, "are not complete: "),
        (place.url, {**place.environment, "AWS_ALLOW_HTTP": "false"}, "AWS_ALLOW_HTTP=true"),
    ]
    for url, environment, what in wrong:
        for command in ("push", "app"), ("pull", "app"), ("remote", "status"):
            said = client.machine(*command, url, code=1, env=environment).stderr
            assert what in said
            assert "run the command again" not in said


def test_what_is_wrong_with_a_proxy_is_not_said_of_the_remote(machine: Make, places: Places) -> None:
    place = places.new("https")
    client = Client(machine("local"), place)
    client.machine.tune = {**client.machine.tune, "holo.remote.remote._FIRST_ATTEMPTS": 1}
    client.machine.record(trees.small(client.machine.root / "tree"), "app")
    client.push("app")
    nobody = {"NO_PROXY": "", "no_proxy": "", "https_proxy": ""}
    for proxy, code, what in (
        ("http://name:secret@127.0.0.1:1", 1, f"cannot reach {place.url}: the proxy on the way: Connection refused"),
        ("http://", 2, "has no URL that can be used"),
        ("ftp://127.0.0.1", 2, "has no URL that can be used"),
        ("socks5://127.0.0.1:1", 2, "speaks SOCKS"),
    ):
        said = client(
            "pull", "app", place.url, code=code, **{**nobody, "HTTPS_PROXY": proxy, "https_proxy": proxy}
        ).stderr
        assert what in said
        assert "secret" not in said
        assert (code == 1) or "proxy" in said


def test_what_keeps_a_web_server_from_being_asked_is_one_error(machine: Make, places: Places) -> None:
    """And no reason why an environment is not built."""
    place = places.new("https")
    nowhere = {"REQUESTS_CA_BUNDLE": "/nowhere.pem"}
    for url, environment, code, what in (
        (place.url, nowhere, 1, "nowhere.pem\nhint: REQUESTS_CA_BUNDLE"),
        ("https://a..b/x", {}, 2, "https://a..b/x is no URL that can be asked"),
        (f"https://{'a' * 70}/x", {}, 2, "is no URL that can be asked"),
    ):
        client = Client(machine("local"), place)
        blueprint = trees.write(client.machine.root / "requirements.txt", "")
        assert what in client("pull", "app", url, code=code, **environment).stderr
        done = client("init", "--space", "s", blueprint, HOLO_REMOTE=url, **environment)
        assert "It is built instead." in done.stderr


def test_server_that_leads_in_a_circle_is_told_at_once(machine: Make, places: Places) -> None:
    place = places.new("https")
    assert place.server is not None
    with FaultyProxy(place.server.url) as proxy:
        proxy.rule = lambda asked: Fault(redirect=proxy.url)
        client = Client(machine("local"), place)
        assert "without end" in client("pull", "app", f"{proxy.url}/x", code=1).stderr
        assert proxy.asked < 50


@pytest.mark.parametrize("url", ["https://host/a#b", "s3://bucket/a#b", "gs://bucket/a#b"])
def test_number_sign_in_a_url_is_told(url: str, machine: Make) -> None:
    said = machine("local")("remote", "list", url, code=2).stderr
    assert f"{url}: what comes behind # is no part of an address" in said
    assert "%23" in said


def test_why_a_server_of_a_bucket_cannot_be_asked_is_told(machine: Make, places: Places) -> None:
    static, place = places.new("https"), places.new("moto")
    client = Client(machine("local"), place)
    client.machine.tune = {**client.machine.tune, "holo.remote.remote._FIRST_ATTEMPTS": 1}
    assert static.server is not None
    for url, what in (
        ("http://127.0.0.1:1", f"cannot reach {place.url}: Connection refused\n"),
        ("http://nowhere.invalid", f"cannot reach {place.url}: failed to lookup address information"),
        (static.server.url, "is not valid (UnknownIssuer)\nhint: SSL_CERT_FILE "),
    ):
        assert what in client("pull", "app", place.url, code=1, AWS_ENDPOINT_URL=url, NO_PROXY="*").stderr
    trusting = {"AWS_ENDPOINT_URL": static.server.url, "SSL_CERT_FILE": str(static.server.authority)}
    assert "there is no catalog" in client("pull", "app", place.url, code=1, NO_PROXY="*", **trusting).stderr


def test_slip_in_what_names_a_bucket_is_told(machine: Make, places: Places) -> None:
    """The library underneath panics of most of these, which is not for a user to read."""
    place = places.new("moto")
    client = Client(machine("local"), place)
    client.machine.record(trees.small(client.machine.root / "tree"), "app")
    for name, value, what in (
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "AWS_ENDPOINT_URL is no URL: '127.0.0.1:9000'"),
        ("AWS_ENDPOINT_URL", "https://", "AWS_ENDPOINT_URL is no URL: 'https://'"),
        ("AWS_ENDPOINT_URL", "", "AWS_ENDPOINT_URL is no URL: ''"),
        ("AWS_ACCESS_KEY_ID", "key\n", "AWS_ACCESS_KEY_ID has a line end in it"),
        ("AWS_SESSION_TOKEN", "to\nken", "AWS_SESSION_TOKEN has a line end in it"),
        ("AWS_REGION", "eu-central-1\n", "AWS_REGION has a line end in it"),
        ("AWS_ALLOW_HTTP", "perhaps", 'cannot be used: failed to parse "perhaps" as boolean'),
    ):
        done = client("push", "app", place.to, code=2, **{name: value})
        assert done.stderr.count("\n") <= 2, done.stderr
        assert what in done.stderr
    for url in ("s3://a b/x", "s3://holo/x//y"):
        assert f"error: {url} " in client("push", "app", url, code=2).stderr


# -- init, restore and run ------------------------------------------------------------------------------------------


def test_a_name_that_is_nowhere_else_says_what_is_wrong_with_the_remote(machine: Make, places: Places) -> None:
    place = places.new("folder")
    a, b = Client(machine("ext4"), place), Client(machine("tmpfs"), place)
    for name in ("app", "mine"):
        a.machine.record(trees.write(a.machine.root / name / "file", name).parent, name)
    a.push("app")
    shutil.rmtree(Path(place.to, "catalogs"))
    assert f"is not in {place.to}" in b("init", "s", "app", code=1, HOLO_REMOTE=place.to).stderr
    for command in ("init", "s", "nowhere"), ("run", "--ephemeral", "--catalog", "nowhere", "s", "--", "true"):
        said = b(*command, code=1, HOLO_REMOTE=place.to).stderr
        assert f"there is no catalog 'nowhere' in {place.to}\nerror: " in said
    assert "there is no catalog" not in a("init", "s", "mi", HOLO_REMOTE=place.to).stderr
    shutil.rmtree(place.to)
    assert "there is no remote at" in b("init", "s", "app", code=1, HOLO_REMOTE=place.to).stderr
    a("init", "s", "mi", HOLO_REMOTE=place.to)  # it is here, and has to come from nowhere


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_folder_of_something_else_is_refused_and_stays_as_it_is(scheme: str, machine: Make, places: Places) -> None:
    """Also one that has folders of the same names."""
    place = places.new("folder")
    a = Client(machine("ext4"), place)
    digest = a.machine.record(trees.small(a.machine.root / "tree"), "app")
    project = trees.write(a.machine.root / "project" / "packs" / "mine").parents[1]
    (project / "catalogs").mkdir()
    trees.write(project / "README")
    for command in (
        ("push", "app"),
        ("push", digest),
        ("push", "app", "--dry-run"),
        ("pull", "app"),
        ("pull", digest),
        *(("remote", what) for what in ("list", "status", "check", "gc")),
    ):
        said = a(*command, f"{scheme}{project}", code=1).stderr
        assert f"there is no remote at {project}: that folder has other things in it, such as README" in said
        assert "`mkdir` an empty folder" in said
    assert {str(path.relative_to(project)) for path in project.rglob("*")} == {
        "README",
        "catalogs",
        "packs",
        "packs/mine",
    }
    a.push("app")
    trees.write(Path(place.to, "index.html"))  # what a web server shows
    shutil.rmtree(Path(place.to, ".drafts"))  # as in a copy of a bucket
    a.push("app", "--dry-run")
    assert a("remote", "list", place.to).stdout.count("app") == 1


@root_only
def test_folder_that_may_not_be_listed_can_be_pulled_from(machine: Make, places: Places) -> None:
    place = places.new("folder")
    a, b = Client(machine("ext4"), place), Client(machine("tmpfs", ADA), place)
    a.machine.record(trees.small(a.machine.root / "tree"), "app")
    a.push("app")
    Path(place.to).chmod(0o711)
    b.pull("app")
    assert "there is no catalog 'none'" in b("pull", "none", place.to, code=1).stderr


def test_push_to_a_web_server_is_refused_at_once(machine: Make, places: Places) -> None:
    """Also if nothing would have to be sent, or only the names are there, or nobody answers."""
    place = places.new("https")
    a = Client(machine("local"), place)
    a.machine.record(trees.small(a.machine.root / "tree"), "app")
    for _ in range(2):
        for url in (place.url, "https://localhost:1/"):
            for options in ([], ["--dry-run"]):
                said = a("push", "app", url, *options, code=2).stderr
                assert "can only be read" in said
                assert "Push to the bucket or the folder" in said
        assert place.requests == []
        a.push("app")


@root_only
def test_folder_that_may_only_be_read_has_a_hint_of_its_own(machine: Make, places: Places) -> None:
    """Its lock is not there yet, as in a copy of a bucket, and is no lock of a home."""
    place = places.new("folder")
    a, b = Client(machine("local"), place), Client(machine("local", ADA), place)
    a.machine.record(trees.small(a.machine.root / "tree"), "app")
    a.push("app")
    Path(place.to, ".lock").unlink()
    b.pull("app", "--name", "other")
    said = b("push", "other", place.to, code=1).stderr
    assert f"{place.to}/.lock: Permission denied\nhint: Check its owner and mode" in said


def test_arguments_in_the_wrong_order_are_told(machine: Make, places: Places) -> None:
    place = places.new("folder")
    a = Client(machine("local"), place)
    a.machine.record(trees.small(a.machine.root / "tree"), "app")
    for command in (("push", place.to, "app"), ("push", place.to, "app", place.to), ("pull", place.to, "app")):
        said = a(*command, code=2).stderr
        assert f"{place.to} is no name of a catalog" in said
        assert "first" in said


def test_pull_brings_back_a_catalog_that_is_damaged_here(machine: Make, places: Places) -> None:
    """As an import does."""
    place = places.new("folder")
    a, b = Client(machine("local"), place), Client(machine("local"), place)
    digest = a.machine.record(trees.small(a.machine.root / "tree"), "app")
    a.push("app")
    b.pull("app")
    file = b.machine.library / "catalog" / f"{digest}.json"
    damage.rewrite(file, file.read_bytes().replace(b"leaf", b"lead"))
    b("check", code=3)
    b.pull("app", "--dry-run")
    assert b.pull("app")["blobs"] == {"new": 0, "known": 4}
    b("check")


@pytest.mark.parametrize("kind", ["folder", "moto", "rclone"])
def test_push_replaces_a_pack_that_was_cut_off(kind: str, machine: Make, places: Places) -> None:
    """As in a copy of a remote that did not end. Its catalog is not there yet, so no check tells of the pack."""
    place = places.new(kind)
    a, b = Client(machine("local"), place), Client(machine("local"), place)
    a.machine.record(trees.write(a.machine.root / "tree" / "file", randomly(1, 100_000)).parent, "app")
    a.push("app")
    before = {key: place.objects.read(key) for key in place.objects.sizes()}
    for key, content in before.items():
        place.objects.remove(key)
        if key.startswith("packs/"):
            place.objects.write(key, content[:1000])
    a.push("app")
    assert {key: place.objects.read(key) for key in before if key.startswith("packs/")} == {
        key: content for key, content in before.items() if key.startswith("packs/")
    }
    b.pull("app")


def test_directory_of_the_same_name_hides_no_catalog_of_a_remote(machine: Make, places: Places) -> None:
    place = places.new("folder")
    a, b, c = Client(machine("ext4"), place), Client(machine("tmpfs"), place), Client(machine("tmpfs"), place)
    digest = a.machine.record(trees.small(a.machine.root / "tree"), "app")
    a.push("app")
    remote = {"HOLO_REMOTE": place.to}
    for client in (b, c):
        trees.write(client.machine.root / "app" / "file", "not what is meant")
        trees.write(client.machine.root / "mine" / "file", "mine")
    made = b("init", "s", "app", "--json", **remote)
    assert made.json()["digest"] == digest
    assert "that is ./app" in made.stderr
    assert b("init", "t", "./app", "--json", **remote).json()["digest"] != digest
    assert b("init", "u", "mine", "--json", **remote).json()["catalog"] == "mine"
    # Where nothing but a catalog can be meant.
    c("run", "--ephemeral", "s", "--catalog", "app", "--", "true", **remote)
    # A remote that does not answer is no reason to fail.
    gone = b("init", "v", "app-2", code=1, HOLO_REMOTE=f"{place.to}-gone")
    assert "there is no remote" in gone.stderr
    trees.write(b.machine.root / "app-2" / "file", "mine")
    gone = b("init", "v", "app-2", HOLO_REMOTE=f"{place.to}-gone")
    assert "warning: there is no remote" in gone.stderr


@pytest.mark.parametrize("kind", ["https", "moto"])
def test_commands_pull_what_the_library_lacks(kind: str, machine: Make, places: Places) -> None:
    place = places.new(kind)
    a, b = Client(machine("ext4"), place), Client(machine("tmpfs"), place)
    source = trees.small(long_path(a.machine.root, 60))
    digest = a.machine.record(source, "app")
    other = trees.write(a.machine.root / "other" / "file", "other").parent
    other_digest = a.machine.record(trees.settle(other), "other")
    a.push("app", "other")
    remote = {"HOLO_REMOTE": place.url}
    made = b("init", "--space", "s", "app", "--json", **remote).json()
    assert made["digest"] == digest
    assert compare.differences(source, Path(made["path"])) == []
    # Of what is here, nobody else is asked; names are no paths.
    place.forget()
    b("init", "--space", "t", "app", **remote)
    b("restore", "--space", "s", **remote)
    assert place.requests == []
    assert "nowhere" in b("init", "--space", "u", "nowhere", code=1, **remote).stderr
    # A space whose catalog is gone, by its digest.
    b("catalogs", "--remove", "app")
    b("gc", "--keep-last", "0")
    shutil.rmtree(Path(made["path"]) / "lib")
    assert b("restore", "--space", "s", code=1).stderr.count("error: ") == 1
    b("restore", "--space", "s", **remote)
    assert compare.differences(source, Path(made["path"])) == []
    # Another catalog, and a command in a throw-away environment.
    assert b("restore", "--space", "s", "--catalog", "other", "--json", **remote).json()["digest"] == other_digest
    c = Client(machine("ext4"), place)
    done = c(
        "run", "--ephemeral", "--catalog", "app", "--", "sh", "-c", "cat $HOLO_SPACE_PATH/lib/deep/er/leaf", **remote
    )
    assert done.stdout == "leaf"
    assert b.machine.is_sound()


def test_pulled_catalog_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "remote").mkdir()
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)
    pusher = Hololib(tmp_path / "a")
    pusher.record(trees.small(tmp_path / "tree"), "app")
    pusher.remote(tmp_path / "remote").push(["app"])
    monkeypatch.setenv("HOLO_REMOTE", str(tmp_path / "remote"))
    parse, parsed = Catalog.from_json, []
    monkeypatch.setattr(Catalog, "from_json", lambda data, origin: parsed.append(origin) or parse(data, origin))
    puller = Hololib(tmp_path / "b")
    path = Path(puller.init("s", "app").path)
    assert len(parsed) == 1
    assert compare.differences(tmp_path / "tree", path) == []
    puller.catalog("app")
    assert len(parsed) == 2, "it is kept for the next use only"


class Project:
    """A blueprint that needs one package, from a folder of wheels that can be taken away."""

    def __init__(self, root: Path) -> None:
        self.wheels = root / "wheels"
        wheels.make(self.wheels, "leaf")
        self.blueprint = trees.write(root / "project" / "requirements.txt", "leaf\n")
        self.environment = {"UV_FIND_LINKS": str(self.wheels), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}

    def is_in(self, space: Path) -> bool:
        return subprocess.run([space / "bin" / "leaf"], capture_output=True, text=True, check=True).stdout == (
            f"leaf 1.0 {space}\n"
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "moto"])
def test_blueprint_is_built_by_one_and_pulled_by_all(
    kind: str, machine: Make, places: Places, project: Project
) -> None:
    place = places.new(kind)
    a, b = Client(machine("ext4"), place), Client(machine("ext4"), place)
    a.machine.settings.write_text(f"remote:\n  url: {place.to}\n  push: true\n")
    b.machine.settings.write_text(f"remote:\n  url: {place.url}\n")
    init = ("init", "--space", "s", project.blueprint, "--json")
    first = a(*init, **project.environment).json()
    assert project.is_in(Path(first["path"]))
    assert len(place.names()) == 1
    assert sum(key.startswith("keys/") for key in place.objects.sizes()) == 1
    shutil.rmtree(project.wheels)
    project.wheels.mkdir()
    # It cannot be built any more.
    assert "leaf" in b(*init, code=1, **project.environment, HOLO_REMOTE="none").stderr
    done = b(*init, **project.environment)
    second = done.json()
    assert second["digest"] == first["digest"]
    assert project.is_in(Path(second["path"]))
    assert f"pulling {second['catalog']}" in done.stderr
    place.forget()
    c = Client(machine("ext4"), place)
    ran = c("run", "--blueprint", project.blueprint, "--", "leaf", HOLO_REMOTE=place.url, **project.environment)
    assert ran.stdout.startswith("leaf 1.0 ")
    assert c.machine.is_sound()
    # Who only pulls changes nothing.
    assert {request.method for request in place.requests} <= {"GET", "HEAD"}


def test_remote_that_is_down_is_a_warning_and_a_build(
    machine: Make, places: Places, project: Project, tmp_path: Path
) -> None:
    place = places.new("https")
    a = Client(machine("ext4"), place)
    init = ("init", "--space", "s", project.blueprint, "--json")
    for url in ("https://127.0.0.1:1/remote", "https://nowhere.invalid/remote", str(tmp_path / "not-mounted")):
        a.machine.settings.write_text(f"remote:\n  url: {url}\n  push: true\n")
        done = a(*init, **project.environment)
        assert project.is_in(Path(done.json()["path"]))
        warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == 2, done.stderr
        assert "built instead" in warnings[0]
        assert "was not pushed" in warnings[1]
        a("delete", "--space", "s")
        a("catalogs", "--remove", done.json()["digest"])
    # What nobody can build is an error.
    assert a("init", "--space", "s", "nothing", code=1).stderr.count("error: ") == 1
    assert a("pull", "app", code=1).stderr.count("error: ") == 1


# -- caches ---------------------------------------------------------------------------------------------------------


def test_second_client_of_a_cache_asks_nothing_of_the_origin(machine: Make, places: Places) -> None:
    place = places.new("https")
    a = Client(machine("ext4"), place)
    source = many_files(a.machine.root / "the-source", count=500)
    trees.write(source / "lib" / "huge", randomly(1, 2 * PACK))
    digest = a.machine.record(trees.settle(source), "env")
    a.push("env")
    assert place.server is not None
    path = place.url.removeprefix(place.server.url)
    with nginx_cache(place.server.url) as cache:
        cached = place._replace(url=cache.url + path, server=cache)
        for number in range(2):
            place.forget()
            b = Client(machine("tmpfs"), cached)
            cold = b.pull("env")
            asked = [request.path.removeprefix(path + "/").split("/")[0] for request in place.requests]
            assert counted(b, cold) <= 40
            if number == 0:
                assert {*asked} == {"names", "catalogs", "packs"}
            else:
                assert asked == ["names"]
            assert b.machine.is_sound()
        assert digest in b.machine("catalogs", "--json").stdout


def test_what_is_wrong_in_a_cache_is_asked_of_the_origin_again(machine: Make, places: Places) -> None:
    place = places.new("https")
    a = Client(machine("ext4"), place)
    a.machine.record(many_files(a.machine.root / "the-source", count=300), "env")
    a.push("env")
    assert place.server is not None
    with nginx_cache(place.server.url) as cache:
        cached = place._replace(url=cache.url + place.url.removeprefix(place.server.url), server=cache)
        Client(machine("tmpfs"), cached).pull("env")
        kept = [path for path in cache.kept.rglob("*") if path.is_file()]
        assert len(kept) == 2  # the catalog and a pack
        for path in kept:
            content = bytearray(path.read_bytes())
            content[-40] ^= 1
            path.write_bytes(content)
        for asks_again in (True, False):
            place.forget()
            other = Client(machine("tmpfs"), cached)
            other.pull("env")
            assert other.machine.is_sound()
            asked = {request.path.rpartition("/")[0].rpartition("/")[2] for request in place.requests}
            assert asked == ({"names", "catalogs", "packs"} if asks_again else {"names"})
