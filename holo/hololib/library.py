"""The library as a whole: where it is, and the parts of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from holo import platform
from holo.errors import HoloError, os_errors_as
from holo.hololib.catalogs import Catalogs
from holo.hololib.layout import FOLDERS, library_folder
from holo.walk import absolute, refuse_symlinks

if TYPE_CHECKING:
    from holo.hololib.blobs import Blobs
    from holo.hololib.links import Links
    from holo.hololib.unsettled import Unsettled


class Library:
    """One library, below ``home`` (see :mod:`holo.settings`). Cheap to make; directories appear when needed.

    ``compression`` is ``auto`` (raw where the library's filesystem can reflink, zstd elsewhere), ``raw`` or
    ``zstd``. ``is_space`` tells whether a space has a name: a user who names a missing catalog may mean that.
    """

    def __init__(self, home: str, compression: str = "auto", is_space: Callable[[str], bool] = lambda _: False) -> None:
        self.home = absolute(home)
        self.path = os.path.join(self.home, "hololib")
        refuse_symlinks(self.path, *(os.path.join(self.path, name) for name in FOLDERS))
        self.compression = compression
        self.catalogs = Catalogs(self.path, self.settle, is_space)

    def __repr__(self) -> str:
        return f"Library({self.home!r})"

    def folder(self, *names: str) -> str:
        """A folder of the library, made if it is not there."""
        return library_folder(self.path, *names)

    @contextmanager
    def opened(self, *names: str, changes: bool = False) -> Iterator[platform.Directory]:
        """A folder of the library, open. The library and its first folders may be the user's symlinks, others not.

        ``changes``: something is to be removed there, so those others may not be mount points either. Raises
        :class:`OSError`.
        """
        open_child = platform.open_unmounted if changes else platform.open_child
        with ExitStack() as held:  # which closes nothing twice, also when interrupted
            directory = platform.open_root(os.path.join(self.path, *names[:1]))
            held.callback(platform.close_directory, directory)
            for name in names[1:]:
                directory = open_child(directory, name)
                held.callback(platform.close_directory, directory)
            yield directory

    @cached_property
    def blobs(self) -> Blobs:
        from holo.hololib.blobs import Blobs

        folder = self.folder("library")
        with os_errors_as(f"cannot read {folder}"):
            return Blobs(folder, self.unsettled.note_derived)

    @cached_property
    def links(self) -> Links:
        from holo.hololib.links import Links

        folder = self.folder("links")
        with os_errors_as(f"cannot read {folder}"):
            return Links(folder, self.blobs, self.unsettled.note_derived)

    @cached_property
    def keeps_raw(self) -> bool:
        """Whether new content is stored raw rather than compressed. Tried out in the library for ``auto``."""
        from holo.platform import probe

        if self.compression != "auto":
            return self.compression == "raw"
        with os_errors_as(f"cannot try out what the library {self.path} can do"):
            return probe.reflink(self.blobs.directory, self.blobs.directory) is None

    @cached_property
    def unsettled(self) -> Unsettled:
        """What may not have reached the disk yet."""
        from holo.hololib.unsettled import Unsettled

        return Unsettled(os.path.join(self.path, "unsettled"))

    @property
    def may_be_torn(self) -> bool:
        """Whether a power cut may have left files that have the right size and time, but not the content.

        See :mod:`holo.hololib.recovery`.
        """
        return self.unsettled.may_be_torn()

    def close(self) -> None:
        """Let go of folders that are to be removed; they are opened again when they are needed."""
        for part in ("blobs", "links"):
            if part in vars(self):
                vars(self).pop(part).close()

    def settle(self) -> None:
        """Make everything written to the library durable.

        The sync reports what could not be written since its descriptor was opened, so it has to be one that was open
        before the first blob was written.
        """
        try:
            platform.sync_filesystem(self.blobs.directory)
        except OSError as error:
            self.unsettled.note_write_error()
            raise HoloError(f"cannot write to the library {self.path}: {error.strerror}") from error
