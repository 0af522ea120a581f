"""What a library and a folder for spaces can do together: found out by trying, with the speed of it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from holo import platform
from holo.errors import HoloError, NotFound, advice, hints
from holo.hololib.layout import FOLDERS
from holo.owners import is_ours
from holo.platform import probe
from holo.walk import absolute

if sys.platform == "linux":
    from holo.platform import btrfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holo.platform import Directory

_FILES = 200
_SIZE = 8192
_SECONDS = 0.15
"""Each trial ends after so long, with fewer files on a slow disk."""

_LEFT_AFTER = 600
"""Seconds after which a sample is nobody's: an examination takes one."""

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Folder:
    """A folder, and the type of the filesystem it is on as the system names it."""

    path: str
    filesystem: str


@dataclass(frozen=True)
class Capability:
    """One way to make files: whether it works here, why not, and how many it makes in a second."""

    available: bool
    reason: str | None
    files_per_second: float | None


@dataclass(frozen=True)
class Diagnosis:
    """The result of :func:`examine`."""

    library: Folder
    target: Folder
    capabilities: dict[str, Capability]
    advice: list[str]

    def to_json(self) -> dict[str, Any]:
        """The document that ``holo doctor --json`` prints."""
        return asdict(self)


_Outcome: TypeAlias = "float | OSError"
"""Files per second, or what went wrong."""


def named(directory: str) -> str:
    """The folder that a user names, which has to be there. Raises :class:`NotFound`."""
    path = absolute(directory)
    if not os.path.isdir(path):
        raise NotFound(f"cannot examine {path}: there is no such directory", "Make it first, or name the one above it.")
    return path


def examine(library_dir: str, target_dir: str) -> Diagnosis:
    """Try every way from ``library_dir`` to ``target_dir``: under a second, and nothing is left behind.

    For a folder that does not exist yet, the nearest one above it that does is tried.
    """
    library, target = _look_at(library_dir), _look_at(target_dir)
    with _scratch(library_dir) as source, _scratch(target_dir) as destination:
        names = _make_sample(source)
        outcomes = {
            "reflink": _try(lambda name: _reflink(source, destination, name), names),
            "hardlink": _try(lambda name: platform.link(source, name, destination, f"{name}.link"), names),
            "snapshot": _try_snapshot(source, destination, names),
            "copy": _try(lambda name: _copy(source, destination, name), names),
        }
    capabilities = {
        method: Capability(False, _explain(method, outcome, library, target), None)
        if isinstance(outcome, OSError)
        else Capability(True, None, round(outcome, 1))
        for method, outcome in outcomes.items()
    }
    return Diagnosis(library, target, capabilities, list(_advise(library, target, outcomes)))


# -- folders ----------------------------------------------------------------------------------------------


def filesystem_type(path: str) -> str:
    """The type of the filesystem of an existing folder: ``btrfs``, ``ext4``, ``overlay`` ..."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            table = file.read()
    except OSError:
        return _UNKNOWN
    return _find_type(table, os.path.realpath(path))


def _find_type(mountinfo: str, path: str) -> str:
    best, found = "", _UNKNOWN
    for line in mountinfo.splitlines():
        # proc(5): ... ID, parent, device, root, mount point, options, any number of tags, "-", type ...
        fields = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point, the later hides the earlier.
        if inside and len(point) >= len(best):
            best, found = point, fields[fields.index("-", 6) + 1]
    return found


def _look_at(path: str) -> Folder:
    return Folder(path, filesystem_type(_existing(path)))


def _existing(path: str) -> str:
    path = absolute(path)
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


@contextmanager
def _scratch(path: str) -> Iterator[Directory]:
    """A temporary directory in the folder, opened, and removed with all that was put there."""
    folder = _existing(path)
    _sweep(folder)
    try:
        made = tempfile.mkdtemp(prefix=probe.DOCTOR, dir=folder)
    except OSError as error:
        raise HoloError(
            f"{folder}: cannot make files here: {error.strerror}",
            hints(advice(error), "Or name another folder: DIR is that of the spaces, HOLO_HOME that of the library."),
        ) from error
    try:
        directory = platform.open_root(made)
        try:
            yield directory
        finally:
            platform.close_directory(directory)
    finally:
        shutil.rmtree(made)


def _sweep(folder: str) -> None:
    """Remove what a doctor that was killed has left there; nobody else knows of it."""
    long_ago = time.time() - _LEFT_AFTER
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(probe.DOCTOR):
                status = entry.stat(follow_symlinks=False)
                if is_ours(status) and status.st_mtime < long_ago:
                    shutil.rmtree(entry.path, ignore_errors=True)


# -- trials -----------------------------------------------------------------------------------------------


def _make_sample(source: Directory) -> list[str]:
    """Make the files that are then cloned, linked and copied; durable, as blobs are when they are used.

    A clone of a file that is not on the disk yet has to wait for it, which would be measured as well.
    """
    names: list[str] = []
    started = time.perf_counter()
    try:
        while not names or (len(names) < _FILES and time.perf_counter() - started < _SECONDS):
            name = f"{len(names):03d}"
            descriptor = platform.create_file(source, name, 0o600)
            try:
                os.write(descriptor, os.urandom(_SIZE))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            names.append(name)
    except OSError as error:
        raise HoloError(f"cannot write a sample into the library: {error.strerror}") from error
    return names


def _try(make: Callable[[str], object], names: list[str]) -> _Outcome:
    done = 0
    started = time.perf_counter()
    try:
        for name in names:
            make(name)
            done += 1
            if time.perf_counter() - started > _SECONDS:
                break
    except OSError as error:
        return error
    return done / (time.perf_counter() - started)


def _reflink(source: Directory, destination: Directory, name: str) -> None:
    blob = platform.open_file(source, name)
    try:
        os.close(platform.clone(blob, source, name, destination, f"{name}.clone", 0o600))
    finally:
        os.close(blob)


def _copy(source: Directory, destination: Directory, name: str) -> None:
    blob = platform.open_file(source, name)
    try:
        file = platform.create_file(destination, f"{name}.copy", 0o600)
        try:
            position = 0
            while copied := platform.copy_range(blob, file, position, _SIZE):
                position += copied
        finally:
            os.close(file)
    finally:
        os.close(blob)


def _try_snapshot(source: Directory, destination: Directory, names: list[str]) -> _Outcome:
    """One snapshot of a subvolume with the whole sample in it."""
    if sys.platform == "linux":
        try:
            btrfs.create_subvolume(source, "subvolume")
            subvolume = platform.open_child(source, "subvolume")
            try:
                for name in names:
                    _reflink(source, subvolume, name)
                outcome = _try(lambda name: btrfs.snapshot(subvolume, destination, name), ["snapshot"])
                return outcome if isinstance(outcome, OSError) else outcome * len(names)
            finally:
                platform.close_directory(subvolume)
        except OSError as error:
            return error
    return OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))


# -- words ------------------------------------------------------------------------------------------------


def _explain(method: str, error: OSError, library: Folder, target: Folder) -> str:
    apart = "the folders are on different filesystems or mounts"
    if error.errno == errno.EXDEV:
        return apart
    if method == "snapshot" and error.errno in platform.UNAVAILABLE:
        only_one = library.filesystem == "btrfs" != target.filesystem
        return apart if only_one else "only Btrfs has snapshots"
    if method == "reflink" and error.errno == errno.EINVAL and target.filesystem == "btrfs":
        return "Btrfs does not reflink between nodatacow and ordinary files"
    if method == "hardlink" and error.errno == errno.EPERM:
        return f"{target.filesystem} does not allow hardlinks"
    if error.errno in platform.UNAVAILABLE:
        verbs = {"reflink": "reflink", "hardlink": "hardlink", "copy": "copy within the kernel"}
        return f"{target.filesystem} cannot {verbs[method]}"
    return os.strerror(error.errno or 0)


def _open_to_all(blobs: str) -> str | None:
    """The first folder of a library, given by that of its blobs, in which others can rename what is not theirs."""
    library = os.path.dirname(blobs)
    folders = [_existing(blobs), library, *(os.path.join(library, name) for name in FOLDERS)]
    folders += [os.path.join(library, name, f"{shard:02x}") for name in ("library", "links") for shard in range(256)]
    for folder in folders if os.path.isdir(blobs) else folders[:1]:
        with suppress(OSError):
            mode = os.lstat(folder).st_mode
            if stat.S_ISDIR(mode) and mode & 0o022 and not mode & stat.S_ISVTX:
                return folder
    return None


def _advise(library: Folder, target: Folder, outcomes: dict[str, _Outcome]) -> Iterator[str]:
    if os.name == "posix" and (folder := _open_to_all(library.path)) is not None:
        yield (
            f"Other users can write to {folder} and replace what is yours there: make the folders of the library "
            "sticky, as docs/sharing.md says."
        )
    reflink, hardlink = outcomes["reflink"], outcomes["hardlink"]
    if isinstance(reflink, OSError):
        if reflink.errno == errno.EXDEV:
            yield (
                f"Library and folder are on different filesystems ({library.filesystem} and "
                f"{target.filesystem}), so every file is copied: let HOLO_HOME name a folder on the same one."
            )
        else:
            yield (
                f"There is no reflink on {target.filesystem}, so smart copies every file: on Btrfs or XFS "
                "it would share their content and still keep spaces apart."
            )
            if not isinstance(hardlink, OSError):
                yield (
                    "The strategy hardlink shares content here, but not safely: the files are read-only, and "
                    "whoever writes to one all the same changes it in every space."
                )
    if "overlay" in (library.filesystem, target.filesystem):
        yield (
            "The first hardlink to, or write into, a file of a lower overlay layer copies the file whole: "
            "in a container, keep the library on a volume and not in the image."
        )
