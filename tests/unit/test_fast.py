"""The fast path of the command line: for what it recognises, it does what Typer does."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from holo import files
from holo.cli import fast, output
from holo.cli.commands import load_all
from support import trees
from support.cli import Holo, Result

SLOW = "from holo.cli import fast, program; fast.recognised = lambda _: None; program.main()"
"""The program without its fast path."""

COMMANDS = (
    *("run", "variables", "status", "record", "init", "restore", "clone", "delete", "list", "export", "import"),
    *("--version", "-V"),
)
VALUES = ("--space", "--to", "--strategy", "--catalog", "--name", "--output", "-o")
OPTIONS = (*VALUES, "--json", "--ephemeral", "--force", "--verify", "--relocate", "--compress")
WORDS = (*COMMANDS, *OPTIONS, "--", "--yes", "--help", "-v", "-", "", "one", "two", "./é", "--to=x", "--sp")


class Calls:
    """What is called, instead of being done, with all arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []
        for name in (
            *("run", "run_ephemeral", "variables", "status"),
            *("record", "init", "restore", "clone", "delete", "list_spaces", "export", "import_file", "version"),
        ):
            monkeypatch.setattr(fast, name, self._recorder(name))

    def _recorder(self, name: str) -> Any:
        signature = inspect.signature(getattr(fast, name))

        def record(*arguments: object, **options: object) -> None:
            call = signature.bind(*arguments, **options)
            call.apply_defaults()
            self.made.append((name, dict(call.arguments)))

        return record


def test_what_is_recognised_is_what_typer_understands() -> None:
    """Of any words: either Typer alone has a say, or both call the same function with the same arguments."""
    program = typer.main.get_command(load_all())

    # Most lines of any words are for Typer; of those made of options with their values most are not.
    pairs = st.tuples(st.sampled_from(VALUES), st.sampled_from(("one", "two", "./é"))).map(list)
    parts = st.one_of(
        pairs, st.sampled_from(OPTIONS).map(lambda word: [word]), st.sampled_from(WORDS).map(lambda word: [word])
    )

    @settings(deadline=None, max_examples=300)
    @given(st.sampled_from(COMMANDS), st.lists(parts, max_size=4))
    def check(name: str, parts: list[list[str]]) -> None:
        arguments = [name, *(word for part in parts for word in part)]
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch)
            plain = fast.recognised(arguments)
            if plain is not None:
                plain()
                program.main(arguments, prog_name="holo", standalone_mode=False)
                first, second = calls.made
                assert first == second

    check()


@pytest.mark.parametrize(
    "line",
    [
        "run -- true",
        "run one -- true --json -- --help",
        "run --ephemeral -- true",
        "run one --ephemeral -- true",
        "variables",
        "variables one",
        "variables one --json",
        "variables --json one",
        "status",
        "status one --json",
        "run --space one -- true",
        "run --ephemeral --space one -- true",
        "record folder",
        "record folder --name one --json",
        "init one source",
        "init --json one source",
        "init --space one source",
        "init source --space one --strategy copy",
        "init one source --to folder --force --verify",
        "restore",
        "restore one --json",
        "restore --space one --catalog two --verify",
        "restore --to folder",
        "clone one two --relocate",
        "delete one",
        "delete --space one",
        "list",
        "list --json",
        "export one -o file",
        "export --output file one --compress --json",
        "import file",
        "import file --name one --json",
        "--version",
        "-V",
    ],
)
def test_plain_lines_need_no_typer(line: str) -> None:
    assert fast.recognised(line.split()) is not None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "help run",
        "run true",
        "run one",
        "run one --",
        "run one two -- true",
        "run --force one -- true",
        "run --help -- true",
        "run --json -- true",
        "run --ephemeral --ephemeral -- true",
        "run one --ephemeral --keep two -- true",
        "variables one two",
        "variables --shell fish",
        "variables -- one",
        "export one",
        "export one two -o file",
        "export one -o -",
        "import",
        "import -",
        "variables --json --json",
        "status -v",
        "status --help",
        "list one",
        "list --sort size",
        "--version list",
        "init",
        "init one",
        "init --space one",
        "init --to folder source",
        "init --space one two source",
        "init one source --strategy",
        "init one source --strategy=copy",
        "init one source --strategy --json",
        "init one source --yes",
        "restore one --space one",
        "restore --to one --to two",
        "clone one",
        "clone one two --map a=b",
        "record",
        "record --name one",
        "record --name -v folder",
        "restore one --dry-run",
        "delete one two",
    ],
)
def test_all_others_are_for_typer(line: str) -> None:
    assert fast.recognised(line.split()) is None


def test_completion_is_typers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_HOLO_COMPLETE", "complete_bash")
    assert fast.recognised(["variables"]) is None


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_both_ways_print_and_end_alike(holo: Holo) -> None:
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    holo("init", "one", "env")
    changed = Path(holo("init", "two", "env", "--json").json()["path"])
    (changed / "new").touch()
    lines: list[tuple[list[str], dict[str, str]]] = [
        (["variables", "one"], {}),
        (["variables", "one", "--json"], {"HOLO_SPACE": "two", "HOLO_SPACE_PATH": str(changed)}),
        (["variables"], {"HOLO_SPACE": "one"}),
        (["variables"], {}),
        (["variables", "three"], {}),
        (["variables", "three", "--json"], {}),
        (["variables", "../one"], {}),
        (["variables", "one", "--json"], {"HOLO_SETTINGS": "no-such-file"}),
        (["run", "one", "--", "sh", "-c", 'echo "$HOLO_SPACE"; echo >&2 "$PWD"; exit 7'], {}),
        (["run", "one", "--", "sh", "-c", "kill -KILL $$"], {}),
        (["run", "one", "--", "no-such-command", "--json"], {}),
        (["run", "three", "--", "true"], {"HOLO_HOME": str(holo.root / "other")}),
        (["status", "one"], {"COLUMNS": "40"}),
        (["status", "tw", "--json"], {}),
        (["list"], {"COLUMNS": "200"}),
        (["list", "--json"], {"RCC_HOLOTREE_STRATEGY": "fastest"}),
        (["--version"], {}),
    ]
    for arguments, more in lines:
        assert fast.recognised(arguments) is not None
        program = [sys.executable, "-c", SLOW, *arguments]
        slow = subprocess.run(
            program, env=holo.environment(more), cwd=holo.root, capture_output=True, text=True, check=False
        )
        quick = holo(*arguments, env=more, code=slow.returncode)
        assert _without_ages(quick) == _without_ages(Result([], slow.returncode, slow.stdout, slow.stderr)), arguments


def _without_ages(result: Result) -> tuple[str, str]:
    """What was printed; an age in seconds is another one a moment later, and may be wider."""
    return re.sub(r"\d+ s +", "0 s ", result.stdout), result.stderr


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_a_report_that_is_not_taken_is_told_alike(holo: Holo) -> None:
    with open("/dev/full", "w") as full:
        said = [
            subprocess.run(
                [sys.executable, *program, "list"],
                env=holo.environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
            for program in (["-m", "holo"], ["-c", SLOW])
        ]
    assert said[0].stderr == said[1].stderr != b""
    assert said[0].returncode == said[1].returncode == 1


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
@pytest.mark.parametrize(
    "line",
    [
        *("variables one", "run --space one -- true", "list"),
        *(
            "record source",
            "init --space two env",
            "restore --space one",
            "clone source clone --relocate",
            "delete --space one",
        ),
    ],
)
def test_nothing_slow_is_imported(holo: Holo, line: str) -> None:
    """Typer takes as long as all the rest, and dataclasses, which imports inspect, a fifth of that."""
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    holo("init", "one", "env")
    watched = [sys.executable, "-X", "importtime", "-m", "holo", *line.split()]
    env = holo.environment({"HOLO_SETTINGS": os.devnull})  # else YAML is read
    done = subprocess.run(watched, env=env, cwd=holo.root, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "holo.errors" in imported
    assert not imported & {"typer", "click", "rich", "pydantic", "yaml", "dataclasses", "inspect"}
    assert "zstandard" not in imported or line.startswith(("record", "init"))  # which read and write contents
    # What few spaces need:
    assert not imported & {"holo.platform.extents", "holo.platform.blocks", "holo.blueprints.blueprint"}
    assert "holo.restore.mounting" not in imported or line.startswith("delete")


@pytest.mark.parametrize("columns", [None, "", "0", "-5", "many", "1", "133"])
def test_the_width_is_what_the_standard_library_tells(columns: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert output.width() == shutil.get_terminal_size().columns
    monkeypatch.setattr(sys, "__stdout__", None)
    assert output.width() == shutil.get_terminal_size().columns


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (8 << 20) + 5])
@pytest.mark.parametrize("expected", [0, 16384, 16385, 4 << 20, 5 << 20])
def test_all_of_a_file_is_read_whatever_size_is_expected(size: int, expected: int, tmp_path: Path) -> None:
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        assert files.read(file.fileno(), size, expected) == content
        file.seek(0)
        if size:
            with pytest.raises(OSError, match="it is larger than"):
                files.read(file.fileno(), size - 1, expected)
