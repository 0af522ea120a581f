"""What the last restore of a space proves about it, so that a file need not be read to be known.

A file whose ctime is not newer than the stamp is as the last restore left it. But rename(2) moves a whole directory and
moves no ctime of what is below it. So that holds only in a directory that is the one which the restore left at that
path, and its inode tells: a directory that was there then has kept its number; and into one that was made later, with a
number that was used before, files can only have come later, by calls that move their ctimes.

A stamp proves nothing in another boot of the system (a power cut may have left a file its size and time, but not its
content), when it is newer than now, and after the clock was set back: a change then looks older than it is.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from typing import NamedTuple

from holo import platform
from holo.catalog import Catalog
from holo.filetimes import FileTimes
from holo.holotree import Holotree
from holo.platform import Directory
from holo.space import Space

_NUMBER = "Q"
_SIZE = 8
_MOST = (1 << 8 * _SIZE) - 1
"""Of a longer inode number (ReFS) the lower half counts."""

_UNKNOWN = 0
"""No directory has this inode number."""


class Proof(NamedTuple):
    """Up to which ctime (ns) files are known, and the directories in which that holds."""

    stamp: int
    inodes: array[int]
    """of the directories, in the order of the catalog"""

    def stamp_in(self, index: int, inode: int) -> int:
        """The stamp that counts in a directory with that inode, at the place of the catalog's directory ``index``."""
        return self.stamp if self.stamp >= 0 and self.inodes[index] == inode & _MOST else -1


NO_PROOF = Proof(-1, array(_NUMBER))
"""Every file has to be read."""


def still_holds(known: Space, digest: str, root: Directory) -> bool:
    """Whether the last restore of a space, whose ``root`` is open, proves anything if it is to be of that catalog."""
    return (
        known.digest == digest
        and known.boot == platform.boot_id()
        and known.root == platform.identity(root)
        and known.stamp <= time.time_ns()
        and known.clock <= platform.clock_offset() + platform.CLOCK_LAG_NS
    )


def proof_of(tree: Holotree, known: Space, catalog: Catalog) -> Proof:
    """What the last restore of a space proves, if that still holds."""
    size = len(catalog.directories) * _SIZE
    inodes = tree.inodes(known, size)
    return Proof(known.stamp, array(_NUMBER, inodes)) if inodes is not None and len(inodes) == size else NO_PROOF


def packed(catalog: Catalog, inodes: Mapping[str, int]) -> bytes:
    """The inodes of the directories of a catalog, by their paths, in the form that is kept."""
    return array(_NUMBER, [inodes.get(row[0], _UNKNOWN) & _MOST for row in catalog.directories]).tobytes()


def stamp_before(change: int, times: FileTimes) -> int:
    """The stamp of a restore whose last change has that ctime.

    A later change can have the same ctime, in the same tick of the kernel's clock or the same second of the
    filesystem's. So the stamp is older than that, and the files made last are read once more.
    """
    return change - max(platform.CLOCK_LAG_NS, times.granularity)


def stamp_of_look(began: int, newest: int, stamp: int, times: FileTimes) -> int:
    """The stamp of a look that found nothing changed.

    ``began`` is the time in ns before the look, ``newest`` the last ctime of all that was read, and ``stamp`` the one
    before. Not newer than the clock of the filesystem has been, which may be another machine's.
    """
    return min(stamp_before(began, times), max(newest, stamp))
