"""What differs between two trees, as values: files, and the packages that explain them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holo import digest as digests
from holo.answers.changes import Changes, FileChange, Installed, PackageChange, paired, source_of
from holo.answers.compare import compare
from holo.answers.tree import Tree
from holo.catalog import Catalog, DirectoryRow, Relocation
from holo.hololib import CatalogRef

SITE = "lib/python3.13/site-packages"
PLACES = "/home/ada/one/.venv", "/srv/a/much/longer/path/.venv"


class Memory:
    """Contents that are held here."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.read: list[bytes] = []

    def chunks(self, digest: str, size: int) -> Iterator[bytes]:
        content = self.held[digest]
        assert len(content) == size
        self.read.append(content)
        yield content

    def add(self, content: bytes) -> str:
        self.held[digest := digests.of(content)] = content
        return digest


def tree(files: dict[str, str | bytes], prefix: str = PLACES[0], links: dict[str, str] | None = None) -> Tree:
    """A tree of these files, some of which name its path."""
    memory = Memory()
    rows: dict[str, DirectoryRow] = {"": ("", 0o755, 0, [], [])}
    relocations = {}
    for path, text in sorted(files.items()):
        content = text.encode() if isinstance(text, str) else text
        folder, _, name = path.rpartition("/")
        parts = folder.split("/") if folder else []
        for end in range(1, len(parts) + 1):
            rows.setdefault("/".join(parts[:end]), ("/".join(parts[:end]), 0o755, 0, [], []))
        if name:
            rows[folder][3].append((name, 0o644, len(content), 0, memory.add(content)))
        if prefix.encode() in content:
            relocations[path] = Relocation("text", [content.index(prefix.encode())], [])
    for name, target in (links or {}).items():
        rows[""][4].append((name, target, 0))
    ref = CatalogRef("env", "0" * 64)
    return Tree(Catalog(prefix, [*rows.values()], relocations, [], {}, ref.digest), memory, prefix, ref)


def package(name: str, version: str, *files: str, prefix: str = PLACES[0]) -> dict[str, str | bytes]:
    """A package of Python with a module and a script, as its installer leaves it."""
    info = f"{SITE}/{name}-{version}.dist-info"
    module = f"{SITE}/{name}.py"
    listed = [f"{name}.py", f"../../../bin/{name}", f"{name}-{version}.dist-info/RECORD", *files]
    return {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/RECORD": "".join(f"{path},,\n" for path in listed),
        module: f"version = {version}\n",
        f"bin/{name}": f"#!{prefix}/bin/python\nimport {name}\n",
        f"{SITE}/__pycache__/{name}.cpython-313.pyc": version,
    }


def conda(name: str, version: str) -> dict[str, str | bytes]:
    files = [f"lib/{name}.so", *(path for path in package(name, version) if "bin/" not in path)]
    record = {"name": name, "version": version, "files": files}
    return {f"conda-meta/{name}-{version}-0.json": json.dumps(record), **dict.fromkeys(files, version)}


def node(path: str, version: str) -> dict[str, str | bytes]:
    manifest = {"name": path.rpartition("node_modules/")[2], "version": version}
    return {f"{path}/package.json": json.dumps(manifest), f"{path}/index.js": version}


def changes(before: Tree, after: Tree) -> Changes:
    found = compare(before, after, times=True)
    opposite = compare(after, before, times=True)
    assert [change.path for change in opposite.files] == [change.path for change in found.files]
    assert [(each.name, each.after, each.before) for each in opposite.packages] == [
        (each.name, each.before, each.after) for each in found.packages
    ]
    return found


def test_packages_come_first_and_explain_their_files() -> None:
    """The sentence of the docs, word for word."""
    same = package("rich", "14.0") | {f"{SITE}/rich.py": "as it was"}
    before = same | package("numpy", "2.4.6") | {"a": "1", "b": "1", "c": "1"}
    after = same | package("cowsay", "6.1") | {"a": "2", "b": "2", "c": "2"}
    found = changes(tree(before), tree(after))
    assert found.summary() == ["cowsay 6.1 added", "numpy 2.4.6 removed", "3 files edited"]
    assert {change.path for change in found.files if change.package is None} == {"a", "b", "c"}
    assert [change.files for change in found.packages] == [5, 5]


def test_an_update_is_one_change_also_in_another_python() -> None:
    found = changes(tree(package("rich", "13.0")), tree(package("rich", "14.0")))
    assert found.packages == (PackageChange("python", "rich", "13.0", "14.0", 6),)
    assert (found.summary(), found.bytecode) == (["rich 13.0 -> 14.0"], 0)
    moved = {path.replace("3.13", "3.14"): text for path, text in package("rich", "14.0").items()}
    assert changes(tree(package("rich", "14.0")), tree(moved)).packages == ()


def test_what_only_names_its_own_path_does_not_differ() -> None:
    one, other = (tree(package("rich", "14.0", prefix=place), place) for place in PLACES)
    assert changes(one, other).is_empty
    edited = package("rich", "14.0", prefix=PLACES[1]) | {"bin/rich": f"#!{PLACES[1]}/bin/python3\n"}
    assert changes(one, tree(edited, PLACES[1])).summary() == ["1 file edited"]
    links = [tree({}, place, {"in": f"{place}/x", "out": "/usr/bin/python"}) for place in PLACES]
    assert changes(*links).is_empty
    assert changes(links[0], tree({}, links={"in": "/elsewhere/x", "out": "/usr/bin/python"})).summary() == [
        "1 file edited"
    ]


def test_conda_describes_packages_of_python_twice() -> None:
    found = changes(tree(conda("numpy", "2.0")), tree(conda("numpy", "2.1")))
    assert [(change.kind, change.before, change.after) for change in found.packages] == [("conda", "2.0", "2.1")]
    assert all(change.package == "numpy" for change in found.files)


def test_of_several_versions_in_node_modules_the_place_decides() -> None:
    before = (
        node("node_modules/a", "1.0") | node("node_modules/b/node_modules/a", "2.0") | node("node_modules/b", "1.0")
    )
    after = before | node("node_modules/b/node_modules/a", "2.1") | node("node_modules/@x/y", "1.0")
    found = changes(tree(before), tree(after))
    assert found.summary() == ["@x/y 1.0 added", "a 2.0 -> 2.1"]
    assert {change.package for change in found.files} == {"@x/y", "a"}


def test_bytecode_is_only_counted() -> None:
    before = package("rich", "14.0")
    after = before | {f"{SITE}/__pycache__/rich.cpython-313.pyc": b"new", "new/__pycache__/b.cpython-313.pyc": b"new"}
    found = changes(tree(before), tree(after | {"new/b.py": ""}))
    assert (found.summary(), found.bytecode) == (["1 file added", "2 files of bytecode"], 2)
    assert source_of(f"{SITE}/__pycache__/rich.cpython-313.opt-1.pyc") == f"{SITE}/rich.py"
    assert source_of("__pycache__/a.cpython-313.pyc") == "a.py"


def test_directories_count_only_when_they_are_empty() -> None:
    found = changes(tree({}), tree({"full/a": "", "empty/": "", "outer/inner/": ""}))
    assert [change.path for change in found.files] == ["empty/", "full/a", "outer/inner/"]


def test_a_list_of_files_claims_nothing_outside() -> None:
    """RECORD is anybody's: it decides about names in its tree, and nothing else."""
    hostile = package("evil", "1.0", "/etc/passwd", "../../../../../../etc/passwd", '"', "a" * 9000)
    found = changes(tree({"a": "1"}), tree(hostile | {"a": "2"}))
    assert found.summary() == ["evil 1.0 added", "1 file edited"]


def test_nothing_is_read_when_nothing_differs() -> None:
    one, other = tree(package("rich", "14.0")), tree(package("rich", "14.0") | {"new": ""})
    assert changes(one, one).is_empty
    changes(one, other)
    for each in (one, other):
        assert isinstance(each.contents, Memory)
        assert each.contents.read == []


VERSIONS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "2"]), st.integers(0, 2)), max_size=8)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=VERSIONS, after=VERSIONS)
def test_pairing_loses_and_invents_nothing(
    before: list[tuple[str, str, int]], after: list[tuple[str, str, int]]
) -> None:
    sides = [
        [Installed("node", name, version, f"{place}/package.json") for name, version, place in side]
        for side in (before, after)
    ]
    pairs = paired(*sides)
    for number, side in enumerate(sides):
        left = [*side]
        for pair in pairs:
            if pair[number] is not None:
                left.remove(pair[number])
        shown = sorted((*package.key, package.version) for package in left)
        if number == 0:
            unchanged = shown
    assert shown == unchanged
    assert all(old is None or new is None or (old.key == new.key and old.version != new.version) for old, new in pairs)


def test_a_directory_is_no_file() -> None:
    changed = (FileChange("bin/", "mode", None), FileChange("bin/x", "mode", None), FileChange("empty/", "added", None))
    assert Changes((), changed, 0).summary() == [
        "1 file with other rights",
        "1 directory added",
        "1 directory with other rights",
    ]
