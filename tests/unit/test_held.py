"""Directories that are shared while somebody holds their lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holo.trees.held import hold, is_held


def test_the_lock_of_the_library_comes_before_that_of_a_tree(tmp_path: Path) -> None:
    """Or two commands and a collection wait for each other for ever."""
    path = str(tmp_path / "tree")
    told: list[str] = []

    @contextmanager
    def lock() -> Iterator[None]:
        told.append(f"library, tree held: {is_held(path + '.lock')}")
        yield
        told.append("library free")

    def make(draft: str) -> None:
        told.append(f"make, tree held: {is_held(path + '.lock')}")

    for _ in range(2):
        with hold(path, make, "it", lambda _: None, lock) as held:
            assert held == path
    assert told == ["library, tree held: False", "make, tree held: True", "library free"]
