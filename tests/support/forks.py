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
from typing import Any

from support.cli import Argument, Holo, Result

AT_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_")
"""Variables that Python and the C library read when they start, and then never again."""


@dataclass(frozen=True)
class User:
    """An ordinary user, of a group of its own and some others."""

    uid: int
    groups: Sequence[int] = ()
    umask: int = 0o022


class Forks:
    """`forks(arguments, env=...)` is one command, from its start to its end."""

    def __init__(self, *options: str) -> None:
        support = Path(__file__).resolve().parent.parent
        environment = {**os.environ, "PYTHONPATH": f"{support}:{support.parent}"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.server", *options],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: Argument, env: Mapping[str, str], code: int | None = 0, **more: Any) -> Result:
        """Run to the end and require the exit code. No failure may show as a traceback, or be holo's mistake.

        ``more``: as of :func:`_command`.
        """
        result = self.run(*arguments, env=env, **more)
        shown = (
            f"holo {' '.join(map(str, arguments))}: exit {result.code}, not {code}\n{result.stdout}\n{result.stderr}"
        )
        assert result.code != -signal.SIGALRM, f"hung: {shown}"
        for mistake in ("Traceback", "mistake in holo", "out of memory"):
            assert mistake not in result.stderr, shown
        assert code is None or result.code == code, shown
        return result

    def run(self, *arguments: Argument, env: Mapping[str, str], **more: Any) -> Result:
        """Run to the end, whatever that is."""
        answer = self.order("run", **_command(arguments, env, **more))
        return Result(list(arguments), answer["code"], answer["stdout"], answer["stderr"])

    def start(self, *arguments: Argument, env: Mapping[str, str], **more: Any) -> int:
        """Start it, with its output thrown away, and go on. Returns its process id, for `wait`."""
        process: int = self.order("start", **_command(arguments, env, **more))["process"]
        return process

    def wait(self, process: int) -> int:
        """The exit code of a started command, or minus the signal that ended it."""
        code: int = self.order("wait", process=process)["code"]
        return code

    def order(self, do: str, **more: Any) -> dict[str, Any]:
        """What the server answers; :mod:`support.server` says what it can be asked."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()  # the end of its stdin is the end of it


def _command(
    arguments: Sequence[Argument],
    env: Mapping[str, str],
    *,
    user: User | None = None,
    cwd: Path = Path("/"),
    memory: int = 2 << 30,
    seconds: int = 60,
    umask: int | None = None,
    tune: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """``memory`` in bytes of address space, ``seconds`` until SIGALRM; 0 is no limit.

    ``tune`` sets constants of holo, as :meth:`support.faults.Supervisor.run` does.
    """
    return {
        "arguments": [os.fsdecode(argument) for argument in arguments],
        "env": dict(env),
        "cwd": str(cwd),
        "user": user and (user.uid, user.uid, list(user.groups), user.umask),
        "memory": memory,
        "seconds": seconds,
        "umask": umask,
        "tune": dict(tune or {}),
    }


class ForkedHolo(Holo):
    """The same calls as those of :class:`Holo`, each a fork unless it has to be a start of Python."""

    def __init__(self, root: Path, forks: Forks, user: User | None = None) -> None:
        super().__init__(root)
        self._forks = forks
        self.user = user
        self.tune: dict[str, float] = {}
        """constants of holo that are others here"""

    def __call__(
        self,
        *arguments: Argument,
        code: int = 0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> Result:
        if self.launcher or any(os.environ.get(name) != env[name] for name in env or () if name.startswith(AT_START)):
            return super().__call__(*arguments, code=code, env=env, cwd=cwd, timeout=timeout)
        return self._forks(
            *arguments,
            env=self.environment(env),
            code=code,
            user=self.user,
            cwd=cwd or self.root,
            memory=0,
            tune=self.tune,
            seconds=int(timeout),
        )
