"""Golden trees: a catalog restored once, so that a space of it is one snapshot, whatever its size.

A golden tree is a read-only Btrfs subvolume ``hololib/golden/<digest>`` that holds the whole tree as it was
recorded; the files that name their own path are made anew in every snapshot. Golden trees are derived: lost or
deleted ones are made again from blobs, and a catalog takes its golden tree with it. Beside each lies its outline
(:mod:`holo.trees.outline`), with a seal by which a tree that was changed is noticed: it is not used but made again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from holo import platform
from holo.catalog import Catalog
from holo.checkout.attributes import CAPABILITY, can_keep
from holo.checkout.engine import OnProgress
from holo.checkout.plan import plan
from holo.checkout.populate import Content, populate, prepare
from holo.checkout.proof import packed
from holo.checkout.strategy import Method
from holo.checkout.survey import Finding, Survey, survey_of_empty
from holo.checkout.tally import Tally
from holo.content import write_all
from holo.errors import CatalogInvalid, HoloError
from holo.hololib import Library
from holo.hololib.golden import remove_golden
from holo.hololib.locks import locked
from holo.hololib.shards import DRAFT, temporary_name
from holo.home import Home
from holo.owners import is_mine
from holo.platform import Directory
from holo.relocation.patch import Relocator
from holo.remove import remove
from holo.trees.outline import Outline, as_recorded, body_of, read_outline
from holo.walk import make_folders

_REAL_FAILURES = frozenset({errno.ENOSPC, errno.EIO})
"""What making or copying a subvolume may answer that another way would not cure. All else (no Btrfs, another
filesystem, no permission, a quota of subvolumes) means: restore file by file."""


def find_outline(library: Library, digest: str) -> tuple[Outline, Catalog] | None:
    """The outline of a catalog's golden tree and what it parses to, if there is one that is as it was made."""
    golden = _folder(library)
    try:
        with (
            platform.closing(platform.open_root(golden)) as folder,
            platform.closing(platform.open_child(folder, digest)) as tree,
        ):
            outline = _outline_of_sound(golden, tree, digest)
        return (outline, outline.parse_catalog()) if outline is not None else None
    except (OSError, ValueError, CatalogInvalid):
        return None


class Golden:
    """The golden tree of one catalog, to be made if it is not there."""

    def __init__(
        self,
        home: Home,
        digest: str,
        load: Callable[[], Catalog],
        known: Outline | None,
        on_progress: OnProgress | None,
    ) -> None:
        """``load`` returns the whole catalog, which is only needed to make the tree. ``known``: the tree's outline."""
        self._home = home
        self._library = home.library
        self._path = _folder(home.library)
        self._digest = digest
        self._load = load
        self._known = known
        self._on_progress = on_progress

    def snapshot(self, directory: Directory, name: str) -> Outline | None:
        """Make ``name`` in ``directory`` a writable copy of the golden tree, which is made first if there is none.

        Returns the tree's outline. ``None``: not possible here, and nothing is left behind. Raises :class:`HoloError`
        for a full disk and the like.
        """
        try:
            for _ in range(2):
                tree, outline = self._open()
                try:
                    platform.snapshot(tree, directory, name)
                    # That wrote out what a program has changed in the tree a moment ago, and now it shows.
                    if _is_as_made(tree, outline):
                        return outline
                finally:
                    platform.close_directory(tree)
                remove(directory, name)
        except OSError as error:
            if error.errno in _REAL_FAILURES:
                raise HoloError(f"cannot make a golden tree in {self._library.path}: {error.strerror}") from error
        return None

    def _open(self) -> tuple[Directory, Outline]:
        make_folders(self._path)
        with platform.closing(platform.open_root(self._path)) as folder:
            found = self._open_sound(folder)
            if found is not None:
                return found
            if not os.access(self._path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._path)
            # One maker at a time: whoever waited finds it made, and any draft there is left from a killed maker.
            what = f"the golden trees of {self._library.path}"
            with locked(os.path.join(self._path, ".lock"), what, exclusive=True, on_wait=self._home.on_wait):
                found = self._open_sound(folder)
                if found is not None:
                    return found
                remove_golden(self._library.path, self._digest)
                outline = self._make(self._load(), folder)
                return platform.open_child(folder, self._digest), outline

    def _open_sound(self, folder: Directory) -> tuple[Directory, Outline] | None:
        """Open a golden tree; ``None`` if there is none that is as it was made. Raises :class:`OSError`.

        It must be this user's: a snapshot belongs to whom its source does, and a space is its maker's.
        """
        try:
            tree = platform.open_child(folder, self._digest)
        except FileNotFoundError:
            return None
        try:
            if not is_mine(platform.status(tree, "")):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), self._digest)
            if self._known is not None and _is_as_made(tree, self._known):
                return tree, self._known
            with suppress(OSError, ValueError):
                outline = _outline_of_sound(self._path, tree, self._digest)
                if outline is not None:
                    return tree, outline
        except BaseException:
            platform.close_directory(tree)
            raise
        platform.close_directory(tree)
        return None

    def _make(self, catalog: Catalog, folder: Directory) -> Outline:
        _remove_drafts(folder)
        draft = DRAFT + temporary_name()
        platform.make_tree(folder, draft)
        try:
            with platform.closing(platform.open_child(folder, draft)) as tree:
                outline = self._fill(catalog, tree, os.path.join(self._path, draft))
                _write_outline(outline, folder)
            # The name makes it golden, so it comes last: an outline alone does no harm, a golden tree alone would go
            # without for ever. (A read-only subvolume can be renamed in its folder.)
            platform.rename(folder, draft, folder, catalog.digest)
        except BaseException:
            remove(folder, draft)
            raise
        return outline

    def _fill(self, catalog: Catalog, tree: Directory, shown: str) -> Outline:
        """Make the open subvolume the tree as it was recorded, read-only and on the disk."""
        platform.own_group(tree)
        _refuse_inexact(_cannot_have(catalog, tree))
        recorded = as_recorded(catalog)
        content = Content(self._library.blobs, recorded, Relocator.of(catalog, catalog.prefix), Method.REFLINK)
        todo = plan(recorded, survey_of_empty(recorded), content.relocator, content.method)
        tally = populate(tree, shown, prepare(content, todo), self._home.workers, self._on_progress)
        _refuse_inexact(bool(tally.divided or tally.lost))
        if tally.copied:
            # A clone's data is on the disk, and the clone itself at the latest when the next name is: Btrfs writes
            # whole transactions. A copy would change the tree later, or be lost with nobody looking.
            platform.sync_filesystem(tree)
        platform.set_read_only(tree, True)
        tree_seal = platform.tree_seal(tree)
        if tree_seal is None:  # Linux before 4.18
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return Outline(catalog.digest, tree_seal, packed(catalog, tally.directories), body_of(catalog))


def patch_tree(root: Directory, shown: str, content: Content, workers: int, *, is_recorded: bool) -> Tally:
    """Make a fresh copy of a tree a space: patch what names its own path. Returns what was made.

    ``content``: of the tree's outline. ``is_recorded``: its files name the recorded path. Otherwise those that name one
    are made anew, whichever that is.
    """
    outline, relocator = content.catalog, content.relocator
    todo = plan(outline, _survey_of_copy(outline, relocator, is_recorded), relocator, Method.SNAPSHOT)
    return populate(root, shown, prepare(content, todo), workers)


def _survey_of_copy(outline: Catalog, relocator: Relocator, is_recorded: bool) -> Survey:
    """How a fresh copy of a tree differs from a space: in what names its own path."""
    findings = []
    for path, _, _, files, links in outline.directories:
        base = path + "/" if path else ""
        rows = [row for row in files if not is_recorded or relocator.applies(outline.relocations[base + row[0]])]
        if rows or links or not path:
            names = [row[0] for row in rows] + [row[0] for row in links]
            findings.append(Finding(path, replace=names, files=rows, symlinks=links, attributes=True))
    return Survey(findings)


def _folder(library: Library) -> str:
    return os.path.join(library.path, "golden")


def _outline_of_sound(golden: str, tree: Directory, digest: str) -> Outline | None:
    """The outline of an open golden tree, if the tree is as it was made. Raises as :func:`read_outline` does."""
    outline = read_outline(os.path.join(golden, digest + ".json"), digest)
    return outline if _is_as_made(tree, outline) else None


def _is_as_made(tree: Directory, outline: Outline) -> bool:
    with suppress(OSError):
        return outline.tree_seal == platform.tree_seal(tree)
    return False


def _write_outline(outline: Outline, folder: Directory) -> None:
    draft = DRAFT + temporary_name()
    with platform.closing(platform.create_file(folder, draft, 0o644)) as descriptor:
        write_all(descriptor, outline.to_bytes())
        platform.sync_file(descriptor)
    platform.rename(folder, draft, folder, outline.digest + ".json")


def _remove_drafts(folder: Directory) -> None:
    """Remove what killed makers left."""
    with platform.listing(folder) as entries:
        stale = [entry.name for entry in entries if entry.name.startswith(DRAFT)]
    for name in stale:
        with suppress(OSError):  # another user's, perhaps
            remove(folder, name)


def _refuse_inexact(is_inexact: bool) -> None:
    """Raise :class:`OSError` if the tree is not exactly as recorded: each space is to say so of itself."""
    if is_inexact:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _cannot_have(catalog: Catalog, tree: Directory) -> bool:
    """Whether files of the catalog have capabilities, and this user may not give them."""
    given = next((values[CAPABILITY] for values in catalog.xattrs.values() if CAPABILITY in values), None)
    return given is not None and not can_keep((tree,), CAPABILITY, given)
