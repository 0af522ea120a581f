"""Attacks that are not in a library: a space changed while it is restored, settings, variables, the command line."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from holo import digest as digests
from holo import platform
from holo.api import Hololib
from holo.checkout.engine import Engine
from holo.errors import HoloError
from holo.holotree import Holotree
from support.cli import Holo, Result
from support.filesystems import Filesystem, Mounts
from support.forks import Forks, User

STRATEGIES = ("smart", "hardlink", "copy")
SECRET = b"what nobody else may see\n"
ESCAPE = "\x1b[31mred\x1b]0;title\x07\r[bold]"

each_filesystem = pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


FOLDERS = ("lib", "lib/deep", "lib/deep/er")


def grow(root: Path) -> Path:
    """A tree whose directories have names that the victim's have as well."""
    tree = root / "tree"
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True)
        for number in range(40):
            (tree / folder / f"file{number}").write_bytes(b"%d\n" % number * 300)
        (tree / folder / "run").write_text(f"#!{tree}/bin/python\n")
    return tree


def tempt(root: Path) -> Path:
    """A user's directory with the same names, where any reading, writing or removing would show."""
    victim = root / "victim"
    for folder in ("", *FOLDERS, "deep", "er"):
        (victim / folder).mkdir(parents=True, exist_ok=True)
        for number in range(0, 60, 2):
            (victim / folder / f"file{number}").write_bytes(SECRET)
        (victim / folder).chmod(0o711)
    return victim


def state(folder: Path) -> dict[str, Any]:
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_nlink, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found


def differences(space: Path, tree: Path) -> list[str]:
    """In names, modes and contents."""
    names = {str(path.relative_to(top)) for top in (space, tree) for path in top.rglob("*")}
    return [name for name in sorted(names) if not is_same(space, tree, name)]


def is_same(space: Path, tree: Path, name: str) -> bool:
    one, other = space / name, tree / name
    if not (one.exists() and other.exists()) or (one.lstat().st_mode ^ other.lstat().st_mode) & ~0o222:
        return False
    moved = os.fsencode(space), os.fsencode(tree)
    return not one.is_file() or one.read_bytes().replace(*moved) == other.read_bytes()


Pairs = Iterable[tuple[Path, Path]]


@contextmanager
def swapping(pairs: Callable[[], Pairs], victim: Path) -> Iterator[mmap.mmap]:
    """Let a process exchange each place with its trap, a symlink to the victim, all the time; counts in the map."""
    count = mmap.mmap(-1, 8)
    libc = ctypes.CDLL(None)
    child = os.fork()
    if not child:
        done = 0
        while True:
            for place, trap in pairs():
                if libc.renameat2(-100, os.fsencode(place), -100, os.fsencode(trap), 2) == 0:
                    done += 1
                    count[:8] = done.to_bytes(8, "little")
                else:  # one of the two is gone: removed by holo, say
                    with suppress(OSError):
                        trap.symlink_to(victim)
    try:
        yield count
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.torture
@each_filesystem
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("place", ["lib", "lib/deep/er"])
def test_symlinks_planted_all_the_time(
    filesystem: Filesystem,
    strategy: str,
    place: str,
    forks: Forks,
    torture: bool,
    faults: Callable[[int, str, int], None],
) -> None:
    root = filesystem.root
    tree, victim = grow(root), tempt(root)
    holo = Holo(root)
    env = holo.environment()

    def run(*arguments: Any, code: int | None = 0) -> None:
        forks(*arguments, env=env, code=code)

    run("record", tree, "--name", "app")
    run("init", "--space", "x", "app", "--strategy", strategy, "--to", root / "space")
    space = root / "space"
    before = state(victim)
    exchanges, what = 0, f"symlinks exchanged for directories, {strategy}"
    faults(7, what, 0)
    for number in range(40 if torture else 3):
        with swapping(lambda: [(space / place, space / "trap")], victim) as count:
            for folder in FOLDERS:
                with suppress(OSError):  # it may be gone at the moment, or the victim's
                    here = os.open(space / folder, os.O_RDONLY | os.O_NOFOLLOW)
                    if os.fstat(here).st_ino not in {status[2] for status in before.values()}:
                        with suppress(OSError):
                            os.unlink(f"file{number}", dir_fd=here)
                            os.mkdir(f"extra{number}", dir_fd=here)
                    os.close(here)
            verify = ["--verify"] if number % 2 else []
            run("restore", "--space", "x", "--strategy", strategy, *verify, code=None)
            if number == 2:
                run("record", space, "--name", "raced", code=None)
            exchanged = int.from_bytes(count[:8], "little")
        exchanges += exchanged
        faults(7, what, exchanged)
        assert state(victim) == before
    assert exchanges > 0
    run("restore", "--space", "x", "--strategy", strategy)
    assert differences(space, tree) == []
    with swapping(lambda: [(space / place, space / "trap")], victim):
        run("delete", "--space", "x", code=None)
    assert state(victim) == before
    digest = digests.of(SECRET)
    assert not list((holo.library / "library" / digest[:2]).glob(digest + "*"))
    for path in [*holo.home.rglob("file*"), *space.rglob("file*")]:
        assert SECRET not in path.read_bytes()


def everywhere(folders: Sequence[Path], place: str) -> Iterator[tuple[Path, Path]]:
    """A place in each tree in the folders, whatever it is called now. Without ``place``: the trees themselves."""
    for folder in folders:
        with suppress(OSError):
            for tree in folder.iterdir():
                if tree.name not in ("trap", ".spaces"):
                    yield (tree / place, tree / "trap") if place else (tree, folder / "trap")


def damage(space: Path, number: int, known: Container[int]) -> None:
    """Change something in each folder, unless it is the victim's at the moment."""
    for folder in FOLDERS:
        with suppress(OSError):
            here = os.open(space / folder, os.O_RDONLY | os.O_NOFOLLOW)
            if os.fstat(here).st_ino not in known:
                with suppress(OSError):
                    os.unlink(f"file{number}", dir_fd=here)
                    os.mkdir(f"extra{number}", dir_fd=here)
            os.close(here)


FILL = ("-m", "holo.spares", "home", "auto", "smart", "0", "")
TO_SPACE = ("--space", "x", "app", "--to", "s/space")
RUN = ("run", "--ephemeral", "--space", "x", "--", "sh", "-c", "cat $HOLO_SPACE_PATH/lib/file1; rm -r lib; echo {}")

PREPARED: dict[str, tuple[tuple[str, ...], Sequence[tuple[str, ...]]]] = {
    "spares": (
        (".sp-{user}",),
        (
            *(("spares", "app", "--keep", "1"), ("init", *TO_SPACE), ("spares", "app", "--keep", "2"), ("damage",)),
            *(("restore", "x"), FILL, ("check", "--repair"), ("damage",), ("delete", "x"), FILL, ("gc",)),
        ),
    ),
    "stubs": (
        (".ephemeral-{user}/stubs", ".ephemeral-{user}/layers", ".ephemeral-{user}/runs"),
        (("init", *TO_SPACE), RUN, RUN, ("check", "--repair"), ("delete", "x"), ("gc",), RUN),
    ),
    "mounts": (
        (".ephemeral-{user}/spaces/x",),
        (
            *(("init", *TO_SPACE, "--strategy", "overlay"), ("damage",), ("restore", "x"), ("damage",), RUN),
            *(("restore", "x", "--strategy", "copy"), ("damage",), ("restore", "x", "--strategy", "overlay")),
            *(("check", "--space", "x"), ("delete", "x"), ("gc",)),
        ),
    ),
}
"""Where there are trees besides the space, and what is done with them."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts spaces")
@pytest.mark.torture
@pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)
@pytest.mark.parametrize("place", ["", "lib/deep"])
@pytest.mark.parametrize("what", PREPARED)
def test_symlinks_planted_in_prepared_trees(
    filesystem: Filesystem,
    what: str,
    place: str,
    forks: Forks,
    torture: bool,
    faults: Callable[[int, str, int], None],
) -> None:
    """Also in place of a space, to another that is mounted: that must stay."""
    root = filesystem.root
    tree, victim = grow(root), tempt(root)
    holo = Holo(root)
    holo.settings.write_text("library: {compression: raw, min-free: 1000TB}\n")  # nothing starts in the background

    def run(*arguments: str, code: int | None = 0) -> Result:
        tune = {"holo.restore._WORTH_A_TREE": 3}
        return forks(*arguments, env=holo.environment(), code=code, cwd=root, tune=tune)

    run("record", "tree", "--name", "app")
    (holo.library / "upkeep").touch()
    run("init", "--space", "mounted", "app", "--strategy", "overlay")
    (mounted,) = [path for path in holo.holotree.iterdir() if os.path.ismount(path)]
    places, commands = PREPARED[what]
    folders = [root / "s", *(holo.holotree / path.format(user=os.geteuid()) for path in places)]
    folders = folders if place else folders[:1]  # what is holo's own, and private, nobody else exchanges as a whole
    before = state(victim), state(mounted)
    known = {status[2] for found in before for status in found.values()}
    total, row = 0, f"symlinks exchanged for directories, {what}"
    faults(7, row, 0)
    for number in range(20 if torture else 1):
        for trap in (victim, mounted) if not place else (victim,):
            with swapping(partial(everywhere, folders, place), trap) as count:
                for command in commands:
                    if command == ("damage",):
                        damage(root / "s" / "space", number, known)
                    else:
                        run(*command, code=None)
                exchanged = int.from_bytes(count[:8], "little")
            faults(7, row, exchanged)
            total += exchanged
            for moved in platform.mounts_below(str(root / "s")):
                if not moved.endswith("/space"):  # by an exchange that had begun when it was mounted
                    subprocess.run(["umount", "--lazy", moved], check=True)
            assert os.path.ismount(mounted)
            assert (state(victim), state(mounted)) == before
            for path in [*holo.home.rglob("file*"), *(root / "s").rglob("file*")]:
                if path.is_file():  # what is removed from a mounted space is a device in its upper layer
                    assert mounted in path.parents or SECRET not in path.read_bytes()
    assert total > 0
    run("delete", "x", code=None)
    for moved in platform.mounts_below(str(root / "s")):  # by an exchange that was on its way when it was mounted
        subprocess.run(["umount", "--lazy", moved], check=True)
    (root / "s").mkdir(exist_ok=True)  # each init may have been refused
    for path in (root / "s").iterdir():
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    run("init", *TO_SPACE)
    assert differences(root / "s" / "space", tree) == []
    run("delete", "x")
    run("delete", "mounted")


def swap(place: Path, victim: Path) -> None:
    away = victim.parent / "space" / "moved-away"  # below the space, which may be a filesystem of its own
    place.rename(away if place != away.parent else victim.parent / "moved-away")
    place.symlink_to(victim)


@each_filesystem
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("place", ["", *FOLDERS])
def test_symlink_planted_between_plan_and_engine(
    filesystem: Filesystem, strategy: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = filesystem.root
    tree, victim = grow(root), tempt(root)
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)
    library = Hololib(root / "home")
    library.record(tree, "app")
    library.init("x", "app", to=root / "space", strategy=strategy)
    before = state(victim)
    space = root / "space"
    for folder in FOLDERS:
        (space / folder / "file1").unlink()
        (space / folder / "extra").mkdir()
        (space / folder / "extra" / "more").touch()
    if place:
        execute = Engine.execute

        def swap_first(engine: Engine, *arguments: Any) -> Any:
            swap(space / place, victim)
            return execute(engine, *arguments)

        monkeypatch.setattr(Engine, "execute", swap_first)
    else:  # the space itself, before it is opened to be changed
        save = Holotree.save

        def swap_before(tree: Holotree, known: Any) -> None:
            save(tree, known)
            if known.state == "restoring" and not space.is_symlink():
                swap(space, victim)

        monkeypatch.setattr(Holotree, "save", swap_before)
    with suppress(HoloError):
        library.restore("x", strategy=strategy)
    assert space.is_symlink() or (space / place).is_symlink() or not differences(space, tree)
    assert state(victim) == before
    monkeypatch.undo()
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)
    if place:
        library.restore("x", strategy=strategy)
        assert differences(space, tree) == []
        assert state(victim) == before


@each_filesystem
def test_symlink_planted_while_a_tree_is_recorded(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    root = filesystem.root
    tree, victim = grow(root), tempt(root)
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)
    from holo import record

    scan = record.scan

    def swap_after(*arguments: Any) -> Any:
        found = scan(*arguments)
        (tree / "lib/deep").rename(root / "moved-away")
        (tree / "lib/deep").symlink_to(victim)
        return found

    monkeypatch.setattr(record, "scan", swap_after)
    with pytest.raises(HoloError, match="lib/deep"):
        Hololib(root / "home").record(tree, "app")
    digest = digests.of(SECRET)
    assert not list((root / "home/hololib/library" / digest[:2]).glob(digest + "*"))


# -- settings and variables -------------------------------------------------------------------------------


LAUGHS = "a: &a [x, x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))

SETTINGS: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "directory": Path.mkdir,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "sparse": lambda path: (path.touch(), os.truncate(path, 10**10)),
    "tag": lambda path: path.write_text("home: !!python/object/apply:os.system ['touch /tmp/holo-was-here']\n"),
    "tag-new": lambda path: path.write_text("!!python/object/new:os.system [touch /tmp/holo-was-here]\n"),
    "laughs": lambda path: path.write_text(LAUGHS),
    "itself": lambda path: path.write_text("&a {home: *a}\n"),
    "itself-as-key": lambda path: path.write_text("? &a {? *a : x}\n: y\n"),
    "nested": lambda path: path.write_text("[" * 30_000),
    "nested-objects": lambda path: path.write_text("{a: " * 10_000),
    "unknown": lambda path: path.write_text(f"evil{ESCAPE!r}: 1\n"),
    "escapes": lambda path: path.write_text('home: "\\e[31mred"\n'),
    "escapes-raw": lambda path: path.write_text(f"home: {ESCAPE}\n"),
    "nul": lambda path: path.write_text('home: "/a\\0b"\n'),
    "relative": lambda path: path.write_text("home: ../../etc\n"),
    "list": lambda path: path.write_text("home: [/a]\n"),
    "strategy": lambda path: path.write_text("holotree: {restoration-strategy: {a: b}}\n"),
    "workers": lambda path: path.write_text("workers: 1" + "0" * 50_000 + "\n"),
    "workers-negative": lambda path: path.write_text("workers: -1\n"),
    "not-utf-8": lambda path: path.write_bytes(b"home: /\xff\xfe\n"),
    "utf-16": lambda path: path.write_text("home: relative\n", encoding="utf-16"),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "two": lambda path: path.write_text("home: /a\n---\nhome: /b\n"),
}


@pytest.mark.torture
@local
@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_settings_are_one_error(
    filesystem: Filesystem, name: str, forks: Forks, faults: Callable[[int, str, int], None]
) -> None:
    faults(7, "hostile settings and variables", 1)
    holo = Holo(filesystem.root)
    holo.settings.unlink()
    SETTINGS[name](holo.settings)
    env = {key: value for key, value in holo.environment().items() if key != "HOLO_HOME"}
    result = forks("list", env=env, code=2, memory=1 << 30, seconds=20)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") <= 2
    assert len(result.stderr) < 60_000 + 1000
    assert "\x1b" not in result.stderr
    assert not Path("/tmp/holo-was-here").exists()


VARIABLES: dict[str, tuple[dict[str, str], int]] = {
    "home-escapes": ({"HOLO_HOME": f"/proc/{ESCAPE}"}, 1),
    "home-long": ({"HOLO_HOME": "/" + "x/" * 40_000}, 2),
    "home-not-utf-8": ({"HOLO_HOME": "/proc/\udcff"}, 1),
    "home-file": ({"HOLO_HOME": "/etc/passwd"}, 1),
    "home-device": ({"HOLO_HOME": "/dev/null"}, 1),
    "home-dots": ({"HOLO_HOME": "../../../../../../../../proc/x"}, 1),
    "space-escapes": ({"HOLO_SPACE": ESCAPE}, 2),
    "space-dots": ({"HOLO_SPACE": "../../victim"}, 2),
    "space-long": ({"HOLO_SPACE": "x" * 100_000}, 2),
    "space-not-utf-8": ({"HOLO_SPACE": "\udcff"}, 2),
    "strategy-escapes": ({"RCC_HOLOTREE_STRATEGY": ESCAPE}, 2),
    "settings-escapes": ({"HOLO_SETTINGS": f"/nothing/{ESCAPE}"}, 2),
    "settings-device": ({"HOLO_SETTINGS": "/dev/zero"}, 2),
    "settings-fifo": ({"HOLO_SETTINGS": "/proc/self/mem"}, 2),
}


@pytest.mark.torture
@local
@pytest.mark.parametrize("name", VARIABLES)
def test_hostile_variables_are_one_error(
    filesystem: Filesystem, name: str, forks: Forks, faults: Callable[[int, str, int], None]
) -> None:
    faults(7, "hostile settings and variables", 1)
    holo = Holo(filesystem.root)
    tree = grow(filesystem.root)
    variables, code = VARIABLES[name]
    command = ["restore"] if "HOLO_SPACE" in variables else ["record", tree]
    result = forks(*command, env=holo.environment(variables), code=code, memory=1 << 30, seconds=20)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") <= 2
    assert "\x1b" not in result.stderr
    assert "\r" not in result.stderr


# -- the command line -------------------------------------------------------------------------------------


@local
def test_names_do_not_act_on_the_terminal(filesystem: Filesystem, forks: Forks) -> None:
    root = filesystem.root
    holo = Holo(root)
    env = holo.environment()
    tree = root / ESCAPE
    (tree / ESCAPE).mkdir(parents=True)
    (tree / ESCAPE / ESCAPE).write_text(f"#!{tree}/bin/python\n")
    (tree / ESCAPE / "binary").write_bytes(b"\x7fELF\0" + os.fsencode(tree) + b"\0")
    (tree / "link").symlink_to(ESCAPE)
    os.mkfifo(tree / ESCAPE / "fifo\x1b")

    def run(*arguments: Any, code: int) -> str:
        result = forks(*arguments, env=env, code=code)
        for said in (result.stdout, result.stderr):
            assert not {*said} & {"\x1b", "\r", "\x07"}, (arguments, said)
        return result.stdout + result.stderr

    assert "\\x1b" in run("record", tree, code=1)
    (tree / ESCAPE / "fifo\x1b").unlink()
    assert "\\x1b" in run("record", tree, "--name", "app", "-v", code=0)
    assert "\\r[bold]" in run("catalogs", code=0)  # shortened
    space = root / "s"
    run("init", "--space", "x", "app", "--to", space / ESCAPE, code=1)  # too long for the binary
    (tree / ESCAPE / "binary").unlink()
    run("record", tree, "--name", "app", code=0)
    assert "\\x1b" in run("init", "--space", "x", "app", "--to", space / ESCAPE, "-v", code=0)
    assert "\\r[bold]" in run("list", code=0)
    (space / ESCAPE / ESCAPE / ESCAPE).unlink()
    assert "\\x1b" in run("restore", "--space", "x", "--dry-run", code=0)
    for blob in holo.library.glob("library/*/*"):
        blob.unlink()
    assert "blob" in run("restore", "--space", "x", code=3)
    assert "\\x1b" in run("delete", "--space", "x", code=0)
    for command, code in (
        (["record", root / f"nothing{ESCAPE}"], 1),
        (["record", tree, "--name", ESCAPE], 2),
        (["init", "--space", ESCAPE, "app"], 2),
        (["init", "--space", "y", f"./{ESCAPE}"], 1),
        (["init", "--space", "y", ESCAPE], 1),
        (["restore", "--space", "x", "--catalog", ESCAPE], 1),
        (["restore", "--strategy", ESCAPE], 2),
        (["init", "--space", "y", "app", "--to", f"/proc/{ESCAPE}"], 1),
        (["delete", "--space", ESCAPE], 2),
        (["catalogs", "--remove", ESCAPE], 1),
        (["doctor", f"/proc/{ESCAPE}"], 1),
        (["variables", "--shell", ESCAPE], 1),
        (["run", "--space", "x", "--", ESCAPE], 1),
        (["bench", f"/nothing/{ESCAPE}"], 1),
        (["bench", "--output", f"/nothing/{ESCAPE}/x.svg"], 1),
        ([ESCAPE], 2),
        (["list", f"--{ESCAPE}"], 2),
        (["list", ESCAPE], 2),
        (["record", tree, ESCAPE], 2),
    ):
        run(*command, code=code)


@local
@pytest.mark.parametrize("force", [False, True])
def test_directory_that_is_no_space_is_refused(filesystem: Filesystem, forks: Forks, force: bool) -> None:
    root = filesystem.root
    tree = grow(root)
    holo = Holo(root)
    user = root / "user"
    (user / "documents").mkdir(parents=True)
    env = holo.environment({"HOME": str(user)})
    forks("record", tree, "--name", "app", env=env)
    forks("init", "--space", "one", "app", env=env)
    (root / "file").touch()
    (root / "link").symlink_to(user)
    (root / "empty").mkdir()
    (root / "link-to-empty").symlink_to(root / "empty")
    before = state(user), state(holo.library / "library"), state(holo.holotree)
    places = [
        *("/", root, user, holo.home, holo.library, holo.library / "library", holo.library / "new", holo.holotree),
        *(f"{holo.holotree}/../hololib/catalog", f"{root}/link/../home", root / "link", root / "link-to-empty"),
        *(root / "file", root / "file/below", "", ".."),
    ]
    for place in places:
        more = ["--force"] if force else []
        command = ["init", "--space", "two", "app", "--to", place, *more]
        result = forks(*command, env=env, code=None, cwd=user / "documents")
        assert result.code in (1, 2), result
        assert result.stderr.startswith("error: ")
    assert (root / "file").is_file()
    assert [*(root / "empty").iterdir()] == []
    assert state(user) == before[0]
    assert state(holo.library / "library") == before[1]
    assert {path for path in state(holo.holotree) if not path.endswith("two.lock")} == {*before[2]}


# -- ordinary users ---------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
@pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)
def test_space_in_a_folder_of_another_user(filesystem: Filesystem, mounts: Mounts, forks: Forks) -> None:
    """Like /tmp on a filesystem of its own: files can be made there, but its mode and time not be set."""
    user = User(1001)
    other = mounts.get("tmpfs") / f"public-{os.urandom(4).hex()}"
    other.mkdir()
    other.chmod(0o1777)
    for folder in [*filesystem.root.parents, *other.parents]:
        folder.chmod(folder.stat().st_mode | 0o011)
    holo = Holo(filesystem.root)
    tree = grow(filesystem.root)
    subprocess.run(["chown", "-R", f"{user.uid}:{user.uid}", filesystem.root], check=True)
    forks("record", tree, "--name", "app", env=holo.environment(), user=user)
    forks("init", "--space", "x", "app", "--to", other / "space", env=holo.environment(), user=user)
    assert differences(other / "space", tree) == []


@local
def test_deep_trees_are_removed(tmp_path: Path, filesystem: Filesystem) -> None:
    """Deeper than descriptors and Python's stack reach, with something on every level."""
    from holo.remove import remove

    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        for name in ("deep", "empty"):
            os.mkdir(name, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (tmp_path / "deep").chmod(0)
    directory = platform.open_root(str(tmp_path))
    assert remove(directory, "deep") == 1499
    assert remove(directory, "empty") == 0
    platform.close_directory(directory)
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_may_not_be_removed_is_not_taken_for_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's in a sticky folder: the system's own reason is the right one."""
    from holo.remove import remove_at

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "file").touch()
    monkeypatch.setattr(platform, "remove_file", refuse)
    with pytest.raises(HoloError, match="Operation not permitted"):
        remove_at(str(tmp_path / "file"))
