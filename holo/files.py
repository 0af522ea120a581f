"""Small files: read although somebody else may have made them, written in one step, and sealed.

Only regular files are read, and never more of them than there can be.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from holo import digest as digests
from holo import platform

SMALL = 1 << 20
"""Bytes of what is a few hundred as a rule: settings, names of catalogs, what is known about a space."""


NOT_DAMAGE = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
"""What opening and reading answer that says nothing about the file."""


_FOLLOW = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
READ = _FOLLOW | getattr(os, "O_NOFOLLOW", 0)
"""How :func:`open_file` opens: the flags for whatever others may have made, also where it is to be changed."""
_WRITE = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_file(path: str, *, follow: bool = False) -> int:
    """Open a regular file for reading. ``follow``: a symlink there is the user's own choice.

    A pipe would make its reader wait, a device may never end, and a symlink may lead anywhere. Raises
    :class:`OSError`, whose ``strerror`` says which it was.
    """
    try:
        descriptor = os.open(path, _FOLLOW if follow else READ)
    except ValueError:  # the path may come from a file
        raise OSError(errno.EINVAL, "there is a NUL in the path", path) from None
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a symlink", path) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return descriptor


_USUAL = 1 << 14
"""Bytes: most files are smaller."""

_LONGEST = 1 << 22
"""Bytes that are read at once."""


def read(descriptor: int, most: int, expected: int = _USUAL) -> bytes:
    """All of an open file. Raises :class:`OSError` (EFBIG) when that is more than ``most`` bytes."""
    pieces = []
    left = most + 1
    # In one piece if it can be, and without room for what does not come. Not by its size alone: that may be of a sparse
    # file, and change.
    size = min(max(expected, _USUAL) + 1, _LONGEST)
    while left and (piece := os.read(descriptor, min(left, size))):
        pieces.append(piece)
        left -= len(piece)
        size = _LONGEST if len(piece) == size else _USUAL
    if not left:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes")
    return b"".join(pieces)


def read_file(path: str, most: int, *, follow: bool = False) -> tuple[bytes, os.stat_result]:
    """The content of a regular file of at most ``most`` bytes, and its status. Raises :class:`OSError`."""
    with platform.closing(open_file(path, follow=follow)) as descriptor:
        status = os.fstat(descriptor)  # before: what is written meanwhile is to be noticed by it
        return read(descriptor, most, status.st_size), status


def is_there(path: str) -> bool:
    """Whether something has that path. Raises :class:`OSError` where nobody can tell; ``os.path`` says no then."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def disk_size(status: os.stat_result) -> int:
    """The bytes that a file has on the disk; its length on Windows, which does not tell."""
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else blocks * 512


def names_in(folder: str) -> list[str]:
    """The names in a folder, in order; none if it is not there."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def paths_in(folder: str) -> list[str]:
    """The paths of everything in a folder, in order; none if it is not there."""
    return [os.path.join(folder, name) for name in names_in(folder)]


def refuse_second_name(descriptor: int) -> None:
    """Close a file that was opened for writing, and raise :class:`OSError` (EMLINK), if it has a second name.

    Whoever may write to a folder can put a hard link there to a file which this user may change and they may not.
    """
    if os.fstat(descriptor).st_nlink > 1:  # 0: it has just been removed
        os.close(descriptor)
        raise OSError(errno.EMLINK, "it has a second name (a hard link), so it may be another file")


# -- documents that end with their own digest ---------------------------------------------------------------
#
# Blobs and catalogs are named by their digests. Names, records of spaces and outlines of golden trees are not, and with
# one bit flipped each could be another valid document: a space at another path, or restored later than it was.


def seal(body: bytes) -> bytes:
    """``body`` and, in a last line, its digest."""
    return b"%b\n%b\n" % (body, digests.of(body).encode())


def unseal(data: bytes) -> bytes:
    """What was sealed. Raises :class:`ValueError` if a single byte is another one."""
    body, _, _ = data.removesuffix(b"\n").rpartition(b"\n")
    if seal(body) != data:
        raise ValueError("it does not have the digest in its last line")
    return body


# -- writing in one step ------------------------------------------------------------------------------------


_DRAFT = re.compile(r"(.+)\.[0-9]+\.[0-9]+")
_SHORT = 128
"""Bytes that every filesystem has room for in a name: most take 255, those that encrypt names some 140."""


def draft_name(name: str) -> str:
    """A name for the draft of a file, beside it. It fits wherever the file's own does: of a long one it lacks the
    beginning."""
    mark = f".{os.getpid()}.{time.time_ns()}"
    room = max(_SHORT, len(os.fsencode(name))) - len(mark)
    while len(os.fsencode(name)) > room:
        name = name[1:]
    return name + mark


def draft_of(name: str) -> str:
    """How the name of the file ends that :func:`write_atomically` was to write, if this is its draft; else nothing."""
    found = _DRAFT.fullmatch(name)
    return found[1] if found is not None else ""


def write_atomically(
    path: str,
    content: bytes | Callable[[int], bytes],
    *,
    durable: bool = False,
    mode: int = 0o644,
    exact_mode: int | None = None,
) -> None:
    """Write a file that is either wholly there or not at all; with ``durable`` also after a power cut.

    It has the ``mode`` less the umask, or the ``exact_mode``. ``content`` may depend on the open file, and
    gets its descriptor then. Raises :class:`OSError`; the file is what it was then.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, draft_name(name))
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:  # follows no symlink
            file.write(content if isinstance(content, bytes) else content(file.fileno()))
            file.flush()
            if exact_mode is not None:
                platform.set_file(file.fileno(), time.time_ns(), exact_mode)
            if durable:
                platform.sync_file(file.fileno())
        os.replace(draft, path)
        if durable:
            sync_folder(folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise


def stream_at(path: str) -> int | None:
    """A descriptor, if what lies at ``path`` takes bytes as they come and cannot or must not be replaced: a device, a
    pipe, a terminal, a descriptor that this process has (``/dev/stdout``, a shell's ``>(command)``), or a file that is
    mounted there, as into a container. That file is empty then.

    Raises :class:`OSError`, also for a directory: to find that out when all is written is too late.
    """
    own = _DESCRIPTOR.fullmatch(path)
    if own is not None:
        return os.dup(int(own[1] or {"out": 1, "err": 2}[own[2]]))
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        return os.open(path, _WRITE)
    return os.open(path, _WRITE | os.O_TRUNC) if _is_mounted(path) else None


def _is_mounted(path: str) -> bool:
    """Whether a file has been mounted there by itself, so that no other file can take its place."""
    with suppress(OSError):  # without /proc
        return platform.source_at(os.path.realpath(path)) is not None
    return False


_DESCRIPTOR = re.compile(r"(?:/dev/fd|/proc/self/fd)/([0-9]{1,9})|/dev/std(out|err)")


def write_output(path: str, content: bytes | Callable[[int], bytes]) -> None:
    """Write where a user wants it: to a file as :func:`write_atomically` does, also if a symlink leads there; or to
    what takes bytes as they come (:func:`stream_at`).

    A file that is there keeps its mode, as with the ``>`` of a shell.
    """
    stream = stream_at(path)
    if stream is None:
        kept = None
        with suppress(FileNotFoundError):
            kept = os.stat(path).st_mode & 0o777
        write_atomically(os.path.realpath(path), content, mode=0o666 if kept is None else kept, exact_mode=kept)
        return
    with open(stream, "wb") as file:
        file.write(content if isinstance(content, bytes) else content(file.fileno()))


def sync_folder(path: str) -> None:
    """Let the names in a folder survive a power cut."""
    with platform.closing(platform.open_root(path)) as folder:
        platform.sync_directory(folder)
