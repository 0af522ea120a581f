"""Measure blueprints: a space of a known one beside `uv sync`, the first import with and without bytecode, and a build
that begins from another. Linux, as root, with a package index; `README.md` says what came out."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from commands import HERE, Tools
from filesystems import Filesystem, mounted
from measure import Case, alternate, execute, nothing
from program import GIGABYTE, heading, note, parser, run, table

BASE = "pandas"
MORE = "tabulate"
IMAGE = 8 * GIGABYTE

CLAIMS = (
    ("new .venv of a worktree", "uv sync --compile-bytecode"),
    ("new .venv of a worktree", "uv sync"),
    ("new .venv of a worktree", "uv sync --link-mode=copy"),
    ("new space of a known blueprint", "uv sync"),
    ("run --blueprint, unchanged", "run --space"),
    ("first import pandas, compiled", "first import pandas, --no-compile"),
    ("build with one more line, from a layer", "build with one more line, from nothing"),
)


class Builds:
    """The commands on one filesystem, with a home, a cache of uv's and a project there."""

    def __init__(self, tools: Tools, filesystem: Filesystem) -> None:
        self._holo, self._uv = tools.holo, tools.uv
        self._filesystem = filesystem
        root = filesystem.root
        self._environment = tools.environment | {
            "HOLO_SETTINGS": os.devnull,
            "HOLO_HOME": str(root / "home"),
            "UV_CACHE_DIR": str(root / "uv-cache"),
        }
        self._nothing = self._environment | {"HOLO_HOME": str(root / "home-without-layers")}
        self._project = root / "project"
        self._project.mkdir()
        lines = [line.partition("#")[0].strip() for line in (HERE / "requirements-quick.txt").read_text().splitlines()]
        wanted = [line for line in [*lines, BASE] if line]
        about = '[project]\nname = "bench"\nversion = "1"\nrequires-python = ">=3.11"\n'
        (self._project / "pyproject.toml").write_text(f"{about}dependencies = {json.dumps(wanted)}\n")
        self._base, self._more = root / "base.txt", root / "more.txt"
        self._base.write_text("\n".join(wanted) + "\n")
        self._more.write_text("\n".join([*wanted, MORE]) + "\n")
        self._run(tools.uv, "lock", "--quiet", "--directory", str(self._project))
        for environment in (self._environment, self._nothing):
            execute([*self._holo, "init", "--space", "base", str(self._base)], environment)
            execute([*self._holo, "init", "--space", "more", str(self._more)], environment)
        self._init("project", self._project / "pyproject.toml")
        self._init("plain", self._base, "--no-compile")
        self._run(*self._holo, *self._from_project("--"), "true")

    def _run(self, *command: str) -> str:
        return execute(command, self._environment)

    def _init(self, space: str, source: Path, *options: str) -> Path:
        report = json.loads(self._run(*self._holo, "init", "--space", space, str(source), *options, "--json"))
        return Path(report["path"])

    def _from_project(self, *more: str) -> list[str]:
        return ["run", "--blueprint", str(self._project / "pyproject.toml"), *more]

    def cases(self) -> list[Case]:
        """Everything to measure."""
        venv = self._project / ".venv"
        sync = [self._uv, "sync", "--quiet", "--locked", "--directory", str(self._project)]
        init = [*self._holo, "init", "--space", "bench", str(self._project / "pyproject.toml")]

        def case(name: str, command: list[str], before: Callable[[], None] = nothing, **options: bool) -> Case:
            return Case(name, command, self._environment, before, **options)

        return [
            case("uv sync", sync, lambda: self._filesystem.remove(venv)),
            case("uv sync --link-mode=copy", [*sync, "--link-mode=copy"], lambda: self._filesystem.remove(venv)),
            case("uv sync --compile-bytecode", [*sync, "--compile-bytecode"], lambda: self._filesystem.remove(venv)),
            case("new space of a known blueprint", init, self._without_space),
            case("new .venv of a worktree", [*init, "--to", str(venv)], lambda: self._without_space(venv)),
            case("run --space", [*self._holo, "run", "--space", "project", "--", "true"], quick=True),
            case("run --blueprint, unchanged", [*self._holo, *self._from_project("--", "true")], quick=True),
            self._first_import("first import pandas, compiled"),
            self._first_import("first import pandas, --no-compile", "--no-compile"),
            self._build("build with one more line, from a layer", self._environment),
            self._build("build with one more line, from nothing", self._nothing),
        ]

    def _without_space(self, place: Path | None = None) -> None:
        if "bench" in {space["name"] for space in json.loads(self._run(*self._holo, "list", "--json"))["spaces"]}:
            self._run(*self._holo, "delete", "--space", "bench")
        if place is not None:
            self._filesystem.remove(place)

    def _first_import(self, name: str, *options: str) -> Case:
        place = self._filesystem.root / ("plain" if options else "compiled")

        def before() -> None:
            self._without_space(place)
            self._init("bench", self._base, "--to", str(place), *options)

        return Case(name, [str(place / "bin" / "python"), "-c", "import pandas"], self._environment, before)

    def _build(self, name: str, environment: dict[str, str]) -> Case:
        def before() -> None:
            found = json.loads(execute([*self._holo, "list", "--json"], environment))["spaces"]
            catalog = next((space["catalog"] for space in found if space["name"] == "more"), None)
            if catalog is not None:
                execute([*self._holo, "delete", "--space", "more"], environment)
                execute([*self._holo, "catalogs", "--remove", catalog], environment)
            if environment is self._nothing:
                for parts in Path(environment["HOLO_HOME"]).glob("hololib/builds/*.parts"):
                    parts.unlink()

        return Case(name, [*self._holo, "init", "--space", "more", str(self._more)], environment, before)


def measure(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print."""
    tools = Tools.find(options.holo, workspace, quick=True)
    lines = []
    for name in options.filesystems:
        with mounted(name, workspace, IMAGE) as filesystem:
            note(f"{name}: building")
            cases = Builds(tools, filesystem).cases()
            timings = alternate(cases, options.rounds, filesystem.settle, note)
        medians = {case: statistics.median(timing.seconds) for case, timing in timings.items()}
        for mine, peer in CLAIMS:
            if {mine, peer} <= medians.keys():
                seconds, against = medians[mine], medians[peer]
                lines.append([name, mine, f"{seconds:.2f}", peer, f"{against:.2f}", f"{seconds / against:.2f}x"])
    heading(tools.versions(), f"Medians of {options.rounds} rounds.")
    table(["on", "holo", "seconds", "beside", "seconds", "ratio"], lines)
    return True


if __name__ == "__main__":
    sys.exit(run(measure, parser(__doc__).parse_args(), IMAGE))
