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
from holo.relocation.find import Opaque, PrefixFinder, find
from holo.relocation.foreign import is_inside, may_point_outside, other_spellings, outside


class Seen(NamedTuple):
    """What was seen in some content, whatever the names of the file."""

    places: Relocation | Opaque | None
    foreign: list[str]
    """which other spellings of the path it contains"""


class Inspector:
    """Looks for the path of one tree, and for what leads out of that tree. Made before the workers are forked."""

    def __init__(self, path: str, moving: Sequence[str] = ()) -> None:
        """``moving``: other roots, whose paths are patched as well, so that nobody need be warned of them."""
        self.path = path
        self._roots = [path, *moving]
        self._prefix = os.fsencode(path)
        spellings = other_spellings(path)
        self._foreign = [each for each in spellings if not is_inside(os.fsdecode(each[1]), moving)]
        self.shortest = min(len(needle) for needle in [self._prefix, *(needle for _, needle in self._foreign)])
        """bytes of content in which there may be something to see"""

    def look_into(self, content: bytes, name: str) -> Seen | None:
        """Search all the content of a file with that name; ``None`` if nothing was seen."""
        places = find(self._prefix, content, bytecode=is_bytecode(name)) if self._prefix in content else None
        foreign = [what for what, needle in self._foreign if needle in content] if self._foreign else []
        return Seen(places, foreign) if places is not None or foreign else None

    def look_through(self, pieces: Iterable[Piece], name: str) -> Seen | None:
        """The same with a file too large to be held in memory."""
        finder = PrefixFinder(self._prefix, bytecode=is_bytecode(name))
        others = [(what, PrefixFinder(needle)) for what, needle in self._foreign]
        for piece in pieces:
            finder.feed(piece)
            for _, other in others:
                other.feed(piece)
        places = finder.finish()
        foreign = [what for what, other in others if other.finish() is not None]
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
            elif seen.places is not None:
                places = program(path, content, self._prefix, seen.places) if is_bytecode(name) else seen.places
            if not is_bytecode(name):
                warnings += [f"{path} contains {what}, which is not patched" for what in seen.foreign]
        if content is not None and may_point_outside(folder, name):
            warnings += outside(path, content, self._roots)
        return places, warnings
