"""Disk that looks after itself: limits in the settings, kept in the background; and spaces that nobody can use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holo.blueprints.memory import Origin, save_origin
from holo.hololib import Library
from holo.hololib.recovery import locked_library
from holo.holotree import Holotree
from support import trees
from support.cli import Holo, eventually
from support.filesystems import Filesystem

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


def catalogs(holo: Holo) -> set[str]:
    return {found["name"] for found in holo("catalogs", "--json").json()["catalogs"]}


def record(holo: Holo, name: str) -> str:
    tree = trees.write(holo.root / name / "file", f"{name} " * 5000).parent
    digest: str = holo("record", tree, "--name", name, "--json").json()["digest"]
    return digest


def long_unused(holo: Holo, *digests: str, days: int = 60) -> None:
    then = time.time() - days * 86_400
    for digest in digests:
        for mark in (holo.library / "used").glob(f"{digest}-*"):
            os.utime(mark, (then, then))


def stamp(holo: Holo) -> Path:
    return holo.library / "upkeep"


def has_ended(holo: Holo) -> bool:
    """Whether no clean-up is at work. The last thing it does is to write the stamp."""
    found = subprocess.run(["pgrep", "-f", f"holo.gc.upkeep {holo.home} "], capture_output=True, check=False)
    return found.returncode == 1


@pytest.mark.parametrize("limit", ["max-size: 1kB", "keep-days: 30", "min-free: 1000TB"])
def test_a_limit_is_kept_once_an_hour_and_never_what_a_space_needs(holo: Holo, limit: str) -> None:
    old, held = record(holo, "old"), record(holo, "held")
    holo("init", "--space", "one", "held")
    assert not stamp(holo).exists(), "nothing is to be kept"
    long_unused(holo, old, held)
    holo.settings.write_text(f"library:\n  {limit}\n")
    holo("restore", "one")
    assert not stamp(holo).exists(), "a restore adds nothing"
    (holo.root / "new").mkdir()
    holo("record", holo.root / "new")
    eventually(lambda: "old" not in catalogs(holo))
    assert "held" in catalogs(holo)
    eventually(lambda: has_ended(holo))
    holo("restore", "one", "--verify")

    long_unused(holo, record(holo, "again"))
    before = stamp(holo).stat().st_mtime_ns
    (holo.root / "newer").mkdir()
    holo("record", holo.root / "newer")
    assert stamp(holo).stat().st_mtime_ns == before, "the last one was less than an hour ago"
    os.utime(stamp(holo), (time.time() - 3700,) * 2)
    holo("init", "--space", "one", "held")
    eventually(lambda: "again" not in catalogs(holo))


def test_nothing_starts_when_nothing_has_come(holo: Holo) -> None:
    record(holo, "env")
    holo.settings.write_text("library:\n  keep-days: 30\n")
    trees.write(stamp(holo))
    holo("init", "--space", "one", "env")
    os.utime(stamp(holo), (time.time() + 5,) * 2)
    before = stamp(holo).stat().st_mtime_ns
    holo("init", "--space", "two", "env")
    assert stamp(holo).stat().st_mtime_ns == before


MODULE = (sys.executable, "-m", "holo.gc.upkeep")
STUCK = """
import sys, time
import holo.gc.upkeep
sys.modules["holo.gc.collect"].take_inventory = lambda library: print("locked", flush=True) or time.sleep(10**6)
holo.gc.upkeep.main()
"""


def upkeep(holo: Holo, script: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, holo.home, "auto", "0", "", ""]
    return subprocess.Popen(command, env=holo.environment(), stdout=subprocess.PIPE, text=True)


def test_it_gives_way_to_whoever_waits(holo: Holo) -> None:
    """However long it would take; nor does it wait for anybody."""
    digest = record(holo, "env")
    running = upkeep(holo, STUCK)
    assert running.stdout is not None
    assert running.stdout.readline() == "locked\n"
    holo("record", holo.root / "env", "--name", "other", timeout=60)
    assert running.wait() == 0
    running.stdout.close()
    assert digest in {path.stem for path in (holo.library / "catalog").iterdir()}

    with locked_library(Library(str(holo.home), "auto"), exclusive=False):
        subprocess.run([*MODULE, holo.home, "auto", "0", "", ""], env=holo.environment(), check=True)
        assert catalogs(holo) == {"env", "other"}
    subprocess.run([*MODULE, holo.home, "auto", "0", "", ""], env=holo.environment(), check=True)
    assert catalogs(holo) == set()
    holo("check")


def test_spaces_whose_folder_or_worktree_is_gone_are_dropped(holo: Holo) -> None:
    digest = record(holo, "env")
    for name in ("stays", "lost"):
        holo("init", "--space", name, "env", "--to", holo.root / "projects" / name / ".venv")
    for name in ("built", "built-elsewhere", "default"):
        path = Path(holo("init", "--space", name, "env", "--json").json()["path"])
        folder = holo.root / ("projects" if name == "built" else "no-such-worktree")
        if name != "default":
            origin = Origin(str(folder / "requirements.txt"), True, digest, True)
            save_origin(Holotree(str(holo.home)), name, origin)
    shutil.rmtree(holo.root / "projects" / "lost")
    (holo.holotree / ".spaces" / "long-gone.lock").touch()
    elsewhere = holo("list", "--json").json()["spaces"]
    planned = holo("gc", "--missing", "--dry-run").stdout
    assert "would remove space built-elsewhere" in planned
    assert "would remove space lost" in planned
    assert holo("list", "--json").json()["spaces"] == elsewhere
    limits = ("--missing", "--keep-last", "0")
    planned, done = (holo("gc", *limits, *more, "--json").json() for more in (("--dry-run",), ()))
    for report in (planned, done):
        del report["dry_run"], report["seconds"]
    assert planned == done
    assert done["removed"]["locks"] == 3
    dropped = done["spaces"]
    assert [space["name"] for space in dropped] == ["built-elsewhere", "lost"]
    assert [space["name"] for space in holo("list", "--json").json()["spaces"]] == ["built", "default", "stays"]
    assert not Path(dropped[0]["path"]).exists()
    assert path.exists()


def test_trees_of_throw_away_environments_count(holo: Holo, filesystem: Filesystem) -> None:
    digest = record(holo, "env")
    tree = holo.holotree / f".ephemeral-{os.geteuid()}" / "trees" / digest
    trees.write(tree / "file", os.urandom(1 << 20))
    (tree.parent.parent).chmod(0o700)
    report = holo("gc", "--json").json()
    assert report["bytes"]["left"] > 1 << 20
    assert holo("gc", "--max-size", "2MB", "--json").json()["catalogs"] == []
    report = holo("gc", "--max-size", "900kB", "--json").json()
    assert [use["digest"] for use in report["catalogs"]] == [digest]
    assert report["removed"]["layers"] == 1
    assert report["bytes"]["freed"] > 1 << 20
    assert not tree.exists()
