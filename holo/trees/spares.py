"""Spares: finished private trees of catalogs that are nobody's yet, so that a new space is one rename.

A spare is a space without a user. It is made and restored like any other, in a folder of its own, which nobody else can
reach into:

    holotree/.sp-<user>/
        <name>           the tree; its name begins as the digest of its catalog does
        <name>.outline   the outline of the catalog, and the seal of the tree: without it the spare is not finished
        .spaces/         the records, as those of spaces
        .keep.json       how many are to be kept of which catalogs, by their names, or digests where they have none

The seal holds the inode, mode, owner and ctime of every directory: what was added, removed or renamed since shows. An
edit in place does not, so a space that was a spare keeps the stamp of that (:mod:`holo.checkout.proof`). The next look
into the space reads what is newer.
"""

from __future__ import annotations

import json
import os
import stat
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import NamedTuple

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog
from holo.checkout.proof import still_holds
from holo.errors import MALFORMED, CatalogInvalid, HoloError, os_errors_as
from holo.files import SMALL, draft_of, is_there, names_in, read_file, seal, unseal, write_atomically
from holo.hololib.layout import NAME
from holo.hololib.locks import CannotLockError, InUseError, locked
from holo.holotree import Holotree
from holo.home import Home
from holo.owners import is_mine
from holo.platform import Directory
from holo.remove import remove_at, unlink
from holo.space import Space
from holo.trees.held import is_held
from holo.trees.outline import Outline, body_of, read_outline
from holo.trees.private import is_private, make_private
from holo.walk import Walker, open_directory

FOLDER = ".sp-"
"""Begins the folder's name, which ends with the number of a user, of up to ten digits. A space cannot have such a name.

With it, and its own name, the path of a spare is no longer than that of a space, so that paths in binaries fit.
"""

_OUTLINE = ".outline"
_KEEP = ".keep.json"
_FILLING = ".filling.lock"
_KEEPING = ".keep.lock"

_BEGINNING, _REST = 5, 3
"""Characters of a digest in a name, and others."""

_LATELY = 7 * 86_400
"""Seconds since the last use of a catalog, in which spares of it are kept if the settings want some of each."""


class Spare(NamedTuple):
    """A finished one. Whoever uses it holds its lock."""

    record: Space
    outline: Outline
    """with the seal of the tree"""

    @property
    def name(self) -> str:
        return self.record.name


class Spares(Holotree):
    """The spares of this user below one holotree."""

    def __init__(self, tree: Holotree) -> None:
        self.home = tree.home
        self.path = os.path.join(tree.path, FOLDER + str(platform.user_id()))
        self.records = os.path.join(self.path, ".spaces")
        self.filling = os.path.join(self.path, _FILLING)
        """the lock of whoever makes spares in the background"""

    def prepare(self) -> None:
        """Make the folders. Raises :class:`~holo.errors.Conflict` if they could be another user's."""
        make_private(self.path, ".spaces")

    def default_path(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _mark(self, space: Space) -> None:
        """None is left: a spare whose record a power cut has taken is garbage."""

    def is_filling(self) -> bool:
        """Whether somebody makes spares in the background."""
        return is_private(self.path) and is_held(self.filling)

    # -- which there are --------------------------------------------------------------------------------------

    def ready(self, digest: str = "") -> list[str]:
        """The names of the finished ones of a catalog, or of all. They may be damaged, or of another catalog."""
        if not is_private(self.path):
            return []
        beginning = digest[:_BEGINNING]
        found = [name.removesuffix(_OUTLINE) for name in names_in(self.path) if name.endswith(_OUTLINE)]
        return sorted(name for name in found if name.startswith(beginning))

    def all(self, digest: str = "") -> list[str]:
        """The names of those of a catalog, or of all, finished or not."""
        if not is_private(self.path):
            return []
        return [name for name in self.names() if name.startswith(digest[:_BEGINNING])]

    def unfinished(self, digest: str = "") -> list[str]:
        """The names of those that were given back, or whose makers were killed or are at it."""
        return sorted({*self.all(digest)} - {*self.ready(digest)})

    def new_name(self, digest: str) -> str:
        """The name of another spare."""
        taken = {*self.names()}
        while (name := digest[:_BEGINNING] + os.urandom(_REST).hex()[:_REST]) in taken:
            pass
        return name

    # -- one that is finished ---------------------------------------------------------------------------------

    def finish(self, name: str, catalog: Catalog) -> None:
        """Seal a spare that was just restored. The caller holds its lock. Raises :class:`HoloError`."""
        record = self.get(name)
        paths = [row[0] for row in catalog.directories]
        with os_errors_as(f"cannot seal the spare {record.path}"):
            with platform.closing(open_directory(record.path)) as root:
                tree_seal = _seal_of(root, paths)
            inodes = self.inodes(record, len(paths) * array("Q").itemsize)
            if inodes is None:
                raise HoloError(f"cannot read {self._inodes_path(name)}", "Run the command again.")
            outline = Outline(catalog.digest, tree_seal, inodes, body_of(catalog))
            # Durable, so that the journal is written now: whoever takes the spare syncs its record, and would wait.
            write_atomically(os.path.join(self.path, name + _OUTLINE), outline.to_bytes(), durable=True)

    def unfinish(self, name: str) -> None:
        """From now on a spare is not finished."""
        unlink(os.path.join(self.path, name + _OUTLINE))

    def find_ready(self, digest: str, requested: str) -> Spare | None:
        """The first finished one of a catalog that was made by that strategy, as its files describe it."""
        found = (self._read_spare(name, digest) for name in self.ready(digest))
        return next((spare for spare in found if spare is not None and spare.record.requested == requested), None)

    @contextmanager
    def taking(self, digest: str, requested: str) -> Iterator[Spare | None]:
        """Hold the lock of a finished spare that is as it was made, if there is one. One that is not is dropped.

        Locks that somebody else holds are not waited for.
        """
        with ExitStack() as lock:
            found = (self._try_to_take(name, digest, requested, lock) for name in self.ready(digest))
            yield next((spare for spare in found if spare is not None), None)

    def _try_to_take(self, name: str, digest: str, requested: str, lock: ExitStack) -> Spare | None:
        with ExitStack() as held:
            try:
                held.enter_context(self.lock(name, wait=False))
            except (InUseError, CannotLockError):
                return None
            spare = self._read_spare(name, digest)
            if spare is None:
                record = self.find_anyhow(name)
                if record is None or record.digest in ("", digest):  # else its name only begins in the same way
                    self.drop(name)
                return None
            if spare.record.requested != requested or not self.is_proven(spare.record):
                return None
            if self._is_as_made(spare):
                lock.push(held.pop_all())
                return spare
            self.drop(name)
        return None

    def is_proven(self, record: Space | None) -> bool:
        """Whether what was known when a spare was made still counts. In another boot, or a copied home, it does not."""
        if record is not None:
            with suppress(OSError), platform.closing(open_directory(record.path)) as root:
                return still_holds(record, record.digest, root)
        return False

    def drop(self, name: str) -> None:
        """Remove a spare, whose lock the caller holds."""
        self.unfinish(name)
        remove_at(self.default_path(name))
        self.forget(name)
        unlink(os.path.join(self.records, name + ".lock"))

    def _read_spare(self, name: str, digest: str) -> Spare | None:
        with suppress(OSError, ValueError, HoloError, CatalogInvalid):
            record = self.find(name)
            outline = read_outline(os.path.join(self.path, name + _OUTLINE), digest)
            if record is not None and record.state == "pristine" and record.digest == digest:
                return Spare(record, outline)
        return None

    def _is_as_made(self, spare: Spare) -> bool:
        """Whether all directories of a spare are those that were sealed, and this user's."""
        with suppress(OSError), platform.closing(open_directory(spare.record.path)) as root:
            paths = spare.outline.parse_times()
            return is_mine(platform.status(root, "")) and _seal_of(root, paths) == spare.outline.tree_seal
        return False

    # -- where they come from and go to -----------------------------------------------------------------------

    def give_back(self, space: Space, folder: Directory, name: str) -> bool:
        """Make the tree of a space, ``name`` in ``folder``, a spare that is to be restored; ``False``: it cannot be.

        The caller holds the space's lock. Nobody could tell what others may write to, or is on another disk.
        """
        spare = self.new_name(space.digest)
        try:
            with platform.closing(platform.open_child(folder, name)) as root:
                status = platform.status(root, "")
                is_left = space.root in ("", platform.identity(root)) and platform.source_at(space.path) is None
                if not (is_left and is_mine(status) and platform.can_detect_writers(root)):
                    return False
            self.prepare()
            with self.lock(spare, wait=False):
                record = space._replace(name=spare, path=self.default_path(spare), state="restoring", stamp=-1)
                self.save(record._replace(root="", inodes="", bundle="", project="", draft="", reason=None))
                try:
                    platform.make_accessible(folder, name)
                    with platform.closing(platform.open_root(self.path)) as mine:
                        platform.rename(folder, name, mine, spare)
                except OSError:
                    self.drop(spare)
                    return False
        except (OSError, HoloError, InUseError):
            return False
        return True

    def take(self, spare: str, folder: Directory, name: str) -> bool:
        """Move a finished spare to ``name`` in ``folder``; ``False``: that is on another disk, or not allowed.

        Nor is one moved to a setgid folder, whose group new files get, unless it is the holotree: there spaces get the
        group of their user.
        """
        with platform.closing(platform.open_root(self.path)) as mine:
            try:
                status, place = platform.status(mine, spare), platform.status(folder, "")
                is_beside = os.path.samestat(place, os.stat(os.path.dirname(self.path)))
                if place.st_mode & stat.S_ISGID and place.st_gid != status.st_gid and not is_beside:
                    return False
                mode = status.st_mode & 0o7777
                if mode & 0o300 != 0o300:  # to move a directory, one has to write to it
                    platform.make_accessible(mine, spare)
                platform.rename(mine, spare, folder, name)
            except OSError:
                return False
        return True

    def sizes(self) -> Counter[str]:
        """The bytes that the spares of each catalog share with nobody, as far as that is known."""
        records = [record for name in self.all() if (record := self.find_anyhow(name)) is not None]
        return sum((Counter({record.digest: max(0, record.own)}) for record in records), Counter[str]())

    # -- what goes --------------------------------------------------------------------------------------------

    def surplus(self, keep: Mapping[str, int], digest: str = "") -> list[str]:
        """The names of all, or of those of one catalog, but so many of each. Unfinished ones go first."""
        left, ready, found = Counter(keep), {*self.ready()}, []
        for name in sorted(self.all(digest), key=lambda name: name not in ready):
            record = self.find_anyhow(name)
            if record is not None and left[record.digest] > 0:
                left[record.digest] -= 1
            else:
                found.append(name)
        return found

    def collect(self, keep: Mapping[str, int], *, dry_run: bool) -> tuple[int, int]:
        """Remove all but so many of each catalog, unfinished ones first, and what killed commands left here.

        Returns how many, and how many bytes they had alone. Those that somebody works on stay.
        """
        if not is_private(self.path):
            return 0, 0
        removed = freed = 0
        for name in self.surplus(keep):
            record = self.find_anyhow(name)
            with suppress(InUseError, CannotLockError), self.lock(name, wait=False):
                removed += 1
                freed += max(0, record.own) if record is not None else 0
                if not dry_run:
                    self.drop(name)
        known = {*self.names()}
        for name in names_in(self.path) if not dry_run else []:
            if draft_of(name) == _KEEP:
                with suppress(InUseError, CannotLockError), self._lock_wishes(wait=False):
                    unlink(os.path.join(self.path, name))
            elif not name.startswith(".") and name.removesuffix(_OUTLINE) not in known:
                with suppress(InUseError, CannotLockError), self.lock(name.removesuffix(_OUTLINE), wait=False):
                    if not is_there(self.record_path(name.removesuffix(_OUTLINE))):
                        remove_at(os.path.join(self.path, name))
        self.tidy(dry_run=dry_run)
        return removed, freed

    # -- how many are wanted ----------------------------------------------------------------------------------

    def keep(self, counts: Mapping[str, int | None]) -> None:
        """Remember how many spares are to be kept of what names mean, or of digests.

        With ``None``, as many as the settings say.
        """
        self.prepare()
        path = os.path.join(self.path, _KEEP)
        with self._lock_wishes(wait=True), os_errors_as(f"cannot write {path}"):
            wishes = {**self.wishes(), **counts}
            left = {reference: count for reference, count in wishes.items() if count is not None}
            write_atomically(path, seal(json.dumps(left).encode()))

    def _lock_wishes(self, *, wait: bool) -> AbstractContextManager[object]:
        """Held for a moment, so that two who write wishes lose none, and nobody takes a draft for garbage."""
        lock = os.path.join(self.path, _KEEPING)
        return locked(lock, self.path, exclusive=True, wait=wait, on_wait=lambda _: None)

    def wishes(self) -> dict[str, int]:
        """How many are to be kept of which catalogs, as :meth:`keep` was told; none if the file is damaged.

        Raises :class:`HoloError` if it cannot be read.
        """
        path = os.path.join(self.path, _KEEP)
        with os_errors_as(f"cannot read {path}"), suppress(*MALFORMED):
            if is_private(self.path) and is_there(path):
                found = json.loads(unseal(read_file(path, SMALL)[0])).items()
                return {name: count for name, count in found if NAME.fullmatch(name) and type(count) is int}
        return {}


def meant(home: Home, reference: str) -> str:
    """The digest that a name means now, or a digest itself."""
    return home.library.catalogs.meant_by(reference) or reference


def wished(home: Home) -> dict[str, int]:
    """How many spares are to be kept of catalogs of which a user has said that, by their digests."""
    found: dict[str, int] = {}
    for reference, count in Spares(home.spaces).wishes().items():
        digest = meant(home, reference)
        found[digest] = max(count, found.get(digest, 0))
    return found


def wanted(home: Home) -> dict[str, int]:
    """How many spares of each catalog are to be kept: as was said of it, else as the settings say of those used lately.

    With ``auto`` in the settings (``None``), that is one.
    """
    each = 1 if home.spares is None else home.spares
    found: dict[str, int] = {}
    if each:
        first = time.time() - _LATELY
        found = {digest: each for digest, used in home.library.catalogs.last_used().items() if used >= first}
    found |= wished(home)
    return {digest: count for digest, count in found.items() if count > 0 and home.library.catalogs.has(digest)}


def is_short_of(home: Home, digest: str) -> bool:
    """Whether another spare of a catalog is wanted, as far as that can be told."""
    with suppress(HoloError):
        count = wanted(home).get(digest, 0)
        return count > 0 and len(Spares(home.spaces).all(digest)) < count
    return False


def is_reachable(path: str) -> bool:
    """Whether somebody may still write to a tree that was moved here. Raises :class:`OSError`.

    A process may be in it, or have a file open for writing. Where that cannot be seen, nobody else may have had the
    right. Another user or group than that of the folder, to whom something in it belongs, keeps the right.
    """
    if platform.is_entered(path):
        return True
    shared = 0o022 if platform.user_id() else 0
    mine = _owners(os.lstat(os.path.dirname(path)))
    with platform.closing(open_directory(path)) as root:
        if _owners(platform.status(root, "")) != mine:
            return True
        walker, folders = Walker(root), [""]
        try:
            while folders:
                folder = folders.pop()
                directory = walker.open(folder)
                with platform.listing(directory) as entries:
                    found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
                for name, status in found:
                    mode = status.st_mode
                    if _owners(status) != mine:
                        return True
                    if stat.S_ISDIR(mode):
                        folders.append(f"{folder}/{name}" if folder else name)
                    if not stat.S_ISLNK(mode) and (
                        mode & shared or (stat.S_ISREG(mode) and _is_written(directory, name))
                    ):
                        return True
        finally:
            walker.close()
    return False


def _owners(status: os.stat_result) -> tuple[int, int]:
    return status.st_uid, status.st_gid


def _is_written(directory: Directory, name: str) -> bool:
    with platform.closing(platform.open_file(directory, name)) as descriptor:
        return not platform.has_no_writer(descriptor)


def _seal_of(root: Directory, paths: Iterable[str]) -> str:
    """What tells a tree, in which nothing is added, removed or renamed, from every other. Raises :class:`OSError`."""
    values = array("q")
    for path in paths:
        status = platform.status(root, path)
        values.extend((status.st_ino & (1 << 63) - 1, status.st_ctime_ns, status.st_mode, status.st_uid))
    return digests.of(values.tobytes())
