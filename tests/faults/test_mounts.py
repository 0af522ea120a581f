"""What is mounted in a place that holo changes is not holo's, at whatever moment it appears there."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from holo.platform import linux
from support import compare, trees
from support.cli import Holo
from support.faults import Outcome, Supervisor
from support.filesystems import Filesystem
from support.scenarios import spread

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")

Note = Callable[[int, str, int], None]

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

MOUNT = ("sh", "-c", 'mount --bind "$0" "$1" 2>/dev/null; true')
"""Whether or not there is still something to mount it at."""

WITHOUT_PROC = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
"""As in a chroot that nobody has mounted /proc in."""


@pytest.fixture
def space(holo: Holo) -> Iterator[Path]:
    """The directory of a space ``one`` that a program has changed."""
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    space = holo.root / "space"
    holo("init", "--space", "one", "env", "--to", space)
    change(space)
    yield space
    unmount_all(holo.root)


@pytest.fixture
def data(filesystem: Filesystem) -> Path:
    """Somebody's files, on the same filesystem."""
    data = filesystem.root / "data"
    trees.write(data / "file", b"irreplaceable")
    trees.write(data / "below" / "other", b"irreplaceable as well")
    trees.write(data / "deep" / "er" / "leaf", b"named like one of the environment's")
    return trees.settle(data)


def change(space: Path) -> None:
    (space / "extra" / "m").mkdir(parents=True, exist_ok=True)
    trees.write(space / "extra" / "m" / "file", b"no longer wanted")
    trees.write(space / "extra" / "single", b"no longer wanted")
    trees.write(space / "lib" / "deep" / "new", b"no longer wanted")
    trees.write(space / "lib" / "data.txt", b"changed")


def points_below(root: Path) -> list[str]:
    """Where something is mounted below a folder, the last first."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [line[4] for line in reversed(lines) if line[4].startswith(f"{root}/")]


def unmount_all(root: Path) -> None:
    for point in points_below(root):
        subprocess.run(["umount", point], check=True)


@contextmanager
def mounted(what: Path, point: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", what, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


# -- while a space is changed -----------------------------------------------------------------------------------------


@pytest.mark.torture
@pytest.mark.parametrize("command", [("restore",), ("restore", "--strategy", "copy"), ("delete",)], ids="-".join)
def test_mount_in_a_space_at_any_moment_is_not_touched(
    holo: Holo, space: Path, data: Path, supervisor: Supervisor, command: tuple[str, ...], torture: bool, faults: Note
) -> None:
    """Before a call that opens, lists or removes something."""
    only = ("openat", "openat2", "getdents64", "unlinkat", "renameat2")
    before = compare.snapshot(data)
    problems = []
    met = set()
    for where in ("extra", "extra/m", "lib/deep", "extra/single"):
        mount = (*MOUNT, data / "file" if where == "extra/single" else data, space / where)

        def run(*arguments: str | Path, at: int = 0, mount: Sequence[str | Path] = mount) -> Outcome:
            return supervisor.run(holo.root, arguments, holo.environment(), at=at, command=mount, reads=True, only=only)

        calls = run(*command, "--space", "one").calls
        numbers = spread(len(calls), 200 if torture else 5)
        faults(7, "something mounted in a space while holo works", len(numbers))
        for number in numbers:
            holo("init", "--space", "one", "env", "--to", space)
            change(space)
            outcome = run(*command, "--space", "one", at=number)
            still = points_below(holo.root)
            if compare.snapshot(data) != before:
                problems.append(f"{where}, {outcome.calls[-1]}: {compare.snapshot(data)}")
            if outcome.code == 1 and len(still) == 1 and still[0] in outcome.stderr:
                met.add(where)
            elif outcome.code != 0:
                problems.append(f"{where}, {outcome.calls[-1]}: {outcome.code} {outcome.stderr}")
            unmount_all(holo.root)
            if outcome.code != 0:
                holo("restore", "--space", "one")
                assert compare.differences(holo.root / "source", space, library=holo.library) == []
    assert problems == []
    assert met == {"extra", "extra/m", "lib/deep", "extra/single"}


@pytest.mark.parametrize("strategy", ["smart", "copy"])
@pytest.mark.parametrize("command", ["restore", "delete"])
def test_mount_over_a_space_is_not_touched(
    holo: Holo, space: Path, data: Path, supervisor: Supervisor, command: str, strategy: str
) -> None:
    """When what was there has just been looked at: the space is said to be changed then."""
    order = {"restore": ("restore", "--strategy", strategy), "delete": ("delete",)}[command]
    only = {"only": ("rename",)}
    before = compare.snapshot(data)
    outcome = supervisor.run(
        holo.root, (*order, "--space", "one"), holo.environment(), at=1, command=(*MOUNT, data, space), **only
    )
    assert outcome.calls[-1].path == "home/holotree/.spaces/one.json"
    assert outcome.code == 1
    assert f"something is mounted at {space}; unmount it first" in outcome.stderr
    assert compare.snapshot(data) == before
    unmount_all(holo.root)
    assert holo.listed()["one"]["state"] == "restoring"
    holo("restore", "--space", "one")
    assert compare.differences(holo.root / "source", space, library=holo.library) == []


def test_mount_during_a_restore_is_not_touched(holo: Holo, data: Path) -> None:
    """As the user has it who found this: at no chosen moment, while something large is removed."""
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    space = holo.root / "space"
    holo("init", "--space", "one", "env", "--to", space)
    for number in range(3000):
        trees.write(space / "large" / f"{number}" / "entry", b"x")
    before = compare.snapshot(data)
    process = holo.start("restore", "--space", "one", "--strategy", "copy")
    while len(left := os.listdir(space / "large")) == 3000 and process.poll() is None:
        pass
    point = space / "large" / left[-1]
    subprocess.run([*MOUNT, data, point], check=True)
    _, said = process.communicate()
    assert compare.snapshot(data) == before
    assert process.returncode == 1
    assert f"something is mounted at {point}; unmount it first" in said
    unmount_all(holo.root)
    assert holo.listed()["one"]["state"] == "restoring"
    holo("restore", "--space", "one")
    assert compare.differences(holo.root / "source", space, library=holo.library) == []


def test_a_space_that_is_a_mount_point(holo: Holo, space: Path, filesystem: Filesystem) -> None:
    """A volume of its own is a good place for a space. What is in it is the space's, and the mount point stays."""
    volume = filesystem.root / "volume"
    place = filesystem.root / "place"
    for folder in (volume, place):
        folder.mkdir()
    with mounted(volume, place):
        holo("init", "--space", "two", "env", "--to", place)
        change(place)
        holo("restore", "--space", "two")
        assert compare.differences(holo.root / "source", place, library=holo.library) == []
        holo("delete", "--space", "two")
        assert "two" not in holo.listed()
        assert list(place.iterdir()) == []
    assert list(volume.iterdir()) == []


@pytest.mark.parametrize("command", ["restore", "delete"])
def test_mount_at_the_place_of_a_space_is_refused(holo: Holo, space: Path, data: Path, command: str) -> None:
    """Mounted before the command began: the space is what the last restore left there, not the path."""
    before = compare.snapshot(data)
    with mounted(data, space):
        said = holo(command, "--space", "one", code=1).stderr
        assert f"what is mounted at {space} is not space 'one'" in said
        assert compare.snapshot(data) == before
        if command == "restore":
            holo("restore", "--space", "one", "--force")
            assert compare.differences(holo.root / "source", space, library=holo.library) == []
    if command == "restore":  # the last one left there what is unmounted now
        holo("restore", "--space", "one", code=1)
    holo("restore", "--space", "one", *(["--force"] if command == "restore" else []))
    assert compare.differences(holo.root / "source", space, library=holo.library) == []


# -- where nobody can tell --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [("restore", "--space", "one"), ("delete", "--space", "one"), ("record", "space"), ("clone", "space", "copy")],
    ids=lambda command: command[0],
)
def test_unreadable_mount_list_refuses_changes(holo: Holo, space: Path, data: Path, command: tuple[str, ...]) -> None:
    before, catalogs = compare.snapshot(data), holo("catalogs", "--json").stdout
    with mounted(data, space / "extra" / "m"):
        holo.launcher = WITHOUT_PROC
        said = holo(*command, code=1).stderr
        assert "nobody can tell whether something is mounted inside" in said
        assert "Mount /proc first" in said
        assert compare.snapshot(data) == before
        holo.launcher = ()
        assert holo.listed()["one"]["state"] == "changed"
        assert holo("catalogs", "--json").stdout == catalogs
        assert not (holo.root / "copy").exists()


@local
def test_new_space_needs_no_mount_list(holo: Holo, space: Path) -> None:
    holo.launcher = WITHOUT_PROC
    new = holo.root / "new"
    holo("init", "--space", "two", "env", "--to", new)
    assert compare.differences(holo.root / "source", new, library=holo.library) == []


# -- what is only read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["record", "clone"])
@pytest.mark.parametrize("later", [False, True], ids=["before", "meanwhile"])
def test_what_is_mounted_in_a_tree_is_no_part_of_it(
    holo: Holo, data: Path, supervisor: Supervisor, command: str, later: bool
) -> None:
    tree = trees.small(holo.root / "source")
    point = tree / "lib" / "deep"
    order = {"record": ("record", tree, "--name", "env"), "clone": ("clone", tree, holo.root / "copy")}[command]
    with ExitStack() as mounts:
        if later:
            only = {"only": ("getdents64",), "reads": True}
            outcome = supervisor.run(holo.root, order, holo.environment(), at=1, command=(*MOUNT, data, point), **only)
            mounts.callback(unmount_all, holo.root)
            code, said = outcome.code, outcome.stderr
        else:
            mounts.enter_context(mounted(data, point))
            code, said = 1, holo(*order, code=1).stderr
        copied = holo.root / "copy" / "lib" / "deep"
        if later and command == "clone" and code == 0:  # a snapshot of a subvolume has only what is not mounted
            assert (copied / "er" / "leaf").read_bytes() == b"leaf"
        else:
            assert (code, f"{point} is mounted inside {tree}" in said) == (1, True), said
            assert holo("catalogs", "--json").json()["catalogs"] == []
            assert not copied.exists()
    assert [path for path in holo.root.iterdir() if path.name.startswith(".holo")] == []


@pytest.mark.parametrize("command", ["record", "clone"])
def test_a_tree_may_be_a_mount_point(holo: Holo, filesystem: Filesystem, command: str) -> None:
    tree = trees.small(holo.root / "source")
    place = filesystem.root / "place"
    place.mkdir()
    with mounted(tree, place):
        if command == "record":
            holo("record", place, "--name", "env")
            holo("init", "--space", "one", "env", "--to", holo.root / "copy", "--strategy", "copy")
        else:
            holo("clone", place, holo.root / "copy")
    assert compare.differences(tree, holo.root / "copy", old=place) == []


# -- in holo's own folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "hololib/library/.draft-1-2-3/m",
        "hololib/library/00/.draft-1-2-3",
        "hololib/golden/.draft-1-2-3/a/m",
        "holotree/.build-0123456789abcdef/m",
        "holotree/.ephemeral-0/runs/0123456789abcdef/upper/m",
        "holotree/.ephemeral-0/trees/1111111111111111111111111111111111111111111111111111111111111111.draft/m",
    ],
)
def test_garbage_with_a_mount_inside_is_kept(holo: Holo, space: Path, data: Path, where: str) -> None:
    point = holo.home / where
    point.mkdir(parents=True)
    (holo.holotree / ".ephemeral-0").mkdir(exist_ok=True)
    (holo.holotree / ".ephemeral-0").chmod(0o700)
    before = compare.snapshot(data)
    subprocess.run(["mount", "--bind", data, point], check=True)
    _, said = holo.start("gc").communicate()
    assert compare.snapshot(data) == before
    (still,) = points_below(holo.root)  # it may be called otherwise now: half of what is whole by its name
    assert f"something is mounted at {still}; unmount it first" in said
    unmount_all(holo.root)
    holo("gc")
    assert not point.exists()
    assert not Path(still).exists()


# -- one directory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_openat2", [True, False], ids=["openat2", "fdinfo"])
def test_open_refuses_mount_points(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, has_openat2: bool) -> None:
    def missing() -> Any:
        def openat2(parent: int, name: str, flags: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        return openat2

    if not has_openat2:
        monkeypatch.setattr(linux, "_openat2", missing)
    root = filesystem.root
    for name in ("plain", "bound", "over"):
        (root / name).mkdir()
    os.symlink("plain", root / "link")
    (root / "file").touch()
    if filesystem.name == "btrfs":
        subprocess.run(["btrfs", "-q", "subvolume", "create", root / "subvolume"], check=True)
    top = linux.open_root(str(root))
    try:
        with mounted(root / "plain", root / "bound"), ExitStack() as mounts:
            subprocess.run(["mount", "-t", "tmpfs", "none", root / "over"], check=True)
            mounts.callback(subprocess.run, ["umount", root / "over"], check=True)
            for name in ("bound", "over"):
                with pytest.raises(OSError, match=f"something is mounted at {root}/{name}; unmount it") as caught:
                    linux.open_unmounted(top, name)
                assert caught.value.errno == errno.EBUSY
        for name in ("plain", "bound", "over", *(["subvolume"] if filesystem.name == "btrfs" else [])):
            directory = linux.open_unmounted(top, name)
            assert os.path.samestat(os.fstat(directory), os.stat(root / name))
            assert not os.get_inheritable(directory)
            linux.close_directory(directory)
        for name, number in (("link", errno.ENOTDIR), ("file", errno.ENOTDIR), ("none", errno.ENOENT)):
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                linux.open_unmounted(top, name)
            assert caught.value.errno == number
    finally:
        linux.close_directory(top)
