"""Faults at an exact moment: holo runs under a supervisor that is asked before each of its file-system calls.

The kernel does the asking (seccomp_unotify(2)): a filter in the process and in all it forks stops a call and
hands it to us, before it has done anything. We count it, and let it happen, or answer an error in its place, or
kill. So the counter sees what the kernel sees, in whatever way Python or a library came to make the call, and
counts over the whole family of processes.

A run costs no start of Python: it is a fork of :mod:`support.server`, which does the watching, too.
``Supervisor.run`` is what tests use.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.forks import Forks

# Per call: its number on x86-64 (None where there is no such call), on all newer machines, and where it names a
# file: f0 = a descriptor as argument 0, p0 = a path as argument 0, a0 = a directory and a path from argument 0 on.
CHANGES: dict[str, tuple[int | None, int | None, str]] = {
    "openat": (257, 56, "a0"),  # one that may create, truncate or write
    "openat2": (437, 437, "a0"),  # the same
    "open": (2, None, "p0"),  # the same
    "creat": (85, None, "p0"),
    "write": (1, 64, "f0"),
    "writev": (20, 66, "f0"),
    "pwrite64": (18, 68, "f0"),
    "copy_file_range": (326, 285, "f2"),
    "sendfile": (40, 71, "f0"),
    "truncate": (76, 45, "p0"),
    "ftruncate": (77, 46, "f0"),
    "fallocate": (285, 47, "f0"),
    "ioctl": (16, 29, "f0"),  # those of file systems: a clone, a subvolume
    "mkdir": (83, None, "p0"),
    "mkdirat": (258, 34, "a0"),
    "mknod": (133, None, "p0"),
    "mknodat": (259, 33, "a0"),
    "mount": (165, 40, "p1"),
    "umount2": (166, 39, "p0"),
    "rmdir": (84, None, "p0"),
    "unlink": (87, None, "p0"),
    "unlinkat": (263, 35, "a0"),
    "rename": (82, None, "p1"),
    "renameat": (264, 38, "a2"),
    "renameat2": (316, 276, "a2"),
    "link": (86, None, "p1"),
    "linkat": (265, 37, "a2"),
    "symlink": (88, None, "p1"),
    "symlinkat": (266, 36, "a1"),
    "chmod": (90, None, "p0"),
    "fchmod": (91, 52, "f0"),
    "fchmodat": (268, 53, "a0"),
    "fchmodat2": (452, 452, "a0"),
    "chown": (92, None, "p0"),
    "lchown": (94, None, "p0"),
    "fchown": (93, 55, "f0"),
    "fchownat": (260, 54, "a0"),
    "utime": (132, None, "p0"),
    "utimes": (235, None, "p0"),
    "futimesat": (261, None, "a0"),
    "utimensat": (280, 88, "a0"),
    "setxattr": (188, 5, "p0"),
    "lsetxattr": (189, 6, "p0"),
    "fsetxattr": (190, 7, "f0"),
    "removexattr": (197, 14, "p0"),
    "lremovexattr": (198, 15, "p0"),
    "fremovexattr": (199, 16, "f0"),
    "flock": (73, 32, "f0"),
    "fsync": (74, 82, "f0"),
    "fdatasync": (75, 83, "f0"),
    "syncfs": (306, 267, "f0"),
    "sync_file_range": (277, 84, "f0"),
}
READS: dict[str, tuple[int | None, int | None, str]] = {
    "read": (0, 63, "f0"),
    "pread64": (17, 67, "f0"),
    "getdents64": (217, 61, "f0"),
    "stat": (4, None, "p0"),
    "lstat": (6, None, "p0"),
    "fstat": (5, 80, "f0"),
    "newfstatat": (262, 79, "a0"),
    "statx": (332, 291, "a0"),
    "access": (21, None, "p0"),
    "faccessat": (269, 48, "a0"),
    "faccessat2": (439, 439, "a0"),
    "readlink": (89, None, "p0"),
    "readlinkat": (267, 78, "a0"),
    "getxattr": (191, 8, "p0"),
    "lgetxattr": (192, 9, "p0"),
    "fgetxattr": (193, 10, "f0"),
    "listxattr": (194, 11, "p0"),
    "llistxattr": (195, 12, "p0"),
    "flistxattr": (196, 13, "f0"),
}

OPENS = ("openat", "openat2", "open", "creat")

TIMEOUT = 60.0
"""Seconds after which a command counts as hanging. Each takes some milliseconds."""


@dataclass(frozen=True)
class Call:
    """A file-system call that was about to happen."""

    name: str
    path: str
    """relative to the root of the test"""
    process: int
    """0 is the command itself, 1 and more are its workers"""
    changes: bool

    def __str__(self) -> str:
        return f"{self.name}({self.path})" + (f" of worker {self.process}" if self.process else "")


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    """exit code, or minus the signal that ended it"""
    stdout: str
    stderr: str
    calls: list[Call]
    """all that were seen, or those up to the fault if there was one"""
    hung: bool
    """it had to be killed, or a worker outlived it"""

    def json(self) -> Any:
        return json.loads(self.stdout)


class Supervisor:
    """Runs commands of holo, with or without a fault."""

    def __init__(self) -> None:
        self._forks = Forks()

    def close(self) -> None:
        self._forks.close()

    def run(
        self,
        root: Path,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        at: int = 0,
        kill: str = "",
        error: int = 0,
        command: Sequence[str | Path] = (),
        reads: bool = False,
        only: Sequence[str] = (),
        tune: Mapping[str, int] | None = None,
        watched: bool = True,
    ) -> Outcome:
        """Run ``holo *arguments`` in ``root``, with a fault before the call number ``at`` (from 1; 0: none).

        The fault is ``error``, an errno in place of the call's result, or ``kill``: ``"group"`` kills all processes,
        ``"one"`` only that which calls, ``"interrupt"`` sends SIGINT to all, as Ctrl-C does, and ``"terminate"``
        SIGTERM, first to holo alone, as ``timeout`` does; then the call happens. Or it is what somebody else does in
        that moment: ``command`` is run to its end, before the call.
        What counts are the calls on files below ``root`` that may change something, with ``reads`` the others as
        well, and of these ``only`` the named ones. ``tune`` sets constants of holo, by their dotted names: a small
        tree then does what only a large one does. What is not ``watched`` is faster, and has no fault and no calls.
        """
        answer = self._forks.order(
            "supervise",
            root=str(root),
            arguments=list(map(str, arguments)),
            cwd=str(root),
            env=dict(environment),
            at=at,
            kill=kill,
            error=error,
            command=list(map(str, command)),
            reads=reads,
            only=list(only),
            tune=dict(tune or {}),
            watched=watched,
        )
        return Outcome(**{**answer, "calls": [Call(*call) for call in answer["calls"]]})


# -- in the server ---------------------------------------------------------------------------------------------------

_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
"""Per machine: the column of its numbers above, its number in linux/audit.h, and that of seccomp(2)."""

# linux/seccomp.h, linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER = 1 << 3
_ALLOW = 0x7FFF0000
_NOTIFY = 0x7FC00000
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, pid, flags; number, machine, instruction, arguments
_RESPONSE = struct.Struct("=QqiI")  # id, result, error, flags
_CONTINUE = 1
_RECEIVE = 0xC0502100
_SEND = 0xC0182101

_AT_FDCWD = -100
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_FILE_SYSTEM_IOCTL = 0x94
"""The second byte of the requests of Btrfs, of which FICLONE is one."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def install(reads: bool, only: Sequence[str]) -> int:
    """From now on, these calls of this process and its children wait for who serves the returned descriptor."""
    column, machine, seccomp = _MACHINES[os.uname().machine]
    table = {**CHANGES, **(READS if reads else {})}
    rows = [row for name, row in table.items() if not only or name in only]
    numbers = [number for row in rows if (number := row[column]) is not None]
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
    program = [(load, 0, 0, 4), (equal, 1, 0, machine), (give, 0, 0, _ALLOW), (load, 0, 0, 0)]
    program += [(equal, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    program += [(give, 0, 0, _ALLOW), (give, 0, 0, _NOTIFY)]
    instructions = (_Instruction * len(program))(*program)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    listener: int = _libc.syscall(
        seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(_Program(len(program), instructions))
    )
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


class Watch:
    """Answers for the calls of one family of processes, or only waits for its end if there is no listener."""

    def __init__(self, listener: int | None, leader: int, request: dict[str, Any]) -> None:
        self._listener = listener
        self._leader = leader
        self._root = request["root"]
        self._request = request
        self._only = set(request["only"])
        self._calls: list[tuple[str, str, int, bool]] = []
        self._processes = {leader: 0}
        column = _MACHINES[os.uname().machine][0]
        table = {**CHANGES, **READS}
        self._names = {numbers[column]: (name, numbers[2]) for name, numbers in table.items()}
        self._done = False

    def watch(self) -> tuple[int, list[tuple[str, str, int, bool]], bool]:
        """Serve until the whole family is gone. Returns the leader's status, the calls, and whether somebody hung."""
        poller = select.poll()
        if self._listener is not None:
            poller.register(self._listener, select.POLLIN)
        leader = os.pidfd_open(self._leader)
        poller.register(leader, select.POLLIN)
        status: int | None = None
        hung = False
        deadline = time.monotonic() + TIMEOUT
        while True:
            events = dict(poller.poll(1000 if status is None else 2))
            if self._listener is not None and events.get(self._listener, 0) & select.POLLIN:
                self._serve(self._listener)
                continue
            try:
                while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                    if found[0] == self._leader:
                        status = found[1]
                        poller.unregister(leader)
            except ChildProcessError:
                break
            if time.monotonic() > deadline:
                hung = True
                deadline += TIMEOUT
                os.killpg(self._leader, signal.SIGKILL)
        os.close(leader)
        assert status is not None
        return status, self._calls, hung

    def _serve(self, listener: int) -> None:
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # it was killed in the meantime
                return
            raise
        identity, process, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        code = 0
        if not self._done:
            try:
                code = self._judge(process, number, arguments)
            except (FileNotFoundError, ProcessLookupError):
                return  # killed
        try:
            fcntl.ioctl(listener, _SEND, _RESPONSE.pack(identity, 0, -code, 0 if code else _CONTINUE))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def _judge(self, process: int, number: int, arguments: list[int]) -> int:
        """Count the call, and do what is to be done at its number. Returns the error to answer, or 0."""
        name, where = self._names[number]
        changes = name in CHANGES and self._changes(process, name, arguments)
        if not (changes or self._request["reads"]) or (self._only and name not in self._only):
            return 0
        if name == "ioctl" and not changes:
            return 0
        path = self._path(process, where, arguments)
        if path != self._root and not path.startswith(self._root + "/"):
            return 0
        worker = self._processes.setdefault(process, len(self._processes))
        self._calls.append((name, os.path.relpath(path, self._root), worker, changes))
        if len(self._calls) != self._request["at"]:
            return 0
        self._done = True
        kill = self._request["kill"]
        if kill == "group":
            os.killpg(self._leader, signal.SIGKILL)
        elif kill == "one":
            os.kill(process, signal.SIGKILL)
        elif kill == "interrupt":
            os.killpg(self._leader, signal.SIGINT)
        elif kill == "terminate":
            os.kill(self._leader, signal.SIGTERM)
            os.killpg(self._leader, signal.SIGTERM)
        if self._request["command"]:
            subprocess.run(self._request["command"], check=True)
        return int(self._request["error"])

    def _changes(self, process: int, name: str, arguments: list[int]) -> bool:
        if name == "openat":
            return bool(arguments[2] & _WRITES)
        if name == "open":
            return bool(arguments[1] & _WRITES)
        if name == "openat2":
            return bool(struct.unpack("=Q", self._memory(process, arguments[2], 8))[0] & _WRITES)
        if name == "ioctl":
            return arguments[1] >> 8 & 0xFF == _FILE_SYSTEM_IOCTL
        return True

    def _path(self, process: int, where: str, arguments: list[int]) -> str:
        """The absolute path of the file that the call is about."""
        kind, index = where[0], int(where[1])
        if kind == "f":
            descriptor = _signed(arguments[index])
            return os.readlink(f"/proc/{process}/fd/{descriptor}") if descriptor >= 0 else ""
        directory = _AT_FDCWD
        if kind == "a":
            directory = _signed(arguments[index])
            index += 1
        text = b""
        if arguments[index]:
            text = self._memory(process, arguments[index], 4096).partition(b"\0")[0]
        name = os.fsdecode(text)
        if name.startswith("/proc/self/fd/"):
            number, _, below = name.removeprefix("/proc/self/fd/").partition("/")
            return os.path.join(os.readlink(f"/proc/{process}/fd/{number}"), below)
        if name.startswith("/"):
            return name
        link = "cwd" if directory == _AT_FDCWD else f"fd/{directory}"
        base = os.readlink(f"/proc/{process}/{link}")
        return os.path.join(base, name) if name else base

    @staticmethod
    def _memory(process: int, address: int, most: int) -> bytes:
        with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(most)


def _signed(argument: int) -> int:
    """A descriptor is an int, in an argument of 64 bits."""
    return ctypes.c_int(argument & 0xFFFFFFFF).value
