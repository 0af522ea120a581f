"""Keys that ssh-keygen makes, and files that say whose they are."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Keys:
    """Key pairs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, name: str, kind: str = "ed25519", *options: str, passphrase: str = "") -> Path:
        """The private half; the public one is beside it, ending in ``.pub``. The same again if it was made before."""
        path = self._folder / name
        if not path.exists():
            run("ssh-keygen", "-q", "-t", kind, *options, "-N", passphrase, "-C", "", "-f", path)
        return path

    def allow(self, *lines: tuple[str, Path] | tuple[str, str, Path], name: str = "allowed_signers") -> Path:
        """A file of allowed signers: principals, options if there are any, and a private key, whose public half counts.

        https://man.openbsd.org/ssh-keygen#ALLOWED_SIGNERS
        """
        path = self._folder / name
        rows = [" ".join([*line[:-1], Path(f"{line[-1]}.pub").read_text("ascii")]) for line in lines]
        path.write_text("# people\n\n" + "".join(rows), encoding="utf-8")
        return path


def run(*command: str | Path) -> str:
    """What a program prints; it must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
