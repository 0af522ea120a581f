"""Measure record and restore with every strategy on this disk, and copies by ``cp`` for comparison.

Whole commands are measured, from start to exit, as a user runs them. Everything is in one scratch folder below
HOLO_HOME, for that is the disk that counts. The measured tree is only read; ``cp`` works on a copy of it, since
``cp -al`` changes link counts and ctimes of its source.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from holo import platform
from holo.bench.commands import HOLO, Runner, shown
from holo.bench.sample import damage, generate, read_metadata
from holo.bench.scratch import scratch
from holo.checkout.strategy import Method
from holo.doctor.folders import filesystem_type
from holo.errors import HoloError, UsageError
from holo.hololib import Library
from holo.holotree import Holotree
from holo.home import Home
from holo.remove import remove_at
from holo.restore.deletion import delete
from holo.settings import Strategy
from holo.walk import directory_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    OnProgress = Callable[[int, int], object]

_ROUNDS = 3
_BLOCK = 4096

_COPYTREE = [sys.executable, "-c", "import shutil, sys; shutil.copytree(*sys.argv[1:], symlinks=True)"]
_PEERS = (
    (["cp", "-a", "--reflink=always"], Method.REFLINK),
    (["cp", "-al"], Method.HARDLINK),
)
_FULL_COPIES = (["cp", "-a", "--reflink=never"], ["cp", "-a"])
"""The first that works. Where a cp does not know the option, it does not clone either."""


@dataclass(frozen=True)
class BenchResult:
    """One command: the median of its times. ``used`` is how files were made; ``reason`` is why not as asked for."""

    name: str
    command: str
    used: str | None
    seconds: float
    files_per_second: float
    speedup: float
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "reason"}

    @property
    def is_holo(self) -> bool:
        return self.command.startswith("holo ")


@dataclass(frozen=True)
class BenchReport:
    """The result of :func:`measure`. Speed-ups are against ``baseline``, the full copy."""

    files: int
    bytes: int
    generated: bool
    filesystem: str
    results: list[BenchResult]
    baseline: str

    def to_json(self) -> dict[str, Any]:
        """The document that ``holo bench --json`` prints."""
        return {
            "tree": {"files": self.files, "bytes": self.bytes, "generated": self.generated},
            "filesystem": self.filesystem,
            "results": [result.to_json() for result in self.results],
        }


def measure(home: str, directory: str | None = None, on_progress: OnProgress | None = None) -> BenchReport:
    """Measure with ``directory``, or with a generated tree, on the filesystem of ``home``.

    Nothing is left below ``home``, however this ends, and what a killed one left is removed first. Raises
    :class:`~holo.bench.commands.Interrupted`, and :class:`HoloError` if a command fails.
    """
    if directory is not None:
        directory = directory_named(directory, "measure", "Name another, or none: `holo bench`.")
        real = os.path.realpath(directory)
        if os.path.commonpath([real, os.path.realpath(home)]) == real:
            raise UsageError(
                f"{directory} contains {home}, where the copies of it are made",
                "Name another directory, or another place with HOLO_HOME.",
            )
    with Runner() as runner, scratch(home) as folder:
        runner.folder = folder
        return _Bench(runner, directory, on_progress).run()


@dataclass
class _Timing:
    """One command and its seconds, round by round."""

    name: str
    kind: int
    """what it is to be shown together with"""
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    used: str | None = None
    reason: str | None = None


_MEASURED = [strategy for strategy in Strategy if strategy is not Strategy.OVERLAY]  # which only root can have


class _Bench:
    """One bench in its scratch folder, where ``tree`` is what is copied and ``home`` has the library."""

    def __init__(self, runner: Runner, directory: str | None, on_progress: OnProgress | None) -> None:
        self._runner = runner
        self._directory = directory
        self._on_progress = on_progress
        self._timings: dict[str, _Timing] = {}
        self._round = 0
        self._done = 0

    def run(self) -> BenchReport:
        if self._directory is None:
            generate(self._path("tree"), self._runner.check)
        recorded = json.loads(self._runner.run(self._record(), home="home")[1])
        files, size = recorded["files"], recorded["bytes"]
        self._expect_room(size + files * _BLOCK)
        self._peers = list(self._find_peers())
        if self._directory is not None:
            copy = _COPYTREE if self._peers[0][0] == _COPYTREE else ["cp", "-a"]
            self._runner.run([*copy, os.path.realpath(self._directory), "tree"])
        for self._round in range(_ROUNDS + 1):
            self._measure()
        return BenchReport(
            files=files,
            bytes=size,
            generated=self._directory is None,
            filesystem=filesystem_type(self._runner.folder),
            results=list(self._results(files)),
            baseline=_name(self._peers[0][0]),
        )

    def _measure(self) -> None:
        """Every command once. The first round warms up: caches, golden tree, link forms, bytecode of holo."""
        self._time("record", 0, self._record(), home="fresh")
        remove_at(self._path("fresh"))
        space = self._path("space")
        for strategy in _MEASURED:
            words = ["--space", "space", "--strategy", strategy.value, "--json"]
            self._time(f"init {strategy}", 1, [*HOLO, "init", "tree", "--to", "space", *words], home="home")
            files = read_metadata(space)
            self._time(f"restore {strategy}, pristine", 2, [*HOLO, "restore", *words], home="home")
            damage(files)
            self._time(f"restore {strategy}, damaged", 3, [*HOLO, "restore", *words], home="home")
            delete(Home(Library(self._path("home")), Holotree(self._path("home"))), "space")
        for command, used in self._peers:
            self._time(_name(command), 4, [*command, "tree", "copy"], used=used)
            remove_at(self._path("copy"))

    def _record(self) -> list[str]:
        return [*HOLO, "record", self._directory or "tree", "--name", "tree", "--skip-special", "--json"]

    def _time(self, name: str, kind: int, command: list[str], *, home: str = "", used: str | None = None) -> None:
        timing = self._timings.setdefault(name, _Timing(name, kind, command, used=used))
        self._settle()
        seconds, printed = self._runner.run(command, home=home)
        if self._round > 0:
            timing.seconds.append(seconds)
        if home:
            strategy = json.loads(printed).get("strategy", {})
            timing.used, timing.reason = strategy.get("used"), strategy.get("reason")
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, (_ROUNDS + 1) * (1 + 3 * len(_MEASURED) + len(self._peers)))

    def _results(self, files: int) -> Iterator[BenchResult]:
        full_copy = statistics.median(self._timings[_name(self._peers[0][0])].seconds)
        for timing in sorted(self._timings.values(), key=lambda timing: timing.kind):
            seconds = statistics.median(timing.seconds)
            yield BenchResult(
                name=timing.name,
                command=shown(timing.command),
                used=timing.used,
                seconds=round(seconds, 4),
                files_per_second=round(files / seconds, 1),
                speedup=round(full_copy / seconds, 2),
                reason=timing.reason,
            )

    # -- what is not measured ---------------------------------------------------------------------------------

    def _find_peers(self) -> Iterator[tuple[list[str], Method]]:
        """The copies that can be made here, tried with one small file; the full copy is the first."""
        os.mkdir(self._path("probe"))
        with open(self._path("probe/file"), "wb") as file:
            file.write(bytes(range(256)) * 32)
        yield next((command for command in _FULL_COPIES if self._works(command)), _COPYTREE), Method.COPY
        yield from ((command, used) for command, used in _PEERS if self._works(command))

    def _works(self, command: list[str]) -> bool:
        if shutil.which(command[0]) is None:
            return False
        try:
            self._runner.run([*command, "probe", "probed"])
        except HoloError:
            self._runner.check()  # it may have failed because it was interrupted
            return False
        finally:
            remove_at(self._path("probed"))
        return True

    def _expect_room(self, size: int) -> None:
        """Refuse to fill the disk: besides the library there are a copy of the tree, link forms and one more copy."""
        free = platform.free_space(self._runner.folder)
        if free < 3 * size:
            raise HoloError(
                f"measuring takes up to {3 * size / 1e6:,.0f} MB of disk, and {free / 1e6:,.0f} MB are free",
                "Name a smaller directory, or a place with more room with HOLO_HOME.",
            )

    def _settle(self) -> None:
        """Write out what the last command left unwritten, so that the next one does not pay for it."""
        with platform.closing(platform.open_root(self._runner.folder)) as directory:
            platform.sync_filesystem(directory)

    def _path(self, name: str) -> str:
        return os.path.join(self._runner.folder, name)


def _name(peer: list[str]) -> str:
    return "shutil.copytree" if peer == _COPYTREE else " ".join(peer)
