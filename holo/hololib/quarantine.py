"""Damaged files are moved here, out of the way, and never deleted."""

from __future__ import annotations

import errno
import os
import shutil
import time

from holo.walk import make_folders


class Quarantine:
    """The folder ``quarantine/`` of a library, with one folder in it for each command that moved something there."""

    def __init__(self, library: str) -> None:
        self.path = os.path.join(library, "quarantine")
        self._own = os.path.join(self.path, f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}")

    def take(self, path: str, name: str) -> str:
        """Move ``path`` here, as ``name`` (with its folders). Returns where it is now. Raises :class:`OSError`."""
        target = os.path.join(self._own, name)
        make_folders(os.path.dirname(target))
        try:
            os.rename(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.move(path, target)  # spaces may be on another filesystem than the library
        return target
