"""What the outcomes of the trials mean for the user. Nothing here looks at a disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from holo import platform
from holo.errors import KEEPS_NO_MODES

Outcome: TypeAlias = "float | OSError"
"""Files per second, or why it failed."""


@dataclass(frozen=True)
class Folder:
    """A folder, and the type of the filesystem it is on as the system names it."""

    path: str
    filesystem: str


def explain(method: str, error: OSError, library: Folder, target: Folder) -> str:
    """Why a way to make files does not work."""
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


def advise(
    library: Folder, target: Folder, outcomes: dict[str, Outcome], open_folder: str | None, *, keeps_modes: bool = True
) -> Iterator[str]:
    """What the user can do better. ``open_folder`` is one of the library that other users can write to.

    ``keeps_modes``: whether the filesystem of the library keeps the modes of files.
    """
    if not keeps_modes:
        yield f"No library can be here: {library.filesystem} does not keep the modes of files. {KEEPS_NO_MODES}"
    elif open_folder is not None:
        yield (
            f"Other users can write to {open_folder} and replace what is yours there: make the folders of the library "
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
            yield (
                "`holo spares CATALOG --keep 2` has two finished copies ready: a new space is then a rename, in a "
                "tenth of the time."
            )
    if "overlay" in (library.filesystem, target.filesystem):
        yield (
            "The first hardlink to, or write into, a file of a lower overlay layer copies the file whole: "
            "in a container, keep the library on a volume and not in the image."
        )
