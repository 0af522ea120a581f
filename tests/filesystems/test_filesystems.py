"""Filesystems as they are: layers that rename nothing, swap files, too many names, what a user may not do."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holo.trees.held import is_whole
from holo.trees.outline import read_outline
from holo.trees.overlay import Layers
from support import compare, fiemap, records, trees
from support.cli import Holo
from support.disks import Disk
from support.faults import Supervisor
from support.filesystems import Filesystem, Mounts, unmount
from support.forks import Forks, User

ADA = User(1001)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts, swaps, and can be another user")


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("filesystem", names, indirect=True)


def only_space(holo: Holo, name: str = "s") -> Path:
    return Path(records.read(holo.holotree / f".spaces/{name}.json")["path"])


# ---------------------------------------------------------------- layers, as in a container


@contextmanager
def in_a_lower_layer(root: Path, mounts: Mounts) -> Iterator[None]:
    """What is in a folder now lies in a lower layer of overlayfs at the same path."""
    changes = mounts.get("tmpfs") / f"layer-{os.urandom(4).hex()}"
    upper, work = changes / "upper", changes / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    options = f"lowerdir={root},upperdir={upper},workdir={work},redirect_dir=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
    try:
        yield
    finally:
        unmount(root)
        subprocess.run(["rm", "-rf", changes], check=True)


@pytest.fixture
def layered(holo: Holo) -> Holo:
    """A home with all that holo derives: a golden tree (Btrfs), and the tree and layer of a throw-away environment.

    Every content is compressed, where that is done: no stub leads to it.
    """
    source = holo.root / "source"
    trees.write(source / "bin" / "hello", f"echo hello from {source}\n" * 1000, mode=0o755)
    trees.write(source / "lib" / "deep" / "other.txt", "other\n" * 5000)
    holo("record", trees.settle(source), "--name", "app")
    holo("init", "--space", "s", "app")
    holo("run", "--ephemeral", "--space", "s", "--", "true")
    return holo


REMOVING = ("unlinkat", "renameat", "mkdirat")
"""Of trees. What they are locked and known by goes by `unlink`."""


def derived(holo: Holo) -> list[Path]:
    layers = Layers(str(holo.holotree))
    folders = [Path(layers.trees), Path(layers.layers), holo.library / "golden"]
    return [path for folder in folders if folder.exists() for path in folder.iterdir() if path.name != ".lock"]


@on("ext4")
def test_stubs_in_a_lower_layer_keep_nothing_from_being_removed(holo: Holo, mounts: Mounts) -> None:
    """They cannot be removed there, nor even be looked at; they take no room, and nothing else is kept by them."""
    holo("record", trees.small(holo.root / "source"), "--name", "app")
    holo("run", "--ephemeral", "--catalog", "app", "--", "true")
    assert [*Path(Layers(str(holo.holotree)).stubs).iterdir()] != []
    with in_a_lower_layer(holo.root, mounts):
        holo("gc")
        holo("catalogs", "--remove", "app")
        holo("gc")
        assert not any((holo.library / "library").glob("??/*"))
        holo("check")


def test_what_lies_in_a_lower_layer_is_removed(layered: Holo, mounts: Mounts) -> None:
    """A directory there cannot be renamed (EXDEV), only removed."""
    assert len(derived(layered)) >= 2
    with in_a_lower_layer(layered.root, mounts):
        layered("gc")
        layered("catalogs", "--remove", "app")
        layered("gc")
        assert derived(layered) == []
        layered("record", layered.root / "source", "--name", "again")
        layered("check")


@on("btrfs", "ext4")
@pytest.mark.parametrize("arguments", [("gc",), ("catalogs", "--remove", "app")], ids="-".join)
def test_half_of_what_lies_in_a_lower_layer_counts_as_nothing(
    layered: Holo, mounts: Mounts, supervisor: Supervisor, arguments: tuple[str, ...]
) -> None:
    """Killed at any moment of the removal."""
    root, environment = layered.root, layered.environment()
    whole = [(path, contents(path)) for path in derived(layered) if path.is_dir()]
    number = 0
    is_killed = True
    while is_killed:
        number += 1
        with in_a_lower_layer(root, mounts):
            killed = supervisor.run(root, arguments, environment, at=number, kill="group", only=REMOVING)
            is_killed = killed.code != 0
            for path, content in whole:
                assert not counts(path) or contents(path) == content, (killed.calls[-1], path)
            supervisor.run(root, arguments, environment)
            assert supervisor.run(root, ("gc",), environment).code == 0
            assert any((layered.library / "catalog").iterdir()) or derived(layered) == []
    assert number > 8


def counts(path: Path) -> bool:
    """Whether holo would take a derived tree for whole."""
    if path.parent.name != "golden":
        return is_whole(str(path))
    try:
        read_outline(f"{path}.json", path.name)
    except OSError:
        return False
    return path.exists()


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# ---------------------------------------------------------------- swap files


@contextmanager
def swapping(file: Path) -> Iterator[None]:
    """While the kernel swaps to a file, nobody may clone it, nor copy it in the kernel, nor snapshot what it is in."""
    file.touch()
    subprocess.run(["chattr", "+C", file], check=False, capture_output=True)  # as Btrfs wants it
    file.write_bytes(os.urandom(8 << 20))
    file.chmod(0o600)
    subprocess.run(["mkswap", file], check=True, capture_output=True)
    done = subprocess.run(["swapon", file], check=False, capture_output=True, text=True)
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"a file must be good for swapping in CI: {done.stderr}")
        pytest.skip(done.stderr)
    try:
        yield
    finally:
        subprocess.run(["swapoff", file], check=True)


@on("btrfs", "xfs", "ext4")
@pytest.mark.parametrize("name", ["a-swap-file", "the-swap-file"], ids=["first", "last"])
def test_a_swap_file_in_use_is_copied(filesystem: Filesystem, holo: Holo, name: str) -> None:
    """Whatever of it cannot be shared, the others can."""
    source = filesystem.root / "source"
    if filesystem.name == "btrfs":
        subprocess.run(["btrfs", "subvolume", "create", source], check=True, capture_output=True)
    trees.small(source)
    with swapping(source / name):
        report = holo("clone", source, filesystem.root / "clone", "--json").json()
        holo("clone", "--relocate", source, filesystem.root / "clone-moved")
        holo("record", source, "--name", "app")
        holo("init", "--space", "s", "app")
        assert compare.differences(source, filesystem.root / "clone", new=source) == []
        assert compare.differences(source, filesystem.root / "clone-moved") == []
        assert compare.differences(source, only_space(holo)) == []
    if filesystem.reflinks:
        assert report["files"]["copied"] == 1
        assert report["files"]["reflinked"] == 4
        assert fiemap.is_shared(filesystem.root / "clone" / "lib" / "data.txt")


# ---------------------------------------------------------------- more names than a file can have


def with_names(source: Path, count: int) -> Path:
    """A tree with so many names of one file, half of them in each of two directories."""
    for folder in ("a", "b"):
        (source / folder).mkdir(parents=True)
    first = trees.write(source / "a" / "000000", "one file\n")
    for number in range(1, count):
        os.link(first, source / "ab"[number * 2 // count] / f"{number:06}")
    return trees.settle(source)


def names_of_files(tree: Path) -> list[int]:
    """Per file, how many names it has in the tree; it has no others."""
    found = Counter((status.st_ino, status.st_nlink) for status in map(os.lstat, tree.glob("?/*")))
    assert all(count == links for (_, links), count in found.items())
    return sorted(found.values())


@on("ext4")
def test_a_file_may_have_more_names_than_ext4_allows(holo: Holo, mounts: Mounts) -> None:
    """EXT4_LINK_MAX"""
    source = mounts.get("tmpfs") / f"names-{os.urandom(4).hex()}"
    try:
        holo("record", with_names(source, 65_100), "--name", "app")
    finally:
        subprocess.run(["rm", "-rf", source], check=True)
    holo("init", "--space", "s", "app")
    assert names_of_files(only_space(holo)) == [100, 65_000]
    again = holo("restore", "--space", "s", "--json").json()
    assert again["files"]["unchanged"] == 65_100


NAMES = 2600
"""Of one file, on a filesystem that allows some thousand in a directory."""


@pytest.fixture
def few_names(tmp_path: Path) -> Iterator[Holo]:
    """A home on a Btrfs that has no extended inode references, as none had before Linux 3.7."""
    disk = Disk("btrfs", tmp_path, 512 << 20, ("-O", "^extref"))
    try:
        yield Holo(disk.mount())
    finally:
        disk.unmount()


@pytest.mark.parametrize("strategy", ["smart", "copy"])
def test_a_file_with_too_many_names_is_divided(few_names: Holo, tmp_path: Path, strategy: str) -> None:
    holo = few_names
    holo("record", with_names(tmp_path / "source", NAMES), "--name", "app")
    for space in ("s", "t"):
        said = holo("init", "--space", space, "app", "--strategy", strategy).stderr
        assert f"a/000000 and the other {NAMES - 1:,} names of one file are those of several now" in said
        divided = names_of_files(only_space(holo, space))
        assert len(divided) == 3
        assert sum(divided) == NAMES
    for more in ((), ("--verify",)):
        again = holo("restore", "--space", "s", "--json", *more)
        assert again.json()["files"]["unchanged"] == NAMES
        assert again.stderr == ""
    holo("check", "--space", "s")


@pytest.mark.parametrize("broken", [0, 1200])
def test_only_the_filesystem_is_a_reason_to_divide(few_names: Holo, tmp_path: Path, broken: int) -> None:
    """A name that a program made another file of is one of the same again."""
    holo = few_names
    holo("record", with_names(tmp_path / "source", NAMES), "--name", "app")
    holo("init", "--space", "s", "app")
    divided = names_of_files(only_space(holo))
    name = next(only_space(holo).glob(f"?/{broken:06}"))
    trees.write(name.with_name("twin"), name.read_bytes()).replace(name)
    holo("check", "--space", "s", code=3)
    holo("restore", "--space", "s")
    assert names_of_files(only_space(holo)) == divided
    holo("check", "--space", "s")


def test_a_clone_divides_a_file_with_too_many_names(few_names: Holo, tmp_path: Path) -> None:
    for size in (100, 100_000):  # small, or so large that it is copied in the end
        source, target = tmp_path / f"source-{size}", few_names.root / f"clone-{size}"
        with_names(source, NAMES)
        (source / "a" / "000000").write_bytes(b"x" * size)
        trees.write(source / "c" / "other", "a file of its own")
        made = few_names("clone", source, target, "--json").json()
        assert ["names of one file" in warning for warning in made["warnings"]] == [True, True]
        assert {path.name: path.stat().st_size for path in target.glob("[ab]/*")} == {
            path.name: size for path in source.glob("[ab]/*")
        }
        assert len(names_of_files(target)) == 4
        assert not [*target.rglob(".holo-*")]


def test_a_link_form_with_all_its_names_gets_a_successor(few_names: Holo, tmp_path: Path) -> None:
    """Or each further name would be a copy of its own, that is hashed at every restore."""
    few_names("record", with_names(tmp_path / "source", NAMES), "--name", "app")
    made = few_names("init", "--space", "s", "app", "--strategy", "hardlink", "--json").json()
    assert made["files"]["hardlinked"] == NAMES
    files = {os.lstat(path).st_ino for path in only_space(few_names).glob("?/*")}
    assert 3 <= len(files) <= 6, "each worker may make one when it meets a full one"
    few_names("check", "--space", "s")


# ---------------------------------------------------------------- what an ordinary user may not do


@pytest.fixture
def ada(filesystem: Filesystem, forks: Forks, holo: Holo) -> Ada:
    """An ordinary user, with a home of her own."""
    folder = filesystem.root / "ada"
    folder.mkdir()
    for above in folder.parents:
        above.chmod(above.stat().st_mode | 0o011)
    os.chown(folder, ADA.uid, ADA.uid)
    return Ada(folder, forks, holo.settings)


class Ada:
    def __init__(self, folder: Path, forks: Forks, settings: Path) -> None:
        self.folder = folder
        self._forks = forks
        self._environment = {
            "HOLO_HOME": str(folder / "home"),
            "HOLO_SETTINGS": str(settings),
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
        }

    def __call__(self, *arguments: str | Path, code: int = 0) -> Any:
        self.stderr = ""
        result = self._forks(*arguments, "--json", env=self._environment, user=ADA, code=code)
        self.stderr = result.stderr
        return result.json()

    def space(self) -> Path:
        return Path(records.read(self.folder / "home/holotree/.spaces/s.json")["path"])


def test_capabilities_that_a_user_may_not_give_are_said_and_no_damage(filesystem: Filesystem, ada: Ada) -> None:
    source = trees.small(filesystem.root / "source")
    program = source / "bin" / "hello"
    # struct vfs_cap_data, revision 2: cap_net_raw, permitted and effective
    os.setxattr(program, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    ada("record", source, "--name", "app")
    for space in ("s", "t"):  # the second may be a copy of something that the first has made
        ada("init", "--space", space, "app")
        assert "capabilities could not be given, as only root may: bin/hello" in ada.stderr
    for more in ((), ("--verify",)):
        again = ada("restore", "--space", "s", *more)
        assert again["files"]["unchanged"] == again["files"]["total"]
    assert ada("check", "--space", "s")["problems"] == []
    # One that root has given to another file is a change.
    os.setxattr(ada.space() / "lib" / "data.txt", "security.capability", os.getxattr(program, "security.capability"))
    assert ada("check", "--space", "s", code=3)["problems"]
    assert ada("restore", "--space", "s")["files"]["unchanged"] == 3
    assert os.listxattr(ada.space() / "lib" / "data.txt") == []


@on("xfs")
def test_attributes_that_a_filesystem_does_not_have_are_said_and_no_damage(
    filesystem: Filesystem, holo: Holo, tmp_path: Path
) -> None:
    source = trees.small(filesystem.root / "source")
    for path in (source / "lib", source / "lib" / "data.txt"):
        os.setxattr(path, "user.mine", b"1")
    holo("record", source, "--name", "app")
    without = tmp_path / "ramfs"
    without.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", without], check=True)
    try:
        said = holo("init", "--space", "s", "app", "--to", without / "space").stderr
        assert "extended attributes could not be given, as this filesystem has none: lib, lib/data.txt" in said
        plan = holo("restore", "--space", "s", "--dry-run", "--json").json()
        assert (plan["unchanged"], plan["files"], plan["directories"]) == (4, [], [])
        again = holo("restore", "--space", "s", "--verify", "--json")
        assert (again.json()["files"]["unchanged"], again.stderr) == (4, "")
        holo("check", "--space", "s")
    finally:
        unmount(without)


@on("btrfs")
@pytest.mark.parametrize("place", ["holotree", "elsewhere"])
def test_a_space_whose_root_is_read_only_is_shared_as_any(filesystem: Filesystem, ada: Ada, place: str) -> None:
    """It is a subvolume, and nothing can be tried out in it."""
    source = trees.small(filesystem.root / "source")
    source.chmod(0o555)
    ada("record", source, "--name", "app")
    ada("init", "--space", "s", "app", *([] if place == "holotree" else ["--to", ada.folder / "space"]))
    for more in ((), ("--strategy", "reflink", "--strict")):
        (ada.space() / "lib").chmod(0o755)
        (ada.space() / "lib" / "data.txt").unlink()
        made = ada("restore", "--space", "s", *more)
        assert made["strategy"]["reason"] is None
        assert made["strategy"]["used"] == "snapshot"
        assert fiemap.is_shared(ada.space() / "lib" / "data.txt")
    (ada.space() / "lib" / "data.txt").unlink()
    made = ada("restore", "--space", "s", "--strategy", "hardlink")
    assert made["strategy"]["used"] == "reflink"
    assert fiemap.is_shared(ada.space() / "lib" / "data.txt")
    assert "hardlink does not work" in made["strategy"]["reason"]
    assert compare.differences(source, ada.space()) == []
