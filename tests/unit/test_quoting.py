"""A path put into texts that shells and Python read: what they read is the path."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holo.relocation import is_plain
from holo.relocation.quoting import replacements

OLD = b"/opt/env"
AWKWARD = [
    "/my space",
    "/it's",
    "/a$b",
    "/a`b",
    '/"q"',
    "/$(touch x)",
    "/a\\b",
    "/a!b",
    "/a;b&c|d",
    "/*?[x]",
    "/#x",
    "/~{a,b}",
]
EVERYTHING = "/" + "".join(chr(code) for code in range(1, 127) if chr(code) not in "/\n") + "é"

SHELLS = {
    "sh": ("x.sh", "printf '%s\\n'"),
    "bash": ("x.bash", "printf '%s\\n'"),
    "zsh": ("x.zsh", "printf '%s\\n'"),
    "fish": ("x.fish", "printf '%s\\n'"),
    "tcsh": ("x.csh", "/usr/bin/printf '%s\\n'"),
}
WORDS = [
    "/opt/env/bin",
    "-I/opt/env/include",
    '"/opt/env/bin"',
    "'/opt/env/bin'",
    "'a b':\"/opt/env\":/opt/env:'/opt/env'",
]


def moved(name: str, content: str, new: str) -> str | None:
    data = content.encode()
    offsets = []
    while (at := data.find(OLD, offsets[-1] + 1 if offsets else 0)) >= 0:
        offsets.append(at)
    found = replacements(name, data, [(offset, OLD, os.fsencode(new)) for offset in offsets])
    if found is None:
        return None
    for offset, text in reversed([*zip(offsets, found, strict=True)]):
        data = data[:offset] + text + data[offset + len(OLD) :]
    return os.fsdecode(data)


def said(shell: str, script: str, folder: Path) -> list[str]:
    path = folder / "script"
    path.write_bytes(os.fsencode(script))
    options = ["-f"] if shell in ("zsh", "tcsh") else []
    done = subprocess.run(
        [shell, *options, path], capture_output=True, check=False, cwd=folder, env={**os.environ, "HOME": str(folder)}
    )
    assert done.returncode == 0, (script, done.stderr)
    assert not done.stderr, script
    return os.fsdecode(done.stdout).splitlines()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("new", [*AWKWARD, EVERYTHING])
def test_a_shell_reads_the_path(shell: str, new: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None and os.environ.get("CI") != "true":
        pytest.skip(f"no {shell}")
    name, show = SHELLS[shell]
    if shell == "tcsh":  # which has no quotes for these
        new = new.translate(dict.fromkeys(range(32), None))
    script = moved(name, "".join(f"{show} {word}\n# don't: /opt/env\n" for word in WORDS), new)
    assert script is not None
    wanted = [word.replace("'", "").replace('"', "").replace("/opt/env", new) for word in WORDS]
    assert said(shell, script, tmp_path) == "\n".join(wanted).splitlines()
    assert [name for name in os.listdir(tmp_path) if name[0] != "."] == ["script"]


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1))
def test_sh_reads_any_path(new: str) -> None:
    words = [*WORDS, '"$(printf %s "/opt/env/")x"']
    script = moved("activate", "".join(f"printf '%s\\0' {word}\n" for word in words), "/" + new)
    assert script is not None
    done = subprocess.run(["sh"], input=os.fsencode(script), capture_output=True, check=True)
    wanted = [word.replace("'", "").replace('"', "").replace("/opt/env", "/" + new) for word in WORDS]
    assert os.fsdecode(done.stdout).split("\0") == [*wanted, f"/{new}/x", ""]


@pytest.mark.parametrize(
    "content",
    [
        "cat <<END\n/opt/env\nEND\n",
        "echo $'/opt/env'\n",
        "echo ${x:-/opt/env}\n",
        "echo `ls /opt/env`\n",
        "echo \\/opt/env\n",
    ],
)
def test_a_shell_text_that_nobody_can_tell(content: str) -> None:
    assert moved("x.sh", content, "/a b") is None


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("x = '/opt/env'", "/a b"),
        ("x = '/opt/env/lib'", "/it's"),
        ('x = "/opt/env/lib"', '/"q"'),
        ("x = '''\n/opt/env/lib'''", "/a\\x'''"),
        ("x = b'/opt/env' # /opt/env", "/a'b"),
        ("# é\nx = 'é/opt/env'", "/a'é"),
        ("# don't: /opt/env\nx = u'/opt/env'", "/{a}'"),
    ],
)
def test_python_reads_the_path(content: str, value: str) -> None:
    text = moved("x.py", content, value)
    assert text is not None
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.Assign)
    read = ast.literal_eval(node.value)
    (before,) = ast.parse(content).body
    assert isinstance(before, ast.Assign)
    old = ast.literal_eval(before.value)
    assert read == (old.replace(OLD, value.encode()) if isinstance(old, bytes) else old.replace("/opt/env", value))


@pytest.mark.parametrize("content", ["x = r'/opt/env'", "x = f'/opt/env{y}'", "x = '/opt/env", "/opt/env"])
def test_python_that_nobody_can_tell(content: str) -> None:
    assert moved("x.py", content, "/it's") is None


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_json_and_python_read_any_path(new: str) -> None:
    text = moved("x.json", '{"url": "file:///opt/env/x"}', new)
    assert text is not None
    assert json.loads(text) == {"url": f"file://{new}/x"}
    text = moved("x.py", "x = ['/opt/env', \"/opt/env/\", b'/opt/env'] # /opt/env\n", new)
    assert text is not None
    assert ast.literal_eval(text.partition("=")[2].strip()) == [new, new + "/", new.encode()]


def test_what_pip_writes_is_sh_above_python(tmp_path: Path) -> None:
    """Of a script whose interpreter has a path that is too long or has a blank; pip quotes only the latter."""
    for quote in ("", '"'):
        script = moved(
            "pip",
            f"#!/bin/sh\n'''exec' {quote}/opt/env/python{quote} \"$0\" \"$@\"\n' '''\nprint('/opt/env', end='')\n",
            str(tmp_path / "it's $x"),
        )
        assert script is not None
        (tmp_path / "it's $x").mkdir(exist_ok=True)
        if not (tmp_path / "it's $x" / "python").is_symlink():
            (tmp_path / "it's $x" / "python").symlink_to(sys.executable)
        (tmp_path / "pip").write_text(script)
        done = subprocess.run(["sh", tmp_path / "pip"], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (str(tmp_path / "it's $x"), "")


@pytest.mark.parametrize("name", ["RECORD", "x.pth", "pyvenv.cfg", "README.md"])
def test_what_has_no_quotes(name: str) -> None:
    assert moved(name, "/opt/env/x\n", "/it's") == "/it's/x\n"


@pytest.mark.parametrize("name", ["Makefile", "x.pc", "x.cmake", "activate.nu", "pip"])
def test_a_text_in_no_known_language(name: str) -> None:
    assert moved(name, "prefix=/opt/env\n", "/it's") is None


@pytest.mark.parametrize(
    ("line", "language"), [("#!/bin/bash -e", "sh"), ("#!/usr/bin/env python3", "py"), ("#!/usr/bin/fish", "fish")]
)
def test_the_first_line_tells_the_language(line: str, language: str) -> None:
    assert moved("script", f"{line}\nx '/opt/env'\n", "/it's") == moved(
        f"x.{language}", f"{line}\nx '/opt/env'\n", "/it's"
    )


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_plain_path_is_one_that_no_shell_quotes(text: str) -> None:
    ascii_only = text.encode("ascii", "ignore").decode()
    assert is_plain(os.fsencode(text)) == (not ascii_only or shlex.quote(ascii_only) == ascii_only)


@given(
    st.binary(max_size=200),
    st.lists(st.integers(0, 200), unique=True, max_size=4),
    st.sampled_from(["x.sh", "x.csh", "x.fish", "x.py", "x"]),
)
def test_any_content_is_looked_at_without_a_fault(content: bytes, offsets: list[int], name: str) -> None:
    """An offset of a hostile catalog may be anywhere; the check of offsets comes first, in a restore."""
    offsets = sorted(offset for offset in offsets if offset + len(OLD) <= len(content))
    spaced = [offset for number, offset in enumerate(offsets) if not number or offset - offsets[number - 1] >= len(OLD)]
    found = replacements(name, content, [(offset, OLD, b"/a 'b") for offset in spaced])
    assert found is None or len(found) == len(spaced)


@pytest.mark.parametrize("name", ["x.pth", "x.egg-link", "pyvenv.cfg", "RECORD"])
def test_a_path_with_two_lines_has_no_place_where_each_line_is_one(name: str) -> None:
    assert moved(name, "/opt/env/src\n", "/two\nlines") is None
    assert moved(name, "/opt/env/src\n", "/a 'b") == "/a 'b/src\n"
