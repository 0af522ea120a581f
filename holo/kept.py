"""What a list of thousands of spaces has read, kept for the next one: `.spaces/.listed`.

To read 5,000 records takes longer than all the rest of a list. A record is read again if its file is another one, or
that which says from which blueprint the space was made. Both are replaced in one step, never changed. If the file was
copied, or somebody else could have written it, or a single byte of it is another one, it counts as not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from typing import NamedTuple

from holo import platform
from holo.files import open_file, read, seal, unseal, write_atomically
from holo.holotree import ORIGIN, Holotree
from holo.owners import only_we_wrote
from holo.space import Space, space_of

_FORM = 1
_LARGEST = 256 << 20

Files = tuple[int, ...]
"""Inode and ctime (ns) of the record, and of the file about the blueprint, if there is one."""


class Kept(NamedTuple):
    """What is known of a space, and which files said so."""

    files: Files
    space: Space
    blueprint: str | None


def files_of(tree: Holotree, name: str, beside: Set[str]) -> Files:
    """The files about a space as they are now; empty if the record is not there. ``beside``: the names of all."""
    found: list[int] = []
    for kind in (".json", ORIGIN):
        if name + kind in beside:
            with suppress(OSError):
                status = os.lstat(f"{tree.records}{os.sep}{name}{kind}")
                found += (status.st_ino, status.st_ctime_ns)
    return tuple(found)


def recall(tree: Holotree) -> dict[str, Kept]:
    """What :func:`keep` has kept, by the names of the spaces."""
    with suppress(OSError, ValueError, TypeError):
        with platform.closing(open_file(_path(tree))) as descriptor:
            if not only_we_wrote(os.fstat(descriptor)):
                return {}
            header, *rows = json.loads(unseal(read(descriptor, _LARGEST)))
            if header != _header(tree, platform.identity(descriptor)):
                return {}
        return {row[2][0]: Kept(tuple(row[0]), space_of(row[2]), row[1]) for row in rows}
    return {}


def keep(tree: Holotree, known: Iterable[Kept]) -> None:
    """Let the next list know all this. If that fails, it reads the records again."""

    def content(descriptor: int) -> bytes:
        rows = [[item.files, item.blueprint, item.space] for item in known]
        return seal(json.dumps([_header(tree, platform.identity(descriptor)), *rows]).encode())

    with suppress(OSError):
        write_atomically(_path(tree), content, mode=0o600)


def _header(tree: Holotree, identity: str) -> Mapping[str, object]:
    # Of a file that cannot be told from its copy, nothing is believed: no header is equal to that.
    return {"form": _FORM, "fields": [*Space._fields], "home": tree.home, "file": identity or os.urandom(8).hex()}


def _path(tree: Holotree) -> str:
    return os.path.join(tree.records, ".listed")
