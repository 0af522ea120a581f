"""Fixtures for all tests: real filesystems, every strategy, and holo as a command."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import filesystems, venvs
from support.cli import Holo
from support.faults import Supervisor
from support.filesystems import Filesystem, Mounts
from support.forks import ForkedHolo, Forks, User
from support.machines import Machine, Make
from support.remotes import Places

STRATEGIES = ("smart", "reflink", "hardlink", "copy")

_numbers = itertools.count(1)


_PLACES = ("PYTHONPATH", "PYTHONHOME")
"""Variables that say where to find Python and holo."""


def _start_afresh() -> None:
    """Undo what the tests, and all that they start, would inherit from whoever starts them.

    A background job ignores SIGINT and SIGQUIT, nohup has SIGHUP ignored, and other parents ignore or block others.
    """
    by_python = {signal.SIGPIPE, signal.SIGXFSZ}  # which it ignores itself, and subprocess does not hand on
    for number in signal.valid_signals() - by_python:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    for name in ("NO_PROXY", "no_proxy"):  # the tests' servers are on this machine, where no proxy leads
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost", "127.0.0.1"]))
    for name in [name for name in os.environ if name.startswith("PYTHON") and name not in _PLACES]:
        del os.environ[name]


_start_afresh()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="the long form of the tests of reliability")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The platform layer of macOS and Windows is tried with one strategy that shares, and with one that does not."""

    def is_wanted(item: pytest.Item) -> bool:
        chosen = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        return chosen.get("filesystem") != "portable" or chosen.get("strategy") in ("smart", "copy", None)

    items[:] = filter(is_wanted, items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of docs/reliability.md: what every promise went through in this run, and what was lost."""
    tried: Counter[tuple[int, str]] = Counter()
    lost: Counter[tuple[int, str]] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            rows = {(promise, what): count for key, (promise, what, count) in report.user_properties if key == "faults"}
            tried.update(rows)
            lost.update(rows.keys() if outcome == "failed" else ())
    if tried:
        terminalreporter.write_line("| promise | test | faults tried | losses |\n| --- | --- | --- | --- |")
        for (promise, what), count in sorted(tried.items()):
            terminalreporter.write_line(f"| {promise} | {what} | {count:,} | {lost[promise, what]} |")


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Holo, loaded once: each command is a fork of it."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def torture(request: pytest.FixtureRequest) -> bool:
    """Whether to try everything, which takes long, or a sample."""
    return bool(request.config.getoption("--torture"))


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Callable[[int, str, int], None]:
    """``faults(promise, what, count)`` notes for the table at the end that ``count`` more faults are tried.

    ``promise`` is the number in docs/reliability.md. A test that fails after that is a loss in each of its rows, so
    it is said before whatever may fail: with a count of 0 where it is not known yet.
    """
    rows: dict[tuple[int, str], list[Any]] = {}

    def note(promise: int, what: str, count: int) -> None:
        if (promise, what) not in rows:
            rows[promise, what] = [promise, what, 0]
            request.node.user_properties.append(("faults", rows[promise, what]))
        rows[promise, what][2] += count

    return note


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """Runs holo with a fault at an exact moment."""
    supervisor = Supervisor()
    try:
        yield supervisor
    finally:
        supervisor.close()


@pytest.fixture(scope="session")
def places() -> Iterator[Places]:
    """Remotes, with the servers that they need."""
    with tempfile.TemporaryDirectory(prefix="holo-remotes-") as folder:
        places = Places(Path(folder))
        try:
            yield places
        finally:
            places.close()


@pytest.fixture(scope="session")
def mounts() -> Iterator[Mounts]:
    """Filesystems of this process, made on demand. The path is short, for relocated paths are compared."""
    with tempfile.TemporaryDirectory(prefix="holo-") as workspace:
        mounts = Mounts(Path(workspace).resolve())
        try:
            yield mounts
        finally:
            mounts.close()


@pytest.fixture(params=filesystems.NAMES)
def filesystem(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[Filesystem]:
    """A fresh empty folder on each filesystem in turn, deleted afterwards.

    A test to which the filesystem does not matter asks for the one of the temporary folder:
    `@pytest.mark.parametrize("filesystem", ["local"], indirect=True)`.
    """
    root = mounts.get(request.param) / f"{next(_numbers):04d}"
    root.mkdir()
    try:
        name = request.param.removesuffix(filesystems.ALONE)
        yield Filesystem(name, root, filesystems.reflinks(root), filesystems.xattrs(root))
    finally:
        filesystems.remove(root)


@pytest.fixture
def machine(mounts: Mounts, forks: Forks) -> Iterator[Make]:
    """``machine(filesystem)`` is a home, and has nothing yet."""
    made: list[Path] = []

    def make(name: str, user: User | None = None) -> Machine:
        root = mounts.get(name) / f"m-{os.urandom(4).hex()}"
        root.mkdir()
        made.append(root)
        return Machine(root, forks, user)

    yield make
    for root in made:
        filesystems.remove(root)


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    """Each strategy in turn."""
    name: str = request.param
    return name


@pytest.fixture
def holo(filesystem: Filesystem, forks: Forks) -> Holo:
    """The command line, with a HOLO_HOME of its own on the filesystem under test."""
    return ForkedHolo(filesystem.root, forks)


@pytest.fixture(scope="session")
def real_venv_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtualenv as pip makes it, with numpy and rich, compiled. Built once; record it, never change it.

    Scripts and configuration hold its path, so it is used where it stands.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # one for all workers
    source, done = base / "real-venv", base / "real-venv.done"
    with (base / "real-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            venvs.make(source)
            done.touch()
    return source
