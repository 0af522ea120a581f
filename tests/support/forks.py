"""Running holo hundreds of times, or as another user: each in a fork of one process that has it loaded.

A start of Python costs more than most commands; and another user may not be able to read the code at all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.cli import Argument, Holo, Result

_SERVER = """
import json, os, resource, signal, sys
import concurrent.futures, ctypes, multiprocessing, yaml, zstandard
import holo.activation, holo.api, holo.catalog_model, holo.cli, holo.cli.render, holo.doctor, holo.hololib.blobs
import holo.blueprints.make, holo.check, holo.ephemeral.make, holo.glance, holo.hololib.links, holo.record, holo.restore
import encodings.unicode_escape, holo.uninstall, pickle, socket
for line in sys.stdin:
    order = json.loads(line)
    if isinstance(order, int):
        print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
        continue
    child = os.fork()
    if not child:
        for number, path in ((1, order["out"]), (2, order["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_AS, (order["memory"],) * 2)
        signal.alarm(order["seconds"])
        if order["user"]:
            uid, gid, groups, umask = order["user"]
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is the user's, as after an execve
            os.umask(umask)
        if order["umask"] is not None:
            os.umask(order["umask"])
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        sys.argv[1:] = order["arguments"]
        holo.cli.main()
    if order["wait"]:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    else:
        print(child, flush=True)
"""


@dataclass(frozen=True)
class User:
    """An ordinary user, of a group of its own and some others."""

    uid: int
    groups: Sequence[int] = ()
    umask: int = 0o022


class Forks:
    """`forks(arguments, env=...)` is one command, from its start to its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(
        self,
        *arguments: Argument,
        env: Mapping[str, str],
        code: int | None = 0,
        user: User | None = None,
        cwd: Path = Path("/"),
        memory: int = 2 << 30,
        seconds: int = 60,
        umask: int | None = None,
    ) -> Result:
        """Run to the end and require the exit code. No failure may show as a traceback, or be holo's mistake."""
        out, err = self._folder / "out", self._folder / "err"
        status = self._order(
            arguments=[os.fsdecode(argument) for argument in arguments],
            env=dict(env),
            cwd=str(cwd),
            out=str(out),
            err=str(err),
            user=user and (user.uid, user.uid, list(user.groups), user.umask),
            memory=memory,
            seconds=seconds,
            umask=umask,
            wait=True,
        )
        result = Result(list(arguments), status, *(path.read_text(errors="surrogateescape") for path in (out, err)))
        shown = f"holo {' '.join(map(str, arguments))}: exit {status}, not {code}\n{result.stdout}\n{result.stderr}"
        assert status != -signal.SIGALRM, f"hung: {shown}"
        for mistake in ("Traceback", "mistake in holo", "out of memory"):
            assert mistake not in result.stderr, shown
        assert code is None or status == code, shown
        return result

    def start(
        self, *arguments: Argument, env: Mapping[str, str], user: User | None = None, cwd: Path = Path("/")
    ) -> int:
        """Start it, with its output thrown away, and go on. Returns its process id, for `wait`."""
        return self._order(
            arguments=[os.fsdecode(argument) for argument in arguments],
            env=dict(env),
            cwd=str(cwd),
            out=os.devnull,
            err=os.devnull,
            user=user and (user.uid, user.uid, list(user.groups), user.umask),
            memory=2 << 30,
            seconds=60,
            umask=None,
            wait=False,
        )

    def wait(self, process: int) -> int:
        """The exit code of a started command, or minus the signal that ended it."""
        return self._order(process)

    def _order(self, process: int | None = None, **order: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order if process is None else process) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class ForkedHolo(Holo):
    """The same calls as those of :class:`Holo`, each a fork."""

    def __init__(self, root: Path, forks: Forks) -> None:
        super().__init__(root)
        self._forks = forks

    def __call__(
        self,
        *arguments: Argument,
        code: int = 0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> Result:
        environment = self.environment(env)
        return self._forks(*arguments, env=environment, code=code, cwd=cwd or self.root, seconds=int(timeout))
