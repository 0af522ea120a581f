"""The command line: what it accepts, refuses, prints, waits for and passes on."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support import compare, records, trees
from support.cli import Holo
from support.filesystems import Filesystem

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

COMMANDS = (
    "record",
    "init",
    "restore",
    "variables",
    "run",
    "list",
    "delete",
    "catalogs",
    "doctor",
    "bench",
    "settings",
)


@pytest.fixture
def source(filesystem: Filesystem) -> Path:
    return trees.small(filesystem.root / "source".ljust(100, "-"))


@pytest.fixture
def recorded(holo: Holo, source: Path) -> Any:
    """The report of a recorded small tree, named `env`."""
    return holo("record", source, "--name", "env", "--json").json()


@pytest.fixture
def space(holo: Holo, recorded: Any) -> Path:
    """The space `one` of it."""
    return Path(holo("init", "--space", "one", "env", "--json").json()["path"])


def requested(holo: Holo, *more: str, env: Mapping[str, str] | None = None) -> str:
    report = holo("init", "--space", "one", "env", "--json", *more, env=env).json()
    strategy: str = report["strategy"]["requested"]
    return strategy


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(holo: Holo, command: str) -> None:
    assert command in holo("--help").stdout
    assert len(holo(command, "--help").stdout.splitlines()) > 3


@pytest.mark.parametrize("name", ["holo", "holotree"])
def test_console_script_is_the_same(holo: Holo, name: str) -> None:
    script = Path(sys.executable).with_name(name)
    if not script.exists():
        pytest.skip(f"{name} is not installed here")
    said = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == holo("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("init", "--no-such-option"),
        ("init", "one", "env", "--space", "two"),
        ("init", "settings.yaml"),
        ("restore", "one", "--space", "two"),
        ("run", "one", "--space", "two", "--", "true"),
        ("run", "one", "--"),
        ("record",),
        ("delete",),
        ("init", "--space", "one", "env", "--strategy", "fastest"),
        ("variables", "--space", "one", "--shell", "tcsh"),
        ("run", "--space", "one"),
        ("run", "--ephmeral", "--space", "one", "--", "true"),
        ("run", "--space", "one", "--no-compile", "--", "true"),
        ("init", "--space", "two", "env", "--compile"),
        ("init", "--space", "../escape", "env"),
        ("init", "--space", "a/b", "env"),
        ("init", "--space", "", "env"),
        ("init", "--space", "nul\nline", "env"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(holo: Holo, space: Path, arguments: tuple[str, ...]) -> None:
    before = compare.walk(holo.root).keys()
    refused = holo(*arguments, code=2)
    assert refused.stdout == ""
    assert refused.stderr
    assert [name for name in compare.walk(holo.root).keys() - before if not name.endswith(b".lock")] == []


@pytest.mark.parametrize(
    "line",
    [
        "record EMPTY",
        "clone EMPTY to",
        "doctor EMPTY",
        "bench EMPTY",
        "check --repair --from EMPTY",
        "import EMPTY",
        "import --rcc EMPTY",
        "du EMPTY",
        "du --output EMPTY",
        "init two env --to EMPTY",
        "init two env --project EMPTY",
        "export env -o EMPTY",
        "sbom env -o EMPTY",
        "verify env --allowed-signers EMPTY",
        "worktree add EMPTY",
        "run --blueprint EMPTY -- true",
        "run one -- EMPTY",
    ],
)
def test_an_empty_path_is_not_the_current_directory(holo: Holo, space: Path, line: str) -> None:
    before = compare.walk(holo.root).keys()
    words = ["" if word == "EMPTY" else word for word in line.split()]
    refused = holo(*words, cwd=holo.root, code=127 if line == "run one -- EMPTY" else 2)
    assert refused.stdout == ""
    assert re.match(r"error: .* (is empty|'' names no file)\nhint: ", refused.stderr), refused.stderr
    assert [name for name in compare.walk(holo.root).keys() - before if not name.endswith((b".lock", b".used"))] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("init", "--space", "one", "no-such-catalog"), "no-such-catalog"),
        (("init", "--space", "one", "./no-such.json"), "no-such.json"),
        (("init", "--space", "one", "requirementz.txt"), "nor a file of that name"),
        (("restore", "--space", "no-such-space"), "no-such-space"),
        (("restore", "--space", "one", "--catalog", "no-such-catalog"), "no-such-catalog"),
        (("delete", "--space", "no-such-space"), "no-such-space"),
        (("variables", "--space", "no-such-space"), "no-such-space"),
        (("run", "--space", "no-such-space", "--", "true"), "no-such-space"),
        (("run", "oen", "--force", "--", "true"), "Did you mean one?"),
        (("restore", "on"), "Did you mean one?"),
        (("delete", "on"), "Did you mean one?"),
        (("restore", "one", "--catalog", "en"), "Did you mean env?"),
        (("init", "two", "en", "--force"), "Did you mean env?"),
        (("init", "two", "evn"), "Did you mean env?"),
        (("du", "oen"), "Did you mean one?"),
        (("init", "env", "one"), "'one' is a space: `holo list` shows of which catalog."),
        (("export", "one", "-o", "one.holo"), "'one' is a space: `holo list` shows of which catalog."),
        (("restore", "env"), "'env' is a catalog: `holo init SPACE env` makes a space of it."),
        (("run", "env", "--", "true"), "'env' is a catalog: `holo init SPACE env` makes a space of it."),
        (("check", "--space", "env"), "'env' is a catalog: `holo init SPACE env` makes a space of it."),
        (("catalogs", "--remove", "no-such-catalog"), "no-such-catalog"),
        (("record", "no-such-directory"), "no-such-directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_exist_is_named(holo: Holo, space: Path, arguments: tuple[str, ...], named: str) -> None:
    refused = holo(*arguments, code=1)
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: ")
    assert named in refused.stderr


def test_folder_that_cannot_be_written_is_an_error(holo: Holo, source: Path) -> None:
    (holo.root / "file").write_text("not a folder")
    home = holo.root / "file" / "home"
    refused = holo("record", source, "--name", "env", env={"HOLO_HOME": str(home)}, code=1)
    assert str(holo.root / "file") in refused.stderr


@pytest.mark.parametrize("damage", ["", "{", "[]", " " * 100], ids=["empty", "cut", "list", "blank"])
def test_damaged_catalog_is_an_integrity_error(holo: Holo, recorded: Any, damage: str) -> None:
    catalog = holo.library / "catalog" / f"{recorded['digest']}.json"
    catalog.chmod(0o644)
    catalog.write_text(damage)
    refused = holo("init", "--space", "one", "env", code=3)
    assert recorded["digest"] in refused.stderr
    assert "one" not in holo.listed()


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", ""), ("{", ""), ("[]", ""), ('{"version": 99}', "version is 99")],
    ids=["empty", "cut", "list", "unknown-version"],
)
def test_file_that_is_no_catalog_is_an_error(holo: Holo, recorded: Any, content: str, reason: str) -> None:
    file = trees.write(holo.root / "given.json", content)
    refused = holo("init", "--space", "one", file, code=1)
    assert str(file) in refused.stderr
    assert reason in refused.stderr
    assert "one" not in holo.listed()


@pytest.mark.parametrize(
    ("name", "content", "way"),
    [
        ("Pipfile", '[packages]\nsix = "*"\n', "pipenv requirements"),
        ("Pipfile.lock", '{"_meta": {}, "default": {}}\n', "pipenv requirements"),
        ("yarn.lock", "# yarn lockfile v1\n", "npm install --package-lock-only"),
        ("poetry.lock", "[[package]]\n", "poetry export"),
        ("pnpm-lock.yaml", "lockfileVersion: 5.4\ndependencies:\n  is-number: 7.0.0\n", "npm install"),
        ("compose.yml", "services:\n  web:\n    image: web\n", ""),
        ("conda-lock.yml", "version: 1\nmetadata:\n  channels:\n  - url: conda-forge\n", ""),
        ("job.py", "print()\n", "# /// script"),
        ("env.tar", "\0\1", ""),
    ],
)
def test_a_blueprint_of_another_tool_is_named_as_that(holo: Holo, name: str, content: str, way: str) -> None:
    (holo.root / name).write_text(content)
    for command in (("init", "--space", "one", name), ("run", "--blueprint", name, "--", "true")):
        refused = holo(*command, code=2).stderr
        assert f"{name} is not a blueprint holo knows; it knows requirements.txt" in refused
        assert way in refused
    assert holo.listed() == {}


def test_a_catalog_file_may_have_any_name(holo: Holo, recorded: Any) -> None:
    """Its library lies beside it."""
    file = holo.library / "other"
    file.write_bytes((holo.library / "catalog" / f"{recorded['digest']}.json").read_bytes())
    assert holo("init", "--space", "one", file, "--json").json()["digest"] == recorded["digest"]


def test_a_catalog_that_was_not_named_is_said(holo: Holo, recorded: Any) -> None:
    elsewhere = holo.root / "elsewhere"
    elsewhere.mkdir()
    made = holo("init", "--space", "one", "--json", cwd=elsewhere)
    assert made.json()["catalog"] == "env"
    assert f"there is no blueprint here: taking 'env', the only catalog of {holo.library}" in made.stderr
    assert holo("init", "--space", "one", "--json", cwd=elsewhere).stderr == "", "it is what the space holds"


def test_nothing_to_make_a_space_of_is_said_with_what_could_be(holo: Holo) -> None:
    elsewhere = holo.root / "elsewhere"
    elsewhere.mkdir()
    said = holo("init", "web", cwd=elsewhere, code=1).stderr
    assert "there is no blueprint here or above" in said
    assert "`holo record DIR`" in said
    assert "`holo help init`" in said
    (elsewhere / "pyproject.toml").write_text("[tool.uv.workspace]\nmembers = []\n")
    assert "that of a member" in holo("init", "web", "pyproject.toml", cwd=elsewhere, code=2).stderr


@pytest.mark.parametrize("length", [4, 12, 0])
def test_a_word_that_means_two_things_is_said(holo: Holo, recorded: Any, length: int) -> None:
    word = recorded["digest"][:length] or "env"
    assert holo("init", "--space", "one", word).stderr == ""
    (holo.root / word).mkdir()
    both = holo("init", "--space", "one", word).stderr
    taken = f"taking catalog 'env', not what is called {word!r} here: that is ./{word}\n"
    assert taken in both
    for command in (("du", word), ("ls", word), ("sbom", word), ("diff", word, "one"), ("verify", word)):
        assert taken in holo(*command).stderr
    (holo.root / "new").mkdir()
    assert holo("init", "--space", "two", "new").stderr == "", "there was no catalog of that name"


# ---------------------------------------------------------------- what is printed


def test_json_is_one_document_of_plain_text(holo: Holo, source: Path) -> None:
    commands: list[tuple[str, ...]] = [
        ("record", str(source), "--name", "env"),
        ("init", "--space", "one", "env"),
        ("restore", "--space", "one"),
        ("restore", "--space", "one", "--dry-run"),
        ("variables", "--space", "one"),
        ("list",),
        ("catalogs",),
        ("settings",),
        ("doctor",),
        ("delete", "--space", "one"),
    ]
    for command in commands:
        result = holo(*command, "--json")
        assert isinstance(result.json(), dict), command
        assert "\x1b" not in result.stdout + result.stderr, command


def test_output_for_people_has_no_colour_when_piped(holo: Holo, recorded: Any) -> None:
    for command in (("init", "--space", "one", "env"), ("list",), ("catalogs",), ("settings",), ("doctor",)):
        result = holo(*command)
        assert result.stdout + result.stderr
        assert "\x1b" not in result.stdout + result.stderr


def test_init_report_is_the_documented_one(holo: Holo, recorded: Any) -> None:
    report = holo("init", "--space", "one", "env", "--json").json()
    assert list(report) == (
        [
            "space",
            "path",
            "catalog",
            "digest",
            "strategy",
            "files",
            "symlinks",
            "directories",
            "bytes",
            "seconds",
        ]
    )
    assert list(report["strategy"]) == ["requested", "used", "reason"]
    counts = ["total", "reflinked", "hardlinked", "copied", "unchanged", "relocated", "removed"]
    assert list(report["files"]) == counts
    assert list(report["bytes"]) == ["total", "shared", "written"]
    assert report["digest"] == recorded["digest"]


def test_restore_prints_the_same_document(holo: Holo, space: Path) -> None:
    first = holo("init", "--space", "two", "env", "--json").json()
    again = holo("restore", "--space", "two", "--json").json()
    assert list(again) == list(first)


# ---------------------------------------------------------------- settings


def test_strategy_default_is_smart(holo: Holo, recorded: Any) -> None:
    assert requested(holo) == "smart"


def test_flag_beats_environment_beats_file(holo: Holo, recorded: Any) -> None:
    holo.settings.write_text("holotree:\n  restoration-strategy: hardlink\n")
    assert requested(holo) == "hardlink"
    assert requested(holo, env={"RCC_HOLOTREE_STRATEGY": "copy"}) == "copy"
    assert requested(holo, "--strategy", "reflink", env={"RCC_HOLOTREE_STRATEGY": "copy"}) == "reflink"


def test_strategy_holds_for_every_restore(holo: Holo, recorded: Any) -> None:
    env = {"RCC_HOLOTREE_STRATEGY": "hardlink"}
    path = Path(holo("init", "--space", "one", "env", "--json", env=env).json()["path"])
    (path / "lib" / "data.txt").unlink()
    files = holo("restore", "--space", "one", "--json", env=env).json()["files"]
    assert files["hardlinked"] == 1


@pytest.mark.parametrize(("alias", "name"), [("auto", "smart"), ("copy-only", "copy")])
def test_strategy_aliases(holo: Holo, recorded: Any, alias: str, name: str) -> None:
    assert requested(holo, "--strategy", alias) == name
    assert requested(holo, env={"RCC_HOLOTREE_STRATEGY": alias}) == name


def test_unknown_strategy_names_where_it_came_from(holo: Holo, recorded: Any) -> None:
    refused = holo("init", "--space", "one", "env", "--strategy", "fastest", code=2)
    assert "fastest" in refused.stderr
    assert "--strategy" in refused.stderr
    refused = holo("init", "--space", "one", "env", env={"RCC_HOLOTREE_STRATEGY": "fastest"}, code=2)
    assert "fastest" in refused.stderr
    assert "RCC_HOLOTREE_STRATEGY" in refused.stderr
    holo.settings.write_text("holotree:\n  restoration-strategy: fastest\n")
    refused = holo("init", "--space", "one", "env", code=2)
    assert "fastest" in refused.stderr
    assert str(holo.settings) in refused.stderr
    assert spaces_on_disk(holo) == []


def spaces_on_disk(holo: Holo) -> list[str]:
    tree = holo.holotree
    return [name for name in os.listdir(tree) if not name.startswith(".")] if tree.exists() else []


def test_settings_shows_values_and_their_sources(holo: Holo) -> None:
    holo.settings.write_text("holotree:\n  restoration-strategy: hardlink\n")

    def setting(env: Mapping[str, str] | None = None) -> tuple[str, str]:
        shown = holo("settings", "--json", env=env).json()
        assert shown["file"] == str(holo.settings)
        (entry,) = [one for one in shown["settings"] if one["key"] == "holotree.restoration-strategy"]
        return entry["value"], entry["source"]

    value, origin = setting()
    assert value == "hardlink"
    assert str(holo.settings) in origin
    value, origin = setting({"RCC_HOLOTREE_STRATEGY": "copy"})
    assert value == "copy"
    assert "RCC_HOLOTREE_STRATEGY" in origin


# ---------------------------------------------------------------- where a space may be


def test_directory_that_is_not_a_space_is_refused(holo: Holo, recorded: Any) -> None:
    precious = trees.write(holo.root / "precious" / "file", b"irreplaceable").parent
    before = compare.snapshot(precious)
    for command in (
        ("init", "--space", "one", "env", "--to", precious),
        ("restore", "--space", "one", "--catalog", "env", "--to", precious),
    ):
        refused = holo(*command, code=1)
        assert str(precious) in refused.stderr
        assert compare.snapshot(precious) == before


def test_file_is_no_place_for_a_space(holo: Holo, recorded: Any) -> None:
    file = trees.write(holo.root / "file", b"irreplaceable")
    refused = holo("init", "--space", "one", "env", "--to", file, code=1)
    assert str(file) in refused.stderr
    assert file.read_bytes() == b"irreplaceable"


@pytest.mark.parametrize("exists", [False, True], ids=["new", "empty"])
def test_space_in_a_chosen_directory(holo: Holo, source: Path, recorded: Any, exists: bool) -> None:
    target = holo.root / "chosen" / "place"
    if exists:
        target.mkdir(parents=True)
    report = holo("init", "--space", "one", "env", "--to", target, "--json").json()
    assert report["path"] == str(target)
    assert compare.differences(source, target) == []
    assert holo.listed()["one"]["path"] == str(target)


def test_space_that_became_a_symlink_is_refused(holo: Holo, space: Path) -> None:
    """What it leads to is somebody's directory, and a restore would empty it."""
    precious = trees.write(holo.root / "precious" / "file", b"irreplaceable").parent
    before = compare.snapshot(precious)
    space.rename(holo.root / "moved")
    space.symlink_to(precious)
    for command in (
        ("restore", "--space", "one"),
        ("restore", "--space", "one", "--force", "--to", space),
        ("init", "--space", "two", "env", "--force", "--to", space),
        ("restore", "--space", "one", "--dry-run"),
    ):
        assert str(space) in holo(*command, code=1).stderr
        assert compare.snapshot(precious) == before
    holo("delete", "--space", "one")
    assert not space.is_symlink()
    assert compare.snapshot(precious) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_is_mounted_inside_a_space_is_not_touched(holo: Holo, space: Path) -> None:
    volume = trees.write(holo.root / "volume" / "file", b"irreplaceable").parent
    place = space / "a mount\\point"
    place.mkdir()
    subprocess.run(["mount", "--bind", volume, place], check=True)
    try:
        for command in (("restore", "--space", "one"), ("delete", "--space", "one")):
            assert str(place) in holo(*command, code=1).stderr
            assert (volume / "file").read_bytes() == b"irreplaceable"
        assert holo.listed()["one"]["state"] == "changed"
    finally:
        subprocess.run(["umount", place], check=True)
    holo("delete", "--space", "one")
    assert (volume / "file").read_bytes() == b"irreplaceable"


def test_spaces_do_not_lie_inside_each_other(holo: Holo, space: Path) -> None:
    """A restore of the outer one would remove the inner one."""
    before = compare.snapshot(space)
    assert "'one'" in holo("init", "--space", "two", "env", "--to", space / "bin" / "two", code=1).stderr
    outer = holo("init", "--space", "three", "env", "--to", holo.root / "outer" / "inner" / "three", "--json").json()
    refused = holo("init", "--space", "four", "env", "--force", "--to", holo.root / "outer", code=1)
    assert outer["path"] in refused.stderr
    assert compare.snapshot(space) == before
    assert sorted(holo.listed()) == ["one", "three"]


def test_dry_run_leaves_what_a_killed_restore_left(holo: Holo, space: Path) -> None:
    draft = f".{space.name}.holo-0123abcd"
    (space.parent / draft).mkdir()
    record = holo.holotree / ".spaces" / "one.json"
    records.edit(record, state="restoring", draft=draft)
    holo("restore", "--space", "one", "--dry-run")
    assert (space.parent / draft).is_dir()
    holo("restore", "--space", "one")
    assert not (space.parent / draft).exists()


def test_folders_of_holo_are_no_place_for_a_space(holo: Holo, recorded: Any) -> None:
    for name in (".spaces", ".ephemeral-0/x", ".build-1234"):
        place = holo.holotree / name
        result = holo("init", "--space", "inside", "--to", place, "--force", code=2)
        assert f"{place} cannot be a space" in result.stderr
    holo("init", "--space", "beside", "--to", holo.holotree / "beside")


def test_library_is_no_place_for_a_space(holo: Holo, recorded: Any) -> None:
    before = compare.snapshot(holo.library)
    for place in (holo.library / "new", holo.library, holo.home):
        holo("init", "--space", "one", "env", "--to", place, code=2)
    assert compare.snapshot(holo.library).keys() == before.keys()


# ---------------------------------------------------------------- the source of a space


def test_source_may_be_left_out_when_there_is_one_catalog(holo: Holo, recorded: Any) -> None:
    assert holo("init", "--space", "one", "--json").json()["catalog"] == "env"


def test_the_only_word_may_have_been_meant_as_the_catalog(holo: Holo, recorded: Any) -> None:
    holo("init", "env")
    assert holo("list", "--json").json()["spaces"][0]["name"] == "env", "there is but one catalog"
    holo("delete", "env")
    (holo.root / "other").mkdir()
    holo("record", holo.root / "other")
    said = holo("init", "env", code=2).stderr
    assert "hint: 'env' would be the name of the space. One of that catalog: `holo init SPACE env`.\n" in said
    assert "hint: Name one of env, other.\n" in holo("init", "new", code=2).stderr


def test_source_must_be_given_when_there_are_two(holo: Holo, recorded: Any) -> None:
    trees.small(holo.root / "another")
    holo("record", holo.root / "another")
    refused = holo("init", "--space", "one", code=2)
    assert "env" in refused.stderr
    assert "another" in refused.stderr


def test_source_by_digest_prefix(holo: Holo, recorded: Any) -> None:
    report = holo("init", "--space", "one", recorded["digest"][:12], "--json").json()
    assert report["digest"] == recorded["digest"]


def test_source_may_be_a_catalog_file(holo: Holo, recorded: Any, source: Path) -> None:
    copy = shutil.copy(holo.library / "catalog" / f"{recorded['digest']}.json", holo.root / "copy.json")
    report = holo("init", "--space", "one", copy, "--json").json()
    assert report["digest"] == recorded["digest"]
    assert compare.differences(source, Path(report["path"])) == []


def test_source_may_be_a_directory(holo: Holo, source: Path) -> None:
    report = holo("init", "--space", "one", source, "--json").json()
    assert compare.differences(source, Path(report["path"])) == []
    assert len(holo("catalogs", "--json").json()["catalogs"]) == 1


def test_a_file_above_the_place_of_a_space_is_named(holo: Holo, recorded: Any) -> None:
    (holo.root / "file").touch()
    done = holo("init", "one", "env", "--to", holo.root / "file" / "below" / "it", code=1)
    assert f"{holo.root / 'file'} is a file, not a directory" in done.stderr
    if sys.platform == "linux":
        nowhere = holo("init", "one", "env", "--to", "/proc/it", code=1)
        assert nowhere.stderr.splitlines()[-1] == "hint: Choose another place for the space."


@pytest.mark.parametrize("arguments", [("env", "--remove"), ("--remove", "env")])
def test_a_catalog_is_removed_in_either_order(arguments: tuple[str, ...], holo: Holo, recorded: Any) -> None:
    assert "needs a catalog" in holo("catalogs", "--remove", code=2).stderr
    assert "do not go together" in holo("catalogs", "--log", *arguments, code=2).stderr
    assert holo("catalogs", *arguments, "--json").json()["digest"] == recorded["digest"]
    assert holo("catalogs", "--json").json() == {"catalogs": []}


def test_restore_means_the_space_of_the_environment_or_user(holo: Holo, recorded: Any) -> None:
    for name in ("user", "mine"):
        holo("init", "--space", name, "env")
    assert holo("restore", "--json").json()["space"] == "user"
    assert holo("restore", "--json", env={"HOLO_SPACE": "mine"}).json()["space"] == "mine"
    assert holo("restore", "--space", "user", "--json", env={"HOLO_SPACE": "mine"}).json()["space"] == "user"


@pytest.mark.parametrize("command", ["restore", "status", "history", "variables", "shell", "run -- true"])
def test_who_named_a_space_that_is_not_there_is_said(holo: Holo, space: Path, command: str) -> None:
    named = {"HOLO_SPACE": "gone"}
    said = holo(*command.split(), env=named, code=1).stderr
    assert f"error: environment variable HOLO_SPACE: there is no space 'gone' in {holo.home / 'holotree'}" in said
    assert "To make one: `holo init gone SOURCE`. Or `unset HOLO_SPACE`." in said
    said = holo(*command.split(), env={"HOLO_SPACE": "no name"}, code=2).stderr
    assert "error: environment variable HOLO_SPACE: 'no name' cannot be the name of a space" in said
    holo(*command.split(), env=named, cwd=space, code=0)


# ---------------------------------------------------------------- list, delete, doctor


def test_an_empty_list_says_of_what_home_it_is(holo: Holo) -> None:
    """HOLO_HOME may be unset in this shell, or misspelt."""
    for command, what in (("list", "space"), ("catalogs", "catalog")):
        empty = holo(command)
        assert len(empty.stdout.splitlines()) == 1, "the header"
        assert f"there is no {what} in {holo.home} yet; `holo " in empty.stderr
        assert holo(command, "--json").stderr == holo(command, "--stale", "1d").stderr == ""
    assert not holo.home.exists()


def test_list_shows_the_spaces(holo: Holo, space: Path, recorded: Any) -> None:
    (entry,) = holo("list", "--json").json()["spaces"]
    assert (
        entry
        | {
            "name": "one",
            "path": str(space),
            "catalog": "env",
            "digest": recorded["digest"],
            "state": "pristine",
        }
        == entry
    )
    assert str(space) in holo("list", env={"COLUMNS": "999"}).stdout


def test_delete_removes_the_space_and_nothing_else(holo: Holo, space: Path) -> None:
    holo("init", "--space", "two", "env")
    library = compare.snapshot(holo.library)
    (space / "extra" / "deep").mkdir(parents=True)
    (space / "lib").chmod(0o555)
    outside = trees.write(holo.root / "outside" / "file", b"irreplaceable")
    os.symlink(outside.parent, space / "link")

    assert holo("delete", "--space", "one", "--json").json() == {"space": "one", "path": str(space)}

    assert not space.exists()
    assert list(holo.listed()) == ["two"]
    assert outside.read_bytes() == b"irreplaceable"
    assert compare.snapshot(holo.library) == library
    holo("restore", "--space", "one", code=1)


def test_deleted_name_can_be_used_again(holo: Holo, space: Path, source: Path) -> None:
    holo("delete", "--space", "one")
    again = Path(holo("init", "--space", "one", "env", "--json").json()["path"])
    assert compare.differences(source, again) == []


def test_space_whose_directory_is_gone_can_be_restored_and_deleted(holo: Holo, space: Path, source: Path) -> None:
    shutil.rmtree(space)
    holo("restore", "--space", "one")
    assert compare.differences(source, space) == []
    shutil.rmtree(space)
    holo("delete", "--space", "one")
    assert holo.listed() == {}


def test_doctor_leaves_nothing_behind(holo: Holo, filesystem: Filesystem) -> None:
    folder = filesystem.root / "looked-at"
    folder.mkdir()
    assert holo("doctor", folder, "--json").json()
    assert list(folder.iterdir()) == []


# ---------------------------------------------------------------- one process per space


def test_a_held_lock_is_waited_for_with_a_message(holo: Holo, space: Path) -> None:
    (space / "lib" / "data.txt").unlink()
    locks = [path for path in holo.holotree.rglob("*.lock") if "one" in path.name]
    assert locks
    with locks[0].open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = holo.start("restore", "--space", "one")
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        assert "wait" in said
        assert "one" in said
        time.sleep(0.5)
        assert waiting.poll() is None, "restored a space that another process held"
        assert not (space / "lib" / "data.txt").exists()
    waiting.communicate(timeout=30)
    assert waiting.returncode == 0
    assert (space / "lib" / "data.txt").exists()


def test_processes_on_one_space_take_turns(holo: Holo, space: Path, source: Path) -> None:
    shutil.rmtree(space / "lib")
    started = [holo.start("restore", "--space", "one") for _ in range(4)]
    for process in started:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    assert compare.differences(source, space) == []


def test_spaces_are_made_in_parallel(holo: Holo, recorded: Any, source: Path) -> None:
    names = ["a", "b", "c", "d"]
    started = [holo.start("init", "--space", name, "env", "--json") for name in names]
    for process in started:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        assert compare.differences(source, Path(json.loads(stdout)["path"])) == []
    assert sorted(holo.listed()) == names


def test_one_space_is_made_once(holo: Holo, recorded: Any, source: Path) -> None:
    started = [holo.start("init", "--space", "one", "env", "--json") for _ in range(4)]
    paths = set()
    for process in started:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        paths.add(json.loads(stdout)["path"])
    (path,) = paths
    assert compare.differences(source, Path(path)) == []


def test_trees_are_recorded_in_parallel(holo: Holo, filesystem: Filesystem) -> None:
    names = ["a", "b", "c"]
    for name in names:
        trees.small(filesystem.root / name)
    started = [holo.start("record", str(filesystem.root / name), "--name", name) for name in names]
    for process in started:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    for name in names:
        path = Path(holo("init", "--space", name, name, "--json").json()["path"])
        assert compare.differences(filesystem.root / name, path) == []


# ---------------------------------------------------------------- working in a space

AWKWARD = 'it\'s a $HOME `id` "place" \\ here'


@pytest.fixture
def awkward(holo: Holo, recorded: Any) -> Path:
    """A space whose path no shell may take literally."""
    return Path(holo("init", "--space", "one", "env", "--to", holo.root / AWKWARD, "--json").json()["path"])


def test_variables_as_json(holo: Holo, space: Path) -> None:
    (space / "pyvenv.cfg").touch()
    (space / "bin" / "python").symlink_to(sys.executable)
    found = holo("variables", "--space", "one", "--json").json()
    assert found["HOLO_SPACE"] == "one"
    assert found["VIRTUAL_ENV"] == str(space)
    assert found["PATH"].split(":")[0] == str(space / "bin")


@pytest.mark.parametrize("shell", ["sh", "fish"])
def test_variables_are_code_for_the_shell(holo: Holo, awkward: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    code = holo("variables", "--space", "one", "--shell", shell).stdout
    said = subprocess.run(
        [shell, "-c", f'{code}\necho "$HOLO_SPACE"\ncommand -v hello\n'],
        capture_output=True,
        text=True,
        env=holo.environment({"HOME": str(holo.root)}),
        check=True,
    )
    assert said.stdout == f"one\n{awkward}/bin/hello\n"


def test_variables_for_powershell(holo: Holo, awkward: Path) -> None:
    code = holo("variables", "--space", "one", "--shell", "powershell").stdout
    quoted = str(awkward).replace("'", "''")
    assert f"$Env:HOLO_SPACE_PATH = '{quoted}'\n" in code


def test_run_runs_in_the_space(holo: Holo, space: Path) -> None:
    assert holo("run", "--space", "one", "--", "hello").stdout == f"hello from {space}\n"
    assert holo("run", "--space", "one", "--", "sh", "-c", 'echo "$HOLO_SPACE"').stdout == "one\n"


def test_run_passes_arguments_as_they_are(holo: Holo, space: Path) -> None:
    arguments = ["--json", "-x", "two words", "", "*", "--", "--help"]
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    said = holo("run", "--space", "one", "--", sys.executable, "-c", code, *arguments)
    assert said.json() == arguments


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_run_passes_the_exit_code_on(holo: Holo, space: Path, code: int) -> None:
    holo("run", "--space", "one", "--", "sh", "-c", f"exit {code}", code=code)


def test_run_dies_of_the_signal_that_killed_the_command(holo: Holo, space: Path) -> None:
    holo("run", "--space", "one", "--", "sh", "-c", "kill -KILL $$", code=-signal.SIGKILL)


def test_run_passes_signals_on(holo: Holo, space: Path) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    running = holo.start("run", "--space", "one", "--", "sh", "-c", script)
    assert running.stdout
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGTERM)
    stdout, _ = running.communicate(timeout=30)
    assert (stdout, running.returncode) == ("caught\n", 9)


def test_run_does_not_hold_the_space(holo: Holo, space: Path) -> None:
    running = holo.start("run", "--space", "one", "--", "sh", "-c", "echo ready; exec sleep 60")
    try:
        assert running.stdout
        assert running.stdout.readline() == "ready\n"
        holo("restore", "--space", "one", timeout=20)
    finally:
        running.kill()
        running.communicate()


_COMMAND_COMES_AFTER = "hint: one is a space. The command comes after two dashes: `holo run one -- COMMAND`.\n"
_IS_NO_OPTION = "hint: one is a space, and --ephmeral no option of `holo run`: see `holo help run`.\n"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("one", _COMMAND_COMES_AFTER),
        ("one true", _COMMAND_COMES_AFTER),
        ("--ephemeral one true", _COMMAND_COMES_AFTER),
        ("one true --ephmeral", _COMMAND_COMES_AFTER),
        ("one --ephmeral -- true", _IS_NO_OPTION),
    ],
)
def test_run_without_dashes_explains_them(holo: Holo, space: Path, line: str, hint: str) -> None:
    assert hint in holo("run", *line.split(), code=1).stderr, "no space is meant here"
    assert hint in holo("run", *line.split(), cwd=space, code=127).stderr
    assert hint in holo("run", "--space", "one", *line.split(), code=127).stderr
    assert "two dashes" not in holo("run", "no-such-space", "--", "one", code=1).stderr


def test_run_of_an_unknown_command_is_exit_code_127(holo: Holo, space: Path) -> None:
    refused = holo("run", "--space", "one", "--", "no-such-command", code=127)
    assert "no-such-command" in refused.stderr
