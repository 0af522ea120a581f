"""Where everything of one user's holo is, and how it works there: the value that every command is handed."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from holo.errors import HoloError, advice_at_home
from holo.hololib import CatalogRef, Library
from holo.hololib.locks import OnWait, say_waiting
from holo.hololib.recovery import locked_library
from holo.holotree import Holotree


class Exchange(Protocol):
    """Where others may have built what a blueprint says."""

    def obtain(self, key: str, name: str) -> CatalogRef | None:
        """Take what was built for a key into the library, as ``name``; ``None`` if there is nothing to have.

        The caller holds no lock of the library.
        """

    def offer(self, catalog: CatalogRef) -> None:
        """Let others have what was built here, if it is to be shared."""


def refuse_file(path: str) -> None:
    """Raise :class:`HoloError` for a home that can be no folder: a file is there, or in the place of one above it."""
    try:
        os.stat(os.path.join(path, ""))  # with a slash at its end, a file is an error as well
    except NotADirectoryError as error:
        raise HoloError(f"{path} cannot be the home: {error.strerror}", advice_at_home(error)) from error
    except OSError:  # it is not there yet; and whatever else it is, whoever uses it will tell
        pass


class Home(NamedTuple):
    """A library and the spaces made from it."""

    library: Library
    spaces: Holotree
    workers: int = 1
    """processes that work side by side"""
    on_wait: OnWait = say_waiting
    """called with messages for the user, above all before holo waits for a lock"""
    exchange: Exchange | None = None
    spares: int | None = 0
    """how many are to be kept of each catalog used lately; ``None``: one where that costs no data"""

    def using_library(self) -> AbstractContextManager[None]:
        """Keep everything in the library while the block runs: its lock, shared."""
        return locked_library(self.library, exclusive=False, on_wait=self.on_wait)
