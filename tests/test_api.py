"""`import holo` does what the command line does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import compare, trees
from support.cli import Holo
from support.filesystems import Filesystem

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


def run(holo: Holo, code: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=holo.environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_record_init_and_restore(holo: Holo, filesystem: Filesystem) -> None:
    source = trees.small(filesystem.root / "source".ljust(80, "-"))
    code = """
import sys, holo
recorded = holo.record(sys.argv[1], name="env")
made = holo.init("one", "env", strategy="copy")
assert made.digest == recorded.digest
assert made.files.copied == made.files.total == recorded.files
(__import__("pathlib").Path(made.path) / "lib" / "data.txt").unlink()
again = holo.restore("one")
assert again.files.unchanged == again.files.total - 1
print(made.path)
"""
    path = Path(run(holo, code, source).strip())
    assert compare.differences(source, path) == []
    assert holo("list", "--json").json()["spaces"][0]["path"] == str(path)


def test_errors_are_holo_errors(holo: Holo) -> None:
    code = """
import holo
from holo.errors import HoloError, NotFound
try:
    holo.init("one", "no-such-catalog")
except NotFound as error:
    assert isinstance(error, HoloError)
    print(error)
"""
    assert "no-such-catalog" in run(holo, code)


@pytest.mark.parametrize(
    "name",
    ["record", "init", "restore", "Hololib", "Catalog", "Space", "Strategy", "RestoreReport", "__version__"],
)
def test_public_name_is_there(holo: Holo, name: str) -> None:
    run(holo, f"import holo; assert {name!r} in dir(holo); assert holo.{name}")


@pytest.mark.parametrize("slow", ["pydantic", "typer", "yaml", "rich", "zstandard"])
def test_import_is_cheap(holo: Holo, slow: str) -> None:
    """Nobody pays for a library before it is used."""
    assert run(holo, f"import sys, holo; print({slow!r} in sys.modules)") == "False\n"
