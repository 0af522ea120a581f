"""Signed catalogs: what is refused where signatures are demanded, and that they travel with their catalogs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support import trees
from support.cli import Holo, Result
from support.filesystems import Filesystem
from support.forks import ForkedHolo, Forks
from support.signing import Keys

local = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def allowed(keys: Keys, filesystem: Filesystem) -> Path:
    """A file that allows Ada and Bob to sign."""
    return keys.allow(
        ("ada@example.org", 'namespaces="holo-*"', keys.make("ada")), ("bob@example.org", keys.make("bob"))
    )


class Pair:
    """A machine that exports, and another one that takes in only what is signed."""

    def __init__(self, root: Path, forks: Forks, keys: Keys, allowed: Path) -> None:
        (root / "here").mkdir()
        (root / "there").mkdir()
        self.keys = keys
        self.here, self.there = ForkedHolo(root / "here", forks), ForkedHolo(root / "there", forks)
        self.source = trees.small(root / "source")
        self.digest: str = self.here("record", self.source, "--name", "app", "--json").json()["digest"]
        self.demand(allowed)

    def demand(self, allowed: Path | None) -> None:
        text = f"remote:\n  allowed-signers: {allowed}\n" if allowed is not None else ""
        self.there.settings.write_text(text)

    def export(self, key: str | None = None, name: str = "app") -> Path:
        file = self.here.root / f"{name}-{key}.holo"
        more = ("--sign", self.keys.make(key)) if key is not None else ()
        self.here("export", name, *more, "-o", file)
        return file

    def signature(self, holo: Holo) -> Path:
        return holo.library / "catalog" / f"{self.digest}.sig"

    def refused(self, *arguments: str | Path, by: Holo | None = None) -> str:
        """The message of a command that must take in nothing."""
        holo = by or self.there
        before = files(holo)
        done = holo(*arguments, code=3)
        lines = done.stderr.splitlines()
        assert [line.partition(": ")[0] for line in lines] == ["error", "hint"]
        assert files(holo) == before
        return lines[0]


def files(holo: Holo) -> set[str]:
    """What is in a home, but for locks, and notes of a repair that has failed."""
    paths = {path for path in holo.home.rglob("*") if path.is_file() and path.parent.name != "unsettled"}
    return {str(path) for path in paths if not path.name.endswith("lock")}


@pytest.fixture
def pair(filesystem: Filesystem, forks: Forks, keys: Keys, allowed: Path) -> Pair:
    return Pair(filesystem.root, forks, keys, allowed)


def verified(done: Result) -> Any:
    (catalog,) = done.json()["catalogs"]
    return catalog["principal"]


# -- what is refused, on every filesystem -----------------------------------------------------------------


def test_only_signed_bundles_are_taken_in(pair: Pair) -> None:
    there = pair.there
    unsigned, by_eve, by_ada = pair.export(), pair.export("eve"), pair.export("ada")
    for command in (("import",), ("init", "--space", "one"), ("check", "--repair", "--from")):
        assert "is not signed, and somebody in" in pair.refused(*command, unsigned)
        assert "is not signed by anyone in" in pair.refused(*command, by_eve)
    there("init", "--space", "one", by_ada)
    there("restore", "--space", "one", "--verify")
    there("import", by_ada)
    assert verified(there("verify", "app", "--json")) == "ada@example.org"
    assert pair.signature(there).read_bytes() == pair.signature(pair.here).read_bytes()
    assert verified(there("verify", by_ada, "--json")) == "ada@example.org"
    assert "not signed" in there("verify", unsigned, code=3).stdout
    assert there("check").code == 0
    # What it has is exported with the signature, byte for byte as it came.
    there("export", "app", "-o", there.root / "again.holo")
    assert (there.root / "again.holo").read_bytes() == by_ada.read_bytes()


@local
def test_a_bundle_through_a_pipe(pair: Pair) -> None:
    def piped(file: Path) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "holo", "import", "-"]
        env = pair.there.environment()
        return subprocess.run(command, input=file.read_bytes(), env=env, capture_output=True, check=False)

    done = piped(pair.export())
    assert (done.returncode, b"of standard input is not signed" in done.stderr) == (3, True)
    assert piped(pair.export("bob")).returncode == 0
    assert verified(pair.there("verify", "app", "--json")) == "bob@example.org"


@local
def test_a_bundle_with_several_catalogs_needs_all_signatures(pair: Pair) -> None:
    trees.write(pair.source / "more", "more")
    pair.here("record", pair.source, "--name", "app-2")
    pair.export("ada")  # which the library keeps
    both = pair.here.root / "both.holo"
    pair.here("export", "app", "app-2", "-o", both)
    assert "is not signed" in pair.refused("import", both)
    pair.export("bob", "app-2")
    pair.here("export", "app", "app-2", "-o", both)
    pair.there("import", both)
    report = pair.there("verify", both, "--json").json()
    assert sorted(catalog["principal"] for catalog in report["catalogs"]) == ["ada@example.org", "bob@example.org"]


@local
def test_a_signature_of_another_catalog(pair: Pair) -> None:
    trees.write(pair.source / "more", "more")
    other = pair.here("record", pair.source, "--name", "app-2", "--json").json()["digest"]
    pair.export("ada")
    signature = pair.signature(pair.here).read_bytes()
    (pair.here.library / "catalog" / f"{other}.sig").write_bytes(signature)
    file = pair.export(name="app-2")
    assert "has a wrong signature" in pair.refused("import", file)
    pair.demand(None)  # a wrong one is damage, whoever asks
    assert "has a wrong signature" in pair.refused("import", file)


@local
def test_a_restore_reads_the_bundle_again(pair: Pair, keys: Keys) -> None:
    file = pair.export("ada")
    space = Path(pair.there("init", "--space", "one", file, "--json").json()["path"])
    trees.write(space / "mine", "mine")
    pair.demand(keys.allow(("bob@example.org", keys.make("bob")), name="only_bob"))
    assert "is not signed by anyone in" in pair.refused("restore", "--space", "one")
    assert (space / "mine").exists()
    pair.demand(None)
    pair.there("restore", "--space", "one")
    assert not (space / "mine").exists()


@local
def test_a_repair_from_a_bundle(pair: Pair) -> None:
    file = pair.export("ada")
    pair.there("import", file)
    catalog = pair.signature(pair.there).with_suffix(".json")
    for path in (catalog, pair.signature(pair.there)):
        path.write_bytes(path.read_bytes()[:-9])
    found = {problem["kind"] for problem in pair.there("check", "--json", code=3).json()["problems"]}
    assert found == {"catalog", "signature"}
    pair.there("check", "--repair", "--from", file)
    assert verified(pair.there("verify", "app", "--json")) == "ada@example.org"


@local
def test_catalog_files(pair: Pair) -> None:
    """As they are in an unzipped bundle, and with the signature that somebody has made by hand."""
    file = pair.export("ada")
    folder = pair.there.root / "unzipped"
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    catalog = folder / "catalog" / f"{pair.digest}.json"
    pair.there("init", "--space", "one", catalog)
    assert verified(pair.there("verify", pair.digest, "--json")) == "ada@example.org"
    pair.there("catalogs", "--remove", pair.digest[:12])
    catalog.with_suffix(".sig").unlink()
    assert "is not signed" in pair.refused("init", "--space", "two", catalog)
    by_hand = ["ssh-keygen", "-Y", "sign", "-n", "holo-catalog", "-f", pair.keys.make("bob")]
    done = subprocess.run(by_hand, input=f"{pair.digest}\n".encode(), capture_output=True, check=True)
    Path(f"{catalog}.sig").write_bytes(done.stdout)
    pair.there("init", "--space", "two", catalog)
    assert verified(pair.there("verify", pair.digest, "--json")) == "bob@example.org"


@local
def test_what_was_recorded_here_needs_no_signature(pair: Pair) -> None:
    pair.there("record", pair.source, "--name", "mine")
    pair.there("init", "--space", "one", "mine")
    pair.there("restore", "--space", "one")
    pair.there("init", "--space", "two", pair.source)


@local
def test_the_file_of_signers_must_be_there(pair: Pair) -> None:
    file = pair.export("ada")
    pair.demand(pair.there.root / "missing")
    done = pair.there("import", file, code=1)
    assert f"cannot read the allowed signers {pair.there.root}/missing" in done.stderr
    assert "remote.allowed-signers" in done.stderr


@local
def test_without_ssh_keygen(pair: Pair) -> None:
    """Nothing is taken in where signatures are demanded; where they are not, a signed bundle is as good as another."""
    file = pair.export("ada")
    nothing = {"PATH": str(pair.there.root)}
    done = pair.there("import", file, env=nothing, code=1)
    assert "signatures need ssh-keygen, which is not on PATH" in done.stderr
    assert files(pair.there) == set()
    pair.demand(None)
    pair.there("import", file, env=nothing)
    assert pair.there("check", env=nothing).code == 0


# -- what the library keeps -------------------------------------------------------------------------------


@local
def test_a_trusted_signature_replaces_another(pair: Pair) -> None:
    """And one that nobody has judged is kept only where there is none."""
    here, there = pair.here, pair.there
    by_eve, by_ada, by_bob = (pair.export(key) for key in ("eve", "ada", "bob"))
    pair.demand(None)
    there("import", by_eve)
    kept = pair.signature(there).read_bytes()
    there("import", by_ada)
    assert pair.signature(there).read_bytes() == kept
    pair.demand(pair.keys.allow(("ada@example.org", pair.keys.make("ada")), ("bob@example.org", pair.keys.make("bob"))))
    there("import", by_ada)
    assert verified(there("verify", "app", "--json")) == "ada@example.org"
    there("import", by_bob)
    assert verified(there("verify", "app", "--json")) == "bob@example.org"
    assert "1 signature" in here("export", "app", "--sign", pair.keys.make("ada"), "-o", by_ada, "-v").stdout
    assert pair.signature(here).read_bytes() != pair.signature(there).read_bytes()


@local
def test_a_signature_goes_with_its_catalog(pair: Pair) -> None:
    pair.there("import", pair.export("ada"))
    pair.there("gc")
    assert pair.signature(pair.there).exists()
    pair.there("catalogs", "--remove", "app")
    assert not pair.signature(pair.there).exists()
    pair.there("import", pair.export("ada"))
    pair.there("gc", "--keep-last", "0")
    assert os.listdir(pair.there.library / "catalog") == []


@local
def test_a_signature_without_its_catalog_is_garbage(pair: Pair) -> None:
    pair.there("import", pair.export("ada"))
    orphan = pair.there.library / "catalog" / f"{'ab' * 32}.sig"
    draft = pair.there.library / "catalog" / f"{'ab' * 32}.sig.1234.5678"
    for path in (orphan, draft):
        path.write_bytes(b"x")
    report = pair.there("check", "--json").json()
    assert (report["problems"], report["garbage"]["files"]) == ([], 2)
    assert pair.there("gc", "--json").json()["unknown"] == []
    assert sorted(os.listdir(pair.there.library / "catalog")) == [f"{pair.digest}.json", f"{pair.digest}.sig"]


@local
def test_an_uninstall_removes_signatures(pair: Pair) -> None:
    pair.there("import", pair.export("ada"))
    pair.there("uninstall", "--yes")
    assert not pair.there.library.exists()


@local
@pytest.mark.parametrize("content", [b"", b"junk", bytes(1 << 20)], ids=["empty", "junk", "large"])
def test_a_damaged_signature(pair: Pair, content: bytes) -> None:
    there = pair.there
    file = pair.export("ada")
    there("import", file)
    pair.signature(there).write_bytes(content)
    (problem,) = there("check", "--json", code=3).json()["problems"]
    assert (problem["kind"], problem["path"]) == ("signature", str(pair.signature(there)))
    assert problem["catalogs"] == ["app"]
    if len(content) < 1 << 20:
        assert "has a signature that is damaged" in there("verify", "app", code=3).stdout
        assert "has a signature that is damaged" in there("export", "app", "-o", "x", code=3).stderr
    there("check", "--repair", "--from", file)
    assert verified(there("verify", "app", "--json")) == "ada@example.org"
    pair.signature(there).write_bytes(content)
    there("check", "--repair")
    assert there("check").code == 0
    assert not pair.signature(there).exists()


# -- verify -----------------------------------------------------------------------------------------------


@local
def test_verify_says_who_signed(pair: Pair, allowed: Path) -> None:
    here = pair.here
    unsigned = pair.export()
    for what in ("app", unsigned):
        done = here("verify", what)
        assert "not signed, and no file of allowed signers demands it" in done.stdout
        assert here("verify", what, "--allowed-signers", allowed, code=3).stderr == ""
        assert "cannot read the allowed signers" in here("verify", what, "--allowed-signers", "none", code=1).stderr
    file = pair.export("ada")
    for what in ("app", pair.digest[:12], file):
        done = here("verify", what)
        assert "signed with ED25519 SHA256:" in done.stdout
        assert "no file of allowed signers says whose that is" in done.stdout
        assert "signed by ada@example.org with ED25519" in here("verify", what, "--allowed-signers", allowed).stdout
    report = here("verify", file, "--allowed-signers", os.path.relpath(allowed, here.root), "--json").json()
    assert report["sound"] is True
    assert report["allowed_signers"] == str(allowed)
    assert report["catalogs"] == [
        {
            "name": "app",
            "digest": pair.digest,
            "principal": "ada@example.org",
            "key_type": "ED25519",
            "fingerprint": report["catalogs"][0]["fingerprint"],
            "problem": None,
        }
    ]


@local
@pytest.mark.parametrize("compression", ["raw", "zstd"])
def test_verify_reads_all_content_of_the_library(pair: Pair, compression: str) -> None:
    pair.here.settings.write_text(f"library: {{compression: {compression}}}")
    trees.write(pair.source / "large", os.urandom(100_000))
    pair.here("record", pair.source, "--name", "big")
    whole = pair.here("verify", "big", "--json").json()
    assert whole["blobs"]["verified"] > 1
    blobs = sorted((pair.here.library / "library").glob("??/*"), key=lambda path: path.stat().st_size)
    blobs[-1].chmod(0o644)
    data = bytearray(blobs[-1].read_bytes())
    data[len(data) // 2] ^= 1
    blobs[-1].write_bytes(data)
    report = pair.here("verify", "big", "--json", code=3).json()
    assert len(report["damaged"]) == 1
    assert report["sound"] is False
    blobs[-1].unlink()
    report = pair.here("verify", "big", "--json", code=3).json()
    assert len(report["damaged"]) == 1
    assert "damaged: " in pair.here("verify", "big", code=3).stdout


@local
@pytest.mark.parametrize("compress", [(), ("--compress",)], ids=["raw", "compressed"])
def test_verify_reads_all_content_of_a_bundle(pair: Pair, compress: tuple[str, ...]) -> None:
    """Whatever byte of a bundle is changed: it is never said to be sound."""
    trees.write(pair.source / "large", b"0123456789" * 1000 + os.urandom(20_000))
    pair.here("record", pair.source, "--name", "big")
    file = pair.here.root / "big.holo"
    pair.here("export", "big", "--sign", pair.keys.make("ada"), *compress, "-o", file)
    pair.here("verify", file)
    good = file.read_bytes()
    for position in range(7, len(good), len(good) // 25):
        file.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        done = pair.here("verify", file, code=3)
        assert "damaged" in done.stdout + done.stderr


@local
def test_verify_of_a_bundle_that_leaves_something_out(pair: Pair) -> None:
    trees.write(pair.source / "more", "more")
    pair.here("record", pair.source, "--name", "app-2")
    file = pair.here.root / "update.holo"
    pair.here("export", "app-2", "--known", "app", "-o", file)
    report = pair.here("verify", file, "--json").json()
    assert report["blobs"]["verified"] == 1
    assert report["blobs"]["left_out"] > 0
    assert " left out" in pair.here("verify", file).stdout


@local
def test_verify_of_nothing(pair: Pair) -> None:
    (pair.here.root / "text").write_text("text")
    assert "there is no catalog 'nothing'" in pair.here("verify", "nothing", code=1).stderr
    assert "./text is no bundle" in pair.here("verify", "./text", code=2).stderr
