"""The trials: every way to make files, tried with a sample and timed."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable

from holo import platform
from holo.doctor.advice import Outcome
from holo.errors import os_errors_as
from holo.platform import Directory
from holo.trees.stubs import OTHERS_SHARE, why_not_mounted

if sys.platform == "linux":
    from holo.platform import btrfs

_FILES = 200
_SIZE = 8192
_SECONDS = 0.15
"""Each trial ends after so long, with fewer files on a slow disk."""


def make_sample(source: Directory) -> list[str]:
    """Make the files that are then cloned, linked and copied; durable, as blobs are when they are used.

    A clone of a file that is not on the disk yet has to wait for it, which would be measured as well.
    """
    names: list[str] = []
    started = time.perf_counter()
    with os_errors_as("cannot write a sample into the library"):
        while not names or (len(names) < _FILES and time.perf_counter() - started < _SECONDS):
            name = f"{len(names):03d}"
            with platform.closing(platform.create_file(source, name, 0o600)) as descriptor:
                os.write(descriptor, os.urandom(_SIZE))
                os.fsync(descriptor)
            names.append(name)
    return names


def keeps_modes(directory: Directory) -> bool:
    """Whether a file has the mode that it is given, as blobs must."""
    with os_errors_as("cannot try out the modes of files"):
        for mode in (0o600, 0o444):
            with platform.closing(platform.create_file(directory, f"mode-{mode:o}", mode)) as descriptor:
                platform.set_file(descriptor, time.time_ns(), mode)
                if not platform.shows_mode(descriptor, mode):
                    return False
        return True


def files_per_second(make: Callable[[str], object], names: list[str]) -> Outcome:
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


def reflink(source: Directory, destination: Directory, name: str) -> None:
    with platform.closing(platform.open_file(source, name)) as blob:
        os.close(platform.clone(blob, source, name, destination, f"{name}.clone", 0o600))


def copy(source: Directory, destination: Directory, name: str) -> None:
    with (
        platform.closing(platform.open_file(source, name)) as blob,
        platform.closing(platform.create_file(destination, f"{name}.copy", 0o600)) as file,
    ):
        position = 0
        while copied := platform.copy_range(blob, file, position, _SIZE):
            position += copied


def why_no_stubs(folder: str, hardlink: Outcome, *, is_shared: bool) -> str | None:
    """Whether throw-away environments in a new folder can be mounted over stubs; ``None``, or why not."""
    if is_shared:
        return OTHERS_SHARE
    if isinstance(hardlink, OSError):
        return "blobs cannot be hardlinked"
    return why_not_mounted(folder)


def files_per_second_by_snapshot(source: Directory, destination: Directory, names: list[str]) -> Outcome:
    """One snapshot of a subvolume with the whole sample in it."""
    if sys.platform == "linux":
        try:
            btrfs.create_subvolume(source, "subvolume")
            with platform.closing(platform.open_child(source, "subvolume")) as subvolume:
                for name in names:
                    reflink(source, subvolume, name)
                outcome = files_per_second(lambda name: btrfs.snapshot(subvolume, destination, name), ["snapshot"])
                return outcome if isinstance(outcome, OSError) else outcome * len(names)
        except OSError as error:
            return error
    return OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
