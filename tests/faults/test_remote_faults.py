"""Networks, servers and attackers do to a pull and a push what they can: it is right in the end, or one clear error."""

from __future__ import annotations

import json
import os
import random
import ssl
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard

from support import compare, trees
from support.libraries import torn
from support.machines import Make
from support.remotes import Client, Place, Places, catalog_object, map_and_catalog
from support.servers import Asked, Fault, FaultyProxy, nginx_cache

pytestmark = pytest.mark.torture

SMALL_PACKS = {"holo.remote.packs.PACK": 1 << 18, "holo.remote.push.PACK": 1 << 18}
NO_NEIGHBOURS = {"holo.remote.source._NEAR": 1000}

Note = Callable[[int, str, int], None]


class World(NamedTuple):
    """A remote with the catalogs ``all`` and ``most``, whose content is in the same packs."""

    place: Place
    source: Path
    digests: dict[str, str]

    @property
    def packs(self) -> list[str]:
        return sorted(key for key in self.place.objects.sizes() if key.startswith("packs/"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    rng = random.Random(1)
    for number in range(160):
        for name in ("all", "most")[: 1 if number % 10 == 5 else 2]:
            content = random.Random(number).randbytes(8000 + number)
            trees.write(root / name / f"folder-{number % 7}" / f"file-{number}", content)
    holes = trees.write(root / "all" / "holes", rng.randbytes(5000))
    with holes.open("r+b") as file:
        file.seek(3 << 20)
        file.write(rng.randbytes(70_000))
    trees.write(root / "all" / "text", "a line\n" * 5000)
    for name in ("all", "most"):
        trees.settle(root / name)
    return root


@pytest.fixture
def world(request: pytest.FixtureRequest, machine: Make, places: Places, sources: Path) -> World:
    place = places.new(getattr(request, "param", "https"))
    client = Client(machine("local"), place)
    client.machine.tune = {**client.machine.tune, **SMALL_PACKS}
    digests = {name: client.machine.record(sources / name, name) for name in ("all", "most")}
    client.push("all")
    client.push("most")
    world = World(place, sources / "all", digests)
    assert len(world.packs) >= 4
    return world


@pytest.fixture
def proxy(world: World) -> Iterator[FaultyProxy]:
    assert world.place.server is not None
    with FaultyProxy(world.place.server.url) as proxy:
        yield proxy


def behind(world: World, proxy: FaultyProxy) -> Place:
    """The same remote by way of the proxy."""
    place = world.place
    assert place.server is not None
    if place.kind == "https":
        return place._replace(url=proxy.url + place.url.removeprefix(place.server.url), server=proxy)
    return place._replace(server=proxy, environment={**place.environment, "AWS_ENDPOINT_URL": proxy.url})


def client_of(machine: Make, place: Place, *, has_most: bool) -> Client:
    """Somebody who pulls ``all``: whole packs, or of each some ranges."""
    client = Client(machine("tmpfs"), place)
    client.machine.tune = {**client.machine.tune, **NO_NEIGHBOURS}
    if has_most:
        client.pull("most")
    return client


def is_right(client: Client, world: World) -> None:
    assert client.machine.is_sound()
    assert compare.differences(world.source, client.machine.init("s", "all")) == []
    incoming = client.machine.library / "incoming"
    if os.listdir(incoming):  # of a pull that failed before; whose blobs were there already
        client.machine("gc")
    assert os.listdir(incoming) == []


def is_refused(client: Client, code: int, *, before: int = 0, arguments: tuple[str, ...] = ("all",)) -> str:
    """One error; what has come is whole, and no catalog."""
    done = client("pull", *arguments, client.place.url, code=code)
    assert errors_in(done.stderr) == 1, done.stderr
    assert torn(client.machine) == []
    assert len([*(client.machine.library / "catalog").glob("*")]) == before
    return done.stderr


def errors_in(text: str) -> int:
    return sum(line.startswith("error: ") for line in text.splitlines())


def first(times: int, fault: Fault | Callable[[], Fault], kinds: str = "packs") -> Callable[[Asked], Fault | None]:
    """The first requests for each object of these kinds."""
    seen: Counter[str] = Counter()

    def rule(asked: Asked) -> Fault | None:
        if not any(f"/{kind}/" in asked.path for kind in kinds.split()):
            return None
        seen[asked.path] += 1
        if seen[asked.path] > times:
            return None
        return fault if isinstance(fault, Fault) else fault()

    return rule


_rng = random.Random(7)

PASSING: dict[str, Callable[[], Callable[[Asked], Fault | None]]] = {
    "slow": lambda: lambda asked: Fault(rate=4_000_000, delay=0.02),
    "cut": lambda: first(3, lambda: Fault(cut=_rng.randrange(9000)), "names catalogs packs"),
    "cut-late": lambda: first(2, lambda: Fault(cut=_rng.randrange(100_000, 250_000))),
    "lost-request": lambda: first(1, Fault(lose="request"), "names catalogs packs"),
    "lost-answer": lambda: first(1, Fault(lose="answer"), "names catalogs packs"),
    "500": lambda: first(1, Fault(status=500), "names catalogs packs"),
    "503": lambda: first(1, Fault(status=503, retry_after="0"), "names catalogs packs"),
    "429": lambda: first(1, Fault(status=429, retry_after="0"), "names catalogs packs"),
    "fewer": lambda: first(2, Fault(fewer=500)),
    "wrong-once": lambda: first(1, Fault(wrong=700), "catalogs packs"),
    "wrong-and-cut": lambda: first(2, lambda: Fault(wrong=200, cut=4000)),
}


@pytest.mark.parametrize("has_most", [False, True], ids=["whole", "ranges"])
@pytest.mark.parametrize("world", ["https", "moto"], indirect=True)
def test_fault_that_passes_changes_nothing(
    world: World, proxy: FaultyProxy, machine: Make, has_most: bool, torture: bool, faults: Note
) -> None:
    sample = slice(None) if torture else slice(2 * has_most + (world.place.kind == "https"), None, 4)
    for fault in [*PASSING][sample]:
        proxy.clear()
        client = client_of(machine, behind(world, proxy), has_most=has_most)
        proxy.forget()
        proxy.rule = PASSING[fault]()
        faults(2, "a network that fails while a catalog is pulled", 1)
        client.pull("all")
        asked = [request for request in proxy.requests if "/packs/" in request.path]
        assert any(request.range for request in asked) or not has_most, fault
        is_right(client, world)


@pytest.mark.parametrize("has_most", [False, True], ids=["whole", "ranges"])
def test_server_without_ranges_gives_all_of_it(world: World, proxy: FaultyProxy, machine: Make, has_most: bool) -> None:
    client = client_of(machine, behind(world, proxy), has_most=has_most)
    cut = first(2, lambda: Fault(whole=True, cut=_rng.randrange(200_000)))
    proxy.rule = lambda asked: cut(asked) or Fault(whole=True)
    client.pull("all")
    is_right(client, world)


@pytest.mark.parametrize("has_most", [False, True], ids=["whole", "ranges"])
@pytest.mark.parametrize("world", ["https", "moto"], indirect=True)
def test_wrong_bytes_are_never_stored(world: World, proxy: FaultyProxy, machine: Make, has_most: bool) -> None:
    client = client_of(machine, behind(world, proxy), has_most=has_most)
    victim = world.packs[1]
    proxy.rule = lambda asked: Fault(wrong=150) if victim in asked.path else None
    said = is_refused(client, 3, before=int(has_most))
    assert victim in said
    # Another name for the same bytes is not believed either; when it is over, all is well.
    proxy.clear()
    client.pull("all")
    is_right(client, world)


@pytest.mark.parametrize(
    ("world", "kind"), [("https", "names"), ("https", "packs"), ("moto", "catalogs")], indirect=["world"]
)
def test_server_that_never_answers_is_one_error(world: World, proxy: FaultyProxy, machine: Make, kind: str) -> None:
    client = client_of(machine, behind(world, proxy), has_most=False)
    client.machine.tune = {**client.machine.tune, "holo.remote.remote._ATTEMPTS": 2}
    for fault in (Fault(status=500), Fault(lose="answer")):
        proxy.rule = first(1000, fault, kind)
        said = is_refused(client, 1)
        assert "cannot reach" in said
        assert "run the command again" in said
    proxy.clear()
    client.pull("all")
    is_right(client, world)


@pytest.mark.parametrize("status", [401, 403])
def test_refusal_is_told_at_once(world: World, proxy: FaultyProxy, machine: Make, status: int) -> None:
    client = client_of(machine, behind(world, proxy), has_most=False)
    proxy.rule = lambda asked: Fault(status=status)
    assert str(status) in is_refused(client, 1)
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("has_most", [False, True], ids=["whole", "ranges"])
def test_pack_that_a_cache_has_in_part_is_asked_of_the_origin(world: World, machine: Make, has_most: bool) -> None:
    """As of a copy of a remote that was not done when somebody asked."""
    assert world.place.server is not None
    client = client_of(machine, world.place, has_most=has_most)
    packs = {key: world.place.objects.read(key) for key in world.packs}
    root = world.place.url.removeprefix(world.place.server.url)
    with nginx_cache(world.place.server.url) as cache:
        trust = ssl.create_default_context(cafile=str(cache.authority))
        for key, content in packs.items():
            world.place.objects.write(key, content[:1000])
            with urllib.request.urlopen(f"{cache.url}{root}/{key}", context=trust) as answer:
                assert len(answer.read()) == 1000
            world.place.objects.write(key, content)
        if not has_most:  # a pull that was killed has had more of them already
            for key, content in packs.items():
                trees.write(client.machine.library / "incoming" / Path(key).name, content[:2000])
        client.place = world.place._replace(url=cache.url + root)
        client.pull("all")
    client.place = world.place
    is_right(client, world)


# -- what a bucket answers ------------------------------------------------------------------------------------------


def of_s3(code: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>Why it is so.</Message></Error>'


FINAL = [
    (400, of_s3("ExpiredToken"), "refuses names/app: 400 Bad Request, ExpiredToken: Why it is so.", "credentials"),
    (400, of_s3("AuthorizationHeaderMalformed"), "answered 400 Bad Request, AuthorizationHeaderMalformed: Why", ""),
    (403, of_s3("AccessDenied"), "refuses names/app: 403 Forbidden, AccessDenied: Why it is so.", "credentials"),
    (405, "", "answered 405 Method Not Allowed for names/app", ""),
    (501, "", "answered 501 Not Implemented for names/app", ""),
]


@pytest.mark.parametrize("world", ["moto"], indirect=True)
def test_what_no_second_try_mends_is_told_at_once(world: World, proxy: FaultyProxy, machine: Make) -> None:
    client = Client(machine("local"), behind(world, proxy))
    client.machine.record(trees.small(client.machine.root / "tree"), "app")
    for method in ("GET", "PUT"):
        for status, text, what, hint in FINAL:
            proxy.clear()
            proxy.add(Fault(status=status, text=text), method=method, path="/names/", times=99)
            before = proxy.asked
            said = client("push", "app", client.place.to, code=1).stderr
            assert what in said, said
            assert hint in said
            assert "run the command again" not in said
            assert proxy.asked - before < 10, "it was tried again"


@pytest.mark.parametrize("world", ["moto"], indirect=True)
def test_server_that_is_busy_is_asked_ten_times_also_at_first(world: World, proxy: FaultyProxy, machine: Make) -> None:
    """A fleet that starts at once is refused by the store until that has adapted."""
    client = client_of(machine, behind(world, proxy), has_most=False)
    for status, text in ((503, of_s3("SlowDown")), (400, of_s3("RequestTimeout"))):
        proxy.add(Fault(status=status, text=text), path="/names/", times=4 * 6 if status == 503 else 6)
        client.pull("all")
    is_right(client, world)


@pytest.mark.parametrize("world", ["moto"], indirect=True)
def test_push_believes_no_refusal_to_create_for_a_conflict(world: World, proxy: FaultyProxy, machine: Make) -> None:
    """Another one removed the object at that moment: that does not mean that it is there."""
    client = Client(machine("local"), behind(world, proxy))
    client.machine.record(trees.small(client.machine.root / "tree"), "app")
    for kind in ("packs", "catalogs", "names"):
        proxy.add(Fault(status=409, text=of_s3("ConditionalRequestConflict")), method="PUT", path=f"/{kind}/")
    client.push("app")
    assert client.place.problems() == []
    assert "app" in client.place.names()


@pytest.mark.parametrize("world", ["moto"], indirect=True)
def test_server_that_takes_no_objects_has_no_bucket(world: World, proxy: FaultyProxy, machine: Make) -> None:
    """Any web server, say, which answers 404."""
    client = Client(machine("local"), behind(world, proxy))
    client.machine.record(trees.small(client.machine.root / "tree"), "app")
    for kind in ("packs", "catalogs", "names"):
        proxy.rule = lambda asked, kind=kind: (
            Fault(status=404) if asked.method == "PUT" and kind in asked.path else None
        )
        assert "there is no bucket for " in client("push", "app", client.place.to, code=1).stderr


@pytest.mark.parametrize("world", ["moto"], indirect=True)
def test_who_may_not_remove_is_told_so_at_once(world: World, proxy: FaultyProxy, machine: Make) -> None:
    """S3 answers 200, and what went wrong for each object."""
    client = Client(machine("local"), behind(world, proxy))
    damaged = f"catalogs/{world.digests['all']}"
    world.place.objects.write(damaged, b"x")
    key = f"{world.place.to.rpartition('/')[2]}/{damaged}"
    refused = f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    proxy.add(Fault(status=200, text=f"<DeleteResult>{refused}</DeleteResult>"), method="POST", times=99)
    said = client("remote", "check", client.place.to, "--repair", code=1).stderr
    assert "refuses to remove objects" in said
    assert "credentials" in said
    assert sum(request.method == "POST" for request in proxy.requests) == 1


@pytest.mark.parametrize("world", ["moto"], indirect=True)
def test_bucket_in_another_region_is_told_so_at_once(world: World, proxy: FaultyProxy, machine: Make) -> None:
    client = Client(machine("local"), behind(world, proxy))
    proxy.rule = lambda asked: Fault(status=301, text=of_s3("PermanentRedirect"))
    assert "AWS_REGION" in is_refused(client, 1)
    assert len(proxy.requests) == 1


# -- pushing --------------------------------------------------------------------------------------------------------


def test_push_through_a_bad_network(machine: Make, places: Places, sources: Path, torture: bool, faults: Note) -> None:
    """An answer that is lost may have been the one that says that it is done."""
    for fault in _PUSHING if torture else ("lost-answer", "503"):
        place = places.new("moto")
        assert place.server is not None
        with FaultyProxy(place.server.url) as proxy:
            far = place._replace(server=proxy, environment={**place.environment, "AWS_ENDPOINT_URL": proxy.url})
            a, b = Client(machine("local"), far), Client(machine("tmpfs"), place)
            a.machine.tune = {**a.machine.tune, **SMALL_PACKS}
            for name in ("most", "all"):
                a.machine.record(sources / name, "app")
                proxy.rule = first(1, _PUSHING[fault], "names catalogs packs garbage")
                faults(2, "a network that fails while a catalog is pushed", 1)
                a.push("app")
                assert place.problems() == []
            b.pull("app")
            assert compare.differences(sources / "all", b.machine.init("s", "app")) == []


_PUSHING = {
    "lost-request": Fault(lose="request"),
    "lost-answer": Fault(lose="answer"),
    "500": Fault(status=500),
    "503": Fault(status=503, retry_after="0"),
    "429": Fault(status=429, retry_after="0"),
    "slow": Fault(rate=8_000_000, delay=0.05),
}


def test_push_that_cannot_reach_its_remote_is_one_error(machine: Make, places: Places, sources: Path) -> None:
    place = places.new("moto")
    assert place.server is not None
    with FaultyProxy(place.server.url) as proxy:
        far = place._replace(server=proxy, environment={**place.environment, "AWS_ENDPOINT_URL": proxy.url})
        a = Client(machine("local"), far)
        a.machine.tune = {**a.machine.tune, **SMALL_PACKS, "holo.remote.remote._ATTEMPTS": 2}
        a.machine.record(sources / "all", "app")
        for method, kind in (("GET", "names"), ("PUT", "packs"), ("PUT", "catalogs"), ("PUT", "names")):
            proxy.clear()
            proxy.add(Fault(status=500), method=method, path=f"/{kind}/", times=1000)
            said = a("push", "app", place.to, code=1).stderr
            assert errors_in(said) == 1
            assert "cannot reach" in said
            assert place.names() == {}
            assert place.problems() == []
        proxy.clear()
        sent = a.push("app")
        # What had arrived is not sent again.
        assert sent["packs"] == 0
        assert place.problems() == []


# -- objects that are not what they should be -----------------------------------------------------------------------


def shorter(data: bytes) -> bytes:
    return data[:-1000]


def longer(data: bytes) -> bytes:
    return data + bytes(1000)


def empty(data: bytes) -> bytes:
    return b""


def garbage(data: bytes) -> bytes:
    return random.Random(1).randbytes(len(data))


@pytest.mark.parametrize("world", ["folder", "https", "moto"], indirect=True)
def test_pack_that_is_not_what_the_map_says(world: World, machine: Make, torture: bool, faults: Note) -> None:
    before = {key: world.place.objects.read(key) for key in world.packs}
    cases = [(damage, has_most) for damage in (shorter, longer, empty, garbage) for has_most in (False, True)]
    for damage, has_most in cases if torture or world.place.kind == "folder" else cases[1:5:3]:
        client = client_of(machine, world.place, has_most=has_most)
        for key, content in before.items():
            world.place.objects.write(key, damage(content))
        faults(3, "a damaged object of a remote", 1)
        said = is_refused(client, 3, before=int(has_most))
        assert any(key in said for key in before), said
        for key, content in before.items():
            world.place.objects.write(key, content)
        client.pull("all")
        is_right(client, world)


@pytest.mark.parametrize("world", ["folder", "https", "moto"], indirect=True)
def test_pack_that_is_missing_is_one_error(world: World, machine: Make) -> None:
    missing = world.packs[0]
    world.place.objects.remove(missing)
    client = client_of(machine, world.place, has_most=False)
    assert missing in is_refused(client, 1)


def with_map(change: Callable[[dict[str, Any]], object]) -> Callable[[World], bytes]:
    def make(world: World) -> bytes:
        document, catalog = map_and_catalog(world.place.objects.read(f"catalogs/{world.digests['all']}"))
        change(document)
        return catalog_object(document, catalog)

    return make


def swap_slots(document: dict[str, Any]) -> None:
    """Each content is where another is."""
    document["pack"] = [0] * len(document["pack"])
    document["gap"] = [0] * len(document["gap"])
    document["stored"] = [min(stored, 1400) for stored in document["stored"]]
    document["form"] = [1] * len(document["form"])


def bomb(declared: int | None) -> bytes:
    """A frame of very much nothing; it says how much, or something else."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=-1 if declared is None else declared)
    return b"".join(compressor.compress(bytes(1 << 24)) for _ in range(64)) + compressor.flush()


CATALOGS: dict[str, Callable[[World], bytes]] = {
    "garbage": lambda world: b"garbage" * 1000,
    "empty": lambda world: b"",
    "short": lambda world: world.place.objects.read(f"catalogs/{world.digests['all']}")[:-50],
    "another-catalog": lambda world: world.place.objects.read(f"catalogs/{world.digests['most']}"),
    "bomb": lambda world: bomb(1 << 30),
    "bomb-that-lies": lambda world: bomb(None),
    "no-map": lambda world: zstandard.compress(b"\n" + map_and_catalog(all_of(world))[1]),
    "behind-its-end": with_map(lambda document: document["gap"].__setitem__(3, 1 << 40)),
    "before-its-beginning": with_map(lambda document: document["gap"].__setitem__(0, -1000)),
    "negative": with_map(lambda document: document["stored"].__setitem__(0, -5)),
    "no-such-pack": with_map(lambda document: document["pack"].__setitem__(0, 999)),
    "last-pack-by-minus-one": with_map(lambda document: document["pack"].__setitem__(0, -1)),
    "pack-is-a-path": with_map(lambda document: document["packs"][0].__setitem__(0, "../names/all")),
    "pack-is-upper-case": with_map(lambda document: document["packs"][0].__setitem__(0, "A" * 64)),
    "too-few": with_map(lambda document: document["form"].pop()),
    "not-numbers": with_map(lambda document: document["gap"].__setitem__(0, "0")),
    "true-is-no-number": with_map(lambda document: document["gap"].__setitem__(0, True)),
    "form": with_map(lambda document: document["form"].__setitem__(0, 7)),
    "swapped": with_map(swap_slots),
}


def all_of(world: World) -> bytes:
    return world.place.objects.read(f"catalogs/{world.digests['all']}")


@pytest.mark.parametrize("world", ["folder"], indirect=True)
def test_catalog_that_is_not_what_its_name_says(world: World, machine: Make, faults: Note) -> None:
    key = f"catalogs/{world.digests['all']}"
    before = world.place.objects.read(key)
    for name, make in CATALOGS.items():
        client = client_of(machine, world.place, has_most=False)
        world.place.objects.write(key, make(world))
        faults(3, "a hostile object of a remote", 1)
        said = is_refused(client, 3)
        assert "is damaged" in said, name
        outside = {path.name for path in client.machine.root.iterdir()}
        assert outside == {"home", "settings.yaml"}, name
        world.place.objects.write(key, before)
    world.place.objects.write(key, with_map(lambda document: document.update(version=2))(world))
    assert "version 2" in is_refused(client, 1)
    world.place.objects.write(key, before)
    client.pull("all")
    is_right(client, world)


@pytest.mark.parametrize("world", ["folder"], indirect=True)
def test_size_of_a_pack_that_is_made_up_does_no_harm(world: World, machine: Make) -> None:
    client = client_of(machine, world.place, has_most=False)
    make = with_map(lambda document: document["packs"][0].__setitem__(1, 1 << 49))
    world.place.objects.write(f"catalogs/{world.digests['all']}", make(world))
    client.pull("all")
    is_right(client, world)


@pytest.mark.parametrize("world", ["folder"], indirect=True)
def test_catalog_object_is_bounded_in_memory(world: World, machine: Make) -> None:
    client = client_of(machine, world.place, has_most=False)
    world.place.objects.write(f"catalogs/{world.digests['all']}", bomb(1 << 30))
    done = client.machine._forks(
        *("pull", "all", world.place.url), env=client.machine.environment(), code=3, memory=1500 << 20
    )
    assert "is damaged" in done.stderr


@pytest.mark.parametrize("world", ["folder"], indirect=True)
def test_name_that_is_not_what_holo_writes(world: World, machine: Make, faults: Note) -> None:
    whole = json.loads(world.place.objects.read("names/all"))
    changes: dict[str, object] = {
        "kind": "key",
        "name": "most",
        "catalog": "../../names/all",
        "time": "yesterday",
        "format": "something",
        "signature": 5,
        "more": 1,
    }
    documents = [json.dumps({**whole, field: value}).encode() for field, value in changes.items()]
    documents.append(json.dumps({**whole, "signature": "\ud800"}).encode())
    documents += [b"", b"{}", b"[]", b"null", b"5", b"[" * 100_000, b"\xff\xfe", b" " * (2 << 20), b'{"a":' * 9999]
    for document in documents:
        client = client_of(machine, world.place, has_most=False)
        world.place.objects.write("names/all", document)
        faults(3, "a hostile object of a remote", 1)
        assert "names/all is damaged" in is_refused(client, 3)
    newer = json.dumps({**whole, "version": 2}).encode()
    world.place.objects.write("names/all", newer)
    assert "version 2" in is_refused(client, 1)
    # What says when in a way that no calendar has is told, and listed all the same.
    for time in (10**30, -(10**30)):
        world.place.objects.write("names/all", json.dumps({**whole, "time": time}).encode())
        for action in ("list", "check"):
            assert (
                "Traceback"
                not in client.machine._forks(
                    *("remote", action, world.place.to), env=client.machine.environment(), code=None
                ).stderr
            )
