"""Restore: make a directory equal to a catalog.

    choose     where: refuse a directory that is not ours, before anything is read
    read       the catalog or its outline, what the last restore proves; refuse a path too long for binaries
    supply     the whole tree at once, if there is one: a spare, or a snapshot        holo.restore.supply
    else
    plan       survey (one stat per file, in parallel), then plan (pure); --dry-run ends here
    prepare    hold the recorded offsets of every file to be patched against its content
    populate   remove, make directories, fill them in parallel, set the last modes and times
    report

Before the first change the space is marked "restoring", after the last one "pristine", with what proves it (see
:mod:`holo.checkout.proof`). A crash anywhere leaves the space as it was or marked, and the next restore completes it.
What it does not guarantee: a program that changes the space during the restore may have its changes removed or kept.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holo import history, platform
from holo.checkout.contents import Carrier
from holo.checkout.populate import Content, Prepared, populate, prepare
from holo.checkout.proof import stamp_before
from holo.checkout.strategy import Decision, Method
from holo.checkout.tally import Tally
from holo.errors import HoloError, IntegrityError, UsageError, is_full
from holo.filetimes import try_out
from holo.hololib import CatalogRef
from holo.home import Home
from holo.relocation.project import make_link_trees
from holo.remove import remove
from holo.restore.job import Done, Job, Options, open_space, read_job
from holo.restore.marks import draft_of, marked, record_of, remove_draft, save_inodes, save_unchanged
from holo.restore.place import Target, choose_place
from holo.restore.planning import Planned, decide_method, make_plan
from holo.restore.report import DryRun, RestoreReport, report_of
from holo.restore.supply import supply_snapshot, supply_spare
from holo.settings import Strategy
from holo.space import now
from holo.trees.outline import outline_of

__all__ = ["Carrier", "DryRun", "Options", "RestoreReport", "dry_run", "make_equal", "restore"]

_WORTH_A_TREE = 500
"""Changes from which on another tree is faster than making them one by one: see benchmarks/README.md."""


def restore(
    home: Home,
    space: str,
    catalog: CatalogRef,
    path: str | None,
    options: Options,
    carrier: Carrier | None = None,
) -> RestoreReport:
    """Make a space (at ``path``, if it is new) equal to a catalog, which is in the library or in a ``carrier``.

    The caller holds the space's lock and, shared, the library's, since before it looked for the catalog. Raises
    :class:`~holo.errors.Conflict` for a directory that is not a space, and every other :class:`HoloError`; before
    the first change unless the message says otherwise.
    """
    started = time.monotonic()
    job, done = make_equal(home, space, catalog, path, options, carrier)
    if carrier is None:
        home.library.catalogs.mark_used(catalog.digest)
    what = "made" if job.target.known is None else "restored"
    event = history.Event(
        now(),
        what,
        *catalog,
        done.decision.used.value,
        done.tally.files,
        done.tally.removed,
        history.command_line(),
    )
    history.add(home.spaces.history_path(space), event)
    return report_of(job, done, _link_project(job), time.monotonic() - started)


def make_equal(
    home: Home,
    space: str,
    catalog: CatalogRef,
    path: str | None,
    options: Options,
    carrier: Carrier | None = None,
) -> tuple[Job, Done]:
    """The same without a note that the catalog was used: of a space that nobody has asked for."""
    try:
        return _make_equal(home, space, catalog, path, options, carrier)
    except HoloError as error:
        removed = _make_room(home, space, catalog, path, options, carrier) if is_full(error) else None
        if removed is None:
            raise
    job, done = _make_equal(home, space, catalog, path, options, carrier)
    done.tally.removed += removed
    return job, done


def _make_room(
    home: Home, space: str, catalog: CatalogRef, path: str | None, options: Options, carrier: Carrier | None
) -> int | None:
    """Remove what is not in the catalog from a space on a full disk, which a job may have filled there.

    The space need not be marked for that, for which there may be no room: what goes proves nothing of what stays. Of a
    mount, all that was changed goes. Returns how many files that were, as far as they are counted; or ``None``.
    """
    target = choose_place(home, space, path, take_over=options.force, with_history=options.yes)
    if _is_mounted(target):
        from holo.restore.mounting import unmount

        unmount(home, space, target.path)
        return 0
    if target.known is None or target.is_new or target.is_anothers:
        return None
    job = read_job(home, target, catalog, carrier, options)
    found = make_plan(job, Decision(options.strategy, Method.COPY)).plan
    extra = [item._replace(replaced=[]) for item in found.removals if item.extra]
    if not extra:
        return None
    content = Content(job.contents, job.wanted.load(), job.wanted.relocator, Method.COPY)
    todo = found._replace(removals=extra, directories=[], fills=[], relinks=[])
    with platform.closing(open_space(target, changes=True)) as root:
        return populate(root, target.path, prepare(content, todo), home.workers).removed


def _make_equal(
    home: Home, space: str, catalog: CatalogRef, path: str | None, options: Options, carrier: Carrier | None
) -> tuple[Job, Done]:
    target = choose_place(home, space, path, take_over=options.force, with_history=options.yes)
    if target.known is not None:
        remove_draft(target.known)
    asked = options.strategy
    options = _as_it_is(target, options)
    if _is_mounted(target) and options.strategy is not Strategy.OVERLAY:
        from holo.restore.mounting import unmount

        unmount(home, space, target.path)
        target = choose_place(home, space, path, take_over=options.force, with_history=options.yes)
    if options.strategy is Strategy.OVERLAY:
        target = target._replace(is_anothers=False)  # a mount covers it
    elif target.is_anothers:
        target = target._replace(is_new=True)
    looked = time.time_ns()
    job = read_job(home, target, catalog, carrier, options)
    try:
        if options.strategy is Strategy.OVERLAY:
            from holo.restore.mounting import supply_mount

            job = job._replace(options=options._replace(strategy=asked))
            return job, supply_mount(job)
        return job, _supply_at_once(job) or _update(job, looked)
    except IntegrityError as error:
        if carrier is None or target.known is not None or home.spaces.find(space) is None:
            raise
        from holo.restore.deletion import delete_locked

        # Only in the middle did it show that the bundle is damaged: no space is made of one.
        delete_locked(home, space)
        raise IntegrityError(error.message, "Get the file again. Nothing was changed.") from None


def dry_run(
    home: Home,
    space: str,
    catalog: CatalogRef,
    path: str | None,
    options: Options,
    carrier: Carrier | None = None,
) -> DryRun:
    """What :func:`restore` would do, under the same locks. Changes nothing.

    Raises :class:`UsageError` for a space that would go as a whole, or come by a mount: then there is no plan.
    """
    target = choose_place(home, space, path, take_over=options.force, with_history=options.yes)
    known, mounts = target.known, _as_it_is(target, options).strategy is Strategy.OVERLAY
    is_there = known is not None and known.used == Method.OVERLAY and not known.is_unmounted
    if (known is not None and known.upper) or mounts != is_there:
        raise UsageError(
            f"there is no plan for space {space!r}: this restore makes it anew, and drops all that was changed in it",
            f"`holo status {space}` shows what was.",
        )
    job = read_job(home, target, catalog, carrier, options)
    decision = None
    if mounts:
        from holo.restore.mounting import decide_mount

        decision = decide_mount(job)
    planned = make_plan(job, decision, dry=True)
    return DryRun(space, target.path, *catalog, planned.decision, planned.plan)


def _is_mounted(target: Target) -> bool:
    """Whether the last restore has left a mount, for everybody or for those who work in the space."""
    return target.known is not None and target.known.used in (Method.OVERLAY, Method.VIEW)


def _as_it_is(target: Target, options: Options) -> Options:
    """A mounted space stays one unless another strategy is asked for."""
    if _is_mounted(target) and options.strategy is Strategy.SMART:
        return options._replace(strategy=Strategy.OVERLAY)
    return options


def _link_project(job: Job) -> list[str]:
    """Make the folders of links in the project that the space names: see :func:`make_link_trees`."""
    part, project = job.wanted.part, job.wanted.project.root
    if not job.wanted.moves_project:
        return []
    files = [path for path, item in part.relocations.items() if item.forms and path.endswith(".pth")]
    return make_link_trees(job.target.path, files, part.project, project)


def _supply_at_once(job: Job) -> Done | None:
    """Make a space that is new, or whose directories show a change, without looking at its files."""
    if job.wanted.outline is None or not (job.target.is_new or job.changed()):
        return None
    done = supply_spare(job)
    if done is not None:
        return done
    decision = decide_method(job)
    return supply_snapshot(job, decision, job.wanted.part) if decision.used is Method.REFLINK else None


def _update(job: Job, looked: int) -> Done:
    """Make what the space lacks: file by file, or by another tree if that is most of it."""
    planned = make_plan(job)
    if planned.plan.is_empty:
        save_unchanged(job, planned, looked)
        return Done(planned.decision, Tally())
    used = planned.decision.used
    links = job.home.library.links if used is Method.HARDLINK else None
    content = Content(job.contents, job.wanted.load(), job.wanted.relocator, used, links, verify=job.verify)
    prepared = prepare(content, planned.plan)
    if job.may_be_supplied and (job.target.is_new or planned.plan.size >= _WORTH_A_TREE):
        done = supply_spare(job)
        if done is None and used is Method.REFLINK:
            done = supply_snapshot(job, planned.decision, outline_of(content.catalog))
        if done is not None:
            return done
    return _populate(job, planned, prepared)


def _populate(job: Job, planned: Planned, prepared: Prepared) -> Done:
    """Carry out the plan in the space itself."""
    path, spaces = job.target.path, job.home.spaces
    parent, name = os.path.split(path)
    draft = draft_of(name) if job.target.is_anothers else ""
    record = record_of(job, planned.decision)._replace(draft=draft)
    with marked(job.home, record, job.target):
        with _put_aside(job, draft):
            os.makedirs(parent, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            with platform.closing(open_space(job.target, changes=True)) as root:
                # Many may share the holotree; elsewhere the group is the user's wish.
                if job.target.is_new and parent == spaces.path:
                    platform.own_group(root)
                times = try_out(root)
                tally = populate(root, path, prepared, job.home.workers, job.options.on_progress)
                stamp = stamp_before(platform.status(root, "").st_ctime_ns, times)
                identity = platform.identity(root)
            inodes = save_inodes(job, planned, planned.survey.directories | tally.directories)
        # What was made before and is unchanged is not counted again: what was written more often counts once.
        own = tally.written_bytes if tally.files == job.wanted.totals.files else max(record.own, tally.written_bytes)
        spaces.save(record._replace(times=times).with_modes(tally.modes).finished(stamp, identity, inodes, own))
    return Done(planned.decision, tally)


@contextmanager
def _put_aside(job: Job, draft: str) -> Iterator[None]:
    """Let what is in the place of the space have the name ``draft``, if that is one, and remove it after the block.

    It comes back if the block fails.
    """
    if not draft:
        yield
        return
    target = job.target
    parent, name = os.path.split(target.path)
    with platform.closing(platform.open_root(parent)) as folder:
        with job.home.spaces.try_lock_mount_point(target.space) as is_free:
            if not is_free:
                from holo.restore.mounting import refuse_covered

                refuse_covered(target.path)
            platform.rename(folder, name, folder, draft)
        try:
            yield
        except BaseException:
            remove(folder, name)
            platform.rename(folder, draft, folder, name)
            raise
        remove(folder, draft)
