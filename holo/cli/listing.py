"""How lists of spaces and catalogs look: columns that fit a terminal of 80, with ages instead of times."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from holo import streams
from holo.cli import output, render

if TYPE_CHECKING:
    from holo import CatalogDetails, SpaceDetails, SparesReport

_AGES = ((365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_COLOURS = {"missing": "red", "damaged": "red", "unfinished": "yellow", "changed": "yellow"}


class Order(enum.StrEnum):
    """By what a list is sorted."""

    NAME = "name"
    AGE = "age"
    USED = "used"
    SIZE = "size"
    STATE = "state"


def spaces(found: Sequence[SpaceDetails], order: Order, as_json: bool, spare: SparesReport | None = None) -> None:
    """``order``: the oldest, the longest unused or the largest come first. ``spare``: what is listed after them."""
    keys = {
        Order.NAME: lambda item: item.space.name,
        Order.AGE: lambda item: item.made or 0,
        Order.USED: lambda item: item.used or 0,
        Order.SIZE: lambda item: -(item.exclusive or 0),
        Order.STATE: _state,
    }
    found = sorted(found, key=keys[order])
    if as_json:
        spaces = {"spaces": [item.to_json() for item in found]}
        render.document(spaces | spare.to_json() if spare is not None else spaces)
        return
    now = time.time()
    render.columns(
        ("SPACE", "STATE", "AGE", "USED", "EXCLUSIVE", "OF", "PATH"),
        [
            (
                item.space.name,
                _state(item),
                age(item.made, now),
                age(item.used, now),
                "-" if item.exclusive is None else render.size(item.exclusive),
                _origin(item),
                _short(item.space.path),
            )
            for item in found
        ],
        flexible=(5, 6),
        paint=(1, lambda text: output.coloured(text, _COLOURS.get(text.strip()))),
    )
    if spare is not None:
        print()
        spares(spare, as_json=False)


def spares(report: SparesReport, as_json: bool) -> None:
    """A line for each spare, and for each catalog of which more are to be kept than there are."""
    if as_json:
        render.document(report.to_json())
        return
    if streams.is_quiet():
        return
    lacking = {
        digest: count - sum(item.digest == digest for item in report.spares) for digest, count in report.keep.items()
    }
    render.columns(
        ("SPARE OF", "DIGEST", "STATE", "BY", "EXCLUSIVE", "PATH"),
        [
            (
                item.catalog,
                item.digest[:12],
                item.state,
                item.used,
                "-" if item.exclusive is None else render.size(item.exclusive),
                _short(item.path),
            )
            for item in report.spares
        ]
        + [
            (report.names[digest], digest[:12], "to be made", "-", "-", "-")
            for digest, count in lacking.items()
            for _ in range(count)
        ],
        flexible=(0, 5),
        paint=(2, lambda text: output.coloured(text, _COLOURS.get(text.strip()))),
    )
    if report.is_filling:
        print("a process in the background is making spares")


def catalogs(found: Sequence[CatalogDetails], order: Order, as_json: bool) -> None:
    keys = {
        Order.NAME: lambda item: item.summary.name or "~",
        Order.AGE: lambda item: item.made or 0,
        Order.USED: lambda item: item.used or 0,
        Order.SIZE: lambda item: -(item.summary.bytes if item.exclusive is None else item.exclusive),
        Order.STATE: lambda item: -len(item.spaces),
    }
    found = sorted(found, key=keys[order])
    if as_json:
        render.document({"catalogs": [item.to_json() for item in found]})
        return
    now = time.time()
    is_measured = any(item.exclusive is not None for item in found)
    header = ("CATALOG", "DIGEST", "FILES", "SIZE", *(["EXCLUSIVE"] if is_measured else []), "AGE", "USED", "SPACES")
    rows = [
        (
            item.summary.name or "-",
            item.summary.digest[:12],
            f"{item.summary.files:,}",
            render.size(item.summary.bytes),
            *([render.size(item.exclusive or 0)] if is_measured else []),
            age(item.made, now),
            age(item.used, now),
            f"{len(item.spaces):,}",
            _short(item.blueprints[0] if item.blueprints else item.summary.prefix),
        )
        for item in found
    ]
    render.columns((*header, "FROM"), rows, flexible=(0, len(header)))


def age(moment: float | None, now: float) -> str:
    """How long ago that is: ``3 d``."""
    if moment is None:
        return "-"
    passed = max(0, int(now - moment))
    for length, unit in _AGES:
        if passed >= length:
            return f"{passed // length} {unit}"
    return "0 s"


def _state(item: SpaceDetails) -> str:
    state = item.space.shown_state
    return "unfinished" if state == "restoring" else state


def _origin(item: SpaceDetails) -> str:
    """What a space was made of. A name that means another catalog by now does not tell."""
    if item.blueprint is not None:
        return _short(item.blueprint)
    return f"{item.space.digest[:12]}, once {item.space.catalog}" if item.is_former else item.space.catalog or "-"


@cache
def _home() -> str:
    return os.path.expanduser("~")


def _short(path: str) -> str:
    """A path with ``~`` for the user's home."""
    home = _home()
    return f"~{path[len(home) :]}" if home != "/" and path.startswith(home + os.sep) else path
