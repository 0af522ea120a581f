"""Errors at any moment: a promise of docs/reliability.md (2), tried by answering each call with each errno."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import compare
from support.cli import Holo
from support.faults import CHANGES, OPENS, READS, Outcome, Supervisor
from support.filesystems import Filesystem
from support.scenarios import IN_BACKGROUND, SCENARIOS, Scenario, World, each_scenario, spread
from support.trees import settle, write

pytestmark = pytest.mark.torture

Note = Callable[[int, str, int], None]

_MAKES = (
    *(*OPENS, "write", "copy_file_range", "ioctl", "mkdir", "mkdirat", "rename", "renameat", "renameat2"),
    *("link", "linkat", "symlink", "symlinkat", "fsetxattr", "fsync", "syncfs", "mount"),
)
_NAMES = tuple(name for name, (_, _, where) in {**CHANGES, **READS}.items() if where[0] != "f")

# Per errno: the calls that may answer so, and whether those that only read are among them.
ERRORS: dict[int, tuple[tuple[str, ...], bool]] = {
    errno.EIO: ((*CHANGES, *READS), True),
    errno.ENOSPC: (_MAKES, False),
    errno.EDQUOT: (_MAKES, False),
    errno.EMFILE: (OPENS, True),
    errno.EACCES: (_NAMES, True),
    errno.EROFS: (tuple(name for name in CHANGES if name not in {"flock", "write", "fsync", "syncfs"}), False),
    errno.EINTR: ((*OPENS, "read", "write", "ioctl", "flock", "fsync", "syncfs", "copy_file_range"), True),
}


def wrong_with(scenario: Scenario, world: World, outcome: Outcome, whole: Outcome) -> list[str]:
    """In what the command did not say clearly that it failed, and does not do what it did without a fault either."""
    found = ["it hung"] if outcome.hung else []
    if "Traceback" in outcome.stderr or "mistake in holo" in outcome.stderr:
        found.append(f"not explained: {outcome.stderr}")
    settings = bool(outcome.calls) and outcome.calls[-1].path == "settings.yaml"
    if outcome.code == (2 if settings else 1):
        messages = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
        by_script = scenario.command[0] == "run"  # which may fail as well, and says so
        if not messages or str(world.root) not in messages[0] or (len(messages) > 1 and not by_script):
            found.append(f"not one error that names a path: {outcome.stderr!r}")
        if "\nhint: " not in outcome.stderr and not by_script:
            found.append(f"no hint: {outcome.stderr!r}")
    elif outcome.code == 0 and scenario.command[0] == IN_BACKGROUND:
        pass  # the next one does what this one could not
    elif outcome.code == 0 and scenario.command[0] == "gc" and outcome.calls[-1].path.endswith(".lock"):
        pass  # what cannot be locked stays, as what somebody else holds
    elif outcome.code == 0:
        found += scenario.undone(world)
        # Where the library takes no new file, it can be read all the same: that was tried, and the report says so.
        if not (outcome.calls and ".holo-probe-" in outcome.calls[-1].path):
            found += other_way(outcome.json(), whole.json(), from_bundle=scenario.name.endswith("-bundle"))
            # What the child meets that tries stubs out is the answer.
            is_answer = bool(outcome.calls) and outcome.calls[-1].process and "/stubs/" in outcome.calls[-1].path
            if world.has_stubs and not is_answer and not any(world.throw_away.glob("stubs/*/tree")):
                found.append("copied, although there could be stubs")
    elif outcome.code != 3 or scenario.command[0] not in ("check", "gc"):  # which say so of what they could not read
        found.append(f"exit {outcome.code}: {outcome.stderr}")
    return found


def other_way(report: dict[str, Any], usual: dict[str, Any], *, from_bundle: bool) -> list[str]:
    """Whether files got into a space in another way than usual: an error is no reason to copy."""
    if "strategy" not in usual:
        return []
    found = []
    ways = usual["strategy"]["used"], report["strategy"]["used"]
    if ways[0] != ways[1] and ways != ("snapshot", "reflink"):  # a golden tree is made or not, as documented
        found.append(f"used {ways[1]}, not {ways[0]}")
    # What could not be looked at is made again, and relocated files among it are copies; of a bundle, small ones too.
    most = usual["files"]["copied"] + usual["files"]["relocated"]
    if from_bundle and report["files"]["reflinked"] >= usual["files"]["reflinked"]:
        return found
    if ways[0] != "copy" and report["files"]["copied"] > most:
        found.append(f"copied: {report['files']}")
    return found


@each_scenario()
def test_an_error_of_any_call(
    scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor, torture: bool, faults: Note
) -> None:
    world = scenario.world(supervisor, filesystem)
    scenario.prepare(world)
    whole = scenario.run(world, reads=True)
    assert whole.code == 0, whole
    tries = []
    for code, (names, reads) in ERRORS.items():
        total = sum(call.name in names and (reads or call.changes) for call in whole.calls)
        tries += [(code, number) for number in spread(total, 150 if torture and code == errno.EIO else 12)]
    if not torture:
        tries = tries[SCENARIOS.index(scenario) % 29 :: 29]
    faults(2, "an error instead of a file-system call", len(tries))
    problems = []
    for code, number in tries:
        names, reads = ERRORS[code]
        scenario.prepare(world)
        before = world.observe()
        outcome = scenario.run(world, at=number, error=code, reads=reads, only=names)
        found = wrong_with(scenario, world, outcome, whole) + world.broken(before)
        if number % 2:
            found += world.recover()
        found += scenario.repeat(world)
        where = outcome.calls[-1] if outcome.calls else "nothing"
        problems += [f"{errno.errorcode[code]} from call {number}, {where}: {problem}" for problem in found]
    assert problems == []


@each_scenario("delete-btrfs", "delete-ext4")
def test_a_full_disk_does_not_keep_a_space_from_being_deleted(
    scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor
) -> None:
    world = scenario.world(supervisor, filesystem)
    for number in range(1, 4):  # each write of who holds the lock, and of the mark
        scenario.prepare(world)
        outcome = scenario.run(world, at=number, error=errno.ENOSPC, only=["write"])
        assert outcome.code == 0, outcome
        assert scenario.undone(world) == []


@each_scenario("init-force-xfs")
def test_unreadable_directory_is_made_anew_with_its_content(
    scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor
) -> None:
    world = scenario.world(supervisor, filesystem)
    scenario.prepare(world)
    asked = [call for call in scenario.run(world, reads=True).calls if call.name == "newfstatat"]
    at = next(number for number, call in enumerate(asked, 1) if call.path == "s/space/void")
    scenario.prepare(world)
    outcome = scenario.run(world, at=at, error=errno.EACCES, reads=True, only=["newfstatat"])
    assert outcome.calls[-1].path == "s/space/void"
    assert outcome.code == 0, outcome
    assert scenario.undone(world) == []


@each_scenario("init-elsewhere-btrfs")
def test_unreadable_folder_is_not_taken_for_missing(
    scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor
) -> None:
    """Or the strategy would be that of the folder above, which is on another filesystem."""
    world = scenario.world(supervisor, filesystem)
    for _ in range(2):  # the first makes folders that stay
        scenario.prepare(world)
        whole = scenario.run(world, reads=True)
    asked = [call for call in whole.calls if call.name == "newfstatat"]
    for at in [number for number, call in enumerate(asked, 1) if call.path == "s"]:
        scenario.prepare(world)
        scenario.run(world)  # the one before has failed, and removed the lock that it had made
        scenario.prepare(world)
        outcome = scenario.run(world, at=at, error=errno.EIO, reads=True, only=["newfstatat"])
        assert outcome.calls[-1].path == "s"
        assert outcome.code == 1 or outcome.json()["strategy"]["used"] == "copy", outcome


@each_scenario("record-ext4")
def test_unreadable_library_is_named(scenario: Scenario, filesystem: Filesystem, supervisor: Supervisor) -> None:
    world = scenario.world(supervisor, filesystem)
    scenario.prepare(world)
    whole = scenario.run(world, reads=True)
    asked = [call.path for call in whole.calls if call.name == "newfstatat"]
    assert "home/hololib/library" in asked
    for at in [at for at, path in enumerate(asked, 1) if path == "home/hololib/library"]:
        scenario.prepare(world)
        outcome = scenario.run(world, at=at, error=errno.EIO, reads=True, only=["newfstatat"])
        assert wrong_with(scenario, world, outcome, whole) == []


# -- limits of the process ------------------------------------------------------------------------------------------


def wide(root: Path) -> Path:
    """Many directories beside each other, more than there may be open files."""
    for number in range(150):
        write(root / f"folder-{number % 10}" / f"{number}" / "file", f"{root} {number}\n")
        write(root / f"folder-{number % 10}" / f"{number}" / "plain", f"{number}\n" * 30)
    return settle(root)


def deep(root: Path) -> Path:
    """More directories inside each other than there may be open files."""
    write(root.joinpath(*map(str, range(100))) / "file", "at the bottom")
    return settle(root)


def large(root: Path) -> Path:
    """One file larger than files may become."""
    write(root / "large", os.urandom(300_000))
    for number in range(20):
        write(root / "small" / f"{number}", f"{number}\n" * 20)
    return settle(root)


def limited(holo: Holo, limit: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["prlimit", limit, sys.executable, "-m", "holo", *arguments],
        env=holo.environment(),
        cwd=holo.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
@pytest.mark.parametrize(
    ("limit", "make", "must_work"),
    [("--nofile=64", wide, True), ("--nofile=64", deep, False), ("--fsize=100000", large, False)],
    ids=["few-files-wide", "few-files-deep", "small-files"],
)
def test_exhausted_process_limits_are_one_error(
    holo: Holo,
    filesystem: Filesystem,
    limit: str,
    make: Callable[[Path], Path],
    must_work: bool,
    torture: bool,
    faults: Note,
) -> None:
    """With few descriptors, or small files only, a command works or says in one line why not."""
    source = make(holo.root / "the-source-of-it")
    copy = holo.root / "space"
    for strategy in ("smart", "hardlink", "copy") if torture else ("smart",):
        for command in (
            ["record", source, "--name", "env"],
            ["init", "--space", "s", "env", "--to", copy, "--strategy", strategy],
            ["restore", "--space", "s", "--verify", "--strategy", strategy],
            ["delete", "--space", "s"],
        ):
            faults(2, "a limit of the process (descriptors, size of a file)", 1)
            done = limited(holo, limit, *command)
            if must_work or done.returncode == 0:
                assert done.returncode == 0, done.stderr
            else:
                errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
                assert done.returncode == 1, done.stderr
                assert len(errors) == 1, done.stderr
                assert str(holo.root) in errors[0]
                holo(*command)
            if command[0] in {"init", "restore"}:
                assert compare.differences(source, copy, library=holo.library / "links") == []
        assert not copy.exists()
        holo("catalogs", "--remove", "env")


def test_every_errno_is_tried_somewhere() -> None:
    """The names above are of calls that holo makes: a fault that hits nothing would prove nothing."""
    assert set(itertools.chain(*(names for names, _ in ERRORS.values()))) <= {*CHANGES, *READS}
