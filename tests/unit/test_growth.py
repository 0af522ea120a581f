"""What grows with the number of files or catalogs grows with it, not with its square. Counted, and timed only where a
pattern is to match, which no test can count.

`benchmarks/growth.py` measures whole commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from holo import hooks, projects, urls
from holo.blueprints import blueprint, conda, requirements
from holo.blueprints.inputs import Inputs
from holo.catalog import Catalog, Relocation
from holo.checkout.materialize import Materializer
from holo.checkout.plan import Fill
from holo.checkout.strategy import Method
from holo.checkout.survey import Finding, Survey, _mark_subtree_missing
from holo.cloning.report import Made
from holo.errors import HoloError
from holo.gc.collect import collect
from holo.gc.policy import Policy
from holo.hololib import Library
from holo.hololib import catalogs as catalogs_module
from holo.interop import packed
from holo.record import _batches, record
from holo.record.scan import Folder, ScannedTree
from holo.relocation import foreign, quoting
from holo.relocation.patch import Relocator
from support import trees

FEW, MANY = 40, 160


def is_linear(work: Callable[[int], int]) -> bool:
    """Whether four times as many take about four times the steps; with a square it would be sixteen times."""
    few, many = work(FEW), work(MANY)
    assert few > 0
    return many < 6 * few


class Steps:
    """A counter."""

    def __init__(self) -> None:
        self.count = 0


class Table(dict[str, Any]):
    """A dictionary that counts what it gives out but by its keys."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def __setitem__(self, key: str, value: Any) -> None:
        self._steps.count += 1
        super().__setitem__(key, value)

    def values(self) -> Any:
        self._steps.count += len(self)
        return super().values()


def test_checking_relocated_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(MANY):
        trees.write(source / str(number), f"{number} {source}\n")
    library = Library(str(tmp_path / "home"))
    catalog = library.catalogs.load(record(library, str(source), "app").digest)

    def work(count: int) -> int:
        steps = Steps()
        relocator = Relocator(catalog.prefix, "/new")
        materializer = Materializer(library.blobs, None, catalog, relocator, Method.COPY, verify=False)
        materializer._patched = Table(steps)
        materializer.check([Fill("", catalog.directories[0][3][:count], [], 0o755, 0)])
        assert len(materializer._patched) == count
        return steps.count

    assert is_linear(work)


def test_cutting_the_files_of_one_directory_into_tasks() -> None:
    class Names(list[str]):
        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            if isinstance(key, slice):
                steps.count += len(found)
                return Names(found)
            return found

    steps = Steps()

    def work(count: int) -> int:
        steps.count = 0
        names = Names(map(str, range(64 * count)))
        tree, folder = ScannedTree(), Folder("")
        folder.files = names
        tree.folders.append(folder)
        tasks = _batches(tree)
        assert [name for task in tasks for batch in task for name in batch.names] == names
        return steps.count

    assert is_linear(work)


def test_adding_up_what_workers_made() -> None:
    class Paths(list[str]):
        def __add__(self, other: Any) -> Any:
            steps.count += len(self) + len(other)
            return Paths(super().__add__(other))

        def __iadd__(self, other: Any) -> Any:
            steps.count += len(other)
            return super().__iadd__(other)

    steps = Steps()

    def work(count: int) -> int:
        steps.count = 0
        made = Made()
        made.fresh = Paths()
        for number in range(count):
            part = Made()
            part.copied, part.fresh = 1, [str(number)]
            made.add(part)
        assert (made.copied, len(made.fresh)) == (count, count)
        return steps.count

    assert is_linear(work)


def test_forgetting_what_is_below_unreadable_directories() -> None:
    class CountedPath(str):
        __slots__ = ()

        def startswith(self, prefix: Any, *more: Any) -> bool:
            steps.count += len(prefix) if isinstance(prefix, tuple) else 1
            return super().startswith(prefix, *more)

        def rpartition(self, separator: str) -> tuple[str, str, str]:
            steps.count += 1
            return super().rpartition(separator)

    steps = Steps()

    def work(count: int) -> int:
        steps.count = 0
        rows = [("", 0o755, 0, [], [])]
        for number in range(count):
            rows += [(CountedPath(f"{number}"), 0o755, 0, [], []), (CountedPath(f"{number}/below"), 0o755, 0, [], [])]
        survey = Survey([Finding(f"{number}", missing=True, unreadable=True) for number in range(count)], {})
        _mark_subtree_missing(survey, Catalog("/x", rows, {}, [], {}))
        assert len(survey.findings) == 2 * count
        return steps.count

    assert is_linear(work)


def test_collecting_many_catalogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    read_file = catalogs_module.read_file

    def counted(*arguments: Any, **more: Any) -> Any:
        steps.count += 1
        return read_file(*arguments, **more)

    def work(count: int) -> int:
        library = Library(str(tmp_path / f"home-{count}"))
        for number in range(count):
            source = tmp_path / "source"
            trees.write(source / "file", str(number))
            record(library, str(source), f"app-{number}")
        monkeypatch.setattr(catalogs_module, "read_file", counted)
        steps.count = 0
        with pytest.raises(catalogs_module.UsageError):
            library.catalogs.only()
        report = collect(library, {}, {}, Policy(keep_last=0), dry_run=False)
        monkeypatch.undo()
        assert sorted(use.names for use in report.catalogs) == sorted([f"app-{number}"] for number in range(count))
        assert not [*library.catalogs.names()]
        assert not library.catalogs.digests()
        return steps.count

    assert is_linear(work)


def test_checking_where_strings_end() -> None:
    """Many paths may be in one C string."""

    class Chunk(bytes):
        def find(self, *arguments: Any) -> int:
            found = super().find(*arguments)
            steps.count += (len(self) if found < 0 else found) - arguments[1]
            return found

    steps = Steps()

    def work(count: int) -> int:
        steps.count = 0
        content = Chunk(b"/old:" * count + b"\0")
        places = Relocation("binary", [5 * number for number in range(count)], [5 * count] * count)
        Relocator("/old", "/new").check([content], places, "file")
        return steps.count

    assert is_linear(work)


LENGTH = 100_000

ODD: list[tuple[str, Callable[[], object]]] = [
    ("git's configuration", lambda: projects._origin('[remote "origin"]' + "\n " * (LENGTH // 2))),
    ("its spaces", lambda: projects._origin('[remote "origin"]\nurl = a' + " \t" * (LENGTH // 2) + "b")),
    ("a pyproject.toml", lambda: blueprint._PROJECT.search(b"\n" * LENGTH)),
    ("the history of conda", lambda: conda._URL.sub("", "a-" * (LENGTH // 2))),
    ("a log with URLs", lambda: urls.hidden("https://a," * (LENGTH // 10))),
    ("a requirement with spaces", lambda: requirements.of_lines(["a" + " " * LENGTH + "!"], "a.txt", Inputs())),
    ("a requirement with brackets", lambda: requirements._CHOSEN.search("./a" + "[" * LENGTH)),
    ("a requirement of a file", lambda: requirements._CHOSEN.search("./a" + " " * LENGTH + "b")),
    ("pyvenv.cfg of an archive", lambda: packed.prefix_in({"pyvenv.cfg": b"command = " + b" -m venv " * 11_000}, "")),
    ("conda-unpack", lambda: packed.records_in(b"_prefix_records = [\n" * (LENGTH // 20), "a.tar")),
    ("the home of a virtualenv", lambda: [*foreign._of_configuration("", b"home = /" + b" " * LENGTH + b"/", "")]),
    ("an interpreter", lambda: foreign._INTERPRETER.match(b"#!" + b"/bin/python " * (LENGTH // 12))),
    ("blanks before an interpreter", lambda: quoting._FIRST_LINE.match(b"#!" + b" " * LENGTH)),
    ("many interpreters", lambda: quoting._FIRST_LINE.match(b"#!" + b" sh" * (LENGTH // 3))),
    ("a hook of git", lambda: hooks._SHELL.match("#!" + "/sh" * (LENGTH // 3))),
]
"""Texts of files that anybody may have written."""


@pytest.mark.parametrize("read", [read for _, read in ODD], ids=[name for name, _ in ODD])
def test_reading_odd_text(read: Callable[[], object]) -> None:
    started = time.process_time()
    with suppress(HoloError):
        read()
    assert time.process_time() - started < 1  # it takes milliseconds; with a square, ten seconds to minutes
