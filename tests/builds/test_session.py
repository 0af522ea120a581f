"""The recorded session of the README, played again: worktrees, their own source, status, diff, and the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import casts, consoles
from support.filesystems import Filesystem


def comparable(events: list[casts.Event]) -> list[str]:
    text = re.sub(r"shop-[0-9a-f]{8,}", "shop-DIGEST", casts.screen(events))
    return consoles.comparable(text).splitlines()


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_the_recorded_session_is_what_happens(filesystem: Filesystem, tmp_path: Path) -> None:
    world = consoles.World(filesystem.root / "ada", tmp_path)
    world.install()
    world.home.mkdir()
    played = casts.play(world)
    shown = casts.screen(played)
    assert f"Fast from shop! {consoles.HOME}/fast/src/shop/__init__.py" in shown
    assert f"Hello from shop! {consoles.HOME}/cheap/src/shop/__init__.py" in shown
    assert len(re.findall(r"cowsay [\d.]+ added", shown)) == 2  # by status and by diff
    assert "error" not in shown
    assert comparable(played) == comparable(casts.read()), "`make docs` records it anew"
