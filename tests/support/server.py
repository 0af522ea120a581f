"""The process that forks holo: it has all of it loaded, so that a command costs no start of Python.

An order is a JSON object on one line of stdin, and so is its answer on stdout. Orders come from
:class:`support.forks.Forks`, which says what is in them, and from :class:`support.faults.Supervisor`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import resource
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

if "--portable" in sys.argv:
    from support import portable

    portable.force()

import holo
import holo.cli
from holo import background
from support import faults, lockorder

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _load_everything() -> None:
    """All of holo at once: what a command opens is its own files then, and not our code."""
    for module in pkgutil.walk_packages(holo.__path__, "holo."):
        if not module.name.endswith(("__main__", "pytest_plugin")):
            importlib.import_module(module.name)
    for name in ("concurrent.futures", "encodings.unicode_escape", "multiprocessing", "pickle", "pydantic", "socket"):
        importlib.import_module(name)
    for name in ("requests", "urllib.parse", "yaml", "zstandard"):
        importlib.import_module(name)


def _obey(order: dict[str, Any]) -> dict[str, Any]:
    if order["do"] == "wait":
        return {"code": os.waitstatus_to_exitcode(os.waitpid(order["process"], 0)[1])}
    stdout, stderr = os.memfd_create("stdout"), os.memfd_create("stderr")
    try:
        if order["do"] == "start":
            return {"process": _fork(order, stdout, stderr)}
        if order["do"] == "supervise":
            answer = _supervise(order, stdout, stderr)
        else:
            _, status = os.waitpid(_fork(order, stdout, stderr), 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        return {**answer, "stdout": _text(stdout), "stderr": _text(stderr)}
    finally:
        os.close(stdout)
        os.close(stderr)


def _supervise(order: dict[str, Any], stdout: int, stderr: int) -> dict[str, Any]:
    """The command with all the processes that it leaves, and with each of its calls before us if they count."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    listener = None
    ours, theirs = socket.socketpair()
    with ours:
        leader = _fork(order, stdout, stderr, theirs)
        theirs.close()
        if order["watched"]:
            _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
            if not listeners:  # no seccomp here, or somebody listens already: containers of LXD, say
                raise RuntimeError(_text(stderr))
            (listener,) = listeners
    status, calls, hung = faults.Watch(listener, leader, order).watch()
    if listener is not None:
        os.close(listener)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    return {"code": os.waitstatus_to_exitcode(status), "calls": calls, "hung": hung}


def _fork(order: dict[str, Any], stdout: int, stderr: int, listens: socket.socket | None = None) -> int:
    child = os.fork()
    if child == 0:
        _be_holo(order, stdout, stderr, listens)
    return child


def _be_holo(order: dict[str, Any], stdout: int, stderr: int, listens: socket.socket | None) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for number, stream in enumerate((nowhere, stdout, stderr)):
            os.dup2(stream, number)
            os.close(stream)
        _limit(order)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        for name, value in order.get("tune", {}).items():
            module, _, constant = name.rpartition(".")
            assert isinstance(getattr(sys.modules[module], constant), (int, float))
            setattr(sys.modules[module], constant, value)
        if listens is None:
            lockorder.watch()
        else:  # with calls of its own, that would be another command than the one whose calls are counted
            os.setsid()
            if order["watched"]:
                listener = faults.install(order["reads"], order["only"])
                socket.send_fds(listens, [b"x"], [listener])
                os.close(listener)
            listens.close()
        if order["arguments"][:1] == ["-m"]:  # what a command leaves to a process of its own
            background.work_when_idle = lambda: None  # on a busy machine that would never be
            background.give_way = lambda _: None  # its timer would interrupt calls that wait for us
            _, module, *arguments = order["arguments"]
            sys.argv = [module, *arguments]
            sys.modules[module].main()
            os._exit(0)
        sys.argv = ["holo", *order["arguments"]]
        holo.cli.main()
    except BaseException:  # noqa: BLE001 - holo never raises, so it is about us
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(99)


def _limit(order: dict[str, Any]) -> None:
    if order.get("memory"):
        resource.setrlimit(resource.RLIMIT_AS, (order["memory"],) * 2)
    signal.alarm(order.get("seconds", 0))
    if order.get("user"):
        uid, gid, groups, umask = order["user"]
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # /proc/self is the user's, as after an execve
        os.umask(umask)
    if order.get("umask") is not None:
        os.umask(order["umask"])


def _text(stream: int) -> str:
    return os.pread(stream, os.fstat(stream).st_size, 0).decode(errors="surrogateescape")


def _serve() -> None:
    _load_everything()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it is for pytest, which closes our stdin
    for line in sys.stdin:
        answers.write(json.dumps(_obey(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
