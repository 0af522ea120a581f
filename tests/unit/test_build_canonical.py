"""The canonical form of blueprints: what decides nothing does not change the key, and what decides something does."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holo import streams
from holo.blueprints import in_place, python, requirements
from holo.blueprints.blueprint import Blueprint, named, nearest, recognise
from holo.blueprints.builder import BuildOptions
from holo.blueprints.canonical import key_of
from holo.blueprints.inputs import Inputs, are_unchanged
from holo.blueprints.log import Log
from holo.errors import Conflict, HoloError, NotFound, UsageError
from support import trees

names = st.from_regex(r"[a-z][a-z0-9]{1,8}(-[a-z0-9]{1,4})?", fullmatch=True)
versions = st.from_regex(r"(==|>=|~=)[1-9]\.[0-9]{1,2}", fullmatch=True)
markers = st.sampled_from(["", 'python_version < "3.12"', "sys_platform == 'linux'"])
requirement = st.tuples(names, st.lists(names, max_size=2), versions, markers)
padding = st.text(" \t", max_size=3)


def plain(name: str, extras: list[str], version: str, marker: str) -> str:
    return name + (f"[{','.join(extras)}]" if extras else "") + version + (f" ; {marker}" if marker else "")


def key(path: Path) -> str:
    return key_of(requirements.read(str(path), Inputs({})).canonical())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canonical") / "requirements.txt"


@settings(max_examples=60, deadline=None)
@given(st.lists(requirement, min_size=1, max_size=6), st.data())
def test_comments_order_whitespace_and_spelling_do_not_change_the_key(
    file: Path, found: list[tuple[str, list[str], str, str]], data: st.DataObject
) -> None:
    file.write_text("\n".join(plain(*one) for one in found))
    before = key(file)
    lines = []
    for name, extras, version, marker in data.draw(st.permutations(found)):
        operator, number = version[:2], version[2:]
        spelled = name.upper().replace("-", data.draw(st.sampled_from("_.-")))
        shown = f"[{' , '.join(reversed(extras))}]" if extras else ""
        pad = data.draw(padding)
        line = f"{pad}{spelled}{pad}{shown}{pad}{operator}{pad}{number}{pad}"
        line += f"{pad} ;{pad} {marker.replace(chr(34), chr(39))}" if marker else ""
        if data.draw(st.booleans()):
            line = line.rstrip() + data.draw(st.sampled_from([" # a comment", " \\\n", "\t#", "\r"]))
        lines += data.draw(st.sampled_from([[line], ["", line], ["# commented-out==1.0", line], [line, "   "]]))
    file.write_text("\n".join(lines), newline="")
    assert key(file) == before


@settings(max_examples=60, deadline=None)
@given(st.lists(requirement, min_size=1, max_size=6, unique_by=lambda one: one[0]), st.data())
def test_a_changed_line_changes_the_key(
    file: Path, found: list[tuple[str, list[str], str, str]], data: st.DataObject
) -> None:
    file.write_text("\n".join(plain(*one) for one in found))
    before = key(file)
    number = data.draw(st.integers(0, len(found) - 1))
    name, extras, version, marker = found[number]
    changed = data.draw(
        st.sampled_from(
            [
                [],
                [(name + "x", extras, version, marker)],
                [(name, [*extras, "more"], version, marker)],
                [(name, extras, version + "1", marker)],
                [(name, extras, version, 'os_name == "nt"')],
                [found[number], ("another", [], "==1.0", "")],
            ]
        )
    )
    file.write_text("\n".join(plain(*one) for one in [*found[:number], *changed, *found[number + 1 :]]))
    assert key(file) != before


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "requirements.txt"


def test_included_files_count_by_their_content(tmp_path: Path) -> None:
    path = write(
        tmp_path, requirements_txt="-r sub/base.txt\n-c limits.txt\n", sub__base_txt="idna\n", limits_txt="idna<4\n"
    )
    before = key(path)
    (tmp_path / "sub" / "base.txt").write_text("# a comment\nIDNA\n")
    (tmp_path / "limits.txt").write_text("idna < 4")
    assert key(path) == before
    (tmp_path / "limits.txt").write_text("idna < 3")
    assert key(path) != before
    (tmp_path / "limits.txt").write_text("idna<4\n")
    path.write_text("idna\n--constraint=limits.txt\n")
    assert key(path) == before, "where a requirement is written does not matter"


def test_what_constraints_include_is_no_requirement(tmp_path: Path) -> None:
    path = write(tmp_path, requirements_txt="idna\n-c limits.txt\n", limits_txt="-r more.txt\n", more_txt="attrs\n")
    keys = {key(path)}
    path.write_text("idna\n-r limits.txt\n")
    keys.add(key(path))
    path.write_text("idna\n-c more.txt\n")
    keys.add(key(path))
    assert len(keys) == 3, "for uv the first is the third, for pip, below conda, the second"
    path.write_text("idna\nattrs\n")
    assert key(path) in keys
    path.write_text("idna\n-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("-c more.txt")
    assert key(path) in keys


def test_the_order_of_indexes_counts(tmp_path: Path) -> None:
    one, two = "--extra-index-url https://one.invalid/", "--extra-index-url https://two.invalid/"
    path = write(tmp_path, requirements_txt=f"{one}\n{two}\nidna\n")
    before = key(path)
    path.write_text(f"{two}\n{one}\nidna\n")
    assert key(path) != before
    path.write_text(f"idna\n{one.replace(' ', '=')}\n\n{two}")
    assert key(path) == before


def test_local_packages_count_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"one")
    path = write(tmp_path, requirements_txt="./a-1-py3-none-any.whl")
    before = key(path)
    path.write_text("a-1-py3-none-any.whl")
    assert key(path) == before
    path.write_text((tmp_path / "a-1-py3-none-any.whl").as_uri())
    assert key(path) == before
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"two")
    assert key(path) != before


def test_packages_of_an_included_file_are_looked_for_where_uv_does(tmp_path: Path) -> None:
    """From the folder it runs in, that of the first file; `--find-links`, from the file's own."""
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"one")
    path = write(tmp_path, requirements_txt="-r sub/base.txt\n", sub__base_txt="./a-1-py3-none-any.whl\n")
    inputs = Inputs({})
    requirements.read(str(path), inputs)
    assert str(tmp_path / "a-1-py3-none-any.whl") in inputs.files
    (tmp_path / "sub" / "base.txt").write_text("--find-links wheels\n")
    assert requirements.read(str(path), Inputs({})).options == [f"--find-links {tmp_path}/sub/wheels"]


@pytest.mark.parametrize("form", ["./{0}", "{0}", "a @ file://{1}/{0}"])
def test_of_a_local_package_its_extras_and_fragment_count(tmp_path: Path, form: str) -> None:
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"one")
    keys = set()
    for part in ("", "[cli]", "[gui]", "#subdirectory=one", "#subdirectory=two"):
        keys.add(key(write(tmp_path, requirements_txt=form.format("a-1-py3-none-any.whl", tmp_path) + part)))
    assert len(keys) == 5


def test_a_folder_of_packages_is_another_one_for_another_file(tmp_path: Path) -> None:
    for option in ("-f ./wheels", "--find-links wheels", "--extra-index-url=./simple"):
        keys = set()
        for name in ("a", "b"):
            write(tmp_path, **{f"{name}__requirements_txt": f"{option}\nidna\n"})
            keys.add(key(tmp_path / name / "requirements.txt"))
        assert len(keys) == 2, option


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(
    ("text", "environ", "different"),
    [
        ('[tool.uv]\nfind-links = ["./wheels"]\n', {}, 2),
        ('[tool.uv.pip]\nfind-links = ["./wheels"]\n', {}, 2),
        ('[[tool.uv.index]]\nurl = "wheels"\n', {}, 2),
        ("", {"UV_FIND_LINKS": "https://one.invalid,wheels"}, 2),
        ('[tool.uv]\nfind-links = ["/srv/wheels"]\n', {"UV_FIND_LINKS": "/srv/more"}, 1),
        ("", {"UV_INDEX_STRATEGY": "first-index"}, 1),
        ('[[tool.uv.index]]\nurl = "https://one.invalid"\n', {"UV_INDEX": "one=https://one.invalid"}, 1),
    ],
)
def test_find_links_in_uv_configuration_is_relative_to_its_file(
    tmp_path: Path, text: str, environ: dict[str, str], different: int
) -> None:
    keys = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(PROJECT + text)
        keys.add(project_key(tmp_path / name, {**environ, "HOME": str(tmp_path)}))
    assert len(keys) == different


def test_variables_count_by_their_values_which_are_not_kept(tmp_path: Path) -> None:
    path = write(tmp_path, requirements_txt="--index-url https://host.invalid/${BRANCH}/simple\nidna\n")
    documents = [requirements.read(str(path), Inputs({"BRANCH": name})).canonical() for name in ("one", "two")]
    assert key_of(documents[0]) != key_of(documents[1])
    assert "two" not in json.dumps(documents)


@pytest.mark.usefixtures("interpreter")
def test_credentials_do_not_count(tmp_path: Path) -> None:
    """Every job of a CI may have others, and what comes is the same."""
    path = write(tmp_path, requirements_txt="--index-url https://ada:${TOKEN}@host.invalid/simple\nidna\n")
    keys = {key_of(requirements.read(str(path), Inputs({"TOKEN": name})).canonical()) for name in ("one", "two")}
    path.write_text("--index-url ${URL}\nidna\n")
    urls = [f"https://{name}@host.invalid/simple" for name in ("one", "two")]
    others = {key_of(requirements.read(str(path), Inputs({"URL": url})).canonical()) for url in urls}
    assert [len(keys), len(others), len(keys | others)] == [1, 1, 2]
    text = "--index-url https://ada:{0}@host.invalid/simple\na @ https://ada:{0}@host.invalid/a.whl\n"
    path.write_text(text.format("sesame"))
    found = requirements.read(str(path), Inputs({})).canonical()
    assert "sesame" not in json.dumps(found)
    assert "https://host.invalid" in json.dumps(found)
    projects = set()
    for url in urls:
        (tmp_path / "pyproject.toml").write_text(PROJECT + f'[[tool.uv.index]]\nurl = "{url}"\n')
        projects.add(project_key(tmp_path, {"UV_EXTRA_INDEX_URL": url}))
    assert len(projects) == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("-e .", "editable"),
        ("--editable=../lib", "editable"),
        (".", "folder of sources"),
        ("./", "folder of sources"),
        ("name @ file:///", "folder of sources"),
        ("-r requirements.txt", "includes itself"),
        ("-r https://host.invalid/more.txt", "only a local file"),
        ("-r missing.txt", "there is no file"),
        ("-r 'unbalanced.txt", "quotation"),
        ("./missing.whl", "there is no file"),
        ("idna=1.0", "not a requirement"),
        ("idna==1.0,<>2", "not a version"),
        ("\x00", "not a requirement"),
        ("-", "not an option"),
        ("<html>", "not a requirement"),
    ],
)
def test_unsupported_blueprint_is_refused(tmp_path: Path, text: str, error: str) -> None:
    path = write(tmp_path, requirements_txt=text)
    with pytest.raises((UsageError, NotFound), match=error):
        key(path)


@pytest.mark.parametrize("line", ["-r a\0b", "./a\0b.whl", "./pipe.whl"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, line: str) -> None:
    os.mkfifo(tmp_path / "pipe.whl")
    path = write(tmp_path, requirements_txt=line)
    with pytest.raises(HoloError, match=r"cannot read .*: (there is a NUL in the path|it is not a regular file)"):
        key(path)


@pytest.mark.parametrize("line", ["-e git+{}", "-r {}", "idna==1.0,{}"])
def test_credentials_are_not_in_what_is_said_of_a_line(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, requirements_txt=line.format("https://ada:sesame@host.invalid/a"))
    with pytest.raises(UsageError) as refused:
        key(path)
    assert "host.invalid" in refused.value.message
    assert "sesame" not in refused.value.message


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(file: Path, text: str) -> None:
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(HoloError):
        key(file)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_script_and_any_project_is_read_or_refused(file: Path, text: str) -> None:
    script = file.with_name("script.py")
    body = "".join(f"# {line}\n" for line in text.splitlines())
    script.write_bytes(f"# /// script\n{body}# ///\n".encode("utf-8", "surrogatepass"))
    project = file.with_name("pyproject.toml")
    project.write_bytes(f"[project]\nname = 'a'\n{text}\n".encode("utf-8", "surrogatepass"))
    for path, read in ((script, python._script), (project, python._project)):
        with suppress(HoloError):
            key_of({"": read(Blueprint(str(path), "script"), Inputs({}))})


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What uv is said to have chosen: asking it takes long."""
    chosen = ["/usr/bin/python3", "3.12.1"]
    monkeypatch.setattr(python, "_interpreter", lambda *_: (chosen[0], list(chosen)))
    return chosen


def project_key(folder: Path, environ: dict[str, str] | None = None) -> str:
    blueprint = named(str(folder / "pyproject.toml"))
    inputs = Inputs({"PATH": os.environ["PATH"], "HOME": str(folder), **(environ or {})})
    return key_of(python.canonical(blueprint, inputs, BuildOptions()))


PROJECT = '[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.8"\ndependencies = ["idna", "attrs>=20"]\n'


def test_only_installed_parts_of_a_project_change_the_key(tmp_path: Path, interpreter: list[str]) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(PROJECT)
    before = project_key(tmp_path)
    project.write_text(PROJECT.replace('"1"', '"2"') + "[tool.ruff]\nline-length = 100\n")
    assert project_key(tmp_path) == before
    project.write_text(PROJECT.replace('"idna", "attrs>=20"', '"attrs >=20",\n"Idna"'))
    assert project_key(tmp_path) == before
    assert key_of(python.canonical(named(str(project)), Inputs(), BuildOptions(compile=False))) != before
    interpreter[1] = "3.12.2"
    assert project_key(tmp_path) != before
    interpreter[1] = "3.12.1"
    changes = {
        PROJECT.replace(">=20", ">=21"),
        PROJECT.replace(">=3.8", ">=3.9"),
        PROJECT + '[dependency-groups]\ndev = ["six"]\n',
        PROJECT + "[tool.uv]\nno-build = true\n",
    }
    for text in changes:
        project.write_text(text)
        assert project_key(tmp_path) != before, text


@pytest.mark.usefixtures("interpreter")
def test_uvs_configuration_counts(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    before = project_key(tmp_path)
    assert project_key(tmp_path, {"UV_CACHE_DIR": "/nowhere", "UV_CONCURRENT_BUILDS": "2"}) == before
    assert project_key(tmp_path, {"UV_RESOLUTION": "lowest"}) != before
    assert project_key(tmp_path, {"UV_DEFAULT_INDEX": "https://host.invalid/simple"}) != before
    limits = tmp_path / "limits.txt"
    keys = set()
    for text in ("idna<3", "idna<4"):
        limits.write_text(text)
        keys.add(project_key(tmp_path, {"UV_CONSTRAINT": str(limits)}))
    (tmp_path / ".config" / "uv").mkdir(parents=True)
    (tmp_path / ".config" / "uv" / "uv.toml").write_text('exclude-newer = "2026-01-01T00:00:00Z"\n')
    keys |= {before, project_key(tmp_path)}
    assert len(keys) == 4
    assert project_key(tmp_path, {"UV_NO_CONFIG": "1"}) not in keys - {before}


def test_the_nearest_blueprint(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text("idna\n")
    (inner / "pyproject.toml").write_text("[tool.ruff]\n")  # says nothing of what is needed
    (inner / "notes.txt").write_text("idna\n")
    found = nearest(str(inner))
    assert found == Blueprint(str(tmp_path / "requirements.txt"), "requirements")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    found = nearest(str(inner))
    assert found == Blueprint(str(tmp_path / "pyproject.toml"), "pyproject")
    (tmp_path / "a" / "requirements.txt").write_text("idna\n")
    found = nearest(str(inner))
    assert found == Blueprint(str(tmp_path / "a" / "requirements.txt"), "requirements")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'[project\nname = "x"\n', r"pyproject\.toml is not valid TOML: .*line 1"),
        (b'name = "x"\n\n<<<<<<< HEAD\n', r"pyproject\.toml is not valid TOML: .*line 3"),
        (b"[tool.ruff]\nx = '\xff'\n", r"pyproject\.toml is not UTF-8 text"),
        (None, r"pyproject\.toml, is a symlink that leads nowhere"),
    ],
    ids=["cut", "conflict", "latin-1", "dangling"],
)
def test_unreadable_blueprint_does_not_fall_through(tmp_path: Path, text: bytes | None, says: str) -> None:
    (tmp_path / "requirements.txt").write_text("idna\n")
    path = tmp_path / "pyproject.toml"
    path.symlink_to("nowhere") if text is None else path.write_bytes(text)
    with pytest.raises(HoloError, match=says):
        nearest(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    ['\ufeff[project]\nname = "x"\n', '["project"]\nname = "x"\n', 'project.name = "x"\n', '[project.urls]\na = "b"\n'],
)
def test_project_is_recognized_however_it_is_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "requirements.txt").write_text("idna\n")
    (tmp_path / "pyproject.toml").write_text(text)
    assert nearest(str(tmp_path)) == Blueprint(str(tmp_path / "pyproject.toml"), "pyproject")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a file away")
def test_what_another_user_put_there_has_to_be_named(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("idna\n")
    os.chown(path, 12345, 12345)
    with pytest.raises(Conflict, match="another user"):
        nearest(str(tmp_path))
    assert named(str(path)).kind == "requirements"
    link = tmp_path / "a" / "requirements.txt"
    link.parent.mkdir()
    (tmp_path / "mine.txt").write_text("idna\n")
    link.symlink_to(tmp_path / "mine.txt")
    assert nearest(str(link.parent)) is not None
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(Conflict, match="another user"):
        nearest(str(link.parent))


def test_blueprint_kinds_are_recognized(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text("#!/usr/bin/env python\n# /// script\n# dependencies = []\n# ///\n")
    (tmp_path / "plain.py").write_text("print()\n")
    (tmp_path / "catalog.json").write_text("{}\n")
    kinds = {"tool": "script", "uv.lock": "pyproject", "dev.txt": "requirements", "conda.yaml": "conda"}
    for name in kinds.keys() - {"tool"}:
        (tmp_path / name).touch()
    kinds |= {"gpu.yml": "conda", "flow.yaml": "conda"}
    (tmp_path / "gpu.yml").write_text("# by hand\nname: gpu\ndependencies: [python]\n")
    (tmp_path / "flow.yaml").write_text("{channels: [conda-forge], dependencies: [python]}\n")
    for name, kind in kinds.items():
        found = recognise(str(tmp_path / name))
        assert found is not None
        assert found.kind == kind
    assert recognise(str(tmp_path / "plain.py")) is recognise(str(tmp_path / "catalog.json")) is None
    with pytest.raises(UsageError, match="not a blueprint"):
        named(str(tmp_path / "plain.py"))
    with pytest.raises(NotFound):
        named(str(tmp_path / "missing.txt"))


@pytest.mark.usefixtures("interpreter")
def test_a_build_begins_from_nothing_that_came_by_another_way(tmp_path: Path) -> None:
    """uv leaves what has the version that is wanted, so the same version of another origin must not be there."""

    def base(text: str, environ: dict[str, str] | None = None) -> str:
        path = write(tmp_path, requirements_txt=text)
        inputs = Inputs({"PATH": os.environ["PATH"], "HOME": str(tmp_path), **(environ or {})})
        found = python.packages(python.canonical(named(str(path)), inputs, BuildOptions()))
        assert found is not None
        return found.key

    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"one")
    before = base("./a-1-py3-none-any.whl\nidna==3.1\n")
    assert base("./a-1-py3-none-any.whl\nidna==3.2\nattrs\n") == before, "versions may be others"
    keys = {before, base("--index-url https://one.invalid/\n./a-1-py3-none-any.whl\nidna==3.1\n")}
    keys |= {base(f"{option} idna\n./a-1-py3-none-any.whl\nidna==3.1\n") for option in ("--no-binary", "--only-binary")}
    keys.add(base("./a-1-py3-none-any.whl\nidna @ https://one.invalid/idna-3.1.zip\n"))
    keys.add(base("./a-1-py3-none-any.whl\nidna==3.1\n", {"UV_DEFAULT_INDEX": "https://one.invalid/"}))
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"two")
    keys.add(base("./a-1-py3-none-any.whl\nidna==3.1\n"))
    assert len(keys) == 7


LOCK = 'version = 1\n[[package]]\nname = "idna"\nversion = "{}"\nsource = {{ {} }}\n'
REGISTRY = 'registry = "https://one.invalid/simple"'


@pytest.mark.usefixtures("interpreter")
def test_of_a_lock_the_sources_count_for_where_a_build_begins(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(PROJECT)
    own = '[[package]]\nname = "demo"\nsource = { virtual = "." }\ndependencies = [{ name = "idna" }]\n'
    keys = []
    for version, source, more in (
        ("3.1", REGISTRY, ""),
        ("3.2", REGISTRY, own),
        ("3.1", REGISTRY.replace("one", "two"), ""),
        ("3.1", 'path = "idna.whl"', ""),
    ):
        (tmp_path / "uv.lock").write_text(LOCK.format(version, source) + more)
        inputs = Inputs({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
        found = python.packages(python.canonical(named(str(project)), inputs, BuildOptions()))
        assert found is not None
        keys.append(found.key)
    assert keys[0] == keys[1], "another version of the same index"
    assert len(set(keys)) == 3


WORKSPACE = "[tool.uv.workspace]\nmembers = [{}]\nexclude = [{}]\n"


@pytest.mark.parametrize(
    ("members", "excluded", "place", "is_member"),
    [
        ('"packages/*"', "", "packages/a", True),
        ('"./packages/../packages/*/"', "", "packages/a", True),
        ('"packages/*"', "", "packages/a/b", False),
        ('"packages/*/[!c]"', "", "packages/a/b", True),
        ('"packages/**"', "", "packages/a/b", True),
        ('"**/b"', "", "packages/a/b", True),
        ('"**/b"', "", "b", True),
        ('"other"', "", "packages/a", False),
        ("", "", "packages/a", False),
        ('"packages/a/b"', '"packages/*"', "packages/a/b", False),
        ('"packages/*"', '"packages/b"', "packages/a", True),
        ('"packages/*"', '"packages/a"', "packages/a", False),
        ('"**/b"', '"**/b"', "b", False),
    ],
)
def test_who_is_a_member_of_a_workspace(
    tmp_path: Path, members: str, excluded: str, place: str, is_member: bool
) -> None:
    """Each as uv 0.13 has it (`uv lock -v`)."""
    root, folder = tmp_path / "work", tmp_path / "work" / place
    folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text(WORKSPACE.format(members, excluded))
    (folder / "pyproject.toml").write_text(PROJECT)
    for locked in (root, folder):
        (locked / "uv.lock").touch()
    assert python._workspace(str(folder), Inputs({})) == str(root if is_member else folder)


@pytest.mark.usefixtures("interpreter")
def test_of_a_member_the_lock_of_the_workspace_counts(tmp_path: Path) -> None:
    """Whatever lies in the member's folder of former times: uv never looks at it."""
    (tmp_path / "pyproject.toml").write_text(WORKSPACE.format('"a"', ""))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "uv.lock").write_text(LOCK.format("3.1", REGISTRY))
    before = project_key(tmp_path / "a")
    (tmp_path / "a" / "uv.lock").write_text(LOCK.format("3.0", REGISTRY))
    assert project_key(tmp_path / "a") == before
    (tmp_path / "uv.lock").write_text(LOCK.format("3.2", REGISTRY))
    assert project_key(tmp_path / "a") != before
    (tmp_path / "uv.lock").unlink()
    assert python._workspace(str(tmp_path / "a"), Inputs({})) is None


@pytest.mark.parametrize("between", [PROJECT, "[tool.ruff]\n"])
def test_the_first_project_above_decides(tmp_path: Path, between: str) -> None:
    (tmp_path / "pyproject.toml").write_text(WORKSPACE.format('"a/b"', ""))
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "pyproject.toml").write_text(between)
    (tmp_path / "a" / "b" / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "uv.lock").touch()
    assert python._workspace(str(tmp_path / "a" / "b"), Inputs({})) is None


@pytest.mark.usefixtures("interpreter")
def test_of_a_script_its_lock_counts_and_its_code_does_not(tmp_path: Path) -> None:
    script, keys = tmp_path / "job.py", []
    for code, version in (("", None), ("print()\n", None), ("", "3.1"), ("", "3.2")):
        script.write_text('# /// script\n# dependencies = ["idna"]\n# ///\n' + code)
        if version is not None:
            (tmp_path / "job.py.lock").write_text(LOCK.format(version, REGISTRY))
        keys.append(key_of(python.canonical(named(str(script)), Inputs({"HOME": str(tmp_path)}), BuildOptions())))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_script_may_have_the_line_ends_of_windows() -> None:
    text = '# /// script\r\n# dependencies = ["idna"]\r\n# ///\r\nimport idna\r\n'
    assert python.script_metadata(text, "job.py") == {"dependencies": ["idna"]}


def test_pythons_pinned_for_the_user_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "_answer", lambda *_: "/usr/bin/python3")
    path = write(tmp_path, requirements_txt="idna\n")
    inputs = Inputs({"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")})
    python.canonical(named(str(path)), inputs, BuildOptions())
    assert str(tmp_path / "home" / ".config" / "uv" / ".python-version") in inputs.files
    assert {str(tmp_path / ".python-version"), "/.python-version"} <= inputs.files.keys()


def test_the_pythons_of_uv_are_watched(tmp_path: Path) -> None:
    pythons = tmp_path / "pythons"
    environ = {"HOME": str(tmp_path), "UV_PYTHON_INSTALL_DIR": str(pythons), "UV_PYTHON": sys.executable}
    inputs = Inputs({"PATH": os.environ["PATH"], **environ})
    python.canonical(named(str(write(tmp_path, requirements_txt="idna\n"))), inputs, BuildOptions())
    assert are_unchanged(inputs.files)
    (pythons / "cpython-3.99").mkdir(parents=True)
    assert not are_unchanged(inputs.files)


def test_secrets_are_not_in_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(str(tmp_path / "log"))
    secrets = (
        "https://ada:ses@me@host.invalid/a",
        "https://host.invalid/t/sesame/channel",
        "https://sesame@host.invalid",
    )
    for secret in secrets:
        with pytest.raises(HoloError, match=r"exit code 1") as failed:
            log.run(["sh", "-c", f"echo {secret}; exit 1"], env=os.environ, cwd="/", name=f"command {secret}")
        assert not re.search("sesame|me@", failed.value.message)
    log.close()
    for text in (capfd.readouterr().err, (tmp_path / "log").read_text()):
        assert "host.invalid" in text
        assert "sesame" not in text
        assert "me@" not in text


@pytest.mark.parametrize(
    ("chosen", "groups"),
    [
        ("", ["dev"]),
        ("default-groups = []", []),
        ('default-groups = "all"', ["Docs_Site", "dev", "lint"]),
        ('default-groups = ["docs-site", "lint", "absent"]', ["Docs_Site", "lint"]),
        ("default-groups = 1", ["Docs_Site", "dev", "lint"]),  # which uv refuses
    ],
)
def test_default_groups(tmp_path: Path, chosen: str, groups: list[str]) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(f"[dependency-groups]\ndev = []\nlint = []\nDocs_Site = []\n[tool.uv]\n{chosen}\n")
    assert python._default_groups(Blueprint(str(path), "pyproject"), Inputs({})) == groups


def test_quiet_leaves_the_warnings_of_a_build(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_is_quiet", True)
    log = Log(str(tmp_path / "log"))
    log.say("recording app")
    log.warn("bin/activate names the prefix")
    log.close()
    assert capfd.readouterr().err == "warning: bin/activate names the prefix\n"
    assert (tmp_path / "log").read_text() == "recording app\nwarning: bin/activate names the prefix\n"


def test_what_tools_keep_in_a_project_is_not_made_by_a_build(tmp_path: Path) -> None:
    """Else no other checkout could use the build."""
    for name in ("src/app/__init__.py", "src/app/_c.so", "gone"):
        trees.write(tmp_path / name, "")
    before = in_place.sources([str(tmp_path)])
    for name in (
        *(
            "app.egg-info/PKG-INFO",
            "build/lib/app.py",
            "build/temp.linux/c.o",
            "build/__editable__.app/x",
            "build/cp311/made",
        ),
        *(
            "src/app/__pycache__/x.pyc",
            ".cache/x",
            ".swp",
            "env/pyvenv.cfg",
            "env/x",
            "target/CACHEDIR.TAG",
            "target/x.o",
        ),
        *("node_modules/x", "src/app/_version.py"),
    ):
        trees.write(tmp_path / name, "")
    (tmp_path / "src/app/_c.so").unlink()
    trees.write(tmp_path / "src/app/_c.so", "anew")
    (tmp_path / "gone").unlink()
    made = in_place.made(before, in_place.sources([str(tmp_path), str(tmp_path / "src")]))
    names = [os.path.relpath(path, tmp_path) for path in made]
    assert names == ["build/cp311/made", "src/app/_c.so", "src/app/_version.py"]


@pytest.mark.parametrize(
    ("record", "is_code"),
    [
        (
            "app.pth,,\n__editable___app_finder.py,,\n__pycache__/x.pyc,,\n../../../bin/app,,\napp-1.dist-info/RECORD,,\n",
            False,
        ),
        ("app.pth,,\napp/_c.so,,\n", True),
        ("_c.cpython-311-x86_64-linux-gnu.so,,\n", True),
        ("app/__init__.py,,\n", True),
        ("\n", False),
    ],
)
def test_code_of_a_project_in_an_environment(tmp_path: Path, record: str, is_code: bool) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    trees.write(site / "The_app-1.dist-info" / "RECORD", record)
    trees.write(site / "other-1.dist-info" / "RECORD", "other/__init__.py,,\n")
    assert in_place.copies_code(str(tmp_path), {"the-app"}) == is_code
