"""A remote on any web server or CDN, to be read only.

Proxies, certificates and ``~/.netrc`` are those of the system, as requests takes them from the environment:
https://requests.readthedocs.io/en/latest/user/advanced/
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from holo.content import Section
from holo.errors import HoloError, UsageError
from holo.remote.store import PASSING, Absent, Interrupted, Item, Reply, read_only, too_short
from holo.urls import of_one

if TYPE_CHECKING:
    import requests

_PATIENCE = (10, 60)
"""Seconds to wait for a connection, and for the next bytes."""

_AUTHORITY = "REQUESTS_CA_BUNDLE names a file with the certificates of your own authority."
_PROXY = "HTTPS_PROXY or ALL_PROXY names it, as http://HOST:PORT; NO_PROXY says to which hosts none is used."
_PIECE = 1 << 18

_NUMBER = r"[0-9]{1,18}"  # a longer one is nonsense, and thousands of digits are an error of Python's
_RANGE = re.compile(rf"bytes ({_NUMBER})-{_NUMBER}/({_NUMBER}|\*)")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class HttpStore:
    """A :class:`~holo.remote.store.Store` that gives and takes nothing."""

    is_writable = False

    def __init__(self, url: str, *, is_verified: bool) -> None:
        """``is_verified``: what comes from it counts only if it is signed. Else it has to come by TLS."""
        parts = urlsplit(url)
        if "@" in parts.path:
            raise UsageError(
                "the URL of the remote has an @ behind a slash, so it is not clear where its password ends",
                "In a password write %2F for a slash, in a path %40 for an @.",
            )
        self.name = of_one(url).rstrip("/")
        if not is_verified and not _is_safe(url):
            raise UsageError(
                f"{self.name}: over http:// anybody on the way can put in an environment of their own",
                "Use https://, or demand signatures with `remote.allowed-signers`.",
            )
        if not parts.hostname:
            raise UsageError(f"{of_one(url)} names no host", "Write https://HOST/PATH.")
        if parts.query:
            raise UsageError(f"{self.name}: a remote has no query", "Give credentials in ~/.netrc.")
        self._url = url.rstrip("/")
        self._is_verified = is_verified
        self._session: requests.Session | None = None
        self._process = 0

    @contextmanager
    def get(self, key: str, start: int = 0, stop: int | None = None, *, fresh: bool = False) -> Iterator[Reply]:
        headers = {"Cache-Control": "no-cache"} if fresh else {}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with self._asked("GET", key, headers) as response:
            if response.status_code == 206:
                found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if found is None or int(found[1]) != start:
                    raise Interrupted("the server answered another range than it was asked for")
                size = None if found[2] == "*" else int(found[2])
                yield Reply(size, start, self._pieces(response), None)
            else:
                yield Reply(_length(response), 0, self._pieces(response), None)

    def size(self, key: str) -> int | None:
        try:
            with self._asked("HEAD", key, {}) as response:
                return _length(response) or 0
        except Absent:
            return None

    def create(self, key: str, content: Section, *, anyway: bool = False) -> bool:
        raise read_only(self)

    def replace(self, key: str, content: bytes, version: str | None) -> bool:
        raise read_only(self)

    def items(self, prefix: str) -> Iterator[Item]:
        raise UsageError(
            f"{self.name} is a web server, which does not tell what it has", "Ask the bucket or folder that it serves."
        )

    def remove(self, keys: Sequence[str]) -> None:
        raise read_only(self)

    @contextmanager
    def _asked(self, method: str, key: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """The answer to a request, with status 200 or 206; its body is not read yet."""
        with self._answer(method, key, headers) as response:
            self._judge(response, key)
            yield response

    def _answer(self, method: str, key: str, headers: dict[str, str]) -> requests.Response:
        import requests
        from urllib3.exceptions import LocationValueError

        # What is compressed is holo's to inflate, and a range is of what is stored.
        headers = {"User-Agent": "holo", "Accept-Encoding": "identity", **headers}
        try:
            return self._own_session().request(
                method,
                f"{self._url}/{quote(key)}",
                headers=headers,
                stream=True,
                timeout=_PATIENCE,
                allow_redirects=True,
            )
        except requests.exceptions.SSLError as error:
            raise HoloError(
                f"cannot trust {self.name}: {_inmost(error)}",
                _AUTHORITY,
            ) from None
        except requests.exceptions.ProxyError as error:
            raise Interrupted(f"the proxy on the way: {_inmost(error)}") from None
        except requests.exceptions.TooManyRedirects:
            raise HoloError(f"{self.name} leads from one address to another without end, for {key}") from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, LocationValueError) as error:
            if isinstance(error, requests.exceptions.InvalidProxyURL) or str(error).startswith("Proxy URL"):
                raise UsageError(f"the proxy on the way to {self.name} has no URL that can be used", _PROXY) from None
            if "SOCKS" in str(error):
                raise UsageError(
                    f"the proxy on the way to {self.name} speaks SOCKS, for which a package is missing",
                    "`pip install pysocks` beside holo.",
                ) from None
            # What it says of the URL may have the password in it.
            raise UsageError(f"{self.name} is no URL that can be asked ({type(error).__name__})") from None
        except requests.exceptions.RequestException as error:
            raise Interrupted(_inmost(error)) from None
        except OSError as error:  # of a file: the certificates, which requests looks for itself
            raise HoloError(f"cannot trust {self.name}: {error}", _AUTHORITY) from None

    def _own_session(self) -> requests.Session:
        """A session of this process: a connection that two processes use mixes up their answers."""
        if self._session is None or self._process != os.getpid():
            self._session, self._process = _new_session(is_verified=self._is_verified), os.getpid()
        return self._session

    def _judge(self, response: requests.Response, key: str) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status in (404, 410):
            raise Absent(key)
        if status == 416:
            raise too_short(self, key)
        if status in PASSING:
            raise Interrupted(f"the server answered {status} {response.reason}", _pause(response), True)
        hint = "Put the name and the password for that host into ~/.netrc." if status in (401, 403) else None
        raise HoloError(f"{self.name} answered {status} {response.reason} for {key}", hint)

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        try:
            while piece := response.raw.read(_PIECE):
                yield piece
        except HTTPError as error:
            raise Interrupted(_inmost(error)) from None


def _is_safe(url: str) -> bool:
    """Whether nobody on the way can change what comes from there."""
    parts = urlsplit(url)
    return parts.scheme != "http" or parts.hostname in _LOOPBACK


def _new_session(*, is_verified: bool) -> requests.Session:
    import requests

    class Session(requests.Session):
        """Follows redirects, with credentials only to the same host (as requests does), and never out of TLS."""

        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target = super().get_redirect_target(resp)
            if target is not None:
                following = urljoin(resp.url, target)
                is_tls = urlsplit(resp.url).scheme == "https"
                if (is_tls and urlsplit(following).scheme != "https") or not (is_verified or _is_safe(following)):
                    raise HoloError(f"{of_one(resp.url)} leads to {of_one(following)}, which is not encrypted")
            return target

    return Session()


def _length(response: requests.Response) -> int | None:
    """The bytes of an answer, if the server says how many."""
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(_NUMBER, text) is not None else None


def _pause(response: requests.Response) -> float | None:
    """The seconds that a server asks to wait (RFC 9110, 10.2.3: a number, or a date)."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _inmost(error: BaseException) -> str:
    """What went wrong, without the layers around it and the addresses of objects in them."""
    while (inner := error.__cause__ or error.__context__ or _reason(error)) is not None:
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return re.sub(r"<[^<>]*>:? ?", "", str(error)) or type(error).__name__


def _reason(error: BaseException) -> BaseException | None:
    for found in (getattr(error, "reason", None), *error.args):
        if isinstance(found, BaseException):
            return found
    return None
