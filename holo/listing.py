"""What `holo list` and `holo catalogs` say of each space and of each catalog.

A home may have thousands of spaces. So nothing is measured here: what a space has alone is what the last restore left
(:attr:`holo.space.Space.own`), and `holo du` measures what it has now.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence, Set
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from holo import digest as digests
from holo.blueprints.memory import blueprint_of, blueprints_of
from holo.glance import glance
from holo.hololib import CatalogRef, CatalogSummary
from holo.hololib.golden import golden_trees
from holo.holotree import ORIGIN, USED, Holotree
from holo.kept import Kept, files_of, keep, recall
from holo.settings import parse_duration
from holo.space import Space, State
from holo.workers import pool

if TYPE_CHECKING:
    from holo.home import Home

Details = TypeVar("Details", "SpaceDetails", "CatalogDetails")

_MANY = 500
"""Spaces: reading so many takes longer than to start another process, and is worth keeping for the next list."""


class SpaceDetails(NamedTuple):
    """A space, as its directories show it, and where it comes from."""

    space: Space
    made: float | None
    """when it was made, in seconds of the epoch, as far as that is known"""
    used: float | None
    """when a command last worked in it, or it was restored"""
    exclusive: int | None
    """bytes that it shared with nobody when its last restore ended"""
    blueprint: str | None
    """the file that it was made from"""
    folder: str | None
    """the folder that it is for: that which it is in, unless it is in the holotree; else that of its blueprint"""
    is_former: bool = False
    """whether the name of its catalog means another catalog by now"""

    def to_json(self) -> dict[str, Any]:
        """What `holo list --json` shows."""
        space = self.space
        return space.to_json() | {
            "made": _text(self.made),
            "restored": space.restored or None,
            "used": _text(self.used),
            "exclusive": self.exclusive,
            "blueprint": self.blueprint,
            "folder": self.folder,
            "strategy": {"requested": space.requested, "used": space.used, "reason": space.reason},
            "bundle": space.bundle or None,
        }


class CatalogDetails(NamedTuple):
    """A catalog under one of its names, and who uses it."""

    summary: CatalogSummary
    is_golden: bool
    """whether it has a golden tree"""
    made: float | None
    used: float | None
    """when this or another user last recorded or restored it"""
    spaces: tuple[str, ...]
    """the spaces that hold it"""
    blueprints: tuple[str, ...]
    """the files that it was built from here"""
    exclusive: int | None = None
    """bytes that would be free if it alone were removed, if that was measured"""

    def to_json(self) -> dict[str, Any]:
        """What `holo catalogs --json` shows."""
        return self.summary._asdict() | {
            "golden": self.is_golden,
            "used": _text(self.used),
            "spaces": list(self.spaces),
            "blueprints": list(self.blueprints),
            "exclusive": self.exclusive,
        }


def spaces(home: Home) -> list[SpaceDetails]:
    """All spaces, by name. Of each of its directories a stat is taken."""
    found = _read(home, look=True)
    catalogs = {CatalogRef(item.space.catalog, item.space.digest) for item in found}
    former = {catalog for catalog in catalogs if home.library.catalogs.moved_on(catalog) is not None}
    if not former:
        return found
    return [item._replace(is_former=(item.space.catalog, item.space.digest) in former) for item in found]


def catalogs(home: Home, summaries: Sequence[CatalogSummary]) -> list[CatalogDetails]:
    """The same of catalogs."""
    holders, sources = defaultdict[str, list[str]](list), blueprints_of(home.library)
    for found in _read(home, look=False):
        holders[found.space.digest].append(found.space.name)
        if found.blueprint is not None:
            sources.setdefault(found.space.digest, set()).add(found.blueprint)
    golden, marks = golden_trees(home.library.path), home.library.catalogs.last_used()
    details = []
    for summary in summaries:
        made = time_of(summary.recorded)
        used = max(filter(None, (made, marks.get(summary.digest))), default=None)
        files = tuple(sorted(sources.get(summary.digest, ())))
        holding = tuple(holders.get(summary.digest, ()))
        details.append(CatalogDetails(summary, summary.digest in golden, made, used, holding, files))
    return details


def tell_of_damaged(home: Home, listed: Sequence[CatalogSummary]) -> None:
    """Warn of catalogs, and of names, that are not in a list of all because nobody can read them."""
    if damaged := home.library.catalogs.damaged(listed):
        names = ", ".join(text[:12] if digests.is_digest(text) else text for text in damaged[:5])
        home.on_wait(f"warning: {len(damaged):,} not listed, being damaged: {names}. See `holo check`.")


def not_used_for(duration: str | None, found: list[Details]) -> list[Details]:
    """Those that nobody has used for so long; all, if no duration is given."""
    if duration is None:
        return found
    latest = time.time() - parse_duration(duration, "--stale")
    return [item for item in found if (item.used or 0) < latest]


def _read(home: Home, *, look: bool) -> list[SpaceDetails]:
    names, beside = home.spaces.names(), home.spaces.beside()
    known = recall(home.spaces) if len(names) >= _MANY else {}
    files = {name: files_of(home.spaces, name, beside) for name in names}
    unread = {name for name in names if name not in known or known[name].files != files[name]}
    workers = home.workers if len(unread) >= _MANY and pool.forks(home.workers) else 1
    parts = [sorted(unread)[start::workers] for start in range(workers)]

    def read(part: list[str]) -> list[Kept]:
        spaces = home.spaces.spaces(part)
        return [Kept(files[space.name], space, _blueprint(home.spaces, space, beside)) for space in spaces]

    fresh = {item.space.name: item for part in pool.run(read, parts, workers) for item in part}
    if len(fresh) >= _MANY:
        keep(home.spaces, (known | fresh).values())
    # Of those that were to be read, some are other users'.
    found = [fresh.get(name) if name in unread else known[name] for name in names]
    items = [item for item in found if item is not None]
    spaces = [item.space for item in items]
    seen = _looked_at(home, spaces) if look else spaces
    return [_describe(home.spaces, space, item.blueprint, beside) for space, item in zip(seen, items, strict=True)]


def _looked_at(home: Home, spaces: list[Space]) -> list[Space]:
    """The spaces as their directories show them."""
    workers = home.workers if len(spaces) >= _MANY and pool.forks(home.workers) else 1
    if workers == 1:
        return [*glance(home.library, spaces)]

    def look(number: int) -> tuple[int, list[State]]:
        return number, [space.state for space in glance(home.library, spaces[number::workers])]

    states = dict(pool.run(look, range(workers), workers))
    seen = [states[number % workers][number // workers] for number in range(len(spaces))]
    return [space if space.state == now else space._replace(state=now) for space, now in zip(spaces, seen, strict=True)]


def _blueprint(tree: Holotree, space: Space, beside: Set[str]) -> str | None:
    return blueprint_of(tree, space) if f"{space.name}{ORIGIN}" in beside else None


def _describe(tree: Holotree, space: Space, blueprint: str | None, beside: Set[str]) -> SpaceDetails:
    restored = used = time_of(space.restored)
    made = (time_of(space.made) if space.made != space.restored else restored) or restored
    if f"{space.name}{USED}" in beside:
        used = max(filter(None, (restored, tree.last_used(space.name))), default=None)
    folder: str | None = os.path.dirname(space.path)
    if folder == tree.path:
        folder = os.path.dirname(blueprint) if blueprint is not None else None
    return SpaceDetails(space, made, used or made, space.own if space.own >= 0 else None, blueprint, folder)


def time_of(text: str) -> float | None:
    """The seconds of the epoch of a time as holo writes it; ``None`` if it is none."""
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).timestamp() if text.endswith("Z") else None
    return None


def _text(moment: float | None) -> str | None:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if moment is not None else None
