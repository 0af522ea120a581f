"""Signed programs for macOS: wherever holo patches one, the hashes in its signature are those of its pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import macho, packs, trees
from support.cli import Holo
from support.macho import SHA1, SHA256, Signed
from support.packs import Entry

NOISE = os.urandom(1 << 10).replace(b"\0", b"\1") * 1024
"""As large as a piece; it can be compressed."""


def programs(prefix: Path) -> dict[str, bytes]:
    """A small one, one that is read in pieces, and one for two processors; the path is in several pages of each."""
    string = b"\0%b/lib/x:%b\0" % (os.fsencode(prefix), os.fsencode(prefix))
    small = macho.program(string + NOISE[:10_000] + string)
    large = macho.program(NOISE + string + NOISE[: 1 << 19] + string, Signed((SHA1, SHA256)), rpath=os.fsencode(prefix))
    return {"bin/small": small, "lib/large.dylib": large, "lib/fat.so": macho.fat([small, macho.program(string)])}


def are_signed(folder: Path) -> bool:
    """Whether all programs name the folder, and have the hashes of all of their pages."""
    contents = [(folder / path).read_bytes() for path in programs(folder)]
    return all(
        os.fsencode(folder) in content and all(page.is_right for page in macho.page_hashes(content))
        for content in contents
    )


@pytest.mark.parametrize(("filesystem", "compression"), [("local", "zstd"), ("xfs", "raw")], indirect=["filesystem"])
def test_patched_programs_have_right_hashes(holo: Holo, compression: str) -> None:
    holo.settings.write_text(f"library:\n  compression: {compression}\n")
    source, short = holo.root / "source-of-it", holo.root / "short"
    for path, content in programs(source).items():
        trees.write(source / path, content, mode=0o755)
    trees.settle(source)
    holo("record", source, "--name", "env")
    holo("init", "short", "env", "--to", short)
    holo("init", "equal", "env", "--to", holo.root / "target-of-it")
    holo("export", "env", "-o", holo.root / "env.holo")
    holo("init", "direct", holo.root / "env.holo", "--to", holo.root / "direct")
    assert are_signed(short)
    assert are_signed(holo.root / "target-of-it")
    assert are_signed(holo.root / "direct")

    # The same bytes each time: nothing is made again, and nothing is damaged.
    assert holo("restore", "short", "--verify", "--json").json()["files"]["unchanged"] == 3
    holo("check", "--space", "short", "--space", "equal")
    # They are patched back, also where the path is padded.
    for space in ("equal", "direct"):
        holo("delete", space)
    for blob in holo.library.glob("library/??/*"):
        blob.unlink()
    problems = holo("check", "--repair", "--json").json()["problems"]
    assert [problem["repaired"] for problem in problems] == ["restored from space short"] * 3
    holo("init", "as-it-was", "env", "--to", holo.root / "target-of-it")
    assert are_signed(holo.root / "target-of-it")

    holo("clone", "--relocate", source, holo.root / "clone")
    assert are_signed(holo.root / "clone")
    assert all((source / path).read_bytes() == content for path, content in programs(source).items())


@pytest.mark.parametrize("filesystem", ["local"], indirect=True)
def test_programs_of_an_archive_have_right_hashes(holo: Holo) -> None:
    entries = packs.conda("/opt/app")
    old = Path(packs.CONDA_PLACEHOLDER)
    entries[-1:] = [Entry(path, content, 0o755) for path, content in programs(old).items()]
    records: list[tuple[str, str, str]] = [(path, str(old), "binary") for path in programs(old)]
    holo("import", packs.write(holo.root / "app.tar", [*entries, packs.conda_unpack(records)]))
    for place in ("a", "b"):
        holo("init", place, "app", "--to", holo.root / place)
        assert are_signed(holo.root / place)
