"""Fill a directory that is no space: nothing is known of it afterwards, and nobody completes it."""

from __future__ import annotations

from holo import platform
from holo.errors import HoloError
from holo.hololib import Store
from holo.platform import probe
from holo.restore.engine import Engine
from holo.restore.materialize import Materializer
from holo.restore.plan import plan
from holo.restore.relocate import Relocator
from holo.restore.strategy import Way, decide
from holo.restore.survey import nothing_there
from holo.settings import Strategy


def unpack(store: Store, digest: str, path: str, workers: int) -> None:
    """Make the empty directory ``path`` equal to a catalog, patched for its path, by clones or else copies.

    The caller holds the library's lock, shared. Raises :class:`HoloError`.
    """
    catalog = store.load(digest)
    relocator = Relocator(catalog.prefix, path)
    relocator.refuse_impossible(catalog.relocations)
    try:
        root = platform.open_root(path)
        try:
            way = {Way.REFLINK: lambda: probe.reflink(store.blobs.directory, root, store.blobs.any_raw)}
            decision = decide(Strategy.SMART, way, strict=False)
            materializer = Materializer(store, catalog, relocator, decision.used, verify=store.is_doubtful)
            todo = plan(catalog, nothing_there(catalog), relocator, decision)
            Engine(root, path, materializer, catalog.xattrs, workers).execute(todo, None)
        finally:
            platform.close_directory(root)
    except OSError as error:
        raise HoloError(f"cannot fill {path}: {error.strerror}") from error
