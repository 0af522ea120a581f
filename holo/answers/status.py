"""The status of a space: what has changed in it since the last restore, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from holo import history
from holo.answers.changes import Changes
from holo.answers.references import opened
from holo.answers.tree import Tree
from holo.errors import NotFound
from holo.glance import glance
from holo.history import Event
from holo.hololib import CatalogRef
from holo.home import Home
from holo.relocation.project import imports_elsewhere
from holo.space import Space


class SpaceStatus(NamedTuple):
    """What is known of a space, and what has changed in it."""

    space: str
    path: str
    state: str
    """as `holo list` has it, but an edit in place is seen as well: ``pristine``, ``changed``, ``missing``,
    ``restoring``, ``moved``, ``copied``, ``damaged``, or ``unknown`` if its catalog is gone"""
    catalog: str
    digest: str
    blueprint: str | None
    """the file that it was built from, if it was"""
    made: str | None
    """when: UTC, ISO 8601; ``None`` if the record is damaged, and its history gone"""
    restored: str | None
    """when the last restore ended"""
    changes: Changes | None
    """``None`` if nothing was compared: ``reason`` says why"""
    reason: str | None
    unread: tuple[str, ...]
    """directories and files in the space that could not be read"""
    warnings: tuple[str, ...] = ()
    """that it imports code from another checkout of its project; that the name of its catalog means another by now"""

    def to_json(self) -> dict[str, Any]:
        """The document that `holo status --json` prints."""
        return {
            **self._asdict(),
            "changes": self.changes.to_json() if self.changes is not None else None,
            "unread": list(self.unread),
            "warnings": list(self.warnings),
        }


class SpaceHistory(NamedTuple):
    """What has happened to a space."""

    space: str
    path: str
    blueprint: str | None
    """the file that it was built from, if it was"""
    events: tuple[Event, ...]
    """the oldest first"""

    def to_json(self) -> dict[str, Any]:
        """The document that `holo history --json` prints."""
        return {**self._asdict(), "events": [event._asdict() for event in self.events]}


def history_of(home: Home, space: Space) -> SpaceHistory:
    """What is known of it. Where the history is lost, the record still has the last restore."""
    known = history.events(home.spaces.history_path(space.name))
    if not known and space.restored:
        known = [Event(space.restored, "restored", space.catalog, space.digest, space.used, 0, 0, "")]
    return SpaceHistory(space.name, space.path, _blueprint_of(home, space), tuple(known))


def status_of(home: Home, space: Space) -> SpaceStatus:
    """Look at all of a space: one stat per file, and what the last restore does not vouch for is read."""
    known = history.events(home.spaces.history_path(space.name))
    status = SpaceStatus(
        space=space.name,
        path=space.path,
        state=space.shown_state,
        catalog=space.catalog,
        digest=space.digest,
        blueprint=_blueprint_of(home, space),
        made=known[0].time if known and known[0].what == "made" else space.made or None,
        restored=space.restored or None,
        changes=None,
        reason=None,
        unread=(),
    )
    if space.shown_state == "pristine" and (not os.path.isdir(space.path) or os.path.islink(space.path)):
        is_replaced = os.path.lexists(space.path)
        return status._replace(state="missing", reason=_REPLACED if is_replaced else _REASONS["missing"])
    if status.state == "pristine" and not home.spaces.is_seen(space):
        [seen] = glance(home.library, [space])
        return status._replace(state=seen.state, reason=f"{_UNSEEN}: `holo run {space.name} -- holo status`")
    status = status._replace(warnings=(*imports_elsewhere(space.path, space.project), *_moved_on(home, space)))
    if status.state != "pristine":
        return status._replace(reason=_UNMOUNTED if space.is_unmounted else _REASONS.get(status.state))
    try:
        with opened(home, space) as [tree]:
            if tree.is_pristine or tree.recorded is None:
                return status._replace(changes=Changes((), (), 0))
            from holo.answers.compare import compare

            changes = compare(Tree(tree.recorded, tree.contents, tree.recorded.prefix, tree.ref), tree, times=True)
            return status._replace(state="changed", changes=changes, unread=tree.unread)
    except NotFound as error:
        return status._replace(state="unknown", reason=error.message)


def _blueprint_of(home: Home, space: Space) -> str | None:
    if not os.path.lexists(home.spaces.origin_path(space.name)):
        return None
    from holo.blueprints.memory import blueprint_of

    return blueprint_of(home.spaces, space)


def _moved_on(home: Home, space: Space) -> Iterator[str]:
    now = home.library.catalogs.moved_on(CatalogRef(space.catalog, space.digest))
    if now is not None:
        yield (
            f"{space.catalog} means another catalog by now, {now[:12]}: "
            f"`holo init {space.name} {space.catalog} --force` turns the space into that, "
            f"and `holo diff {space.digest[:12]} {space.catalog}` shows what differs"
        )


_UNSEEN = "only `holo run` and `holo shell` see what is in it"

_REPLACED = "its directory is gone, and something else is there: remove that, and `holo restore` makes it again"

_UNMOUNTED = "it is not mounted: the system was started again, say; `holo restore` mounts it, pristine"

_REASONS = {
    "missing": "its directory is gone; `holo restore` makes it again",
    "restoring": "its last restore has not ended; the next one ends it",
    "moved": "its home was moved, and its files still name the old path; `holo restore` makes it right",
    "copied": "it belongs to another home, from which this one was copied",
    "damaged": "what holo knew about it is damaged; `holo check --repair` writes it anew",
}
