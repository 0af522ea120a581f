"""File names are bytes: no locale changes what is recorded, restored, cloned or removed, and none is passed on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import compare
from support.cli import Holo
from support.filesystems import Filesystem

NAMES = (
    b"caf\xe9",  # Latin-1, which is not UTF-8
    "café".encode(),
    "cafe\u0301".encode(),  # the same to the eye
    "日本".encode("shift_jis"),
    b"back\\slash \xff\xfe",
)

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

PLAIN = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}


@pytest.fixture(scope="session")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of locales that are not UTF-8."""
    folder = tmp_path_factory.mktemp("locales")
    for language, charmap in (("en_US", "ISO-8859-1"), ("ja_JP", "SHIFT_JIS")):
        command = [
            "localedef",
            "--no-archive",
            "-c",
            "-i",
            language,
            "-f",
            charmap,
            str(folder / f"{language}.{charmap}"),
        ]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if not (folder / f"{language}.{charmap}").is_dir():
            reason = f"no locale with {charmap}: {made.stderr}"
            pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return folder


@pytest.fixture(params=["ascii", "iso-8859-1", "shift_jis"])
def odd(request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables with which Python decodes file names so."""
    chosen = {"ascii": "C", "iso-8859-1": "en_US.ISO-8859-1", "shift_jis": "ja_JP.SHIFT_JIS"}[request.param]
    found = {"LC_ALL": chosen, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if chosen != "C":
        found["LOCPATH"] = str(request.getfixturevalue("locales"))
    asked = [sys.executable, "-c", "import codecs, sys; print(codecs.lookup(sys.getfilesystemencoding()).name)"]
    encoding = subprocess.run(asked, env=os.environ | found, capture_output=True, text=True, check=True).stdout.strip()
    assert encoding.replace("_", "").replace("-", "") == request.param.replace("_", "").replace("-", "")
    return found


def tree(root: Path) -> Path:
    for name in NAMES:
        folder = os.fsencode(root / "folder") + name
        os.makedirs(folder)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"content of " + name)
        os.symlink(name, os.path.join(folder, b"link"))
    return root


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True)
def test_the_locale_is_in_no_format(holo: Holo, filesystem: Filesystem, odd: dict[str, str]) -> None:
    source = tree(filesystem.root / "source")
    digests = {
        holo("record", source, "--name", name, "--json", env=env).json()["digest"]
        for name, env in (("odd", odd), ("plain", PLAIN))
    }
    assert len(digests) == 1
    place = os.fsencode(filesystem.root / "space") + NAMES[0] + NAMES[1]
    path = Path(os.fsdecode(place))
    for env, other in ((odd, PLAIN), (PLAIN, odd)):
        made = holo("init", "--space", "s", "plain", "--to", place, "--json", env=env).json()
        assert os.fsencode(made["path"]) == place
        assert compare.differences(source, path, library=holo.library) == []
        files = holo("restore", "--space", "s", "--json", env=other).json()["files"]
        assert (files["unchanged"], files["removed"]) == (len(NAMES), 0)
        os.rename(place + b"/folder" + NAMES[2], place + b"/gone")
        files = holo("restore", "--space", "s", "--json", env=env).json()["files"]
        assert compare.differences(source, path, library=holo.library) == []
        (listed,) = holo("list", "--json", env=other).json()["spaces"]
        assert (listed["state"], os.fsencode(listed["path"])) == ("pristine", place)
        holo("delete", "--space", "s", env=other)
        assert not path.exists()


def test_a_clone_has_the_same_names(holo: Holo, filesystem: Filesystem, odd: dict[str, str]) -> None:
    source = tree(filesystem.root / "source")
    holo("clone", source, os.fsencode(filesystem.root / "copy") + NAMES[0], env=odd)
    assert compare.differences(source, Path(os.fsdecode(os.fsencode(filesystem.root / "copy") + NAMES[0]))) == []


@local
def test_what_is_run_has_the_locale_of_the_user(holo: Holo, filesystem: Filesystem, odd: dict[str, str]) -> None:
    (filesystem.root / "empty").mkdir()
    holo("record", filesystem.root / "empty", "--name", "empty")
    holo("init", "--space", "s", "empty", env=odd)
    script = "import sys; print(sys.flags.utf8_mode, sys.getfilesystemencoding())"
    alone = subprocess.run(
        [sys.executable, "-c", script], env=holo.environment(odd), capture_output=True, text=True, check=True
    )
    assert holo("run", "--space", "s", "--", sys.executable, "-c", script, env=odd).stdout == alone.stdout


@local
@pytest.mark.parametrize("call", ["holo.Hololib(home)", "holo.clone(home, home + '-copy')"])
def test_another_interpreter_is_told_how_to_be_started(
    holo: Holo, odd: dict[str, str], call: str, filesystem: Filesystem
) -> None:
    (filesystem.root / "given").mkdir()
    given = f"home = {str(filesystem.root / 'given')!r}"
    command = [sys.executable, "-c", f"import holo\n{given}\ntry: {call}\nexcept holo.HoloError as e: print(e.hint)"]

    def run(env: dict[str, str]) -> str:
        done = subprocess.run(command, env=holo.environment(env), capture_output=True, text=True, check=True)
        return done.stdout

    assert "PYTHONUTF8=1" in run(odd)
    assert run(odd | {"PYTHONUTF8": "1"}) == ""


@local
def test_what_the_output_cannot_show_is_escaped(holo: Holo, filesystem: Filesystem) -> None:
    source = tree(filesystem.root / "sourcé")
    env = {"PYTHONIOENCODING": "ascii:strict"}
    assert "sourc\\xe9" in holo("record", source, "--name", "env", "-v", env=env).stdout
    holo("init", "--space", "s", "env", "--to", os.fsencode(filesystem.root / "space") + NAMES[0], env=env)
    assert "\\udce9" in holo("list", env=env).stdout
    assert "sourc\\xe9" in holo("catalogs", env=env).stdout
