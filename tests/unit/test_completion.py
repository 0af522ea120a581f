"""Completion: what is offered where, asked as the shells ask; and the shells themselves, on terminals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holo import completion
from holo.completion.table import COMMANDS
from holo.hololib.layout import NAME
from support import reference, trees
from support.cli import Holo

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

ROOT = Path(__file__).parents[2]

KEYS = [
    ("holo rec\t", "<record>"),
    ("holo delete jo\t", "<delete><job-1>"),
    ("holo init --spa\tjo\t--strategy ha\ten\t", "<init><--space><job-1><--strategy><hardlink><env>"),
    ("holo init --strategy=ha\t", "<init><--strategy=hardlink>"),
    ("holo restore --space=jo\t", "<restore><--space=job-1>"),
    ("holo init --to my\t", "<init><--to><my folder>"),
    ("holo import bun\t", "<import><bundle of all.holo>"),
    ("holo push env s3://bucket/holo --dr\t", "<push><env><s3://bucket/holo><--dry-run>"),
    ("holo run --space jo\t-- unmistak\tbun\t", "<run><--space><job-1><--><unmistakable><bundle of all.holo>"),
    ("~/tools/holo help unin\t", "<help><uninstall>"),
]
"""What is typed, and what the command is then called with."""

SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], "PS1='rea''dy> '; bind 'set enable-bracketed-paste off'"),
    "zsh": (
        ["-f", "-i"],
        "PS1='rea''dy> '; unsetopt prompt_cr prompt_sp; autoload -U compinit; compinit -u -D",
    ),
    "fish": (["--no-config", "-i"], "function fish_prompt; echo -n rea'dy> '; end"),
}


@pytest.fixture
def home(holo: Holo) -> Holo:
    """A home with the catalog `env`, its space `job-1`, and a name that would do something in a shell."""
    trees.small(holo.root / "source")
    holo("record", holo.root / "source", "--name", "env")
    holo("init", "--space", "job-1", "env")
    for folder in (holo.library / "names", holo.holotree / ".spaces"):
        trees.write(folder / "env$(touch hit).json", "{}")
        trees.write(folder / ".hidden.json", "{}")
    trees.write(holo.root / "my file", "")
    trees.write(holo.root / "my folder" / "file", "")
    trees.write(holo.root / "bundle of all.holo", "")
    shown = 'for word; do printf "<%s>" "$word"; done; echo .'
    ask = f'test "$1" != __complete || exec {sys.executable} -m holo "$@"'
    trees.write(holo.root / "tools" / "holo", f"#!/bin/sh\n{ask}\n{shown}\n", mode=0o755)
    trees.write(holo.root / "tools" / "unmistakable", "#!/bin/sh\n", mode=0o755)
    return Holo(holo.root)  # which runs the program from its start


def asked(*words: str, current: str = "") -> list[str]:
    """What else the shell is to offer, and the words that are offered."""
    how, offered = completion.answer(words, current)
    return [how, *(word for word, _ in offered)]


@local
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(home: Holo, shell: str) -> None:
    if shutil.which(shell) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{shell} must be there in CI")
        pytest.skip(f"no {shell}")
    options, begin = SHELLS[shell]
    script = trees.write(home.root / "script", home("completion", shell).stdout)
    more = {
        "HOME": str(home.root),
        "PATH": f"{home.root}/tools:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",
    }
    terminal = pexpect.spawn(
        shell,
        options,
        env=home.environment(more),
        cwd=home.root,
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 200),
    )
    terminal.sendline(begin)
    terminal.expect_exact("ready> ")
    terminal.sendline(f"source {script}")
    terminal.expect_exact("ready> ")
    for typed, called in KEYS:
        terminal.sendline(typed)
        terminal.expect(r"(<.*>)\.\r?\n")
        assert terminal.match is not None
        assert terminal.match[1].replace("/>", ">") == called  # zsh takes the slash away again
        terminal.expect_exact("ready> ")
    terminal.sendline("exit")
    terminal.expect(pexpect.EOF)
    assert not (home.root / "hit").exists()


@local
def test_what_is_offered(home: Holo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_HOME", str(home.home))
    digest = home("catalogs", "--json").json()["catalogs"][0]["digest"]
    assert asked(current="co") == ["names", "completion"]
    assert asked("no-such-command") == ["names", "--help"]
    assert asked("delete") == ["names", "job-1"]
    assert asked("delete", current='"jo') == ["names", "job-1"]
    assert asked("delete", "job-1")[:2] == ["names", "--space"]
    assert "--space" not in asked("delete", "--space", "job-1")
    assert asked("delete", "--json", current="--j") == ["names"]
    assert asked("init", "--space", "new") == ["files", "env"]
    assert asked("catalogs", current=digest[:4]) == ["names", digest]
    assert asked("ls", current="jo") == ["files", "job-1"]
    assert asked("push", "env", "more") == ["directories"]
    assert asked("export", "env", "env") == ["names", "env"]
    assert asked("remote", current="c") == ["names", "check"]
    assert asked("gc", current="--keep-d") == ["names", "--keep-days"]
    assert asked("gc", "--keep-days") == ["names"]
    assert asked("run", "--", "ls", "-l") == ["command 2"]
    assert asked("run", "job-1", "--") == ["command 3"]
    assert asked("run", "--force") == asked("init") == ["names", "job-1"]
    assert asked("init", "new", "--", current="--") == ["files"]
    assert home("__complete").stdout.startswith("names\nrecord\tRecord ")
    assert home("__complete", "one", code=1).stdout == ""


@local
@pytest.mark.parametrize(
    ("settings", "is_found"),
    [
        ("home: {home}\n", True),
        ("# home: /nowhere\nworkers: 2\nhome: '{home}' # mine\n", True),
        ("home: /nowhere\n", False),
        ("workers: 2\n", False),
        ("home: [\n", False),
        ("home: \xff\n", False),
    ],
)
def test_the_home_is_that_of_the_settings(home: Holo, settings: str, is_found: bool) -> None:
    home.settings.write_text(settings.format(home=home.home), encoding="latin-1")
    said = home(
        "__complete", "1", "delete", env={"HOLO_HOME": ""}, code=1 if "[" in settings or "\xff" in settings else 0
    )
    assert ("job-1" in said.stdout) == is_found
    home.settings.write_text("")
    below = home.root / "data"
    below.mkdir()
    (below / "holo").symlink_to(home.home)
    assert "job-1" in home("__complete", "1", "delete", env={"HOLO_HOME": "", "XDG_DATA_HOME": str(below)}).stdout


@local
def test_nothing_slow_is_imported(home: Holo) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "holo", "__complete", "1", "delete"],
        env=home.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "job-1" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    ours = {name for name in imported if name.partition(".")[0] == "holo"}
    assert ours == {"holo", "holo.completion", "holo.completion.table", "holo.errors", "holo.userfolders"}
    assert not imported & {"typer", "click", "rich", "pydantic", "yaml", "dataclasses", "inspect", "argparse"}


@given(name=st.text(max_size=3) | st.text("aZ0_.+-/$ \n", max_size=66))
def test_a_name_is_what_a_space_may_be_called(name: str) -> None:
    assert completion.is_name(name) == (NAME.fullmatch(name) is not None)


def test_the_table_is_current() -> None:
    assert reference.TABLE.read_text(encoding="utf-8") == reference.table(), "`make docs` makes it anew"


@local
def test_every_shell_that_is_named_has_a_script(holo: Holo) -> None:
    for shell in completion.SHELLS:
        assert "__complete" in holo("completion", shell).stdout
    assert holo("completion", "tcsh", code=2).stdout == ""


def test_the_manual(tmp_path: Path) -> None:
    pages = reference.man_pages()
    assert pages.keys() == {"holo.1", *(f"holo-{name}.1" for name in COMMANDS)}
    for name, page in pages.items():
        trees.write(tmp_path / name, page)
    if shutil.which("groff") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("groff must be there in CI")
        pytest.skip("no groff")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=120n", *sorted(pages)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    shown = subprocess.run(["col", "-bx"], input=done.stdout, capture_output=True, text=True, check=True).stdout
    for name, sentence in COMMANDS.items():
        assert f"holo-{name} - {sentence.rstrip('.')}" in shown
    assert "--strategy NAME" in shown
    assert "holo init web requirements.txt --to .venv" in shown
