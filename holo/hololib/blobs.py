"""Blobs: content by digest, raw or zstd-compressed, written once and never changed."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator

from holo import digest as digests
from holo import platform
from holo.content import Piece, Section, pieces_of, write_all, write_sparse
from holo.errors import HoloError, IntegrityError
from holo.hololib.frames import compress as compressed_pieces
from holo.hololib.frames import inflate, may_be_frame, most_compressed, stored_content
from holo.hololib.shards import NO_FILE, Shards
from holo.hololib.verified import CHUNK, ContentMismatch, verified_chunks
from holo.platform import Directory, probe

SEALED_MODE = 0o444
SEALED_MTIME_NS = 1_000_000_000 * 10**9
"""Every raw blob has this mode and mtime (2001-09-09 01:46:40 UTC): an edit in place shows in one fstat."""

# By measurement of record time, restore time and disk: the table is in benchmarks/README.md.
WORTH_COMPRESSING = 16 << 10
"""Bytes from which on content is compressed: half of all files are smaller, and a tenth of the bytes."""

_REPAIR = "Run `holo check --repair`, with `--from DIR` if another library or directory may have that content."

_PAUSES = (0.01, 0.04, 0.2, 1)
"""Seconds to wait for another user who is making the same blob; a large one takes about as long."""


class Blobs:
    """The blobs of one library."""

    def __init__(self, library: str, before_deriving: Callable[[], object] = lambda: None) -> None:
        """``before_deriving`` is called before a raw form is made of a compressed one (see holo.hololib.unsettled)."""
        self.path = library
        self._before_deriving = before_deriving
        self.may_be_torn = False
        """whether seals cannot be trusted: some content may never have reached the disk"""
        self.shards = Shards(library)
        self.directory = self.shards.directory
        self._owners = platform.owners()
        self.is_sticky = bool(platform.status(self.directory, "").st_mode & stat.S_ISVTX)
        # Only an unusual umask takes rights away that a blob must have; then they are given afterwards.
        self._exact = not platform.umask() & SEALED_MODE

    def close(self) -> None:
        self.shards.close()

    def has(self, digest: str, size: int, *, compressed: bool = True) -> bool:
        """Whether the library has the content, in either form, or raw only unless ``compressed``.

        A raw form without its seal does not count: it was never finished, or it was changed. Another user's, in a
        shared library, counts only if its content is right, and so does every one after a power cut.
        """
        name = raw_name(digest)
        status = self._status(digest, name)
        if status is None or not is_sealed(status, size):
            status = self._status(digest, name + ".zst") if compressed else None
            if status is None or not may_be_frame(status, size):
                return False
        return (not self.may_be_torn and self._is_trusted(status)) or self._content_matches(digest, size)

    def _is_trusted(self, status: os.stat_result) -> bool:
        """Whether only this user and root can have written the file or put it here.

        In the sticky folders of a shared library anybody can link a file of this user's to another name, but rename
        none. Elsewhere who can do the one can do the other as well, and the trees of throw-away environments have
        names of blobs (see :mod:`holo.checkout.stubs`).
        """
        return status.st_uid in self._owners and (status.st_nlink == 1 or not self.is_sticky)

    def _content_matches(self, digest: str, size: int) -> bool:
        try:
            for _ in self.chunks(digest, size):
                pass
        except IntegrityError:
            return False
        except HoloError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
                return False
            raise
        return True

    def _status(self, digest: str, name: str) -> os.stat_result | None:
        try:
            return platform.status(self.directory, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(digest, error) from error

    # -- writing ------------------------------------------------------------------------------------------

    def add(self, digest: str, chunks: Iterable[Piece], size: int, *, compress: bool) -> None:
        """Store content given in pieces. Raises :class:`ContentMismatch` if they do not have that digest.

        The compressed form cannot have holes: store sparse files raw.
        """
        self.add_verified(digest, verified_chunks(chunks, digest, size), size, compress=compress)

    def add_verified(self, digest: str, pieces: Iterable[Piece], size: int, *, compress: bool) -> None:
        """The same of content that the caller has hashed."""
        if compress:
            frame = compressed_pieces(pieces, size)
            self._publish(digest, size, ".zst", lambda folder, draft: self._write(folder, draft, frame))
            return

        def make(folder: Directory, name: str) -> None:
            self._write(folder, name, pieces, seal=True)

        self._make_or_publish(digest, size, make)

    def add_clone(
        self, digest: str, size: int, source: int, directory: Directory, name: str, confirm: Callable[[int], object]
    ) -> None:
        """Store the content of the open file ``source`` (``name`` in ``directory``) raw, by reflink.

        ``confirm`` is called with the open clone before it becomes the blob, and raises if it is not the
        content of ``digest``. Raises :class:`OSError` when there is no reflink here.
        """

        def make(folder: Directory, blob: str) -> None:
            with platform.closing(platform.clone(source, directory, name, folder, blob, SEALED_MODE)) as target:
                confirm(target)
                self.shards.finish(target, SEALED_MTIME_NS, SEALED_MODE, exact=self._exact)

        self._make_or_publish(digest, size, make, takes_room=False)

    def add_frame(self, digest: str, size: int, frame: Section) -> None:
        """Store content by its compressed form, as it is. Raises :class:`ContentMismatch` if it holds other content."""

        def make(folder: Directory, draft: str) -> None:
            with platform.closing(platform.create_file(folder, draft, SEALED_MODE)) as descriptor:
                for piece in frame.pieces():
                    write_all(descriptor, piece)
                # What was written is what is verified: whose file the frame is in may change it meanwhile.
                if stored_content(descriptor, size) != (digest, size):
                    raise ContentMismatch("its compressed form holds something else")
                self.shards.finish(descriptor, time.time_ns(), SEALED_MODE, exact=self._exact)

        if frame.length > most_compressed(size):
            raise ContentMismatch("its compressed form is too large")
        self._publish(digest, size, ".zst", make)

    def add_filled(self, digest: str, size: int, fill: Callable[[int], object]) -> None:
        """Store content raw, which ``fill`` puts into the empty file that it is called with, open.

        The caller verifies the content, beforehand if that can be.
        """

        def make(folder: Directory, draft: str) -> None:
            with platform.closing(platform.create_file(folder, draft, SEALED_MODE)) as descriptor:
                fill(descriptor)
                self.shards.finish(descriptor, SEALED_MTIME_NS, SEALED_MODE, exact=self._exact)

        self._make_or_publish(digest, size, make)

    def seal(self, digest: str) -> None:
        """Give a raw form, whose content the caller has hashed, the mode and mtime of a blob again."""
        with platform.closing(platform.open_file(self.directory, raw_name(digest))) as descriptor:
            platform.set_file(descriptor, SEALED_MTIME_NS, SEALED_MODE)

    def _make_or_publish(
        self, digest: str, size: int, make: Callable[[Directory, str], None], *, takes_room: bool = True
    ) -> None:
        """Let ``make`` write a raw form under its own name, and set its seal last, which makes it a blob.

        That spares the draft and its renaming. Without its seal it is garbage, and stays: what has its name by now may
        be another process's. So what ``takes_room`` and is large has a draft, and so has everything where others could
        not replace what is left.
        """
        if self.is_sticky or (takes_room and size > CHUNK):
            self._publish(digest, size, "", make)
            return
        shard = digest[:2]
        folder = self.shards.open(shard)
        try:
            make(folder, digest)
        except FileExistsError:
            # There already: being made by another, left by a crash, or damaged.
            self._publish(digest, size, "", make)
        finally:
            self.shards.release(shard, folder)

    def _publish(self, digest: str, size: int, ending: str, make: Callable[[Directory, str], None]) -> None:
        try:
            self.shards.publish(raw_name(digest) + ending, make)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            # In the sticky folders of a shared library nobody replaces what another user put there. They may be
            # making the same blob at this moment.
            for pause in _PAUSES:
                if self.has(digest, size):
                    return
                time.sleep(pause)
            raise IntegrityError(
                f"blob {digest} in {self.path} is another user's and not what it should be",
                "Ask them, or the owner of the library, to remove it.",
            ) from error

    def _write(self, folder: Directory, draft: str, chunks: Iterable[Piece], *, seal: bool = False) -> None:
        with platform.closing(platform.create_file(folder, draft, SEALED_MODE)) as descriptor:
            write_sparse(descriptor, chunks)
            mtime = SEALED_MTIME_NS if seal else time.time_ns()
            self.shards.finish(descriptor, mtime, SEALED_MODE, exact=self._exact)

    # -- reading ------------------------------------------------------------------------------------------

    def open_raw(self, digest: str, size: int) -> int | None:
        """Open the raw form, its seal checked; ``None`` when there is none, or none to use. The caller closes it."""
        found = self._open_raw(digest, size)
        return None if found is None else found[0]

    def _open_raw(self, digest: str, size: int) -> tuple[int, os.stat_result] | None:
        opened = self._open(digest, raw_name(digest))
        if opened is None:
            return None
        descriptor, status = opened
        if not is_sealed(status, size):
            os.close(descriptor)
            if self._status(digest, raw_name(digest) + ".zst") is not None:
                return None  # what a killed record left of a clone, say; the other form is the content
            raise self.damaged(digest, "its size, mode or time is not what holo gave it")
        return opened

    def open_frame(self, digest: str, size: int) -> int | None:
        """Open the compressed form; ``None`` if there is none. The caller closes it."""
        opened = self._open(digest, raw_name(digest) + ".zst")
        if opened is None:
            return None
        descriptor, status = opened
        if not may_be_frame(status, size):
            os.close(descriptor)
            raise self.damaged(digest, "its compressed form is not a file, or too large")
        return descriptor

    def frame_size(self, digest: str, size: int) -> int:
        """The bytes of the compressed form; 0 if there is none."""
        found = self._status(digest, raw_name(digest) + ".zst")
        return found.st_size if found is not None and may_be_frame(found, size) else 0

    def _open_compressed(self, digest: str, size: int) -> int:
        descriptor = self.open_frame(digest, size)
        if descriptor is None:
            raise self.missing(digest)
        return descriptor

    def _open(self, digest: str, name: str) -> tuple[int, os.stat_result] | None:
        try:
            descriptor = platform.open_file(self.directory, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in NO_FILE:
                raise self.damaged(digest, "it is not a file") from None
            raise self._unreadable(digest, error) from error
        try:
            return descriptor, os.fstat(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise self._unreadable(digest, error) from error

    def chunks(self, digest: str, size: int, *, of_frame: bool = False) -> Iterator[Piece]:
        """The content, hashed on the way: the last piece is not given out before everything is verified.

        It comes from the raw form, if there is one, unless it is to be that ``of_frame``. Raises
        :class:`IntegrityError` when the stored bytes are not ``size`` bytes of that digest, and when there is no such
        blob.
        """
        raw = None if of_frame else self._open_raw(digest, size)
        descriptor = raw[0] if raw is not None else self._open_compressed(digest, size)
        try:
            stored = pieces_of(descriptor, size) if raw is not None else _inflate_file(descriptor, size)
            yield from verified_chunks(stored, digest, size)
        except ContentMismatch as error:
            raise self.damaged(digest, str(error)) from None
        except OSError as error:
            raise self._unreadable(digest, error) from error
        finally:
            os.close(descriptor)

    def read_frame(self, digest: str, size: int) -> tuple[bytes, bytes] | None:
        """Content that is small enough for memory, verified, and its compressed form; ``None`` if there is no such."""
        descriptor = self.open_frame(digest, size)
        if descriptor is None:
            return None
        try:
            frame = platform.read_at(descriptor, most_compressed(size), 0)
            pieces = verified_chunks(inflate(Section(descriptor, 0, len(frame), frame), size), digest, size)
            return b"".join(map(bytes, pieces)), frame
        except ContentMismatch as error:
            raise self.damaged(digest, str(error)) from None
        except OSError as error:
            raise self._unreadable(digest, error) from error
        finally:
            os.close(descriptor)

    def _unreadable(self, digest: str, error: OSError) -> HoloError:
        return HoloError(f"cannot read blob {digest} in {self.path}: {error.strerror}")

    def inflate(self, digest: str, size: int) -> int:
        """Open the raw form, made from the compressed one if need be."""
        return self._inflated(digest, size)[0]

    def _inflated(self, digest: str, size: int) -> tuple[int, os.stat_result]:
        found = self._open_raw(digest, size)
        if found is None:
            self._before_deriving()
            self.add(digest, self.chunks(digest, size), size, compress=False)
            found = self._open_raw(digest, size)
            if found is None:
                raise self.missing(digest)
        return found

    def clone(
        self,
        digest: str,
        size: int,
        directory: Directory,
        name: str,
        mode: int,
        *,
        verify: bool = False,
        inflate: bool = True,
    ) -> int | None:
        """Make ``name`` in ``directory`` a clone of the raw form, which ``inflate`` makes if need be.

        Returns its open descriptor; ``None`` if there is no raw form, or this one file cannot be cloned. What
        another user put into a shared library is hashed, and ``verify`` hashes the rest.
        """
        try:
            found = self._inflated(digest, size) if inflate else self._open_raw(digest, size)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):  # a library that only others may change
                raise
            return None
        if found is None:
            return None
        source, status = found
        is_trusted = self._is_trusted(status)
        try:
            if verify and is_trusted:
                self.verify(source, digest)
            target = platform.clone(source, self.directory, raw_name(digest), directory, name, mode)
        except OSError as error:
            # The pair can reflink, so this is about one file: Btrfs between nodatacow and ordinary ones.
            if error.errno not in platform.UNAVAILABLE:
                raise
            return None
        finally:
            os.close(source)
        if not is_trusted:
            # Whom it belongs to can change it at any moment, but not the clone.
            try:
                self.verify(target, digest)
            except BaseException:
                os.close(target)
                platform.remove_file(directory, name)
                raise
        return target

    def verify(self, raw: int, digest: str) -> None:
        """Hash the open raw form, or a clone of it. Raises :class:`IntegrityError` if that is not its digest."""
        if digests.of_file(raw) != digest:
            raise self.damaged(digest, "its bytes do not have that digest")

    def why_no_reflink(self, target: Directory) -> str | None:
        """Try whether files in ``target`` can share blocks with blobs; ``None`` if they can, else why not."""
        return probe.reflink(self.directory, target, self.any_raw)

    def any_raw(self) -> str | None:
        """The path below ``library/`` of some raw blob, if there is one."""
        return next((f"{folder}/{name}" for folder, name in self._names() if digests.is_digest(name)), None)

    def digests(self) -> set[str]:
        """The digests of all blobs that seem to be there, in any form."""
        return {name.removesuffix(".zst") for _, name in self._names()}

    def _names(self) -> Iterator[tuple[str, str]]:
        """The folders below ``library/`` in order, each with the names in it."""
        with platform.listing(self.directory) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        for folder in folders:
            with (
                platform.closing(platform.open_child(self.directory, folder)) as child,
                platform.listing(child) as entries,
            ):
                yield from ((folder, entry.name) for entry in entries)

    def damaged(self, digest: str, why: str) -> IntegrityError:
        return IntegrityError(f"blob {digest} in {self.path} is damaged: {why}", _REPAIR)

    def missing(self, digest: str) -> IntegrityError:
        return IntegrityError(f"blob {digest} is not in {self.path}", _REPAIR)


def raw_name(digest: str) -> str:
    """Path of a raw blob below ``library/``."""
    return f"{digest[:2]}/{digest}"


def content_matches(descriptor: int, name: str) -> bool:
    """Whether an open file of ``library/`` holds what its name says. Its mode and time are not looked at."""
    digest, _, compressed = name.partition(".")
    try:
        return (stored_content(descriptor)[0] if compressed else digests.of_file(descriptor)) == digest
    except ContentMismatch:
        return False


def is_sealed(status: os.stat_result, size: int) -> bool:
    """Whether a raw blob of that many bytes has the size, mode and mtime that holo gave it."""
    return (
        status.st_mtime_ns == SEALED_MTIME_NS
        and status.st_size == size
        and status.st_mode == stat.S_IFREG | SEALED_MODE
    )


def _inflate_file(descriptor: int, size: int) -> Iterable[bytes]:
    return inflate(Section(descriptor, 0, most_compressed(size)), size)
