"""What users do, as methods of :class:`Hololib`: the command line calls these, and so can any program."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

from holo import settings as settings_module
from holo.errors import CatalogInvalid, Conflict, HoloError, NotFound, UsageError
from holo.hololib import CatalogSummary, Library
from holo.hololib.locks import OnWait, say_waiting
from holo.space import PLACES, Holotree, Space
from holo.walk import absolute, current_directory, refuse_encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.builders import Options as BuildOptions
    from holo.blueprints.make import Made
    from holo.catalog import Catalog
    from holo.check import CheckReport
    from holo.check.adopt import Adoption
    from holo.hololib.collect import GcReport
    from holo.platform import Directory
    from holo.record import RecordReport
    from holo.restore import DryRun, Options
    from holo.restore.report import RestoreReport
    from holo.settings import Strategy
    from holo.uninstall import UninstallReport

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
        refuse_encoding()
        self.settings = settings_module.load(home=os.fspath(home) if home is not None else None)
        self.library = Library(self.settings.home, self.settings.compression)
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
        from holo.hololib.library import check_name
        from holo.record import record

        path = absolute(os.fspath(directory))
        if name is not None:  # what is wrong is told before anything is made
            check_name(name, "catalog")
        if not os.path.isdir(path):
            raise NotFound(f"cannot record {path}: there is no such directory", "Name the directory to record.")
        with self.library.lock(exclusive=False, on_wait=self._on_wait):
            return record(
                self.library,
                path,
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
        yes: bool = False,
        keep_setid: bool = False,
        compile: bool | None = None,  # noqa: A002 - the option's name
        on_progress: OnProgress | None = None,
    ) -> RestoreReport:
        """Make a space from ``source``: a catalog's name or digest prefix, a catalog file, a directory, a blueprint.

        A directory is recorded first, a blueprint built if the library does not have what it says. Without a source:
        what the space was made from if it exists, else the nearest blueprint upwards, else the library's only
        catalog. A space that exists is restored; if it holds another catalog, that is refused without ``force``.
        ``keep_setid`` keeps the setuid and setgid bits of a directory that is recorded, and accepts them, and
        capabilities, in a catalog file. ``compile``: whether a blueprint's bytecode is compiled; without it, as when
        the space was made of that blueprint, else yes. The other arguments are those of :meth:`restore`.
        """
        from holo.restore import refuse, restore

        options = self._options(strategy, strict, verify, force, on_progress, yes=yes)
        path = _absolute(to)
        self._sweep()
        known = self.tree.find(space)
        if self._resolve_blueprint(source, known, path) is None:
            self._named(source, known)  # what does not exist is told before anything is made
        with self._alone_with(space):
            known = self.tree.find(space)
            blueprint = self._resolve_blueprint(source, known, path)
            if blueprint is not None or self._named(source, known) is None:
                refuse(self.library, space, path, options)  # before anything is recorded or built
            if blueprint is not None:
                chosen = self._chosen(compile, blueprint, known, path)
                return self._init_from(blueprint, space, known, path, chosen, options, may_change=force)
            _refuse_compile(compile)
            with self.library.lock(exclusive=False, on_wait=self._on_wait):
                self._say_what_is_taken(source, known)

                def approve(name: str, digest: str) -> None:
                    self._refuse_other(known, name, digest, options)

                name, digest, warnings = self._from_source(source, known, approve, keep_setid=keep_setid)
                approve(name, digest)
                report = restore(self.library, space, name, digest, path, options)
                return replace(report, warnings=(*warnings, *report.warnings))

    def catalog_of_blueprint(self, path: PathLike, *, compile: bool = True) -> tuple[str, str]:  # noqa: A002
        """The name and the digest of the catalog of a blueprint, which is built if the library does not have it."""
        from holo.blueprints.blueprint import named
        from holo.blueprints.builders import Options

        with self._built(named(os.fspath(path)), Options(compile)) as made:
            return made.name, made.digest

    def space_of_blueprint(
        self,
        path: PathLike,
        space: str | None = None,
        *,
        compile: bool | None = None,  # noqa: A002
    ) -> Space:
        """A space of what a blueprint says now, to run something in.

        Without ``space``: one of this blueprint that is the ``.venv`` or ``node_modules`` beside it or further up, else
        ``HOLO_SPACE``'s, else one that is named after the blueprint's folder. It is made if it is not there, and turned
        into the new catalog if the blueprint has changed. Otherwise it is left as it is, and finding that out takes a
        few stats. Raises :class:`Conflict` for a space of anything else.
        """
        from holo.blueprints.blueprint import named
        from holo.blueprints.memory import recall

        self._sweep()
        blueprint = named(os.fspath(path))
        name = space or self._space_for(blueprint)
        known = self.tree.find(name)
        if _is_whole(known):
            current = recall(self.library, blueprint, self._chosen(compile, blueprint, known))
            if current is not None and current[1] == known.digest:
                return known
        return self._update_space(blueprint, name, compile)

    def _update_space(self, blueprint: Blueprint, name: str, compile: bool | None) -> Space:  # noqa: A002
        """Let a space hold what a blueprint says, if that is not what it holds, or if it is not whole."""
        from holo.blueprints.make import find
        from holo.blueprints.memory import origin_of
        from holo.blueprints.modules import place_for

        with self.tree.lock(name, self._on_wait):
            known = self.tree.find(name)
            to = place_for(self.tree, blueprint) if known is None else None
            chosen = self._chosen(compile, blueprint, known, to)
            if _is_whole(known):
                made = find(self.library, blueprint, chosen)
                if made.digest == known.digest:
                    return known
            origin = origin_of(self.tree, known) if known is not None else None
            is_ours = origin is not None and origin.blueprint == blueprint.path
            if is_ours and _is_whole(known):
                self._on_wait(f"space {name} becomes what {blueprint.path} says now; what was changed in it goes")
            options = self._options(None, strict=False, verify=False, force=False, on_progress=None)
            self._init_from(blueprint, name, known, to, chosen, options, may_change=is_ours)
            if to is not None:
                self._on_wait(f"space {name} is {to}, where Node.js looks for packages")
        return self.tree.get(name)

    def space_to_run_in(
        self,
        space: str | None = None,
        blueprint: PathLike | None = None,
        *,
        compile: bool | None = None,  # noqa: A002
        force: bool = False,
    ) -> Space:
        """The space that is meant: as it is (:meth:`space`), or of a blueprint (:meth:`space_of_blueprint`).

        That is the one that is named. If neither argument names anything: the space that is the ``.venv`` or the
        ``node_modules`` of the current folder or of one above it, and its blueprint, if it was made of one; else
        ``HOLO_SPACE``'s; else that of the nearest blueprint upwards; else ``user``.
        """
        name, found = self._meant(space, blueprint)
        if found is None:
            _refuse_compile(compile)
            return self.space(name, force=force)
        made = self.space_of_blueprint(found.path, name, compile=compile)
        if not force:
            from holo import activation

            activation.check_python(made.path, made.name)
        return made

    def hidden_modules(self, space: Space) -> str | None:
        """What to say of a space of packages that Node.js does not find by ``import``; ``None`` if there is nothing."""
        if not os.path.isdir(os.path.join(space.path, "node_modules")):
            return None
        from holo.blueprints.modules import hidden

        return hidden(self.tree, space)

    def build_log(self, catalog: str) -> bytes:
        """What the tools printed when a catalog (name or digest prefix) was built from a blueprint."""
        from holo.blueprints.make import read_log

        return read_log(self.library, self.library.resolve(catalog)[0])

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
        yes: bool = False,
        on_progress: OnProgress | None = None,
    ) -> RestoreReport:
        """Bring a space back to pristine, or turn it into another ``catalog`` (name or digest prefix).

        Without ``space``: the one that lives at ``to``, else the one that is the ``.venv`` or ``node_modules`` of the
        current folder or of one above it, else the one ``HOLO_SPACE`` names, else ``user``. ``strict`` fails instead of
        falling back to another strategy, ``verify`` hashes everything that is shared or unchanged, ``force`` takes over
        a directory that is not a space, and with ``yes`` also one that holds the history of a version control system
        (``.git``).
        """
        from holo.restore import restore

        options = self._options(strategy, strict, verify, force, on_progress, yes=yes)
        name, path = self._space_meant(space, to, catalog)
        self._catalog_meant(name, catalog)  # what does not exist is told before anything is made
        with self._locked(name):
            return restore(self.library, name, *self._catalog_meant(name, catalog), path, options)

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
        yes: bool = False,
    ) -> DryRun:
        """What :meth:`restore` with the same arguments would do. Changes nothing."""
        from holo.restore import dry_run

        options = self._options(strategy, strict, verify, force, None, yes=yes)
        name, path = self._space_meant(space, to, catalog)
        self._catalog_meant(name, catalog)
        with self._locked(name):
            return dry_run(self.library, name, *self._catalog_meant(name, catalog), path, options)

    def run_ephemeral(
        self,
        command: Sequence[str],
        space: str | None = None,
        *,
        catalog: str | None = None,
        blueprint: PathLike | None = None,
        compile: bool | None = None,  # noqa: A002
        keep: str | None = None,
        record: bool = False,
    ) -> int:
        """Run a command in a throw-away environment at a space's path, with the space's variables, to its end.

        It is pristine, and what the command changes in it is gone afterwards; a space that exists is not touched, and
        everybody else goes on seeing it. It is of the space's catalog, or of ``catalog`` or ``blueprint``, which is
        built if need be; then the space need not exist. If nothing is named, as :meth:`space_to_run_in` chooses.
        ``keep`` makes a space of what the command leaves, however it ends, or with ``record`` only a catalog. Returns
        the exit code, or minus the number of the signal that ended the command. What it left running is ended.
        """
        from holo import ephemeral

        self._sweep()
        if catalog is not None and blueprint is not None:
            raise UsageError("an environment is of a catalog or of a blueprint", "Leave out one of the two.")
        if keep is not None:
            self._refuse_known(keep, record=record)
        elif record:
            raise UsageError("a catalog to be recorded needs a name", "Add --keep NAME.")
        name, found = self._meant(space, blueprint) if catalog is None else (space or self._near_or_default(), None)
        known = self.tree.find(name)
        if known is not None:
            self.tree.refuse_copied(known)
        path = known.path if known is not None else self.tree.default_path(name)
        if found is not None:
            from holo.blueprints.modules import place_for

            path = (place_for(self.tree, found) if known is None else None) or path
            with self._built(found, self._chosen(compile, found, known, path)) as made:
                catalog = made.digest
        else:
            _refuse_compile(compile)
        environment = ephemeral.Environment(name, path, *self._catalog_meant(name, catalog))

        def save(root: Directory, path: str) -> None:
            from holo.record import record as record_tree

            with self.library.lock(exclusive=False, on_wait=self._on_wait):
                # A socket or a fifo that the command left is no reason to lose its result.
                record_tree(self.library, path, keep, root=root, skip_special=True, workers=self.settings.workers)

        home = ephemeral.Home(self.library, self.tree, self.settings.workers, self._on_wait)
        code = ephemeral.run(home, environment, list(command), save if keep is not None else None)
        if keep is not None and not record:
            self.init(keep, keep)
        return code

    def _refuse_known(self, name: str, *, record: bool) -> None:
        """What is kept is a catalog, and a space of the same name unless it is only to be recorded."""
        from holo.hololib.library import check_name

        check_name(name, "catalog" if record else "space")
        if self.library.summary(name) is not None:
            raise Conflict(f"there is a catalog {name!r} already", "Keep the result under another name.")
        if not record and self.tree.find(name) is not None:
            raise Conflict(f"there is a space {name!r} already", "Keep the result under another name.")

    def _sweep(self) -> None:
        """Remove what killed throw-away environments have left."""
        from holo.trees.overlay import Layers

        if Layers(self.tree.path).working():
            from holo import ephemeral

            ephemeral.sweep(ephemeral.Home(self.library, self.tree, self.settings.workers, self._on_wait))

    def delete(self, space: str | None = None) -> Space:
        """Remove a space: the named one, else the ``.venv`` or ``node_modules`` of the current folder or of one above.

        Returns what it was; ``damaged`` if its record was, and the path is only likely then.
        """
        from holo.restore import delete

        self._sweep()
        if space is None:
            near = self._only_near()
            if near is None:
                raise UsageError(
                    f"no space is named, and no {' or '.join(PLACES)} here or above is one",
                    "Name it: `holo delete SPACE`. `holo list` shows which there are.",
                )
            space = near.name
        if self.tree.find_anyhow(space) is None:  # told before a lock is made
            raise self.tree.unknown(space)
        return delete(self.library, space, self._on_wait)

    def space(self, name: str | None = None, *, force: bool = False) -> Space:
        """The space of that name, to work in; without one, as :meth:`restore` chooses.

        Raises :class:`NotFound`, also if its directory, or the Python in it, is gone: commands would be found elsewhere
        on ``PATH``. And :class:`Conflict` if it belongs to another home, or was moved and not restored since, or if
        its last restore has not ended. With ``force`` it need neither have its Python nor be restored to the end.
        """
        self._sweep()
        found = self.tree.get(name or self._near_or_default())
        self.tree.refuse_copied(found)
        if not os.path.isdir(found.path):
            raise NotFound(
                f"the directory of space {found.name!r} is gone: {found.path}",
                f"Make it again with `holo restore --space {found.name}`.",
            )
        self.tree.refuse_moved(found)
        if not force:
            from holo import activation

            self.tree.refuse_unfinished(found)
            activation.check_python(found.path, found.name)
        return found

    def spaces(self) -> list[Space]:
        """All spaces, by name, as their directories show them; also those whose records are ``damaged``.

        To see that, a stat of each directory is taken: ``missing``, ``changed`` (something was added, removed or
        replaced), or else ``pristine``.
        """
        from holo.glance import glance

        self._sweep()
        return list(glance(self.library, self.tree.spaces()))

    def catalogs(self, reference: str | None = None) -> list[CatalogSummary]:
        """All catalogs, by name, or the one of that name or digest prefix, under all its names."""
        found = self.library.catalogs()
        if reference is None:
            return found
        digest = self.library.resolve(reference)[1]
        return [summary for summary in found if summary.digest == digest]

    def catalog(self, reference: str) -> Catalog:
        """The catalog of that name or digest prefix, validated."""
        return self.library.load(self.library.resolve(reference)[1])

    def golden_trees(self) -> set[str]:
        """The digests of the catalogs that have a golden tree."""
        return self.library.golden_trees()

    def remove_catalog(self, reference: str) -> tuple[str, str]:
        """Remove a catalog; returns its name and digest. Its blobs stay until they are collected."""
        from holo.trees.overlay import Layers

        self.library.resolve(reference)  # what does not exist is told before a lock is made
        with self.library.lock(exclusive=True, on_wait=self._on_wait):
            removed = self.library.remove(reference)
        Layers(self.tree.path).collect(self.library.digests(), dry_run=False)
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
        Raises :class:`IntegrityError` if a catalog is damaged, so that it is not known what is needed; only drafts,
        locks and layers are removed then.
        """
        from holo.blueprints.make import tidy
        from holo.hololib import collect
        from holo.trees.overlay import Layers

        self._sweep()
        size = collect.parse_size(max_size) if isinstance(max_size, str) else max_size
        policy = collect.Policy(keep_days, keep_last, size)
        known, _ = collect.needs(self.library)  # takes long, and nobody has to wait for that
        with self.library.lock(exclusive=not dry_run, on_wait=self._on_wait):
            holders = self.tree.holders() if policy != collect.Policy() else {}
            report = collect.collect(self.library, known, holders, policy, dry_run=dry_run)
            drafts, locks = self.tree.tidy(dry_run=dry_run)
            drafts += tidy(self.library, self.tree, dry_run=dry_run)
        going = {use.digest for use in report.catalogs}
        layers = Layers(self.tree.path).collect(self.library.digests() - going, dry_run=dry_run)
        if report.damage:
            raise collect.incomplete(report.damage)
        return replace(report, drafts=report.drafts + drafts, locks=locks, layers=layers)

    def uninstall(self, *, spaces: bool = False, dry_run: bool = False) -> UninstallReport:
        """Remove all that holo ever made for this home; its ``spaces``, wherever they are, only if that is said.

        What is not holo's stays, and what belongs to other users and homes; the report says what and why. ``dry_run``
        changes nothing. Raises :class:`Conflict` if a throw-away environment is in use or a build is running.
        """
        from holo import ephemeral, uninstall

        self._sweep()
        home = ephemeral.Home(self.library, self.tree, self.settings.workers, self._on_wait)
        report = uninstall.uninstall(home, spaces=spaces, dry_run=dry_run)
        if self.settings.file is not None:
            report.left[self.settings.file] = "it holds your settings"
        return report

    def check(
        self,
        *,
        repair: bool = False,
        sources: Sequence[PathLike] = (),
        spaces: Sequence[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> CheckReport:
        """Read everything in the library, and compare ``spaces`` (names) with their catalogs; say what is wrong.

        Without ``spaces``: those that are the ``.venv`` and ``node_modules`` of the current folder or of one above it.
        ``repair`` moves what is bad into the quarantine and restores content from what is at hand, and from
        ``sources``: other libraries, or any directories.
        """
        from holo.check import Options, check

        if sources and not repair:
            raise UsageError("sources are for a repair only", "Add --repair.")
        return check(
            self.library,
            self.tree,
            Options(
                repair=repair,
                sources=[os.fspath(source) for source in sources],
                spaces=spaces if spaces is not None else [space.name for space in self._near()],
                workers=self.settings.workers,
                on_progress=on_progress,
                on_wait=self._on_wait,
            ),
        )

    def adopt(self, spaces: Sequence[str] = ()) -> list[Adoption]:
        """Let spaces outside the holotree, which a copied home knows about, belong to this home; says which.

        ``spaces``: names; without any, all. Refused are those that another home still has, and directories that do
        not look like a space of their catalog. The next restore of one removes what is not in its catalog.
        """
        from holo.check.adopt import adopt

        return adopt(self.library, self.tree, spaces, self.settings.workers, self._on_wait)

    def _options(
        self,
        strategy: Strategy | str | None,
        strict: bool,
        verify: bool,
        force: bool,
        on_progress: OnProgress | None,
        *,
        yes: bool = False,
    ) -> Options:
        from holo.restore import Options

        chosen = settings_module.Strategy.parse(strategy, "flag --strategy") if strategy else self.settings.strategy
        return Options(chosen, strict, verify, force, yes, self.settings.workers, on_progress, self._on_wait)

    @contextmanager
    def _locked(self, space: str) -> Iterator[None]:
        """Keep others from the space, and the library from losing anything.

        In this order: who waits for a space does not keep anybody waiting for the library.
        """
        self._sweep()
        with self._alone_with(space), self.library.lock(exclusive=False, on_wait=self._on_wait):
            yield

    @contextmanager
    def _alone_with(self, space: str) -> Iterator[None]:
        """Keep others from the space. If it was refused, and so is no space, its lock goes."""
        try:
            with self.tree.lock(space, self._on_wait):
                yield
        except HoloError:
            with suppress(HoloError):
                self.tree.drop_lock(space)
            raise

    def _near(self) -> list[Space]:
        """The spaces that are the ``.venv`` and ``node_modules`` of the current folder, or of the nearest one above."""
        with suppress(NotFound):  # the current directory is gone
            return self.tree.near(current_directory())
        return []

    def _only_near(self) -> Space | None:
        """The one of them that is to be changed. Raises :class:`UsageError` if nobody can tell which."""
        near = self._near()
        if len(near) > 1:
            names = " or ".join(f"--space {space.name}" for space in near)
            raise UsageError(f"{' and '.join(space.path for space in near)} are spaces", f"Say which: {names}.")
        return near[0] if near else None

    def _near_or_default(self) -> str:
        near = self._only_near()
        return near.name if near is not None else _default_space()

    def _meant(self, space: str | None, blueprint: PathLike | None) -> tuple[str, Blueprint | None]:
        """The name of the space that a command is to run in, and what that is to hold unless it stays as it is."""
        if blueprint is not None:
            from holo.blueprints.blueprint import named

            found = named(os.fspath(blueprint))
            return space or self._space_for(found), found
        if space:
            return space, None
        from holo.blueprints.blueprint import nearest

        if near := self._near():
            followed = self._followed(near[0])
            is_modules = followed is not None and followed.kind == "npm"
            beside = nearest(current_directory()) if is_modules else None
            if beside is None or beside.kind == "npm":  # else packages for Node.js are not what is meant
                return near[0].name, followed
        if os.environ.get("HOLO_SPACE"):
            return _default_space(), None
        nearby = nearest(current_directory())
        return (nearby.space, nearby) if nearby is not None else (_default_space(), None)

    def _followed(self, space: Space) -> Blueprint | None:
        """The blueprint that a space was made of, if it is there and may be built without being named."""
        from holo.blueprints.blueprint import is_own, recognise
        from holo.blueprints.memory import origin_of

        origin = origin_of(self.tree, space)
        return recognise(origin.blueprint) if origin is not None and is_own(origin.blueprint) else None

    def _space_for(self, blueprint: Blueprint) -> str:
        """The name of the space of a blueprint, where none is named."""
        from holo.blueprints.memory import origin_of

        for space in self.tree.near(blueprint.folder):
            origin = origin_of(self.tree, space)
            if origin is not None and origin.blueprint == blueprint.path:
                return space.name
        return os.environ.get("HOLO_SPACE") or blueprint.space

    def _space_meant(self, space: str | None, to: PathLike | None, catalog: str | None) -> tuple[str, str | None]:
        """The name of the space that a restore is about, and its path if that was given."""
        path = _absolute(to)
        if space is not None:
            return space, path
        if path is None:
            return self._near_or_default(), None
        at = self.tree.at(path)
        if at is None and catalog is None:
            from shlex import quote

            raise NotFound(
                f"{path} is not a space",
                f"`holo list` shows which are. To make it one: `holo init --space NAME SOURCE --to {quote(path)}`.",
            )
        return at.name if at is not None else _default_space(), path

    def _catalog_meant(self, space: str, reference: str | None) -> tuple[str, str]:
        """The name and the digest of the catalog that a space is to be restored to."""
        if reference is not None:
            return self.library.resolve(reference)
        known = self.tree.get(space)
        return known.catalog, known.digest

    def _resolve_blueprint(self, source: PathLike | None, known: Space | None, to: PathLike | None) -> Blueprint | None:
        """The blueprint that a source is, if any. Without a source: the space's own; for a new one, the nearest."""
        from holo.blueprints import blueprint

        if source is not None:
            text = os.fspath(source)
            is_catalog = os.sep not in text and self.library.is_catalog(text)
            return blueprint.recognise(text) if os.path.isfile(text) and not is_catalog else None
        if known is None:
            of_npm = os.path.basename(_absolute(to) or "") == "node_modules"
            return blueprint.nearest(current_directory(), of_npm=of_npm)
        from holo.blueprints.memory import origin_of

        made_from = origin_of(self.tree, known)
        if made_from is None or not os.path.isfile(made_from.blueprint):
            return None
        return blueprint.recognise(made_from.blueprint)

    def _chosen(
        self,
        compile: bool | None,  # noqa: A002
        blueprint: Blueprint,
        known: Space | None,
        to: PathLike | None = None,
    ) -> BuildOptions:
        """How a blueprint is built for a space: bytecode as was chosen, now or when it was made of the blueprint."""
        from holo.blueprints.builders import Options
        from holo.blueprints.memory import origin_of
        from holo.blueprints.modules import part_at

        origin = origin_of(self.tree, known) if compile is None and known is not None else None
        path = known.path if known is not None else _absolute(to)
        if origin is not None and origin.blueprint == blueprint.path:
            compile = origin.compile  # noqa: A001 - the option's name
        return Options(compile is not False, part_at(blueprint, path))

    @contextmanager
    def _built(self, blueprint: Blueprint, chosen: BuildOptions) -> Iterator[Made]:
        """The catalog of a blueprint, with the library's lock held, so that it stays."""
        from holo.blueprints.make import Wanted, build, find

        while True:
            made = find(self.library, blueprint, chosen)
            if isinstance(made, Wanted):
                made = build(self.library, self.tree, made, workers=self.settings.workers, on_wait=self._on_wait)
            with self.library.lock(exclusive=False, on_wait=self._on_wait):
                if self.library.has(made.digest):  # nobody has collected it meanwhile
                    yield made
                    return

    def _init_from(
        self,
        blueprint: Blueprint,
        space: str,
        known: Space | None,
        path: str | None,
        chosen: BuildOptions,
        options: Options,
        *,
        may_change: bool,
    ) -> RestoreReport:
        """Make a space, whose lock is held, from a blueprint, and remember from which.

        ``may_change``: also if it holds another catalog. If not, that is refused before anything is built.
        """
        from holo.blueprints.memory import Origin, save_origin
        from holo.restore import restore

        if known is not None and not may_change:
            self._refuse_change(known, blueprint, chosen)
        with self._built(blueprint, chosen) as made:
            report = restore(self.library, space, made.name, made.digest, path, options)
            save_origin(self.tree, space, Origin(blueprint.path, chosen.compile, made.digest))
        return report

    def _refuse_change(self, known: Space, blueprint: Blueprint, chosen: BuildOptions) -> None:
        """Raise :class:`Conflict` if a space does not hold what a blueprint says."""
        from holo.blueprints.make import find
        from holo.blueprints.memory import origin_of

        if find(self.library, blueprint, chosen).digest == known.digest:
            return
        origin = origin_of(self.tree, known)
        if origin is not None and origin.blueprint == blueprint.path:
            raise Conflict(
                f"space {known.name!r} holds {known.catalog!r}, and {blueprint.path} has changed since",
                f"{self._way_to(known, blueprint)} What was changed in the space is lost then.",
            )
        raise Conflict(
            f"space {known.name!r} holds catalog {known.catalog!r}, which is not what {blueprint.path} says",
            f"{self._way_to(known, blueprint)} Or choose another name with --space.",
        )

    @staticmethod
    def _way_to(known: Space, blueprint: Blueprint) -> str:
        from shlex import quote

        return f"`holo init --space {known.name} --force {quote(blueprint.path)}` turns it into that."

    def _refuse_other(self, known: Space | None, name: str, digest: str, options: Options) -> None:
        """Raise :class:`Conflict` if a space holds another catalog and nobody insists."""
        if known is not None and known.digest != digest and not options.force:
            raise Conflict(
                f"space {known.name!r} holds catalog {known.catalog} ({known.digest[:12]}), not {name} ({digest[:12]})",
                "--force turns it into the other one. Or choose another name with --space.",
            )

    def _say_what_is_taken(self, source: PathLike | None, known: Space | None) -> None:
        """Say which catalog a space will be of, if it was not named, or if something else could be meant."""
        text = os.fspath(source) if source is not None else ""
        if source is None and known is None:
            only = self.library.only()[0]
            self._on_wait(f"there is no blueprint here: taking {only!r}, the only catalog of {self.library.path}")
        elif text and os.sep not in text and os.path.exists(text) and self.library.is_catalog(text):
            name = self.library.resolve(text)[0]
            self._on_wait(f"taking catalog {name!r}, not what is called {text!r} here: that is ./{text}")

    def _from_source(
        self, source: PathLike | None, known: Space | None, approve: Callable[[str, str], object], *, keep_setid: bool
    ) -> tuple[str, str, tuple[str, ...]]:
        """The name and the digest of the catalog that a source means; recorded or taken in if need be, with warnings.

        ``approve`` is called with both before that is done, and may raise.
        """
        if (named := self._named(source, known)) is not None:
            return (*named, ())
        assert source is not None
        text = os.fspath(source)
        if os.path.isdir(text):
            from holo.record import record

            report = record(self.library, text, keep_setid=keep_setid, workers=self.settings.workers, approve=approve)
            return report.name, report.digest, report.warnings
        return (*self._import_file(text, approve, keep_setid=keep_setid), ())

    def _named(self, source: PathLike | None, known: Space | None) -> tuple[str, str] | None:
        """The name and the digest of the catalog in the library that a source means; ``None`` if it is a path.

        Raises :class:`NotFound` if nothing is there.
        """
        if source is None:
            return (known.catalog, known.digest) if known is not None else self.library.only()
        text = os.fspath(source)
        if os.sep not in text:
            try:
                return self.library.resolve(text)
            except NotFound as error:
                if not os.path.exists(text):
                    raise NotFound(f"{error.message}, nor a file of that name here", error.hint) from None
        if not os.path.exists(text):
            raise NotFound(
                f"there is nothing at {text}", "Name a catalog, a catalog file, a directory to record, or a blueprint."
            )
        return None

    def _import_file(self, path: str, approve: Callable[[str, str], object], *, keep_setid: bool) -> tuple[str, str]:
        """Take in a catalog file, with the blobs it needs from the ``library`` folder beside it."""
        from holo.catalog import Catalog
        from holo.hololib.library import read_catalog_file
        from holo.record import default_name
        from holo.relocation.patch import Relocator

        # However the file is laid out, the library keeps the canonical document, which the digest is of.
        data, _ = read_catalog_file(path, follow=True)
        if not path.endswith(".json") and b'"directories"' not in data:
            from holo.blueprints.blueprint import unknown

            raise unknown(path)
        catalog = Catalog.from_json(Catalog.from_json(data, path).to_json(), path)
        if not keep_setid and (file := catalog.privileged()) is not None:
            raise CatalogInvalid(
                f"catalog {path} gives rights with setuid, setgid or capabilities: {file}",
                "Whoever may run that would act as you. If you trust who made the catalog: --keep-setid.",
            )
        name = default_name(absolute(path).removesuffix(".json"))
        approve(name, catalog.digest)
        beside = os.path.join(os.path.dirname(absolute(path)), "library")
        blobs = self.library.blobs
        missing = {row[4]: row[2] for _, row in catalog.files() if not blobs.has(row[4], row[2])}
        if missing and not os.path.isdir(beside):
            raise NotFound(
                f"{len(missing)} blobs of {path} are neither in {self.library.path} nor in {beside}",
                "A catalog file needs its library beside it: put that there.",
            )
        relocator = Relocator(catalog.prefix, catalog.prefix)
        for file, (_, _, size, _, digest) in catalog.files():
            if file in catalog.relocations:
                chunks = blobs.foreign_chunks(beside, digest, size) if digest in missing else None
                relocator.check(chunks or blobs.chunks(digest, size), catalog.relocations[file], file)
        with self.library.unsettled.record("Nothing was taken into the library."):
            blobs.take(beside, missing)
            self.library.publish(catalog, name)
        return name, catalog.digest


def _absolute(path: PathLike | None) -> str | None:
    if path is None:
        return None
    if not os.fspath(path):  # as "$UNSET" is in a shell; it would mean the current directory
        raise UsageError("--to is empty", "Name the directory that is to be the space.")
    return absolute(os.fspath(path))


def _refuse_compile(wanted: bool | None) -> None:
    if wanted is not None:
        raise UsageError(
            "--compile and --no-compile are for blueprints", "Leave it out: a catalog holds what was recorded."
        )


def _is_whole(space: Space | None) -> TypeGuard[Space]:
    return space is not None and space.shown_state == "pristine" and os.path.isdir(space.path)


def _default_space() -> str:
    return os.environ.get("HOLO_SPACE") or DEFAULT_SPACE
