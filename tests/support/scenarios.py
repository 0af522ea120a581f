"""Every command that changes something, in a world where all that may change is known. For the sweeps of faults.

A world is one library with two catalogs, a space, and a user's files around them. A scenario is a command, how to
come to where it has everything to do, and how to see that it did. Promise 2 is what :meth:`World.broken` and
:meth:`World.recover` check.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3

from holo.catalog import Catalog
from holo.cli.commands import load_all
from holo.holotree import Holotree
from holo.trees.overlay import Layers
from holo.trees.spares import Spares
from support import compare, contents, remotes
from support.cli import Holo
from support.faults import Outcome, Supervisor
from support.filesystems import Filesystem, mount_new
from support.trees import SOME_TIME, settle, write

LARGE = 1_300_000

Snapshot = dict[bytes, tuple[object, ...]]

IN_BACKGROUND = "-m"
"""Begins a command that is no user's: a module, and what it is started with. It says nothing, whatever happens."""


def environment(root: Path, seed: int, *, files: int = 0) -> Path:
    """Some of everything that is treated differently, as little as possible of each; and ``files`` plain ones."""
    path, rng = os.fsencode(root), random.Random(seed)
    write(root / "bin" / "tool", f"#!/bin/sh\necho {root} {seed}\n", mode=0o755)
    write(root / "lib" / "binary", b"\0\1" + path + b"/lib\0" + bytes(range(256)) * 80)
    write(root / "lib" / "large", rng.randbytes(LARGE) + path + b"/x\0" + rng.randbytes(99))
    write(root / "lib" / "compressible", f"a line {seed}\n" * 3000)
    write(root / "lib" / "same", b"in both catalogs\n" * 1500)
    write(root / "lib" / "again", b"in both catalogs\n" * 1500, mode=0o755, mtime=SOME_TIME + 5)
    write(root / "lib" / "empty")
    write(root / "lib" / "pkg" / "module.py", f"number = {seed}\n")
    write(root / "lib" / "pkg" / "private", b"secret", mode=0o600)
    os.link(write(root / "links" / "first", f"one inode {seed}\n" * 300), root / "links" / "second")
    os.symlink("../lib/large", root / "links" / "relative")
    os.symlink(root / "lib" / "pkg", root / "links" / "inside")
    (root / "void" / "nested").mkdir(parents=True)
    attributed = write(root / "lib" / "attributed", f"with attributes {seed}\n")
    os.setxattr(attributed, "user.holo.test", b"value")
    os.utime(attributed, ns=(SOME_TIME, SOME_TIME))
    write(root / "locked" / "inside", f"read-only {seed}\n")
    for number in range(files):
        write(root / f"many-{number % 7}" / f"{number}", f"{seed} {number}\n" * 20)
    settle(root)
    (root / "locked").chmod(0o555)
    return root


class World:
    """A library with the catalogs ``env`` and ``other``, and the user's files around it."""

    def __init__(
        self,
        supervisor: Supervisor,
        filesystem: Filesystem,
        *,
        compression: str = "auto",
        workers: int = 1,
        files: int = 0,
        tune: Mapping[str, int] | None = None,
        elsewhere: bool = False,
    ) -> None:
        self.root = root = filesystem.root
        self.cli = Holo(root)
        self.cli.settings.write_text(f"library:\n  compression: {compression}\nworkers: {workers}\n")
        self.home, self.library = self.cli.home, self.cli.library
        self.space = root / "s" / "space"
        self.source = environment(root / "the-source-of-the-environment", 1, files=files)
        self.other = environment(root / "the-source-of-the-other-one-", 2, files=files)
        if elsewhere:  # whoever asks for the world unmounts it
            (root / "s").mkdir()
            mount_new("ext4", 64 << 20, root / "s")
            (root / "s" / "lost+found").rmdir()
        write(root / "s" / "a-users-file", "precious")
        write(root / "s" / "a-users-folder" / "file", "precious too")
        self.throw_away = self.home / "holotree" / f".ephemeral-{os.geteuid()}"
        self.spares = self.home / "holotree" / f".sp-{os.geteuid()}"
        self.has_golden_trees = filesystem.name == "btrfs"
        self._supervisor = supervisor
        self._tune = tune
        self.bundles: dict[Path, bytes] = {}
        """what is in these files, if they are there"""
        self.remote = root / "remote"
        """what is pushed to and pulled from, if it is there"""
        self.has_stubs = False
        """throw-away environments and mounted spaces need no copies of files here"""
        self._kept: set[Path] = set()
        self._known: list[str] = []
        named = {"env": self.source, "other": self.other}
        self.sources = {self.do("record", tree, "--name", name)["digest"]: tree for name, tree in named.items()}
        self.digest, self.other_digest = self.sources
        self._user = self._users_files()

    def run(self, *arguments: str | Path, **fault: Any) -> Outcome:
        """A command, perhaps with a fault: see :meth:`Supervisor.run`."""
        more = () if arguments[0] == IN_BACKGROUND else ("--json",)
        return self._supervisor.run(self.root, (*arguments, *more), self.cli.environment(), tune=self._tune, **fault)

    def do(self, *arguments: str | Path) -> Any:
        """A command without a fault, which must succeed."""
        outcome = self.run(*arguments, watched=False)
        assert outcome.code == 0, f"holo {arguments}: {outcome}"
        assert not outcome.hung, f"holo {arguments} hangs"
        return outcome.json() if arguments[0] != IN_BACKGROUND else None

    # -- where a scenario begins -------------------------------------------------------------------------------

    def keep(self) -> None:
        """What the library holds now is what :meth:`prune` leaves."""
        self._kept = self._files()

    def prune(self) -> None:
        """Delete what came to the library since :meth:`keep`."""
        if self.has_golden_trees and self.digest in self.catalogs():
            self.do("catalogs", "--remove", self.digest)
        for path in self._files() - self._kept:
            path.unlink()

    def _files(self) -> set[Path]:
        return {Path(folder, name) for folder, _, names in os.walk(self.library) for name in names}

    def without_space(self) -> None:
        if self.record_of("space") is not None:
            self.do("delete", "--space", "space")

    def with_space(self) -> None:
        """A pristine space of ``env``."""
        if self.record_of("space") is None:
            self.do("init", "--space", "space", "env", "--to", self.space)
        else:
            self.do("restore", "--space", "space", "--catalog", "env")

    def without_trees(self) -> None:
        """Nothing yet that could be mounted over the space."""
        self.has_stubs |= any(self.throw_away.glob("stubs/*/tree"))
        shutil.rmtree(self.throw_away, ignore_errors=True)

    def damage(self) -> None:
        """Everything that a user may do to a space."""
        space = self.space
        (space / "lib" / "pkg" / "module.py").unlink()
        edited = space / "lib" / "compressible"
        if edited.stat().st_nlink > 1:  # shared by hardlink, where programs replace files
            edited.unlink()
        edited.write_text("edited")
        (space / "bin" / "tool").chmod(0o700)
        (space / "links" / "relative").unlink()
        (space / "links" / "relative").write_text("a file where a symlink was")
        (space / "void" / "nested").rmdir()
        shutil.rmtree(space / "locked")
        (space / "locked").write_text("a file where a directory was")
        write(space / "extra" / "folder" / "file", "extra")
        write(space / "lib" / "extra", "extra")
        if (space / "lib" / "same").stat().st_nlink == 1:
            os.setxattr(space / "lib" / "same", "user.holo.extra", b"value")

    # -- what holds afterwards ---------------------------------------------------------------------------------

    def observe(self) -> Snapshot:
        """The space as it is, to tell later whether anything was done to it. What is damaged now is not news then."""
        self._known = self.library_problems()
        return compare.snapshot(self.space) if self.space.is_dir() else {}

    def broken(self, before: Snapshot) -> list[str]:
        """In what the state just after a fault breaks promise 2; ``before`` is the space before the command."""
        found = [problem for problem in self.library_problems() if problem not in self._known]
        found += self.outside_problems()
        found += self._spare_problems()
        record = self.record_of("space")
        if record is None:
            if self.observe().keys() - {b"."}:
                found.append("there is a space that holo does not know of")
        elif record["state"] == "pristine" and self.observe() != before:
            found += [f"called pristine, but {difference}" for difference in self._differences(record)]
        return found

    def recover(self) -> list[str]:
        """In what the next restore fails to make good what a fault left."""
        record = self.record_of("space")
        if record is None or (record["digest"] not in self.catalogs() and not record["bundle"]):
            return []
        self.do("restore", "--space", "space")
        found = [*self.library_problems(), *self.outside_problems(), *self.unlike(record["digest"])]
        left = set(os.listdir(self.space.parent)) - {"space", "a-users-file", "a-users-folder"}
        return found + [f"left beside the space: {name}" for name in left]

    def unlike(self, digest: str) -> list[str]:
        """In what the space is not a pristine one of that catalog."""
        record = self.record_of("space")
        if record is None or record["state"] != "pristine" or record["digest"] != digest:
            return [f"the space is not known to be pristine: {record}"]
        return self._differences(record)

    def record_of(self, space: str) -> dict[str, Any] | None:
        try:
            record = _document(self.home / "holotree" / ".spaces" / f"{space}.json")
        except FileNotFoundError:
            return None
        is_gone = record["used"] == "overlay" and not os.path.ismount(record["path"])
        return {**record, "state": "restoring"} if is_gone else record

    def _differences(self, record: dict[str, Any]) -> list[str]:
        return compare.differences(self.sources[record["digest"]], self.space, library=self.library / "links")

    def _spare_problems(self) -> Iterator[str]:
        """What counts as finished must be whole at any moment."""
        for outline in self.spares.glob("*.outline"):
            record = _document(self.spares / ".spaces" / f"{outline.stem}.json")
            if Path(record["path"]).exists():  # else whoever took it was killed before they said so
                found = compare.differences(self.sources[record["digest"]], Path(record["path"]))
                # Data that names a longer path is left alone. Whoever takes the spare makes all that names one anew.
                found = [difference for difference in found if not difference.startswith(("'lib/binary", "'lib/large"))]
                yield from (f"spare {outline.stem}: {difference}" for difference in found)

    def _users_files(self) -> dict[Path, Snapshot]:
        folders = (self.source, self.other, self.root / "s" / "a-users-folder")
        found = {folder: compare.snapshot(folder) for folder in folders}
        file = self.root / "s" / "a-users-file"
        return {**found, file: {b"": (file.stat().st_mode, file.stat().st_ctime_ns, file.read_bytes())}}

    def outside_problems(self) -> list[str]:
        found = [f"{path} was touched" for path, found in self._users_files().items() if found != self._user[path]]
        if self.remote.exists():
            found += [f"the remote: {problem}" for problem in remotes.problems(remotes.Files(self.remote))]
            found += [] if (self.remote / "names" / "other").exists() else ["the remote has lost a name"]
        return found + [
            f"{path} is half a bundle"
            for path, whole in self.bundles.items()
            if path.exists() and path.read_bytes() != whole
        ]

    def catalogs(self) -> dict[str, Catalog]:
        found = {}
        for path in (self.library / "catalog").iterdir():
            if len(path.name) == 64 + len(".json") and path.name.endswith(".json"):
                found[path.stem] = Catalog.from_json(path.read_bytes(), str(path))
        return found

    def library_problems(self) -> list[str]:
        """In what the library is not valid. Garbage is: what was never finished counts as not there."""
        catalogs = self.catalogs()
        found = [*self._catalog_problems(catalogs), *self._blob_problems(catalogs), *self._link_problems()]
        for digest, source in self.sources.items():
            golden = self.library / "golden" / digest
            if golden.is_dir():
                found += [f"golden tree: {text}" for text in compare.differences(source, golden, new=source)]
        return found

    def _catalog_problems(self, catalogs: dict[str, Catalog]) -> Iterator[str]:
        for digest in catalogs:
            if blake3((self.library / "catalog" / f"{digest}.json").read_bytes()).hexdigest() != digest:
                yield f"catalog {digest} is damaged"
        for path in (self.library / "names").glob("*.json"):
            if _document(path)["digest"] not in catalogs:
                yield f"{path} names a catalog that is not there"

    def _blob_problems(self, catalogs: dict[str, Catalog]) -> Iterator[str]:
        whole: dict[str, int] = {}
        damaged: set[str] = set()
        for path in (self.library / "library").glob("??/*"):
            digest = path.name.removesuffix(".zst")
            if len(digest) != 64 or (digest == path.name and not _is_sealed(path)):
                continue
            content = path.read_bytes()
            if digest != path.name:
                inflater = zstandard.ZstdDecompressor().decompressobj()
                content = inflater.decompress(content) + inflater.unused_data
            whole[digest] = len(content)
            if contents.digest(content) != digest:
                damaged.add(digest)
        needed = {row[4]: row[2] for catalog in catalogs.values() for _, row in catalog.files()}
        damaged.update(digest for digest, size in needed.items() if whole.get(digest) != size)
        yield from (f"blob {digest} is damaged or missing" for digest in damaged)

    def _link_problems(self) -> Iterator[str]:
        for path in (self.library / "links").glob("??/*"):
            digest, _, rest = path.name.partition("-")
            if len(digest) == 64:
                mode, mtime, user = rest.split("-")
                found = path.stat()
                is_sealed = (
                    stat.S_IMODE(found.st_mode) == int(mode, 8)
                    and found.st_mtime_ns == int(mtime)
                    and found.st_uid == int(user)
                )
                if is_sealed and contents.digest(path.read_bytes()) != digest:
                    yield f"link form {path} is damaged"


def _document(path: Path) -> dict[str, Any]:
    """What is in a file of ours: one line of JSON, whatever follows."""
    values: dict[str, Any] = json.loads(path.read_bytes().partition(b"\n")[0])
    return values


def _is_sealed(path: Path) -> bool:
    found = path.stat()
    return stat.S_IMODE(found.st_mode) == 0o444 and found.st_mtime_ns == 1_000_000_000 * 10**9


@dataclass(frozen=True)
class Scenario:
    """A command where it has everything to do."""

    name: str
    filesystem: str
    command: tuple[str, ...]
    """``{source}``, ``{space}`` and the like stand for what they are in the world"""
    prepare: Callable[[World], None]
    """before each run, whatever the last one left"""
    undone: Callable[[World], list[str]]
    """in what the command has not done its work"""
    start: Callable[[World], None] = lambda world: None
    """once, in the beginning"""
    compression: str = "auto"
    tune: Mapping[str, int] = field(default_factory=dict)
    elsewhere: bool = False
    """the space is on another filesystem than the library"""
    again: Callable[[World], None] = lambda world: None
    """what a user has to do before running it again after a fault"""

    def __str__(self) -> str:
        return f"{self.name}-{self.filesystem}"

    def world(self, supervisor: Supervisor, filesystem: Filesystem, *, workers: int = 1, files: int = 0) -> World:
        world = World(
            supervisor,
            filesystem,
            compression=self.compression,
            workers=workers,
            files=files,
            tune=self.tune,
            elsewhere=self.elsewhere,
        )
        self.start(world)
        world.keep()
        return world

    def arguments(self, world: World) -> list[str]:
        export = world.root / "export"
        places = {
            "source": world.source,
            "space": world.space,
            "export": export,
            "digest": world.digest,
            "home": world.home,
            "root": world.root,
        }
        return [part.format(**places) for part in self.command]

    def run(self, world: World, **fault: Any) -> Outcome:
        """The command, perhaps with a fault."""
        return world.run(*self.arguments(world), **fault)

    def repeat(self, world: World) -> list[str]:
        """In what the same command, run again after a fault, fails to do its work."""
        if self.undone(world):
            self.again(world)
            world.do(*self.arguments(world))
        return [*self.undone(world), *world.library_problems(), *world.outside_problems()]


# -- the scenarios --------------------------------------------------------------------------------------------------


def _unrecorded(world: World) -> list[str]:
    named = (world.library / "names" / "env.json").exists()
    return [] if named and world.digest in world.catalogs() else ["the catalog is not there"]


def _not_env(world: World) -> list[str]:
    return world.unlike(world.digest)


def _not_other(world: World) -> list[str]:
    return world.unlike(world.other_digest)


def _not_gone(world: World) -> list[str]:
    return [] if world.record_of("space") is None and not world.space.exists() else ["the space is still there"]


def _not_removed(world: World) -> list[str]:
    """A golden tree without its catalog is garbage."""
    return ["the catalog is still there"] if world.digest in world.catalogs() else []


def _only_other(world: World) -> None:
    """As if ``env`` had never been recorded."""
    world.do("catalogs", "--remove", "env")
    needed = {row[4] for catalog in world.catalogs().values() for _, row in catalog.files()}
    for path in (world.library / "library").glob("??/*"):
        if path.name.removesuffix(".zst") not in needed:
            path.unlink()


def _exported(world: World) -> None:
    """A catalog file with its library beside it, and that catalog no longer in ours."""
    export = world.root / "export"
    export.mkdir()
    shutil.copy(world.library / "catalog" / f"{world.digest}.json", export / "env.json")
    shutil.copytree(world.library / "library", export / "library")
    _only_other(world)


def _kin(root: Path) -> Path:
    """What a bundle puts together from parts: files with common blocks, and with holes."""
    rng = random.Random(3)
    data = rng.randbytes(1 << 20)
    write(root / "first", data)
    write(root / "second", data[: 1 << 19] + rng.randbytes(4096) + data[(1 << 19) + 4096 :])
    with write(root / "third", data[: 1 << 18]).open("r+b") as file:
        file.seek(1 << 20)
        file.write(data[1 << 18 :])
    return settle(root)


def _to_export(world: World) -> None:
    """Two catalogs to be exported, and what is to come of that."""
    tree = _kin(world.root / "the-source-of-the-kin")
    world.sources[world.do("record", tree, "--name", "kin")["digest"]] = tree
    target = world.root / "app.holo"
    for options in ([], ["--compress"]):
        world.do("export", "env", "kin", "-o", target, *options)
        target.rename(world.root / f"whole{''.join(options)}")


def _unexported(*options: str) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        target = world.root / "app.holo"
        target.unlink(missing_ok=True)
        world.bundles[target] = (world.root / f"whole{''.join(options)}").read_bytes()

    return prepare


def _not_exported(world: World) -> list[str]:
    """That it is whole is asked everywhere."""
    return [] if (world.root / "app.holo").exists() else ["the bundle is not there"]


def _bundled(*options: str) -> Callable[[World], None]:
    """A bundle of two catalogs that are no longer in the library; of ``env`` alone another."""

    def start(world: World) -> None:
        _to_export(world)
        whole = world.root / f"whole{''.join(options)}"
        world.do("export", "env", "-o", world.root / "env.holo", *options)
        whole.rename(world.root / "app.holo")
        world.do("catalogs", "--remove", "kin")
        _only_other(world)
        world.bundles = {path: path.read_bytes() for path in world.root.glob("*.holo")}

    return start


def _not_imported(world: World) -> list[str]:
    there = {path.stem for path in (world.library / "names").glob("*.json")}
    found = [f"{name} is not there" for name in ("env", "kin") if name not in there]
    return found if found or len(world.catalogs()) == 3 else ["a catalog is not there"]


def _not_from_bundle(world: World) -> list[str]:
    """A pristine space, of which the library has nothing."""
    imported = ["the library has its catalog"] if world.digest in world.catalogs() else []
    return world.unlike(world.digest) + imported


def _damaged_from_bundle(world: World) -> None:
    if world.record_of("space") is None:
        world.do("init", "--space", "space", world.root / "env.holo", "--to", world.space)
    world.do("restore", "--space", "space")
    world.damage()


def _shared(*names: str) -> Callable[[World], None]:
    """A remote that has catalogs of these names; without ``env``, the library has not got that either."""

    def start(world: World) -> None:
        world.remote.mkdir()
        for name in names:
            world.do("push", name, world.remote)
        if names == ("other", "env"):
            _only_other(world)
        shutil.copytree(world.remote, world.root / "remote-as-it-was")

    return start


def _unpushed(world: World) -> None:
    """The remote as it was in the beginning, and nobody knows of a push that was killed."""
    for path in (world.library / "incoming").iterdir():
        path.unlink()
    shutil.rmtree(world.remote)
    shutil.copytree(world.root / "remote-as-it-was", world.remote, copy_function=shutil.copy)


def _unpulled(world: World) -> None:
    _unpushed(world)
    world.prune()


def _from_remote(world: World) -> None:
    """Nothing in the library, and a remote in the settings that has all of it."""
    _shared("other", "env")(world)
    settings = world.cli.settings
    settings.write_text(settings.read_text() + f"remote:\n  url: {world.remote}\n")


def _neither_pulled_nor_made(world: World) -> None:
    world.without_space()
    _unpulled(world)


def _not_pushed(world: World) -> list[str]:
    named = world.remote / "names" / "env"
    is_there = named.exists() and _document(named)["catalog"] == world.digest
    return [] if is_there else ["the remote does not have it"]


def _left_in_remote(world: World) -> None:
    """Garbage of two kinds: of a name that was removed, and of a push that was killed."""
    _shared("other", "env")(world)
    for place in (world.remote, world.root / "remote-as-it-was"):
        (place / "names" / "env").unlink()
        write(place / ".drafts" / "half", b"half")


def _not_collected_in_remote(world: World) -> list[str]:
    catalogs = {path.name for path in (world.remote / "catalogs").iterdir()}
    found = [] if catalogs == {world.other_digest} else [f"catalogs are {catalogs}"]
    found += [f"left: {path}" for path in (world.remote / ".drafts").iterdir()]
    return found or [f"doomed: {key}" for key in _document(world.remote / "garbage")["doomed"]]


def _hardlinked(world: World) -> None:
    """Spaces of this world are hardlinked."""
    settings = world.cli.settings
    settings.write_text(settings.read_text() + "holotree:\n  restoration-strategy: hardlink\n")


def _nothing(world: World) -> None:
    """No space, and nothing in the library that was not there in the beginning."""
    world.without_space()
    world.prune()


def _never_restored(world: World) -> None:
    """No space and no golden tree."""
    world.without_space()
    world.do("catalogs", "--remove", "env")
    world.do("record", world.source, "--name", "env")


def _damaged(world: World) -> None:
    world.with_space()
    world.damage()


def _restored(world: World) -> None:
    """A catalog, with its golden tree where there are such."""
    if _unrecorded(world):
        world.do("record", world.source, "--name", "env")
        world.without_space()
    world.with_space()


def _with_garbage(world: World) -> None:
    """Everything that garbage may be: of a catalog that was removed, and of killed commands."""
    world.do("record", world.source, "--name", "env")
    world.do("catalogs", "--remove", "env")
    for name in (".draft-1-2-3", "aa/.draft-1-2-3", f"aa/{'a' * 64}"):
        path = world.library / "library" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half a file")


def _not_collected(world: World) -> list[str]:
    needed = {row[4] for catalog in world.catalogs().values() for _, row in catalog.files()}
    files = [path for path in (world.library / "library").rglob("*") if path.is_file()]
    return [f"not collected: {path}" for path in files if path.name.removesuffix(".zst") not in needed]


def _used_before(world: World) -> None:
    """Of two catalogs that no space holds, ``other`` was used last."""
    world.without_space()
    for tree, name in ((world.source, "env"), (world.other, "other")):
        world.do("record", tree, "--name", name)


def _not_outlived(world: World) -> list[str]:
    """Of the two, only the one used last is to be there."""
    there = set(world.catalogs())
    return _not_collected(world) if there == {world.other_digest} else [f"the catalogs are {there}"]


def _nothing_to_do(world: World) -> list[str]:
    return []


def _with_damage(world: World) -> None:
    """Blobs whose bytes are wrong although their seals are right, and one that is not there."""
    sizes = {row[4]: row[2] for _, row in world.catalogs()[world.digest].files() if row[2] > 100}
    for number, digest in enumerate(sorted(sizes)[:4]):
        path = next((world.library / "library" / digest[:2]).glob(digest + "*"))
        if not number:
            path.unlink()
            continue
        found = path.stat()
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(50)
            file.write(b"damage")
        path.chmod(0o444)
        os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))


def _never_run(world: World) -> None:
    """A space, and nothing yet that a throw-away environment could be mounted over."""
    world.with_space()
    world.without_trees()
    (world.root / "ran").unlink(missing_ok=True)


def _run_once(world: World) -> None:
    world.with_space()
    (world.root / "ran").unlink(missing_ok=True)


def _not_run(world: World) -> list[str]:
    """It must have run, in an environment as recorded, and left nothing but what the next one is mounted over."""
    ran = world.root / "ran"
    found = [] if ran.exists() and ran.read_text() == "number = 1\n" else ["the command has not run"]
    left = [*world.throw_away.glob("runs/*"), *world.throw_away.glob("*/*.draft")]
    left += (world.home / "holotree" / ".spaces").glob("*.cover")
    return found + [f"left behind: {path}" for path in left]


def _never_kept(world: World) -> None:
    _run_once(world)
    if world.record_of("kept") is not None:
        world.do("delete", "--space", "kept")
    if (world.library / "names" / "kept.json").exists():
        world.do("catalogs", "--remove", "kept")


def _not_kept(world: World) -> list[str]:
    """There must be a space of what the command left."""
    record = world.record_of("kept")
    if record is None or record["state"] != "pristine" or record["digest"] not in world.catalogs():
        return [f"the space of what was kept is {record}", *_not_run(world)]
    found = {path.name for path in Path(record["path"]).iterdir()}
    return [*([f"kept was {found}"] if found != {"new", "links", "locked", "void"} else []), *_not_run(world)]


def _alone(world: World) -> None:
    """No command starts anything in the background: the disk is too full for spares, and no clean-up is due."""
    settings = world.cli.settings
    settings.write_text(settings.read_text().replace("library:\n", "library:\n  min-free: 1000TB\n"))
    (world.library / "upkeep").touch()


def _without_spare(world: World) -> None:
    world.without_space()
    world.do("spares", "env", "--keep", "0")


def _with_spare(world: World) -> None:
    _without_spare(world)
    world.do("spares", "env", "--keep", "1")


def _damaged_with_spare(world: World) -> None:
    _damaged(world)
    world.do("spares", "env", "--keep", "1")


def _to_give_back(world: World) -> None:
    """A space, of whose catalog there is no spare, although one is wanted."""
    _with_spare(world)
    world.with_space()


def _not_spare(world: World, count: int = 1) -> list[str]:
    """There must be so many spares, equal to their catalog, and nothing else but drafts, which are garbage."""
    names = {path.name for path in world.spares.iterdir() if path.name[0] != "." and ".outline." not in path.name}
    ready = {name.removesuffix(".outline") for name in names if name.endswith(".outline")}
    if len(ready) != count or names != {*ready, *(f"{name}.outline" for name in ready)}:
        return [f"the spares are {names}"]
    problems: list[str] = world.do("check")["problems"]
    return problems


def _to_fill(world: World) -> None:
    """Two spares are wanted. There is a tree that was given back, where it was changed."""
    _without_spare(world)
    world.with_space()
    world.damage()
    spares = Spares(Holotree(str(world.home)))
    spares.keep({world.digest: 1})
    world.do("delete", "--space", "space")
    spares.keep({world.digest: 2})


def _to_collect(world: World) -> None:
    """What nobody wants any more, and what killed commands left, beside the spaces."""
    world.without_space()
    world.do("spares", "env", "--keep", "1")
    Spares(Holotree(str(world.home))).keep({"env": 0})
    name = f"{world.digest[:5]}abc"
    write(world.spares / name / "folder" / "file", "a tree without a record")
    write(world.spares / f"{name}.outline.1.2", "half an outline")
    write(world.spares / ".keep.json.1.2", "half of what is wanted")
    Layers(str(world.home / "holotree")).prepare()
    write(world.throw_away / "spaces" / "gone" / "0123" / "upper" / "file", "of a space that was a mount")


def _not_collected_beside(world: World) -> list[str]:
    left = [path for path in world.spares.iterdir() if path.name[0] != "." or path.name.startswith(".keep.json.")]
    return [f"not collected: {path}" for path in [*left, *world.throw_away.glob("spaces/*")]]


def _mounted(world: World) -> None:
    """A space that is a mount, in which everything was changed."""
    if world.record_of("space") is None:
        world.do("init", "--space", "space", "env", "--to", world.space, "--strategy", "overlay")
    else:
        world.do("restore", "--space", "space", "--strategy", "overlay")
    world.damage()


def _never_mounted(world: World) -> None:
    """No space, and nothing yet that one could be mounted over."""
    world.without_space()
    world.without_trees()


def _not_mounted(world: World) -> list[str]:
    record = world.record_of("space")
    found = world.unlike(world.digest)
    if not found and record is not None and record["used"] != "overlay":
        found.append("the space is not mounted")
    return found if len([*world.throw_away.glob("spaces/space/*")]) == 1 else [*found, "an old mount was left"]


def _not_unmounted(world: World) -> list[str]:
    is_left = os.path.ismount(world.space) or [*world.throw_away.glob("spaces/*")]
    return ["the mount was left"] if is_left else []


def _not_gone_or_mounted(world: World) -> list[str]:
    return _not_gone(world) + _not_unmounted(world)


def _not_plain(world: World) -> list[str]:
    """It must be a directory like others, no mount."""
    return _not_env(world) + _not_unmounted(world)


_SCRIPT = (
    "{{ cd $HOLO_SPACE_PATH && cat lib/pkg/module.py > {root}/ran && rm -r lib bin && touch new; }} 2> /dev/null"
    " || {{ echo error: $PWD >&2; exit 1; }}; echo {{}}"
)
"""A change that fails, for faults are for it as well, says so as holo does."""
_RECORD = ("record", "{source}", "--name", "env")
_INIT = ("init", "--space", "space", "env", "--to", "{space}")
_INIT_FILE = ("init", "--space", "space", "{export}/env.json", "--to", "{space}")
_RESTORE = ("restore", "--space", "space")
_OTHER = ("restore", "--space", "space", "--catalog", "other")
_DELETE = ("delete", "--space", "space")
_REMOVE = ("catalogs", "--remove", "{digest}")
_FORCE = ("init", "--space", "space", "other", "--to", "{space}", "--force")
_GC = ("gc",)
_CHECK = ("check", "--repair", "--from", "{source}")
_EPHEMERAL = (*("run", "--ephemeral", "--space", "space", "--", "sh", "-c"), _SCRIPT)
_KEEP = (*_EPHEMERAL[:4], "--keep", "kept", *_EPHEMERAL[4:])
_EXPORT = ("export", "env", "kin", "-o", "{root}/app.holo")
_IMPORT = ("import", "{root}/app.holo")
_INIT_BUNDLE = ("init", "--space", "space", "{root}/env.holo", "--to", "{space}")
_PUSH = ("push", "env", "{root}/remote")
_PULL = ("pull", "env", "{root}/remote")
_REMOTE_GC = ("remote", "gc", "{root}/remote")
_SPARES = ("spares", "env", "--keep", "1")
_FILL = (IN_BACKGROUND, "holo.spares", "{home}", "auto", "smart", "0", "")
_MOUNT = (*_INIT, "--strategy", "overlay")
_SMALL_PACKS = {"holo.remote.packs.PACK": 1 << 16, "holo.remote.push.PACK": 1 << 16}
"""So that there are several, and workers that send and fetch them."""
_NO_GRACE = {"holo.remote.garbage.GRACE": 0}
_EXCHANGING = {"holo.restore._WORTH_A_TREE": 3}


_ALL = [
    Scenario("record", "btrfs", _RECORD, World.prune, _unrecorded, _only_other),
    Scenario("record", "xfs", _RECORD, World.prune, _unrecorded, _only_other),
    Scenario("record", "ext4", _RECORD, World.prune, _unrecorded, _only_other),
    Scenario("record-raw", "ext4", _RECORD, World.prune, _unrecorded, _only_other, compression="raw"),
    Scenario("init-first", "btrfs", _INIT, _never_restored, _not_env),
    Scenario("init", "btrfs", _INIT, World.without_space, _not_env, World.with_space),
    Scenario("init", "xfs", _INIT, World.without_space, _not_env),
    Scenario("init-inflate", "xfs", _INIT, _nothing, _not_env, compression="zstd"),
    Scenario("init-hardlink", "xfs", _INIT, _nothing, _not_env, _hardlinked),
    Scenario("init-hardlink", "ext4", _INIT, _nothing, _not_env, _hardlinked),
    Scenario("init", "ext4", _INIT, World.without_space, _not_env),
    Scenario("init-raw", "ext4", _INIT, World.without_space, _not_env, compression="raw"),
    Scenario("init-file", "xfs", _INIT_FILE, _nothing, _not_env, _exported),
    Scenario("restore", "btrfs", _RESTORE, _damaged, _not_env),
    Scenario("restore-exchange", "btrfs", _RESTORE, _damaged, _not_env, tune=_EXCHANGING),
    Scenario("restore", "xfs", _RESTORE, _damaged, _not_env),
    Scenario("restore-hardlink", "ext4", _RESTORE, _damaged, _not_env, _hardlinked),
    Scenario("restore", "ext4", _RESTORE, _damaged, _not_env),
    Scenario("restore-other", "btrfs", _OTHER, World.with_space, _not_other),
    Scenario("restore-other-exchange", "btrfs", _OTHER, World.with_space, _not_other, tune=_EXCHANGING),
    Scenario("restore-other", "ext4", _OTHER, World.with_space, _not_other),
    Scenario("delete", "btrfs", _DELETE, World.with_space, _not_gone),
    Scenario("delete", "ext4", _DELETE, World.with_space, _not_gone),
    Scenario("remove", "btrfs", _REMOVE, _restored, _not_removed),
    Scenario("remove", "ext4", _REMOVE, _restored, _not_removed),
    Scenario("gc", "ext4", _GC, _with_garbage, _not_collected),
    Scenario("gc", "btrfs", _GC, _with_garbage, _not_collected),
    Scenario("check", "ext4", _CHECK, _with_damage, World.library_problems),
    Scenario("ephemeral-first", "ext4", _EPHEMERAL, _never_run, _not_run, compression="raw"),
    Scenario("ephemeral", "btrfs", _EPHEMERAL, _run_once, _not_run),
    Scenario("check", "xfs", _CHECK, _with_damage, World.library_problems),
    Scenario("init-elsewhere", "btrfs", _INIT, World.without_space, _not_env, elsewhere=True),
    Scenario("restore-elsewhere", "xfs", _RESTORE, _damaged, _not_env, elsewhere=True),
    Scenario("restore-verify", "ext4", (*_RESTORE, "--verify"), _damaged, _not_env),
    Scenario("init-force", "xfs", _FORCE, World.with_space, _not_other),
    Scenario("gc-policy", "btrfs", (*_GC, "--keep-last", "1"), _used_before, _not_outlived),
    Scenario("check-only", "btrfs", ("check",), World.with_space, _nothing_to_do),
    Scenario("check-space", "ext4", ("check", "--space", "space"), World.with_space, _nothing_to_do),
    Scenario("export", "ext4", _EXPORT, _unexported(), _not_exported, _to_export),
    Scenario("export", "xfs", _EXPORT, _unexported(), _not_exported, _to_export),
    Scenario(
        *("export-compressed", "btrfs", (*_EXPORT, "--compress")),
        *(_unexported("--compress"), _not_exported, _to_export),
    ),
    Scenario("import", "ext4", _IMPORT, World.prune, _not_imported, _bundled()),
    Scenario("import", "xfs", _IMPORT, World.prune, _not_imported, _bundled()),
    Scenario("import-compressed", "btrfs", _IMPORT, World.prune, _not_imported, _bundled("--compress")),
    Scenario("import-compressed", "ext4", _IMPORT, World.prune, _not_imported, _bundled("--compress")),
    Scenario("init-bundle", "xfs", _INIT_BUNDLE, World.without_space, _not_from_bundle, _bundled()),
    Scenario("init-bundle", "ext4", _INIT_BUNDLE, World.without_space, _not_from_bundle, _bundled("--compress")),
    Scenario("restore-bundle", "btrfs", _RESTORE, _damaged_from_bundle, _not_from_bundle, _bundled()),
    Scenario("ephemeral-keep", "ext4", _KEEP, _never_kept, _not_kept, again=_never_kept),
    Scenario("spares", "ext4", _SPARES, _without_spare, _not_spare, _alone),
    Scenario("init-spare", "ext4", _INIT, _with_spare, _not_env, _alone),
    Scenario("init-spare", "xfs", _INIT, _with_spare, _not_env, _alone),
    Scenario("restore-spare", "ext4", _RESTORE, _damaged_with_spare, _not_env, _alone, tune=_EXCHANGING),
    Scenario("delete-spare", "ext4", _DELETE, _to_give_back, _not_gone, _alone),
    Scenario("fill", "ext4", _FILL, _to_fill, partial(_not_spare, count=2), _alone),
    Scenario("gc-beside", "ext4", _GC, _to_collect, _not_collected_beside, _alone),
    Scenario("init-overlay-first", "ext4", _MOUNT, _never_mounted, _not_mounted, compression="raw"),
    Scenario("init-overlay", "xfs", _MOUNT, World.without_space, _not_mounted),
    Scenario("restore-overlay", "ext4", _RESTORE, _mounted, _not_mounted, compression="raw"),
    Scenario("restore-no-overlay", "ext4", (*_RESTORE, "--strategy", "copy"), _mounted, _not_plain),
    Scenario("delete-overlay", "btrfs", _DELETE, _mounted, _not_gone_or_mounted),
    Scenario("push", "ext4", _PUSH, _unpushed, _not_pushed, _shared("other"), tune=_SMALL_PACKS),
    Scenario("push", "btrfs", _PUSH, _unpushed, _not_pushed, _shared("other")),
    Scenario("pull", "ext4", _PULL, _unpulled, _unrecorded, _shared("other", "env"), tune=_SMALL_PACKS),
    Scenario("pull", "btrfs", _PULL, _unpulled, _unrecorded, _shared("other", "env")),
    Scenario("pull", "xfs", _PULL, _unpulled, _unrecorded, _shared("other", "env"), compression="zstd"),
    Scenario("init-remote", "ext4", _INIT, _neither_pulled_nor_made, _not_env, _from_remote, tune=_SMALL_PACKS),
    Scenario("remote-gc", "ext4", _REMOTE_GC, _unpushed, _not_collected_in_remote, _left_in_remote, tune=_NO_GRACE),
]


_COMMANDS = {IN_BACKGROUND, *(command.name for command in load_all().registered_commands)}

SCENARIOS = [scenario for scenario in _ALL if scenario.command[0] in _COMMANDS]


def each_scenario(*names: str) -> pytest.MarkDecorator:
    """Run a test with each of the named scenarios, or with all, on its filesystem."""
    assert {*names} <= {str(scenario) for scenario in _ALL}
    wanted = [scenario for scenario in SCENARIOS if not names or str(scenario) in names]
    parameters = [pytest.param(scenario, scenario.filesystem, id=str(scenario)) for scenario in wanted]
    return pytest.mark.parametrize(("scenario", "filesystem"), parameters, indirect=["filesystem"])


def spread(total: int, count: int) -> list[int]:
    """``count`` numbers from 1 to ``total``, as evenly as it goes."""
    count = min(total, count)
    return [1 + (2 * number + 1) * total // (2 * count) for number in range(count)]
