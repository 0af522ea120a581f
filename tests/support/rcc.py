"""Libraries of RCC, in exactly the form in which RCC v18 writes them (htfs/directory.go, functions.go, library.go)."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo.interop.siphash import SipHash128
from support.trees import write

MOTHER_TIME = 1_610_000_000 * 10**9
"""The mtime of all that RCC restores."""

LARGE = 5000 * 256
"""Bytes: more than are read at a time."""

_IGNORED = {"__MACOSX", "__pycache__", ".pyc", ".git", ".hg", ".svn", ".gitignore"}
_GO_DIRECTORY = 1 << 31
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))

Digest = Callable[[bytes], str]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def siphash(content: bytes) -> str:
    digest = SipHash128(b"Very_Random-Seed")
    digest.update(content)
    return digest.hexdigest()


@dataclass
class RccLibrary:
    """Catalogs by their file names, and contents as they are stored, by their digests."""

    digest: Digest = sha256
    is_compressed: bool = True
    catalogs: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def record(self, tree: Path, key: str = "0a3a322f1587a8e1") -> dict[str, Any]:
        """As `rcc holotree` records a tree. Returns the catalog."""
        document = {
            "rcc": "v18.18.1",
            "identity": tree.name,
            "path": str(tree),
            "controller": "",
            "space": "",
            "platform": "linux_amd64",
            "blueprint": key,
            "lifted": True,
            "tree": self._folder(tree, "", tree.name, "", is_shadow=False),
        }
        self.catalogs[f"{key}v12.linux_amd64"] = document
        return document

    def _folder(self, path: Path, name: str, identity: str, symlink: str, *, is_shadow: bool) -> dict[str, Any]:
        folder: dict[str, Any] = {"name": name}
        if symlink:
            folder["symlink"] = symlink
        folder |= {"mode": _go_mode(path.stat().st_mode), "subdirs": {}, "files": {}}
        if is_shadow:
            folder["shadow"] = True
        for entry in sorted(path.iterdir()):
            if entry.name in _IGNORED or entry.suffix in _IGNORED:
                continue
            target = os.readlink(entry) if entry.is_symlink() else ""
            if entry.is_dir():
                below = is_shadow or bool(symlink)
                folder["subdirs"][entry.name] = self._folder(entry, entry.name, identity, target, is_shadow=below)
                continue
            content = entry.read_bytes()
            file = {"name": entry.name} | ({"symlink": target} if target else {})
            file |= {"size": len(content), "mode": _go_mode(entry.stat().st_mode), "digest": self.digest(content)}
            file["rewrite"] = _offsets(identity.encode(), content)
            folder["files"][entry.name] = file
            if not target:
                self.store(content)
        return folder

    def store(self, content: bytes) -> str:
        digest = self.digest(content)
        self.blobs[digest] = gzip.compress(content, 1) if self.is_compressed else content
        return digest

    def entries(self) -> list[tuple[str, bytes]]:
        """The names and contents of all files, as they are in a ZIP or a folder."""
        blobs = [(f"library/{d[:2]}/{d[2:4]}/{d[4:6]}/{d}", content) for d, content in self.blobs.items()]
        catalogs = {name: json.dumps(document, indent=2).encode() for name, document in self.catalogs.items()}
        return [*blobs, *((f"catalog/{name}", gzip.compress(data, 1)) for name, data in catalogs.items())]

    def zip(self, path: Path) -> Path:
        """As `rcc holotree export` writes it."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.entries():
                archive.writestr(name, content)
        return path

    def folder(self, path: Path) -> Path:
        """The folder `hololib`, with what else RCC keeps there."""
        for name, content in self.entries():
            write(path / name, content)
            if name.startswith("catalog/"):
                write(path / f"{name}.info", b"{}")
        write(path / "used" / "0a3a322f1587a8e1.h720c7a8", b"")
        return path

    def copy(self) -> RccLibrary:
        return copy.deepcopy(self)


def _go_mode(mode: int) -> int:
    special = sum(go for bit, go in _GO_BITS if mode & bit)
    return mode & 0o777 | special | (_GO_DIRECTORY if stat.S_ISDIR(mode) else 0)


def _offsets(needle: bytes, content: bytes) -> list[int]:
    found, at = [], content.find(needle)
    while at >= 0:
        found.append(at)
        at = content.find(needle, at + 1)
    return found


def environment(root: Path, *, binary: bool = True, size: int = LARGE) -> Path:
    """An environment at ``root`` with all that RCC can record, as it looks when RCC has restored it.

    ``binary``: one file cannot get a longer path. ``size``: of the largest.
    """
    write(root / "bin" / "hello", f"#!/bin/sh\necho hello from {root}/share # {root}/etc/more\n", mode=0o755)
    write(root / "bin" / "tool", f"#!{root}/bin/hello\n", mode=0o755)
    write(root / "etc" / "more", f"HERE={root}\nNAME={root.name}\n", mode=0o600)
    if binary:
        write(root / "lib" / "it.so", b"\x7fELF\0" + os.fsencode(root) + b"/share\0end\0", mode=0o755)
    write(root / "lib" / "python" / "module.py", "print()\n", mode=0o444)
    write(root / "lib" / "python" / "same.py", "print()\n")
    write(root / "share" / "empty")
    write(root / "share" / "large", (bytes(range(256)) * (size // 256)))
    write(root / "share" / "compressed.gz", gzip.compress(b"nothing to see", mtime=0))
    write(root / "share" / "Zoë's file", "names\n")
    (root / "lib64").symlink_to("lib")
    (root / "share" / "to-file").symlink_to("large")
    (root / "share" / "absolute").symlink_to(root / "etc" / "more")
    (root / "share" / "outside").symlink_to("/dev/null")
    (root / "hollow").mkdir()
    (root / "closed").mkdir(mode=0o700)
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*folders, *files, ""):
            os.utime(os.path.join(folder, name), ns=(MOTHER_TIME, MOTHER_TIME), follow_symlinks=False)
    return root
