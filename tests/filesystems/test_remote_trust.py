"""Whom a pull believes, and who learns the credentials that it has."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holo import signatures
from support import trees
from support.cli import Result
from support.machines import Machine, Make
from support.remotes import Client, Place, Places
from support.servers import PASSWORD, USER, Asked, Fault, FaultyProxy, nginx_static
from support.signing import Keys

YEAR = 365 * 86_400
NOBODY = "http://127.0.0.1:1"
"""An upstream that is never asked."""


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


# -- signatures -----------------------------------------------------------------------------------------------------


class Signed:
    """A remote with two signed catalogs, an older and a newer one of the same name, and a client that wants that."""

    def __init__(self, machine: Make, place: Place, keys: Keys) -> None:
        self.place = place
        self.keys = keys
        self.alice, self.mallory = keys.make("alice"), keys.make("mallory")
        self.signers = keys.allow(("alice@example.org", self.alice))
        self.pusher, self.client = Client(machine("ext4"), place), Client(machine("tmpfs"), place)
        self.demand(self.signers)
        self.digests = []
        self.pointers = []
        for number in (1, 2):
            tree = self.pusher.machine.root / f"tree-{number}"
            trees.write(tree / "file", f"{number}")
            self.digests.append(self.pusher.machine.record(trees.settle(tree), "app"))
            self.pusher.push("app", "--sign", self.alice)
            self.pointers.append(json.loads(place.objects.read("names/app")))
        self.old, self.new = self.digests

    def demand(self, signers: Path, *, max_age: str = "none") -> None:
        self.client.machine.settings.write_text(f"remote:\n  allowed-signers: {signers}\n  max-age: {max_age}\n")

    def point(self, name: str = "app", kind: str = "name", **changes: object) -> None:
        """Change what the name says, but not who signed it."""
        pointer = {**self.pointers[1], "kind": kind, "name": name, **changes}
        self.place.objects.write(f"{kind}s/{name}", json.dumps(pointer).encode())

    def sign(self, digest: str, key: Path, *, name: str = "app", time: int | None = None) -> str:
        """A signed statement of what a name means."""
        time = self.pointers[1]["time"] if time is None else time
        statement = signatures.pointer_statement("name", name, digest, time)
        return signatures.sign(statement, signatures.NAME, str(key)).decode()


def unsigned(world: Signed) -> None:
    world.pusher.machine.record(trees.small(world.pusher.machine.root / "unsigned"), "app")
    world.pusher.push("app")


def catalog_unsigned(world: Signed) -> None:
    world.place.objects.remove(f"catalogs/{world.new}.sig")


def name_unsigned(world: Signed) -> None:
    world.point(signature=None)


def wrong_signer(world: Signed) -> None:
    world.pusher.push("app", "--sign", world.mallory)


def name_by_wrong_signer(world: Signed) -> None:
    world.point(signature=world.sign(world.new, world.mallory))


def catalog_by_wrong_signer(world: Signed) -> None:
    statement = signatures.catalog_statement(world.new)
    signature = signatures.sign(statement, signatures.CATALOG, str(world.mallory))
    world.place.objects.write(f"catalogs/{world.new}.sig", signature)


def signer_expired(world: Signed) -> None:
    world.demand(world.keys.allow(("alice@example.org", 'valid-before="20200101"', world.alice)))


def signer_for_git_only(world: Signed) -> None:
    world.demand(world.keys.allow(("alice@example.org", 'namespaces="git"', world.alice)))


def moved_to_older(world: Signed) -> None:
    """The older catalog has a good signature, but nobody has signed that the name means it now."""
    world.point(catalog=world.old)


def signature_of_another_catalog(world: Signed) -> None:
    world.place.objects.write(f"catalogs/{world.new}.sig", world.place.objects.read(f"catalogs/{world.old}.sig"))


def another_time(world: Signed) -> None:
    world.point(time=world.pointers[1]["time"] + 1)


def catalog_signature_for_name(world: Signed) -> None:
    world.point(signature=world.place.objects.read(f"catalogs/{world.new}.sig").decode())


def garbled(world: Signed) -> None:
    text = world.pointers[1]["signature"]
    world.point(signature=text[:200] + ("A" if text[200] != "A" else "B") + text[201:])


def too_old(world: Signed) -> None:
    time = world.pointers[1]["time"] - YEAR
    world.point(time=time, signature=world.sign(world.new, world.alice, time=time))
    world.demand(world.signers, max_age="300d")


def from_the_future(world: Signed) -> None:
    time = world.pointers[1]["time"] + 86_400
    world.point(time=time, signature=world.sign(world.new, world.alice, time=time))


ATTACKS = (
    *(unsigned, catalog_unsigned, name_unsigned, wrong_signer, name_by_wrong_signer, catalog_by_wrong_signer),
    *(signer_expired, signer_for_git_only, moved_to_older, signature_of_another_catalog, another_time),
    *(catalog_signature_for_name, garbled, too_old, from_the_future),
)


def listing(machine: Machine) -> dict[str, bytes]:
    """All that a library holds, but for locks."""
    found = (path for path in machine.library.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(machine.library)): path.read_bytes() for path in found if path.name != "lock"}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_is_not_signed_as_demanded_is_refused(
    attack: Callable[[Signed], None], machine: Make, places: Places, keys: Keys
) -> None:
    world = Signed(machine, places.new("folder"), keys)
    attack(world)
    client, url = world.client, world.place.url
    before = listing(client.machine)
    commands = [
        ("pull", "app", url),
        ("init", "--space", "s", "app"),
        ("run", "--ephemeral", "--catalog", "app", "--", "true"),
    ]
    for command in commands:
        said = client(*command, code=3, HOLO_REMOTE=url).stderr
        assert said.count("error: ") == 1, said
        assert "hint: " in said
    assert listing(client.machine) == before
    assert client.machine.is_empty()
    # Whoever demands nothing may have it, and with the right signature again it is taken.
    if attack not in {unsigned, wrong_signer, signer_expired, signer_for_git_only}:
        world.demand(world.signers)
        world.point()
        world.pusher("catalogs", "--json")
        world.pusher.push("app", "--sign", world.alice)
        assert client.pull("app")["signed_by"] == "alice@example.org"


def test_what_is_signed_as_demanded_is_taken(machine: Make, places: Places, keys: Keys) -> None:
    world = Signed(machine, places.new("folder"), keys)
    world.demand(world.signers, max_age="1d")
    pulled = world.client.pull("app")
    assert (pulled["signed_by"], pulled["catalog"]["digest"]) == ("alice@example.org", world.new)
    # By its digest the older one is a catalog as good as any.
    assert world.client.pull(world.old, "--name", "old")["signed_by"] == "alice@example.org"
    rows = world.client("remote", "list", world.place.url, "--json").json()["names"]
    assert [(row["name"], row["digest"], row["signed"]) for row in rows] == [("app", world.new, True)]


def test_who_sends_again_what_was_lost_takes_no_signature_away(machine: Make, places: Places, keys: Keys) -> None:
    world = Signed(machine, places.new("folder"), keys)
    world.place.objects.remove(f"catalogs/{world.new}")
    assert world.pusher.push("app")["blobs"]["sent"] > 0
    assert world.client.pull("app")["signed_by"] == "alice@example.org"


def test_signature_is_asked_for_past_caches(machine: Make, places: Places, keys: Keys) -> None:
    """It changes with whoever signs again, as a name does."""
    world = Signed(machine, places.new("https"), keys)
    assert world.place.server is not None
    with FaultyProxy(world.place.server.url) as proxy:
        url = proxy.url + world.place.url.removeprefix(world.place.server.url)
        world.client("pull", "app", url)
        asked = {request.path.rpartition(".")[2]: request.headers for request in proxy.requests}
    assert asked["sig"]["cache-control"] == "no-cache"


def test_statement_is_not_good_for_another_name(machine: Make, places: Places, keys: Keys) -> None:
    """A good environment for tests is none for production."""
    world = Signed(machine, places.new("folder"), keys)
    world.point(name="production")
    key = "0" * 64
    world.point(name=key, kind="key")
    url = world.place.url
    for name in ("production",):
        said = world.client("pull", name, url, code=3).stderr
        assert "wrong signature" in said
    assert world.client.machine.is_empty()
    assert world.place.objects.read(f"keys/{key}")


def test_unsigned_key_of_a_blueprint_is_not_believed(machine: Make, places: Places, keys: Keys, tmp_path: Path) -> None:
    """The blueprint is built instead, with a warning."""
    from support import wheels

    place = places.new("folder")
    wheels.make(tmp_path / "wheels", "leaf")
    environment = {"UV_FIND_LINKS": str(tmp_path / "wheels"), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}
    blueprint = trees.write(tmp_path / "project" / "requirements.txt", "leaf\n")
    a, b = Client(machine("ext4"), place), Client(machine("ext4"), place)
    a.machine.settings.write_text(f"remote:\n  url: {place.to}\n  push: true\n")
    signers = keys.allow(("alice@example.org", keys.make("alice")))
    b.machine.settings.write_text(f"remote:\n  url: {place.to}\n  allowed-signers: {signers}\n")
    init = ("init", "--space", "s", blueprint, "--json")
    a(*init, **environment)
    said = b(*init, **environment).stderr
    assert "is not signed" in said
    assert "pulling" not in said
    a.push(a(*init, **environment).json()["catalog"], "--sign", keys.make("alice"))
    c = Client(machine("ext4"), place)
    c.machine.settings.write_text(b.machine.settings.read_text())
    assert "pulling" in c(*init, **environment).stderr


def test_key_that_cannot_sign_is_told_before_anything_is_sent(machine: Make, places: Places, keys: Keys) -> None:
    client = Client(machine("local"), places.new("folder"))
    client.machine.record(trees.small(client.machine.root / "tree"), "app")
    bundle = client.machine.export("app")
    (halved := keys.make("halved")).unlink()
    for key in bundle, halved.parent, f"{halved}.pub":
        said = client("push", "app", client.place.to, "--sign", key, code=1).stderr
        assert str(key) in said
        assert "hint: Name a private key" in said
        assert not client.place.objects.sizes()


# -- credentials ----------------------------------------------------------------------------------------------------


SECRETS = (PASSWORD, PASSWORD.replace(" ", "%20"), base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()[:-4])


def with_password(url: str) -> str:
    return url.replace("://", f"://{USER}:{PASSWORD.replace(' ', '%20')}@")


def tells_nothing(result: Result) -> Result:
    for secret in SECRETS:
        assert secret not in result.stdout + result.stderr, result
    return result


def holds_nothing(*folders: Path) -> None:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not any(secret.encode() in content or secret in str(path) for secret in SECRETS), path


def test_credentials_are_neither_shown_nor_kept(machine: Make, places: Places, tmp_path: Path) -> None:
    place = places.new("folder")
    a = Client(machine("ext4"), place)
    tree = trees.small(a.machine.root / "the-source")
    a.machine.record(tree, "app")
    a.push("app")
    with nginx_static(Path(place.to), password=True) as server:
        trusted = places.trusting(server)
        netrc = trees.write(tmp_path / "netrc", f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n', mode=0o600)
        asked = {"url": {"HOLO_REMOTE": with_password(server.url)}, "netrc": {"NETRC": str(netrc)}}
        for number, (how, environment) in enumerate(asked.items()):
            b = Client(machine("tmpfs"), place)
            url = with_password(server.url) if how == "url" else server.url
            run: dict[str, Any] = {**trusted, **environment}
            for arguments in (
                ("pull", "app", url),
                ("pull", "app", url, "--json"),
                ("push", "app", url),
                ("pull", "nowhere", url),
                ("remote", "list", url),
                ("remote", "check", url, "--json"),
                ("settings", "--json"),
                ("init", "--space", f"s{number}", "app"),
                ("init", "--space", f"t{number}", "nowhere"),
                ("doctor",),
            ):
                done = b.machine._forks(
                    *arguments, env=b.machine.environment(run), code=None, tune=b.machine.tune, memory=0
                )
                tells_nothing(done)
                assert done.code in {0, 1, 2}
            assert b.machine.is_sound()
            b.machine.settings.write_text(f"remote:\n  url: {url}\n")
            tells_nothing(b("settings", **trusted, **environment))
            holds_nothing(b.machine.home, Path(place.to))
        # With a wrong password, with none, and when nobody answers.
        wrong = with_password(server.url).replace("open", "0pen")
        c = Client(machine("tmpfs"), place)
        for url in (wrong, server.url):
            said = c("pull", "app", url, code=1, **trusted).stderr
            assert "401" in said
            assert "0pen" not in said
            assert "netrc" in said
        for url in ("https://127.0.0.1:1", "https://nowhere.invalid", "ftp://127.0.0.1", "https://127.0.0.1:99999"):
            done = c.machine._forks(
                "pull", "app", with_password(url), env=c.machine.environment(trusted), code=None, tune=c.machine.tune
            )
            tells_nothing(done)
            assert done.code in {1, 2}
            assert done.stderr.count("error: ") == 1


def test_quote_in_a_password_does_not_show_it(machine: Make) -> None:
    a = machine("tmpfs")
    a.tune = {"holo.remote.remote._ATTEMPTS": 1}
    for mark in "'!$&()*+,;=":
        url = f"https://ada:op{mark}sesame@127.0.0.1:1"
        said = a("pull", "app", url, code=1).stderr
        a.settings.write_text(f'remote:\n  url: "{url}"\n')
        said += a("settings").stdout
        assert "sesame" not in said, said
    said = a("pull", "app", "https://ada:op/sesame@127.0.0.1:1", code=2).stderr
    assert "sesame" not in said, said


def test_credentials_of_a_bucket_are_not_shown(machine: Make, places: Places) -> None:
    """rclone looks at signatures."""
    place = places.new("rclone")
    a = Client(machine("ext4"), place)
    a.machine.record(trees.small(a.machine.root / "the-source"), "app")
    wrong = {"AWS_SECRET_ACCESS_KEY": "very-secret-indeed", "AWS_SESSION_TOKEN": "also-very-secret"}
    for command in (("push", "app", place.to), ("pull", "app", place.to), ("remote", "status", place.to)):
        said = a(*command, code=1, **wrong).stderr
        assert said.count("error: ") == 1
        assert "secret" not in said.lower().replace("docs", ""), said
    a.push("app")
    content = b"".join(place.objects.read(key) for key in place.objects.sizes())
    secret = place.environment["AWS_SECRET_ACCESS_KEY"].encode()
    assert secret not in content
    for path in a.machine.home.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes()


def redirecting(to: str) -> Callable[[Asked], Fault | None]:
    return lambda asked: Fault(redirect=to)


@pytest.mark.parametrize("how", ["url", "netrc"])
def test_another_host_gets_no_credentials(how: str, machine: Make, places: Places, tmp_path: Path) -> None:
    place = places.new("https")
    a = Client(machine("ext4"), place)
    a.machine.record(trees.small(a.machine.root / "the-source"), "app")
    a.push("app")
    assert place.server is not None
    with FaultyProxy(place.server.url) as elsewhere, FaultyProxy(place.server.url) as near:
        near.rule = redirecting(elsewhere.url.replace("127.0.0.1", "localhost"))
        url = near.url + place.url.removeprefix(place.server.url)
        environment = dict(place.environment)
        if how == "url":
            url = with_password(url)
        else:
            lines = f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n'
            environment["NETRC"] = str(trees.write(tmp_path / "netrc", lines, mode=0o600))
        b = Client(machine("tmpfs"), place)
        tells_nothing(b("pull", "app", url, **environment))
        assert b.machine.is_sound()
        assert all("authorization" in request.headers for request in near.requests)
        assert len(elsewhere.requests) == len(near.requests) == 3
        for request in elsewhere.requests:
            assert not any(secret in str(request) for secret in SECRETS)
            assert "authorization" not in request.headers


def test_nothing_leads_out_of_tls(machine: Make, places: Places) -> None:
    place = places.new("https")
    a = Client(machine("ext4"), place)
    a.machine.record(trees.small(a.machine.root / "the-source"), "app")
    a.push("app")
    assert place.server is not None
    with FaultyProxy(NOBODY) as plain, FaultyProxy(place.server.url) as near:
        near.rule = redirecting(plain.url)
        b = Client(machine("tmpfs"), place)
        said = b("pull", "app", near.url, code=1).stderr
        assert "not encrypted" in said
        assert plain.requests == []
        assert b.machine.is_empty()


def test_what_is_not_encrypted_is_refused_unless_it_is_signed(machine: Make, keys: Keys) -> None:
    a = machine("tmpfs")
    a.tune = {"holo.remote.remote._ATTEMPTS": 1}
    url = "http://nowhere.invalid/holo"
    refused = a("pull", "app", url, code=2).stderr
    assert "http://" in refused
    assert "allowed-signers" in refused
    signers = keys.allow(("alice@example.org", keys.make("alice")))
    a.settings.write_text(f"remote:\n  allowed-signers: {signers}\n")
    assert "cannot reach" in a("pull", "app", url, code=1).stderr


def test_loopback_does_not_lead_to_what_is_not_encrypted(machine: Make, places: Places) -> None:
    """This machine is as good as a folder, but others are not."""
    place = places.new("folder")
    with FaultyProxy(NOBODY) as plain, FaultyProxy(NOBODY) as near:
        near.rule = redirecting("http://nowhere.invalid")
        a = Client(machine("tmpfs"), place)
        said = a("pull", "app", near.url, code=1).stderr
        assert "not encrypted" in said
        near.rule = redirecting(plain.url)
        plain.rule = lambda asked: Fault(status=404)
        assert "there is no catalog" in a("pull", "app", near.url, code=1).stderr
