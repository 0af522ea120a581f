"""Take in a catalog file, with the blobs it needs from the ``library`` folder beside it."""

from __future__ import annotations

import os
from collections.abc import Callable

from holo.catalog import Catalog
from holo.errors import CatalogInvalid, NotFound
from holo.hololib import CatalogRef, Library
from holo.hololib.catalogs import read_catalog_file
from holo.record import default_name
from holo.relocation.patch import Relocator
from holo.walk import absolute


def take_in(library: Library, path: str, approve: Callable[[str, str], object], *, keep_setid: bool) -> CatalogRef:
    """Publish the catalog in a file, under the file's name.

    ``approve`` is called with its name and digest before anything is stored, and may raise. Raises
    :class:`CatalogInvalid` for a malformed file, or one that gives rights without ``keep_setid``; :class:`NotFound` for
    missing blobs. The caller holds the library's lock, shared.
    """
    # However the file is laid out, the library keeps the canonical document, which the digest is of.
    data, _ = read_catalog_file(path, follow=True)
    if not path.endswith(".json") and b'"directories"' not in data:
        from holo.blueprints.blueprint import unknown

        raise unknown(path)
    catalog = Catalog.from_json(Catalog.from_json(data, path).to_json(), path)
    if not keep_setid and (file := catalog.privileged()) is not None:
        raise CatalogInvalid(
            f"catalog {path} gives rights with setuid, setgid or capabilities: {file}",
            "Whoever may run that would act as you. If you trust who made the catalog: --keep-setid.",
        )
    ref = CatalogRef(default_name(absolute(path).removesuffix(".json")), catalog.digest)
    approve(*ref)
    beside = os.path.join(os.path.dirname(absolute(path)), "library")
    blobs = library.blobs
    missing = {row[4]: row[2] for _, row in catalog.files() if not blobs.has(row[4], row[2])}
    if missing and not os.path.isdir(beside):
        raise NotFound(
            f"{len(missing)} blobs of {path} are neither in {library.path} nor in {beside}",
            "A catalog file needs its library beside it: put that there.",
        )
    relocator = Relocator(catalog.prefix, catalog.prefix)
    for file, (_, _, size, _, digest) in catalog.files():
        if file in catalog.relocations:
            chunks = blobs.foreign_chunks(beside, digest, size) if digest in missing else None
            relocator.check(chunks or blobs.chunks(digest, size), catalog.relocations[file], file)
    with library.unsettled.record("Nothing was taken into the library."):
        blobs.take(beside, missing)
        library.catalogs.publish(catalog, ref.name)
    return ref
