"""The command `holo sbom`: what it reads, where it writes, how it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support import trees
from support.cli import Holo
from support.filesystems import Filesystem

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: MIT\n\n" + "text\n" * 10_000


@pytest.fixture
def source(filesystem: Filesystem) -> Path:
    """A tree with two packages; the descriptions are large enough to be compressed."""
    source = filesystem.root / "source"
    for name in ("one", "two"):
        trees.write(source / "lib" / f"{name}-1.0.dist-info" / "METADATA", METADATA.format(name=name))
    return source


@pytest.fixture
def digest(holo: Holo, source: Path) -> str:
    found: str = holo("record", source, "--name", "env", "--json").json()["digest"]
    return found


def names(document: Any) -> list[str]:
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    return [component["name"] for component in document["components"]]


def test_document_on_stdout(holo: Holo, digest: str) -> None:
    """On every filesystem: blobs are raw on some, and compressed on others."""
    done = holo("sbom", "env")
    assert names(done.json()) == ["one", "two"]
    assert done.json()["metadata"]["component"]["hashes"] == [{"alg": "BLAKE3", "content": digest}]
    assert done.stderr == ""
    assert holo("sbom", digest[:8]).stdout == done.stdout == holo("sbom", "env", "-o", "-").stdout


@local
def test_it_is_about_what_was_recorded(holo: Holo, source: Path, digest: str) -> None:
    path = Path(holo("init", "--space", "one", "env", "--json").json()["path"])
    before = holo("sbom", "env").stdout
    for tree in (path, source):
        (tree / "lib" / "one-1.0.dist-info" / "METADATA").unlink()
    assert holo("sbom", "env").stdout == before


def test_space_is_listed_as_it_is_now(holo: Holo, digest: str) -> None:
    """While it is pristine, that is what its catalog is."""
    path = Path(holo("init", "--space", "job", "env", "--json").json()["path"])
    recorded = holo("sbom", "env").stdout
    assert holo("sbom", "job").stdout == holo("sbom", path).stdout == recorded
    (path / "lib" / "one-1.0.dist-info" / "METADATA").unlink()
    trees.write(path / "lib" / "three-1.0.dist-info" / "METADATA", METADATA.format(name="three"))
    found = holo("sbom", "job").json()
    assert names(found) == ["three", "two"]
    about = found["metadata"]["component"]
    assert (about["name"], about.get("hashes")) == ("job", None)
    assert [item["hashes"][0]["content"] for item in about["pedigree"]["ancestors"]] == [digest]
    assert holo("sbom", "job").json() == found
    report = holo("sbom", "job", "-o", holo.root / "file", "--json").json()
    assert (report["space"], report["catalog"]["digest"], report["components"]) == ("job", digest, 2)
    trees.write(path / "lib" / "four-1.0.dist-info" / "METADATA", METADATA.format(name="four"))
    assert holo("sbom", "job").json()["serialNumber"] != found["serialNumber"]
    holo("restore", "job")
    assert holo("sbom", "job").stdout == recorded


@local
def test_catalog_comes_before_a_space_of_that_name(holo: Holo, digest: str) -> None:
    """Whoever asks for the list of a catalog gets what is bound to its digest, whatever spaces there are."""
    path = Path(holo("init", "--space", "env", "env", "--json").json()["path"])
    (path / "lib" / "one-1.0.dist-info" / "METADATA").unlink()
    done = holo("sbom", "env")
    assert names(done.json()) == ["one", "two"]
    assert f"taking catalog 'env', not the space at {path}" in done.stderr
    assert names(holo("sbom", path).json()) == ["two"]


@local
def test_document_in_a_file(holo: Holo, digest: str) -> None:
    file = holo.root / "env.cdx.json"
    assert holo("sbom", "env", "-o", file).stdout == f"wrote 2 components of env ({digest[:12]}) to {file}\n"
    assert file.read_text() == holo("sbom", "env").stdout
    report = holo("sbom", "env", "--output", "env.cdx.json", "--json", cwd=holo.root).json()
    catalog = {"name": "env", "digest": digest}
    assert report == {"file": str(file), "catalog": catalog, "components": 2, "skipped": []}


@local
def test_file_that_cannot_be_written(holo: Holo, digest: str) -> None:
    stderr = holo("sbom", "env", "-o", holo.root / "no" / "such", code=1).stderr
    assert f"error: cannot write {holo.root}/no/such: No such file or directory" in stderr


@local
def test_json_does_not_go_by_the_name_of_the_other_form(holo: Holo, digest: str) -> None:
    """CycloneDX has one in XML, and programs believe the name."""
    assert "would be no XML" in holo("sbom", "env", "-o", holo.root / "env.cdx.xml", code=2).stderr


@local
def test_bundle(holo: Holo, source: Path, digest: str) -> None:
    """The same document as from the library, also if it gives rights: nothing is made."""
    (source / "tool").write_bytes(b"")
    (source / "tool").chmod(0o4755)
    holo("record", source, "--name", "rights", "--keep-setid")
    for name in ("env", "rights"):
        bundle = holo.root / f"{name}.holo"
        holo("export", name, "-o", bundle, "--compress")
        before = holo("sbom", name).stdout
        other = {"HOLO_HOME": str(holo.root / "elsewhere")}
        assert holo("sbom", bundle, env=other).stdout == before
    holo("export", "env", "rights", "-o", bundle)
    assert "holds 2 catalogs" in holo("sbom", bundle, code=2).stderr


@local
def test_what_is_skipped_is_said(holo: Holo, source: Path) -> None:
    trees.write(source / "conda-meta" / "odd\x1b.json", b"\xff")
    holo("record", source, "--name", "odd")
    done = holo("sbom", "odd")
    assert names(done.json()) == ["one", "two"]
    assert done.stderr == (
        "warning: skipped 1 file that should describe a package (malformed, too large, or a symlink): "
        "conda-meta/odd\\x1b.json\n"
    )
    report = holo("sbom", "odd", "-o", holo.root / "file", "--json").json()
    assert report["skipped"] == ["conda-meta/odd\x1b.json"]


@local
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_damaged_library_is_one_error(holo: Holo, source: Path, digest: str, fault: str) -> None:
    for blob in [path for path in (holo.library / "library").rglob("*") if path.is_file()]:
        if fault == "missing":
            blob.unlink()
        else:
            blob.chmod(0o644)
            blob.write_bytes(b"x" * blob.stat().st_size)
    file = holo.root / "env.cdx.json"
    stderr = holo("sbom", "env", "-o", file, code=3).stderr
    assert stderr.startswith("error: blob ")
    assert stderr.count("\n") == 2
    assert not file.exists()


@local
def test_unknown_catalog(holo: Holo, digest: str) -> None:
    assert "there is no space, catalog or bundle 'envy'" in holo("sbom", "envy", code=1).stderr
    assert "is neither a bundle nor a space" in holo("sbom", holo.root / "no.holo", code=1).stderr
