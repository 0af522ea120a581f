"""Push: let a remote have a catalog, by sending what it lacks.

    look      what the name means there; whether the catalog is there
    plan      which blobs are in packs that catalogs of the remote need already, by their maps
    send      the others in new packs, made and sent by all workers
    publish   the catalog, which names its packs; its signature; last the name

A push that dies leaves packs that nothing needs, for `holo remote gc`; the next one finds those that it would make the
same, and does not send them again. Two pushes at once do each other no harm: what they send has names by its content.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from holo.catalog import Catalog
from holo.content import Section
from holo.errors import CatalogInvalid, Conflict, HoloError, IntegrityError, NewerFormat, UsageError
from holo.files import SMALL, is_there
from holo.hololib import CatalogRef, Library
from holo.remote import garbage as rubbish
from holo.remote.garbage import Garbage
from holo.remote.packs import PACK, Made, Pack, Slot, blobs_of, cut, make_packs, object_of
from holo.remote.remote import Kind, Pointer, Remote, catalog_key, pack_key, pointer_key, signature_key
from holo.remote.report import PushReport
from holo.transport.adopt import OnProgress
from holo.transport.source import Blob
from holo.workers import pool

MOST_PACKS = 64
"""That a catalog needs, unless its content fills more: a pull makes a request for each."""

_ENOUGH = 0.75
"""Of the bytes of a catalog: if the one that the name meant before has so many, no others are looked for."""

_MOST_MAPS = 4
"""Catalogs of the remote whose maps are read."""

_MOST_COMPARED = 32
"""Catalogs, the latest ones, that are compared with the one to be pushed: each takes some 30 ms."""

_WINDOW = 4
"""Packs on the way at once, at least: a worker that waits for the network leaves its processor to another."""

_TRIES = 5


class Named(NamedTuple):
    """A catalog of the library to be pushed, and what is to point to it in the remote."""

    ref: CatalogRef
    pointers: Sequence[tuple[Kind, str]]


class _Plan(NamedTuple):
    """How a catalog is to be pushed."""

    known: dict[str, Slot]
    """blobs that are there, by digest"""
    missing: list[Blob]

    @property
    def content(self) -> int:
        """Bytes of what is to be sent."""
        return sum(size for _, size in self.missing)


class _Done(NamedTuple):
    """A catalog that was pushed, or would be."""

    known: int
    """blobs that were there"""
    missing: list[Blob]
    packs: int


def push(
    library: Library,
    remote: Remote,
    catalogs: Sequence[Named],
    *,
    key: str | None = None,
    dry_run: bool = False,
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> PushReport:
    """Send catalogs of the library to a remote. ``key``: the file of the SSH key that signs them, if one is to.

    The caller holds the library's lock, shared. Raises :class:`IntegrityError` for a damaged blob, :class:`Conflict`
    and :class:`HoloError`; names mean what they did then.
    """
    if not catalogs:
        raise UsageError("there is nothing to push", "Name catalogs: `holo catalogs` shows which there are.")
    started = time.monotonic()
    done = [
        _push(library, remote, item, key, dry_run=dry_run, workers=workers, on_progress=on_progress)
        for item in catalogs
    ]
    return PushReport(
        remote=remote.name,
        catalogs=tuple(item.ref for item in catalogs),
        blobs_sent=sum(len(each.missing) for each in done),
        blobs_known=sum(each.known for each in done),
        packs=sum(each.packs for each in done),
        bytes_content=sum(size for each in done for _, size in each.missing),
        signed=key is not None,
        dry_run=dry_run,
        traffic=remote.meter.total(),
        seconds=round(time.monotonic() - started, 3),
    )


def _push(
    library: Library,
    remote: Remote,
    item: Named,
    key: str | None,
    *,
    dry_run: bool,
    workers: int,
    on_progress: OnProgress | None,
) -> _Done:
    digest = item.ref.digest
    found = [remote.pointer(*pointer) for pointer in item.pointers]
    signature = None
    if key is not None and not dry_run:  # before all is sent: a key may not work, or want a passphrase
        from holo import signatures

        signature = signatures.sign(signatures.catalog_statement(digest), signatures.CATALOG, key)
    meant = [pointer.catalog if pointer is not None else None for pointer, _ in found]
    is_meant = key is None and {*meant} == {digest}
    # Read the garbage first: a gc keeps what it finds unneeded after that for the grace period.
    known = rubbish.read(remote) if not is_meant else None
    if remote.size(catalog_key(digest)) is not None:
        done = _Done(len(blobs_of(library.catalogs.read(digest))), [], 0)
        if known is None:
            return done
        if not dry_run:
            _rely_on_catalog(remote, digest, known)
    else:
        known = known if known is not None else rubbish.read(remote)
        catalog = library.catalogs.load(digest)
        plan = _plan(library, remote, catalog, filter(None, meant), known)
        if dry_run:
            packs = len(cut(library, plan.missing))
        else:
            packs = _send(library, remote, catalog, plan, known, workers, on_progress)
        done = _Done(len(plan.known), plan.missing, packs)
    if not dry_run:
        if signature is not None:
            _put(remote, signature_key(digest), signature, None)
        if not is_meant:  # else it may be signed, which is not to be lost
            _publish_names(remote, item, key, [version for _, version in found])
    return done


def _rely_on_catalog(remote: Remote, digest: str, known: Garbage) -> None:
    """Take a catalog that is there, and all that it needs, out of the garbage."""
    keys = {catalog_key(digest), signature_key(digest)}
    if known.since or known.doomed:
        found = remote.catalog(digest, fresh=True)
        if found is not None:
            keys |= {pack_key(pack.digest) for pack in found[1].packs}
    _rely_on(remote, keys, known)


def _rely_on(remote: Remote, keys: set[str], known: Garbage) -> None:
    """Take objects that are there out of the garbage; those that were in it must not have gone before that."""
    listed = keys & {*known.since, *known.doomed}
    if listed:
        rubbish.rely_on(remote, keys, known)
    if any(remote.size(key) is None for key in sorted(listed)):
        raise Conflict(f"what was to be used of {remote.name} has just been removed", "Run the command again.")


# -- plan -------------------------------------------------------------------------------------------------------


def _plan(library: Library, remote: Remote, catalog: Catalog, before: Iterable[str], known: Garbage) -> _Plan:
    """Which blobs the remote has, by the maps of catalogs that are like this one, and which it lacks."""
    wanted = blobs_of(catalog)
    slots: dict[str, Slot] = {}
    doomed = set(known.doomed)

    def look_at(digest: str) -> None:
        found = None
        with suppress(IntegrityError, CatalogInvalid, NewerFormat):  # it is of no use, as `holo remote check` will say
            found = remote.catalog(digest)
        for blob, slot in found[1].slots.items() if found is not None else ():
            if blob in wanted and pack_key(slot.pack.digest) not in doomed:
                slots.setdefault(blob, slot)

    looked_at = [*dict.fromkeys(before)]
    for digest in looked_at:
        look_at(digest)
    if sum(wanted[blob] for blob in slots) < _ENOUGH * sum(wanted.values()):
        for digest in _likest(library, remote, wanted, looked_at):
            look_at(digest)
    _spare_packs(slots, wanted)
    missing = [(blob, size) for blob, size in wanted.items() if blob not in slots]
    return _Plan(slots, missing)


def _likest(library: Library, remote: Remote, wanted: Mapping[str, int], known: Sequence[str]) -> list[str]:
    """The catalogs of the remote that share most with one: as far as the library has them, else the latest ones."""
    there = sorted((item.modified, item.key.partition("/")[2]) for item in remote.items("catalogs/"))
    latest = [digest for _, digest in there if not digest.endswith(".sig") and digest not in known]
    here = library.catalogs.digests()
    shares = Counter(dict.fromkeys([digest for digest in latest if digest in here][-_MOST_COMPARED:], 0))
    for digest in shares:
        with suppress(HoloError):  # it is damaged, as `holo check` will say
            blobs = blobs_of(library.catalogs.read(digest))
            shares[digest] = sum(size for blob, size in wanted.items() if blob in blobs)
    best = [digest for digest, shared in shares.most_common(_MOST_MAPS) if shared]
    return best or latest[-_MOST_MAPS:]


def _spare_packs(slots: dict[str, Slot], wanted: Mapping[str, int]) -> None:
    """Leave out packs that serve little, if a pull would have to ask for too many: those blobs are sent again."""
    used: Counter[Pack] = Counter()
    for slot in slots.values():
        used[slot.pack] += slot.stored
    missing = sum(size for blob, size in wanted.items() if blob not in slots)
    most = max(MOST_PACKS, sum(used.values()) * 2 // PACK) - 1 - missing // (3 * PACK)
    for pack, stored in sorted(used.items(), key=lambda item: item[1]):
        if len(used) <= most or 2 * stored > max(PACK, pack.size):
            break
        del used[pack]
    for blob in [blob for blob, slot in slots.items() if slot.pack not in used]:
        del slots[blob]


# -- send and publish -------------------------------------------------------------------------------------------


class _Sender:
    """Makes packs and sends them. Made before the workers are forked, called in them with one task after the other."""

    def __init__(self, library: Library, remote: Remote, folder: str, *, look_first: bool) -> None:
        """``look_first``: an earlier push may have sent some of them."""
        self._library = library
        self._remote = remote
        self._folder = folder
        self._look_first = look_first

    def __call__(self, blobs: list[Blob]) -> list[tuple[Made, bool]]:
        """The packs that were made of some blobs, and whether each is new in the remote."""
        made = []
        for file, each in make_packs(self._library, blobs, self._folder):
            key, content = pack_key(each.pack.digest), Section(file, 0, each.pack.size)
            is_sent = self._look_first and self._remote.size(key) == each.pack.size
            is_new = not is_sent and self._remote.create(key, content)
            # What has another size is of no use to anybody: somebody has copied the remote, and not to the end, say.
            if not is_sent and not is_new and self._remote.size(key) != each.pack.size:
                self._remote.create(key, content, anyway=True)
            made.append((each, is_new))
        return made


def _send(
    library: Library,
    remote: Remote,
    catalog: Catalog,
    plan: _Plan,
    known: Garbage,
    workers: int,
    on_progress: OnProgress | None,
) -> int:
    """Send what is missing, then the catalog; returns how many packs were made."""
    # What is made anew, and was garbage before, must not go for that: a gc that was killed may have left it doomed.
    rubbish.rely_on(remote, {catalog_key(catalog.digest), signature_key(catalog.digest)}, known)
    listed = {*known.since, *known.doomed}
    _rely_on(remote, {pack_key(slot.pack.digest) for slot in plan.known.values()}, known)
    folder = library.folder("incoming")
    note = os.path.join(folder, f"push-{catalog.digest}")
    sender = _Sender(library, remote, folder, look_first=is_there(note))
    with suppress(FileExistsError):  # of a push that was killed, in a shared library another user's
        os.close(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    slots = dict(plan.known)
    packs = done = 0
    sizes = dict(plan.missing)
    old: set[str] = set()
    for made in pool.run(sender, cut(library, plan.missing), max(workers, _WINDOW)):
        for pack, is_new in made:
            slots.update(pack.slots)
            if not is_new or pack_key(pack.pack.digest) in listed:
                old.add(pack_key(pack.pack.digest))
            packs += is_new
            done += sum(sizes[blob] for blob in pack.slots)
        if on_progress is not None:
            on_progress(done, plan.content)
    if old:
        _rely_on(remote, old, rubbish.read(remote))
    remote.create_small(catalog_key(catalog.digest), object_of(catalog, slots))
    with suppress(FileNotFoundError, PermissionError):
        os.unlink(note)
    return packs


def _publish_names(remote: Remote, item: Named, key: str | None, versions: Sequence[str | None]) -> None:
    """Let the names of a catalog mean it, and sign that, if it is to be."""
    from holo import signatures

    digest = item.ref.digest
    for (kind, name), version in zip(item.pointers, versions, strict=True):
        now = int(time.time())
        signed = None
        if key is not None:
            statement = signatures.pointer_statement(kind, name, digest, now)
            signed = signatures.sign(statement, signatures.NAME, key).decode()
        _put(remote, pointer_key(kind, name), Pointer(kind, name, digest, now, signed).to_json(), version)


def _put(remote: Remote, key: str, data: bytes, version: str | None) -> None:
    """Write a small object in place of whatever is there. Of two who do so at once, the later one wins."""
    for _ in range(_TRIES):
        if remote.replace(key, data, version):
            return
        found = remote.document(key, SMALL, fresh=True)
        version = found.version if found is not None else None
    raise Conflict(f"others keep changing {remote.name}/{key}", "Run the command again.")
