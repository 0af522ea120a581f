"""Make one file, in one of the ways there are. Always a new inode, never through what is there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from holo import platform
from holo.catalog import Catalog, FileRow, Relocation
from holo.checkout.attributes import set_xattrs
from holo.checkout.contents import Contents
from holo.checkout.plan import Fill
from holo.checkout.strategy import Method
from holo.checkout.stubs import Stubs
from holo.checkout.tally import Tally
from holo.content import Hole, Piece, write_sparse
from holo.hololib.links import READ_ONLY, Links
from holo.hololib.verified import CHUNK
from holo.platform import Directory
from holo.relocation.patch import Relocator, patch_file

_KEPT_BYTES = 64 << 20
"""Patched content kept in memory between the check before the first write and the write itself."""

_SPECIAL = 0o7000
"""Bits of a mode that open(2) drops on some filesystems (FUSE), and that a write takes away: they are set last."""

_LARGEST_REGIONS = 16 << 20
"""Bytes to change from which on a file is rewritten rather than cloned and patched."""

_BLOCK = 4096
"""What a filesystem shares or does not share."""


class Materializer:
    """Makes files of one catalog in one space. Made before the workers are forked, used in them."""

    def __init__(
        self,
        contents: Contents,
        links: Links | None,
        catalog: Catalog,
        relocator: Relocator,
        used: Method,
        *,
        verify: bool,
        stubs: Stubs | None = None,
    ) -> None:
        """``links`` are needed for hardlinks only. With ``stubs``, what can be one of them is."""
        self.used = used
        self._verify = verify
        self._contents = contents
        self._links = links if used is Method.HARDLINK else None
        self._stubs = stubs
        self._catalog = catalog
        self._relocator = relocator
        self._patched: dict[str, bytes] = {}
        self._patched_bytes = 0
        self._lost: list[str] = []  # the attributes that the file which is being made cannot have
        self._private = {path for path, item in catalog.relocations.items() if relocator.applies(item)}
        self._private.update(catalog.xattrs)
        self._inexact = _SPECIAL | platform.umask()
        self.modes: dict[int, int] = {}
        """what became of each type and mode (st_mode) that was set: some filesystems do not keep them all"""
        self.unquoted: list[str] = []
        """files in which nobody knows how the new path is to be quoted, if :meth:`check` saw them"""

    @property
    def copies(self) -> bool:
        """Whether the bytes of most files are copied."""
        return self.used is Method.COPY and self._stubs is None

    def check(self, fills: Iterable[Fill]) -> None:
        """Check the recorded offsets of all relocated files against their content, before anything is written.

        Raises :class:`CatalogInvalid`, and what reading a blob raises.
        """
        folders = {path.rpartition("/")[0] for path in self._catalog.relocations}
        for fill in fills:
            if fill.path in folders:
                base = fill.path + "/" if fill.path else ""
                for row in fill.files:
                    path = base + row[0]
                    relocation = self._relocation(path)
                    if relocation is not None:
                        self._check(path, row, relocation)

    def _check(self, path: str, row: FileRow, relocation: Relocation) -> None:
        size = row[2]
        read = self._reader(row)
        self._relocator.check(read(), relocation, path)
        if self._relocator.is_unquoted(read(), relocation, path):
            self.unquoted.append(path)
        if size <= CHUNK and self._patched_bytes < _KEPT_BYTES:
            pieces = [*self._relocator.patch(read, relocation, path)]
            if not any(isinstance(piece, Hole) for piece in pieces):
                patched = b"".join(map(bytes, pieces))
                self._patched[path] = patched
                self._patched_bytes += len(patched)

    def _reader(self, row: FileRow) -> Callable[[], Iterable[Piece]]:
        """How to read a content more than once: a small one is kept, since to read it takes longer than the rest."""
        size, digest = row[2], row[4]
        if size > CHUNK:
            return partial(self._contents.chunks, digest, size)
        pieces = [*self._contents.chunks(digest, size)]
        return lambda: iter(pieces)

    def make(self, directory: Directory, base: str, row: FileRow, tally: Tally) -> None:
        """Make a file in its open ``directory``, whose path below the space is ``base`` ("" or "folder/").

        No file of that name may be there.
        """
        if self._private:
            path = base + row[0]
            if path in self._private:
                self._make_private(directory, path, row, tally)
                return
        if self._stubs is not None:
            stub = self._stubs.make(row, directory)
            if stub is not None:
                self._finish(stub, row[1], row[3], None, exact=bool(row[1] & stat.S_IWUSR))
                tally.reflinked += 1
                tally.shared_bytes += row[2]
                return
        if self._links is not None:
            if self._make_link(directory, row):
                tally.hardlinked += 1
                tally.shared_bytes += row[2]
                return
            name, mode, size, mtime, digest = row
            row = (name, mode & READ_ONLY, size, mtime, digest)
        self._make_own(directory, row, None, tally)

    def _make_private(self, directory: Directory, path: str, row: FileRow, tally: Tally) -> None:
        """A file that shares its inode with nothing, whatever the strategy."""
        relocation = self._relocation(path)
        xattrs = self._catalog.xattrs.get(path)
        if relocation is None:
            self._make_own(directory, row, xattrs, tally)
        else:
            self._make_patched(directory, path, row, relocation, xattrs)
            tally.copied += 1
            tally.written_bytes += row[2]
        if self._lost:
            tally.lost += [(path, name) for name in self._lost]
            self._lost = []

    def _make_own(self, directory: Directory, row: FileRow, xattrs: dict[str, bytes] | None, tally: Tally) -> None:
        if self.used is not Method.COPY and self._make_clone(directory, row, xattrs):
            tally.reflinked += 1
            tally.shared_bytes += row[2]
            return
        self._make_copy(directory, row, xattrs)
        tally.copied += 1
        tally.written_bytes += row[2]

    def _relocation(self, path: str) -> Relocation | None:
        relocation = self._catalog.relocations.get(path)
        if relocation is not None and self._relocator.applies(relocation):
            return relocation
        return None

    def _make_link(self, directory: Directory, row: FileRow) -> bool:
        assert self._links is not None
        try:
            self._links.link(row, directory, row[0], verify=self._verify)
        except OSError as error:
            # That one file has all the links it can have, or another user has taken the link form's name.
            if error.errno not in (errno.EMLINK, errno.EPERM):
                raise
            return False
        return True

    def _make_clone(self, directory: Directory, row: FileRow, xattrs: dict[str, bytes] | None) -> bool:
        name, mode, size, mtime, digest = row
        if not size:
            self._finish(platform.create_file(directory, name, mode), mode, mtime, xattrs)
            return True
        target = self._contents.clone(digest, size, directory, name, 0o600 if xattrs else mode, verify=self._verify)
        if target is None:
            return False
        self._finish(target, mode, mtime, xattrs)
        return True

    def _make_copy(self, directory: Directory, row: FileRow, xattrs: dict[str, bytes] | None) -> None:
        name, mode, size, mtime, digest = row
        self._write(directory, name, self._contents.chunks(digest, size), mode, mtime, xattrs)

    def _make_patched(
        self, directory: Directory, path: str, row: FileRow, relocation: Relocation, xattrs: dict[str, bytes] | None
    ) -> None:
        name, mode, size, mtime, digest = row
        if (
            size > CHUNK
            and self.used is Method.REFLINK
            and self._make_patched_clone(directory, path, row, relocation, xattrs)
        ):
            return
        chunks: Iterator[Piece]
        patched = self._patched.get(path)
        if patched is not None:
            chunks = iter((patched,))
        else:
            chunks = self._relocator.patch(partial(self._contents.chunks, digest, size), relocation, path)
        self._write(directory, name, chunks, mode, mtime, xattrs)

    def _make_patched_clone(
        self, directory: Directory, path: str, row: FileRow, relocation: Relocation, xattrs: dict[str, bytes] | None
    ) -> bool:
        """A large file shares all blocks but the few that change, where that is possible."""
        name, mode, size, mtime, digest = row
        regions = self._relocator.regions(relocation)
        if regions is None or sum(end - start + _BLOCK for start, end in regions) > min(size, _LARGEST_REGIONS):
            return False
        target = self._contents.clone(digest, size, directory, name, 0o600, verify=self._verify)
        if target is None:
            return False
        try:
            patch_file(target, self._relocator, relocation, path)
        except BaseException:
            os.close(target)
            platform.remove_file(directory, name)
            raise
        self._finish(target, mode, mtime, xattrs, exact=False)
        return True

    def _write(
        self,
        directory: Directory,
        name: str,
        chunks: Iterator[Piece],
        mode: int,
        mtime: int,
        xattrs: dict[str, bytes] | None,
    ) -> None:
        target = platform.create_file(directory, name, 0o600 if xattrs else mode)
        try:
            write_sparse(target, chunks)
        except BaseException:
            os.close(target)
            platform.remove_file(directory, name)
            raise
        self._finish(target, mode, mtime, xattrs)

    def _finish(
        self, target: int, mode: int, mtime: int, xattrs: dict[str, bytes] | None, *, exact: bool = True
    ) -> None:
        """Set what is not right yet and close. ``exact``: the file was created with ``mode``, umask aside."""
        try:
            # Extended attributes need write permission, and writing drops setuid: so the mode comes last.
            if xattrs:
                self._lost = set_xattrs(target, xattrs)
            exact = exact and not xattrs and not mode & self._inexact
            platform.set_file(target, mtime, None if exact else mode)
            if stat.S_IFREG | mode not in self.modes:
                self.modes[stat.S_IFREG | mode] = os.fstat(target).st_mode
        finally:
            os.close(target)
