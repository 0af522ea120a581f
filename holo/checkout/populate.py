"""Fill a directory that is no space: nothing is known of it afterwards, and nobody completes it."""

from __future__ import annotations

from holo import platform
from holo.catalog import Catalog
from holo.checkout.engine import Engine
from holo.checkout.materialize import Materializer
from holo.checkout.plan import plan
from holo.checkout.strategy import Decision, Method
from holo.checkout.survey import survey_of_empty
from holo.checkout.tally import Tally
from holo.errors import HoloError
from holo.hololib import Library
from holo.platform import probe
from holo.relocation.patch import Relocator
from holo.settings import Strategy


def unpack(library: Library, digest: str, path: str, workers: int) -> None:
    """Make the empty directory ``path`` equal to a catalog, patched for its path.

    The caller holds the library's lock, shared. Raises :class:`HoloError`.
    """
    catalog = library.load(digest)
    relocator = Relocator(catalog.prefix, path)
    relocator.refuse_impossible(catalog.relocations)
    fill(library, catalog, relocator, path, workers)


def fill(library: Library, catalog: Catalog, relocator: Relocator, path: str, workers: int) -> Tally:
    """Make the empty directory ``path`` equal to a catalog, or a part of one, patched as ``relocator`` says.

    Returns what was made. The caller holds the library's lock, shared. Raises :class:`HoloError`.
    """
    try:
        root = platform.open_root(path)
        try:
            method = (
                Method.REFLINK
                if probe.reflink(library.blobs.directory, root, library.blobs.any_raw) is None
                else Method.COPY
            )
            todo = plan(catalog, survey_of_empty(catalog), relocator, Decision(Strategy.SMART, method))
            materializer = Materializer(library, catalog, relocator, method, verify=library.may_be_torn)
            materializer.check(todo.fills)
            return Engine(root, path, materializer, catalog.xattrs, workers).execute(todo)
        finally:
            platform.close_directory(root)
    except OSError as error:
        raise HoloError(f"cannot make {path}: {error.strerror}") from error
