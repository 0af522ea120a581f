"""Files that a power cut left their size and time but not their content: never believed, whatever they are.

What a real power cut leaves is in test_power.py. Here such files are made by hand, so that each way to notice
them is tried for sure.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holo.hololib import Library, blobs
from holo.hololib.recovery import locked_library
from support import compare, disks, trees
from support.cli import Holo, another_boot
from support.libraries import catalogs, torn

pytestmark = [
    pytest.mark.torture,
    pytest.mark.parametrize("filesystem", ["xfs"], indirect=True),
    pytest.mark.skipif(
        sys.platform != "linux" or getattr(os, "geteuid", int)() != 0, reason="only root makes another boot"
    ),
]

Note = Callable[[int, str, int], None]


def tear(path: Path) -> None:
    """Zeros in place of the content; what a stat shows stays, but for the ctime."""
    status = path.stat()
    path.chmod(0o600)
    path.write_bytes(bytes(status.st_size))
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def stored(holo: Holo, folder: str = "library") -> list[Path]:
    return sorted(path for path in (holo.library / folder).glob("??/[!.]*") if path.stat().st_size)


def notes(holo: Holo) -> list[str]:
    return os.listdir(holo.library / "unsettled")


def killed_record(holo: Holo, source: Path) -> None:
    """A record that stored everything and published nothing, in this boot."""
    holo("record", source, "--name", "env")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (holo.library / "unsettled" / f"{boot}-1").touch()
    for folder in ("catalog", "names"):
        for path in (holo.library / folder).iterdir():
            path.unlink()


@pytest.mark.parametrize("compression", ["raw", "zstd"])
def test_blobs_of_a_record_cut_by_a_power_failure_are_verified(holo: Holo, compression: str, faults: Note) -> None:
    holo.settings.write_text(f"library:\n  compression: {compression}\n")
    source = trees.small(holo.root / "source")
    trees.write(source / "large", os.urandom(3 << 20))
    trees.settle(source)
    killed_record(holo, source)
    blobs = stored(holo)
    sound = blobs[0].read_bytes()
    faults(1, "torn blobs of an unfinished record", len(blobs) - 1)
    for path in blobs:
        tear(path)
    blobs[0].chmod(0o600)
    blobs[0].write_bytes(sound)
    holo.launcher = another_boot(holo.root)
    result = holo("record", source, "--name", "env", "--json")
    assert "may not have reached the disk" in result.stderr
    assert catalogs(holo)
    assert torn(holo) == notes(holo) == []
    assert not (holo.library / "quarantine").exists()
    path = Path(holo("init", "--space", "one", "env", "--json").json()["path"])
    assert compare.differences(source, path, library=holo.library) == []


def test_blob_that_a_catalog_needs_is_not_deleted(holo: Holo, faults: Note) -> None:
    source = trees.small(holo.root / "source")
    holo("record", source, "--name", "env")
    (holo.library / "unsettled" / "another-boot").touch()
    blob = stored(holo)[0]
    tear(blob)
    result = holo("record", source, "--name", "env", "--json")
    assert "quarantine" in result.stderr
    assert result.json()["blobs"]["new"] == 1
    assert [path.name for path in (holo.library / "quarantine").glob("*/library/*/*")] == [blob.name]
    assert torn(holo) == notes(holo) == []
    faults(1, "damaged blobs of a finished record", 1)


def test_unreadable_blob_stays_in_doubt(holo: Holo, monkeypatch: pytest.MonkeyPatch) -> None:
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    (holo.library / "unsettled" / "another-boot").touch()
    before = stored(holo)
    library = Library(str(holo.home))

    def fail(*_: object) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(blobs, "content_matches", fail)
        with locked_library(library, exclusive=False):
            assert library.blobs.may_be_torn
    assert stored(holo) == before
    assert notes(holo) == ["another-boot"]
    with locked_library(library, exclusive=False):
        assert not library.blobs.may_be_torn
    assert stored(holo) == before
    assert notes(holo) == []


def test_record_of_this_boot_is_continued(holo: Holo) -> None:
    source = trees.small(holo.root / "source")
    killed_record(holo, source)
    result = holo("record", source, "--name", "env", "--json")
    assert result.json()["blobs"]["new"] == 0
    assert result.stderr == ""


def test_finished_record_leaves_nothing_in_doubt(holo: Holo) -> None:
    source = trees.small(holo.root / "source")
    holo("record", source, "--name", "env")
    assert notes(holo) == []
    holo("init", "--space", "one", "env")
    assert notes(holo) == []


@pytest.mark.parametrize(
    ("strategy", "folder"), [("reflink", "library"), ("hardlink", "links")], ids=["inflated", "link-forms"]
)
def test_derived_files_that_never_reached_the_disk(holo: Holo, strategy: str, folder: str, faults: Note) -> None:
    holo.settings.write_text("library:\n  compression: zstd\n")
    source = trees.small(holo.root / "source")
    for number in range(5):
        trees.write(source / f"file-{number}", f"{number}" * 50_000)
    trees.settle(source)
    holo("record", source, "--name", "env")
    before = set(stored(holo, folder)) if folder == "library" else set()
    holo("init", "--space", "one", "env", "--strategy", strategy)
    assert len(notes(holo)) == 1
    derived = [path for path in stored(holo, folder) if path not in before]
    assert len(derived) >= 5
    faults(3, f"torn derived files: {folder}", len(derived))
    for path in derived:
        tear(path)
    holo.launcher = another_boot(holo.root)
    for command in (
        ["init", "--space", "two", "env", "--strategy", strategy],
        ["restore", "--space", "one", "--strategy", strategy],
    ):
        path = Path(holo(*command, "--json").json()["path"])
        assert compare.differences(source, path, library=holo.library) == []
    assert torn(holo) == []


def test_damaged_form_gives_way_to_the_other(holo: Holo, faults: Note) -> None:
    """A raw form without its seal, of which there is a compressed one: what a killed command may leave."""
    holo.settings.write_text("library:\n  compression: zstd\n")
    source = trees.small(holo.root / "source")
    trees.write(source / "file", b"content" * 20_000)
    trees.settle(source)
    holo("record", source, "--name", "env")
    compressed = [path for path in stored(holo) if path.suffix == ".zst"]
    faults(2, "unfinished raw forms", 3 * len(compressed))
    for path in compressed:
        path.with_suffix("").write_bytes(b"not it")
    for strategy in ("copy", "reflink", "hardlink"):
        path = Path(holo("init", "--space", strategy, "env", "--strategy", strategy, "--json").json()["path"])
        assert compare.differences(source, path, library=holo.library) == []


def test_user_who_may_not_remove_blobs_hashes_them(holo: Holo, faults: Note) -> None:
    """A library on a read-only mount, with what a record left that ended with the power."""
    faults(3, "torn blobs in a read-only library", 1)
    source = trees.small(holo.root / "source")
    holo("record", source, "--name", "env")
    (holo.library / "unsettled" / "another-boot").touch()
    blobs = stored(holo)
    tear(blobs[0])
    disks.run("mount", "--bind", holo.library, holo.library)
    disks.run("mount", "-o", "remount,bind,ro", holo.library)
    try:
        result = holo("init", "--space", "one", "env", "--strategy", "reflink", code=3)
    finally:
        disks.unmount(holo.library)
    assert "damaged" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_notes_of_other_users_are_left_alone(holo: Holo) -> None:
    """Their blobs are hashed anyway, and a note with an old time would let everybody read the whole library."""
    source = trees.small(holo.root / "source")
    holo("record", source, "--name", "env")
    for name, mine in (("theirs", False), ("mine", True)):
        note = trees.write(holo.library / "unsettled" / name)
        os.utime(note, (0, 0))
        if not mine:
            os.chown(note, 12345, 12345)
        said = holo("init", "--space", name, "env").stderr
        assert ("may not have reached the disk" in said) is mine
        assert (name in notes(holo)) is not mine


def test_record_of_a_space_that_never_reached_the_disk(holo: Holo, faults: Note) -> None:
    faults(2, "torn record of a space", 2)
    source = trees.small(holo.root / "source")
    holo("record", source, "--name", "env")
    elsewhere = holo.root / "elsewhere"
    holo("init", "--space", "one", "env", "--to", elsewhere)
    holo("restore", "--space", "one")
    trees.write(elsewhere / "extra", b"extra")
    for content in (b"", bytes(300)):
        (holo.holotree / ".spaces" / "one.json").write_bytes(content)
        (state,) = holo("list", "--json").json()["spaces"]
        assert state["state"] == "restoring"
        assert holo("restore", "--space", "one", "--json").json()["path"] == str(elsewhere)
        assert compare.differences(source, elsewhere, library=holo.library) == []
    holo("delete", "--space", "one")
    assert os.listdir(holo.holotree / ".spaces") == ["one.lock"]
