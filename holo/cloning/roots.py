"""The roots that move with a cloned tree: the tree itself, the project that it lies in, and what the user names.

An environment holds paths of the project beside it: of its source (editable installs), of its packages (workspaces).
Where roots nest, a path is of the longest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from holo import platform
from holo.catalog import Relocation
from holo.content import pieces_of
from holo.errors import UsageError
from holo.hololib.verified import CHUNK
from holo.projects import project_of, same_project
from holo.relocation import leads_into
from holo.relocation.inspection import Inspector
from holo.relocation.patch import Relocator, patch_file
from holo.relocation.roots import names_root, root_of
from holo.spellings import SPELLINGS
from holo.walk import absolute


class Root(NamedTuple):
    """A folder whose paths become those of another."""

    old: str
    new: str


class Inspected(NamedTuple):
    """What was seen in one file."""

    places: Relocation | None
    """where it is to be patched"""
    warnings: list[str]


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
    if old is None or new is None or old == new or os.sep in (old, new) or not same_project(old, new):
        return []
    return [Root(old, new)]


class Roots:
    """Looks for the roots in files, and patches them. Made before the workers are forked."""

    def __init__(self, source: str, target: str, others: Sequence[Root] = ()) -> None:
        self._tree = Root(source, target)
        known = _spelled([self._tree, *others])
        self._roots = [root for root, _ in known.values()]
        """what each of the roots in a file is: of several, the tree's own real path, too, is the tree"""
        self._others = [*known][1:]
        self._inspector = Inspector(source, self._others)
        self._relocator = Relocator(source, target, [(old, known[old][1]) for old in self._others])
        self.shortest = self._inspector.shortest
        """bytes of content in which there may be something to see"""

    # -- symlinks -----------------------------------------------------------------------------------------------

    def moves_link(self, path: str, target: str) -> bool:
        """Whether the symlink at ``path`` in the tree leads to a root by a path that moves with it."""
        return names_root(target, os.path.dirname(path), self._tree.old, self._others)

    def moved_link(self, path: str, target: str) -> tuple[str, Root | None]:
        """The new target of the symlink at ``path`` in the tree, and the root that it leads to."""
        return self._relocator.symlink(target, path), self._root_of(target, os.path.dirname(path))

    def _root_of(self, target: str, folder: str = "") -> Root | None:
        """The root outside of the tree to which a path leads."""
        old = root_of(target, folder, self._tree.old, self._others)
        return self._roots[1 + self._others.index(old)] if old is not None else None

    def moved_outside(self, path: str) -> str | None:
        """Where a path outside of the tree moves to; ``None`` if it does not."""
        root = self._root_of(path)
        moved = self._relocator.symlink(path)
        return moved if root not in (None, self._tree) and moved != path else None

    # -- files --------------------------------------------------------------------------------------------------

    def inspect(self, file: int, size: int, folder: str, name: str) -> Inspected:
        """What is to be patched in an open file."""
        inspector = self._inspector
        if size > CHUNK:
            content = None
            seen = inspector.look_through(pieces_of(file, size), name)
        else:
            content = platform.read_at(file, size, 0)
            seen = inspector.look_into(content, name)
        places, warnings = inspector.judge(seen, content, folder, name)
        is_kept = places is not None and places.forms and not any(root.old != root.new for root in self.named(places))
        return Inspected(None if is_kept else places, warnings)

    def named(self, places: Relocation) -> set[Root]:
        """The roots that a file names."""
        return {self._roots[form // SPELLINGS] for form in places.forms or (0,)}

    def applies(self, places: Relocation) -> bool:
        """Whether a file is patched at all."""
        return self._relocator.applies(places)

    def refuse_impossible(self, found: Mapping[str, Relocation]) -> None:
        """Raise :class:`RelocationImpossible`, with the list of files, if one cannot be patched."""
        self._relocator.refuse_impossible(
            found, ", or clone without --relocate", ", or clone with --no-map. Nothing was made"
        )

    def left_alone(self, found: Mapping[str, Relocation]) -> list[str]:
        """A warning about data files that keep a root."""
        return self._relocator.left_alone(found)

    def is_unquoted(self, file: int, size: int, places: Relocation, path: str) -> bool:
        """See :meth:`Relocator.is_unquoted`."""
        return self._relocator.is_unquoted(pieces_of(file, size), places, path)

    def patch(self, file: int, places: Relocation, path: str) -> None:
        """Patch a file, which is open for reading and writing."""
        patch_file(file, self._relocator, places, path)


def _spelled(roots: Sequence[Root]) -> dict[str, tuple[Root, str]]:
    """The old paths of the roots, the first one's own first: each also by its real path. For each, the root and where
    it moves to.

    A folder to which another moves may lie in that, as an agent's worktree does. Its own paths stay.
    """
    found: dict[str, tuple[Root, str]] = {}
    kept = [Root(root.new, root.new) for root in roots if leads_into(root.new, root.old)]
    for root in [*roots, *kept]:
        for old in (root.old, os.path.realpath(root.old)):
            found.setdefault(old, (root, root.new))
    return found
