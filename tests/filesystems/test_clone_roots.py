"""holo clone --relocate into another checkout: the paths of the project move along, all of them or none."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import holo
from holo.cloning import clone
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks
from support.trees import write

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_SETTINGS", os.devnull)


def checkouts(root: Path, first: str = "first", second: str = "other") -> tuple[Path, Path]:
    """Two checkouts of one project."""
    for name in (first, second):
        write(root / name / "pyproject.toml", '[project]\nname = "app"\n')
        (root / name / ".git").mkdir()
        write(root / name / ".git" / "HEAD", "ref: refs/heads/main\n")
        (root / name / "src").mkdir()
    return root / first, root / second


SITE = Path("lib", "python3.11", "site-packages")


@pytest.mark.parametrize("names", [("first", "other"), ("first app+1", "my other")], ids=["plain", "quoted"])
def test_everything_that_names_the_project_names_the_other_checkout(
    filesystem: Filesystem, names: tuple[str, str]
) -> None:
    first, other = checkouts(filesystem.root, *names)
    venv = first / ".venv"
    finder = write(venv / SITE / "__editable___app_finder.py", f"MAPPING = {{'app': {str(first / 'src')!r}}}\n")
    py_compile.compile(str(finder))
    compiled = next((venv / SITE / "__pycache__").iterdir()).relative_to(venv)
    write(venv / SITE / "app.pth", f"{first}/src\n{venv}/src\n{first}-old/src\n")
    write(venv / SITE / "app.egg-link", f"{first}\n.")
    for number, url in enumerate((f"file://{quote(str(first))}", "file://" + str(first).replace(" ", "%20"))):
        document = {"dir_info": {"editable": True}, "url": url}
        write(venv / SITE / f"app-{number}.dist-info" / "direct_url.json", json.dumps(document))
    write(venv / "bin" / "tool", f"#!/bin/sh\ncd '{first}/src'\n", mode=0o755)
    write(venv / "lib" / "module.so", b"\x7fELF\0" + os.fsencode(venv) + b"/lib\0")
    os.symlink(first / "src", venv / "absolute")
    os.symlink("../src", venv / "relative")
    os.symlink("bin/tool", venv / "inside")
    report = clone(venv, other / ".venv", relocate=True)
    made = other / ".venv"
    texts = {path for path in made.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    # It names the folder beside the first one.
    assert [path.name for path in texts if os.fsencode(first) in path.read_bytes()] == ["app.pth"]
    assert (made / SITE / "app.pth").read_text() == f"{other}/src\n{made}/src\n{first}-old/src\n"
    assert eval((made / SITE / finder.name).read_text().partition("=")[2]) == {"app": str(other / "src")}
    assert (made / compiled).read_bytes()[4:16] == bytes(12)  # stale, so that it is compiled again
    assert (made / SITE / "app.egg-link").read_text() == f"{other}\n."
    for number in range(2):
        text = (made / SITE / f"app-{number}.dist-info" / "direct_url.json").read_text()
        assert json.loads(text)["url"] == f"file://{quote(str(other))}"
    shell = subprocess.run(["sh", "-c", f'. "{made}/bin/tool" && pwd'], capture_output=True, text=True, check=True)
    assert shell.stdout == f"{other}/src\n"
    links = {name: os.readlink(made / name) for name in ("absolute", "relative", "inside")}
    assert links == {"absolute": str(other / "src"), "relative": "../src", "inside": "bin/tool"}
    assert [(mapped.old, mapped.new) for mapped in report.mapped] == [(str(first), str(other))]
    assert report.mapped[0].files == 7  # with the absolute symlink
    assert report.to_json()["mapped"] == [{"old": str(first), "new": str(other), "files": 7}]
    about = [warning for warning in report.warnings if "editable" in warning]
    assert [warning.rpartition(": ")[2] for warning in about] == [f"{first}-old/src"]


def test_symlinks_to_packages_beside_it_from_another_place(filesystem: Filesystem) -> None:
    first, other = checkouts(filesystem.root)
    (first / "web" / "node_modules" / "@o").mkdir(parents=True)
    os.symlink("../../../packages/lib", first / "web" / "node_modules" / "@o" / "lib")
    (other / "node_modules").parent.mkdir(exist_ok=True)
    clone(first / "web" / "node_modules", other / "node_modules", relocate=True)
    assert os.readlink(other / "node_modules" / "@o" / "lib") == "../../packages/lib"


def test_named_roots_and_none(filesystem: Filesystem) -> None:
    first, other = checkouts(filesystem.root)
    root = filesystem.root
    write(first / ".venv" / "names", f"{first}/src\n{root}/data/x\n{root}/data/deep/y\n")
    clone(first / ".venv", other / "a", relocate=True, maps=[f"{root}/data={root}/d", f"{root}/data/deep=/e"])
    assert (other / "a" / "names").read_text() == f"{other}/src\n{root}/d/x\n/e/y\n"
    clone(first / ".venv", other / "b", relocate=True, map_project=False)
    assert (other / "b" / "names").read_text() == (first / ".venv" / "names").read_text()
    clone(first / ".venv", other / "c", relocate=True, maps=[f"{first}=/somewhere"])
    assert (other / "c" / "names").read_text().startswith("/somewhere/src\n")
    for wrong in ("", "=", "/a", "/a=", "=/b", "/=/b"):
        with pytest.raises(holo.UsageError, match="two folders"):
            clone(first / ".venv", other / "d", relocate=True, maps=[wrong])
    (root / "link").symlink_to(root / "data")
    itself = first / ".venv"
    for maps in (["/a=/b", "/a=/c"], [f"{root}/data=/b", f"{root}/link/=/c"], [f"{itself}=/b"]):
        with pytest.raises(holo.UsageError, match="two places"):
            clone(itself, other / "d", relocate=True, maps=maps)
    assert not (other / "d").exists()
    clone(itself, other / "twice", relocate=True, maps=["/a=/b", "/a/=/b", f"{itself}={other}/twice"])
    with pytest.raises(holo.UsageError, match="relocated"):
        clone(first / ".venv", other / "d", maps=["/a=/b"])


def test_the_command_says_what_it_mapped(filesystem: Filesystem, forks: Forks) -> None:
    first, other = checkouts(filesystem.root)
    write(first / ".venv" / "app.pth", f"{first}/src\n/data/x\n")
    holo_ = ForkedHolo(filesystem.root, forks)
    source = ("clone", "--relocate", first / ".venv")
    said = holo_(*source, other / "a", "--map", "/data=/d", "--map", "/none=/n").stdout
    assert f"\n  {first} is {other} in 1 file of it\n" in said
    assert "\n  /data is /d in 1 file of it\n" in said
    assert (other / "a" / "app.pth").read_text() == f"{other}/src\n/d/x\n"
    shown = holo_(*source, other / "b", "--no-map", "--json")
    assert shown.json()["mapped"] == shown.json()["also"] == []
    assert "editable install that points outside" in shown.stderr


def test_another_project_is_not_mapped(filesystem: Filesystem) -> None:
    first, _ = checkouts(filesystem.root)
    write(first / ".venv" / "app.pth", f"{first}/src\n")
    (filesystem.root / "elsewhere").mkdir()
    report = clone(first / ".venv", filesystem.root / "elsewhere" / ".venv", relocate=True)
    assert (filesystem.root / "elsewhere" / ".venv" / "app.pth").read_text() == f"{first}/src\n"
    assert report.mapped == ()
    assert [warning for warning in report.warnings if "editable" in warning]


@pytest.mark.parametrize(
    ("second", "content"),
    [("longer-name", b"\x7fELF\0%b/x\0"), ("longer-name", b"\0%b/x\0"), ("other", b"PK\x03\x04\0%b/x")],
    ids=["program", "data", "archive"],
)
def test_what_cannot_be_mapped_is_an_error_that_lists_it(filesystem: Filesystem, second: str, content: bytes) -> None:
    first, other = checkouts(filesystem.root, second=second)
    write(first / "node_modules" / "text", f"{first}/src\n")
    write(first / "node_modules" / "stuck", content % os.fsencode(first))
    before = sorted(os.listdir(other))
    with pytest.raises(holo.RelocationImpossible, match="stuck") as caught:
        clone(first / "node_modules", other / "node_modules", relocate=True)
    assert caught.value.hint is not None
    assert "--no-map" in caught.value.hint
    assert sorted(os.listdir(other)) == before
    if content.startswith(b"\x7fELF"):
        return
    # What tools make again is no reason.
    (first / "node_modules" / ".cache").mkdir()
    (first / "node_modules" / "stuck").rename(first / "node_modules" / ".cache" / "stuck")
    report = clone(first / "node_modules", other / "node_modules", relocate=True)
    assert [warning for warning in report.warnings if "stuck" in warning]


def test_a_worktree_inside_the_first_one(filesystem: Filesystem) -> None:
    """As agents make them. A path that is there already stays."""
    first, other = checkouts(filesystem.root, second="first/.worktrees/a")
    write(first / ".venv" / "names", f"{first}/src\n{other}/src\n")
    clone(first / ".venv", other / ".venv", relocate=True)
    assert (other / ".venv" / "names").read_text() == f"{other}/src\n{other}/src\n"
    clone(other / ".venv", first / "back", relocate=True)
    assert (first / "back" / "names").read_text() == f"{first}/src\n{first}/src\n"


def test_the_project_by_its_real_path(filesystem: Filesystem) -> None:
    first, other = checkouts(filesystem.root)
    os.symlink(first, filesystem.root / "link")
    write(first / ".venv" / "names", f"{first}/src\n{filesystem.root}/link/src\n{first}/.venv/bin\n")
    clone(filesystem.root / "link" / ".venv", other / ".venv", relocate=True)
    assert (other / ".venv" / "names").read_text() == f"{other}/src\n{other}/src\n{other}/.venv/bin\n"


def test_a_tree_by_its_real_path(filesystem: Filesystem) -> None:
    source, link, copy = (filesystem.root / name for name in ("env it is", "link", "copy"))
    os.symlink(source, link)
    write(source / "bin" / "python", "")
    write(source / "bin" / "activate", f"VIRTUAL_ENV='{source}'\n")
    write(source / "names", f"{source}/bin\n{link}/bin\n{source.as_uri()}\n")
    report = clone(link, copy, relocate=True)
    assert (copy / "names").read_text() == f"{copy}/bin\n{copy}/bin\n{copy.as_uri()}\n"
    assert not report.warnings


def test_links_that_a_strict_editable_install_keeps_in_the_project(filesystem: Filesystem) -> None:
    first, other = checkouts(filesystem.root, second="second-checkout")
    links = "build/__editable__.app-1-py3-none-any"
    (first / links).mkdir(parents=True)
    write(first / "src" / "app.py", "")
    os.symlink(first / "src" / "app.py", first / links / "app.py")
    write(first / ".venv" / "app.pth", f"{first}/{links}\n{first}/src\n")
    os.rmdir(other / "src")
    program = write(first / ".venv" / "program", b"\x7fELF\0" + os.fsencode(first / ".venv") + b"\0")
    with pytest.raises(holo.RelocationImpossible):
        clone(first / ".venv", other / ".venv", relocate=True)
    assert not (other / "build").exists()
    program.unlink()
    report = clone(first / ".venv", other / ".venv", relocate=True)
    assert os.readlink(other / links / "app.py") == str(other / "src" / "app.py")
    assert report.also == (str(other / links),)
    assert [warning for warning in report.warnings if f"names {other}/src, where nothing is" in warning]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_path_belongs_to_the_longest_root(filesystem: Filesystem, data: st.DataObject) -> None:
    roots = {"/r/app/.venv": "/w/x/.venv", "/r/app": "/w/x", "/r/app/lib": "/elsewhere/of/lib", "/q": "/q2"}
    ends = ["", "/a", "/.venv/b", "/lib/c", "-other/d", "/lib2"]
    pieces = data.draw(st.lists(st.tuples(st.sampled_from([*roots, "/no"]), st.sampled_from(ends)), max_size=12))
    text = "".join(f"<{old}{end}>" for old, end in pieces).encode()
    large = data.draw(st.booleans()) and text
    content = text + (b"." * (1 << 20) if large else b"")

    def moved(path: str) -> str:
        for old in sorted(roots, key=len, reverse=True):
            if path == old or path.startswith(old + "/"):
                return roots[old] + path[len(old) :]
        return path

    from holo.cloning.roots import Root, Roots

    (own, *others) = [Root(*pair) for pair in roots.items()]
    looking = Roots(*own, others)
    file = filesystem.root / "text"
    file.write_bytes(content)
    with file.open("r+b") as opened:
        seen = looking.inspect(opened.fileno(), len(content), "", "text")
        if seen.places is not None:
            looking.patch(opened.fileno(), seen.places, "text")
    wanted = "".join(f"<{moved(old + end)}>" for old, end in pieces).encode()
    assert file.read_bytes() == wanted + content[len(text) :]
