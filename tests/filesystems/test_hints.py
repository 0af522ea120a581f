"""A hint is followed to the letter: what it says in backticks is run by a shell, and then what failed is no failure."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from holo.api import Hololib
from holo.cli.app import _ELSEWHERE
from holo.cli.commands import load_all
from holo.errors import HoloError
from support import compare, trees
from support.cli import Argument, Holo, Result
from support.filesystems import Filesystem, unmount
from support.forks import Forks, User

ROOT = Path(__file__).parents[2]
COMMANDS: Any = typer.main.get_command(load_all())

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and become an ordinary user")


@pytest.fixture
def source(holo: Holo) -> Path:
    return trees.small(holo.root / "source".ljust(100, "-"))


@pytest.fixture
def space(holo: Holo, source: Path) -> Path:
    """The space `web` of the catalog `env`."""
    holo("record", source, "--name", "env")
    return Path(holo("init", "--space", "web", "env", "--json").json()["path"])


def hint_of(result: Result) -> str:
    """The hint of a command that failed, which printed nothing else but its error."""
    assert result.stdout == ""
    assert re.fullmatch(r"error: .*\nhint: .*\n", result.stderr), result.stderr
    return result.stderr.partition("\nhint: ")[2].strip()


def follow(holo: Holo, result: Result, **given: Argument) -> list[str]:
    """Run all commands of a hint in a shell, with what is given for words in capitals; what they printed."""
    commands = re.findall(r"`(holo [^`]*)`", hint_of(result))
    assert commands, result.stderr
    for word, value in given.items():
        commands = [re.sub(rf"\b{word}\b", shlex.quote(os.fsdecode(value)), command) for command in commands]
    script = f'holo() {{ {shlex.quote(sys.executable)} -m holo "$@"; }}\n'
    return [
        subprocess.check_output(["sh", "-ec", script + command], env=holo.environment(), cwd=holo.root, text=True)
        for command in commands
    ]


# -- all of them ------------------------------------------------------------------------------------------------------


def commands_in_the_code() -> Iterator[str]:
    """Every command in backticks in a text of holo's, with `x` for what is filled in."""
    for path in (ROOT / "holo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
                text = "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            yield from re.findall(r"(?<!`)`(holo [^`]*)`", text)


@pytest.mark.parametrize("command", sorted({*commands_in_the_code()}))
def test_every_command_that_is_named_is_there(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    if name in ("x", "--help", "help"):
        return
    known = {option for parameter in COMMANDS.commands[name].params for option in parameter.opts}
    given = {argument for argument in arguments[: [*arguments, "--"].index("--")] if argument.startswith("--")}
    assert given <= known | {"--help"}


# -- usage ------------------------------------------------------------------------------------------------------------


@local
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("no-such-command",),
        ("inti",),
        ("help", "no-such-command"),
        ("--no-such-option",),
        ("init", "one", "env", "--space", "two"),
        ("init", "--space"),
        ("init", "--sapce", "x"),
        ("init", "--space", "x", "one", "two"),
        ("record",),
        ("delete",),
        ("delete", "one", "--space", "two"),
        ("gc", "--keep-days", "some"),
        ("gc", "--keep-days", "-1"),
        ("gc", "--max-size", "much"),
        ("run",),
        ("list", "two\nlines"),
        ("clone", "only-one"),
        ("catalogs", "--log"),
        ("check", "--adopt", "--repair"),
        ("check", "--from", "x"),
        ("restore", "--to", ""),
        *((*command, "") for command in (("record",), ("doctor",), ("bench",), ("shell",), ("variables",))),
        ("run", "", "--", "true"),
        ("run", "--ephemeral", "--space", "", "--", "true"),
        ("run", "--record", "--", "true"),
        ("worktree",),
        ("hook", "svn"),
        ("completion", "tcsh"),
    ],
    ids=" ".join,
)
def test_wrong_usage_looks_like_every_error(holo: Holo, arguments: tuple[str, ...]) -> None:
    refused = holo(*arguments, code=2)
    hint_of(refused)
    assert "\\n\\t" not in refused.stderr
    if "--help" in refused.stderr:
        (said,) = follow(holo, refused)
        named = arguments[:1] if arguments and arguments[0] in COMMANDS.commands else ()
        assert said.startswith(" ".join(["Usage: holo", *named, ""]))
    assert not holo.home.exists()


@local
def test_a_name_that_is_near_is_named(holo: Holo, space: Path) -> None:
    assert "Did you mean 'init'?" in holo("inti", code=2).stderr
    for word, ours in _ELSEWHERE.items():
        assert word not in COMMANDS.commands
        assert ours in COMMANDS.commands or ours == "--version"
    said = holo("remove", "web", code=2).stderr
    assert said == "error: no such command 'remove'. Did you mean 'delete'?\nhint: See `holo --help`.\n"
    assert "--space" in holo("init", "--spaec", "x", code=2).stderr
    for command in (("delete", "wbe"), ("restore", "--space", "wbe"), ("run", "--space", "wbe", "--", "true")):
        assert "Did you mean web?" in hint_of(holo(*command, code=1))
    for command in (("catalogs", "evn"), ("catalogs", "--remove", "evn"), ("init", "--space", "x", "evn")):
        assert "Did you mean env?" in hint_of(holo(*command, code=1))
    assert "Spaces there: web." in hint_of(holo("delete", "nothing-like-it", code=1))


@local
def test_help_is_there_in_every_form(holo: Holo) -> None:
    overview = holo("--help").stdout
    assert holo("-h").stdout == holo("help").stdout == holo("help", "help").stdout == overview
    for name in COMMANDS.commands:
        explained = holo(name, "--help").stdout
        assert explained.startswith(f"Usage: holo {name} ")
        assert holo(name, "-h").stdout == holo("help", name).stdout == explained
    assert holo("-V").stdout == holo("--version").stdout


# -- names ------------------------------------------------------------------------------------------------------------


@local
def test_a_space_to_delete_that_is_not_there(holo: Holo, space: Path) -> None:
    assert "init" not in hint_of(holo("delete", "nope", code=1))
    holo("delete", "web")
    assert not space.exists()


@local
@pytest.mark.parametrize("command", ["restore --space job", "variables --space job", "run --space job -- true"])
def test_a_space_that_is_not_there(holo: Holo, space: Path, command: str) -> None:
    follow(holo, holo(*command.split(), code=1), SOURCE="env")
    holo(*command.split())


@local
@pytest.mark.parametrize("command", [("catalogs", "other"), ("init", "--space", "job", "other")])
def test_a_catalog_that_is_not_there(holo: Holo, source: Path, command: tuple[str, ...]) -> None:
    follow(holo, holo(*command, code=1), DIR=source, NAME="other")
    holo(*command)


@local
def test_a_library_without_a_catalog(holo: Holo, source: Path) -> None:
    follow(holo, holo("init", "--space", "job", code=1), DIR=source)
    holo("init", "--space", "job")


@local
def test_a_name_that_moves(holo: Holo, source: Path, space: Path) -> None:
    """Two catalogs of one name are told apart by their digests."""
    before = holo("catalogs", "env", "--json").json()["catalogs"][0]["digest"]
    trees.write(source / "more")
    again = holo("record", source, "--name", "env")
    assert again.stderr == (
        f"warning: the name env meant the catalog {before[:12]} until now, which is kept under its digest\n"
    )
    after = holo("catalogs", "env", "--json").json()["catalogs"][0]["digest"]
    assert holo("record", source, "--name", "env").stderr == ""
    refused = holo("init", "--space", "web", "env", code=1)
    assert f"holds catalog env ({before[:12]}), not env ({after[:12]})" in refused.stderr
    assert "--force" in hint_of(refused)
    holo("init", "--space", "web", "env", "--force")
    assert (space / "more").exists()
    holo("init", "--space", "job", before)  # as the warning says


# -- places -----------------------------------------------------------------------------------------------------------


@local
def test_a_folder_that_is_no_space(holo: Holo, space: Path) -> None:
    place = holo.root / "a place"
    place.mkdir()
    for env in ({}, {"HOLO_SPACE": "web"}):
        refused = holo("restore", "--to", place, code=1, env=env)
        assert refused.stderr.startswith(f"error: {place} is not a space\n")
    follow(holo, refused, NAME="job", SOURCE="env")
    assert holo("restore", "--to", place, "--json").json()["space"] == "job"


@local
def test_a_space_that_is_at_another_place(holo: Holo, space: Path) -> None:
    place = holo.root / "a place"
    for command in ("init", "restore"):
        refused = holo(command, "--space", "web", "--to", place, code=1)
    follow(holo, refused, NAME="job")
    assert holo.listed()["job"]["state"] == "pristine"


@local
def test_a_space_whose_folder_is_gone(holo: Holo, space: Path) -> None:
    shutil.rmtree(space)
    follow(holo, holo("run", "--space", "web", "--", "true", code=1))
    holo("run", "--space", "web", "--", "true")


@local
def test_a_path_that_cannot_be_on_path(holo: Holo, space: Path) -> None:
    holo("init", "--space", "job", "env", "--to", holo.root / "a:b")
    follow(holo, holo("run", "--space", "job", "--", "true", code=1), SOURCE="env", DIR=holo.root / "a-b")
    holo("run", "--space", "job", "--", "true")


@local
@pytest.mark.parametrize("history", [".git/HEAD", "deep/er/.git", ".hg/store", ".svn/wc.db", ".jj/repo"])
@pytest.mark.parametrize("command", ["init", "restore"])
def test_a_folder_with_a_history_takes_another_word(holo: Holo, space: Path, history: str, command: str) -> None:
    place = trees.write(holo.root / "project" / history).parents[len(Path(history).parts) - 1]
    trees.write(place / "program.py", "work\n")
    before = compare.snapshot(place)
    wanted = ["--catalog", "env"] if command == "restore" else ["env"]
    arguments: list[Argument] = [command, "--space", "job", *wanted, "--to", place]
    assert "--force" in hint_of(holo(*arguments, code=1))
    refused = holo(*arguments, "--force", code=1)
    assert str(Path(history).parent if history[0] == "." else history) in refused.stderr
    assert "--yes" in hint_of(refused)
    holo(*arguments, "--yes", code=1)
    assert compare.snapshot(place) == before
    holo(*arguments, "--force", "--yes")
    assert not (place / "program.py").exists()
    assert holo.listed()["job"]["state"] == "pristine"
    trees.write(place / history)
    holo("restore", "--space", "job")  # it is a space by now
    assert not (place / history).exists()


@local
def test_a_folder_that_is_to_be_examined_has_to_be_there(holo: Holo) -> None:
    refused = holo("doctor", "nope", code=1)
    assert f"{holo.root / 'nope'}: there is no such directory" in refused.stderr
    hint_of(refused)
    trees.write(holo.root / "file")
    for command in ("doctor", "bench", "record"):
        assert f"{holo.root / 'file'}: it is not a directory\n" in holo(command, holo.root / "file", code=1).stderr
    assert not holo.home.exists()
    (holo.root / "nope").mkdir()
    holo("doctor", "nope")


# -- what fails halfway -----------------------------------------------------------------------------------------------


@as_root
@local
@pytest.mark.parametrize("strategy", ["smart", "copy"])
def test_a_full_disk(holo: Holo, filesystem: Filesystem, strategy: str) -> None:
    source = trees.small(holo.root / "source".ljust(100, "-"))
    trees.write(source / "large", os.urandom(4 << 20))
    holo("record", source, "--name", "env")
    disk = holo.root / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        refused = holo("init", "--space", "web", "env", "--to", disk / "space", "--strategy", strategy, code=1)
        assert hint_of(refused).startswith(f"Free some space on the filesystem of {disk / 'space'}")
        assert holo.listed()["web"]["state"] == "restoring"
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        follow(holo, refused)
        assert holo.listed()["web"]["state"] == "pristine"
        assert compare.differences(source, disk / "space") == []
    finally:
        unmount(disk)


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_a_blob_that_is_lost(holo: Holo, source: Path, space: Path) -> None:
    """Of a restore that has begun."""
    backup = shutil.copytree(holo.library, holo.root / "backup")
    (space / "lib" / "data.txt").unlink()
    trees.write(space / "bin" / "hello", "changed")
    shutil.rmtree(holo.library / "golden", ignore_errors=True)
    shutil.rmtree(holo.library / "library")
    refused = holo("restore", "--space", "web", "--strategy", "copy", code=3)
    hint = hint_of(refused)
    assert "`holo check --repair`, with `--from DIR`" in hint
    holo("check", "--repair", "--from", backup)
    holo("restore", "--space", "web")
    assert compare.differences(source, space) == []


@as_root
@local
def test_a_home_without_permission(holo: Holo, source: Path, space: Path, forks: Forks) -> None:
    """It is a matter of another home, and not of room."""
    holo.root.chmod(0o755)
    for folder in holo.root.parents:
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    dark = holo.root / "dark"
    dark.mkdir(mode=0o700)
    for home in (dark, dark / "deeper", holo.root / "new", Path("/proc/nowhere"), holo.home):
        for command in (
            ("record", source, "--name", "other"),
            ("init", "--space", "job", source),
            ("init", "--space", "web", "env"),
            ("delete", "web"),
            ("run", "--ephemeral", "--space", "web", "--", "true"),
            ("gc",),
            ("doctor",),
        ):
            env = {"HOLO_HOME": str(home), "HOLO_SETTINGS": str(holo.settings), "PATH": os.environ["PATH"]}
            done = forks(*command, env=env, user=User(1001), code=None, cwd=Path("/"))
            if done.code != 0:
                hint = hint_of(done)
                assert "ree some space" not in hint
                assert "No space" not in done.stderr
                if "Permission denied" in done.stderr:
                    assert "HOLO_HOME" in hint or "owner and mode" in hint, done.stderr
    assert holo.listed()["web"]["state"] == "pristine"


@local
def test_a_copied_record_that_is_to_be_forgotten(holo: Holo, source: Path, space: Path) -> None:
    holo("init", "--space", "out", "env", "--to", holo.root / "out")
    other = Holo(holo.root)
    other.home = holo.root / "other"
    subprocess.run(["cp", "-a", holo.home, other.home], check=True)
    shutil.rmtree(holo.home)
    hint = hint_of(other("restore", "--space", "out", code=1))
    assert "Otherwise remove that file." in hint
    (other.home / "holotree" / ".spaces" / "out.json").unlink()
    assert "out" not in other.listed()
    other("gc")
    other("init", "--space", "out", "env", "--to", holo.root / "elsewhere")


@local
def test_a_catalog_that_is_gone(holo: Holo, source: Path, space: Path) -> None:
    holo("record", source / "lib", "--name", "lib")
    holo("catalogs", "--remove", "env")
    follow(holo, holo("restore", "--space", "web", code=1), NAME="web", REF="lib")
    assert compare.differences(source / "lib", space, new=source / "lib") == []


@local
def test_a_tree_with_a_socket(holo: Holo, source: Path) -> None:
    os.mkfifo(source / "fifo")
    refused = [holo("record", source, code=1), holo("init", "--space", "job", source, code=1)]
    for result in refused:
        follow(holo, result, DIR=source)
    holo("init", "--space", "job")


# -- a refused command ------------------------------------------------------------------------------------------------


@local
def test_a_refused_command_leaves_nothing_behind(holo: Holo, source: Path) -> None:
    """Not even a lock, or a folder."""
    precious = trees.write(holo.root / "precious" / "file").parent
    other = trees.small(holo.root / "other")

    def refuses(*arguments: Argument) -> None:
        before = compare.walk(holo.root).keys()
        result = subprocess.run(
            [sys.executable, "-m", "holo", *arguments],
            env=holo.environment(),
            cwd=holo.root,
            capture_output=True,
            check=False,
        )
        assert result.returncode in (1, 2), result
        assert compare.walk(holo.root).keys() - before == set(), arguments

    def each() -> None:
        refuses("record", "no-such-directory")
        refuses("record", precious / "file")
        refuses("record", source, "--name", "a/b")
        refuses("init", "--space", "job", "no-such-catalog")
        refuses("init", "--space", "job", "./no-such-file")
        refuses("init", "--space", "job/", "env")
        refuses("restore", "--space", "job")
        refuses("restore", "--to", precious)
        refuses("delete", "job")
        refuses("catalogs", "no-such-catalog")
        refuses("catalogs", "--remove", "no-such-catalog")
        refuses("variables", "--space", "job")
        refuses("run", "--space", "job", "--", "true")
        refuses("doctor", "no-such-directory")
        refuses("bench", "no-such-directory")
        refuses("clone", "no-such-directory", "copy")
        refuses("check", "--repair", "--from", "no-such-directory")
        for words in (
            "export no-such-catalog -o out",
            "verify no-such-catalog",
            "sbom no-such-catalog",
            "import no-file",
        ):
            refuses(*words.split())
        refuses("push", "no-such-catalog", precious)

    each()
    assert not holo.home.exists()
    holo("record", source, "--name", "env")
    holo("init", "--space", "web", "env")
    holo("gc")
    each()
    catalogs = holo("catalogs", "--json").stdout
    refuses("init", "--space", "job", "env", "--to", precious)
    refuses("init", "--space", "job", other, "--to", precious)  # before it is recorded
    refuses("init", "--space", "web", "env", "--to", holo.root / "elsewhere")
    assert holo("catalogs", "--json").stdout == catalogs
    # What a space holds is known when its source has been read: contents are garbage then, but there is no catalog.
    holo("init", "--space", "web", other, code=1)
    assert holo("catalogs", "--json").stdout == catalogs
    assert holo.listed()["web"]["state"] == "pristine"


def refused_late(holo: Holo, source: Path) -> dict[tuple[Argument, ...], int]:
    """Commands that find out late what is wrong, with the lock of the library, or something stored; exit codes."""
    trees.write(source / "large", os.urandom(200_000))
    elsewhere = {"HOLO_HOME": str(holo.root / "elsewhere")}
    bundle = holo.root / "env.holo"
    holo("record", source, "--name", "env", env=elsewhere)
    holo("export", "env", "-o", bundle, env=elsewhere)
    damaged = holo.root / "damaged.holo"
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    os.mkfifo(source / "fifo")
    return {
        ("import", damaged): 3,
        ("init", "--space", "job", damaged): 3,
        ("import", bundle, "--name", "a/b"): 2,
        ("record", source): 1,
        ("init", "--space", "job", source): 1,
        ("init", "--space", "job", bundle, "--to", bundle): 1,
    }


@local
def test_a_refused_command_leaves_no_new_home(holo: Holo, source: Path) -> None:
    for command, code in refused_late(holo, source).items():
        holo(*command, code=code)
        assert not holo.home.exists(), command


@local
def test_a_library_that_goes_does_not_disturb_others(holo: Holo, source: Path) -> None:
    tree = trees.small(holo.root / "tree")
    commands = refused_late(holo, source)
    for _ in range(4):
        running = [(holo.start(*command), code) for command, code in commands.items()]
        holo("record", tree, "--name", "tree")
        holo("init", "one", "tree")
        for process, code in running:
            _, stderr = process.communicate()
            assert process.returncode == code, stderr
        assert compare.differences(tree, Path(holo("list", "--json").json()["spaces"][0]["path"])) == []
        holo("check")
        shutil.rmtree(holo.home)


@local
def test_a_program_goes_on_in_a_home_that_was_undone(holo: Holo, source: Path) -> None:
    os.mkfifo(source / "fifo")
    library = Hololib(holo.home)
    with pytest.raises(HoloError):
        library.record(source, "env")
    assert not holo.home.exists()
    library.record(source, "env", skip_special=True)
    library.init("one", "env")
    assert library.check().problems == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory immutable")
@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_a_space_whose_directory_cannot_be_made_is_none(holo: Holo, source: Path) -> None:
    holo("record", source, "--name", "env")
    closed = holo.root / "closed"
    closed.mkdir()
    subprocess.run(["chattr", "+i", closed], check=True)
    try:
        assert hint_of(holo("init", "job", "env", "--to", closed / "space", code=1)).endswith("Nothing was made.")
    finally:
        subprocess.run(["chattr", "-i", closed], check=True)
    assert "job" not in holo.listed()
    holo("init", "job", "env", "--to", closed / "space")


def test_what_builds_is_installed_beside_holo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare `pip` may be of another environment, and holo's name means another program in a registry."""
    from holo.blueprints import conda, conda_file, uv
    from holo.blueprints.builder import ToolMissing

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setattr(conda, "find_spec", lambda _: None)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found = conda_file.parse("{channels: [a], dependencies: [b]}", "conda.yaml")
    for extra, find in (("uv", uv.find_uv), ("conda", lambda: conda._create(found, "/stage"))):
        with pytest.raises(ToolMissing) as caught:
            find()
        words = shlex.split(str(caught.value.hint).split(": ")[1])
        assert words[:-1] == [sys.executable, "-m", "pip", "install"]
        assert [words[-1]] == extras[extra]


# -- what is printed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_a_restore_that_has_nothing_to_do_says_so(holo: Holo, space: Path, strategy: str) -> None:
    made = holo("init", "--space", "job", "env", "--strategy", strategy)
    assert "unchanged" not in made.stdout
    again = holo("restore", "--space", "job", "--strategy", strategy, "-v").stdout.splitlines()
    assert again[0].endswith(" files unchanged")
    assert again[-1] == "  no file had to be made"


def test_what_is_counted_has_a_plural() -> None:
    from holo.cli import render

    assert (render.count(1, "unused layer"), render.count(2, "unused layer")) == ("1 unused layer", "2 unused layers")
    text = (ROOT / "holo" / "cli" / "render.py").read_text(encoding="utf-8")
    nouns = re.findall(r"""count\([^"']*["']([^"']+)["']\)""", text) + re.findall(r'\(report\.\w+, "([^"]+)"\)', text)
    assert len(nouns) > 20
    assert [noun for noun in nouns if noun.endswith("s") or " of " in noun] == []
