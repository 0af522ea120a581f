"""A whole tree at once: the space becomes a spare of its catalog, or a snapshot of the golden tree.

A new space is made in its place. An existing one is replaced by a finished one in one step: who works in the old one
goes on in it until they leave. Whatever else can supply a whole tree has its place here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from holo import platform
from holo.catalog import Catalog
from holo.checkout.populate import Content
from holo.checkout.proof import stamp_before
from holo.checkout.strategy import Decision, Method
from holo.checkout.tally import Tally
from holo.errors import os_errors_as
from holo.platform import Directory
from holo.remove import remove
from holo.restore.job import Done, Job, open_space
from holo.restore.marks import draft_of, marked, record_of
from holo.space import Space
from holo.trees.golden import Golden, patch_tree
from holo.trees.spares import Spares, is_short_of
from holo.walk import Walker


class Tree(NamedTuple):
    """A whole tree that was put beside the place of the space."""

    inodes: bytes
    """of its directories"""
    is_recorded: bool
    """whether its files name the recorded path. Otherwise all that name one are made anew"""
    stamp: int | None = None
    """up to which ctime its files are known; ``None``: nobody else had it yet"""


_Fetch: TypeAlias = Callable[[Directory, str], Tree | None]
"""Puts a tree under a name into a folder; ``None`` if that is not possible."""


def supply_snapshot(job: Job, decision: Decision, part: Catalog) -> Done | None:
    """Make the space a snapshot of the golden tree; ``None`` if that is not possible here.

    ``part``: the files of the catalog that the space must make anew, as in the tree's outline.
    """
    golden = Golden(job.home, job.catalog.digest, job.wanted.load, job.wanted.outline, job.options.on_progress)

    def fetch(folder: Directory, draft: str) -> Tree | None:
        outline = golden.snapshot(folder, draft)
        return Tree(outline.inodes, is_recorded=True) if outline is not None else None

    record = record_of(job, decision)._replace(used=Method.SNAPSHOT.value)
    tally = _supply(job, record, part, fetch)
    return Done(decision._replace(used=Method.SNAPSHOT), tally) if tally is not None else None


def supply_spare(job: Job) -> Done | None:
    """Make the space a spare of its catalog; ``None`` if there is none, or not on its filesystem."""
    spares = Spares(job.home.spaces)
    requested = job.options.strategy
    if not (job.may_be_supplied and spares.ready(job.catalog.digest)):
        return None
    with spares.taking(job.catalog.digest, requested) as spare:
        if spare is None or (job.options.strict and spare.record.reason is not None):
            return None
        known, outline = spare.record, spare.outline
        decision = Decision(requested, Method(known.used), known.reason)

        def fetch(folder: Directory, draft: str) -> Tree | None:
            is_moved = spares.take(known.name, folder, draft)
            if is_moved:
                spares.drop(known.name)  # another may be wanted now
            return Tree(outline.inodes, is_recorded=False, stamp=known.stamp) if is_moved else None

        record = record_of(job, decision)._replace(times=known.times, modes=known.modes, own=known.own)
        part = job.wanted.part if job.wanted.outline is not None else outline.parse_catalog()
        tally = _supply(job, record, part, fetch)
    return Done(decision, tally, is_spare=True) if tally is not None else None


def _supply(job: Job, record: Space, part: Catalog, fetch: _Fetch) -> Tally | None:
    """Let a tree that is fetched take the place of the space; what was made, with what it has already."""
    parent = os.path.dirname(job.target.path)
    with os_errors_as(f"cannot make the folder {parent}"):
        os.makedirs(parent, exist_ok=True)
        folder = platform.open_root(parent)
    try:
        tally = _exchange(job, record, part, fetch, folder)
    finally:
        platform.close_directory(folder)
    if tally is not None:
        totals = job.wanted.totals
        if record.used == Method.COPY:
            tally.copied, tally.written_bytes = totals.files, totals.bytes
        tally.reflinked = totals.files - tally.copied
        tally.shared_bytes = totals.bytes - tally.written_bytes
    return tally


def _exchange(job: Job, record: Space, part: Catalog, fetch: _Fetch, folder: Directory) -> Tally | None:
    home, target = job.home, job.target
    name = os.path.basename(target.path)
    draft = draft_of(name)
    with marked(home, record._replace(draft=draft), target):
        tree = fetch(folder, draft)
        if tree is None:
            return None
        root = platform.open_child(folder, draft)
        is_in_place = False
        try:
            method = Method.COPY if record.used == Method.COPY else Method.REFLINK
            content = Content(home.library.blobs, part, job.wanted.relocator, method)
            tally = patch_tree(root, target.path, content, home.workers, is_recorded=tree.is_recorded)
            tally.removed = _count_extra(job, root)
            is_in_place = _put_in_place(job, folder, draft, name)
            if not is_in_place:
                return None
            stamp = tree.stamp
            if stamp is None:
                stamp = stamp_before(platform.status(root, "").st_ctime_ns, record.times)
            inodes = home.spaces.save_inodes(target.space, tree.inodes)
            own = tally.written_bytes if record.used == Method.SNAPSHOT else record.own
            finished = record.finished(stamp, platform.identity(root), inodes, own)
        finally:
            platform.close_directory(root)
            # The old tree, or one that could not take its place.
            if not (is_in_place and _give_back(job, folder, draft)):
                remove(folder, draft)
        home.spaces.save(finished)
    return tally


def _give_back(job: Job, folder: Directory, name: str) -> bool:
    """Make the old tree of the space a spare, if one is wanted."""
    known = job.target.known
    if known is None or job.target.is_new or not is_short_of(job.home, known.digest):
        return False
    return Spares(job.home.spaces).give_back(known, folder, name)


def _put_in_place(job: Job, folder: Directory, draft: str, name: str) -> bool:
    """Let the draft be the space; ``False``: what is there can be changed but not replaced, a mount point, say."""
    try:
        with job.home.spaces.try_lock_mount_point(job.target.space) as is_free:
            if not is_free:
                return False
            if job.target.is_new and not job.target.is_anothers:
                with suppress(FileNotFoundError):
                    platform.remove_directory(folder, name)
                platform.rename(folder, draft, folder, name)
            else:
                platform.exchange(folder, draft, name)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True


def _count_extra(job: Job, snapshot: Directory) -> int:
    """How many files and symlinks the changed directories of the old space have more than those of the snapshot."""
    if not job.changed():
        return 0
    space = open_space(job.target)
    walker, reference = Walker(space), Walker(snapshot)
    count = 0
    try:
        for path in job.changed():
            mine, theirs = _names(walker, path), _names(reference, path)
            for name in mine.keys() - theirs:
                count += _count_files(walker, f"{path}/{name}" if path else name) if mine[name] else 1
    finally:
        walker.close()
        reference.close()
        platform.close_directory(space)
    return count


def _count_files(walker: Walker, path: str) -> int:
    count, folders = 0, [path]
    while folders:  # of which a program can make thousands, one in the other
        path = folders.pop()
        for name, is_folder in _names(walker, path).items():
            if is_folder:
                folders.append(f"{path}/{name}")
            else:
                count += 1
    return count


def _names(walker: Walker, path: str) -> dict[str, bool]:
    """The entries of a directory, and whether they are directories; none where it cannot be read."""
    try:
        with platform.listing(walker.open(path)) as entries:
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:
        return {}
