"""holo gives every job its own pristine environment in milliseconds.

    import holo

    library = holo.Hololib()
    library.record("/opt/envs/ml", name="ml")
    report = library.init("job-1", "ml")
    print(report.path, report.reflinked)

Everything public is here; it is imported on first use, because a command should pay only for what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from holo.answers.changes import Changes, FileChange, PackageChange
    from holo.answers.look import Entry
    from holo.answers.status import SpaceHistory, SpaceStatus
    from holo.api import Hololib
    from holo.bench import BenchReport, BenchResult
    from holo.catalog import Catalog, Totals
    from holo.check.adopt import Adoption
    from holo.check.report import CheckReport, Problem
    from holo.checkout.plan import Fill, Plan, Removal
    from holo.checkout.strategy import Decision, Method
    from holo.cloning import CloneReport, Mapped, clone
    from holo.doctor import Capability, Diagnosis
    from holo.doctor.advice import Folder
    from holo.errors import (
        CatalogInvalid,
        Conflict,
        HoloError,
        IntegrityError,
        NewerFormat,
        NotFound,
        RelocationImpossible,
        SourceChanged,
        StrategyUnavailable,
        Untrusted,
        UsageError,
    )
    from holo.exchange import RemoteLibrary
    from holo.filetimes import FileTimes
    from holo.gc.report import GcReport, Use
    from holo.history import Event
    from holo.hololib.catalogs import CatalogSummary
    from holo.hololib.inventory import Damage
    from holo.hololib.reference import CatalogRef
    from holo.hooks import HookReport
    from holo.listing import CatalogDetails, SpaceDetails
    from holo.record import RecordReport
    from holo.remote.report import (
        PullReport,
        PushReport,
        RemoteCheck,
        RemoteGc,
        RemoteName,
        RemoteProblem,
        RemoteStatus,
    )
    from holo.remote.traffic import Traffic
    from holo.restore import DryRun
    from holo.restore.report import RestoreReport
    from holo.sbom import Sbom
    from holo.settings import Setting, Settings, Strategy
    from holo.space import Space
    from holo.spares import SpareDetails, SparesReport
    from holo.transport.export import ExportReport
    from holo.transport.intake import ImportReport
    from holo.uninstall import UninstallReport
    from holo.usage.report import Shared, Usage, UsageReport
    from holo.verification import VerifiedCatalog, VerifyReport
    from holo.worktrees.report import Equipment, RemovedWorktree, WorktreeReport

_HOMES = {
    "answers.changes": ("Changes", "FileChange", "PackageChange"),
    "answers.look": ("Entry",),
    "answers.status": ("SpaceHistory", "SpaceStatus"),
    "api": ("Hololib",),
    "bench": ("BenchReport", "BenchResult"),
    "catalog": ("Catalog", "Totals"),
    "check.adopt": ("Adoption",),
    "check.report": ("CheckReport", "Problem"),
    "cloning": ("CloneReport", "Mapped", "clone"),
    "doctor": ("Capability", "Diagnosis"),
    "doctor.advice": ("Folder",),
    "errors": (
        "CatalogInvalid",
        "Conflict",
        "HoloError",
        "IntegrityError",
        "NewerFormat",
        "NotFound",
        "RelocationImpossible",
        "SourceChanged",
        "StrategyUnavailable",
        "Untrusted",
        "UsageError",
    ),
    "filetimes": ("FileTimes",),
    "gc.report": ("GcReport", "Use"),
    "history": ("Event",),
    "hololib.catalogs": ("CatalogSummary",),
    "hololib.inventory": ("Damage",),
    "hololib.reference": ("CatalogRef",),
    "hooks": ("HookReport",),
    "record": ("RecordReport",),
    "remote.report": (
        "PullReport",
        "PushReport",
        "RemoteCheck",
        "RemoteGc",
        "RemoteName",
        "RemoteProblem",
        "RemoteStatus",
    ),
    "remote.traffic": ("Traffic",),
    "exchange": ("RemoteLibrary",),
    "listing": ("CatalogDetails", "SpaceDetails"),
    "restore": ("DryRun",),
    "checkout.plan": ("Fill", "Plan", "Removal"),
    "restore.report": ("RestoreReport",),
    "sbom": ("Sbom",),
    "checkout.strategy": ("Decision", "Method"),
    "settings": ("Setting", "Settings", "Strategy"),
    "space": ("Space",),
    "transport.export": ("ExportReport",),
    "transport.intake": ("ImportReport",),
    "uninstall": ("UninstallReport",),
    "spares": ("SpareDetails", "SparesReport"),
    "usage.report": ("Shared", "Usage", "UsageReport"),
    "verification": ("VerifiedCatalog", "VerifyReport"),
    "worktrees.report": ("Equipment", "RemovedWorktree", "WorktreeReport"),
}

__all__ = [
    "Adoption",
    "BenchReport",
    "BenchResult",
    "Capability",
    "Catalog",
    "CatalogDetails",
    "CatalogInvalid",
    "CatalogRef",
    "CatalogSummary",
    "Changes",
    "CheckReport",
    "CloneReport",
    "Conflict",
    "Damage",
    "Decision",
    "Diagnosis",
    "DryRun",
    "Entry",
    "Equipment",
    "Event",
    "ExportReport",
    "FileChange",
    "FileTimes",
    "Fill",
    "Folder",
    "GcReport",
    "HoloError",
    "Hololib",
    "HookReport",
    "ImportReport",
    "IntegrityError",
    "Mapped",
    "Method",
    "NewerFormat",
    "NotFound",
    "PackageChange",
    "Plan",
    "Problem",
    "PullReport",
    "PushReport",
    "RecordReport",
    "RelocationImpossible",
    "RemoteCheck",
    "RemoteGc",
    "RemoteLibrary",
    "RemoteName",
    "RemoteProblem",
    "RemoteStatus",
    "Removal",
    "RemovedWorktree",
    "RestoreReport",
    "Sbom",
    "Setting",
    "Settings",
    "Shared",
    "SourceChanged",
    "Space",
    "SpaceDetails",
    "SpaceHistory",
    "SpaceStatus",
    "SpareDetails",
    "SparesReport",
    "Strategy",
    "StrategyUnavailable",
    "Totals",
    "Traffic",
    "UninstallReport",
    "Untrusted",
    "Usage",
    "UsageError",
    "UsageReport",
    "Use",
    "VerifiedCatalog",
    "VerifyReport",
    "WorktreeReport",
    "__version__",
    "clone",
]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            value = getattr(import_module(f"holo.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'holo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # also what nobody has asked for yet
