"""What the servers have in common: their requests, their certificate, and that they end."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, NoReturn, TypeVar

import pytest

_Found = TypeVar("_Found")

USER, PASSWORD = "ada", "open sesame"
"""What a server with basic authentication asks for."""

PATIENCE = 30
"""Seconds until a server that does not start, or does not end, is a failure."""


class Request(NamedTuple):
    """A request that a server has answered."""

    method: str
    path: str
    """as it was sent, with the query"""
    status: int
    """499 if the client left before the answer"""
    sent: int
    """bytes of the answer's body"""
    received: int
    """bytes of the request's body"""
    range: str
    """the header, or an empty string"""
    cache: str = ""
    """of a cache: HIT, MISS or EXPIRED; empty if it only passed the request on"""
    headers: Mapping[str, str] = MappingProxyType({})
    """of :class:`FaultyProxy` alone: those of the request, with names in lower case"""


class Server:
    """A server that runs."""

    url: str
    """without a slash at its end"""
    authority: Path
    """the certificate that clients of https have to trust: `requests` has ``verify``, or REQUESTS_CA_BUNDLE"""

    def __init__(self) -> None:
        self._forgotten = 0

    @property
    def requests(self) -> list[Request]:
        """What was asked since `forget`, in the order in which the answers ended; every answer that is out is in it."""
        return self._answered()[self._forgotten :]

    def forget(self) -> None:
        self._forgotten = len(self._answered())

    def _answered(self) -> list[Request]:
        raise NotImplementedError


class Certificate(NamedTuple):
    """In PEM: an authority, and what it signed for ``localhost`` and ``127.0.0.1``."""

    authority: bytes
    chain: bytes
    key: bytes

    def write(self, folder: Path) -> Path:
        """Write ``server.pem``, ``server.key`` and the authority, whose path is returned."""
        (folder / "server.pem").write_bytes(self.chain)
        (folder / "server.key").write_bytes(self.key)
        authority = folder / "authority.pem"
        authority.write_bytes(self.authority)
        return authority


@functools.cache
def certificate() -> Certificate:
    """One for all servers of this process. An authority of its own, for not every client trusts a self-signed one."""
    openssl = program("openssl")

    def issue(folder: Path, name: str, *more: str) -> None:
        new = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN=holo tests: {name}"]
        extensions = [argument for extension in more for argument in ("-addext", extension)]
        command = [openssl, "req", *new, "-config", "empty.cnf", *files, *extensions]
        if name != "authority":
            command += ["-CA", "authority.pem", "-CAkey", "authority.key"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    with tempfile.TemporaryDirectory(prefix="holo-certificate-") as name:
        folder = Path(name)
        (folder / "empty.cnf").write_text("[req]\ndistinguished_name = name\n[name]\n")
        # Python 3.13 and newer look for every one of these.
        signing = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign", "subjectKeyIdentifier=hash")
        issue(folder, "authority", *signing)
        names = ("basicConstraints=CA:FALSE", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        issue(folder, "server", *names, "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid")
        return Certificate(*((folder / file).read_bytes() for file in ("authority.pem", "server.pem", "server.key")))


def program(name: str) -> str:
    """Where it is. A test that lacks it is skipped, but fails in CI."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        missing(name)
    return found


def missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} must be there in CI: `make tools` and the extra `dev` bring it")
    pytest.skip(f"no {what}")


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the background, with its output in a file."""
    guard = shutil.which("setpriv")
    if guard:  # the kernel ends it when we are gone, even if we were killed
        command = [guard, "--pdeathsig", "TERM", "--", *command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for pytest, which then ends this block
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with its workers
            process.wait()


def wait_for(what: Callable[[], _Found | None], process: subprocess.Popen[bytes], log: Path) -> _Found:
    """Ask until it is there. If the process ends before that, or takes too long, what it said is raised."""
    deadline = time.monotonic() + PATIENCE
    while (found := what()) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start ({process.poll()}):\n{log.read_text(errors='replace')}")
        time.sleep(0.005)
    return found
