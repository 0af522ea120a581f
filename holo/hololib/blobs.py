"""Blobs: content by digest, raw or zstd-compressed, written once and never changed."""

from __future__ import annotations

import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache

from holo import digest as digests
from holo import platform
from holo.errors import IntegrityError
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

_REPAIR = "Remove the damaged file and record the environment again, or copy the blob from another library."

DRAFT = ".draft-"
"""Begins the names of files being written; one that no process is writing is garbage after a crash."""

_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)


class Blobs:
    """The blobs of one library. Descriptors stay open and are inherited by forked workers."""

    def __init__(self, library: str, before_deriving: Callable[[], object] = lambda: None) -> None:
        """``before_deriving`` is called before a raw form is made of a compressed one (see holo.hololib.unsettled)."""
        self.path = library
        self._before_deriving = before_deriving
        self.directory: Directory = platform.open_root(library)
        # Only an unusual umask takes rights away that a blob must have; then they are given afterwards.
        self._chmod = SEALED_MODE if platform.umask() & SEALED_MODE else None

    def close(self) -> None:
        platform.close_directory(self.directory)

    def has(self, digest: str, size: int) -> bool:
        """Whether either form is there. A raw form without its seal is not: it was never finished, or changed."""
        name = raw_name(digest)
        try:
            if _is_sealed(platform.status(self.directory, name), size):
                return True
        except FileNotFoundError:
            pass
        return self._is_compressed(digest)

    # -- writing ------------------------------------------------------------------------------------------

    def add(self, digest: str, chunks: Iterable[bytes], size: int, *, compress: bool) -> None:
        """Store content given as chunks. Raises :class:`ContentMismatch` if they do not have that digest."""
        if compress:
            compressed = _compress(chunks, size, digest)
            publish(self.directory, raw_name(digest) + ".zst", lambda draft: self._write(draft, compressed))
        else:
            pieces = _verified(chunks, digest, size)
            publish(self.directory, raw_name(digest), lambda draft: self._write(draft, pieces, seal=True))

    def add_clone(
        self, digest: str, source: int, directory: Directory, name: str, confirm: Callable[[int], object]
    ) -> None:
        """Store the content of the open file ``source`` (``name`` in ``directory``) raw, by reflink.

        ``confirm`` is called with the open clone before it becomes the blob, and raises if it is not the
        content of ``digest``. Raises :class:`OSError` when there is no reflink here.
        """

        def make(blob: str) -> None:
            target = platform.clone(source, directory, name, self.directory, blob, SEALED_MODE)
            try:
                confirm(target)
                platform.set_file(target, SEALED_MTIME_NS, self._chmod)
            except BaseException:
                platform.remove_file(self.directory, blob)
                raise
            finally:
                os.close(target)

        try:
            # The seal, set last, makes it a blob: that spares the draft and its renaming.
            make(raw_name(digest))
        except (FileNotFoundError, FileExistsError):
            # The first of its folder; or there already: being made by another, left by a crash, or damaged.
            publish(self.directory, raw_name(digest), make)

    def _write(self, draft: str, chunks: Iterable[bytes], *, seal: bool = False) -> None:
        descriptor = platform.create_file(self.directory, draft, SEALED_MODE)
        try:
            write_sparse(descriptor, chunks)
            platform.set_file(descriptor, SEALED_MTIME_NS if seal else time.time_ns(), self._chmod)
        finally:
            os.close(descriptor)

    def take(self, library: str, wanted: dict[str, int]) -> None:
        """Store blobs (digest to size in bytes) from another library's folder of blobs; each is hashed.

        Files there may have any mode and time: they come from an archive or a version control system.
        """
        for digest, size in wanted.items():
            self.add(digest, self.foreign_chunks(library, digest, size), size, compress=False)

    @staticmethod
    def foreign_chunks(library: str, digest: str, size: int) -> Iterator[bytes]:
        """The content of a blob of another library's folder of blobs, verified like :meth:`chunks`."""
        source = platform.open_root(library)
        try:
            yield from _foreign_chunks(source, library, digest, size)
        finally:
            platform.close_directory(source)

    # -- reading ------------------------------------------------------------------------------------------

    def open_raw(self, digest: str, size: int) -> int | None:
        """Open the raw form, its seal checked; ``None`` when there is none to use. The caller closes it."""
        try:
            descriptor = platform.open_file(self.directory, raw_name(digest))
        except FileNotFoundError:
            return None
        if not _is_sealed(os.fstat(descriptor), size):
            os.close(descriptor)
            if self._is_compressed(digest):
                return None  # a form that was never finished, or is damaged, while there is another
            raise self.damaged(digest, "its size, mode or time is not what holo gave it")
        return descriptor

    def _is_compressed(self, digest: str) -> bool:
        try:
            platform.status(self.directory, raw_name(digest) + ".zst")
        except FileNotFoundError:
            return False
        return True

    def chunks(self, digest: str, size: int) -> Iterator[bytes]:
        """The content, hashed on the way: the last chunk is not given out before everything is verified.

        Raises :class:`IntegrityError` when the stored bytes are not ``size`` bytes of that digest, and when
        there is no such blob.
        """
        descriptor = self.open_raw(digest, size)
        if descriptor is not None:
            try:
                yield from self._genuine(_read(descriptor, size), digest, size)
            finally:
                os.close(descriptor)
            return
        try:
            descriptor = platform.open_file(self.directory, raw_name(digest) + ".zst")
        except FileNotFoundError:
            raise self.missing(digest) from None
        try:
            yield from self._genuine(_decompress(descriptor, size), digest, size)
        finally:
            os.close(descriptor)

    def _genuine(self, chunks: Iterable[bytes], digest: str, size: int) -> Iterator[bytes]:
        try:
            yield from _verified(chunks, digest, size)
        except ContentMismatch as error:
            raise self.damaged(digest, str(error)) from None

    def inflate(self, digest: str, size: int) -> int:
        """Open the raw form, made from the compressed one if need be."""
        descriptor = self.open_raw(digest, size)
        if descriptor is None:
            self._before_deriving()
            self.add(digest, self.chunks(digest, size), size, compress=False)
            descriptor = self.open_raw(digest, size)
            if descriptor is None:
                raise self.missing(digest)
        return descriptor

    def verify(self, raw: int, digest: str, size: int) -> None:
        """Hash the open raw form. Raises :class:`IntegrityError` if it is not the content of ``digest``."""
        if digests.of_file(raw) != digest:
            raise self.damaged(digest, "its bytes do not have that digest")

    def any_raw(self) -> str | None:
        """The path below ``library/`` of some raw blob, if there is one."""
        with platform.listing(self.directory) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        for folder in folders:
            child = platform.open_child(self.directory, folder)
            try:
                with platform.listing(child) as entries:
                    found = next((entry.name for entry in entries if digests.is_digest(entry.name)), None)
            finally:
                platform.close_directory(child)
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


_count = itertools.count()


def temporary_name() -> str:
    """A name no other process or thread uses now; a stale file of that name is a dead process's."""
    return f"{os.getpid()}-{next(_count)}-{time.time_ns()}"


def publish(directory: Directory, name: str, make: Callable[[str], None]) -> None:
    """Let ``make`` write a file under a draft name, then rename it to ``name`` (``ab/...`` in ``directory``).

    The draft is in the folder it is for, so that workers seldom meet in one. Two writers of the same name
    do no harm: both wrote the same content, and the second replaces the first.
    """
    folder = name.partition("/")[0]
    draft = f"{folder}/{DRAFT}{temporary_name()}"
    try:
        try:
            make(draft)
        except FileNotFoundError:
            with suppress(FileExistsError):
                platform.make_directory(directory, folder, 0o777)
            make(draft)
        platform.rename(directory, draft, directory, name)
    except BaseException:
        with suppress(FileNotFoundError):
            platform.remove_file(directory, draft)
        raise


def is_genuine(descriptor: int, name: str) -> bool:
    """Whether an open file of ``library/`` holds what its name says. Its mode and time are not looked at."""
    digest, _, compressed = name.partition(".")
    if not compressed:
        return digests.of_file(descriptor) == digest
    import zstandard

    try:
        # A frame tells the size of its content in its first 18 bytes.
        size = zstandard.frame_content_size(os.read(descriptor, 18))
        os.lseek(descriptor, 0, os.SEEK_SET)
        for _ in _verified(_decompress(descriptor, size), digest, size):
            pass
    except (ContentMismatch, zstandard.ZstdError):
        return False
    return True


def _is_sealed(status: os.stat_result, size: int) -> bool:
    return (
        status.st_mtime_ns == SEALED_MTIME_NS
        and status.st_size == size
        and status.st_mode == stat.S_IFREG | SEALED_MODE
    )


class ContentMismatch(Exception):
    """Bytes are not what their digest says. Whose fault that is, the caller knows."""


def _verified(chunks: Iterable[bytes], digest: str, size: int) -> Iterator[bytes]:
    """Pass ``chunks`` on; raise :class:`ContentMismatch` instead of giving out the last one if they are wrong."""
    hasher = digests.Hasher()
    left = size
    held: bytes | None = None
    for chunk in chunks:
        if held is not None:
            yield held
        hasher.update(chunk)
        left -= len(chunk)
        held = chunk
        if left < 0:
            break
    if left or hasher.hexdigest() != digest:
        raise ContentMismatch("the stored bytes do not have that digest")
    if held is not None:
        yield held


def write_sparse(descriptor: int, chunks: Iterable[bytes]) -> None:
    """Write chunks to an empty file; 64 KiB blocks of zeros within a chunk become holes."""
    hole = False
    for chunk in chunks:
        if not chunk:
            continue
        if len(chunk) < _HOLE:
            write_all(descriptor, chunk)
            hole = False
            continue
        view = memoryview(chunk)
        start = 0
        while start < len(view):
            # A run of blocks that are all zeros, or all not, in one go.
            hole = view[start : start + _HOLE] == _ZEROS
            end = start + _HOLE
            while end < len(view) and (view[end : end + _HOLE] == _ZEROS) == hole:
                end += _HOLE
            if hole:
                os.lseek(descriptor, end - start, os.SEEK_CUR)
            else:
                write_all(descriptor, view[start:end])
            start = end
    if hole:
        os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data`` at the file's position."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def _read(descriptor: int, size: int) -> Iterator[bytes]:
    """The content of an open file of about ``size`` bytes: asking for many more costs more than reading them."""
    most = min(CHUNK, size + 1)
    while chunk := os.read(descriptor, most):
        yield chunk


class _Contexts(threading.local):
    """Compression contexts are worth keeping (a new one costs more than a small file) but not worth a lock."""

    def __init__(self) -> None:
        import zstandard

        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


@cache
def _contexts() -> _Contexts:
    return _Contexts()


def _compress(chunks: Iterable[bytes], size: int, digest: str) -> Iterator[bytes]:
    compressor = _contexts().compressor.compressobj(size=size)
    for chunk in _verified(chunks, digest, size):
        if block := compressor.compress(chunk):
            yield block
    yield compressor.flush()


def _decompress(descriptor: int, size: int) -> Iterator[bytes]:
    """Inflate; never more than one chunk beyond ``size``, whatever the stored frame claims."""
    import zstandard

    decompressor = _contexts().decompressor
    try:
        if size <= CHUNK:
            data = os.read(descriptor, os.fstat(descriptor).st_size)
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


def _foreign_chunks(source: Directory, library: str, digest: str, size: int) -> Iterator[bytes]:
    name = raw_name(digest)
    for form, pieces in ((name, _read), (name + ".zst", _decompress)):
        try:
            descriptor = platform.open_file(source, form)
        except FileNotFoundError:
            continue
        try:
            yield from _verified(pieces(descriptor, size), digest, size)
        except ContentMismatch as error:
            raise IntegrityError(f"blob {digest} in {library} is damaged: {error}", _REPAIR) from None
        finally:
            os.close(descriptor)
        return
    raise IntegrityError(f"blob {digest} is not in {library}", _REPAIR)
