"""A hard link to somebody's file, put where holo writes to a file of its own: that file is not touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from holo import platform
from support import trees
from support.cli import Holo

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="there are no such links"),
    pytest.mark.parametrize("filesystem", ["local"], indirect=True),
]

SECRET = b"somebody's, and longer than what a lock says\n"


@pytest.fixture
def victim(holo: Holo) -> Path:
    holo("record", trees.small(holo.root / "source"), "--name", "env")
    holo("init", "--space", "one", "env", "--strategy", "hardlink")
    return trees.write(holo.root / "victim", SECRET, mode=0o600)


def is_untouched(victim: Path) -> bool:
    found = victim.stat()
    return (victim.read_bytes(), stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (SECRET, 0o600, trees.SOME_TIME)


def put(victim: Path, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    os.link(victim, place)


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("holotree/.spaces/one.lock", ("restore", "--space", "one")),
        ("holotree/.spaces/one.lock", ("delete", "--space", "one")),
        ("holotree/.spaces/one.cover", ("delete", "--space", "one")),
        ("hololib/lock", ("gc",)),
        ("hololib/lock", ("restore", "--space", "one")),
        ("hololib/pending.lock", ("restore", "--space", "one")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_lock_with_a_second_name_is_not_written(holo: Holo, victim: Path, place: str, command: tuple[str, ...]) -> None:
    put(victim, holo.home / place)
    said = holo(*command, code=1).stderr
    assert is_untouched(victim)
    assert f"{holo.home / place}: it has a second name (a hard link), so it may be another file" in said
    assert "Remove that name. Nothing was written." in said
    (holo.home / place).unlink()
    holo("restore", "--space", "one")
    holo(*command)


def test_lock_that_appears_meanwhile_is_not_written(holo: Holo, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else is faster, when it has just been seen that there is none."""
    from holo.errors import HoloError
    from holo.hololib.locks import locked

    place = holo.root / "new.lock"
    real = os.open

    def slow(path: str, flags: int, *arguments: int) -> int:
        if path == str(place) and flags & os.O_CREAT:
            put(victim, place)
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", slow)
    with pytest.raises(HoloError, match="second name"), locked(str(place), "it", exclusive=True):
        pass
    assert is_untouched(victim)


def test_use_mark_with_a_second_name_is_not_written(holo: Holo, victim: Path) -> None:
    """It is replaced: without one that is new, gc could take the catalog for one that nobody uses."""
    (mark,) = (holo.library / "used").iterdir()
    put(victim, mark)
    holo("restore", "--space", "one")
    assert is_untouched(victim)
    assert victim.stat().st_nlink == 1
    assert mark.stat().st_mtime_ns > trees.SOME_TIME


def test_unsettled_note_that_is_a_symlink_is_refused(holo: Holo, victim: Path) -> None:
    """Where none can be left, nothing is made that would need it."""
    note = holo.library / "unsettled" / f"{platform.boot_id()}-{os.geteuid()}"
    note.unlink()
    note.symlink_to(holo.root / "elsewhere")
    for form in holo.library.glob("links/*/*"):
        form.unlink()
    said = holo("init", "--space", "two", "env", "--strategy", "hardlink", code=1).stderr
    assert not (holo.root / "elsewhere").exists()
    assert f"{note} is no note of this user; remove it" in said
    note.unlink()
    put(victim, note)  # a note all the same: nothing is ever written to one
    holo("restore", "--space", "two", "--strategy", "hardlink")
    assert is_untouched(victim)
