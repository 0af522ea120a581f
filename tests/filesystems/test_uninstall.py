"""`holo uninstall`: all that holo ever made goes, nothing else does, and the spaces only after a question."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holo.bench.scratch import scratch
from support import compare, trees
from support.cli import Holo
from support.filesystems import Filesystem, unmount
from support.forks import Forks, User

ROOT = Path(__file__).parents[2]
ADA = User(1001)

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and become another user")


@pytest.fixture
def used(holo: Holo) -> Holo:
    """A home with a catalog and two spaces, one of them elsewhere, and what is the user's own beside them."""
    holo("record", trees.small(holo.root / "source".ljust(100, "-")), "--name", "env")
    holo("init", "--space", "one", "env")
    holo("init", "--space", "far", "env", "--to", holo.root / "far")
    holo("init", "--space", "linked", "env", "--strategy", "hardlink")
    trees.write(holo.root / "beside" / "document", "mine")
    return holo


def left_by_killed_commands(holo: Holo) -> None:
    """A draft of a restore, the stage of a build, and the folders of a bench and a doctor."""
    space = next(holo.holotree.glob("one_*"))
    trees.write(holo.holotree / f".{space.name}.holo-0123abcd" / "file")
    trees.write(holo.holotree / f".build-{'0' * 16}" / "lib" / "file")
    trees.write(holo.home / "bench-0123abcd" / "tree" / "file")
    trees.write(holo.holotree / ".holo-doctor-x" / "file")
    trees.write(holo.library / "quarantine" / "20260101T000000Z-1" / "library" / "file")


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_uninstall_removes_everything(used: Holo) -> None:
    holo = used
    left_by_killed_commands(holo)
    stage = next(holo.holotree.glob(".build-*"))
    before = compare.walk(holo.root).keys()
    planned = holo("uninstall", "--dry-run", "--json").json()
    assert compare.walk(holo.root).keys() == before
    done = holo("uninstall", "--yes", "--json").json()
    assert done == planned | {"dry_run": False}
    assert [space["space"] for space in done["spaces"]] == ["far", "linked", "one"]
    assert str(stage) in done["removed"]
    assert done["left"] == [{"path": str(holo.settings), "why": "it holds your settings"}]
    assert not holo.home.exists()
    assert not (holo.root / "far").exists()
    assert (holo.root / "beside" / "document").read_text() == "mine"
    assert (next(holo.root.glob("source-*")) / "lib" / "data.txt").exists()
    assert "nothing" in holo("uninstall").stdout
    assert holo("uninstall", "--json", env={"HOLO_SETTINGS": os.devnull}).json()["left"] == [], "no settings at all"
    assert not holo.home.exists()
    holo("init", "--space", "one", next(holo.root.glob("source-*")))


@as_root
@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_ordinary_user_uninstalls_alone(filesystem: Filesystem, forks: Forks) -> None:
    """On Btrfs `rm -rf` of a home fails, for the golden trees are read-only. What docs/strategies.md says works."""
    for folder in filesystem.root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    source, home = trees.small(filesystem.root / "source"), filesystem.root / "home"
    subprocess.run(["chown", "-R", "1001:1001", filesystem.root], check=True)
    env = {"HOLO_HOME": str(home), "HOLO_SETTINGS": os.devnull, "PATH": os.environ["PATH"]}

    def as_ada(command: str) -> int:
        return subprocess.run(["sh", "-ec", command], user=1001, group=1001, extra_groups=[], check=False).returncode

    def make() -> None:
        forks("init", "--space", "one", source, env=env, user=ADA)
        forks("run", "--ephemeral", "--space", "one", "--", "true", env=env, user=ADA)

    make()
    if filesystem.name == "btrfs":
        assert as_ada(f"rm -rf {home} 2> /dev/null") != 0
        text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
        (command,) = re.findall("`(btrfs property set TREE [^`]*)`", text)
        (tree,) = (path for path in (home / "hololib" / "golden").iterdir() if path.is_dir())
        assert as_ada(command.replace("TREE", str(tree))) == 0
    assert as_ada(f"rm -r {home}") == 0
    make()
    forks("uninstall", "--yes", env=env, user=ADA)
    assert not home.exists()
    assert source.exists()


@local
def test_without_a_terminal_spaces_need_yes(used: Holo) -> None:
    holo = used
    before = compare.walk(holo.root).keys()
    for arguments in ((), ("--json",)):
        refused = holo("uninstall", *arguments, code=2)
        assert "3 spaces" in refused.stderr
        assert "--yes" in refused.stderr
        assert compare.walk(holo.root).keys() == before
    for name in ("one", "far", "linked"):
        holo("delete", name)
    holo("uninstall")  # there is nothing to ask for
    assert not holo.home.exists()


def asked(holo: Holo, answer: bytes) -> tuple[int, str]:
    """What `holo uninstall` in a terminal prints, whose question gets that answer, and its exit code."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, sys.executable, "-m", "holo", "uninstall"],
        env=holo.environment(),
        cwd=holo.root,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    printed = b""
    is_asked = False
    while True:
        # Python may begin to read just after a signal has come, and see it only with the next one.
        if not select.select([terminal], [], [], 3)[0] and is_asked:
            os.write(terminal, answer)
        try:
            data = os.read(terminal, 4096)
        except OSError:  # EIO: nobody has the other end any more
            break
        printed += data
        if printed.endswith(b"[y/N]: "):
            is_asked = True
            os.write(terminal, answer)
    os.close(terminal)
    return process.wait(), printed.decode()


IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@local
def test_the_spaces_are_last_and_after_a_question(used: Holo) -> None:
    holo = used
    code, printed = asked(holo, b"\x03")
    assert (code, "Delete 3 spaces" in printed) == (130, True)
    assert holo("check").stdout.endswith("all is well\n")
    code, printed = asked(holo, b"n\n")
    assert code == 0
    assert f"space one at {next(holo.holotree.glob('one_*'))}" in printed
    assert f"left {holo.root / 'far'}: space far stays" in printed
    assert not holo.library.exists()
    assert [space["name"] for space in holo("list", "--json").json()["spaces"]] == ["far", "linked", "one"]
    assert holo("run", "--space", "far", "--", "hello").stdout == f"hello from {holo.root / 'far'}\n"
    code, printed = asked(holo, b"y\n")
    assert code == 0
    assert not holo.home.exists()
    assert not (holo.root / "far").exists()


@local
def test_foreign_files_stay(used: Holo) -> None:
    holo = used
    mine = [
        trees.write(holo.home / "notes"),
        trees.write(holo.home / "bench-results" / "table"),
        trees.write(holo.library / "notes"),
        trees.write(holo.library / "library" / "deep" / "notes"),
        trees.write(holo.holotree / "notes" / "file"),
    ]
    for blob in (holo.library / "library").glob("??/*"):
        assert blob.exists()
    report = holo("uninstall", "--yes", "--json").json()
    assert sorted(path for path in holo.home.rglob("*") if not path.is_dir()) == sorted(mine)
    left = {item["path"] for item in report["left"]}
    assert left == {
        *(str(path) for path in (holo.home / "notes", holo.home / "bench-results", holo.library / "notes")),
        *(str(path) for path in (holo.library / "library" / "deep", holo.holotree / "notes", holo.settings)),
    }


@local
def test_a_bench_keeps_folders_that_are_not_its_own(holo: Holo) -> None:
    mine = trees.write(holo.home / "bench-results" / "table")
    trees.write(holo.home / "bench-0123abcd" / "file")
    with scratch(str(holo.home)):
        assert mine.exists()
        assert not (holo.home / "bench-0123abcd").exists()


@local
def test_spaces_of_another_home_stay(used: Holo) -> None:
    holo, copy = used, Holo(used.root)
    copy.home = holo.root / "copy"
    subprocess.run(["cp", "-a", holo.home, copy.home], check=True)
    report = copy("uninstall", "--yes", "--json").json()
    assert [space["space"] for space in report["spaces"]] == ["linked", "one"]
    assert any(item["path"] == str(holo.root / "far") for item in report["left"])
    assert (holo.root / "far" / "bin" / "hello").exists()
    assert holo("check", "--space", "far").stdout.endswith("all is well\n")


@contextmanager
def mounted(point: Path) -> Iterator[None]:
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        yield
    finally:
        unmount(point)


@as_root
@local
def test_failed_removal_is_reported_and_can_be_repeated(used: Holo) -> None:
    holo = used
    space = next(holo.holotree.glob("one_*"))
    with mounted(space / "m"):
        failed = holo("uninstall", "--yes", code=1)
        assert f"left {space}: {space / 'm'} is mounted inside" in failed.stdout
        assert not (holo.root / "far").exists()
        assert [item["name"] for item in holo("list", "--json").json()["spaces"]] == ["one"]
    holo("uninstall", "--yes")
    assert not holo.home.exists()


@as_root
@local
def test_it_waits_for_no_command_that_runs(used: Holo) -> None:
    holo = used
    process = holo.start("run", "--ephemeral", "--space", "one", "--", "sh", "-c", "echo ready; sleep 60")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = compare.walk(holo.root / "home" / "hololib").keys()
        assert "in use" in holo("uninstall", "--yes", code=1).stderr
        assert compare.walk(holo.root / "home" / "hololib").keys() == before
    finally:
        process.terminate()
        process.communicate()
    holo("uninstall", "--yes")
    assert not holo.home.exists()


@as_root
@local
def test_files_of_other_users_in_a_library_stay(used: Holo) -> None:
    holo = used
    blob = next(path for path in (holo.library / "library").rglob("*") if path.is_file())
    os.chown(blob, 1001, 1001)
    report = holo("uninstall", "--yes", "--json").json()
    assert [space["space"] for space in report["spaces"]] == ["far", "linked", "one"]
    assert {item["path"] for item in report["left"]} == {str(holo.library), str(holo.settings)}
    holo("check")


@pytest.mark.parametrize("filesystem", ["btrfs", "local"], indirect=True)
def test_the_demo_runs_twice_and_make_cleans_up(holo: Holo) -> None:
    """Golden trees of Btrfs are read-only, also for `rm -rf`."""
    bin_folder = holo.root / "checkout" / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    # No network here: what `python3 -m venv` makes can do nothing.
    stand_ins = {
        "holo": f'exec {sys.executable} -m holo "$@"',
        "python3": "mkdir -p env/bin env/include && touch env/pyvenv.cfg && cp ../.venv/bin/true env/bin/pip && "
        "cp ../.venv/bin/true env/bin/python",
        "true": "exit 0",
    }
    for name, code in stand_ins.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (bin_folder / name).chmod(0o755)
    checkout = holo.root / "checkout"
    env = holo.environment() | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    for _ in range(2):
        demo = ["sh", ROOT / "docs" / "demo.sh"]
        said = subprocess.run(demo, cwd=checkout, env=env, capture_output=True, text=True, check=True).stdout
        assert "\n$ holo run one -- python -c 'import numpy; print(" in said, "as it can be typed"
    assert (checkout / ".demo" / "home").exists()
    subprocess.run(["make", "-sf", ROOT / "Makefile", "clean"], cwd=checkout, env=env, check=True)
    assert [*checkout.iterdir()] == []
