"""Pulls and pushes that are killed go on where they were; and pushes, pulls and collections at once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support import compare, trees
from support.forks import Forks
from support.libraries import torn
from support.machines import Machine, Make
from support.remotes import Client, Place, Places
from support.servers import Asked, Fault, FaultyProxy

pytestmark = pytest.mark.torture

PACK = 1 << 18
SMALL_PACKS = {"holo.remote.packs.PACK": PACK, "holo.remote.push.PACK": PACK}
POINTS, MANY_POINTS = 2, 50
SECONDS, LONG_SECONDS = {"folder": 3, "moto": 5}, 60

Note = Callable[[int, str, int], None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "tree"
    for number in range(400):
        trees.write(root / f"folder-{number % 9}" / f"{number}", random.Random(number).randbytes(8000))
    trees.write(root / "large", random.Random(1).randbytes(3 * PACK))
    return trees.settle(root)


def killed_at(proxy: FaultyProxy, number: int, kill: Callable[[], None]) -> Callable[[Asked], Fault | None]:
    """Kill who asks when that many bytes of packs have been asked for or sent: in the middle of one."""
    seen = Counter[str]()

    def rule(asked: Asked) -> Fault | None:
        seen["asked"] += 1
        if seen["asked"] == number:
            kill()
        return Fault(rate=6_000_000)

    return rule


def start(client: Client, forks: Forks, *arguments: str) -> int:
    machine = client.machine
    environment = machine.environment(client.place.environment)
    return forks.start(*arguments, env=environment, cwd=machine.root, memory=0, tune=machine.tune)


def children_of(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def kill_family(process: int) -> None:
    """As the kernel does it when memory is short, or whoever pulls the plug: nobody can say goodbye."""
    with suppress(FileNotFoundError):
        for each in (*children_of(process), process):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["https", "moto"])
def test_killed_pull_goes_on_where_it_was(
    kind: str, machine: Make, places: Places, source: Path, forks: Forks, torture: bool, faults: Note
) -> None:
    """All in all no more comes than one pull needs, and what was on the way when it was killed."""
    place = places.new(kind)
    assert place.server is not None
    a = Client(machine("local"), place)
    a.machine.tune = {**a.machine.tune, **SMALL_PACKS}
    a.machine.record(source, "app")
    a.push("app")
    whole = sum(size for key, size in place.objects.sizes().items() if key.startswith(("packs/", "catalogs/")))
    with FaultyProxy(place.server.url) as proxy:
        far = place._replace(server=proxy)
        if kind == "https":
            far = far._replace(url=proxy.url + place.url.removeprefix(place.server.url))
        else:
            far = far._replace(environment={**place.environment, "AWS_ENDPOINT_URL": proxy.url})
        points = MANY_POINTS if torture else POINTS
        faults(2, "kill -9 of a pull, which then goes on", points)
        rng = random.Random(kind)
        for _ in range(points):
            b = Client(machine("tmpfs"), far)
            proxy.clear()
            proxy.forget()
            kills = 0
            for _ in range(rng.randrange(1, 4)):
                process = 0
                at = rng.randrange(1, 14)
                going = threading.Event()

                def kill(going: threading.Event = going, delay: float = rng.uniform(0, 0.05)) -> None:
                    going.wait(10)
                    time.sleep(delay)
                    kill_family(process)  # noqa: B023 - it is set when it is going

                proxy.rule = killed_at(proxy, at, kill)
                process = start(b, forks, "pull", "app", far.url)
                going.set()
                kills += forks.wait(process) != 0  # it may still say that a worker of its was killed
                assert torn(b.machine) == []
                if [*(b.machine.library / "catalog").glob("*")]:  # it was quicker
                    assert b.machine.is_sound()
            proxy.clear()
            b.pull("app")
            assert b.machine.is_sound()
            received = sum(request.sent for request in proxy.requests if "/packs/" in request.path)
            # What the kernel holds of a connection that is gone counts as sent; each worker has one.
            window = 8 * min(PACK, whole)
            assert received <= whole + kills * window, (received, whole, kills)
            assert compare.differences(source, b.machine.init("s", "app")) == []


@pytest.mark.parametrize("kind", ["folder", "moto"])
def test_killed_push_goes_on_where_it_was(
    kind: str, machine: Make, places: Places, source: Path, forks: Forks, torture: bool, faults: Note
) -> None:
    points = MANY_POINTS if torture else POINTS
    faults(2, "kill -9 of a push, which then goes on", points)
    rng = random.Random(kind)
    a = Client(machine("local"), places.new(kind))
    a.machine.tune = {**a.machine.tune, **SMALL_PACKS}
    a.machine.record(source, "app")
    for _ in range(points):
        place = places.new(kind)
        a.place = place
        sent = 0
        for _ in range(rng.randrange(1, 4)):
            process = start(a, forks, "push", "app", place.to)
            time.sleep(rng.uniform(0.02, 0.5))
            kill_family(process)
            forks.wait(process)
            assert place.problems() == []
            sent += sum(key.startswith("packs/") for key in place.objects.sizes())
        there = place.objects.sizes()
        pushed = a.push("app")
        assert place.problems() == []
        assert set(place.names()) == {"app"}
        new = place.objects.sizes().keys() - there.keys()
        assert pushed["packs"] == sum(key.startswith("packs/") for key in new), "what was there was sent again"
    b = Client(machine("tmpfs"), a.place)
    b.pull("app")
    assert compare.differences(source, b.machine.init("s", "app")) == []


# -- all at once ----------------------------------------------------------------------------------------------------


class Party:
    """Somebody who does the same again and again, with processes of their own."""

    def __init__(self, work: Callable[[Machine, int], None], machine: Machine) -> None:
        self.forks = Forks()
        self.machine = machine
        machine._forks = self.forks
        self._work = work
        self.count = 0
        self.failure: BaseException | None = None

    def go(self, until: float, over: threading.Event) -> None:
        try:
            while time.monotonic() < until and not over.is_set():
                self._work(self.machine, self.count)
                self.count += 1
        except BaseException as failure:  # noqa: BLE001 - shown by the test
            self.failure = failure
            over.set()


NAMES = ("one", "two")
GRACE = 4


def storm_tree(root: Path, who: int, round_: int) -> Path:
    """Much that all of them have, and something that is theirs for a while."""
    for number in range(12):
        trees.write(root / "common" / f"{number}", random.Random(number).randbytes(20_000))
    for number in range(6):
        trees.write(root / "own" / f"{number}", random.Random(f"{who} {round_ // 2} {number}").randbytes(15_000))
    trees.write(root / "round", f"{who} {round_}")
    return trees.settle(root)


class Storm:
    """What everybody does."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def client(self, run: Machine) -> Client:
        made = Client(run, self._place)
        run.tune = {**run.tune, **SMALL_PACKS, "holo.remote.garbage.GRACE": GRACE}
        return made

    def pusher(self, who: int) -> Callable[[Machine, int], None]:
        def push(run: Machine, round_: int) -> None:
            tree = storm_tree(run.root / f"tree-{round_ % 2}-{round_}", who, round_)
            name = NAMES[round_ % 3 % 2]
            run.record(tree, name)
            self.client(run).push(name)

        return push

    def pull(self, run: Machine, round_: int) -> None:
        name = NAMES[round_ % 2]
        pulled = self.client(run).pull(name)
        assert run("check", "--json").json()["problems"] == []
        space = run.init(f"s{round_}", pulled["catalog"]["digest"])
        assert len([*(space / "common").iterdir()]) == 12
        run("delete", "--space", f"s{round_}")
        if round_ % 4 == 3:  # and begins anew
            run("catalogs", "--remove", name)
            run("gc", "--keep-last", "0")

    def collect(self, run: Machine, round_: int) -> None:
        self.client(run)("remote", "gc", self._place.to)
        time.sleep(0.3)


@pytest.fixture
def parties() -> Iterator[list[Party]]:
    parties: list[Party] = []
    yield parties
    for party in parties:
        party.forks.close()


@pytest.mark.parametrize("kind", ["folder", "moto"])
def test_pushes_pulls_and_collections_at_once(
    kind: str, machine: Make, places: Places, parties: list[Party], torture: bool, faults: Note
) -> None:
    """Every pull is right, and nothing is lost that a name needs."""
    place = places.new(kind)
    storm = Storm(place)
    first = Party(storm.pusher(9), machine("local"))
    parties.append(first)
    for number in (0, 1):
        storm.pusher(9)(first.machine, number)
    parties += [Party(storm.pusher(who), machine("local")) for who in (1, 2)]
    parties += [Party(storm.pull, machine("tmpfs")) for _ in range(4)]
    parties.append(Party(storm.collect, machine("local")))
    for party in parties[1:]:
        party.machine("--version")
    until = time.monotonic() + (LONG_SECONDS if torture else SECONDS[kind])
    over = threading.Event()
    threads = [threading.Thread(target=party.go, args=(until, over)) for party in parties[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for party in parties:
        if party.failure is not None:
            raise party.failure
    faults(6, f"pushes, pulls and collections of a remote at once, {kind}", sum(party.count for party in parties))
    assert all(party.count for party in parties[1:])
    assert place.problems() == []
    last = storm.client(parties[-1].machine)
    assert last("remote", "check", place.to, "--read", "--json").json()["problems"] == []
    assert set(place.names()) == set(NAMES)
