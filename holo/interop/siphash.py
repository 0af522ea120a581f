"""SipHash-2-4 with 128 bits, by which RCC names the contents of a library that it does not compress.

It is no cryptographic digest of contents here, for the key is the same for everybody. holo only compares it, and names
what it stores by its own digests.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFFFFFFFFFF
_BLOCK = 8


class SipHash128:
    """Used like the objects of :mod:`hashlib`, but once: nothing may follow :meth:`hexdigest`."""

    def __init__(self, key: bytes) -> None:
        """``key``: 16 bytes."""
        first, second = struct.unpack("<QQ", key)
        self._state = (
            first ^ 0x736F6D6570736575,
            second ^ 0x646F72616E646F6D ^ 0xEE,
            first ^ 0x6C7967656E657261,
            second ^ 0x7465646279746573,
        )
        self._rest = b""
        self._length = 0

    def update(self, data: bytes) -> None:
        self._length += len(data)
        data = self._rest + data
        whole = len(data) // _BLOCK
        self._rest = data[whole * _BLOCK :]
        self._state = _compressed(self._state, struct.unpack_from(f"<{whole}Q", data))

    def hexdigest(self) -> str:
        last = self._rest.ljust(_BLOCK - 1, b"\0") + bytes([self._length & 0xFF])
        v0, v1, v2, v3 = _compressed(self._state, struct.unpack("<Q", last))
        v0, v1, v2, v3 = _rounds(v0, v1, v2 ^ 0xEE, v3)
        low = v0 ^ v1 ^ v2 ^ v3
        v0, v1, v2, v3 = _rounds(v0, v1 ^ 0xDD, v2, v3)
        return struct.pack("<QQ", low, v0 ^ v1 ^ v2 ^ v3).hex()


_State = tuple[int, int, int, int]


def _compressed(state: _State, words: tuple[int, ...]) -> _State:
    """The state after these words, with two rounds for each. Written out, for it is all the time that this takes."""
    v0, v1, v2, v3 = state
    for word in words:
        v3 ^= word
        v0 = v0 + v1 & _MASK
        v2 = v2 + v3 & _MASK
        v1 = (v1 << 13 & _MASK | v1 >> 51) ^ v0
        v3 = (v3 << 16 & _MASK | v3 >> 48) ^ v2
        v0 = (v0 << 32 & _MASK | v0 >> 32) + v3 & _MASK
        v2 = v2 + v1 & _MASK
        v3 = (v3 << 21 & _MASK | v3 >> 43) ^ v0
        v1 = (v1 << 17 & _MASK | v1 >> 47) ^ v2
        v2 = v2 << 32 & _MASK | v2 >> 32
        v0 = v0 + v1 & _MASK
        v2 = v2 + v3 & _MASK
        v1 = (v1 << 13 & _MASK | v1 >> 51) ^ v0
        v3 = (v3 << 16 & _MASK | v3 >> 48) ^ v2
        v0 = (v0 << 32 & _MASK | v0 >> 32) + v3 & _MASK
        v2 = v2 + v1 & _MASK
        v3 = (v3 << 21 & _MASK | v3 >> 43) ^ v0
        v1 = (v1 << 17 & _MASK | v1 >> 47) ^ v2
        v2 = v2 << 32 & _MASK | v2 >> 32
        v0 ^= word
    return v0, v1, v2, v3


def _rounds(v0: int, v1: int, v2: int, v3: int) -> _State:
    """Four rounds: two words of zeros, which change nothing else."""
    return _compressed((v0, v1, v2, v3), (0, 0))
