"""Trees to record: small ones, and one with everything in it that is easy to get wrong."""

from __future__ import annotations

import os
import py_compile
import random
from pathlib import Path

SOME_TIME = 1_600_000_000_123_456_789
SPARSE_SIZE = 4 * 1024 * 1024
LARGE_SIZE = 5 * 1024 * 1024


def write(path: Path, content: bytes | str = b"", *, mode: int = 0o644, mtime: int = SOME_TIME) -> Path:
    """A file with exactly this content, mode and mtime (ns); directories on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    os.utime(path, ns=(mtime, mtime))
    return path


def small(root: Path) -> Path:
    """A few ordinary files, one of which holds the prefix."""
    write(root / "bin" / "hello", f"#!/bin/sh\necho hello from {root}\n", mode=0o755)
    write(root / "lib" / "data.txt", "data\n" * 2000)
    write(root / "lib" / "other.txt", "other\n" * 2000)
    write(root / "lib" / "deep" / "er" / "leaf", b"leaf")
    return settle(root)


def nasty(root: Path, *, xattrs: bool) -> Path:
    """Everything that an environment may contain. Made below `root`, whose path some of it holds."""
    root.mkdir(parents=True)
    _modes(root / "modes")
    _names(root / "names")
    _sizes(root / "sizes")
    _hardlinks(root / "hardlinks")
    _symlinks(root / "symlinks", root)
    _prefixes(root / "prefixes", root)
    _programs(root / "bin", root)
    _bytecode(root / "lib" / "python")
    if xattrs:
        _xattrs(root / "xattrs")
    settle(root)
    # Last, for nothing can be made inside it after that (but by root).
    (root / "modes" / "dir-0555").chmod(0o555)
    os.utime(root / "modes" / "dir-0555", ns=(SOME_TIME, SOME_TIME))
    return root


def settle(root: Path) -> Path:
    """Give each directory an mtime of its own, from the bottom up so that it stays."""
    for number, (folder, _, _) in enumerate(os.walk(os.fsencode(root), topdown=False)):
        time = SOME_TIME + number * 1_000_000_007
        os.utime(folder, ns=(time, time))
    return root


def _modes(root: Path) -> None:
    for mode in (0o755, 0o644, 0o600, 0o400, 0o444, 0o555, 0o711, 0o111, 0o664, 0o777):
        write(root / f"file-{mode:04o}", f"mode {mode:04o}\n" * 400, mode=mode, mtime=SOME_TIME + mode)
    # One content, several modes and times: a store by content must not mix them up.
    for mode in (0o644, 0o755, 0o600):
        write(root / f"same-{mode:04o}", b"the same content\n" * 400, mode=mode, mtime=SOME_TIME - mode)
    for mode in (0o755, 0o700, 0o775):
        folder = root / f"dir-{mode:04o}"
        write(folder / "inside", f"inside {mode:04o}")
        folder.chmod(mode)
    write(root / "dir-0555" / "inside", b"inside a read-only directory")
    (root / "empty").mkdir()
    (root / "empty-nest" / "a" / "b").mkdir(parents=True)
    write(root / "old", b"from 1980", mtime=315_532_800_000_000_001)
    write(root / "before-the-epoch", b"from 1969", mtime=-1_500_000_000)


def _names(root: Path) -> None:
    for number, name in enumerate(
        (
            b"with space",
            b" leading and trailing ",
            b"new\nline",
            b"tab\tand\rreturn",
            "emoji \N{SNAKE}\N{ROCKET}".encode(),
            "e\N{COMBINING ACUTE ACCENT}".encode(),
            "\N{LATIN SMALL LETTER E WITH ACUTE}".encode(),
            b"latin1-\xe9\xff",
            b"back\\slash",
            b"quote'and\"double",
            b"-dash",
            b"~tilde",
            b"$HOME",
            b"*",
            b"...",
            b".hidden",
            b"percent%20",
            b"x" * 255,
        )
    ):
        path = root / os.fsdecode(name)
        write(path, b"named %d\n" % number * 300)
    write(root / os.fsdecode(b"dir \xfe\n") / os.fsdecode(b"\xfd"), b"non-UTF-8 all the way")


def _sizes(root: Path) -> None:
    write(root / "zero")
    write(root / "zero-too", mode=0o600)
    write(root / "one", b"1")
    write(root / "block", b"b" * 4096)
    write(root / "block+1", b"b" * 4097)
    write(root / "large", random.Random(1).randbytes(LARGE_SIZE))
    sparse = root / "sparse"
    with sparse.open("wb") as file:
        file.seek(SPARSE_SIZE // 2)
        file.write(b"an island" * 1000)
        file.truncate(SPARSE_SIZE)
    os.utime(sparse, ns=(SOME_TIME, SOME_TIME))
    with (root / "hole").open("wb") as file:
        file.truncate(SPARSE_SIZE)
    os.utime(root / "hole", ns=(SOME_TIME, SOME_TIME))


def _hardlinks(root: Path) -> None:
    first = write(root / "a" / "first", b"one inode\n" * 1000)
    os.link(first, root / "a" / "second")
    (root / "b" / "only" / "directories").mkdir(parents=True)
    os.link(first, root / "b" / "third")
    os.link(first, root / "b" / "only" / "directories" / "fourth")
    write(root / "b" / "stranger", b"one inode\n" * 1000)  # equal content, but a file of its own
    pair = write(root / "pair-1", f"relocated pair {root.parent}\n" * 300)
    os.link(pair, root / "pair-2")


def _symlinks(root: Path, prefix: Path) -> None:
    (root / "folder").mkdir(parents=True)
    write(root / "folder" / "file", b"target")
    for name, target in {
        "relative": "folder/file",
        "up": "../sizes/one",
        "to-directory": "folder",
        "absolute-outside": "/etc/hostname",
        "absolute-inside": f"{prefix}/symlinks/folder/file",
        "absolute-directory": f"{prefix}/symlinks/folder",
        "to-prefix": f"{prefix}",
        "dangling": "nowhere/at/all",
        "dangling-inside": f"{prefix}/not/there",
        "beside-the-prefix": f"{prefix}-beside/file",
        "to-itself": "to-itself",
        "folder/out": "/tmp",
        os.fsdecode(b"odd\xff"): os.fsdecode(b"targ\xfe\net"),
    }.items():
        os.symlink(target, root / name)


def _prefixes(root: Path, prefix: Path) -> None:
    path = os.fsencode(prefix)
    buffer = 1024 * 1024
    texts = {
        "only": path,
        "start": path + b"/start\n",
        "end": b"at the end: " + path,
        "several": b"one %s/one\ntwo %s/two\nthree %s\n" % (path, path, path),
        "adjacent": path + b":" + path + b":" + path,
        "border": b"=" * (65536 - len(path) // 2) + path + b"/border\n",
        "far": b"=" * (buffer - 7) + path + b"/far\n" + b"=" * (buffer // 2) + path,
        "utf8": "käse \N{SNAKE} ".encode() + path + b"\n",
    }
    for name, content in texts.items():
        write(root / "text" / name, content)
    binaries = {
        "terminated": b"\x7fELF\0\1\2" + path + b"/lib\0\3\4",
        "several": b"\x7fELF\0" + path + b"/a\0" + path + b"/b:" + path + b"/c\0" + b"\xff" * 64,
        "start": path + b"\0\1\2\3",
        "end": b"\0\1" + path,
        "adjacent": b"\x7fELF\0" + path + path + b"\0\7",
        "border": b"\1\0" * ((65536 - len(path)) // 2) + path + b"/border\0" + b"\5" * 70000,
    }
    for name, content in binaries.items():
        write(root / "binary" / name, content)
    write(root / "text" / "none", b"nothing of it: " + path[:-1] + b"\n")


def _programs(root: Path, prefix: Path) -> None:
    root.mkdir()
    os.symlink("/bin/sh", root / "sh")
    write(root / "hello", f"#!{prefix}/bin/sh\necho hello from {prefix}\n", mode=0o755)


def _bytecode(root: Path) -> None:
    module = write(root / "module.py", "def where():\n    return where.__code__.co_filename\n")
    py_compile.compile(str(module), doraise=True)
    for compiled in (root / "__pycache__").iterdir():
        os.utime(compiled, ns=(SOME_TIME, SOME_TIME))


def _xattrs(root: Path) -> None:
    file = write(root / "file", b"with attributes\n" * 400)
    os.setxattr(file, "user.holo.text", b"value")
    os.setxattr(file, "user.holo.bytes", bytes(range(256)))
    os.setxattr(file, "user.holo.empty", b"")
    os.utime(file, ns=(SOME_TIME, SOME_TIME))
    # The same content without them, and with others: they belong to the file, not to the content.
    write(root / "plain", b"with attributes\n" * 400)
    other = write(root / "other", b"with attributes\n" * 400)
    os.setxattr(other, "user.holo.text", b"another value")
    (root / "folder").mkdir()
    os.setxattr(root / "folder", "user.holo.folder", b"on a directory")
