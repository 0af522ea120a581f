"""Finding the prefix: whatever the pieces, the same occurrences as a regular expression finds in the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holo import digest as digests
from holo.catalog import Catalog, Relocation
from holo.record.prefix import PrefixFinder, continues_name, find

NAME = rb"[A-Za-z0-9_\-\x80-\xff]"
ENV = b"/opt/env"

# Also some that overlap themselves, end in a dot, or hold what else has a meaning in a file.
PREFIXES = [
    ENV,
    b"/a",
    b"/a/a",
    b"/a/a/",
    b"/x.x",
    b"/aa/aa/aa",
    b"/e\xff\xfe",
    b"/new\nline",
    b"/with space",
    b"/#!/#!",
]


def reference(prefix: bytes, content: bytes) -> Relocation | None:
    """The definition, in the words of a regular expression."""
    whole = re.compile(re.escape(prefix) + rb"(?!%b|\.%b)" % (NAME, NAME))
    offsets = [match.start() for match in whole.finditer(content)]
    if not offsets:
        return None
    if b"\0" in content:
        return Relocation("binary", offsets, [(content + b"\0").index(b"\0", offset) for offset in offsets])
    line = content.partition(b"\n")[0]
    shebang = re.match(rb"#![ \t]*" + re.escape(prefix), line)
    return Relocation("text", offsets, [len(line)] if shebang and shebang.end() == offsets[0] + len(prefix) else [])


def in_pieces(prefix: bytes, content: bytes, sizes: list[int]) -> Relocation | None:
    finder = PrefixFinder(prefix)
    for piece in cut(content, sizes):
        finder.feed(piece)
    return finder.finish()


def cut(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The content in pieces of these sizes, over and over."""
    position = turn = 0
    while position < len(content):
        size = sizes[turn % len(sizes)] if sizes else len(content)
        yield content[position : position + size]
        position += size
        turn += 1


@st.composite
def texts(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A prefix, and content in which there is much that is it or nearly is."""
    prefix = draw(st.sampled_from(PREFIXES))
    nearly = st.integers(1, len(prefix) - 1).map(lambda size: prefix[:size])
    behind = st.sampled_from(
        [b"", b"/bin", b"-old", b".bak", b".", b". ", b":", b"_", b"\xc3\xa9", b"..", b"\n", b"\0"]
    )
    piece = st.one_of(
        st.just(prefix), behind.map(lambda tail: prefix + tail), nearly, behind, st.binary(max_size=3), st.just(b"#!")
    )
    start = draw(st.sampled_from([b"", b"#!", b"#!" + prefix, b"#! \t" + prefix]))
    return prefix, start + b"".join(draw(st.lists(piece, max_size=12)))


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@given(texts(), SIZES)
@example((ENV, b"#!/opt/env/bin/python\n/opt/env"), [1])
@example((ENV, b"#!/opt/env/bin/python\n/opt/env"), [7, 3])
@example((ENV, ENV), [1])
@example((ENV, b"\0/opt/env/a:/opt/env/b\0/opt/env"), [1])
@settings(max_examples=600, deadline=None)
def test_any_pieces_give_what_the_definition_says(text: tuple[bytes, bytes], sizes: list[int]) -> None:
    prefix, content = text
    expected = reference(prefix, content)
    assert find(prefix, content) == expected
    assert in_pieces(prefix, content, [max(1, len(content))]) == expected
    assert in_pieces(prefix, content, sizes) == expected


@given(texts())
@example((b"/new\nline", b"#!/new\nline/bin/python\n"))
@settings(max_examples=300, deadline=None)
def test_what_is_found_is_a_valid_relocation(text: tuple[bytes, bytes]) -> None:
    prefix, content = text
    found = find(prefix, content)
    if found is None or prefix.endswith(b"/"):
        return
    row = ("file", 0o644, len(content), 0, digests.of(content))
    catalog = Catalog(prefix.decode(errors="surrogateescape"), [("", 0o755, 0, [row], [])], {"file": found}, [], {})
    assert Catalog.from_json(catalog.to_json(), "c").relocations == {"file": found}


@pytest.mark.parametrize(
    ("content", "offsets"),
    [
        (b"/opt/env", [0]),
        (b"/opt/env/bin", [0]),
        (b"at the end: /opt/env", [12]),
        (b"/opt/env/opt/env", [0, 8]),
        (b"/opt/env:/opt/env\n", [0, 9]),
        (b"-L/opt/env -I/opt/env/include", [2, 13]),
        (b"'/opt/env'", [1]),
        (b"It is in /opt/env.", [9]),
        (b"It is in /opt/env. And", [9]),
        (b"It is in /opt/env.\n", [9]),
        (b"It is in /opt/env...", [9]),
        (b"/opt/env/../env", [0]),
    ],
)
def test_an_occurrence(content: bytes, offsets: list[int]) -> None:
    found = find(ENV, content)
    assert found is not None
    assert found.offsets == offsets
    assert in_pieces(ENV, content, [1]) == found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"/opt/en",
        b"opt/env",
        b"/opt/env-old",
        b"/opt/env_2",
        b"/opt/env2/bin",
        b"/opt/environment",
        b"/opt/env.bak",
        b"/opt/env.2",
        "/opt/envé".encode(),
        b"/opt/env\xff",
        b"/OPT/ENV",
        b"/opt//env",
    ],
)
def test_no_occurrence(content: bytes) -> None:
    assert find(ENV, content) is None
    assert in_pieces(ENV, content, [1]) is None
    assert in_pieces(ENV, content, []) is None


def test_a_sibling_hides_nothing_behind_it() -> None:
    content = b"/opt/env-old:/opt/env:/opt/env.bak/opt/env"
    found = find(ENV, content)
    assert found is not None
    assert found.offsets == [13, 34]


@pytest.mark.parametrize(
    ("after", "continues"), [(b"", False), (b"/", False), (b"a", True), (b".", False), (b".a", True), (b". ", False)]
)
def test_what_continues_a_name(after: bytes, continues: bool) -> None:
    assert continues_name(after) is continues


@pytest.mark.parametrize("around", range(-12, 3))
def test_an_occurrence_across_the_border_of_two_pieces(around: int) -> None:
    border = 4096
    content = b"." * (border + around) + ENV + b"/lib" + b"." * border
    for tail in (b"", b"\0"):
        assert in_pieces(ENV, content + tail, [border]) == reference(ENV, content + tail)


def test_a_string_that_ends_pieces_later() -> None:
    content = b"\0" + ENV + b"/" + b"x" * 50_000 + b"\0" + ENV + b"/unterminated"
    assert in_pieces(ENV, content, [4096]) == Relocation("binary", [1, 50_011], [50_010, len(content)])


def test_a_nul_anywhere_makes_it_binary() -> None:
    assert in_pieces(ENV, ENV + b"\n" * 9000 + b"\0", [4096]) == Relocation("binary", [0], [9008])


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        (b"#!/opt/env/bin/python\nprint()\n", [21]),
        (b"#!/opt/env/bin/python", [21]),
        (b"#!/opt/env/bin/python -E /opt/env/x\n", [35]),
        (b"#!/opt/env\n", [10]),
        (b"#! /opt/env/bin/python -E\n", [25]),
        (b"#!\t/opt/env/bin/python\n", [22]),
        (b"#!-/opt/env/bin/python\n", []),
        (b"#!/bin/sh /opt/env\n", []),
        (b"##!/opt/env\n", []),
        (b"\n#!/opt/env/bin/python\n", []),
        (b"/opt/env", []),
    ],
)
def test_the_end_of_a_shebang(content: bytes, ends: list[int]) -> None:
    found = find(ENV, content)
    assert found is not None
    assert found.ends == ends
    assert in_pieces(ENV, content, [1]) == found


def test_a_shebang_line_that_never_ends_is_still_inside_the_file() -> None:
    content = b"#!" + ENV + b"/x" * 10_000 + ENV + b"\n"
    found = find(ENV, content)
    assert found is not None
    assert found.offsets == [2, len(content) - 9]
    assert all(10 <= end <= len(content) for end in found.ends)


def test_memory_does_not_grow_with_the_file() -> None:
    finder = PrefixFinder(ENV)
    for _ in range(200):
        finder.feed(b"/opt/en" * 1000)
    kept = [value for value in vars(finder).values() if isinstance(value, bytes)]
    assert sum(map(len, kept)) < 10_000
