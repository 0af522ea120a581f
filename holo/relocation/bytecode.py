"""Bytecode of CPython: which source it is of, and what in it is no path that is ever used.

The path of its source is in nearly every ``.pyc``, and CPython corrects that when it loads it. All other paths in it
come from the source. So bytecode whose source is patched is made stale by its header (PEP 552), and compiled again.
Bytecode without a source is a program like any other.
"""

from __future__ import annotations

import os

from holo.catalog import Relocation

STALE = Relocation("bytecode", [], [])
"""Bytecode to be compiled again. Its header says of the source: checked by its time and size, which are 0."""


def is_bytecode(name: str) -> bool:
    """Whether a file of that name is loaded as bytecode."""
    return name.endswith(".pyc")


def source_of(bytecode: str) -> str:
    """The source that a ``.pyc`` at this path was compiled from, whether or not it exists.

    PEP 3147 and 488: ``__pycache__/gunicorn.conf.cpython-311.opt-1.pyc`` is of ``gunicorn.conf.py``.
    """
    folder, _, name = bytecode.rpartition("/")
    stem = name.removesuffix(".pyc")
    if folder != "__pycache__" and not folder.endswith("/__pycache__"):
        return f"{folder}/{stem}.py" if folder else f"{stem}.py"
    stem, _, tag = stem.rpartition(".")
    if tag.startswith("opt-"):
        stem = stem.rpartition(".")[0]
    return f"{folder.removesuffix('__pycache__')}{stem}.py"


def program(path: str, content: bytes | None, prefix: bytes, found: Relocation) -> Relocation | None:
    """What must be patched in the bytecode at ``path``, if it has no source; ``None`` if that is nothing.

    ``found`` are the occurrences of ``prefix`` in its ``content`` (``None``: it is too large to look).
    """
    own = prefix + b"/" + os.fsencode(source_of(path))
    if content is not None and all(content.startswith(own, offset) for offset in found.offsets):
        return None
    return found._replace(kind="binary")
