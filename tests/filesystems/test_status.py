"""`holo status`: what it says of a space is so, and it changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holo import Hololib, platform
from holo.blueprints.uv import find_uv
from holo.platform import Directory
from support import compare, trees, wheels
from support.cli import Holo, Result, another_boot
from support.filesystems import Filesystem
from support.forks import Forks, User

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def space(holo: Holo, filesystem: Filesystem) -> Path:
    """The space `one` of a small tree."""
    holo("record", trees.small(filesystem.root / "source"), "--name", "env")
    return Path(holo("init", "--space", "one", "env", "--json").json()["path"])


def status(holo: Holo, name: str = "one") -> dict[str, Any]:
    found: dict[str, Any] = holo("status", name, "--json").json()
    return found


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_what_a_restore_made_is_pristine(holo: Holo, filesystem: Filesystem, strategy: str) -> None:
    """Whatever is in it, and also if it was moved a longer path away."""
    source = trees.nasty(filesystem.root / "source".ljust(100, "-"), xattrs=filesystem.xattrs)
    holo("record", source, "--name", "env", "--skip-special")
    holo("init", "--space", "one", "env", "--strategy", strategy)
    found = status(holo)
    assert (found["state"], found["changes"]) == ("pristine", {"packages": [], "files": [], "bytecode": 0})


@local
def test_a_file_that_is_removed_meanwhile_is_all_that_is_missing(
    holo: Holo, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing of its directory and the look at it, as a program in the space may do."""
    library, file, listing = Hololib(holo.home), space / "lib" / "data.txt", platform.listing

    @contextmanager
    def remove_after(directory: Directory) -> Iterator[Iterator[os.DirEntry[str]]]:
        with listing(directory) as entries:
            found = [*entries]
        if "data.txt" in {entry.name for entry in found}:
            file.unlink()
        yield iter(found)

    monkeypatch.setattr(platform, "listing", remove_after)
    changes = library.status("one").changes
    assert changes is not None
    assert [(change.path, change.what) for change in changes.files if change.what != "time"] == [
        ("lib/data.txt", "removed")
    ]
    monkeypatch.undo()
    library.restore("one")
    monkeypatch.setattr(platform, "listing", remove_after)
    report = library.restore("one")
    assert report.total - report.unchanged == 1
    monkeypatch.undo()
    assert compare.differences(holo.root / "source", space) == []


@local
def test_when_a_space_was_made_is_known_without_its_history(holo: Holo, space: Path) -> None:
    made = status(holo)["made"]
    (holo.holotree / ".spaces" / "one.history").unlink()
    assert made is not None
    assert status(holo)["made"] is not None


def same_again(path: Path) -> None:
    """Replace a file by one that differs in nothing but what nobody can set."""
    before = path.stat()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    path.chmod(before.st_mode & 0o7777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit_in_secret(path: Path) -> None:
    """With the same size and time."""
    before = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "edited": (lambda space: (space / "lib/data.txt").write_text("edited"), {"lib/data.txt": "edited"}),
    "in-secret": (lambda space: edit_in_secret(space / "lib/data.txt"), {"lib/data.txt": "edited"}),
    "patched": (lambda space: edit_in_secret(space / "bin/hello"), {"bin/hello": "edited"}),
    "touched": (lambda space: os.utime(space / "bin/hello"), {"bin/hello": "time"}),
    "mode": (lambda space: (space / "bin/hello").chmod(0o711), {"bin/hello": "mode"}),
    "folder-mode": (lambda space: (space / "lib/deep").chmod(0o700), {"lib/deep/": "mode"}),
    "back-again": (lambda space: ((space / "x").touch(), (space / "x").unlink()), {"./": "time"}),
    "added": (lambda space: trees.write(space / "new/deep/a"), {"new/deep/a": "added"}),
    "socket": (lambda space: make_socket(space / "s"), {"s": "added"}),
    "removed": (lambda space: shutil.rmtree(space / "lib/deep"), {"lib/deep/er/leaf": "removed"}),
    "link": (lambda space: (space / "link").symlink_to("x"), {"link": "added"}),
    "folder-for-a-file": (
        lambda space: ((space / "lib/data.txt").unlink(), trees.write(space / "lib/data.txt/a")),
        {"lib/data.txt": "removed", "lib/data.txt/a": "added"},
    ),
    "nothing-but-the-inode": (lambda space: same_again(space / "lib/data.txt"), {"lib/": "time"}),
    "attribute": (lambda space: os.setxattr(space / "lib/data.txt", "user.a", b"b"), {"lib/data.txt": "time"}),
    "folder-attribute": (lambda space: os.setxattr(space / "lib/deep", "user.a", b"b"), {"lib/deep/": "time"}),
}
if os.geteuid() == 0:
    CHANGES["owner"] = lambda space: os.chown(space / "lib/data.txt", 1234, 1234), {"lib/data.txt": "time"}


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_every_change_is_told(holo: Holo, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (make, expected) in CHANGES.items():
        monkeypatch.chdir(space)
        make(space)
        found = status(holo)
        assert ({change["path"]: change["what"] for change in found["changes"]["files"]}, found["state"]) == (
            expected,
            "changed",
        ), name
        holo("restore", "--space", "one")
        assert status(holo)["state"] == "pristine", name


@local
def test_packages_of_a_real_environment(holo: Holo, filesystem: Filesystem) -> None:
    """As the docs show it; and a program that only ran has left bytecode."""
    source, folder = filesystem.root / ".venv", filesystem.root / "wheels"
    for name, version in (("numpy", "2.4.6"), ("rich", "13.0"), ("rich", "14.0"), ("cowsay", "6.1")):
        wheels.make(folder, name, version)

    def pip(python: Path, *arguments: str) -> None:
        command = [find_uv(), "pip", *arguments, "--quiet", "--python", python / "bin" / "python"]
        subprocess.run(command, check=True, env=holo.environment())

    subprocess.run([find_uv(), "venv", "--quiet", source], check=True, env=holo.environment())
    install = ("install", "--no-index", "--find-links", str(folder))
    pip(source, *install, "numpy==2.4.6", "rich==13.0")
    holo("record", source, "--name", "app")
    space = Path(holo("init", "--space", "job-1", "app", "--json").json()["path"])
    subprocess.run([space / "bin" / "numpy"], check=True, env=holo.environment(), capture_output=True)
    subprocess.run([space / "bin" / "python", "-c", "import numpy"], check=True, env=holo.environment())
    assert "\n  1 file of bytecode\n" in holo("status", "job").stdout
    pip(space, "uninstall", "numpy")
    pip(space, *install, "cowsay", "rich==14.0")
    for name in ("bin/activate", "bin/activate.fish", "pyvenv.cfg"):
        with (space / name).open("a") as file:
            file.write("# edited\n")
    shown = holo("status", "job-1").stdout
    assert shown.startswith(f"job-1: changed, at {space}\n  cowsay 6.1 added, numpy 2.4.6 removed, rich 13.0 -> 14.0,")
    assert "3 files edited" in shown
    assert "  edited   pyvenv.cfg\n" in holo("status", "job-1", "-v").stdout
    assert "pyvenv.cfg" not in shown
    packages = status(holo, "job-1")["changes"]["packages"]
    assert [(each["name"], each["before"], each["after"]) for each in packages] == [
        ("cowsay", None, "6.1"),
        ("numpy", "2.4.6", None),
        ("rich", "13.0", "14.0"),
    ]
    holo("restore", "--space", "job-1")
    assert holo("status", "job-1").stdout.startswith(f"job-1: pristine, at {space}\n  of catalog app (")


@local
def test_a_space_that_cannot_be_compared(holo: Holo, space: Path) -> None:
    holo("catalogs", "--remove", "env")
    found = status(holo)
    assert (found["state"], found["changes"]) == ("unknown", None)
    assert "is not in" in found["reason"]
    space.rename(holo.root / "away")
    space.symlink_to(holo.root / "away")
    found = status(holo)
    assert (found["state"], "something else is there" in found["reason"]) == ("missing", True)
    space.unlink()
    found = status(holo)
    assert (found["state"], "something else" in found["reason"]) == ("missing", False)
    (holo.holotree / ".spaces" / "one.json").write_text("damaged")
    (holo.holotree / ".spaces" / "one.mark").unlink()
    assert status(holo)["state"] == "damaged"


@local
def test_what_the_last_restore_does_not_vouch_for_is_read(holo: Holo, space: Path, filesystem: Filesystem) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can show a command another boot")
    plain = Holo(filesystem.root)
    edit_in_secret(space / "lib/data.txt")
    plain.launcher = another_boot(filesystem.root)
    assert [change["path"] for change in status(plain)["changes"]["files"]] == ["lib/data.txt"]


@local
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user, who may not read everything")
def test_what_its_owner_may_not_read_is_told_and_the_rest_is_compared(filesystem: Filesystem, forks: Forks) -> None:
    for folder in filesystem.root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    ada, source = User(1001), trees.small(filesystem.root / "source")
    subprocess.run(["chown", "-R", "1001:1001", filesystem.root], check=True)
    env = {"HOLO_HOME": str(filesystem.root / "home"), "HOLO_SETTINGS": os.devnull, "PATH": os.environ["PATH"]}

    def asked(*command: str | Path, code: int = 0) -> Result:
        return forks(*command, env=env, user=ada, code=code)

    asked("record", source, "--name", "env")
    space = Path(asked("init", "one", "env", "--json").json()["path"])
    for name in ("lib/data.txt", "bin/hello"):
        (space / name).chmod(0)
    (space / "bin" / "new").write_text("of root")
    (space / "bin" / "new").chmod(0)
    found = asked("status", "one", "--json").json()
    assert {change["path"]: change["what"] for change in found["changes"]["files"]} == {
        "bin/hello": "mode",
        "bin/new": "added",
        "lib/data.txt": "mode",
    }
    assert found["unread"] == ["bin/hello", "lib/data.txt"]
    assert "bin/hello: what is in it is not compared" in asked("status", "one").stderr
    assert "cannot read" in asked("diff", "one", "env", code=1).stderr
    asked("restore", "one")
    assert compare.differences(source, space) == []


@local
def test_the_space_of_the_current_folder(holo: Holo, space: Path) -> None:
    folder = holo.root / "project" / "src"
    folder.mkdir(parents=True)
    holo("init", "--space", "near", "env", "--to", folder.parent / ".venv")
    assert holo("status", cwd=folder).stdout.startswith("near: pristine")
    assert holo("status", "--space", "one", cwd=folder).stdout.startswith("one: pristine")
    for command in (("status",), ("history",), ("restore",), ("run", "--", "true"), ("variables",)):
        said = holo(*command, code=1).stderr
        assert "To make one: `holo init SPACE SOURCE`." in said
        assert "no space is named, no .venv or node_modules here or above is one, and there is no space 'user'" in said
    blueprint = holo.root / "elsewhere" / "requirements.txt"
    blueprint.parent.mkdir()
    blueprint.touch()
    for command in ("status", "history", "restore"):
        said = holo(command, cwd=blueprint.parent, code=1).stderr
        assert f"To make one of {blueprint}: `holo init`." in said
    assert "Did you mean near?" in holo("status", "naer", code=1).stderr
    holo("status", "one", "--space", "near", code=2)
