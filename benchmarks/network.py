"""Servers on loopback for the benchmarks of remotes: those of the tests, and a line that is slow to answer.

`python network.py PORT MILLISECONDS` is that line: it prints the port where it listens, and passes every connection on
to PORT of this machine. A round trip takes so long, that of the connection's own handshake as well. The rate is not
limited, and neither is what may be on the way, so it is a long line and not a thin one. (netem of tc would do it in the
kernel, and needs one that has it.)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

if TYPE_CHECKING:
    from support.servers import Nginx, S3Server, Server

_PIECE = 1 << 18
_SESSION = 3  # the field of /proc/PID/stat, counted from the one after the program's name


@contextmanager
def web(folder: Path) -> Iterator[Nginx]:
    """nginx, which gives out a folder by https, and lists what is in it for who copies file by file."""
    from support.servers import nginx

    listing = nginx.STATIC.replace("{authentication}", "            autoindex on;")
    with nginx._nginx(listing, root=str(folder)) as server:
        yield server


@contextmanager
def bucket(folder: Path) -> Iterator[S3Server]:
    """rclone's S3, which keeps its objects in a folder.

    As the tests have it, but with rclone's own cache of folders: without that, several puts at once wait for seconds.
    """
    from support.servers import base, s3
    from support.servers.nginx import nginx_log

    (folder / s3.BUCKET).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="holo-rclone-") as name:
        log, configuration = Path(name, "log"), Path(name, "rclone.conf")
        configuration.touch()
        command = [rclone(), "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", f"{s3.KEY},{s3.SECRET}"]
        command += ["--config", str(configuration), "--cache-dir", str(Path(name, "cache")), str(folder)]
        with (
            base.running(command, log) as process,
            nginx_log(direct := base.wait_for(lambda: _address(log), process, log), says_206=False) as front,
        ):
            yield s3.S3Server(front, direct, folder / s3.BUCKET)


def _address(log: Path) -> str | None:
    found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text(errors="replace"))
    return found and found[0]


def rclone() -> str:
    """The program."""
    from support.servers.base import program

    return program("rclone")


def remote_environment(server: Server, config: Path) -> dict[str, str]:
    """What lets rclone know an S3 server as ``bench:``, and keeps it from any settings of the user's."""
    found = {"RCLONE_CONFIG": str(config)}
    config.touch()
    names = {"ENDPOINT": server.direct, "TYPE": "s3", "PROVIDER": "Rclone"}  # type: ignore[attr-defined]
    access = server.environment  # type: ignore[attr-defined]
    names |= {"ACCESS_KEY_ID": access["AWS_ACCESS_KEY_ID"], "SECRET_ACCESS_KEY": access["AWS_SECRET_ACCESS_KEY"]}
    return found | {f"RCLONE_CONFIG_BENCH_{name}": value for name, value in names.items()}


def processor_seconds(server: Nginx) -> float:
    """What a server and its workers have taken so far."""
    session = server._process.pid
    nanoseconds = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[_SESSION]) == session:
                nanoseconds += int((entry / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def busy_seconds() -> float:
    """What all processes and the kernel's threads have taken so far, of this whole machine: proc_stat(5)."""
    user, nice, system, _, _, interrupts, soft, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


@contextmanager
def delayed(url: str, milliseconds: float) -> Iterator[str]:
    """The same server at the end of a long line: its URL there."""
    port = str(urlsplit(url).port)
    command = [sys.executable, __file__, port, str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield url.replace(f":{port}", f":{json.loads(process.stdout.readline())}")
        finally:
            process.terminate()


class _Line:
    """One way of a connection: what comes in goes out later, in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
        self._reader = reader
        self._writer = writer
        self._seconds = seconds
        self._waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def run(self) -> None:
        sending = asyncio.create_task(self._send())
        with contextlib.suppress(OSError):
            while piece := await self._reader.read(_PIECE):
                self._waiting.put_nowait((asyncio.get_running_loop().time() + self._seconds, piece))
        self._waiting.put_nowait((asyncio.get_running_loop().time() + self._seconds, b""))
        await sending

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, piece = await self._waiting.get()
                if (left := due - loop.time()) > 0:
                    await asyncio.sleep(left)
                if not piece:
                    break
                self._writer.write(piece)
                await self._writer.drain()
        self._writer.close()


async def _serve(port: int, seconds: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)  # until the client knows that it is connected
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            _Line(reader, there_writer, seconds / 2).run(), _Line(there_reader, writer, seconds / 2).run()
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20, backlog=1024)
    print(json.dumps(server.sockets[0].getsockname()[1]), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
