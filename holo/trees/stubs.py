"""Trees of stubs: what throw-away environments are mounted over where files cannot share blocks with blobs.

    stubs/<digest>-<key>/
        tree       the catalog in directories; files that can be are stubs (see holo.checkout.stubs)
        blobs      names of the blobs that overlayfs shows for them
        outline    for spaces: mounts the tree as one needs no more of the catalog

They are used where that works and files cannot share blocks with blobs: where they can, a plain tree costs no data
either, and is made as fast.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from holo import platform
from holo.remove import remove_at
from holo.trees.overlay import BLOBS, OVERLAY, TREE

if sys.platform == "linux":
    from holo.platform import namespaces

if TYPE_CHECKING:
    from holo.hololib import Library

OTHERS_SHARE = "others share the library"
_ONLY_LINUX = "only Linux can do that"
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_CONTENT, _ADDED = b"of the blob", b" and more"


def parts_of(path: str) -> tuple[str, str]:
    """The tree, and the folder of its blobs."""
    return os.path.join(path, TREE), os.path.join(path, BLOBS)


def outline_path(path: str) -> str:
    """The outline of the catalog."""
    return os.path.join(path, "outline")


def attributes() -> str:
    """The class of the attributes that make a file a stub."""
    if sys.platform == "linux":
        return namespaces.overlay_attributes()
    return ""


def why_none(library: Library, folder: str) -> str | None:
    """Try, in a directory, whether trees of stubs over a library's blobs are possible; ``None``, or why not."""
    from holo.platform import probe

    if library.blobs.is_sticky:
        return OTHERS_SHARE  # and every blob with two names would have to be hashed
    if library.may_be_torn:
        return "after a power cut, its blobs have to be hashed"
    if library.blobs.any_raw() is None:
        return "all blobs are compressed"
    with platform.closing(platform.open_root(folder)) as target:
        if library.blobs.why_no_reflink(target) is None:
            return "files share blocks with blobs"
        why = probe.hardlink(library.blobs.directory, target)
    return f"blobs cannot be hardlinked ({why})" if why else why_not_mounted(os.path.join(folder, "stubs"))


def why_not_for_all(folder: str) -> str | None:
    """Try, in a directory that is made for it, whether an overlay can be mounted for all; ``None``, or why not."""
    if sys.platform == "linux":
        lower, upper, work, target = (os.path.join(folder, name) for name in ("lower", "upper", "work", "on"))
        try:
            for path in (folder, lower, upper, work, target):
                os.mkdir(path)
            namespaces.mount_overlay(OVERLAY, target, (lower,), upper, work)
            namespaces.unmount(target)
        except OSError as error:
            if error.errno == errno.EPERM and not namespaces.may_mount():
                return "only a user with CAP_SYS_ADMIN, such as root, may mount for everybody"
            return namespaces.reason(error, folder)
        finally:
            remove_at(folder)
        return None
    return _ONLY_LINUX


def why_not_mounted(folder: str) -> str | None:
    """Try, in a directory that is made for it, whether stubs can be mounted; ``None``, or why not.

    One is mounted in a child, read, and written to, which must not change what it leads to. Raises :class:`OSError`
    where that is no answer: a disk that is full or fails, or too many open files, is no reason to copy.
    """
    if sys.platform == "linux":
        try:
            for name in ("", "lower", "data", "upper", "work", "on"):
                os.mkdir(os.path.join(folder, name))
            code = _try_in(folder)
        except OSError as error:
            if error.errno not in platform.UNAVAILABLE | {errno.EPERM}:
                raise
            code = error.errno or errno.EIO
        finally:
            remove_at(folder)
        if code in _PASSING:
            raise OSError(code, os.strerror(code), folder)
        return namespaces.reason(OSError(code, os.strerror(code)), os.path.dirname(folder)) if code else None
    return _ONLY_LINUX


if sys.platform == "linux":

    def _try_in(folder: str) -> int:
        """The number of the error, or 0."""
        from holo.checkout.stubs import mark

        lower, data, upper, work, target = (
            os.path.join(folder, name) for name in ("lower", "data", "upper", "work", "on")
        )
        blob, kind = os.path.join(data, "blob"), attributes()
        with open(blob, "xb") as file:
            file.write(_CONTENT)
        with open(os.path.join(lower, "file"), "xb") as file:
            file.truncate(len(_CONTENT))
            mark(file.fileno(), f"{kind}.overlay.metacopy", f"{kind}.overlay.redirect", "blob")

        def mount() -> None:
            namespaces.mount_overlay(OVERLAY, target, (lower,), upper, work, data, kind)
            shown = os.path.join(target, "file")
            if _read(shown) != _CONTENT or _append(shown) != _CONTENT + _ADDED:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        return namespaces.error_in_own_view(mount) or (0 if _read(blob) == _CONTENT else errno.EIO)

    def _read(path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def _append(path: str) -> bytes:
        with open(path, "ab") as file:
            file.write(_ADDED)
        return _read(path)
