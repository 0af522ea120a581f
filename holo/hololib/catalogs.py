"""The catalogs of a library: published by one rename, found by name or digest, removed with all of theirs."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from holo import digest as digests
from holo import platform
from holo.errors import (
    CatalogInvalid,
    Conflict,
    HoloError,
    IntegrityError,
    NotFound,
    UsageError,
    beginning_with,
    choice,
    hints,
    os_errors_as,
)
from holo.files import NOT_DAMAGE, SMALL, names_in, open_file, read_file, seal, sync_folder, unseal, write_atomically
from holo.hololib.golden import remove_golden
from holo.hololib.layout import NAME, catalog_digest, catalog_name, check_name, library_folder
from holo.hololib.reference import CatalogRef
from holo.owners import is_others, only_we_wrote
from holo.remove import unlink

if TYPE_CHECKING:
    from holo.catalog import Catalog, Contents

_SHORTEST_PREFIX = 4

LARGEST = 256 << 20
"""Bytes of a catalog: some two million files, which take 1.2 GB of memory to parse. A larger one is refused."""


class CatalogSummary(NamedTuple):
    """What a listing shows of a catalog. ``name`` is ``None`` for a catalog that lost its name to another."""

    name: str | None
    digest: str
    files: int
    directories: int
    symlinks: int
    bytes: int
    prefix: str
    recorded: str
    """UTC, ISO 8601, seconds"""


class ForeignFile(HoloError):
    """A catalog, or the name of one, belongs to another user and is not readable."""


class Catalogs:
    """The catalogs of one library, below ``catalog/``, ``names/`` and ``used/``."""

    def __init__(self, library: str, settle: Callable[[], object], is_space: Callable[[str], bool]) -> None:
        """``settle`` makes the blobs durable that a new catalog needs. ``is_space``: see :class:`Library`."""
        self._library = library
        self._settle = settle
        self._is_space = is_space
        self._kept: Catalog | None = None

    def publish(
        self, catalog: Catalog, name: str | None, signature: bytes | None = None, *, is_trusted: bool = False
    ) -> str | None:
        """Make a catalog exist, under ``name`` if there is one. All its blobs must be in the library.

        Everything written so far is made durable first; then one rename makes the catalog appear. Returns the digest of
        the other catalog that the name meant until now, if any. Raises :class:`CatalogInvalid` for one that could not
        be loaded again. The signature and ``is_trusted`` are as in :meth:`keep_signature`.
        """
        if name is not None:
            check_name(name, "catalog")
        path = self.path(catalog.digest)
        # A file that is there before the sync is durable after it. A later one may be of a record that still runs.
        is_known = _holds(path, catalog.to_json())
        if not is_known:  # else it was checked when it was published first
            catalog.check()
        library_folder(self._library, "catalog")
        library_folder(self._library, "names")
        if len(catalog.to_json()) > LARGEST:
            raise HoloError(
                f"a catalog of {catalog.totals.files:,} files is too large: {len(catalog.to_json()):,} bytes",
                f"The most is {LARGEST:,} bytes. Record parts of the tree on their own.",
            )
        before = self.meant_by(name) if name is not None else None
        self._settle()
        if signature is not None:  # before the catalog: who finds that finds its signature
            self.keep_signature(catalog.digest, signature, replace=is_trusted)
        if not is_known:
            _write_durably(path, catalog.to_json())
        if name is not None and before != catalog.digest:
            _write_durably(self.name_path(name), _encode(summarize(catalog, name)))
        self.mark_used(catalog.digest)
        return before if before != catalog.digest else None

    def keep_signature(self, digest: str, signature: bytes, *, replace: bool) -> None:
        """Keep a signature with a catalog, which has one at most.

        ``replace``: in place of another. Somebody whom this user trusts has made the new one, and nobody knows that of
        the old. What another user of the library keeps stays.
        """
        path = self.signature_path(digest)
        if (os.path.lexists(path) and not replace) or _holds(path, signature):
            return
        with leaving_others():
            _write_durably(path, signature)

    def signature(self, digest: str) -> bytes | None:
        """The signature that is kept with a catalog, as it is, or ``None``. Raises :class:`HoloError`."""
        from holo import signatures

        path = self.signature_path(digest)
        try:
            return read_file(path, signatures.LARGEST)[0]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _cannot_read("the signature ", path, error) from error

    def mark_used(self, digest: str) -> None:
        """Note that this user uses a catalog now, in ``used/<digest>-<user>``.

        In somebody else's library this may be impossible, and that is no failure.
        """
        with (
            suppress(OSError, HoloError),
            platform.closing(platform.open_root(library_folder(self._library, "used"))) as folder,
        ):
            platform.touch(folder, f"{digest}-{platform.user_id()}")

    def last_used(self) -> dict[str, float]:
        """When each catalog was last used by anybody, in seconds of the epoch, as far as that was noted."""
        found: dict[str, float] = {}
        folder = os.path.join(self._library, "used")
        for name in names_in(folder):
            digest = name.partition("-")[0]
            with suppress(OSError):
                found[digest] = max(os.lstat(os.path.join(folder, name)).st_mtime, found.get(digest, 0.0))
        return found

    def has(self, digest: str) -> bool:
        """Whether there is a catalog of that digest."""
        return os.path.lexists(self.path(digest))

    def keep(self, catalog: Catalog) -> None:
        """Keep a catalog that was read from bytes of its digest, and published, for the :meth:`load` that follows."""
        self._kept = catalog

    def load(self, digest: str) -> Catalog:
        """Load a catalog by its full digest; its bytes are checked against it.

        Raises :class:`CatalogInvalid` if another user's would give its files rights (setuid, capabilities).
        """
        kept, self._kept = self._kept, None
        if kept is not None and kept.digest == digest and kept.privileged() is None:
            return kept
        catalog, is_own = self._load(digest)
        if not is_own and (file := catalog.privileged()) is not None:
            raise CatalogInvalid(
                f"catalog {self.path(digest)} is another user's and gives rights with setuid, setgid or "
                f"capabilities: {file}",
                "Whoever made it could act as you. Record the environment yourself, or let root do it.",
            )
        return catalog

    def read(self, digest: str) -> Catalog:
        """Load a catalog to see what it needs, not to restore it: any owner, and any rights of its files, will do."""
        return self._load(digest)[0]

    def document(self, digest: str) -> bytes:
        """The bytes of a catalog, which are checked against its digest."""
        return self._document(digest)[0]

    def directories(self, digest: str) -> list[tuple[str, int, int]]:
        """The path, the mode and the mtime in ns of each directory of a catalog, parents before children.

        Far faster than :meth:`read`: what this user or root has published was checked then.
        """
        from holo.catalog import directories_in

        data, is_own = self._document(digest)
        if not is_own:
            return [row[:3] for row in self.read(digest).directories]
        return directories_in(data)

    def contents(self, digest: str) -> Iterator[Contents]:
        """The contents of the files of a catalog, in parts; some of them twice.

        Far faster than :meth:`read`, as :meth:`directories` is.
        """
        from holo.catalog import Contents, contents_in

        data, is_own = self._document(digest)
        if is_own:
            try:
                yield from contents_in(data)
            except ValueError:
                pass
            else:
                return
        for _, _, _, rows, _ in self.read(digest).directories:
            if rows:
                _, modes, sizes, mtimes, found = zip(*rows, strict=True)
                yield Contents(found, modes, sizes, mtimes)

    def sizes(self, digest: str) -> dict[str, int]:
        """The contents of a catalog in its order: digest and size in bytes."""
        found: dict[str, int] = {}
        for part in self.contents(digest):
            found.update(zip(part.digests, part.sizes, strict=True))
        return found

    def _load(self, digest: str) -> tuple[Catalog, bool]:
        from holo.catalog import Catalog

        data, is_own = self._document(digest)
        return Catalog.from_json(data, self.path(digest)), is_own

    def _document(self, digest: str) -> tuple[bytes, bool]:
        """The bytes of a catalog, which have that digest, and whether only this user and root can have written them."""
        path = self.path(digest)
        try:
            data, is_own = read_catalog_file(path)
        except NotFound:
            raise NotFound(
                f"catalog {digest[:12]} is not in {self._library} any more",
                "Import a bundle that has it, pull it, or record the environment again. Or turn its spaces into "
                "another: `holo restore --space NAME --catalog REF`.",
            ) from None
        if digests.of(data) != digest:
            raise IntegrityError(
                f"catalog {path} is damaged: its bytes do not have that digest",
                "Run `holo check --repair` (with `--from` another library), or record the environment again.",
            )
        return data, is_own

    def resolve(self, reference: str, *, begun: bool = False) -> CatalogRef:
        """Find a catalog by name or by a digest prefix of at least four digits.

        ``begun``: the beginning of a name or of a digest will do if no other has it. Raises :class:`NotFound`, or
        :class:`UsageError` if what is given fits several.
        """
        if NAME.fullmatch(reference) and (known := self._read_name(reference)) is not None:
            return CatalogRef(reference, known.digest)
        if len(reference) >= _SHORTEST_PREFIX and not reference.strip("0123456789abcdef"):
            fitting = [digest for digest in self.digests() if digest.startswith(reference)]
            if len(fitting) == 1:
                return CatalogRef(self.name_of(fitting[0]), fitting[0])
            if fitting:
                raise UsageError(f"{reference} is the beginning of {len(fitting)} catalog digests", "Give more digits.")
        if begun and (name := beginning_with(reference, self.names(), "names of catalogs")) is not None:
            return self.resolve(name)
        if begun and (digest := beginning_with(reference, self.digests(), "catalog digests")) is not None:
            return CatalogRef(self.name_of(digest), digest)
        raise NotFound(
            f"there is no catalog {reference!r} in {self._library}",
            hints(
                choice("Catalogs", reference, sorted(self.names())),
                f"{reference!r} is a space: `holo list` shows of which catalog."
                if self._is_space(reference)
                else "To record one: `holo record DIR --name NAME`.",
            ),
        )

    def is_catalog(self, reference: str) -> bool:
        """Whether there is a catalog of that name or digest prefix."""
        try:
            self.resolve(reference)
        except NotFound:
            return False
        return True

    def only(self, space: str | None = None) -> CatalogRef:
        """The library's single catalog; an error that names the choices otherwise. ``space``: it is to be of that."""
        digests_here = [*self.digests()]
        if len(digests_here) == 1:
            return CatalogRef(self.name_of(digests_here[0]), digests_here[0])
        if not digests_here:
            raise NotFound(
                f"no source is named, there is no blueprint here or above, and no catalog in {self._library}",
                "Record a directory: `holo record DIR`. Or name what the space is to be made from: `holo help init`.",
            )
        known = self.meanings()
        names = ", ".join(sorted(known.get(digest, [digest[:12]])[0] for digest in digests_here)[:20])
        raise UsageError(
            "no source is named, there is no blueprint here or above, and the library holds several catalogs",
            f"{space!r} would be the name of the space. One of that catalog: `holo init SPACE {space}`."
            if space is not None and self.is_catalog(space)
            else f"Name one of {names}.",
        )

    def name_of(self, digest: str) -> str:
        names = self.names_of(digest)
        return names[0] if names else digest[:12]

    def summaries(self) -> list[CatalogSummary]:
        """Every catalog once per name, and those without a name, by name. Damaged names and catalogs are none."""
        summaries = []
        for name in sorted(self.names()):
            known = self.sound_summary(name)
            if known is not None:
                summaries.append(known)
        named = {summary.digest for summary in summaries}
        for digest in sorted(self.digests()):
            if digest not in named:
                # Removed by somebody else just now, or theirs alone, or damaged, as `holo check` will say.
                with suppress(FileNotFoundError, NotFound, ForeignFile, CatalogInvalid, IntegrityError):
                    recorded = os.stat(self.path(digest)).st_mtime
                    summaries.append(summarize(self.read(digest), None, recorded))
        return summaries

    def damaged(self, listed: Iterable[CatalogSummary]) -> list[str]:
        """The names, and the digests of catalogs, that :meth:`summaries` has left out because they are damaged."""
        known = {text for summary in listed for text in (summary.name, summary.digest)}

        def is_damaged(read: Callable[[str], object], text: str) -> bool:
            try:
                read(text)
            except (CatalogInvalid, IntegrityError):
                return True
            except HoloError:  # theirs alone, or removed just now
                return False
            return False

        names = [name for name in sorted({*self.names()} - known) if is_damaged(self._read_name, name)]
        return names + [digest for digest in sorted(self.digests() - known) if is_damaged(self.read, digest)]

    def remove(self, reference: str) -> CatalogRef:
        """Remove a catalog by name or digest prefix: the name, and the catalog when no other name means it.

        Raises :class:`Conflict` for another user's.
        """
        found = name, digest = self.resolve(reference)
        names = self.names_of(digest)
        path = self.name_path(name) if name in names else self.path(digest)
        try:
            if names in ([], [name]):
                self.forget(digest)
            else:
                unlink(path)
        except HoloError as error:
            if isinstance(error.__cause__, PermissionError) and is_others(path):
                message = f"the catalog {reference!r} is another user's: {path}"
                raise Conflict(message, "Only they or root can remove it.") from error
            raise
        return found

    def forget(self, *digests: str) -> None:
        """Remove catalogs with all their names and their golden trees, unless those are another user's.

        The names go first, also after a power cut: a name without its catalog means that the catalog was lost. If a
        user has given a name to what another had recorded before, only that name goes.
        """
        names, marks = self.meanings(), defaultdict[str, list[str]](list)
        for mark in names_in(os.path.join(self._library, "used")):
            marks[mark.partition("-")[0]].append(mark)
        for digest in digests:
            for name in names.get(digest, ()):
                unlink(self.name_path(name))
            self._sync("names")
            with leaving_others() if digest in names else nullcontext():
                unlink(self.path(digest))
            self.sync()
            with leaving_others():
                unlink(self.signature_path(digest))
            with leaving_others():
                remove_golden(self._library, digest)
            for mark in marks.get(digest, ()):
                with leaving_others():
                    unlink(os.path.join(self._library, "used", mark))

    def sync(self) -> None:
        """Make it durable that catalogs were removed: before their blobs are, or a power cut could bring them back."""
        self._sync("catalog")

    def _sync(self, folder: str) -> None:
        with os_errors_as(f"cannot remove catalogs in {self._library}"):
            sync_folder(library_folder(self._library, folder))

    def summary(self, name: str) -> CatalogSummary | None:
        """The summary kept with a name, or ``None``."""
        return self._read_name(name) if NAME.fullmatch(name) else None

    def sound_summary(self, name: str) -> CatalogSummary | None:
        """The same, or ``None`` if the file is damaged, or only another user can read it."""
        with suppress(CatalogInvalid, ForeignFile):
            return self.summary(name)
        return None

    def meant_by(self, name: str) -> str | None:
        """The digest that a name means; ``None`` where it means nothing, or nobody can tell."""
        known = self.sound_summary(name)
        return known.digest if known is not None else None

    def digests(self) -> set[str]:
        """The digests of all catalogs."""
        return set(filter(None, map(catalog_digest, names_in(os.path.join(self._library, "catalog")))))

    def path(self, digest: str) -> str:
        """The file that a catalog is in."""
        return os.path.join(self._library, "catalog", digest + ".json")

    def signature_path(self, digest: str) -> str:
        """The file that a catalog's signature is in, if it has one."""
        return os.path.join(self._library, "catalog", digest + ".sig")

    def name_path(self, name: str) -> str:
        """The file that says which catalog a name means."""
        return os.path.join(self._library, "names", name + ".json")

    def names(self) -> Iterator[str]:
        """The names of catalogs, in no order."""
        return filter(None, map(catalog_name, names_in(os.path.join(self._library, "names"))))

    def names_of(self, digest: str) -> list[str]:
        """The names that mean a catalog, and damaged ones that still tell its digest."""
        return self.meanings().get(digest, [])

    def moved_on(self, space: CatalogRef) -> str | None:
        """The other catalog that the name of a space's catalog means by now; ``None`` if there is no other."""
        with suppress(HoloError):  # the name cannot be read just now
            now = self.meant_by(space.name)
            return now if now != space.digest else None
        return None

    def meanings(self) -> dict[str, list[str]]:
        """The names in order, by the digests of the catalogs that they mean."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.names()):
            for digest in self._meant(name):
                found.setdefault(digest, []).append(name)
        return found

    def _meant(self, name: str) -> Iterable[str]:
        """The digest that a name means; each that a damaged one may mean."""
        try:
            known = self._read_name(name)
        except CatalogInvalid:  # as `holo check` will say; the others are not to suffer from it
            with suppress(OSError):
                left, _ = read_file(self.name_path(name), SMALL)
                return {found.decode() for found in re.findall(rb"(?=([0-9a-f]{64}))", left)}
            return ()
        except ForeignFile:
            return ()
        return (known.digest,) if known is not None else ()

    def _read_name(self, name: str) -> CatalogSummary | None:
        path = self.name_path(name)
        try:
            return _decode(read_file(path, SMALL)[0], name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _cannot_read("", path, error) from error
        except ValueError:
            raise CatalogInvalid(
                f"{path} is damaged",
                "`holo check --repair` writes it anew, or moves it away; the catalog can still be used by its digest.",
            ) from None


def read_catalog_file(path: str, *, follow: bool = False) -> tuple[bytes, bool]:
    """The bytes of a catalog file, and whether only this user and root can have written them.

    ``follow``: it may be a symlink. Raises :class:`NotFound` or :class:`HoloError` naming the path.
    """
    try:
        data, status = read_file(path, LARGEST, follow=follow)
    except FileNotFoundError:
        raise NotFound(f"there is no catalog at {path}") from None
    except OSError as error:
        raise _cannot_read("the catalog ", path, error) from error
    return data, only_we_wrote(status)


def _cannot_read(what: str, path: str, error: OSError) -> HoloError:
    kind = HoloError if error.errno in NOT_DAMAGE else CatalogInvalid
    if isinstance(error, PermissionError) and is_others(path):
        kind = ForeignFile
    return kind(f"cannot read {what}{path}: {error.strerror}")


@contextmanager
def leaving_others() -> Iterator[None]:
    """Skip what belongs to another user in a shared library: it is garbage until they collect it."""
    try:
        yield
    except HoloError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise


def _holds(path: str, data: bytes) -> bool:
    """Whether a file has this content; of a large one, not all of it is in memory at once."""
    try:
        descriptor = open_file(path)
    except OSError:
        return False
    try:
        return os.fstat(descriptor).st_size == len(data) and digests.of_file(descriptor) == digests.of(data)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def summarize(catalog: Catalog, name: str | None, recorded: float | None = None) -> CatalogSummary:
    return CatalogSummary(
        name=name,
        digest=catalog.digest,
        files=catalog.totals.files,
        directories=catalog.totals.directories,
        symlinks=catalog.totals.symlinks,
        bytes=catalog.totals.bytes,
        prefix=catalog.prefix,
        recorded=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(recorded)),
    )


def _encode(summary: CatalogSummary) -> bytes:
    return seal(json.dumps(summary._asdict()).encode())


def _decode(data: bytes, name: str) -> CatalogSummary:
    """The summary in the file of a name. Raises :class:`ValueError` if that is damaged, or about another name."""
    try:
        values: dict[str, Any] = json.loads(unseal(data))
        summary = CatalogSummary(**values)
    except (TypeError, RecursionError) as error:
        raise ValueError("it is not the summary of a catalog") from error
    numbers = (summary.files, summary.directories, summary.symlinks, summary.bytes)
    if (
        summary.name != name
        or not type(summary.digest) is type(summary.prefix) is type(summary.recorded) is str
        or "\0" in summary.prefix
        or not digests.is_digest(summary.digest)
        or not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
    ):
        raise ValueError("it is about another name, or holds impossible values")
    return summary


def _write_durably(path: str, data: bytes) -> None:
    """Write a file that is either wholly there, also after a power cut, or not at all."""
    try:
        # Other users of the library can read it, and only its owner can change it, whatever the umask.
        write_atomically(path, data, durable=True, exact_mode=0o644)
    except OSError as error:
        others = error.errno == errno.EPERM  # in the sticky folder of a shared library
        raise HoloError(
            f"cannot write {path}: {error.strerror}",
            "There is one of another user's already: choose another name." if others else None,
        ) from error
