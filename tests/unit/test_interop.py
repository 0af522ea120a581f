"""What other tools wrote is hostile: any bytes give an error of holo's or a result, and nothing else."""

from __future__ import annotations

import io
import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holo.errors import HoloError
from holo.interop import packed, rcc
from holo.interop.siphash import SipHash128
from holo.interop.tree import Environment
from support import packs

VECTORS = re.findall(
    "[0-9a-f]{32}",
    """
    a3817f04ba25a8e66df67214c7550293 da87c1d86b99af44347659119b22fc45 8177228da4a45dc7fca38bdef60affe4
    9c70b60c5267a94e5f33b6b02985ed51 f88164c12d9c8faf7d0f6e7c7bcd5579 1368875980776f8854527a07690e9627
    14eeca338b208613485ea0308fd7a15e a1f1ebbed8dbc153c0b84aa61ff08239 3b62a9ba6258f5610f83e264f31497b4
    264499060ad9baabc47f8b02bb6d71ed 00110dc378146956c95447d3f3d0fbba 0151c568386b6677a2b4dc6f81e5dc18
    d626b266905ef35882634df68532c125 9869e247e9c08b10d029934fc4b952f7 31fcefac66d7de9c7ec7485fe4494902
    5493e99933b0a8117e08ec0f97cfc3d9 6ee2a4ca67b054bbfd3315bf85230577 473d06e8738db89854c066c47ae47740
    a426e5e423bf4885294da481feaef723 78017731cf65fab074d5208952512eb1 9e25fc833f2290733e9344a5e83839eb
    568e495abe525a218a2214cd3e071d12 4a29b54552d16b9a469c10528eff0aae c9d184ddd5a9f5e0cf8ce29a9abf691c
    2db479ae78bd50d8882a8a178a6132ad 8ece5f042d5e447b5051b9eacb8d8f6f 9c0b53b4b3c307e87eaee08678141f66
    abf248af69a6eae4bfd3eb2f129eeb94 0664da1668574b88b935f3027358aef4 aa4b9dc4bf337de90cd4fd3c467c6ab7
    ea5c7f471faf6bde2b1ad7d4686d2287 2939b0183223fafc1723de4f52c43d35 7c3956ca5eeafc3e363e9d556546eb68
    77c6077146f01c32b6b69d5f4ea9ffcf 37a6986cb8847edf0925f0f1309b54de a705f0e69da9a8f907241a2e923c8cc8
    3dc47d1f29c448461e9e76ed904f6711 0d62bf01e6fc0e1a0d3c4751c5d3692b 8c03468bca7c669ee4fd5e084bbee7b5
    528a5bb93baf2c9c4473cce5d0d22bd9 df6a301e95c95dad97ae0cc8c6913bd8 801189902c857f39e73591285e70b6db
    e617346ac9c231bb3650ae34ccca0c5b 27d93437efb721aa401821dcec5adf89 89237d9ded9c5e78d8b1c9b166cc7342
    4a6d8091bf5e7d651189fa94a250b14c 0e33f96055e7ae893ffc0e3dcf492902 e61c432b720b19d18ec8d84bdc63151b
    f7e5aef549f782cf379055a608269b16 438d030fd0b7a54fa837f2ad201a6403 a590d3ee4fbf04e3247e0d27f286423f
    5fe2c1a172fe93c4b15cd37caef9f538 2c97325cbd06b36eb2133dd08b3a017c 92c814227a6bca949ff0659f002ad39e
    dce850110bd8328cfbd50841d6911d87 67f14984c7da791248e32bb5922583da 1938f2cf72d54ee97e94166fa91d2a36
    74481e9646ed49fe0f6224301604698e 57fca5de98a9d6d8006438d0583d8a1d 9fecde1cefdc1cbed4763674d9575359
    e3040c00eb28f15366ca73cbd872e740 7697009a6a831dfecca91c5993670f7a 5853542321f567a005d547a4f04759bd
    5150d1772f50834a503e069a973fbd7c
""",
)
"""Of the reference implementation (veorq/SipHash): of 0 to 63 bytes 00 01 .., with the key 00 .. 0f."""

FREE = 1 << 40
DIGEST = "ab" * 32


@pytest.mark.parametrize("length", range(64))
def test_siphash_is_that_of_the_reference(length: int) -> None:
    digest = SipHash128(bytes(range(16)))
    digest.update(bytes(range(length)))
    assert digest.hexdigest() == VECTORS[length]


@given(st.lists(st.binary(max_size=40)))
def test_siphash_in_pieces(pieces: list[bytes]) -> None:
    whole, parts = SipHash128(bytes(16)), SipHash128(bytes(16))
    whole.update(b"".join(pieces))
    for piece in pieces:
        parts.update(piece)
    assert parts.hexdigest() == whole.hexdigest()


def consumed(environment: Environment) -> None:
    """Read all that there is to unpack."""
    for path, chunks in environment.contents():
        assert path in environment.tree.files
        assert sum(map(len, chunks)) <= environment.tree.files[path].size


# -- catalogs of RCC --------------------------------------------------------------------------------------------------

names = st.sampled_from(["bin", "a", "b", "..", ".", "", "a/b", "/", "\0", "\ud800", "\udcff", "x" * 300]) | st.text()
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda it: st.lists(it) | st.dictionaries(names, it),
)
files = st.fixed_dictionaries(
    {"name": names},
    optional={
        "symlink": names | anything,
        "size": st.integers(-1, 1 << 64) | anything,
        "mode": st.integers(-1, 1 << 33) | anything,
        "digest": st.sampled_from([DIGEST, DIGEST[:32], "N/A"]) | anything,
        "rewrite": anything,
    },
)
folders: st.SearchStrategy[Any] = st.deferred(
    lambda: st.fixed_dictionaries(
        {"name": names, "mode": st.just(0o755) | anything},
        optional={
            "symlink": names,
            "files": st.dictionaries(names, files | anything, max_size=3) | anything,
            "subdirs": st.dictionaries(names, folders | anything, max_size=3) | anything,
        },
    )
)
catalogs = st.fixed_dictionaries({"path": st.just("/opt/env") | names, "tree": folders | anything})


@given(catalogs | st.dictionaries(names, anything))
def test_any_catalog_is_refused_or_read(document: dict[str, Any]) -> None:
    with suppress(HoloError):
        document = rcc.parse(json.dumps(document).encode(), "catalog")
        tree, prefix = rcc.read_tree(document, "catalog")
        assert prefix.startswith("/")
        for path in [*tree.folders, *tree.files, *tree.symlinks]:
            assert path == "" or {"", ".", ".."}.isdisjoint(path.split("/"))


@given(st.binary() | st.text().map(str.encode))
@example(b"[" * 200_000)
@example(b'{"a": 1, "a": 2}')
def test_any_bytes_as_a_catalog(data: bytes) -> None:
    with suppress(HoloError):
        rcc.read_tree(rcc.parse(data, "catalog"), "catalog")


def small_zip() -> bytes:
    import zipfile

    entry = {"name": "f", "size": 5, "mode": 0o644, "digest": rcc_digest(b"hello"), "rewrite": []}
    tree = {"name": "", "mode": 0o755, "files": {"f": entry}, "subdirs": {}}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("catalog/00v12.linux_amd64", json.dumps({"path": "/opt/env", "tree": tree}))
        digest = entry["digest"]
        archive.writestr(f"library/{digest[:2]}/{digest[2:4]}/{digest[4:6]}/{digest}", "hello")
    return stream.getvalue()


def rcc_digest(content: bytes) -> Any:
    import hashlib

    return hashlib.sha256(content).hexdigest()


SMALL_ZIP = small_zip()


def test_the_small_zip_is_right() -> None:
    (environment,) = rcc.environments(rcc.Zip(io.BytesIO(SMALL_ZIP), "zip"))
    assert [(path, b"".join(chunks)) for path, chunks in environment.contents()] == [("f", b"hello")]


@given(st.integers(0, len(SMALL_ZIP) - 1), st.binary(min_size=1, max_size=6))
def test_a_damaged_zip_is_refused_or_read(at: int, other: bytes) -> None:
    with suppress(HoloError):
        data = SMALL_ZIP[:at] + other + SMALL_ZIP[at + len(other) :]
        for environment in rcc.environments(rcc.Zip(io.BytesIO(data), "zip")):
            consumed(environment)


@given(st.binary())
def test_any_bytes_as_a_zip(data: bytes) -> None:
    with suppress(HoloError):
        rcc.environments(rcc.Zip(io.BytesIO(data), "zip"))


# -- archives of conda-pack and venv-pack -----------------------------------------------------------------------------

SMALL_TAR = packs.tar([*packs.venv("/opt/env"), packs.conda_unpack([("a", "/opt/old", "text")])])
ARCHIVES = [compress(SMALL_TAR) for compress in packs.COMPRESSIONS.values()]


@pytest.mark.parametrize("data", ARCHIVES, ids=packs.COMPRESSIONS)
def test_the_small_archives_are_right(data: bytes) -> None:
    environment = packed.environment(io.BytesIO(data), "a/env.tar", "/home/spaces", FREE)
    assert (environment.name, environment.prefix) == ("env", "/home/spaces/.environment-of-archive")
    consumed(environment)


@given(st.sampled_from(ARCHIVES), st.integers(0, 1 << 16), st.binary(max_size=6))
def test_a_damaged_archive_is_refused_or_read(data: bytes, at: int, other: bytes) -> None:
    at %= len(data)
    with suppress(HoloError):
        data = data[:at] + other + data[at + len(other) :] if other else data[:at]
        consumed(packed.environment(io.BytesIO(data), "env.tar", "/home/spaces", FREE))


@given(st.binary(max_size=2048), st.sampled_from([*packs.COMPRESSIONS.values()]))
def test_any_bytes_as_an_archive(data: bytes, compress: Any) -> None:
    for content in (data, compress(data)):
        with suppress(HoloError):
            consumed(packed.environment(io.BytesIO(content), "env.tar", "/home/spaces", FREE))


lines = st.text(alphabet="()[]'\"\\,_ab/N{}x0 \n", max_size=60)


@given(st.binary() | lines.map(lambda text: f"_prefix_records = [\n{text}\n]\n".encode()))
def test_any_script_is_refused_or_read(script: bytes) -> None:
    with suppress(HoloError):
        for found in packed.records_in(script, "archive").values():
            assert all(old.startswith(b"/") and mode in ("text", "binary") for old, mode in found)


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.sampled_from(["/old", "/it's", '/"q"', "/\n/a"]))))
def test_records_are_what_conda_pack_wrote(rows: list[tuple[str, str]]) -> None:
    written = [(path, old, "text") for path, old in rows if "\n" not in old]
    script = packs.conda_unpack(written).content
    found = packed.records_in(script, "archive")
    assert sum(map(len, found.values())) == len(written)
    assert all((old.encode(), "text") in found[path] for path, old, _ in written)


@given(st.lists(st.sampled_from([b"/old/prefix", b"/old", b"\0", b"/lib", b"x", b":"])).map(b"".join))
def test_binary_files_are_patched_as_conda_does_it(content: bytes) -> None:
    old, new = b"/old/prefix", b"/new"

    def replace(match: re.Match[bytes]) -> bytes:  # conda/core/portability.py
        count = match.group().count(old)
        return match.group().replace(old, new) + b"\0" * (len(old) - len(new)) * count

    wanted = re.sub(re.escape(old) + rb"([^\0]*?)\0", replace, content)
    found = bytearray(content)
    for start, end, string in packed.edits_in_binary(found, old, new):
        found[start:end] = string
    assert bytes(found) == wanted


@given(st.dictionaries(st.sampled_from(["bin/activate", "pyvenv.cfg", "bin/x", "bin/y"]), st.binary()))
@example({"bin/activate": b"VIRTUAL_ENV=/a/../b\n", "bin/x": b"#!/usr/bin/python3\n", "bin/y": b"#!/c/bin/python\n"})
def test_any_texts_give_a_prefix_or_none(texts: dict[str, bytes]) -> None:
    prefix = packed.prefix_in(texts, "")
    assert prefix is None or prefix.startswith("/")
    if texts.get("bin/y") == b"#!/c/bin/python\n":
        assert prefix == "/c"
