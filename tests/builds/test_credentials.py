"""Credentials in URLs: not shown, not kept, and without a part in what a blueprint is built from."""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holo.blueprints.blueprint import named
from holo.blueprints.builder import BuildOptions
from holo.blueprints.canonical import document_without_secrets, key_of
from holo.blueprints.inputs import Inputs
from holo.blueprints.registry import builder_of
from holo.urls import hidden, without_queries, without_secrets
from support.cli import Holo, Result

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

TOKEN = "TheSesameTheThieves"
WHEEL = "demo-1.0-py3-none-any.whl"


def wheel(path: Path) -> None:
    """A package ``demo`` with one module."""
    files = {
        "demo.py": "",
        "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, "demo-1.0.dist-info/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, "demo-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)


def tarball(path: Path) -> str:
    """A package ``demo`` for npm; returns its integrity."""
    text = json.dumps({"name": "demo", "version": "1.0.0"}).encode()
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files whatever the query, if it has the token."""

    def do_GET(self) -> None:
        if TOKEN in self.path:
            super().do_GET()
        else:
            self.send_error(403)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its URL."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def requirements(folder: Path, url: str) -> Path:
    path = folder / "requirements.txt"
    path.write_text(f"demo @ {url}\n")
    return path


def script(folder: Path, url: str) -> Path:
    path = folder / "job.py"
    path.write_text(f'# /// script\n# dependencies = ["demo @ {url}"]\n# ///\n')
    return path


def pyproject(folder: Path, url: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(f'[project]\nname = "x"\nversion = "1"\ndependencies = ["demo @ {url}"]\n')
    return path


def source(folder: Path, url: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(
        f'[project]\nname = "x"\nversion = "1"\ndependencies = ["demo"]\n[tool.uv.sources]\ndemo = {{url = "{url}"}}\n'
    )
    return path


def npm(folder: Path, url: str) -> Path:
    wanted = {"dependencies": {"demo": url}}
    entry = {"version": "1.0.0", "resolved": url}
    lock = {"name": "x", "lockfileVersion": 3, "packages": {"": wanted, "node_modules/demo": entry}}
    (folder / "package.json").write_text(json.dumps({"name": "x", **wanted}))
    path = folder / "package-lock.json"
    path.write_text(json.dumps(lock))
    return path


KINDS: dict[str, Callable[[Path, str], Path]] = {
    "requirements": requirements,
    "script": script,
    "pyproject": pyproject,
    "source": source,
    "npm": npm,
}


def is_clean(holo: Holo, *results: Result) -> None:
    """The token was not printed, and is in no file of the home."""
    for result in results:
        assert TOKEN not in result.stdout + result.stderr
    for path in holo.home.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_neither_shown_nor_kept(holo: Holo, served: tuple[Path, str], kind: str, tmp_path: Path) -> None:
    if kind == "npm" and shutil.which("npm") is None:
        pytest.skip("no npm")
    holo.settings.write_text("library: {compression: raw}\n")
    folder, url = served
    name = "demo.tgz" if kind == "npm" else WHEEL
    (tarball if kind == "npm" else wheel)(folder / name)
    project = tmp_path / "project"
    project.mkdir()
    blueprint = KINDS[kind](project, f"{url}/{name}?version=3&token={TOKEN}")
    env = {"UV_CACHE_DIR": str(tmp_path / "cache"), "npm_config_cache": str(tmp_path / "npm")}
    made = holo("init", "--space", "one", blueprint, env=env)
    digest = holo("list", "--json").json()["spaces"][0]["digest"]
    is_clean(holo, made, holo("catalogs", holo("catalogs", "--json").json()["catalogs"][0]["name"], "--log"))

    # Another token is no other environment; another file is one.
    KINDS[kind](project, f"{url}/{name}?version=3&token={TOKEN}-of-another-job")
    again = holo("init", "--space", "two", blueprint, env=env)
    assert "building" not in again.stderr
    KINDS[kind](project, f"{url}/{name}?version=4&token={TOKEN}")
    other = holo("init", "--space", "three", blueprint, env=env)
    assert "building" in other.stderr
    is_clean(holo, again, other)
    digests = {space["name"]: space["digest"] for space in holo("list", "--json").json()["spaces"]}
    assert digests["one"] == digests["two"] == digest


def test_list_of_installed_files_is_right(holo: Holo, served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    wheel(folder / WHEEL)
    blueprint = requirements(tmp_path, f"{url}/{WHEEL}?token={TOKEN}")
    holo("init", "--space", "one", blueprint, "--to", tmp_path / "space", env={"UV_CACHE_DIR": str(tmp_path / "cache")})
    (record,) = (tmp_path / "space").rglob("demo-1.0.dist-info/RECORD")
    note = record.with_name("direct_url.json")
    assert json.loads(note.read_text())["url"] == f"{url}/{WHEEL}"
    (row,) = [row for row in csv.reader(record.read_text().splitlines()) if row[0].endswith("direct_url.json")]
    digest = base64.urlsafe_b64encode(hashlib.sha256(note.read_bytes()).digest()).rstrip(b"=").decode()
    assert row[1:] == [f"sha256={digest}", str(note.stat().st_size)]


def test_failing_build_shows_no_token(holo: Holo, served: tuple[Path, str], tmp_path: Path) -> None:
    _, url = served
    blueprint = requirements(tmp_path, f"{url}/{WHEEL}?token={TOKEN}")  # there is no such file
    failed = holo("init", "--space", "one", blueprint, code=1, env={"UV_CACHE_DIR": str(tmp_path / "cache")})
    is_clean(holo, failed)
    assert "127.0.0.1" in failed.stderr


@pytest.mark.parametrize(
    "line",
    [
        f"-e git+https://host/repo?private_token={TOKEN}",
        f"-r https://host/more.txt?sig={TOKEN}",
        f"demo >= https://host/?token={TOKEN}",
        f"demo --hash! https://ada:{TOKEN}@host/",
        f"-r 'https://host/?sig={TOKEN}",
    ],
)
def test_refused_blueprint_shows_no_token(holo: Holo, tmp_path: Path, line: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(line + "\n")
    refused = holo("init", "--space", "one", path, code=2)
    is_clean(holo, refused)


def test_refused_conda_file_shows_no_token(holo: Holo, tmp_path: Path) -> None:
    path = tmp_path / "conda.yaml"
    for channel in (f"--https://host/?token={TOKEN}", f"-https://ada:{TOKEN}@host"):
        path.write_text(f"channels: ['{channel}']\ndependencies: [python]\n")
        is_clean(holo, holo("init", "--space", "one", path, code=2))


def key(folder: Path, text: str, **environ: str) -> str:
    path = folder / "requirements.txt"
    path.write_text(text)
    builder = builder_of("requirements")
    inputs = Inputs({"PATH": os.environ["PATH"], "HOME": str(folder), **environ})
    document = document_without_secrets(builder.canonical(named(str(path)), inputs, BuildOptions()))
    assert TOKEN not in json.dumps(document)
    assert TOKEN not in json.dumps(builder.packages(document), default=str)
    return key_of(document)


def test_credentials_do_not_change_the_key(tmp_path: Path, filesystem: object) -> None:
    url = "https://host/x.whl"
    same = [f"x @ {url}?token={TOKEN}{number}&version=1\n" for number in range(2)]
    same += [f"x @ {url}?version=1&X-Amz-Signature={TOKEN}&Expires=12&api_key={TOKEN}\n", f"x @ {url}?version=1\n"]
    assert len({key(tmp_path, text) for text in same}) == 1
    other = [*same[:1], f"x @ {url}?version=2\n", f"x @ {url}\n", f"x @ {url}?name=1\n", f"x @ {url}?1\n"]
    assert len({key(tmp_path, text) for text in other}) == len(other)
    # Which file it is may be in a variable, which credential it is makes no difference.
    line = f"x @ {url}?version=${{VERSION}}&token=${{TOKEN}}\n"
    assert key(tmp_path, line, VERSION="1") != key(tmp_path, line, VERSION="2")
    assert key(tmp_path, line, TOKEN=TOKEN) == key(tmp_path, line, TOKEN="another")
    index = f"--index-url https://host/simple?apikey={TOKEN}\nx\n"
    assert key(tmp_path, index) == key(tmp_path, "--index-url https://host/simple\nx\n")
    assert key(tmp_path, "x\n", UV_INDEX_URL=f"https://host/?k={TOKEN}") != key(
        tmp_path, "x\n", UV_INDEX_URL="https://host/"
    )


@pytest.mark.parametrize(
    ("text", "kept", "shown"),
    [
        ("https://ada:s@host/a?token=s#sha256=1", "https://host/a#sha256=1", "https://***@host/a?***#sha256=1"),
        ("git+ssh://git@host/a", "git+ssh://host/a", "git+ssh://***@host/a"),
        ('{"url": "HTTPS://host/a?k=s\\u0026l=s"}', '{"url": "HTTPS://host/a"}', '{"url": "HTTPS://host/a?***"}'),
        (
            "`https://host/?s` and https://host/b?",
            "`https://host/` and https://host/b",
            "`https://host/?***` and https://host/b?***",
        ),
        ("https://host/t/s/channel what?s", "https://host/t/s/channel what?s", "https://host/t/***/channel what?s"),
        ("https://host/b/t/s/a /t/dir/a", "https://host/b/t/s/a /t/dir/a", "https://host/b/t/***/a /t/dir/a"),
        ("no file:///home/t/dir/a", "no file:///home/t/dir/a", "no file:///home/t/dir/a"),
    ],
)
def test_credentials_are_removed_from_texts(text: str, kept: str, shown: str, filesystem: object) -> None:
    assert without_queries(text) == kept
    assert hidden(text) == shown
    assert without_secrets(without_secrets(text)) == without_secrets(text)
