"""What a fleet asks of the object store it shares: requests, bytes, seconds, money, and what breaks first.

The formulas are those of docs/remotes.md. What a pack, a megabyte and a file cost is measured here, by real pushes and
pulls on loopback; the formulas are then held against pulls that they were not made from. Linux, as root.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import network
import trees
from commands import Tools
from filesystems import Filesystem, mounted
from measure import FailedError, execute
from program import CORES, heading, note, parser, table, verdict
from run import MEGABYTE, scale, start

if TYPE_CHECKING:
    from support.servers import Nginx, S3Server

MEBIBYTE = 1 << 20
PACKS = (4, 8, 16, 32, 64)  # mebibytes
USUAL = 16
SMALL = 0.25  # mebibytes: so many packs that one can be weighed
AT_ONCE = 8  # small objects that are read at once: holo.remote.remote
WINDOW = 8  # packs that a pull fetches at once, at least: holo.remote.pull
FLEETS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
MOST_ERROR = 0.3  # of what was measured
PULLERS = 4

# -- what is public ---------------------------------------------------------------------------------------------


class Store(NamedTuple):
    """Prices in dollars, and limits. Without taxes, discounts and free tiers."""

    name: str
    month: float
    """of a gigabyte"""
    put: float
    """of a million PUT and LIST requests"""
    get: float
    """of a million GET requests"""
    out: float
    """of a gigabyte to the internet, at most (the first tier)"""
    rate: int | None
    """GET requests per second before it has adapted to more"""
    gigabits: int | None
    """per second, that are published"""
    source: str


STORES = (
    Store(
        "S3 Standard, us-east-1",
        0.023,
        5.0,
        0.4,
        0.09,
        5500,  # per partitioned prefix
        None,
        "https://aws.amazon.com/s3/pricing/ as https://cloudburn.io/blog/amazon-s3-pricing (2026-03) and"
        " https://devnotes.tech/understanding-aws-s3-pricing-a-complete-cost-breakdown-with-examples give it;"
        " https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html",
    ),
    Store(
        "Cloudflare R2",
        0.015,
        4.5,
        0.36,
        0.0,
        None,
        None,
        "https://developers.cloudflare.com/r2/pricing/ (2026-08)",
    ),
)
CDN_GIGABYTE = 0.08  # first 10 TiB to North America: https://cloud.google.com/cdn/pricing (2026-09)
CDN_REQUESTS = 0.75  # of a million: the same page
AZURE = 200  # Gbit/s: https://learn.microsoft.com/azure/storage/common/scalability-targets-standard-account (2026)
LIST = 1000  # objects that an answer lists: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html

# -- what is measured -------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """What a pull or a push moves."""

    packs: int
    megabytes: float
    """of packs"""
    files: int


class Cost(NamedTuple):
    """Seconds: of a command as such, and of each pack, megabyte and file."""

    start: float
    pack: float
    megabyte: float
    file: float

    def of(self, load: Load) -> float:
        return self.start + self.variable(load)

    def variable(self, load: Load) -> float:
        return self.pack * load.packs + self.megabyte * load.megabytes + self.file * load.files


class Units(NamedTuple):
    """All that the formulas need to know of holo and this machine."""

    pull_wall: Cost
    pull: Cost
    """processor time, as all that follow"""
    fetch: Cost
    push: Cost
    make: Cost
    serve: Cost
    """of nginx, with TLS"""
    write: Cost
    """of the kernel's threads, which write to the disk what a pull makes"""
    read: Cost
    """of a catalog's object: what `remote gc` does with each"""
    env: Load
    catalog: float
    """megabytes of its object"""
    delta: list[float]
    """of a catalog in which one package differs: megabytes of new blobs, of its object, sent, received; requests"""


SCRIPTS = {
    # holo, with packs of another size
    "holo": (
        "import runpy, sys\n"
        "import holo.remote.packs as packs, holo.remote.push as push\n"
        "packs.PACK = push.PACK = int(sys.argv.pop(1))\n"
        "runpy.run_module('holo', run_name='__main__', alter_sys=True)\n"
    ),
    # only fetch and hash, one pack after the other
    "fetch": (
        "import sys\n"
        "from holo import digest\n"
        "from holo.remote.remote import Remote, pack_key\n"
        "from holo.remote.stores import connect\n"
        "from holo.transport.bundle import unnamed_file\n"
        "remote = Remote(connect(sys.argv[1], is_verified=False))\n"
        "pointer, _ = remote.pointer('name', sys.argv[2])\n"
        "for pack in remote.catalog(pointer.catalog)[1].packs:\n"
        "    file = unnamed_file(sys.argv[3])\n"
        "    assert remote.fetch(pack_key(pack.digest), file, most=pack.size)\n"
        "    assert digest.of_file(file) == pack.digest\n"
    ),
    # only make the packs, one after the other
    "make": (
        "import os, sys\n"
        "from holo.hololib import Library\n"
        "import holo.remote.packs as packs\n"
        "packs.PACK = int(sys.argv[1])\n"
        "library = Library(os.environ['HOLO_HOME'])\n"
        "catalog = library.catalogs.load(library.catalogs.resolve(sys.argv[2]).digest)\n"
        "for task in packs.cut(library, [*packs.blobs_of(catalog).items()]):\n"
        "    for _ in packs.make_packs(library, task, library.folder('incoming')):\n"
        "        pass\n"
    ),
    # only read the catalog's object
    "read": (
        "import sys\n"
        "from holo.remote.remote import Remote\n"
        "from holo.remote.stores import connect\n"
        "remote = Remote(connect(sys.argv[1], is_verified=False))\n"
        "pointer, _ = remote.pointer('name', sys.argv[2])\n"
        "for _ in range(10):\n"
        "    remote.catalog(pointer.catalog)\n"
    ),
}


class Spent(NamedTuple):
    """What a command took."""

    wall: float
    processor: float
    server: float
    kernel: float


class Yard:
    """One filesystem with trees, their library, a remote for each size of packs, and the servers."""

    def __init__(self, filesystem: Filesystem, tools: Tools, *, quick: bool) -> None:
        self.filesystem = filesystem
        self.tools = tools
        self.root = filesystem.root
        self.served = self.root / "served"
        self.objects = self.root / "objects"
        self.fresh = self.root / "fresh"
        self.loads: dict[tuple[str, float], Load] = {}
        execute(tools.install(self.root / "env", tools.cache, "copy"), tools.environment)
        trees.synthesize(self.root / "small", 2_000 if quick else 20_000)
        (self.root / "tiny").mkdir()
        (self.root / "tiny" / "file").write_text("hello\n")
        self._write_large(12 if quick else 96)
        for folder in (self.served, self.objects):
            folder.mkdir()
        for name in ("env", "small", "tiny", "large"):
            self.holo("record", str(self.root / name), "--name", name)
        for name, size in (("env", USUAL), ("small", USUAL), ("tiny", USUAL), ("large", USUAL), ("large", SMALL)):
            found = json.loads(self._push(name, size, str(self.served / str(size))))
            packed = sum(item.stat().st_size for item in self._new_packs(size))
            self.loads[name, size] = Load(found["packs"], packed / MEGABYTE, found["blobs"]["sent"])

    def open(self, opened: ExitStack) -> None:
        """Start the servers."""
        self.web: Nginx = opened.enter_context(network.web(self.served))
        self.bucket: S3Server = opened.enter_context(network.bucket(self.objects))

    def pull(self, name: str, size: float, url: str = "") -> list[str]:
        """The command that pulls a tree with packs of a size."""
        return [*self.tools.holo, "pull", name, f"{url or self.web.url}/{size}", "--json"]

    def spent(self, command: Sequence[str], *, home: Path | None = None, server: bool = False) -> Spent:
        """Run a command, and see what it takes."""
        self.filesystem.settle()
        before, busy_before = network.processor_seconds(self.web), network.busy_seconds()
        begin = time.perf_counter()
        with subprocess.Popen(
            command, env=self.at(home), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            said = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begin
        if process.returncode != 0:
            raise FailedError(f"{command}: {said.decode(errors='replace')[-2000:]}")
        own = usage.ru_utime + usage.ru_stime
        served = network.processor_seconds(self.web) - before if server else 0.0
        return Spent(wall, own, served, max(0.0, network.busy_seconds() - busy_before - own - served))

    def at(self, home: Path | None = None) -> dict[str, str]:
        """The environment of a command."""
        found = self.tools.environment | {
            "HOLO_HOME": str(home or self.root / "library"),
            "XDG_CONFIG_HOME": str(self.root / "config"),  # no settings file of the user's
        }
        if hasattr(self, "web"):
            found |= self.bucket.environment | {"AWS_ENDPOINT_URL": self.bucket.direct}
            found["REQUESTS_CA_BUNDLE"] = str(self.web.authority)
        return found

    def push_command(self, name: str, size: float, remote: str) -> list[str]:
        """holo's, with packs of that size."""
        pack = str(int(size * MEBIBYTE))
        return [sys.executable, "-c", SCRIPTS["holo"], pack, "push", name, remote, "--json"]

    def clear(self, *homes: Path) -> None:
        """Remove what commands made."""
        for made in (self.fresh, *homes):
            self.filesystem.remove(made)
        for entry in (self.objects / "holo").iterdir() if (self.objects / "holo").exists() else ():
            self.filesystem.remove(entry)

    def holo(self, *words: str, home: Path | None = None) -> str:
        """What a command prints."""
        return execute([*self.tools.holo, *words], self.at(home))

    def _push(self, name: str, size: float, remote: str) -> str:
        Path(remote).mkdir(exist_ok=True)
        self._before = {*Path(remote).glob("packs/*")}
        return execute(self.push_command(name, size, remote), self.at())

    def _new_packs(self, size: float) -> set[Path]:
        return {*(self.served / str(size)).glob("packs/*")} - self._before

    def _write_large(self, number: int) -> None:
        """Files of 2 MiB of words, which can be compressed by about as much as libraries can."""
        chance = random.Random(1)
        words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(2, 9))) for _ in range(3000)]
        folder = self.root / "large"
        folder.mkdir()
        for index in range(number):
            text = " ".join(chance.choices(words, k=2 * MEBIBYTE // 6))
            (folder / f"file{index}").write_bytes(text.encode()[: 2 * MEBIBYTE])


def fit(found: dict[tuple[str, float], float], loads: dict[tuple[str, float], Load]) -> Cost:
    """The unit costs that explain what was measured."""
    few, many, tiny, small = ("large", USUAL), ("large", SMALL), ("tiny", USUAL), ("small", USUAL)
    pack = max(0.0, (found[many] - found[few]) / (loads[many].packs - loads[few].packs))
    begin = found[tiny] - pack
    megabyte = (found[few] - begin - pack * loads[few].packs) / loads[few].megabytes
    rest = found[small] - begin - pack * loads[small].packs - megabyte * loads[small].megabytes
    return Cost(begin, pack, max(0.0, megabyte), max(0.0, rest / loads[small].files))


def weigh(yard: Yard, rounds: int) -> dict[str, Cost]:
    """Measure the unit costs: medians of each command on each tree, in turn."""
    trees_ = [("tiny", USUAL), ("large", USUAL), ("large", SMALL), ("small", USUAL)]
    found: dict[str, dict[tuple[str, float], list[Spent]]] = {}

    for number in range(rounds + 1):
        for tree in trees_:
            note(f"round {number}/{rounds}: {tree[0]}, packs of {tree[1]} MiB" if number else f"warm-up: {tree}")
            name, size = tree
            url = f"{yard.web.url}/{size}"
            taken = {
                "pull": yard.spent(yard.pull(name, size), home=yard.fresh, server=True),
                "fetch": yard.spent([sys.executable, "-c", SCRIPTS["fetch"], url, name, str(yard.root)]),
                # A new place each time: the server remembers what it has seen, for a while.
                "push": yard.spent(yard.push_command(name, size, f"s3://{yard.bucket.bucket}/{number}-{name}-{size}")),
                "make": yard.spent([sys.executable, "-c", SCRIPTS["make"], str(int(size * MEBIBYTE)), name]),
                "read": yard.spent([sys.executable, "-c", SCRIPTS["read"], url, name]),
            }
            for work, spent in taken.items() if number else ():
                found.setdefault(work, {}).setdefault(tree, []).append(spent)
            yard.clear()

    def costs(work: str, what: Callable[[Spent], float]) -> Cost:
        medians = {tree: statistics.median(map(what, spents)) for tree, spents in found[work].items()}
        return fit(medians, yard.loads)

    reading = costs("read", lambda spent: spent.processor)
    return {
        "pull_wall": costs("pull", lambda spent: spent.wall),
        "pull": costs("pull", lambda spent: spent.processor),
        "serve": costs("pull", lambda spent: spent.server),
        "write": costs("pull", lambda spent: spent.kernel),
        **{work: costs(work, lambda spent: spent.processor) for work in ("fetch", "push", "make")},
        "read": Cost(0.0, 0.0, 0.0, reading.file / 10),
    }


# -- the formulas -----------------------------------------------------------------------------------------------


class Catalog(NamedTuple):
    """An environment in a remote."""

    name: str
    megabytes: float
    """of its packs"""
    files: int
    object: float
    """megabytes of the catalog's object"""
    fill: float
    """how much is in a pack, of what may be"""

    def load(self, mebibytes: float) -> Load:
        """With packs of that size."""
        packs = math.ceil(self.megabytes * MEGABYTE / (mebibytes * MEBIBYTE * self.fill))
        return Load(packs, self.megabytes, self.files)


class Link(NamedTuple):
    """Between a runner and what answers it."""

    seconds: float
    """of a round trip"""
    gigabits: float
    """per second"""

    def transfer(self, megabytes: float) -> float:
        return megabytes * MEGABYTE * 8 / (self.gigabits * 1e9)


def fill_of(load: Load) -> float:
    """How full packs are, of those that were pushed."""
    return load.megabytes * MEGABYTE / (load.packs * USUAL * MEBIBYTE)


def requests_cold(load: Load) -> int:
    """The name, the catalog, each pack. (Signatures: one more.)"""
    return 2 + load.packs


def bytes_cold(catalog: Catalog) -> float:
    """Megabytes."""
    return catalog.object + catalog.megabytes


def round_trips(load: Load) -> int:
    """The connection and its TLS, twice (the workers have their own); two documents; packs, so many at once."""
    return 2 * 2 + 2 + math.ceil(load.packs / WINDOW)


def seconds_alone(units: Units, catalog: Catalog, mebibytes: float, link: Link) -> float:
    """Of one pull, from a server that is never the bottleneck."""
    load = catalog.load(mebibytes)
    work = max(link.transfer(bytes_cold(catalog)), units.pull_wall.variable(load))
    return units.pull_wall.start + link.seconds * round_trips(load) + work


def seconds_together(units: Units, load: Load, pullers: int) -> float:
    """Of so many pulls at once on this one machine, the server's work and the kernel's included."""
    processors = pullers * (units.pull.of(load) + units.serve.of(load) + units.write.of(load)) / CORES
    return max(units.pull_wall.of(load), processors)


class Storm(NamedTuple):
    """What happens when a fleet starts at once, and the store refuses what is above its rate."""

    seconds: float
    """until the last pull has all its bytes"""
    refused: int
    """requests, each of which is tried again"""
    failed: int
    """pulls that were refused once too often"""


def storm(runners: int, load: Load | None, rate: float, link: Link) -> Storm:
    """Simulate it, request by request: the name, the catalog, then packs, so many at once. ``None``: only the name.

    All start within a second. A request that is refused pauses as holo does.
    """
    from holo.remote.remote import _ATTEMPTS, pause_after

    chance = random.Random(1)
    slot = 0.01
    used: dict[int, int] = {}
    left, done = [load.packs if load is not None else 0] * runners, [0] * runners
    failed: set[int] = set()
    pack = link.seconds
    if load is not None:
        pack += link.transfer(load.megabytes / load.packs) * min(WINDOW, load.packs)
    events = [(chance.random(), runner, 1) for runner in range(runners)]
    heapq.heapify(events)
    last, refused = 0.0, 0
    while events:
        now, runner, tries = heapq.heappop(events)
        if runner in failed:
            continue
        moment = int(now / slot)
        if used.get(moment, 0) >= rate * slot:
            refused += 1
            if tries >= _ATTEMPTS:
                failed.add(runner)
                continue
            pause = pause_after(tries, chance.uniform(0.5, 1))
            heapq.heappush(events, (now + link.seconds + pause, runner, tries + 1))
            continue
        used[moment] = used.get(moment, 0) + 1
        done[runner] += 1
        finished = now + (pack if done[runner] > 2 else link.seconds)
        last = max(last, finished)
        if done[runner] == 1:
            following = 0 if load is None else 1
        else:
            following = min(left[runner], WINDOW if done[runner] == 2 else 1)
            left[runner] -= following
        for _ in range(following):
            heapq.heappush(events, (finished, runner, 1))
    return Storm(last, refused, len(failed))


class Limit(NamedTuple):
    """Something that a fleet that starts at once can exhaust."""

    what: str
    capacity: float
    """per second"""
    need: float
    """of one runner"""
    seconds: float
    """how long it may take"""

    @property
    def runners(self) -> float:
        return self.capacity * self.seconds / self.need


def limits(units: Units, catalog: Catalog, options: argparse.Namespace) -> Iterator[Limit]:
    """All of them, for a cold start, with packs of the usual size."""
    load = catalog.load(USUAL)
    gigabit = 1e9 / 8 / MEGABYTE
    rate = STORES[0].rate
    assert rate is not None
    yield Limit("no cache: 5,500 GET/s of one S3 prefix", rate, requests_cold(load), options.wait)
    yield Limit(f"no cache: {AZURE} Gbit/s of an Azure account", AZURE * gigabit, bytes_cold(catalog), options.wait)
    yield Limit(
        f"one cache: its network, {options.cache_gbit:g} Gbit/s",
        options.cache_gbit * gigabit,
        bytes_cold(catalog),
        options.wait,
    )
    served = units.serve.variable(load)
    yield Limit(f"one cache: {options.cache_cores} processors, TLS", options.cache_cores, served, options.wait)
    yield Limit("any cache: names, 5,500 GET/s of one S3 prefix", rate, 1, options.wait)


# -- tables -----------------------------------------------------------------------------------------------------


def show_units(units: Units) -> None:
    def row(what: str, cost: Cost) -> list[str]:
        return [
            what,
            f"{cost.start:.2f}",
            f"{1000 * cost.pack:.1f}",
            f"{1000 * cost.megabyte:.1f}",
            f"{1e6 * cost.file:.0f}",
        ]

    def less(one: Cost, other: Cost) -> Cost:
        return Cost(*(max(0.0, mine - its) for mine, its in zip(one, other, strict=True)))

    table(
        ["processor time of", "start s", "pack ms", "MB ms", "file us"],
        [
            row("push: making", units.make),
            row("push: sending", less(units.push, units.make)),
            row("pull: fetching", units.fetch),
            row("pull: adopting", less(units.pull, units.fetch)),
            row("nginx: serving", units.serve),
            row("pull: the kernel's writing", units.write),
            row("gc: reading a catalog", units.read),
            row("pull, seconds on two processors", units.pull_wall),
        ],
    )


def show_packs(units: Units, catalogs: Sequence[Catalog], options: argparse.Namespace) -> None:
    store = STORES[0]
    lines = []
    for catalog in catalogs:
        for size in PACKS:
            load = catalog.load(size)
            objects = math.ceil(options.terabytes * 1e12 / (size * MEBIBYTE))
            lines.append(
                [
                    catalog.name,
                    f"{size} MiB",
                    requests_cold(load),
                    f"{seconds_alone(units, catalog, size, Link(options.latency / 1000, options.runner_gbit)):.1f}",
                    f"{options.runners * requests_cold(load) / 1e6:.2f} M",
                    f"{options.runners * requests_cold(load) / 1e6 * store.get:.2f}",
                    f"{objects / 1e6:.1f} M",
                    f"{objects / 1e6 * store.put:.0f}",
                    f"{math.ceil(objects / LIST):,}",
                ]
            )
    titles = ["catalog", "packs of", "requests", "a pull s", "of the fleet", "$", f"in {options.terabytes:g} TB"]
    table([*titles, "$ to push", "requests to list"], lines)


def show_fleets(units: Units, catalogs: Sequence[Catalog], options: argparse.Namespace) -> None:
    lines = []
    runners, store = options.runners, STORES[0]
    for catalog in catalogs:
        load = catalog.load(USUAL)
        delta = catalog._replace(megabytes=catalog.megabytes * options.delta / 100)
        # Of a change, the blobs are in new packs; the catalog's object comes whole.
        changed = Load(max(1, delta.load(USUAL).packs), delta.megabytes, 0)
        for kind, asked, moved in (
            ("cold", requests_cold(load), bytes_cold(catalog)),
            (f"{options.delta:g} % changed", requests_cold(changed), bytes_cold(delta)),
            ("warm", 1, 0.0002),
        ):
            for cached in (False, True):
                requests = runners + asked - 1 if cached else runners * asked
                gigabytes = (moved if cached else runners * moved) / 1000
                if cached and kind == "warm":
                    requests, gigabytes = runners, runners * moved / 1000
                needed = runners * moved * MEGABYTE * 8 / 1e9 / options.wait
                lines.append(
                    [
                        catalog.name,
                        kind,
                        "nginx" if cached else "none",
                        f"{requests:,}",
                        f"{gigabytes:,.1f}",
                        f"{needed:,.1f}",
                        f"{requests / (store.rate or 1):.1f}",
                        *(f"{requests / 1e6 * each.get + gigabytes * each.out:,.2f}" for each in STORES),
                        f"{runners * moved / 1000 * CDN_GIGABYTE + runners * asked / 1e6 * CDN_REQUESTS:,.2f}",
                    ]
                )
    titles = ["catalog", "fleet", "cache", "requests to the store", "GB from it", f"Gbit/s for {options.wait:g} s"]
    titles += [f"s at {store.rate}/s", "$ S3, internet", "$ R2", "$ by a CDN"]
    table(titles, lines)


def show_limits(units: Units, catalogs: Sequence[Catalog], options: argparse.Namespace) -> None:
    for catalog in catalogs:
        exhausted = sorted(limits(units, catalog, options), key=lambda limit: limit.runners)
        table(
            [f"what breaks, {catalog.name}", "holds for", "runners"],
            [[limit.what, f"{limit.seconds:.0f} s", f"{limit.runners:,.0f}"] for limit in exhausted],
        )
    rate = STORES[0].rate
    assert rate is not None
    link = Link(options.latency / 1000, options.runner_gbit)
    lines = []
    for runners in FLEETS:
        cells = [f"{runners:,}"]
        for load in (catalogs[0].load(USUAL), None):
            found = storm(runners, load, rate, link)
            cells += [f"{found.refused:,}", f"{found.seconds:.0f}", f"{found.failed:,}"]
        lines.append(cells)
    titles = ["runners at once", f"no cache: refused at {rate:,}/s", "s until the last has all", "pulls fail"]
    table([*titles, "a cache: names refused", "s until the last has its name", "pulls fail"], lines)


def show_upkeep(units: Units, catalogs: Sequence[Catalog], options: argparse.Namespace) -> None:
    """What grows with the size of the remote, and not with the fleet."""
    seconds = options.latency / 1000
    lines = []
    for catalog in catalogs:
        packs = math.ceil(options.terabytes * 1e12 / (USUAL * MEBIBYTE))
        listed = math.ceil(packs / LIST) + 2 * math.ceil(options.catalogs / LIST)
        reading = units.read.variable(Load(0, 0, catalog.files))
        every = options.catalogs * (3 * seconds / AT_ONCE + reading / CORES)  # its name, its key, itself
        garbage = packs / 10 * 92 / MEGABYTE
        lines.append(
            [
                catalog.name,
                f"{packs / 1e6:.1f} M",
                f"{(listed * seconds + every) / 60:.0f} min",
                f"{options.catalogs * catalog.object / 1000:.1f} GB",
                f"{options.catalogs * 2 * seconds / AT_ONCE / 60:.0f} min",
                f"{garbage:.0f} MB",
                *(f"{options.terabytes * 1000 * store.month:,.0f}" for store in STORES),
            ]
        )
    titles = ["catalogs like", "packs", "remote gc", "it reads", "remote list", "garbage, if 10 % is"]
    table([*titles, "$ a month S3", "$ R2"], lines)


# -- the check --------------------------------------------------------------------------------------------------


def check(yard: Yard, units: Units, rounds: int) -> list[list[str]]:
    """Predictions beside what happens: of pulls of the environment, which no unit cost was made from."""
    load = yard.loads["env", USUAL]
    env = Catalog("env", load.megabytes, load.files, units.catalog, fill_of(load))

    def together(number: int, url: str) -> float:
        homes = [yard.root / f"home{index}" for index in range(number)]
        yard.filesystem.settle()
        begin = time.perf_counter()
        running = [
            subprocess.Popen(
                yard.pull("env", USUAL, url=url),
                env=yard.at(home),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            for home in homes
        ]
        if max(process.wait() for process in running):
            raise FailedError("a pull failed")
        seconds = time.perf_counter() - begin
        yard.clear(*homes)
        return seconds

    link = Link(0.05, 1000)
    with network.delayed(yard.web.url, 50) as far:
        cases = [
            ("one pull", 1, yard.web.url, units.pull_wall.of(load)),
            (f"{PULLERS} pulls at once", PULLERS, yard.web.url, seconds_together(units, load, PULLERS)),
            ("one pull, 50 ms", 1, far, seconds_alone(units, env, USUAL, link)),
        ]
        lines = []
        for what, number, url, predicted in cases:
            note(f"check: {what}")
            real = statistics.median(together(number, url) for _ in range(rounds))
            error = (predicted - real) / real
            told = verdict(abs(error) <= MOST_ERROR)
            lines.append([what, f"{predicted:.2f}", f"{real:.2f}", f"{100 * error:+.0f} %", told])
    return lines


def change_a_package(yard: Yard) -> list[float]:
    """Push and pull of a catalog in which one package differs; megabytes and requests."""
    packages = next((yard.root / "env").glob("lib/python*/site-packages"))
    sizes = sorted((trees.count(item).bytes, item) for item in packages.iterdir() if item.is_dir())
    package = next(item for size, item in sizes if size >= MEGABYTE // 5)
    yard.holo("pull", "env", f"{yard.web.url}/{USUAL}", home=yard.fresh)
    for file in package.rglob("*"):
        if file.is_file():
            with file.open("ab") as opened:
                opened.write(b"\n# another version\n")
    yard.holo("record", str(yard.root / "env"), "--name", "env-2")
    remote = yard.served / str(USUAL)
    before = {*remote.glob("*/*")}
    pushed = json.loads(execute(yard.push_command("env-2", USUAL, str(remote)), yard.at()))
    new = {path.parent.name: path.stat().st_size / MEGABYTE for path in {*remote.glob("*/*")} - before}
    pulled = json.loads(yard.holo("pull", "env-2", f"{yard.web.url}/{USUAL}", "--json", home=yard.fresh))
    yard.clear()
    found = [new["packs"], new["catalogs"], pushed["bytes"]["sent"] / MEGABYTE, pulled["bytes"]["received"] / MEGABYTE]
    return [*found, pushed["requests"], pulled["requests"]]


def measure(options: argparse.Namespace, workspace: Path, tools: Tools) -> tuple[Units, list[list[str]]]:
    """All that the formulas need, on one filesystem; and the lines of the table of the check."""
    with mounted(options.filesystems[0], workspace, scale(options).image) as filesystem, ExitStack() as opened:
        note("preparing")
        yard = Yard(filesystem, tools, quick=options.quick)
        yard.open(opened)
        remote = yard.served / str(USUAL)
        pointer = json.loads((remote / "names" / "env").read_text())
        catalog = (remote / "catalogs" / pointer["catalog"]).stat().st_size / MEGABYTE
        costs = weigh(yard, options.rounds)
        units = Units(env=yard.loads["env", USUAL], catalog=catalog, delta=[], **costs)
        checked = check(yard, units, options.rounds)
        return units._replace(delta=change_a_package(yard)), checked


def show(units: Units, checked: list[list[str]], options: argparse.Namespace) -> None:
    """All tables."""
    fill = fill_of(units.env)
    env = Catalog("measured", units.env.megabytes, units.env.files, units.catalog, fill)
    share = options.terabytes * 1e6 / options.catalogs
    many = 5 * env.files
    large = Catalog("large", share, many, env.object * many / env.files, fill)
    catalogs = (env, large)
    show_units(units)
    table(["model against", "predicted s", "measured s", "error", f"at most {100 * MOST_ERROR:.0f} %"], checked)
    table(
        ["catalog", "packs MB", "files", "its object MB"],
        [[item.name, f"{item.megabytes:,.0f}", f"{item.files:,}", f"{item.object:.1f}"] for item in catalogs],
    )
    packs, objects, sent, received, asked, answered = units.delta
    table(
        ["one package differs", "new packs MB", "catalog MB", "moved MB", "of both", "requests"],
        [
            ["push", f"{packs:.2f}", f"{objects:.2f}", f"{sent:.2f}", f"{sent / (packs + objects):.2f}x", asked],
            [
                "pull",
                f"{packs:.2f}",
                f"{objects:.2f}",
                f"{received:.2f}",
                f"{received / (packs + objects):.2f}x",
                answered,
            ],
        ],
    )
    show_packs(units, catalogs, options)
    show_fleets(units, catalogs, options)
    show_limits(units, catalogs, options)
    show_upkeep(units, catalogs, options)


def measure_all(options: argparse.Namespace, workspace: Path) -> bool:
    """Measure, run the model, print."""
    tools = Tools.find(options.holo, workspace, options.quick)
    units, checked = measure(options, workspace, tools)
    what = f"{options.runners:,} runners, {options.catalogs:,} catalogs, {options.terabytes:g} TB."
    heading(tools.versions(), f"{options.filesystems[0]}. Medians of {options.rounds} rounds. {what}")
    if options.quick:
        print("A quick run: too small to judge anything by.")
    show(units, checked, options)
    return True


def main() -> int:
    """Run, print, and leave nothing behind."""
    options = parser(__doc__, rounds=3)
    options.set_defaults(filesystems=["ext4"])
    options.add_argument("--runners", type=int, default=10_000, help="that start at once")
    options.add_argument("--catalogs", type=int, default=5_000)
    options.add_argument("--terabytes", type=float, default=50, help="of all packs")
    options.add_argument("--delta", type=float, default=5, metavar="PERCENT", help="of a catalog that is new")
    options.add_argument("--latency", type=float, default=50, metavar="MS", help="of a round trip")
    options.add_argument("--wait", type=float, default=60, metavar="SECONDS", help="that a cold start may take")
    options.add_argument("--runner-gbit", type=float, default=10, help="network of a runner")
    options.add_argument("--cache-gbit", type=float, default=25, help="network of a cache")
    options.add_argument("--cache-cores", type=int, default=8, help="processors of a cache")
    return start(measure_all, options)


if __name__ == "__main__":
    sys.exit(main())
