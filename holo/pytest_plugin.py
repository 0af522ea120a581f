"""For pytest: ``holo_workspace(source)`` gives a test a private clone of a directory tree.

pytest loads this at every start of every project, so it imports nothing of holo until a test asks for a workspace.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest


class Workspace(Protocol):
    """What the fixture ``holo_workspace`` is. A relative ``source`` is in the folder of the test's file."""

    def __call__(self, source: str | os.PathLike[str], *, relocate: bool = False) -> Path: ...


_failed: set[str] = set()
"""Node ids. No recent pytest may be needed to load this: it is loaded wherever holo is installed, by any pytest."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    if outcome.get_result().failed:
        _failed.add(item.nodeid)


@pytest.fixture
def holo_workspace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A function that makes a private, writable clone of a directory tree for this test, and returns its path.

    A relative path is relative to the folder of the test's file, wherever pytest was started.
    The clones lie below pytest's base folder (``--basetemp``): on the filesystem of the source they cost next to
    nothing. They are removed when the test has passed. Those of a test that failed are kept like its ``tmp_path``,
    unless ``tmp_path_retention_policy`` is ``none``. ``relocate`` also patches the source's path inside the files.
    """
    made: list[Path] = []
    _failed.discard(request.node.nodeid)  # when it was run before

    def workspace(source: str | os.PathLike[str], *, relocate: bool = False) -> Path:
        from holo.cloning import clone

        if os.fspath(source):  # which clone refuses
            source = request.path.parent / source
        folder = Path(tempfile.mkdtemp(prefix="workspace-", dir=tmp_path_factory.getbasetemp()))
        made.append(folder)
        target = folder / (os.path.basename(os.path.abspath(source)) or "workspace")
        report = clone(source, target, relocate=relocate)
        if report.reason is not None:  # shown if the test fails: who waits for copies should know why
            request.node.add_report_section("setup", "holo", f"{target}: {report.used}: {report.reason}")
        return target

    yield workspace
    is_kept = request.node.nodeid in _failed and request.config.getini("tmp_path_retention_policy") != "none"
    if made and not is_kept:
        from holo.errors import HoloError
        from holo.remove import remove_at

        left = []
        for folder in made:
            try:
                remove_at(str(folder))
            except HoloError as error:  # a process still writes there, say, which is not what was tested
                left.append(error.message)
        if left:
            warnings.warn(pytest.PytestWarning("; ".join(left)), stacklevel=1)
