"""The console blocks of README and docs show what their commands print."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import consoles
from support.filesystems import Filesystem


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
@pytest.mark.parametrize("page", consoles.PAGES, ids=lambda path: path.name)
def test_console_blocks_are_current(page: Path, filesystem: Filesystem, tmp_path: Path, real_venv_source: Path) -> None:
    world = consoles.World(filesystem.root / "ada", tmp_path)
    world.install()
    world.furnish(real_venv_source)
    text = page.read_text(encoding="utf-8")
    assert consoles.differences(text, consoles.rendered(text, world)) == [], "`make docs` writes the blocks anew"
