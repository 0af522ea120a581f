"""A catalog file, whose blobs are in the ``library`` folder beside it or beside its folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from holo import digest as digests
from holo.catalog import Catalog
from holo.errors import HoloError, advice
from holo.files import read_file
from holo.hololib import CatalogRef, Library
from holo.hololib.catalogs import read_catalog_file
from holo.record import default_name
from holo.signatures import CATALOG, LARGEST, Trust, canonical
from holo.transport.adopt import Wanted, adopt, refuse_rights
from holo.transport.source import Folder
from holo.walk import absolute


def read(path: str) -> Wanted:
    """The catalog in a file, under the file's name unless that is a digest.

    However the file is laid out, the library keeps the canonical document, which the digest is of. Raises
    :class:`~holo.errors.NotFound` and :class:`~holo.errors.CatalogInvalid`.
    """
    data, _ = read_catalog_file(path, follow=True)
    catalog = Catalog.from_json(Catalog.from_json(data, path).to_json(), path)
    name = default_name(absolute(path).removesuffix(".json"))
    return Wanted(catalog, None if digests.is_digest(name) else name, path)


def take_in(
    library: Library, path: str, approve: Callable[[str, str], object], *, trust: Trust, keep_setid: bool, workers: int
) -> CatalogRef:
    """Adopt the catalog in a file. ``approve`` is called with its name and digest before that, and may raise."""
    wanted = read(path)
    signature = _signature_beside(path)
    is_trusted = trust.require_catalog(wanted.catalog.digest, signature, path) is not None
    wanted = wanted._replace(signature=signature, is_trusted=is_trusted)
    if not keep_setid:
        refuse_rights(wanted.catalog, path)
    approve(wanted.name or wanted.catalog.digest[:12], wanted.catalog.digest)
    return adopt(library, [wanted], source_beside(path), keep_setid=keep_setid, workers=workers).catalogs[0]


def is_catalog_file(path: str) -> bool:
    """Whether a file is to be read as a catalog: by its name, or by what is in it."""
    return path.endswith(".json") or b'"directories"' in read_catalog_file(path, follow=True)[0]


def _signature_beside(path: str) -> bytes | None:
    """The signature of the catalog in a file: ``FILE.sig``, or with that ending instead as in an unzipped bundle."""
    for beside in (f"{path}.sig", f"{path.removesuffix('.json')}.sig"):
        with suppress(FileNotFoundError):
            try:
                data, _ = read_file(beside, LARGEST, follow=True)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise HoloError(f"cannot read the signature {beside}: {error.strerror}", advice(error)) from error
            return canonical(data, CATALOG, path)
    return None


def source_beside(path: str) -> Folder | None:
    """The library of a catalog file, if there is one: beside it or, as in an unzipped bundle, beside its folder."""
    folder = os.path.dirname(absolute(path))
    for beside in (folder, os.path.dirname(folder)):
        library = os.path.join(beside, "library")
        if os.path.isdir(library):
            return Folder(library)
    return None
