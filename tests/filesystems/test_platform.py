"""One suite of behaviours for every platform module: the Linux one, and the one for everything else."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holo import platform
from holo.platform import portable, probe
from support.filesystems import Filesystem, Mounts

modules: list[ModuleType] = [portable]
if sys.platform == "linux":
    from holo.platform import linux

    modules.append(linux)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tests make POSIX modes, pipes and symlinks")

NAMES = [
    "plain",
    "with space",
    "new\nline",
    "\U0001f40d",
    os.fsdecode(b"not utf-8 \xff\xfe"),
    "-x",
    "x" * 255,
]
TIME = 1_234_567_890_123_456_789


@pytest.fixture(params=modules, ids=lambda module: module.__name__.rpartition(".")[2])
def system(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def root(system: Any, tmp_path: Path) -> Iterator[Any]:
    directory = system.open_root(str(tmp_path))
    yield directory
    system.close_directory(directory)


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    def count() -> int:
        return len(os.listdir("/dev/fd"))

    before = count()
    yield
    assert count() <= before  # what tests before this one have left may be closed meanwhile


@contextlib.contextmanager
def raises(*codes: int) -> Iterator[None]:
    with pytest.raises(OSError, match=r"^\[Errno") as caught:
        yield
    assert caught.value.errno in codes


def test_both_have_what_the_package_promises(system: Any) -> None:
    assert not [name for name in platform.__all__ if not hasattr(system, name)]


@pytest.mark.parametrize("name", [name for name in platform.__all__ if name.islower()])
def test_both_are_called_alike(name: str) -> None:
    signatures = {tuple(inspect.signature(getattr(system, name)).parameters) for system in modules}
    assert len(signatures) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
def test_identity_is_not_made_up_when_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another identity than before would be that of a copy."""

    def fail(code: int) -> Callable[..., None]:
        def ioctl(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        return ioctl

    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as file:
        for code in (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.EROFS):
            monkeypatch.setattr(linux.fcntl, "ioctl", fail(code))
            with raises(code):
                linux.identity(file.fileno())
        monkeypatch.setattr(linux.fcntl, "ioctl", fail(errno.ENOTTY))
        assert isinstance(linux.identity(file.fileno()), str)


# --- directories ------------------------------------------------------------------------------


def test_open_root_follows_the_users_symlinks(system: Any, tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    directory = system.open_root(str(tmp_path / "link"))
    assert stat.S_ISDIR(system.status(directory, "inner").st_mode)
    system.close_directory(directory)


def test_open_root_needs_a_directory(system: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with raises(errno.ENOTDIR):
        system.open_root(str(tmp_path / "file"))
    with raises(errno.ENOENT):
        system.open_root(str(tmp_path / "nothing"))


def test_open_child_never_follows(system: Any, root: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with raises(errno.ENOTDIR, errno.ELOOP):
            system.open_child(root, name)
    with raises(errno.ENOENT):
        system.open_child(root, "nothing")


@pytest.mark.parametrize("name", NAMES)
def test_directories(system: Any, root: Any, tmp_path: Path, name: str) -> None:
    system.make_directory(root, name, 0o700)
    child = system.open_child(root, name)
    system.make_directory(child, "inner", 0o700)
    with system.listing(child) as entries:
        assert [entry.name for entry in entries] == ["inner"]
    with raises(errno.ENOTEMPTY, errno.EEXIST):
        system.remove_directory(root, name)
    system.remove_directory(child, "inner")
    system.set_directory(child, 0o750, TIME)
    found = system.status(child, "")
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o750, TIME)
    system.set_directory(child, 0o700, None)
    found = system.status(child, "")
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o700, TIME)
    system.close_directory(child)
    system.remove_directory(root, name)
    assert os.listdir(tmp_path) == []


def test_make_accessible(system: Any, root: Any, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "link").symlink_to("closed")
    with raises(errno.ENOTDIR, errno.ELOOP):
        system.make_accessible(root, "link")
    assert stat.S_IMODE(system.status(root, "closed").st_mode) == 0
    system.make_accessible(root, "closed")
    assert stat.S_IMODE(system.status(root, "closed").st_mode) == 0o700


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_files(system: Any, root: Any, tmp_path: Path, name: str) -> None:
    descriptor = system.create_file(root, name, 0o600)
    os.write(descriptor, b"content")
    system.set_file(descriptor, TIME, 0o640)
    os.close(descriptor)
    found = system.status(root, name)
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns, found.st_size) == (0o640, TIME, 7)

    descriptor = system.open_file(root, name)
    assert os.read(descriptor, 100) == b"content"
    system.set_file(descriptor, TIME - 1)
    os.close(descriptor)
    found = system.status(root, name)
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o640, TIME - 1)

    with raises(errno.EEXIST):
        system.create_file(root, name, 0o600)
    system.remove_file(root, name)
    assert os.listdir(tmp_path) == []


def test_the_umask_applies_to_new_files(system: Any, root: Any) -> None:
    before = os.umask(0o027)
    try:
        os.close(system.create_file(root, "file", 0o666))
    finally:
        os.umask(before)
    assert stat.S_IMODE(system.status(root, "file").st_mode) == 0o640


def test_files_below(system: Any, root: Any, tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/file").write_bytes(b"x")
    descriptor = system.open_file(root, "ab/file")
    assert os.read(descriptor, 2) == b"x"
    os.close(descriptor)


def test_symlinks_are_not_opened_nor_written_through(system: Any, root: Any, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("elsewhere")
    with raises(errno.ELOOP):
        system.open_file(root, "link")
    for name in ("link", "dangling"):
        with raises(errno.EEXIST):
            system.create_file(root, name, 0o600)
    assert not (tmp_path / "elsewhere").exists()


def test_opening_a_pipe_does_not_wait(system: Any, root: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.close(system.open_file(root, "pipe"))


def test_descriptors_are_not_inherited(system: Any, root: Any) -> None:
    first = system.create_file(root, "file", 0o600)
    second = system.open_file(root, "file")
    assert not os.get_inheritable(first)
    assert not os.get_inheritable(second)
    os.close(first)
    os.close(second)


def test_rename_replaces(system: Any, root: Any, tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "new").write_text("new")
    (tmp_path / "ab/old").write_text("old")
    system.rename(root, "new", root, "ab/old")
    assert (tmp_path / "ab/old").read_text() == "new"
    assert os.listdir(tmp_path) == ["ab"]


def test_link(system: Any, root: Any, tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/blob").write_text("x")
    system.link(root, "ab/blob", root, "file")
    assert system.status(root, "file").st_ino == system.status(root, "ab/blob").st_ino
    with raises(errno.EEXIST):
        system.link(root, "ab/blob", root, "file")


@pytest.mark.parametrize("target", ["plain", "/absolute", "../up", "no/such", os.fsdecode(b"\xff")])
def test_symlinks(system: Any, root: Any, tmp_path: Path, target: str) -> None:
    (tmp_path / "plain").touch()
    system.make_symlink(target, root, "link", TIME)
    assert system.read_link(root, "link") == target
    found = system.status(root, "link")
    assert stat.S_ISLNK(found.st_mode)
    assert found.st_mtime_ns == TIME
    system.remove_file(root, "link")
    assert os.listdir(tmp_path) == ["plain"]


# --- content ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_clone(system: Any, filesystem: Filesystem, name: str) -> None:
    (filesystem.root / "from").mkdir()
    blob = filesystem.root / "from/blob"
    blob.write_bytes(b"content" * 10_000)
    blob.chmod(0o444)
    source_directory = system.open_root(str(filesystem.root / "from"))
    directory = system.open_root(str(filesystem.root))
    source = system.open_file(source_directory, "blob")
    before = os.umask(0o027)
    try:
        if not filesystem.reflinks:
            with raises(*system.UNAVAILABLE):
                system.clone(source, source_directory, "blob", directory, name, 0o477)
            assert os.listdir(filesystem.root) == ["from"]
            return
        target = system.clone(source, source_directory, "blob", directory, name, 0o477)
        assert stat.S_IMODE(os.fstat(target).st_mode) == 0o450
        assert os.pread(target, 1 << 20, 0) == b"content" * 10_000
        os.pwrite(target, b"CHANGED", 0)
        os.close(target)
        assert blob.read_bytes().startswith(b"content")
        with raises(errno.EEXIST):
            system.clone(source, source_directory, "blob", directory, name, 0o600)
        assert system.status(directory, name).st_size == 70_000
    finally:
        os.umask(before)
        os.close(source)
        system.close_directory(directory)
        system.close_directory(source_directory)


def test_copy_range(system: Any, filesystem: Filesystem) -> None:
    root = system.open_root(str(filesystem.root))
    (filesystem.root / "source").write_bytes(b"0123456789")
    source = system.open_file(root, "source")
    target = system.create_file(root, "target", 0o600)
    try:
        with contextlib.ExitStack() as expected:
            if system is portable:
                expected.enter_context(raises(errno.ENOSYS))
            assert system.copy_range(source, target, 2, 3) == 3
            assert system.copy_range(source, target, 5, 100) == 5
            assert system.copy_range(source, target, 10, 100) == 0
            assert (filesystem.root / "target").read_bytes() == b"\0\x0023456789"
        assert errno.ENOSYS in system.UNAVAILABLE
    finally:
        os.close(source)
        os.close(target)
        system.close_directory(root)


def test_xattrs(system: Any, filesystem: Filesystem) -> None:
    root = system.open_root(str(filesystem.root))
    descriptor = system.create_file(root, "file", 0o600)
    try:
        assert system.get_xattrs(descriptor) == system.get_xattrs(root) == {}
        if system is portable or not filesystem.xattrs:
            with raises(errno.ENOTSUP):
                system.set_xattr(descriptor, "user.holo", b"value")
            return
        for where in (descriptor, root):
            system.set_xattr(where, "user.holo", b"\0value\xff")
            assert system.get_xattrs(where) == {"user.holo": b"\0value\xff"}
            system.set_xattr(where, "user.holo", None)
            assert system.get_xattrs(where) == {}
    finally:
        os.close(descriptor)
        system.close_directory(root)


def test_sync_filesystem(system: Any, root: Any) -> None:
    system.sync_filesystem(root)


def test_enospc_is_a_failure(system: Any) -> None:
    for code in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
        assert code not in system.UNAVAILABLE


def test_reflink_errors_get_their_number() -> None:
    """reflink_copy raises errors whose number is in the text only."""
    codes = {
        "No space left on device (os error 28)": errno.ENOSPC,
        "Operation not supported (os error 95)": errno.EOPNOTSUPP,
        "this volume cannot do that": errno.EOPNOTSUPP,
    }
    for text, code in codes.items():
        assert portable._with_errno(OSError(text), "path").errno == code


def test_a_file_is_made_durable_where_the_medium_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux refuses F_FULLFSYNC as network filesystems of macOS do."""
    synced: list[int] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("fcntl.F_FULLFSYNC", 51, raising=False)  # sys/fcntl.h of macOS
    monkeypatch.setattr(os, "fsync", synced.append)
    with (tmp_path / "file").open("w") as file:
        portable.sync_file(file.fileno())
        assert synced == [file.fileno()]


def test_clones_take_turns_where_the_volume_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []

    def reflink(_: str, path: str) -> None:
        at_once.append(1)
        assert len(at_once) == 1
        time.sleep(0.01)
        at_once.pop()
        Path(path).touch()

    monkeypatch.setattr("reflink_copy.reflink", reflink)
    monkeypatch.setattr(portable, "_turn_to_clone", threading.Lock())

    def clone(number: int) -> None:
        os.close(portable.clone(-1, str(tmp_path), "source", str(tmp_path), str(number), 0o644))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(clone, range(8)))


# --- locks ------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_locks(system: Any, tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with opened(file) as first, opened(file) as second:
        assert system.lock(first, exclusive=False, wait=False)
        assert system.lock(second, exclusive=False, wait=True)
    with opened(file) as first, opened(file) as second:
        assert system.lock(first, exclusive=True, wait=True)
        assert not system.lock(second, exclusive=True, wait=False)
        assert not system.lock(second, exclusive=False, wait=False)
    with opened(file) as third:
        assert system.lock(third, exclusive=True, wait=False)


def test_free_space_is_what_this_user_may_write(system: Any, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert abs(system.free_space(str(tmp_path)) - free) < max(free // 2, 1 << 20)  # others write meanwhile


def test_a_lock_dies_with_its_process(system: Any, tmp_path: Path) -> None:
    file = tmp_path / "lock"
    code = (
        f"import os, sys, {system.__name__} as system\n"
        "descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "assert system.lock(descriptor, exclusive=True, wait=False)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with holder, opened(file) as descriptor:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        assert not system.lock(descriptor, exclusive=True, wait=False)
        holder.kill()
        assert system.lock(descriptor, exclusive=True, wait=True)


# --- what a faithful copy needs -----------------------------------------------------------------


def test_rename_new_replaces_nothing(system: Any, root: Any, tmp_path: Path) -> None:
    for name in ("one", "two", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for taken in ("two", "empty", "dangling"):
        with raises(errno.EEXIST):
            system.rename_new(root, "one", taken)
    system.rename_new(root, "one", "new")
    assert sorted(os.listdir(tmp_path)) == ["dangling", "empty", "new", "two"]


def test_data_ranges(system: Any, root: Any, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(3_000_000)
        for position in (0, 2_000_000):
            file.seek(position)
            file.write(b"island")
    (tmp_path / "dense").write_bytes(b"x" * 100_000)
    (tmp_path / "empty").touch()
    for name, size in (("sparse", 3_000_000), ("dense", 100_000), ("empty", 0)):
        descriptor = system.open_file(root, name)
        content = bytearray(size)
        found = [*system.data_ranges(descriptor, size)]
        for start, end in found:
            content[start:end] = system.read_at(descriptor, end - start, start)
        assert content == (tmp_path / name).read_bytes()
        has_holes = system is not portable and name == "sparse"
        assert system.has_holes(descriptor, size) == has_holes
        assert found == [(0, size)] * (size > 0) or has_holes
        assert system.read_at(descriptor, 10, size) == b""
        os.close(descriptor)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_copy_content(system: Any, root: Any, tmp_path: Path, size: int) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.write(b"head")
        file.truncate(max(4, size))
        file.seek(0, os.SEEK_END)
        file.write(b"tail")
    source, target = system.open_file(root, "source"), system.create_file(root, "target", 0o600)
    status = os.fstat(source)
    system.copy_content(source, target, status)
    system.set_times(target, status)
    os.close(source)
    os.close(target)
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert (tmp_path / "target").stat().st_mtime_ns == status.st_mtime_ns


def test_open_to_change(system: Any, root: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "link").symlink_to("file")
    file = system.open_to_change(root, "file")
    os.write(file, b"behind")
    os.close(file)
    assert (tmp_path / "file").read_bytes() == b"behind"
    with raises(errno.ELOOP):
        system.open_to_change(root, "link")


def test_fifos_and_links(system: Any, root: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o640)
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("fifo", "link"):
        os.utime(tmp_path / name, ns=(TIME, TIME + 1), follow_symlinks=False)
    status = system.status(root, "fifo")
    system.make_special(root, "other", status)
    assert system.finish_link(root, "fifo", root, "other", status) == (True, True)
    made = system.status(root, "other")
    assert (made.st_mode, made.st_mtime_ns) == (status.st_mode, TIME + 1)
    status = system.status(root, "link")
    system.make_symlink("nowhere", root, "second", 0)
    assert system.finish_link(root, "link", root, "second", status) == (True, True)
    assert system.status(root, "second").st_mtime_ns == TIME + 1


def test_owner_and_attributes(system: Any, root: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").touch()
    file, other = system.open_file(root, "file"), system.open_file(root, "other")
    assert system.set_owner(other, os.fstat(file))
    assert system.copy_xattrs(file, other, system.xattrs_of(file))
    system.remove_xattrs(root)
    os.close(file)
    os.close(other)
    assert not system.is_tree(root)


# ---------------------------------------------------------------- trying out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
@pytest.mark.parametrize("elsewhere", [True, False])
def test_trying_changes_no_rights_of_a_folder(mounts: Mounts, elsewhere: bool) -> None:
    """It may be the user's, and who is killed meanwhile would leave it so."""
    root = mounts.get("ext4") / f"trying-{elsewhere}"
    for folder in (root / "library", mounts.get("xfs") / "trying" if elsewhere else root / "private"):
        folder.mkdir(parents=True)
        os.chown(folder, 1001, 1001)
    folder.chmod(0o500)
    before = folder.stat()
    source, target = (platform.open_root(str(path)) for path in (root / "library", folder))
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setresuid(1001, 1001, 1001)
        os.write(write, f"{probe.hardlink(source, target)}, {probe.reflink(source, target)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    for descriptor in (source, target, write):
        os.close(descriptor)  # type: ignore[arg-type]
    with os.fdopen(read) as said:
        hardlink, reflink = said.read().split(", ")
    assert hardlink == ("Invalid cross-device link" if elsewhere else "Permission denied")
    assert reflink == "Permission denied"
    assert folder.stat().st_mode == before.st_mode
    assert [*folder.iterdir(), *(root / "library").iterdir()] == []


def test_blocks_of_a_clone_are_shared(filesystem: Filesystem) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells")
    file = filesystem.root / "file"
    file.write_bytes(b"x" * 40960)
    subprocess.run(["cp", "--reflink=auto", file, filesystem.root / "clone"], check=True)
    with (filesystem.root / "clone").open("r+b") as clone:
        clone.write(b"y" * 4096)
    os.sync()
    descriptor = os.open(filesystem.root / "clone", os.O_RDONLY)
    try:
        blocks = linux.blocks_of(descriptor)
    finally:
        os.close(descriptor)
    if filesystem.name == "tmpfs":
        assert blocks is None
    elif filesystem.reflinks:
        assert (blocks.own, blocks.pending, blocks.is_inline) == (4096, 0, False)
        assert sum(place.length for place in blocks.places) == 40960 - 4096
    else:
        assert (blocks.own, blocks.places) == (40960, [])
    with platform.closing(platform.open_root(str(filesystem.root))) as directory:
        assert linux.volume_of(directory).can_share is (filesystem.name != "ext4")
    assert portable.volume_of(str(filesystem.root)).can_share


@pytest.mark.skipif(sys.platform != "linux", reason="there are no subvolumes elsewhere")
def test_all_subvolumes_are_on_one_disk(mounts: Mounts) -> None:
    root = mounts.get("btrfs")
    inner = root / "inner-volume"
    subprocess.run(["btrfs", "-q", "subvolume", "create", inner], check=True)
    try:
        assert inner.stat().st_dev != root.stat().st_dev
        volumes = set()
        for path in (root, inner):
            with platform.closing(platform.open_root(str(path))) as directory:
                volumes.add(linux.volume_of(directory))
        (volume,) = volumes
        assert volume.keeps_extents
    finally:
        subprocess.run(["btrfs", "-q", "subvolume", "delete", inner], check=True)
