"""Write environments of other tools into a private folder, which is gone afterwards.

That folder is the stage of a build: `holo gc` and the next build or import remove what a killed import leaves.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from holo import platform
from holo.blueprints.garbage import remove_dead_stages
from holo.blueprints.stage import KEY_DIGITS, LOCK, new_stage, path_of
from holo.errors import HoloError, os_errors_as
from holo.hololib.locks import locked
from holo.home import Home
from holo.interop.tree import Environment, File
from holo.platform import Directory
from holo.trees.held import remove_unheld
from holo.walk import Walker, upwards


@contextmanager
def unpacked(home: Home, environments: Sequence[Environment], *, keep_setid: bool) -> Iterator[list[Directory]]:
    """The open roots of the environments, unpacked. Raises :class:`HoloError`; nothing is left then, nor afterwards."""
    refuse_too_large(environments[0].tree.origin, _needed(environments), room(home))
    library, number = home.library, os.urandom(KEY_DIGITS // 2).hex()
    lock = path_of(library, number, LOCK)
    remove_dead_stages(library, home.spaces)
    roots: list[Directory] = []
    try:
        with (
            locked(lock, "an import", exclusive=True, on_wait=home.on_wait),
            new_stage(home.spaces, number) as stage,
            platform.closing(platform.open_root(stage)) as folder,
        ):
            try:
                with os_errors_as(f"cannot unpack to {stage}"):
                    platform.set_directory(
                        folder, 0o700, None
                    )  # as long as files are not the user's, they are nobody's
                    unpacker = _Unpacker(folder, kept=0o7777 if keep_setid else 0o1777)
                    for environment in environments:
                        roots.append(unpacker.unpack(environment))  # noqa: PERF401 - what is open must be closed
                yield roots
            finally:
                for root in roots:
                    platform.close_directory(root)
    finally:
        remove_unheld(lock)


def _needed(environments: Sequence[Environment]) -> int:
    """Bytes that the environments take, unpacked: a tree after the first takes files from those before it."""
    most: Counter[File] = Counter()
    for environment in environments:
        most |= Counter(environment.tree.files.values())
    return sum(file.size * count for file, count in most.items())


def room(home: Home) -> int:
    """Bytes that are free where environments are unpacked."""
    place = next(filter(os.path.isdir, upwards(home.spaces.path)))
    with os_errors_as(f"cannot see how much room there is in {place}"):
        return platform.free_space(place)


def refuse_too_large(origin: str, size: int, free: int) -> None:
    """Raise :class:`HoloError` if so much cannot be unpacked: as little as is in a file, it may say anything."""
    if size > free:
        raise HoloError(
            f"{origin} has {size:,} bytes of files or more, and there is room for {free:,}",
            "Free some space on the filesystem of HOLO_HOME.",
        )


class _Unpacker:
    """Writes trees below one open folder, each to a folder of its own there."""

    def __init__(self, folder: Directory, *, kept: int) -> None:
        """``kept``: the bits of a mode that are."""
        self._folder = folder
        self._kept = kept
        self._made: dict[tuple[str, int, int], str] = {}
        """a file in an earlier tree, by its content, mode and mtime"""
        self._trees = 0

    def unpack(self, environment: Environment) -> Directory:
        """The root of a new tree, open."""
        name, tree = str(self._trees), environment.tree
        self._trees += 1
        platform.make_directory(self._folder, name, 0o700)
        root = platform.open_child(self._folder, name)
        try:
            with Walker(root, changes=True) as walker:
                for path in sorted(tree.folders):
                    if path:
                        platform.make_directory(walker.open(os.path.dirname(path)), os.path.basename(path), 0o700)
                self._write_files(environment, walker, name)
                for path, first in tree.hardlinks.items():
                    parent, linked = os.path.split(path)
                    platform.link(self._folder, f"{name}/{first}", walker.open(parent), linked)
                for path, (target, mtime) in tree.symlinks.items():
                    platform.make_symlink(target, walker.open(os.path.dirname(path)), os.path.basename(path), mtime)
                for path in sorted(tree.folders, reverse=True):  # what is in a folder before the folder
                    mode, mtime = tree.folders[path]
                    platform.set_directory(walker.open(path), mode & self._kept, mtime)
        except BaseException:
            platform.close_directory(root)
            raise
        return root

    def _write_files(self, environment: Environment, walker: Walker, name: str) -> None:
        made: dict[tuple[str, int, int], str] = {}
        left = {*environment.tree.files}
        for path, chunks in environment.contents():
            left.discard(path)
            file = environment.tree.files[path]
            file = file._replace(mode=file.mode & self._kept)
            parent = walker.open(os.path.dirname(path))
            key = (file.content, file.mode, file.mtime)
            if not (file.content and self._link(self._made.pop(key, None), parent, os.path.basename(path))):
                self._write(environment, parent, path, file, chunks)
            made.setdefault(key, f"{name}/{path}")
        for path in left:
            raise environment.tree.damaged(f"no content of {path}")
        self._made |= made  # only now: within one tree, a second name of a file would be recorded as one

    def _link(self, source: str | None, parent: Directory, name: str) -> bool:
        """Take a file of an earlier tree, which needs no more room then. It is popped: each tree takes one once."""
        if source is None:
            return False
        try:
            platform.link(self._folder, source, parent, name)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP):
                raise
            return False
        return True

    def _write(
        self, environment: Environment, parent: Directory, path: str, file: File, chunks: Iterator[bytes]
    ) -> None:
        with platform.closing(platform.create_file(parent, os.path.basename(path), 0o600)) as descriptor:
            for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    left = left[os.write(descriptor, left) :]
            environment.finish(path, descriptor)
            platform.set_file(descriptor, file.mtime, file.mode)
