"""Activate a space: set its environment variables, as shell code or around one command."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Literal, get_args

from holo import streams
from holo.errors import MALFORMED, HoloError, NotFound, UsageError
from holo.files import SMALL, read_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

Shell = Literal["sh", "fish", "powershell"]
SHELLS: tuple[Shell, ...] = get_args(Shell)

Variables = dict[str, str | None]
"""Environment variables to set, or to unset where the value is ``None``."""

_NAME = re.compile(r"(?!HOLO_)[A-Za-z_][A-Za-z0-9_]*")
_PYTHON = re.compile(r"(?:pip-?|python)[0-9.]*w?(?:\.exe)?")
"""Programs that use the packages of the environment they belong to, and install into it."""

_OVERRIDES = ("UV_PYTHON", "UV_SYSTEM_PYTHON", "PIP_PYTHON")
"""Variables that make uv and pip work on another Python than that of the active environment."""

_UNSET = "***unset***"
"""How conda marks a variable that the user has unset."""


class CommandNotFound(NotFound):
    """The command is not on the space's PATH. Shells use this exit code, too."""

    exit_code = 127


class CommandNotExecutable(HoloError):
    """The system cannot run the command. Shells use this exit code, too."""

    exit_code = 126


def variables(path: str, name: str, environ: Mapping[str, str]) -> Variables:
    """The changes to ``environ`` that activate the space ``name`` at ``path``.

    Shells may evaluate this at every prompt: to apply the changes twice is the same as once, and they undo those of the
    space that was active before.
    """
    if os.pathsep in path:
        raise HoloError(
            f"{path}: a folder with {os.pathsep!r} in its path cannot be on PATH",
            f"Make it at another place: `holo delete {name}`, then `holo init --space {name} SOURCE --to DIR`.",
        )
    previous = environ.get("HOLO_SPACE_PATH")
    if previous == path:
        previous = None
    found: Variables = {
        "PATH": _prepend(_programs(path), environ.get("PATH", os.defpath), previous),
        "HOLO_SPACE": name,
        "HOLO_SPACE_PATH": path,
    }
    modules = _modules(path)
    inherited = environ.get("NODE_PATH")
    if modules or (inherited and _prepend([], inherited, previous) != inherited):
        found["NODE_PATH"] = _prepend(modules, inherited or "", previous) or None
    is_conda = os.path.exists(os.path.join(path, "conda-meta"))
    is_venv = os.path.exists(os.path.join(path, "pyvenv.cfg"))
    if is_conda or is_venv:
        found |= {key: None for key in _OVERRIDES if key in environ}
    if is_venv:
        found |= {"VIRTUAL_ENV": path, "VIRTUAL_ENV_PROMPT": name, "PYTHONHOME": None}
    elif is_conda or _is_inside(environ.get("VIRTUAL_ENV"), previous):
        # Whatever its value: uv and others prefer it to CONDA_PREFIX.
        found |= {"VIRTUAL_ENV": None, "VIRTUAL_ENV_PROMPT": None}
    if is_conda:
        found = _conda_variables(path) | found | {"CONDA_PREFIX": path, "CONDA_DEFAULT_ENV": name}
    elif _is_inside(environ.get("CONDA_PREFIX"), previous):
        found |= {"CONDA_PREFIX": None, "CONDA_DEFAULT_ENV": None}
    left = _conda_variables(previous) if previous is not None else {}
    return {key: None for key, value in left.items() if environ.get(key) == value} | found


def apply(changes: Variables, environ: Mapping[str, str]) -> dict[str, str]:
    """A copy of ``environ`` with the changes applied."""
    result = {key: value for key, value in environ.items() if key not in changes}
    return result | {key: value for key, value in changes.items() if value is not None}


def check_python(path: str, name: str) -> None:
    """Raise :class:`NotFound` if the Python of a space is gone: commands would run another, without its packages.

    Nobody knows that of a space that may not be looked into: :class:`HoloError`.
    """
    if not os.access(path, os.R_OK | os.X_OK):
        raise HoloError(f"cannot look into the space {path}: Permission denied", "Check its owner and mode.")
    suffix = ".exe" if sys.platform == "win32" else ""
    files = [os.path.join(folder, word + suffix) for folder in _programs(path) for word in ("python", "python3")]
    there = [file for file in files if os.path.lexists(file)]
    lost = [file for file in there if not os.path.exists(file)]
    if lost or (not there and _has_python(path)):
        file = (lost or files)[0]
        raise NotFound(f"the Python of space {name!r} is gone: {_missing(file)}", _how_to_recover(file, path, name))


def _has_python(path: str) -> bool:
    """Whether a space had a Python when it was made."""
    if os.path.exists(os.path.join(path, "pyvenv.cfg")):
        return True
    import glob

    return bool(glob.glob(os.path.join(glob.escape(path), "conda-meta", "python-[0-9]*.json")))


def _missing(file: str) -> str:
    """Says that a program is missing, or that its symlink is broken."""
    if not os.path.islink(file):
        return f"there is no {file}"
    return f"{file} leads to {os.path.realpath(file)}, which is not there"


def _how_to_recover(file: str, path: str, name: str) -> str:
    """The hint that says how to get back a program of a space."""
    if os.path.islink(file) and not _is_inside(os.path.realpath(file), os.path.realpath(path)):
        return "Install that Python again, or make the space anew with another one."
    return f"If the space had it, `holo restore --space {name}` brings it back."


def _programs(path: str) -> list[str]:
    """The folders of a space to put on PATH, the most important first."""
    optional = ["node_modules/.bin", ".bin"]  # .bin: the space is itself a node_modules
    if sys.platform == "win32" and os.path.exists(os.path.join(path, "conda-meta")):
        optional += ["Library/bin", "."]
    folders = [os.path.normpath(os.path.join(path, folder)) for folder in optional]
    main = os.path.join(path, "Scripts" if sys.platform == "win32" else "bin")
    return [main, *filter(os.path.isdir, folders)]


def _modules(path: str) -> list[str]:
    """The folders for NODE_PATH. The space may itself be a node_modules."""
    inner = os.path.join(path, "node_modules")
    if os.path.isdir(inner):
        return [inner]
    is_modules = os.path.basename(path) == "node_modules" or os.path.isdir(os.path.join(path, ".bin"))
    return [path] if is_modules else []


def _conda_variables(path: str) -> Variables:
    """The variables that conda keeps in an environment and sets with it (``conda env config vars``)."""
    try:
        data, _ = read_file(os.path.join(path, "conda-meta", "state"), SMALL)
    except OSError:
        return {}
    import json

    try:
        kept = json.loads(data)["env_vars"].items()
    except MALFORMED:
        return {}
    return {
        key: value
        for key, value in kept
        if isinstance(value, str) and value != _UNSET and "\0" not in value and _NAME.fullmatch(key)
    }


def _prepend(own: list[str], inherited: str, previous: str | None) -> str:
    """``own`` and then the inherited search path, without entries inside the space at ``previous``."""
    # An empty path has no entries, but an empty entry among others means the current directory.
    others = [
        entry
        for entry in (inherited.split(os.pathsep) if inherited else [])
        if _normal(entry) not in map(_normal, own) and not _is_inside(entry, previous)
    ]
    return os.pathsep.join(own + others)


def _normal(path: str) -> str:
    return os.path.normcase(os.path.normpath(path))


def _is_inside(path: str | None, root: str | None) -> bool:
    if not path or not root:
        return False
    return (_normal(path) + os.sep).startswith(_normal(root) + os.sep)


def render(changes: Variables, shell: str) -> str:
    """The changes as code for ``shell``, one statement for each.

    The text has bytes that are not UTF-8 as Python's surrogate escapes, so write it with
    :func:`os.fsencode`. PowerShell reads commands line by line: ``holo variables --shell powershell |
    Out-String | Invoke-Expression``.
    """
    if shell == "sh":
        form, unset, quote = "export {}={}\n", "unset {}\n", _quote_sh
    elif shell == "fish":
        form, unset, quote = "set -gx {} {}\n", "set -e {}\n", _quote_fish
    elif shell == "powershell":
        form, unset, quote = "$Env:{} = {}\n", "Remove-Item Env:{} -ErrorAction Ignore\n", _quote_powershell
    else:
        raise UsageError(f"--shell: unknown shell {shell!r}; use {', '.join(SHELLS)}")
    return "".join(
        unset.format(name) if value is None else form.format(name, quote(value)) for name, value in changes.items()
    )


def _quote_sh(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _quote_fish(value: str) -> str:
    # Unlike in sh, a backslash escapes a quote or a backslash between single quotes.
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _quote_powershell(value: str) -> str:
    # PowerShell treats typographic single quotes like the plain one; doubled, each stands for itself.
    for quote in "'\u2018\u2019\u201a\u201b":
        value = value.replace(quote, quote * 2)
    return f"'{value}'"


def shell(environ: Mapping[str, str]) -> str:
    """The user's shell."""
    if sys.platform == "win32":
        return environ.get("COMSPEC") or "powershell.exe"
    return environ.get("SHELL") or "/bin/sh"


def run(command: list[str], environ: Mapping[str, str], *, as_child: bool = False) -> int:
    """Run ``command`` in the environment ``environ``, found on its PATH, and return the exit code.

    On POSIX this process becomes the command and never returns, so the command has its exit code, signals, terminal
    and process group to itself. Only inheritable descriptors stay open, so locks on others are released. With
    ``as_child`` the command is a child process on POSIX, too.
    """
    if not command:
        raise UsageError("there is no command to run", "Give it after two dashes: holo run -- COMMAND ...")
    program = _find(command[0], environ)
    streams.flush()
    try:
        if as_child or sys.platform == "win32":
            return _spawn(program, command, environ)
        else:  # noqa: RET505 - the type checker looks at one platform at a time
            _become(program, command, environ)
    except OSError as error:
        if not os.path.exists(program):
            raise CommandNotFound(f"{program}: there is no such command") from error
        # The program exists, so "no such file" means the interpreter in a script's first line.
        interpreter = isinstance(error, FileNotFoundError)
        reason = "the interpreter it names does not exist" if interpreter else error.strerror
        raise CommandNotExecutable(f"{program}: cannot be run: {reason}") from error


def _find(command: str, environ: Mapping[str, str]) -> str:
    """Find ``command`` as a shell does. In a Python space, only its own Python and pip count."""
    path = environ.get("PATH", os.defpath)
    space = environ.get("HOLO_SPACE_PATH")
    if not space or not _PYTHON.fullmatch(command) or not _is_python(space):
        return _find_on_path(command, path)
    own = os.pathsep.join(_programs(space))
    try:
        return _find_on_path(command, own)
    except CommandNotFound:
        raise _not_in_space(command, own, environ) from None


def _is_python(path: str) -> bool:
    """Whether a space is a Python environment."""
    signs = ("pyvenv.cfg", "conda-meta", "bin/python", "bin/python3")
    return any(os.path.lexists(os.path.join(path, sign)) for sign in signs)


def _not_in_space(command: str, own: str, environ: Mapping[str, str]) -> CommandNotFound:
    """The error for a program that should be in the folders ``own`` of the space, and is not."""
    name, path = environ.get("HOLO_SPACE", ""), environ["HOLO_SPACE_PATH"]
    file = os.path.join(own.split(os.pathsep, maxsplit=1)[0], command)
    message = f"space {name!r} has no {command} of its own: {_missing(file)}"
    if (outside := _find_or_none(command, environ.get("PATH", os.defpath))) is not None:
        message += f". {outside} is of another environment"
    if command.startswith("pip") and _find_or_none("python", own) is not None:
        hint = "`uv pip` installs into the space. For a pip of its own, name pip in what the space is made of."
    else:
        hint = f"{_how_to_recover(file, path, name)} One from elsewhere is run if it is named by its path."
    return CommandNotFound(message, hint)


def _find_or_none(command: str, path: str) -> str | None:
    try:
        return _find_on_path(command, path)
    except HoloError:
        return None


def _beside_holo(command: str) -> str | None:
    """The hint that names the uv that was installed with holo, whose folder need not be on PATH."""
    file = os.path.join(os.path.dirname(sys.executable), command)
    if command == "uv" and os.access(file, os.X_OK):
        from shlex import quote

        return f"holo has one of its own: name it by its path, or put a link to it on PATH: {quote(file)}"
    return None


def _find_on_path(command: str, path: str) -> str:
    if not command:
        raise CommandNotFound("the name of the command is empty", "A variable of the shell may be unset.")
    if sys.platform == "win32":
        import shutil

        found = shutil.which(command, path=path)
        if found is None:
            raise CommandNotFound(f"{command}: there is no such command on PATH", _beside_holo(command))
        return found
    if os.path.dirname(command):
        return command
    files = [file for entry in path.split(os.pathsep) if os.path.isfile(file := os.path.join(entry, command))]
    for file in files:
        if os.access(file, os.X_OK):
            return file
    if files:
        raise CommandNotExecutable(f"{files[0]}: is not executable", f"Make it so: chmod +x {files[0]}")
    raise CommandNotFound(f"{command}: there is no such command on PATH", _beside_holo(command))


def _spawn(program: str, command: list[str], environ: Mapping[str, str]) -> int:
    import signal
    import subprocess

    # Ctrl-C and the like reach every process of the terminal; the command decides what they mean.
    for name in ("SIGINT", "SIGBREAK", "SIGQUIT"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), lambda *_: None)
    return subprocess.call([program, *command[1:]], env=environ)


if sys.platform != "win32":

    def _become(program: str, command: list[str], environ: Mapping[str, str]) -> NoReturn:
        import signal

        # Python ignores these signals, and exec would keep that: `yes | head` in the command would never end.
        ignored = (signal.SIGPIPE, signal.SIGXFSZ)
        before = [signal.signal(number, signal.SIG_DFL) for number in ignored]
        try:
            os.execve(program, command, environ)  # noqa: S606 - a shell is not wanted
        finally:
            for number, handler in zip(ignored, before, strict=True):
                signal.signal(number, handler)
