"""What nothing in a remote needs any more: found, kept for a time of grace, and removed. Pushes may run meanwhile.

    gc      1  read all names, keys and catalogs: what they need is live
            2  write into the object ``garbage`` what is not, and since when that is known; what has been there for the
               grace period is ``doomed`` from now on. It is written only in place of what was read: if a push has
               changed it, begin again
            3  remove the doomed
            4  write that none is doomed any more
    push    whatever it relies on that is there already (packs, a catalog) and is in ``garbage``, it takes out of it
            first, in the same careful way. What is doomed it waits for, and makes anew

So nothing goes that a push has relied on since, as long as the push takes less than the grace period.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import NamedTuple

from holo.errors import MALFORMED, CatalogInvalid, Conflict, HoloError, IntegrityError, UsageError
from holo.remote.remote import Remote, catalog_key, pack_key, signature_key
from holo.remote.report import RemoteGc
from holo.remote.store import DRAFTS

KEY = "garbage"
GRACE = 7 * 86_400
"""Seconds: longer than any push takes, and than any cache keeps a catalog that nothing names."""

_FORMAT = "holo garbage"
_VERSION = 1
_LARGEST = 1 << 30
_TRIES = 5
_WAIT = 2.0
"""Seconds between two looks at a collection that is running."""

_PATIENCE = 60
"""Looks at what is doomed, before whoever doomed it counts as dead."""


class Garbage(NamedTuple):
    """The object ``garbage``."""

    since: dict[str, int]
    """keys of objects that nothing needs, and since when that is known (seconds since the epoch)"""
    doomed: tuple[str, ...]
    """keys of those that are being removed"""
    version: str | None

    def to_json(self) -> bytes:
        document = {"format": _FORMAT, "version": _VERSION, "since": self.since, "doomed": list(self.doomed)}
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def read(remote: Remote) -> Garbage:
    """What is known to be garbage. Raises :class:`~holo.errors.IntegrityError`, :class:`~holo.errors.NewerFormat`."""
    found = remote.document(KEY, _LARGEST, fresh=True)
    if found is None:
        return Garbage({}, (), None)
    try:
        document = json.loads(found.data)
        if document["format"] != _FORMAT:
            raise ValueError
        remote.refuse_newer(document["version"], _VERSION, KEY)
        garbage = Garbage(dict(document["since"]), tuple(document["doomed"]), found.version)
        is_right = all(type(since) is int for since in garbage.since.values()) and all(
            type(key) is str for key in (*garbage.since, *garbage.doomed)
        )
    except MALFORMED:
        is_right = False
    if not is_right:
        raise remote.damaged(KEY, "it is not what holo writes")
    return garbage


def rely_on(remote: Remote, keys: Iterable[str], known: Garbage) -> None:
    """Take objects that are there out of the garbage, before anything names them.

    Raises :class:`Conflict` if they are being removed.
    """
    wanted = set(keys)
    garbage = known
    for _ in range(_TRIES):
        if wanted.isdisjoint(garbage.since) and wanted.isdisjoint(garbage.doomed):
            return
        garbage = _wait_for(remote, wanted, garbage)
        since = {key: when for key, when in garbage.since.items() if key not in wanted}
        if remote.replace(KEY, garbage._replace(since=since).to_json(), garbage.version):
            return
        garbage = read(remote)
    raise _busy(remote)


def _wait_for(remote: Remote, wanted: set[str], garbage: Garbage) -> Garbage:
    """Wait until none of these is being removed. Raises :class:`Conflict`: they are gone then, or stay doomed."""
    if wanted.isdisjoint(garbage.doomed):
        return garbage
    for _ in range(_PATIENCE):
        time.sleep(_WAIT)
        if wanted.isdisjoint(read(remote).doomed):
            break
    raise Conflict(
        f"what was to be used of {remote.name} was being removed by `holo remote gc`",
        "Run the command again. If that gc was killed, run `holo remote gc` first.",
    )


def _busy(remote: Remote) -> HoloError:
    return Conflict(f"others keep changing what is garbage in {remote.name}", "Run the command again.")


def collect(remote: Remote, grace: float | None = None, *, dry_run: bool = False) -> RemoteGc:
    """Remove what has been needed by nothing for ``grace`` seconds (default: a week).

    Raises :class:`HoloError` if a catalog that a name means is lost or cannot be read: what it needs is not known then,
    and nothing is removed.
    """
    started = time.monotonic()
    grace = GRACE if grace is None else grace
    if grace < 0:
        raise UsageError("the grace period cannot be negative")
    for _ in range(_TRIES):
        known = read(remote)
        dead = _dead(remote)
        now = int(time.time())
        since = {key: min(known.since.get(key, now), now) for key in dead}
        # What a gc that was killed had doomed may be gone in part, so it goes now, unless something needs it again.
        old = {key for key in dead if now - since[key] >= grace or key in known.doomed}
        doomed = sorted(old - _needed_by(remote, dead.keys() - old))
        waiting = {key: when for key, when in since.items() if key not in set(doomed)}
        if dry_run:
            break
        if (waiting, tuple(doomed)) == (known.since, known.doomed) and not doomed:
            break
        if not remote.replace(KEY, Garbage(waiting, tuple(doomed), None).to_json(), known.version):
            continue
        # Catalogs before their packs: nobody is to find one whose packs are gone.
        remote.remove([key for key in doomed if key.startswith("catalogs/")])
        remote.remove([key for key in doomed if not key.startswith("catalogs/")])
        _undoom(remote, doomed)
        break
    else:
        raise _busy(remote)
    return RemoteGc(
        remote.name,
        len(doomed),
        sum(dead[key] for key in doomed),
        len(waiting),
        sum(dead[key] for key in waiting),
        dry_run,
        round(time.monotonic() - started, 3),
    )


def _needed_by(remote: Remote, keys: Iterable[str]) -> set[str]:
    """The packs of catalogs that nothing needs either, but that stay for now.

    A pack may have been known as garbage for longer than a catalog that was made of it since and has lost its name
    again. Whoever pushes that catalog once more finds it there, and takes it for whole.
    """

    def needs(key: str) -> list[str]:
        try:
            return packs_of(remote, key) or []
        except (IntegrityError, CatalogInvalid):  # nobody can use it
            return []

    return {pack for packs in remote.at_once(needs, filter(is_catalog, keys)) for pack in packs}


def _undoom(remote: Remote, removed: list[str]) -> None:
    for _ in range(_TRIES):
        now = read(remote)
        left = tuple(key for key in now.doomed if key not in set(removed))
        if left == now.doomed or remote.replace(KEY, now._replace(doomed=left).to_json(), now.version):
            return
    raise _busy(remote)


def _dead(remote: Remote) -> dict[str, int]:
    """The objects that nothing needs, with their bytes.

    Packs are listed first, and names read last: what a push makes meanwhile counts as needed, or is not known of.
    """
    packs = {item.key: item.size for beginning in ("packs/", DRAFTS) for item in remote.items(beginning)}
    catalogs = {item.key: item.size for item in remote.items("catalogs/")}
    meant: dict[str, str] = {}
    for pointer, _ in remote.at_once(lambda named: remote.pointer(*named), remote.named()):
        if pointer is not None:
            meant[pointer.catalog] = pointer.key
    live = {key(digest) for digest in meant for key in (catalog_key, signature_key)}
    for digest, needed in remote.at_once(lambda digest: (digest, packs_of(remote, catalog_key(digest))), meant):
        if needed is None:
            raise IntegrityError(
                f"{remote.name}/{meant[digest]} means catalog {digest[:12]}, which is not there",
                "What it needs is not known, so nothing is removed. Push it again, or remove that name or key.",
            )
        live.update(needed)
    return {key: size for key, size in {**packs, **catalogs}.items() if key not in live}


def is_catalog(key: str) -> bool:
    """Whether it is the key of a catalog's object, and not of its signature, or of anything else."""
    return key.startswith("catalogs/") and not key.endswith(".sig")


def packs_of(remote: Remote, key: str) -> list[str] | None:
    """The keys of the packs that the catalog with that key needs; ``None`` if it is not there.

    Raises what reading one raises.
    """
    found = remote.catalog(key.partition("/")[2], fresh=True)
    return [pack_key(pack.digest) for pack in found[1].packs] if found is not None else None
