"""Where `-o` leads: a device or a pipe takes the bytes and stays what it is, and a symlink leads on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support import trees
from support.cli import Holo

pytestmark = pytest.mark.parametrize("command", ["export", "sbom"])
local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def expected(holo: Holo, command: str) -> bytes:
    trees.small(holo.root / "source")
    holo("record", holo.root / "source", "--name", "app")
    holo(command, "app", "-o", holo.root / "plain")
    return (holo.root / "plain").read_bytes()


@local
def test_a_device_is_not_replaced(holo: Holo, command: str, expected: bytes) -> None:
    device = holo.root / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError:
        pytest.skip("this user, or this filesystem, has no devices")
    holo(command, "app", "-o", device)
    assert stat.S_ISCHR(device.lstat().st_mode)


@local
def test_a_pipe_gets_the_bytes(holo: Holo, command: str, expected: bytes) -> None:
    pipe = holo.root / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        holo(command, "app", "-o", pipe)
        assert reader.communicate()[0] == expected
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@local
@pytest.mark.parametrize("exists", [True, False])
def test_a_symlink_leads_to_the_file(exists: bool, holo: Holo, command: str, expected: bytes) -> None:
    target, link = holo.root / "folder" / "target", holo.root / "link"
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(Path("folder", "target"))
    holo(command, "app", "-o", link)
    assert link.is_symlink()
    assert target.read_bytes() == expected


@local
@pytest.mark.parametrize("mode", [0o600, 0o666, None])
def test_a_file_keeps_its_mode_and_a_new_one_has_what_the_umask_leaves(
    mode: int | None, holo: Holo, command: str, expected: bytes
) -> None:
    target = holo.root / "target"
    if mode is not None:
        target.write_bytes(b"old")
        target.chmod(mode)
    holo.launcher = ("sh", "-c", 'umask 002 && exec "$@"', "sh")
    holo(command, "app", "-o", target)
    assert target.read_bytes() == expected
    assert stat.S_IMODE(target.stat().st_mode) == (0o664 if mode is None else mode)


@pytest.mark.parametrize("name", ["n" * 251 + ".out", "\u00e9" * 125 + ".html", "\u4e00" * 84 + ".o"], ids=len)
def test_a_name_may_be_as_long_as_the_filesystem_allows(name: str, holo: Holo, command: str, expected: bytes) -> None:
    """The draft beside it has no longer one."""
    folder = holo.root / "outputs"
    folder.mkdir()
    holo(command, "app", "-o", folder / name)
    assert (folder / name).read_bytes() == expected
    assert [path.name for path in folder.iterdir()] == [name]


@local
@pytest.mark.parametrize(
    ("name", "code", "why", "hint"),
    [
        ("none/file", 1, "No such file or directory", "Its folder is not there"),
        ("/proc/file", 1, "No such file or directory", "or takes no files"),
        ("folder", 1, "Is a directory", "Name a file in it."),
        ("loop", 1, "Too many levels of symbolic links", "A symlink there leads back to itself"),
        ("plain/file", 1, "Not a directory", "Something other than a folder may be there"),
        ("n" * 300, 1, "File name too long", "Choose a shorter name."),
        ("new/", 2, "names no file", "Write the name"),
        ("", 2, "names no file", "Write the name"),
    ],
)
def test_what_cannot_be_written_has_a_hint(
    name: str, code: int, why: str, hint: str, holo: Holo, command: str, expected: bytes
) -> None:
    (holo.root / "folder").mkdir()
    (holo.root / "loop").symlink_to("loop")
    before = sorted(os.listdir(holo.root))
    said = holo(command, "app", "-o", name, code=code, cwd=holo.root).stderr
    assert why in said
    assert hint in said.partition("\nhint: ")[2]
    assert sorted(os.listdir(holo.root)) == before


@local
@pytest.mark.parametrize("flag", ["rw", "ro"])
def test_a_mounted_file_is_written_to(flag: str, holo: Holo, command: str, expected: bytes) -> None:
    """As in a container that was given one file. Its folder there may belong to somebody else."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    outside, folder = holo.root / "outside", holo.root / "folder"
    outside.write_bytes(b"old" + bytes(1 << 20))
    outside.chmod(0o640)
    folder.mkdir()
    (folder / "inside").touch()
    script = f'mount --bind "$0" "$0" && mount --bind "$1" "$0/inside" && mount -o remount,bind,{flag} "$0" && shift'
    holo.launcher = ("unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', folder, outside)
    holo(command, "app", "-o", folder / "inside")
    assert outside.read_bytes() == expected
    assert stat.S_IMODE(outside.stat().st_mode) == 0o640
    assert os.listdir(folder) == ["inside"]


@local
@pytest.mark.parametrize("name", ["/proc/self/fd/1", "/dev/fd/1"])
def test_standard_output_by_its_name(name: str, holo: Holo, command: str, expected: bytes) -> None:
    """What a log held before stays, and nothing comes behind the document."""
    log = holo.root / "log"
    log.write_bytes(b"before\n")
    line = [sys.executable, "-m", "holo", command, "app", "-o", name]
    with log.open("ab") as file:
        subprocess.run(line, stdout=file, env=holo.environment(), check=True)
    assert log.read_bytes() == b"before\n" + expected


@pytest.mark.parametrize("filesystem", ["local", "xfs"], indirect=True)
@pytest.mark.parametrize("mode", ["w", "a"])
def test_a_file_that_another_program_has_begun(mode: str, holo: Holo, command: str, expected: bytes) -> None:
    """Nothing is cloned to where the bundle would lie if the file began with it."""
    with (holo.root / "log").open(f"{mode}b") as file:
        file.write(b"before\n")
        file.flush()
        line = [sys.executable, "-m", "holo", command, "app", "-o", "-"]
        subprocess.run(line, stdout=file, env=holo.environment(), check=True)
    assert (holo.root / "log").read_bytes() == b"before\n" + expected
