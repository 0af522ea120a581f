"""What a restore did, or would do, in the form the command line prints and the API returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from holo.checkout.plan import Plan
from holo.checkout.strategy import Decision
from holo.relocation.project import shared_project
from holo.restore.job import Done, Job


class RestoreReport(NamedTuple):
    """A restored space. ``reflinked + hardlinked + copied + unchanged == total``.

    ``relocated`` counts all files that hold the prefix, made now or unchanged. Bytes are of content: ``shared``
    was not written, ``written`` was; unchanged files are in neither.
    """

    space: str
    path: str
    catalog: str
    digest: str
    strategy: Decision
    total: int
    reflinked: int
    hardlinked: int
    copied: int
    unchanged: int
    relocated: int
    removed: int
    symlinks: int
    directories: int
    bytes_total: int
    bytes_shared: int
    bytes_written: int
    warnings: tuple[str, ...]
    """what was made and is not exactly as recorded, for it cannot be here"""
    seconds: float
    project: tuple[str, str] | None = None
    """the recorded root of the project, and the one that the space names instead"""
    is_spare: bool = False
    """whether a tree that was there before has become the space"""

    def to_json(self) -> dict[str, Any]:
        """The document `holo restore --json` prints."""
        return {
            "space": self.space,
            "path": self.path,
            "catalog": self.catalog,
            "digest": self.digest,
            "strategy": self.strategy.to_json(),
            "files": {
                "total": self.total,
                "reflinked": self.reflinked,
                "hardlinked": self.hardlinked,
                "copied": self.copied,
                "unchanged": self.unchanged,
                "relocated": self.relocated,
                "removed": self.removed,
            },
            "symlinks": self.symlinks,
            "directories": self.directories,
            "bytes": {"total": self.bytes_total, "shared": self.bytes_shared, "written": self.bytes_written},
            "seconds": self.seconds,
            **({"spare": True} if self.is_spare else {}),
        }


class DryRun(NamedTuple):
    """What a restore would do."""

    space: str
    path: str
    catalog: str
    digest: str
    strategy: Decision
    plan: Plan

    def to_json(self) -> dict[str, object]:
        """The document `holo restore --dry-run --json` prints."""
        return {
            "space": self.space,
            "path": self.path,
            "catalog": self.catalog,
            "digest": self.digest,
            "strategy": self.strategy.to_json(),
            **self.plan.to_json(self.strategy.used),
        }


def report_of(job: Job, done: Done, linked: Sequence[str], seconds: float) -> RestoreReport:
    """Sum up a restore. ``linked``: warnings about places in the project that are not there."""
    wanted, totals, tally = job.wanted, job.wanted.totals, done.tally
    relocations = wanted.part.relocations
    warnings = [*tally.warnings()]
    if tally.files:
        warnings += wanted.relocator.left_alone(relocations) + shared_project(
            wanted.part, wanted.relocator, wanted.project
        )
    return RestoreReport(
        space=job.target.space,
        path=job.target.path,
        catalog=job.catalog.name,
        digest=job.catalog.digest,
        strategy=done.decision,
        total=totals.files,
        reflinked=tally.reflinked,
        hardlinked=tally.hardlinked,
        copied=tally.copied,
        unchanged=totals.files - tally.files,
        relocated=sum(wanted.relocator.applies(item) for item in relocations.values()),
        removed=tally.removed,
        symlinks=totals.symlinks,
        directories=totals.directories,
        bytes_total=totals.bytes,
        bytes_shared=tally.shared_bytes,
        bytes_written=tally.written_bytes,
        warnings=(*warnings, *linked),
        seconds=round(seconds, 3),
        is_spare=done.is_spare,
        project=(wanted.part.project, wanted.project.root) if wanted.moves_project else None,
    )
