"""Activation: the right variables, shell code that means exactly them, and commands that run in them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holo.activation import (
    SHELLS,
    CommandNotExecutable,
    CommandNotFound,
    Shell,
    Variables,
    apply,
    check_python,
    render,
    run,
    variables,
)
from holo.errors import HoloError, UsageError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX paths and shells")


# --- variables --------------------------------------------------------------------------------


def test_plain_space_puts_bin_on_path() -> None:
    assert variables("/s", "tools", {"PATH": "/usr/bin:/bin"}) == {
        "PATH": "/s/bin:/usr/bin:/bin",
        "HOLO_SPACE": "tools",
        "HOLO_SPACE_PATH": "/s",
    }


def test_virtualenv_sets_virtual_env(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").touch()
    found = variables(str(tmp_path), "ml", {"PATH": "/bin", "PYTHONHOME": "/elsewhere"})
    assert found["VIRTUAL_ENV"] == str(tmp_path)
    assert found["VIRTUAL_ENV_PROMPT"] == "ml"
    assert found["PYTHONHOME"] is None
    assert "CONDA_PREFIX" not in found


@pytest.mark.parametrize("sign", ["pyvenv.cfg", "conda-meta"])
def test_python_space_drops_settings_of_another_python(tmp_path: Path, sign: str) -> None:
    """By uv and pip, that is; where a space has none, it may be."""
    environ = {"PATH": "/bin", "UV_PYTHON": "3.12", "UV_SYSTEM_PYTHON": "1", "PIP_PYTHON": "/usr/bin/python3"}
    assert environ.items() <= apply(variables(str(tmp_path), "n", environ), environ).items() | {("PATH", "/bin")}
    (tmp_path / sign).mkdir()
    left = apply(variables(str(tmp_path), "n", environ), environ)
    assert left.keys().isdisjoint({"UV_PYTHON", "UV_SYSTEM_PYTHON", "PIP_PYTHON"})


def test_conda_prefix_sets_conda_variables(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    found = variables(str(tmp_path), "ml", {"PATH": "/bin", "VIRTUAL_ENV": "/home/ada/.venv"})
    assert found["CONDA_PREFIX"] == str(tmp_path)
    assert found["CONDA_DEFAULT_ENV"] == "ml"
    assert found["VIRTUAL_ENV"] is None, "which uv would take for the environment"


@pytest.mark.parametrize("below", ["node_modules/.bin", ".bin"])
def test_node_modules(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True)
    found = variables(str(tmp_path), "web", {"PATH": "/bin"})
    assert found["PATH"] == f"{tmp_path}/bin:{tmp_path}/{below}:/bin"
    assert found["NODE_PATH"] == str((tmp_path / below).parent)


def test_node_path_goes_with_the_space(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for space in (before, after):
        (space / "node_modules").mkdir(parents=True)
    environ = apply(variables(str(before), "before", {"PATH": "/bin", "NODE_PATH": "/own:/other"}), {})
    assert environ["NODE_PATH"] == f"{before}/node_modules:/own:/other"
    assert variables(str(after), "after", environ)["NODE_PATH"] == f"{after}/node_modules:/own:/other"
    assert variables("/plain", "plain", environ)["NODE_PATH"] == "/own:/other"
    assert variables("/plain", "plain", {**environ, "NODE_PATH": f"{before}/node_modules"})["NODE_PATH"] is None


def test_conda_variables(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    kept = {"TOOL_HOME": str(before), "FLAGS": "-a 'b'", "PATH": "/evil", "HOLO_HOME": "/evil", "A;id": "x", "N": 1}
    for space in (before, after):
        (space / "conda-meta").mkdir(parents=True)
    (before / "conda-meta/state").write_text(json.dumps({"env_vars": kept | {"GONE": "***unset***"}}))
    found = variables(str(before), "before", {"PATH": "/bin"})
    assert found["TOOL_HOME"] == str(before)
    assert found["FLAGS"] == "-a 'b'"
    assert found["PATH"] == f"{before}/bin:/bin"
    assert found.keys().isdisjoint({"HOLO_HOME", "A;id", "N", "GONE"})
    environ = {**apply(found, {"PATH": "/bin"}), "FLAGS": "mine"}
    left = variables(str(after), "after", environ)
    assert left["TOOL_HOME"] is None
    assert "FLAGS" not in left, "the user has changed it"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"env_vars": []}', '{"env_vars": null}', "[" * 100_000, "\xff"])
def test_broken_conda_state_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta/state").write_bytes(text.encode("latin-1"))
    assert variables(str(tmp_path), "n", {"PATH": "/bin"}).keys() == {
        *("PATH", "HOLO_SPACE", "HOLO_SPACE_PATH", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"),
        *("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"),
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "/s/bin"),
        ("/s/bin", "/s/bin"),
        ("/bin:/s/bin:/usr/bin:/s//bin/", "/s/bin:/bin:/usr/bin"),
        ("/bin::/usr/bin", "/s/bin:/bin::/usr/bin"),
        ("/bin:", "/s/bin:/bin:"),
        ("/bin:/bin", "/s/bin:/bin:/bin"),
        ("/s/own:/s/binary", "/s/bin:/s/own:/s/binary"),
    ],
)
def test_path_begins_with_the_space(before: str, after: str) -> None:
    assert variables("/s", "n", {"PATH": before, "HOLO_SPACE_PATH": "/s"})["PATH"] == after


def test_path_may_be_unset() -> None:
    assert variables("/s", "n", {})["PATH"] == f"/s/bin:{os.defpath}"


def test_colon_in_a_path_is_refused() -> None:
    with pytest.raises(HoloError, match="cannot be on PATH"):
        variables("/a:b", "n", {"PATH": "/bin"})


def test_activating_twice_changes_nothing(tmp_path: Path) -> None:
    for marker in ("pyvenv.cfg", "conda-meta", "node_modules/.bin"):
        (tmp_path / marker).mkdir(parents=True)
    first = variables(str(tmp_path), "n", {"PATH": "/bin"})
    assert variables(str(tmp_path), "n", apply(first, {"PATH": "/bin"})) == first


def test_nothing_is_left_of_the_previous_space(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for marker in ("pyvenv.cfg", "conda-meta", ".bin"):
        (before / marker).mkdir(parents=True)
    environ = apply(variables(str(before), "before", {"PATH": "/bin"}), {"EDITOR": "vi"})
    assert apply(variables(str(after), "after", environ), environ) == {
        "EDITOR": "vi",
        "PATH": f"{after}/bin:/bin",
        "HOLO_SPACE": "after",
        "HOLO_SPACE_PATH": str(after),
    }


def test_an_environment_that_is_not_ours_stays() -> None:
    environ = {"PATH": "/v/bin:/bin", "VIRTUAL_ENV": "/v", "HOLO_SPACE_PATH": "/before"}
    found = variables("/s", "n", environ)
    assert found["PATH"] == "/s/bin:/v/bin:/bin"
    assert "VIRTUAL_ENV" not in found


# --- shell code -------------------------------------------------------------------------------

# Everything that an environment variable can hold: any bytes but NUL, as Python shows them.
_bytes = st.binary(max_size=40).map(lambda value: os.fsdecode(value.replace(b"\0", b"")))
_nasty = st.text(alphabet="'\"\\$`!\n\r\t ;&|#~*?{}()[]<>-=%^\u2018\u2019\u201a\u201bé\U0001f40d", max_size=40)
_values = st.one_of(_bytes, _nasty)


def evaluated(shell: str, code: str, names: list[str], **environ: str) -> dict[str, str | None]:
    """What the real ``shell`` exports to a child after it has evaluated the code."""
    child = "import json, os, sys; json.dump([os.environ.get(n) for n in sys.argv[1:]], sys.stdout)"
    script = os.fsencode(code) + os.fsencode(f"'{sys.executable}' -I -c '{child}' {' '.join(names)}\n")
    program = shutil.which(shell)
    assert program
    result = subprocess.run(
        [program], input=script, capture_output=True, check=True, env={"HOME": "/nonexistent"} | environ
    )
    return dict(zip(names, json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("shell", ["sh", "bash", "fish"])
@settings(max_examples=40, deadline=None)
@given(first=_values, second=_values)
def test_a_real_shell_gets_the_exact_values(shell: str, first: str, second: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    changes: Variables = {"FIRST": first, "SECOND": second, "GONE": None, "NEVER": None}
    code = render(changes, "fish" if shell == "fish" else "sh")
    found = evaluated(shell, code, ["FIRST", "SECOND", "GONE", "NEVER"], GONE="still here")
    assert found == changes


@pytest.mark.parametrize("shell", ["sh", "fish"])
def test_a_real_shell_gets_path(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    changes = variables("/it's a $space", "n", {"PATH": os.environ["PATH"]})
    assert evaluated(shell, render(changes, "fish" if shell == "fish" else "sh"), list(changes)) == changes


if shutil.which("pwsh"):  # no package installs it here: where it is missing, only its quoting rule below is tested

    @settings(max_examples=10, deadline=None)
    @given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
    def test_a_real_powershell_gets_the_exact_value(value: str) -> None:
        code = render({"VALUE": value}, "powershell") + "[Console]::Out.Write((ConvertTo-Json $Env:VALUE))"
        result = subprocess.run(["pwsh", "-NoProfile", "-Command", code], capture_output=True, check=True)
        assert json.loads(result.stdout) == value


@given(value=_nasty)
def test_powershell_quoting(value: str) -> None:
    """PowerShell's rule, read backwards: between quotes, two of any of its single quotes are the second."""
    code = render({"VALUE": value, "GONE": None}, "powershell")
    assert code.endswith("'\nRemove-Item Env:GONE -ErrorAction Ignore\n")
    body = code.removeprefix("$Env:VALUE = '").removesuffix("'\nRemove-Item Env:GONE -ErrorAction Ignore\n")
    quote = "['\u2018\u2019\u201a\u201b]"
    assert not re.search(quote, re.sub(quote * 2, "", body))
    assert re.sub(f"{quote}({quote})", r"\1", body) == value


def test_every_shell_has_its_form() -> None:
    changes: Variables = {"A": "it's", "B": None}
    assert [render(changes, shell) for shell in SHELLS] == [
        "export A='it'\\''s'\nunset B\n",
        "set -gx A 'it\\'s'\nset -e B\n",
        "$Env:A = 'it''s'\nRemove-Item Env:B -ErrorAction Ignore\n",
    ]


def test_an_unknown_shell() -> None:
    unknown: Shell = "csh"  # type: ignore[assignment]
    with pytest.raises(UsageError, match="unknown shell 'csh'; use sh, fish, powershell"):
        render({}, unknown)


# --- commands ---------------------------------------------------------------------------------


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def start(command: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that calls :func:`run`; it becomes the command."""
    code = "import json, sys; from holo.activation import run; run(*json.loads(sys.argv[1]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps([command, environ])],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


def ran(command: list[str], environ: dict[str, str]) -> tuple[int, bytes]:
    process = start(command, environ)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


def test_run_finds_the_command_on_the_new_path(tmp_path: Path) -> None:
    script(tmp_path / "bin/tool", '#!/bin/sh\nprintf "%s|" "$0" "$HOLO_SPACE" "$@"\nexit 7\n')
    environ = apply(variables(str(tmp_path), "n", {"PATH": "/usr/bin:/bin"}), {})
    code, output = ran(["tool", "a b", "", "-x"], environ)
    assert code == 7
    assert output.decode() == f"{tmp_path}/bin/tool|n|a b||-x|"


def test_run_skips_what_is_not_executable(tmp_path: Path) -> None:
    script(tmp_path / "a/tool", "#!/bin/sh\nexit 1\n", 0o644)
    (tmp_path / "b/tool").mkdir(parents=True)
    script(tmp_path / "c/tool", "#!/bin/sh\nexit 3\n")
    assert ran(["tool"], {"PATH": f"{tmp_path}/a:{tmp_path}/b:{tmp_path}/c"})[0] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_reach_the_command(tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    tool = script(tmp_path / "tool", f"#!/bin/sh\ntrap 'exit 42' {name}\necho ready\nwhile :; do sleep 0.05; done\n")
    process = start([str(tool)], {"PATH": os.environ["PATH"]})
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(timeout=30) == 42
    process.stdout.close()


def test_death_by_signal_is_seen_outside() -> None:
    process = start(["sleep", "30"], {"PATH": os.environ["PATH"]})
    comm = Path(f"/proc/{process.pid}/comm")
    deadline = time.monotonic() + 30
    while comm.exists() and comm.read_text() != "sleep\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    assert process.wait(timeout=30) == -signal.SIGTERM
    assert process.stdout
    process.stdout.close()


def test_a_broken_pipe_ends_the_command() -> None:
    """Python ignores SIGPIPE; the command must not inherit that."""
    code, _ = ran(["sh", "-c", 'kill -PIPE "$$"; exit 0'], {"PATH": os.environ["PATH"]})
    assert code == -signal.SIGPIPE


def test_missing_command_is_exit_code_127(tmp_path: Path) -> None:
    for command in ("nosuch", str(tmp_path / "nosuch"), f"{tmp_path}/no/such"):
        with pytest.raises(CommandNotFound, match=r"nosuch|no/such") as caught:
            run([command], {"PATH": str(tmp_path)})
        assert caught.value.exit_code == 127


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("#!/bin/sh\n", 0o644, "is not executable"),
        ("#!/no/such/interpreter\n", 0o755, "the interpreter it names does not exist"),
        ("echo no first line\n", 0o755, "Exec format error"),
    ],
)
def test_unexecutable_command_is_exit_code_126(tmp_path: Path, text: str, mode: int, says: str) -> None:
    script(tmp_path / "tool", text, mode)
    handler = signal.getsignal(signal.SIGPIPE)
    with pytest.raises(CommandNotExecutable, match=says) as caught:
        run(["tool"], {"PATH": str(tmp_path)})
    assert caught.value.exit_code == 126
    assert signal.getsignal(signal.SIGPIPE) == handler


def test_a_directory_is_not_executable(tmp_path: Path) -> None:
    with pytest.raises(CommandNotExecutable, match="Permission denied"):
        run([str(tmp_path)], {})


def test_empty_command_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no command to run"):
        run([], {})


def test_a_space_that_may_not_be_looked_into_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a command that is not found there would run another environment's Python."""
    check_python(str(tmp_path), "web")
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))  # root may look into everything
    with pytest.raises(HoloError, match="cannot look into the space"):
        check_python(str(tmp_path), "web")
