"""The lock of a library, which nobody gets before the library is recovered from a power cut.

A power cut, or a failure of the disk, may leave files that have the right size and time but not the content (see
:mod:`holo.hololib.unsettled`). Whoever may write to the library reads what is new in it and removes the torn files
before they get the lock. Whoever may only read it hashes what they use.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from holo import platform
from holo.errors import HoloError, os_errors_as
from holo.hololib.locks import CannotLockError, InUseError, OnWait, locked, say_waiting

if TYPE_CHECKING:
    from holo.hololib.library import Library


@contextmanager
def locked_library(
    library: Library, *, exclusive: bool, on_wait: OnWait = say_waiting, wait: bool = True
) -> Iterator[None]:
    """Keep others away from a library while the block runs, once it is recovered.

    The lock is shared by everything that uses blobs and catalogs, and exclusive for what removes them. A thread must
    not take it again while holding it. Without ``wait``, raises :class:`InUseError` if somebody else holds it; whoever
    comes meanwhile shows in :func:`is_waited_for`.
    """
    if not exclusive and library.may_be_torn and os.access(library.path, os.W_OK):
        with locked_library(library, exclusive=True, on_wait=on_wait):
            pass
    with _locked(library, exclusive=exclusive, on_wait=on_wait) if wait else _locked_if_free(library):
        may_be_torn = library.may_be_torn
        if may_be_torn and exclusive:
            _recover(library, on_wait)
            may_be_torn = library.may_be_torn
        if may_be_torn or "blobs" in vars(library):
            library.blobs.may_be_torn = may_be_torn
        yield


@contextmanager
def _locked(library: Library, *, exclusive: bool, on_wait: OnWait) -> Iterator[None]:
    """Hold the lock.

    The kernel's locks are not fair: where shared ones overlap for ever, nobody would ever get the exclusive one. So
    there is a pending lock before it, which everybody passes through, and which whoever waits for the exclusive lock
    holds.
    """
    what = f"the library {library.path}"
    pending = locked(os.path.join(library.path, "pending.lock"), what, exclusive=exclusive, on_wait=on_wait)
    lock = locked(os.path.join(library.path, "lock"), what, exclusive=exclusive, on_wait=on_wait)
    with ExitStack() as held:
        with ExitStack() as passing:
            (held if exclusive else passing).enter_context(pending)
            held.enter_context(lock)
        yield


def _locked_if_free(library: Library) -> AbstractContextManager[object]:
    """Hold the lock exclusively, without passing the pending lock: that is left to those who have to wait."""
    path = os.path.join(library.path, "lock")
    return locked(path, f"the library {library.path}", exclusive=True, wait=False)


def is_waited_for(library: Library, *, exclusive: bool = True) -> bool:
    """Whether somebody waits for the lock of a library that this process holds without ever having waited itself.

    ``exclusive``: how it holds the lock. Whoever shares it keeps only those waiting who want it for themselves.
    """
    path = os.path.join(library.path, "pending.lock")
    try:
        with locked(path, path, exclusive=exclusive, wait=False):
            return False
    except (InUseError, CannotLockError):
        return True


def _recover(library: Library, say: OnWait) -> None:
    """Remove the torn files of a library that nobody else uses; one that a catalog needs goes to the quarantine."""
    from holo.hololib import blobs, links
    from holo.hololib.quarantine import Quarantine
    from holo.hololib.unsettled import remove_torn

    say(f"recent files in {library.path} may not have reached the disk: verifying them")
    since = library.unsettled.earliest_change()
    quarantine = Quarantine(library.path)
    needed = cache(_needed)

    def remove_blob(name: str) -> None:
        path = os.path.join(library.path, "library", name)
        is_derived = os.path.lexists(path + ".zst")
        promised = () if is_derived else needed(library)
        if promised is None or os.path.basename(name).removesuffix(".zst") in promised:
            say(f"a blob was damaged and is in {quarantine.take(path, f'library/{name}')} now: see `holo check`")
        else:
            os.unlink(path)

    def remove_link(name: str) -> None:
        os.unlink(os.path.join(library.path, "links", name))

    with os_errors_as(f"cannot verify recent files in {library.path}"):
        platform.sync_filesystem(library.blobs.directory)
        is_settled = all(
            [
                remove_torn(library.blobs.directory, since, blobs.content_matches, remove_blob),
                remove_torn(library.links.directory, since, links.content_matches, remove_link),
            ]
        )
        if is_settled:
            library.unsettled.clear()


def _needed(library: Library) -> Collection[str] | None:
    """The digests of all blobs that catalogs need; ``None`` if nobody knows."""
    from holo.hololib.inventory import needs

    try:
        needed, damage = needs(library)
    except (HoloError, OSError):
        return None
    return None if damage else {digest for needs in needed.values() for digest in needs.blobs}
