"""What a clone did: the counts of its workers, and the report that the command line prints and the API returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from holo.catalog import Totals
from holo.workers.results import Results

NOTHING_MADE = "Nothing was made."
"""What is left of a clone that fails."""


class Name(NamedTuple):
    """One name of a file that has several."""

    inode: tuple[int, int]
    """device and number"""
    path: str
    size: int
    made: bool
    """as a separate file; else it is a hardlink, or left until all names of the file are known"""
    leader: str = ""
    """the path of the file that it is a hardlink of"""
    shared: bool | None = None
    """whether it was counted as reflinked or as copied; ``None``: as empty"""

    @property
    def is_there(self) -> bool:
        """Whether the name exists already."""
        return self.made or bool(self.leader)


class Made(Results):
    """The counts of one worker, or of all. Files are counted once; bytes are those of content."""

    def __init__(self) -> None:
        self.reflinked = 0
        self.hardlinked = 0
        self.copied = 0
        self.empty = 0
        """files without content, which are neither"""
        self.shared_bytes = 0
        self.written_bytes = 0
        self.symlinks = 0
        self.directories = 0
        self.lost_owners = 0
        self.lost_attributes = 0
        self.names: list[Name] = []
        self.divided: list[str] = []
        """names at which a second file begins, because one file cannot have as many names as in the source"""
        self.unfinished: list[str] = []
        """directories whose attributes are still to be set"""
        self.fresh: list[str] = []
        """files and symlinks that changed after the search for the path"""
        self.reasons: list[str] = []
        """why files were copied that should have been cloned"""


class Mapped(NamedTuple):
    """A root besides the tree itself whose paths became those of another folder."""

    old: str
    new: str
    files: int
    """in which it was patched, and symlinks"""


class Relocated(NamedTuple):
    """What ``relocate`` found in the source and changed in the clone."""

    files: int
    """that were patched"""
    bytes: int
    """of those files"""
    totals: Totals
    """of the source"""
    warnings: list[str]
    mapped: tuple[Mapped, ...]


class CloneReport(NamedTuple):
    """A cloned tree. ``reflinked + hardlinked + copied == total``, if the files were counted.

    Those of a snapshot are counted only with ``relocate``; otherwise the numbers are ``None``. ``hardlinked`` are
    further names of files that were made under another name. ``relocated`` files are among the copied.
    """

    source: str
    path: str
    used: str
    """``snapshot``, ``reflink`` or ``copy``"""
    reason: str | None
    """why a better strategy was not used, or not for all files"""
    total: int | None
    reflinked: int | None
    hardlinked: int | None
    copied: int
    relocated: int
    symlinks: int | None
    directories: int | None
    bytes_total: int | None
    bytes_shared: int | None
    bytes_written: int
    mapped: tuple[Mapped, ...]
    """with ``relocate``: the project's root, if the clone lies in another checkout of it, and those that were named"""
    also: tuple[str, ...]
    """folders that were cloned as well: those of links to the source that setuptools keeps beside it"""
    warnings: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The document `holo clone --json` prints."""
        return {
            "source": self.source,
            "path": self.path,
            "strategy": {"used": self.used, "reason": self.reason},
            "files": {
                "total": self.total,
                "reflinked": self.reflinked,
                "hardlinked": self.hardlinked,
                "copied": self.copied,
                "relocated": self.relocated,
            },
            "symlinks": self.symlinks,
            "directories": self.directories,
            "bytes": {"total": self.bytes_total, "shared": self.bytes_shared, "written": self.bytes_written},
            "mapped": [mapped._asdict() for mapped in self.mapped],
            "also": list(self.also),
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }


def report_on(
    source: str,
    target: str,
    made: Made | None,
    refused: Sequence[str],
    relocated: Relocated | None,
    also: tuple[str, ...],
    seconds: float,
) -> CloneReport:
    """The report on a clone that was ``made`` file by file, or (``None``) as a snapshot.

    ``refused``: why it is no snapshot, if it could have been one.
    """
    patched, patched_bytes = (relocated.files, relocated.bytes) if relocated else (0, 0)
    report = CloneReport(
        source=source,
        path=target,
        used="snapshot",
        reason="; ".join(refused) or None,
        total=None,
        reflinked=None,
        hardlinked=None,
        copied=patched,
        relocated=patched,
        symlinks=None,
        directories=None,
        bytes_total=None,
        bytes_shared=None,
        bytes_written=patched_bytes,
        mapped=relocated.mapped if relocated else (),
        also=also,
        warnings=tuple(relocated.warnings) if relocated else (),
        seconds=round(seconds, 3),
    )
    if made is not None:
        return _counted(report, made, patched_bytes)
    if relocated is not None:
        total, directories, symlinks, size = relocated.totals
        report = report._replace(total=total, directories=directories, symlinks=symlinks, bytes_total=size)
        report = report._replace(reflinked=total - patched, hardlinked=0, bytes_shared=size - patched_bytes)
    return report


def _counted(report: CloneReport, made: Made, patched_bytes: int) -> CloneReport:
    """The report with the counts of a clone that was made file by file."""
    used = "reflink" if made.reflinked or not made.copied else "copy"
    # A patched file no longer shares its content.
    moved = min(report.relocated, made.reflinked)
    reflinked, copied = made.reflinked - moved, made.copied + moved
    if used == "reflink":
        reflinked += made.empty
    else:
        copied += made.empty
    moved_bytes = patched_bytes if moved else 0
    shared, written = made.shared_bytes - moved_bytes, made.written_bytes + moved_bytes
    reasons = [report.reason, *_why_copied(report.source, report.path, made, used)]
    return report._replace(
        used=used,
        reason="; ".join(filter(None, reasons)) or None,
        total=reflinked + copied + made.hardlinked,
        reflinked=reflinked,
        hardlinked=made.hardlinked,
        copied=copied,
        symlinks=made.symlinks,
        directories=made.directories,
        bytes_total=shared + written,
        bytes_shared=shared,
        bytes_written=written,
        warnings=(*report.warnings, *_losses(made)),
    )


def _why_copied(source: str, target: str, made: Made, used: str) -> list[str]:
    why = ", ".join(dict.fromkeys(made.reasons))
    if not why:
        return []
    if used == "copy":
        return [f"reflink does not work from {source} to {target} ({why})"]
    return [f"reflink does not work for {made.copied:,} of the files ({why})"]


def _losses(made: Made) -> list[str]:
    lost = []
    if made.lost_owners:
        lost.append(f"{made.lost_owners:,} entries belong to you now: only root can keep another's ownership")
    if made.lost_attributes:
        lost.append(f"extended attributes or ACLs of {made.lost_attributes:,} entries could not be kept there")
    lost += [
        f"{path} and other names of one file are several files now: that filesystem does not allow so many names of one"
        for path in made.divided
    ]
    return lost
