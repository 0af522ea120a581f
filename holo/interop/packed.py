"""Read archives of conda-pack and venv-pack: a tree with a prefix in it, as tar, also compressed by gzip or zstd.

conda-pack leaves the work to a script in the archive, `bin/conda-unpack`, which is to be run where the environment is
unpacked: it lists the files that contain one of several old paths. holo reads that list, never runs the script, and
does the same for a path as long as a space's. From there the environment goes wherever holo restores it.

The archive is read twice: to check all that it says is in it, then to unpack that.
"""

from __future__ import annotations

import ast
import gzip
import io
import mmap
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, NamedTuple, TypeAlias

from holo.errors import IntegrityError, UsageError, os_errors_as
from holo.interop.tree import MOST_ENTRIES, Content, Environment, File, ForeignTree, is_normal, shown
from holo.interop.unpack import refuse_too_large
from holo.record import default_name
from holo.relocation import MACH_O, Edit

_BLOCK = 512
_CHUNK = 1 << 20
"""Bytes read at a time, and the most that a header may have."""

_GET_AGAIN = "Get it again."
_LONGEST_TAIL = 16 << 20
"""Bytes behind the end of a tar archive, which is padded."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_LARGEST_WINDOW = 1 << 27

_UNPACK = "bin/conda-unpack"
_SPACE_LIKE = ".environment-of-archive"
"""The name of a folder that never exists, beside the spaces and as long as theirs: where an environment is recorded."""

_SHEBANG = re.compile(rb"#!(/[^\s]+)/bin/python[0-9.]*[ \t]*\n")
_ACTIVATION = re.compile(rb"""^(?:export )?VIRTUAL_ENV=(['"]?)(/[^'"\n]+)\1$""", re.MULTILINE)
_COMMAND = re.compile(rb"^command = (?>.*? -m venv )(?:.* )?(/.+)$", re.MULTILINE)
_STRING = r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")"""
_RECORD = re.compile(rf"\({_STRING}, {_STRING}, {_STRING}\),?")
_MOST_READ = 64 << 20
"""Bytes of those files that tell the prefix."""

_BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError, RecursionError)
"""What reading a damaged archive raises; also :class:`zstandard.ZstdError`."""


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so (with 512 bytes) may be such an archive."""
    return head.startswith((_GZIP, _ZSTD)) or head[257:262] == b"ustar"


def environment(file: IO[bytes], path: str, place: str, free: int) -> Environment:
    """The environment in an archive.

    ``place`` is the folder of the spaces, and ``free`` the bytes that there is room for. Raises :class:`UsageError` if
    there is none in it, :class:`IntegrityError`, and :class:`HoloError`.
    """
    listing = list_members(file, path, free)
    root = listing.root()
    tree = ForeignTree(path)
    members, stale = _last(listing.members)
    for member in members:
        _add(tree, member, root)
    tree.settle()
    records = records_in(listing.texts.get(root + _UNPACK), path)
    prefix = os.path.join(place, _SPACE_LIKE)
    prefix = shortest(records, prefix) if records else prefix_in(listing.texts, root) or prefix
    return Environment(
        name=default_name(re.sub(r"\.(tgz|tzst|tar|tar\.gz|tar\.zst)\Z", "", os.path.basename(path))),
        prefix=prefix,
        tree=tree,
        contents=partial(_contents, file, tree, root, stale),
        finish=partial(_replace, records, os.fsencode(prefix)),
        warnings=(),
    )


# -- reading tar ------------------------------------------------------------------------------------------------------


class Member(NamedTuple):
    """An entry of an archive."""

    path: str
    kind: str
    """file, folder, symlink, or hardlink"""
    size: int
    mode: int
    mtime: int
    """ns"""
    target: str


class Listing(NamedTuple):
    """What an archive says is in it."""

    origin: str
    members: list[Member]
    texts: dict[str, bytes]
    """what tells the prefix: some small files, and the beginnings of the programs"""

    def root(self) -> str:
        """The folder of the environment, with a slash behind it; nothing if it is the archive itself."""
        found = set()
        for member in self.members:
            if os.path.basename(member.path) == "pyvenv.cfg":
                found.add(member.path.removesuffix("pyvenv.cfg"))
            above, conda, _ = f"/{member.path}/".partition("/conda-meta/")
            if conda:
                found.add(f"{above}/".lstrip("/"))
        root = min(found, key=len, default=None)
        if root is None:
            raise UsageError(
                f"{self.origin} is an archive, but not of an environment: it has neither conda-meta nor pyvenv.cfg",
                "Unpack it, and record the directory: `holo record DIR`.",
            )
        for member in self.members:
            if not member.path.startswith(root) and not (member.kind == "folder" and _is_above(member.path, root)):
                raise UsageError(
                    f"{self.origin} has more in it than an environment: {shown(member.path)}",
                    "Unpack it, and record the directory: `holo record DIR`.",
                )
        return root


def list_members(file: IO[bytes], origin: str, free: int) -> Listing:
    """List an archive. Raises :class:`IntegrityError`, and :class:`HoloError` if more than ``free`` bytes are in it."""
    listing = Listing(origin, [], {})
    size = 0
    left = _MOST_READ
    for member, content in _members(file, origin):
        listing.members.append(member)
        size += member.size
        refuse_too_large(origin, size, free)
        if len(listing.members) > MOST_ENTRIES:
            raise IntegrityError(f"{origin} has more than {MOST_ENTRIES:,} entries", _GET_AGAIN)
        wanted = _wanted(member)
        if wanted:
            text = b"".join(chunks_up_to(content, wanted))
            left -= len(text)
            if left < 0:
                raise IntegrityError(f"{origin} has more than {_MOST_READ:,} bytes of scripts", _GET_AGAIN)
            listing.texts[member.path] = text
    return listing


def _wanted(member: Member) -> int:
    """How many bytes of a file tell something of the prefix."""
    folder, name = os.path.split(member.path)
    is_program = folder == "bin" or folder.endswith("/bin")
    if member.kind != "file":
        return 0
    if name == "pyvenv.cfg" or (is_program and name in ("conda-unpack", "activate")):
        return member.size
    return min(member.size, _BLOCK) if is_program else 0


def chunks_up_to(content: Iterator[bytes], count: int) -> Iterator[bytes]:
    while count > 0 and (chunk := next(content, b"")):
        yield chunk[:count]
        count -= len(chunk)


def _is_above(path: str, root: str) -> bool:
    return not path or root.startswith(path + "/")


def _last(members: list[Member]) -> tuple[list[Member], Counter[str]]:
    """The members without files that a later file replaces, and how many those are of each path.

    venv-pack writes `pyvenv.cfg` twice. Anything else that stands there twice is refused.
    """
    count = Counter(member.path for member in members if member.kind == "file")
    seen: Counter[str] = Counter()
    found = []
    for member in members:
        if member.kind == "file":
            seen[member.path] += 1
        if member.kind != "file" or seen[member.path] == count[member.path]:
            found.append(member)
    return found, count - Counter(count.keys())


def _add(tree: ForeignTree, member: Member, root: str) -> None:
    if not member.path.startswith(root):
        if member.path + "/" == root:
            tree.add_folder("", member.mode, member.mtime)
        return  # a folder above it
    path = member.path[len(root) :]
    if member.kind == "folder":
        tree.add_folder(path, member.mode, member.mtime)
    elif member.kind == "file":
        tree.add_file(path, File(member.size, member.mode, member.mtime, ""))
    elif member.kind == "symlink":
        tree.add_symlink(path, member.target, member.mtime)
    else:
        tree.add_hardlink(path, member.target.removeprefix(root) if member.target.startswith(root) else "..")


def _contents(file: IO[bytes], tree: ForeignTree, root: str, stale: Counter[str]) -> Iterator[Content]:
    file.seek(0)
    left = dict(tree.files)
    skipped: Counter[str] = Counter()
    for member, content in _members(file, tree.origin):
        if member.kind != "file":
            continue
        skipped[member.path] += 1
        if skipped[member.path] > stale[member.path]:
            path = member.path[len(root) :]
            known = left.pop(path, None)
            if known is None or known.size != member.size:
                raise IntegrityError(f"{tree.origin} changed while it was read", "Run it again.")
            yield path, content


def _members(file: IO[bytes], origin: str) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """The entries of an archive, each with its content, which is read now or never."""
    with _damage_told(origin):
        source = _Forward(_decompressed(file), origin)
        with tarfile.open(fileobj=source, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            while (found := tar.next()) is not None:
                tar.members.clear()  # or it would keep them all
                yield _member(found), source.content(found.offset_data, found.size)
        if source.last != bytes(_BLOCK):  # tarfile takes anything else for the end as well
            raise EOFError("it ends early, or an entry is broken")
        for _ in chunks_up_to(source.content(source.tell(), _LONGEST_TAIL), _LONGEST_TAIL):
            pass  # so that checksums at the end are looked at
        if source.read(1):
            raise ValueError("something follows the end of the archive")


def _member(found: tarfile.TarInfo) -> Member:
    if found.isreg() and found.sparse is None:
        kind = "file"
    else:
        kind = "folder" if found.isdir() else "symlink" if found.issym() else "hardlink" if found.islnk() else ""
    if not kind:
        raise ValueError(f"{shown(found.name)} is neither a file nor a directory nor a link")
    target = found.linkname if kind == "symlink" else _place(found.linkname) if kind == "hardlink" else ""
    size = found.size if kind == "file" else 0
    if size < 0:
        raise ValueError(f"{shown(found.name)} has a negative size")
    return Member(_place(found.name), kind, size, found.mode & 0o7777, round(found.mtime * 10**9), target)


def _place(name: str) -> str:
    """A path in an archive; it may begin with ``./`` and end with a slash."""
    if name.startswith("/"):
        raise ValueError(f"{shown(name)} is an absolute path")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    head = file.read(4)
    file.seek(0)
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if head == _ZSTD:
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(
            file, read_across_frames=True, closefd=False
        )
        return io.BufferedReader(reader, _CHUNK)
    return file


class _Forward:
    """A file that is only read forwards, as far as :mod:`tarfile` needs one, and never much at once."""

    def __init__(self, file: IO[bytes], origin: str) -> None:
        self._file = file
        self._origin = origin
        self._position = 0
        self.last = b""
        """what was read last"""

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _CHUNK:
            raise ValueError(f"a header says that it has {count:,} bytes")
        self.last = self._file.read(count)
        self._position += len(self.last)
        return self.last

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ValueError("an entry lies before the one before it")
        while self._position < position and self.read(min(_CHUNK, position - self._position)):
            pass

    def content(self, position: int, size: int) -> Iterator[bytes]:
        with _damage_told(self._origin):  # which is not in the block that made this any more
            self.seek(position)
            end = position + size
            while self._position < end and (chunk := self.read(min(_CHUNK, end - self._position))):
                yield chunk


@contextmanager
def _damage_told(origin: str) -> Iterator[None]:
    import zstandard

    with os_errors_as(f"cannot read {origin}"):
        try:
            yield
        except (*_BROKEN, zstandard.ZstdError) as error:  # gzip's is an OSError
            raise IntegrityError(f"{origin} is damaged, or is not an archive: {error}", _GET_AGAIN) from error


# -- the prefix -------------------------------------------------------------------------------------------------------

Records: TypeAlias = dict[str, list[tuple[bytes, str]]]
"""For a path, the old prefixes in that file, each with "text" or "binary"."""


def records_in(script: bytes | None, origin: str) -> Records:
    """What `conda-unpack` would replace. The script is read, not run. Raises :class:`IntegrityError`."""
    if script is None:
        return {}
    damaged = IntegrityError(f"{origin} has a bin/conda-unpack that is not as conda-pack writes it", _GET_AGAIN)
    _, begun, rest = f"\n{script.decode('utf-8', 'replace')}".partition("\n_prefix_records = [")
    lines, ended, _ = rest.partition("\n]")
    if not (begun and ended):
        raise damaged
    records: Records = {}
    for line in lines.splitlines():
        match = _RECORD.fullmatch(line)
        if match is None:
            if line:
                raise damaged
            continue
        try:
            path, old, mode = (ast.literal_eval(text) for text in match.groups())
            if not is_normal(old) or mode not in ("text", "binary"):
                raise damaged
            records.setdefault(path, []).append((os.fsencode(old), mode))
        except (ValueError, SyntaxError) as error:
            raise damaged from error
    return records


def shortest(records: Records, prefix: str) -> str:
    """The prefix to record with: that given, unless an old one in a binary file has no room for it."""
    short = min((old for found in records.values() for old, mode in found if mode == "binary"), key=len, default=b"")
    return os.fsdecode(short) if short and len(short) < len(os.fsencode(prefix)) else prefix


def prefix_in(texts: dict[str, bytes], root: str) -> str | None:
    """The path that the files of an environment name, if they do; venv-pack leaves it in few places."""
    found = [match[2] for match in _ACTIVATION.finditer(texts.get(f"{root}bin/activate", b""))]
    found += [match[1] for match in _COMMAND.finditer(texts.get(f"{root}pyvenv.cfg", b""))]
    programs = [_SHEBANG.match(text) for path, text in texts.items() if os.path.dirname(path) == f"{root}bin"]
    found += [path for path, _ in Counter(match[1] for match in programs if match is not None).most_common()]
    paths = [os.fsdecode(path) for path in found]
    return next((path for path in paths if is_normal(path) and path not in ("/usr", "/usr/local")), None)


def _replace(records: Records, new: bytes, path: str, descriptor: int) -> None:
    """Do to a file what `conda-unpack` would do to it."""
    for old, mode in records.get(path, ()):
        if old != new and os.fstat(descriptor).st_size:
            with mmap.mmap(descriptor, 0) as content:
                if mode == "binary":
                    _replace_in_binary(content, old, new)
                    continue
                text = content[:].replace(old, new) if content.find(old) >= 0 else None
            if text is not None:
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                left = memoryview(text)
                while left:
                    left = left[os.write(descriptor, left) :]


def _replace_in_binary(content: mmap.mmap, old: bytes, new: bytes) -> None:
    edits: Iterable[Edit] = edits_in_binary(content, old, new)
    if content[:4] in MACH_O:
        from holo.relocation.machsign import with_hashes

        edits = with_hashes([*edits], lambda start, length: content[start : start + length])
    for start, end, string in edits:
        content[start:end] = string


def edits_in_binary(content: mmap.mmap | bytearray, old: bytes, new: bytes) -> Iterator[Edit]:
    """Replace a path in the C strings that contain it; each is filled up with NULs behind. ``new`` is not longer."""
    at = content.find(old)
    while at >= 0:
        end = content.find(b"\0", at)
        if end < 0:
            return
        if end - at <= _CHUNK:  # or it is no C string
            yield at, end, bytes(content[at:end]).replace(old, new).ljust(end - at, b"\0")
        at = content.find(old, end)
