"""Blobs: content by digest, raw or zstd-compressed, written once and never changed."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from holo import digest as digests
from holo import platform
from holo.content import Hole, Piece, pieces_of
from holo.errors import HoloError, IntegrityError, os_errors_as
from holo.hololib.shards import NO_FILE, Shards
from holo.platform import Directory

CHUNK = 1 << 20
"""Bytes read or written at a time; files up to this size are handled in one piece."""

SEALED_MODE = 0o444
SEALED_MTIME_NS = 1_000_000_000 * 10**9
"""Every raw blob has this mode and mtime (2001-09-09 01:46:40 UTC): an edit in place shows in one fstat."""

# Both by measurement of record time, restore time and disk: the table is in benchmarks/README.md.
ZSTD_LEVEL = 1
WORTH_COMPRESSING = 16 << 10
"""Bytes from which on content is compressed: half of all files are smaller, and a tenth of the bytes."""

_REPAIR = "Run `holo check --repair`, with `--from DIR` if another library or directory may have that content."

_WINDOW = 8 << 20
"""Bytes of memory that a compressed blob may ask for while it is inflated: what RFC 8878 wants of a decoder. holo's
own ask for half a megabyte."""

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
            if status is None or not _may_be_compressed(status, size):
                return False
        return (not self.may_be_torn and self._is_trusted(status)) or self._content_matches(digest, size)

    def _is_trusted(self, status: os.stat_result) -> bool:
        """Whether only this user and root can have written the file or linked it here."""
        return status.st_uid in self._owners and status.st_nlink == 1

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
        if compress:
            compressed = _compress(chunks, size, digest)
            self._publish(digest, size, ".zst", lambda folder, draft: self._write(folder, draft, compressed))
        else:
            pieces = verified_chunks(chunks, digest, size)
            self._publish(digest, size, "", lambda folder, draft: self._write(folder, draft, pieces, seal=True))

    def add_clone(
        self, digest: str, size: int, source: int, directory: Directory, name: str, confirm: Callable[[int], object]
    ) -> None:
        """Store the content of the open file ``source`` (``name`` in ``directory``) raw, by reflink.

        ``confirm`` is called with the open clone before it becomes the blob, and raises if it is not the
        content of ``digest``. Raises :class:`OSError` when there is no reflink here.
        """

        def make(folder: Directory, blob: str) -> None:
            target = platform.clone(source, directory, name, folder, blob, SEALED_MODE)
            try:
                confirm(target)
                self.shards.finish(target, SEALED_MTIME_NS, SEALED_MODE, exact=self._exact)
            finally:
                os.close(target)

        shard = digest[:2]
        folder = self.shards.open(shard)
        try:
            # The seal, set last, makes it a blob: that spares the draft and its renaming. Without it, it is garbage,
            # and stays: what has its name by now may be another process's.
            make(folder, digest)
        except FileExistsError:
            # There already: being made by another, left by a crash, or damaged.
            self._publish(digest, size, "", make)
        finally:
            self.shards.release(shard, folder)

    def seal(self, digest: str) -> None:
        """Give a raw form, whose content the caller has hashed, the mode and mtime of a blob again."""
        descriptor = platform.open_file(self.directory, raw_name(digest))
        try:
            platform.set_file(descriptor, SEALED_MTIME_NS, SEALED_MODE)
        finally:
            os.close(descriptor)

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
        descriptor = platform.create_file(folder, draft, SEALED_MODE)
        try:
            write_sparse(descriptor, chunks)
            mtime = SEALED_MTIME_NS if seal else time.time_ns()
            self.shards.finish(descriptor, mtime, SEALED_MODE, exact=self._exact)
        finally:
            os.close(descriptor)

    def take(self, library: str, wanted: dict[str, int]) -> None:
        """Store blobs (digest to size in bytes) from another library's folder of blobs; each is hashed.

        Files there may have any mode and time: they come from an archive or a version control system.
        """
        for digest, size in wanted.items():
            with os_errors_as(f"cannot write to the library {self.path}"):
                self.add(digest, self.foreign_chunks(library, digest, size), size, compress=False)

    @staticmethod
    def foreign_chunks(library: str, digest: str, size: int) -> Iterator[Piece]:
        """The content of a blob of another library's folder of blobs, verified like :meth:`chunks`."""
        with (
            os_errors_as(f"cannot read blob {digest} in {library}", _REPAIR),
            platform.closing(platform.open_root(library)) as source,
        ):
            yield from _foreign_chunks(source, library, digest, size)

    # -- reading ------------------------------------------------------------------------------------------

    def open_raw(self, digest: str, size: int) -> int | None:
        """Open the raw form, its seal checked; ``None`` when there is none, or none to use. The caller closes it."""
        found = self._open_raw(digest, size)
        return None if found is None else found[0]

    def _open_raw(self, digest: str, size: int) -> tuple[int, bool] | None:
        """The open raw form, and whether it is to be trusted with its seal alone."""
        opened = self._open(digest, raw_name(digest))
        if opened is None:
            return None
        descriptor, status = opened
        if not is_sealed(status, size):
            os.close(descriptor)
            if self._status(digest, raw_name(digest) + ".zst") is not None:
                return None  # what a killed record left of a clone, say; the other form is the content
            raise self.damaged(digest, "its size, mode or time is not what holo gave it")
        return descriptor, self._is_trusted(status)

    def _open_compressed(self, digest: str, size: int) -> int:
        opened = self._open(digest, raw_name(digest) + ".zst")
        if opened is None:
            raise self.missing(digest)
        descriptor, status = opened
        if not _may_be_compressed(status, size):
            os.close(descriptor)
            raise self.damaged(digest, "its compressed form is not a file, or too large")
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

    def chunks(self, digest: str, size: int) -> Iterator[Piece]:
        """The content, hashed on the way: the last piece is not given out before everything is verified.

        Raises :class:`IntegrityError` when the stored bytes are not ``size`` bytes of that digest, and when
        there is no such blob.
        """
        descriptor, read = self.open_raw(digest, size), pieces_of
        if descriptor is None:
            descriptor, read = self._open_compressed(digest, size), _decompress
        try:
            yield from verified_chunks(read(descriptor, size), digest, size)
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

    def _inflated(self, digest: str, size: int) -> tuple[int, bool]:
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
        source, is_trusted = found
        try:
            if verify and is_trusted:
                self.verify(source, digest, size)
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
                self.verify(target, digest, size)
            except BaseException:
                os.close(target)
                platform.remove_file(directory, name)
                raise
        return target

    def verify(self, raw: int, digest: str, size: int) -> None:
        """Hash the open raw form, or a clone of it. Raises :class:`IntegrityError` if that is not its digest."""
        if digests.of_file(raw) != digest:
            raise self.damaged(digest, "its bytes do not have that digest")

    def any_raw(self) -> str | None:
        """The path below ``library/`` of some raw blob, if there is one."""
        with platform.listing(self.directory) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        for folder in folders:
            with (
                platform.closing(platform.open_child(self.directory, folder)) as child,
                platform.listing(child) as entries,
            ):
                found = next((entry.name for entry in entries if digests.is_digest(entry.name)), None)
            if found is not None:
                return f"{folder}/{found}"
        return None

    def damaged(self, digest: str, why: str) -> IntegrityError:
        return IntegrityError(
            f"blob {digest} in {self.path} is damaged: {why}",
            _REPAIR,
        )

    def missing(self, digest: str) -> IntegrityError:
        return IntegrityError(
            f"blob {digest} is not in {self.path}",
            _REPAIR,
        )


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


def _may_be_compressed(status: os.stat_result, size: int) -> bool:
    """Whether a compressed form of ``size`` bytes can be this: zstd adds 1/256 and a few bytes at most."""
    return stat.S_ISREG(status.st_mode) and 0 < status.st_size <= _most_compressed(size)


def _most_compressed(size: int) -> int:
    return size + (size >> 7) + 1024


class ContentMismatch(Exception):
    """Bytes are not what their digest says. Whose fault that is, the caller knows."""


_MISMATCH = "the stored bytes do not have that digest"


def verified_chunks(chunks: Iterable[Piece], digest: str, size: int) -> Iterable[Piece]:
    """Pass ``chunks`` on; raise :class:`ContentMismatch` instead of giving out the last one if they are wrong."""
    return _verified_in_memory(chunks, digest, size) if size <= CHUNK else _verified_on_the_way(chunks, digest, size)


def _verified_in_memory(chunks: Iterable[Piece], digest: str, size: int) -> list[Piece]:
    """Most content is one piece, and a generator for it would take as long as its hashing."""
    pieces, left = [], size
    for piece in chunks:
        pieces.append(piece)
        left -= len(piece)
        if left < 0:  # whatever else there is need not be read
            break
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        found = digests.of(pieces[0])
    else:
        hasher = digests.Hasher()
        for piece in pieces:
            hasher.update(piece)
        found = hasher.hexdigest()
    if found != digest or left:
        raise ContentMismatch(_MISMATCH)
    return pieces


def _verified_on_the_way(chunks: Iterable[Piece], digest: str, size: int) -> Iterator[Piece]:
    hasher = digests.Hasher()
    left = size
    held: Piece | None = None
    for chunk in chunks:
        if held is not None:
            yield held
        hasher.update(chunk)
        left -= len(chunk)
        held = chunk
        if left < 0:
            break
    if left or hasher.hexdigest() != digest:
        raise ContentMismatch(_MISMATCH)
    if held is not None:
        yield held


def write_sparse(descriptor: int, pieces: Iterable[Piece]) -> None:
    """Write pieces to an empty file: holes become holes, and nothing else does."""
    ends_in_hole = False
    for piece in pieces:
        if isinstance(piece, Hole):
            end = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.ftruncate(descriptor, end)  # XFS allocates ahead, and would not take that back
            os.lseek(descriptor, end + len(piece), os.SEEK_SET)
            ends_in_hole = True
        elif piece:
            write_all(descriptor, piece)
            ends_in_hole = False
    if ends_in_hole:
        os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data`` at the file's position."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


class _Contexts(threading.local):
    """Compression contexts are worth keeping (a new one costs more than a small file) but not worth a lock."""

    def __init__(self) -> None:
        import zstandard

        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)


@cache
def _contexts() -> _Contexts:
    return _Contexts()


def _compress(chunks: Iterable[Piece], size: int, digest: str) -> Iterator[bytes]:
    compressor = _contexts().compressor.compressobj(size=size)
    for chunk in verified_chunks(chunks, digest, size):
        if isinstance(chunk, Hole):
            raise ContentMismatch("there is a hole in what had none")
        if block := compressor.compress(chunk):
            yield block
    yield compressor.flush()


def _decompress(descriptor: int, size: int) -> Iterator[bytes]:
    """Inflate; never more than one chunk beyond ``size``, whatever the stored frame claims."""
    import zstandard

    decompressor = _contexts().decompressor
    try:
        if size <= CHUNK:
            data = os.read(descriptor, _most_compressed(size))
            # The frame's own claim decides how much memory is taken, so it is checked first.
            if zstandard.frame_content_size(data) != size:
                raise zstandard.ZstdError("it claims another size")
            yield decompressor.decompress(data)
            return
        with open(descriptor, "rb", buffering=0, closefd=False) as stored, decompressor.stream_reader(stored) as reader:
            given = 0
            while given <= size and (chunk := reader.read(CHUNK)):
                given += len(chunk)
                yield chunk
    except zstandard.ZstdError as error:
        raise ContentMismatch(f"its compressed form cannot be inflated ({error})") from None


def stored_content(descriptor: int, most: int | None = None) -> tuple[str, int]:
    """The digest and the size of the content of an open compressed form.

    Raises :class:`ContentMismatch` if it cannot be inflated, or claims to hold more than ``most`` bytes.
    """
    import zstandard

    try:
        size = zstandard.frame_content_size(os.read(descriptor, 18))  # the longest header: RFC 8878, 3.1.1.1
    except zstandard.ZstdError as error:
        raise ContentMismatch(f"its compressed form cannot be inflated ({error})") from None
    if size < 0 or (most is not None and size > most):
        raise ContentMismatch("its compressed form claims another size")
    os.lseek(descriptor, 0, os.SEEK_SET)
    hasher = digests.Hasher()
    given = 0
    for chunk in _decompress(descriptor, size):
        hasher.update(chunk)
        given += len(chunk)
    return hasher.hexdigest(), given


def _foreign_chunks(source: Directory, library: str, digest: str, size: int) -> Iterator[Piece]:
    name = raw_name(digest)
    for form, pieces, fits in ((name, pieces_of, _is_regular), (name + ".zst", _decompress, _may_be_compressed)):
        try:
            descriptor = platform.open_file(source, form)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            raise IntegrityError(f"blob {digest} in {library} is damaged: it is not a file", _REPAIR) from error
        try:
            if not fits(os.fstat(descriptor), size):
                raise ContentMismatch("it is not a file of that size")
            yield from verified_chunks(pieces(descriptor, size), digest, size)
        except ContentMismatch as error:
            raise IntegrityError(f"blob {digest} in {library} is damaged: {error}", _REPAIR) from None
        finally:
            os.close(descriptor)
        return
    raise IntegrityError(f"blob {digest} is not in {library}", _REPAIR)


def _is_regular(status: os.stat_result, size: int) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size == size
