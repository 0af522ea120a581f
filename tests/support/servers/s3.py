"""Two S3 servers. Neither does all that S3 does: one keeps its objects in a folder, the other has conditional puts."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.servers.base import Request, Server, missing, program, running, wait_for
from support.servers.nginx import nginx_log

BUCKET, REGION = "holo", "us-east-1"
KEY, SECRET = "AKIDHOLOTESTS", "c2VjcmV0LW9mLXRoZS10ZXN0cw"


class S3Server(Server):
    """An S3 server with an empty bucket. Its requests are those that nginx, in front of it, has in its log."""

    def __init__(self, front: Server, direct: str, folder: Path | None) -> None:
        super().__init__()
        self.url = front.url
        self.direct = direct
        """its own address, for measurements: nothing is in between, and nothing is noted in `requests`"""
        self.folder = folder
        """where the objects of the bucket are files, if they are"""
        self.bucket = BUCKET
        self._front = front

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which obstore and other clients find it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
        }

    def _answered(self) -> list[Request]:
        return self._front.requests


@contextmanager
def rclone_s3(folder: Path) -> Iterator[S3Server]:
    """rclone's `serve s3`: objects are the files below ``folder``/holo, written in one step. Signatures are checked.

    Tried with rclone 1.75.2:

    - It ignores If-None-Match and If-Match: ``put(mode="create")`` and ``put(mode={"e_tag": ...})`` of obstore
      overwrite whatever is there, and succeed. Use :func:`moto_s3` for conditional puts.
    - It answers a range with 200, which obstore refuses. The nginx in front says 206; ``direct`` does not.
    - Its own log names objects, but no status and no size; hence that nginx.
    - An entry of a list has its ETag without the quotes that HEAD, GET and PUT give it.

    obstore needs ``S3Store("holo", config={"endpoint": url, "region": ..., "access_key_id": ..., "secret_access_key":
    ...}, client_options={"allow_http": True})``, or the variables in `environment` and no more than
    ``from_url("s3://holo")``. Its requests have the bucket in the path unless told otherwise.
    """
    bucket = folder / BUCKET
    bucket.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="holo-rclone-") as name:
        log, configuration = Path(name, "log"), Path(name, "rclone.conf")
        configuration.touch()
        options = ["--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{SECRET}", "--config", configuration]
        options += ["--cache-dir", Path(name, "cache")]
        options += ["--dir-cache-time", "1ms"]  # a test may change the files itself; with 0s it is busy for ever
        with (
            running([program("rclone"), "serve", "s3", *options, folder], log) as process,
            nginx_log(direct := wait_for(lambda: _address(log), process, log), says_206=False) as front,
        ):
            yield S3Server(front, direct, bucket)


@contextmanager
def moto_s3() -> Iterator[S3Server]:
    """moto's S3: objects are in its memory, and no signature is checked. It starts in a second: share it in a module.

    It honours conditional puts (tried with moto 5.2.5 and obstore 0.12.1):

    - If-None-Match: * on what is there, and If-Match with another ETag: 412, AlreadyExistsError and PreconditionError;
    - If-Match on what is not there: 404, PreconditionError.

    With these modes obstore sends one PUT, of any size; without, one of more than 5 MiB in parts.
    """
    if importlib.util.find_spec("moto") is None:
        missing("moto")
    with tempfile.TemporaryDirectory(prefix="holo-moto-") as name:
        log = Path(name, "log")
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        with (
            running(command, log, env={"TMPDIR": name}) as process,
            nginx_log(direct := wait_for(lambda: _address(log), process, log)) as front,
        ):
            urllib.request.urlopen(urllib.request.Request(f"{direct}/{BUCKET}", method="PUT")).close()
            yield S3Server(front, direct, None)


def _address(log: Path) -> str | None:
    """Both choose a free port, and say it when they listen."""
    found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text(errors="replace"))
    return found and found[0]
