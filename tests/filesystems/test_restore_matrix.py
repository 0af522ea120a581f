"""Every behaviour of a restore, with every strategy, on every filesystem.

The tree is `trees.nasty`, so each behaviour is tested with all that an environment may contain. It is
recorded once per filesystem; each test works on a copy of that library.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from support import compare, fiemap, filesystems, trees
from support.cli import Holo, Result
from support.filesystems import Filesystem, Mounts
from support.forks import ForkedHolo, Forks

BLOCK = 4096

PORTABLE = "portable"
"""Stands for XFS, seen through the platform layer of macOS and Windows."""

_numbers = itertools.count(1)


@dataclass
class RecordedLibrary:
    """A library that holds the catalogs `nasty` and `other`, and the trees they were recorded from."""

    holo: Holo
    source: Path
    other: Path
    filesystem: Filesystem
    strategy: str

    def init(self, space: str = "one", catalog: str = "nasty", *more: str, code: int = 0) -> Result:
        return self.holo(*("init", "--space", space, catalog, "--strategy", self.strategy, "--json", *more), code=code)

    def restore(self, space: str = "one", *more: str, code: int = 0) -> Result:
        return self.holo(*("restore", "--space", space, "--strategy", self.strategy, "--json", *more), code=code)

    def space(self, name: str = "one") -> Path:
        return self.holo.path_of(name)

    def differences(self, space: Path, source: Path | None = None) -> list[str]:
        found = compare.differences(source or self.source, space, old=source, library=self.holo.library)
        return [each for each in found if not (self.is_portable and ": has data at " in each)]

    @property
    def is_portable(self) -> bool:
        """Does a path have to fit into one system call, and do copies lose their holes?"""
        return self.filesystem.name == PORTABLE

    @property
    def links(self) -> bool:
        return self.strategy == "hardlink"

    @property
    def clones(self) -> bool:
        """Is content shared by reflink with this strategy on this filesystem?"""
        return self.strategy in ("smart", "reflink") and self.filesystem.reflinks


def seen(name: str, root: Path) -> Filesystem:
    """A folder on a filesystem, and what holo can do there. In Python, only Linux has extended attributes."""
    root.mkdir()
    return Filesystem(name, root, filesystems.reflinks(root), name != PORTABLE and filesystems.xattrs(root))


def folder(mounts: Mounts, name: str) -> Path:
    """Where folders are made on a filesystem."""
    return mounts.get("xfs" if name == PORTABLE else name)


@pytest.fixture(scope="session")
def systems(forks: Forks) -> Iterator[Callable[[str], Forks]]:
    """Holo as it is on a filesystem's system."""
    portable: list[Forks] = []

    def system(name: str) -> Forks:
        if name != PORTABLE:
            return forks
        if not portable:
            portable.append(Forks("--portable"))
        return portable[0]

    yield system
    for each in portable:
        each.close()


@pytest.fixture(params=[*filesystems.NAMES, PORTABLE])
def filesystem(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[Filesystem]:
    """A fresh empty folder on each filesystem in turn, deleted afterwards."""
    found = seen(request.param, folder(mounts, request.param) / f"{next(_numbers):04d}")
    yield found
    filesystems.remove(found.root)


@pytest.fixture(scope="session")
def templates(mounts: Mounts, systems: Callable[[str], Forks]) -> Callable[[str], tuple[Path, Filesystem]]:
    """A folder with `home`, `source...` and `other...` for a filesystem, made when first asked for."""
    made: dict[str, tuple[Path, Filesystem]] = {}

    def template(name: str) -> tuple[Path, Filesystem]:
        if name not in made:
            filesystem = seen(name, folder(mounts, name) / f"template-{name}")
            root = filesystem.root
            source, other = sources(root)
            trees.nasty(source, xattrs=filesystem.xattrs)
            subprocess.run(["cp", "-a", source, other], check=True)
            vary(other)
            holo = ForkedHolo(root, systems(name))
            holo("record", source, "--name", "nasty")
            holo("record", other, "--name", "other")
            made[name] = root, filesystem
        return made[name]

    return template


def sources(template: Path) -> tuple[Path, Path]:
    """Where the trees stand that were recorded.

    Longer than the path of any space, for in a binary file a path can only become shorter, but short enough
    to fit in a shebang.
    """
    source, other = (str(template / name).ljust(112, "-") for name in ("source", "other"))
    return Path(source), Path(other)


def vary(other: Path) -> None:
    """Make another environment of a copy: less of this, more of that, but most of it the same."""
    shutil.rmtree(other / "sizes")
    (other / "names" / "*").unlink()
    trees.write(other / "names" / "new", b"only in the other\n" * 500)
    trees.write(other / "names" / "~tilde", b"changed in the other\n" * 500)
    (other / "modes" / "file-0644").chmod(0o600)
    os.utime(other / "modes" / "file-0600", ns=(1, 1))
    (other / "modes" / "empty").rmdir()
    trees.write(other / "modes" / "empty", b"a file where a directory was")
    (other / "symlinks" / "relative").unlink()
    (other / "symlinks" / "relative").mkdir()
    (other / "symlinks" / "dangling").unlink()
    os.symlink("somewhere/else", other / "symlinks" / "dangling")
    trees.write(other / "prefixes" / "own", f"{other} and {other}\n")
    trees.settle(other)


@pytest.fixture
def recorded(
    templates: Callable[[str], tuple[Path, Filesystem]],
    filesystem: Filesystem,
    systems: Callable[[str], Forks],
    strategy: str,
) -> RecordedLibrary:
    """A library of its own for one test."""
    template, _ = templates(filesystem.name)
    subprocess.run(["cp", "-a", template / "home", filesystem.root / "home"], check=True)
    return RecordedLibrary(
        ForkedHolo(filesystem.root, systems(filesystem.name)), *sources(template), filesystem, strategy
    )


@pytest.fixture
def pristine(recorded: RecordedLibrary) -> tuple[RecordedLibrary, Path]:
    """The same, with a space of `nasty`."""
    return recorded, Path(recorded.init().json()["path"])


# ---------------------------------------------------------------- a new space


def test_new_space_equals_its_source(recorded: RecordedLibrary) -> None:
    path = Path(recorded.init().json()["path"])
    assert recorded.differences(path) == []


@pytest.mark.parametrize("strategy", ["smart", "reflink", "copy"], indirect=True)
def test_rsync_finds_only_the_relocated(recorded: RecordedLibrary) -> None:
    path = Path(recorded.init().json()["path"])
    prefix = os.fsencode(recorded.source)
    relocated = {
        os.path.relpath(os.fsdecode(file), recorded.source)
        for file in fiemap.regular_files(recorded.source)
        if prefix in Path(os.fsdecode(file)).read_bytes() and not file.endswith(b".pyc")
    }
    found = compare.rsync_differences(recorded.source, path)
    files = {line[12:].split(" => ")[0] for line in found if line[1] == "f"}
    assert files == relocated
    symlinks = {line[12:].split(" -> ")[0] for line in found if line.startswith("cL")}
    assert symlinks == {
        f"symlinks/{name}" for name in ("absolute-inside", "absolute-directory", "to-prefix", "dangling-inside")
    }
    assert len(found) == len(files) + len(symlinks)


def test_report_of_a_new_space_adds_up(recorded: RecordedLibrary) -> None:
    report = recorded.init().json()
    found = compare.walk(recorded.source).values()
    sizes = [entry.st_size for entry in found if stat.S_ISREG(entry.st_mode)]
    files = report["files"]
    assert (report["space"], report["catalog"]) == ("one", "nasty")
    assert files["total"] == len(sizes)
    assert files["reflinked"] + files["hardlinked"] + files["copied"] == files["total"]
    assert files["unchanged"] == files["removed"] == 0
    assert 10 < files["relocated"] <= files["copied"]
    assert report["symlinks"] == sum(stat.S_ISLNK(entry.st_mode) for entry in found)
    assert report["directories"] == sum(stat.S_ISDIR(entry.st_mode) for entry in found) - 1
    assert report["bytes"]["shared"] + report["bytes"]["written"] == report["bytes"]["total"]
    assert report["seconds"] > 0


def test_report_says_what_was_used(recorded: RecordedLibrary) -> None:
    report = recorded.init().json()
    strategy, files = report["strategy"], report["files"]
    assert strategy["requested"] == recorded.strategy
    if recorded.links:
        assert strategy["used"] == "hardlink"
        assert files["hardlinked"] > files["copied"]
    elif recorded.clones:
        assert strategy["used"] == ("snapshot" if recorded.filesystem.name == "btrfs" else "reflink")
        assert files["reflinked"] > files["copied"]
    else:
        assert strategy["used"] == "copy"
        assert files["reflinked"] == files["hardlinked"] == 0
    assert bool(strategy["reason"]) is (recorded.strategy in ("smart", "reflink") and not recorded.clones)


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"], indirect=True)
@pytest.mark.parametrize("strategy", ["smart", "reflink"], indirect=True)
def test_content_is_physically_shared(recorded: RecordedLibrary) -> None:
    """Every file that is not relocated shares all its blocks, and the space has almost none of its own."""
    path = Path(recorded.init().json()["path"])
    prefix = os.fsencode(path)
    own_blocks = 0
    for file in fiemap.regular_files(path):
        extents = fiemap.extents(file)
        if prefix in Path(os.fsdecode(file)).read_bytes():
            own_blocks += (os.lstat(file).st_size + BLOCK - 1) // BLOCK * BLOCK
        elif extents and not fiemap.is_inline(file):
            assert fiemap.is_shared(file), file
    assert fiemap.is_shared(path / "sizes" / "large")
    assert fiemap.exclusive_bytes(path) <= own_blocks


@pytest.mark.parametrize("strategy", ["hardlink"], indirect=True)
def test_hardlinks_are_links_into_the_library_and_read_only(recorded: RecordedLibrary) -> None:
    path = Path(recorded.init().json()["path"])
    library = {(found.st_dev, found.st_ino) for found in compare.walk(recorded.holo.library).values()}
    for file in [path / "sizes" / "large", *(path / "names").iterdir()]:
        found = file.lstat()
        if stat.S_ISREG(found.st_mode):
            assert (found.st_dev, found.st_ino) in library
            assert found.st_mode & 0o222 == 0


def test_relocated_files_are_shared_with_nothing(recorded: RecordedLibrary) -> None:
    path = Path(recorded.init().json()["path"])
    outside = compare.walk(recorded.holo.library).values()
    inodes = {(found.st_dev, found.st_ino) for found in outside}
    prefix = os.fsencode(path)
    seen = 0
    for file in fiemap.regular_files(path):
        if prefix in Path(os.fsdecode(file)).read_bytes():
            found = os.lstat(file)
            assert (found.st_dev, found.st_ino) not in inodes
            seen += 1
    assert seen > 10


def test_without_reflinks_the_strategy_reflink_warns_once(recorded: RecordedLibrary) -> None:
    shown = recorded.init().stderr
    warnings = [line for line in shown.splitlines() if line.startswith("warning")]
    if recorded.strategy == "reflink" and not recorded.filesystem.reflinks:
        assert len(warnings) == 1
        assert "reflink" in warnings[0]
    else:
        assert warnings == []


def test_strict_fails_before_writing_where_the_strategy_is_not_to_be_had(recorded: RecordedLibrary) -> None:
    impossible = recorded.strategy in ("smart", "reflink") and not recorded.filesystem.reflinks
    before = compare.walk(recorded.holo.holotree).keys() if recorded.holo.holotree.exists() else set()
    refused = recorded.init("one", "nasty", "--strict", code=1 if impossible else 0)
    if impossible:
        assert "reflink" in refused.json()["error"]["message"]
        assert "reflink" in refused.stderr
        after = compare.walk(recorded.holo.holotree) if recorded.holo.holotree.exists() else {}
        assert [name for name in after.keys() - before if not name.startswith(b".")] == []
        assert recorded.holo("list", "--json").json() == {"spaces": []}


def test_script_in_the_space_runs_from_there(recorded: RecordedLibrary) -> None:
    path = Path(recorded.init().json()["path"])
    said = subprocess.run([path / "bin" / "hello"], capture_output=True, text=True, check=True)
    assert said.stdout == f"hello from {path}\n"


def test_bytecode_is_still_valid(recorded: RecordedLibrary) -> None:
    """Python rewrites a .pyc that it finds stale, so an import that changes nothing compiled nothing."""
    path = Path(recorded.init().json()["path"])
    package = path / "lib" / "python"
    before = compare.snapshot(package)
    code = f"import sys; sys.path.insert(0, {str(package)!r}); import module; print(module.where())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert said.stdout == f"{package / 'module.py'}\n"
    assert compare.snapshot(package) == before


def test_space_of_equal_path_length(recorded: RecordedLibrary) -> None:
    target = recorded.filesystem.root / "t"
    target = target.with_name("t".ljust(len(str(recorded.source)) - len(str(target)) + 1, "t"))
    assert len(str(target)) == len(str(recorded.source))
    recorded.init("one", "nasty", "--to", str(target))
    assert recorded.differences(target) == []


def test_binary_files_cannot_take_a_longer_path(recorded: RecordedLibrary) -> None:
    target = Path(str(recorded.filesystem.root / "t").ljust(len(str(recorded.source)) + 1, "t"))
    refused = recorded.init("one", "nasty", "--to", str(target), code=1)
    assert not target.exists()
    assert "prefixes/binary/terminated" in refused.stderr
    assert "longer" in refused.stderr


# ---------------------------------------------------------------- an unchanged space


def test_unchanged_space_is_not_touched(pristine: tuple[RecordedLibrary, Path]) -> None:
    recorded, path = pristine
    before = compare.snapshot(path)
    files = recorded.restore().json()["files"]
    assert compare.snapshot(path) == before
    assert files["unchanged"] == files["total"]
    assert files["reflinked"] == files["hardlinked"] == files["copied"] == files["removed"] == 0


def test_init_of_an_existing_space_is_a_restore(pristine: tuple[RecordedLibrary, Path]) -> None:
    recorded, path = pristine
    before = compare.snapshot(path)
    report = recorded.init().json()
    assert report["path"] == str(path)
    assert report["files"]["unchanged"] == report["files"]["total"]
    assert compare.snapshot(path) == before


def test_unchanged_space_passes_verification(pristine: tuple[RecordedLibrary, Path]) -> None:
    recorded, path = pristine
    before = compare.snapshot(path)
    files = recorded.restore("one", "--verify").json()["files"]
    assert files["unchanged"] == files["total"]
    assert compare.snapshot(path) == before


# ---------------------------------------------------------------- damage and repair

Damage = Callable[[Path, Path], object]
DAMAGES: dict[str, Damage] = {}


def damage(function: Damage) -> Damage:
    DAMAGES[function.__name__.replace("_", "-")] = function
    return function


def replace(file: Path, content: bytes) -> None:
    """As an editor saves: a new file in the place of the old one."""
    file.unlink()
    file.write_bytes(content)


@damage
def file_deleted(space: Path, outside: Path) -> None:
    (space / "sizes" / "block").unlink()
    (space / "sizes" / "zero").unlink()
    (space / "bin" / "hello").unlink()


@damage
def directory_deleted(space: Path, outside: Path) -> None:
    shutil.rmtree(space / "hardlinks")
    (space / "modes" / "empty").rmdir()


@damage
def everything_deleted(space: Path, outside: Path) -> None:
    for entry in space.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        else:
            shutil.rmtree(entry)


@damage
def file_replaced(space: Path, outside: Path) -> None:
    replace(space / "names" / "with space", b"something else")
    replace(space / "sizes" / "zero", b"not empty")
    replace(space / "sizes" / "large", b"")


@damage
def file_rewritten_in_place(space: Path, outside: Path) -> None:
    for name in ("one", "block", "sparse"):
        file = space / "sizes" / name
        file.chmod(0o644)
        with file.open("r+b") as opened:
            opened.write(b"DAMAGED")


@damage
def file_of_equal_size(space: Path, outside: Path) -> None:
    file = space / "sizes" / "block"
    replace(file, b"c" * file.stat().st_size)


@damage
def relocated_file_replaced(space: Path, outside: Path) -> None:
    replace(space / "prefixes" / "text" / "several", b"no prefix at all")
    (space / "prefixes" / "binary" / "several").unlink()


@damage
def prefix_of_another_place(space: Path, outside: Path) -> None:
    file = space / "prefixes" / "text" / "only"
    replace(file, os.fsencode(file.parent)[: file.stat().st_size])


@damage
def file_mode_changed(space: Path, outside: Path) -> None:
    (space / "bin" / "hello").chmod(0o600)
    (space / "modes" / "file-0400").chmod(0o777)


@damage
def directory_mode_changed(space: Path, outside: Path) -> None:
    (space / "modes" / "dir-0700").chmod(0o755)
    (space / "modes" / "dir-0555").chmod(0o755)


@damage
def file_touched(space: Path, outside: Path) -> None:
    os.utime(space / "sizes" / "block")
    os.utime(space / "prefixes" / "text" / "only")


@damage
def directory_touched(space: Path, outside: Path) -> None:
    os.utime(space / "names")
    os.utime(space / "modes" / "empty")


@damage
def top_directory_changed(space: Path, outside: Path) -> None:
    space.chmod(0o700)
    os.utime(space)


@damage
def extra_file(space: Path, outside: Path) -> None:
    (space / "extra").write_text("extra")
    (space / "modes" / "empty" / "extra").write_text("extra")
    (space / "names" / os.fsdecode(b"extra \xff\n")).write_text("extra")


@damage
def extra_directory(space: Path, outside: Path) -> None:
    (space / "extra" / "deep" / "er").mkdir(parents=True)
    (space / "extra" / "deep" / "file").write_text("extra")
    (space / "extra" / "deep").chmod(0o555)


@damage
def extra_in_a_read_only_directory(space: Path, outside: Path) -> None:
    folder = space / "modes" / "dir-0555"
    folder.chmod(0o755)
    (folder / "extra").write_text("extra")
    (folder / "inside").unlink()
    folder.chmod(0o555)


@damage
def extra_symlink_to_the_outside(space: Path, outside: Path) -> None:
    os.symlink(outside, space / "extra-link")
    os.symlink(outside / "file", space / "names" / "extra-link")


@damage
def extra_special_file(space: Path, outside: Path) -> None:
    os.mkfifo(space / "names" / "fifo")


@damage
def directory_became_a_file(space: Path, outside: Path) -> None:
    shutil.rmtree(space / "names")
    (space / "names").write_text("a file")


@damage
def directory_became_a_symlink_to_the_outside(space: Path, outside: Path) -> None:
    """The outside looks like the directory that it stands for: what is written there would land in it."""
    shutil.copytree(space / "sizes", outside / "sizes")
    (outside / "sizes" / "extra").write_text("not holo's")
    shutil.rmtree(space / "sizes")
    os.symlink(outside / "sizes", space / "sizes")


@damage
def file_became_a_directory(space: Path, outside: Path) -> None:
    file = space / "sizes" / "block"
    file.unlink()
    (file / "deep").mkdir(parents=True)
    (file / "deep" / "file").write_text("extra")


@damage
def file_became_a_symlink_to_the_outside(space: Path, outside: Path) -> None:
    for name in ("sizes/block", "bin/hello", "prefixes/binary/several"):
        (space / name).unlink()
        os.symlink(outside / "file", space / name)


@damage
def file_became_a_fifo(space: Path, outside: Path) -> None:
    (space / "sizes" / "block").unlink()
    os.mkfifo(space / "sizes" / "block")


@damage
def file_became_a_hardlink_to_the_outside(space: Path, outside: Path) -> None:
    for name in ("sizes/block", "prefixes/text/only"):
        (space / name).unlink()
        try:
            os.link(outside / "file", space / name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # No hard link leads out of a Btrfs subvolume.
            (space / name).write_bytes((outside / "file").read_bytes())


@damage
def symlink_retargeted(space: Path, outside: Path) -> None:
    for name in ("relative", "absolute-inside", "to-directory"):
        (space / "symlinks" / name).unlink()
        os.symlink(outside / "file", space / "symlinks" / name)


@damage
def symlink_became_something_else(space: Path, outside: Path) -> None:
    (space / "symlinks" / "relative").unlink()
    (space / "symlinks" / "relative").write_text("a file")
    (space / "symlinks" / "to-directory").unlink()
    (space / "symlinks" / "to-directory" / "deep").mkdir(parents=True)
    (space / "symlinks" / "dangling").unlink()


@damage
def hardlink_group_split(space: Path, outside: Path) -> None:
    pair = space / "hardlinks" / "pair-2"
    content, found = pair.read_bytes(), pair.stat()
    replace(pair, content)
    pair.chmod(stat.S_IMODE(found.st_mode))
    os.utime(pair, ns=(found.st_mtime_ns, found.st_mtime_ns))


@damage
def strangers_linked(space: Path, outside: Path) -> None:
    (space / "hardlinks" / "pair-2").unlink()
    os.link(space / "bin" / "hello", space / "hardlinks" / "pair-2")


@damage
def attributes_changed(space: Path, outside: Path) -> None:
    if not (space / "xattrs").exists():
        pytest.skip("no attributes on this filesystem")
    os.setxattr(space / "xattrs" / "file", "user.holo.text", b"changed")
    os.setxattr(space / "modes" / "dir-0700", "user.holo.extra", b"extra")
    os.removexattr(space / "xattrs" / "folder", "user.holo.folder")


@pytest.mark.parametrize("strategy", ["smart", "hardlink"], indirect=True)  # smart is reflink, or copy
@pytest.mark.parametrize("filesystem", ["btrfs", "xfs", "ext4", PORTABLE], indirect=True)
@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_repaired(pristine: tuple[RecordedLibrary, Path], tmp_path: Path, kind: str) -> None:
    recorded, path = pristine
    # On the same filesystem, so that links between the two are possible.
    outside = path.parent.parent.parent / "outside"
    filesystems.remove(outside)
    trees.write(outside / "file", b"not holo's")
    DAMAGES[kind](path, outside)
    precious = compare.snapshot(outside)
    assert recorded.differences(path), "the damage is none"

    files = recorded.restore().json()["files"]

    assert recorded.differences(path) == []
    after = compare.snapshot(outside)
    if kind == "file-became-a-hardlink-to-the-outside":
        # Its link count fell, which shows in the change time; nothing else may.
        precious, after = ({name: found[:4] for name, found in tree.items()} for tree in (precious, after))
        assert (outside / "file").read_bytes() == b"not holo's"
    assert after == precious
    made = files["reflinked"] + files["hardlinked"] + files["copied"]
    assert made + files["unchanged"] == files["total"]


def test_repair_touches_only_what_differs(pristine: tuple[RecordedLibrary, Path]) -> None:
    recorded, path = pristine
    (path / "names" / "with space").unlink()
    (path / "names" / "extra").write_text("extra")
    before = compare.snapshot(path)

    report = recorded.restore().json()

    files = report["files"]
    after = compare.snapshot(path)
    changed = {name for name in before if after.get(name) != before[name]}
    if report["strategy"]["used"] == "snapshot":  # the whole space is exchanged
        assert files["unchanged"] == 0
    else:
        assert changed == {b".", b"names", b"names/extra"}
        assert files["total"] - files["unchanged"] == 1
    assert files["removed"] == 1


def test_change_hidden_from_stat_is_found_by_verify(pristine: tuple[RecordedLibrary, Path]) -> None:
    recorded, path = pristine
    for name in ("sizes/block", "prefixes/text/only"):
        file = path / name
        found = file.stat()
        with file.open("r+b") as opened:
            opened.seek(found.st_size // 2)
            opened.write(b"!")
        os.utime(file, ns=(found.st_mtime_ns, found.st_mtime_ns))
    assert recorded.differences(path)
    recorded.restore("one", "--verify")
    assert recorded.differences(path) == []


def test_attribute_of_a_shared_file_is_found_by_verify(pristine: tuple[RecordedLibrary, Path]) -> None:
    """On a hardlinked file only the change time tells, which every other link moves as well."""
    recorded, path = pristine
    if not recorded.filesystem.xattrs:
        pytest.skip("no attributes on this filesystem")
    os.setxattr(path / "xattrs" / "plain", "user.holo.extra", b"extra")
    assert recorded.differences(path)
    recorded.restore("one", "--verify")
    assert recorded.differences(path) == []


def test_dry_run_changes_nothing(pristine: tuple[RecordedLibrary, Path]) -> None:
    recorded, path = pristine
    (path / "sizes" / "block").unlink()
    (path / "extra").write_text("extra")
    before = compare.snapshot(path)

    plan = recorded.restore("one", "--dry-run").json()

    assert compare.snapshot(path) == before
    assert "extra" in plan["remove"]
    assert [file["path"] for file in plan["files"]] == ["sizes/block"]
    assert plan["unchanged"] > 50
    recorded.restore()
    assert recorded.differences(path) == []


def test_running_executable_is_replaced(recorded: RecordedLibrary) -> None:
    """The kernel lets nobody write to a program that runs (ETXTBSY), but it can be replaced."""
    path = Path(recorded.init().json()["path"])
    program = path / "names" / "with space"
    program.unlink()
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as running:
        try:
            recorded.restore()
            assert recorded.differences(path) == []
            assert running.poll() is None
        finally:
            running.kill()


def test_paths_beyond_path_max(recorded: RecordedLibrary) -> None:
    """Such a path cannot be named in one system call, only walked to."""
    depth, name, holo = 25, "d" * 200, recorded.holo
    source = recorded.filesystem.root / "deep"
    source.mkdir()
    here = os.open(source, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        here = descend(here, name)
    bottom = os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(bottom, b"deep down\n" * 1000)
    os.close(bottom)
    os.close(here)

    if recorded.is_portable:
        assert "name too long" in holo("record", source, "--name", "deep", code=1).stderr
        return
    holo("record", source, "--name", "deep")
    path = Path(recorded.init("one", "deep").json()["path"])

    here = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        here = descend(here, name)
    with open(os.open("bottom", os.O_RDONLY, dir_fd=here), "rb") as file:
        assert file.read() == b"deep down\n" * 1000
    os.unlink("bottom", dir_fd=here)
    os.close(here)
    files = recorded.restore().json()["files"]
    assert (files["total"], files["unchanged"]) == (1, 0)
    holo("delete", "--space", "one")
    assert not path.exists()


def descend(here: int, name: str) -> int:
    below = os.open(name, os.O_RDONLY, dir_fd=here)
    os.close(here)
    return below


# ---------------------------------------------------------------- another catalog


def test_another_catalog_is_refused_without_force(recorded: RecordedLibrary) -> None:
    path = Path(recorded.init().json()["path"])
    before = compare.snapshot(path)
    refused = recorded.init("one", "other", code=1)
    assert "--force" in refused.stderr
    assert compare.snapshot(path) == before


@pytest.mark.parametrize("command", ["init --force", "restore --catalog"])
def test_switch_touches_only_what_differs(recorded: RecordedLibrary, command: str) -> None:
    path = Path(recorded.init().json()["path"])
    before = compare.snapshot(path)

    if command == "init --force":
        report = recorded.init("one", "other", "--force").json()
    else:
        report = recorded.restore("one", "--catalog", "other").json()

    assert report["catalog"] == "other"
    # What was copied from the source still holds the source's path; the other tree's own becomes the space's.
    assert other_differences(recorded, path) == []
    after = compare.snapshot(path)
    same = [b"names/with space", b"modes/file-0755", b"hardlinks/b/stranger", b"symlinks/folder/file"]
    for name in same:
        assert after[name] == before[name]
    files = report["files"]
    assert files["unchanged"] > files["total"] / 3
    assert files["removed"] > 0


def other_differences(recorded: RecordedLibrary, space: Path) -> list[str]:
    return recorded.differences(space, recorded.other)


def test_switch_there_and_back(recorded: RecordedLibrary) -> None:
    path = Path(recorded.init().json()["path"])
    recorded.init("one", "other", "--force")
    recorded.init("one", "nasty", "--force")
    assert recorded.differences(path) == []


def test_failed_switch_is_completed_by_the_next(recorded: RecordedLibrary) -> None:
    """What was left as it was belongs to the one catalog, what was made to the other."""
    path = Path(recorded.init().json()["path"])
    content = (recorded.other / "names" / "new").read_bytes()
    blobs = [blob for blob in (recorded.holo.library / "library").rglob("*") if blob.is_file()]
    (blob,) = (blob for blob in blobs if is_content(blob, content))
    away = blob.rename(recorded.holo.root / "away")

    recorded.init("one", "other", "--force", code=3)
    away.rename(blob)
    recorded.init("one", "other", "--force")

    assert other_differences(recorded, path) == []


def is_content(blob: Path, content: bytes) -> bool:
    stored = blob.read_bytes()
    return content == (zstandard.ZstdDecompressor().decompress(stored) if blob.suffix == ".zst" else stored)


# ---------------------------------------------------------------- several spaces


def test_edits_in_one_space_do_not_show_in_another(recorded: RecordedLibrary) -> None:
    one, two = (Path(recorded.init(name).json()["path"]) for name in ("one", "two"))
    library, untouched = compare.snapshot(recorded.holo.library), compare.snapshot(two)
    for file in fiemap.regular_files(one):
        if os.lstat(file).st_mode & 0o200:  # a hardlinked file is read-only, which is how it is protected
            with open(file, "r+b") as opened:
                opened.write(b"EDITED")
                opened.truncate(6)
    (one / "names").rename(one / "renamed")
    assert compare.snapshot(two) == untouched
    assert compare.snapshot(recorded.holo.library) == library
    assert recorded.differences(two) == []


@pytest.mark.parametrize("strategy", ["hardlink"], indirect=True)
def test_edit_of_a_hardlinked_file_is_noticed_and_does_not_spread(recorded: RecordedLibrary) -> None:
    """A determined user writes through the read-only link. The next use of that content must not trust it."""
    one, two = (Path(recorded.init(name).json()["path"]) for name in ("one", "two"))
    file = one / "sizes" / "block"
    file.chmod(0o644)
    file.write_bytes(b"written through the link")

    recorded.init("three")
    assert recorded.differences(recorded.space("three")) == []
    for name, path in (("one", one), ("two", two)):
        recorded.restore(name)
        assert recorded.differences(path) == []


def test_strategy_may_change_between_restores(recorded: RecordedLibrary) -> None:
    path = Path(recorded.init().json()["path"])
    for strategy in ("copy", "hardlink", "smart"):
        shutil.rmtree(path / "sizes")
        holo = recorded.holo
        holo("restore", "--space", "one", "--strategy", strategy)
        assert recorded.differences(path) == []


# ---------------------------------------------------------------- trouble


def blob_of_the_large_file(recorded: RecordedLibrary) -> Path:
    blobs = (path for path in (recorded.holo.library / "library").rglob("*") if path.is_file())
    (blob,) = (path for path in blobs if path.stat().st_blocks * 512 > trees.LARGE_SIZE / 2)
    return blob


def test_missing_blob_is_an_error_that_names_it(recorded: RecordedLibrary) -> None:
    blob = blob_of_the_large_file(recorded)
    blob.unlink()
    failed = recorded.init(code=3)
    assert blob.name[:64] in failed.stderr
    states = [space["state"] for space in recorded.holo("list", "--json").json()["spaces"]]
    assert "pristine" not in states


def test_damaged_blob_is_found_by_verify(recorded: RecordedLibrary) -> None:
    blob = blob_of_the_large_file(recorded)
    blob.chmod(0o644)
    with blob.open("r+b") as opened:
        opened.seek(1_000_000)
        opened.write(b"DAMAGED")
    failed = recorded.init("one", "nasty", "--verify", code=3)
    assert blob.name[:64] in failed.stderr


@pytest.mark.parametrize("moment", [0.15, 0.25, 0.4])
def test_killed_restore_is_completed_by_the_next(recorded: RecordedLibrary, moment: float) -> None:
    arguments = ("init", "--space", "one", "nasty", "--strategy", recorded.strategy)
    process = subprocess.Popen(
        [sys.executable, "-m", "holo", *arguments],
        env=recorded.holo.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(moment)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    path = Path(recorded.init().json()["path"])
    assert recorded.differences(path) == []
    assert [space["state"] for space in recorded.holo("list", "--json").json()["spaces"]] == ["pristine"]
