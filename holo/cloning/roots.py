"""The roots that move with a cloned tree: the tree itself, the project that it lies in, and what the user names.

An environment holds paths of the project beside it: of its source (editable installs), of its packages (workspaces).
Each spelling of a root has a :class:`~holo.relocation.patch.Relocator`. Where roots nest, a path is of the longest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from holo import platform
from holo.catalog import Relocation
from holo.content import Hole, Piece, pieces_of, write_all
from holo.errors import RelocationImpossible, UsageError
from holo.hololib.verified import CHUNK
from holo.projects import project_of, same_project
from holo.relocation import leads_into, listed
from holo.relocation.bytecode import STALE, is_bytecode, program
from holo.relocation.find import Opaque, PrefixFinder, find
from holo.relocation.inspection import Inspector, Seen
from holo.relocation.patch import Relocator, patch_file, splice
from holo.walk import absolute

_OF_URLS = "/!$&'()*+,:;=@[]|"
"""What uv leaves as it is in the URL of a file. pip quotes all of these but the slash."""

_CACHE = ".cache"
"""A folder of files that tools make again, as bundlers have it in ``node_modules``."""

Places: TypeAlias = tuple[tuple[int, Relocation], ...]
"""Where a file is to be patched: the numbers of the roots that it names, and the occurrences of each."""


class Root(NamedTuple):
    """A folder whose paths become those of another."""

    old: str
    new: str


class Inspected(NamedTuple):
    """What was seen in one file."""

    places: Places
    warnings: list[str]
    stuck: Root | None
    """a root that cannot be replaced there"""


def named(texts: Iterable[str]) -> list[Root]:
    """The roots of ``--map OLD=NEW``. Raises :class:`UsageError` for what is not of that form."""
    found = []
    for text in texts:
        old, _, new = text.partition("=")
        if not old or not new or absolute(old) == os.sep:
            raise UsageError(f"--map {text} does not name two folders", "Write it as --map OLD=NEW.")
        found.append(Root(absolute(old), absolute(new)))
    return found


def of_project(source: str, target: str) -> list[Root]:
    """The project that a tree lies in, if its clone lies in another checkout of that; else ``[]``."""
    old, new = project_of(source), project_of(target)
    if old is None or new is None or old in (new, os.sep) or not same_project(old, new):
        return []
    return [Root(old, new)]


class Roots:
    """Looks for the roots in files, and patches them. Made before the workers are forked."""

    def __init__(self, source: str, target: str, others: Sequence[Root] = ()) -> None:
        self._tree = Root(source, target)
        spelled = _spelled([self._tree, *others]) if others else [(self._tree, self._tree)]
        self._roots = [root for root, _ in spelled]
        self._olds = [spelling.old for _, spelling in spelled]
        self._relocators = [Relocator(*spelling) for _, spelling in spelled]
        self._own = self._olds.index(source)
        self._others = [number for number in range(len(self._olds)) if number != self._own]
        self._inspector = Inspector(source, [old for old in self._olds if old != source])
        needles = [relocator.old for relocator in self._relocators]
        self._first = [old for old in needles if not any(other in old for other in needles if other != old)]
        """what is in every file that names a root"""
        self.shortest = min(self._inspector.shortest, *map(len, needles))
        """bytes of content in which there may be something to see"""

    # -- symlinks -----------------------------------------------------------------------------------------------

    def moves_link(self, path: str, target: str) -> bool:
        """Whether the symlink at ``path`` in the tree leads to a root by a path that moves with it."""
        return self._number_of_link(path, target) is not None

    def moved_link(self, path: str, target: str) -> tuple[str, Root | None]:
        """The new target of the symlink at ``path`` in the tree, and the root that it leads to."""
        number = self._number_of_link(path, target)
        if number is None:
            return target, None
        moved = self._relocators[number].symlink(self._led_to(path, target))
        if not target.startswith(os.sep):
            moved = os.path.relpath(moved, os.path.join(self._tree.new, os.path.dirname(path)))
            moved = target if os.path.normpath(target) == moved else moved
        return moved, self._roots[number]

    def _number_of_link(self, path: str, target: str) -> int | None:
        full = self._led_to(path, target)
        if not target.startswith(os.sep) and leads_into(full, self._tree.old):
            return None
        return next((number for number, old in enumerate(self._olds) if leads_into(full, old)), None)

    def _led_to(self, path: str, target: str) -> str:
        if target.startswith(os.sep):
            return target
        return os.path.normpath(os.path.join(self._tree.old, os.path.dirname(path), target))

    def moved_outside(self, path: str) -> str | None:
        """Where a path outside of the tree moves to; ``None`` if it does not."""
        number = self._number_of_link("", path)
        if number is None or self._roots[number] == self._tree or self._is_kept(number):
            return None
        return self._relocators[number].symlink(path)

    # -- files --------------------------------------------------------------------------------------------------

    def inspect(self, file: int, size: int, folder: str, name: str) -> Inspected:
        """What is to be patched in an open file."""
        numbers = self._others
        if size > CHUNK:
            content = None
            finders = {n: PrefixFinder(self._relocators[n].old, bytecode=is_bytecode(name)) for n in numbers}
            seen = self._inspector.look_through(_fed(pieces_of(file, size), finders.values()), name)
            others = {n: finder.finish() for n, finder in finders.items()}
        else:
            content = platform.read_at(file, size, 0)
            seen = self._inspector.look_into(content, name)
            if numbers and not any(old in content for old in self._first):
                numbers = []
            others = {n: find(self._relocators[n].old, content, bytecode=is_bytecode(name)) for n in numbers}
        if any(others.values()):
            found = _outermost({**others, self._own: seen.places if seen is not None else None})
            seen = Seen(found.pop(self._own), seen.foreign if seen is not None else [])
        else:
            found = {}
        own, warnings = self._inspector.judge(seen, content, folder, name)
        path = f"{folder}/{name}" if folder else name
        places = [] if own is None else [(self._own, own)]
        stuck = None
        for number, raw in found.items():
            here = self._judge(number, raw, content, path)
            if here is None or self._is_kept(number):
                continue
            if self._is_stuck(number, here, folder):
                stuck = self._roots[number]
            elif isinstance(here, Opaque):
                warnings.append(here.warning(path))
            else:
                places.append((number, here))
        if any(here == STALE for _, here in places):
            return Inspected(self.stale, warnings, None)
        return Inspected(tuple(places), warnings, stuck)

    def _judge(
        self, number: int, found: Relocation | Opaque | None, content: bytes | None, path: str
    ) -> Relocation | Opaque | None:
        if isinstance(found, Relocation) and is_bytecode(path):
            return program(path, content, self._relocators[number].old, found)
        return found

    def _is_kept(self, number: int) -> bool:
        return self._roots[number].old == self._roots[number].new

    def _is_stuck(self, number: int, found: Relocation | Opaque, folder: str) -> bool:
        is_cached = _CACHE in folder.split("/")
        if isinstance(found, Opaque):
            return not is_cached
        relocator = self._relocators[number]
        is_fixed = found.kind == "binary" or (found.kind == "data" and not is_cached)
        return is_fixed and len(relocator.new) > len(relocator.old)

    def refuse_impossible(self, found: Mapping[str, Places], stuck: Mapping[str, Root]) -> None:
        """Raise :class:`RelocationImpossible`, with the list of files, if one cannot be patched."""
        own = {path: here for path, places in found.items() for number, here in places if number == self._own}
        self._relocators[self._own].refuse_impossible(own, ", or clone without --relocate")
        if stuck:
            root = next(iter(stuck.values()))
            raise RelocationImpossible(
                f"{root.new} cannot take the place of {root.old} in files that are not text, or have no room for a "
                f"longer path: {listed(sorted(stuck))}",
                f"Remove them if they can be made again, or clone with --no-map: then they go on naming {root.old}. "
                "Nothing was made.",
            )

    @property
    def stale(self) -> Places:
        """Where bytecode is patched that is to be compiled again."""
        return ((self._own, STALE),)

    def applying(self, places: Places) -> Places:
        """Those places that are patched at all: data in which a longer path has no room is left alone."""
        return tuple((number, here) for number, here in places if self._relocators[number].applies(here))

    def left_alone(self, found: Mapping[str, Places]) -> list[str]:
        """A warning about data files that keep a root."""
        warnings = []
        for number, relocator in enumerate(self._relocators):
            mine = {path: here for path, places in found.items() for each, here in places if each == number}
            warnings += relocator.left_alone(mine)
        return warnings

    def is_unquoted(self, file: int, size: int, places: Places, path: str) -> bool:
        """See :meth:`Relocator.is_unquoted`."""
        return any(self._relocators[number].is_unquoted(pieces_of(file, size), here, path) for number, here in places)

    def patch(self, file: int, places: Places, path: str) -> set[Root]:
        """Patch a file, which is open for reading and writing. Returns the roots that it named."""
        parts = [(self._relocators[number], here, self._below(number, path)) for number, here in places]
        if len(parts) == 1 or all(relocator.regions(here) is not None for relocator, here, _ in parts):
            for relocator, here, below in parts:
                patch_file(file, relocator, here, below)
        else:  # texts, in which what comes behind an edit moves
            pieces = iter(pieces_of(file, os.fstat(file).st_size))
            first = next(pieces, b"")
            head = b"" if isinstance(first, Hole) else first
            edits = sorted(edit for relocator, here, below in parts for edit in relocator.edits(here, head, below))
            if any(one[1] > other[0] for one, other in pairwise(edits)):
                raise RelocationImpossible(
                    f"the first line of {path} names several folders that move, and must be written anew",
                    "Clone to a shorter path without blanks. Nothing was made.",
                )
            patched = b"".join(map(bytes, splice(first, pieces, edits)))
            os.lseek(file, 0, os.SEEK_SET)
            write_all(file, patched)
            os.ftruncate(file, len(patched))
        return {self._roots[number] for number, _ in places}

    def _below(self, number: int, path: str) -> str:
        """``path`` in the tree as a path below that root, from which a first line finds its interpreter."""
        if number == self._own:
            return path
        return os.path.relpath(os.path.join(self._tree.old, path), self._olds[number])


def _spelled(roots: Sequence[Root]) -> list[tuple[Root, Root]]:
    """Each root in all its spellings, the longest first: by its real path, and in URLs.

    A folder to which another moves may lie in that, as an agent's worktree does. Its own paths stay.
    """
    found: dict[str, tuple[Root, Root]] = {}
    kept = [Root(root.new, root.new) for root in roots if leads_into(root.new, root.old)]
    for root in [*roots, *kept]:
        for old in (root.old, os.path.realpath(root.old)):
            found.setdefault(old, (root, Root(old, root.new)))
    for old, (root, _) in list(found.items()):
        for spelling in (quote(old), quote(old, safe=_OF_URLS)):
            found.setdefault(spelling, (root, Root(spelling, quote(root.new))))
    return [found[old] for old in sorted(found, key=len, reverse=True)]


def _fed(pieces: Iterable[Piece], finders: Iterable[PrefixFinder]) -> Iterator[Piece]:
    for piece in pieces:
        for finder in finders:
            finder.feed(piece)
        yield piece


def _outermost(found: Mapping[int, Relocation | Opaque | None]) -> dict[int, Relocation | Opaque | None]:
    """Without the occurrences of a root that are the beginning of a longer one, which has a lower number."""
    taken: set[int] = set()
    left: dict[int, Relocation | Opaque | None] = {}
    for number in sorted(found):
        here = found[number]
        if isinstance(here, Relocation):
            kept = [index for index, offset in enumerate(here.offsets) if offset not in taken]
            if len(kept) < len(here.offsets):
                taken.update(here.offsets)
                # A text has at most one end, that of its first line; everything else has one for each occurrence.
                ends = [here.ends[index] for index in kept if index < len(here.ends)]
                here = here._replace(offsets=[here.offsets[index] for index in kept], ends=ends) if kept else None
            else:
                taken.update(here.offsets)
        left[number] = here
    return left
