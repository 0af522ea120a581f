"""The standard streams as a caller may leave them: closed, on a full disk, or a pipe that nobody reads any more.

A message on stderr that cannot be written stops nothing. A result on stdout that cannot be written is
:class:`Unwritten`, once; what follows it is dropped. So is a result that goes to a file or a pipe which the user named.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from holo.errors import HoloError, advice_at_output, printable

if TYPE_CHECKING:
    from typing import TextIO

    from _typeshed import ReadableBuffer


class Unwritten(HoloError):
    """Stdout, or what a user named in its place, did not take everything."""

    @property
    def remedy(self) -> str | None:
        """What it was raised with, or else what helps where the user can name something else."""
        return self._hint or advice_at_output(self.__cause__)

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody misses the rest: the reader of a pipe has gone, as ``head`` does when it has enough."""
        return isinstance(self.__cause__, BrokenPipeError)


def prepare() -> None:
    """Make sure that the descriptors 0, 1 and 2 are open, and that ``sys.stdout`` and ``sys.stderr`` are as said above.

    Where one of these descriptors is closed, the next file that is opened gets its number, and messages would be
    written into that file. What stands in for a closed one lets reading and writing fail as before (gnulib's
    ``stdopen`` does the same), and a program that this process becomes finds it closed again (PEP 446).
    """
    if sys.platform == "win32":
        return
    for descriptor, wrong_way in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, wrong_way)
    if sys.stdin is None:  # it was closed
        sys.stdin = io.TextIOWrapper(io.BytesIO())
    sys.stdout = _text(_Results(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr, by_line=True)


_is_quiet = False


def be_quiet(wanted: bool) -> None:
    """Whether :func:`note` and :func:`show` are to say nothing, and neither are results."""
    global _is_quiet  # noqa: PLW0603 - one command runs in this process, and then it ends
    _is_quiet = wanted


def is_quiet() -> bool:
    """Whether the user wants to read of failures only."""
    return _is_quiet


def say(line: str, mark: str = "") -> None:
    """A line on stderr, with control characters escaped, behind a mark that may be in colour."""
    if sys.stderr is not None:  # as it is in a program that was started with it closed
        with suppress(OSError, ValueError):  # the second: the program has closed it
            sys.stderr.write(mark + printable(line) + "\n")
            sys.stderr.flush()


def note(line: str) -> None:
    """The same of what is going on. If the user wants no such lines, they get only those that are warnings."""
    if not _is_quiet or line.startswith("warning: "):
        say(line)


def show(data: bytes) -> None:
    """Bytes on stderr, as they are."""
    flush()
    if (
        sys.__stderr__ is not None and not _is_quiet
    ):  # else the descriptor 2 is any file that the program has opened since
        with suppress(OSError):
            os.write(2, data)


def flush() -> None:
    """Before a fork or an exec. What cannot be written is told by whoever writes or flushes next."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError, Unwritten):
                stream.flush()


class _Stream(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        while (written := super().write(data)) is None:  # somebody has made the pipe non-blocking, and it is full
            import select

            select.select([], [self], [])
        return written


class _Messages(_Stream):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


class _Results(_Stream):
    _is_lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self._is_lost:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._is_lost = True
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise Unwritten(f"cannot write to standard output: {reason}") from error


def _text(raw: _Stream, before: TextIO | None, *, by_line: bool = False) -> io.TextIOWrapper:
    """``raw`` as a text stream with the encoding of the one before."""
    encoding, errors = (before.encoding, before.errors) if before is not None else (None, None)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=by_line or raw.isatty())
