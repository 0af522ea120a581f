"""Pull: let the library have a catalog of a remote, by fetching what it lacks."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from holo import digest as digests
from holo import signatures
from holo.errors import IntegrityError, NotFound, os_errors_as
from holo.hololib import CatalogRef, Library
from holo.hololib.layout import NAME
from holo.record import moved_name
from holo.remote.packs import blobs_of
from holo.remote.remote import Kind, Pointer, Remote, catalog_key, signature_key
from holo.remote.report import PullReport
from holo.remote.source import PackGone, PackSource
from holo.transport.adopt import OnProgress, Wanted, adopt, refuse_rights

if TYPE_CHECKING:
    from holo.catalog import Catalog
    from holo.remote.packs import PackMap
    from holo.signatures import Trust

_WINDOW = 8
"""Packs on the way at once, at least: a worker that waits for the network leaves its processor to another."""


class Found(NamedTuple):
    """A catalog that a remote has, and what it is to be called."""

    digest: str
    name: str | None


def look_up(remote: Remote, kind: Kind, name: str, trust: Trust) -> Found | None:
    """The catalog that a name or the key of a blueprint means; ``None`` if the remote does not know it.

    Raises :class:`IntegrityError` if signatures are demanded, and nobody who may say so has said so lately.
    """
    pointer, _ = remote.pointer(kind, name)
    if pointer is None:
        return None
    trust.require_pointer(kind, name, pointer.catalog, pointer.time, _bytes(pointer), f"{remote.name}/{pointer.key}")
    return Found(pointer.catalog, name if kind == "name" else None)


def find(remote: Remote, reference: str, trust: Trust) -> Found:
    """The catalog of a name or a whole digest. Raises :class:`NotFound`, and what :func:`look_up` raises."""
    found = look_up(remote, "name", reference, trust) if NAME.fullmatch(reference) is not None else None
    if found is None and digests.is_digest(reference):
        found = Found(reference, None)
    if found is None:
        raise NotFound(
            f"there is no catalog {reference!r} in {remote.name}",
            "Give a name, or all 64 digits of a digest. `holo remote list` of its folder or bucket shows names.",
        )
    return found


def pull(
    library: Library,
    remote: Remote,
    found: Found,
    trust: Trust,
    *,
    name: str | None = None,
    keep_setid: bool = False,
    dry_run: bool = False,
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> PullReport:
    """Take a catalog of a remote into the library, as ``name`` or else as it is called there.

    The caller holds the library's lock, shared. Raises :class:`NotFound`, :class:`IntegrityError` for content, a
    signature or an object that is not right, :class:`CatalogInvalid` and :class:`HoloError`; no catalog is published
    then. What has come stays for the next pull.
    """
    started = time.monotonic()
    digest = found.digest
    called = name or found.name
    signature = _signature(remote, digest, trust)
    signed_by = trust.require_catalog(digest, signature, f"{remote.name}/{catalog_key(digest)}")
    for fresh in (False, True):
        catalog, packs = _catalog(library, remote, digest, fresh=fresh)
        wanted = Wanted(catalog, called, f"{digest[:12]} of {remote.name}", signature, signed_by is not None)
        source = PackSource(remote, packs, library.folder("incoming")) if packs is not None else None
        fetched = _to_fetch(library, packs) if packs is not None else 0
        if dry_run:
            if not keep_setid:
                refuse_rights(catalog, wanted.origin)
            known = sum(library.blobs.has(blob, size) for blob, size in blobs_of(catalog).items())
            new = len(blobs_of(catalog)) - known
            before = library.catalogs.meant_by(called) if called is not None else None
            warnings: tuple[str, ...] = ()
            if before is not None and before != digest:
                warnings = (moved_name(called, before, dry_run=True),)
            break
        try:
            done = adopt(
                library,
                [wanted],
                source,
                keep_setid=keep_setid,
                workers=max(workers, _WINDOW),
                on_progress=_in_bytes(on_progress, remote, fetched),
            )
        except PackGone:
            if fresh:
                raise
            continue
        library.catalogs.keep(catalog)
        new, known, warnings = done.blobs_new, done.blobs_known, done.warnings
        break
    return PullReport(
        remote=remote.name,
        catalog=CatalogRef(called or digest[:12], digest),
        blobs_new=new,
        blobs_known=known,
        bytes_to_fetch=fetched,
        signed_by=signed_by,
        warnings=warnings,
        dry_run=dry_run,
        traffic=remote.meter.total(),
        seconds=round(time.monotonic() - started, 3),
    )


def _catalog(library: Library, remote: Remote, digest: str, *, fresh: bool) -> tuple[Catalog, PackMap | None]:
    """The catalog, and where its blobs are, unless the library has them all."""
    catalog = _here(library, digest)
    if catalog is not None:
        with os_errors_as(f"cannot read the library {library.path}"):
            is_whole = all(library.blobs.has(blob, size) for blob, size in blobs_of(catalog).items())
        if is_whole:
            return catalog, None
    found = remote.catalog(digest, fresh=fresh)
    if found is None:
        raise NotFound(
            f"catalog {digest[:12]} is not in {remote.name}",
            "Whoever has it can push it. `holo remote check` tells whether more is missing.",
        )
    return found


def _here(library: Library, digest: str) -> Catalog | None:
    """The catalog, if the library has it whole: a damaged one is fetched again, which mends it."""
    if library.catalogs.has(digest):
        with suppress(IntegrityError):
            return library.catalogs.load(digest)
    return None


def _in_bytes(on_progress: OnProgress | None, remote: Remote, fetched: int) -> OnProgress | None:
    """Tell of bytes that have come where adopting tells of blobs."""
    if on_progress is None:
        return None
    before = remote.meter.total().received

    def tell(done: int, total: int) -> None:
        come = remote.meter.total().received - before
        on_progress(fetched if done == total else min(come, fetched), fetched)

    return tell


def _to_fetch(library: Library, packs: PackMap) -> int:
    """The bytes of packs that a pull asks for, about: what the library lacks."""
    with os_errors_as(f"cannot read the library {library.path}"):
        there = library.blobs.digests()
    return sum(slot.stored for blob, slot in packs.slots.items() if blob not in there)


def _signature(remote: Remote, digest: str, trust: Trust) -> bytes | None:
    """The signature of a catalog, if anybody wants to see it."""
    if trust.signers is None:
        return None
    key = signature_key(digest)
    found = remote.document(key, signatures.LARGEST, fresh=True)
    return signatures.canonical(found.data, signatures.CATALOG, f"{remote.name}/{key}") if found is not None else None


def _bytes(pointer: Pointer) -> bytes | None:
    return pointer.signature.encode() if pointer.signature is not None else None
