"""The inputs of a build: the files and variables that decide its result.

A builder reads everything through :class:`Inputs`, so `holo run` needs one stat per file to see that none has changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from holo import digest as digests
from holo import platform
from holo.blueprints.blueprint import LARGEST
from holo.errors import HoloError, NotFound, UsageError
from holo.files import open_file, read_file

_COARSE_NS = 2 * 10**9
"""The coarsest clock of a filesystem. One that counts whole seconds gives times without a fraction."""

FileStates = dict[str, list[int] | None]
"""Path to size, mtime, ctime (ns) and inode; ``None``: there was no file."""


class Inputs:
    """Reads files and variables, and remembers which."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self._began = time.time_ns()
        self.files: FileStates = {}
        self.variables: dict[str, str] = {}
        """name to a digest of the value, which may be a secret; ``UV_*`` stands for all that begin with ``UV_``"""

    def data(self, path: str) -> bytes:
        """The content of a file that must be there. Raises :class:`NotFound` or :class:`HoloError`."""
        data = self.optional(path)
        if data is None:
            raise NotFound(f"there is no file {path}", "The blueprint needs it.")
        return data

    def text(self, path: str) -> str:
        """The same as text. Raises :class:`UsageError` if it is not UTF-8."""
        try:
            return self.data(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None

    def optional(self, path: str) -> bytes | None:
        """The content of a file, ``None`` if it is not there."""
        try:
            data, status = read_file(path, LARGEST, follow=True)
        except (FileNotFoundError, NotADirectoryError):
            self.files[path] = None
            return None
        except OSError as error:
            raise HoloError(f"cannot read {path}: {error.strerror}") from error
        self.files[path] = _identity(status)
        return data

    def digest(self, path: str) -> str:
        """The digest of a file of any size that must be there."""
        try:
            with platform.closing(open_file(path, follow=True)) as descriptor:
                status = os.fstat(descriptor)
                found = digests.of_file(descriptor)
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}", "The blueprint needs it.") from None
        except OSError as error:
            raise HoloError(f"cannot read {path}: {error.strerror}") from error
        self.files[path] = _identity(status)
        return found

    def are_settled(self) -> bool:
        """Whether a stat will show any later change of the files.

        It will not if one was changed just before it was read: a second change can get the same time.
        """
        ctimes = [state[2] for state in self.files.values() if state is not None]
        return all(self._began - ctime > (platform.CLOCK_LAG_NS if ctime % 10**9 else _COARSE_NS) for ctime in ctimes)

    def watch(self, path: str) -> None:
        """Remember a file without reading it: an interpreter, say."""
        self.files[path] = look(path)

    def variable(self, name: str) -> str | None:
        """The value of an environment variable."""
        self.variables[name] = look_at_variable(name, self.environ)
        return self.environ.get(name)

    def variables_with(self, prefix: str) -> dict[str, str]:
        """All environment variables whose names begin with ``prefix``."""
        self.variables[prefix + "*"] = look_at_variable(prefix + "*", self.environ)
        return {name: value for name, value in self.environ.items() if name.startswith(prefix)}


def look(path: str) -> list[int] | None:
    """The state of a file, as :attr:`Inputs.files` keeps it."""
    try:
        return _identity(os.stat(path))
    except OSError:
        return None


def are_unchanged(files: FileStates) -> bool:
    """Whether every file is still in the state that was kept."""
    return all(look(path) == state for path, state in files.items())


def look_at_variable(name: str, environ: Mapping[str, str]) -> str:
    """The digest that :attr:`Inputs.variables` keeps of a variable, or of all with a prefix if a star ends the name."""
    if name.endswith("*"):
        values = sorted(f"{key}={value}" for key, value in environ.items() if key.startswith(name[:-1]))
    else:
        values = [environ.get(name) or ""]
    return digests.of("\0".join(values).encode("utf-8", "surrogateescape"))


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
