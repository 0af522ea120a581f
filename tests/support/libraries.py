"""Is a library whole? Answered by reading all of it."""

from __future__ import annotations

from pathlib import Path

import zstandard
from blake3 import blake3

from holo.catalog import Catalog
from support import contents
from support.cli import Argument, Holo


def catalogs(holo: Holo) -> dict[str, Catalog]:
    """All catalogs, each with all its blobs in at least one sound form; by digest."""
    found = {}
    for path in (holo.library / "catalog").glob("[!.]*.json"):
        data = path.read_bytes()
        assert blake3(data).hexdigest() == path.stem
        found[path.stem] = catalog = Catalog.from_json(data, str(path))
        for digest in {row[4] for _, row in catalog.files()}:
            forms = [holo.library / "library" / digest[:2] / name for name in (digest, f"{digest}.zst")]
            assert any(is_sound(form) for form in forms), f"blob {digest} is lost"
    return found


def imported(holo: Holo, *arguments: Argument) -> tuple[str, Catalog]:
    """Import what has one catalog; its name, and the catalog as the library has it."""
    (said,) = holo("import", *arguments, "--json").json()["catalogs"]
    assert said["digest"] == holo("catalogs", said["name"], "--json").json()["catalogs"][0]["digest"]
    return said["name"], catalogs(holo)[said["digest"]]


def is_sound(path: Path) -> bool:
    """Whether a blob or a link form holds what its name says."""
    try:
        content = path.read_bytes()
        if path.suffix == ".zst":
            content = zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
    except (OSError, zstandard.ZstdError):
        return False
    return contents.digest(content) == path.name[:64]


def torn(holo: Holo) -> list[Path]:
    """Blobs and link forms that would be believed, and are wrong."""
    found = []
    for folder in ("library", "links"):
        for path in (holo.library / folder).glob("??/[!.]*"):
            status = path.stat()
            unsealed = folder == "library" and not path.suffix and status.st_mtime_ns != 10**18
            if not unsealed and not is_sound(path):
                found.append(path)
    return found


def left(holo: Holo) -> list[str]:
    """All files in the home but locks, and all that is not a space or a folder of the library."""
    files = [str(path) for path in holo.home.rglob("*") if not path.is_dir() and path.suffix != ".lock"]
    return [path for path in files if not path.endswith("hololib/lock")] + [
        str(path) for path in holo.holotree.glob(".*") if path.name != ".spaces"
    ]
