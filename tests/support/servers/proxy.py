"""A proxy that stands before a server and does to requests what networks, servers and attackers do to them."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import re
import select
import socket
import ssl
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from support.servers.base import PATIENCE, Request, Server, certificate

_PIECE = 1 << 18
_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"}


class Asked(NamedTuple):
    """A request that has arrived."""

    number: int
    """1 is the first since the proxy started"""
    method: str
    path: str
    headers: Mapping[str, str]
    """with names in lower case"""


class Fault(NamedTuple):
    """What is done to a request, in this order. Without any of it, it is passed on."""

    rate: int = 0
    """bytes per second of both bodies"""
    delay: float = 0
    """seconds, when all of the request is here"""
    lose: Literal["", "request", "answer"] = ""
    """hang up before the upstream is asked, or after it has done what was asked"""
    status: int = 0
    """answer that, and do not ask the upstream"""
    retry_after: str = ""
    """with that header"""
    text: str = ""
    """and that body"""
    redirect: str = ""
    """answer 302 (or ``status``) with this address and the path that was asked for"""
    whole: bool = False
    """do not pass on Range: the server answers 200 with everything. S3 requests are signed with it, and fail"""
    fewer: int = 0
    """bytes that are missing at the end of a range; Content-Range says so, as a server may"""
    wrong: int = -1
    """offset of a wrong byte in the answer's body"""
    cut: int = -1
    """hang up after so many bytes of the answer's body, though the headers promise all of it"""


Rule = Callable[[Asked], Fault | None]


class _Gone(Exception):
    """The client has left, or we are to end."""


class FaultyProxy(Server):
    """Forwards to ``upstream``, a URL without a path, in threads of this process. It is https if the upstream is.

    Faults come from `add`, or from a callable in `rule`, which is asked for every request that `add` left alone.
    ``latency`` in seconds is added to every request. A new connection costs nothing more, while in a real network its
    handshakes do. (tc netem would do that, but needs a kernel that has it.)
    """

    def __init__(self, upstream: str, rule: Rule | None = None, *, latency: float = 0) -> None:
        super().__init__()
        self.upstream = urlsplit(upstream)
        self.rule = rule
        self.latency = latency
        self._done: list[Request] = []
        self._added: list[tuple[str, str, Fault, int]] = []
        self.asked = 0
        """how many requests have arrived"""
        self._active = 0
        self._changed = threading.Condition()

    def add(self, fault: Fault, *, method: str = "", path: str = "", times: int = 1) -> None:
        """Do it to the next ``times`` requests of this method whose path contains ``path``: first added, first used."""
        with self._changed:
            self._added.append((method, path, fault, times))

    def clear(self) -> None:
        """No more faults."""
        with self._changed:
            self._added.clear()
            self.rule = None

    def _answered(self) -> list[Request]:
        with self._changed:  # the last byte of an answer is sent before it is noted
            self._changed.wait_for(lambda: self._active == 0, PATIENCE)
            return list(self._done)

    def __enter__(self) -> FaultyProxy:
        self._folder = tempfile.TemporaryDirectory(prefix="holo-proxy-")
        folder = Path(self._folder.name)
        self.authority = certificate().write(folder)
        tls = None
        if self.upstream.scheme == "https":
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._server = _Listener(self, tls)
        self.url = f"{self.upstream.scheme}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()  # waits for the threads
        self._folder.cleanup()
        assert not self._server.mistakes or kind, "\n".join(self._server.mistakes)

    def begin(self, method: str, path: str, headers: Mapping[str, str]) -> Fault:
        """A request has arrived: what is to be done to it?"""
        with self._changed:
            self._active += 1
            self.asked += 1
            asked = Asked(self.asked, method, path, headers)
            for place, (its_method, its_path, fault, times) in enumerate(self._added):
                if its_method in {"", method} and its_path in path:
                    self._added[place : place + 1] = [(its_method, its_path, fault, times - 1)] if times > 1 else []
                    return fault
        return (self.rule and self.rule(asked)) or Fault()

    def end(self, request: Request | None) -> None:
        with self._changed:
            self._active -= 1
            if request:
                self._done.append(request)
            self._changed.notify_all()


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256

    def __init__(self, proxy: FaultyProxy, tls: ssl.SSLContext | None) -> None:
        self.proxy, self.tls = proxy, tls
        self.mistakes: list[str] = []
        self.ending, self._end = socket.socketpair()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = False
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with request:
            with self._lock:
                if self._ended:
                    return
                self._connections.add(request)
            try:
                if self.tls:
                    request.do_handshake()
                _Handler(request, client_address, self)
            finally:
                with self._lock:
                    self._connections.discard(request)

    def hang_up(self) -> None:
        """Wake all threads, whatever they wait for."""
        with self._lock:
            self._ended = True
            self._end.close()
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client was quicker
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # below TLS, which another thread is using

    def server_close(self) -> None:
        super().server_close()
        self.ending.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave at any time; all else is a mistake of ours, and raised at the end."""
        if not isinstance(sys.exc_info()[1], OSError):
            self.mistakes.append(traceback.format_exc())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener
    _status: int
    _sent: int
    _received: int

    def _do(self) -> None:
        proxy = self.server.proxy
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._status, self._sent, self._received = 499, 0, 0
        done = None
        try:
            try:
                self._treat(proxy.begin(self.command, self.path, headers))
            except (_Gone, OSError):
                self.close_connection = True
            done = Request(
                self.command,
                self.path,
                self._status,
                self._sent,
                self._received,
                headers.get("range", ""),
                headers=headers,
            )
        finally:
            proxy.end(done)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do  # noqa: N815 - the names that the base class looks for

    def _treat(self, fault: Fault) -> None:
        body = b"".join(self._receive(fault.rate))
        self._wait(self.server.proxy.latency + fault.delay)
        if fault.lose == "request":
            raise _Gone
        if fault.redirect:
            self._say(fault.status or 302, [("Location", fault.redirect.rstrip("/") + self.path)])
        elif fault.status:
            self._say(fault.status, [("Retry-After", fault.retry_after)] if fault.retry_after else [], fault.text)
        else:
            self._forward(fault, body)

    def _receive(self, rate: int) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, _piece(rate)))
            if not piece:
                raise _Gone
            self._received += len(piece)
            left -= len(piece)
            yield piece
            if rate:
                self._wait(len(piece) / rate, while_receiving=True)

    def _forward(self, fault: Fault, body: bytes) -> None:
        upstream = self.server.proxy.upstream
        assert upstream.hostname is not None
        if upstream.scheme == "https":
            trust = ssl.create_default_context(cadata=certificate().authority.decode())
            connection = http.client.HTTPSConnection(upstream.hostname, upstream.port, timeout=60, context=trust)
        else:
            connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        try:
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in _HOP_BY_HOP and not (fault.whole and name.lower() == "range"):
                        connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException):
                self._say(502)
                return
            with answer:
                if fault.lose == "answer":
                    raise _Gone
                self._pass(fault, answer)
        finally:
            connection.close()

    def _pass(self, fault: Fault, answer: http.client.HTTPResponse) -> None:
        promised = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        body: io.BufferedIOBase = answer
        size = answer.length
        if size is None:  # it comes in chunks, and is small: a list of objects
            everything = answer.read()
            body, size = io.BytesIO(everything), len(everything)
        if answer.status == 206 and fault.fewer:
            size -= min(fault.fewer, size - 1)
            first = re.match(r"bytes (\d+)-\d+(/.*)", promised["content-range"])
            assert first is not None
            promised["content-range"] = f"bytes {first[1]}-{int(first[1]) + size - 1}{first[2]}"
        if self.command != "HEAD" and answer.status not in {204, 304}:
            promised["content-length"] = str(size)
        self._begin(answer.status, list(promised.items()))
        while self._sent < size:
            piece = body.read(min(_piece(fault.rate), size - self._sent))
            if not piece:
                raise _Gone
            if self._sent <= fault.wrong < self._sent + len(piece):
                place = fault.wrong - self._sent
                piece = piece[:place] + bytes([piece[place] ^ 0xFF]) + piece[place + 1 :]
            if 0 <= fault.cut <= self._sent + len(piece):
                piece = piece[: fault.cut - self._sent]
                self._send(piece)
                raise _Gone
            self._send(piece)
            if fault.rate:
                self._wait(len(piece) / fault.rate)

    def _say(self, status: int, headers: list[tuple[str, str]] | None = None, said: str = "") -> None:
        """An answer of our own."""
        text = said.encode() or f"{status} by the proxy\n".encode()
        self._begin(status, [*(headers or []), ("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        if self.command != "HEAD":
            self._send(text)

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self._status = status

    def _send(self, piece: bytes) -> None:
        self.wfile.write(piece)
        self._sent += len(piece)

    def _wait(self, seconds: float, *, while_receiving: bool = False) -> None:
        """Sleep, unless the proxy ends or the client leaves: one that waits for its answer sends nothing."""
        if seconds <= 0:
            return
        poll = select.poll()
        poll.register(self.server.ending, select.POLLIN)
        if not while_receiving:
            poll.register(self.connection, select.POLLIN)
        if poll.poll(seconds * 1000):
            raise _Gone

    def log_message(self, *_: object) -> None:
        pass


def _piece(rate: int) -> int:
    """Bytes to move at once."""
    return max(1, rate // 20) if rate else _PIECE
