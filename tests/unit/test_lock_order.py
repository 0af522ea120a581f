"""The order in which holo takes locks: what the forks of other tests are checked for (support.lockorder)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TAKES = """
import os, sys
from contextlib import ExitStack
from holo.hololib.locks import locked
from support import lockorder

lockorder.watch()
with ExitStack() as held:
    for text in sys.argv[1:]:
        path, _, how = os.path.abspath(text).partition("=")
        held.enter_context(locked(path, path, exclusive="x" in how, wait="t" not in how))
    held.close()
    held.enter_context(locked(path, path, exclusive=False))
"""
"""Takes locks one after the other: ``x`` exclusively, ``t`` if it is free. Then none of them is held."""

SPACE, OTHER, COVER = (f"holotree/.spaces/{name}" for name in ("one.lock", "two.lock", "one.cover"))
VIEW = "holotree/.ephemeral-0/spaces/one/ab/lock"
LIBRARY = ["hololib/pending.lock=", "hololib/lock="]
TREE, LAYER = (f"holotree/.ephemeral-0/{name}/ab.lock" for name in ("trees", "layers"))


@pytest.mark.parametrize(
    ("locks", "is_right"),
    [
        ([f"{SPACE}=x", "hololib/builds/ab.lock=x", *LIBRARY, "hololib/golden/.lock=x"], True),
        ([f"{SPACE}=", f"{OTHER}=", *LIBRARY], True),
        ([f"{SPACE}=", f"{OTHER}=x"], False),
        ([f"{SPACE}=x", f"{OTHER}="], False),
        ([f"{SPACE}=x", f"{OTHER}=xt"], True),
        ([*LIBRARY, f"{SPACE}="], False),
        ([*LIBRARY, f"{SPACE}=xt"], True),
        (["hololib/lock=", *LIBRARY], False),
        (["hololib/golden/.lock=x", *LIBRARY], False),
        ([f"{TREE}=", *LIBRARY, f"{LAYER}=xt"], True),
        ([*LIBRARY, f"{TREE}=x"], False),
        ([f"{TREE}=xt", *LIBRARY], False),
        ([f"{COVER}=xt", f"{TREE}="], False),
        ([f"{SPACE}=", f"{VIEW}=x", *LIBRARY, f"{TREE}=", f"{COVER}="], True),
    ],
)
def test_the_order_is_checked(locks: list[str], is_right: bool, tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", TAKES, *locks],
        env={**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if is_right:
        assert done.returncode == 0, done.stderr
    else:
        assert "see the order in docs/internals.md" in done.stderr
