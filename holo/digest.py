"""Content is named by its BLAKE3-256 digest, in lower-case hex."""

from __future__ import annotations

import os

from blake3 import blake3

HEX_LENGTH = 64
EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
"""The digest of no bytes at all."""

Hasher = blake3


def of(data: bytes | bytearray | memoryview) -> str:
    """The digest of ``data``."""
    return blake3(data).hexdigest()


def is_digest(text: str) -> bool:
    return len(text) == HEX_LENGTH and not text.strip("0123456789abcdef")


def of_file(descriptor: int) -> str:
    """The digest of an open file, from its beginning."""
    hasher = blake3()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, 1 << 20):
        hasher.update(piece)
    return hasher.hexdigest()
