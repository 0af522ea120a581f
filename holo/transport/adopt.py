"""Adopt: the one way by which catalogs and blobs from elsewhere enter a library.

    check     a catalog by the loader's rules; rights that it would give; that all its blobs are here or in the source;
              the recorded offsets of files that name their own path
              (of a remote, when they have come)
    store     what is missing, each blob hashed on the way, by all workers
    publish   everything durable first; then the catalogs, each by one rename

A failure before the end leaves blobs that no catalog needs, as a record does; `holo gc` removes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog
from holo.content import Section
from holo.errors import CatalogInvalid, HoloError, NotFound, advice, os_errors_as
from holo.hololib import CatalogRef, Library
from holo.hololib.blobs import WORTH_COMPRESSING
from holo.hololib.offer import WORTH_CLONING, Offer, Stretch
from holo.hololib.verified import ContentMismatch, verified_chunks
from holo.record import moved_name
from holo.relocation.patch import Relocator
from holo.transport.source import Blob, Source, damaged, verified_pieces
from holo.workers import pool

_TASKS_TO_SETTLE = 64
_PACKS_TO_SETTLE = 4
"""Tasks after which the disk is waited for while workers go on. To wait only at the end takes a tenth longer."""

OnProgress = Callable[[int, int], object]
"""Called with (blobs done, blobs in all)."""


class Wanted(NamedTuple):
    """A catalog to adopt."""

    catalog: Catalog
    name: str | None
    origin: str
    """where it was read, for messages"""
    signature: bytes | None = None
    """one that came with it, in its canonical form"""
    is_trusted: bool = False
    """whether one of the allowed signers made it: it then replaces another that the library keeps"""


class Adopted(NamedTuple):
    """What has entered the library."""

    catalogs: tuple[CatalogRef, ...]
    blobs_new: int
    blobs_known: int
    """that the library had already"""
    warnings: tuple[str, ...]


def refuse_rights(catalog: Catalog, origin: str) -> None:
    """Raise :class:`CatalogInvalid` for a catalog whose files give rights to whoever runs them."""
    if (file := catalog.privileged()) is not None:
        raise CatalogInvalid(
            f"catalog {origin} gives rights with setuid, setgid or capabilities: {file}",
            "Whoever may run that would act as you. If you trust who made the catalog: --keep-setid.",
        )


def adopt(
    library: Library,
    wanted: Sequence[Wanted],
    source: Source | None,
    *,
    keep_setid: bool = False,
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> Adopted:
    """Publish catalogs, with the blobs that the library lacks from ``source``.

    The caller holds the library's lock, shared. Raises :class:`CatalogInvalid`, :class:`NotFound` for blobs that are
    nowhere, :class:`IntegrityError` for wrong content, and :class:`HoloError`; no catalog is published then.
    """
    if not keep_setid:
        for item in wanted:
            refuse_rights(item.catalog, item.origin)
    missing, known = _missing(library, wanted, source)
    far = missing if source is not None and source.is_far else {}
    for item in wanted:
        _check_relocations(library, item.catalog, source, missing, leave=far)
    warnings = []
    with library.unsettled.record("Nothing was imported."):
        if source is not None and missing:
            _store(library, [*missing.items()], source, workers, on_progress)
            for item in wanted if far else ():  # what has come only now
                _check_relocations(library, item.catalog, None, {})
        for item in wanted:
            replaced = library.catalogs.publish(item.catalog, item.name, item.signature, is_trusted=item.is_trusted)
            if replaced is not None:
                warnings.append(moved_name(item.name, replaced))
    refs = (CatalogRef(item.name or item.catalog.digest[:12], item.catalog.digest) for item in wanted)
    return Adopted(tuple(refs), len(missing), known, tuple(warnings))


def _missing(library: Library, wanted: Sequence[Wanted], source: Source | None) -> tuple[dict[str, int], int]:
    """The blobs that the library does not have, in the order of the catalogs; and how many it has."""
    missing: dict[str, int] = {}
    known: dict[str, int] = {}
    with os_errors_as(f"cannot read the library {library.path}"):
        # One listing for 256 folders, instead of two looks for every blob that is missing.
        there = library.blobs.digests()
    for item in wanted:
        lacking = {}
        for _, row in item.catalog.files():
            digest, size = row[4], row[2]
            if missing.get(digest, size) != size or known.get(digest, size) != size:
                raise CatalogInvalid(f"catalog {item.origin} is not valid: {digest} has two sizes")
            if digest in missing or digest in known:
                continue
            if digest in there and library.blobs.has(digest, size):
                known[digest] = size
                continue
            missing[digest] = size
            if source is None or not source.has(digest, size):
                lacking[digest] = size
        if lacking:
            raise NotFound(
                f"{len(lacking)} of the blobs of catalog {item.origin} are neither in {library.path}"
                f"{f' nor in {source.name}' if source is not None else ''}",
                "A catalog file needs its library beside it.",
            )
    return missing, len(known)


def _store(library: Library, missing: list[Blob], source: Source, workers: int, on_progress: OnProgress | None) -> None:
    with os_errors_as(f"cannot write to the library {library.path}"):
        intake = _Intake(library, source)
        # On Btrfs writers wait for a sync, which is a transaction.
        settles_early = pool.forks(workers) and not platform.volume_of(library.blobs.directory).keeps_extents
    done = 0
    first = [blob for blob in missing if not source.builds_on_others(blob[0])]
    later = [blob for blob in missing if source.builds_on_others(blob[0])]
    # What builds on others may build on each other as well: so one after the other.
    lone = map(intake, source.deliveries(later))
    for number, count in enumerate(chain(pool.run(intake, source.deliveries(first), workers), lone), 1):
        done += count
        if on_progress is not None:
            on_progress(done, len(missing))
        if settles_early and not number % (_PACKS_TO_SETTLE if source.is_far else _TASKS_TO_SETTLE):
            library.settle()


class _Intake:
    """Stores blobs. Made before the workers are forked, called in them with one task after the other."""

    def __init__(self, library: Library, source: Source) -> None:
        self._library = library
        self._blobs = library.blobs
        self._source = source
        self._raw = library.keeps_raw
        self._can_share = self._raw and source.why_no_reflink(library.blobs.directory) is None

    def __call__(self, blobs: list[Blob]) -> int:
        with self._source.delivered(blobs):
            for digest, size in blobs:
                try:
                    self._take(digest, size)
                except ContentMismatch as error:
                    raise damaged(self._source, digest, str(error)) from None
                except OSError as error:
                    place = f"from {self._source.name} into {self._library.path}"
                    raise HoloError(f"cannot take blob {digest} {place}: {error.strerror}", advice(error)) from error
        return len(blobs)

    def _take(self, digest: str, size: int) -> None:
        with self._source.open(digest, size) as offer:
            if offer.frame is not None and not self._raw and size > WORTH_COMPRESSING:
                self._blobs.add_frame(digest, size, offer.frame)
            elif self._raw and offer.frame is None and size >= WORTH_CLONING:
                with self._sharing(offer) as shared:
                    for _ in verified_chunks(shared.pieces(), digest, size):
                        pass
                    self._blobs.add_filled(digest, size, lambda target: self._fill(target, digest, shared))
            else:
                compress = not self._raw and size > WORTH_COMPRESSING and not offer.is_sparse
                self._blobs.add(digest, offer.pieces(), size, compress=compress)

    def _fill(self, target: int, digest: str, offer: Offer) -> None:
        offer.fill(target)
        if not self._source.is_unchanged() and digests.of_file(target) != digest:
            raise ContentMismatch("it changed while it was read")

    @contextmanager
    def _sharing(self, offer: Offer) -> Iterator[Offer]:
        """The offer, with parts of blobs that the library has in place of the source's: those can be shared."""
        with ExitStack() as opened:
            yield offer._replace(stretches=[self._of_library(stretch, opened) for stretch in offer.stretches])

    def _of_library(self, stretch: Stretch, opened: ExitStack) -> Stretch:
        if stretch.twin is not None:
            digest, size, offset = stretch.twin
            raw = self._blobs.open_raw(digest, size) if self._blobs.has(digest, size, compressed=False) else None
            if raw is not None:
                opened.callback(os.close, raw)
                return stretch._replace(section=Section(raw, offset, stretch.length))
        return stretch._replace(can_share=self._can_share)


def _check_relocations(
    library: Library,
    catalog: Catalog,
    source: Source | None,
    missing: Mapping[str, int],
    leave: Container[str] = (),
) -> None:
    """Hold the recorded offsets against the content, but for blobs to ``leave``.

    Raises :class:`CatalogInvalid`, :class:`IntegrityError`.
    """
    relocator = Relocator.of(catalog, catalog.prefix)
    rows = dict(catalog.files()) if catalog.relocations else {}
    for file, relocation in catalog.relocations.items():
        _, _, size, _, digest = rows[file]
        if digest in leave:
            continue
        if source is not None and digest in missing:
            relocator.check(verified_pieces(source, digest, size), relocation, file)
        else:
            relocator.check(library.blobs.chunks(digest, size), relocation, file)
