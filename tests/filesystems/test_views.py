"""`--strategy overlay` of an ordinary user: a space that all commands of the space see, and nobody else."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from support import compare, trees
from support.cli import eventually
from support.forks import Forks, User
from support.machines import Machine, Make

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user, and look into their view")

ADA = User(1001)

on = pytest.mark.parametrize


@pytest.fixture
def ada(machine: Make, request: pytest.FixtureRequest) -> Machine:
    """A home of an ordinary user with a catalog ``env`` and a view ``job`` of it."""
    ada = machine(getattr(request, "param", "ext4"), ADA)
    trees.small(source(ada))
    subprocess.run(["chown", "-hR", "1001:1001", ada.root], check=True)
    ada("record", source(ada), "--name", "env")
    ada("init", "job", "env", "--strategy", "overlay")
    return ada


def source(ada: Machine) -> Path:
    return ada.root / "the-recorded-environment-of-a-user-somewhere-in-the-file-system"


def place(ada: Machine, space: str = "job") -> Path:
    [found] = ada.holotree.glob(f"{space}_*")
    return found


def own(ada: Machine) -> Path:
    return ada.holotree / ".ephemeral-1001" / "spaces"


def run(ada: Machine, script: str, space: str = "job", code: int = 0) -> str:
    """What a shell in the space prints. It is in the folder of the space."""
    return ada("run", space, "--", "sh", "-c", f'cd "$HOLO_SPACE_PATH" && {script}', code=code).stdout


def state(ada: Machine, space: str = "job") -> str:
    [row] = [row for row in ada("list", "--json").json()["spaces"] if row["name"] == space]
    return str(row["state"])


class Inside(NamedTuple):
    """A command that is in the space."""

    process: int
    path: Path

    @property
    def seen(self) -> Path:
        """The space as it sees it."""
        return Path(f"/proc/{self.process}/root{self.path}")

    @property
    def namespace(self) -> str:
        return os.readlink(f"/proc/{self.process}/ns/mnt")


def started(ada: Machine, forks: Forks, script: str = "") -> Inside:
    """A command that is in the space, after the script in there, until somebody ends it."""
    ready = ada.root / f"ready-{os.urandom(4).hex()}"
    waiting = f"{script}\necho > {shlex.quote(str(ready))}; exec sleep 60"
    process = forks.start("run", "job", "--", "sh", "-c", waiting, env=ada.environment(), user=ADA, memory=0)
    eventually(ready.exists)
    return Inside(process, place(ada))


@contextmanager
def inside(ada: Machine, forks: Forks, script: str = "") -> Iterator[Inside]:
    """The same while the block runs."""
    there = started(ada, forks, script)
    try:
        yield there
    finally:
        os.kill(there.process, signal.SIGTERM)
        assert forks.wait(there.process) == -signal.SIGTERM


def is_pristine(ada: Machine, there: Inside) -> bool:
    return compare.differences(source(ada), there.seen, new=there.path) == []


@on("ada", ["btrfs", "xfs", "ext4", "tmpfs"], indirect=True)
def test_a_space_from_init_to_delete(ada: Machine, forks: Forks) -> None:
    made = ada("init", "other", "env", "--strategy", "overlay", "--json")
    report = made.json()
    assert (report["strategy"]["requested"], report["strategy"]["used"]) == ("overlay", "view")
    assert "only `holo run` and `holo shell`" in report["strategy"]["reason"]
    assert ada("init", "other", "env").stderr == "", "it stays one, and that is no news"
    assert [*place(ada).iterdir()] == [*place(ada, "other").iterdir()] == []
    with inside(ada, forks) as first, inside(ada, forks) as second:
        assert is_pristine(ada, first)
        assert first.namespace == second.namespace
        script = "./bin/hello; echo new > lib/deep/er/leaf; mv lib/other.txt lib/moved; readlink /proc/self/ns/mnt"
        assert run(ada, script) == f"hello from {place(ada)}\n{first.namespace}\n"
        for there in (first, second):
            assert (there.seen / "lib/deep/er/leaf").read_text() == "new\n", "all see what one has changed"
        assert [*place(ada).iterdir()] == []
    assert (state(ada), state(ada, "other")) == ("changed", "pristine")
    assert run(ada, "cat lib/deep/er/leaf; ls lib; readlink /proc/self/ns/mnt", "other").startswith("leafdata.txt\n")
    with inside(ada, forks) as again:
        assert (again.seen / "lib/deep/er/leaf").read_text() == "new\n", "and it stays"
        assert sorted(path.name for path in (again.seen / "lib").iterdir()) == ["data.txt", "deep", "moved"]
    ada("restore", "job")
    assert state(ada) == "pristine"
    with inside(ada, forks) as third:
        assert is_pristine(ada, third)
    assert len([*own(ada).glob("job/*")]) == len([*own(ada).glob("job/*/work-*")]) == 1
    ada("delete", "job")
    ada("delete", "other")
    assert [*own(ada).iterdir()] == [*ada.holotree.glob("[!.]*")] == []


def test_whoever_is_killed_the_others_go_on(ada: Machine, forks: Forks) -> None:
    first = started(ada, forks, "echo 1 > $HOLO_SPACE_PATH/lib/data.txt")
    with inside(ada, forks) as second:
        os.kill(first.process, signal.SIGKILL)
        assert forks.wait(first.process) == -signal.SIGKILL
        assert (second.seen / "lib/data.txt").read_text() == "1\n"
        with inside(ada, forks) as third:
            assert third.namespace == second.namespace
        assert "in its view" in ada("restore", "job", code=1).stderr
        assert state(ada) == "changed"
    assert run(ada, "cat lib/data.txt") == "1\n"
    ada("restore", "job")
    with inside(ada, forks) as last:
        assert is_pristine(ada, last)


def test_what_is_in_use_stays(ada: Machine, forks: Forks) -> None:
    with inside(ada, forks) as there:
        for command in (
            ["restore", "job"],
            ["restore", "job", "--strategy", "copy"],
            ["init", "job", "env", "--force"],
            ["delete", "job"],
            ["uninstall", "--yes"],
        ):
            refused = ada(*command, code=1)
            assert f"when they have ended. `ps -p {there.process}` shows them." in refused.stderr, command
        ada("gc")
        ada("check", "--repair")
        assert is_pristine(ada, there)
        assert run(ada, "./bin/hello") == f"hello from {place(ada)}\n"
        assert state(ada) == "pristine"
    # What has left the shared namespace is still there.
    script = "unshare -Urm sleep 60 & echo $! > $HOLO_SPACE_PATH/sandbox"
    with inside(ada, forks, script) as first, inside(ada, forks) as second:
        sandbox = int((second.seen / "sandbox").read_text())
        eventually(lambda: os.readlink(f"/proc/{sandbox}/ns/mnt") != first.namespace)
        assert first.namespace == second.namespace
    try:
        assert f"`ps -p {sandbox}`" in ada("restore", "job", code=1).stderr
        ada.tune["holo.trees.views._PATIENCE"] = 0.1
        assert "does not see" in ada("run", "job", "--", "true", code=1).stderr
    finally:
        os.kill(sandbox, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{sandbox}").exists())
    assert run(ada, "./bin/hello") == f"hello from {place(ada)}\n"


def test_never_two_mounts(ada: Machine, forks: Forks) -> None:
    """Whatever the note of the namespace says: the kernel is asked, and no process is believed to be in there."""
    [note] = own(ada).glob("job/*")
    with inside(ada, forks) as there:
        kept = (note / "namespace").read_text()
        assert kept == there.namespace
        fake = f"mount -t tmpfs holo-view-{note.name} {place(ada)} && exec sleep 60"
        strangers = [
            subprocess.Popen(["unshare", "-Urm", *command], user=user, group=user, extra_groups=[])
            for user, command in ((ADA.uid, ["sleep", "60"]), (1002, ["sh", "-c", fake]))
        ]
        try:
            eventually(lambda: all(Path(f"/proc/{each.pid}/comm").read_text() == "sleep\n" for each in strangers))
            assert f"holo-view-{note.name}" in Path(f"/proc/{strangers[1].pid}/mountinfo").read_text()
            texts = [os.readlink(f"/proc/{process}/ns/mnt") for process in ("self", *(each.pid for each in strangers))]
            for text in ("", "x" * 99, *texts):
                (note / "namespace").write_text(text)
                ada.tune["holo.trees.views._PATIENCE"] = 0.1
                refused = ada("run", "job", "--", "touch", ada.root / "ran", code=1)
                assert "in use by processes that this command does not see" in refused.stderr
                assert not (ada.root / "ran").exists()
        finally:
            for each in strangers:
                each.kill()
                each.wait()
        (note / "namespace").write_text(kept)
        assert run(ada, "readlink /proc/self/ns/mnt") == f"{there.namespace}\n"


def test_many_at_once(ada: Machine, forks: Forks) -> None:
    """All wait until all are there, so none has a namespace that went away before."""
    script = 'cd "$0"; readlink /proc/self/ns/mnt > $$.new; mv $$.new $$; while [ ! -e go ]; do sleep 0.02; done'
    meeting = ada.root / "meeting"
    meeting.mkdir()
    os.chown(meeting, 1001, 1001)
    command = ("run", "job", "--", "sh", "-c", script, meeting)
    processes = [forks.start(*command, env=ada.environment(), user=ADA, memory=0) for _ in range(6)]
    eventually(lambda: len([*meeting.glob("*[0-9]")]) == 6)
    namespaces = {path.read_text() for path in meeting.glob("*[0-9]")}
    (meeting / "go").touch()
    assert [forks.wait(process) for process in processes] == [0] * 6
    assert len(namespaces) == 1


def test_what_other_commands_see(ada: Machine) -> None:
    for command in (["variables", "job"], ["diff", "job", "env"], ["ls", "job"], ["record", place(ada)]):
        refused = ada(*command, code=1)
        assert "only `holo run` and `holo shell` see" in refused.stderr, command
        assert "holo run job -- COMMAND" in refused.stderr
    assert "drops all that was changed" in ada("restore", "job", "--dry-run", code=2).stderr
    status = ada("status", "job", "--json").json()
    assert (status["state"], status["changes"]) == ("pristine", None)
    assert "holo run job -- holo status" in status["reason"]
    run(ada, "echo 123456 > lib/data.txt")
    assert ada("status", "job", "--json").json()["state"] == "changed"
    checked = ada("check", "--space", "job")
    assert "not compared from outside" in checked.stderr
    assert ada("check", "--json").json()["problems"] == []
    used = ada("du", "job", "--json").json()["items"][0]
    assert 0 < used["logical"] < 10_000, "what was changed, and what names the path"
    assert ada("doctor", "--json").json()["capabilities"]["view"]["available"]
    assert ada("list", "--json").json()["spaces"][0]["strategy"]["used"] == "view"
    shell = ada.root / "shell"
    shell.write_text("#!/bin/sh\ncat $HOLO_SPACE_PATH/lib/data.txt\n")
    shell.chmod(0o755)
    assert ada("shell", "job", env={"SHELL": str(shell)}).stdout == "123456\n"


def test_inside_it_is_a_space_like_any_other(machine: Make, forks: Forks) -> None:
    """Of root without the right to mount, as in most containers."""
    root = machine("ext4")
    trees.small(source(root))
    root("record", source(root), "--name", "env")
    holo = [sys.executable, "-m", "holo"]
    environment = {**root.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}

    def call(*command: str | Path, code: int = 0) -> str:
        bounded = ["setpriv", "--bounding-set=-sys_admin", *holo, *command]
        done = subprocess.run(bounded, env=environment, capture_output=True, text=True, check=False, cwd=root.root)
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done
        return done.stdout + done.stderr

    def within(*command: str, code: int = 0) -> str:
        return call("run", "job", "--", *holo, *command, code=code)

    call("init", "job", "env", "--strategy", "overlay")
    assert [*place(root).iterdir()] == []
    assert json.loads(within("status", "job", "--json"))["state"] == "pristine"
    call("run", "job", "--", "sh", "-c", "echo 123456 > $HOLO_SPACE_PATH/lib/data.txt")
    assert "lib/data.txt" in within("diff", "job", "env", "-v")
    assert "lib/data.txt" in within("check", "--space", "job", code=3)
    assert f"HOLO_SPACE_PATH='{place(root)}'" in within("variables", "job")
    assert within("cat", "job", "lib/data.txt") == within("run", "--", "cat", str(place(root) / "lib/data.txt"))
    assert within("run", "--ephemeral", "--", "sh", "-c", "cat $HOLO_SPACE_PATH/lib/data.txt") == "data\n" * 2000
    for command in ("restore", "delete"):
        assert "this command runs in the space" in within(command, "job", code=1)
    assert call("run", "job", "--", "cat", place(root) / "lib/data.txt") == "123456\n"
    assert "mounts it" in root("run", "job", "--", "true", code=1).stderr, "with all rights it is another overlay"
    assert root("restore", "job", "--json").json()["strategy"]["used"] == "overlay"
    assert compare.differences(source(root), place(root), new=place(root)) == []
    root("delete", "job")


def test_it_needs_nothing_but_its_tree(ada: Machine) -> None:
    run(ada, "echo 123456 > lib/data.txt")
    ada("catalogs", "--remove", "env")
    ada("gc")
    assert run(ada, "cat lib/data.txt lib/deep/er/leaf") == "123456\nleaf"


def test_another_strategy_is_another_space(ada: Machine, forks: Forks) -> None:
    run(ada, "echo 123456 > lib/data.txt")
    assert ada("restore", "job", "--strategy", "copy", "--json").json()["strategy"]["used"] == "copy"
    assert compare.differences(source(ada), place(ada), new=place(ada)) == []
    assert [*own(ada).iterdir()] == []
    restored = ada("restore", "job", "--strategy", "overlay")
    assert "overlay was asked for, view is used" in restored.stderr
    assert [*place(ada).iterdir()] == []
    with inside(ada, forks) as there:
        assert is_pristine(ada, there)
    path = place(ada)
    path.rename(ada.root / "moved")
    path.symlink_to(ada.root / "moved")
    assert "cannot enter" in ada("run", "job", "--", "true", code=1).stderr, "it would be mounted there"


@on("command", [["init", "job", "env"], ["restore", "job"], ["run", "job", "--", "true"], ["delete", "job"]])
@pytest.mark.torture
def test_killed_at_random_moments(ada: Machine, forks: Forks, command: list[str], torture: bool) -> None:
    chance = random.Random(command[0])
    for _ in range(40 if torture else 4):
        process = forks.start(*command, env=ada.environment(), user=ADA, memory=0)
        time.sleep(chance.random() / 10)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        forks.wait(process)
        ada("list")
        if command[0] == "run":
            assert run(ada, "./bin/hello") == f"hello from {place(ada)}\n"
        ada("init", "job", "env", "--strategy", "overlay")
        assert len([*own(ada).glob("job/*")]) == 1
        with inside(ada, forks) as there:
            assert is_pristine(ada, there)
    ada("delete", "job")
    assert [*own(ada).iterdir()] == [*ada.holotree.glob("[!.]*")] == []
