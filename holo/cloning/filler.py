"""Clone a tree file by file: each worker lists a directory and makes its entries at once.

The loop makes as few system calls as it can: per file an open and a create, fstat before and after, one listing of
extended attributes, the reflink and the times. Files are created with their modes. Owners, extended attributes and
other modes are set only where they differ. A directory gets its attributes when all its entries have been made:
entries made in the directories below do not change it any more.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterable

from holo import platform
from holo.cloning.report import NOTHING_MADE, Made, Name
from holo.errors import HoloError, SourceChanged, UsageError
from holo.platform import Directory
from holo.walk import Walker
from holo.workers import pool
from holo.workers.treewalk import visit_all

_SETID = 0o6000
_SPECIAL = 0o7000
"""Bits of a mode that open(2) drops on some filesystems (FUSE), and that a write takes away: they are set last."""

_ATTEMPTS = 5

_LARGE = 1 << 16
"""Size from which on a file with several names is copied last, once. Before all its names are known, two workers may
both copy it."""

_THIS_FILE = frozenset({errno.EINVAL, errno.ETXTBSY})
"""Errors of a reflink that concern one file alone: nodatacow on Btrfs, a swap file."""

_DEFAULT_ACL = "system.posix_acl_default"

_LET_IT_END = f"{NOTHING_MADE} Stop what changes it, and clone again."


class Filler:
    """Fills a new directory with clones of all entries of another. Made before the workers are forked, used in them."""

    def __init__(self, source: Directory, target: Directory, shown: tuple[str, str], since: int) -> None:
        """``shown``: both paths, for messages. Files that changed from ``since`` on (ns) are reported as fresh."""
        self._source, self._target = source, target
        self._shown_source, self._shown_target = shown
        self._since = since
        self._sources, self._targets, self._leaders = Walker(source), Walker(target), Walker(target)
        mine = platform.status(target, "")
        self._draft = (mine.st_dev, mine.st_ino)
        self._inexact = _SPECIAL | platform.umask()
        self._cannot_clone: set[int] = set()
        self._made = Made()
        self._known: dict[tuple[int, int], str] = {}
        self._leave_large = True
        self._at = ""
        self.seen = 0

    def fill(self, workers: int) -> Made:
        """Clone everything. Raises :class:`HoloError` naming the path, and then leaves the part that was made."""
        made = Made()
        try:
            for part in visit_all(self, workers):
                made.add(part)
            self._known.clear()
            self._leave_large = False
            touched = self._copy_the_rest(made, workers)
            touched |= self._link(made)
            self._finish_last({*made.unfinished, *touched})
        finally:  # removing the draft takes descriptors, too
            made.add(self.result())
        return made

    # -- one directory ------------------------------------------------------------------------------------------

    def in_worker(self) -> None:
        """Called in a forked worker, which can clear its umask, so that open(2) sets modes exactly."""
        os.umask(0)
        self._inexact = _SPECIAL

    def result(self) -> Made:
        for walker in (self._sources, self._targets, self._leaders):
            walker.close()
        made, self._made = self._made, Made()
        return made

    def visit(self, path: str) -> list[str]:
        """Make the entries of the directory ``path``, which exists already. The directories in it are made empty."""
        base = path + "/" if path else ""
        self._at = ""
        try:
            below = self._fill(self._sources.open(path), self._targets.open(path), path, base)
        except OSError as error:
            raise self._explain(error, base + self._at) from error
        return [base + name for name in below]

    def _fill(self, source: Directory, target: Directory, path: str, base: str) -> list[str]:
        status, own = platform.status(source, ""), platform.status(target, "")
        if (status.st_dev, status.st_ino) == self._draft:
            raise UsageError(
                f"{self._shown_target} lies inside {self._shown_source}, through a mount", "Clone to another place."
            )
        owner = (own.st_uid, own.st_gid)  # entries created in it get the same
        below = []
        with platform.listing(source) as entries:
            for entry in entries:
                name = self._at = entry.name
                self.seen += 1
                if entry.is_file(follow_symlinks=False):
                    self._file(source, target, base, name, owner)
                elif entry.is_dir(follow_symlinks=False):
                    platform.make_directory(target, name, 0o700)
                    below.append(name)
                else:
                    self._other(source, target, base, name)
        self._at = ""
        self._made.directories += len(below)
        self._finish(source, target, path, status, own)
        return below

    def _finish(
        self, source: Directory, target: Directory, path: str, status: os.stat_result, own: os.stat_result | None = None
    ) -> None:
        """Give a directory the attributes of its source. ``own``: its status, unless no entry will be made in it."""
        names = platform.xattrs_of(source)
        mode = stat.S_IMODE(status.st_mode)
        # The root keeps others out until the end. Entries made later would inherit a default ACL.
        if own is not None and (not path or mode & 0o700 != 0o700 or _DEFAULT_ACL in names):
            self._made.unfinished.append(path)
            return
        now = own or platform.status(target, "")
        if (status.st_uid, status.st_gid) != (now.st_uid, now.st_gid):
            mode = self._set_owner(target, status, mode)
        self._set_xattrs(source, target, names)
        platform.set_directory(target, mode, None)
        platform.set_times(target, status)

    def _set_owner(self, target: int | Directory, status: os.stat_result, mode: int) -> int:
        """Returns the mode to set: without setuid and setgid if the owner cannot be kept."""
        if platform.set_owner(target, status):
            return mode
        self._made.lost_owners += 1
        return mode & ~_SETID

    def _set_xattrs(self, source: int | Directory, target: int | Directory, names: list[str]) -> None:
        if names and not platform.copy_xattrs(source, target, names):
            self._made.lost_attributes += 1

    # -- one entry ----------------------------------------------------------------------------------------------

    def _file(self, source: Directory, target: Directory, base: str, name: str, owner: tuple[int, int]) -> None:
        for attempt in range(_ATTEMPTS):
            old = platform.open_unread(source, name)
            try:
                status = os.fstat(old)
                if not stat.S_ISREG(status.st_mode):
                    break
                if status.st_nlink > 1 and self._link_or_leave(status, target, base, name):
                    return
                shared = self._make(old, status, target, name, owner)
                now = os.fstat(old)
            finally:
                os.close(old)
            if (now.st_ctime_ns, now.st_size) == (status.st_ctime_ns, status.st_size):
                self._count(status, base + name, shared)
                return
            platform.remove_file(target, name)
            time.sleep(0.02 * 2**attempt)
        raise SourceChanged(f"{self._shown(base + name)} keeps changing while it is cloned", _LET_IT_END)

    def _make(
        self, old: int, status: os.stat_result, target: Directory, name: str, owner: tuple[int, int]
    ) -> bool | None:
        """Make one file. Returns whether it shares its content; ``None`` if it is empty."""
        mode = stat.S_IMODE(status.st_mode)
        names = platform.xattrs_of(old)
        moved = (status.st_uid, status.st_gid) != owner
        special = moved or names or mode & self._inexact
        new = platform.create_file(target, name, 0o600 if special else mode)
        try:
            shared = self._content(old, new, status) if status.st_size else None
            if special:  # in this order: a new owner drops capabilities, and any change drops setuid
                if moved:
                    mode = self._set_owner(new, status, mode)
                self._set_xattrs(old, new, names)
                platform.set_file(new, status.st_mtime_ns, mode)
            platform.set_times(new, status)
        finally:
            os.close(new)
        return shared

    def _content(self, old: int, new: int, status: os.stat_result) -> bool:
        if status.st_dev not in self._cannot_clone:
            try:
                platform.clone_content(old, new)
            except OSError as error:
                if error.errno not in platform.UNAVAILABLE:
                    raise
                if (why := error.strerror or "") not in self._made.reasons:
                    self._made.reasons.append(why)
                if error.errno not in _THIS_FILE:
                    self._cannot_clone.add(status.st_dev)
            else:
                return True
        platform.copy_content(old, new, status)
        return False

    def _count(self, status: os.stat_result, path: str, shared: bool | None) -> None:
        made, size = self._made, status.st_size
        if shared:
            made.reflinked += 1
            made.shared_bytes += size
        elif shared is None:
            made.empty += 1
        else:
            made.copied += 1
            made.written_bytes += size
        if status.st_ctime_ns >= self._since:
            made.fresh.append(path)
        if status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            self._known[inode] = path
            made.names.append(Name(inode, path, size, made=True, shared=shared))

    def _link_or_leave(self, status: os.stat_result, target: Directory, base: str, name: str) -> bool:
        """Make another name of a file that this worker has made, or leave a large file for the end; else ``False``."""
        inode = (status.st_dev, status.st_ino)
        leader = self._known.get(inode)
        if leader is not None:
            if not self._link_to(leader, target, name):
                return False  # the following names will be links to a second file
            self._made.names.append(Name(inode, base + name, status.st_size, made=False, leader=leader))
            self._made.hardlinked += 1
            self._made.shared_bytes += status.st_size
            return True
        if status.st_size < _LARGE or status.st_dev not in self._cannot_clone or not self._leave_large:
            return False
        self._made.names.append(Name(inode, base + name, status.st_size, made=False))
        return True

    def _other(self, source: Directory, target: Directory, base: str, name: str) -> None:
        status = platform.status(source, name)
        if stat.S_ISLNK(status.st_mode):
            platform.make_symlink(platform.read_link(source, name), target, name, status.st_mtime_ns)
            self._made.symlinks += 1
            if status.st_ctime_ns >= self._since:
                self._made.fresh.append(base + name)
        elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            raise SourceChanged(f"{self._shown(base + name)} has changed its type while it was cloned", _LET_IT_END)
        else:
            try:
                platform.make_special(target, name, status)
            except PermissionError as error:
                shown = self._shown(base + name)
                raise HoloError(
                    f"cannot clone {shown}, which is no file: {error.strerror}", f"{NOTHING_MADE} Devices take root."
                ) from error
        owner, attributes = platform.finish_link(source, name, target, name, status)
        self._made.lost_owners += not owner
        self._made.lost_attributes += not attributes

    # -- after the walk -----------------------------------------------------------------------------------------

    def _copy_the_rest(self, made: Made, workers: int) -> set[str]:
        """Copy the files that were left, each once. Returns the directories of the new entries."""
        leaders = {name.inode for name in made.names if name.made}
        left: dict[tuple[int, int], Name] = {}
        for name in made.names:
            if name.inode not in leaders:
                left.setdefault(name.inode, name)
        paths = sorted((name.path for name in left.values()), key=lambda path: path.rpartition("/"))
        pieces = [paths[start : start + 8] for start in range(0, len(paths), 8)]
        for part in pool.run(self._copy_left, pieces, workers, self.in_worker):
            made.add(part)
        return {path.rpartition("/")[0] for path in paths}

    def _copy_left(self, paths: list[str]) -> Made:
        for path in paths:
            folder, _, name = path.rpartition("/")
            try:
                source, target = self._sources.open(folder), self._targets.open(folder)
                # The owner that the file will have is not known here, so it is always set.
                self._file(source, target, folder + "/" if folder else "", name, (-1, -1))
            except OSError as error:
                raise self._explain(error, path) from error
        return self.result()

    def _link(self, made: Made) -> set[str]:
        """Link the names that are one file in the source. Returns the directories of the new entries."""
        leaders: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        touched = set()
        for name in sorted(made.names, key=lambda name: not name.made):
            files = leaders[name.inode]
            if not files:
                files.append(name.path)
            if name.path in files or name.leader in files:
                continue
            folder, _, last = name.path.rpartition("/")
            try:
                target = self._targets.open(folder)
                if self._relink(files[-1], target, last, name):
                    self._uncount(made, name)
                    made.hardlinked += 1
                    made.shared_bytes += name.size
                else:  # that file cannot have more names, so there is a second one
                    files += filter(None, (name.leader, name.path))
                    made.divided.append(name.path)
                    if not name.is_there:
                        made.add(self._copy_left([name.path]))
            except OSError as error:
                raise self._explain(error, name.path) from error
            touched.add(folder)
        return touched

    def _relink(self, leader: str, target: Directory, last: str, name: Name) -> bool:
        """Make the name a hardlink of the file at ``leader``; ``False`` if that cannot have more names."""
        if not name.is_there:
            return self._link_to(leader, target, last)
        draft = f".holo-link-{os.urandom(4).hex()}"
        if not self._link_to(leader, target, draft):
            return False
        platform.rename(target, draft, target, last)
        return True

    def _link_to(self, leader: str, target: Directory, name: str) -> bool:
        """Make ``name`` a hardlink of the file at ``leader``; ``False`` if that cannot have more names."""
        folder, _, leader_name = leader.rpartition("/")
        try:
            platform.link(self._leaders.open(folder), leader_name, target, name)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            return False
        return True

    @staticmethod
    def _uncount(made: Made, name: Name) -> None:
        if name.leader:
            made.hardlinked -= 1
            made.shared_bytes -= name.size
        elif name.shared:
            made.reflinked -= 1
            made.shared_bytes -= name.size
        elif name.made and name.shared is None:
            made.empty -= 1
        elif name.made:
            made.copied -= 1
            made.written_bytes -= name.size

    def _finish_last(self, paths: Iterable[str]) -> None:
        """Finish directories, children before parents: the owner may not be able to enter a finished one."""
        for path in sorted(paths, reverse=True):
            try:
                source, target = self._sources.open(path), self._targets.open(path)
                self._finish(source, target, path, platform.status(source, ""))
            except OSError as error:
                raise self._explain(error, path) from error

    # -- messages -----------------------------------------------------------------------------------------------

    def _shown(self, path: str) -> str:
        return os.path.join(self._shown_source, path) if path else self._shown_source

    def _explain(self, error: OSError, path: str) -> HoloError:
        message = f"cannot clone {self._shown(path)}: {error.strerror}"
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return SourceChanged(message, f"It was removed while it was cloned. {_LET_IT_END}")
        return HoloError(message, left=NOTHING_MADE)
