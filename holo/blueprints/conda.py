"""Build conda.yaml and environment.yml with the tool that is installed."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from holo import activation
from holo.blueprints import complete, conda_file, requirements
from holo.blueprints.builder import Built, ToolMissing
from holo.blueprints.canonical import this_system
from holo.blueprints.credentials import strip_credentials, strip_package_credentials
from holo.blueprints.inputs import Inputs
from holo.blueprints.uv import configuration, environment, refuse_elsewhere
from holo.errors import Conflict, HoloError, UsageError, beside_holo
from holo.owners import is_ours
from holo.urls import without_queries, without_secrets

if TYPE_CHECKING:
    from holo.blueprints.blueprint import Blueprint
    from holo.blueprints.builder import BuildOptions
    from holo.blueprints.conda_file import CondaFile
    from holo.blueprints.log import Log

_TOOLS = ("micromamba", "mamba", "conda")
"""The quickest first. Any of them comes before py-rattler, as they read the user's .condarc: mirrors, credentials."""

_RATTLER = "py-rattler>=0.28,<0.29"
"""As the extra ``conda`` has it."""

_PIPS = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONSTRAINT"),
    *("PIP_PRE", "PIP_NO_DEPS", "PIP_NO_BINARY", "PIP_ONLY_BINARY", "PIP_PREFER_BINARY"),
)
"""Variables that decide what pip installs."""

_INCLUDE = re.compile(r"(-r|-c|--requirement|--constraint)[\s=]*(?=[^\s=])")

_SETTINGS = {
    "ALWAYS_COPY": "true",  # commands change files in the stage, which must not be the cache's
    "CHANNEL_PRIORITY": "strict",  # the default of one is not that of the other
    "DRY_RUN": "false",
    "DOWNLOAD_ONLY": "false",
    "REGISTER_ENVS": "false",  # the stage is gone when somebody wants a list of environments,
    "SHORTCUTS": "false",  # or clicks on one
}

_TOKEN = re.compile(r"/t/[^/]+(?=/)")
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^\s\"'\\]+")

_FOREIGN = re.compile("VIRTUAL_ENV.*|CONDA_.*|PIP_(TARGET|PREFIX|ROOT|PYTHON|REPORT|REQUIREMENT|EDITABLE)")
"""Variables that would make commands use another environment, or install into it, besides those for uv."""

_BYTECODE = ("PYTHONPYCACHEPREFIX", "PYTHONOPTIMIZE", "PYTHONDONTWRITEBYTECODE")
"""Variables that would make the Python of a package's script write its bytecode elsewhere, or other bytecode."""

_PIPS_OWN = {"PIP_USER": "0", "PIP_DRY_RUN": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
"""Variables, because these override pip's configuration files."""

_ELSEWHERE = re.compile(r"(?:global|install)\.(?:target|prefix|root|python)=.*")
"""Settings in these files that no variable overrides."""


def canonical(blueprint: Blueprint, inputs: Inputs, options: BuildOptions) -> dict[str, object]:
    """What decides the result. The tool does not: all of them get the same instructions."""
    found = conda_file.parse(inputs.text(blueprint.path), blueprint.path)
    return {
        "builder": "conda 2",  # counted up when the same blueprint would give another environment
        "channels": [_TOKEN.sub("", without_secrets(channel)) for channel in found.channels],
        "specs": [_TOKEN.sub("", without_secrets(spec)) for spec in found.specs],
        "pip": requirements.of_lines(found.pip, f"{blueprint.path}, pip", inputs).canonical(),
        "pip variables": _installer(found, blueprint.folder, inputs) if found.pip else None,
        "variables": found.variables,
        "rccPostInstall": found.post_install,
        # What the tools are told about this system, instead of what they detect.
        "overrides": [inputs.variable("CONDA_SUBDIR") or "", inputs.variables_with("CONDA_OVERRIDE_")],
        "system": this_system(),
        "compile": options.compile,
    }


def _installer(found: CondaFile, folder: str, inputs: Inputs) -> list[object]:
    """What else decides which packages pip installs for its lines, or uv if the environment has it."""
    variables = {name: without_secrets(inputs.variable(name) or "") for name in _PIPS}
    limits = [path for path in variables["PIP_CONSTRAINT"].split() if "://" not in path]
    contents = [inputs.digest(os.path.join(folder, path)) for path in limits]
    if "uv" in found.names():
        refuse_elsewhere(folder, inputs)
    return [variables, contents, configuration(folder, inputs) if "uv" in found.names() else None]


def packages(document: dict[str, object]) -> None:
    """None: pip keeps any version that fits, so the result would depend on the environment it began from."""


def project(_: Blueprint, __: BuildOptions) -> str:
    """See :mod:`holo.blueprints.builder`."""
    return ""


def build(blueprint: Blueprint, stage: str, options: BuildOptions, log: Log) -> Built:
    """Install the packages; then, in the activated environment, run pip and RCC's commands."""
    found = conda_file.parse(Inputs().text(blueprint.path), blueprint.path)
    name, command = _create(found, stage)
    if name in _TOOLS:
        os.rmdir(stage)  # some of them refuse a folder that is no environment, even if nothing is in it
    log.run(command, env=_tool_environment(), cwd=os.path.dirname(stage), name=name)
    if not os.path.isdir(os.path.join(stage, "conda-meta")):
        raise HoloError(f"the build failed: there is no environment at {stage}", f"Its log: {log.path}")
    if not is_ours(os.lstat(stage)):
        raise Conflict(f"another user has put something at {stage} while {name} ran", "Do not trust them.")
    complete.check(found.packages(), complete.conda_packages(stage), log)
    environ = _activate(stage, found.variables, log)
    if found.pip:
        _pip(found, stage, blueprint.folder, environ, log)
    for text in found.post_install:
        log.run(_found(shlex.split(text), environ), env=environ, cwd=stage, name=f"rccPostInstall: {text!r}")
    python = _python(stage)
    if options.compile and os.path.exists(python):
        log.run([python, "-I", "-c", _COMPILE], env=environ, cwd=stage)
    _strip_credentials(stage)
    return Built([f"{blueprint.path}: {key!r} is not a key that holo knows, so it is ignored" for key in found.unknown])


# Files that cannot be compiled, such as templates, are skipped. Not every tool compiles what it installs.
_COMPILE = """
import compileall, sysconfig
for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
    compileall.compile_dir(path, quiet=2, workers=0)
"""


def _create(found: CondaFile, stage: str) -> tuple[str, list[str]]:
    """A tool's name and the command that installs the packages with it. Raises :class:`ToolMissing`.

    The options are those that all three have; the others are variables, see :func:`_tool_environment`.
    """
    for name in _TOOLS:
        if tool := shutil.which(name):
            channels = [word for channel in found.channels for word in ("--channel", channel)]
            defaults = ["--no-default-packages"] if name == "conda" else []
            start = [tool, "create", "--yes", "--prefix", stage, *defaults, "--override-channels"]
            return name, [*start, *channels, *found.specs]
    if find_spec("rattler") is None:
        raise ToolMissing(
            "there is no tool that builds conda environments: micromamba, mamba, conda or py-rattler",
            f"Put one on PATH, or install the last beside holo: {beside_holo(_RATTLER)}",
        )
    # -P: what lies in the current directory is not to be imported.
    program = [sys.executable, "-P", "-X", "utf8", "-m", "holo.blueprints.rattler"]
    return "py-rattler", [*program, stage, *found.channels, "--", *found.specs]


def _tool_environment() -> dict[str, str]:
    """Variables for settings of conda and mamba, which all of them have: https://docs.conda.io, "Settings"."""
    own = {name: value for name, value in os.environ.items() if name not in _BYTECODE}
    return own | {f"{tool}_{name}": value for tool in ("CONDA", "MAMBA") for name, value in _SETTINGS.items()}


def _activate(stage: str, variables: dict[str, str], log: Log) -> dict[str, str]:
    """The variables of the activated environment. What its packages and its file set is kept in conda-meta/state.

    That is where conda keeps such variables, and where :mod:`holo.activation` finds them, so a space needs
    no shell that runs the packages' scripts. They run in an environment of their own: nothing of the
    caller's gets into what is recorded.
    """
    state, dump = os.path.join(stage, "conda-meta", "state"), os.path.join(stage, ".variables.json")
    if os.name == "posix" and os.path.isdir(os.path.join(stage, "etc", "conda", "activate.d")):
        clean = {name: os.environ[name] for name in ("HOME", "LANG", "USER") if name in os.environ}
        before = activation.apply(activation.variables(stage, "base", {"PATH": os.defpath}), clean)
        shell = shutil.which("bash") or "/bin/sh"  # scripts are tested with the former
        command = [shell, "-c", _SCRIPT, shell, sys.executable, "-I", "-X", "utf8", "-c", _DUMP, dump]
        log.run(command, env=before, cwd=stage, name="activation")
        try:
            with open(dump, encoding="utf-8") as file:
                after = json.load(file)
            os.unlink(dump)
        except FileNotFoundError:
            raise HoloError("the build failed: a script in etc/conda/activate.d ends the shell") from None
        changed = {name: value for name, value in after.items() if before.get(name) != value}
        variables = {name: changed[name] for name in sorted(changed) if name not in _SHELLS_OWN} | variables
    if variables:
        with open(state, "w", encoding="utf-8") as file:
            json.dump({"version": 1, "env_vars": variables}, file, indent=2)
    own = {name: value for name, value in environment(os.environ).items() if not _FOREIGN.fullmatch(name)} | _PIPS_OWN
    environ = activation.apply(activation.variables(stage, os.path.basename(stage), own), own)
    return environ | {"PYTHONNOUSERSITE": "1"}


_SCRIPT = (
    'for script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do [ ! -e "$script" ] || . "$script"; done; exec "$@"'
)
_DUMP = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w', encoding='utf-8', errors='replace'))"
_SHELLS_OWN = ("PATH", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE")
"""Variables that the shell sets for itself, and the one that Python does where there is no locale: PEP 538."""


def _pip(found: CondaFile, stage: str, folder: str, environ: dict[str, str], log: Log) -> None:
    """Install the lines below ``pip:``, with uv if the environment has it, as RCC does."""
    python = _python(stage)
    if not os.path.exists(python):
        raise HoloError(
            "the build failed: there are packages for pip, but no python in the environment",
            "Add python to the dependencies.",
        )
    lines = os.path.join(stage, ".requirements.txt")
    with open(lines, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.writelines(_absolute(line, folder) + "\n" for line in found.pip)
    if uv := shutil.which("uv", path=os.path.join(stage, "Scripts" if os.name == "nt" else "bin")):
        install = [uv, "pip", "install", "--python", python, "--link-mode", "copy"]
    else:
        # -I: neither what lies in the current directory nor what is in the user's own site-packages counts.
        pip = [python, "-I", "-m", "pip", "--disable-pip-version-check"]
        _refuse_elsewhere([*pip, "config", "list"], environ, folder)
        install = [*pip, "install", "--no-input"]
    log.run([*install, "--requirement", lines], env=environ, cwd=folder)
    os.unlink(lines)
    asked = {name for line in found.pip if (name := requirements.distribution(line)) is not None}
    complete.check(asked, complete.distributions(stage), log)


def _refuse_elsewhere(command: list[str], environ: dict[str, str], folder: str) -> None:
    """Raise :class:`UsageError` if pip's configuration files, which it lists, have it install elsewhere."""
    listed = subprocess.run(
        command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    for line in listed.stdout.decode(errors="replace").splitlines():
        if _ELSEWHERE.fullmatch(line):
            raise UsageError(
                f"a configuration file of pip has packages installed elsewhere: {line}",
                "Remove it, and use an option where you mean it: `pip install --target ...`. "
                "`pip config debug` shows which file it is in.",
            )


def _strip_credentials(stage: str) -> None:
    folder = os.path.join(stage, "conda-meta")
    notes = [os.path.join(folder, "history"), *glob.glob(os.path.join(glob.escape(folder), "*.json"))]
    strip_credentials(notes, lambda text: _URL.sub(lambda url: _TOKEN.sub("", without_queries(url[0])), text))
    strip_package_credentials(stage)


def _python(stage: str) -> str:
    return os.path.join(stage, "python.exe" if os.name == "nt" else "bin/python")


def _absolute(line: str, folder: str) -> str:
    """A line of requirements, with the path of a file that it includes made absolute: the line itself moves."""
    option = _INCLUDE.match(line)
    return f"{option[1]} {shlex.quote(os.path.join(folder, line[option.end() :].strip()))}" if option else line


def _found(command: list[str], environ: dict[str, str]) -> list[str]:
    """The command, with its program found on the environment's PATH instead of the caller's."""
    program = shutil.which(command[0], path=environ["PATH"])
    if program is None:
        raise HoloError(
            f"the build failed: rccPostInstall: there is no command {command[0]!r}",
            "Add the package that it comes from to the dependencies.",
        )
    return [program, *command[1:]]
