"""Spaces that are mounts, which only root can have: `--strategy overlay`. Others have views: test_views.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holo import Hololib
from holo.trees.overlay import SPACE
from support import compare, trees
from support.cli import Holo
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks, User
from support.machines import Machine
from support.repositories import ADA, repository

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts spaces")

ext4 = pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)


ALONE = """
import json, subprocess, sys
holo = [sys.executable, "-m", "holo"]
made = subprocess.check_output([*holo, "init", "job", "env", "--strategy", "overlay", "--json"], text=True)
print(made, end="", flush=True)
sys.stdin.readline()
new = json.loads(made)["path"] + "/new"
subprocess.run([*holo, "run", "job", "--", "sh", "-c", "hello; echo mine > $0; cat $0", new], check=True)
"""


@pytest.fixture
def holo(filesystem: Filesystem, forks: Forks) -> Iterator[Holo]:
    """A home with a catalog ``env``: its files are so small that they are raw."""
    holo = ForkedHolo(filesystem.root, forks)
    trees.small(source(holo))
    holo("record", source(holo), "--name", "env")
    yield holo
    for path in mounted(holo):
        subprocess.run(["umount", "-l", path], check=False)


def source(holo: Holo) -> Path:
    return holo.root / "the-recorded-environment-of-a-user-somewhere-in-the-file-system"


def mounted(holo: Holo) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if f" {SPACE} " in line and line.split()[4].startswith(f"{holo.root}/")]


def is_pristine(holo: Holo, path: Path) -> bool:
    return compare.differences(source(holo), path, new=path) == []


def left(holo: Holo) -> list[Path]:
    return [*holo.holotree.glob("[!.]*"), *holo.holotree.glob(".ephemeral-0/spaces/*")]


def test_a_space_from_init_to_delete(holo: Holo) -> None:
    report = holo("init", "job", "env", "--strategy", "overlay", "--json").json()
    assert report["strategy"] == {"requested": "overlay", "used": "overlay", "reason": None}
    files = report["files"]
    assert files["reflinked"] + files["copied"] == files["total"]
    assert files["copied"] == files["relocated"] > 0
    space = Path(report["path"])
    assert mounted(holo) == [str(space)]
    assert is_pristine(holo, space)
    hello = subprocess.run([space / "bin" / "hello"], capture_output=True, text=True, check=True)
    assert hello.stdout == f"hello from {space}\n", "every process sees it"
    assert holo("check", "--space", "job", "--json").json()["problems"] == []

    other = holo("init", "other", "env", "--strategy", "overlay", "--json").json()["path"]
    (space / "lib" / "data.txt").write_text("changed")
    (space / "lib" / "deep").rename(space / "moved")
    (space / "lib" / "other.txt").unlink()
    assert is_pristine(holo, Path(other))
    (row,) = [row for row in holo("list", "--json").json()["spaces"] if row["name"] == "job"]
    assert row["state"] == "changed"
    again = holo("restore", "job", "--json").json()
    assert again["strategy"]["used"] == "overlay", "it stays what it is"
    assert is_pristine(holo, space)
    assert len(mounted(holo)) == 2
    assert len([*holo.holotree.glob(".ephemeral-0/spaces/job/*")]) == 1

    holo("delete", "job")
    holo("delete", "other")
    assert mounted(holo) == left(holo) == []


@ext4
def test_what_names_the_project_is_said_once(holo: Holo) -> None:
    project = holo.root / "project"
    trees.write(project / "pyproject.toml", "")
    trees.write(project / ".venv" / "lib" / "own.pth", f"{project}/src\n")
    holo("record", project / ".venv", "--name", "own")
    done = holo("init", "job", "own", "--strategy", "overlay")
    assert done.stderr.count("is outside of the environment") == 1
    done = holo("run", "--ephemeral", "--quiet", "--catalog", "own", "--space", "new", "--", "true")
    assert done.stderr.count("warning: ") == 1, "who wants warnings only gets them"


@ext4
def test_after_the_system_was_started_again(holo: Holo) -> None:
    space = Path(holo("init", "job", "env", "--strategy", "overlay", "--json").json()["path"])
    (space / "lib" / "data.txt").write_text("changed")
    subprocess.run(["umount", space], check=True)
    assert holo("list", "--json").json()["spaces"][0]["state"] == "restoring"
    refused = holo("run", "--space", "job", "--", "true", code=1)
    assert "is not mounted" in refused.stderr
    assert "holo restore --space job" in refused.stderr
    assert "it is not mounted" in holo("status", "job", "--json").json()["reason"]
    (problem,) = holo("check", "--space", "job", "--json", code=3).json()["problems"]
    assert "it is not mounted" in problem["what"], "not that each of its files is gone"
    for command in (["diff", "env", "job"], ["ls", "job"], ["cat", "job", "lib/data.txt"], ["record", space]):
        assert "is not mounted" in holo(*command, code=1).stderr, "the empty folder is not the space"
    holo("restore", "job")
    assert is_pristine(holo, space)
    subprocess.run(["umount", space], check=True)
    holo("delete", "job")
    assert left(holo) == []


@ext4
def test_a_dry_run_plans_what_a_restore_does(holo: Holo) -> None:
    space = Path(holo("init", "job", "env", "--strategy", "overlay", "--json").json()["path"])
    trees.write(space / "lib" / "data.txt", "changed")
    trees.write(space / "extra", "")
    for options in ([], ["--strategy", "overlay"]):
        plan = holo("restore", "job", "--dry-run", *options, "--json").json()
        assert plan["strategy"]["used"] == "overlay"
        assert (plan["remove"], plan["files"]) == (["extra"], [{"path": "lib/data.txt", "how": "overlay"}])
    assert "--verify" in holo("restore", "job", "--dry-run", "--verify", code=2).stderr
    holo("init", "plain", "env")
    holo("init", "gone", "env", "--strategy", "overlay")
    subprocess.run(["umount", holo("list", "--json").json()["spaces"][0]["path"]], check=True)
    for command in (["job", "--strategy", "copy"], ["plain", "--strategy", "overlay"], ["gone"]):
        refused = holo("restore", *command, "--dry-run", code=2)
        assert "makes it anew" in refused.stderr, "not that nothing changes, nor file by file"
    assert (space / "extra").exists()


@ext4
def test_worktree_gets_no_empty_folder_of_what_is_not_mounted(holo: Holo) -> None:
    app = holo.root / "app"
    trees.write(app / "pyproject.toml", '[project]\nname = "app"\n')
    trees.write(app / ".gitignore", ".venv\n")
    repository(app)
    holo("init", "job", "env", "--to", app / ".venv", "--strategy", "overlay")
    subprocess.run(["umount", app / ".venv"], check=True)  # as the end of the system does
    shown = holo("worktree", "add", "../feature", cwd=app, env=ADA)
    assert "is as it was recorded" in shown.stderr
    assert is_pristine(holo, holo.root / "feature" / ".venv")


@ext4
def test_gc_and_check_keep_what_is_mounted(holo: Holo) -> None:
    space = Path(holo("init", "job", "env", "--strategy", "overlay", "--json").json()["path"])
    before = compare.snapshot(space)
    holo("catalogs", "--remove", "env")
    holo("gc")
    assert compare.snapshot(space) == before
    holo("record", source(holo), "--name", "env")
    (tree,) = holo.holotree.glob(".ephemeral-0/*/*/tree")
    (tree / "bin" / "hello").unlink()
    report = holo("check", "--repair", "--json", code=3).json()
    assert ["delete them first" in problem["what"] for problem in report["problems"]] == [True]
    assert (space / "lib" / "data.txt").read_text() == "data\n" * 2000
    holo("delete", "job")
    holo("check", "--repair")
    holo("catalogs", "--remove", "env")
    holo("gc")
    assert [*holo.holotree.glob(".ephemeral-0/*/*")] == left(holo) == []


@ext4
def test_another_strategy_is_another_space(holo: Holo) -> None:
    space = Path(holo("init", "job", "env", "--json").json()["path"])
    (space / "lib" / "new").touch()
    holo("restore", "job", "--strategy", "overlay")
    assert mounted(holo) == [str(space)]
    assert is_pristine(holo, space)
    assert holo("restore", "job", "--strategy", "copy", "--json").json()["strategy"]["used"] == "copy"
    assert mounted(holo) == [*holo.holotree.glob(".ephemeral-0/spaces/*")] == []
    assert is_pristine(holo, space)


@ext4
def test_commands_in_throw_away_environments_keep_it(holo: Holo) -> None:
    """What is mounted over the space, for one command, would go with it."""
    space = Path(holo("init", "job", "env", "--strategy", "overlay", "--json").json()["path"])
    program = f"PYTHONPATH={Path(__file__).parents[2]} {sys.executable} -m holo"
    for command in ("restore job", "delete job"):
        script = f"nsenter --mount=/proc/{os.getpid()}/ns/mnt sh -c '{program} {command}'; echo $?"
        done = holo("run", "--ephemeral", "--space", "job", "--", "sh", "-c", script)
        assert "throw-away environments" in done.stderr
        assert done.stdout.split() == ["1"]
    assert is_pristine(holo, space)


@ext4
@pytest.mark.parametrize("is_mount", [True, False])
def test_a_symlink_in_its_place_leads_to_no_other(holo: Holo, is_mount: bool) -> None:
    other = Path(holo("init", "other", "env", "--strategy", "overlay", "--json").json()["path"])
    (other / "new").touch()
    before = compare.snapshot(other)
    space = holo.root / "space"
    holo("init", "job", "env", "--to", space, *(["--strategy", "overlay"] if is_mount else []))
    if is_mount:
        subprocess.run(["umount", space], check=True)
    shutil.rmtree(space)
    space.symlink_to(other)
    for command in ("restore", "delete"):
        holo(command, "job", code=command != "delete")
        assert mounted(holo) == [str(other)]
        assert compare.snapshot(other) == before


@ext4
@pytest.mark.parametrize("way", ["user", "no right", "refused"])
def test_a_mount_that_is_refused_leaves_nothing(
    holo: Holo, forks: Forks, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["init", "job", "env", "--strategy", "overlay", "--strict"]
    if way == "user":
        subprocess.run(["chown", "-R", "1001:1001", holo.root], check=True)
        for folder in holo.root.parents:
            folder.chmod(folder.stat().st_mode | 0o011)
        done = forks(*arguments, env=holo.environment(), user=User(1001), code=1)
    elif way == "no right":
        bounded = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-m", "holo", *arguments]
        environment = {**holo.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(bounded, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
    else:
        from holo import HoloError, Hololib
        from holo.platform import namespaces

        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(namespaces, "mount_overlay", refuse)
        monkeypatch.setenv("HOLO_SETTINGS", os.devnull)
        with pytest.raises(HoloError, match=r"cannot mount .* Operation not permitted"):
            Hololib(holo.home).init("job", "env", strategy="overlay")
    if way != "refused":
        assert "cannot mount the space" in done.stderr
        assert "CAP_SYS_ADMIN" in done.stderr
    assert left(holo) == []
    assert [*(holo.holotree / ".spaces").glob("job.*")] in ([], [holo.holotree / ".spaces" / "job.lock"])


@pytest.mark.parametrize("filesystem", ["tmpfs"], indirect=True)
@pytest.mark.parametrize("user", [None, User(1001)])
def test_home_among_the_files_of_a_container(filesystem: Filesystem, forks: Forks, user: User | None) -> None:
    """All that is on no volume is on an overlay, and no other can lie on that."""
    for name in ("lower", "upper", "work", "merged"):
        (filesystem.root / name).mkdir()
    options = ",".join(f"{name}dir={filesystem.root / name}" for name in ("lower", "upper", "work"))
    merged = filesystem.root / "merged"
    subprocess.run(["mount", "-t", "overlay", "container", "-o", options, merged], check=True)
    try:
        holo = Machine(merged, forks, user)
        trees.small(merged / "tree")
        holo("record", merged / "tree", "--name", "env")
        failed = holo("init", "job", "env", "--strategy", "overlay", code=1)
        assert "no overlay can lie on another: keep HOLO_HOME on a volume" in failed.stderr
        assert "CAP_SYS_ADMIN" not in failed.stderr
        assert not [*holo.holotree.glob(".ephemeral-*/*/*")], "not even the tree, which is a copy of all"
        done = holo("run", "--ephemeral", "--catalog", "env", "--space", "job", "--", "true")
        assert "keep HOLO_HOME on a volume" in done.stderr
        for name in ("view", "stubs", *(() if user else ("overlay",))):
            assert "keep HOLO_HOME on a volume" in holo("doctor", "--json").json()["capabilities"][name]["reason"]
    finally:
        subprocess.run(["umount", merged], check=True)


@ext4
def test_uninstall(holo: Holo) -> None:
    holo("init", "job", "env", "--strategy", "overlay")
    holo("uninstall", "--yes")
    assert mounted(holo) == []
    assert not holo.holotree.exists()


@ext4
def test_uninstall_lets_a_space_that_stays_be_as_it_is(holo: Holo) -> None:
    path = Path(holo("init", "job", "env", "--strategy", "overlay", "--json").json()["path"])
    holo("init", "other", "env", "--strategy", "overlay")
    trees.write(path / "work", "mine")
    before = compare.walk(path).keys()
    report = Hololib(holo.home).uninstall()
    folder = str(holo.holotree / f".ephemeral-{os.geteuid()}")
    assert report.left[folder] == "spaces are mounted over what is in it: job, other"
    assert not holo.library.exists()
    assert compare.walk(path).keys() == before
    assert (path / "work").read_text() == "mine"
    holo("delete", "other")
    assert "hello from" in holo("run", "job", "--", "hello").stdout
    holo("uninstall", "--yes")
    assert not holo.home.exists()


@ext4
def test_a_mount_that_only_others_see_stays(holo: Holo) -> None:
    """As of a service with mounts of its own."""
    alone = ["unshare", "--mount", sys.executable, "-c", ALONE]
    there = subprocess.Popen(alone, env=holo.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    path = Path(json.loads(there.stdout.readline())["path"])
    assert [item["state"] for item in holo("list", "--json").json()["spaces"]] == ["restoring"]
    for command in (["restore", "job"], ["delete", "job"], ["restore", "job", "--strategy", "copy"]):
        refused = holo(*command, code=1).stderr
        assert f"is mounted at {path} for other processes" in refused
        assert f"`ps -p {there.pid}`" in refused
    holo("gc")
    assert there.communicate("go on\n")[0] == f"hello from {path}\nmine\n"
    holo("restore", "job")
    assert is_pristine(holo, path)
    holo("restore", "job", "--strategy", "copy")
    subprocess.run(["mount", "-t", "tmpfs", SPACE, path], check=True)
    there = subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo; read go"], stdin=-1, stdout=-1, text=True)
    there.stdout.readline()
    subprocess.run(["umount", path], check=True)
    assert "for other processes" in holo("restore", "job", "--strategy", "overlay", code=1).stderr
    assert [*holo.holotree.glob(".ephemeral-0/spaces/job/*")] == []
    there.communicate("go\n")
    holo("delete", "job")


@ext4
def test_only_root_takes_away_what_root_has_mounted(filesystem: Filesystem, forks: Forks) -> None:
    """In the home of another user, to whom root's spaces belong as well."""
    place = filesystem.root / "ada"
    place.mkdir()
    os.chown(place, 1001, 1001)
    ada, root = (Machine(place, forks, user) for user in (User(1001), None))
    trees.small(source(ada))
    ada("record", source(ada), "--name", "env")
    ada("init", "hers", "env")
    path = Path(root("init", "job", "env", "--strategy", "overlay", "--json").json()["path"])
    try:
        for command in (["restore", "job"], ["restore", "job", "--strategy", "copy"], ["delete", "job"]):
            assert "is mounted" in ada(*command, code=1).stderr
        assert {item["state"] for item in ada("list", "--json").json()["spaces"]} == {"pristine"}
        assert "hello from" in root("run", "job", "--", "hello").stdout
        ada("uninstall", "--yes", code=1)
        assert not ada.holotree.joinpath(".ephemeral-1001").exists()
        assert is_pristine(ada, path)
    finally:
        root("delete", "job")


@ext4
def test_a_place_that_is_moved_while_it_is_mounted(holo: Holo, monkeypatch: pytest.MonkeyPatch) -> None:
    from holo import HoloError, Hololib
    from holo.platform import namespaces

    space, mount_flags = holo.root / "space", namespaces._flags_of

    def move_first(path: str) -> int:
        if os.readlink(path) == str(space):
            space.rename(holo.root / "moved")
            space.symlink_to(source(holo))
        return mount_flags(path)

    monkeypatch.setattr(namespaces, "_flags_of", move_first)
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)
    before = compare.snapshot(source(holo))
    with pytest.raises(HoloError, match="moved meanwhile"):
        Hololib(holo.home).init("job", "env", to=space, strategy="overlay")
    assert mounted(holo) == []
    assert compare.snapshot(source(holo)) == before


def test_without_proc_nothing_is_mounted_and_each_command_says_so(holo: Holo) -> None:
    holo("init", "here", "env")
    holo.launcher = ("unshare", "--mount", "sh", "-c", 'umount -l /proc && exec "$@"', "sh")
    done = holo("init", "job", "env", "--strategy", "overlay", code=1).stderr
    assert "/proc is not mounted\nhint: Mount /proc first, or choose another strategy.\n" in done
    assert [each["name"] for each in holo("list", "--json").json()["spaces"]] == ["here"]
    done = holo("run", "--ephemeral", "--space", "here", "--", "true", code=1).stderr
    assert "no throw-away view" in done
    assert "(/proc is not mounted)" in done
    assert done.endswith("hint: Mount /proc first.\n")
    found = holo("doctor", holo.root, "--json").json()["capabilities"]
    assert {found[name]["reason"] for name in ("overlay", "view", "stubs")} == {"/proc is not mounted"}


def test_a_view_without_proc_says_so(holo: Holo) -> None:
    unable = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    holo.launcher = unable
    holo("init", "job", "env", "--strategy", "overlay")
    holo.launcher = ("unshare", "--mount", "sh", "-c", 'umount -l /proc && exec "$@"', "sh", *unable)
    for command in (["run", "job", "--", "true"], ["status", "job"], ["restore", "job"]):
        assert "hint: Mount /proc first" in holo(*command, code=1).stderr
