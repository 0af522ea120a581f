"""Paths and the directories they lead to: open those of a tree one after the other, each with a single open."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from holo import platform
from holo.errors import MOUNT_PROC, Conflict, HoloError, NotFound, UsageError
from holo.platform import Directory


def refuse_no_path(path: str) -> None:
    """Raise :class:`UsageError` for an empty path, as "$UNSET" is in a shell, and for one that no file can have.

    The empty one would mean the current directory.
    """
    if not path:
        raise UsageError("a path is empty", "Name the file or the directory: a variable of the shell may be unset.")
    if "\0" in path:
        raise UsageError(f"a path contains a NUL: {path!r}", "Name the file or the directory. No path has a NUL in it.")


def absolute(path: str) -> str:
    """``path`` as an absolute, normal path. POSIX keeps two leading slashes apart from one; Linux does not.

    Raises :class:`NotFound` for a relative one if the current directory has been deleted, and :class:`UsageError` as
    :func:`refuse_no_path` does.
    """
    refuse_no_path(path)
    path = os.path.abspath(path if os.path.isabs(path) else os.path.join(current_directory(), path))
    return path[1:] if path.startswith("//") else path


def upwards(path: str) -> Iterator[str]:
    """An absolute path, and those of the folders that it is in, up to the root."""
    yield path
    while (parent := os.path.dirname(path)) != path:
        yield (path := parent)


def directory_named(directory: str, doing: str, hint: str) -> str:
    """The absolute path of a directory, which has to be there. Raises :class:`NotFound`, and :class:`UsageError`."""
    if not directory:  # as "$UNSET" is in a shell; it would mean the current directory
        raise UsageError(f"the name of the directory to {doing} is empty", hint)
    path = absolute(directory)
    if not os.path.isdir(path):
        what = "it is not a directory" if os.path.lexists(path) else "there is no such directory"
        raise NotFound(f"cannot {doing} {path}: {what}", hint)
    return path


def current_directory() -> str:
    """Where this process is. Raises :class:`NotFound` if that has been deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        before = ""
        with suppress(OSError):
            before = f", {os.readlink('/proc/self/cwd').removesuffix(' (deleted)')},"
        raise NotFound(
            f"the current directory{before} does not exist any more", "Change to one that does: cd /"
        ) from error


def refuse_encoding() -> None:
    """Raise :class:`HoloError` if Python decodes file names in another way than holo: bytes, to which UTF-8 gives text.

    The same tree would have other names in another locale, and a restore there would remove the right ones.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise HoloError(
            f"this Python decodes file names as {encoding}, and holo needs UTF-8",
            "Start it with `python -X utf8`, or with PYTHONUTF8=1 in its environment.",
        )


def refuse_symlinks(*paths: str) -> None:
    """Raise :class:`HoloError` if one of the folders that holo makes is a symlink: others may have put it there."""
    for path in paths:
        if os.path.islink(path):
            raise HoloError(
                f"{path} is a symlink, where a folder of holo's must be",
                "Remove it. To keep library and spaces elsewhere, let HOLO_HOME itself lead there.",
            )


def make_folders(path: str) -> None:
    """Make a folder of holo's, and those above it, unless they are there. Raises :class:`OSError`.

    Their rights are what the umask leaves. The default ACL of a folder above does not go on to them.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if not os.path.exists(parent):
        make_folders(parent)
    try:
        make_folder(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def make_folder(path: str, mode: int = 0o777) -> None:
    """Make a new folder in the same way. Raises :class:`FileExistsError` and every other :class:`OSError`."""
    os.mkdir(path, mode)
    with platform.closing(open_directory(path)) as folder:
        platform.disinherit(folder, mode)


def open_directory(path: str, *, changes: bool = False) -> Directory:
    """Open a directory by its name in its folder; a symlink there is never followed. Raises :class:`OSError`.

    ``changes``: something is to be changed there, so what is mounted there is not opened.
    """
    parent, name = os.path.split(path)
    with platform.closing(platform.open_root(parent)) as folder:
        return platform.open_unmounted(folder, name) if changes else platform.open_child(folder, name)


def real_place(path: str) -> str:
    """The path of a name in its folder, without symlinks on the way there. What has the name may be one."""
    parent, name = os.path.split(path)
    return os.path.join(os.path.realpath(parent), name)


def mounted_inside(path: str) -> str | None:
    """The first of what is mounted below ``path``. Raises :class:`HoloError` if nobody can tell."""
    try:
        return next(iter(platform.mounts_below(os.path.realpath(path))), None)
    except OSError as error:
        raise HoloError(
            f"nobody can tell whether something is mounted inside {path}: {error.filename}: {error.strerror}",
            MOUNT_PROC,
        ) from error


def refuse_mounts_inside(path: str, hint: str) -> None:
    """Raise :class:`Conflict` if something is mounted below ``path``, and :class:`HoloError` if nobody can tell."""
    mounted = mounted_inside(path)
    if mounted is not None:
        raise Conflict(f"{mounted} is mounted inside {path}, and is not a part of it", hint)


class Walker:
    """Opens directories below a root by their relative paths, one component at a time.

    Nothing is ever opened through a symlink, and no path length limit applies. The chain of open ancestors
    is kept, so that visiting directories in depth-first order costs one open each.
    """

    def __init__(
        self, root: Directory, on_leave: Callable[[str, Directory], object] | None = None, *, changes: bool = False
    ) -> None:
        """``on_leave`` is called with path and directory when the walk is done with all that is below it.

        ``changes``: something is to be changed there, so what is mounted below the root is not opened.
        """
        self._root = root
        self._on_leave = on_leave
        self._open_child = platform.open_unmounted if changes else platform.open_child
        self._names: list[str] = []
        self._open: list[Directory] = []

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, path: str) -> Directory:
        """The directory at ``path`` ("" is the root). It stays the walker's: valid until the next call."""
        names = path.split("/") if path else []
        common = 0
        for mine, wanted in zip(self._names, names, strict=False):
            if mine != wanted:
                break
            common += 1
        self._close_below(common)
        for name in names[common:]:
            self._open.append(self._open_child(self._open[-1] if self._open else self._root, name))
            self._names.append(name)
        return self._open[-1] if self._open else self._root

    def close(self) -> None:
        self._close_below(0)

    def _close_below(self, depth: int) -> None:
        while len(self._open) > depth:
            directory = self._open.pop()
            try:
                if self._on_leave is not None:
                    self._on_leave("/".join(self._names), directory)
            finally:
                self._names.pop()
                platform.close_directory(directory)
