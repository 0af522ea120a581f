"""Who may do what with the files that holo makes: as much as the umask, or the recorded mode, allows, and nobody more.

Default ACLs are set by their attribute, so no tool is needed: https://docs.kernel.org, linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import compare
from support.cli import Holo, Result
from support.filesystems import Filesystem, unmount
from support.forks import Forks, User
from support.scenarios import environment
from support.trees import small

UMASKS = (0o000, 0o022, 0o077)
STRATEGIES = ("smart", "reflink", "hardlink", "copy")
ADA = User(1001, (), umask=0o022)
STRANGERS_GROUP = 1777

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20


def acl(*entries: tuple[int, int] | tuple[int, int, int]) -> bytes:
    """The attribute with these entries: tag, rights, and whose they are."""
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, rights, *(who or (0xFFFFFFFF,))) for tag, rights, *who in entries
    )


CLOSED = acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0))
"""setfacl -d -m o::---"""
OPEN = acl((USER_OBJ, 7), (USER, 7, 1002), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5))
"""setfacl -d -m u:1002:rwx"""


def below(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """What is below a folder, without symlinks, and without what is in the folder that is one user's alone."""
    for folder, folders, files in os.walk(root):
        if os.path.basename(folder).startswith(".ephemeral-"):
            assert stat.S_IMODE(os.lstat(folder).st_mode) == 0o700
            folders.clear()
            continue
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            if not stat.S_ISLNK(status.st_mode):
                yield path, status


def excess(home: Path, umask: int, trees: dict[Path, Path]) -> list[str]:
    """What below a home others may do although neither the umask nor the recorded mode lets them.

    ``trees``: those that were made of a source. Files of the library may be read by everybody whom its folders let in,
    as users who share it have to.
    """
    found = []
    for path, status in below(home):
        mode = stat.S_IMODE(status.st_mode)
        tree = next((tree for tree in trees if path.is_relative_to(tree)), None)
        if tree is not None:
            model = trees[tree] / path.relative_to(tree)
            allowed = stat.S_IMODE(model.lstat().st_mode) if model.exists() else mode  # what the test has put there
        elif stat.S_ISDIR(status.st_mode):
            allowed = 0o777 & ~umask
        else:
            allowed = 0o555 | 0o666 & ~umask
        if mode & ~allowed:
            found.append(f"{path.relative_to(home)}: {mode:o}, not {allowed:o}")
    return found


class Modes:
    """A home where every command runs with one umask, and what was made of what."""

    def __init__(self, holo: Holo, forks: Forks, umask: int) -> None:
        self.holo = holo
        self.forks = forks
        self.umask = umask
        holo.settings.write_text("workers: 2\n")
        self.source = environment(holo.root / "the-source-of-an-environment-with-a-long-path", 1, files=300)
        self.trees: dict[Path, Path] = {}

    def __call__(self, *arguments: Any) -> None:
        self.forks(*arguments, env=self.holo.environment(), umask=self.umask)
        golden = (self.holo.library / "golden").glob("*")
        trees = {path: self.source for path in golden if path.is_dir()}
        found = excess(self.holo.home, self.umask, {**self.trees, **trees})
        assert not found, f"after holo {arguments}: {found[:5]} and {len(found) - 5} more"

    def init(self, name: str, *arguments: Any) -> Path:
        space = self.holo.holotree / default_name(name)
        self.trees[space] = self.source
        self("init", "--space", name, "env", *arguments)
        return space


def default_name(space: str) -> str:
    from holo.holotree import Holotree

    return os.path.basename(Holotree("/").default_path(space))


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)  # with snapshots, and compressed
@pytest.mark.parametrize("umask", UMASKS, ids="{:03o}".format)
def test_nobody_may_do_more_than_the_umask_allows(holo: Holo, forks: Forks, umask: int) -> None:
    modes = Modes(holo, forks, umask)
    modes("record", modes.source, "--name", "env")
    spaces = [modes.init(name, "--strategy", name) for name in STRATEGIES]
    for space in spaces:
        for path in (space / "lib").glob("*"):
            if path.is_file():
                path.unlink()
        (space / "more").mkdir()
    for name in STRATEGIES:
        modes("restore", "--space", name, "--strategy", name)
    modes.trees[holo.holotree / default_name("kept")] = modes.source
    modes("run", "--ephemeral", "--space", "smart", "--keep", "kept", "--", "true")
    blobs = [path for path in (holo.library / "library").glob("*/*") if path.stat().st_size > 1000]
    for blob in blobs[:3]:
        blob.unlink()
    modes("check", "--repair", "--from", modes.source)
    modes("restore", "--space", "copy", "--verify")
    modes("catalogs", "--remove", "kept")
    modes("delete", "--space", "hardlink")
    modes("gc")
    modes("clone", "--relocate", modes.source, holo.root / "clone")
    assert not compare.differences(modes.source, holo.root / "clone")


@local
@pytest.mark.parametrize("umask", UMASKS, ids="{:03o}".format)
def test_nor_after_a_build(holo: Holo, umask: int) -> None:
    holo.launcher = ("sh", "-c", f'umask {umask:03o}; exec "$@"', "sh")
    blueprint = holo.root / "requirements.txt"
    blueprint.write_text("tabulate\n")
    cache = {"UV_CACHE_DIR": str(holo.root / "cache")}  # uv gives files the modes that they have in there
    holo("init", "--space", "web", blueprint, "--to", holo.root / "web", env=cache)
    holo("run", "--space", "web", "--", "python", "-c", "import tabulate")
    found = excess(holo.home, umask, {})
    found += excess(holo.root / "web", umask, {})
    assert not found


@pytest.mark.parametrize("umask", [0o022, 0o002], ids="{:03o}".format)
@local
def test_more_rights_than_the_librarys_folder_gives_are_found_and_taken(holo: Holo, forks: Forks, umask: int) -> None:
    modes = Modes(holo, forks, umask)
    modes("record", modes.source, "--name", "env")
    modes.init("linked", "--strategy", "hardlink")
    holo("check")
    links = list((holo.library / "links").iterdir())
    notes = list((holo.library / "unsettled").iterdir())
    assert notes
    times = [path.stat().st_mtime_ns for path in notes]
    for path in links:
        path.chmod(0o777)
    for path in notes:
        path.chmod(0o666)
    (holo.library / "builds").mkdir()
    (holo.library / "builds").chmod(0o777)
    found = {problem["path"]: problem for problem in holo("check", "--json", code=3).json()["problems"]}
    assert {Path(path).name for path in found} == {"links", "unsettled", "hololib"}
    assert {problem["kind"] for problem in found.values()} == {"rights"}
    assert f"and {len(links) - 1} more" in found[str(holo.library / "links")]["what"]
    modes("check", "--repair")
    holo("check")
    assert [path.stat().st_mtime_ns for path in notes] == times  # which say since when files may be torn


@local
def test_a_shared_library_has_no_problem(holo: Holo) -> None:
    """Everybody of its group may write to its folders, which are sticky."""
    holo("record", small(holo.root / "source"), "--name", "env")
    holo("init", "--space", "linked", "env", "--strategy", "hardlink")
    for path, status in [*below(holo.home), (holo.library, holo.library.stat())]:
        if stat.S_ISDIR(status.st_mode) and not path.is_relative_to(holo.holotree):
            path.chmod(0o3775)
    holo("check")
    folder = next((holo.library / "links").iterdir())
    folder.chmod(0o2775)
    (problem,) = holo("check", "--repair", "--json").json()["problems"]
    assert problem["repaired"] is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2755


# -- default ACLs ---------------------------------------------------------------------------------------------------


def with_acls(root: Path) -> list[Path]:
    """What has an ACL: a folder, and what is below it."""
    return [path for path in (root, *(path for path, _ in below(root))) if {ACCESS, DEFAULT} & {*os.listxattr(path)}]


def test_no_default_acl_decides(holo: Holo, filesystem: Filesystem, strategy: str, forks: Forks) -> None:
    """On HOLO_HOME, and above a space."""
    source = environment(holo.root / "the-source-of-an-environment-with-a-long-path", 1, files=300)
    holo.settings.write_text("workers: 2\n")

    def run(*arguments: Any) -> Result:
        return forks(*arguments, env=holo.environment())

    above = holo.root / "above"
    for folder, default in ((holo.home, CLOSED), (above, OPEN)):
        folder.mkdir()
        os.setxattr(folder, DEFAULT, default)
    run("record", source, "--name", "env")
    run("check")
    inside = holo.holotree / default_name("inside")
    spaces = {"new": above / "new" / "space", "empty": above / "empty", "inside": inside}
    spaces["empty"].mkdir()
    for name, path in spaces.items():
        place = () if path == inside else ("--to", path)
        run("init", "--space", name, "env", *place, "--strategy", strategy)
        again = run("restore", "--space", name, "--strategy", strategy, "--json").json()
        assert again["files"]["unchanged"] == again["files"]["total"]
    run("run", "--ephemeral", "--space", "inside", "--keep", "kept", "--", "true")
    for path in (*spaces.values(), holo.holotree / default_name("kept")):
        assert compare.differences(source, path, library=holo.library / "links") == []
        assert with_acls(path) == []
    run("check", *[part for name in (*spaces, "kept") for part in ("--space", name)])
    assert with_acls(holo.library) == with_acls(holo.holotree) == []
    golden = {path: source for path in (holo.library / "golden").glob("*") if path.is_dir()}
    assert excess(holo.library, 0o022, golden) == []


def test_folders_of_the_library_with_a_default_acl(holo: Holo, filesystem: Filesystem) -> None:
    """They are left as somebody wants them, but what is made in them has the mode that it must have."""
    source = environment(holo.root / "source", 1, files=300)
    holo.settings.write_text("workers: 2\n")
    for folder in ("library", "links"):
        for number in range(256):
            path = holo.library / folder / f"{number:02x}"
            path.mkdir(parents=True)
            os.setxattr(path, DEFAULT, CLOSED if number % 2 else OPEN)
    holo("record", source, "--name", "env")
    holo("init", "--space", "one", "env", "--strategy", "hardlink", "--to", holo.root / "space")
    holo("check", "--space", "one")
    assert compare.differences(source, holo.root / "space", library=holo.library / "links") == []
    assert with_acls(holo.root / "space") == []


def test_acls_in_a_space_are_a_change(holo: Holo, filesystem: Filesystem) -> None:
    source = small(holo.root / "source")
    space = holo.root / "space"
    holo("record", source, "--name", "env")
    holo("init", "--space", "one", "env", "--to", space)
    file = acl((USER_OBJ, 6), (USER, 4, 1002), (GROUP_OBJ, 4), (MASK, 4), (OTHER, 4))  # the mode is the same
    os.setxattr(space / "lib" / "data.txt", ACCESS, file)
    os.setxattr(space / "lib", DEFAULT, CLOSED)
    os.setxattr(space, DEFAULT, OPEN)
    (space / "lib" / "other.txt").unlink()
    holo("check", "--space", "one", code=3)
    done = holo("restore", "--space", "one", "--strategy", "copy", "--json").json()
    assert with_acls(space) == []
    assert compare.differences(source, space) == []
    assert done["files"]["unchanged"] == 2
    holo("check", "--space", "one")


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"], indirect=True)
def test_acls_on_shared_files_are_found_by_reading(holo: Holo, filesystem: Filesystem) -> None:
    """Their ctime, which other spaces move, tells nothing."""
    holo("record", small(holo.root / "source"), "--name", "env")
    holo("init", "--space", "one", "env", "--to", holo.root / "space", "--strategy", "hardlink")
    shared = acl((USER_OBJ, 4), (USER, 4, 1002), (GROUP_OBJ, 4), (MASK, 4), (OTHER, 4))
    os.setxattr(holo.root / "space" / "lib" / "data.txt", ACCESS, shared)
    holo("check", "--space", "one", code=3)
    holo("restore", "--space", "one", "--verify")
    assert with_acls(holo.root / "space") == []


@local
def test_a_mask_is_not_recorded_as_the_groups_rights(holo: Holo) -> None:
    """st_mode shows it in their place: the most that anybody whom the ACL names may do."""
    source = small(holo.root / "source")
    for path in (source / "lib", source / "lib" / "data.txt"):
        os.setxattr(path, ACCESS, acl((USER_OBJ, 7), (USER, 7, 1002), (GROUP_OBJ, 4), (MASK, 7), (OTHER, 0)))
        assert stat.S_IMODE(path.stat().st_mode) == 0o770
    holo("record", source, "--name", "env")
    holo("init", "--space", "one", "env", "--to", holo.root / "space")
    for path in (holo.root / "space" / "lib", holo.root / "space" / "lib" / "data.txt"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o740


# -- filesystems that do not keep every mode ------------------------------------------------------------------------


@needs_root
def test_what_the_system_does_not_let_be_is_not_repaired_for_ever(
    filesystem: Filesystem, forks: Forks, tmp_path: Path
) -> None:
    """Where files get the group of a folder and their owner is not in it, the kernel takes setgid away: chmod(2)."""
    root = filesystem.root
    for folder in (root, *root.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    home, source, place = root / "home", root / "source", root / "place"
    for folder in (home, place):
        folder.mkdir()
        os.chown(folder, ADA.uid, STRANGERS_GROUP if folder is place else ADA.uid)
    place.chmod(0o2777)
    small(source)
    for path in (source, *source.rglob("*")):
        os.lchown(path, ADA.uid, ADA.uid)
    (source / "lib" / "other.txt").chmod(0o2755)
    (source / "lib" / "deep").chmod(0o2755)
    env = {"HOLO_HOME": str(home), "HOLO_SETTINGS": os.devnull, "PATH": os.environ["PATH"], "HOME": str(home)}

    def holo(*arguments: Any, code: int = 0) -> Any:
        return forks(*arguments, env=env, user=ADA, code=code)

    holo("record", source, "--name", "env", "--keep-setid")
    space = place / "space"
    holo("init", "--space", "one", "env", "--to", space, "--keep-setid", "--strategy", "copy")
    if space.stat().st_gid != STRANGERS_GROUP:
        pytest.fail("the space has another group")
    assert stat.S_IMODE((space / "lib" / "other.txt").stat().st_mode) == 0o755
    inode = (space / "lib" / "other.txt").stat().st_ino
    for options in ([], ["--verify"]):
        again = holo("restore", "--space", "one", "--json", *options).json()
        assert again["files"]["unchanged"] == 4
        assert (space / "lib" / "other.txt").stat().st_ino == inode
    holo("check", "--space", "one")
    # Another mode is a change all the same.
    (space / "lib" / "other.txt").chmod(0o700)
    assert holo("restore", "--space", "one", "--json").json()["files"]["unchanged"] == 3
    assert stat.S_IMODE((space / "lib" / "other.txt").stat().st_mode) & 0o777 == 0o755


@needs_root
@pytest.mark.skipif(os.environ.get("CI") != "true" and not shutil.which("bindfs"), reason="bindfs is not installed")
@pytest.mark.parametrize("option", ["--no-allow-other", "--chmod-ignore", "--perms=a+rX,go=u"])
@local
def test_a_filesystem_that_has_modes_of_its_own(holo: Holo, option: str) -> None:
    """bindfs creates files without their sticky bit, and can be told to ignore chmod(2), or to show other modes."""
    source = small(holo.root / "source")
    (source / "lib" / "other.txt").chmod(0o1644)
    (source / "lib" / "data.txt").chmod(0o600)
    holo("record", source, "--name", "env")
    for folder in ("beneath", "above"):
        (holo.root / folder).mkdir()
    subprocess.run(["bindfs", option, holo.root / "beneath", holo.root / "above"], check=True)
    try:
        space = holo.root / "above" / "space"
        holo("init", "--space", "one", "env", "--to", space)
        assert holo("restore", "--space", "one", "--json").json()["files"]["unchanged"] == 4
        holo("check", "--space", "one")
        clone = holo.root / "above" / "clone"
        holo("clone", source, clone)
        if option == "--no-allow-other":
            assert compare.differences(source, space) == compare.differences(source, clone, new=source) == []
    finally:
        unmount(holo.root / "above")


@needs_root
@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_what_was_given_to_somebody_else_is_taken_back(holo: Holo, strategy: str) -> None:
    """Who could go on changing it, or else its user could not."""
    source = small(holo.root / "source")
    holo("record", source, "--name", "env")
    space = Path(holo("init", "--space", "one", "env", "--strategy", strategy, "--json").json()["path"])
    for options in ([], ["--verify"]):
        for path in (space / "lib" / "data.txt", space / "bin" / "hello", space / "lib" / "deep"):
            os.chown(path, 1001, 1001)
            if path.is_file() and path.stat().st_nlink == 1:
                assert holo("status", "one", "--json").json()["state"] == "changed"
        holo("restore", "--space", "one", *options)
        assert {path.lstat().st_uid for path in space.rglob("*")} == {0}
        assert holo("restore", "--space", "one", "--json", *options).json()["files"]["unchanged"] == 4
        assert compare.differences(source, space) == []


@needs_root
@pytest.mark.skipif(os.environ.get("CI") != "true" and not shutil.which("bindfs"), reason="bindfs is not installed")
@pytest.mark.parametrize("option", ["--perms=0777", "--perms=0755"])
@local
def test_a_home_needs_a_filesystem_that_keeps_modes(holo: Holo, option: str) -> None:
    """Others, as NTFS and FAT, have one mode for all: blobs looked damaged there, and records like another user's."""
    source = small(holo.root / "source")
    (source / "large").write_bytes(os.urandom(100_000))
    holo("record", source, "--name", "env")
    holo("export", "env", "-o", holo.root / "env.holo")
    for folder in ("beneath", "above"):
        (holo.root / folder).mkdir()
    subprocess.run(["bindfs", option, holo.root / "beneath", holo.root / "above"], check=True)
    try:
        home = {"HOLO_HOME": str(holo.root / "above" / "home")}
        for command in (("record", source), ("import", "env.holo"), ("init", "one", source)):
            said = holo(*command, code=1, env=home).stderr
            assert "of a file that has 444" in said
            assert "Choose a home on a filesystem that keeps the modes of files" in said
            assert list((holo.root / "above").iterdir()) == []
        said = holo("doctor", env=home).stdout
        assert "No library can be here" in said
        assert "sticky" not in said
    finally:
        unmount(holo.root / "above")
