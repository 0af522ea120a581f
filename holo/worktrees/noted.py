"""What holo has put into a worktree beside its spaces: noted where git keeps what it knows of the worktree.

git calls what it does not ignore a new file, and does not remove a worktree that has some. As long as a clone or a copy
of holo's is as it was made, nobody loses anything with it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence

from holo import digest as digests
from holo import platform
from holo.errors import os_errors_as
from holo.files import SMALL, read_file, write_atomically
from holo.relocation import leads_into
from holo.walk import real_place
from holo.worktrees import git

_NOTE = "holo-made"
_DRAFT = re.compile(r"(?:.*?/)?\.holo-(?:clone|copy)-[^/]+", re.DOTALL)


def note(worktree: str, made: Sequence[str]) -> None:
    """Note what was made at those paths in a worktree, if git does not ignore it."""
    new = git.new_files(worktree, *made)
    fresh = {
        os.path.relpath(path, worktree): _state(path) for path in made if any(leads_into(each, path) for each in new)
    }
    if fresh:
        where = git.own_path(worktree, _NOTE)
        with os_errors_as(f"cannot write {where}"):
            write(where, read(where) | fresh)


def made_in(worktree: str) -> list[str]:
    """The paths of what holo has made in a worktree, which nobody has changed since, or a killed command left."""
    return [*_unchanged(worktree), *_leftovers(worktree)]


def _leftovers(worktree: str) -> Iterator[str]:
    """Drafts of clones and copies that nobody makes any more."""
    real = os.path.realpath(worktree)
    found = (_DRAFT.match(os.path.relpath(path, real)) for path in git.new_files(real))
    for draft in dict.fromkeys(os.path.join(real, draft[0]) for draft in found if draft is not None):
        try:
            with platform.closing(platform.open_root(draft)) as directory:
                is_free = platform.lock_directory(directory)
        except NotADirectoryError:
            is_free = True
        except OSError:
            is_free = False
        if is_free:
            yield draft


def _unchanged(worktree: str) -> list[str]:
    """The paths of what was noted and is still as it was."""
    real = os.path.realpath(worktree)
    found = [(os.path.join(real, path), state) for path, state in read(git.own_path(real, _NOTE)).items()]
    there = [(path, state) for path, state in found if os.path.lexists(path) and leads_into(real_place(path), real)]
    return [path for path, state in there if _state(path) == state]


def read(where: str) -> dict[str, str]:
    """A note, by paths in the worktree. Nothing if it cannot be read: then all in the worktree is the user's."""
    try:
        found = json.loads(read_file(where, SMALL)[0])
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write(where: str, noted: dict[str, str]) -> None:
    """Raises :class:`OSError`, as where the repository is read-only."""
    write_atomically(where, json.dumps(noted).encode())


def _state(path: str) -> str:
    """What a stat tells of a file, or of everything in a tree: who changes something changes that."""
    hasher = digests.Hasher()
    for name in _all_in(path):
        status = os.lstat(os.path.join(path, name) if name else path)
        row = name, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        hasher.update(json.dumps(row).encode())
    return hasher.hexdigest()


def _all_in(path: str) -> Iterator[str]:
    yield ""
    for folder, names, files in os.walk(path):
        names.sort()
        for name in sorted([*names, *files]):
            yield os.path.relpath(os.path.join(folder, name), path)
