"""Take environments from the files of other tools into the library. Each format is a module here.

    recognise   what a file is, by its content
    list        what it says is in it, checked before the first write: `holo.interop.tree`
    unpack      it into a private folder, checked by what the other tool recorded: `holo.interop.unpack`
    record      that folder, as if it stood where the other tool had it

Importing is recording: holo reads every content, finds the prefix again, and believes no offset.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from holo.errors import HoloError, NotFound, UsageError
from holo.files import open_file
from holo.hololib import CatalogRef
from holo.hololib.layout import check_name
from holo.record import record, without_setid
from holo.transport.bundle import MANIFEST
from holo.transport.intake import ImportReport

if TYPE_CHECKING:
    from holo.home import Home
    from holo.interop.tree import Environment
    from holo.record import OnProgress

_ZIP = b"PK\3\4"
_END_OF_ZIP = b"PK\5\6"
_LONGEST_END = 22 + 0xFFFF
"""Bytes of a ZIP's last record with a comment."""

_KNOWN = (
    "holo imports bundles that `holo export` wrote, hololib.zip files of RCC, and .tar.gz, .tar.zst and .tar archives "
    "of conda-pack and venv-pack."
)


def takes(path: str) -> bool:
    """Whether a file is for :func:`import_file`: one of another tool, or nothing that is known.

    What may be a bundle of holo's own is not, also a damaged one.
    """
    from holo.interop.packed import is_archive

    with suppress(OSError), os.fdopen(open_file(path, follow=True), "rb") as file:
        head = file.read(512)
        if head.startswith(_ZIP):
            return head[30:].startswith((b"library/", b"catalog/")) or _is_other_zip(file)
        file.seek(-min(_LONGEST_END, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return is_archive(head) or _END_OF_ZIP not in file.read()
    return False


def _is_other_zip(file: IO[bytes]) -> bool:
    """Whether it is a whole ZIP that has no manifest of holo's, so that it is no damaged bundle either."""
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            return MANIFEST not in archive.namelist()
    except zipfile.BadZipFile:
        return False


def import_file(
    home: Home, path: str, name: str | None, *, keep_setid: bool, on_progress: OnProgress | None
) -> ImportReport:
    """Import all environments in a file of another tool. ``name`` is for the only one.

    Raises :class:`UsageError` for a file of no kind that is known, :class:`~holo.errors.IntegrityError` for one that is
    damaged or hostile, :class:`NotFound` and :class:`HoloError`. Nothing is imported then.
    """
    try:
        file = os.fdopen(open_file(path, follow=True), "rb")
    except OSError as error:
        kind = NotFound if error.errno == errno.ENOENT else HoloError
        raise kind(f"cannot import {path}: {error.strerror}") from error
    with file:
        if name is not None:
            check_name(name, "catalog")
        head = file.read(512)
        file.seek(0)
        return _import(home, path, _environments(home, file, head, path), name, keep_setid, on_progress)


def import_rcc(
    home: Home, folder: str, name: str | None, *, keep_setid: bool, on_progress: OnProgress | None
) -> ImportReport:
    """Import all environments from the folder of a library of RCC, which stays as it is. Raises as above."""
    from holo.interop import rcc

    return _import(home, folder, rcc.environments(rcc.Folder(folder)), name, keep_setid, on_progress)


def _environments(home: Home, file: IO[bytes], head: bytes, path: str) -> list[Environment]:
    if head.startswith(_ZIP):
        from holo.interop import rcc

        return rcc.environments(rcc.Zip(file, path))
    from holo.interop import packed

    if packed.is_archive(head):
        from holo.interop.unpack import room

        return [packed.environment(file, path, home.spaces.path, room(home))]
    raise UsageError(f"{path} is nothing that holo can import", _KNOWN)


def _import(
    home: Home,
    origin: str,
    environments: Sequence[Environment],
    name: str | None,
    keep_setid: bool,
    on_progress: OnProgress | None,
) -> ImportReport:
    from holo.interop.unpack import unpacked

    started = time.monotonic()
    if name is not None and len(environments) > 1:
        raise UsageError(
            f"there are {len(environments)} catalogs to import, which cannot all be called {name}",
            "Leave out --name: each has a name of its own.",
        )
    names = [check_name(name or environment.name, "catalog") for environment in environments]
    warnings: list[str] = []
    with unpacked(home, environments, keep_setid=keep_setid) as roots, home.using_library():
        reports = [
            record(
                home.library,
                environment.prefix,
                called,
                root=root,
                keep_setid=keep_setid,
                project="",
                workers=home.workers,
                on_progress=on_progress,
            )
            for environment, called, root in zip(environments, names, roots, strict=True)
        ]
    for environment, report in zip(environments, reports, strict=True):
        dropped = [path for path, file in environment.tree.files.items() if file.mode & 0o6000 and not keep_setid]
        found = [*environment.warnings, *without_setid(dropped), *report.warnings]
        warnings += found if len(reports) == 1 else [f"{report.name}: {warning}" for warning in found]
    return ImportReport(
        origin,
        tuple(CatalogRef(report.name, report.digest) for report in reports),
        sum(report.blobs_new for report in reports),
        sum(report.blobs_deduplicated for report in reports),
        tuple(warnings),
        round(time.monotonic() - started, 3),
    )
