"""The servers that remotes are tested against do what their names say, and say what they did."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import pytest
import requests
from obstore.store import S3Store

from holo.workers import pool
from support.filesystems import Mounts
from support.servers import (
    PASSWORD,
    USER,
    Fault,
    FaultyProxy,
    Nginx,
    S3Server,
    Server,
    moto_s3,
    nginx_cache,
    nginx_static,
    rclone_s3,
)

PACK = os.urandom(1 << 20)
DIGEST = "0123456789abcdef" * 4
ANOTHER = "fedcba9876543210" * 4


def apart(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a process of its own: no other can be forked once obstore has been used, and others here are."""

    @wraps(test)
    def run(*arguments: object, **named: object) -> None:
        pool.apart(lambda: test(*arguments, **named))

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for kind in ("names", "catalogs", "packs"):
        (folder / kind).mkdir()
    (folder / "packs" / DIGEST).write_bytes(PACK)
    (folder / "packs" / ANOTHER).write_bytes(PACK[::-1])
    (folder / "catalogs" / f"{DIGEST}.sig").write_text("signature")
    (folder / "names" / "web").write_text(DIGEST)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Nginx]:
    with nginx_static(folder) as server:
        yield server


@pytest.fixture
def static(running: Server) -> Server:
    running.forget()
    return running


@pytest.fixture(scope="module", params=[rclone_s3, moto_s3], ids=["rclone", "moto"])
def s3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    start: Callable[..., AbstractContextManager[S3Server]] = request.param
    with start(tmp_path_factory.mktemp("objects")) if start is rclone_s3 else start() as server:
        yield server


def get(server: Server, path: str, *, timeout: float = 30, **headers: str) -> requests.Response:
    return requests.get(f"{server.url}/{path}", headers=headers, verify=str(server.authority), timeout=timeout)


def store_of(server: Server, environment: dict[str, str]) -> S3Store:
    settings = environment | {"AWS_ENDPOINT_URL": server.url}
    known = {name.removeprefix("AWS_").lower(): value for name, value in settings.items() if name != "AWS_ALLOW_HTTP"}
    known["endpoint"] = known.pop("endpoint_url")
    return S3Store("holo", config=known, client_options={"allow_http": True}, retry_config={"max_retries": 0})


def names_in(store: S3Store) -> list[str]:
    return [entry["path"] for entry in obstore.list(store, "names/").collect()]


# --- nginx ---


def test_static_server_has_ranges_and_a_log(static: Server) -> None:
    assert get(static, f"packs/{DIGEST}").content == PACK
    part = get(static, f"packs/{DIGEST}?x=1", Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, PACK[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(PACK)}"
    absent = get(static, "names/none")
    assert (
        requests.put(f"{static.url}/names/web", b"wrong", verify=str(static.authority), timeout=30).status_code == 405
    )
    assert [request[:6] for request in static.requests] == [
        ("GET", f"/packs/{DIGEST}", 200, len(PACK), 0, ""),
        ("GET", f"/packs/{DIGEST}?x=1", 206, 10, 0, "bytes=10-19"),
        ("GET", "/names/none", 404, len(absent.content), 0, ""),
        ("PUT", "/names/web", 405, static.requests[-1].sent, 5, ""),
    ]
    static.forget()
    assert static.requests == []


def test_static_server_is_trusted_by_its_authority_only(static: Server) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(static.url, timeout=30)


def test_log_has_every_request_that_was_answered(static: Server) -> None:
    with ThreadPoolExecutor(8) as threads:
        for count in range(1, 11):
            list(threads.map(lambda _: get(static, "names/web"), range(4)))
            assert len(static.requests) == 4 * count


def test_static_server_asks_for_a_password(folder: Path) -> None:
    with nginx_static(folder, password=True) as server:
        address, trusted = f"{server.url}/names/web", str(server.authority)
        assert requests.get(address, verify=trusted, timeout=30).status_code == 401
        assert requests.get(address, verify=trusted, timeout=30, auth=(USER, "wrong")).status_code == 401
        assert requests.get(address, verify=trusted, timeout=30, auth=(USER, PASSWORD)).text == DIGEST


def test_cache_asks_the_origin_once_for_what_never_changes(static: Server, folder: Path) -> None:
    with nginx_cache(static.url) as cache:
        for _ in range(2):
            assert get(cache, f"packs/{DIGEST}").content == PACK
            assert get(cache, f"packs/{DIGEST}", Range="bytes=5-9").content == PACK[5:10]
        assert [(request.status, request.sent, request.cache) for request in cache.requests] == [
            (200, len(PACK), "MISS"),
            (206, 5, "HIT"),
            (200, len(PACK), "HIT"),
            (206, 5, "HIT"),
        ]
        assert len(static.requests) == 1
        for path in ("names/web", f"catalogs/{DIGEST}.sig", "packs/none"):
            for _ in range(2):
                get(cache, path)
        assert [request.cache for request in cache.requests[4:]] == [""] * 6
        assert len(static.requests) == 7


def test_cache_fetches_a_whole_pack_to_serve_a_range(static: Server) -> None:
    with nginx_cache(static.url) as cache:
        part = get(cache, f"packs/{DIGEST}", Range="bytes=1000000-1000009")
        assert (part.status_code, part.content) == (206, PACK[1000000:1000010])
        assert get(cache, f"packs/{DIGEST}").content == PACK
        assert [request.cache for request in cache.requests] == ["MISS", "HIT"]
        assert [(request.sent, request.range) for request in static.requests] == [(len(PACK), "")]


def test_cache_makes_one_request_of_many_at_once(static: Server) -> None:
    with (
        FaultyProxy(static.url, latency=0.05) as slow,
        nginx_cache(slow.url) as cache,
        ThreadPoolExecutor(8) as threads,
    ):
        ranges = [f"bytes={start}-{start + 99}" for start in range(0, 800, 100)]
        parts = list(threads.map(lambda part: get(cache, f"packs/{DIGEST}", Range=part).content, ranges))
        assert b"".join(parts) == PACK[:800]
        assert len(static.requests) == 1


def test_cache_serves_without_its_origin(folder: Path) -> None:
    with nginx_static(folder) as origin, nginx_cache(origin.url) as cache:
        get(cache, f"packs/{DIGEST}")
        origin.stop()
        assert get(cache, f"packs/{DIGEST}").content == PACK
        assert get(cache, "names/web").status_code == 502


# --- S3 ---


@apart
def test_s3_stores_lists_and_deletes(s3: S3Server) -> None:
    store = store_of(s3, s3.environment)
    s3.forget()
    obstore.put(store, f"packs/{DIGEST}", PACK, use_multipart=False)
    assert bytes(obstore.get(store, f"packs/{DIGEST}").bytes()) == PACK
    assert bytes(obstore.get_range(store, f"packs/{DIGEST}", start=10, length=10)) == PACK[10:20]
    assert [entry["path"] for entry in obstore.list(store, "packs/").collect()] == [f"packs/{DIGEST}"]
    if s3.folder:
        assert (s3.folder / "packs" / DIGEST).read_bytes() == PACK
    obstore.delete(store, f"packs/{DIGEST}")
    with pytest.raises(FileNotFoundError):
        obstore.get(store, f"packs/{DIGEST}")
    put, whole, part, listing, *_ = s3.requests
    assert put[:3] == ("PUT", f"/holo/packs/{DIGEST}", 200)
    assert put.received == len(PACK)
    assert whole[:6] == ("GET", f"/holo/packs/{DIGEST}", 200, len(PACK), 0, "")
    assert part[:6] == ("GET", f"/holo/packs/{DIGEST}", 206, 10, 0, "bytes=10-19")
    assert (listing.method, listing.path.partition("?")[0]) == ("GET", "/holo")
    assert s3.requests[-1].status == 404


@apart
def test_s3_is_found_by_its_environment(s3: S3Server) -> None:
    script = "import obstore; obstore.put(obstore.store.from_url('s3://holo/below'), 'names/web', b'found')"
    subprocess.run([sys.executable, "-c", script], env=os.environ | s3.environment, check=True)
    assert bytes(obstore.get(store_of(s3, s3.environment), "below/names/web").bytes()) == b"found"


@apart
def test_s3_says_what_is_not_there(s3: S3Server) -> None:
    store = store_of(s3, s3.environment)
    obstore.put(store, "names/short", b"1")
    s3.forget()
    with pytest.raises(FileNotFoundError, match="NoSuchKey"):
        obstore.get_range(store, "names/none", start=0, length=1)
    with pytest.raises(obstore.exceptions.GenericError, match="InvalidRange"):
        obstore.get_range(store, "names/short", start=10, length=1)
    assert [request.status for request in s3.requests] == [404, 416]


@apart
def test_only_moto_has_conditional_puts(s3: S3Server) -> None:
    """If rclone learns it, one server is enough."""
    store = store_of(s3, s3.environment)
    conditional = s3.folder is None
    tag = obstore.put(store, "names/conditional", b"1", mode="create")["e_tag"]
    new = obstore.put(store, "names/conditional", b"2", mode={"e_tag": tag})["e_tag"]
    for mode, error in (
        ("create", obstore.exceptions.AlreadyExistsError),
        ({"e_tag": tag}, obstore.exceptions.PreconditionError),
    ):
        with pytest.raises(error) if conditional else nullcontext():
            obstore.put(store, "names/conditional", b"3", mode=mode)
    assert (obstore.head(store, "names/conditional")["e_tag"] == new) == conditional
    with pytest.raises(obstore.exceptions.PreconditionError) if conditional else nullcontext():
        obstore.put(store, "names/no-more", b"1", mode={"e_tag": tag})


@apart
def test_only_rclone_checks_signatures(s3: S3Server) -> None:
    store = store_of(s3, s3.environment | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    with pytest.raises(obstore.exceptions.PermissionDeniedError) if s3.folder else nullcontext():
        obstore.put(store, "names/unsigned", b"1")


@apart
def test_s3_is_proxied_with_its_signatures(s3: S3Server) -> None:
    with FaultyProxy(s3.url) as proxy:
        store = store_of(proxy, s3.environment)
        obstore.put(store, "names/proxied", b"content")
        assert bytes(obstore.get_range(store, "names/proxied", start=0, length=3)) == b"con"
        assert "names/proxied" in names_in(store)
        put = proxy.requests[0]
        assert (put.method, put.path, put.received) == ("PUT", "/holo/names/proxied", 7)
        assert put.headers["authorization"].startswith("AWS4-HMAC-SHA256")


# --- the proxy ---


@pytest.fixture(scope="module")
def before_static(running: Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(running.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(before_static: FaultyProxy) -> Iterator[FaultyProxy]:
    before_static.forget()
    yield before_static
    before_static.clear()


def test_proxy_passes_on(proxy: FaultyProxy, static: Server) -> None:
    with requests.Session() as session:
        session.trust_env = False  # REQUESTS_CA_BUNDLE would count more than this:
        session.verify = str(proxy.authority)
        for path, status in ((f"packs/{DIGEST}", 200), ("names/web", 200), ("names/none", 404)):
            ours, theirs = session.get(f"{proxy.url}/{path}"), get(static, path)
            assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content) == (status, theirs.content)
        assert session.head(f"{proxy.url}/packs/{DIGEST}").headers["Content-Length"] == str(len(PACK))
        part = session.get(f"{proxy.url}/packs/{DIGEST}", headers={"Range": "bytes=-5", "X-Told": "this"})
        assert (part.status_code, part.content) == (206, PACK[-5:])
    assert [request.status for request in proxy.requests] == [200, 200, 404, 200, 206]
    last = proxy.requests[-1]
    assert last[:6] == ("GET", f"/packs/{DIGEST}", 206, 5, 0, "bytes=-5")
    assert last.headers["x-told"] == "this"


def test_proxy_answers_errors_itself(proxy: FaultyProxy, static: Server) -> None:
    proxy.add(Fault(status=503, retry_after="2"), path="/packs/")
    proxy.add(Fault(status=500), method="GET", times=2)
    assert [get(proxy, "names/web").status_code for _ in range(3)] == [500, 500, 200]
    refused = get(proxy, f"packs/{DIGEST}")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert get(proxy, f"packs/{DIGEST}").content == PACK
    assert len(static.requests) == 2


def test_proxy_asks_a_rule(proxy: FaultyProxy) -> None:
    first = proxy.asked + 1
    proxy.rule = lambda asked: Fault(status=429) if (asked.number - first) % 2 == 0 else None
    assert [get(proxy, "names/web").status_code for _ in range(4)] == [429, 200, 429, 200]


@pytest.mark.parametrize("length", [0, 1000, len(PACK) - 1])
def test_proxy_cuts(proxy: FaultyProxy, length: int) -> None:
    proxy.add(Fault(cut=length))
    with pytest.raises(requests.exceptions.RequestException):
        get(proxy, f"packs/{DIGEST}")
    assert [(request.status, request.sent) for request in proxy.requests] == [(200, length)]


def test_proxy_gives_one_wrong_byte(proxy: FaultyProxy) -> None:
    proxy.add(Fault(wrong=700_000))
    content = get(proxy, f"packs/{DIGEST}").content
    assert [place for place in range(len(PACK)) if content[place : place + 1] != PACK[place : place + 1]] == [700_000]


def test_proxy_gives_less_than_a_range(proxy: FaultyProxy) -> None:
    proxy.add(Fault(fewer=3), times=2)
    part = get(proxy, f"packs/{DIGEST}", Range="bytes=100-199")
    assert (part.status_code, part.content) == (206, PACK[100:197])
    assert part.headers["Content-Range"] == f"bytes 100-196/{len(PACK)}"
    assert get(proxy, f"packs/{DIGEST}").content == PACK


def test_proxy_knows_no_ranges(proxy: FaultyProxy) -> None:
    proxy.add(Fault(whole=True))
    whole = get(proxy, f"packs/{DIGEST}", Range="bytes=100-199")
    assert (whole.status_code, whole.content) == (200, PACK)
    assert proxy.requests[0].range == "bytes=100-199"


def test_redirect_shows_what_is_sent_along(proxy: FaultyProxy, running: Server) -> None:
    with FaultyProxy(running.url) as elsewhere:
        proxy.add(Fault(redirect=elsewhere.url))
        address, trusted = f"{proxy.url}/names/web", str(proxy.authority)
        answer = requests.get(address, verify=trusted, auth=(USER, PASSWORD), headers={"X-Key": "secret"}, timeout=30)
        assert (answer.text, answer.history[0].status_code) == (DIGEST, 302)
        assert "authorization" in proxy.requests[0].headers
        assert "authorization" not in elsewhere.requests[0].headers  # requests drops it, and nothing else
        assert elsewhere.requests[0].headers["x-key"] == "secret"
        assert elsewhere.requests[0].path == "/names/web"
        assert [request.status for request in proxy.requests] == [302]


def test_proxy_is_late(proxy: FaultyProxy) -> None:
    proxy.add(Fault(delay=3600))
    with pytest.raises(requests.exceptions.ReadTimeout):
        get(proxy, "names/web", timeout=0.5)
    assert [(request.status, request.sent) for request in proxy.requests] == [(499, 0)]


def test_proxy_is_slow(proxy: FaultyProxy) -> None:
    proxy.add(Fault(rate=20))
    address = f"{proxy.url}/packs/{DIGEST}"
    with requests.get(address, verify=str(proxy.authority), stream=True, timeout=30) as answer:
        assert next(answer.iter_content(2)) == PACK[:2]
    (request,) = proxy.requests
    assert request.status == 200
    assert request.sent < 1000


def test_proxy_ends_while_somebody_waits(running: Server) -> None:
    with ThreadPoolExecutor(2) as threads:
        with FaultyProxy(running.url, latency=3600) as proxy:
            waiting = threads.submit(get, proxy, "names/web")
            while not proxy.asked:
                time.sleep(0.01)
        with pytest.raises(requests.exceptions.RequestException):
            waiting.result()


@pytest.mark.parametrize("lost", ["request", "answer"])
@apart
def test_proxy_loses(s3: S3Server, lost: str) -> None:
    with FaultyProxy(s3.url) as proxy:
        store = store_of(proxy, s3.environment)
        proxy.add(Fault(lose=lost))
        with pytest.raises(obstore.exceptions.BaseError):
            obstore.put(store, f"names/{lost}", b"1")
        assert (f"names/{lost}" in names_in(store)) == (lost == "answer")


# --- their end ---


def is_open(server: Server) -> bool:
    parts = urlsplit(server.url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=30).close()
    except ConnectionRefusedError:
        return False
    return True


STARTS = """
import pathlib, sys, time
from support.servers import nginx_static, rclone_s3
folder = pathlib.Path(sys.argv[1])
with nginx_static(folder), rclone_s3(folder):
    print("started", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("start", [nginx_static, nginx_cache, rclone_s3, FaultyProxy])
def test_servers_end_after_an_error(
    start: Callable[..., AbstractContextManager[Server]], static: Server, tmp_path: Path
) -> None:
    servers = []

    def fail() -> None:
        with start(static.url if start in {nginx_cache, FaultyProxy} else tmp_path) as server:
            servers.append(server)
            assert is_open(server)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not is_open(servers[0])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends a process with its parent")
def test_servers_end_with_a_killed_parent(tmp_path: Path, mounts: Mounts) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS, tmp_path],
        stdout=subprocess.PIPE,
        # The path is short, for it becomes that of a socket.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(mounts.workspace)},
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        children = children_of(parent.pid)
        assert len(children) == 3  # two of nginx, one of which is in front of rclone
        children += [worker for child in children for worker in children_of(child)]
        assert len(children) == 5
        parent.kill()
    deadline = time.monotonic() + 30
    while any(is_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
