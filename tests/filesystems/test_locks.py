"""Locks: who waits for whom, and for how long."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holo import HoloError
from holo.hololib import Library
from holo.hololib.locks import InUseError, locked
from holo.hololib.recovery import locked_library
from support import trees
from support.cli import Holo

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

SOMEBODY = 54_321


@contextmanager
def holding(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def space(holo: Holo) -> Path:
    """A space called "one"; returns the file of its lock."""
    holo("record", trees.small(holo.root / "sources" / "env"), "--name", "env")
    holo("init", "--space", "one", "env")
    return holo.holotree / ".spaces" / "one.lock"


@local
def test_a_lock_whose_file_was_removed_is_no_lock(holo: Holo) -> None:
    path = space(holo)
    with holding(path):
        waiting = holo.start("restore", "--space", "one")
        assert waiting.stderr is not None
        assert "waiting" in waiting.stderr.readline()
        path.unlink()
        successor = holding(path)
        successor.__enter__()
    time.sleep(0.3)
    assert waiting.poll() is None, "believed a lock that others cannot see"
    successor.__exit__(None, None, None)
    waiting.communicate(timeout=30)
    assert waiting.returncode == 0


@local
def test_a_killed_holder_holds_nothing(holo: Holo) -> None:
    path = space(holo)
    code = f"import fcntl, time; f = open({str(path)!r}); fcntl.flock(f, 2); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = holo.start("restore", "--space", "one")
    assert waiting.stderr is not None
    assert "waiting for space 'one'" in waiting.stderr.readline()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    waiting.communicate(timeout=30)
    assert waiting.returncode == 0


@local
def test_who_waits_is_told_for_whom(holo: Holo) -> None:
    library = Library(str(holo.home))
    told: list[str] = []

    def note(message: str) -> None:
        told.append(message)
        raise InUseError

    def try_to_lock() -> None:
        with locked_library(library, exclusive=True, on_wait=note):
            pass

    with locked_library(library, exclusive=True):
        with pytest.raises(InUseError):
            try_to_lock()
        assert f"in use by process {os.getpid()} for 0 s" in told[-1]
    with locked_library(library, exclusive=False), locked_library(library, exclusive=False, on_wait=note):
        with pytest.raises(InUseError):
            try_to_lock()
        assert "in use by another process" in told[-1], "who had it before has gone"
    try:
        with locked_library(library, exclusive=True):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        try_to_lock()


@local
def test_who_wants_it_alone_is_not_kept_waiting_by_others_that_overlap(holo: Holo) -> None:
    library = Library(str(holo.home))
    over = threading.Event()

    def share(delay: float) -> None:
        time.sleep(delay)
        while not over.is_set():
            with locked_library(library, exclusive=False, on_wait=lambda _: None):
                time.sleep(0.1)

    fleet = [threading.Thread(target=share, args=(number * 0.025,)) for number in range(4)]
    for thread in fleet:
        thread.start()
    try:
        time.sleep(0.15)
        started = time.monotonic()
        for _ in range(3):
            with locked_library(library, exclusive=True, on_wait=lambda _: None):
                pass
        assert time.monotonic() - started < 20  # most often below one second; without the pending lock, for ever
    finally:
        over.set()
        for thread in fleet:
            thread.join()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # xdist has threads; the child needs none
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_lock_file_of_somebody_else_can_be_locked(holo_folder: Path) -> None:
    path = holo_folder / "lock"
    path.touch(0o644)
    child = os.fork()
    if child == 0:
        os.setuid(SOMEBODY)
        code = 1
        try:
            for exclusive in (False, True):
                with locked(str(path), "it", exclusive=exclusive, wait=False):
                    pass
            path.with_name("new").touch()
        except PermissionError:
            code = 0  # so it was somebody else
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def holo_folder(tmp_path: Path) -> Path:
    """A folder that everybody may look into."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


def test_a_symlink_is_no_lock_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(HoloError, match="lock"), locked(str(tmp_path / "lock"), "it", exclusive=True):
        pass
    assert not target.exists()


@pytest.mark.parametrize("home", ["a file/home", "/proc/nothing"])
def test_where_no_library_can_be(holo_folder: Path, home: str) -> None:
    (holo_folder / "a file").touch()
    with (
        pytest.raises(HoloError) as caught,
        locked(str(holo_folder / home / "lock"), "the library", exclusive=True),
    ):
        pass
    assert "HOLO_HOME" in (caught.value.hint or "")
