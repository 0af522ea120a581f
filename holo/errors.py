"""Every way holo can fail: one message for the user, one exit code for the caller.

A :class:`HoloError` says what failed, on which path, and (``hint``) what to do about it. The
command line prints it as two lines and exits with ``exit_code``; no traceback reaches a user.
"""

from __future__ import annotations

import errno
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""The errors that code raises when it reads fields of a foreign JSON document, which may hold anything."""

INTERRUPTED = "interrupted; nothing is lost, run the command again to go on"
"""The message for Ctrl-C, whose exit code is 130."""


def printable(text: str) -> str:
    """A text with names from anywhere, as it can be shown: a control character in one would act on the terminal.

    Those and undecodable bytes are escaped, the rest is as it is.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


MOUNT_PROC = "Mount /proc first."
_MAKE_ROOM = "Free some space on that filesystem."
_OTHER_HOME = "Choose a home that you may write to, with HOLO_HOME or `home` in settings.yaml."
KEEPS_NO_MODES = (
    "Choose a home on a filesystem that keeps the modes of files, as ext4, XFS and Btrfs do, with HOLO_HOME or `home` "
    "in settings.yaml. Spaces may be elsewhere, with --to."
)
_BE_ALLOWED = "Check its owner and mode, and those of the folders above it."
_BE_POSSIBLE = f"{_BE_ALLOWED} `lsattr` shows whether it is immutable."
_NO_FOLDER = "Something other than a folder may be there, or in the place of a folder above it."
_ADVICE = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EACCES: _BE_ALLOWED,
    errno.EPERM: _BE_POSSIBLE,
    errno.EROFS: "Mount that filesystem for writing, or choose another place.",
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EINTR: "Run it again.",
    errno.EIO: "See what the disk reports in the system's log (`dmesg`), then run `holo check`.",
    errno.EMFILE: "A deep tree needs many open files at once: allow more with `ulimit -n 4096`, and run it again.",
    errno.ENFILE: "Too many files are open on this system: end some programs.",
}


def advice(error: BaseException | None) -> str | None:
    """What to do about an error of the system, where its number tells, or its file; or ``None``."""
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.ENOENT and str(error.filename).startswith("/proc/self/"):
        return MOUNT_PROC
    return _ADVICE.get(error.errno or 0)


def is_full(error: BaseException | None) -> bool:
    """Whether it, or what it was raised from, says that there is no room: no blocks, no inodes, or a quota."""
    if isinstance(error, HoloError):
        return is_full(error.__cause__)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def advice_at_home(error: OSError) -> str | None:
    """What to do about an error in a folder of holo's, which can be another one."""
    no_place = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)
    return _OTHER_HOME if error.errno in no_place else advice(error)


_OTHER_FILE = {
    errno.ENOENT: "Its folder is not there, or takes no files: make it first, or name another.",
    errno.EISDIR: "Name a file in it.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "A symlink there leads back to itself: remove it, or name another file.",
    errno.EFBIG: "That filesystem, or `ulimit -f`, allows no file of that size: name another place.",
    errno.EBUSY: "Something is mounted there, so nothing can take its place: name another file, and copy it.",
}


def advice_at_output(error: BaseException | None) -> str | None:
    """What to do about an error of a file that the user wants written, which can be another one."""
    return _OTHER_FILE.get((error.errno if isinstance(error, OSError) else None) or 0) or advice(error)


def flaw_in_yaml(error: Exception) -> str:
    """What PyYAML has found, in one line: where, what, and in what. It says so in four, with arrows."""
    where, what, within = (getattr(error, name, None) for name in ("problem_mark", "problem", "context"))
    if where is None or what is None:
        return " ".join(str(error).split())
    return f"line {where.line + 1}, column {where.column + 1}: {what}{f' ({within})' if within else ''}"


def beside_holo(requirement: str) -> str:
    """The command that installs a package for holo to find, wherever holo is: pip may be of another environment."""
    from importlib.util import find_spec
    from shlex import quote

    if find_spec("pip") is None:  # `uv tool install` makes such environments
        return f"uv pip install --python {quote(sys.executable)} {quote(requirement)}"
    return f"{quote(sys.executable)} -m pip install {quote(requirement)}"


def hints(*parts: str | None) -> str | None:
    """One hint of several, of which some may be missing."""
    return " ".join(filter(None, parts)) or None


def choice(what: str, wanted: str, there: Sequence[str]) -> str:
    """The hint about a name that is not there: which one may have been meant, or else what is there."""
    from difflib import get_close_matches

    begun = [name for name in there if wanted and name.startswith(wanted)]
    if len(begun) > 1:  # none of them is nearer
        return f"{len(begun):,} begin so: {', '.join(begun[:5])}."
    near = begun or get_close_matches(wanted, there, n=1)
    return f"Did you mean {near[0]}?" if near else f"{what} there: {', '.join(there[:20]) or 'none'}."


def beginning_with(text: str, names: Iterable[str], what: str) -> str | None:
    """The only one of those names that begins so, or ``None``. Raises :class:`UsageError` if several do."""
    found = sorted(name for name in names if name.startswith(text)) if text else []
    if len(found) > 1:
        raise UsageError(
            f"{text} is the beginning of {len(found):,} {what}: {', '.join(found[:5])}", "Write more of it."
        )
    return found[0] if found else None


class HoloError(Exception):
    """Something could not be done. ``str(error)`` is the message; ``hint`` the way out, or ``None``."""

    exit_code: int = 1

    def __init__(self, message: str, hint: str | None = None, left: str | None = None) -> None:
        """``left``: what is left of what was begun. Whoever removes that raises the error without it."""
        super().__init__(message)
        self.message = message
        self.left = left
        self._hint = hint

    @property
    def hint(self) -> str | None:
        """What to do about the cause, and about what is left."""
        return hints(self.remedy, self.left)

    @property
    def remedy(self) -> str | None:
        """What it was raised with, or else what there is to say about the system's error it was raised from."""
        return self._hint or advice(self.__cause__)

    def __reduce__(self) -> tuple[type[HoloError], tuple[str, str | None, str | None]]:
        # Errors cross from worker processes to the parent by pickle; all fields must survive.
        return (type(self), (self.message, self.remedy, self.left))


class UsageError(HoloError):
    """The request itself is wrong: an unknown value, a name that cannot be, a missing choice."""

    exit_code = 2


class NotFound(HoloError):
    """A catalog, space, blob or directory that was named does not exist."""


class Conflict(HoloError):
    """The request contradicts what is there, and holo will not decide for the user."""


class CatalogInvalid(HoloError):
    """A catalog is malformed or hostile. Nothing was written."""


class NewerFormat(HoloError):
    """It is in a form that this holo does not read. Nothing is known of it, not even that it is damaged."""

    def __init__(
        self, message: str, hint: str | None = "Use the holo that wrote it, or a newer one.", left: str | None = None
    ) -> None:
        super().__init__(message, hint, left)


class IntegrityError(HoloError):
    """Stored bytes are not the bytes that were recorded."""

    exit_code = 3


class Untrusted(IntegrityError):
    """It is not signed by anyone who may, or that was too long ago. Nothing was taken from it."""


class StrategyUnavailable(HoloError):
    """``--strict`` was given and the strategy asked for does not work here. Nothing was written."""


class RelocationImpossible(HoloError):
    """The new path cannot be patched into some files. Nothing was written."""


class SourceChanged(HoloError):
    """A file kept changing while it was recorded. Nothing was published."""


@contextmanager
def os_errors_as(
    message: str,
    hint: str | None = None,
    *,
    left: str | None = None,
    kind: type[HoloError] = HoloError,
    name_file: bool = False,
) -> Iterator[None]:
    """Turn an :class:`OSError` of the block into a :class:`HoloError`: ``message``, and what the system says.

    ``name_file`` adds the file that the error is about, if it names one. ``left``: as of :class:`HoloError`.
    """
    try:
        yield
    except OSError as error:
        # What was reached by descriptor has a number for a name.
        file = f" ({error.filename})" if name_file and isinstance(error.filename, str) and error.filename else ""
        reason = error.strerror or error  # those that Python's own modules raise have no number, but a text
        raise kind(f"{message}{file}: {reason}", hint, left) from error
