"""What a user means by a name in a question: a space, a catalog, or a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from holo.answers.tree import Tree, tree_of_space
from holo.errors import NotFound
from holo.hololib import CatalogRef
from holo.home import Home
from holo.selection import abbreviated, catalog_taken, say_space_is_taken
from holo.space import Space
from holo.walk import absolute


class Bundle(NamedTuple):
    """A file with one catalog."""

    path: str


def meant(home: Home, reference: str) -> Space | CatalogRef | Bundle:
    """What is meant: a space, a catalog, a bundle, or the path of a space. Raises :class:`NotFound`."""
    if os.sep not in reference:
        if reference in home.spaces.names():
            say_space_is_taken(home, reference)
            return home.spaces.get(reference)
        if home.library.catalogs.is_catalog(reference):
            return catalog_taken(home, reference)
    from holo.transport.bundle import is_bundle

    if is_bundle(reference):
        return Bundle(absolute(reference))
    if os.path.isdir(reference) and (space := home.spaces.at(reference)) is not None:
        return space
    if os.sep in reference or os.path.exists(reference):
        raise NotFound(f"{reference} is neither a bundle nor a space", "`holo record` makes a catalog of a directory.")
    return meant(home, abbreviated(home, reference, "bundle"))


def meant_as_recorded(home: Home, reference: str) -> Space | CatalogRef | Bundle:
    """The same, but a catalog comes before a space of its name, since an SBOM is bound to a digest."""
    catalogs, spaces = home.library.catalogs, home.spaces
    if reference not in catalogs.names():
        return meant(home, reference)
    if reference in spaces.names():
        home.on_wait(f"taking catalog {reference!r}, not the space at {spaces.get(reference).path}")
    return catalog_taken(home, reference)


@contextmanager
def opened(home: Home, *items: Space | CatalogRef | Bundle) -> Iterator[list[Tree]]:
    """Their trees, kept from changing by other commands."""
    with ExitStack() as stack:
        for space in {item.name: item for item in items if isinstance(item, Space)}.values():
            home.spaces.refuse_copied(space)
            stack.enter_context(home.spaces.lock(space.name, home.on_wait, exclusive=False))
        if not all(isinstance(item, Bundle) for item in items):
            stack.enter_context(home.using_library())
        yield [_opened(home, item, stack) for item in items]


def _opened(home: Home, item: Space | CatalogRef | Bundle, stack: ExitStack) -> Tree:
    library = home.library
    if isinstance(item, CatalogRef):
        catalog = library.catalogs.read(item.digest)
        return Tree(catalog, library.blobs, catalog.prefix, item)
    space = home.spaces.get(item.name) if isinstance(item, Space) else None  # as its record says now
    if space is not None:
        home.spaces.refuse_unseen(space)
        if not space.bundle or library.catalogs.has(space.digest):
            catalog = library.catalogs.read(space.digest)
            return stack.enter_context(tree_of_space(home, space, catalog, library.blobs))
    from holo.signatures import Trust
    from holo.transport.direct import carrier_of, carrier_of_space

    nobody = Trust(None, None)  # to list a bundle, its user need not trust it
    if space is not None:
        carrier = stack.enter_context(carrier_of_space(space, trust=nobody))
        return stack.enter_context(tree_of_space(home, space, carrier.catalog, carrier.contents))
    ref, carrier = stack.enter_context(carrier_of(item.path, trust=nobody, keep_setid=True))
    return Tree(carrier.catalog, carrier.contents, carrier.catalog.prefix, ref)
