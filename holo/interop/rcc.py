"""Read what RCC has recorded: a hololib.zip, as `rcc holotree export` writes it, or the folder of its library.

    catalog/<key>v12.<platform>     JSON, compressed by gzip: the tree, with modes, sizes and digests
    library/aa/bb/cc/<digest>       one content, compressed by gzip and named by its SHA-256, or as it is and named by
                                    its SipHash-128

RCC replaces only the last component of a path, in place, so its offsets are of no use here. The recording of the tree
finds the whole path again.

RCC follows symlinks. A symlink to a directory has the directory's entries below it once more, which are passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, Protocol

from holo.catalog import MAX_DEPTH, unique
from holo.errors import IntegrityError, NotFound, UsageError, os_errors_as
from holo.files import names_in, open_file
from holo.interop.siphash import SipHash128
from holo.interop.tree import Content, Environment, File, ForeignTree, is_normal, shown
from holo.walk import refuse_no_path

_CATALOG = re.compile(r"[0-9a-f]+v([0-9]+)\.([a-z0-9]+_[a-z0-9]+)")
_VERSION = "12"
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}")

_KEY = b"Very_Random-Seed"
"""Of its SipHash: common/algorithms.go."""

_TIME = 1_610_000_000 * 10**9
"""The mtime that RCC gives to all that it restores: htfs/library.go."""

_CHUNK = 1 << 20
_LARGEST_CATALOG = 512 << 20

# The bits of Go's io/fs.FileMode that are not those of POSIX.
_GO_KINDS = 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19  # symlink, device, pipe, socket, ...
_GO_FOLDER = 1 << 31
_GO_SPECIAL = ((1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000))

_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError)
"""What reading a damaged ZIP raises."""


class Store(Protocol):
    """Where catalogs and contents come from."""

    path: str

    def catalogs(self) -> list[str]:
        """The file names of all that could be catalogs."""

    def size(self, name: str) -> int | None:
        """Bytes of a file as it is stored; ``None`` if there is none."""

    def open(self, name: str) -> IO[bytes]:
        """A file as it is stored."""


class Zip:
    """A hololib.zip."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        """Raises :class:`UsageError` for another kind of ZIP, and :class:`IntegrityError` for a damaged one."""
        self.path = path
        try:
            self._zip = zipfile.ZipFile(file)
        except _BROKEN as error:
            raise IntegrityError(f"{path} is damaged: {error}", "Get it again.") from error
        self._entries: dict[str, zipfile.ZipInfo] = {entry.filename: entry for entry in self._zip.infolist()}
        if not self.catalogs():
            raise UsageError(
                f"{path} is a ZIP archive, but neither a bundle nor a hololib.zip of RCC",
                "Of conda-pack and venv-pack holo imports .tar.gz, .tar.zst and .tar archives.",
            )
        names = set[str]()
        for entry in self._zip.infolist():
            name = entry.filename
            if name in names or name.startswith("/") or ".." in re.split(r"[/\\]", name):
                raise IntegrityError(
                    f"{path} has an entry {shown(name)} that RCC would not write",
                    "It is damaged, or was made to do harm. Get it again.",
                )
            names.add(name)

    def catalogs(self) -> list[str]:
        return [name[8:] for name in self._entries if re.fullmatch(rf"catalog/{_CATALOG.pattern}", name)]

    def size(self, name: str) -> int | None:
        entry = self._entries.get(name)
        return entry.file_size if entry is not None else None

    def open(self, name: str) -> IO[bytes]:
        entry = self._entries[name]
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NotImplementedError(f"the entry {shown(name)} is compressed in an unusual way")
        return self._zip.open(entry)


class Folder:
    """The folder `hololib` of RCC's home."""

    def __init__(self, path: str) -> None:
        refuse_no_path(path)
        self.path = path
        if not all(os.path.isdir(os.path.join(path, name)) for name in ("catalog", "library")):
            raise NotFound(
                f"{path} is no library of RCC: it does not contain catalog and library",
                "Name the folder `hololib` in RCC's home (ROBOCORP_HOME).",
            )

    def catalogs(self) -> list[str]:
        with os_errors_as(f"cannot read {self.path}"):
            return [name for name in names_in(os.path.join(self.path, "catalog")) if _CATALOG.fullmatch(name)]

    def size(self, name: str) -> int | None:
        try:
            return os.stat(os.path.join(self.path, name)).st_size
        except FileNotFoundError:
            return None

    def open(self, name: str) -> IO[bytes]:
        return os.fdopen(open_file(os.path.join(self.path, name)), "rb")


def environments(store: Store) -> list[Environment]:
    """The environment of each catalog. Their contents are not read yet, but all are there."""
    found = store.catalogs()
    current = sorted(name for name in found if _version(name) == _VERSION)
    if not current:
        there = f"only catalogs of version {', '.join(sorted({*map(_version, found)}))}" if found else "no catalog"
        raise UsageError(
            f"{store.path} has {there}, and holo reads version {_VERSION} of RCC",
            "Record the environment again with a newer RCC, then export it.",
        )
    with _damage_told(store.path):
        return [_environment(store, name) for name in current]


def _version(name: str) -> str:
    match = _CATALOG.fullmatch(name)
    return match[1] if match is not None else ""


@contextmanager
def _damage_told(path: str) -> Iterator[None]:
    """Turn what reading a damaged file raises into :class:`HoloError`, also in a generator."""
    try:
        with os_errors_as(f"cannot read {path}"):
            yield
    except _BROKEN as error:
        raise IntegrityError(f"{path} is damaged: {error}", "Get it again.") from error


def _environment(store: Store, name: str) -> Environment:
    origin = f"{store.path}: catalog {name}"
    document = parse(_whole(store, f"catalog/{name}"), origin)
    tree, prefix = read_tree(document, origin)
    for path, item in tree.files.items():
        stored = store.size(_place(item.content))
        if stored is None:
            raise IntegrityError(
                f"{store.path} lacks the content of {shown(path)} ({item.content})",
                "It may be an export without what its receiver had: export the catalog as a whole.",
            )
        if stored > item.size + (item.size >> 3) + 1024:  # gzip adds some bytes to what it cannot compress
            raise tree.damaged(f"more content of {shown(path)} than its catalog says")
    return Environment(
        name=name[:64],
        prefix=prefix,
        tree=tree,
        contents=partial(_contents, store, tree),
        finish=lambda path, descriptor: None,
        warnings=tuple(_of_other_system(document, name)),
    )


def parse(data: bytes, origin: str) -> dict[str, Any]:
    """The document of a catalog. Raises :class:`IntegrityError`."""
    try:
        document = json.loads(data.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{origin} cannot be read: {error}", "It is damaged: get it again.") from error
    if not isinstance(document, dict):
        raise IntegrityError(f"{origin} is not a JSON object", "It is damaged: get it again.")
    return document


def read_tree(document: dict[str, Any], origin: str) -> tuple[ForeignTree, str]:
    """The tree that a catalog describes, and its path. Raises :class:`IntegrityError`."""
    tree = ForeignTree(origin)
    prefix, root = document.get("path"), document.get("tree")
    if isinstance(prefix, str) and re.match(r"[A-Za-z]:", prefix) and os.name == "posix":
        raise UsageError(f"{origin} is of an environment on Windows", "Import it there.")
    if not isinstance(prefix, str) or not is_normal(prefix):
        raise tree.damaged(f"an impossible path {shown(str(prefix))}")
    _Reader(tree).read("", root, 0)
    tree.settle()
    sizes: dict[str, int] = {}
    for path, file in tree.files.items():
        if sizes.setdefault(file.content, file.size) != file.size:
            raise tree.damaged(f"another size of {shown(path)} than of a file with the same content")
    return tree, prefix


class _Reader:
    def __init__(self, tree: ForeignTree) -> None:
        self._tree = tree

    def read(self, path: str, folder: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._tree.damaged(f"directories more than {MAX_DEPTH} levels deep")
        if _text(folder, "symlink"):
            if not path:
                raise self._tree.damaged("a symlink as its root")
            self._tree.add_symlink(path, folder["symlink"], _TIME)
            return  # what RCC found behind it stands below its target as well, or is not the environment's
        self._tree.add_folder(path, self._mode(folder, path, _GO_KINDS), _TIME)
        for name, file in self._entries(folder, "files", path):
            place = f"{path}/{name}" if path else name
            if _text(file, "symlink"):
                self._tree.add_symlink(place, file["symlink"], _TIME)
                continue
            digest, size = file.get("digest"), file.get("size")
            if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or type(size) is not int:
                raise self._tree.damaged(f"an impossible digest or size of {shown(place)}")
            mode = self._mode(file, place, _GO_KINDS | _GO_FOLDER)
            self._tree.add_file(place, File(size, mode, _TIME, digest))
        for name, child in self._entries(folder, "subdirs", path):
            self.read(f"{path}/{name}" if path else name, child, depth + 1)

    def _entries(self, folder: dict[str, Any], kind: str, path: str) -> list[tuple[str, dict[str, Any]]]:
        table = folder.get(kind)
        if table is None:  # Go's empty map
            return []
        if not isinstance(table, dict):
            raise self._tree.damaged(f"no list of what is in {shown(path)}")
        for name, item in table.items():
            if not isinstance(item, dict) or item.get("name") != name or "/" in name:
                raise self._tree.damaged(f"an impossible entry {shown(name)} in {shown(path)}")
        return [*table.items()]

    def _mode(self, item: Any, path: str, refused: int) -> int:
        mode = item.get("mode") if isinstance(item, dict) else None
        if type(mode) is not int or mode < 0 or mode & refused:
            raise self._tree.damaged(f"an impossible mode of {shown(path)}")
        return mode & 0o777 | sum(bit for go, bit in _GO_SPECIAL if mode & go)


def _text(item: Any, key: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    return value if isinstance(value, str) else ""


def _of_other_system(document: dict[str, Any], name: str) -> Iterator[str]:
    import platform

    theirs = _text(document, "platform").partition("_")[0]
    if theirs and theirs != platform.system().lower():
        yield f"catalog {name} was recorded on another system: {shown(theirs)}"


# -- contents ---------------------------------------------------------------------------------------------------------


def _place(digest: str) -> str:
    return f"library/{digest[:2]}/{digest[2:4]}/{digest[4:6]}/{digest}"


def _contents(store: Store, tree: ForeignTree) -> Iterator[Content]:
    for path, file in tree.files.items():
        yield path, _checked(store, path, file)


def _checked(store: Store, path: str, file: File) -> Iterator[bytes]:
    """A content, as RCC's digest says that it is."""
    place = _place(file.content)
    with _damage_told(store.path):
        is_compressed = _is_compressed(store, place)
        # A file that is compressed itself may be stored as it is.
        if is_compressed and store.size(place) == file.size:
            is_compressed = _digest_of(store, place, file) != file.content
        digest = _hasher(file.content)
        left = file.size
        with store.open(place) as stored:
            for chunk in _unzipped(stored) if is_compressed else _chunks(stored):
                left -= len(chunk)
                if left < 0:
                    break
                digest.update(chunk)
                yield chunk
    if left or digest.hexdigest() != file.content:
        raise IntegrityError(
            f"{store.path}: the content of {shown(path)} is not what RCC recorded ({file.content})",
            "It is damaged: get it again, or record the environment again with RCC.",
        )


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


def _hasher(digest: str) -> _Hasher:
    return hashlib.sha256() if len(digest) == 64 else SipHash128(_KEY)


def _digest_of(store: Store, place: str, file: File) -> str:
    digest = _hasher(file.content)
    with store.open(place) as stored:
        for chunk in _chunks(stored):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(stored: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(stored.read, _CHUNK), b"")


def _unzipped(stored: IO[bytes]) -> Iterator[bytes]:
    """What gzip has compressed, in pieces that are not large, however well it is compressed."""
    inflater = zlib.decompressobj(wbits=31)
    for chunk in _chunks(stored):
        piece = inflater.decompress(chunk, _CHUNK)
        while piece:
            yield piece
            piece = inflater.decompress(inflater.unconsumed_tail, _CHUNK)
        if inflater.eof and (inflater.unused_data or stored.read(1)):
            raise zlib.error("something follows compressed data")
    if not inflater.eof:
        raise EOFError("compressed data ends early")


def _is_compressed(store: Store, name: str) -> bool:
    with store.open(name) as stored:
        return stored.read(2) == b"\x1f\x8b"


def _whole(store: Store, name: str) -> bytes:
    """All of a catalog."""
    unzip = _unzipped if _is_compressed(store, name) else _chunks
    pieces, left = [], _LARGEST_CATALOG
    with store.open(name) as stored:
        for piece in unzip(stored):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise ValueError(f"a catalog is larger than {_LARGEST_CATALOG:,} bytes")
    return b"".join(pieces)
