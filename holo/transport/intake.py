"""Import a bundle: take all that is in it into the library."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from holo import digest as digests
from holo.errors import CatalogInvalid, NotFound, UsageError
from holo.hololib import CatalogRef, CatalogSummary, Library
from holo.hololib.catalogs import summarize
from holo.hololib.layout import check_name
from holo.signatures import Trust
from holo.transport.adopt import OnProgress, Wanted, adopt
from holo.transport.bundle import Bundle, opened


class ImportReport(NamedTuple):
    """What came into the library."""

    file: str
    catalogs: tuple[CatalogRef, ...]
    blobs_new: int
    blobs_deduplicated: int
    """that the library had already"""
    warnings: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The document `holo import --json` prints."""
        return {
            "file": self.file,
            "catalogs": [catalog._asdict() for catalog in self.catalogs],
            "blobs": {"new": self.blobs_new, "deduplicated": self.blobs_deduplicated},
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }


def summaries_of(path: str) -> list[CatalogSummary]:
    """The catalogs of a bundle, by name. Raises what opening it and reading them raises."""
    with opened(path) as bundle:
        recorded = os.fstat(bundle.descriptor).st_mtime
        found = [summarize(bundle.catalog(digest), name, recorded) for name, digest in bundle.manifest.catalogs]
    return sorted(found, key=lambda summary: (summary.name or "", summary.digest))


def import_bundle(
    library: Library,
    bundle: Bundle,
    name: str | None = None,
    *,
    trust: Trust,
    keep_setid: bool = False,
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Publish the catalogs of a bundle, under the names that they have in it; one that is alone as ``name``, if given.

    The caller holds the library's lock, shared. Raises :class:`UsageError` for a name for several catalogs, what
    ``trust`` raises for a signature, and what :func:`holo.transport.adopt.adopt` raises.
    """
    started = time.monotonic()
    named = bundle.manifest.catalogs
    if name is not None:
        check_name(name, "catalog")
        if len({digest for _, digest in named}) > 1:
            raise UsageError(
                f"{bundle.name} holds {len(named)} catalogs, and --name is for one",
                "Leave it out: each has its own name.",
            )
        named = (named[0]._replace(name=name),)
    signed = {}
    for _, digest in named:
        signature = bundle.signature(digest)
        signed[digest] = (signature, trust.require_catalog(digest, signature, bundle.name) is not None)
    loaded = {digest: bundle.catalog(digest) for _, digest in named}
    for digest, catalog in loaded.items():
        if digests.of(catalog.to_json()) != digest:
            raise CatalogInvalid(f"catalog {digest} in {bundle.name} is not in the form that holo writes")
    for catalog in loaded.values():
        bundle.lacking(catalog)
    wanted = [
        Wanted(loaded[digest], called, f"{called or digest[:12]} of {bundle.name}", *signed[digest])
        for called, digest in named
    ]
    try:
        done = adopt(library, wanted, bundle, keep_setid=keep_setid, workers=workers, on_progress=on_progress)
    except NotFound as error:
        known = ", ".join(digest[:12] for digest in bundle.manifest.without)
        raise NotFound(
            error.message, f"It was made with --known. First import or pull what it builds on: {known}."
        ) from None
    return ImportReport(
        bundle.name,
        done.catalogs,
        done.blobs_new,
        done.blobs_known,
        done.warnings,
        round(time.monotonic() - started, 3),
    )
