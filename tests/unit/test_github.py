"""What GitHub and pre-commit would read: valid, and about what there is here. None of it has run there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ruamel.yaml
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
ACTION = ROOT / ".github" / "actions" / "holo" / "action.yml"


def jobs(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))["jobs"]


@pytest.mark.parametrize(("schema", "files"), [("github-workflows", WORKFLOWS), ("github-actions", [ACTION])])
def test_the_schemas_are_kept(schema: str, files: list[Path]) -> None:
    """Those that check-jsonschema brings along. Its own program starts anew, which takes two seconds, for each."""
    spec = importlib.util.find_spec("check_jsonschema")
    assert spec is not None
    assert spec.origin is not None
    rules = json.loads(Path(spec.origin).with_name("builtin_schemas").joinpath("vendor", f"{schema}.json").read_bytes())
    validator = jsonschema.validators.validator_for(rules)(rules)
    for file in files:
        document = ruamel.yaml.YAML(typ="safe", pure=True).load(file)  # of YAML 1.2, in which `on` is a word
        assert list(validator.iter_errors(document)) == []
    assert list(validator.iter_errors({}))


def test_pre_commit_takes_its_settings() -> None:
    file = ROOT / ".pre-commit-config.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    (hook,) = yaml.safe_load(file.read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert re.search(rf"^{hook['entry'].removeprefix('make ')}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_linux_is_tested_with_every_python_that_is_promised() -> None:
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    tested = jobs("tests.yml")["linux"]["strategy"]["matrix"]["python"]
    assert [f"Programming Language :: Python :: {version}" for version in tested] == [
        line for line in promised if line.startswith("Programming Language :: Python :: 3.")
    ]


def test_what_the_workflows_name_is_there() -> None:
    for file in WORKFLOWS:
        for name in re.findall(r"(?<![\w/])(?:tests|docs|\.github)/[\w./-]+\.\w+", file.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), name


def test_every_workflow_says_what_it_may_do_and_has_an_end() -> None:
    for file in WORKFLOWS:
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    assert jobs("release.yml")["publish"]["permissions"] == {"id-token": "write"}


def test_nothing_is_put_into_a_script() -> None:
    """A `${{ ... }}` of what others choose, in a script, is code of theirs."""
    for file in [*WORKFLOWS, ACTION]:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        for job in document.get("jobs", {"action": document.get("runs")}).values():
            assert not [step["run"] for step in job["steps"] if "${{" in step.get("run", "")]


def test_the_short_test_of_every_system(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", ".github/smoke.sh", sys.executable],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "HOLO_SETTINGS": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [path for folder in tmp_path.iterdir() for path in folder.iterdir()]
