"""Worktrees of git with environments of their own: added with them, and removed with the spaces in them.

git worktree add --> choose --> clone, or build as a space, or copy --> report
                        \\-- any failure: the spaces, the worktree and its branch go again
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from holo import digest as digests
from holo.errors import Conflict, HoloError, NotFound, UsageError, hints, os_errors_as
from holo.hololib.locks import CannotLockError, OnWait, locked
from holo.relocation import leads_into, listed
from holo.remove import remove_at
from holo.walk import absolute, current_directory, real_place
from holo.worktrees import git, noted, outdated
from holo.worktrees.choice import Choice, choose, made_elsewhere
from holo.worktrees.left_behind import left_behind
from holo.worktrees.report import Equipment, How, RemovedWorktree, WorktreeReport

if TYPE_CHECKING:
    from holo.restore.report import RestoreReport
    from holo.space import Space

__all__ = ["Equipment", "RemovedWorktree", "WorktreeReport", "add", "remove"]


class Spaces(NamedTuple):
    """What is done with spaces."""

    all: Callable[[], Sequence[Space]]
    init: Callable[[str, str, str], RestoreReport]
    """with a name, a blueprint or the digest of a catalog, and a place"""
    delete: Callable[[str], Space]
    blueprint: Callable[[Space], str | None]
    """the file that a space was built from, if it was"""
    changed_blueprint: Callable[[Space], str | None]
    """that file, if it says something else now"""
    is_unchanged: Callable[[Space], bool]
    """whether it is as its catalog has it"""
    is_whole: Callable[[Space], bool]
    """whether all of it is in its directory: not of a view, of a mount that has ended, or of an unfinished restore"""
    is_default: Callable[[Space], bool]
    """whether it is in the holotree, and not where somebody wanted it"""


# -- add ------------------------------------------------------------------------------------------------------------


def add(
    path: str, arguments: Sequence[str], spaces: Spaces, on_wait: OnWait, folder: str | None = None
) -> WorktreeReport:
    """Let git add a worktree at ``path``, with its ``arguments``, and make the environments that another checkout has.

    ``folder``: where it is of, if that is not the current one.

    If ``path`` is a worktree already, only what it lacks is made: of two commands at a time, the second waits for the
    first. Otherwise a failure removes the worktree again.
    """
    started = time.monotonic()
    path = _named(path)
    here = folder or current_directory()
    before = git.checkouts(here)
    known = git.find(before, path) if os.path.isdir(path) else None
    if known is not None and arguments:
        raise UsageError(f"{path} is a worktree already", "Leave out the arguments for git to make what it lacks.")
    if known is None:
        git.refuse_moved(path)
        _forget_lost(path, before, spaces)
    added = _Added(here, path, arguments) if known is None else None
    made: list[Equipment] = []
    warnings: list[str] = []
    with ExitStack() as alone:
        try:
            if added is not None:
                added.make()
            alone.enter_context(_alone_in(path, path, on_wait))
            for choice in choose(_sources(before, here, path), path, partial(_lacks, spaces)):
                item, more = _equip(path, choice, spaces)
                warnings += [*filter(None, [choice.warning]), *more]
                made.append(item)
            warnings += _left_behind(path, made)
            if known is not None:
                warnings += [*made_elsewhere(path), *_outdated(path, spaces)]
        except BaseException as error:
            if added is not None:
                added.undo(error, spaces)
            elif isinstance(error, HoloError) and made:
                names = ", ".join(os.path.relpath(item.path, path) for item in made)
                raise type(error)(
                    error.message, hints(error.hint, f"{names} is there; run it again for the rest.")
                ) from error
            raise
    checkout = known or git.find(git.checkouts(here), path)
    branch = checkout.branch if checkout is not None else ""
    return WorktreeReport(
        path, branch, known is None, tuple(made), tuple(warnings), round(time.monotonic() - started, 3)
    )


def _left_behind(path: str, made: Sequence[Equipment]) -> Iterator[str]:
    """Warnings about code that environments import, which only the checkout has that they came from."""
    for item in made:
        checkout = item.origin.removesuffix(item.path.removeprefix(path))
        files: list[str] = []
        with suppress(HoloError):  # all is made, and nobody asked
            files = left_behind(item.path, path, checkout) if item.how in ("cloned", "restored") else []
        if files:
            yield (
                f"{os.path.relpath(item.path, path)} may need what git ignores and only {checkout} has: "
                f"{listed(files)}. If an install makes that, install the project in {path} anew "
                "(`uv sync --reinstall`); else list it in .holo.toml"
            )


def _outdated(path: str, spaces: Spaces) -> Iterator[str]:
    """Warnings about the environments in a worktree that are not what it asks for any more."""
    real = os.path.realpath(path)
    inside = {place: space for space in spaces.all() if leads_into(place := real_place(space.path), real)}
    for space in inside.values():
        blueprint = spaces.changed_blueprint(space)
        if blueprint is not None:
            yield (
                f"space {space.name} is not what {blueprint} asks for now: "
                f"`holo init {space.name} --force` makes it anew, without what was changed in it"
            )
    yield from outdated.warnings(path, {os.path.relpath(place, real) for place in inside})


def _forget_lost(path: str, checkouts: Sequence[git.Checkout], spaces: Spaces) -> None:
    """Forget a worktree that was at ``path`` until somebody removed it, and the spaces that were in it."""
    if not os.path.lexists(path):
        lost = git.find(checkouts, path)
        if lost is not None and lost.is_locked:  # on a disk that is not there, say: git refuses
            return
        for space in _inside(path, spaces):
            spaces.delete(space)
        if lost is not None:
            git.run(checkouts[0].path, "worktree", "remove", path)


def _sources(checkouts: Sequence[git.Checkout], here: str, path: str) -> list[str]:
    """Where environments come from: the first checkout, else the current one. A bare repository has no first one."""
    others = [each for each in checkouts if not git.is_same(each.path, path) and os.path.isdir(each.path)]
    if not others or git.is_same(checkouts[0].path, path):  # the first one gets nothing from others
        return []
    first, *rest = others
    near = os.path.realpath(here)
    current = [each.path for each in rest if leads_into(near, os.path.realpath(each.path))]
    return [*current, *(each.path for each in rest)] if first.is_bare else [first.path, *current]


def _lacks(spaces: Spaces, place: str) -> bool:
    """Whether nothing is at a place, or a space that is not finished."""
    return not os.path.lexists(place) or _unfinished(place, spaces) is not None


def _unfinished(place: str, spaces: Spaces) -> Space | None:
    """The space at a place that an earlier command, which failed or was killed, has begun."""
    return next((space for space in spaces.all() if space.path == place and space.state == "restoring"), None)


def _equip(worktree: str, choice: Choice, spaces: Spaces) -> tuple[Equipment, Sequence[str]]:
    """Make one environment or file of a worktree. Returns it, and warnings."""
    place = os.path.join(worktree, choice.path)
    with os_errors_as(f"cannot make {place}"):
        os.makedirs(os.path.dirname(place), exist_ok=True)
    begun = _unfinished(place, spaces)
    if begun is not None:
        return _init(place, "restored", choice.source, begun.name, begun.digest, spaces)
    if choice.blueprint is not None:
        name = _name(place, choice.blueprint.label)
        return _init(place, "built", choice.blueprint.path, name, choice.blueprint.path, spaces)
    known = next((space for space in spaces.all() if space.path == choice.source), None)
    is_unchanged = known is not None and spaces.is_unchanged(known)
    if known is not None and (is_unchanged or not spaces.is_whole(known)):
        # Another space of that is as good as a clone, or better.
        source = _own_blueprint(spaces.blueprint(known), choice, worktree) or known.digest
        item, warnings = _init(place, "restored", choice.source, _name(place, known.name), source, spaces)
        lost = f"{place} is as it was recorded, without what was changed in {choice.source}"
        return item, warnings if is_unchanged else (*warnings, lost)
    if os.path.isdir(choice.source):
        from holo.cloning import clone

        report = clone(choice.source, place, relocate=True)
        with _undone([place, *report.also]):
            noted.note(worktree, [place, *report.also])
            outdated.note(worktree, choice.path)
        return Equipment(place, "cloned", choice.source, None, report.used, report.seconds), report.warnings
    _copy(choice.source, place)
    with _undone([place]):
        noted.note(worktree, [place])
    return Equipment(place, "copied", choice.source, None, "", 0.0), ()


def _copy(source: str, place: str) -> None:
    """Copy a file, which is there as a whole or not at all."""
    draft = os.path.join(os.path.dirname(place), f".holo-copy-{digests.of(os.fsencode(place))[:8]}")
    remove_at(draft)  # of a killed command
    with os_errors_as(f"cannot copy {source} to {place}"), _undone([draft]):
        shutil.copy2(source, draft, follow_symlinks=False)
        os.rename(draft, place)


@contextmanager
def _alone_in(worktree: str, folder: str, on_wait: OnWait) -> Iterator[None]:
    """Let no other command make or remove anything in a worktree of the repository of a folder meanwhile.

    Where the repository cannot be written to, as in some sandboxes, nobody is kept waiting.
    """
    name = f"holo-{digests.of(os.fsencode(os.path.realpath(worktree)))[:16]}.lock"
    path = git.common_path(folder, name)
    with ExitStack() as held:
        with suppress(CannotLockError):
            held.enter_context(locked(path, f"the worktree {worktree}", exclusive=True, on_wait=on_wait))
            held.callback(_unlink, path)
        yield


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


@contextmanager
def _undone(paths: Sequence[str]) -> Iterator[None]:
    """Remove what was made, if the block fails."""
    try:
        yield
    except BaseException:
        for path in paths:
            with suppress(HoloError):
                remove_at(path)
        raise


def _init(place: str, how: How, origin: str, name: str, source: str, spaces: Spaces) -> tuple[Equipment, Sequence[str]]:
    report = spaces.init(name, source, place)
    return Equipment(place, how, origin, name, report.strategy.used, report.seconds), report.warnings


def _name(place: str, label: str) -> str:
    """The name of the space to make at a place: several environments may be of one blueprint."""
    return f"{label[:23]}-{digests.of(os.fsencode(place))[:8]}"


def _own_blueprint(blueprint: str | None, choice: Choice, worktree: str) -> str | None:
    """What a blueprint of the other checkout is in the worktree."""
    checkout = choice.source.removesuffix(os.sep + choice.path)
    if blueprint is None or not leads_into(blueprint, checkout):
        return None
    own = worktree + blueprint.removeprefix(checkout)
    return own if os.path.isfile(own) else None


class _Added:
    """A worktree that git has added, and what came with it.

    Others may work in the repository meanwhile: what they have made stays.
    """

    def __init__(self, here: str, path: str, arguments: Sequence[str]) -> None:
        self._here = here
        self._path = path
        self._arguments = arguments
        self._folders: list[str] = []
        self._branches = git.branches(here)
        self._is_ours = False

    def make(self) -> None:
        """Let git add the worktree."""
        folder = os.path.dirname(self._path)
        while not os.path.lexists(folder):
            self._folders.append(folder)
            folder = os.path.dirname(folder)
        git.patiently(self._attempt)

    def _attempt(self) -> None:
        self._is_ours = True
        try:
            git.run_once(self._here, "worktree", "add", self._path, *self._arguments)
        except git.Unfinished:
            self._remove()  # git leaves the branch
            raise
        except HoloError as error:
            # Else git has refused, or somebody else has made it in this moment.
            self._is_ours = os.path.isdir(self._path) and "already exists" not in error.message
            if "a branch named" in error.message:
                self._branches |= git.branches(self._here)
            raise

    def _remove(self) -> bool:
        """Remove what git has made; returns whether there was a worktree."""
        may_be_there = self._is_ours and os.path.isdir(self._path)
        found = git.find(git.checkouts(self._here), self._path) if may_be_there else None
        if found is not None:
            git.run(self._here, "worktree", "remove", "--force", "--force", self._path)
        own = {os.path.basename(self._path), *(word.removeprefix("-b") for word in self._arguments)}
        own |= {found.branch} if found is not None else set()
        for branch in own & (git.branches(self._here) - self._branches):
            git.run(self._here, "branch", "--quiet", "-D", branch)
        return found is not None

    def undo(self, error: BaseException, spaces: Spaces) -> None:
        """Remove it again, after an error, which is raised with a hint about what is left."""
        left = "Nothing was made."
        try:
            for space in _inside(self._path, spaces) if self._is_ours else ():  # also one that is unfinished
                spaces.delete(space)
            if self._remove():
                left = "The worktree was removed again. `git worktree add` makes it without its environments."
        except HoloError as second:
            left = f"`git worktree list` and `git branch` show what is left: {second.message}."
        else:
            with suppress(OSError):
                for folder in self._folders:
                    os.rmdir(folder)
        if isinstance(error, HoloError):
            raise type(error)(error.message, error.remedy, left) from error


def add_for_agent(folder: str, name: str, spaces: Spaces, on_wait: OnWait) -> WorktreeReport:
    """A worktree of a repository for an agent, where Claude Code has them, on a branch of its own.

    If it is there already, only what it lacks is made.
    """
    first = next((each for each in git.checkouts(folder) if not each.is_bare), None)
    if first is None:
        raise NotFound(f"the repository of {folder} has no checkout", "Make one with `git worktree add`.")
    path = os.path.join(first.path, ".claude", "worktrees", name)
    branch = f"worktree-{name}"
    arguments = [branch] if branch in git.branches(folder) else ["-b", branch]
    return add(path, [] if git.find(git.checkouts(folder), path) else arguments, spaces, on_wait, folder)


# -- remove ---------------------------------------------------------------------------------------------------------


def remove(path: str, arguments: Sequence[str], spaces: Spaces, on_wait: OnWait) -> RemovedWorktree:
    """Let git remove the worktree at ``path``, and delete the spaces in it.

    If the directory is gone already, what git and holo still know of it goes.
    """
    path = _named(path)
    first, checkout = _checkout(path)
    with _alone_in(path, first, on_wait) if checkout is not None else nullcontext():
        return _remove(path, arguments, spaces)


def _remove(path: str, arguments: Sequence[str], spaces: Spaces) -> RemovedWorktree:
    is_there = os.path.lexists(path)
    inside = _inside(path, spaces)
    first, checkout = _checkout(path)
    if checkout is None and (is_there or not inside):
        git.refuse_moved(path)
        what = f"{path} is no worktree" if is_there else f"there is no worktree at {path}, and no space is there"
        raise NotFound(what, "`git worktree list` shows which there are.")
    if checkout is not None and is_there:
        if git.is_same(first, path):
            raise Conflict(f"{path} is the first checkout, which holds the repository", "Name another worktree.")
        git.refuse_changed(checkout, arguments, lambda: _own(checkout.path, inside, spaces))
    elif checkout is not None:
        git.refuse_locked(checkout, arguments)
    made = noted.made_in(checkout.path) if checkout is not None and is_there else []
    for space in inside:
        spaces.delete(space)
    for each in made:  # which git may call new
        remove_at(each)
    if checkout is not None:
        try:
            git.run(first, "worktree", "remove", *arguments, path)
        except HoloError as error:
            gone = ", ".join([*inside, *(os.path.relpath(each, os.path.realpath(path)) for each in made)])
            left = f"Gone is what holo had made ({gone}): `holo worktree add {quote(path)}` makes it again."
            raise HoloError(error.message, left if gone else "The worktree is still there.") from error
    return RemovedWorktree(path, is_there, tuple(inside))


def _own(worktree: str, inside: Sequence[str], spaces: Spaces) -> list[str]:
    """What is in a worktree that holo has put there, and nobody has changed since."""
    known = (space for space in spaces.all() if space.name in inside)
    return [*noted.made_in(worktree), *(real_place(space.path) for space in known if spaces.is_unchanged(space))]


def _named(path: str) -> str:
    """The absolute path of a worktree."""
    if not path:  # as "$UNSET" is in a shell; it would mean the current one
        raise UsageError("the path of the worktree is empty", "Name its directory.")
    if path.startswith("-"):  # git takes options before it
        raise UsageError(
            f"{path} stands where the path of the worktree belongs",
            "First comes the path, then what is for git: `holo worktree add ../fix -b fix`, "
            "`holo worktree remove ../fix -f`.",
        )
    return absolute(path)


def _checkout(path: str) -> tuple[str, git.Checkout | None]:
    """The first checkout of the repository, and the worktree at ``path``."""
    for folder in (path, "."):  # the current one may be gone as well
        with suppress(HoloError):
            found = git.checkouts(folder)
            if (checkout := git.find(found, path)) is not None:
                return found[0].path, checkout
    return "", None


def _inside(path: str, spaces: Spaces) -> list[str]:
    """The names of the spaces at or below a path, and of those in the holotree that were built from a file there."""
    real = os.path.realpath(path)

    def is_inside(place: str | None) -> bool:
        return place is not None and (leads_into(place, path) or leads_into(os.path.realpath(place), real))

    return [
        space.name
        for space in spaces.all()
        if is_inside(space.path) or (spaces.is_default(space) and is_inside(spaces.blueprint(space)))
    ]
