"""Views: mounted spaces of users who may not mount for everybody. All commands of the space share one namespace.

    .ephemeral-<user>/spaces/<name>/<id>/
        layer, upper      what names the space's path, and what was changed in it
        work-<random>     of the mount that there is, or of the last one
        namespace         which mount namespace has it
        lock              held by whoever enters, until they are in

The first command has a child make the namespace and mount, and joins the child, which then ends; those that come later
join any process that is in there. The kernel keeps the namespace as long as there is one, and keeps a second mount from
the same ``upper``. So nothing has to be remembered, and nothing is believed but what the kernel says of a process: its
user, and its list of mounts, where the source of the mount has the name of the folder.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from holo.errors import Conflict, HoloError
from holo.files import SMALL, read_file
from holo.hololib.locks import locked
from holo.remove import remove_at
from holo.space import VIEW
from holo.trees.lower import Lower, NoOverlayError, hold_tree
from holo.trees.overlay import Layers
from holo.trees.stubs import attributes
from holo.walk import real_place

if sys.platform == "linux":
    from holo.platform import namespaces

if TYPE_CHECKING:
    from holo.home import Home
    from holo.space import Space

_PATIENCE = 5.0
"""Seconds in which the kernel takes the mount of the last process away."""

UPPER, LAYER = "upper", "layer"


def refuse_inside(space: str, path: str) -> None:
    """Raise :class:`Conflict` if processes of this user are in a view at ``path``, or in a namespace made in there."""
    if sys.platform == "linux":
        views = {namespace for _, namespace in namespaces.processes_with(real_place(path), VIEW)}
        found = namespaces.mount_namespaces() if views else ()
        inside = sorted(process for process, namespace in found if namespace in views)
        if inside:
            raise Conflict(
                f"commands of space {space!r} run in its view at {path}",
                f"Try again when they have ended. `ps -p {','.join(map(str, inside[:20]))}` shows them.",
            )


def enter(home: Home, space: Space) -> Space:
    """From now on this process sees the space. Returns it as its record says now.

    Nobody else notices, and it cannot be undone, so this is for who is about to become a command. Raises
    :class:`Conflict`: it has threads, say.
    """
    if home.spaces.is_seen(space):
        return space
    try:
        here: str | None = os.getcwd()
    except OSError:
        here = None
    with home.spaces.lock(space.name, home.on_wait, exclusive=False):
        space = home.spaces.get(space.name)
        home.spaces.refuse_unfinished(space)
        folder = os.path.dirname(space.upper)
        if os.path.dirname(folder) != os.path.join(Layers(home.spaces.path).spaces, space.name):
            raise Conflict(
                f"what was changed in space {space.name!r} is not this user's, or its home was moved: {space.upper}",
                f"`holo restore --space {space.name}` makes it anew.",
            )
        if attributes() == "trusted":  # which would not show what those say that this user's other processes have set
            raise Conflict(
                f"space {space.name!r} is a view, which was made without the right to mount for everybody",
                f"You have that right: `holo restore --space {space.name}` mounts it, with nothing changed in it.",
            )
        with locked(os.path.join(folder, "lock"), folder, exclusive=True, on_wait=lambda _: None):
            try:
                _join(home, space, folder)
            except (OSError, NoOverlayError) as error:
                raise _refused(space, error) from error
    if not home.spaces.is_seen(space):  # whom we have joined has left it in that moment
        raise Conflict(f"space {space.name!r} went away at {space.path}", "Run it again.")
    try:
        os.chdir(here or "/")
    except OSError as error:
        raise HoloError(
            f"the current folder, {here}, is not in the view of space {space.name!r}: {error.strerror}",
            "Start the command from another one.",
        ) from None
    return space


def _refused(space: Space, error: OSError | NoOverlayError) -> HoloError:
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return Conflict(
            f"space {space.name!r} is in use by processes that this command does not see: {space.path}",
            "They may be in a container or a sandbox, or this command is. Run it again when they have ended.",
        )
    what = str(error)
    if sys.platform == "linux" and isinstance(error, OSError):
        what = namespaces.reason(error, space.upper)
    return Conflict(f"cannot enter the space {space.path}: {what}", f"What was changed in it is in {space.upper}.")


if sys.platform != "linux":

    def why_none(folder: str) -> str | None:
        """Why there are no views."""
        return "only Linux can do that"

    def _join(home: Home, space: Space, folder: str) -> None:
        raise NoOverlayError("only Linux can do that")

else:

    def why_none(folder: str) -> str | None:
        """Try, in a directory that is made for it, whether views are possible; ``None``, or why not."""
        layer, tree, upper, target = (os.path.join(folder, name) for name in (LAYER, "tree", UPPER, "on"))
        try:
            for path in (folder, layer, tree, upper, target):
                os.mkdir(path)
            _Child(folder, target, Lower(layer, tree)).end()
        except OSError as error:
            return namespaces.reason(error, folder)
        finally:
            remove_at(folder)
        return None

    def _join(home: Home, space: Space, folder: str) -> None:
        """Join who is in there, or else mount. Raises :class:`OSError`."""
        path, deadline = real_place(space.path), time.monotonic() + _PATIENCE
        while True:
            for process, namespace in namespaces.processes_with(path, space.view):
                if namespace == _noted(folder):  # and not one that was made in there
                    try:
                        namespaces.join_view(process)
                    except (FileNotFoundError, ProcessLookupError):
                        continue  # it has just ended
                    return
            try:
                _mount_and_join(home, space, folder, path)
            except OSError as error:
                # The last one has ended, and the kernel is about to unmount.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _mount_and_join(home: Home, space: Space, folder: str, path: str) -> None:
        from holo.hololib import CatalogRef

        with ExitStack() as held:
            ref = CatalogRef(space.catalog, space.digest)
            tree = hold_tree(
                home,
                ref,
                lambda: home.library.catalogs.load(ref.digest),
                folder,
                held,
                lock=home.using_library,
            )
            child = _Child(folder, path, Lower(os.path.join(folder, LAYER), *tree))
            try:
                namespaces.join_view(child.process)
            finally:
                child.end()

    def _noted(folder: str) -> str:
        with suppress(OSError):
            return read_file(os.path.join(folder, "namespace"), SMALL)[0].decode(errors="replace")
        return ""

    class _Child:
        """A process that has made a namespace, and mounted there. It is there until its end."""

        def __init__(self, folder: str, path: str, lower: Lower) -> None:
            """Raises :class:`OSError`, and then there is none."""
            told, tell = os.pipe()
            parent = os.getpid()
            self.process = os.fork()
            if self.process == 0:
                code = errno.EIO
                try:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent
                    namespaces.die_with(parent)
                    _mount(folder, path, lower)
                    code = 0
                except OSError as error:
                    code = error.errno or code
                finally:
                    os.write(tell, bytes([code]))
                    while not code:
                        signal.pause()
                    os._exit(0)
            os.close(tell)
            with open(told, "rb") as answer:
                code = (answer.read(1) or bytes([errno.EIO]))[0]
            if code:
                self.end()
                raise OSError(code, os.strerror(code))

        def end(self) -> None:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)

    def _mount(folder: str, path: str, lower: Lower) -> None:
        work = f"work-{os.urandom(4).hex()}"
        os.mkdir(os.path.join(folder, work))
        namespaces.enter_own_view()
        namespaces.mount_overlay(
            VIEW + os.path.basename(folder),
            path,
            (lower.layer, lower.tree),
            os.path.join(folder, UPPER),
            os.path.join(folder, work),
            lower.blobs,
            attributes() if lower.blobs else "",
            alone=True,
        )
        inner = os.path.join(folder, work, "work")
        os.chmod(inner, 0o700)  # its owner may look in
        remove_at(os.path.join(inner, "incompat"))  # keeps it from being used again, which it is not
        with open(os.path.join(folder, "namespace"), "w") as file:
            file.write(namespaces.own_mounts())
        for name in os.listdir(folder):  # of mounts before, of which there is none now
            if name.startswith("work-") and name != work:
                remove_at(os.path.join(folder, name))
