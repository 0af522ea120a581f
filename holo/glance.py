"""What a glance at spaces shows: a stat of each directory, and no file is read.

Who adds, removes or replaces something changes the time of the directory that it is in. An edit in place changes no
directory, so ``pristine`` means that nothing is seen from here; ``holo check --space`` looks at everything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

from holo import platform
from holo.errors import HoloError
from holo.hololib import Library
from holo.space import Space

_GONE = (FileNotFoundError, NotADirectoryError)


def glance(library: Library, spaces: list[Space]) -> Iterator[Space]:
    """The spaces, those that were pristine as ``missing`` or ``changed`` if they are that by now."""
    directories = cache(partial(_directories, library))
    for space in spaces:
        # Of a copied one the directory is another home's, and one that was moved has to be restored anyway.
        if space.state != "pristine" or space.standing == "copied":
            yield space
        elif _is_missing(space.path):
            yield replace(space, state="missing")
        elif not space.is_moved and _is_changed(space, directories(space.digest)):
            yield replace(space, state="changed")
        else:
            yield space


def _directories(library: Library, digest: str) -> list[tuple[str, int, int]]:
    """Those of a catalog; of one that is lost, none."""
    try:
        return library.catalogs.directories(digest)
    except HoloError:
        return []


def _is_missing(path: str) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError as error:
        return isinstance(error, _GONE)


def _is_changed(space: Space, directories: list[tuple[str, int, int]]) -> bool:
    try:
        root = platform.open_root(space.path)
    except OSError:  # nothing is to be seen from here
        return False
    modes = space.unkept_modes
    try:
        for path, mode, mtime in directories:
            try:
                status = platform.status(root, path)
            except _GONE:
                return True
            except OSError:  # recorded so that this user cannot look there, or too long a path
                continue
            wanted = stat.S_IFDIR | mode
            if status.st_mode != wanted and status.st_mode != modes.get(wanted):
                return True
            if status.st_mtime_ns != mtime and status.st_mtime_ns != space.times.kept(mtime):
                return True
    finally:
        platform.close_directory(root)
    return False
