"""Build package-lock.json with ``npm ci``: a space contains ``node_modules``, and the two files that it was built from.

Its ``package.json`` is not the project's: it has only the fields that decide what is installed. A space that is itself
called ``node_modules`` contains nothing but the content of that folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holo.blueprints import complete
from holo.blueprints.builder import Built, ToolMissing
from holo.blueprints.canonical import this_system
from holo.blueprints.credentials import strip_credentials
from holo.blueprints.inputs import Inputs
from holo.errors import HoloError, NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.builder import BuildOptions
    from holo.blueprints.log import Log

_FIELDS = (
    *("name", "dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta"),
    *("bundleDependencies", "bundledDependencies", "overrides", "allowScripts", "engines", "devEngines"),
    *("os", "cpu", "libc", "config"),
)
"""The fields of package.json that npm ci reads (docs.npmjs.com, "package.json"), besides scripts. Not the version: it
changes with every release, and the installed packages do not."""

_SCRIPTS = ("preinstall", "install", "postinstall")
"""The project's scripts that npm ci runs for the installed packages. The others (prepare ...) build the project itself,
which is not in a space."""

_SETTINGS = (
    *(
        "omit",
        "include",
        "production",
        "dev",
        "optional",
        "only",
        "also",
        "force",
        "engine-strict",
        "os",
        "cpu",
        "libc",
    ),
    *("install-strategy", "global-style", "legacy-bundling", "bin-links", "legacy-peer-deps", "strict-peer-deps"),
    *("ignore-scripts", "script-shell", "allow-scripts", "strict-allow-scripts", "dangerously-allow-all-scripts"),
    *("allow-directory", "allow-file", "allow-git", "allow-remote"),
)
"""The settings that decide what npm ci installs (docs.npmjs.com, "config"). None of them is a secret."""

_FOREIGN = re.compile(
    "npm_(package|lifecycle)_.*|npm_config_(local_prefix|workspace)|NODE_PATH|INIT_CWD", re.IGNORECASE
)
"""Variables that would make npm install elsewhere. It sets some of them for the programs that it runs."""

_HERE = ("--location=project", "--no-global", "--no-workspaces", "--no-dry-run", "--no-package-lock-only")
"""Options that override variables and .npmrc, which could make npm install elsewhere, or nothing."""


@dataclass(frozen=True)
class _Project:
    package: dict[str, object]
    """the fields of package.json that decide the result"""
    lock: dict[str, object]
    scripts: dict[str, object]
    """the project's own scripts that npm ci runs"""


def canonical(blueprint: Blueprint, inputs: Inputs, options: BuildOptions) -> dict[str, object]:
    """What decides the result. Both files count by their content, not by their formatting."""
    project = _read(blueprint, inputs)
    variables = {name: value for name in _variables(_SETTINGS) if (value := inputs.variable(name)) is not None}
    users = [value for name in _variables(["userconfig"]) if (value := inputs.variable(name))]
    home = inputs.variable("HOME") or os.path.expanduser("~")
    files = [users[0] if users else os.path.join(home, ".npmrc"), os.path.join(blueprint.folder, ".npmrc")]
    return {
        "builder": "npm 2",  # counted up when the same blueprint would give another environment
        "package": project.package,
        "lock": project.lock,
        "settings": [setting for file in files for setting in _settings(inputs.optional(file) or b"")],
        "variables": variables | {"NODE_ENV": inputs.variable("NODE_ENV")},
        "node": _node(blueprint.folder, inputs),
        "system": this_system(),
        **({"part": options.subfolder} if options.subfolder else {}),
    }


def packages(document: dict[str, object]) -> None:
    """None: npm ci first removes whatever is there."""


def project(_: Blueprint, __: BuildOptions) -> str:
    """See :mod:`holo.blueprints.builder`."""
    return ""


def build(blueprint: Blueprint, stage: str, options: BuildOptions, log: Log) -> Built:
    """Runs the scripts of packages, as npm does, and the project's own in :data:`_SCRIPTS`."""
    npm = shutil.which("npm")
    if npm is None:
        raise ToolMissing("npm is not on PATH, and package-lock.json is for it", "Install Node.js with npm.")
    inputs = Inputs()
    project = _read(blueprint, inputs)
    for name, content in ("package.json", project.package), ("package-lock.json", project.lock):
        with open(os.path.join(stage, name), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
    # It names the registries, and may hold passwords for them, which must not be recorded.
    npmrc = os.path.join(stage, ".npmrc")
    with open(npmrc, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as copy:
        copy.write(inputs.optional(os.path.join(blueprint.folder, ".npmrc")) or b"")
    environ = {name: value for name, value in os.environ.items() if not _FOREIGN.fullmatch(name)}
    log.run([npm, "ci", "--no-audit", "--no-fund", *_HERE], env=environ, cwd=stage)
    os.unlink(npmrc)
    asked = _asked(project)
    complete.check(asked, [name for name in asked if os.path.exists(os.path.join(stage, "node_modules", name))], log)
    if options.subfolder:
        os.makedirs(os.path.join(stage, options.subfolder), exist_ok=True)  # npm makes none for no packages
    strip_credentials(
        os.path.join(stage, name) for name in ("package.json", "package-lock.json", "node_modules/.package-lock.json")
    )
    package = os.path.join(blueprint.folder, "package.json")
    return Built([f"{package}: no file of the project was there for its script {name!r}" for name in project.scripts])


def _read(blueprint: Blueprint, inputs: Inputs) -> _Project:
    """Read both files. Raises :class:`UsageError` if npm or holo cannot build them."""
    path = os.path.join(blueprint.folder, "package.json")
    if not os.path.lexists(blueprint.path) and os.path.lexists(path):
        raise NotFound(f"there is no {blueprint.path}", "Make it: npm install --package-lock-only")
    lock, package = _object(blueprint.path, inputs), _object(path, inputs)  # first what was named
    packages = lock.get("packages")
    if not isinstance(packages, dict):
        raise UsageError(
            f"{blueprint.path}: there are no 'packages' in it, as there are since npm 7",
            "Bring it up to date: npm install --package-lock-only",
        )
    if package.get("workspaces"):
        raise UsageError(f"{path}: 'workspaces': holo does not build these", _ONLY_PACKAGES)
    for name in _outside(packages):
        raise UsageError(
            f"{blueprint.path}: {name!r} is a folder or a file, not a package of a registry", _ONLY_PACKAGES
        )
    scripts = package.get("scripts")
    chosen = {name: scripts[name] for name in _SCRIPTS if name in scripts} if isinstance(scripts, dict) else {}
    decides = {name: package[name] for name in _FIELDS if name in package}
    root = packages.get("")
    unversioned = {name: value for name, value in root.items() if name != "version"} if isinstance(root, dict) else {}
    return _Project(
        package=decides | ({"scripts": chosen} if chosen else {}),
        lock={name: value for name, value in lock.items() if name != "version"}
        | {"packages": packages | {"": unversioned}},
        scripts=chosen,
    )


def _asked(project: _Project) -> set[str]:
    """The packages that no setting can leave out."""
    needed, optional = (project.package.get(name) for name in ("dependencies", "optionalDependencies"))
    names = {*needed} if isinstance(needed, dict) else set()
    return names - {*optional} if isinstance(optional, dict) else names


_ONLY_PACKAGES = "A space is restored without the folders that these would be links to. Use npm ci in the project."


def _outside(packages: dict[str, object]) -> Iterator[str]:
    """The locked packages that are folders or files of the project, or elsewhere on this machine."""
    for name, entry in packages.items():
        resolved = entry.get("resolved") if isinstance(entry, dict) else None
        local = isinstance(resolved, str) and resolved.startswith("file:")
        if name and (not name.startswith("node_modules/") or local or (isinstance(entry, dict) and entry.get("link"))):
            yield name


def _object(path: str, inputs: Inputs) -> dict[str, object]:
    try:
        found = json.loads(inputs.text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not a JSON object")
    return found


def _variables(settings: Sequence[str]) -> Iterator[str]:
    """The environment variables that npm takes settings from."""
    for setting in settings:
        name = "npm_config_" + setting.replace("-", "_")
        yield name
        yield name.upper()


def _settings(npmrc: bytes) -> Iterator[str]:
    """The settings in a file that decide the result, in their order."""
    for line in npmrc.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if name.strip().removesuffix("[]") in _SETTINGS:
            yield name.strip() + equals + value.strip()


def _node(folder: str, inputs: Inputs) -> str:
    """The major version of Node.js: the interface of native addons changes with it. Raises :class:`ToolMissing`."""
    node = shutil.which("node", path=inputs.variable("PATH"))
    if node is None:
        raise ToolMissing("node is not on PATH, and package-lock.json is for it", "Install Node.js with npm.")
    inputs.watch(os.path.realpath(node))
    try:
        asked = subprocess.run([node, "--version"], cwd=folder, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise HoloError(f"cannot run {node} --version: {error}") from None
    return asked.stdout.decode(errors="replace").strip().partition(".")[0]
