"""Carry out a plan below an open directory: the one way in which files of a catalog come to be anywhere.

restore, golden tree, patched snapshot, stage of a build, tree and layer of a throw-away environment:
plan -> prepare (reads and checks, writes nothing) -> populate
"""

from __future__ import annotations

from typing import NamedTuple

from holo import platform
from holo.catalog import Catalog
from holo.checkout.contents import Contents
from holo.checkout.engine import Engine, OnProgress
from holo.checkout.materialize import Materializer
from holo.checkout.plan import Plan, plan
from holo.checkout.strategy import Method
from holo.checkout.stubs import Stubs
from holo.checkout.survey import survey_of_empty
from holo.checkout.tally import Tally
from holo.errors import os_errors_as
from holo.hololib import Library
from holo.hololib.links import Links
from holo.platform import Directory
from holo.relocation.patch import Relocator


class Content(NamedTuple):
    """What is to be made, where its bytes come from, and how they get there."""

    contents: Contents
    catalog: Catalog
    """all of it, or the part that the plan is about"""
    relocator: Relocator
    method: Method
    links: Links | None = None
    """of the library, if the method is hardlinks"""
    verify: bool = False
    """hash shared content as well, which is not read otherwise"""
    stubs: Stubs | None = None
    """make these, where a file can be one"""


class Prepared(NamedTuple):
    """A plan whose relocated files were held against their blobs, so that only the disk can fail it."""

    content: Content
    plan: Plan
    materializer: Materializer


def prepare(content: Content, todo: Plan) -> Prepared:
    """Check the recorded offsets of all files to be patched. Raises :class:`CatalogInvalid` before any write."""
    materializer = Materializer(
        content.contents,
        content.links,
        content.catalog,
        content.relocator,
        content.method,
        verify=content.verify,
        stubs=content.stubs,
    )
    materializer.check(todo.fills)
    return Prepared(content, todo, materializer)


def populate(
    root: Directory, shown: str, prepared: Prepared, workers: int, on_progress: OnProgress | None = None
) -> Tally:
    """Carry out a plan below ``root``, whose path for messages is ``shown``. Returns what was made.

    The caller holds the library's lock, shared. Raises :class:`HoloError` naming the path; what was done stays done.
    """
    engine = Engine(root, shown, prepared.materializer, prepared.content.catalog.xattrs, workers)
    return engine.execute(prepared.plan, on_progress)


def populate_empty(
    library: Library, catalog: Catalog, relocator: Relocator, path: str, workers: int, stubs: Stubs | None = None
) -> Tally:
    """Make the empty directory ``path`` equal to a catalog, or a part of one, patched as ``relocator`` says."""
    with os_errors_as(f"cannot make {path}"), platform.closing(platform.open_root(path)) as root:
        method = Method.REFLINK if library.blobs.why_no_reflink(root) is None else Method.COPY
        content = Content(library.blobs, catalog, relocator, method, verify=library.may_be_torn, stubs=stubs)
        todo = plan(catalog, survey_of_empty(catalog), relocator, method)
        return populate(root, path, prepare(content, todo), workers)


def unpack(library: Library, digest: str, path: str, workers: int, project: str = "") -> None:
    """Make the empty directory ``path`` equal to a catalog, patched for its path and that of its ``project``."""
    catalog = library.catalogs.load(digest)
    relocator = Relocator.of(catalog, path, project)
    relocator.refuse_impossible(catalog.relocations)
    populate_empty(library, catalog, relocator, path, workers)
