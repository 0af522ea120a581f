"""requirements.txt in a canonical form: only what decides which packages are installed.

The format: https://pip.pypa.io/en/stable/reference/requirements-file-format/. Comments, blank lines, the order of
requirements and the spelling of names and spaces decide nothing; the order of options (of indexes, say) may.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from holo import digest as digests
from holo.blueprints.inputs import Inputs
from holo.errors import UsageError
from holo.urls import hidden, without_credentials, without_secrets

_DEEPEST = 20
"""Levels of files that include each other."""

_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"(--?[A-Za-z][A-Za-z-]*)(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)
_NAMED = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?\s*(.*)", re.DOTALL)
_VERSION = re.compile(r"(===|==|~=|!=|<=|>=|<|>)\s*([A-Za-z0-9.*+!_-]+)")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_INCLUDES = {"-r": "requirements", "--requirement": "requirements", "-c": "constraints", "--constraint": "constraints"}

_PLACES = ("-f", "--find-links", "-i", "--index-url", "--extra-index-url")
"""Options that say where packages are; that may be a folder."""


@dataclass
class Requirements:
    """The content of files and lines of requirements."""

    requirements: set[str] = field(default_factory=set)
    constraints: set[str] = field(default_factory=set)
    included: set[str] = field(default_factory=set)
    """lines that a file of constraints includes with ``-r``: constraints for uv, requirements for pip"""
    options: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    """digests of packages in local files"""
    variables: dict[str, str] = field(default_factory=dict)
    """digests of the values of variables that lines refer to, without credentials"""

    def canonical(self) -> dict[str, object]:
        return {
            "requirements": sorted(self.requirements),
            "constraints": sorted(self.constraints),
            "included": sorted(self.included),
            "options": self.options,
            "files": sorted(self.files),
            "variables": self.variables,
        }


def read(path: str, inputs: Inputs) -> Requirements:
    """Read a file and all that it includes. Raises :class:`UsageError`, and NotFound if a file is missing."""
    found = Requirements()
    _read(path, inputs, found, "requirements", ())
    return found


def of_lines(lines: Iterable[str], where: str, inputs: Inputs) -> Requirements:
    """The same for lines from another file, ``where``; paths in them are relative to its folder."""
    found = Requirements()
    for number, line in _logical(lines):
        _take(line, f"{where}, line {number}", where, inputs, found, "requirements", ())
    return found


def _read(path: str, inputs: Inputs, found: Requirements, kind: str, above: tuple[str, ...]) -> None:
    if path in above or len(above) > _DEEPEST:
        raise UsageError(f"{path} includes itself, or too many files include each other")
    for number, line in _logical(re.split(r"\r\n|\r|\n", inputs.text(path))):
        _take(line, f"{path}, line {number}", path, inputs, found, kind, (*above, path))


def _logical(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines without comments, those that end with a backslash joined, with the number of their first."""
    begun, first = "", 0
    for number, line in enumerate(lines, 1):
        first = first if begun else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            begun += line[:-1].rstrip() + " "
            continue
        text = _COMMENT.sub("", begun + line).strip()
        begun = ""
        if text:
            yield first, text
    if text := _COMMENT.sub("", begun).strip():
        yield first, text


def _take(
    line: str, where: str, file: str, inputs: Inputs, found: Requirements, kind: str, above: tuple[str, ...]
) -> None:
    for name in _VARIABLE.findall(without_credentials(line)):
        value = inputs.variable(name) or ""
        found.variables[name] = digests.of(without_secrets(value).encode("utf-8", "surrogateescape"))
    if line.startswith("-"):
        _option(line, where, file, inputs, found, kind, above)
        return
    text, *options = re.split(r"(?<!\s)\s++(?=--[a-z])", line)
    hashes = [" ".join(_option_parts(option, where)) for option in options]
    # uv and pip resolve paths in included files from the folder that they run in, that of the first file.
    requirement = _requirement(text, where, above[0] if above else file, inputs, found)
    getattr(found, kind).add(" ".join([requirement, *sorted(hashes)]))


def _option_parts(text: str, where: str) -> list[str]:
    match = _OPTION.fullmatch(text)
    if match is None:
        raise UsageError(f"{where}: {hidden(text)!r} is not an option")
    return [part for part in match.groups() if part]


def _option(
    line: str, where: str, file: str, inputs: Inputs, found: Requirements, kind: str, above: tuple[str, ...]
) -> None:
    # Short options may have their value without a space: -rdev.txt.
    if len(line) > 2 and line[1] != "-" and line[2] not in "= \t":
        line = f"{line[:2]} {line[2:]}"
    name, *values = _option_parts(line, where)
    value = " ".join(values)
    if name in ("-e", "--editable"):
        raise UsageError(
            f"{where}: an editable install leads out of the environment, so it cannot be recorded: " + hidden(value),
            "Leave it out, and install it in the space: holo run ... -- uv pip install --no-deps -e DIR",
        )
    if name not in _INCLUDES:
        if name in _PLACES and value and "://" not in value:  # ./wheels is another folder for another file
            value = os.path.normpath(os.path.join(os.path.dirname(file), value))
        found.options.append(without_secrets(f"{name} {value}".strip()))
        return
    try:
        value = " ".join(shlex.split(value))
    except ValueError as error:
        raise UsageError(f"{where}: {hidden(value)}: {error}") from None
    if not value or "://" in value:
        raise UsageError(f"{where}: only a local file can be included, not {hidden(value)!r}")
    path = os.path.normpath(os.path.join(os.path.dirname(file), value))
    if len(above) == 0:  # lines of another file, which counts as the first
        above = (file,)
    included = _INCLUDES[name]
    _read(path, inputs, found, "included" if included == "requirements" != kind else included, above)


def _requirement(text: str, where: str, file: str, inputs: Inputs, found: Requirements) -> str:
    """A requirement in its canonical spelling."""
    text, _, marker = text.partition(" ;") if "://" in text or "@" in text else text.partition(";")
    marker = " ".join(marker.replace("'", '"').split())
    text = text.strip()
    named = _NAMED.fullmatch(text)
    rest = named[3].strip() if named is not None else ""
    if named is None or (rest and not rest.startswith("@") and not _VERSION.match(rest.lstrip("("))):
        spelled = _source(text, where, file, inputs, found)
    else:
        name = normalized(named[1])
        extras = ",".join(sorted(normalized(extra.strip()) for extra in (named[2] or "").split(",")))
        spelled = f"{name}[{extras}]" if extras else name
        if not rest and _CHOSEN.sub("", text).endswith(_ARCHIVE):
            spelled = _source(text, where, file, inputs, found)
        elif rest.startswith("@"):
            spelled += " @ " + _source(rest[1:].strip(), where, file, inputs, found)
        elif rest:
            spelled += _versions(rest, where)
    return f"{spelled} ; {marker}" if marker else spelled


def normalized(name: str) -> str:
    """A package, extra or group by the one spelling of its name: https://peps.python.org/pep-0503/#normalized-names"""
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(requirement: str) -> str | None:
    """The package that a requirement asks for; ``None`` if it has no name, or depends on a marker."""
    found = _NAMED.fullmatch(requirement.strip())
    if found is None or ";" in requirement or found[3][:1] not in ("", *"(<>=!~@-"):
        return None
    name = found[1]
    if name.endswith(_ARCHIVE):  # the name of a wheel begins with it
        return normalized(name.partition("-")[0]) if name.endswith(".whl") else None
    return normalized(name)


def _versions(text: str, where: str) -> str:
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    found = []
    for part in text.split(","):
        match = _VERSION.fullmatch(part.strip())
        if match is None:
            if not part.strip():  # a comma at the end
                continue
            raise UsageError(f"{where}: {hidden(part.strip())!r} is not a version such as '>=1.0'")
        found.append(match[1] + match[2])
    return ",".join(sorted(found))


_CHOSEN = re.compile(r"(?<!\s)\s*+(\[[^\[\]]*\]|#.*)$")
"""Extras, or a fragment that names a folder in an archive."""

_ARCHIVE = (".whl", ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz", ".tar")


def _source(text: str, where: str, file: str, inputs: Inputs, found: Requirements) -> str:
    """A URL as it is; a file by its content."""
    if "://" in text and not text.startswith("file:"):
        return without_secrets(text)
    chosen = _CHOSEN.search(text)
    part = re.sub(r"\s", "", chosen[0]) if chosen is not None else ""
    path = text[: chosen.start()] if chosen is not None else text
    path = unquote(urlsplit(path).path) if text.startswith("file:") else path
    if not text.startswith("file:") and not (path.endswith(_ARCHIVE) or os.sep in path or path.startswith(".")):
        raise UsageError(f"{where}: {hidden(text)!r} is not a requirement")
    path = os.path.normpath(os.path.join(os.path.dirname(file), path))
    if os.path.isdir(path):
        raise UsageError(
            f"{where}: {path} is a folder of sources, and what is in it is not recorded in a blueprint",
            "Build a wheel of it and name that, or install it in the space: "
            "holo run ... -- uv pip install --no-deps DIR",
        )
    found.files.add(inputs.digest(path))
    return os.path.basename(path) + part
