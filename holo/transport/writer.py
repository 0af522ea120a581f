"""Write the container of a bundle or a pack, from its beginning to its end: a pipe cannot be gone back in."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from zlib import crc32

from holo import platform
from holo.content import Piece, Section, write_all
from holo.errors import HoloError
from holo.hololib.frames import frame_of, frame_pieces
from holo.hololib.offer import BLOCK
from holo.transport.bundle import unnamed_file
from holo.transport.container import STORED, ZSTD, Entry, directory_of, entry_at, local_header, record_of

_WORTH_SENDING = 32 << 10
"""Bytes from which on it is faster to let the kernel copy than to gather."""

_BUFFER = 1 << 20
"""Bytes that are written at once."""


class Writer:
    """Writes the container to a descriptor, from its beginning to its end."""

    def __init__(self, descriptor: int, folder: str | None, *, align: bool) -> None:
        """``folder``: where there is room for what is compressed first; ``None``: among temporary files."""
        self.folder = folder
        self.position = 0
        self._descriptor = descriptor
        self._align = align
        self._may_clone = align and _is_at_its_beginning(descriptor)
        self.entries: list[Entry] = []
        """those that were added one by one"""
        self.records: list[bytes] = []
        """of the directory; made at once, while workers prepare what follows"""
        self.last = ("", 0)
        """the name of the last entry, and where it has to end"""
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def add(self, name: str, content: bytes, *, compress: bool) -> None:
        """An entry with that content."""
        crc = crc32(content)
        if compress and len(frame := frame_of(content)) < len(content):
            self._begin(name, ZSTD, crc, len(frame), len(content))
            self._write(frame)
        else:
            self._begin(name, STORED, crc, len(content), len(content))
            self._write(content)

    def add_section(self, name: str, method: int, crc: int, size: int, section: Section) -> None:
        """An entry whose stored bytes lie in another file."""
        self._begin(name, method, crc, section.length, size)
        done = self._clone(section) if section.length >= BLOCK else 0
        if section.length - done >= _WORTH_SENDING:
            done += self._send(section.part(done, section.length - done))
        self.add_bytes(section.part(done, section.length - done).pieces())

    def add_run(self, entries: Sequence[Entry], section: Section) -> None:
        """Entries that lie one after the other in another file, none of them aligned, the first as if it began at 0."""
        self._refuse_torn()
        start = self.position
        self._flush()
        done = self._send(section)
        self.add_bytes(section.part(done, section.length - done).pieces())
        self.records += [record_of(entry, start) for entry in entries]
        self.last = entries[-1].name, start + entries[-1].end

    def add_pieces(self, name: str, crc: int, size: int, pieces: Iterable[Piece]) -> None:
        """An entry with content that has no holes, as it is."""
        self._begin(name, STORED, crc, size, size)
        self.add_bytes(map(bytes, pieces))

    def add_compressed(self, name: str, crc: int, content: Section) -> None:
        """An entry with content that has to be compressed."""
        with platform.closing(unnamed_file(self.folder)) as copy:
            for block in frame_pieces(content.pieces(), content.length):
                write_all(copy, block)
            section = Section(copy, 0, os.fstat(copy).st_size)
            fits = section.length < content.length
            self.add_section(name, ZSTD if fits else STORED, crc, content.length, section if fits else content)

    def add_bytes(self, pieces: Iterable[bytes]) -> None:
        """Stored bytes of the entry that was begun."""
        for piece in pieces:
            self._write(piece)

    def end(self) -> None:
        """Write the directory."""
        self._refuse_torn()
        self._write(directory_of(self.records, self.position))
        self._flush()

    def _begin(self, name: str, method: int, crc: int, stored: int, size: int) -> None:
        align = self._align and method == STORED and stored >= BLOCK
        entry = entry_at(self.position, name, method, crc, stored, size, align=align)
        self._refuse_torn()
        self.last = name, entry.end
        self.entries.append(entry)
        self.records.append(record_of(entry))
        self._write(local_header(entry))

    def _refuse_torn(self) -> None:
        """Raise :class:`HoloError` if the last entry has not as many bytes as its header says."""
        name, end = self.last
        if end != self.position:
            raise HoloError(f"{name} changed while it was exported", "Run `holo check`.")

    def _write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        self.position += len(data)
        if self._pending_bytes >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        write_all(self._descriptor, b"".join(self._pending))
        self._pending = []
        self._pending_bytes = 0

    def _send(self, section: Section) -> int:
        """Let the kernel copy a section; returns how many bytes it has, 0 where it cannot."""
        self._flush()
        done = 0
        try:
            while done < section.length and (
                count := platform.send(
                    section.descriptor, section.offset + done, section.length - done, self._descriptor
                )
            ):
                done += count
        except OSError as error:
            # Of a pipe that somebody has made non-blocking, and that is full, whoever writes waits.
            if error.errno not in platform.UNAVAILABLE | {errno.EAGAIN}:
                raise
        self.position += done
        return done

    def _clone(self, section: Section) -> int:
        """Share the whole blocks of a section with the container, if that can be; returns how many bytes that are."""
        if not self._may_clone or self.position % BLOCK or section.offset % BLOCK:
            return 0
        shared = section.length - section.length % BLOCK
        self._flush()
        try:
            platform.clone_range(section.descriptor, section.offset, shared, self._descriptor, self.position)
        except OSError as error:
            if error.errno not in platform.UNAVAILABLE | {errno.EBADF}:  # EBADF: it was opened to append (`>> FILE`)
                raise
            self._may_clone = False
            return 0
        self.position += shared
        os.lseek(self._descriptor, self.position, os.SEEK_SET)
        return shared


def _is_at_its_beginning(descriptor: int) -> bool:
    """Whether what is written first comes to lie at 0: standard output may hold what another program has written."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    except OSError:  # a pipe
        return False
