"""Seeds: a build begins from the most similar environment in the library, instead of from nothing.

A note beside the builds lists the packages of each catalog that was built. A build restores the catalog with the most
wanted packages into its stage, and the tool changes what differs. Only builders whose tool gets to the same result from
any environment say their packages: uv removes what is not wanted, and compiles only what is new.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from holo import digest as digests
from holo.blueprints.builder import Packages
from holo.blueprints.memory import read_own, write_own
from holo.hololib import Library

PACKAGES = ".parts"
"""Ends the name of such a note."""


def note(path: str, digest: str, packages: Packages) -> None:
    """Write the packages of a catalog to ``path``."""
    write_own(path, {"digest": digest, "base": packages.key, "lines": list(packages.lines)})


def nearest(library: Library, wanted: Packages) -> str | None:
    """The digest of the catalog with the most wanted packages and the fewest others; ``None`` if none is worth it."""
    folder = os.path.join(library.path, "builds")
    wanted_lines, key = set(wanted.lines), wanted.key
    best, most = None, 0
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            found: dict[str, Any] = read_own(os.path.join(folder, name)) if name.endswith(PACKAGES) else {}
            digest, noted = str(found.get("digest")), found.get("lines")
            if found.get("base") != key or not digests.is_digest(digest) or not isinstance(noted, list):
                continue
            if not library.catalogs.has(digest):
                continue
            lines = {line for line in noted if isinstance(line, str)}
            score = len(lines & wanted_lines) - len(lines - wanted_lines)
            if score > most:
                best, most = digest, score
    return best
