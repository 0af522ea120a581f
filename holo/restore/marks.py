"""The record of a space while it is restored, and after: `restoring` before the first change, `pristine` at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from holo import platform
from holo.checkout.proof import packed, stamp_of_look
from holo.checkout.strategy import Decision
from holo.errors import HoloError, is_full
from holo.filetimes import EXACT
from holo.holotree import Holotree
from holo.home import Home
from holo.remove import remove_at
from holo.restore.job import Job, opened
from holo.restore.place import Target, refuse_other_spaces
from holo.restore.planning import Planned
from holo.space import ADOPTED, Space, now

DRAFT = ".holo-"
"""In the name of a tree that is to take the place of a space, or did and is to be removed."""


def draft_of(name: str) -> str:
    """A name beside a space of that name, for such a tree."""
    return f".{name}{DRAFT}{os.urandom(4).hex()}"


def record_of(job: Job, decision: Decision) -> Space:
    """What is to be known about the space while it is restored."""
    known, past = job.target.known, job.past
    record = Space(
        name=job.target.space,
        path=job.target.path,
        home=job.home.spaces.home,
        made_for=job.target.path,
        project=job.wanted.project.root,
        bundle=job.bundle,
        catalog=job.catalog.name,
        digest=job.catalog.digest,
        state="restoring",
        requested=decision.requested.value,
        used=decision.used.value,
        reason=decision.reason,
        stamp=-1,
        boot=platform.boot_id(),
        made=known.made if known is not None else now(),
        own=known.own if known is not None else -1,
        times=known.times if known is not None else EXACT,
        modes=known.modes if known is not None else [],
    )
    if past is None:
        return record._replace(root=ADOPTED) if job.target.is_anothers else record
    # If this restore is killed, the next one still knows what it has not touched.
    return record._replace(stamp=past.stamp, root=past.root, inodes=past.inodes, clock=past.clock)


@contextmanager
def marked(home: Home, record: Space, target: Target) -> Iterator[None]:
    """Mark the space while the block changes it. What fails there says that it is marked, and what ends that.

    If not even the directory of a new one could be made, there is none afterwards. Raises :class:`Conflict` if another
    one was made at the same time that overlaps it.
    """
    spaces, is_new = home.spaces, target.known is None
    spaces.save(record)
    if is_new and target.seen is not None:
        # Of two, at least one sees the other: each looks after it has said where it is going to be.
        try:
            refuse_other_spaces(home, record.name, record.path, target.seen)
        except HoloError:
            spaces.forget(record.name)
            raise
    try:
        yield
    except OSError as error:
        raise HoloError(
            f"cannot make the space {record.path}: {error.strerror}", left=_what_is_left(spaces, record, is_new)
        ) from error
    except HoloError as error:
        raise type(error)(error.message, error.hint, _what_is_left(spaces, record, is_new)) from error


def _what_is_left(spaces: Holotree, record: Space, is_new: bool) -> str:
    folder, name = os.path.split(record.path)
    if is_new and not any(os.path.lexists(os.path.join(folder, each)) for each in (name, record.draft or name)):
        spaces.forget(record.name)
        return "Nothing was made."
    return f"The space is unfinished; `holo restore --space {record.name}` completes it when the cause is gone."


def save_unchanged(job: Job, planned: Planned, began: int) -> None:
    """Nothing had to be changed: what was read is known from now on. ``began``: in ns, before the look.

    On a full disk, a space that was known to be pristine stays so, and the next restore reads as much again.
    """
    try:
        _save_unchanged(job, planned, began)
    except HoloError as error:
        known, here = job.target.known, (job.target.path, job.catalog.digest, "pristine")
        if not is_full(error) or known is None or (known.made_for, known.digest, known.state) != here:
            raise


def _save_unchanged(job: Job, planned: Planned, began: int) -> None:
    record = record_of(job, planned.decision)
    stamp = stamp_of_look(began, planned.survey.newest, record.stamp, record.times)
    with opened(job.target) as root:
        identity = platform.identity(root)
    inodes = save_inodes(job, planned, planned.survey.directories)
    job.home.spaces.save(record.finished(stamp, identity, inodes, record.own))


def save_inodes(job: Job, planned: Planned, directories: dict[str, int]) -> str:
    """Keep the inodes of all directories; returns their digest."""
    inodes = packed(job.wanted.load(), directories)
    if job.past is not None and planned.proof.inodes.tobytes() == inodes:
        return job.past.inodes
    return job.home.spaces.save_inodes(job.target.space, inodes)


def remove_draft(space: Space) -> None:
    """Remove what a killed restore left beside the space: the tree that was to be the new one, or was the old."""
    parent, name = os.path.split(space.path)
    if space.draft.startswith(f".{name}{DRAFT}") and "/" not in space.draft:
        remove_at(os.path.join(parent, space.draft))
