"""Adopt: let the spaces of a home that was copied belong to the copy.

A space outside the holotree belongs to the home that made it. A copy of that home (`cp -a`, a backup) knows about
it, too, and so does a home that somebody else has made up, to have a directory emptied by the next restore. So
nothing is adopted that another home still has, or that does not look like a space of its catalog. The directory
itself is only read. The next restore puts another in its place, which tells a home that was moved, and that nobody
finds, that the space is not its own any more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from holo.check.differences import count_as_recorded
from holo.errors import HoloError
from holo.home import Home
from holo.owners import is_ours
from holo.restore.place import refuse_place
from holo.space import Space


@dataclass(frozen=True)
class Adoption:
    """The outcome for one space."""

    space: str
    path: str
    catalog: str
    refused: str | None
    """why it was not adopted"""

    def to_json(self) -> dict[str, str | None]:
        return {"space": self.space, "path": self.path, "catalog": self.catalog, "refused": self.refused}


def adopt(home: Home, names: Sequence[str]) -> list[Adoption]:
    """Adopt those of the named spaces, or of all, that only a copied record tells of; returns the outcome for each.

    Raises :class:`~holo.errors.NotFound` for a name that no space has.
    """
    tree = home.spaces
    known = tree.names()
    for name in names:
        if name not in known:
            raise tree.unknown(name)
    found = []
    for name in names or known:
        with tree.lock(name, home.on_wait), home.using_library():
            try:
                space = tree.get(name)
            except HoloError:
                if names:
                    raise
                continue  # another user's, or damaged, as `holo check` says
            if space.standing == "copied" or tree.owner(space) is not None:
                refused = _why_not(home, space)
                if refused is None:
                    tree.adopt(space)
                found.append(Adoption(name, space.path, space.catalog, refused))
    return found


def _why_not(home: Home, space: Space) -> str | None:
    library = home.library
    if (owner := home.spaces.owner(space)) is not None:
        return f"it belongs to the home {owner}, from which this one was copied"
    try:
        refuse_place(library, home.spaces, space.path)
        if not is_ours(os.lstat(space.path)):
            return "the directory is another user's"
        catalog = library.catalogs.load(space.digest)
        found, files = count_as_recorded(library, space, catalog, home.workers), catalog.totals.files
    except OSError as error:
        return f"the directory cannot be read: {error.strerror}"
    except HoloError as error:
        return error.message
    if found <= files // 2:
        return f"the directory does not look like the catalog: {found:,} of {files:,} files are as recorded"
    return None
