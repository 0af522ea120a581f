"""A whole tree at once: the space becomes a snapshot of the catalog's golden tree.

A new space is made in its place. An existing one is replaced by a finished one in one step: who works in the old one
goes on in it until they leave. Whatever else can supply a whole tree has its place here, beside the snapshot.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import replace

from holo import platform
from holo.catalog import Catalog
from holo.checkout.proof import stamp_before
from holo.checkout.strategy import Decision, Method
from holo.errors import os_errors_as
from holo.platform import Directory
from holo.remove import remove
from holo.restore.job import Done, Job, open_space
from holo.restore.marks import DRAFT, marked, record_of
from holo.trees.golden import Golden, patch_snapshot
from holo.walk import Walker


def supply_snapshot(job: Job, decision: Decision, part: Catalog) -> Done | None:
    """Make the space a snapshot of the golden tree; ``None`` if that is not possible here.

    ``part``: the files of the catalog that the space must make anew, as in the tree's outline.
    """
    parent = os.path.dirname(job.target.path)
    with os_errors_as(f"cannot make the folder {parent}"):
        os.makedirs(parent, exist_ok=True)
        folder = platform.open_root(parent)
    try:
        return _take_snapshot(job, decision, part, folder)
    finally:
        platform.close_directory(folder)


def _take_snapshot(job: Job, decision: Decision, part: Catalog, folder: Directory) -> Done | None:
    home, target, catalog = job.home, job.target, job.catalog
    name = os.path.basename(target.path)
    golden = Golden(home, catalog.digest, job.wanted.load, job.wanted.outline, job.options.on_progress)
    draft = f".{name}{DRAFT}{os.urandom(4).hex()}"
    record = record_of(job, decision)
    with marked(home.spaces, replace(record, draft=draft)):
        outline = golden.snapshot(folder, draft)
        if outline is None:
            return None
        root = platform.open_child(folder, draft)
        try:
            tally = patch_snapshot(root, target.path, home.library, part, job.wanted.relocator, home.workers)
            tally.removed = _count_extra(job, root)
            if not _put_in_place(job, folder, draft, name):
                return None
            stamp = stamp_before(platform.status(root, "").st_ctime_ns, record.times)
            inodes = home.spaces.save_inodes(target.space, outline.inodes)
            finished = replace(record, used=Method.SNAPSHOT.value).finished(
                stamp, platform.identity(root), inodes, tally.written_bytes
            )
        finally:
            platform.close_directory(root)
            remove(folder, draft)  # the old tree, or a snapshot that could not take its place
        home.spaces.save(finished)
    tally.reflinked = job.wanted.totals.files - tally.copied
    tally.shared_bytes = job.wanted.totals.bytes - tally.written_bytes
    return Done(replace(decision, used=Method.SNAPSHOT), tally)


def _put_in_place(job: Job, folder: Directory, draft: str, name: str) -> bool:
    """Let the draft be the space; ``False``: what is there can be changed but not replaced, a mount point, say."""
    try:
        with job.home.spaces.try_lock_mount_point(job.target.space) as is_free:
            if not is_free:
                return False
            if job.target.is_new:
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
