"""Throw-away environments: what a command finds there, and what is left of it afterwards.

A test looks in from outside: root sees what a process sees below /proc/PID/root, whoever that is.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from holo import Hololib, NotFound, ephemeral, platform
from holo.checkout.stubs import Stubs
from holo.hololib import Library
from holo.hololib.blobs import SEALED_MTIME_NS
from holo.trees.overlay import Layers
from support import compare, filesystems, trees
from support.cli import Holo, Result, eventually
from support.filesystems import Filesystem
from support.forks import Forks, User

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user, and look into their view")

ROOT, ADA, BOB = User(0), User(1001), User(1002)


@dataclass
class Home:
    """A user's library with a catalog ``env`` and a space ``web`` of it."""

    root: Path
    forks: Forks
    user: User
    catalog: str = "env"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def holotree(self) -> Path:
        return self.home / "holotree"

    @property
    def source(self) -> Path:
        return self.root / "the-recorded-environment-of-a-user-somewhere-in-the-file-system"

    @property
    def own(self) -> Path:
        return self.holotree / f".ephemeral-{self.user.uid}"

    def environment(self) -> dict[str, str]:
        return {
            "HOLO_HOME": str(self.home),
            "HOLO_SETTINGS": str(self.root / "settings.yaml"),
            "HOME": str(self.root),
            "PATH": os.environ["PATH"],
        }

    def __call__(self, *arguments: str | Path, code: int | None = 0, cwd: Path | None = None) -> Result:
        return self.forks(
            *arguments, env=self.environment(), user=self.user, code=code, cwd=cwd or self.root, memory=4 << 30
        )

    def path(self, space: str = "web") -> Path:
        slug = next(path for path in self.holotree.glob(f"{space}_*"))
        return self.holotree / slug

    def ephemeral(self, *command: str, code: int = 0, cwd: Path | None = None) -> Result:
        return self("run", "--ephemeral", "--space", "web", "--", *command, code=code, cwd=cwd)

    def script(self, script: str, code: int = 0, cwd: Path | None = None) -> str:
        """What a shell in a throw-away environment prints."""
        return self.ephemeral("sh", "-c", script, code=code, cwd=cwd).stdout

    @contextmanager
    def inside(self, *options: str, script: str = "", space: str = "web") -> Iterator[Inside]:
        """A throw-away environment that lives while the block runs, after the script in it."""
        gate = self.root / f"gate-{os.urandom(4).hex()}"
        gate.mkdir()
        os.mkfifo(gate / "go")
        subprocess.run(["chown", "-R", f"{self.user.uid}", gate], check=True)
        waiting = (
            f'{script}\ncd {shlex.quote(str(gate))}; echo $$ > pid; printf %s "$HOLO_SPACE_PATH" > draft; mv draft path'
        )
        command = ("sh", "-c", f"{waiting}; read line < go; exit 5")
        process = self.forks.start(
            "run", "--ephemeral", "--space", space, *options, "--", *command, env=self.environment(), user=self.user
        )
        eventually((gate / "path").exists)
        pid = int((gate / "pid").read_text())
        inside = Inside(process, pid, Path((gate / "path").read_text()))
        try:
            yield inside
        finally:
            if not inside.is_killed:
                with (gate / "go").open("w") as go:
                    go.write("on\n")
            inside.code = self.forks.wait(process)

    def left(self) -> list[str]:
        """What a run has left that is not kept for the next."""
        runs = [str(path) for path in self.own.glob("runs/*")]
        covers = [str(path) for path in (self.holotree / ".spaces").glob("*.cover")]
        halves = [str(path) for path in self.own.glob("*/*.draft")]
        mounted = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " holo-ephemeral " in line]
        known = {
            json.loads(self("list", "--json").stdout)["spaces"][index]["path"] for index in range(len(self.spaces()))
        }
        points = [str(path) for path in self.holotree.iterdir() if path.name[0] != "." and str(path) not in known]
        return [*runs, *covers, *halves, *mounted, *points]

    def is_idle(self) -> bool:
        """Whether nobody holds the lock of a run: the child of a killed holo ends a moment after it."""
        for path in self.own.glob("runs/*.lock"):
            with path.open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
        return True

    def spaces(self) -> list[str]:
        return [space["name"] for space in self("list", "--json").json()["spaces"]]


@dataclass
class Inside:
    """One that lives."""

    holo: int
    pid: int
    path: Path
    code: int | None = None
    is_killed: bool = False

    @property
    def seen(self) -> Path:
        """The environment as the command sees it."""
        return Path(f"/proc/{self.pid}/root{self.path}")


def give(tree: Path, user: User) -> None:
    subprocess.run(["chown", "-hR", f"{user.uid}:{user.uid}", tree], check=True)


@pytest.fixture(params=[ROOT, ADA], ids=["root", "user"])
def user(request: pytest.FixtureRequest) -> User:
    found: User = request.param
    return found


@pytest.fixture
def home(filesystem: Filesystem, forks: Forks, user: User) -> Home:
    return make_home(filesystem, forks, user, trees.small)


def make_home(filesystem: Filesystem, forks: Forks, user: User, make: Callable[[Path], object]) -> Home:
    for folder in filesystem.root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    home = Home(filesystem.root, forks, user)
    (home.root / "settings.yaml").touch()
    make(home.source)
    give(home.root, user)
    home("record", home.source, "--name", "env")
    home("init", "--space", "web", "env")
    return home


local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
as_user = pytest.mark.parametrize("user", [ADA], ids=["user"], indirect=True)


# -- what a command finds ---------------------------------------------------------------------------------------------


def test_exactly_what_was_recorded(filesystem: Filesystem, forks: Forks, user: User) -> None:
    def make(path: Path) -> None:
        trees.nasty(path, xattrs=filesystem.xattrs)
        (path / "modes" / "file-0111").chmod(0o511)  # only root reads, and records, one without

    home = make_home(filesystem, forks, user, make)
    (home.path() / "sizes" / "one").write_text("changed in the space")
    before = compare.snapshot(home.path())
    with home.inside() as inside:
        assert inside.path == home.path()
        assert compare.differences(home.source, inside.seen, new=inside.path) == []
        numbers = [(found.st_dev, found.st_ino) for found in compare.walk(inside.seen).values() if found.st_nlink == 1]
        assert len(numbers) == len({*numbers}), "files that could be taken for each other"
        assert stat.S_IMODE(os.lstat(inside.seen).st_mode) == stat.S_IMODE(os.lstat(home.source).st_mode)
    assert inside.code == 5
    assert compare.snapshot(home.path()) == before
    assert home.left() == []


def test_it_is_writable_and_nothing_stays(home: Home) -> None:
    home.script("true")  # the first may give blobs other names
    library, space = compare.snapshot(home.home / "hololib"), compare.snapshot(home.path())
    script = """
        set -e; cd $HOLO_SPACE_PATH
        test "$(hello)" = "hello from $PWD"
        echo more >> lib/data.txt; rm lib/other.txt; chmod 700 lib/deep; mv lib/deep/er/leaf leaf
        mkdir lib/other.txt; mv lib/deep lib/moved; ln -s nowhere link; rm -r bin; echo new > bin
        mkfifo fifo; ln lib/data.txt linked; find . | sort"""
    seen = home.script(script)
    assert "./lib/moved/er" in seen
    assert "./leaf" in seen
    assert home.script(script) == seen, "the second starts where the first started"
    assert compare.snapshot(home.path()) == space
    after = compare.snapshot(home.home / "hololib")
    # The lock says who held it last, and the mark when the catalog was used.
    changed = {name for name in library.keys() | after.keys() if library.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith((b"lock", b"pending", b"used"))} <= {b"."}
    with home.inside() as inside:
        assert compare.differences(home.source, inside.seen, new=inside.path) == []
    assert home.left() == []


@local
def test_the_rest_of_the_system_is_as_before(home: Home) -> None:
    mine = home.root / "mine"
    script = f"id -u; id -g; echo written > {mine}; wc -l < /proc/self/mountinfo; echo $HOLO_SPACE; which hello"
    outside = Path("/proc/self/mountinfo")
    before = ""
    while before != outside.read_text():  # other tests mount and unmount as well
        before = outside.read_text()
        uid, gid, mounts, space, hello = home.script(script).splitlines()
    assert (int(uid), int(gid)) == (home.user.uid, home.user.uid)
    assert int(mounts) == len(before.splitlines()) + 1
    assert space == "web"
    assert Path(hello) == home.path() / "bin" / "hello"
    assert mine.read_text() == "written\n"
    assert mine.stat().st_uid == home.user.uid


@local
def test_mounts_that_appear_later_are_seen(home: Home) -> None:
    shared = home.root / "shared"
    (shared / "later").mkdir(parents=True)
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    try:
        subprocess.run(["mount", "--make-shared", shared], check=True)
        with home.inside() as inside:
            subprocess.run(["mount", "-t", "tmpfs", "none", shared / "later"], check=True)
            (shared / "later" / "file").touch()
            assert Path(f"/proc/{inside.pid}/root{shared}/later/file").exists()
    finally:
        subprocess.run(["umount", "-R", shared], check=True)


TRIES = """
    cd $HOLO_SPACE_PATH; rm -rf tried; mkdir tried; cd tried
    printf '#!/bin/sh\\necho it runs' > script; chmod 755 script; ./script
    cp "$(command -v id)" id; chown 1002 id; chmod 4755 id; ./id -u
    mknod null c 1 3 && echo nothing > null && echo it is written to
    ln -s script link; cat link > content && echo it is followed
"""
"""What a mount may forbid, as root: to run a file, and as its owner; to use a device, and a symlink."""


@local
@pytest.mark.parametrize("user", [ROOT], ids=["root"], indirect=True)
@pytest.mark.parametrize("flags", ["rw", "nosuid", "nodev", "noexec", "nosymfollow", "nosuid,nodev,noexec,noatime"])
def test_what_the_mount_forbids(home: Home, flags: str) -> None:
    """As in the space itself: what lies over it lies on the same mount."""
    place = home.root / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", flags, "none", place], check=True)
    try:
        home("init", "--space", "there", "env", "--to", place / "there")
        results = [
            home("run", *options, "--space", "there", "--", "sh", "-c", TRIES, code=None)
            for options in ((), ("--ephemeral",))
        ]
        assert (results[0].stdout, results[0].code) == (results[1].stdout, results[1].code)
        with home.inside(space="there") as inside:
            lines = Path(f"/proc/{inside.pid}/mountinfo").read_text().splitlines()
            (options_there,) = [line.split()[5] for line in lines if " holo-ephemeral " in line]
        assert {*flags.split(",")} <= {*options_there.split(",")}
    finally:
        subprocess.run(["umount", place], check=True)


def test_what_the_mount_of_the_home_forbids(home: Home) -> None:
    subprocess.run(["mount", "--bind", home.root, home.root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,noexec,nosuid,nodev", home.root], check=True)
        script = 'cp "$(command -v id)" $HOLO_SPACE_PATH/id; $HOLO_SPACE_PATH/id'
        assert home.script(script, code=126) == ""
        with home.inside() as inside:
            lines = Path(f"/proc/{inside.pid}/mountinfo").read_text().splitlines()
            (options,) = [line.split()[5] for line in lines if " holo-ephemeral " in line]
            assert {"noexec", "nosuid", "nodev"} <= {*options.split(",")}
    finally:
        subprocess.run(["umount", home.root], check=True)


@local
def test_the_current_folder_is_one_inside(home: Home) -> None:
    (home.path() / "lib" / "data.txt").write_text("of the space")
    assert home.script("cat data.txt", cwd=home.path() / "lib") == "data\n" * 2000
    assert home.script("pwd; ls", cwd=home.path()).splitlines() == [str(home.path()), "bin", "lib"]
    extra = home.path() / "extra"
    extra.mkdir()
    os.chown(extra, home.user.uid, -1)
    assert "is not in the pristine environment" in home.ephemeral("true", code=1, cwd=extra).stderr
    assert home.left() == []


@local
def test_a_real_virtualenv(filesystem: Filesystem, real_venv_source: Path) -> None:
    holo = Holo(filesystem.root)
    holo("record", real_venv_source, "--name", "venv")
    report = holo("init", "--space", "web", "venv", "--json").json()
    script = "import sys, numpy; print(sys.prefix, numpy.__file__)"
    for options in ((), ("--catalog", "venv")):
        space = "new" if options else "web"
        said = holo("run", "--ephemeral", "--space", space, *options, "--", "python", "-c", script).stdout
        prefix = report["path"] if space == "web" else said.split()[0]
        assert said.split()[0] == prefix
        assert said.split()[1].startswith(prefix)
        pip = holo("run", "--ephemeral", "--space", space, *options, "--", "pip", "--version").stdout
        assert prefix in pip
    changed = "import sys, pathlib; pathlib.Path(sys.prefix, 'lib', 'x').write_text('x')"
    holo("run", "--ephemeral", "--space", "web", "--", "python", "-c", changed)
    holo("check", "--space", "web")


@local
def test_environment_of_a_blueprint(filesystem: Filesystem) -> None:
    """Built once, and no space is made."""
    holo = Holo(filesystem.root)
    project = holo.root / "project"
    trees.write(project / "requirements.txt", "tabulate==0.9.0\n")
    where = ("--", "python", "-c", "import tabulate; print(tabulate.__file__)")
    first = holo("run", "--ephemeral", "--blueprint", project / "requirements.txt", *where).stdout
    assert first.startswith(str(holo.holotree))
    assert holo("run", "--ephemeral", *where, cwd=project).stdout == first, "the nearest one"
    assert "uv" not in holo("run", "--ephemeral", *where, cwd=project).stderr
    assert holo("list", "--json").json()["spaces"] == []
    assert [path for path in holo.holotree.iterdir() if path.name[0] != "."] == []
    both = ("--catalog", "x", "--blueprint", project / "requirements.txt")
    assert "one of the two" in holo("run", "--ephemeral", *both, "--", "true", code=2).stderr
    killed = holo.holotree / f".ephemeral-{os.geteuid()}" / "runs" / "0123456789abcdef"
    killed.mkdir()
    holo("run", "--blueprint", project / "requirements.txt", "--", "true")
    assert not killed.exists()


# -- exit codes and signals -------------------------------------------------------------------------------------------


@local
@as_user
def test_exit_code_is_that_of_the_command(home: Home) -> None:
    for code in (0, 1, 3, 77):
        home.ephemeral("sh", "-c", f"exit {code}", code=code)
    assert home.ephemeral("sh", "-c", "exit 130", code=130).stderr == "", "nobody interrupted holo"
    home.ephemeral("sh", "-c", "kill -KILL $$", code=-9)
    home.ephemeral("sh", "-c", "kill -INT $$", code=-2)
    home.ephemeral("sh", "-c", "kill -SEGV $$", code=-11)
    assert "no such command" in home.ephemeral("no-such-command", code=127).stderr
    assert "cannot be run" in home.ephemeral(str(home.path() / "lib" / "data.txt"), code=126).stderr
    assert home.left() == []


@local
@pytest.mark.parametrize("user", [ROOT], ids=["root"], indirect=True)
def test_signals_that_holo_inherits_as_ignored(home: Home) -> None:
    """Those of children, without which nobody can wait for one; and those that the command is to ignore as well."""
    command = [sys.executable, "-m", "holo", "run", "--ephemeral", "--space", "web", "--", "sh", "-c"]
    environment = {**home.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}

    def ignore() -> None:  # not every shell can
        for number in (signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    done = subprocess.run(
        [*command, "kill -HUP $$; exit 8"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=ignore,
    )
    assert (done.returncode, done.stderr) == (8, "")
    assert home.left() == []


@local
@as_user
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signals_reach_the_command(home: Home, number: signal.Signals) -> None:
    with home.inside(script=f"trap 'exit 42' {number.name.removeprefix('SIG')}") as inside:
        os.kill(inside.holo, number)
        inside.is_killed = True
    assert inside.code == 42
    assert home.left() == []


@local
@as_user
def test_a_signal_that_ends_the_command_ends_holo(home: Home) -> None:
    with home.inside() as inside:
        os.kill(inside.holo, signal.SIGTERM)
        inside.is_killed = True
    assert inside.code == -signal.SIGTERM
    assert home.left() == []


@local
@pytest.mark.parametrize("user", [ROOT], ids=["root"], indirect=True)
def test_closing_the_terminal_ends_the_command(home: Home) -> None:
    """As at the end of `ssh -t`, where holo leads the session, and is the only one that the system tells."""
    script = "trap 'exit 7' HUP; echo ready; while :; do sleep 0.05; done"
    command = [sys.executable, "-m", "holo", "run", "--ephemeral", "--space", "web", "--", "sh", "-c", script]
    environment = {**home.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
    holo, terminal = pty.fork()
    if holo == 0:
        os.execve(command[0], command, environment)
    try:
        assert b"ready" in os.read(terminal, 100)
        os.close(terminal)
        eventually(lambda: os.waitid(os.P_PID, holo, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    finally:
        os.kill(holo, signal.SIGKILL)
        status = os.waitpid(holo, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 7
    assert home.left() == []


@local
@as_user
def test_what_a_command_leaves_running_is_ended(home: Home) -> None:
    pids = home.root / "pids"
    stubborn = f"trap '' TERM; echo $$ >> {pids}; sleep 100"
    home.script(f'sleep 100 & echo $! > {pids}; (setsid sh -c "{stubborn}" &); sleep 0.1'.replace("$$", "\\$\\$"))
    numbers = [int(line) for line in pids.read_text().split()]
    assert len(numbers) == 2
    assert not any(Path(f"/proc/{number}").exists() for number in numbers)
    assert home.left() == []


# -- others, at the same time ------------------------------------------------------------------------------------------


def test_many_at_once_do_not_see_each_other(home: Home) -> None:
    results = home.root / "results"
    results.mkdir()
    os.chown(results, home.user.uid, -1)
    script = f"""cd $HOLO_SPACE_PATH; test -e mine && echo seen > {results}/bad
        echo $$ > mine; echo $$ > lib/data.txt; echo ready > {results}/$$
        while [ $(ls {results} | wc -l) -lt 20 ]; do sleep 0.02; done
        test "$(cat mine lib/data.txt)" = "$$
$$" || echo mixed > {results}/bad"""
    commands = ["run", "--ephemeral", "--space", "many", "--catalog", "env", "--", "sh", "-c", script]
    running = [home.forks.start(*commands, env=home.environment(), user=home.user) for _ in range(20)]
    assert [home.forks.wait(process) for process in running] == [0] * 20
    assert len(list(results.iterdir())) == 20
    assert not (results / "bad").exists()
    assert home.left() == []


@local
@pytest.mark.parametrize("user", [ROOT], ids=["root"], indirect=True)
def test_a_catalog_that_goes_while_its_layers_are_made(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed and collected after the tree was made: nothing is damaged, the catalog is just not there any more."""
    hold, layers = ephemeral.hold, Layers(str(home.holotree)).layers

    def remove_first(path: str, *arguments: Any) -> Any:
        if path.startswith(layers):
            home("catalogs", "--remove", "env")
            home("gc")
        return hold(path, *arguments)

    monkeypatch.setattr(ephemeral, "hold", remove_first)
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)
    with pytest.raises(NotFound, match="any more"):
        Hololib(home.home).run_ephemeral(["true"], "new", catalog="env")
    assert home.left() == []


def test_real_space_can_be_used_meanwhile(home: Home) -> None:
    """Restored (exchanged, on Btrfs), deleted, made again: nobody takes away what the command sees."""
    with home.inside() as inside:
        before = compare.snapshot(inside.seen)
        (home.path() / "lib" / "data.txt").write_text("changed")
        for index in range(600):  # so much that it is replaced as a whole
            (home.path() / "lib" / f"{index}").touch()
        home("restore", "--space", "web")
        assert compare.differences(home.source, home.path(), new=home.path()) == []
        assert compare.snapshot(inside.seen) == before
        home("delete", "--space", "web")
        home("gc")
        assert compare.snapshot(inside.seen) == before
        home("init", "--space", "web", "env")
        home("catalogs", "--remove", "env")
        home("gc")
        assert compare.snapshot(inside.seen) == before
        home("delete", "--space", "web")
        assert compare.snapshot(inside.seen) == before
    assert home.left() == []
    assert home("gc").code == 0
    assert [*home.own.glob("*/*")] == []


@local
@as_user
def test_a_space_that_is_not_there_appears_and_goes(home: Home) -> None:
    with home.inside("--catalog", "env", space="new") as first:
        with home.inside("--catalog", "env", space="new") as second:
            assert first.path == second.path
            assert list(first.path.iterdir()) == []
            assert home("check").code == 0
            (second.seen / "lib" / "data.txt").write_text("second")
        assert (first.seen / "lib" / "data.txt").read_text() == "data\n" * 2000
        home("init", "--space", "new", "env")
        assert (first.seen / "bin").exists()
    assert compare.differences(home.source, home.path("new"), new=home.path("new")) == []
    home("delete", "--space", "new")
    assert home.left() == []


@local
@as_user
def test_no_folder_is_made_but_the_environments_own(home: Home) -> None:
    place = home.root / "worktree" / "deep" / ".venv"
    home("init", "--space", "other", "env", "--to", place)
    filesystems.remove(home.root / "worktree")
    command = ("run", "--ephemeral", "--space", "other", "--", "true")
    assert f"there is no folder {place.parent}" in home(*command, code=1).stderr
    assert not (home.root / "worktree").exists()
    place.parent.mkdir(parents=True)
    give(place.parent, home.user)
    home(*command)
    assert list(place.parent.iterdir()) == []


@local
@as_user
def test_gc_removes_layers_that_nobody_uses(home: Home) -> None:
    for name in ("first", "second"):
        home("run", "--ephemeral", "--space", name, "--catalog", "env", "--", "true")

    def kept(folder: str) -> int:
        return len([path for path in (home.own / folder).iterdir() if path.is_dir()])

    with home.inside() as inside:
        assert kept("layers") == 3
        assert home("gc", "--dry-run", "--json").json()["removed"]["layers"] == 2
        assert home("gc", "--json").json()["removed"]["layers"] == 2
        assert compare.differences(home.source, inside.seen, new=inside.path) == []
    assert kept("layers") == 1
    home("gc")
    assert (kept("layers"), kept("trees") + kept("stubs")) == (0, 1)


@local
@pytest.mark.parametrize("user", [ROOT], ids=["root"], indirect=True)
def test_commands_of_holo_inside(home: Home) -> None:
    """They see the library, but change no space that they do not see; and one environment can be in another."""
    before = compare.snapshot(home.path())
    holo = f"PYTHONPATH={Path(__file__).parents[2]} {sys.executable} -m holo"
    for command in ("restore --space web", "delete --space web", "init --space web env"):
        assert "throw-away environment" in home.ephemeral("sh", "-c", f"{holo} {command}", code=1).stderr
    home("run", "--ephemeral", "--catalog", "env", "--space", "new", "--", "sh", "-c", f"{holo} check")
    nested = (
        "cd $HOLO_SPACE_PATH; echo 1 > file; {} run --ephemeral -- sh -c 'ls; echo 2 > file; exit 4'; echo $?; cat file"
    )
    assert home.script(nested.format(holo)).split() == ["bin", "lib", "4", "1"]
    assert compare.snapshot(home.path()) == before
    assert home.left() == []


# -- kept -------------------------------------------------------------------------------------------------------------


def test_the_result_becomes_a_space(home: Home) -> None:
    script = "cd $HOLO_SPACE_PATH; echo kept > lib/new; rm lib/other.txt; mkfifo lib/fifo; echo $PWD > lib/path; exit 3"
    home("run", "--ephemeral", "--space", "web", "--keep", "saved", "--", "sh", "-c", script, code=3)
    saved = home.path("saved")
    assert (saved / "lib" / "new").read_text() == "kept\n"
    assert (saved / "lib" / "path").read_text() == f"{saved}\n"
    assert sorted(os.listdir(saved / "lib")) == ["data.txt", "deep", "new", "path"]
    assert home("run", "--space", "saved", "--", "hello").stdout == f"hello from {saved}\n"
    assert home("run", "--ephemeral", "--space", "saved", "--", "hello").stdout == f"hello from {saved}\n"
    assert home.spaces() == ["saved", "web"]
    home("check", "--space", "saved")
    assert home.left() == []


@local
@as_user
def test_the_result_becomes_a_catalog(home: Home) -> None:
    command = ["run", "--ephemeral", "--space", "web", "--keep", "saved", "--record", "--", "sh", "-c"]
    home(*command, "cd $HOLO_SPACE_PATH; rm -r lib; kill -TERM $$", code=-15)
    assert home.spaces() == ["web"]
    home("init", "--space", "again", "saved")
    assert os.listdir(home.path("again")) == ["bin"]
    assert "already" in home(*command, "echo never > ran", code=1).stderr
    assert not (home.root / "ran").exists()
    assert "already" in home("run", "--ephemeral", "--space", "web", "--keep", "web", "--", "true", code=1).stderr
    for wrong in (["--keep", "x"], ["--record"], ["--catalog", "env"], ["--ephemeral", "--record"]):
        home("run", "--space", "web", *wrong, "--", "true", code=2)
    home("run", "--ephemeral", "--space", "nowhere", "--", "true", code=1)
    assert home.left() == []


@local
@as_user
def test_a_result_that_cannot_be_kept_is_called_lost(home: Home) -> None:
    names = home.home / "hololib" / "names"
    script = f"cd $HOLO_SPACE_PATH; echo new > new; mv {names} {names}-away; touch {names}"
    failed = home("run", "--ephemeral", "--space", "web", "--keep", "saved", "--", "sh", "-c", script, code=1)
    assert "what the command left could not be kept, and is gone: cannot " in failed.stderr
    names.unlink()
    names.with_name("names-away").rename(names)
    assert home.spaces() == ["web"]
    assert home.left() == []


@local
@as_user
def test_ctrl_c_when_the_command_has_ended_costs_nothing(home: Home) -> None:
    """Its result is kept, and the exit code is its own, while what it left running is being ended."""
    pid = home.root / "pid"
    script = f"trap '' TERM; sleep 100 & cd $HOLO_SPACE_PATH; echo kept > new; echo $$ > {pid}; exit 7"
    command = ["run", "--ephemeral", "--space", "web", "--keep", "saved", "--", "sh", "-c", script]
    holo = home.forks.start(*command, env=home.environment(), user=home.user)
    eventually(lambda: pid.exists() and pid.read_text())
    eventually(lambda: not Path(f"/proc/{int(pid.read_text())}").exists())
    os.kill(holo, signal.SIGINT)
    assert home.forks.wait(holo) == 7
    assert (home.path("saved") / "new").read_text() == "kept\n"
    assert home.left() == []


# -- killed -----------------------------------------------------------------------------------------------------------


@as_user
@pytest.mark.parametrize("command", [("list",), ("init", "--space", "other", "env")], ids=["list", "init"])
def test_killed_holo_leaves_nothing_running(home: Home, command: tuple[str, ...]) -> None:
    with home.inside(script="sleep 50 & echo > $HOLO_SPACE_PATH/new") as inside:
        os.kill(inside.holo, signal.SIGKILL)
        inside.is_killed = True
    assert inside.code == -signal.SIGKILL
    eventually(lambda: not Path(f"/proc/{inside.pid}/root{inside.path}").exists())
    assert list((home.own / "runs").iterdir()) != []
    home(*command)
    assert list((home.own / "runs").iterdir()) == []
    assert home.left() == []


@pytest.mark.torture
@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_killed_at_any_moment(home: Home, torture: bool, faults: Callable[[int, str, int], None]) -> None:
    """Several at once, over layers that are there or have to be made; then one command, and nothing is left."""
    before = compare.snapshot(home.path())
    chance = random.Random(7)
    count = 400 if torture else 12
    faults(2, "kill -9 of throw-away environments at random moments", count)
    script = "cd $HOLO_SPACE_PATH; for i in 1 2 3 4 5 6 7 8; do echo $i > $i; rm -r lib; mkdir lib; sleep 0.002; done"
    for number in range(0, count, 4):
        if number % 3 == 0:
            filesystems.remove(home.own)
        command = ["run", "--ephemeral", "--space", f"{number % 5}", "--catalog", "env", "--", "sh", "-c", script]
        running = [home.forks.start(*command, env=home.environment(), user=home.user) for _ in range(4)]
        for process in chance.sample(running, 4):
            time.sleep(chance.random() / 30)
            os.kill(process, signal.SIGKILL)
        assert {home.forks.wait(process) for process in running} <= {0, -signal.SIGKILL}
        eventually(home.is_idle)
        assert home.spaces() == ["web"]
        assert home.left() == []
    assert compare.snapshot(home.path()) == before
    with home.inside() as inside:
        assert compare.differences(home.source, inside.seen, new=inside.path) == []


# -- where nothing can be mounted -------------------------------------------------------------------------------------


def without_namespaces(home: Home, *arguments: str, code: int = 0) -> Result:
    """Run it in a user namespace below which there can be no other."""
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces; echo 0 > /proc/sys/user/max_mnt_namespaces; exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh", sys.executable, "-m", "holo", *arguments],
        env={**home.environment(), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done
    return Result(list(arguments), done.returncode, done.stdout, done.stderr)


@local
@pytest.mark.parametrize("user", [ROOT], ids=["root"], indirect=True)
def test_a_space_of_its_own_instead(home: Home) -> None:
    space = compare.snapshot(home.path())
    script = "hello; echo > $HOLO_SPACE_PATH/new; exit 9"
    done = without_namespaces(home, "run", "--ephemeral", "--space", "web", "--", "sh", "-c", script, code=9)
    assert done.stderr.count("\n") == 1
    assert "a space of its own" in done.stderr
    assert done.stdout.startswith(f"hello from {home.holotree}/ephemeral-")
    assert compare.snapshot(home.path()) == space
    assert list(home.own.glob("*/*")) == [], "made for nothing"
    assert home.left() == []
    assert not list((home.holotree / ".spaces").glob("ephemeral-*"))
    without_namespaces(home, "run", "--ephemeral", "--space", "web", "--keep", "kept", "--", "sh", "-c", script, code=9)
    assert (home.path("kept") / "new").exists()
    assert home.spaces() == ["kept", "web"]
    # Killed: the next command deletes it.
    kill = "kill -KILL $PPID; exec sleep 9"
    without_namespaces(home, "run", "--ephemeral", "--space", "web", "--", "sh", "-c", kill, code=-9)
    assert len(list((home.own / "runs").iterdir())) == 2
    assert home.spaces() == ["kept", "web"]
    assert home.left() == []
    assert home.spaces() == ["kept", "web"]


@local
def test_a_filesystem_without_attributes(filesystem: Filesystem, forks: Forks, user: User) -> None:
    """An overlay there cannot say that a directory is a new one, and not that below it."""
    place = filesystem.root / "memory"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", place], check=True)
    try:
        home = make_home(replace(filesystem, root=place), forks, user, trees.small)
        done = home.ephemeral("sh", "-c", "cd $HOLO_SPACE_PATH && rm -r lib && mkdir lib")
        assert "a space of its own" in done.stderr
        assert home.left() == []
    finally:
        subprocess.run(["umount", place], check=True)


# -- what others put there --------------------------------------------------------------------------------------------


@local
@as_user
def test_another_users_folder_is_not_used(home: Home) -> None:
    os.rename(home.own, home.root / "away") if home.own.exists() else None
    target = home.root / "target"
    target.mkdir(mode=0o777)
    for plant in (
        lambda: os.symlink(target, home.own),
        lambda: (home.own.mkdir(), os.chown(home.own, BOB.uid, BOB.uid)),
        lambda: (home.own.mkdir(), os.chown(home.own, ADA.uid, ADA.uid), home.own.chmod(0o770)),
    ):
        plant()
        assert str(home.own) in home.ephemeral("true", code=1).stderr
        assert list(target.iterdir()) == []
        home.own.unlink() if home.own.is_symlink() else home.own.rmdir()
    home.ephemeral("true")


@local
@as_user
def test_another_users_folder_is_not_tidied(home: Home) -> None:
    """It may lead to any folder of this user with such names in it, and its notes may name any path."""
    target, empty = home.root / "experiments", home.root / "empty"
    for path in (target / "trees", target / "layers", target / "runs" / "first", empty):
        path.mkdir(parents=True)
    trees.write(target / "runs" / "first" / "result", "of a week's work")
    trees.write(target / "runs" / "first" / "mount", json.dumps(["web", str(empty), True]))
    give(target, ADA)
    give(empty, ADA)
    before = compare.snapshot(target)
    filesystems.remove(home.own) if home.own.exists() else None
    os.symlink(target, home.own)
    os.chown(home.own, BOB.uid, BOB.uid, follow_symlinks=False)
    home("list")
    home("gc")
    assert (compare.snapshot(target), empty.exists()) == (before, True)
    home.own.unlink()
    subprocess.run(["cp", "-a", target, home.own], check=True)
    os.chown(home.own, BOB.uid, BOB.uid)
    home.own.chmod(0o755)
    before = compare.snapshot(home.own)
    home("list")
    home("gc")
    assert (compare.snapshot(home.own), empty.exists()) == (before, True)
    filesystems.remove(home.own)


@local
@as_user
def test_the_place_is_not_a_directory(home: Home) -> None:
    path = home.path()
    home("delete", "--space", "web")
    for plant in (lambda: path.write_text("a file"), lambda: os.symlink("/etc", path)):
        plant()
        failed = home("run", "--ephemeral", "--space", "web", "--catalog", "env", "--", "true", code=1)
        assert "is not a directory" in failed.stderr
        path.unlink()
    assert list((home.own / "runs").iterdir()) == []


@local
@as_user
def test_the_place_is_another_users(home: Home) -> None:
    """They could rename it while the command runs, which moves the mount, and put a directory of theirs there."""
    path = home.path()
    home("delete", "--space", "web")
    path.mkdir(mode=0o777)
    os.chown(path, BOB.uid, BOB.uid)
    failed = home("run", "--ephemeral", "--space", "web", "--catalog", "env", "--", "true", code=1)
    assert f"{path} is another user's" in failed.stderr


@local
@as_user
def test_a_run_that_cannot_be_removed_is_not_in_the_way(home: Home) -> None:
    home.ephemeral("true")
    for name in ("first", "second"):
        trees.write(home.own / "runs" / name / "upper" / "file", "left by a run")
    give(home.own / "runs" / "second", ADA)
    assert "is still there" in home("list").stderr
    assert {path.stem for path in (home.own / "runs").iterdir()} == {"first"}
    give(home.own / "runs", ADA)
    home("list")
    assert home.left() == []


@local
@as_user
def test_a_cover_that_nobody_holds_is_gcs(home: Home) -> None:
    """One of a killed command, after somebody removed the folder that tells of the run."""
    cover = home.holotree / ".spaces" / "web.cover"
    with home.inside():
        home("gc")
        assert cover.exists()
        assert home("gc", "--json").json()["removed"]["locks"] == 0
    cover.touch()
    give(cover, ADA)
    assert home("gc", "--dry-run", "--json").json()["removed"]["locks"] == 1
    assert cover.exists()
    assert home("gc", "--json").json()["removed"]["locks"] == 1
    assert not cover.exists()


@local
@as_user
def test_a_home_with_any_characters(filesystem: Filesystem, forks: Forks, user: User) -> None:
    """What a mount option, the list of mounts or a shell would take for something else."""
    odd = filesystem.root / "a, b\\=\\054\n\"'$x é"
    odd.mkdir()
    home = make_home(replace(filesystem, root=odd), forks, user, trees.small)
    with home.inside() as inside:
        (quoted,) = compare.differences(home.source, inside.seen, new=inside.path)
        assert "bin/hello" in quoted
        said = subprocess.run(
            ["bash", inside.seen / "bin" / "hello"], capture_output=True, text=True, check=True
        ).stdout
        assert said == f"hello from {inside.path}\n"
        home("restore", "--space", "web")
    assert home.left() == []


@local
@as_user
def test_what_two_users_have_is_apart(home: Home) -> None:
    """Root uses the same home: neither's folder is the other's, and neither removes what the other runs."""
    other = Home(home.root, home.forks, ROOT)
    with home.inside() as mine, other.inside("--catalog", "env", space="roots") as theirs:
        (theirs.seen / "lib" / "data.txt").write_text("theirs")
        assert (mine.seen / "lib" / "data.txt").read_text() == "data\n" * 2000
        home("gc")
        other("gc")
        assert os.lstat(mine.seen / "lib").st_uid == ADA.uid
        assert os.lstat(theirs.seen / "lib").st_uid == 0
    assert home.left() == []
    assert list((other.own / "runs").iterdir()) == []


@pytest.mark.parametrize("filesystem", ["xfs"], indirect=True)
@as_user
def test_check_finds_a_changed_tree(home: Home) -> None:
    home.ephemeral("true")
    (tree,) = [path for path in (home.own / "trees").iterdir() if path.is_dir()]
    assert home("check", "--json").json()["golden"] >= 1
    found = (tree / "lib" / "data.txt").stat()
    (tree / "lib" / "data.txt").write_bytes(b"DATA\n" * 2000)
    os.utime(tree / "lib" / "data.txt", ns=(found.st_mtime_ns, found.st_mtime_ns))
    report = home("check", "--json", code=3).json()
    assert [(problem["kind"], problem["path"]) for problem in report["problems"]] == [("golden", str(tree))]
    shown = home("check", "--repair").stdout
    assert f"prepared tree {tree}: " in shown
    assert "golden" not in shown
    assert home.script("cat $HOLO_SPACE_PATH/lib/data.txt") == "data\n" * 2000


@local
@as_user
def test_attributes_that_overlays_understand(filesystem: Filesystem, forks: Forks, user: User) -> None:
    """A catalog can hold them. Mounted, the environment would look otherwise, so it is not."""

    def make(path: Path) -> None:
        trees.small(path)
        os.setxattr(path / "lib", "user.overlay.opaque", b"y")

    home = make_home(filesystem, forks, user, make)
    done = home.ephemeral("sh", "-c", "ls $HOLO_SPACE_PATH/lib")
    assert "a space of its own" in done.stderr
    assert done.stdout.split() == ["data.txt", "deep", "other.txt"]
    assert home.left() == []


# -- trees of stubs ---------------------------------------------------------------------------------------------------


on_ext4 = pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)


def make_raw(filesystem: Filesystem, forks: Forks, user: User, make: Callable[[Path], object] = trees.small) -> Home:
    """A home whose library has all contents raw."""

    def make_all(path: Path) -> None:
        make(path)
        (filesystem.root / "settings.yaml").write_text("library:\n  compression: raw\n")

    home = make_home(filesystem, forks, user, make_all)
    stubs = home("doctor", "--json").json()["capabilities"]["stubs"]
    if not stubs["available"]:
        pytest.skip(f"no stubs before Linux 6.16: {stubs['reason']}")
    return home


def stubs_of(home: Home) -> Path:
    (path,) = [path for path in (home.own / "stubs").iterdir() if path.is_dir()]
    return path


@pytest.fixture
def raw_home(filesystem: Filesystem, forks: Forks, user: User) -> Home:
    return make_raw(filesystem, forks, user)


@on_ext4
def test_stubs_show_exactly_what_was_recorded(filesystem: Filesystem, forks: Forks, user: User) -> None:
    def make(path: Path) -> None:
        trees.nasty(path, xattrs=True)
        (path / "modes" / "file-0111").chmod(0o511)
        for mode in (0o400, 0o444, 0o600, 0o555, 0o4755):
            trees.write(path / "modes" / f"more-{mode:o}", f"{mode:o}\n" * 3000)
            (path / "modes" / f"more-{mode:o}").chmod(mode)
        for name in ("unread", "read"):
            trees.write(path / "modes" / name, "with the same content\n" * 3000)
        if user is ROOT:  # who reads it all the same
            (path / "modes" / "unread").chmod(0o200)

    home = make_raw(filesystem, forks, user, make)
    with home.inside() as inside:
        assert compare.differences(home.source, inside.seen, new=inside.path) == []
        numbers = [(found.st_dev, found.st_ino) for found in compare.walk(inside.seen).values() if found.st_nlink == 1]
        assert len(numbers) == len({*numbers}), "files that could be taken for each other"
    tree = stubs_of(home) / "tree"
    assert (
        sum(os.lstat(tree / "modes" / f"more-{mode}").st_blocks for mode in ("400", "444", "600", "555", "4755")) == 0
    )
    assert home("check", "--json").json()["problems"] == []
    assert home.left() == []


@on_ext4
def test_a_write_into_a_stub_stays_inside(raw_home: Home) -> None:
    home = raw_home

    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (home.home / "hololib" / "library").glob("*/*")}

    library = contents()
    script = """
        set -e; cd $HOLO_SPACE_PATH; cat lib/data.txt | tail -1
        echo more >> lib/data.txt; tail -1 lib/data.txt; chmod 600 lib/other.txt; cat lib/other.txt > copy; rm -r bin
        mv lib/deep lib/moved; ls lib/moved"""
    seen = home.script(script)
    assert seen.split()[:2] == ["data", "more"]
    assert contents() == library
    assert home.script(script) == seen
    allocated = sum(path.lstat().st_blocks for path in (stubs_of(home) / "tree").rglob("*") if path.is_file())
    assert allocated == 0


@on_ext4
@as_user
def test_stubs_keep_what_the_library_drops(raw_home: Home) -> None:
    """And the report of gc counts what they shared."""
    home = raw_home
    with home.inside() as inside:
        before = compare.snapshot(inside.seen)
        home("delete", "--space", "web")
        home("catalogs", "--remove", "env")
        freed = home("gc", "--dry-run", "--json").json()["bytes"]["freed"]
        assert freed >= 16_384, "a dry run counts blobs that trees have as well"
        assert home("gc", "--json").json()["bytes"]["freed"] == freed
        assert list((home.home / "hololib" / "library").glob("*/*")) == []
        assert compare.snapshot(inside.seen) == before
    home("gc")
    assert [*home.own.glob("*/*")] == []
    assert home.left() == []


@on_ext4
@as_user
def test_check_finds_what_stubs_lead_to(raw_home: Home) -> None:
    """A repair gives the library another blob; the tree has the damaged one, so it is made anew as well."""
    home = raw_home
    home.ephemeral("true")
    digest = next(
        path.name for path in (home.home / "hololib" / "library").glob("*/*") if path.read_bytes() == b"data\n" * 2000
    )
    blob = home.home / "hololib" / "library" / digest[:2] / digest
    found = blob.stat()
    with blob.open("r+b") as file:
        file.write(b"DATA")
    os.utime(blob, ns=(found.st_mtime_ns, found.st_mtime_ns))
    report = home("check", "--json", code=3).json()
    assert {problem["kind"] for problem in report["problems"]} == {"blob", "golden"}
    assert str(stubs_of(home)) in [problem["path"] for problem in report["problems"]]
    home("check", "--repair", "--from", home.source)
    assert home.script("cat $HOLO_SPACE_PATH/lib/data.txt") == "data\n" * 2000
    assert home("check", "--json").json()["problems"] == []


@on_ext4
@as_user
@pytest.mark.parametrize("attack", ["owner", "mode"])
def test_a_blob_that_others_can_write_to_is_not_used(raw_home: Home, attack: str) -> None:
    home = raw_home
    blobs = [*(home.home / "hololib" / "library").glob("*/*")]
    (blob,) = [path for path in blobs if path.read_bytes() == b"data\n" * 2000]
    if attack == "owner":
        os.chown(blob, BOB.uid, -1)
        assert home.script("cat $HOLO_SPACE_PATH/lib/data.txt") == "data\n" * 2000
        with blob.open("r+b") as file:
            file.write(b"evil")
        assert home.script("cat $HOLO_SPACE_PATH/lib/data.txt") == "data\n" * 2000
        assert os.lstat(stubs_of(home) / "tree" / "lib" / "data.txt").st_blocks > 0, "its own"
        assert [path.lstat().st_uid for path in stubs_of(home).glob("blobs/*/*")] == [home.user.uid] * (len(blobs) - 1)
    else:
        blob.chmod(0o666)
        assert "its size, mode or time is not what holo gave it" in home.ephemeral("true", code=3).stderr
        assert home.left() == []


@on_ext4
@as_user
def test_no_stubs_in_a_library_that_others_share(raw_home: Home) -> None:
    home = raw_home
    (home.home / "hololib" / "library").chmod(0o1777)
    home.ephemeral("true")
    assert [path.name for path in (home.own / "stubs").iterdir()] == []
    assert len([path for path in (home.own / "trees").iterdir() if path.is_dir()]) == 1


@on_ext4
@as_user
def test_blobs_with_more_names_are_not_hashed_for_that(raw_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees give them names; only where others could do that as well does it matter."""
    blobs = Library(str(raw_home.home)).blobs
    monkeypatch.setattr(blobs, "_owners", {raw_home.user.uid})
    raw_home.ephemeral("true")
    (digest, size) = next((path.name, path.stat().st_size) for path in Path(blobs.path).glob("*/*"))
    assert (Path(blobs.path) / digest[:2] / digest).stat().st_nlink == 2

    def fail(*_: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(blobs, "chunks", fail)
    assert blobs.has(digest, size)
    monkeypatch.setattr(blobs, "is_sticky", True)
    with pytest.raises(AssertionError, match="hashed"):
        blobs.has(digest, size)


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
@as_user
def test_no_stubs_where_files_share_blocks(raw_home: Home) -> None:
    raw_home.ephemeral("true")
    assert [path.name for path in (raw_home.own / "stubs").iterdir()] == []


@on_ext4
@as_user
def test_stubs_of_another_system_are_not_used(raw_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kernel makes its own, and gc removes what only the other one could use."""
    home = raw_home
    home.ephemeral("true")
    old = stubs_of(home)
    other = old.with_name(old.name[:-8] + "01234567")
    old.rename(other)
    home.ephemeral("true")
    assert {path.name for path in (home.own / "stubs").iterdir() if path.is_dir()} == {old.name, other.name}
    home("gc")
    assert stubs_of(home) == old


@on_ext4
def test_contents_whose_digests_begin_alike(filesystem: Filesystem) -> None:
    """Who knows two such contents gets neither for the other: the second is made whole."""
    Library(str(filesystem.root)).folder("library", "ab")
    blobs = Library(str(filesystem.root)).blobs
    twins = [f"ab{'0' * 18}{last}" + "0" * 43 for last in "12"]
    for number, digest in enumerate(twins):
        path = Path(blobs.path, "ab", digest)
        path.write_bytes(b"%d" % number * 100)
        os.utime(path, ns=(SEALED_MTIME_NS, SEALED_MTIME_NS))
        path.chmod(0o444)
    data, tree = filesystem.root / "data", filesystem.root / "tree"
    data.mkdir()
    tree.mkdir()
    with (
        platform.closing(platform.open_root(str(data))) as names,
        platform.closing(platform.open_root(str(tree))) as at,
    ):
        stubs = Stubs(blobs, names, "user")
        made = [stubs.make((f"file-{digest}", 0o644, 100, 0, digest), at) for digest in twins]
    assert [descriptor is not None for descriptor in made] == [True, False]
    for descriptor in filter(None, made):
        os.close(descriptor)
