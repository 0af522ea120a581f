"""Run one function over many tasks on all cores, and get the results as they come.

On Linux the workers are forked processes: they inherit the tasks without pickling (a plan of 22,000 files
costs nothing to hand over) and do not share the interpreter lock, which for small files is worth more than
the fork. A pipe filled with task numbers before the fork is the work queue: a worker takes the next number
with one ``read``, so a slow task never holds up a fast worker.

A process with other threads must not be forked (a lock held by such a thread would stay held in the
child), so there, and where fork is not safe at all, the workers are threads.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NoReturn, TypeVar

from holo import signals, streams
from holo.errors import HoloError
from holo.platform import CAN_FORK

Task = TypeVar("Task")
Result = TypeVar("Result")

_NUMBER = struct.Struct("=I")

_is_worker = False

_F_GETPIPE_SZ = 1032
"""fcntl(2), Linux. A pipe holds 64 KiB, or less for a user with very many pipes (pipe(7))."""


_FEWER = "Allow this user more processes (`ulimit -u`), or use fewer `workers` (settings.yaml)."


def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    in_child: Callable[[], object] | None = None,
) -> Iterator[Result]:
    """Yield ``function(task)`` for every task, in the order of completion.

    With one worker or one task everything happens here, in order. ``in_child`` runs first in every forked
    worker. An exception of a task ends the run and is raised here; the other workers are stopped first.
    Closing the generator stops them as well.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
    elif may_fork():
        yield from _run_in_processes(function, tasks, workers, in_child)
    else:
        yield from _run_in_threads(function, tasks, workers)


def forks(workers: int) -> bool:
    """Whether :func:`run` with that many workers and enough tasks would fork."""
    return workers > 1 and may_fork()


def may_fork() -> bool:
    """Whether this process has no other threads, and can have children."""
    threads = sys.modules.get("threading")  # which whoever starts one imports
    return CAN_FORK and (threads is None or threads.active_count() == 1) and not _has_runtime()


def _has_runtime() -> bool:
    """Whether obstore has been used in this process: a child that uses it as well would wait for threads for ever.

    They are no threads of Python's, which does not count them: proc_pid_task(5).
    """
    if "obstore" not in sys.modules:
        return False
    with suppress(FileNotFoundError):  # no /proc, or a thread has just ended
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/comm", "rb") as file:
                if file.read().startswith(b"tokio"):
                    return True
    return False


def is_worker() -> bool:
    """Whether this process is a worker, or a child of :func:`apart`: it forks no more."""
    return _is_worker


def apart(function: Callable[[], Result]) -> Result:
    """Let a forked child compute something that starts threads, so that this process can still be forked.

    Only where :func:`may_fork`. Raises what the function raises.
    """
    (result,) = _run_in_processes(lambda _: function(), [None], 1, None)
    return result


def _run_in_threads(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    from concurrent.futures import ThreadPoolExecutor, as_completed

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _run_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, in_child: Callable[[], object] | None
) -> Iterator[Result]:
    if sys.platform == "win32":
        raise NotImplementedError
    import fcntl  # not everywhere, and nor is fork
    import pickle  # noqa: F401 - once for all workers; a command that has none spares it

    # A queue entry is the first task number of a stride, so that any number of tasks fits the pipe.
    queue, feed = os.pipe()
    stride = -(-len(tasks) // (fcntl.fcntl(feed, _F_GETPIPE_SZ) // _NUMBER.size))
    children: dict[int, int] = {}
    try:
        os.write(feed, b"".join(_NUMBER.pack(first) for first in range(0, len(tasks), stride)))
        filled, feed = feed, -1  # before it is closed: Ctrl-C may come between any two steps
        os.close(filled)
        streams.flush()
        parent = os.getpid()
        # None must come between a fork and the list of children, nor find a handler of ours in a worker.
        with signals.blocked() as mask:
            for _ in range(workers):
                receive, send = os.pipe()
                try:
                    child = os.fork()
                except OSError as error:
                    os.close(receive)
                    os.close(send)
                    raise HoloError(f"cannot start a worker process: {error.strerror}", _FEWER) from error
                if child == 0:
                    _work(function, tasks, queue, stride, send, parent, mask, in_child)
                os.close(send)
                children[receive] = child
        yield from _collect(children)
    finally:
        os.close(queue)
        if feed >= 0:
            os.close(feed)
        for receive, child in children.items():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(receive)


def _work(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    queue: int,
    stride: int,
    send: int,
    parent: int,
    mask: set[int | signal.Signals],
    in_child: Callable[[], object] | None,
) -> NoReturn:
    """The life of a forked worker. Never returns, never runs the parent's clean-up."""
    global _is_worker  # noqa: PLW0603 - it is of the process
    status = 1
    try:
        _is_worker = True
        signals.leave_to_parent(mask)
        try:
            if in_child is not None:
                in_child()
            while number := os.read(queue, _NUMBER.size):
                first = _NUMBER.unpack(number)[0]
                for task in tasks[first : first + stride]:
                    if os.getppid() != parent:
                        os._exit(1)  # the parent was killed: its locks are ours by inheritance, let go of them
                    _send(send, function(task))
            _send(send, None, done=True)
            status = 0
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            _send(
                send,
                error if _can_be_told(error) else HoloError(repr(error)),
                done=True,
            )
    finally:
        os._exit(status)


def _can_be_told(error: Exception) -> bool:
    """Whether the parent gets an error as it is: one of holo's own, or of the system."""
    return isinstance(error, (OSError, MemoryError)) or type(error).__module__.startswith("holo.")


def _send(descriptor: int, value: object, *, done: bool = False) -> None:
    import pickle

    body = pickle.dumps((done, value), pickle.HIGHEST_PROTOCOL)
    message = memoryview(_NUMBER.pack(len(body)) + body)
    while message:
        message = message[os.write(descriptor, message) :]


def _collect(children: dict[int, int]) -> Iterator[Result]:
    """Yield what the workers send until all have said that they are done; reap them."""
    if sys.platform == "win32":
        raise NotImplementedError
    import pickle

    waiting = select.poll()
    buffers = {receive: bytearray() for receive in children}
    for receive in children:
        waiting.register(receive, select.POLLIN)
    while children:
        for receive, _ in waiting.poll():
            data = os.read(receive, 1 << 20)
            buffer = buffers[receive]
            buffer += data
            done = False
            while len(buffer) >= _NUMBER.size:
                end = _NUMBER.size + _NUMBER.unpack_from(buffer)[0]
                if len(buffer) < end:
                    break
                done, value = pickle.loads(memoryview(buffer)[_NUMBER.size : end])  # noqa: S301 - from our own child
                del buffer[:end]
                if isinstance(value, Exception):
                    raise value
                if not done:
                    yield value
            if done or not data:
                waiting.unregister(receive)
                with signals.blocked():  # or it would be closed twice, or killed when its number is another's
                    os.close(receive)
                    _, status = os.waitpid(children.pop(receive), 0)
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT:
                    raise KeyboardInterrupt  # Ctrl-C is for all of us; the worker was faster
                if status or not done:
                    raise HoloError(
                        f"a worker process ended unexpectedly ({_explain(status)})",
                        "It may have run out of memory; run the command again, it continues where this one stopped.",
                    )


def _explain(status: int) -> str:
    if sys.platform == "win32":
        raise NotImplementedError
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
