"""Libraries made by somebody else: the worst they can do is a clear error.

Each case in tests/faults/hostile_libraries says what is wrong, what is planted in a sound home of holo's, the commands
that meet it, and what the last of them says. A user's directory stands beside, to which everything leads; no
command may write, change, remove or copy anything there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holo import digest as digests
from holo import platform
from holo.catalog import Catalog
from holo.files import seal
from holo.hololib.blobs import SEALED_MODE, SEALED_MTIME_NS
from holo.trees.outline import body_of
from support import filesystems, records
from support.cli import Holo
from support.filesystems import Filesystem
from support.forks import Forks

CASES = {path.stem: json.loads(path.read_bytes()) for path in sorted(Path(__file__).parent.glob("hostile_libraries/*"))}
SECRET = "what nobody else may see\n"
GREETING = b"hello\n"
FRESH = b"fresh\n"
BIG = b"%08d: a line of a large file that can be compressed.\n"

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others and make devices"),
]


def state(folder: Path) -> dict[str, Any]:
    """All there is, in all ways in which it can be changed; looking does not change it."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        kept = (status.st_mode, status.st_uid, status.st_nlink, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        found[str(path)] = (*kept, path.read_bytes() if stat.S_ISREG(status.st_mode) else None)
    return found


def frame(zeros: int, claims: int | None = None, window: int | None = None, blocks: int = 0) -> bytes:
    """A zstd frame (RFC 8878) of zeros and empty blocks that says of itself what it is told to."""
    single = claims is not None and window is None
    head = b"\x28\xb5\x2f\xfd" + bytes([(0xC0 if claims is not None else 0) | (0x20 if single else 0)])
    if not single:
        head += bytes([((window or 17) - 10) << 3])
    if claims is not None:
        head += struct.pack("<Q", claims)
    whole, rest = divmod(zeros, 1 << 17)
    sizes = [1 << 17] * whole + [rest]
    body = b"".join(
        struct.pack("<I", size << 3 | 1 << 1 | (index == whole))[:3] + b"\0" for index, size in enumerate(sizes)
    )
    return head + b"\0\0\0" * blocks + body


@dataclass
class Home:
    """A home of holo's with a catalog and spaces, and what lies beside it."""

    root: Path
    words: dict[str, str]

    def path(self, text: str) -> Path:
        return self.root / "home" / text.format_map(self.words)

    def plant(self, step: dict[str, Any]) -> None:
        what = next(iter(step))
        path = self.path(step[what])
        if what not in ("truncate", "copy", "edit", "owner", "mode", "symlinks", "deep", "seal"):
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.exists():
                filesystems.remove(path)
        if what != "deep":
            path.parent.mkdir(parents=True, exist_ok=True)
        getattr(self, f"_{what}")(path, step)
        if step.get("seal") is True:
            self._seal(path, step)
        if "like" in step:
            path.chmod(0o444)
            os.utime(path, ns=(int(step["like"].format_map(self.words)),) * 2)
        if "owner" in step and what not in ("owner", "catalog"):
            os.chown(path, step["owner"], step["owner"])

    def _remove(self, path: Path, step: dict[str, Any]) -> None:
        pass  # done

    def _symlink(self, path: Path, step: dict[str, Any]) -> None:
        path.symlink_to(step["to"].format_map(self.words))

    def _symlinks(self, path: Path, step: dict[str, Any]) -> None:
        filesystems.remove(path)
        path.mkdir()
        for number in range(256):
            (path / f"{number:02x}").symlink_to(step["to"].format_map(self.words))

    def _fifo(self, path: Path, step: dict[str, Any]) -> None:
        os.mkfifo(path)

    def _device(self, path: Path, step: dict[str, Any]) -> None:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero

    def _socket(self, path: Path, step: dict[str, Any]) -> None:
        here = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as made:  # by a short path: there is a limit
            made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)

    def _directory(self, path: Path, step: dict[str, Any]) -> None:
        path.mkdir()

    def _sparse(self, path: Path, step: dict[str, Any]) -> None:
        path.touch()
        os.truncate(path, step["size"])

    def _truncate(self, path: Path, step: dict[str, Any]) -> None:
        os.truncate(path, step["size"])

    def _write(self, path: Path, step: dict[str, Any]) -> None:
        path.write_text(step["text"].replace("{victim}", self.words["victim"]) * step.get("times", 1))

    def _document(self, path: Path, step: dict[str, Any]) -> None:
        """Sealed, as anybody can."""
        path.write_bytes(seal(step["text"].replace("{victim}", self.words["victim"]).encode()))

    def _frame(self, path: Path, step: dict[str, Any]) -> None:
        path.write_bytes(frame(step["zeros"], step.get("claims"), step.get("window"), step.get("blocks", 0)))

    def _link(self, path: Path, step: dict[str, Any]) -> None:
        path.hardlink_to(self.path(step["to"]))

    def _seal(self, path: Path, step: dict[str, Any]) -> None:
        path.chmod(SEALED_MODE)
        os.utime(path, ns=(SEALED_MTIME_NS, SEALED_MTIME_NS))

    def _mode(self, path: Path, step: dict[str, Any]) -> None:
        path.chmod(step["to"])

    def _owner(self, path: Path, step: dict[str, Any]) -> None:
        if step.get("subvolume"):
            subprocess.run(["btrfs", "property", "set", "-f", path, "ro", "false"], check=True)
        os.chown(path, step["uid"], step["uid"], follow_symlinks=False)

    def _copy(self, path: Path, step: dict[str, Any]) -> None:
        """As an archive would: the same content in another file."""
        shutil.copy2(path, self.root / "copy")
        path.unlink()
        shutil.copy2(self.root / "copy", path)

    def _edit(self, path: Path, step: dict[str, Any]) -> None:
        values = records.read(path)
        for key, value in step["set"].items():
            values[key] = value.replace("{victim}", self.words["victim"]) if isinstance(value, str) else value
            for word in ("base", "user"):
                if isinstance(value, str):
                    values[key] = values[key].replace(f"{{{word}}}", self.words[word])
        draft = path.with_suffix(".edited")
        draft.write_bytes(records.dump(values))
        draft.replace(path)

    def _catalog(self, path: Path, step: dict[str, Any]) -> None:
        """A valid catalog like the one that is there, but with these rights."""
        source = self.root / step["of"] / "hello.json.kept" if "of" in step else self.path("hololib/catalog.kept")
        rows = json.loads(source.read_bytes())
        rights = step["set"]
        for row in rows["directories"]:
            row[1] = rights.get("directory", row[1])
            row[3] = [[file[0], rights.get("mode", file[1]), *file[2:]] for file in row[3]]
        if "capability" in rights:
            rows["xattrs"] = {rows["directories"][0][3][0][0]: {"security.capability": "AQAAAgAgAAAAAAAAAAAAAAAAAAA="}}
        if "outline" in rights:  # which says that the greeting is something else
            rows["directories"][0][3][0][4] = digests.of(FRESH)
        catalog = Catalog.from_json(Catalog.from_json(json.dumps(rows).encode(), "").to_json(), "")
        path = path.with_name(path.name.replace("@", catalog.digest))
        if "outline" in rights:
            header = f"{path.stem} {tree_seal(path.with_suffix(''))}\n".encode()
            path.write_bytes(seal(header + body_of(catalog)))
        else:
            path.write_bytes(catalog.to_json())
        if "named" in step:
            totals = catalog.totals
            name = {"name": step["named"], "digest": catalog.digest, "prefix": "/", "recorded": "", **totals._asdict()}
            (self.root / "home/hololib/names" / f"{step['named']}.json").write_bytes(records.dump(name))
        if "owner" in step:
            os.chown(path, step["owner"], step["owner"])

    def _deep(self, path: Path, step: dict[str, Any]) -> None:
        here = os.open(path, os.O_RDONLY)
        for _ in range(step["levels"]):
            os.mkdir("deep", dir_fd=here)
            below = os.open("deep", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)


def stock(root: Path, forks: Forks, case: dict[str, Any]) -> Home:
    """A home with everything that the case may spoil."""
    prefix = root / "app"
    (prefix / "data").mkdir(parents=True)
    (prefix / "greeting").write_bytes(GREETING)
    (prefix / "big").write_bytes(b"".join(BIG % number for number in range(30_000)))
    (prefix / "run").write_text(f"#!{prefix}/bin/sh\necho {prefix}\n")
    (prefix / "run").chmod(0o755)
    (prefix / "data/one").write_text("one\n")
    (prefix / "data/link").symlink_to(prefix / "greeting")
    (root / "tree").mkdir()
    (root / "tree/fresh").write_bytes(FRESH)
    (root / "tree/other").write_text("other\n")
    victim = root / "victim"
    (victim / "folder").mkdir(parents=True)
    (victim / "secret").write_text(SECRET)
    (victim / "secret").chmod(0o600)
    (victim / "greeting").write_text(SECRET)
    (victim / "same").write_text("hullo\n")
    (victim / "folder/file").write_text(SECRET)
    (victim / "empty").mkdir()
    (root / "user/documents").mkdir(parents=True)
    (root / "user/documents/letter").write_text(SECRET)
    holo = Holo(root)
    holo.settings.write_text(f"library: {{compression: {case.get('compression', 'raw')}}}\n")
    env = environment(root)

    def run(*arguments: Any) -> None:
        forks(*arguments, env=env)

    run("record", prefix, "--name", "app")
    run("init", "--space", "x", "app")
    if "out" in json.dumps([case["plant"], case["holo"], case.get("says")]):
        run("init", "--space", "out", "app", "--to", root / "out")
    if "links" in json.dumps(case["plant"]):
        run("init", "--space", "hard", "app", "--strategy", "hardlink")
    digest = next(path.stem for path in (root / "home/hololib/catalog").iterdir())
    shutil.copy(root / f"home/hololib/catalog/{digest}.json", root / "home/hololib/catalog.kept")
    beside = root / "import"
    (beside / "library" / digests.of(FRESH)[:2]).mkdir(parents=True)
    (beside / "library" / digests.of(FRESH)[:2] / digests.of(FRESH)).write_bytes(FRESH)
    row = ["fresh", 0o644, len(FRESH), 0, digests.of(FRESH)]
    document = {"version": 1, "prefix": "/opt/hello", "directories": [["", 0o755, 0, [row], []]]}
    for name in ("hello.json", "hello.json.kept"):
        (beside / name).write_text(json.dumps(document))
    words = {
        "greeting": digests.of(GREETING),
        "fresh": digests.of(FRESH),
        "big": digests.of((prefix / "big").read_bytes()),
        "mtime": str((prefix / "greeting").stat().st_mtime_ns),
        "catalog": digest,
        "base": records.read(root / "home/holotree/.spaces/x.json")["path"].rpartition("/")[2],
        **{name: str(root / name) for name in ("victim", "user", "tree", "out", "import")},
        "prefix": str(prefix),
    }
    return Home(root, words)


def tree_seal(tree: Path) -> str | None:
    """What an outline must say of a golden tree to be believed."""
    if not tree.is_dir():
        return None
    directory = os.open(tree, os.O_RDONLY)
    try:
        return platform.tree_seal(directory)
    finally:
        os.close(directory)


def environment(root: Path) -> dict[str, str]:
    return {
        "HOLO_HOME": str(root / "home"),
        "HOLO_SETTINGS": str(root / "settings.yaml"),
        "HOME": str(root / "user"),
        "PATH": os.environ["PATH"],
    }


PAIRS = [(name, filesystem) for name, case in CASES.items() for filesystem in (case.get("only"),) if filesystem]
PAIRS += [(name, filesystem) for name, case in CASES.items() if "only" not in case for filesystem in ("btrfs", "ext4")]


@pytest.mark.parametrize(("name", "filesystem"), PAIRS, indirect=["filesystem"])
def test_hostile_library_is_a_clear_error(
    filesystem: Filesystem, name: str, forks: Forks, torture: bool, faults: Callable[[int, str, int], None]
) -> None:
    case = CASES[name]
    # The short form meets each case on one of the two.
    if not torture and "only" not in case and (sum(name.encode()) % 2 == 0) == (filesystem.name == "ext4"):
        return
    faults(7, "libraries made by somebody else", 1)
    home = stock(filesystem.root, forks, case)
    for step in case["plant"]:
        home.plant(step)
    before = {folder: state(home.root / folder) for folder in ("victim", "user", "app")}
    env = environment(home.root)
    commands = case["holo"] if isinstance(case["holo"][0], list) else [case["holo"]]
    *first, last = [[word.format_map(home.words) for word in command] for command in commands]
    for command in first:
        forks(*command, env=env, memory=1 << 30)
    result = forks(*last, env=env, code=case["code"], memory=1 << 30, seconds=20)
    said = result.stdout + result.stderr
    assert case.get("says", "") in said
    assert "\x1b" not in said
    if case["code"] and last[0] != "check":  # which reports what is wrong
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") <= 2
        assert result.stdout == ""
    for folder, was in before.items():
        assert state(home.root / folder) == was, folder
    assert not leaked(home.root)
    if "right" in case:
        is_right(home, case["right"], 0o222 if "hardlink" in last else 0)


def leaked(root: Path) -> list[Path]:
    """Files below the home that hold what only the victim's files do."""
    paths = [path for folder in ("home", "out") for path in (root / folder).rglob("*") if not path.is_symlink()]
    small = [path for path in paths if path.is_file() and path.stat().st_size < 10**6]
    return [path for path in small if SECRET.encode() in path.read_bytes()]


def is_right(home: Home, space: str, dropped: int) -> None:
    """The space is the recorded tree: contents, rights but for the ``dropped``, links, and nothing else."""
    source = home.root / "app"
    (path,) = (home.root / "home/holotree").glob(f"{space}_*")
    names = sorted(str(entry.relative_to(source)) for entry in source.rglob("*"))
    assert sorted(str(entry.relative_to(path)) for entry in path.rglob("*")) == names
    for name in names:
        was, now = os.lstat(source / name), os.lstat(path / name)
        assert now.st_uid == 0
        assert now.st_mode in (was.st_mode, was.st_mode & ~dropped)
        if stat.S_ISREG(was.st_mode):
            content = (path / name).read_bytes().replace(os.fsencode(path), os.fsencode(source))
            assert content == (source / name).read_bytes()


def test_cases_are_distinct() -> None:
    assert len(CASES) >= 60
    assert len({case["reason"] for case in CASES.values()}) == len(CASES)
    for name, case in CASES.items():
        assert case["code"] == 0 or case.get("says") or name == "house-home-file", name
