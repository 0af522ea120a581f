"""What can be said about the disk blocks of a file: the values that every system's module hands out."""

from __future__ import annotations

from typing import NamedTuple

SHARED = 1
"""Flag of a place: some other file or snapshot has it, too. The kernel does not tell which."""
ENCODED = 2
"""Flag of a place: it is compressed or encrypted, and so one piece, which files have whole."""
BOUNDED = 4
"""Flag of a place: its length is not known, but is at most this."""


class Place(NamedTuple):
    """A part of the disk that other files may have as well, or whose length is not known."""

    start: int
    length: int
    flags: int


class Blocks(NamedTuple):
    """What a file has of the disk."""

    own: int
    """bytes that no other file has, with those that are ``pending``"""
    pending: int
    """bytes that are still only in memory"""
    is_inline: bool
    """whether its content lies in the metadata of the filesystem, where it takes no blocks"""
    places: list[Place]
    """the rest"""


class Volume(NamedTuple):
    """The disk that a directory is on, as far as the places of blocks are concerned."""

    identity: str
    can_share: bool
    """whether two files may have a block in common, as far as it is known"""
    keeps_extents: bool
    """Btrfs: an extent is free only when no file has any part of it any more"""
