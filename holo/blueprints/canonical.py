"""What canonical documents of all kinds have in common, and the key that is made of one."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from urllib.parse import unquote

from holo import digest as digests

_USER = re.compile(r"(?<=://)[^/\s\"']+@")
_QUERY = re.compile(r"""(://[^\s"'`<>?#\\]*)\?((?:[^\s"'`<>#\\]|\\u0026)*)""")
"""A URL up to its query, and that; some programs write its ``&`` so in JSON."""

_TOKEN_IN_PATH = re.compile(r"(?<=/t/)[^/\s\"']+(?=/)")
"""As conda's servers have them."""

_CREDENTIAL = re.compile(
    "x(amz|goog).*|.*(token|signature|secret|passwo?r?d|credentials?|authorization|apikey|accesskey(id)?)"
    "|auth|jwt|sig|expires"
)
"""Names, without dashes and the like, of parameters that say who asks, and never for what."""

_DIGEST = re.compile("~[0-9a-f]{16}")


def key_of(document: dict[str, object]) -> str:
    """The key of a canonical document: equal for equal ones, whatever the order of their fields. 64 hex digits.

    What JSON has no form for, dates of TOML, counts as the text of it.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return digests.of(text.encode())


def without_credentials(text: str) -> str:
    """``text`` without what is known to be a credential in its URLs.

    Who asks makes no difference, and each job of a CI is another.
    """
    return _QUERY.sub(lambda found: _with_query(found[1], _parameters(found[2])), _USER.sub("", text))


def without_secrets(text: str) -> str:
    """The same, with digests for the other values in queries: any may be a secret, but one may tell two files apart."""
    return _QUERY.sub(
        lambda found: _with_query(found[1], [_digested(item) for item in _parameters(found[2])]), _USER.sub("", text)
    )


def document_without_secrets(document: dict[str, object]) -> dict[str, object]:
    """A canonical document, every text in it :func:`without_secrets`."""
    text = json.dumps(document, default=str, ensure_ascii=False)
    cleaned: dict[str, object] = json.loads(without_secrets(text))
    return cleaned


def hidden(text: str) -> str:
    """``text`` as it may be shown: stars for everything in its URLs that may be a secret."""
    return _QUERY.sub(r"\1?***", _TOKEN_IN_PATH.sub("***", _USER.sub("***@", text)))


def without_queries(text: str) -> str:
    """``text`` as it may be kept in an environment: nothing in its URLs that may be a secret."""
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


def this_system() -> dict[str, str]:
    """What decides which binary packages fit: operating system, processor, and on Linux the C library."""
    libc = ""
    if sys.platform == "linux":
        try:
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (ValueError, OSError):
            libc = "musl"
    release = platform.mac_ver()[0].partition(".")[0] if sys.platform == "darwin" else ""
    return {"os": sys.platform, "machine": platform.machine(), "libc": libc, "release": release}
