"""Archives in exactly the form in which conda-pack 0.9 and venv-pack 0.2 write them, and others that nobody should."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import zstandard

from support.trees import SOME_TIME

CONDA_PLACEHOLDER = "/opt/" + "placeholder_" * 20
"""As long as conda-build's."""

_SCRIPT = """\
#!/usr/bin/env python
# Import progress bar to display unpack progress
from conda_unpack_progress import progressbar

def replace_prefix(data, mode, placeholder, new_prefix):
    ...

_prefix_records = [
{records}
]

if __name__ == '__main__':
    ...
"""


class Entry(NamedTuple):
    path: str
    content: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    size: int | None = None
    """that the header says, if it is another than that of the content"""
    mtime: float = SOME_TIME // 10**9


def conda_unpack(records: Iterable[tuple[str, str, str]]) -> Entry:
    text = _SCRIPT.format(records=",\n".join(map(repr, records)))
    return Entry("bin/conda-unpack", text.encode(), 0o755)


def tar(entries: Iterable[Entry]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.mode, info.type, info.linkname, info.mtime = entry.mode, entry.kind, entry.target, entry.mtime
            info.size = len(entry.content) if entry.size is None else entry.size
            # Not addfile, which has not let a header say another size than the content has since Python 3.13.
            stream.write(info.tobuf(archive.format, archive.encoding or "utf-8", archive.errors or "strict"))
            stream.write(entry.content + bytes(-len(entry.content) % 512))
            archive.offset = stream.tell()
    return stream.getvalue()


COMPRESSIONS = {
    ".tar": bytes,
    ".tar.gz": lambda data: gzip.compress(data, 4),
    ".tar.zst": lambda data: zstandard.ZstdCompressor(level=9).compress(data),
}


def conda(prefix: str, *, binary: bool = True, short: str = "") -> list[Entry]:
    """An environment that stood at ``prefix``: with files of a package, and files of its own.

    ``short``: another old path, in a binary file.
    """
    old, own = os.fsencode(CONDA_PLACEHOLDER), os.fsencode(prefix)
    entries = [
        Entry("bin/hello", b"#!/bin/sh\necho hello from " + old + b"/share\n", 0o755),
        Entry("bin/script", b"#!" + own + b"/bin/hello\n# " + own + b"\n", 0o755),
        Entry("conda-meta/history"),
        Entry("conda-meta/hello-1.0-0.json", b'{"name": "hello", "link": {"source": ""}}\n'),
        Entry("empty", mode=0o755, kind=tarfile.DIRTYPE),
        Entry("lib/link", mode=0o777, kind=tarfile.SYMTYPE, target="libhello.so"),
        Entry("share/plain", b"plain\n"),
        Entry("share/plain2", kind=tarfile.LNKTYPE, target="share/plain"),
        Entry("share/large", bytes(range(256)) * 9000),
    ]
    records = [
        ("bin/hello", CONDA_PLACEHOLDER, "text"),
        ("bin/script", prefix, "text"),
        ("share/plain", prefix, "text"),
    ]
    if binary:
        strings = b"\x7fELF\0" + old + b"/a:" + old + b"/b\0" + old + b"\0end"
        entries.append(Entry("lib/libhello.so", strings, 0o755))
        records.append(("lib/libhello.so", CONDA_PLACEHOLDER, "binary"))
    if short:
        entries.append(Entry("lib/short.so", b"\x7fELF\0" + os.fsencode(short) + b"/it\0end"))
        records.append(("lib/short.so", short, "binary"))
    return [*entries, Entry("bin/activate", b"# of conda-pack\n"), conda_unpack(records)]


def venv(prefix: str) -> list[Entry]:
    """An environment that stood at ``prefix``. venv-pack writes pyvenv.cfg twice, and leaves the path in it."""
    configuration = f"home = /usr/bin\nversion = 3.11.7\ncommand = /usr/bin/python3.11 -m venv {prefix}\n".encode()
    return [
        Entry("pyvenv.cfg", configuration),
        Entry("bin/python", mode=0o777, kind=tarfile.SYMTYPE, target="/usr/bin/env"),
        Entry("bin/tool", b"#!/usr/bin/env python3\n", 0o755),
        Entry("bin/activate", b'VIRTUAL_ENV="$(cd "$(dirname "$0")/.." && pwd)"\n'),
        Entry("lib/python3.11/site-packages/it.py", b"it = 1\n"),
        Entry("lib64", mode=0o777, kind=tarfile.SYMTYPE, target="lib"),
        Entry("pyvenv.cfg", configuration),
    ]


def write(path: Path, entries: Iterable[Entry]) -> Path:
    """An archive, compressed as its name says."""
    suffix = path.name[path.name.index(".tar") :]
    path.write_bytes(COMPRESSIONS[suffix](tar(entries)))
    return path


def unpack(entries: Iterable[Entry], place: Path, prefix: str) -> Path:
    """What is in an archive, unpacked and patched by hand, as `conda-unpack` would do it for ``prefix``."""
    new = os.fsencode(prefix)
    for entry in entries:
        path = place / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        time = int(entry.mtime * 10**9)
        if entry.kind == tarfile.DIRTYPE:
            path.mkdir(entry.mode)
        elif entry.kind == tarfile.SYMTYPE:
            path.symlink_to(entry.target)
        elif entry.kind == tarfile.LNKTYPE:
            os.link(place / entry.target, path)
        else:
            path.write_bytes(entry.content.replace(os.fsencode(CONDA_PLACEHOLDER), new))
            path.chmod(entry.mode)
        os.utime(path, ns=(time, time), follow_symlinks=False)
    return place
