"""Keep what the settings say of the library's size, in a process of its own that nobody has to wait for.

It runs at most once an hour, and only if something has come into the library since. It gives way, as in
:mod:`holo.background`: a collection that is killed leaves a valid library. The next one goes on.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from holo import background, platform
from holo.errors import HoloError
from holo.gc import collect_garbage
from holo.gc.policy import Policy
from holo.hololib import Library
from holo.hololib.layout import UPKEEP
from holo.hololib.locks import CannotLockError, InUseError
from holo.hololib.recovery import is_waited_for
from holo.holotree import Holotree
from holo.home import Home

_PAUSE = 3600
"""Seconds from one to the next."""

_NICE = 10
"""Lower would be slower to give way."""


def start(home: Home, max_size: int | None, keep_days: int | None, min_free: int | None) -> bool:
    """Start it, if it is due; returns whether it was started. At least one limit is set."""
    limits = ["" if limit is None else str(limit) for limit in (max_size, keep_days, min_free)]
    try:
        if not _is_due(home.library.path):
            return False
        _note(home.library.path)  # first: others that end now are not to start one as well
        background.start(__name__, home.library.home, home.library.compression, *limits)
    except OSError:  # another user's library, or no process can be started: what was asked for is done
        return False
    return True


def _is_due(library: str) -> bool:
    added = os.stat(os.path.join(library, "catalog")).st_mtime
    try:
        last = os.stat(os.path.join(library, UPKEEP)).st_mtime
    except OSError:
        return True
    return added > last and not 0 <= time.time() - last < _PAUSE


def _note(library: str) -> None:
    with platform.closing(platform.open_root(library)) as folder:
        platform.touch(folder, UPKEEP)


def main() -> None:
    """The process: ``HOME COMPRESSION MAX_SIZE KEEP_DAYS MIN_FREE``, of which the last three may be empty."""
    path, compression, *texts = sys.argv[1:]
    max_size, keep_days, min_free = (int(text) if text else None for text in texts)
    with suppress(InUseError, CannotLockError, HoloError, OSError):
        home = Home(Library(path, compression), Holotree(path), on_wait=lambda _: None)
        if not home.library.may_be_torn:  # whoever comes next verifies what is new, which takes long
            if hasattr(os, "nice"):
                os.nice(_NICE)
            background.give_way(lambda: is_waited_for(home.library))
            collect_garbage(home, Policy(keep_days, None, max_size, min_free), dry_run=False, wait=False)
            _note(home.library.path)  # it has changed the folder of the catalogs itself
    os._exit(0)


if __name__ == "__main__":
    main()
