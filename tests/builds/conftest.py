"""What all tests of builds share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from holo.platform import CLOCK_LAG_NS
from support.cli import Argument, Result
from support.forks import Forks


class UnhurriedForks(Forks):
    """Commands that start no sooner after what a test wrote than those of a user.

    A build is remembered only if its inputs are older than the lag of the filesystem's clock, and a fork starts faster.
    """

    def run(self, *arguments: Argument, **more: Any) -> Result:
        time.sleep(2 * CLOCK_LAG_NS / 1e9)
        return super().run(*arguments, **more)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Holo, loaded once: each command is a fork of it."""
    forks = UnhurriedForks()
    yield forks
    forks.close()
