"""The commands that are measured on one filesystem: holo's own, and those of cp and uv."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trees
from filesystems import Filesystem, UnavailableError
from measure import Case, FailedError, execute

HERE = Path(__file__).parent
UV_VERSION = "0.13.8"  # installed where there is none

CANNOT_CLONE = "ext4"


@dataclass(frozen=True)
class Tools:
    """What is run, and the packages that both build the environment and are installed by uv again."""

    holo: list[str]
    uv: str
    requirements: Path
    cache: Path
    environment: dict[str, str]

    @classmethod
    def find(cls, holo: str, workspace: Path, quick: bool) -> Tools:
        """The tools, uv installed and its cache filled if need be: the only part that uses the network."""
        # Settings of the user must not change what is measured. Python's own: without its bytecode
        # every start would compile the program.
        dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "CONDA_PREFIX")
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in dropped and not name.startswith(("HOLO_", "RCC_"))
        }
        beside = Path(sys.executable).with_name("uv")
        uv = shutil.which("uv") or (str(beside) if beside.exists() else None)
        if uv is None:
            folder = workspace / "uv"
            execute([sys.executable, "-m", "venv", str(folder)], environment)
            execute([str(folder / "bin/pip"), "install", "--quiet", f"uv=={UV_VERSION}"], environment)
            uv = str(folder / "bin/uv")
        command = shlex.split(holo)
        if shutil.which(command[0]) is None:
            raise UnavailableError(f"there is no {command[0]}; make one, or name another by --holo")
        requirements = HERE / ("requirements-quick.txt" if quick else "requirements.txt")
        tools = cls(command, uv, requirements, workspace / "cache", environment)
        scratch = workspace / "scratch"
        execute(tools.install(scratch, tools.cache, "hardlink", offline=False), environment)
        shutil.rmtree(scratch)
        return tools

    def install(self, target: Path, cache: Path, mode: str, *, offline: bool = True) -> list[str]:
        """One command that makes the environment at `target`."""
        flags = f"--quiet --cache-dir {cache}" + (" --offline" if offline else "")
        venv = f"{self.uv} venv {flags} --python {sys.executable} {target}"
        install = f"{self.uv} pip install {flags} --link-mode={mode} --python {target} -r {self.requirements}"
        return ["sh", "-c", f"{venv} && {install}"]

    def versions(self) -> dict[str, str]:
        """Of everything that is compared."""

        def first_line(*command: str) -> str:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]

        return {
            "holo": execute([*self.holo, "--version"], self.environment).split()[-1],
            "uv": first_line(self.uv, "--version").split()[1],
            "cp": first_line("cp", "--version").split()[-1],
        }


class Stage:
    """One filesystem with the trees on it and all commands that can be measured there.

    Every strategy has a library (and HOLO_HOME) of its own, because what one leaves there, such as a raw
    form of a compressed blob, would help or hinder another.
    """

    def __init__(self, filesystem: Filesystem, tools: Tools, homes: str = "homes") -> None:
        """`homes` is the folder of the libraries; stages with others share the trees."""
        self.filesystem = filesystem
        self.tools = tools
        self.root = filesystem.root
        self.homes = self.root / homes
        self.environment = self.root / "env"
        self.clones = filesystem.name != CANNOT_CLONE
        self._spaces: dict[tuple[Path, str], Path] = {}
        self._seed = 0
        if not self.environment.exists():
            execute(["cp", "-a", str(tools.cache), str(self.root / "cache")], tools.environment)
            execute(tools.install(self.environment, self.root / "cache", "copy"), tools.environment)

    def synthesize(self, name: str, files: int) -> None:
        """One more tree to record, beside the environment."""
        trees.synthesize(self.root / name, files)

    def cases(self) -> Iterator[Case]:
        """Everything but the commands on synthetic trees."""
        yield from self.holo("env")
        yield from self.starts()
        yield from self.spares("env")
        yield from self.copies()
        yield from self.installs()

    def holo(self, tree: str) -> Iterator[Case]:
        """holo's commands on one tree; those on another than the environment have its name in theirs."""
        label = "" if tree == "env" else f" ({tree})"
        fresh = self._home(tree, "fresh")
        record = ["record", str(self.root / tree), "--name", tree]
        remove = partial(self.filesystem.remove, fresh)
        yield self._case(f"record{label}", record, fresh, before=remove, after=remove)
        for strategy in ("smart", *(["reflink"] if self.clones else []), "hardlink", "copy"):
            flags = [] if strategy == "smart" else ["--strategy", strategy]
            shown = " ".join(["init", *flags])
            home = self._home(tree, strategy)
            new = ["init", "--space", "new", tree, *flags]
            delete = partial(self._run, home, "delete", "--space", "new")
            before = partial(self._recorded, home, tree)
            yield self._case(f"{shown}{label}", new, home, before=before, after=delete, reports=True)
            if strategy in ("smart", "hardlink"):
                before = partial(self._record_anew, fresh, tree)
                yield self._case(f"first {shown}{label}", new, fresh, before=before, after=remove, reports=True)
        home = self._home(tree, "smart")
        for space, prepare in (("pristine", self._pristine), ("damaged", self._damaged)):
            again = ["restore", "--space", space]
            before = partial(prepare, home, tree)
            yield self._case(f"restore, {space}{label}", again, home, before=before, reports=True)

    def spares(self, tree: str) -> Iterator[Case]:
        """Commands that take a spare, or give one back; what is made in the background afterwards is not measured."""
        home = self._home(tree, "spares")
        delete = partial(self._run, home, "delete", "--space", "new")

        def ready() -> None:
            self._recorded(home, tree)
            self._wait_for_spares(home)
            self._run(home, "spares", tree, "--keep", "1")

        def damaged() -> None:
            self._damaged(home, tree)
            ready()

        def wanted() -> None:
            self._without_spares(home, tree)
            self._run(home, "init", "--space", "new", tree)

        new = ["init", "--space", "new", tree]
        yield self._case("init, a spare", new, home, before=ready, after=delete, reports=True)
        again = ["restore", "--space", "damaged"]
        yield self._case("restore, damaged, a spare", again, home, before=damaged, reports=True)
        settings = self.root / "settings-with-spares.yaml"
        settings.write_text("holotree: {spares: 1}\n")
        environment = self._at(home) | {"HOLO_SETTINGS": str(settings)}
        words = [*self.tools.holo, "delete", "--space", "new"]
        yield Case("delete, a spare wanted", words, environment, before=wanted)

    def _wait_for_spares(self, home: Path) -> None:
        while json.loads(self._run(home, "spares", "--json"))["filling"]:
            time.sleep(0.05)

    def _without_spares(self, home: Path, tree: str) -> None:
        self._recorded(home, tree)
        while json.loads(self._run(home, "spares", tree, "--keep", "0", "--json"))["spares"]:
            time.sleep(0.05)  # one is being made
        for wishes in (home / "holotree").glob(".sp-*/.keep.json"):
            wishes.unlink()  # so that the settings count

    def starts(self) -> Iterator[Case]:
        """Commands that take milliseconds, most of them for starting Python; and the status of a pristine space."""
        home = self._home("env", "smart")
        space = partial(self._pristine, home, "env")
        run = ["run", "pristine", "--", "true"]
        for words in (["--version"], ["list"], ["variables", "pristine"], run, ["status", "pristine"]):
            yield self._case(f"holo {words[0]}", words, home, before=space, quick=True)
        command = [sys.executable, "-c", "pass"]
        yield Case("python -c pass", command, self.tools.environment, quick=True)

    def copies(self) -> Iterator[Case]:
        """The copies that cp makes. Newer ones clone where they can unless they are told not to."""
        names = ["cp -a", "cp -al"]
        if self.clones:
            names += ["cp -a --reflink=always", "cp -a --reflink=never"]
        target = self.root / "copy"
        for name in names:
            command = [*name.split(), str(self.environment), str(target)]
            remove = partial(self.filesystem.remove, target)
            yield Case(name, command, self.tools.environment, after=remove)
        copy = partial(execute, ["cp", "-a", str(self.environment), str(target)], self.tools.environment)
        yield Case("rm -rf", ["rm", "-rf", str(target)], self.tools.environment, before=copy)

    def installs(self) -> Iterator[Case]:
        """The same packages installed by uv from its cache on this filesystem, which is warm."""
        target = self.root / "installed"
        for mode in (*(["clone"] if self.clones else []), "hardlink", "copy"):
            command = self.tools.install(target, self.root / "cache", mode)
            remove = partial(self.filesystem.remove, target)
            yield Case(f"uv --link-mode={mode}", command, self.tools.environment, after=remove)

    def _home(self, tree: str, strategy: str) -> Path:
        return self.homes / f"{tree}-{strategy}"

    def _case(self, name: str, words: list[str], home: Path, **more: object) -> Case:
        return Case(name, [*self.tools.holo, *words], self._at(home), **more)  # type: ignore[arg-type]

    def _at(self, home: Path) -> dict[str, str]:
        nowhere = self.root / "config"  # no settings file of the user's
        return self.tools.environment | {"HOLO_HOME": str(home), "XDG_CONFIG_HOME": str(nowhere)}

    def _run(self, home: Path, *words: str) -> str:
        return execute([*self.tools.holo, *words], self._at(home))

    def _recorded(self, home: Path, tree: str) -> None:
        if not home.exists():
            self._run(home, "record", str(self.root / tree), "--name", tree)

    def _record_anew(self, home: Path, tree: str) -> None:
        self.filesystem.remove(home)
        self._recorded(home, tree)

    def _space(self, home: Path, tree: str, space: str) -> Path:
        """A space that stays, made at the first call."""
        if (home, space) not in self._spaces:
            self._recorded(home, tree)
            path = Path(json.loads(self._run(home, "init", "--space", space, tree, "--json"))["path"])
            self._spaces[home, space] = path
            self._expect_whole(path, tree)
        return self._spaces[home, space]

    def _pristine(self, home: Path, tree: str) -> None:
        self._space(home, tree, "pristine")

    def _damaged(self, home: Path, tree: str) -> None:
        self._seed += 1
        path = self._space(home, tree, "damaged")
        self._expect_whole(path, tree)  # after the restore before this one
        trees.damage(path, self._seed)

    def _expect_whole(self, path: Path, tree: str) -> None:
        """A command that leaves things out must not win."""
        made, recorded = trees.count(path), trees.count(self.root / tree)
        if (made.files, made.symlinks) != (recorded.files, recorded.symlinks):
            raise FailedError(f"{path} is not what was recorded: {made}, not {recorded}")
