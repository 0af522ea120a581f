"""Where spaces may be beside each other: none in another, and of thousands of records few have to be read for that."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from holo import Hololib
from holo.errors import Conflict
from holo.hololib import CatalogRef
from holo.holotree import Holotree
from holo.home import Home
from holo.restore import Carrier, Options
from holo.restore.job import Job, read_job
from holo.restore.place import Target
from holo.space import Space, decode
from support import trees
from support.filesystems import Filesystem

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def library(filesystem: Filesystem) -> Hololib:
    """With a catalog `env`, and spaces of it in many places."""
    library = Hololib(filesystem.root / "home")
    library.record(trees.small(filesystem.root / "source"), "env")
    return library


def compared(tree: Holotree, path: str) -> list[Space]:
    """The spaces that overlap a path, each compared by the real paths."""
    real = os.path.realpath(path)
    spaces = {space: os.path.realpath(space.path) for space in tree.spaces()}
    return [space for space, theirs in spaces.items() if os.path.commonpath([real, theirs]) in (real, theirs)]


@local
def test_only_the_records_of_spaces_nearby_are_read(
    library: Hololib, filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = filesystem.root
    (root / "linked").symlink_to(root / "real")
    (root / "real").mkdir()
    for name in ("default", "damaged"):
        library.init(name, "env")
    places = {"outside": "a/outside", "linked": "linked/space", "odd": "bäck\\slash", "gone": "gone/space"}
    for name, place in {**places, "replaced": "replaced"}.items():
        library.init(name, "env", to=root / place)
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "replaced")
    (root / "replaced").symlink_to(root / "real/space/lib")
    tree = library.home.spaces
    Path(tree.record_path("damaged")).write_bytes(b"{")
    read: list[str] = []

    def told(data: bytes, name: str) -> Space | None:
        read.append(name)
        return decode(data, name)

    monkeypatch.setattr("holo.holotree.decode", told)
    near = {
        root / "new": [],
        root / "a/outside": ["outside"],
        root / "a/outside/in": ["outside"],
        root / "a": ["outside"],
        root / "a/outsid": [],
        root / "real/space": ["linked", "replaced"],
        root / "linked/space/lib": ["linked", "replaced"],
        root / "gone": ["gone"],
        root / "gone/space/lib": ["gone"],
        root / "bäck\\slash/new": ["odd"],
        Path(tree.default_path("default")) / "in": ["default"],
        Path(tree.default_path("damaged")) / "in": ["damaged"],
    }
    for path, names in near.items():
        expected = compared(tree, str(path))
        assert [space.name for space in expected] == names
        read.clear()
        assert tree.overlapping(str(path)) == expected
        if not path.is_relative_to(tree.path):
            assert {*read} == {*names, "damaged"}
        around = {space.name for space in tree.overlapping(str(path), inside=False)}
        real = Path(os.path.realpath(path))
        assert around == {each.name for each in expected if real.is_relative_to(os.path.realpath(each.path))}
        at = tree.at(str(path))
        assert at == next((each for each in expected if os.path.realpath(each.path) == str(real)), None)


@local
@pytest.mark.parametrize(("mine", "theirs"), [("space", "space"), ("space", "space/in"), ("space/in", "space")])
def test_of_two_that_begin_at_once_one_goes(
    library: Hololib, filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, mine: str, theirs: str
) -> None:
    others = Hololib(library.home.library.home)

    def meanwhile(home: Home, target: Target, catalog: CatalogRef, carrier: Carrier | None, options: Options) -> Job:
        monkeypatch.undo()
        others.init("theirs", "env", to=filesystem.root / theirs)
        return read_job(home, target, catalog, carrier, options)

    monkeypatch.setattr("holo.restore.read_job", meanwhile)
    with pytest.raises(Conflict, match="is space 'theirs' already" if mine == theirs else "lie inside each other"):
        library.init("mine", "env", to=filesystem.root / mine)
    assert [space.name for space in library.spaces()] == ["theirs"]
    assert library.status("theirs").state == "pristine"
    library.init("mine", "env", to=filesystem.root / "elsewhere")


@local
def test_one_that_was_killed_before_it_knew_is_not_ended(library: Hololib, filesystem: Filesystem) -> None:
    library.init("outer", "env", to=filesystem.root / "space")
    library.init("inner", "env", to=filesystem.root / "other")
    inner = filesystem.root / "space/inner"
    space = library.space("inner")
    library.home.spaces.save(space._replace(path=str(inner), made_for=str(inner), state="restoring"))
    with pytest.raises(Conflict, match="lie inside each other"):
        library.restore("inner")
    library.delete("inner")
    assert library.status("outer").state == "pristine"
