"""The settings in force, and the source of each: a flag, else the environment, else settings.yaml, else the default.

Every source is checked, even if another overrides it: a mistake should not stay hidden until the day the flag is left
out. Commands that run at every shell prompt load this module, so it imports little, and YAML only when there is a file
to read.
"""

from __future__ import annotations

import enum
import os
import re
import sys
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from holo.errors import UsageError, flaw_in_yaml
from holo.files import read_file
from holo.userfolders import user_folder
from holo.walk import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from yaml import Node

MOST_WORKERS = 256
MOST_SPARES = 1000
_LARGEST = 1 << 16
"""Bytes of a settings file: a hundred times the space that all keys need. Parsing 100 kB of YAML takes a second."""

COMPRESSIONS = ("auto", "raw", "zstd")

NOTHING = "none"
"""The value of a setting that is not set; it overrides what a lower source says."""

(
    _HOME,
    _STRATEGY,
    _SPARES,
    _COMPRESSION,
    _MAX_SIZE,
    _KEEP_DAYS,
    _MIN_FREE,
    _WORKERS,
    _URL,
    _PUSH,
    _SIGNERS,
    _MAX_AGE,
) = _KEYS = (
    "home",
    "holotree.restoration-strategy",
    "holotree.spares",
    "library.compression",
    "library.max-size",
    "library.keep-days",
    "library.min-free",
    "workers",
    "remote.url",
    "remote.push",
    "remote.allowed-signers",
    "remote.max-age",
)

_LONGEST_HOME = 3500
"""Bytes: PATH_MAX of Linux, less the paths below home."""

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
"""Seconds, the longest first."""

_ALL_TIME = 100 * 366 * 86_400
"""Seconds: a longer age means nothing."""

T = TypeVar("T")
_Candidate = tuple[str | None, str]


class Strategy(enum.StrEnum):
    """How file content gets from library to space."""

    SMART = "smart"
    REFLINK = "reflink"
    HARDLINK = "hardlink"
    COPY = "copy"
    OVERLAY = "overlay"

    @classmethod
    def parse(cls, value: str, source: str) -> Strategy:
        """The strategy called ``value``; the error names ``source``, where the user wrote it."""
        strategy = _STRATEGY_NAMES.get(value)
        if strategy is None:
            raise UsageError(f"{source}: unknown strategy {value!r}; use {_either(_STRATEGY_NAMES)}")
        return strategy


_STRATEGY_NAMES = {
    "smart": Strategy.SMART,
    "auto": Strategy.SMART,
    "reflink": Strategy.REFLINK,
    "hardlink": Strategy.HARDLINK,
    "copy": Strategy.COPY,
    "copy-only": Strategy.COPY,
    "overlay": Strategy.OVERLAY,
}


class Setting(NamedTuple):
    """One effective value and where it came from."""

    key: str
    value: str | int
    """for display: a URL without the credentials in it"""
    source: str


class Settings(NamedTuple):
    """The values in force. ``file`` is the settings file that was read, ``None`` if there is none."""

    home: str
    strategy: Strategy
    spares: int | None
    """of each catalog used lately; ``None``: ``auto``"""
    compression: str
    max_size: int | None
    """bytes"""
    keep_days: int | None
    min_free: int | None
    """bytes"""
    workers: int
    remote_url: str | None
    """a URL, which may hold credentials, or the absolute path of a folder"""
    remote_push: bool
    allowed_signers: str | None
    """the absolute path of a file"""
    max_age: int | None
    """in seconds"""
    file: str | None
    sources: Mapping[str, str]

    def __repr__(self) -> str:
        shown = (f"{key}={value!r}" for key, value in self._asdict().items() if key != "remote_url")
        return f"Settings({', '.join(shown)})"

    def effective(self) -> list[Setting]:
        """Every key with its value and its source, in the order of the documentation."""
        from holo.urls import hidden

        values: tuple[str | int, ...] = (
            self.home,
            self.strategy.value,
            self.spares if self.spares is not None else "auto",
            self.compression,
            size_text(self.max_size) if self.max_size is not None else NOTHING,
            self.keep_days if self.keep_days is not None else NOTHING,
            size_text(self.min_free) if self.min_free is not None else NOTHING,
            self.workers,
            hidden(self.remote_url.replace("'", "%27")) if self.remote_url is not None else NOTHING,
            "true" if self.remote_push else "false",
            self.allowed_signers or NOTHING,
            duration(self.max_age) if self.max_age is not None else NOTHING,
        )
        return [Setting(key, value, self.sources[key]) for key, value in zip(_KEYS, values, strict=True)]


def load(*, strategy: str | None = None, home: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force, given a command's flags and an environment (default: the process's own).

    An environment variable that is set but empty counts as not set. A relative ``home``, or folder of a remote, is
    taken from the current directory if it comes from flag or environment, and refused in the file.
    """
    env = os.environ if environ is None else environ
    file = _settings_file(env)
    written = _read(file) if file is not None else None
    if written is None and (named := env.get("HOLO_SETTINGS")):
        raise UsageError(f"environment variable HOLO_SETTINGS: there is no file {named!r}")
    sources: dict[str, str] = {}

    def choose(key: str, parse: Callable[[str, str], T], better: Iterable[_Candidate], default: str | None) -> T:
        in_file = written.get(key) if written else None
        candidates = (*better, (in_file, file or ""), (default, "default"))
        parsed = [(parse(value, source), source) for value, source in candidates if value is not None]
        best, sources[key] = parsed[0]
        return best

    homes = ((home, "flag --home"), _variable(env, "HOLO_HOME"))
    strategies = ((strategy, "flag --strategy"), _variable(env, "RCC_HOLOTREE_STRATEGY"))
    chosen = [(value and absolute(os.path.expanduser(value)), source) for value, source in homes]
    usual = user_folder(env, "data")
    if usual is None and not any((*(value for value, _ in chosen), (written or {}).get(_HOME))):
        raise UsageError(
            "nobody knows your home folder: HOME is not set, and you have no account on this system",
            "Set HOLO_HOME to the path of the folder that is to hold the library and the spaces.",
        )
    remote, variable = _variable(env, "HOLO_REMOTE")
    if remote is not None and remote != NOTHING and _is_path(remote):
        remote = absolute(os.path.expanduser(remote))
    return Settings(
        home=choose(_HOME, _parse_home, chosen, usual),
        strategy=choose(_STRATEGY, Strategy.parse, strategies, Strategy.SMART),
        spares=choose(_SPARES, _parse_spares, (), "0"),
        compression=choose(_COMPRESSION, _parse_compression, (), "auto"),
        max_size=choose(_MAX_SIZE, _or_none(partial(_parse_size, _MAX_SIZE)), (), NOTHING),
        keep_days=choose(_KEEP_DAYS, _or_none(_parse_days), (), NOTHING),
        min_free=choose(_MIN_FREE, _or_none(partial(_parse_size, _MIN_FREE)), (), NOTHING),
        workers=choose(_WORKERS, _parse_workers, (), "auto"),
        remote_url=choose(_URL, _or_none(_parse_url), ((remote, variable),), NOTHING),
        remote_push=choose(_PUSH, _parse_push, (), "false"),
        allowed_signers=choose(_SIGNERS, _or_none(_parse_signers), (), NOTHING),
        max_age=choose(_MAX_AGE, _or_none(_parse_max_age), (), NOTHING),
        file=None if written is None else file,
        sources=sources,
    )


def _variable(env: Mapping[str, str], name: str) -> _Candidate:
    return env.get(name) or None, f"environment variable {name}"


def _or_none(parse: Callable[[str, str], T]) -> Callable[[str, str], T | None]:
    """The same for a setting that may be ``none``."""
    return lambda value, source: None if value == NOTHING else parse(value, source)


def _number(rule: str, least: int, most: int, value: str, source: str) -> int:
    """A number from ``least`` to ``most``; ``rule`` says in the error what may be there."""
    # The length is checked first: int() of a very long text is slow, then an error of its own.
    if value.isascii() and value.isdecimal() and len(value) <= len(str(most)) and least <= int(value) <= most:
        return int(value)
    raise UsageError(f"{source}: {rule}, not {value!r}")


def _parse_home(value: str, source: str) -> str:
    path = os.path.expanduser(value)
    if len(os.fsencode(path)) > _LONGEST_HOME:
        raise UsageError(f"{source}: home is longer than {_LONGEST_HOME} bytes: {value[:100]!r}...")
    if not os.path.isabs(path) or "\0" in path:
        raise UsageError(f"{source}: home must be the absolute path of a folder, not {value!r}")
    return os.path.normpath(path)


def _parse_compression(value: str, source: str) -> str:
    if value not in COMPRESSIONS:
        raise UsageError(f"{source}: unknown {_COMPRESSION} {value!r}; use {_either(COMPRESSIONS)}")
    return value


def _parse_spares(value: str, source: str) -> int | None:
    if value == "auto":
        return None
    return _number(f"{_SPARES} must be auto or a number from 0 to {MOST_SPARES}", 0, MOST_SPARES, value, source)


def _parse_workers(value: str, source: str) -> int:
    if value == "auto":
        return min(_usable_processors(), MOST_WORKERS)
    return _number(f"workers must be auto or a number from 1 to {MOST_WORKERS}", 1, MOST_WORKERS, value, source)


def _is_path(remote: str) -> bool:
    from holo.urls import is_url  # only who has a remote needs it

    return not is_url(remote)


def _parse_url(value: str, source: str) -> str:
    # What is wrong is not shown: it may be a password.
    if not value.isprintable():
        raise UsageError(f"{source}: {_URL} holds a character that cannot be printed")
    if _is_path(value):
        path = os.path.expanduser(value)
        if not os.path.isabs(path):
            raise UsageError(
                f"{source}: {_URL} must be a URL, the absolute path of a folder, or none",
                "URLs begin with a scheme, as in https://cache.example/holo or s3://bucket/holo.",
            )
        return os.path.normpath(path)
    if "@" in value.partition("://")[2].partition("/")[2].partition("?")[0]:
        raise UsageError(
            f"{source}: {_URL} has an @ behind a slash, so it is not clear where its password ends",
            "In a password write %2F for a slash, in a path %40 for an @.",
        )
    return value


def _parse_push(value: str, source: str) -> bool:
    if value not in ("true", "false"):
        raise UsageError(f"{source}: {_PUSH} must be true or false, not {value!r}")
    return value == "true"


def _parse_signers(value: str, source: str) -> str:
    path = os.path.expanduser(value)
    if not os.path.isabs(path) or "\0" in path:
        raise UsageError(f"{source}: {_SIGNERS} must be the absolute path of a file, or none, not {value!r}")
    return os.path.normpath(path)


def _parse_max_age(value: str, source: str) -> int:
    return parse_duration(value, f"{source}: {_MAX_AGE}")


def _parse_size(key: str, value: str, source: str) -> int:
    try:
        return parse_size(value)
    except UsageError as error:
        raise UsageError(f"{source}: {key}: {error.message}", error.hint) from None


def _parse_days(value: str, source: str) -> int:
    return _number(f"{_KEEP_DAYS} must be a number of days, or none", 0, 99_999, value, source)


def parse_size(text: str) -> int:
    """``20GB``, ``500M``, ``1.5 TiB`` or a number of bytes. k, M, G and T are decimal, Ki, Mi, Gi and Ti binary."""
    pattern = r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*(?:([kmgt])(i?))?b?"
    found = re.fullmatch(pattern, text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise UsageError(f"{text[:100]!r} is not a size", "Write a number and a unit: 20GB, 500M, 1.5TiB.")
    number, unit, binary = found.groups()
    factor = (1024 if binary else 1000) ** ("kmgt".index(unit.lower()) + 1 if unit else 0)
    return int(number) * factor if number.isdecimal() else int(float(number) * factor)


def size_text(size: int) -> str:
    """So many bytes as settings.yaml has them, in the largest unit that fits: ``20GB``."""
    units = [(1000**power, f"{unit}B") for power, unit in ((4, "T"), (3, "G"), (2, "M"), (1, "k"))]
    units += [(1024**power, f"{unit}iB") for power, unit in ((4, "T"), (3, "G"), (2, "M"), (1, "K"))]
    length, name = next((item for item in units if size and size % item[0] == 0), (1, ""))
    return f"{size // length}{name}"


def parse_duration(value: str, what: str) -> int:
    """The seconds of a duration such as ``30d``; ``what`` it is for, in the error."""
    number, unit = value[:-1], value[-1:]
    if number.isascii() and number.isdecimal() and len(number) <= 10 and unit in _UNITS:
        seconds = int(number) * _UNITS[unit]
        if 0 < seconds <= _ALL_TIME:
            return seconds
    raise UsageError(f"{what} must be a duration of at most 100 years such as 30d, 12h or 90m, not {value!r}")


def duration(seconds: int) -> str:
    """So many seconds as settings.yaml has them, in the longest unit that fits: ``30d``."""
    unit, length = next((unit, length) for unit, length in _UNITS.items() if seconds % length == 0 and unit != "w")
    return f"{seconds // length}{unit}"


def _usable_processors() -> int:
    """The number of processors that this process may use: a container or taskset may allow fewer than there are."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _settings_file(env: Mapping[str, str]) -> str | None:
    named = env.get("HOLO_SETTINGS")
    if named:
        return absolute(named)
    folder = user_folder(env, "config")
    return os.path.join(folder, "settings.yaml") if folder is not None else None


def _read(file: str) -> dict[str, str] | None:
    """The values in the file as text, by dotted key; ``None`` if the file does not exist."""
    if file == os.devnull:
        return {}
    try:
        data, _ = read_file(file, _LARGEST, follow=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{file}: cannot read the settings: {error.strerror}") from error
    import yaml

    try:
        # BaseLoader leaves every scalar the text it is, so that a value means the same here as in a
        # flag or a variable: `no` is not False, `1_0` not 10.
        loader = yaml.BaseLoader(data)
        node = loader.get_single_node()
        document = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{file}: not valid YAML: {_hidden(flaw_in_yaml(error))}",
            "Indent with spaces, and all keys of a section alike.",
        ) from error
    _refuse_repeated(node, file)
    found: dict[str, str] = {}
    if document:
        _flatten(document, "", file, found)
    return found


def _refuse_repeated(node: Node | None, file: str) -> None:
    """Raise :class:`UsageError` for a key that is there twice: YAML would drop all but the last, a whole section."""
    sections = [below for _, below in _pairs(node)]
    for mapping in (node, *sections):
        seen: set[str] = set()
        for key, _ in _pairs(mapping):
            name = str(key.value)
            if name in seen:
                line = key.start_mark.line + 1
                raise UsageError(f"{file}: {_hidden(repr(name))} is there twice, again in line {line}", "Keep one.")
            seen.add(name)


def _pairs(node: Node | None) -> list[tuple[Node, Node]]:
    from yaml import MappingNode

    return node.value if isinstance(node, MappingNode) else []


def _flatten(value: object, key: str, file: str, found: dict[str, str]) -> None:
    """Put the values below ``key`` into ``found``. Raises :class:`UsageError` for an unknown key, or no text."""
    sections = {known.rpartition(".")[0] for known in _KEYS}
    if key in sections:
        # A section whose keys are all commented out reads as empty text.
        if value == "":
            return
        if not isinstance(value, dict):
            raise UsageError(f"{file}: {key or 'the file'} must hold keys and values, not {_kind(value)}")
        for name, below in value.items():
            _flatten(below, f"{key}.{name}" if key else str(name), file, found)
    elif key not in _KEYS:
        raise UsageError(f"{file}: unknown key {_hidden(repr(key))}; the keys are {', '.join(_KEYS)}")
    elif not isinstance(value, str):
        raise UsageError(f"{file}: {key} must be a single value, not {_kind(value)}")
    else:
        found[key] = value


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "keys and values"
    return "a list" if isinstance(value, list) else _hidden(repr(value))


def _hidden(text: str) -> str:
    """A text from a file in which a URL with a password may stand at the wrong place."""
    from holo.urls import hidden

    return hidden(text)


def _either(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}"
