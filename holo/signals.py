"""Signals that end a program in order: Ctrl-C, SIGTERM and SIGHUP.

Each of them interrupts a command of holo as Ctrl-C does. A program that imports holo has handlers of its own, and what
holo does for a moment, or in a child, is right with those as well.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

# -- of a command -----------------------------------------------------------------------------------------------------

_stopped_by: list[int] = []
"""The signal that has interrupted this command."""


def install_handlers() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, but once, and not if they are ignored."""
    if sys.platform != "win32" and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited, and nobody could wait for a child
    for number in ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:  # not what nohup has us ignore
            signal.signal(number, _interrupt)
    sys.unraisablehook = _reraise_lost_interrupt


def _interrupt(number: int, _: object) -> None:
    if not _stopped_by:
        _stopped_by.append(number)
        for other in ENDING:  # `timeout` sends two, and the second would cut short what the first has cleaned up
            if other != signal.SIGINT:
                signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt


_SOON = 0.001
"""Seconds. Enough to be out of what swallows an interrupt."""


def _reraise_lost_interrupt(lost: sys.UnraisableHookArgs) -> None:
    """Interrupt once more: Python shows what is raised in a finalizer or in a weak reference's callback, and goes on.

    An import has such a callback, too (``importlib._bootstrap._get_module_lock``).
    """
    if sys.platform == "win32" or not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, _SOON)


def ignore() -> None:
    """Nothing interrupts this command any more: it has only to say how it went."""
    for number in (*ENDING, getattr(signal, "SIGALRM", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)


def code_of_interrupt() -> int:
    """The exit code of a command that was interrupted."""
    return 128 + (_stopped_by[0] if _stopped_by else signal.SIGINT)


def exit_like(code: int) -> int:
    """End this process by the signal ``-code`` that ended another one; an exit code is left to the caller."""
    if code < 0 and sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # one core is enough
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code if code >= 0 else 128 - code


# -- for a moment -----------------------------------------------------------------------------------------------------


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let ``handler`` have the signals of :data:`ENDING` until the end of the block, but not those that are ignored."""
    left = (signal.SIG_IGN, None)  # None: a handler that is not Python's, and could not be put back
    before = {number: signal.signal(number, handler) for number in ENDING if signal.getsignal(number) not in left}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


@contextmanager
def deferred() -> Iterator[None]:
    """Let signals of :data:`ENDING` wait for the end of the block. A child would inherit blocked ones."""
    import threading

    if threading.current_thread() is not threading.main_thread():  # where no handler ever runs
        yield
        return
    came: list[int] = []
    try:
        with handled_by(lambda number, _: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextmanager
def blocked(numbers: Collection[int] = ENDING) -> Iterator[set[int | signal.Signals]]:
    """Block signals until the end of the block. Yields the mask before, for a child to restore."""
    if sys.platform == "win32":  # where nothing is forked
        raise NotImplementedError
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- in a child -------------------------------------------------------------------------------------------------------


def leave_to_parent(mask: set[int | signal.Signals]) -> None:
    """In a forked worker: let its parent say what a signal to the whole process group means, and end the worker then.

    ``mask`` is that of the parent before it blocked signals for the fork. What is ignored stays ignored.
    """
    if sys.platform == "win32":
        raise NotImplementedError
    for number in ENDING:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
