"""A view of the file system that one process and its children have for themselves: namespaces(7), overlayfs. Linux."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from holo.platform import linux, mounts

assert sys.platform == "linux"

# linux/sched.h, linux/mount.h, linux/prctl.h, linux/statfs.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_REC = 1 << 14
_MS_SLAVE = 1 << 19
_MS_NOSYMFOLLOW = 1 << 8
_ST_NOSYMFOLLOW = 1 << 13
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CAP_SYS_ADMIN = 21
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

_OF_A_MOUNT = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME
"""Flags that mount(2) and statvfs(3) have the same bits for."""


def enter_own_view() -> None:
    """From now on what this process mounts is seen by it and its children alone; what others mount, by it as well.

    Who is not root needs a user namespace for that, in which only their own user and group have a name. It cannot be
    left again, so this is for a process that was forked for it. Raises :class:`OSError`: not allowed here.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        if user:
            raise PermissionError
        linux.check(linux.libc().unshare(_CLONE_NEWNS))
    except PermissionError:  # also root's, in a container
        linux.check(linux.libc().unshare(_CLONE_NEWNS | _CLONE_NEWUSER))
        for file, content in (
            ("setgroups", "deny"),  # without which an ordinary user may not name a group
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{file}", "w") as map_file:
                map_file.write(content)
    linux.check(linux.libc().mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))


def error_in_own_view(attempt: Callable[[], object]) -> int:
    """Call ``attempt`` in a child with a view of its own. The number of the :class:`OSError` that this raises, or 0."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            enter_own_view()
            attempt()
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def overlay_attributes() -> str:
    """The class of the attributes that say something to an overlay in the view that this process can have.

    trusted.* attributes are for who has rights in the first user namespace. Without /proc that is not known, and
    user.* are tried.
    """
    with suppress(OSError):
        if os.geteuid() == 0 and _capabilities() >> _CAP_SYS_ADMIN & 1 and _is_first_user_namespace():
            return "trusted"
    return "user"


def mount_overlay(
    source: str,
    target: str,
    lower: Sequence[str],
    upper: str,
    work: str,
    data: str = "",
    attributes: str = "",
    *,
    alone: bool = False,
) -> None:
    """Mount over ``target`` what the ``lower`` directories hold, the first the uppermost; changes go to ``upper``.

    With ``data``, the lower files that lead there, by ``attributes`` of that class, have the content that is there.

    The last component of a path is never a symlink. ``source`` is a name to be shown, ``work`` an empty directory
    beside ``upper``. Nothing waits for the disk: what is in ``upper`` does not outlive a power cut. What may not be
    done with files at ``target`` (nosuid, nodev, noexec, nosymfollow) may not be done with these either; only that they
    can be changed where it is read-only, for that changes nothing there. ``alone``: EBUSY if there is a mount with that
    ``upper`` already, in whatever namespace. Raises :class:`OSError`.
    """
    opened: list[int] = []

    def reach(path: str) -> str:
        # By descriptor, so that no character in a path means anything; opened here, for those from another view of the
        # file system cannot be mounted. O_PATH: it need not be readable.
        opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        return f"/proc/self/fd/{opened[-1]}"

    if attributes == "trusted" and not _is_first_user_namespace():  # they cannot be read: all would seem to be zeros
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    attributes = attributes or ("trusted" if _is_first_user_namespace() else "user")
    # In a user namespace: Linux 5.11; and with data: 6.16, where that needs no metacopy=on.
    option = "userxattr" if attributes == "user" else "redirect_dir=on" + (",metacopy=on" if data else "")
    try:
        options = [
            f"lowerdir={':'.join(map(reach, lower))}" + (f"::{reach(data)}" if data else ""),
            f"upperdir={reach(upper)}",
            f"workdir={reach(work)}",
            "volatile",
            option,
            # Who has no rights in the first user namespace gets no index; but it keeps two mounts from one ``upper``.
            *(["index=on"] if alone else []),
        ]
        # Where there are none (a tmpfs before Linux 6.6) it can be mounted, but to remove a directory is an error.
        os.setxattr(reach(work), f"{attributes}.holo", b"")
        os.removexattr(reach(work), f"{attributes}.holo")
        covered = reach(target)
        flags = _flags_of(covered)
        linux.check(
            linux.libc().mount(source.encode(), covered.encode(), b"overlay", flags, ",".join(options).encode())
        )
        # Until now somebody could give the directory another name. What is mounted on cannot be renamed, but that an
        # exchange which has begun is completed, since Linux 6.8.
        parent, name = os.path.split(target)
        if (where := os.readlink(covered)) != os.path.join(os.path.realpath(parent), name):
            unmount(where)
            raise OSError(errno.ESTALE, "it was moved meanwhile", target)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def processes_with(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Processes of this user that see something mounted at ``path``, a real path, and the mount namespace of each.

    Its source is, or begins with, ``source``. Of each namespace but this process's own one process is named. None where
    /proc does not tell.
    """
    known = set[str]()
    with suppress(OSError):
        known.add(own_mounts())
    for process, namespace in mount_namespaces():
        if namespace not in known:
            known.add(namespace)
            with suppress(OSError):  # it has ended
                if (mounts.source_at(path, str(process)) or "").startswith(source):
                    yield process, namespace


def mount_namespaces() -> Iterator[tuple[int, str]]:
    """The processes of this user, and the mount namespace of each; none where /proc does not tell."""
    user = os.geteuid()
    with suppress(OSError):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):  # it has ended, or is another user's
                    namespace = os.readlink(f"/proc/{entry}/ns/mnt")
                    if int(_status(entry)[b"Uid"].split()[1]) == user:  # the effective one
                        yield int(entry), namespace


def own_mounts() -> str:
    """What tells the mount namespace of this process from all others that there are."""
    return os.readlink("/proc/self/ns/mnt")


def join_view(process: int) -> None:
    """From now on see what another process of this user sees, in a user namespace below that of this process.

    This cannot be undone, and the current folder is the root directory then. Raises :class:`OSError`.
    """
    user = os.open(f"/proc/{process}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        mounts = os.open(f"/proc/{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            linux.check(linux.libc().setns(user, _CLONE_NEWUSER))
            linux.check(linux.libc().setns(mounts, _CLONE_NEWNS))
        finally:
            os.close(mounts)
    finally:
        os.close(user)


def unmount(path: str) -> None:
    """Let what is mounted at ``path`` go: at once for others, when they leave for those who are in it."""
    linux.check(linux.libc().umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW))


def has_proc() -> bool:
    """Whether /proc is mounted. Without it no view is possible, and nothing that is mounted by descriptor."""
    return os.path.lexists("/proc/self")


def reason(error: OSError, folder: str) -> str:
    """What to say of an error of a view or a mount whose changes were to go to that folder, or to one below it.

    Without /proc a file of that is not there, and of an overlay over an overlay the kernel says "Invalid argument".
    """
    if error.errno == errno.ENOENT and not has_proc():
        return "/proc is not mounted"
    with suppress(OSError):
        if error.errno == errno.EINVAL and mounts.type_of(os.stat(folder).st_dev) == b"overlay":
            return "no overlay can lie on another: keep HOLO_HOME on a volume, not among the container's own files"
    return error.strerror or str(error)


def may_mount() -> bool:
    """Whether this process has the right to mount for everybody. Raises :class:`OSError` without /proc."""
    return bool(_capabilities() >> _CAP_SYS_ADMIN & 1)


def _flags_of(path: str) -> int:
    """What holds for the mount that ``path`` lies on, in the flags of mount(2)."""
    found = os.statvfs(path).f_flag
    return found & _OF_A_MOUNT | (_MS_NOSYMFOLLOW if found & _ST_NOSYMFOLLOW else 0)


def _capabilities() -> int:
    return int(_status("self").get(b"CapEff", b"0"), 16)


def _is_first_user_namespace() -> bool:
    with open("/proc/self/uid_map") as file:
        return file.read().split() == ["0", "0", str((1 << 32) - 1)]


def die_with(parent: int) -> None:
    """Have this process killed when the one that forked it ends; at once, if that was ``parent`` and is gone."""
    from signal import SIGKILL

    linux.check(linux.libc().prctl(_PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans(adopt: bool) -> None:
    """Whether descendants whose parent ends become children of this process (not of init)."""
    linux.check(linux.libc().prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0))


def children() -> list[int]:
    """The children of this process; none where /proc does not tell."""
    return [process for process, parent in _family().items() if parent == os.getpid()]


def descendants(process: int) -> list[int]:
    """The children of a child of this process, theirs, and so on; none where /proc does not tell."""
    parents, found = _family(), [process]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def _family() -> dict[int, int]:
    """What this process has started, and all that those have: the parent of each, by their numbers here.

    /proc may show another PID namespace, one around that of this process, and has other numbers then. /proc/self is
    this process all the same, or not there, and each process tells its numbers, from that namespace down to its own.
    """
    try:
        me = int(os.readlink("/proc/self"))
        shown = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except (OSError, ValueError):
        return {}
    parents: dict[int, int] = {}
    numbers: dict[int, list[int]] = {}
    for process in shown:
        with suppress(OSError, KeyError):  # it has ended
            fields = _status(str(process))
            own = fields.get(b"NSpid", fields[b"Pid"])  # Linux 4.1
            parents[process], numbers[process] = int(fields[b"PPid"]), [*map(int, own.split())]
    level = len(numbers.get(me, ())) - 1
    family = [me]
    for known in family:
        family += [child for child, parent in parents.items() if parent == known and len(numbers[child]) > level]
    return {numbers[process][level]: numbers[parents[process]][level] for process in family[1:]}


def _status(process: str) -> dict[bytes, bytes]:
    """What /proc tells of a process: proc_pid_status(5)."""
    with open(f"/proc/{process}/status", "rb") as file:
        return dict(line.split(b":", 1) for line in file)
