"""Real environments at paths with blanks, quotes and the like: activated by each shell, and their scripts run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holo.relocation import shebang
from support import trees
from support.cli import Holo
from support.filesystems import Mounts
from support.forks import ForkedHolo, Forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's rules for #! are Linux's")

AWKWARD = ["my space", "it's", "a$b`c", '"q" #x', "a;b & c\\d"]
MAKERS = {
    "venv": ["{python}", "-m", "venv"],
    "virtualenv": ["{python}", "-m", "virtualenv", "--quiet", "--no-download"],
    "uv": ["{uv}", "venv", "--quiet", "--seed", "--python", "{python}"],
}
# How each shell reads an activation script, and the names of those that it reads.
SHELLS = {
    "sh": (["sh"], ". {}", "activate"),
    "bash": (["bash", "--norc"], "source {}", "activate"),
    "zsh": (["zsh", "-f"], "source {}", "activate"),
    "fish": (["fish", "--no-config"], "source {}", "activate.fish"),
    "tcsh": (["tcsh", "-f"], "source {}", "activate.csh"),
}
SHOW = 'printf "%s\\n" "$VIRTUAL_ENV"; which python; python -c "import sys; print(sys.prefix)"\n'


@pytest.fixture(scope="module")
def recorded(mounts: Mounts, forks: Forks) -> Holo:
    """A library with one environment of each maker, and a package with programs in them."""
    root = mounts.get("local") / "awkward"
    root.mkdir()
    holo = ForkedHolo(root, forks)
    uv = Path(sys.executable).with_name("uv")
    for name, command in MAKERS.items():
        made = root / name
        subprocess.run([part.format(python=sys.executable, uv=uv) for part in command] + [made], check=True)
        holo("record", made, "--name", name)
        shutil.rmtree(made)
    return holo


@pytest.fixture(params=AWKWARD)
def place(recorded: Holo, request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = recorded.root / request.param
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("maker", MAKERS)
def test_every_shell_activates_it(recorded: Holo, maker: str, place: Path) -> None:
    target = place / "env"
    said = recorded("init", "--space", "s", maker, "--to", target)
    environment = {"PATH": os.defpath, "HOME": str(recorded.root), "TERM": "dumb", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        known = {"activate", "activate.csh", "activate.fish", "activate_this.py", "pip"}
        assert not known & set(said.stderr.replace("bin/", "").replace(",", " ").split())
        for shell, (command, source, script) in SHELLS.items():
            if shutil.which(shell) is None and os.environ.get("CI") != "true":
                continue
            if not (target / "bin" / script).exists():
                continue
            # The path of the script is given without quoting anything.
            text = source.format("bin/" + script) + "\n" + SHOW
            done = subprocess.run(
                [*command, "-c", text],
                capture_output=True,
                text=True,
                check=False,
                cwd=target,
                env=environment,
            )
            lines = done.stdout.splitlines()
            assert lines == [str(target), f"{target}/bin/python", str(target)], (shell, done.stdout, done.stderr)
        pip = subprocess.run(
            [target / "bin" / "pip", "--version"], capture_output=True, text=True, check=False, env=environment
        )
        assert f"from {target}/" in pip.stdout, pip.stderr
        recorded("check", "--space", "s")
        report = recorded("restore", "--space", "s", "--json").json()["files"]
        assert report["unchanged"] == report["total"]
    finally:
        recorded("delete", "--space", "s")


# What packages of conda put into a prefix (conda's own, libxml2, gdk-pixbuf, ...), with the path in all the ways.
CONDA = {
    "bin/python3": ("#!/bin/sh\nprintf 'python %s\\n' \"$*\"\n", 0o755),
    "bin/tool": ("#!{prefix}/bin/python3\n", 0o755),
    "bin/activate": ('#!/bin/sh\n_CONDA_ROOT="{prefix}"\n. "$_CONDA_ROOT"/etc/profile.d/conda.sh "$@"\n', 0o755),
    "etc/profile.d/conda.sh": ("export CONDA_EXE='{prefix}/bin/conda'\nexport _CE_M=''\n", 0o644),
    "etc/profile.d/conda.csh": ('setenv CONDA_EXE "{prefix}/bin/conda"\n', 0o644),
    "etc/fish/conf.d/conda.fish": ('set -gx CONDA_EXE "{prefix}/bin/conda"\n', 0o644),
    "etc/conda/activate.d/tool.sh": ('export TOOL_ROOT={prefix}/share\nexport "TOOL_LIB={prefix}/lib"\n', 0o644),
    "conda-meta/tool-1-0.json": (
        '{{"extracted_package_dir": "{prefix}/pkgs", "link": {{"source": "{prefix}"}}}}',
        0o644,
    ),
    "lib/python3/_sysconfigdata.py": (
        "build_time_vars = {{'prefix': '{prefix}', \"LIBS\": \"-L{prefix}/lib\"}}\n",
        0o644,
    ),
    "lib/pkgconfig/tool.pc": ("prefix={prefix}\n", 0o644),
}


@pytest.fixture(scope="module")
def conda(recorded: Holo) -> Holo:
    root = recorded.root / "conda"
    for name, (text, mode) in CONDA.items():
        trees.write(root / name, text.format(prefix=root), mode=mode)
    recorded("record", root, "--name", "conda")
    shutil.rmtree(root)
    return recorded


def test_conda_prefix_works_in_every_shell(conda: Holo, place: Path) -> None:
    target = place / "env"
    said = conda("init", "--space", "s", "conda", "--to", target)
    try:
        assert "lib/pkgconfig/tool.pc" in said.stderr
        assert not {".sh", ".py", ".json"} & {os.path.splitext(word)[1] for word in said.stderr.split()}
        scripts = [
            (
                ["sh"],
                '. bin/activate; . etc/conda/activate.d/tool.sh; printf "%s\\n" "$CONDA_EXE" "$TOOL_ROOT" "$TOOL_LIB"',
            ),
            (["tcsh", "-f"], 'source etc/profile.d/conda.csh; printf "%s\\n" "$CONDA_EXE"'),
            (["fish", "--no-config"], 'source etc/fish/conf.d/conda.fish; printf "%s\\n" "$CONDA_EXE"'),
            (
                [sys.executable],
                "import sys; sys.path[:0] = ['lib/python3']; from _sysconfigdata import *; print(build_time_vars)",
            ),
        ]
        for command, text in scripts:
            if shutil.which(command[0]) is None and os.environ.get("CI") != "true":
                continue
            done = subprocess.run([*command, "-c", text], capture_output=True, text=True, cwd=target, check=False)
            wanted = {
                "sh": [f"{target}/bin/conda", f"{target}/share", f"{target}/lib"],
                sys.executable: [str({"prefix": str(target), "LIBS": f"-L{target}/lib"})],
            }.get(command[0], [f"{target}/bin/conda"])
            assert done.stdout.splitlines() == wanted, (command, done.stderr)
        done = subprocess.run([target / "bin" / "tool", "a b"], capture_output=True, text=True, check=False)
        assert done.stdout == f"python {target}/bin/tool a b\n", done.stderr
    finally:
        conda("delete", "--space", "s")


SCRIPT = '''{line}
# -*- coding: latin-1 -*-
"""The documentation, \xe9."""
from __future__ import annotations

import sys

print(__doc__, sys.argv[1:], sys.flags.isolated)
'''


@pytest.mark.parametrize("folder", ["my space", "l" * 250, "it's a `long` $one " + "l" * 230])
@pytest.mark.parametrize(
    ("line", "isolated"),
    [
        ("#!{}/bin/python3", 0),
        ("#! {}/bin/python3 -I", 1),
        ("#!/usr/bin/env -S {}/bin/python3 -I", 1),
        ('#!/usr/bin/env -S "{}/bin/python3" -I', 1),
        ("#!/usr/bin/env {}/bin/python3", 0),
    ],
)
def test_script_keeps_its_encoding_and_docstring(recorded: Holo, folder: str, line: str, isolated: int) -> None:
    source = recorded.root / "scripts"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "python3").symlink_to(sys.executable)
    for place in ("bin", "lib/deep/er"):
        script = source / place / "script"
        trees.write(script, "", mode=0o755)
        script.write_bytes(SCRIPT.format(line=line.format(source)).encode("latin-1"))
    target = recorded.root / folder
    try:
        recorded("record", source, "--name", "scripts")
        recorded("init", "--space", "s", "scripts", "--to", target)
        link = recorded.root / "link"
        link.symlink_to(target / "bin" / "script")
        for script in (target / "bin" / "script", target / "lib" / "deep" / "er" / "script", link):
            done = subprocess.run(
                [script, "a b", "c"], capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "utf-8"}
            )
            assert done.stdout.decode() == f"The documentation, \xe9. ['a b', 'c'] {isolated}\n", done.stderr
        link.unlink()
    finally:
        shutil.rmtree(source)
        recorded("delete", "--space", "s")


@pytest.mark.parametrize("length", [127, 128, 255, 256])
def test_shebang_limit_is_that_of_this_kernel(tmp_path: Path, length: int) -> None:
    """Otherwise it cuts the path, and finds nothing there, or another program."""
    folder = tmp_path / "".ljust(length - len(f"#!{tmp_path}//python"), "x")
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    trees.write(tmp_path / "script", f"#!{folder}/python\nprint(1)\n", mode=0o755)
    assert len((tmp_path / "script").read_text().splitlines()[0]) == length
    try:
        works = subprocess.run([tmp_path / "script"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    assert works == (length <= shebang.limit())


@pytest.mark.parametrize(
    ("system", "release", "limit"),
    [
        ("linux", "6.18.1-x", 255),
        ("linux", "5.1.0", 255),
        ("linux", "5.0.21-generic", 127),
        ("linux", "4.18.0-553.el8_10.x86_64", 127),
        ("linux", "unheard of", 127),
        ("darwin", "23.1.0", 512),
    ],
)
def test_shebang_limits_of_other_kernels(system: str, release: str, limit: int) -> None:
    assert shebang.limit(system, release) == limit
