"""Many tasks over several processes: nothing lost, nothing left behind, and one error that says what happened."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holo.errors import CatalogInvalid, Conflict, HoloError, IntegrityError, SourceChanged
from holo.remote.store import Interrupted
from holo.workers import pool

# The threads that Python 3.12 warns of are the test runner's, and hold no lock that a child takes.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

linux = pytest.mark.skipif(sys.platform != "linux", reason="workers are processes on Linux only")

WORKERS = [1, 2, 5]


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test runner has threads of its own, which a fork here does not care about."""
    if threading.active_count() > 1:
        monkeypatch.setattr(threading, "active_count", lambda: 1)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = _left() if sys.platform == "linux" else set()
    yield
    if sys.platform == "linux":
        assert _left() <= before


def _left() -> set[str]:
    """Open descriptors and children, zombies as well. Other tests' fixtures have some."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return {*os.listdir("/proc/self/fd"), *(f"child {number}" for number in children.split())}


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """A deadlock fails the test instead of hanging it."""

    def fail(_signal: int, _frame: object) -> None:
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def square(number: int) -> int:
    return number * number


def process(_task: object) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("count", [0, 1, 2, 7, 500])
def test_every_task_is_done_once(workers: int, count: int) -> None:
    results = list(pool.run(square, range(count), workers))
    assert sorted(results) == [number * number for number in range(count)]


def test_one_worker_works_in_order_and_here() -> None:
    assert list(pool.run(square, range(100), 1)) == [number * number for number in range(100)]
    assert list(pool.run(process, range(3), 1)) == [os.getpid()] * 3
    assert list(pool.run(process, range(1), 8)) == [os.getpid()]


@linux
def test_several_workers_are_processes(tmp_path: Path) -> None:
    """Each task waits until all have begun, so none of them can do two."""

    def meet(task: int) -> int:
        (tmp_path / str(task)).touch()
        while len(os.listdir(tmp_path)) < 3:
            time.sleep(0.001)
        return os.getpid()

    with at_most(20):
        processes = list(pool.run(meet, range(3), 3))
    assert len({os.getpid(), *processes}) == 4


@linux
def test_results_come_as_they_are_ready(tmp_path: Path) -> None:
    def wait(task: int) -> int:
        while task == 0 and not os.listdir(tmp_path):
            time.sleep(0.001)
        return task

    with at_most(20):
        results = pool.run(wait, range(20), 2)
        assert [next(results) for _ in range(19)] == list(range(1, 20))
        (tmp_path / "go").touch()
        assert list(results) == [0]


@linux
@pytest.mark.parametrize("count", [16_384, 16_385, 50_001])
def test_more_tasks_than_the_queue_holds(count: int) -> None:
    with at_most(20):
        results = list(pool.run(int, range(count), 2))
    assert len(results) == count
    assert set(results) == set(range(count))


@linux
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="takes root to become another user")
def test_a_user_with_many_pipes_has_small_ones() -> None:
    """pipe(7): beyond pipe-user-pages-soft a new pipe holds two pages. Filling it must not block."""
    child = os.fork()
    if not child:
        status = 1
        try:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
            os.setgid(54_321)
            os.setuid(54_321)
            signal.alarm(10)
            for _ in range(1100):
                os.pipe()
            done = sum(1 for _ in pool.run(int, range(20_000), 2))
            status = 0 if done == 20_000 else 2
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code != -signal.SIGALRM, "it blocked"
    assert code == 0


@linux
def test_large_results_arrive_whole() -> None:
    def many(task: int) -> bytes:
        return bytes([task]) * (3 << 20)

    with at_most(20):
        results = list(pool.run(many, range(6), 3))
    assert sorted(result[0] for result in results) == list(range(6))
    assert {len(result) for result in results} == {3 << 20}
    assert all(result == bytes([result[0]]) * (3 << 20) for result in results)


@linux
def test_tasks_are_not_pickled() -> None:
    tasks: list[Callable[[], int]] = [lambda n=n: n for n in range(10)]
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(tasks[0])
    assert sorted(pool.run(lambda task: task(), tasks, 2)) == list(range(10))


@linux
def test_none_is_a_result() -> None:
    assert list(pool.run(lambda _task: None, range(5), 2)) == [None] * 5


@linux
def test_every_child_is_prepared() -> None:
    prepared: list[int] = []

    def prepare() -> None:
        prepared.append(os.getpid())

    results = list(pool.run(lambda _task: (os.getpid(), list(prepared)), range(20), 2, prepare))
    assert all(seen == [child] for child, seen in results)
    assert prepared == []


# -- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", [HoloError, Conflict, IntegrityError, CatalogInvalid, SourceChanged])
def test_an_error_crosses_the_border_whole(workers: int, kind: type[HoloError]) -> None:
    def fail(task: int) -> int:
        if task == 3:
            raise kind("it failed", "do this")
        return task

    with pytest.raises(HoloError) as caught:
        list(pool.run(fail, range(8), workers))
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("it failed", "do this")
    assert caught.value.exit_code == kind.exit_code


@linux
def test_an_error_without_a_hint() -> None:
    def fail(_task: int) -> int:
        raise HoloError("just that")

    with pytest.raises(HoloError) as caught:
        list(pool.run(fail, range(8), 2))
    assert (str(caught.value), caught.value.hint) == ("just that", None)


@linux
def test_an_operating_system_error_keeps_its_number() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        list(pool.run(os.stat, [f"/nowhere/at/all/{number}" for number in range(4)], 2))
    assert str(caught.value.filename).startswith("/nowhere/at/all/")


@linux
@pytest.mark.parametrize("error", [ValueError("odd"), KeyError("odd"), RecursionError("odd"), AssertionError("odd")])
def test_a_mistake_in_a_worker_is_one_error(error: Exception) -> None:
    def fail(_task: int) -> int:
        raise error

    with pytest.raises(HoloError, match="odd"):
        list(pool.run(fail, range(8), 2))


@linux
def test_an_error_comes_from_a_worker_as_it_was() -> None:
    error = IntegrityError("a blob is damaged", "Run `holo check`.", "The space is unfinished.")
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is IntegrityError
    assert (found.message, found.hint) == ("a blob is damaged", "Run `holo check`. The space is unfinished.")
    assert (found.remedy, found.left) == ("Run `holo check`.", "The space is unfinished.")


def test_a_result_that_cannot_be_pickled_is_one_error() -> None:
    with pytest.raises(HoloError):
        list(pool.run(lambda _task: lambda: None, range(4), 2))


@linux
def test_a_failing_preparation_is_one_error() -> None:
    def fail() -> None:
        raise Conflict("not prepared")

    with pytest.raises(Conflict, match="not prepared"):
        list(pool.run(square, range(4), 2, fail))


@linux
def test_what_was_done_before_an_error_is_reported(tmp_path: Path) -> None:
    def fail(task: int) -> int:
        if task == 9:
            while not os.listdir(tmp_path):
                time.sleep(0.001)
            raise HoloError("the last")
        return task

    with at_most(20):
        results = pool.run(fail, range(10), 2)
        assert sorted(next(results) for _ in range(9)) == list(range(9))
        (tmp_path / "go").touch()
        with pytest.raises(HoloError, match="the last"):
            next(results)


@linux
def test_an_error_stops_the_others() -> None:
    def fail_or_sleep(task: int) -> int:
        if task == 0:
            raise HoloError("enough")
        time.sleep(60)
        return task

    with at_most(10), pytest.raises(HoloError, match="enough"):
        list(pool.run(fail_or_sleep, range(6), 3))


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_killed_worker_is_one_error(number: signal.Signals) -> None:
    def die(task: int) -> int:
        if task == 5:
            os.kill(os.getpid(), number)
            time.sleep(60)
        return task

    with at_most(10), pytest.raises(HoloError, match=rf"ended unexpectedly.*{number.name}") as caught:
        list(pool.run(die, range(10), 2))
    assert caught.value.hint is not None


@linux
def test_a_worker_killed_in_the_middle_of_a_result_is_one_error() -> None:
    """Half a message is in the pipe then."""

    def die(_task: int) -> bytes:
        # The alarm ends the worker while it pickles or sends, which takes several times as long.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        return bytes(64 << 20)

    with at_most(20), pytest.raises(HoloError, match="SIGALRM"):
        list(pool.run(die, range(8), 2))


@linux
@pytest.mark.parametrize("code", [0, 3])
def test_a_worker_that_exits_is_one_error(code: int) -> None:
    with at_most(10), pytest.raises(HoloError, match="ended unexpectedly"):
        list(pool.run(lambda _task: os._exit(code), range(4), 2))


@linux
def test_an_exit_in_a_worker_does_not_end_the_parents_business() -> None:
    cleaned = []

    def leave(_task: int) -> int:
        try:
            raise SystemExit(0)
        finally:
            cleaned.append(1)

    with at_most(10), pytest.raises(HoloError, match="ended unexpectedly"):
        list(pool.run(leave, range(4), 2))
    assert cleaned == []


# -- stopping ---------------------------------------------------------------------------------------------


@linux
def test_worker_that_cannot_be_started_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user has as many processes as the system allows (RLIMIT_NPROC). Those that were started end."""
    fork = os.fork
    left = [1, 1]

    def fork_twice() -> int:
        if not left:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left.pop()
        return fork()

    monkeypatch.setattr(os, "fork", fork_twice)
    with at_most(10), pytest.raises(HoloError, match="cannot start a worker process: Resource temp") as caught:
        list(pool.run(str, range(9), 3))
    assert caught.value.hint is not None
    assert "ulimit -u" in caught.value.hint


@linux
def test_closing_the_generator_stops_the_workers() -> None:
    def report_then_sleep(task: int) -> int:
        if task >= 2:
            time.sleep(60)
        return os.getpid()

    with at_most(10):
        results = pool.run(report_then_sleep, range(20), 2)
        child = next(results)
        results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@linux
def test_a_generator_that_was_never_started_starts_nothing() -> None:
    results = pool.run(process, range(20), 2)
    del results


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_the_parent_handles_are_for_it(number: signal.Signals) -> None:
    """They may be for the whole process group, and a parent that goes on needs its workers."""

    def work(task: int) -> int:
        os.kill(os.getpid(), number)
        return task

    before = signal.signal(number, lambda *_: os._exit(9))
    try:
        assert sorted(pool.run(work, range(10), 2)) == list(range(10))
    finally:
        signal.signal(number, before)


@linux
@pytest.mark.parametrize("how", ["blocked", "ignored"])
def test_ctrl_c_that_is_not_for_the_parent_is_not_for_workers(how: str) -> None:
    def work(task: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return task

    before = signal.getsignal(signal.SIGINT)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT} if how == "blocked" else ())
    try:
        if how == "ignored":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert sorted(pool.run(work, range(10), 2)) == list(range(10))
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@linux
@pytest.mark.parametrize("where", ["_run_in_processes", "_collect"])
def test_ctrl_c_between_two_steps_is_no_other_error(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes when a pipe has been closed, and before anything is noted."""
    close, struck = os.close, list[int]()

    def strike(descriptor: int) -> None:
        close(descriptor)
        if sys._getframe(1).f_code.co_name == where and not struck:
            struck.append(descriptor)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "close", strike)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(pool.run(abs, range(100), 2))
    finally:
        signal.signal(signal.SIGINT, before)
    assert struck


@linux
def test_workers_of_a_killed_parent_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    """They hold the locks of the parent by inheritance, so they must not go on without it."""
    script = """
import os, sys, time
from holo.workers import pool
def work(task):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(0.05)
list(pool.run(work, range(10000), 2))
"""
    receive, send = os.pipe()
    try:
        with subprocess.Popen([sys.executable, "-c", script], stdout=send) as parent:
            os.close(send)
            send = -1
            assert os.read(receive, 100)
            parent.kill()
            parent.wait()
        deadline = time.monotonic() + 10
        while select.select([receive], [], [], max(0, deadline - time.monotonic()))[0]:
            if not os.read(receive, 4096):
                return  # nobody has the other end any more
        pytest.fail("workers are still there")
    finally:
        os.close(receive)
        if send >= 0:
            os.close(send)


# -- threads ----------------------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another thread is alive."""
    monkeypatch.undo()
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.usefixtures("threads")
def test_a_process_with_threads_is_not_forked() -> None:
    assert not pool.forks(2)
    assert set(pool.run(process, range(50), 4)) == {os.getpid()}
    assert sorted(pool.run(square, range(50), 4)) == [number * number for number in range(50)]


@pytest.mark.usefixtures("threads")
def test_an_error_in_a_thread_is_the_same_error() -> None:
    started = []

    def fail(task: int) -> int:
        started.append(task)
        if task == 0:
            raise Conflict("it failed", "do this")
        time.sleep(0.01)
        return task

    with pytest.raises(Conflict) as caught:
        list(pool.run(fail, range(500), 2))
    assert caught.value.hint == "do this"
    assert len(started) < 400


@pytest.mark.usefixtures("threads")
def test_closing_stops_the_threads() -> None:
    started = []

    def slow(task: int) -> int:
        started.append(task)
        time.sleep(0.01)
        return task

    results = pool.run(slow, range(500), 2)
    next(results)
    results.close()
    assert len(started) < 400


@linux
def test_forks_says_what_run_does() -> None:
    assert pool.forks(2)
    assert not pool.forks(1)


@linux
def test_apart_in_another_process() -> None:
    """Threads that are started there do not keep this process from forking."""

    def start_a_thread() -> int:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return os.getpid()

    assert pool.apart(start_a_thread) != os.getpid()
    assert pool.may_fork()
    assert not pool.is_worker()
    assert pool.apart(pool.is_worker)


@linux
def test_an_error_apart_is_the_same_here() -> None:
    def interrupted() -> None:
        raise Interrupted("503 Slow Down", 1.5)

    with pytest.raises(Interrupted, match="503 Slow Down") as caught:
        pool.apart(interrupted)
    assert caught.value.pause == 1.5
    with pytest.raises(FileNotFoundError):
        pool.apart(lambda: os.stat("/nowhere/at/all"))


@linux
def test_no_process_is_forked_that_has_used_obstore(tmp_path: Path) -> None:
    """Its threads are none of Python's, and a child that uses it as well would wait for them for ever."""
    script = """
import sys
import obstore
from holo.workers import pool
print(pool.may_fork())
store = obstore.store.LocalStore(sys.argv[1])
obstore.put(store, "a", b"hello")
print(pool.may_fork(), sorted(pool.run(lambda task: len(obstore.get(store, task).bytes()), ["a", "a"], 2)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "True\nFalse [5, 5]\n", done.stderr
