"""uv: where it is, the environment that it runs in, and its configuration, which decides what it installs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from holo.blueprints.blueprint import parse_toml
from holo.blueprints.builder import ToolMissing
from holo.blueprints.inputs import Inputs
from holo.errors import UsageError, beside_holo
from holo.urls import without_secrets
from holo.walk import upwards

Table = dict[str, Any]
"""Of a file in TOML."""

_UV = "uv>=0.8"
"""As the extra ``uv`` has it."""

_FOREIGN = re.compile(
    r"VIRTUAL_ENV|CONDA_PREFIX|CONDA_DEFAULT_ENV|PYTHON(?!_KEYRING).*|PYC_INVALIDATION_MODE"
    r"|UV_(PYTHON|PROJECT_ENVIRONMENT|PROJECT|WORKING_DIR(ECTORY)?|NO_PROJECT|ISOLATED|ACTIVE"
    r"|SYSTEM_PYTHON|BREAK_SYSTEM_PACKAGES|FROZEN|LOCKED|NO_SYNC|(NO|ONLY)_INSTALL_(PROJECT|WORKSPACE|LOCAL)"
    r"|COMPILE_BYTECODE|LINK_MODE|VENV_CLEAR|ENV_FILE|NO_ENV_FILE)"
)
"""Variables that would make uv install elsewhere, or its Python write bytecode elsewhere, or that our options override.

PYTHON_KEYRING_BACKEND is none of them: the keyring may have the passwords of indexes.
"""

_INDECISIVE = re.compile(
    r"UV_(CACHE_DIR|NO_CACHE|CONCURRENT_.*|(UPLOAD_)?HTTP_.*|REQUEST_TIMEOUT|OFFLINE|NATIVE_TLS|SYSTEM_CERTS|NO_PROGRESS"
    r"|NO_COLOR|NO_WRAP|LOG_CONTEXT|STACK_SIZE|LOCK_TIMEOUT|COMPILE_BYTECODE_TIMEOUT|KEYRING_PROVIDER|CREDENTIALS_DIR"
    r"|INSECURE_HOST|PUBLISH_.*|TOOL_.*|INIT_.*|INSTALL_DIR|INSTALLER_.*|GITHUB_TOKEN|HIDE_BUILD_OUTPUT|SHOW_.*"
    r"|INDEX_.*_(USERNAME|PASSWORD)|PYTHON_(DOWNLOADS|CACHE_DIR|INSTALL_.*|BIN_DIR)|PREVIEW.*|NO_MODIFY_PATH|RUN_.*)"
)
"""Variables that decide how uv works, but not the result. All others count, since they might decide it."""

_LISTS_OF_FILES = ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_BUILD_CONSTRAINT", "UV_EXCLUDE")

_YES = ("y", "yes", "t", "true", "on", "1")
"""Values of a variable that mean yes to uv."""

_PLACES = ("UV_FIND_LINKS", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")


def find_uv() -> str:
    """The uv that is installed with holo, else the one on PATH. Raises :class:`ToolMissing`."""
    with suppress(ImportError, FileNotFoundError):
        import uv

        return os.fspath(uv.find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise ToolMissing(
            "Python blueprints are built with uv, which is not installed",
            f"Put it on PATH, or install it beside holo: {beside_holo(_UV)}",
        )
    return found


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment to run uv in, without variables that would lead it elsewhere."""
    kept = {name: value for name, value in environ.items() if not _FOREIGN.fullmatch(name)}
    return {**kept, "PYC_INVALIDATION_MODE": "TIMESTAMP"}


def configuration(folder: str, inputs: Inputs) -> object:
    """The variables and configuration files of uv that decide the result."""
    variables: dict[str, object] = {}
    for name, value in sorted(inputs.variables_with("UV_").items()):
        if _FOREIGN.fullmatch(name) or _INDECISIVE.fullmatch(name) or name == "UV_CONFIG_FILE":
            continue
        variables[name] = without_secrets(value)
        if name in _PLACES and any(map(_is_relative, re.split(r"[\s,]+", value.strip()))):
            variables[name] = [without_secrets(value), folder]
        if name in _LISTS_OF_FILES:
            variables[name] = [inputs.digest(os.path.join(folder, file)) for file in value.split()]
    tables = [_placed(table, os.path.dirname(path)) for path, table in _configurations(folder, inputs)]
    return [variables, counted(tables)]


def refuse_elsewhere(folder: str, inputs: Inputs) -> None:
    """Raise :class:`UsageError` if a file makes ``uv pip`` install elsewhere, which no option overrides."""
    for path, table in _configurations(folder, inputs):
        pip = table.get("pip")
        settings = pip if isinstance(pip, dict) else {}
        for name in settings.keys() & {"target", "prefix"}:
            raise UsageError(
                f"{path}: `{name} = {json.dumps(settings[name], default=str)}` for `uv pip` has packages installed "
                "there, and not in the environment",
                f"Remove it from the file, and use an option where you mean it: `uv pip install --{name} ...`",
            )


def _configurations(folder: str, inputs: Inputs) -> list[tuple[str, Table]]:
    """The files that uv reads settings from, and the settings in each.

    See https://docs.astral.sh/uv/concepts/configuration-files/
    """
    named = inputs.variable("UV_CONFIG_FILE")
    if named:
        path = os.path.join(folder, named)
        return [(path, parse_toml(inputs.text(path), path))]
    if (inputs.variable("UV_NO_CONFIG") or "").lower() in _YES:
        return []
    found = [_nearest_configuration(folder, inputs)]
    for path in shared_configurations(inputs):
        data = inputs.optional(path)
        found.append((path, parse_toml(data.decode("utf-8", "replace"), path)) if data is not None else None)
    return [item for item in found if item is not None]


def counted(settings: object) -> str:
    """Settings as a text that counts in the key."""
    return without_secrets(json.dumps(settings, sort_keys=True, default=str))


def _nearest_configuration(start: str, inputs: Inputs) -> tuple[str, Table] | None:
    for folder in upwards(start):
        own = inputs.optional(path := os.path.join(folder, "uv.toml"))
        if own is not None:
            return path, parse_toml(own.decode("utf-8", "replace"), path)
        project = inputs.optional(pyproject(folder))
        if project is not None and b"tool" in project:
            table = tool_uv(parse_toml(project.decode("utf-8", "replace"), pyproject(folder)))
            if table is not None:
                return pyproject(folder), table
    return None


def _placed(table: Table, folder: str) -> Table:
    """The table, and its folder if it names a path relative to that: ``./wheels`` differs from project to project."""
    pip = table.get("pip")
    tables = [table, pip] if isinstance(pip, dict) else [table]
    values = [one.get(name) for one in tables for name in ("find-links", "index-url", "extra-index-url", "index")]
    for value in values:
        for place in value if isinstance(value, list) else [value]:
            text = place.get("url") if isinstance(place, dict) else place
            if isinstance(text, str) and _is_relative(text):
                return {**table, "": folder}
    return table


def _is_relative(place: str) -> bool:
    return "://" not in place and not os.path.isabs(place)


def shared_configurations(inputs: Inputs) -> list[str]:
    """The paths of the user's and the system's uv.toml."""
    if sys.platform == "win32":
        return [
            os.path.join(inputs.variable("APPDATA") or "", "uv", "uv.toml"),
            os.path.join(inputs.variable("SYSTEMDRIVE") or "C:", "ProgramData", "uv", "uv.toml"),
        ]
    home = inputs.variable("HOME") or os.path.expanduser("~")
    user = inputs.variable("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    shared = (inputs.variable("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    return [os.path.join(place, "uv", "uv.toml") for place in (user, *shared, "/etc")]


def pyproject(folder: str) -> str:
    return os.path.join(folder, "pyproject.toml")


def tool_uv(document: Table) -> Table | None:
    tool = document.get("tool")
    table = tool.get("uv") if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else None
