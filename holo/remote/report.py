"""What the commands of a remote report."""

from __future__ import annotations

from typing import NamedTuple

from holo.hololib import CatalogRef
from holo.remote.traffic import Traffic


class PushReport(NamedTuple):
    """Catalogs that a remote has now, or would have."""

    remote: str
    catalogs: tuple[CatalogRef, ...]
    blobs_sent: int
    blobs_known: int
    """that the remote had already"""
    packs: int
    """new ones"""
    bytes_content: int
    """of the blobs that were sent, before they were compressed"""
    signed: bool
    dry_run: bool
    traffic: Traffic
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The document `holo push --json` prints."""
        return {
            "remote": self.remote,
            "catalogs": [catalog._asdict() for catalog in self.catalogs],
            "blobs": {"sent": self.blobs_sent, "known": self.blobs_known},
            "packs": self.packs,
            "bytes": {"content": self.bytes_content, "sent": self.traffic.sent, "received": self.traffic.received},
            "requests": self.traffic.requests,
            "signed": self.signed,
            "dry_run": self.dry_run,
            "seconds": self.seconds,
        }


class PullReport(NamedTuple):
    """A catalog that the library has now, or would have."""

    remote: str
    catalog: CatalogRef
    blobs_new: int
    blobs_known: int
    """that the library had already"""
    bytes_to_fetch: int
    """of packs, as far as that is known before"""
    signed_by: str | None
    """who, if signatures are demanded"""
    warnings: tuple[str, ...]
    dry_run: bool
    traffic: Traffic
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The document `holo pull --json` prints."""
        return {
            "remote": self.remote,
            "catalog": self.catalog._asdict(),
            "blobs": {"new": self.blobs_new, "known": self.blobs_known},
            "bytes": {
                "to_fetch": self.bytes_to_fetch,
                "sent": self.traffic.sent,
                "received": self.traffic.received,
            },
            "requests": self.traffic.requests,
            "signed_by": self.signed_by,
            "warnings": list(self.warnings),
            "dry_run": self.dry_run,
            "seconds": self.seconds,
        }


class RemoteName(NamedTuple):
    """A name in a remote, or the key of a blueprint."""

    kind: str
    """name or key"""
    name: str
    digest: str | None
    """of the catalog that it means; ``None`` if nobody knows"""
    time: str | None
    """when that was said: UTC, ISO 8601, seconds"""
    signed: bool
    problem: str | None
    """why nobody knows what it means: it is ``damaged``, or in a ``newer`` form; ``None`` if it can be read"""


class RemoteStatus(NamedTuple):
    """What is in a remote."""

    remote: str
    names: int
    keys: int
    catalogs: int
    packs: int
    bytes: int
    """of catalogs and packs"""
    garbage: int
    """objects that `holo remote gc` waits to remove"""

    def to_json(self) -> dict[str, object]:
        """The document `holo remote status --json` prints."""
        return self._asdict()


class RemoteProblem(NamedTuple):
    """Something wrong in a remote."""

    key: str
    """of the object"""
    what: str


class RemoteCheck(NamedTuple):
    """What a look through a remote has found."""

    remote: str
    names: int
    catalogs: int
    packs: int
    read: bool
    """whether the packs were read, not only counted"""
    problems: tuple[RemoteProblem, ...]
    removed: tuple[str, ...]
    """keys of objects that a repair has removed"""
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The document `holo remote check --json` prints."""
        return {**self._asdict(), "problems": [problem._asdict() for problem in self.problems]}


class RemoteGc(NamedTuple):
    """What a collection of a remote has removed, or would."""

    remote: str
    removed: int
    """objects"""
    removed_bytes: int
    waiting: int
    """objects that nothing needs, and that stay until they have been so for the grace period"""
    waiting_bytes: int
    dry_run: bool
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The document `holo remote gc --json` prints."""
        return self._asdict()
