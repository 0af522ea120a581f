"""Environments that conda-pack and venv-pack themselves have packed run where holo restores them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import libraries, trees
from support.channels import PLACEHOLDER
from support.forks import ForkedHolo, Forks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX paths and programs")


def pack(module: str, *arguments: str | Path) -> None:
    """Run one of the tools, which are installed beside the tests."""
    code = f"from {module} import main; main()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], check=True, capture_output=True)


def conda_environment(root: Path) -> Path:
    """An environment with one package, as conda links it from its cache, and with files of its own."""
    package, environment = root / "pkgs" / "hello-1.0-0", root / "conda"
    old, new = PLACEHOLDER.encode(), os.fsencode(environment)
    files = {
        "bin/hello": (b"#!/bin/sh\necho hello from " + old + b"\n", 0o755, "text"),
        "lib/libhello.so": (b"\x7fELF\0" + old + b"/share:" + old + b"\0end\0", 0o755, "binary"),
        "share/plain": (b"plain\n", 0o644, None),
    }
    paths: list[dict[str, object]] = []
    for name, (content, mode, kind) in files.items():
        trees.write(package / name, content, mode=mode)
        trees.write(environment / name, content.replace(old, new) if kind == "text" else content, mode=mode)
        known = {"prefix_placeholder": PLACEHOLDER, "file_mode": kind} if kind else {}
        paths.append({"_path": name, "path_type": "hardlink", **known})
    trees.write(package / "info" / "paths.json", json.dumps({"paths": paths, "paths_version": 1}))
    meta = {"name": "hello", "version": "1.0", "build": "0", "files": [*files], "link": {"source": str(package)}}
    trees.write(environment / "conda-meta" / "hello-1.0-0.json", json.dumps(meta))
    trees.write(environment / "conda-meta" / "history")
    trees.write(environment / "bin" / "mine", f"#!{environment}/bin/hello\n", mode=0o755)
    trees.write(environment / "etc" / "mine", f"here = {environment}/etc\n")
    (environment / "lib" / "link").symlink_to("libhello.so")
    (environment / "empty").mkdir()
    return environment


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.zst"])
def test_conda_pack(tmp_path: Path, forks: Forks, suffix: str) -> None:
    holo = ForkedHolo(tmp_path, forks)
    environment = conda_environment(tmp_path)
    pack("conda_pack.cli", "--quiet", "--prefix", environment, "--output", tmp_path / f"app.{suffix}")
    name, catalog = libraries.imported(holo, tmp_path / f"app.{suffix}")
    assert name == "app"
    for place in (tmp_path / "x", holo.holotree / ("y" * len(os.path.basename(catalog.prefix)))):
        holo("init", "--space", place.name[0], "app", "--to", place)
        assert subprocess.check_output([place / "bin" / "hello"], text=True) == f"hello from {place}\n"
        assert (place / "etc" / "mine").read_text() == f"here = {place}/etc\n"
        binary = (place / "lib" / "link").read_bytes()
        assert len(binary) == 2 * len(PLACEHOLDER) + len(b"\x7fELF\0/share:\0end\0")
        path = os.fsencode(place)  # a shorter one is filled up with slashes, or with NULs at the end of a string
        assert re.fullmatch(rb"\x7fELF\0%b/+share:%b\0+end\0" % (path, path), binary)
        assert os.listdir(place / "empty") == []
        texts = [path.read_bytes() for path in place.rglob("*") if path.is_file() and path.name != "conda-unpack"]
        assert not any(os.fsencode(environment) in text or PLACEHOLDER.encode() in text for text in texts)
    holo("check", "--space", "x", "--space", "y")


def test_venv_pack(tmp_path: Path, forks: Forks) -> None:
    holo = ForkedHolo(tmp_path, forks)
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    trees.write(packages / "hello.py", "import sys\nprint('hello from', sys.prefix)\n")
    tool = f"#!{environment}/bin/python\nimport hello\n"
    trees.write(environment / "bin" / "tool", tool, mode=0o755)
    pack("venv_pack.__main__", "--quiet", "--prefix", environment, "--output", tmp_path / "app.tar.gz")
    name, catalog = libraries.imported(holo, tmp_path / "app.tar.gz")
    assert (name, catalog.prefix) == ("app", str(environment))
    for place in (tmp_path / "x", tmp_path / "same", tmp_path / "a-longer-place" / "for-it"):
        name = place.name
        holo("init", "--space", name, "app", "--to", place)
        assert holo("run", "--space", name, "--", "tool").stdout == f"hello from {place}\n"
        assert str(environment) not in (place / "pyvenv.cfg").read_text().replace(str(place), "")
    holo("check")
