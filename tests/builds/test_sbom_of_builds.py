"""The list of real environments: as pip, py-rattler and npm make them, held to what these say is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from support.channels import Channel, File
from support.forks import ForkedHolo, Forks


def sbom(holo: ForkedHolo, name: str, without: str) -> dict[str, dict[str, Any]]:
    """The components of a catalog by purl. The document is valid, the same twice, and does not name ``without``."""
    done = holo("sbom", name)
    assert done.stderr == ""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.stdout) is None
    assert holo("sbom", name).stdout == done.stdout
    assert without not in done.stdout
    return {component["purl"]: component for component in done.json()["components"]}


@pytest.fixture
def holo(tmp_path: Path, forks: Forks) -> ForkedHolo:
    return ForkedHolo(tmp_path, forks)


def catalog(holo: ForkedHolo) -> str:
    (found,) = holo("catalogs", "--json").json()["catalogs"]
    name: str = found["name"]
    return name


def test_virtualenv(holo: ForkedHolo, real_venv_source: Path) -> None:
    holo("record", real_venv_source, "--name", "venv")
    found = sbom(holo, "venv", str(real_venv_source))
    listed = subprocess.check_output([real_venv_source / "bin" / "pip", "list", "--format", "json"], text=True)
    installed = {(item["name"], item["version"]) for item in json.loads(listed)}
    assert {(each["name"], each["version"]) for each in found.values()} == installed
    assert len(installed) > 4
    assert all(each["licenses"] for each in found.values())


def test_conda_prefix(holo: ForkedHolo, tmp_path: Path) -> None:
    channel = Channel(tmp_path / "channel")
    metadata = b"Metadata-Version: 2.1\nName: Hello\nVersion: 1.0\n"
    channel.add("hello", {"lib/hello-1.0.dist-info/METADATA": File(metadata)}, depends=("needed >=2",))
    channel.add("needed", {"share/needed": File(b"needed")}, version="2.1", compressed="tar.bz2")
    blueprint = tmp_path / "conda.yaml"
    blueprint.write_text(yaml.safe_dump({"channels": [channel.url], "dependencies": ["hello"]}))
    environ = {"RATTLER_CACHE_DIR": str(tmp_path / "cache"), "PATH": os.defpath}
    path = holo("init", "--space", "space", blueprint, "--json", env=environ).json()["path"]
    found = sbom(holo, catalog(holo), str(tmp_path))
    assert [*found] == [
        "pkg:conda/hello@1.0?build=0&subdir=noarch&type=conda",
        "pkg:conda/needed@2.1?build=0&subdir=noarch&type=tar.bz2",
        "pkg:pypi/hello@1.0",
    ]
    for record in Path(path, "conda-meta").glob("*.json"):
        known = json.loads(record.read_text())
        (component,) = [
            each for each in found.values() if each["name"] == known["name"] and "conda-meta" in str(each["evidence"])
        ]
        hashes = {item["alg"]: item["content"] for item in component["hashes"]}
        assert hashes == {"MD5": known["md5"], "SHA-256": known["sha256"]}


@pytest.mark.skipif(shutil.which("npm") is None and os.environ.get("CI") != "true", reason="npm is not installed")
@pytest.mark.parametrize("to", [None, "node_modules"])
def test_node_modules(holo: ForkedHolo, tmp_path: Path, to: str | None) -> None:
    integrity = "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9cGvNp6NZWZUBlbGXYxxng=="
    project = {"name": "web", "version": "1.0.0", "dependencies": {"is-number": "7.0.0"}}
    entry = {"version": "7.0.0", "integrity": integrity}
    lock = {**project, "lockfileVersion": 3, "packages": {"": project, "node_modules/is-number": entry}}
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "package.json").write_text(json.dumps(project))
    (tmp_path / "project" / "package-lock.json").write_text(json.dumps(lock))
    more = () if to is None else ("--to", tmp_path / "project" / to)
    holo("init", "--space", "space", tmp_path / "project" / "package-lock.json", *more)
    (component,) = sbom(holo, catalog(holo), str(tmp_path)).values()
    assert component["purl"] == "pkg:npm/is-number@7.0.0"
    assert component["licenses"] == [{"expression": "MIT", "acknowledgement": "declared"}]
    assert [item["alg"] for item in component["hashes"]] == ["SHA-512"]
    assert component["hashes"][0]["content"].startswith("e350a27e483a7bc4f2952a5db53a5e2d532abd")
