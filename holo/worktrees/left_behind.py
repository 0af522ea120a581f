"""What an environment imports in one checkout, and lacks in another: git ignores it, and a clone does not bring it.

Such are compiled modules, and files with a version: an install makes them in the project.
"""

from __future__ import annotations

import os

from holo.relocation import leads_into
from holo.relocation.project import named_places
from holo.worktrees import git

_CODE = (".py", ".so", ".pyd")


def left_behind(place: str, worktree: str, source: str) -> list[str]:
    """The code that the environment at ``place`` imports in ``worktree``, and that only ``source`` has: paths in it."""
    own = os.path.realpath(worktree)
    named = {os.path.realpath(each) for each in named_places(place) if "\0" not in each}
    inside = {os.path.relpath(each, own) for each in named if leads_into(each, own)}
    # Beside where the code is, an install names its project, with much that nobody imports.
    folders = [each for each in inside if not any(other != each and _is_in(other, each) for other in inside)]
    folders = [each for each in folders if os.path.isdir(os.path.join(source, each))]
    code = [path for path in git.ignored_files(source, folders) if path.endswith(_CODE)]
    return [path for path in code if not os.path.lexists(os.path.join(own, path))]


def _is_in(path: str, folder: str) -> bool:
    return folder == os.curdir or leads_into(path, folder)
