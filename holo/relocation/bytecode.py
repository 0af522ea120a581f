"""Bytecode of CPython: which source it was compiled from, and when it is patched.

Nearly every ``.pyc`` contains the path of its source, which CPython corrects when it loads the file. All other paths in
it come from the source. So bytecode with a source is never searched for paths: it is shared as it is, or, if its source
is patched, made stale by its header (PEP 552), so that CPython compiles the source again. Bytecode without a source is
a program like any other.

pytest keeps bytecode of its own, of tests and plugins whose assertions it has rewritten. Before its version 9.2 it did
not correct the path in there (https://github.com/pytest-dev/pytest/pull/14989), so that is always made stale.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from typing import TypeAlias

from holo.catalog import BYTECODE_HEADER, Relocation

STALE = Relocation("bytecode", [], [])
"""Bytecode to be compiled again. Its header says of the source: checked by its time and size, which are 0."""

_OF_PYTEST = re.compile(r"\.[^.]*-(?:pytest-.*|PYTEST)\.pyc")
"""How a name ends: ``.cpython-311-pytest-9.1.0.pyc``; with ``-PYTEST`` before pytest 5.0."""

Names: TypeAlias = Callable[[str], Collection[str]]
"""The names of the files in a folder of the tree, without bytecode that is shorter than its header."""


def is_bytecode(name: str) -> bool:
    """Whether a file of that name is loaded as bytecode."""
    return name.endswith(".pyc")


def is_rewritten(name: str) -> bool:
    """Whether a file of that name is bytecode of pytest's."""
    return _OF_PYTEST.search(name) is not None


def source_of(bytecode: str) -> str:
    """The source that a ``.pyc`` at this path was compiled from, whether or not it exists.

    PEP 3147 and 488: ``__pycache__/gunicorn.conf.cpython-311.opt-1.pyc`` is of ``gunicorn.conf.py``.
    """
    folder, _, name = bytecode.rpartition("/")
    stem = name.removesuffix(".pyc")
    if folder != "__pycache__" and not folder.endswith("/__pycache__"):
        return f"{folder}/{stem}.py" if folder else f"{stem}.py"
    if (tail := _OF_PYTEST.search(name)) is not None:
        stem = name[: tail.start()]
    else:
        stem, _, tag = stem.rpartition(".")
        if tag.startswith("opt-"):
            stem = stem.rpartition(".")[0]
    return f"{folder.removesuffix('__pycache__')}{stem}.py"


def has_source(path: str, names: Names) -> bool:
    """Whether the file at ``path`` is bytecode, and its source is in the tree."""
    if not is_bytecode(path):
        return False
    folder, _, name = source_of(path).rpartition("/")
    return name in names(folder)


def compiled_from(source: str, names: Names) -> list[str]:
    """The bytecode that was compiled from the file at ``source``: to be made :data:`STALE` if that is patched."""
    if not source.endswith(".py"):
        return []
    folder = os.path.join(os.path.dirname(source), "__pycache__")
    compiled = [f"{folder}/{name}" for name in names(folder) if is_bytecode(name)]
    return sorted(path for path in compiled if source_of(path) == source)


def program(path: str, content: bytes | None, prefix: bytes, found: Relocation) -> Relocation | None:
    """Where to patch the bytecode at ``path`` if it has no source; ``None`` if it names nothing but that source.

    ``found`` are the occurrences of ``prefix`` in its ``content`` (``None``: the file is too large to look).
    """
    if is_rewritten(path):
        return STALE if content is None or len(content) >= BYTECODE_HEADER else None
    own = prefix + b"/" + os.fsencode(source_of(path))
    if content is not None and all(content.startswith(own, offset) for offset in found.offsets):
        return None
    return found._replace(kind="binary")
