"""The kinds of stores, chosen by URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from holo.errors import UsageError
from holo.remote.store import Store
from holo.urls import SCHEMES, is_url, of_one


def connect(url: str, *, is_verified: bool) -> Store:
    """The store at a URL, or in a folder. Makes no request. Raises :class:`UsageError`, :class:`HoloError`.

    ``is_verified``: what comes from it counts only if it is signed.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{of_one(url)} is no URL: {error}") from None
    scheme = parts.scheme.lower() if is_url(url) else "file"
    if scheme == "file":
        from holo.remote.folder import FolderStore

        return FolderStore(_folder(url))
    if parts.fragment:
        raise UsageError(f"{of_one(url)}: what comes behind # is no part of an address", "Write %23 for a #.")
    if scheme in ("https", "http"):
        from holo.remote.http import HttpStore

        return HttpStore(url, is_verified=is_verified)
    if scheme in ("s3", "gs", "az"):
        from holo.remote.objects import ObjectStore

        return ObjectStore(url)
    raise UsageError(
        f"{of_one(url)} is no remote that holo knows",
        f"Name a folder, or a URL that begins with {', '.join(f'{known}://' for known in SCHEMES[:-1])} or az://.",
    )


def _folder(url: str) -> str:
    from urllib.request import url2pathname

    from holo.walk import absolute

    if not is_url(url):
        return absolute(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise UsageError(f"{of_one(url)} is no folder", "Write file:///path/of/the/folder, or only the path.")
    return absolute(url2pathname(parts.path))
