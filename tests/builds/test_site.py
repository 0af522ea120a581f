"""The site is built from the pages and the code, its links lead somewhere, and a browser shows it without the net."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from holo import Hololib
from holo.completion.table import COMMANDS
from holo.settings import load

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; a link that leads nowhere is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/site/mkdocs.yml", "-d", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site(site: Path, tmp_path: Path) -> None:
    """One test, so that one worker builds the site once."""
    pages = {str(path.relative_to(site)): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    written = {str(path.relative_to(ROOT / "docs").with_suffix(".html")) for path in ROOT.glob("docs/**/*.md")}
    assert written | {"index.html", "changelog.html", "benchmarks.html"} <= pages.keys()
    for name, text in pages.items():
        fetched = re.findall(r"""<(?:script|img|iframe)[^>]*src=["']?(https?:[^"' >]+)""", text)
        fetched += re.findall(r"<link[^>]*(?:stylesheet|icon|preload)[^>]*https?:[^>]*>", text)
        assert fetched == [], name

    for command in COMMANDS:
        assert f'<h2 id="{command}">' in pages["reference/help.html"]
    for method in (name for name in vars(Hololib) if name[0] != "_"):
        assert f"Hololib.{method}<" in pages["reference/api.html"] or not callable(getattr(Hololib, method))
    for setting in load(environ={"HOME": "/nowhere"}).effective():
        assert f"<code>{setting.key}</code>" in pages["reference/settings.html"]

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        if os.environ.get("CI") == "true":
            pytest.fail("a browser must be there in CI")
        pytest.skip("no browser")
    for page in ("index.html", "tutorials/python.html", "reference/api.html"):
        picture = tmp_path / f"{Path(page).stem}.png"
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path / 'browser'}",
                "--window-size=1280,1000",
                f"--screenshot={picture}",
                f"file://{site / page}",
            ],
            capture_output=True,
            timeout=120,
            check=True,
        )
        lines = rows(picture)
        assert len(lines) == 1000
        assert len(set(lines)) > 300, "lines of text differ from each other; an empty page has few that do"


def rows(picture: Path) -> list[bytes]:
    """The lines of pixels of a PNG, as they are filtered."""
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, packed, width, channels = 8, b"", 0, 0
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, _, depth, colour = struct.unpack_from(">IIBB", body)
            assert (width, depth) == (1280, 8)
            channels = {2: 3, 6: 4}[colour]
        packed += body if kind == b"IDAT" else b""
        place += 12 + length
    plain = zlib.decompress(packed)
    size = 1 + width * channels
    return [plain[start : start + size] for start in range(0, len(plain), size)]
