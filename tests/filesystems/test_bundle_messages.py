"""What a restore says when the bundle that a space was restored from is gone."""

from __future__ import annotations

import os

import pytest

from support import trees
from support.cli import Holo

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


def test_a_bundle_that_is_gone_is_named(holo: Holo) -> None:
    trees.small(holo.root / "source")
    file = holo.root / "app.holo"
    holo("record", holo.root / "source", "--name", "app")
    holo("export", "app", "-o", file)
    holo("catalogs", "--remove", "app")
    holo("init", "--space", "job", file)
    file.rename(holo.root / "elsewhere.holo")
    done = holo("restore", "--space", "job", code=1)
    assert f"the bundle that space 'job' was restored from is gone: {file}" in done.stderr
    holo("import", holo.root / "elsewhere.holo")
    holo("restore", "--space", "job")


def test_a_bundle_that_is_not_whole_leaves_no_library_behind(holo: Holo) -> None:
    trees.small(holo.root / "source")
    holo("record", holo.root / "source", "--name", "app")
    holo("export", "app", "-o", holo.root / "app.holo")
    part = holo.root / "part.holo"
    part.write_bytes((holo.root / "app.holo").read_bytes()[:-100])
    fresh = holo.root / "fresh"
    holo("init", "job", part, env={"HOLO_HOME": str(fresh)}, code=3)
    assert not (fresh / "hololib").exists()
    done = holo("verify", "source", cwd=holo.root, code=2)
    assert "source is no bundle" in done.stderr


def test_a_bundle_does_not_replace_what_it_builds_on(holo: Holo) -> None:
    holo("record", trees.small(holo.root / "source"), "--name", "app")
    bundle = holo.root / "app.holo"
    holo("export", "app", "-o", bundle)
    whole = bundle.read_bytes()
    (holo.root / "link").symlink_to(bundle)
    for known, output in (bundle, bundle), (bundle, holo.root / "link"), (holo.root / "link", bundle):
        assert "would be replaced" in holo("export", "app", "--known", known, "-o", output, code=2).stderr
        assert bundle.read_bytes() == whole
    holo("export", "app", "--known", "app", "-o", bundle)  # of the library's catalog nothing is lost


def test_a_url_in_place_of_a_bundle(holo: Holo) -> None:
    """It is looked for as a file, and whoever wrote it means one of two things."""
    for command in ("import",), ("init", "job"):
        said = holo(*command, "https://example.com/app.holo", code=1).stderr
        assert "Fetch the file of a URL first." in said
        assert "`holo pull`" in said
    assert "there is no bundle at ./gone.holo" in holo("verify", "./gone.holo", code=1).stderr


def test_what_is_no_file_has_a_hint(holo: Holo) -> None:
    (holo.root / "folder").mkdir()
    os.mkfifo(holo.root / "pipe")
    assert "`holo pull NAME FOLDER`" in holo("import", holo.root / "folder", code=1).stderr
    assert "`holo import -` reads from standard input" in holo("import", holo.root / "pipe", code=1).stderr
