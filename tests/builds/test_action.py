"""The steps of the GitHub action, run as a runner runs them, with a remote in a folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from support import trees, wheels
from support.cli import Holo

ACTION = Path(__file__).parents[2] / ".github" / "actions" / "holo" / "action.yml"

MAKES_A_PIP = """#!/bin/sh
mkdir -p "$3/bin"
cat >"$3/bin/python" <<'END'
#!/bin/sh
printf '%s\\n' "$@" >pip.log
END
chmod +x "$3/bin/python"
"""

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


class Runner:
    """As much of a runner as a composite action needs: expressions, conditions, and what steps leave in files."""

    def __init__(self, holo: Holo) -> None:
        self._holo = holo
        self.temp = holo.root / "temp"
        self.workspace = holo.root / "workspace"
        for folder in (self.temp, self.workspace):
            folder.mkdir()

    def run(
        self, inputs: Mapping[str, str], more: Mapping[str, str], only: str | None = None, code: int = 0
    ) -> dict[str, str]:
        """Run the action with these inputs, from a new runner's environment; its outputs."""
        document = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
        assert inputs.keys() <= document["inputs"].keys()
        values = {f"inputs.{name}": inputs.get(name, known["default"]) for name, known in document["inputs"].items()}
        environ = {**self._holo.environment(more), "RUNNER_TEMP": str(self.temp), "HOLO_HOME": ""}
        environ["GITHUB_ACTION_PATH"] = str(ACTION.parent)
        for step in document["runs"]["steps"]:
            if not self._is_wanted(step.get("if"), values) or (only is not None and step["name"] != only):
                continue
            files = {name: self.temp / name for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")}
            for file in files.values():
                file.write_text("")
            given = {name: self._filled(text, values) for name, text in step["env"].items()}
            done = subprocess.run(
                [step["shell"], "-e", "-c", step["run"]],
                cwd=self.workspace,
                env={**environ, **given, **{name: str(file) for name, file in files.items()}},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == code, done.stdout + done.stderr
            environ |= self._pairs(files["GITHUB_ENV"])
            for folder in files["GITHUB_PATH"].read_text().splitlines():
                environ["PATH"] = f"{folder}:{environ['PATH']}"
            if "id" in step:
                said = self._pairs(files["GITHUB_OUTPUT"])
                values |= {f"steps.{step['id']}.outputs.{name}": value for name, value in said.items()}
        self.environ = environ
        return {name: self._filled(known["value"], values) for name, known in document["outputs"].items()}

    def _is_wanted(self, condition: str | None, values: Mapping[str, str]) -> bool:
        if condition is None:
            return True
        name, operator, text = re.fullmatch(r"(\S+) (==|!=) '(.*)'", condition).groups()  # type: ignore[union-attr]
        return (values[name] == text) == (operator == "==")

    def _filled(self, text: str, values: Mapping[str, str]) -> str:
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: values.get(found[1], ""), text)

    def _pairs(self, file: Path) -> dict[str, str]:
        return dict(line.split("=", 1) for line in file.read_text().splitlines())


@pytest.fixture
def runner(holo: Holo) -> Runner:
    command = f'#!/bin/sh\nexec {sys.executable} -m holo "$@"\n'
    trees.write(holo.root / "tools" / "holo", command, mode=0o755)
    return Runner(holo)


@pytest.fixture
def more(holo: Holo) -> dict[str, str]:
    """The variables of a job that needs the package `leaf`, and has holo."""
    wheels.make(holo.root / "wheels", "leaf")
    return {
        "PATH": f"{holo.root}/tools:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ACTION.parents[3]),
        "UV_FIND_LINKS": str(holo.root / "wheels"),
        "UV_NO_INDEX": "1",
        "UV_OFFLINE": "1",
    }


def test_what_one_job_saves_the_next_has(holo: Holo, runner: Runner, more: dict[str, str]) -> None:
    remote = holo.root / "remote"
    remote.mkdir()
    trees.write(runner.workspace / "requirements.txt", "leaf\n")
    inputs = {"blueprint": "requirements.txt", "to": ".venv", "remote": str(remote)}

    built = runner.run({**inputs, "home": str(holo.root / "first")}, more)
    assert Path(built["path"]) == runner.workspace / ".venv"
    assert [*remote.iterdir()] == [], "only `save` writes"
    runner.run({**inputs, "home": str(holo.root / "first"), "save": "true"}, more)
    assert [*(remote / "catalogs").iterdir()] == [remote / "catalogs" / built["digest"]]

    # The next runner has neither a library nor the package.
    subprocess.run(["rm", "-r", built["path"], holo.root / "wheels"], check=True)
    pulled = runner.run(inputs, more)
    assert pulled == built
    assert runner.environ["HOLO_HOME"] == str(runner.temp / "holo-home")
    leaf = subprocess.run([runner.workspace / ".venv/bin/leaf"], capture_output=True, text=True, check=True)
    assert leaf.stdout == f"leaf 1.0 {runner.workspace}/.venv\n"

    named = runner.run({"catalog": built["catalog"], "space": "one", "remote": str(remote), "home": "third"}, more)
    assert named["digest"] == built["digest"]
    assert named["path"].startswith(f"{runner.workspace}/third/holotree/one_")


def test_a_step_that_fails_fails_the_job(holo: Holo, runner: Runner, more: dict[str, str]) -> None:
    trees.write(runner.workspace / "requirements.txt", "no-such-package; touch hit\n")
    runner.run({"blueprint": "requirements.txt", "space": "$(touch hit)"}, more, only="Restore", code=2)
    runner.run({"catalog": "`touch hit`"}, more, only="Pull", code=2)
    assert not (runner.workspace / "hit").exists()


def test_holo_is_installed_where_it_is_not(holo: Holo, runner: Runner) -> None:
    """From the checkout of the action, with a pip that only writes down what it is asked for."""
    trees.write(holo.root / "bare" / "python3", MAKES_A_PIP, mode=0o755)
    path = f"{holo.root}/bare:/usr/bin:/bin"
    runner.run({}, {"PATH": path}, only="Set up holo")
    assert runner.environ["PATH"] == f"{runner.temp}/holo/bin:{path}"
    *words, source = (runner.workspace / "pip.log").read_text().splitlines()
    assert words == ["-m", "pip", "install", "--quiet"]
    project = tomllib.loads(Path(source.partition("[")[0], "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "holotree"
    assert source.endswith("[uv,remote]")
    assert {"uv", "remote"} <= project["optional-dependencies"].keys()
