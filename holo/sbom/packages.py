"""What the files say that installers leave beside the packages they install. The files are anybody's.

A file is either understood or :class:`NotUnderstood`; nothing of it is shown that is no name, version, licence, digest
or URL. What it says may still be a lie: nobody compares a package with its name.

    Python   https://packaging.python.org/en/latest/specifications/core-metadata/ and .../direct-url/
    conda    https://docs.conda.io/projects/conda/en/stable/dev-guide/deep-dives/ (conda-meta)
    npm      https://docs.npmjs.com/cli/v11/configuring-npm/package-json and .../package-lock-json (hidden lockfiles)
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from holo.sbom.licences import Licence, licence_of, licence_of_python

_LONGEST = 200
"""Characters of a name, a version and the like; npm allows 214 for a name, with its scope."""

_LONGEST_URL = 2000
_LONGEST_HEAD = 1 << 20
"""Characters of METADATA before its description. The text of a licence may be among them."""

_MOST = 20
"""Licences of one package."""

_PYTHON_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_CONDA_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_NODE_NAME = re.compile(r"(?:(@[A-Za-z0-9._~-]+)/)?([A-Za-z0-9._~!'()*-]+)")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_COMMIT = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TOKEN = re.compile(r"/t/[^/]*")
"""A credential in the path of a URL, as conda's servers have it."""

_ALGORITHMS = {"md5": ("MD5", 16), "sha1": ("SHA-1", 20), "sha256": ("SHA-256", 32)} | {
    "sha384": ("SHA-384", 48),
    "sha512": ("SHA-512", 64),
}
"""CycloneDX's name for each, and the bytes of its digests."""

_CONDA_CLOUD = re.compile(r"https?://(?:conda\.anaconda\.org|repo\.anaconda\.com/pkgs)/(.+)")


class NotUnderstood(Exception):
    """A file that ought to describe a package, and does not."""


class Package(NamedTuple):
    """What is known of one package. Equal ones are one component."""

    purl: str
    group: str
    """the scope of npm, with its ``@``; else nothing"""
    name: str
    version: str
    licence: Licence
    hashes: tuple[tuple[str, str], ...] = ()
    """algorithm, and hexadecimal digest of the file that the package was installed from; in order"""
    references: tuple[tuple[str, str], ...] = ()
    """``distribution`` or ``vcs``, and the URL of that; without credentials"""


class Locked(NamedTuple):
    """What npm notes of a package that it has installed."""

    version: str
    hashes: tuple[tuple[str, str], ...]
    references: tuple[tuple[str, str], ...]


def python_package(metadata: bytes, direct_url: bytes | None) -> Package:
    """A package by its METADATA or PKG-INFO, and its ``direct_url.json``, if it has one that can be read."""
    from email.parser import HeaderParser

    # An author's name in Latin-1 is no reason to leave out the package.
    text = metadata.decode("utf-8-sig", "replace")
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    if len(head) > _LONGEST_HEAD:
        raise NotUnderstood
    headers = HeaderParser().parsestr(head)
    name, version = _word(headers.get("Name")), _version(headers.get("Version"))
    if not _PYTHON_NAME.fullmatch(name):
        raise NotUnderstood
    licence = licence_of_python(
        headers.get("License-Expression"), headers.get("License"), headers.get_all("Classifier", [])
    )
    purl = f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{_quoted(version)}"
    hashes, references = _origin(direct_url) if direct_url is not None else ((), ())
    return Package(purl, "", name, version, licence, hashes, references)


def conda_package(data: bytes) -> Package:
    """A package by its record in ``conda-meta``."""
    record = _object(data)
    name, version = _word(record.get("name")), _version(record.get("version"))
    if not _CONDA_NAME.fullmatch(name):
        raise NotUnderstood
    url = record.get("url")
    url = _TOKEN.sub("", url, count=1) if isinstance(url, str) else None
    subdir = _optional(record.get("subdir"))
    file = _optional(record.get("fn"))
    qualifiers = {
        "build": _optional(record.get("build")),
        "channel": _channel(record.get("channel"), subdir),
        "subdir": subdir,
        "type": next((ending for ending in ("conda", "tar.bz2") if file.endswith(f".{ending}")), ""),
    }
    shown = "&".join(f"{key}={_quoted(value)}" for key, value in qualifiers.items() if value)
    return Package(
        f"pkg:conda/{_quoted(name)}@{_quoted(version)}" + (f"?{shown}" if shown else ""),
        "",
        name,
        version,
        licence_of(record.get("license")),
        _hashes({key: record.get(key) for key in ("md5", "sha256")}),
        _references(url),
    )


def node_package(data: bytes) -> Package:
    """A package by its ``package.json``."""
    record = _object(data)
    version = _version(record.get("version"))
    name = _NODE_NAME.fullmatch(_word(record.get("name")))
    if name is None:
        raise NotUnderstood
    declared = record.get("license", record.get("licenses"))  # the second: as it was long ago
    items = declared if isinstance(declared, list) else [declared]
    found = [licence_of(item.get("type") if isinstance(item, dict) else item) for item in items[:_MOST]]
    if len(found) == 1:
        licence = found[0]
    else:  # a list does not say whether one may choose
        licence = Licence(names=tuple(dict.fromkeys(name for each in found for name in each.all())))
    scope = f"{_quoted(name[1])}/" if name[1] else ""
    return Package(f"pkg:npm/{scope}{_quoted(name[2])}@{_quoted(version)}", name[1] or "", name[2], version, licence)


def node_lock(data: bytes) -> dict[str, Locked]:
    """What ``node_modules/.package-lock.json`` says, by the path of each package below ``node_modules``."""
    packages = _object(data).get("packages")
    if not isinstance(packages, dict):
        raise NotUnderstood
    found = {}
    for path, entry in packages.items():
        below = path.removeprefix("node_modules/")
        if below == path or not isinstance(entry, dict) or not isinstance(entry.get("version"), str):
            continue
        hashes = _integrity(entry.get("integrity"))
        references = _references(entry.get("resolved"))
        if hashes or references:
            found[below] = Locked(entry["version"], hashes, references)
    return found


# -- values that are shown ----------------------------------------------------------------------------------


def _object(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise NotUnderstood from None
    if not isinstance(record, dict):
        raise NotUnderstood
    return record


def _word(value: object) -> str:
    """A name or a version: one printable word."""
    text = value.strip() if isinstance(value, str) else ""
    if not text or len(text) > _LONGEST or not text.isprintable() or " " in text:
        raise NotUnderstood
    return text


def _version(value: object) -> str:
    """A version, which cannot be a path or a URL."""
    text = _word(value)
    if "/" in text or "@" in text:
        raise NotUnderstood
    return text


def _optional(value: object) -> str:
    """The same, or nothing."""
    try:
        return _version(value)
    except NotUnderstood:
        return ""


def _quoted(text: str) -> str:
    """Percent-encoded, as a package URL has it."""
    return quote(text, safe="")


def _hashes(digests: dict[Any, Any]) -> tuple[tuple[str, str], ...]:
    """Those digests that can be such, by CycloneDX's names."""
    found = []
    for name, value in digests.items():
        algorithm, size = _ALGORITHMS.get(name, ("", 0))
        if algorithm and isinstance(value, str) and re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", value):
            found.append((algorithm, value.lower()))
    return tuple(sorted(found))


def _integrity(value: object) -> tuple[tuple[str, str], ...]:
    """The digests of a ``Subresource Integrity`` text. Of several by one algorithm any may be right, so none is."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for word in value.split() if isinstance(value, str) else ():
        algorithm, _, encoded = word.partition("-")
        if algorithm in seen:
            found.pop(algorithm, None)
            continue
        seen.add(algorithm)
        try:
            found[algorithm] = base64.b64decode(encoded.partition("?")[0], validate=True).hex()
        except (binascii.Error, ValueError):
            continue
    return _hashes(found)


def _origin(direct_url: bytes) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Hashes of the archive that a Python package was installed from, if it was no index's; and where it came from."""
    try:
        record = _object(direct_url)
    except NotUnderstood:
        return (), ()
    archive, vcs = record.get("archive_info"), record.get("vcs_info")
    if isinstance(vcs, dict):
        return (), _repository(record.get("url"), vcs.get("vcs"), vcs.get("commit_id"))
    if not isinstance(archive, dict):
        return (), ()
    hashes = archive.get("hashes")
    if not isinstance(hashes, dict):
        algorithm, _, digest = _optional(archive.get("hash")).partition("=")
        hashes = {algorithm: digest}
    return _hashes(hashes), _references(record.get("url"))


def _references(url: object) -> tuple[tuple[str, str], ...]:
    """Where a package came from, if that is on a server and can be told without credentials."""
    if not isinstance(url, str):
        return ()
    if url.startswith(("git+", "git:", "ssh:")):
        address, _, commit = url.removeprefix("git+").partition("#")
        return _repository(address, "git", commit)
    shown = _shown(url, ("http", "https"))
    return (("distribution", shown),) if shown else ()


def _repository(url: object, vcs: object, commit: object) -> tuple[tuple[str, str], ...]:
    """A commit in a repository, as pip writes it: ``git+https://host/path@commit``."""
    shown = _shown(url, ("http", "https", "ssh", "git")) if isinstance(url, str) else ""
    if not shown or vcs not in ("git", "hg", "svn", "bzr"):
        return ()
    at = f"@{commit}" if isinstance(commit, str) and _COMMIT.fullmatch(commit) else ""
    return (("vcs", f"{vcs}+{shown}{at}"),)


def _shown(url: str, schemes: tuple[str, ...]) -> str:
    """A URL put together anew from its scheme, host, port and path; nothing if it is none, or has a secret path."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    host = f"[{host}]" if ":" in host else host
    if parts.scheme not in schemes or not _HOST.fullmatch(host) or _TOKEN.search(parts.path):
        return ""
    try:
        path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    except UnicodeEncodeError:  # a lone surrogate
        return ""
    shown = f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{path}"
    return shown if len(shown) <= _LONGEST_URL else ""


def _channel(value: object, subdir: str) -> str:
    """A channel of conda's by its name, or by its URL where it is on a server of its own."""
    try:
        channel = _TOKEN.sub("", _word(value), count=1)
    except NotUnderstood:
        return ""
    if any(char in channel for char in ":@?#"):
        channel = _shown(channel, ("http", "https"))
    channel = channel.rstrip("/")
    if subdir:
        channel = channel.removesuffix(f"/{subdir}")
    known = _CONDA_CLOUD.fullmatch(channel)
    return known[1] if known is not None else channel
