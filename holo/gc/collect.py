"""Collect the garbage of a library, and nothing else of its home."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby

from holo import platform
from holo.errors import HoloError, os_errors_as
from holo.gc.decide import Decision, decide, not_removable
from holo.gc.policy import Policy
from holo.gc.report import GcReport, Use
from holo.hololib import Library
from holo.hololib.golden import remove_golden
from holo.hololib.inventory import File, Needs, needs, take_inventory
from holo.owners import is_mine, is_others
from holo.remove import remove


def collect(
    library: Library,
    known: Mapping[str, Needs],
    holders: Mapping[str, Sequence[str]],
    policy: Policy,
    trees: Mapping[str, int] | None = None,
    names_of_blobs: Callable[[set[str]], Mapping[int, int]] = lambda _: {},
    *,
    dry_run: bool,
) -> GcReport:
    """Collect the garbage of a library, whose lock the caller holds: shared for a dry run, else exclusively.

    ``known`` is what :func:`needs` found before the lock, ``holders`` are the spaces by the digests of their
    catalogs, ``trees`` the bytes of the trees of throw-away environments; ``names_of_blobs`` tells how many names
    blobs have, by inode, in the trees of all but some catalogs. Raises :class:`HoloError` if something cannot be
    removed; the library is valid all the same.
    """
    started = time.monotonic()
    with os_errors_as(f"cannot collect garbage in {library.path}", name_file=True):
        there = take_inventory(library)
        occupied = sum(file.bytes for files in (*there.blobs.values(), *there.links.values()) for file in files)
        if policy.min_free is not None:
            policy = policy.within(occupied + sum((trees or {}).values()), platform.free_space(library.path))
        may_remove = _Rights(library)
        kept = dict.fromkeys(not_removable(there, may_remove), ()) | dict(holders)
        needed, damage = needs(library, known)
        there.damage += damage
        decision, others = decide(there, needed, kept, policy, time.time(), trees or {}).within(may_remove)
        files = [*decision.drafts, *decision.links, *decision.blobs]
        going = names_of_blobs(there.catalogs.keys() - {*decision.catalogs}) if files else {}
        freed, shared = _measure(library, files, going)
        if not dry_run:
            _remove(library, decision, files)

    names: dict[str, list[str]] = {}
    for name, named in sorted(there.names.items()):
        names.setdefault(named, []).append(name)

    def use(digest: str) -> Use:
        return Use(names.get(digest, []), digest, there.catalogs[digest], sorted(holders.get(digest, ())))

    return GcReport(
        dry_run=dry_run,
        catalogs=[use(digest) for digest in decision.catalogs],
        kept=[use(digest) for digest in decision.kept],
        blobs=len(decision.blobs),
        links=len(decision.links),
        golden=sum(there.golden.get(digest, False) for digest in (*decision.catalogs, *decision.golden)),
        drafts=len(decision.drafts),
        locks=0,
        layers=0,
        bytes_freed=freed,
        bytes_shared=shared,
        bytes_left=occupied - sum(file.bytes for file in (*decision.blobs, *decision.links)),
        unknown=there.unknown,
        others=others,
        damage=there.damage,
        seconds=round(time.monotonic() - started, 3),
    )


def _measure(library: Library, files: Iterable[File], going: Mapping[int, int]) -> tuple[int, int]:
    """Bytes that removing the files certainly frees, and bytes that they share with other files.

    ``going``: how many other names of them, by inode, are removed as well.
    """
    freed = all_shared = 0
    for folder, group in groupby(files, key=lambda file: file.folder):
        with library.opened(*folder.split("/")) as directory:
            for file in group:
                shared = file.bytes
                if file.links - going.get(file.inode, 0) == 1:
                    with suppress(OSError):  # a directory, or another user's draft
                        shared = min(file.bytes, platform.shared_bytes(directory, file.name))
                freed += file.bytes - shared
                all_shared += shared
    return freed, all_shared


def _remove(library: Library, decision: Decision, files: list[File]) -> None:
    if decision.catalogs:
        library.catalogs.forget(*decision.catalogs)
    if files:
        library.catalogs.sync()  # also those that somebody else removed
    marks = [File("used", name) for name in decision.marks]
    for folder, group in groupby([*marks, *files], key=lambda file: file.folder):
        with library.opened(*folder.split("/"), changes=True) as directory:
            name = ""
            try:
                for file in group:
                    name = file.name
                    remove(directory, name)
            except OSError as error:
                raise HoloError(
                    f"cannot remove {os.path.join(library.path, folder, name)}: {error.strerror}",
                    "The library is still valid. Run this again as a user who may remove that file.",
                ) from error
    for digest in decision.golden:
        remove_golden(library.path, digest)


class _Rights:
    """What this user may remove: in a sticky folder their own files, or everything if they own the folder."""

    def __init__(self, library: Library) -> None:
        self._path = library.path
        self._is_sticky: dict[str, bool] = {}

    def __call__(self, folder: str, name: str) -> bool:
        path = os.path.join(self._path, *folder.split("/"))
        if folder not in self._is_sticky:
            status = os.stat(path)
            is_sticky = bool(status.st_mode & stat.S_ISVTX)
            self._is_sticky[folder] = is_sticky and platform.user_id() != 0 and not is_mine(status)
        return not self._is_sticky[folder] or not is_others(os.path.join(path, name))
