"""What users do with a remote: push to it, pull from it, look after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from holo.errors import HoloError, NotFound, os_errors_as
from holo.urls import of_one

if TYPE_CHECKING:
    from typing import TypeAlias

    from holo.hololib import CatalogRef
    from holo.home import Home
    from holo.remote.pull import Found
    from holo.remote.remote import Kind
    from holo.remote.report import PullReport, PushReport, RemoteCheck, RemoteGc, RemoteName, RemoteStatus
    from holo.signatures import Trust

    OnProgress: TypeAlias = Callable[[int, int], object]


class RemoteLibrary:
    """A remote, and the library and the settings of a home. Made by :meth:`holo.Hololib.remote`.

    Every failure is a :class:`~holo.errors.HoloError`. What was interrupted goes on where it was, when it is called
    again.
    """

    def __init__(self, home: Home, url: str, trust: Trust) -> None:
        from holo.remote.remote import Remote
        from holo.remote.stores import connect

        self._home = home
        self._trust = trust
        self._remote = Remote(connect(url, is_verified=trust.signers is not None))

    @property
    def name(self) -> str:
        """Its URL, without credentials."""
        return self._remote.name

    def requests(self) -> int:
        """How many requests were made so far."""
        return self._remote.meter.total().requests

    def push(
        self,
        references: Sequence[str],
        *,
        sign: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
    ) -> PushReport:
        """Send catalogs (names or digest prefixes), with what the remote lacks of their content.

        Their names mean them in the remote from then on, and so do the keys of the blueprints that they were built
        from. ``sign``: the file of an SSH key, which signs the catalogs and what their names mean; the private key, or
        the public one of a key that ssh-agent has. ``dry_run`` sends nothing, and reports what would be sent.
        """
        from holo.remote.push import Named, push
        from holo.remote.store import read_only

        if not self._remote.store.is_writable:  # also of a dry run, and before it is asked for anything
            raise read_only(self._remote.store)
        key = os.fspath(sign) if sign is not None else None
        library = self._home.library
        for reference in references:  # what does not exist is told before a lock is made
            library.catalogs.resolve(reference)
        with self._home.using_library(), os_errors_as(f"cannot push from {library.path}", name_file=True):
            refs = dict.fromkeys(library.catalogs.resolve(reference) for reference in references)
            return push(
                library,
                self._remote,
                [Named(ref, _pointers_to(ref)) for ref in refs],
                key=key,
                dry_run=dry_run,
                workers=self._home.workers,
                on_progress=on_progress,
            )

    def pull(
        self,
        reference: str,
        name: str | None = None,
        *,
        keep_setid: bool = False,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
    ) -> PullReport:
        """Take a catalog (a name in the remote, or a whole digest) into the library, as ``name``, or as it is called.

        Only content that the library lacks is fetched. With ``remote.allowed-signers`` in the settings it is refused,
        before anything enters the library, unless one of them has signed it and what its name means. ``keep_setid``
        accepts setuid and setgid bits and capabilities.
        """
        from holo.hololib.layout import check_name
        from holo.remote.pull import find

        if name is not None:
            check_name(name, "catalog")
        found = find(self._remote, reference, self._trust)
        return self._pull(found, name, keep_setid=keep_setid, dry_run=dry_run, on_progress=on_progress)

    def names(self) -> list[RemoteName]:
        """The names and the keys in the remote, and the catalogs that they mean."""
        from holo.remote import survey

        return survey.names(self._remote)

    def status(self) -> RemoteStatus:
        """How much is in the remote."""
        from holo.remote import survey

        return survey.status(self._remote)

    def check(self, *, read: bool = False, repair: bool = False, on_progress: OnProgress | None = None) -> RemoteCheck:
        """Whether all that names and catalogs need is there; ``read``: fetch and hash all of it as well.

        ``repair``: remove what is wrong, and catalogs that need such, so that pushing them again sends what is lost.
        """
        from holo.remote import survey

        self._remote.on_progress = on_progress
        return survey.check(self._remote, self._home.library, read=read, repair=repair)

    def gc(
        self, *, grace: float | str | None = None, dry_run: bool = False, on_progress: OnProgress | None = None
    ) -> RemoteGc:
        """Remove what no name and no key of the remote has needed for ``grace`` (seconds, or ``12h``; default: a week).

        That begins with the first collection that finds it unneeded; so the first one removes nothing. It has to be
        longer than any push takes.
        """
        from holo.remote.garbage import collect
        from holo.settings import parse_duration

        seconds = parse_duration(grace, "the grace period") if isinstance(grace, str) else grace
        self._remote.on_progress = on_progress
        return collect(self._remote, seconds, dry_run=dry_run)

    def obtain_name(self, reference: str) -> CatalogRef | None:
        """Pull a catalog that the library lacks, if the remote knows the name or has the digest."""
        from holo.remote.pull import find

        try:
            found = find(self._remote, reference, self._trust)
        except NotFound:
            return None
        self._home.on_wait(f"pulling {reference} from {self.name}")
        try:
            return self._pull(found, None).catalog
        except NotFound:
            if found.name is not None:  # else nobody has said that it is there
                raise
            return None

    def obtain_key(self, key: str, name: str) -> CatalogRef | None:
        """Pull what was built for the key of a blueprint, if the remote knows it, as ``name``."""
        from holo.remote.pull import look_up

        found = look_up(self._remote, "key", key, self._trust)
        if found is None:
            return None
        self._home.on_wait(f"pulling {name} from {self.name}")
        return self._pull(found, name).catalog

    def _pull(
        self,
        found: Found,
        name: str | None,
        *,
        keep_setid: bool = False,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
    ) -> PullReport:
        from holo.remote.pull import pull

        place = self._home.library.path
        with self._home.using_library(), os_errors_as(f"cannot pull into {place}", name_file=True):
            return pull(
                self._home.library,
                self._remote,
                found,
                self._trust,
                name=name,
                keep_setid=keep_setid,
                dry_run=dry_run,
                workers=self._home.workers,
                on_progress=on_progress,
            )


class RemoteExchange:
    """The :class:`~holo.home.Exchange` of a home whose settings name a remote.

    A remote that fails is no reason to fail: what cannot be had from it is built.
    """

    def __init__(self, home: Home, url: str, trust: Trust, *, is_pushing: bool) -> None:
        self._home = home
        self._url = url
        self._trust = trust
        self._is_pushing = is_pushing

    def obtain(self, key: str, name: str) -> CatalogRef | None:
        try:
            return RemoteLibrary(self._home, self._url, self._trust).obtain_key(key, name)
        except HoloError as error:
            self._home.on_wait(f"warning: {error.message}. It is built instead.")
            return None

    def offer(self, catalog: CatalogRef) -> None:
        if not self._is_pushing:
            return
        try:
            self._home.on_wait(f"pushing {catalog.name} to {of_one(self._url)}")
            RemoteLibrary(self._home, self._url, self._trust).push([catalog.name])
        except HoloError as error:
            self._home.on_wait(f"warning: {catalog.name} was not pushed: {error.message}")


def _pointers_to(ref: CatalogRef) -> list[tuple[Kind, str]]:
    """What is to mean a catalog in a remote: its name, and the key in the name of one that was built."""
    from holo.blueprints.stage import key_in

    if ref.given_name is None:
        return []
    key = key_in(ref.given_name)
    by_name: tuple[Kind, str] = ("name", ref.given_name)
    return [by_name, ("key", key)] if key is not None else [by_name]
