"""Measure push and pull on loopback beside curl, tar, zstd and rclone. Linux, as root; README.md says how."""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import network
import trees
from commands import Tools
from filesystems import Filesystem, UnavailableError, mounted
from filesystems import run as call
from measure import Case, FailedError, Timing, alternate, execute
from program import chosen, heading, note, parser, table, verdict
from run import MEGABYTE, scale, start

if TYPE_CHECKING:
    from support.servers import Nginx, S3Server, Server

LATENCY = 50  # milliseconds of a round trip
TOGETHER, APART = "init, HOLO_REMOTE set", "pull, init"
UNPACK, COPY, MANY = "curl, zstd -dc, tar -x", "rclone copy", "rclone copy --transfers 32"
PUSH, SEND, SEND_ALL = "push", "tar, zstd -3, rclone rcat", "tar, zstd -3 -T0, rclone rcat"
AND_SYNC = " && sync -f"
FAR = f", {LATENCY} ms"


@dataclass(frozen=True)
class Row:
    """One claim: `holo` takes at most `target` times as long as `peer`."""

    holo: str
    peer: str
    target: float | None = None  # nothing claimed, but worth seeing


ROWS = (
    Row(TOGETHER, UNPACK, 0.9),
    Row(TOGETHER, UNPACK + AND_SYNC),
    Row(APART, UNPACK),
    Row(TOGETHER, COPY, 0.3),
    Row(TOGETHER, MANY),
    Row(PUSH, SEND, 1),
    Row(PUSH, SEND_ALL),
    Row(TOGETHER + FAR, UNPACK + FAR, 1),
    Row(TOGETHER + FAR, MANY + FAR),
    Row(TOGETHER + FAR, COPY + FAR, 0.05),
)
PARTS = ("near", "far", "requests")
ONCE = (MANY + FAR, COPY + FAR)
"""Minutes, in which the machine only waits: measured in one round, without one that warms up."""


class Yard:
    """One filesystem with the environment, its library, a remote, an archive, and the servers that give them out."""

    def __init__(self, filesystem: Filesystem, tools: Tools) -> None:
        self.filesystem = filesystem
        self.tools = tools
        self.root = filesystem.root
        self.environment = self.root / "env"
        self.library = self.root / "library"
        self.fresh = self.root / "fresh"
        self.target = self.root / "copy"
        self.served = self.root / "served"
        self.objects = self.root / "objects"
        execute(tools.install(self.environment, tools.cache, "copy"), tools.environment)
        self.count = trees.count(self.environment)
        for folder in (self.served, self.objects):
            folder.mkdir()
        execute([*tools.holo, "record", str(self.environment), "--name", "env"], self._at())
        execute([*tools.holo, "push", "env", str(self.served)], self._at())
        target = shlex.quote(str(self.served / "env.tar.zst"))
        execute(["sh", "-c", f"{self._tar()} | zstd -3 -T0 -q -f -o {target}"], tools.environment)
        shutil.copytree(self.library / "hololib" / "library", self.served / "library")
        self.blobs = trees.count(self.served / "library")

    def open(self, opened: ExitStack) -> None:
        """Start the servers."""
        self.web: Nginx = opened.enter_context(network.web(self.served))
        self.bucket: S3Server = opened.enter_context(network.bucket(self.objects))
        self.far = opened.enter_context(network.delayed(self.web.url, LATENCY))

    # -- cases --------------------------------------------------------------------------------------------

    def cases(self) -> Iterator[Case]:
        """What is measured in turn."""
        yield self._together(TOGETHER, self.web.url)
        yield self._apart(APART, self.web.url)
        for label in ("", AND_SYNC):
            yield self._unpack(UNPACK + label, self.web.url, label and f"{label} {shlex.quote(str(self.target))}")
        yield self._copy(COPY, self.web.url)
        yield self._copy(MANY, self.web.url, "--transfers", "32", "--checkers", "32")
        yield self._push(PUSH, self.bucket.direct)
        yield self._send(SEND, "zstd -3 -q")
        yield self._send(SEND_ALL, "zstd -3 -T0 -q")
        yield self._together(TOGETHER + FAR, self.far)
        yield self._unpack(UNPACK + FAR, self.far, "")
        yield self._copy(COPY + FAR, self.far)
        yield self._copy(MANY + FAR, self.far, "--transfers", "32", "--checkers", "32")

    def counted(self) -> Iterator[tuple[Case, Server]]:
        """What is asked of which server, for the table of requests."""
        yield self._together(TOGETHER, self.web.url), self.web
        again = ["sh", "-c", f"{self._holo()} pull env {self.web.url} > /dev/null"]
        keep = self._case("pull, of what is there", again, home=self.root / "filled")
        execute(keep.command, keep.environment)  # fills it
        yield keep, self.web
        yield self._unpack(UNPACK, self.web.url, ""), self.web
        yield self._copy(COPY, self.web.url), self.web
        yield self._push(PUSH, self.bucket.url, "counted", after=lambda: None), self.bucket
        yield self._push(f"{PUSH}, of what is there", self.bucket.url, "counted"), self.bucket

    def _together(self, name: str, url: str) -> Case:
        command = [*self.tools.holo, "init", "--space", "new", "--to", str(self.target), "env"]
        return self._case(name, command, home=self.fresh, after=self._expect_copy, HOLO_REMOTE=url)

    def _apart(self, name: str, url: str) -> Case:
        target = shlex.quote(str(self.target))
        line = f"{self._holo()} pull env {url} > /dev/null && exec {self._holo()} init --space new --to {target} env"
        return self._case(name, ["sh", "-c", line], home=self.fresh, after=self._expect_copy)

    def _unpack(self, name: str, url: str, more: str) -> Case:
        target = shlex.quote(str(self.target))
        fetch = f"curl --silent --fail --cacert {self.web.authority} {url}/env.tar.zst"
        line = f"mkdir {target} && {fetch} | zstd -dc | tar -C {target} -x{more}"
        return self._case(name, ["sh", "-c", line], after=self._expect_copy)

    def _copy(self, name: str, url: str, *more: str) -> Case:
        # Without asking for the size of each file first, which would be as many requests again.
        source = ["--http-url", f"{url}/library", "--http-no-head", "--ca-cert", str(self.web.authority)]
        command = [network.rclone(), "copy", *source, *more, ":http:", str(self.target)]
        return self._case(name, command, after=self._expect_blobs)

    def _push(self, name: str, url: str, place: str = "$$", after: Callable[[], None] | None = None) -> Case:
        """To a new place each time (the shell's number): the server remembers what it has seen, for a while."""
        line = f"exec {self._holo()} push env s3://{self.bucket.bucket}/{place}"
        access = self.bucket.environment | {"AWS_ENDPOINT_URL": url}
        return self._case(name, ["sh", "-c", line], after=after or self._empty_bucket, **access)

    def _send(self, name: str, compress: str) -> Case:
        target = f"bench:{self.bucket.bucket}/$$.tar.zst"
        line = f"{self._tar()} | {compress} | {shlex.quote(network.rclone())} rcat {target}"
        access = network.remote_environment(self.bucket, self.root / "rclone.conf")
        return self._case(name, ["sh", "-c", line], after=self._empty_bucket, **access)

    def _holo(self) -> str:
        return shlex.join(self.tools.holo)

    def _tar(self) -> str:
        return f"tar -C {shlex.quote(str(self.environment))} -c ."

    def _case(
        self,
        name: str,
        command: list[str],
        home: Path | None = None,
        after: Callable[[], None] = lambda: None,
        **variables: str,
    ) -> Case:
        return Case(name, command, self._at(home) | variables, after=after)

    def _at(self, home: Path | None = None) -> dict[str, str]:
        nowhere = self.root / "config"  # no settings file of the user's
        found = self.tools.environment | {"HOLO_HOME": str(home or self.library), "XDG_CONFIG_HOME": str(nowhere)}
        if hasattr(self, "web"):
            found["REQUESTS_CA_BUNDLE"] = str(self.web.authority)
        return found

    # -- after a command ----------------------------------------------------------------------------------

    def _expect_copy(self) -> None:
        """A command that leaves things out must not win."""
        made = trees.count(self.target)
        if (made.files, made.symlinks, made.directories) != (
            self.count.files,
            self.count.symlinks,
            self.count.directories,
        ):
            raise FailedError(f"{self.target} is not a copy: {made}, not {self.count}")
        self._clear()

    def _expect_blobs(self) -> None:
        if (made := trees.count(self.target)).bytes != self.blobs.bytes:
            raise FailedError(f"{self.target} is not a copy: {made}, not {self.blobs}")
        self._clear()

    def _empty_bucket(self) -> None:
        kept = self.bucket.folder
        assert kept is not None
        if trees.count(kept).bytes < self.count.bytes // 8:
            raise FailedError(f"not all of it is in the bucket: {trees.count(kept)}")
        for entry in kept.iterdir():
            self.filesystem.remove(entry)

    def _clear(self) -> None:
        for made in (self.fresh, self.target):
            self.filesystem.remove(made)


def line(row: Row, timings: dict[str, Timing]) -> list[str]:
    """One row of the table of times."""
    target = "" if row.target is None else f"{row.target:g}x"
    holo, peer = timings.get(row.holo), timings.get(row.peer)
    if holo is None or peer is None:
        return [row.holo, row.peer, "", "", "", "failed", target, verdict(None if row.target is None else False)]
    seconds, against = statistics.median(holo.seconds), statistics.median(peer.seconds)
    spread = f"{min(holo.seconds):.3f}-{max(holo.seconds):.3f}"
    found = [row.holo, row.peer, f"{seconds:.3f}", spread, f"{against:.3f}", f"{seconds / against:.2f}x", target]
    return [*found, verdict(None if row.target is None else seconds <= row.target * against)]


def once(case: Case, filesystem: Filesystem) -> Timing:
    """A single measurement."""
    note(f"once: {case.name}")
    filesystem.settle()
    begin = time.perf_counter()
    execute(case.command, case.environment)
    seconds = time.perf_counter() - begin
    case.after()
    return Timing([seconds])


def requests(yard: Yard) -> Iterator[list[str]]:
    """The lines of the table of requests, from the servers' logs."""
    for case, server in yard.counted():
        note(f"counting: {case.name}")
        server.forget()
        execute(case.command, case.environment)
        found = server.requests
        sent, received = (sum(getattr(each, name) for each in found) / MEGABYTE for name in ("sent", "received"))
        yield [case.name, f"{len(found):,}", f"{sent:.1f} MB", f"{received:.1f} MB"]
        case.after()


def measure(filesystem: Filesystem, tools: Tools, options: argparse.Namespace) -> tuple[Sequence[list[str]], ...]:
    """The lines of the tables of times and of requests for one filesystem."""

    def remark(text: str) -> None:
        note(f"{filesystem.name}: {text}")

    remark("preparing")
    yard = Yard(filesystem, tools)
    with ExitStack() as opened:
        yard.open(opened)
        counts = [*requests(yard)] if "requests" in options.parts else []
        cases = {case.name: case for case in yard.cases()}
        wanted = [row for row in ROWS if ("far" if FAR in row.holo else "near") in options.parts]
        names = list(dict.fromkeys(name for row in wanted for name in (row.holo, row.peer)))
        turns = [cases[name] for name in names if name not in ONCE]
        timings = alternate(turns, options.rounds, filesystem.settle, remark)
        timings |= {name: once(cases[name], filesystem) for name in names if name in ONCE}
    return [line(row, timings) for row in wanted], counts


def measure_all(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print."""
    for tool in ("tar", "zstd", "curl", "nginx"):
        if shutil.which(tool, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin") is None:
            raise UnavailableError(f"{tool} is not installed")
    tools = Tools.find(options.holo, workspace, options.quick)
    times: list[list[str]] = []
    counts: list[list[str]] = []
    for name in options.filesystems:
        with mounted(name, workspace, scale(options).image) as filesystem:
            found = measure(filesystem, tools, options)
        times += [[name, *cells] for cells in found[0]]
        counts += found[1]
    versions = {
        "curl": call("curl", "--version").split()[1],
        "rclone": call(network.rclone(), "--version").split()[1],
        "zstd": call("zstd", "--version").split(" v")[1].split(",")[0],
    }
    heading(tools.versions() | versions, f"Medians of {options.rounds} rounds.")
    if options.quick:
        print("A quick run: too small to judge anything by.")
    titles = ["on", "holo", "against", "holo s", "least-most", "peer s", "ratio", "at most", ""]
    if times:
        table(titles, times)
    if counts:
        table(["command", "requests", "sent by the server", "received"], counts)
    return all("failed" not in cells for cells in times)


def main() -> int:
    """Run, print, and leave nothing behind."""
    options = parser(__doc__, rounds=3)
    options.set_defaults(filesystems=["ext4"])
    options.add_argument(
        "--parts", type=lambda text: chosen(PARTS, text), default=list(PARTS), help="near,far,requests"
    )
    return start(measure_all, options)


if __name__ == "__main__":
    sys.exit(main())
