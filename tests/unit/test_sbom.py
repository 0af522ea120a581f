"""The list of what is in a catalog: whatever the files say, it is true to them, valid, and the same each time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL
from packaging.licenses import canonicalize_license_expression

from holo import digest as digests
from holo.catalog import Catalog, FileRow
from holo.content import Hole, Piece
from holo.hololib import CatalogRef
from holo.platform import Directory
from holo.sbom import Sbom, sbom_of
from holo.sbom.identifiers import EXCEPTIONS, LICENSES
from holo.sbom.licences import Licence, expression, licence_of_python
from holo.sbom.packages import (
    NotUnderstood,
    Package,
    conda_package,
    node_lock,
    node_package,
    python_package,
)

SCHEMA = JsonStrictValidator(SchemaVersion.V1_6)


class Memory:
    """Contents that are held here. Counts what is read."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.read: list[str] = []

    def add(self, data: bytes) -> str:
        digest = digests.of(data)
        self.held[digest] = data
        return digest

    def chunks(self, digest: str, size: int) -> Iterator[Piece]:
        self.read.append(digest)
        data = self.held[digest]
        assert len(data) == size
        half = len(data) // 2
        yield data[:half]
        yield Hole(len(data) - half) if not any(data[half:]) else data[half:]

    def clone(self, *_: object, **__: object) -> int | None:
        raise AssertionError("nothing is restored")

    def why_no_reflink(self, target: Directory) -> str | None:
        raise AssertionError("nothing is restored")


def catalog_of(
    files: dict[str, bytes], links: dict[str, str] | None = None, prefix: str = "/env"
) -> tuple[Catalog, Memory]:
    """A catalog of files, and symlinks, by path."""
    memory = Memory()
    folders: dict[str, tuple[list[FileRow], list[Any]]] = {"": ([], [])}
    for path in [*files, *(links or {})]:
        parts = path.split("/")[:-1]
        for end in range(len(parts)):
            folders.setdefault("/".join(parts[: end + 1]), ([], []))
    for path, data in files.items():
        folder, _, name = path.rpartition("/")
        folders[folder][0].append((name, 0o644, len(data), 0, memory.add(data)))
    for path, target in (links or {}).items():
        folder, _, name = path.rpartition("/")
        folders[folder][1].append((name, target, 0))
    rows = [(path, 0o755, 0, *folders[path]) for path in sorted(folders)]
    catalog = Catalog(prefix, rows, {}, [], {})
    catalog.check()
    return catalog, memory


def listed(files: dict[str, bytes], links: dict[str, str] | None = None, prefix: str = "/env") -> Sbom:
    """The list of such a catalog, held to the schema."""
    catalog, memory = catalog_of(files, links, prefix)
    found = sbom_of(CatalogRef("env", catalog.digest), catalog, memory)
    refuse_invalid(found)
    return found


def refuse_invalid(found: Sbom) -> None:
    error = SCHEMA.validate_str(found.document)
    assert error is None, error
    for component in components(found):
        assert PackageURL.from_string(component["purl"]).to_string()
        for item in component.get("licenses", ()):
            if "expression" in item:
                refuse_unknown(item["expression"])


def refuse_unknown(found: str) -> None:
    """Raise if an expression is none for others, or is not in its canonical spelling."""
    assert canonicalize_license_expression(found) == found


def components(found: Sbom) -> list[dict[str, Any]]:
    document = json.loads(found.document)
    listed: list[dict[str, Any]] = document["components"]
    assert len(listed) == found.components
    return listed


def only(found: Sbom) -> dict[str, Any]:
    (component,) = components(found)
    assert found.skipped == ()
    return component


def metadata(name: str = "Some.Package", version: str = "1.0", *more: str) -> bytes:
    return "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *more, "", "Name: no"]).encode()


def python(data: bytes, origin: object = None) -> Package:
    return python_package(data, json.dumps(origin).encode() if origin is not None else None)


SITE = "lib/python3.11/site-packages"


# -- what is found ------------------------------------------------------------------------------------------


def test_python_package() -> None:
    path = f"{SITE}/some_package-1.0.dist-info/METADATA"
    assert only(listed({path: metadata("Some.Package", "1.0+cpu", "License-Expression: mit or Apache-2.0")})) == {
        "type": "library",
        "bom-ref": "pkg:pypi/some-package@1.0%2Bcpu",
        "name": "Some.Package",
        "version": "1.0+cpu",
        "purl": "pkg:pypi/some-package@1.0%2Bcpu",
        "licenses": [{"expression": "MIT OR Apache-2.0", "acknowledgement": "declared"}],
        "evidence": {"occurrences": [{"location": path}]},
    }


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/a-1.dist-info/METADATA",
        f"{SITE}/setuptools/_vendor/a-1.dist-info/METADATA",
        f"{SITE}/a-1.egg-info/PKG-INFO",
        f"{SITE}/a-1.egg-info",
        f"{SITE}/a-1-py3.11.egg/EGG-INFO/PKG-INFO",
        "a.egg-info/PKG-INFO",
    ],
)
def test_where_python_packages_are(path: str) -> None:
    assert only(listed({path: metadata()}))["evidence"]["occurrences"] == [{"location": path}]


CONDA = {
    "name": "numpy",
    "version": "2.1.0",
    "build": "py311h71ddf71_1",
    "subdir": "linux-64",
    "channel": "https://conda.anaconda.org/conda-forge/linux-64",
    "fn": "numpy-2.1.0-py311h71ddf71_1.conda",
    "license": "BSD-3-Clause",
    "md5": "9" * 32,
    "sha256": "A" * 64,
    "url": "https://conda.anaconda.org/conda-forge/linux-64/numpy-2.1.0-py311h71ddf71_1.conda",
    "files": ["lib/a"],
}


def test_conda_package() -> None:
    component = only(listed({"conda-meta/numpy.json": json.dumps(CONDA).encode(), "conda-meta/history": b"=="}))
    assert component["purl"] == (
        "pkg:conda/numpy@2.1.0?build=py311h71ddf71_1&channel=conda-forge&subdir=linux-64&type=conda"
    )
    assert component["hashes"] == [{"alg": "MD5", "content": "9" * 32}, {"alg": "SHA-256", "content": "a" * 64}]
    assert component["licenses"][0]["expression"] == "BSD-3-Clause"
    assert component["externalReferences"] == [{"type": "distribution", "url": CONDA["url"]}]


@pytest.mark.parametrize(
    ("channel", "shown"),
    [
        ("conda-forge", "conda-forge"),
        ("https://repo.anaconda.com/pkgs/main/linux-64", "main"),
        ("https://conda.anaconda.org/t/tk-hunter2/private/linux-64", "private"),
        ("https://user:hunter2@conda.example.org:8080/team/linux-64", "https://conda.example.org:8080/team"),
        ("user:hunter2@conda.example.org/team", None),
        ("file:///home/ada/channel/linux-64", None),
        (7, None),
    ],
)
def test_channel(channel: object, shown: str | None) -> None:
    package = conda_package(json.dumps({**CONDA, "channel": channel}).encode())
    assert PackageURL.from_string(package.purl).qualifiers.get("channel") == shown


def node(name: str, version: str = "1.0.0", **more: object) -> bytes:
    return json.dumps({"name": name, "version": version, "license": "MIT", **more}).encode()


SHA512 = "sha512-" + "A" * 86 + "=="
LOCKED = {
    "version": "1.0.0",
    "resolved": "https://registry.example.org/b.tgz?token=hunter2#x",
    "integrity": SHA512,
}


def lock(**packages: object) -> bytes:
    return json.dumps({"lockfileVersion": 3, "packages": packages}).encode()


def test_node_packages() -> None:
    files = {
        "package.json": node("project"),
        "node_modules/.bin/tool/package.json": node("tool"),
        "node_modules/a/package.json": node("a"),
        "node_modules/a/dist/package.json": node("no-package-position"),
        "node_modules/a/node_modules/@scope/b/package.json": node("@scope/b"),
        "node_modules/@scope/package.json": node("nor-this"),
        "node_modules/.pnpm/c@1.0.0/node_modules/c/package.json": node("c"),
        "node_modules/alias/package.json": node("d"),
        "my_node_modules/e/package.json": node("e"),
        "node_modules/.package-lock.json": lock(
            **{"node_modules/a": {**LOCKED, "version": "2.0.0"}, "node_modules/a/node_modules/@scope/b": LOCKED}
        ),
    }
    found = {component["purl"]: component for component in components(listed(files))}
    assert [*found] == [f"pkg:npm/{name}@1.0.0" for name in ("%40scope/b", "a", "c", "d")]
    scoped = found["pkg:npm/%40scope/b@1.0.0"]
    assert (scoped["group"], scoped["name"]) == ("@scope", "b")
    assert scoped["hashes"] == [{"alg": "SHA-512", "content": "00" * 64}]
    assert scoped["externalReferences"] == [{"type": "distribution", "url": "https://registry.example.org/b.tgz"}]
    assert "hashes" not in found["pkg:npm/a@1.0.0"], "the lock is about another version"


@pytest.mark.parametrize(
    ("prefix", "names"), [("/web/node_modules", {"a/package.json"}), ("/stage", {".package-lock.json"})]
)
def test_tree_that_is_node_modules(prefix: str, names: set[str]) -> None:
    files = {"a/package.json": node("a"), ".package-lock.json": lock(**{"node_modules/a": LOCKED})}
    kept = {path: data for path, data in files.items() if path in names | {"a/package.json"}}
    component = only(listed(kept, prefix=prefix))
    assert component["purl"] == "pkg:npm/a@1.0.0"
    assert ("hashes" in component) is (".package-lock.json" in kept)


def test_nothing_is_found_elsewhere() -> None:
    files = {
        "METADATA": metadata(),
        "a.dist-info/other": metadata(),
        "a/package.json": node("a"),
        "meta/a.json": json.dumps(CONDA).encode(),
    }
    assert components(listed(files)) == []


def test_same_package_twice() -> None:
    """Of one description one component with both places, of two descriptions two."""
    files = {f"node_modules/{name}/node_modules/x/package.json": node("x") for name in ("b", "a")}
    files["node_modules/x/package.json"] = node("x", license="ISC")
    first, second = components(listed(files))
    assert first["purl"] == second["purl"] == first["bom-ref"] != second["bom-ref"]
    assert [len(each["evidence"]["occurrences"]) for each in (first, second)] == [1, 2]
    assert [place["location"][13] for place in second["evidence"]["occurrences"]] == ["a", "b"]


def test_it_names_the_catalog_and_is_the_same_each_time() -> None:
    files = {f"{SITE}/{name}-1.dist-info/METADATA": metadata(name) for name in "cab"}
    one, two = (listed(dict(sorted(files.items(), reverse=back))) for back in (False, True))
    catalog, memory = catalog_of(files)
    assert one == two == sbom_of(CatalogRef("env", catalog.digest), catalog, memory)
    document = json.loads(one.document)
    assert document["metadata"]["component"]["name"] == "env"
    assert document["metadata"]["component"]["hashes"] == [{"alg": "BLAKE3", "content": catalog.digest}]
    assert [each["name"] for each in document["components"]] == ["a", "b", "c"]
    other = json.loads(sbom_of(CatalogRef("other", catalog.digest), catalog, memory).document)
    assert other["serialNumber"] != document["serialNumber"]


# -- licences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("MIT", "MIT"),
        ("apache-2.0", "Apache-2.0"),
        ("(MIT or  Apache-2.0) AND (BSD-3-Clause)", "(MIT OR Apache-2.0) AND (BSD-3-Clause)"),
        ("GPL-2.0+", "GPL-2.0+"),
        ("Apache-2.0+", "Apache-2.0+"),
        ("GPL-3.0-only WITH GCC-exception-3.1", "GPL-3.0-only WITH GCC-exception-3.1"),
        ("LicenseRef-Public-Domain AND ISC", "LicenseRef-Public-Domain AND ISC"),
    ],
)
def test_expression_of_spdx(text: str, canonical: str) -> None:
    assert expression(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", "BSD", "Apache 2.0", "MIT License", "MIT,", "MIT AND", "AND MIT", "MIT ISC", "(MIT", "MIT)", "()"),
        *("MIT WITH", "MIT WITH MIT", "(MIT) WITH GCC-exception-3.1", "MIT Or ISC", "MIT/X11", "UNLICENSED"),
        *("SEE LICENSE IN a", "MIT AND " * 1000 + "MIT"),
    ],
)
def test_other_words(text: str) -> None:
    assert expression(text) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"declared": "MIT", "text": "BSD", "classifiers": ["License :: Public Domain"]}, Licence("MIT")),
        ({"declared": "my own", "text": "MIT"}, Licence(names=("my own",))),
        ({"text": "mit", "classifiers": ["License :: OSI Approved :: BSD License"]}, Licence("MIT")),
        (
            {"text": "BSD", "classifiers": ["License :: OSI Approved", "License :: OSI Approved :: BSD License"]},
            Licence(names=("BSD License", "BSD")),
        ),
        ({"text": "Copyright me\nAll of\nthe text"}, Licence(names=("Copyright me",))),
        (
            {"text": "Copyright me\nAll of\nthe text", "classifiers": ["License :: OSI Approved :: MIT License"]},
            Licence(names=("MIT License",)),
        ),
        ({"text": "UNKNOWN"}, Licence()),
        ({"text": "x" * 1000}, Licence(names=("x" * 200,))),
        ({"text": "\x1b[2Jred"}, Licence(names=("[2Jred",))),
        ({"text": "see https://me:hunter2@host/a?key=hunter2"}, Licence(names=("see https://host/a",))),
        ({}, Licence()),
    ],
)
def test_licence_of_python(headers: dict[str, Any], expected: Licence) -> None:
    given = {"declared": None, "text": None, "classifiers": [], **headers}
    assert licence_of_python(given["declared"], given["text"], given["classifiers"]) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"license": "(MIT OR ISC)"}, Licence("(MIT OR ISC)")),
        ({"license": {"type": "MIT", "url": "https://example.org"}}, Licence("MIT")),
        ({"licenses": [{"type": "MIT"}]}, Licence("MIT")),
        ({"licenses": [{"type": "MIT"}, {"type": "Apache 2"}, 7]}, Licence(names=("MIT", "Apache 2"))),
        ({"license": "SEE LICENSE IN a.txt"}, Licence(names=("SEE LICENSE IN a.txt",))),
        ({"license": ["MIT"] * 10**5}, Licence(names=("MIT",))),
        ({"license": 7}, Licence()),
        ({}, Licence()),
    ],
)
def test_licence_of_node(given: dict[str, Any], expected: Licence) -> None:
    assert node_package(json.dumps({"name": "a", "version": "1", **given}).encode()).licence == expected


words = st.sampled_from(
    ["MIT", "mit", "GPL-2.0+", "ISC+", "AND", "or", "WITH", "(", ")", "GCC-exception-3.1", "LicenseRef-a", "BSD", ","]
)


@given(st.lists(words, max_size=9).map(" ".join))
def test_an_expression_is_one_for_others_too(text: str) -> None:
    found = expression(text)
    if found is not None:
        refuse_unknown(found)
        assert expression(found) == found


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0 or draw(st.booleans()):
        licence = draw(st.sampled_from(LICENSES.split()))
        return f"{licence} WITH {draw(st.sampled_from(EXCEPTIONS.split()))}" if draw(st.booleans()) else licence
    left, right = draw(expressions(depth=depth - 1)), draw(expressions(depth=depth - 1))
    return f"({left}) {draw(st.sampled_from(['AND', 'OR']))} {right}"


@given(expressions())
def test_every_expression_is_found(text: str) -> None:
    assert expression(text) == (text if len(text) <= 1000 else None)
    assert (expression(text.lower()) or text) == text


# -- where from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "hashes", "references"),
    [
        (
            {"url": "https://u:hunter2@host/a.whl?hunter2", "archive_info": {"hashes": {"sha256": "b" * 64, "x": "1"}}},
            (("SHA-256", "b" * 64),),
            (("distribution", "https://host/a.whl"),),
        ),
        (
            {"url": "file:///home/ada/a.whl", "archive_info": {"hash": "sha256=" + "b" * 64}},
            (("SHA-256", "b" * 64),),
            (),
        ),
        (
            {"url": "ssh://git@host:22/a.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            (),
            (("vcs", "git+ssh://host:22/a.git@c0ffee"),),
        ),
        ({"url": "https://host/t/hunter2/a.whl", "archive_info": {}}, (), ()),
        ({"url": "https://[::1]/a b.whl", "archive_info": {}}, (), (("distribution", "https://[::1]/a%20b.whl"),)),
        ({"url": "https://host:hunter2/a", "archive_info": {}}, (), ()),
        ({"url": "file:///home/ada/a", "dir_info": {"editable": True}}, (), ()),
        ({"url": "https://host/" + "a" * 5000, "archive_info": {"hash": "sha256=b"}}, (), ()),
        ([], (), ()),
    ],
)
def test_origin_of_python(origin: object, hashes: object, references: object) -> None:
    package = python(metadata(), origin)
    assert (package.hashes, package.references) == (hashes, references)


@pytest.mark.parametrize(
    ("entry", "hashes", "references"),
    [
        ({"integrity": "sha1-" + "A" * 27 + "= " + SHA512}, ["SHA-1", "SHA-512"], []),
        ({"integrity": f"{SHA512} {SHA512}"}, [], []),
        ({"integrity": f"{SHA512}?option"}, ["SHA-512"], []),
        ({"integrity": "sha512-AAAA md5- x sha512-é"}, [], []),
        ({"resolved": "git+ssh://git@host/a.git#c0ffee"}, [], [("vcs", "git+ssh://host/a.git@c0ffee")]),
        ({"resolved": "file:../a"}, [], []),
        ({"resolved": 7, "integrity": {}}, [], []),
    ],
)
def test_origin_of_node(entry: dict[str, Any], hashes: list[str], references: object) -> None:
    found = node_lock(lock(**{"node_modules/a": {"version": "1", **entry}}))
    if not hashes and not references:
        assert found == {}
    else:
        assert [algorithm for algorithm, _ in found["a"].hashes] == hashes
        assert [*found["a"].references] == references


# -- hostile files ------------------------------------------------------------------------------------------

BAD = {
    f"{SITE}/a.dist-info/METADATA": b"",
    f"{SITE}/b.dist-info/METADATA": metadata("-"),
    f"{SITE}/c.dist-info/METADATA": b"Name: c\n\nVersion: 1\n",
    f"{SITE}/d.egg-info": b"\xff\xfe\0",
    f"{SITE}/e.dist-info/METADATA": metadata("e", "https://user:hunter2@host/"),
    f"{SITE}/f.dist-info/METADATA": metadata("f", "1" * 300),
    f"{SITE}/g.dist-info/METADATA": metadata("g") + bytes(4 << 20),
    f"{SITE}/h.dist-info/METADATA": metadata("h", "1.0", "License: " + "x" * (1 << 20)),
    "conda-meta/a.json": b"[" * 100_000,
    "conda-meta/b.json": b'{"name": "b", "version": ' + b"9" * 5000 + b"}",
    "conda-meta/c.json": b'{"name": "c", "version": "\xe9"}',
    "conda-meta/d.json": b'{"name": "\\ud800", "version": "1"}',
    "conda-meta/e.json": b"null",
    "node_modules/a/package.json": node("../../a"),
    "node_modules/b/package.json": node("b", ["1"]),
    "node_modules/c/package.json": node("c", "1\n2"),
    "node_modules/d/package.json": b'{"name": "d"}',
    "node_modules/.package-lock.json": b"{}",
}


def test_what_cannot_be_understood_is_skipped_and_counted() -> None:
    links = {f"{SITE}/i.dist-info": "/elsewhere", f"{SITE}/j.egg-info/PKG-INFO": "../x", "conda-meta/f.json": "/x"}
    found = listed({**BAD, f"{SITE}/ok-1.dist-info/METADATA": metadata("ok")}, links)
    assert [each["name"] for each in components(found)] == ["ok"]
    assert sorted(found.skipped) == sorted([*BAD, *links])
    (warning,) = found.warnings
    assert "21 files" in warning
    assert "hunter2" not in found.document + warning


def test_latin_1_beside_the_name_is_no_reason_to_skip() -> None:
    assert only(listed({"a.dist-info/METADATA": metadata() + b"\nAuthor: \xe9"}))["name"] == "Some.Package"
    data = metadata().replace(b"Metadata-Version: 2.4", b"Author: \xe9\nLicense: \xe9")
    assert only(listed({"a.dist-info/METADATA": data}))["name"] == "Some.Package"


def test_a_large_file_is_not_read() -> None:
    large = metadata() + b"x" * (4 << 20)
    catalog, memory = catalog_of({"a.dist-info/METADATA": large, "a.dist-info/direct_url.json": large})
    assert sbom_of(CatalogRef("env", catalog.digest), catalog, memory).skipped == ("a.dist-info/METADATA",)
    assert memory.read == []


def test_a_content_is_read_once() -> None:
    """However often it is named: else a catalog of few bytes would take days."""
    files = {f"node_modules/{number}/package.json": node("a") for number in range(500)}
    files |= {f"node_modules/{number}/node_modules/.package-lock.json": lock() for number in range(500)}
    catalog, memory = catalog_of(files)
    found = sbom_of(CatalogRef("env", catalog.digest), catalog, memory)
    assert (found.components, found.skipped, len(memory.read)) == (1, (), 2)


def test_there_is_an_end_to_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holo.sbom._MOST_READ", 10 * len(metadata("a0")))
    found = listed({f"a{number}.dist-info/METADATA": metadata(f"a{number}") for number in range(10, 30)})
    assert (found.components, len(found.skipped)) == (9, 11)


def test_names_that_are_not_utf_8() -> None:
    path = "caf\udce9\n/a.dist-info/METADATA"
    assert only(listed({path: metadata()}))["evidence"]["occurrences"] == [
        {"location": "caf\\xe9\n/a.dist-info/METADATA"}
    ]


def test_warning_of_one() -> None:
    found = listed({"conda-meta/a.json": b""})
    assert found.warnings == (
        "skipped 1 file that should describe a package (malformed, too large, or a symlink): conda-meta/a.json",
    )


PARSERS = {
    "METADATA": lambda data: python_package(data, None),
    "direct_url.json": lambda data: python_package(metadata(), data),
    "conda-meta": conda_package,
    "package.json": node_package,
    ".package-lock.json": node_lock,
}


@pytest.mark.parametrize("kind", PARSERS)
@given(data=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_understood_or_not(kind: str, data: bytes) -> None:
    with suppress(NotUnderstood):
        PARSERS[kind](data)


SECRET = "hunter2"
texts = st.text(max_size=20) | st.sampled_from(
    ["a", "1.0", "MIT", "@s/a", SHA512, "b" * 64, "git", "\ud800", "\x1b]0;", "linux-64", "sha256=" + "b" * 64]
    + [f"{scheme}://u:{SECRET}@host/a" for scheme in ("https", "git+ssh", "ssh", "file", "")]
    + [f"https://host/t/{SECRET}/a.whl", f"https://host/a?token={SECRET}", f"git+https://{SECRET}@host/a#c0ffee"]
)
values = st.recursive(
    texts | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def objects(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these keys; mostly with a name and a version that are such."""
    named = st.fixed_dictionaries({}, optional={"name": st.just("a"), "version": st.just("1.0")})
    return st.builds(
        lambda more, fine: {**more, **fine}, st.fixed_dictionaries({}, optional=dict.fromkeys(keys, values)), named
    )


conda_records = objects("name", "version", "build", "subdir", "channel", "fn", "license", "md5", "sha256", "url")
node_records = objects("name", "version", "license", "licenses")
locks = st.fixed_dictionaries(
    {"packages": st.dictionaries(st.sampled_from(["node_modules/a", "a"]), objects("version", "resolved", "integrity"))}
)
origins = st.fixed_dictionaries(
    {"url": texts},
    optional={
        "archive_info": objects("hash", "hashes"),
        "vcs_info": st.fixed_dictionaries({"vcs": st.just("git"), "commit_id": texts}),
    },
)
fields = st.sampled_from(["Name", "Version", "License", "License-Expression", "Classifier", "\udce9", ""])
headers = st.lists(st.tuples(fields, texts), max_size=6)


@settings(max_examples=150)
@given(conda=conda_records, package=node_records, locked=locks, origin=origins, lines=headers)
def test_whatever_they_say_the_document_is_valid(
    conda: Any, package: Any, locked: Any, origin: Any, lines: list[tuple[str, str]]
) -> None:
    """And no credential of a URL is in it."""
    text = "\n".join(["Name: a", "Version: 1", *(f"{key}: {value}" for key, value in lines)])
    files = {
        "conda-meta/a.json": json.dumps(conda).encode(),
        "node_modules/a/package.json": json.dumps(package).encode(),
        "node_modules/.package-lock.json": json.dumps(locked).encode(),
        "a.dist-info/METADATA": text.encode("utf-8", "surrogatepass"),
        "a.dist-info/direct_url.json": json.dumps(origin).encode(),
    }
    found = listed(files)
    assert SECRET not in found.document
    assert len({each["bom-ref"] for each in components(found)}) == found.components
    assert found.document.isascii()
    assert re.search(r"[\x00-\x08\x0e-\x1f\x7f]", found.document) is None
