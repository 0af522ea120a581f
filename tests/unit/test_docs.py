"""The documentation: what it shows can be typed, run and followed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import typer.testing

import holo as holo_package
from holo.cli.commands import is_command, load_all
from holo.settings import load
from support import consoles
from support.cli import Holo
from support.servers.nginx import CACHE, VERIFICATION

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("catalogs/*.md")])
COMMANDS: Any = typer.main.get_command(load_all())  # a group of click's, which some versions of Typer bring along

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def shown_commands(path: Path) -> list[str]:
    """Every command line of holo's in code blocks for shells, and in inline code with an option or argument."""
    lines = [line for block in blocks(path, "sh") for line in block.splitlines()]
    lines += [line[2:] for block in blocks(path, "console") for line in block.splitlines() if line.startswith("$ ")]
    found = re.findall(r"(?<![\w.-])holo [a-z-][^\n|)]*", "\n".join(lines))
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found += re.findall(r"`(?:eval \"\$\()?(holo [a-z-][^`\\|)]*)", prose)
    return [command.strip().removesuffix('"') for command in found]


@pytest.mark.parametrize("command", sorted({command for page in PAGES for command in shown_commands(page)}))
def test_every_command_shown_parses(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    if name == "help":
        name, *arguments = [*arguments, "COMMAND"]
    if name.startswith("--"):
        assert any(name in parameter.opts for parameter in COMMANDS.params)
    elif arguments and name != "COMMAND":  # in prose, a bare name stands for the command and not for a call
        COMMANDS.commands[name].make_context(name, arguments)
    else:
        assert name in (*COMMANDS.commands, "COMMAND")


def examples_in_help() -> list[str]:
    found = []
    for command in COMMANDS.commands.values():
        begin, heading, *lines = command.epilog.splitlines()
        assert (begin, heading) == ("\b", "Examples:")  # the first keeps the lines as they are
        found += [line.strip() for line in lines]
    return found


@pytest.mark.parametrize("example", examples_in_help())
def test_every_example_in_a_help_parses(example: str) -> None:
    assert len(example) <= 74
    call = re.search(r"holo [^|)]*", example)
    assert call is not None
    _, name, *arguments = shlex.split(call[0].removesuffix('"'), comments=True)
    COMMANDS.commands[name].make_context(name, arguments)


def test_the_list_of_commands_is_whole_and_short() -> None:
    """Every command is in a group, with a sentence that fits a terminal of 80 columns."""
    said = typer.testing.CliRunner().invoke(load_all(), ["--help"], env={"COLUMNS": "80"}, prog_name="holo").stdout
    listed = re.findall(r"^  (\S+) +[A-Z].*\.$", said.partition("Record and restore:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS.commands)
    assert "..." not in said.partition("Record and restore:")[2]


def test_every_command_is_found_without_the_others() -> None:
    assert [name for name in COMMANDS.commands if not is_command(name)] == []


def test_the_commands_above_are_found() -> None:
    assert len(shown_commands(ROOT / "README.md")) > 15


def test_every_command_and_option_is_documented() -> None:
    reference = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name, command in COMMANDS.commands.items():
        synopsis = re.search(rf"^    holo {name}\b.*$", reference, re.MULTILINE)
        assert synopsis is not None, name
        shown = set(re.findall(r"--[a-z-]+\b", synopsis[0]))
        assert shown == {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option[:2] == "--"
        }, name


def test_the_whole_api_is_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    public = {*holo_package.__all__, *(name for name in vars(holo_package.Hololib) if name[0] != "_")}
    assert {name for name in public if name[0] != "_" and not re.search(rf"\b{name}\b", text)} == set()


@page
def test_json_examples_are_json(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block)


@page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_nobody_is_told_to_install_holo_from_a_registry() -> None:
    """There `holo` is another program, and `holotree` is nobody's until a release."""
    for path in [*PAGES, *(ROOT / "holo").rglob("*.py"), ROOT / "pyproject.toml"]:
        told = re.findall(r"install (?:-\S+ )*['\"]?holo(?:tree)?\b(?!/).*", path.read_text(encoding="utf-8"))
        assert told == [], path


def test_every_setting_and_variable_is_documented() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for setting in load(environ={"HOME": "/nowhere"}).effective():
        assert f"`{setting.key}`" in text
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "holo").rglob("*.py"))
    for variable in set(re.findall(r'"((?:HOLO|RCC)_[A-Z_]+)"', sources)):
        assert f"`{variable}`" in text, variable


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
@pytest.mark.parametrize("name", ["docs/api.md", "README.md"])
def test_python_examples_run(holo: Holo, name: str) -> None:
    script = holo.root / ".venv" / "bin" / "tool"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{script.parent}/python\n", encoding="utf-8")
    code = "\n".join(blocks(ROOT / name, "python")).replace("/tmp/holo-home", str(holo.home))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=holo.root, env=holo.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(holo.holotree) in done.stdout


def test_the_cache_that_is_shown_is_the_one_that_is_tested() -> None:
    shown = "\n".join(blocks(ROOT / "docs" / "remotes.md", "nginx"))
    tested = CACHE.replace("{verification}", VERIFICATION).replace("{{", "{").replace("}}", "}")
    fields = {"{scheme}": "https", "{origin}": "acme-holo.s3.eu-central-1.amazonaws.com"}
    for field, value in fields.items():
        tested = tested.replace(field, value)
    places = ("listen", "server ", "ssl_", "proxy_cache_path", "proxy_ssl_name", "proxy_ssl_trusted")  # the tests' own
    lines = [line.strip() for line in tested.splitlines() if line.strip() and "{tls}" not in line]
    lines = [line for line in lines if line == "server {" or not line.startswith(places)]
    assert [line for line in lines if line not in [each.strip() for each in shown.splitlines()]] == []
    assert len(lines) > 20


# -- console blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "real", "is_current"),
    [
        ("1,234 files in 0.31 s", "98 files in 12 s", True),
        ("space a is b (376673b1aec7)", "space a is b (91136aed9b6c)", True),
        ("5 files: 5 reflinked", "5 files: 5 copied", False),
        ("5 files: 0 copied", "5 files: 5 copied", False),
        ("0.5 MB", "0 B", False),
        ("space job-1", "space job-2", False),
    ],
)
def test_what_differs_between_machines_is_current(shown: str, real: str, is_current: bool) -> None:
    text, now = (f"```console\n$ holo list\n{line}\n```\n" for line in (shown, real))
    assert (consoles.differences(text, now) == []) == is_current


# -- reliability ------------------------------------------------------------------------------------------


def test_every_test_that_counts_faults_is_named() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")))
    files = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py")}
    assert named <= files.keys()
    assert {name for name, text in files.items() if "pytest.mark.torture" in text} - {Path(__file__).name} <= named


LOSSES = """
import pytest

@pytest.mark.parametrize("number", [1, 2, 3])
def test_it(number, faults):
    faults(2, "a fault", 0)
    for _ in range(number):
        faults(2, "a fault", 1)
    assert number != 2
"""


def test_a_failed_test_is_a_loss(tmp_path: Path) -> None:
    (tmp_path / "test_losses.py").write_text(LOSSES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(ROOT)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "| 2 | a fault | 6 | 1 |" in done.stdout.splitlines(), done.stdout + done.stderr
