"""A space that is a mount: an overlay of the catalog's tree, what names its path, and what is changed in it.

Everybody sees it, if its user has the right to mount for everybody. It is as pristine as its tree when it is mounted,
and that takes no time and no room, whatever the size. Nothing of it outlives the mount: whoever restores it gets
another one with nothing changed in it, and so it is after the system was started again.

    .ephemeral-<user>/spaces/<name>/<id>/     layer, upper, work: of the mount that there is, or of one that is made

Of a view (:mod:`holo.trees.views`) all this is made as well, but whoever works in the space mounts it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NoReturn

from holo import platform
from holo.checkout.proof import stamp_before
from holo.checkout.strategy import Decision, Method
from holo.checkout.tally import Tally
from holo.errors import Conflict, StrategyUnavailable, UsageError, hints, os_errors_as
from holo.home import Home
from holo.relocation.project import shared_project
from holo.remove import remove_at
from holo.restore.job import Done, Job
from holo.restore.marks import marked, record_of
from holo.trees.lower import Lower, NoOverlayError, hold_tree, make_layer, make_upper
from holo.trees.overlay import SPACE, Layers
from holo.trees.stubs import attributes, why_not_for_all
from holo.trees.views import LAYER, UPPER, refuse_inside, why_none
from holo.walk import make_folders, open_directory, real_place

if sys.platform == "linux":
    from holo.platform import namespaces

_NOT_ALLOWED = os.strerror(errno.EPERM)

_RIGHTS = "Only root with CAP_SYS_ADMIN can mount a space for everybody (in a container: one that was given it)."

_WAYS_OUT = "Use `holo run --ephemeral`, or another strategy."

_NOT_FOR_ALL = "not everybody can see it (Operation not permitted), only `holo run` and `holo shell` do"


def supply_mount(job: Job) -> Done:
    """Mount the space, with nothing changed in it, or make a view.

    Raises :class:`Conflict` while somebody is in what goes, and :class:`StrategyUnavailable`. Nothing is left then.
    """
    home, target = job.home, job.target
    layers = Layers(home.spaces.path)
    decision = decide_mount(job)
    refuse_use(home, target.space, target.path)
    layers.prepare()
    own = os.path.join(layers.spaces, target.space)
    folder = os.path.join(own, os.urandom(8).hex())
    with ExitStack() as held, os_errors_as(f"cannot make {folder}"):
        try:
            lower, warnings = _make(job, decision, folder, held)
        except BaseException as error:
            remove_at(folder)
            with suppress(OSError):
                os.rmdir(own)
            if isinstance(error, NoOverlayError):
                whom = "for its own commands" if decision.used is Method.VIEW else "for everybody"
                raise _unavailable(target.path, str(error), whom) from None
            raise
        try:
            _mount(job, decision, lower, folder)
        except (StrategyUnavailable, Conflict):
            remove_at(own if target.known is None else folder)
            raise
        for name in os.listdir(own):  # of the one before, or of one that was killed
            if name != os.path.basename(folder):
                remove_at(os.path.join(own, name))
    said = shared_project(job.wanted.part, job.wanted.relocator, job.wanted.project)  # by the report
    for warning in (warning for warning in warnings if warning not in said):
        home.on_wait(f"warning: {warning}")
    return Done(decision, _tally(job))


def decide_mount(job: Job) -> Decision:
    """Whether everybody is to see the space. Raises :class:`UsageError` and :class:`StrategyUnavailable`."""
    if job.contents is not job.home.library.blobs:
        raise UsageError("a space of a bundle cannot be mounted", "Import the bundle first.")
    if job.options.verify:
        raise UsageError("--verify reads no mounted space", f"Use `holo check --space {job.target.space}`.")
    decision = Decision(job.options.strategy, Method.OVERLAY)
    if sys.platform == "linux" and not namespaces.has_proc():
        raise StrategyUnavailable(
            f"cannot mount the space {job.target.path}: /proc is not mounted",
            "Mount /proc first, or choose another strategy.",
        )
    if sys.platform == "linux" and namespaces.may_mount():
        return decision
    if job.options.strict:
        raise _unavailable(job.target.path, _NOT_ALLOWED)
    return decision._replace(used=Method.VIEW, reason=_NOT_FOR_ALL)


def _make(job: Job, decision: Decision, folder: str, held: ExitStack) -> tuple[Lower, list[str]]:
    """Make what the space is mounted over, and where its changes go. Returns warnings as well."""
    home, is_view = job.home, decision.used is Method.VIEW

    def try_out(folder: str) -> None:
        why = (why_none if is_view else why_not_for_all)(os.path.join(folder, "try"))
        if why is not None:
            raise NoOverlayError(why)

    make_folders(folder)
    if is_view:  # it is mounted only when somebody works in it
        try_out(folder)
    tree = hold_tree(home, job.catalog, job.wanted.load, folder, held, before_copying=try_out)
    lower = Lower(os.path.join(folder, LAYER), *tree)
    os.mkdir(lower.layer, 0o700)
    here, project = job.target.path, job.wanted.project.root
    warnings = make_layer(home.library, job.wanted.part, lower.layer, here, project, home.workers)
    make_upper(os.path.join(folder, UPPER), lower.layer)
    if is_view:  # it outlives this boot, and nobody makes the layer again
        with platform.closing(platform.open_root(folder)) as root:
            platform.sync_filesystem(root)
    else:
        os.mkdir(os.path.join(folder, "work"))
    return lower, warnings


def _unavailable(path: str, why: str, whom: str = "for everybody") -> StrategyUnavailable:
    hint = hints(_RIGHTS if why == _NOT_ALLOWED else None, _WAYS_OUT)
    return StrategyUnavailable(f"cannot mount the space {path} {whom}: {why}", hint)


def _mount(job: Job, decision: Decision, lower: Lower, folder: str) -> None:
    spaces, target = job.home.spaces, job.target
    upper = os.path.join(folder, UPPER)
    record = record_of(job, decision)
    if decision.used is Method.VIEW:
        record = record._replace(upper=upper)
    is_new = target.known is None
    with _uncovered(job.home, target.space, target.path), marked(job.home, record, target):
        os.makedirs(os.path.dirname(target.path), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(target.path, 0o700)
        if not _unmount(target.path) and not target.is_new:
            remove_at(target.path, itself=False)
        if record.upper:  # nothing is known of files that nobody sees here
            spaces.save(record.finished(-1, "", "", 0))
            return
        work = os.path.join(folder, "work")
        if sys.platform == "linux":
            over, kind = (lower.layer, lower.tree), attributes() if lower.blobs else ""
            try:
                namespaces.mount_overlay(SPACE, target.path, over, upper, work, lower.blobs, kind)
            except OSError as error:
                if is_new:
                    remove_at(target.path)
                raise _unavailable(target.path, namespaces.reason(error, folder)) from None
        with platform.closing(open_directory(target.path)) as root:
            stamp = stamp_before(platform.status(root, "").st_ctime_ns, record.times)
            spaces.save(record.finished(stamp, platform.identity(root), "", 0))


@contextmanager
def _uncovered(home: Home, space: str, path: str) -> Iterator[None]:
    """Keep commands from being mounted over the space. Raises :class:`Conflict` if some are, or are in it."""
    with home.spaces.try_lock_mount_point(space) as is_free:
        if not is_free:
            refuse_covered(path)
        refuse_inside(space, path)
        _refuse_others_mount(space, path)
        yield


def _refuse_others_mount(space: str, path: str) -> None:
    """Raise :class:`Conflict` if root has mounted the space, or one in another mount namespace, as of unshare(1)."""
    if sys.platform == "linux":
        if _is_mounted(path):
            if not namespaces.may_mount():
                raise Conflict(
                    f"space {space!r} is mounted at {path} for everybody, and you may not unmount it",
                    "Let root do it.",
                )
        elif found := sorted(process for process, _ in namespaces.processes_with(real_place(path), SPACE)):
            raise Conflict(
                f"space {space!r} is mounted at {path} for other processes, which have mounts of their own",
                f"Do it among them, or when they have ended. `ps -p {','.join(map(str, found))}` shows them.",
            )


def refuse_covered(path: str) -> NoReturn:
    """Raise :class:`Conflict` for a space that something is mounted over, which would go with its directory."""
    raise Conflict(f"commands run in throw-away environments over {path}", "Try again when they have ended.")


def refuse_use(home: Home, space: str, path: str) -> None:
    """Raise :class:`Conflict` for a mounted space that must not go now: see :func:`unmount`."""
    if _may_be_mounted(home, space, path):
        with _uncovered(home, space, path):
            pass


def _tally(job: Job) -> Tally:
    """All files count as shared but those that name the path."""
    totals, relocator = job.wanted.totals, job.wanted.relocator
    private = {path for path, item in job.wanted.part.relocations.items() if relocator.applies(item)}
    written = sum(row[2] for path, row in job.wanted.part.files() if path in private)
    tally = Tally()
    tally.reflinked, tally.copied = totals.files - len(private), len(private)
    tally.shared_bytes, tally.written_bytes = totals.bytes - written, written
    return tally


def unmount(home: Home, space: str, path: str) -> bool:
    """Unmount a space if holo has mounted it, and remove what was changed in it; whether it was mounted.

    Who is in it stays there until they leave.
    """
    if not _may_be_mounted(home, space, path):
        return False
    with _uncovered(home, space, path):
        was_mounted = _unmount(path)
    remove_at(os.path.join(Layers(home.spaces.path).spaces, space))
    return was_mounted


def _may_be_mounted(home: Home, space: str, path: str) -> bool:
    return os.path.isdir(os.path.join(Layers(home.spaces.path).spaces, space)) or _is_mounted(path)


def _unmount(path: str) -> bool:
    if sys.platform == "linux" and _is_mounted(path):
        with os_errors_as(f"cannot unmount {path}"):
            namespaces.unmount(real_place(path))
        return True
    return False


def _is_mounted(path: str) -> bool:
    with suppress(OSError):  # no /proc
        return platform.source_at(real_place(path)) == SPACE
    return False
