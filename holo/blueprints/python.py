"""Build Python environments with uv: from requirements.txt, pyproject.toml with or without uv.lock, PEP 723 scripts.

An environment contains what a project depends on. If the project is locked, it is installed itself, editable, with the
other packages in its folders: their sources stay where they are, and change.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from holo import digest as digests
from holo import platform
from holo.blueprints import complete, in_place, requirements
from holo.blueprints.blueprint import NO_PROJECT, WAYS, Blueprint
from holo.blueprints.blueprint import parse_toml as _toml
from holo.blueprints.builder import BuildOptions, Built, Packages
from holo.blueprints.canonical import this_system
from holo.blueprints.credentials import strip_package_credentials
from holo.blueprints.inputs import Inputs
from holo.blueprints.log import Log
from holo.blueprints.uv import (
    Table,
    configuration,
    counted,
    environment,
    find_uv,
    pyproject,
    refuse_elsewhere,
    shared_configurations,
    tool_uv,
)
from holo.errors import HoloError, UsageError, hints
from holo.platform import probe
from holo.projects import project_of
from holo.relocation import leads_into
from holo.urls import hidden

_FACTS = (
    "import json, sys; print(json.dumps([sys.implementation.name, sys.version, "
    "sys.implementation.cache_tag, getattr(sys, 'abiflags', ''), sys.base_prefix]))"
)
"""The properties of an interpreter that decide which packages fit it."""

# -- what decides the result ----------------------------------------------------------------------------------------


def canonical(blueprint: Blueprint, inputs: Inputs, options: BuildOptions) -> dict[str, object]:
    """See :mod:`holo.blueprints.builder`."""
    content = _READERS[blueprint.kind](blueprint, inputs)
    itself = _itself(blueprint, inputs, options)
    editable = {"project": itself.canonical(inputs)} if itself.packages else {}
    return {
        **editable,
        "builder": "uv 2",  # counted up when the same blueprint would give another environment
        "system": this_system(),
        "content": content,
        "configuration": configuration(blueprint.folder, inputs),
        "python": _interpreter(blueprint, inputs)[1],
        "compile": options.compile,
    }


def _requirements(blueprint: Blueprint, inputs: Inputs) -> object:
    refuse_elsewhere(blueprint.folder, inputs)
    return requirements.read(blueprint.path, inputs).canonical()


def _script(blueprint: Blueprint, inputs: Inputs) -> object:
    """The metadata of a script (https://peps.python.org/pep-0723/), and its lock, which ``uv lock --script`` makes."""
    found = script_metadata(inputs.text(blueprint.path), blueprint.path)
    _refuse_local_sources(found, blueprint.path)
    wanted = {name: found.get(name) for name in ("requires-python", "tool")}
    wanted["tool"] = counted(tool_uv(found))
    dependencies = requirements.of_lines(_texts(found, "dependencies", blueprint.path), blueprint.path, inputs)
    return [wanted, dependencies.canonical(), _lock(blueprint.path + ".lock", inputs)]


def script_metadata(text: str, path: str) -> Table:
    """The ``script`` block of a script, read as the specification says."""
    text = text.replace("\r\n", "\n")
    pattern = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    blocks = [found["content"] for found in re.finditer(pattern, text) if found["type"] == "script"]
    if len(blocks) != 1:
        raise UsageError(f"{path} has {len(blocks)} blocks of script metadata instead of one (PEP 723)")
    lines = (line[2:] if line.startswith("# ") else line[1:] for line in blocks[0].splitlines())
    return _toml("\n".join(lines), path)


def _project(blueprint: Blueprint, inputs: Inputs) -> object:
    """The dependencies of a project, or its lock.

    The versions of packages that are not installed, such as the project itself, do not matter.
    """
    document = _toml(inputs.text(blueprint.path), blueprint.path)
    project = document.get("project")
    if not isinstance(project, dict):
        raise UsageError(
            f"{blueprint.path} has no [project], so it lists no dependencies",
            f"{NO_PROJECT}.",
        )
    root = _workspace(blueprint.folder, inputs)
    if root is None:
        refuse_elsewhere(blueprint.folder, inputs)
        _refuse_local_sources(document, blueprint.path)
        if "dependencies" in project.get("dynamic", ()):
            raise UsageError(
                f"{blueprint.path}: the dependencies are dynamic, so holo cannot tell what decides them",
                "Lock them: run `uv lock` in the project.",
            )
    wanted = {name: project.get(name) for name in ("requires-python", "dependencies", "optional-dependencies")}
    groups = document.get("dependency-groups")
    if root is None:
        dependencies = requirements.of_lines(
            _texts(project, "dependencies", blueprint.path), blueprint.path, inputs
        ).canonical()
        return [wanted["requires-python"], dependencies, groups, counted(tool_uv(document))]
    lock = _lock(os.path.join(root, "uv.lock"), inputs)
    shared = None if root == blueprint.folder else tool_uv(_toml(inputs.text(pyproject(root)), pyproject(root)))
    return [project.get("name"), wanted, groups, counted(tool_uv(document)), counted(shared), lock]


def _workspace(folder: str, inputs: Inputs) -> str | None:
    """The folder whose ``uv.lock`` is that of the project in ``folder``; ``None`` if it has none.

    In a workspace that is the root's, and uv never looks at a member's own. As uv finds the root: the first
    pyproject.toml above decides (https://docs.astral.sh/uv/concepts/projects/workspaces/).
    """
    root = above = folder
    while _shape(above, inputs) is None and (parent := os.path.dirname(above)) != above:
        above = parent
        if inputs.optional(pyproject(above)) is not None:
            workspace = _shape(above, inputs)
            if workspace is not None and _is_member(folder, above, workspace):
                root = above
            break
    return root if inputs.optional(os.path.join(root, "uv.lock")) is not None else None


def _shape(root: str, inputs: Inputs) -> Table | None:
    """The ``[tool.uv.workspace]`` of a folder; ``None`` if it is not the root of a workspace."""
    data = inputs.optional(pyproject(root))
    if data is None or b"workspace" not in data:
        return None
    found = (tool_uv(_toml(data.decode("utf-8", "replace"), pyproject(root))) or {}).get("workspace")
    return found if isinstance(found, dict) else None


def _is_member(folder: str, root: str, workspace: Table) -> bool:
    """Whether uv considers a folder a member of the workspace at ``root``."""
    path, where = os.path.relpath(folder, root), pyproject(root)
    members = map(os.path.normpath, _texts(workspace, "members", where))
    excluded = map(os.path.normpath, _texts(workspace, "exclude", where))
    # uv looks for members on the disk, where a star ends at a slash; that of an exclusion does not.
    return any(_fits(path, glob) for glob in members) and not any(
        fnmatchcase(path, glob) or _fits(path, glob) for glob in excluded
    )


def _fits(path: str, glob: str) -> bool:
    """Whether a glob matches a path, part by part. Follows all ways to match at once, so that no glob takes long."""
    parts, globs = path.split(os.sep), glob.split(os.sep)
    reached = {0}
    for part in parts:
        reached = _past_stars(reached, globs)
        stay = {number for number in reached if globs[number : number + 1] == ["**"]}
        reached = stay | {
            number + 1 for number in reached - stay if number < len(globs) and fnmatchcase(part, globs[number])
        }
    return len(globs) in _past_stars(reached, globs)


def _past_stars(reached: set[int], globs: list[str]) -> set[int]:
    """The positions ``reached``, and those that follow if each ``**`` matches nothing."""
    found = set(reached)
    for number, glob in enumerate(globs):
        if glob == "**" and number in found:
            found.add(number + 1)
    return found


def _lock(path: str, inputs: Inputs) -> object:
    data = inputs.optional(path)
    if data is None:
        return None
    document = _toml(data.decode("utf-8", "replace"), path)
    for package in _locked_packages(document):
        if _is_local(package):
            package.pop("version", None)
    return document


def _locked_packages(lock: Table) -> list[Table]:
    found = lock.get("package", [])
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _is_local(package: Table) -> bool:
    """Whether a locked package is built from a folder of sources."""
    source = package.get("source")
    return isinstance(source, dict) and not source.keys().isdisjoint({"editable", "virtual", "directory"})


# -- the project itself ---------------------------------------------------------------------------------------------


class _Local(NamedTuple):
    """A locked package that is built from a folder."""

    name: str
    path: str
    is_editable: bool
    """whether uv installs it so by itself"""

    def is_in(self, names: Collection[str]) -> bool:
        return requirements.normalized(self.name) in names


class _Itself(NamedTuple):
    """A project, and how much of it is installed."""

    root: str
    """the folder that moves with a checkout: that of the lock, or the project around it if packages lie there;
    empty if nothing of it is installed"""
    lock: str
    """the folder of the lock"""
    packages: list[_Local]
    """those to install, editable"""
    left_out: list[str]
    """the names of those that are not installed"""

    def canonical(self, inputs: Inputs) -> object:
        """What decides how the packages are installed, wherever the root is."""
        found = [
            [one.name, one.is_editable, os.path.relpath(one.path, self.root), _settings_in(one.path, inputs)]
            for one in self.packages
        ]
        return [os.path.relpath(self.lock, self.root), found]


def _itself(blueprint: Blueprint, inputs: Inputs, options: BuildOptions) -> _Itself:
    lock = _workspace(blueprint.folder, inputs) if blueprint.kind == "pyproject" else None
    if lock is None:
        return _Itself("", "", [], [])
    lock = os.path.realpath(lock)  # as uv and the build backends name it in what they install
    path = os.path.join(lock, "uv.lock")
    found = [_local(package, lock) for package in _locked_packages(_toml(inputs.text(path), path))]
    local = [one for one in found if one is not None]
    around = project_of(path) or lock
    inside = [one for one in local if leads_into(one.path, around)] if options.editable_project else []
    root = lock if all(leads_into(one.path, lock) for one in inside) else around
    left_out = sorted(one.name for one in local if one not in inside)
    return _Itself(root if inside else "", lock, inside, left_out)


def _local(package: Table, lock: str) -> _Local | None:
    """A locked package that is built from a folder; ``None`` for any other, and for what uv never installs."""
    source = package.get("source")
    for kind in ("editable", "directory"):
        if isinstance(source, dict) and isinstance(source.get(kind), str):
            place = os.path.normpath(os.path.join(lock, source[kind]))
            return _Local(str(package.get("name")), place, kind == "editable")
    return None


_OF_OTHER_TOOLS = frozenset(
    {"bandit", "basedpyright", "black", "codespell", "coverage", "flake8", "holo", "isort", "mypy", "nox", "pylint"}
    | {"pyright", "pytest", "ruff", "towncrier", "tox", "ty", "uv", "vulture"}
)
"""Tables of ``[tool]`` that no build backend reads."""


def _settings_in(folder: str, inputs: Inputs) -> object:
    """What a build backend reads of a package's folder. As for uv, its modules do not count."""
    data = inputs.optional(pyproject(folder))
    document = _toml(data.decode("utf-8", "replace"), pyproject(folder)) if data is not None else {}
    tool = document.get("tool")
    tables = tool.items() if isinstance(tool, dict) else ()
    read = {name: value for name, value in tables if name not in _OF_OTHER_TOOLS}
    scripts = [inputs.optional(os.path.join(folder, name)) for name in ("setup.py", "setup.cfg")]
    return [
        counted([document.get("project"), document.get("build-system"), read]),
        [digests.of(script) if script is not None else None for script in scripts],
        os.path.isdir(os.path.join(folder, "src")),
        _modules_in(folder) if _is_for_setuptools(document) else None,
    ]


def _is_for_setuptools(document: Table) -> bool:
    """Whether a package is built by setuptools: its editable installs list the top modules that they found."""
    system = document.get("build-system")
    backend = system.get("build-backend") if isinstance(system, dict) else None
    return backend is None or str(backend).startswith("setuptools")


def _modules_in(folder: str) -> list[str]:
    """The names of modules and packages in a folder."""
    names = _listed(folder)
    return [
        name
        for name in names
        if name.endswith(".py") or any(inner.endswith(".py") for inner in _listed(os.path.join(folder, name)))
    ]


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # it is a file, say
        return []


def _refuse_local_sources(document: Table, path: str) -> None:
    sources = (tool_uv(document) or {}).get("sources", {})
    for name, source in sources.items() if isinstance(sources, dict) else ():
        for one in source if isinstance(source, list) else [source]:
            if isinstance(one, dict) and not one.keys().isdisjoint({"path", "workspace"}):
                raise UsageError(
                    f"{path}: {name} comes from a folder, which is not recorded in a blueprint",
                    "Lock the project (`uv lock`): then everything else is installed. Or name a wheel.",
                )


def _interpreter(blueprint: Blueprint, inputs: Inputs) -> tuple[str, list[str]]:
    """The interpreter that uv chooses for a blueprint, and what counts of it.

    Its path does, because the environment contains it.
    """
    folder = place = blueprint.folder
    places = [os.path.dirname(shared_configurations(inputs)[0])]  # `uv python pin --global`
    while place not in places:
        places.append(place)
        place = os.path.dirname(place)
    for place in places:  # uv looks for these in all of them
        for name in (".python-version", ".python-versions"):
            inputs.optional(os.path.join(place, name))
    chosen: object = inputs.variable("UV_PYTHON")  # `uv python find` ignores it
    options = []
    if blueprint.kind == "script":
        chosen = chosen or script_metadata(inputs.text(blueprint.path), blueprint.path).get("requires-python")
        options = ["--no-project"]
    wanted = [*options, *([str(chosen)] if chosen else [])]
    environ = environment(inputs.environ)
    inputs.variable("PATH")
    inputs.watch(_answer([find_uv(), "python", "dir"], environ, folder))  # uv prefers what it has installed
    path = _answer([find_uv(), "python", "find", "--system", "--resolve-links", *wanted], environ, folder)
    inputs.watch(path)
    facts = _answer([path, "-I", "-S", "-c", _FACTS], environ, folder)
    return path, [path, facts]


def _answer(command: list[str], environ: Mapping[str, str], folder: str) -> str:
    """The output of a program. Raises :class:`HoloError` with the end of its error output."""
    done = subprocess.run(command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace")
        cause = " ".join(hidden(words[words.rfind("error:") + 6 :] if "error:" in words else words).split())
        raise HoloError(
            f"no Python for the blueprint in {folder}: {cause}",
            "Install one: `uv python install VERSION`; or choose one with UV_PYTHON or .python-version.",
        )
    return done.stdout.decode(errors="surrogateescape").strip()


def _texts(table: Table, name: str, path: str) -> list[str]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise UsageError(f"{path}: {name} must be a list of texts")
    return found


_READERS: dict[str, Callable[[Blueprint, Inputs], object]] = {
    "requirements": _requirements,
    "pyproject": _project,
    "script": _script,
}


def project(blueprint: Blueprint, options: BuildOptions) -> str:
    """See :mod:`holo.blueprints.builder`."""
    return _itself(blueprint, Inputs(), options).root


def packages(document: dict[str, Any]) -> Packages | None:
    """See :mod:`holo.blueprints.builder`."""
    content = document["content"]
    lines = _lines_of(content)
    if "UV_VENV_SEED" in json.dumps(document["configuration"]) or not lines:
        return None  # uv would remove pip, which it has put there
    base = [document[name] for name in ("builder", "system", "python", "compile", "configuration")]
    return Packages([*base, sorted(_sources_of(content))], sorted(lines))


def _lines_of(content: Any) -> set[str]:
    """The requirements, or the locked packages, wherever they are in a canonical document."""
    if isinstance(content, list):
        return {line for item in content for line in _lines_of(item)}
    if not isinstance(content, dict):
        return set()
    found = {f"{item.get('name')}=={item.get('version')}" for item in _locked_packages(content)}
    return found | {line for line in content.get("requirements", ()) if isinstance(line, str)}


def _sources_of(content: Any) -> set[str]:
    """Where the packages come from, and how they are made.

    uv keeps a package with the wanted version, whatever index, file or option it was installed with.
    """
    if isinstance(content, list):
        return {source for item in content for source in _sources_of(item)}
    if not isinstance(content, dict):
        return set()
    found: list[object] = [content.get(name) for name in ("tool", "options", "variables", "files")]
    lines = [line for name in ("requirements", "constraints", "included") for line in content.get(name, ())]
    found += [line for line in lines if " @ " in line]
    for package in _locked_packages(content):
        if not _is_local(package):
            source = package.get("source")
            found.append(source if isinstance(source, dict) and "registry" in source else package)
    return {json.dumps(item, sort_keys=True, default=str) for item in found if item}


# -- building -------------------------------------------------------------------------------------------------------


def build(blueprint: Blueprint, stage: str, options: BuildOptions, log: Log) -> Built:
    """See :mod:`holo.blueprints.builder`."""
    uv = find_uv()
    inputs = Inputs()
    python, _ = _interpreter(blueprint, inputs)
    environ = environment(os.environ) | {"UV_LINK_MODE": _link_mode(os.path.dirname(stage))}
    place = os.path.join(stage, "Scripts" if sys.platform == "win32" else "bin", "python")
    compiled = ["--compile-bytecode"] if options.compile else ["--no-compile-bytecode"]

    def run(*arguments: str, **variables: str) -> None:
        log.run([uv, *arguments], env=environ | variables, cwd=blueprint.folder)

    exact = []
    if os.listdir(stage):
        exact = ["--upgrade", "--exact"]  # resolved and installed as if nothing were there
    else:
        # Without a prompt: activation scripts show the name of the folder they are in.
        run("venv", "--quiet", "--no-project", "--python", python, "--prompt", "", stage)
    built = Built()
    if blueprint.kind == "requirements":
        run("pip", "install", "--python", place, *compiled, *exact, "--requirements", blueprint.path)
    elif blueprint.kind == "script":
        locked = ["--locked"] if os.path.exists(blueprint.path + ".lock") else []
        run("sync", "--script", blueprint.path, "--active", "--python", python, *locked, *compiled, VIRTUAL_ENV=stage)
    elif _workspace(blueprint.folder, inputs) is None:
        groups = [part for group in _default_groups(blueprint, inputs) for part in ("--group", group)]
        run("pip", "install", "--python", place, *compiled, *exact, "--requirements", blueprint.path, *groups)
        built = Built([*_without_lock(blueprint, inputs, options)])
    else:
        itself = _itself(blueprint, inputs, options)
        before = in_place.sources(one.path for one in itself.packages)
        # Not as uv has built it before: then nothing would be made in the project now.
        anew = [part for one in itself.packages for part in ("--reinstall-package", one.name)]
        left_out = [part for name in itself.left_out for part in ("--no-install-package", name)]
        try:
            run("sync", "--locked", *left_out, *anew, "--python", python, *compiled, UV_PROJECT_ENVIRONMENT=stage)
        except HoloError as error:
            way_out = "If the project itself is what cannot be built: --no-editable-project leaves it out."
            raise HoloError(error.message, hints(error.hint, way_out) if itself.packages else error.hint) from None
        there = complete.distributions(stage)
        # What the lock takes from a folder as it is now is to change with that folder, too.
        copied = [one.path for one in itself.packages if not one.is_editable and one.is_in(there)]
        if copied:
            run("pip", "install", "--python", place, "--no-deps", *(part for path in copied for part in ("-e", path)))
        made = in_place.made(before, in_place.sources(one.path for one in itself.packages))
        names = {requirements.normalized(one.name) for one in itself.packages}
        is_own = made or in_place.copies_code(stage, names)
        warnings = [f"not installed, because it is built from a folder of sources: {name}" for name in itself.left_out]
        built = Built(warnings, made if is_own else None)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(stage, ".lock"))  # uv's own, while it installs
    _check(blueprint, inputs, stage, log)
    strip_package_credentials(stage)
    return built


def _without_lock(blueprint: Blueprint, inputs: Inputs, options: BuildOptions) -> Iterator[str]:
    """Warnings about what a project without a ``uv.lock`` does not get."""
    for name in ("poetry.lock", "pdm.lock"):
        path = os.path.join(blueprint.folder, name)
        if os.path.exists(path):
            yield f"{path} is not followed, so versions are the newest that fit. {WAYS[name]}"
    if options.editable_project and "build-system" in _toml(inputs.text(blueprint.path), blueprint.path):
        what = f"the project in {blueprint.folder} is not installed itself, because it has no uv.lock"
        yield f"{what}: `uv lock` makes one. --no-editable-project does without"


_LEAVES_OUT = re.compile("override-dependencies|exclude-dependencies|UV_OVERRIDE|UV_EXCLUDE(?!_NEWER)")
"""Settings that can leave out a package that the blueprint asks for."""


def _check(blueprint: Blueprint, inputs: Inputs, stage: str, log: Log) -> None:
    """Raise :class:`HoloError` if a package that the blueprint asks for is not there."""
    asked, there = _asked(blueprint, inputs), complete.distributions(stage)
    if asked & there and not asked <= there:
        settings = [_READERS[blueprint.kind](blueprint, inputs), configuration(blueprint.folder, inputs)]
        if _LEAVES_OUT.search(json.dumps(settings, default=str)):
            return
    complete.check(asked, there, log)


def _asked(blueprint: Blueprint, inputs: Inputs) -> set[str]:
    """The packages that a blueprint asks for on any system."""
    path, not_installed = blueprint.path, set[str]()
    if blueprint.kind == "requirements":
        lines = sorted(requirements.read(path, inputs).requirements)
    elif blueprint.kind == "script":
        lines = _texts(script_metadata(inputs.text(path), path), "dependencies", path)
    else:
        project = _toml(inputs.text(path), path)["project"]
        lines = _texts(project, "dependencies", path)
        not_installed = {requirements.normalized(str(project.get("name")))}  # which may name its own extras
        if (root := _workspace(blueprint.folder, inputs)) is not None:
            not_installed.update(_local_packages(os.path.join(root, "uv.lock"), inputs))
    return {name for line in lines if (name := requirements.distribution(line)) is not None} - not_installed


def _default_groups(blueprint: Blueprint, inputs: Inputs) -> list[str]:
    """The groups that `uv sync` installs: https://docs.astral.sh/uv/concepts/projects/dependencies/#default-groups"""
    document = _toml(inputs.text(blueprint.path), blueprint.path)
    groups = document.get("dependency-groups")
    table = tool_uv(document) or {}
    there = {"dev"} if table.get("dev-dependencies") else set()  # the form from before there were groups
    there |= groups.keys() if isinstance(groups, dict) else set()
    chosen = table.get("default-groups", ["dev"])
    if not isinstance(chosen, list):  # "all"; uv refuses anything else
        return sorted(there)
    named = {requirements.normalized(str(name)) for name in chosen}
    return sorted(name for name in there if requirements.normalized(name) in named)


def _local_packages(lock: str, inputs: Inputs) -> list[str]:
    packages = _locked_packages(_toml(inputs.text(lock), lock))
    return sorted(str(package.get("name")) for package in packages if _is_local(package))


def _link_mode(folder: str) -> str:
    """How uv is to get files from its cache.

    By default it hardlinks where it cannot clone. Whoever links the same files meanwhile would change their inodes
    while they are recorded.
    """
    directory = platform.open_root(folder)
    try:
        return "clone" if probe.reflink(directory, directory) is None else "copy"
    except OSError:
        return "copy"
    finally:
        platform.close_directory(directory)
