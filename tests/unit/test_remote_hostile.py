"""What a remote says is hostile until it is checked, and requests are made again as long as that may help."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from holo.api import Hololib
from holo.catalog import Catalog
from holo.errors import CatalogInvalid, HoloError, IntegrityError, NewerFormat
from holo.remote import http
from holo.remote import remote as remote_module
from holo.remote.packs import Pack, PackMap, Slot, blobs_of, object_of, read_object
from holo.remote.remote import Pointer, Remote
from holo.remote.store import Absent, Interrupted, Reply
from support import trees

DIGEST = "0123456789abcdef" * 4

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=9) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class Fake:
    """A store of objects in memory, whose answers fail as they are told."""

    name = "fake://store"
    is_writable = True

    def __init__(self, **objects: bytes) -> None:
        self.objects = {key.replace("_", "/", 1): data for key, data in objects.items()}
        self.asked: list[tuple[int, int | None, bool]] = []
        self.faults: list[Callable[[bytes, int], Iterator[bytes]]] = []
        self.size_is_known = True
        self.has_ranges = True

    @contextmanager
    def get(self, key: str, start: int = 0, stop: int | None = None, *, fresh: bool = False) -> Iterator[Reply]:
        self.asked.append((start, stop, fresh))
        if key not in self.objects:
            raise Absent(key)
        data = self.objects[key]
        first, last = (start, stop) if self.has_ranges else (0, None)
        part = data[first:last]
        answer = self.faults.pop(0)(part, first) if self.faults else iter([part])
        yield Reply(len(data) if self.size_is_known else None, first, answer, "version")


def remote_of(store: Fake) -> Remote:
    made: Any = Remote(store)  # type: ignore[arg-type]
    return made  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody sleeps here."""
    slept: list[float] = []
    fake = SimpleNamespace(sleep=slept.append, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(remote_module, "time", fake)
    return slept


# -- names ----------------------------------------------------------------------------------------------------------


def read_pointer(data: bytes) -> Pointer | None:
    return remote_of(Fake(names_app=data)).pointer("name", "app")[0]


@pytest.mark.parametrize(("is_writable", "wanted"), [(True, "looks through a remote"), (False, "A page to log in")])
def test_what_a_web_server_gives_may_be_a_page(is_writable: bool, wanted: str) -> None:
    store = Fake(names_app=b"<!DOCTYPE html><title>Log in</title>")
    store.is_writable = is_writable
    with pytest.raises(IntegrityError) as caught:
        remote_of(store).pointer("name", "app")
    assert wanted in str(caught.value.hint)


def test_pointer_survives_a_round_trip() -> None:
    pointer = Pointer("name", "app", DIGEST, 1_800_000_000, "signature")
    assert read_pointer(pointer.to_json()) == pointer


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_a_name_are_damage(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_pointer(data)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["format", "version", "kind", "name", "catalog", "time", "signature", "x"]), values)
)
def test_any_fields_of_a_name_are_checked(changes: dict[str, Any]) -> None:
    document = json.loads(Pointer("name", "app", DIGEST, 1, None).to_json()) | changes
    try:
        pointer = read_pointer(json.dumps(document).encode())
    except HoloError:
        return
    assert pointer is not None
    assert (pointer.kind, pointer.name) == ("name", "app")
    assert type(pointer.catalog) is str
    assert len(pointer.catalog) == 64
    assert type(pointer.time) is int
    time.strftime("%Y", time.gmtime(pointer.time))
    assert pointer.signature is None or type(pointer.signature) is str


# -- catalogs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("catalog")
    tree = root / "tree"
    for number in range(5):
        trees.write(tree / f"{number}", f"{number}" * (10**number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLO_SETTINGS", os.devnull)
        library = Hololib(root / "home")
        library.record(tree, "app")
        return library.catalog("app")


def slots_of(catalog: Catalog) -> dict[str, Slot]:
    packs = [Pack(DIGEST, 60_000), Pack(DIGEST[::-1], 60_000)]
    return {
        digest: Slot(packs[number % 2], 100 + 100 * number, size, 0)
        for number, (digest, size) in enumerate(blobs_of(catalog).items())
    }


def read(data: bytes, digest: str) -> tuple[Catalog, PackMap]:
    descriptor = os.memfd_create("object")
    try:
        os.write(descriptor, data)
        return read_object(descriptor, digest, "origin")
    finally:
        os.close(descriptor)


def test_object_of_a_catalog_survives_a_round_trip(catalog: Catalog) -> None:
    slots = slots_of(catalog)
    found, packs = read(object_of(catalog, slots), catalog.digest)
    assert found.to_json() == catalog.to_json()
    assert packs.slots == slots
    assert packs.packs == [Pack(DIGEST, 60_000), Pack(DIGEST[::-1], 60_000)]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_as_a_catalog_are_damage(data: bytes, is_frame: bool) -> None:
    with pytest.raises((ValueError, CatalogInvalid)):
        read(zstandard.compress(data) if is_frame else data, DIGEST)


def test_nothing_follows_the_frame_of_a_catalog(catalog: Catalog) -> None:
    whole = object_of(catalog, slots_of(catalog))
    for tail in (b"x", zstandard.compress(b"")):
        with pytest.raises(ValueError, match="cannot be inflated"):
            read(whole + tail, catalog.digest)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bit_of_a_catalog_object_may_be_wrong(catalog: Catalog, data: st.DataObject) -> None:
    slots = slots_of(catalog)
    whole = object_of(catalog, slots)
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found, packs = read(bytes(changed), catalog.digest)
    except (ValueError, CatalogInvalid, NewerFormat):
        return
    assert found.to_json() == catalog.to_json()
    is_sensible(catalog, packs)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_map_is_checked(catalog: Catalog, data: st.DataObject) -> None:
    line, _, rest = zstandard.decompress(object_of(catalog, slots_of(catalog))).partition(b"\n")
    document: dict[str, Any] = json.loads(line)
    for _ in range(data.draw(st.integers(1, 3))):
        field = data.draw(st.sampled_from(sorted(document)))
        if isinstance(document[field], list) and document[field] and data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(document[field]) - 1))
            if field == "packs" and data.draw(st.booleans()) and isinstance(document[field][at], list):
                document[field][at] = [*document[field][at][:1], data.draw(values)]
            else:
                document[field][at] = data.draw(values | st.integers(-(10**6), 10**6))
        else:
            document[field] = data.draw(values)
    try:
        _, packs = read(zstandard.compress(json.dumps(document).encode() + b"\n" + rest), catalog.digest)
    except (ValueError, CatalogInvalid, NewerFormat):
        return
    is_sensible(catalog, packs)


def is_sensible(catalog: Catalog, packs: PackMap) -> None:
    assert list(packs.slots) == list(blobs_of(catalog))
    for digest, slot in packs.slots.items():
        assert 0 <= slot.offset <= slot.end <= slot.pack.size
        assert len(slot.pack.digest) == 64
        assert set(slot.pack.digest) <= set("0123456789abcdef")
        assert slot.form in (0, 1, 2)
        assert slot.form != 0 or slot.stored == blobs_of(catalog)[digest]


# -- requests -------------------------------------------------------------------------------------------------------


CONTENT = os.urandom(100_000)


def cut(after: int, pause: float | None = None) -> Callable[[bytes, int], Iterator[bytes]]:
    def answer(part: bytes, _: int) -> Iterator[bytes]:
        yield part[:after]
        raise Interrupted("it broke off", pause)

    return answer


def ended(after: int) -> Callable[[bytes, int], Iterator[bytes]]:
    """The answer just ends, as if that were all."""
    return lambda part, _: iter([part[:after]])


def fetched(store: Fake, start: int = 0, stop: int | None = None, most: int = 1 << 20) -> bytes:
    descriptor = os.memfd_create("target")
    try:
        assert remote_of(store).fetch("packs/x", descriptor, start, stop, most=most)
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 60_000)), max_size=6),
    st.booleans(),
    st.booleans(),
    st.integers(0, 50_000),
    st.integers(1, 50_000) | st.none(),
)
def test_what_breaks_off_goes_on(
    faults: list[tuple[bool, int]], has_ranges: bool, size_is_known: bool, start: int, length: int | None
) -> None:
    store = Fake(packs_x=CONTENT)
    store.has_ranges = has_ranges
    store.size_is_known = size_is_known
    # Where nobody says how much there is, an end is the end.
    is_told = size_is_known or length is not None
    store.faults = [(cut if is_cut or not is_told else ended)(after) for is_cut, after in faults]
    stop = None if length is None else start + length
    assert fetched(store, start, stop)[start:] == CONTENT[start:stop]
    if has_ranges:
        assert all(stop == asked for _, asked, _ in store.asked)
        assert [first for first, _, _ in store.asked] == sorted(first for first, _, _ in store.asked)


def test_tries_end_when_nothing_comes_any_more(pauses: list[float]) -> None:
    store = Fake(packs_x=CONTENT)
    store.faults = [cut(0)] * 100
    with pytest.raises(HoloError, match="cannot reach fake://store: it broke off") as caught:
        fetched(store)
    assert caught.value.hint
    assert len(store.asked) == 10
    assert len(pauses) == 9
    for number, pause in enumerate(pauses):
        longest = min(15, 0.2 * 2**number)
        assert longest / 2 <= pause <= longest
    # As long as something comes, they do not.
    store.asked.clear()
    store.faults = [cut(1)] * 50
    assert fetched(store) == CONTENT
    assert len(store.asked) == 51


def test_server_says_how_long_to_wait(pauses: list[float]) -> None:
    store = Fake(packs_x=CONTENT)
    store.faults = [cut(0, 7), cut(10, 9), cut(0, 10_000)]
    fetched(store)
    assert pauses == [7, 9, 120]


@pytest.mark.parametrize("said", ["7", "soon", "", "-1", 3000, -99])
def test_retry_after_is_seconds_or_a_date(said: str | int) -> None:
    if isinstance(said, int):
        said = formatdate(time.time() + said)
    answer: Any = SimpleNamespace(headers={"Retry-After": said})
    pause = http._pause(answer)
    if said == "7":
        assert pause == 7
    elif said[:1].isalpha() and "," in said:
        assert pause == 0 or (pause is not None and 2000 < pause <= 3000)
    else:
        assert pause is None


@pytest.mark.parametrize("status", [200, 206])
def test_length_of_thousands_of_digits_is_no_length(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python refuses to read such a number."""
    many = "9" * 5000
    headers = {"Content-Length": many, "Content-Range": f"bytes 1-{many}/{many}"}
    store = http.HttpStore("https://host/x", is_verified=False)
    answer = SimpleNamespace(status_code=status, headers=headers)
    monkeypatch.setattr(store, "_asked", lambda *_: nullcontext(answer))
    if status == 206:
        with pytest.raises(Interrupted), store.get("packs/x", 1):
            pass
        return
    with store.get("packs/x") as reply:
        assert reply.size is None
    assert store.size("packs/x") == 0


def test_object_larger_than_it_can_be_is_refused_before_all_of_it_came() -> None:
    store = Fake(packs_x=CONTENT)
    for size_is_known in (True, False):
        store.size_is_known = size_is_known
        with pytest.raises(IntegrityError, match="larger than 1,000 bytes"):
            fetched(store, most=1000)
    store.objects["names/x"] = CONTENT
    with pytest.raises(IntegrityError, match="larger than 1,000 bytes"):
        remote_of(store).document("names/x", 1000)


def test_wrong_catalog_is_asked_for_past_caches(catalog: Catalog, tmp_path: Path) -> None:
    """A cache between here and there may be what is wrong."""
    whole = object_of(catalog, slots_of(catalog))
    store = Fake()
    key = f"catalogs/{catalog.digest}"
    store.objects[key] = whole
    store.faults = [lambda part, _: iter([part[:50], bytes([part[50] ^ 1]), part[51:]])]
    assert remote_of(store).catalog(catalog.digest) is not None
    assert [fresh for _, _, fresh in store.asked] == [False, True]
    store.objects[key] = whole[:-9] + b"different"
    with pytest.raises(IntegrityError):
        remote_of(store).catalog(catalog.digest)
