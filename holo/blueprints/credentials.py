"""Strip credentials from the notes that tools leave in an environment, where whoever gets it could read them."""

from __future__ import annotations

import base64
import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable

from holo.errors import HoloError
from holo.files import read_file
from holo.urls import without_queries

_LARGEST = 64 << 20
"""Bytes of a note: conda's of a package names all its files, npm's all packages."""

_SITES = ("lib/python*/site-packages", "Lib/site-packages")


def strip_credentials(paths: Iterable[str], clean: Callable[[str], str] = without_queries) -> dict[str, bytes]:
    """Rewrite the files that ``clean`` changes; returns their new contents. Raises :class:`HoloError`."""
    changed = {}
    for path in paths:
        try:
            text = read_file(path, _LARGEST)[0].decode("utf-8", "surrogateescape")
            cleaned = clean(text)
            if cleaned != text:
                changed[path] = cleaned.encode("utf-8", "surrogateescape")
                with open(path, "wb") as file:
                    file.write(changed[path])
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HoloError(f"the build failed: cannot remove credentials from {path}: {error.strerror}") from None
    return changed


def strip_package_credentials(stage: str) -> None:
    """Strip credentials from the URLs that Python packages came from, and correct the packages' lists of files.

    https://packaging.python.org/en/latest/specifications/direct-url/
    """
    for site in _SITES:
        notes = glob.glob(os.path.join(glob.escape(stage), site, "*.dist-info", "direct_url.json"))
        for path, data in strip_credentials(notes).items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            entry = re.compile(r"(?m)^([^\n]*/direct_url\.json),[^\n,]*,[0-9]*")
            line = rf"\g<1>,sha256={digest},{len(data)}"
            strip_credentials([os.path.join(os.path.dirname(path), "RECORD")], lambda text: entry.sub(line, text))  # noqa: B023
