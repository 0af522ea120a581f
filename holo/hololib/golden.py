"""The golden trees of a library: which there are, and their removal. :mod:`holo.trees.golden` makes them."""

from __future__ import annotations

import errno
import os

from holo import digest as digests
from holo import platform
from holo.errors import HoloError, advice
from holo.files import names_in
from holo.remove import remove


def golden_trees(library: str) -> set[str]:
    """The digests of the catalogs that have a golden tree."""
    return set(filter(digests.is_digest, names_in(os.path.join(library, "golden"))))


def remove_golden(library: str, digest: str) -> None:
    """Remove a catalog's golden tree and its outline, if there are any."""
    try:
        folder = platform.open_root(os.path.join(library, "golden"))
    except FileNotFoundError:
        return
    try:
        # With its outline it is golden as long as it has that name, so half of it must not: recorded again, it
        # would be used. The name goes first, for a tree without its outline looks damaged.
        draft = f".draft-{digest}"
        remove(folder, draft)
        try:
            platform.rename(folder, digest, folder, draft)
        except FileNotFoundError:
            pass
        except OSError as error:
            # A directory of a lower layer of overlayfs keeps its name, and so does the empty one that a snapshot of the
            # home has in the place of a subvolume.
            if error.errno not in (errno.EXDEV, errno.ENOTEMPTY):
                raise
            remove(folder, digest + ".json")
            remove(folder, digest)
        remove(folder, draft)
        remove(folder, digest + ".json")
    except OSError as error:
        raise HoloError(
            f"cannot remove the golden tree {digest} in {library}: {error.strerror}",
            advice(error) or "Run the command again. Else remove it: `btrfs property set TREE ro false`, then `rm -r`.",
        ) from error
    finally:
        platform.close_directory(folder)
