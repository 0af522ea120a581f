"""Delete a space: its directory, which may become a spare, and its record."""

from __future__ import annotations

import os
from contextlib import suppress

from holo import platform
from holo.errors import HoloError, is_full
from holo.home import Home
from holo.remove import remove_at
from holo.restore.marks import remove_draft
from holo.restore.mounting import refuse_use, unmount
from holo.restore.place import refuse_another, refuse_mounts
from holo.space import Space
from holo.trees.spares import Spares, is_short_of


def delete(home: Home, name: str) -> Space:
    """Remove a space and its record. Returns the record.

    If the record is damaged, this removes the directory where the space is likely to be. If something else has taken
    the space's place, outside the holotree, that stays, and the state is ``replaced``.
    """
    with home.spaces.lock(name, home.on_wait):
        return delete_locked(home, name)


def delete_locked(home: Home, name: str) -> Space:
    """The same for a caller who holds the space's lock."""
    spaces = home.spaces
    space = spaces.find_anyhow(name)
    if space is None:
        raise spaces.unknown(name)
    is_mount_point = refuse_deletion(home, space)
    is_gone = spaces.is_anothers_place(space)
    if space.state != "damaged" and not is_gone:
        _mark(home, space)
    remove_draft(space)
    if not is_gone:
        was_mounted = unmount(home, name, space.path)
        with spaces.try_lock_mount_point(name) as is_free:
            if not (is_free and not was_mounted and not is_mount_point and _give_back(home, space)):
                remove_at(space.path, itself=is_free, is_mount_point=is_mount_point)
    spaces.forget(name)
    return space._replace(state="replaced") if is_gone else space


def refuse_deletion(home: Home, space: Space) -> bool:
    """Raise :class:`Conflict` for a space that must not be deleted; returns whether its directory is a mount point."""
    home.spaces.refuse_copied(space)
    home.spaces.refuse_unproven(space, "Remove that directory yourself, and then what holo knows about it.")
    is_mount_point = refuse_mounts(space.path)
    if is_mount_point:
        refuse_another(space, "Unmount it first; nothing was changed.")
    refuse_use(home, space.name, space.path)
    return is_mount_point


def _give_back(home: Home, space: Space) -> bool:
    """Make the tree of a space a spare, if one is wanted."""
    if space.state != "pristine" or space.upper or not is_short_of(home, space.digest):
        return False
    parent, name = os.path.split(space.path)
    with suppress(OSError), platform.closing(platform.open_root(parent)) as folder:
        return Spares(home.spaces).give_back(space, folder, name)
    return False


def _mark(home: Home, space: Space) -> None:
    """Mark the space as unfinished, if there is room for that.

    On a full disk there is none, and deleting is what makes some. Killed then, it is a space with files missing, like
    one whose user removed them: the next restore sees that as well.
    """
    try:
        home.spaces.save(space._replace(state="restoring"))
    except HoloError as error:
        if not is_full(error):
            raise
