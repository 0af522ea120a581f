"""Where everything of one user's holo is, and how it works there: the value that every command is handed."""

from __future__ import annotations

from typing import NamedTuple

from holo.hololib import Library
from holo.hololib.locks import OnWait, say_waiting
from holo.holotree import Holotree


class Home(NamedTuple):
    """A library and the spaces made from it."""

    library: Library
    spaces: Holotree
    workers: int = 1
    """processes that work side by side"""
    on_wait: OnWait = say_waiting
    """called with messages for the user, above all before holo waits for a lock"""
