"""What can be looked at: everything that holo knows of, and what the user names."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from holo import platform
from holo.errors import HoloError, NotFound, UsageError, os_errors_as
from holo.files import names_in
from holo.hololib.golden import golden_trees
from holo.hololib.inventory import needs
from holo.hololib.layout import blob_digest, link_form
from holo.platform.blocks import Volume
from holo.selection import abbreviated, catalog_taken, say_space_is_taken
from holo.usage.account import Holders
from holo.usage.scan import Root
from holo.walk import absolute, upwards

if TYPE_CHECKING:
    from holo.home import Home
    from holo.space import Space

_HIDDEN = {"ephemeral": ".ephemeral-", "spares": ".sp-"}
"""How the folders in a holotree that are not spaces begin."""


class Subject(NamedTuple):
    """Something that has a part of the disk."""

    kind: str
    """as in :class:`holo.usage.report.Usage`"""
    name: str
    path: str
    holders: Holders
    """all that have something of it"""
    removed: Holders
    """those of them that would be gone with it"""


class _Holder(NamedTuple):
    kind: str
    name: str
    path: str
    """real and absolute"""
    catalogs: frozenset[str] = frozenset()
    """of blobs and link forms: the digests of the named catalogs that need them"""
    is_needed: bool = True
    """whether also a catalog that is not named needs them, or none at all"""


class _Bits(NamedTuple):
    """The holders that have the same path, and those and all that are in the tree there."""

    at: Holders
    below: Holders


class Subjects:
    """The subjects of a home, and the trees in which they are. Everything is named before the roots are taken."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._holders: list[_Holder] = []
        self._numbers: dict[str, int] = {}
        self._named: list[tuple[str, str]] = []
        """a path and what to call it, or a catalog's digest and its name"""
        self._holder_of: dict[str, Callable[[str], int]] = {}
        self._most: dict[int, int] = {}
        library = home.library.path
        self._library, self._links = (os.path.realpath(os.path.join(library, name)) for name in ("library", "links"))
        self._add("other", "", home.library.home)
        self._add("library", "", self._library)
        self._add("links", "", self._links)
        golden = sorted(golden_trees(library))
        meanings = home.library.catalogs.meanings() if golden else {}
        for digest in golden:
            self._add("golden", meanings.get(digest, [digest[:12]])[0], self._golden(digest))
        for name in names_in(home.spaces.path):
            for kind, beginning in _HIDDEN.items():
                if name.startswith(beginning):
                    self._add(kind, "", os.path.join(home.spaces.path, name))
        for space in home.spaces.spaces():
            if space.standing != "copied" and os.path.isdir(space.path):
                self._add("space", space.name, self._place(space))
        self._add_sources()

    def _add_sources(self) -> None:
        """The trees that were recorded: where a library can, it has clones of their files."""
        library = _volume(self._library)
        if library is None or not library.can_share:
            return
        home = {*upwards(os.path.realpath(self._home.library.home))}
        for summary in self._home.library.catalogs.summaries():
            path = os.path.realpath(summary.prefix)
            is_known = path in home or any(above in self._numbers for above in upwards(path))
            if not is_known and os.path.isdir(path) and _volume(path) == library:
                self._most[self._add("source", "", path)] = 2 * summary.files + 1000

    def _add(self, kind: str, name: str, path: str) -> int:
        real = os.path.realpath(path)
        if real not in self._numbers:
            self._numbers[real] = len(self._holders)
            self._holders.append(_Holder(kind, name, real))
        return self._numbers[real]

    def _place(self, space: Space) -> str:
        """Where the files of a space are: of a view that is not seen here, where its changes are."""
        return space.path if self._home.spaces.is_seen(space) else os.path.dirname(space.upper)

    def _golden(self, digest: str) -> str:
        return os.path.join(self._home.library.path, "golden", digest)

    # -- what is named ------------------------------------------------------------------------------------------

    def name(self, what: str) -> None:
        """Add what a user names: a space, a catalog, or a path."""
        if not what:
            raise UsageError("one argument is empty", "Name spaces, catalogs or paths.")
        if os.sep not in what:
            if what in self._home.spaces.names():
                for space in self._home.spaces.spaces([what]):
                    if space.standing == "copied":
                        self._home.spaces.refuse_copied(space)
                    self._home.spaces.refuse_gone(space)
                    say_space_is_taken(self._home, what)
                    self._named.append((os.path.realpath(self._place(space)), what))
                    return
            if self._home.library.catalogs.is_catalog(what):
                name, digest = catalog_taken(self._home, what)
                self._named.append((digest, name))
                return
        path = absolute(what)
        if not os.path.exists(path):
            if os.sep in what:
                raise NotFound(f"there is no path {what!r}", "Name spaces, catalogs or paths.")
            self.name(abbreviated(self._home, what, "path"))
            return
        number = self._add("path", path, path)
        if self._holders[number].kind == "source":
            self._holders[number] = _Holder("path", path, self._holders[number].path)
        self._named.append((os.path.realpath(path), path))

    # -- catalogs -----------------------------------------------------------------------------------------------

    def _divide(self) -> None:
        """Make holders of the blobs and the link forms that the named catalogs need, one for each set of catalogs."""
        catalogs = {digest for digest, _ in self._named if digest not in self._numbers}
        if not catalogs:
            return
        with os_errors_as(f"cannot read the catalogs in {self._home.library.path}"):
            found, damage = needs(self._home.library)
        if damage:
            raise HoloError(damage[0].what, damage[0].way_out)
        self._divide_by(
            self._library, "library", catalogs, {digest: need.blobs for digest, need in found.items()}, blob_digest
        )

        def link_key(shard: str, name: str) -> Hashable:
            form = link_form(shard, name)
            return form and (form.digest, form.mode, form.mtime)

        self._divide_by(
            self._links, "links", catalogs, {digest: need.links for digest, need in found.items()}, link_key
        )

    def _divide_by(
        self,
        path: str,
        kind: str,
        catalogs: set[str],
        needed: dict[str, Iterable[Hashable]],
        key_of: Callable[[str, str], Hashable],
    ) -> None:
        by: dict[Hashable, set[str]] = {}
        for digest in sorted(catalogs & needed.keys()):
            for key in needed[digest]:
                by.setdefault(key, set()).add(digest)
        others = set().union(*(keys for digest, keys in needed.items() if digest not in catalogs))
        numbers: dict[tuple[frozenset[str], bool], int] = {}
        holders: dict[Hashable, int] = {}
        for key, digests in by.items():
            which = (frozenset(digests), key in others)
            if which not in numbers:
                numbers[which] = len(self._holders)
                self._holders.append(_Holder(kind, "", path, *which))
            holders[key] = numbers[which]
        rest = self._numbers[path]
        self._holder_of[path] = lambda name: holders.get(key_of(name[:2], name), rest)

    # -- roots and subjects -------------------------------------------------------------------------------------

    def roots(self) -> list[Root]:
        """The trees to look at. The number of each is that of its holder."""
        self._divide()
        for number in self.asked():
            self._most.pop(number, None)
        return [Root(path, self._holder_of.get(path), self._most.get(number)) for path, number in self._numbers.items()]

    def asked(self) -> set[int]:
        """The numbers of the roots that hold something of what was named, or else of everything."""
        holders = self.total(self.subjects()).holders
        return {self._numbers[holder.path] for number, holder in enumerate(self._holders) if holders >> number & 1}

    def sources(self) -> set[int]:
        """The numbers of the roots that are trees which were recorded."""
        return {number for number in self._numbers.values() if self._holders[number].kind == "source"}

    def on(self, disks: Collection[str]) -> set[int]:
        """The numbers of the roots that are on one of those disks."""
        volumes: dict[int, Volume | None] = {}  # by the device: to ask the filesystem of each root takes long

        def is_on(path: str) -> bool:
            try:
                device = os.stat(path).st_dev
            except OSError:
                return False
            if device not in volumes:
                volumes[device] = _volume(path)
            volume = volumes[device]
            return volume is not None and volume.identity in disks

        return {number for path, number in self._numbers.items() if is_on(path)}

    def subjects(self) -> list[Subject]:
        """What was named, or else everything there is."""
        inside = self._inside()
        if not self._named:
            known = [holder for holder in self._holders if holder.kind != "source"]
            return [Subject(holder.kind, holder.name, holder.path, *_below(holder, inside)) for holder in known]
        return [self._subject(*named, inside) for named in dict.fromkeys(self._named)]

    def _subject(self, path: str, name: str, inside: Mapping[str, _Bits]) -> Subject:
        number = self._numbers.get(path)
        if number is None:
            return self._of_catalog(path, name)
        holder = self._holders[number]
        kind = "space" if holder.kind == "space" and holder.name == name else "path"
        return Subject(kind, name, path, *_below(holder._replace(kind=kind), inside))

    def _of_catalog(self, digest: str, name: str) -> Subject:
        golden = self._numbers.get(os.path.realpath(self._golden(digest)))
        holders = removed = 0 if golden is None else 1 << golden
        for number, holder in enumerate(self._holders):
            if digest in holder.catalogs:
                holders |= 1 << number
                removed |= 0 if holder.is_needed or len(holder.catalogs) > 1 else 1 << number
        return Subject("catalog", name, self._home.library.catalogs.path(digest), holders, removed)

    def _inside(self) -> dict[str, _Bits]:
        """The holders at the path of each holder, and those in its tree."""
        at, below = (dict.fromkeys((holder.path for holder in self._holders), 0) for _ in range(2))
        for number, holder in enumerate(self._holders):
            at[holder.path] |= 1 << number
            for path in upwards(holder.path):
                if path in below:
                    below[path] |= 1 << number
        return {path: _Bits(at[path], below[path]) for path in at}

    def total(self, subjects: Iterable[Subject]) -> Subject:
        """All of them together."""
        holders = removed = 0
        for subject in subjects:
            holders |= subject.holders
            removed |= subject.removed
        for number, holder in enumerate(self._holders):
            if holder.catalogs and not holder.is_needed:  # all the catalogs that need it are named
                removed |= 1 << number & holders
        return Subject("total", "", self._home.library.home, holders, removed)

    def of_kind(self, *kinds: str) -> Holders:
        """The bits of all holders of some kinds."""
        found = 0
        for kind in kinds:
            found |= self._kinds.get(kind, 0)
        return found

    @cached_property
    def _kinds(self) -> dict[str, Holders]:
        found: dict[str, Holders] = {}
        for number, holder in enumerate(self._holders):
            found[holder.kind] = found.get(holder.kind, 0) | 1 << number
        return found


def _below(holder: _Holder, inside: Mapping[str, _Bits]) -> tuple[Holders, Holders]:
    """The bits of a holder and of those in its tree. What is left of the home is without those."""
    bits = inside[holder.path]
    found = bits.at if holder.kind == "other" else bits.below
    return found, found


def _volume(path: str) -> Volume | None:
    with (
        suppress(OSError),
        platform.closing(platform.open_root(path if os.path.isdir(path) else os.path.dirname(path))) as folder,
    ):
        return platform.volume_of(folder)
    return None
