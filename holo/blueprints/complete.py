"""Check after a build that the packages are there: a tool that installed them elsewhere reports no failure."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable

from holo.blueprints.log import Log
from holo.blueprints.requirements import normalized
from holo.errors import HoloError

SITES = ("lib*/*/site-packages", "Lib/site-packages")


def distributions(stage: str) -> set[str]:
    """The Python packages in an environment, whoever installed them."""
    found = [
        path
        for site in SITES
        for kind in ("dist", "egg")
        for path in glob.glob(os.path.join(glob.escape(stage), site, f"*.{kind}-info"))
    ]
    return {normalized(os.path.basename(path).rpartition(".")[0].partition("-")[0]) for path in found}


def conda_packages(stage: str) -> set[str]:
    """The packages in a conda environment."""
    found = glob.glob(os.path.join(glob.escape(stage), "conda-meta", "*-*-*.json"))
    return {os.path.basename(path).rsplit("-", 2)[0].lower() for path in found}


def check(asked: Iterable[str], there: Collection[str], log: Log) -> None:
    """Raise :class:`HoloError` if a package that was asked for is not there."""
    missing = sorted(set(asked).difference(there))
    if missing:
        raise HoloError(
            f"the build failed: its tools report no error, but this is not in the environment: {', '.join(missing)}",
            f"A setting of theirs may lead elsewhere, or leave it out. Their log: {log.path}",
        )
