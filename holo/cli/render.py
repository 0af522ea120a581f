"""How results look: JSON for machines, lines and columns for people, progress on a terminal only.

Stdout carries results, stderr everything else. Rich is imported only to draw on a terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from holo import streams
from holo.errors import printable

if TYPE_CHECKING:
    from typing import TextIO

    from holo import (
        Adoption,
        CheckReport,
        CloneReport,
        Diagnosis,
        DryRun,
        ExportReport,
        GcReport,
        HookReport,
        ImportReport,
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


_NARROWEST = 10
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36}


def document(value: object) -> None:
    """One JSON document. Names that are not UTF-8 are escaped as lone surrogates, as Python has them."""
    print(json.dumps(value))


def raw(text: str) -> None:
    """Text for a shell, byte for byte."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text))


def warn(message: str) -> None:
    streams.say(f"warning: {message}")


def count(number: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``1 directory``, ``2 directories``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def columns(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    flexible: Sequence[int] = (),
    paint: tuple[int, Callable[[str], str]] | None = None,
) -> None:
    """Aligned columns; the last one is as long as it needs to be, so that output can be cut and searched.

    With ``flexible`` columns the whole fits the terminal (``COLUMNS``, else 80 where there is none): the longest of
    them are shortened in the middle, and the first column if need be. ``paint``: a column, and what colours its cells.
    """
    table = [tuple(header), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if flexible:
        _fit(widths, flexible, shutil.get_terminal_size().columns)
    lines = []
    for row in table:
        cells = [shortened(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
        if paint is not None:
            cells[paint[0]] = paint[1](cells[paint[0]])
        lines.append("  ".join(cells).rstrip())
    print("\n".join(lines))


def _fit(widths: list[int], flexible: Sequence[int], most: int) -> None:
    """Make the widest of the flexible columns narrower until all fit; if that is not enough, the first one."""
    for columns in (flexible, (0,)):
        while sum(widths) + 2 * (len(widths) - 1) > most:
            widest = max(columns, key=lambda index: widths[index])
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1


def shortened(text: str, most: int) -> str:
    """A text without what is in its middle, if it is longer than that."""
    if len(text) <= most:
        return text
    end = (most - 2) // 2
    return f"{text[: most - 3 - end]}...{text[len(text) - end :]}"


def coloured(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """In colour, if what it is printed to (stdout) shows any."""
    stream = stream or sys.stdout
    if colour is None or not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def recorded(report: RecordReport) -> None:
    print(
        f"recorded {report.name} ({report.digest[:12]}) from {printable(report.prefix)} in {report.seconds:.2f} s\n"
        f"  {count(report.files, 'file')}, {count(report.directories, 'directory')}, "
        f"{count(report.symlinks, 'symlink')}, "
        f"{size(report.bytes)}\n"
        f"  {count(report.blobs_new, 'new blob')}, {report.blobs_deduplicated:,} in the library before\n"
        f"  {count(report.relocated, 'relocated file')}"
        f"{f'; the project {printable(report.project)} moves along' if report.project else ''}"
    )


def exported(report: ExportReport) -> None:
    names = ", ".join(name for name, _ in report.catalogs)
    print(
        f"exported {names} to {printable(report.file)} in {report.seconds:.2f} s\n"
        f"  {count(report.blobs, 'blob')}, {report.left_out:,} left out\n"
        f"  {size(report.bytes_content)} of content in {size(report.bytes_written)}"
    )
    if report.signatures:
        print(f"  {count(report.signatures, 'signature')}")


def listed(found: Sbom) -> None:
    name, digest = found.catalog
    print(f"wrote {count(found.components, 'component')} of {name} ({digest[:12]}) to {printable(found.file or '-')}")


def imported(report: ImportReport) -> None:
    for name, digest in report.catalogs:
        print(f"imported {name} ({digest[:12]}) from {printable(report.file)}")
    print(f"  {count(report.blobs_new, 'new blob')}, {report.blobs_deduplicated:,} in the library before")


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
    print(f"{verb} {names} to {report.remote}")
    sent = f"{count(report.blobs_sent, 'blob')} ({size(report.bytes_content)}) in {count(report.packs, 'pack')}"
    print(f"{sent}, {report.blobs_known:,} there already")
    _traffic(report.traffic, report.seconds)


def pulled(report: PullReport) -> None:
    """What has come, or would."""
    name, digest = report.catalog
    verb = "would pull" if report.dry_run else "pulled"
    signed = f", signed by {printable(report.signed_by)}" if report.signed_by else ""
    print(f"{verb} {name} ({digest[:12]}) from {report.remote}{signed}")
    to_fetch = f" ({size(report.bytes_to_fetch)})" if report.blobs_new else ""
    print(f"{count(report.blobs_new, 'blob')} new{to_fetch}, {report.blobs_known:,} here already")
    _traffic(report.traffic, report.seconds)


def _traffic(traffic: Traffic, seconds: float) -> None:
    print(
        f"{count(traffic.requests, 'request')}, {size(traffic.sent)} sent, {size(traffic.received)} received "
        f"in {seconds:.2f} s"
    )


def remote_names(names: list[RemoteName]) -> None:
    rows = [(name.name, name.kind, name.digest[:12], name.time, "yes" if name.signed else "no") for name in names]
    columns(("NAME", "KIND", "CATALOG", "SINCE", "SIGNED"), rows)


def remote_status(status: RemoteStatus) -> None:
    print(f"{status.remote}: {count(status.catalogs, 'catalog')}, {count(status.packs, 'pack')}, {size(status.bytes)}")
    print(f"{count(status.names, 'name')}, {status.keys:,} for keys of blueprints")
    if status.garbage:
        print(f"{count(status.garbage, 'object')} that nothing needs, for `holo remote gc`")


def remote_checked(found: RemoteCheck) -> None:
    for problem in found.problems:
        print(f"{problem.key}: {printable(problem.what)}")
    what = "read" if found.read else "looked for"
    print(
        f"{what} {count(found.packs, 'pack')} of {count(found.catalogs, 'catalog')}, {count(found.names, 'name')} "
        f"in {found.seconds:.2f} s"
    )
    print("all is well" if not found.problems else count(len(found.problems), "problem"))
    if found.removed:
        print(f"removed {count(len(found.removed), 'object')}; push their catalogs again from a library that has them")


def remote_collected(report: RemoteGc) -> None:
    verb = "would remove" if report.dry_run else "removed"
    print(f"{verb} {count(report.removed, 'object')} ({size(report.removed_bytes)}) from {report.remote}")
    if report.waiting:
        print(f"{count(report.waiting, 'object')} ({size(report.waiting_bytes)}) that nothing needs stay for now")


def cloned(report: CloneReport) -> None:
    print(f"cloned {printable(report.source)} to {printable(report.path)}")
    if report.total is not None and report.symlinks is not None and report.directories is not None:
        ways = {"reflinked": report.reflinked, "hardlinked": report.hardlinked, "copied": report.copied}
        shown = ", ".join(f"{number:,} {method}" for method, number in ways.items() if number) or "none"
        print(
            f"  {count(report.total, 'file')}: {shown}\n"
            f"  {report.relocated:,} relocated, {count(report.symlinks, 'symlink')}, "
            f"{count(report.directories, 'directory')}\n"
            f"  {size(report.bytes_total or 0)}: {size(report.bytes_shared or 0)} shared, "
            f"{size(report.bytes_written)} written"
        )
    for old, new, files in report.mapped:
        print(f"  {printable(old)} is {printable(new)} in {count(files, 'file')} of it")
    for path in report.also:
        print(f"  {printable(path)} was cloned as well")
    print(f"  {report.used} in {report.seconds:.2f} s" + (f": {printable(report.reason)}" if report.reason else ""))


def worktree_added(report: WorktreeReport) -> None:
    branch = f" of branch {printable(report.branch)}" if report.branch else ""
    print(f"{'added ' if report.is_new else ''}worktree {printable(report.path)}{branch}")
    for item in report.equipment:
        name, origin = (printable(os.path.relpath(path, report.path)) for path in (item.path, item.origin))
        if item.how == "built":
            print(f"  {name} is space {item.space} of {origin}: {item.used} in {item.seconds:.2f} s")
        else:
            way = f": {item.used} in {item.seconds:.2f} s" if item.how == "cloned" else ""
            print(f"  {name} {item.how} from {origin}{way}")
    if not report.equipment and not report.is_new:
        print("  it lacks nothing that the first checkout has")


def worktree_removed(report: RemovedWorktree) -> None:
    print(f"removed worktree {printable(report.path)}" + ("" if report.was_there else ", whose directory was gone"))
    for space in report.spaces:
        print(f"  deleted space {space}")


def hooked(report: HookReport, *, is_removal: bool) -> None:
    done = "removed from" if is_removal else "installed in"
    print(f"{done} {printable(report.path)}" if report.changed else f"{printable(report.path)} is as it should be")


def restored(report: RestoreReport, as_json: bool) -> None:
    """The report of a restore, after its warnings."""
    for warning in filter(None, (report.strategy.warning, *report.warnings)):
        warn(warning)
    if as_json:
        document(report.to_json())
        return
    ways = {
        "reflinked": report.reflinked,
        "hardlinked": report.hardlinked,
        "copied": report.copied,
        "unchanged": report.unchanged,
    }
    shown = ", ".join(f"{number:,} {method}" for method, number in ways.items() if number) or "none"
    project = "\n  the project {} is {} here".format(*map(printable, report.project)) if report.project else ""
    print(
        f"space {report.space} is {report.catalog} ({report.digest[:12]}) at {printable(report.path)}\n"
        f"  {count(report.total, 'file')}: {shown}"
        f"{f'; {report.removed:,} removed' if report.removed else ''}\n"
        f"  {report.relocated:,} relocated, {count(report.symlinks, 'symlink')}, "
        f"{count(report.directories, 'directory')}\n"
        f"  {size(report.bytes_total)}: {size(report.bytes_shared)} shared, {size(report.bytes_written)} written\n"
        f"  {_way(report)} in {report.seconds:.2f} s{project}"
    )


def _way(report: RestoreReport) -> str:
    """How files were made. The strategy of the report is that of the restore which made them."""
    if report.unchanged == report.total:
        return "no file had to be made,"
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
    for use in report.catalogs:
        print(f"{verb} catalog {_use(use)}")
    counts = (
        (report.blobs, "blob"),
        (report.links, "link form"),
        (report.golden, "golden tree"),
        (report.drafts, "draft"),
        (report.locks, "lock file"),
        (report.layers, "unused layer"),
    )
    print(f"{verb} {', '.join(count(number, noun) for number, noun in counts if number) or 'nothing'}")
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


def checked(report: CheckReport) -> None:
    """Every problem in a few lines, then what was read, and the verdict."""
    for warning in report.warnings:
        warn(warning)
    for problem in report.problems:
        print(f"{problem.kind} {printable(problem.path)}: {printable(problem.what)}")
        if problem.catalogs:
            print(f"  catalogs: {', '.join(problem.catalogs)}; spaces: {', '.join(problem.spaces) or 'none'}")
        if problem.quarantined is not None:
            print(f"  now {printable(problem.quarantined)}")
        if problem.repaired is not None:
            print(f"  {printable(problem.repaired)}")
    print(
        f"read {count(report.catalogs, 'catalog')}, {count(report.blobs, 'blob')}, {count(report.links, 'link form')}, "
        f"{count(report.golden, 'golden tree')} and what is known of {count(report.spaces, 'space')} "
        f"in {report.seconds:.2f} s"
    )
    if report.garbage_files:
        print(f"{count(report.garbage_files, 'file')} ({size(report.garbage_bytes)}) that no catalog needs")
    left = sum(problem.repaired is None for problem in report.problems)
    if not report.problems:
        print("all is well")
    elif left:
        print(f"{count(len(report.problems), 'problem')}, {len(report.problems) - left:,} repaired")
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
                able["reason"] or "",
            )
        )
    columns(("CAN", "", "FILES/S", "WHY NOT"), rows)
    if golden:
        print(f"\n{count(golden, 'golden tree')} in the library, for spaces in one snapshot")
    for line in report["advice"]:
        print(f"\n{line}")
