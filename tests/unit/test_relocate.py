"""Patching the prefix: in any chunks the same as done by hand on the whole, and scripts that really run."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from holo.catalog import Catalog, Relocation
from holo.errors import CatalogInvalid, RelocationImpossible
from holo.relocation.find import find as find_any
from holo.relocation.patch import SHEBANG_LIMIT, Relocator, patch_file, splice

OLD = "/opt/env"
EQUAL, SHORTER, LONGER = "/srv/new", "/n", "/a/much/longer/place"
LENGTH = len(OLD)


def cut(content: bytes, sizes: list[int], first: int = 1) -> Iterator[bytes]:
    """The content in pieces of these sizes, over and over; the first of them holds at least `first` bytes."""
    position = turn = 0
    while position < len(content):
        size = sizes[turn % len(sizes)] if sizes else len(content)
        if not turn:
            size = max(size, first)
        yield content[position : position + size]
        position += size
        turn += 1


def find(prefix: bytes, content: bytes) -> Relocation | None:
    found = find_any(prefix, content)
    return found if isinstance(found, Relocation) else None


def patched(old: str, new: str, content: bytes, sizes: list[int] | None = None, path: str = "bin/script") -> bytes:
    relocation = find(old.encode(), content)
    assert relocation is not None
    first = relocation.ends[0] if relocation.kind == "text" and relocation.ends else 1
    return b"".join(Relocator(old, new).patch(lambda: cut(content, sizes or [], first), relocation, path))


def patched_in_place(relocator: Relocator, content: bytes, relocation: Relocation) -> bytes:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        patch_file(file.fileno(), relocator, relocation, "bin/script")
        file.seek(0)
        return file.read()


def by_hand(old: bytes, new: bytes, content: bytes, relocation: Relocation) -> bytes:
    """The definition: in a text the path is exchanged; in all else it keeps its length, with slashes or NULs."""
    for offset in reversed(relocation.offsets):
        behind = content[offset + len(old) :]
        padded = (
            new if relocation.kind == "text" else new.ljust(len(old), b"/" if behind[:1] not in (b"", b"\0") else b"\0")
        )
        content = content[:offset] + padded + behind
    return content


PIECES = st.one_of(
    st.sampled_from([OLD.encode(), OLD.encode(), b"/opt/env/lib", b"/opt/en", b"/opt/env-old", b"\0", b"\n", b"#!"]),
    st.binary(max_size=5),
)
CONTENTS = st.lists(PIECES, min_size=1, max_size=14).map(b"".join)
HOLDING = st.tuples(CONTENTS, st.sampled_from([b"/opt/env", b"\0/opt/env\0"]), CONTENTS).map(b" ".join)
BINARIES = st.tuples(CONTENTS, st.sampled_from([b"\0", b"\0/opt/env/x\0"]), CONTENTS).map(b"/opt/env ".join)
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@given(st.one_of(CONTENTS, HOLDING), st.sampled_from([EQUAL, SHORTER, LONGER, OLD]), SIZES)
@example(b"/opt/env", LONGER, [1])
@example(b"/opt/env:/opt/env", SHORTER, [1])
@example(b"\0/opt/env:/opt/env", SHORTER, [3])
@example(b"/opt/env\0", SHORTER, [8])
@example(b"/opt/env\0/opt/env\0x", SHORTER, [9])
@settings(max_examples=250, deadline=None)
def test_any_chunks_give_what_is_done_by_hand(content: bytes, new: str, sizes: list[int]) -> None:
    relocation = find(OLD.encode(), content)
    assume(relocation is not None and (relocation.kind == "text" or len(new) <= LENGTH))
    assert relocation is not None
    expected = by_hand(OLD.encode(), new.encode(), content, relocation)
    assert patched(OLD, new, content, sizes) == expected
    assert patched(OLD, new, content) == expected
    assert Relocator(OLD, new).size(relocation, len(content)) == len(expected)
    assert patched_in_place(Relocator(OLD, new), content, relocation) == expected
    if relocation.kind != "text":
        assert len(expected) == len(content)


@given(st.lists(st.sampled_from([b":/opt/env", b" /opt/env/lib", b"#!", b"\n", b":", b"!"])).map(b"".join), SIZES)
@settings(max_examples=200, deadline=None)
def test_there_and_back_again(content: bytes, sizes: list[int]) -> None:
    assume(find(OLD.encode(), content) is not None)
    there = patched(OLD, EQUAL, content, sizes)
    assert there == content.replace(b"/opt/env", b"/srv/new")
    assert patched(EQUAL, OLD, there, sizes) == content


@given(BINARIES)
@settings(max_examples=150, deadline=None)
def test_a_binary_keeps_everything_else_in_its_place(content: bytes) -> None:
    relocation = find(OLD.encode(), content)
    assume(relocation is not None)
    assert relocation is not None
    result = bytearray(patched(OLD, SHORTER, content))
    assert len(result) == len(content)
    for offset in relocation.offsets:
        assert os.path.normpath(bytes(result[offset : offset + LENGTH]).rstrip(b"\0")) == SHORTER.encode()
        result[offset : offset + LENGTH] = OLD.encode()
    assert result == content


def test_data_in_which_a_longer_path_has_no_room_is_left_alone() -> None:
    data = Relocation("data", [1], [50])
    assert Relocator(OLD, SHORTER).applies(data)
    assert Relocator(OLD, EQUAL).applies(data)
    assert not Relocator(OLD, LONGER).applies(data)
    Relocator(OLD, LONGER).refuse_impossible({"cache": data})
    (warning,) = Relocator(OLD, LONGER).left_alone({"cache": data, "text": Relocation("text", [0], [])})
    assert warning == "/opt/env stays in data files, where a longer path has no room: cache"
    assert Relocator(OLD, SHORTER).left_alone({"cache": data}) == []


counted = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Each example is noted as a fault: the fixture that does it is made once for all."""
FUZZ = "fuzz of relocations: offsets that lie"
Note = Callable[[int, str, int], None]


@pytest.mark.torture
@given(CONTENTS, st.lists(st.integers(0, 80), min_size=1, max_size=4, unique=True), SIZES)
@settings(counted, max_examples=250)
def test_check_knows_every_wrong_offset(faults: Note, content: bytes, offsets: list[int], sizes: list[int]) -> None:
    offsets.sort()
    assume(all(b - a >= LENGTH for a, b in itertools.pairwise(offsets)))
    faults(7, FUZZ, 1)
    holds = all(content[offset : offset + LENGTH] == OLD.encode() for offset in offsets)
    assert is_accepted(content, Relocation("text", offsets, []), sizes) == holds


@pytest.mark.torture
@given(HOLDING, SIZES, st.integers(-12, 12).filter(bool), st.data())
@settings(counted, max_examples=150)
def test_check_knows_an_offset_that_is_moved(
    faults: Note, content: bytes, sizes: list[int], by: int, data: st.DataObject
) -> None:
    relocation = find(OLD.encode(), content)
    assume(relocation is not None)  # the content may begin as that of a format that is never patched
    assert relocation is not None
    assert is_accepted(content, relocation, sizes)
    index = data.draw(st.integers(0, len(relocation.offsets) - 1))
    offsets = list(relocation.offsets)
    offsets[index] += by
    assume(0 <= offsets[index] <= len(content) - LENGTH)
    assume(not content.startswith(OLD.encode(), offsets[index]))
    faults(7, FUZZ, 1)
    assert not is_accepted(content, relocation._replace(offsets=sorted(offsets)), sizes)


def is_accepted(content: bytes, relocation: Relocation, sizes: list[int] | None = None) -> bool:
    try:
        Relocator(OLD, EQUAL).check(cut(content, sizes or []), relocation, "file")
    except CatalogInvalid:
        return False
    return True


@pytest.mark.parametrize("size", [1, 7, 8, 9, 4096])
def test_check_looks_at_the_last_byte_of_the_last_offset(size: int) -> None:
    content = b"x" * 5000 + OLD.encode()
    assert is_accepted(content, Relocation("text", [5000], []), [size])
    assert not is_accepted(content[:-1], Relocation("text", [5000], []), [size])
    assert not is_accepted(content[:-1] + b"w", Relocation("text", [5000], []), [size])
    assert not is_accepted(b"", Relocation("text", [0], []), [size])


@pytest.mark.parametrize("end", [14, 21, 25, 33])
def test_check_knows_a_string_end_that_is_wrong(end: int) -> None:
    """A padding in the wrong place would move what stands behind the string, or cut into it."""
    content = b"\0/opt/env/lib\0tail and\0another\0\0\0"
    assert is_accepted(content, Relocation("binary", [1], [13]))
    assert not is_accepted(content, Relocation("binary", [1], [end]))


@pytest.mark.parametrize("end", [10, 15, 20, 30])
def test_check_knows_a_shebang_end_that_is_wrong(end: int) -> None:
    content = b"#!/opt/env/bin/python\nprint('hello')\n"
    assert is_accepted(content, Relocation("text", [2], [21]))
    assert not is_accepted(content, Relocation("text", [2], [end]))


def test_check_names_the_file_and_the_offset() -> None:
    with pytest.raises(CatalogInvalid, match=r"bin/run holds /opt/env at byte 3,"):
        Relocator(OLD, EQUAL).check(iter([b"x/opt/env and more"]), Relocation("text", [3], []), "bin/run")


def test_check_keeps_little_in_memory() -> None:
    """It asks for a chunk only when it is done with those before, and a far offset makes it keep none of them."""

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * (1 << 20)
        yield OLD.encode()

    tracemalloc.start()
    try:
        Relocator(OLD, EQUAL).check(chunks(), Relocation("text", [64 << 20], []), "file")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=40), SIZES, st.data())
@settings(max_examples=150, deadline=None)
def test_splice_is_slicing(content: bytes, sizes: list[int], data: st.DataObject) -> None:
    points = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8).filter(lambda p: len(p) % 2 == 0)))
    spans = sorted(set(zip(points[::2], points[1::2], strict=True)))
    edits = [(start, end, data.draw(st.binary(min_size=1, max_size=5))) for start, end in spans]
    expected, position = b"", 0
    for start, end, new in edits:
        expected += content[position:start] + new
        position = end
    expected += content[position:]
    chunks = list(cut(content, sizes)) or [b""]
    assert b"".join(splice(chunks[0], iter(chunks[1:]), edits)) == expected


# -- sizes and refusals -----------------------------------------------------------------------------------


def test_a_size_that_only_the_content_tells() -> None:
    relocation = Relocation("text", [2], [21])
    assert Relocator(OLD, EQUAL).size(relocation, 30) == 30
    assert Relocator(OLD, LONGER).size(relocation, 30) == 30 + len(LONGER) - LENGTH
    assert Relocator(OLD, "/with space").size(relocation, 30) is None
    assert Relocator(OLD, "/" + "x" * SHEBANG_LIMIT).size(relocation, 30) is None


@pytest.mark.parametrize("over", [0, 1])
def test_the_longest_shebang(over: int) -> None:
    content = b"#!/opt/env/bin/python\n"
    new = "/" + "x" * (SHEBANG_LIMIT - len("#!/bin/python") - 1 + over)
    result = patched(OLD, new, content)
    found = b'#!/usr/bin/env -S sh -c \'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"\'\n'
    assert result == (found if over else b"#!" + new.encode() + b"/bin/python\n")
    assert over or len(result.splitlines()[0]) == SHEBANG_LIMIT


def catalog_of(kinds: dict[str, Relocation]) -> Catalog:
    rows = [(path, 0o644, 100, 0, "ab" * 32) for path in kinds]
    return Catalog(OLD, [("", 0o755, 0, rows, [])], kinds, [], {})


def test_a_longer_path_in_a_binary_is_refused_with_the_list() -> None:
    binaries = {f"lib-{number:02}.so": Relocation("binary", [1], [50]) for number in range(30)}
    catalog = catalog_of({**binaries, "text": Relocation("text", [0], []), "x.pyc": Relocation("bytecode", [], [])})
    for new in (EQUAL, SHORTER):
        Relocator(OLD, new).refuse_impossible(catalog.relocations)
    with pytest.raises(RelocationImpossible) as caught:
        Relocator(OLD, LONGER).refuse_impossible(catalog.relocations)
    message = str(caught.value)
    assert "lib-00.so" in message
    assert "and 24 more" in message
    assert "text" not in message
    assert "x.pyc" not in message
    assert f"at most {LENGTH} bytes" in str(caught.value.hint)
    only_text = catalog_of({"text": Relocation("text", [0], []), "x.pyc": Relocation("bytecode", [], [])})
    Relocator(OLD, LONGER).refuse_impossible(only_text.relocations)


@pytest.mark.parametrize("new", [EQUAL, SHORTER, LONGER])
def test_bytecode_of_a_patched_source_is_made_stale(new: str) -> None:
    bytecode = Relocation("bytecode", [], [])
    relocator = Relocator(OLD, new)
    assert relocator.applies(bytecode)
    assert not Relocator(OLD, OLD).applies(bytecode)
    content = b"magi" + b"\x03\0\0\0" + b"hash" * 2 + b"\xe3/opt/env\0"
    expected = content[:4] + bytes(12) + content[16:]
    assert b"".join(relocator.patch(lambda: cut(content, [5], first=1), bytecode, "x.pyc")) == expected
    assert relocator.size(bytecode, len(content)) == len(content)
    assert relocator.regions(bytecode) == [(4, 16)]
    assert patched_in_place(relocator, content, bytecode) == expected


@pytest.mark.parametrize(
    ("target", "moved"),
    [
        ("/opt/env", "/srv/new"),
        ("/opt/env/bin", "/srv/new/bin"),
        ("/opt/env/", "/srv/new/"),
        ("/opt/env-old/bin", None),
        ("/opt/env.bak", None),
        ("/opt", None),
        ("/other/opt/env", None),
        ("opt/env", None),
        ("../opt/env", None),
        ("", None),
    ],
)
def test_symlinks_into_the_prefix_are_moved(target: str, moved: str | None) -> None:
    assert Relocator(OLD, EQUAL).symlink(target) == (moved or target)


# -- scripts that run -------------------------------------------------------------------------------------

AWKWARD = {
    "plain": "plain",
    "space": "with space",
    "spaces": "  several   spaces ",
    "tab": "with\ttab",
    "newline": "with\nnewline",
    "single-quote": "it's here",
    "quotes": "it's \"quoted\" twice ''",
    "dollar": "cost $HOME and $(id) ${x}",
    "backtick": "run `id` now",
    "backslash": "back\\slash \\n \\x41 \\",
    "glob": "* ? [a-z] ~",
    "shell": "a; b & c | d > e #",
    "percent": "100% %s",
    "emoji": "snake \N{SNAKE}",
    "too-long": "x" * 150,
    "too-long-with-space": "x y " * 40,
    "quotes-without-space": 'it\'s"q"',
    "dollar-without-space": "$HOME`id`",
}


everywhere = pytest.mark.parametrize("place", list(AWKWARD), indirect=True)
somewhere = pytest.mark.parametrize("place", ["plain", "space", "too-long"], indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An environment's new path, with a Python and a shell in it."""
    place = tmp_path / AWKWARD[request.param]
    (place / "bin").mkdir(parents=True)
    for name in ("python", "python3.11", "pypy3"):
        (place / "bin" / name).symlink_to(os.path.realpath(sys.executable))
    (place / "bin" / "sh").symlink_to("/bin/sh")
    return place


SHOW = b"import sys\nprint(ascii([sys.argv[1:], sys.flags.isolated, sys.flags.optimize]))\n"


def run(place: Path, script: bytes, *arguments: str) -> str:
    """Patch the script to `place`, put it there and run it."""
    path = place / "bin" / "script"
    path.write_bytes(patched(OLD, str(place), script))
    path.chmod(0o755)
    environment = {"PATH": f"{place}/bin:{os.environ['PATH']}", "HOME": "/nowhere"}
    done = subprocess.run([path, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@everywhere
def test_a_python_script_runs(place: Path) -> None:
    arguments = ["one", "two words", "", "it's", '"', "$HOME", "*"]
    assert run(place, b"#!/opt/env/bin/python\n" + SHOW, *arguments) == f"[{arguments!a}, 0, 0]\n"


@somewhere
@pytest.mark.parametrize("interpreter", [b"python3.11", b"pypy3"])
def test_another_python_runs(place: Path, interpreter: bytes) -> None:
    assert run(place, b"#!/opt/env/bin/" + interpreter + b"\n" + SHOW, "a b") == "[['a b'], 0, 0]\n"


@somewhere
@pytest.mark.parametrize(
    ("start", "options"),
    [(b"#!", b" -I"), (b"#!", b"\t-I"), (b"#!", b" -IO "), (b"#! ", b""), (b"#!\t", b" -I"), (b"#! ", b" \t-I\t")],
)
def test_a_python_script_keeps_its_options(place: Path, start: bytes, options: bytes) -> None:
    shown = run(place, start + b"/opt/env/bin/python" + options + b"\n" + SHOW, "one", "two words")
    assert shown == f"[['one', 'two words'], {int(b'I' in options)}, {int(b'O' in options)}]\n"


@everywhere
def test_a_shell_script_runs(place: Path) -> None:
    assert run(place, b'#!/opt/env/bin/sh\necho "$1"\n', "a b") == "a b\n"


@somewhere
@pytest.mark.parametrize(("start", "options"), [(b"#!", b" -eu"), (b"#!", b"\t-eu"), (b"#! ", b""), (b"#! ", b" -eu")])
def test_a_shell_script_keeps_its_options(place: Path, start: bytes, options: bytes) -> None:
    flags, count = run(place, start + b"/opt/env/bin/sh" + options + b'\necho "[$-] $#"\n', "a b", "c").split()
    assert count == "2"
    assert ("e" in flags and "u" in flags) == bool(options)


@somewhere
def test_the_rest_of_a_script_is_patched_too(place: Path) -> None:
    script = b"#!/opt/env/bin/python\nimport os\nprint(os.path.isdir('/opt/env/bin'))\n"
    assert run(place, script) == "True\n"


@pytest.mark.parametrize("name", list(AWKWARD))
def test_a_rewritten_script_is_good_python(name: str) -> None:
    """No warnings either: CPython 3.12 shows those of a script on every run."""
    script = patched(OLD, f"/{AWKWARD[name]}/long {'x' * 150}", b"#!/opt/env/bin/python -I\n" + SHOW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(script, "script", "exec")


def test_a_shebang_without_a_newline() -> None:
    assert patched(OLD, EQUAL, b"#!/opt/env/bin/python") == b"#!/srv/new/bin/python"
    rewritten = patched(OLD, "/new place", b"#!/opt/env/bin/python")
    assert rewritten.startswith(b"#!/usr/bin/env -S ")
    assert not rewritten.endswith(b"\n")


def test_a_rewritten_shebang_keeps_the_lines_below_it() -> None:
    below = b"\n# -*- coding: utf-8 -*-\nprint('/opt/env')\n"
    result = patched(OLD, "/new place", b"#!/opt/env/bin/python" + below, [25])
    assert result.endswith(below.replace(b"/opt/env", b"/new place"))


def test_a_shebang_of_another_interpreter_is_left_alone() -> None:
    assert patched(OLD, "/new place", b"#!/bin/sh\ncd '/opt/env'\n") == b"#!/bin/sh\ncd '/new place'\n"
