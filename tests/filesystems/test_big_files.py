"""Large files that hold the prefix: on filesystems with reflinks only the blocks that change are written."""

from __future__ import annotations

import os

import pytest

from support import fiemap, trees
from support.cli import Holo

cloning = pytest.mark.parametrize("filesystem", ["btrfs", "xfs", "ext4"], indirect=True)

SIZE = 8 << 20


def content(prefix: bytes) -> bytes:
    """Some megabytes of other bytes, and in three places C strings with the prefix, one with it twice."""
    noise = os.urandom(1 << 20).replace(b"\0", b"\1")
    string = b"\0" + prefix + b"/lib:" + prefix + b"/bin\0"
    parts = [string if number in (1, 4) else noise for number in range(8)]
    return b"".join(parts) + b"\0" + prefix


@cloning
@pytest.mark.parametrize("length", ["shorter", "equal"])
@pytest.mark.parametrize("strategy", ["reflink", "copy", "hardlink"], indirect=True)
def test_large_binary_is_relocated(holo: Holo, filesystem: object, strategy: str, length: str) -> None:
    space = holo.root / "space"
    source = holo.root / ("longer-than-space" if length == "shorter" else "equal")
    old, new = os.fsencode(source), os.fsencode(space)
    assert len(old) > len(new) if length == "shorter" else len(old) == len(new)
    original = content(old)
    trees.write(source / "lib" / "large.so", original, mode=0o555)
    trees.settle(source)
    holo("record", source, "--name", "env")
    report = holo(*("init", "--space", "one", "env", "--to", space, "--strategy", strategy, "--json")).json()
    assert report["files"]["copied"] == report["files"]["relocated"] == 1

    made = space / "lib" / "large.so"
    expected = b""
    for part in original.split(b"\0"):  # only at the end of a string is room for NULs
        whole = part.removesuffix(old)
        expected += whole.replace(old, new.ljust(len(old), b"/"))
        expected += (new.ljust(len(old), b"\0") if whole != part else b"") + b"\0"
    assert made.read_bytes() == expected[:-1]
    assert made.stat().st_mode & 0o7777 == 0o555
    assert made.stat().st_mtime_ns == (source / "lib" / "large.so").stat().st_mtime_ns
    if strategy == "reflink" and report["strategy"]["used"] in ("reflink", "snapshot"):
        shared = sum(extent.length for extent in fiemap.extents(made) if extent.shared)
        assert shared > len(original) * 0.9
    assert (source / "lib" / "large.so").read_bytes() == original
    assert (
        holo("restore", "--space", "one", "--verify", "--strategy", strategy, "--json").json()["files"]["unchanged"]
        == 1
    )


@pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
def test_many_places_take_no_longer_than_their_bytes(holo: Holo) -> None:
    source, space = holo.root / "source", holo.root / "space1"
    original = b"".join(b"%d %s\0" % (number, os.fsencode(source)) for number in range(50_000))
    trees.write(source / "list", original)
    trees.settle(source)
    holo("record", source, "--name", "env")
    for command in (["init", "--space", "one", "env", "--to", space], ["restore", "--space", "one", "--verify"]):
        holo(*command, timeout=30)
    assert (space / "list").read_bytes() == original.replace(os.fsencode(source), os.fsencode(space))
