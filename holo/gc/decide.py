"""Decide what of a library goes. Nothing here reads or changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from holo.gc.policy import Policy
from holo.hololib.inventory import File, Inventory, LinkKey, Needs

MayRemove: TypeAlias = Callable[[str, str], bool]
"""Whether this user may remove a name from a folder of the library."""


@dataclass(frozen=True)
class Decision:
    """What is to be removed."""

    catalogs: list[str]
    kept: list[str]
    golden: list[str]
    marks: list[str]
    drafts: list[File]
    blobs: list[File]
    links: list[File]

    def within(self, may_remove: MayRemove) -> tuple[Decision, int]:
        """What of it this user may remove, and how many other items there are."""

        def own(files: list[File]) -> list[File]:
            return [file for file in files if may_remove(file.folder, file.name)]

        less = replace(
            self,
            golden=[
                digest
                for digest in self.golden
                if may_remove("golden", digest) and may_remove("golden", digest + ".json")
            ],
            marks=[name for name in self.marks if may_remove("used", name)],
            drafts=own(self.drafts),
            blobs=own(self.blobs),
            links=own(self.links),
        )
        counted = ("golden", "marks", "drafts", "blobs", "links")
        return less, sum(len(getattr(self, name)) - len(getattr(less, name)) for name in counted)


def decide(
    there: Inventory,
    needed: Mapping[str, Needs],
    holders: Mapping[str, Sequence[str]],
    policy: Policy,
    now: float,
    trees: Mapping[str, int],
) -> Decision:
    """The catalogs that the policy selects, and everything that no other catalog needs.

    A catalog stays if there are spaces that hold it: ``holders``, by its digest. If not all catalogs can be read, only
    drafts go: anything else may be needed by a catalog that can be repaired, or may help to repair it.
    """
    if there.damage:
        return Decision([], [], [], [], there.drafts, [], [])
    going, kept = _catalogs_to_go(there, needed, holders, policy, now, trees)
    staying = there.catalogs.keys() - set(going)
    blobs = frozenset[str]().union(*(needed[digest].blobs for digest in staying))
    links = frozenset[LinkKey]().union(*(needed[digest].links for digest in staying))
    return Decision(
        catalogs=going,
        kept=kept,
        golden=[digest for digest in there.golden if digest not in there.catalogs],
        marks=[name for name, digest in there.marks if digest not in there.catalogs],
        # A record or an import that was killed leaves a signature without its catalog.
        drafts=[*there.drafts, *(file for digest, file in there.signatures.items() if digest not in there.catalogs)],
        blobs=[file for digest, forms in there.blobs.items() if digest not in blobs for file in forms],
        links=[file for key, files in there.links.items() if key not in links for file in files],
    )


def _catalogs_to_go(
    there: Inventory,
    needed: Mapping[str, Needs],
    holders: Mapping[str, Sequence[str]],
    policy: Policy,
    now: float,
    trees: Mapping[str, int],
) -> tuple[list[str], list[str]]:
    """The selected catalogs that go, and those that spaces hold; the least recently used first."""
    by_use = sorted(there.catalogs, key=lambda digest: (there.catalogs[digest], digest))
    selected: set[str] = set()
    if policy.keep_days is not None:
        selected.update(digest for digest in by_use if there.catalogs[digest] < now - policy.keep_days * 86_400)
    if policy.keep_last is not None:
        selected.update(by_use[: max(0, len(by_use) - policy.keep_last)])
    if policy.max_size is not None:
        staying = [digest for digest in by_use if digest not in selected or digest in holders]
        selected.update(_until_it_fits(there, needed, holders, staying, policy.max_size, trees))
    return (
        [digest for digest in by_use if digest in selected and digest not in holders],
        [digest for digest in by_use if digest in selected and digest in holders],
    )


def _until_it_fits(
    there: Inventory,
    needed: Mapping[str, Needs],
    holders: Mapping[str, Sequence[str]],
    catalogs: list[str],
    most: int,
    trees: Mapping[str, int],
) -> Iterator[str]:
    """As many catalogs, in order, as have to go until the rest fits; with those among them that spaces hold."""
    users = Counter[object]()
    for digest in catalogs:
        users.update(needed[digest].blobs)
        users.update(needed[digest].links)
    sizes: dict[object, int] = {digest: sum(file.bytes for file in forms) for digest, forms in there.blobs.items()}
    sizes.update((key, sum(file.bytes for file in files)) for key, files in there.links.items())
    occupied = sum(sizes.get(item, 0) for item in users) + sum(trees.get(digest, 0) for digest in catalogs)
    for digest in catalogs:
        if occupied <= most:
            return
        yield digest
        if digest in holders:
            continue
        occupied -= trees.get(digest, 0)
        for item in (*needed[digest].blobs, *needed[digest].links):
            users[item] -= 1
            if not users[item]:
                occupied -= sizes.get(item, 0)


def not_removable(there: Inventory, may_remove: MayRemove) -> set[str]:
    """The catalogs that this user cannot remove, or not with all their names."""
    others = {digest for digest in there.catalogs if not may_remove("catalog", digest + ".json")}
    return others | {digest for name, digest in there.names.items() if not may_remove("names", name + ".json")}
