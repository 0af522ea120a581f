"""A clone is there as a whole or not at all, whatever happens: promise 2 of docs/reliability.md, for holo clone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_attacks import SECRET, state, swapping, tempt
from test_attacks import grow as grow_tree
from test_interrupt import EXPLANATION

from support import compare
from support.cli import Holo
from support.faults import CHANGES, OPENS, READS, Outcome, Supervisor
from support.filesystems import Filesystem, remove, subvolume
from support.forks import Forks
from support.scenarios import environment, spread
from support.trees import write

pytestmark = [pytest.mark.torture, pytest.mark.skipif(os.geteuid() != 0, reason="filesystems are mounted")]

Note = Callable[[int, str, int], None]

CASES = [
    *(("xfs", 1, False), ("xfs", 2, False), ("ext4", 1, True), ("ext4", 2, False)),
    *(("btrfs", 1, False), ("btrfs", 1, True), ("btrfs-snapshot", 1, False), ("btrfs-snapshot", 1, True)),
]
each_case = pytest.mark.parametrize(
    ("filesystem", "kind", "workers", "relocate"),
    [pytest.param(case[0].partition("-")[0], *case, id="-".join(map(str, case))) for case in CASES],
    indirect=["filesystem"],
)

_MAKES = (
    *(*OPENS, "write", "copy_file_range", "ioctl", "mkdir", "mkdirat", "rename", "renameat", "renameat2"),
    *("link", "linkat", "symlink", "symlinkat", "fsetxattr"),
)
_NAMED = tuple(name for name, (_, _, where) in {**CHANGES, **READS}.items() if where[0] != "f")
ERRORS: dict[int, tuple[tuple[str, ...], bool]] = {
    errno.EIO: ((*CHANGES, *READS), True),
    errno.ENOSPC: (_MAKES, False),
    errno.EDQUOT: (_MAKES, False),
    errno.EMFILE: (OPENS, True),
    errno.EACCES: (_NAMED, True),
    errno.EROFS: (tuple(name for name in CHANGES if name not in {"flock", "write"}), False),
    errno.EINTR: ((*OPENS, "read", "write", "ioctl", "flock", "copy_file_range"), True),
}


@dataclass
class Stage:
    """A tree, the place of its clone, and what else lies there."""

    supervisor: Supervisor
    cli: Holo
    source: Path
    copy: Path
    relocate: bool
    workers: int

    @classmethod
    def set(cls, supervisor: Supervisor, filesystem: Filesystem, kind: str, workers: int, relocate: bool) -> Stage:
        cli = Holo(filesystem.root)
        cli.settings.write_text(f"workers: {workers}\n")
        (filesystem.root / "s").mkdir()
        source = filesystem.root / "s" / "the-source-of-the-environment"
        if kind == "btrfs-snapshot":
            subvolume(source)
        environment(source, 1, files=60 if workers > 1 else 0)
        if kind == "btrfs-snapshot":
            write(subvolume(source / "void" / "inside") / "file", b"nested" * 2000)
        os.link(source / "links" / "first", source / "void" / "nested" / "third")
        write(filesystem.root / "s" / "a-users-file", "precious")
        stage = cls(supervisor, cli, source, filesystem.root / "s" / "copy", relocate, workers)
        stage.before = stage._theirs()
        return stage

    def _theirs(self) -> object:
        folder = self.source.parent
        file = (folder / "a-users-file").stat()
        return compare.snapshot(self.source), (file.st_ino, file.st_ctime_ns)

    def run(self, **fault: object) -> Outcome:
        arguments = ["clone", self.source, self.copy, "--json", *(["--relocate"] if self.relocate else [])]
        tune = {"holo.workers.treewalk._WORTH_A_FORK": 20}
        return self.supervisor.run(self.cli.root, arguments, self.cli.environment(), tune=tune, **fault)

    def clear(self) -> None:
        if self.copy.exists():
            remove(self.copy)

    def unlike(self) -> list[str]:
        old_new = {} if self.relocate else {"old": self.source, "new": self.source}
        return compare.differences(self.source, self.copy, **old_new)

    def left(self) -> set[str]:
        return set(os.listdir(self.source.parent)) - {self.source.name, "a-users-file", "copy"}

    def problems(self, outcome: Outcome, *, drafts: bool) -> list[str]:
        """In what the state is neither "there as a whole" nor "not at all"; ``drafts``: one may be left."""
        found = ["it hung"] if outcome.hung else []
        if "Traceback" in outcome.stderr or "mistake in holo" in outcome.stderr:
            found.append(f"not explained: {outcome.stderr}")
        if self._theirs() != self.before:
            found.append("the source or a user's file was touched")
        if os.path.lexists(self.copy):
            found += self.unlike()
        elif outcome.code == 0:
            found.append("there is no clone")
        left = self.left()
        if not drafts or any(not name.startswith(".holo-clone-") for name in left) or len(left) > 1:
            found += [f"left: {name}" for name in left]
        return found

    def again(self) -> list[str]:
        """In what the next clone to that place does not succeed, or does not clean up."""
        if os.path.lexists(self.copy):
            self.clear()
        outcome = self.run(watched=False)
        found = [f"again: exit {outcome.code}: {outcome.stderr}"] if outcome.code else self.unlike()
        return found + [f"left in the end: {name}" for name in self.left()]


@pytest.fixture
def stage(supervisor: Supervisor, filesystem: Filesystem, kind: str, workers: int, relocate: bool) -> Stage:
    return Stage.set(supervisor, filesystem, kind, workers, relocate)


@each_case
def test_killed_before_any_call(stage: Stage, torture: bool, faults: Note) -> None:
    whole = stage.run()
    assert whole.code == 0, whole
    assert stage.unlike() == []
    assert (max(call.process for call in whole.calls) > 0) == (stage.workers > 1)
    points = spread(len(whole.calls), (300 if stage.workers > 1 else len(whole.calls)) if torture else 4)
    faults(2, "holo clone, kill -9 before a file-system call", len(points))
    problems = []
    for number in points:
        stage.clear()
        kill = "one" if stage.workers > 1 and number % 2 else "group"
        outcome = stage.run(at=number, kill=kill)
        # A worker that was killed is noticed by its parent, which cleans up.
        found = stage.problems(outcome, drafts=outcome.code < 0) + stage.again()
        problems += [f"{kill} before call {number}, {outcome.calls[-1]}: {problem}" for problem in found]
    assert problems == []


@each_case
def test_an_error_of_any_call(
    stage: Stage, kind: str, workers: int, relocate: bool, torture: bool, faults: Note
) -> None:
    whole = stage.run(reads=True)
    assert whole.code == 0, whole
    tries = []
    for code, (names, reads) in ERRORS.items():
        total = sum(call.name in names and (reads or call.changes) for call in whole.calls)
        tries += [(code, number) for number in spread(total, 100 if torture and code == errno.EIO else 12)]
    if not torture:
        tries = tries[CASES.index((kind, workers, relocate)) :: 11]
    faults(2, "holo clone, an error instead of a file-system call", len(tries))
    problems = []
    for code, number in tries:
        names, reads = ERRORS[code]
        stage.clear()
        outcome = stage.run(at=number, error=code, reads=reads, only=names)
        where = outcome.calls[-1] if outcome.calls else None
        # What cannot be removed, because removing is what fails, is left for the next clone.
        drafts = where is not None and (".holo-clone-" in where.path or where.path == "s")
        found = stage.problems(outcome, drafts=drafts)
        settings = where is not None and where.path == "settings.yaml"
        if outcome.code not in ((0, 2) if settings else (0, 1)):
            found.append(f"exit {outcome.code}: {outcome.stderr}")
        elif outcome.code:
            errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
            if len(errors) != 1 or str(stage.cli.root) not in errors[0]:
                found.append(f"not one error that names a path: {outcome.stderr!r}")
        found += stage.again()
        problems += [f"{errno.errorcode[code]} from call {number}, {where}: {problem}" for problem in found]
    assert problems == []


@each_case
def test_interrupted_before_any_call(stage: Stage, torture: bool, faults: Note) -> None:
    whole = stage.run()
    points = spread(len(whole.calls), 60 if torture else 2)
    faults(2, "holo clone, Ctrl-C before a file-system call", len(points))
    problems = []
    for number in points:
        stage.clear()
        outcome = stage.run(at=number, kill="interrupt")
        found = stage.problems(outcome, drafts=False)
        if outcome.code != 0 and (outcome.code, outcome.stderr.strip()) != (130, EXPLANATION):
            found.append(f"exit {outcome.code}: {outcome.stderr}")
        if outcome.code != 0 and stage.copy.exists() and "renameat2" not in str(outcome.calls[-1]):
            found.append("it says that it was interrupted, and is there")
        problems += [f"call {number}, {outcome.calls[-1]}: {problem}" for problem in found + stage.again()]
    assert problems == []


# -- symlinks where there were directories ---------------------------------------------------------------------------


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
@pytest.mark.parametrize(("place", "relocate"), [("lib", False), ("lib/deep/er", False), ("lib", True)])
def test_symlinks_planted_all_the_time(
    filesystem: Filesystem, place: str, relocate: bool, torture: bool, faults: Note
) -> None:
    root = filesystem.root
    grow_tree(root).rename(root / "source")
    victim = tempt(root)
    before = state(victim)
    env = Holo(root).environment()
    forks = Forks()
    more = ["--relocate"] if relocate else []
    faults(7, "holo clone, symlinks exchanged for directories", 0)

    def pairs() -> Iterator[tuple[Path, Path]]:
        """A directory of the source, and of drafts beside it."""
        for tree in (root / "source", *root.glob(".holo-clone-*")):
            yield from [(tree / place, tree / f"{place}-trap")] * 2

    with swapping(pairs, victim) as count:
        for number in range(60 if torture else 2):
            forks("clone", root / "source", root / f"copy-{number}", *more, env=env, code=None)
        exchanges = int.from_bytes(count[:8], "little")
    forks.close()
    faults(7, "holo clone, symlinks exchanged for directories", exchanges)
    assert state(victim) == before
    assert exchanges > 0
    for path in root.glob("copy-*/**/*"):
        assert path.is_symlink() or not path.is_file() or SECRET not in path.read_bytes()
