"""What holo knows about a space or a name: one line of JSON, and the digest of it in a second one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blake3 import blake3


def read(path: Path) -> dict[str, Any]:
    """The JSON of a sealed document."""
    found: dict[str, Any] = json.loads(path.read_bytes().splitlines()[0])
    return found


def edit(path: Path, **changes: object) -> None:
    """Another sound document: what holo would have written, had it meant that."""
    path.write_bytes(dump(read(path) | changes))


def dump(document: dict[str, Any]) -> bytes:
    """A document with its seal, which anybody can compute."""
    body = json.dumps(document).encode()
    return body + b"\n" + blake3(body).hexdigest().encode() + b"\n"
