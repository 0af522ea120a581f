"""Wheels made here, so that no index is needed."""

from __future__ import annotations

import zipfile
from pathlib import Path


def make(folder: Path, name: str, version: str = "1.0", *, needs: tuple[str, ...] = ()) -> Path:
    """A wheel with one module and one script, both named after it."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {line}\n" for line in needs)
    files = {
        f"{module}.py": f"import sys\n\n\ndef main():\n    print({name!r}, {version!r}, sys.prefix)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, text)
    return path
