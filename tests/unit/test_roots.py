"""Two roots in one content, plain and in URLs: found, checked, patched there and back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holo import digest as digests
from holo.catalog import Catalog, Relocation
from holo.errors import CatalogInvalid, RelocationImpossible
from holo.relocation.find import Opaque, RootsFinder, finder_of
from holo.relocation.patch import Relocator
from holo.relocation.roots import needles
from holo.spellings import spellings

PROJECT = "/home/ada/my+app é"
INSIDE = f"{PROJECT}/.venv"
OUTSIDE = "/home/ada/.venvs/app"
SIBLING = f"{PROJECT}-2"
NEW = "/home/ada/app-2"
PIECES = [form for root in (PROJECT, INSIDE, OUTSIDE, SIBLING, NEW) for form in spellings(root)]
PIECES += [b"/", b"\n", b" ", b":", b"'", b'"', b"file://", b"#!", b"/x", b"-old", b"\0", b"=", b"-L", b"\xff", b"%20"]
CONTENTS = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)
PREFIXES = st.sampled_from([INSIDE, OUTSIDE])


def found_in(content: bytes, prefix: str) -> Relocation | None:
    found = finder_of(needles([prefix, PROJECT]), content, bytecode=False).finish()
    return found if isinstance(found, Relocation) else None


def cut(content: bytes, size: int) -> Iterator[bytes]:
    yield from (content[at : at + size] for at in range(0, len(content), size))


def as_catalog(content: bytes, prefix: str, found: Relocation) -> Catalog:
    row = ("file", 0o644, len(content), 0, digests.of(content))
    return Catalog(prefix, [("", 0o755, 0, [row], [])], {"file": found}, [], {}, project=PROJECT)


@given(CONTENTS, PREFIXES, st.integers(1, 40))
@settings(max_examples=150, deadline=None)
@example(b"file://" + os.fsencode(INSIDE) + b"\n" + os.fsencode(PROJECT), INSIDE, 3)
def test_any_content_is_patched_there_and_back(content: bytes, prefix: str, size: int) -> None:
    found = found_in(content, prefix)
    finder = RootsFinder(needles([prefix, PROJECT]), bytecode=False)
    for piece in cut(content, size):
        finder.feed(piece)
    assert finder.finish() == finder_of(needles([prefix, PROJECT]), content, bytecode=False).finish()
    if found is None:
        return
    catalog = as_catalog(content, prefix, found)
    catalog.check()
    assert Catalog.from_json(catalog.to_json(), "c.json").relocations == catalog.relocations

    relocator = Relocator.of(catalog, f"{NEW}/env", NEW)
    relocator.check(cut(content, size), found, "file")
    at = found.offsets[-1] + 1
    with pytest.raises(CatalogInvalid):
        relocator.check(cut(content[:at] + b"?" + content[at + 1 :], size), found, "file")
    if not relocator.applies(found):
        return
    patched = b"".join(map(bytes, relocator.patch(lambda: [content], found, "file")))
    assert len(patched) == relocator.size(found, len(content))
    assert b"".join(map(bytes, relocator.undo(lambda: cut(patched, size), found))) == content
    regions = Relocator.of(catalog, prefix).regions(found)
    assert regions is not None  # nothing moves
    assert all(content[start:end] in PIECES for start, end in regions)


@given(CONTENTS, PREFIXES)
@settings(max_examples=100, deadline=None)
def test_the_longest_root_counts_and_a_sibling_is_none(content: bytes, prefix: str) -> None:
    found = found_in(content, prefix)
    if found is None:
        return
    forms = [form for root in (prefix, PROJECT) for form in spellings(root)]
    end = 0
    for offset, form in zip(found.offsets, found.forms or [0] * len(found.offsets), strict=True):
        assert offset >= end
        end = offset + len(forms[form])
        assert content[offset:end] == forms[form]
        if form >= 3 and prefix == INSIDE:  # the environment in the project is not a place in the project
            assert not any(
                content.startswith(own, offset) and content[offset + len(own) :][:1] in (b"", b"/", b"\n")
                for own in spellings(prefix)
            )
        if found.kind == "text":
            assert not content.startswith(b"-2", end)


def test_direct_urls_keep_their_spelling() -> None:
    pip, uv = spellings(PROJECT)[1:]
    content = b'{"url": "file://%b/x"}\n{"url": "file://%b"}\n' % (pip, uv)
    found = found_in(content, INSIDE)
    assert found is not None
    assert found.forms == [4, 5]
    relocator = Relocator(INSIDE, "/b/.venv", [(PROJECT, "/b+b ü")])
    new = spellings("/b+b ü")[1:]
    assert b"".join(map(bytes, relocator.patch(lambda: [content], found, "direct_url.json"))) == (
        b'{"url": "file://%b/x"}\n{"url": "file://%b"}\n' % new
    )


def test_what_names_the_project_moves_in_all_files_or_in_none() -> None:
    content = b"\x7fELF\0" + os.fsencode(PROJECT) + b"/x\0"
    program = found_in(content, INSIDE)
    assert program is not None
    assert program.kind == "binary"
    cache = program._replace(kind="data")
    archive = Relocation("opaque", [], [], [3])
    files = {"lib.so": program, "cache": cache, "db": archive, "text": Relocation("text", [0], [], [3])}
    longer, shorter = f"{PROJECT}-longer", "/b"
    with pytest.raises(RelocationImpossible, match=r"archives.*: cache, db, lib\.so$"):
        Relocator(INSIDE, f"{shorter}/.venv", [(PROJECT, longer)]).refuse_impossible(files)
    with pytest.raises(RelocationImpossible, match=r"no room for a longer path: db$"):
        Relocator(INSIDE, f"{shorter}/.venv", [(PROJECT, shorter)]).refuse_impossible(files)
    cached = {"a/.cache/x": cache, "a/.cache/y": archive}
    moved = Relocator(INSIDE, f"{shorter}/.venv", [(PROJECT, longer)])
    moved.refuse_impossible(cached)
    assert not any(map(moved.applies, cached.values()))
    (said,) = moved.left_alone(cached)
    assert said.startswith(f"{PROJECT} stays in data files")
    for stays in (PROJECT, None):
        relocator = Relocator(INSIDE, f"{shorter}/.venv", [(PROJECT, stays)])
        relocator.refuse_impossible(files)
        assert relocator.unmoved(files, []) == ([] if stays else ["cache", "db", "lib.so", "text"])


def test_a_program_that_names_the_tree_by_its_real_path_grows_as_little() -> None:
    content = b"\x7fELF\0/real/lib\0rest"
    found = finder_of(needles(["/a-link-to-it", "/real"]), content, bytecode=False).finish()
    assert isinstance(found, Relocation)
    relocator = Relocator("/a-link-to-it", "/b/longer", [("/real", "/b/longer")])
    with pytest.raises(RelocationImpossible, match=r"4 bytes longer than /real, .*: lib\.so$"):
        relocator.refuse_impossible({"lib.so": found})


def test_a_database_that_names_only_the_environment_does_not_name_the_project() -> None:
    database = b"SQLite format 3\0"
    roots = needles([INSIDE, PROJECT])
    assert finder_of(roots, database + os.fsencode(INSIDE), bytecode=False).finish() == Opaque(
        "a SQLite database", (0,)
    )
    assert finder_of(
        roots, database + os.fsencode(INSIDE) + b"\0" + os.fsencode(PROJECT), bytecode=False
    ).finish() == Opaque("a SQLite database", (0, 1))


@pytest.mark.parametrize(
    ("target", "space", "project", "moved"),
    [
        (f"{PROJECT}/packages/x", "/b/.venv", "/b", "/b/packages/x"),
        (f"{PROJECT}/packages/x", "/b/.venv", None, f"{PROJECT}/packages/x"),
        (f"{INSIDE}/bin/x", "/b/.venv", "/b", "/b/.venv/bin/x"),
        (f"{SIBLING}/x", "/b/.venv", "/b", f"{SIBLING}/x"),
        ("../../packages/x", "/b/.venv", "/b", "../../packages/x"),
        ("../../packages/x", "/elsewhere", "/b", "../../b/packages/x"),
        ("../../packages/x", "/elsewhere", None, "../../packages/x"),
        ("../../../x", "/elsewhere", "/b", "../../../x"),
        ("../bin/x", "/elsewhere", "/b", "../bin/x"),
    ],
)
def test_symlinks_follow_their_root(target: str, space: str, project: str | None, moved: str) -> None:
    assert Relocator(INSIDE, space, [(PROJECT, project)]).symlink(target, "@scope/x") == moved


@pytest.mark.parametrize("new", ["/b", "/with a blank", "/" + "x" * 300])
def test_a_script_of_the_projects_interpreter_starts(new: str) -> None:
    """It is no part of the tree, so it cannot be found relative to the script."""
    content = os.fsencode(f"#!{OUTSIDE}/bin/python {OUTSIDE}\nprint(1)\n")
    found = finder_of(needles(["/env", OUTSIDE]), content, bytecode=False).finish()
    assert isinstance(found, Relocation)
    patched = b"".join(map(bytes, Relocator("/env", "/env", [(OUTSIDE, new)]).patch(lambda: [content], found, "x.py")))
    assert found.ends == [content.index(b"\n")]
    assert patched.startswith(b"#!/b/" if new == "/b" else b"#!/bin/sh\n'''exec' \"%b/bin/python\" " % os.fsencode(new))
    assert os.fsencode(OUTSIDE) not in patched
