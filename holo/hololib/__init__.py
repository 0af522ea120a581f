"""The library: blobs under ``library/``, catalogs under ``catalog/``, their names under ``names/``.

    hololib/
      library/ab/<digest>        one content, raw: mode 0444, a fixed mtime (its seal)
      library/ab/<digest>.zst    the same content, compressed; a blob exists if either form does
      catalog/<digest>.json      published last, by one rename, when all its blobs are durable
      names/<name>.json          which catalog a name means, and its summary for listings
      used/<digest>-<user>       empty; its mtime says when that user used the catalog last
      links/ab/...               derived: files that a user's hardlinked spaces share (see holo.hololib.links)

``library``, ``catalog`` and ``names`` are the truth; everything else can be deleted at any time. A file that
is being written has a name that begins with ``.draft-``; after a crash it is garbage.
"""

from __future__ import annotations

from holo.hololib.catalogs import CatalogSummary
from holo.hololib.library import Library
from holo.hololib.reference import CatalogRef

__all__ = ["CatalogRef", "CatalogSummary", "Library"]
