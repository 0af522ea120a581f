"""Hostile and damaged bundles: each is refused with one message, and nothing of it is there afterwards.

The cases are made by :mod:`support.hostile_bundles`, which says what is wrong with each.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import compare, hostile_bundles, trees
from support.cli import Holo, Result
from support.forks import Forks
from support.hostile_bundles import CASES, REFUSED, SOUND
from support.libraries import catalogs

pytestmark = pytest.mark.torture

Note = Callable[[int, str, int], None]

MEMORY = 700 << 20
"""Bytes of address space for a command; Python with all of holo takes the half of it."""


@dataclass
class Target:
    """A home that bundles are brought to, and a user's files beside it."""

    root: Path
    forks: Forks

    def __post_init__(self) -> None:
        self.holo = Holo(self.root)
        trees.write(self.root / "user" / "letter", "precious")
        self._before = compare.snapshot(self.root / "user")

    def __call__(self, *arguments: str | Path, code: int | None = 0) -> Result:
        return self.forks(*arguments, env=self.holo.environment(), cwd=self.root, code=code, memory=MEMORY, seconds=30)

    def refused(self, code: int | None, *arguments: str | Path) -> Result:
        """Run what must fail with one message and at most one hint."""
        result = self(*arguments, code=code)
        lines = result.stderr.splitlines()
        assert [line.partition(": ")[0] for line in lines] in (["error"], ["error", "hint"]), result
        assert result.stdout == ""
        assert "\x1b" not in result.stderr
        assert len(result.stderr) < 2000
        return result

    def is_untouched(self) -> bool:
        """No catalog, no name, no space that is called pristine; what blobs there are, are sound."""
        library = self.holo.library
        names = [path for folder in ("catalog", "names", "links") for path in (library / folder).rglob("*")]
        assert [path for path in names if path.is_file()] == []
        assert compare.snapshot(self.root / "user") == self._before
        assert {path.name for path in self.root.iterdir()} <= {"home", "user", "settings.yaml", "evil.holo"}
        report = self("check", "--json").json()
        assert report["problems"] == []
        return True

    def forget(self) -> None:
        """Begin again with nothing."""
        shutil.rmtree(self.holo.home, ignore_errors=True)


@pytest.fixture
def target(tmp_path: Path, forks: Forks) -> Target:
    return Target(tmp_path, forks)


def test_the_sound_bundle_is_sound(target: Target) -> None:
    """So the others are refused for what is wrong with them."""
    bundle = target.root / "evil.holo"
    bundle.write_bytes(SOUND)
    target("import", bundle)
    assert len(catalogs(target.holo)) == 1
    assert target("catalogs", bundle).stdout
    target.forget()
    path = Path(target("init", "--space", "one", bundle, "--json").json()["path"])
    for name, content in hostile_bundles.CONTENTS.items():
        assert (path / name).read_bytes() == content
    assert (path / "bin" / "run").read_text() == f"#!{path}/bin/sh\necho {path}\n"
    assert target.is_untouched()


def test_cases_are_many_and_distinct() -> None:
    assert len(CASES) > 100
    assert len({case.reason for case in CASES.values()}) == len(CASES)
    data = [case.make() for case in CASES.values()]
    assert len(set(data)) == len(CASES)
    assert SOUND not in data


@pytest.mark.parametrize("name", CASES)
def test_hostile_bundle_is_refused(name: str, target: Target, faults: Note) -> None:
    case = CASES[name]
    faults(7, "hostile bundles", 1)
    bundle = target.root / "evil.holo"
    bundle.write_bytes(case.make())
    result = target.refused(case.code if case.is_begun else None, "import", bundle)
    assert result.code in (1, 2, 3)
    said = result.stderr
    assert str(bundle) in said or "the catalog says" in said
    assert target.is_untouched()
    target.forget()
    if case.is_begun:
        target.refused(case.init or case.code, "init", "--space", "one", bundle)
        spaces = target("list", "--json").json()["spaces"]
        assert [space["state"] for space in spaces] in ([], ["restoring"])
    else:  # it may be a blueprint, or another tool's archive
        result = target.refused(None, "init", "--space", "one", bundle)
        assert result.code in (1, 2, 3)
        assert target("list", "--json").json()["spaces"] == []
    assert target.is_untouched()
    target("catalogs", bundle, code=None)  # lists what it reads, which may be sound
    assert target.is_untouched()
    # What was refused is not in the way of what is sound.
    bundle.write_bytes(SOUND)
    target("init", "--space", "two", bundle)
    target("import", bundle)
    assert len(catalogs(target.holo)) == 1


def test_no_library_keeps_a_catalog_in_another_form(target: Target) -> None:
    bundle = target.root / "evil.holo"
    document = json.dumps(hostile_bundles.catalog()).encode()
    bundle.write_bytes(hostile_bundles.Zip(hostile_bundles.items(document)).to_bytes())
    target.refused(REFUSED, "import", bundle)
    assert target.is_untouched()


# -- what is no file ------------------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("make", [fifo, folder, dangling, circle, device, terabyte])
def test_what_is_no_file_is_refused(make: Callable[[Path], None], target: Target, faults: Note) -> None:
    faults(7, "hostile bundles", 1)
    path = target.root / "evil.holo"
    make(path)
    code = 2 if make is terabyte else REFUSED  # the file of zeros is nobody's archive
    assert "evil.holo" in target.refused(code, "import", path).stderr
    result = target.forks(
        "export",
        "app",
        "--known",
        path,
        "-o",
        "x",
        env=target.holo.environment(),
        cwd=target.root,
        code=None,
        seconds=30,
    )
    assert result.code in (1, 3)
    assert target.is_untouched()


def test_a_symlink_to_a_bundle_is_its_users_own_choice(target: Target) -> None:
    (target.root / "user" / "app.holo").write_bytes(SOUND)
    (target.root / "evil.holo").symlink_to("user/app.holo")
    target("import", target.root / "evil.holo")
    assert len(catalogs(target.holo)) == 1


@pytest.mark.parametrize(
    "name", ["half", "last-byte", "content-last", "bomb", "bomb-large", "parts-circle", "catalog-outside", "empty"]
)
def test_hostile_bundle_on_a_pipe_is_refused(name: str, target: Target, faults: Note) -> None:
    faults(7, "hostile bundles", 1)
    done = subprocess.run(
        ["prlimit", f"--as={MEMORY}", sys.executable, "-m", "holo", "import", "-"],
        env=target.holo.environment(),
        cwd=target.root,
        input=CASES[name].make(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == CASES[name].code, done
    lines = done.stderr.decode().splitlines()
    assert [line.partition(": ")[0] for line in lines] in (["error"], ["error", "hint"])
    assert "standard input" in lines[0]
    assert target.is_untouched()


# -- random damage --------------------------------------------------------------------------------------------------


def flip(data: bytearray, randomly: random.Random) -> None:
    data[randomly.randrange(len(data))] ^= 1 << randomly.randrange(8)


def zero(data: bytearray, randomly: random.Random) -> None:
    start = randomly.randrange(len(data))
    end = min(len(data), start + randomly.choice([1, 16, 512, 4096]))
    data[start:end] = bytes(end - start)


def cut(data: bytearray, randomly: random.Random) -> None:
    del data[randomly.randrange(len(data)) :]


def lose(data: bytearray, randomly: random.Random) -> None:
    start = randomly.randrange(len(data))
    del data[start : start + randomly.choice([1, 4096])]


def gain(data: bytearray, randomly: random.Random) -> None:
    start = randomly.randrange(len(data))
    data[start:start] = randomly.randbytes(randomly.choice([1, 4096]))


def copy(data: bytearray, randomly: random.Random) -> None:
    """Bytes of one place at another."""
    start, end = randomly.randrange(len(data)), randomly.randrange(len(data))
    length = randomly.choice([8, 512, 4096])
    piece = data[start : start + length]
    data[end : end + len(piece)] = piece


DAMAGES = (flip, flip, flip, zero, cut, lose, gain, copy)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> list[tuple[bytes, Path]]:
    """A raw and a compressed bundle with content of all kinds, and the tree that is in them."""
    root = tmp_path_factory.mktemp("exported")
    source = trees.small(root / "the-source")
    content = random.Random(1).randbytes(1 << 20)
    trees.write(source / "lib" / "large", content)
    trees.write(source / "lib" / "twin", content[: 1 << 19] + b"x" * 4096 + content[1 << 19 :])
    trees.write(source / "lib" / "text", b"".join(b"line %d\n" % number for number in range(20_000)))
    with trees.write(source / "lib" / "sparse", b"data" * 5000).open("r+b") as file:
        file.seek(300_000)
        file.write(b"end")
    trees.settle(source)
    holo = Holo(root)
    env = holo.environment()
    forks("record", source, "--name", "app", env=env)
    forks("export", "app", "-o", root / "raw.holo", env=env)
    forks("export", "app", "-o", root / "compressed.holo", "--compress", env=env)
    return [((root / name).read_bytes(), source) for name in ("raw.holo", "compressed.holo")]


@pytest.mark.parametrize("part", range(4))
def test_random_damage_is_found(
    part: int, bundles: list[tuple[bytes, Path]], target: Target, torture: bool, faults: Note
) -> None:
    """Half of it in the first and the last few KB, where the headers are."""
    count = 250 if torture else 15
    faults(7, "random damages to a bundle", count)
    path = target.root / "evil.holo"
    for number in range(part * 1000, part * 1000 + count):
        randomly = random.Random(number)
        sound, source = bundles[number % 2]
        data = bytearray(sound)
        action = randomly.choice(DAMAGES)
        if randomly.random() < 0.5:
            edge = 6000
            head = bytearray(data[:edge]) if randomly.random() < 0.5 else bytearray(data[-edge:])
            is_head = head == data[:edge]
            action(head, randomly)
            data = head + data[edge:] if is_head else data[:-edge] + head
        else:
            action(data, randomly)
        path.write_bytes(data)
        command = ["import", path] if number % 3 else ["init", "--space", "one", path]
        result = target(*command, code=None)
        said = f"damage {number}, {action.__name__}: {result}"
        if bytes(data) == sound:
            assert result.code == 0, said
        elif result.code == 0:  # the very same content all the same
            space = target("init", "--space", "one", *(["app"] if number % 3 else []), "--json").json()["path"]
            assert compare.differences(source, Path(space)) == [], said
        else:
            begins = bytes(data[:4]) == sound[:4] and bytes(data[30:39]) == b"holo.json"
            assert result.code == 3 or (not number % 3 and not begins), said
            lines = result.stderr.splitlines()
            assert [line.partition(": ")[0] for line in lines] in (["error"], ["error", "hint"]), said
            assert target.is_untouched(), said
        target.forget()
