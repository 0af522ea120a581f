"""Verify a catalog of the library, or a bundle: is all content there and what it should be, and who signed it?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from holo import digest as digests
from holo.catalog import Catalog
from holo.content import Piece
from holo.errors import IntegrityError, Untrusted
from holo.hololib import CatalogRef, Library
from holo.signatures import CATALOG, AllowedSigners, Signer, catalog_statement, key_of
from holo.transport.adopt import OnProgress
from holo.transport.bundle import Bundle, opened
from holo.transport.source import Blob, tasks_of, verified_pieces
from holo.workers import pool


class VerifiedCatalog(NamedTuple):
    """A catalog, and who vouches for it."""

    name: str | None
    digest: str
    principal: str | None
    """who signed it, by the file of allowed signers; ``None`` if nobody in there has, or there is no such file"""
    key_type: str | None
    """of the key that signed it, such as ED25519; ``None`` if it is not signed, or wrongly"""
    fingerprint: str | None
    """of that key"""
    problem: str | None
    """why the signature is not good enough, or ``None``"""


class VerifyReport(NamedTuple):
    """What was verified, and what is wrong with it."""

    path: str
    """of the bundle or of the library"""
    catalogs: tuple[VerifiedCatalog, ...]
    allowed_signers: str | None
    """the file by which signatures were judged"""
    blobs: int
    """that were read"""
    left_out: int
    """blobs that are not in the bundle, because whoever imports it has them already"""
    bytes: int
    """of content"""
    damaged: tuple[str, ...]
    """what is wrong with contents, one sentence each"""
    seconds: float

    @property
    def is_sound(self) -> bool:
        """Whether all content is what it should be, and every catalog is signed as it has to be."""
        return not self.damaged and all(catalog.problem is None for catalog in self.catalogs)

    def to_json(self) -> dict[str, Any]:
        """The document `holo verify --json` prints."""
        return {
            "path": self.path,
            "sound": self.is_sound,
            "catalogs": [catalog._asdict() for catalog in self.catalogs],
            "allowed_signers": self.allowed_signers,
            "blobs": {"verified": self.blobs, "left_out": self.left_out},
            "bytes": self.bytes,
            "damaged": list(self.damaged),
            "seconds": self.seconds,
        }


def verify_catalog(
    library: Library, ref: CatalogRef, signers: AllowedSigners | None, workers: int, on_progress: OnProgress | None
) -> VerifyReport:
    """Read all blobs of a catalog. The caller holds the library's lock, shared."""
    started = time.monotonic()
    catalog = library.catalogs.read(ref.digest)
    signature = library.catalogs.signature(ref.digest)
    judged = _judge(ref.given_name, ref.digest, signature, signers, library.catalogs.path(ref.digest))
    blobs = _blobs_of([catalog])
    damaged = _read(blobs, [], _Reader(library.blobs.chunks), workers, on_progress)
    return _report(library.path, [judged], signers, blobs, 0, damaged, started)


def verify_bundle(
    path: str, signers: AllowedSigners | None, workers: int, on_progress: OnProgress | None
) -> VerifyReport:
    """Read all of a bundle. Raises :class:`IntegrityError` if it is so damaged that nobody knows what is in it."""
    started = time.monotonic()
    with opened(path) as bundle:
        judged = []
        catalogs = {digest: bundle.catalog(digest) for _, digest in bundle.manifest.catalogs}
        for name, digest in bundle.manifest.catalogs:
            judged.append(_judge(name, digest, bundle.signature(digest), signers, path))
        for catalog in catalogs.values():
            bundle.lacking(catalog)
        needed = _blobs_of(catalogs.values())
        blobs = _blobs_in(bundle, needed)
        first = {digest: size for digest, size in blobs.items() if not bundle.builds_on_others(digest)}
        later = [blob for blob in blobs.items() if blob[0] not in first]
        reader = _Reader(lambda digest, size: verified_pieces(bundle, digest, size))
        damaged = _read(first, later, reader, workers, on_progress)
        return _report(path, judged, signers, blobs, len(needed.keys() - blobs.keys()), damaged, started)


def _blobs_of(catalogs: Iterable[Catalog]) -> dict[str, int]:
    return {row[4]: row[2] for catalog in catalogs for _, row in catalog.files()}


def _blobs_in(bundle: Bundle, needed: dict[str, int]) -> dict[str, int]:
    """All contents of a bundle, also those that none of its catalogs needs."""
    found = {digest: size for digest, size in needed.items() if bundle.has(digest, size)}
    for entry in bundle.entries:
        digest = entry.name.rpartition("/")[2]
        if entry.name.startswith("library/") and digests.is_digest(digest):
            found.setdefault(digest, entry.size)
    for digest, parts in bundle.parts.items():
        found.setdefault(digest, sum(part.length for part in parts))
    return found


def _judge(
    name: str | None, digest: str, signature: bytes | None, signers: AllowedSigners | None, origin: str
) -> VerifiedCatalog:
    what = f"catalog {name or digest[:12]} of {origin}"
    statement = catalog_statement(digest)
    signer: Signer | None = None
    key = problem = None
    try:
        if signature is not None:
            key = key_of(statement, CATALOG, signature, what)
            signer = signers.signer(statement, CATALOG, signature, what) if signers is not None else None
        elif signers is not None:
            problem = f"{what} is not signed"
    except Untrusted as error:
        problem = error.message
    return VerifiedCatalog(
        name,
        digest,
        signer.principal if signer is not None else None,
        key.type if key is not None else None,
        key.fingerprint if key is not None else None,
        problem,
    )


def _read(
    first: dict[str, int],
    later: list[Blob],
    reader: _Reader,
    workers: int,
    on_progress: OnProgress | None,
) -> list[str]:
    """What is wrong with contents; those of ``later`` are read by one process, for they are parts of the others."""
    damaged: list[str] = []
    done = 0
    total = len(first) + len(later)
    for count, wrong in chain(pool.run(reader, tasks_of([*first.items()]), workers), map(reader, tasks_of(later))):
        damaged += wrong
        done += count
        if on_progress is not None:
            on_progress(done, total)
    return sorted(damaged)


class _Reader:
    """Reads contents. Made before the workers are forked, called in them with one task after the other."""

    def __init__(self, chunks: Callable[[str, int], Iterator[Piece]]) -> None:
        self._chunks = chunks

    def __call__(self, blobs: list[Blob]) -> tuple[int, list[str]]:
        wrong = []
        for digest, size in blobs:
            try:
                for _ in self._chunks(digest, size):
                    pass
            except IntegrityError as error:
                wrong.append(error.message)
        return len(blobs), wrong


def _report(
    path: str,
    catalogs: list[VerifiedCatalog],
    signers: AllowedSigners | None,
    blobs: dict[str, int],
    left_out: int,
    damaged: list[str],
    started: float,
) -> VerifyReport:
    return VerifyReport(
        path,
        tuple(catalogs),
        signers.path if signers is not None else None,
        len(blobs),
        left_out,
        sum(blobs.values()),
        tuple(damaged),
        round(time.monotonic() - started, 3),
    )
