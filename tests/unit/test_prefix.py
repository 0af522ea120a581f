"""Finding the prefix: whatever the pieces, the same occurrences as a regular expression finds in the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holo import digest as digests
from holo.catalog import Catalog, Relocation
from holo.relocation.bytecode import compiled_from, has_source
from holo.relocation.find import Opaque, PrefixFinder, begins_path, continues_name, find
from holo.relocation.inspection import Inspector

NAME = rb"A-Za-z0-9_\-\x80-\xff"
ENV = b"/opt/env"
LOOKBEHIND = 64

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
    """The definition, in the words of a regular expression, but for what stands before an occurrence."""
    behind = re.compile(rb"(?![%b~]|[.+@%%#][%b])" % (NAME, NAME))
    is_binary = b"\0" in content
    offsets: list[int] = []
    at, free = content.find(prefix), 0
    while at >= 0:
        before, after = content[max(0, at - LOOKBEHIND) : at], at + len(prefix)
        begins = begins_path(before, shallow=prefix.count(b"/") == 1)
        # What is taken for a path in a binary file is one as far as another search is concerned, in a text as well.
        if behind.match(content, after) and (begins or prefix.count(b"/") > 1 or may_begin(before)):
            if begins or is_binary:
                offsets.append(at)
            free = after
        else:
            free = at + 1
        at = content.find(prefix, free)
    if not offsets:
        return None
    if is_binary:
        return Relocation("data", offsets, [(content + b"\0").index(b"\0", offset) for offset in offsets])
    line = content.partition(b"\n")[0]
    shebang = re.match(rb"#![ \t]*" + re.escape(prefix), line)
    return Relocation("text", offsets, [len(line)] if shebang and shebang.end() == offsets[0] + len(prefix) else [])


def may_begin(before: bytes) -> bool:
    """In a binary file: a path of one component does not go on from other letters or another component."""
    word = re.search(rb"[A-Za-z0-9_\-]*\Z", before)
    component = re.search(rb"/[A-Za-z0-9_\-.+@~]+\Z", before)
    assert word is not None
    return len(word[0]) < 3 and component is None and not before.endswith((b"/", b"}", b")"))


def in_pieces(prefix: bytes, content: bytes, sizes: list[int]) -> Relocation | Opaque | None:
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
        [b"", b"/bin", b"-old", b".bak", b".", b". ", b":", b"_", b"\xc3\xa9", b"..", b"\n", b"\0", b"~", b"@2", b"://"]
    )
    piece = st.one_of(
        st.just(prefix),
        behind.map(lambda tail: prefix + tail),
        nearly,
        behind,
        st.binary(max_size=3),
        st.sampled_from([b"#!", b"/", b"-L", b"\\n", b"usr/", b"zA"]),
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
    if not isinstance(found, Relocation) or prefix.endswith(b"/"):
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
        (b"/opt/env/opt/env", [0]),
        (b"/opt/env:/opt/env\n", [0, 9]),
        (b"-L/opt/env -I/opt/env/include", [2, 13]),
        (b"'/opt/env'", [1]),
        (b"It is in /opt/env.", [9]),
        (b"It is in /opt/env. And", [9]),
        (b"It is in /opt/env.\n", [9]),
        (b"It is in /opt/env...", [9]),
        (b"/opt/env/../env", [0]),
        (b"gcc -isystem/opt/env/include -Wl,-rpath,/opt/env/lib", [12, 40]),
        (b"file:///opt/env/x", [7]),
        (b"PATH=/bin:/opt/env", [10]),
        (b'="/opt/env"', [2]),
        (b"$(DESTDIR)/opt/env", [10]),
        (b"print('\\n/opt/env')", [9]),
        (b"<path>/opt/env</path>", [6]),
        (b"//opt/env", [1]),
    ],
)
def test_prefix_is_found(content: bytes, offsets: list[int]) -> None:
    found = find(ENV, content)
    assert isinstance(found, Relocation)
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
        b"/opt/env~",
        b"/opt/env+x",
        b"/opt/env@2",
        b"/opt/env%20x",
        b"/opt/env#1",
        b"/srv/opt/env",
        b"srv/opt/env",
        b"./opt/env",
        b"~/opt/env",
        b"a-L/opt/env",
        b"https://opt/env",
        b"/srv//opt/env",
        b"\\\\n/opt/env",
    ],
)
def test_other_text_is_not_found(content: bytes) -> None:
    assert find(ENV, content) is None
    assert in_pieces(ENV, content, [1]) is None
    assert in_pieces(ENV, content, []) is None


@pytest.mark.parametrize("prefix", [b"/env", b"/venv"])
@pytest.mark.parametrize(
    "content",
    [
        b"#!/usr/bin/env python",
        b"https://pip.pypa.io/warnings/venv",
        b"https://venv/",
        b"f'{root}/venv'",
        b"$(root)/env",
        b"\0usr/bin/env\0",
        b"\0/usr/bin/env\0",
        b"\0https://env\0",
        b"\0{root}/venv\0",
    ],
)
def test_the_end_of_another_path_is_no_occurrence(prefix: bytes, content: bytes) -> None:
    assert find(prefix, content) is None
    assert in_pieces(prefix, content, [1]) is None


@pytest.mark.parametrize("before", [b"\x8c\x41", b"X\x41\0\0\0", b"zA", b"\0", b"", b"-L", b"src/main.rs"])
def test_a_length_before_a_path_in_a_binary_file(before: bytes) -> None:
    content = b"\0" + before + ENV + b"/lib\0"
    assert find(ENV, content) == Relocation("data", [1 + len(before)], [len(content) - 1])


@pytest.mark.parametrize("before", [b"abcz\x41", b"\0bcdzZ"])
def test_anything_may_stand_before_a_path_in_bytecode(before: bytes) -> None:
    content = before + b"/env\0"
    assert find(b"/env", content) is None
    found = find(b"/env", content, bytecode=True)
    assert isinstance(found, Relocation)
    assert found.offsets == [len(before)]


def test_a_sibling_hides_nothing_behind_it() -> None:
    content = b"/opt/env-old:/opt/env:/opt/env.bak:/opt/env"
    found = find(ENV, content)
    assert isinstance(found, Relocation)
    assert found.offsets == [13, 35]


@pytest.mark.parametrize(
    ("after", "continues"), [(b"", False), (b"/", False), (b"a", True), (b".", False), (b".a", True), (b". ", False)]
)
def test_what_continues_a_name(after: bytes, continues: bool) -> None:
    assert continues_name(after) is continues


@pytest.mark.parametrize("around", range(-12, 3))
def test_an_occurrence_across_the_border_of_two_pieces(around: int) -> None:
    border = 4096
    content = b"=" * (border + around) + ENV + b"/lib" + b"." * border
    for tail in (b"", b"\0"):
        assert find(ENV, content + tail) is not None
        assert in_pieces(ENV, content + tail, [border]) == reference(ENV, content + tail)


def test_a_string_that_ends_pieces_later() -> None:
    content = b"\0" + ENV + b"/" + b"x" * 50_000 + b"\0" + ENV + b"/unterminated"
    assert in_pieces(ENV, content, [4096]) == Relocation("data", [1, 50_011], [50_010, len(content)])


def test_a_nul_anywhere_makes_it_data() -> None:
    assert in_pieces(ENV, ENV + b"\n" * 9000 + b"\0", [4096]) == Relocation("data", [0], [9008])


def test_a_nul_far_behind_changes_what_is_an_occurrence() -> None:
    content = b"zA" + ENV + b"\n" * 9000
    assert in_pieces(ENV, content, [4096]) is None
    assert in_pieces(ENV, content + b"\0", [4096]) == Relocation("data", [2], [9010])


@pytest.mark.parametrize("magic", [b"\x7fELF", b"!<arch>\n", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"])
def test_programs_and_libraries_need_their_paths(magic: bytes) -> None:
    content = magic + b"\0" + ENV + b"/lib\0"
    found = in_pieces(ENV, content, [3])
    assert isinstance(found, Relocation)
    assert found.kind == "binary"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"SQLite format 3\0", "a SQLite database"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"PACK\0\0\0\2", "a pack of Git"),
        (b"\x1f\x8b\x08", "compressed data"),
        (b"name".ljust(257, b"\0") + b"ustar", "a tar archive"),
    ],
)
def test_formats_with_checksums_are_not_patched(head: bytes, name: str) -> None:
    content = head + b"\0" + ENV + b"/lib\0"
    assert in_pieces(ENV, content, [5]) == Opaque(name)
    assert in_pieces(ENV, head + b"\0nothing\0", [5]) is None


def test_an_archive_behind_a_first_line() -> None:
    line = b"#!" + ENV + b"/bin/python3\n"
    content = line + b"PK\x03\x04\0\0" + ENV + b"/lib\0"
    assert in_pieces(ENV, content, [4]) == Relocation("zipapp", [2], [len(line) - 1])
    assert in_pieces(ENV, b"#!/usr/bin/python3\nPK\x03\x04\0" + ENV, [4]) == Opaque("a ZIP archive")
    inspector = Inspector(ENV.decode(), ["/project"])
    for named in (ENV, b"/project"):
        content = line + b"PK\x03\x04\0" + named + b"/lib\0"
        for seen in (inspector.look_into(content, "tool"), inspector.look_through([content], "tool")):
            places, warnings = inspector.judge(seen, content, "bin", "tool")
            assert places == Relocation("zipapp", [2], [len(line) - 1])
            assert warnings == ["bin/tool contains the recorded path in its ZIP archive, which is not patched"]
    seen = inspector.look_into(line + b"PK\x03\x04\0", "tool")
    assert inspector.judge(seen, line + b"PK\x03\x04\0", "bin", "tool")[1] == []


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        (b"#!/opt/env/bin/python\nprint()\n", [21]),
        (b"#!/opt/env/bin/python", [21]),
        (b"#!/opt/env/bin/python -E /opt/env/x\n", [35]),
        (b"#!/opt/env\n", [10]),
        (b"#! /opt/env/bin/python -E\n", [25]),
        (b"#!\t/opt/env/bin/python\n", [22]),
        (b"#!=/opt/env/bin/python\n", []),
        (b"#!/bin/sh /opt/env\n", []),
        (b"##!/opt/env\n", []),
        (b"\n#!/opt/env/bin/python\n", []),
        (b"/opt/env", []),
    ],
)
def test_the_end_of_a_shebang(content: bytes, ends: list[int]) -> None:
    found = find(ENV, content)
    assert isinstance(found, Relocation)
    assert found.ends == ends
    assert in_pieces(ENV, content, [1]) == found


def test_a_shebang_line_that_never_ends_is_still_inside_the_file() -> None:
    content = b"#!" + ENV + b"/x" * 10_000 + b" " + ENV + b"\n"
    found = find(ENV, content)
    assert isinstance(found, Relocation)
    assert found.offsets == [2, len(content) - 9]
    assert all(10 <= end <= len(content) for end in found.ends)


def test_memory_does_not_grow_with_the_file() -> None:
    finder = PrefixFinder(ENV)
    for _ in range(200):
        finder.feed(b"/opt/en" * 1000)
    kept = [value for value in vars(finder).values() if isinstance(value, bytes)]
    assert sum(map(len, kept)) < 10_000


@given(st.lists(st.sampled_from([ENV, b"/opt/env-old", b"\0", b"\n", b"x"])).map(b"".join), SIZES)
@settings(max_examples=150, deadline=None)
def test_an_inspector_sees_the_same_in_pieces(content: bytes, sizes: list[int]) -> None:
    inspector = Inspector("/opt/env")
    for name in ("x.txt", "x.pyc"):
        assert inspector.look_through(cut(content, sizes), name) == inspector.look_into(content, name)


def test_bytecode_and_its_source() -> None:
    cache = ["x.cpython-311.pyc", "x.cpython-311.opt-1.pyc", "x.y.cpython-311.pyc", "gone.cpython-311.pyc", "x.txt"]
    rewritten = ["x.cpython-311-pytest-9.1.0.pyc", "x.y.cpython-37-PYTEST.pyc", "x.cpython-311-pytest-9.0.0rc1.pyc"]
    tree = {"": ["setup.py", "setup.pyc"], "a": ["x.py", "x.y.py"], "a/__pycache__": cache + rewritten}

    def names(folder: str) -> list[str]:
        return tree.get(folder, [])

    of_x = sorted([*cache[:2], rewritten[0], rewritten[2]])
    assert compiled_from("a/x.py", names) == [f"a/__pycache__/{name}" for name in of_x]
    assert compiled_from("a/x.y.py", names) == [f"a/__pycache__/{name}" for name in (cache[2], rewritten[1])]
    assert compiled_from("a/x", names) == compiled_from("setup.py", names) == []
    assert [name for name in cache if has_source(f"a/__pycache__/{name}", names)] == cache[:3]
    assert has_source("setup.pyc", names)
    assert not has_source("setup.py", names)
