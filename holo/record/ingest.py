"""Read files once: hash, look for the prefix, store what the library does not have yet. Runs in workers.

The catalog must never describe bytes that were not stored, although other programs may be writing. A small
file is read in one piece, and the bytes that were hashed are the bytes that are stored. A large one is read
twice, and the second reading is hashed again as it is stored. A reflink is taken from the open file, whose
ctime must then be what it was before the reading. Where that says nothing, the clone is hashed: a file changed so
recently that the clock could not tell, or open for writing by anybody. For in a page that is mapped and dirty,
further changes move no time.

A file with several names is read once, by the first of them. It is still open when the others are looked at, so they
are names of this very file, and are recorded alike even if it changes in the next moment.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from holo import digest as digests
from holo import platform
from holo.catalog import FileRow, Relocation
from holo.content import Piece, pieces_of
from holo.errors import HoloError, SourceChanged, advice
from holo.hololib.blobs import WORTH_COMPRESSING, Blobs
from holo.hololib.verified import CHUNK, ContentMismatch
from holo.platform import Directory
from holo.relocation.foreign import may_point_outside
from holo.relocation.inspection import Inspector, Seen
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
    xattrs: dict[str, bytes] | None
    stored: bool
    """the library did not have it"""
    inode: tuple[int, int] | None
    """(device, inode) of a file with several names"""
    warnings: tuple[str, ...]


class _Content(NamedTuple):
    """What was read of a file, whatever its name."""

    status: os.stat_result
    digest: str
    seen: Seen | None
    xattrs: dict[str, bytes]
    stored: bool
    small: bytes | None
    """all of it, if that is not much"""


_Found: TypeAlias = defaultdict[str, list[Ingested]]
"""What files became, by the path of their folder."""


class Batch(NamedTuple):
    """Some files of one directory."""

    path: str
    """of the directory, relative to the root"""
    names: list[str]


class Ingest:
    """Everything the workers share, made before they are forked."""

    def __init__(
        self,
        root: Directory,
        inspector: Inspector,
        blobs: Blobs,
        other_names: Mapping[str, Sequence[tuple[str, str]]],
        *,
        reflink: bool,
        compress: bool,
    ) -> None:
        """``other_names``: see :class:`holo.record.scan.ScannedTree`."""
        self._root = root
        self._other_names = other_names
        self._prefix_text = inspector.path
        self._blobs = blobs
        self._reflink = reflink
        self._tells_quiet = reflink and platform.can_detect_writers(blobs.directory)
        self._compress = compress
        self._inspector = inspector

    def __call__(self, batches: list[Batch]) -> list[tuple[str, list[Ingested]]]:
        """Ingest some batches: directories' paths, each with results of files in it. Other names are among them."""
        walker, aside = Walker(self._root), Walker(self._root)
        found: _Found = defaultdict(list)
        try:
            for batch in batches:
                directory = self._open(walker, batch.path)
                for name in batch.names:
                    self._ingest(directory, batch.path, name, aside, found)
        finally:
            walker.close()
            aside.close()
        return [*found.items()]

    def _open(self, walker: Walker, folder: str) -> Directory:
        try:
            return walker.open(folder)
        except OSError as error:
            raise HoloError(f"cannot read {os.path.join(self._prefix_text, folder)}: {error.strerror}") from error

    def _ingest(self, directory: Directory, folder: str, name: str, aside: Walker, found: _Found) -> None:
        """Add what the file became to the folder of each of its names. ``aside`` opens those folders."""
        for attempt in range(_ATTEMPTS):
            try:
                self._attempt(directory, folder, name, aside, found)
                return
            except _Changed:
                time.sleep(0.02 * 2**attempt)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise HoloError(
                        f"cannot write to the library {self._blobs.path}: {error.strerror}",
                        f"Nothing was recorded. {advice(error)}",
                    ) from error
                path = os.path.join(self._prefix_text, folder, name)
                raise HoloError(f"cannot record {path}: {error.strerror}") from error
        raise SourceChanged(
            f"{os.path.join(self._prefix_text, folder, name)} keeps changing while it is read",
            "Stop what writes to it, or remove it, and record again.",
        )

    def _attempt(self, directory: Directory, folder: str, name: str, aside: Walker, found: _Found) -> None:
        others = self._other_names.get(_join(folder, name), ()) if self._other_names else ()
        names: list[tuple[str, str]] = []
        replaced: list[tuple[str, str]] = []
        with platform.closing(platform.open_file(directory, name)) as source:
            content = self._read(source, directory, name)
            for other in others:
                (names if _is_at(content.status, aside, *other) else replaced).append(other)
        found[folder].append(self._named(content, folder, name))
        for place, own in names:
            found[place].append(self._named(content, place, own))
        for place, own in replaced:  # by something else since the tree was scanned
            self._ingest(self._open(aside, place), place, own, aside, found)

    def _named(self, content: _Content, folder: str, name: str) -> Ingested:
        """What the content becomes under one of the file's names."""
        status, seen, xattrs = content.status, content.seen, content.xattrs
        mode = stat.S_IMODE(status.st_mode)
        relocation: Relocation | None = None
        warnings: Sequence[str] = ()
        if seen is not None or may_point_outside(folder, name):
            # Whether that of bytecode matters depends on its source, which the caller knows.
            relocation, warnings = self._inspector.judge(seen, content.small, folder, name)
        if xattrs:
            mode, xattrs = platform.without_acls(mode, xattrs)
        row = (name, mode, status.st_size, status.st_mtime_ns, content.digest)
        inode = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
        return Ingested(row, relocation, xattrs or None, content.stored, inode, tuple(warnings))

    def _read(self, source: int, directory: Directory, name: str) -> _Content:
        before = os.fstat(source)
        if not stat.S_ISREG(before.st_mode):
            raise _Changed
        size = before.st_size
        # Before it is read, and after its status: who opens it for writing from now on moves the ctime.
        times_tell = self._tells_quiet and not _is_recent(before) and platform.has_no_writer(source)
        is_sparse = platform.has_holes(source, size)  # before the reading; it takes a microsecond
        if size <= CHUNK and not is_sparse:
            small = platform.read_at(source, size + 1, 0)
            if len(small) != size:
                raise _Changed
            digest = digests.of(small)
            seen = self._inspector.look_into(small, name)
        else:
            small = None
            hasher = digests.Hasher()
            seen = self._inspector.look_through(_hashed(pieces_of(source, size), hasher), name)
            digest = hasher.hexdigest()
        # What is never compressed is not looked for in that form: it takes a thirtieth of a record's time.
        stored = not self._blobs.has(digest, size, compressed=size > WORTH_COMPRESSING)
        if stored:
            self._store(source, directory, name, before, digest, small, is_sparse=is_sparse, times_tell=times_tell)
        else:
            _check_unchanged(source, before)
        xattrs = platform.get_xattrs(source, acls=True)
        return _Content(before, digest, seen, xattrs, stored, small)

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
        if content is not None:  # which has that digest
            self._blobs.add_verified(digest, (content,), size, compress=compress)
        else:
            try:
                self._blobs.add(digest, pieces_of(source, size), size, compress=compress)
            except ContentMismatch:
                raise _Changed from None
        _check_unchanged(source, before)


def _hashed(pieces: Iterable[Piece], hasher: digests.Hasher) -> Iterator[Piece]:
    """The same pieces, each hashed on its way."""
    for piece in pieces:
        hasher.update(piece)
        yield piece


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_at(status: os.stat_result, walker: Walker, folder: str, name: str) -> bool:
    """Whether a name is one of the file with this status, which is open: no other has its inode number now."""
    try:
        return os.path.samestat(status, platform.status(walker.open(folder), name))
    except OSError:  # which reading it will tell
        return False


def _is_recent(status: os.stat_result) -> bool:
    return time.time_ns() - status.st_ctime_ns < _RECENT_NS


def _check_unchanged(source: int, before: os.stat_result) -> None:
    now = os.fstat(source)
    if (now.st_ctime_ns, now.st_mtime_ns, now.st_size) != (before.st_ctime_ns, before.st_mtime_ns, before.st_size):
        raise _Changed
