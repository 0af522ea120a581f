"""Begin a build from what is nearest to it, instead of from nothing.

Of every catalog that was built it is noted what is in it. A build restores the one that has most of what is wanted into
its stage; the tool then changes what differs. That is for builders whose tool makes the same of any environment as
of none: uv removes what is not wanted, and compiles only what is new.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from holo import digest as digests
from holo.blueprints.builder import Parts
from holo.blueprints.memory import read_own, write_own
from holo.hololib import Library

PARTS = ".parts"


def note(path: str, digest: str, parts: Parts) -> None:
    """Write down, in a file that ends with :data:`PARTS`, what is in a catalog."""
    write_own(path, {"digest": digest, "base": parts.key, "lines": list(parts.lines)})


def nearest(library: Library, parts: Parts) -> str | None:
    """The digest of the catalog that has most of it, and least of other things; ``None`` if none is worth it."""
    folder = os.path.join(library.path, "builds")
    wanted, key = set(parts.lines), parts.key
    best, most = None, 0
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            found: dict[str, Any] = read_own(os.path.join(folder, name)) if name.endswith(PARTS) else {}
            digest, noted = str(found.get("digest")), found.get("lines")
            if found.get("base") != key or not digests.is_digest(digest) or not isinstance(noted, list):
                continue
            if not library.catalogs.has(digest):
                continue
            lines = {line for line in noted if isinstance(line, str)}
            score = len(lines & wanted) - len(lines - wanted)
            if score > most:
                best, most = digest, score
    return best
