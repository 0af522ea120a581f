"""What a library and a folder for spaces can do together: found out by trying, with the speed of it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from holo import platform
from holo.doctor import trials
from holo.doctor.advice import Folder, advise, explain
from holo.doctor.folders import existing, filesystem_type, is_shared, open_to_all, scratch
from holo.trees import views
from holo.trees.stubs import why_not_for_all
from holo.walk import directory_named


@dataclass(frozen=True)
class Capability:
    """One way to make files: whether it works here, why not, and how many it makes in a second."""

    available: bool
    reason: str | None
    files_per_second: float | None


@dataclass(frozen=True)
class Diagnosis:
    """The result of :func:`examine`."""

    library: Folder
    target: Folder
    capabilities: dict[str, Capability]
    advice: list[str]

    def to_json(self) -> dict[str, Any]:
        """The document that ``holo doctor --json`` prints."""
        return asdict(self)


def named(directory: str) -> str:
    """The folder that a user names, which has to be there. Raises :class:`NotFound`."""
    return directory_named(directory, "examine", "Make it first, or name the one above it.")


def examine(library_dir: str, target_dir: str) -> Diagnosis:
    """Try every way from ``library_dir`` to ``target_dir``: under a second, and nothing is left behind.

    For a folder that does not exist yet, the nearest one above it that does is tried.
    """
    library, target = _look_at(library_dir), _look_at(target_dir)
    with scratch(library_dir) as (source, _), scratch(target_dir) as (destination, shown):
        names = trials.make_sample(source)
        keeps_modes = trials.keeps_modes(source)
        outcomes = {
            "reflink": trials.files_per_second(lambda name: trials.reflink(source, destination, name), names),
            "hardlink": trials.files_per_second(
                lambda name: platform.link(source, name, destination, f"{name}.link"), names
            ),
            "snapshot": trials.files_per_second_by_snapshot(source, destination, names),
            "copy": trials.files_per_second(lambda name: trials.copy(source, destination, name), names),
        }
        why_no_mount = why_not_for_all(os.path.join(shown, "mount"))
        why_no_view = views.why_none(os.path.join(shown, "view"))
        why_no_stubs = trials.why_no_stubs(
            os.path.join(shown, "stubs"), outcomes["hardlink"], is_shared=is_shared(library_dir)
        )
    capabilities = {
        method: Capability(False, explain(method, outcome, library, target), None)
        if isinstance(outcome, OSError)
        else Capability(True, None, round(outcome, 1))
        for method, outcome in outcomes.items()
    }
    capabilities["overlay"] = Capability(why_no_mount is None, why_no_mount, None)
    capabilities["view"] = Capability(why_no_view is None, why_no_view, None)
    capabilities["stubs"] = Capability(why_no_stubs is None, why_no_stubs, None)
    advice = advise(library, target, outcomes, open_to_all(library_dir), keeps_modes=keeps_modes)
    return Diagnosis(library, target, capabilities, list(advice))


def _look_at(path: str) -> Folder:
    return Folder(path, filesystem_type(existing(path)))
