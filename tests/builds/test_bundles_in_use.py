"""Real environments that came in a bundle, to another home on another filesystem, are used there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import compare, filesystems
from support.cli import Holo
from support.filesystems import Mounts
from support.forks import ForkedHolo, Forks


def homes(mounts: Mounts, forks: Forks, names: tuple[str, str]) -> tuple[Holo, Holo]:
    """Two empty homes, each on a filesystem of that name."""
    roots = [mounts.get(name) / f"bundles-{number}" for number, name in enumerate(names)]
    for root in roots:
        root.mkdir()
    return ForkedHolo(roots[0], forks), ForkedHolo(roots[1], forks)


def run(holo: Holo, *command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env=holo.environment(), cwd=cwd or holo.root, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("there", "here", "options"),
    [("xfs", "btrfs", []), ("btrfs", "ext4", ["--compress"])],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_virtualenv_from_a_bundle_works_at_any_path(
    mounts: Mounts, forks: Forks, real_venv_source: Path, tmp_path: Path, there: str, here: str, options: list[str]
) -> None:
    theirs, ours = homes(mounts, forks, (there, here))
    bundle = tmp_path / "venv.holo"
    try:
        theirs("record", real_venv_source, "--name", "venv")
        theirs("export", "venv", *options, "-o", bundle)
        ours("import", bundle)
        assert ours("check").stdout.endswith("all is well\n")
        for source, extra in (("venv", -5), ("venv", 0), ("venv", 40), (bundle, 0)):
            target = Path(f"{ours.root}/to/".ljust(len(str(real_venv_source)) + extra, "t"))
            ours("init", "--space", "used", source, "--to", target)
            assert compare.differences(real_venv_source, target) == []
            numpy = run(ours, target / "bin" / "python", "-c", "import numpy; print(numpy.__file__)")
            assert numpy.startswith(f"{target}/lib/")
            assert str(target) in run(ours, target / "bin" / "pip", "--version")
            assert "Pygments" in run(ours, target / "bin" / "pygmentize", "-V")
            ours("delete", "--space", "used")
    finally:
        for holo in (theirs, ours):
            filesystems.remove(holo.root)


@pytest.mark.skipif(shutil.which("npm") is None and os.environ.get("CI") != "true", reason="npm is not installed")
def test_vite_of_a_bundle_builds_a_project(mounts: Mounts, forks: Forks, tmp_path: Path) -> None:
    theirs, ours = homes(mounts, forks, ("ext4", "xfs"))
    try:
        for holo in (theirs, ours):
            project = holo.root / "project"
            project.mkdir()
            package = {"name": "web", "type": "module", "devDependencies": {"vite": "5.4.19"}}
            (project / "package.json").write_text(json.dumps(package))
            (project / "index.html").write_text('<script type="module" src="/main.js"></script>\n')
            (project / "main.js").write_text("document.title = 'five'\n")
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund"], cwd=theirs.root / "project", check=True, capture_output=True
        )
        theirs("record", theirs.root / "project" / "node_modules", "--name", "web")
        theirs("export", "web", "--compress", "-o", tmp_path / "web.holo")
        ours("init", "--space", "web", tmp_path / "web.holo", "--to", ours.root / "project" / "node_modules")
        run(ours, "node_modules/.bin/vite", "build", cwd=ours.root / "project")
        assert list((ours.root / "project" / "dist" / "assets").glob("index-*.js"))
    finally:
        for holo in (theirs, ours):
            filesystems.remove(holo.root)
