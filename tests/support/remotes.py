"""Remotes as the tests see them: what is in them, what was asked of them, and how to change them behind holo's back."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from xml.etree import ElementTree

import zstandard
from blake3 import blake3

from support import contents
from support.cli import Result
from support.machines import Machine
from support.servers import Request, S3Server, Server, moto_s3, nginx_static, rclone_s3
from support.servers.s3 import KEY, REGION

KINDS = ("folder", "https", "rclone", "moto")
CONDITIONAL = ("folder", "moto")
"""Those in which nothing is replaced that somebody else has changed meanwhile."""

_numbers = itertools.count(1)


class Objects(Protocol):
    """The objects of a remote, without holo."""

    def sizes(self) -> dict[str, int]:
        """All of them, with their bytes."""

    def read(self, key: str) -> bytes: ...

    def write(self, key: str, content: bytes) -> None: ...

    def remove(self, key: str) -> None: ...


class Files:
    """Objects that are files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sizes(self) -> dict[str, int]:
        found = (path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in found}

    def read(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be read-only
        path.write_bytes(content)

    def remove(self, key: str) -> None:
        (self.folder / key).unlink()


class Bucket:
    """Objects of a server that checks no signatures."""

    def __init__(self, server: S3Server, prefix: str) -> None:
        self._url = f"{server.direct}/{server.bucket}"
        self._prefix = prefix

    def sizes(self) -> dict[str, int]:
        listing = ElementTree.fromstring(self._ask("GET", f"?list-type=2&prefix={self._prefix}/"))
        space = listing.tag.partition("}")[0] + "}"
        assert listing.findtext(f"{space}IsTruncated") == "false"
        return {
            str(item.findtext(f"{space}Key")).removeprefix(f"{self._prefix}/"): int(item.findtext(f"{space}Size") or 0)
            for item in listing.iter(f"{space}Contents")
        }

    def read(self, key: str) -> bytes:
        return self._ask("GET", self._path(key))

    def write(self, key: str, content: bytes) -> None:
        self._ask("PUT", self._path(key), content)

    def remove(self, key: str) -> None:
        self._ask("DELETE", self._path(key))

    def _path(self, key: str) -> str:
        return f"/{self._prefix}/{urllib.parse.quote(key)}"

    def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        host = urllib.parse.urlsplit(self._url)
        connection = http.client.HTTPConnection(str(host.hostname), host.port, timeout=60)
        # It looks who asks, but not whether it is true. As a form, content would be taken apart.
        headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/{REGION}/s3/aws4_request"}
        if content is not None:
            headers["Content-Type"] = "application/octet-stream"
        with contextlib.closing(connection):
            connection.request(method, host.path + path, content, headers)
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status < 300, f"{method} {path}: {answer.status}"
            return data


class Place(NamedTuple):
    """A remote, new and empty."""

    kind: str
    to: str
    """the URL to push to"""
    url: str
    """the URL to pull from: of a static web server it is another"""
    objects: Objects
    server: Server | None
    """whose log has what was asked"""
    environment: Mapping[str, str]
    """by which holo finds it"""

    @property
    def requests(self) -> list[Request]:
        """What was asked since `forget`; of a folder nobody knows."""
        return self.server.requests if self.server is not None else []

    def forget(self) -> None:
        if self.server is not None:
            self.server.forget()

    def names(self) -> dict[str, str]:
        """The digests that names mean."""
        return {
            key.partition("/")[2]: json.loads(self.objects.read(key))["catalog"]
            for key in self.objects.sizes()
            if key.startswith("names/")
        }

    def problems(self) -> list[str]:
        """In what it is not valid. Garbage is."""
        return problems(self.objects)


def problems(objects: Objects) -> list[str]:
    """In what a remote is not valid, by reading all of it. Without holo, but for the form of a map."""
    keys, found = objects.sizes(), []
    for key in keys:
        kind, _, name = key.partition("/")
        if kind == "packs" and contents.digest(objects.read(key)) != name:
            found.append(f"{key} has wrong bytes")
        if kind in {"names", "keys"}:
            pointer = json.loads(objects.read(key))
            if (pointer["kind"] + "s", pointer["name"]) != (kind, name):
                found.append(f"{key} is of another name")
            if f"catalogs/{pointer['catalog']}" not in keys:
                found.append(f"{key} means a catalog that is not there")
        if kind == "catalogs" and not name.endswith(".sig"):
            map_, document = map_and_catalog(objects.read(key))
            if blake3(document).hexdigest() != name:
                found.append(f"{key} has wrong bytes")
            found += [
                f"{key} needs pack {digest}, which is not there"
                for digest, size in map_["packs"]
                if keys.get(f"packs/{digest}") != size
            ]
    return found


def map_and_catalog(data: bytes) -> tuple[dict[str, Any], bytes]:
    """What is in the object of a catalog."""
    line, _, document = zstandard.ZstdDecompressor().decompressobj().decompress(data).partition(b"\n")
    return json.loads(line), document


def catalog_object(map_: Mapping[str, object], document: bytes) -> bytes:
    """The object of a catalog, with any map."""
    return zstandard.ZstdCompressor().compress(json.dumps(map_).encode() + b"\n" + document)


QUICK = {"holo.remote.remote._FIRST_PAUSE": 0.01, "holo.remote.garbage._WAIT": 0.05}
"""Constants of holo, for remotes that only look as if they were far away."""


class Places:
    """Remotes of all kinds. A server starts when its kind is first asked for; each remote is a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """``folder``: for all files, readable for every user."""
        self._folder = folder
        folder.chmod(0o755)
        self._running: dict[str, tuple[AbstractContextManager[Any], Any]] = {}

    def new(self, kind: str) -> Place:
        name = f"remote-{next(_numbers)}"
        if kind in {"folder", "https"}:
            root = self._folder / "files" / name
            root.mkdir(parents=True)
            if kind == "folder":
                return Place(kind, str(root), root.as_uri(), Files(root), None, {})
            static = self._server(kind, lambda: nginx_static(self._folder / "files"))
            static.forget()
            return Place(kind, str(root), f"{static.url}/{name}", Files(root), static, self.trusting(static))
        s3: S3Server = self._server(kind, moto_s3 if kind == "moto" else lambda: rclone_s3(self._objects()))
        s3.forget()
        url = f"s3://{s3.bucket}/{name}"
        objects = Bucket(s3, name) if s3.folder is None else Files(s3.folder / name)
        return Place(kind, url, url, objects, s3, s3.environment)

    def trusting(self, server: Server) -> dict[str, str]:
        """The variables with which any user trusts a server."""
        authority = self._folder / "authority.pem"
        authority.write_bytes(server.authority.read_bytes())
        return {"REQUESTS_CA_BUNDLE": str(authority)}

    def close(self) -> None:
        while self._running:
            self._running.popitem()[1][0].__exit__(None, None, None)

    def _objects(self) -> Path:
        folder = self._folder / "objects"
        folder.mkdir()
        return folder

    def _server(self, kind: str, start: Callable[[], AbstractContextManager[Any]]) -> Any:
        if kind not in self._running:
            context = start()
            self._running[kind] = context, context.__enter__()
        return self._running[kind][1]


class Client:
    """A machine that uses a remote, with pauses of some milliseconds."""

    def __init__(self, machine: Machine, place: Place) -> None:
        self.machine = machine
        self.place = place
        machine.tune = QUICK

    def __call__(self, *arguments: Any, code: int = 0, **environment: str) -> Result:
        return self.machine(*arguments, code=code, env={**self.place.environment, **environment})

    def push(self, *arguments: Any, **more: Any) -> Any:
        return self("push", *arguments, self.place.to, "--json", **more).json()

    def pull(self, *arguments: Any, **more: Any) -> Any:
        return self("pull", arguments[0], self.place.url, *arguments[1:], "--json", **more).json()
