"""Small documents that end with their own digest: names, what is known of spaces, outlines of golden trees.

Blobs and catalogs are named by their digests. These are not, and with one bit flipped each could be another
valid document: a space at another path, or restored later than it was.
"""

from __future__ import annotations

from holo import digest as digests


def seal(body: bytes) -> bytes:
    """``body`` and, in a last line, its digest."""
    return b"%b\n%b\n" % (body, digests.of(body).encode())


def unseal(data: bytes) -> bytes:
    """What was sealed. Raises :class:`ValueError` if a single byte is another one."""
    body, _, _ = data.removesuffix(b"\n").rpartition(b"\n")
    if seal(body) != data:
        raise ValueError("it does not have the digest in its last line")
    return body
