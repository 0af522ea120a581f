"""Look into a file once: where the path of its tree is to be patched, and which warnings it deserves.

A record, and a clone that is relocated, do this with every file. A small file without the path costs one search for
bytes, and one for each other spelling of the path.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from holo.catalog import Relocation
from holo.content import Piece
from holo.relocation.bytecode import is_bytecode, program
from holo.relocation.find import Opaque, PrefixFinder, RootsFinder, finder_of
from holo.relocation.foreign import may_point_outside, other_spellings, outside
from holo.relocation.roots import needles
from holo.spellings import SPELLINGS


class Seen(NamedTuple):
    """What was seen in some content, whatever the names of the file."""

    places: Relocation | Opaque | None
    foreign: list[str]
    """which other spellings of the path it contains"""


class Inspector:
    """Looks for the path of one tree, and for what leads out of that tree. Made before the workers are forked."""

    def __init__(self, path: str, others: Sequence[str] = ()) -> None:
        """``others``: roots outside of the tree whose paths are looked for as well."""
        self.path = path
        self.others = others
        self._prefix = os.fsencode(path)
        self._needles = needles([path, *others])
        # Most needles contain another one, so that where this one is not, that need not be looked for.
        olds = [needle.old for needle in self._needles]
        self._first = [old for old in olds if not any(other in old for other in olds if other != old)]
        self._foreign: list[tuple[str, bytes]] = []
        for root, what in [(path, "the prefix"), *((root, "the project") for root in others)]:
            known = {*olds, *(needle for _, needle in self._foreign)}
            self._foreign += [found for found in other_spellings(root, what) if found[1] not in known]
        self.shortest = min(len(needle) for needle in [*olds, *(needle for _, needle in self._foreign)])
        """bytes of content in which there may be something to see"""

    def look_into(self, content: bytes, name: str) -> Seen | None:
        """Search all the content of a file with that name; ``None`` if nothing was seen."""
        places = None
        foreign = [what for what, needle in self._foreign if needle in content] if self._foreign else []
        for old in self._first:
            if old in content:
                finder = finder_of(self._needles, content, bytecode=is_bytecode(name))
                places = finder.finish()
                foreign += _in_archive(finder, places)
                break
        return Seen(places, foreign) if places is not None or foreign else None

    def look_through(self, pieces: Iterable[Piece], name: str) -> Seen | None:
        """The same with a file too large to be held in memory."""
        finder = RootsFinder(self._needles, bytecode=is_bytecode(name))
        others = [(what, PrefixFinder(needle)) for what, needle in self._foreign]
        for piece in pieces:
            finder.feed(piece)
            for _, other in others:
                other.feed(piece)
        places = finder.finish()
        foreign = [what for what, other in others if other.finish() is not None] + _in_archive(finder, places)
        return Seen(places, foreign) if places is not None or foreign else None

    def judge(
        self, seen: Seen | None, content: bytes | None, folder: str, name: str
    ) -> tuple[Relocation | None, list[str]]:
        """Where the file ``name`` in ``folder`` is to be patched, and the warnings about it.

        Bytecode is judged as if it had no source: see :mod:`holo.relocation.bytecode`. ``content``: ``None`` if it is
        too large.
        """
        path = f"{folder}/{name}" if folder else name
        places, warnings = None, []
        if seen is not None:
            if isinstance(seen.places, Opaque):
                warnings.append(seen.places.warning(path))
                others = tuple(SPELLINGS * root for root in seen.places.roots if root)
                places = Relocation("opaque", [], [], others) if others else None
            elif seen.places is not None:
                places = program(path, content, self._prefix, seen.places) if is_bytecode(name) else seen.places
            if not is_bytecode(name):
                warnings += [f"{path} contains {what}, which is not patched" for what in seen.foreign]
        if content is not None and may_point_outside(folder, name):
            warnings += outside(path, content, self.path, self.others)
        return places, warnings


def _in_archive(finder: RootsFinder, places: Relocation | Opaque | None) -> list[str]:
    """What a file says of which only the first line is patched."""
    is_line = isinstance(places, Relocation) and places.kind == "zipapp"
    return ["the recorded path in its ZIP archive"] if is_line and finder.is_in_archive else []
