"""What is in a remote, and whether it is whole. These list objects, so they need a folder or a bucket."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from holo import digest as digests
from holo.errors import CatalogInvalid, IntegrityError
from holo.hololib import Library
from holo.remote import garbage
from holo.remote.packs import Pack
from holo.remote.remote import Kind, Pointer, Remote, catalog_key, pack_key
from holo.remote.report import RemoteCheck, RemoteName, RemoteProblem, RemoteStatus
from holo.transport.bundle import unnamed_file
from holo.workers import pool

KINDS: tuple[Kind, ...] = ("name", "key")


def names(remote: Remote) -> list[RemoteName]:
    """All names and keys but for damaged ones, which :func:`check` tells of."""
    return sorted(
        RemoteName(
            pointer.kind,
            pointer.name,
            pointer.catalog,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(pointer.time)),
            pointer.signature is not None,
        )
        for _, pointer in _pointers(remote)
        if isinstance(pointer, Pointer)
    )


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


def check(
    remote: Remote, library: Library, *, read: bool = False, repair: bool = False, workers: int = 1
) -> RemoteCheck:
    """Whether every name means a catalog that is there, and whether all that catalogs need is there.

    ``read``: hash the packs as well, all of which are fetched for that. ``repair``: remove packs that are wrong, and
    catalogs that are or that need such. Nobody can pull those, and a push takes a catalog that is there for whole.
    """
    started = time.monotonic()
    problems: list[RemoteProblem] = []
    sizes = {item.key: item.size for prefix in ("catalogs/", "packs/") for item in remote.items(prefix)}
    count = 0
    for key, pointer in _pointers(remote):
        count += 1
        if isinstance(pointer, IntegrityError):
            problems.append(RemoteProblem(key, pointer.message))
        elif catalog_key(pointer.catalog) not in sizes:
            problems.append(RemoteProblem(key, f"it means catalog {pointer.catalog[:12]}, which is not there"))
    packs: dict[str, Pack] = {}
    needed: dict[str, list[str]] = {}
    broken: set[str] = set()
    catalogs = [key for key in sizes if key.startswith("catalogs/") and not key.endswith(".sig")]
    for key in catalogs:
        try:
            found = remote.catalog(key.partition("/")[2], fresh=True)
        except (IntegrityError, CatalogInvalid) as error:
            problems.append(RemoteProblem(key, error.message))
            broken.add(key)
            continue
        for pack in found[1].packs if found is not None else ():
            packs[pack_key(pack.digest)] = pack
            needed.setdefault(pack_key(pack.digest), []).append(key)
            if sizes.get(pack_key(pack.digest)) != pack.size:
                there = sizes.get(pack_key(pack.digest))
                what = "is not there" if there is None else f"has {there:,} bytes instead of {pack.size:,}"
                problems.append(RemoteProblem(key, f"pack {pack.digest[:12]}, which it needs, {what}"))
                broken.add(pack_key(pack.digest))
    if read:
        whole = [pack for key, pack in packs.items() if sizes.get(key) == pack.size]
        for problem in pool.run(_Reader(remote, library.folder("incoming")), whole, max(workers, 4)):
            problems += problem
            broken.update(key for key, _ in problem)
    broken |= {catalog for pack in broken for catalog in needed.get(pack, ())}
    removed = sorted(broken & sizes.keys()) if repair else []
    remote.remove([key for key in removed if key.startswith("catalogs/")])  # first: no push is to rely on its packs
    remote.remove([key for key in removed if not key.startswith("catalogs/")])
    return RemoteCheck(
        remote.name,
        count,
        len(catalogs),
        len(packs),
        read,
        tuple(sorted(problems)),
        tuple(removed),
        round(time.monotonic() - started, 3),
    )


class _Reader:
    """Fetches packs and hashes them."""

    def __init__(self, remote: Remote, folder: str) -> None:
        self._remote = remote
        self._folder = folder

    def __call__(self, pack: Pack) -> list[RemoteProblem]:
        key = pack_key(pack.digest)
        file = unnamed_file(self._folder)
        try:
            is_there = self._remote.fetch(key, file, most=pack.size, fresh=True)
            if is_there and digests.of_file(file) == pack.digest:
                return []
            return [RemoteProblem(key, "its bytes do not have that digest" if is_there else "it is not there")]
        finally:
            os.close(file)


def _pointers(remote: Remote) -> Iterator[tuple[str, Pointer | IntegrityError]]:
    for kind in KINDS:
        for item in sorted(remote.items(f"{kind}s/")):
            try:
                pointer, _ = remote.pointer(kind, item.key.partition("/")[2])
            except IntegrityError as error:
                yield item.key, error
                continue
            if pointer is not None:
                yield item.key, pointer
