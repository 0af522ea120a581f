"""Recording, seen from outside: what is stored, what is reported, what is refused."""

from __future__ import annotations

import itertools
import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from holo import digest as digests
from holo import platform
from holo.hololib import Library
from holo.hololib.recovery import locked_library
from holo.record import record as record_here
from support import compare, fiemap, trees
from support.cli import Holo
from support.filesystems import Filesystem

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def source(filesystem: Filesystem) -> Path:
    return trees.small(filesystem.root / "source")


def record(holo: Holo, source: Path, *more: str) -> Any:
    return holo("record", source, "--name", "env", "--json", *more).json()


def catalogs(holo: Holo) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = holo("catalogs", "--json").json()["catalogs"]
    return found


def blobs(holo: Holo) -> dict[str, os.stat_result]:
    files = (path for path in (holo.library / "library").rglob("*") if path.is_file())
    return {path.name: path.stat() for path in files}


@local
def test_report_counts_what_there_is(holo: Holo, source: Path) -> None:
    os.symlink("lib", source / "link")
    found = compare.walk(source)

    report = record(holo, source)

    assert report["name"] == "env"
    assert report["prefix"] == str(source)
    assert report["files"] == 4
    assert report["directories"] == 4
    assert report["symlinks"] == 1
    files = ("bin/hello", "lib/data.txt", "lib/other.txt", "lib/deep/er/leaf")
    assert report["bytes"] == sum(found[os.fsencode(name)].st_size for name in files)
    assert report["blobs"] == {"new": 4, "deduplicated": 0}
    assert report["relocated"] == 1
    assert report["warnings"] == []
    assert report["seconds"] > 0


@local
def test_report_for_people_names_the_counts(holo: Holo, source: Path) -> None:
    shown = holo("record", source, "--name", "env", "-v")
    text = shown.stdout + shown.stderr
    for word in ("files", "directories", "symlinks", "hold its path"):
        assert word in text
    assert "\x1b" not in text


@local
def test_name_is_that_of_the_directory_when_none_is_given(holo: Holo, source: Path) -> None:
    assert holo("record", source, "--json").json()["name"] == "source"


@local
def test_relative_directory_means_its_absolute_path(holo: Holo, source: Path) -> None:
    by_path = record(holo, source)
    by_dot = holo("record", ".", "--name", "env", "--json", cwd=source).json()
    assert by_dot["prefix"] == str(source)
    assert by_dot["digest"] == by_path["digest"]


@local
def test_trailing_slash_changes_nothing(holo: Holo, source: Path) -> None:
    plain = record(holo, source)
    slashed = holo("record", f"{source}/", "--name", "env", "--json").json()
    assert (slashed["prefix"], slashed["digest"]) == (plain["prefix"], plain["digest"])


@local
def test_equal_files_are_stored_once(holo: Holo, filesystem: Filesystem) -> None:
    source = filesystem.root / "source"
    for name in ("one", "two", "three"):
        trees.write(source / name, "the same\n" * 1000)
    assert record(holo, source)["blobs"] == {"new": 1, "deduplicated": 0}
    assert len(blobs(holo)) == 1
    trees.write(source / "four", "another\n" * 1000)
    assert record(holo, source)["blobs"] == {"new": 1, "deduplicated": 1}


def test_recording_again_stores_nothing(holo: Holo, filesystem: Filesystem) -> None:
    source = trees.nasty(filesystem.root / "source", xattrs=filesystem.xattrs)
    first = record(holo, source)
    stored = blobs(holo)

    second = record(holo, source)

    assert first["blobs"]["new"] > 0
    assert second["blobs"]["new"] == 0
    assert second["digest"] == first["digest"]
    assert blobs(holo) == stored


def test_digest_depends_on_the_tree_alone(
    holo: Holo, filesystem: Filesystem, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another library, on another filesystem, with its own way to store: the same digest."""
    source = trees.nasty(tmp_path / "source", xattrs=False)
    elsewhere = Holo(tmp_path_factory.mktemp("elsewhere"))
    assert record(holo, source)["digest"] == record(elsewhere, source)["digest"]


@local
@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "lib" / "data.txt").write_text("changed"),
        lambda source: (source / "lib" / "data.txt").chmod(0o600),
        lambda source: os.utime(source / "lib" / "data.txt", ns=(5, 5)),
        lambda source: os.utime(source / "lib", ns=(5, 5)),
        lambda source: (source / "lib").chmod(0o700),
        lambda source: (source / "empty").mkdir(),
        lambda source: (source / "lib" / "data.txt").rename(source / "lib" / "renamed"),
        lambda source: os.symlink("data.txt", source / "lib" / "link"),
    ],
    ids=["content", "mode", "mtime", "dir-mtime", "dir-mode", "empty-dir", "name", "symlink"],
)
def test_every_change_changes_the_digest(holo: Holo, source: Path, change: Any) -> None:
    before = record(holo, source)["digest"]
    change(source)
    assert record(holo, source)["digest"] != before


def test_source_is_left_alone(holo: Holo, filesystem: Filesystem) -> None:
    source = trees.nasty(filesystem.root / "source", xattrs=filesystem.xattrs)
    before = compare.snapshot(source)
    record(holo, source)
    assert compare.snapshot(source) == before


def test_blobs_share_the_blocks_of_the_source_where_they_can(holo: Holo, filesystem: Filesystem) -> None:
    source = filesystem.root / "source"
    file = trees.write(source / "large", os.urandom(trees.LARGE_SIZE))
    record(holo, source)
    if filesystem.reflinks:
        assert fiemap.is_shared(file)
    elif filesystem.name == "ext4":
        assert not fiemap.is_shared(file)


def test_blobs_are_compressed_only_where_they_cannot_be_shared(holo: Holo, filesystem: Filesystem) -> None:
    source = filesystem.root / "source"
    trees.write(source / "file", "compressible\n" * 10_000)
    record(holo, source)
    (blob,) = blobs(holo)
    assert blob.endswith(".zst") is not filesystem.reflinks


@local
def test_relocated_files_are_those_that_hold_the_prefix(holo: Holo, filesystem: Filesystem) -> None:
    source = trees.nasty(filesystem.root / "source", xattrs=False)
    prefix = os.fsencode(source)
    holders = [
        path
        for path in fiemap.regular_files(source)
        if prefix in Path(os.fsdecode(path)).read_bytes() and not path.endswith(b".pyc")
    ]
    assert len(holders) > 10
    assert record(holo, source)["relocated"] == len(holders)


@local
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_special_file_is_refused_by_name(holo: Holo, source: Path, kind: str) -> None:
    with special(source / "lib" / "special-one", kind):
        refused = holo("record", source, "--name", "env", code=1)
    assert "special-one" in refused.stderr
    assert "--skip-special" in refused.stderr
    assert catalogs(holo) == []


@local
def test_special_files_are_left_out_when_asked(holo: Holo, source: Path) -> None:
    plain = record(holo, source)
    times = (source / "lib").stat()
    with special(source / "lib" / "special-one", "fifo"):
        os.utime(source / "lib", ns=(times.st_atime_ns, times.st_mtime_ns))
        skipped = record(holo, source, "--skip-special")
    assert skipped["files"] == plain["files"]
    assert skipped["digest"] == plain["digest"]
    assert {*skipped["warnings"]} - {*plain["warnings"]} == {
        "left out, not being files, directories or symlinks: lib/special-one (fifo)"
    }


@local
def test_what_is_dropped_of_modes_is_said(holo: Holo, source: Path) -> None:
    for name, mode in (("bin/su", 0o4755), ("lib/su", 0o2755), ("lib/kept", 0o1755)):
        trees.write(source / name, "", mode=mode)
        (source / name).chmod(mode)
    (source / "lib").chmod(0o2755)  # so that what is made there has the group; it is no right
    dropped = "without their setuid and setgid bits, which --keep-setid keeps: bin/su, lib/su"
    assert dropped in record(holo, source)["warnings"]
    assert dropped in holo("init", "one", source, "--json").stderr
    assert not any("setuid" in warning for warning in record(holo, source, "--keep-setid")["warnings"])


@contextmanager
def special(path: Path, kind: str) -> Iterator[None]:
    if kind == "fifo":
        os.mkfifo(path)
        yield
    elif kind == "socket":
        # By a short path: the address of a socket has room for 107 bytes.
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.open(path.parent, os.O_RDONLY)
            try:
                listener.bind(f"/proc/self/fd/{here}/{path.name}")
            finally:
                os.close(here)
            yield
    else:
        if os.geteuid() != 0:
            pytest.skip("only root makes devices")
        os.mknod(path, 0o20600, os.makedev(1, 3))
        yield


@local
def test_setuid_and_setgid_are_dropped(holo: Holo, source: Path) -> None:
    (source / "bin" / "hello").chmod(0o6755)
    record(holo, source)
    path = Path(holo("init", "--space", "one", "env", "--json").json()["path"])
    assert (path / "bin" / "hello").stat().st_mode & 0o7777 == 0o755


@local
def test_file_that_keeps_changing_is_an_error(holo: Holo, source: Path) -> None:
    restless = source / "lib" / "restless"
    program = (
        "import sys\nfile = open(sys.argv[1], 'wb', buffering=0)\nfile.write(b'x' * 30_000_000)\n"
        "print(flush=True)\nnumber = 0\n"
        "while True:\n    file.seek(number % 30_000_000)\n    file.write(b'%d' % number)\n    number += 1\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, restless], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            writer.stdout.readline()
            refused = holo("record", source, "--name", "env", code=1)
        finally:
            writer.kill()
    assert "restless" in refused.stderr
    assert catalogs(holo) == []


@pytest.mark.parametrize("filesystem", ["xfs", "btrfs"], indirect=True)
def test_stores_to_a_mapped_page_that_move_no_time(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is dirty already, so only its content tells that it changed between the reading and the reflink."""
    path = trees.write(filesystem.root / "tree" / "file", b"1" * 4096)
    for name in ("a", "z"):  # with the first file holo finds out whether there are reflinks
        trees.write(path.with_name(name), name)
    library = Library(str(filesystem.root / "home"), "raw")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = ord("2")
        time.sleep(0.2)
        changed = path.stat().st_ctime_ns
        counts = itertools.count()
        clone = platform.clone

        def store_and_clone(*arguments: Any) -> int:
            if arguments[2] == "file" and next(counts) == 0:
                mapped[0] = ord("3")
                assert path.stat().st_ctime_ns == changed
            return clone(*arguments)

        monkeypatch.setattr(platform, "clone", store_and_clone)
        with locked_library(library, exclusive=False):
            report = record_here(library, str(filesystem.root / "tree"))
    assert next(counts) == 2  # it was tried again
    (row,) = [row for path, row in library.catalogs.load(report.digest).files() if path == "file"]
    assert row[4] == digests.of(b"3" + b"1" * 4095)
    assert b"".join(library.blobs.chunks(row[4], row[2])) == b"3" + b"1" * 4095


@local
@pytest.mark.parametrize("what", ["missing", "file"])
def test_what_is_not_a_directory_is_refused(holo: Holo, filesystem: Filesystem, what: str) -> None:
    (filesystem.root / "file").write_text("no directory")
    refused = holo("record", filesystem.root / what, code=1)
    assert str(filesystem.root / what) in refused.stderr


@local
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../escape", "nul\nline", "-dash", "x" * 300])
def test_name_that_cannot_be_a_file_name_is_refused(holo: Holo, source: Path, name: str) -> None:
    before = compare.walk(holo.root).keys()
    refused = holo("record", source, f"--name={name}", code=2)
    assert "name" in refused.stderr
    assert {path for path in compare.walk(holo.root).keys() - before if b"escape" in path} == set()
    assert catalogs(holo) == []


@local
def test_library_inside_the_recorded_tree_is_not_recorded_into_itself(holo: Holo, source: Path) -> None:
    inside = source / "home"
    refused = holo("record", source, "--name", "env", env={"HOLO_HOME": str(inside)}, code=2)
    assert str(source) in refused.stderr


@local
def test_empty_directory_can_be_recorded(holo: Holo, filesystem: Filesystem) -> None:
    (filesystem.root / "empty").mkdir()
    report = record(holo, filesystem.root / "empty")
    assert (report["files"], report["directories"], report["bytes"]) == (0, 0, 0)


@local
@pytest.mark.parametrize(("old", "new"), [("my env", "new"), ("env+x y", "it's 100% new"), ("env", "a+b c")])
def test_url_encoded_prefix_is_patched_in_its_spelling(holo: Holo, filesystem: Filesystem, old: str, new: str) -> None:
    """In that of pip, and that of uv; where both are the same as the plain path, a file:// before it tells."""
    source, space = filesystem.root / old, filesystem.root / new
    safe = {"pip": "/", "uv": "/!$&'()*+,;=:@[]|"}
    for tool, kept in safe.items():
        trees.write(source / tool / "direct_url.json", json.dumps({"url": f"file://{quote(str(source), safe=kept)}/p"}))
    assert record(holo, source)["warnings"] == []
    holo("init", "--space", "space", source, "--to", space)
    for tool, kept in safe.items():
        url = json.loads((space / tool / "direct_url.json").read_text())["url"]
        spelled = safe["uv"] if old == "env" else kept
        assert url == f"file://{quote(str(space), safe=spelled)}/p"
    holo("check", "--space", "space")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 200_000,
        "{",
        "[]",
        '{"dir_info": {"editable": true}, "url": 5}',
        '{"dir_info": {"editable": 1}, "url": "http://["}',
    ],
    ids=["deep", "cut", "list", "number", "brackets"],
)
@local
def test_what_is_no_editable_install_is_recorded(holo: Holo, filesystem: Filesystem, content: str) -> None:
    source = filesystem.root / "env"
    trees.write(source / "package-1.0.dist-info" / "direct_url.json", content)
    assert record(holo, source)["warnings"] == []


@local
def test_editable_install_from_outside_is_reported(holo: Holo, source: Path, filesystem: Filesystem) -> None:
    outside = filesystem.root / "checkout" / "src"
    outside.mkdir(parents=True)
    site = source / "lib" / "python3.11" / "site-packages"
    trees.write(site / "__editable__.package-1.0.pth", f"{outside}\n")
    warnings = record(holo, source)["warnings"]
    assert any("__editable__.package-1.0.pth" in warning for warning in warnings)


@local
def test_catalogs_lists_what_was_recorded(holo: Holo, source: Path) -> None:
    assert catalogs(holo) == []
    report = record(holo, source)
    (listed,) = catalogs(holo)
    for key in ("name", "digest", "files", "directories", "symlinks", "bytes", "prefix"):
        assert listed[key] == report[key]


@local
def test_removed_catalog_is_gone(holo: Holo, source: Path) -> None:
    record(holo, source)
    holo("catalogs", "--remove", "env")
    assert catalogs(holo) == []
    holo("init", "--space", "one", "env", code=1)


@local
def test_damaged_name_stands_in_the_way_of_no_other(holo: Holo, source: Path) -> None:
    digest = record(holo, source)["digest"]
    for name in ("same", "other"):
        trees.write(source / "more", name.encode())
        trees.settle(source)
        other = holo("record", source, "--name", name, "--json").json()["digest"]
    (source / "more").unlink()
    path = holo.library / "names" / "same.json"
    path.write_bytes(path.read_bytes().replace(b"recorded", b"recOrded"))
    assert {entry["name"] for entry in catalogs(holo)} == {"env", "other", None}
    holo("init", "--space", "one", digest)
    holo("init", "--space", "two", other)
    holo("catalogs", "--remove", "other")
    assert len(catalogs(holo)) == 2
    holo("init", "--space", "three", "same", code=1)


@local
def test_recording_under_a_used_name_moves_the_name(holo: Holo, source: Path) -> None:
    first = record(holo, source)["digest"]
    trees.write(source / "more", b"more")
    second = record(holo, source)["digest"]
    named = {entry["name"]: entry["digest"] for entry in catalogs(holo) if entry["name"]}
    assert first != second
    assert named["env"] == second


@local
def test_two_leading_slashes_are_one(holo: Holo, source: Path) -> None:
    """POSIX keeps them apart, so abspath does too; Linux does not."""
    assert holo("record", f"/{source}", "--name", "slashes", "--json").json()["relocated"] == 1
    assert holo("init", "--space", "s", "slashes", "--json").json()["files"]["relocated"] == 1


@local
def test_a_source_and_bytecode_in_one_file_become_two(holo: Holo, source: Path) -> None:
    """A text is patched at any length and bytecode is not, so they cannot stay one inode."""
    (source / "module.py").write_text(f"PLACE = {str(source)!r}\n")
    os.link(source / "module.py", source / "module.pyc")
    record(holo, source)
    space = Path(holo("init", "--space", "s", "env", "--json").json()["path"])
    assert (space / "module.py").read_text() == f"PLACE = {str(space)!r}\n"
    assert (space / "module.pyc").read_text() == f"PLACE = {str(source)!r}\n"
