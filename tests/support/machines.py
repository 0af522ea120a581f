"""Homes on several filesystems, of several users, between which environments travel."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from support import contents
from support.cli import Argument
from support.forks import ForkedHolo, Forks, User
from support.libraries import catalogs


class Machine(ForkedHolo):
    """A home on a filesystem, and the user who works there."""

    def __init__(self, root: Path, forks: Forks, user: User | None = None) -> None:
        super().__init__(root, forks, user)
        if user is not None:
            for folder in root.parents:
                if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
                    folder.chmod(folder.stat().st_mode | 0o011)
            os.chown(root, user.uid, user.uid)

    def keep(self, compression: str) -> None:
        """From now on, how blobs are stored."""
        self.settings.write_text(f"library:\n  compression: {compression}\n")

    def record(self, tree: Path, name: str) -> str:
        digest: str = self("record", tree, "--name", name, "--json").json()["digest"]
        return digest

    def export(self, *arguments: Argument, to: str = "app.holo") -> Path:
        self("export", *arguments, "-o", self.root / to)
        return self.root / to

    def init(self, space: str, *arguments: Argument, to: Path | None = None) -> Path:
        more = ["--to", to] if to is not None else []
        return Path(self("init", "--space", space, *arguments, *more, "--json").json()["path"])

    def blob(self, content: bytes) -> Path:
        digest = contents.digest(content)
        return self.library / "library" / digest[:2] / digest

    def is_empty(self) -> bool:
        """Nothing has come into the library: no blob, no catalog, no name."""
        folders = [self.library / folder for folder in ("library", "catalog", "names")]
        return not [path for folder in folders for path in folder.rglob("*") if path.is_file()]

    def is_sound(self) -> bool:
        report = self("check", "--json").json()
        catalogs(self)
        return not report["problems"]


Make = Callable[..., Machine]
