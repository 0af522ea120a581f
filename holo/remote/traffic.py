"""How much was asked of a remote, by this process and its workers together."""

from __future__ import annotations

import os
import struct
import sys
from typing import NamedTuple

from holo import platform
from holo.transport.bundle import unnamed_file

_RECORD = struct.Struct("=qqq")


class Traffic(NamedTuple):
    """Requests, and bytes of objects, without what the protocols add."""

    requests: int = 0
    received: int = 0
    sent: int = 0


class Meter:
    """Adds up traffic. Workers that were forked later count into the same file: an append is never torn."""

    def __init__(self) -> None:
        self._file = unnamed_file()
        if sys.platform != "win32":  # where nothing is forked
            import fcntl

            fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) | os.O_APPEND)

    def add(self, *, requests: int = 0, received: int = 0, sent: int = 0) -> None:
        os.write(self._file, _RECORD.pack(requests, received, sent))

    def total(self) -> Traffic:
        data = platform.read_at(self._file, os.fstat(self._file).st_size, 0)
        rows = [*_RECORD.iter_unpack(data)]
        return Traffic(*(sum(column) for column in zip(*rows, strict=True))) if rows else Traffic()
