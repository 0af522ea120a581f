"""A tree to ask about: a catalog, a bundle's, or a space as it is now.

A space as it is now has the rows of its catalog, and rows from the disk where a survey found a difference. The contents
of those are read only when somebody asks for them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog, DirectoryRow, FileRow, SymlinkRow
from holo.checkout.contents import Contents, Readable
from holo.checkout.proof import NO_PROOF, proof_of, still_holds
from holo.checkout.strategy import Method
from holo.checkout.survey import Expectation, Finding, as_restored, survey
from holo.content import Piece, pieces_of
from holo.errors import HoloError, os_errors_as
from holo.hololib import CatalogRef
from holo.home import Home
from holo.platform import Directory
from holo.space import Space
from holo.spellings import spellings
from holo.walk import Walker, open_directory

_ON_DISK = "on disk: "
"""Begins what stands for the digest of a file that nobody has hashed; its path follows."""

_SPECIAL = "special"
"""In the place of the digest of what is neither file, symlink nor directory."""


class Tree(NamedTuple):
    """Something with files and contents."""

    catalog: Catalog
    contents: Readable
    prefix: str
    """the path that the files of ``own`` name; the others name the catalog's prefix"""
    ref: CatalogRef
    """the catalog; of a space, that which it was restored to"""
    own: frozenset[str] = frozenset()
    """files whose contents are those on the disk of a space"""
    is_pristine: bool = True
    """whether a space is exactly its catalog"""
    unread: tuple[str, ...] = ()
    """directories that could not be read, and files that the catalog has. Their contents are taken for unchanged"""
    recorded: Catalog | None = None
    """of a space: what it was restored to"""
    project: str = ""
    """of a space: the root of the project that the files of ``own`` name, if that is not the recorded one"""
    altered: frozenset[str] = frozenset()
    """of a space: files and directories in which something is different that no row has: an attribute, or the owner"""

    def refuse_unread(self) -> None:
        """Raise :class:`HoloError` if nobody knows whether something differs, because it could not be read."""
        for path in self.unread:
            raise HoloError(
                f"cannot read {os.path.join(self.prefix, path)}: Permission denied",
                "Check its owner and mode. `holo status` compares what can be read.",
            )

    def read(self, row: FileRow) -> bytes:
        """The content of a file."""
        return b"".join(map(bytes, self.contents.chunks(row[4], row[2])))

    def named_roots(self, path: str) -> list[bytes]:
        """The paths of the tree and its project as they are in that file, plain or in a URL; the longest first."""
        is_own = path in self.own
        project = (self.project if is_own else "") or self.catalog.project
        roots = filter(None, (self.prefix if is_own else self.catalog.prefix, project))
        return sorted({form for root in roots for form in spellings(root)}, key=len, reverse=True)


@contextmanager
def tree_of_space(home: Home, space: Space, catalog: Catalog, contents: Contents) -> Iterator[Tree]:
    """A space as it is now. The caller holds its lock and the library's, shared.

    That takes one stat per file, and reads those which the last restore does not vouch for.
    """
    with os_errors_as(f"cannot read the space {space.path}"), platform.closing(open_directory(space.path)) as root:
        ref = CatalogRef(space.catalog, space.digest)
        proof = NO_PROOF
        if still_holds(space, catalog.digest, root):
            proof = proof_of(home.spaces, space, catalog)
        is_linked = space.used == Method.HARDLINK and contents is home.library.blobs
        expectation = as_restored(space, catalog, proof, home.library.links if is_linked else None)
        findings = survey(root, expectation, contents, home.workers).findings
        if not findings:
            yield Tree(catalog, contents, space.path, ref, recorded=catalog)
            return
        look = _Look(root, expectation, contents)
        look.take({finding.path: finding for finding in findings})
        now = Catalog(catalog.prefix, look.rows, catalog.relocations, [], {}, "of a space", catalog.project)
        yield Tree(
            now,
            _Mixed(contents, root),
            space.path,
            ref,
            frozenset(look.own),
            False,
            tuple(look.unread),
            catalog,
            space.project,
            frozenset(look.altered),
        )


class _Mixed:
    """The contents of a catalog, and those of the files on the disk of a space."""

    def __init__(self, contents: Contents, root: Directory) -> None:
        self._contents = contents
        self._root = root

    def chunks(self, digest: str, size: int) -> Iterator[Piece]:
        if digest == _SPECIAL:
            return iter(())
        if not digest.startswith(_ON_DISK):
            return self._contents.chunks(digest, size)
        return self._read(digest.removeprefix(_ON_DISK), size)

    def _read(self, path: str, size: int) -> Iterator[Piece]:
        folder, _, name = path.rpartition("/")
        with (
            os_errors_as(f"cannot read {path} in the space"),
            Walker(self._root) as walker,
            platform.closing(platform.open_file(walker.open(folder), name)) as descriptor,
        ):
            yield from pieces_of(descriptor, size)


class _Look:
    """Puts together the rows of a space as it is now."""

    def __init__(self, root: Directory, expectation: Expectation, contents: Contents) -> None:
        self._walker = Walker(root)
        self._catalog = expectation.catalog
        self._relocator = expectation.relocator
        self._back = expectation.relocator.reversed()
        self._contents = contents
        self.rows: list[DirectoryRow] = []
        self.own: set[str] = set()
        self.altered: set[str] = set()
        self.unread: list[str] = []

    def take(self, findings: dict[str, Finding]) -> None:
        hidden: set[str] = set()
        with self._walker:
            for row in self._catalog.directories:
                path = row[0]
                finding = findings.get(path)
                if path and path.rpartition("/")[0] in hidden:
                    hidden.add(path)
                elif finding is not None and finding.unreadable:
                    hidden.add(path)
                    self.unread.append(path)
                    self.rows.append((path, self._mode_of(row), *row[2:]))
                    continue
                elif finding is not None:
                    if not finding.missing:
                        self._take_changed(row, finding)
                    continue
                self.rows.append(row)

    def _mode_of(self, row: DirectoryRow) -> int:
        """The rights of a directory that cannot be read, which the one above it tells."""
        folder, _, name = row[0].rpartition("/")
        with suppress(OSError):
            return stat.S_IMODE(platform.status(self._walker.open(folder), name).st_mode)
        return row[1]

    def _take_changed(self, row: DirectoryRow, finding: Finding) -> None:
        path, mode, mtime, files, links = row
        gone = {*finding.replace, *(row[0] for row in finding.files), *(row[0] for row in finding.symlinks)}
        directory = self._walker.open(path)
        if finding.attributes:
            status = platform.status(directory, "")
            if (mode, mtime) == (stat.S_IMODE(status.st_mode), status.st_mtime_ns):
                self.altered.add(path)
            mode, mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns
        kept_files = [row for row in files if row[0] not in gone]
        kept_links = [row for row in links if row[0] not in gone]
        known = {row[0]: row for row in files}
        folders = self._take_entries(directory, path, (*finding.replace, *finding.extra), kept_files, kept_links, known)
        self.rows.append((path, mode, mtime, kept_files, kept_links))
        for folder in folders:
            self._take_folder(folder)

    def _take_folder(self, path: str) -> None:
        """A directory that is not in the catalog, and all below it."""
        waiting = [path]
        while waiting:
            path = waiting.pop()
            files: list[FileRow] = []
            links: list[SymlinkRow] = []
            try:
                directory = self._walker.open(path)
                status = platform.status(directory, "")
                with platform.listing(directory) as entries:
                    names = sorted(entry.name for entry in entries)
                waiting += self._take_entries(directory, path, names, files, links, {})
            except PermissionError:
                self.unread.append(path)
                continue
            except (FileNotFoundError, NotADirectoryError):  # removed meanwhile
                continue
            self.rows.append((path, stat.S_IMODE(status.st_mode), status.st_mtime_ns, files, links))

    def _take_entries(
        self,
        directory: Directory,
        folder: str,
        names: Iterable[str],
        files: list[FileRow],
        links: list[SymlinkRow],
        known: dict[str, FileRow],
    ) -> list[str]:
        """Add the rows of some entries of a directory; returns the directories among them."""
        folders = []
        for name in names:
            path = f"{folder}/{name}" if folder else name
            try:
                status = platform.status(directory, name)
                if stat.S_ISLNK(status.st_mode):
                    target = self._back.symlink(platform.read_link(directory, name), path)
                    links.append((name, target, status.st_mtime_ns))
                elif stat.S_ISDIR(status.st_mode):
                    folders.append(path)
                elif stat.S_ISREG(status.st_mode):
                    files.append(self._file_row(directory, path, name, status, known.get(name)))
                else:
                    files.append((name, stat.S_IMODE(status.st_mode), 0, status.st_mtime_ns, _SPECIAL))
            except FileNotFoundError:  # removed meanwhile
                continue
        return folders

    def _file_row(
        self, directory: Directory, path: str, name: str, status: os.stat_result, known: FileRow | None
    ) -> FileRow:
        mode, mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns
        if known is not None:
            try:
                is_as_restored = self._is_as_restored(directory, path, known, status.st_size)
            except PermissionError:
                self.unread.append(path)
                is_as_restored = True
            if is_as_restored:
                row = (name, mode, known[2], mtime, known[4])
                if row == known:
                    self.altered.add(path)
                return row
        self.own.add(path)
        return name, mode, status.st_size, mtime, _ON_DISK + path

    def _is_as_restored(self, directory: Directory, path: str, row: FileRow, size: int) -> bool:
        """Whether the content of a file is what a restore makes, whatever else is different.

        Raises :class:`FileNotFoundError` and :class:`PermissionError`.
        """
        name, _, expected, _, digest = row
        relocation = self._catalog.relocations.get(path)
        is_patched = relocation is not None and self._relocator.applies(relocation)
        if not is_patched and size != expected:
            return False
        try:
            with platform.closing(platform.open_file(directory, name)) as descriptor:
                found = digests.of_file(descriptor)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:  # whoever reads it hears of that
            return False
        if relocation is None or not is_patched:
            return found == digest
        wanted = digests.Hasher()
        for chunk in self._relocator.patch(partial(self._contents.chunks, digest, expected), relocation, path):
            wanted.update(chunk)
        return found == wanted.hexdigest()
