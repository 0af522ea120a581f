"""A remote in an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

By obstore, which comes with the extra ``holotree[remote]``. Credentials and endpoints are those of the environment
(``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT_NAME`` and so
on, or what the machine that it runs on has been given): https://developmentseed.org/obstore/latest/authentication/
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from holo import platform
from holo.content import Section, write_all
from holo.errors import HoloError, UsageError, beside_holo
from holo.remote.store import PASSING, Absent, Interrupted, Item, Reply, too_short
from holo.transport.bundle import unnamed_file
from holo.urls import of_one
from holo.workers import pool

if TYPE_CHECKING:
    import obstore.store

Result = TypeVar("Result")

_OBSTORE = "obstore>=0.9"
"""As the extra ``remote`` has it."""

_PIECE = 1 << 20
_AT_ONCE = 64 << 20
"""Bytes of the largest object that is sent in one request; a larger one goes in parts, which takes no memory."""

_NO_RANGES = "non-partial response"
"""In what obstore says of a server that answers a range with the whole object."""

_CREDENTIALS = "Give credentials that are allowed to, in the environment (docs/remotes.md says how)."
_STATUS = re.compile(r"status code: (([1-5][0-9]{2})(?: [A-Z][A-Za-z]*)*)")
_CODE = re.compile("<Code>([A-Za-z]+)</Code>")
_MESSAGE = re.compile("<Message>([^<]+)</Message>")
"""What the answer of a server is, in what obstore says: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"""

_OF_CREDENTIALS = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
"""Codes that come with 400."""

_PASSING = frozenset(
    {"RequestTimeout", "IncompleteBody", "BadDigest", "ConditionalRequestConflict", "OperationAborted"}
)
"""Codes that come with 400 or 409, after which the same request may succeed. The last two: another one writes or
removes the same object at this moment, which does not say that it is there."""

_REASON = re.compile(r'(?:message|error): "([^"]+)"')
"""What the system says, in what obstore says of a connection."""

_DENIED = "code: AccessDenied"
"""In what obstore says of one of many objects that may not be removed."""

_UNUSABLE = re.compile("Generic (?:URL|Config) error: ")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", *_ENDPOINTS)
"""Those whose values obstore puts into requests as they are."""
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist|list request: .*status code: 404")
_MISTAKES = (
    # Where machines of a cloud ask for their credentials: the last place that is looked at.
    (re.compile(r"169\.254\.169\.254"), "there are no credentials for {name}", _CREDENTIALS),
    (re.compile("Missing [A-Z]"), "the credentials for {name} are not complete: {said}", _CREDENTIALS),
    (
        re.compile("builder error"),
        "{name}: the server is not asked over http://, which anybody on the way can read and change",
        "Name it with https:// in AWS_ENDPOINT_URL, or allow the other with AWS_ALLOW_HTTP=true.",
    ),
    (
        re.compile("redirect without LOCATION"),
        "{name} is in another region than it was looked for in",
        "Name its own in AWS_REGION.",
    ),
    (
        re.compile(r"InvalidCertificate\(\s*(\w+)"),
        "cannot trust {name}: the certificate of the server is not valid ({said})",
        "SSL_CERT_FILE names a file with the certificates of your own authority.",
    ),
)
"""What obstore says of what was set wrongly, what to say instead, and what to do about it."""

_SECRETS = re.compile(r"\?\S*|(?<=://)[^/\s@]*@")


class ObjectStore:
    """A :class:`~holo.remote.store.Store` by obstore.

    The library underneath has threads of its own, with which no process may be forked: a child of such a process waits
    for ever. So a worker calls it, and whoever may still need workers lets a child of its own do it.
    """

    is_writable = True

    def __init__(self, url: str) -> None:
        """Raises :class:`UsageError` where there is no bucket in the URL, or obstore is not installed."""
        parts = urlsplit(url)
        if not parts.netloc:
            raise UsageError(f"{of_one(url)} names no bucket", f"Write {parts.scheme}://BUCKET/PATH.")
        if parts.query:
            raise UsageError(
                f"{of_one(url)}: a remote has no query",
                "Give a region, an endpoint and credentials in the environment (docs/remotes.md says how).",
            )
        self.name = of_one(url).rstrip("/")
        if find_spec("obstore") is None:
            raise UsageError(
                f"{self.name} needs the package obstore, which is not installed",
                f"It comes with the extra `remote`: {beside_holo(_OBSTORE)}",
            )
        self._url = url.rstrip("/")
        self._store: obstore.store.ObjectStore | None = None
        self._process = 0

    @contextmanager
    def get(self, key: str, start: int = 0, stop: int | None = None, *, fresh: bool = False) -> Iterator[Reply]:
        if pool.is_worker() or not pool.may_fork():
            with self._errors(key, reading=True):
                yield self._ask(key, start, stop)
        else:
            with platform.closing(unnamed_file()) as file:
                reply, length = pool.apart(lambda: self._read(key, start, stop, file))
                yield reply._replace(chunks=iter(Section(file, 0, length).pieces()))

    def _read(self, key: str, start: int, stop: int | None, target: int) -> tuple[Reply, int]:
        """An answer whose bytes are in a file, since they may be more than memory, and how many they are."""
        with self._errors(key, reading=True):
            reply = self._ask(key, start, stop)
            length = 0
            for piece in reply.chunks:
                write_all(target, piece)
                length += len(piece)
            return reply._replace(chunks=iter(())), length

    def _ask(self, key: str, start: int, stop: int | None) -> Reply:
        import obstore
        from obstore.exceptions import GenericError

        wanted: Any = {"offset": start} if stop is None else (start, stop)
        try:
            found = obstore.get(self._own(), key, options={"range": wanted} if start or stop is not None else None)
        except GenericError as error:
            if _NO_RANGES not in str(error):
                raise
            found = obstore.get(self._own(), key)
        version = f"{found.meta['e_tag'] or ''}\n{found.meta['version'] or ''}"
        return Reply(found.meta["size"], found.range[0], self._pieces(key, found.stream(_PIECE)), version)

    def size(self, key: str) -> int | None:
        import obstore

        def ask() -> int | None:
            try:
                with self._errors(key, reading=True):
                    return obstore.head(self._own(), key)["size"]
            except Absent:
                return None

        return self._apart(ask)

    def create(self, key: str, content: Section, *, anyway: bool = False) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        def send() -> bool:
            with self._errors(key):
                if content.length > _AT_ONCE:  # its name says what is in it, so whatever it replaces is the same
                    obstore.put(self._own(), key, content.pieces(), use_multipart=True)
                    return True
                data = b"".join(content.pieces())
                try:
                    obstore.put(self._own(), key, data, mode="overwrite" if anyway else "create", use_multipart=False)
                except (AlreadyExistsError, PreconditionError) as error:
                    if anyway or _code(error) in _PASSING:
                        raise
                    return False
                except NotSupportedError:
                    obstore.put(self._own(), key, data, use_multipart=False)
                return True

        return self._apart(send)

    def replace(self, key: str, content: bytes, version: str | None) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def send() -> bool:
            mode: Any = "create"
            if version is not None:
                tag, _, number = version.partition("\n")
                # What the store has not said must not be in it at all.
                mode = {name: value for name, value in (("e_tag", tag), ("version", number)) if value}
            with self._errors(key):
                try:
                    obstore.put(self._own(), key, content, mode=mode, use_multipart=False)
                except (AlreadyExistsError, PreconditionError) as error:
                    self._refuse_missing(error)
                    if _code(error) in _PASSING:
                        raise
                    return False
                return True

        return self._apart(send)

    def items(self, prefix: str) -> Iterator[Item]:
        import obstore

        def ask() -> list[Item]:
            folder = prefix.rpartition("/")[0]
            with self._errors(prefix):
                return [
                    Item(each["path"], each["size"], each["last_modified"].timestamp())
                    for page in obstore.list(self._own(), f"{folder}/" if folder else None)
                    for each in page
                    if each["path"].startswith(prefix)
                ]

        yield from self._apart(ask)

    def remove(self, keys: Sequence[str]) -> None:
        import obstore

        def send() -> None:
            with self._errors("objects"):
                try:
                    obstore.delete(self._own(), list(keys))
                except FileNotFoundError:
                    for key in keys:  # a store that deletes one by one stops at the first that is gone
                        try:
                            obstore.delete(self._own(), key)
                        except FileNotFoundError:
                            continue

        self._apart(send)

    def _apart(self, function: Callable[[], Result]) -> Result:
        return function() if pool.is_worker() or not pool.may_fork() else pool.apart(function)

    def _own(self) -> obstore.store.ObjectStore:
        """The store of this process."""
        from datetime import timedelta

        from obstore.store import from_url

        if self._store is None or self._process != os.getpid():
            retry: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
            profile = _profile(self._url)
            if self._url.startswith("s3://"):
                _refuse_slips(profile)
            try:
                self._store = from_url(self._url, retry_config=retry, **profile)
            except ValueError as error:
                raise UsageError(f"{self.name} is no URL of a bucket: {error}") from None
            self._process = os.getpid()
        return self._store

    def _pieces(self, key: str, stream: Iterable[Any]) -> Iterator[bytes]:
        with self._errors(key):
            for piece in stream:
                yield bytes(piece)

    @contextmanager
    def _errors(self, key: str, *, reading: bool = False) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError as error:
            self._refuse_missing(error)
            if not reading:  # an object that is to be made cannot be missing
                raise self._no_bucket() from None
            raise Absent(key) from None
        except (
            exceptions.InvalidPathError,
            exceptions.NotSupportedError,
            exceptions.UnknownConfigurationKeyError,
        ) as error:
            raise HoloError(f"{self.name} cannot do that: {_short(error)}") from None
        except (exceptions.BaseError, ConnectionError, TimeoutError) as error:
            self._refuse_missing(error)
            raise self._misconfigured(error) or self._judged(key, error) from None

    def _misconfigured(self, error: BaseException) -> HoloError | None:
        """The error for what was set wrongly, if it is that."""
        if (wrong := _UNUSABLE.match(str(error))) is not None:
            return UsageError(f"{self.name} cannot be used: {_short(error).removeprefix(wrong[0])}")
        for pattern, what, hint in _MISTAKES:
            if (found := pattern.search(str(error))) is not None:
                said = found[1] if pattern.groups else _short(error)
                return HoloError(what.format(name=self.name, said=said), hint)
        return None

    def _judged(self, key: str, error: BaseException) -> Exception:
        """The error for what the server has answered, or for no answer."""
        text = str(error)
        if _DENIED in text:
            return HoloError(f"{self.name} refuses to remove {key}", _CREDENTIALS)
        status, reason = _STATUS.search(text), _REASON.search(text)
        if status is None:
            return Interrupted(reason[1] if reason is not None else _short(error))
        name, message = _code(error), _MESSAGE.search(text)
        said = ", ".join(filter(None, (status[1], name)))
        if message is not None:
            said += f": {_SECRETS.sub('', message[1])[:200]}"
        number = int(status[2])
        if number in (401, 403) or name in _OF_CREDENTIALS:
            return HoloError(f"{self.name} refuses {key}: {said}", _CREDENTIALS)
        if number in PASSING or name in _PASSING:
            return Interrupted(f"the server answered {said}", has_answered=True)
        if number == 416:
            return too_short(self, key)
        return HoloError(f"{self.name} answered {said} for {key}")

    def _refuse_missing(self, error: BaseException) -> None:
        """A bucket that is not there must not look like a remote without anything in it."""
        if _NO_BUCKET.search(str(error)) is not None:
            raise self._no_bucket() from None

    def _no_bucket(self) -> HoloError:
        return HoloError(
            f"there is no bucket for {self.name}", "Make it first, or look at its name and at AWS_ENDPOINT_URL."
        )


def _code(error: BaseException) -> str:
    """What a server of S3 calls an error."""
    found = _CODE.search(str(error))
    return found[1] if found is not None else ""


def _short(error: BaseException) -> str:
    """The first line of a message, without what may be a secret in its URLs."""
    return _SECRETS.sub("", str(error).partition("\n")[0])[:300]


def _refuse_slips(profile: Mapping[str, str]) -> None:
    """Raise :class:`UsageError` for settings with which obstore does not fail, but panics."""
    for name in _VARIABLES:
        if not os.environ.get(name, "").isprintable():
            raise UsageError(f"{name} has a line end in it, or another character that is not shown", "Set it without.")
    endpoints = {name: os.environ[name] for name in _ENDPOINTS if name in os.environ}
    if "endpoint" in profile:
        endpoints["endpoint_url in the profile"] = profile["endpoint"]
    for name, value in endpoints.items():
        if re.fullmatch(r"https?://[^/\s]\S*", value) is None:
            raise UsageError(
                f"{name} is no URL: {of_one(value)!r}", "Write https://HOST, or leave it out for Amazon's S3."
            )


def _profile(url: str) -> dict[str, Any]:
    """What the files of the AWS command line say, where the environment says nothing.

    https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html
    """
    if not url.startswith("s3://") or os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    import configparser

    profile = os.environ.get("AWS_PROFILE", "default")
    found: dict[str, str] = {}
    for variable, default, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", profile if profile == "default" else f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", profile),
    ):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(os.path.expanduser(os.environ.get(variable, default)))
            if section in parser:
                found.update(parser[section])
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
    wanted = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "region": "region",
        "endpoint_url": "endpoint",
    }
    environment = {"region": ("AWS_REGION", "AWS_DEFAULT_REGION"), "endpoint_url": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")}
    return {
        option: found[key]
        for key, option in wanted.items()
        if found.get(key) and not any(os.environ.get(name) for name in environment.get(key, ()))
    }
