"""Bars in the terminal and pictures; and how a benchmark looks."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from holo.cli import output, render
from holo.errors import NotFound, UsageError, os_errors_as, printable
from holo.files import write_output
from holo.streams import Unwritten
from holo.walk import absolute

if TYPE_CHECKING:
    from holo import BenchReport

_PAGES = (".html", ".htm")
_BLOCKS = " ▏▎▍▌▋▊▉█"

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .note { fill: #59636e }
  .number { font-variant-numeric: tabular-nums }
  .holo { fill: #0969da }
  .other { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .note { fill: #9198a1 }
    .holo { fill: #4493f8 }
    .other { fill: #656c76 }
  }
"""


def table(report: BenchReport) -> None:
    """What was measured, and what that means beside the full copy."""
    print(f"{_title(report)}\n")
    rows = [
        (
            result.name,
            f"{result.used or '-'}{' *' if result.reason else ''}",
            f"{result.seconds:.3f}",
            f"{result.files_per_second:,.0f}",
            f"{result.speedup:.1f}x",
        )
        for result in report.results
    ]
    render.columns(("WHAT", "USED", "SECONDS", "FILES/S", "SPEED-UP"), rows, right=(2, 3, 4))
    print()
    reasons = dict.fromkeys(result.reason for result in report.results if result.reason)
    for line in (_note(report), *(f"* {printable(reason)}" for reason in reasons)):
        print(textwrap.fill(line, width()))


def bars(report: BenchReport) -> None:
    """Seconds as bars, as wide as the terminal; holo's in colour where there are colours."""
    slowest = max(result.seconds for result in report.results)
    names = max(len(result.name) for result in report.results)
    room = max(10, width() - names - len(f"   {slowest:.3f} s"))
    print()
    for result in report.results:
        drawn = bar(result.seconds / slowest * room)
        drawn = output.coloured(drawn, "cyan" if result.is_holo else None)
        print(f"{result.name:<{names}}  {drawn} {result.seconds:.3f} s")


def width() -> int:
    return min(output.width(), 120)


def bar(length: float) -> str:
    """Blocks with a precision of one eighth, or hashes where blocks cannot be printed."""
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        return "#" * max(1, round(length))
    whole, eighths = divmod(max(1, round(length * 8)), 8)
    return "█" * whole + _BLOCKS[eighths].strip()


def light_bar(length: int) -> str:
    """Whole blocks that look lighter."""
    return ("░" if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" else ".") * length


def check(path: str) -> None:
    """Refuse a picture that could not be saved, before anything is measured."""
    folder = os.path.dirname(absolute(path))
    if not os.path.isdir(folder):
        raise NotFound(f"--output: there is no folder {folder}", "Make it first, or name another.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"--output: {path} is not a file", "Name a file, such as chart.svg.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--output: cannot write to {folder}", "Name another folder.")
    if not path.lower().endswith((".svg", *_PAGES)):
        raise UsageError(f"--output: {path!r} is neither SVG nor HTML by its name", "Let it end in .svg or .html.")


def save(svg: str, path: str) -> None:
    """Write the picture, all of it or nothing: as a page if the name ends as that of one."""
    is_page = path.lower().endswith(_PAGES)
    content = f"<!DOCTYPE html>\n<meta charset=utf-8>\n<title>holo</title>\n{svg}" if is_page else svg
    with os_errors_as(f"cannot write {path}", kind=Unwritten):
        write_output(path, content.encode())


class Bar(NamedTuple):
    """One line of a picture."""

    label: str
    parts: Sequence[tuple[str, float]]
    """colour (``holo`` or ``other``) and length of each, one beside the other"""
    number: str
    note: str
    tooltip: str


def draw(title: str, bars: Sequence[Bar], note: str) -> str:
    """SVG whose colours follow the reader's light or dark mode. It has no background of its own."""
    left, length, line = 210, 350, 24
    longest = max((sum(part for _, part in bar.parts) for bar in bars), default=0) or 1
    height = 72 + line * len(bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" width="760" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="12" y="26">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        top, end = 42 + line * number, float(left)
        lines.append(f'<text x="{left - 10}" y="{top + 15}" text-anchor="end">{escape(bar.label)}</text>')
        for color, part in bar.parts:
            width = max(1.0, part / longest * length)
            lines += [
                f'<rect class="{color}" x="{end:.1f}" y="{top + 3}" width="{width:.1f}" height="16" rx="2">',
                f"<title>{escape(bar.tooltip)}</title></rect>",
            ]
            end += width
        lines += [
            f'<text class="number" x="{end + 8:.1f}" y="{top + 15}">{escape(bar.number)}',
            f'<tspan class="note">({escape(bar.note)})</tspan></text>',
        ]
    lines += [f'<text class="note" x="12" y="{height - 10}">{escape(note)}</text>', "</svg>", ""]
    return "\n".join(lines)


def picture(report: BenchReport) -> str:
    """The picture of a benchmark."""
    bars = [
        Bar(
            result.name,
            [("holo" if result.is_holo else "other", result.seconds)],
            f"{result.seconds:.3f} s",
            f"{result.speedup:.1f}x{f', {result.used}' if result.used else ''}",
            result.command,
        )
        for result in report.results
    ]
    return draw(_title(report), bars, _note(report))


def _title(report: BenchReport) -> str:
    generated = "generated tree" if report.generated else "tree"
    return f"{generated} of {render.count(report.files, 'file')}, {render.size(report.bytes)}, on {report.filesystem}"


def _note(report: BenchReport) -> str:
    return f"Medians of whole commands. Speed-up: against {report.baseline}. Damaged: 1 % of the files."
