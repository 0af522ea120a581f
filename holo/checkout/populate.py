"""Fill a directory that is no space: nothing is known of it afterwards, and nobody completes it."""

from __future__ import annotations

from holo import platform
from holo.catalog import Catalog
from holo.checkout.engine import Engine
from holo.checkout.materialize import Materializer
from holo.checkout.plan import plan
from holo.checkout.strategy import Decision, Way
from holo.checkout.survey import nothing_there
from holo.checkout.tally import Tally
from holo.errors import HoloError
from holo.hololib import Store
from holo.platform import probe
from holo.relocation.patch import Relocator
from holo.settings import Strategy


def unpack(store: Store, digest: str, path: str, workers: int) -> None:
    """Make the empty directory ``path`` equal to a catalog, patched for its path.

    The caller holds the library's lock, shared. Raises :class:`HoloError`.
    """
    catalog = store.load(digest)
    relocator = Relocator(catalog.prefix, path)
    relocator.refuse_impossible(catalog.relocations)
    fill(store, catalog, relocator, path, workers)


def fill(store: Store, catalog: Catalog, relocator: Relocator, path: str, workers: int) -> Tally:
    """Make the empty directory ``path`` equal to a catalog, or a part of one, patched as ``relocator`` says.

    Returns what was made. The caller holds the library's lock, shared. Raises :class:`HoloError`.
    """
    try:
        root = platform.open_root(path)
        try:
            way = Way.REFLINK if probe.reflink(store.blobs.directory, root, store.blobs.any_raw) is None else Way.COPY
            todo = plan(catalog, nothing_there(catalog), relocator, Decision(Strategy.SMART, way))
            materializer = Materializer(store, catalog, relocator, way, verify=store.is_doubtful)
            materializer.check(todo.fills)
            return Engine(root, path, materializer, catalog.xattrs, workers).execute(todo)
        finally:
            platform.close_directory(root)
    except OSError as error:
        raise HoloError(f"cannot make {path}: {error.strerror}") from error
