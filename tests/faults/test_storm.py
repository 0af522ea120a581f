"""Many processes on one library, doing everything at once: nothing fails but what somebody else removed."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
import zstandard

from holo.cli.commands import load_all
from holo.digest import of
from support import compare, filesystems, trees
from support.cli import Holo
from support.filesystems import Filesystem
from support.forks import Forks

pytestmark = [
    pytest.mark.torture,
    pytest.mark.parametrize("filesystem", ["btrfs", "ext4", "xfs"], indirect=True),
]

COMMANDS: Any = typer.main.get_command(load_all()).commands  # type: ignore[attr-defined]
PROCESSES = 8
SECONDS = {"btrfs": 4, "ext4": 2, "xfs": 2}
LONG_SECONDS = 60
SOURCES = ("ant", "bee", "cat")
STRATEGIES = ("smart", "reflink", "hardlink", "copy")
SHARED_SPACES = ("shared-1", "shared-2")
SHARED_MOUNT = "shared-mounted"

REMOVED_BY_ANOTHER = re.compile(
    r"error: (there is no catalog '[a-z]+' in .*"
    r"|catalog [0-9a-f]{12} is not in .* any more"
    r"|there is no space '[a-z0-9-]+' in .*"
    r"|commands run in throw-away environments over .*"
    r"|space '[a-z0-9-]+' holds catalog [a-z]+ \([0-9a-f]{12}\), not [a-z]+ \([0-9a-f]{12}\))\nhint: .*"
)
"""The only failures there may be: what one process asks for, another has removed, uses, or put something else there."""


def make_source(root: Path, name: str) -> Path:
    """A tree like an environment: much that all of them have, and something of its own."""
    randomly = random.Random(1)
    for number in range(30):
        content = randomly.randbytes(randomly.choice((0, 100, 5_000, 40_000)))
        trees.write(root / f"lib-{number % 7}" / f"file-{number}", content, mode=randomly.choice((0o644, 0o755, 0o444)))
    for number in range(120):
        trees.write(root / f"{name}-{number % 5}" / f"file-{number}", f"{name} {number}\n" * 200)
    trees.write(root / "bin" / "tool", f"#!/bin/sh\necho {root}\n", mode=0o755)
    trees.write(root / "lib-1" / "binary", b"\0" + os.fsencode(root) + b"/lib\0" + bytes(300_000))
    os.symlink(f"{root}/bin/tool", root / "bin" / "other")
    os.symlink("lib-1", root / "lib")
    os.link(root / "lib-1" / "file-1", root / "lib-1" / "linked")
    return trees.settle(root)


class Process:
    """One of the processes: random commands, one after the other."""

    def __init__(
        self, holo: Holo, number: int, sources: dict[str, Path], origins: dict[str, Path], snapshots: bool
    ) -> None:
        """``sources`` by their names, ``origins`` by the digests of their catalogs."""
        self._snapshots = snapshots
        self._holo = holo
        self._random = random.Random(number)
        self._own = [f"own-{number}-{letter}" for letter in "ab"]
        self._mounted = f"mounted-{number}"
        self._sources = sources
        self._origins = origins
        self._forks = Forks()
        self.done: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def is_ready(self) -> bool:
        return self._forks.run("--version", env=self._holo.environment()).code == 0

    def close(self) -> None:
        self._forks.close()

    def work(self, until: float, over: threading.Event) -> None:
        actions = [
            *[self.record] * 4,
            *[self.init] * 5,
            *[self.restore] * 3,
            *[self.damage] * 3,
            *[self.look] * 2,
            *[self.collect] * 4,
            *[self.delete] * 2,
            *[self.remove] * 4,
            *[self.repair, self.run_in_it, self.clone],
            *[self.throw_away] * 2,
            *[self.spare] * 2,
            *[self.mount] * 3 * (os.geteuid() == 0),
        ]
        try:
            while time.monotonic() < until and not over.is_set():
                self._random.choice(actions)()
        except BaseException as failure:  # noqa: BLE001 - shown by the test
            self.failure = failure
            over.set()

    def run(self, *arguments: str) -> Any:
        """The document that a command printed; ``None`` if it asked for something that another removed."""
        env, cwd = self._holo.environment(), self._holo.root
        result = self._forks.run(*arguments, "--json", env=env, cwd=cwd, memory=0, seconds=0)
        self.done[arguments[0]] += 1
        stderr = re.sub(r"^(waiting|warning:) .*\n", "", result.stderr, flags=re.MULTILINE)
        if result.code == 1 and REMOVED_BY_ANOTHER.fullmatch(stderr.strip()):
            self.done["refused"] += 1
            return None
        assert result.code == 0, f"holo {' '.join(arguments)}: exit {result.code}\n{result.stdout}{stderr}"
        assert stderr == ""
        return result.json()

    def source(self) -> str:
        return self._random.choice(SOURCES)

    def space(self) -> str:
        return self._random.choice((*self._own, *self._own, *SHARED_SPACES))

    def how(self) -> list[str]:
        verify = ["--verify"] if self._random.random() < 0.2 else []
        return ["--strategy", self._random.choice(STRATEGIES), *verify]

    def record(self) -> None:
        self.run("record", str(self._sources[self.source()]))

    def init(self) -> None:
        force = ["--force"] if self._random.random() < 0.5 else []
        name = self.source()
        source = self._random.choice((name, name, str(self._sources[name])))
        self.check(self.run("init", "--space", self.space(), source, *self.how(), *force))

    def restore(self) -> None:
        other = ["--catalog", self.source()] if self._random.random() < 0.3 else []
        self.check(self.run("restore", "--space", self.space(), *self.how(), *other))

    def damage(self) -> None:
        """Change a space that nobody else uses, and have it restored."""
        name = self._random.choice(self._own)
        found = next((item for item in self.run("list")["spaces"] if item["name"] == name), None)
        if found is None:
            return
        root = Path(found["path"])
        trees.write(root / "new" / "file", "new")
        files = sorted(path for path in root.rglob("file-*") if path.is_file() and not path.is_symlink())
        for path in self._random.sample(files, min(6, len(files))):
            damage = self._random.randrange(4)
            if damage == 0 or path.stat().st_nlink > 1:  # what is linked is also another's
                path.unlink()
            elif damage == 1:
                path.write_bytes(b"damaged")
            elif damage == 2:
                path.chmod(0o700)
            else:
                path.unlink()
                path.mkdir()
        self.check(self.run("restore", "--space", name, *self.how()))

    def check(self, report: Any) -> None:
        """A space of one's own is now what was asked for. (What hardlinks share is compared in the end, in peace.)"""
        if (
            report is not None
            and report["space"] in (*self._own, self._mounted)
            and report["strategy"]["used"] != "hardlink"
        ):
            assert compare.differences(self._origins[report["digest"]], Path(report["path"])) == []

    def collect(self) -> None:
        policy = self._random.choice(
            ((), (), ("--dry-run",), ("--keep-last", "1"), ("--max-size", "200k"), ("--keep-days", "0"))
        )
        self.run("gc", *policy)

    def spare(self) -> None:
        """Keep some, which commands and processes in the background then make, take and give back."""
        name, count = self.source(), self._random.choice("0012")
        if not self._snapshots:  # where none is of use
            self.run("spares", name, "--keep", count)

    def delete(self) -> None:
        self.run("delete", "--space", self.space())

    def remove(self) -> None:
        self.run("catalogs", "--remove", self.source())

    def repair(self) -> None:
        report = self.run("check", "--repair")
        assert report["problems"] == []

    def run_in_it(self) -> None:
        self.run("run", "--space", self._random.choice(self._own), "--", "sh", "-c", "echo {}")

    def clone(self) -> None:
        """Of a space that nobody else changes."""
        name = self._random.choice(self._own)
        found = next((item for item in self.run("list")["spaces"] if item["name"] == name), None)
        if found is not None:
            space = Path(found["path"])
            copy = Path(self.run("clone", str(space), str(self._holo.root / f"clone-of-{name}"))["path"])
            assert compare.differences(space, copy, old=space, new=space) == []
            filesystems.remove(copy)

    def throw_away(self) -> None:
        script = 'cd "$HOLO_SPACE_PATH" && bin/tool > new && cat lib-1/* > all && rm -r lib-* bin && echo {}'
        command = ["--space", self.space(), "--catalog", self.source(), "--", "sh", "-c", script]
        self.run("run", "--ephemeral", *command)

    def mount(self) -> None:
        """A space that is a mount is made, changed, made another, run over and deleted."""
        own = self._random.random() < 0.7
        name = self._mounted if own else SHARED_MOUNT
        report = self.run("init", "--space", name, self.source(), "--strategy", "overlay", "--force")
        self.check(report)
        if report is not None and own:
            space = Path(report["path"])
            (space / "lib-1" / "file-1").unlink()
            (space / "lib-2").rename(space / "lib-new")
            self.check(self.run("restore", "--space", name))
        if self._random.random() < 0.5:
            self.run("run", "--ephemeral", "--space", name, "--", "sh", "-c", "rm -r $HOLO_SPACE_PATH/lib-1; echo {}")
        if self._random.random() < 0.5:
            self.run("delete", "--space", name)

    def look(self) -> None:
        commands = [("list",), ("catalogs",), ("restore", "--space", self.space(), "--dry-run")]
        if "check" in COMMANDS:
            commands.append(("check",))
        self.run(*self._random.choice(commands))


def test_concurrent_commands_fail_only_for_what_others_removed(
    holo: Holo, filesystem: Filesystem, torture: bool, faults: Callable[[int, str, int], None]
) -> None:
    # The path is longer than a space's, so that binaries can be patched.
    sources = {name: make_source(holo.root / ("sources".ljust(100, "-")) / name, name) for name in SOURCES}
    origins = {holo("record", source, "--json").json()["digest"]: source for source in sources.values()}
    processes = [Process(holo, number, sources, origins, filesystem.name == "btrfs") for number in range(PROCESSES)]
    try:
        assert all(process.is_ready() for process in processes)
        until = time.monotonic() + (LONG_SECONDS if torture else SECONDS[filesystem.name])
        over = threading.Event()
        threads = [threading.Thread(target=process.work, args=(until, over)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = sum((process.done for process in processes), Counter[str]())
        what = f"commands of {PROCESSES} processes at once, {filesystem.name}"
        faults(6, what, done.total() - done["refused"])
        for process in processes:
            if process.failure is not None:
                raise process.failure
        assert all(process.done for process in processes)
        is_valid(holo)
        check_the_end(holo, processes[0].run, origins)
    finally:
        for process in processes:
            process.close()


def check_the_end(holo: Holo, run: Callable[..., Any], origins: dict[str, Path]) -> None:
    """No garbage that gc does not know; and when all catalogs are there again, every space is brought back."""
    report = run("gc")
    assert report["removed"]["drafts"] == 0, "nobody was killed"
    assert report["unknown"] == []
    is_valid(holo)
    for source in origins.values():
        run("record", str(source))
    for digest in origins:
        run("spares", digest, "--keep", "0")
    while run("spares")["filling"]:
        time.sleep(0.1)
    run("gc")
    spaces = run("list")["spaces"]
    for space in spaces:
        assert run("restore", "--space", space["name"])
        assert compare.differences(origins[space["digest"]], Path(space["path"]), library=holo.library) == []
        if os.path.ismount(space["path"]):
            run("delete", "--space", space["name"])
    throw_away = holo.holotree / f".ephemeral-{os.geteuid()}"
    assert list(throw_away.glob("spaces/*")) == []
    assert list(throw_away.glob("runs/*")) == []
    folders = {path for path in holo.holotree.iterdir() if path != throw_away and path.name != ".spaces"}
    spares = holo.holotree / f".sp-{os.geteuid()}"
    assert not spares.exists() or {path.name[:1] for path in spares.iterdir()} == {"."}
    folders.discard(spares)
    assert folders == {Path(space["path"]) for space in run("list")["spaces"]}


def is_valid(holo: Holo) -> None:
    """Every catalog and every blob is what its name says, and every catalog has all its blobs."""
    there = set()
    for path in (holo.library / "library").glob("*/*"):
        content = path.read_bytes()
        if path.suffix == ".zst":
            content = zstandard.decompress(content) if content else content
        assert of(content) == path.stem, path
        there.add(path.stem)
    for path in (holo.library / "catalog").iterdir():
        document = path.read_bytes()
        assert of(document) == path.stem, path
        for folder in json.loads(document)["directories"]:
            assert {row[4] for row in folder[3]} <= there
