"""Read files once: hash, look for the prefix, store what the library does not have yet. Runs in workers.

The catalog must never describe bytes that were not stored, although other programs may be writing. A small
file is read in one piece, and the bytes that were hashed are the bytes that are stored. A large one is read
twice, and the second reading is hashed again as it is stored. A reflink is taken from the open file, whose
ctime must then be what it was before the reading. Where that says nothing, the clone is hashed: a file changed so
recently that the clock could not tell, or open for writing by anybody. For in a page that is mapped and dirty,
further changes move no time.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.catalog import FileRow, Relocation
from holo.content import pieces_of
from holo.errors import HoloError, SourceChanged, advice
from holo.hololib.blobs import CHUNK, WORTH_COMPRESSING, Blobs, ContentMismatch
from holo.platform import Directory
from holo.record.foreign import may_point_outside, other_spellings, outside
from holo.record.prefix import PrefixFinder, find
from holo.walk import Walker

_ATTEMPTS = 5
_RECENT_NS = 100_000_000
"""Timestamps come from the kernel's tick (up to 10 ms, CONFIG_HZ=100); within this a second change may hide."""


class _Changed(Exception):
    """The file is not what it was when we began to read it."""


class Ingested(NamedTuple):
    """What one file became."""

    row: FileRow
    relocation: Relocation | None
    xattrs: dict[str, bytes]
    stored: bool
    """the library did not have it"""
    inode: tuple[int, int] | None
    """(device, inode) of a file with several names"""
    warnings: tuple[str, ...]


@dataclass
class Batch:
    """Some files of one directory."""

    path: str
    """of the directory, relative to the root"""
    names: list[str]


class Ingest:
    """Everything the workers share, made before they are forked."""

    def __init__(self, root: Directory, prefix: str, blobs: Blobs, *, reflink: bool, compress: bool) -> None:
        self._root = root
        self._prefix_text = prefix
        self._blobs = blobs
        self._reflink = reflink
        self._tells_quiet = reflink and platform.tells_quiet(blobs.directory)
        self._compress = compress
        self._prefix = os.fsencode(prefix)
        self._foreign = other_spellings(prefix)

    def __call__(self, batches: list[Batch]) -> list[tuple[str, list[Ingested]]]:
        """Ingest some batches; per batch its directory's path and a result per name, in order."""
        walker = Walker(self._root)
        results = []
        try:
            for batch in batches:
                try:
                    directory = walker.open(batch.path)
                except OSError as error:
                    shown = os.path.join(self._prefix_text, batch.path)
                    raise HoloError(f"cannot read {shown}: {error.strerror}") from error
                base = batch.path + "/" if batch.path else ""
                results.append((batch.path, [self._ingest(directory, name, base + name) for name in batch.names]))
        finally:
            walker.close()
        return results

    def _ingest(self, directory: Directory, name: str, path: str) -> Ingested:
        for attempt in range(_ATTEMPTS):
            try:
                return self._attempt(directory, name, path)
            except _Changed:
                time.sleep(0.02 * 2**attempt)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise HoloError(
                        f"cannot write to the library {self._blobs.path}: {error.strerror}",
                        f"Nothing was recorded. {advice(error)}",
                    ) from error
                raise HoloError(f"cannot record {os.path.join(self._prefix_text, path)}: {error.strerror}") from error
        raise SourceChanged(
            f"{os.path.join(self._prefix_text, path)} keeps changing while it is read",
            "Stop what writes to it, or remove it, and record again.",
        )

    def _attempt(self, directory: Directory, name: str, path: str) -> Ingested:
        source = platform.open_file(directory, name)
        try:
            before = os.fstat(source)
            if not stat.S_ISREG(before.st_mode):
                raise _Changed
            size = before.st_size
            # Before it is read, and after its status: who opens it for writing from now on moves the ctime.
            times_tell = self._tells_quiet and not _is_recent(before) and platform.is_quiet(source)
            warnings: list[str] = []
            relocation: Relocation | None
            is_sparse = platform.has_holes(source, size)
            if size <= CHUNK and not is_sparse:
                content = platform.read_at(source, size + 1, 0)
                if len(content) != size:
                    raise _Changed
                digest = digests.of(content)
                relocation = find(self._prefix, content) if size >= len(self._prefix) else None
                foreign = [what for what, needle in self._foreign if needle in content]
            else:
                content = None
                digest, relocation, foreign = self._read_large(source, size)
            # What is never compressed is not looked for in that form: it takes a thirtieth of a record's time.
            stored = not self._blobs.has(digest, size, compressed=size > WORTH_COMPRESSING)
            if stored:
                self._store(
                    source, directory, name, before, digest, content, is_sparse=is_sparse, times_tell=times_tell
                )
            else:
                _check_unchanged(source, before)
            xattrs = platform.get_xattrs(source, acls=True)
        finally:
            os.close(source)
        if name.endswith(".pyc") and relocation is not None:
            # Whether this one matters depends on its source, which the caller knows.
            relocation = relocation._replace(kind="bytecode", ends=[])
        elif foreign:
            warnings += [f"{path} contains {what}, which is not patched" for what in foreign]
        if content is not None and may_point_outside(name):
            warnings += outside(path, name, content, os.fsdecode(self._prefix))
        mode, xattrs = platform.without_acls(stat.S_IMODE(before.st_mode), xattrs)
        row = (name, mode, size, before.st_mtime_ns, digest)
        inode = (before.st_dev, before.st_ino) if before.st_nlink > 1 else None
        return Ingested(row, relocation, xattrs, stored, inode, tuple(warnings))

    def _read_large(self, source: int, size: int) -> tuple[str, Relocation | None, list[str]]:
        hasher = digests.Hasher()
        finder = PrefixFinder(self._prefix)
        foreign = [(what, PrefixFinder(needle)) for what, needle in self._foreign]
        for piece in pieces_of(source, size):
            hasher.update(piece)
            finder.feed(piece)
            for _, other in foreign:
                other.feed(piece)
        return hasher.hexdigest(), finder.finish(), [what for what, other in foreign if other.finish() is not None]

    def _store(
        self,
        source: int,
        directory: Directory,
        name: str,
        before: os.stat_result,
        digest: str,
        content: bytes | None,
        *,
        is_sparse: bool,
        times_tell: bool,
    ) -> None:
        size = before.st_size

        def confirm(clone: int) -> None:
            _check_unchanged(source, before)
            if not times_tell and digests.of_file(clone) != digest:
                raise _Changed

        if self._reflink and size:
            try:
                self._blobs.add_clone(digest, size, source, directory, name, confirm)
                return
            except OSError as error:
                # This one file only: Btrfs answers so for nodatacow files. The pair was probed before.
                if error.errno not in platform.UNAVAILABLE:
                    raise
        compress = self._compress and size > WORTH_COMPRESSING and not is_sparse  # only a raw blob keeps holes
        pieces = (content,) if content is not None else pieces_of(source, size)
        try:
            self._blobs.add(digest, pieces, size, compress=compress)
        except ContentMismatch:
            raise _Changed from None
        _check_unchanged(source, before)


def _is_recent(status: os.stat_result) -> bool:
    return time.time_ns() - status.st_ctime_ns < _RECENT_NS


def _check_unchanged(source: int, before: os.stat_result) -> None:
    now = os.fstat(source)
    if (now.st_ctime_ns, now.st_mtime_ns, now.st_size) != (before.st_ctime_ns, before.st_mtime_ns, before.st_size):
        raise _Changed
