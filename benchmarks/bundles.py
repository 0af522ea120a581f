"""Measure bundles beside tar and zstd: seconds, sizes, memory. Linux, as root; README.md says how."""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import floor
import trees
import zstandard
from blake3 import blake3
from commands import Tools
from filesystems import NAMES, Filesystem, UnavailableError, mounted
from filesystems import run as call
from measure import Case, FailedError, Timing, alternate, execute, peak_memory
from program import heading, note, parser, table, verdict
from run import COW, MEGABYTE, scale, start

EXPORT, IMPORT, DIRECT = "export --compress", "import", "init FILE"
IMPORT_INIT = "import + init"
PACK, UNPACK, UNPACK_ZSTD = "tar -c, zstd -3 -T0", "tar -x", "tar --zstd -x"  # no | in a table
AND_SYNC = " && sync -f"


@dataclass(frozen=True)
class Row:
    """One claim: on these filesystems `holo` takes at most `target` times as long as `peer`."""

    filesystems: Sequence[str]
    holo: str
    peer: str
    target: float
    syncs: bool
    """whether holo waits for the disk, which the peer does not, so that it is shown beside the peer with a sync, too"""


ROWS = (
    Row(NAMES, EXPORT, PACK, 0.6, syncs=False),
    Row(("ext4",), IMPORT_INIT, UNPACK_ZSTD, 1.0, syncs=True),
    Row(("ext4",), DIRECT, UNPACK_ZSTD, 0.9, syncs=False),
    Row(COW, IMPORT, UNPACK, 0.5, syncs=True),
    Row(COW, DIRECT, UNPACK, 0.5, syncs=False),
)
SIZE = 1.15  # times that of tar and zstd -3
MEMORY = 150 * MEGABYTE
LARGE = 1_000  # megabytes of the one file; with --quick
LARGE_QUICK = 64


class Yard:
    """One filesystem with the environment, its library, its bundles and its archives, and the commands to measure."""

    def __init__(self, filesystem: Filesystem, tools: Tools) -> None:
        self.filesystem = filesystem
        self.tools = tools
        self.root = filesystem.root
        self.environment = self.root / "env"
        self.target = self.root / "copy"
        self.library = self.root / "library"
        self.fresh = self.root / "fresh"
        self.written = self.root / "written"
        self.is_cow = filesystem.name in COW
        execute(tools.install(self.environment, tools.cache, "copy"), tools.environment)
        self.count = trees.count(self.environment)
        self._record(self.environment)

    def bundle(self, name: str, *, compress: bool) -> Path:
        return self.root / f"{name}.{'zst' if compress else 'raw'}.holo"

    def archive(self, *, compress: bool) -> Path:
        return self.root / ("env.tar.zst" if compress else "env.tar")

    def pack(self) -> None:
        """Make every bundle and archive that is read."""
        for compress in (True, False):
            execute(self._export("env", self.bundle("env", compress=compress), compress=compress), self._at())
        target = shlex.quote(str(self.archive(compress=True)))
        execute(["sh", "-c", f"{self._tar()} | zstd -3 -T0 -q -f -o {target}"], self.tools.environment)
        execute(["sh", "-c", f"{self._tar()} > {self.archive(compress=False)}"], self.tools.environment)

    def sizes(self) -> list[list[str]]:
        """The lines of the table of sizes."""
        lines = []
        for compress in (True, False):
            bundle = self.bundle("env", compress=compress).stat().st_size
            archive = self.archive(compress=compress).stat().st_size
            ratio = bundle / archive
            claim = [f"{SIZE:g}x", verdict(ratio <= SIZE)] if compress else ["", ""]
            names = [EXPORT, "tar -c, zstd -3"] if compress else ["export", "tar -c"]
            shown = [f"{size / MEGABYTE:.1f} MB" for size in (bundle, archive)]
            lines.append([self.filesystem.name, *names, *shown, f"{ratio:.2f}x", *claim])
        return lines

    # -- cases --------------------------------------------------------------------------------------------

    def cases(self) -> Iterator[Case]:
        """Every command of the rows of this filesystem."""
        yield self._case(EXPORT, self._export("env", self.written, compress=True), after=self._drop_written)
        pack = f"{self._tar()} | zstd -3 -T0 -q -o {shlex.quote(str(self.written))}"
        yield self._case(PACK, ["sh", "-c", pack], after=self._drop_written)
        compress = not self.is_cow
        yield self._direct("env", compress=compress)
        yield self._import("env", compress=compress) if self.is_cow else self._import_and_init()
        flag = "--zstd " if compress else ""
        target, archive = (shlex.quote(str(path)) for path in (self.target, self.archive(compress=compress)))
        unpack = f"mkdir {target} && tar -C {target} {flag}-xf {archive}"
        name = UNPACK_ZSTD if compress else UNPACK
        for label, more in (("", ""), (AND_SYNC, f"{AND_SYNC} {target}")):
            yield self._case(f"{name}{label}", ["sh", "-c", unpack + more], after=self._expect_copy)

    def weighed(self, name: str) -> Iterator[Case]:
        """The commands whose memory is measured, on one tree."""
        for compress in (False, True):
            flag = " --compress" if compress else ""
            command = self._export(name, self.written, compress=compress)
            yield self._case(f"export{flag}", command, after=self._drop_written)
            execute(self._export(name, self.bundle(name, compress=compress), compress=compress), self._at())
            yield self._import(name, compress=compress)
            yield self._direct(name, compress=compress)

    def make_large(self, megabytes: int) -> str:
        """Record a tree with one large file that can be compressed by about a quarter."""
        tree = self.root / "large"
        tree.mkdir()
        chance, letters = random.Random(1), bytes(97 + number % 16 for number in range(256))
        with (tree / "file").open("wb") as file:
            for _ in range(megabytes):
                file.write(chance.randbytes(MEGABYTE // 2))
                file.write(chance.randbytes(MEGABYTE // 2).translate(letters))
        self._record(tree)
        return tree.name

    def _record(self, tree: Path) -> None:
        execute([*self.tools.holo, "record", str(tree), "--name", tree.name], self._at())

    def _import(self, name: str, *, compress: bool) -> Case:
        command = [*self.tools.holo, "import", str(self.bundle(name, compress=compress))]
        return self._case(self._labelled(IMPORT, compress), command, home=self.fresh, after=self._expect_catalog)

    def _import_and_init(self) -> Case:
        """Both in one shell; the arguments that are added to it are those of the second."""
        holo = shlex.join(self.tools.holo)
        bundle, target = (shlex.quote(str(path)) for path in (self.bundle("env", compress=True), self.target))
        line = f'{holo} import {bundle} > /dev/null && exec {holo} init --space new --to {target} env "$@"'
        command = ["sh", "-c", line, "sh"]
        return self._case(IMPORT_INIT, command, home=self.fresh, after=self._expect_copy, reports=True)

    def _direct(self, name: str, *, compress: bool) -> Case:
        bundle = str(self.bundle(name, compress=compress))
        command = [*self.tools.holo, "init", "--space", "new", "--to", str(self.target), bundle]
        after = self._expect_copy if name == "env" else self._clear
        label = self._labelled(DIRECT, compress)
        return self._case(label, command, home=self.fresh, after=after, reports=True)

    def _labelled(self, name: str, compress: bool) -> str:
        """Which bundle it is, where that is not what is used on this filesystem."""
        return name if compress is not self.is_cow else f"{name}, {'compressed' if compress else 'raw'}"

    def _export(self, name: str, output: Path, *, compress: bool) -> list[str]:
        return [*self.tools.holo, "export", name, "-o", str(output), *(["--compress"] if compress else [])]

    def _tar(self) -> str:
        return f"tar -C {shlex.quote(str(self.environment))} -c ."

    def _case(self, name: str, command: list[str], home: Path | None = None, **more: object) -> Case:
        return Case(name, command, self._at(home), **more)  # type: ignore[arg-type]

    def _at(self, home: Path | None = None) -> dict[str, str]:
        nowhere = self.root / "config"  # no settings file of the user's
        return self.tools.environment | {"HOLO_HOME": str(home or self.library), "XDG_CONFIG_HOME": str(nowhere)}

    # -- after a command ----------------------------------------------------------------------------------

    def _drop_written(self) -> None:
        self.written.unlink()

    def _expect_catalog(self) -> None:
        """What was imported is there, whole."""
        found = json.loads(execute([*self.tools.holo, "catalogs", "--json"], self._at(self.fresh)))["catalogs"]
        if len(found) != 1:
            raise FailedError(f"{self.fresh} has {len(found)} catalogs")
        self._clear()

    def _expect_copy(self) -> None:
        """A command that leaves things out must not win."""
        made = trees.count(self.target)
        if (made.files, made.symlinks, made.directories) != (
            self.count.files,
            self.count.symlinks,
            self.count.directories,
        ):
            raise FailedError(f"{self.target} is not a copy: {made}, not {self.count}")
        self._clear()

    def _clear(self) -> None:
        for made in (self.fresh, self.target):
            self.filesystem.remove(made)


def computed(paths: Sequence[Path], *, compress: bool) -> None:
    """Read blobs, and do what an entry of a bundle cannot do without: see :func:`floors`."""
    packer, unpacker = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    for path in paths:
        content = path.read_bytes()
        if path.suffix:
            content = unpacker.decompress(content)
        elif compress:
            packer.compress(content)
        blake3(content).digest()
        crc32(content)


def floors(yard: Yard) -> Iterator[list[str]]:
    """The lines of the table of what is necessary, each alone, by two processes; the start of Python is not in it."""
    blobs = yard.library / "hololib" / "library"
    paths = [path for path in blobs.rglob("*") if path.is_file()]
    shares = [paths[0::2], paths[1::2]]
    for compress, what in ((False, "read and hash all contents"), (True, "the same, and compress what is not")):
        seconds = floor.timed(partial(computed, compress=compress), shares)
        yield [yard.filesystem.name, what, f"{seconds:.3f}"]
    for what, source in (("library", blobs), ("environment", yard.environment)):
        note(f"{yard.filesystem.name}: floor: {what}")
        found = floor.measure(source, yard.root / "floor")
        seconds = found["directories, 1 process"] + found["copy, 2 processes"]
        yield [yard.filesystem.name, f"make the files of the {what}", f"{seconds:.3f}"]
        yield [
            yard.filesystem.name,
            f"wait until those of the {what} are on the disk",
            f"{found['sync after copy']:.3f}",
        ]


def measure(
    filesystem: Filesystem, tools: Tools, options: argparse.Namespace
) -> tuple[list[list[str]], list[list[str]], list[list[str]], list[list[str]]]:
    """The lines of the tables of times, sizes, memory and floors for one filesystem."""

    def remark(text: str) -> None:
        note(f"{filesystem.name}: {text}")

    remark("preparing")
    yard = Yard(filesystem, tools)
    yard.pack()
    timings = alternate([*yard.cases()], options.rounds, filesystem.settle, remark)
    times = [line(filesystem.name, row, timings) for row in ROWS if filesystem.name in row.filesystems]
    necessary = [*floors(yard)] if options.floor else []  # before the library has a large file
    weights = [*weigh(yard, "env", f"{yard.count.files:,} files")]
    megabytes = LARGE_QUICK if options.quick else LARGE
    weights += weigh(yard, yard.make_large(megabytes), f"one of {megabytes:,} MB")
    return times, yard.sizes(), weights, necessary


def line(name: str, row: Row, timings: dict[str, Timing]) -> list[str]:
    """One row of the table of times."""
    holo, peer, synced = (timings.get(case) for case in (row.holo, row.peer, row.peer + AND_SYNC))
    if holo is None or peer is None or (row.syncs and synced is None):
        return [name, row.holo, row.peer, "", "", "", "failed", f"{row.target:g}x", verdict(False), "", ""]
    seconds, against = statistics.median(holo.seconds), statistics.median(peer.seconds)
    used = f" ({holo.used})" if holo.used else ""
    spread = f"{min(holo.seconds):.3f}-{max(holo.seconds):.3f}"
    ratio = f"{seconds / against:.2f}x"
    found = [name, f"{row.holo}{used}", row.peer, f"{seconds:.3f}", spread, f"{against:.3f}", ratio]
    found += [f"{row.target:g}x", verdict(seconds <= row.target * against)]
    if not row.syncs or synced is None:
        return [*found, "", ""]
    with_sync = statistics.median(synced.seconds)
    return [*found, f"{with_sync:.3f}", f"{seconds / with_sync:.2f}x"]


def weigh(yard: Yard, tree: str, content: str) -> Iterator[list[str]]:
    """The lines of the table of memory for one tree."""
    for case in yard.weighed(tree):
        note(f"{yard.filesystem.name}: memory: {case.name}, {content}")
        peak = peak_memory(case)
        shown = [f"{size / MEGABYTE:.0f} MB" for size in (peak, MEMORY)]
        yield [yard.filesystem.name, case.name, content, *shown, verdict(peak <= MEMORY)]


def measure_all(options: argparse.Namespace, workspace: Path) -> bool:
    """Run and print."""
    for tool in ("tar", "zstd"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} is not installed")
    tools = Tools.find(options.holo, workspace, options.quick)
    times: list[list[str]] = []
    sizes: list[list[str]] = []
    weights: list[list[str]] = []
    necessary: list[list[str]] = []
    for name in options.filesystems:
        with mounted(name, workspace, scale(options).image) as filesystem:
            found = measure(filesystem, tools, options)
        times += found[0]
        sizes += found[1]
        weights += found[2]
        necessary += found[3]
    versions = {
        "tar": call("tar", "--version").splitlines()[0].split()[-1],
        "zstd": call("zstd", "--version").split(" v")[1].split(",")[0],
    }
    heading(tools.versions() | versions, f"Medians of {options.rounds} rounds.")
    if options.quick:
        print("A quick run: too small to judge anything by.")
    titles = ["on", "holo", "against", "holo s", "least-most", "peer s", "ratio", "at most", ""]
    titles += ["peer and sync s", "ratio"]
    table(titles, times)
    table(["on", "holo", "against", "bundle", "archive", "ratio", "at most", ""], sizes)
    table(["on", "holo", "content", "peak", "at most", ""], weights)
    if necessary:
        table(["on", "what is necessary, alone", "seconds"], necessary)
    return all("failed" not in cells for cells in times)


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--floor", action="store_true", help="also the time of what is necessary alone")
    return made


if __name__ == "__main__":
    sys.exit(start(measure_all, _parser()))
