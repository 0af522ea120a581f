"""Where a space may be: every refusal that needs no look into its files, before anything is made or read."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from holo import platform
from holo.errors import Conflict, HoloError, UsageError, os_errors_as
from holo.hololib import Library
from holo.holotree import Holotree
from holo.home import Home
from holo.space import ADOPTED, VIEW, Space
from holo.trees.overlay import OVERLAY, SPACE
from holo.userfolders import user_home
from holo.walk import absolute, mounted_inside, open_directory

_HISTORIES = frozenset({".git", ".hg", ".jj", ".svn"})


class Target(NamedTuple):
    """The directory that is to be a space."""

    space: str
    """its name"""
    path: str
    known: Space | None
    """the record of the space, if there is one of that name"""
    is_new: bool
    """nothing is at the path, or an empty directory"""
    is_mount_point: bool
    is_anothers: bool
    """another home may have the directory that is there: another one is to take its place, and it counts as new"""
    seen: frozenset[tuple[str, int]] | None = None
    """the records among which no other space was that overlaps it; ``None`` if nobody has looked"""


def choose_place(
    home: Home, space: str, path: str | None, *, take_over: bool = False, with_history: bool = False
) -> Target:
    """Where the space of that name is to be: at ``path``, else where it is, else in the holotree.

    ``take_over``: also a directory that is not a space, or not this one; ``with_history``: also if it holds the
    history of a version control system. Raises :class:`Conflict` and :class:`UsageError` for a place that it cannot
    have. The caller holds the space's lock.
    """
    seen = home.spaces.seen() if path is not None else None  # before the look, so that what comes later is none of it
    known = home.spaces.find(space)
    place = _place(home, space, known, path)
    if known is not None:
        home.spaces.refuse_copied(known)
        if path is None:
            home.spaces.refuse_unproven(known, f"If it is, name it: `holo restore --space {space} --to DIR`.")
        if known.state == "restoring" and not home.spaces.is_default(known):  # killed before it knew that it is alone
            refuse_other_spaces(home, space, place)
    if os.path.islink(place):
        raise Conflict(
            f"{place} is a symlink, not a directory",
            "Where it leads is not known to be the space's. Name that directory itself, or remove the symlink.",
        )
    is_new = _is_absent_or_empty(place)
    is_mount_point = refuse_mounts(place, is_empty=is_new)
    if not is_new and known is not None and is_mount_point and not take_over:
        refuse_another(known, "Unmount it, or insist with --force: what is not in the catalog is removed.")
    is_replaced = known is not None and home.spaces.is_anothers_place(known)
    if not is_new and (known is None or is_replaced):
        _refuse_stranger(place, known, take_over=take_over, with_history=with_history)
    is_anothers = (
        not (is_new or is_mount_point)
        and known is not None
        and (is_replaced or known.root == ADOPTED)
        and os.access(os.path.dirname(place), os.W_OK)
    )
    return Target(space, place, known, is_new, is_mount_point, is_anothers, seen)


def _place(home: Home, space: str, known: Space | None, path: str | None) -> str:
    if path is None:
        return known.path if known is not None else home.spaces.default_path(space)
    path = absolute(path)
    if known is not None and os.path.realpath(known.path) != os.path.realpath(path):
        from shlex import quote

        raise Conflict(
            f"space {space!r} lives at {known.path}, not at {path}",
            f"To make another one there: `holo init --space NAME {known.catalog} --to {quote(path)}`.",
        )
    refuse_other_spaces(home, space, path)
    precious = []
    if known is None and not _is_absent_or_empty(path):
        with suppress(FileNotFoundError):  # the current directory has been deleted
            precious.append(os.getcwd())
    refuse_place(home.library, home.spaces, path, precious)
    return path


def refuse_other_spaces(home: Home, space: str, path: str, seen: frozenset[tuple[str, int]] = frozenset()) -> None:
    """Raise :class:`Conflict` if another space is there, inside or around: of those whose records were not ``seen``."""
    real = os.path.realpath(path)
    for other in home.spaces.overlapping(path, but=seen):
        if other.name == space:
            continue
        home.spaces.refuse_copied(other)
        if os.path.realpath(other.path) == real:
            raise Conflict(f"{path} is space {other.name!r} already", f"Use --space {other.name}, or another place.")
        # A restore of the outer one would remove the inner one.
        raise Conflict(
            f"{path} and space {other.name!r} at {other.path} lie inside each other",
            "Choose another place: a restore removes everything in a space that is not in its catalog.",
        )


def _refuse_stranger(path: str, known: Space | None, *, take_over: bool, with_history: bool) -> None:
    """Raise :class:`Conflict` for a directory with something in it that is no space, or not any more."""
    if not take_over and known is not None:
        raise Conflict(
            f"{path} is not what the last restore of space {known.name!r} left there: something has replaced it",
            f"A restore removes what is not in the catalog. To insist: `holo restore {known.name} --force`.",
        )
    if not take_over:
        raise Conflict(
            f"{path} is not empty and not a holo space",
            "A restore removes what is not in the catalog. Choose an empty place, or insist with --force.",
        )
    if not with_history:
        _refuse_history(path)


def _refuse_history(path: str) -> None:
    """Raise :class:`Conflict` if there is something below ``path`` that may be nowhere else."""
    for folder, names, files in os.walk(path):
        if found := _HISTORIES.intersection((*names, *files)):  # in a worktree or a submodule it is a file
            history = os.path.relpath(os.path.join(folder, min(found)), path)
            raise Conflict(
                f"{path} holds {history}, and a restore removes what is not in the catalog",
                "Choose another place. If all that may go, add --yes.",
            )


def refuse_place(library: Library, spaces: Holotree, path: str, precious: Sequence[str] = ()) -> None:
    """Raise :class:`UsageError` for a directory that can be no space: it is holo's, or contains what a user needs.

    ``precious``: more paths that must not be in it.
    """
    real, own = os.path.realpath(path), os.path.realpath(library.path)
    if os.path.commonpath([real, own]) == own:
        raise UsageError(f"{path} cannot be a space: it is in the library", "Choose a directory of its own.")
    if real.startswith(os.path.join(os.path.realpath(spaces.path), ".")):
        raise UsageError(f"{path} cannot be a space: it is in a folder of holo's", "Choose a directory of its own.")
    for inside in filter(None, (library.path, spaces.path, user_home(os.environ), *precious)):
        if os.path.commonpath([real, os.path.realpath(inside)]) == real:
            raise UsageError(f"{path} cannot be a space: it contains {inside}", "Choose a directory of its own.")


def refuse_mounts(path: str, *, is_empty: bool = False) -> bool:
    """Whether the space itself is a mount point, which it may be; not if holo has mounted it.

    Raises :class:`Conflict` if something is mounted inside it: those files are not the space's to remove. Raises
    :class:`HoloError` if nobody can tell, unless nothing is there. What is mounted later, those meet who open the
    directories to change them.
    """
    try:
        mounted, source = mounted_inside(path), platform.source_at(os.path.realpath(path))
    except HoloError:
        if is_empty:
            return False
        raise
    if source == OVERLAY:
        raise Conflict(
            f"this command runs in a throw-away environment at {path}, and does not see the space there",
            "Run it outside of `holo run --ephemeral`.",
        )
    if source is not None and source.startswith(VIEW):
        raise Conflict(f"this command runs in the space at {path}", "Run it outside: what is in use cannot go.")
    if mounted is not None:
        raise Conflict(f"{mounted} is mounted inside the space {path}", "Unmount it first; nothing was changed.")
    return source is not None and source != SPACE


def refuse_another(space: Space, hint: str) -> None:
    """Raise :class:`Conflict` if what is mounted at a space's path is not what the last restore left there."""
    with os_errors_as(f"cannot open the space {space.path}"), platform.closing(open_directory(space.path)) as root:
        identity = platform.identity(root)
    if space.root not in ("", ADOPTED, identity):
        raise Conflict(f"what is mounted at {space.path} is not space {space.name!r}", hint)


def _is_absent_or_empty(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(iter(entries), None) is None
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            while not os.path.lexists(path):  # the file is in the place of a folder above
                path = os.path.dirname(path)
            raise Conflict(f"{path} is a file, not a directory", "Choose another place for the space.") from error
        raise HoloError(f"cannot read {path}: {error.strerror}") from error
