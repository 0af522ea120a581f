"""`holo bench`: what it reports is so, and nothing of it is left, however it ends."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from holo.bench import BenchReport, BenchResult
from holo.cli import chart
from support import compare, trees
from support.cli import Holo
from support.filesystems import Filesystem

STRATEGIES = ("smart", "reflink", "hardlink", "copy")
USED = {"smart": "snapshot", "reflink": "snapshot", "hardlink": "hardlink", "copy": "copy"}
"""Methods on Btrfs."""

on_btrfs = pytest.mark.parametrize("filesystem", ["btrfs"], indirect=True)
locally = pytest.mark.parametrize("filesystem", ["local"], indirect=True)


@pytest.fixture
def source(filesystem: Filesystem) -> Path:
    """Not a small path, or a binary that holds it could not be restored to a space."""
    return trees.nasty(filesystem.root / "source".ljust(112, "-"), xattrs=False)


@pytest.fixture
def impossible(filesystem: Filesystem) -> Path:
    """A tree that is recorded but not restored: its program has no room for a longer path."""
    root = filesystem.root / "s"
    trees.write(root / "binary", b"\x7fELF\0\1" + os.fsencode(root) + b"/lib\0\2")
    return root


def left(holo: Holo) -> list[str]:
    return os.listdir(holo.home) if holo.home.exists() else []


def state(tree: Path) -> dict[bytes, tuple[int, ...]]:
    """All that reading does not change."""
    return {
        name: (found.st_ino, found.st_mode, found.st_nlink, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        for name, found in compare.walk(tree).items()
    }


@on_btrfs
def test_report_of_a_bench_is_true(holo: Holo, filesystem: Filesystem, source: Path) -> None:
    before = state(source)
    picture = filesystem.root / "chart.svg"
    done = holo("bench", source, "--json", "--progress", "json", "--output", picture)
    report = done.json()
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["event"] for event in told} == {"progress"}
    assert told[-1]["done"] == told[-1]["total"]
    assert state(source) == before
    assert left(holo) == []
    assert sorted(os.listdir(filesystem.root)) == ["chart.svg", "home", "settings.yaml", source.name]

    files = [found for found in before.values() if found[1] & 0o170000 == 0o100000]
    assert list(report) == ["tree", "filesystem", "results"]
    assert report["tree"] == {"files": len(files), "bytes": sum(found[3] for found in files), "generated": False}
    assert report["filesystem"] == filesystem.name
    results = {result["name"]: result for result in report["results"]}
    for strategy in STRATEGIES:
        for name in ("init {}", "restore {}, pristine", "restore {}, damaged"):
            result = results[name.format(strategy)]
            assert result["used"] == USED[strategy], name
            assert f"--strategy {strategy}" in result["command"]
    assert results["record"]["used"] is None
    copies = {result["command"]: result["used"] for result in report["results"] if result["command"][:3] == "cp "}
    assert copies["cp -al tree copy"] == "hardlink"
    assert ("cp -a --reflink=always tree copy" in copies) is filesystem.reflinks
    full_copy = results["cp -a --reflink=never"]
    assert full_copy["speedup"] == 1
    for result in results.values():
        assert list(result) == ["name", "command", "used", "seconds", "files_per_second", "speedup"]
        assert 0.0005 < result["seconds"] < 30
        assert result["files_per_second"] == pytest.approx(len(files) / result["seconds"], rel=0.1)
        assert result["speedup"] == pytest.approx(full_copy["seconds"] / result["seconds"], rel=0.1, abs=0.02)

    root = ET.fromstring(picture.read_text(encoding="utf-8"))
    shown = "".join(root.itertext())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert all(name in shown for name in results)


@on_btrfs
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("bench-*/tree/lib/package3", signal.SIGINT),  # while the tree is generated, by this process itself
        ("bench-*/home/hololib/library/*", signal.SIGINT),
        ("bench-*/home/hololib/golden/*", signal.SIGINT),
        ("bench-*/space/*", signal.SIGTERM),
        ("bench-*/copy/*", signal.SIGINT),
    ],
)
def test_interrupted_bench_leaves_nothing(holo: Holo, source: Path, moment: str, number: signal.Signals) -> None:
    process = holo.start("bench", *([] if "package" in moment else [source]))
    wait_for(holo, process, moment)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (128 + number, "")
    assert stderr == "error: interrupted; what was made for measuring is removed\n"
    assert left(holo) == []


def wait_for(holo: Holo, process: subprocess.Popen[str], pattern: str) -> None:
    while not any(holo.home.glob(pattern)):
        if process.poll() is not None:
            pytest.fail(f"there never was {pattern}: {process.communicate()}")
        time.sleep(0.002)


@on_btrfs
def test_leftovers_of_a_killed_bench_are_removed_by_the_next(holo: Holo, source: Path, impossible: Path) -> None:
    process = holo.start("bench", source)
    wait_for(holo, process, "bench-*/home/hololib/golden/[0-9a-f]*")
    process.kill()
    process.communicate()
    assert len(left(holo)) == 1
    time.sleep(1)  # the command that it ran ends by itself
    holo("bench", impossible, code=1)
    assert left(holo) == []


class Terminal(io.TextIOWrapper):
    """A stdout of a certain encoding, which may be a terminal's."""

    def __init__(self, encoding: str, *, is_terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def lines(self) -> list[str]:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding).splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(("is_terminal", "no_color"), [(True, ""), (True, "1"), (False, "")])
def test_output_for_people(monkeypatch: pytest.MonkeyPatch, encoding: str, is_terminal: bool, no_color: str) -> None:
    results = [
        BenchResult("init smart", "holo init", "copy", 1.0, 100, 0.25, "reflink does not work here: " + "because " * 9),
        BenchResult("cp -a", "cp -a tree copy", "copy", 0.25, 400, 1, None),
        BenchResult("cp -al", "cp -al tree copy", "hardlink", 0.0001, 1_000_000, 2500, None),
    ]
    stdout = Terminal(encoding, is_terminal=is_terminal)
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    report = BenchReport(100, 5_000_000, False, "ext4", results, "cp -a")
    chart.table(report)
    chart.bars(report)
    lines = stdout.lines()
    assert "init smart  copy *      1.000        100      0.2x" in lines
    assert any(line.startswith("* reflink does not work here") for line in lines)
    full = "#" if encoding == "ascii" else "█"
    bars = lines[-3:]
    assert ("\x1b" in bars[0]) is (is_terminal and not no_color)
    assert "\x1b" not in bars[1]
    assert bars[0].count(full) == 4 * bars[1].count(full) == 40
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in lines) == 60
    assert bars[2] == f"cp -al      {'#' if encoding == 'ascii' else '▏'} 0.000 s"


@locally
def test_nothing_is_left_after_an_error(holo: Holo, impossible: Path) -> None:
    before = state(impossible)
    failed = holo("bench", impossible, "--json", code=1)
    message, hint = failed.stderr.splitlines()
    assert message.startswith("error: `holo init tree --to space --space space --strategy smart --json` failed: ")
    assert hint.startswith("hint: ")
    assert json.loads(failed.stdout)["error"]["message"] == message.removeprefix("error: ")
    assert left(holo) == []
    assert state(impossible) == before


@locally
def test_folders_of_a_running_bench_stay(holo: Holo, impossible: Path) -> None:
    (holo.home / "bench-0123abcd").mkdir(parents=True)
    (holo.home / "bench-0123abcd" / "tree").mkdir()
    (holo.home / "bench-press.txt").touch()
    with (holo.home / "bench-0123abcd" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "waiting" not in holo("bench", impossible, code=1).stderr
        assert sorted(left(holo)) == ["bench-0123abcd", "bench-press.txt"]
        assert sorted(os.listdir(holo.home / "bench-0123abcd")) == ["lock", "tree"]
    holo("bench", impossible, code=1)
    assert left(holo) == ["bench-press.txt"]


@locally
def test_refusals_come_before_anything_is_made(holo: Holo, filesystem: Filesystem, source: Path) -> None:
    assert "no such directory" in holo("bench", source / "none", code=1).stderr
    assert "there is no folder" in holo("bench", source, "--output", source / "none" / "c.svg", code=1).stderr
    assert "is not a file" in holo("bench", source, "--output", source, code=2).stderr
    assert "neither SVG nor HTML" in holo("bench", source, "--output", filesystem.root / "c.png", code=2).stderr
    assert "contains" in holo("bench", filesystem.root, code=2).stderr
    assert not holo.home.exists()
