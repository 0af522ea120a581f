"""What is in a remote, and whether it is whole. These list objects, so they need a folder or a bucket."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from holo import digest as digests
from holo import platform, signatures
from holo.errors import CatalogInvalid, HoloError, IntegrityError, NewerFormat
from holo.hololib import Library
from holo.remote import garbage
from holo.remote.packs import Pack
from holo.remote.remote import KINDS, Kind, Pointer, Remote, catalog_key, pack_key, pointer_key, signature_key
from holo.remote.report import RemoteCheck, RemoteName, RemoteProblem, RemoteStatus
from holo.transport.bundle import unnamed_file

_UNREADABLE = (IntegrityError, CatalogInvalid, NewerFormat)
"""The errors of an object whose content is wrong."""


def names(remote: Remote) -> list[RemoteName]:
    """All names and keys, also those that cannot be read, of which :func:`check` tells what is wrong."""
    return sorted(_name(key, pointer) for key, pointer in _pointers(remote))


def _name(key: str, pointer: Pointer | HoloError) -> RemoteName:
    if isinstance(pointer, HoloError):
        folder, _, name = key.partition("/")
        problem = "newer" if isinstance(pointer, NewerFormat) else "damaged"
        return RemoteName(folder.removesuffix("s"), name, None, None, False, problem)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(pointer.time))
    return RemoteName(pointer.kind, pointer.name, pointer.catalog, since, pointer.signature is not None, None)


def status(remote: Remote) -> RemoteStatus:
    """How much there is."""
    counted = {kind: len([*remote.items(f"{kind}s/")]) for kind in KINDS}
    catalogs = [*remote.items("catalogs/")]
    packs = [*remote.items("packs/")]
    known = garbage.read(remote)
    return RemoteStatus(
        remote.name,
        counted["name"],
        counted["key"],
        sum(not item.key.endswith(".sig") for item in catalogs),
        len(packs),
        sum(item.size for item in (*catalogs, *packs)),
        len(known.since) + len(known.doomed),
    )


def check(remote: Remote, library: Library, *, read: bool = False, repair: bool = False) -> RemoteCheck:
    """Whether every name means a catalog that is there, whether all that catalogs need is there, and signatures.

    ``read``: hash the packs as well, all of which are fetched for that. ``repair``: remove what cannot be read, packs
    that are wrong, and catalogs that need such. Nobody can use those, and they stand in the way of who pushes again.
    """
    started = time.monotonic()
    sizes = {item.key: item.size for prefix in ("catalogs/", "packs/") for item in remote.items(prefix)}
    found = _Found([], set())
    try:
        garbage.read(remote)
    except _UNREADABLE as error:
        found.add(garbage.KEY, _why(remote, garbage.KEY, error), is_broken=_is_broken(error))
    names = _check_names(remote, sizes, found)
    packs = _check_catalogs(remote, sizes, found)
    if read:
        whole = [pack for key, (pack, _) in packs.items() if sizes.get(key) == pack.size]
        # The disk of the library has room for a pack. Who only looks after a remote may have none, and needs none.
        folder = library.folder("incoming") if os.path.isdir(library.path) else None
        for problems in remote.at_once(_Reader(remote, folder), whole):
            for problem in problems:
                found.add(*problem)
    unusable = {catalog for key, (_, catalogs) in packs.items() if key in found.broken for catalog in catalogs}
    removed = sorted((found.broken | unusable) - (packs.keys() - sizes.keys())) if repair else []
    remote.remove([key for key in removed if not key.startswith("packs/")])  # first: no push is to rely on those packs
    remote.remove([key for key in removed if key.startswith("packs/")])
    return RemoteCheck(
        remote.name,
        names,
        sum(map(garbage.is_catalog, sizes)),
        len(packs),
        read,
        tuple(sorted(found.problems)),
        tuple(removed),
        round(time.monotonic() - started, 3),
    )


def _is_broken(error: HoloError) -> bool:
    """Whether nobody can use an object that cannot be read: a newer holo may read one in a newer form."""
    return not isinstance(error, NewerFormat)


def _why(remote: Remote, key: str, error: HoloError) -> str:
    """What is wrong with an object, without its URL: its key is shown beside that."""
    return error.message.removeprefix(f"{remote.name}/{key} is ")


class _Found(NamedTuple):
    """What a check has found so far."""

    problems: list[RemoteProblem]
    broken: set[str]
    """keys of objects that nobody can use"""

    def add(self, key: str, what: str, *, is_broken: bool = True) -> None:
        self.problems.append(RemoteProblem(key, what))
        if is_broken:
            self.broken.add(key)


def _check_names(remote: Remote, sizes: dict[str, int], found: _Found) -> int:
    """Look at names and keys; returns how many there are."""
    count = 0
    for key, pointer in _pointers(remote):
        count += 1
        if isinstance(pointer, HoloError):
            found.add(key, _why(remote, key, pointer), is_broken=_is_broken(pointer))
            continue
        short = pointer.catalog[:12]
        if catalog_key(pointer.catalog) not in sizes:
            found.add(key, f"it means catalog {short}, which is not there", is_broken=False)
        elif pointer.signature is not None and signature_key(pointer.catalog) not in sizes:
            found.add(key, f"it is signed, and the signature of catalog {short} is not there", is_broken=False)
        if pointer.signature is not None:
            statement = signatures.pointer_statement(pointer.kind, pointer.name, pointer.catalog, pointer.time)
            if not signatures.is_signature(pointer.signature.encode(), statement, signatures.NAME):
                found.add(key, "its signature is not of what it says", is_broken=False)
    return count


def _check_catalogs(remote: Remote, sizes: dict[str, int], found: _Found) -> dict[str, tuple[Pack, list[str]]]:
    """Look at catalogs; returns the packs that they need, by key, each with the catalogs that need it."""
    packs: dict[str, tuple[Pack, list[str]]] = {}
    look = _Look(remote, {key for key in sizes if key.endswith(".sig")})
    for catalog, needed, signature, problems, is_broken in remote.at_once(look, filter(garbage.is_catalog, sizes)):
        for problem in problems:
            found.add(*problem, is_broken=is_broken and problem.key == catalog)
        digest = catalog.partition("/")[2]
        statement = signatures.catalog_statement(digest)
        # Not in a worker: whoever ends one leaves the files that ssh-keygen reads. Whom to trust, each user says.
        if signature is not None and not signatures.is_signature(signature, statement, signatures.CATALOG):
            found.add(signature_key(digest), "it is not a signature of that catalog", is_broken=False)
        for pack in needed:
            key = pack_key(pack.digest)
            packs.setdefault(key, (pack, []))[1].append(catalog)
            there = sizes.get(key)
            if there != pack.size:
                what = "is not there" if there is None else f"has {there:,} bytes instead of {pack.size:,}"
                found.add(catalog, f"pack {pack.digest[:12]}, which it needs, {what}", is_broken=False)
                found.broken.add(key)
    return packs


class _Seen(NamedTuple):
    """What there is of a catalog."""

    key: str
    packs: list[Pack]
    signature: bytes | None
    problems: list[RemoteProblem]
    is_broken: bool
    """whether nobody can use it"""


class _Look:
    """Reads a catalog, and its signature if there is one."""

    def __init__(self, remote: Remote, signatures_there: set[str]) -> None:
        self._remote = remote
        self._signatures = signatures_there

    def __call__(self, key: str) -> _Seen:
        digest = key.partition("/")[2]
        packs: list[Pack] = []
        problems = []
        signature = None
        is_broken = False
        try:
            found = self._remote.catalog(digest, fresh=True)
            packs += found[1].packs if found is not None else []
        except _UNREADABLE as error:
            problems.append(RemoteProblem(key, _why(self._remote, key, error)))
            is_broken = _is_broken(error)
        try:
            if signature_key(digest) in self._signatures:
                document = self._remote.document(signature_key(digest), signatures.LARGEST, fresh=True)
                signature = document.data if document is not None else None
        except IntegrityError as error:
            problems.append(RemoteProblem(signature_key(digest), _why(self._remote, signature_key(digest), error)))
        return _Seen(key, packs, signature, problems, is_broken)


class _Reader:
    """Fetches packs and hashes them."""

    def __init__(self, remote: Remote, folder: str | None) -> None:
        self._remote = remote
        self._folder = folder

    def __call__(self, pack: Pack) -> list[RemoteProblem]:
        key = pack_key(pack.digest)
        with platform.closing(unnamed_file(self._folder)) as file:
            is_there = self._remote.fetch(key, file, most=pack.size, fresh=True)
            if is_there and digests.of_file(file) == pack.digest:
                return []
            return [RemoteProblem(key, "its bytes do not have that digest" if is_there else "it is not there")]


def _pointers(remote: Remote) -> Iterator[tuple[str, Pointer | HoloError]]:
    """What all names and keys mean, or why that cannot be read."""

    def look(named: tuple[Kind, str]) -> tuple[str, Pointer | HoloError | None]:
        try:
            return pointer_key(*named), remote.pointer(*named)[0]
        except _UNREADABLE as error:
            return pointer_key(*named), error

    for key, pointer in remote.at_once(look, remote.named()):
        if pointer is not None:
            yield key, pointer
