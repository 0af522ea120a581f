"""Spaces that nobody can use any more: their directory is gone, or the folder that they were made for."""

from __future__ import annotations

import os
from contextlib import suppress

from holo.blueprints.memory import blueprint_of
from holo.errors import HoloError
from holo.files import is_there
from holo.hololib.locks import InUseError
from holo.holotree import Holotree
from holo.home import Home
from holo.restore.deletion import delete_locked, refuse_deletion
from holo.space import Space


def drop_missing(home: Home, *, dry_run: bool) -> list[Space]:
    """Delete them; returns which. Those that somebody is working on, or that are not surely this home's, stay."""
    dropped = []
    for found in home.spaces.spaces():
        if not _is_gone(home.spaces, found):
            continue
        with suppress(InUseError, HoloError), home.spaces.lock(found.name, wait=False):
            space = home.spaces.find(found.name)
            if space is not None and _is_gone(home.spaces, space):
                refuse_deletion(home, space)
                dropped.append(space if dry_run else delete_locked(home, space.name))
    return dropped


def _is_gone(tree: Holotree, space: Space) -> bool:
    if space.state == "damaged" or space.standing == "copied":
        return False
    with suppress(OSError):  # nobody can tell
        if not is_there(space.path):
            return True
        # In the holotree it is for nobody but the folder of its blueprint: a project, or a worktree of one.
        blueprint = blueprint_of(tree, space) if tree.is_default(space) else None
        return blueprint is not None and not is_there(os.path.dirname(blueprint))
    return False
