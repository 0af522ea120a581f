"""Keep what the settings say of the library's size, in a process of its own that nobody has to wait for.

It runs at most once an hour, and only if something has come into the library since. It takes no lock that somebody
holds. While it holds the library's, it looks many times a second whether somebody waits for it, and then ends at once,
as if it were killed: a collection that is killed leaves a valid library. The next one goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

from holo import platform
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

_LOOK = 0.02
"""Seconds between two looks whether somebody waits."""

_NICE = 10
"""Lower would be slower to give way."""


_started: list[subprocess.Popen[bytes]] = []
"""Nobody waits for them. Forgotten ones would be reported as still running."""


def start(home: Home, max_size: int | None, keep_days: int | None, min_free: int | None) -> bool:
    """Start it, if there is something to keep and it is due; returns whether it was started."""
    if max_size is keep_days is min_free is None:
        return False
    limits = ["" if limit is None else str(limit) for limit in (max_size, keep_days, min_free)]
    try:
        if not _is_due(home.library.path):
            return False
        _note(home.library.path)  # first: others that end now are not to start one as well
        process = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", "-m", __name__, home.library.home, home.library.compression, *limits],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _started.append(process)
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
    home = Home(Library(path, compression), Holotree(path), on_wait=lambda _: None)
    if home.library.may_be_torn:  # whoever comes next verifies what is new, which takes long
        return
    if hasattr(os, "nice"):
        os.nice(_NICE)

    _give_way(home.library)
    with suppress(InUseError, CannotLockError, HoloError, OSError):
        collect_garbage(home, Policy(keep_days, None, max_size, min_free), dry_run=False, wait=False)
        _note(home.library.path)  # it has changed the folder of the catalogs itself
    os._exit(0)


def _give_way(library: Library) -> None:
    """Let this process end as soon as somebody waits for the library."""

    def look(*_: object) -> None:
        if is_waited_for(library):
            os._exit(0)

    def look_always() -> None:
        while True:
            look()
            time.sleep(_LOOK)

    if sys.platform == "win32":
        threading.Thread(target=look_always, daemon=True).start()
    else:  # a thread might be in the middle of something when a worker is forked
        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)


if __name__ == "__main__":
    main()
