"""Plans as values: from what is there and what should be, exactly what to do. No file is touched here."""

from __future__ import annotations

import pytest

from holo import digest as digests
from holo.catalog import Catalog, DirectoryRow, FileRow, Relocation
from holo.checkout.plan import Fill, Plan, Removal, plan
from holo.checkout.strategy import Method
from holo.checkout.survey import Finding, Survey, survey_of_empty
from holo.checkout.tasks import cut
from holo.relocation.patch import Relocator

PREFIX, ELSEWHERE, LONGER = "/opt/env", "/srv/new", "/a/longer/place"


def file(name: str, content: bytes = b"content", mode: int = 0o644, mtime: int = 5) -> FileRow:
    return (name, mode, len(content), mtime, digests.of(content))


ROOT: DirectoryRow = ("", 0o755, 1, [file("hello"), file("run", b"#!/opt/env/bin/x")], [("link", "/opt/env/bin", 9)])
BIN: DirectoryRow = ("bin", 0o700, 2, [file("x", b"x", 0o755), file("y", b"y")], [])
DEEP: DirectoryRow = ("bin/deep", 0o555, 3, [file("leaf")], [("up", "../x", 8)])
EMPTY: DirectoryRow = ("empty", 0o711, 4, [], [])
TREE = [ROOT, BIN, DEEP, EMPTY]
SOME = {"run": Relocation("text", [2], [16])}


def catalog(
    relocations: dict[str, Relocation] | None = None,
    hardlinks: list[list[str]] | None = None,
    xattrs: dict[str, dict[str, bytes]] | None = None,
    directories: list[DirectoryRow] | None = None,
) -> Catalog:
    return Catalog(PREFIX, directories or TREE, relocations or {}, hardlinks or [], xattrs or {})


def planned(
    what: Catalog,
    *findings: Finding,
    inodes: dict[str, int] | None = None,
    used: Method = Method.REFLINK,
    to: str = PREFIX,
) -> Plan:
    survey = Survey(list(findings), inodes or {})
    return plan(what, survey, Relocator(PREFIX, to), used)


def steps(
    removals: list[Removal],
    directories: list[str],
    fills: list[Fill],
    relinks: list[tuple[str, list[str]]],
    private: dict[str, str],
    unchanged: int,
) -> Plan:
    """A plan in which every file that is linked to is as :func:`file` makes one."""
    leaders = {path: file(path.rpartition("/")[2]) for path, _ in relinks}
    return Plan(removals, directories, fills, relinks, leaders, private, unchanged)


def fill(row: DirectoryRow, files: list[FileRow] | None = None, link_to: str | None = None) -> Fill:
    """Everything in a directory, or just these files; `link_to`: where its symlinks lead."""
    path, mode, mtime, all_files, links = row
    if files is not None:
        return Fill(path, files, [], mode, mtime)
    return Fill(path, all_files, [(name, link_to or target, time) for name, target, time in links], mode, mtime)


# -- nothing, or everything, is there ---------------------------------------------------------------------


@pytest.mark.parametrize("used", [Method.REFLINK, Method.HARDLINK, Method.COPY])
def test_empty_place_is_filled(used: Method) -> None:
    what = catalog(SOME)
    made = plan(what, survey_of_empty(what), Relocator(PREFIX, ELSEWHERE), used)
    assert made == steps(
        removals=[],
        directories=["bin", "bin/deep", "empty"],
        fills=[fill(ROOT, link_to="/srv/new/bin"), fill(BIN), fill(DEEP), fill(EMPTY)],
        relinks=[],
        private={"run": "relocated"},
        unchanged=0,
    )
    assert not made.is_empty


@pytest.mark.parametrize("used", [Method.REFLINK, Method.HARDLINK, Method.COPY])
def test_pristine_tree_needs_nothing(used: Method) -> None:
    made = planned(catalog(SOME), used=used)
    assert made == steps([], [], [], [], {"run": "relocated"}, unchanged=5)
    assert made.is_empty


def test_an_empty_catalog() -> None:
    what = catalog(directories=[("", 0o755, 1, [], [])])
    assert planned(what) == steps([], [], [], [], {}, 0)
    made = plan(what, survey_of_empty(what), Relocator(PREFIX, ELSEWHERE), Method.COPY)
    assert made == steps([], [], [Fill("", [], [], 0o755, 1)], [], {}, 0)


# -- some of it differs -----------------------------------------------------------------------------------

NO_CHANGE = [fill(ROOT, [])]
"""The root is always the last thing changed: its ctime is the space's stamp."""


def test_one_file_is_missing() -> None:
    made = planned(catalog(), Finding("bin", files=[BIN[3][0]]))
    assert made == steps([], [], [*NO_CHANGE, fill(BIN, [BIN[3][0]])], [], {}, unchanged=4)


def test_one_file_differs() -> None:
    made = planned(catalog(), Finding("bin/deep", replace=["leaf"], files=DEEP[3]))
    assert made == steps(
        [Removal("bin/deep", [], ["leaf"])], [], [*NO_CHANGE, fill(DEEP, DEEP[3])], [], {}, unchanged=4
    )


def test_something_is_there_that_should_not_be() -> None:
    made = planned(catalog(), Finding("bin", extra=["stray", "dir"]))
    assert made == steps([Removal("bin", ["stray", "dir"], [])], [], [*NO_CHANGE, fill(BIN, [])], [], {}, unchanged=5)


def test_only_a_directorys_mode_differs() -> None:
    made = planned(catalog(), Finding("empty", attributes=True))
    assert made == steps([], [], [*NO_CHANGE, fill(EMPTY, [])], [], {}, unchanged=5)
    assert not made.is_empty


def test_a_symlink_differs() -> None:
    made = planned(catalog(), Finding("", replace=["link"], symlinks=ROOT[4]), to=ELSEWHERE)
    links = [("link", "/srv/new/bin", 9)]
    assert made == steps([Removal("", [], ["link"])], [], [Fill("", [], links, 0o755, 1)], [], {}, unchanged=5)


def test_a_directory_is_missing_with_all_below_it() -> None:
    """Its parent changes too, when the directory is made in it."""
    made = planned(
        catalog(),
        Finding("bin/deep", missing=True, files=DEEP[3], symlinks=DEEP[4]),
    )
    assert made == steps([], ["bin/deep"], [*NO_CHANGE, fill(BIN, []), fill(DEEP)], [], {}, unchanged=4)


def test_a_file_is_where_a_directory_should_be() -> None:
    made = planned(
        catalog(),
        Finding("", replace=["bin"]),
        Finding("bin", missing=True, files=BIN[3]),
        Finding("bin/deep", missing=True, files=DEEP[3], symlinks=DEEP[4]),
    )
    assert made == steps(
        removals=[Removal("", [], ["bin"])],
        directories=["bin", "bin/deep"],
        fills=[fill(ROOT, []), fill(BIN), fill(DEEP)],
        relinks=[],
        private={},
        unchanged=2,
    )


def test_a_directory_is_where_a_file_should_be() -> None:
    made = planned(catalog(), Finding("", replace=["hello"], files=[ROOT[3][0]]))
    assert made == steps([Removal("", [], ["hello"])], [], [fill(ROOT, [ROOT[3][0]])], [], {}, unchanged=4)


def test_a_file_and_a_directory_changed_places() -> None:
    made = planned(
        catalog(),
        Finding("", replace=["hello", "empty"], files=[ROOT[3][0]]),
        Finding("empty", missing=True),
    )
    assert made == steps(
        [Removal("", [], ["hello", "empty"])], ["empty"], [fill(ROOT, [ROOT[3][0]]), fill(EMPTY)], [], {}, unchanged=4
    )


def test_a_directory_that_cannot_be_read_is_made_anew() -> None:
    made = planned(
        catalog(),
        Finding("bin", missing=True, unreadable=True, files=BIN[3]),
        Finding("bin/deep", missing=True, unreadable=True, files=DEEP[3], symlinks=DEEP[4]),
    )
    assert made.removals == [Removal("", [], ["bin"])]
    assert made.directories == ["bin", "bin/deep"]
    assert made.fills == [fill(ROOT, []), fill(BIN), fill(DEEP)]
    assert made.unchanged == 2


def test_removals_come_from_several_directories() -> None:
    made = planned(catalog(), Finding("", extra=["a"]), Finding("bin", extra=["b"], replace=["x"], files=[BIN[3][0]]))
    assert made.removals == [Removal("", ["a"], []), Removal("bin", ["b"], ["x"])]
    assert [item.path for item in made.fills] == ["", "bin"]


# -- private files ----------------------------------------------------------------------------------------


def test_private_files_are_not_shared() -> None:
    relocations = {
        "run": SOME["run"],
        "bin/x": Relocation("binary", [0], [1]),
        "hello": Relocation("bytecode", [], []),
        "data": Relocation("data", [0], [1]),
    }
    xattrs = {"bin/y": {"user.a": b""}, "run": {"user.a": b""}}
    what = catalog(relocations, xattrs=xattrs)
    patched = {"run": "relocated", "bin/x": "relocated", "bin/y": "xattrs", "hello": "relocated"}
    assert planned(what, to=ELSEWHERE).private == {**patched, "data": "relocated"}
    assert planned(what, to=LONGER).private == patched, "data without room is not patched, so it is shared"


def test_a_relocated_file_is_made_like_any_other() -> None:
    made = planned(catalog(SOME), Finding("", files=[ROOT[3][1]]), to=LONGER)
    assert made == steps([], [], [fill(ROOT, [ROOT[3][1]])], [], {"run": "relocated"}, unchanged=4)


@pytest.mark.parametrize(
    ("target", "moved"),
    [("/opt/env", "/srv/new"), ("/opt/env/x", "/srv/new/x"), ("/opt/env-x", None), ("x", None), ("/etc", None)],
)
def test_symlinks_are_planned_with_the_target_they_get(target: str, moved: str | None) -> None:
    what = catalog(directories=[("", 0o755, 1, [], [("l", target, 7)])])
    made = plan(what, survey_of_empty(what), Relocator(PREFIX, ELSEWHERE), Method.COPY)
    assert made.fills == [Fill("", [], [("l", moved or target, 7)], 0o755, 1)]


# -- hardlinks --------------------------------------------------------------------------------------------

ONE, TWO, THREE = file("one"), file("two"), file("three")
LINKED: list[DirectoryRow] = [("", 0o755, 1, [ONE, file("other", b"other")], []), ("sub", 0o755, 2, [TWO, THREE], [])]
GROUP = ["one", "sub/three", "sub/two"]
LINKED_ROOT, LINKED_SUB = (Fill(path, [], [], mode, mtime) for path, mode, mtime, _, _ in LINKED)


def linked(relocations: dict[str, Relocation] | None = None) -> Catalog:
    return catalog(relocations, [GROUP], directories=LINKED)


@pytest.mark.parametrize("used", [Method.REFLINK, Method.COPY])
def test_hardlinks_are_made_once_and_linked(used: Method) -> None:
    what = linked()
    made = plan(what, survey_of_empty(what), Relocator(PREFIX, PREFIX), used)
    assert made.fills == [Fill("", LINKED[0][3], [], 0o755, 1), LINKED_SUB]
    assert made.relinks == [("one", ["sub/three", "sub/two"])]
    assert made.removals == []
    assert made.unchanged == 0


def test_hardlinks_that_are_together_stay() -> None:
    made = planned(linked(), inodes={"one": 7, "sub/two": 7, "sub/three": 7})
    assert made == steps([], [], [], [], {}, unchanged=4)


def test_a_hardlink_astray_is_linked_again() -> None:
    """It is as recorded in all but its inode."""
    made = planned(linked(), inodes={"one": 7, "sub/two": 8, "sub/three": 7})
    assert made == steps(
        removals=[Removal("sub", [], ["two"])],
        directories=[],
        fills=[LINKED_ROOT, LINKED_SUB],
        relinks=[("one", ["sub/two"])],
        private={},
        unchanged=3,
    )


def test_all_hardlinks_astray() -> None:
    made = planned(linked(), inodes={"one": 7, "sub/two": 8, "sub/three": 9})
    assert made.relinks == [("one", ["sub/three", "sub/two"])]
    assert made.removals == [Removal("sub", [], ["three"]), Removal("sub", [], ["two"])]
    assert made.unchanged == 2


def test_a_missing_hardlink_is_linked_to_one_that_is_there() -> None:
    made = planned(linked(), Finding("", files=[ONE]), inodes={"sub/two": 7, "sub/three": 7})
    assert made == steps([], [], [LINKED_ROOT], [("sub/three", ["one"])], {}, unchanged=3)


def test_a_missing_and_a_stray_hardlink() -> None:
    made = planned(linked(), Finding("", replace=["one"], files=[ONE]), inodes={"sub/two": 7, "sub/three": 8})
    assert made.relinks == [("sub/three", ["one", "sub/two"])]
    assert made.removals == [Removal("", [], ["one"]), Removal("sub", [], ["two"])]
    assert made.fills == [LINKED_ROOT, LINKED_SUB]
    assert made.unchanged == 2


def test_by_hardlink_they_are_links_of_one_shared_file_anyway() -> None:
    what = linked()
    made = plan(what, survey_of_empty(what), Relocator(PREFIX, PREFIX), Method.HARDLINK)
    assert made.relinks == []
    assert made.fills == [Fill(path, files, [], mode, mtime) for path, mode, mtime, files, _ in LINKED]
    assert planned(linked(), used=Method.HARDLINK).is_empty


def test_by_hardlink_relocated_ones_are_still_linked_to_each_other() -> None:
    what = linked(dict.fromkeys(GROUP, Relocation("text", [0], [])))
    made = plan(what, survey_of_empty(what), Relocator(PREFIX, ELSEWHERE), Method.HARDLINK)
    assert made.relinks == [("one", ["sub/three", "sub/two"])]
    assert made.fills == [Fill("", LINKED[0][3], [], 0o755, 1), LINKED_SUB]
    assert made.private == dict.fromkeys(GROUP, "relocated")


def test_two_groups_do_not_mix() -> None:
    rows = [file(name) for name in ("a", "b", "c", "d")]
    what = catalog(hardlinks=[["a", "b"], ["c", "d"]], directories=[("", 0o755, 1, rows, [])])
    made = planned(what, Finding("", files=[rows[1]]), inodes={"a": 1, "c": 2, "d": 3})
    assert made.relinks == [("a", ["b"]), ("c", ["d"])]
    assert made.removals == [Removal("", [], ["d"])]
    assert made.unchanged == 2


def test_a_directory_that_gets_a_link_is_made_after_those_above_it() -> None:
    """They are made before all tasks, so none of them may be left to a task."""
    rows: list[DirectoryRow] = [
        ("", 0o755, 1, [], []),
        ("a", 0o755, 1, [file("leader")], []),
        ("b", 0o755, 1, [file("own")], []),
        ("b/c", 0o755, 1, [file("own")], []),
        ("b/c/d", 0o755, 1, [file("link", b"content")], []),
    ]
    what = catalog(hardlinks=[["a/leader", "b/c/d/link"]], directories=rows)
    made = plan(what, survey_of_empty(what), Relocator(PREFIX, PREFIX), Method.COPY)
    tasks = cut(made, 2, copies=True)
    assert tasks.first == ["b", "b/c", "b/c/d"]
    assert [(piece.path, piece.make) for task in tasks.parallel for piece in task if piece.make] == [("a", True)]


# -- as JSON ----------------------------------------------------------------------------------------------


def test_the_printed_plan() -> None:
    what = catalog(SOME, directories=[*TREE[:3], ("empty", 0o711, 4, [file("one"), file("two")], [])])
    what.hardlinks = [["empty/one", "empty/two"]]
    made = planned(
        what,
        Finding("", extra=["stray"], replace=["run", "link"], files=[ROOT[3][1]], symlinks=ROOT[4]),
        Finding("bin/deep", missing=True, files=DEEP[3], symlinks=DEEP[4]),
        Finding("empty", files=[file("two")]),
        inodes={"empty/one": 3},
        to=ELSEWHERE,
    )
    assert made.to_json(Method.REFLINK) == {
        "remove": ["stray"],
        "directories": ["bin/deep"],
        "files": [
            {"path": "run", "how": "relocated"},
            {"path": "bin/deep/leaf", "how": "reflink"},
            {"path": "empty/two", "how": "link"},
        ],
        "symlinks": ["link", "bin/deep/up"],
        "unchanged": 4,
    }


def test_planning_is_deterministic() -> None:
    what = linked(dict.fromkeys(GROUP, Relocation("text", [0], [])))
    findings = [Finding("", files=[ONE], extra=["x"]), Finding("sub", missing=True, files=[TWO, THREE])]
    assert planned(what, *findings) == planned(what, *findings)
    assert findings == [Finding("", files=[ONE], extra=["x"]), Finding("sub", missing=True, files=[TWO, THREE])]
