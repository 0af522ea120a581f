"""The only place with system calls that differ between operating systems.

Every function exists with one signature in :mod:`holo.platform.linux` (directories are open file
descriptors, names are resolved below them, symlinks are never followed) and in
:mod:`holo.platform.portable` (directories are path strings; macOS and Windows). A ``Directory`` is
opaque to the callers. All functions raise plain :class:`OSError`.
"""

from __future__ import annotations

import os
import sys
from typing import Generic, TypeVar

CLOCK_LAG_NS = 10_000_000
"""ctimes come from the kernel's last tick, which is at most this much behind the clock (CONFIG_HZ=100)."""

if sys.platform == "linux":
    from holo.platform.linux import *
else:
    from holo.platform.portable import *

__all__ = [
    "CAN_FORK",
    "MOST_KEPT_OPEN",
    "UNAVAILABLE",
    "Directory",
    "blocks_of",
    "boot_id",
    "can_detect_writers",
    "clock_offset",
    "clone",
    "clone_content",
    "clone_range",
    "close_directory",
    "copy_content",
    "copy_range",
    "copy_xattrs",
    "create_file",
    "data_ranges",
    "disinherit",
    "drop_cached",
    "exchange",
    "finish_link",
    "free_space",
    "get_xattrs",
    "has_default_acl",
    "has_holes",
    "has_no_writer",
    "identity",
    "is_entered",
    "is_tree",
    "link",
    "listing",
    "lock",
    "lock_directory",
    "make_accessible",
    "make_directory",
    "make_special",
    "make_symlink",
    "make_tree",
    "mounts_below",
    "nameless_file",
    "open_child",
    "open_file",
    "open_root",
    "open_to_change",
    "open_unmounted",
    "open_unread",
    "own_group",
    "owners",
    "read_at",
    "read_link",
    "remove_directory",
    "remove_file",
    "remove_tree",
    "remove_xattrs",
    "rename",
    "rename_new",
    "send",
    "set_directory",
    "set_file",
    "set_owner",
    "set_read_only",
    "set_times",
    "set_xattr",
    "shared_bytes",
    "shows_mode",
    "snapshot",
    "source_at",
    "status",
    "sync_directory",
    "sync_file",
    "sync_filesystem",
    "touch",
    "tree_seal",
    "trees_below",
    "umask",
    "user_id",
    "volume_of",
    "without_acls",
    "write_at",
    "xattrs_of",
]


_Opened = TypeVar("_Opened", bound="Directory | int")


class closing(Generic[_Opened]):  # noqa: N801 (named as contextlib.closing is)
    """Close an open directory, or the descriptor of a file, when the block ends.

    Some blocks are entered for each of 20,000 files, so it is no generator, which takes three times as long.
    """

    __slots__ = ("_opened",)

    def __init__(self, opened: _Opened) -> None:
        self._opened = opened

    def __enter__(self) -> _Opened:
        return self._opened

    def __exit__(self, *_: object) -> None:
        if isinstance(self._opened, int):
            os.close(self._opened)
        else:
            close_directory(self._opened)
