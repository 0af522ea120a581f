"""holo clone: exact, private, shared where that can be, there as a whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import holo
from holo import platform
from holo.cloning import clone
from holo.cloning.filler import Filler
from holo.workers.stealing import WorkStealingPool
from support import compare, fiemap
from support.cli import Holo
from support.filesystems import Filesystem, Mounts, subvolume
from support.forks import Forks, User
from support.trees import SOME_TIME, nasty, settle, small, write

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts take root")
local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
on_btrfs = pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
on_disks = pytest.mark.parametrize("filesystem", ["btrfs", "xfs", "ext4"], indirect=True)
also_snapshots = pytest.mark.parametrize(
    ("filesystem", "snapshot"),
    [("btrfs", True), ("btrfs", False), ("xfs", False), ("ext4", False)],
    indirect=["filesystem"],
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)


def metadata(tree: Path) -> dict[bytes, tuple[object, ...]]:
    """All that a clone keeps besides content and target, of everything in a tree."""
    found = {}
    for name, status in compare.walk(tree).items():
        path = os.path.join(os.fsencode(tree), name)
        xattrs: dict[str, bytes] = {}
        with suppress(OSError):
            names = os.listxattr(path, follow_symlinks=False)
            xattrs = {each: os.getxattr(path, each, follow_symlinks=False) for each in names}
        times = (status.st_atime_ns, status.st_mtime_ns)
        owner = (status.st_uid, status.st_gid)
        found[name] = (oct(status.st_mode), *owner, status.st_rdev, *times, xattrs)
    return found


def recorded(source: Path) -> dict[bytes, tuple[object, ...]]:
    """The metadata of a source before it is cloned. The first listing of a directory may change its access time."""
    compare.walk(source)
    return metadata(source)


def unlike(source: Path, copy: Path, before: dict[bytes, tuple[object, ...]]) -> list[str]:
    """In what ``copy`` is not an exact copy; ``before``: the metadata of the source before it was read."""
    after = metadata(copy)
    found = [f"{name!r}: {before.get(name)}, {after.get(name)}" for name in before if before[name] != after.get(name)]
    return found + compare.differences(source, copy, old=source, new=source)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as an attribute: version 2, then (tag, rights, id) of each entry, in their order."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACL = acl((1, 6, NOBODY), (2, 7, 1001), (4, 5, NOBODY), (0x10, 5, NOBODY), (0x20, 0, NOBODY))


def everything(root: Path, filesystem: Filesystem) -> Path:
    """What a catalog can hold, and what only a clone keeps."""
    nasty(root, xattrs=filesystem.xattrs)
    os.mkfifo(root / "fifo", 0o620)
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.getcwd()
        os.chdir(root)  # the path of a socket must be short
        unix.bind("socket")
        os.chdir(here)
    setuid = write(root / "rights" / "setuid", b"x" * 9000)
    setuid.chmod(0o6755)
    (root / "rights" / "sticky").mkdir()
    (root / "rights" / "sticky").chmod(0o3777)
    write(root / "rights" / "sticky" / "inside", b"y" * 5000)
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o640 | stat.S_IFCHR, os.makedev(1, 3))
        for number, path in enumerate([root / "modes", setuid, root / "rights" / "sticky" / "inside", root / "fifo"]):
            os.chown(path, 1000 + number, 2000 + number)
        setuid.chmod(0o6755)
        os.symlink("nowhere", root / "rights" / "link")
        os.lchown(root / "rights" / "link", 1005, 1006)
        os.setxattr(root / "rights", "trusted.holo", b"root's")
    if filesystem.xattrs:
        (root / "acl").mkdir()
        write(root / "acl" / "file", b"with an ACL\n" * 500)
        (root / "acl" / "below").mkdir()
        write(root / "acl" / "below" / "plain", b"without\n" * 500)
        os.setxattr(root / "acl" / "file", "system.posix_acl_access", ACL)
        for folder in (root / "acl", root):
            os.setxattr(folder, "system.posix_acl_default", ACL)
    with (root / "sizes" / "hole").open("wb") as file:
        file.truncate(70_000_000)
        for position in (0, 30_000_000):
            file.seek(position)
            file.write(b"data" * 3000)
    for number, folder in enumerate(["locked", "locked/inside"]):
        (root / folder).mkdir()
        write(root / folder / "file", f"{number}" * 3000)
    for folder in ("locked/inside", "locked"):
        (root / folder).chmod(0o500)
    return settle(root)


# -- an exact copy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_a_clone_is_exact(filesystem: Filesystem, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holo.workers.treewalk._WORTH_A_FORK", 0 if workers > 1 else 10**9)
    configured(filesystem.root, workers, monkeypatch)
    source = everything(filesystem.root / "source", filesystem)
    before, inodes = recorded(source), compare.snapshot(source)
    copy = filesystem.root / "copy"
    report = clone(source, copy)
    assert unlike(source, copy, before) == []
    assert compare.snapshot(source) == inodes
    assert compare.rsync_differences(source, copy) == []
    files = [found for found in compare.walk(source).values() if stat.S_ISREG(found.st_mode)]
    assert report.total == len(files)
    assert report.reflinked is not None
    assert report.hardlinked == sum(len(group) - 1 for group in compare.hardlinks(compare.walk(source)))
    assert report.reflinked + report.hardlinked + report.copied == report.total
    assert report.bytes_total == sum(found.st_size for found in files)
    assert report.used == ("reflink" if filesystem.reflinks else "copy")
    assert (report.reason is None) == filesystem.reflinks
    assert sorted(os.listdir(filesystem.root)) == ["copy", "settings.yaml", "source"]
    if filesystem.reflinks:
        large = [path for path in fiemap.regular_files(copy) if fiemap.extents(path) and not fiemap.is_inline(path)]
        assert large
        assert all(map(fiemap.is_shared, large))
    # Private: what is done to one does not show in the other.
    (copy / "sizes" / "block").write_bytes(b"changed")
    assert (source / "sizes" / "block").read_bytes() == b"b" * 4096


def test_the_source_keeps_its_access_times(filesystem: Filesystem) -> None:
    """Reading a file would change it, and other workers, who meet it by another name, would keep that."""
    source = filesystem.root / "source"
    write(source / "file", b"read" * 1000)
    os.utime(source / "file", ns=(10**18, 10**18))  # so old that a read is noted, whatever the mount says
    clone(source, filesystem.root / "copy")
    assert (source / "file").stat().st_atime_ns == 10**18
    assert (filesystem.root / "copy" / "file").stat().st_atime_ns == 10**18


def configured(root: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "settings.yaml").write_text(f"workers: {workers}\n")
    monkeypatch.setenv("HOLO_SETTINGS", str(root / "settings.yaml"))


def test_umask_does_not_matter(filesystem: Filesystem) -> None:
    source = small(filesystem.root / "source")
    for path in source.rglob("*"):
        path.chmod(0o777)
    old = os.umask(0o077)
    try:
        clone(source, filesystem.root / "copy")
    finally:
        os.umask(old)
    assert compare.differences(source, filesystem.root / "copy", old=source, new=source) == []


@on_disks
def test_a_default_acl_of_the_folder_is_not_inherited(filesystem: Filesystem) -> None:
    source = small(filesystem.root / "source")
    os.setxattr(filesystem.root, "system.posix_acl_default", ACL)
    before = recorded(source)
    clone(source, filesystem.root / "copy")
    assert unlike(source, filesystem.root / "copy", before) == []


@on_disks
def test_names_of_one_file_in_many_directories(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by several workers, each content is there once in the end; other names outside do not matter."""
    configured(filesystem.root, 4, monkeypatch)
    monkeypatch.setattr("holo.workers.treewalk._WORTH_A_FORK", 0)
    source = filesystem.root / "source"
    for number in range(6):
        write(source / "0" / f"small-{number}", f"{number}" * 3000)
        write(source / "0" / f"large-{number}", f"{number}" * 200_000)
        write(source / "0" / f"empty-{number}")
    for folder in range(1, 12):
        (source / f"{folder}").mkdir()
        for path in (source / "0").iterdir():
            os.link(path, source / f"{folder}" / path.name)
    os.link(source / "0" / "large-0", filesystem.root / "elsewhere")
    settle(source)
    (source / "3").chmod(0o555)
    copy = filesystem.root / "copy"
    report = clone(source, copy)
    assert compare.differences(source, copy, old=source, new=source) == []
    assert report.hardlinked == 18 * 11
    assert report.total == 18 * 12
    used = sum({found.st_ino: found.st_blocks for found in compare.walk(copy).values()}.values()) * 512
    assert used < 2_000_000 + 12 * 8192


entries = st.dictionaries(
    st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & {0, 47} and name not in {b".", b".."}),
    st.recursive(
        st.tuples(st.binary(max_size=40), st.integers(0, 0o777), st.integers(0, 3)) | st.text("ab/.", min_size=1),
        lambda inner: st.dictionaries(st.sampled_from([b"a", b"\xff", b"c d", b"\n", b"-e"]), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


def grow(root: bytes, tree: dict[bytes, Any], links: list[bytes]) -> None:
    os.mkdir(root)
    for name, what in tree.items():
        path = os.path.join(root, name)
        if isinstance(what, dict):
            grow(path, what, links)
        elif isinstance(what, str):
            os.symlink(what, path)
        elif links and what[2] == 0:
            os.link(links[-1], path)
        else:
            with open(path, "wb") as file:
                file.write(what[0] * 200)
                file.truncate(len(what[0]) * 200 + 20_000 * what[2])
            os.chmod(path, what[1])
            links.append(path)
    os.utime(root, ns=(SOME_TIME, SOME_TIME + len(tree)))


@pytest.mark.parametrize("filesystem", ["xfs", "ext4"], indirect=True)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=entries, relocate=st.booleans())
def test_any_random_tree_is_cloned_exactly(filesystem: Filesystem, tree: dict[bytes, Any], relocate: bool) -> None:
    with tempfile.TemporaryDirectory(dir=filesystem.root) as folder:
        source, copy = Path(folder, "source"), Path(folder, "copied")
        grow(os.fsencode(source), tree, [])
        before = recorded(source)
        clone(source, copy, relocate=relocate)
        if relocate:  # which reads, and so may change access times
            assert compare.differences(source, copy) == []
        else:
            assert unlike(source, copy, before) == []


@pytest.mark.skipif(sys.platform != "linux", reason="forked workers")
def test_only_one_worker_announces_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers may see at once that nobody has anything. More ends than workers would fill the pipe in the end."""
    pool = WorkStealingPool(2)
    parent = os.dup(pool._parent)
    try:
        pool.in_worker()
        os.write(pool._announce_idle, b".")
        assert pool._receive() is None
        monkeypatch.setattr(pool, "_count_idle", lambda: 2)
        assert pool._receive() is None
        with pytest.raises(BlockingIOError):
            os.read(pool._receiver, 10)
    finally:
        pool._parent = parent
        pool.close()


# -- Btrfs ----------------------------------------------------------------------------------------------------------


def nested(root: Path) -> Path:
    """A subvolume with others at several depths, one of them read-only and one in another."""
    tree = subvolume(root / "tree")
    write(tree / "file", b"data" * 5000)
    (tree / "deep" / "er").mkdir(parents=True)
    for place in ("inside", "deep/er/inside", "inside/more", "read-only"):
        write(subvolume(tree / place) / "file", place * 2000)
    subprocess.run(["btrfs", "property", "set", tree / "read-only", "ro", "true"], check=True)
    for folder in ("", "inside", "deep", "deep/er"):
        os.utime(tree / folder, ns=(SOME_TIME, SOME_TIME))
    return tree


@root_only
@on_btrfs
def test_a_subvolume_is_snapshotted_with_those_inside(filesystem: Filesystem) -> None:
    tree = nested(filesystem.root)
    before = recorded(tree)
    copy = filesystem.root / "copy"
    report = clone(tree, copy)
    assert (report.used, report.reason, report.total, report.bytes_shared) == ("snapshot", None, None, None)
    assert unlike(tree, copy, before) == []
    assert fiemap.common_bytes(tree, copy) > 0
    assert [os.stat(copy / place).st_ino for place in ("", "inside", "inside/more", "deep/er/inside")] == [256] * 4
    write(copy / "read-only" / "file", b"changed")
    assert (tree / "read-only" / "file").read_bytes() == b"read-only" * 2000
    again = clone(copy, filesystem.root / "again")  # a clone is as good a source
    assert again.used == "snapshot"
    assert fiemap.common_bytes(tree, filesystem.root / "again") > 0


@root_only
@on_btrfs
def test_files_that_cannot_be_reflinked_are_copied_and_reported(filesystem: Filesystem) -> None:
    source = small(filesystem.root / "source")
    (source / "nodatacow").touch()
    subprocess.run(["chattr", "+C", source / "nodatacow"], check=True)
    (source / "nodatacow").write_bytes(b"database" * 9000)
    report = clone(source, filesystem.root / "copy")
    assert (report.used, report.copied) == ("reflink", 1)
    assert fiemap.common_bytes(source, filesystem.root / "copy") > 0
    assert not any(extent.shared for extent in fiemap.extents(filesystem.root / "copy" / "nodatacow"))
    assert report.reason is not None
    assert "1 of the files" in report.reason
    assert compare.differences(source, filesystem.root / "copy", old=source, new=source) == []


@root_only
@on_btrfs
def test_files_of_two_subvolumes_have_the_same_numbers(filesystem: Filesystem) -> None:
    tree = subvolume(filesystem.root / "tree")
    for folder in (subvolume(tree / "one"), subvolume(tree / "two")):
        write(folder / "file", f"{tree}/bin".encode())
        os.link(folder / "file", folder / "same")
    assert (tree / "one" / "file").stat().st_ino == (tree / "two" / "file").stat().st_ino
    copy = filesystem.root / "copy"
    assert clone(tree, copy, relocate=True).used == "snapshot"
    for path in ("one/file", "one/same", "two/file", "two/same"):
        assert (copy / path).read_text() == f"{copy}/bin"


@root_only
def test_clone_to_another_filesystem(mounts: Mounts) -> None:
    base = mounts.get("btrfs") / f"from-{os.urandom(4).hex()}"
    base.mkdir()
    source = nested(base)
    copy = mounts.get("ext4") / f"to-{os.urandom(4).hex()}"
    report = clone(source, copy)
    assert report.used == "copy"
    assert report.reason is not None
    assert "snapshot does not work" in report.reason
    assert "reflink does not work" in report.reason
    assert compare.differences(source, copy, old=source, new=source) == []


# -- relocated ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["copied", "copy"])
@also_snapshots
def test_relocated_clone_names_its_own_path(filesystem: Filesystem, name: str, snapshot: bool) -> None:
    """To a path as long as the source's, and to a shorter one."""
    source = filesystem.root / "source"
    nasty(filesystem.root / "made", xattrs=filesystem.xattrs)
    if snapshot:
        subvolume(source)
    else:
        source.mkdir()
    # Made at its own path, with links into it, and attributes.
    subprocess.run(["cp", "-a", f"{filesystem.root}/made/.", source], check=True)
    for path in source.rglob("*"):
        if path.is_symlink() and os.readlink(path).startswith(f"{filesystem.root}/made"):
            target = os.readlink(path).replace(f"{filesystem.root}/made", str(source))
            path.unlink()
            path.symlink_to(target)
        elif path.is_file() and not path.is_symlink() and f"{filesystem.root}/made".encode() in path.read_bytes():
            found = path.stat()
            if b"\0" in path.read_bytes() and path.suffix != ".pyc":
                continue
            path.write_bytes(path.read_bytes().replace(f"{filesystem.root}/made".encode(), os.fsencode(source)))
            os.utime(path, ns=(SOME_TIME, SOME_TIME))
            assert path.stat().st_ino == found.st_ino
    write(source / "locked" / "binary", b"\0\1" + os.fsencode(source) + b"/lib\0" + b"\3" * 50, mode=0o444)
    write(source / "locked" / "pair-1", f"one of two: {source}/x\n", mode=0o4755)
    os.link(source / "locked" / "pair-1", source / "locked" / "pair-2")
    write(source / "locked" / "large", b"\1" * 3_000_000 + b"\0" + os.fsencode(source) + b"/lib\0" + b"\3" * 50)
    os.symlink(source / "locked", source / "locked" / "link")
    (source / "locked").chmod(0o555)
    settle(source)
    copy = filesystem.root / name
    report = clone(source, copy, relocate=True)
    assert compare.differences(source, copy) == []
    assert report.used == ("snapshot" if snapshot else "reflink" if filesystem.reflinks else "copy")
    if filesystem.reflinks:
        assert fiemap.common_bytes(source, copy) > 0
    files = [found for found in compare.walk(source).values() if stat.S_ISREG(found.st_mode)]
    assert report.total == len(files)
    assert report.bytes_total == sum(found.st_size for found in files) or not snapshot
    assert report.relocated >= 10
    assert report.copied >= report.relocated
    assert os.stat(copy / "locked" / "pair-1").st_ino == os.stat(copy / "locked" / "pair-2").st_ino
    assert stat.S_IMODE(os.stat(copy / "locked" / "pair-1").st_mode) == 0o4755
    assert os.readlink(copy / "locked" / "link") == str(copy / "locked")


@local
def test_a_longer_path_in_binaries_is_refused_before_anything_is_made(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = nasty(filesystem.root / "source", xattrs=False)
    monkeypatch.setattr("holo.cloning.Draft", None)  # whatever is made, is made by it
    with pytest.raises(holo.RelocationImpossible, match="prefixes/binary/adjacent") as caught:
        clone(source, filesystem.root / "longer-path", relocate=True)
    assert caught.value.hint is not None
    assert "--relocate" in caught.value.hint
    assert os.listdir(filesystem.root) == ["source"]


def test_a_longer_path_in_texts(filesystem: Filesystem) -> None:
    source = small(filesystem.root / "source")
    clone(source, filesystem.root / "much-longer-path", relocate=True)
    assert compare.differences(source, filesystem.root / "much-longer-path") == []


@also_snapshots
def test_file_changed_after_the_search_is_relocated(
    filesystem: Filesystem, snapshot: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = filesystem.root / "source"
    if snapshot:
        subvolume(source)
    small(source)
    from holo.cloning.relocation import TreeRelocator

    refuse = TreeRelocator.refuse_impossible

    def change(self: TreeRelocator) -> None:
        refuse(self)
        write(source / "late", f"{source}/late\n")
        write(source / "bin" / "hello", "no path in it any more\n", mode=0o755)
        os.symlink(source / "lib", source / "late-link")
        settle(source)

    monkeypatch.setattr(TreeRelocator, "refuse_impossible", change)
    clone(source, filesystem.root / "elsewhere", relocate=True)
    assert compare.differences(source, filesystem.root / "elsewhere") == []


@local
def test_editable_installs_are_reported(filesystem: Filesystem) -> None:
    source = small(filesystem.root / "source")
    write(source / "lib" / "app.pth", "/home/ada/app/src\n")
    report = clone(source, filesystem.root / "copy", relocate=True)
    assert [warning for warning in report.warnings if "/home/ada/app/src" in warning]


# -- refusals -------------------------------------------------------------------------------------------------------


@local
def test_taken_place_is_refused(filesystem: Filesystem, forks: Forks) -> None:
    root, env = filesystem.root, Holo(filesystem.root).environment()
    source = small(root / "source")
    (root / "file").write_text("precious")
    (root / "empty").mkdir()
    (root / "dangling").symlink_to(root / "nowhere")
    (root / "link").symlink_to(root / "empty")
    for name in ("file", "empty", "dangling", "link", "source", "empty/", ".", ".."):
        result = forks("clone", source, f"{root}/{name}", env=env, cwd=root, code=1)
        assert "exists" in result.stderr, name
    assert os.readlink(root / "dangling") == str(root / "nowhere")
    assert (root / "file").read_text() == "precious"
    assert os.listdir(root / "empty") == []
    assert not (root / "nowhere").exists()


@local
def test_source_that_cannot_be_cloned_is_refused(filesystem: Filesystem, forks: Forks) -> None:
    root, env = filesystem.root, Holo(filesystem.root).environment()
    source = small(root / "source")
    (root / "link-into").symlink_to(source / "lib")
    (root / "link").symlink_to(source)
    for arguments, code, message in (
        ((source, source / "copy"), 2, "lies inside"),
        ((source, root / "link-into" / "copy"), 2, "lies inside"),
        ((root / "link", source / "copy"), 2, "lies inside"),
        ((root / "missing", root / "copy"), 1, "there is nothing at"),
        ((source / "lib" / "data.txt", root / "copy"), 2, "is not a directory"),
        ((source, root / "missing" / "copy"), 1, "there is no folder"),
        ((source, source / "lib" / "data.txt" / "copy"), 1, "cannot clone to"),
        ((source, root / ("x" * 256)), 1, "File name too long"),
        (("", root / "copy"), 2, "is empty"),
        ((source, ""), 2, "is empty"),
        (("/", root / "copy"), 2, "lies inside"),
    ):
        assert message in forks("clone", *arguments, env=env, code=code).stderr, arguments
        assert sorted(os.listdir(root)) == ["link", "link-into", "settings.yaml", "source"]
    forks("clone", root / "link", root / ("y" * 255), env=env)  # the user named it
    assert compare.differences(source, root / ("y" * 255), old=source, new=source) == []


@root_only
@local
def test_a_place_inside_through_a_mount(filesystem: Filesystem) -> None:
    source = small(filesystem.root / "source")
    (filesystem.root / "bound").mkdir()
    subprocess.run(["mount", "--bind", source, filesystem.root / "bound"], check=True)
    try:
        with pytest.raises(holo.UsageError, match="through a mount"):
            clone(source, filesystem.root / "bound" / "copy")
    finally:
        subprocess.run(["umount", filesystem.root / "bound"], check=True)
    assert sorted(os.listdir(source)) == ["bin", "lib"]


@on_disks
def test_a_place_taken_meanwhile(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small(filesystem.root / "source")
    fill = Filler.fill

    def take(self: Filler, workers: int) -> object:
        (filesystem.root / "copy").mkdir()  # which a plain rename would replace
        return fill(self, workers)

    monkeypatch.setattr(Filler, "fill", take)
    with pytest.raises(holo.Conflict, match="exists"):
        clone(source, filesystem.root / "copy")
    assert sorted(os.listdir(filesystem.root)) == ["copy", "source"]
    assert os.listdir(filesystem.root / "copy") == []


@local
def test_a_file_that_changes_is_cloned_again_or_refused(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = small(filesystem.root / "source")
    victim = source / "lib" / "data.txt"
    make = Filler._make
    changes = [1, 99]

    def change(self: Filler, old: int, *arguments: Any) -> Any:
        made = make(self, old, *arguments)
        if os.fstat(old).st_ino == victim.stat().st_ino and changes[0]:
            changes[0] -= 1
            with victim.open("a") as file:
                file.write("more")
        return made

    monkeypatch.setattr(Filler, "_make", change)
    clone(source, filesystem.root / "copy")
    assert compare.differences(source, filesystem.root / "copy", old=source, new=source) == []
    changes.pop(0)
    with pytest.raises(holo.SourceChanged, match=r"data\.txt keeps changing"):
        clone(source, filesystem.root / "other")
    assert sorted(os.listdir(filesystem.root)) == ["copy", "source"]


@local
@pytest.mark.parametrize("what", ["gone", "link", "fifo"])
def test_a_file_that_goes_is_an_error(filesystem: Filesystem, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small(filesystem.root / "source")
    secret = write(filesystem.root / "secret", b"secret")
    open_unread = platform.open_unread

    def gone(directory: Any, name: str) -> int:
        if name == "data.txt":
            (source / "lib" / name).unlink(missing_ok=True)
            if what == "link":
                (source / "lib" / name).symlink_to(secret)
            elif what == "fifo":
                os.mkfifo(source / "lib" / name)
        return open_unread(directory, name)

    monkeypatch.setattr(platform, "open_unread", gone)
    with pytest.raises(holo.SourceChanged, match=r"data\.txt"):
        clone(source, filesystem.root / "copy")
    assert sorted(os.listdir(filesystem.root)) == ["secret", "source"]


# -- drafts ---------------------------------------------------------------------------------------------------------


@on_disks
def test_drafts_of_killed_clones(filesystem: Filesystem) -> None:
    """Removed by the next clone in that folder, unless somebody is at work on it, maybe on another machine."""
    root = filesystem.root
    source = small(root / "source")
    here, elsewhere = (f"{zlib.crc32(boot.encode()):08x}" for boot in (platform.boot_id(), "another boot"))

    def draft(boot: str, name: str, number: int) -> Path:
        path = root / f".holo-clone-{boot}-{zlib.crc32(name.encode()):08x}-{number:08x}"
        small(path)
        (path / "lib").chmod(0o555)
        return path

    busy, other, user = draft(here, "copy", 1), draft(elsewhere, "another", 2), root / ".holo-clone-mine"
    left = [draft(here, "copy", 3), draft(here, "another", 4), draft(elsewhere, "copy", 5)]
    user.mkdir()
    lock = os.open(busy, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    clone(source, root / "copy")
    os.close(lock)
    assert sorted(os.listdir(root)) == sorted(["copy", "source", busy.name, other.name, user.name])
    assert not any(path.exists() for path in left)


# -- an ordinary user -----------------------------------------------------------------------------------------------


@root_only
@on_disks
def test_ordinary_user_clones(filesystem: Filesystem, forks: Forks) -> None:
    user = User(1001, umask=0o027)
    root = filesystem.root
    for folder in root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    env = Holo(root).environment()
    source = root / "source"
    write(source / "theirs", b"x" * 9000, mode=0o4755)
    write(source / "mine", b"y" * 9000, mode=0o6755)
    write(source / "locked" / "deep" / "file", b"z" * 9000, mode=0o400)
    for path in (source, source / "mine", *(source / "locked").rglob("*"), source / "locked"):
        os.chown(path, 1001, 1001)
    (source / "mine").chmod(0o6755)
    (source / "locked" / "deep").chmod(0o500)
    (source / "locked").chmod(0o500)
    settle(source)
    os.chown(root, 1001, 1001)
    result = forks("clone", source, root / "copy", env=env, user=user)
    assert "1 entries belong to you now" in result.stderr
    copy = root / "copy"
    modes = {name: stat.S_IMODE((copy / name).stat().st_mode) for name in ("theirs", "mine", "locked", "locked/deep")}
    assert modes == {"theirs": 0o755, "mine": 0o6755, "locked": 0o500, "locked/deep": 0o500}
    assert {path.stat().st_uid for path in copy.rglob("*")} == {1001}
    os.mknod(source / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    result = forks("clone", source, root / "second", env=env, user=user, code=1)
    assert "Devices take root" in result.stderr
    (source / "device").unlink()
    (source / "theirs").chmod(0o600)
    result = forks("clone", source, root / "second", env=env, user=user, code=1)
    assert f"cannot clone {source}/theirs: Permission denied" in result.stderr
    assert not (root / "second").exists()
    assert not list(root.glob(".holo-*"))


@root_only
@on_btrfs
def test_subvolumes_of_ordinary_users(filesystem: Filesystem, forks: Forks) -> None:
    user, root = User(1001), filesystem.root
    for folder in root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    root.chmod(0o1777)
    env = Holo(root).environment()
    tree = nested(root)
    result = forks("clone", tree, root / "of-root", "--json", env=env, user=user)
    assert '"used": "reflink"' in result.stdout
    assert fiemap.common_bytes(tree, root / "of-root") > 0
    assert "snapshot does not work" in result.stdout
    subprocess.run(["btrfs", "property", "set", tree / "read-only", "ro", "false"], check=True)
    subprocess.run(["chown", "-R", "1001:1001", tree], check=True)
    result = forks("clone", tree, root / "own", "--json", env=env, user=user)
    assert '"used": "snapshot"' in result.stdout
    assert fiemap.common_bytes(tree, root / "own") > 0
    assert compare.differences(tree, root / "own", old=tree, new=tree) == []


# -- limits, and the API --------------------------------------------------------------------------------------------


@local
def test_low_descriptor_limit_is_enough_or_one_error(filesystem: Filesystem, holo: Holo) -> None:
    """A deep tree takes two for each level: said in one line. A wide one takes few."""
    wide, deep = filesystem.root / "wide", filesystem.root / "deep"
    for number in range(300):
        write(wide / f"{number % 20}" / f"{number}" / "file", f"{number}")
    write(deep.joinpath(*map(str, range(60))) / "file", b"at the bottom")
    for source, code in ((wide, 0), (deep, 1)):
        done = subprocess.run(
            ["prlimit", "--nofile=64", sys.executable, "-m", "holo", "clone", source, f"{source}-copy"],
            env=holo.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert "Too many open files" in done.stderr
    assert "ulimit -n" in done.stderr
    assert not list(filesystem.root.glob(".holo-*"))
    holo("clone", deep, filesystem.root / "deep-copy")
    assert compare.differences(deep, filesystem.root / "deep-copy", old=deep, new=deep) == []


@local
def test_full_disk_leaves_no_clone(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small(filesystem.root / "source")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("clone_content", "copy_content"):
        monkeypatch.setattr(platform, name, full)
    with pytest.raises(holo.HoloError, match="No space left") as caught:
        clone(source, filesystem.root / "copy")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Free some space")
    assert os.listdir(filesystem.root) == ["source"]


@local
def test_many_directories_are_shared_out(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker gets some, and everything is there once, whatever the shape of the tree."""
    configured(filesystem.root, 4, monkeypatch)
    rng = random.Random(5)
    source = filesystem.root / "source"
    folders = [source]
    source.mkdir()
    for number in range(400):
        folders.append(rng.choice(folders[-6:]) / f"folder-{number}")
        folders[-1].mkdir()
        write(folders[-1] / "file", f"{number}")
    settle(source)
    before = recorded(source)
    report = clone(source, filesystem.root / "copy")
    assert report.total == report.directories == 400
    assert unlike(source, filesystem.root / "copy", before) == []


@local
def test_command_reports_what_was_done(filesystem: Filesystem, holo: Holo) -> None:
    source = small(filesystem.root / "source")
    report = holo("clone", source, "copy", "--relocate", "--json", cwd=filesystem.root).json()
    assert report["source"] == str(source)
    assert report["path"] == str(filesystem.root / "copy")
    assert report["files"]["total"] == report["files"]["reflinked"] + report["files"]["copied"] == 4
    assert report["files"]["relocated"] == 1
    assert report["bytes"]["total"] == report["bytes"]["shared"] + report["bytes"]["written"]
    shown = holo("clone", source, filesystem.root / "second").stdout
    assert shown.startswith(f"cloned {source} to {filesystem.root}/second in ")
    assert not holo.home.exists()


def test_clone_is_part_of_the_api() -> None:
    assert holo.clone is clone
    assert isinstance(holo.CloneReport, type)
