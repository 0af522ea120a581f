"""The spaces of a home: where they are, what is known about each, and the locks of those who work on them.

A space looks exactly like the recorded tree, so nothing of holo is inside it. What holo knows about it is
in ``holotree/.spaces/<name>.json`` beside a lock of the same name; the space itself is in
``holotree/<folder>``, whose length is the same for every name, or wherever the user said.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from holo import digest as digests
from holo import platform
from holo.errors import (
    Conflict,
    HoloError,
    NotFound,
    advice_at_home,
    beginning_with,
    choice,
    hints,
    is_full,
    os_errors_as,
)
from holo.files import (
    NOT_DAMAGE,
    READ,
    SMALL,
    draft_of,
    is_there,
    names_in,
    open_file,
    read,
    read_file,
    unseal,
    write_atomically,
)
from holo.hololib.layout import NAME, check_name
from holo.hololib.locks import CannotLockError, InUseError, OnWait, locked, say_waiting
from holo.owners import is_mine, is_ours, only_we_wrote
from holo.platform import probe
from holo.remove import remove_at
from holo.space import ADOPTED, MOUNTED, VIEW, Space, Standing, decode, encode
from holo.walk import absolute, make_folders, real_place, refuse_symlinks, upwards

_MARK = ".mark"
_INODES = ".inodes"
_HISTORY = ".history"
ORIGIN = ".origin"
USED = ".used"
_BESIDE = (_MARK, ORIGIN, _INODES, USED, _HISTORY)
"""What a space has besides its record and its lock."""

_MOUNT_LOCK = ".cover"

PLACES = (".venv", "node_modules")
"""What tools look for in a project. A space that is there is found without its name."""

_SLUG = 12
_HASH = 10

_TOLD = re.compile(rb'\{"name": "[^"\\]*", "path": "((?:[^"\\]|\\.)*)", "home": "((?:[^"\\]|\\.)*)", ')
_TELLS_OF_MOUNT = re.compile(rb'"used": "%b"|"upper": "[^"]' % MOUNTED.encode())
_LONGEST = 1 << 14
"""Bytes of a record that is read at once to see where its space is."""


class OthersSpace(Conflict):
    """The name is that of another user's space."""


class DamagedRecord(HoloError):
    """What is known about a space cannot be read. Commands for other spaces do without."""


def _is_other_checkout(one: str, other: str) -> bool:
    from holo.projects import is_other_checkout  # only what lies in a folder around needs it

    return is_other_checkout(one, other)


def _anothers(name: str, path: str) -> OthersSpace:
    return OthersSpace(
        f"space {name!r} is another user's, or others can change what is known about it: {path}",
        "Choose another name. If it is yours, let nobody else write to that file.",
    )


class Holotree:
    """All spaces below one home."""

    def __init__(self, home: str, is_catalog: Callable[[str], bool] = lambda _: False) -> None:
        """``is_catalog`` tells whether a catalog has a name: a user who names a missing space may mean that."""
        self._is_catalog = is_catalog
        self.home = absolute(home)
        self.path = os.path.join(self.home, "holotree")
        self.records = os.path.join(self.path, ".spaces")
        """the folder of what is known about the spaces"""
        refuse_symlinks(self.path, self.records)

    def folder(self) -> str:
        """The folder of what is known about spaces, made if it is not there."""
        try:
            make_folders(self.records)
        except OSError as error:
            raise HoloError(f"cannot make {self.records}: {error.strerror}", advice_at_home(error)) from error
        return self.records

    def default_path(self, name: str) -> str:
        """Where a space lives unless the user says otherwise. The length is the same for every name."""
        slug = name[:_SLUG].ljust(_SLUG, "_")
        return os.path.join(self.path, f"{slug}_{digests.of(name.encode())[:_HASH]}")

    def is_default(self, space: Space) -> bool:
        """Whether a space is at its default place, which always belongs to this home."""
        return space.path.startswith(self.path) and space.path == self.default_path(space.name)

    def moved_along(self, path: str, home: str) -> str:
        """Where something is now that was at ``path`` when this home was at ``home``."""
        if home == self.home or not path.startswith(above := os.path.join(home, "")):
            return path
        return absolute(os.path.join(self.home, path.removeprefix(above)))

    def is_anothers_place(self, space: Space) -> bool:
        """Whether something that is not the space is at its place, outside the holotree, where all belongs to it."""
        with os_errors_as(f"cannot read the space {space.path}"):
            return not self.is_default(space) and is_replaced(space)

    @staticmethod
    def is_place(folder: str) -> bool:
        """Whether a folder in the holotree has a name that :meth:`default_path` could give."""
        return re.fullmatch(rf"[A-Za-z0-9_.+-]{{{_SLUG}}}_[0-9a-f]{{{_HASH}}}", folder) is not None

    def lock(
        self, name: str, on_wait: OnWait = say_waiting, *, exclusive: bool = True, wait: bool = True
    ) -> AbstractContextManager[object]:
        """Lock a space: exclusively to change it. The kernel frees the lock when its holder dies.

        Without ``wait``, raises :class:`InUseError` if somebody else holds it.
        """
        path = os.path.join(self.records, check_name(name, "space") + ".lock")
        return locked(path, f"space {name!r}", exclusive=exclusive, wait=wait, on_wait=on_wait)

    def hold_mount_point(self, name: str, on_wait: OnWait) -> AbstractContextManager[object]:
        """Keep the directory at a space's path in place while some process sees another one mounted over it.

        The space itself may change. But to rename or remove a directory moves or ends all that is mounted on it, in
        every mount namespace (rename(2), umount(2)).
        """
        return locked(self._mount_lock_path(name), f"the path of space {name!r}", exclusive=False, on_wait=on_wait)

    @contextmanager
    def try_lock_mount_point(self, name: str) -> Iterator[bool]:
        """Whether nothing is mounted over the space's path; then nothing will be while the block runs."""
        path, is_free = self._mount_lock_path(name), True
        with ExitStack() as held:
            try:
                held.enter_context(locked(path, f"the path of space {name!r}", exclusive=True, wait=False))
                held.callback(_unlink_own, path)  # before the lock is let go
            except InUseError:
                is_free = False
            except CannotLockError as error:
                # On a full disk it has no room, and deleting is what makes some. What is not there, nobody holds.
                if not is_full(error) or is_there(path):
                    raise
            yield is_free

    def remove_mount_point(self, name: str, path: str, *, is_made: bool) -> None:
        """Remove the empty directory at a space's path, if it was made as a mount point or there is no such space.

        It stays while something is mounted over it.
        """
        with self.try_lock_mount_point(name) as is_free:
            if is_free and is_empty_directory(path):
                with suppress(InUseError), self.lock(name, wait=False):
                    if is_made or not is_there(self.record_path(name)):
                        with suppress(OSError):  # somebody has put something there
                            os.rmdir(path)
                self.drop_lock(name)

    def drop_lock(self, name: str) -> None:
        """Remove the lock of a space that does not exist, unless somebody holds it."""
        with suppress(InUseError), self.lock(name, wait=False):
            if not is_there(self.record_path(name)):
                _unlink_own(os.path.join(self.records, name + ".lock"))

    def find(self, name: str) -> Space | None:
        """The space of that name, or ``None``. Below the home it is where it is now, whatever the home's path was.

        Raises :class:`DamagedRecord` if what is known of it cannot be read, and :class:`Conflict` if others can have
        written it: a restore empties the directory it names.
        """
        path = self.record_path(check_name(name, "space"))
        try:
            space = self._read(path, name)
            if space is None:  # a power cut may leave it empty
                space = self._read(self._mark_path(name), name)
        except FileNotFoundError:
            return self._marked(name)
        except ValueError:
            space = None
        if space is None:
            raise DamagedRecord(f"what holo knows about space {name!r} is damaged: {path}", self._way_out(name))
        return space

    def _way_out(self, name: str) -> str:
        if self._marked(name) is not None:
            return "Write it anew with `holo check --repair`. The next restore reads all of the space."
        return (
            f"Delete the space with `holo delete --space {name}` and make it again. If it was not at "
            f"{self.default_path(name)}, its directory is left where it is."
        )

    def find_anyhow(self, name: str) -> Space | None:
        """As :meth:`find`; if the record is damaged, a guess."""
        try:
            return self.find(name)
        except DamagedRecord:
            # Where most spaces are, unless the mark knows better.
            path = self.default_path(name)
            guess = Space(
                name=name,
                path=path,
                home=self.home,
                made_for=path,
                catalog="",
                digest="",
                state="damaged",
                requested="",
                used="",
                reason=None,
            )
            return (self._marked(name) or guess)._replace(state="damaged")

    def _marked(self, name: str) -> Space | None:
        """The space as its mark alone describes it, when its record was lost; ``None`` if the mark was copied."""
        with suppress(FileNotFoundError, HoloError, ValueError):
            space = self._read(self._mark_path(name), name, prove=True)
            return space if space is not None and space.standing != "copied" else None
        return None

    def _read(self, path: str, name: str, *, anyones: bool = False, prove: bool = False) -> Space | None:
        """Read a record or a mark; ``None`` if a power cut left it empty. Raises :class:`ValueError` if it is damaged.

        ``anyones``: even if others can have written it. ``prove``: find out whether it was copied even at the default
        place.
        """
        try:
            descriptor = open_file(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            is_expected = is_mine if isinstance(error, PermissionError) else is_ours
            if not anyones and not is_expected(os.lstat(path)):
                raise _anothers(name, path) from error
            raise self._unreadable(name, path, error) from error
        try:
            if not anyones and not only_we_wrote(os.fstat(descriptor)):
                raise _anothers(name, path)
            space = decode(read(descriptor, SMALL), name)
            if space is None:
                return None
            if (moved := self.moved_along(space.path, space.home)) != space.path:
                space = space._replace(path=moved)
            if space.is_unmounted:  # since the system was started again
                space = space._replace(state="restoring")
            if space.upper and _is_lost(space.upper):  # what was changed in it, and what it is mounted over
                space = space._replace(state="restoring")
            if not prove and self.is_default(space):
                return space
            standing = self._standing(space, platform.identity(descriptor))
            return space if standing == space.standing else space._replace(standing=standing)
        except OSError as error:
            raise self._unreadable(name, path, error) from error
        finally:
            os.close(descriptor)

    def _unreadable(self, name: str, path: str, error: OSError) -> HoloError:
        message = f"cannot read what holo knows about space {name!r}, {path}: {error.strerror}"
        if error.errno in NOT_DAMAGE and not isinstance(error, PermissionError):
            return HoloError(message)
        return DamagedRecord(message, self._way_out(name) if path == self.record_path(name) else None)

    def _standing(self, space: Space, identity: str) -> Standing:
        """``identity`` is that of the file that the space was read from."""
        if identity:
            return "own" if identity == space.identity else "copied"
        return "unproven" if self._is_here(space.home) else "copied"

    def _is_here(self, home: str) -> bool:
        return home == self.home or os.path.realpath(home) == os.path.realpath(self.home)

    def owner(self, space: Space) -> str | None:
        """The other home that a directory belongs to, if this one was copied from there and that still has it.

        A copy of a whole filesystem has the same inodes, so what is known about a space does not look like a copy.
        """
        if self.is_default(space) or self._is_here(space.home):
            return None
        with suppress(HoloError, OSError):
            other = Holotree(space.home).at(space.path)
            return space.home if other is not None and other.standing != "copied" else None
        return None

    def refuse_copied(self, space: Space) -> None:
        """Raise :class:`Conflict` if only a copied record says that a directory outside the holotree is this home's.

        The directory belongs to the home that was copied. If the copy came from somebody else, it can be any directory,
        and a restore would empty it.
        """
        record = self.record_path(space.name)
        if (owner := self.owner(space)) is not None:
            raise Conflict(
                f"space {space.name!r} at {space.path} belongs to the home {owner}, from which this one was copied",
                f"Use it there: HOLO_HOME={owner}. To forget it here, remove {record}.",
            )
        if space.standing == "copied":
            raise Conflict(
                f"only a file that was copied says that {space.path} is space {space.name!r} of this home: {record}",
                "If this home is a copy or a backup of one of yours, `holo check --adopt` takes over its spaces. "
                "Otherwise remove that file.",
            )

    def refuse_unproven(self, space: Space, hint: str) -> None:
        """Raise :class:`Conflict` if only the record of a space, which may be a copy, says where it is."""
        if space.standing == "unproven":
            raise Conflict(
                f"nothing proves that {space.path} is space {space.name!r}: on the filesystem of {self.records} "
                "a copied file looks like its original",
                f"{hint} If that is not your space, remove {self.record_path(space.name)}.",
            )

    @staticmethod
    def refuse_gone(space: Space) -> None:
        """Raise :class:`NotFound` if there is no directory at a space's path."""
        if not os.path.isdir(space.path):
            raise NotFound(
                f"the directory of space {space.name!r} is gone: {space.path}",
                f"Make it again with `holo restore --space {space.name}`.",
            )

    def refuse_moved(self, space: Space) -> None:
        """Raise :class:`Conflict` if the files of a space still name the path where it was before."""
        if space.is_moved:
            raise Conflict(
                f"space {space.name!r} was moved along with its home from {space.made_for} to {space.path}, and its "
                "files still name the old path",
                f"`holo restore --space {space.name}` makes it right.",
            )

    def refuse_unfinished(self, space: Space) -> None:
        """Raise :class:`Conflict` if a space is incomplete: programs it lacks would be found in other environments."""
        self._refuse_unmounted(space)
        if space.state != "pristine":
            raise Conflict(
                f"the last restore of space {space.name!r} has not ended: not everything is in {space.path}",
                f"`holo restore --space {space.name}` ends it. --force works in it as it is.",
            )

    @staticmethod
    def _refuse_unmounted(space: Space) -> None:
        if space.is_unmounted:
            raise Conflict(
                f"space {space.name!r} is not mounted at {space.path}: the system was started again, say",
                f"`holo restore --space {space.name}` mounts it, pristine.",
            )

    @staticmethod
    def is_seen(space: Space) -> bool:
        """Whether this process sees the space: of a view, it does if it was started in there."""
        return not space.upper or platform.source_at(real_place(space.path)) == space.view

    def refuse_unseen(self, space: Space) -> None:
        """Raise :class:`Conflict` if this process does not see a space, whose directory is empty here."""
        self._refuse_unmounted(space)
        if not self.is_seen(space):
            raise Conflict(
                f"space {space.name!r} is a view: only `holo run` and `holo shell` see what is in {space.path}",
                f"Do it in there: `holo run {space.name} -- COMMAND`.",
            )

    def adopt(self, space: Space) -> None:
        """Make a space that only a copied record tells of this home's.

        The next restore trusts nothing in it, and makes another directory in its place. If the home that was copied is
        somewhere else by now, and has the space as well, it sees by this that something has replaced its own.
        """
        space = space._replace(home=self.home, stamp=-1, boot="", root=ADOPTED)
        self.save(space)
        self._mark(space)

    def get(self, name: str) -> Space:
        """The space of that name. Raises :class:`NotFound`."""
        space = self.find(name)
        if space is None:
            raise self.unknown(name, f"To make one: `holo init {name} SOURCE`.")
        return space

    def is_space(self, name: str) -> bool:
        """Whether there is a record of that name."""
        return NAME.fullmatch(name) is not None and is_there(self.record_path(name))

    def begun(self, name: str) -> str:
        """The name of a space, of which the beginning is enough if no other name begins so; else as it is."""
        if NAME.fullmatch(name) is None or self.is_space(name):
            return name
        names = self.names()
        return name if name in names else beginning_with(name, names, "names of spaces") or name

    def unknown(self, name: str, hint: str | None = None) -> NotFound:
        """The error about a name that no space has. Raises :class:`UsageError` for one that none can have."""
        check_name(name, "space")
        there = choice("Spaces", name, self.names())
        with suppress(HoloError):  # it is the beginning of several digests, or the catalog's name is damaged
            if self._is_catalog(name):
                hint = f"{name!r} is a catalog: `holo init SPACE {name}` makes a space of it."
        return NotFound(f"there is no space {name!r} in {self.path}", hints(there, hint))

    def names(self) -> list[str]:
        files = names_in(self.records)
        found = {file.removesuffix(".json") for file in files if file.endswith(".json")}
        marked = {file.removesuffix(_MARK) for file in files if file.endswith(_MARK)} - found
        found.update(name for name in marked if NAME.fullmatch(name) and self._marked(name) is not None)
        return sorted(name for name in found if NAME.fullmatch(name))

    def spaces(self, names: Iterable[str] | None = None) -> list[Space]:
        """The spaces of this user, and root's; also those whose records are damaged. ``names``: only these."""
        found = []
        for name in self.names() if names is None else names:
            with suppress(OthersSpace):
                found.append(self.find_anyhow(name))
        return [space for space in found if space is not None]

    def holders(self) -> dict[str, list[str]]:
        """The names of every user's spaces, by the digests of their catalogs.

        Records of other users count as well: trusting them can only keep more. Raises :class:`HoloError` if one cannot
        be read.
        """
        found: dict[str, list[str]] = {}
        for space in self.everyones():
            found.setdefault(space.digest, []).append(space.name)
        return found

    def everyones(self) -> Iterator[Space]:
        """Every user's spaces, by name. What is said of other users' is theirs to say. Raises as :meth:`holders`."""
        for name in self.names():
            try:
                space = self.find(name)
            except OthersSpace:
                space = self._anyones(name)
            if space is not None:
                yield space

    def mounted(self) -> dict[str, list[str]]:
        """The names of spaces that are mounted over trees (:mod:`holo.restore.mounting`), by their catalogs.

        Of views as well, whether somebody is in them or not.
        """
        found: dict[str, list[str]] = {}
        names = [name for name in self.names() if (data := self._raw(name)) is None or _TELLS_OF_MOUNT.search(data)]
        for space in self.spaces(names):
            if space.used == MOUNTED or space.upper:
                found.setdefault(space.digest, []).append(space.name)
        return found

    def _anyones(self, name: str) -> Space | None:
        path = self.record_path(name)
        cause: Exception | None = None
        try:
            space = self._read(path, name, anyones=True) or self._read(self._mark_path(name), name, anyones=True)
        except FileNotFoundError:
            return None
        except (HoloError, ValueError) as error:
            cause = error
        else:
            if space is not None:
                return space
        raise HoloError(
            f"it is not known which catalog another user's space {name!r} holds, for this cannot be read: {path}",
            "Let that user or root repair or remove it, or collect no catalogs by their last use.",
        ) from cause

    def at(self, path: str) -> Space | None:
        """The space that lives at ``path``, if any."""
        real = os.path.realpath(path)
        found = self.overlapping(path, inside=False)
        return next((space for space in found if os.path.realpath(space.path) == real), None)

    def overlapping(self, path: str, *, inside: bool = True, but: Collection[tuple[str, int]] = ()) -> list[Space]:
        """The spaces that are at ``path`` or around it; ``inside``: also those in it. ``but``: not of those records.

        Among thousands of spaces hardly any is, and to read a record takes longer than to see that it is of another.
        """
        place = _Place(path, inside=inside)
        if but:
            changed = [file for file, inode in self.seen() if file.endswith(".json") and (file, inode) not in but]
            names = [name for file in sorted(changed) if NAME.fullmatch(name := file.removesuffix(".json"))]
        else:
            names = self.names()
        # In the holotree a damaged record may be of the space at its default place, whatever it says.
        if not _is_in(place.real, os.path.realpath(self.path)):
            names = [name for name in names if self._may_overlap(name, place)]
        return [space for space in self.spaces(names) if place.overlaps(space.path)]

    def seen(self) -> frozenset[tuple[str, int]]:
        """The files about spaces that are there now, with their inodes. Who changes a record replaces its file."""
        with suppress(FileNotFoundError), os.scandir(self.records) as entries:
            return frozenset((entry.name, entry.inode()) for entry in entries)
        return frozenset()

    def _may_overlap(self, name: str, place: _Place) -> bool:
        """Whether a space overlaps a place, by the path in a record that is as :func:`encode` writes it."""
        told = _TOLD.match(self._raw(name) or b"")
        if told is None:
            return True
        try:  # another user may have written anything
            path, home = (text.decode() if b"\\" not in text else json.loads(b'"%b"' % text) for text in told.groups())
            return place.overlaps(path if home == self.home else self.moved_along(path, home))
        except ValueError:
            return True

    def _raw(self, name: str) -> bytes | None:
        """A record as it was written; ``None`` of one that is not there, damaged, or hardly one of a space."""
        try:
            descriptor = os.open(f"{self.records}{os.sep}{name}.json", READ)
            try:
                return unseal(os.read(descriptor, _LONGEST))
            finally:
                os.close(descriptor)
        except (OSError, ValueError):
            return None

    def near(self, folder: str, *, replaced: bool = False) -> list[Space]:
        """The space that a folder is, or those that are its :data:`PLACES`, in their order; else of the nearest above.

        A space whose directory is gone still counts, unless something else is in its place; ``replaced``: only those.
        None does that is in another checkout of the same project, around this one: it imports the source of that.
        """
        above = [*upwards(os.path.realpath(folder))]
        # Where symlinks lead, only the last name is the same: a space itself is none.
        lasts = {os.path.basename(path) for path in above}
        ends = [f'{place}"'.encode() for place in PLACES] + [json.dumps(f"/{last}")[1:].encode() for last in lasts]
        placed: dict[str, Space] = {}
        for name in self.names():
            if not (os.path.basename(self.default_path(name)) in lasts or self._may_end(name, ends)):
                continue
            with suppress(OthersSpace):
                space = self.find_anyhow(name)
                if space is not None and is_replaced(space) == replaced:
                    parent, place = os.path.split(space.path)
                    placed[os.path.join(os.path.realpath(parent), place)] = space
        for each in above:
            if each in placed:
                return [placed[each]]
            paths = [os.path.join(each, place) for place in PLACES]
            spaces = [placed.get(path) or (self.at(path) if os.path.islink(path) else None) for path in paths]
            if found := [space for space in spaces if space is not None]:
                return found if each == above[0] or not _is_other_checkout(each, above[0]) else []
        return []

    def _may_end(self, name: str, ends: Sequence[bytes]) -> bool:
        """Whether the path of a space may end like that. To decode the record of every space takes much longer."""
        for path in (self.record_path(name), self._mark_path(name)):
            with suppress(OSError):
                if data := read_file(path, SMALL)[0]:
                    return any(end in data for end in ends)
        return False

    def save(self, space: Space) -> None:
        """Replace what is known about a space, in one step.

        The record is not synced: a power cut may leave it empty, or lose it. So the part of it that seldom changes is
        kept beside it as a mark, which is on the disk before the space itself is.
        """
        path = self.record_path(space.name)
        with os_errors_as(f"cannot write {path}"):
            make_folders(self.records)
            space = space._replace(home=self.home)
            self._write(path, space, durable=False)
            if space.state == "restoring":  # after it: a mark without a record tells of one that was lost
                self._mark(space)

    def _mark(self, space: Space) -> None:
        path = self._mark_path(space.name)
        wanted = space.lasting()
        with suppress(FileNotFoundError, HoloError, ValueError):
            known = self._read(path, space.name, prove=True)
            is_copied = known is None or known.standing == "copied"
            if known is not None and not is_copied and known._replace(identity="", standing="own") == wanted:
                return
        self._write(path, wanted, durable=True)

    @staticmethod
    def _write(path: str, space: Space, *, durable: bool) -> None:
        write_atomically(path, lambda file: encode(space, platform.identity(file)), durable=durable)

    def save_inodes(self, name: str, inodes: bytes) -> str:
        """Keep the inodes of a space's directories; returns their digest, which the record is to hold.

        A record with another digest does without: so the two need not be written in one step.
        """
        path = self._inodes_path(name)
        with os_errors_as(f"cannot write {path}"):
            write_atomically(path, inodes)
        return digests.of(inodes)

    def inodes(self, space: Space, most: int) -> bytes | None:
        """The inodes that :meth:`save_inodes` kept for this record, if they are at most so many bytes."""
        with suppress(OSError):
            found, _ = read_file(self._inodes_path(space.name), most)
            return found if digests.of(found) == space.inodes else None
        return None

    def tidy(self, *, dry_run: bool, gone: Collection[str] = ()) -> tuple[int, int]:
        """Remove drafts of killed commands, and the locks of spaces that are gone; returns how many of each.

        ``gone``: spaces that count as deleted, in a dry run of what deletes them before this. Spaces that somebody has
        locked, or that cannot be locked, are left alone. The caller holds the library's lock, so nobody else is probing
        the filesystem. A dry run only counts.
        """
        try:
            files = os.listdir(self.records)
        except FileNotFoundError:
            return 0, 0
        drafts: dict[str, list[str]] = {}
        for file in files:
            name, kind = os.path.splitext(draft_of(file))
            if kind in (".json", *_BESIDE) and NAME.fullmatch(name):
                drafts.setdefault(name, []).append(file)
            else:
                name, kind = os.path.splitext(file)
                if kind in (".lock", *_BESIDE) and NAME.fullmatch(name):
                    drafts.setdefault(name, [])
        trials = [os.path.join(self.records, file) for file in files if file.startswith(probe.NAME)]
        trials += [os.path.join(self.path, name) for name in names_in(self.path) if name.startswith(probe.DOCTOR)]
        for path in trials:
            if not dry_run:
                remove_at(path)
        removed, locks = len(trials), self._tidy_mount_locks(files, dry_run=dry_run)
        for name, doomed in drafts.items():
            if doomed or name in gone or self._is_gone(name):
                with suppress(InUseError, CannotLockError), self.lock(name, wait=False):
                    is_gone = name in gone or self._is_gone(name)
                    doomed += [name + kind for kind in _BESIDE if is_gone and name not in gone]
                    # By now, whoever held the lock until this moment may have removed some of them.
                    paths = [os.path.join(self.records, file) for file in doomed]
                    there = [path for path in paths if os.path.lexists(path)]
                    removed += len(there)
                    locks += is_gone and name + ".lock" in files
                    if not dry_run:
                        for path in [*there, *([os.path.join(self.records, name + ".lock")] if is_gone else [])]:
                            with suppress(PermissionError):  # Windows removes nothing that is open
                                os.unlink(path)
        return removed, locks

    def _is_gone(self, name: str) -> bool:
        return not is_there(self.record_path(name)) and self._marked(name) is None

    def _tidy_mount_locks(self, files: list[str], *, dry_run: bool) -> int:
        """Remove locks of mount points that nobody holds: their holder was killed, and the note of its run is gone."""
        count = 0
        for file in files:
            if file.endswith(_MOUNT_LOCK) and NAME.fullmatch(file.removesuffix(_MOUNT_LOCK)):
                path = os.path.join(self.records, file)
                with suppress(InUseError, CannotLockError), locked(path, path, exclusive=True, wait=False):
                    count += 1
                    if not dry_run:
                        _unlink_own(path)
        return count

    def forget(self, name: str) -> None:
        for kind in (*_BESIDE, ".json"):
            remove_at(os.path.join(self.records, name + kind))

    def mark_used(self, name: str) -> None:
        """Note that this user works in a space now, if there is one. Where that cannot be written, it is no failure."""
        with suppress(OSError), platform.closing(platform.open_root(self.records)) as folder:
            if is_there(self.record_path(name)):
                platform.touch(folder, name + USED)

    def last_used(self, name: str) -> float | None:
        """When somebody last did, in seconds of the epoch."""
        with suppress(OSError):
            return os.lstat(f"{self.records}{os.sep}{name}{USED}").st_mtime
        return None

    def beside(self) -> set[str]:
        """The names of the files that are beside the records, and of the records."""
        return {*names_in(self.records)}

    def record_path(self, name: str) -> str:
        """The file that says what is known of a space."""
        return os.path.join(self.records, name + ".json")

    def origin_path(self, name: str) -> str:
        """The file that says which blueprint a space was made from (see :mod:`holo.blueprints.memory`)."""
        return os.path.join(self.records, name + ORIGIN)

    def history_path(self, name: str) -> str:
        """The file that says what has happened to a space (see :mod:`holo.history`)."""
        return os.path.join(self.records, name + _HISTORY)

    def _mark_path(self, name: str) -> str:
        return os.path.join(self.records, name + _MARK)

    def _inodes_path(self, name: str) -> str:
        return os.path.join(self.records, name + _INODES)

    def _mount_lock_path(self, name: str) -> str:
        return os.path.join(self.records, check_name(name, "space") + _MOUNT_LOCK)


class _Place:
    """A path, and which others are there, around it, or in it."""

    def __init__(self, path: str, *, inside: bool) -> None:
        self.real = os.path.realpath(path)
        self._may_contain = inside
        self._contains_nothing = not inside or not os.path.lexists(self.real) or is_empty_directory(self.real)
        self._above = {*upwards(self.real)}
        self._inodes = set[tuple[int, int]]()
        for folder in self._above:
            with suppress(OSError):
                self._inodes.add(_inode(folder))

    def overlaps(self, path: str) -> bool:
        """Whether they do, whatever symlinks lead there: of most paths one stat tells that they do not."""
        if self._contains_nothing and path not in self._above:
            try:
                if _inode(path) not in self._inodes:
                    return False
            except OSError:  # of what is not there, its path tells
                pass
        real = os.path.realpath(path)
        return _is_in(self.real, real) or (self._may_contain and _is_in(real, self.real))


def _inode(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def is_replaced(space: Space) -> bool:
    """Whether what is at a space's path is not what the last restore left there, as far as that can be told."""
    if space.state != "pristine":  # a restore that was killed may just have replaced it
        return False
    if space.upper:
        is_empty = not os.path.lexists(space.path) or is_empty_directory(space.path)
        return not is_empty and not (platform.source_at(real_place(space.path)) or "").startswith(VIEW)
    try:
        root = platform.open_root(space.path)
    except (FileNotFoundError, NotADirectoryError):
        return os.path.lexists(space.path)
    except OSError:
        return False
    try:
        identity = platform.identity(root)
    finally:
        platform.close_directory(root)
    return space.root not in ("", ADOPTED, identity) and identity != "" and not is_empty_directory(space.path)


def _is_lost(path: str) -> bool:
    """Whether nothing is there. Not if nobody can tell: it is in a folder of another user's."""
    try:
        return not is_there(path)
    except OSError:
        return False


def is_empty_directory(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _unlink_own(path: str) -> None:
    with suppress(FileNotFoundError, PermissionError):  # another user's, in a shared library; Windows
        os.unlink(path)
