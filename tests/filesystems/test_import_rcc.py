"""RCC's files and libraries come into the library whole, and what is restored from them is what RCC recorded."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import compare, libraries, rcc, trees
from support.cli import Holo, start_until
from support.rcc import RccLibrary

REAL = Path(__file__).parents[3] / "shared" / "data" / "rcc-venv.zip"
"""Written by RCC itself."""

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

FORMS: dict[str, tuple[rcc.Digest, bool]] = {
    "gzip": (rcc.sha256, True),
    "plain": (rcc.sha256, False),
    "siphash": (rcc.siphash, False),
    "siphash-gzip": (rcc.siphash, True),
}


def places(holo: Holo, prefix: Path) -> dict[str, Path]:
    """Where to restore: at a shorter path than the prefix, at one of the same length, and at a longer one."""
    longer = holo.root / "a-longer-path" / ("x" * len(str(prefix)))
    return {"short": holo.root / "s", "equal": prefix.with_name("X" * len(prefix.name)), "longer": longer}


def test_restored_trees_are_what_rcc_recorded(holo: Holo) -> None:
    _import_and_restore(holo, "gzip")


@local
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_digests_and_contents(holo: Holo, form: str) -> None:
    _import_and_restore(holo, form)


def _import_and_restore(holo: Holo, form: str) -> None:
    size = 100_000 if "siphash" in form else rcc.LARGE
    for number, name in enumerate(("short", "equal", "longer")):
        source = rcc.environment(holo.root / "opt" / f"h720c7a8_493f813dad{number}", binary=name != "longer", size=size)
        library = RccLibrary(*FORMS[form])
        library.record(source)
        called, catalog = libraries.imported(holo, library.zip(holo.root / f"{name}.zip"), "--name", name)
        assert (called, catalog.prefix, catalog.totals.symlinks) == (name, str(source), 4)
        place = places(holo, source)[name]
        holo("init", "--space", name, name, "--to", place)
        assert compare.differences(source, place) == []
        assert subprocess.check_output([place / "bin" / "hello"], text=True) == f"hello from {place}/share\n"
    holo("check")
    libraries.catalogs(holo)
    assert not [*holo.holotree.glob(".build-*")]
    assert os.listdir(holo.library / "builds") == []


@local
def test_the_tree_in_the_scratch_folder_is_no_part_of_the_result(holo: Holo) -> None:
    """The same environment has the same catalog, from RCC and recorded where it stands."""
    source = rcc.environment(holo.root / "env")
    library = RccLibrary()
    library.record(source)
    name, catalog = libraries.imported(holo, library.zip(holo.root / "hololib.zip"))
    assert name == "0a3a322f1587a8e1v12.linux_amd64"
    assert holo("record", source, "--json").json()["digest"] == catalog.digest


@local
def test_rights_are_kept_only_if_that_is_said(holo: Holo) -> None:
    source = rcc.environment(holo.root / "environment")
    (source / "bin" / "tool").chmod(0o6755)
    os.utime(source / "bin" / "tool", ns=(rcc.MOTHER_TIME, rcc.MOTHER_TIME))
    library = RccLibrary()
    library.record(source)
    holo("import", library.zip(holo.root / "hololib.zip"), "--name", "less")
    holo("import", holo.root / "hololib.zip", "--name", "all", "--keep-setid")
    for name, mode in (("less", 0o755), ("all", 0o6755)):
        holo("init", "--space", name, name, "--to", holo.root / name)
        assert (holo.root / name / "bin" / "tool").stat().st_mode & 0o7777 == mode


@local
def test_a_library_in_place_with_several_catalogs(holo: Holo) -> None:
    first, second = (rcc.environment(holo.root / name, binary=False) for name in ("one", "two"))
    (second / "share" / "large").write_bytes(b"another")
    library = RccLibrary()
    library.record(first, "aaaa")
    library.record(second, "bbbb")
    folder = library.folder(holo.root / "hololib")
    trees.write(folder / "catalog" / "ccccv11.linux_amd64", b"an older version")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused = holo("import", "--rcc", folder, "--name", "app", code=2)
    assert "2 catalogs" in refused.stderr
    assert libraries.left(holo) == []
    said = holo("import", "--rcc", folder, "--json").json()["catalogs"]
    assert [item["name"] for item in said] == ["aaaav12.linux_amd64", "bbbbv12.linux_amd64"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    for name, source in (("aaaa", first), ("bbbb", second)):
        os.utime(source / "share" / "large", ns=(rcc.MOTHER_TIME, rcc.MOTHER_TIME))
        holo("init", "--space", name, f"{name}v12.linux_amd64")
        (space,) = holo.holotree.glob(f"{name}_*")
        assert compare.differences(source, space) == []
    holo("check")


@local
def test_an_error_in_one_catalog_imports_none(holo: Holo) -> None:
    library = RccLibrary()
    library.record(rcc.environment(holo.root / "one"), "aaaa")
    library.record(rcc.environment(holo.root / "two"), "bbbb")
    library.blobs[rcc.sha256(f"#!{holo.root}/two/bin/hello\n".encode())] = gzip.compress(b"another")
    said = holo("import", library.zip(holo.root / "hololib.zip"), code=3)
    assert "is not what RCC recorded" in said.stderr
    assert libraries.left(holo) == []


@local
def test_another_system(holo: Holo) -> None:
    library = RccLibrary()
    document = library.record(rcc.environment(holo.root / "env"))
    document["platform"] = "darwin_arm64"
    said = holo("import", library.zip(holo.root / "hololib.zip"), "--json").json()
    assert said["warnings"][0].endswith("was recorded on another system: 'darwin'")
    document["path"] = "C:\\ProgramData\\robocorp\\ht\\env"
    assert "Windows" in holo("import", library.zip(holo.root / "hololib.zip"), code=2).stderr


# -- what RCC itself wrote --------------------------------------------------------------------------------------------


def unpacked_by_hand(file: Path, place: Path) -> tuple[Path, Path]:
    """What is in the ZIP, in a folder, and the path that its files name. It relies on nothing of holo."""
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.startswith("catalog/"))
        document = json.loads(gzip.decompress(archive.read(name)))

        def write(folder: dict[str, Any], path: Path) -> None:
            path.mkdir(parents=True)
            for entry, item in folder["files"].items():
                digest = item["digest"]
                stored = archive.read(f"library/{digest[:2]}/{digest[2:4]}/{digest[4:6]}/{digest}")
                trees.write(path / entry, gzip.decompress(stored), mode=item["mode"] & 0o777)
            for child, item in folder["subdirs"].items():
                if item.get("symlink"):
                    (path / child).symlink_to(item["symlink"])
                else:
                    write(item, path / child)
            path.chmod(folder["mode"] & 0o777)

        write(document["tree"], place)
    for folder, folders, files in os.walk(place, topdown=False):
        for name in (*folders, *files, ""):
            os.utime(os.path.join(folder, name), ns=(rcc.MOTHER_TIME, rcc.MOTHER_TIME), follow_symlinks=False)
    return place, Path(document["path"])


def let_run(space: Path) -> None:
    """Make the interpreter of the space run here: RCC recorded copies of Debian's python3.11, without its library.

    Where that is not installed, take that of the tests: by symlinks, and its place in pyvenv.cfg.
    """
    probe = [space / "bin" / "python", "-c", "import encodings, argparse"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return
    interpreter = Path(sys.executable).resolve()
    for name in ("python", "python3", "python3.11"):
        (space / "bin" / name).unlink()
        (space / "bin" / name).symlink_to(interpreter)
    (space / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\ninclude-system-site-packages = false\n")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (space / "lib" / version).exists():
        (space / "lib" / version).symlink_to("python3.11")


@pytest.mark.skipif(not REAL.exists(), reason="RCC's own file is not here; the tests above have one of the same form")
def test_the_file_that_rcc_wrote(holo: Holo) -> None:
    source, prefix = unpacked_by_hand(REAL, holo.root / "by-hand")
    _, catalog = libraries.imported(holo, REAL, "--name", "venv")
    assert (catalog.prefix, catalog.totals.files, catalog.totals.symlinks) == (str(prefix), 133, 1)
    assert len(catalog.relocations) == 6  # RCC also changes its name for the space where that stands alone
    longer = holo.root / "a-longer-path" / ("x" * len(str(prefix)))
    equal = holo.root / "e"
    equal = equal.with_name("e" * (len(str(prefix)) - len(str(holo.root)) - 1))
    for number, place in enumerate((holo.root / "s", equal, longer)):
        holo("init", "--space", f"space-{number}", "venv", "--to", place)
        assert compare.differences(source, place, old=prefix) == []
        let_run(place)
        page = trees.write(holo.root / "page.md", "# It runs\n")
        done = subprocess.run([place / "bin" / "markdown-it", page], capture_output=True, text=True, check=True)
        assert done.stdout == "<h1>It runs</h1>\n"
    holo("check")
    assert not [*holo.holotree.glob(".build-*")]


# -- files that are damaged or hostile --------------------------------------------------------------------------------


def _file(library: RccLibrary, path: str) -> dict[str, Any]:
    (document,) = library.catalogs.values()
    *folders, name = path.split("/")
    folder = document["tree"]
    for part in folders:
        folder = folder["subdirs"][part]
    found: dict[str, Any] = folder["files" if name in folder["files"] else "subdirs"][name]
    return found


def _add(library: RccLibrary, folder: str, key: str, **values: Any) -> None:
    content = b"evil"
    entry = {"name": key, "size": len(content), "mode": 0o644, "digest": library.store(content), "rewrite": []}
    (document,) = library.catalogs.values()
    place = document["tree"]["subdirs"][folder] if folder else document["tree"]
    place["files"][key] = entry | values


def _bomb(library: RccLibrary) -> None:
    """A content that is a thousand times as large as its catalog says."""
    digest = _file(library, "share/large")["digest"]
    deflated = zlib.compressobj(9, zlib.DEFLATED, 31)
    library.blobs[digest] = deflated.compress(bytes(1 << 28)) + deflated.flush()


def _much(library: RccLibrary) -> None:
    """Nothing, over and over: it stays nothing, and takes long to read."""
    library.blobs[_file(library, "share/large")["digest"]] = gzip.compress(b"") * 100_000


def _all_of_it(library: RccLibrary) -> None:
    file = _file(library, "share/large")
    file["size"] = 1 << 60


def _another_content(library: RccLibrary) -> None:
    file = _file(library, "share/large")
    library.blobs[file["digest"]] = gzip.compress(bytes(file["size"]))


HOSTILE: dict[str, tuple[Callable[[RccLibrary], object], str, int]] = {
    "dots": (lambda it: _add(it, "bin", "../../evil"), "impossible entry", 3),
    "dot-dot": (lambda it: _add(it, "bin", ".."), "no path inside", 3),
    "dot": (lambda it: _add(it, "", "."), "no path inside", 3),
    "absolute": (lambda it: _add(it, "bin", "/evil"), "impossible entry", 3),
    "no-name": (lambda it: _add(it, "bin", ""), "no path inside", 3),
    "nul": (lambda it: _add(it, "bin", "a\0b"), "cannot be one", 3),
    "half-a-character": (lambda it: _add(it, "bin", "\ud800"), "cannot be one", 3),
    "long-name": (lambda it: _add(it, "bin", "x" * 256), "cannot be one", 3),
    "another-name": (lambda it: _add(it, "bin", "a", name="b"), "impossible entry", 3),
    "file-and-folder": (lambda it: _add(it, "", "bin"), "two entries 'bin'", 3),
    "below-a-file": (lambda it: _file(it, "bin").update(files={}, symlink="/etc") or _add(it, "", "bin"), "two", 3),
    "negative-size": (lambda it: _file(it, "etc/more").update(size=-1), "negative size", 3),
    "true-size": (lambda it: _file(it, "etc/more").update(size=True), "digest or size", 3),
    "device": (lambda it: _file(it, "etc/more").update(mode=0o644 | 1 << 26), "impossible mode", 3),
    "fifo": (lambda it: _file(it, "etc/more").update(mode=0o644 | 1 << 25), "impossible mode", 3),
    "folder-as-file": (lambda it: _file(it, "etc/more").update(mode=0o644 | 1 << 31), "impossible mode", 3),
    "digest-as-path": (
        lambda it: _file(it, "etc/more").update(digest="../../../../etc/passwd"),
        "impossible digest",
        3,
    ),
    "two-sizes": (lambda it: _file(it, "lib/python/same.py").update(size=7), "another size", 3),
    "root-as-symlink": (lambda it: next(iter(it.catalogs.values()))["tree"].update(symlink="/etc"), "its root", 3),
    "no-tree": (lambda it: next(iter(it.catalogs.values())).update(tree=[]), "impossible mode", 3),
    "relative-prefix": (lambda it: next(iter(it.catalogs.values())).update(path="env"), "impossible path", 3),
    "root-as-prefix": (lambda it: next(iter(it.catalogs.values())).update(path="/"), "impossible path", 3),
    "dots-in-prefix": (lambda it: next(iter(it.catalogs.values())).update(path="/opt/../env"), "impossible path", 3),
    "bomb": (_bomb, "is not what RCC recorded", 3),
    "much": (_much, "more content of 'share/large'", 3),
    "huge": (_all_of_it, "there is room for", 1),
    "another-content": (_another_content, "is not what RCC recorded", 3),
    "lost": (lambda it: it.blobs.pop(_file(it, "share/large")["digest"]), "lacks the content", 3),
    "shorter": (lambda it: _file(it, "share/large").update(size=1_200_000), "is not what RCC recorded", 3),
    "no-version": (lambda it: it.catalogs.update({"aav11.linux_amd64": it.catalogs.popitem()[1]}), "version 11", 2),
}


@local
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_libraries_are_refused(holo: Holo, case: str) -> None:
    library = RccLibrary()
    library.record(rcc.environment(holo.root / "env"))
    change, words, code = HOSTILE[case]
    change(library)
    for source in ([library.zip(holo.root / "hololib.zip")], ["--rcc", library.folder(holo.root / "lib")]):
        before = {path for path in holo.root.rglob("*") if holo.home not in (path, *path.parents)}
        said = holo("import", *source, code=code)
        assert words in said.stderr
        assert len(said.stderr.splitlines()) <= 2
        assert libraries.left(holo) == []
        assert {path for path in holo.root.rglob("*") if holo.home not in (path, *path.parents)} == before
        shutil.rmtree(holo.home, ignore_errors=True)


@local
def test_files_behind_a_symlink_are_not_written(holo: Holo) -> None:
    """RCC lists what is behind a symlink to a directory once more. Hostile or not, only the symlink is made."""
    outside = holo.root / "outside"
    outside.mkdir()
    library = RccLibrary()
    document = library.record(rcc.environment(holo.root / "env"))
    document["tree"]["subdirs"]["lib64"]["symlink"] = str(outside)
    holo("import", library.zip(holo.root / "hololib.zip"), "--name", "env")
    holo("init", "--space", "it", "env", "--to", holo.root / "it")
    assert os.readlink(holo.root / "it" / "lib64") == str(outside)
    assert os.listdir(outside) == []


@local
@pytest.mark.parametrize("case", ["twice", "dots", "absolute", "damaged", "json", "twice-in-json", "deep", "unusual"])
def test_hostile_zips_are_refused(holo: Holo, case: str) -> None:
    library = RccLibrary()
    library.record(rcc.environment(holo.root / "env"))
    path = library.zip(holo.root / "hololib.zip")
    (name,) = (f"catalog/{name}" for name in library.catalogs)
    catalogs = {
        "json": b"{",
        "twice-in-json": b'{"path": "/a", "path": "/b"}',
        "deep": b'{"tree":' + b'{"subdirs":{"a":' * 100_000,
    }
    if case in ("twice", "dots", "absolute"):
        extra = {"twice": name, "dots": "library/../../evil", "absolute": "/evil"}[case]
        with zipfile.ZipFile(path, "a") as archive, pytest.warns() if case == "twice" else _nothing():
            archive.writestr(extra, b"x")
    elif case == "unusual":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            for entry, content in library.entries():
                archive.writestr(entry, content)
    elif case == "damaged":
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in library.entries():
                archive.writestr(entry, catalogs[case] if entry == name else content)
    said = holo("import", path, code=3)
    assert len(said.stderr.splitlines()) == 2
    assert libraries.left(holo) == []


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@local
def test_a_file_that_ends_early_is_refused(holo: Holo) -> None:
    library = RccLibrary()
    library.record(rcc.environment(holo.root / "env"))
    data = library.zip(holo.root / "hololib.zip").read_bytes()
    short = holo.root / "short.zip"
    for number in range(1, 20):
        short.write_bytes(data[: len(data) * number // 20])
        assert "is damaged" in holo("import", short, code=3).stderr
    assert libraries.left(holo) == []


@local
def test_what_is_not_known(holo: Holo) -> None:
    text = trees.write(holo.root / "text", "no archive\n")
    assert "nothing that holo can import" in holo("import", text, code=2).stderr
    with zipfile.ZipFile(holo.root / "other.zip", "w") as archive:
        archive.writestr("README", "no library")
    assert "neither a bundle nor a hololib.zip" in holo("import", holo.root / "other.zip", code=2).stderr
    assert "`holo import FILE`" in holo("init", "job", holo.root / "other.zip", code=2).stderr
    with zipfile.ZipFile(holo.root / "twice.zip", "w") as archive:
        archive.writestr("pyvenv.cfg", "as venv-pack")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("pyvenv.cfg", "writes it")
    assert "neither a bundle nor a hololib.zip" in holo("import", holo.root / "twice.zip", code=2).stderr
    with zipfile.ZipFile(holo.root / "other.zip", "w") as archive:
        archive.writestr("library/README", "no catalog")
    assert "neither a bundle nor a hololib.zip" in holo("import", holo.root / "other.zip", code=2).stderr
    assert "there is no bundle" in holo("import", holo.root / "nothing", code=1).stderr
    assert "directory" in holo("import", holo.root, code=1).stderr
    assert "no library of RCC" in holo("import", "--rcc", holo.root, code=1).stderr
    for arguments in ([], [text, "--rcc", holo.root], [text, "--name", "no name"]):
        holo("import", *arguments, code=2)
    assert libraries.left(holo) == []


@local
def test_what_a_killed_import_leaves_is_removed(holo: Holo) -> None:
    source = rcc.environment(holo.root / "env")
    library = RccLibrary()
    library.record(source)
    path = library.zip(holo.root / "hololib.zip")
    process = start_until(holo, "holo.interop.record", "import", path)
    process.kill()
    process.communicate()
    [stage] = holo.holotree.glob(".build-*")
    assert os.listdir(stage / "0") != []
    assert stage.stat().st_mode & 0o777 == 0o700
    holo("gc")
    assert libraries.left(holo) == []
    assert os.listdir(holo.library / "builds") == []
    holo("import", path)
    holo("check")
