"""For pytest: ``holo_workspace(source)`` gives a test a private clone of a directory tree.

pytest loads this at every start of every project, so it imports nothing of holo until a test asks for a workspace.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol

import pytest


class Workspace(Protocol):
    """What the fixture ``holo_workspace`` is."""

    def __call__(self, source: str | os.PathLike[str], *, relocate: bool = False) -> Path: ...


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture
def holo_workspace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A function that makes a private, writable clone of a directory tree for this test, and returns its path.

    The clones lie below pytest's base folder (``--basetemp``): on the filesystem of the source they cost next to
    nothing. They are removed when the test has passed. Those of a test that failed are kept like its ``tmp_path``,
    unless ``tmp_path_retention_policy`` is ``none``. ``relocate`` also patches the source's path inside the files.
    """
    made: list[Path] = []

    def workspace(source: str | os.PathLike[str], *, relocate: bool = False) -> Path:
        from holo.cloning import clone

        folder = Path(tempfile.mkdtemp(prefix="workspace-", dir=tmp_path_factory.getbasetemp()))
        made.append(folder)
        target = folder / (os.path.basename(os.path.abspath(source)) or "workspace")
        report = clone(source, target, relocate=relocate)
        if report.reason is not None:  # shown if the test fails: who waits for copies should know why
            request.node.add_report_section("setup", "holo", f"{target}: {report.used}: {report.reason}")
        return target

    yield workspace
    is_kept = request.node.stash.get(_failed, False) and request.config.getini("tmp_path_retention_policy") != "none"
    if made and not is_kept:
        from holo import platform
        from holo.remove import remove

        for folder in made:
            parent = platform.open_root(str(folder.parent))
            try:
                remove(parent, folder.name)
            finally:
                platform.close_directory(parent)
