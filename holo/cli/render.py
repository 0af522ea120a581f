"""How results look: JSON for machines, lines and columns for people, progress on a terminal only.

Stdout carries results, stderr everything else. Rich is imported only to draw on a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from holo import streams
from holo.cli import output
from holo.errors import printable

if TYPE_CHECKING:
    from holo import (
        Adoption,
        CheckReport,
        CloneReport,
        Diagnosis,
        DryRun,
        Equipment,
        ExportReport,
        GcReport,
        HookReport,
        ImportReport,
        Problem,
        PullReport,
        PushReport,
        RecordReport,
        RemoteCheck,
        RemoteGc,
        RemoteName,
        RemoteStatus,
        RemovedWorktree,
        RestoreReport,
        Sbom,
        Traffic,
        UninstallReport,
        Use,
        VerifyReport,
        WorktreeReport,
    )


class _Report(Protocol):
    def to_json(self) -> dict[str, Any]: ...


Found = TypeVar("Found", bound=_Report)

_ROOMY, _TIGHT = (2, 10), (1, 8)


def document(value: object) -> None:
    """One JSON document. Names that are not UTF-8 are escaped as lone surrogates, as Python has them."""
    output.has_document = True
    print(json.dumps(value))


def result(line: str, *details: str) -> None:
    """What a command has done, in one line; with `-v` the details, with `-q` nothing."""
    if not streams.is_quiet():
        print("\n  ".join([line, *(details if output.is_verbose else ())]))


def raw(text: str) -> None:
    """Text for a shell, byte for byte."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text))


def report(
    found: Found, show: Callable[[Found], None], as_json: bool, warnings: Iterable[str] = (), *, is_done: bool = True
) -> None:
    """What a command has done, after its warnings; with `-q`, only those. ``is_done``: see :func:`output.reporting`."""
    for warning in warnings:
        warn(warning)
    with output.reporting(is_done=is_done):
        if as_json:
            document(found.to_json())
        elif not streams.is_quiet():
            show(found)


def warn(message: str) -> None:
    streams.say(message, output.coloured("warning:", "yellow", sys.stderr) + " ")


def count(number: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``1 directory``, ``2 directories``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def columns(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    flexible: Sequence[int] = (),
    paint: tuple[int, Callable[[str], str]] | None = None,
) -> None:
    """Aligned columns; the last one is as long as it needs to be, so that output can be cut and searched.

    ``right``: the columns that are aligned there. With ``flexible`` columns the whole fits the terminal: the longest of
    them are shortened in the middle, and the first column if need be. Output to a file or a pipe is not, since a
    program may search it. ``paint``: a column, and what colours its cells.
    """
    if not all("".join(row).isprintable() for row in rows):
        rows = [tuple(map(printable, row)) for row in rows]
    table = [header, *rows]
    longest = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths, gap = longest, 2
    if flexible and (most := output.terminal_width()) is not None:
        widths, gap = _fit(longest, flexible, most)
    too_long = [number for number, width in enumerate(widths) if width < longest[number]]
    form = (" " * gap).join(f"{{:{'>' if number in right else '<'}{width}}}" for number, width in enumerate(widths))
    lines = []
    for row in table:
        cells = [*row]
        for number in too_long:
            cells[number] = shortened(cells[number], widths[number])
        if paint is not None:
            cells[paint[0]] = paint[1](cells[paint[0]].ljust(widths[paint[0]]))
        lines.append(form.format(*cells).rstrip())
    print("\n".join(lines))


def _fit(longest: list[int], flexible: Sequence[int], most: int) -> tuple[list[int], int]:
    """Make the widest of the flexible columns narrower until all fit; if that is not enough, the first one, and then
    the gaps between all. Returns the widths and the gap."""
    for gap, narrowest in _ROOMY, _TIGHT:
        widths = [*longest]
        for columns in (flexible, (0,)):
            while sum(widths) + gap * (len(widths) - 1) > most:
                widest = max(columns, key=lambda index: widths[index])
                if widths[widest] <= narrowest:
                    break
                widths[widest] -= 1
        if sum(widths) + gap * (len(widths) - 1) <= most:
            break
    return widths, gap


def shortened(text: str, most: int) -> str:
    """A text without what is in its middle, if it is longer than that. Of a path, the end tells more."""
    if len(text) <= most:
        return text
    end = (most - 3) * 3 // 4 if text.startswith(("/", "~")) else (most - 2) // 2
    return f"{text[: most - 3 - end]}...{text[len(text) - end :]}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def recorded(report: RecordReport) -> None:
    result(
        f"recorded {report.name} ({report.digest[:12]}) in {report.seconds:.2f} s: {count(report.files, 'file')}, "
        f"{size(report.bytes)}{f', {report.relocated:,} hold its path' if report.relocated else ''}",
        f"from {printable(report.prefix)}",
        f"{count(report.directories, 'directory')}, {count(report.symlinks, 'symlink')}",
        f"{count(report.blobs_new, 'new blob')}, {report.blobs_deduplicated:,} in the library before",
        *([f"the project {printable(report.project)} moves along"] if report.project else []),
    )


def exported(report: ExportReport) -> None:
    names = ", ".join(name for name, _ in report.catalogs)
    result(
        f"exported {names} to {printable(report.file)} in {report.seconds:.2f} s: {size(report.bytes_written)}",
        f"{count(report.blobs, 'blob')}, {report.left_out:,} left out",
        f"{size(report.bytes_content)} of content",
        *([count(report.signatures, "signature")] if report.signatures else []),
    )


def listed(found: Sbom) -> None:
    name, digest = found.catalog
    what = f"{name} ({digest[:12]})" if found.space is None else f"space {found.space} as it is now"
    print(f"wrote {count(found.components, 'component')} of {what} to {printable(found.file or '-')}")


def imported(report: ImportReport) -> None:
    names = ", ".join(f"{name} ({digest[:12]})" for name, digest in report.catalogs)
    result(
        f"imported {names} from {printable(report.file)}: {count(report.blobs_new, 'new blob')}",
        f"{report.blobs_deduplicated:,} in the library before",
    )


def verified(report: VerifyReport) -> None:
    for catalog in report.catalogs:
        print(f"{catalog.name or '-'} ({catalog.digest[:12]}) in {printable(report.path)}")
        key = f"{catalog.key_type} {catalog.fingerprint}"
        if catalog.problem is not None:
            print(f"  refused: {printable(catalog.problem)}")
        elif catalog.principal is not None:
            print(f"  signed by {printable(catalog.principal)} with {key}")
        elif catalog.key_type is not None:
            print(f"  signed with {key}; no file of allowed signers says whose that is")
        else:
            print("  not signed, and no file of allowed signers demands it")
    for problem in report.damaged:
        print(f"damaged: {printable(problem)}")
    left_out = f"; {report.left_out:,} left out" if report.left_out else ""
    sound = f"{len(report.damaged):,} of them damaged" if report.damaged else "all sound"
    print(f"{count(report.blobs, 'blob')}, {size(report.bytes)}, {sound}{left_out}, in {report.seconds:.2f} s")


def pushed(report: PushReport) -> None:
    """What was sent, or would be."""
    names = " and ".join(f"{ref.name} ({ref.digest[:12]})" for ref in report.catalogs)
    verb = "would push" if report.dry_run else "pushed"
    result(
        f"{verb} {names} to {printable(report.remote)} in {report.seconds:.2f} s: {count(report.blobs_sent, 'blob')} "
        f"({size(report.bytes_content)})",
        f"{count(report.packs, 'pack')}, {count(report.blobs_known, 'blob')} there already",
        _traffic(report.traffic),
    )


def pulled(report: PullReport) -> None:
    """What has come, or would."""
    name, digest = report.catalog
    verb = "would pull" if report.dry_run else "pulled"
    signed = f", signed by {printable(report.signed_by)}" if report.signed_by else ""
    to_fetch = f" ({size(report.bytes_to_fetch)})" if report.blobs_new else ""
    result(
        f"{verb} {name} ({digest[:12]}) from {printable(report.remote)} in {report.seconds:.2f} s: "
        f"{count(report.blobs_new, 'blob')}{to_fetch}{signed}",
        f"{count(report.blobs_known, 'blob')} here already",
        _traffic(report.traffic),
    )


def _traffic(traffic: Traffic) -> str:
    return f"{count(traffic.requests, 'request')}, {size(traffic.sent)} sent, {size(traffic.received)} received"


def remote_names(names: list[RemoteName]) -> None:
    rows = [
        (name.name, name.kind, name.digest[:12], name.time or "-", "yes" if name.signed else "no")
        if name.digest is not None
        else (name.name, name.kind, str(name.problem), "-", "-")
        for name in names
    ]
    columns(("NAME", "KIND", "CATALOG", "SINCE", "SIGNED"), rows)


def remote_status(status: RemoteStatus) -> None:
    packs = f"{count(status.packs, 'pack')}, {size(status.bytes)}"
    print(f"{printable(status.remote)}: {count(status.catalogs, 'catalog')}, {packs}")
    print(f"{count(status.names, 'name')}, {status.keys:,} for keys of blueprints")
    if status.garbage:
        print(f"{count(status.garbage, 'object')} that nothing needs, for `holo remote gc`")


def remote_checked(found: RemoteCheck, *, is_repair: bool) -> None:
    for problem in found.problems:
        print(f"{printable(problem.key)}: {printable(problem.what)}")
    what = "read" if found.read else "looked for"
    print(
        f"{what} {count(found.packs, 'pack')} of {count(found.catalogs, 'catalog')}, {count(found.names, 'name')} "
        f"in {found.seconds:.2f} s"
    )
    if not found.problems:
        is_empty = not (found.names or found.catalogs or found.packs)
        print("nothing was pushed there; a remote may be at another path" if is_empty else "all is well")
    else:
        print(count(len(found.problems), "problem"))
        before = "`holo remote check --repair` removes what nobody can use; then"
        if is_repair:
            before = f"removed {count(len(found.removed), 'object')};"
        print(f"{before} push their catalogs again from a library that has them")


def remote_collected(report: RemoteGc) -> None:
    verb = "would remove" if report.dry_run else "removed"
    print(f"{verb} {count(report.removed, 'object')} ({size(report.removed_bytes)}) from {printable(report.remote)}")
    if report.waiting:
        print(f"{count(report.waiting, 'object')} ({size(report.waiting_bytes)}) that nothing needs, kept for now")


def cloned(report: CloneReport) -> None:
    ways = {"reflinked": report.reflinked, "hardlinked": report.hardlinked, "copied": report.copied}
    shown = ", ".join(f"{number:,} {method}" for method, number in ways.items() if number) or "none"
    details = []
    if report.total is not None and report.symlinks is not None and report.directories is not None:
        details = [
            f"{count(report.total, 'file')}: {shown}",
            f"{report.relocated:,} relocated",
            f"{count(report.symlinks, 'symlink')}, {count(report.directories, 'directory')}",
            f"{size(report.bytes_total or 0)} in all, {size(report.bytes_written)} written",
        ]
    shared = [f"{size(report.bytes_shared)} shared"] if report.bytes_shared else []
    copied = [f"{size(report.bytes_written)} copied"] if report.copied > report.relocated else []
    patched = [f"{count(report.relocated, 'file')} patched"] if report.relocated else []
    result(
        f"cloned {printable(report.source)} to {printable(report.path)} in {report.seconds:.2f} s: "
        f"{', '.join([*shared, *copied, *patched]) or report.used}",
        *details,
        f"{report.used}: {printable(report.reason)}" if report.reason else report.used,
    )
    for old, new, files in report.mapped:
        print(f"  {printable(old)} is {printable(new)} in {count(files, 'file')} of it")
    for path in report.also:
        print(f"  {printable(path)} was cloned as well")


def worktree_added(report: WorktreeReport) -> None:
    names = [printable(os.path.relpath(item.path, report.path)) for item in report.equipment]
    made = ", ".join(f"{name} {item.how}" for name, item in zip(names, report.equipment, strict=True))
    branch = f" on {printable(report.branch)}" if report.branch else ""
    result(
        f"worktree {printable(report.path)}{branch} ready in {report.seconds:.2f} s: {made or 'nothing to add'}",
        *(_equipped(name, item) for name, item in zip(names, report.equipment, strict=True)),
    )


def _equipped(name: str, item: Equipment) -> str:
    way = f" ({item.used} in {item.seconds:.2f} s)" if item.used else ""
    space = f" as space {item.space}" if item.space is not None else ""
    return f"{name} {item.how} from {printable(item.origin)}{space}{way}"


def worktree_removed(report: RemovedWorktree) -> None:
    gone = "" if report.was_there else ", whose directory was gone"
    spaces = f", and {'spaces' if len(report.spaces) > 1 else 'space'} {', '.join(report.spaces)}"
    result(f"removed worktree {printable(report.path)}{gone}{spaces if report.spaces else ''}")


def hooked(report: HookReport, *, is_removal: bool) -> None:
    done = "removed from" if is_removal else "installed in"
    result(f"{done} {printable(report.path)}" if report.changed else f"{printable(report.path)} is as it should be")


def restored(report: RestoreReport) -> None:
    ways = {
        "reflinked": report.reflinked,
        "hardlinked": report.hardlinked,
        "copied": report.copied,
        "unchanged": report.unchanged,
    }
    shown = ", ".join(f"{number:,} {method}" for method, number in ways.items() if number) or "none"
    result(
        f"{report.space} {output.coloured('ready', 'green')} in {report.seconds:.2f} s: {_outcome(report)}",
        f"{report.catalog} ({report.digest[:12]}) at {printable(report.path)}",
        f"{count(report.total, 'file')}: {shown}{f'; {report.removed:,} removed' if report.removed else ''}",
        f"{report.relocated:,} relocated, {count(report.symlinks, 'symlink')}, "
        f"{count(report.directories, 'directory')}",
        f"{size(report.bytes_total)}: {size(report.bytes_shared)} shared, {size(report.bytes_written)} written",
        _way(report) + (", a spare" if report.is_spare else ""),
        *(["the project {} is {} here".format(*map(printable, report.project))] if report.project else []),
    )


def _outcome(report: RestoreReport) -> str:
    """What it took, in a few words."""
    removed = [f"{report.removed:,} removed"] if report.removed else []
    if report.unchanged:
        made = report.total - report.unchanged
        kept = f"{count(report.unchanged, 'file')} unchanged"  # symlinks and modes may have been mended all the same
        return ", ".join([f"{count(made, 'file')} made", *removed] if made else removed or [kept])
    shared = [f"{size(report.bytes_shared)} shared"] if report.reflinked or report.hardlinked else []
    copied = [f"{size(report.bytes_written)} copied"] if report.copied > report.relocated else []
    patched = [f"{count(report.relocated, 'file')} patched"] if report.relocated else []
    project = [f"for the project {printable(report.project[1])}"] if report.project else []
    return ", ".join([*shared, *copied, *patched, *removed, *project]) or count(report.total, "file")


def _way(report: RestoreReport) -> str:
    """How files were made. The strategy of the report is that of the restore which made them."""
    if report.unchanged == report.total:
        return "no file had to be made"
    reason = report.strategy.reason
    return report.strategy.used.value + (f" ({printable(reason)})" if reason else "")


def planned(plan: DryRun) -> None:
    """A dry run: one line per change, then a summary."""
    changes = plan.plan.to_json(plan.strategy.used)
    lines = [("remove", path) for path in changes["remove"]]
    lines += [("directory", path) for path in changes["directories"]]
    lines += [(item["how"], item["path"]) for item in changes["files"]]
    lines += [("symlink", path) for path in changes["symlinks"]]
    for what, path in lines:
        print(f"{what:<10} {printable(path)}")
    print(
        f"space {plan.space} at {printable(plan.path)}: {count(len(lines), 'change')}, "
        f"{count(changes['unchanged'], 'file')} unchanged; nothing was done"
    )


def log(data: bytes, as_json: bool) -> None:
    """The log of a build. On a terminal control characters are escaped: it is what programs from anywhere printed."""
    text = data.decode(errors="replace")
    if as_json:
        document({"log": text})
        return
    for line in text.replace("\r", "\n").splitlines():
        print(printable(line.expandtabs()))


def collected(report: GcReport) -> None:
    """What a gc removed, or would."""
    verb = "would remove" if report.dry_run else "removed"
    for space in report.spaces:
        print(f"{verb} space {space.name}, which was at {printable(space.path)}")
    for use in report.catalogs:
        print(f"{verb} catalog {_use(use)}")
    counts = (
        (report.blobs, "blob"),
        (report.links, "link form"),
        (report.golden, "golden tree"),
        (report.drafts, "draft"),
        (report.locks, "lock file"),
        (report.layers, "unused layer"),
        (report.spares, "spare"),
    )
    removed = ", ".join(count(number, noun) for number, noun in counts if number)
    if removed or not (report.spaces or report.catalogs):
        print(f"{verb} {removed or 'nothing'}")
    print(
        f"{size(report.bytes_freed)} {'would be free' if report.dry_run else 'freed'}"
        f"{f', {size(report.bytes_shared)} more with the last file that shares them' if report.bytes_shared else ''}; "
        f"blobs and link forms occupy {size(report.bytes_left)}"
    )
    for use in report.kept:
        held = f"{', '.join(use.spaces)} {'holds' if len(use.spaces) == 1 else 'hold'} it"
        print(f"kept catalog {_use(use)}: {held if use.spaces else 'it or its name belongs to another user'}")
    if report.others:
        warn(f"left alone {count(report.others, 'file')} of other users, which they or root can collect")
    for path in report.unknown:
        warn(f"not of the library, and left alone: {path}")


def _use(use: Use) -> str:
    return f"{', '.join(use.names) or '-'} ({use.digest[:12]}), last used {use.to_json()['used']}"


def uninstalled(report: UninstallReport) -> None:
    """What was removed, or would be, and what stays."""
    verb = "would remove" if report.dry_run else "removed"
    for path in report.removed:
        print(f"{verb} {printable(path)}")
    for space in report.spaces:
        print(f"{verb} space {space.name} at {printable(space.path)}")
    if not report.removed and not report.spaces:
        print(f"{verb} nothing")
    for path, why in report.left.items():
        print(f"left {printable(path)}: {printable(why)}")


_MOST_ALIKE, _ALIKE_SHOWN = 20, 10
"""Of problems that differ in nothing but their paths, how many are printed; of more, how many."""


def _sort_of_problem(problem: Problem) -> tuple[str, ...]:
    """What is the same in problems of which a few are enough to see."""
    kind = "prepared tree" if problem.kind == "golden" else problem.kind
    return (kind, problem.what, *problem.catalogs, "", *problem.spaces, "", problem.repaired or "")


def _print_problem(problem: Problem) -> None:
    print(f"{_sort_of_problem(problem)[0]} {printable(problem.path)}: {printable(problem.what)}")
    if problem.catalogs:
        print(f"  catalogs: {', '.join(problem.catalogs)}; spaces: {', '.join(problem.spaces) or 'none'}")
    if problem.quarantined is not None:
        print(f"  now {printable(problem.quarantined)}")
    if problem.repaired is not None:
        print(f"  {printable(problem.repaired)}")


def _may_write_at(problem: Problem) -> bool:
    """Whether this user may put something in the place of what is damaged, or lost with the folder that it was in."""
    folder = os.path.dirname(problem.path)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return problem.kind != "space" and os.access(folder, os.W_OK)


def checked(report: CheckReport, *, is_repair: bool) -> None:
    """Every problem in a few lines, but of many alike only some; then what was read, and the verdict."""
    for warning in report.warnings:
        warn(warning)
    for alike, group in groupby(report.problems, _sort_of_problem):
        problems = [*group]
        for problem in problems if len(problems) <= _MOST_ALIKE else problems[:_ALIKE_SHOWN]:
            _print_problem(problem)
        if len(problems) > _MOST_ALIKE:
            print(f"... {len(problems) - _ALIKE_SHOWN:,} more like the last {alike[0]} (--json shows all)")
    compared = f", and all of {' and '.join(report.compared)}," if report.compared else ""
    print(
        f"read {count(report.catalogs, 'catalog')}, {count(report.blobs, 'blob')}, {count(report.links, 'link form')}, "
        f"{count(report.golden, 'prepared tree')} and what is known of {count(report.spaces, 'space')}{compared} "
        f"in {report.seconds:.2f} s"
    )
    if report.garbage_files:
        print(f"{count(report.garbage_files, 'file')} ({size(report.garbage_bytes)}) that no catalog needs")
    left = [problem.kind for problem in report.problems if problem.repaired is None]
    if not report.problems:
        print("all is well")
    elif left:
        print(f"{count(len(report.problems), 'problem')}, {len(report.problems) - len(left):,} repaired")
        if "space" in left:
            print("`holo restore --space NAME --verify` brings a space back to its catalog")
        if not is_repair and {*left} != {"space"}:
            who = "" if any(map(_may_write_at, report.problems)) else ", by a user who may write to the library,"
            where = "also in a library, bundle or folder: `--from PATH`"
            print(f"`holo check --repair`{who} looks for intact copies, {where}")
        if is_repair and {"blob", "catalog"} & {*left}:
            print(
                "what is lost comes back with `--from PATH`, or when it is imported, pulled or recorded again; "
                "`holo catalogs REF --remove` gives it up"
            )
    else:
        print(f"{count(len(report.problems), 'problem')}, all repaired")


def adopted(adoptions: list[Adoption]) -> None:
    """What belongs to this home from now on, what does not and why, and what follows from that."""
    for item in adoptions:
        space = f"space {item.space} ({item.catalog}) at {printable(item.path)}"
        print(f"{space} belongs to this home from now on" if item.refused is None else f"{space} was not adopted")
        if item.refused is not None:
            print(f"  {printable(item.refused)}")
    if any(item.refused is None for item in adoptions):
        print("the next restore of each removes what is in the directory and not in the catalog")
    if not adoptions:
        print("nothing to adopt: no space elsewhere is known from a copied file only")


_USES = {
    "reflink": "smart, reflink",
    "hardlink": "hardlink",
    "snapshot": "smart, reflink",
    "copy": "smart, copy",
    "overlay": "overlay",
    "view": "overlay, in holo run",
    "stubs": "run --ephemeral",
}
"""Which strategies, or what else, each way is for."""


def diagnosis(found: Diagnosis, golden: int) -> None:
    """``golden``: how many golden trees the library has."""
    report = found.to_json()
    for place in ("library", "target"):
        print(f"{place:<8} {printable(report[place]['path'])} ({report[place]['filesystem']})")
    print()
    rows = []
    for name, able in report["capabilities"].items():
        speed = able["files_per_second"]
        rows.append(
            (
                "kernel copy" if name == "copy" else name,
                "yes" if able["available"] else "no",
                f"{speed:,.0f}" if speed else "",
                _USES[name],
                able["reason"] or "",
            )
        )
    columns(("CAN", "", "FILES/S", "FOR", "WHY NOT"), rows)
    if golden:
        print(f"\n{count(golden, 'golden tree')} in the library, for spaces in one snapshot")
    for line in report["advice"]:
        print(f"\n{line}")
