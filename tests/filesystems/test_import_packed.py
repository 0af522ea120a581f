"""Archives of conda-pack and venv-pack come into the library, and run at paths that they were not made for."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard

from support import compare, libraries, packs
from support.cli import Holo
from support.filesystems import unmount
from support.forks import Forks, User
from support.packs import Entry

pytestmark = pytest.mark.parametrize("filesystem", ["local"], indirect=True)

FOLDER_TIME = 315_532_800 * 10**9
"""1980: of a folder that an archive does not list."""


def expected(entries: list[Entry], place: Path, prefix: Path) -> Path:
    """The environment as it must be at ``prefix``, in another folder."""
    packs.unpack(entries, place, str(prefix))
    for folder, _, _ in os.walk(place, topdown=False):
        if os.path.basename(folder) != "empty":
            os.utime(folder, ns=(FOLDER_TIME, FOLDER_TIME))
    return place


@pytest.mark.parametrize("suffix", packs.COMPRESSIONS)
def test_an_environment_of_conda_runs_elsewhere(holo: Holo, suffix: str) -> None:
    entries = packs.conda(f"{holo.root}/where/it/was", binary=False)
    name, catalog = libraries.imported(holo, packs.write(holo.root / f"app-1.0{suffix}", entries))
    assert (name, catalog.totals.files, catalog.totals.symlinks, len(catalog.relocations)) == ("app-1.0", 9, 1, 2)
    as_long = holo.root / ("e" * (len(catalog.prefix) - len(str(holo.root)) - 1))
    for number, place in enumerate((holo.root / "s", as_long, holo.root / ("x" * 100) / ("x" * 100))):
        holo("init", "--space", f"space-{number}", "app-1.0", "--to", place)
        script = os.fsencode(place)
        wanted = [
            entry._replace(content=b"#!" + script + b"/bin/hello\n# " + script + b"\n")
            if entry.path == "bin/script"
            else entry
            for entry in entries
            if entry.path != "bin/conda-unpack"
        ]
        source = expected(wanted, holo.root / f"by-hand-{number}", place)
        (place / "bin" / "conda-unpack").unlink()  # it contains no path that counts
        os.utime(place / "bin", ns=(FOLDER_TIME, FOLDER_TIME))
        assert compare.differences(source, place, old=Path("/nowhere"), new=place) == []
        assert subprocess.check_output([place / "bin" / "hello"], text=True) == f"hello from {place}/share\n"
    holo("check", "--space", "space-0", code=3)  # for conda-unpack was removed
    assert os.listdir(holo.library / "builds") == []


def test_binary_files_are_patched_as_conda_does_it(holo: Holo) -> None:
    archive = packs.write(holo.root / "app.tar.gz", packs.conda("/opt/app"))
    before = len(packs.CONDA_PLACEHOLDER)
    _, catalog = libraries.imported(holo, archive)
    assert catalog.prefix == f"{holo.holotree}/.environment-of-archive"
    holo("init", "--space", "app", "app")
    (space,) = holo.holotree.glob("app_*")
    assert len(str(space)) == len(catalog.prefix)
    new = os.fsencode(space)
    first = (new + b"/a:" + new + b"/b").ljust(2 * before + len(b"/a:/b"), b"\0")
    wanted = b"\x7fELF\0" + first + b"\0" + new.ljust(before, b"\0") + b"\0end"
    assert (space / "lib" / "libhello.so").read_bytes() == wanted


def test_a_short_path_in_a_binary_file(holo: Holo) -> None:
    """Where a space's path has no room, the environment is recorded with the short path, and fits shorter ones."""
    archive = packs.write(holo.root / "app.tar", packs.conda("/opt/app", short=f"{holo.root}/abc"))
    _, catalog = libraries.imported(holo, archive)
    assert catalog.prefix == f"{holo.root}/abc"
    assert "longer path has no room" in holo("init", "--space", "app", "app", code=1).stderr
    holo("init", "--space", "app", "app", "--to", holo.root / "xyz")
    assert (holo.root / "xyz/lib/short.so").read_bytes() == b"\x7fELF\0%b/xyz/it\0end" % os.fsencode(holo.root)
    assert (holo.root / "xyz/lib/libhello.so").read_bytes().startswith(b"\x7fELF\0%b/xyz/a" % os.fsencode(holo.root))


def test_an_archive_of_venv_pack(holo: Holo) -> None:
    entries = packs.venv("/home/me/project/.venv")
    _, catalog = libraries.imported(holo, packs.write(holo.root / "venv.tar.gz", entries))
    assert (catalog.prefix, catalog.totals.files, [*catalog.relocations]) == (
        "/home/me/project/.venv",
        4,
        ["pyvenv.cfg"],
    )
    holo("init", "--space", "venv", "venv", "--to", holo.root / "it")
    assert f"-m venv {holo.root}/it\n" in (holo.root / "it" / "pyvenv.cfg").read_text()
    assert os.readlink(holo.root / "it" / "lib64") == "lib"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("bin/activate", 'VIRTUAL_ENV="{}"\nexport VIRTUAL_ENV\n'),
        ("bin/tool", "#!{}/bin/python3.11\n"),
        ("pyvenv.cfg", "command = /usr/bin/python -m venv --copies {}\n"),
    ],
)
def test_a_plain_archive_of_an_environment(holo: Holo, path: str, content: str) -> None:
    """Made with tar, and with a folder around it: the path is wherever environments have it."""
    prefix = "/srv/made at/env" if path != "bin/tool" else "/srv/env"
    entries = [Entry("./env", mode=0o750, kind=tarfile.DIRTYPE), Entry("./env/pyvenv.cfg", b"home = /usr/bin\n")]
    entries += [Entry("env/bin/sh", b"#!/usr/bin/python3\n"), Entry(f"./env/{path}", content.format(prefix).encode())]
    _, catalog = libraries.imported(holo, packs.write(holo.root / "env.tar", entries))
    assert (catalog.prefix, [*catalog.relocations]) == (prefix, [path])
    holo("init", "--space", "it", "env", "--to", holo.root / "it")
    assert str(holo.root / "it") in (holo.root / "it" / path).read_text()
    assert (holo.root / "it").stat().st_mode & 0o777 == 0o750


def test_rights_are_kept_only_if_that_is_said(holo: Holo) -> None:
    entries = [*packs.venv("/opt/env"), Entry("bin/su", b"", 0o6755)]
    archive = packs.write(holo.root / "env.tar", entries)
    for name, mode, more in (("less", 0o755, []), ("all", 0o6755, ["--keep-setid"])):
        said = holo("import", archive, "--name", name, *more).stderr
        assert ("setgid bits, which --keep-setid keeps: bin/su\n" in said) is (name == "less")
        holo("init", "--space", name, name, "--to", holo.root / name)
        assert (holo.root / name / "bin" / "su").stat().st_mode & 0o7777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_an_ordinary_user_imports_what_cannot_be_written_to(holo: Holo, forks: Forks) -> None:
    entries = [*packs.venv("/opt/env"), Entry("closed", mode=0o555, kind=tarfile.DIRTYPE)]
    entries += [Entry("closed/in", mode=0o500, kind=tarfile.DIRTYPE), Entry("closed/in/file", b"x", 0o400)]
    archive = packs.write(holo.root / "env.tar.gz", entries)
    for folder in holo.root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    holo.root.chmod(0o777)
    for code in (0, 3):
        said = forks("import", archive, env=holo.environment(), user=User(1001), code=code)
        assert ("imported env" in said.stdout) is (code == 0)
        assert not [*holo.holotree.glob(".build-*")]
        archive = packs.write(holo.root / "bad.tar", [*entries, Entry("..", b"x")])
    forks("init", "--space", "env", "env", env=holo.environment(), user=User(1001))
    (space,) = holo.holotree.glob("env_*")
    status = (space / "closed" / "in").stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o500, 1001)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_leaves_nothing(holo: Holo) -> None:
    """There is room to unpack, or so it seems, and none to record."""
    entries = [*packs.venv("/opt/env"), Entry("share/random", os.urandom(1 << 20))]
    archive = packs.write(holo.root / "env.tar", entries)
    place = holo.root / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", place], check=True)
    try:
        said = holo("import", archive, env={"HOLO_HOME": str(place / "home")}, code=1)
        assert "No space left" in said.stderr
        assert not [*place.glob("home/holotree/.build-*"), *place.glob("home/hololib/builds/*")]
        assert not [*place.glob("home/hololib/catalog/*")]
        subprocess.run(["mount", "-o", "remount,size=4m", place], check=True)
        holo("import", archive, env={"HOLO_HOME": str(place / "home")})
        holo("check", env={"HOLO_HOME": str(place / "home")})
    finally:
        unmount(place)


def with_script(text: str) -> list[Entry]:
    return [Entry("conda-meta/history"), Entry("bin/conda-unpack", text.encode(), 0o755)]


RECORDS = "_prefix_records = [\n{}\n]\n"
VENV = Entry("pyvenv.cfg", b"home = /usr/bin\n")

HOSTILE: dict[str, tuple[list[Entry], str, int]] = {
    "dot-dot": ([VENV, Entry("bin/../../evil", b"x")], "no path inside", 3),
    "only-dot-dot": ([VENV, Entry("..", kind=tarfile.DIRTYPE)], "no path inside", 3),
    "absolute": ([VENV, Entry("/tmp/evil", b"x")], "absolute path", 3),
    "through-a-symlink": (
        [VENV, Entry("lib", kind=tarfile.SYMTYPE, target="/tmp"), Entry("lib/evil", b"x")],
        "below 'lib', which is a symlink",
        3,
    ),
    "file-for-a-symlink": (
        [VENV, Entry("lib", kind=tarfile.SYMTYPE, target="/tmp/evil"), Entry("lib", b"x")],
        "two entries 'lib'",
        3,
    ),
    "folder-for-a-symlink": (
        [VENV, Entry("lib", kind=tarfile.SYMTYPE, target="/tmp"), Entry("lib", kind=tarfile.DIRTYPE)],
        "two entries 'lib'",
        3,
    ),
    "symlink-twice": ([VENV, *[Entry("lib", kind=tarfile.SYMTYPE, target="/tmp")] * 2], "two entries 'lib'", 3),
    "below-a-file": ([VENV, Entry("pyvenv.cfg/evil", b"x")], "which is a file", 3),
    "hard-link-outside": ([VENV, Entry("evil", kind=tarfile.LNKTYPE, target="/etc/passwd")], "absolute path", 3),
    "hard-link-up": ([VENV, Entry("evil", kind=tarfile.LNKTYPE, target="../../etc/passwd")], "no file before it", 3),
    "hard-link-to-a-symlink": (
        [VENV, Entry("a", kind=tarfile.SYMTYPE, target="/etc/passwd"), Entry("b", kind=tarfile.LNKTYPE, target="a")],
        "no file before it",
        3,
    ),
    "hard-link-to-a-folder": (
        [VENV, Entry("a", kind=tarfile.DIRTYPE), Entry("b", kind=tarfile.LNKTYPE, target="a")],
        "no file before it",
        3,
    ),
    "device": ([VENV, Entry("dev", kind=tarfile.CHRTYPE)], "neither a file", 3),
    "disk": ([VENV, Entry("dev", kind=tarfile.BLKTYPE)], "neither a file", 3),
    "fifo": ([VENV, Entry("fifo", kind=tarfile.FIFOTYPE)], "neither a file", 3),
    "sparse": ([VENV, Entry("sparse", kind=tarfile.GNUTYPE_SPARSE)], "neither a file", 3),
    "long-name": ([VENV, Entry("x" * 256)], "cannot be one", 3),
    "empty-target": ([VENV, Entry("lib", kind=tarfile.SYMTYPE)], "cannot be one", 3),
    "long-target": ([VENV, Entry("lib", kind=tarfile.SYMTYPE, target="x/" * 2048)], "cannot be one", 3),
    "deep": ([VENV, Entry("x/" * 500 + "x")], "no path inside", 3),
    "time": ([VENV, Entry("late", mtime=1e15)], "impossible modification time", 3),
    "no-time": ([VENV, Entry("late", mtime=1e300)], "damaged", 3),
    "huge": ([VENV, Entry("huge", b"x", size=1 << 60)], "there is room for", 1),
    "huge-header": ([VENV, Entry("x", b"x", kind=tarfile.XHDTYPE, size=1 << 30)], "a header says", 3),
    "no-environment": ([Entry("README", b"x")], "neither conda-meta nor pyvenv.cfg", 2),
    "more-than-one": ([Entry("env/pyvenv.cfg", b""), Entry("README", b"x")], "more in it than an environment", 2),
    "code": (with_script(RECORDS.format("open('evil', 'w')")), "not as conda-pack writes it", 3),
    "code-in-a-record": (with_script(RECORDS.format("('a', open('evil', 'w'), 'text')")), "not as conda-pack", 3),
    "no-records": (with_script("print()\n"), "not as conda-pack writes it", 3),
    "relative-record": (with_script(RECORDS.format("('a', 'b', 'text')")), "not as conda-pack writes it", 3),
    "other-mode": (with_script(RECORDS.format("('a', '/b', 'magic')")), "not as conda-pack writes it", 3),
    "bad-escape": (with_script(RECORDS.format(r"('\N{nothing}', '/b', 'text')")), "not as conda-pack writes it", 3),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused(holo: Holo, case: str) -> None:
    entries, words, code = HOSTILE[case]
    for suffix in packs.COMPRESSIONS:
        archive = packs.write(holo.root / f"env{suffix}", entries)
        said = holo("import", archive, code=code, cwd=holo.root)
        assert words in said.stderr
        assert len(said.stderr.splitlines()) <= 2
    assert not holo.home.exists()
    assert sorted(os.listdir(holo.root)) == sorted(
        [*(f"env{suffix}" for suffix in packs.COMPRESSIONS), "settings.yaml"]
    )


def test_records_of_files_that_are_not_there_do_nothing(holo: Holo) -> None:
    outside = holo.root / "outside"
    outside.write_text("/opt/old\n")
    records = [(f"../../../../../../..{outside}", "/opt/old", "text"), ("conda-meta", "/opt/old", "binary")]
    entries = [Entry("conda-meta/history"), packs.conda_unpack(records)]
    holo("import", packs.write(holo.root / "env.tar", entries))
    assert outside.read_text() == "/opt/old\n"


@pytest.mark.parametrize("suffix", packs.COMPRESSIONS)
def test_an_archive_that_ends_early_is_refused(holo: Holo, suffix: str) -> None:
    entries = [entry for entry in packs.conda("/opt/app") if entry.path != "share/large"]
    whole = packs.write(holo.root / f"whole{suffix}", entries)
    data = whole.read_bytes()
    end = len(packs.tar(entries).rstrip(b"\0")) if suffix == ".tar" else len(data)
    short = holo.root / f"short{suffix}"
    for number in range(24):
        cut = end * number // 24 // 512 * 512 if suffix == ".tar" else end * number // 24
        short.write_bytes(data[:cut])
        holo("import", short, code=3 if cut >= 512 or (cut and suffix != ".tar") else 2)
    assert not holo.home.exists()


def test_damage_and_what_follows_are_noticed(holo: Holo) -> None:
    data = bytearray(packs.write(holo.root / "env.tar.gz", packs.conda("/opt/app")).read_bytes())
    data[-8] ^= 1  # of the checksum at the very end
    (holo.root / "env.tar.gz").write_bytes(data)
    assert "CRC check failed" in holo("import", holo.root / "env.tar.gz", code=3).stderr
    tar = packs.tar(packs.conda("/opt/app"))
    compress = zstandard.ZstdCompressor().compress
    (holo.root / "long.tar.zst").write_bytes(compress(tar) + compress(bytes(1 << 28)))
    assert "something follows" in holo("import", holo.root / "long.tar.zst", code=3).stderr
    (holo.root / "no.tar.gz").write_bytes(gzip.compress(b"no archive" * 100))
    assert "is not an archive" in holo("import", holo.root / "no.tar.gz", code=3).stderr
    assert not holo.home.exists()
