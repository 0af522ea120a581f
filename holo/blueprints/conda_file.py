"""Parse a conda environment file: environment.yml, or RCC's conda.yaml. Nothing in it is trusted.

Keys: https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html, and RCC's
``rccPostInstall`` (its docs/recipes.md).
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from holo.errors import UsageError, flaw_in_yaml
from holo.urls import hidden

_LARGEST = 1 << 18
"""Bytes: an exported environment of a thousand packages has a fifth. YAML is parsed at some 100 kB in a second."""

_KNOWN = ("name", "prefix", "channels", "dependencies", "variables", "rccPostInstall")
"""``name`` and ``prefix`` say where the environment shall be, which holo decides."""

_NAME = re.compile(r"(?:.*::)?\s*([A-Za-z0-9_.-]+)")
_PACKAGE = re.compile(r"(?:[^\s\[]*::)?\s*(?!__)([A-Za-z0-9_.-]+)(?<!\.conda)(?<!\.bz2)(?:[\s=<>!~\[].*)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class CondaFile:
    """The content of an environment file, normalized: equal for files that mean the same."""

    channels: list[str]
    """the most important first"""
    specs: list[str]
    """match specs, sorted"""
    pip: list[str]
    """lines of a requirements file"""
    variables: dict[str, str]
    post_install: list[str]
    """commands, each to be split as a shell does"""
    unknown: list[str]
    """keys that holo ignores"""

    def names(self) -> set[str]:
        """The packages that are asked for."""
        return {found[1].lower() for spec in self.specs if (found := _NAME.match(spec))}

    def packages(self) -> set[str]:
        """The packages that must be in the environment: neither from a file nor virtual nor meant by a pattern."""
        return {found[1].lower() for spec in self.specs if (found := _PACKAGE.fullmatch(spec))}


def parse(text: str, path: str) -> CondaFile:
    """Read the text of the environment file at ``path``. Raises :class:`UsageError`."""
    reader = _Reader(path)
    document = reader.mapping(reader.yaml(text), "the file")
    specs, pip = reader.dependencies(document.get("dependencies", ""))
    channels = [reader.channel(name) for name in reader.texts(document.get("channels", ""), "channels")]
    if not channels:
        reader.fail(
            "channels", "there are none", "Which ones a tool takes by itself depends on its settings. Name them."
        )
    if not specs and not pip:
        reader.fail("dependencies", "there are none")
    commands = reader.texts(document.get("rccPostInstall", ""), "rccPostInstall")
    found = CondaFile(
        channels=[name for name in dict.fromkeys(channels) if name != "nodefaults"],  # conda's word for: no others
        specs=sorted({" ".join(spec.split()) for spec in specs}),
        pip=pip,
        variables=reader.variables(document.get("variables", "")),
        post_install=[reader.command(command) for command in commands],
        unknown=sorted(set(document) - set(_KNOWN)),
    )
    if pip and not found.names() & {"pip", "uv"}:
        found.specs.append("pip")  # as conda does
        found.specs.sort()
    return found


class _Reader:
    """Takes a document apart, and reports where it is wrong."""

    def __init__(self, path: str) -> None:
        self._path = path

    def fail(self, key: str, what: str, hint: str | None = None) -> None:
        raise UsageError(f"{self._path}: {key}: {hidden(what)}", hint)

    def yaml(self, text: str) -> object:
        import yaml

        if len(text) > _LARGEST:
            raise UsageError(f"{self._path} is larger than {_LARGEST:,} characters")
        try:
            # BaseLoader leaves every scalar the text it is: a version 3.10 is not the number 3.1.
            return yaml.load(text, yaml.BaseLoader)  # noqa: S506 - the safest of all, it makes only text
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UsageError(f"{self._path} is not valid YAML: {hidden(flaw_in_yaml(error))}") from None

    def mapping(self, value: object, key: str) -> dict[str, object]:
        if value is None or value == "":
            return {}
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise UsageError(f"{self._path}: {key}: it must be a mapping")
        return value

    def texts(self, value: object, key: str) -> list[str]:
        """A list of texts; nothing at all is an empty one."""
        if value == "":
            return []
        if not isinstance(value, list):
            raise UsageError(f"{self._path}: {key}: it must be a list")
        return [self.text(item, f"{key}, item {number}") for number, item in enumerate(value, 1)]

    def text(self, value: object, key: str) -> str:
        if not isinstance(value, str) or not (text := value.strip()):
            raise UsageError(f"{self._path}: {key}: it must be a text")
        if not text.replace("\t", " ").isprintable():
            raise UsageError(f"{self._path}: {key}: there is a control character in it")
        return text

    def dependencies(self, value: object) -> tuple[list[str], list[str]]:
        """The match specs, and the lines for pip."""
        specs: list[str] = []
        pip: list[str] = []
        if value != "" and not isinstance(value, list):
            self.fail("dependencies", "it must be a list")
        for number, item in enumerate(value if isinstance(value, list) else (), 1):
            key = f"dependencies, item {number}"
            if not isinstance(item, dict):
                specs.append(self.spec(item, key))
            elif list(item) == ["pip"]:
                pip += self.texts(item["pip"], f"{key}, pip")
            else:
                names = ", ".join(repr(str(name))[:40] for name in item)
                self.fail(key, f"only 'pip' has a list of its own, not {names}", "Write a package as name=version.")
        return specs, pip

    def spec(self, value: object, key: str) -> str:
        text = self.text(value, key)
        if text.startswith("-"):  # a tool would take it for an option
            self.fail(key, f"{text!r} is not a package")
        return text

    def channel(self, name: str) -> str:
        """The channel; a folder that is named relative to the file, in full."""
        if name.startswith("-"):
            self.fail("channels", f"{name!r} is not a channel")
        if name.startswith(("./", "../")):
            return os.path.normpath(os.path.join(os.path.dirname(self._path), name))
        return name

    def variables(self, value: object) -> dict[str, str]:
        found = self.mapping(value, "variables")
        for name, text in found.items():
            if not _VARIABLE.fullmatch(name):
                self.fail("variables", f"{name!r} cannot be the name of a variable")
            if name == "PATH" or name.startswith("HOLO_"):
                self.fail("variables", f"{name} is what holo itself sets")
            if not isinstance(text, str) or "\0" in text:
                self.fail(f"variables, {name}", "it must be a text")
        return {name: str(text) for name, text in found.items()}

    def command(self, text: str) -> str:
        try:
            shlex.split(text)
        except ValueError as error:
            self.fail("rccPostInstall", f"{text!r} is not a command: {error}")
        return text
