"""URLs without the secrets that may be in them: credentials, tokens, signatures of a query."""

from __future__ import annotations

import re
from urllib.parse import unquote

from holo import digest as digests

SCHEMES = ("file", "https", "http", "s3", "gs", "az")
"""Of URLs of remotes."""

_USER = re.compile(r"(?<=://)[^/\s\"']+@")
_QUERY = re.compile(r"""(://[^\s"'`<>?#\\:]*+(?::(?!//)[^\s"'`<>?#\\:]*+)*+)\?((?:[^\s"'`<>#\\]|\\u0026)*)""")
"""A URL up to its query, and the query; some programs escape its ``&`` in JSON."""

_OF_A_SERVER = re.compile(r"(?<!file)://[^\s\"']+", re.IGNORECASE)
"""A URL behind its scheme, which leads to a server: a folder of this machine may be called ``t``."""

_TOKEN_IN_PATH = re.compile(r"(?<=/t/)[^/]+(?=/)")
"""The form that conda's servers use."""

_CREDENTIAL = re.compile(
    "x(amz|goog).*|.*(token|signature|secret|passwo?r?d|credentials?|authorization|apikey|accesskey(id)?)"
    "|auth|jwt|sig|expires"
)
"""Names of parameters, without dashes and the like, that say who asks, never what for."""

_DIGEST = re.compile("~[0-9a-f]{16}")


def is_url(place: str) -> bool:
    """Whether a remote is named by a URL, and not by its path. ``s3:bucket`` is one with a slip in it."""
    scheme, _, rest = place.partition(":")
    return rest.startswith("//") or (rest != "" and scheme.lower() in SCHEMES)


def without_credentials(text: str) -> str:
    """``text`` without known credentials in its URLs.

    Who asks makes no difference to the result, and each job of a CI has credentials of its own.
    """
    return _QUERY.sub(lambda found: _with_query(found[1], _parameters(found[2])), _USER.sub("", text))


def without_secrets(text: str) -> str:
    """The same, with digests for the other values in queries: they may be secrets, or tell two files apart."""
    return _QUERY.sub(
        lambda found: _with_query(found[1], [_digested(item) for item in _parameters(found[2])]), _USER.sub("", text)
    )


def hidden(text: str) -> str:
    """``text`` for display: with stars for everything in its URLs that may be a secret."""
    text = _OF_A_SERVER.sub(lambda found: _TOKEN_IN_PATH.sub("***", found[0]), _USER.sub("***@", text))
    return _QUERY.sub(r"\1?***", text)


def of_one(url: str) -> str:
    """One URL, which is all of the text, without anything that may be a secret: a quote does not end it."""
    scheme, mark, rest = url.partition("://")
    end = re.search(r"[/?#]|$", rest)
    assert end is not None
    return without_secrets(scheme + mark + rest[: end.start()].rpartition("@")[2] + rest[end.start() :])


def without_queries(text: str) -> str:
    """``text`` for an environment: without anything in its URLs that may be a secret."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def _parameters(query: str) -> list[str]:
    """The parameters of a query, without credentials."""
    items = query.replace("\\u0026", "&").split("&")
    return [item for item in items if item and not _CREDENTIAL.fullmatch(_plain(item.partition("=")[0]))]


def _plain(name: str) -> str:
    return re.sub("[-_.]", "", unquote(name)).lower()


def _digested(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        name, value = "", name
    known = value if _DIGEST.fullmatch(value) else f"~{digests.of(value.encode('utf-8', 'surrogateescape'))[:16]}"
    return name + equals + known


def _with_query(url: str, parameters: list[str]) -> str:
    return f"{url}?{'&'.join(parameters)}" if parameters else url
