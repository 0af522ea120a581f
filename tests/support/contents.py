"""The digest of content, by the definition in docs/catalog.md and without holo."""

from __future__ import annotations

import struct

from blake3 import blake3


def digest(content: bytes) -> str:
    """Blocks of zeros are left out, and told in a second digest."""
    blocks = [content[start : start + 65536] for start in range(0, len(content), 65536)]
    empty = [number for number, block in enumerate(blocks) if block == bytes(65536)]
    rest = blake3(b"".join(block for number, block in enumerate(blocks) if number not in empty))
    if not empty:
        return rest.hexdigest()
    runs: list[list[int]] = []
    for number in empty:
        if runs and sum(runs[-1]) == number:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    whole = b"".join(struct.pack("<QQ", *run) for run in runs) + struct.pack("<Q", len(content)) + rest.digest()
    return blake3(whole, derive_key_context="holo 2026-11-22 content with blocks of zeros").hexdigest()
