"""What users do, as methods of :class:`Hololib`: the command line calls these, and so can any program."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from holo import selection
from holo import settings as settings_module
from holo.errors import Conflict, HoloError, IntegrityError, NotFound, UsageError
from holo.fresh import undone_if_refused
from holo.hololib import CatalogRef, CatalogSummary, Library
from holo.hololib.layout import NAME
from holo.hololib.locks import OnWait, say_waiting
from holo.hololib.recovery import locked_library
from holo.holotree import PLACES, Holotree
from holo.home import Home, refuse_file
from holo.space import Space, is_whole
from holo.walk import absolute, current_directory, directory_named, refuse_encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from holo.answers.changes import Changes
    from holo.answers.look import Entry
    from holo.answers.status import SpaceHistory, SpaceStatus
    from holo.bench import BenchReport
    from holo.blueprints.choices import Chosen
    from holo.catalog import Catalog
    from holo.check import CheckReport
    from holo.check.adopt import Adoption
    from holo.doctor import Diagnosis
    from holo.ephemeral import Environment
    from holo.exchange import RemoteLibrary
    from holo.gc.report import GcReport
    from holo.home import Exchange
    from holo.hooks import HookReport
    from holo.listing import CatalogDetails, SpaceDetails
    from holo.platform import Directory
    from holo.record import RecordReport
    from holo.restore import Carrier, DryRun, Options
    from holo.restore.report import RestoreReport
    from holo.sbom import Sbom
    from holo.settings import Settings, Strategy
    from holo.signatures import Trust
    from holo.spares import SparesReport
    from holo.transport.export import ExportReport
    from holo.transport.intake import ImportReport
    from holo.uninstall import UninstallReport
    from holo.usage.report import UsageReport
    from holo.verification import VerifyReport
    from holo.worktrees import RemovedWorktree, Spaces, WorktreeReport

    PathLike: TypeAlias = str | os.PathLike[str]
    OnProgress: TypeAlias = Callable[[int, int], object]


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
        refuse_file(self.settings.home)

        def is_space(name: str) -> bool:
            return spaces.is_space(name)

        library = Library(self.settings.home, self.settings.compression, is_space)
        spaces = Holotree(self.settings.home, library.catalogs.is_catalog)
        here = Home(library, spaces, self.settings.workers, on_wait)
        self.home = here._replace(exchange=self._exchange(here), spares=self.settings.spares)

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
        setuid and setgid bits. Recording the same tree again stores nothing and yields the same digest. If the tree
        lies in a project, and names it, a space of another checkout will name that instead.
        """
        from holo.hololib.layout import check_name
        from holo.record import record

        if name is not None:  # what is wrong is told before anything is made
            check_name(name, "catalog")
        path = directory_named(os.fspath(directory), "record", "Name the directory to record.")
        with self._using_library():
            return record(
                self.home.library,
                path,
                name,
                skip_special=skip_special,
                keep_setid=keep_setid,
                project=selection.project_chosen(self.home, path),
                workers=self.home.workers,
                on_progress=on_progress,
            )

    def init(
        self,
        space: str | None = None,
        source: PathLike | None = None,
        *,
        to: PathLike | None = None,
        project: PathLike | None = None,
        strategy: Strategy | str | None = None,
        strict: bool = False,
        verify: bool = False,
        force: bool = False,
        yes: bool = False,
        keep_setid: bool = False,
        compile: bool | None = None,  # noqa: A002 - the option's name
        editable_project: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> RestoreReport:
        """Make a space from ``source``: a catalog's name or digest prefix, a catalog file, a directory, a blueprint.

        Without ``space``: the one at ``to``, or else the ``.venv`` or ``node_modules`` of the current folder or of one
        above it; else ``HOLO_SPACE``'s, that of the nearest blueprint, or ``user``. Without ``force``, the beginning of
        the name or digest of a catalog will do.

        A directory is recorded first, a blueprint built if the library does not have what it says. Without a source:
        what the space was made from if it exists, else the nearest blueprint upwards, else the library's only
        catalog. A space that exists is restored; if it holds another catalog, that is refused without ``force``.
        ``keep_setid`` keeps the setuid and setgid bits of a directory that is recorded, and accepts them, and
        capabilities, in a catalog file. ``project``: the root of the checkout whose code the space is to use, if the
        catalog's files name a project; by default the one that contains ``to``. ``compile``: whether a
        blueprint's bytecode is compiled; without it, as when the space was made of that blueprint, else yes. The other
        arguments are those of :meth:`restore`.
        """
        from holo.blueprints.memory import look_up
        from holo.restore.place import choose_place

        options = self._options(strategy, strict, verify, force, on_progress, yes=yes)
        options = options._replace(project=selection.project_named(project))
        text = os.fspath(source) if source is not None else None
        path = selection.place_named(to)
        if space is None:
            space = selection.space_to_init(self.home, path)
        elif text is None:
            selection.refuse_source(self.home, space)
        self._sweep()
        self._obtain(text, or_directory=True)
        known = look_up(self.home.spaces, space)
        if selection.blueprint_named(self.home, text, known, path) is None:
            # What does not exist, or cannot be read, is told before anything is made.
            named = selection.catalog_named(self.home, text, known.space, begun=not force, space=space)
            if named is None and text is not None:
                selection.refuse_damaged(text)
        with self._alone_with(space):
            known = look_up(self.home.spaces, space)
            blueprint = selection.blueprint_named(self.home, text, known, path)
            if blueprint is not None or selection.catalog_named(self.home, text, known.space, begun=not force) is None:
                # What is wrong with it is told before anything is recorded or built.
                choose_place(self.home, space, path, take_over=options.force, with_history=options.yes)
            if blueprint is None:
                _refuse_choice(compile, editable_project)
                return self._init_from_catalog(space, text, known.space, path, options, keep_setid=keep_setid)
            from holo.blueprints.choices import Chosen, build_options
            from holo.blueprints.spaces import init_space

            chosen = build_options(blueprint, known, path, Chosen(compile, editable_project))
            return init_space(self.home, blueprint, space, known, path, chosen, options, may_change=force)

    def catalog_of_blueprint(
        self,
        path: PathLike,
        *,
        compile: bool = True,  # noqa: A002
        editable_project: bool = True,
    ) -> CatalogRef:
        """The catalog of a blueprint, which is built if the library does not have it."""
        from holo.blueprints.blueprint import named
        from holo.blueprints.builder import BuildOptions
        from holo.blueprints.spaces import built

        options = BuildOptions(compile, editable_project=editable_project)
        with built(self.home, named(os.fspath(path)), options) as catalog:
            return catalog

    def space_of_blueprint(
        self,
        path: PathLike,
        space: str | None = None,
        *,
        compile: bool | None = None,  # noqa: A002
        editable_project: bool | None = None,
    ) -> Space:
        """A space of what a blueprint says now, to run something in.

        Without ``space``: one of this blueprint that is the ``.venv`` or ``node_modules`` beside it or further up, else
        ``HOLO_SPACE``'s, else one that is named after the blueprint's folder. It is made if it is not there, and turned
        into the new catalog if the blueprint has changed. Otherwise it is left as it is, and finding that out takes a
        few stats. Raises :class:`Conflict` for a space of anything else.
        """
        from holo.blueprints.blueprint import named
        from holo.blueprints.choices import Chosen, build_options
        from holo.blueprints.memory import look_up, recall

        self._sweep()
        choice = Chosen(compile, editable_project)
        blueprint = named(os.fspath(path))
        name = space if space is not None else selection.space_for(self.home, blueprint)
        known = look_up(self.home.spaces, name)
        if is_whole(known.space):
            chosen = build_options(blueprint, known, None, choice)
            current = recall(self.home.library, blueprint, chosen)
            if current is not None and current.digest == known.space.digest:
                return known.space
        from holo.blueprints.spaces import update_space

        options = self._options(None, strict=False, verify=False, force=False, on_progress=None)
        return update_space(self.home, blueprint, name, choice, options)

    def space_to_run_in(
        self,
        space: str | None = None,
        blueprint: PathLike | None = None,
        *,
        compile: bool | None = None,  # noqa: A002
        editable_project: bool | None = None,
        force: bool = False,
    ) -> Space:
        """The space that is meant: as it is (:meth:`space`), or of a blueprint (:meth:`space_of_blueprint`).

        That is the one that is named. If neither argument names anything: the space that is the ``.venv`` or the
        ``node_modules`` of the current folder or of one above it, and its blueprint, if it was made of one; else
        ``HOLO_SPACE``'s; else that of the nearest blueprint upwards; else ``user``.
        """
        from holo import activation

        path = os.fspath(blueprint) if blueprint is not None else None
        name, found = selection.space_to_run(self.home, space, path)
        if found is None:
            _refuse_choice(compile, editable_project)
            return self.space(name, force=force)
        made = self.space_of_blueprint(found.path, name, compile=compile, editable_project=editable_project)
        if not force:
            activation.check_python(made.path, made.name)
        return made

    def variables(self, space: Space) -> dict[str, str | None]:
        """What makes a space the current environment: variables to set, and with ``None`` those to unset."""
        found = self._variables(space)
        self.home.spaces.mark_used(space.name)
        return found

    def _variables(self, space: Space) -> dict[str, str | None]:
        from holo import activation

        self.home.spaces.refuse_unseen(space)
        return activation.variables(space.path, space.name, os.environ)

    def shell_code(self, space: Space, shell: str = "sh") -> str:
        """The same as code that a shell (``sh``, ``fish`` or ``powershell``) evaluates.

        Bytes that are not UTF-8 are in the text as Python's surrogate escapes.
        """
        from holo import activation

        code = activation.render(self._variables(space), shell)
        self.home.spaces.mark_used(space.name)
        return code

    def run_in(self, space: Space, command: Sequence[str] | None = None) -> int:
        """Run a command in a space, by default the user's shell; returns its exit code.

        On POSIX this process becomes the command, and never returns. If the space is a view, this process sees it from
        then on, also where the command cannot be run.
        """
        from holo import activation

        if space.upper:
            from holo.trees import views

            space = views.enter(self.home, space)
        wanted = list(command) if command is not None else [activation.shell(os.environ)]
        return activation.run(wanted, activation.apply(self.variables(space), os.environ))

    def hidden_modules(self, space: Space) -> str | None:
        """What to say of a space of packages that Node.js does not find by ``import``; ``None`` if there is nothing."""
        if not os.path.isdir(os.path.join(space.path, "node_modules")):
            return None
        from holo.blueprints.modules import hidden

        return hidden(self.home.spaces, space)

    def imports_elsewhere(self, space: Space) -> str | None:
        """What to say of a space that imports code from another checkout of its project; ``None`` if it does not.

        The project is the one that the space was made for, else the one that contains it, else the current folder's.
        """
        from holo.projects import project_of
        from holo.relocation.project import imports_elsewhere

        project = space.project or project_of(space.path)
        if project is None:
            with suppress(NotFound):  # the current directory is gone
                project = project_of(os.path.join(current_directory(), "x"))
        return next(iter(imports_elsewhere(space.path, project or "")), None)

    def build_log(self, catalog: str) -> bytes:
        """What the tools printed when a catalog (name or digest prefix) was built from a blueprint."""
        from holo.blueprints.make import read_log

        return read_log(self.home.library, self.home.library.catalogs.resolve(catalog, begun=True).name)

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
        with self._restoring(space, to, catalog) as (name, path, wanted, carrier):
            return restore(self.home, name, wanted, path, options, carrier)

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
        with self._restoring(space, to, catalog) as (name, path, wanted, carrier):
            return dry_run(self.home, name, wanted, path, options, carrier)

    def run_ephemeral(
        self,
        command: Sequence[str],
        space: str | None = None,
        *,
        catalog: str | None = None,
        blueprint: PathLike | None = None,
        compile: bool | None = None,  # noqa: A002
        editable_project: bool | None = None,
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
        _refuse_contradictions(catalog, blueprint, keep, record=record)
        if keep is not None:
            self._refuse_taken(keep, record=record)
        self._obtain(catalog)
        from holo.blueprints.choices import Chosen

        environment = self._environment(space, catalog, blueprint, Chosen(compile, editable_project))

        def save(root: Directory, path: str) -> None:
            from holo.record import record as record_tree

            try:
                with self._using_library():
                    # A socket or a fifo that the command left is no reason to lose its result.
                    record_tree(
                        self.home.library,
                        path,
                        keep,
                        root=root,
                        skip_special=True,
                        project=environment.project or None,
                        workers=self.home.workers,
                    )
            except HoloError as error:
                message = f"what the command left could not be kept, and is gone: {error.message}"
                raise type(error)(message, error.remedy, error.left) from error

        self.home.spaces.mark_used(environment.space)
        code = ephemeral.run(self.home, environment, list(command), save if keep is not None else None)
        if keep is not None and not record:
            self.init(keep, keep)
        return code

    def delete(self, space: str | None = None) -> Space:
        """Remove a space: the named one, else the ``.venv`` or ``node_modules`` of the current folder or of one above.

        Returns what it was; ``damaged`` if its record was, and the path is only likely then; ``replaced`` if something
        else is at its path, which stays.
        """
        from holo.restore.deletion import delete

        self._sweep()
        if space is None:
            near = selection.only_near(self.home)
            if near is None:
                raise UsageError(
                    f"no space is named, and no {' or '.join(PLACES)} here or above is one",
                    "Name it: `holo delete SPACE`. `holo list` shows which there are.",
                )
            space = near.name
        if self.home.spaces.find_anyhow(space) is None:  # told before a lock is made
            raise self.home.spaces.unknown(space)
        return delete(self.home, space)

    def space(self, name: str | None = None, *, force: bool = False) -> Space:
        """The space of that name, to work in; without one, as :meth:`restore` chooses.

        Raises :class:`NotFound`, also if its directory, or the Python in it, is gone: commands would be found elsewhere
        on ``PATH``. And :class:`Conflict` if it belongs to another home, or was moved and not restored since, or if
        its last restore has not ended. With ``force`` it need neither have its Python nor be restored to the end.
        """
        self._sweep()
        spaces = self.home.spaces
        found = spaces.get(spaces.begun(name) if name is not None else selection.found_or_default(self.home))
        spaces.refuse_copied(found)
        spaces.refuse_gone(found)
        spaces.refuse_moved(found)
        if not force:
            from holo import activation

            spaces.refuse_unfinished(found)
            activation.check_python(found.path, found.name)
        return found

    def add_worktree(self, path: PathLike, arguments: Sequence[str] = ()) -> WorktreeReport:
        """Let git add a worktree, with the ``arguments`` that it takes, and make the environments it is to have.

        Those are what the first checkout has: each ``.venv`` and ``node_modules``, and what its ``.holo.toml``, or
        ``[tool.holo]`` in its ``pyproject.toml``, lists as ``worktree``. They are cloned, or built if the worktree has
        another lock file. If ``path`` is a worktree already, only what it lacks is made. Otherwise, if anything fails,
        the worktree is removed again.
        """
        from holo import worktrees

        return worktrees.add(os.fspath(path), arguments, self._worktree_spaces(), self.home.on_wait)

    def remove_worktree(self, path: PathLike, arguments: Sequence[str] = ()) -> RemovedWorktree:
        """Let git remove a worktree, with the ``arguments`` that it takes, and delete the spaces in it.

        Also where somebody else has removed its directory. Raises :class:`Conflict` for a worktree with changes.
        """
        from holo import worktrees

        return worktrees.remove(os.fspath(path), arguments, self._worktree_spaces(), self.home.on_wait)

    def hook(self, kind: str) -> str:
        """What makes environments appear by themselves: a hook for ``git``, ``direnv`` or ``claude`` (Claude Code)."""
        from holo import hooks

        return hooks.text_of(hooks.kind_of(kind))

    def install_hook(self, kind: str) -> HookReport:
        """Put the hook where its program finds it; what the user has there stays."""
        from holo import hooks

        return hooks.install(hooks.kind_of(kind))

    def remove_hook(self, kind: str) -> HookReport:
        """Take out what :meth:`install_hook` has put in."""
        from holo import hooks

        return hooks.remove(hooks.kind_of(kind))

    def run_hook(self, event: bytes) -> WorktreeReport | RemovedWorktree:
        """Make or remove a worktree, as Claude Code asks for it by the event (JSON) that it gives to its hooks."""
        from holo import hooks, worktrees

        found = hooks.event_of(event)
        if found.is_removal:
            return self.remove_worktree(found.path)
        return worktrees.add_for_agent(found.path, found.name, self._worktree_spaces(), self.home.on_wait)

    def _worktree_spaces(self) -> Spaces:
        from functools import partial

        from holo.blueprints.memory import blueprint_of
        from holo.blueprints.spaces import changed_blueprint
        from holo.worktrees import Spaces

        def init(name: str, blueprint: str, place: str) -> RestoreReport:
            return self.init(name, blueprint, to=place)

        def is_unchanged(space: Space) -> bool:
            return self.status(space.name).state == "pristine"

        def is_all_there(space: Space) -> bool:
            return space.state != "restoring" and spaces.is_seen(space)

        spaces = self.home.spaces
        return Spaces(
            spaces.spaces,
            init,
            self.delete,
            partial(blueprint_of, spaces),
            partial(changed_blueprint, self.home),
            is_unchanged,
            is_all_there,
            spaces.is_default,
        )

    def spaces(self) -> list[Space]:
        """All spaces, by name, as their directories show them; also those whose records are ``damaged``.

        To see that, a stat of each directory is taken: ``missing``, ``changed`` (something was added, removed or
        replaced), or else ``pristine``.
        """
        from holo.glance import glance

        self._sweep()
        return list(glance(self.home.library, self.home.spaces.spaces()))

    def status(self, space: str | None = None) -> SpaceStatus:
        """What has changed in a space since its last restore, by package, and where it came from.

        ``space``: its name or the beginning of that; without it, as :meth:`restore` chooses. One stat per file tells;
        what the last restore does not vouch for is read.
        """
        from holo.answers.status import status_of

        self._sweep()
        return status_of(self.home, selection.space_asked_about(self.home, space))

    def diff(self, before: PathLike, after: PathLike) -> Changes:
        """What differs between two things, by package: catalogs (name or digest), spaces as they are now, bundles.

        Where nothing else has that name, its beginning is enough. A file that only names the path of its tree does not
        differ for that, and times do not count.
        """
        from holo.answers.compare import compare
        from holo.answers.references import meant, opened

        items = [meant(self.home, os.fspath(reference)) for reference in (before, after)]
        with opened(self.home, *items) as [old, new]:
            for tree in (old, new):
                tree.refuse_unread()
            return compare(old, new, times=False)

    def ls(self, reference: PathLike, path: str = "") -> list[Entry]:
        """What is in a directory of a catalog, a bundle, or a space as it is now; or the one entry at ``path``."""
        from holo.answers.look import entries

        return entries(self.home, os.fspath(reference), path)

    def cat(self, reference: PathLike, path: str) -> Iterator[bytes]:
        """The content of a file, in pieces: of a catalog or a bundle as it was recorded, of a space as it is now."""
        from holo.answers.look import content

        return content(self.home, os.fspath(reference), path)

    def history(self, space: str | None = None) -> SpaceHistory:
        """When a space was made and restored, of what, and by which command. ``space`` as in :meth:`status`."""
        from holo.answers.status import history_of

        return history_of(self.home, selection.space_asked_about(self.home, space))

    def space_details(self, *, stale: str | None = None, measure: bool = False) -> list[SpaceDetails]:
        """The same with what `holo list` shows besides: when each was made and used, of what, and what it has alone.

        ``stale``: only those that nobody has used for so long (``30d``). What a space has alone is what the last
        restore left; ``measure`` does what :meth:`usage` does, to see what it has now.
        """
        from holo import listing

        self._sweep()
        found = listing.not_used_for(stale, listing.spaces(self.home))
        if not measure or not found:
            return found
        sizes = {item.name: item.exclusive for item in self.usage().items if item.kind == "space"}
        return [item._replace(exclusive=sizes.get(item.space.name, 0)) for item in found]

    def catalog_details(
        self, reference: str | None = None, *, stale: str | None = None, measure: bool = False
    ) -> list[CatalogDetails]:
        """Catalogs as :meth:`catalogs` finds them, with what `holo catalogs` shows besides.

        What one has alone in the library is measured only if that is asked for.
        """
        from holo import listing

        summaries = self.catalogs(reference)
        if reference is None:
            listing.tell_of_damaged(self.home, summaries)
        found = listing.not_used_for(stale, listing.catalogs(self.home, summaries))
        digests = {item.summary.digest for item in found if self.home.library.catalogs.has(item.summary.digest)}
        if not measure or not digests:
            return found
        measured = {item.path: item.exclusive for item in self.usage(*sorted(digests)).items}
        path = self.home.library.catalogs.path
        return [item._replace(exclusive=measured.get(path(item.summary.digest))) for item in found]

    def catalogs(self, reference: str | None = None) -> list[CatalogSummary]:
        """All catalogs, by name; or the one of a name or digest prefix, under all its names; or those of a bundle."""
        if reference is not None and (bundle := selection.bundle_named(self.home, reference)) is not None:
            from holo.transport.intake import summaries_of

            return summaries_of(bundle)
        found = self.home.library.catalogs.summaries()
        if reference is None:
            return found
        digest = self.home.library.catalogs.resolve(reference, begun=True).digest
        return [summary for summary in found if summary.digest == digest]

    def export(
        self,
        references: Sequence[str],
        output: PathLike | int,
        *,
        known: Sequence[PathLike] = (),
        compress: bool = False,
        sign: PathLike | None = None,
        on_progress: OnProgress | None = None,
    ) -> ExportReport:
        """Write catalogs (names or digest prefixes) with all their content into a bundle: a file, or a descriptor.

        The same catalogs always give the same bytes. ``known``: catalogs, or bundles, that whoever imports it has
        already; what those hold is left out. ``compress`` makes it smaller; otherwise a filesystem that shares blocks
        need not copy any when it is imported. ``sign``: a private key of ssh, or a public one that ssh-agent has the
        other half of. It signs the catalogs, and the library keeps that with them. Signatures that it has go along
        anyway.
        """
        from holo.transport.export import cargo_of, export, refuse_to_replace

        target = output if isinstance(output, int) else selection.output_named(output)
        if isinstance(target, str):
            refuse_to_replace([os.fspath(item) for item in known], target)
        for reference in references:  # what does not exist is told before a lock is made
            self.home.library.catalogs.resolve(reference, begun=True)
        with self._using_library():
            key = os.fspath(sign) if sign is not None else None
            cargo = cargo_of(self.home.library, references, [os.fspath(item) for item in known], key)
            return export(
                self.home.library, cargo, target, compress=compress, workers=self.home.workers, on_progress=on_progress
            )

    def import_file(
        self,
        file: PathLike | int,
        name: str | None = None,
        *,
        keep_setid: bool = False,
        on_progress: OnProgress | None = None,
    ) -> ImportReport:
        """Take the catalogs of a bundle, a file or what a descriptor gives, into the library.

        They have the names that they had, or ``name``, if there is one. Only what the library lacks is read.
        ``keep_setid`` accepts setuid and setgid bits and capabilities. Raises :class:`IntegrityError` for a bundle that
        is damaged or not complete, and :class:`Untrusted` if ``remote.allowed-signers`` is set and none of those has
        signed each of its catalogs; nothing is imported then.

        A file of another tool (RCC's hololib.zip, an archive of conda-pack or venv-pack) is imported as well: each
        environment in it is recorded, as if it stood where that tool had it. ``keep_setid`` as in :meth:`record` then.
        """
        from holo.transport import bundle as bundles

        if not isinstance(file, int) and not bundles.is_bundle(path := os.fspath(file)):
            from holo import interop

            if interop.takes(path):
                with undone_if_refused(self.home):
                    return interop.import_file(self.home, path, name, keep_setid=keep_setid, on_progress=on_progress)
        from holo.transport.intake import import_bundle

        library = self.home.library
        with ExitStack() as stack:
            if not isinstance(file, int):  # what is wrong with it is told before anything is made
                bundle = stack.enter_context(bundles.opened(os.fspath(file)))
            stack.enter_context(self._using_library())
            if isinstance(file, int):
                bundle = stack.enter_context(bundles.received(file, "standard input", library.folder("library")))
            return import_bundle(
                library,
                bundle,
                name,
                trust=self._trust(),
                keep_setid=keep_setid,
                workers=self.home.workers,
                on_progress=on_progress,
            )

    def import_rcc(
        self,
        folder: PathLike,
        name: str | None = None,
        *,
        keep_setid: bool = False,
        on_progress: OnProgress | None = None,
    ) -> ImportReport:
        """Record all environments in a library of RCC, its folder ``hololib``, in the same way."""
        from holo.interop import import_rcc

        with undone_if_refused(self.home):
            return import_rcc(self.home, os.fspath(folder), name, keep_setid=keep_setid, on_progress=on_progress)

    def verify(
        self,
        what: PathLike,
        *,
        allowed_signers: PathLike | None = None,
        on_progress: OnProgress | None = None,
    ) -> VerifyReport:
        """Read all content of a catalog (name or digest prefix) or of a bundle, and say who signed it.

        ``allowed_signers``: by which file, in place of the one that ``remote.allowed-signers`` names. With neither, a
        catalog need not be signed. Changes nothing.
        """
        from holo.signatures import AllowedSigners
        from holo.verification import verify_bundle, verify_catalog

        reference = os.fspath(what)
        signers = self._trust().signers
        if allowed_signers is not None:
            signers = AllowedSigners(absolute(os.fspath(allowed_signers)))
        if signers is not None:
            signers.read()  # without it nobody would be allowed, and nothing said why
        if selection.bundle_named(self.home, reference) is not None:
            return verify_bundle(absolute(reference), signers, self.home.workers, on_progress)
        catalogs = self.home.library.catalogs
        if os.sep in reference or (os.path.exists(reference) and not catalogs.is_catalog(reference)):
            hint = "Name a catalog, or a file that `holo export` has written."
            if os.path.exists(reference):
                raise UsageError(f"{reference} is no bundle", hint)
            raise NotFound(f"there is no bundle at {reference}", hint)
        catalogs.resolve(reference, begun=True)  # what does not exist is told before a lock is made
        if catalogs.is_catalog(reference):
            selection.catalog_taken(self.home, reference)
        with self._using_library():
            catalog = catalogs.resolve(reference, begun=True)
            return verify_catalog(self.home.library, catalog, signers, self.home.workers, on_progress)

    def remote(self, url: PathLike | None = None) -> RemoteLibrary:
        """A remote, to push to and to pull from: a folder, or a URL (file, https, s3, gs, az).

        Without ``url``: the one of ``HOLO_REMOTE`` or ``remote.url`` in the settings. Makes no request.
        """
        from holo.exchange import RemoteLibrary

        wanted = os.fspath(url) if url is not None else self.settings.remote_url
        if not wanted:
            raise UsageError(
                "no remote is named",
                "Name one (a folder with a slash, ../shared, or a URL), or set HOLO_REMOTE or `remote.url`.",
            )
        return RemoteLibrary(self.home, wanted, self._trust())

    def catalog(self, reference: str) -> Catalog:
        """The catalog of that name or digest prefix, validated."""
        return self.home.library.catalogs.load(self.home.library.catalogs.resolve(reference, begun=True).digest)

    def sbom(self, reference: PathLike, output: PathLike | None = None) -> Sbom:
        """What is in a catalog (a name or digest prefix), in the only one of a bundle, or in a space as it is now: its
        packages, in CycloneDX. A catalog comes before a space of the same name.

        The same catalog always gives the same document, and a pristine space gives that of its catalog. With ``output``
        it is written to that file as well. Raises :class:`IntegrityError` for a damaged file that describes a package.
        """
        from holo.answers.references import meant_as_recorded, opened
        from holo.sbom import sbom_of

        target = selection.output_named(output) if output is not None else None
        if target is not None and target.lower().endswith(".xml"):
            raise UsageError(f"{target} would be no XML: the document is JSON", "Let its name end in .json.")
        item = meant_as_recorded(self.home, os.fspath(reference))
        with opened(self.home, item) as [tree]:
            tree.refuse_unread()
            changed = item.name if isinstance(item, Space) and not tree.is_pristine else None
            found = sbom_of(tree.ref, tree.catalog, tree.contents, changed)
        return found if target is None else found.written_to(target)

    def golden_trees(self) -> set[str]:
        """The digests of the catalogs that have a golden tree."""
        from holo.hololib.golden import golden_trees

        return golden_trees(self.home.library.path)

    def remove_catalog(self, reference: str) -> CatalogRef:
        """Remove a catalog; returns which. Its blobs stay until they are collected."""
        from holo.trees.overlay import Layers

        self.home.library.catalogs.resolve(reference)  # what does not exist is told before a lock is made
        with locked_library(self.home.library, exclusive=True, on_wait=self.home.on_wait):
            removed = self.home.library.catalogs.remove(reference)
        trees, digests = Layers(self.home.spaces.path), self.home.library.catalogs.digests()
        trees.collect(digests, self.home.spaces.mounted().keys(), dry_run=False)
        return removed

    def spaces_without_catalog(self, digest: str) -> list[Space]:
        """The spaces of a catalog that is gone, whoever owns them: they cannot be restored any more."""
        try:
            spaces = list(self.home.spaces.everyones())
        except HoloError:  # one that cannot be read is no reason to be silent about the others
            spaces = self.home.spaces.spaces()
        # One that was restored from a bundle goes on as long as that is there.
        found = [space for space in spaces if space.digest == digest and not os.path.exists(space.bundle)]
        return found if found and all(summary.digest != digest for summary in self.catalogs()) else []

    def gc(
        self,
        *,
        dry_run: bool = False,
        keep_days: float | None = None,
        keep_last: int | None = None,
        max_size: int | str | None = None,
        missing: bool = False,
    ) -> GcReport:
        """Remove what no catalog needs, and catalogs by their last use, but none that a space holds.

        ``keep_days``: those not used in so many days; ``keep_last``: all but so many; ``max_size`` (bytes, or a text
        like ``20GB``): the least recently used until blobs, link forms and the trees of throw-away environments occupy
        no more. ``missing``: first drop the spaces whose directory is gone, and those in the holotree that were made
        for a folder that is gone. ``dry_run`` changes nothing. Raises :class:`IntegrityError` if a catalog is damaged,
        so that it is not known what is needed; only drafts, locks and layers are removed then.
        """
        from holo.gc import collect_garbage
        from holo.gc.missing import drop_missing
        from holo.gc.policy import Policy

        self._sweep()
        size = settings_module.parse_size(max_size) if isinstance(max_size, str) else max_size
        policy = Policy(keep_days, keep_last, size)
        dropped = drop_missing(self.home, dry_run=dry_run) if missing else []
        gone = {space.name for space in dropped}
        from dataclasses import replace

        return replace(collect_garbage(self.home, policy, dry_run=dry_run, gone=gone), spaces=dropped)

    def spares(self, catalog: str | None = None) -> SparesReport:
        """The spares of all catalogs, or of one (name or digest prefix), and how many are to be kept."""
        from holo.spares import report

        digest = self.home.library.catalogs.resolve(catalog, begun=True).digest if catalog is not None else ""
        return report(self.home, self.settings.strategy, digest)

    def keep_spares(self, catalog: str, count: int, *, on_progress: OnProgress | None = None) -> SparesReport:
        """Make spares of a catalog until there are so many, and keep so many from now on; with 0, remove them.

        A spare is a finished tree that is nobody's yet: the next new space takes it. Raises :class:`Conflict` where a
        space is one snapshot anyway.
        """
        from holo.spares import keep, report

        if not 0 <= count <= settings_module.MOST_SPARES:
            raise UsageError(f"--keep must be a number from 0 to {settings_module.MOST_SPARES}, not {count}")
        wanted = self.home.library.catalogs.resolve(catalog, begun=True)
        keep(self.home, wanted, count, self.settings.strategy, on_progress)
        return report(self.home, self.settings.strategy, wanted.digest)

    def start_upkeep(self) -> bool:
        """Start in the background what the settings ask for once something was added; returns whether that was due.

        A clean-up keeps ``library.max-size``, ``library.keep-days`` and ``library.min-free``, if something has come
        into the library since the last one, and that is an hour ago. It gives way to every other command. And
        :meth:`start_filling`.
        """
        settings = self.settings
        limits = settings.max_size, settings.keep_days, settings.min_free
        is_cleaning = False
        if any(limit is not None for limit in limits):
            from holo.gc import upkeep

            is_cleaning = upkeep.start(self.home, *limits)
        return self.start_filling() or is_cleaning

    def start_filling(self) -> bool:
        """Start in the background to make the spares that lack, and to remove those that are too many.

        Returns whether there are any. As many are wanted as ``holotree.spares`` and :meth:`keep_spares` say. The
        process gives way to every command.
        """
        from holo.trees.spares import Spares, wanted

        with suppress(HoloError):  # what was asked for is done
            if wanted(self.home) or Spares(self.home.spaces).all():
                from holo import spares

                return spares.start(self.home, self.settings.strategy, self.settings.min_free)
        return False

    def uninstall(self, *, spaces: bool = False, dry_run: bool = False) -> UninstallReport:
        """Remove all that holo ever made for this home; its ``spaces``, wherever they are, only if that is said.

        What is not holo's stays, and what belongs to other users and homes; the report says what and why. ``dry_run``
        changes nothing. Raises :class:`Conflict` if a throw-away environment is in use or a build is running.
        """
        from holo import uninstall

        self._sweep()
        report = uninstall.uninstall(self.home, spaces=spaces, dry_run=dry_run)
        if self.settings.file is not None and self.settings.file != os.devnull:
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
            self.home,
            Options(
                repair=repair,
                sources=[os.fspath(source) for source in sources],
                trust=self._trust(),
                spaces=[*map(self.home.spaces.begun, spaces)]
                if spaces is not None
                else [space.name for space in selection.near(self.home)],
                on_progress=on_progress,
            ),
        )

    def adopt(self, spaces: Sequence[str] = ()) -> list[Adoption]:
        """Let spaces outside the holotree, which a copied home knows about, belong to this home; says which.

        ``spaces``: names; without any, all. Refused are those that another home still has, and directories that do
        not look like a space of their catalog. The next restore of one removes what is not in its catalog.
        """
        from holo.check.adopt import adopt

        return adopt(self.home, spaces)

    def diagnose(self, directory: PathLike | None = None) -> Diagnosis:
        """What the library and a folder can do together, and how fast; by default the folder of the spaces."""
        from holo import doctor

        folder = doctor.named(os.fspath(directory)) if directory is not None else self.home.spaces.path
        with self._using_library():  # the samples would be garbage
            return doctor.examine(self.home.library.folder("library"), folder)

    def usage(self, *what: PathLike) -> UsageReport:
        """What spaces, catalogs (names or digest prefixes) and paths have of the disk; without any, the whole home.

        Sizes of files, bytes on the disk, what removing each would free, and with whom it shares the rest. Changes
        nothing, and writes nothing to the disk first: what is not there yet is ``pending``.
        """
        from holo.usage import usage

        self._sweep()
        return usage(self.home, [os.fspath(each) for each in what])

    def bench(self, directory: PathLike | None = None, *, on_progress: OnProgress | None = None) -> BenchReport:
        """Measure record and restore beside ``cp``, with that tree or with a generated one, below the home."""
        from holo.bench import measure

        return measure(self.settings.home, os.fspath(directory) if directory is not None else None, on_progress)

    def _exchange(self, home: Home) -> Exchange | None:
        url = self.settings.remote_url
        if url is None:
            return None
        from holo.exchange import RemoteExchange

        return RemoteExchange(home, url, self._trust(), is_pushing=self.settings.remote_push)

    def _obtain(self, reference: str | None, *, or_directory: bool = False) -> None:
        """Pull that catalog if the library does not have it, a remote is set, and knows it.

        ``or_directory``: it may also be the path of a file, which nobody is asked about, or of a directory, which will
        do if the remote does not answer.
        """
        if self.settings.remote_url is None or reference is None or NAME.fullmatch(reference) is None:
            return
        catalogs = self.home.library.catalogs
        if catalogs.is_catalog(reference) or (or_directory and os.path.isfile(reference)):
            return
        shared = self.remote()
        try:
            found = shared.obtain_name(reference)
        except IntegrityError:
            raise
        except HoloError as error:
            if or_directory and os.path.isdir(reference):
                self.home.on_wait(f"warning: {error.message}. The directory ./{reference} is taken.")
                return
            with suppress(NotFound):  # it may be the beginning of a name that the library has
                catalogs.resolve(reference, begun=True)
                return
            raise
        if found is None and not os.path.exists(reference):
            with suppress(HoloError):  # the same
                catalogs.resolve(reference, begun=True)
                return
            self.home.on_wait(f"there is no catalog {reference!r} in {shared.name}")

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
        return Options(chosen, strict, verify, force, yes, on_progress)

    def _trust(self) -> Trust:
        """What is demanded of what comes from elsewhere."""
        from holo.signatures import trust_of

        return trust_of(self.settings)

    def _sweep(self) -> None:
        """Remove what killed throw-away environments have left."""
        from holo.trees.overlay import Layers

        if Layers(self.home.spaces.path).working():
            from holo import ephemeral

            ephemeral.sweep(self.home)

    @contextmanager
    def _using_library(self) -> Iterator[None]:
        """Keep the library from losing anything. If this is refused, and made the library, that goes."""
        with undone_if_refused(self.home), self.home.using_library():
            yield

    @contextmanager
    def _alone_with(self, space: str) -> Iterator[None]:
        """Keep others from the space. If it was refused, and so is no space, its lock goes."""
        with undone_if_refused(self.home):
            try:
                with self.home.spaces.lock(space, self.home.on_wait):
                    yield
            except HoloError:
                with suppress(HoloError):
                    self.home.spaces.drop_lock(space)
                raise

    @contextmanager
    def _restoring(
        self, space: str | None, to: PathLike | None, catalog: str | None
    ) -> Iterator[tuple[str, str | None, CatalogRef, Carrier | None]]:
        """The space, the place and the catalog that a restore is about, with both locks held; and its bundle, if any.

        In this order: who waits for a space does not keep anybody waiting for the library.
        """
        path = selection.place_named(to)
        name = selection.space_to_restore(self.home, space, path, catalog)
        self._obtain(catalog if catalog is not None else self._lost_catalog(name))
        selection.catalog_for(self.home, name, catalog)  # what does not exist is told before anything is made
        self._sweep()
        with self._alone_with(name), self._using_library():
            wanted = selection.catalog_for(self.home, name, catalog)
            with self._carried(self.home.spaces.find(name), wanted) as carrier:
                yield name, path, wanted, carrier

    def _lost_catalog(self, space: str) -> str | None:
        """The digest of the catalog of a space, if neither the library nor a bundle has it."""
        known = self.home.spaces.find(space) if self.settings.remote_url is not None else None
        return known.digest if known is not None and not os.path.exists(known.bundle) else None

    @contextmanager
    def _carried(self, known: Space | None, wanted: CatalogRef) -> Iterator[Carrier | None]:
        """The bundle that a space was restored from, if the library does not have its catalog."""
        is_carried = known is not None and known.bundle and known.digest == wanted.digest
        if known is None or not is_carried or self.home.library.catalogs.has(wanted.digest):
            yield None
            return
        from holo.transport.direct import carrier_of_space

        with carrier_of_space(known, trust=self._trust()) as carrier:
            yield carrier

    def _init_from_catalog(
        self,
        space: str,
        source: str | None,
        known: Space | None,
        path: str | None,
        options: Options,
        *,
        keep_setid: bool,
    ) -> RestoreReport:
        """Make a space, whose lock is held, from a catalog, a catalog file or a directory."""
        from holo.restore import restore

        def approve(name: str, digest: str) -> None:
            if known is not None and known.digest != digest and not options.force:
                raise Conflict(
                    f"space {known.name!r} holds catalog {known.catalog} ({known.digest[:12]}), "
                    f"not {name} ({digest[:12]})",
                    "--force turns it into the other one; what was changed in it is lost then. Or choose another name.",
                )

        with self._using_library():
            selection.say_what_is_taken(self.home, source, known)
            begun = not options.force
            with self._obtained(source, known, approve, begun=begun, keep_setid=keep_setid) as (
                catalog,
                carrier,
                warnings,
            ):
                approve(*catalog)
                report = restore(self.home, space, catalog, path, options, carrier)
                return report._replace(warnings=(*warnings, *report.warnings))

    @contextmanager
    def _obtained(
        self,
        source: str | None,
        known: Space | None,
        approve: Callable[[str, str], object],
        *,
        begun: bool,
        keep_setid: bool,
    ) -> Iterator[tuple[CatalogRef, Carrier | None, tuple[str, ...]]]:
        """The catalog that a source means, recorded or taken in if need be; the bundle it stays in; warnings.

        ``approve`` is called with its name and digest before that is done, and may raise.
        """
        named = selection.catalog_named(self.home, source, known, begun=begun)
        if named is not None:
            with self._carried(known, named) as carrier:
                yield named, carrier, ()
            return
        assert source is not None
        library = self.home.library
        if os.path.isdir(source):
            from holo.record import record

            report = record(
                library,
                source,
                keep_setid=keep_setid,
                project=selection.project_chosen(self.home, source),
                workers=self.home.workers,
                approve=approve,
            )
            yield CatalogRef(report.name, report.digest), None, report.warnings
            return
        from holo.transport.bundle import is_bundle

        if is_bundle(source):
            from holo.transport.direct import carrier_of

            with carrier_of(absolute(source), trust=self._trust(), keep_setid=keep_setid) as (catalog, carrier):
                yield catalog, None if library.catalogs.has(catalog.digest) else carrier, ()
            return
        from holo.transport.catalog_file import take_in

        selection.refuse_other_file(source)
        taken = take_in(library, source, approve, trust=self._trust(), keep_setid=keep_setid, workers=self.home.workers)
        yield taken, None, ()

    def _environment(
        self,
        space: str | None,
        catalog: str | None,
        blueprint: PathLike | None,
        choice: Chosen,
    ) -> Environment:
        """What a command in a throw-away environment is to find, built if need be, and where."""
        from holo.ephemeral import Environment

        named = os.fspath(blueprint) if blueprint is not None else None
        if catalog is None:
            name, found = selection.space_to_run(self.home, space, named)
        else:
            name, found = space if space is not None else selection.near_or_default(self.home), None
        known = self.home.spaces.find(name)
        if known is not None:
            self.home.spaces.refuse_copied(known)
        path = known.path if known is not None else self.home.spaces.default_path(name)
        if found is None:
            _refuse_choice(*choice)
            wanted = selection.catalog_for(self.home, name, catalog, begun=True)
            is_its_own = known is not None and known.digest == wanted.digest
            return Environment(name, path, wanted, known.project if known is not None and is_its_own else "")
        from holo.blueprints.choices import build_options
        from holo.blueprints.memory import known_of
        from holo.blueprints.modules import place_for
        from holo.blueprints.registry import builder_of
        from holo.blueprints.spaces import built

        path = (place_for(self.home.spaces, found) if known is None else None) or path
        options = build_options(found, known_of(self.home.spaces, known), path, choice)
        with built(self.home, found, options) as made:
            project = builder_of(found.kind).project(found, options)
            return Environment(name, path, self.home.library.catalogs.resolve(made.digest), project)

    def _refuse_taken(self, name: str, *, record: bool) -> None:
        """What is kept is a catalog, and a space of the same name unless it is only to be recorded."""
        from holo.hololib.layout import check_name

        check_name(name, "catalog" if record else "space")
        if self.home.library.catalogs.summary(name) is not None:
            raise Conflict(f"there is a catalog {name!r} already", "Keep the result under another name.")
        if not record and self.home.spaces.find(name) is not None:
            raise Conflict(f"there is a space {name!r} already", "Keep the result under another name.")


def load_settings() -> Settings:
    """What is set, and where: what a :class:`Hololib` made now would go by."""
    return settings_module.load()


def _refuse_choice(compile_: bool | None, editable_project: bool | None) -> None:
    for wanted, option in ((compile_, "compile"), (editable_project, "editable-project")):
        if wanted is not None:
            raise UsageError(
                f"--{option} and --no-{option} are for blueprints", "Leave it out: a catalog holds what was recorded."
            )


def _refuse_contradictions(catalog: str | None, blueprint: PathLike | None, keep: str | None, *, record: bool) -> None:
    if catalog is not None and blueprint is not None:
        raise UsageError("an environment is of a catalog or of a blueprint", "Leave out one of the two.")
    if record and keep is None:
        raise UsageError("a catalog to be recorded needs a name", "Add --keep NAME.")
