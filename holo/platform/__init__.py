"""The only place with system calls that differ between operating systems.

Every function exists with one signature in :mod:`holo.platform.linux` (directories are open file
descriptors, names are resolved below them, symlinks are never followed) and in
:mod:`holo.platform.portable` (directories are path strings; macOS and Windows). A ``Directory`` is
opaque to the callers. All functions raise plain :class:`OSError`.
"""

from __future__ import annotations

import sys

if sys.platform == "linux":
    from holo.platform.linux import (
        CAN_FORK,
        UNAVAILABLE,
        Directory,
        clone,
        close_directory,
        copy_range,
        create_file,
        get_xattrs,
        link,
        listing,
        lock,
        make_accessible,
        make_directory,
        make_symlink,
        open_child,
        open_file,
        open_root,
        read_link,
        remove_directory,
        remove_file,
        rename,
        set_directory,
        set_file,
        set_xattr,
        status,
        sync_filesystem,
        umask,
    )
else:
    from holo.platform.portable import (
        CAN_FORK,
        UNAVAILABLE,
        Directory,
        clone,
        close_directory,
        copy_range,
        create_file,
        get_xattrs,
        link,
        listing,
        lock,
        make_accessible,
        make_directory,
        make_symlink,
        open_child,
        open_file,
        open_root,
        read_link,
        remove_directory,
        remove_file,
        rename,
        set_directory,
        set_file,
        set_xattr,
        status,
        sync_filesystem,
        umask,
    )

__all__ = [
    "CAN_FORK",
    "UNAVAILABLE",
    "Directory",
    "clone",
    "close_directory",
    "copy_range",
    "create_file",
    "get_xattrs",
    "link",
    "listing",
    "lock",
    "make_accessible",
    "make_directory",
    "make_symlink",
    "open_child",
    "open_file",
    "open_root",
    "read_link",
    "remove_directory",
    "remove_file",
    "rename",
    "set_directory",
    "set_file",
    "set_xattr",
    "status",
    "sync_filesystem",
    "umask",
]
