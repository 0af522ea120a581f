"""Laying the places of files over each other: who has which bytes of the disk."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from holo.platform.blocks import BOUNDED, ENCODED, SHARED
from holo.usage.account import Held, sum_up

LIBRARY, ONE, TWO = 1, 2, 4

parts = st.lists(
    st.tuples(
        st.sampled_from([LIBRARY, ONE, TWO, LIBRARY | ONE]),
        st.integers(0, 60),
        st.integers(1, 20),
        st.sampled_from([0, SHARED]),
        st.booleans(),
    ),
    max_size=12,
)


@given(parts)
def test_every_byte_is_of_those_that_have_it(found: list[Held]) -> None:
    """Beside a model that looks at every single byte."""
    wanted: Counter[tuple[int, bool]] = Counter()
    for byte in range(100):
        there = [held for held in found if held[1] <= byte < held[1] + held[2]]
        if there:
            holders = 0
            for held in there:
                holders |= held[0]
            is_alone = len(there) == 1 and bool(there[0][3] & SHARED)
            wanted[holders, is_alone or any(held[4] for held in there)] += 1
    assert sum_up(found, keeps_extents=False) == wanted


@given(parts)
def test_no_byte_counts_twice_where_extents_are_kept_whole(found: list[Held]) -> None:
    there = {byte for _, start, length, _, _ in found for byte in range(start, start + length)}
    assert sum_up(found, keeps_extents=True).total() == len(there)


def test_part_that_nobody_known_has_as_well_is_elsewhere() -> None:
    assert sum_up([(ONE, 0, 10, SHARED, False)], keeps_extents=True) == {(ONE, True): 10}


def test_two_files_of_one_holder_that_share_are_its_own() -> None:
    both = [(ONE, 0, 10, SHARED, False), (ONE, 0, 10, SHARED, False)]
    assert sum_up(both, keeps_extents=True) == {(ONE, False): 10}


def test_edited_clone_keeps_the_whole_extent_of_its_source() -> None:
    """The bytes that were replaced in the clone are only in the blob, but Btrfs does not free them."""
    blob = (LIBRARY, 0, 100, SHARED, False)
    clone = [(ONE, 0, 40, SHARED, False), (ONE, 60, 40, SHARED, False)]
    assert sum_up([blob, *clone], keeps_extents=True) == {(LIBRARY | ONE, False): 100}
    assert sum_up([blob, *clone], keeps_extents=False) == {(LIBRARY | ONE, False): 80, (LIBRARY, True): 20}


def test_compressed_part_ends_where_the_next_begins() -> None:
    """FIEMAP gives the length in memory, so compressed parts seem to overlap."""
    flags = SHARED | ENCODED | BOUNDED
    found = [(holder, start, 128, flags, False) for holder in (LIBRARY, ONE) for start in (0, 8, 20)]
    assert sum_up(found, keeps_extents=True) == {(LIBRARY | ONE, False): 148}


def test_half_of_a_compressed_part_is_all_of_it() -> None:
    flags = SHARED | ENCODED
    found = [(LIBRARY, 0, 16, flags, False), (ONE, 0, 16, flags, False), (ONE, 0, 16, flags, False)]
    assert sum_up(found, keeps_extents=True) == {(LIBRARY | ONE, False): 16}


def test_large_file_edited_in_many_places_takes_no_square_of_time() -> None:
    number = 20_000
    blob = (LIBRARY, 0, number * 10, SHARED, False)
    clone = [(ONE, index * 10, 9, SHARED, False) for index in range(number)]
    assert sum_up([blob, *clone], keeps_extents=False) == {(LIBRARY | ONE, False): 9 * number, (LIBRARY, True): number}
