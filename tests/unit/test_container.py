"""The ZIP container of bundles: what is written is read back, by others as well, and nothing else is read."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holo.content import Section
from holo.errors import HoloError, IntegrityError
from holo.hololib.offer import BLOCK
from holo.transport.bundle import MANIFEST, Bundle, Manifest, Named, catalog_entry
from holo.transport.container import (
    STORED,
    ZSTD,
    Entry,
    directory_of,
    entry_at,
    local_header,
    read_directory,
    record_of,
    section_of,
)
from holo.transport.writer import Writer

Item = tuple[str, int, int, int, bool]
"""Name, method, bytes stored, bytes of content, whether it is aligned."""

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789/._-"
NAMES = st.text(LETTERS, min_size=1, max_size=255)
SMALL = st.integers(0, 3 * BLOCK)
LARGE = st.sampled_from([0, 1, BLOCK, 0xFFFFFFFE, 0xFFFFFFFF, 0x100000000, 0x100001000, 5 << 32])


def items(sizes: st.SearchStrategy[int]) -> st.SearchStrategy[list[Item]]:
    stored = st.tuples(NAMES, st.just(STORED), sizes, sizes, st.booleans()).map(
        lambda item: (item[0], item[1], item[2], item[2], item[4])
    )
    compressed = st.tuples(NAMES, st.just(ZSTD), sizes, sizes, st.just(False))
    return st.lists(stored | compressed, max_size=6, unique_by=lambda item: item[0])


def entries_of(wanted: Sequence[Item]) -> list[Entry]:
    entries: list[Entry] = []
    for name, method, stored, size, align in wanted:
        start = entries[-1].end if entries else 0
        entries.append(entry_at(start, name, method, crc32(bytes(min(stored, 3 * BLOCK))), stored, size, align=align))
    return entries


def directory(entries: Sequence[Entry]) -> bytes:
    return directory_of([record_of(entry) for entry in entries], entries[-1].end if entries else 0)


@contextmanager
def container(entries: Sequence[Entry]) -> Iterator[int]:
    """An open file of these entries, whose stored bytes are zeros and take no space."""
    with tempfile.TemporaryFile() as file:
        for entry in entries:
            file.seek(entry.start)
            file.write(local_header(entry))
        file.seek(entries[-1].end if entries else 0)
        file.write(directory(entries))
        file.flush()
        yield file.fileno()


@contextmanager
def holding(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


@given(items(SMALL) | items(LARGE))
@settings(deadline=None)
@example([("large", STORED, 5 << 32, 5 << 32, True), ("behind", STORED, BLOCK, BLOCK, True)])
@example([("bomb", ZSTD, 7, 5 << 32, False), ("behind", ZSTD, 5 << 32, 7, False)])
@example([("just", STORED, 0xFFFFFFFF, 0xFFFFFFFF, False), ("behind", ZSTD, 9, 9, False)])
def test_what_is_written_is_read_back(wanted: list[Item]) -> None:
    entries = entries_of(wanted)
    with container(entries) as descriptor:
        assert read_directory(descriptor, "it") == entries
        for entry in entries:
            section_of(descriptor, entry, "it")
    for entry, (*_, align) in zip(entries, wanted, strict=True):
        assert not align or not entry.data % BLOCK
        assert entry.data - entry.start < 2 * BLOCK


@given(items(SMALL) | items(LARGE))
@settings(max_examples=60, deadline=None)
def test_zipfile_of_python_reads_the_same(wanted: list[Item]) -> None:
    entries = entries_of(wanted)
    with container(entries) as descriptor, open(descriptor, "rb", closefd=False) as file, zipfile.ZipFile(file) as read:
        found = [(info.filename, info.compress_type, info.CRC, info.compress_size) for info in read.infolist()]
        assert found == [(entry.name, entry.method, entry.crc, entry.stored) for entry in entries]
        found_too = [(info.file_size, info.header_offset) for info in read.infolist()]
        assert found_too == [(entry.size, entry.start) for entry in entries]
        for entry in entries:
            if entry.method == STORED and entry.stored <= 3 * BLOCK:
                assert read.read(entry.name) == bytes(entry.size)


@pytest.mark.parametrize("count", [65_534, 65_535, 66_000])
def test_more_entries_than_a_plain_zip_file_can_have(count: int) -> None:
    entries = entries_of([(f"library/{number:x}", STORED, number % 3, number % 3, False) for number in range(count)])
    with container(entries) as descriptor:
        assert read_directory(descriptor, "it") == entries
        with open(descriptor, "rb", closefd=False) as file, zipfile.ZipFile(file) as read:
            assert len(read.infolist()) == count
            assert read.read(entries[-1].name) == bytes(entries[-1].size)


def test_entries_that_were_put_together_elsewhere_are_read_behind_four_gigabytes() -> None:
    """What a worker writes before anybody knows where it will lie."""
    run = entries_of([("stored", STORED, 9, 9, False), ("compressed", ZSTD, 9, 99, False)])
    with tempfile.TemporaryFile() as file, holding(b"".join(local_header(entry) + bytes(9) for entry in run)) as spool:
        large = entry_at(0, "large", STORED, 0, 5 << 30, 5 << 30, align=False)
        file.write(local_header(large))
        file.flush()
        os.lseek(file.fileno(), large.end, os.SEEK_SET)
        writer = Writer(file.fileno(), None, align=False)
        writer.records, writer.last, writer.position = [record_of(large)], ("large", large.end), large.end
        writer.add_run(run, Section(spool, 0, run[-1].end))
        writer.end()
        _, *found = read_directory(file.fileno(), "it")
        assert [entry.start for entry in found] == [large.end + entry.start for entry in run]
        for entry in found:
            assert [*section_of(file.fileno(), entry, "it").pieces()] == [bytes(9)]


@pytest.mark.parametrize(
    "follow",
    [
        pytest.param(lambda writer: writer.add("whole", b"", compress=False), id="an entry"),
        pytest.param(
            lambda writer: writer.add_run(entries_of([("empty", STORED, 0, 0, False)]), Section(0, 0, 0)), id="a run"
        ),
        pytest.param(Writer.end, id="the directory"),
    ],
)
def test_entry_that_became_shorter_is_noticed_whatever_follows_it(follow: Callable[[Writer], None]) -> None:
    with tempfile.TemporaryFile() as file, holding(b"short") as spool:
        writer = Writer(file.fileno(), None, align=False)
        writer.add_section("torn", STORED, crc32(b"longer"), 6, Section(spool, 0, 6))
        with pytest.raises(HoloError, match="torn changed while it was exported"):
            follow(writer)


# -- damage ---------------------------------------------------------------------------------------------------------

SOUND = entries_of(
    [
        ("holo.json", STORED, 100, 100, False),
        ("library/aa/raw", STORED, BLOCK + 5, BLOCK + 5, True),
        ("library/bb/frame", ZSTD, 40, 90, False),
        ("empty", STORED, 0, 0, False),
    ]
)


def sound() -> bytes:
    with container(SOUND) as descriptor:
        return os.pread(descriptor, 1 << 20, 0)


WHOLE = sound()
IN_HEADERS = [at for entry in SOUND for at in range(entry.start, entry.data)] + [*range(SOUND[-1].end, len(WHOLE))]


def is_refused(data: bytes) -> bool:
    with holding(data) as descriptor:
        try:
            for entry in read_directory(descriptor, "the path"):
                section_of(descriptor, entry, "the path")
        except IntegrityError as error:
            assert str(error).startswith("the path is damaged")  # noqa: PT017 - any number of them are tried
            return True
    return False


def test_no_byte_of_a_header_can_be_another() -> None:
    assert not is_refused(WHOLE)
    for number, at in enumerate(IN_HEADERS):
        damaged = bytearray(WHOLE)
        damaged[at] ^= 1 << number % 8
        assert is_refused(bytes(damaged)), at


def test_it_can_be_neither_shorter_nor_longer() -> None:
    assert all(is_refused(WHOLE[:length]) for length in range(0, len(WHOLE), 5))
    for at in IN_HEADERS[::40]:
        assert is_refused(WHOLE[:at] + b"\0" + WHOLE[at:]), at
        assert is_refused(WHOLE[:at] + WHOLE[at + 1 :]), at
    assert is_refused(WHOLE + b"\0")
    assert is_refused(WHOLE + WHOLE)


FIELDS = st.one_of(st.sampled_from([0, 1, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 63]), st.integers(0, (1 << 64) - 1))


@given(
    st.lists(st.tuples(st.integers(SOUND[-1].end, len(WHOLE) - 1), FIELDS, st.sampled_from([1, 2, 4, 8])), max_size=9)
)
@settings(max_examples=300, deadline=None)
def test_wild_numbers_in_the_directory_are_refused(numbers: list[tuple[int, int, int]]) -> None:
    damaged = bytearray(WHOLE)
    for at, number, width in numbers:
        damaged[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    assert is_refused(bytes(damaged)) == (bytes(damaged) != WHOLE)


END_64 = struct.Struct("<4sQHHLLQQQQ")
LOCATOR = struct.Struct("<4sLQL")
END = struct.Struct("<4sHHHHLLH")


@given(st.binary(max_size=300), FIELDS, FIELDS, FIELDS, FIELDS)
@settings(max_examples=300, deadline=None)
def test_an_end_of_zip64_that_says_anything_is_refused(
    before: bytes, count: int, length: int, start: int, at: int
) -> None:
    record = END_64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    end = END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    for locator in (LOCATOR.pack(b"PK\6\7", 0, at, 1), LOCATOR.pack(b"PK\6\7", 0, len(before), 1)):
        assert is_refused(before + record + locator + end)


@given(st.binary(max_size=500))
@settings(deadline=None)
def test_random_bytes_are_no_bundle(data: bytes) -> None:
    for junk in (data, data + WHOLE[-22:], WHOLE[:200] + data):
        with holding(junk) as descriptor, pytest.raises(IntegrityError):
            Bundle(os.dup(descriptor), "it")


# -- a bundle around it ---------------------------------------------------------------------------------------------

DIGESTS = ["1" * 64, "2" * 64]


def bundle_with(contents: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    entries = []
    for name, content in contents.items():
        entry = entry_at(data.tell(), name, STORED, crc32(content), len(content), len(content), align=False)
        data.write(local_header(entry) + content)
        entries.append(entry)
    data.write(directory(entries))
    return data.getvalue()


MANIFEST_OF_ONE = Manifest((Named("app", DIGESTS[0]),), ()).to_json()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([*DIGESTS, "app", "../x", ""]) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*DIGESTS, "name", "x"]), inner),
    max_leaves=10,
)


def opened(data: bytes) -> Bundle:
    with holding(data) as descriptor:
        copy = os.dup(descriptor)
    try:
        return Bundle(copy, "it")
    except BaseException:
        os.close(copy)
        raise


def test_a_sound_manifest_is_read() -> None:
    bundle = opened(bundle_with({MANIFEST: MANIFEST_OF_ONE, catalog_entry(DIGESTS[0]): b"{}"}))
    assert bundle.manifest.catalogs == (Named("app", DIGESTS[0]),)
    bundle.close()


@settings(deadline=None)
@given(st.binary() | VALUES.map(lambda value: repr(value).replace("'", '"').replace("None", "null").encode()))
def test_no_manifest_is_believed(data: bytes) -> None:
    with pytest.raises(HoloError):
        opened(bundle_with({MANIFEST: data}))


@settings(deadline=None)
@given(VALUES, VALUES)
def test_no_table_of_extents_does_more_than_be_refused(parts: object, more: object) -> None:
    table = json.dumps({DIGESTS[0]: parts, DIGESTS[1]: [more]}).encode()
    try:
        bundle = opened(bundle_with({MANIFEST: MANIFEST_OF_ONE, "extents.json": table}))
    except HoloError:
        return
    try:
        for digest in DIGESTS:
            size = sum(part.length for part in bundle.parts[digest])
            try:
                with bundle.open(digest, size) as offer:
                    assert sum(stretch.length for stretch in offer.stretches) == size
            except HoloError:
                pass
    finally:
        bundle.close()


def test_a_section_ends_where_its_file_does() -> None:
    with holding(b"x" * 10) as descriptor:
        assert b"".join(Section(descriptor, 4, 100).pieces()) == b"x" * 6
