"""Compare golden trees and spaces with their catalogs, by reading everything: what `restore --verify` would find."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

from holo import platform
from holo.catalog import Catalog
from holo.checkout.contents import Contents
from holo.checkout.proof import NO_PROOF
from holo.checkout.strategy import Method
from holo.checkout.stubs import Stubs
from holo.checkout.survey import Expectation, as_restored, survey
from holo.errors import HoloError
from holo.filetimes import EXACT, FileTimes, try_out
from holo.hololib import Library
from holo.platform import Directory
from holo.relocation.patch import Relocator
from holo.space import Space
from holo.trees.outline import as_recorded, body_of, read_outline
from holo.trees.stubs import attributes, parts_of
from holo.walk import open_directory


def golden_differences(library: Library, catalog: Catalog, workers: int) -> Iterator[tuple[str, str]]:
    """Every difference of a golden tree from its catalog: path in the tree, and what is wrong there."""
    folder = os.path.join(library.path, "golden")
    try:
        outline = read_outline(os.path.join(folder, catalog.digest + ".json"), catalog.digest)
        tree = open_directory(os.path.join(folder, catalog.digest))
    except OSError as error:
        yield "", f"it or its outline cannot be opened: {error.strerror}"
        return
    except ValueError:
        yield "", "its outline is damaged"
        return
    try:
        if outline.tree_seal != platform.tree_seal(tree):
            yield "", "it was changed after it was made"
        if outline.body != body_of(catalog):
            yield "", "its outline is not that of its catalog"
        yield from _compare(tree, library.blobs, _as_recorded(catalog, EXACT), workers)
    finally:
        platform.close_directory(tree)


def tree_differences(library: Library, path: str, catalog: Catalog, workers: int) -> Iterator[tuple[str, str]]:
    """Every difference of a tree that throw-away environments are mounted over from its catalog.

    What stubs lead to is read as well, for it may not be the library's blob any more.
    """
    expected = _as_recorded(catalog, _times_in(os.path.dirname(path)))
    with ExitStack() as opened:

        def opened_at(path: str) -> Directory:
            directory = open_directory(path)
            opened.callback(platform.close_directory, directory)
            return directory

        try:
            if os.path.basename(path) != catalog.digest:
                path, blobs = parts_of(path)
                expected = expected._replace(stubs=Stubs(library.blobs, opened_at(blobs), attributes()))
            tree = opened_at(path)
        except OSError as error:
            yield "", f"it cannot be opened: {error.strerror}"
            return
        yield from _compare(tree, library.blobs, expected, workers)


def _times_in(folder: str) -> FileTimes:
    """How the filesystem of a folder of holo's keeps times. The folder's own time is changed by trying it out."""
    try:
        directory = open_directory(folder)
    except OSError:
        return EXACT
    try:
        return try_out(directory)
    finally:
        platform.close_directory(directory)


def space_differences(contents: Contents, space: Space, catalog: Catalog, workers: int) -> Iterator[tuple[str, str]]:
    """Every difference of a space from its catalog: path in the space, and what is wrong there."""
    if space.is_unmounted:
        yield "", "it is not mounted: the system was started again, say"
        return
    if space.state != "pristine":
        yield "", "its last restore has not ended"
    if space.is_moved:
        yield "", f"its home was moved or copied, and its files still name {space.made_for}"
    try:
        root = open_directory(space.path)
    except OSError as error:
        yield "", f"it cannot be opened: {error.strerror}"
        return
    try:
        yield from _compare(root, contents, as_restored(space, catalog), workers)
    finally:
        platform.close_directory(root)


def count_as_recorded(library: Library, space: Space, catalog: Catalog, workers: int) -> int:
    """How many files of a space are as the last restore left them. Raises :class:`OSError`."""
    with platform.closing(open_directory(space.path)) as root:
        findings = survey(root, as_restored(space, catalog), library.blobs, workers).findings
    return catalog.totals.files - sum(len(finding.files) for finding in findings)


def _as_recorded(catalog: Catalog, times: FileTimes) -> Expectation:
    relocator = Relocator.of(catalog, catalog.prefix)
    return Expectation(as_recorded(catalog), relocator, Method.REFLINK, NO_PROOF, times)


def _compare(root: Directory, contents: Contents, expectation: Expectation, workers: int) -> Iterator[tuple[str, str]]:
    try:
        findings = survey(root, expectation, contents, workers).findings
    except HoloError as error:
        yield "", error.message
        return
    for finding in findings:
        path = finding.path
        if finding.missing:
            yield path, "it cannot be read" if finding.unreadable else "it is not there"
            continue
        if finding.attributes:
            yield path, "its mode, time or attributes are not as recorded"
        base = path + "/" if path else ""
        for name in finding.extra:
            yield base + name, "it is not in the catalog"
        for name in finding.replace:
            yield base + name, "it is not as recorded"
        made = {row[0] for row in finding.files} | {row[0] for row in finding.symlinks}
        for name in sorted(made.difference(finding.replace)):
            yield base + name, "it is not there"
