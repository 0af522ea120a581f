"""Removing a tree while somebody else still changes it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from holo import remove
from holo.errors import HoloError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "stage" / "deep").mkdir(parents=True)
    (tmp_path / "stage" / "deep" / "file").touch()
    return tmp_path / "stage"


def test_entry_that_appears_during_removal_is_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time when its folder has just been emptied."""
    coming = [place / "late", place / "deep" / "later"]
    real = remove.platform.remove_directory

    def remove_directory(directory: Any, name: str) -> None:
        if coming and coming[-1].parent.name == name:
            coming.pop().touch()
        real(directory, name)

    monkeypatch.setattr(remove.platform, "remove_directory", remove_directory)
    remove.remove_at(str(place))
    assert not coming
    assert not place.exists()


def test_entry_that_vanishes_during_removal_is_fine(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it has just been listed; that does not mean that nothing is there."""
    going = [place / "deep" / "file"]
    real = remove.platform.remove_file

    def remove_file(directory: Any, name: str) -> None:
        if going and going[-1].name == name:
            going.pop().unlink()
        real(directory, name)

    monkeypatch.setattr(remove.platform, "remove_file", remove_file)
    remove.remove_at(str(place))
    assert not going
    assert not place.exists()


def test_endless_new_entries_are_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = remove.platform.remove_directory

    def remove_directory(directory: Any, name: str) -> None:
        place.joinpath(os.urandom(8).hex()).touch()
        real(directory, name)

    monkeypatch.setattr(remove.platform, "remove_directory", remove_directory)
    monkeypatch.setattr(remove, "_PATIENCE", 0.2)
    with pytest.raises(HoloError, match="stage: Directory not empty"):
        remove.remove_at(str(place))


@pytest.mark.parametrize("levels", [0, 3, 70])
def test_what_cannot_be_removed_is_named(levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep in a tree by where it is then: directories that lie deep are moved up first."""
    folder = tmp_path / "stage"
    for number in range(levels):
        folder /= f"level-{number}"
    folder.mkdir(parents=True)
    (folder / "kept").touch()
    real = remove.platform.remove_file

    def remove_file(directory: Any, name: str) -> None:
        if name == "kept":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
        real(directory, name)

    monkeypatch.setattr(remove.platform, "remove_file", remove_file)
    with pytest.raises(HoloError) as raised:
        remove.remove_at(str(tmp_path / "stage"))
    assert raised.value.message == f"cannot remove {next(tmp_path.rglob('kept'))}: Operation not permitted"
