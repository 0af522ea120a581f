"""Measure blueprints: a space of a known one beside `uv sync`, the first import with and without bytecode, and a build
that begins from another. Linux, as root, with a package index; `README.md` says what came out."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from commands import HERE, Tools
from filesystems import NAMES, Filesystem, UnavailableError, mounted
from measure import Case, FailedError, alternate, execute, nothing
from run import CORES, GIGABYTE, chosen, note, table

BASE = "pandas"
MORE = "tabulate"

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


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filesystems", type=lambda text: chosen(NAMES, text), default=list(NAMES), help="xfs,ext4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--holo", default=str(Path(sys.executable).with_name("holo")), help="command to measure")
    parser.add_argument("--work", type=Path, help="folder for the images (default: the temporary folder)")
    return parser.parse_args()


def main() -> int:
    """Run, print, and leave nothing behind."""
    options = parse()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    workspace = Path(tempfile.mkdtemp(prefix="holo-bench-", dir=options.work))
    lines = []
    try:
        tools = Tools.find(options.holo, workspace, quick=True)
        for name in options.filesystems:
            with mounted(name, workspace, 8 * GIGABYTE) as filesystem:
                note(f"{name}: building")
                cases = Builds(tools, filesystem).cases()
                timings = alternate(cases, options.rounds, filesystem.settle, note)
            medians = {case: statistics.median(timing.seconds) for case, timing in timings.items()}
            lines += [
                (
                    name,
                    mine,
                    f"{medians[mine]:.2f}",
                    peer,
                    f"{medians[peer]:.2f}",
                    f"{medians[mine] / medians[peer]:.2f}",
                )
                for mine, peer in CLAIMS
                if {mine, peer} <= medians.keys()
            ]
        table(("on", "holo", "seconds", "beside", "seconds", "ratio"), lines)
    except (UnavailableError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
