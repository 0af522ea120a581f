"""What every kind of store can do, against a real server of its kind."""

from __future__ import annotations

import os
import shlex
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from holo.content import Section
from holo.errors import HoloError, UsageError, beside_holo
from holo.remote import folder, objects, stores
from holo.remote.store import Absent, Reply, Store
from support import trees
from support.remotes import CONDITIONAL, KINDS, Place, Places

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 4000
WRITABLE = [kind for kind in KINDS if kind != "https"]


@pytest.fixture
def place(request: pytest.FixtureRequest, places: Places, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = places.new(request.param)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return place


def each(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", kinds, indirect=True)


def connect(url: str) -> Store:
    return stores.connect(url, is_verified=False)


def create(store: Store, key: str, content: bytes, before: bytes = b"") -> bool:
    descriptor = os.memfd_create("content")
    try:
        os.write(descriptor, before + content + b"behind it")
        return store.create(key, Section(descriptor, len(before), len(content)))
    finally:
        os.close(descriptor)


def read(store: Store, key: str, start: int = 0, stop: int | None = None) -> tuple[Reply, bytes]:
    with store.get(key, start, stop) as reply:
        return reply, b"".join(reply.chunks)


def version_of(store: Store, key: str) -> str | None:
    return read(store, key)[0].version


@each(*KINDS)
def test_object_is_read_whole_and_in_part(place: Place) -> None:
    place.objects.write("packs/x", CONTENT)
    store = connect(place.url)
    reply, data = read(store, "packs/x")
    assert (reply.size, reply.start, data) == (len(CONTENT), 0, CONTENT)
    end = len(CONTENT)
    for start, stop in ((5, 5000), (0, 1), (end - 1, end), (end - 10, None), (1, None)):
        reply, data = read(store, "packs/x", start, stop)
        assert (reply.size, reply.start, data) == (end, start, CONTENT[start:stop])
    assert store.size("packs/x") == end


@each(*KINDS)
def test_what_is_not_there_is_absent(place: Place) -> None:
    place.objects.write("packs/x", b"x")
    store = connect(place.url)
    for key in ("packs/y", "nothing/at/all", "packs/x/below"):
        with pytest.raises(Absent):
            read(store, key)
        with pytest.raises(Absent):
            read(store, key, 3, 9)
        assert store.size(key) is None


@each(*KINDS)
def test_names_may_have_every_character_that_they_can(place: Place) -> None:
    name = "names/A-z_0.9+x-1"
    place.objects.write(name, b"it")
    assert read(connect(place.url), name)[1] == b"it"


@each(*WRITABLE)
def test_created_object_stays_as_it_is(place: Place) -> None:
    store = connect(place.url)
    assert create(store, "packs/x", CONTENT, before=b"in front of it")
    assert place.objects.read("packs/x") == CONTENT
    again = create(store, "packs/x", CONTENT)
    assert again is (place.kind not in CONDITIONAL)  # who cannot tell writes the same again
    assert place.objects.read("packs/x") == CONTENT
    assert create(store, "packs/empty", b"")
    assert read(store, "packs/empty")[1] == b""


@each("rclone", "moto")
def test_large_object_is_created_in_parts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_AT_ONCE", 1 << 20)
    content = os.urandom(11 << 20)
    assert create(connect(place.url), "packs/x", content, before=b"in front of it")
    assert place.objects.read("packs/x") == content
    assert sum(request.method in {"PUT", "POST"} for request in place.requests) == 5  # begin, three parts, end


@each(*CONDITIONAL)
def test_replaced_is_only_what_was_read(place: Place) -> None:
    store = connect(place.url)
    assert store.replace("names/x", b"1", None)
    assert not store.replace("names/x", b"2", None)
    first = version_of(store, "names/x")
    assert store.replace("names/x", b"3", first)
    assert not store.replace("names/x", b"4", first)
    assert read(store, "names/x")[1] == b"3"
    second = version_of(store, "names/x")
    assert second != first
    store.remove(["names/x"])
    assert not store.replace("names/x", b"5", second)
    with pytest.raises(Absent):
        read(store, "names/x")


@each(*CONDITIONAL)
def test_large_object_is_replaced_as_well(place: Place) -> None:
    """What `holo remote gc` knows of a remote with tens of thousands of packs."""
    store = connect(place.url)
    first, second = b"1" * (3 << 20), b"2" * (3 << 20)
    assert store.replace("garbage", first, None)
    version = version_of(store, "garbage")
    assert store.replace("garbage", second, version)
    assert not store.replace("garbage", first, version)
    assert not store.replace("garbage", first, None)
    assert read(store, "garbage")[1] == second


def test_version_is_of_what_was_read(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody replaces it between two looks at the path: whoever goes by what they read is too late."""
    store = connect(places.new("folder").to)
    store.replace("garbage", b"1", None)
    real = folder.open_file

    def slow(path: str) -> int:
        opened = real(path)
        monkeypatch.setattr(folder, "open_file", real)
        assert store.replace("garbage", b"2", version_of(store, "garbage"))
        return opened

    monkeypatch.setattr(folder, "open_file", slow)
    reply, data = read(store, "garbage")
    assert data == b"1"
    assert not store.replace("garbage", b"3", reply.version)


@each("rclone")
def test_store_without_conditions_replaces_all_the_same(place: Place) -> None:
    store = connect(place.url)
    for content in (b"1", b"2"):
        assert store.replace("names/x", content, None)
        assert read(store, "names/x")[1] == content
    assert store.replace("names/x", b"3", version_of(store, "names/x"))
    assert read(store, "names/x")[1] == b"3"


@each(*WRITABLE)
def test_objects_are_listed_by_their_beginning(place: Place) -> None:
    store = connect(place.url)
    assert [*store.items("packs/")] == []
    began = time.time()
    for key in ("packs/a", "packs/ab", "packs/b", f"catalogs/{'0' * 64}", "packs-other/a", "names/a"):
        place.objects.write(key, key.encode())
    found = [*store.items("packs/")]
    assert sorted((item.key, item.size) for item in found) == [("packs/a", 7), ("packs/ab", 8), ("packs/b", 7)]
    assert all(began - 2 < item.modified < time.time() + 2 for item in found)
    assert sorted(item.key for item in store.items("packs/a")) == ["packs/a", "packs/ab"]


@each("folder", "moto")
def test_more_objects_than_one_answer_has_are_listed_and_removed(place: Place, torture: bool) -> None:
    count = 1010 if torture else 10
    for number in range(count):
        place.objects.write(f"packs/{number:04}", b"")
    store = connect(place.url)
    keys = sorted(item.key for item in store.items("packs/"))
    assert keys == [f"packs/{number:04}" for number in range(count)]
    store.remove(keys)
    assert [*store.items("packs/")] == []


@each(*WRITABLE)
def test_objects_are_removed_also_when_some_are_gone(place: Place) -> None:
    store = connect(place.url)
    for key in ("packs/a", "packs/b", "packs/c"):
        place.objects.write(key, b"x")
    store.remove(["packs/none", "packs/a", "catalogs/none", "packs/c"])
    assert {key for key in place.objects.sizes() if not key.startswith("catalogs")} == {"packs/b"}
    store.remove([])


def test_folder_lists_objects_and_nothing_else(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names may look like those of drafts, and drafts are no objects."""
    place = places.new("folder")
    store = connect(place.url)
    for name in ("app", "app-1.2.3", "app.12.1790000000000000000"):
        assert store.replace(f"names/{name}", b"x", None)
    folder = Path(place.to, "names")
    (folder / "link").symlink_to("app")
    (folder / "folder").mkdir()
    during: list[str] = []
    replace = os.replace

    def look(*paths: str) -> None:
        during.extend(item.key for item in store.items("names/"))
        replace(*paths)

    monkeypatch.setattr(os, "replace", look)
    store.replace("names/new", b"x", None)
    assert set(during) == {"names/app", "names/app-1.2.3", "names/app.12.1790000000000000000"}
    assert [*store.items(".drafts/")] == []


def test_object_that_is_removed_meanwhile_hides_no_other(places: Places) -> None:
    """A collection takes what a listing of names lacks for unneeded."""
    place = places.new("folder")
    for number in range(9):
        place.objects.write(f"names/{number}", b"x")
    order = [f"names/{name}" for name in os.listdir(Path(place.to, "names"))]
    listing = connect(place.url).items("names/")
    found = [next(listing).key]
    place.objects.remove(order[1])
    found += [item.key for item in listing]
    assert set(found) - {order[1]} == {*order} - {order[1]}


def test_folder_that_is_not_mounted_is_no_empty_remote(tmp_path: Path) -> None:
    store = connect(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(HoloError, match=r"/file: that is a file$"):
        connect(str(tmp_path / "file")).size("names/x")
    reads: list[Callable[[], object]] = [
        lambda: read(store, "names/x"),
        lambda: store.size("names/x"),
        lambda: [*store.items("names/")],
    ]
    for ask in reads:
        with pytest.raises(HoloError, match="there is no remote at"):
            ask()


@pytest.mark.parametrize(
    "begun",
    [
        [],
        ["lost+found/", ".snapshot/", ".DS_Store"],
        ["packs/"],
        [".drafts/", "page"],
        [f"catalogs/{'0' * 64}", "page"],
    ],
)
def test_folder_that_is_empty_or_begun_is_a_remote(begun: list[str], tmp_path: Path) -> None:
    for name in begun:
        trees.write(tmp_path / name / "x" if name.endswith("/") else tmp_path / name)
    assert connect(str(tmp_path)).size("names/x") is None


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_lock_of_a_folder_may_be_written_by_whom_the_umask_lets(umask: int, tmp_path: Path) -> None:
    """NFS lets only those lock a file for themselves alone. All others may read it, as it is empty."""
    before = os.umask(umask)
    try:
        assert connect(str(tmp_path)).replace("names/x", b"x", None)
    finally:
        os.umask(before)
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o666 & ~umask | 0o444


@pytest.mark.parametrize("others", [["page"], ["packs/", "page"], ["catalogs/", "page"], ["catalogs", "hidden"]])
def test_folder_of_something_else_is_no_remote(others: list[str], tmp_path: Path) -> None:
    for name in others:
        trees.write(tmp_path / name / "x" if name.endswith("/") else tmp_path / name)
    store = connect(tmp_path.as_uri())
    reads: list[Callable[[], object]] = [
        lambda: read(store, "names/x"),
        lambda: store.size("names/x"),
        lambda: [*store.items("names/")],
    ]
    for ask in reads:
        with pytest.raises(HoloError, match=f"there is no remote at .* other things in it, such as {others[-1]}"):
            ask()


def test_folder_follows_no_symlink_and_waits_for_no_pipe(places: Places) -> None:
    place = places.new("folder")
    folder = Path(place.to, "names")
    folder.mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    store = connect(place.url)
    for name in ("names/link", "names/pipe"):
        with pytest.raises(HoloError):
            read(store, name)


@each("https")
def test_web_server_only_gives(place: Place) -> None:
    store = connect(place.url)
    attempts: list[Callable[[], object]] = [
        lambda: create(store, "packs/x", b"x"),
        lambda: store.replace("names/x", b"x", None),
        lambda: store.remove(["names/x"]),
        lambda: [*store.items("names/")],
    ]
    for attempt in attempts:
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.hint
    assert place.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "s4://bucket",
        "file://host/folder",
        "file:relative",
        "s3:bucket",
        "https:/host/x",
        "https://",
        "https://host/x?y=z",
        "s3://",
        "s3:///path",
        "gs://",
        "az://",
        "s3://bucket/x?region=eu",
        "file:///x?y",
    ],
)
def test_url_that_is_no_remote_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        connect(url)


def test_url_of_a_folder_may_have_one_slash() -> None:
    assert connect("file:/srv/holo").name == connect("/srv/holo").name
    assert connect("./file:relative").name.endswith("/file:relative")


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_bucket_without_obstore_names_what_to_install(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match="needs the package obstore") as caught:
        connect(f"{scheme}://bucket/x")
    way = shlex.split(str(caught.value.hint).removeprefix("It comes with the extra `remote`: "))
    assert way == [sys.executable, "-m", "pip", "install", way[-1]], "a bare `pip` may be of another environment"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert [way[-1]] == extras["remote"]


def test_where_there_is_no_pip_uv_installs_beside_holo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    assert shlex.split(beside_holo("obstore>=1")) == [
        *("uv", "pip", "install", "--python", sys.executable, "obstore>=1")
    ]
