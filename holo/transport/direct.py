"""Restore straight from a bundle: the contents of files, which the library never sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog
from holo.checkout.contents import Carrier
from holo.content import Piece
from holo.errors import HoloError, NotFound, UsageError
from holo.hololib import CatalogRef
from holo.hololib.offer import WORTH_CLONING, Offer
from holo.hololib.verified import ContentMismatch, verified_chunks
from holo.platform import Directory
from holo.signatures import Trust
from holo.space import Space
from holo.transport.adopt import refuse_rights
from holo.transport.bundle import Bundle, opened
from holo.transport.source import damaged


class BundleContents:
    """The blobs of a bundle as :class:`~holo.checkout.contents.Contents`. Everything is hashed before it is used."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def chunks(self, digest: str, size: int) -> Iterator[Piece]:
        # As verified_pieces does, without the blocks around it, which take a tenth of the time of a small file.
        try:
            yield from verified_chunks(self._bundle.offer(digest, size).pieces(), digest, size)
        except ContentMismatch as error:
            raise damaged(self._bundle, digest, str(error)) from None
        except OSError as error:
            raise HoloError(f"cannot read blob {digest} in {self._bundle.name}: {error.strerror}") from error

    def clone(
        self, digest: str, size: int, directory: Directory, name: str, mode: int, *, verify: bool = False
    ) -> int | None:
        if size < WORTH_CLONING:
            return None
        with self._bundle.open(digest, size) as offer:
            if offer.frame is not None:
                return None
            target = platform.create_file(directory, name, mode)
            try:
                self._fill(target, digest, offer, verify=verify)
            except BaseException as error:
                os.close(target)
                platform.remove_file(directory, name)
                if isinstance(error, OSError) and error.errno in platform.UNAVAILABLE:
                    return None
                raise
            return target

    def _fill(self, target: int, digest: str, offer: Offer, *, verify: bool) -> None:
        offer.fill(target)
        try:
            for _ in verified_chunks(offer.pieces(), digest, offer.size):
                pass
        except ContentMismatch as error:
            raise damaged(self._bundle, digest, str(error)) from None
        if (verify or not self._bundle.is_unchanged()) and digests.of_file(target) != digest:
            raise damaged(self._bundle, digest, "it changed while it was read")

    def why_no_reflink(self, target: Directory) -> str | None:
        return self._bundle.why_no_reflink(target)


@contextmanager
def carrier_of(path: str, *, trust: Trust, keep_setid: bool) -> Iterator[tuple[CatalogRef, Carrier]]:
    """The only catalog of the bundle at a path, and what to restore it from.

    Raises :class:`UsageError` if it has several, :class:`~holo.errors.CatalogInvalid` for one that gives rights unless
    ``keep_setid``, what ``trust`` raises for its signature, and what opening a bundle raises.
    """
    with opened(path) as bundle:
        ref = only_catalog(bundle)
        carrier = _carrier(bundle, ref.digest, trust)
        if not keep_setid:
            refuse_rights(carrier.catalog, f"{ref.name} in {path}")
        _refuse_incomplete(bundle, carrier.catalog)
        yield ref, carrier


@contextmanager
def carrier_of_space(space: Space, *, trust: Trust) -> Iterator[Carrier]:
    """The catalog of a space, whatever rights it gives, from the bundle that the space was restored from.

    Raises :class:`NotFound` if that is not where it was, what ``trust`` raises for its signature, and what opening a
    bundle raises.
    """
    what = f"the bundle that space {space.name!r} was restored from"
    if not os.path.exists(space.bundle):
        raise NotFound(
            f"{what} is gone: {space.bundle}",
            "Put it back, or import it from wherever it is: `holo import FILE`.",
        )
    with opened(space.bundle) as bundle:
        if space.digest not in {digest for _, digest in bundle.manifest.catalogs}:
            raise NotFound(
                f"{what} has been replaced by another one: {space.bundle}",
                "Import the earlier one: `holo import FILE`. Or turn the space into what the new one holds: "
                "`holo init SPACE FILE --force`.",
            )
        carrier = _carrier(bundle, space.digest, trust)
        _refuse_incomplete(bundle, carrier.catalog)
        yield carrier


def _carrier(bundle: Bundle, digest: str, trust: Trust) -> Carrier:
    trust.require_catalog(digest, bundle.signature(digest), bundle.name)
    return Carrier(bundle.name, bundle.catalog(digest), BundleContents(bundle))


def _refuse_incomplete(bundle: Bundle, catalog: Catalog) -> None:
    """Raise :class:`NotFound` if a blob was left out, before anything is made."""
    if count := bundle.lacking(catalog):
        raise NotFound(
            f"{count} of the blobs of the catalog are not in {bundle.name}",
            "A bundle that was made with --known is for `holo import`, where the rest of it was imported before.",
        )


def only_catalog(bundle: Bundle) -> CatalogRef:
    """The catalog of a bundle that has one. Raises :class:`UsageError` if there are several."""
    digests_in = {digest for _, digest in bundle.manifest.catalogs}
    if len(digests_in) > 1:
        names = ", ".join(name or digest[:12] for name, digest in bundle.manifest.catalogs)
        raise UsageError(
            f"{bundle.name} holds {len(digests_in)} catalogs: {names}",
            "Take it into the library with `holo import FILE`, and name one of them then.",
        )
    name, digest = bundle.manifest.catalogs[0]
    return CatalogRef(name or digest[:12], digest)
