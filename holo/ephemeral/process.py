"""A command as a child in a view of the file system of its own: started, watched to its end, nothing of it left."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from holo import activation, platform, signals, streams
from holo.errors import HoloError
from holo.trees import stubs
from holo.trees.lower import Lower, NoOverlayError
from holo.trees.overlay import OVERLAY

if sys.platform == "linux":
    from holo.platform import namespaces

if TYPE_CHECKING:
    import socket
    from typing import NoReturn

_GRACE = 1.0
"""Seconds between asking what a command left running to end, and killing it."""
_PATIENCE = 5.0
"""Seconds after which what cannot even be killed (a hanging disk) is left alone."""

AtEnd = Callable[[platform.Directory, str], object]
"""Gets the open root of the environment, and its path, when the command has ended and its changes are still there."""


class Place(NamedTuple):
    """Where a command finds the environment, and what is to be mounted there for it."""

    space: str
    path: str
    lower: Lower | None = None
    """none where the environment is there without"""
    upper: str = ""
    work: str = ""


def run(command: list[str], place: Place, at_end: AtEnd | None) -> int:
    """Run a command to its end. Returns its exit code, or minus the signal that ended it.

    Raises :class:`NoOverlayError` before anything happened, and :class:`HoloError` as :func:`holo.activation.run` does.
    """
    if sys.platform == "linux":
        return _Child(command, place, wants_root=at_end is not None).run(at_end)
    if place.lower:
        raise NoOverlayError("only Linux can do that")
    code = activation.run(command, _environ(place), as_child=True)
    if at_end is not None:
        _finish(at_end, platform.open_root(place.path), place.path)
    return code


def _environ(place: Place) -> dict[str, str]:
    """The variables of the command. Raises :class:`HoloError` if that would run another environment's Python."""
    activation.check_python(place.path, place.space)
    return activation.apply(activation.variables(place.path, place.space, os.environ), os.environ)


def _finish(at_end: AtEnd, root: platform.Directory, path: str) -> None:
    try:
        at_end(root, path)
    finally:
        platform.close_directory(root)


if sys.platform != "linux":

    def try_out(folder: str) -> None:
        """Raise :class:`NoOverlayError`."""
        raise NoOverlayError("only Linux can do that")

else:

    def try_out(folder: str) -> None:
        """Raise :class:`NoOverlayError` if nothing can be mounted over directories in ``folder``."""
        lower, upper, work, target = (
            os.path.join(folder, f"try-{name}") for name in ("lower", "upper", "work", "target")
        )
        for path in (lower, upper, work, target):
            os.mkdir(path)
        mount = partial(namespaces.mount_overlay, OVERLAY, target, (lower,), upper, work)
        if code := namespaces.error_in_own_view(mount):
            raise NoOverlayError(namespaces.reason(OSError(code, os.strerror(code)), folder))

    _PASSED_ON = frozenset(
        {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    )

    class _Child:
        """One command. Its process group, session and terminal are ours, so what they signal reaches it by itself."""

        def __init__(self, command: list[str], place: Place, *, wants_root: bool) -> None:
            self._command = command
            self._place = place
            self._wants_root = wants_root
            self._root: int | None = None
            self._pid = 0
            self._cwd = _cwd_inside(place.path)
            self._is_alone = not _has_children()
            self._others = set() if self._is_alone else {*namespaces.children()}  # of a program that uses holo

        def run(self, at_end: AtEnd | None) -> int:
            with signals.blocked(_PASSED_ON | {signal.SIGCHLD}) as before:
                namespaces.adopt_orphans(True)
                try:
                    self._start(before)
                    code = self._wait()
                    self._end_the_rest()
                    if at_end is not None and self._root is not None:
                        _finish(at_end, self._root, self._place.path)
                    while signal.sigtimedwait(_PASSED_ON, 0) is not None:
                        pass  # it was for the command as well, which had ended, and must not cost its result
                finally:
                    namespaces.adopt_orphans(False)
            return code

        def _start(self, mask: set[int | signal.Signals]) -> None:
            """Raises what went wrong in the child."""
            receive, send = os.pipe()
            roots = _pair() if self._wants_root else None
            parent = os.getpid()
            streams.flush()
            self._pid = os.fork()
            if self._pid == 0:
                self._run_child(parent, mask, send, roots and roots[1])
            os.close(send)
            with open(receive, "rb") as answer:
                said = answer.read()  # to the end, which comes when the child becomes the command
            if roots is not None:
                self._root = _received(*roots)
            if said:
                import pickle

                os.waitpid(self._pid, 0)
                if self._root is not None:
                    platform.close_directory(self._root)
                error = pickle.loads(said)  # noqa: S301 - from our own child
                raise error

        def _run_child(
            self, parent: int, mask: set[int | signal.Signals], send: int, roots: socket.socket | None
        ) -> NoReturn:
            """The life of the child until it is the command. It says nothing, unless something goes wrong."""
            try:
                namespaces.die_with(parent)
                _close_inherited({send} if roots is None else {send, roots.fileno()})
                if self._place.lower:
                    self._mount()
                if self._cwd is not None:
                    _enter(self._cwd)
                if roots is not None:
                    _send(roots, self._place.path)
                environ = _environ(self._place)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                activation.run(self._command, environ)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
                import pickle

                known = isinstance(error, (HoloError, NoOverlayError, OSError, KeyboardInterrupt))
                with open(send, "wb") as answer:
                    answer.write(pickle.dumps(error if known else HoloError(repr(error))))
            finally:
                os._exit(1)

        def _mount(self) -> None:
            place, lower = self._place, self._place.lower
            assert lower is not None
            kind = stubs.attributes() if lower.blobs else ""
            try:
                namespaces.enter_own_view()
                over = (lower.layer, lower.tree)
                namespaces.mount_overlay(OVERLAY, place.path, over, place.upper, place.work, lower.blobs, kind)
            except OSError as error:
                raise NoOverlayError(namespaces.reason(error, place.upper)) from None

        def _wait(self) -> int:
            while True:
                # The seconds are for a thread of a program whose other threads take the signal of our child's end.
                info = signal.sigtimedwait(_PASSED_ON | {signal.SIGCHLD}, 1.0)
                if info is not None and info.si_signo != signal.SIGCHLD:
                    # What the terminal sends, the command has got as well, but that it is gone: only its leader hears.
                    is_gone = info.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()
                    if info.si_code <= 0 or is_gone:  # the first: from a process
                        with suppress(ProcessLookupError):
                            os.kill(self._pid, info.si_signo)
                    continue
                code = self._reap()
                if code is not None:
                    return code

        def _reap(self) -> int | None:
            """Take note of children that ended; the command's exit code if it is among them."""
            whom = -1 if self._is_alone else self._pid
            while True:
                pid, status = os.waitpid(whom, os.WNOHANG)
                if pid == self._pid:
                    return os.waitstatus_to_exitcode(status)
                if pid == 0:
                    return None

        def _end_the_rest(self) -> None:
            """End what the command left running: the environment is about to go, and nothing must outlive it there."""
            begin = time.monotonic()
            asked: set[int] = set()
            while self._has_children() and time.monotonic() - begin < _GRACE + _PATIENCE:
                kill = time.monotonic() - begin > _GRACE
                for pid in namespaces.children():
                    if pid not in self._others and (kill or pid not in asked):
                        asked.add(pid)
                        with suppress(ProcessLookupError, PermissionError):
                            os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
                time.sleep(0.005)

        def _has_children(self) -> bool:
            if not self._is_alone:
                for pid in {*namespaces.children()} - self._others:
                    os.waitpid(pid, os.WNOHANG)
                return bool({*namespaces.children()} - self._others)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                return True
            return False

    def _close_inherited(but: set[int]) -> None:
        """Close what the command does not get, at once: locks of a parent that is killed meanwhile are free then."""
        with suppress(OSError):  # without /proc
            for descriptor in map(int, os.listdir("/proc/self/fd")):
                with suppress(OSError):  # what listed them
                    if descriptor > 2 and descriptor not in but and not os.get_inheritable(descriptor):
                        os.close(descriptor)

    def _pair() -> tuple[socket.socket, socket.socket]:
        import socket

        return socket.socketpair()

    def _send(theirs: socket.socket, path: str) -> None:
        import socket

        root = platform.open_root(path)
        socket.send_fds(theirs, [b"/"], [root])
        os.close(root)

    def _received(ours: socket.socket, theirs: socket.socket) -> int | None:
        """What the other side, which is gone, has sent."""
        import socket

        with ours, theirs:
            theirs.close()
            found = socket.recv_fds(ours, 1, 1)[1]
        for descriptor in found:
            os.set_inheritable(descriptor, False)
        return found[0] if found else None

    def _cwd_inside(path: str) -> str | None:
        """The current folder if it is in the environment: another one will be there."""
        try:
            cwd = os.getcwd()
        except OSError:
            return None
        real = os.path.realpath(path)
        return cwd if os.path.commonpath([real, os.path.realpath(cwd)]) == real else None

    def _enter(cwd: str) -> None:
        try:
            os.chdir(cwd)
        except OSError as error:
            raise HoloError(
                f"the current folder, {cwd}, is not in the pristine environment: {error.strerror}",
                "Start the command from another one.",
            ) from None

    def _has_children() -> bool:
        """Whether this process has children already."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True
