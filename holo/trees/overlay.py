"""The trees and layers that throw-away environments are mounted over, and where their changes go.

All of it is in one folder for each user:

    holotree/.ephemeral-<user>/
        trees/<digest>     a catalog in plain directories, as it was recorded
        stubs/<digest>-... the same without its contents, and names of the blobs that have them: see holo.trees.stubs
        layers/<key>       its files that name their own path, patched for one path, with the directories above them
        runs/<id>          what one run changes
        spaces/<name>/<id> of a space that is mounted: its layer, and what was changed in it

Each is held by its lock, see :mod:`holo.trees.held`: runs share those of the trees and layers that they are mounted
over, and each run holds its own. Users do not share the folder: in a user namespace the kernel shows files of others as
nobody's, and the owner of a file can change it.

The folder is on one filesystem (one subvolume, on Btrfs), for an overlay tells two files of two subvolumes apart by
inode numbers that are only unique in each.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import suppress

from holo import digest as digests
from holo import platform
from holo.errors import HoloError
from holo.files import disk_size
from holo.trees.private import is_private, make_private

_FOLDER = ".ephemeral-"
"""Begins the folder's name. A space cannot have such a name."""

_FOLDERS = ("trees", "stubs", "layers", "runs", "spaces")

TREE, BLOBS = "tree", "blobs"
"""In the folder of a tree of stubs: what is mounted, and names of the blobs that have the contents."""

OVERLAY, SPACE = "holo-ephemeral", "holo-space"
"""The sources that the system shows for the overlay of a throw-away environment, and of a space."""


class Layers:
    """The trees, layers and runs of this user below one holotree."""

    def __init__(self, holotree: str) -> None:
        self.path = os.path.join(holotree, _FOLDER + str(platform.user_id()))
        self.trees, self.stubs, self.layers, self.runs, self.spaces = (
            os.path.join(self.path, name) for name in _FOLDERS
        )

    def prepare(self) -> None:
        """Make the folders. Raises :class:`~holo.errors.Conflict` if they could be another user's."""
        make_private(self.path, *_FOLDERS)

    def layer_name(self, digest: str, path: str, project: str) -> str:
        """The layer of a catalog for a path in a project. In this boot only: nobody waits until it is on the disk."""
        place = f"{path}\0{project}" if project else path
        return f"{digest}-{_boot()}-{digests.of(os.fsencode(place))[:32]}"

    def stub_tree(self, digest: str) -> str:
        """Where the tree of stubs of a catalog is, for this system and this user's rights.

        Another kernel may not be able to mount it, and who can mount for everybody needs other attributes than who
        needs a namespace of their own.
        """
        key = ""
        if sys.platform == "linux":
            from holo.platform.namespaces import overlay_attributes

            key = f"{os.uname().release} {overlay_attributes()}"
        return os.path.join(self.stubs, f"{digest}-{digests.of(key.encode())[:8]}")

    def working(self) -> list[str]:
        """The runs, dead or alive, as far as that can be told. Costs microseconds where there are none."""
        with suppress(HoloError):  # no command has to fail for that
            return self.of(self.runs)
        return []

    def of(self, folder: str) -> list[str]:
        """The names in one of the folders, whole or not; none if others may have put them there.

        Raises :class:`HoloError` if nobody can tell.
        """
        try:
            names = os.listdir(folder) if is_private(self.path) and not os.path.islink(folder) else []
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []
        except OSError as error:
            raise HoloError(f"cannot read {folder}: {error.strerror}") from error
        if not names:  # as before nearly every command, which need not import for that
            return []
        from holo.trees.held import name_of

        return sorted({*map(name_of, names)})

    def collect(self, catalogs: set[str], mounted: Set[str], *, dry_run: bool) -> tuple[int, int]:
        """Remove all trees but those of ``catalogs``, and all layers, unless a run uses them.

        ``mounted``: the catalogs of spaces that are mounted over their trees.

        Each path that a run was at has a layer of its own, which takes milliseconds to make. Returns how many, and the
        bytes that are free then.
        """
        from holo.trees.held import remove_held

        trees = [(path, digest) for path, digest in self.all_trees() if digest not in mounted]
        doomed = [path for path, digest in trees if digest not in catalogs or self._is_of_another(path, digest)]
        doomed += [os.path.join(self.layers, name) for name in self.of(self.layers)]
        removed = freed = 0
        for path in doomed:
            size = self._size(path)
            try:
                is_removed = remove_held(path, dry_run=dry_run)
            except HoloError as error:
                # In a lower layer of another overlay a stub cannot be looked at, and to remove it would free nothing.
                if not (path.startswith(self.stubs) and isinstance(error.__cause__, PermissionError)):
                    raise
            else:
                removed += is_removed
                freed += size if is_removed else 0
        return removed, freed

    def keep_spaces(self, names: set[str]) -> None:
        """Remove what is left of mounted spaces but those. No space is being restored meanwhile."""
        from holo.remove import remove_at

        for name in self.of(self.spaces):
            if name not in names:
                remove_at(os.path.join(self.spaces, name))

    def all_trees(self) -> Iterator[tuple[str, str]]:
        """The path of each tree, of either kind, and the digest of its catalog."""
        for folder in (self.trees, self.stubs):
            for name in self.of(folder):
                yield os.path.join(folder, name), name.partition("-")[0]

    def sizes(self) -> Counter[str]:
        """The bytes on the disk that trees share with nothing, by the digests of their catalogs."""
        sizes = Counter[str]()
        for path, digest in self.all_trees():
            sizes[digest] += self._size(path)
        return sizes

    def names_of_blobs(self, catalogs: set[str]) -> Counter[int]:
        """How many names of blobs are in the trees of stubs of other ``catalogs``, by inode."""
        names = Counter[int]()
        for path, digest in self.all_trees():
            if digest not in catalogs and os.path.dirname(path) == self.stubs:
                for folder, _, _ in os.walk(os.path.join(path, BLOBS)):
                    with suppress(FileNotFoundError), os.scandir(folder) as entries:
                        names.update(entry.inode() for entry in entries)
        return names

    def _is_of_another(self, path: str, digest: str) -> bool:
        """Whether it is a tree of stubs for another system."""
        return os.path.dirname(path) == self.stubs and path != self.stub_tree(digest)

    def _size(self, path: str) -> int:
        """Without blobs: they count in the library."""
        return _size(os.path.join(path, TREE) if os.path.dirname(path) == self.stubs else path)

    def remove_drafts(self) -> None:
        """Remove the trees and layers that killed commands did not finish."""
        from holo.trees.held import remove_drafts

        for folder in (self.trees, self.stubs, self.layers):
            remove_drafts(folder)


def _size(path: str) -> int:
    """The bytes on the disk of the files in a tree, without those that they share. Others may remove it meanwhile."""
    with suppress(OSError), platform.closing(platform.open_root(path)) as root:
        return _size_in(root)
    return 0


def _size_in(directory: platform.Directory) -> int:
    total = 0
    with platform.listing(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    with platform.closing(platform.open_child(directory, entry.name)) as child:
                        total += _size_in(child)
                elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and (size := disk_size(status)):
                    total += size - min(size, platform.shared_bytes(directory, entry.name))
    return total


def _boot() -> str:
    return digests.of(platform.boot_id().encode())[:8]
