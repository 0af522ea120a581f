"""`holo diff`, `ls`, `cat` and `history`: the same of a catalog, a space and a bundle."""

from __future__ import annotations

import base64
import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holo import HoloError, Hololib, NotFound, UsageError, platform
from holo import history as histories
from holo.platform import Directory
from holo.walk import Walker
from support import trees
from support.cli import Holo
from support.filesystems import Filesystem

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def space(holo: Holo, filesystem: Filesystem) -> Path:
    """The space `one` of a small tree, and a bundle of it."""
    holo("record", trees.small(filesystem.root / "source"), "--name", "env")
    holo("export", "env", "-o", holo.root / "env.holo")
    return Path(holo("init", "--space", "one", "env", "--json").json()["path"])


@local
def test_what_is_shown_is_what_is_there(holo: Holo, filesystem: Filesystem) -> None:
    """Of whatever a tree may contain: every directory, every symlink, every byte."""
    source = trees.nasty(filesystem.root / "source".ljust(100, "-"), xattrs=filesystem.xattrs)
    holo("record", source, "--name", "env", "--skip-special")
    space = Path(holo("init", "--space", "one", "env", "--json").json()["path"])
    holo("export", "env", "-o", holo.root / "env.holo")
    library = Hololib(holo.home)
    for reference, root in (("env", source), ("one", space), (holo.root / "env.holo", source)):
        for folder, _, _ in os.walk(root):
            below = os.path.relpath(folder, root)
            shown = {}
            for entry in library.ls(reference, below):
                path = root / entry.path
                status = path.lstat()
                shown[path.name] = entry.kind
                if entry.kind != "symlink":
                    assert entry.mode == stat.S_IMODE(status.st_mode)
                if entry.kind == "symlink":
                    assert entry.target == os.readlink(path)
                elif entry.kind == "file" and status.st_size < 1 << 22:
                    assert entry.size == status.st_size
                    assert b"".join(library.cat(reference, entry.path)) == path.read_bytes(), (reference, entry.path)
            there = [
                each.name
                for each in os.scandir(folder)
                if each.is_symlink() or each.is_dir() or each.is_file(follow_symlinks=False)
            ]
            assert sorted(shown) == sorted(there)


@local
def test_file_that_is_removed_meanwhile_is_not_listed(holo: Holo, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are."""
    (space / "passing").touch()
    expected = {entry.path for entry in Hololib(holo.home).ls("one")} - {"passing"}
    status = platform.status

    def remove_first(directory: Directory, name: str) -> os.stat_result:
        if name == "passing":
            (space / name).unlink()
        return status(directory, name)

    monkeypatch.setattr(platform, "status", remove_first)
    assert {entry.path for entry in Hololib(holo.home).ls("one")} == expected


@local
def test_trees_that_only_stand_elsewhere_do_not_differ(holo: Holo, filesystem: Filesystem) -> None:
    references: list[str | Path] = []
    for name in ("one", "two-with-a-longer-path"):
        source = trees.small(filesystem.root / name)
        references += [name, f"{name}-space", filesystem.root / f"{name}.holo"]
        holo("record", source, "--name", name)
        holo("init", "--space", f"{name}-space", name)
        holo("export", name, "-o", references[-1])
    library = Hololib(holo.home)
    for one in references:
        for other in references:
            assert library.diff(one, other).is_empty, (one, other)


@local
def test_urls_of_trees_that_stand_elsewhere_do_not_differ(holo: Holo, filesystem: Filesystem) -> None:
    for name in ("one", "another one"):
        tree = filesystem.root / name / ".venv"
        trees.write(filesystem.root / name / "pyproject.toml", "")
        trees.write(tree / "urls", f"{tree.as_uri()}/x {tree.parent.as_uri()}/src")
        holo("record", tree, "--name", name.replace(" ", "-"))
    assert Hololib(holo.home).diff("one", "another-one").is_empty


@local
def test_the_path_of_a_sibling_is_not_that_of_the_tree(holo: Holo, filesystem: Filesystem) -> None:
    """Its name only begins the same way."""
    for name, sibling in (("app", "app-2"), ("env", "env-2"), ("other", "app-2")):
        tree = trees.write(filesystem.root / name / "file", f"{filesystem.root / name}/x {filesystem.root / sibling}")
        holo("record", tree.parent, "--name", name)
    library = Hololib(holo.home)
    assert not library.diff("app", "env").is_empty
    assert library.diff("app", "other").is_empty


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_what_differs_from_what_is_in_a_space_now(holo: Holo, space: Path) -> None:
    """Also between two spaces, of which each has changes of its own."""
    holo("init", "--space", "two", "env", "--to", holo.root / "two")
    for path in (space, holo.root / "two"):
        with (path / "bin" / "hello").open("a") as file:
            file.write(f"echo {path}\n")
    (space / "lib" / "data.txt").write_text("edited")
    trees.write(space / "lib" / "new" / "file", "new")
    wanted = {("bin/hello", "edited"), ("lib/data.txt", "edited"), ("lib/new/file", "added")}
    for reference in ("env", holo.root / "env.holo"):
        found = holo("diff", reference, "one", "--json").json()
        assert {(each["path"], each["what"]) for each in found["files"]} == wanted
        assert (found["before"], found["after"]) == (str(reference), "one")
    assert holo("diff", holo.root / "two", "one", "-v").stdout == (
        "1 file edited, 1 file added\nedited   lib/data.txt\nadded    lib/new/file\n"
    )
    assert holo("diff", "env", "env").stdout == "nothing differs\n"


@local
@pytest.mark.parametrize("largest", [64 << 20, 8 << 10])
def test_what_came_into_a_space_is_what_was_recorded_of_it(
    largest: int, holo: Holo, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a catalog that was recorded elsewhere, and of files too large to be compared without their paths."""
    monkeypatch.setattr("holo.answers.compare._LARGEST", largest)
    source = holo.root / "source"
    for root in (space, source):
        trees.write(root / "new" / "package.py", "x" * 9000)
        trees.write(root / "new" / "empty", "")
    holo("record", source, "--name", "newer")
    holo("record", space, "--name", "of-space")
    holo("init", "--space", "two", "newer")
    trees.write(Path(holo("list", "--json").json()["spaces"][1]["path"]) / "more", "more")
    library = Hololib(holo.home)
    for other in ("newer", "of-space"):
        assert library.diff("one", other).files == ()
        assert library.diff(other, "one").files == ()
    assert [change.path for change in library.diff("one", "two").files] == ["more"]
    trees.write(space / "new" / "package.py", "y" * 9000)
    assert [(change.path, change.what) for change in library.diff("one", "newer").files] == [
        ("new/package.py", "edited")
    ]


@local
def test_a_space_straight_from_a_bundle_has_its_answers_from_there(holo: Holo, space: Path) -> None:
    env = {"HOLO_HOME": str(holo.root / "elsewhere")}
    holo("init", "--space", "far", holo.root / "env.holo", env=env)
    assert holo("diff", holo.root / "env.holo", "far", env=env).stdout == "nothing differs\n"
    assert holo("status", "far", env=env).stdout.startswith("far: pristine")
    (holo.root / "env.holo").unlink()
    assert holo("status", "far", "--json", env=env).json()["state"] == "unknown"


@local
def test_listing_and_content_as_text(holo: Holo, space: Path) -> None:
    (space / "link").symlink_to("lib/data.txt")
    lines = holo("ls", "one").stdout.splitlines()
    assert [line.split()[0][0] + line.split("  ")[-1] for line in lines] == ["dbin/", "dlib/", "llink -> lib/data.txt"]
    assert holo("ls", "env", "lib/data.txt").stdout.split()[:2] == ["-rw-r--r--", "10,000"]
    assert str(space) in holo("cat", "one", "bin/hello").stdout
    assert str(holo.root / "source") in holo("cat", "env", "./bin//hello").stdout
    found = holo("cat", "env", "bin/hello", "--json").json()
    assert base64.b64decode(found["base64"]).decode() == holo("cat", "env", "bin/hello").stdout
    assert "is a symlink to lib/data.txt" in holo("cat", "one", "link", code=1).stderr
    for reference in ("env", "one", holo.root / "env.holo"):
        assert "there is no nothing in" in holo("cat", reference, "nothing", code=1).stderr
        assert "there is no lib/no/thing in" in holo("ls", reference, "lib/no/thing", code=1).stderr
        assert "lib in" in holo("cat", reference, "lib", code=1).stderr
        for outside in ("..", "lib/../../x", "/etc/passwd"):
            holo("ls", reference, outside, code=2)
            holo("cat", reference, outside, code=2)


@local
def test_the_beginning_of_a_name_is_enough(holo: Holo, space: Path) -> None:
    library = Hololib(holo.home)
    digest = library.catalogs()[0].digest
    for reference in ("o", "e", "en", digest[:4], digest):
        assert [entry.path for entry in library.ls(reference)] == ["bin", "lib"]
    holo("init", "--space", "other", "env")
    with pytest.raises(UsageError, match="o is the beginning of 2 names: one, other"):
        library.ls("o")
    with pytest.raises(NotFound, match="there is no space, catalog or bundle 'onn'") as error:
        library.ls("onn")
    assert error.value.hint == "Did you mean one?"
    holo("init", "--space", "env", "env")  # now it is a space as well, which comes first
    assert "taking space 'env', not the catalog" in holo("diff", "one", "env").stderr


@local
def test_history(holo: Holo, space: Path, filesystem: Filesystem) -> None:
    (space / "lib" / "data.txt").unlink()
    holo("restore", "--space", "one")
    trees.write(filesystem.root / "source" / "more")
    holo("record", filesystem.root / "source", "--name", "env-2")
    holo("restore", "--space", "one", "--catalog", "env-2")
    holo("restore", "--space", "one", "--dry-run")
    found = holo("history", "one", "--json").json()
    assert [(each["what"], each["catalog"], each["made"], each["command"]) for each in found["events"]] == [
        ("made", "env", 4, "holo init --space one env --json"),
        ("restored", "env", 1, "holo restore --space one"),
        ("restored", "env-2", 1, "holo restore --space one --catalog env-2"),
    ]
    shown = holo("history", "one").stdout.splitlines()
    assert shown[0] == f"one at {space}"
    assert [line for line in shown if line.endswith(": 4 files made")] == [shown[1]]
    assert shown[2] == "  holo init --space one env --json"
    assert status_made(holo) == found["events"][0]["time"]
    file = holo.holotree / ".spaces" / "one.history"
    assert file.exists()
    holo("delete", "one")
    assert not file.exists()


def status_made(holo: Holo) -> str:
    made: str = holo("status", "one", "--json").json()["made"]
    return made


@local
def test_a_folder_that_cannot_be_read_is_named(holo: Holo, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Walker.open

    def closed(walker: Walker, path: str) -> Directory:
        if path == "lib":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(walker, path)

    monkeypatch.setattr(Walker, "open", closed)
    library = Hololib(holo.home)
    (space / "lib" / "new").touch()
    asked: list[tuple[Callable[[], object], str]] = [
        (lambda: library.diff("env", "one"), "lib"),  # else it would say that nothing differs
        (lambda: library.ls("one", "lib"), "lib"),
        (lambda: list(library.cat("one", "lib/new")), "lib/new"),
    ]
    for ask, path in asked:
        with pytest.raises(HoloError, match=f"cannot read {space}/{path}: Permission denied"):
            ask()
    (space / "lib").chmod(0)
    status = library.status("one")
    assert status.unread == ("lib",)
    assert status.changes is not None
    assert [(change.path, change.what) for change in status.changes.files] == [("lib/", "mode")]


@local
def test_a_history_that_is_damaged_or_missing(holo: Holo, space: Path) -> None:
    file = holo.holotree / ".spaces" / "one.history"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"not": "an event"}\n\xff\n[1, 2]\n' + whole[:40])  # the last is torn
    holo("restore", "--space", "one")
    assert [each["what"] for each in holo("history", "one", "--json").json()["events"]] == ["made", "restored"]
    file.chmod(0o666)  # anybody could have written that
    file.write_bytes(whole)
    assert [each["what"] for each in holo("history", "one", "--json").json()["events"]] == ["restored"]
    file.unlink()
    file.symlink_to(holo.root / "elsewhere")
    holo("restore", "--space", "one")
    assert not (holo.root / "elsewhere").exists()


@local
def test_a_history_does_not_grow_for_ever(holo: Holo, space: Path) -> None:
    path = str(holo.holotree / ".spaces" / "one.history")
    [made] = histories.events(path)
    for number in range(900):
        histories.add(path, made._replace(what="restored", made=number))
    assert os.path.getsize(path) <= histories.LARGEST
    found = histories.events(path)
    assert (found[0], found[-1].made) == (made, 899)
    assert [event.made for event in found[1:]] == list(range(found[1].made, 900))


@local
def test_a_history_with_a_second_name_is_left_alone(holo: Holo, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be any file. Its descriptor is closed once: by then, the number may be that of another thread's file."""
    path = holo.holotree / ".spaces" / "one.history"
    (holo.root / "other").hardlink_to(path)
    before = path.read_bytes()
    [made] = histories.events(str(path))
    closed: list[int] = []
    close = os.close

    def note(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    monkeypatch.setattr(os, "close", note)
    histories.add(str(path), made)
    assert path.read_bytes() == before
    assert len(closed) == 1


def test_no_secret_is_in_a_history(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "https://ada:secret@host/x?token=secret", "--", "secret"]
    monkeypatch.setattr("sys.argv", ["/usr/bin/holo", *words])
    assert histories.command_line() == "holo run https://host/x"
    monkeypatch.setattr("sys.argv", ["/srv/deploy.py", "--password", "secret"])
    assert histories.command_line() == "deploy.py"


@local
def test_a_look_changes_nothing(holo: Holo, space: Path) -> None:
    (space / "lib" / "new").touch()
    before = subprocess.check_output(["find", holo.root, "-printf", "%p %C@ %T@\\n"])
    commands = ("diff env one", "ls one", "cat one bin/hello", "history one", "status one", "list", "catalogs", "du")
    for command in commands:
        holo(*command.split())
    assert subprocess.check_output(["find", holo.root, "-printf", "%p %C@ %T@\\n"]) == before
