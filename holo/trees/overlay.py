"""What throw-away environments are mounted over, and where their changes go: folders of one user's own.

    holotree/.ephemeral-<user>/
        trees/<digest>     a catalog in plain directories, as it was recorded
        layers/<key>       its files that name their own path, patched for one path, with the directories above them
        runs/<id>          what one run changes

Beside each is a lock ``<name>.lock``: shared by the runs that are mounted over a tree or a layer, a run's own held by
that run, and exclusive for who makes or removes one. What has its name is whole, unless its draft is there as well:
then it is being removed. The kernel shows files of others as nobody's in a user namespace, and who owns a file can
change it, so every user has their own.

All of it is on one filesystem (one subvolume, on Btrfs), for an overlay tells two files of two subvolumes apart by
inode numbers that are only unique in each.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from holo import digest as digests
from holo import platform
from holo.errors import Conflict, HoloError
from holo.hololib.locks import CannotLockError, InUseError, OnWait, locked
from holo.owners import is_mine
from holo.platform import Directory
from holo.remove import patiently, remove, unlink
from holo.walk import make_folder, make_folders, open_directory, refuse_symlinks

_FOLDER = ".ephemeral-"
"""Begins the folder's name. No space can have such a one."""

OVERLAY = "holo-ephemeral"
"""The source that the system shows for such an overlay."""

_DRAFT = ".draft"


class Layers:
    """The trees, layers and runs of this user below one holotree."""

    def __init__(self, holotree: str) -> None:
        self.path = os.path.join(holotree, _FOLDER + str(platform.user_id()))
        self.trees, self.layers, self.runs = (os.path.join(self.path, name) for name in ("trees", "layers", "runs"))

    def prepare(self) -> None:
        """Make the folders. Raises :class:`Conflict` if they could be another user's."""
        refuse_symlinks(self.path, self.trees, self.layers, self.runs)
        try:
            make_folders(os.path.dirname(self.path))
            with suppress(FileExistsError):
                make_folder(self.path, 0o700)
                if sys.platform != "win32":  # in a shared home it would have the group of all, which has no name inside
                    os.chown(self.path, -1, os.getegid())
                    os.chmod(self.path, 0o700)
            if not self._is_mine_alone():
                raise Conflict(f"{self.path} is not a folder that is yours alone", "Remove it, or let its owner do so.")
            for folder in (self.trees, self.layers, self.runs):
                make_folders(folder)
        except OSError as error:
            raise HoloError(f"cannot make {self.path}: {error.strerror}") from error

    def _is_mine_alone(self) -> bool:
        """Whether the folder is there, and nobody else can have put anything into it."""
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return False
        mine = stat.S_ISDIR(status.st_mode) and is_mine(status)
        return mine and not (os.name == "posix" and status.st_mode & 0o077)

    def layer_name(self, digest: str, path: str) -> str:
        """The layer of a catalog for a path. In another boot it has another: nobody waits until one is on the disk."""
        return f"{digest}-{_boot()}-{digests.of(os.fsencode(path))[:32]}"

    @contextmanager
    def hold(self, path: str, make: Callable[[str], object], what: str, on_wait: OnWait) -> Iterator[str]:
        """Keep a tree or a layer from being removed, made first by ``make(path of an empty directory)`` if need be."""
        while True:
            with locked(path + ".lock", what, exclusive=False, on_wait=on_wait):
                if self.is_whole(path):
                    yield path
                    return
            # Not waited for: who was faster holds it, then shares it as long as their command runs.
            with suppress(InUseError), locked(path + ".lock", what, exclusive=True, wait=False):
                if not self.is_whole(path):
                    _make(path, make)
            time.sleep(os.urandom(1)[0] / 256_000)  # so that many do not always come at the same moment

    @staticmethod
    def is_whole(path: str) -> bool:
        """Whether there is all of a tree or a layer."""
        return os.path.isdir(path) and not os.path.lexists(path + _DRAFT)

    def working(self) -> list[str]:
        """The runs there are, dead or alive. Costs microseconds where there are none."""
        return self.of(self.runs)

    def of(self, folder: str) -> list[str]:
        """The names in one of the folders, of what is whole and what is not; none if others may have put them there."""
        try:
            names = os.listdir(folder) if self._is_mine_alone() and not os.path.islink(folder) else []
        except OSError:
            return []
        return sorted({name.removesuffix(".lock").removesuffix(_DRAFT) for name in names})

    def collect(self, catalogs: set[str], *, dry_run: bool) -> int:
        """Remove trees of no catalog any more, and all layers, unless a run uses them. Returns how many.

        There is a layer for every path that a run was at, and one takes milliseconds to make.
        """
        doomed = [os.path.join(self.trees, name) for name in self.of(self.trees) if name not in catalogs]
        doomed += [os.path.join(self.layers, name) for name in self.of(self.layers)]
        return sum(self.remove(path, dry_run=dry_run) for path in doomed)

    def remove_halves(self) -> None:
        """Remove what killed commands did not finish to make."""
        for folder in (self.trees, self.layers):
            for name in os.listdir(folder):
                if name.endswith(_DRAFT):
                    path = os.path.join(folder, name.removesuffix(_DRAFT))
                    with suppress(InUseError), locked(path + ".lock", path, exclusive=True, wait=False):
                        discard(path, whole=False)

    def remove(self, path: str, *, dry_run: bool = False) -> bool:
        """Remove a tree, a layer or a run. ``False``: there was none, or it is in use, or cannot be locked."""
        try:
            with locked(path + ".lock", path, exclusive=True, wait=False):
                there = os.path.isdir(path)
                if not dry_run:
                    discard(path)
                    unlink(path + ".lock")
        except (InUseError, CannotLockError):
            return False
        return there


def _boot() -> str:
    return digests.of(platform.boot_id().encode())[:8]


def _make(path: str, make: Callable[[str], object]) -> None:
    draft = path + _DRAFT
    discard(path)
    try:
        os.mkdir(draft, 0o700)
        make(draft)
        os.rename(draft, path)
    except OSError as error:
        raise HoloError(f"cannot make {path}: {error.strerror}") from error
    finally:
        discard(path, whole=False)


def discard(path: str, *, whole: bool = True) -> None:
    """Remove a tree, a layer or the folder of a run, whose lock the caller holds; or only half of one.

    What the command of a killed run has started may still be writing there; it is given some time to end.
    """
    parent, name = os.path.split(path)
    draft = name + _DRAFT
    try:
        folder = open_directory(parent)
        try:
            if whole and not os.path.lexists(path + _DRAFT):
                _begin_removal(folder, name, draft)
            if os.path.lexists(path + _DRAFT):
                patiently(lambda: remove(folder, name))
                patiently(lambda: remove(folder, draft))
        finally:
            platform.close_directory(folder)
    except OSError as error:
        raise HoloError(f"cannot remove {path}: {error.strerror}") from error


def _begin_removal(folder: Directory, name: str, draft: str) -> None:
    """From now on what has that name, if anything has, does not count as whole."""
    try:
        platform.rename(folder, name, folder, draft)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        platform.make_directory(folder, draft, 0o700)  # a directory in a lower layer of overlayfs keeps its name
