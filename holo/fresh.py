"""A home that a command has made: if the command is refused, nothing of that stays, and nobody wonders what it is.

Contents that no catalog needs are garbage. Whoever waits for the lock of a library while that goes makes it again
(:mod:`holo.hololib.locks`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holo.errors import HoloError
from holo.files import names_in
from holo.hololib.layout import FOLDERS, LOCKS
from holo.hololib.locks import InUseError
from holo.hololib.recovery import locked_library
from holo.home import Home
from holo.remove import remove_at

_OF_USE = ("catalog", "names", "builds", "incoming", "quarantine")
"""Folders with what is more than garbage: catalogs, logs of builds, what a pull goes on with."""


@contextmanager
def undone_if_refused(home: Home) -> Iterator[None]:
    """Remove what of a home the block has made, if it raises :class:`HoloError` and has left nothing of use there.

    The block holds no lock any more when it is left.
    """
    spaces = home.spaces
    places = (home.library.path, spaces.records, spaces.path, spaces.home)
    made = [path for path in places if not os.path.lexists(path)]
    try:
        yield
    except HoloError:
        if home.library.path in made:
            with suppress(HoloError, InUseError):  # somebody else uses it by now
                _empty(home)
        for path in made:
            with suppress(OSError):  # it is not empty
                os.rmdir(path)
        raise


def _empty(home: Home) -> None:
    library = home.library
    if not os.path.isdir(library.path):
        return
    with locked_library(library, exclusive=True, on_wait=home.on_wait, wait=False):
        if not any(names_in(os.path.join(library.path, name)) for name in _OF_USE):
            library.close()
            for name in (*FOLDERS, *LOCKS):
                remove_at(os.path.join(library.path, name))
