"""Runs of the command line without the start of Python: one process that has imported holo forks for every command.

A request is a JSON array of arguments on one line of stdin; the answer is one of [exit code, stdout, stderr].
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from typing import IO

import yaml
import zstandard

import holo.activation
import holo.catalog_model
import holo.cli.render
import holo.gc
import holo.record
import holo.restore
from holo.api import Hololib

IMPORTED = (ctypes, yaml, zstandard)
"""What commands would import only when they need it."""


def run(arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if child == 0:
            become_holo(arguments, stdout, stderr)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(os.fsdecode(file.read()))
        return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def become_holo(arguments: list[str], stdout: IO[bytes], stderr: IO[bytes]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    sys.argv = ["holo", *arguments]
    try:
        holo.cli.main()
    finally:
        os._exit(99)


if __name__ == "__main__":
    Hololib().settings.effective()
    print("ready", flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)  # noqa: T201
