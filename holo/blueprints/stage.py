"""The stage of a build, and the other files that a build has.

    holotree/.build-<id>          the stage, where its tools make the environment
    hololib/builds/<id>.lock      held by the build and its tools
    hololib/builds/<id>.log       what they print
    hololib/builds/<id>.parts     the packages of its catalog
    hololib/builds/<id>.made      what it has made in the project, if only that checkout can use it

The id is a hash of the build's key and the user, so that users do not share these files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from holo import digest as digests
from holo import platform
from holo.errors import os_errors_as
from holo.hololib import Library
from holo.holotree import Holotree
from holo.remove import remove_at

KEY_DIGITS = 16
"""of a key in names: of 2**32 blueprints, two would share them."""

LOCK, LOG, MADE = ".lock", ".log", ".made"

_STAGE = re.compile(rf"\.build-([0-9a-f]{{{KEY_DIGITS}}})")
_CATALOG = re.compile(rf".+-([0-9a-f]{{{KEY_DIGITS}}})")


def id_of(key: str) -> str:
    return digests.of(f"{key} {platform.user_id()}".encode())[:KEY_DIGITS]


def key_in(name: str) -> str | None:
    """The key in the name of a catalog that was built from a blueprint."""
    found = _CATALOG.fullmatch(name)
    return found[1] if found is not None else None


def path_of(library: Library, build: str, kind: str) -> str:
    """The path of one of the files of a build in the library."""
    return os.path.join(library.folder("builds"), build + kind)


def stages_in(tree: Holotree) -> dict[str, str]:
    """The paths of the stages in a holotree, whoever made them, by the ids of their builds."""
    try:
        names = os.listdir(tree.path)
    except FileNotFoundError:
        return {}
    found = {name: stage[1] for name in names if (stage := _STAGE.fullmatch(name)) is not None}
    return {build: os.path.join(tree.path, name) for name, build in found.items()}


@contextmanager
def new_stage(tree: Holotree, build: str) -> Iterator[str]:
    """A new stage, removed in the end. The caller holds the lock of the build.

    Its path is as long as a space's, so that binaries fit and bytecode stays valid. It never is a space's, whose name
    does not begin with a point.
    """
    path = os.path.join(tree.path, f".build-{build}")
    tree.folder()
    remove_at(path)
    with os_errors_as(f"cannot make {path}"):
        # Before the tools: where several users share the holotree, none of them can put a folder of theirs there.
        os.mkdir(path, 0o755)
        with platform.closing(platform.open_root(path)) as directory:
            platform.disinherit(directory, 0o755)
            platform.own_group(directory)
    try:
        yield path
    finally:
        remove_at(path)
