"""Survey a space, choose the method, and plan the changes. Changes nothing itself."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from holo import platform
from holo.checkout.contents import Contents
from holo.checkout.plan import Plan, plan
from holo.checkout.proof import NO_PROOF, Proof, proof_of
from holo.checkout.strategy import Decision, Method, decide
from holo.checkout.survey import Expectation, Survey, survey, survey_of_empty
from holo.errors import HoloError, advice
from holo.filetimes import EXACT
from holo.hololib import Library
from holo.platform import Directory, probe
from holo.restore.job import Job, opened


class Planned(NamedTuple):
    """What is to be done, and what that was planned on."""

    decision: Decision
    plan: Plan
    survey: Survey
    proof: Proof
    """what the last restore proves about the directories"""


def make_plan(job: Job, decision: Decision | None = None, *, dry: bool = False) -> Planned:
    """Survey the space, decide how content gets there if that is not decided yet, and plan.

    What was decided at the last restore is believed until there is a file to make, and in a dry run: an unchanged
    space is verified without trying anything out in it.
    """
    proof = proof_of(job.home.spaces, job.past, job.wanted.load()) if job.past is not None else NO_PROOF
    remembered = _remembered(job)
    if decision is not None or remembered is None:
        return _plan_for(job, decision or decide_method(job), proof)
    planned = _plan_for(job, remembered, proof)
    if planned.plan.is_empty or dry:
        return planned
    decision = decide_method(job)
    # Only hardlinked files look different from others, so a survey for another method serves as well.
    if (remembered.used is Method.HARDLINK) == (decision.used is Method.HARDLINK):
        return planned._replace(decision=decision)
    return _plan_for(job, decision, proof)


def decide_method(job: Job) -> Decision:
    """Try out what this library and the space's filesystem can do. Raises :class:`StrategyUnavailable`."""
    contents, library = job.contents, job.home.library
    place = _probing_place(job)
    is_beside = os.stat(place).st_dev != os.stat(_existing(job.target.path)).st_dev
    target = platform.open_root(place)
    try:
        return decide(
            job.options.strategy,
            {
                Method.REFLINK: lambda: contents.why_no_reflink(target),
                Method.HARDLINK: lambda: _why_no_hardlink(library, contents, target, is_beside=is_beside),
            },
            strict=job.options.strict,
        )
    except OSError as error:
        raise HoloError(
            f"cannot write to {place} or to {library.path}: {error.strerror}",
            advice(error) or "Choose another place for the space.",
        ) from error
    finally:
        platform.close_directory(target)


def _why_no_hardlink(library: Library, contents: Contents, target: Directory, *, is_beside: bool) -> str | None:
    if contents is not library.blobs:
        return "the content is in a bundle"
    if is_beside:  # no hardlink leads into another subvolume
        return os.strerror(errno.EXDEV)
    return probe.hardlink(library.blobs.directory, target)


def _remembered(job: Job) -> Decision | None:
    """What was decided at the last restore, if that was asked for the same."""
    known, options = job.target.known, job.options
    if known is None or job.target.is_new or known.state != "pristine" or known.requested != options.strategy:
        return None
    if known.used not in {method.value for method in Method} or (options.strict and known.reason is not None):
        return None
    return Decision(options.strategy, Method(known.used), known.reason)


def _plan_for(job: Job, decision: Decision, proof: Proof) -> Planned:
    catalog, relocator = job.wanted.load(), job.wanted.relocator
    found = _survey(job, decision.used, proof)
    return Planned(decision, plan(catalog, found, relocator, decision.used), found, proof)


def _survey(job: Job, used: Method, proof: Proof) -> Survey:
    catalog, library, known = job.wanted.load(), job.home.library, job.target.known
    if job.target.is_new:
        return survey_of_empty(catalog)
    expectation = Expectation(
        catalog,
        job.wanted.relocator,
        used,
        proof if not job.options.verify else NO_PROOF,
        known.times if known is not None else EXACT,
        library.links if used is Method.HARDLINK else None,
        known.unkept_modes if known is not None else {},
    )
    with opened(job.target) as root:
        return survey(root, expectation, job.contents, job.home.workers)


def _probing_place(job: Job) -> str:
    """A folder on the filesystem of the space; our own if it can be, rather than the user's."""
    path = job.target.path
    place = _existing(path)
    ours = job.home.spaces.folder()
    if os.stat(ours).st_dev == os.stat(place).st_dev:
        return ours
    # The root of a subvolume may be read-only as recorded, and be made writable later. Around it is its filesystem.
    if place == path and not os.access(place, os.W_OK) and platform.source_at(os.path.realpath(place)) is None:
        return os.path.dirname(place)
    return place


def _existing(path: str) -> str:
    """The nearest existing directory at or above ``path``."""
    while True:
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                return path
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise HoloError(f"cannot read {path}: {error.strerror}") from error
        path = os.path.dirname(path)
