"""The small files that holo keeps, and those of a tree that it looks into: whatever they say, it copes with it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holo import history
from holo.files import seal
from holo.history import Event
from holo.relocation.foreign import other_spellings, outside
from holo.space import Space, decode, encode
from holo.spellings import spellings

TEXT = st.text(st.sampled_from("/ab.\0\n\r\t \"'\\$`=#!%é\ud8ff\udcff"), max_size=12)
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["pristine", "/a/b", "env"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)

SPACE = Space("one", "/a/one", "/a", "/a/one", "env", "0" * 64, "pristine", "smart", "copy", None)


def test_the_space_of_these_tests_is_sound() -> None:
    assert decode(encode(SPACE, "x"), "one") == SPACE._replace(identity="x")


FIELDS = st.sampled_from(Space._fields)


@given(st.dictionaries(FIELDS | st.just("newer"), VALUE, max_size=3), st.sets(FIELDS, max_size=2))
def test_any_values_of_a_record_are_a_space_or_damage(values: dict[str, Any], missing: set[str]) -> None:
    document = json.loads(encode(SPACE, "").split(b"\n")[0]) | values
    data = seal(json.dumps({key: value for key, value in document.items() if key not in missing}).encode())
    with suppress(ValueError):
        found = decode(data, "one")
        assert found is not None
        again = decode(encode(found, found.identity), "one")
        assert again == found


@given(VALUE)
def test_any_document_is_a_space_or_damage(document: Any) -> None:
    with suppress(ValueError):
        decode(seal(json.dumps(document).encode()), "one")


EVENT = Event("2026-01-01T00:00:00Z", "made", "env", "0" * 64, "copy", 1, 0, "holo init")


LINE = st.binary(max_size=30) | st.lists(VALUE, min_size=7, max_size=9).map(lambda values: json.dumps(values).encode())


@given(st.lists(LINE, max_size=4))
def test_any_lines_of_a_history_are_events_or_left_out(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("history") / "one.history"
    path.write_bytes(b"\n".join([*lines, json.dumps(EVENT).encode()]) + b"\n")
    assert history.events(str(path))[-1] == EVENT


NAMES = ("direct_url.json", "pyvenv.cfg", "x.pth", "x.egg-link", "activate", "script")
PATHS = (b"/a/tree", b"/a", b"..", b"/../", b"/bin/python3", b"file://", b"file://[", b"%zz", b"\0", b"\xff")
SYNTAX = (b"\n", b" ", b'"', b"'", b"home = ", b"VIRTUAL_ENV=", b"#!", b'{"url": "', b'", "dir_info": {"editable": 1}}')
CONTENT = st.lists(st.sampled_from(PATHS + SYNTAX) | st.binary(max_size=4)).map(b"".join)


@given(st.sampled_from(NAMES), CONTENT)
def test_any_file_is_looked_into(name: str, content: bytes) -> None:
    for line in outside(f"bin/{name}", content, "/a/tree", ["/a/project"]):
        assert line


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8))
def test_no_other_spelling_is_one_that_is_patched(name: str) -> None:
    root = str(Path("/a", name.lstrip("/") or "x"))
    assert {needle for _, needle in other_spellings(root, "it")}.isdisjoint(spellings(root))
