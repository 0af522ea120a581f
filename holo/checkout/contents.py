"""What files are made from: the blobs of a library, or a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from holo.catalog import Catalog
from holo.content import Piece
from holo.platform import Directory


class Readable(Protocol):
    """What can give out contents."""

    def chunks(self, digest: str, size: int) -> Iterator[Piece]:
        """The content, verified before the last piece is given out.

        Raises :class:`~holo.errors.IntegrityError` if it is wrong or not there, and :class:`~holo.errors.HoloError`.
        """


class Contents(Readable, Protocol):
    """A place that has the content of every file of a catalog; :class:`holo.hololib.blobs.Blobs` is one."""

    def clone(
        self, digest: str, size: int, directory: Directory, name: str, mode: int, *, verify: bool = False
    ) -> int | None:
        """Make ``name`` in ``directory`` share its blocks with the content; returns the open file.

        ``None``: this one has to be copied. Raises as :meth:`chunks` does, and :class:`OSError`.
        """

    def why_no_reflink(self, target: Directory) -> str | None:
        """Try whether files in ``target`` can share blocks with the contents; ``None`` if so, else why not."""


class Carrier(NamedTuple):
    """A catalog that is not in the library, and where its contents are: in a bundle."""

    path: str
    """of the bundle"""
    catalog: Catalog
    contents: Contents
