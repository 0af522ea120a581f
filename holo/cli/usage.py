"""How disk usage looks: columns, bars on a terminal, and a picture."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

from holo.cli import output, render
from holo.errors import printable

if TYPE_CHECKING:
    from holo import Usage, UsageReport
    from holo.cli.chart import Bar

_WITH = {
    "library": "the library",
    "golden": "golden trees",
    "spaces": "other spaces and spares",
    "ephemeral": "throw-away environments",
    "other": "other paths",
    "elsewhere": "files that are not holo's",
}
_NAMES = {
    "library": "library: blobs",
    "links": "library: link forms",
    "spares": "spares",
    "ephemeral": "throw-away environments",
    "other": "the rest of the home",
    "total": "total",
}


def show(report: UsageReport, *, detailed: bool, as_json: bool) -> None:
    """``detailed``: also with whom each shares how much."""
    if as_json:
        render.document(report.to_json())
        return
    shown = [*report.items, *([report.total] if len(report.items) != 1 or not detailed else [])]
    _table(shown)
    for item in report.items if detailed else ():
        shared = [(size, _WITH[kind]) for kind, size in item.shared._asdict().items() if size]
        if shared:
            print(f"\n{printable(_name(item))} shares")
            sizes = [render.size(size) for size, _ in shared]
            for size, (_, whom) in zip(sizes, shared, strict=True):
                print(f"  {size.rjust(max(map(len, sizes)))} with {whom}")
    if sys.stdout.isatty():
        _bars(report)
    inline = report.total.inline
    if inline:
        _note(f"{render.size(inline)} more are in small files that the filesystem keeps in its metadata")
    for note in report.notes:
        _note(note)


def _note(text: str) -> None:
    from holo.cli import chart

    print("\n" + textwrap.fill(printable(text), chart.width()))


def _name(item: Usage) -> str:
    return _NAMES.get(item.kind) or f"{item.kind} {item.name}"


def _table(items: list[Usage]) -> None:
    rows = [
        (
            f"{item.files:,}",
            *map(render.size, (item.logical, item.physical, item.exclusive, item.physical - item.exclusive)),
            _name(item),
        )
        for item in items
    ]
    render.columns(("FILES", "SIZE", "ON DISK", "EXCLUSIVE", "SHARED", "WHAT"), rows, right=range(5))


def _bars(report: UsageReport) -> None:
    """What each has on the disk: first, in colour, what it alone has."""
    from holo.cli import chart

    most = max((item.physical for item in report.items), default=0)
    if not most:
        return
    names = [_shortened(printable(_name(item))) for item in report.items]
    room = max(10, chart.width() - max(map(len, names)) - len("   999.9 MB"))
    print()
    for name, item in zip(names, report.items, strict=True):
        exclusive = round(item.exclusive / most * room)
        shared = round(item.physical / most * room) - exclusive
        drawn = (output.coloured(chart.bar(exclusive), "cyan") if exclusive else "") + chart.light_bar(shared)
        print(f"{name:<{max(map(len, names))}}  {drawn} {render.size(item.physical)}")


def _shortened(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"...{name[3 - most :]}"


def picture(report: UsageReport) -> str:
    """The same bars as SVG."""
    from holo.cli import chart

    note = "On the disk. Blue: what would be free if it alone were removed. Grey: shared."
    return chart.draw(f"{render.size(report.total.physical)} on the disk", [_bar(item) for item in report.items], note)


def _bar(item: Usage) -> Bar:
    from holo.cli import chart

    parts = [("holo", item.exclusive), ("other", item.physical - item.exclusive)]
    return chart.Bar(
        _shortened(printable(_name(item))),
        [(color, size) for color, size in parts if size],
        render.size(item.physical),
        f"{render.size(item.exclusive)} exclusive",
        printable(item.path),
    )
