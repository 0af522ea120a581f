"""``python -m holo.blueprints.rattler PREFIX CHANNEL... -- SPEC...``: make a conda environment with py-rattler.

A program and not a function, so that it is run, shown, logged and killed like any other tool.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import rattler

# No file of an environment may be a link into the cache: to change it would change all environments.
_NO_LINKS = "allow-hard-links = false\nallow-symbolic-links = false\n"

_DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
"""The meaning of ``defaults`` for conda, except on Windows."""


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the caller reports it
    end = arguments.index("--")
    try:
        asyncio.run(_create(arguments[0], arguments[1:end], arguments[end + 1 :]))
    except Exception as error:  # noqa: BLE001 - rattler's errors have no base of their own
        _say(f"error: {error}")
        return 1
    return 0


async def _create(prefix: str, channels: list[str], specs: list[str]) -> None:
    config = _config()
    client = rattler.Client.from_config(config)
    chosen = os.environ.get("CONDA_SUBDIR")
    subdir = rattler.Subdir(chosen) if chosen else rattler.Subdir.current()
    _say(f"solving for {subdir}: {', '.join(specs)}")
    records = await rattler.solve(
        sources=[url for name in channels for url in (_DEFAULTS if name == "defaults" else (name,))],
        # Not strict: conda takes `numpy 1.26` as well.
        specs=[rattler.MatchSpec(spec, strict=False) for spec in specs],
        gateway=rattler.Gateway.from_config(config, client=client),
        platforms=[subdir, rattler.Subdir("noarch")],
        virtual_packages=rattler.VirtualPackage.detect(rattler.VirtualPackageOverrides.from_env()),
        channel_priority=rattler.ChannelPriority.Strict,
    )
    for record in sorted(records, key=lambda record: record.file_name):
        _say(f"  {record.file_name}  {record.channel}")
    await rattler.install(
        records,
        target_prefix=prefix,
        platform=subdir,
        execute_link_scripts=True,  # as conda and micromamba do: what is built must not depend on the tool
        client=client,
        config=config,
        reporter=_Progress(),  # type: ignore[abstract] # all its methods do nothing, and need not be here
    )


def _config() -> rattler.Config:
    """The settings that all programs made with rattler share, of the user and the system: mirrors, proxies, ..."""
    places = [(path, shared) for path, shared in rattler.Config.config_search_paths("holo") if shared and path.exists()]
    return rattler.Config.load_from_locations([*places]).merge(rattler.Config.from_toml(_NO_LINKS))


class _Progress(rattler.InstallerReporter):
    def on_populate_cache_start(self, operation: int, package_name: str) -> int:
        _say(f"fetching {package_name}")
        return operation

    def on_link_start(self, operation: int, package_name: str) -> int:
        _say(f"installing {package_name}")
        return operation


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    # Without the interpreter's own end, which threads of rattler do not always survive when they still report to it:
    # https://github.com/PyO3/pyo3-async-runtimes/issues/40
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
