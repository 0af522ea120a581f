"""What users do, as methods of :class:`Hololib`: the command line calls these, and so can any program."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from holo import settings as settings_module
from holo.errors import CatalogInvalid, Conflict, NotFound, UsageError
from holo.hololib import CatalogSummary, Store
from holo.hololib.locks import OnWait, say_waiting
from holo.space import Holotree, Space
from holo.walk import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from holo.catalog import Catalog
    from holo.check import CheckReport
    from holo.hololib.collect import GcReport
    from holo.platform import Directory
    from holo.record import RecordReport
    from holo.restore import DryRun, Options
    from holo.restore.report import RestoreReport
    from holo.settings import Strategy

    PathLike: TypeAlias = str | os.PathLike[str]
    OnProgress: TypeAlias = Callable[[int, int], object]

DEFAULT_SPACE = "user"


class Hololib:
    """A library and its spaces, below one home folder.

    ``home`` is the folder that holds hololib and holotree; without it, the one the settings name
    (:mod:`holo.settings`), which also give the strategy, the compression and the number of workers.
    ``on_wait`` is called with a message before waiting for a lock that someone else holds; by default it is
    printed on stderr. Every failure is a :class:`~holo.errors.HoloError`.
    """

    def __init__(self, home: PathLike | None = None, *, on_wait: OnWait = say_waiting) -> None:
        self.settings = settings_module.load(home=os.fspath(home) if home is not None else None)
        self.store = Store(self.settings.home, self.settings.compression)
        self.tree = Holotree(self.settings.home)
        self._on_wait = on_wait

    def record(
        self,
        directory: PathLike,
        name: str | None = None,
        *,
        skip_special: bool = False,
        keep_setid: bool = False,
        on_progress: OnProgress | None = None,
    ) -> RecordReport:
        """Record a directory tree as a catalog called ``name`` (default: after the directory).

        ``skip_special`` leaves out sockets, fifos and devices instead of refusing them; ``keep_setid`` keeps
        setuid and setgid bits. Recording the same tree again stores nothing and yields the same digest.
        """
        from holo.record import record

        with self.store.lock(exclusive=False, on_wait=self._on_wait):
            return record(
                self.store,
                os.fspath(directory),
                name,
                skip_special=skip_special,
                keep_setid=keep_setid,
                workers=self.settings.workers,
                on_progress=on_progress,
            )

    def init(
        self,
        space: str,
        source: PathLike | None = None,
        *,
        to: PathLike | None = None,
        strategy: Strategy | str | None = None,
        strict: bool = False,
        verify: bool = False,
        force: bool = False,
        keep_setid: bool = False,
        on_progress: OnProgress | None = None,
    ) -> RestoreReport:
        """Make a space from ``source``: a catalog's name or digest prefix, a catalog file, or a directory.

        A directory is recorded first. Without a source: the space's own catalog if it exists, else the
        library's only one. A space that exists is restored; if it holds another catalog, that is refused
        without ``force``. ``keep_setid`` keeps the setuid and setgid bits of a directory that is recorded, and
        accepts them, and capabilities, in a catalog file. The other arguments are those of :meth:`restore`.
        """
        from holo.restore import restore

        options = self._options(strategy, strict, verify, force, on_progress)
        with self._at_work_on(space):
            known = self.tree.find(space)
            name, digest = self._from_source(source, known, keep_setid=keep_setid)
            if known is not None and known.digest != digest and not force:
                raise Conflict(
                    f"space {space!r} holds catalog {known.catalog!r}, not {name!r}",
                    f"Turn it into the other with --force or `holo restore --space {space} --catalog {name}`, "
                    "or choose another name.",
                )
            return restore(self.store, space, name, digest, _absolute(to), options)

    def restore(
        self,
        space: str | None = None,
        *,
        catalog: str | None = None,
        to: PathLike | None = None,
        strategy: Strategy | str | None = None,
        strict: bool = False,
        verify: bool = False,
        force: bool = False,
        on_progress: OnProgress | None = None,
    ) -> RestoreReport:
        """Bring a space back to pristine, or turn it into another ``catalog`` (name or digest prefix).

        Without ``space``: the one that lives at ``to``, else the one ``HOLO_SPACE`` names, else ``user``.
        ``strict`` fails instead of falling back to another strategy, ``verify`` hashes everything that is
        shared or unchanged, ``force`` takes over a directory that is not a space.
        """
        from holo.restore import restore

        options = self._options(strategy, strict, verify, force, on_progress)
        name, path = self._space_meant(space, to)
        self._catalog_meant(name, catalog)  # what does not exist is told before anything is made
        with self._at_work_on(name):
            return restore(self.store, name, *self._catalog_meant(name, catalog), path, options)

    def dry_run(
        self,
        space: str | None = None,
        *,
        catalog: str | None = None,
        to: PathLike | None = None,
        strategy: Strategy | str | None = None,
        strict: bool = False,
        verify: bool = False,
        force: bool = False,
    ) -> DryRun:
        """What :meth:`restore` with the same arguments would do. Changes nothing."""
        from holo.restore import dry_run

        options = self._options(strategy, strict, verify, force, None)
        name, path = self._space_meant(space, to)
        self._catalog_meant(name, catalog)
        with self._at_work_on(name):
            return dry_run(self.store, name, *self._catalog_meant(name, catalog), path, options)

    def run_ephemeral(
        self,
        command: Sequence[str],
        space: str | None = None,
        *,
        catalog: str | None = None,
        keep: str | None = None,
        record: bool = False,
    ) -> int:
        """Run a command in a throw-away environment at a space's path, with the space's variables, to its end.

        It is pristine, of the space's catalog or of ``catalog`` (then the space need not exist), and what the command
        changes in it is gone afterwards; a space that exists is not touched, and everybody else goes on seeing it.
        ``keep`` makes a space of what the command leaves, however it ends, or with ``record`` only a catalog. Returns
        the exit code, or minus the number of the signal that ended the command. What it left running is ended.
        """
        from holo import ephemeral

        self._sweep()
        name = space or _default_space()
        known = self.tree.find(name)
        if catalog is None:
            self._catalog_meant(name, None)
        if keep is not None:
            self._refuse_known(keep, record=record)
        elif record:
            raise UsageError("a catalog to be recorded needs a name", "Add --keep NAME.")
        environment = ephemeral.Environment(
            name,
            known.path if known is not None else self.tree.default_path(name),
            *self._catalog_meant(name, catalog),
        )

        def save(root: Directory, path: str) -> None:
            from holo.record import record as record_tree

            with self.store.lock(exclusive=False, on_wait=self._on_wait):
                # A socket or a fifo that the command left is no reason to lose its result.
                record_tree(self.store, path, keep, root=root, skip_special=True, workers=self.settings.workers)

        home = ephemeral.Home(self.store, self.tree, self.settings.workers, self._on_wait)
        code = ephemeral.run(home, environment, list(command), save if keep is not None else None)
        if keep is not None and not record:
            self.init(keep, keep)
        return code

    def _refuse_known(self, name: str, *, record: bool) -> None:
        """What is kept is a catalog, and a space of the same name unless it is only to be recorded."""
        from holo.hololib.store import check_name

        check_name(name, "catalog" if record else "space")
        if self.store.summary(name) is not None:
            raise Conflict(f"there is a catalog {name!r} already", "Keep the result under another name.")
        if not record and self.tree.find(name) is not None:
            raise Conflict(f"there is a space {name!r} already", "Keep the result under another name.")

    def _sweep(self) -> None:
        """Remove what killed throw-away environments have left."""
        from holo.layers import Layers

        if Layers(self.tree.path).working():
            from holo import ephemeral

            ephemeral.sweep(ephemeral.Home(self.store, self.tree, self.settings.workers, self._on_wait))

    def delete(self, space: str) -> Space:
        """Remove a space. Returns what it was."""
        from holo.restore import delete

        self._sweep()
        return delete(self.store, space, self._on_wait)

    def space(self, name: str | None = None) -> Space:
        """The space of that name; without one, ``HOLO_SPACE``'s, else ``user``. Raises :class:`NotFound`."""
        self._sweep()
        return self.tree.get(name or _default_space())

    def spaces(self) -> list[Space]:
        """All spaces, by name."""
        self._sweep()
        return self.tree.spaces()

    def catalogs(self) -> list[CatalogSummary]:
        """All catalogs, by name."""
        return self.store.catalogs()

    def catalog(self, reference: str) -> Catalog:
        """The catalog of that name or digest prefix, validated."""
        return self.store.load(self.store.resolve(reference)[1])

    def golden_trees(self) -> set[str]:
        """The digests of the catalogs that have a golden tree."""
        return self.store.golden_trees()

    def remove_catalog(self, reference: str) -> tuple[str, str]:
        """Remove a catalog; returns its name and digest. Its blobs stay until they are collected."""
        from holo.layers import Layers

        with self.store.lock(exclusive=True, on_wait=self._on_wait):
            removed = self.store.remove(reference)
        Layers(self.tree.path).collect(self.store.digests(), dry_run=False)
        return removed

    def gc(
        self,
        *,
        dry_run: bool = False,
        keep_days: float | None = None,
        keep_last: int | None = None,
        max_size: int | str | None = None,
    ) -> GcReport:
        """Remove what no catalog needs, and catalogs by their last use, but none that a space holds.

        ``keep_days``: those not used in so many days; ``keep_last``: all but so many; ``max_size`` (bytes, or a text
        like ``20GB``): the least recently used until blobs and link forms occupy no more. ``dry_run`` changes nothing.
        Raises :class:`IntegrityError` before the first removal if a catalog is damaged.
        """
        from holo.hololib import collect
        from holo.layers import Layers

        self._sweep()
        size = collect.parse_size(max_size) if isinstance(max_size, str) else max_size
        policy = collect.Policy(keep_days, keep_last, size)
        known = collect.needs(self.store)  # takes long, and nobody has to wait for that
        with self.store.lock(exclusive=not dry_run, on_wait=self._on_wait):
            holders: dict[str, list[str]] = {}
            for space in self.tree.spaces() if policy != collect.Policy() else ():
                holders.setdefault(space.digest, []).append(space.name)
            report = collect.collect(self.store, known, holders, policy, dry_run=dry_run)
            drafts, locks = self.tree.tidy(dry_run=dry_run)
        going = {use.digest for use in report.catalogs}
        layers = Layers(self.tree.path).collect(self.store.digests() - going, dry_run=dry_run)
        return replace(report, drafts=report.drafts + drafts, locks=locks, layers=layers)

    def check(
        self,
        *,
        repair: bool = False,
        sources: Sequence[PathLike] = (),
        spaces: Sequence[str] = (),
        on_progress: OnProgress | None = None,
    ) -> CheckReport:
        """Read everything in the library, and compare ``spaces`` (names) with their catalogs; say what is wrong.

        ``repair`` moves what is bad into the quarantine and restores content from what is at hand, and from
        ``sources``: other libraries, or any directories.
        """
        from holo.check import Options, check

        if sources and not repair:
            raise UsageError("sources are for a repair only", "Add --repair.")
        return check(
            self.store,
            self.tree,
            Options(
                repair=repair,
                sources=[os.fspath(source) for source in sources],
                spaces=spaces,
                workers=self.settings.workers,
                on_progress=on_progress,
                on_wait=self._on_wait,
            ),
        )

    def _options(
        self, strategy: Strategy | str | None, strict: bool, verify: bool, force: bool, on_progress: OnProgress | None
    ) -> Options:
        from holo.restore import Options

        chosen = settings_module.Strategy.parse(strategy, "flag --strategy") if strategy else self.settings.strategy
        return Options(chosen, strict, verify, force, self.settings.workers, on_progress, self._on_wait)

    @contextmanager
    def _at_work_on(self, space: str) -> Iterator[None]:
        """Keep others from the space, and the library from losing anything.

        In this order: who waits for a space does not keep anybody waiting for the library.
        """
        self._sweep()
        with self.tree.lock(space, self._on_wait), self.store.lock(exclusive=False, on_wait=self._on_wait):
            yield

    def _space_meant(self, space: str | None, to: PathLike | None) -> tuple[str, str | None]:
        """The name of the space that a restore is about, and its path if that was given."""
        path = _absolute(to)
        at = self.tree.at(path) if path is not None and space is None else None
        return space or (at.name if at is not None else _default_space()), path

    def _catalog_meant(self, space: str, reference: str | None) -> tuple[str, str]:
        """The name and the digest of the catalog that a space is to be restored to."""
        if reference is not None:
            return self.store.resolve(reference)
        known = self.tree.get(space)
        return known.catalog, known.digest

    def _from_source(self, source: PathLike | None, known: Space | None, *, keep_setid: bool) -> tuple[str, str]:
        """The name and the digest of the catalog that a source means; recorded or taken in if need be."""
        if source is None:
            return (known.catalog, known.digest) if known is not None else self.store.only()
        text = os.fspath(source)
        if os.sep not in text:
            try:
                return self.store.resolve(text)
            except NotFound:
                if not os.path.exists(text):
                    raise
        if os.path.isdir(text):
            from holo.record import record

            report = record(self.store, text, keep_setid=keep_setid, workers=self.settings.workers)
            return report.name, report.digest
        if os.path.isfile(text):
            return self._import_file(text, keep_setid=keep_setid)
        raise NotFound(f"there is nothing at {text}", "Name a catalog, a catalog file or a directory to record.")

    def _import_file(self, path: str, *, keep_setid: bool) -> tuple[str, str]:
        """Take in a catalog file, with the blobs it needs from the ``library`` folder beside it."""
        from holo.catalog import Catalog
        from holo.hololib.store import read_catalog_file
        from holo.record import default_name
        from holo.restore.relocate import Relocator

        if re.search(r"\.(txt|toml|ya?ml|lock|py)$", path):
            raise UsageError(f"{path} is a blueprint, and this version builds none", "Record the built environment.")
        # However the file is laid out, the library keeps the canonical document, which the digest is of.
        data, _ = read_catalog_file(path, follow=True)
        catalog = Catalog.from_json(Catalog.from_json(data, path).to_json(), path)
        if not keep_setid and (file := catalog.privileged()) is not None:
            raise CatalogInvalid(
                f"catalog {path} gives rights with setuid, setgid or capabilities: {file}",
                "Whoever may run that would act as you. If you trust who made the catalog: --keep-setid.",
            )
        name = default_name(os.path.abspath(path).removesuffix(".json"))
        beside = os.path.join(os.path.dirname(os.path.abspath(path)), "library")
        blobs = self.store.blobs
        missing = {row[4]: row[2] for _, row in catalog.files() if not blobs.has(row[4], row[2])}
        if missing and not os.path.isdir(beside):
            raise NotFound(
                f"{len(missing)} blobs of {path} are neither in {self.store.path} nor in {beside}",
                "A catalog file needs its library beside it.",
            )
        relocator = Relocator(catalog.prefix, catalog.prefix)
        for file, (_, _, size, _, digest) in catalog.files():
            if file in catalog.relocations:
                chunks = blobs.foreign_chunks(beside, digest, size) if digest in missing else None
                relocator.check(chunks or blobs.chunks(digest, size), catalog.relocations[file], file)
        with self.store.unsettled.record():
            blobs.take(beside, missing)
            self.store.publish(catalog, name)
        return name, catalog.digest


def _absolute(path: PathLike | None) -> str | None:
    if path is None:
        return None
    if not os.fspath(path):  # as "$UNSET" is in a shell; it would mean the current directory
        raise UsageError("--to is empty", "Name the directory that is to be the space.")
    return absolute(os.fspath(path))


def _default_space() -> str:
    return os.environ.get("HOLO_SPACE") or DEFAULT_SPACE
