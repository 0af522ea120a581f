"""Scan a tree: list all its entries once, in a fixed order, without reading any content."""

from __future__ import annotations

import os
import stat
from operator import attrgetter

from holo import platform
from holo.catalog import MAX_DEPTH
from holo.errors import HoloError
from holo.platform import Directory
from holo.relocation import listed


class Folder:
    """One directory of the tree: ``path`` is relative to the root, which is ""."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.mode = 0
        self.mtime_ns = 0
        self.files: list[str] = []
        """names, in order; their status is read later, with the content"""
        self.symlinks: list[tuple[str, str, int]] = []
        """(name, target, mtime in ns), by name"""
        self.xattrs: dict[str, bytes] = {}


class ScannedTree:
    """A scanned tree. ``folders`` are in depth-first order, parents before children."""

    def __init__(self) -> None:
        self.folders: list[Folder] = []
        self.special: list[str] = []
        """sockets, fifos and devices, as "path (kind)" """
        self.other_names: dict[str, list[tuple[str, str]]] = {}
        """further names of files, as (folder, name), by the path of the first name; only the first is among the
        ``files`` of a folder"""


def scan(root: Directory, shown: str) -> ScannedTree:
    """Scan the tree below ``root``; ``shown`` is its path for messages.

    Raises :class:`HoloError` naming the directory that cannot be read.
    """
    tree = ScannedTree()
    _scan(root, shown, "", tree, {})
    return tree


def _scan(directory: Directory, root: str, path: str, tree: ScannedTree, paths: dict[int, dict[int, str]]) -> None:
    """``paths``: the first path of each file so far, by device and inode number."""
    folder = Folder(path)
    tree.folders.append(folder)
    base = path + "/" if path else ""
    if path.count("/") >= MAX_DEPTH:
        raise HoloError(f"{os.path.join(root, path)[:200]}... has directories more than {MAX_DEPTH} levels deep")
    children: list[str] = []
    try:
        status = platform.status(directory, "")
        folder.mtime_ns = status.st_mtime_ns
        xattrs = platform.get_xattrs(directory, acls=True)
        folder.mode, folder.xattrs = platform.without_acls(stat.S_IMODE(status.st_mode), xattrs)
        with platform.listing(directory) as entries:
            found = sorted(entries, key=attrgetter("name"))
        met = paths.setdefault(status.st_dev, {})
        for entry in found:
            if entry.is_file(follow_symlinks=False):
                # A listing contains inode numbers, so only a file whose number has occurred before needs a stat.
                name = entry.name
                here = base + name
                first = met.setdefault(entry.inode(), here)
                if first is here or entry.stat(follow_symlinks=False).st_nlink == 1:
                    folder.files.append(name)
                else:
                    tree.other_names.setdefault(first, []).append((path, name))
            elif entry.is_dir(follow_symlinks=False):
                children.append(entry.name)
            elif entry.is_symlink():
                target = platform.read_link(directory, entry.name)
                mtime = entry.stat(follow_symlinks=False).st_mtime_ns
                folder.symlinks.append((entry.name, target, mtime))
            else:
                mode = entry.stat(follow_symlinks=False).st_mode
                tree.special.append(f"{base}{entry.name} ({_kind(mode)})")
    except OSError as error:
        raise HoloError(f"cannot read {os.path.join(root, path)}: {error.strerror}") from error
    for name in children:
        try:
            child = platform.open_child(directory, name)
        except OSError as error:
            raise HoloError(f"cannot read {os.path.join(root, base + name)}: {error.strerror}") from error
        try:
            _scan(child, root, base + name, tree, paths)
        finally:
            platform.close_directory(child)


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISFIFO(mode):
        return "fifo"
    return "device"


def refuse_special(tree: ScannedTree) -> None:
    """Raise :class:`HoloError` naming the sockets, fifos and devices, if there are any."""
    if tree.special:
        raise HoloError(
            f"not files, directories or symlinks: {listed(tree.special)}",
            "To leave them out: `holo record DIR --skip-special`.",
        )
