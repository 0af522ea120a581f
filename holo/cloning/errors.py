"""The errors of a clone, all of which leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holo.errors import HoloError, advice

NOTHING_MADE = "Nothing was made."


def nothing_made(error: OSError) -> str:
    """The hint about an error that ended a clone."""
    return f"{advice(error) or ''} {NOTHING_MADE}".lstrip()


@contextmanager
def errors_as(message: str) -> Iterator[None]:
    """Turn an :class:`OSError` of the block into a :class:`HoloError`: ``message``, and what the system says."""
    try:
        yield
    except OSError as error:
        raise HoloError(f"{message}: {error.strerror}", nothing_made(error)) from error
