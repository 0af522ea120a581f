"""Random damage to the objects of a remote: `check` finds all of it, and nothing wrong is pulled.

Each fault is applied to a copy of a sound remote, which holds two signed catalogs and one that lost its name.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import zstandard

from holo import HoloError, Hololib, signatures
from support import compare, damage, remotes, trees
from support.filesystems import Filesystem
from support.signing import Keys

pytestmark = [
    pytest.mark.torture,
    # The threads that Python 3.12 warns of are the test runner's, and hold no lock that a child takes.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

KINDS = {"packs/*": 4, "catalogs/*[0-9a-f]": 3, "catalogs/*.sig": 2, "names/*": 2, "garbage": 1}
"""What is damaged, and how often."""

NAMES = ("env", "other")
ALONE = (damage.flip, damage.truncate, damage.delete, damage.zero)
"""Of a kind of which there is only one object."""


class Fault(NamedTuple):
    """One damage, the same on every copy."""

    kind: str
    action: damage.Action
    seed: int

    def apply(self, remote: Path) -> dict[str, bytes]:
        """Damage a remote; returns what was in the objects that are now something else."""
        randomly = random.Random(self.seed)
        found = sorted(remote.glob(self.kind))
        path, other = randomly.sample(found, 2) if len(found) > 1 else (found[0], found[0])
        before = {file: file.read_bytes() for file in (path, other)}
        self.action(path, other, randomly)
        return {
            str(file.relative_to(remote)): content
            for file, content in before.items()
            if not file.exists() or file.read_bytes() != content
        }


def spread_of(count: int) -> list[Fault]:
    """Each kind as often as the others say, with each action in turn."""
    kinds = [kind for kind, often in KINDS.items() for _ in range(often)]
    faults = []
    for seed in range(count):
        kind = kinds[seed * 5 % len(kinds)]
        actions = ALONE if kind == "garbage" else damage.QUIET
        faults.append(Fault(kind, actions[(seed + seed // len(kinds)) % len(actions)], seed))
    return faults


class Bench:
    """A sound remote, whoever pushed it, and what its names need."""

    def __init__(self, filesystem: Filesystem, patch: pytest.MonkeyPatch) -> None:
        self.root = filesystem.root
        for module in ("packs", "push"):
            patch.setattr(f"holo.remote.{module}.PACK", 1 << 13)
        keys = Keys(self.root)
        self.key = keys.make("alice")
        self.settings = {True: self.root / "demanding.yaml", False: self.root / "trusting.yaml"}
        signers = keys.allow(("alice@example.org", self.key))
        self.settings[True].write_text(f"remote:\n  allowed-signers: {signers}\n")
        self.settings[False].touch()
        self._patch = patch
        self.sound, self.remote = self.root / "sound", self.root / "remote"
        self.sound.mkdir()
        self.pusher = self.opened("pusher", demanding=False)
        self.sources = {name: self._source(name) for name in (*NAMES, "nameless")}
        for name, source in self.sources.items():
            self.pusher.record(source, name)
            self.pusher.remote(self.sound).push([name], sign=self.key)
        (self.sound / "names" / "nameless").unlink()
        self.pusher.remote(self.sound).gc()
        self.using: dict[str, set[str]] = {}
        """the digests of the catalogs that need a pack, by its key"""
        for path in self.sound.glob("catalogs/*[0-9a-f]"):
            for pack, _ in remotes.map_and_catalog(path.read_bytes())[0]["packs"]:
                self.using.setdefault(f"packs/{pack}", set()).add(path.name)
        self.needed = {name: self._needed(name) for name in NAMES}

    def _source(self, name: str) -> Path:
        root, randomly = self.root / name.ljust(40, "-"), random.Random(name)
        for number in range(4):
            trees.write(root / "lib" / f"own-{number}", randomly.randbytes(3000))
            trees.write(root / "lib" / f"common-{number}", random.Random(number).randbytes(3000))
        trees.write(root / "bin" / "tool", f"#!{root}/bin/python\n# of {name}\n" + "# and more\n" * 900, mode=0o755)
        return trees.settle(root)

    def _needed(self, name: str) -> set[str]:
        digest = self._digest_of(name)
        packs = {key for key, catalogs in self.using.items() if digest in catalogs}
        return {f"names/{name}", f"catalogs/{digest}", f"catalogs/{digest}.sig", *packs}

    def _digest_of(self, name: str) -> str:
        digest: str = json.loads((self.sound / "names" / name).read_bytes())["catalog"]
        return digest

    def needing(self, key: str) -> set[str]:
        """The keys of an object and of what needs it."""
        names = {f"names/{name}" for name in NAMES if key in self.needed[name]}
        return {key, *names, *(f"catalogs/{digest}" for digest in self.using.get(key, ()))}

    def opened(self, home: str, *, demanding: bool) -> Hololib:
        self._patch.setenv("HOLO_SETTINGS", str(self.settings[demanding]))
        return Hololib(self.root / home)

    def damaged(self, fault: Fault) -> dict[str, bytes]:
        shutil.rmtree(self.remote, ignore_errors=True)
        shutil.copytree(self.sound, self.remote)
        return fault.apply(self.remote)

    def pull(self, *, demanding: bool) -> dict[str, bool]:
        """Pull both catalogs into a new home: whether each came. All that came is right, and nothing else is there."""
        came = {}
        shutil.rmtree(self.root / "home", ignore_errors=True)
        library = self.opened("home", demanding=demanding)
        for name in NAMES:
            said = ""
            try:
                library.remote(self.remote).pull(name)
            except HoloError as error:
                said = error.message
            came[name] = not said
            if said:
                assert str(self.remote) in said
            else:
                path = Path(library.init(name, name).path)
                assert compare.differences(self.sources[name], path, library=self.root / "home" / "hololib") == []
        assert {ref.name for ref in library.catalogs()} == {name for name, is_there in came.items() if is_there}
        assert library.check().problems == []
        return came


def is_harmless(bench: Bench, changed: dict[str, bytes]) -> bool:
    """Whether what is left means the same."""
    for key, before in changed.items():
        path = bench.remote / key
        if not path.exists():
            # A name, what is known of garbage, and a catalog that nothing names may go.
            if key.startswith("packs/") or (key.startswith("catalogs/") and key in set().union(*bench.needed.values())):
                return False
        elif meaning(key, before) != meaning(key, path.read_bytes()):
            return False
    return True


def meaning(key: str, content: bytes) -> object:
    """What an object says, in which some bits mean nothing."""
    try:
        if key.endswith(".sig"):
            return signatures.canonical(content, signatures.CATALOG, key)
        if key.startswith("catalogs/"):
            return zstandard.ZstdDecompressor().decompressobj().decompress(content)
        if key.startswith("names/"):
            fields = json.loads(content)
            return {**fields, "signature": signatures.canonical(fields["signature"].encode(), signatures.NAME, key)}
        if key == "garbage":
            garbage = json.loads(content)
            assert {type(since) for since in garbage["since"].values()} == {int}
            return {**garbage, "since": "of what nothing needs, whatever it says"}
    except (ValueError, KeyError, AttributeError, AssertionError, HoloError, zstandard.ZstdError):
        return None
    return content


@pytest.mark.parametrize("filesystem", ["ext4"], indirect=True)
def test_damage_in_a_remote_is_found_and_never_pulled(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, torture: bool, faults: Callable[[int, str, int], None]
) -> None:
    bench = Bench(filesystem, monkeypatch)
    for fault in spread_of(200 if torture else 6):
        changed = bench.damaged(fault)
        faults(3, "damaged objects of a remote, pulled", 1)
        is_wrong = bool(changed) and not is_harmless(bench, changed)
        for demanding in (False, True) if torture else (bool(fault.seed % 2),):
            came = bench.pull(demanding=demanding)
            for name, needed in bench.needed.items():
                ours = {key for key in changed if key in needed and (demanding or not key.endswith(".sig"))}
                assert came[name] or ours, f"{fault}: nothing that {name} needs is damaged"

        faults(4, "damaged objects of a remote, found by remote check", is_wrong)
        shared = bench.pusher.remote(bench.remote)
        found = {problem.key for problem in shared.check(read=True).problems}
        if not is_wrong:
            assert found == set(), fault
        for key in changed if is_wrong else ():
            assert found & bench.needing(key), f"{fault}: {found}"

        faults(5, "damaged remotes, whose garbage is collected", 1)
        with suppress(HoloError):
            shared.gc(grace=0)
        for name, needed in bench.needed.items():
            if (bench.remote / "names" / name).exists():
                lost = {key for key in needed if not (bench.remote / key).exists()} - changed.keys()
                assert lost == set(), f"{fault}: gc has removed what {name} needs"

        shared.check(read=True, repair=True)
        shared.push(list(NAMES), sign=bench.key)
        assert shared.check(read=True).problems == (), fault
        assert bench.pull(demanding=True) == dict.fromkeys(NAMES, True), fault
