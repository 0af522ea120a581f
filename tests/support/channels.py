"""Conda channels made by hand: a folder with packages and their repodata.json.

The formats: https://docs.conda.io/projects/conda-build/en/stable/resources/package-spec.html
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

PLACEHOLDER = "/opt/" + "placeholder_" * 20
"""As long as conda-build's: a prefix may not be longer than what is in the package."""

SUBDIR = f"{ {'darwin': 'osx', 'win32': 'win'}.get(sys.platform, sys.platform) }-" + {"x86_64": "64"}.get(
    platform.machine(), platform.machine()
)


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int = 0o644
    holds_prefix: str | None = None
    """``text`` or ``binary``: the placeholder is in it"""
    is_link: bool = False
    """a symlink, and the content is where it leads"""


def script(text: str) -> File:
    return File(text.encode(), 0o755, "text" if PLACEHOLDER in text else None)


class Channel:
    """A channel in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for subdir in (SUBDIR, "noarch"):
            (root / subdir).mkdir(parents=True)
            self._publish(subdir, {})

    @property
    def url(self) -> str:
        return self.root.as_uri()

    def add(
        self,
        name: str,
        files: dict[str, File],
        *,
        version: str = "1.0",
        depends: tuple[str, ...] = (),
        noarch: str | None = "generic",
        entry_points: tuple[str, ...] = (),
        compressed: str = "conda",
    ) -> None:
        """Publish a package. ``compressed``: ``conda`` or ``tar.bz2``, the new format and the old one."""
        subdir = "noarch" if noarch else SUBDIR
        index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": list(depends)}
        index |= {"subdir": subdir} | ({"noarch": noarch} if noarch else {})
        info = {
            "info/index.json": File(json.dumps(index).encode()),
            "info/paths.json": File(json.dumps({"paths_version": 1, "paths": [*_paths(files)]}).encode()),
        }
        if noarch == "python":
            link = {"noarch": {"type": "python", "entry_points": entry_points}, "package_metadata_version": 1}
            info["info/link.json"] = File(json.dumps(link).encode())
        stem = f"{name}-{version}-0"
        data = _conda(stem, files, info) if compressed == "conda" else _tar(files | info, "w:bz2")
        (self.root / subdir / f"{stem}.{compressed}").write_bytes(data)
        hashes = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        self._publish(subdir, {f"{stem}.{compressed}": index | hashes})

    def _publish(self, subdir: str, more: dict[str, dict[str, object]]) -> None:
        path = self.root / subdir / "repodata.json"
        empty = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}, "repodata_version": 1}
        repodata = json.loads(path.read_text()) if path.exists() else empty
        for file, record in more.items():
            repodata["packages.conda" if file.endswith(".conda") else "packages"][file] = record
        path.write_text(json.dumps(repodata))


def running_python() -> dict[str, File]:
    """The files of a package ``python``: the interpreter that runs the tests, and what of its library is needed."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    binary = Path(os.path.realpath(sys.executable))
    files = {f"bin/python{version}": File(binary.read_bytes(), 0o755)}
    files["bin/python"] = File(f"python{version}".encode(), 0o777, is_link=True)
    library = Path(sysconfig.get_path("stdlib"))
    useless = {"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "site-packages"}
    for folder, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in useless and not name.startswith("config-")]
        for name in names:
            if name != "EXTERNALLY-MANAGED":
                path = Path(folder, name)
                files[f"lib/python{version}/{path.relative_to(library)}"] = File(path.read_bytes())
    shared = Path(sysconfig.get_config_var("LIBDIR"), str(sysconfig.get_config_var("INSTSONAME")))
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.is_file():
        files[f"lib/{shared.name}"] = File(shared.read_bytes(), 0o755)
    return files


def running_pip() -> dict[str, File]:
    """The files of a package ``pip`` for any Python: the one that is installed beside the tests."""
    import pip

    found = {}
    folder = Path(pip.__file__).parent
    for root in (folder, *folder.parent.glob("pip-*.dist-info")):
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found[f"site-packages/{path.relative_to(folder.parent)}"] = File(path.read_bytes())
    return found


def _paths(files: dict[str, File]) -> Iterator[dict[str, object]]:
    for path, file in files.items():
        kind = "softlink" if file.is_link else "hardlink"
        entry: dict[str, object] = {"_path": path, "path_type": kind, "size_in_bytes": len(file.content)}
        entry["sha256"] = hashlib.sha256(file.content).hexdigest()
        if file.holds_prefix:
            entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": file.holds_prefix}
        yield entry


def _tar(files: dict[str, File], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for path, file in files.items():
            entry = tarfile.TarInfo(path)
            entry.mode = file.mode
            if file.is_link:
                entry.type, entry.linkname = tarfile.SYMTYPE, file.content.decode()
            else:
                entry.size = len(file.content)
            tar.addfile(entry, io.BytesIO(file.content))
    return stream.getvalue()


def _conda(stem: str, files: dict[str, File], info: dict[str, File]) -> bytes:
    stream = io.BytesIO()
    compress = zstandard.ZstdCompressor(level=1).compress
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        archive.writestr(f"pkg-{stem}.tar.zst", compress(_tar(files, "w")))
        archive.writestr(f"info-{stem}.tar.zst", compress(_tar(info, "w")))
    return stream.getvalue()
