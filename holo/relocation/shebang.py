"""Rewrite a shebang that cannot contain the new path of its interpreter.

The kernel ends the interpreter's path at white space, and limits the length of the line. A rewritten line finds the
interpreter relative to the script instead, which no blank, quote or length can break:

    #!/usr/bin/env -S sh -c 'exec "$(dirname "$(readlink -f "$0")")/python3" "$0" "$@"'

It stays one line, so that an encoding (PEP 263) stays on the first two lines, and a docstring or ``from __future__``
stays the first statement. The form that pip writes takes three lines.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Sequence
from functools import cache

_BEFORE = re.compile(rb"#![ \t]*(?:/usr/bin/env[ \t]+(?:-S[ \t]*)?(?P<quote>[\"']?))?\Z")

_HARMLESS = re.compile(rb"[A-Za-z0-9_@%+=:,./-]*")
"""Characters without a meaning to env, sh and Python: the safe ones of :func:`shlex.quote`."""


def leads_to(before: bytes) -> bool:
    """Whether a file that begins like this goes on with the path of its interpreter."""
    return _BEFORE.match(before) is not None


def limit(system: str = sys.platform, release: str | None = None) -> int:
    """The length (bytes) of the longest shebang that this kernel accepts.

    BINPRM_BUF_SIZE of Linux is 256 since 5.1 and was 128; one byte of it is the newline. macOS: 512 (imgact_shell).
    """
    if system == "darwin":
        return 512
    if release is None and sys.platform != "win32":
        release = os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release or "")
    return 255 if numbers is not None and (int(numbers[1]), int(numbers[2])) >= (5, 1) else 127


def is_broken_by(at: int, new: bytes) -> bool:
    """Whether ``new`` as the interpreter's path, at byte ``at``, would break the line by its characters."""
    if at > len(b"/usr/bin/env"):  # env -S, which takes quotes, "$" and "#" for its own
        return _HARMLESS.fullmatch(new) is None
    return re.search(rb"\s", new) is not None


def rewrite(
    line: bytes, place: tuple[int, bytes, bytes], moves: Sequence[tuple[bytes, bytes]], path: str | None
) -> bytes:
    """The shebang to replace ``line``. ``place``: the offset, the old and the new path of the interpreter's root.

    ``moves``: all old and new paths. ``path``: of the script, relative to that root; ``None`` if it is outside.
    """
    at, old, new = place
    before = _BEFORE.match(line[:at])
    quote = before["quote"] if before is not None and before["quote"] else None
    rest = line[at + len(old) :].rstrip()
    tail, _, arguments = rest.partition(quote) if quote else _split(rest)
    arguments = arguments.strip()
    is_harmless = _HARMLESS.fullmatch(tail) and _HARMLESS.fullmatch(re.sub(rb"[ \t]", b"", arguments))
    if path is not None and is_harmless and env_splits():
        interpreter = posixpath.relpath(os.fsdecode(tail).lstrip("/"), os.path.dirname(path) or ".")
        return _relative(os.fsencode(interpreter), arguments)
    table = dict(moves)
    any_old = b"|".join(re.escape(each) for each in sorted(table, key=len, reverse=True))
    return _by_sh(new + tail, re.sub(any_old, lambda found: table[found[0]], arguments))


def _split(rest: bytes) -> tuple[bytes, bytes, bytes]:
    tail, *arguments = re.split(rb"[ \t]+", rest, maxsplit=1)
    return tail, b"", b"".join(arguments)


def _relative(interpreter: bytes, arguments: bytes) -> bytes:
    # `uv venv --relocatable` finds the interpreter in the same way, on three lines.
    found = b'"$(dirname "$(readlink -f "$0")")/%b"' % interpreter
    return b'#!/usr/bin/env -S sh -c \'exec %b "$0" "$@"\'' % b" ".join([found, *arguments.split()])


def _by_sh(interpreter: bytes, arguments: bytes) -> bytes:
    name = os.path.basename(interpreter)
    if b"python" not in name and b"pypy" not in name:
        # Only Python reads the form below as a string; others are found on the PATH of the space.
        return b"#!/usr/bin/env " + (b"-S " + name + b" " + arguments if arguments else name)
    # Quoted for sh without a backslash, which Python would take for an escape.
    quoted = re.sub(rb'([\\"$`])', b"\"'\\1'\"", interpreter)
    # pip writes the same (distlib's _build_shebang): sh executes the second line, Python sees a string.
    return b"#!/bin/sh\n'''exec' \"%b\"%b \"$0\" \"$@\"\n' '''" % (quoted, b" " + arguments if arguments else b"")


@cache
def env_splits() -> bool:
    """Whether env of this system has ``-S`` (GNU since 8.30, BSD, macOS; not BusyBox)."""
    import subprocess

    try:
        done = subprocess.run(["/usr/bin/env", "-S", "true"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0
